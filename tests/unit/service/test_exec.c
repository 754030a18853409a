/* SPDX-License-Identifier: Apache-2.0 */
/* The services with descriptors, exec and stream: real processes and sockets on a fake engine. The
 * event loop turns until what is awaited is there; a watchdog ends a test that hangs.
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
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "fake_engine.h"
#include "service/service.h"
#include "service/spawner.h"

enum { WATCHDOG_S = 30 };

static struct fixture {
	struct spawner *spawner;
	struct engine *engine;
	struct service_host host;
	struct session s[FAKE_CONNS];
	struct service *service;
	unsigned lost;
	uint8_t peer; /* added to the last octet of the peer's address */
	int spawn_error;
	uint64_t ended_serial;
	uint32_t ended_pid;
	int32_t ended_status;
} f;

static void on_begin(struct service_host *h)
{
	h->now.us++;
}

/* Where the worker's pump would be: here the tests look after each turn. */
static void on_end(struct service_host *h)
{
}

static void on_process_ended(struct service_host *h, uint64_t serial, uint32_t pid, int32_t status,
			     uint64_t run_us)
{
	f.ended_serial = serial;
	f.ended_pid = pid;
	f.ended_status = status;
}

static void on_spawner_lost(struct service_host *h)
{
	f.lost++;
}

static void on_spawn_failed(struct service_host *h, const char *program, int error)
{
	f.spawn_error = error;
}

static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
	fail_msg("it hangs");
}

static void turn(void)
{
	assert_int_equal(event_base_loop(f.host.base, EVLOOP_ONCE), 0);
}

#define TURN_UNTIL(condition)                                                          \
	do {                                                                           \
		struct event *watchdog_ = evtimer_new(f.host.base, on_watchdog, NULL); \
		event_add(watchdog_, &(struct timeval){ .tv_sec = WATCHDOG_S });       \
		while (!(condition))                                                   \
			turn();                                                        \
		event_free(watchdog_);                                                 \
	} while (0)

static void setup_with(const char *text, const struct service_options *options)
{
	struct errmsg err = { 0 };

	memset(&f, 0, sizeof(f));
	if (spawner_start(&f.spawner, &err) ||
	    spawner_channel_new(f.spawner, &f.host.spawner, &err))
		fail_msg("%s", err.text);
	f.engine = fake_engine_new();
	f.host.engine = f.engine;
	f.host.base = event_base_new();
	f.host.begin = on_begin;
	f.host.end = on_end;
	f.host.process_ended = on_process_ended;
	f.host.spawner_lost = on_spawner_lost;
	f.host.spawn_failed = on_spawn_failed;
	assert_int_equal(service_host_init(&f.host), 0);
	if (text && service_new(text, options, &f.service, &err))
		fail_msg("%s", err.text);
	if (!text)
		assert_int_equal(service_new_stream(&f.service), 0);
}

static void setup(const char *text, uint32_t max_processes)
{
	setup_with(text, &(struct service_options){ .max_processes = max_processes,
						    .kill_after_us = SERVICE_KILL_AFTER_US });
}

static void teardown(void)
{
	for (unsigned i = 0; i < FAKE_CONNS; i++)
		session_fini(&f.s[i], true);
	service_unref(f.service);
	service_host_fini(&f.host);
	spawner_channel_free(f.host.spawner);
	spawner_free(f.spawner);
	event_base_free(f.host.base);
	fake_engine_free(f.engine);
}

static int open_session(unsigned i, int fd)
{
	f.engine->conns[i].flow =
		(struct flow){ .local = { addr_v4(10, 0, 0, 2), 80 },
			       .remote = { addr_v4(10, 0, 0, (uint8_t)(1 + f.peer)), 40000 } };
	session_init(&f.s[i], &f.host, (conn_id){ i, 1 }, 100 + i, f.service);
	f.s[i].fd = fd;
	return session_open(&f.s[i]);
}

