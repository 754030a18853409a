/* SPDX-License-Identifier: Apache-2.0 */
/* Loss recovery: SACK (RFC 6675), RACK-TLP (RFC 8985), PRR (RFC 9937), F-RTO (RFC 5682), and taking back what
 * was a mistake (RFC 3522, RFC 3708, RFC 4015). Fast retransmit without SACK, RFC 6582, is in ack.c.
 */
#include "recovery.h"

#include <assert.h>

#include "tcb.h"

enum {
	SACKED_SEGMENTS = 3, /* DupThresh */
	REORDERING_STEPS_MAX = 255,
	REORDERING_KEPT = 16, /* recoveries, RFC 8985 6.2 step 4 */
	PEER_ACK_DELAY_US = 200000, /* RFC 8985 7.2: what a peer may delay an ACK */
	PROBE_SLACK_US = 2000, /* clocks have a grain */
};

/* Records. */

struct recovery *recovery_of(const struct engine *e, const struct tcb *t)
{
	return t->recovery ? &e->recoveries.all[t->recovery - 1] : NULL;
}

struct recovery *recovery_board(const struct engine *e, const struct tcb *t)
{
	struct recovery *r = recovery_of(e, t);

	return r && r->logging ? r : NULL;
}

static struct recovery *recovery_take(struct engine *e, struct tcb *t)
{
	struct recoveries *const all = &e->recoveries;
	uint32_t id = all->free;

	if (t->recovery)
		return recovery_of(e, t);
	if (!id && all->fresh >= all->max) {
		e->counters.scoreboards_missed++;
		return NULL;
	}
	if (id)
		all->free = all->all[id - 1].next;
	else
		id = ++all->fresh;
	all->used++;
	t->recovery = id;
	all->all[id - 1] = (struct recovery){ .board = { .fack = t->snd.una } };
	return &all->all[id - 1];
}

void recovery_free(struct engine *e, struct tcb *t)
{
	struct recovery *r = recovery_of(e, t);

	if (!r)
		return;
	scoreboard_clear(&e->runs, &r->board);
	r->next = e->recoveries.free;
	e->recoveries.free = t->recovery;
	e->recoveries.used--;
	t->recovery = 0;
	timer_clear(t, TIMER_REORDERING);
	timer_clear(t, TIMER_LOSS_PROBE);
}

/* No memory for it: what was to be sent again is, and everything behind it. */
static void give_up_board(struct engine *e, struct tcb *t, struct recovery *r)
{
	e->counters.scoreboards_missed++;
	if (r->board.lost)
		t->snd.rtx = t->snd.una;
	scoreboard_clear(&e->runs, &r->board);
	r->logging = false;
	t->tlp.out = false;
	t->cc.recovering = t->snd.fast = t->snd.tail_probe = false;
	t->cc.recover = seq_max(t->cc.recover, t->snd.una);
	timer_clear(t, TIMER_REORDERING);
	timer_clear(t, TIMER_LOSS_PROBE);
}

uint32_t recovery_pipe(const struct engine *e, const struct tcb *t)
{
	const struct recovery *r = recovery_board(e, t);
	const uint32_t out = r ? r->board.sacked + r->board.lost : 0;

	return tcb_flight(t) - out;
}

/* Taking back. */

void recovery_remember(struct engine *e, struct tcb *t, bool timeout)
{
	struct recovery *r = recovery_take(e, t);

	if (!r)
		return;
	/* One event that goes on has one beginning to go back to. */
	if (r->undo.armed && seq_lt(t->snd.una, t->cc.recover)) {
		r->undo.timeout |= timeout;
		return;
	}
	r->undo.armed = true;
	r->undo.eifel = false;
	r->undo.timeout = timeout;
	r->undo.cwnd = t->cc.cwnd;
	r->undo.ssthresh = t->cc.ssthresh;
	r->undo.again = 0;
	r->undo.resent = false;
}

