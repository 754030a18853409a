/* SPDX-License-Identifier: Apache-2.0 */
/* The engine itself: memory, connections' slots, state changes, reports, traces. Protocol is in the
 * other files.
 */
#include "engine.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "tcb.h"

/* Memory. Everything but struct engine stays untouched until it is used. */

enum {
	WORKING_CACHE = 16384,
	SLABS_KEPT = 16, /* of each kind: a megabyte */
	CHUNKS_KEPT = 256, /* four */
};

struct layout {
	size_t listeners, params, slots, buckets[BY__COUNT], tcb_slabs, tcbs; /* offsets */
	size_t rest_slabs, rests;
	size_t ranges, recoveries, runs, chunks, bytes, end;
	uint32_t params_n, tcb_slabs_n, rest_slabs_n, ranges_n, recoveries_n, runs_n;
};

/* Sets of parameters: each listener's and what its connections still have from before a change; and
 * those of connections that have their own.
 */
enum { PARAM_SETS_OWN = 1024, PARAM_SETS_LISTENER = 4 };

enum { TCB_BYTES = (sizeof(struct tcb) + 63) / 64 * 64 };

/* What a connection at rest takes: some 200 octets most of the time. */
static const uint16_t rest_sizes[SLAB_CLASSES] = { 128, 160, 192, 208, 224, 240,
						   256, 288, 320, 384, 512 };
enum { REST_BYTES_MOST = 512 };

static size_t reserve(size_t *at, size_t n, size_t size, size_t align)
{
	const size_t here = (*at + align - 1) / align * align;

	*at = here + n * size;
	return here;
}

static struct layout layout_of(const struct engine_config *cfg)
{
	struct layout l = { 0 };
	size_t at = sizeof(struct engine);

	l.params_n = PARAM_SETS_OWN + PARAM_SETS_LISTENER * cfg->listeners_max;
	l.tcb_slabs_n = slabs_for(cfg->conns_max, TCB_BYTES);
	l.rest_slabs_n = slabs_for(cfg->conns_max, REST_BYTES_MOST) + SLAB_CLASSES;
	/* What one connection may use, and for the rest as many as chunks can hold in quarters. */
	l.ranges_n = RANGES_PER_CONN +
		     (cfg->chunks_max < 1U << 28 ? cfg->chunks_max * 4 : 1U << 30);
	/* Who has something in flight holds a chunk, or sends no more than a FIN. */
	l.recoveries_n = min_u32(cfg->conns_max,
				 cfg->chunks_max < 1U << 28 ? cfg->chunks_max + 64 : 1U << 28);
	l.runs_n = RUNS_PER_CONN + (cfg->chunks_max < 1U << 27 ? cfg->chunks_max * 8 : 1U << 30);
	l.listeners = reserve(&at, cfg->listeners_max, sizeof(struct listener), 64);
	l.params = reserve(&at, l.params_n, sizeof(struct param_set), 64);
	l.slots = reserve(&at, cfg->conns_max, sizeof(struct slot), 64);
	for (unsigned i = 0; i < BY__COUNT; i++)
		l.buckets[i] = reserve(&at, cfg->conns_max, sizeof(uint32_t), 64);
	l.tcb_slabs = reserve(&at, l.tcb_slabs_n, sizeof(struct slab), 64);
	l.tcbs = reserve(&at, l.tcb_slabs_n, SLAB_BYTES, 4096);
	l.rest_slabs = reserve(&at, l.rest_slabs_n, sizeof(struct slab), 64);
	l.rests = reserve(&at, l.rest_slabs_n, SLAB_BYTES, 4096);
	l.ranges = reserve(&at, l.ranges_n, sizeof(struct range), 64);
	l.recoveries = reserve(&at, l.recoveries_n, sizeof(struct recovery), 64);
	l.runs = reserve(&at, l.runs_n, sizeof(struct run), 64);
	l.chunks = reserve(&at, cfg->chunks_max, sizeof(struct chunk), 64);
	l.bytes = reserve(&at, cfg->chunks_max, CHUNK_BYTES, 4096);
	l.end = at;
	return l;
}

size_t engine_size(const struct engine_config *cfg)
{
	return layout_of(cfg).end;
}