static void arrive(unsigned i, const void *data, size_t len)
{
	uint32_t taken = 0;

	/* As the worker does: directly when it is next in order and nothing waits. */
	if (!f.engine->conns[i].in_len && f.engine->conns[i].direct)
		taken = session_text(&f.s[i], (struct span){ data, (uint32_t)len });
	if (taken == len)
		return;
	fake_arrive(f.engine, i, (const uint8_t *)data + taken, len - taken);
	session_ready(&f.s[i], REPORT_READABLE);
}

static void peer_closes(unsigned i)
{
	f.engine->conns[i].peer_fin = true;
	session_ready(&f.s[i], REPORT_PEER_CLOSED);
}

static void output_is(unsigned i, const char *want)
{
	f.engine->conns[i].out[f.engine->conns[i].out_len] = 0;
	assert_string_equal((const char *)f.engine->conns[i].out, want);
}

static void input_and_output_are_the_connection(void **state)
{
	setup("exec:/bin/cat", 0);
	fake_arrive(f.engine, 0, "early", 5);
	assert_int_equal(open_session(0, -1), 0);
	arrive(0, " bird", 5);
	/* Its output may overtake the news that it has started. */
	TURN_UNTIL(f.engine->conns[0].out_len == 10 && f.s[0].pid > 0);
	output_is(0, "early bird");
	assert_int_equal(f.host.processes, 1);
	assert_false(f.engine->conns[0].closed);
	peer_closes(0);
	TURN_UNTIL(f.engine->conns[0].closed && f.s[0].exit_status != INT32_MIN);
	assert_int_equal(f.s[0].exit_status, 0);
	assert_true(f.s[0].run_us > 0);
	assert_false(f.engine->conns[0].aborted);
	assert_int_equal(f.host.processes, 0);
	teardown();
}

static void the_environment_tells_who_is_connected(void **state)
{
	setup("exec:/bin/sh -c 'echo $TCPREMOTEIP $TCPREMOTEPORT $TCPLOCALIP $TCPLOCALPORT $PROTO "
	      "$REMOTE_ADDR $REMOTE_PORT $LOCAL_ADDR $LOCAL_PORT $TCPFSM_CONNECTION'",
	      0);
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(f.engine->conns[0].closed);
	output_is(0, "10.0.0.1 40000 10.0.0.2 80 TCP 10.0.0.1 40000 10.0.0.2 80 100\n");
	teardown();
}

static void any_exit_status_closes_after_the_output(void **state)
{
	setup("exec:/bin/sh -c 'echo bye; exit 7'", 0);
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(f.engine->conns[0].closed);
	output_is(0, "bye\n");
	TURN_UNTIL(f.s[0].exit_status != INT32_MIN);
	assert_int_equal(f.s[0].exit_status, 7);
	assert_false(f.engine->conns[0].aborted);
	/* Nobody reads any more, but what comes before our FIN is acknowledged is no reason for a RST. */
	arrive(0, "late", 4);
	assert_int_equal(f.engine->conns[0].in_len, 0);
	assert_false(f.engine->conns[0].stopped_reading);
	session_ready(&f.s[0], REPORT_ALL_ACKED);
	assert_true(f.engine->conns[0].stopped_reading);
	teardown();
}

static void death_by_signal_resets(void **state)
{
	for (unsigned i = 0; i < 20; i++) {
		setup("exec:/bin/sh -c 'read x; kill -SEGV $$'", 0);
		assert_int_equal(open_session(0, -1), 0);
		arrive(0, "\n", 1);
		TURN_UNTIL(f.engine->conns[0].aborted || f.engine->conns[0].closed);
		assert_true(f.engine->conns[0].aborted);
		assert_false(f.engine->conns[0].closed); /* no FIN, though its output ended first */
		assert_int_equal(f.engine->conns[0].abort_reason, END_RESET_BY_SERVICE);
		assert_int_equal(f.s[0].exit_status, -SIGSEGV);
		teardown();
	}
}

