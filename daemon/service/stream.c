/* SPDX-License-Identifier: Apache-2.0 */
/* stream: the octets of a connection on a UNIX stream socket that somebody else holds the other end
 * of. His end of file is our FIN; the peer's FIN is his end of file. A UNIX stream carries no reset:
 * he sees a hangup, and our end's name tells the errno.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/end_name.h"
#include "base/stream_order.h"
#include "service/plumb.h"

/* What arrived before a connection ended and its holder has not read: it outlives the connection. */
struct stream_tail {
	struct stream_tail *next, **at; /* *at == this */
	struct service_host *host; /* borrowed */
	struct event *ev;
	int fd; /* owned */
	int end_errno; /* as session.end_errno */
	bool passed; /* as stream.passed */
	size_t len, sent;
	uint8_t *data; /* owned */
};

/* TAILS_BYTES: what all tails of a worker may hold. A peer that sends and resets leaves one, and may come again. */
enum { AGAIN_US = 20000, TAILS_BYTES = 64 << 20 };

struct stream {
	struct plumb plumb;
	struct event *
		ev_due; /* nobody was told of it: it runs until its time is over; NULL: somebody was */
	int other; /* owned: the end of who accepts, until he has it; -1 */
	bool passed; /* our end came from him: others may hold duplicates of it */
	bool resets; /* his going away is a RST */
	/* After his end of file, when his going away is a RST, or once he was not read for want of room: does he go away
	 * altogether? A descriptor of its own, since one cannot be watched for its level and its edges at a time. */
	struct event *ev_gone;
	int gone_fd; /* owned; -1: none */
};

/* POLLHUP, when its holder has closed it, rather than shut down one direction: nobody reads either. POLLERR, when he
 * left text unread.
 */
static short look(int fd)
{
	struct pollfd p = { .fd = fd };

	return poll(&p, 1, 0) == 1 ? p.revents : 0;
}

static bool is_hung_up(int fd)
{
	return fd < 0 || look(fd) & (POLLHUP | POLLERR);
}

/* Whoever held it is gone, and what it wrote before is sent still; or it reads no more, but goes on writing:
 * what comes is thrown away.
 */
static void on_to_ended(struct plumb *p)
{
	if (p->from >= 0 && !is_hung_up(p->from))
		return;
	p->draining = true;
	if (p->from >= 0)
		plumb_pull(p);
	else
		session_sink(p->session, false);
}

/* Is there to be a RST, whatever text waits? Orders that stand in line behind it count: he is gone, so the last of them
 * is his last word.
 */
static bool resets_at_last(const struct stream *st)
{
	const uint8_t last = plumb_last_order(&st->plumb, STREAM_RESETS, STREAM_ENDS);

	return last ? last == STREAM_RESETS : st->resets;
}

static void on_gone(evutil_socket_t fd, short what, void *arg)
{
	struct stream *const st = arg;
	struct session *const s = st->plumb.session;
	struct service_host *const h = s->host;
	short seen;

	(void)what;
	if (st->plumb.from >= 0 && !st->plumb.held)
		return; /* what he wrote is being read, and behind it is the end */
	seen = look(fd);
	if (!(seen & (POLLHUP | POLLERR)))
		return;
	h->begin(h);
	if (seen & POLLERR || resets_at_last(st))
		session_abort(s);
	else if (st->plumb.from < 0)
		session_sink(s, false);
	h->end(h);
}

static void watch_gone_no_more(struct stream *st)
{
	if (st->ev_gone)
		event_free(st->ev_gone);
	if (st->gone_fd >= 0)
		(void)close(st->gone_fd);
	st->ev_gone = NULL;
	st->gone_fd = -1;
}

static int watch_gone(struct stream *st)
{
	if (st->gone_fd >= 0)
		return 0;
	st->gone_fd = fcntl(st->plumb.to, F_DUPFD_CLOEXEC, 0);
	if (st->gone_fd < 0)
		return -errno;
	st->ev_gone = event_new(st->plumb.session->host->base, st->gone_fd,
				EV_READ | EV_ET | EV_PERSIST, on_gone, st);
	if (st->ev_gone && !event_add(st->ev_gone, NULL))
		return 0;
	watch_gone_no_more(st);
	return -ENOMEM;
}

