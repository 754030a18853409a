/* SPDX-License-Identifier: Apache-2.0 */
/* The stream service on a fake engine: what becomes of a connection when its holder goes away, and what he who
 * accepts finds in it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
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

#include "base/stream_order.h"
#include "fake_engine.h"
#include "service/service.h"

enum { PIECE = 200000, DEFER_US = 60000000 };

static struct {
	struct engine *engine;
	struct fake_conn *c;
	struct service_host host;
	struct service *service;
	struct session s;
	int holder; /* the other end of the session's */
	int copy; /* a duplicate of the session's, which a program had before it passed it */
	int accepting; /* where lines come */
} f;

static char piece[PIECE], got[PIECE];

static void on_wakeup(struct service_host *h)
{
	h->now.us++;
}

/* Until nothing is to be done but for timers. */
static void turn(void)
{
	for (int i = 0; i < 20; i++)
		assert_true(event_base_loop(f.host.base, EVLOOP_NONBLOCK) >= 0);
}

static void prepare(void)
{
	memset(&f, 0, sizeof(f));
	for (unsigned i = 0; i < PIECE; i++)
		piece[i] = (char)(i * 7 + i / 251);
	f.engine = fake_engine_new();
	f.c = &f.engine->conns[0];
	f.host.engine = f.engine;
	f.host.base = event_base_new();
	f.host.begin = f.host.end = on_wakeup;
	f.holder = f.copy = f.accepting = -1;
	assert_int_equal(service_host_init(&f.host), 0);
}

/* Its send buffer takes `room` octets. */
static void setup(size_t room)
{
	int ends[2];

	prepare();
	f.c->room = room;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	f.holder = ends[0];
	f.copy = fcntl(ends[1], F_DUPFD_CLOEXEC, 0);
	assert_int_equal(service_new_stream(&f.service), 0);
	session_init(&f.s, &f.host, (conn_id){ 0, 1 }, 7, f.service);
	f.s.fd = ends[1];
	assert_int_equal(session_open(&f.s), 0);
}

/* The kernel would go on telling of a file that was closed under one of its numbers only. */
static void no_event_of_a_closed_descriptor(void)
{
	char path[64], text[200];
	unsigned bases = 0;

	for (int ep = 0; ep < 100; ep++) {
		FILE *info;
		int fd;

		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", ep);
		memset(text, 0, sizeof(text));
		if (readlink(path, text, sizeof(text) - 1) < 0 || !strstr(text, "[eventpoll]"))
			continue;
		bases++;
		(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", ep);
		info = fopen(path, "r");
		assert_non_null(info);
		while (fgets(text, sizeof(text), info))
			if (sscanf(text, "tfd: %d", &fd) == 1)
				assert_true(fd != fileno(info) && fcntl(fd, F_GETFD) >= 0);
		(void)fclose(info);
	}
	assert_int_equal(bases, 1);
}

static void teardown(void)
{
	session_fini(&f.s, true);
	no_event_of_a_closed_descriptor();
	service_unref(f.service);
	service_host_fini(&f.host);
	event_base_free(f.host.base);
	fake_engine_free(f.engine);
	if (f.holder >= 0)
		(void)close(f.holder);
	if (f.copy >= 0)
		(void)close(f.copy);
	if (f.accepting >= 0)
		(void)close(f.accepting);
}

static void order(uint8_t octet)
{
	const int any = open("/dev/null", O_RDONLY | O_CLOEXEC);
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { &octet, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.room,
			      .msg_controllen = sizeof(control.room) };
	struct cmsghdr *const h = CMSG_FIRSTHDR(&msg);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &any, sizeof(int));
	assert_int_equal(sendmsg(f.holder, &msg, 0), 1);
	(void)close(any);
}

static void says(const char *text, size_t len)
{
	assert_int_equal(send(f.holder, text, len, MSG_DONTWAIT), len);
}

static void goes_away(void)
{
	(void)close(f.holder);
	f.holder = -1;
}

static void sent(const char *text, size_t len)
{
	assert_int_equal(f.c->out_len, len);
	assert_memory_equal(f.c->out, text, len);
}

/* ---- how a holder goes ---- */

