/* SPDX-License-Identifier: Apache-2.0 */
/* JSON-RPC 2.0: lines, requests, answers. */
#include "proto/message.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/params.h"

int proto_lines_feed(struct proto_lines *l, const void *data, size_t n)
{
	if (l->dead || !n)
		return 0;
	if (l->start) {
		memmove(l->buf, l->buf + l->start, l->end - l->start);
		l->end -= l->start;
		l->start = 0;
	}
	/* One octet more, for the terminating zero of half a line. */
	if (l->end + n + 1 > l->size) {
		const size_t size = (l->end + n + 1) * 2;
		char *const buf = realloc(l->buf, size);

		if (!buf)
			return -ENOMEM;
		l->buf = buf;
		l->size = size;
	}
	memcpy(l->buf + l->end, data, n);
	l->end += n;
	return 0;
}

void proto_lines_end(struct proto_lines *l)
{
	l->ended = true;
}

void proto_lines_fini(struct proto_lines *l)
{
	free(l->buf);
	*l = (struct proto_lines){ .dead = true };
}

/* Octets of the UTF-8 sequence at s, which has n octets; 0: it is none (RFC 3629). */
static size_t utf8_sequence(const unsigned char *s, size_t n)
{
	static const unsigned least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const size_t len = s[0] < 0x80             ? 1
			   : (s[0] & 0xe0) == 0xc0 ? 2
			   : (s[0] & 0xf0) == 0xe0 ? 3
			   : (s[0] & 0xf8) == 0xf0 ? 4
						   : 0;
	unsigned code = len == 1 ? s[0] : s[0] & (0x7fu >> len);

	if (!len || len > n)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3fu);
	}
	if (code < least[len] || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff)
		return 0;
	return len;
}

/* PROTO_LINE_BAD with a message when an octet may not stand in a line. */
static void check_octets(struct proto_line *line)
{
	const unsigned char *const s = (const unsigned char *)line->text;

	for (size_t i = 0, len; i < line->len; i += len) {
		if (!s[i]) {
			line->kind = PROTO_LINE_BAD;
			proto_fail(&line->err, PROTO_PARSE_ERROR, "octet %zu of the line is NUL",
				   i + 1);
			return;
		}
		len = utf8_sequence(s + i, line->len - i);
		if (!len) {
			line->kind = PROTO_LINE_BAD;
			proto_fail(&line->err, PROTO_PARSE_ERROR,
				   "octet %zu of the line (0x%02x) is no UTF-8", i + 1, s[i]);
			return;
		}
	}
}

static enum proto_line_kind line_too_long(struct proto_lines *l, struct proto_line *line)
{
	l->dead = true;
	line->kind = PROTO_LINE_TOO_LONG;
	proto_fail(&line->err, PROTO_TOO_LARGE, "the line is longer than %d octets",
		   PROTO_LINE_MAX);
	return line->kind;
}

static enum proto_line_kind line_make(struct proto_line *line, char *text, size_t len)
{
	size_t blank = 0;

	text[len] = '\0';
	if (len && text[len - 1] == '\r')
		text[--len] = '\0';
	while (blank < len && (text[blank] == ' ' || text[blank] == '\t'))
		blank++;
	*line = (struct proto_line){ .text = text, .len = len };
	line->json = text[blank] == '{' || text[blank] == '[';
	if (blank == len)
		return line->kind = PROTO_LINE_NONE;
	line->kind = line->json ? PROTO_LINE_JSON : PROTO_LINE_TEXT;
	if (len > PROTO_LINE_MAX)
		return line->kind;
	check_octets(line);
	return line->kind;
}

enum proto_line_kind proto_lines_next(struct proto_lines *l, struct proto_line *ret_line)
{
	*ret_line = (struct proto_line){ .kind = PROTO_LINE_NONE };
	while (!l->dead && l->start < l->end) {
		char *const text = l->buf + l->start;
		const size_t held = l->end - l->start;
		const char *const newline = memchr(text + l->scanned, '\n', held - l->scanned);
		const size_t len = newline ? (size_t)(newline - text) : held;
		enum proto_line_kind kind;

		l->scanned = newline ? 0 : held;
		if (len > PROTO_LINE_MAX) {
			line_make(ret_line, text, len);
			return line_too_long(l, ret_line);
		}
		if (!newline && !l->ended)
			return PROTO_LINE_NONE;
		l->start += newline ? len + 1 : len;
		l->scanned = 0;
		kind = line_make(ret_line, text, len);
		if (kind != PROTO_LINE_NONE && !newline) {
			ret_line->kind = kind = PROTO_LINE_BAD;
			proto_fail(&ret_line->err, PROTO_PARSE_ERROR,
				   "half a line: %zu octets and then the end, no newline", len);
		}
		if (kind != PROTO_LINE_NONE)
			return kind;
	}
	return PROTO_LINE_NONE;
}

int proto_decode(const char *line, size_t len, json_t **ret_value, struct proto_err *ret_err)
{
	json_error_t why;
	json_t *const value = json_loadb(line, len, JSON_REJECT_DUPLICATES, &why);

	if (!value)
		return proto_fail(ret_err, PROTO_PARSE_ERROR, "no JSON: column %d: %s", why.column,
				  why.text);
	if (json_is_array(value) && !json_array_size(value)) {
		json_decref(value);
		return proto_fail(ret_err, PROTO_INVALID_REQUEST, "the batch is empty");
	}
	if (json_is_array(value) && json_array_size(value) > PROTO_BATCH_MAX) {
		proto_fail(ret_err, PROTO_TOO_LARGE, "a batch of %zu: at most %d are taken",
			   json_array_size(value), PROTO_BATCH_MAX);
		json_decref(value);
		return -EINVAL;
	}
	*ret_value = value;
	return 0;
}