static void closing_its_output_is_half_a_close(void **state)
{
	char path[] = "/tmp/test_exec_XXXXXX", text[256], buf[64] = { 0 };
	const int fd = mkstemp(path);

	assert_true(fd >= 0);
	(void)snprintf(text, sizeof(text), "exec:/bin/sh -c 'echo bye; exec >&-; cat >%s'", path);
	setup(text, 0);
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(f.engine->conns[0].closed);
	output_is(0, "bye\n");
	assert_int_equal(f.s[0].exit_status, INT32_MIN);
	session_ready(&f.s[0], REPORT_ALL_ACKED);
	assert_false(f.engine->conns[0].stopped_reading); /* it reads still */
	arrive(0, "still flowing", 13);
	peer_closes(0);
	TURN_UNTIL(f.s[0].exit_status != INT32_MIN);
	assert_int_equal(f.s[0].exit_status, 0);
	assert_true(f.engine->conns[0].stopped_reading);
	assert_int_equal(read(fd, buf, sizeof(buf)), 13);
	assert_string_equal(buf, "still flowing");
	(void)close(fd);
	(void)unlink(path);
	teardown();
}

/* A FIFO holds the process back. What fits is the pipe; all the rest stays in the window. */
static void a_process_that_does_not_read_closes_the_window(void **state)
{
	static uint8_t text[FAKE_QUEUE];
	char path[64], service[128];
	struct fake_conn *c;
	int gate;

	for (unsigned i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)(i * 31 + i / 256);
	(void)snprintf(path, sizeof(path), "/tmp/test_exec_gate_%d", (int)getpid());
	assert_int_equal(mkfifo(path, 0600), 0);
	(void)snprintf(service, sizeof(service), "exec:/bin/sh -c 'read go <%s; exec cat'", path);
	setup(service, 0);
	c = &f.engine->conns[0];
	assert_int_equal(open_session(0, -1), 0);
	arrive(0, text, sizeof(text));
	assert_true(c->in_len >= sizeof(text) - 65536);
	for (unsigned i = 0; i < 20; i++)
		(void)event_base_loop(f.host.base, EVLOOP_NONBLOCK);
	assert_true(c->in_len >= sizeof(text) - 65536);
	assert_int_equal(c->out_len, 0);
	gate = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(gate >= 0);
	(void)close(gate);
	(void)unlink(path);
	TURN_UNTIL(c->in_len == 0);
	peer_closes(0);
	TURN_UNTIL(c->closed);
	assert_int_equal(c->out_len, sizeof(text));
	assert_memory_equal(c->out, text, sizeof(text));
	teardown();
}

static void a_peer_that_does_not_read_stops_the_process(void **state)
{
	struct fake_conn *c;
	size_t before;

	setup("exec:/bin/sh -c 'exec head -c 500000 /dev/zero'", 0);
	c = &f.engine->conns[0];
	c->room = 1000;
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(c->wants_room);
	assert_int_equal(c->out_len, 1000);
	for (unsigned i = 0; i < 20; i++)
		(void)event_base_loop(f.host.base, EVLOOP_NONBLOCK);
	assert_int_equal(f.s[0].exit_status, INT32_MIN); /* it is stuck in its write */
	while (!c->closed) {
		before = c->out_len;
		c->room = 100000;
		session_ready(&f.s[0], REPORT_WRITABLE);
		TURN_UNTIL(c->closed || c->wants_room || c->out_len > before);
		assert_true(c->out_len <= before + 100000);
	}
	assert_int_equal(c->out_len, 500000);
	teardown();
}

static void a_process_that_closes_its_input_lets_the_rest_fall(void **state)
{
	static const uint8_t text[200000];

	setup("exec:/bin/sh -c 'exec <&-; echo deaf; while :; do sleep 1; done'", 0);
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(f.engine->conns[0].out_len == 5);
	arrive(0, text, sizeof(text));
	TURN_UNTIL(f.engine->conns[0].in_len == 0);
	assert_false(f.engine->conns[0].aborted);
	teardown();
}

