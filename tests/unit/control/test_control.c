/* SPDX-License-Identifier: Apache-2.0 */
/* The control server over its sockets, with a worker and a record of the test's own. Clients and server
 * share this thread: ask() turns the event loop until the answer is there.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/macros.h"
#include "control/control.h"
#include "control/served.h"
#include "fakes.h"
#include "proto/proto.h"

enum { PATIENCE_US = 10 * 1000 * 1000 };

struct world {
	char dir[64];
	struct event_base *base;
	struct config config;
	struct served *served;
	struct control *control;
	struct shield *shield;
	int stops, reloads;
	bool stopping;
	int reload_rc;
};

static struct world w;

static void on_stop(void *arg)
{
	struct world *world = arg;

	world->stops++;
}

static bool on_stopping(void *arg)
{
	const struct world *world = arg;

	return world->stopping;
}

static int on_reload(void *arg, control_reloaded_fn *done, void *done_arg, struct errmsg *ret_err)
{
	struct world *world = arg;

	world->reloads++;
	if (world->reload_rc)
		return errmsg(ret_err, world->reload_rc, "tcpfsmd.conf:2: MSL: banana");
	done(done_arg, 0, json_pack("{s:i}", "listeners_added", 1), NULL);
	return 0;
}

/* A pointer that is never followed: the fakes do not look into what they are given. */
static void *token(void)
{
	static char it;

	return &it;
}

static void world_open(bool shield, bool record)
{
	struct served_config sc;
	struct control_config cc;
	struct errmsg err;

	w = (struct world){ .config.max_clients = 8 };
	tcp_params_default(&w.config.tcp);
	w.config.local_port_min = 61000;
	w.config.local_port_max = 65535;
	(void)strcpy(w.dir, "/tmp/tcpfsm-control.XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	w.base = event_base_new();
	fake_reset(w.base);
	w.shield = shield ? token() : NULL;
	sc = (struct served_config){
		.base = w.base,
		.shield = w.shield,
		.local_ports = { addr_any, 61000, 65535 },
		.poll_us = 1000,
	};
	assert_int_equal(served_new(&sc, &w.served, &err), 0);
	served_set_crew(w.served, token());
	assert_int_equal(served_shield(w.served, NULL, 0, &err), 0);
	assert_int_equal(control_new(w.dir, "", &w.control, &err), 0);
	cc = (struct control_config){
		.base = w.base,
		.directory = w.dir,
		.config = &w.config,
		.listeners = w.served,
		.crew = token(),
		.record = record ? token() : NULL,
		.record_what = RECORD_TRANSITIONS,
		.shield = w.shield,
		.started_us = clock_realtime_us(),
		.arg = &w,
		.stop = on_stop,
		.stopping = on_stopping,
		.reload = on_reload,
	};
	assert_int_equal(control_start(w.control, &cc, &err), 0);
}

static int setup(void **state)
{
	(void)state;
	log_setup(LOG_LEVEL_ERROR);
	world_open(true, true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake.hold = false;
	while (fake.asks_n)
		fake_answer(0);
	fake_record_wait();
	control_stop(w.control);
	control_free(w.control);
	served_free(w.served);
	/* Requests of the fake worker that were scheduled. */
	(void)event_base_loop(w.base, EVLOOP_NONBLOCK);
	event_base_free(w.base);
	if (fake.connect_fd >= 0)
		(void)close(fake.connect_fd);
	return rmdir(w.dir); /* fails when a socket is left */
}

/* ---- a client ---- */

static int dial(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", w.dir, name);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void turn(void)
{
	(void)event_base_loop(w.base, EVLOOP_NONBLOCK);
}

static void say(int fd, const char *text)
{
	size_t n = strlen(text);

	while (n) {
		const ssize_t got = send(fd, text, n, MSG_NOSIGNAL);

		if (got < 0) {
			assert_int_equal(errno, EAGAIN);
			turn();
			continue;
		}
		text += got;
		n -= (size_t)got;
	}
}

/* What the server says up to and with `end`; NULL: to the end of file. *ret_fd may be NULL. malloc'ed. */
static char *hear_fd(int fd, const char *end, int *ret_fd)
{
	const uint64_t until = clock_monotonic_us() + PATIENCE_US;
	size_t n = 0, size = 1 << 16;
	char *text = malloc(size);

	assert_non_null(text);
	text[0] = 0;
	for (;;) {
		char room[CMSG_SPACE(sizeof(int))];
		struct iovec iov = { text + n, 1 };
		struct msghdr msg = { .msg_iov = &iov,
				      .msg_iovlen = 1,
				      .msg_control = room,
				      .msg_controllen = sizeof(room) };
		const ssize_t got = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);

		if (got > 0) {
			const struct cmsghdr *h = CMSG_FIRSTHDR(&msg);

			if (h) {
				assert_non_null(ret_fd);
				memcpy(ret_fd, CMSG_DATA(h), sizeof(int));
			}
			text[++n] = 0;
			if (end && n >= strlen(end) && !strcmp(text + n - strlen(end), end))
				return text;
			if (n + 2 > size)
				text = realloc(text, size *= 2);
			continue;
		}
		if (got == 0 || errno != EAGAIN) {
			assert_null(end);
			return text;
		}
		assert_true(clock_monotonic_us() < until);
		turn();
	}
}

static char *hear(int fd, const char *end)
{
	return hear_fd(fd, end, NULL);
}

static json_t *hear_json(int fd)
{
	char *text = hear(fd, "\n");
	json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);

	assert_non_null(value);
	free(text);
	return value;
}

static json_t *ask(int fd, const char *line)
{
	say(fd, line);
	say(fd, "\n");
	return hear_json(fd);
}

/* params is JSON text. */
static json_t *call(int fd, const char *method, const char *params)
{
	char line[2048];

	(void)snprintf(line, sizeof(line),
		       "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":%s}", method,
		       params);
	return ask(fd, line);
}

static json_int_t error_of(const json_t *answer)
{
	return json_integer_value(json_object_get(json_object_get(answer, "error"), "code"));
}

static const char *message_of(const json_t *answer)
{
	const char *text = json_string_value(
		json_object_get(json_object_get(answer, "error"), "message"));

	return text ? text : "";
}

/* result[key], borrowed. */
static json_t *result_of(const json_t *answer, const char *key)
{
	json_t *result = json_object_get(answer, "result");

	if (!result)
		fail_msg("an error: %s", message_of(answer));
	return key ? json_object_get(result, key) : result;
}

static void expect_error(int fd, const char *line, enum proto_error code, const char *word)
{
	json_t *a = ask(fd, line);

	assert_int_equal(error_of(a), code);
	if (!strstr(message_of(a), word))
		fail_msg("no \"%s\" in \"%s\"", word, message_of(a));
	json_decref(a);
}

static void expect_call_error(int fd, const char *method, const char *params, enum proto_error code,
			      const char *word)
{
	json_t *a = call(fd, method, params);

	assert_int_equal(error_of(a), code);
	if (!strstr(message_of(a), word))
		fail_msg("no \"%s\" in \"%s\"", word, message_of(a));
	json_decref(a);
}

/* ---- lines ---- */