/* RFC 4015: nothing was lost. */
static void undo(struct engine *e, struct tcb *t, struct recovery *r)
{
	if (r->undo.timeout)
		e->counters.spurious_rto++;
	else
		e->counters.spurious_recoveries++;
	if (r->undo.timeout)
		rtt_refit(t); /* not backed off; with what this ACK measured: RFC 6298 2.3 */
	t->cc.cwnd = max_u32(t->cc.cwnd, r->undo.cwnd);
	t->cc.ssthresh = max_u32(t->cc.ssthresh, r->undo.ssthresh);
	t->cc.recovering = t->snd.fast = false;
	t->cc.recover = t->snd.una;
	t->cc.frto = FRTO_NONE;
	t->cc.dup_acks = 0;
	r->undo.armed = r->undo.eifel = false;
	r->rack.rtt_us = 0; /* the ACK of the original passed for one of what was sent again */
	if (r->logging)
		scoreboard_unlose(&e->runs, &r->board);
	else if (!t->snd.probing)
		t->snd.rtx = t->snd.nxt;
	t->cc.ops->on_undo(t);
	tcb_rearm(e, t);
	tcb_want_output(e, t);
}

/* RFC 3522 3.2 (5): the ACK of what was sent again echoes an earlier timestamp: it is the original's. */
static bool eifel_says_spurious(const struct tcb *t, struct recovery *r, const struct segment *seg)
{
	if (!r->undo.armed || !r->undo.eifel)
		return false;
	r->undo.eifel = false;
	return t->timestamps && seg->options & OPT_TIMESTAMPS && seg->ts_ecr &&
	       seq_lt((seqno){ seg->ts_ecr }, (seqno){ r->undo.ts });
}

/* Tail loss probes: RFC 8985 7. */

/* RFC 8985 7.3 forbids a second probe while one is out, and without a round trip measured since. */
static void schedule_probe(struct engine *e, struct tcb *t, const struct recovery *r)
{
	uint64_t us = 2ULL * rtt_smoothed_us(t) + PROBE_SLACK_US;
	vtime at;

	timer_clear(t, TIMER_LOSS_PROBE);
	if (tcb_flight(t) == 0 || t->cc.recovering || r->board.sacked || r->board.lost ||
	    t->tlp.out || t->tlp.unmeasured || seq_lt(t->snd.una, t->cc.recover) ||
	    t->rtt.srtt_8 == 0 || t->rtt.backoffs || t->snd.wnd == 0 ||
	    !vtime_is_set(t->timers[TIMER_RETRANSMISSION]))
		return;
	/* RFC 8985 7.2 has it for one segment; less than two full ones may wait as well (SHLD-19). */
	if (tcb_flight(t) < 2 * t->snd.mss)
		us += PEER_ACK_DELAY_US;
	at = vtime_add(e->now, us);
	timer_set(e, t, TIMER_LOSS_PROBE, vtime_min(at, t->timers[TIMER_RETRANSMISSION]));
}

/* What is sent. */

static void start_logging(struct engine *e, struct tcb *t)
{
	struct recovery *r = t->sack ? recovery_take(e, t) : NULL;

	if (r && !r->logging) {
		r->logging = true;
		r->board = (struct scoreboard){ .fack = t->snd.una };
	}
}

void recovery_sent(struct engine *e, struct tcb *t, seqno at, seqno next, seqno nxt)
{
	const uint32_t again = min_u32(seq_ahead(nxt, at), seq_sub(next, at));
	struct recovery *r;
	bool kept = true;

	if (seq_eq(nxt, t->snd.una))
		start_logging(e, t);
	r = recovery_of(e, t);
	if (!r)
		return;
	if (again && r->undo.armed) {
		if (!r->undo.resent) {
			r->undo.resent = true;
			r->undo.eifel = t->timestamps && seq_eq(at, t->snd.una);
			r->undo.ts = tcb_ts_now(e, t);
		}
		r->undo.again += again;
	}
	if (!r->logging)
		return;
	if (t->cc.recovering)
		r->prr.out += seq_sub(next, at);
	if (again)
		kept = scoreboard_again(&e->runs, &r->board, at, seq_add(at, again), e->now);
	if (kept && seq_lt(nxt, next))
		kept = scoreboard_sent(&e->runs, &r->board, seq_max(at, nxt), next, e->now);
	if (!kept)
		give_up_board(e, t, r);
	else
		schedule_probe(e, t, r);
}

/* What arrived. */

struct arrival {
	struct engine *e;
	struct tcb *t;
	struct recovery *r;
};

