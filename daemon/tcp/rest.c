/* SPDX-License-Identifier: Apache-2.0 */
/* Connections at rest. A TCB is large for what works with it: segments, queues, congestion control. One
 * that has nothing queued, unread, in flight or owed is packed into a record of some 150 octets, and
 * unpacked when a segment, a timer or its user asks for it, so that no other file knows of it. That is
 * ESTABLISHED, half-closed and TIME-WAIT; and SYN-RECEIVED once its SYN-ACK is out.
 *
 * A record is a timer node, for listeners and TIME-WAIT a place in the list by age, and the fields as
 * numbers of seven bits an octet, most as the distance from one nearby. fields() is the one list of
 * them, in both directions; what it lacks is in settle(), with the reason why it does not matter.
 * engine_check() compares: a field that is in neither fails every test.
 *
 *	| node | state |	(age) | flow | serial | created | timers | ... |
 */
#include <assert.h>
#include <string.h>

#include "tcb.h"

struct rest {
	struct timer_node node; /* node.conn is the slot */
	uint8_t state; /* enum tcp_state */
	uint8_t bytes[]; /* behind `age`, when the state has it */
};

/* Begins as the other one does. */
struct rest_aged {
	struct timer_node node;
	uint8_t state;
	struct aged age;
	uint8_t bytes[];
};
static_assert(offsetof(struct rest_aged, state) == offsetof(struct rest, state), "one head");
static_assert((int)CLOSED_BY__COUNT <= 4 && (int)ICMP_ERR__COUNT <= 32, "two bits and five");

enum {
	/* Numbers of at most ten octets, the flow, and room. */
	BYTES_MAX = 1024,
	STEPS_ROUND = 512, /* in one call of engine_rest() */
	STEPS_CACHE = 8, /* to keep the working blocks few */
	STEPS_FULL = 64, /* before a stranger is refused */
	ROUND_US = 1000000, /* who was quiet for one round, and the rest of another, goes to rest */
};

static bool state_is_aged(unsigned state)
{
	return state == ST_SYN_RECEIVED || state == ST_TIME_WAIT;
}

static uint8_t *bytes_of(struct rest *r)
{
	return state_is_aged(r->state) ? ((struct rest_aged *)(void *)r)->bytes : r->bytes;
}

static size_t head_bytes(unsigned state)
{
	return state_is_aged(state) ? offsetof(struct rest_aged, bytes)
				    : offsetof(struct rest, bytes);
}

/* Numbers, written or read: `put` is known where the compiler sees it. */

struct coder {
	uint8_t *at;
	bool put;
	vtime base; /* instants are near it */
};

#define BOTH_WAYS static inline __attribute__((always_inline)) void

BOTH_WAYS u64(struct coder *c, uint64_t *v)
{
	unsigned shift = 0;
	uint64_t x = *v;

	if (c->put) {
		for (; x >= 0x80; x >>= 7)
			*c->at++ = (uint8_t)(x | 0x80);
		*c->at++ = (uint8_t)x;
		return;
	}
	for (x = 0; *c->at & 0x80; shift += 7)
		x |= (uint64_t)(*c->at++ & 0x7f) << shift;
	*v = x | (uint64_t)*c->at++ << shift;
}

BOTH_WAYS u32(struct coder *c, uint32_t *v)
{
	uint64_t x = *v;

	u64(c, &x);
	*v = (uint32_t)x;
}

BOTH_WAYS u16(struct coder *c, uint16_t *v)
{
	uint64_t x = *v;

	u64(c, &x);
	*v = (uint16_t)x;
}

BOTH_WAYS u8(struct coder *c, uint8_t *v)
{
	if (c->put)
		*c->at++ = *v;
	else
		*v = *c->at++;
}

/* Small numbers of either sign are small numbers: 0, -1, 1, -2, ... */
WRAPS static inline uint64_t fold(uint64_t x)
{
	return x << 1 ^ (x >> 63 ? UINT64_MAX : 0);
}

WRAPS static inline uint64_t unfold(uint64_t x)
{
	return x >> 1 ^ (x & 1 ? UINT64_MAX : 0);
}

