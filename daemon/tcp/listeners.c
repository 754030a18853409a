/* SPDX-License-Identifier: Apache-2.0 */
/* Passive OPEN: RFC 9293 3.10.1. A listener is no connection: it stays, and each SYN gets a TCB of
 * its own (MUST-41, MUST-42).
 */
#include <errno.h>
#include <string.h>

#include "tcb.h"

struct listener *listener_of(const struct engine *e, listener_id id)
{
	if (id.slot >= e->listeners_fresh || !e->listeners[id.slot].in_use ||
	    e->listeners[id.slot].gen != id.gen)
		return NULL;
	return &e->listeners[id.slot];
}

listener_id listener_id_of(const struct engine *e, const struct listener *l)
{
	return (listener_id){ .slot = (uint32_t)(l - e->listeners), .gen = l->gen };
}

/* How well a bound address serves another: 0 is not at all. MUST-43. */
static unsigned closeness(const struct ipaddr *bound, const struct ipaddr *to)
{
	if (addr_eq(bound, to))
		return 3;
	if (!addr_is_any(bound))
		return 0;
	if (addr_is_v4(bound)) /* 0.0.0.0 */
		return addr_is_v4(to) ? 2 : 0;
	if (addr_eq(bound, &addr_any6))
		return addr_is_v4(to) ? 0 : 2;
	return 1;
}

/* The n-th of those that share an address, from `l` on. */
static struct listener *nth_sharer(struct engine *e, struct listener *l, uint32_t n)
{
	const struct endpoint *const local = &l->local;

	while (n) {
		l = &e->listeners[l->port_next - 1];
		n -= endpoint_eq(&l->local, local);
	}
	return l;
}

struct listener *listener_find(struct engine *e, const struct endpoint *to, uint32_t hash)
{
	struct listener *best = NULL;
	unsigned best_score = 0;
	uint32_t sharers = 0;

	for (uint32_t i = e->ports[to->port % PORT_BUCKETS]; i; i = e->listeners[i - 1].port_next) {
		struct listener *l = &e->listeners[i - 1];
		const unsigned score = l->local.port == to->port
					       ? closeness(&l->local.addr, &to->addr)
					       : 0;

		if (score > best_score) {
			best_score = score;
			best = l;
			sharers = 1;
		} else if (score && score == best_score) {
			sharers++; /* what is equally close is the same address */
		}
	}
	if (sharers > 1)
		return nth_sharer(e, best, (uint32_t)((uint64_t)hash * sharers >> 32));
	return best;
}

bool listener_drop_half_open(struct engine *e, struct listener *l)
{
	for (struct link *k = l->half_open.next; k != &l->half_open; k = k->next) {
		const uint32_t slot = LINK_OWNER(k, struct aged, link)->conn;

		if (!slot_rests(e, slot) && slot_tcb(e, slot)->opened)
			continue; /* by Fast Open: its service is at work */
		tcb_end(e, slot_wake(e, slot), END_HANDSHAKE_TIMEOUT, CAUSE_SEGMENT,
			e->arriving.ctl, RULE_SYN_RECEIVED_MAX);
		return true;
	}
	return false;
}

void listener_is_crowded(struct engine *e, struct listener *l, const struct flow *f)
{
	l->refused++;
	e->counters.drop_accept_full++;
	engine_refused(e, NULL, ST_LISTEN, f, RULE_ACCEPT_FULL);
}

struct tcb *listener_accept(struct engine *e, struct listener *l, const struct flow *f,
			    uint32_t hash)
{
	const bool full = l->conns_max && l->live >= l->conns_max;
	struct tcb *t = NULL;

	if (l->room == 0) {
		listener_is_crowded(e, l, f);
		return NULL;
	}
	if (!rest_make_room(e, true)) {
		l->refused++;
		e->counters.drop_working_max++;
		engine_refused(e, NULL, ST_LISTEN, f, RULE_CONNECTIONS_MAX);
		return NULL;
	}
	if (full && !listener_drop_half_open(e, l))
		e->counters.drop_connections_max++;
	else
		t = tcb_new(e, ST_LISTEN, f, hash);
	if (!t) {
		if (!full)
			(void)listener_drop_half_open(e, l); /* its slot is free for the next */
		l->refused++;
		engine_refused(e, NULL, ST_LISTEN, f, RULE_CONNECTIONS_MAX);
		return NULL;
	}
	t->passive = true;
	t->listener = listener_id_of(e, l);
	t->cookie = l->cookie;
	return t;
}

