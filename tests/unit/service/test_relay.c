/* SPDX-License-Identifier: Apache-2.0 */
/* The relay on a fake engine, with real backends on loopback and UNIX sockets. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "fake_engine.h"
#include "service/relay.h"
#include "service/service.h"

enum { WATCHDOG_S = 60 };

static struct {
	struct engine *engine;
	struct fake_conn *c;
	struct service_host host;
	struct service *service;
	struct session s;
	int listener, backend; /* the backend's */
	uint16_t port;
} f;

static void on_begin(struct service_host *h)
{
	h->now.us++;
}

static void on_end(struct service_host *h)
{
	(void)h;
}

static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
	fail_msg("it hangs");
}

#define TURN_UNTIL(condition)                                                           \
	do {                                                                            \
		struct event *watchdog_ = evtimer_new(f.host.base, on_watchdog, NULL);  \
		event_add(watchdog_, &(struct timeval){ .tv_sec = WATCHDOG_S });        \
		while (!(condition))                                                    \
			assert_int_equal(event_base_loop(f.host.base, EVLOOP_ONCE), 0); \
		event_free(watchdog_);                                                  \
	} while (0)

static int listen_tcp(uint16_t *ret_port, int backlog)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(sin);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(listen(fd, backlog), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	*ret_port = ntohs(sin.sin_port);
	return fd;
}

static int open_session(const char *fmt, unsigned a, unsigned b)
{
	const struct flow flow = { .local = { addr_v4(10, 0, 0, 2), 80 },
				   .remote = { addr_v4(198, 51, 100, 1), 40000 } };
	struct errmsg err;
	char text[200];

	(void)snprintf(text, sizeof(text), "relay:%s127.0.0.1:%u,127.0.0.1:%u", fmt, a, b);
	if (service_new(text, NULL, &f.service, &err))
		fail_msg("%s", err.text);
	f.engine->conns[0].flow = flow;
	f.engine->conns[0].params.nagle = true;
	session_init(&f.s, &f.host, (conn_id){ 0, 1 }, 7, f.service);
	return session_open(&f.s);
}

static void prepare(void)
{
	memset(&f, 0, sizeof(f));
	f.engine = fake_engine_new();
	f.c = &f.engine->conns[0];
	f.host.engine = f.engine;
	f.host.base = event_base_new();
	f.host.begin = on_begin;
	f.host.end = on_end;
	f.backend = -1;
	assert_int_equal(service_host_init(&f.host), 0);
	f.listener = listen_tcp(&f.port, 8);
}

static void setup(const char *options)
{
	prepare();
	assert_int_equal(open_session(options, f.port, f.port), 0);
	assert_false(f.c->params.nagle); /* its writer has chosen the segments */
	f.backend = accept(f.listener, NULL, NULL);
	assert_true(f.backend >= 0);
	TURN_UNTIL(f.host.relay_connected == 1);
}

static void teardown(void)
{
	session_fini(&f.s, false);
	service_unref(f.service);
	service_host_fini(&f.host);
	event_base_free(f.host.base);
	fake_engine_free(f.engine);
	if (f.backend >= 0)
		(void)close(f.backend);
	(void)close(f.listener);
}

static void close_by_reset(int fd)
{
	const struct linger at_once = { .l_onoff = 1 };

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	(void)close(fd);
}

static void arrive(const char *text)
{
	fake_arrive(f.engine, 0, text, strlen(text));
	session_ready(&f.s, REPORT_READABLE);
}

static void backend_gets(const char *want)
{
	char buf[200] = "";

	assert_int_equal(recv(f.backend, buf, strlen(want), MSG_WAITALL), strlen(want));
	assert_string_equal(buf, want);
}

static void peer_has(const char *want)
{
	TURN_UNTIL(f.c->out_len >= strlen(want));
	assert_int_equal(f.c->out_len, strlen(want));
	assert_memory_equal(f.c->out, want, strlen(want));
}

