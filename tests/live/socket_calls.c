/* SPDX-License-Identifier: Apache-2.0 */
/* Every call on a TCP socket that programs make, and what it gives: a line each. test_calls.py runs it
 * on the kernel's TCP and over tcpfsmd, and compares.
 *
 * socket_calls OUR-ADDRESS PEER-ADDRESS [PART]	the addresses are IPv4
 *
 * The peer (test_calls.py) listens, and does what its port says; on port 9000 it takes "PORT WHAT" and
 * connects to us, and tells how a connection ended as it saw it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the peer does, by its port. */
enum {
	PORT_COMMAND = 9000,
	PORT_ECHO,
	PORT_GREET, /* ten digits, then nothing */
	PORT_GREET_FIN, /* ten digits and a FIN, then it reads */
	PORT_RESET, /* "hello"; one octet, and it resets */
	PORT_FIN_RESET, /* FIN; one octet, and it resets */
	PORT_STOPPED, /* reads nothing between the commands "stop" and "go" */
	PORT_BIG, /* a MiB, then FIN */
	PORT_COUNT, /* reads to the end, then tells how much and how it ended */
	PORT_NOBODY = 9099,
};

enum { WAIT_MS = 10000, MIB = 1 << 20 };

static struct in_addr ours, peer;
static const char *self_path;
static volatile sig_atomic_t pipes; /* SIGPIPEs */
static void *volatile nowhere = (void *)8;

/* ---- telling ---- */

__attribute__((format(printf, 1, 2))) static void tell(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

/* A call's result: a number, or the errno's name. Keeps errno. */
static long said(const char *what, long rc)
{
	const int e = errno;

	if (rc < 0)
		tell("%s: %s", what, strerrorname_np(e));
	else
		tell("%s: %ld", what, rc);
	errno = e;
	return rc;
}

/* The same, where only the sign is the same everywhere. */
static long said_fine(const char *what, long rc)
{
	if (rc < 0)
		return said(what, rc);
	tell("%s: fine", what);
	return rc;
}

static void told_events(const char *what, unsigned e)
{
	static const struct {
		unsigned bit;
		const char *name;
	} names[] = { { POLLIN, "IN" },   { POLLPRI, "PRI" }, { POLLOUT, "OUT" },
		      { POLLERR, "ERR" }, { POLLHUP, "HUP" }, { POLLRDHUP, "RDHUP" } };
	char text[64] = "";

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (e & names[i].bit)
			strcat(strcat(text, " "), names[i].name);
	tell("%s:%s", what, text[0] ? text : " nothing");
}

static void told_text(const char *what, const char *text, long n)
{
	if (n < 0)
		(void)said(what, n);
	else
		tell("%s: %ld %.*s", what, n, (int)n, text);
}

static void on_pipe(int sig)
{
	(void)sig;
	pipes++;
}

static void told_pipes(const char *what)
{
	tell("%s: %d SIGPIPE", what, (int)pipes);
	pipes = 0;
}

/* ---- helpers ---- */

static struct sockaddr_in at(struct in_addr a, int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_port = htons((uint16_t)port),
				     .sin_addr = a };
}

static unsigned polled(int fd, short events, int ms)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, ms) == 1 ? (unsigned)p.revents : 0;
}

/* Until one of the events is there that were not asked for in vain. */
static unsigned await(int fd, short events, unsigned want)
{
	unsigned got = 0;

	for (int i = 0; i < WAIT_MS / 5; i++) {
		got = polled(fd, events, 0);
		if ((got & want) == want)
			break;
		usleep(5000);
	}
	return got;
}

static int dial(int port)
{
	const struct sockaddr_in to = at(peer, port);
	const int s = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(s, (const struct sockaddr *)&to, sizeof(to))) {
		tell("dial %d: %s", port, strerrorname_np(errno));
		exit(1);
	}
	return s;
}

/* A line to the peer's command port, and its answer. */
static void command(const char *text, char *answer, size_t size)
{
	const int s = dial(PORT_COMMAND);
	size_t n = 0;
	ssize_t got;

	(void)!write(s, text, strlen(text));
	(void)shutdown(s, SHUT_WR);
	while (n < size - 1 && (got = read(s, answer + n, size - 1 - n)) > 0)
		n += (size_t)got;
	answer[n] = '\0';
	close(s);
}

static void told_by_peer(const char *what, const char *question)
{
	char answer[256];

	command(question, answer, sizeof(answer));
	tell("%s: the peer says %s", what, answer);
}

static int make_listener(int *ret_port)
{
	struct sockaddr_in a = at(ours, 0);
	socklen_t len = sizeof(a);
	const int l = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(l, (struct sockaddr *)&a, sizeof(a)) || listen(l, 8) ||
	    getsockname(l, (struct sockaddr *)&a, &len)) {
		tell("listener: %s", strerrorname_np(errno));
		exit(1);
	}
	*ret_port = ntohs(a.sin_port);
	return l;
}

/* The peer connects to us and does `what`. */
static void peer_connects(int port, const char *what)
{
	char text[64], answer[64];

	snprintf(text, sizeof(text), "connect %d %s", port, what);
	command(text, answer, sizeof(answer));
	if (strcmp(answer, "connected"))
		tell("peer: %s", answer);
}

static long number_option(int fd, int level, int name)
{
	int v = 0;
	socklen_t len = sizeof(v);
	const int rc = getsockopt(fd, level, name, &v, &len);

	return rc ? rc : v;
}

static int set_option(int fd, int level, int name, int v)
{
	return setsockopt(fd, level, name, &v, sizeof(v));
}

static long soerror(int fd)
{
	return number_option(fd, SOL_SOCKET, SO_ERROR);
}

static void told_soerror(const char *what, int fd)
{
	const long e = soerror(fd);

	tell("%s: SO_ERROR %s", what, e < 0 ? "fails" : e ? strerrorname_np((int)e) : "0");
}

/* ---- a fresh socket ---- */

static void part_fresh(void)
{
	const int s = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	struct sockaddr_in to = at(peer, PORT_ECHO);
	char buf[8];

	told_events("fresh poll", polled(s, POLLIN | POLLOUT | POLLRDHUP, 0));
	said("fresh read", read(s, buf, 1));
	said("fresh recv dontwait", recv(s, buf, 1, MSG_DONTWAIT));
	said("fresh write", write(s, "x", 1));
	said("fresh send nosignal", send(s, "x", 1, MSG_NOSIGNAL));
	told_pipes("fresh write");
	said("fresh getpeername", getpeername(s, (struct sockaddr *)&a, &len));
	said("fresh getsockname", getsockname(s, (struct sockaddr *)&a, &len));
	tell("fresh name: family %d port %d len %d", a.ss_family,
	     ((struct sockaddr_in *)&a)->sin_port, (int)len);
	said("fresh shutdown", shutdown(s, SHUT_WR));
	said("fresh accept", accept(s, NULL, NULL));
	said("fresh connect short", connect(s, (struct sockaddr *)&to, 4));
	to.sin_family = AF_INET6;
	said("fresh connect other family", connect(s, (struct sockaddr *)&to, sizeof(to)));
	to.sin_family = AF_UNSPEC;
	said("fresh connect unspec", connect(s, (struct sockaddr *)&to, sizeof(to)));
	to = at(peer, PORT_ECHO);
	said("fresh bind other's address", bind(s, (struct sockaddr *)&to, sizeof(to)));
	said("fresh bind short", bind(s, (struct sockaddr *)&to, 4));
	to = at(ours, 0);
	said("fresh bind", bind(s, (struct sockaddr *)&to, sizeof(to)));
	said("fresh bind again", bind(s, (struct sockaddr *)&to, sizeof(to)));
	said("fresh getsockname bound", getsockname(s, (struct sockaddr *)&to, &len));
	tell("fresh bound: %s, a port %d", inet_ntoa(to.sin_addr), to.sin_port != 0);
	said("fresh lseek", lseek(s, 0, SEEK_CUR));
	said("fresh pread", pread(s, buf, 1, 0));
	said("fresh close", close(s));
	said("fresh close again", close(s));
	said("socket of no type", socket(AF_INET, 77, 0));
	said("socket of udp's protocol", socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
	said("socket stream tcp", close(socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP)));
	said("bad fd read", read(-1, buf, 1));
	said("bad fd connect", connect(987, (struct sockaddr *)&to, sizeof(to)));
	said("bad fd getsockopt", number_option(987, SOL_SOCKET, SO_ERROR));
	said("not a socket", getsockname(0, (struct sockaddr *)&a, &len));
}

/* ---- options ---- */

