/* SPDX-License-Identifier: Apache-2.0 */
/* The small services and the parsing of service texts, on a fake engine. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>

#include "fake_engine.h"
#include "service/service.h"

struct fixture {
	struct engine *engine;
	struct fake_conn *c;
	struct service_host host;
	struct session s;
};

static void setup(struct fixture *f, const char *text)
{
	struct service *v;

	memset(f, 0, sizeof(*f));
	f->engine = fake_engine_new();
	f->c = &f->engine->conns[0];
	f->host.engine = f->engine;
	f->host.base = event_base_new();
	f->host.realtime_us = 1000000000ULL * 1000000;
	assert_int_equal(service_host_init(&f->host), 0);
	assert_int_equal(service_new(text, NULL, &v, NULL), 0);
	session_init(&f->s, &f->host, (conn_id){ 0, 1 }, 7, v);
	service_unref(v);
}

static void teardown(struct fixture *f)
{
	session_fini(&f->s, false);
	service_host_fini(&f->host);
	event_base_free(f->host.base);
	fake_engine_free(f->engine);
}

static void arrive(struct fixture *f, const char *text)
{
	fake_arrive(f->engine, 0, text, strlen(text));
	session_ready(&f->s, REPORT_READABLE);
}

static void echo_returns_text_and_closes_after_the_peer(void **state)
{
	struct fixture f;

	setup(&f, "echo");
	fake_arrive(f.engine, 0, "early", 5); /* came with the handshake's ACK */
	assert_int_equal(session_open(&f.s), 0);
	arrive(&f, " bird");
	assert_int_equal(f.c->out_len, 10);
	assert_memory_equal(f.c->out, "early bird", 10);
	assert_false(f.c->closed);
	f.c->peer_fin = true;
	session_ready(&f.s, REPORT_PEER_CLOSED);
	assert_true(f.c->closed);
	assert_int_equal(f.c->close_cause, CAUSE_USER);
	assert_false(f.c->stopped_reading);
	teardown(&f);
}

static void echo_holds_nothing_when_the_peer_does_not_read(void **state)
{
	static uint8_t text[100000];
	struct fixture f;

	for (unsigned i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)(i * 7);
	setup(&f, "echo");
	f.c->room = 30000;
	assert_int_equal(session_open(&f.s), 0);
	fake_arrive(f.engine, 0, text, sizeof(text));
	f.c->peer_fin = true;
	session_ready(&f.s, REPORT_READABLE | REPORT_PEER_CLOSED);
	assert_int_equal(f.c->out_len, 30000);
	assert_int_equal(f.c->in_len, 70000); /* the rest stays in the window */
	assert_true(f.c->wants_room);
	assert_false(f.c->closed);
	f.c->room = FAKE_QUEUE - 30000;
	session_ready(&f.s, REPORT_WRITABLE);
	assert_int_equal(f.c->in_len, 0);
	assert_memory_equal(f.c->out, text, sizeof(text));
	assert_true(f.c->closed);
	teardown(&f);
}

static void echo_takes_text_as_it_arrives_as_far_as_there_is_room(void **state)
{
	static const char text[] = "straight back";
	const struct span span = { (const uint8_t *)text, 13 };
	struct fixture f;

	setup(&f, "echo");
	assert_int_equal(session_open(&f.s), 0);
	assert_true(f.c->direct);
	f.c->room = 20;
	assert_int_equal(session_text(&f.s, span), 13);
	assert_int_equal(session_text(&f.s, span), 7);
	assert_int_equal(f.c->out_len, 20);
	assert_memory_equal(f.c->out, "straight backstraigh", 20);
	assert_true(f.c->wants_room);
	f.c->closed = true;
	assert_int_equal(session_text(&f.s, span), 0);
	assert_ptr_not_equal(f.s.ops, &service_sink); /* not in the middle of a segment */
	teardown(&f);
}

static void echo_becomes_a_sink_when_an_operator_closed_our_side(void **state)
{
	struct fixture f;

	setup(&f, "echo");
	assert_int_equal(session_open(&f.s), 0);
	f.c->closed = true;
	arrive(&f, "too late");
	assert_int_equal(f.c->in_len, 0);
	assert_ptr_equal(f.s.ops, &service_sink);
	assert_true(f.c->direct);
	assert_false(f.c->stopped_reading);
	session_ready(&f.s, REPORT_ALL_ACKED);
	assert_true(f.c->stopped_reading);
	teardown(&f);
}

