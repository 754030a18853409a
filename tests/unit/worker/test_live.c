/* SPDX-License-Identifier: Apache-2.0 */
/* A worker against the kernel's TCP: in a network namespace of its own, over lo and over a veth to a
 * second namespace, with the shield standing. Rows of the record are caught here instead of a
 * database. The namespaces go when this process and its child do.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>
#include <event2/thread.h>

#include "base/clock.h"
#include "base/log.h"
#include "host/shield.h"
#include "service/spawner.h"
#include "worker/worker.h"

enum { SKIP = 77, WAIT_MS = 20000, TICK_MS = 20, MIB = 1 << 20, ROWS_MAX = 4096 };
enum { PORT_ECHO = 7, PORT_DISCARD = 9, PORT_DAYTIME = 13, PORT_CHARGEN = 19, PORT_EXEC = 3000 };
enum { LOCAL_MIN = 61000, LOCAL_MAX = 61999 };

static struct {
	struct spawner *spawner;
	struct shield *shield;
	struct event_base *home;
	struct worker *worker;
	int ns_here, ns_there; /* network namespaces: the worker's, and the other end of the veth */
	pid_t holder; /* keeps ns_there */
	uint64_t next_listener;
	struct event *tick;
} t;

/* The record. */

static struct {
	pthread_mutex_t lock;
	struct record_connection ended[ROWS_MAX];
	unsigned ended_n, begun_n, transitions_n;
} rec = { .lock = PTHREAD_MUTEX_INITIALIZER };

void record_connection_put(struct record *r, const struct record_connection *row)
{
	pthread_mutex_lock(&rec.lock);
	if (!row->end_us)
		rec.begun_n++;
	else if (rec.ended_n < ROWS_MAX)
		rec.ended[rec.ended_n++] = *row;
	pthread_mutex_unlock(&rec.lock);
}

void record_transition_put(struct record *r, const struct record_transition *row)
{
	pthread_mutex_lock(&rec.lock);
	rec.transitions_n++;
	pthread_mutex_unlock(&rec.lock);
}

/* When the latest connection with this remote port was begun: ports come again. */
static uint64_t since_us[65536];

/* CLOCK_REALTIME may be slewed between a worker's look at it and ours. */
enum { SLEW_US = 1000 };

/* The latest row of the latest connection with this remote port, when it has ended. */
static bool find_row(uint16_t remote_port, struct record_connection *ret_row)
{
	bool found = false;

	pthread_mutex_lock(&rec.lock);
	for (unsigned i = rec.ended_n; i-- > 0 && !found;) {
		found = rec.ended[i].flow.remote.port == remote_port &&
			rec.ended[i].start_us + SLEW_US >= since_us[remote_port];
		if (found)
			*ret_row = rec.ended[i];
	}
	pthread_mutex_unlock(&rec.lock);
	return found;
}

static struct record_connection await_row(uint16_t remote_port)
{
	const uint64_t end = clock_monotonic_us() + WAIT_MS * 1000ULL;
	struct record_connection row;

	while (!find_row(remote_port, &row)) {
		if (clock_monotonic_us() > end)
			fail_msg("no row for port %u", remote_port);
		(void)event_base_loop(t.home, EVLOOP_ONCE);
	}
	return row;
}

/* Asking the worker. */

static void on_done(struct worker_request *req)
{
	*(bool *)req->arg = true;
}

static int ask_ok(struct worker_request *req)
{
	bool done = false;

	req->arg = &done;
	req->done = on_done;
	assert_int_equal(worker_ask(t.worker, req), 0);
	while (!done)
		(void)event_base_loop(t.home, EVLOOP_ONCE);
	return req->rc;
}

static struct endpoint endpoint(const char *addr, uint16_t port)
{
	struct endpoint ep = { .port = port };

	assert_int_equal(addr_parse(addr, &ep.addr), 0);
	return ep;
}

static int listen_on(const char *addr, uint16_t port, const char *service, uint32_t max_processes,
		     uint64_t *ret_id)
{
	struct worker_request req = { .ask = WORKER_LISTEN };
	int rc;

	req.listen.id = ++t.next_listener;
	req.listen.local = endpoint(addr, port);
	tcp_params_default(&req.listen.params);
	req.listen.params.msl_us = 1000;
	req.listen.backlog = 128;
	req.listen.options.max_processes = max_processes;
	req.listen.options.kill_after_us = SERVICE_KILL_AFTER_US;
	(void)snprintf(req.listen.name, sizeof(req.listen.name), "%s", service);
	(void)snprintf(req.listen.service, sizeof(req.listen.service), "%s", service);
	rc = ask_ok(&req);
	if (ret_id)
		*ret_id = req.listen.id;
	return rc;
}

static int unlisten(uint64_t id)
{
	struct worker_request req = { .ask = WORKER_UNLISTEN, .unlisten = { id } };

	return ask_ok(&req);
}

