/* SPDX-License-Identifier: Apache-2.0 */
/* libtcpfsm-preload.so: a program's TCP goes through tcpfsmd, without its knowing.
 *
 * socket() gives one end of a pair of UNIX stream sockets. The file behind that descriptor is never
 * exchanged: connect() and listen() send the other end to the daemon. So poll, epoll, dup, fork, and
 * every call that moves octets are the kernel's own; here is only what a UNIX socket says differently.
 * A program's end carries its name, so it is found again after exec.
 *
 * $TCPFSM_ONLY: "connect", "listen", and ports (80,8000-8999), separated by commas. What is not meant
 * becomes a socket of the kernel's at bind() or connect().
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "proto/stream.h"

#define PUBLIC __attribute__((visibility("default")))

enum kind { NEW, CONNECTING, CONNECTED, LISTENING, FAILED };

enum { FDS_MAX = 65536, OPTIONS_MAX = 24, BACKLOG_MIN = 128, HIDDEN_FROM = 512 };

struct option {
	int level, name, value;
};

/* What a descriptor of ours is. dup() shares it. */
struct sock {
	unsigned refs; /* descriptors of this process */
	enum kind kind;
	int domain;
	int daemon_end; /* NEW: what the daemon will get; else -1 */
	struct sockaddr_in6 bound; /* family 0: it is not */
	bool any_port; /* bind() chose it */
	struct tcpfsm_name name;
	bool shut; /* the program shut a direction down */
	bool told; /* it was told its error */
	bool reset_on_close; /* SO_LINGER of 0 */
	struct option options[OPTIONS_MAX]; /* of TCP and IP, kept for getsockopt() */
	unsigned options_n;
};

