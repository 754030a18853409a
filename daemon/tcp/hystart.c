/* SPDX-License-Identifier: Apache-2.0 */
/* HyStart++, RFC 9406: the initial slow start ends when round trips grow, not when a queue overflows. At
 * the first sign it slows down (conservative slow start); five rounds later, or by a loss, it is over.
 *
 * Its L, the limit per ACK for those that do not pace, is not used: cc_slow_start() says why.
 */
#include "tcb.h"

enum {
	MIN_RTT_THRESH_US = 4000,
	MAX_RTT_THRESH_US = 16000,
	MIN_RTT_DIVISOR = 8,
	N_RTT_SAMPLE = 8,
	CSS_GROWTH_DIVISOR = 4,
	CSS_ROUNDS = 5,
};

void hystart_open(struct tcb *t)
{
	t->cc.hystart = (struct hystart){
		.on = t->cc.ssthresh == CC_WINDOW_MAX,
		.round_end = t->snd.nxt,
		.last_min_us = UINT32_MAX,
		.min_us = UINT32_MAX,
		.baseline_us = UINT32_MAX,
	};
}

static uint32_t low_us(vtime at)
{
	return (uint32_t)(at.us & UINT32_MAX);
}

/* Marks are spread over the window, so that each ACK finds one. */
void hystart_sent(const struct engine *e, struct tcb *t)
{
	struct hystart *const h = &t->cc.hystart;
	const uint32_t apart = t->cc.cwnd / HYSTART_MARKS;
	unsigned last, next;

	if (!h->on)
		return;
	/* The first round, or all was acknowledged: it lasts to the end of what goes before an ACK comes. */
	if (seq_le(h->round_end, t->snd.una))
		h->filling = true;
	if (h->filling)
		h->round_end = t->snd.nxt;
	next = ((unsigned)h->first + h->n) % HYSTART_MARKS;
	last = (next + HYSTART_MARKS - 1U) % HYSTART_MARKS;
	if (h->n == HYSTART_MARKS || (h->n && seq_ahead(t->snd.nxt, h->marks[last].end) < apart))
		return;
	h->marks[next].end = t->snd.nxt;
	h->marks[next].at_us = low_us(e->now);
	h->n++;
}

/* The round trip of the last marked segment that is acknowledged. False: none is. */
WRAPS static bool take_sample(struct tcb *t, vtime now, uint32_t *ret_us)
{
	struct hystart *const h = &t->cc.hystart;
	bool found = false;

	while (h->n && seq_le(h->marks[h->first].end, t->snd.una)) {
		*ret_us = low_us(now) - h->marks[h->first].at_us;
		h->first = (uint8_t)((h->first + 1U) % HYSTART_MARKS);
		h->n--;
		found = true;
	}
	return found;
}

/* RFC 9406 4.2, in slow start: "if (rttSampleCount >= N_RTT_SAMPLE AND ..." */
static bool delay_grew(const struct hystart *h)
{
	const uint32_t last = h->last_min_us;
	const uint32_t thresh = max_u32(MIN_RTT_THRESH_US,
					min_u32(last / MIN_RTT_DIVISOR, MAX_RTT_THRESH_US));

	return last != UINT32_MAX && h->min_us >= last + thresh;
}

static void judge(struct hystart *h)
{
	if (h->samples < N_RTT_SAMPLE)
		return;
	if (!h->css && delay_grew(h)) {
		h->css = true;
		h->css_rounds = 0;
		h->baseline_us = h->min_us;
	} else if (h->css && h->min_us < h->baseline_us) { /* it was noise */
		h->css = false;
		h->baseline_us = UINT32_MAX;
	}
}

static void next_round(struct tcb *t)
{
	struct hystart *const h = &t->cc.hystart;

	h->round_end = t->snd.nxt;
	h->last_min_us = h->min_us;
	h->min_us = UINT32_MAX;
	h->samples = 0;
	if (h->css && ++h->css_rounds >= CSS_ROUNDS) {
		t->cc.ssthresh = t->cc.cwnd;
		h->on = false;
	}
}

void hystart_acked(struct tcb *t, vtime now)
{
	struct hystart *const h = &t->cc.hystart;
	uint32_t us;

	if (!h->on)
		return;
	h->filling = false;
	if (take_sample(t, now, &us)) {
		h->min_us = min_u32(h->min_us, us);
		if (h->samples < N_RTT_SAMPLE)
			h->samples++;
		judge(h);
	}
	if (seq_le(h->round_end, t->snd.una))
		next_round(t);
}

uint32_t hystart_growth(const struct tcb *t, uint32_t acked)
{
	const struct hystart *const h = &t->cc.hystart;

	return h->on && h->css ? acked / CSS_GROWTH_DIVISOR : acked;
}