static struct listener *listener_take(struct engine *e)
{
	if (e->listeners_free) {
		struct listener *l = &e->listeners[e->listeners_free - 1];

		e->listeners_free = l->port_next;
		return l;
	}
	return e->listeners_fresh < e->cfg.listeners_max ? &e->listeners[e->listeners_fresh++]
							 : NULL;
}

int engine_listen(struct engine *e, vtime now, const struct listener_open *open,
		  listener_id *ret_id)
{
	uint32_t *bucket = &e->ports[open->local.port % PORT_BUCKETS];
	const struct tcp_params *params;
	struct listener *l;
	uint32_t gen;

	engine_clock(e, now);
	for (uint32_t i = *bucket; i; i = e->listeners[i - 1].port_next) {
		const struct listener *const other = &e->listeners[i - 1];

		if (endpoint_eq(&other->local, &open->local) &&
		    !(other->reuse_port && open->reuse_port))
			return -EADDRINUSE;
	}
	params = params_take(e, &open->params);
	l = params ? listener_take(e) : NULL;
	if (!l) {
		params_drop(e, params);
		return -ENOBUFS;
	}
	gen = l->gen;
	*l = (struct listener){
		.gen = gen + 1,
		.in_use = true,
		.reuse_port = open->reuse_port,
		.local = open->local,
		.params = params,
		.cookie = open->cookie,
		.backlog = open->backlog ? open->backlog : 1,
		.conns_max = open->conns_max,
		.port_next = *bucket,
		.cookies_at = VTIME_NEVER,
		.room = UINT32_MAX,
	};
	list_init(&l->half_open);
	*bucket = (uint32_t)(l - e->listeners) + 1;
	*ret_id = listener_id_of(e, l);
	engine_edge(e, &l->local, ret_id->slot, ST_CLOSED, ST_LISTEN, CAUSE_OPERATOR, RULE_OPEN);
	return 0;
}

int engine_unlisten(struct engine *e, vtime now, listener_id id)
{
	struct listener *l = listener_of(e, id);
	uint32_t *at;
	struct link *half;

	engine_clock(e, now);
	if (!l)
		return -EBADF;
	while ((half = list_first(&l->half_open)))
		tcb_reset(e, slot_wake(e, LINK_OWNER(half, struct aged, link)->conn), END_CANCELLED,
			  CAUSE_OPERATOR, 0, RULE_UNLISTEN);
	at = &e->ports[l->local.port % PORT_BUCKETS];
	while (*at != id.slot + 1)
		at = &e->listeners[*at - 1].port_next;
	*at = l->port_next;
	l->in_use = false;
	params_drop(e, l->params);
	l->port_next = e->listeners_free;
	e->listeners_free = id.slot + 1;
	engine_edge(e, &l->local, id.slot, ST_LISTEN, ST_CLOSED, CAUSE_OPERATOR, RULE_CLOSE);
	return 0;
}

int engine_listener_set_params(struct engine *e, listener_id id, const struct tcp_params *params)
{
	struct listener *l = listener_of(e, id);
	const struct tcp_params *held;

	if (!l)
		return -EBADF;
	held = params_take(e, params);
	if (!held)
		return -ENOBUFS;
	params_drop(e, l->params);
	l->params = held;
	return 0;
}

int engine_listener_set_room(struct engine *e, listener_id id, uint32_t room)
{
	struct listener *l = listener_of(e, id);

	if (!l)
		return -EBADF;
	l->room = room;
	return 0;
}

int engine_listener_status(const struct engine *e, listener_id id,
			   struct listener_status *ret_status)
{
	const struct listener *l = listener_of(e, id);

	if (!l)
		return -EBADF;
	*ret_status = (struct listener_status){
		.id = id,
		.local = l->local,
		.cookie = l->cookie,
		.backlog = l->backlog,
		.syn_received = l->syn_received,
		.live = l->live,
		.accepted = l->accepted,
		.refused = l->refused,
		.room = l->room,
	};
	return 0;
}
