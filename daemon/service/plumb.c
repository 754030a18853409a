/* SPDX-License-Identifier: Apache-2.0 */
#include "service/plumb.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Reads of one wakeup, and with those that ended at an order: other connections wait meanwhile. */
enum { PULLS_MAX = 4, ORDERS_MAX = 16, PUSH_SPANS = 8 };

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

void plumb_drop(struct plumb *p)
{
	const int fd = p->to >= 0 ? p->to : p->from;

	free_event(&p->ev_to);
	free_event(&p->ev_from);
	if (fd >= 0)
		(void)close(fd);
	p->to = p->from = -1;
}

/* Without shutdown(), which would send a FIN first. */
void plumb_reset(struct plumb *p)
{
	const struct linger at_once = { .l_onoff = 1 };
	const int fd = p->to >= 0 ? p->to : p->from;

	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	plumb_drop(p);
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

/* As conn_send(), and what is urgent goes as that. */
static int offer(struct plumb *p, const uint8_t *data, size_t len, size_t *ret_taken)
{
	struct service_host *const h = p->session->host;
	size_t taken = 0, more = 0;
	int rc = 0;

	if (p->urgent) {
		rc = conn_send_urgent(h->engine, h->now, p->session->id, data, 1, &taken);
		p->urgent = !rc && !taken;
	}
	if (!rc && !p->urgent && taken < len)
		rc = conn_send(h->engine, h->now, p->session->id, data + taken, len - taken, &more);
	if (!rc)
		*ret_taken = taken + more;
	return rc;
}

/* Offers what is held to the send buffer. True: nothing is held any more. */
static bool send_held(struct plumb *p)
{
	size_t taken = 0;

	if (!p->held)
		return true;
	if (offer(p, p->held + p->held_at, p->held_len - p->held_at, &taken))
		taken = p->held_len - p->held_at; /* our side is closed: nobody will take it */
	p->held_at += taken;
	if (p->held_at < p->held_len)
		return false;
	free(p->held);
	p->held = NULL;
	if (p->behind_held)
		p->ordered(p, p->behind_held);
	p->behind_held = 0;
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

/* Who holds the other end of a socket may have made ours block. A descriptor that comes along finds no room, and
 * the kernel says so: the read has ended with the order's octet.
 */
static ssize_t read_from(const struct plumb *p, uint8_t *buf, int flags, bool *ret_ordered)
{
	struct iovec iov = { buf, SERVICE_SCRATCH_BYTES };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	*ret_ordered = false;
	if (!p->socket)
		return read(p->from, buf, SERVICE_SCRATCH_BYTES);
	if (!p->ordered)
		return recv(p->from, buf, SERVICE_SCRATCH_BYTES, flags | MSG_DONTWAIT);
	n = recvmsg(p->from, &msg, flags | MSG_DONTWAIT);
	*ret_ordered = n > 0 && msg.msg_flags & MSG_CTRUNC;
	return n;
}

uint8_t plumb_last_order(const struct plumb *p, uint8_t one, uint8_t other)
{
	const int start = 0, nowhere = -1;
	uint8_t *const buf = p->session->host->scratch;
	uint8_t last = p->behind_held == one || p->behind_held == other ? p->behind_held : 0;
	bool ordered;
	ssize_t n;

	/* Each look begins where the last one ended. */
	if (p->from < 0 || setsockopt(p->from, SOL_SOCKET, SO_PEEK_OFF, &start, sizeof(start)))
		return last;
	while ((n = read_from(p, buf, MSG_PEEK, &ordered)) > 0 || (n < 0 && errno == EINTR))
		if (n > 0 && ordered && (buf[n - 1] == one || buf[n - 1] == other))
			last = buf[n - 1];
	(void)setsockopt(p->from, SOL_SOCKET, SO_PEEK_OFF, &nowhere, sizeof(nowhere));
	return last;
}

enum pulled {
	PULL_STOP, /* p may be gone */
	PULL_FULL, /* the send buffer is; p stands */
	PULL_MORE, /* there may be more */
	PULL_ORDER, /* as well, behind an order */
};

static enum pulled send_text(struct plumb *p, const uint8_t *data, size_t len)
{
	size_t taken = 0;

	if (offer(p, data, len, &taken)) {
		end_from(p);
		return PULL_STOP;
	}
	if (taken == len)
		return PULL_MORE;
	if (hold(p, data + taken, len - taken)) {
		if (p->held_up)
			p->held_up(p);
		return PULL_FULL;
	}
	session_abort(p->session); /* rather than a stream with a hole */
	return PULL_STOP;
}

/* Reads one piece. */
static enum pulled pull_once(struct plumb *p)
{
	struct session *const s = p->session;
	uint8_t *const buf = s->host->scratch;
	bool ordered;
	const ssize_t n = read_from(p, buf, 0, &ordered);
	enum pulled pulled = PULL_MORE;
	uint8_t order;

	if (n < 0 && errno == EINTR)
		return PULL_MORE;
	if (n < 0 && errno == EAGAIN && !p->draining) {
		(void)event_add(p->ev_from, NULL);
		return PULL_STOP;
	}
	if (n < 0 && errno == ECONNRESET && p->socket && p->reset_aborts) {
		session_abort(s); /* it was closed with text unread, and a kernel's TCP would */
		return PULL_STOP;
	}
	if (n < 0 && errno != EAGAIN && !p->broken)
		p->broken = errno;
	if (n <= 0 && has_failed(p)) {
		p->failed(p, p->broken);
		return PULL_STOP;
	}
	if (n <= 0) {
		end_from(p);
		return PULL_STOP;
	}
	if (!ordered)
		return send_text(p, buf, (size_t)n);
	order = buf[n - 1]; /* buf may have another use meanwhile */
	if (n > 1)
		pulled = send_text(p, buf, (size_t)n - 1);
	if (pulled == PULL_STOP)
		return PULL_STOP;
	if (pulled == PULL_FULL) {
		p->behind_held = order;
		return PULL_FULL;
	}
	p->ordered(p, order);
	return PULL_ORDER;
}

void plumb_pull(struct plumb *p)
{
	unsigned texts = 0, orders = 0;

	if (p->from < 0 || !send_held(p))
		return;
	while (texts < PULLS_MAX && orders < ORDERS_MAX) {
		const enum pulled pulled = pull_once(p);

		if (pulled == PULL_STOP || pulled == PULL_FULL)
			return;
		texts += pulled == PULL_MORE;
		orders += pulled == PULL_ORDER;
	}
	(void)event_add(p->ev_from, NULL);
}

static void set_switch(const struct session *s, bool is_cork, bool on)
{
	struct tcp_params params;
	bool *const param = is_cork ? &params.cork : &params.nagle;

	if (conn_params(s->host->engine, s->id, &params) || *param == on)
		return;
	*param = on;
	(void)conn_set_params(s->host->engine, s->host->now, s->id, &params);
}

void plumb_set_nagle(const struct session *s, bool on)
{
	set_switch(s, false, on);
}

void plumb_set_cork(const struct session *s, bool on)
{
	set_switch(s, true, on);
}