static _Atomic(struct sock *) socks[FDS_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t self; /* a vfork child, which shares our memory, is somebody else */

static long fail(int rc)
{
	errno = rc < 0 ? -rc : rc;
	return -1;
}

/* ---- the table ---- */

static void before_fork(void)
{
	(void)pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	self = (pid_t)syscall(SYS_getpid);
	(void)pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void start(void)
{
	self = (pid_t)syscall(SYS_getpid);
	(void)pthread_atfork(before_fork, after_fork, after_fork);
}

static struct sock *find(int fd)
{
	return fd >= 0 && fd < FDS_MAX ? atomic_load(&socks[fd]) : NULL;
}

static bool is_ours(void)
{
	return syscall(SYS_getpid) == self;
}

static struct sock *sock_new(int domain, enum kind kind)
{
	struct sock *const s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->refs = 1;
	s->kind = kind;
	s->domain = domain;
	s->daemon_end = -1;
	return s;
}

/* Called with the lock held. */
static void unref(struct sock *s)
{
	if (!s || --s->refs)
		return;
	if (s->daemon_end >= 0)
		(void)syscall(SYS_close, s->daemon_end);
	if (s->reset_on_close && s->kind == CONNECTED)
		(void)tcpfsm_reset(NULL, s->name.id);
	free(s);
}

/* fd is what `s` says from now on; NULL: none of ours. */
static void put(int fd, struct sock *s)
{
	if (fd < 0 || fd >= FDS_MAX)
		return;
	(void)pthread_mutex_lock(&lock);
	unref(atomic_exchange(&socks[fd], s));
	(void)pthread_mutex_unlock(&lock);
}

static void share(int from, int to)
{
	struct sock *s;

	if (to < 0 || to >= FDS_MAX || from == to || !is_ours())
		return;
	(void)pthread_mutex_lock(&lock);
	s = find(from);
	if (s)
		s->refs++;
	unref(atomic_exchange(&socks[to], s));
	(void)pthread_mutex_unlock(&lock);
}

/* A descriptor that came by exec, or in a message: its name says whether it is ours. */
static struct sock *find_or_adopt(int fd)
{
	struct tcpfsm_name name;
	struct sock *s = find(fd);

	if (s || fd < 0 || fd >= FDS_MAX || tcpfsm_name(fd, &name))
		return s;
	s = sock_new(name.domain, name.listens ? LISTENING : CONNECTED);
	if (!s)
		return NULL;
	s->name = name;
	s->bound = name.local;
	s->shut = true; /* or not: it cannot be known, and an end of file is believed */
	put(fd, s);
	return s;
}

static bool blocks(int fd)
{
	return !(syscall(SYS_fcntl, fd, F_GETFL) & O_NONBLOCK);
}

/* Out of the program's way: its own descriptors are the lowest. */
static int hide(int fd)
{
	struct rlimit limit = { .rlim_cur = 1024 };
	int hidden;

	(void)getrlimit(RLIMIT_NOFILE, &limit);
	hidden = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC,
			      limit.rlim_cur > 2 * HIDDEN_FROM ? HIDDEN_FROM : limit.rlim_cur / 2);
	if (hidden < 0)
		return fd;
	(void)syscall(SYS_close, fd);
	return hidden;
}

/* ---- what is meant ---- */

static bool port_in(const char *words, uint16_t port)
{
	char *end;

	for (const char *w = words; *w; w = *end ? end + 1 : end) {
		unsigned long min = strtoul(w, &end, 10), max = min;

		if (end != w && *end == '-')
			max = strtoul(end + 1, &end, 10);
		if (end != w && min <= port && port <= max)
			return true;
		end += strcspn(end, ",");
	}
	return false;
}

static bool is_meant(const char *what, uint16_t port)
{
	const char *const only = getenv("TCPFSM_ONLY");
	bool roles, ports;

	if (!only || !*only)
		return true;
	roles = strstr(only, "connect") || strstr(only, "listen");
	ports = strpbrk(only, "0123456789") != NULL;
	return (!roles || strstr(only, what)) && (!ports || port_in(only, port));
}

/* Not ours after all: the descriptor becomes a socket of the kernel's, with the options it was given. */
static int hand_back(int fd, const struct sock *s)
{
	const int flags = (int)syscall(SYS_fcntl, fd, F_GETFD);
	const int kernel = (int)syscall(SYS_socket, s->domain,
					SOCK_STREAM | (blocks(fd) ? 0 : SOCK_NONBLOCK), 0);
	int rc = 0;

	if (kernel < 0)
		return -errno;
	for (unsigned i = 0; i < s->options_n; i++)
		(void)syscall(SYS_setsockopt, kernel, s->options[i].level, s->options[i].name,
			      &s->options[i].value, sizeof(int));
	if (syscall(SYS_dup3, kernel, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
		rc = -errno;
	(void)syscall(SYS_close, kernel);
	if (!rc)
		put(fd, NULL);
	return rc;
}

/* ---- names ---- */

static void give_name(const struct sockaddr_in6 *a, int domain, struct sockaddr *sa, socklen_t *len)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = a->sin6_port };
	struct sockaddr_in6 in6 = *a;
	const void *from = &in6;
	socklen_t size = sizeof(in6);

	in6.sin6_family = AF_INET6;
	if (domain == AF_INET) {
		memcpy(&in.sin_addr, a->sin6_addr.s6_addr + 12, 4);
		from = &in;
		size = sizeof(in);
	}
	if (!sa || !len)
		return;
	memcpy(sa, from, *len < size ? *len : size);
	*len = size;
}

PUBLIC int getsockname(int fd, struct sockaddr *sa, socklen_t *len)
{
	const struct sock *const s = find_or_adopt(fd);

	if (!s)
		return (int)syscall(SYS_getsockname, fd, sa, len);
	give_name(s->name.id ? &s->name.local : &s->bound, s->domain, sa, len);
	return 0;
}

PUBLIC int getpeername(int fd, struct sockaddr *sa, socklen_t *len)
{
	const struct sock *const s = find_or_adopt(fd);

	if (!s)
		return (int)syscall(SYS_getpeername, fd, sa, len);
	if (s->kind == CONNECTING ? tcpfsm_connect_wait(fd, 0) != 0 : s->kind != CONNECTED)
		return (int)fail(ENOTCONN);
	give_name(&s->name.remote, s->domain, sa, len);
	return 0;
}

/* ---- life ---- */

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
	s = sock_new(domain, NEW);
	if (!s || ends[0] >= FDS_MAX) {
		free(s);
		(void)syscall(SYS_close, ends[0]);
		(void)syscall(SYS_close, ends[1]);
		return (int)fail(s ? EMFILE : ENOMEM);
	}
	s->daemon_end = hide(ends[1]);
	put(ends[0], s);
	return ends[0];
}

