/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors come and go: socket(), close(), dup() and what else has the same effect. */
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>

#include "ctl/preload/preload.h"

enum { LINGER_NS = 2000000 };

PUBLIC int socket(int domain, int type, int protocol)
{
	int ends[2] = { -1, -1 }, rc;
	struct sock *s;

	if ((domain != AF_INET && domain != AF_INET6) || (type & 0xf) != SOCK_STREAM ||
	    (protocol && protocol != IPPROTO_TCP))
		return (int)syscall(SYS_socket, domain, type, protocol);
	rc = tcpfsm_pair(type & (SOCK_NONBLOCK | SOCK_CLOEXEC), ends);
	if (rc)
		return (int)fail(rc);
	s = ends[0] < FDS_MAX ? sock_new(domain, NEW) : NULL;
	if (!s) {
		(void)syscall(SYS_close, ends[0]);
		(void)syscall(SYS_close, ends[1]);
		return (int)fail(ends[0] < FDS_MAX ? ENOMEM : EMFILE);
	}
	s->daemon_end = hide(ends[1]);
	put(ends[0], s);
	return ends[0];
}

/* ---- close ---- */

/* What the peer has not acknowledged; 0 also when the connection is over. */
static bool has_unsent(int fd, const struct sock *s)
{
	struct tcpfsm_info info;
	int unread = 0;

	if (!syscall(SYS_ioctl, fd, SIOCOUTQ, &unread) && unread)
		return true;
	return !tcpfsm_info(daemon_path, s->name.id, &info) && info.send_queue_bytes;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* SO_LINGER: close() waits until everything has arrived, or its time is over. */
static void linger(int fd, const struct sock *s)
{
	const uint64_t end = now_ns() + (uint64_t)s->linger.l_linger * 1000000000u;
	const struct timespec pause = { .tv_nsec = LINGER_NS };

	(void)syscall(SYS_shutdown, fd, SHUT_WR);
	while (has_unsent(fd, s) && now_ns() < end)
		(void)nanosleep(&pause, NULL);
}

/* The last descriptor of this process, of a connection with SO_LINGER. A time of 0 is the daemon's business: it knows
 * when the last descriptor of all processes goes, and how. Only for the last of all the kernel would wait, too.
 */
static void end_by_linger(int fd, struct sock *s)
{
	if (!s->linger.l_onoff || is_shared(s) || s->kind != CONNECTED)
		return;
	options_tell(fd, s);
	if (!s->linger.l_linger && !s->resets_told)
		(void)tcpfsm_reset(daemon_path, s->name.id);
	else if (s->linger.l_linger && blocks(fd) && !s->forked)
		linger(fd, s);
}

/* fd is about to be closed, or was closed behind our back. */
static void forget(int fd, bool open)
{
	struct sock *const s = find(fd);

	if (!s || !is_ours())
		return;
	if (open)
		end_by_linger(fd, s);
	put(fd, NULL);
}

PUBLIC int close(int fd)
{
	forget(fd, true);
	return (int)syscall(SYS_close, fd);
}

PUBLIC int fclose(FILE *f)
{
	static int (*real)(FILE * f);
	const int fd = fileno(f);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "fclose");
	if (find(fd) && is_ours()) {
		(void)fflush(f); /* it may be the last word of a connection that is about to end */
		forget(fd, true);
	}
	return real(f);
}

static void forget_range(unsigned first, unsigned last)
{
	for (int fd = (int)(first < FDS_MAX ? first : FDS_MAX);
	     next_sock(&fd) && (unsigned)fd <= last; fd++)
		forget(fd, true);
}

PUBLIC int close_range(unsigned first, unsigned last, int flags)
{
	if (first <= last && !(flags & (1 << 2) /* CLOSE_RANGE_CLOEXEC */))
		forget_range(first, last);
	return (int)syscall(SYS_close_range, first, last, flags);
}

PUBLIC void closefrom(int first)
{
	(void)close_range(first < 0 ? 0 : (unsigned)first, ~0u, 0);
}

/* ---- dup ---- */

PUBLIC int dup(int fd)
{
	const int copy = (int)syscall(SYS_dup, fd);

	share(fd, copy);
	return copy;
}

PUBLIC int dup3(int fd, int to, int flags)
{
	int copy;

	if (fd != to && syscall(SYS_fcntl, fd, F_GETFD) >= 0)
		forget(to, true);
	copy = (int)syscall(SYS_dup3, fd, to, flags);
	share(fd, copy);
	return copy;
}

PUBLIC int dup2(int fd, int to)
{
	if (fd == to)
		return syscall(SYS_fcntl, fd, F_GETFD) < 0 ? -1 : fd;
	return dup3(fd, to, 0);
}

static int duplicate(int fd, int command, void *argument)
{
	const int rc = (int)syscall(SYS_fcntl, fd, command, argument);

	if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
		share(fd, rc);
	return rc;
}

PUBLIC int fcntl(int fd, int command, ...)
{
	va_list ap;
	void *argument;

	va_start(ap, command);
	argument = va_arg(ap, void *);
	va_end(ap);
	return duplicate(fd, command, argument);
}

PUBLIC int fcntl64(int fd, int command, ...)
{
	va_list ap;
	void *argument;

	va_start(ap, command);
	argument = va_arg(ap, void *);
	va_end(ap);
	return duplicate(fd, command, argument);
}