static void test_version_as_json_and_as_text(void **state)
{
	const int fd = dial("control.sock");
	json_t *a = ask(fd, "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"version\"}");
	char *text;

	(void)state;
	assert_string_equal(json_string_value(json_object_get(a, "id")), "x");
	assert_string_equal(json_string_value(result_of(a, "version")), TCPFSM_VERSION);
	assert_int_equal(json_integer_value(result_of(a, "protocol")), 1);
	json_decref(a);
	say(fd, "version\n");
	text = hear(fd, "\n\n");
	assert_non_null(strstr(text, TCPFSM_VERSION));
	free(text);
	say(fd, "frobnicate all\n");
	text = hear(fd, "\n\n");
	assert_non_null(strstr(text, "error"));
	assert_non_null(strstr(text, "frobnicate"));
	free(text);
	(void)close(fd);
}

static void test_wrong_lines_get_an_error_object(void **state)
{
	const int fd = dial("control.sock");

	(void)state;
	expect_error(fd, "{\"jsonrpc\": \"2.0\", oops", PROTO_PARSE_ERROR, "");
	expect_error(fd, "{}", PROTO_INVALID_REQUEST, "");
	expect_error(fd, "[]", PROTO_INVALID_REQUEST, "");
	expect_call_error(fd, "no.such", "{}", PROTO_METHOD_NOT_FOUND, "no.such");
	expect_call_error(fd, "show.connection", "{}", PROTO_INVALID_PARAMS, "id");
	expect_call_error(fd, "show.connection", "{\"id\":\"seven\"}", PROTO_INVALID_PARAMS, "id");
	expect_call_error(fd, "version", "{\"surplus\":1}", PROTO_INVALID_PARAMS, "surplus");
	expect_call_error(fd, "version", "[1]", PROTO_INVALID_PARAMS, "");
	expect_call_error(fd, "list.connections", "{\"limit\":0}", PROTO_INVALID_PARAMS, "limit");
	expect_call_error(fd, "list.connections", "{\"after\":\"-3\"}", PROTO_INVALID_PARAMS,
			  "after");
	expect_call_error(fd, "list.connections", "{\"filter\":\"state (\"}", PROTO_INVALID_PARAMS,
			  "");
	json_decref(call(fd, "version", "{}"));
	(void)close(fd);
}

static void test_a_line_in_single_octets(void **state)
{
	static const char line[] = "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"version\"}\n";
	const int fd = dial("control.sock");
	json_t *a;

	(void)state;
	for (const char *p = line; *p; p++) {
		assert_int_equal(send(fd, p, 1, 0), 1);
		turn();
	}
	a = hear_json(fd);
	assert_int_equal(json_integer_value(json_object_get(a, "id")), 9);
	json_decref(a);
	(void)close(fd);
}

static void test_half_a_line_at_the_end(void **state)
{
	const int fd = dial("control.sock");
	char *text;

	(void)state;
	say(fd, "{\"jsonrpc\"");
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	text = hear(fd, NULL);
	assert_non_null(strstr(text, "\"error\""));
	free(text);
	(void)close(fd);
}

static void test_a_question_before_the_end_is_answered(void **state)
{
	const int fd = dial("control.sock");
	char *text;

	(void)state;
	say(fd, "status\nversion\n");
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	text = hear(fd, NULL);
	assert_non_null(strstr(text, TCPFSM_VERSION));
	assert_string_equal(text + strlen(text) - 2, "\n\n");
	free(text);
	(void)close(fd);
}

