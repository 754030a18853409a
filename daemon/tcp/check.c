/* SPDX-License-Identifier: Apache-2.0 */
/* engine_check(): what must hold between any two calls. */
#include <assert.h>

#include "tcb.h"

static void check_closed(const struct engine *e, const struct tcb *t)
{
	assert(!vtime_is_set(tcb_next_timer(t)));
	assert(t->sendq.used == 0 && !t->sendq.head && !t->recvq.ranges);
	assert(link_is_linked(&t->out) == t->rst_owed);
	assert(!link_is_linked(&t->waiting) && !link_is_linked(&t->age.link));
	assert(t->reason != END_NONE && !t->recovery);
	assert(!t->in_use || table_find(e, &t->flow, table_hash(e, &t->flow)) != t->slot + 1);
}

static void check_recovery(const struct engine *e, const struct tcb *t, const struct recovery *r)
{
	if (r->logging)
		(void)scoreboard_check(&e->runs, &r->board, t->snd.una, t->snd.nxt);
	else
		assert(!r->board.head);
	assert(tcb_flight(t) || !r->logging);
}

static void check_send(const struct engine *e, const struct tcb *t)
{
	const uint32_t syn = !tcb_syn_acked(t);
	const uint32_t queued = t->sendq.used + t->snd.fin_queued - (t->snd.fin_acked ? 1 : 0);

	assert(seq_le(t->snd.una, t->snd.rtx));
	assert(seq_le(t->snd.rtx, t->snd.nxt));
	assert(tcb_flight(t) <= queued + syn);
	assert(!t->snd.fin_acked || t->snd.fin_queued);
	assert(seq_eq(t->sendq.front, seq_add(t->snd.una, syn)) || t->snd.fin_acked);
	assert((t->sendq.used == 0) == (t->sendq.head == 0));
	assert(seq_le(t->snd.una, t->snd.small_end) && seq_le(t->snd.small_end, t->snd.nxt));
	assert(!t->snd.probing || t->snd.wnd == 0);
	/* Or they would lie ahead one day: see keep_behind(). */
	assert(seq_in(t->cc.recover, seq_add(t->snd.una, UINT32_MAX), tcb_flight(t) + 2));
	assert(!t->ecn.on ||
	       seq_in(t->ecn.until, seq_add(t->snd.una, UINT32_MAX), tcb_flight(t) + 2));
	assert(t->snd.mss > 0 && t->cc.cwnd >= t->snd.mss);
	/* What is outstanding has a timer, or is about to be sent: nothing can be forgotten. */
	if (tcb_flight(t))
		assert(vtime_is_set(t->timers[TIMER_RETRANSMISSION]));
	else if (tcb_has_unsent(t))
		assert(vtime_is_set(t->timers[TIMER_RETRANSMISSION]) || link_is_linked(&t->out));
	assert(t->rcv.passed <= t->sendq.used);
	if (recovery_of(e, t))
		check_recovery(e, t, recovery_of(e, t));
	if (t->snd.tail_probe)
		assert(link_is_linked(&t->out));
	if (t->rcv.ack_now || t->rcv.dup_acks || t->snd.fast || t->snd.force || t->keepalive.owed)
		assert(link_is_linked(&t->out));
}

static void check_receive(const struct engine *e, const struct tcb *t)
{
	const seqno end = seq_add(t->recvq.front, t->recvq.unread);
	seqno last = end;
	uint32_t ranges = 0;

	if (e->direct.tcb != t)
		assert(seq_eq(t->rcv.nxt, seq_add(end, t->rcv.fin)));
	assert(seq_le(t->rcv.nxt, t->rcv.adv));
	assert(seq_le(t->rcv.acked, t->rcv.nxt));
	assert(!t->rcv.fin || t->rcv.fin_known);
	assert(!t->rcv.urgent || seq_lt(t->recvq.front, t->rcv.up));
	assert(!t->snd.urgent || seq_lt(t->snd.una, t->snd.up));
	assert(t->recvq.unread == 0 || t->recvq.head);
	assert(t->recvq.unread || t->recvq.ranges || !t->recvq.head);
	assert(!t->stopped || t->recvq.unread == 0);
	for (uint32_t id = t->recvq.ranges; id; id = e->pool.ranges[id - 1].next) {
		const struct range *r = &e->pool.ranges[id - 1];

		assert(seq_lt(last, r->left) && seq_lt(r->left, r->right));
		assert(seq_le(r->right, t->rcv.adv));
		last = r->right;
		ranges++;
	}
	assert(ranges == t->recvq.ranges_n && ranges <= RANGES_PER_CONN);
	/* What was received and not acknowledged will be. */
	if (t->rcv.unacked)
		assert(t->rcv.ack_now || vtime_is_set(t->timers[TIMER_DELAYED_ACK]));
}

