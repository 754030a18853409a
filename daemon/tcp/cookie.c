/* SPDX-License-Identifier: Apache-2.0 */
/* SYN cookies, RFC 4987 3.6: when there is no record to keep of a SYN, the SYN-ACK carries what the record
 * would have held, and the ACK brings it back. A stranger costs nothing until he has shown that he hears us.
 *
 *	ISS	2 bits of a 64 s counter | 4 bits: which MSS | 26 bits of a keyed hash
 *	TSval	our clock, but its low 6 bits: window scale (4), SACK permitted, ECN
 *
 * The hash covers all of it: the 4-tuple, the peer's ISN, the counter, what was agreed, and the parameters
 * of the listener that it was agreed by. So nobody can make one up (2 counters and 16 sizes of 2^32), and one
 * that is old, of other addresses, or of other parameters is none. Without timestamps there is room for the
 * MSS alone, so the SYN-ACK offers nothing else.
 *
 * Only what stands right behind the peer's SYN brings a cookie back. When the ACK and the first text are lost, what
 * comes behind them is no proof of anything, and no reason for a RST either: the peer will send those again.
 */
#include "base/siphash.h"
#include "tcb.h"

#define PERIOD_US (64ULL * 1000000)

enum {
	AGES = 2, /* a cookie is taken for as many periods, its own included */
	COUNT_SHIFT = 30,
	MSS_SHIFT = 26,
	HASH_MASK = (1 << MSS_SHIFT) - 1,
	STAMP_MASK = 63, /* of TSval: what follows */
	SCALE_MASK = 15,
	NO_SCALE = 15,
	WITH_SACK = 1 << 4,
	WITH_ECN = 1 << 5,
	WITH_STAMPS = 1 << 6, /* not in TSval: that there is one */
	USE_COOKIE = 4, /* beside enum isn_use */
	REPLIES_SPARED = REPLIES_MAX / 4, /* of the queue, for answers that are no cookies */
};

/* The largest that is not above the peer's stands for it. 48 is the least that we send by. */
static const uint16_t sizes[16] = { 48,   216,  536,  1000, 1220, 1300, 1360, 1380,
				    1400, 1420, 1440, 1452, 1460, 4312, 8940, 32768 };

static unsigned size_index(uint16_t mss)
{
	unsigned i = ARRAY_SIZE(sizes) - 1;

	while (i && sizes[i] > mss)
		i--;
	return i;
}

/* The parameters that decide what a handshake agrees on. */
static uint8_t terms_of(const struct tcp_params *p)
{
	return (uint8_t)(tcb_scale_for(p) | p->timestamps << 4 | p->window_scaling << 5 |
			 p->sack << 6 | (p->ecn != TCP_ECN_OFF) << 7);
}

static seqno cookie_of(const struct engine *e, const struct flow *f, seqno irs, uint32_t count,
		       unsigned size, uint8_t agreed, uint8_t terms)
{
	const struct {
		struct flow flow;
		uint32_t irs, count, words;
		uint32_t zero;
	} of = { *f, irs.v, count, (uint32_t)(size | (uint32_t)agreed << 8 | (uint32_t)terms << 16),
		 0 };
	const uint64_t key[2] = { e->cfg.secret[0] ^ (uint64_t)USE_COOKIE << 56, e->cfg.secret[1] };

	_Static_assert(sizeof(of) == 56, "hashed as octets: no padding");
	return (seqno){ count << COUNT_SHIFT | (uint32_t)size << MSS_SHIFT |
			((uint32_t)siphash(key, &of, sizeof(of)) & HASH_MASK) };
}

/* Never below AGES, so that what comes before is a number too. */
static uint32_t count_now(const struct engine *e)
{
	return (uint32_t)(e->now.us / PERIOD_US) + AGES;
}

