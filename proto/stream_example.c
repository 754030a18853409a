/* SPDX-License-Identifier: Apache-2.0 */
/* A connection over tcpfsmd, without waiting for it, and what is known of it.
 *
 *	cc stream_example.c $(pkg-config --cflags --libs tcpfsm)
 *	./a.out 192.0.2.7 80 < request
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tcpfsm/stream.h>
#include <unistd.h>

static int fail(const char *what, int rc)
{
	fprintf(stderr, "%s: %s\n", what, strerror(-rc));
	return 1;
}

/* Standard input to the peer, and its end as a FIN. */
static int send_all(int fd)
{
	char buf[4096];
	ssize_t n;

	while ((n = read(0, buf, sizeof(buf))) > 0)
		if (send(fd, buf, (size_t)n, MSG_NOSIGNAL) != n)
			return -tcpfsm_error(fd);
	return shutdown(fd, SHUT_WR) ? -tcpfsm_error(fd) : 0;
}

static int receive_all(int fd)
{
	char buf[4096];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		fwrite(buf, 1, (size_t)n, stdout);
	return -tcpfsm_error(fd); /* a reset, too, is an end of file: this tells them apart */
}

int main(int argc, char **argv)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct tcpfsm_connect c = { .tcp = "Nagle=no,KeepAlive=yes" };
	struct tcpfsm_name name;
	struct tcpfsm_info info;
	int fd, rc;

	if (argc != 3 || inet_pton(AF_INET, argv[1], &in.sin_addr) != 1)
		return 2;
	in.sin_port = htons((uint16_t)strtoul(argv[2], NULL, 10));
	(void)tcpfsm_address((struct sockaddr *)&in, sizeof(in), &c.remote);
	fd = tcpfsm_connect(&c, SOCK_CLOEXEC | SOCK_NONBLOCK, &name);
	if (fd < 0)
		return fail("connect", fd);
	/* Something else could be done here, or fd be polled for POLLOUT with others. */
	while ((rc = tcpfsm_connect_wait(fd, 1000)) == -EINPROGRESS)
		fputs("not yet\n", stderr);
	if (rc)
		return fail("connect", rc);
	(void)fcntl(fd, F_SETFL, 0);
	rc = tcpfsm_info(NULL, name.id, &info);
	if (rc)
		return fail("info", rc);
	fprintf(stderr, "%s, segments of %d octets, %s\n", info.state, (int)info.snd_mss_bytes,
		info.congestion_control);
	rc = send_all(fd);
	if (!rc)
		rc = receive_all(fd);
	return rc ? fail("connection", rc) : 0;
}