static void check_state(const struct engine *e, const struct tcb *t)
{
	const bool aged = t->state == ST_TIME_WAIT || (t->state == ST_SYN_RECEIVED && t->passive);

	assert(t->in_use && !t->rst_owed && t->reason == END_NONE);
	assert(table_find(e, &t->flow, table_hash(e, &t->flow)) == t->slot + 1);
	assert(table_find_serial(e, t->serial) == t->slot + 1);
	assert(!aged || link_is_linked(&t->age.link) ||
	       (t->passive && !listener_of(e, t->listener)));
	assert(t->state != ST_TIME_WAIT || vtime_is_set(t->timers[TIMER_TIME_WAIT]));
	assert(t->state == ST_TIME_WAIT || !vtime_is_set(t->timers[TIMER_TIME_WAIT]));
	assert(t->state == ST_FIN_WAIT_2 || !vtime_is_set(t->timers[TIMER_FIN_WAIT_2]));
	switch (t->state) {
	case ST_SYN_SENT:
	case ST_SYN_RECEIVED:
		assert((!t->opened || t->fast_open.early) && !tcb_syn_acked(t));
		return;
	case ST_ESTABLISHED:
		assert(t->opened && !t->snd.fin_queued && !t->rcv.fin);
		return;
	case ST_FIN_WAIT_1:
		assert(t->snd.fin_queued && !t->snd.fin_acked && !t->rcv.fin);
		return;
	case ST_FIN_WAIT_2:
		assert(t->snd.fin_acked && !t->rcv.fin);
		return;
	case ST_CLOSE_WAIT:
		assert(!t->snd.fin_queued && t->rcv.fin);
		return;
	case ST_CLOSING:
	case ST_LAST_ACK:
		assert(t->snd.fin_queued && !t->snd.fin_acked && t->rcv.fin);
		return;
	case ST_TIME_WAIT:
		assert(t->snd.fin_acked && t->rcv.fin);
		return;
	case ST_CLOSED:
	case ST_LISTEN:
	case ST__COUNT:
		break;
	}
	assert(false && "not a state of a connection");
}

static void check_timer(const struct tcb *t)
{
	const vtime next = tcb_next_timer(t);

	/* A TIME-WAIT that is over waits for its last ACK to be pulled. */
	if (vtime_is_set(next) && !(t->state == ST_TIME_WAIT && t->rcv.ack_now))
		assert(timer_node_runs(&t->node) && !vtime_before(next, t->node.at));
	assert(link_is_linked(&t->reporting) == (t->reports != 0));
}

static void check_tcb(const struct engine *e, const struct tcb *t)
{
	check_timer(t);
	if (t->state == ST_CLOSED) {
		check_closed(e, t);
		return;
	}
	check_state(e, t);
	rest_check(e, t);
	check_send(e, t);
	if (t->state != ST_SYN_SENT)
		check_receive(e, t);
}

static void check_listeners(const struct engine *e)
{
	for (uint32_t i = 0; i < e->listeners_fresh; i++) {
		const struct listener *l = &e->listeners[i];
		uint32_t half_open = 0;

		if (!l->in_use)
			continue;
		for (const struct link *k = l->half_open.next; k != &l->half_open; k = k->next)
			half_open++;
		assert(half_open == l->syn_received && half_open <= l->backlog);
		assert(l->syn_received <= l->live);
	}
}

static void check_params(const struct engine *e)
{
	uint32_t used = 0;

	for (unsigned i = 0; i < PARAM_BUCKETS; i++)
		for (uint32_t id = e->params.buckets[i]; id; id = e->params.all[id - 1].next) {
			assert(e->params.all[id - 1].refs);
			used++;
		}
	assert(used == e->params.used);
}

void engine_check(const struct engine *e)
{
	uint32_t by_state[ST__COUNT] = { 0 };
	uint32_t chunks = 0, ranges = 0, sending = 0, held = 0, recoveries = 0, resting = 0;
	struct tcb copy;

	for (uint32_t i = 0; i < e->slots_fresh; i++) {
		const struct tcb *t;

		if (!e->slots[i].where)
			continue;
		t = slot_look(e, i, &copy);
		resting += t == &copy;
		assert(t->slot == i && (t->in_use || t->rst_owed));
		check_tcb(e, t);
		by_state[t->state]++;
		held++;
		sending += sendq_chunks(&e->pool, &t->sendq);
		chunks += recvq_chunks(&e->pool, &t->recvq);
		ranges += t->recvq.ranges_n;
		recoveries += t->recovery != 0;
	}
	assert(held == e->counters.conns && held <= e->cfg.conns_max);
	assert(held == e->tcbs.used + resting && resting == e->rests.used);
	for (unsigned s = 0; s < ST__COUNT; s++)
		assert(by_state[s] == e->counters.conns_by_state[s]);
	assert(by_state[ST_TIME_WAIT] <= e->cfg.time_wait_max);
	assert(sending == e->pool.sending && sending + chunks == e->pool.used);
	assert(e->pool.used <= e->pool.chunks_max && ranges <= e->pool.ranges_fresh);
	assert(recoveries == e->recoveries.used && recoveries <= e->recoveries.max);
	assert(e->replies_n <= REPLIES_MAX && e->traces_n <= TRACES_MAX);
	check_listeners(e);
	check_params(e);
}
