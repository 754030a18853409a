/* SPDX-License-Identifier: Apache-2.0 */
/* What a connection needs to recover from losses, and only while something is in flight. Records come from
 * the engine's arena; without one, duplicate ACKs and the retransmission timer must do. Private to
 * daemon/tcp/.
 */
#pragma once
#include "tcp/scoreboard.h"
#include "tcp/segment.h"

struct engine;
struct tcb;

struct recovery {
	uint32_t next; /* in the free list, index + 1 */
	bool logging; /* board holds all that is in flight: the connection has SACK */
	struct scoreboard board;
	struct { /* by the ACK that is being looked at */
		uint32_t delivered; /* octets that arrived */
		uint32_t sacked; /* of them, by a SACK block */
		bool original; /* of them, some were sent once and before cc.recover */
		bool dsack;
		seqno fack; /* board.fack before */
		bool stamped;
		uint32_t ts_ecr; /* with stamped */
	} news;
	struct { /* RFC 8985 6: the latest sent of all that arrived */
		vtime at;
		seqno end;
		uint32_t rtt_us; /* 0: nothing arrived yet */
		seqno dsack_round; /* reo_mult grew for what was in flight before */
		bool in_round;
	} rack;
	struct { /* RFC 9937 */
		uint32_t delivered, out, flight;
	} prr;
	struct { /* before the reduction, to go back to */
		bool armed;
		bool eifel; /* ts is of the first retransmission, and no ACK came since: RFC 3522 */
		bool timeout;
		bool resent; /* something was sent again */
		uint32_t cwnd, ssthresh;
		uint32_t ts;
		uint32_t again; /* octets sent again that no DSACK named yet */
	} undo;
};

struct recoveries {
	struct recovery *all;
	uint32_t max, fresh, free, used;
};

/* NULL: none. */
struct recovery *recovery_of(const struct engine *e, const struct tcb *t);
/* The same, when its scoreboard is in use. */
struct recovery *recovery_board(const struct engine *e, const struct tcb *t);
/* What of the flight is on its way: RFC 6675 4, SetPipe(). */
uint32_t recovery_pipe(const struct engine *e, const struct tcb *t);
/* at =< s < next was sent; SND.NXT was `nxt`. */
void recovery_sent(struct engine *e, struct tcb *t, seqno at, seqno next, seqno nxt);
/* An ACK in three steps: its SACK blocks; SND.UNA has moved; what follows from it. */
void recovery_sacks(struct engine *e, struct tcb *t, const struct segment *seg);
void recovery_cumulative(struct engine *e, struct tcb *t);
void recovery_judge(struct engine *e, struct tcb *t, const struct segment *seg, bool advanced,
		    bool duplicate);
/* Fast retransmit and the retransmission timer: before the congestion window is touched. */
void recovery_remember(struct engine *e, struct tcb *t, bool timeout);
/* The timer went off: everything in flight is to be sent again. */
void recovery_timeout(struct engine *e, struct tcb *t);
void recovery_reordering_timeout(struct engine *e, struct tcb *t);
void recovery_probe_timeout(struct engine *e, struct tcb *t);
void recovery_free(struct engine *e, struct tcb *t);
