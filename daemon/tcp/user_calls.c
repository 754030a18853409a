/* SPDX-License-Identifier: Apache-2.0 */
/* OPEN, SEND, RECEIVE, CLOSE, ABORT, STATUS: RFC 9293 3.10.1 to 3.10.6. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "tcb.h"

/* OPEN, active. DEVIATION(MUST-51, MUST-52, MUST-53, SHLD-24): no source routes: routers drop such packets
 * today (RFC 7126), and a peer's would let it choose where our answers go.
 */

/* MUST-46 */
static bool may_open(const struct flow *f)
{
	return !addr_is_any(&f->remote.addr) && !addr_is_multicast(&f->remote.addr) &&
	       !addr_is_broadcast(&f->remote.addr) && f->remote.port != 0 &&
	       !addr_is_any(&f->local.addr) && !addr_is_multicast(&f->local.addr) &&
	       !addr_is_broadcast(&f->local.addr) &&
	       addr_is_v4(&f->local.addr) == addr_is_v4(&f->remote.addr);
}

/* Not a listener's: who connects to that would talk to himself. Nor the peer's own, where nobody listens: two SYNs of one
 * connection would meet, and open it (RFC 9293 3.5).
 */
static bool may_choose(struct engine *e, const struct flow *f)
{
	return !endpoint_eq(&f->local, &f->remote) && !listener_find(e, &f->local, 0) &&
	       steer_is_mine(&e->cfg.steer, f) && !table_find(e, f, table_hash(e, f));
}

/* RFC 6056 3.3.3: a walk through the range that starts elsewhere for each peer. */
static WRAPS int choose_port(struct engine *e, struct flow *f)
{
	const uint32_t n = (uint32_t)e->cfg.local_port_max - e->cfg.local_port_min + 1;
	uint32_t offset;

	if (e->cfg.local_port_min == 0 || e->cfg.local_port_max < e->cfg.local_port_min)
		return -EADDRNOTAVAIL;
	f->local.port = 0;
	offset = isn_port_offset(e, f);
	for (uint32_t i = 0; i < n; i++) {
		f->local.port = (uint16_t)(e->cfg.local_port_min + (offset + e->ephemeral++) % n);
		if (may_choose(e, f))
			return 0;
	}
	return -EADDRNOTAVAIL;
}

int engine_connect(struct engine *e, vtime now, const struct conn_open *open, conn_id *ret_id)
{
	struct flow f = open->flow;
	const struct tcp_params *params;
	struct tcb *t;
	uint32_t hash;
	int rc;

	engine_clock(e, now);
	if (!may_open(&f))
		return -EINVAL;
	if (f.local.port == 0) {
		rc = choose_port(e, &f);
		if (rc)
			return rc;
	}
	hash = table_hash(e, &f);
	if (table_find(e, &f, hash))
		return -EADDRINUSE;
	params = params_take(e, &open->params);
	(void)rest_make_room(e, false);
	t = params ? tcb_new(e, ST_CLOSED, &f, hash) : NULL;
	if (!t) {
		params_drop(e, params);
		return -ENOBUFS;
	}
	t->cookie = open->cookie;
	tcb_open(e, t, params, open->link_mtu);
	tcb_limit_handshake(e, t);
	params_drop(e, params); /* the TCB has it now */
	tcb_enter(e, t, ST_SYN_SENT, CAUSE_USER, 0, RULE_OPEN);
	e->counters.active_opens++;
	tcb_want_output(e, t); /* <SEQ=ISS><CTL=SYN> */
	*ret_id = engine_id(e, t);
	return 0;
}

/* SEND. */

enum {
	SEND_LEAST_BYTES = 1 << 16,
	PATTERN_LEAST_BYTES = 1 << 20,
};

/* How much the queue is to hold: what the window lets go in a round trip and as much again, so that there is
 * always something to send, and not all of SendBuffer for a path that takes an hour to carry it. When many
 * send, no more waits than the peer takes: those that read nothing would have the chunks of those that read.
 */
