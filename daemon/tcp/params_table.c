/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters, shared: most connections have their listener's, so that each set is held once and
 * counted. Sets are found by their octets; what differs in padding alone costs a place of its own, no
 * more.
 */
#include <assert.h>
#include <string.h>

#include "base/siphash.h"
#include "tcb.h"

static struct param_set *set_of(const struct engine *e, const struct tcp_params *held)
{
	return &e->params.all[(const struct param_set *)(const void *)held - e->params.all];
}

static uint32_t *bucket_of(struct engine *e, const struct tcp_params *p)
{
	return &e->params.buckets[siphash(e->cfg.secret, p, sizeof(*p)) % PARAM_BUCKETS];
}

/* Index + 1. 0: none is left. */
static uint32_t place_take(struct params_table *m)
{
	const uint32_t id = m->free;

	if (!id)
		return m->fresh < m->max ? ++m->fresh : 0;
	m->free = m->all[id - 1].next;
	return id;
}

const struct tcp_params *params_take(struct engine *e, const struct tcp_params *p)
{
	struct params_table *const m = &e->params;
	uint32_t *const bucket = bucket_of(e, p);
	uint32_t id = *bucket;

	while (id && memcmp(&m->all[id - 1].params, p, sizeof(*p)) != 0)
		id = m->all[id - 1].next;
	if (id)
		return params_hold(e, &m->all[id - 1].params);
	id = place_take(m);
	if (!id) {
		e->counters.params_sets_full++;
		return NULL;
	}
	memcpy(&m->all[id - 1].params, p, sizeof(*p));
	m->all[id - 1].refs = 1;
	m->all[id - 1].next = *bucket;
	*bucket = id;
	m->used++;
	return &m->all[id - 1].params;
}

const struct tcp_params *params_hold(struct engine *e, const struct tcp_params *held)
{
	set_of(e, held)->refs++;
	return held;
}

void params_drop(struct engine *e, const struct tcp_params *held)
{
	struct param_set *const set = held ? set_of(e, held) : NULL;
	const uint32_t id = set ? (uint32_t)(set - e->params.all) + 1 : 0;
	uint32_t *at;

	if (!set || --set->refs)
		return;
	at = bucket_of(e, held);
	while (*at != id)
		at = &e->params.all[*at - 1].next;
	*at = set->next;
	set->next = e->params.free;
	e->params.free = id;
	e->params.used--;
}

uint32_t params_id(const struct engine *e, const struct tcp_params *held)
{
	return (uint32_t)(set_of(e, held) - e->params.all);
}

const struct tcp_params *params_at(const struct engine *e, uint32_t id)
{
	return &e->params.all[id].params;
}
