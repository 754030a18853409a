/* SPDX-License-Identifier: Apache-2.0 */
/* $TCPFSM_ONLY: "connect", "listen", and ports (80,8000-8999), separated by commas. What is not meant
 * becomes a socket of the kernel's at bind(), listen() or connect().
 */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/preload/preload.h"

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

bool is_all_meant(void)
{
	return !only_meant || !*only_meant;
}

bool is_meant(const char *what, uint16_t port)
{
	const char *const only = only_meant;
	bool roles, ports;

	if (is_all_meant())
		return true;
	roles = strstr(only, "connect") || strstr(only, "listen");
	ports = strpbrk(only, "0123456789") != NULL;
	return (!roles || strstr(only, what)) && (!ports || port_in(only, port));
}

/* Socket buffers are doubled when they are set. */
static int set_again(const struct option *o)
{
	const bool doubled = o->level == SOL_SOCKET &&
			     (o->name == SO_SNDBUF || o->name == SO_RCVBUF);

	return doubled ? o->value / 2 : o->value;
}

int kernel_socket(const struct sock *s, int flags)
{
	const int fd = (int)syscall(SYS_socket, s->domain, SOCK_STREAM | flags, 0);

	if (fd < 0)
		return -errno;
	for (unsigned i = 0; i < s->options_n; i++) {
		const int value = set_again(&s->options[i]);

		(void)syscall(SYS_setsockopt, fd, s->options[i].level, s->options[i].name, &value,
			      sizeof(value));
	}
	(void)syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &s->linger, sizeof(s->linger));
	return fd;
}

void carry(int from, int to, const int *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct timeval room; /* the largest of them */
		socklen_t len = sizeof(room);

		if (!syscall(SYS_getsockopt, from, SOL_SOCKET, names[i], &room, &len))
			(void)syscall(SYS_setsockopt, to, SOL_SOCKET, names[i], &room, len);
	}
}

int hand_back(int fd, const struct sock *s)
{
	static const int times[] = { SO_RCVTIMEO, SO_SNDTIMEO };
	const int flags = (int)syscall(SYS_fcntl, fd, F_GETFD);
	const int kernel = s->reserve >= 0 ? s->reserve : kernel_socket(s, 0);
	int rc = 0;

	if (kernel < 0)
		return kernel;
	carry(fd, kernel, times, sizeof(times) / sizeof(times[0]));
	if (!blocks(fd))
		(void)syscall(SYS_fcntl, kernel, F_SETFL, O_NONBLOCK);
	if (syscall(SYS_dup3, kernel, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0)
		rc = -errno;
	if (kernel != s->reserve)
		(void)syscall(SYS_close, kernel);
	if (!rc)
		put(fd, NULL);
	return rc;
}
