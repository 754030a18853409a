/* SPDX-License-Identifier: Apache-2.0 */
/* Connections: from the engine's traces and reports to sessions and the record. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/end_name.h"
#include "worker/inside.h"

static const char *service_name(const struct conn *c)
{
	return c->session.service ? c->session.service->ops->name : "";
}

/* A name that fits; cut when it does not. */
static void put_name(char *to, size_t size, const char *name)
{
	const size_t n = strnlen(name, size - 1);

	memcpy(to, name, n);
	to[n] = 0;
}

static void fill_row(const struct worker *w, const struct conn *c, const struct conn_status *st,
		     struct record_connection *ret_row)
{
	*ret_row = (struct record_connection){
		.id = st->serial,
		.flow = st->flow,
		.passive = st->passive,
		.start_us = worker_realtime_us(w, st->created_at),
		.opened_us = worker_realtime_us(w, st->opened_at),
		.reason = st->reason,
		.closed_by = st->closed_by,
		.last_state = (enum tcp_state)c->last_state,
		.bytes_in = st->bytes_in,
		.bytes_out = st->bytes_out,
		.segments_in = st->segments_in,
		.segments_out = st->segments_out,
		.retransmitted_segments = st->retransmitted_segments,
		.retransmitted_bytes = st->retransmitted_bytes,
		.srtt_us = st->srtt_us,
		.rttvar_us = st->rttvar_us,
		.rttmin_us = st->rttmin_us,
		.snd_mss = st->snd_mss,
		.rcv_mss = st->rcv_mss,
		.pid = c->session.pid,
		.exit_status = c->session.exit_status,
		.run_us = c->session.run_us,
	};
	put_name(ret_row->service, sizeof(ret_row->service), service_name(c));
	if (c->ifindex)
		put_name(ret_row->interface, sizeof(ret_row->interface),
			 netview_link_name(w->view, c->ifindex));
}

static bool is_recorded(const struct worker *w)
{
	return w->cfg.record_what != RECORD_NOTHING;
}

static void put_row(const struct worker *w, const struct record_connection *row)
{
	if (is_recorded(w))
		record_connection_put(w->cfg.record, row);
}

static void put_begin(const struct worker *w, const struct conn *c, const struct conn_status *st)
{
	struct record_connection row;

	if (!is_recorded(w))
		return;
	fill_row(w, c, st, &row);
	row.end_us = 0;
	put_row(w, &row);
}

/* Who sends a SYN and never completes the handshake is recorded as well, but a flood of them must not fill the
 * record: STRANGERS_MAX at a time, STRANGERS_A_SECOND of those that come to nothing. Who opens gives his back.
 */
static bool take_stranger(struct worker *w)
{
	const uint64_t us = w->host.now.us - w->strangers_at.us;
	const uint64_t more = us / (1000000 / STRANGERS_A_SECOND);

	if (more) {
		w->strangers = (uint32_t)(more + w->strangers < STRANGERS_MAX ? more + w->strangers
									      : STRANGERS_MAX);
		w->strangers_at = w->host.now;
	}
	if (!w->strangers) {
		w->strangers_unrecorded++;
		return false;
	}
	w->strangers--;
	return true;
}

/* It is open, or in another state than half open: no stranger any more. */
static void recorded(struct worker *w, struct conn *c)
{
	struct conn_status st;

	if (c->stranger && w->strangers < STRANGERS_MAX)
		w->strangers++;
	c->stranger = false;
	if (!c->unrecorded || conn_status(w->engine, c->session.id, &st))
		return;
	c->unrecorded = false;
	put_begin(w, c, &st);
}

static void begin_conn(struct worker *w, struct conn *c, const struct conn_status *st,
		       uint32_t ifindex)
{
	struct listener *const l = st->passive ? listeners_by_cookie(w, st->cookie) : NULL;

	*c = (struct conn){ .listener = l, .ifindex = ifindex, .last_state = (uint8_t)st->state };
	session_init(&c->session, &w->host, st->id, st->serial, l ? l->service : NULL);
	if (l)
		l->live++;
	w->conns_used = true;
	if (ifindex)
		worker_note_mtu(w, ifindex);
	if (is_recorded(w) && st->passive && !st->opened) {
		c->stranger = take_stranger(w);
		c->unrecorded = !c->stranger;
	}
	if (!c->unrecorded)
		put_begin(w, c, st);
}

struct conn *worker_conn(struct worker *w, conn_id id, uint32_t ifindex)
{
	struct conn *const c = &w->conns[id.slot];
	struct conn_status st;

	if (c->session.host && c->session.id.gen == id.gen)
		return c;
	if (conn_status(w->engine, id, &st))
		return NULL;
	begin_conn(w, c, &st, ifindex);
	return c;
}

