/* SPDX-License-Identifier: Apache-2.0 */
/* connect(), shutdown(). */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "ctl/preload/preload.h"

enum { KEYS_BYTES = 512 };

static const char fast_open[] = ",FastOpen=client";

int renew(int fd, struct sock *s)
{
	static const int kept[] = { SO_RCVTIMEO, SO_SNDTIMEO, SO_LINGER };
	const int flags = (int)syscall(SYS_fcntl, fd, F_GETFD);
	int ends[2] = { -1, -1 },
	    rc = tcpfsm_pair((blocks(fd) ? 0 : SOCK_NONBLOCK) | SOCK_CLOEXEC, ends);

	if (rc)
		return rc;
	carry(fd, ends[0], kept, sizeof(kept) / sizeof(kept[0]));
	if (syscall(SYS_dup3, ends[0], fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
		rc = -errno;
	(void)syscall(SYS_close, ends[0]);
	if (s->daemon_end >= 0)
		(void)syscall(SYS_close, s->daemon_end);
	s->daemon_end = hide(ends[1]);
	s->kind = NEW;
	s->name = (struct tcpfsm_name){ 0 };
	s->told = s->shut = s->connect_told = false;
	s->error = 0;
	options_renewed(fd, s);
	return rc;
}

int settle(int fd, struct sock *s, int timeout_ms)
{
	const int rc = tcpfsm_connect_wait(fd, timeout_ms);

	if (rc == -EINPROGRESS || rc == -EINTR)
		return rc;
	s->kind = rc ? FAILED : CONNECTED;
	s->error = -rc;
	if (!rc)
		options_connected(fd, s);
	return rc;
}

static bool is_v6only(const struct sock *s)
{
	const struct option *const o = find_option(s, IPPROTO_IPV6, IPV6_V6ONLY);

	return o && o->value;
}

/* No address is this machine's own. */
static void name_somebody(struct sockaddr_in6 *to)
{
	if (IN6_IS_ADDR_UNSPECIFIED(&to->sin6_addr))
		to->sin6_addr = in6addr_loopback;
	else if (IN6_IS_ADDR_V4MAPPED(&to->sin6_addr) && !to->sin6_addr.s6_addr32[3])
		to->sin6_addr.s6_addr32[3] = htonl(INADDR_LOOPBACK);
}

/* text_len 0: none goes with the SYN. */
static int begin_connect(int fd, struct sock *s, const struct sockaddr_in6 *to, const void *text,
			 size_t text_len)
{
	struct sockaddr_in6 source = s->bound;
	struct tcpfsm_connect c = { .path = daemon_path,
				    .domain = s->domain,
				    .remote = *to,
				    .source = s->bound.sin6_family ? &source : NULL,
				    .syn_text = text,
				    .syn_text_len = text_len };
	char keys[KEYS_BYTES];
	int rc = s->kind == FAILED || s->kind == DISCONNECTED ? renew(fd, s) : 0;

	if (rc)
		return rc;
	name_somebody(&c.remote);
	options_keys(s, keys, sizeof(keys) - sizeof(fast_open));
	s->deferred = false;
	if (text_len || is_on(s, IPPROTO_TCP, TCP_FASTOPEN_CONNECT))
		(void)strcat(keys, keys[0] ? fast_open : fast_open + 1);
	c.tcp = keys;
	s->kind = OPENING;
	rc = tcpfsm_connect_begin(&c, fd, s->daemon_end, &s->name);
	s->daemon_end = -1;
	s->kind = rc ? FAILED : CONNECTING;
	return rc;
}

/* SO_SNDTIMEO limits connect(), too. As poll(2) has it. */
static int patience_ms(int fd)
{
	struct timeval tv = { 0 };
	socklen_t len = sizeof(tv);

	if (!blocks(fd))
		return 0;
	if (syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &tv, &len) ||
	    (!tv.tv_sec && !tv.tv_usec))
		return -1;
	return (int)(tv.tv_sec < 2000000 ? tv.tv_sec * 1000 + (tv.tv_usec + 999) / 1000
					 : 2000000000);
}

/* What connect() says, and what follows from having said it. */
static int say(struct sock *s, int rc)
{
	if (!rc)
		s->connect_told = true;
	if (!rc || rc == -EINPROGRESS || rc == -EALREADY || rc == -EINTR)
		return rc ? (int)fail(rc) : 0;
	s->told = true;
	s->error = 0;
	if (s->kind == FAILED)
		s->kind = DISCONNECTED;
	return (int)fail(rc);
}

/* connect() to no address undoes the first. */
static int disconnect(int fd, struct sock *s)
{
	int rc = 0;

	if (s->kind == CONNECTED)
		(void)tcpfsm_reset(daemon_path, s->name.id);
	if (s->kind != NEW)
		rc = renew(fd, s);
	return rc ? (int)fail(rc) : 0;
}

static int connect_again(int fd, struct sock *s)
{
	int rc;

	if (s->kind == CONNECTED && !s->connect_told)
		return say(s, 0);
	if (s->kind == CONNECTED || s->kind == LISTENING)
		return (int)fail(EISCONN);
	rc = settle(fd, s, patience_ms(fd));
	return say(s, rc == -EINPROGRESS ? -EALREADY : rc);
}

/* TCP_FASTOPEN_CONNECT: as soon as the peer's cookie is known, connect() does nothing. */
static bool is_deferred(struct sock *s, const struct sockaddr_in6 *to)
{
	struct tcpfsm_connect c = { .path = daemon_path, .remote = *to };

	name_somebody(&c.remote);
	if (!is_on(s, IPPROTO_TCP, TCP_FASTOPEN_CONNECT) || tcpfsm_ask_cookie(&c, &s->deferred))
		return false;
	s->deferred_to = *to;
	return s->deferred;
}

int connect_deferred(int fd, struct sock *s)
{
	const struct sockaddr_in6 to = s->deferred_to;

	return begin_connect(fd, s, &to, NULL, 0);
}

PUBLIC int connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	struct sock *const s = find_or_adopt(fd);
	struct sockaddr_in6 to;
	int rc;

	if (!s)
		return (int)syscall(SYS_connect, fd, sa, len);
	if (len >= sizeof(sa->sa_family) && sa->sa_family == AF_UNSPEC)
		return disconnect(fd, s);
	if (s->deferred)
		return (int)fail(EISCONN);
	if (s->kind == OPENING)
		return (int)fail(EALREADY);
	if (s->kind == CONNECTED || s->kind == LISTENING || s->kind == CONNECTING)
		return connect_again(fd, s);
	/* What failed while nobody looked is told by the next connect(), and not tried again. */
	if (s->kind == FAILED && s->error)
		return say(s, -s->error);
	rc = take_name(s->domain, sa, len, &to);
	if (!rc && is_v6only(s) && IN6_IS_ADDR_V4MAPPED(&to.sin6_addr))
		rc = -ENETUNREACH;
	if (rc)
		return (int)fail(rc);
	if (!is_meant("connect", ntohs(to.sin6_port))) {
		rc = hand_back(fd, s);
		return rc ? (int)fail(rc) : (int)syscall(SYS_connect, fd, sa, len);
	}
	if (is_deferred(s, &to))
		return 0;
	rc = begin_connect(fd, s, &to, NULL, 0);
	return say(s, rc ? rc : blocks(fd) ? settle(fd, s, patience_ms(fd)) : -EINPROGRESS);
}

