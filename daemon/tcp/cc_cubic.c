/* SPDX-License-Identifier: Apache-2.0 */
/* CUBIC, RFC 9438, in whole numbers: windows in octets, time on the curve in 1/1024 s. The initial slow
 * start is HyStart++'s.
 *
 *	W_cubic(t) = C * (t - K)^3 + W_max	C = 0.4 segments/s^3, K = cbrt((W_max - cwnd_epoch) / C)
 */
#include "tcb.h"

enum {
	TICKS_SHIFT = 10, /* per second */
	TICKS_MAX = 1 << 19, /* 512 s: with the least MSS the way from one octet to CC_WINDOW_MAX */
	TICKS_FINE = 1 << 12, /* below it the cube is kept whole */
};

static void cubic_open(struct tcb *t)
{
	t->cc.cubic = (struct cubic){ .curve.epoch = VTIME_NEVER, .undo.epoch = VTIME_NEVER };
	hystart_open(t);
}

static uint32_t ticks(uint64_t us)
{
	const uint64_t most = 4ULL * TICKS_MAX;
	const uint64_t n = us / 1000000 > most >> TICKS_SHIFT ? most : us * 16 / 15625;

	return (uint32_t)(n < most ? n : most);
}

/* The largest whole number whose cube is not above x, one binary digit each turn: below 2^22. */
static uint32_t cube_root(uint64_t x)
{
	uint64_t y = 0;

	for (int s = 63; s >= 0; s -= 3) {
		y *= 2;
		const uint64_t b = 3 * y * (y + 1) + 1;

		if (x >> s >= b) {
			x -= b << s;
			y++;
		}
	}
	return (uint32_t)y;
}

/* RFC 9438 4.2, figure 2. */
static uint32_t curve_k(const struct cubic_curve *c, uint32_t cwnd, uint32_t mss)
{
	const uint64_t gap = c->w_max > cwnd ? c->w_max - cwnd : 0;

	return cube_root((gap * 5 << 3 * TICKS_SHIFT) / (2ULL * mss));
}

/* RFC 9438 4.2, figure 1. */
static uint32_t curve_window(const struct cubic_curve *c, uint32_t mss, uint32_t t)
{
	const bool before = t < c->k;
	const uint64_t d = min_u32(before ? c->k - t : t - c->k, TICKS_MAX);
	const unsigned shift = d < TICKS_FINE ? 0 : 20;
	const uint64_t off = ((d * d * d >> shift) * mss * 2 / 5) >> (3 * TICKS_SHIFT - shift);

	if (before)
		return off < c->w_max ? c->w_max - (uint32_t)off : 0;
	return off < CC_WINDOW_MAX - c->w_max ? c->w_max + (uint32_t)off : CC_WINDOW_MAX;
}

/* RFC 9438 4.8: the first stage after a timeout, or without any reduction, begins where it stands. */
static void begin_epoch(struct tcb *t, vtime now)
{
	struct cubic_curve *const c = &t->cc.cubic.curve;

	c->epoch = t->cc.cubic.seen = now;
	if (c->w_max == 0)
		c->prior = t->cc.cwnd;
	c->w_max = max_u32(c->w_max, t->cc.cwnd);
	c->k = curve_k(c, t->cc.cwnd, t->snd.mss);
	c->w_est = t->cc.cwnd;
	t->cc.cubic.rest = 0;
	t->cc.cubic.est_rest = 0;
}

/* RFC 9438 4.3, figure 4: alpha is 3 * (1 - beta) / (1 + beta) = 9/17, and 1 from cwnd_prior on. */
static void grow_estimate(struct tcb *t, uint32_t acked)
{
	struct cubic *const c = &t->cc.cubic;
	const uint64_t alpha = c->curve.w_est < c->curve.prior ? 9 : 17;
	const uint64_t unit = 17ULL * t->cc.cwnd;
	const uint64_t n = alpha * acked * t->snd.mss + c->est_rest;

	c->curve.w_est = min_u32(c->curve.w_est + (uint32_t)(n / unit), CC_WINDOW_MAX);
	c->est_rest = n % unit;
}