static const struct numbered {
	const char *name;
	int level, option;
	int values[4]; /* to set; those after a 0 that is not the first are not */
	int any_default; /* the kernel's is of the machine's settings */
} numbered[] = {
#define O(level, name, ...)                     \
	{                                       \
#name, level, name, __VA_ARGS__ \
	}
	O(SOL_SOCKET, SO_REUSEADDR, { 1, 0 }, 0),
	O(SOL_SOCKET, SO_REUSEPORT, { 1, 0 }, 0),
	O(SOL_SOCKET, SO_KEEPALIVE, { 1, 0 }, 0),
	O(SOL_SOCKET, SO_BROADCAST, { 1, 0 }, 0),
	O(SOL_SOCKET, SO_OOBINLINE, { 1, 0 }, 0),
	O(SOL_SOCKET, SO_DONTROUTE, { 1, 0 }, 0),
	O(SOL_SOCKET, SO_RCVLOWAT, { 5, 1 }, 0),
	O(SOL_SOCKET, SO_RCVBUF, { 100000, 5000 }, 1),
	O(SOL_SOCKET, SO_SNDBUF, { 100000, 6000 }, 1),
	O(SOL_SOCKET, SO_PRIORITY, { 3 }, 0),
	O(IPPROTO_TCP, TCP_NODELAY, { 1, 0 }, 0),
	O(IPPROTO_TCP, TCP_CORK, { 1, 0 }, 0),
	O(IPPROTO_TCP, TCP_QUICKACK, { 0, 1 }, 0),
	O(IPPROTO_TCP, TCP_KEEPIDLE, { 1, 100, 40000 }, 0),
	O(IPPROTO_TCP, TCP_KEEPINTVL, { 1, 100, 40000 }, 0),
	O(IPPROTO_TCP, TCP_KEEPCNT, { 1, 127, 128 }, 0),
	O(IPPROTO_TCP, TCP_SYNCNT, { 3, 256 }, 0),
	O(IPPROTO_TCP, TCP_LINGER2, { 10 }, 0),
	O(IPPROTO_TCP, TCP_DEFER_ACCEPT, { 1 }, 0),
	O(IPPROTO_TCP, TCP_WINDOW_CLAMP, { 100000 }, 0),
	O(IPPROTO_TCP, TCP_USER_TIMEOUT, { 5000, -1 }, 0),
	O(IPPROTO_TCP, TCP_NOTSENT_LOWAT, { 16384 }, 1),
	O(IPPROTO_TCP, TCP_MAXSEG, { 1000, 10, 70000 }, 0),
	O(IPPROTO_IP, IP_TOS, { 0x10, 0xb8 }, 0),
	O(IPPROTO_IP, IP_TTL, { 10, 255, 256, -1 }, 0),
	O(IPPROTO_IP, IP_MTU_DISCOVER, { 2 }, 0),
	O(IPPROTO_IP, IP_RECVTOS, { 1 }, 0),
	O(IPPROTO_IP, IP_FREEBIND, { 1 }, 0),
#undef O
};

static void set_and_get(int s, const struct numbered *o)
{
	const long before = number_option(s, o->level, o->option);

	if (before < 0 || !o->any_default)
		tell("%s: %ld", o->name, before);
	for (size_t i = 0; i < 4 && (i == 0 || o->values[i] || o->values[i - 1] == 1); i++) {
		const int rc = set_option(s, o->level, o->option, o->values[i]);

		tell("%s set to %d: %s, is %ld", o->name, o->values[i],
		     rc ? strerrorname_np(errno) : "0", number_option(s, o->level, o->option));
	}
}

static void told_timeval(const char *what, int s, int name)
{
	struct timeval tv = { 1, 250000 };
	socklen_t len = sizeof(tv);

	said(what, setsockopt(s, SOL_SOCKET, name, &tv, sizeof(tv)));
	said(what, getsockopt(s, SOL_SOCKET, name, &tv, &len));
	tell("%s: %ld.%06ld", what, (long)tv.tv_sec, (long)tv.tv_usec);
	said(what, setsockopt(s, SOL_SOCKET, name, &tv, 4));
}

static void told_congestion(int s)
{
	char name[16] = "";
	socklen_t len = sizeof(name);

	said("TCP_CONGESTION cubic or reno", setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	said("TCP_CONGESTION get", getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, name, &len));
	tell("TCP_CONGESTION: %s len %d", name, (int)len);
	said("TCP_CONGESTION nosuch", setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "nosuch", 6));
}

static void part_options(void)
{
	const int s = socket(AF_INET, SOCK_STREAM, 0), v6 = socket(AF_INET6, SOCK_STREAM, 0);
	struct linger l = { 1, 7 };
	char few[40];
	socklen_t len = sizeof(l);

	tell("SO_TYPE %ld SO_DOMAIN %ld SO_PROTOCOL %ld SO_ACCEPTCONN %ld SO_ERROR %ld",
	     number_option(s, SOL_SOCKET, SO_TYPE), number_option(s, SOL_SOCKET, SO_DOMAIN),
	     number_option(s, SOL_SOCKET, SO_PROTOCOL), number_option(s, SOL_SOCKET, SO_ACCEPTCONN),
	     soerror(s));
	tell("v6 SO_DOMAIN %ld", number_option(v6, SOL_SOCKET, SO_DOMAIN));
	for (size_t i = 0; i < sizeof(numbered) / sizeof(numbered[0]); i++)
		set_and_get(s, &numbered[i]);
	set_and_get(v6,
		    &(struct numbered){ "IPV6_V6ONLY", IPPROTO_IPV6, IPV6_V6ONLY, { 1, 0 }, 0 });
	set_and_get(v6,
		    &(struct numbered){ "IPV6_TCLASS", IPPROTO_IPV6, IPV6_TCLASS, { 0x20 }, 0 });
	set_and_get(v6,
		    &(struct numbered){
			    "IPV6_UNICAST_HOPS", IPPROTO_IPV6, IPV6_UNICAST_HOPS, { 9, 256 }, 0 });
	told_timeval("SO_RCVTIMEO", s, SO_RCVTIMEO);
	told_timeval("SO_SNDTIMEO", s, SO_SNDTIMEO);
	said("SO_LINGER set", setsockopt(s, SOL_SOCKET, SO_LINGER, &l, sizeof(l)));
	l = (struct linger){ 0 };
	said("SO_LINGER get", getsockopt(s, SOL_SOCKET, SO_LINGER, &l, &len));
	tell("SO_LINGER: %d %d", l.l_onoff, l.l_linger);
	said("SO_LINGER short", setsockopt(s, SOL_SOCKET, SO_LINGER, &l, 4));
	told_congestion(s);
	said("short TCP_NODELAY", setsockopt(s, IPPROTO_TCP, TCP_NODELAY, few, 2));
	said("short SO_KEEPALIVE", setsockopt(s, SOL_SOCKET, SO_KEEPALIVE, few, 2));
	said("unknown level", set_option(s, 4711, 1, 1));
	said("unknown level get", number_option(s, 4711, 1));
	said("unknown TCP option", set_option(s, IPPROTO_TCP, 4711, 1));
	said("unknown TCP option get", number_option(s, IPPROTO_TCP, 4711));
	said("unknown socket option", set_option(s, SOL_SOCKET, 4711, 1));
	said("TCP_INFO set", set_option(s, IPPROTO_TCP, TCP_INFO, 1));
	said("SO_ERROR set", set_option(s, SOL_SOCKET, SO_ERROR, 1));
	said("SO_TYPE set", set_option(s, SOL_SOCKET, SO_TYPE, 1));
	len = sizeof(few);
	said("IP_OPTIONS get", getsockopt(s, IPPROTO_IP, IP_OPTIONS, few, &len));
	tell("IP_OPTIONS: len %d", (int)len);
	len = 1;
	memset(few, 0x77, sizeof(few));
	said("TCP_NODELAY one octet", getsockopt(s, IPPROTO_TCP, TCP_NODELAY, few, &len));
	tell("TCP_NODELAY one octet: len %d, %d, %d", (int)len, few[0], few[1]);
	len = (socklen_t)-1;
	said("TCP_NODELAY negative", getsockopt(s, IPPROTO_TCP, TCP_NODELAY, few, &len));
	close(s);
	close(v6);
}

/* ---- connect ---- */

