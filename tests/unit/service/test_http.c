/* SPDX-License-Identifier: Apache-2.0 */
/* The http service on a fake engine, and its pure parts. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "base/clock.h"
#include "fake_engine.h"
#include "service/http_answer.h"
#include "service/http_listing.h"
#include "service/service.h"

enum { BIG = 3000000, NOW = 1700000000 };

static uint8_t content[BIG];

static struct {
	struct engine *engine;
	struct fake_conn *c;
	struct service_host host;
	struct service *service;
	struct session s;
	char root[64];
	char answer[FAKE_QUEUE + 1];
} f;

static void on_begin(struct service_host *h)
{
	h->now.us = clock_monotonic_us();
}

static void on_end(struct service_host *h)
{
	(void)h;
}

static const char *path_of(const char *name)
{
	static char path[200];

	(void)snprintf(path, sizeof(path), "%s/%s", f.root, name);
	return path;
}

static void write_file(const char *name, const void *data, size_t len)
{
	const struct timespec old[2] = { { 1000000000, 0 }, { 1000000000, 0 } };
	const int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	assert_int_equal(futimens(fd, old), 0);
	(void)close(fd);
}

static int make_root(void **state)
{
	for (unsigned i = 0; i < BIG; i++)
		content[i] = (uint8_t)(i * 7 + i / 251);
	(void)snprintf(f.root, sizeof(f.root), "/tmp/tcpfsm-http.XXXXXX");
	assert_non_null(mkdtemp(f.root));
	write_file("hello.txt", "hello, world", 12);
	write_file("empty.css", "", 0);
	write_file("big", content, BIG);
	write_file("a b&<c>.html", "odd", 3);
	assert_int_equal(mkdir(path_of("dir"), 0755), 0);
	write_file("dir/index.html", "<p>index", 8);
	assert_int_equal(mkdir(path_of("plain"), 0755), 0);
	write_file("plain/x:y", "1", 1);
	assert_int_equal(symlink("../hello.txt", path_of("plain/inside")), 0);
	assert_int_equal(symlink("/etc/passwd", path_of("outside")), 0);
	assert_int_equal(symlink("../../../../../../etc/passwd", path_of("above")), 0);
	assert_int_equal(symlink("/proc/self/root", path_of("magic")), 0);
	assert_int_equal(mkfifo(path_of("fifo"), 0644), 0);
	return 0;
}

static int remove_root(void **state)
{
	char command[100];

	(void)snprintf(command, sizeof(command), "rm -rf %s", f.root);
	return system(command);
}

/* options: "list," or the like. name: below the root. */
static void setup_at(const char *options, const char *name)
{
	struct errmsg err;
	char text[200];

	f.engine = fake_engine_new();
	f.c = &f.engine->conns[0];
	f.host = (struct service_host){ .engine = f.engine, .base = event_base_new() };
	f.host.begin = on_begin;
	f.host.end = on_end;
	f.host.realtime_us = (uint64_t)NOW * 1000000;
	on_begin(&f.host);
	assert_int_equal(service_host_init(&f.host), 0);
	(void)snprintf(text, sizeof(text), "http:%s%s%s", options, f.root, name);
	if (service_new(text, NULL, &f.service, &err))
		fail_msg("%s", err.text);
	session_init(&f.s, &f.host, (conn_id){ 0, 1 }, 7, f.service);
}

static void setup(const char *options)
{
	setup_at(options, "");
	assert_int_equal(session_open(&f.s), 0);
}

static void teardown(void)
{
	session_fini(&f.s, false);
	service_unref(f.service);
	service_host_fini(&f.host);
	event_base_free(f.host.base);
	fake_engine_free(f.engine);
}

static void arrive(const char *text)
{
	fake_arrive(f.engine, 0, text, strlen(text));
	session_ready(&f.s, REPORT_READABLE);
}

/* What was sent since the last call. */
static const char *take_answer(void)
{
	memcpy(f.answer, f.c->out, f.c->out_len);
	f.answer[f.c->out_len] = 0;
	f.c->out_len = 0;
	return f.answer;
}