/* RFC 9438 4.2: the target, one round trip ahead, and at most half as much again. */
static uint32_t target(const struct tcb *t, uint32_t at)
{
	const uint32_t cwnd = t->cc.cwnd;
	const uint32_t w = curve_window(&t->cc.cubic.curve, t->snd.mss,
					at + ticks(rtt_smoothed_us(t)));

	return min_u32(max_u32(w, cwnd), cwnd + cwnd / 2);
}

static void congestion_avoidance(struct tcb *t, uint32_t acked, vtime now)
{
	struct cubic *const c = &t->cc.cubic;
	uint32_t at;
	uint64_t n;

	if (!vtime_is_set(c->curve.epoch))
		begin_epoch(t, now);
	c->seen = now;
	at = ticks(vtime_since(now, c->curve.epoch));
	acked = min_u32(acked, t->cc.cwnd);
	grow_estimate(t, acked);
	if (curve_window(&c->curve, t->snd.mss, at) < c->curve.w_est) { /* Reno-friendly region */
		t->cc.cwnd = max_u32(t->cc.cwnd, c->curve.w_est);
		c->rest = 0;
		return;
	}
	n = (uint64_t)(target(t, at) - t->cc.cwnd) * acked + c->rest; /* 4.4, 4.5 */
	c->rest = (uint32_t)(n % t->cc.cwnd);
	t->cc.cwnd += (uint32_t)(n / t->cc.cwnd);
}

/* RFC 9438 4.2: t does not count what went by while the application or the peer was the limit. */
static void pause_ended(struct tcb *t, vtime now)
{
	struct cubic *const c = &t->cc.cubic;

	if (vtime_is_set(c->curve.epoch))
		c->curve.epoch = vtime_add(c->curve.epoch, vtime_since(now, c->seen));
	c->seen = now;
}

static void cubic_on_ack(struct tcb *t, uint32_t acked, vtime now, bool in_use)
{
	hystart_acked(t, now);
	if (!in_use)
		pause_ended(t, now);
	else if (t->cc.cwnd < t->cc.ssthresh)
		cc_slow_start(t, hystart_growth(t, acked));
	else
		congestion_avoidance(t, acked, now);
}

/* RFC 9438 4.6 and 4.7: w_max remembers the window, or less of it when the last one was not reached:
 * somebody new wants room.
 */
static void remember(struct tcb *t)
{
	struct cubic *const c = &t->cc.cubic;
	const uint32_t cwnd = t->cc.cwnd;

	c->undo = c->curve;
	c->curve.w_max = cwnd < c->curve.w_max ? (uint32_t)(cwnd * 17ULL / 20) : cwnd;
	c->curve.prior = cwnd;
	c->curve.epoch = VTIME_NEVER;
	t->cc.hystart.on = false;
	ecn_reduced(t);
}

static uint32_t cubic_ssthresh(struct tcb *t, uint32_t flight)
{
	remember(t);
	return max_u32((uint32_t)(flight * 7ULL / 10), 2 * t->snd.mss);
}

static uint32_t cubic_ssthresh_ecn(struct tcb *t, uint32_t flight)
{
	remember(t);
	return max_u32((uint32_t)(flight * 17ULL / 20), 2 * t->snd.mss); /* RFC 8511 3.1 */
}

static void cubic_on_rto(struct tcb *t)
{
	t->cc.cubic.curve.w_max = 0;
	t->cc.cubic.curve.epoch = VTIME_NEVER;
	t->cc.hystart.on = false;
}

/* RFC 9438 4.9 */
static void cubic_on_undo(struct tcb *t)
{
	t->cc.cubic.curve = t->cc.cubic.undo;
}

const struct cc_ops cc_cubic = {
	.name = "cubic",
	.open = cubic_open,
	.on_ack = cubic_on_ack,
	.ssthresh = cubic_ssthresh,
	.ssthresh_ecn = cubic_ssthresh_ecn,
	.on_rto = cubic_on_rto,
	.on_idle_end = pause_ended,
	.on_undo = cubic_on_undo,
};
