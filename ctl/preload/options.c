/* SPDX-License-Identifier: Apache-2.0 */
/* getsockopt(), setsockopt(). What is said of TCP and IP is checked by the kernel, on a socket of its own
 * that goes again at once; what it made of it is kept here, and the daemon is told.
 */
#include <limits.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "ctl/preload/preload.h"

enum {
	CUBIC,
	NEWRENO,
	VALUE_BYTES = 24,
	DELAYED_ACK_MS = 40,
	USER_TIMEOUT_MS = 300000,
	RECEIVE_BUFFER = 4 << 20
};

/* More is none. */
static const unsigned lowat_max = 1 << 30;

/* ---- what is kept ---- */

const struct option *find_option(const struct sock *s, int level, int name)
{
	for (unsigned i = 0; i < s->options_n; i++)
		if (s->options[i].level == level && s->options[i].name == name)
			return &s->options[i];
	return NULL;
}

void keep_option(struct sock *s, int level, int name, int value)
{
	for (unsigned i = 0; i < s->options_n; i++) {
		if (s->options[i].level == level && s->options[i].name == name) {
			s->options[i].value = value;
			return;
		}
	}
	if (s->options_n < OPTIONS_MAX)
		s->options[s->options_n++] =
			(struct option){ .level = level, .name = name, .value = value };
}

/* ---- the daemon's words ---- */

typedef void word_fn(int value, char text[static VALUE_BYTES]);

static void as_no_yes(int v, char text[static VALUE_BYTES])
{
	(void)strcpy(text, v ? "no" : "yes");
}

static void as_yes_no(int v, char text[static VALUE_BYTES])
{
	(void)strcpy(text, v ? "yes" : "no");
}

static void as_number(int v, char text[static VALUE_BYTES])
{
	(void)snprintf(text, VALUE_BYTES, "%d", v);
}

static void as_seconds(int v, char text[static VALUE_BYTES])
{
	(void)snprintf(text, VALUE_BYTES, "%ds", v);
}

/* Quick: no ACK waits; else as long as without being told. */
static void as_delay(int v, char text[static VALUE_BYTES])
{
	(void)snprintf(text, VALUE_BYTES, "%dms", v ? 0 : DELAYED_ACK_MS);
}

static void as_user_timeout(int v, char text[static VALUE_BYTES])
{
	(void)snprintf(text, VALUE_BYTES, "%dms", v ? v : USER_TIMEOUT_MS);
}

/* RFC 9293 3.8.4, MUST-29: no one probe alone decides. */
static void as_probes(int v, char text[static VALUE_BYTES])
{
	as_number(v < 2 ? 2 : v, text);
}

/* So many retransmissions of a SYN, after 1, 2, 4 ... s. */
static void as_syn_timeout(int v, char text[static VALUE_BYTES])
{
	as_seconds(v < 8 ? (1 << (v + 1)) - 1 : 600, text);
}

static void as_dscp(int v, char text[static VALUE_BYTES])
{
	as_number((v & 0xff) >> 2, text);
}

static void as_ttl(int v, char text[static VALUE_BYTES])
{
	as_number(v < 1 ? 64 : v, text);
}

/* The kernel's number is doubled, for what it needs itself. */
static void as_buffer(int v, char text[static VALUE_BYTES])
{
	as_number(v / 2, text);
}

/* 0: none but the buffer's. */
static void as_clamp(int v, char text[static VALUE_BYTES])
{
	as_number(v > 0 ? v : RECEIVE_BUFFER, text);
}

/* A third waits in the daemon unsent, a third in the UNIX socket, and one may be between them. */
static void as_lowat(int v, char text[static VALUE_BYTES])
{
	const unsigned lowat = (unsigned)v;

	if (!lowat || lowat > lowat_max)
		(void)strcpy(text, "infinity");
	else
		(void)snprintf(text, VALUE_BYTES, "%u", lowat < 3 ? 1 : lowat / 3);
}

static void as_fast_open(int v, char text[static VALUE_BYTES])
{
	(void)strcpy(text, v ? "server" : "off");
}

static void as_controller(int v, char text[static VALUE_BYTES])
{
	(void)strcpy(text, v == NEWRENO ? "newreno" : "cubic");
}

