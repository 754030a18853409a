/* SPDX-License-Identifier: Apache-2.0 */
/* Calls on a program's own descriptors go by syscall(2): this file is a part of the preload library,
 * too, which has functions of the usual names.
 */
#include "proto/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	ANSWER_MAX = 16384,
	REQUEST_MAX = 1024,
	LINE_BYTES = 192, /* an accepted connection; see PROTOCOL.md */
	FILL_BYTES = 32768,
	FILL_MAX = 16 << 20,
	ENDPOINT_MAX = 64,
	BUSY_TRIES = 400,
	BUSY_NS = 5000000,
	ANSWER_SECONDS = 15,
};

/* ---- names ---- */

/* The abstract name of a program's end. It stays with the socket through dup, fork and exec. */
struct __attribute__((packed)) end_name {
	char magic[11]; /* "\0tcpfsm is " without the zero behind */
	uint8_t flags; /* NAME_* */
	uint16_t domain, local_port, remote_port; /* network order */
	uint32_t scope;
	uint64_t inode, id;
	uint8_t local[16], remote[16];
};

enum { NAME_LISTENS = 1, NAME_V6ONLY = 2 };

static const char magic[sizeof(((struct end_name *)0)->magic)] = "\0tcpfsm is";

int tcpfsm_address(const struct sockaddr *sa, socklen_t len, struct sockaddr_in6 *ret_address)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6 };

	if (len < sizeof(sa->sa_family))
		return -EINVAL;
	if (sa->sa_family == AF_INET6) {
		if (len < offsetof(struct sockaddr_in6, sin6_scope_id))
			return -EINVAL;
		memcpy(&a, sa, len < sizeof(a) ? len : sizeof(a));
	} else if (sa->sa_family == AF_INET) {
		struct sockaddr_in in;

		if (len < sizeof(in))
			return -EINVAL;
		memcpy(&in, sa, sizeof(in));
		a.sin6_port = in.sin_port;
		a.sin6_addr.s6_addr[10] = a.sin6_addr.s6_addr[11] = 0xff;
		memcpy(a.sin6_addr.s6_addr + 12, &in.sin_addr, 4);
	} else {
		return -EAFNOSUPPORT;
	}
	*ret_address = a;
	return 0;
}

/* wild: :: is an address of both families. */
static void endpoint_text(const struct sockaddr_in6 *a, bool wild, char buf[static ENDPOINT_MAX])
{
	char text[INET6_ADDRSTRLEN] = "";
	const unsigned port = ntohs(a->sin6_port);

	if (IN6_IS_ADDR_V4MAPPED(&a->sin6_addr)) {
		inet_ntop(AF_INET, a->sin6_addr.s6_addr + 12, text, sizeof(text));
		snprintf(buf, ENDPOINT_MAX, "%s:%u", text, port);
	} else if (wild && IN6_IS_ADDR_UNSPECIFIED(&a->sin6_addr)) {
		snprintf(buf, ENDPOINT_MAX, "*:%u", port);
	} else {
		inet_ntop(AF_INET6, &a->sin6_addr, text, sizeof(text));
		snprintf(buf, ENDPOINT_MAX, "[%s]:%u", text, port);
	}
}

static void listener_text(const struct tcpfsm_listener *l, char buf[static ENDPOINT_MAX])
{
	if (l->v6only && IN6_IS_ADDR_UNSPECIFIED(&l->local.sin6_addr))
		snprintf(buf, ENDPOINT_MAX, "[*]:%u", ntohs(l->local.sin6_port));
	else
		endpoint_text(&l->local, true, buf);
}

static int endpoint_read(const char *text, struct sockaddr_in6 *ret)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6 };
	const char *const colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN];
	size_t len;

	if (!colon)
		return -EPROTO;
	len = (size_t)(colon - text);
	if (len >= 2 && text[0] == '[') {
		text++;
		len -= 2;
	}
	if (len >= sizeof(host))
		return -EPROTO;
	memcpy(host, text, len);
	host[len] = '\0';
	a.sin6_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	if (inet_pton(AF_INET, host, a.sin6_addr.s6_addr + 12) == 1)
		a.sin6_addr.s6_addr[10] = a.sin6_addr.s6_addr[11] = 0xff;
	else if (strcmp(host, "*") != 0 && inet_pton(AF_INET6, host, &a.sin6_addr) != 1)
		return -EPROTO;
	*ret = a;
	return 0;
}