/* A sequence number or a count, near another. */
WRAPS BOTH_WAYS near32(struct coder *c, uint32_t *v, uint32_t base)
{
	const uint32_t d = *v - base;
	uint64_t x = (uint32_t)(d << 1 ^ (d >> 31 ? UINT32_MAX : 0));

	u64(c, &x);
	*v = base + (uint32_t)(x >> 1 ^ (x & 1 ? UINT32_MAX : 0));
}

BOTH_WAYS seq(struct coder *c, seqno *s, seqno base)
{
	near32(c, &s->v, base.v);
}

/* Instants: near the base, or 0 where there was none, or never. */
WRAPS BOTH_WAYS when(struct coder *c, vtime *t)
{
	uint64_t x = 0;

	if (c->put && t->us)
		x = t->us == VTIME_NEVER.us ? 1 : fold(t->us - c->base.us) + 2;
	u64(c, &x);
	if (!c->put)
		*t = x == 0   ? (vtime){ 0 }
		     : x == 1 ? VTIME_NEVER
			      : (vtime){ c->base.us + unfold(x - 2) };
}

/* IPv4 without its prefix. */
BOTH_WAYS address(struct coder *c, struct ipaddr *a, uint8_t v4)
{
	const unsigned first = v4 ? 12 : 0;

	if (!c->put && v4)
		memcpy(a->b, addr_any4.b, 12);
	if (c->put)
		memcpy(c->at, a->b + first, 16 - first);
	else
		memcpy(a->b + first, c->at, 16 - first);
	c->at += 16 - first;
}

BOTH_WAYS flow_both_ways(struct coder *c, struct flow *f)
{
	uint8_t v4 = addr_is_v4(&f->local.addr) && addr_is_v4(&f->remote.addr);

	u8(c, &v4);
	address(c, &f->local.addr, v4);
	address(c, &f->remote.addr, v4);
	u16(c, &f->local.port);
	u16(c, &f->remote.port);
	u32(c, &f->scope);
}

/* The truths, likely ones first. */
/* clang-format off */
static const uint16_t flags[] = {
#define FLAG(field) offsetof(struct tcb, field)
	FLAG(passive),
	FLAG(opened),
	FLAG(direct),
	FLAG(timestamps),
	FLAG(window_scaling),
	FLAG(sack),
	FLAG(snd.syn_acked),
	FLAG(cc.hystart.on),
	FLAG(cc.limited),
	FLAG(hole.passed),
	FLAG(cc.hystart.filling),
	FLAG(snd.fin_queued),
	FLAG(snd.fin_acked),
	FLAG(rcv.fin_known),
	FLAG(rcv.fin),
	FLAG(stopped),
	FLAG(snd.timing),
	FLAG(snd.ambiguous),
	FLAG(snd.syn_lost),
	FLAG(snd.probing),
	FLAG(snd.pattern),
	FLAG(ecn.on),
	FLAG(ecn.asked),
	FLAG(ecn.echo),
	FLAG(ecn.reduced),
	FLAG(cc.reordered),
	FLAG(cc.recovering),
	FLAG(cc.recovery_acked),
	FLAG(cc.hystart.css),
	FLAG(fast_open.asked),
	FLAG(fast_open.give),
	FLAG(fast_open.early),
	FLAG(rcv.urgent),
	FLAG(uto.owed),
	FLAG(tlp.out),
	FLAG(tlp.again),
	FLAG(tlp.unmeasured),
#undef FLAG
};
/* clang-format on */

BOTH_WAYS flags_both_ways(struct coder *c, struct tcb *t)
{
	uint64_t x = 0;

	for (unsigned i = 0; c->put && i < sizeof(flags) / sizeof(flags[0]); i++)
		x |= (uint64_t) * ((const bool *)t + flags[i]) << i;
	u64(c, &x);
	for (unsigned i = 0; !c->put && i < sizeof(flags) / sizeof(flags[0]); i++)
		*((bool *)t + flags[i]) = x >> i & 1;
}