static void record_trace(const struct worker *w, const struct trace *t)
{
	const struct record_transition row = { .connection = t->serial,
					       .at_us = worker_realtime_us(w, t->at),
					       .from = t->from,
					       .to = t->to,
					       .cause = t->cause,
					       .detail = t->detail,
					       .rule = t->rule,
					       .seq = t->seq.v,
					       .ack = t->ack.v };

	if (w->cfg.record_what == RECORD_TRANSITIONS)
		record_transition_put(w->cfg.record, &row);
}

/* The connection in this slot, if it is still the one of `serial`. */
static struct conn *conn_by_trace(struct worker *w, const struct trace *t, uint32_t ifindex)
{
	uint32_t cursor = t->slot;
	struct conn *c;
	conn_id id;

	if (w->conns[t->slot].session.host && w->conns[t->slot].session.serial == t->serial)
		return &w->conns[t->slot];
	if (!engine_next_conn(w->engine, &cursor, &id) || id.slot != t->slot)
		return NULL;
	c = worker_conn(w, id, ifindex);
	return c && c->session.serial == t->serial ? c : NULL;
}

void worker_drain_traces(struct worker *w, uint32_t ifindex)
{
	struct conn *c;
	struct trace t;

	while (engine_next_trace(w->engine, &t)) {
		if (t.kind != TRACE_TRANSITION || !t.serial)
			continue;
		if (t.from == ST_SYN_RECEIVED && t.to == ST_ESTABLISHED)
			shed_know(&w->shed, &t.flow.remote.addr, w->host.now.us);
		c = conn_by_trace(w, &t, ifindex);
		if (c && t.to == ST_CLOSED)
			c->last_state = (uint8_t)t.from;
		else if (c && t.from == ST_SYN_RECEIVED)
			recorded(w, c);
		if (!c || !c->unrecorded)
			record_trace(w, &t);
	}
}

static int end_errno(enum end_reason reason)
{
	switch (reason) {
	case END_REFUSED:
		return -ECONNREFUSED;
	case END_RESET_BY_PEER:
	case END_RESET_BY_SERVICE:
	case END_HANDSHAKE_RESET:
	case END_PEER_RESTARTED:
		return -ECONNRESET;
	case END_HANDSHAKE_TIMEOUT:
	case END_USER_TIMEOUT:
	case END_FIN_WAIT_2_TIMEOUT:
	case END_KEEPALIVE_TIMEOUT:
		return -ETIMEDOUT;
	case END_UNREACHABLE:
		return -EHOSTUNREACH;
	case END_DAEMON_STOPPED:
	case END_DAEMON_LOST:
		return -ESHUTDOWN;
	case END_OUT_OF_MEMORY:
		return -ENOBUFS;
	case END_NONE:
	case END_NORMAL:
	case END_RESET_BY_OPERATOR:
	case END_CANCELLED:
	case END__COUNT:
		break;
	}
	return -ECANCELED;
}

/* What its holder is told: as Linux has it, a reset behind the peer's FIN is only for who still writes. */
static int holder_errno(const struct conn *c, enum end_reason reason)
{
	const int rc = -end_errno(reason);

	return rc == ECONNRESET && c->last_state == ST_CLOSE_WAIT ? EPIPE : rc;
}

/* WORKER_CONNECT's answer. */
static void answer_connect(struct worker *w, struct conn *c, int rc, enum end_reason reason)
{
	struct worker_request *const req = c->active ? c->active->connect : NULL;
	char text[ENDPOINT_TEXT];

	if (!req)
		return;
	c->active->connect = NULL;
	req->connect.ret_serial = c->session.serial;
	req->connect.ret_flow = session_flow(&c->session);
	if (rc)
		(void)errmsg(&req->err, rc, "%s: %s (%s)",
			     endpoint_format(&req->connect.ret_flow.remote, text), strerror(-rc),
			     end_reason_text(reason));
	worker_answer(w, req, rc);
}

/* Closed, rather than shut down one way: that is for its connection to pass on. */
static void on_holder(evutil_socket_t fd, short what, void *arg)
{
	struct session *const s = arg;
	struct service_host *const h = s->host;
	struct pollfd p = { .fd = (int)fd };

	if (poll(&p, 1, 0) != 1 || !(p.revents & (POLLHUP | POLLERR)))
		return;
	h->begin(h);
	(void)conn_abort(h->engine, h->now, s->id, CAUSE_USER, END_CANCELLED);
	h->end(h);
}

void worker_forget_holder(struct conn *c)
{
	if (!c->active)
		return;
	if (c->active->ev_holder)
		event_free(c->active->ev_holder);
	c->active->ev_holder = NULL;
}

int worker_watch_holder(struct worker *w, struct conn *c, int fd)
{
	struct active *const a = c->active;

	a->ev_holder = event_new(w->base, fd, EV_READ | EV_ET | EV_PERSIST, on_holder, &c->session);
	if (a->ev_holder && !event_add(a->ev_holder, NULL))
		return 0;
	worker_forget_holder(c);
	return -ENOMEM;
}