static struct worker_status status(void)
{
	struct worker_request req = { .ask = WORKER_STATUS };

	assert_int_equal(ask_ok(&req), 0);
	return req.status;
}

/* Live connections; the first one whose remote port is this goes to *ret_conn. */
static size_t connections(uint16_t remote_port, struct worker_conn *ret_conn)
{
	struct worker_request req = { .ask = WORKER_CONNECTIONS, .connections = { .max = 2 } };
	size_t n = 0;

	do {
		assert_int_equal(ask_ok(&req), 0);
		for (size_t i = 0; i < req.connections.ret_n; i++)
			if (req.connections.ret_list[i].tcp.flow.remote.port == remote_port)
				*ret_conn = req.connections.ret_list[i];
		n += req.connections.ret_n;
		free(req.connections.ret_list);
		req.connections.cursor = req.connections.ret_cursor;
	} while (req.connections.cursor);
	return n;
}

/* The kernel's side. */

struct place {
	const char *name, *addr; /* of the worker, as seen from there */
	bool there; /* the client is in the other namespace */
};

static const struct place places[] = {
	{ "lo, IPv4", "127.0.0.1", false },
	{ "lo, IPv6", "::1", false },
	{ "lo, an address of the veth", "10.77.0.1", false },
	{ "veth, IPv4", "10.77.0.1", true },
	{ "veth, IPv6", "fd77::1", true },
};

static int kernel_socket(bool there, int family)
{
	const struct timeval limit = { .tv_sec = WAIT_MS / 1000 };
	int fd;

	if (there)
		assert_int_equal(setns(t.ns_there, CLONE_NEWNET), 0);
	fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (there)
		assert_int_equal(setns(t.ns_here, CLONE_NEWNET), 0);
	assert_true(fd >= 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return fd;
}

static socklen_t to_sockaddr(const char *addr, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in6 *const in6 = (struct sockaddr_in6 *)ret;
	struct sockaddr_in *const in = (struct sockaddr_in *)ret;

	memset(ret, 0, sizeof(*ret));
	if (strchr(addr, ':')) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		assert_int_equal(inet_pton(AF_INET6, addr, &in6->sin6_addr), 1);
		return sizeof(*in6);
	}
	in->sin_family = AF_INET;
	in->sin_port = htons(port);
	assert_int_equal(inet_pton(AF_INET, addr, &in->sin_addr), 1);
	return sizeof(*in);
}

static int try_connect(bool there, const char *addr, uint16_t port, int *ret_fd)
{
	struct sockaddr_storage sa;
	const socklen_t len = to_sockaddr(addr, port, &sa);
	const int fd = kernel_socket(there, sa.ss_family);

	if (connect(fd, (const struct sockaddr *)&sa, len)) {
		const int rc = -errno;

		(void)close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

static uint16_t local_port(int fd)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	return ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
					      : ((struct sockaddr_in *)&sa)->sin_port);
}

static int client(const struct place *p, uint16_t port)
{
	const uint64_t before = clock_realtime_us();
	int fd = -1;
	const int rc = try_connect(p->there, p->addr, port, &fd);

	if (rc)
		fail_msg("%s, port %u: %s", p->name, port, strerror(-rc));
	since_us[local_port(fd)] = before;
	return fd;
}

static void fill_pattern(uint8_t *buf, size_t len, unsigned seed)
{
	uint32_t x = seed * 2654435761u + 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525u + 1013904223u;
		buf[i] = (uint8_t)(x >> 24);
	}
}

static size_t read_until_end(int fd, void *buf, size_t size)
{
	size_t n = 0;
	ssize_t got;

	while (n < size && (got = read(fd, (uint8_t *)buf + n, size - n)) > 0)
		n += (size_t)got;
	return n;
}

/* Sends `len` octets and reads as many back, both at a time, then closes our half and reads the end. */
static void exchange(int fd, size_t len)
{
	uint8_t *const out = malloc(len), *const in = malloc(len + 1);
	size_t sent = 0, got = 0;

	fill_pattern(out, len, (unsigned)len);
	while (got < len) {
		struct pollfd p = { .fd = fd, .events = POLLIN | (sent < len ? POLLOUT : 0) };
		ssize_t n;

		if (poll(&p, 1, WAIT_MS) != 1)
			fail_msg("stuck: %zu sent, %zu received of %zu", sent, got, len);
		if (p.revents & POLLOUT) {
			n = send(fd, out + sent, len - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
			assert_true(n >= 0 || errno == EAGAIN);
			sent += n > 0 ? (size_t)n : 0;
		}
		if (p.revents & ~POLLOUT) {
			n = recv(fd, in + got, len - got, MSG_DONTWAIT);
			assert_true(n > 0 || (n < 0 && errno == EAGAIN));
			got += n > 0 ? (size_t)n : 0;
		}
	}
	assert_memory_equal(in, out, len);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	assert_int_equal(read(fd, in, 1), 0);
	free(out);
	free(in);
}

static void echo_everywhere(void **state)
{
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct record_connection row;
		const int fd = client(&places[i], PORT_ECHO);
		const uint16_t port = local_port(fd);

		exchange(fd, 3 * MIB);
		(void)close(fd);
		row = await_row(port);
		assert_int_equal(row.reason, END_NORMAL);
		assert_int_equal(row.bytes_in, 3 * MIB);
		assert_int_equal(row.bytes_out, 3 * MIB);
		assert_int_equal(row.closed_by, CLOSED_BY_REMOTE);
		assert_int_equal(row.last_state, ST_LAST_ACK);
		assert_true(row.passive);
		assert_string_equal(row.service, "echo");
		assert_string_equal(row.interface, places[i].there ? "tw0" : "lo");
		assert_true(row.start_us && row.opened_us >= row.start_us &&
			    row.end_us >= row.opened_us);
		assert_true(row.end_us + 60000000 > clock_realtime_us());
	}
}