BOTH_WAYS timers_both_ways(struct coder *c, struct tcb *t)
{
	uint32_t set = 0;

	for (unsigned i = 0; c->put && i < TIMER__COUNT; i++)
		set |= (uint32_t)vtime_is_set(t->timers[i]) << i;
	u32(c, &set);
	for (unsigned i = 0; i < TIMER__COUNT; i++)
		if (set & 1U << i)
			when(c, &t->timers[i]);
		else if (!c->put)
			t->timers[i] = VTIME_NEVER;
}

/* Who it is. */
BOTH_WAYS name(struct coder *c, struct tcb *t)
{
	flow_both_ways(c, &t->flow);
	u64(c, &t->serial);
	u64(c, &t->created_at.us);
	c->base = t->created_at;
}

BOTH_WAYS sending(struct coder *c, struct tcb *t)
{
	seq(c, &t->iss, (seqno){ 0 });
	seq(c, &t->snd.una, t->iss);
	seq(c, &t->snd.nxt, t->snd.una);
	seq(c, &t->snd.small_end, t->snd.una);
	seq(c, &t->snd.wl2, t->snd.una);
	u32(c, &t->snd.wnd);
	near32(c, &t->snd.wnd_max, t->snd.wnd);
	u16(c, &t->snd.mss_peer);
	u16(c, &t->snd.ip_id);
	near32(c, &t->snd.mss, t->snd.mss_peer);
	u8(c, &t->snd.wscale);
	when(c, &t->snd.last_at);
	if (t->snd.timing) {
		seq(c, &t->snd.timed_end, t->snd.una);
		when(c, &t->snd.timed_at);
	}
}

BOTH_WAYS sizing(struct coder *c, struct tcb *t)
{
	struct sizing *const z = &t->rcv.sizing;

	when(c, &z->since);
	u32(c, &z->read);
	u32(c, &z->before);
	u32(c, &z->rtt_us);
	u32(c, &z->least_us);
	seq(c, &z->edge, t->rcv.nxt);
	when(c, &z->edge_at);
}

BOTH_WAYS receiving(struct coder *c, struct tcb *t)
{
	seq(c, &t->irs, (seqno){ 0 });
	seq(c, &t->rcv.nxt, t->irs);
	seq(c, &t->rcv.adv, t->rcv.nxt);
	seq(c, &t->rcv.acked, t->rcv.nxt);
	seq(c, &t->snd.wl1, t->rcv.nxt);
	u32(c, &t->rcv.limit);
	u16(c, &t->rcv.mss);
	near32(c, &t->rcv.mss_seen, t->rcv.mss);
	u8(c, &t->rcv.wscale);
	sizing(c, t);
	u32(c, &t->uto.remote_s);
	if (t->rcv.urgent)
		seq(c, &t->rcv.up, t->rcv.nxt);
	if (t->timestamps) {
		u32(c, &t->ts.recent);
		u32(c, &t->ts.offset);
		when(c, &t->ts.recent_at);
	}
}

BOTH_WAYS hystart(struct coder *c, struct tcb *t)
{
	struct hystart *const h = &t->cc.hystart;

	u8(c, &h->css_rounds);
	u8(c, &h->samples);
	seq(c, &h->round_end, t->snd.una);
	near32(c, &h->last_min_us, UINT32_MAX);
	near32(c, &h->min_us, h->last_min_us);
	near32(c, &h->baseline_us, UINT32_MAX);
}

BOTH_WAYS cubic(struct coder *c, struct tcb *t)
{
	struct cubic *const q = &t->cc.cubic;

	when(c, &q->curve.epoch);
	u32(c, &q->curve.w_max);
	u32(c, &q->curve.w_est);
	u32(c, &q->curve.prior);
	u32(c, &q->curve.k);
	when(c, &q->seen);
	u32(c, &q->rest);
	u64(c, &q->est_rest);
}

/* That of this stretch is the least of both, most of the time. */
BOTH_WAYS least_round_trip(struct coder *c, struct tcb *t)
{
	uint64_t x = (uint64_t)t->rtt.stretch << 1 | (t->rtt.stretch_us != t->rtt.min_us);

	u32(c, &t->rtt.min_us);
	u64(c, &x);
	t->rtt.stretch = (uint32_t)(x >> 1);
	if (x & 1)
		near32(c, &t->rtt.stretch_us, t->rtt.min_us);
	else
		t->rtt.stretch_us = t->rtt.min_us;
}

