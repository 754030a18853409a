/* SPDX-License-Identifier: Apache-2.0 */
/* bind(), listen(), accept(). */
#include <string.h>
#include <time.h>

#include "ctl/preload/preload.h"

enum { BACKLOG_MIN = 128, KEYS_BYTES = 512 };

/* A socket of the kernel's has the port from now on: it chooses a free one, knows who may have it, and
 * whether it is taken. It never listens. */
static int reserve(struct sock *s, struct sockaddr_in6 *a)
{
	const int kernel = kernel_socket(s, SOCK_CLOEXEC);
	struct sockaddr_storage room;
	socklen_t len = sizeof(room);
	int rc = 0;

	if (kernel < 0)
		return kernel;
	give_name(a, s->domain, (struct sockaddr *)&room, &len);
	if (syscall(SYS_bind, kernel, &room, len) < 0)
		rc = -errno;
	len = sizeof(room);
	if (!rc && !syscall(SYS_getsockname, kernel, &room, &len))
		rc = tcpfsm_address((struct sockaddr *)&room, len, a);
	if (!rc)
		s->reserve = hide(kernel);
	else
		(void)syscall(SYS_close, kernel);
	/* An address that no kernel owns may be the daemon's. */
	return rc == -EADDRNOTAVAIL && a->sin6_port && tcpfsm_has_no_shield(NULL) ? 0 : rc;
}

PUBLIC int bind(int fd, const struct sockaddr *sa, socklen_t len)
{
	struct sock *const s = find(fd);
	struct sockaddr_in6 a;
	int rc;

	if (!s)
		return (int)syscall(SYS_bind, fd, sa, len);
	rc = take_name(s->domain, sa, len, &a);
	if (rc)
		return (int)fail(rc);
	if (s->kind != NEW || s->bound.sin6_family)
		return (int)fail(EINVAL);
	if (a.sin6_port && !is_meant("", ntohs(a.sin6_port))) {
		rc = hand_back(fd, s);
		return rc ? (int)fail(rc) : (int)syscall(SYS_bind, fd, sa, len);
	}
	s->any_port = !a.sin6_port;
	rc = reserve(s, &a);
	if (rc)
		return (int)fail(rc);
	s->bound = a;
	return 0;
}

static int listen_as_kernel(int fd, const struct sock *s, int backlog)
{
	const int rc = hand_back(fd, s); /* what was reserved is bound already */

	return rc ? (int)fail(rc) : (int)syscall(SYS_listen, fd, backlog);
}

static int bind_any(struct sock *s)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
	int rc;

	if (s->domain == AF_INET)
		any.sin6_addr.s6_addr[10] = any.sin6_addr.s6_addr[11] = 0xff;
	rc = reserve(s, &any);
	if (!rc)
		s->bound = any;
	return rc;
}

static int begin_listen(int fd, struct sock *s, int backlog)
{
	char keys[KEYS_BYTES];
	struct tcpfsm_listener l = {
		.local = s->bound,
		.backlog = backlog < BACKLOG_MIN ? BACKLOG_MIN : (unsigned)backlog,
		.tcp = keys,
	};
	int rc;

	options_keys(s, keys, sizeof(keys));
	rc = tcpfsm_listen_begin(&l, fd, s->daemon_end);
	s->daemon_end = -1;
	s->kind = rc ? FAILED : LISTENING;
	return rc;
}

PUBLIC int listen(int fd, int backlog)
{
	struct sock *const s = find_or_adopt(fd);
	int rc = 0;

	if (!s)
		return (int)syscall(SYS_listen, fd, backlog);
	if (s->kind == LISTENING)
		return 0;
	if (s->kind == FAILED || s->kind == DISCONNECTED) {
		rc = renew(fd, s);
		if (rc)
			return (int)fail(rc);
	}
	if (s->kind != NEW)
		return (int)fail(EINVAL);
	if (!is_meant("listen", ntohs(s->bound.sin6_port)))
		return listen_as_kernel(fd, s, backlog);
	if (!s->bound.sin6_family)
		rc = bind_any(s);
	if (!rc)
		rc = begin_listen(fd, s, backlog);
	return rc ? (int)fail(rc) : 0;
}

static bool is_v6only(const struct sock *l)
{
	const struct option *const o = find_option(l, IPPROTO_IPV6, IPV6_V6ONLY);

	return o && o->value;
}

/* Nothing will ever come again, and poll() says so without end. Many a server only logs that and calls
 * again at once: it is not to fill a core and a disk. The first answer does not wait.
 */
static int listener_gone(struct sock *l)
{
	const struct timespec tenth = { .tv_nsec = 100000000 };

	if (l->told)
		(void)nanosleep(&tenth, NULL);
	l->told = true;
	return (int)fail(EINVAL);
}

PUBLIC int accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	struct sock *const l = find_or_adopt(fd);
	struct tcpfsm_name name;
	struct sock *s;
	int rc;

	if (!l)
		return (int)syscall(SYS_accept4, fd, sa, len, flags);
	if (l->kind != LISTENING || flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC))
		return (int)fail(EINVAL);
	while ((rc = tcpfsm_accept(fd, l->domain, flags, &name)) >= 0 && is_v6only(l) &&
	       IN6_IS_ADDR_V4MAPPED(&name.remote.sin6_addr)) {
		(void)tcpfsm_reset(NULL, name.id);
		(void)syscall(SYS_close, rc);
	}
	if (rc == -EINVAL)
		return listener_gone(l);
	if (rc < 0)
		return (int)fail(rc);
	s = rc < FDS_MAX ? sock_new(l->domain, CONNECTED) : NULL;
	if (!s) {
		(void)syscall(SYS_close, rc);
		return (int)fail(ENOMEM);
	}
	s->name = name;
	s->connect_told = true;
	put(rc, s);
	options_inherit(rc, s, l);
	give_name(&name.remote, l->domain, sa, len);
	return rc;
}

PUBLIC int accept(int fd, struct sockaddr *sa, socklen_t *len)
{
	return accept4(fd, sa, len, 0);
}