/* The peer's SYN, as far as `agreed` and the MSS tell it. */
static struct segment syn_of(const struct segment *seg, seqno irs, unsigned size, uint8_t agreed)
{
	struct segment syn = { .flow = seg->flow,
			       .seq = irs,
			       .wnd = seg->wnd,
			       .ctl = CTL_SYN,
			       .options = OPT_MSS,
			       .mss = sizes[size],
			       .link_mtu = seg->link_mtu };

	if (!(agreed & WITH_STAMPS))
		return syn;
	syn.options |= OPT_TIMESTAMPS;
	syn.ts_val = seg->ts_val;
	if ((agreed & SCALE_MASK) != NO_SCALE) {
		syn.options |= OPT_WSCALE;
		syn.wscale = agreed & SCALE_MASK;
	}
	if (agreed & WITH_SACK)
		syn.options |= OPT_SACK_PERMITTED;
	if (agreed & WITH_ECN)
		syn.ctl |= CTL_ECE | CTL_CWR;
	return syn;
}

/* What a SYN and the listener's parameters agree on. */
static uint8_t agree(const struct segment *seg, const struct tcp_params *p)
{
	const uint8_t ecn = CTL_ECE | CTL_CWR;
	unsigned agreed = WITH_STAMPS;

	if (!p->timestamps || !(seg->options & OPT_TIMESTAMPS))
		return NO_SCALE;
	if (p->window_scaling && seg->options & OPT_WSCALE)
		agreed |= min_u32(seg->wscale, TCP_WSCALE_MAX);
	else
		agreed |= NO_SCALE;
	if (p->sack && seg->options & OPT_SACK_PERMITTED)
		agreed |= WITH_SACK;
	if (p->ecn != TCP_ECN_OFF && (seg->ctl & ecn) == ecn)
		agreed |= WITH_ECN;
	return (uint8_t)agreed;
}

/* At most 64 ms before now: the clock of the connection that comes of it goes on from there. */
static WRAPS uint32_t stamp(uint32_t now, uint8_t agreed)
{
	const uint32_t ts = (now & ~(uint32_t)STAMP_MASK) | (agreed & STAMP_MASK);

	return seq_lt((seqno){ now }, (seqno){ ts }) ? ts - STAMP_MASK - 1 : ts;
}

/* A connection as the SYN and the cookie have it. */
static void begin(struct engine *e, struct tcb *t, struct listener *l, const struct segment *syn,
		  seqno iss)
{
	tcb_open(e, t, l->params, syn->link_mtu);
	tcb_set_iss(t, iss);
	tcb_take_syn(e, t, syn);
}

/* DEVIATION(SHLD-1): the ISN of a cookie is the hash and the counter, not M + F: it has to carry what nobody
 * remembers.
 */
void cookie_answer(struct engine *e, struct listener *l, const struct segment *seg)
{
	const bool v4 = addr_is_v4(&seg->flow.remote.addr);
	const uint8_t agreed = agree(seg, l->params);
	const unsigned size = size_index(seg->options & OPT_MSS && seg->mss ? seg->mss
									    : mss_default(v4));
	const seqno iss = cookie_of(e, &seg->flow, seg->seq, count_now(e), size, agreed,
				    terms_of(l->params));
	struct segment syn = syn_of(seg, seg->seq, size, agreed);
	struct tcb t = { .flow = seg->flow, .state = ST_SYN_RECEIVED, .passive = true };
	struct segment *out = reply_next(e, REPLIES_SPARED);

	if (!out)
		return;
	begin(e, &t, l, &syn, iss);
	tcb_fill_syn(e, &t, out);
	if (t.timestamps)
		out->ts_val = stamp(out->ts_val, agreed);
	params_drop(e, t.params);
	l->cookies_at = e->now;
	e->counters.syn_cookies_sent++;
}

static seqno before(seqno s)
{
	return seq_add(s, UINT32_MAX);
}

/* What an ACK says was agreed on. */
static uint8_t agreed_of(const struct segment *seg)
{
	return seg->options & OPT_TIMESTAMPS ? (uint8_t)(WITH_STAMPS | (seg->ts_ecr & STAMP_MASK))
					     : NO_SCALE;
}