static void discard_takes_it_all(void **state)
{
	static uint8_t text[MIB];

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct record_connection row;
		const int fd = client(&places[i], PORT_DISCARD);
		const uint16_t port = local_port(fd);

		for (unsigned k = 0; k < 8; k++)
			assert_int_equal(send(fd, text, sizeof(text), MSG_NOSIGNAL), sizeof(text));
		assert_int_equal(shutdown(fd, SHUT_WR), 0);
		assert_int_equal(read(fd, text, 1), 0);
		(void)close(fd);
		row = await_row(port);
		assert_int_equal(row.bytes_in, 8 * MIB);
		assert_int_equal(row.bytes_out, 0);
		assert_int_equal(row.reason, END_NORMAL);
	}
	assert_true(status().packet.headers_only > 0);
}

static void chargen_until_the_peer_has_enough(void **state)
{
	static uint8_t text[4 * MIB];

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct record_connection row;
		const int fd = client(&places[i], PORT_CHARGEN);
		const uint16_t port = local_port(fd);

		assert_int_equal(read_until_end(fd, text, sizeof(text)), sizeof(text));
		for (size_t k = 0; k < sizeof(text); k++) {
			const size_t line = k / 74, column = k % 74;

			if (text[k] != (column == 73   ? '\n'
					: column == 72 ? '\r'
						       : ' ' + (line + column) % 95))
				fail_msg("%s: octet %zu is wrong", places[i].name, k);
		}
		(void)close(fd); /* with text unread: the kernel resets */
		row = await_row(port);
		assert_int_equal(row.reason, END_RESET_BY_PEER);
		assert_int_equal(row.closed_by, CLOSED_BY_REMOTE);
		assert_true(row.bytes_out > sizeof(text) / 4); /* the last ACKs may not have come */
	}
}

static void daytime_then_end(void **state)
{
	struct record_connection row;
	const int fd = client(&places[0], PORT_DAYTIME);
	const uint16_t port = local_port(fd);
	char text[100] = { 0 };

	assert_int_equal(send(fd, "hello?", 6, MSG_NOSIGNAL), 6);
	assert_true(read_until_end(fd, text, sizeof(text) - 1) > 10);
	assert_non_null(strstr(text, " UTC\r\n"));
	(void)close(fd);
	row = await_row(port);
	assert_int_equal(row.reason, END_NORMAL);
	assert_int_equal(row.closed_by, CLOSED_BY_LOCAL);
	assert_int_equal(row.last_state, ST_TIME_WAIT);
}

static void exec_half_close_and_status(void **state)
{
	static uint8_t text[MIB];
	uint64_t id;

	assert_int_equal(listen_on("*", PORT_EXEC, "exec:/bin/sh -c 'wc -c; exit 3'", 0, &id), 0);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct record_connection row;
		const int fd = client(&places[i], PORT_EXEC);
		const uint16_t port = local_port(fd);
		char answer[32] = { 0 };

		assert_int_equal(send(fd, text, sizeof(text), MSG_NOSIGNAL), sizeof(text));
		assert_int_equal(shutdown(fd, SHUT_WR), 0);
		(void)read_until_end(fd, answer, sizeof(answer) - 1);
		assert_string_equal(answer, "1048576\n");
		(void)close(fd);
		row = await_row(port);
		assert_int_equal(row.reason, END_NORMAL);
		assert_int_equal(row.exit_status, 3);
		assert_true(row.pid > 0);
		assert_true(row.run_us > 0);
		assert_string_equal(row.service, "exec");
	}
	assert_int_equal(unlisten(id), 0);
}

static void exec_cat_is_identical(void **state)
{
	uint64_t id;

	assert_int_equal(listen_on("*", PORT_EXEC, "exec:/bin/cat", 0, &id), 0);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		const int fd = client(&places[i], PORT_EXEC);

		exchange(fd, 2 * MIB);
		(void)close(fd);
	}
	assert_int_equal(unlisten(id), 0);
}

