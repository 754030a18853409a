/* SPDX-License-Identifier: Apache-2.0 */
/* What the start is made of: the command line, the directories and their lock, systemd's messages. */
#include <errno.h>
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
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"
#include "control/args.h"
#include "control/notify.h"
#include "control/paths.h"

/* ---- arguments ---- */

enum { WORDS_MAX = 8 };

/* Parses words up to NULL. They must outlive the result. */
static int parse(struct args *args, struct errmsg *err, const char *const words[WORDS_MAX])
{
	static char copies[WORDS_MAX][128];
	char *argv[WORDS_MAX + 2] = { NULL };
	static char name[] = "tcpfsmd";
	int argc = 0;

	argv[argc++] = name;
	for (int i = 0; words[i]; i++) {
		(void)snprintf(copies[i], sizeof(copies[i]), "%s", words[i]);
		argv[argc++] = copies[i];
	}
	return args_parse(argc, argv, args, err);
}

#define WORDS(...) ((const char *const[WORDS_MAX]){ __VA_ARGS__ })

static void test_arguments(void **state)
{
	struct errmsg err;
	struct args a;

	(void)state;
	assert_int_equal(parse(&a, &err, WORDS(NULL)), 0);
	assert_int_equal(a.action, ARGS_RUN);
	assert_null(a.config_file);
	assert_int_equal(
		parse(&a, &err,
		      WORDS("-c", "x.conf", "-oTcp.MSL=5s", "-o", "Listener.e.Service=echo")),
		0);
	assert_string_equal(a.config_file, "x.conf");
	assert_int_equal(a.overrides_n, 2);
	assert_string_equal(a.overrides[0], "Tcp.MSL=5s");
	assert_string_equal(a.overrides[1], "Listener.e.Service=echo");
	assert_int_equal(parse(&a, &err, WORDS("--check", "--config=y")), 0);
	assert_int_equal(a.action, ARGS_CHECK);
	assert_int_equal(parse(&a, &err, WORDS("--print-config")), 0);
	assert_int_equal(a.action, ARGS_PRINT_CONFIG);
	assert_int_equal(parse(&a, &err, WORDS("--cleanup")), 0);
	assert_int_equal(a.action, ARGS_CLEANUP);
	assert_int_equal(parse(&a, &err, WORDS("-V")), 0);
	assert_int_equal(a.action, ARGS_VERSION);
	assert_int_equal(parse(&a, &err, WORDS("-h")), 0);
	assert_int_equal(a.action, ARGS_HELP);
}

static void test_wrong_arguments_are_named(void **state)
{
	static const struct {
		const char *words[WORDS_MAX];
		const char *named;
	} cases[] = {
		{ { "--no-such-option" }, "--no-such-option" },
		{ { "-x" }, "-x" },
		{ { "-c" }, "-c" },
		{ { "start" }, "start" },
		{ { "-o", "MSL=5s" }, "MSL=5s" },
		{ { "-o", "Tcp.MSL" }, "Tcp.MSL" },
		{ { "-o", "Tcp.=5s" }, "Tcp.=5s" },
		{ { "--check", "--cleanup" }, "only one" },
	};
	struct errmsg err;
	struct args a;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(parse(&a, &err, cases[i].words), -EINVAL);
		if (!strstr(err.text, cases[i].named))
			fail_msg("no \"%s\" in \"%s\"", cases[i].named, err.text);
	}
}

/* ---- directories ---- */

static char base[64];

static int setup(void **state)
{
	(void)state;
	(void)strcpy(base, "/tmp/tcpfsm-start.XXXXXX");
	return mkdtemp(base) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	(void)unsetenv("RUNTIME_DIRECTORY");
	(void)unsetenv("STATE_DIRECTORY");
	(void)unsetenv("NOTIFY_SOCKET");
	(void)unsetenv("WATCHDOG_USEC");
	(void)unsetenv("WATCHDOG_PID");
	return rmdir(base); /* fails when something was left */
}

static void set_directories(const char *runtime, const char *state)
{
	char text[512];

	(void)snprintf(text, sizeof(text), "%s/%s", base, runtime);
	assert_int_equal(setenv("RUNTIME_DIRECTORY", text, 1), 0);
	(void)snprintf(text, sizeof(text), "%s/%s", base, state);
	assert_int_equal(setenv("STATE_DIRECTORY", text, 1), 0);
}

static void test_directories(void **state)
{
	struct errmsg err;
	struct paths p;
	struct stat st;

	(void)state;
	assert_int_equal(paths_init(&p, &err), 0);
	assert_string_equal(p.runtime, "/run/tcpfsmd");
	assert_string_equal(p.state, "/var/lib/tcpfsmd");
	set_directories("run:/run/other", "state");
	assert_int_equal(paths_init(&p, &err), 0);
	assert_non_null(strstr(p.runtime, "/run"));
	assert_null(strchr(p.runtime, ':'));
	assert_int_equal(paths_make_runtime(&p, &err), 0);
	assert_int_equal(paths_make_state(&p, &err), 0);
	assert_int_equal(stat(p.runtime, &st), 0);
	assert_int_equal(paths_lock(&p, &err), 0);
	paths_fini(&p);
	assert_int_equal(stat(p.runtime, &st), -1); /* made by us, empty: gone */
	paths_fini(&p);
}

