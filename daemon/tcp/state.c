/* SPDX-License-Identifier: Apache-2.0 */
#include "state.h"

/* clang-format off */
static const char *const names[ST__COUNT] = {
	[ST_CLOSED] = "CLOSED",
	[ST_LISTEN] = "LISTEN",
	[ST_SYN_SENT] = "SYN-SENT",
	[ST_SYN_RECEIVED] = "SYN-RECEIVED",
	[ST_ESTABLISHED] = "ESTABLISHED",
	[ST_FIN_WAIT_1] = "FIN-WAIT-1",
	[ST_FIN_WAIT_2] = "FIN-WAIT-2",
	[ST_CLOSE_WAIT] = "CLOSE-WAIT",
	[ST_CLOSING] = "CLOSING",
	[ST_LAST_ACK] = "LAST-ACK",
	[ST_TIME_WAIT] = "TIME-WAIT",
};
/* clang-format on */

#define TO(s) (1U << (s))

/* This table decides nothing. segment_arrives.c, user_calls.c and timeouts.c decide; tcb_enter()
 * asserts that what they decided is here, the tests count which edges they took, and the diagram
 * in the README is drawn from it.
 */
/* clang-format off */
static const unsigned next[ST__COUNT] = {
	[ST_CLOSED] = TO(ST_LISTEN) | TO(ST_SYN_SENT),
	[ST_LISTEN] = TO(ST_SYN_RECEIVED) | TO(ST_CLOSED),
	[ST_SYN_SENT] = TO(ST_SYN_RECEIVED) | TO(ST_ESTABLISHED) | TO(ST_CLOSED),
	[ST_SYN_RECEIVED] = TO(ST_ESTABLISHED) | TO(ST_FIN_WAIT_1) | TO(ST_CLOSED),
	[ST_ESTABLISHED] = TO(ST_FIN_WAIT_1) | TO(ST_CLOSE_WAIT) | TO(ST_CLOSED),
	[ST_FIN_WAIT_1] = TO(ST_FIN_WAIT_2) | TO(ST_CLOSING) | TO(ST_CLOSED),
	[ST_FIN_WAIT_2] = TO(ST_TIME_WAIT) | TO(ST_CLOSED),
	[ST_CLOSE_WAIT] = TO(ST_LAST_ACK) | TO(ST_CLOSED),
	[ST_CLOSING] = TO(ST_TIME_WAIT) | TO(ST_CLOSED),
	[ST_LAST_ACK] = TO(ST_CLOSED),
	[ST_TIME_WAIT] = TO(ST_CLOSED),
};
/* clang-format on */

const char *state_name(enum tcp_state s)
{
	return names[s];
}

bool state_may_follow(enum tcp_state from, enum tcp_state to)
{
	return next[from] & TO(to);
}