static void serve_opened(struct worker *w, struct conn *c)
{
	struct session *const s = &c->session;

	recorded(w, c);
	answer_connect(w, c, 0, END_NONE);
	worker_forget_holder(c);
	if (!session_open(s))
		return;
	w->services_refused++;
	session_abort(s);
	session_sink(s, true);
}

static void keep_epitaph(struct worker *w, const struct record_connection *row)
{
	struct epitaph *const e = malloc(sizeof(*e));

	if (!e)
		return; /* the row stands without the process's end */
	*e = (struct epitaph){ .next = w->epitaphs, .row = *row };
	w->epitaphs = e;
}

void worker_process_ended(struct service_host *h, uint64_t serial, uint32_t pid,
			  int32_t exit_status, uint64_t run_us)
{
	struct worker *const w = h->worker;

	for (struct epitaph **at = &w->epitaphs; *at; at = &(*at)->next) {
		struct epitaph *const e = *at;

		if (e->row.id != serial)
			continue;
		e->row.pid = pid;
		e->row.exit_status = exit_status;
		e->row.run_us = run_us;
		if (pid)
			put_row(w, &e->row);
		*at = e->next;
		free(e);
		return;
	}
}

void worker_free_epitaphs(struct worker *w)
{
	while (w->epitaphs) {
		struct epitaph *const e = w->epitaphs;

		w->epitaphs = e->next;
		free(e);
	}
}

static void serve_closed(struct worker *w, struct conn *c, const struct report *r)
{
	const bool has_process = c->session.has_process;
	struct listener *const l = c->listener;
	struct record_connection row;
	struct conn_status st;

	if (is_recorded(w) && !c->unrecorded && !conn_status(w->engine, r->id, &st)) {
		fill_row(w, c, &st, &row);
		row.reason = r->reason;
		row.end_us = worker_realtime_us(
			w, st.closed_at.us == VTIME_NEVER.us ? w->host.now : st.closed_at);
		put_row(w, &row);
		if (has_process)
			keep_epitaph(w, &row);
	}
	worker_forget_holder(c);
	answer_connect(w, c, r->opened_before ? 0 : end_errno(r->reason), r->reason);
	c->session.end_errno = holder_errno(c, r->reason);
	if (c->session.fd >= 0) {
		end_name_set(c->session.fd, c->session.end_errno);
		(void)close(c->session.fd);
	}
	session_fini(&c->session, r->reason != END_NORMAL);
	if (c->active && c->active->owned.port) {
		own_remove(&w->own, &c->active->owned, true);
		if (worker_apply_owned(w))
			worker_fail(w, "the packet socket's filter cannot be set");
	}
	free(c->active);
	*c = (struct conn){ 0 };
	conn_release(w->engine, r->id);
	listener_conn_gone(w, l);
}

bool worker_serve_reports(struct worker *w)
{
	struct report r;
	bool served = false;

	while (engine_next_report(w->engine, &r)) {
		struct conn *c;

		served = true;
		worker_drain_traces(w, 0);
		c = worker_conn(w, r.id, 0);
		if (!c)
			continue;
		if (r.kinds & REPORT_CLOSED) {
			serve_closed(w, c, &r);
			continue;
		}
		if (r.kinds & REPORT_OPENED)
			serve_opened(w, c);
		session_ready(&c->session, r.kinds);
	}
	worker_drain_traces(w, 0);
	return served;
}

void worker_fill_conn(struct worker *w, const struct conn_status *st, struct worker_conn *ret_conn)
{
	const struct conn *const c = worker_conn(w, st->id, 0);

	*ret_conn = (struct worker_conn){
		.tcp = *st,
		.created_us = worker_realtime_us(w, st->created_at),
		.opened_us = worker_realtime_us(w, st->opened_at),
		.state_since_us = worker_realtime_us(w, st->state_since),
		.timer_in_us = UINT64_MAX,
		.pid = c ? c->session.pid : 0,
	};
	if (vtime_before(st->timer_at, VTIME_NEVER))
		ret_conn->timer_in_us = st->timer_at.us > w->host.now.us
						? st->timer_at.us - w->host.now.us
						: 0;
	if (!c)
		return;
	put_name(ret_conn->service, sizeof(ret_conn->service), service_name(c));
	if (c->ifindex)
		put_name(ret_conn->interface, sizeof(ret_conn->interface),
			 netview_link_name(w->view, c->ifindex));
}

void worker_close_conn(struct worker *w, conn_id id)
{
	struct conn *const c = worker_conn(w, id, 0);

	(void)conn_close(w->engine, w->host.now, id, CAUSE_OPERATOR);
	if (c)
		session_sink(&c->session, true);
}

void worker_stop_conn(struct worker *w, conn_id id)
{
	struct conn *const c = worker_conn(w, id, 0);

	if (!c || !session_stop(&c->session))
		worker_close_conn(w, id);
}
