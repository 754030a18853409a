/* SPDX-License-Identifier: Apache-2.0 */
/* Running a program: its streams, its end, its limit. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "host/child.h"

static int run_shell(const char *script, const char *input, int limit_ms, struct child_result *r)
{
	char shell[] = "/bin/sh", c[] = "-c";
	char *text = strdup(script);
	char *argv[] = { shell, c, text, NULL };
	const int rc = child_run(argv, input, limit_ms, r);

	free(text);
	return rc;
}

static void streams_and_status_come_back(void **state)
{
	struct child_result r;

	assert_int_equal(run_shell("cat; echo bad >&2; exit 3", "in\nput", 10000, &r), 0);
	assert_int_equal(r.status, 3);
	assert_string_equal(r.out, "in\nput");
	assert_string_equal(r.err, "bad\n");
	child_result_fini(&r);
}

/* More than any pipe holds, in and out, with nobody pumping. */
static void a_megabyte_passes(void **state)
{
	const size_t n = 1 << 20;
	char *text = malloc(n + 1);
	struct child_result r;

	memset(text, 'x', n);
	text[n] = 0;
	assert_int_equal(run_shell("cat; cat >/dev/null", text, 10000, &r), 0);
	assert_string_equal(r.out, text);
	child_result_fini(&r);
	free(text);
}

static void death_by_a_signal_is_told(void **state)
{
	struct child_result r;

	assert_int_equal(run_shell("kill -9 $$", NULL, 10000, &r), 0);
	assert_int_equal(r.status, 128 + SIGKILL);
	child_result_fini(&r);
}

static void a_program_that_hangs_is_killed(void **state)
{
	const uint64_t start = clock_monotonic_us();
	struct child_result r;

	assert_int_equal(run_shell("exec sleep 60", NULL, 50, &r), -ETIME);
	assert_true(clock_monotonic_us() - start < 30000000);
}

static void no_descriptor_and_no_ignored_signal_is_inherited(void **state)
{
	struct child_result r;

	(void)signal(SIGPIPE, SIG_IGN);
	assert_int_equal(
		run_shell("ls /proc/self/fd | wc -l; echo $LC_ALL; kill -PIPE $$", NULL, 10000, &r),
		0);
	(void)signal(SIGPIPE, SIG_DFL);
	/* 0, 1, 2 and the one by which ls reads the directory; 1 is a pipe within the shell. */
	assert_string_equal(r.out, "4\nC\n");
	assert_int_equal(r.status, 128 + SIGPIPE);
	child_result_fini(&r);
}

static void a_program_that_is_not_there(void **state)
{
	char path[] = "/nonexistent/program";
	char *argv[] = { path, NULL };
	struct child_result r;

	assert_int_equal(child_run(argv, NULL, 1000, &r), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(streams_and_status_come_back),
		cmocka_unit_test(a_megabyte_passes),
		cmocka_unit_test(death_by_a_signal_is_told),
		cmocka_unit_test(a_program_that_hangs_is_killed),
		cmocka_unit_test(no_descriptor_and_no_ignored_signal_is_inherited),
		cmocka_unit_test(a_program_that_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