/* RFC 8985 6.2, steps 1 to 3. */
static void run_arrived(void *arg, const struct run *run)
{
	const struct arrival *const a = arg;
	struct recovery *const r = a->r;
	const uint64_t rtt = vtime_since(a->e->now, run->at);
	const uint32_t len = seq_sub(run->right, run->left);

	r->news.delivered += len;
	tcb_arrived_at_once(a->t, len);
	if (!(run->is & RUN_AGAIN)) {
		r->news.original |= seq_le(run->right, a->t->cc.recover);
		if (seq_lt(run->right, r->news.fack))
			a->t->cc.reordered = true;
	} else {
		const uint64_t ago_ms = r->news.stamped ? tcb_ts_now(a->e, a->t) - r->news.ts_ecr
							: 0;

		/* Of the original, not of what was sent again. */
		if ((r->news.stamped && ago_ms * 1000 > rtt + 1000) || rtt < a->t->rtt.min_us)
			return;
	}
	if (rtt > UINT32_MAX / 4)
		return;
	if (r->rack.rtt_us && (vtime_before(run->at, r->rack.at) ||
			       (run->at.us == r->rack.at.us && seq_le(run->right, r->rack.end))))
		return;
	r->rack.rtt_us = max_u32((uint32_t)rtt, 1);
	r->rack.at = run->at;
	r->rack.end = run->right;
}

/* RFC 2883 5, RFC 8985 6.2 step 4: a wider window for what is only late. */
static void dsack_arrived(struct engine *e, struct tcb *t, struct recovery *r,
			  const struct sack_block *b)
{
	const uint32_t len = seq_sub(b->right, b->left);

	e->counters.dsack_in++;
	r->news.dsack = true;
	r->undo.again -= min_u32(r->undo.again, len);
	if (r->rack.in_round)
		return;
	r->rack.in_round = true;
	r->rack.dsack_round = t->snd.nxt;
	t->cc.reo_kept = REORDERING_KEPT;
	if (t->cc.reo_steps < REORDERING_STEPS_MAX)
		t->cc.reo_steps++;
}

static bool is_dsack(const struct segment *seg)
{
	const struct sack_block *const first = &seg->sacks[0], *const second = &seg->sacks[1];

	if (seq_le(first->right, seg->ack))
		return seq_lt(first->left, first->right);
	return seg->sacks_n > 1 && seq_le(second->left, first->left) &&
	       seq_le(first->right, second->right) && seq_lt(first->left, first->right);
}

void recovery_sacks(struct engine *e, struct tcb *t, const struct segment *seg)
{
	struct recovery *r = recovery_board(e, t);
	struct arrival a = { e, t, r };
	unsigned i = 0;

	if (!r)
		return;
	r->news.delivered = r->news.sacked = 0;
	r->news.original = r->news.dsack = false;
	r->news.fack = r->board.fack;
	r->news.stamped = t->timestamps && seg->options & OPT_TIMESTAMPS;
	r->news.ts_ecr = seg->ts_ecr;
	r->rack.in_round = r->rack.in_round && seq_lt(seg->ack, r->rack.dsack_round);
	if (!(seg->options & OPT_SACK))
		return;
	if (is_dsack(seg)) {
		dsack_arrived(e, t, r, &seg->sacks[0]);
		i = 1;
	}
	for (; i < seg->sacks_n; i++) {
		const seqno left = seq_max(seg->sacks[i].left, t->snd.una);
		const seqno right = seg->sacks[i].right;
		const uint32_t before = r->board.sacked;

		if (!seq_lt(left, right) || seq_lt(t->snd.nxt, right)) {
			e->counters.sack_blocks_bad++;
			continue;
		}
		if (!scoreboard_sack(&e->runs, &r->board, left, right, run_arrived, &a)) {
			give_up_board(e, t, r);
			return;
		}
		e->counters.sack_blocks_in += r->board.sacked > before;
		r->news.sacked += r->board.sacked - before;
	}
}

void recovery_cumulative(struct engine *e, struct tcb *t)
{
	struct recovery *r = recovery_board(e, t);
	struct arrival a = { e, t, r };

	if (r)
		scoreboard_ack(&e->runs, &r->board, t->snd.una, run_arrived, &a);
}

/* What is lost. */

static uint32_t least(uint64_t a, uint32_t b)
{
	return a < b ? (uint32_t)a : b;
}

/* RFC 8985 6.2 step 4. */
static uint32_t reordering_window(const struct tcb *t, const struct recovery *r)
{
	const uint64_t wide = (t->rtt.min_us / 4) * (1ULL + t->cc.reo_steps);

	if (!t->cc.reordered && (t->cc.recovering || seq_lt(t->snd.una, t->cc.recover) ||
				 t->cc.dup_acks >= SACKED_SEGMENTS ||
				 r->board.sacked > (SACKED_SEGMENTS - 1) * t->snd.mss))
		return 0;
	return least(wide, rtt_smoothed_us(t));
}