static void without_an_order_it_is_a_fin(void **state)
{
	setup(PIECE);
	says("abc", 3);
	goes_away();
	turn();
	sent("abc", 3);
	assert_true(f.c->closed);
	assert_false(f.c->aborted);
	teardown();
}

static void he_who_resets_has_said_what_he_wrote(void **state)
{
	for (int early = 0; early < 2; early++) {
		setup(PIECE);
		order(STREAM_RESETS);
		if (early)
			turn();
		says("abc", 3);
		goes_away();
		turn();
		sent("abc", 3);
		assert_true(f.c->aborted);
		teardown();
	}
}

static void taken_back_it_is_a_fin_behind_the_text(void **state)
{
	/* Of the order, its taking back, and the text: how many are read before he is gone? */
	for (int seen = 0; seen < 4; seen++) {
		for (size_t len = 0; len <= 3; len += 3) {
			setup(PIECE);
			order(STREAM_RESETS);
			if (seen == 1)
				turn();
			order(STREAM_ENDS);
			if (seen == 2)
				turn();
			if (len)
				says("abc", len);
			if (seen == 3)
				turn();
			goes_away();
			turn();
			sent("abc", len);
			assert_true(f.c->closed);
			assert_false(f.c->aborted);
			teardown();
		}
	}
}

static void the_last_order_counts(void **state)
{
	setup(PIECE);
	order(STREAM_RESETS);
	turn();
	order(STREAM_ENDS);
	says("abc", 3);
	order(STREAM_RESETS);
	goes_away();
	turn();
	assert_true(f.c->aborted);
	teardown();
}

/* ---- and when the send buffer is full ---- */

static void a_reset_does_not_wait_for_room(void **state)
{
	static const char orders[][3] = { "R", "RrR", "rR" };

	for (unsigned i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		for (int behind = 0; behind < 3; behind++) {
			setup(10);
			if (behind) {
				says(piece, 1000);
				if (behind == 2)
					turn();
			}
			for (const char *o = orders[i]; *o; o++)
				order((uint8_t)*o);
			if (!behind) {
				turn();
				says(piece, 1000);
			}
			goes_away();
			turn();
			assert_true(f.c->aborted);
			sent(piece, 10);
			teardown();
		}
	}
}

static void drain(size_t len)
{
	size_t n = 0;

	while (!f.c->closed) {
		assert_false(f.c->aborted);
		assert_true(n + f.c->out_len <= sizeof(got));
		memcpy(got + n, f.c->out, f.c->out_len);
		n += f.c->out_len;
		f.c->out_len = 0;
		f.c->room = 7000;
		session_ready(&f.s, REPORT_WRITABLE);
		turn();
	}
	memcpy(got + n, f.c->out, f.c->out_len);
	assert_int_equal(n + f.c->out_len, len);
	assert_memory_equal(got, piece, len);
}

static void taken_back_behind_text_nothing_is_lost(void **state)
{
	for (int seen = 0; seen < 2; seen++) {
		setup(10);
		order(STREAM_RESETS);
		if (seen)
			turn();
		says(piece, 100000);
		turn();
		order(STREAM_ENDS);
		says(piece + 100000, 3);
		goes_away();
		turn();
		assert_false(f.c->aborted);
		assert_false(f.c->closed);
		drain(100003);
		teardown();
	}
}

static void without_an_order_nothing_is_lost(void **state)
{
	setup(10);
	says(piece, 100000);
	turn();
	goes_away();
	turn();
	assert_false(f.c->aborted);
	drain(100000);
	teardown();
}

static void text_left_unread_is_a_reset_at_once(void **state)
{
	setup(10);
	fake_arrive(f.engine, 0, "unread", 6);
	session_ready(&f.s, REPORT_READABLE);
	says(piece, 1000);
	turn();
	goes_away();
	turn();
	assert_true(f.c->aborted);
	teardown();
}

/* He has ended, and goes on reading: when he goes that is seen, too. */
static void a_reset_behind_his_fin(void **state)
{
	setup(PIECE);
	order(STREAM_RESETS);
	says("abc", 3);
	(void)shutdown(f.holder, SHUT_WR);
	turn();
	sent("abc", 3);
	assert_true(f.c->closed);
	assert_false(f.c->aborted);
	goes_away();
	turn();
	assert_true(f.c->aborted);
	teardown();
}