static void exec_death_by_signal_resets(void **state)
{
	struct record_connection row;
	uint16_t port;
	uint64_t id;
	char c;
	int fd;

	assert_int_equal(
		listen_on("*", PORT_EXEC, "exec:/bin/sh -c 'read x; kill -SEGV $$'", 0, &id), 0);
	fd = client(&places[3], PORT_EXEC);
	port = local_port(fd);
	assert_int_equal(send(fd, "\n", 1, MSG_NOSIGNAL), 1);
	assert_int_equal(read(fd, &c, 1), -1);
	assert_int_equal(errno, ECONNRESET);
	(void)close(fd);
	row = await_row(port);
	assert_int_equal(row.reason, END_RESET_BY_SERVICE);
	assert_int_equal(row.closed_by, CLOSED_BY_LOCAL);
	assert_int_equal(row.exit_status, -SIGSEGV);
	assert_int_equal(unlisten(id), 0);
}

static void exec_over_its_limit_is_reset_and_counted(void **state)
{
	const uint64_t before = status().services_refused;
	uint64_t id;
	int a, b, rc;
	char c;

	assert_int_equal(listen_on("*", PORT_EXEC, "exec:/bin/cat", 1, &id), 0);
	a = client(&places[0], PORT_EXEC);
	assert_int_equal(send(a, "x", 1, MSG_NOSIGNAL), 1);
	assert_int_equal(read(a, &c, 1), 1);
	/* The RST may come before or after connect() looks. */
	rc = try_connect(false, places[0].addr, PORT_EXEC, &b);
	if (rc) {
		assert_int_equal(rc, -ECONNRESET);
	} else {
		assert_int_equal(read(b, &c, 1), -1);
		assert_int_equal(errno, ECONNRESET);
		(void)close(b);
	}
	assert_int_equal(status().services_refused, before + 1);
	(void)close(a);
	assert_int_equal(unlisten(id), 0);
}

static void a_reset_by_the_peer_ends_the_process(void **state)
{
	const struct linger now = { .l_onoff = 1 };
	struct record_connection row;
	uint16_t port;
	uint64_t id;
	char c;
	int fd;

	assert_int_equal(
		listen_on("*", PORT_EXEC, "exec:/bin/sh -c 'echo; exec sleep 1000'", 0, &id), 0);
	fd = client(&places[3], PORT_EXEC);
	port = local_port(fd);
	assert_int_equal(read(fd, &c, 1), 1);
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	(void)close(fd);
	row = await_row(port);
	assert_int_equal(row.reason, END_RESET_BY_PEER);
	/* It is written again when the process has ended. */
	for (unsigned i = 0; i < WAIT_MS / TICK_MS && row.exit_status == INT32_MIN; i++) {
		(void)event_base_loop(t.home, EVLOOP_ONCE);
		row = await_row(port);
	}
	assert_int_equal(row.exit_status, -SIGHUP);
	assert_int_equal(status().processes, 0);
	assert_int_equal(unlisten(id), 0);
}

/* Active opens. */