static void octets_go_both_ways_and_each_end_by_itself(void **state)
{
	char end;

	setup("");
	arrive("question");
	backend_gets("question");
	f.c->peer_fin = true;
	session_ready(&f.s, REPORT_PEER_CLOSED);
	assert_int_equal(recv(f.backend, &end, 1, 0), 0); /* FIN */
	assert_int_equal(send(f.backend, "answer", 6, 0), 6);
	peer_has("answer");
	assert_false(f.c->closed);
	(void)shutdown(f.backend, SHUT_WR);
	TURN_UNTIL(f.c->closed);
	assert_false(f.c->aborted);
	assert_int_equal(f.c->close_cause, CAUSE_USER);
	teardown();
}

static void the_backend_may_end_first(void **state)
{
	char end;

	setup("");
	assert_int_equal(send(f.backend, "bye", 3, 0), 3);
	(void)shutdown(f.backend, SHUT_WR);
	TURN_UNTIL(f.c->closed);
	peer_has("bye");
	arrive("more");
	backend_gets("more");
	assert_ptr_equal(f.s.ops, &service_relay);
	f.c->peer_fin = true;
	session_ready(&f.s, REPORT_PEER_CLOSED);
	assert_int_equal(recv(f.backend, &end, 1, 0), 0);
	assert_false(f.c->aborted);
	teardown();
}

static void what_came_before_the_backend_answered_is_kept(void **state)
{
	prepare();
	fake_arrive(f.engine, 0, "early", 5);
	f.c->peer_fin = true;
	assert_int_equal(open_session("", f.port, f.port), 0);
	if (!f.host.relay_connected) /* loopback may be that quick */
		assert_int_equal(session_text(&f.s, (struct span){ (const uint8_t *)"x", 1 }), 0);
	session_ready(&f.s, REPORT_READABLE | REPORT_PEER_CLOSED);
	f.backend = accept(f.listener, NULL, NULL);
	TURN_UNTIL(f.host.relay_connected == 1);
	backend_gets("early");
	teardown();
}