PUBLIC int close(int fd)
{
	if (find(fd) && is_ours())
		put(fd, NULL);
	return (int)syscall(SYS_close, fd);
}

PUBLIC int dup(int fd)
{
	const int copy = (int)syscall(SYS_dup, fd);

	share(fd, copy);
	return copy;
}

PUBLIC int dup3(int fd, int to, int flags)
{
	const int copy = (int)syscall(SYS_dup3, fd, to, flags);

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

/* ---- bind, listen, accept ---- */

/* The kernel chooses a free port, and knows who may have this one; its socket goes again at once. */
static int ask_kernel(const struct sock *s, struct sockaddr_in6 *a)
{
	const int kernel = (int)syscall(SYS_socket, s->domain, SOCK_STREAM | SOCK_CLOEXEC, 0),
		  on = 1;
	struct sockaddr_storage room;
	socklen_t len = sizeof(room);
	int rc = 0;

	if (kernel < 0)
		return -errno;
	(void)syscall(SYS_setsockopt, kernel, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	give_name(a, s->domain, (struct sockaddr *)&room, &len);
	if (syscall(SYS_bind, kernel, &room, len) < 0)
		rc = -errno;
	len = sizeof(room);
	if (!rc && !syscall(SYS_getsockname, kernel, &room, &len))
		rc = tcpfsm_address((struct sockaddr *)&room, len, a);
	(void)syscall(SYS_close, kernel);
	/* An address that no kernel owns may be the daemon's. */
	return rc == -EADDRNOTAVAIL && a->sin6_port ? 0 : rc;
}

PUBLIC int bind(int fd, const struct sockaddr *sa, socklen_t len)
{
	struct sock *const s = find(fd);
	struct sockaddr_in6 a;
	int rc;

	if (!s)
		return (int)syscall(SYS_bind, fd, sa, len);
	if (s->kind != NEW || s->bound.sin6_family)
		return (int)fail(EINVAL);
	if (sa->sa_family != s->domain)
		return (int)fail(s->domain == AF_INET6 ? EINVAL : EAFNOSUPPORT);
	rc = tcpfsm_address(sa, len, &a);
	if (!rc && a.sin6_port && !is_meant("", ntohs(a.sin6_port))) {
		rc = hand_back(fd, s);
		return rc ? (int)fail(rc) : (int)syscall(SYS_bind, fd, sa, len);
	}
	s->any_port = !rc && !a.sin6_port;
	if (!rc)
		rc = ask_kernel(s, &a);
	if (rc)
		return (int)fail(rc);
	s->bound = a;
	return 0;
}

static int listen_as_kernel(int fd, const struct sock *s, int backlog)
{
	const struct sockaddr_in6 bound = s->bound;
	const int domain = s->domain;
	struct sockaddr_storage room;
	socklen_t len = sizeof(room);
	const int rc = hand_back(fd, s);

	if (rc)
		return (int)fail(rc);
	give_name(&bound, domain, (struct sockaddr *)&room, &len);
	if (bound.sin6_family && syscall(SYS_bind, fd, &room, len) < 0)
		return -1;
	return (int)syscall(SYS_listen, fd, backlog);
}

PUBLIC int listen(int fd, int backlog)
{
	struct sock *const s = find_or_adopt(fd);
	int rc = 0;

	if (!s)
		return (int)syscall(SYS_listen, fd, backlog);
	if (s->kind == LISTENING)
		return 0;
	if (s->kind != NEW)
		return (int)fail(EINVAL);
	if (!is_meant("listen", ntohs(s->bound.sin6_port)))
		return listen_as_kernel(fd, s, backlog);
	if (!s->bound.sin6_family) {
		struct sockaddr_in6 any = { .sin6_family = AF_INET6 };

		any.sin6_addr.s6_addr[10] = any.sin6_addr.s6_addr[11] = s->domain == AF_INET ? 0xff
											     : 0;
		rc = ask_kernel(s, &any);
		s->bound = any;
	}
	if (rc)
		return (int)fail(rc);
	rc = tcpfsm_listen_begin(NULL, &s->bound,
				 backlog < BACKLOG_MIN ? BACKLOG_MIN : (unsigned)backlog, fd,
				 s->daemon_end);
	s->daemon_end = -1;
	s->kind = rc ? FAILED : LISTENING;
	return rc ? (int)fail(rc == -EADDRNOTAVAIL ? -EADDRINUSE : rc) : 0;
}

PUBLIC int accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	const struct sock *const l = find_or_adopt(fd);
	struct tcpfsm_name name;
	struct sock *s;
	int rc;

	if (!l)
		return (int)syscall(SYS_accept4, fd, sa, len, flags);
	if (l->kind != LISTENING)
		return (int)fail(EINVAL);
	rc = tcpfsm_accept(fd, l->domain, flags, &name);
	if (rc < 0)
		return (int)fail(rc);
	s = rc < FDS_MAX ? sock_new(l->domain, CONNECTED) : NULL;
	if (!s) {
		(void)syscall(SYS_close, rc);
		return (int)fail(ENOMEM);
	}
	s->name = name;
	put(rc, s);
	give_name(&name.remote, l->domain, sa, len);
	return rc;
}

PUBLIC int accept(int fd, struct sockaddr *sa, socklen_t *len)
{
	return accept4(fd, sa, len, 0);
}

/* ---- connect ---- */

/* After a failure a socket may connect again; only then does its file change. */
static int renew(int fd, struct sock *s)
{
	const int flags = (int)syscall(SYS_fcntl, fd, F_GETFD);
	int ends[2] = { -1, -1 },
	    rc = tcpfsm_pair((blocks(fd) ? 0 : SOCK_NONBLOCK) | SOCK_CLOEXEC, ends);

	if (rc)
		return rc;
	if (syscall(SYS_dup3, ends[0], fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
		rc = -errno;
	(void)syscall(SYS_close, ends[0]);
	s->daemon_end = hide(ends[1]);
	s->kind = NEW;
	s->told = s->shut = false;
	return rc;
}

/* A connect() under way: 0, -EINPROGRESS, -EINTR, or why it failed. */
static int settle(int fd, struct sock *s, int timeout_ms)
{
	const int rc = tcpfsm_connect_wait(fd, timeout_ms);

	if (rc == -EINPROGRESS || rc == -EINTR)
		return rc;
	s->kind = rc ? FAILED : CONNECTED;
	return rc;
}

static struct option *find_option(struct sock *s, int level, int name)
{
	for (unsigned i = 0; i < s->options_n; i++)
		if (s->options[i].level == level && s->options[i].name == name)
			return &s->options[i];
	return NULL;
}

/* What was set before, in the daemon's words. */
static void connect_keys(struct sock *s, char *keys, size_t size)
{
	static const struct {
		int level, name;
		const char *key;
		int shift;
	} table[] = {
		{ IPPROTO_IP, IP_TOS, "DSCP", 2 },
		{ IPPROTO_IPV6, IPV6_TCLASS, "DSCP", 2 },
		{ IPPROTO_IP, IP_TTL, "TTL", 0 },
		{ IPPROTO_IPV6, IPV6_UNICAST_HOPS, "TTL", 0 },
		{ IPPROTO_TCP, TCP_MAXSEG, "MSS", 0 },
	};
	const struct option *const nodelay = find_option(s, IPPROTO_TCP, TCP_NODELAY);
	int n = snprintf(keys, size, "%s", nodelay && nodelay->value ? "Nagle=no" : "");

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const struct option *const o = find_option(s, table[i].level, table[i].name);

		if (o && o->value > 0 &&
		    (s->domain == AF_INET6) == (table[i].level == IPPROTO_IPV6))
			n += snprintf(keys + n, size - (size_t)n, "%s%s=%d", n ? "," : "",
				      table[i].key, o->value >> table[i].shift);
	}
}

static int begin_connect(int fd, struct sock *s, const struct sockaddr_in6 *to)
{
	struct sockaddr_in6 source = s->bound;
	struct tcpfsm_connect c = { .domain = s->domain,
				    .remote = *to,
				    .source = s->bound.sin6_family ? &source : NULL };
	char keys[128];
	int rc = s->kind == FAILED ? renew(fd, s) : 0;

	if (rc)
		return rc;
	if (IN6_IS_ADDR_UNSPECIFIED(&to->sin6_addr))
		c.remote.sin6_addr = in6addr_loopback;
	else if (IN6_IS_ADDR_V4MAPPED(&to->sin6_addr) && !to->sin6_addr.s6_addr32[3])
		c.remote.sin6_addr.s6_addr32[3] = htonl(INADDR_LOOPBACK);
	if (s->any_port)
		source.sin6_port = 0;
	connect_keys(s, keys, sizeof(keys));
	c.tcp = keys[0] ? keys : NULL;
	rc = tcpfsm_connect_begin(&c, fd, s->daemon_end, &s->name);
	s->daemon_end = -1;
	s->kind = rc ? FAILED : CONNECTING;
	return rc;
}

PUBLIC int connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	struct sock *const s = find_or_adopt(fd);
	struct sockaddr_in6 to;
	int rc;

	if (!s)
		return (int)syscall(SYS_connect, fd, sa, len);
	if (s->kind == CONNECTED || s->kind == LISTENING)
		return (int)fail(EISCONN);
	if (s->kind == CONNECTING) {
		rc = settle(fd, s, blocks(fd) ? -1 : 0);
		s->told = rc && rc != -EINPROGRESS && rc != -EINTR;
		return rc ? (int)fail(rc == -EINPROGRESS ? -EALREADY : rc) : 0;
	}
	rc = tcpfsm_address(sa, len, &to);
	if (rc)
		return (int)fail(rc);
	if (!is_meant("connect", ntohs(to.sin6_port))) {
		rc = hand_back(fd, s);
		return rc ? (int)fail(rc) : (int)syscall(SYS_connect, fd, sa, len);
	}
	rc = begin_connect(fd, s, &to);
	if (!rc)
		rc = blocks(fd) ? settle(fd, s, -1) : -EINPROGRESS;
	s->told = rc && rc != -EINPROGRESS && rc != -EINTR;
	return rc ? (int)fail(rc) : 0;
}

PUBLIC int shutdown(int fd, int how)
{
	struct sock *const s = find_or_adopt(fd);

	if (s && s->kind == CONNECTING)
		(void)settle(fd, s, 0);
	if (s && s->kind != CONNECTED && s->kind != LISTENING)
		return (int)fail(ENOTCONN);
	if (s)
		s->shut = true;
	return (int)syscall(SYS_shutdown, fd, how);
}

/* ---- octets ---- */

/* Before octets move: is there a connection? 0, or an errno. */
static int ready(int fd, struct sock *s, bool dont_wait)
{
	int rc;

	if (s->kind == CONNECTED)
		return 0;
	if (s->kind != CONNECTING)
		return ENOTCONN;
	rc = settle(fd, s, dont_wait || !blocks(fd) ? 0 : -1);
	if (rc)
		s->told = rc != -EINPROGRESS && rc != -EINTR;
	return rc == -EINPROGRESS ? EAGAIN : -rc;
}

static bool hung_up(int fd)
{
	struct pollfd p = { .fd = fd };

	return poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR);
}