static uint32_t send_wanted(const struct tcb *t, bool filling)
{
	const uint32_t needed = max_u32(SEND_LEAST_BYTES, 2 * t->cc.cwnd);
	const uint32_t goes = min_u32(2 * t->cc.cwnd, t->snd.wnd);

	return min_u32(t->params->send_buffer_bytes, filling ? goes : needed);
}

/* How much it takes: when many send, also what its last chunk has room for. */
static uint32_t send_most(const struct engine *e, const struct tcb *t)
{
	const bool filling = pool_is_filling(&e->pool);
	const uint32_t wanted = send_wanted(t, filling);

	return filling ? max_u32(wanted, min_u32(t->sendq.used + sendq_spare(&t->sendq),
						 t->params->send_buffer_bytes))
		       : wanted;
}

static uint32_t unsent(const struct tcb *t)
{
	const uint32_t used = t->sendq.used;

	return used - min_u32(seq_ahead(t->snd.nxt, t->sendq.front), used);
}

/* Of text that is always the same more may wait: none of it is copied, and it drops out of no cache. So who reads is sent more
 * in one go. 0: no limit.
 */
static uint32_t lowat_of(const struct tcb *t)
{
	const uint32_t lowat = t->params->not_sent_lowat_bytes;

	return lowat && t->snd.pattern ? max_u32(lowat, PATTERN_LEAST_BYTES) : lowat;
}

static uint32_t send_room(const struct engine *e, const struct tcb *t)
{
	const uint32_t most = send_most(e, t), used = t->sendq.used;
	const uint32_t lowat = lowat_of(t);
	const uint32_t room = most > used ? most - used : 0, waits = lowat ? unsent(t) : 0;

	return lowat ? min_u32(room, lowat > waits ? lowat - waits : 0) : room;
}

/* Of text that is cut to this room: up to where a super-segment ends, since a short one behind it would cost as much
 * as itself.
 */
static uint32_t whole_room(const struct engine *e, const struct tcb *t, uint32_t room)
{
	const uint32_t mss = t->snd.mss;
	const uint32_t burst = mss ? e->cfg.segment_bytes_max / mss * mss : 0;
	const uint32_t over = burst ? (unsent(t) + room) % burst : 0;

	return over < room ? room - over : room;
}

/* Enough of it to be worth telling. */
bool tcb_send_room(const struct engine *e, const struct tcb *t)
{
	const uint32_t most = send_most(e, t), used = t->sendq.used;
	const uint32_t lowat = lowat_of(t);

	return used < most && (used == 0 || most - used >= most / 4) &&
	       (!lowat || unsent(t) <= lowat / 2);
}

/* What was passed on is as good as read once the queue has room for it. */
static void settle_passed(struct engine *e, struct tcb *t)
{
	const uint32_t wanted = send_wanted(t, pool_is_filling(&e->pool)), used = t->sendq.used;

	t->rcv.passed = min_u32(t->rcv.passed, used > wanted ? used - wanted : 0);
	window_tell(e, t);
}

void tcb_tell_room(struct engine *e, struct tcb *t)
{
	if (t->rcv.passed)
		settle_passed(e, t);
	if (!t->want_writable || !tcb_send_room(e, t))
		return;
	t->want_writable = false;
	list_remove(&t->waiting);
	tcb_report(e, t, REPORT_WRITABLE);
}

static int may_send(const struct tcb *t)
{
	switch (t->state) {
	case ST_SYN_SENT:
	case ST_SYN_RECEIVED:
	case ST_ESTABLISHED:
	case ST_CLOSE_WAIT:
		return t->close_queued ? -EPIPE : 0;
	case ST_CLOSED:
	case ST_LISTEN:
		return -ENOTCONN;
	case ST_FIN_WAIT_1:
	case ST_FIN_WAIT_2:
	case ST_CLOSING:
	case ST_LAST_ACK:
	case ST_TIME_WAIT:
	case ST__COUNT:
		break;
	}
	return -EPIPE; /* "connection closing" */
}

/* What is sent: octets, which stay where they are when they are lent, or a pattern. */
struct text {
	const void *data;
	bool received; /* by the same connection */
	uint64_t loan;
	const struct pattern *pattern;
	uint32_t at;
};

