/* SPDX-License-Identifier: Apache-2.0 */
#include "trace.h"

#include <assert.h>

static const char *const rule_texts[RULE__COUNT] = {
#define RULE(name, key, text) [RULE_##name] = (text),
#include "tcp/rules.def"
#undef RULE
};

static const char *const rule_keys[RULE__COUNT] = {
#define RULE(name, key, text) [RULE_##name] = (key),
#include "tcp/rules.def"
#undef RULE
};

static const char *const end_keys[END__COUNT] = {
#define END(name, key, text) [END_##name] = (key),
#include "tcp/end_reasons.def"
#undef END
};

static const char *const end_texts[END__COUNT] = {
#define END(name, key, text) [END_##name] = (text),
#include "tcp/end_reasons.def"
#undef END
};

/* clang-format off */
static const char *const cause_keys[CAUSE__COUNT] = {
	[CAUSE_SEGMENT] = "segment",
	[CAUSE_TIMER] = "timer",
	[CAUSE_USER] = "user",
	[CAUSE_OPERATOR] = "operator",
	[CAUSE_ICMP] = "icmp",
};

static const char *const timer_keys[TIMER__COUNT] = {
	[TIMER_RETRANSMISSION] = "retransmission",
	[TIMER_DELAYED_ACK] = "delayed_ack",
	[TIMER_USER_TIMEOUT] = "user_timeout",
	[TIMER_FIN_WAIT_2] = "fin_wait_2",
	[TIMER_TIME_WAIT] = "time_wait",
	[TIMER_REORDERING] = "reordering",
	[TIMER_LOSS_PROBE] = "loss_probe",
	[TIMER_KEEPALIVE] = "keepalive",
	[TIMER_PATH_MTU] = "path_mtu",
};

static const char *const closed_by_keys[CLOSED_BY__COUNT] = {
	[CLOSED_BY_NOBODY] = "nobody",
	[CLOSED_BY_LOCAL] = "local",
	[CLOSED_BY_REMOTE] = "remote",
	[CLOSED_BY_BOTH] = "both",
};
/* clang-format on */

const char *rule_text(enum rule r)
{
	return rule_texts[r];
}

const char *rule_key(enum rule r)
{
	return rule_keys[r];
}

const char *cause_key(enum cause c)
{
	return cause_keys[c];
}

const char *timer_key(enum timer_kind t)
{
	return timer_keys[t];
}

const char *end_reason_key(enum end_reason r)
{
	return end_keys[r];
}

const char *end_reason_text(enum end_reason r)
{
	return end_texts[r];
}

const char *closed_by_key(enum closed_by c)
{
	return closed_by_keys[c];
}

static char *append(char *p, const char *end, const char *text)
{
	while (*text && p + 1 < end)
		*p++ = *text++;
	*p = 0;
	return p;
}

const char *cause_format(enum cause c, unsigned detail, char buf[static CAUSE_TEXT])
{
	static const char bits[8][4] = { "FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR" };
	const char *const end = buf + CAUSE_TEXT;
	char *p = append(buf, end, cause_key(c));
	const char *between = " ";

	if (c == CAUSE_TIMER && detail < TIMER__COUNT)
		append(append(p, end, " "), end, timer_key((enum timer_kind)detail));
	if (c == CAUSE_ICMP && detail < ICMP_ERR__COUNT)
		append(append(p, end, " "), end, icmp_error_key((enum icmp_error)detail));
	for (unsigned i = 0; c == CAUSE_SEGMENT && i < 8; i++) {
		if (!(detail & 1U << i))
			continue;
		p = append(append(p, end, between), end, bits[i]);
		between = ",";
	}
	return buf;
}
