/* SPDX-License-Identifier: Apache-2.0 */
/* What must not be guessed from outside: initial sequence numbers (RFC 6528; MUST-8, MUST-9, SHLD-1),
 * timestamp offsets (RFC 7323 7.1), ephemeral ports (RFC 6056 3.3.3) and flow labels (RFC 6437 3).
 */
#include "base/siphash.h"
#include "tcb.h"

enum isn_use {
	ISN_SEQUENCE = 1,
	ISN_TIMESTAMP = 2,
	ISN_PORT = 3,
	ISN_IP_ID = 4,
	ISN_FLOW_LABEL = 6
};

static uint64_t keyed(const struct engine *e, const struct flow *f, enum isn_use use)
{
	const uint64_t key[2] = { e->cfg.secret[0] ^ (uint64_t)use << 56, e->cfg.secret[1] };

	return siphash(key, f, sizeof(*f));
}

/* ISN = M + F(flow, secret), M ticking every 4 us: RFC 9293 3.4.1. */
seqno engine_isn(const struct engine *e, const struct flow *f, vtime now)
{
	return seq_add((seqno){ (uint32_t)keyed(e, f, ISN_SEQUENCE) }, (uint32_t)(now.us / 4));
}

/* The same for every incarnation of a flow, so that its timestamps grow across them (RFC 6191). */
uint32_t isn_ts_offset(const struct engine *e, const struct flow *f)
{
	return (uint32_t)keyed(e, f, ISN_TIMESTAMP);
}

uint32_t isn_port_offset(const struct engine *e, const struct flow *f)
{
	return (uint32_t)keyed(e, f, ISN_PORT);
}

/* Another one for each incarnation. */
uint16_t isn_ip_id(const struct engine *e, const struct tcb *t)
{
	return (uint16_t)((keyed(e, &t->flow, ISN_IP_ID) ^ t->serial << 4) & UINT16_MAX);
}

uint32_t isn_flow_label(const struct engine *e, const struct flow *f)
{
	return 1 + (uint32_t)(keyed(e, f, ISN_FLOW_LABEL) % 0xfffff);
}

WRAPS uint32_t tcb_ts_now(const struct engine *e, const struct tcb *t)
{
	return (uint32_t)(e->now.us / 1000) + t->ts.offset; /* RFC 7323 5.4: 1 ms to 1 s a tick */
}