static void a_reset_hangs_up_on_the_process(void **state)
{
	setup("exec:/bin/cat", 0);
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(f.s[0].pid);
	session_fini(&f.s[0], true);
	TURN_UNTIL(f.ended_serial);
	assert_int_equal(f.ended_serial, 100);
	/* SIGHUP and end of file come together: it takes either. */
	assert_true(f.ended_status == -SIGHUP || f.ended_status == 0);
	assert_int_equal(f.host.processes, 0);
	teardown();
}

/* The spawner answers when it comes to it; the connection may be over by then. */
static void a_reset_before_the_process_started_is_recorded_too(void **state)
{
	setup("exec:/bin/sleep 1000", 0);
	assert_int_equal(kill(spawner_pid(f.spawner), SIGSTOP), 0);
	assert_int_equal(open_session(0, -1), 0);
	assert_true(f.s[0].has_process);
	session_fini(&f.s[0], true);
	assert_int_equal(kill(spawner_pid(f.spawner), SIGCONT), 0);
	TURN_UNTIL(f.ended_serial);
	assert_true(f.ended_pid > 0);
	assert_int_equal(f.ended_status, -SIGHUP);
	teardown();
}

static void a_process_deaf_to_sighup_is_killed(void **state)
{
	setup("exec:/bin/sh -c 'trap \"\" HUP; echo; exec sleep 1000'", 0);
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(f.engine->conns[0].out_len == 1);
	session_fini(&f.s[0], true);
	TURN_UNTIL(f.ended_serial);
	assert_int_equal(f.ended_status, -SIGKILL);
	teardown();
}

static void a_process_may_outlive_a_connection_that_ended_well(void **state)
{
	setup("exec:/bin/sh -c 'exec >&-; cat >/dev/null; kill -USR1 $$'", 0);
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(f.engine->conns[0].closed);
	peer_closes(0);
	session_fini(&f.s[0], false);
	TURN_UNTIL(f.ended_serial);
	assert_int_equal(f.ended_status, -SIGUSR1); /* its own end, not SIGHUP */
	teardown();
}

static void a_program_that_cannot_be_started_resets(void **state)
{
	char path[] = "/tmp/test_exec_XXXXXX", text[64];
	const int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, 0755), 0);
	(void)close(fd);
	(void)snprintf(text, sizeof(text), "exec:%s", path);
	setup(text, 0);
	(void)unlink(path); /* it was there when the listener was made */
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(f.engine->conns[0].aborted);
	assert_int_equal(f.engine->conns[0].abort_reason, END_RESET_BY_SERVICE);
	assert_int_equal(f.host.refused, 1);
	assert_int_equal(f.host.processes, 0);
	teardown();
}

static void max_processes_is_a_limit(void **state)
{
	setup("exec:/bin/cat", 2);
	assert_int_equal(open_session(0, -1), 0);
	assert_int_equal(open_session(1, -1), 0);
	assert_int_equal(open_session(2, -1), -EAGAIN);
	session_fini(&f.s[2], true);
	peer_closes(0);
	TURN_UNTIL(f.host.processes == 1);
	assert_int_equal(open_session(3, -1), 0);
	teardown();
}

/* Runs a program to its end; what it said. */
static const char *run(const char *text, const struct service_options *options)
{
	static char said[4096];

	setup_with(text, options);
	assert_int_equal(open_session(0, -1), 0);
	peer_closes(0);
	TURN_UNTIL(f.engine->conns[0].closed || f.engine->conns[0].aborted);
	assert_true(f.engine->conns[0].out_len < sizeof(said));
	memcpy(said, f.engine->conns[0].out, f.engine->conns[0].out_len);
	said[f.engine->conns[0].out_len] = 0;
	teardown();
	return said;
}

static void percent_signs_stand_for_addresses(void **state)
{
	assert_string_equal(run("exec:/bin/echo %r:%R-%l:%L '100%%' x%cx", NULL),
			    "10.0.0.1:40000-10.0.0.2:80 100% x100x\n");
}

