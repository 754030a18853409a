/* SPDX-License-Identifier: Apache-2.0 */
/* Congestion control: what an algorithm decides (MAY-18). When to ask it, and recovery from loss, is in
 * ack.c, output.c and timeouts.c; they keep tcb.cc. Private to daemon/tcp/.
 *
 * Reno and CUBIC send by the ACK clock and are not paced: what an ACK makes room for goes at once. A paced
 * controller (BBR, say) would need two things that are not here: a sample of the delivery rate with each ACK
 * (draft-cheng-iccrg-delivery-rate-estimation), taken from the scoreboard's runs and handed to on_ack(); and a timer in
 * output.c that holds a segment back until its rate lets it go.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "tcp/seqno.h"
#include "tcp/vtime.h"

struct engine;
struct tcb;
struct tcp_params;

/* RFC 5681 3.1: the first ssthresh is "arbitrarily high"; no window grows beyond it. */
enum { CC_WINDOW_MAX = 1 << 30 };

struct cc_ops {
	const char *name;
	/* At the start, and when another algorithm had the connection before: no history. */
	void (*open)(struct tcb *t);
	/* Outside recovery, `acked` new octets were acknowledged: cwnd may grow, if it is in use. */
	void (*on_ack)(struct tcb *t, uint32_t acked, vtime now, bool in_use);
	/* A loss was found with `flight` octets outstanding: the new ssthresh. Once for each event. */
	uint32_t (*ssthresh)(struct tcb *t, uint32_t flight);
	/* The same when the network marked instead of dropping: RFC 8511. */
	uint32_t (*ssthresh_ecn)(struct tcb *t, uint32_t flight);
	/* The event was a retransmission timeout: behind ssthresh(). */
	void (*on_rto)(struct tcb *t);
	/* Something is sent after all was acknowledged: there may have been a pause. */
	void (*on_idle_end)(struct tcb *t, vtime now);
	/* The last reduction was a mistake. Who found out has set cwnd and ssthresh back. */
	void (*on_undo)(struct tcb *t);
};

extern const struct cc_ops cc_newreno, cc_cubic;

/* RFC 9438: where on the curve. Windows are octets. */
struct cubic_curve {
	vtime epoch; /* when congestion avoidance began, moved by pauses; VTIME_NEVER: not yet */
	uint32_t w_max; /* cwnd before the last reduction; 0: begin anew at cwnd */
	uint32_t w_est; /* what Reno would have */
	uint32_t prior; /* cwnd_prior */
	uint32_t k; /* until w_max is reached again, 1/1024 s */
};

struct cubic {
	struct cubic_curve curve;
	struct cubic_curve undo; /* the curve before the last reduction */
	vtime seen; /* the last ACK */
	uint32_t rest; /* of cwnd's growth: below cwnd */
	uint64_t est_rest; /* of w_est's */
};

/* RFC 9406. */
enum { HYSTART_MARKS = 16 };
struct hystart {
	bool on; /* the initial slow start */
	bool filling; /* the round's end is not known yet */
	bool css; /* conservative slow start */
	uint8_t css_rounds;
	uint8_t samples; /* in this round */
	uint8_t first, n; /* of marks */
	seqno round_end;
	uint32_t last_min_us,
		min_us; /* least RTT of the last round and of this; UINT32_MAX: none */
	uint32_t baseline_us; /* min_us when css began */
	/* Segments whose round trip is measured: more samples than the one at a time of RFC 6298. */
	struct {
		seqno end;
		uint32_t at_us; /* low bits of the time at which it was sent */
	} marks[HYSTART_MARKS];
};

const struct cc_ops *cc_ops_of(const struct tcp_params *p);
/* When the segment's size is known, and again at ESTABLISHED: the initial window. */
void cc_open(struct tcb *t);
/* The algorithm that params ask for; nothing when it is in charge already. */
void cc_choose(struct tcb *t);
/* RFC 5681 3.1 and RFC 6928: the window a new or long idle connection starts with. */
uint32_t cc_initial_window(const struct tcb *t);
/* FlightSize as a loss finds it: without what went beyond cwnd because something else had arrived. RFC 5681
 * 3.2, step 2: data sent in limited transmit "MUST NOT be included in this calculation" of ssthresh.
 */
uint32_t cc_flight(const struct tcb *t);
/* `acked` new octets were acknowledged outside recovery. */
void cc_acked(struct engine *e, struct tcb *t, uint32_t acked);
/* Text or a FIN was sent; `idle`: nothing was outstanding before. */
void cc_sent(const struct engine *e, struct tcb *t, bool idle);
/* Before text is sent: RFC 5681 4.1. */
void cc_idle(const struct engine *e, struct tcb *t);
/* Slow start: RFC 5681 3.1, equation 2. */
void cc_slow_start(struct tcb *t, uint32_t acked);

/* hystart.c */
void hystart_open(struct tcb *t);
void hystart_sent(const struct engine *e, struct tcb *t);
void hystart_acked(struct tcb *t, vtime now);
/* How much of `acked` may count in slow start. */
uint32_t hystart_growth(const struct tcb *t, uint32_t acked);
