/* SPDX-License-Identifier: Apache-2.0 */
/* Lines out of octets; requests and answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/message.h"

static void feed(struct proto_lines *l, const char *text)
{
	assert_int_equal(proto_lines_feed(l, text, strlen(text)), 0);
}

static void expect_line(struct proto_lines *l, enum proto_line_kind kind, const char *text)
{
	struct proto_line line;

	assert_int_equal(proto_lines_next(l, &line), kind);
	assert_int_equal(line.kind, kind);
	if (text) {
		assert_string_equal(line.text, text);
		assert_int_equal(line.len, strlen(text));
	}
}

static void test_lines(void **state)
{
	struct proto_lines l = { 0 };

	expect_line(&l, PROTO_LINE_NONE, NULL);
	feed(&l, "status\n{\"a\":1}\n  [1]\r\n\n \t \n\xc3\xa4\n");
	expect_line(&l, PROTO_LINE_TEXT, "status");
	expect_line(&l, PROTO_LINE_JSON, "{\"a\":1}");
	expect_line(&l, PROTO_LINE_JSON, "  [1]");
	expect_line(&l, PROTO_LINE_TEXT, "\xc3\xa4");
	expect_line(&l, PROTO_LINE_NONE, NULL);
	proto_lines_fini(&l);
	proto_lines_fini(&l);
}

/* Octet by octet, each line comes exactly once, when its newline has come. */
static void test_lines_by_octet(void **state)
{
	static const char text[] = "list connections\n{\"jsonrpc\":\"2.0\"}\n";
	struct proto_lines l = { 0 };
	struct proto_line line;
	unsigned lines = 0;

	for (size_t i = 0; text[i]; i++) {
		assert_int_equal(proto_lines_feed(&l, text + i, 1), 0);
		while (proto_lines_next(&l, &line) != PROTO_LINE_NONE) {
			assert_int_equal(text[i], '\n');
			assert_int_equal(line.kind, lines++ ? PROTO_LINE_JSON : PROTO_LINE_TEXT);
		}
	}
	assert_int_equal(lines, 2);
	proto_lines_fini(&l);
}

static void test_half_line(void **state)
{
	struct proto_lines l = { 0 };
	struct proto_line line;

	feed(&l, "status\nstat");
	expect_line(&l, PROTO_LINE_TEXT, "status");
	expect_line(&l, PROTO_LINE_NONE, NULL);
	proto_lines_end(&l);
	assert_int_equal(proto_lines_next(&l, &line), PROTO_LINE_BAD);
	assert_string_equal(line.err.text, "half a line: 4 octets and then the end, no newline");
	assert_false(line.json);
	expect_line(&l, PROTO_LINE_NONE, NULL);
	proto_lines_fini(&l);
}

static void test_bad_octets(void **state)
{
	static const char *const wrong[] = {
		"a\xff\n",    "\xc0\x80\n",   "\xed\xa0\x80\n",        "\xf4\x90\x80\x80\n",
		"\xe2\x82\n", "{\"\x80\"}\n", "\xf8\x88\x80\x80\x80\n"
	};
	struct proto_lines l = { 0 };
	struct proto_line line;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		feed(&l, wrong[i]);
		assert_int_equal(proto_lines_next(&l, &line), PROTO_LINE_BAD);
		assert_int_equal(line.err.code, PROTO_PARSE_ERROR);
		assert_non_null(strstr(line.err.text, "is no UTF-8"));
		assert_int_equal(line.json, wrong[i][0] == '{');
	}
	assert_int_equal(proto_lines_feed(&l, "{\"a\0b\"}\nstatus\n", 15), 0);
	assert_int_equal(proto_lines_next(&l, &line), PROTO_LINE_BAD);
	assert_string_equal(line.err.text, "octet 4 of the line is NUL");
	assert_true(line.json);
	expect_line(&l, PROTO_LINE_TEXT, "status");
	proto_lines_fini(&l);
}

static char *long_line(size_t n)
{
	char *text = malloc(n + 2);

	memset(text, 'x', n);
	memcpy(text + n, "\n", 2);
	return text;
}

static void test_line_limit(void **state)
{
	struct proto_lines l = { 0 };
	struct proto_line line;
	char *text = long_line(PROTO_LINE_MAX);

	feed(&l, text);
	assert_int_equal(proto_lines_next(&l, &line), PROTO_LINE_TEXT);
	assert_int_equal(line.len, PROTO_LINE_MAX);
	free(text);
	text = long_line(PROTO_LINE_MAX + 1);
	feed(&l, text);
	assert_int_equal(proto_lines_next(&l, &line), PROTO_LINE_TOO_LONG);
	assert_int_equal(line.err.code, PROTO_TOO_LARGE);
	feed(&l, "status\n");
	expect_line(&l, PROTO_LINE_NONE, NULL);
	free(text);
	proto_lines_fini(&l);
}