/* Why it broke, once, as SO_ERROR; else 0. */
static int take_error(int fd, struct sock *s)
{
	int error, dummy;
	socklen_t len = sizeof(dummy);

	if (s->told)
		return 0;
	/* The name comes first, the end of file after it. Without a name: in good order the daemon
	 * hangs up only after the program has shut down. */
	error = tcpfsm_error(fd);
	if (!error && !s->shut && hung_up(fd))
		error = ECONNRESET;
	if (error) {
		s->told = true;
		(void)syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_ERROR, &dummy, &len);
	}
	return error;
}

/* What a call that reads has given, as TCP would. */
static ssize_t received(int fd, struct sock *s, ssize_t n)
{
	int error;

	if (n > 0 || (n < 0 && errno != ECONNRESET))
		return n;
	error = take_error(fd, s);
	if (error)
		return fail(error);
	return 0;
}

static ssize_t sent(int fd, struct sock *s, ssize_t n, int flags)
{
	int error;

	if (n >= 0 || (errno != EPIPE && errno != ECONNRESET))
		return n;
	error = take_error(fd, s);
	if (!error && !(flags & MSG_NOSIGNAL))
		(void)raise(SIGPIPE);
	return fail(error ? error : EPIPE);
}

static ssize_t receive(int fd, struct sock *s, struct msghdr *msg, int flags)
{
	size_t room = 0;
	int error;

	for (size_t i = 0; i < msg->msg_iovlen; i++)
		room += msg->msg_iov[i].iov_len;
	error = ready(fd, s, flags & MSG_DONTWAIT);
	if (error)
		return fail(error);
	if (flags & MSG_OOB)
		return fail(EINVAL); /* as where there is none */
	if (!room)
		return 0;
	msg->msg_name = NULL;
	msg->msg_namelen = 0;
	return received(fd, s, syscall(SYS_recvmsg, fd, msg, flags));
}

