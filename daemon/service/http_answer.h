/* SPDX-License-Identifier: Apache-2.0 */
/* What a request for a file is answered: its preconditions (RFC 9110 13), its range (14), and the head of the
 * answer. Pure functions.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "service/http_request.h"

enum { HTTP_DATE_TEXT = 32, HTTP_ETAG_TEXT = 40, HTTP_ANSWER_HEAD_MAX = 2048 };

struct http_file {
	off_t size;
	struct timespec mtime; /* CLOCK_REALTIME */
	const char *type; /* Content-Type */
};

struct http_answer {
	unsigned status; /* 200, 206, 304, 412, 416 */
	off_t first, length; /* of the file, what the body is */
	char etag[HTTP_ETAG_TEXT], modified[HTTP_DATE_TEXT];
};

/* "Sun, 06 Nov 1994 08:49:37 GMT". Returns buf. */
const char *http_date_format(time_t t, char buf[static HTTP_DATE_TEXT]);
/* In each of the three forms of RFC 9110 5.6.7. -EINVAL. */
int http_date_parse(struct http_text text, time_t *ret_time);
/* By the ending of its name; never NULL. */
const char *http_type(const char *name);
const char *http_reason(unsigned status);
/* now: seconds, for how sure the time of the file's last change is. */
void http_answer_decide(const struct http_request *r, const struct http_file *file, time_t now,
			struct http_answer *ret_answer);
/* The head, with its empty line; its length, 0 when it is too long. file and answer NULL: of a body of `length` octets of
 * another kind, `type` "" when there is none. more: whole lines to put in, or "". */
size_t http_head_format(unsigned status, const char *date, bool keep, const struct http_file *file,
			const struct http_answer *answer, off_t length, const char *type,
			const char *more, char ret_head[static HTTP_ANSWER_HEAD_MAX]);
