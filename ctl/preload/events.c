/* SPDX-License-Identifier: Apache-2.0 */
/* poll() and epoll: a UNIX socket that hangs up does not say ERR, as TCP does with it after a reset.
 * All else is the kernel's own.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

#include "ctl/preload/preload.h"

/* The kernel's sigset_t. */
enum { SIGSET_BYTES = 8 };

static short amend(const struct pollfd *p)
{
	const struct sock *const s = find(p->fd);

	if (!s)
		return p->revents;
	if ((s->kind == NEW && !s->deferred) || s->kind == DISCONNECTED)
		return (short)(p->revents | POLLHUP);
	return (short)(p->revents & POLLHUP && !(p->revents & POLLERR) && has_error(p->fd, s)
			       ? p->revents | POLLERR
			       : p->revents);
}

static int wait_for(struct pollfd *fds, nfds_t n, const struct timespec *limit,
		    const sigset_t *mask)
{
	struct timespec left = limit ? *limit : (struct timespec){ 0 };
	int rc, found = 0;

	rc = (int)syscall(SYS_ppoll, fds, n, limit ? &left : NULL, mask, SIGSET_BYTES);
	for (nfds_t i = 0; i < n && rc > found; i++) {
		found += fds[i].revents != 0;
		if (fds[i].revents)
			fds[i].revents = amend(&fds[i]);
	}
	return rc;
}

PUBLIC int poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
	const struct timespec limit = { .tv_sec = timeout_ms / 1000,
					.tv_nsec = timeout_ms % 1000 * 1000000L };

	return wait_for(fds, n, timeout_ms < 0 ? NULL : &limit, NULL);
}

PUBLIC int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *limit, const sigset_t *mask)
{
	return wait_for(fds, n, limit, mask);
}

/* ---- epoll ---- */

PUBLIC int epoll_ctl(int ep, int what, int fd, struct epoll_event *e)
{
	const int rc = (int)syscall(SYS_epoll_ctl, ep, what, fd, e);
	struct sock *const s = rc ? NULL : find(fd);

	if (s) {
		s->epoll = what == EPOLL_CTL_DEL ? -1 : ep;
		s->epoll_data = what == EPOLL_CTL_DEL ? 0 : e->data.u64;
	}
	return rc;
}

/* Whose event is this? Seldom asked: ends are told as RDHUP, mostly. */
static bool event_has_error(int ep, const struct epoll_event *e)
{
	const struct sock *s;

	for (int fd = 0; (s = next_sock(&fd)); fd++)
		if (s->epoll == ep && s->epoll_data == e->data.u64 && has_error(fd, s))
			return true;
	return false;
}

static int amended(int ep, struct epoll_event *events, int n)
{
	for (int i = 0; i < n; i++)
		if ((events[i].events & (EPOLLHUP | EPOLLERR)) == EPOLLHUP &&
		    event_has_error(ep, &events[i]))
			events[i].events |= EPOLLERR;
	return n;
}

PUBLIC int epoll_pwait(int ep, struct epoll_event *events, int max, int timeout_ms,
		       const sigset_t *mask)
{
	return amended(
		ep, events,
		(int)syscall(SYS_epoll_pwait, ep, events, max, timeout_ms, mask, SIGSET_BYTES));
}

PUBLIC int epoll_wait(int ep, struct epoll_event *events, int max, int timeout_ms)
{
	return epoll_pwait(ep, events, max, timeout_ms, NULL);
}

PUBLIC int epoll_pwait2(int ep, struct epoll_event *events, int max, const struct timespec *limit,
			const sigset_t *mask)
{
	return amended(ep, events,
		       (int)syscall(SYS_epoll_pwait2, ep, events, max, limit, mask, SIGSET_BYTES));
}

/* What programs built with _FORTIFY_SOURCE call. */
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout_ms, size_t room);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *limit, const sigset_t *mask,
		size_t room);

PUBLIC int __poll_chk(struct pollfd *fds, nfds_t n, int timeout_ms, size_t room)
{
	if (room / sizeof(*fds) < n)
		abort();
	return poll(fds, n, timeout_ms);
}

PUBLIC int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *limit,
		       const sigset_t *mask, size_t room)
{
	if (room / sizeof(*fds) < n)
		abort();
	return ppoll(fds, n, limit, mask);
}
