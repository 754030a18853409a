/* SPDX-License-Identifier: Apache-2.0 */
/* Text commands to methods and params; params checked against the table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/params.h"

/* `line` is method `m` with params `json`. */
static void parses(const char *line, enum method m, const char *json)
{
	struct proto_err err = { 0 };
	enum method got = METHOD__COUNT;
	json_t *params = NULL, *expected = json_loads(json, 0, NULL);

	assert_non_null(expected);
	if (proto_parse_text(line, &got, &params, &err))
		fail_msg("%s: %s", line, err.text);
	assert_int_equal(got, m);
	if (!json_equal(params, expected)) {
		char *text = json_dumps(params, JSON_COMPACT);

		fail_msg("%s gave %s", line, text);
		free(text);
	}
	json_decref(params);
	json_decref(expected);
}

static void refused(const char *line, enum proto_error code, const char *part)
{
	struct proto_err err = { 0 };
	enum method m;
	json_t *params = NULL;

	if (!proto_parse_text(line, &m, &params, &err)) {
		json_decref(params);
		fail_msg("\"%s\" was taken", line);
	}
	assert_null(params);
	if (err.code != code || !strstr(err.text, part))
		fail_msg("\"%s\" gave %d \"%s\", without \"%s\"", line, (int)err.code, err.text,
			 part);
}

static void test_commands(void **state)
{
	parses("status", METHOD_STATUS, "{}");
	parses("  list   connections\t", METHOD_LIST_CONNECTIONS, "{}");
	parses("show connection 7", METHOD_SHOW_CONNECTION, "{\"id\":7}");
	parses("show connection --id=7", METHOD_SHOW_CONNECTION, "{\"id\":7}");
	parses("help", METHOD_DISCOVER, "{}");
	parses("reset connection 9007199254740991", METHOD_RESET_CONNECTION,
	       "{\"id\":9007199254740991}");
	parses("unlisten [2001:db8::2]:80", METHOD_UNLISTEN, "{\"address\":\"[2001:db8::2]:80\"}");
}

static void test_options_anywhere(void **state)
{
	const char *json =
		"{\"limit\":5,\"closed\":true,\"filter\":\"state established and dport = :7\"}";

	parses("list connections state established and dport = :7 --limit=5 --closed",
	       METHOD_LIST_CONNECTIONS, json);
	parses("--limit 5 --closed list connections state established and dport = :7",
	       METHOD_LIST_CONNECTIONS, json);
	parses("list --closed connections state --limit 5 established and dport = :7",
	       METHOD_LIST_CONNECTIONS, json);
	parses("list connections --closed=no", METHOD_LIST_CONNECTIONS, "{\"closed\":false}");
	parses("list connections --filter 'state listen'", METHOD_LIST_CONNECTIONS,
	       "{\"filter\":\"state listen\"}");
}

static void test_listen(void **state)
{
	parses("listen 10.0.0.2:7 --service echo", METHOD_LISTEN,
	       "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\"}");
	parses("listen 10.0.0.2:7 echo", METHOD_LISTEN,
	       "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\"}");
	parses("listen --service 'exec:/bin/cat -v \"x y\"' *:80 --max-processes 5 "
	       "--max_connections 6",
	       METHOD_LISTEN,
	       "{\"address\":\"*:80\",\"service\":\"exec:/bin/cat -v \\\"x "
	       "y\\\"\",\"max_processes\":5,\"max_connections\":6}");
	parses("listen *:7 echo --tcp MSL=1s,Nagle=no", METHOD_LISTEN,
	       "{\"address\":\"*:7\",\"service\":\"echo\",\"tcp\":{\"MSL\":\"1s\",\"Nagle\":\"no\"}"
	       "}");
	parses("connect 10.0.0.2:80 --source 10.0.0.1:0 --stream", METHOD_CONNECT,
	       "{\"address\":\"10.0.0.2:80\",\"source\":\"10.0.0.1:0\",\"stream\":true}");
}

static void test_quotes(void **state)
{
	parses("listen '*:7' ec\"ho\" --name 'a b'", METHOD_LISTEN,
	       "{\"address\":\"*:7\",\"service\":\"echo\",\"name\":\"a b\"}");
	parses("listen *:7 echo --name a\\ b", METHOD_LISTEN,
	       "{\"address\":\"*:7\",\"service\":\"echo\",\"name\":\"a b\"}");
	parses("listen *:7 echo --name \"a\\\"b\"", METHOD_LISTEN,
	       "{\"address\":\"*:7\",\"service\":\"echo\",\"name\":\"a\\\"b\"}");
	parses("listen *:7 echo --name 'a\\b'", METHOD_LISTEN,
	       "{\"address\":\"*:7\",\"service\":\"echo\",\"name\":\"a\\\\b\"}");
}