static ssize_t transmit(int fd, struct sock *s, const struct msghdr *msg, int flags)
{
	/* A stream has no address to send to, and nothing but octets. */
	const struct msghdr plain = { .msg_iov = msg->msg_iov, .msg_iovlen = msg->msg_iovlen };
	int error = ready(fd, s, flags & MSG_DONTWAIT);

	if (error == ENOTCONN) {
		errno = EPIPE;
		return sent(fd, s, -1, flags);
	}
	if (error)
		return fail(error);
	/* Urgent text is text, as the daemon has it on the wire, too. */
	return sent(fd, s,
		    syscall(SYS_sendmsg, fd, &plain,
			    (flags & ~(MSG_OOB | MSG_FASTOPEN)) | MSG_NOSIGNAL),
		    flags);
}

PUBLIC ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct sock *const s = find(fd);

	return s ? receive(fd, s, msg, flags) : syscall(SYS_recvmsg, fd, msg, flags);
}

PUBLIC ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct sock *const s = find(fd);

	return s ? transmit(fd, s, msg, flags) : syscall(SYS_sendmsg, fd, msg, flags);
}

PUBLIC ssize_t recvfrom(int fd, void *buf, size_t size, int flags, struct sockaddr *restrict sa,
			socklen_t *restrict len)
{
	struct sock *const s = find(fd);
	struct iovec iov = { buf, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (!s)
		return syscall(SYS_recvfrom, fd, buf, size, flags, sa, len);
	if (len)
		*len = 0;
	return receive(fd, s, &msg, flags);
}

PUBLIC ssize_t sendto(int fd, const void *buf, size_t size, int flags, const struct sockaddr *sa,
		      socklen_t len)
{
	struct sock *const s = find(fd);
	struct iovec iov = { (void *)(uintptr_t)buf, size };
	const struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	return s ? transmit(fd, s, &msg, flags)
		 : syscall(SYS_sendto, fd, buf, size, flags, sa, len);
}

PUBLIC ssize_t recv(int fd, void *buf, size_t size, int flags)
{
	return recvfrom(fd, buf, size, flags, NULL, NULL);
}

PUBLIC ssize_t send(int fd, const void *buf, size_t size, int flags)
{
	return sendto(fd, buf, size, flags, NULL, 0);
}

PUBLIC ssize_t read(int fd, void *buf, size_t size)
{
	return find(fd) ? recvfrom(fd, buf, size, 0, NULL, NULL) : syscall(SYS_read, fd, buf, size);
}

PUBLIC ssize_t write(int fd, const void *buf, size_t size)
{
	return find(fd) ? sendto(fd, buf, size, 0, NULL, 0) : syscall(SYS_write, fd, buf, size);
}

PUBLIC ssize_t readv(int fd, const struct iovec *iov, int n)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n };

	return find(fd) ? recvmsg(fd, &msg, 0) : syscall(SYS_readv, fd, iov, n);
}