/* RFC 8985 6.2 step 5. The list is in the order in which things were sent: what follows the first that is
 * not lost is not lost either.
 */
static bool detect_losses(struct engine *e, struct tcb *t, struct recovery *r)
{
	const uint32_t window = reordering_window(t, r);
	bool found = false;

	timer_clear(t, TIMER_REORDERING);
	if (r->rack.rtt_us == 0)
		return false;
	while (r->board.oldest) {
		const struct run *run = run_at(&e->runs, r->board.oldest);
		const vtime by = vtime_add(run->at, (uint64_t)r->rack.rtt_us + window);

		if (vtime_before(r->rack.at, run->at) ||
		    (run->at.us == r->rack.at.us && seq_le(r->rack.end, run->right)))
			break;
		if (vtime_before(e->now, by)) {
			timer_set(e, t, TIMER_REORDERING, by);
			break;
		}
		e->counters.rack_lost_bytes += seq_sub(run->right, run->left);
		scoreboard_lose(&e->runs, &r->board, r->board.oldest);
		found = true;
	}
	if (found)
		tcb_want_output(e, t);
	return found;
}

static void enter(struct engine *e, struct tcb *t, struct recovery *r)
{
	e->counters.fast_retransmits++;
	recovery_remember(e, t, false);
	t->cc.ssthresh = t->cc.ops->ssthresh(t, cc_flight(t));
	t->cc.acked = 0;
	t->cc.recover = t->snd.nxt;
	t->cc.recovering = true;
	t->snd.fast = true; /* the first goes whatever cwnd says: RFC 6675 5 (4.3) */
	r->prr.delivered = r->prr.out = 0;
	/* RecoverFS, RFC 9937 6.1: what may yet be delivered, and what this ACK told of. */
	r->prr.flight = tcb_flight(t) - r->board.sacked + r->news.delivered;
	t->tlp.out = t->snd.tail_probe = false;
}

/* RFC 9937 6.2. SafeACK: `good`, the ACK moved SND.UNA and told of no further loss. */
static void reduce(struct engine *e, struct tcb *t, struct recovery *r, bool good)
{
	const uint32_t pipe = recovery_pipe(e, t), ssthresh = t->cc.ssthresh;
	uint32_t send;

	r->prr.delivered += r->news.delivered;
	if (pipe > ssthresh) {
		const uint64_t share = ((uint64_t)r->prr.delivered * ssthresh + r->prr.flight - 1) /
				       r->prr.flight;

		send = share > r->prr.out ? least(share - r->prr.out, CC_WINDOW_MAX) : 0;
	} else {
		send = r->prr.delivered > r->prr.out ? r->prr.delivered - r->prr.out : 0;
		send = max_u32(send, r->news.delivered) + (good ? t->snd.mss : 0);
		send = min_u32(send, ssthresh - pipe);
	}
	t->cc.cwnd = least(max_u32(pipe + send, t->snd.mss), CC_WINDOW_MAX);
}

static void losses(struct engine *e, struct tcb *t, struct recovery *r, bool advanced)
{
	const bool found = detect_losses(e, t, r);

	if (r->board.lost && !t->cc.recovering && !seq_lt(t->snd.una, t->cc.recover) &&
	    t->cc.frto == FRTO_NONE)
		enter(e, t, r);
	if (t->cc.recovering && (found || r->news.delivered))
		reduce(e, t, r, advanced && !found);
}

void recovery_probe_timeout(struct engine *e, struct tcb *t)
{
	struct recovery *r = recovery_board(e, t);

	timer_clear(t, TIMER_LOSS_PROBE);
	if (!r || t->snd.wnd == 0) /* that is another timer's */
		return;
	t->snd.tail_probe = true; /* output.c finds out what there is to send */
	tcb_rearm(e, t);
	tcb_want_output(e, t);
}

/* "a DUPACK without any SACK option" */
static bool is_bare_repeat(const struct engine *e, const struct tcb *t, const struct segment *seg)
{
	return e->arriving.len == 0 && !(seg->options & OPT_SACK) &&
	       (uint32_t)seg->wnd << t->snd.wscale == t->snd.wnd;
}