/* Without a name only exec and tcpfsm_name() are poorer: no error. */
static void name_set(int fd, const struct tcpfsm_name *name)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct end_name n = { .flags = (uint8_t)((name->listens ? NAME_LISTENS : 0) |
						 (name->v6only ? NAME_V6ONLY : 0)),
			      .domain = (uint16_t)name->domain,
			      .local_port = name->local.sin6_port,
			      .remote_port = name->remote.sin6_port,
			      .scope = name->remote.sin6_scope_id,
			      .id = name->id };
	struct stat st;

	if (fstat(fd, &st))
		return;
	memcpy(n.magic, magic, sizeof(magic));
	n.inode = st.st_ino;
	memcpy(n.local, &name->local.sin6_addr, sizeof(n.local));
	memcpy(n.remote, &name->remote.sin6_addr, sizeof(n.remote));
	memcpy(sun.sun_path, &n, sizeof(n));
	(void)syscall(SYS_bind, fd, &sun, offsetof(struct sockaddr_un, sun_path) + sizeof(n));
}

int tcpfsm_name(int fd, struct tcpfsm_name *ret_name)
{
	struct sockaddr_un sun;
	socklen_t len = sizeof(sun);
	struct tcpfsm_name name = { .local.sin6_family = AF_INET6, .remote.sin6_family = AF_INET6 };
	struct end_name n;

	if (syscall(SYS_getsockname, fd, &sun, &len) || sun.sun_family != AF_UNIX ||
	    len != offsetof(struct sockaddr_un, sun_path) + sizeof(n))
		return -ENOENT;
	memcpy(&n, sun.sun_path, sizeof(n));
	if (memcmp(n.magic, magic, sizeof(magic)) != 0)
		return -ENOENT;
	name.listens = n.flags & NAME_LISTENS;
	name.v6only = n.flags & NAME_V6ONLY;
	name.domain = n.domain;
	name.id = n.id;
	name.local.sin6_port = n.local_port;
	name.remote.sin6_port = n.remote_port;
	name.remote.sin6_scope_id = n.scope;
	memcpy(&name.local.sin6_addr, n.local, sizeof(n.local));
	memcpy(&name.remote.sin6_addr, n.remote, sizeof(n.remote));
	*ret_name = name;
	return 0;
}

int tcpfsm_error(int fd)
{
	static const char end[] = "tcpfsm end ";
	struct sockaddr_un sun = { .sun_family = AF_UNSPEC };
	socklen_t len = sizeof(sun) - 1;
	const char *space;

	if (syscall(SYS_getpeername, fd, &sun, &len) || sun.sun_family != AF_UNIX ||
	    len <= offsetof(struct sockaddr_un, sun_path) + sizeof(end) || len >= sizeof(sun))
		return 0;
	((char *)&sun)[len] = '\0';
	if (sun.sun_path[0] || strncmp(sun.sun_path + 1, end, sizeof(end) - 1) != 0)
		return 0;
	space = strrchr(sun.sun_path + 1, ' ');
	return (int)strtoul(space + 1, NULL, 10);
}

/* ---- talking to the daemon ---- */