PUBLIC ssize_t writev(int fd, const struct iovec *iov, int n)
{
	const struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov,
				    .msg_iovlen = (size_t)n };

	return find(fd) ? sendmsg(fd, &msg, 0) : syscall(SYS_writev, fd, iov, n);
}

/* What programs built with _FORTIFY_SOURCE call. */
ssize_t __read_chk(int fd, void *buf, size_t size, size_t room);
ssize_t __recv_chk(int fd, void *buf, size_t size, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *buf, size_t size, size_t room, int flags,
		       struct sockaddr *restrict sa, socklen_t *restrict len);

PUBLIC ssize_t __read_chk(int fd, void *buf, size_t size, size_t room)
{
	if (size > room)
		abort();
	return read(fd, buf, size);
}

PUBLIC ssize_t __recv_chk(int fd, void *buf, size_t size, size_t room, int flags)
{
	if (size > room)
		abort();
	return recv(fd, buf, size, flags);
}

PUBLIC ssize_t __recvfrom_chk(int fd, void *buf, size_t size, size_t room, int flags,
			      struct sockaddr *restrict sa, socklen_t *restrict len)
{
	if (size > room)
		abort();
	return recvfrom(fd, buf, size, flags, sa, len);
}

/* ---- options ---- */

static void keep_option(struct sock *s, int level, int name, const void *value, socklen_t len)
{
	struct option *o = find_option(s, level, name);

	if (len < sizeof(int))
		return;
	if (!o && s->options_n < OPTIONS_MAX) {
		o = &s->options[s->options_n++];
		*o = (struct option){ .level = level, .name = name };
	}
	if (o)
		memcpy(&o->value, value, sizeof(int));
}