/* Thousands of addresses do not fit: refused, not cut. */
static void arguments_that_grow_too_long_are_refused(void **state)
{
	char text[6000] = "exec:/bin/echo ";

	for (unsigned i = 0; i < 1500; i++)
		strcat(text, "%r");
	setup(text, 0);
	assert_int_equal(open_session(0, -1), -E2BIG);
	assert_int_equal(f.host.processes, 0);
	teardown();
}

static void the_environment_is_clean_and_the_listeners_counts_first(void **state)
{
	const struct service_options options = { .environment = "A=1 'B=two words' PATH=/bin",
						 .user = "somebody",
						 .home = "/home/somebody" };

	assert_int_equal(setenv("SECRET", "x", 1), 0);
	assert_string_equal(
		run("exec:/usr/bin/env", &options),
		"A=1\nB=two words\nPATH=/bin\nPROTO=TCP\nTCPREMOTEIP=10.0.0.1\n"
		"TCPREMOTEPORT=40000\nTCPLOCALIP=10.0.0.2\nTCPLOCALPORT=80\n"
		"REMOTE_ADDR=10.0.0.1\nREMOTE_PORT=40000\nLOCAL_ADDR=10.0.0.2\n"
		"LOCAL_PORT=80\nTCPFSM_CONNECTION=100\nUSER=somebody\nLOGNAME=somebody\n"
		"HOME=/home/somebody\n");
}

static void an_environment_that_is_none_is_refused(void **state)
{
	static const char *const wrong[] = { "A", "=1", "1A=1", "A-B=1", "A=1 'B=2" };

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct service_options options = { 0 };
		struct errmsg err;

		(void)snprintf(options.environment, sizeof(options.environment), "%s", wrong[i]);
		assert_int_equal(service_check("exec:/bin/cat", &options, &err), -EINVAL);
		assert_non_null(strstr(err.text, "Environment="));
	}
}

static void limits_and_directory_are_the_processes(void **state)
{
	const struct service_options options = { .setup = { .limits = { [SPAWN_CPU] = 7,
									[SPAWN_AS] = 1 << 30,
									[SPAWN_NOFILE] = 33,
									[SPAWN_FSIZE] = 1 << 20,
									[SPAWN_NPROC] = 500 },
							    .directory = "/usr/bin" } };

	assert_string_equal(
		run("exec:/bin/sh -c 'pwd; ulimit -t; ulimit -Ht; ulimit -v; ulimit -n; ulimit -f; "
		    "ulimit -p'",
		    &options),
		"/usr/bin\n7\n8\n1048576\n33\n2048\n500\n");
}

static void a_directory_that_is_missing_fails_the_process(void **state)
{
	const struct service_options options = { .setup.directory = "/nowhere/at/all" };

	setup_with("exec:/bin/cat", &options);
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(f.engine->conns[0].aborted);
	assert_int_equal(f.spawn_error, ENOENT);
	assert_int_equal(f.host.refused, 1);
	teardown();
}

/* With its groups, without capabilities, and it can still be ended. */
static void another_user(void **state)
{
	const struct service_options options = {
		.kill_after_us = SERVICE_KILL_AFTER_US,
		.setup = { .switch_user = true,
			   .uid = 65534,
			   .gid = 65534,
			   .groups_n = 2,
			   .groups = { 65534, 12345 } },
	};

	if (geteuid())
		skip();
	assert_string_equal(
		run("exec:/bin/sh -c 'id -u; id -g; id -G; "
		    "grep -c \"^Cap\\(Inh\\|Prm\\|Eff\\|Amb\\):.0*$\" /proc/self/status'",
		    &options),
		"65534\n65534\n65534 12345\n4\n");
	setup_with("exec:/bin/sleep 1000", &options);
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(f.s[0].pid);
	session_fini(&f.s[0], true);
	TURN_UNTIL(f.host.processes == 0);
	teardown();
}

