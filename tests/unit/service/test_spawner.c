/* SPDX-License-Identifier: Apache-2.0 */
/* The spawner, its children, and that nothing leaks into them. No root needed. */
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "service/spawner.h"

enum { WAIT_MS = 60000 };

struct fixture {
	struct spawner *spawner;
	struct spawner_channel *channel;
	int to, from; /* the process's standard input and output, our ends */
};

static void setup(struct fixture *f)
{
	struct errmsg err = { 0 };

	f->to = f->from = -1;
	if (spawner_start(&f->spawner, &err) || spawner_channel_new(f->spawner, &f->channel, &err))
		fail_msg("%s", err.text);
}

static void close_mine(int *fd)
{
	if (*fd >= 0)
		assert_int_equal(close(*fd), 0);
	*fd = -1;
}

static void teardown(struct fixture *f)
{
	close_mine(&f->to);
	close_mine(&f->from);
	spawner_channel_free(f->channel);
	spawner_free(f->spawner);
}

static void start(struct fixture *f, uint64_t token, const char *const *argv)
{
	const char *const envp[] = { "PATH=/bin:/usr/bin", "SAMPLE=value", NULL };
	int in[2], out[2];

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	f->to = in[1];
	f->from = out[0];
	assert_int_equal(spawner_spawn(f->channel, &(struct spawn_job){ .token = token,
									.argv = argv,
									.envp = envp,
									.in = in[0],
									.out = out[1] }),
			 0);
}

static struct spawn_event next(struct fixture *f)
{
	struct pollfd p = { .fd = spawner_channel_fd(f->channel), .events = POLLIN };
	struct spawn_event event;
	int rc;

	while (!(rc = spawner_next(f->channel, &event)))
		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(rc, 1);
	return event;
}

static struct spawn_event next_of(struct fixture *f, enum spawn_event_kind kind, uint64_t token)
{
	const struct spawn_event event = next(f);

	assert_int_equal(event.kind, kind);
	assert_int_equal(event.token, token);
	return event;
}

/* All that the process writes, as a string. */
static const char *read_all(struct fixture *f, char *buf, size_t size)
{
	size_t n = 0;
	ssize_t got;

	while (n < size - 1 && (got = read(f->from, buf + n, size - 1 - n)) > 0)
		n += (size_t)got;
	buf[n] = 0;
	close_mine(&f->from);
	return buf;
}

static const char *run(struct fixture *f, const char *script, char *buf, size_t size)
{
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };
	struct spawn_event event;

	start(f, 1, argv);
	close_mine(&f->to);
	(void)next_of(f, SPAWN_STARTED, 1);
	(void)read_all(f, buf, size);
	event = next_of(f, SPAWN_ENDED, 1);
	assert_int_equal(event.status, 0);
	return buf;
}

static void a_process_reads_writes_and_exits(void **state)
{
	const char *const argv[] = { "/bin/sh", "-c", "cat; exit 5", NULL };
	struct fixture f;
	struct spawn_event event;
	char buf[64];

	setup(&f);
	start(&f, 42, argv);
	event = next_of(&f, SPAWN_STARTED, 42);
	assert_true(event.pid > 0);
	assert_int_equal(write(f.to, "hello", 5), 5);
	assert_int_equal(read(f.from, buf, sizeof(buf)), 5);
	close_mine(&f.to);
	assert_int_equal(read(f.from, buf, sizeof(buf)), 0);
	event = next_of(&f, SPAWN_ENDED, 42);
	assert_int_equal(event.status, 5);
	assert_true(event.run_us > 0);
	assert_true(event.run_us < WAIT_MS * 1000ULL);
	teardown(&f);
}

static void death_by_signal_is_told(void **state)
{
	const char *const argv[] = { "/bin/sh", "-c", "kill -SEGV $$", NULL };
	struct fixture f;

	setup(&f);
	start(&f, 1, argv);
	(void)next_of(&f, SPAWN_STARTED, 1);
	assert_int_equal(next_of(&f, SPAWN_ENDED, 1).status, -SIGSEGV);
	teardown(&f);
}

static void a_program_that_is_missing_fails_with_its_errno(void **state)
{
	const char *const argv[] = { "/nowhere/at/all", NULL };
	struct fixture f;
	char c;

	setup(&f);
	start(&f, 9, argv);
	assert_int_equal(next_of(&f, SPAWN_FAILED, 9).error, ENOENT);
	assert_int_equal(read(f.from, &c, 1), 0); /* its end is closed */
	teardown(&f);
}

