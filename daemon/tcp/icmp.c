/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP errors: RFC 9293 3.9.2.2, with the checks of RFC 5927 and the reading of RFC 5461. */
#include "tcb.h"

const char *icmp_error_key(enum icmp_error e)
{
	static const char *const keys[ICMP_ERR__COUNT] = {
#define ICMP_ERR(name, key, hard, text) [ICMP_ERR_##name] = (key),
#include "tcp/icmp_errors.def"
#undef ICMP_ERR
	};

	return keys[e];
}

const char *icmp_error_text(enum icmp_error e)
{
	static const char *const texts[ICMP_ERR__COUNT] = {
#define ICMP_ERR(name, key, hard, text) [ICMP_ERR_##name] = (text),
#include "tcp/icmp_errors.def"
#undef ICMP_ERR
	};

	return texts[e];
}

bool icmp_error_is_hard(enum icmp_error e)
{
	static const bool hards[ICMP_ERR__COUNT] = {
#define ICMP_ERR(name, key, hard, text) [ICMP_ERR_##name] = (hard),
#include "tcp/icmp_errors.def"
#undef ICMP_ERR
	};

	return hards[e];
}

/* RFC 5927 4.1: SND.UNA =< SEG.SEQ < SND.NXT. Who is not on the path has to guess it. */
static bool in_flight(const struct tcb *t, seqno seq)
{
	return seq_in(seq, t->snd.una, tcb_flight(t));
}

/* MUST-56: a soft error ends nothing; SHLD-25, MUST-47: it is shown. SHLD-26: a hard one ends what is not
 * open yet; with IcmpMayReset a soft one does as well (RFC 5461 4.1).
 * DEVIATION(SHLD-26): once synchronised, hard errors are taken for soft ones (RFC 5461 4.2, RFC 5927 5.2):
 * what the peer acknowledged has arrived, and who can guess a sequence number could end any connection.
 */
static void unreachable(struct engine *e, struct tcb *t, enum icmp_error error)
{
	const bool hard = icmp_error_is_hard(error);

	t->soft_error = error;
	if (tcb_syn_acked(t) || !(hard || t->params->icmp_may_reset)) {
		e->counters.icmp_soft_errors++;
		return;
	}
	e->counters.icmp_ended++;
	tcb_end(e, t, END_UNREACHABLE, CAUSE_ICMP, error, hard ? RULE_ICMP_HARD : RULE_ICMP_SOFT);
}

void engine_icmp(struct engine *e, vtime now, const struct icmp_message *m)
{
	const uint32_t id = table_find(e, &m->flow, table_hash(e, &m->flow));
	struct tcb *t;

	engine_clock(e, now);
	t = id ? slot_arrived(e, id - 1) : NULL;
	e->counters.icmp_in++;
	if (m->error == ICMP_ERR_SOURCE_QUENCH) /* MUST-55 */
		e->counters.icmp_ignored++;
	else if (!t) /* MUST-54: there is nobody to act on it */
		e->counters.icmp_no_connection++;
	else if (!in_flight(t, m->seq))
		e->counters.icmp_implausible++;
	else if (m->error == ICMP_ERR_TOO_BIG)
		tcb_too_big(e, t, m);
	else
		unreachable(e, t, m->error);
}