static const struct word {
	int level, name;
	const char *key;
	word_fn *value;
	bool handshake; /* later it has no effect */
} words[] = {
	{ SOL_SOCKET, SO_KEEPALIVE, "KeepAlive", as_yes_no, false },
	{ SOL_SOCKET, SO_RCVBUF, "ReceiveBuffer", as_buffer, false },
	{ SOL_SOCKET, SO_SNDBUF, "SendBuffer", as_buffer, false },
	{ IPPROTO_TCP, TCP_WINDOW_CLAMP, "ReceiveBuffer", as_clamp, false },
	{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, "NotSentLowat", as_lowat, false },
	{ IPPROTO_TCP, TCP_NODELAY, "Nagle", as_no_yes, false },
	{ IPPROTO_TCP, TCP_CORK, "Cork", as_yes_no, false },
	{ IPPROTO_TCP, TCP_QUICKACK, "DelayedAck", as_delay, false },
	{ IPPROTO_TCP, TCP_KEEPIDLE, "KeepAliveTime", as_seconds, false },
	{ IPPROTO_TCP, TCP_KEEPINTVL, "KeepAliveInterval", as_seconds, false },
	{ IPPROTO_TCP, TCP_KEEPCNT, "KeepAliveProbes", as_probes, false },
	{ IPPROTO_TCP, TCP_USER_TIMEOUT, "UserTimeout", as_user_timeout, false },
	{ IPPROTO_TCP, TCP_LINGER2, "FinWait2Timeout", as_seconds, false },
	{ IPPROTO_TCP, TCP_SYNCNT, "SynTimeout", as_syn_timeout, true },
	{ IPPROTO_TCP, TCP_MAXSEG, "MSS", as_number, true },
	{ IPPROTO_TCP, TCP_FASTOPEN, "FastOpen", as_fast_open, true },
	{ IPPROTO_TCP, TCP_CONGESTION, "CongestionControl", as_controller, false },
	{ IPPROTO_IP, IP_TOS, "DSCP", as_dscp, false },
	{ IPPROTO_IPV6, IPV6_TCLASS, "DSCP", as_dscp, false },
	{ IPPROTO_IP, IP_TTL, "TTL", as_ttl, false },
	{ IPPROTO_IPV6, IPV6_UNICAST_HOPS, "TTL", as_ttl, false },
};

static const struct word *find_word(int level, int name)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (words[i].level == level && words[i].name == name)
			return &words[i];
	return NULL;
}

/* KeepAlive is none of KeepAliveTime=1s. */
static bool has_key(const char *keys, const char *key)
{
	const size_t len = strlen(key);

	for (const char *k = keys; k; k = strchr(k, ',') ? strchr(k, ',') + 1 : NULL)
		if (!strncmp(k, key, len) && k[len] == '=')
			return true;
	return false;
}

void options_keys(const struct sock *s, char *keys, size_t size)
{
	char value[VALUE_BYTES];
	size_t n = 0;

	keys[0] = '\0';
	for (unsigned i = 0; i < s->options_n; i++) {
		const struct option *const o = &s->options[i];
		const struct word *const w = find_word(o->level, o->name);

		if (!w || has_key(keys, w->key))
			continue;
		w->value(o->value, value);
		if (n + strlen(w->key) + strlen(value) + 3 > size)
			return;
		n += (size_t)sprintf(keys + n, "%s%s=%s", n ? "," : "", w->key, value);
	}
}

/* It takes effect at once. What the connection is by then is not the program's concern. */
static void tell_daemon(const struct sock *s, const struct word *w, int v)
{
	const struct tcpfsm_listener self = { .path = daemon_path,
					      .local = s->bound,
					      .v6only = s->v6only };
	char value[VALUE_BYTES];

	w->value(v, value);
	if (s->kind == LISTENING)
		(void)tcpfsm_set_listener(&self, w->key, value);
	else if ((s->kind == CONNECTED || s->kind == CONNECTING) && !w->handshake)
		(void)tcpfsm_set(daemon_path, s->name.id, w->key, value);
}

static void keep_and_tell(struct sock *s, int level, int name, int value)
{
	const struct word *const w = find_word(level, name);
	const struct option *const before = find_option(s, level, name);
	const bool same = before && before->value == value;

	keep_option(s, level, name, value);
	if (w && !same)
		tell_daemon(s, w, value);
}

/* ---- orders: what is set again and again goes in line with the octets ---- */

/* The daemon wants some descriptor to go with an order, and does not take it. If the program has closed ours, and the
 * number is another file's, that one will do.
 */
static int marker(bool again)
{
	static atomic_int mark = -1;
	int fd = atomic_load(&mark);

	if (fd >= 0 && !again)
		return fd;
	fd = (int)syscall(SYS_eventfd2, 0, EFD_CLOEXEC);
	if (fd >= 0)
		fd = hide(fd);
	atomic_store(&mark, fd);
	return fd;
}