static void nothing_leaks_into_the_process(void **state)
{
	struct fixture f;
	char buf[4096];
	int extra;

	extra = open("/dev/null", O_RDONLY); /* without close-on-exec, before and after the fork */
	assert_true(extra >= 0);
	setup(&f);
	assert_true(dup(extra) >= 0);
	/* A glob opens the directory for itself: the highest number is the shell's own. */
	assert_string_equal(
		run(&f, "for i in /proc/self/fd/*; do [ -e $i ] && echo ${i##*/}; done; true", buf,
		    sizeof(buf)),
		"0\n1\n2\n");
	(void)run(&f,
		  "grep -E '^(Cap...|NoNewPrivs|SigBlk|SigIgn):' /proc/self/status | tr -d '\\t'",
		  buf, sizeof(buf));
	assert_non_null(strstr(buf, "CapInh:0000000000000000\n"));
	assert_non_null(strstr(buf, "CapPrm:0000000000000000\n"));
	assert_non_null(strstr(buf, "CapEff:0000000000000000\n"));
	assert_non_null(strstr(buf, "CapAmb:0000000000000000\n"));
	if (!geteuid())
		assert_non_null(strstr(buf, "CapBnd:0000000000000000\n"));
	assert_non_null(strstr(buf, "NoNewPrivs:1\n"));
	assert_non_null(strstr(buf, "SigBlk:0000000000000000\n"));
	assert_non_null(strstr(buf, "SigIgn:0000000000000000\n"));
	assert_string_equal(run(&f,
				"pwd; echo $SAMPLE; env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e "
				"^OLDPWD= | sort",
				buf, sizeof(buf)),
			    "/\nvalue\nPATH=/bin:/usr/bin\nSAMPLE=value\n");
	/* A session and process group of its own: field 5 and 6 of stat are its pid. */
	(void)run(&f,
		  "read -r pid n s pp pg sid rest </proc/self/stat; [ $pg = $pid ] && [ $sid = "
		  "$pid ] && echo own",
		  buf, sizeof(buf));
	assert_string_equal(buf, "own\n");
	(void)close(extra);
	teardown(&f);
}

static void a_signal_reaches_the_group(void **state)
{
	const char *const argv[] = { "/bin/sh", "-c", "exec 3<&0; cat <&3 & echo; wait", NULL };
	struct fixture f;
	char buf[16];

	setup(&f);
	start(&f, 1, argv);
	(void)next_of(&f, SPAWN_STARTED, 1);
	assert_int_equal(read(f.from, buf, 1), 1);
	assert_int_equal(spawner_signal(f.channel, 1, SIGKILL), 0);
	assert_int_equal(next_of(&f, SPAWN_ENDED, 1).status, -SIGKILL);
	/* cat held the output too: end of file says that it is gone as well. */
	assert_string_equal(read_all(&f, buf, sizeof(buf)), "");
	assert_int_equal(spawner_signal(f.channel, 1, SIGKILL), 0); /* nobody: nothing */
	teardown(&f);
}

static void probe_tells_a_closed_output_from_the_end(void **state)
{
	const char *const lives[] = { "/bin/sh", "-c", "exec >&-; read x", NULL };
	const char *const dies[] = { "/bin/sh", "-c", "read x; kill -TERM $$", NULL };
	struct fixture f;
	char buf[16];

	setup(&f);
	start(&f, 1, lives);
	(void)next_of(&f, SPAWN_STARTED, 1);
	assert_string_equal(read_all(&f, buf, sizeof(buf)), "");
	assert_int_equal(spawner_probe(f.channel, 1), 0);
	(void)next_of(&f, SPAWN_ALIVE, 1);
	close_mine(&f.to);
	(void)next_of(&f, SPAWN_ENDED, 1);

	for (uint64_t i = 2; i < 42; i++) {
		start(&f, i, dies);
		(void)next_of(&f, SPAWN_STARTED, i);
		close_mine(&f.to);
		assert_string_equal(read_all(&f, buf, sizeof(buf)), "");
		assert_int_equal(spawner_probe(f.channel, i), 0);
		assert_int_equal(next_of(&f, SPAWN_ENDED, i).status, -SIGTERM); /* never ALIVE */
	}
	teardown(&f);
}

/* A process's output is at its end when nobody holds it: it and its children are gone. */
static void wait_for_end(struct fixture *f)
{
	struct pollfd p = { .fd = f->from, .events = POLLIN };
	char c;

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(read(f->from, &c, 1), 0);
}

static void a_channel_takes_its_processes_with_it(void **state)
{
	const char *const argv[] = { "/bin/sleep", "1000", NULL };
	struct fixture f;
	struct errmsg err;

	setup(&f);
	start(&f, 1, argv);
	(void)next_of(&f, SPAWN_STARTED, 1);
	spawner_channel_free(f.channel);
	wait_for_end(&f);
	close_mine(&f.to);
	close_mine(&f.from);
	assert_int_equal(spawner_channel_new(f.spawner, &f.channel, &err), 0); /* it works on */
	start(&f, 1, argv);
	(void)next_of(&f, SPAWN_STARTED, 1);
	teardown(&f);
}

