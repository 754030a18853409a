/* SPDX-License-Identifier: Apache-2.0 */
/* bind(), listen(), accept(). */
#include <netinet/tcp.h>
#include <string.h>
#include <time.h>

#include "ctl/preload/preload.h"

enum { BACKLOG_MIN = 128, KEYS_BYTES = 512, CHOICES_MAX = 8 };

static bool is_set(int kernel, int level, int name)
{
	int v = 0;
	socklen_t len = sizeof(v);

	return !syscall(SYS_getsockopt, kernel, level, name, &v, &len) && v;
}

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
	s->v6only = is_set(kernel, IPPROTO_IPV6, IPV6_V6ONLY);
	s->reuse_port = is_set(kernel, SOL_SOCKET, SO_REUSEPORT);
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
	return rc == -EADDRNOTAVAIL && a->sin6_port && tcpfsm_has_no_shield(daemon_path) ? 0 : rc;
}

/* The daemon's own range needs no rule of its own, whatever comes of the socket. When it may yet be the kernel's, or
 * that range is used up, the kernel chooses.
 */
static int reserve_any(struct sock *s, struct sockaddr_in6 *a)
{
	int rc = -EADDRINUSE;
	uint16_t port;

	for (int i = 0; i < CHOICES_MAX && rc == -EADDRINUSE && is_all_meant(); i++) {
		if (tcpfsm_choose_port(daemon_path, &port))
			break;
		a->sin6_port = htons(port);
		rc = reserve(s, a);
	}
	if (rc != -EADDRINUSE)
		return rc;
	a->sin6_port = 0;
	return reserve(s, a);
}

static void release(struct sock *s)
{
	if (s->reserve >= 0)
		(void)syscall(SYS_close, s->reserve);
	s->reserve = -1;
}

/* With SO_REUSEADDR a bound port may be had again, unless somebody listens; the daemon's listeners do not listen
 * for the kernel. No daemon, no listeners: listen() will say so.
 */
static bool is_in_the_way(const struct sock *s, const struct sockaddr_in6 *a)
{
	const struct option *const o = find_option(s, SOL_SOCKET, SO_REUSEADDR);
	const struct tcpfsm_listener l = {
		.path = daemon_path, .local = *a, .v6only = s->v6only, .reuse_port = s->reuse_port
	};

	return o && o->value && tcpfsm_listen_check(&l) == -EADDRINUSE;
}

PUBLIC int bind(int fd, const struct sockaddr *sa, socklen_t len)
{
	struct sock *const s = find(fd);
	struct sockaddr_in6 a;
	bool any_port;
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
	any_port = !a.sin6_port;
	rc = any_port ? reserve_any(s, &a) : reserve(s, &a);
	if (!rc && !any_port && is_in_the_way(s, &a)) {
		release(s);
		rc = -EADDRINUSE;
	}
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
	rc = reserve_any(s, &any);
	if (!rc)
		s->bound = any;
	return rc;
}

static unsigned defers(const struct sock *s)
{
	const struct option *const o = find_option(s, IPPROTO_TCP, TCP_DEFER_ACCEPT);

	return o && o->value > 0 ? (unsigned)o->value : 0;
}

static int begin_listen(int fd, struct sock *s, int backlog)
{
	char keys[KEYS_BYTES];
	struct tcpfsm_listener l = {
		.path = daemon_path,
		.local = s->bound,
		.v6only = s->v6only,
		.reuse_port = s->reuse_port,
		.defer_s = defers(s),
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
	rc = tcpfsm_accept(fd, l->domain, flags, &name);
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
	options_connected(rc, s);
	give_name(&name.remote, l->domain, sa, len);
	return rc;
}

PUBLIC int accept(int fd, struct sockaddr *sa, socklen_t *len)
{
	return accept4(fd, sa, len, 0);
}