static int send_text(struct engine *e, vtime now, conn_id id, const struct text *text, size_t len,
		     size_t *ret_taken)
{
	struct tcb *t = engine_find(e, id);
	uint32_t room, offered, taken;
	bool passes;
	int rc;

	engine_clock_delivering(e, now); /* it does not touch what arrives */
	if (!t)
		return -EBADF;
	rc = may_send(t);
	if (rc)
		return rc;
	t->snd.pattern = text->pattern;
	room = send_room(e, t);
	passes = text->received && !pool_is_filling(&e->pool);
	offered = passes || len <= room ? (uint32_t)len : whole_room(e, t, room);
	taken = text->pattern
			? sendq_put_pattern(&e->pool, &t->sendq, text->pattern, text->at, offered)
			: sendq_put_lent(&e->pool, &t->sendq, text->data, offered, text->loan);
	if (taken)
		tcb_want_output(e, t);
	if (passes && taken > room)
		t->rcv.passed += taken - room;
	if (taken < len) {
		t->want_writable = true;
		/* No chunk was left. Who has text queued hears of room when that is acknowledged. */
		if (taken < offered && t->sendq.used == 0)
			list_append(&e->waiting, &t->waiting);
	}
	*ret_taken = taken;
	return 0;
}

int conn_send(struct engine *e, vtime now, conn_id id, const void *data, size_t len,
	      size_t *ret_taken)
{
	const struct text text = { .data = data };

	return send_text(e, now, id, &text, len, ret_taken);
}

int conn_pass_on(struct engine *e, vtime now, conn_id id, const void *data, size_t len,
		 uint64_t loan, size_t *ret_taken)
{
	const struct text text = { .data = data, .received = true, .loan = loan };

	return send_text(e, now, id, &text, len, ret_taken);
}

uint64_t engine_first_loan(const struct engine *e)
{
	return pool_first_loan(&e->pool);
}

void engine_recall(struct engine *e, uint64_t loan)
{
	pool_recall(&e->pool, loan);
}

int conn_send_pattern(struct engine *e, vtime now, conn_id id, const struct pattern *pattern,
		      uint32_t at, size_t len, size_t *ret_taken)
{
	const struct text text = { .pattern = pattern, .at = at };

	return send_text(e, now, id, &text, len, ret_taken);
}

/* "If the urgent flag is set, then SND.UP <- SND.NXT", of what is queued. */
int conn_send_urgent(struct engine *e, vtime now, conn_id id, const void *data, size_t len,
		     size_t *ret_taken)
{
	struct tcb *t = engine_find(e, id);
	size_t taken;
	const int rc = conn_send(e, now, id, data, len, &taken);

	if (rc)
		return rc;
	*ret_taken = taken;
	if (taken == 0)
		return 0;
	t->snd.up = tcb_text_end(t);
	t->snd.urgent = true;
	e->counters.urgent_out++;
	if (tcb_syn_acked(t) && !seq_lt(t->snd.nxt, seq_add(t->snd.una, t->snd.wnd)))
		tcb_ack_now(e, t);
	return 0;
}

/* RECEIVE. */

unsigned conn_peek(const struct engine *e, conn_id id, struct span *ret_spans, unsigned max)
{
	struct tcb copy;
	const struct tcb *const t = engine_look(e, id, &copy);

	return t ? recvq_spans(&e->pool, &t->recvq, ret_spans, max) : 0;
}

static void consume(struct engine *e, struct tcb *t, uint32_t n)
{
	recvq_consume(&e->pool, &t->recvq, n);
	tcb_read_urgent(t);
	window_read(e, t, n);
	window_tell(e, t);
}

int conn_consume(struct engine *e, vtime now, conn_id id, size_t n)
{
	struct tcb *t = engine_find(e, id);

	engine_clock(e, now);
	if (!t)
		return -EBADF;
	if (n > t->recvq.unread)
		return -EINVAL;
	if (n)
		consume(e, t, (uint32_t)n);
	if (t->unread_end)
		tcb_over(e, t);
	return 0;
}

