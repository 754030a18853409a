/* SPDX-License-Identifier: Apache-2.0 */
/* Help and completion, out of the table of methods. */
#pragma once
#include <stddef.h>
#include <stdio.h>

#include "proto/method.h"

void help_all(FILE *out);
void help_method(FILE *out, enum method m);
/* For the commands that begin with these words; all when there are none. 0, or -EINVAL: none does. */
int help_words(FILE *out, size_t n, const char *const *words, struct proto_err *ret_err);

/* What the last word could become, one a line, for shells: etc/completions calls it. */
void help_complete(FILE *out, size_t n, const char *const *words);