static void discard_takes_all_directly_and_closes_after_the_peer(void **state)
{
	struct fixture f;
	unsigned calls;

	setup(&f, "discard");
	fake_arrive(f.engine, 0, "abc", 3);
	assert_int_equal(session_open(&f.s), 0);
	assert_true(f.c->direct);
	assert_int_equal(f.c->in_len, 0);
	calls = f.engine->calls;
	assert_int_equal(session_text(&f.s, (struct span){ (const uint8_t *)"defg", 4 }), 4);
	assert_int_equal(f.engine->calls, calls); /* text() may not call the engine */
	arrive(&f, "hij");
	assert_int_equal(f.c->in_len, 0);
	assert_int_equal(f.c->out_len, 0);
	f.c->peer_fin = true;
	session_ready(&f.s, REPORT_PEER_CLOSED);
	assert_true(f.c->closed);
	teardown(&f);
}

/* RFC 864: "each line is one character further" and 72 wide. */
static void chargen_sends_the_pattern_of_rfc864_for_ever(void **state)
{
	struct fixture f;

	setup(&f, "chargen");
	f.c->room = 1000;
	assert_int_equal(session_open(&f.s), 0);
	for (unsigned i = 0; i < 900; i++) {
		assert_int_equal(f.c->room, 0);
		f.c->room = 1000 + i % 7;
		session_ready(&f.s, REPORT_WRITABLE);
	}
	assert_true(f.c->out_len > 900000);
	for (size_t i = 0; i < f.c->out_len; i++) {
		const size_t line = i / 74, column = i % 74;
		const int want = column == 73   ? '\n'
				 : column == 72 ? '\r'
						: (int)(' ' + (line + column) % 95);

		if (f.c->out[i] != want)
			fail_msg("octet %zu is %d, not %d", i, f.c->out[i], want);
	}
	f.c->peer_fin = true;
	session_ready(&f.s, REPORT_PEER_CLOSED);
	assert_true(f.c->closed);
	teardown(&f);
}

static void chargen_throws_input_away(void **state)
{
	struct fixture f;

	setup(&f, "chargen");
	f.c->room = 10;
	assert_int_equal(session_open(&f.s), 0);
	arrive(&f, "noise");
	assert_int_equal(f.c->in_len, 0);
	assert_int_equal(session_text(&f.s, (struct span){ (const uint8_t *)"noise", 5 }), 5);
	teardown(&f);
}

static void daytime_tells_the_time_closes_and_reads_until_it_arrived(void **state)
{
	const char want[] = "Sun Sep  9 01:46:40 2001 UTC\r\n";
	struct fixture f;

	setup(&f, "daytime");
	fake_arrive(f.engine, 0, "what time is it?", 16);
	assert_int_equal(session_open(&f.s), 0);
	assert_int_equal(f.c->out_len, sizeof(want) - 1);
	assert_memory_equal(f.c->out, want, sizeof(want) - 1);
	assert_true(f.c->closed);
	assert_int_equal(f.c->in_len, 0);
	assert_false(f.c->stopped_reading); /* a RST now could overtake the answer */
	assert_int_equal(session_text(&f.s, (struct span){ (const uint8_t *)"x", 1 }), 1);
	session_ready(&f.s, REPORT_ALL_ACKED);
	assert_true(f.c->stopped_reading);
	teardown(&f);
}

static void no_service_discards_and_closes_after_the_peer(void **state)
{
	struct fixture f;

	setup(&f, "echo");
	session_fini(&f.s, false);
	session_init(&f.s, &f.host, (conn_id){ 0, 2 }, 8, NULL);
	assert_int_equal(session_open(&f.s), 0);
	arrive(&f, "abc");
	assert_int_equal(f.c->in_len, 0);
	assert_int_equal(f.c->out_len, 0);
	f.c->peer_fin = true;
	session_ready(&f.s, REPORT_PEER_CLOSED);
	assert_true(f.c->closed);
	teardown(&f);
}