static int control_path(const char *given, struct sockaddr_un *ret)
{
	const char *const set = getenv("TCPFSM_SOCKET"), *const dir = getenv("RUNTIME_DIRECTORY");
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int n;

	if (given || (set && *set))
		n = snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", given ? given : set);
	else if (dir && *dir)
		n = snprintf(sun.sun_path, sizeof(sun.sun_path), "%.*s/control.sock",
			     (int)strcspn(dir, ":"), dir);
	else
		n = snprintf(sun.sun_path, sizeof(sun.sun_path), "/run/tcpfsmd/control.sock");
	if (n < 0 || (size_t)n >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	*ret = sun;
	return 0;
}

static int control_open(const char *path)
{
	const struct timeval limit = { .tv_sec = ANSWER_SECONDS };
	struct sockaddr_un sun;
	int rc = control_path(path, &sun), fd;

	if (rc)
		return rc;
	fd = (int)syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	(void)syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	(void)syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	do
		rc = syscall(SYS_connect, fd, &sun, sizeof(sun)) ? -errno : 0;
	while (rc == -EINTR);
	if (!rc)
		return fd;
	(void)syscall(SYS_close, fd);
	/* No daemon is no network; who may not use it is told so. */
	return rc == -EACCES || rc == -EPERM || rc == -EMFILE ? rc : -ENETDOWN;
}

/* fd -1: none goes with it. As sendmsg(2), or -errno. */
static ssize_t send_with(int sock, const char *text, size_t len, int fd, int flags)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)text, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (fd >= 0) {
		struct cmsghdr *h;

		msg.msg_control = control.room;
		msg.msg_controllen = sizeof(control.room);
		h = CMSG_FIRSTHDR(&msg);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &fd, sizeof(int));
	}
	do
		n = syscall(SYS_sendmsg, sock, &msg, flags | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static int send_request(int sock, const char *line, int fd)
{
	const size_t len = strlen(line);

	return send_with(sock, line, len, fd, 0) == (ssize_t)len ? 0 : -ENETDOWN;
}

int tcpfsm_order(int fd, enum tcpfsm_order order, int any)
{
	const char octet = (char)order;
	/* Without a descriptor it would be text. */
	const ssize_t n = any < 0 ? -EBADF : send_with(fd, &octet, 1, any, MSG_DONTWAIT);

	return n < 0 ? (int)n : 0;
}

static int read_answer(int sock, char answer[static ANSWER_MAX])
{
	size_t len = 0;

	while (len < ANSWER_MAX - 1) {
		const ssize_t n = syscall(SYS_recvfrom, sock, answer + len, ANSWER_MAX - 1 - len, 0,
					  NULL, NULL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -ENETDOWN;
		len += (size_t)n;
		answer[len] = '\0';
		if (memchr(answer + len - (size_t)n, '\n', (size_t)n))
			return 0;
	}
	return -EPROTO;
}

/* The value of a key in an answer: none of those read here holds an escape. NULL: there is none. */
static const char *find_value(const char *answer, const char *key)
{
	char quoted[48];
	const char *at;

	snprintf(quoted, sizeof(quoted), "\"%s\"", key);
	at = strstr(answer, quoted);
	if (!at)
		return NULL;
	at += strlen(quoted);
	return at + strspn(at, " :");
}

/* Behind the request's own id. */
static const char *result_of(const char *answer)
{
	const char *const at = strstr(answer, "\"result\"");

	return at ? at : answer;
}

static uint64_t find_number(const char *answer, const char *key)
{
	const char *const at = find_value(answer, key);

	return at && *at >= '0' && *at <= '9' ? strtoull(at, NULL, 10) : 0;
}

static bool find_text(const char *answer, const char *key, char *buf, size_t size)
{
	const char *const at = find_value(answer, key);
	size_t len;

	if (!at || *at != '"')
		return false;
	len = strcspn(at + 1, "\"\\");
	if (len >= size)
		return false;
	memcpy(buf, at + 1, len);
	buf[len] = '\0';
	return true;
}

static bool find_true(const char *answer, const char *key)
{
	const char *const at = find_value(answer, key);

	return at && !strncmp(at, "true", 4);
}

/* The errno for an error of the protocol; a descriptor that was passed may tell a better one. */
static int answer_errno(const char *answer)
{
	char name[32] = "";

	if (!find_value(answer, "error"))
		return 0;
	(void)find_text(answer, "name", name, sizeof(name));
	if (!strcmp(name, "permission_denied"))
		return -EACCES;
	if (!strcmp(name, "busy"))
		return -EAGAIN;
	if (!strcmp(name, "not_found"))
		return -ENOENT;
	if (!strcmp(name, "timed_out"))
		return -ETIMEDOUT;
	if (!strcmp(name, "invalid_params"))
		return -EINVAL;
	return -EADDRNOTAVAIL;
}

static int call_once(const char *path, const char *line, int fd, char answer[static ANSWER_MAX])
{
	const int sock = control_open(path);
	int rc;

	if (sock < 0)
		return sock;
	rc = send_request(sock, line, fd);
	/* A daemon with too many clients says so before it closes. */
	if (read_answer(sock, answer) == 0)
		rc = answer_errno(answer);
	else if (!rc)
		rc = -ENETDOWN;
	(void)syscall(SYS_close, sock);
	return rc;
}

static int call(const char *path, const char *method, const char *params, int fd,
		char answer[static ANSWER_MAX])
{
	const struct timespec pause = { .tv_nsec = BUSY_NS };
	char line[REQUEST_MAX + 128];
	int rc = -EAGAIN;

	snprintf(line, sizeof(line),
		 "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\",\"params\":{%s}}\n", method,
		 params);
	for (int i = 0; i < BUSY_TRIES && rc == -EAGAIN; i++) {
		if (i)
			(void)nanosleep(&pause, NULL);
		rc = call_once(path, line, fd, answer);
	}
	return rc;
}

/* ---- connect ---- */

int tcpfsm_pair(int flags, int ret_ends[2])
{
	int ends[2];

	if (syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM | (flags & (SOCK_NONBLOCK | SOCK_CLOEXEC)),
		    0, ends))
		return -errno;
	ret_ends[0] = ends[0];
	ret_ends[1] = ends[1];
	return 0;
}

static int poll_one(struct pollfd *p, int timeout_ms)
{
	const struct timespec limit = { .tv_sec = timeout_ms / 1000,
					.tv_nsec = timeout_ms % 1000 * 1000000L };
	/* The kernel writes what is left into it. */
	struct timespec left = limit;

	return (int)syscall(SYS_ppoll, p, 1, timeout_ms < 0 ? NULL : &left, NULL, 0);
}

static bool is_writable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll_one(&p, 0) == 1;
}

