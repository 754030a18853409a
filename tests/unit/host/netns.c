/* SPDX-License-Identifier: Apache-2.0 */
#include "netns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int namespaces[2] = { -1, -1 };

static void fail(const char *what)
{
	(void)fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

void netns_need(const char *programs)
{
	char command[256];

	(void)snprintf(command, sizeof(command),
		       "for p in %s; do command -v $p >/dev/null || exit 1; done", programs);
	if (system(command) == 0)
		return;
	(void)fprintf(stderr, "skipped: needs %s\n", programs);
	exit(77);
}

static int fresh(void)
{
	int fd;

	if (unshare(CLONE_NEWNET) < 0) {
		(void)fprintf(stderr, "skipped: no network namespace can be made here: %s\n",
			      strerror(errno));
		exit(77);
	}
	fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail("/proc/thread-self/ns/net");
	return fd;
}

void netns_fresh(void)
{
	for (int i = 0; i < 2; i++) {
		if (namespaces[i] >= 0)
			close(namespaces[i]);
		namespaces[i] = fresh();
	}
	netns_run(NETNS_HERE, "ip link set lo up");
	netns_run(NETNS_PEER, "ip link set lo up");
}

void netns_enter(enum netns which)
{
	if (setns(namespaces[which], CLONE_NEWNET) < 0)
		fail("setns");
}

void netns_run(enum netns which, const char *fmt, ...)
{
	char command[1024];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	netns_enter(which);
	if (system(command) != 0) {
		(void)fprintf(stderr, "failed: %s\n", command);
		exit(1);
	}
	netns_enter(NETNS_HERE);
}

void netns_output(const char *command, char *ret_text, unsigned size)
{
	FILE *f = popen(command, "re");
	size_t n;

	if (!f)
		fail(command);
	n = fread(ret_text, 1, size - 1, f);
	ret_text[n] = 0;
	if (pclose(f) != 0) {
		(void)fprintf(stderr, "failed: %s\n", command);
		exit(1);
	}
}

void netns_veth(void)
{
	netns_run(NETNS_HERE, "ip link add here type veth peer name peer netns /proc/%d/fd/%d",
		  (int)getpid(), namespaces[NETNS_PEER]);
	netns_run(NETNS_HERE, "ip addr add 10.77.0.1/24 brd + dev here; "
			      "ip addr add fd77::1/64 dev here nodad; ip link set here up");
	netns_run(NETNS_PEER, "ip addr add 10.77.0.2/24 brd + dev peer; "
			      "ip addr add fd77::2/64 dev peer nodad; ip link set peer up");
	/* The kernel hears of carriers beside us, and drops what is sent before. */
	netns_run(NETNS_HERE, "until ip -o link show here | grep -q 'state UP'; do :; done");
	netns_run(NETNS_PEER, "until ip -o link show peer | grep -q 'state UP'; do :; done");
}

static socklen_t make_sockaddr(const char *addr, uint16_t port, struct sockaddr_storage *ret_sa)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	if (inet_pton(AF_INET, addr, &in.sin_addr) == 1) {
		memcpy(ret_sa, &in, sizeof(in));
		return sizeof(in);
	}
	if (inet_pton(AF_INET6, addr, &in6.sin6_addr) != 1)
		fail(addr);
	memcpy(ret_sa, &in6, sizeof(in6));
	return sizeof(in6);
}

int netns_connect(enum netns from, const char *addr, uint16_t port)
{
	struct sockaddr_storage sa = { 0 };
	const socklen_t len = make_sockaddr(addr, port, &sa);
	struct pollfd p = { .events = POLLOUT };
	socklen_t error_len = sizeof(int);
	int error = 0;

	netns_enter(from);
	p.fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	netns_enter(NETNS_HERE);
	if (p.fd < 0)
		fail("socket");
	if (connect(p.fd, (struct sockaddr *)&sa, len) < 0)
		error = errno;
	if (error == EINPROGRESS) {
		if (poll(&p, 1, 400) == 0)
			error = ETIMEDOUT;
		else
			(void)getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &error, &error_len);
	}
	close(p.fd);
	return -error;
}

int netns_listen(const char *addr, bool only6, uint16_t *ret_port)
{
	struct sockaddr_storage sa = { 0 };
	socklen_t len = make_sockaddr(addr, 0, &sa);
	const int v6only = only6, fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket");
	if (sa.ss_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only));
	if (bind(fd, (struct sockaddr *)&sa, len) < 0 || listen(fd, 8) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		fail("listen");
	*ret_port = sa.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)&sa)->sin_port)
					    : ntohs(((struct sockaddr_in6 *)&sa)->sin6_port);
	return fd;
}
