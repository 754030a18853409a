/* SPDX-License-Identifier: Apache-2.0 */
/* Explicit congestion notification (SHLD-8): RFC 3168, with RFC 8511's reaction. Private to daemon/tcp/. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "tcp/segment.h"

struct engine;
struct tcb;

enum ecn_codepoint { ECN_MASK = 3, ECN_ECT0 = 2, ECN_CE = 3 };

struct ecn {
	bool on; /* both SYNs said so */
	bool asked; /* our SYN did */
	bool echo; /* a CE arrived: ECE on every ACK until the peer's CWR */
	bool reduced; /* cwnd was: CWR on the next new text */
	seqno until; /* what was sent before the last reaction ends here */
};

/* The flags of our SYN or SYN-ACK; `again`: it was sent before. */
uint8_t ecn_syn_ctl(struct tcb *t, bool again);
/* What the peer's SYN says. */
void ecn_take_syn(struct tcb *t, const struct segment *seg);
/* The peer's SYN came again while our SYN-ACK is out. */
void ecn_syn_again(struct tcb *t, const struct segment *seg);
/* An acceptable ACK, before it is worked on: the peer may echo a mark. */
void ecn_ack(struct engine *e, struct tcb *t, const struct segment *seg);
/* Acceptable text, before it is taken: it may be marked. */
void ecn_text(struct engine *e, struct tcb *t, const struct segment *seg);
/* cwnd was reduced, for whatever reason. */
void ecn_reduced(struct tcb *t);
/* Text of the plan goes out in `out`; is_new: none of it was ever sent, and it is no probe. */
void ecn_send(struct tcb *t, struct segment *out, bool is_new);