/* A line without an end is refused as soon as it is too long, and what is held is bounded. */
static void test_endless_line(void **state)
{
	struct proto_lines l = { 0 };
	struct proto_line line = { .kind = PROTO_LINE_NONE };
	char octets[1000];
	size_t fed = 0;

	memset(octets, '{', sizeof(octets));
	while (line.kind == PROTO_LINE_NONE) {
		assert_int_equal(proto_lines_feed(&l, octets, sizeof(octets)), 0);
		fed += sizeof(octets);
		assert_true(fed < 2 * PROTO_LINE_MAX);
		proto_lines_next(&l, &line);
	}
	assert_int_equal(line.kind, PROTO_LINE_TOO_LONG);
	assert_true(line.json);
	assert_true(l.size < 4 * PROTO_LINE_MAX);
	proto_lines_fini(&l);
}

static json_t *decode(const char *text)
{
	struct proto_err err = { 0 };
	json_t *v = NULL;

	if (proto_decode(text, strlen(text), &v, &err))
		fail_msg("%s: %s", text, err.text);
	return v;
}

static void no_decode(const char *text, enum proto_error code)
{
	struct proto_err err = { 0 };
	json_t *v = NULL;

	assert_int_not_equal(proto_decode(text, strlen(text), &v, &err), 0);
	assert_null(v);
	assert_int_equal(err.code, code);
}

static void test_decode(void **state)
{
	char batch[PROTO_BATCH_MAX * 2 + 8] = "[1";

	json_decref(decode("{\"a\":[1,2]}"));
	no_decode("{", PROTO_PARSE_ERROR);
	no_decode("{}x", PROTO_PARSE_ERROR);
	no_decode("{\"a\":1,\"a\":2}", PROTO_PARSE_ERROR);
	no_decode("{'a':1}", PROTO_PARSE_ERROR);
	no_decode("{\"a\":NaN}", PROTO_PARSE_ERROR);
	no_decode("{\"a\":\"\\u0000\"}", PROTO_PARSE_ERROR);
	no_decode("{\"a\":99999999999999999999}", PROTO_PARSE_ERROR);
	no_decode("[]", PROTO_INVALID_REQUEST);
	for (int i = 1; i < PROTO_BATCH_MAX; i++)
		strcat(batch, ",1");
	strcat(batch, "]");
	json_decref(decode(batch));
	batch[strlen(batch) - 1] = '\0';
	strcat(batch, ",1]");
	no_decode(batch, PROTO_TOO_LARGE);
}

static void test_deep_nesting(void **state)
{
	char *text = calloc(1, 60001);

	memset(text, '[', 60000);
	no_decode(text, PROTO_PARSE_ERROR);
	free(text);
}

static void test_request(void **state)
{
	json_t *v = decode("{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"show.connection\","
			   "\"params\":{\"id\":7}}");
	struct proto_request r;
	struct proto_err err;

	assert_int_equal(proto_request_parse(v, &r, &err), 0);
	json_decref(v);
	assert_int_equal(r.method, METHOD_SHOW_CONNECTION);
	assert_string_equal(json_string_value(r.id), "x");
	assert_int_equal(json_integer_value(json_object_get(r.params, "id")), 7);
	proto_request_fini(&r);
	v = decode("{\"jsonrpc\":\"2.0\",\"method\":\"status\"}");
	assert_int_equal(proto_request_parse(v, &r, &err), 0);
	assert_null(r.id);
	assert_true(json_is_object(r.params));
	proto_request_fini(&r);
	json_decref(v);
}

/* `id`: what the answer carries, as JSON; NULL: no answer. */
static void request_refused(const char *text, enum proto_error code, const char *id,
			    const char *part)
{
	json_t *v = json_loads(text, JSON_DECODE_ANY, NULL);
	struct proto_request r;
	struct proto_err err = { 0 };

	assert_non_null(v);
	if (!proto_request_parse(v, &r, &err))
		fail_msg("%s was taken", text);
	if (err.code != code || !strstr(err.text, part))
		fail_msg("%s gave %d %s", text, (int)err.code, err.text);
	if (id) {
		json_t *want = json_loads(id, JSON_DECODE_ANY, NULL);

		assert_true(json_equal(r.id, want));
		json_decref(want);
	} else {
		assert_null(r.id);
	}
	proto_request_fini(&r);
	json_decref(v);
}

