/* SPDX-License-Identifier: Apache-2.0 */
/* A backend that is another connection of the same engine: `near` was accepted, `far` was opened for it. Text goes
 * from the receive queue of one to the send queue of the other and nowhere else, so a side that does not read
 * closes the other's window by exactly what is held.
 *
 *	FIN of one side			FIN of the other, behind everything that came before
 *	RST, timeout, operator		RST on the other side
 *	far's RST after its FIN		what it sent arrives; text that comes later is answered by RST
 */
#include <errno.h>
#include <stdlib.h>

#include "service/relay_inside.h"

static struct engine *engine_of(const struct relay *r)
{
	return r->session->host->engine;
}

static vtime now_of(const struct relay *r)
{
	return r->session->host->now;
}

/* The engine has taken or refused what was offered to it. */
static void drop_unread(const struct relay *r, conn_id from)
{
	struct span span;

	while (conn_peek(engine_of(r), from, &span, 1))
		if (conn_consume(engine_of(r), now_of(r), from, span.len))
			return;
}

/* Both FINs were passed on: what is left is TCP's. r is gone. */
static void finish(struct relay *r)
{
	struct session *const near = r->session, *const far = r->far;

	r->far = NULL;
	session_sink(far, false);
	session_sink(near, false);
}

/* From one receive queue to the other send queue. True: the end was reached, for the first time. */
static bool move(struct relay *r, conn_id from, conn_id to, bool *ended)
{
	struct engine *const e = engine_of(r);
	struct span span;
	size_t taken = 0;

	while (conn_peek(e, from, &span, 1)) {
		if (conn_send(e, now_of(r), to, span.base, span.len, &taken)) {
			drop_unread(r, from); /* an operator has closed that side: nobody listens */
			break;
		}
		if (taken && conn_consume(e, now_of(r), from, taken))
			return false;
		if (taken < span.len)
			return false; /* REPORT_WRITABLE of `to` brings us back */
	}
	if (*ended || !conn_at_eof(e, from))
		return false;
	*ended = true;
	(void)conn_close(e, now_of(r), to, CAUSE_USER);
	return true;
}

/* The PROXY header comes first. True: it is in the send queue. */
static bool send_header(struct relay *r)
{
	const struct relay_config *const cfg = r->session->service->relay;
	uint8_t header[PROXY_HEADER_MAX];
	struct flow flow;
	size_t taken = 0;

	if (r->header_at == r->header_len)
		return true;
	flow = session_flow(r->session);
	(void)proxy_header(cfg->proxy, &flow, header);
	if (conn_send(engine_of(r), now_of(r), r->far->id, header + r->header_at,
		      (size_t)(r->header_len - r->header_at), &taken))
		taken = (size_t)(r->header_len - r->header_at); /* closed: see move() */
	r->header_at = (uint8_t)(r->header_at + taken);
	return r->header_at == r->header_len;
}

static void move_to_far(struct relay *r)
{
	if (r->far_open && send_header(r) && move(r, r->session->id, r->far->id, &r->near_ended) &&
	    r->far_ended)
		finish(r);
}

static void move_to_near(struct relay *r)
{
	if (move(r, r->far->id, r->session->id, &r->far_ended) && r->near_ended)
		finish(r);
}

void far_near_readable(struct relay *r)
{
	if (r->far)
		move_to_far(r);
}

void far_near_writable(struct relay *r)
{
	if (r->far && r->far_open)
		move_to_near(r);
}

/* Within the engine's input only conn_send() may be called: what it refuses waits in the queue. */
uint32_t far_near_text(struct relay *r, struct span text)
{
	size_t taken = 0;

	if (!r->far || !r->far_open || r->header_at < r->header_len ||
	    conn_send(engine_of(r), now_of(r), r->far->id, text.base, text.len, &taken))
		return 0;
	return (uint32_t)taken;
}

int far_connect(struct relay *r)
{
	struct service_host *const h = r->session->host;
	const struct relay_config *const cfg = r->session->service->relay;
	const struct flow flow = session_flow(r->session);
	uint8_t header[PROXY_HEADER_MAX];
	int rc = h->open_far ? h->open_far(h, r->session, &r->backend->remote,
					   (uint64_t)cfg->timeout_ms * 1000, cfg->far, &r->far)
			     : -EOPNOTSUPP;

	if (rc)
		return rc;
	r->far_open = false;
	r->header_at = 0;
	r->header_len = cfg->proxy ? (uint8_t)proxy_header(cfg->proxy, &flow, header) : 0;
	r->far->relay = r;
	r->far->serving = true; /* closed() is called also when it never opens */
	return 0;
}

void far_drop(struct relay *r, bool reset)
{
	struct session *const far = r->far;

	r->far = NULL;
	if (!far)
		return;
	if (reset)
		session_abort(far);
	else
		(void)conn_close(far->host->engine, far->host->now, far->id, CAUSE_USER);
	session_sink(far, reset);
}

static int far_open(struct session *far)
{
	struct relay *const r = far->relay;

	r->far_open = true;
	relay_attempt_connected(r);
	move_to_far(r);
	return 0;
}

static uint32_t far_text(struct session *far, struct span text)
{
	const struct relay *const r = far->relay;
	size_t taken = 0;

	if (conn_send(engine_of(r), now_of(r), r->session->id, text.base, text.len, &taken))
		return 0;
	return (uint32_t)taken;
}

static void far_readable(struct session *far)
{
	move_to_near(far->relay);
}

static void far_writable(struct session *far)
{
	move_to_far(far->relay);
}

/* far is over, by itself: when we let it go, far_drop() and finish() have cut the bond before. */
static void far_closed(struct session *far, bool hangup)
{
	struct relay *const r = far->relay;
	struct session *near;

	far->relay = NULL;
	if (r->far != far)
		return;
	r->far = NULL;
	near = r->session;
	if (!r->far_open) {
		relay_attempt_failed(r);
		return;
	}
	if (hangup && !r->far_ended) {
		session_abort(near);
		session_sink(near, true);
		return;
	}
	if (!r->far_ended)
		(void)conn_close(near->host->engine, near->host->now, near->id, CAUSE_USER);
	session_sink(near, false);
}

const struct service_ops service_far = {
	.name = "relay",
	.help = "the other side of a relay",
	.direct = true,
	.hidden = true,
	.open = far_open,
	.text = far_text,
	.readable = far_readable,
	.writable = far_writable,
	.peer_closed = far_readable,
	.closed = far_closed,
};