int conn_receive(struct engine *e, vtime now, conn_id id, void *buf, size_t len, size_t *ret_got)
{
	struct tcb *t = engine_find(e, id);
	uint8_t *p = buf;
	size_t got = 0;
	struct span s;

	engine_clock(e, now);
	if (!t)
		return -EBADF;
	if (t->state == ST_CLOSED && t->recvq.unread == 0 && !t->rcv.fin)
		return -ENOTCONN;
	while (got < len && recvq_spans(&e->pool, &t->recvq, &s, 1)) {
		const uint32_t n = len - got < s.len ? (uint32_t)(len - got) : s.len;

		memcpy(p + got, s.base, n);
		recvq_consume(&e->pool, &t->recvq, n);
		got += n;
	}
	tcb_read_urgent(t);
	if (got) {
		window_read(e, t, (uint32_t)got);
		window_tell(e, t);
	}
	if (t->unread_end)
		tcb_over(e, t);
	*ret_got = got;
	return 0;
}

bool conn_at_eof(const struct engine *e, conn_id id)
{
	struct tcb copy;
	const struct tcb *const t = engine_look(e, id, &copy);

	return t && t->rcv.fin && t->recvq.unread == 0;
}

int conn_stop_reading(struct engine *e, vtime now, conn_id id)
{
	struct tcb *t = engine_find(e, id);

	engine_clock(e, now);
	if (!t)
		return -EBADF;
	if (t->unread_end) {
		tcb_forget_unread(e, t);
		return 0;
	}
	if (t->state == ST_CLOSED)
		return -ENOTCONN;
	t->stopped = true;
	t->direct = false;
	if (t->recvq.unread == 0) {
		tcb_limit_fin_wait_2(e, t);
		return 0;
	}
	if (t->state == ST_TIME_WAIT) {
		recvq_clear(&e->pool, &t->recvq); /* both sides are done: nobody to tell */
		tcb_read_urgent(t);
		return 0;
	}
	/* SHLD-3, MAY-1 */
	tcb_reset(e, t, END_RESET_BY_SERVICE, CAUSE_USER, 0, RULE_CLOSE_UNREAD);
	return 0;
}

/* CLOSE and ABORT. */

void tcb_close_now(struct engine *e, struct tcb *t, enum cause cause)
{
	const enum tcp_state to = t->state == ST_CLOSE_WAIT ? ST_LAST_ACK : ST_FIN_WAIT_1;

	t->close_queued = false;
	t->snd.fin_queued = true;
	t->want_writable = false;
	list_remove(&t->waiting);
	if (t->closed_by == CLOSED_BY_NOBODY)
		t->closed_by = CLOSED_BY_LOCAL;
	tcb_enter(e, t, to, cause, 0, RULE_CLOSE);
	tcb_want_output(e, t);
}

int conn_close(struct engine *e, vtime now, conn_id id, enum cause by)
{
	struct tcb *t = engine_find(e, id);

	engine_clock(e, now);
	if (!t)
		return -EBADF;
	switch (t->state) {
	case ST_SYN_SENT:
		tcb_end(e, t, END_CANCELLED, by, 0, RULE_CLOSE);
		return 0;
	case ST_SYN_RECEIVED:
		if (t->close_queued)
			return -EPIPE;
		if (t->sendq.used == 0) {
			tcb_close_now(e, t, by);
			return 0;
		}
		t->close_queued = true; /* "queue for processing after entering ESTABLISHED" */
		t->close_cause = by;
		return 0;
	case ST_ESTABLISHED:
	case ST_CLOSE_WAIT:
		tcb_close_now(e, t, by);
		return 0;
	case ST_CLOSED:
	case ST_LISTEN:
		return -ENOTCONN;
	case ST_FIN_WAIT_1:
	case ST_FIN_WAIT_2:
	case ST_CLOSING:
	case ST_LAST_ACK:
	case ST_TIME_WAIT:
	case ST__COUNT:
		break;
	}
	return -EPIPE; /* "connection closing" */
}

