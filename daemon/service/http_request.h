/* SPDX-License-Identifier: Apache-2.0 */
/* The head of an HTTP/1 request, RFC 9112 2 to 6: pure functions of its text, which holds whatever a stranger
 * wrote. What is doubtful there is refused rather than guessed.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	HTTP_HEAD_MAX = 16384, /* octets of a head, and */
	HTTP_LINE_MAX = 8192, /* of its first line: RFC 9112 3 asks for 8000 or more */
	HTTP_FIELDS_MAX = 100,
	HTTP_PATH_MAX = 4096, /* decoded, with its zero */
};

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_KNOWN, HTTP_UNKNOWN };

/* Fields that count. A second one of the same name is refused, but for the lists of entity tags. */
enum http_field {
	HTTP_HOST,
	HTTP_CONNECTION,
	HTTP_CONTENT_LENGTH,
	HTTP_TRANSFER_ENCODING,
	HTTP_RANGE,
	HTTP_IF_RANGE,
	HTTP_IF_MATCH,
	HTTP_IF_NONE_MATCH,
	HTTP_IF_MODIFIED_SINCE,
	HTTP_IF_UNMODIFIED_SINCE,
	HTTP__FIELDS
};

/* Borrowed from the head; at NULL: there is none. */
struct http_text {
	const char *at;
	size_t len;
};

struct http_request {
	enum http_method method;
	struct http_text path, query; /* as sent; query without its '?' */
	unsigned minor; /* HTTP/1.x: 0, or 1 and above */
	bool keep; /* the peer wants the connection to stay */
	bool has_body; /* text follows that is no request */
	struct http_text fields; /* all of them: for http_field_next() */
	struct http_text field[HTTP__FIELDS]; /* the first of each name, trimmed */
};

/* Octets of the head at the beginning of text, its empty line included; 0: its end is not there yet.
 * *scanned is 0 for a new head, and then what the last call left: nothing is looked at twice.
 */
size_t http_head_end(const char *text, size_t len, size_t *scanned);
/* 0, or the status to refuse it with: 400, 414, 431, 501, 505. method and minor are set also then, as far as
 * the first line was good; keep is not.
 */
unsigned http_request_parse(const char *head, size_t len, struct http_request *ret_request);
/* The next field of that name behind *cursor (0 to start). */
bool http_field_next(const struct http_request *r, enum http_field field, size_t *cursor,
		     struct http_text *ret_value);
/* The file that is asked for: decoded, without the leading slashes, "" for the root. 0 or 400. */
unsigned http_path_decode(const struct http_text *path, char ret_path[static HTTP_PATH_MAX]);
