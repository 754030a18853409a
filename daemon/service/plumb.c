/* SPDX-License-Identifier: Apache-2.0 */
#include "service/plumb.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Reads of one wakeup: other connections wait meanwhile. */
enum { PULLS_MAX = 4, PUSH_SPANS = 8 };

static void on_to(evutil_socket_t fd, short what, void *arg)
{
	struct plumb *const p = arg;
	struct service_host *const h = p->session->host;

	h->begin(h);
	plumb_push(p);
	h->end(h);
}

static void on_from(evutil_socket_t fd, short what, void *arg)
{
	struct plumb *const p = arg;
	struct service_host *const h = p->session->host;

	h->begin(h);
	plumb_pull(p);
	h->end(h);
}

int plumb_init(struct plumb *p, struct session *s, int to, int from)
{
	p->session = s;
	p->ev_to = event_new(s->host->base, to, EV_WRITE, on_to, p);
	p->ev_from = event_new(s->host->base, from, EV_READ | EV_PERSIST, on_from, p);
	p->to = p->from = -1;
	if (!p->ev_to || !p->ev_from || event_add(p->ev_from, NULL)) {
		plumb_fini(p);
		return -ENOMEM;
	}
	p->to = to;
	p->from = from;
	p->socket = to == from;
	return 0;
}

static void free_event(struct event **ev)
{
	if (*ev)
		event_free(*ev);
	*ev = NULL;
}

/* Ours no more, in this direction. A socket serves the other one still. */
static void close_to(struct plumb *p)
{
	if (p->to < 0)
		return;
	free_event(&p->ev_to);
	if (p->socket)
		(void)shutdown(p->to, SHUT_WR); /* also for those who hold a duplicate */
	if (!p->socket || p->from < 0)
		(void)close(p->to);
	p->to = -1;
}

static void close_from(struct plumb *p)
{
	if (p->from < 0)
		return;
	free_event(&p->ev_from);
	if (!p->socket || p->to < 0)
		(void)close(p->from);
	p->from = -1;
}

void plumb_reset(struct plumb *p)
{
	const struct linger at_once = { .l_onoff = 1 };
	const int fd = p->to >= 0 ? p->to : p->from;

	if (fd < 0)
		return;
	free_event(&p->ev_to);
	free_event(&p->ev_from);
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	(void)close(fd); /* without shutdown(), which would send a FIN first */
	p->to = p->from = -1;
}

void plumb_fini(struct plumb *p)
{
	close_from(p);
	close_to(p);
	free_event(&p->ev_to);
	free_event(&p->ev_from);
	free(p->held);
	p->held = NULL;
}

/* Octets taken, or -errno. */
static ssize_t write_spans(struct plumb *p, const struct span *spans, unsigned n)
{
	struct iovec iov[PUSH_SPANS];
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = n };
	ssize_t rc;

	for (unsigned i = 0; i < n; i++)
		iov[i] = (struct iovec){ (void *)(uintptr_t)spans[i].base, spans[i].len };
	do
		rc = p->socket ? sendmsg(p->to, &msg, MSG_NOSIGNAL | MSG_DONTWAIT)
			       : writev(p->to, iov, (int)n);
	while (rc < 0 && errno == EINTR);
	if (rc >= 0)
		return rc;
	rc = -errno;
	if (rc != -EAGAIN && !p->broken)
		p->broken = (int)-rc;
	return rc;
}

/* Did it break other than by an end? EPIPE: its FIN came first, what it sent is whole. */
static bool has_failed(const struct plumb *p)
{
	return p->failed && p->broken && p->broken != EPIPE;
}

uint32_t plumb_text(struct plumb *p, struct span text)
{
	ssize_t n;

	if (p->to < 0)
		return text.len;
	n = write_spans(p, &text, 1);
	if (n >= 0 && (uint32_t)n == text.len)
		return text.len;
	/* Broken or full: the engine keeps it, and plumb_push() finds out which. */
	(void)event_add(p->ev_to, NULL);
	return n > 0 ? (uint32_t)n : 0;
}

