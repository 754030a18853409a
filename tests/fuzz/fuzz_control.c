/* SPDX-License-Identifier: Apache-2.0 */
/* What a client sends: octets to lines, lines to text commands and JSON requests, and answers to both.
 * The first octet says in which pieces the rest arrives.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/message.h"
#include "proto/params.h"
#include "proto/render.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An answer is one line of JSON, whatever it quotes. */
static void check_answer(json_t *answer_stolen)
{
	size_t len = 0;
	char *const line = proto_encode(answer_stolen, &len);

	assert(line && len && strchr(line, '\n') == line + len - 1);
	free(line);
	json_decref(answer_stolen);
}

/* A text answer ends with its only empty line. */
static void check_text(char *text)
{
	assert(text && strlen(text) >= 2 && strstr(text, "\n\n") == text + strlen(text) - 2);
	free(text);
}

static void check_error(const struct proto_err *err, json_t *id)
{
	assert(err->text[0] && err->code != PROTO_OK && err->code != PROTO_INTERNAL_ERROR);
	check_answer(proto_error_new(id, err));
	check_text(proto_text_error(err));
}

static void take_text(const char *line)
{
	struct proto_err err = { .text = "" };
	struct proto_request again;
	enum method m;
	json_t *params, *request;

	if (proto_parse_text(line, &m, &params, &err)) {
		check_error(&err, NULL);
		return;
	}
	/* The same as a request is the same call. */
	request = proto_request_new(1, m, json_incref(params));
	assert(!proto_request_parse(request, &again, &err));
	assert(again.method == m && json_equal(again.params, params));
	proto_request_fini(&again);
	json_decref(request);
	json_decref(params);
}

static void take_request(const json_t *value)
{
	struct proto_err err = { .text = "" };
	struct proto_request r;

	if (proto_request_parse(value, &r, &err))
		check_error(&err, r.id);
	else if (r.id)
		check_answer(proto_result_new(r.id, json_incref(r.params)));
	proto_request_fini(&r);
}

static void take_json(const struct proto_line *line)
{
	struct proto_err err = { .text = "" };
	json_t *value, *member;
	size_t i;

	if (proto_decode(line->text, line->len, &value, &err)) {
		check_error(&err, NULL);
		return;
	}
	if (json_is_array(value))
		json_array_foreach(value, i, member) take_request(member);
	else
		take_request(value);
	check_text(proto_text_result((enum method)(line->len % METHOD__COUNT), value));
	json_decref(value);
}

static void take_lines(struct proto_lines *lines)
{
	struct proto_line line;

	for (;;) {
		switch (proto_lines_next(lines, &line)) {
		case PROTO_LINE_NONE:
			return;
		case PROTO_LINE_JSON:
			take_json(&line);
			break;
		case PROTO_LINE_TEXT:
			take_text(line.text);
			break;
		case PROTO_LINE_BAD:
		case PROTO_LINE_TOO_LONG:
			check_error(&line.err, NULL);
			break;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proto_lines lines = { .buf = NULL };
	size_t piece;

	if (!size)
		return 0;
	piece = data[0] ? data[0] : size;
	for (size_t at = 1; at < size; at += piece) {
		if (proto_lines_feed(&lines, data + at, size - at < piece ? size - at : piece))
			abort();
		take_lines(&lines);
	}
	proto_lines_end(&lines);
	take_lines(&lines);
	proto_lines_fini(&lines);
	return 0;
}
