/* SPDX-License-Identifier: Apache-2.0 */
/* What the path carries: RFC 1191 and RFC 8201, believed only as far as RFC 5927 7 allows; and the paths
 * that drop large packets without a word (RFC 2923 2.1), in the simple form of RFC 4821: large segments time
 * out, so smaller ones are tried.
 */
#include <errno.h>

#include "tcb.h"

/* RFC 1191 6.3, RFC 8201 4: how long a smaller MTU is believed before the link's is tried again. */
#define LIFE_US (10ULL * 60 * 1000000)

enum {
	MTU4_LEAST =
		552, /* below it an attacker gains more than any real path needs: RFC 5927 7.2 */
	MTU6_LEAST = 1280, /* RFC 8200 5 */
	SUSPICIOUS = 2, /* timeouts in a row of a full segment */
};

static bool is_v4(const struct tcb *t)
{
	return addr_is_v4(&t->flow.remote.addr);
}

static uint32_t headers(const struct tcb *t)
{
	return (is_v4(t) ? 40U : 60U) + (t->timestamps ? 12U : 0U);
}

uint32_t tcb_path_mtu(const struct tcb *t)
{
	const uint32_t link = t->link_mtu ? t->link_mtu : UINT16_MAX;

	return t->path_mtu ? min_u32(t->path_mtu, link) : link;
}

/* RFC 1191 7.1: for routers that do not tell, the next size that is common below what did not fit. */
static uint32_t plateau_below(uint32_t bytes)
{
	static const uint16_t plateaus[] = { 65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006 };

	for (unsigned i = 0; i < sizeof(plateaus) / sizeof(plateaus[0]); i++)
		if (plateaus[i] < bytes)
			return plateaus[i];
	return MTU4_LEAST;
}

static void set_path_mtu(struct engine *e, struct tcb *t, uint32_t mtu)
{
	t->path_mtu = (uint16_t)mtu;
	timer_set(e, t, TIMER_PATH_MTU, vtime_add(e->now, LIFE_US));
	tcb_fit_mss(t);
}

/* What is out was too large, so that it is lost: again at once, in smaller pieces. RFC 1191 6.4: it says
 * nothing of congestion, so the window is kept as the threshold of a slow start.
 */
static void send_again(struct engine *e, struct tcb *t)
{
	t->cc.ssthresh = max_u32(t->cc.cwnd, 2 * t->snd.mss);
	t->cc.cwnd = t->snd.mss;
	t->cc.acked = 0;
	t->cc.dup_acks = 0;
	t->cc.recovering = t->snd.fast = false;
	t->cc.recover = t->snd.nxt;
	t->snd.rtx = t->snd.una;
	t->snd.timing = false; /* Karn */
	tcb_rearm(e, t);
	tcb_want_output(e, t);
}

void tcb_too_big(struct engine *e, struct tcb *t, const struct icmp_message *m)
{
	const uint32_t current = tcb_path_mtu(t);
	uint32_t mtu = m->mtu;

	if (is_v4(t))
		mtu = max_u32(mtu ? mtu : plateau_below(m->quoted_bytes), MTU4_LEAST);
	/* RFC 8201 4; and nothing that would have fitted can have been too large: RFC 5927 7.2. */
	if (!tcb_syn_acked(t) || (!is_v4(t) && mtu < MTU6_LEAST) || m->quoted_bytes <= mtu) {
		e->counters.icmp_implausible++;
		return;
	}
	if (mtu >= current) { /* the rest of a window of which the first told it */
		e->counters.icmp_ignored++;
		return;
	}
	e->counters.path_mtu_lowered++;
	set_path_mtu(e, t, mtu);
	if (t->snd.wnd)
		send_again(e, t);
}

/* RFC 4821 7.7, RFC 8899 4.3: large segments may vanish where small ones pass. */
void tcb_suspect_black_hole(struct engine *e, struct tcb *t)
{
	static const uint16_t steps[] = { 1500, MTU6_LEAST, 576 };
	const uint32_t bytes = t->snd.mss + headers(t);
	const uint32_t least = is_v4(t) ? 576 : MTU6_LEAST;

	if (!t->params->black_hole_detection || t->rtt.backoffs % SUSPICIOUS || !tcb_syn_acked(t) ||
	    t->sendq.used < t->snd.mss)
		return;
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (steps[i] >= bytes || steps[i] < least)
			continue;
		e->counters.black_holes++;
		set_path_mtu(e, t, steps[i]);
		t->cc.cwnd = t->snd.mss; /* the loss window of the smaller segment */
		return;
	}
}

void tcb_path_mtu_aged(struct tcb *t)
{
	timer_clear(t, TIMER_PATH_MTU);
	t->path_mtu = 0;
	tcb_fit_mss(t);
}

int conn_set_mtu(struct engine *e, vtime now, conn_id id, uint16_t link_mtu)
{
	struct tcb *t = engine_find(e, id);

	engine_clock(e, now);
	if (!t)
		return -EBADF;
	if (t->state == ST_CLOSED)
		return -ENOTCONN;
	if (link_mtu == 0 || link_mtu == t->link_mtu)
		return 0;
	t->link_mtu = link_mtu;
	if (t->state != ST_SYN_SENT) /* the peer's MSS is known */
		tcb_fit_mss(t);
	tcb_want_output(e, t);
	return 0;
}