/* Takes out id: 0, or -EINVAL when it is of no allowed type. */
static int request_id(const json_t *value, struct proto_request *r, struct proto_err *ret_err)
{
	json_t *const id = json_object_get(value, "id");

	if (id && !json_is_string(id) && !json_is_number(id) && !json_is_null(id)) {
		r->id = json_null();
		return proto_fail(ret_err, PROTO_INVALID_REQUEST,
				  "id: must be a string, a number or null");
	}
	r->id = json_incref(id);
	return 0;
}

/* The frame: members, version, method's type. What is left is the table's business. */
static int request_frame(const json_t *value, struct proto_err *ret_err)
{
	const json_t *const version = json_object_get(value, "jsonrpc");
	const json_t *const params = json_object_get(value, "params");

	for (void *i = json_object_iter((json_t *)(uintptr_t)value); i;
	     i = json_object_iter_next((json_t *)(uintptr_t)value, i)) {
		const char *const key = json_object_iter_key(i);

		if (strcmp(key, "jsonrpc") && strcmp(key, "id") && strcmp(key, "method") &&
		    strcmp(key, "params"))
			return proto_fail(
				ret_err, PROTO_INVALID_REQUEST,
				"\"%.64s\": unknown member; possible: jsonrpc, id, method, params",
				key);
	}
	if (!json_is_string(version) || strcmp(json_string_value(version), "2.0"))
		return proto_fail(ret_err, PROTO_INVALID_REQUEST, "jsonrpc: must be \"2.0\"");
	if (!json_is_string(json_object_get(value, "method")))
		return proto_fail(ret_err, PROTO_INVALID_REQUEST, "method: must be a string");
	if (json_is_array(params))
		return proto_fail(
			ret_err, PROTO_INVALID_PARAMS,
			"params: must be an object; parameters by position are not taken");
	if (params && !json_is_object(params))
		return proto_fail(ret_err, PROTO_INVALID_REQUEST, "params: must be an object");
	return 0;
}

int proto_request_parse(const json_t *value, struct proto_request *ret_request,
			struct proto_err *ret_err)
{
	struct proto_request *const r = ret_request;
	const json_t *params;
	int rc;

	*r = (struct proto_request){ .id = NULL };
	if (!json_is_object(value)) {
		r->id = json_null();
		return proto_fail(ret_err, PROTO_INVALID_REQUEST, "a request must be an object");
	}
	rc = request_id(value, r, ret_err);
	if (!rc)
		rc = request_frame(value, ret_err);
	if (rc) {
		/* What is no request cannot be a notification: it gets an answer. */
		if (!r->id)
			r->id = json_null();
		return rc;
	}
	rc = method_by_rpc(json_string_value(json_object_get(value, "method")), &r->method,
			   ret_err);
	if (rc)
		return rc;
	params = json_object_get(value, "params");
	r->params = params ? json_deep_copy(params) : json_object();
	if (!r->params)
		return proto_fail(ret_err, PROTO_INTERNAL_ERROR, "out of memory");
	return proto_check_params(r->method, r->params, ret_err);
}

void proto_request_fini(struct proto_request *r)
{
	json_decref(r->id);
	json_decref(r->params);
	r->id = r->params = NULL;
}

json_t *proto_number(uint64_t v)
{
	return json_integer((json_int_t)(v < PROTO_NUMBER_MAX ? v : PROTO_NUMBER_MAX));
}

json_t *proto_number_or_null(uint64_t v)
{
	return v ? proto_number(v) : json_null();
}

json_t *proto_request_new(uint64_t id, enum method m, json_t *params_stolen)
{
	return json_pack("{s:s,s:o,s:s,s:o*}", "jsonrpc", "2.0", "id", proto_number(id), "method",
			 method_get(m)->rpc, "params", params_stolen);
}

json_t *proto_result_new(json_t *id, json_t *result_stolen)
{
	return json_pack("{s:s,s:O?,s:o?}", "jsonrpc", "2.0", "id", id, "result", result_stolen);
}

json_t *proto_error_new(json_t *id, const struct proto_err *err)
{
	/* A message may quote octets that are no UTF-8, cut in the middle of a sequence. */
	json_t *message = json_string(err->text);

	if (!message) {
		char clean[sizeof(err->text)];

		snprintf(clean, sizeof(clean), "%s", err->text);
		for (char *p = clean; *p; p++)
			if ((unsigned char)*p >= 0x80)
				*p = '?';
		message = json_string(clean);
	}
	return json_pack("{s:s,s:O?,s:{s:i,s:o,s:{s:s}}}", "jsonrpc", "2.0", "id", id, "error",
			 "code", (int)err->code, "message", message, "data", "name",
			 proto_error_name(err->code));
}

char *proto_encode(const json_t *value, size_t *ret_len)
{
	char *const text = json_dumps(value, JSON_COMPACT);
	char *line;
	size_t len;

	if (!text)
		return NULL;
	len = strlen(text);
	line = realloc(text, len + 2);
	if (!line) {
		free(text);
		return NULL;
	}
	memcpy(line + len, "\n", 2);
	*ret_len = len + 1;
	return line;
}
