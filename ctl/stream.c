/* SPDX-License-Identifier: Apache-2.0 */
/* tcpfsmctl connect: a connection's octets from standard input and to standard output. */
#include "ctl/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_SIZE = 64 * 1024 };

struct buffer {
	char octets[BUFFER_SIZE];
	size_t start, end;
	bool ended; /* its source has */
};

struct stream {
	int fd, in, out;
	bool in_is_terminal;
	bool out_is_file; /* a write to it does not wait for a reader */
	bool shut; /* our FIN is asked for */
	bool refused; /* fd takes no more */
	struct buffer up; /* in to fd */
	struct buffer down; /* fd to out */
	struct stream_result result;
};

static bool is_empty(const struct buffer *b)
{
	return b->start == b->end;
}

/* Reads into an empty buffer. */
static void fill(struct buffer *b, int from)
{
	const ssize_t n = read(from, b->octets, sizeof(b->octets));

	if (n > 0) {
		b->start = 0;
		b->end = (size_t)n;
	} else if (!n || (errno != EINTR && errno != EAGAIN)) {
		/* A reset, too, ends what fd gives: how it ended is asked of the daemon. */
		b->ended = true;
	}
}

static void send_up(struct stream *s)
{
	const ssize_t n = send(s->fd, s->up.octets + s->up.start, s->up.end - s->up.start,
			       MSG_NOSIGNAL);

	if (n >= 0)
		s->up.start += (size_t)n;
	else if (errno != EINTR && errno != EAGAIN)
		s->refused = true;
}

/* POLLOUT promises room for PIPE_BUF octets: more could wait, and hold up the other direction. */
static void write_down(struct stream *s)
{
	size_t len = s->down.end - s->down.start;
	ssize_t n;

	if (!s->out_is_file && len > PIPE_BUF)
		len = PIPE_BUF;
	n = write(s->out, s->down.octets + s->down.start, len);
	if (n >= 0)
		s->down.start += (size_t)n;
	else if (errno != EINTR && errno != EAGAIN)
		s->result.output_error = errno;
}

static bool is_done(const struct stream *s)
{
	const bool down_done = s->down.ended && is_empty(&s->down);
	const bool up_done = s->refused || (s->up.ended && is_empty(&s->up));

	return s->result.output_error || (down_done && (up_done || s->in_is_terminal));
}

/* One wait and what it brought. 0 or -Exxx. */
static int turn(struct stream *s)
{
	const bool may_read_in = !s->up.ended && !s->refused && is_empty(&s->up);
	const bool may_read_fd = !s->down.ended && is_empty(&s->down);
	const bool may_send = !s->refused && !is_empty(&s->up);
	short events = 0;
	struct pollfd p[3];

	events = (short)((may_read_fd ? POLLIN : 0) | (may_send ? POLLOUT : 0));
	p[0] = (struct pollfd){ .fd = may_read_in ? s->in : -1, .events = POLLIN };
	/* With its end read, POLLHUP on fd says that the other direction is over as well. */
	p[1] = (struct pollfd){ .fd = events || s->down.ended ? s->fd : -1, .events = events };
	p[2] = (struct pollfd){ .fd = is_empty(&s->down) ? -1 : s->out, .events = POLLOUT };
	if (poll(p, 3, -1) < 0)
		return errno == EINTR ? 0 : -errno;
	if (p[0].revents)
		fill(&s->up, s->in);
	if (may_read_fd && p[1].revents & (POLLIN | POLLHUP | POLLERR))
		fill(&s->down, s->fd);
	else if (s->down.ended && p[1].revents & (POLLHUP | POLLERR))
		s->refused = true;
	if (may_send && !s->refused && p[1].revents & POLLOUT)
		send_up(s);
	if (p[2].revents)
		write_down(s);
	return 0;
}

int stream_copy(int fd, int in, int out, struct stream_result *ret_result)
{
	static struct stream s; /* 128 KiB: not on the stack */
	const int flags = fcntl(fd, F_GETFL);
	struct stat st;
	int rc = 0;

	s = (struct stream){ .fd = fd, .in = in, .out = out, .in_is_terminal = isatty(in) == 1 };
	s.out_is_file = !fstat(out, &st) && S_ISREG(st.st_mode);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	while (!rc && !is_done(&s)) {
		rc = turn(&s);
		if (s.up.ended && is_empty(&s.up) && !s.shut) {
			s.shut = true;
			shutdown(fd, SHUT_WR);
		}
	}
	s.result.unsent = !is_empty(&s.up);
	*ret_result = s.result;
	return rc;
}
