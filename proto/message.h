/* SPDX-License-Identifier: Apache-2.0 */
/* JSON-RPC 2.0: lines, requests, answers. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/method.h"

enum {
	PROTO_LINE_MAX = 64 * 1024, /* octets of a line, without its newline */
	PROTO_BATCH_MAX = 64, /* members of a batch */
};
#define PROTO_NUMBER_MAX ((UINT64_C(1) << 53) - 1)

/* Lines out of octets as they come. Owned by one client; zero-initialised is empty. */
struct proto_lines {
	char *buf;
	size_t start, end, size; /* unread octets are buf[start..end) */
	size_t scanned; /* octets from start that hold no newline */
	bool ended; /* no more octets will come */
	bool dead; /* a line was too long: there are no further lines */
};

enum proto_line_kind {
	PROTO_LINE_NONE, /* nothing complete: feed more */
	PROTO_LINE_JSON, /* begins with { or [ */
	PROTO_LINE_TEXT, /* a text command */
	PROTO_LINE_BAD, /* NUL, wrong UTF-8, or half a line at the end: answer `err`, go on */
	PROTO_LINE_TOO_LONG, /* answer `err`, then close */
};

struct proto_line {
	enum proto_line_kind kind;
	bool json; /* as far as can be seen: answer an error as JSON */
	const char *text; /* zero-terminated, valid until the next call on the lines */
	size_t len;
	struct proto_err err;
};

/* Copies n octets behind the others. Call proto_lines_next() until PROTO_LINE_NONE before feeding
 * more, and what is held is bounded by PROTO_LINE_MAX and n. 0, or -ENOMEM. */
int proto_lines_feed(struct proto_lines *l, const void *data, size_t n);
/* No more will come: half a line is now an error. */
void proto_lines_end(struct proto_lines *l);
/* The next line without its newline (and a carriage return before it). Empty lines are skipped. */
enum proto_line_kind proto_lines_next(struct proto_lines *l, struct proto_line *ret_line);
void proto_lines_fini(struct proto_lines *l);

/* A line to JSON: duplicate keys and anything behind the value are refused. 0 and a new reference, or
 * -EINVAL with PROTO_PARSE_ERROR and where. A batch is a JSON array; its limits are checked here
 * (empty: PROTO_INVALID_REQUEST; above PROTO_BATCH_MAX: PROTO_TOO_LARGE). */
int proto_decode(const char *line, size_t len, json_t **ret_value, struct proto_err *ret_err);

/* A request; all references are new ones, proto_request_fini() drops them. */
struct proto_request {
	enum method method;
	json_t *id; /* string, number or null; NULL: a notification, which gets no answer */
	json_t *params; /* an object, checked by proto_check_params() */
};

/* Zeroes and fills *ret_request. Refused: no object, jsonrpc other than "2.0", unknown members, an id
 * of another type, params by position, unknown methods, wrong params. On failure id holds what the
 * answer must carry (null when it could not be read), also for what looked like a notification when
 * the request was invalid; NULL only for a well-formed notification, which gets no answer. */
int proto_request_parse(const json_t *value, struct proto_request *ret_request,
			struct proto_err *ret_err);
void proto_request_fini(struct proto_request *r);

/* New references. id is borrowed (NULL: null); result is stolen (NULL: null). */
json_t *proto_request_new(uint64_t id, enum method m, json_t *params_stolen);
json_t *proto_result_new(json_t *id, json_t *result_stolen);
json_t *proto_error_new(json_t *id, const struct proto_err *err);
/* Compact, one line, with its newline. malloc'ed; *ret_len without the terminating zero. NULL: no memory. */
char *proto_encode(const json_t *value, size_t *ret_len);

/* A JSON integer, at most PROTO_NUMBER_MAX: larger values become that. */
json_t *proto_number(uint64_t v);
/* The same, but null for 0: for instants and measurements that are not there yet. */
json_t *proto_number_or_null(uint64_t v);