static int kernel_server(bool there, const char *addr, uint16_t port)
{
	struct sockaddr_storage sa;
	const socklen_t len = to_sockaddr(addr, port, &sa);
	const int fd = kernel_socket(there, sa.ss_family);
	const int one = 1;

	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	assert_int_equal(bind(fd, (const struct sockaddr *)&sa, len), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static int connect_to(const char *addr, uint16_t port, int fd, struct worker_request *ret_req)
{
	struct worker_request req = { .ask = WORKER_CONNECT };
	int rc;

	req.connect.remote = endpoint(addr, port);
	tcp_params_default(&req.connect.params);
	req.connect.params.msl_us = 1000;
	req.connect.fd = fd;
	since_us[port] = clock_realtime_us();
	rc = ask_ok(&req);
	*ret_req = req;
	return rc;
}

static void an_active_open_carries_a_stream(void **state)
{
	static const struct {
		const char *addr;
		bool there;
	} peers[] = {
		{ "127.0.0.1", false }, { "::1", false }, { "10.77.0.2", true }, { "fd77::2", true }
	};

	for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++) {
		const int server = kernel_server(peers[i].there, peers[i].addr, 8080);
		const struct timeval limit = { .tv_sec = WAIT_MS / 1000 };
		struct worker_request req;
		struct record_connection row;
		int fds[2], peer;
		char buf[16];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		(void)setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
		assert_int_equal(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
		if (connect_to(peers[i].addr, 8080, fds[1], &req))
			fail_msg("%s: %s", peers[i].addr, req.err.text);
		assert_true(req.connect.ret_serial > 0);
		assert_true(req.connect.ret_flow.local.port >= LOCAL_MIN &&
			    req.connect.ret_flow.local.port <= LOCAL_MAX);
		peer = accept(server, NULL, NULL);
		assert_true(peer >= 0);
		assert_int_equal(write(fds[0], "question", 8), 8);
		assert_int_equal(shutdown(fds[0], SHUT_WR), 0);
		assert_int_equal(read_until_end(peer, buf, sizeof(buf)), 8); /* with our FIN */
		assert_int_equal(send(peer, "answer", 6, MSG_NOSIGNAL),
				 6); /* half-closed, and it flows */
		(void)close(peer);
		assert_int_equal(read_until_end(fds[0], buf, sizeof(buf)), 6);
		assert_memory_equal(buf, "answer", 6);
		(void)close(fds[0]);
		row = await_row(8080);
		assert_int_equal(row.reason, END_NORMAL);
		assert_false(row.passive);
		assert_string_equal(row.service, "stream");
		(void)close(server);
	}
}

static void a_port_nobody_serves_refuses(void **state)
{
	struct worker_request req;

	assert_int_equal(connect_to("10.77.0.2", 9999, -1, &req), -ECONNREFUSED);
	assert_non_null(strstr(req.err.text, "10.77.0.2:9999"));
	assert_true(req.connect.ret_serial > 0);
	assert_int_equal(connect_to("127.0.0.1", 9999, -1, &req), -ECONNREFUSED);
}

static void what_cannot_be_connected_to_is_refused_at_once(void **state)
{
	struct worker_request req;
	int fds[2];
	char c;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(connect_to("192.0.2.1", 80, fds[1], &req), -ENETUNREACH);
	assert_int_equal(read(fds[0], &c, 1), 0); /* the descriptor was given away all the same */
	(void)close(fds[0]);
	assert_int_equal(connect_to("10.77.0.255", 80, -1, &req), -EINVAL);
	assert_int_equal(connect_to("224.0.0.1", 80, -1, &req), -EINVAL);
	assert_int_equal(connect_to("fe80::1", 80, -1, &req), -EINVAL);
	assert_int_equal(req.connect.ret_serial, 0);
	req = (struct worker_request){ .ask = WORKER_CONNECT };
	req.connect.remote = endpoint("10.77.0.2", 80);
	req.connect.local = endpoint("10.77.0.77", 0);
	req.connect.fd = -1;
	tcp_params_default(&req.connect.params);
	assert_int_equal(ask_ok(&req), -EADDRNOTAVAIL);
}

/* Both ends are ours: through lo, and back into the same engine. */
static void a_connection_to_ourselves(void **state)
{
	const struct timeval limit = { .tv_sec = WAIT_MS / 1000 };
	struct worker_request req;
	int fds[2];
	char buf[8];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	(void)setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	assert_int_equal(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
	if (connect_to("127.0.0.1", PORT_ECHO, fds[1], &req))
		fail_msg("%s", req.err.text);
	assert_int_equal(write(fds[0], "mirror", 6), 6);
	assert_int_equal(shutdown(fds[0], SHUT_WR), 0);
	assert_int_equal(read_until_end(fds[0], buf, sizeof(buf)), 6);
	(void)close(fds[0]);
}

/* Operators. */

static void lists_close_and_reset(void **state)
{
	struct worker_conn conn = { 0 }, shown;
	struct worker_request req;
	struct record_connection row;
	uint16_t port;
	int fds[5];
	char c;

	for (unsigned i = 0; i < 5; i++)
		fds[i] = client(&places[3], PORT_ECHO);
	port = local_port(fds[0]);
	assert_true(connections(port, &conn) >= 5);
	assert_int_equal(conn.tcp.state, ST_ESTABLISHED);
	assert_string_equal(conn.service, "echo");
	assert_string_equal(conn.interface, "tw0");
	assert_true(conn.opened_us >= conn.created_us && conn.created_us);

	req = (struct worker_request){ .ask = WORKER_CONNECTION };
	req.connection.serial = conn.tcp.serial;
	assert_int_equal(ask_ok(&req), 0);
	shown = req.connection.ret_conn;
	assert_int_equal(shown.tcp.flow.remote.port, port);

	req = (struct worker_request){ .ask = WORKER_CLOSE, .end = { conn.tcp.serial } };
	assert_int_equal(ask_ok(&req), 0);
	assert_int_equal(read(fds[0], &c, 1), 0);
	(void)close(fds[0]);
	row = await_row(port);
	assert_int_equal(row.reason, END_NORMAL);
	assert_int_equal(row.closed_by, CLOSED_BY_LOCAL);

	port = local_port(fds[1]);
	(void)connections(port, &conn);
	req = (struct worker_request){ .ask = WORKER_RESET, .end = { conn.tcp.serial } };
	assert_int_equal(ask_ok(&req), 0);
	assert_int_equal(read(fds[1], &c, 1), -1);
	assert_int_equal(errno, ECONNRESET);
	row = await_row(port);
	assert_int_equal(row.reason, END_RESET_BY_OPERATOR);
	assert_int_equal(ask_ok(&req), -ENOENT);
	for (unsigned i = 1; i < 5; i++)
		(void)close(fds[i]);
}

static void listeners_are_told_apart(void **state)
{
	struct worker_request req = { .ask = WORKER_LISTENERS };
	unsigned seen = 0;

	assert_int_equal(listen_on("*", PORT_ECHO, "echo", 0, NULL), -EADDRINUSE);
	assert_int_equal(listen_on("*", 5555, "nonsense", 0, NULL), -EINVAL);
	assert_int_equal(unlisten(987654), -ENOENT);
	assert_int_equal(ask_ok(&req), 0);
	for (size_t i = 0; i < req.listeners.ret_n; i++) {
		const struct worker_listener *const l = &req.listeners.ret_list[i];

		if (l->tcp.local.port == PORT_ECHO && !strcmp(l->service, "echo"))
			seen += l->tcp.accepted > 0 && !l->draining;
	}
	assert_int_equal(seen, 1);
	free(req.listeners.ret_list);
}

static void a_closed_listener_drains(void **state)
{
	struct worker_request req;
	uint64_t id;
	int fd, other = -1;
	char c;

	assert_int_equal(listen_on("*", PORT_EXEC, "echo", 0, &id), 0);
	fd = client(&places[3], PORT_EXEC);
	assert_int_equal(send(fd, "a", 1, MSG_NOSIGNAL), 1);
	assert_int_equal(read(fd, &c, 1), 1);
	assert_int_equal(unlisten(id), 0);
	req = (struct worker_request){ .ask = WORKER_LISTENERS };
	assert_int_equal(ask_ok(&req), 0);
	for (size_t i = 0; i < req.listeners.ret_n; i++)
		if (req.listeners.ret_list[i].id == id) {
			assert_true(req.listeners.ret_list[i].draining);
			assert_int_equal(req.listeners.ret_list[i].tcp.live, 1);
		}
	free(req.listeners.ret_list);
	assert_int_equal(try_connect(true, "10.77.0.1", PORT_EXEC, &other), -ECONNREFUSED);
	exchange(fd, 100000); /* it lives on */
	(void)close(fd);
	for (bool gone = false; !gone;) {
		req = (struct worker_request){ .ask = WORKER_LISTENERS };
		assert_int_equal(ask_ok(&req), 0);
		gone = true;
		for (size_t i = 0; i < req.listeners.ret_n; i++)
			gone &= req.listeners.ret_list[i].id != id;
		free(req.listeners.ret_list);
	}
}

static void many_connections_at_once(void **state)
{
	enum { N = 300 };
	static int fds[N];
	char buf[8];

	for (unsigned i = 0; i < N; i++) {
		fds[i] = client(&places[3], PORT_ECHO);
		assert_int_equal(send(fds[i], "12345678", 8, MSG_NOSIGNAL), 8);
	}
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(shutdown(fds[i], SHUT_WR), 0);
		assert_int_equal(read_until_end(fds[i], buf, sizeof(buf)), 8);
		assert_memory_equal(buf, "12345678", 8);
	}
	for (unsigned i = 0; i < N; i++) {
		const uint16_t port = local_port(fds[i]);

		(void)close(fds[i]);
		assert_int_equal(await_row(port).reason, END_NORMAL);
	}
}

static void a_port_that_is_not_ours_is_the_kernels(void **state)
{
	const uint64_t before = status().engine.segments_out;
	const int server = kernel_server(false, "10.77.0.1", 4444);
	int fd = -1;

	assert_int_equal(try_connect(true, "10.77.0.1", 4443, &fd), -ECONNREFUSED);
	assert_int_equal(try_connect(true, "10.77.0.1", 4444, &fd), 0);
	(void)close(fd);
	(void)close(server);
	assert_int_equal(status().engine.segments_out, before); /* we said nothing */
}

/* The end: open connections get their FIN, then the grace is over, and every one is on record. */
static void stop_ends_all(void **state)
{
	struct worker_request req = { .ask = WORKER_STOP, .stop = { .grace_us = 300000 } };
	struct worker_request late = { .ask = WORKER_STATUS, .done = on_done };
	struct record_connection row;
	uint16_t ports[2];
	int fds[2];
	char c;

	assert_true(worker_is_alive(t.worker));
	for (unsigned i = 0; i < 2; i++) {
		fds[i] = client(&places[3], PORT_ECHO);
		ports[i] = local_port(fds[i]);
		assert_int_equal(send(fds[i], "a", 1, MSG_NOSIGNAL), 1);
		assert_int_equal(read(fds[i], &c, 1), 1);
	}
	assert_int_equal(ask_ok(&req), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct pollfd p = { .fd = fds[i] };

		assert_int_equal(read(fds[i], &c, 1),
				 0); /* our FIN; it did not close in time, so */
		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		assert_true(p.revents & POLLERR); /* a RST followed */
		assert_true(find_row(ports[i], &row));
		assert_int_equal(row.reason, END_DAEMON_STOPPED);
		(void)close(fds[i]);
	}
	assert_int_equal(worker_ask(t.worker, &late), -ESHUTDOWN);
	worker_free(t.worker);
	t.worker = NULL;
	pthread_mutex_lock(&rec.lock);
	assert_true(rec.transitions_n > rec.begun_n * 2);
	pthread_mutex_unlock(&rec.lock);
}

/* Shield=none: an address that no kernel has, found by ARP and ND that we answer. */
static void addresses_of_our_own(void **state)
{
	static const char *const addrs[] = { "10.77.0.9", "fd77::9" };

	for (unsigned i = 0; i < 2; i++) {
		int fd = -1;

		assert_int_equal(listen_on(addrs[i], PORT_ECHO, "echo", 0, NULL), 0);
		assert_int_equal(try_connect(true, addrs[i], PORT_ECHO, &fd), 0);
		exchange(fd, MIB);
		(void)close(fd);
	}
}

static void other_addresses_stay_silent(void **state)
{
	int fd = -1;

	/* Nobody has it, and we do not claim it. */
	assert_int_equal(try_connect(true, "10.77.0.10", PORT_ECHO, &fd), -EHOSTUNREACH);
}

/* Whatever the tests above did, nothing was damaged, lost or sent astray on the way. */
static void nothing_went_wrong_below(void **state)
{
	const struct worker_status st = status();

	assert_true(st.verdicts[WIRE_OK] > 20);
	for (unsigned i = 0; i < WIRE__COUNT; i++)
		if (i != WIRE_OK && st.verdicts[i])
			fail_msg("%s: %lu", wire_verdict_key((enum wire_verdict)i),
				 (unsigned long)st.verdicts[i]);
	assert_int_equal(st.no_path, 0);
	assert_int_equal(st.packet.send_failed, 0);
	assert_int_equal(st.rawip.send_failed, 0);
	assert_int_equal(st.packet.truncated, 0);
	assert_int_equal(st.text_missing, 0);
	assert_int_equal(st.engine.traces_lost, 0);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	/* So that waiting for a row looks again. */
}

static void start_worker(bool neighbours)
{
	const struct worker_config cfg = {
		.engine = { .conns_max = 4096,
			    .listeners_max = 64,
			    .syn_received_max = 1024,
			    .time_wait_max = 1024,
			    .chunks_max = 4096,
			    .segment_bytes_max = 60000,
			    .local_port_min = LOCAL_MIN,
			    .local_port_max = LOCAL_MAX,
			    .secret = { 1, 2 },
			    .serial_first = 1,
			    .serial_step = 1 },
		.answer_neighbours = neighbours,
		.record_what = RECORD_TRANSITIONS,
		.spawner = t.spawner,
		.home = t.home,
	};
	struct errmsg err = { 0 };

	if (worker_start(&cfg, &t.worker, &err))
		fail_msg("%s", err.text);
}

static void stop_worker(void)
{
	struct worker_request req = { .ask = WORKER_STOP, .stop = { .grace_us = 0 } };

	if (!t.worker)
		return;
	assert_int_equal(ask_ok(&req), 0);
	worker_free(t.worker);
	t.worker = NULL;
}

static int with_shield(void **state)
{
	const struct shield_rule rules[] = { { addr_any, LOCAL_MIN, LOCAL_MAX },
					     { addr_any, PORT_ECHO, PORT_CHARGEN },
					     { addr_any, PORT_EXEC, PORT_EXEC } };
	struct errmsg err = { 0 };
	char tag[32];

	(void)snprintf(tag, sizeof(tag), "test-worker-%d", (int)getpid());
	if (shield_new(tag, &t.shield, &err) || shield_apply(t.shield, rules, 3, &err))
		fail_msg("%s", err.text);
	start_worker(false);
	assert_int_equal(listen_on("*", PORT_ECHO, "echo", 0, NULL), 0);
	assert_int_equal(listen_on("*", PORT_DISCARD, "discard", 0, NULL), 0);
	assert_int_equal(listen_on("*", PORT_CHARGEN, "chargen", 0, NULL), 0);
	assert_int_equal(listen_on("*", PORT_DAYTIME, "daytime", 0, NULL), 0);
	return 0;
}

static int after_shield(void **state)
{
	stop_worker();
	(void)shield_remove(t.shield, NULL);
	shield_free(t.shield);
	return 0;
}

static int without_shield(void **state)
{
	start_worker(true);
	return 0;
}

static int after_no_shield(void **state)
{
	stop_worker();
	return 0;
}

/* Surroundings. */

PRINTF_LIKE(1, 2) static bool run(const char *fmt, ...)
{
	char command[256];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	return system(command) == 0;
}

_Noreturn static void skip_all(const char *why)
{
	printf("skipped: %s\n", why);
	if (t.holder > 0)
		(void)kill(t.holder, SIGKILL);
	exit(SKIP);
}

/* A child that is nothing but the other namespace. */
static pid_t fork_holder(void)
{
	const pid_t parent = getpid();
	int ready[2];
	pid_t pid;
	char c;

	if (pipe2(ready, O_CLOEXEC))
		return -1;
	pid = fork();
	if (!pid) {
		(void)close(ready[0]);
		if (unshare(CLONE_NEWNET))
			_exit(1);
		(void)!write(ready[1], "r", 1);
		while (getppid() == parent)
			(void)sleep(1); /* also when the parent dies without a word */
		_exit(0);
	}
	(void)close(ready[1]);
	if (read(ready[0], &c, 1) != 1)
		pid = -1;
	(void)close(ready[0]);
	return pid;
}

static void make_network(void)
{
	char path[64];

	if (geteuid())
		skip_all("it takes root for network namespaces and raw sockets");
	t.holder = fork_holder();
	if (t.holder < 0 || unshare(CLONE_NEWNET))
		skip_all("no network namespaces here");
	(void)snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)t.holder);
	t.ns_there = open(path, O_RDONLY | O_CLOEXEC);
	t.ns_here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (t.ns_here < 0 || t.ns_there < 0)
		skip_all("no network namespaces here");
	if (!run("ip link set lo up && ip link add tw0 type veth peer name tw1 netns %d",
		 (int)t.holder))
		skip_all("no veth here");
	(void)run("echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad 2>/dev/null");
	if (!run("ip addr add 10.77.0.1/24 broadcast + dev tw0 && ip addr add fd77::1/64 dev tw0 "
		 "nodad && ip link set tw0 up"))
		skip_all("addresses cannot be set");
	assert_int_equal(setns(t.ns_there, CLONE_NEWNET), 0);
	if (!run("ip link set lo up && ip addr add 10.77.0.2/24 broadcast + dev tw1 && ip addr add "
		 "fd77::2/64 dev tw1 nodad && ip link set tw1 up"))
		skip_all("addresses cannot be set");
	assert_int_equal(setns(t.ns_here, CLONE_NEWNET), 0);
	if (!run("iptables -t raw -L >/dev/null 2>&1"))
		skip_all("no iptables here");
}

