/* SPDX-License-Identifier: Apache-2.0 */
/* Why the engine did what it did: causes, rules, verdicts, and the record that carries them. */
#pragma once
#include <stdint.h>

#include "tcp/icmp.h"
#include "tcp/segment.h"
#include "tcp/state.h"
#include "tcp/vtime.h"

/* What made a state change happen. */
enum cause {
	CAUSE_SEGMENT, /* a segment arrived; detail is its control bits */
	CAUSE_TIMER, /* a timer fell due; detail is enum timer_kind */
	CAUSE_USER, /* the service behind the connection called */
	CAUSE_OPERATOR, /* somebody at the control socket, or the daemon's own stop */
	CAUSE_ICMP, /* an ICMP error arrived; detail is enum icmp_error */
	CAUSE__COUNT,
};

enum timer_kind {
	TIMER_RETRANSMISSION, /* RFC 6298; also zero-window probes */
	TIMER_DELAYED_ACK,
	TIMER_USER_TIMEOUT, /* R2, RFC 9293 3.8.3 */
	TIMER_FIN_WAIT_2,
	TIMER_TIME_WAIT,
	TIMER_REORDERING, /* RFC 8985 6.2: what may only be late is lost by then */
	TIMER_LOSS_PROBE, /* RFC 8985 7 */
	TIMER_KEEPALIVE, /* RFC 9293 3.8.4 */
	TIMER_PATH_MTU, /* a smaller path MTU has aged: RFC 1191 6.3 */
	TIMER__COUNT,
};

/* The rule that required a change or a refusal: RFC, section and step. rules.def is the one list. */
enum rule {
#define RULE(name, key, text) RULE_##name,
#include "tcp/rules.def"
#undef RULE
	RULE__COUNT,
};

/* Why a connection ended. end_reasons.def is the one list. */
enum end_reason {
#define END(name, key, text) END_##name,
#include "tcp/end_reasons.def"
#undef END
	END__COUNT,
};

/* Who sent the first FIN or RST that the connection ended by. */
enum closed_by {
	CLOSED_BY_NOBODY, /* a timer, or the handshake never completed */
	CLOSED_BY_LOCAL,
	CLOSED_BY_REMOTE,
	CLOSED_BY_BOTH, /* simultaneous close: both FINs crossed */
	CLOSED_BY__COUNT,
};

enum trace_kind {
	TRACE_TRANSITION, /* from, to, cause, detail, rule */
	TRACE_REFUSED, /* a segment for this connection was dropped or answered: detail its bits */
};

/* Fixed size. Pulled with engine_next_trace(). */
struct trace {
	vtime at;
	uint64_t serial; /* the connection's; 0 when there is none */
	uint32_t slot;
	enum trace_kind kind;
	enum tcp_state from, to; /* equal for TRACE_REFUSED */
	enum cause cause;
	unsigned detail;
	enum rule rule;
	seqno seq, ack; /* of the segment, with CAUSE_SEGMENT */
	struct flow flow;
};

/* Static texts, never NULL. Names are for people and the database; keys are lower_snake and stable. */
const char *rule_text(enum rule r); /* "RFC 9293 3.10.7.4 fifth" */
const char *rule_key(enum rule r); /* "arrives_ack" */
const char *cause_key(enum cause c); /* "segment" "timer" "user" "operator" "icmp" */
const char *timer_key(enum timer_kind t); /* "retransmission" ... */
const char *end_reason_key(enum end_reason r); /* "reset_by_peer" */
const char *end_reason_text(enum end_reason r); /* "the peer reset it" */
const char *closed_by_key(enum closed_by c); /* "local" ... */
/* "cause, in words": "segment SYN,ACK", "timer time_wait", "icmp port_unreachable", "user", "operator". Returns buf. */
enum { CAUSE_TEXT = 48 };
const char *cause_format(enum cause c, unsigned detail, char buf[static CAUSE_TEXT]);