/* RFC 8985 7.4.2: did the probe repair a loss that nobody saw? Then it counts as one. */
static void judge_probe(struct engine *e, struct tcb *t, const struct segment *seg, bool advanced)
{
	const bool dsack = seg->options & OPT_SACK && is_dsack(seg);

	if (!t->tlp.out || seq_lt(t->snd.una, t->tlp.end))
		return;
	if (t->tlp.again && !dsack) {
		if (seq_lt(t->tlp.end, t->snd.una)) {
			e->counters.tlp_recoveries++;
			t->cc.ssthresh = t->cc.ops->ssthresh(t, cc_flight(t));
			t->cc.cwnd = min_u32(t->cc.cwnd, t->cc.ssthresh);
			t->cc.acked = 0;
		} else if (advanced || !is_bare_repeat(e, t, seg)) {
			return; /* of the original or of the probe: the next ACK tells */
		}
	}
	t->tlp.out = false;
}

/* F-RTO: RFC 5682 2.1 and, with SACK, 3.1. */

/* In the window that this ACK, which is of something new, is about to set. */
static bool may_send_new(const struct tcb *t, const struct segment *seg)
{
	const seqno end = seq_add(tcb_text_end(t), t->snd.fin_queued);
	const seqno right = seq_add(t->snd.una, (uint32_t)seg->wnd << t->snd.wscale);

	return seq_lt(t->snd.nxt, end) && seq_lt(t->snd.nxt, right);
}

static void frto_failed(struct tcb *t, const struct recovery *r)
{
	if (t->cc.frto == FRTO_SECOND) {
		t->cc.cwnd = 3 * t->snd.mss; /* as after two round trips of slow start: step 3a */
		if (!r->logging)
			t->snd.rtx = t->snd.una;
	}
	t->cc.frto = FRTO_NONE;
}

static void judge_timeout(struct engine *e, struct tcb *t, struct recovery *r,
			  const struct segment *seg, bool advanced, bool duplicate)
{
	if (t->cc.frto == FRTO_NONE || (!advanced && !duplicate))
		return;
	tcb_want_output(e, t);
	if (t->cc.frto == FRTO_SECOND && (r->logging ? r->news.original : advanced)) {
		undo(e, t, r);
		return;
	}
	if (!advanced || t->cc.frto == FRTO_SECOND || !seq_lt(t->snd.una, t->cc.recover) ||
	    !may_send_new(t, seg)) {
		frto_failed(t, r);
		return;
	}
	t->cc.frto = FRTO_SECOND; /* step 2b */
	t->cc.frto_room = 2 * t->snd.mss;
	if (!r->logging)
		t->snd.rtx = t->snd.nxt;
}

void recovery_timeout(struct engine *e, struct tcb *t)
{
	struct recovery *r = recovery_board(e, t);
	bool renege;

	t->tlp.out = t->snd.tail_probe = false;
	if (!r) {
		t->snd.rtx = t->snd.una;
		return;
	}
	/* RFC 2018 8: the peer has thrown away what it had. */
	renege = r->board.head && run_at(&e->runs, r->board.head)->is & RUN_SACKED;
	scoreboard_lose_all(&e->runs, &r->board, renege);
	if (renege)
		r->board.fack = t->snd.una;
	timer_clear(t, TIMER_REORDERING);
	timer_clear(t, TIMER_LOSS_PROBE);
}

void recovery_reordering_timeout(struct engine *e, struct tcb *t)
{
	struct recovery *r = recovery_board(e, t);

	timer_clear(t, TIMER_REORDERING);
	if (!r)
		return;
	r->news.delivered = r->news.sacked = 0;
	losses(e, t, r, false);
}

void recovery_judge(struct engine *e, struct tcb *t, const struct segment *seg, bool advanced,
		    bool duplicate)
{
	struct recovery *r = recovery_of(e, t);

	judge_probe(e, t, seg, advanced);
	if (!r)
		return;
	if (advanced && eifel_says_spurious(t, r, seg))
		undo(e, t, r);
	else if (r->logging && r->news.dsack && r->undo.armed && r->undo.resent &&
		 r->undo.again == 0)
		undo(e, t, r);
	else
		judge_timeout(e, t, r, seg, advanced, duplicate);
	if (r->logging && (advanced || r->news.sacked)) {
		t->snd.tail_probe = false; /* something came before it went */
		losses(e, t, r, advanced);
		schedule_probe(e, t, r);
	} else if (r->logging) {
		losses(e, t, r, false);
	}
	if (tcb_flight(t) == 0)
		recovery_free(e, t);
}