static void config_defaults(struct engine_config *cfg)
{
	if (cfg->syn_received_max == 0 || cfg->syn_received_max > cfg->conns_max)
		cfg->syn_received_max = cfg->conns_max;
	if (cfg->time_wait_max == 0 || cfg->time_wait_max > cfg->conns_max)
		cfg->time_wait_max = cfg->conns_max;
	if (cfg->working_max == 0 || cfg->working_max > cfg->conns_max)
		cfg->working_max = cfg->conns_max;
	cfg->working_cache = min_u32(cfg->working_cache ? cfg->working_cache : WORKING_CACHE,
				     cfg->working_max);
	if (cfg->segment_bytes_max > SEG_TEXT_MAX)
		cfg->segment_bytes_max = SEG_TEXT_MAX;
	if (cfg->serial_step == 0)
		cfg->serial_step = 1;
}

struct engine *engine_init(void *mem, const struct engine_config *cfg, vtime now)
{
	const struct layout l = layout_of(cfg);
	uint8_t *base = mem;
	struct engine *e = mem;

	e->cfg = *cfg;
	config_defaults(&e->cfg);
	e->now = now;
	e->unserved.ttl = 64; /* until engine_set_unserved() */
	e->serial_next = cfg->serial_first;
	e->listeners = (void *)(base + l.listeners);
	e->params.all = (void *)(base + l.params);
	e->params.max = l.params_n;
	e->slots = (void *)(base + l.slots);
	for (unsigned i = 0; i < BY__COUNT; i++)
		table_init(&e->tables[i], (void *)(base + l.buckets[i]), cfg->conns_max);
	e->tcbs.sizes[0] = TCB_BYTES;
	slabs_init(&e->tcbs, base + l.tcbs, (void *)(base + l.tcb_slabs), l.tcb_slabs_n);
	memcpy(e->rests.sizes, rest_sizes, sizeof(rest_sizes));
	slabs_init(&e->rests, base + l.rests, (void *)(base + l.rest_slabs), l.rest_slabs_n);
	pool_init(&e->pool, base + l.bytes, (void *)(base + l.chunks), cfg->chunks_max,
		  (void *)(base + l.ranges), l.ranges_n);
	e->recoveries.all = (void *)(base + l.recoveries);
	e->recoveries.max = l.recoveries_n;
	e->runs.all = (void *)(base + l.runs);
	e->runs.max = l.runs_n;
	wheel_init(&e->wheel, now);
	list_init(&e->out);
	list_init(&e->out_few);
	list_init(&e->reporting);
	list_init(&e->time_wait);
	list_init(&e->waiting);
	return e;
}

void engine_clock_delivering(struct engine *e, vtime now)
{
	assert(!vtime_before(now, e->now));
	e->now = now;
}

void engine_clock(struct engine *e, vtime now)
{
	assert(!e->direct.tcb && "conn_delivered() comes before any call but conn_send()");
	engine_clock_delivering(e, now);
}

bool limit_allows(struct limit *l, vtime now, uint32_t max, uint64_t period_us)
{
	if (l->n == 0 || vtime_since(now, l->since) >= period_us)
		*l = (struct limit){ .since = now };
	if (l->n >= max)
		return false;
	l->n++;
	return true;
}

/* Slots. */

conn_id engine_id(const struct engine *e, const struct tcb *t)
{
	return (conn_id){ .slot = t->slot, .gen = e->slots[t->slot].gen };
}

struct tcb *slot_arrived(struct engine *e, uint32_t slot)
{
	if (slot_rests(e, slot) && !rest_make_room(e, true)) {
		e->counters.drop_working_max++;
		return NULL;
	}
	return slot_wake(e, slot);
}

const struct tcb *slot_look(const struct engine *e, uint32_t slot, struct tcb *copy)
{
	if (!slot_rests(e, slot))
		return slot_tcb(e, slot);
	rest_look(e, slot, copy);
	return copy;
}

bool slot_has_flow(const struct engine *e, uint32_t slot, const struct flow *f)
{
	return slot_rests(e, slot) ? rest_has_flow(e, slot, f)
				   : flow_eq(&slot_tcb(e, slot)->flow, f);
}

uint64_t slot_serial(const struct engine *e, uint32_t slot)
{
	return slot_rests(e, slot) ? rest_serial(e, slot) : slot_tcb(e, slot)->serial;
}

static bool is_current(const struct engine *e, conn_id id)
{
	return id.slot < e->slots_fresh && e->slots[id.slot].gen == id.gen &&
	       e->slots[id.slot].where && (slot_rests(e, id.slot) || slot_tcb(e, id.slot)->in_use);
}

