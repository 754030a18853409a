/* SPDX-License-Identifier: Apache-2.0 */
/* A child program. Its three streams are memory files, so there is nothing to pump while it runs and
 * no pipe that could fill: we wait for its end alone, by a pidfd and a deadline.
 */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/macros.h"

enum { STREAMS = 3, OUTPUT_MAX_BYTES = 64 << 20 };

/* A memory file above the standard descriptors, so that dup2 in the child cannot hit one of them. */
static int stream_new(void)
{
	const int fd = memfd_create("child", MFD_CLOEXEC);
	int high;

	if (fd < 0)
		return -errno;
	if (fd >= STREAMS)
		return fd;
	high = fcntl(fd, F_DUPFD_CLOEXEC, STREAMS);
	if (high < 0)
		high = -errno;
	close(fd);
	return high;
}

static int stream_fill(int fd, const char *text)
{
	size_t left = strlen(text);

	while (left) {
		const ssize_t n = write(fd, text, left);

		if (n < 0)
			return -errno;
		text += n;
		left -= (size_t)n;
	}
	return lseek(fd, 0, SEEK_SET) < 0 ? -errno : 0;
}

/* The whole of a stream as a string. */
static int stream_take(int fd, char **ret_text)
{
	struct stat st;
	char *text;
	size_t at = 0;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size > OUTPUT_MAX_BYTES)
		return -EFBIG;
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return -ENOMEM;
	while (at < (size_t)st.st_size) {
		const ssize_t n = pread(fd, text + at, (size_t)st.st_size - at, (off_t)at);

		if (n <= 0)
			break;
		at += (size_t)n;
	}
	text[at] = 0;
	*ret_text = text;
	return 0;
}

/* The child's pid, or -Exxx. */
static pid_t start(char *const argv[], const int fds[STREAMS])
{
	static char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin", locale[] = "LC_ALL=C";
	char *env[] = { path, locale, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t all, none;
	pid_t pid = -1;
	int rc;

	sigfillset(&all);
	sigemptyset(&none);
	rc = posix_spawn_file_actions_init(&actions);
	if (rc)
		return -rc;
	rc = posix_spawnattr_init(&attr);
	if (rc) {
		posix_spawn_file_actions_destroy(&actions);
		return -rc;
	}
	for (int i = 0; i < STREAMS && !rc; i++)
		rc = posix_spawn_file_actions_adddup2(&actions, fds[i], i);
	if (!rc)
		rc = posix_spawn_file_actions_addclosefrom_np(&actions, STREAMS);
	if (!rc)
		rc = posix_spawnattr_setsigdefault(&attr, &all);
	if (!rc)
		rc = posix_spawnattr_setsigmask(&attr, &none);
	if (!rc)
		rc = posix_spawnattr_setflags(&attr,
					      POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	if (!rc)
		rc = posix_spawn(&pid, argv[0], &actions, &attr, argv, env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return rc ? -rc : pid;
}

/* Until the process has ended or the time is up. */
static int wait_for_end(pid_t pid, int limit_ms)
{
	const uint64_t deadline = clock_monotonic_us() + (uint64_t)limit_ms * 1000;
	struct pollfd p = { .fd = pidfd_open(pid, 0), .events = POLLIN };
	int rc;

	if (p.fd < 0)
		return -errno;
	for (;;) {
		const uint64_t now = clock_monotonic_us();
		const int left_ms = now < deadline ? (int)((deadline - now + 999) / 1000) : 0;

		rc = poll(&p, 1, left_ms);
		if (rc < 0 && errno == EINTR)
			continue;
		rc = rc < 0 ? -errno : rc == 0 ? -ETIME : 0;
		break;
	}
	close(p.fd);
	return rc;
}

static int reap(pid_t pid, int *ret_status)
{
	int status;

	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	*ret_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	return 0;
}

static int run(char *const argv[], const int fds[STREAMS], int limit_ms, struct child_result *r)
{
	const pid_t pid = start(argv, fds);
	int rc, reaped;

	if (pid < 0)
		return pid;
	rc = wait_for_end(pid, limit_ms);
	if (rc)
		(void)kill(pid, SIGKILL);
	reaped = reap(pid, &r->status);
	if (!rc)
		rc = reaped;
	if (!rc)
		rc = stream_take(fds[1], &r->out);
	if (!rc)
		rc = stream_take(fds[2], &r->err);
	return rc;
}

int child_run(char *const argv[], const char *input, int limit_ms, struct child_result *ret_result)
{
	struct child_result r = { 0 };
	int fds[STREAMS] = { -1, -1, -1 };
	int rc = 0;

	for (int i = 0; i < STREAMS && !rc; i++) {
		fds[i] = stream_new();
		rc = fds[i] < 0 ? fds[i] : 0;
	}
	if (!rc && input)
		rc = stream_fill(fds[0], input);
	if (!rc)
		rc = run(argv, fds, limit_ms, &r);
	for (int i = 0; i < STREAMS; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	if (rc) {
		child_result_fini(&r);
		return rc;
	}
	*ret_result = r;
	return 0;
}

void child_result_fini(struct child_result *r)
{
	free(r->out);
	free(r->err);
	*r = (struct child_result){ 0 };
}

/* --- Beside it ------------------------------------------------------------------------------ */

bool child_find_program(const char *name, char ret_path[static CHILD_PROGRAM])
{
	static const char admin[] = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
	const char *const lists[] = { getenv("PATH"), admin };

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		for (const char *dir = lists[i]; dir && *dir;) {
			const size_t len = strcspn(dir, ":");

			/* A relative directory would be another one tomorrow. */
			if (*dir == '/' && len < CHILD_PROGRAM / 2) {
				(void)snprintf(ret_path, CHILD_PROGRAM, "%.*s/%s", (int)len, dir,
					       name);
				if (access(ret_path, X_OK) == 0)
					return true;
			}
			dir += len + (dir[len] == ':');
		}
	}
	return false;
}

void child_flatten(char *text)
{
	size_t n = strlen(text);

	while (n && (text[n - 1] == '\n' || text[n - 1] == ' '))
		text[--n] = 0;
	for (; *text; text++) {
		if (*text == '\n' || *text == '\t')
			*text = ' ';
	}
}