int conn_abort(struct engine *e, vtime now, conn_id id, enum cause by, enum end_reason reason)
{
	struct tcb *t = engine_find(e, id);

	engine_clock(e, now);
	if (!t)
		return -EBADF;
	if (t->unread_end) { /* there is nobody to tell any more */
		tcb_forget_unread(e, t);
		return 0;
	}
	switch (t->state) {
	case ST_CLOSED:
	case ST_LISTEN:
		return -ENOTCONN;
	case ST_SYN_RECEIVED:
	case ST_ESTABLISHED:
	case ST_FIN_WAIT_1:
	case ST_FIN_WAIT_2:
	case ST_CLOSE_WAIT:
		tcb_reset(e, t, reason, by, 0, RULE_ABORT); /* <SEQ=SND.NXT><CTL=RST> */
		return 0;
	case ST_SYN_SENT:
	case ST_CLOSING:
	case ST_LAST_ACK:
	case ST_TIME_WAIT:
	case ST__COUNT:
		break;
	}
	tcb_end(e, t, reason, by, 0, RULE_ABORT);
	return 0;
}

int conn_set_direct(struct engine *e, conn_id id, bool on)
{
	struct tcb *t = engine_find(e, id);

	if (!t)
		return -EBADF;
	t->direct = on && !t->stopped;
	return 0;
}

/* STATUS. */

static void status_of_data(const struct engine *e, const struct tcb *t, struct conn_status *s)
{
	s->snd_wnd = t->snd.wnd;
	s->rcv_wnd = tcb_rcv_wnd(t);
	s->snd_wscale = t->snd.wscale;
	s->rcv_wscale = t->rcv.wscale;
	s->timestamps = t->timestamps;
	s->window_scaling = t->window_scaling;
	s->sack = t->sack;
	s->cwnd_bytes = t->cc.cwnd;
	s->ssthresh_bytes = t->cc.ssthresh;
	s->ecn = t->ecn.on;
	s->fast_open = t->fast_open.early;
	s->congestion_control = t->cc.ops->name;
	s->snd_mss = t->snd.mss;
	s->rcv_mss = t->rcv.mss;
	s->path_mtu = tcb_path_mtu(t);
	s->srtt_us = rtt_smoothed_us(t);
	s->rttvar_us = rtt_variation_us(t);
	s->peer_dscp = t->rcv.dscp;
	s->rttmin_us = t->rtt.min_us;
	s->rto_us = rtt_rto_us(t);
	s->user_timeout_us = tcb_user_timeout_us(t);
	s->peer_user_timeout_us = (uint64_t)t->uto.remote_s * 1000000;
	s->backoffs = t->rtt.backoffs;
	s->send_queue_bytes = t->sendq.used;
	s->unacked_bytes = min_u32(seq_ahead(t->snd.nxt, t->sendq.front), t->sendq.used);
	s->receive_queue_bytes = t->recvq.unread;
	s->urgent_bytes = t->rcv.urgent ? seq_sub(t->rcv.up, t->recvq.front) : 0;
	s->in_doubt = tcb_in_doubt(t);
	s->reassembly_bytes = recvq_range_bytes(&e->pool, &t->recvq);
	s->bytes_in = t->bytes_in;
	s->bytes_out = t->bytes_out;
	s->segments_in = t->segments_in;
	s->segments_out = t->segments_out;
	s->retransmitted_segments = t->retransmitted_segments;
	s->retransmitted_bytes = t->retransmitted_bytes;
}

int conn_status(const struct engine *e, conn_id id, struct conn_status *ret_status)
{
	struct tcb copy;
	const struct tcb *const t = engine_look(e, id, &copy);

	if (!t)
		return -EBADF;
	*ret_status = (struct conn_status){
		.id = id,
		.serial = t->serial,
		.cookie = t->cookie,
		.state = t->state,
		.flow = t->flow,
		.passive = t->passive,
		.opened = t->opened,
		.local_fin = t->snd.fin_queued,
		.remote_fin = t->rcv.fin,
		.closed_by = t->closed_by,
		.reason = t->reason,
		.soft_error = t->soft_error,
		.created_at = t->created_at,
		.opened_at = t->opened_at,
		.closed_at = t->closed_at,
		.state_since = t->state_since,
		.timer_at = tcb_next_timer(t),
		.iss = t->iss,
		.irs = t->irs,
		.snd_una = t->snd.una,
		.snd_nxt = t->snd.nxt,
		.rcv_nxt = t->rcv.nxt,
	};
	status_of_data(e, t, ret_status);
	return 0;
}