int give_order(int fd, struct sock *s, enum tcpfsm_order order)
{
	const int e = errno;
	int rc = is_sandboxed() ? -EPERM : tcpfsm_order(fd, order, marker(false));

	if (rc == -EBADF && !is_sandboxed())
		rc = tcpfsm_order(fd, order, marker(true));
	if (rc == -EBADF)
		rc = -ENOBUFS;
	s->order_last |= !rc;
	errno = e;
	return rc;
}

bool is_on(const struct sock *s, int level, int name)
{
	const struct option *const o = find_option(s, level, name);

	return o && o->value;
}

static bool is_corked(const struct sock *s)
{
	return s->more || is_on(s, IPPROTO_TCP, TCP_CORK);
}

static bool resets(const struct sock *s)
{
	return s->linger.l_onoff && !s->linger.l_linger;
}

/* Where there is no room in the line, a question and its answer do it; without a key, later. */
static const struct ordered {
	enum tcpfsm_order on, off;
	const char *key, *on_value, *off_value;
} ordered_resets = { TCPFSM_RESETS, TCPFSM_ENDS, NULL, NULL, NULL },
  ordered_nodelay = { TCPFSM_NO_NAGLE, TCPFSM_NAGLE, "Nagle", "no", "yes" },
  ordered_cork = { TCPFSM_CORK, TCPFSM_UNCORK, "Cork", "yes", "no" };

/* True: the daemon has it as it is here. */
static bool is_told(int fd, struct sock *s, const struct ordered *o, bool want, bool *told)
{
	int rc;

	if (*told == want)
		return true;
	rc = give_order(fd, s, want ? o->on : o->off);
	if ((rc == -EAGAIN || rc == -ENOBUFS) && o->key)
		rc = tcpfsm_set(daemon_path, s->name.id, o->key, want ? o->on_value : o->off_value);
	if (rc == -EAGAIN || rc == -ENOBUFS || rc == -EMFILE)
		return false;
	*told = want; /* or the connection is gone */
	return true;
}

void options_tell(int fd, struct sock *s)
{
	bool all = true;

	if (!s->orders_due || s->kind != CONNECTED)
		return;
	all &= is_told(fd, s, &ordered_resets, resets(s), &s->resets_told);
	all &= is_told(fd, s, &ordered_nodelay, is_on(s, IPPROTO_TCP, TCP_NODELAY),
		       &s->nodelay_told);
	all &= is_told(fd, s, &ordered_cork, is_corked(s), &s->cork_told);
	s->orders_due = !all || s->urgent_told;
}

void options_connected(int fd, struct sock *s)
{
	s->resets_told = s->urgent_told = s->order_last = false;
	s->cork_told = is_on(s, IPPROTO_TCP, TCP_CORK);
	s->nodelay_told = is_on(s, IPPROTO_TCP, TCP_NODELAY);
	s->orders_due = resets(s);
	options_tell(fd, s);
}

/* Before something is written there is nothing to keep back. */
void options_more(struct sock *s, bool more)
{
	s->more = more;
	s->orders_due |= is_corked(s) != s->cork_told;
}

/* What is set is told, whatever it was before. */
static void doubt(const struct sock *s, bool want, bool *told)
{
	if (s->adopted)
		*told = !want;
}

static int set_cork(int fd, struct sock *s, bool on)
{
	keep_option(s, IPPROTO_TCP, TCP_CORK, on);
	doubt(s, is_corked(s), &s->cork_told);
	options_more(s, s->more);
	if (!on)
		options_tell(fd, s);
	return 0;
}

static int set_nodelay(int fd, struct sock *s, bool on)
{
	keep_option(s, IPPROTO_TCP, TCP_NODELAY, on);
	doubt(s, on, &s->nodelay_told);
	s->orders_due |= on != s->nodelay_told;
	options_tell(fd, s);
	return 0;
}

/* The UNIX socket's part of TCP_NOTSENT_LOWAT; what it takes for itself counts as well, so it may be less. */
static void limit_unsent(int fd, struct sock *s)
{
	const struct option *const o = find_option(s, IPPROTO_TCP, TCP_NOTSENT_LOWAT);
	const unsigned lowat = o && (unsigned)o->value <= lowat_max ? (unsigned)o->value : 0;
	socklen_t len = sizeof(s->sndbuf);
	int size;

	if (!lowat && !s->sndbuf)
		return;
	if (!s->sndbuf && syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_SNDBUF, &s->sndbuf, &len))
		return;
	size = lowat && lowat / 3 < (unsigned)s->sndbuf ? (int)(lowat / 3) : s->sndbuf;
	size /= 2; /* the kernel doubles it */
	(void)syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