static void part_connect(void)
{
	struct sockaddr_in nobody = at(peer, PORT_NOBODY), echo = at(peer, PORT_ECHO), me;
	struct sockaddr *const to = (struct sockaddr *)&echo;
	socklen_t len = sizeof(me);
	int s = socket(AF_INET, SOCK_STREAM, 0);
	char buf[8];

	said("refused", connect(s, (struct sockaddr *)&nobody, sizeof(nobody)));
	told_soerror("refused", s);
	said("refused read", read(s, buf, 1));
	said("after refused", connect(s, to, sizeof(echo)));
	said("again", connect(s, to, sizeof(echo)));
	said("getpeername", getpeername(s, (struct sockaddr *)&me, &len));
	tell("peer: %s %d", inet_ntoa(me.sin_addr), ntohs(me.sin_port));
	said("getsockname", getsockname(s, (struct sockaddr *)&me, &len));
	tell("name: %s, a port %d", inet_ntoa(me.sin_addr), me.sin_port != 0);
	said("listen when connected", listen(s, 1));
	said("bind when connected", bind(s, (struct sockaddr *)&me, sizeof(me)));
	said("accept when connected", accept(s, NULL, NULL));
	close(s);

	s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	said("nonblocking", connect(s, to, sizeof(echo)));
	told_events("nonblocking poll", polled(s, POLLIN | POLLOUT | POLLRDHUP, WAIT_MS));
	told_soerror("nonblocking", s);
	said("nonblocking then connect", connect(s, to, sizeof(echo)));
	said("nonblocking recv", recv(s, buf, 1, 0));
	close(s);

	s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	said("nonblocking refused", connect(s, (struct sockaddr *)&nobody, sizeof(nobody)));
	told_events("nonblocking refused poll",
		    await(s, POLLIN | POLLOUT | POLLRDHUP, POLLERR | POLLHUP));
	said("nonblocking refused getpeername", getpeername(s, (struct sockaddr *)&me, &len));
	told_soerror("nonblocking refused", s);
	told_soerror("nonblocking refused again", s);
	said("nonblocking refused write", send(s, "x", 1, MSG_NOSIGNAL));
	close(s);

	s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	said("refused by connect", connect(s, (struct sockaddr *)&nobody, sizeof(nobody)));
	(void)await(s, POLLOUT, POLLERR);
	said("refused by connect: second", connect(s, to, sizeof(echo)));
	said("refused by connect: third", connect(s, to, sizeof(echo)));
	told_events("refused by connect: third", polled(s, POLLOUT, WAIT_MS));
	close(s);

	s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	said("refused by recv", connect(s, (struct sockaddr *)&nobody, sizeof(nobody)));
	(void)await(s, POLLOUT, POLLERR);
	said("refused by recv: recv", recv(s, buf, 1, 0));
	told_soerror("refused by recv", s);
	said("refused by recv: again", recv(s, buf, 1, 0));
	close(s);
}

static void part_connect_slow(void)
{
	struct in_addr gone;
	struct sockaddr_in to;
	const struct timeval tv = { 0, 300000 };
	int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	char buf[4];

	inet_aton("10.9.0.99",
		  &gone); /* it answers to ARP, by test_calls.py, and to nothing else */
	to = at(gone, 1);
	said("slow", connect(s, (struct sockaddr *)&to, sizeof(to)));
	said("slow again", connect(s, (struct sockaddr *)&to, sizeof(to)));
	told_events("slow poll", polled(s, POLLIN | POLLOUT | POLLRDHUP, 50));
	told_soerror("slow", s);
	said("slow recv", recv(s, buf, 1, 0));
	said("slow send", send(s, "x", 1, MSG_NOSIGNAL));
	said("slow getpeername", getpeername(s, (struct sockaddr *)&a, &len));
	said("slow listen", listen(s, 1));
	said("slow close", close(s));

	s = socket(AF_INET, SOCK_STREAM, 0);
	(void)setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	said("slow with SO_SNDTIMEO", connect(s, (struct sockaddr *)&to, sizeof(to)));
	close(s);
	s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	said("slow shutdown: connect", connect(s, (struct sockaddr *)&to, sizeof(to)));
	said("slow shutdown", shutdown(s, SHUT_WR));
	close(s);
}

/* ---- octets ---- */

static void read_all_of(int s, char *buf, size_t n)
{
	if (recv(s, buf, n, MSG_WAITALL) != (ssize_t)n)
		tell("echo is short: %s", strerrorname_np(errno));
}

static void part_send_calls(void)
{
	const int s = dial(PORT_ECHO);
	struct iovec iov[3] = { { (char[]){ "ab" }, 2 }, { NULL, 0 }, { (char[]){ "cde" }, 3 } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 3 };
	struct mmsghdr many[2] = { { .msg_hdr = msg }, { .msg_hdr = msg } };
	struct sockaddr_in to = at(peer, 1);
	char buf[200] = "";
	int p[2];
	FILE *const file = tmpfile();
	off_t offset = 2;

	said("write", write(s, "0123", 4));
	said("writev", writev(s, iov, 3));
	said("send", send(s, "4567", 4, 0));
	said("sendto with an address", sendto(s, "89", 2, 0, (struct sockaddr *)&to, sizeof(to)));
	said("sendmsg", sendmsg(s, &msg, 0));
	said("sendmmsg", sendmmsg(s, many, 2, 0));
	tell("sendmmsg: %u %u", many[0].msg_len, many[1].msg_len);
	fputs("0123456789", file);
	fflush(file);
	said("sendfile", sendfile(s, fileno(file), &offset, 5));
	tell("sendfile: offset %ld", (long)offset);
	(void)!pipe(p);
	(void)!write(p[1], "pipe", 4);
	said("splice", splice(p[0], NULL, s, NULL, 4, 0));
	said("write of nothing", write(s, "", 0));
	said("send of nothing", send(s, "", 0, 0));
	said("MSG_MORE", send(s, "mo", 2, MSG_MORE));
	said("and the rest", send(s, "re", 2, 0));
	said("MSG_DONTWAIT", send(s, "x", 1, MSG_DONTWAIT));
	said("MSG_EOR", send(s, "y", 1, MSG_EOR));
	said("MSG_OOB without", recv(s, buf, 1, MSG_OOB));
	read_all_of(s, buf, 45);
	told_text("echo", buf, 45);
	said("then", recv(s, buf, 1, MSG_DONTWAIT));
	said("bad address", write(s, nowhere, 4));
	said("dprintf", dprintf(s, "%d", 4711));
	read_all_of(s, buf, 4);
	close(s);
	close(p[0]);
	close(p[1]);
	fclose(file);
}