static void a_reset_by_the_peer_resets_the_backend(void **state)
{
	char byte;

	setup("");
	session_fini(&f.s, true);
	assert_int_equal(recv(f.backend, &byte, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	teardown();
}

static void a_normal_end_does_not(void **state)
{
	char byte;

	setup("");
	session_fini(&f.s, false);
	assert_int_equal(recv(f.backend, &byte, 1, 0), 0);
	teardown();
}

static void a_reset_by_the_backend_resets_the_peer(void **state)
{
	setup("");
	close_by_reset(f.backend);
	f.backend = -1;
	TURN_UNTIL(f.c->aborted);
	assert_int_equal(f.c->abort_reason, END_RESET_BY_SERVICE);
	assert_ptr_equal(f.s.ops, &service_sink);
	teardown();
}

static void a_reset_by_the_backend_after_its_end_loses_nothing(void **state)
{
	setup("");
	assert_int_equal(send(f.backend, "413", 3, 0), 3);
	(void)shutdown(f.backend, SHUT_WR);
	TURN_UNTIL(f.c->closed);
	close_by_reset(f.backend);
	f.backend = -1;
	TURN_UNTIL(f.s.ops == &service_sink);
	assert_false(f.c->aborted);
	peer_has("413");
	session_ready(&f.s, REPORT_ALL_ACKED);
	assert_true(f.c->stopped_reading);
	teardown();
}

static void back_pressure_of_the_peer_stops_the_backend(void **state)
{
	static char block[65536];
	size_t sent = 0;
	ssize_t n;

	setup("");
	f.c->room = 1000;
	(void)fcntl(f.backend, F_SETFL, O_NONBLOCK);
	for (unsigned i = 0; i < 1000; i++) {
		n = send(f.backend, block, sizeof(block), 0);
		sent += n > 0 ? (size_t)n : 0;
		(void)event_base_loop(f.host.base, EVLOOP_NONBLOCK); /* 1: none is armed */
	}
	assert_int_equal(send(f.backend, block, 1, 0), -1);
	assert_int_equal(errno, EAGAIN);
	assert_true(sent > 65536);
	assert_int_equal(f.c->out_len, 1000);
	(void)shutdown(f.backend, SHUT_WR);
	while (!f.c->closed) {
		f.c->out_len = 0;
		f.c->room = FAKE_QUEUE;
		session_ready(&f.s, REPORT_WRITABLE);
		(void)event_base_loop(f.host.base, EVLOOP_NONBLOCK); /* 1: none is armed */
	}
	assert_false(f.c->aborted);
	teardown();
}

static void back_pressure_of_the_backend_stops_the_peer(void **state)
{
	static uint8_t block[FAKE_QUEUE];
	size_t given = 0, got = 0;
	unsigned stuck = 0;
	ssize_t n;

	setup("");
	while (stuck < 100) { /* a kernel grows its buffers, so until it takes none for long */
		const size_t more = FAKE_QUEUE - f.c->in_len;

		fake_arrive(f.engine, 0, block, more);
		session_ready(&f.s, REPORT_READABLE);
		given += more;
		stuck = more ? 0 : stuck + 1;
		(void)poll(NULL, 0, 1);
		(void)event_base_loop(f.host.base, EVLOOP_NONBLOCK); /* 1: none is armed */
	}
	f.c->peer_fin = true;
	session_ready(&f.s, REPORT_PEER_CLOSED);
	(void)fcntl(f.backend, F_SETFL, O_NONBLOCK);
	for (n = -1; n; got += n > 0 ? (size_t)n : 0) {
		n = recv(f.backend, block, sizeof(block), 0);
		(void)event_base_loop(f.host.base, EVLOOP_NONBLOCK); /* 1: none is armed */
	}
	assert_int_equal(got, given);
	teardown();
}

static void the_next_backend_is_tried(void **state)
{
	uint16_t dead;
	int fd;

	prepare();
	fd = listen_tcp(&dead, 1);
	(void)close(fd);
	assert_int_equal(open_session("", dead, f.port), 0);
	TURN_UNTIL(f.host.relay_connected == 1);
	assert_int_equal(f.host.relay_failed, 1);
	f.backend = accept(f.listener, NULL, NULL);
	arrive("hi");
	backend_gets("hi");
	teardown();
}

static void no_backend_resets_the_peer(void **state)
{
	uint16_t dead;
	int fd;

	prepare();
	fd = listen_tcp(&dead, 1);
	(void)close(fd);
	if (!open_session("", dead, dead)) {
		TURN_UNTIL(f.c->aborted);
		assert_int_equal(f.host.refused, 1);
		assert_int_equal(f.c->abort_reason, END_RESET_BY_SERVICE);
	}
	assert_int_equal(f.host.relay_failed, 2);
	assert_int_equal(f.host.relay_connected, 0);
	teardown();
}

/* A listener whose backlog is full does not answer at all. */
static void a_backend_that_does_not_answer_times_out(void **state)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int full, fds[8];
	uint16_t mute;

	prepare();
	full = listen_tcp(&mute, 0);
	sin.sin_port = htons(mute);
	for (unsigned i = 0; i < 8; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)connect(fds[i], (struct sockaddr *)&sin, sizeof(sin));
	}
	assert_int_equal(open_session("timeout=50ms,", mute, f.port), 0);
	TURN_UNTIL(f.host.relay_connected == 1);
	assert_int_equal(f.host.relay_failed, 1);
	for (unsigned i = 0; i < 8; i++)
		(void)close(fds[i]);
	(void)close(full);
	teardown();
}

static void the_peer_may_go_while_we_connect(void **state)
{
	prepare();
	assert_int_equal(open_session("", f.port, f.port), 0);
	session_fini(&f.s, true);
	assert_int_equal(event_base_loop(f.host.base, EVLOOP_NONBLOCK), 1); /* no event is left */
	teardown();
}