static void test_request_refused(void **state)
{
	request_refused("7", PROTO_INVALID_REQUEST, "null", "must be an object");
	request_refused("{}", PROTO_INVALID_REQUEST, "null", "jsonrpc");
	request_refused("{\"id\":3}", PROTO_INVALID_REQUEST, "3", "jsonrpc: must be \"2.0\"");
	request_refused("{\"jsonrpc\":2.0,\"id\":1,\"method\":\"status\"}", PROTO_INVALID_REQUEST,
			"1", "jsonrpc");
	request_refused("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"status\"}",
			PROTO_INVALID_REQUEST, "1", "jsonrpc");
	request_refused("{\"jsonrpc\":\"2.0\",\"id\":[1],\"method\":\"status\"}",
			PROTO_INVALID_REQUEST, "null", "id:");
	request_refused("{\"jsonrpc\":\"2.0\",\"id\":true,\"method\":\"status\"}",
			PROTO_INVALID_REQUEST, "null", "id:");
	request_refused("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":5}", PROTO_INVALID_REQUEST, "1",
			"method: must be a string");
	request_refused("{\"jsonrpc\":\"2.0\",\"id\":1}", PROTO_INVALID_REQUEST, "1",
			"method: must be a string");
	request_refused("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\",\"extra\":0}",
			PROTO_INVALID_REQUEST, "1", "\"extra\": unknown member");
	request_refused(
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"show.connection\",\"params\":[7]}",
		PROTO_INVALID_PARAMS, "1", "by position");
	request_refused("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\",\"params\":7}",
			PROTO_INVALID_REQUEST, "1", "params: must be an object");
	request_refused("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list.conections\"}",
			PROTO_METHOD_NOT_FOUND, "1", "did you mean \"list.connections\"?");
	request_refused("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"xyz\"}", PROTO_METHOD_NOT_FOUND,
			"1", "rpc.discover");
	request_refused("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"show.connection\"}",
			PROTO_INVALID_PARAMS, "null", "id is missing");
	/* A well-formed notification is never answered. */
	request_refused("{\"jsonrpc\":\"2.0\",\"method\":\"show.connection\"}",
			PROTO_INVALID_PARAMS, NULL, "id is missing");
	request_refused("{\"jsonrpc\":\"2.0\",\"method\":\"xyz\"}", PROTO_METHOD_NOT_FOUND, NULL,
			"xyz");
}

static void encodes(json_t *v, const char *expected)
{
	size_t len = 0;
	char *text = proto_encode(v, &len);

	assert_string_equal(text, expected);
	assert_int_equal(len, strlen(expected));
	free(text);
	json_decref(v);
}

static void test_answers(void **state)
{
	struct proto_err err = { .code = PROTO_NOT_FOUND, .text = "connection 7: there is none" };
	json_t *id = json_integer(1);

	encodes(proto_result_new(id, json_pack("{s:i}", "id", 5)),
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"id\":5}}\n");
	encodes(proto_result_new(NULL, NULL),
		"{\"jsonrpc\":\"2.0\",\"id\":null,\"result\":null}\n");
	encodes(proto_error_new(id, &err), "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-"
					   "32001,\"message\":\"connection 7: there is none\","
					   "\"data\":{\"name\":\"not_found\"}}}\n");
	/* Half a sequence, as a cut word can leave it. */
	strcpy(err.text, "\"\xc3");
	encodes(proto_error_new(id, &err),
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32001,\"message\":\"\\\"?\","
		"\"data\":{\"name\":\"not_found\"}}}\n");
	encodes(proto_request_new(3, METHOD_STATUS, NULL),
		"{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"status\"}\n");
	encodes(proto_request_new(3, METHOD_SHOW_CONNECTION, json_pack("{s:i}", "id", 1)),
		"{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"show.connection\",\"params\":{\"id\":1}"
		"}\n");
	json_decref(id);
}

static void test_numbers(void **state)
{
	json_t *v = proto_number(UINT64_MAX);

	assert_true(json_integer_value(v) == INT64_C(9007199254740991));
	json_decref(v);
	assert_true(json_is_null(proto_number_or_null(0)));
	v = proto_number_or_null(1);
	assert_int_equal(json_integer_value(v), 1);
	json_decref(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),      cmocka_unit_test(test_lines_by_octet),
		cmocka_unit_test(test_half_line),  cmocka_unit_test(test_bad_octets),
		cmocka_unit_test(test_line_limit), cmocka_unit_test(test_endless_line),
		cmocka_unit_test(test_decode),     cmocka_unit_test(test_deep_nesting),
		cmocka_unit_test(test_request),    cmocka_unit_test(test_request_refused),
		cmocka_unit_test(test_answers),    cmocka_unit_test(test_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