static void part_receive_calls(void)
{
	const int s = dial(PORT_ECHO);
	char buf[64] = "", two[64] = "", control[64];
	struct iovec iov[2] = { { buf, 3 }, { two, 60 } };
	struct sockaddr_storage a;
	struct msghdr msg = { .msg_name = &a,
			      .msg_namelen = sizeof(a),
			      .msg_iov = iov,
			      .msg_iovlen = 2,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct mmsghdr many[2] = { { .msg_hdr = { .msg_iov = iov, .msg_iovlen = 1 } },
				   { .msg_hdr = { .msg_iov = iov, .msg_iovlen = 1 } } };
	socklen_t len = sizeof(a);
	int n, p[2];

	(void)!write(s, "0123456789", 10);
	for (n = 0; n < 10;)
		if (ioctl(s, FIONREAD, &n))
			break;
	tell("FIONREAD: %d", n);
	told_text("peek", buf, recv(s, buf, 4, MSG_PEEK));
	told_text("peek all", buf, recv(s, buf, 64, MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT));
	told_text("read", buf, read(s, buf, 2));
	n = (int)readv(s, iov, 1);
	told_text("readv", buf, n);
	memset(&a, 0, sizeof(a));
	told_text("recvfrom", buf, recvfrom(s, buf, 1, 0, (struct sockaddr *)&a, &len));
	tell("recvfrom: len %d", (int)len);
	n = (int)recvmsg(s, &msg, 0);
	told_text("recvmsg", buf, n);
	tell("recvmsg: name %d, control %d, flags %d", (int)msg.msg_namelen,
	     (int)msg.msg_controllen, msg.msg_flags);
	said("nothing left", recv(s, buf, 9, MSG_DONTWAIT));
	said("of nothing", recv(s, buf, 0, MSG_DONTWAIT));
	said("MSG_ERRQUEUE", recv(s, buf, 9, MSG_ERRQUEUE | MSG_DONTWAIT));
	(void)!write(s, "abcdefghij", 10);
	(void)recv(s, two, 10, MSG_PEEK | MSG_WAITALL);
	said("MSG_TRUNC", recv(s, buf, 4, MSG_TRUNC));
	n = recvmmsg(s, many, 2, MSG_DONTWAIT, NULL);
	said("recvmmsg", n);
	tell("recvmmsg: %u %u", many[0].msg_len, many[1].msg_len);
	(void)!write(s, "xyz", 3);
	told_text("waitall", buf, recv(s, buf, 3, MSG_WAITALL));
	(void)!write(s, "splice", 6);
	(void)!pipe(p);
	(void)polled(s, POLLIN, WAIT_MS);
	said("splice from", splice(s, NULL, p[1], NULL, 6, 0));
	told_text("splice from", buf, read(p[0], buf, 6));
	n = -1;
	for (int i = 0; i < 1000 && n; i++) {
		if (ioctl(s, SIOCOUTQ, &n))
			break;
		usleep(1000);
	}
	tell("SIOCOUTQ: %d", n);
	said("SIOCATMARK", ioctl(s, SIOCATMARK, &n));
	said("FIONBIO", ioctl(s, FIONBIO, &(int){ 1 }));
	said("nonblocking read", read(s, buf, 1));
	tell("O_NONBLOCK %d", (fcntl(s, F_GETFL) & O_NONBLOCK) != 0);
	said("unknown ioctl", ioctl(s, 0x4711, &n));
	close(s);
	close(p[0]);
	close(p[1]);
}

static void part_timeouts(void)
{
	const struct timeval tv = { 0, 100000 };
	struct sockaddr_in to = at(peer, 9);
	int s = dial(PORT_GREET), port, l = make_listener(&port);
	char *const big = calloc(1, MIB);
	char buf[32];
	ssize_t n;

	(void)setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	told_text("SO_RCVTIMEO waitall", buf, recv(s, buf, 20, MSG_WAITALL));
	said("SO_RCVTIMEO", recv(s, buf, 20, 0));
	close(s);
	(void)setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	said("SO_RCVTIMEO of a listener", accept(l, NULL, NULL));
	close(l);
	s = dial(PORT_STOPPED);
	(void)setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	while ((n = send(s, big, MIB, MSG_NOSIGNAL)) > 0)
		;
	said("SO_SNDTIMEO", n);
	close(s);
	s = socket(AF_INET, SOCK_STREAM, 0);
	(void)setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	(void)set_option(s, SOL_SOCKET, SO_RCVLOWAT, 7);
	(void)set_option(s, SOL_SOCKET, SO_SNDBUF, 100000);
	said("refused", connect(s, (const struct sockaddr *)&to, sizeof(to)));
	to.sin_port = htons(PORT_GREET);
	said("connect again", connect(s, (const struct sockaddr *)&to, sizeof(to)));
	told_text("SO_RCVTIMEO after a refusal", buf, recv(s, buf, 20, MSG_WAITALL));
	tell("after a refusal: SO_RCVLOWAT %ld, SO_SNDBUF %ld",
	     number_option(s, SOL_SOCKET, SO_RCVLOWAT), number_option(s, SOL_SOCKET, SO_SNDBUF));
	close(s);
	free(big);
}

/* ---- ends ---- */

static void part_half_close(void)
{
	int s = dial(PORT_ECHO);
	char buf[16];

	(void)!write(s, "last words", 10);
	said("shutdown", shutdown(s, SHUT_WR));
	said("write after shutdown", write(s, "x", 1));
	told_pipes("write after shutdown");
	said("send nosignal after shutdown", send(s, "x", 1, MSG_NOSIGNAL));
	told_pipes("send nosignal after shutdown");
	told_text("echo after shutdown", buf, recv(s, buf, 10, MSG_WAITALL));
	said("end", read(s, buf, 1));
	told_events("both ended", await(s, POLLIN | POLLOUT | POLLRDHUP, POLLHUP));
	told_soerror("both ended", s);
	said("both ended, read", read(s, buf, 1));
	said("both ended, getpeername",
	     getpeername(s, (struct sockaddr *)&(struct sockaddr_storage){ 0 },
			 &(socklen_t){ sizeof(struct sockaddr_storage) }));
	close(s);

	s = dial(PORT_GREET);
	(void)recv(s, buf, 10, MSG_WAITALL);
	said("shutdown read", shutdown(s, SHUT_RD));
	said("read after", read(s, buf, 1));
	told_events("after shutdown read", polled(s, POLLIN | POLLOUT | POLLRDHUP, 0));
	said("write after shutdown read", write(s, "x", 1));
	said("shutdown read again", shutdown(s, SHUT_RD));
	said("shutdown of nonsense", shutdown(s, 7));
	close(s);

	s = dial(PORT_GREET_FIN);
	told_events("peer's FIN", await(s, POLLIN | POLLOUT | POLLRDHUP, POLLRDHUP));
	told_text("peer's text", buf, recv(s, buf, 16, MSG_WAITALL));
	told_events("peer's FIN read", polled(s, POLLIN | POLLOUT | POLLRDHUP, 0));
	said("peer's end", read(s, buf, 1));
	said("peer's end again", recv(s, buf, 1, MSG_DONTWAIT));
	said("write to who said FIN", write(s, "x", 1));
	told_soerror("peer's FIN", s);
	said("shutdown both", shutdown(s, SHUT_RDWR));
	close(s);
}

static void part_big(void)
{
	int s = dial(PORT_BIG);
	char *const buf = malloc(2 * MIB);

	said("a MiB", recv(s, buf, MIB, MSG_WAITALL));
	said("its end", recv(s, buf, 1, MSG_WAITALL));
	close(s);
	s = dial(PORT_BIG);
	said("a MiB and more", recv(s, buf, 2 * MIB, MSG_WAITALL));
	close(s);
	free(buf);
}

static void part_reset(void)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	char buf[16];
	int s = dial(PORT_RESET);

	told_text("hello", buf, recv(s, buf, 5, MSG_WAITALL));
	(void)!write(s, "x", 1);
	told_events("reset", await(s, POLLIN | POLLOUT | POLLRDHUP, POLLERR | POLLHUP));
	said("reset: getpeername", getpeername(s, (struct sockaddr *)&a, &len));
	said("reset: read", read(s, buf, 1));
	said("reset: read again", read(s, buf, 1));
	told_soerror("reset: read", s);
	told_events("reset and told", polled(s, POLLIN | POLLOUT | POLLRDHUP, 0));
	said("reset: write", write(s, "x", 1));
	told_pipes("reset: write");
	said("reset: shutdown", shutdown(s, SHUT_WR));
	close(s);

	s = dial(PORT_RESET);
	(void)recv(s, buf, 5, MSG_WAITALL);
	(void)!write(s, "x", 1);
	(void)await(s, POLLIN, POLLERR);
	told_soerror("reset: first", s);
	told_soerror("reset: second", s);
	said("reset: read after SO_ERROR", read(s, buf, 1));
	close(s);

	s = dial(PORT_RESET);
	(void)recv(s, buf, 5, MSG_WAITALL);
	(void)!write(s, "x", 1);
	(void)await(s, POLLIN, POLLERR);
	said("reset: write first", write(s, "x", 1));
	told_pipes("reset: write first");
	said("reset: write second", write(s, "x", 1));
	told_pipes("reset: write second");
	said("reset: read after write", read(s, buf, 1));
	close(s);

	s = dial(PORT_RESET);
	(void)!write(s, "x", 1);
	(void)await(s, POLLIN, POLLERR);
	told_text("reset with text unread", buf, recv(s, buf, 16, 0));
	said("reset with text unread, then", recv(s, buf, 16, 0));
	said("reset with text unread, at last", recv(s, buf, 16, 0));
	close(s);

	s = dial(PORT_RESET);
	(void)recv(s, buf, 5, MSG_WAITALL);
	(void)!write(s, "x", 1);
	(void)await(s, POLLIN, POLLERR);
	said("reset: waiting read", recv(s, buf, 5, MSG_WAITALL));
	close(s);

	s = dial(PORT_FIN_RESET);
	said("FIN: read", read(s, buf, 1));
	(void)!write(s, "x", 1);
	told_events("FIN and reset", await(s, POLLIN | POLLOUT | POLLRDHUP, POLLERR | POLLHUP));
	said("FIN and reset: read", read(s, buf, 1));
	said("FIN and reset: write", write(s, "x", 1));
	told_pipes("FIN and reset: write");
	told_soerror("FIN and reset", s);
	close(s);
}

/* ---- what the peer sees of our ends ---- */

static int dial_count(char id[static 8])
{
	const int s = dial(PORT_COUNT);

	if (recv(s, id, 7, MSG_WAITALL) != 7)
		tell("no number");
	id[7] = '\0';
	return s;
}

static void told_end(const char *what, const char id[static 8])
{
	char question[32];

	snprintf(question, sizeof(question), "ended %s", id);
	told_by_peer(what, question);
}