/* A UNIX socket with room is writable, a connection under way is not: so there is no room. */
static size_t fill(int fd)
{
	static const char nothing[FILL_BYTES];
	size_t filled = 0;

	while (filled < FILL_MAX - FILL_BYTES && is_writable(fd)) {
		const ssize_t n = syscall(SYS_sendto, fd, nothing, sizeof(nothing),
					  MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);

		if (n <= 0)
			break;
		filled += (size_t)n;
	}
	return filled;
}

/* It lies in front of what fills the socket. */
static int put_syn_text(const struct tcpfsm_connect *c, int end)
{
	if (c->syn_text_len > TCPFSM_SYN_TEXT_MAX)
		return -EMSGSIZE;
	if (c->syn_text_len &&
	    syscall(SYS_sendto, end, c->syn_text, c->syn_text_len, MSG_DONTWAIT | MSG_NOSIGNAL,
		    NULL, 0) != (long)c->syn_text_len)
		return -ENOBUFS;
	return 0;
}

/* -EINVAL: no keys at all can be that long, or have such letters in them. */
static int add_tcp(const char *tcp, char params[static REQUEST_MAX], int n)
{
	if (!tcp || !*tcp)
		return 0;
	if (strlen(tcp) >= REQUEST_MAX / 2 || strpbrk(tcp, "\"\\\n"))
		return -EINVAL;
	(void)snprintf(params + n, REQUEST_MAX - (size_t)n, ",\"tcp\":\"%s\"", tcp);
	return 0;
}

