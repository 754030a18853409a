/* SPDX-License-Identifier: Apache-2.0 */
/* The receive window: RFC 9293 3.8.6, without silly windows (3.8.6.2.2), and how much it may span. It begins
 * modest and follows what the application reads in a round trip (Fisk and Feng, "Dynamic right-sizing", 2001),
 * up to ReceiveBuffer. Memory that runs short holds offers back; what was offered is never taken back
 * (SHLD-14).
 */
#include "tcb.h"

enum {
	TIMESTAMP_GRAIN_US = 1000,
	NEAR_BYTES = 512 << 10, /* what batching at both ends takes, on any near path */
	SAMPLE_MAX_MS = 60000, /* an echo of something older measures a pause, not a path */
};

/* How much it may span. */

static uint32_t most(const struct engine *e, const struct tcb *t)
{
	const uint64_t pool = pool_receive_bytes(&e->pool);
	const uint32_t scale = (uint32_t)UINT16_MAX << (t->window_scaling ? t->rcv.wscale : 0);
	const uint32_t buffer = personality_buffer_bytes(t);
	const uint32_t bytes = personality_rounds_down(t) ? buffer : min_u32(buffer, scale);

	return pool < bytes ? (uint32_t)pool : bytes;
}

void window_set_limit(const struct engine *e, struct tcb *t)
{
	const uint32_t bytes = most(e, t), initial = personality_initial_bytes(t);
	const uint32_t least = initial ? min_u32(initial, bytes) : bytes;

	t->rcv.limit = min_u32(max_u32(t->rcv.limit, least), bytes);
	t->rcv.reserved = personality_reserved(t);
}

/* A round trip as the receiver sees it. With timestamps: what the peer echoes is the ACK that let it send.
 * Without: octets beyond an edge come a round trip after that was offered, or later.
 */
void window_heard(const struct engine *e, struct tcb *t, const struct segment *seg)
{
	struct sizing *const z = &t->rcv.sizing;
	uint64_t us;

	if (z->since.us == 0) { /* the first text, or the first after a rest */
		z->since = z->edge_at = e->now;
		z->edge = t->rcv.adv;
	}
	if (t->timestamps) {
		const uint32_t ms = seq_sub((seqno){ tcb_ts_now(e, t) }, (seqno){ seg->ts_ecr });

		if (!(seg->options & OPT_TIMESTAMPS) || seg->ts_ecr == 0 || ms > SAMPLE_MAX_MS)
			return;
		us = ms ? ms * 1000ULL : TIMESTAMP_GRAIN_US;
	} else {
		if (!seq_lt(z->edge, seq_add(seg->seq, seg_text_len(seg))))
			return;
		us = vtime_since(e->now, z->edge_at);
		z->edge = t->rcv.adv;
		z->edge_at = e->now;
	}
	if (us && (z->least_us == 0 || us < z->least_us))
		z->least_us = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

/* The window is to span four times what is read in a round trip: the peer's may double in the next one (slow
 * start), and all of this is seen late.
 *
 * On a near path a round is many round trips, or is as long as what the window let queue up: the more it spans, the
 * longer it takes, and the more it would span. There the least round trip, of what we sent, says what the path
 * holds. It is that of an idle peer, so NEAR_BYTES may be spanned in any case.
 */
static uint64_t wanted(const struct tcb *t)
{
	const struct sizing *const z = &t->rcv.sizing;
	const uint64_t want = 4ULL * max_u32(z->read, z->before);
	const uint32_t least = t->rtt.min_us;
	uint64_t near;

	if (want <= NEAR_BYTES || z->rtt_us > TIMESTAMP_GRAIN_US || !least || least >= z->rtt_us)
		return want;
	near = want * least / (2ULL * z->rtt_us);
	return near > NEAR_BYTES ? near : NEAR_BYTES;
}

/* By two octets for each that is read, not at once: a peer that the window held back would send all of the
 * difference in one burst.
 */
static void grow(const struct engine *e, struct tcb *t, uint32_t n)
{
	const uint64_t want = wanted(t);
	const uint64_t next = t->rcv.limit + 2ULL * n;
	const uint64_t to = next < want ? next : want;
	const uint32_t bytes = most(e, t);

	if (to <= t->rcv.limit || pool_is_scarce(&e->pool))
		return;
	t->rcv.limit = to < bytes ? (uint32_t)to : max_u32(t->rcv.limit, bytes);
	t->rcv.reserved = personality_reserved(t);
}

void window_read(const struct engine *e, struct tcb *t, uint32_t n)
{
	struct sizing *const z = &t->rcv.sizing;

	z->read = z->read < CC_WINDOW_MAX ? z->read + n : z->read;
	grow(e, t, n);
	if (vtime_since(e->now, z->since) < (z->rtt_us ? z->rtt_us : rtt_smoothed_us(t)))
		return;
	z->before = z->read;
	z->read = 0;
	z->since = e->now;
	z->rtt_us = z->least_us ? z->least_us : z->rtt_us;
	z->least_us = 0;
}

/* What is offered. */

/* The right edge that could be offered now, were silly windows no matter; left of rcv.adv: none that is new. */
static seqno edge_of(const struct engine *e, const struct tcb *t)
{
	const uint32_t unread = t->recvq.unread + t->rcv.passed + t->rcv.reserved;
	const uint32_t room = t->rcv.limit > unread ? t->rcv.limit - unread : 0;
	const uint64_t memory = recvq_room(&e->pool, &t->recvq);

	return seq_add(t->rcv.nxt, memory < room ? (uint32_t)memory : room);
}

/* MUST-39, RFC 9293 3.8.6.2.2: the edge moves by a segment or half the buffer, or not at all. */
static bool worth_offering(const struct tcb *t, seqno edge)
{
	const uint32_t grown = seq_ahead(edge, t->rcv.adv);

	if (!grown || grown >= min_u32(t->rcv.limit / 2, t->rcv.mss))
		return grown;
	/* No window that is half open is silly. */
	return t->rcv.reserved && tcb_rcv_wnd(t) > t->rcv.limit / 2;
}

/* Rounded up, so that scaling takes back no octet that was offered (SHLD-14): at most 2^shift - 1 octets
 * beyond the buffer's limit.
 * DEVIATION(SHLD-14): as a FreeBSD it is rounded down, and so the edge moves left now and then, by less
 * than 2^shift octets. What lies between is accepted nevertheless: rcv.adv stays.
 */
uint16_t window_offer(const struct engine *e, struct tcb *t)
{
	const seqno edge = edge_of(e, t);
	const uint32_t unit = 1U << t->rcv.wscale;
	uint32_t field;

	if (worth_offering(t, edge))
		t->rcv.adv = edge;
	if (personality_rounds_down(t))
		return (uint16_t)min_u32(tcb_rcv_wnd(t) / unit, UINT16_MAX);
	field = min_u32((tcb_rcv_wnd(t) + unit - 1) / unit, UINT16_MAX);
	t->rcv.adv = seq_max(t->rcv.adv, seq_add(t->rcv.nxt, field * unit));
	return (uint16_t)field;
}

void window_tell(struct engine *e, struct tcb *t)
{
	const seqno edge = edge_of(e, t);
	const uint32_t left = tcb_rcv_wnd(t), half = t->rcv.limit / 2;

	if (t->rcv.fin || !tcb_syn_acked(t) || t->state == ST_CLOSED || !worth_offering(t, edge))
		return;
	/* Every ACK offers it; one of its own is due when the peer may be waiting for it. */
	if (left < min_u32(2U * t->rcv.mss, half) || seq_ahead(edge, t->rcv.adv) >= half)
		tcb_ack_now(e, t);
}