PUBLIC int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	struct sock *const s = find_or_adopt(fd);

	if (!s)
		return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
	if (level == SOL_SOCKET && name == SO_LINGER && len >= sizeof(struct linger)) {
		struct linger l;

		memcpy(&l, value, sizeof(l));
		s->reset_on_close = l.l_onoff && !l.l_linger;
	}
	if (level == SOL_SOCKET && name == SO_REUSEPORT) {
		keep_option(s, level, name, value, len);
		return 0;
	}
	if (level == SOL_SOCKET) {
		/* Buffers, time limits and flags are the UNIX socket's own. */
		const int rc = (int)syscall(SYS_setsockopt, fd, level, name, value, len);

		if (!rc && len == sizeof(int))
			keep_option(s, level, name, value, len);
		return rc;
	}
	if (level != IPPROTO_TCP && level != IPPROTO_IP && level != IPPROTO_IPV6)
		return (int)fail(ENOPROTOOPT);
	if (level == IPPROTO_TCP && (name == TCP_CONGESTION || name == TCP_ULP))
		return (int)fail(name == TCP_CONGESTION ? ENOENT : ENOPROTOOPT);
	keep_option(s, level, name, value, len);
	return 0;
}

/* The kernel's numbers of states. */
static uint8_t state_number(const char *key)
{
	static const char *const keys[] = {
		"",           "established", "syn_sent",  "syn_received",
		"fin_wait_1", "fin_wait_2",  "time_wait", "closed",
		"close_wait", "last_ack",    "listen",    "closing"
	};

	for (uint8_t i = 1; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (!strcmp(keys[i], key))
			return i;
	return TCP_CLOSE;
}

static uint32_t per(uint64_t octets, uint64_t mss)
{
	return (uint32_t)(mss ? (octets + mss - 1) / mss : octets);
}

static void fill_info(const struct sock *s, struct tcp_info *ret)
{
	struct tcpfsm_info i;

	*ret = (struct tcp_info){ .tcpi_state = s->kind == LISTENING ? TCP_LISTEN
						: s->kind == NEW     ? TCP_CLOSE
								     : TCP_SYN_SENT };
	if (!s->name.id || tcpfsm_info(NULL, s->name.id, &i))
		return;
	*ret = (struct tcp_info){
		.tcpi_state = state_number(i.state),
		.tcpi_retransmits = (uint8_t)i.backoffs,
		.tcpi_backoff = (uint8_t)i.backoffs,
		.tcpi_options = (uint8_t)((i.timestamps ? TCPI_OPT_TIMESTAMPS : 0) |
					  (i.window_scaling ? TCPI_OPT_WSCALE : 0)),
		.tcpi_snd_wscale = (uint8_t)(i.snd_wscale & 0xf),
		.tcpi_rcv_wscale = (uint8_t)(i.rcv_wscale & 0xf),
		.tcpi_rto = (uint32_t)i.rto_us,
		.tcpi_snd_mss = (uint32_t)i.snd_mss_bytes,
		.tcpi_rcv_mss = (uint32_t)i.rcv_mss_bytes,
		.tcpi_advmss = (uint32_t)i.rcv_mss_bytes,
		.tcpi_unacked = per(i.unacked_bytes, i.snd_mss_bytes),
		.tcpi_pmtu = (uint32_t)i.snd_mss_bytes + (s->domain == AF_INET ? 40 : 60),
		.tcpi_rcv_ssthresh = (uint32_t)i.rcv_wnd_bytes,
		.tcpi_rtt = (uint32_t)i.rtt_us,
		.tcpi_rttvar = (uint32_t)i.rttvar_us,
		.tcpi_snd_ssthresh = per(i.ssthresh_bytes, i.snd_mss_bytes),
		.tcpi_snd_cwnd = per(i.cwnd_bytes, i.snd_mss_bytes),
		.tcpi_rcv_space = (uint32_t)i.rcv_wnd_bytes,
		.tcpi_total_retrans = (uint32_t)i.retransmitted_segments,
	};
}

static int give_option(const void *from, size_t size, void *value, socklen_t *len)
{
	const size_t n = *len < size ? *len : size;

	memcpy(value, from, n);
	*len = (socklen_t)n;
	return 0;
}

static int give_number(int v, void *value, socklen_t *len)
{
	return give_option(&v, sizeof(v), value, len);
}

/* SO_ERROR: read once, then forgotten. */
static int socket_error(int fd, struct sock *s)
{
	int rc;

	if (s->kind != CONNECTING)
		return take_error(fd, s);
	rc = settle(fd, s, 0);
	if (!rc || rc == -EINPROGRESS || rc == -EINTR)
		return 0;
	s->told = true;
	return -rc;
}

static int tcp_option(struct sock *s, int name, void *value, socklen_t *len)
{
	const struct option *const o = find_option(s, IPPROTO_TCP, name);
	struct tcp_info info;

	if (name == TCP_CONGESTION)
		return give_option("newreno", sizeof("newreno"), value, len);
	if (name != TCP_INFO && name != TCP_MAXSEG)
		return give_number(o ? o->value : 0, value, len);
	fill_info(s, &info);
	if (name == TCP_INFO)
		return give_option(&info, sizeof(info), value, len);
	return give_number(info.tcpi_snd_mss ? (int)info.tcpi_snd_mss : 536, value, len);
}

PUBLIC int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict len)
{
	struct sock *const s = find_or_adopt(fd);
	const struct option *o;

	if (!s)
		return (int)syscall(SYS_getsockopt, fd, level, name, value, len);
	if (level == IPPROTO_TCP)
		return tcp_option(s, name, value, len);
	if (level == SOL_SOCKET && name == SO_ERROR)
		return give_number(socket_error(fd, s), value, len);
	if (level == SOL_SOCKET && name == SO_DOMAIN)
		return give_number(s->domain, value, len);
	if (level == SOL_SOCKET && name == SO_PROTOCOL)
		return give_number(IPPROTO_TCP, value, len);
	if (level == SOL_SOCKET && name == SO_ACCEPTCONN)
		return give_number(s->kind == LISTENING, value, len);
	if (level == SOL_SOCKET && name != SO_REUSEPORT)
		return (int)syscall(SYS_getsockopt, fd, level, name, value, len);
	if (level != IPPROTO_IP && level != IPPROTO_IPV6 && level != SOL_SOCKET)
		return (int)fail(ENOPROTOOPT);
	o = find_option(s, level, name);
	return give_number(o                                  ? o->value
			   : level == IPPROTO_IP && name == 2 ? 64 /* IP_TTL */
							      : 0,
			   value, len);
}