/* They were read with the text in front of them, which waits for room. */
static void orders_take_effect_in_their_place(void **state)
{
	setup(10);
	says(piece, 100);
	order(STREAM_URGENT);
	says("!", 1);
	order(STREAM_CORK);
	turn();
	sent(piece, 10);
	assert_int_equal(f.c->urgent_end, 0);
	f.c->room = 50;
	session_ready(&f.s, REPORT_WRITABLE);
	turn();
	sent(piece, 60);
	assert_int_equal(f.c->urgent_end, 0);
	assert_false(f.c->params.cork);
	f.c->room = PIECE;
	session_ready(&f.s, REPORT_WRITABLE);
	turn();
	assert_int_equal(f.c->out_len, 101);
	assert_int_equal(f.c->urgent_end, 101);
	assert_true(f.c->params.cork);
	teardown();
}

/* ---- the other way round ---- */

/* One event, though somebody else holds our end as well. */
static void a_reset_ends_both_directions_at_once(void **state)
{
	for (int tail = 0; tail < 2; tail++) {
		struct pollfd p;
		struct sockaddr_un name = { 0 };
		socklen_t len = sizeof(name);
		size_t n = 0;
		ssize_t some;

		setup(PIECE);
		fake_arrive(f.engine, 0, piece, 4);
		for (int i = 0; tail && i < 10; i++) /* more than he has room for */
			fake_arrive(f.engine, 0, piece, PIECE);
		session_ready(&f.s, REPORT_READABLE);
		f.s.end_errno = ECONNRESET;
		session_fini(&f.s, true);
		no_event_of_a_closed_descriptor();
		do {
			turn();
			some = recv(f.holder, got, sizeof(got), MSG_DONTWAIT);
			n += some > 0 ? (size_t)some : 0;
		} while (some > 0);
		assert_int_equal(some, 0);
		assert_int_equal(n, tail ? 4 + 10 * PIECE : 4);
		p = (struct pollfd){ .fd = f.holder, .events = POLLIN | POLLRDHUP };
		assert_int_equal(poll(&p, 1, 0), 1);
		assert_int_equal(p.revents, POLLIN | POLLRDHUP | POLLHUP);
		assert_int_equal(getpeername(f.holder, (struct sockaddr *)&name, &len), 0);
		assert_string_equal(strrchr(name.sun_path + 1, ' '), " 104");
		teardown();
	}
}

/* Peers that send, and end, in front of a program that does not read. */
static void what_is_kept_for_late_readers_has_a_limit(void **state)
{
	enum { TIMES = 100, MOST = 64 << 20 };
	int holders[TIMES], n = 0;
	size_t kept = 0;
	struct sockaddr_un name = { 0 };
	socklen_t len = sizeof(name);

	setup(PIECE);
	for (; n < TIMES && !f.host.stream_lost; n++) {
		int ends[2];

		if (n) {
			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
			f.holder = ends[0];
			session_init(&f.s, &f.host, (conn_id){ 0, 1 }, 7, f.service);
			f.s.fd = ends[1];
			assert_int_equal(session_open(&f.s), 0);
		}
		holders[n] = f.holder;
		for (int i = 0; i < 10; i++)
			fake_arrive(f.engine, 0, piece, PIECE);
		session_ready(&f.s, REPORT_READABLE);
		kept += f.c->in_len;
		assert_true(f.c->in_len > PIECE);
		session_fini(&f.s, false);
		f.c->in_len = 0;
	}
	assert_true(kept > MOST && kept < MOST + 10 * PIECE);
	assert_int_equal(f.host.stream_lost, 1);
	/* Nobody takes it for the end of all. */
	assert_int_equal(getpeername(f.holder, (struct sockaddr *)&name, &len), 0);
	assert_string_equal(strrchr(name.sun_path + 1, ' '), " 105");
	/* Who goes, or reads, makes room. */
	while (n)
		(void)close(holders[--n]);
	f.holder = -1;
	turn();
	assert_int_equal(f.host.tail_bytes, 0);
	assert_null(f.host.tails);
	teardown();
}

/* ---- who accepts ---- */