/* There may never be room again: how he goes away, or went, is to be seen all the same. */
static void on_held_up(struct plumb *p)
{
	struct stream *const st = p->session->stream;

	if (!watch_gone(st) && is_hung_up(st->gone_fd))
		event_active(st->ev_gone, EV_READ, 1);
}

static void on_from_ended(struct plumb *p)
{
	struct session *const s = p->session;
	const struct stream *const st = s->stream;

	if (st->resets && is_hung_up(st->gone_fd)) {
		session_abort(s);
		return;
	}
	(void)conn_close(s->host->engine, s->host->now, s->id, CAUSE_USER);
	if (is_hung_up(p->to) || watch_gone(s->stream))
		session_sink(s, false);
}

/* ---- orders ---- */

/* Whoever gives orders that are none spoils his own connection: it is a descriptor of his that he sent along. */
static void on_ordered(struct plumb *p, uint8_t order)
{
	struct session *const s = p->session;
	struct stream *const st = s->stream;

	switch (order) {
	case STREAM_CORK:
	case STREAM_UNCORK:
		plumb_set_cork(s, order == STREAM_CORK);
		break;
	case STREAM_NAGLE:
	case STREAM_NO_NAGLE:
		plumb_set_nagle(s, order == STREAM_NAGLE);
		break;
	case STREAM_RESETS:
		st->resets = watch_gone(st) == 0;
		break;
	case STREAM_ENDS:
		st->resets = false;
		break;
	case STREAM_URGENT:
	case STREAM_NOT_URGENT:
		p->urgent = order == STREAM_URGENT;
		break;
	default:
		break;
	}
}

/* ---- after the end ---- */

/* The last word, before its descriptor is closed. That close ends both directions in one step, unless others hold
 * duplicates.
 */
static void tell_end(int fd, int end_errno, bool passed)
{
	end_name_set(fd, end_errno);
	if (passed)
		(void)shutdown(fd, SHUT_RDWR);
}

static void tail_free(struct stream_tail *t)
{
	t->host->tail_bytes -= t->len;
	*t->at = t->next;
	if (t->next)
		t->next->at = t->at;
	if (t->ev)
		event_free(t->ev);
	if (t->fd >= 0) {
		tell_end(t->fd, t->end_errno, t->passed);
		(void)close(t->fd);
	}
	free(t->data);
	free(t);
}

static void on_tail(evutil_socket_t fd, short what, void *arg)
{
	struct stream_tail *const t = arg;
	const ssize_t n = send(fd, t->data + t->sent, t->len - t->sent,
			       MSG_NOSIGNAL | MSG_DONTWAIT);

	(void)what;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		t->sent += (size_t)n;
	if (n < 0 || t->sent == t->len)
		tail_free(t);
}

/* Octets in memory of their own. */
struct text {
	uint8_t *data; /* malloc'ed */
	size_t len, room;
};

static bool text_add(struct text *t, struct span span)
{
	if (t->room - t->len < span.len) {
		const size_t room = 2 * t->room + span.len;
		uint8_t *const more = realloc(t->data, room);

		if (!more)
			return false;
		t->data = more;
		t->room = room;
	}
	memcpy(t->data + t->len, span.base, span.len);
	t->len += span.len;
	return true;
}

/* What waits unread in the engine. -ENOBUFS: there is no memory for it. */
static int take_unread(const struct session *s, struct text *ret_text)
{
	struct service_host *const h = s->host;
	struct text t = { 0 };
	struct span span;

	while (conn_peek(h->engine, s->id, &span, 1)) {
		if (h->tail_bytes + t.len + span.len > TAILS_BYTES || !text_add(&t, span)) {
			free(t.data);
			return -ENOBUFS;
		}
		if (conn_consume(h->engine, h->now, s->id, span.len))
			break;
	}
	*ret_text = t;
	return 0;
}

