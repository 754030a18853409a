/* SPDX-License-Identifier: Apache-2.0 */
/* TCP Fast Open, RFC 7413: text in the SYN, for a peer that has shown before that its address is its own.
 *
 * Server: the cookie is a keyed hash of the two addresses and of the day; the one of the day before is taken
 * as well, and a new one given. What such a SYN brings is read before the handshake is complete: an
 * application must bear to be told it twice (RFC 7413 6.1), so this is off unless it is asked for.
 *
 * Client: text that is queued before the SYN is pulled rides on it. The cache of cookies is of fixed size,
 * and remembers where a SYN like that was lost.
 */
#include <string.h>

#include "base/siphash.h"
#include "tcb.h"

#define PERIOD_US (24ULL * 3600 * 1000000)
#define SHUN_US       \
	(10ULL * 60 * \
	 1000000) /* RFC 7413 4.1.3.1: how long a path that loses such SYNs is spared */

enum {
	COOKIE_BYTES = 8,
	AGES = 2,
	USE_FAST_OPEN = 5, /* beside enum isn_use */
	OPTIONS_MOST = 40,
};

static bool serves(const struct tcp_params *p)
{
	return p->fast_open == TCP_FAST_OPEN_SERVER || p->fast_open == TCP_FAST_OPEN_BOTH;
}

static bool asks(const struct tcp_params *p)
{
	return p->fast_open == TCP_FAST_OPEN_CLIENT || p->fast_open == TCP_FAST_OPEN_BOTH;
}

static uint64_t today(const struct engine *e)
{
	return e->now.us / PERIOD_US + AGES;
}

/* RFC 7413 4.1.2: bound to the address, and to nothing that another connection has not. */
static uint64_t cookie_of(const struct engine *e, const struct flow *f, uint64_t day)
{
	const struct {
		struct ipaddr local, remote;
		uint64_t day;
	} of = { f->local.addr, f->remote.addr, day };
	const uint64_t key[2] = { e->cfg.secret[0] ^ (uint64_t)USE_FAST_OPEN << 56,
				  e->cfg.secret[1] };

	_Static_assert(sizeof(of) == 40, "hashed as octets: no padding");
	return siphash(key, &of, sizeof(of));
}

static bool is_ours(const struct engine *e, const struct segment *syn, uint64_t day)
{
	const uint64_t cookie = cookie_of(e, &syn->flow, day);

	return syn->fast_open_n == COOKIE_BYTES &&
	       memcmp(syn->fast_open, &cookie, COOKIE_BYTES) == 0;
}

/* RFC 7413 4.2.2. More than FastOpenQueue that have not completed their handshake: no text is taken from a
 * SYN, so that stolen cookies are not worth much (RFC 7413 5.1).
 */
bool fast_open_arrives(struct engine *e, struct tcb *t, struct listener *l,
		       const struct segment *syn)
{
	const bool fresh = is_ours(e, syn, today(e));

	if (!serves(t->params) || !(syn->options & OPT_FAST_OPEN))
		return false;
	if (!fresh && !is_ours(e, syn, today(e) - 1)) {
		e->counters.fast_open_refused += syn->fast_open_n != 0;
		t->fast_open.give = true;
		return false;
	}
	if (l->fast_open_pending >= t->params->fast_open_queue) {
		e->counters.fast_open_limited++;
		return false;
	}
	t->fast_open.give = !fresh;
	if (seg_text_len(syn) == 0)
		return false; /* nothing that could be had sooner */
	e->counters.fast_open_accepted++;
	t->fast_open.pending = t->fast_open.early = true;
	l->fast_open_pending++;
	return true;
}

void fast_open_fill_syn_ack(const struct engine *e, const struct tcb *t, struct segment *out)
{
	const uint64_t cookie = cookie_of(e, &t->flow, today(e));

	if (!t->fast_open.give)
		return;
	out->options |= OPT_FAST_OPEN;
	out->fast_open_n = COOKIE_BYTES;
	memcpy(out->fast_open, &cookie, COOKIE_BYTES);
}

/* The client's cache: sets of a few, in each the oldest gives way. */

static struct fast_open_peer *set_of(struct engine *e, const struct flow *f)
{
	const struct {
		struct ipaddr remote;
		uint64_t scope;
	} of = { f->remote.addr, f->scope };

	_Static_assert(sizeof(of) == 24, "hashed as octets: no padding");

	return e->fast_open[siphash(e->cfg.secret, &of, sizeof(of)) % FAST_OPEN_SETS];
}

static struct fast_open_peer *find(struct engine *e, const struct flow *f)
{
	struct fast_open_peer *const set = set_of(e, f);

	for (unsigned i = 0; i < FAST_OPEN_WAYS; i++)
		if (set[i].used && addr_eq(&set[i].addr, &f->remote.addr) &&
		    set[i].scope == f->scope)
			return &set[i];
	return NULL;
}

static struct fast_open_peer *find_or_make(struct engine *e, const struct flow *f)
{
	struct fast_open_peer *const set = set_of(e, f);
	struct fast_open_peer *p = find(e, f);

	if (p)
		return p;
	p = set;
	for (unsigned i = 1; i < FAST_OPEN_WAYS; i++)
		if (p->used && (!set[i].used || vtime_before(set[i].at, p->at)))
			p = &set[i];
	*p = (struct fast_open_peer){ .used = true, .addr = f->remote.addr, .scope = f->scope };
	return p;
}

/* RFC 7413 4.2.1: with a cookie as much text as a segment of the size that the peer once asked for has room
 * for, beside the most options that there can be. Without one: please give us one.
 */
uint32_t fast_open_fill_syn(struct engine *e, struct tcb *t, struct segment *out)
{
	const struct fast_open_peer *const p = find(e, &t->flow);
	const uint32_t mss = min_u32(t->rcv.mss, p ? p->mss : 0);

	if (!asks(t->params) || (p && vtime_before(e->now, p->shunned)))
		return 0;
	t->fast_open.asked = true;
	out->options |= OPT_FAST_OPEN;
	out->fast_open_n = p ? p->cookie_n : 0;
	if (!out->fast_open_n || mss <= OPTIONS_MOST)
		return 0;
	memcpy(out->fast_open, p->cookie, p->cookie_n);
	return min_u32(t->sendq.used, mss - OPTIONS_MOST);
}

bool engine_has_fast_open_cookie(struct engine *e, vtime now, const struct flow *f)
{
	const struct fast_open_peer *p;

	engine_clock(e, now);
	p = find(e, f);
	return p && p->cookie_n && p->mss > OPTIONS_MOST && !vtime_before(now, p->shunned);
}

/* A SYN-ACK. RFC 7413 4.1.3: what it gives is kept, with its MSS. */
void fast_open_answered(struct engine *e, const struct tcb *t, const struct segment *seg)
{
	struct fast_open_peer *p;

	if (!t->fast_open.asked || !(seg->options & OPT_FAST_OPEN) || !seg->fast_open_n)
		return;
	p = find_or_make(e, &t->flow);
	p->at = e->now;
	p->mss = t->snd.mss_peer;
	p->cookie_n = seg->fast_open_n;
	memcpy(p->cookie, seg->fast_open, seg->fast_open_n);
	e->counters.fast_open_cookies++;
}

void fast_open_lost(struct engine *e, struct tcb *t)
{
	struct fast_open_peer *p;

	if (!t->fast_open.asked)
		return;
	t->fast_open.asked = false;
	p = find_or_make(e, &t->flow);
	p->at = e->now;
	p->shunned = vtime_add(e->now, SHUN_US);
	e->counters.fast_open_lost++;
}