struct tcb *engine_find(struct engine *e, conn_id id)
{
	if (!is_current(e, id))
		return NULL;
	if (slot_rests(e, id.slot))
		(void)rest_make_room(e, false);
	return slot_wake(e, id.slot);
}

const struct tcb *engine_look(const struct engine *e, conn_id id, struct tcb *copy)
{
	return is_current(e, id) ? slot_look(e, id.slot, copy) : NULL;
}

/* Slot + 1; 0: conns_max. */
static uint32_t slot_take(struct engine *e)
{
	const uint32_t id = e->slots_free;

	if (!id)
		return e->slots_fresh < e->cfg.conns_max ? ++e->slots_fresh : 0;
	e->slots_free = e->slots[id - 1].by[BY_FLOW].next;
	return id;
}

static void slot_put(struct engine *e, uint32_t slot)
{
	e->slots[slot].where = 0;
	e->slots[slot].by[BY_FLOW].next = e->slots_free;
	e->slots_free = slot + 1;
}

WRAPS static uint32_t generation_after(uint32_t gen)
{
	return gen + 1 ? gen + 1 : 1; /* 0 is never valid */
}

/* A slot with a TCB of zeros. NULL: conns_max. */
static struct tcb *tcb_take(struct engine *e)
{
	const uint32_t id = slot_take(e);
	struct tcb *t;

	if (!id)
		return NULL;
	e->slots[id - 1].gen = generation_after(e->slots[id - 1].gen);
	e->slots[id - 1].where = slabs_take(&e->tcbs, sizeof(*t)); /* one for each slot */
	t = slot_tcb(e, id - 1);
	memset(t, 0, sizeof(*t));
	t->slot = t->node.conn = t->age.conn = id - 1;
	return t;
}

struct tcb *tcb_new(struct engine *e, enum tcp_state state, const struct flow *f, uint32_t hash)
{
	struct tcb *const t = tcb_take(e);

	if (!t) {
		e->counters.drop_connections_max++;
		return NULL;
	}
	t->busy = e->rounds.wanted = true;
	t->in_use = true;
	t->state = state;
	t->flow = *f;
	t->serial = e->serial_next;
	e->serial_next += e->cfg.serial_step;
	t->created_at = t->state_since = e->now;
	t->opened_at = t->closed_at = VTIME_NEVER;
	for (unsigned i = 0; i < TIMER__COUNT; i++)
		t->timers[i] = VTIME_NEVER;
	table_insert(e, BY_FLOW, t->slot, hash);
	table_insert(e, BY_SERIAL, t->slot, table_serial_hash(e, t->serial));
	e->pool.holders = ++e->counters.conns;
	e->counters.conns_by_state[state]++;
	return t;
}

/* The slot's next life begins. A RST that is still owed keeps it until it was sent. */
void tcb_free(struct engine *e, struct tcb *t)
{
	if (t->in_use)
		table_remove(e, BY_SERIAL, t->slot);
	t->in_use = false;
	t->reports = 0;
	list_remove(&t->reporting);
	recvq_clear(&e->pool, &t->recvq);
	if (t->rst_owed)
		return;
	list_remove(&t->out);
	wheel_clear(&e->wheel, &t->node);
	e->pool.holders = --e->counters.conns;
	e->counters.conns_by_state[ST_CLOSED]--;
	params_drop(e, t->params);
	slabs_put(&e->tcbs, e->slots[t->slot].where);
	slot_put(e, t->slot);
}

void conn_release(struct engine *e, conn_id id)
{
	struct tcb *t = engine_find(e, id);

	if (!t)
		return;
	assert(t->state == ST_CLOSED);
	tcb_free(e, t);
}

/* Reports and traces. */

void tcb_report(struct engine *e, struct tcb *t, enum report_kind kind)
{
	t->reports |= kind;
	list_append(&e->reporting, &t->reporting);
}

void tcb_want_output(struct engine *e, struct tcb *t)
{
	list_append(tcb_has_little(t) ? &e->out_few : &e->out, &t->out);
}

/* A freed chunk wakes nobody by itself: who waits for one is told here, one at a time, for as long as
 * chunks are left when the one before had its turn.
 */
static void wake_waiting(struct engine *e)
{
	struct link *l = list_first(&e->waiting);
	struct tcb *t;

	if (!l || list_first(&e->reporting) || !pool_has(&e->pool, CHUNK_SEND))
		return;
	t = LINK_OWNER(l, struct tcb, waiting);
	list_remove(l);
	t->want_writable = false;
	tcb_report(e, t, REPORT_WRITABLE);
}