static void part_closing(void)
{
	const struct linger at_once = { 1, 0 }, patient = { 1, 5 };
	const struct sockaddr_in counts = at(peer, PORT_COUNT),
				 nobody = { .sin_family = AF_UNSPEC };
	char id[8], *const big = calloc(1, 300000);
	int s = dial_count(id), status;
	pid_t child;

	(void)!write(s, "abc", 3);
	said("close", close(s));
	told_end("close", id);

	s = dial_count(id);
	(void)!write(s, "abc", 3);
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	said("close with linger of 0", close(s));
	told_end("close with linger of 0", id);

	s = dial_count(id);
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &patient, sizeof(patient));
	(void)!write(s, big, 300000);
	said("close with linger", close(s));
	told_end("close with linger", id);

	s = dial_count(id);
	(void)!write(s, "q", 1); /* the peer answers a q */
	(void)polled(s, POLLIN, WAIT_MS);
	said("close with text unread", close(s));
	told_end("close with text unread", id);

	s = dial_count(id);
	child = fork();
	if (!child) {
		(void)!write(s, "child", 5);
		_exit(0);
	}
	close(s);
	(void)waitpid(child, &status, 0);
	told_end("exit", id);

	s = dial_count(id);
	child = fork();
	if (!child) {
		(void)!write(s, "child", 5);
		raise(SIGKILL);
	}
	close(s);
	(void)waitpid(child, &status, 0);
	told_end("SIGKILL", id);

	s = dial_count(id);
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	child = fork();
	if (!child) {
		(void)!write(s, "child", 5);
		raise(SIGKILL);
	}
	close(s);
	(void)waitpid(child, &status, 0);
	told_end("SIGKILL with linger of 0", id);

	s = dial_count(id);
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &patient, sizeof(patient));
	child = fork();
	if (!child) {
		(void)!write(s, big, 300000);
		raise(SIGKILL);
	}
	close(s);
	(void)waitpid(child, &status, 0);
	told_end("SIGKILL with linger", id);

	s = dial_count(id);
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	child = fork();
	if (!child) {
		usleep(200000);
		said("linger of 0, closed by another", write(s, "child", 5));
		_exit(0);
	}
	close(s);
	(void)waitpid(child, &status, 0);
	told_end("linger of 0, the last of two closes", id);

	s = dial_count(id);
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &(const struct linger){ 0 }, sizeof(at_once));
	(void)!write(s, "abc", 3);
	close(s);
	told_end("linger of 0 taken back", id);

	s = dial_count(id);
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &(const struct linger){ 0 }, sizeof(at_once));
	close(s);
	told_end("linger of 0 taken back, and no text", id);

	s = dial_count(id);
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &(const struct linger){ 0 }, sizeof(at_once));
	(void)!write(s, big, 300000);
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(s);
	told_end("linger of 0 taken back, and set again", id);

	s = dial_count(id);
	(void)setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	said("disconnect", connect(s, (const struct sockaddr *)&nobody, sizeof(nobody)));
	told_end("disconnect with linger of 0", id);
	said("connect again", connect(s, (const struct sockaddr *)&counts, sizeof(counts)));
	(void)recv(s, id, 7, MSG_WAITALL);
	close(s);
	told_end("linger of 0, connected again", id);

	s = dial_count(id);
	child = fork();
	if (!child) {
		usleep(100000);
		(void)!write(s, "child", 5);
		_exit(0);
	}
	(void)!write(s, "parent", 6);
	close(s);
	told_end("the last of two closes", id);
	(void)waitpid(child, &status, 0);

	s = dial_count(id);
	(void)shutdown(s, SHUT_WR);
	told_end("shutdown", id);
	close(s);

	s = dial_count(id);
	(void)shutdown(s, SHUT_RD);
	(void)!write(s, "q", 1); /* the answer is for nobody */
	usleep(100000);
	said("write after the answer", write(s, "more", 4));
	(void)shutdown(s, SHUT_WR);
	told_end("shutdown of reading", id);
	close(s);
	free(big);
}

/* ---- back-pressure ---- */

static void part_pressure(void)
{
	const int s = dial(PORT_STOPPED);
	char *const big = calloc(1, MIB);
	char answer[64];
	long total = 0, n;

	(void)fcntl(s, F_SETFL, O_NONBLOCK);
	for (int idle = 0; idle < 20;) {
		n = send(s, big, MIB, MSG_NOSIGNAL);
		if (n > 0) {
			total += n;
			idle = 0;
		} else {
			idle++;
			usleep(10000);
		}
	}
	said("full", n);
	tell("full: more than 10000 octets, less than 40 MB: %d",
	     total > 10000 && total < 40000000);
	told_events("full poll", polled(s, POLLIN | POLLOUT, 100));
	tell("full SIOCOUTQ is some: %d", ioctl(s, SIOCOUTQ, &n) == 0 && (int)n > 10000);
	command("go", answer, sizeof(answer));
	told_events("going on", polled(s, POLLOUT, WAIT_MS));
	(void)shutdown(s, SHUT_WR);
	n = 0;
	(void)fcntl(s, F_SETFL, 0);
	(void)recv(s, &n, sizeof(n), MSG_WAITALL);
	tell("the peer got all: %d", n == total);
	close(s);
	command("stop", answer, sizeof(answer));
	free(big);
}

/* ---- listeners ---- */