static void expect(const char *request, const char *begins, const char *ends)
{
	const char *answer;

	arrive(request);
	answer = take_answer();
	if (strncmp(answer, begins, strlen(begins)) != 0 || strlen(answer) < strlen(ends) ||
	    strcmp(answer + strlen(answer) - strlen(ends), ends) != 0)
		fail_msg("%s\n->\n%s\nexpected %s ... %s", request, answer, begins, ends);
}

static bool has_line(const char *line)
{
	char want[200];

	(void)snprintf(want, sizeof(want), "\r\n%s\r\n", line);
	return strstr(f.answer, want) != NULL;
}

static void get_has_the_fields_of_rfc9110(void **state)
{
	setup("");
	expect("GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n",
	       "\r\n\r\nhello, world");
	assert_true(has_line("Date: Tue, 14 Nov 2023 22:13:20 GMT"));
	assert_true(has_line("Content-Length: 12"));
	assert_true(has_line("Content-Type: text/plain; charset=utf-8"));
	assert_true(has_line("Last-Modified: Sun, 09 Sep 2001 01:46:40 GMT"));
	assert_true(has_line("ETag: \"3b9aca00.0-c\""));
	assert_true(has_line("Accept-Ranges: bytes"));
	assert_true(has_line("Connection: keep-alive"));
	expect("HEAD /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n", "\r\n\r\n");
	assert_true(has_line("Content-Length: 12"));
	expect("GET /empty.css HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n", "\r\n\r\n");
	assert_true(has_line("Content-Length: 0"));
	expect("GET http://a.example:80/hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ",
	       "world");
	expect("GET //hello.txt?x=/../y HTTP/1.1\nhost:\ta \n\n", "HTTP/1.1 200 ", "world");
	expect("\r\n\r\nGET /%68ello%2Etxt HTTP/1.1\r\nHost:\r\n\r\n", "HTTP/1.1 200 ", "world");
	assert_false(f.c->closed);
	assert_int_equal(f.host.http_requests, 6);
	assert_int_equal(f.host.http_errors, 0);
	teardown();
}

