/* SPDX-License-Identifier: Apache-2.0 */
#include "owner.h"

#include <dirent.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* Does a process (its directory in /proc) hold a descriptor whose link reads `want`? */
static bool process_holds(int proc, const char *pid, const char *want)
{
	char path[64], link[64];
	const size_t want_len = strlen(want);
	struct dirent *e;
	bool found = false;
	DIR *d;
	int fd;

	(void)snprintf(path, sizeof(path), "%.20s/fd", pid);
	fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		if (fd >= 0)
			close(fd);
		return false; /* Gone, or not ours to see. */
	}
	while (!found && (e = readdir(d))) {
		const ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof(link));

		found = n > 0 && (size_t)n == want_len && !memcmp(link, want, want_len);
	}
	closedir(d);
	return found;
}

static void process_name(int proc, const char *pid, char *name, size_t size)
{
	char path[64];
	ssize_t n = -1;
	int fd;

	(void)snprintf(path, sizeof(path), "%.20s/comm", pid);
	fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, name, size - 1);
		close(fd);
	}
	name[n > 0 ? n : 0] = 0;
	name[strcspn(name, "\n")] = 0;
}

static bool find_process(uint32_t inode, char buf[static OWNER_TEXT])
{
	char want[64], name[32];
	DIR *d = opendir("/proc");
	struct dirent *e;
	bool found = false;

	if (!d)
		return false;
	(void)snprintf(want, sizeof(want), "socket:[%u]", inode);
	while (!found && (e = readdir(d))) {
		if (e->d_name[0] < '1' || e->d_name[0] > '9')
			continue;
		if (!process_holds(dirfd(d), e->d_name, want))
			continue;
		process_name(dirfd(d), e->d_name, name, sizeof(name));
		(void)snprintf(buf, OWNER_TEXT, "%s (pid %.20s)", name, e->d_name);
		found = true;
	}
	closedir(d);
	return found;
}

const char *owner_of_socket(uint32_t inode, uint32_t uid, char buf[static OWNER_TEXT])
{
	char room[1024];
	struct passwd pw, *found = NULL;

	if (inode && find_process(inode, buf))
		return buf;
	if (getpwuid_r(uid, &pw, room, sizeof(room), &found) == 0 && found)
		(void)snprintf(buf, OWNER_TEXT, "uid %u (%.40s)", uid, pw.pw_name);
	else
		(void)snprintf(buf, OWNER_TEXT, "uid %u", uid);
	return buf;
}