static int connect_params(const struct tcpfsm_connect *c, bool passed, size_t skip,
			  char params[static REQUEST_MAX])
{
	char remote[ENDPOINT_MAX], source[ENDPOINT_MAX], scope[IF_NAMESIZE] = "";
	int n;

	endpoint_text(&c->remote, false, remote);
	n = snprintf(params, REQUEST_MAX, "\"address\":\"%s\"", remote);
	if (passed)
		n += snprintf(params + n, REQUEST_MAX - (size_t)n, ",\"passed\":true,\"skip\":%zu",
			      skip);
	if (c->syn_text_len)
		n += snprintf(params + n, REQUEST_MAX - (size_t)n, ",\"syn_text\":%zu",
			      c->syn_text_len);
	if (c->source) {
		endpoint_text(c->source, true, source);
		n += snprintf(params + n, REQUEST_MAX - (size_t)n, ",\"source\":\"%s\"", source);
	}
	if (c->remote.sin6_scope_id && IN6_IS_ADDR_LINKLOCAL(&c->remote.sin6_addr) &&
	    if_indextoname(c->remote.sin6_scope_id, scope))
		n += snprintf(params + n, REQUEST_MAX - (size_t)n, ",\"scope\":\"%s\"", scope);
	return add_tcp(c->tcp, params, n);
}

int tcpfsm_ask_cookie(const struct tcpfsm_connect *c, bool *ret_cookie)
{
	const struct tcpfsm_connect of = { .remote = c->remote };
	char params[REQUEST_MAX], answer[ANSWER_MAX];
	size_t n;
	int rc = connect_params(&of, false, 0, params);

	n = strlen(params);
	snprintf(params + n, sizeof(params) - n, ",\"ask_cookie\":true");
	if (!rc)
		rc = call(c->path, "connect", params, -1, answer);
	if (!rc)
		*ret_cookie = find_true(result_of(answer), "cookie");
	return rc;
}

int tcpfsm_connect_begin(const struct tcpfsm_connect *c, int end, int daemon_end,
			 struct tcpfsm_name *ret_name)
{
	struct tcpfsm_name name = { .remote = c->remote, .domain = c->domain };
	char params[REQUEST_MAX], answer[ANSWER_MAX], local[ENDPOINT_MAX];
	int rc, better;

	rc = put_syn_text(c, end);
	if (rc) {
		(void)syscall(SYS_close, daemon_end);
		return rc;
	}
	rc = connect_params(c, true, fill(end), params);
	if (!rc)
		rc = call(c->path, "connect", params, daemon_end, answer);
	better = tcpfsm_error(end);
	(void)syscall(SYS_close, daemon_end);
	if (rc)
		return better ? -better : rc;
	name.id = find_number(result_of(answer), "id");
	if (!find_text(answer, "local", local, sizeof(local)) || endpoint_read(local, &name.local))
		return -EPROTO;
	if (!name.domain)
		name.domain = IN6_IS_ADDR_V4MAPPED(&c->remote.sin6_addr) ? AF_INET : AF_INET6;
	name_set(end, &name);
	*ret_name = name;
	return 0;
}

int tcpfsm_connect_wait(int end, int timeout_ms)
{
	struct pollfd p = { .fd = end, .events = POLLOUT };
	const int n = poll_one(&p, timeout_ms);
	int error;

	if (n < 0)
		return -errno;
	if (!n)
		return -EINPROGRESS;
	error = tcpfsm_error(end);
	if (error)
		return -error;
	/* Refused, it would have a name: so the daemon went. */
	return p.revents & POLLHUP ? -ECONNABORTED : 0;
}

int tcpfsm_connect(const struct tcpfsm_connect *c, int flags, struct tcpfsm_name *ret_name)
{
	int ends[2] = { -1, -1 }, rc = tcpfsm_pair(flags, ends);

	if (rc)
		return rc;
	rc = tcpfsm_connect_begin(c, ends[0], ends[1], ret_name);
	while (!rc && !(flags & SOCK_NONBLOCK) && (rc = tcpfsm_connect_wait(ends[0], -1)) == -EINTR)
		rc = 0;
	if (!rc)
		return ends[0];
	(void)syscall(SYS_close, ends[0]);
	return rc;
}

/* ---- listen ---- */