static void processes_of_a_peer_are_a_limit(void **state)
{
	const struct service_options options = { .max_processes_per_peer = 2,
						 .kill_after_us = SERVICE_KILL_AFTER_US };

	setup_with("exec:/bin/cat", &options);
	assert_int_equal(open_session(0, -1), 0);
	assert_int_equal(open_session(1, -1), 0);
	assert_int_equal(open_session(2, -1), -EAGAIN);
	session_fini(&f.s[2], true);
	assert_int_equal(f.host.peers_refused, 1);
	f.peer = 9;
	assert_int_equal(open_session(3, -1), 0);
	f.peer = 0;
	/* It counts until its process has ended, not only its connection. */
	session_fini(&f.s[0], true);
	assert_int_equal(open_session(4, -1), -EAGAIN);
	session_fini(&f.s[4], true);
	TURN_UNTIL(f.host.processes == 2);
	assert_int_equal(open_session(5, -1), 0);
	teardown();
}

static void connections_of_a_peer_are_a_limit_of_any_service(void **state)
{
	const struct service_options options = { .max_connections_per_peer = 2 };

	setup_with("echo", &options);
	assert_int_equal(open_session(0, -1), 0);
	assert_int_equal(open_session(1, -1), 0);
	assert_int_equal(open_session(2, -1), -EAGAIN);
	f.peer = 9;
	assert_int_equal(open_session(3, -1), 0);
	f.peer = 0;
	session_fini(&f.s[2], true);
	assert_int_equal(open_session(4, -1), -EAGAIN);
	session_fini(&f.s[4], true);
	session_fini(&f.s[0], false);
	assert_int_equal(open_session(5, -1), 0);
	assert_int_equal(f.host.peers_refused, 2);
	teardown();
}

/* SIGTERM, and what the process says to that still arrives: FIN, though a signal ended it. */
static void a_stop_lets_processes_end_in_order(void **state)
{
	setup("exec:/bin/sh -c 'trap \"echo bye; trap - TERM; kill -TERM \\$\\$\" TERM; echo up; "
	      "while :; do read x; done'",
	      0);
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(f.engine->conns[0].out_len == 3);
	assert_true(session_stop(&f.s[0]));
	arrive(0, "\n", 1);
	TURN_UNTIL(f.engine->conns[0].closed);
	output_is(0, "up\nbye\n");
	assert_false(f.engine->conns[0].aborted);
	teardown();
}

static void who_does_not_end_is_killed(void **state)
{
	const struct service_options options = { .kill_after_us = 20000 };

	for (int stop = 0; stop < 2; stop++) {
		setup_with("exec:/bin/sh -c 'trap \"\" HUP TERM; echo up; exec sleep 1000'",
			   &options);
		assert_int_equal(open_session(0, -1), 0);
		TURN_UNTIL(f.engine->conns[0].out_len == 3);
		if (stop)
			assert_true(session_stop(&f.s[0]));
		else
			session_fini(&f.s[0], true);
		TURN_UNTIL(f.host.processes == 0);
		teardown();
	}
}

static void many_at_once(void **state)
{
	unsigned done = 0;

	setup("exec:/bin/cat", 0);
	for (unsigned i = 0; i < FAKE_CONNS; i++) {
		assert_int_equal(open_session(i, -1), 0);
		arrive(i, "hello", 5);
		peer_closes(i);
	}
	for (unsigned i = 0; i < FAKE_CONNS; i++) {
		TURN_UNTIL(f.engine->conns[i].closed);
		output_is(i, "hello");
		done++;
	}
	assert_int_equal(done, FAKE_CONNS);
	TURN_UNTIL(f.host.processes == 0);
	teardown();
}

