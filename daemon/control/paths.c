/* SPDX-License-Identifier: Apache-2.0 */
#include "control/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int path_from_env(const char *variable, const char *otherwise,
			 char ret_path[static PATHS_TEXT], struct errmsg *ret_err)
{
	const char *value = getenv(variable);
	size_t n;

	if (!value || !*value)
		value = otherwise;
	n = strcspn(value, ":");
	if (n == 0 || n >= PATHS_TEXT)
		return errmsg(ret_err, -EINVAL, "%s=%s: the path is empty or too long", variable,
			      value);
	memcpy(ret_path, value, n);
	ret_path[n] = 0;
	return 0;
}

/* The runtime directory stands in firewall rules and in socket addresses: both set limits. */
static int check_runtime(const char *path, struct errmsg *ret_err)
{
	static const char usable[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
		"/._-+@=,~";
	const size_t longest = sizeof(((struct sockaddr_un *)NULL)->sun_path) -
			       sizeof("/control.sock");

	if (path[strspn(path, usable)])
		return errmsg(
			ret_err, -EINVAL,
			"runtime directory %s: only letters, digits and /._-+@=,~ may stand in it, "
			"for firewall rules name it",
			path);
	if (strlen(path) > longest)
		return errmsg(
			ret_err, -EINVAL,
			"runtime directory %s: too long for a socket in it, at most %zu octets",
			path, longest);
	return 0;
}

int paths_init(struct paths *ret_paths, struct errmsg *ret_err)
{
	struct paths p = { .lock_fd = -1 };
	int rc;

	rc = path_from_env("RUNTIME_DIRECTORY", "/run/tcpfsmd", p.runtime, ret_err);
	if (rc == 0)
		rc = path_from_env("STATE_DIRECTORY", "/var/lib/tcpfsmd", p.state, ret_err);
	if (rc == 0)
		rc = check_runtime(p.runtime, ret_err);
	if (rc == 0)
		*ret_paths = p;
	return rc;
}

static int directory_make(char path[static PATHS_TEXT], mode_t mode, const char *what,
			  bool *ret_made, struct errmsg *ret_err)
{
	char whole[PATH_MAX];
	struct stat st;
	int rc;

	if (mkdir(path, mode) == 0)
		*ret_made = true;
	else if (errno != EEXIST)
		return errmsg(ret_err, -errno, "%s directory %s: %s", what, path, strerror(errno));
	if (!realpath(path, whole) || stat(whole, &st) < 0)
		return errmsg(ret_err, -errno, "%s directory %s: %s", what, path, strerror(errno));
	if (!S_ISDIR(st.st_mode)) {
		rc = -ENOTDIR;
		return errmsg(ret_err, rc, "%s directory %s: %s", what, path, strerror(-rc));
	}
	if (strlen(whole) >= PATHS_TEXT)
		return errmsg(ret_err, -ENAMETOOLONG, "%s directory %s: the path is too long", what,
			      whole);
	memcpy(path, whole, strlen(whole) + 1);
	return 0;
}

int paths_make_runtime(struct paths *p, struct errmsg *ret_err)
{
	const int rc = directory_make(p->runtime, 0755, "runtime", &p->made_runtime, ret_err);

	return rc < 0 ? rc : check_runtime(p->runtime, ret_err);
}

int paths_make_state(struct paths *p, struct errmsg *ret_err)
{
	return directory_make(p->state, 0750, "state", &p->made_state, ret_err);
}

const char *paths_runtime_file(const struct paths *p, const char *name,
			       char buf[static PATHS_FILE_TEXT])
{
	(void)snprintf(buf, PATHS_FILE_TEXT, "%s/%s", p->runtime, name);
	return buf;
}

/* Whose lock it is, as the holder wrote it. 0: not known. */
static long lock_holder(int fd)
{
	char text[24] = "";
	const ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	return n > 0 ? strtol(text, NULL, 10) : 0;
}

static int lock_write_pid(int fd, const char *file, struct errmsg *ret_err)
{
	char text[24];
	const int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

	if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n)
		return errmsg(ret_err, -EIO, "%s: cannot write: %s", file, strerror(errno));
	return 0;
}

/* An earlier holder unlinks the file before it lets go, so a lock counts only while it is on the
 * file that has the name. */
static bool lock_is_current(int fd, const char *file)
{
	struct stat held, named;

	return fstat(fd, &held) == 0 && stat(file, &named) == 0 && held.st_dev == named.st_dev &&
	       held.st_ino == named.st_ino;
}

int paths_lock(struct paths *p, struct errmsg *ret_err)
{
	char file[PATHS_FILE_TEXT];
	int fd, rc;

	(void)paths_runtime_file(p, "lock", file);
	for (;;) {
		fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
		if (fd < 0)
			return errmsg(ret_err, -errno, "%s: %s", file, strerror(errno));
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
			if (rc == -EBUSY)
				(void)errmsg(ret_err, rc, "another tcpfsmd (pid %ld) uses %s",
					     lock_holder(fd), p->runtime);
			else
				(void)errmsg(ret_err, rc, "%s: %s", file, strerror(-rc));
			(void)close(fd);
			return rc;
		}
		if (lock_is_current(fd, file))
			break;
		(void)close(fd);
	}
	rc = lock_write_pid(fd, file, ret_err);
	if (rc < 0) {
		(void)close(fd);
		return rc;
	}
	p->lock_fd = fd;
	return 0;
}

void paths_fini(struct paths *p)
{
	char file[PATHS_FILE_TEXT];

	if (p->lock_fd >= 0) {
		(void)unlink(paths_runtime_file(p, "lock", file));
		(void)close(p->lock_fd);
		p->lock_fd = -1;
	}
	if (p->made_runtime)
		(void)rmdir(p->runtime);
	if (p->made_state)
		(void)rmdir(p->state);
	p->made_runtime = p->made_state = false;
}