void options_renewed(int fd, struct sock *s)
{
	for (unsigned i = 0; i < s->options_n; i++) {
		const struct option *const o = &s->options[i];
		const int value = o->name == SO_SNDBUF ? o->value / 2 : o->value;

		if (o->level == SOL_SOCKET && (o->name == SO_SNDBUF || o->name == SO_RCVLOWAT))
			(void)syscall(SYS_setsockopt, fd, o->level, o->name, &value, sizeof(value));
	}
	limit_unsent(fd, s);
}

void options_inherit(int fd, struct sock *s, const struct sock *listener)
{
	memcpy(s->options, listener->options, sizeof(s->options));
	s->options_n = listener->options_n;
	s->linger = listener->linger;
	s->adopted = listener->adopted;
	if (s->linger.l_onoff) /* for who has it after exec */
		(void)syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &s->linger,
			      sizeof(s->linger));
	options_renewed(fd, s);
}

/* ---- setsockopt ---- */

static int kernels(const struct sock *s)
{
	return (int)syscall(SYS_socket, s->domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static int set_linger(int fd, struct sock *s, const void *value, socklen_t len)
{
	const int rc = (int)syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, value, len);

	if (rc)
		return rc;
	memcpy(&s->linger, value, sizeof(s->linger));
	doubt(s, resets(s), &s->resets_told);
	s->orders_due |= resets(s) != s->resets_told;
	options_tell(fd, s);
	return 0;
}

/* Of the UNIX socket, which takes most of them as any socket. */
static int set_socket(int fd, struct sock *s, int name, const void *value, socklen_t len)
{
	int rc, got = 0;
	socklen_t got_len = sizeof(got);

	if (name == SO_LINGER)
		return set_linger(fd, s, value, len);
	rc = (int)syscall(SYS_setsockopt, fd, SOL_SOCKET, name, value, len);
	if (rc || len != sizeof(int) ||
	    syscall(SYS_getsockopt, fd, SOL_SOCKET, name, &got, &got_len) || got_len != sizeof(got))
		return rc;
	keep_and_tell(s, SOL_SOCKET, name, got);
	if (name == SO_SNDBUF && s->sndbuf) {
		s->sndbuf = got;
		limit_unsent(fd, s);
	}
	return 0;
}

static int set_congestion(struct sock *s, const char *value, socklen_t len)
{
	const size_t n = strnlen(value, len);
	const bool reno = n == 4 && !memcmp(value, "reno", 4);

	if (!reno && !(n == 5 && !memcmp(value, "cubic", 5)))
		return (int)fail(ENOENT);
	keep_and_tell(s, IPPROTO_TCP, TCP_CONGESTION, reno ? NEWRENO : CUBIC);
	return 0;
}

/* What would be a promise that nobody keeps. */
static bool is_refused(int level, int name)
{
	return level == IPPROTO_TCP &&
	       (name == TCP_MD5SIG || name == TCP_MD5SIG_EXT || name == TCP_ULP ||
		(name >= TCP_REPAIR && name <= TCP_QUEUE_SEQ));
}

static int set_checked(int fd, struct sock *s, int level, int name, const void *value,
		       socklen_t len)
{
	const int k = kernels(s);
	int rc, e, got = 0;
	socklen_t got_len = sizeof(got);

	if (k < 0)
		return -1;
	rc = (int)syscall(SYS_setsockopt, k, level, name, value, len);
	e = errno;
	if (!rc && !syscall(SYS_getsockopt, k, level, name, &got, &got_len) &&
	    got_len == sizeof(got))
		keep_and_tell(s, level, name, got);
	(void)syscall(SYS_close, k);
	if (!rc && level == IPPROTO_TCP && name == TCP_NOTSENT_LOWAT)
		limit_unsent(fd, s);
	errno = e;
	return rc;
}

static int number(const void *value)
{
	int v;

	memcpy(&v, value, sizeof(v));
	return v;
}

/* What servers set for each of their answers needs no kernel to check it. */
static bool is_switch(const struct sock *s, int level, int name, const void *value, socklen_t len)
{
	return s->kind == CONNECTED && level == IPPROTO_TCP &&
	       (name == TCP_CORK || name == TCP_NODELAY) && value && len >= sizeof(int) &&
	       len <= INT_MAX;
}

PUBLIC int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	struct sock *const s = find_or_adopt(fd);

	if (!s)
		return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
	if (level == SOL_SOCKET && name != SO_REUSEPORT)
		return set_socket(fd, s, name, value, len);
	if (level == IPPROTO_TCP && name == TCP_CONGESTION && value && len)
		return set_congestion(s, value, len);
	if (is_switch(s, level, name, value, len))
		return name == TCP_CORK ? set_cork(fd, s, number(value) != 0)
					: set_nodelay(fd, s, number(value) != 0);
	if (is_refused(level, name))
		return (int)fail(ENOPROTOOPT);
	if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY && s->bound.sin6_family)
		return (int)fail(EINVAL); /* what is bound has it for good */
	return set_checked(fd, s, level, name, value, len);
}