static void told_flags(const char *what, int fd)
{
	tell("%s: nonblocking %d, close-on-exec %d", what, (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0,
	     (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
}

static long unsent_octets(int s)
{
	int n = 0;

	return ioctl(s, SIOCOUTQNSD, &n) ? -1 : n;
}

/* What a program may write beyond what was sent. */
static void part_lowat(void)
{
	enum { LOWAT = 1 << 17 };
	char *const big = calloc(1, MIB), answer[64];
	int s;

	command("stop", answer, sizeof(answer));
	for (int when = 0; when < 2; when++) {
		const struct sockaddr_in to = at(peer, PORT_STOPPED);
		long got, total = 0;

		s = socket(AF_INET, SOCK_STREAM, 0);
		if (!when)
			said("lowat", set_option(s, IPPROTO_TCP, TCP_NOTSENT_LOWAT, LOWAT));
		said("lowat connect", connect(s, (const struct sockaddr *)&to, sizeof(to)));
		if (when)
			said("lowat", set_option(s, IPPROTO_TCP, TCP_NOTSENT_LOWAT, LOWAT));
		(void)fcntl(s, F_SETFL, O_NONBLOCK);
		for (int idle = 0; idle < 20;) {
			got = send(s, big, MIB, MSG_NOSIGNAL);
			total += got > 0 ? got : 0;
			idle = got > 0 ? 0 : idle + 1;
			usleep(10000);
		}
		got = unsent_octets(s);
		tell("lowat: some was taken: %d", total > 0);
		if (got < LOWAT / 4 || got > LOWAT + LOWAT / 2)
			tell("lowat: %ld octets wait unsent", got);
		told_events("lowat: poll", polled(s, POLLOUT, 0));
		close(s);
	}
	command("go", answer, sizeof(answer));
	free(big);
}

static void part_listen(void)
{
	struct sockaddr_in a, me;
	socklen_t len = sizeof(a);
	int port, l = make_listener(&port), s, other;
	char buf[16], answer[64];

	told_events("listener poll", polled(l, POLLIN | POLLRDHUP, 0));
	said("listener getpeername", getpeername(l, (struct sockaddr *)&a, &len));
	said("listener read", read(l, buf, 1));
	said("listener write", write(l, "x", 1));
	told_pipes("listener write");
	a = at(peer, PORT_ECHO);
	said("listener connect", connect(l, (struct sockaddr *)&a, sizeof(a)));
	tell("listener SO_ACCEPTCONN: %ld", number_option(l, SOL_SOCKET, SO_ACCEPTCONN));
	said("listen again", listen(l, 20));
	other = socket(AF_INET, SOCK_STREAM, 0);
	me = at(ours, port);
	s = bind(other, (struct sockaddr *)&me, sizeof(me));
	said("the same port", s ? s : listen(other, 1));
	close(other);
	(void)fcntl(l, F_SETFL, O_NONBLOCK);
	said("nothing to accept", accept(l, NULL, NULL));
	peer_connects(port, "greet");
	told_events("listener poll, one there", polled(l, POLLIN, WAIT_MS));
	len = sizeof(a);
	s = accept(l, (struct sockaddr *)&a, &len);
	said_fine("accept", s);
	tell("accepted from %s, len %d", inet_ntoa(a.sin_addr), (int)len);
	told_flags("accepted", s);
	told_text("accepted greets", buf, recv(s, buf, 10, MSG_WAITALL));
	len = sizeof(me);
	said("accepted getsockname", getsockname(s, (struct sockaddr *)&me, &len));
	tell("accepted at %s, our port %d", inet_ntoa(me.sin_addr), ntohs(me.sin_port) == port);
	len = sizeof(me);
	said("accepted getpeername", getpeername(s, (struct sockaddr *)&me, &len));
	tell("accepted peer is the same: %d", !memcmp(&a, &me, sizeof(a)));
	close(s);
	peer_connects(port, "greet");
	(void)polled(l, POLLIN, WAIT_MS);
	s = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	said_fine("accept4", s);
	told_flags("accept4", s);
	close(s);
	said("accept4 of nonsense", accept4(l, NULL, NULL, 4));
	peer_connects(port, "greet");
	(void)polled(l, POLLIN, WAIT_MS);
	len = 4;
	s = accept(l, (struct sockaddr *)&a, &len);
	tell("accept with little room: %d, len %d", s >= 0, (int)len);
	close(s);
	said("listener shutdown", shutdown(l, SHUT_RDWR));
	(void)fcntl(l, F_SETFL, 0);
	said("accept after shutdown", accept(l, NULL, NULL));
	close(l);
	snprintf(buf, sizeof(buf), "connect %d greet", port);
	command(buf, answer, sizeof(answer));
	tell("after close: %s", answer);
}

static void part_inherit(void)
{
	int port, l = make_listener(&port), s;

	(void)set_option(l, IPPROTO_TCP, TCP_NODELAY, 1);
	(void)set_option(l, SOL_SOCKET, SO_KEEPALIVE, 1);
	(void)set_option(l, IPPROTO_TCP, TCP_KEEPIDLE, 33);
	(void)set_option(l, IPPROTO_IP, IP_TOS, 0x20);
	(void)set_option(l, SOL_SOCKET, SO_RCVBUF, 70000);
	peer_connects(port, "greet");
	s = accept(l, NULL, NULL);
	tell("inherited: TCP_NODELAY %ld SO_KEEPALIVE %ld TCP_KEEPIDLE %ld IP_TOS %ld SO_RCVBUF "
	     "%ld",
	     number_option(s, IPPROTO_TCP, TCP_NODELAY), number_option(s, SOL_SOCKET, SO_KEEPALIVE),
	     number_option(s, IPPROTO_TCP, TCP_KEEPIDLE), number_option(s, IPPROTO_IP, IP_TOS),
	     number_option(s, SOL_SOCKET, SO_RCVBUF));
	close(s);
	close(l);
}

/* A blocked accept(), and blocked readers and writers, in threads. */
static void *accepts(void *arg)
{
	const int s = accept(*(int *)arg, NULL, NULL);

	said_fine("thread accepts", s);
	close(s);
	return NULL;
}

static void *echoes(void *arg)
{
	const int s = dial(PORT_ECHO);
	char buf[1000];
	long n = 0;

	for (int i = 0; i < 50; i++) {
		memset(buf, i, sizeof(buf));
		if (write(s, buf, sizeof(buf)) != sizeof(buf) ||
		    recv(s, buf, sizeof(buf), MSG_WAITALL) != sizeof(buf) || buf[999] != i)
			break;
		n++;
	}
	close(s);
	*(long *)arg = n;
	return NULL;
}

static void part_threads(void)
{
	int port, l = make_listener(&port);
	pthread_t t, many[8];
	long n[8], sum = 0;

	(void)pthread_create(&t, NULL, accepts, &l);
	peer_connects(port, "greet");
	(void)pthread_join(t, NULL);
	close(l);
	for (int i = 0; i < 8; i++)
		(void)pthread_create(&many[i], NULL, echoes, &n[i]);
	for (int i = 0; i < 8; i++) {
		(void)pthread_join(many[i], NULL);
		sum += n[i];
	}
	tell("8 threads echo: %ld", sum);
}

/* ---- descriptors ---- */

static void part_descriptors(void)
{
	int s = dial(PORT_ECHO), d, p[2];
	char buf[16], number[12];
	struct stat st;
	FILE *f;
	pid_t child;

	said("fstat", fstat(s, &st));
	tell("is a socket: %d", S_ISSOCK(st.st_mode));
	d = dup(s);
	close(s);
	(void)!write(d, "dup", 3);
	told_text("dup", buf, recv(d, buf, 3, MSG_WAITALL));
	said("dup2", dup2(d, 77));
	close(d);
	(void)!write(77, "dup2", 4);
	told_text("dup2", buf, recv(77, buf, 4, MSG_WAITALL));
	said("dup2 on itself", dup2(77, 77));
	d = fcntl(77, F_DUPFD_CLOEXEC, 90);
	said("F_DUPFD_CLOEXEC", d);
	told_flags("F_DUPFD_CLOEXEC", d);
	told_flags("its origin", 77);
	said("dup3 on itself", dup3(d, d, 0));
	said("dup3", dup3(d, 78, O_CLOEXEC));
	close(d);
	close(78);
	tell("the copy's peer: %d", getpeername(77, (struct sockaddr *)&(struct sockaddr_in){ 0 },
						&(socklen_t){ sizeof(struct sockaddr_in) }));
	snprintf(number, sizeof(number), "%d", 77);
	child = fork();
	if (!child) {
		execl(self_path, "socket_calls", "exec", number, NULL);
		_exit(9);
	}
	close(77);
	(void)waitpid(child, NULL, 0);

	/* A descriptor's number is another file's afterwards. */
	s = dial(PORT_ECHO);
	f = fdopen(s, "r+");
	fputs("stdio\n", f);
	fflush(f);
	tell("stdio: %s", fgets(buf, sizeof(buf), f) ? "read" : "nothing");
	fclose(f);
	(void)!pipe(p);
	tell("the number is a pipe's: %d", p[0] == s);
	(void)!write(p[1], "pipe", 4);
	told_text("the pipe", buf, read(p[0], buf, 4));
	close(p[0]);
	close(p[1]);
	s = dial(PORT_ECHO);
	(void)close_range((unsigned)s, (unsigned)s, 0);
	(void)!pipe(p);
	(void)!write(p[1], "pipe", 4);
	told_text("after close_range", buf, read(p[0], buf, 4));
	close(p[0]);
	close(p[1]);
}

/* After exec: the descriptor is what it was. */
static int run_exec(int s)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);
	char buf[16];

	said("exec getpeername", getpeername(s, (struct sockaddr *)&a, &len));
	tell("exec peer: %s %d", inet_ntoa(a.sin_addr), ntohs(a.sin_port));
	(void)!write(s, "exec", 4);
	told_text("exec", buf, recv(s, buf, 4, MSG_WAITALL));
	tell("exec SO_TYPE %ld SO_DOMAIN %ld", number_option(s, SOL_SOCKET, SO_TYPE),
	     number_option(s, SOL_SOCKET, SO_DOMAIN));
	said("exec shutdown", shutdown(s, SHUT_WR));
	said("exec end", read(s, buf, 1));
	return 0;
}

/* ---- IPv6, and IPv4 in it ---- */

static void part_mapped(void)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(PORT_ECHO) }, b;
	struct sockaddr_in in = at(peer, PORT_ECHO);
	socklen_t len = sizeof(b);
	char text[64];
	int s = socket(AF_INET6, SOCK_STREAM, 0), port;

	snprintf(text, sizeof(text), "::ffff:%s", inet_ntoa(peer));
	(void)inet_pton(AF_INET6, text, &a.sin6_addr);
	said("mapped connect", connect(s, (struct sockaddr *)&a, sizeof(a)));
	said("mapped getpeername", getpeername(s, (struct sockaddr *)&b, &len));
	tell("mapped peer: family %d len %d %s", b.sin6_family, (int)len,
	     inet_ntop(AF_INET6, &b.sin6_addr, text, sizeof(text)));
	close(s);
	s = socket(AF_INET6, SOCK_STREAM, 0);
	said("IPv4 address on IPv6", connect(s, (struct sockaddr *)&in, sizeof(in)));
	close(s);
	s = socket(AF_INET6, SOCK_STREAM, 0);
	(void)set_option(s, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	said("mapped on V6ONLY", connect(s, (struct sockaddr *)&a, sizeof(a)));
	close(s);
	s = socket(AF_INET6, SOCK_STREAM, 0);
	a = (struct sockaddr_in6){ .sin6_family = AF_INET6 };
	said("v6 bind any", bind(s, (struct sockaddr *)&a, sizeof(a)));
	said("v6 listen", listen(s, 5));
	len = sizeof(b);
	(void)getsockname(s, (struct sockaddr *)&b, &len);
	port = ntohs(b.sin6_port);
	peer_connects(port, "greet");
	len = sizeof(b);
	close(accept(s, (struct sockaddr *)&b, &len));
	tell("v6 accepts %s", inet_ntop(AF_INET6, &b.sin6_addr, text, sizeof(text)));
	close(s);
	s = socket(AF_INET6, SOCK_STREAM, 0);
	(void)set_option(s, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	said("V6ONLY bind", bind(s, (struct sockaddr *)&a, sizeof(a)));
	said("V6ONLY listen", listen(s, 5));
	len = sizeof(b);
	(void)getsockname(s, (struct sockaddr *)&b, &len);
	snprintf(text, sizeof(text), "connect %d greet", ntohs(b.sin6_port));
	told_by_peer("V6ONLY", text);
	close(s);
}

/* ---- several at one port ---- */

enum { REUSE_ADDR = 1, REUSE_PORT = 2, ONLY6 = 4 };

/* addr NULL: ::. It does not block. */
static int shared(const char *what, const struct in_addr *addr, int port, int with)
{
	const struct sockaddr_in in = at(addr ? *addr : ours, port);
	const struct sockaddr_in6 in6 = { .sin6_family = AF_INET6,
					  .sin6_port = htons((uint16_t)port) };
	const int s = socket(addr ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
	char text[64];
	int rc;

	(void)set_option(s, SOL_SOCKET, SO_REUSEADDR, !!(with & REUSE_ADDR));
	(void)set_option(s, SOL_SOCKET, SO_REUSEPORT, !!(with & REUSE_PORT));
	if (!addr)
		(void)set_option(s, IPPROTO_IPV6, IPV6_V6ONLY, !!(with & ONLY6));
	rc = addr ? bind(s, (const struct sockaddr *)&in, sizeof(in))
		  : bind(s, (const struct sockaddr *)&in6, sizeof(in6));
	snprintf(text, sizeof(text), "%s: bind", what);
	if (!said(text, rc)) {
		snprintf(text, sizeof(text), "%s: listen", what);
		said(text, listen(s, 50));
	}
	return s;
}

static int accepted(int l)
{
	int n = 0, s;

	while (polled(l, POLLIN, 100) && (s = accept(l, NULL, NULL)) >= 0) {
		close(s);
		n++;
	}
	return n;
}

static void part_reuse_port(void)
{
	const struct in_addr any = { 0 };
	const int a = shared("first", &ours, 9201, REUSE_PORT),
		  b = shared("second", &ours, 9201, REUSE_PORT);
	int na, nb, status;
	pid_t child;

	close(shared("without", &ours, 9201, 0));
	close(shared("with SO_REUSEADDR alone", &ours, 9201, REUSE_ADDR));
	close(shared("any, without", &any, 9201, 0));
	for (int i = 0; i < 40; i++)
		peer_connects(9201, "greet");
	na = accepted(a);
	nb = accepted(b);
	tell("all came: %d, to either some: %d", na + nb, na > 0 && nb > 0);
	close(a);
	for (int i = 0; i < 10; i++)
		peer_connects(9201, "greet");
	tell("to who is left: %d", accepted(b));
	child = fork();
	if (!child) {
		close(b);
		(void)!setuid(65534);
		close(shared("another user", &ours, 9201, REUSE_PORT));
		_exit(0);
	}
	(void)waitpid(child, &status, 0);
	child = fork();
	if (!child) {
		const int c = shared("another process", &ours, 9201, REUSE_PORT);

		for (int i = 0; i < 40; i++)
			peer_connects(9201, "greet");
		nb = accepted(b);
		tell("another process: %d, some: %d", accepted(c) + nb, nb > 0 && nb < 40);
		_exit(0);
	}
	(void)waitpid(child, &status, 0);
	close(b);
}

static void part_reuse_addr(void)
{
	const struct in_addr any = { 0 };
	const struct sockaddr_in here = at(ours, 9202);
	const int a = socket(AF_INET, SOCK_STREAM, 0), b = socket(AF_INET, SOCK_STREAM, 0);

	(void)set_option(a, SOL_SOCKET, SO_REUSEADDR, 1);
	(void)set_option(b, SOL_SOCKET, SO_REUSEADDR, 1);
	said("reuse: bind", bind(a, (const struct sockaddr *)&here, sizeof(here)));
	said("reuse: bind another", bind(b, (const struct sockaddr *)&here, sizeof(here)));
	said("reuse: listen", listen(a, 1));
	said("reuse: listen another", listen(b, 1));
	close(b);
	close(shared("reuse: who listens", &ours, 9202, REUSE_ADDR));
	close(shared("reuse: any", &any, 9202, REUSE_ADDR));
	close(shared("reuse: any of both", NULL, 9202, REUSE_ADDR));
	close(shared("reuse: any of IPv6", NULL, 9202, REUSE_ADDR | ONLY6));
	close(a);
	close(shared("reuse: when it is gone", &any, 9202, REUSE_ADDR));
}

static void part_v6only(void)
{
	const struct in_addr any = { 0 };
	int six = shared("IPv6 alone", NULL, 9203, ONLY6), four, s;
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	said("V6ONLY when it is bound", set_option(six, IPPROTO_IPV6, IPV6_V6ONLY, 0));
	told_by_peer("IPv6 alone", "connect 9203 greet");
	four = shared("IPv4 beside it", &any, 9203, 0);
	told_by_peer("IPv4 beside it", "connect 9203 greet");
	(void)polled(four, POLLIN, WAIT_MS);
	s = accept(four, (struct sockaddr *)&a, &len);
	tell("accepted by IPv4: %s", s < 0 ? "nothing" : inet_ntoa(a.sin_addr));
	said("and by IPv6", accept(six, NULL, NULL));
	close(s);
	close(shared("IPv6 alone, again", NULL, 9203, ONLY6));
	close(six);
	close(shared("both beside IPv4", NULL, 9203, 0));
	close(four);
	/* Another port: who closed first waits in TIME-WAIT. */
	six = shared("both", NULL, 9204, 0);
	told_by_peer("both", "connect 9204 greet");
	close(shared("IPv4 beside both", &any, 9204, 0));
	close(shared("IPv4 beside both, an address", &ours, 9204, REUSE_ADDR));
	close(six);
}

/* ---- waiting for events ---- */

static void told_epoll(const char *what, int ep, int ms)
{
	struct epoll_event e = { 0 };
	const int n = epoll_wait(ep, &e, 1, ms);

	if (n < 0)
		(void)said(what, n);
	else
		told_events(what, n ? e.events : 0);
}

static void part_epoll(void)
{
	const struct sockaddr_in to = at(peer, PORT_ECHO);
	const int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP };
	int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	char buf[16];

	(void)connect(s, (const struct sockaddr *)&to, sizeof(to));
	said("epoll add", epoll_ctl(ep, EPOLL_CTL_ADD, s, &e));
	told_epoll("level: connected", ep, WAIT_MS);
	told_epoll("level: again", ep, 0);
	e.events = EPOLLIN | EPOLLRDHUP;
	said("epoll mod", epoll_ctl(ep, EPOLL_CTL_MOD, s, &e));
	told_epoll("level: nothing", ep, 0);
	(void)!write(s, "abcd", 4);
	told_epoll("level: text", ep, WAIT_MS);
	(void)recv(s, buf, 2, 0);
	told_epoll("level: half read", ep, 0);
	(void)recv(s, buf, 4, 0);
	told_epoll("level: read", ep, 0);
	e.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
	(void)epoll_ctl(ep, EPOLL_CTL_MOD, s, &e);
	told_epoll("edge: nothing", ep, 0);
	(void)!write(s, "abcd", 4);
	told_epoll("edge: text", ep, WAIT_MS);
	(void)recv(s, buf, 2, 0);
	told_epoll("edge: half read", ep, 0);
	(void)!write(s, "e", 1);
	told_epoll("edge: more", ep, WAIT_MS);
	(void)recv(s, buf, 16, 0);
	(void)shutdown(s, SHUT_WR);
	told_epoll("edge: both ended", ep, WAIT_MS);
	told_epoll("edge: told once", ep, 0);
	said("epoll del", epoll_ctl(ep, EPOLL_CTL_DEL, s, NULL));
	close(s);

	s = dial(PORT_GREET_FIN);
	(void)await(s, POLLRDHUP, POLLRDHUP);
	e.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT;
	(void)epoll_ctl(ep, EPOLL_CTL_ADD, s, &e);
	told_epoll("oneshot: peer's FIN", ep, WAIT_MS);
	told_epoll("oneshot: no more", ep, 0);
	close(s);

	s = dial(PORT_RESET);
	(void)recv(s, buf, 5, MSG_WAITALL);
	e.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
	(void)epoll_ctl(ep, EPOLL_CTL_ADD, s, &e);
	(void)!write(s, "x", 1);
	told_epoll("edge: reset", ep, WAIT_MS);
	told_soerror("edge: reset", s);
	close(s);

	s = dial(PORT_RESET);
	(void)recv(s, buf, 5, MSG_WAITALL);
	e.events = EPOLLOUT;
	(void)epoll_ctl(ep, EPOLL_CTL_ADD, s, &e);
	(void)!write(s, "x", 1);
	(void)await(s, POLLIN, POLLERR);
	told_epoll("level: reset", ep, WAIT_MS);
	close(s);
	close(ep);
}

static void told_select(const char *what, int s, int ms)
{
	struct timeval tv = { ms / 1000, ms % 1000 * 1000 };
	fd_set in, out, except;
	int n;

	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_ZERO(&except);
	FD_SET(s, &in);
	FD_SET(s, &out);
	FD_SET(s, &except);
	n = select(s + 1, &in, &out, &except, &tv);
	tell("%s: %d, read %d, write %d, except %d", what, n, FD_ISSET(s, &in) != 0,
	     FD_ISSET(s, &out) != 0, FD_ISSET(s, &except) != 0);
}

static void part_select(void)
{
	int s = dial(PORT_ECHO);
	char buf[8];

	told_select("select idle", s, 0);
	(void)!write(s, "x", 1);
	(void)polled(s, POLLIN, WAIT_MS);
	told_select("select text", s, 0);
	close(s);
	s = dial(PORT_RESET);
	(void)recv(s, buf, 5, MSG_WAITALL);
	(void)!write(s, "x", 1);
	(void)await(s, POLLIN, POLLERR);
	told_select("select reset", s, 0);
	close(s);
}

/* ---- TCP_INFO ---- */

static void told_state(const char *what, int s)
{
	struct tcp_info i = { 0 };
	socklen_t len = sizeof(i);
	const int rc = getsockopt(s, IPPROTO_TCP, TCP_INFO, &i, &len);

	tell("%s: %d, state %d, len %d", what, rc, i.tcpi_state, (int)len);
}

static int state_of(int s)
{
	struct tcp_info i = { 0 };
	socklen_t len = sizeof(i);

	return getsockopt(s, IPPROTO_TCP, TCP_INFO, &i, &len) ? -1 : i.tcpi_state;
}

/* The layout of linux/tcp.h, which netinet/tcp.h does not have to its end. */
struct long_info {
	struct tcp_info head;
	uint64_t pacing_rate, max_pacing_rate, bytes_acked, bytes_received;
	uint32_t segs_out, segs_in, notsent_bytes, min_rtt, data_segs_in, data_segs_out;
	uint64_t delivery_rate, busy_time, rwnd_limited, sndbuf_limited;
	uint32_t delivered, delivered_ce;
	uint64_t bytes_sent, bytes_retrans;
	uint32_t dsack_dups, reord_seen, rcv_ooopack, snd_wnd;
};

static void part_info(void)
{
	int s = socket(AF_INET, SOCK_STREAM, 0), port, l = make_listener(&port);
	struct long_info i = { 0 };
	socklen_t len = sizeof(i);
	char buf[4000] = "", few[4];

	told_state("info fresh", s);
	close(s);
	told_state("info listener", l);
	close(l);
	s = dial(PORT_ECHO);
	told_state("info connected", s);
	(void)!write(s, buf, 4000);
	(void)recv(s, buf, 4000, MSG_WAITALL);
	for (int n = 0; n < 500; n++) {
		len = sizeof(i);
		(void)getsockopt(s, IPPROTO_TCP, TCP_INFO, &i, &len);
		if (i.bytes_acked >= 4000 && !i.head.tcpi_unacked)
			break;
		usleep(5000);
	}
	tell("info: whole %d, acked %d, received %d, sent %d, mss %d, advmss %d, pmtu %d",
	     len == sizeof(i), (int)(i.bytes_acked / 4000), (int)i.bytes_received,
	     (int)i.bytes_sent, (int)i.head.tcpi_snd_mss, (int)i.head.tcpi_advmss,
	     (int)i.head.tcpi_pmtu);
	tell("info: options %d, rtt %d, cwnd %d, rto %d, min_rtt %d, segments %d %d, window %d",
	     i.head.tcpi_options & 7, i.head.tcpi_rtt > 0, i.head.tcpi_snd_cwnd >= 10,
	     i.head.tcpi_rto >= 200000, i.min_rtt > 0, i.segs_out > 2, i.segs_in > 2,
	     i.snd_wnd > 1000);
	tell("info: retransmissions %d %d, unacked %d, not sent %d, ca_state %d",
	     (int)i.head.tcpi_total_retrans, (int)i.bytes_retrans, (int)i.head.tcpi_unacked,
	     (int)i.notsent_bytes, i.head.tcpi_ca_state);
	tell("info: data segments %d %d, delivered %d, TCP_MAXSEG %ld", i.data_segs_in > 0,
	     i.data_segs_out > 0, i.delivered > 0, number_option(s, IPPROTO_TCP, TCP_MAXSEG));
	len = sizeof(few);
	said("info short", getsockopt(s, IPPROTO_TCP, TCP_INFO, few, &len));
	tell("info short: len %d, state %d", (int)len, few[0]);
	(void)shutdown(s, SHUT_WR);
	(void)read(s, buf, 1);
	close(s);
	s = dial(PORT_STOPPED);
	(void)shutdown(s, SHUT_WR);
	for (int n = 0; n < 1000 && state_of(s) != TCP_FIN_WAIT2; n++)
		usleep(5000);
	told_state("info FIN-WAIT-2", s);
	close(s);
	s = dial(PORT_GREET_FIN);
	for (int n = 0; n < 1000 && state_of(s) != TCP_CLOSE_WAIT; n++)
		usleep(5000);
	told_state("info CLOSE-WAIT", s);
	close(s);
}

/* ---- options of running connections ---- */

static void part_running(void)
{
	static const struct {
		const char *name;
		int level, option, value;
	} some[] = {
		{ "TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 1 },
		{ "TCP_QUICKACK", IPPROTO_TCP, TCP_QUICKACK, 1 },
		{ "TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 60 },
		{ "TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 5 },
		{ "TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 3 },
		{ "SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ "TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 20000 },
		{ "TCP_CORK", IPPROTO_TCP, TCP_CORK, 1 },
		{ "TCP_CORK", IPPROTO_TCP, TCP_CORK, 0 },
		{ "IP_TOS", IPPROTO_IP, IP_TOS, 0x28 },
		{ "IP_TTL", IPPROTO_IP, IP_TTL, 33 },
		{ "SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 50000 },
		{ "SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, 50000 },
	};
	const int s = dial(PORT_ECHO);
	char buf[4] = "";

	for (size_t i = 0; i < sizeof(some) / sizeof(some[0]); i++) {
		const int rc = set_option(s, some[i].level, some[i].option, some[i].value);

		tell("running %s: %s, is %ld", some[i].name, rc ? strerrorname_np(errno) : "0",
		     number_option(s, some[i].level, some[i].option));
	}
	said("running congestion", setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
	(void)!write(s, "last", 4);
	told_text("running echo", buf, recv(s, buf, 4, MSG_WAITALL));
	close(s);
}

static const struct part {
	const char *name;
	void (*run)(void);
} parts[] = {
#define P(name)                    \
	{                          \
#name, part_##name \
	}
	P(fresh),         P(options),    P(connect),    P(connect_slow), P(send_calls),
	P(receive_calls), P(timeouts),   P(half_close), P(big),          P(reset),
	P(closing),       P(pressure),   P(listen),     P(inherit),      P(threads),
	P(descriptors),   P(mapped),     P(epoll),      P(select),       P(info),
	P(running),       P(reuse_port), P(reuse_addr), P(v6only),       P(lowat),
#undef P
};

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "exec"))
		return run_exec(atoi(argv[2]));
	if (argc < 3 || !inet_aton(argv[1], &ours) || !inet_aton(argv[2], &peer))
		return 2;
	self_path = argv[0];
	(void)signal(SIGPIPE, on_pipe);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		if (argc > 3 && strcmp(argv[3], parts[i].name) != 0)
			continue;
		tell("-- %s", parts[i].name);
		alarm(60);
		parts[i].run();
	}
	return 0;
}
