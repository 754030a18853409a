/* SPDX-License-Identifier: Apache-2.0 */
/* A user of proto/stream.h, for test_programs.py.
 *
 * stream_echo listen ADDRESS PORT	serves one connection, and tells its peer
 * stream_echo connect ADDRESS PORT	sends a line, half-closes, prints what comes, and the connection
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/stream.h"

static int fail(const char *what, int rc)
{
	fprintf(stderr, "%s: %s\n", what, strerror(-rc));
	return 1;
}

static int serve(const struct sockaddr_in6 *local)
{
	const struct tcpfsm_listener listener = { .local = *local,
						  .backlog = 10,
						  .tcp = "Nagle=no" };
	const int l = tcpfsm_listen(&listener, SOCK_CLOEXEC);
	struct tcpfsm_name name, again;
	char buf[4096];
	ssize_t n;
	int fd;

	if (l < 0)
		return fail("listen", l);
	if (tcpfsm_listen(&listener, 0) != -EADDRINUSE)
		return fail("listen twice", 0);
	puts("ready");
	fflush(stdout);
	fd = tcpfsm_accept(l, AF_INET, SOCK_CLOEXEC, &name);
	if (fd < 0)
		return fail("accept", fd);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		if (write(fd, buf, (size_t)n) != n)
			return fail("write", -errno);
	if (tcpfsm_name(fd, &again) || again.id != name.id || !tcpfsm_name(0, &again))
		return fail("name", 0);
	printf("port %u\n", ntohs(name.remote.sin6_port));
	return 0;
}

static int talk(const struct tcpfsm_connect *c)
{
	struct tcpfsm_name name;
	struct tcpfsm_info info;
	char buf[4096];
	ssize_t n;
	int fd = tcpfsm_connect(c, SOCK_CLOEXEC, &name), rc;

	if (fd < 0)
		return fail("connect", fd);
	rc = tcpfsm_info(NULL, name.id, &info);
	if (rc)
		return fail("info", rc);
	printf("%s %d\n", info.state, info.snd_mss_bytes > 500);
	fflush(stdout);
	if (write(fd, "over and out\n", 13) != 13 || shutdown(fd, SHUT_WR))
		return fail("write", -errno);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		fwrite(buf, 1, (size_t)n, stdout);
	return n < 0 || tcpfsm_error(fd) ? fail("read", -tcpfsm_error(fd)) : 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct tcpfsm_connect c = { .tcp = "Nagle=no" };

	if (argc != 4 || inet_pton(AF_INET, argv[2], &in.sin_addr) != 1)
		return 2;
	in.sin_port = htons((uint16_t)strtoul(argv[3], NULL, 10));
	if (tcpfsm_address((struct sockaddr *)&in, sizeof(in), &c.remote))
		return 2;
	return strcmp(argv[1], "listen") == 0 ? serve(&c.remote) : talk(&c);
}