BOTH_WAYS congestion(struct coder *c, struct tcb *t)
{
	u32(c, &t->cc.cwnd);
	near32(c, &t->cc.ssthresh, CC_WINDOW_MAX);
	u32(c, &t->cc.acked);
	u8(c, &t->cc.dup_acks);
	seq(c, &t->cc.recover, t->snd.una);
	if (t->tlp.out)
		seq(c, &t->tlp.end, t->snd.una);
	u8(c, &t->cc.reo_steps);
	u8(c, &t->cc.reo_kept);
	u32(c, &t->cc.peak);
	seq(c, &t->cc.peak_end, t->snd.una);
	seq(c, &t->ecn.until, t->snd.una);
	u32(c, &t->rtt.srtt_8);
	u32(c, &t->rtt.var_4);
	least_round_trip(c, t);
	u32(c, &t->rtt.rto_us);
	u8(c, &t->rtt.backoffs);
	if (t->cc.hystart.on)
		hystart(c, t);
	if (t->cc.ops == &cc_cubic)
		cubic(c, t);
}

/* Nothing, most of the time. */
BOTH_WAYS path(struct coder *c, struct tcb *t)
{
	struct hole *const h = &t->hole;
	uint32_t x = t->path_mtu | (uint32_t)h->vanished << 16 | (uint32_t)h->proofs << 20 |
		     (uint32_t)h->silent << 24 | (uint32_t)h->raise << 25;

	u32(c, &x);
	t->path_mtu = (uint16_t)(x & UINT16_MAX);
	h->vanished = x >> 16 & 15;
	h->proofs = x >> 20 & 15;
	h->silent = x >> 24 & 1;
	h->raise = x >> 25 & 1;
}

BOTH_WAYS counts(struct coder *c, struct tcb *t)
{
	u64(c, &t->bytes_in);
	u64(c, &t->bytes_out);
	u64(c, &t->segments_in);
	u64(c, &t->segments_out);
	u64(c, &t->retransmitted_segments);
	u64(c, &t->retransmitted_bytes);
}

BOTH_WAYS params_both_ways(const struct engine *e, struct coder *c, struct tcb *t)
{
	uint32_t id = c->put ? params_id(e, t->params) : 0;

	u32(c, &id);
	if (c->put)
		return;
	t->params = params_at(e, id);
	t->cc.ops = cc_ops_of(t->params);
}

/* Everything that is kept. */
BOTH_WAYS fields(const struct engine *e, struct coder *c, struct tcb *t)
{
	uint32_t said = (uint32_t)t->closed_by | (uint32_t)t->soft_error << 2 |
			(uint32_t)t->rcv.dscp << 7; /* small numbers */
	uint64_t sent = t->keepalive.probes | (uint64_t)t->challenges.n << 32; /* mostly none */

	name(c, t);
	timers_both_ways(c, t); /* first: due_of() looks for them */
	params_both_ways(e, c, t);
	flags_both_ways(c, t);
	when(c, &t->opened_at);
	when(c, &t->state_since);
	when(c, &t->keepalive.heard_at);
	u64(c, &t->cookie);
	u32(c, &t->listener.slot);
	u32(c, &t->listener.gen);
	if (!addr_is_v4(&t->flow.remote.addr))
		u32(c, &t->flow_label);
	u16(c, &t->link_mtu);
	path(c, t);
	u32(c, &said);
	u64(c, &sent);
	t->keepalive.probes = (uint32_t)(sent & UINT32_MAX);
	t->challenges.n = (uint32_t)(sent >> 32);
	if (t->challenges.n)
		when(c, &t->challenges.since);
	sending(c, t);
	receiving(c, t);
	congestion(c, t);
	counts(c, t);
	t->closed_by = (enum closed_by)(said & 3);
	t->soft_error = (enum icmp_error)(said >> 2 & 31);
	t->rcv.dscp = (uint8_t)(said >> 7);
}

