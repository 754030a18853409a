/* SPDX-License-Identifier: Apache-2.0 */
/* A second reading of RFC 9293 3.10.7, SEGMENT ARRIVES: slow and obvious, written from the RFC's text and
 * not from daemon/tcp, of which it includes but the names of the states.
 *
 * It knows no modular arithmetic. Every number is a distance: seq and rcv_* from the peer's initial
 * sequence number, ack and snd_* from ours; so `a < b` is what the RFC says, wherever the ISNs lie.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "tcp/state.h"

struct oracle_segment {
	bool syn, ack_on, rst, fin;
	int64_t seq, ack;
	int64_t text; /* octets */
	int64_t wnd; /* octets */
	bool stamped; /* carries a Timestamps option */
	int64_t stamp; /* its TSval */
};

struct oracle_tcb {
	enum tcp_state state;
	bool passive; /* came from LISTEN */
	bool listener; /* a passive OPEN stands */
	bool rfc5961;
	bool timestamps; /* RFC 7323 is in use */
	bool fin_sent, fin_seen;
	int64_t una, nxt, wnd, wl1, wl2, wnd_max;
	int64_t rcv_nxt, rcv_wnd;
	int64_t ts_recent, last_ack_sent;
	bool holds; /* a segment that is in the window but not at its left edge: SHLD-31 */
	struct oracle_segment held;
};

enum oracle_sends { SENDS_NONE, SENDS_MAY, SENDS_MUST };
enum oracle_end { ENDS_NOT, ENDS_NORMAL, ENDS_RESET, ENDS_REFUSED, ENDS_HANDSHAKE, ENDS_RESTARTED };

struct oracle_answer {
	enum oracle_sends ack; /* <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK> */
	bool syn_ack; /* <SEQ=ISS><ACK=RCV.NXT><CTL=SYN,ACK> */
	bool reset; /* <SEQ=reset_seq><CTL=RST>, or with reset_acks <SEQ=0><ACK=reset_ack><CTL=RST,ACK> */
	bool reset_acks;
	int64_t reset_seq, reset_ack;
	bool reopened; /* the SYN began a new incarnation: its SYN,ACK follows, ISS above SND.NXT */
	int64_t delivered; /* octets that came in order */
	bool opened, closing, all_acked; /* what the user was told */
	enum oracle_end end;
	bool waits; /* the 2 MSL timer (re)starts now */
	const char *rule; /* the last one that decided something */
};

void oracle_arrives(struct oracle_tcb *t, const struct oracle_segment *s,
		    struct oracle_answer *ret_answer);
/* The user calls that lead into the states. */
void oracle_send(struct oracle_tcb *t, int64_t octets);
void oracle_close(struct oracle_tcb *t);