/* As much as goes with a SYN; the caller sends the rest, as after any short write. */
static size_t gather(const struct msghdr *msg, char text[static TCPFSM_SYN_TEXT_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < msg->msg_iovlen && n < TCPFSM_SYN_TEXT_MAX; i++) {
		const size_t left = TCPFSM_SYN_TEXT_MAX - n, len = msg->msg_iov[i].iov_len;
		const size_t some = len < left ? len : left;

		memcpy(text + n, msg->msg_iov[i].iov_base, some);
		n += some;
	}
	return n;
}

long connect_with_text(int fd, struct sock *s, const struct msghdr *msg)
{
	char text[TCPFSM_SYN_TEXT_MAX];
	const size_t n = gather(msg, text);
	struct sockaddr_in6 to;
	int rc;

	if (s->kind != NEW && s->kind != DISCONNECTED)
		return s->kind == CONNECTING ? -EALREADY : -EISCONN;
	if (!s->deferred && !msg->msg_name)
		return -EINVAL;
	to = s->deferred_to;
	rc = s->deferred ? 0 : take_name(s->domain, msg->msg_name, msg->msg_namelen, &to);
	if (!rc && !is_meant("connect", ntohs(to.sin6_port)))
		rc = -EOPNOTSUPP;
	if (!rc)
		rc = begin_connect(fd, s, &to, text, n);
	if (!rc && blocks(fd))
		rc = settle(fd, s, patience_ms(fd));
	if (rc) {
		(void)say(s, rc);
		return rc;
	}
	if (blocks(fd))
		s->connect_told = true;
	return (long)n;
}

PUBLIC int shutdown(int fd, int how)
{
	struct sock *const s = find_or_adopt(fd);
	int rc;

	if (!s)
		return (int)syscall(SYS_shutdown, fd, how);
	if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
		return (int)fail(EINVAL);
	if (s->kind == CONNECTING && settle(fd, s, 0) == -EINPROGRESS) {
		rc = renew(fd, s); /* the attempt is given up */
		return rc ? (int)fail(rc) : 0;
	}
	if (s->kind == LISTENING && how == SHUT_WR)
		return 0;
	if (s->kind != CONNECTED && s->kind != LISTENING)
		return (int)fail(ENOTCONN);
	if (s->kind == CONNECTED && hung_up(fd) && !s->shut)
		return (int)fail(ENOTCONN); /* it was reset */
	s->shut = true;
	return (int)syscall(SYS_shutdown, fd, how);
}