static void test_wrong_words(void **state)
{
	refused("lst connections", PROTO_METHOD_NOT_FOUND,
		"\"lst\": no such command; did you mean \"list\"?");
	refused("list conections", PROTO_METHOD_NOT_FOUND,
		"list \"conections\": no such command; did you mean \"list connections\"? "
		"possible: connections, listeners");
	refused("list", PROTO_METHOD_NOT_FOUND,
		"list: a word is missing; possible: connections, listeners, services, rules");
	refused("frobnicate", PROTO_METHOD_NOT_FOUND, "possible: list, show, listen");
	refused("list conn", PROTO_METHOD_NOT_FOUND, "\"conn\": no such command");
	refused("status now", PROTO_INVALID_PARAMS,
		"status: \"now\": nothing more was expected; usage: status");
	refused("show connection 7 8", PROTO_INVALID_PARAMS, "\"8\": nothing more was expected");
	refused("", PROTO_METHOD_NOT_FOUND, "a word is missing");
}

static void test_wrong_options(void **state)
{
	refused("list connections --limt 5", PROTO_INVALID_PARAMS,
		"list connections: \"--limt\": no such option; did you mean \"--limit\"? possible: "
		"--filter, --closed, --limit, --after");
	refused("status --limit 5", PROTO_INVALID_PARAMS,
		"status: \"--limit\": no such option; possible: none");
	refused("list connections --limit", PROTO_INVALID_PARAMS, "--limit: a value is missing");
	refused("list connections --limit --closed", PROTO_INVALID_PARAMS,
		"--limit: a value is missing");
	refused("list connections --limit 1 --limit 2", PROTO_INVALID_PARAMS,
		"--limit stands twice");
	refused("list connections --limit many", PROTO_INVALID_PARAMS,
		"limit: \"many\": expected an integer");
	refused("list connections --limit -1", PROTO_INVALID_PARAMS, "expected an integer");
	refused("list connections --closed=perhaps", PROTO_INVALID_PARAMS, "expected yes or no");
	refused("list connections -x", PROTO_INVALID_PARAMS, "\"-x\": no such option");
	refused("listen *:80 exec:/bin/cat -v", PROTO_INVALID_PARAMS, "quote it together");
	refused("listen *:80 exec:/bin/cat x", PROTO_INVALID_PARAMS,
		"\"x\": nothing more was expected");
}

static void test_wrong_values(void **state)
{
	refused("show connection", PROTO_INVALID_PARAMS, "show connection: id is missing");
	refused("show connection x", PROTO_INVALID_PARAMS, "id: \"x\": expected an integer");
	refused("show connection 9007199254740992", PROTO_INVALID_PARAMS,
		"expected an integer from 0 to 2^53-1");
	refused("show connection 99999999999999999999999", PROTO_INVALID_PARAMS,
		"expected an integer");
	refused("listen localhost:80 echo", PROTO_INVALID_PARAMS,
		"address: \"localhost:80\": expected ADDR:PORT");
	refused("listen 10.0.0.2 echo", PROTO_INVALID_PARAMS, "expected ADDR:PORT");
	refused("listen 10.0.0.2:65536 echo", PROTO_INVALID_PARAMS, "expected ADDR:PORT");
	refused("listen 2001:db8::2:80 echo", PROTO_INVALID_PARAMS, "expected ADDR:PORT");
	refused("listen [10.0.0.2]:80 echo", PROTO_INVALID_PARAMS, "expected ADDR:PORT");
	refused("listen *:7", PROTO_INVALID_PARAMS, "service is missing");
	refused("listen *:7 ''", PROTO_INVALID_PARAMS, "not empty");
	refused("listen *:7 echo --tcp MSL", PROTO_INVALID_PARAMS,
		"tcp: \"MSL\": expected KEY=VALUE");
	refused("listen *:7 echo --tcp MSL=1s,", PROTO_INVALID_PARAMS, "behind the comma");
	refused("listen *:7 echo --tcp =1s", PROTO_INVALID_PARAMS, "expected KEY=VALUE");
	refused("listen *:7 echo --name 'x", PROTO_INVALID_PARAMS, "the quote ' has no end");
	refused("list connections state foo", PROTO_INVALID_PARAMS,
		"filter: character 7, \"foo\": expected a state");
}

static void test_double_dash(void **state)
{
	const char *words[] = { "listen", "*:7", "--", "--odd--" };
	struct proto_err err = { 0 };
	enum method m;
	json_t *params = NULL;

	assert_int_equal(proto_parse_words(4, words, &m, &params, &err), 0);
	assert_string_equal(proto_param_text(params, "service", NULL), "--odd--");
	json_decref(params);
}

static void test_too_many_words(void **state)
{
	char *line = malloc(PROTO_WORDS_MAX * 2 + 16), *p = line;

	for (int i = 0; i <= PROTO_WORDS_MAX; i++)
		p += sprintf(p, "x ");
	refused(line, PROTO_INVALID_PARAMS, "more than 1024 words");
	free(line);
	line = calloc(1, 65 * 10 + 16);
	strcpy(line, "status");
	for (int i = 0; i < 65; i++)
		strcat(line, " --closed");
	refused(line, PROTO_INVALID_PARAMS, "too many options");
	free(line);
}

