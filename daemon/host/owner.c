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

enum {
	CGROUP_NAME = 64,
	CGROUP_DEPTH_MAX = 8, /* systemd's trees are about five deep */
};

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

/* Looks for the directory whose inode number is the control group's id, and takes its name. */
static bool cgroup_name(int parent, const char *dir, uint64_t id, unsigned depth,
			char name[static CGROUP_NAME])
{
	const int fd = openat(parent, dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	bool found = false;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while (!found && (e = readdir(d))) {
		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		if (e->d_ino == id) {
			(void)snprintf(name, CGROUP_NAME, "%.63s", e->d_name);
			found = true;
		} else if (depth < CGROUP_DEPTH_MAX) {
			found = cgroup_name(dirfd(d), e->d_name, id, depth + 1, name);
		}
	}
	closedir(d);
	return found;
}

static bool find_cgroup(uint64_t id, char name[static CGROUP_NAME])
{
	return id && (cgroup_name(AT_FDCWD, "/sys/fs/cgroup", id, 0, name) ||
		      cgroup_name(AT_FDCWD, "/sys/fs/cgroup/unified", id, 0, name));
}

const char *owner_of_socket(uint32_t inode, uint32_t uid, uint64_t cgroup,
			    char buf[static OWNER_TEXT])
{
	char room[1024], group[CGROUP_NAME];
	struct passwd pw, *found = NULL;
	size_t n = 0;

	if (inode && find_process(inode, buf))
		return buf;
	if (find_cgroup(cgroup, group))
		n = (size_t)snprintf(buf, OWNER_TEXT, "%s, ", group);
	if (getpwuid_r(uid, &pw, room, sizeof(room), &found) == 0 && found)
		(void)snprintf(buf + n, OWNER_TEXT - n, "uid %u (%.40s)", uid, pw.pw_name);
	else
		(void)snprintf(buf + n, OWNER_TEXT - n, "uid %u", uid);
	return buf;
}