static int ours; /* the daemon's end of where lines go */
static ssize_t at_once; /* what is to be read as soon as there is a line */

static void setup_accepting(uint64_t defer_us)
{
	int ends[2];

	prepare();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	f.accepting = ends[0];
	ours = ends[1];
	assert_int_equal(service_new_accepted(ours, 100, defer_us, &f.service), 0);
	session_init(&f.s, &f.host, (conn_id){ 0, 1 }, 7, f.service);
}

static void accepts(void)
{
	char line[STREAM_LINE_BYTES];
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { line, sizeof(line) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.room,
			      .msg_controllen = sizeof(control.room) };
	const ssize_t n = recvmsg(f.accepting, &msg, MSG_DONTWAIT);
	const struct cmsghdr *const h = CMSG_FIRSTHDR(&msg);

	if (n == sizeof(line) && h)
		memcpy(&f.holder, CMSG_DATA(h), sizeof(int));
}

/* Comes between the system call that tells of a connection and the next line of the program. */
static void on_line(int sig)
{
	accepts();
	at_once = recv(f.holder, got, sizeof(got), MSG_DONTWAIT);
}

static void is_told_by_signal(void)
{
	const struct sigaction told = { .sa_handler = on_line };

	at_once = -2;
	assert_int_equal(sigaction(SIGIO, &told, NULL), 0);
	assert_int_equal(fcntl(f.accepting, F_SETOWN, getpid()), 0);
	assert_int_equal(fcntl(f.accepting, F_SETFL, O_ASYNC), 0);
}

static void what_came_is_there_when_he_is_told(void **state)
{
	for (int deferred = 0; deferred < 2; deferred++) {
		setup_accepting(deferred ? DEFER_US : 0);
		is_told_by_signal();
		if (!deferred)
			fake_arrive(f.engine, 0, "early", 5);
		assert_int_equal(session_open(&f.s), 0);
		if (deferred) {
			assert_int_equal(
				session_text(&f.s, (struct span){ (const uint8_t *)"early", 5 }),
				0);
			fake_arrive(f.engine, 0, "early", 5);
			assert_int_equal(at_once, -2);
			session_ready(&f.s, REPORT_READABLE);
		}
		assert_int_equal(at_once, 5);
		assert_memory_equal(got, "early", 5);
		(void)close(ours);
		teardown();
	}
}

static void so_is_an_end(void **state)
{
	setup_accepting(DEFER_US);
	is_told_by_signal();
	assert_int_equal(session_open(&f.s), 0);
	f.c->peer_fin = true;
	session_ready(&f.s, REPORT_PEER_CLOSED);
	assert_int_equal(at_once, 0);
	assert_false(f.c->closed);
	(void)close(ours);
	teardown();
}

static size_t fill(int fd)
{
	size_t n = 0;
	ssize_t some;

	while ((some = send(fd, piece, 1000, MSG_DONTWAIT)) > 0)
		n += (size_t)some;
	return n;
}

/* The lowest number that is free. */
static int free_descriptor(void)
{
	const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)close(fd);
	return fd;
}

static void without_room_for_a_line_nothing_is_lost(void **state)
{
	/* Is there room by our count, but another worker was faster? */
	for (int raced = 0; raced < 2; raced++) {
		const struct span more = { (const uint8_t *)piece + 1000, 500 };
		size_t filled;
		int before;

		setup_accepting(DEFER_US);
		if (raced)
			assert_int_equal(
				setsockopt(ours, SOL_SOCKET, SO_SNDBUF, &(int){ 1 }, sizeof(int)),
				0);
		filled = fill(ours);
		before = free_descriptor();
		assert_int_equal(session_open(&f.s), 0);
		fake_arrive(f.engine, 0, piece, 1000);
		session_ready(&f.s, REPORT_READABLE);
		assert_int_equal(free_descriptor() > before, raced);
		assert_int_equal(session_text(&f.s, more), raced ? 500 : 0);
		fake_arrive(f.engine, 0, piece + (raced ? 1500 : 1000), raced ? 500 : 1000);
		f.c->peer_fin = true;
		session_ready(&f.s, REPORT_READABLE | REPORT_PEER_CLOSED);
		assert_false(f.c->aborted);
		while (filled)
			filled -= (size_t)recv(f.accepting, got, filled < PIECE ? filled : PIECE,
					       0);
		for (accepts(); f.holder < 0; accepts())
			assert_int_equal(event_base_loop(f.host.base, EVLOOP_ONCE), 0);
		assert_int_equal(recv(f.holder, got, sizeof(got), MSG_WAITALL), 2000);
		assert_memory_equal(got, piece, 2000);
		says("answer", 6);
		goes_away();
		turn();
		sent("answer", 6);
		assert_true(f.c->closed);
		assert_false(f.c->aborted);
		(void)close(ours);
		teardown();
	}
}