/* Whether an option has a value must not depend on the method: see option_has_value(). */
static void test_options_agree(void **state)
{
	for (size_t m = 0; m < METHOD__COUNT; m++)
		for (const struct method_arg *a = method_get((enum method)m)->args; a->name; a++)
			for (size_t other = 0; other < METHOD__COUNT; other++) {
				const struct method_arg *b = method_arg_find(
					method_get((enum method)other), a->name);

				if (b && (a->type == ARG_BOOLEAN) != (b->type == ARG_BOOLEAN))
					fail_msg("--%s has a value with some methods only",
						 a->name);
			}
}

static void checked(enum method m, const char *json, const char *expected)
{
	struct proto_err err = { 0 };
	json_t *params = json_loads(json, 0, NULL), *want = json_loads(expected, 0, NULL);

	assert_non_null(params);
	if (proto_check_params(m, params, &err))
		fail_msg("%s: %s", json, err.text);
	assert_true(json_equal(params, want));
	json_decref(params);
	json_decref(want);
}

static void check_refused(enum method m, const char *json, const char *part)
{
	struct proto_err err = { 0 };
	json_t *params = json_loads(json, 0, NULL);

	assert_non_null(params);
	if (!proto_check_params(m, params, &err))
		fail_msg("%s was taken", json);
	json_decref(params);
	assert_int_equal(err.code, PROTO_INVALID_PARAMS);
	if (!strstr(err.text, part))
		fail_msg("%s gave \"%s\", without \"%s\"", json, err.text, part);
}

static void test_check_params(void **state)
{
	checked(METHOD_LIST_CONNECTIONS, "{\"after\":null,\"limit\":3}", "{\"limit\":3}");
	checked(METHOD_LISTEN,
		"{\"address\":\"*:7\",\"service\":\"echo\",\"tcp\":{\"MSL\":\"1s\",\"Nagle\":true,"
		"\"InitialWindow\":4}}",
		"{\"address\":\"*:7\",\"service\":\"echo\",\"tcp\":{\"MSL\":\"1s\",\"Nagle\":"
		"\"yes\",\"InitialWindow\":\"4\"}}");
	check_refused(METHOD_SHOW_CONNECTION, "{}", "id is missing");
	check_refused(METHOD_SHOW_CONNECTION, "{\"id\":null}", "id is missing");
	check_refused(METHOD_SHOW_CONNECTION, "{\"id\":\"7\"}", "id: \"7\": expected an integer");
	check_refused(METHOD_SHOW_CONNECTION, "{\"id\":7.5}", "id: expected an integer");
	check_refused(METHOD_SHOW_CONNECTION, "{\"id\":-1}", "from 0 to 2^53-1");
	check_refused(METHOD_SHOW_CONNECTION, "{\"id\":9007199254740992}", "from 0 to 2^53-1");
	check_refused(METHOD_SHOW_CONNECTION, "{\"id\":[7]}", "id: expected an integer");
	check_refused(
		METHOD_SHOW_CONNECTION, "{\"id\":7,\"idd\":1}",
		"show.connection: \"idd\": no such parameter; did you mean \"id\"? possible: id");
	check_refused(METHOD_LIST_CONNECTIONS, "{\"closed\":1}", "closed: expected true or false");
	check_refused(METHOD_LIST_CONNECTIONS, "{\"filter\":5}", "filter: expected a string");
	check_refused(METHOD_LIST_CONNECTIONS, "{\"filter\":\"state\"}", "expected a state");
	check_refused(METHOD_LISTEN, "{\"address\":\"*:7\",\"service\":\"echo\",\"tcp\":5}",
		      "tcp: expected an object");
	check_refused(METHOD_LISTEN,
		      "{\"address\":\"*:7\",\"service\":\"echo\",\"tcp\":{\"MSL\":1.5}}",
		      "tcp: \"MSL\": expected");
}

static void test_param_access(void **state)
{
	json_t *params = json_pack("{s:i,s:s,s:b}", "limit", 5, "name", "x", "stream", 1);

	assert_int_equal(proto_param_number(params, "limit", 9), 5);
	assert_int_equal(proto_param_number(params, "other", 9), 9);
	assert_string_equal(proto_param_text(params, "name", "y"), "x");
	assert_string_equal(proto_param_text(params, "other", "y"), "y");
	assert_true(proto_param_true(params, "stream"));
	assert_false(proto_param_true(params, "other"));
	json_decref(params);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commands),       cmocka_unit_test(test_options_anywhere),
		cmocka_unit_test(test_listen),         cmocka_unit_test(test_quotes),
		cmocka_unit_test(test_wrong_words),    cmocka_unit_test(test_wrong_options),
		cmocka_unit_test(test_wrong_values),   cmocka_unit_test(test_double_dash),
		cmocka_unit_test(test_too_many_words), cmocka_unit_test(test_options_agree),
		cmocka_unit_test(test_check_params),   cmocka_unit_test(test_param_access),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
