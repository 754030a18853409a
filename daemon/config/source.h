/* SPDX-License-Identifier: Apache-2.0 */
/* One file of configuration: its octets checked, its lines cut into sections, keys and values (by
 * inih), each with the number of its line. Knows no key.
 */
#pragma once
#include <stddef.h>

#include "base/errmsg.h"

/* What inih keeps of a section's and a key's name, with the terminating zero. */
enum { SOURCE_NAME = 50, SOURCE_LINE_MAX = 1000, SOURCE_FILE_MAX = 1 << 20 };

/* A section's heading (key ""), or a key of it. What it returns, if not 0, ends the reading. */
typedef int source_fn(void *arg, const char *section, const char *key, const char *value,
		      unsigned line);

/* Reads a whole file. -ENOENT, -EISDIR, -EFBIG, ... each with a message. *ret_text is the caller's. */
int source_load(const char *path, char **ret_text, size_t *ret_len, struct errmsg *ret_err);
/* Cuts `text`; `name` is what messages call it. -EINVAL with "NAME:LINE: what is wrong". */
int source_parse(const char *name, const char *text, size_t len, source_fn *fn, void *arg,
		 struct errmsg *ret_err);
/* Cuts the comment and the blanks off a value, in place: what follows a blank and # or ; outside
 * quotes. Returns its start. The same for a file's line and for -o.
 */
char *source_value(char *text);
/* Well-formed UTF-8 without control characters (blanks and tabs are none)? NULL, or what is wrong. */
const char *source_check_text(const char *text, size_t len);