static void test_too_long_a_line_ends_the_connection(void **state)
{
	const int fd = dial("control.sock");
	char *big = malloc(70001), *text;
	json_t *a;

	(void)state;
	memset(big, 'x', 70000);
	big[0] = '{';
	big[70000] = 0;
	for (size_t done = 0; done < 70000;) {
		const ssize_t n = send(fd, big + done, 70000 - done, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			break; /* it has heard enough */
		done += n > 0 ? (size_t)n : 0;
		turn();
	}
	text = hear(fd, NULL);
	a = json_loads(text, 0, NULL);
	assert_int_equal(error_of(a), PROTO_TOO_LARGE);
	json_decref(a);
	free(text);
	free(big);
	(void)close(fd);
}

static void test_octets_that_are_no_text(void **state)
{
	const int fd = dial("control.sock");
	char *text;

	(void)state;
	assert_int_equal(send(fd, "\xff\xfe\0\n", 4, 0), 4);
	text = hear(fd, "\n");
	assert_non_null(strstr(text, "error"));
	free(text);
	(void)close(fd);
}

/* ---- order and limits ---- */

static void test_answers_keep_the_order_of_the_questions(void **state)
{
	const int fd = dial("control.sock");
	char line[128];

	(void)state;
	fake.hold = true;
	for (int i = 0; i < 9; i++) {
		(void)snprintf(line, sizeof(line),
			       "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\"}\n", i,
			       i % 3 == 0   ? "status"
			       : i % 3 == 1 ? "version"
					    : "list.listeners");
		say(fd, line);
	}
	for (int i = 0; i < 5; i++)
		turn();
	assert_int_equal(recv(fd, line, 1, 0), -1); /* the first waits, so all do */
	assert_int_equal(fake.asks_n, 6);
	while (fake.asks_n)
		fake_answer(fake.asks_n - 1); /* the last first */
	for (int i = 0; i < 9; i++) {
		json_t *a = hear_json(fd);

		assert_int_equal(json_integer_value(json_object_get(a, "id")), i);
		json_decref(a);
	}
	(void)close(fd);
}

static void test_a_client_has_64_calls_at_a_time(void **state)
{
	const int fd = dial("control.sock");
	char line[128];

	(void)state;
	fake.hold = true;
	for (int i = 0; i < 500; i++) {
		(void)snprintf(line, sizeof(line),
			       "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"status\"}\n", i);
		say(fd, line);
	}
	for (int i = 0; i < 20; i++)
		turn();
	assert_int_equal(fake.asks_n, 64);
	fake_answer(0);
	for (int i = 0; i < 5; i++)
		turn();
	assert_int_equal(fake.asks_n, 64);
	fake.hold = false;
	fake_answer(0);
	for (int i = 0; i < 500; i++) {
		json_t *a;

		while (fake.asks_n)
			fake_answer(0);
		a = hear_json(fd);
		assert_int_equal(json_integer_value(json_object_get(a, "id")), i);
		json_decref(a);
	}
	(void)close(fd);
}

static void test_batches(void **state)
{
	const int fd = dial("control.sock");
	char *big = calloc(1, 65536);
	json_t *a;

	(void)state;
	a = ask(fd, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"},"
		    "{\"jsonrpc\":\"2.0\",\"method\":\"version\"},"
		    "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"no.such\"},7,"
		    "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"list.connections\"},"
		    "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"version\"}]");
	assert_int_equal(json_array_size(a), 5);
	assert_non_null(result_of(json_array_get(a, 0), "pid"));
	assert_int_equal(error_of(json_array_get(a, 1)), PROTO_METHOD_NOT_FOUND);
	assert_int_equal(error_of(json_array_get(a, 2)), PROTO_INVALID_REQUEST);
	assert_non_null(result_of(json_array_get(a, 3), "connections"));
	assert_non_null(result_of(json_array_get(a, 4), "version"));
	json_decref(a);
	/* Notifications only: no answer at all. */
	say(fd, "[{\"jsonrpc\":\"2.0\",\"method\":\"version\"}]\n"
		"{\"jsonrpc\":\"2.0\",\"method\":\"status\"}\n");
	a = call(fd, "version", "{}");
	assert_non_null(result_of(a, "version"));
	json_decref(a);
	(void)strcpy(big, "[");
	for (int i = 0; i < 65; i++)
		(void)strcat(strcat(big, i ? "," : ""),
			     "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"version\"}");
	(void)strcat(big, "]");
	expect_error(fd, big, PROTO_TOO_LARGE, "64");
	free(big);
	(void)close(fd);
}

static void test_observers_only_observe(void **state)
{
	const int fd = dial("observe.sock");

	(void)state;
	json_decref(call(fd, "status", "{}"));
	expect_call_error(fd, "listen", "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\"}",
			  PROTO_PERMISSION_DENIED, "control.sock");
	expect_call_error(fd, "shutdown", "{}", PROTO_PERMISSION_DENIED, "shutdown");
	expect_call_error(fd, "reload", "{}", PROTO_PERMISSION_DENIED, "reload");
	assert_int_equal(w.stops + w.reloads, 0);
	assert_int_equal(fake.listeners_n, 0);
	(void)close(fd);
}

static void test_others_on_control_sock_may_not_administer(void **state)
{
	char path[128];
	int fd;

	(void)state;
	if (geteuid() != 0)
		skip();
	(void)snprintf(path, sizeof(path), "%s/control.sock", w.dir);
	assert_int_equal(chmod(w.dir, 0755), 0);
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(seteuid(65534), 0);
	fd = dial("control.sock");
	assert_int_equal(seteuid(0), 0);
	expect_call_error(fd, "reload", "{}", PROTO_PERMISSION_DENIED, "uid 0");
	expect_call_error(fd, "close.connection", "{\"id\":0}", 0, "");
	(void)close(fd);
}

static void test_modes_of_the_sockets(void **state)
{
	char path[128];
	struct stat st;

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/control.sock", w.dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	(void)snprintf(path, sizeof(path), "%s/observe.sock", w.dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666);
}

static void test_limit_of_clients_is_for_each_socket(void **state)
{
	struct control_counters k;
	int fds[3], extra, other;
	json_t *a;
	char *text;

	(void)state;
	w.config.max_clients = 3;
	for (size_t i = 0; i < 3; i++)
		json_decref(call(fds[i] = dial("observe.sock"), "version", "{}"));
	extra = dial("observe.sock");
	text = hear(extra, NULL);
	a = json_loads(text, 0, NULL);
	assert_int_equal(error_of(a), PROTO_BUSY);
	json_decref(a);
	free(text);
	other = dial("control.sock");
	json_decref(call(other, "version", "{}"));
	(void)close(fds[0]);
	for (int i = 0; i < 5; i++)
		turn();
	(void)close(extra);
	extra = dial("observe.sock");
	json_decref(call(extra, "version", "{}"));
	control_counters(w.control, &k);
	assert_int_equal(k.refused, 1);
	assert_int_equal(k.clients, 4);
	(void)close(fds[1]);
	(void)close(fds[2]);
	(void)close(extra);
	(void)close(other);
}

static void test_a_client_that_never_reads_is_dropped(void **state)
{
	static const char line[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"rpc.discover\"}\n";
	const int fd = dial("control.sock"), other = dial("control.sock");
	const uint64_t until = clock_monotonic_us() + PATIENCE_US;
	struct control_counters k;

	(void)state;
	do {
		const ssize_t n = send(fd, line, sizeof(line) - 1, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			break;
		turn();
		control_counters(w.control, &k);
		assert_true(clock_monotonic_us() < until);
	} while (k.dropped_slow == 0);
	control_counters(w.control, &k);
	assert_int_equal(k.dropped_slow, 1);
	json_decref(call(other, "version", "{}"));
	(void)close(fd);
	(void)close(other);
}

static void test_a_client_goes_while_its_calls_wait(void **state)
{
	const int fd = dial("control.sock"), other = dial("control.sock");
	struct control_counters k;

	(void)state;
	fake.hold = true;
	say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list.listeners\"}\n"
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}\nlist connections\n"
		"connect 10.0.0.9:80 --stream\n");
	for (int i = 0; i < 5; i++)
		turn();
	assert_int_equal(fake.asks_n, 3);
	(void)close(fd);
	for (int i = 0; i < 5; i++)
		turn();
	fake.hold = false;
	while (fake.asks_n)
		fake_answer(0);
	json_decref(call(other, "version", "{}"));
	for (int i = 0; i < 5; i++)
		turn();
	control_counters(w.control, &k);
	assert_int_equal(k.waiting, 0);
	assert_int_equal(k.clients, 1);
	(void)close(other);
}

static void test_a_full_mailbox_is_busy(void **state)
{
	const int fd = dial("control.sock");

	(void)state;
	fake.ask_rc = -EAGAIN;
	expect_call_error(fd, "status", "{}", PROTO_BUSY, "again");
	expect_call_error(fd, "listen", "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\"}",
			  PROTO_BUSY, "again");
	assert_false(fake_has_rule("10.0.0.2", 7));
	expect_call_error(fd, "connect", "{\"address\":\"10.0.0.9:80\",\"stream\":true}",
			  PROTO_BUSY, "again");
	(void)close(fd);
}

static void test_answers_leave_before_the_end(void **state)
{
	const int fd = dial("control.sock");
	char *text;

	(void)state;
	say(fd, "version\n");
	turn();
	turn();
	control_stop(w.control);
	text = hear(fd, NULL);
	assert_non_null(strstr(text, TCPFSM_VERSION));
	free(text);
	(void)close(fd);
}

static void test_a_stale_socket_is_replaced(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char dir[] = "/tmp/tcpfsm-control.XXXXXX";
	struct control *control;
	struct errmsg err;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/control.sock", dir);
	assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(control_new(dir, "no-such-group-at-all", &control, &err), 0);
	/* Nobody is heard before the start. */
	assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), -1);
	control_free(control);
	(void)close(fd);
	assert_int_equal(rmdir(dir), 0);
}