static void drop_unread(const struct plumb *p)
{
	const struct session *const s = p->session;
	struct span span;

	while (conn_peek(s->host->engine, s->id, &span, 1))
		if (conn_consume(s->host->engine, s->host->now, s->id, span.len))
			return;
}

void plumb_push(struct plumb *p)
{
	const struct session *const s = p->session;
	struct span spans[PUSH_SPANS];
	unsigned n;

	while (p->to >= 0 && (n = conn_peek(s->host->engine, s->id, spans, PUSH_SPANS)) > 0) {
		const ssize_t taken = write_spans(p, spans, n);

		if (taken == -EAGAIN) {
			(void)event_add(p->ev_to, NULL);
			return;
		}
		if (taken < 0 && has_failed(p)) {
			p->failed(p, p->broken);
			return;
		}
		if (taken < 0) {
			close_to(p);
			drop_unread(p);
			if (p->to_ended)
				p->to_ended(p);
			return;
		}
		if (conn_consume(s->host->engine, s->host->now, s->id, (size_t)taken))
			return;
	}
	if (p->to < 0)
		drop_unread(p);
	else if (conn_at_eof(s->host->engine, s->id))
		close_to(p);
}

/* Offers what is held to the send buffer. True: nothing is held any more. */
static bool send_held(struct plumb *p)
{
	const struct session *const s = p->session;
	size_t taken = 0;

	if (!p->held)
		return true;
	if (conn_send(s->host->engine, s->host->now, s->id, p->held + p->held_at,
		      p->held_len - p->held_at, &taken))
		taken = p->held_len - p->held_at; /* our side is closed: nobody will take it */
	p->held_at += taken;
	if (p->held_at < p->held_len)
		return false;
	free(p->held);
	p->held = NULL;
	return true;
}

/* Keeps what the send buffer did not take, and reads no further. False: no memory. */
static bool hold(struct plumb *p, const uint8_t *data, size_t len)
{
	p->held = malloc(len);
	if (!p->held)
		return false;
	memcpy(p->held, data, len);
	p->held_len = len;
	p->held_at = 0;
	(void)event_del(p->ev_from);
	return true;
}

static void end_from(struct plumb *p)
{
	close_from(p);
	p->from_ended(p);
}

/* Reads one piece. True: there may be more; p stands. */
static bool pull_once(struct plumb *p)
{
	struct session *const s = p->session;
	uint8_t *const buf = s->host->scratch;
	/* Who holds the other end of a socket may have made ours block. */
	const ssize_t n = p->socket ? recv(p->from, buf, SERVICE_SCRATCH_BYTES, MSG_DONTWAIT)
				    : read(p->from, buf, SERVICE_SCRATCH_BYTES);
	size_t taken;

	if (n < 0 && errno == EINTR)
		return true;
	if (n < 0 && errno == EAGAIN && !p->draining) {
		(void)event_add(p->ev_from, NULL);
		return false;
	}
	if (n < 0 && errno == ECONNRESET && p->socket && p->reset_aborts) {
		session_abort(s); /* it was closed with text unread, and a kernel's TCP would */
		return false;
	}
	if (n < 0 && errno != EAGAIN && !p->broken)
		p->broken = errno;
	if (n <= 0 && has_failed(p)) {
		p->failed(p, p->broken);
		return false;
	}
	if (n <= 0) {
		end_from(p);
		return false;
	}
	if (conn_send(s->host->engine, s->host->now, s->id, buf, (size_t)n, &taken)) {
		end_from(p);
		return false;
	}
	if (taken == (size_t)n)
		return true;
	if (!hold(p, buf + taken, (size_t)n - taken))
		session_abort(s); /* rather than a stream with a hole */
	return false;
}

void plumb_pull(struct plumb *p)
{
	if (p->from < 0 || !send_held(p))
		return;
	for (unsigned i = 0; i < PULLS_MAX; i++)
		if (!pull_once(p))
			return;
	(void)event_add(p->ev_from, NULL);
}
