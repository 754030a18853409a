/* SPDX-License-Identifier: Apache-2.0 */
/* Connection states, RFC 9293 3.3.2, and which may follow which (Figure 5). */
#pragma once
#include <stdbool.h>

enum tcp_state {
	ST_CLOSED,
	ST_LISTEN,
	ST_SYN_SENT,
	ST_SYN_RECEIVED,
	ST_ESTABLISHED,
	ST_FIN_WAIT_1,
	ST_FIN_WAIT_2,
	ST_CLOSE_WAIT,
	ST_CLOSING,
	ST_LAST_ACK,
	ST_TIME_WAIT,
	ST__COUNT,
};

const char *state_name(enum tcp_state s);
bool state_may_follow(enum tcp_state from, enum tcp_state to);