/* Octets that the holder has still to read. False: there are none, or, *ret_lost, they are lost. */
static bool tail_new(struct session *s, const struct stream *st, int end_errno, bool *ret_lost)
{
	struct service_host *const h = s->host;
	struct text text = { 0 };
	const int rc = take_unread(s, &text);
	struct stream_tail *const t = text.data ? calloc(1, sizeof(*t)) : NULL;

	*ret_lost = rc || (text.data && !t);
	if (!t) {
		free(text.data);
		return false;
	}
	t->host = h;
	t->data = text.data;
	t->len = text.len;
	t->end_errno = end_errno;
	t->passed = st->passed;
	t->fd = fcntl(st->plumb.to, F_DUPFD_CLOEXEC, 0);
	t->ev = t->fd >= 0 ? event_new(h->base, t->fd, EV_WRITE | EV_PERSIST, on_tail, t) : NULL;
	t->at = &h->tails;
	t->next = h->tails;
	if (t->next)
		t->next->at = &t->next;
	h->tails = t;
	h->tail_bytes += t->len;
	if (t->ev && event_add(t->ev, NULL) == 0)
		return true;
	*ret_lost = true;
	t->end_errno = end_errno ? end_errno : ENOBUFS;
	tail_free(t);
	return false;
}

void stream_host_fini(struct service_host *h)
{
	while (h->tails)
		tail_free(h->tails);
}

/* ---- a connection ---- */

/* What its holder may leave unread: with the kernel's 208 KiB he and we wake each other for every second
 * super-segment.
 */
enum { UNREAD_BYTES = 512 << 10 };