bool engine_next_report(struct engine *e, struct report *ret_report)
{
	struct link *l;
	struct tcb *t;

	wake_waiting(e);
	l = list_first(&e->reporting);
	if (!l)
		return false;
	t = LINK_OWNER(l, struct tcb, reporting);
	list_remove(l);
	*ret_report = (struct report){
		.id = engine_id(e, t),
		.serial = t->serial,
		.kinds = t->reports,
		.opened_before = t->opened,
		.reason = t->reason,
	};
	t->reports = 0;
	return true;
}

/* The next free record; NULL when the ring is filled beyond `most`. */
static struct trace *trace_next(struct engine *e, uint32_t most)
{
	if (e->traces_n >= most) {
		e->counters.traces_lost++;
		return NULL;
	}
	return &e->traces[(e->traces_head + e->traces_n++) % TRACES_MAX];
}

bool engine_next_trace(struct engine *e, struct trace *ret_trace)
{
	if (e->traces_n == 0)
		return false;
	*ret_trace = e->traces[e->traces_head];
	e->traces_head = (e->traces_head + 1) % TRACES_MAX;
	e->traces_n--;
	return true;
}

void engine_edge(struct engine *e, const struct endpoint *local, uint32_t slot, enum tcp_state from,
		 enum tcp_state to, enum cause cause, enum rule rule)
{
	struct trace *tr = trace_next(e, TRACES_MAX);

	assert(state_may_follow(from, to));
	e->edges[from] |= 1U << to;
	if (!tr)
		return;
	*tr = (struct trace){
		.at = e->now,
		.slot = slot,
		.kind = TRACE_TRANSITION,
		.from = from,
		.to = to,
		.cause = cause,
		.rule = rule,
		.flow.local = *local,
	};
}

void engine_refused(struct engine *e, const struct tcb *t, enum tcp_state state,
		    const struct flow *f, enum rule rule)
{
	/* What strangers send must not push out what connections did. */
	struct trace *tr = trace_next(e, TRACES_MAX / 2);

	if (!tr)
		return;
	*tr = (struct trace){
		.at = e->now,
		.serial = t ? t->serial : 0,
		.slot = t ? t->slot : 0,
		.kind = TRACE_REFUSED,
		.from = state,
		.to = state,
		.cause = CAUSE_SEGMENT,
		.detail = e->arriving.ctl,
		.rule = rule,
		.seq = e->arriving.seq,
		.ack = e->arriving.ack,
		.flow = *f,
	};
}

/* State changes. */

static void trace_transition(struct engine *e, const struct tcb *t, enum tcp_state to,
			     enum cause cause, unsigned detail, enum rule rule)
{
	/* A flood of SYNs must not push out what the others did. */
	const bool flood = t->state == ST_LISTEN ||
			   (t->state == ST_SYN_RECEIVED && to == ST_CLOSED && t->passive);
	struct trace *tr = trace_next(e, flood ? TRACES_MAX / 4 * 3 : TRACES_MAX);

	if (!tr)
		return;
	*tr = (struct trace){
		.at = e->now,
		.serial = t->serial,
		.slot = t->slot,
		.kind = TRACE_TRANSITION,
		.from = t->state,
		.to = to,
		.cause = cause,
		.detail = detail,
		.rule = rule,
		.flow = t->flow,
	};
	if (cause == CAUSE_SEGMENT) {
		tr->seq = e->arriving.seq;
		tr->ack = e->arriving.ack;
	}
}

/* What a listener and the engine count by state. */
static void account(struct engine *e, struct tcb *t, enum tcp_state to)
{
	struct listener *l = t->passive ? listener_of(e, t->listener) : NULL;

	e->counters.conns_by_state[t->state]--;
	e->counters.conns_by_state[to]++;
	if (t->state == ST_SYN_RECEIVED || t->state == ST_TIME_WAIT)
		list_remove(&t->age.link);
	if (to == ST_TIME_WAIT)
		list_append(&e->time_wait, &t->age.link);
	if (!l)
		return;
	if (t->state == ST_LISTEN)
		l->live++;
	if (to == ST_CLOSED)
		l->live--;
	if (to == ST_SYN_RECEIVED) {
		l->syn_received++;
		list_append(&l->half_open, &t->age.link);
	}
	if (t->state == ST_SYN_RECEIVED) {
		l->syn_received--;
		l->fast_open_pending -= t->fast_open.pending;
		t->fast_open.pending = false;
	}
}