static void a_unix_socket_is_a_backend(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char text[200];

	prepare();
	(void)close(f.listener);
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "/tmp/tcpfsm-relay.%d", (int)getpid());
	f.listener = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(f.listener, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(f.listener, 8), 0);
	(void)snprintf(text, sizeof(text), "unix:%s,", sun.sun_path);
	assert_int_equal(open_session(text, 9, 9), 0);
	assert_int_equal(f.host.relay_connected, 1);
	f.backend = accept(f.listener, NULL, NULL);
	arrive("hello");
	backend_gets("hello");
	assert_int_equal(send(f.backend, "world", 5, 0), 5);
	(void)close(f.backend);
	f.backend = -1;
	TURN_UNTIL(f.s.ops == &service_sink);
	peer_has("world");
	assert_true(f.c->closed);
	assert_false(f.c->aborted);
	(void)unlink(sun.sun_path);
	teardown();
}

static void proxy_v1_comes_first(void **state)
{
	setup("proxy=v1,");
	arrive("GET");
	backend_gets("PROXY TCP4 198.51.100.1 10.0.0.2 40000 80\r\nGET");
	teardown();
}

static void proxy_v2_comes_first(void **state)
{
	static const uint8_t want[] = { '\r', '\n', '\r', '\n', 0,    '\r', '\n', 'Q', 'U', 'I',
					'T',  '\n', 0x21, 0x11, 0,    12,   198,  51,  100, 1,
					10,   0,    0,    2,    0x9c, 0x40, 0,    80,  'G' };
	uint8_t got[sizeof(want)];

	setup("proxy=v2,");
	arrive("G");
	assert_int_equal(recv(f.backend, got, sizeof(got), MSG_WAITALL), sizeof(want));
	assert_memory_equal(got, want, sizeof(want));
	teardown();
}

static void proxy_headers_of_ipv6(void **state)
{
	struct flow flow = { .local.port = 65535, .remote.port = 65535 };
	uint8_t header[PROXY_HEADER_MAX];
	char text[PROXY_HEADER_MAX + 1];
	size_t len;

	(void)addr_parse("1111:2222:3333:4444:5555:6666:7777:8888", &flow.remote.addr);
	(void)addr_parse("2001:db8::2", &flow.local.addr);
	len = proxy_header(1, &flow, header);
	(void)snprintf(text, sizeof(text), "%.*s", (int)len, (const char *)header);
	assert_string_equal(text, "PROXY TCP6 1111:2222:3333:4444:5555:6666:7777:8888 2001:db8::2 "
				  "65535 65535\r\n");
	len = proxy_header(2, &flow, header);
	assert_int_equal(len, 16 + 36);
	assert_int_equal(header[13], 0x21);
	assert_int_equal(header[15], 36);
	assert_memory_equal(header + 16, flow.remote.addr.b, 16);
	assert_memory_equal(header + 32, flow.local.addr.b, 16);
	assert_int_equal(header[48] << 8 | header[49], 65535);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(octets_go_both_ways_and_each_end_by_itself),
		cmocka_unit_test(the_backend_may_end_first),
		cmocka_unit_test(what_came_before_the_backend_answered_is_kept),
		cmocka_unit_test(a_reset_by_the_peer_resets_the_backend),
		cmocka_unit_test(a_normal_end_does_not),
		cmocka_unit_test(a_reset_by_the_backend_resets_the_peer),
		cmocka_unit_test(a_reset_by_the_backend_after_its_end_loses_nothing),
		cmocka_unit_test(back_pressure_of_the_peer_stops_the_backend),
		cmocka_unit_test(back_pressure_of_the_backend_stops_the_peer),
		cmocka_unit_test(the_next_backend_is_tried),
		cmocka_unit_test(no_backend_resets_the_peer),
		cmocka_unit_test(a_backend_that_does_not_answer_times_out),
		cmocka_unit_test(the_peer_may_go_while_we_connect),
		cmocka_unit_test(a_unix_socket_is_a_backend),
		cmocka_unit_test(proxy_v1_comes_first),
		cmocka_unit_test(proxy_v2_comes_first),
		cmocka_unit_test(proxy_headers_of_ipv6),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