static void test_directories_that_cannot_be(void **state)
{
	char longest[200];
	struct errmsg err;
	struct paths p;

	(void)state;
	set_directories("no/such/parent", "state");
	assert_int_equal(paths_init(&p, &err), 0);
	assert_int_equal(paths_make_runtime(&p, &err), -ENOENT);
	assert_non_null(strstr(err.text, "no/such/parent"));
	assert_int_equal(setenv("RUNTIME_DIRECTORY", "/etc/passwd", 1), 0);
	assert_int_equal(paths_init(&p, &err), 0);
	assert_int_equal(paths_make_runtime(&p, &err), -ENOTDIR);
	assert_int_equal(setenv("RUNTIME_DIRECTORY", "/run/a\" -j ACCEPT", 1), 0);
	assert_int_equal(paths_init(&p, &err), -EINVAL);
	memset(longest, 'x', sizeof(longest) - 1);
	longest[0] = '/';
	longest[sizeof(longest) - 1] = 0;
	assert_int_equal(setenv("RUNTIME_DIRECTORY", longest, 1), 0);
	assert_int_equal(paths_init(&p, &err), -EINVAL);
}

/* A second daemon is another process; and it is told who the first is. */
static void test_lock_is_exclusive(void **state)
{
	char pid[32];
	struct errmsg err;
	struct paths p, second;
	pid_t child;
	int status;

	(void)state;
	set_directories("run", "state");
	assert_int_equal(paths_init(&p, &err), 0);
	assert_int_equal(paths_make_runtime(&p, &err), 0);
	assert_int_equal(paths_lock(&p, &err), 0);
	(void)snprintf(pid, sizeof(pid), "(pid %ld)", (long)getpid());
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		if (paths_init(&second, &err) || paths_make_runtime(&second, &err))
			_exit(1);
		if (paths_lock(&second, &err) != -EBUSY || !strstr(err.text, pid) ||
		    !strstr(err.text, second.runtime))
			_exit(2);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	paths_fini(&p);
	/* Free again. */
	assert_int_equal(paths_init(&p, &err), 0);
	assert_int_equal(paths_make_runtime(&p, &err), 0);
	assert_int_equal(paths_lock(&p, &err), 0);
	paths_fini(&p);
}

/* ---- systemd ---- */

static int notify_socket(const struct sockaddr_un *address, socklen_t len)
{
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (const struct sockaddr *)address, len), 0);
	return fd;
}

static void test_notify(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char text[128], name[64];
	socklen_t len;
	int fd;

	(void)state;
	assert_int_equal(notify_send("READY=1"), 0); /* nobody asked */
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", base);
	fd = notify_socket(&address, sizeof(address));
	assert_int_equal(setenv("NOTIFY_SOCKET", address.sun_path, 1), 0);
	assert_int_equal(notify_send("READY=1\nSTATUS=%d listeners", 3), 0);
	memset(text, 0, sizeof(text));
	assert_true(recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT) > 0);
	assert_string_equal(text, "READY=1\nSTATUS=3 listeners");
	(void)close(fd);
	(void)unlink(address.sun_path);
	assert_int_equal(notify_send("READY=1"), -ENOENT);

	memset(address.sun_path, 0, sizeof(address.sun_path));
	(void)snprintf(name, sizeof(name), "@tcpfsm-notify-%ld", (long)getpid());
	memcpy(address.sun_path + 1, name + 1, strlen(name) - 1);
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
	fd = notify_socket(&address, len);
	assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
	assert_int_equal(notify_send("STOPPING=1"), 0);
	assert_int_equal(recv(fd, text, sizeof(text), MSG_DONTWAIT), 10);
	(void)close(fd);
	assert_int_equal(setenv("NOTIFY_SOCKET", "relative", 1), 0);
	assert_int_equal(notify_send("READY=1"), -EINVAL);
}

/* A systemd that does not read must not stop us; it learns the last of our states when it reads again. */
static void test_notify_never_waits(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char text[128] = "";
	unsigned n = 0;
	ssize_t got;
	int fd;

	(void)state;
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/full", base);
	fd = notify_socket(&address, sizeof(address));
	assert_int_equal(setenv("NOTIFY_SOCKET", address.sun_path, 1), 0);
	while (n < 100000 && notify_send("STATUS=%u", n) == 0)
		n++;
	assert_in_range(n, 1, 99999);
	assert_int_equal(notify_send("RELOADING=1"), -EAGAIN);
	assert_int_equal(notify_send("READY=1"), -EAGAIN);
	assert_int_equal(notify_send("WATCHDOG=1"), -EAGAIN);
	notify_late();
	while ((got = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT)) > 0)
		text[got] = 0;
	(void)snprintf(text + 64, 64, "STATUS=%u", n - 1);
	assert_string_equal(text, text + 64);
	notify_late();
	assert_int_equal(recv(fd, text, sizeof(text), MSG_DONTWAIT), 7);
	assert_memory_equal(text, "READY=1", 7);
	notify_late(); /* once */
	assert_int_equal(recv(fd, text, sizeof(text), MSG_DONTWAIT), -1);
	(void)close(fd);
	(void)unlink(address.sun_path);
	assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
}

static void test_watchdog(void **state)
{
	char pid[32];

	(void)state;
	assert_int_equal(notify_watchdog_us(), 0);
	assert_int_equal(setenv("WATCHDOG_USEC", "3000000", 1), 0);
	assert_int_equal(notify_watchdog_us(), 3000000);
	assert_int_equal(setenv("WATCHDOG_PID", "1", 1), 0);
	assert_int_equal(notify_watchdog_us(), 0); /* somebody else's */
	(void)snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	assert_int_equal(setenv("WATCHDOG_PID", pid, 1), 0);
	assert_int_equal(notify_watchdog_us(), 3000000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_arguments),          TEST(test_wrong_arguments_are_named),
		TEST(test_directories),        TEST(test_directories_that_cannot_be),
		TEST(test_lock_is_exclusive),  TEST(test_notify),
		TEST(test_notify_never_waits), TEST(test_watchdog),
	};

	return cmocka_run_group_tests_name("start", tests, NULL, NULL);
}