static void the_end_of_the_daemon_is_the_end_of_all(void **state)
{
	const char *const argv[] = { "/bin/sh", "-c", "trap '' TERM HUP; sleep 1000", NULL };
	struct fixture f;
	struct spawn_event event;

	setup(&f);
	start(&f, 1, argv);
	(void)next_of(&f, SPAWN_STARTED, 1);
	spawner_free(f.spawner);
	f.spawner = NULL;
	wait_for_end(&f);
	while (spawner_next(f.channel, &event) == 1)
		;
	assert_int_equal(spawner_next(f.channel, &event), -EPIPE);
	teardown(&f);
}

static void the_death_of_the_spawner_is_noticed(void **state)
{
	const char *const argv[] = { "/bin/sleep", "1000", NULL };
	struct pollfd p;
	struct fixture f;
	struct spawn_event event;

	setup(&f);
	start(&f, 1, argv);
	(void)next_of(&f, SPAWN_STARTED, 1);
	assert_int_equal(kill(spawner_pid(f.spawner), SIGKILL), 0);
	wait_for_end(&f); /* the process died with it */
	p = (struct pollfd){ .fd = spawner_channel_fd(f.channel), .events = POLLIN };
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_int_equal(spawner_next(f.channel, &event), -EPIPE);
	close_mine(&f.to);
	close_mine(&f.from);
	assert_int_equal(spawner_signal(f.channel, 1, SIGHUP), -EPIPE);
	teardown(&f);
}

/* With the spawner stopped the socket fills; what is asked then waits, in order, and is limited. */
static void requests_wait_when_the_spawner_is_slow(void **state)
{
	const char *const argv[] = { "/bin/cat", NULL };
	struct fixture f;
	unsigned asked = 0;
	int rc;

	setup(&f);
	assert_int_equal(kill(spawner_pid(f.spawner), SIGSTOP), 0);
	start(&f, 1, argv);
	while (!spawner_wants_write(f.channel) && asked++ < 100000)
		assert_int_equal(spawner_signal(f.channel, 77, 0), 0);
	assert_true(spawner_wants_write(f.channel));
	while (!(rc = spawner_signal(f.channel, 77, 0)))
		assert_true(asked++ < 200000);
	assert_int_equal(rc, -EAGAIN);
	assert_int_equal(kill(spawner_pid(f.spawner), SIGCONT), 0);
	while (spawner_wants_write(f.channel)) {
		struct pollfd p = { .fd = spawner_channel_fd(f.channel), .events = POLLOUT };

		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		assert_int_equal(spawner_flush(f.channel), 0);
	}
	(void)next_of(&f, SPAWN_STARTED, 1);
	assert_int_equal(spawner_signal(f.channel, 1, SIGTERM), 0);
	assert_int_equal(next_of(&f, SPAWN_ENDED, 1).status, -SIGTERM);
	teardown(&f);
}

static void arguments_have_a_limit(void **state)
{
	static char big[SPAWN_TEXT_MAX + 1];
	const char *const argv[] = { "/bin/cat", big, NULL };
	const char *const envp[] = { NULL };
	struct fixture f;
	int fds[2];

	memset(big, 'x', sizeof(big) - 1);
	setup(&f);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(spawner_spawn(f.channel, &(struct spawn_job){ .token = 1,
								       .argv = argv,
								       .envp = envp,
								       .in = fds[0],
								       .out = fds[1] }),
			 -E2BIG);
	assert_int_equal(fcntl(fds[0], F_GETFD), -1); /* given away, also on failure */
	assert_int_equal(fcntl(fds[1], F_GETFD), -1);
	teardown(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_process_reads_writes_and_exits),
		cmocka_unit_test(death_by_signal_is_told),
		cmocka_unit_test(a_program_that_is_missing_fails_with_its_errno),
		cmocka_unit_test(nothing_leaks_into_the_process),
		cmocka_unit_test(a_signal_reaches_the_group),
		cmocka_unit_test(probe_tells_a_closed_output_from_the_end),
		cmocka_unit_test(a_channel_takes_its_processes_with_it),
		cmocka_unit_test(the_end_of_the_daemon_is_the_end_of_all),
		cmocka_unit_test(the_death_of_the_spawner_is_noticed),
		cmocka_unit_test(requests_wait_when_the_spawner_is_slow),
		cmocka_unit_test(arguments_have_a_limit),
	};

	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