/* ---- getsockopt ---- */

static int give_option(const void *from, size_t size, void *value, socklen_t *len)
{
	const size_t n = *len < size ? *len : size;

	if (*len > INT_MAX)
		return (int)fail(EINVAL);
	memcpy(value, from, n);
	*len = (socklen_t)n;
	return 0;
}

static int give_number(int v, void *value, socklen_t *len)
{
	return give_option(&v, sizeof(v), value, len);
}

int socket_error(int fd, struct sock *s)
{
	int rc;

	if (s->kind == CONNECTING) {
		rc = settle(fd, s, 0);
		if (!rc || rc == -EINPROGRESS || rc == -EINTR)
			return 0;
	}
	return s->kind == CONNECTED || s->kind == FAILED ? take_error(fd, s) : 0;
}

/* As where nobody said anything. */
static int give_default(const struct sock *s, int level, int name, void *value, socklen_t *len)
{
	const int k = kernels(s);
	int rc, e;

	if (k < 0)
		return -1;
	rc = (int)syscall(SYS_getsockopt, k, level, name, value, len);
	e = errno;
	(void)syscall(SYS_close, k);
	errno = e;
	return rc;
}

static int give_congestion(const struct sock *s, void *value, socklen_t *len)
{
	const struct option *const o = find_option(s, IPPROTO_TCP, TCP_CONGESTION);
	char name[16] = "cubic";
	struct tcpfsm_info info;

	if (o ? o->value == NEWRENO
	      : s->name.id && !tcpfsm_info(daemon_path, s->name.id, &info) &&
			    !strcmp(info.congestion_control, "newreno"))
		(void)strcpy(name, "reno");
	return give_option(name, sizeof(name), value, len);
}

static int give_info(int fd, struct sock *s, int name, void *value, socklen_t *len)
{
	char info[INFO_BYTES];
	uint32_t mss = 0;
	const size_t size = info_fill(fd, s, info, &mss);

	if (name == TCP_INFO)
		return give_option(info, size, value, len);
	return give_number(mss ? (int)mss : 536, value, len);
}

static int give_socket(int fd, struct sock *s, int name, void *value, socklen_t *len)
{
	const struct option *const o = find_option(s, SOL_SOCKET, name);

	switch (name) {
	case SO_ERROR:
		return give_number(socket_error(fd, s), value, len);
	case SO_DOMAIN:
		return give_number(s->domain, value, len);
	case SO_PROTOCOL:
		return give_number(IPPROTO_TCP, value, len);
	case SO_ACCEPTCONN:
		return give_number(s->kind == LISTENING, value, len);
	case SO_REUSEPORT:
		return give_number(o ? o->value : 0, value, len);
	case SO_SNDBUF:
		if (!o && s->sndbuf)
			return give_number(s->sndbuf, value, len);
		break;
	case SO_LINGER:
		return give_option(&s->linger, sizeof(s->linger), value, len);
	default:
		break;
	}
	return o ? give_number(o->value, value, len)
		 : (int)syscall(SYS_getsockopt, fd, SOL_SOCKET, name, value, len);
}

PUBLIC int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict len)
{
	struct sock *const s = find_or_adopt(fd);
	const struct option *o;

	if (!s)
		return (int)syscall(SYS_getsockopt, fd, level, name, value, len);
	if (level == SOL_SOCKET)
		return give_socket(fd, s, name, value, len);
	if (level == IPPROTO_TCP && name == TCP_CONGESTION)
		return give_congestion(s, value, len);
	if (level == IPPROTO_TCP &&
	    (name == TCP_INFO || (name == TCP_MAXSEG && s->kind != NEW && s->kind != LISTENING)))
		return give_info(fd, s, name, value, len);
	o = find_option(s, level, name);
	return o ? give_number(o->value, value, len) : give_default(s, level, name, value, len);
}