/* Is the ACK one of a cookie that was sent? */
static bool verify(const struct engine *e, const struct listener *l, const struct segment *seg,
		   uint8_t agreed)
{
	const seqno iss = before(seg->ack), irs = before(seg->seq);
	const uint32_t count = count_now(e);
	const uint32_t age = (count + 4 - (iss.v >> COUNT_SHIFT)) & 3;

	return age < AGES && seq_eq(iss, cookie_of(e, &seg->flow, irs, count - age,
						   iss.v >> MSS_SHIFT & (ARRAY_SIZE(sizes) - 1),
						   agreed, terms_of(l->params)));
}

static bool is_flooded(const struct engine *e, const struct listener *l)
{
	return vtime_is_set(l->cookies_at) && vtime_since(e->now, l->cookies_at) < AGES * PERIOD_US;
}

/* May it be of a peer that has a cookie? Who has timestamps has shown one that we sent lately. */
static bool may_come_later(const struct engine *e, const struct segment *seg)
{
	const uint32_t count = before(seg->ack).v >> COUNT_SHIFT;
	const seqno now = seq_add((seqno){ isn_ts_offset(e, &seg->flow) },
				  (uint32_t)(e->now.us / 1000)); /* see tcb_ts_now() */
	const uint32_t ms = seq_sub(now, (seqno){ seg->ts_ecr });

	return ((count_now(e) + 4 - count) & 3) < AGES &&
	       (!(seg->options & OPT_TIMESTAMPS) || ms <= AGES * PERIOD_US / 1000);
}

bool cookie_supersedes(struct engine *e, struct tcb *t, const struct segment *seg)
{
	const struct listener *const l = listener_of(e, t->listener);
	const bool ours = seq_lt(t->snd.una, seg->ack) && seq_le(seg->ack, t->snd.nxt);

	if ((seg->ctl & (CTL_SYN | CTL_ACK | CTL_RST)) != CTL_ACK || ours || t->opened || !l ||
	    !is_flooded(e, l) || !verify(e, l, seg, agreed_of(seg)))
		return false;
	tcb_end(e, t, END_HANDSHAKE_RESET, CAUSE_SEGMENT, e->arriving.ctl, RULE_SYN_COOKIE);
	return true;
}

enum cookie cookie_arrives(struct engine *e, struct listener *l, const struct segment *seg,
			   uint32_t hash, struct tcb **ret_tcb)
{
	const uint8_t agreed = agreed_of(seg);
	const seqno iss = before(seg->ack), irs = before(seg->seq);
	struct segment syn;
	struct tcb *t;

	/* Who is not flooded has sent none, and nobody needs to try. */
	if (seg->ctl & CTL_SYN || !is_flooded(e, l))
		return COOKIE_NONE;
	if (!verify(e, l, seg, agreed)) {
		e->counters.syn_cookies_refused++;
		if (!may_come_later(e, seg))
			return COOKIE_NONE;
		engine_refused(e, NULL, ST_LISTEN, &seg->flow, RULE_SYN_COOKIE);
		return COOKIE_WAITS;
	}
	t = listener_accept(e, l, &seg->flow, hash);
	if (!t)
		return COOKIE_WAITS;
	syn = syn_of(seg, irs, iss.v >> MSS_SHIFT & (ARRAY_SIZE(sizes) - 1), agreed);
	begin(e, t, l, &syn, iss);
	t->snd.nxt = t->snd.rtx = seq_add(iss, 1); /* the SYN-ACK is out */
	t->segments_in = t->segments_out = 1;
	tcb_enter(e, t, ST_SYN_RECEIVED, CAUSE_SEGMENT, e->arriving.ctl, RULE_SYN_COOKIE);
	e->counters.syn_cookies_accepted++;
	*ret_tcb = t;
	return COOKIE_OPENED;
}