static void who_is_gone_before_he_is_told_of_leaves_nothing(void **state)
{
	const int before = free_descriptor();

	setup_accepting(DEFER_US);
	(void)fill(ours);
	assert_int_equal(session_open(&f.s), 0);
	fake_arrive(f.engine, 0, piece, 1000);
	session_ready(&f.s, REPORT_READABLE);
	fake_arrive(f.engine, 0, piece, 1000);
	f.s.end_errno = ECONNRESET;
	(void)close(ours);
	teardown();
	assert_int_equal(free_descriptor(), before);
}

/* He ends first; the last text comes with the peer's end in one report, which says both. */
static void an_end_of_both_sides_is_no_new_connection(void **state)
{
	for (int deferred = 0; deferred < 2; deferred++) {
		char line;

		setup_accepting(deferred ? DEFER_US : 0);
		assert_int_equal(session_open(&f.s), 0);
		fake_arrive(f.engine, 0, piece, 1000);
		session_ready(&f.s, REPORT_READABLE);
		accepts();
		assert_int_equal(shutdown(f.holder, SHUT_WR), 0);
		turn();
		assert_true(f.c->closed);
		fake_arrive(f.engine, 0, piece + 1000, 1000);
		f.c->peer_fin = true;
		session_ready(&f.s, REPORT_READABLE | REPORT_PEER_CLOSED);
		session_ready(&f.s, REPORT_WRITABLE | REPORT_READABLE | REPORT_PEER_CLOSED);
		assert_int_equal(recv(f.holder, got, sizeof(got), MSG_WAITALL), 2000);
		assert_memory_equal(got, piece, 2000);
		assert_int_equal(recv(f.holder, got, sizeof(got), MSG_DONTWAIT), 0);
		assert_int_equal(recv(f.accepting, &line, 1, MSG_DONTWAIT), -1);
		assert_false(f.c->aborted);
		(void)close(ours);
		teardown();
	}
}

static void where_nobody_accepts_it_is_refused(void **state)
{
	const int before = free_descriptor();

	setup_accepting(0);
	(void)close(f.accepting);
	f.accepting = -1;
	fake_arrive(f.engine, 0, piece, 1000);
	assert_int_equal(session_open(&f.s), -EPIPE);
	(void)close(ours);
	teardown();
	assert_int_equal(free_descriptor(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_an_order_it_is_a_fin),
		cmocka_unit_test(he_who_resets_has_said_what_he_wrote),
		cmocka_unit_test(taken_back_it_is_a_fin_behind_the_text),
		cmocka_unit_test(the_last_order_counts),
		cmocka_unit_test(a_reset_does_not_wait_for_room),
		cmocka_unit_test(taken_back_behind_text_nothing_is_lost),
		cmocka_unit_test(without_an_order_nothing_is_lost),
		cmocka_unit_test(text_left_unread_is_a_reset_at_once),
		cmocka_unit_test(a_reset_behind_his_fin),
		cmocka_unit_test(orders_take_effect_in_their_place),
		cmocka_unit_test(a_reset_ends_both_directions_at_once),
		cmocka_unit_test(what_is_kept_for_late_readers_has_a_limit),
		cmocka_unit_test(what_came_is_there_when_he_is_told),
		cmocka_unit_test(so_is_an_end),
		cmocka_unit_test(without_room_for_a_line_nothing_is_lost),
		cmocka_unit_test(who_is_gone_before_he_is_told_of_leaves_nothing),
		cmocka_unit_test(an_end_of_both_sides_is_no_new_connection),
		cmocka_unit_test(where_nobody_accepts_it_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