int main(void)
{
	const struct CMUnitTest shielded[] = {
		cmocka_unit_test(echo_everywhere),
		cmocka_unit_test(discard_takes_it_all),
		cmocka_unit_test(chargen_until_the_peer_has_enough),
		cmocka_unit_test(daytime_then_end),
		cmocka_unit_test(exec_half_close_and_status),
		cmocka_unit_test(exec_cat_is_identical),
		cmocka_unit_test(exec_death_by_signal_resets),
		cmocka_unit_test(exec_over_its_limit_is_reset_and_counted),
		cmocka_unit_test(a_reset_by_the_peer_ends_the_process),
		cmocka_unit_test(an_active_open_carries_a_stream),
		cmocka_unit_test(a_port_nobody_serves_refuses),
		cmocka_unit_test(what_cannot_be_connected_to_is_refused_at_once),
		cmocka_unit_test(a_connection_to_ourselves),
		cmocka_unit_test(lists_close_and_reset),
		cmocka_unit_test(listeners_are_told_apart),
		cmocka_unit_test(a_closed_listener_drains),
		cmocka_unit_test(many_connections_at_once),
		cmocka_unit_test(a_port_that_is_not_ours_is_the_kernels),
		cmocka_unit_test(nothing_went_wrong_below),
		cmocka_unit_test(stop_ends_all),
	};
	const struct CMUnitTest own[] = {
		cmocka_unit_test(addresses_of_our_own),
		cmocka_unit_test(other_addresses_stay_silent),
		cmocka_unit_test(nothing_went_wrong_below),
	};
	struct errmsg err;
	int failed;

	(void)signal(SIGPIPE, SIG_IGN);
	log_setup(LOG_LEVEL_WARNING);
	make_network();
	if (spawner_start(&t.spawner, &err))
		skip_all(err.text);
	(void)evthread_use_pthreads();
	t.home = event_base_new();
	t.tick = event_new(t.home, -1, EV_PERSIST, on_tick, NULL);
	(void)event_add(t.tick, &(struct timeval){ .tv_usec = TICK_MS * 1000 });
	failed = cmocka_run_group_tests(shielded, with_shield, after_shield);
	failed += cmocka_run_group_tests(own, without_shield, after_no_shield);
	event_free(t.tick);
	event_base_free(t.home);
	spawner_free(t.spawner);
	(void)kill(t.holder, SIGKILL);
	(void)waitpid(t.holder, NULL, 0);
	return failed;
}