void tcb_enter(struct engine *e, struct tcb *t, enum tcp_state to, enum cause cause,
	       unsigned detail, enum rule rule)
{
	assert(state_may_follow(t->state, to));
	e->edges[t->state] |= 1U << to;
	trace_transition(e, t, to, cause, detail, rule);
	account(e, t, to);
	t->state = to;
	t->state_since = e->now;
}

void tcb_end(struct engine *e, struct tcb *t, enum end_reason reason, enum cause cause,
	     unsigned detail, enum rule rule)
{
	tcb_enter(e, t, ST_CLOSED, cause, detail, rule);
	t->reason = reason;
	t->closed_at = e->now;
	recovery_free(e, t);
	timers_clear(e, t);
	table_remove(e, BY_FLOW, t->slot);
	list_remove(&t->out);
	list_remove(&t->waiting);
	t->want_writable = false;
	sendq_clear(&e->pool, &t->sendq);
	/* 3.10.7.4: "all segment queues should be flushed"; but after a normal close the user may still
	 * read what had arrived. */
	recvq_drop_ranges(&e->pool, &t->recvq);
	if (reason != END_NORMAL || t->stopped)
		recvq_clear(&e->pool, &t->recvq);
	tcb_read_urgent(t);
	t->unread_end = t->recvq.unread > 0;
	tcb_over(e, t);
}

void tcb_over(struct engine *e, struct tcb *t)
{
	if (t->state != ST_CLOSED || t->recvq.unread)
		return;
	t->unread_end = false;
	tcb_report(e, t, REPORT_CLOSED);
}

void tcb_forget_unread(struct engine *e, struct tcb *t)
{
	recvq_clear(&e->pool, &t->recvq);
	tcb_read_urgent(t);
	tcb_over(e, t);
}

void tcb_reset(struct engine *e, struct tcb *t, enum end_reason reason, enum cause cause,
	       unsigned detail, enum rule rule)
{
	if (t->closed_by == CLOSED_BY_NOBODY && t->opened)
		t->closed_by = CLOSED_BY_LOCAL;
	t->rst_owed = true;
	tcb_end(e, t, reason, cause, detail, rule);
	tcb_want_output(e, t);
}

void engine_counters(const struct engine *e, struct engine_counters *ret_counters)
{
	*ret_counters = e->counters;
	ret_counters->chunks_used = e->pool.used;
	ret_counters->chunks_peak = e->pool.peak;
	ret_counters->conns_resting = e->rests.used;
	ret_counters->resting_bytes = e->rests.used_bytes;
}

void engine_edges(const struct engine *e, uint32_t ret_edges[ST__COUNT])
{
	memcpy(ret_edges, e->edges, sizeof(e->edges));
}

bool engine_next_unused(struct engine *e, void **ret_memory, size_t *ret_bytes)
{
	void *p = slabs_return(&e->tcbs, SLABS_KEPT);

	if (!p)
		p = slabs_return(&e->rests, SLABS_KEPT);
	*ret_bytes = p ? SLAB_BYTES : CHUNK_BYTES;
	if (!p)
		p = pool_return(&e->pool, CHUNKS_KEPT);
	*ret_memory = p;
	if (!p) {
		slabs_look(&e->tcbs);
		slabs_look(&e->rests);
		pool_look(&e->pool);
	}
	return p;
}

/* Walking. */

bool engine_next_conn(const struct engine *e, uint32_t *cursor, conn_id *ret_id)
{
	for (uint32_t i = *cursor; i < e->slots_fresh; i++) {
		const struct tcb *t = NULL;

		if (e->slots[i].where && !slot_rests(e, i))
			t = slot_tcb(e, i);
		if (!e->slots[i].where ||
		    (t && (!t->in_use || (t->state == ST_CLOSED && !t->unread_end))))
			continue;
		*ret_id = (conn_id){ .slot = i, .gen = e->slots[i].gen };
		*cursor = i + 1;
		return true;
	}
	*cursor = e->slots_fresh;
	return false;
}

bool engine_find_serial(const struct engine *e, uint64_t serial, conn_id *ret_id)
{
	const uint32_t id = table_find_serial(e, serial);

	if (!id)
		return false;
	*ret_id = (conn_id){ .slot = id - 1, .gen = e->slots[id - 1].gen };
	return true;
}
