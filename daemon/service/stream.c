/* SPDX-License-Identifier: Apache-2.0 */
/* stream: the octets of a connection on a UNIX stream socket that somebody else holds the other end
 * of. His end of file is our FIN; the peer's FIN is his end of file.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "service/plumb.h"

struct stream {
	struct plumb plumb;
	/* After his end of file: does he go away altogether? A descriptor of its own, since one
	 * cannot be watched for its level and its edges at a time. */
	struct event *ev_gone;
	int gone_fd; /* owned; -1: none */
};

/* Has the holder closed it, rather than shut down one direction? Then nobody reads either. */
static bool is_hung_up(int fd)
{
	struct pollfd p = { .fd = fd };

	return fd < 0 || (poll(&p, 1, 0) == 1 && p.revents & (POLLHUP | POLLERR));
}

/* Whoever held it is gone. What it wrote before is sent still. */
static void on_to_ended(struct plumb *p)
{
	p->draining = true;
	if (p->from >= 0)
		plumb_pull(p);
	else
		session_sink(p->session, false);
}

static void on_gone(evutil_socket_t fd, short what, void *arg)
{
	struct stream *const st = arg;
	struct session *const s = st->plumb.session;
	struct service_host *const h = s->host;

	if (!is_hung_up(fd))
		return;
	h->begin(h);
	session_sink(s, false);
	h->end(h);
}

static int watch_gone(struct stream *st)
{
	st->gone_fd = fcntl(st->plumb.to, F_DUPFD_CLOEXEC, 0);
	if (st->gone_fd < 0)
		return -errno;
	st->ev_gone = event_new(st->plumb.session->host->base, st->gone_fd,
				EV_READ | EV_ET | EV_PERSIST, on_gone, st);
	return st->ev_gone && !event_add(st->ev_gone, NULL) ? 0 : -ENOMEM;
}

static void on_from_ended(struct plumb *p)
{
	struct session *const s = p->session;

	(void)conn_close(s->host->engine, s->host->now, s->id, CAUSE_USER);
	if (is_hung_up(p->to) || watch_gone(s->stream))
		session_sink(s, false);
}

static int stream_open(struct session *s)
{
	struct stream *const st = calloc(1, sizeof(*st));
	const int fd = s->fd;

	if (!st)
		return -ENOMEM;
	st->gone_fd = -1;
	st->plumb.from_ended = on_from_ended;
	st->plumb.to_ended = on_to_ended;
	if (plumb_init(&st->plumb, s, fd, fd)) {
		free(st);
		return -ENOMEM;
	}
	s->stream = st;
	s->fd = -1;
	plumb_push(&st->plumb);
	return 0;
}

static uint32_t stream_text(struct session *s, struct span text)
{
	return plumb_text(&s->stream->plumb, text);
}

static void stream_readable(struct session *s)
{
	plumb_push(&s->stream->plumb);
}

static void stream_writable(struct session *s)
{
	plumb_pull(&s->stream->plumb);
}

static void stream_closed(struct session *s, bool hangup)
{
	struct stream *const st = s->stream;

	s->stream = NULL;
	plumb_fini(&st->plumb);
	if (st->ev_gone)
		event_free(st->ev_gone);
	if (st->gone_fd >= 0)
		(void)close(st->gone_fd);
	free(st);
}

const struct service_ops service_stream = {
	.name = "stream",
	.help = "a descriptor that an operator holds",
	.direct = true,
	.hidden = true,
	.open = stream_open,
	.text = stream_text,
	.readable = stream_readable,
	.writable = stream_writable,
	.peer_closed = stream_readable,
	.closed = stream_closed,
};