/* Each on a connection of its own, which goes on or is closed behind it. */
static void refusals_have_their_status(void **state)
{
	static char line[HTTP_LINE_MAX + 100], fields[HTTP_HEAD_MAX + 100];
	const struct {
		const char *request, *status;
		bool closes;
	} cases[] = {
		{ "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", "404", false },
		{ "GET /hello.txt/ HTTP/1.1\r\nHost: a\r\n\r\n", "404", false },
		{ "GET /hello.txt/x HTTP/1.1\r\nHost: a\r\n\r\n", "404", false },
		{ "GET /outside HTTP/1.1\r\nHost: a\r\n\r\n", "403", false },
		{ "GET /above HTTP/1.1\r\nHost: a\r\n\r\n", "403", false },
		{ "GET /magic/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", "403", false },
		{ "GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", "403", false },
		{ "GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", "403", false },
		{ "GET /..%2f..%2fetc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", "403", false },
		{ "GET /fifo HTTP/1.1\r\nHost: a\r\n\r\n", "403", false },
		{ "GET /plain/ HTTP/1.1\r\nHost: a\r\n\r\n", "403", false },
		{ "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", "400", false },
		{ "GET /%2 HTTP/1.1\r\nHost: a\r\n\r\n", "400", false },
		{ "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", "400", false },
		{ "DELETE /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", "405", false },
		{ "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "405", false },
		{ "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "405", false },
		{ "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", "405", true },
		{ "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "405", true },
		{ "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", "501", true },
		{ "GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505", true },
		{ "PRI * HTTP/2.0\r\n\r\n", "505", true },
		{ "GET /hello.txt\r\n\r\n", "400", true },
		{ "GET  /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", "400", true },
		{ "GET /hello.txt HTTP/1.1\r\n\r\n", "400", true },
		{ "GET /hello.txt HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400", true },
		{ "GET /hello.txt HTTP/1.1\r\nHost : a\r\n\r\n", "400", true },
		{ "GET /hello.txt HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "400", true },
		{ "GET /hello.txt HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", "400", true },
		{ "GET /hello.txt HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", "400", true },
		{ "GET /hello.txt HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", "400", true },
		{ "GET /hello.txt HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "400", true },
		{ "GET /hello.txt HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", "400", true },
		{ "GET hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", "400", true },
		{ "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", "400", true },
		{ "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", "400", true },
		{ "\x16\x03\x01\x02\r\n\r\n", "400", true },
		{ line, "414", true },
		{ fields, "431", true },
	};

	memset(line, 'a', sizeof(line) - 1);
	memcpy(line, "GET /", 5);
	memset(fields, 'b', sizeof(fields) - 1);
	memcpy(fields, "GET / HTTP/1.1\r\nX: ", 19);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char begins[32];

		setup("");
		(void)snprintf(begins, sizeof(begins), "HTTP/1.1 %s ", cases[i].status);
		expect(cases[i].request, begins, "\n");
		if (f.c->closed != cases[i].closes || f.c->aborted)
			fail_msg("%s: closed %d", cases[i].request, f.c->closed);
		assert_int_equal(has_line("Connection: close"), cases[i].closes);
		if (!strcmp(cases[i].status, "405"))
			assert_true(has_line("Allow: GET, HEAD"));
		assert_int_equal(f.host.http_errors, 1);
		assert_int_equal(f.c->in_len, 0);
		teardown();
	}
}

static void more_than_a_hundred_fields_are_refused(void **state)
{
	char request[2000] = "GET /hello.txt HTTP/1.1\r\nHost: a\r\n";

	for (unsigned i = 1; i < HTTP_FIELDS_MAX; i++)
		strcat(request, "A: b\r\n");
	setup("");
	strcat(request, "\r\n");
	expect(request, "HTTP/1.1 200 ", "world");
	strcpy(request + strlen(request) - 2, "A: b\r\n\r\n");
	expect(request, "HTTP/1.1 431 ", "\n");
	teardown();
}

static void connections_stay_or_end_as_the_peer_wants(void **state)
{
	static const struct {
		const char *request;
		bool closes;
	} cases[] = {
		{ "GET /hello.txt HTTP/1.0\r\n\r\n", true },
		{ "GET /hello.txt HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", false },
		{ "GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", false },
		{ "GET /hello.txt HTTP/1.9\r\nHost: a\r\n\r\n", false },
		{ "GET /hello.txt HTTP/1.1\r\nHost: a\r\nConnection: te , close\r\n\r\n", true },
		{ "GET /hello.txt HTTP/1.1\r\nHost: a\r\nConnection: te\r\nConnection: "
		  "Close\r\n\r\n",
		  true },
		{ "GET /hello.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", true },
		{ "GET /hello.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		setup("");
		expect(cases[i].request, "HTTP/1.1 200 ", "world");
		if (f.c->closed != cases[i].closes)
			fail_msg("%s: closed %d", cases[i].request, f.c->closed);
		assert_true(has_line(f.c->closed ? "Connection: close" : "Connection: keep-alive"));
		/* What comes behind the last answer is thrown away, and read until the FIN is answered. */
		if (f.c->closed) {
			arrive("GET / HTTP/1.1\r\n\r\n");
			assert_int_equal(f.c->in_len + f.c->out_len, 0);
			session_ready(&f.s, REPORT_ALL_ACKED);
			assert_true(f.c->stopped_reading);
		}
		teardown();
	}
}

static void the_number_of_requests_has_a_limit(void **state)
{
	setup("requests=2,");
	expect("GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "world");
	assert_false(f.c->closed);
	expect("GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "world");
	assert_true(has_line("Connection: close"));
	assert_true(f.c->closed);
	teardown();
}

static void a_request_may_come_octet_by_octet(void **state)
{
	static const char request[] = "GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n";

	setup("");
	for (size_t i = 0; i < sizeof(request) - 1; i++) {
		assert_int_equal(f.c->out_len, 0);
		fake_arrive(f.engine, 0, request + i, 1);
		session_ready(&f.s, REPORT_READABLE);
	}
	assert_non_null(strstr(take_answer(), "\r\n\r\nhello, world"));
	teardown();
}

static void a_pipeline_is_answered_in_order(void **state)
{
	static const char one[] = "GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n";
	unsigned n = 0;

	setup("");
	for (unsigned i = 0; i < 100; i++)
		fake_arrive(f.engine, 0, one, sizeof(one) - 1);
	arrive("GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	assert_true(f.c->in_len > 0); /* a wakeup has a limit */
	while (!f.c->closed)
		assert_int_equal(event_base_loop(f.host.base, EVLOOP_ONCE), 0);
	for (const char *at = take_answer(); (at = strstr(at, "\r\n\r\nhello, world")); at++)
		n++;
	assert_int_equal(n, 100);
	assert_non_null(strstr(f.answer, "hello, worldHTTP/1.1 404 "));
	teardown();
}

static void a_peer_that_does_not_read_stops_it(void **state)
{
	static uint8_t got[BIG + 2000];
	const uint8_t *body;
	size_t at = 0;

	setup("");
	f.c->room = 10; /* not even the head */
	arrive("GET /big HTTP/1.1\r\nHost: a\r\n\r\nGET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_int_equal(f.c->out_len, 10);
	assert_true(f.c->in_len > 0); /* the second request waits in the receive queue */
	while (f.c->in_len || f.c->out_len) {
		memcpy(got + at, f.c->out, f.c->out_len);
		at += f.c->out_len;
		f.c->out_len = 0;
		f.c->room = 50001;
		session_ready(&f.s, REPORT_WRITABLE);
		assert_true(event_base_loop(f.host.base, EVLOOP_NONBLOCK) >= 0);
	}
	body = memmem(got, at, "\r\n\r\n", 4);
	assert_memory_equal(body + 4, content, BIG);
	assert_memory_equal(body + 4 + BIG, "HTTP/1.1 200 OK", 15);
	assert_memory_equal(got + at - 12, "hello, world", 12);
	teardown();
}

static void a_half_closed_peer_is_answered(void **state)
{
	static const char request[] = "GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n";

	setup("");
	fake_arrive(f.engine, 0, request, strlen(request));
	f.c->peer_fin = true;
	session_ready(&f.s, REPORT_READABLE | REPORT_PEER_CLOSED);
	assert_non_null(strstr(take_answer(), "200 OK"));
	assert_true(f.c->closed);
	teardown();
	setup("");
	f.c->peer_fin = true;
	session_ready(&f.s, REPORT_PEER_CLOSED);
	assert_true(f.c->closed);
	assert_int_equal(f.c->out_len, 0);
	teardown();
	setup("");
	arrive("GET /hel");
	f.c->peer_fin = true;
	session_ready(&f.s, REPORT_PEER_CLOSED);
	assert_non_null(strstr(take_answer(), "400 Bad"));
	assert_true(f.c->closed);
	teardown();
}

static void a_reset_in_the_middle_leaves_nothing(void **state)
{
	setup("");
	f.c->room = 100000;
	arrive("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
	session_fini(&f.s, true); /* the sanitizer sees to the rest */
	teardown();
}

static void ranges(void **state)
{
	static const struct {
		const char *field, *status, *content_range, *body;
	} cases[] = {
		{ "Range: bytes=0-4", "206", "bytes 0-4/12", "\r\n\r\nhello" },
		{ "Range: bytes=7-", "206", "bytes 7-11/12", "\r\n\r\nworld" },
		{ "Range: bytes=-5", "206", "bytes 7-11/12", "\r\n\r\nworld" },
		{ "Range: bytes=-100", "206", "bytes 0-11/12", "\r\n\r\nhello, world" },
		{ "Range: bytes=11-99999", "206", "bytes 11-11/12", "\r\n\r\nd" },
		{ "Range: bytes=12-", "416", "bytes */12", "\r\n\r\n" },
		{ "Range: bytes=-0", "416", "bytes */12", "\r\n\r\n" },
		{ "Range: bytes=5-2", "200", NULL, "world" },
		{ "Range: bytes=0-1,3-4", "200", NULL, "world" },
		{ "Range: bytes=99999999999999999999-", "200", NULL, "world" },
		{ "Range: lines=0-1", "200", NULL, "world" },
		{ "Range: bytes=", "200", NULL, "world" },
		{ "Range: bytes=-", "200", NULL, "world" },
		{ "Range: bytes=0-4\r\nIf-Range: \"3b9aca00.0-c\"", "206", "bytes 0-4/12",
		  "hello" },
		{ "Range: bytes=0-4\r\nIf-Range: \"3b9aca00.0-d\"", "200", NULL, "world" },
		{ "Range: bytes=0-4\r\nIf-Range: W/\"3b9aca00.0-c\"", "200", NULL, "world" },
		{ "Range: bytes=0-4\r\nIf-Range: Sun, 09 Sep 2001 01:46:40 GMT", "206",
		  "bytes 0-4/12", "hello" },
		{ "Range: bytes=0-4\r\nIf-Range: Sun, 09 Sep 2001 01:46:41 GMT", "200", NULL,
		  "world" },
		{ "If-None-Match: \"3b9aca00.0-c\"", "304", NULL, "\r\n\r\n" },
		{ "If-None-Match: \"a\", W/\"3b9aca00.0-c\"", "304", NULL, "\r\n\r\n" },
		{ "If-None-Match: \"a\"\r\nIf-None-Match: \"3b9aca00.0-c\"", "304", NULL,
		  "\r\n\r\n" },
		{ "If-None-Match: *", "304", NULL, "\r\n\r\n" },
		{ "If-None-Match: \"a\"", "200", NULL, "world" },
		{ "If-None-Match: \"a\"\r\nIf-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT", "200",
		  NULL, "world" },
		{ "If-Modified-Since: Sun, 09 Sep 2001 01:46:40 GMT", "304", NULL, "\r\n\r\n" },
		{ "If-Modified-Since: Sunday, 09-Sep-01 01:46:40 GMT", "304", NULL, "\r\n\r\n" },
		{ "If-Modified-Since: Sun Sep  9 01:46:40 2001", "304", NULL, "\r\n\r\n" },
		{ "If-Modified-Since: Sun, 09 Sep 2001 01:46:39 GMT", "200", NULL, "world" },
		{ "If-Modified-Since: yesterday", "200", NULL, "world" },
		{ "If-Match: \"3b9aca00.0-c\"", "200", NULL, "world" },
		{ "If-Match: \"a\"", "412", NULL, "\r\n\r\n" },
		{ "If-Match: W/\"3b9aca00.0-c\"", "412", NULL, "\r\n\r\n" },
		{ "If-Unmodified-Since: Sun, 09 Sep 2001 01:46:39 GMT", "412", NULL, "\r\n\r\n" },
		{ "If-Unmodified-Since: Sun, 09 Sep 2001 01:46:40 GMT", "200", NULL, "world" },
	};
	char request[300], begins[32], line[64];

	setup("");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		(void)snprintf(request, sizeof(request),
			       "GET /hello.txt HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", cases[i].field);
		(void)snprintf(begins, sizeof(begins), "HTTP/1.1 %s ", cases[i].status);
		expect(request, begins, cases[i].body);
		(void)snprintf(line, sizeof(line), "Content-Range: %s",
			       cases[i].content_range ? cases[i].content_range : "");
		if (cases[i].content_range ? !has_line(line)
					   : strstr(f.answer, "Content-Range") != NULL)
			fail_msg("%s\n->\n%s", request, f.answer);
		assert_true(has_line("ETag: \"3b9aca00.0-c\""));
	}
	expect("HEAD /hello.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n", "HTTP/1.1 200 ",
	       "\r\n\r\n");
	expect("GET /empty.css HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n", "HTTP/1.1 200 ",
	       "\r\n\r\n");
	teardown();
}

/* RFC 9110 8.8.1: within the same tick it may change again. */
static void a_file_that_changed_just_now_has_a_weak_tag(void **state)
{
	const struct timespec times[2] = { { NOW, 0 }, { NOW, 0 } };

	setup("");
	write_file("new.txt", "new", 3);
	assert_int_equal(utimensat(AT_FDCWD, path_of("new.txt"), times, 0), 0);
	expect("GET /new.txt HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "new");
	assert_true(has_line("ETag: W/\"6553f100.0-3\""));
	expect("GET /new.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-0\r\n"
	       "If-Range: Tue, 14 Nov 2023 22:13:20 GMT\r\n\r\n",
	       "HTTP/1.1 200 ", "new");
	teardown();
}

static void directories(void **state)
{
	setup("");
	expect("GET /dir/ HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "<p>index");
	assert_true(has_line("Content-Type: text/html; charset=utf-8"));
	expect("GET /dir?q=1 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 301 ", "\n");
	assert_true(has_line("Location: ./dir/?q=1"));
	expect("GET //plain/..//dir HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 301 ", "\n");
	assert_true(has_line("Location: ./dir/"));
	expect("GET /plain/inside HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "hello, world");
	teardown();
	setup("list,");
	expect("GET /plain/ HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "</ul>\n");
	assert_non_null(strstr(f.answer, "<a href=\"./x%3Ay\">x:y</a>"));
	assert_non_null(strstr(f.answer, "<a href=\"../\">"));
	expect("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "</ul>\n");
	assert_non_null(strstr(f.answer, "<a href=\"./a%20b%26%3Cc%3E.html\">"
					 "a b&amp;&lt;c&gt;.html</a>"));
	assert_non_null(strstr(f.answer, "<a href=\"./dir/\">dir/</a>"));
	assert_null(strstr(f.answer, "../"));
	expect("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "\r\n\r\n");
	teardown();
}

static void a_page_of_links_has_a_limit(void **state)
{
	char name[250], path[200];
	size_t len;
	char *page;

	(void)snprintf(path, sizeof(path), "%s", path_of("many"));
	assert_int_equal(mkdir(path, 0755), 0);
	for (unsigned i = 0; i < HTTP_LISTING_ENTRIES + 1; i++) {
		(void)snprintf(name, sizeof(name), "many/%04u%0150u", i, 0U);
		write_file(name, "", 0);
	}
	page = http_listing(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), "many/", &len);
	assert_non_null(page);
	assert_true(len < HTTP_LISTING_MAX);
	assert_memory_equal(page + len - 15, "There is more.\n", 15);
	free(page);
}

static void pages_under_way_have_a_limit(void **state)
{
	struct session more[33];

	setup("list,");
	for (unsigned i = 0; i < 33; i++) {
		struct fake_conn *const c = &f.engine->conns[i + 1];

		session_init(&more[i], &f.host, (conn_id){ i + 1, 1 }, i, f.service);
		assert_int_equal(session_open(&more[i]), 0);
		c->room = 20;
		fake_arrive(f.engine, i + 1, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 27);
		session_ready(&more[i], REPORT_READABLE);
		assert_memory_equal(c->out, i < 32 ? "HTTP/1.1 200" : "HTTP/1.1 503", 12);
	}
	session_fini(&more[0], true);
	expect("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "</ul>\n");
	for (unsigned i = 1; i < 33; i++)
		session_fini(&more[i], true);
	teardown();
}

static void one_file_for_every_request(void **state)
{
	setup_at("timeout=30,", "/hello.txt");
	assert_int_equal(session_open(&f.s), 0);
	expect("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "world");
	assert_true(has_line("Content-Type: text/plain; charset=utf-8"));
	expect("GET /any/thing?x HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "world");
	teardown();
}

static void a_replaced_directory_is_served_within_a_second(void **state)
{
	char old[200];

	assert_int_equal(mkdir(path_of("site"), 0755), 0);
	write_file("site/v", "one", 3);
	setup_at("", "/site");
	assert_int_equal(session_open(&f.s), 0);
	expect("GET /v HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "one");
	(void)snprintf(old, sizeof(old), "%s", path_of("site.old"));
	assert_int_equal(rename(path_of("site"), old), 0);
	f.host.realtime_us += 1000000;
	expect("GET /v HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404 ", "\n");
	assert_int_equal(mkdir(path_of("site"), 0755), 0);
	write_file("site/v", "two", 3);
	f.host.realtime_us += 1000000;
	expect("GET /v HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ", "two");
	teardown();
}

/* 20 ms, so that the test need not wait. */
static void who_says_nothing_is_closed(void **state)
{
	setup("timeout=20ms,");
	while (!f.c->closed)
		assert_int_equal(event_base_loop(f.host.base, EVLOOP_ONCE), 0);
	assert_int_equal(f.c->out_len, 0);
	assert_int_equal(f.host.http_timeouts, 1);
	teardown();
	setup("timeout=20ms,");
	arrive("GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\nGET /hel");
	while (!f.c->closed)
		assert_int_equal(event_base_loop(f.host.base, EVLOOP_ONCE), 0);
	assert_non_null(strstr(take_answer(), "worldHTTP/1.1 408 Request Timeout\r\n"));
	assert_false(f.c->aborted);
	teardown();
}

static void who_reads_nothing_is_reset(void **state)
{
	setup("timeout=20ms,");
	f.c->room = 100000;
	arrive("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
	while (!f.c->aborted)
		assert_int_equal(event_base_loop(f.host.base, EVLOOP_ONCE), 0);
	assert_int_equal(f.host.http_timeouts, 1);
	teardown();
}

/* FIN would say that this was all of it. */
static void a_file_that_became_shorter_resets(void **state)
{
	write_file("shrinks", content, 500000);
	setup("");
	f.c->room = 1000;
	arrive("GET /shrinks HTTP/1.1\r\nHost: a\r\n\r\n");
	write_file("shrinks", content, 2000);
	f.c->room = FAKE_QUEUE - f.c->out_len;
	session_ready(&f.s, REPORT_WRITABLE);
	while (!f.c->aborted)
		assert_int_equal(event_base_loop(f.host.base, EVLOOP_ONCE), 0);
	assert_int_equal(f.c->abort_reason, END_RESET_BY_SERVICE);
	teardown();
}

/* What the page cache has not is read in a later wakeup, where the file system can say so. */
static void a_cold_file_arrives_whole(void **state)
{
	static uint8_t got[1000000];
	const uint8_t *body;
	size_t at = 0;
	int fd;

	write_file("cold", content, 900000);
	fd = open(path_of("cold"), O_RDWR | O_CLOEXEC);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	(void)close(fd);
	setup("");
	arrive("GET /cold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	while (!f.c->closed)
		assert_int_equal(event_base_loop(f.host.base, EVLOOP_ONCE), 0);
	memcpy(got, f.c->out, f.c->out_len);
	at = f.c->out_len;
	body = memmem(got, at, "\r\n\r\n", 4);
	assert_int_equal(got + at - (body + 4), 900000);
	assert_memory_equal(body + 4, content, 900000);
	teardown();
}

static void arguments_are_checked(void **state)
{
	static const struct {
		const char *text;
		int rc;
		const char *message;
	} cases[] = {
		{ "http", -EINVAL, "write http:/PATH" },
		{ "http:", -EINVAL, "absolute path" },
		{ "http:srv", -EINVAL, "absolute path" },
		{ "http:list/srv", -EINVAL, "absolute path" },
		{ "http:lists,/tmp", -EINVAL, "expected list" },
		{ "http:timeout=0,/tmp", -EINVAL, "timeout=TIME" },
		{ "http:timeout=5m,/tmp", -EINVAL, "timeout=TIME" },
		{ "http:timeout=86401,/tmp", -EINVAL, "timeout=TIME" },
		{ "http:requests=0,/tmp", -EINVAL, "requests=NUMBER" },
		{ "http:requests=4294967296,/tmp", -EINVAL, "requests=NUMBER" },
		{ "http:requests=1x,/tmp", -EINVAL, "requests=NUMBER" },
		{ "http:,/tmp", -EINVAL, "expected list" },
		{ "http:/nowhere/at/all", -ENOENT, "No such file" },
		{ "http:/dev/null", -EINVAL, "neither a directory nor a file" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct errmsg err = { 0 };
		const int rc = service_check(cases[i].text, NULL, &err);

		if (rc != cases[i].rc || !strstr(err.text, cases[i].message))
			fail_msg("\"%s\": %d, %s", cases[i].text, rc, err.text);
	}
	assert_int_equal(service_check("http:list,timeout=500ms,requests=1000,/tmp", NULL, NULL),
			 0);
}

static void dates_are_read_in_three_forms(void **state)
{
	static const char *const same[] = { "Sun, 06 Nov 1994 08:49:37 GMT",
					    "Sunday, 06-Nov-94 08:49:37 GMT",
					    "Sun Nov  6 08:49:37 1994" };
	static const char *const wrong[] = { "",
					     "Sun, 06 Nov 1994 08:49:37",
					     "Sun, 06 Nov 1994 08:49:37 GMT+1",
					     "Sun, 06 Xyz 1994 08:49:37 GMT",
					     "Sun, 32 Nov 1994 08:49:37 GMT",
					     "Sun, 06 Nov 1994 24:49:37 GMT",
					     "784111777" };
	char text[HTTP_DATE_TEXT];
	time_t t;

	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		assert_int_equal(
			http_date_parse((struct http_text){ same[i], strlen(same[i]) }, &t), 0);
		assert_int_equal(t, 784111777);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(
			http_date_parse((struct http_text){ wrong[i], strlen(wrong[i]) }, &t),
			-EINVAL);
	assert_string_equal(http_date_format(784111777, text), same[0]);
	assert_string_equal(http_date_format(INT64_MAX, text), "Thu, 01 Jan 1970 00:00:00 GMT");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(get_has_the_fields_of_rfc9110),
		cmocka_unit_test(refusals_have_their_status),
		cmocka_unit_test(more_than_a_hundred_fields_are_refused),
		cmocka_unit_test(connections_stay_or_end_as_the_peer_wants),
		cmocka_unit_test(the_number_of_requests_has_a_limit),
		cmocka_unit_test(a_request_may_come_octet_by_octet),
		cmocka_unit_test(a_pipeline_is_answered_in_order),
		cmocka_unit_test(a_peer_that_does_not_read_stops_it),
		cmocka_unit_test(a_half_closed_peer_is_answered),
		cmocka_unit_test(a_reset_in_the_middle_leaves_nothing),
		cmocka_unit_test(ranges),
		cmocka_unit_test(a_file_that_changed_just_now_has_a_weak_tag),
		cmocka_unit_test(directories),
		cmocka_unit_test(a_page_of_links_has_a_limit),
		cmocka_unit_test(pages_under_way_have_a_limit),
		cmocka_unit_test(one_file_for_every_request),
		cmocka_unit_test(a_replaced_directory_is_served_within_a_second),
		cmocka_unit_test(who_says_nothing_is_closed),
		cmocka_unit_test(who_reads_nothing_is_reset),
		cmocka_unit_test(a_file_that_became_shorter_resets),
		cmocka_unit_test(a_cold_file_arrives_whole),
		cmocka_unit_test(arguments_are_checked),
		cmocka_unit_test(dates_are_read_in_three_forms),
	};

	return cmocka_run_group_tests(tests, make_root, remove_root);
}
