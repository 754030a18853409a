/* SPDX-License-Identifier: Apache-2.0 */
/* What tcpfsmd is compared with: echo, discard and chargen on the kernel's own TCP, one epoll loop.
 *
 * usage: kserver ADDRESS [PROCESSES]
 *
 * Fair: large reads, no copy but the kernel's, a connection costs an entry of a table. PROCESSES, for
 * machines that give one process few descriptors, share the ports by SO_REUSEPORT. It prints "ready".
 */
#include <errno.h>
#include <linux/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#include "common.h"

enum { READ_BYTES = 1 << 18, LINE = 74, PERIOD = 95 * LINE, SEND_BYTES = 40 * PERIOD };

enum kind { FREE, LISTENING, ECHO, DISCARD, CHARGEN };

struct conn {
	enum kind kind;
	enum kind serves; /* a listener's connections */
	uint32_t phase; /* chargen: offset in the pattern */
	uint8_t *held; /* echo: what send() did not take */
	size_t held_len, held_at;
};

static struct conn *conns; /* by descriptor */
static uint8_t buffer[READ_BYTES], pattern[SEND_BYTES + PERIOD];
static int epoll_fd;

static void watch(int op, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.fd = fd };

	if (epoll_ctl(epoll_fd, op, fd, &e))
		err(1, "epoll_ctl");
}

static void end(int fd)
{
	free(conns[fd].held);
	conns[fd] = (struct conn){ .kind = FREE };
	(void)close(fd);
}

static void fill_pattern(void)
{
	for (unsigned i = 0; i < sizeof(pattern); i++) {
		const unsigned line = i / LINE, column = i % LINE;

		pattern[i] = column < LINE - 2    ? (uint8_t)(' ' + (line + column) % 95)
			     : column == LINE - 2 ? '\r'
						  : '\n';
	}
}

static void on_accept(int fd)
{
	for (unsigned i = 0; i < 256; i++) {
		const int c = accept4(fd, NULL, NULL, SOCK_NONBLOCK);

		if (c < 0)
			return;
		conns[c] = (struct conn){ .kind = conns[fd].serves };
		watch(EPOLL_CTL_ADD, c, conns[c].kind == CHARGEN ? EPOLLIN | EPOLLOUT : EPOLLIN);
	}
}

static void echo(int fd, size_t len)
{
	struct conn *const c = &conns[fd];
	const ssize_t n = send(fd, buffer, len, 0);
	const size_t done = n < 0 ? 0 : (size_t)n;

	if (done == len)
		return;
	c->held = malloc(len - done);
	if (!c->held)
		errx(1, "out of memory");
	memcpy(c->held, buffer + done, len - done);
	c->held_len = len - done;
	c->held_at = 0;
	watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void on_readable(int fd)
{
	const ssize_t n = recv(fd, buffer, sizeof(buffer), 0);

	if (n == 0 || (n < 0 && errno != EAGAIN))
		end(fd);
	else if (n > 0 && conns[fd].kind == ECHO)
		echo(fd, (size_t)n);
}

static void on_writable(int fd)
{
	struct conn *const c = &conns[fd];
	const bool generate = c->kind == CHARGEN;
	ssize_t n;

	if (!generate && !c->held)
		return;
	n = generate ? send(fd, pattern + c->phase, SEND_BYTES, 0)
		     : send(fd, c->held + c->held_at, c->held_len - c->held_at, 0);
	if (n < 0 && errno != EAGAIN) {
		end(fd);
		return;
	}
	if (n <= 0)
		return;
	if (generate) {
		c->phase = (uint32_t)((c->phase + (size_t)n) % PERIOD);
		return;
	}
	c->held_at += (size_t)n;
	if (c->held_at < c->held_len)
		return;
	free(c->held);
	c->held = NULL;
	watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

static void on_event(const struct epoll_event *e)
{
	const int fd = e->data.fd;

	if (conns[fd].kind == LISTENING) {
		on_accept(fd);
		return;
	}
	if (e->events & (EPOLLERR | EPOLLHUP)) {
		end(fd);
		return;
	}
	if (e->events & EPOLLIN && !conns[fd].held)
		on_readable(fd);
	if (e->events & EPOLLOUT && conns[fd].kind != FREE)
		on_writable(fd);
}

static void serve(const char *host, unsigned port, enum kind kind)
{
	const int one = 1;
	union bench_addr a;
	const socklen_t len = addr_parse(host, port, &a);
	const int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (fd < 0)
		err(1, "socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	choose_congestion_control(fd);
	if (bind(fd, &a.any, len) || listen(fd, 65535))
		err(1, "listen on %s port %u", host, port);
	conns[fd] = (struct conn){ .kind = LISTENING, .serves = kind };
	watch(EPOLL_CTL_ADD, fd, EPOLLIN);
}

int main(int argc, char **argv)
{
	struct epoll_event events[512];
	long processes = argc > 2 ? strtol(argv[2], NULL, 10) : 1;

	if (argc < 2)
		errx(2, "usage: kserver ADDRESS [PROCESSES]");
	(void)signal(SIGPIPE, SIG_IGN);
	conns = calloc(raise_descriptors(), sizeof(*conns));
	if (!conns)
		errx(1, "out of memory");
	fill_pattern();
	while (processes-- > 1 && fork() != 0)
		continue;
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	epoll_fd = epoll_create1(0);
	serve(argv[1], PORT_ECHO, ECHO);
	serve(argv[1], PORT_DISCARD, DISCARD);
	serve(argv[1], PORT_CHARGEN, CHARGEN);
	puts("ready");
	(void)fflush(stdout);
	for (;;) {
		const int n = epoll_wait(epoll_fd, events, 512, -1);

		for (int i = 0; i < n; i++)
			on_event(&events[i]);
	}
}