/* What follows from the fields that are kept, or does not matter at rest. */
static void settle(struct tcb *t)
{
	const struct limit challenges = t->challenges;
	const bool fin = t->rcv.fin;

	t->closed_at = VTIME_NEVER; /* nobody closed is at rest */
	t->close_cause = CAUSE_SEGMENT; /* of a CLOSE that waits, and who has one does not rest */
	t->cc.ops = cc_ops_of(t->params);
	t->snd.rtx = t->snd.nxt; /* nothing is to be sent again */
	if (!t->snd.timing) { /* set before they are looked at */
		t->snd.timed_end = (seqno){ 0 };
		t->snd.timed_at = (vtime){ 0 };
	}
	/* Empty queues: the origin is chosen anew, and stamps compare ranges, of which there are none. */
	t->sendq = (struct sendq){ .front = seq_add(t->snd.una, tcb_syn_acked(t) ? 0 : 1) };
	if (t->snd.fin_acked)
		t->sendq.front = seq_add(t->snd.una, UINT32_MAX);
	t->recvq = (struct recvq){ .front = seq_add(t->rcv.nxt, fin ? UINT32_MAX : 0) };
	/* A FIN that is known has been reached, or it would not rest. */
	t->rcv.fin_at = fin ? t->recvq.front : (seqno){ 0 };
	t->rcv.dup = (struct sack_block){ 0 }; /* told already */
	t->rcv.reserved = personality_reserved(t);
	t->snd.up = (seqno){ 0 }; /* what is urgent is in flight */
	if (!t->rcv.urgent)
		t->rcv.up = (seqno){ 0 };
	memset(&t->challenges, 0, sizeof(t->challenges)); /* since: when the first was counted */
	t->challenges.n = challenges.n;
	if (challenges.n)
		t->challenges.since = challenges.since;
	t->hole.trial = TRIAL_NONE; /* of what was in flight */
	t->hole.full_mtu = 0;
	t->hole.full_mss = 0;
	t->hole.end = (seqno){ 0 };
	if (!t->tlp.out)
		t->tlp.end = (seqno){ 0 };
	t->cc.frto_room = 0; /* for FRTO_SECOND, which needs something in flight */
	if (!t->timestamps) {
		t->ts.recent = t->ts.offset = 0;
		t->ts.recent_at = (vtime){ 0 };
	}
	t->busy = false; /* since it rests */
}

/* The same of the controllers. */
static void settle_cc(struct tcb *t)
{
	const struct hystart h = t->cc.hystart;
	const struct cubic q = t->cc.cubic;

	/* It starts anew when it is switched on. Marks are of what is in flight. */
	memset(&t->cc.hystart, 0, sizeof(h));
	if (h.on) {
		t->cc.hystart.on = h.on;
		t->cc.hystart.filling = h.filling;
		t->cc.hystart.css = h.css;
		t->cc.hystart.css_rounds = h.css_rounds;
		t->cc.hystart.samples = h.samples;
		t->cc.hystart.round_end = h.round_end;
		t->cc.hystart.last_min_us = h.last_min_us;
		t->cc.hystart.min_us = h.min_us;
		t->cc.hystart.baseline_us = h.baseline_us;
	}
	/* Another controller's curve begins anew; and what could be undone was in flight. */
	memset(&t->cc.cubic, 0, sizeof(q));
	if (t->cc.ops == &cc_cubic) {
		t->cc.cubic.curve = q.curve;
		t->cc.cubic.seen = q.seen;
		t->cc.cubic.rest = q.rest;
		t->cc.cubic.est_rest = q.est_rest;
	}
}

/* Into and out of memory. */

static size_t pack(const struct engine *e, const struct tcb *t, uint8_t bytes[static BYTES_MAX])
{
	struct coder c = { .at = bytes, .put = true };

	fields(e, &c, (struct tcb *)(uintptr_t)t); /* which only reads it */
	assert(c.at <= bytes + BYTES_MAX);
	return (size_t)(c.at - bytes);
}

/* t is all zeros. Its node and its place by age are not touched. */
static void unpack(const struct engine *e, struct rest *r, struct tcb *t)
{
	struct coder c = { .at = bytes_of(r) };

	t->state = (enum tcp_state)r->state;
	t->slot = r->node.conn;
	t->in_use = true;
	fields(e, &c, t);
	settle(t);
	settle_cc(t);
}