static void without_the_spawner_exec_is_refused(void **state)
{
	setup("exec:/bin/cat", 0);
	assert_int_equal(open_session(0, -1), 0);
	TURN_UNTIL(f.s[0].pid);
	assert_int_equal(kill(spawner_pid(f.spawner), SIGKILL), 0);
	TURN_UNTIL(f.lost);
	assert_int_equal(f.lost, 1);
	assert_true(f.engine->conns[0].aborted);
	assert_int_equal(f.host.processes, 0);
	assert_int_equal(open_session(1, -1), -EPIPE);
	teardown();
}

/* The example that is shipped: its Content-Length is right, and its body tells who asked. */
static void http_hello_answers(void **state)
{
	const char *body, *length;

	setup("exec:" HTTP_HELLO, 0);
	assert_int_equal(open_session(0, -1), 0);
	arrive(0, "GET /x HTTP/1.1\r\nHost: a\r\n", 27);
	arrive(0, "\r\n", 2);
	TURN_UNTIL(f.engine->conns[0].closed);
	f.engine->conns[0].out[f.engine->conns[0].out_len] = 0;
	assert_memory_equal(f.engine->conns[0].out, "HTTP/1.0 200 OK\r\n", 17);
	length = strstr((const char *)f.engine->conns[0].out, "Content-Length: ");
	body = strstr((const char *)f.engine->conns[0].out, "\r\n\r\n");
	assert_non_null(length);
	assert_non_null(body);
	assert_int_equal(atoi(length + 16), strlen(body + 4));
	assert_non_null(strstr(body, "10.0.0.1"));
	assert_non_null(strstr(body, "/x"));
	teardown();
}

static void stream_pair(int *ret_ours)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
			 0);
	*ret_ours = fds[0];
	assert_int_equal(open_session(0, fds[1]), 0);
}

static void stream_carries_octets_and_half_closes(void **state)
{
	char buf[64];
	int fd;

	setup(NULL, 0);
	fake_arrive(f.engine, 0, "early", 5);
	stream_pair(&fd);
	arrive(0, " bird", 5);
	assert_int_equal(read(fd, buf, sizeof(buf)), 10);
	assert_memory_equal(buf, "early bird", 10);
	assert_int_equal(write(fd, "answer", 6), 6);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	TURN_UNTIL(f.engine->conns[0].closed);
	output_is(0, "answer");
	session_ready(&f.s[0], REPORT_ALL_ACKED);
	assert_false(f.engine->conns[0].stopped_reading);
	arrive(0, "more", 4);
	assert_int_equal(read(fd, buf, sizeof(buf)), 4);
	assert_int_equal(read(fd, buf, sizeof(buf)), -1);
	assert_int_equal(errno, EAGAIN);
	peer_closes(0);
	assert_int_equal(read(fd, buf, sizeof(buf)), 0);
	(void)close(fd);
	teardown();
}

static void stream_has_back_pressure_both_ways(void **state)
{
	static uint8_t text[FAKE_QUEUE], back[FAKE_QUEUE];
	struct fake_conn *c;
	size_t got = 0, put = 0;
	int fd;

	for (unsigned i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)(i * 13 + i / 256);
	setup(NULL, 0);
	c = &f.engine->conns[0];
	c->room = 5000;
	stream_pair(&fd);
	arrive(0, text, sizeof(text));
	assert_true(c->in_len > 0); /* the socket is full */
	while (got < sizeof(back)) {
		const ssize_t n = read(fd, back + got, sizeof(back) - got);

		if (n > 0)
			got += (size_t)n;
		else
			(void)event_base_loop(f.host.base, EVLOOP_ONCE);
	}
	assert_int_equal(c->in_len, 0);
	assert_memory_equal(text, back, sizeof(text));
	while (put < 300000) {
		const ssize_t n = write(fd, text + put, 300000 - put);

		if (n > 0)
			put += (size_t)n;
		if (c->wants_room) {
			c->room = 7000;
			session_ready(&f.s[0], REPORT_WRITABLE);
		}
		(void)event_base_loop(f.host.base, EVLOOP_NONBLOCK);
	}
	(void)close(fd);
	while (!c->closed) {
		if (c->wants_room) {
			c->room = 7000;
			session_ready(&f.s[0], REPORT_WRITABLE);
		}
		(void)event_base_loop(f.host.base, EVLOOP_NONBLOCK);
	}
	assert_int_equal(c->out_len, 300000);
	assert_memory_equal(c->out, text, 300000);
	teardown();
}