static void texts_that_are_no_service_are_refused(void **state)
{
	static const struct {
		const char *text;
		int rc;
		const char *message;
	} cases[] = {
		{ "", -EINVAL, "not one of" },
		{ "ech", -EINVAL, "not one of" },
		{ "echoo", -EINVAL, "not one of" },
		{ "stream", -EINVAL, "not one of" },
		{ "echo:x", -EINVAL, "takes no argument" },
		{ "exec", -EINVAL, "exec:PROGRAM" },
		{ "exec:", -EINVAL, "program is needed" },
		{ "exec:   ", -EINVAL, "program is needed" },
		{ "exec:cat", -EINVAL, "absolute path" },
		{ "exec:''", -EINVAL, "absolute path" },
		{ "exec:/nowhere/at/all", -ENOENT, "No such file" },
		{ "exec:/etc/passwd", -EACCES, "not an executable" },
		{ "exec:/bin", -EACCES, "not an executable" },
		{ "exec:/bin/cat 'a", -EINVAL, "quote" },
		{ "exec:/bin/cat \"a", -EINVAL, "quote" },
		{ "exec:/bin/echo %", -EINVAL, "behind %" },
		{ "exec:/bin/echo %r 100%x", -EINVAL, "behind %" },
		{ "file:", -EINVAL, "absolute path" },
		{ "file:etc/passwd", -EINVAL, "absolute path" },
		{ "file:/etc", -EINVAL, "is not a file" },
		{ "file:/dev/null", -EINVAL, "is not a file" },
		{ "file:/nowhere/at/all", -ENOENT, "No such file" },
		{ "relay", -EINVAL, "relay:BACKEND" },
		{ "relay:", -EINVAL, "not a backend" },
		{ "relay:proxy=v1", -EINVAL, "a backend is needed" },
		{ "relay:proxy=v3,10.0.0.1:80", -EINVAL, "proxy=v2" },
		{ "relay:proxy=v12,10.0.0.1:80", -EINVAL, "proxy=v2" },
		{ "relay:timeout=0,10.0.0.1:80", -EINVAL, "a time" },
		{ "relay:timeout=-1,10.0.0.1:80", -EINVAL, "a time" },
		{ "relay:timeout=5m,10.0.0.1:80", -EINVAL, "a time" },
		{ "relay:timeout=601,10.0.0.1:80", -EINVAL, "a time" },
		{ "relay:10.0.0.1", -EINVAL, "not a backend" },
		{ "relay:10.0.0.1:80,", -EINVAL, "not a backend" },
		{ "relay:*:80", -EINVAL, "not a backend" },
		{ "relay:224.0.0.1:80", -EINVAL, "not a backend" },
		{ "relay:web.example:80", -EINVAL, "not a backend" },
		{ "relay:unix:run/x", -EINVAL, "not a backend" },
		{ "relay:10.0.0.1:1,10.0.0.1:2,10.0.0.1:3,10.0.0.1:4,10.0.0.1:5,10.0.0.1:6,"
		  "10.0.0.1:7,10.0.0.1:8,10.0.0.1:9,10.0.0.1:10,10.0.0.1:11,10.0.0.1:12,"
		  "10.0.0.1:13,10.0.0.1:14,10.0.0.1:15,10.0.0.1:16,10.0.0.1:17",
		  -EINVAL, "more than 16" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct errmsg err = { 0 };
		const int rc = service_check(cases[i].text, NULL, &err);

		if (rc != cases[i].rc || !strstr(err.text, cases[i].message))
			fail_msg("\"%s\": %d, %s", cases[i].text, rc, err.text);
	}
	assert_int_equal(service_check("echo", NULL, NULL), 0);
	assert_int_equal(service_check("exec:/bin/cat", NULL, NULL), 0);
	assert_int_equal(service_check("relay:proxy=v2,timeout=500ms,10.0.0.1:80,[::1]:80,"
				       "unix:/run/x",
				       NULL, NULL),
			 0);
}

static void exec_arguments_are_split_as_a_shell_would(void **state)
{
	const struct service_options options = { .max_processes = 3 };
	struct service *v;

	assert_int_equal(service_new("exec: /bin/sh\t-c  'a b'\"c \\\" d\" \\'e '' f\\ g 'h\\'",
				     &options, &v, NULL),
			 0);
	assert_string_equal(v->argv[0], "/bin/sh");
	assert_string_equal(v->argv[1], "-c");
	assert_string_equal(v->argv[2], "a bc \" d");
	assert_string_equal(v->argv[3], "'e");
	assert_string_equal(v->argv[4], "");
	assert_string_equal(v->argv[5], "f g");
	assert_string_equal(v->argv[6], "h\\");
	assert_null(v->argv[7]);
	assert_int_equal(v->options->max_processes, 3);
	service_unref(v);
}

static void every_service_has_help_and_is_found(void **state)
{
	const struct service_ops *ops;
	size_t n = 0;

	for (; (ops = service_nth(n)); n++) {
		assert_true(ops->help && ops->help[0]);
		assert_false(ops->hidden);
		assert_int_equal(service_check(ops->name, NULL, NULL), ops->argument ? -EINVAL : 0);
	}
	assert_int_equal(n, 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(echo_returns_text_and_closes_after_the_peer),
		cmocka_unit_test(echo_holds_nothing_when_the_peer_does_not_read),
		cmocka_unit_test(echo_takes_text_as_it_arrives_as_far_as_there_is_room),
		cmocka_unit_test(echo_becomes_a_sink_when_an_operator_closed_our_side),
		cmocka_unit_test(discard_takes_all_directly_and_closes_after_the_peer),
		cmocka_unit_test(chargen_sends_the_pattern_of_rfc864_for_ever),
		cmocka_unit_test(chargen_throws_input_away),
		cmocka_unit_test(daytime_tells_the_time_closes_and_reads_until_it_arrived),
		cmocka_unit_test(no_service_discards_and_closes_after_the_peer),
		cmocka_unit_test(texts_that_are_no_service_are_refused),
		cmocka_unit_test(exec_arguments_are_split_as_a_shell_would),
		cmocka_unit_test(every_service_has_help_and_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