static void make_room(int fd)
{
	const int bytes = UNREAD_BYTES;

	/* FORCE wants CAP_NET_ADMIN; without it net.core.wmem_max limits us. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)))
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* A program fills its end so that it is not writable before the connection is there. */
static int skip(struct session *s, int fd)
{
	while (s->skip) {
		const size_t want = s->skip < SERVICE_SCRATCH_BYTES ? s->skip
								    : SERVICE_SCRATCH_BYTES;
		const ssize_t n = recv(fd, s->host->scratch, want, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EPIPE;
		s->skip -= (uint32_t)n;
	}
	return 0;
}

static struct stream *stream_new(void)
{
	struct stream *const st = calloc(1, sizeof(*st));

	if (st)
		st->gone_fd = st->other = st->plumb.to = st->plumb.from = -1;
	return st;
}

static void stream_free(struct stream *st)
{
	if (st->ev_due)
		event_free(st->ev_due);
	watch_gone_no_more(st);
	if (st->other >= 0)
		(void)close(st->other);
	plumb_fini(&st->plumb);
	free(st);
}

static int stream_begin(struct session *s, struct stream *st)
{
	const int fd = s->fd;

	st->plumb.reset_aborts = true;
	st->plumb.ordered = on_ordered;
	st->plumb.from_ended = on_from_ended;
	st->plumb.to_ended = on_to_ended;
	st->plumb.held_up = on_held_up;
	if (skip(s, fd) || plumb_init(&st->plumb, s, fd, fd))
		return -ENOMEM;
	make_room(fd);
	s->stream = st;
	s->fd = -1;
	plumb_push(&st->plumb);
	return 0;
}

static int stream_open(struct session *s)
{
	struct stream *const st = stream_new();
	int rc;

	if (!st)
		return -ENOMEM;
	st->passed = true;
	rc = stream_begin(s, st);
	if (rc)
		free(st);
	return rc;
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

/* Is there a pair? Of who accepts, though he may not know of it yet. */
static bool is_begun(const struct stream *st)
{
	return st->plumb.to >= 0 || st->plumb.from >= 0;
}

static void stream_closed(struct session *s, bool hangup)
{
	struct stream *const st = s->stream;
	const struct plumb *const p = &st->plumb;
	const int end_errno = hangup ? s->end_errno : 0;
	bool lost = false;
	const bool kept = p->to >= 0 && st->other < 0 && tail_new(s, st, end_errno, &lost);

	s->stream = NULL;
	s->host->stream_lost += lost;
	/* Its last octets, and then its end, are the tail's. */
	if (!kept && (hangup || lost) && is_begun(st))
		tell_end(p->to >= 0 ? p->to : p->from, lost && !end_errno ? ENOBUFS : end_errno,
			 st->passed);
	if (kept || hangup || lost)
		plumb_drop(&st->plumb);
	stream_free(st);
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

/* ---- a listener ---- */

struct stream_accept {
	int fd; /* owned; -1: stopped */
	uint64_t defer_us;
	uint32_t backlog;
	int room; /* octets that the kernel lets it hold */
	int line_cost; /* what one line adds to the kernel's count of unread octets */
};

static ssize_t send_line(int sock, char line[static STREAM_LINE_BYTES], int fd)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { line, STREAM_LINE_BYTES };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.room,
			      .msg_controllen = sizeof(control.room) };
	struct cmsghdr *const h = CMSG_FIRSTHDR(&msg);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof(int));
	return sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Several workers may write to one socket, so it is measured beside it. */
static int measure_line(int fd, int *ret_cost)
{
	char line[STREAM_LINE_BYTES] = { 0 };
	int ends[2], rc = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	if (send_line(ends[0], line, fd) < 0 || ioctl(ends[0], SIOCOUTQ, ret_cost) < 0)
		rc = -errno;
	(void)close(ends[0]);
	(void)close(ends[1]);
	return rc ? rc : *ret_cost > 0 ? 0 : -EIO;
}

int stream_accept_new(int fd, uint32_t backlog, uint64_t defer_us,
		      struct stream_accept **ret_accept)
{
	struct stream_accept *const a = calloc(1, sizeof(*a));
	/* A line takes about a KiB there; the kernel has a limit of its own. */
	const int room = backlog < 65536 ? (int)backlog * 2048 : 1 << 27;
	socklen_t len = sizeof(a->room);
	int rc;

	if (!a)
		return -ENOMEM;
	a->backlog = backlog;
	a->defer_us = defer_us;
	a->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	rc = a->fd < 0 ? -EMFILE : measure_line(fd, &a->line_cost);
	if (rc) {
		if (a->fd >= 0)
			(void)close(a->fd);
		free(a);
		return rc;
	}
	(void)setsockopt(a->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	(void)getsockopt(a->fd, SOL_SOCKET, SO_SNDBUF, &a->room, &len);
	*ret_accept = a;
	return 0;
}

void stream_accept_stop(struct stream_accept *a)
{
	if (a->fd < 0)
		return;
	(void)shutdown(a->fd, SHUT_RDWR); /* also for those who hold a duplicate */
	(void)close(a->fd);
	a->fd = -1;
}

/* What is not accepted yet has its descriptor on the way: it hangs up, and is reset. */
void stream_accept_free(struct stream_accept *a)
{
	if (!a)
		return;
	stream_accept_stop(a);
	free(a);
}

/* The lines that wait are counted by the kernel: in octets, of which each takes the same. */
uint32_t stream_accept_room(const struct stream_accept *a)
{
	uint32_t most = a->backlog, unread;
	int octets = 0;

	if (a->fd < 0 || ioctl(a->fd, SIOCOUTQ, &octets) < 0)
		return a->backlog;
	unread = (uint32_t)(octets / a->line_cost);
	if (most > (uint32_t)(a->room / a->line_cost))
		most = (uint32_t)(a->room / a->line_cost);
	return unread < most ? most - unread : 0;
}

/* Hands fd to whoever accepts: stream_accept_room() has been asked before. */
static int hand_over(struct stream_accept *a, const struct session *s, int fd)
{
	char line[STREAM_LINE_BYTES], local[ENDPOINT_TEXT], remote[ENDPOINT_TEXT];
	const struct flow flow = session_flow(s);
	ssize_t n;

	memset(line, ' ', sizeof(line));
	(void)snprintf(line, sizeof(line),
		       "{\"id\":%" PRIu64 ",\"local\":\"%s\",\"remote\":\"%s\",\"scope\":%" PRIu32
		       "}",
		       s->serial, endpoint_format(&flow.local, local),
		       endpoint_format(&flow.remote, remote), flow.scope);
	line[strlen(line)] = ' ';
	line[sizeof(line) - 1] = '\n';
	n = send_line(a->fd, line, fd);
	if (n != (ssize_t)sizeof(line))
		return n < 0 ? -errno : -EMSGSIZE;
	return 0;
}

/* What was received is in the pair before anybody is told of it. */
static int begin_pair(struct session *s, struct stream *st)
{
	int ends[2], rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	s->fd = ends[0];
	rc = fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
	if (!rc)
		rc = stream_begin(s, st);
	if (!rc) {
		st->other = ends[1];
		return 0;
	}
	(void)close(ends[0]);
	(void)close(ends[1]);
	s->fd = -1;
	return rc;
}

/* Whoever accepts is told of it, and has it. -EAGAIN: there is no room for that; it may be tried again. */
static int give_over(struct session *s, struct stream *st)
{
	struct stream_accept *const a = s->service->accept;
	int rc = a->fd < 0 ? -EPIPE : 0;

	if (!rc && st->other < 0)
		rc = begin_pair(s, st);
	if (!rc)
		rc = hand_over(a, s, st->other);
	if (rc)
		return rc;
	(void)close(st->other);
	st->other = -1;
	return 0;
}

/* Its time has come. Where there is no room for a line, as when many come at once, a little later: without a pair, of
 * which many that wait would take all descriptors, unless another worker was faster.
 */
static void accepted_due(struct session *s)
{
	const struct timeval soon = { .tv_usec = AGAIN_US };
	struct stream *const st = s->stream;
	struct event *const due = st->ev_due;
	int rc;

	st->ev_due = NULL;
	rc = st->other < 0 && !stream_accept_room(s->service->accept) ? -EAGAIN : give_over(s, st);
	if (rc == -EAGAIN) {
		st->ev_due = due;
		(void)event_add(due, &soon);
		return;
	}
	event_free(due);
	if (rc)
		session_abort(s);
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
	struct session *const s = arg;
	struct service_host *const h = s->host;

	(void)fd;
	(void)what;
	h->begin(h);
	accepted_due(s);
	h->end(h);
}

/* TCP_DEFER_ACCEPT. */
static int defer(struct session *s, struct stream *st)
{
	const uint64_t us = s->service->accept->defer_us;
	const struct timeval tv = { .tv_sec = (time_t)(us / 1000000),
				    .tv_usec = (suseconds_t)(us % 1000000) };

	st->ev_due = evtimer_new(s->host->base, on_due, s);
	if (!st->ev_due || event_add(st->ev_due, &tv))
		return -ENOMEM;
	st->plumb.session = s;
	s->stream = st;
	return 0;
}

static bool is_readable(const struct session *s)
{
	struct span span;

	return conn_peek(s->host->engine, s->id, &span, 1) || conn_at_eof(s->host->engine, s->id);
}

static int accepted_open(struct session *s)
{
	struct stream *st;
	int rc;

	if (!s->service || !s->service->accept)
		return -EPIPE;
	st = stream_new();
	if (!st)
		return -ENOMEM;
	rc = s->service->accept->defer_us && !is_readable(s) ? defer(s, st) : give_over(s, st);
	if (rc) {
		s->stream = NULL;
		stream_free(st);
	}
	return rc;
}

/* Not to be mixed up with a pair that was there, and of which both directions have ended. */
static bool is_to_begin(const struct stream *st)
{
	return st->ev_due && !is_begun(st);
}

static uint32_t accepted_text(struct session *s, struct span text)
{
	return is_to_begin(s->stream) ? 0 : plumb_text(&s->stream->plumb, text);
}

static void accepted_readable(struct session *s)
{
	if (!is_to_begin(s->stream))
		plumb_push(&s->stream->plumb);
	else if (is_readable(s))
		accepted_due(s);
}

static void accepted_writable(struct session *s)
{
	if (!is_to_begin(s->stream))
		plumb_pull(&s->stream->plumb);
}

const struct service_ops service_accepted = {
	.name = "stream",
	.help = "a program that accepts",
	.direct = true,
	.hidden = true,
	.open = accepted_open,
	.text = accepted_text,
	.readable = accepted_readable,
	.writable = accepted_writable,
	.peer_closed = accepted_readable,
	.closed = stream_closed,
};