static void stream_whose_holder_is_gone_is_sunk(void **state)
{
	int fd;

	setup(NULL, 0);
	stream_pair(&fd);
	(void)close(fd);
	TURN_UNTIL(f.engine->conns[0].closed);
	assert_ptr_equal(f.s[0].ops, &service_sink);
	session_ready(&f.s[0], REPORT_ALL_ACKED);
	assert_true(f.engine->conns[0].stopped_reading);
	teardown();
}

static void stream_whose_holder_goes_after_its_end_of_file_is_sunk(void **state)
{
	int fd;

	setup(NULL, 0);
	stream_pair(&fd);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	TURN_UNTIL(f.engine->conns[0].closed);
	session_ready(&f.s[0], REPORT_ALL_ACKED);
	assert_false(f.engine->conns[0].stopped_reading);
	(void)close(fd);
	TURN_UNTIL(f.engine->conns[0].stopped_reading);
	teardown();
}

static void stream_ends_for_its_holder_with_the_connection(void **state)
{
	char c;
	int fd;

	setup(NULL, 0);
	stream_pair(&fd);
	session_fini(&f.s[0], true);
	assert_int_equal(read(fd, &c, 1), 0);
	(void)close(fd);
	teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(input_and_output_are_the_connection),
		cmocka_unit_test(the_environment_tells_who_is_connected),
		cmocka_unit_test(any_exit_status_closes_after_the_output),
		cmocka_unit_test(death_by_signal_resets),
		cmocka_unit_test(closing_its_output_is_half_a_close),
		cmocka_unit_test(a_process_that_does_not_read_closes_the_window),
		cmocka_unit_test(a_peer_that_does_not_read_stops_the_process),
		cmocka_unit_test(a_process_that_closes_its_input_lets_the_rest_fall),
		cmocka_unit_test(a_reset_hangs_up_on_the_process),
		cmocka_unit_test(a_reset_before_the_process_started_is_recorded_too),
		cmocka_unit_test(a_process_deaf_to_sighup_is_killed),
		cmocka_unit_test(a_process_may_outlive_a_connection_that_ended_well),
		cmocka_unit_test(a_program_that_cannot_be_started_resets),
		cmocka_unit_test(max_processes_is_a_limit),
		cmocka_unit_test(percent_signs_stand_for_addresses),
		cmocka_unit_test(arguments_that_grow_too_long_are_refused),
		cmocka_unit_test(the_environment_is_clean_and_the_listeners_counts_first),
		cmocka_unit_test(an_environment_that_is_none_is_refused),
		cmocka_unit_test(limits_and_directory_are_the_processes),
		cmocka_unit_test(a_directory_that_is_missing_fails_the_process),
		cmocka_unit_test(another_user),
		cmocka_unit_test(processes_of_a_peer_are_a_limit),
		cmocka_unit_test(connections_of_a_peer_are_a_limit_of_any_service),
		cmocka_unit_test(a_stop_lets_processes_end_in_order),
		cmocka_unit_test(who_does_not_end_is_killed),
		cmocka_unit_test(many_at_once),
		cmocka_unit_test(without_the_spawner_exec_is_refused),
		cmocka_unit_test(http_hello_answers),
		cmocka_unit_test(stream_carries_octets_and_half_closes),
		cmocka_unit_test(stream_has_back_pressure_both_ways),
		cmocka_unit_test(stream_whose_holder_is_gone_is_sunk),
		cmocka_unit_test(stream_whose_holder_goes_after_its_end_of_file_is_sunk),
		cmocka_unit_test(stream_ends_for_its_holder_with_the_connection),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