int tcpfsm_listen_check(const struct tcpfsm_listener *l)
{
	char params[REQUEST_MAX], answer[ANSWER_MAX], text[ENDPOINT_MAX];
	int rc;

	listener_text(l, text);
	snprintf(params, sizeof(params), "\"address\":\"%s\",\"check\":true%s", text,
		 l->reuse_port ? ",\"reuse_port\":true" : "");
	rc = call(l->path, "listen.stream", params, -1, answer);
	return rc == -EADDRNOTAVAIL ? -EADDRINUSE : rc; /* nothing else is refused */
}

int tcpfsm_listen_begin(const struct tcpfsm_listener *l, int end, int daemon_end)
{
	struct tcpfsm_name name = { .listens = true,
				    .v6only = l->v6only,
				    .local = l->local,
				    .domain = IN6_IS_ADDR_V4MAPPED(&l->local.sin6_addr)
						      ? AF_INET
						      : AF_INET6 };
	const unsigned backlog = l->backlog < 1                    ? 1
				 : l->backlog > TCPFSM_BACKLOG_MAX ? TCPFSM_BACKLOG_MAX
								   : l->backlog;
	char params[REQUEST_MAX], answer[ANSWER_MAX], text[ENDPOINT_MAX];
	int rc, better;

	listener_text(l, text);
	rc = snprintf(params, sizeof(params), "\"address\":\"%s\",\"backlog\":%u%s", text, backlog,
		      l->reuse_port ? ",\"reuse_port\":true" : "");
	if (l->defer_s)
		rc += snprintf(params + rc, sizeof(params) - (size_t)rc, ",\"defer\":\"%us\"",
			       l->defer_s);
	rc = add_tcp(l->tcp, params, rc);
	if (!rc)
		rc = call(l->path, "listen.stream", params, daemon_end, answer);
	better = tcpfsm_error(end);
	(void)syscall(SYS_close, daemon_end);
	if (rc)
		return better ? -better : rc;
	name_set(end, &name);
	return 0;
}

int tcpfsm_listen(const struct tcpfsm_listener *l, int flags)
{
	int ends[2] = { -1, -1 }, rc = tcpfsm_pair(flags, ends);

	if (rc)
		return rc;
	rc = tcpfsm_listen_begin(l, ends[0], ends[1]);
	if (!rc)
		return ends[0];
	(void)syscall(SYS_close, ends[0]);
	return rc;
}

/* A line and its descriptor, which is -1 when none came. */
static int receive_line(int listening, int flags, char line[static LINE_BYTES + 1], int *ret_fd)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { line, LINE_BYTES };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.room,
			      .msg_controllen = sizeof(control.room) };
	const ssize_t n = syscall(SYS_recvmsg, listening, &msg,
				  flags & SOCK_CLOEXEC ? MSG_CMSG_CLOEXEC : 0);
	const struct cmsghdr *h;

	if (n < 0)
		return errno == ECONNRESET ? -EINVAL : -errno;
	if (!n)
		return -EINVAL;
	*ret_fd = -1;
	h = CMSG_FIRSTHDR(&msg);
	if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS &&
	    h->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ret_fd, CMSG_DATA(h), sizeof(int));
	line[n] = '\0';
	return n == LINE_BYTES ? 0 : -EPROTO;
}

int tcpfsm_accept(int listening, int domain, int flags, struct tcpfsm_name *ret_name)
{
	char line[LINE_BYTES + 1], local[ENDPOINT_MAX], remote[ENDPOINT_MAX];
	struct tcpfsm_name name = { .domain = domain };
	int fd = -1, rc = receive_line(listening, flags, line, &fd), on = 1;

	if (rc == 0 && fd < 0)
		rc = -EMFILE; /* the kernel had no room for it in our table */
	if (rc == 0 && (!find_text(line, "local", local, sizeof(local)) ||
			!find_text(line, "remote", remote, sizeof(remote)) ||
			endpoint_read(local, &name.local) || endpoint_read(remote, &name.remote)))
		rc = -EPROTO;
	if (rc == 0 && flags & SOCK_NONBLOCK && syscall(SYS_ioctl, fd, FIONBIO, &on))
		rc = -errno;
	if (rc) {
		if (fd >= 0)
			(void)syscall(SYS_close, fd);
		return rc;
	}
	name.id = find_number(line, "id");
	name.remote.sin6_scope_id = (uint32_t)find_number(line, "scope");
	name_set(fd, &name);
	*ret_name = name;
	return fd;
}

