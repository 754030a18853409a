/* SPDX-License-Identifier: Apache-2.0 */
/* A directory as a page of links. */
#pragma once
#include <stddef.h>

enum { HTTP_LISTING_MAX = 256 * 1024, HTTP_LISTING_ENTRIES = 1000 };

/* fd: the directory's, given away also on failure. path: as it was asked for, decoded. The page, malloc'ed, at
 * most HTTP_LISTING_MAX octets: what does not fit is left out, and the page says so. NULL: errno.
 */
char *http_listing(int fd, const char *path, size_t *ret_len);