static void test_no_place_for_sockets(void **state)
{
	struct control *control;
	struct errmsg err;
	char longest[160];

	(void)state;
	assert_int_equal(control_new("/nowhere/at/all", "", &control, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nowhere/at/all/control.sock"));
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	assert_int_equal(control_new(longest, "", &control, &err), -ENAMETOOLONG);
}

/* ---- connections ---- */

static void fill(size_t n)
{
	for (size_t i = 0; i < n; i++)
		fake.conns[i] = fake_conn(i + 1, i % 2 ? 7 : 80,
					  i % 4 ? ST_ESTABLISHED : ST_FIN_WAIT_2);
	fake.conns_n = n;
}

/* Walks all pages; the number of rows, each seen once. */
static size_t walk(int fd, const char *extra, size_t limit)
{
	static bool seen[FAKE_ROWS_MAX + 1];
	char after[32] = "", params[256];
	size_t total = 0;

	memset(seen, 0, sizeof(seen));
	for (;;) {
		const json_t *rows, *next;
		json_t *a;

		(void)snprintf(params, sizeof(params), "{\"limit\":%zu%s%s%s%s}", limit, extra,
			       *after ? ",\"after\":\"" : "", after, *after ? "\"" : "");
		a = call(fd, "list.connections", params);
		rows = result_of(a, "connections");
		assert_true(json_array_size(rows) <= limit);
		for (size_t i = 0; i < json_array_size(rows); i++) {
			const json_int_t id = json_integer_value(
				json_object_get(json_array_get(rows, i), "id"));

			assert_true(id > 0 && id <= FAKE_ROWS_MAX && !seen[id]);
			seen[id] = true;
			total++;
		}
		next = result_of(a, "next");
		(void)snprintf(after, sizeof(after), "%s",
			       json_is_null(next) ? "" : json_string_value(next));
		json_decref(a);
		if (!*after)
			return total;
	}
}

static void test_lists_come_in_pages(void **state)
{
	const int fd = dial("observe.sock");
	json_t *a;

	(void)state;
	fill(3000);
	assert_int_equal(walk(fd, "", 7), 3000);
	assert_int_equal(walk(fd, "", 1000), 3000);
	assert_int_equal(walk(fd, ",\"filter\":\"sport = :7\"", 999), 1500);
	assert_int_equal(walk(fd, ",\"filter\":\"state fin-wait-2\"", 1), 750);
	assert_int_equal(walk(fd, ",\"filter\":\"bytes_in > 299900\"", 10), 1);
	assert_int_equal(walk(fd, ",\"filter\":\"service = exec\"", 10), 0);
	fill(3);
	a = call(fd, "list.connections", "{}");
	assert_int_equal(json_integer_value(result_of(a, "total")), 3);
	assert_true(json_is_null(result_of(a, "next")));
	json_decref(a);
	(void)close(fd);
}

static void test_closed_connections_come_from_the_record(void **state)
{
	const int fd = dial("observe.sock");
	const json_t *row;
	json_t *a;

	(void)state;
	for (size_t i = 0; i < 300; i++)
		fake.rows[i] = fake_row(300 - i, i % 3 ? 7 : 80);
	fake.rows_n = 300;
	assert_int_equal(walk(fd, ",\"closed\":true", 7), 300);
	assert_int_equal(walk(fd, ",\"closed\":true,\"filter\":\"sport = :80\"", 30), 100);
	a = call(fd, "list.connections", "{\"closed\":true,\"limit\":1}");
	row = json_array_get(result_of(a, "connections"), 0);
	assert_int_equal(json_integer_value(json_object_get(row, "id")), 300);
	assert_string_equal(json_string_value(json_object_get(row, "state")), "closed");
	assert_string_equal(json_string_value(json_object_get(row, "end_reason")), "reset_by_peer");
	assert_string_equal(json_string_value(json_object_get(row, "closed_by")), "remote");
	assert_string_equal(json_string_value(json_object_get(row, "last_state")), "established");
	assert_int_equal(json_integer_value(json_object_get(row, "exit_signal")), 9);
	assert_true(json_is_null(json_object_get(row, "exit_status")));
	assert_true(json_is_null(json_object_get(row, "rtt_us")));
	json_decref(a);
	fake.query_rc = -EAGAIN;
	expect_call_error(fd, "list.connections", "{\"closed\":true}", PROTO_BUSY, "again");
	(void)close(fd);
}

static void test_show_connection_live_and_kept(void **state)
{
	const int fd = dial("observe.sock");
	const json_t *row;
	json_t *a;

	(void)state;
	fill(5);
	fake.rows[0] = fake_row(900, 7);
	fake.rows_n = 1;
	a = call(fd, "show.connection", "{\"id\":2}");
	row = result_of(a, NULL);
	assert_string_equal(json_string_value(json_object_get(row, "local")), "10.0.0.2:7");
	assert_string_equal(json_string_value(json_object_get(row, "state")), "established");
	assert_string_equal(json_string_value(json_object_get(row, "direction")), "passive");
	assert_true(json_is_null(json_object_get(row, "end_reason")));
	assert_true(json_is_true(json_object_get(json_object_get(row, "detail"), "timestamps")) ||
		    json_is_false(json_object_get(json_object_get(row, "detail"), "timestamps")));
	assert_true(json_is_null(json_object_get(json_object_get(row, "detail"), "timer_in_us")));
	assert_null(json_object_get(row, "cwnd_bytes"));
	json_decref(a);
	a = call(fd, "show.connection", "{\"id\":900}");
	assert_int_equal(json_integer_value(json_object_get(result_of(a, NULL), "id")), 900);
	assert_null(json_object_get(result_of(a, NULL), "detail"));
	json_decref(a);
	expect_call_error(fd, "show.connection", "{\"id\":123456}", PROTO_NOT_FOUND, "123456");
	expect_call_error(fd, "show.connection", "{\"id\":0}", PROTO_NOT_FOUND, "0");
	(void)close(fd);
}

static void test_show_transitions(void **state)
{
	const int fd = dial("observe.sock");
	const json_t *row;
	json_t *a;

	(void)state;
	fake.rows[0] = fake_row(900, 7);
	fake.rows[1] = fake_row(899, 7);
	fake.rows_n = 2;
	fake.transitions[0] = (struct record_transition){ .connection = 900,
							  .at_us = 5,
							  .from = ST_LISTEN,
							  .to = ST_SYN_RECEIVED,
							  .cause = CAUSE_USER };
	fake.transitions_n = 1;
	a = call(fd, "show.transitions", "{\"id\":900}");
	assert_int_equal(json_integer_value(result_of(a, "connection")), 900);
	row = json_array_get(result_of(a, "transitions"), 0);
	assert_string_equal(json_string_value(json_object_get(row, "to")), "syn_received");
	assert_string_equal(json_string_value(json_object_get(row, "cause")), "user");
	assert_true(json_is_false(result_of(a, "more")));
	json_decref(a);
	a = call(fd, "show.transitions", "{\"id\":899}");
	assert_int_equal(json_array_size(result_of(a, "transitions")), 0);
	json_decref(a);
	expect_call_error(fd, "show.transitions", "{\"id\":1}", PROTO_NOT_FOUND, "1");
	(void)close(fd);
}

static void test_without_a_record(void **state)
{
	int fd;

	assert_int_equal(teardown(state), 0);
	world_open(true, false);
	fd = dial("observe.sock");
	expect_call_error(fd, "list.connections", "{\"closed\":true}", PROTO_NO_RECORD, "Record");
	expect_call_error(fd, "show.transitions", "{\"id\":1}", PROTO_NO_RECORD, "Record");
	expect_call_error(fd, "show.connection", "{\"id\":1}", PROTO_NOT_FOUND, "1");
	(void)close(fd);
}

static void test_close_and_reset(void **state)
{
	const int fd = dial("control.sock");
	json_t *a;

	(void)state;
	a = call(fd, "close.connection", "{\"id\":5}");
	assert_int_equal(json_integer_value(result_of(a, "id")), 5);
	json_decref(a);
	fake.end_rc = -ENOENT;
	expect_call_error(fd, "reset.connection", "{\"id\":6}", PROTO_NOT_FOUND, "connection 6");
	(void)close(fd);
}

static void test_send_urgent(void **state)
{
	const int fd = dial("control.sock");
	char params[1200];
	json_t *a;

	(void)state;
	a = call(fd, "send.urgent", "{\"id\":5,\"text\":\"stop\"}");
	assert_int_equal(json_integer_value(result_of(a, "bytes")), 4);
	json_decref(a);
	fake.hold_urgent = true;
	expect_call_error(fd, "send.urgent", "{\"id\":5,\"text\":\"stop\"}", PROTO_BUSY, "full");
	fake.end_rc = -EPIPE;
	expect_call_error(fd, "send.urgent", "{\"id\":5,\"text\":\"stop\"}", PROTO_REFUSED, "");
	fake.end_rc = -ENOENT;
	expect_call_error(fd, "send.urgent", "{\"id\":6,\"text\":\"stop\"}", PROTO_NOT_FOUND,
			  "connection 6");
	(void)snprintf(params, sizeof(params), "{\"id\":5,\"text\":\"%01001d\"}", 0);
	expect_call_error(fd, "send.urgent", params, PROTO_INVALID_PARAMS, "1 to 1000");
	expect_call_error(fd, "send.urgent", "{\"id\":5,\"text\":\"\"}", PROTO_INVALID_PARAMS,
			  "text");
	(void)close(fd);
}

/* ---- listen ---- */

static void test_listen_and_unlisten(void **state)
{
	const int fd = dial("control.sock");
	const json_t *row;
	json_t *a;

	(void)state;
	a = call(fd, "listen",
		 "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\",\"tcp\":{\"MSS\":\"900\"}}");
	assert_string_equal(json_string_value(result_of(a, "address")), "10.0.0.2:7");
	assert_string_equal(json_string_value(result_of(a, "name")), "10.0.0.2:7");
	json_decref(a);
	assert_true(fake_has_rule("10.0.0.2", 7));
	assert_true(fake_has_rule("*", 61000));
	assert_int_equal(fake.listeners_n, 1);
	a = call(fd, "list.listeners", "{}");
	row = json_array_get(result_of(a, "listeners"), 0);
	assert_string_equal(json_string_value(json_object_get(row, "service")), "echo");
	assert_true(json_is_false(json_object_get(row, "draining")));
	json_decref(a);
	expect_call_error(fd, "listen", "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\"}",
			  PROTO_REFUSED, "10.0.0.2:7");
	a = call(fd, "unlisten", "{\"address\":\"10.0.0.2:7\"}");
	assert_string_equal(json_string_value(result_of(a, "address")), "10.0.0.2:7");
	json_decref(a);
	for (int i = 0; i < 5; i++)
		turn();
	assert_false(fake_has_rule("10.0.0.2", 7));
	expect_call_error(fd, "unlisten", "{\"address\":\"10.0.0.2:7\"}", PROTO_NOT_FOUND,
			  "10.0.0.2:7");
	(void)close(fd);
}

static void test_what_listen_refuses(void **state)
{
	const int fd = dial("control.sock");

	(void)state;
	expect_call_error(fd, "listen", "{\"address\":\"10.0.0.2:7\",\"service\":\"nonsense\"}",
			  PROTO_INVALID_PARAMS, "echo");
	expect_call_error(
		fd, "listen",
		"{\"address\":\"10.0.0.2:7\",\"service\":\"echo\",\"tcp\":{\"No\":\"1\"}}",
		PROTO_INVALID_PARAMS, "No");
	expect_call_error(
		fd, "listen",
		"{\"address\":\"10.0.0.2:7\",\"service\":\"echo\",\"listener\":{\"No\":\"1\"}}",
		PROTO_INVALID_PARAMS, "listener: [Listener] has no key No");
	expect_call_error(
		fd, "listen",
		"{\"address\":\"10.0.0.2:7\",\"service\":\"echo\",\"listener\":{\"User\":\"a\"}}",
		PROTO_INVALID_PARAMS, "User is only for exec services, not for echo");
	expect_call_error(fd, "listen",
			  "{\"address\":\"10.0.0.2:7\",\"service\":\"exec:/x\","
			  "\"listener\":{\"User\":\"no such user\"}}",
			  PROTO_INVALID_PARAMS, "there is no such user");
	expect_call_error(fd, "listen",
			  "{\"address\":\"10.0.0.2:7\",\"service\":\"exec:/x\","
			  "\"listener\":{\"User\":\"nobody\"}}",
			  PROTO_INVALID_PARAMS, "started as root"); /* this one was not */
	expect_call_error(fd, "listen", "{\"address\":\"224.0.0.1:7\",\"service\":\"echo\"}",
			  PROTO_INVALID_PARAMS, "unicast");
	expect_call_error(fd, "listen",
			  "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\",\"backlog\":0}",
			  PROTO_INVALID_PARAMS, "backlog");
	fake.kernel_port = 8080;
	expect_call_error(fd, "listen", "{\"address\":\"10.0.0.2:8080\",\"service\":\"echo\"}",
			  PROTO_REFUSED, "nginx");
	fake.apply_rc = -EPERM;
	expect_call_error(fd, "listen", "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\"}",
			  PROTO_REFUSED, "iptables");
	fake.apply_rc = 0;
	assert_int_equal(fake.asked, 0); /* no rule, no listener */
	fake.listen_rc = -EADDRINUSE;
	expect_call_error(fd, "listen", "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\"}",
			  PROTO_REFUSED, "does not want");
	assert_false(fake_has_rule("10.0.0.2", 7)); /* half-done is undone */
	w.stopping = true;
	expect_call_error(fd, "listen", "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\"}",
			  PROTO_REFUSED, "stopping");
	(void)close(fd);
}

static void test_the_rule_stays_while_connections_drain(void **state)
{
	const int fd = dial("control.sock");
	const uint64_t until = clock_monotonic_us() + PATIENCE_US;

	(void)state;
	fake.drain = true;
	json_decref(call(fd, "listen", "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\"}"));
	json_decref(call(fd, "unlisten", "{\"address\":\"10.0.0.2:7\"}"));
	for (size_t asked = fake.asked; fake.asked < asked + 3;) {
		(void)event_base_loop(w.base, EVLOOP_ONCE);
		assert_true(clock_monotonic_us() < until);
	}
	assert_true(fake_has_rule("10.0.0.2", 7));
	/* The same address can be served again meanwhile, and its rule is needed then. */
	json_decref(call(fd, "listen", "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\"}"));
	fake.listeners[0] = fake.listeners[1];
	fake.listeners_n = 1;
	for (size_t asked = fake.asked; fake.asked < asked + 1;)
		(void)event_base_loop(w.base, EVLOOP_ONCE);
	for (int i = 0; i < 5; i++)
		turn();
	assert_true(fake_has_rule("10.0.0.2", 7));
	fake.drain = false;
	json_decref(call(fd, "unlisten", "{\"address\":\"10.0.0.2:7\"}"));
	for (int i = 0; i < 5; i++)
		turn();
	assert_false(fake_has_rule("10.0.0.2", 7));
	(void)close(fd);
}

/* The shield is told when devices come and go, and only then. */
static void test_links(void **state)
{
	struct served_config sc = { .base = w.base,
				    .shield = token(),
				    .local_ports = { addr_any, 61000, 65535 } };
	struct served *ls;
	struct errmsg err;
	int ends[2];

	assert_int_equal(pipe(ends), 0);
	fake.shield_fd = ends[0];
	assert_int_equal(served_new(&sc, &ls, &err), 0);
	(void)event_base_loop(w.base, EVLOOP_NONBLOCK);
	assert_int_equal(fake.shield_updates, 0);
	assert_int_equal(write(ends[1], "x", 1), 1);
	(void)event_base_loop(w.base, EVLOOP_NONBLOCK);
	assert_int_equal(fake.shield_updates, 1);
	served_free(ls);
	(void)event_base_loop(w.base, EVLOOP_NONBLOCK);
	assert_int_equal(fake.shield_updates, 1);
	(void)close(ends[0]);
	(void)close(ends[1]);
}

static void test_rules(void **state)
{
	int fd = dial("observe.sock");
	const json_t *row;
	json_t *a;

	a = call(fd, "list.rules", "{}");
	assert_string_equal(json_string_value(result_of(a, "shield")), "iptables");
	row = json_array_get(result_of(a, "rules"), 0);
	assert_int_equal(json_integer_value(json_object_get(row, "port_min")), 61000);
	assert_int_equal(json_integer_value(json_object_get(row, "packets")), 7);
	assert_int_equal(json_integer_value(json_object_get(row, "early")), 3);
	assert_null(result_of(a, "devices"));
	json_decref(a);
	/* With Shield=ingress, where and whether. */
	fake.early = (struct shield_early){ .name = "ingress",
					    .devices = { "eth0", "eth1" },
					    .devices_n = 2 };
	a = call(fd, "list.rules", "{}");
	assert_string_equal(json_string_value(result_of(a, "shield")), "ingress");
	assert_int_equal(json_array_size(result_of(a, "devices")), 2);
	assert_string_equal(json_string_value(json_array_get(result_of(a, "devices"), 1)), "eth1");
	assert_true(json_is_null(result_of(a, "trouble")));
	json_decref(a);
	fake.early = (struct shield_early){ .name = "ingress", .trouble = "nft is ill" };
	a = call(fd, "list.rules", "{}");
	assert_int_equal(json_array_size(result_of(a, "devices")), 0);
	assert_string_equal(json_string_value(result_of(a, "trouble")), "nft is ill");
	json_decref(a);
	(void)close(fd);
	assert_int_equal(teardown(state), 0);
	world_open(false, true);
	fd = dial("control.sock");
	a = call(fd, "list.rules", "{}");
	assert_string_equal(json_string_value(result_of(a, "shield")), "none");
	json_decref(a);
	expect_call_error(fd, "listen", "{\"address\":\"*:7\",\"service\":\"echo\"}",
			  PROTO_INVALID_PARAMS, "Shield=none");
	json_decref(call(fd, "listen", "{\"address\":\"10.0.0.2:7\",\"service\":\"echo\"}"));
	assert_int_equal(fake.applied, 0);
	assert_int_equal(fake.listeners_n, 1);
	(void)close(fd);
}

/* ---- connect ---- */

static void test_connect_gives_a_descriptor_with_its_line(void **state)
{
	const int fd = dial("control.sock");
	char buf[16] = "";
	int stream = -1;
	char *text;
	json_t *a;

	(void)state;
	fake.say = "hello";
	say(fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"version\"}\n"
		"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"connect\",\"params\":"
		"{\"address\":\"10.0.0.9:80\",\"stream\":true}}\n"
		"{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"version\"}\n");
	text = hear_fd(fd, "\n", &stream);
	assert_int_equal(stream, -1);
	free(text);
	text = hear_fd(fd, "\n", &stream);
	assert_true(stream >= 0);
	a = json_loads(text, 0, NULL);
	assert_int_equal(json_integer_value(result_of(a, "id")), 42);
	assert_string_equal(json_string_value(result_of(a, "remote")), "10.0.0.9:80");
	json_decref(a);
	free(text);
	free(hear_fd(fd, "\n", NULL));
	assert_int_equal(fcntl(stream, F_GETFL) & O_NONBLOCK, 0);
	assert_int_not_equal(fcntl(fake.connect_fd, F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(read(stream, buf, sizeof(buf)), 5);
	assert_string_equal(buf, "hello");
	(void)close(stream);
	assert_int_equal(read(fake.connect_fd, buf, sizeof(buf)), 0); /* no other copy is open */
	(void)close(fd);
}

static void test_connect_after_its_client_went(void **state)
{
	const int fd = dial("control.sock");
	char c;

	(void)state;
	fake.hold = true;
	say(fd, "connect 10.0.0.9:80 --stream\n");
	for (int i = 0; i < 5; i++)
		turn();
	assert_int_equal(fake.asks_n, 1);
	(void)close(fd);
	for (int i = 0; i < 5; i++)
		turn();
	fake_answer(0);
	for (int i = 0; i < 5; i++)
		turn();
	assert_int_equal(read(fake.connect_fd, &c, 1), 0);
}

static void test_what_connect_refuses(void **state)
{
	const int fd = dial("control.sock");

	(void)state;
	fake.connect_rc = -ECONNREFUSED;
	expect_call_error(fd, "connect", "{\"address\":\"10.0.0.9:80\"}", PROTO_REFUSED, "peer");
	fake.connect_rc = -ETIMEDOUT;
	expect_call_error(fd, "connect", "{\"address\":\"10.0.0.9:80\",\"stream\":true}",
			  PROTO_TIMED_OUT, "peer");
	fake.kernel_port = 1234;
	expect_call_error(fd, "connect",
			  "{\"address\":\"10.0.0.9:80\",\"source\":\"10.0.0.2:1234\"}",
			  PROTO_REFUSED, "1234");
	assert_false(fake_has_rule("10.0.0.2", 1234));
	expect_call_error(fd, "connect", "{\"address\":\"[fe80::1]:80\"}", PROTO_INVALID_PARAMS,
			  "scope");
	expect_call_error(fd, "connect", "{\"address\":\"[fe80::1]:80\",\"scope\":\"nowhere0\"}",
			  PROTO_INVALID_PARAMS, "nowhere0");
	(void)close(fd);
}

/* Turns the loop until there is a rule for the port, or none. */
static void await_rule(const char *address, uint16_t port, bool there)
{
	const uint64_t until = clock_monotonic_us() + PATIENCE_US;

	while (fake_has_rule(address, port) != there) {
		assert_true(clock_monotonic_us() < until);
		(void)event_base_loop(w.base, EVLOOP_ONCE);
	}
}

/* The rule comes before the SYN, and goes with the connection, or with the attempt. */
static void test_connect_from_a_port_of_its_choice(void **state)
{
	const char *const params = "{\"address\":\"10.0.0.9:80\",\"source\":\"10.0.0.2:1234\"}";
	const int fd = dial("control.sock");

	(void)state;
	fake.conns_n = 1;
	fake.conns[0] = (struct worker_conn){ .tcp.serial = 42 };
	json_decref(call(fd, "connect", params));
	assert_true(fake_has_rule("10.0.0.2", 1234));
	json_decref(
		call(fd, "connect", "{\"address\":\"10.0.0.9:80\",\"source\":\"10.0.0.2:61000\"}"));
	assert_false(fake_has_rule("10.0.0.2", 61000)); /* one of LocalPorts has it */
	fake.conns_n = 0;
	await_rule("10.0.0.2", 1234, false);
	fake.connect_rc = -ECONNREFUSED;
	expect_call_error(fd, "connect", params, PROTO_REFUSED, "peer");
	await_rule("10.0.0.2", 1234, false);
	(void)close(fd);
}

static void test_no_stream_in_a_batch(void **state)
{
	const int fd = dial("control.sock");
	json_t *a;

	(void)state;
	a = ask(fd, "[{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"connect\",\"params\":"
		    "{\"address\":\"10.0.0.9:80\",\"stream\":true}}]");
	assert_int_equal(error_of(json_array_get(a, 0)), PROTO_INVALID_PARAMS);
	json_decref(a);
	assert_int_equal(fake.asked, 0);
	(void)close(fd);
}

/* ---- set and show ---- */

static void listen_at(int fd, const char *address, const char *tcp)
{
	char params[160];

	(void)snprintf(params, sizeof(params),
		       "{\"address\":\"%s\",\"service\":\"echo\",\"tcp\":\"%s\"}", address, tcp);
	json_decref(call(fd, "listen", params));
}

/* "value whose from" of one key, as show.tcp has it. */
static const char *shown(int fd, const char *params, const char *key)
{
	static char text[200];
	json_t *a = call(fd, "show.tcp", params), *row;
	size_t i;

	text[0] = 0;
	json_array_foreach(result_of(a, "tcp"), i, row)
	{
		if (strcmp(json_string_value(json_object_get(row, "key")), key) != 0)
			continue;
		(void)snprintf(text, sizeof(text), "%s %s %s",
			       json_string_value(json_object_get(row, "value")),
			       json_string_value(json_object_get(row, "whose")),
			       proto_param_text(row, "from", "-"));
	}
	json_decref(a);
	return text;
}

static void test_set_for_the_daemon(void **state)
{
	const int fd = dial("control.sock");
	json_t *a;

	(void)state;
	listen_at(fd, "10.0.0.2:7", "");
	listen_at(fd, "10.0.0.2:70", "DSCP=9");
	a = call(fd, "set.tcp", "{\"key\":\"tcp.DSCP\",\"value\":46}");
	assert_string_equal(json_string_value(result_of(a, "value")), "46");
	assert_string_equal(json_string_value(result_of(a, "was")), "0");
	assert_true(json_is_true(result_of(a, "until_reload")));
	assert_int_equal(json_integer_value(result_of(a, "own")), 1);
	json_decref(a);
	/* The daemon's, and the listener that follows; the other keeps its own. */
	assert_int_equal(w.config.tcp.dscp, 46);
	assert_int_equal(fake.params_set, 1);
	assert_int_equal(fake.params.dscp, 46);
	assert_string_equal(shown(fd, "{}", "DSCP"), "46 daemon default");
	/* And what comes to no listener. */
	assert_false(fake.unserved.blackhole);
	a = call(fd, "set.tcp", "{\"key\":\"Blackhole\",\"value\":true}");
	assert_string_equal(json_string_value(result_of(a, "value")), "yes");
	json_decref(a);
	assert_true(fake.unserved.blackhole);
	assert_string_equal(shown(fd, "{\"listener\":\"10.0.0.2:7\"}", "DSCP"),
			    "46 daemon default");
	assert_string_equal(shown(fd, "{\"listener\":\"10.0.0.2:70\"}", "DSCP"),
			    "9 listener listen");
	/* And whoever comes later. */
	listen_at(fd, "10.0.0.2:71", "");
	assert_string_equal(shown(fd, "{\"listener\":\"10.0.0.2:71\"}", "DSCP"),
			    "46 daemon default");
	(void)close(fd);
}

static void test_set_for_a_listener(void **state)
{
	const int fd = dial("control.sock");
	json_t *a;

	(void)state;
	listen_at(fd, "10.0.0.2:7", "");
	a = call(fd, "set.tcp", "{\"key\":\"Nagle\",\"value\":false,\"listener\":\"10.0.0.2:7\"}");
	assert_string_equal(json_string_value(result_of(a, "value")), "no");
	assert_true(json_is_false(result_of(a, "until_reload"))); /* no file says anything of it */
	json_decref(a);
	assert_false(fake.params.nagle);
	assert_true(w.config.tcp.nagle);
	assert_string_equal(shown(fd, "{\"listener\":\"10.0.0.2:7\"}", "Nagle"),
			    "no listener run time");
	/* It is its own now. */
	json_decref(call(fd, "set.tcp", "{\"key\":\"tcp.Nagle\",\"value\":\"yes\"}"));
	assert_string_equal(shown(fd, "{\"listener\":\"10.0.0.2:7\"}", "Nagle"),
			    "no listener run time");
	(void)close(fd);
}

/* What the engine refused is not shown; a worker that had taken it goes back. */
static void test_set_for_a_listener_is_refused(void **state)
{
	const int fd = dial("control.sock");

	(void)state;
	listen_at(fd, "10.0.0.2:7", "");
	json_decref(
		call(fd, "set.tcp", "{\"key\":\"DSCP\",\"value\":9,\"listener\":\"10.0.0.2:7\"}"));
	fake.params_rc = -ENOBUFS;
	expect_call_error(fd, "set.tcp",
			  "{\"key\":\"DSCP\",\"value\":46,\"listener\":\"10.0.0.2:7\"}",
			  PROTO_REFUSED, "no set is left");
	assert_string_equal(shown(fd, "{\"listener\":\"10.0.0.2:7\"}", "DSCP"),
			    "9 listener run time");
	assert_int_equal(fake.params.dscp, 9);
	assert_int_equal(fake.params_set, 3);
	fake.params_rc = -ENOBUFS;
	expect_call_error(fd, "set.tcp",
			  "{\"key\":\"TTL\",\"value\":3,\"listener\":\"10.0.0.2:7\"}",
			  PROTO_REFUSED, "no set is left");
	assert_string_equal(shown(fd, "{\"listener\":\"10.0.0.2:7\"}", "TTL"), "64 daemon default");
	(void)close(fd);
}

static void test_set_for_a_connection(void **state)
{
	const int fd = dial("control.sock");
	json_t *a;

	(void)state;
	fill(2);
	fake.conn_params = w.config.tcp;
	a = call(fd, "set.tcp", "{\"key\":\"tcp.TTL\",\"value\":\"7\",\"connection\":2}");
	assert_string_equal(json_string_value(result_of(a, "was")), "64");
	assert_int_equal(json_integer_value(result_of(a, "connection")), 2);
	json_decref(a);
	assert_int_equal(fake.conn_params.ttl, 7);
	assert_int_equal(w.config.tcp.ttl, 64);
	assert_string_equal(shown(fd, "{\"connection\":2}", "TTL"), "7 connection -");
	assert_string_equal(shown(fd, "{\"connection\":2}", "DSCP"), "0 daemon default");
	fake.end_rc = -ENOENT;
	expect_call_error(fd, "set.tcp", "{\"key\":\"tcp.TTL\",\"value\":\"7\",\"connection\":3}",
			  PROTO_NOT_FOUND, "connection 3");
	expect_call_error(fd, "show.tcp", "{\"connection\":3}", PROTO_NOT_FOUND, "connection 3");
	(void)close(fd);
}

static void test_what_set_refuses(void **state)
{
	const int fd = dial("control.sock"), observer = dial("observe.sock");

	(void)state;
	expect_call_error(fd, "set.tcp", "{\"key\":\"tcp.DSPC\",\"value\":\"7\"}",
			  PROTO_INVALID_PARAMS, "the nearest is DSCP");
	expect_call_error(fd, "set.tcp", "{\"key\":\"tcp.DSCP\",\"value\":64}",
			  PROTO_INVALID_PARAMS, "DSCP=64: expected a number, 0 to 63");
	expect_call_error(fd, "set.tcp", "{\"key\":\"tcp.DSCP\",\"value\":[]}",
			  PROTO_INVALID_PARAMS, "value: expected a string");
	expect_call_error(fd, "set.tcp",
			  "{\"key\":\"tcp.DSCP\",\"value\":\"7\",\"listener\":\"10.0.0.9:7\"}",
			  PROTO_NOT_FOUND, "10.0.0.9:7");
	expect_call_error(fd, "set.tcp",
			  "{\"key\":\"tcp.DSCP\",\"value\":\"7\",\"listener\":\"10.0.0.9:7\","
			  "\"connection\":1}",
			  PROTO_INVALID_PARAMS, "only one");
	expect_call_error(fd, "set.tcp",
			  "{\"key\":\"tcp.Timestamps\",\"value\":\"no\",\"connection\":1}",
			  PROTO_REFUSED, "settled when a connection opens");
	expect_call_error(fd, "set.tcp", "{\"key\":\"tcp.RtoMin\",\"value\":\"61s\"}",
			  PROTO_INVALID_PARAMS, "RtoMin");
	assert_int_equal(fake.asked, 0);
	listen_at(fd, "10.0.0.2:7", "RtoMax=5s");
	expect_call_error(fd, "set.tcp", "{\"key\":\"tcp.RtoMin\",\"value\":\"10s\"}",
			  PROTO_REFUSED,
			  "listener 10.0.0.2:7, which follows: RtoMin is above RtoMax");
	assert_int_equal(w.config.tcp.rto_min_us, 200000);
	expect_call_error(
		fd, "listen",
		"{\"address\":\"10.0.0.2:8\",\"service\":\"echo\",\"tcp\":\"RtoMax=100ms\"}",
		PROTO_INVALID_PARAMS, "RtoMin is above RtoMax");
	expect_call_error(observer, "set.tcp", "{\"key\":\"tcp.DSCP\",\"value\":\"7\"}",
			  PROTO_PERMISSION_DENIED, "control.sock");
	(void)close(observer);
	(void)close(fd);
}

/* ---- the daemon ---- */

static void test_status_and_services(void **state)
{
	const int fd = dial("observe.sock");
	json_t *a;

	(void)state;
	fill(4);
	a = call(fd, "status", "{}");
	assert_int_equal(json_integer_value(result_of(a, "connections")), 4);
	assert_int_equal(
		json_integer_value(json_object_get(result_of(a, "packets"), "bad_tcp_checksum")),
		3);
	assert_int_equal(
		json_integer_value(json_object_get(result_of(a, "record"), "rows_written")), 5);
	assert_int_equal(json_integer_value(json_object_get(result_of(a, "control"), "clients")),
			 1);
	assert_non_null(json_object_get(result_of(a, "states"), "time_wait"));
	assert_non_null(
		json_object_get(json_object_get(result_of(a, "links"), "rawip"), "frames_out"));
	json_decref(a);
	a = call(fd, "list.services", "{}");
	assert_int_equal(json_array_size(result_of(a, "services")), 2);
	json_decref(a);
	a = call(fd, "rpc.discover", "{}");
	assert_int_equal(json_array_size(result_of(a, "methods")), METHOD__COUNT);
	json_decref(a);
	(void)close(fd);
}

static void test_reload_and_shutdown(void **state)
{
	const int fd = dial("control.sock");
	json_t *a;

	(void)state;
	a = call(fd, "reload", "{}");
	assert_int_equal(json_integer_value(result_of(a, "listeners_added")), 1);
	json_decref(a);
	w.reload_rc = -EINVAL;
	expect_call_error(fd, "reload", "{}", PROTO_REFUSED, "tcpfsmd.conf:2");
	a = call(fd, "shutdown", "{}");
	assert_int_equal(json_object_size(result_of(a, NULL)), 0);
	json_decref(a);
	assert_int_equal(w.stops, 1);
	(void)close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_version_as_json_and_as_text),
		TEST(test_wrong_lines_get_an_error_object),
		TEST(test_a_line_in_single_octets),
		TEST(test_half_a_line_at_the_end),
		TEST(test_a_question_before_the_end_is_answered),
		TEST(test_too_long_a_line_ends_the_connection),
		TEST(test_octets_that_are_no_text),
		TEST(test_answers_keep_the_order_of_the_questions),
		TEST(test_a_client_has_64_calls_at_a_time),
		TEST(test_batches),
		TEST(test_observers_only_observe),
		TEST(test_others_on_control_sock_may_not_administer),
		TEST(test_modes_of_the_sockets),
		TEST(test_limit_of_clients_is_for_each_socket),
		TEST(test_a_client_that_never_reads_is_dropped),
		TEST(test_a_client_goes_while_its_calls_wait),
		TEST(test_a_full_mailbox_is_busy),
		TEST(test_answers_leave_before_the_end),
		TEST(test_a_stale_socket_is_replaced),
		TEST(test_no_place_for_sockets),
		TEST(test_lists_come_in_pages),
		TEST(test_closed_connections_come_from_the_record),
		TEST(test_show_connection_live_and_kept),
		TEST(test_show_transitions),
		TEST(test_without_a_record),
		TEST(test_close_and_reset),
		TEST(test_send_urgent),
		TEST(test_listen_and_unlisten),
		TEST(test_what_listen_refuses),
		TEST(test_the_rule_stays_while_connections_drain),
		TEST(test_rules),
		TEST(test_links),
		TEST(test_connect_gives_a_descriptor_with_its_line),
		TEST(test_connect_after_its_client_went),
		TEST(test_what_connect_refuses),
		TEST(test_connect_from_a_port_of_its_choice),
		TEST(test_no_stream_in_a_batch),
		TEST(test_set_for_the_daemon),
		TEST(test_set_for_a_listener),
		TEST(test_set_for_a_listener_is_refused),
		TEST(test_set_for_a_connection),
		TEST(test_what_set_refuses),
		TEST(test_status_and_services),
		TEST(test_reload_and_shutdown),
	};

	return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