static struct rest *rest_of(const struct engine *e, uint32_t slot)
{
	return slabs_at(&e->rests, e->slots[slot].where & ~SLOT_RESTS);
}

/* Whose text, if any, has all arrived at its destination. */
static bool is_quiet(const struct engine *e, const struct tcb *t)
{
	return !link_is_linked(&t->out) && !t->reports && !link_is_linked(&t->waiting) &&
	       !t->want_writable && !t->recovery && e->direct.tcb != t && !t->sendq.used &&
	       !t->recvq.unread && !t->recvq.ranges && !t->rcv.unacked &&
	       t->rcv.fin_known == t->rcv.fin && !t->cc.hystart.n;
}

static bool may_rest(const struct engine *e, const struct tcb *t)
{
	if (!t->in_use || e->cfg.no_rest || !is_quiet(e, t))
		return false;
	switch (t->state) {
	case ST_SYN_RECEIVED: /* its SYN-ACK is out; and a timer will send it again */
		return t->passive && !t->opened && !t->fast_open.pending && !t->close_queued &&
		       seq_eq(t->snd.rtx, t->snd.nxt);
	case ST_ESTABLISHED:
	case ST_FIN_WAIT_2:
	case ST_CLOSE_WAIT:
	case ST_TIME_WAIT:
		return tcb_flight(t) == 0 && !tcb_has_unsent(t) &&
		       !vtime_is_set(t->timers[TIMER_RETRANSMISSION]);
	case ST_CLOSED:
	case ST_LISTEN:
	case ST_SYN_SENT:
	case ST_FIN_WAIT_1:
	case ST_CLOSING:
	case ST_LAST_ACK:
	case ST__COUNT:
		break;
	}
	return false;
}

bool rest_try(struct engine *e, struct tcb *t)
{
	uint8_t bytes[BYTES_MAX];
	const size_t head = head_bytes(t->state);
	const uint32_t slot = t->slot;
	struct rest *r;
	uint32_t ref;
	size_t n;

	if (!may_rest(e, t))
		return false;
	n = pack(e, t, bytes);
	ref = slabs_take(&e->rests, (uint32_t)(head + n));
	if (!ref) /* it stays as it is */
		return false;
	r = slabs_at(&e->rests, ref);
	r->state = (uint8_t)t->state;
	memcpy(bytes_of(r), bytes, n);
	timer_node_move(&t->node, &r->node);
	if (state_is_aged(r->state)) {
		struct rest_aged *const a = (struct rest_aged *)(void *)r;

		a->age.conn = slot;
		list_replace(&t->age.link, &a->age.link);
	}
	slabs_put(&e->tcbs, e->slots[slot].where);
	e->slots[slot].where = ref | SLOT_RESTS;
	e->counters.rests++;
	return true;
}

struct tcb *rest_wake(struct engine *e, uint32_t slot)
{
	struct rest *const r = rest_of(e, slot);
	const uint32_t was = e->slots[slot].where & ~SLOT_RESTS;
	struct tcb *t;

	e->slots[slot].where = slabs_take(&e->tcbs, sizeof(*t)); /* there is one for each slot */
	t = slot_tcb(e, slot);
	memset(t, 0, sizeof(*t));
	unpack(e, r, t);
	timer_node_move(&r->node, &t->node);
	t->age.conn = slot;
	if (state_is_aged(r->state))
		list_replace(&((struct rest_aged *)(void *)r)->age.link, &t->age.link);
	slabs_put(&e->rests, was);
	t->busy = e->rounds.wanted = true;
	e->counters.wakes++;
	return t;
}

void rest_look(const struct engine *e, uint32_t slot, struct tcb *ret_copy)
{
	struct rest *const r = rest_of(e, slot);

	memset(ret_copy, 0, sizeof(*ret_copy));
	unpack(e, r, ret_copy);
	ret_copy->node = r->node;
	if (state_is_aged(r->state))
		ret_copy->age = ((const struct rest_aged *)(const void *)r)->age;
}

bool rest_has_flow(const struct engine *e, uint32_t slot, const struct flow *f)
{
	struct coder c = { .at = bytes_of(rest_of(e, slot)) };
	struct flow mine = { 0 };

	flow_both_ways(&c, &mine);
	return flow_eq(&mine, f);
}