/* ---- one connection ---- */

int tcpfsm_info(const char *path, uint64_t id, struct tcpfsm_info *ret_info)
{
	char params[48], a[ANSWER_MAX];
	int rc;

	snprintf(params, sizeof(params), "\"id\":%" PRIu64, id);
	rc = call(path, "show.connection", params, -1, a);
	if (rc)
		return rc;
	*ret_info = (struct tcpfsm_info){
#define NUMBER(key) .key = find_number(a, #key)
		NUMBER(rtt_us),
		NUMBER(rttvar_us),
		NUMBER(rttmin_us),
		NUMBER(rto_us),
		NUMBER(snd_mss_bytes),
		NUMBER(rcv_mss_bytes),
		NUMBER(cwnd_bytes),
		NUMBER(ssthresh_bytes),
		NUMBER(snd_wnd_bytes),
		NUMBER(rcv_wnd_bytes),
		NUMBER(snd_wscale),
		NUMBER(rcv_wscale),
		NUMBER(unacked_bytes),
		NUMBER(send_queue_bytes),
		NUMBER(recv_queue_bytes),
		NUMBER(backoffs),
		NUMBER(bytes_in),
		NUMBER(bytes_out),
		NUMBER(segments_in),
		NUMBER(segments_out),
		NUMBER(retransmitted_segments),
		NUMBER(retransmitted_bytes),
		NUMBER(path_mtu_bytes),
		NUMBER(reassembly_bytes),
#undef NUMBER
	};
	(void)find_text(a, "state", ret_info->state, sizeof(ret_info->state));
	(void)find_text(a, "congestion_control", ret_info->congestion_control,
			sizeof(ret_info->congestion_control));
	ret_info->timestamps = find_true(a, "timestamps");
	ret_info->window_scaling = find_true(a, "window_scaling");
	ret_info->sack = find_true(a, "sack");
	ret_info->ecn = find_true(a, "ecn");
	return 0;
}

static int set(const char *path, const char *of, const char *key, const char *value)
{
	char params[REQUEST_MAX], answer[ANSWER_MAX];
	const int n = snprintf(params, sizeof(params), "\"key\":\"%s\",\"value\":\"%s\",%s", key,
			       value, of);

	if (n < 0 || (size_t)n >= sizeof(params) || strpbrk(key, "\"\\\n") ||
	    strpbrk(value, "\"\\\n"))
		return -EINVAL;
	return call(path, "set.tcp", params, -1, answer);
}

int tcpfsm_set(const char *path, uint64_t id, const char *key, const char *value)
{
	char of[48];

	snprintf(of, sizeof(of), "\"connection\":%" PRIu64, id);
	return set(path, of, key, value);
}

int tcpfsm_set_listener(const struct tcpfsm_listener *l, const char *key, const char *value)
{
	char of[ENDPOINT_MAX + 24], text[ENDPOINT_MAX];

	listener_text(l, text);
	snprintf(of, sizeof(of), "\"listener\":\"%s\"", text);
	return set(l->path, of, key, value);
}

int tcpfsm_choose_port(const char *path, uint16_t *ret_port)
{
	char answer[ANSWER_MAX];
	const int rc = call(path, "choose.port", "", -1, answer);

	if (!rc)
		*ret_port = (uint16_t)find_number(result_of(answer), "port");
	return rc;
}

bool tcpfsm_has_no_shield(const char *path)
{
	char answer[ANSWER_MAX], shield[16];

	return !call(path, "list.rules", "", -1, answer) &&
	       find_text(answer, "shield", shield, sizeof(shield)) && !strcmp(shield, "none");
}

int tcpfsm_reset(const char *path, uint64_t id)
{
	char params[48], answer[ANSWER_MAX];

	snprintf(params, sizeof(params), "\"id\":%" PRIu64, id);
	return call(path, "reset.connection", params, -1, answer);
}