uint64_t rest_serial(const struct engine *e, uint32_t slot)
{
	struct coder c = { .at = bytes_of(rest_of(e, slot)) };
	struct flow flow = { 0 };
	uint64_t serial;

	flow_both_ways(&c, &flow);
	u64(&c, &serial);
	return serial;
}

vtime rest_due(const struct engine *e, uint32_t slot)
{
	struct coder c = { .at = bytes_of(rest_of(e, slot)) };
	struct tcb t;

	t.flow = (struct flow){ 0 };
	name(&c, &t);
	timers_both_ways(&c, &t);
	return tcb_next_timer(&t);
}

struct timer_node *rest_node(const struct engine *e, uint32_t slot)
{
	return &rest_of(e, slot)->node;
}

/* Who goes to rest, and when. The clock's hand goes round the working blocks: who was busy since it came by
 * the last time stays.
 */

/* A step. False: the round is over. */
static bool step(struct engine *e, bool hard)
{
	const uint32_t ref = slabs_next(&e->tcbs, &e->rounds.hand);
	struct tcb *const t = ref ? slabs_at(&e->tcbs, ref) : NULL;

	if (!t)
		e->rounds.hand = 0;
	if (!t || e->slots[t->slot].where != ref) /* free */
		return t;
	if (t->busy && !hard) {
		t->busy = false;
		e->rounds.more = true;
	} else if (!rest_try(e, t)) {
		e->rounds.more |= link_is_linked(&t->out) || t->reports;
	}
	return true;
}

/* Until one more has gone to rest. */
static void steps(struct engine *e, unsigned n, bool hard)
{
	const uint32_t working = e->tcbs.used;

	for (unsigned i = 0; i < n && e->tcbs.used == working; i++)
		(void)step(e, hard);
}

bool rest_make_room(struct engine *e, bool stranger)
{
	if (e->tcbs.used < e->cfg.working_cache)
		return true;
	steps(e, STEPS_CACHE, false);
	if (stranger && e->tcbs.used >= e->cfg.working_max)
		steps(e, STEPS_FULL, true);
	return !stranger || e->tcbs.used < e->cfg.working_max;
}

vtime engine_rest(struct engine *e, vtime now)
{
	unsigned n = 0;

	engine_clock(e, now);
	if (!e->rounds.wanted)
		return VTIME_NEVER;
	if (vtime_before(now, e->rounds.next))
		return e->rounds.next;
	while (n++ < STEPS_ROUND)
		if (!step(e, false)) {
			e->rounds.wanted = e->rounds.more;
			e->rounds.more = false;
			e->rounds.next = vtime_add(now, ROUND_US);
			return e->rounds.wanted ? e->rounds.next : VTIME_NEVER;
		}
	return now;
}

/* Who waits for a peer's next word, or for its end, and has said all: when too many work, that one does no
 * more. */
void rest_if_waiting(struct engine *e, struct tcb *t)
{
	if ((t->state == ST_SYN_RECEIVED || t->state == ST_TIME_WAIT) &&
	    e->tcbs.used > e->cfg.working_cache)
		(void)rest_try(e, t);
}

void engine_rest_all(struct engine *e)
{
	e->rounds.hand = 0;
	while (step(e, true))
		;
}

/* A TCB that may rest is what it was when it wakes. */
void rest_check(const struct engine *e, const struct tcb *t)
{
	uint64_t room[(sizeof(struct rest) + BYTES_MAX) / sizeof(uint64_t)];
	struct rest *const r = (struct rest *)(void *)room;
	struct tcb is = *t, was = { 0 };

	if (!may_rest(e, t))
		return;
	r->state = (uint8_t)(state_is_aged(t->state) ? ST_ESTABLISHED : t->state);
	r->node.conn = t->slot;
	(void)pack(e, t, r->bytes);
	unpack(e, r, &was);
	was.state = t->state;
	settle(&is);
	settle_cc(&is);
	memset(&is.node, 0, sizeof(is.node));
	memset(&is.age, 0, sizeof(is.age));
	assert(memcmp(&is, &was, sizeof(is)) == 0);
}
