/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of connections, by flow and by serial: chained buckets, one more for each connection that
 * is added (linear hashing, Litwin 1980), so that growing never pauses and few connections touch
 * little memory. Flows are under a keyed hash, so that a stranger cannot make chains long; serials are
 * ours.
 */
#include "base/siphash.h"
#include "tcb.h"

uint32_t table_hash(const struct engine *e, const struct flow *f)
{
	return (uint32_t)siphash(e->cfg.secret, f, sizeof(*f));
}

uint32_t table_serial_hash(const struct engine *e, uint64_t serial)
{
	return (uint32_t)((serial - e->cfg.serial_first) / e->cfg.serial_step);
}

void table_init(struct table *m, uint32_t *buckets, uint32_t max)
{
	*m = (struct table){ .buckets = buckets, .max = max, .n = 1 };
}

/* Buckets 0..n-1 are there; those that n..mask will be are still in their lower halves. */
static uint32_t *bucket_of(const struct table *m, uint32_t hash)
{
	const uint32_t i = hash & m->mask;

	return &m->buckets[i < m->n ? i : i & m->mask >> 1];
}

/* Slot + 1 of the first in the chain of this hash. */
static uint32_t chain_of(const struct engine *e, enum table_by by, uint32_t hash)
{
	return *bucket_of(&e->tables[by], hash);
}

/* One bucket more: it takes its share of the lower half's. */
static void grow(struct engine *e, enum table_by by)
{
	struct table *const m = &e->tables[by];
	uint32_t id, *lower, *upper;

	if (m->n > m->mask)
		m->mask = m->mask << 1 | 1;
	lower = &m->buckets[m->n & m->mask >> 1];
	upper = &m->buckets[m->n++];
	*upper = 0;
	while ((id = *lower)) {
		struct slot *const s = &e->slots[id - 1];

		if (bucket_of(m, s->by[by].hash) != upper) {
			lower = &s->by[by].next;
			continue;
		}
		*lower = s->by[by].next;
		s->by[by].next = *upper;
		*upper = id;
	}
}

/* One bucket less. */
static void shrink(struct engine *e, enum table_by by)
{
	struct table *const m = &e->tables[by];
	uint32_t *at;

	m->n--;
	if (m->n <= m->mask >> 1)
		m->mask >>= 1;
	at = &m->buckets[m->n & m->mask >> 1];
	while (*at)
		at = &e->slots[*at - 1].by[by].next;
	*at = m->buckets[m->n];
	m->buckets[m->n] = 0;
}

void table_insert(struct engine *e, enum table_by by, uint32_t slot, uint32_t hash)
{
	struct table *const m = &e->tables[by];
	uint32_t *bucket;

	if (m->used++ >= m->n && m->n < m->max)
		grow(e, by);
	bucket = bucket_of(m, hash);
	e->slots[slot].by[by].hash = hash;
	e->slots[slot].by[by].next = *bucket;
	*bucket = slot + 1;
}

void table_remove(struct engine *e, enum table_by by, uint32_t slot)
{
	struct table *const m = &e->tables[by];
	uint32_t *at = bucket_of(m, e->slots[slot].by[by].hash);

	while (*at != slot + 1)
		at = &e->slots[*at - 1].by[by].next;
	*at = e->slots[slot].by[by].next;
	e->slots[slot].by[by].next = 0;
	m->used--;
	for (unsigned i = 0; i < 2 && m->n > 1 && m->n / 2 > m->used; i++)
		shrink(e, by);
}

uint32_t table_find(const struct engine *e, const struct flow *f, uint32_t hash)
{
	for (uint32_t i = chain_of(e, BY_FLOW, hash); i; i = e->slots[i - 1].by[BY_FLOW].next)
		if (e->slots[i - 1].by[BY_FLOW].hash == hash && slot_has_flow(e, i - 1, f))
			return i;
	return 0;
}

uint32_t table_find_serial(const struct engine *e, uint64_t serial)
{
	const uint32_t hash = table_serial_hash(e, serial);

	for (uint32_t i = chain_of(e, BY_SERIAL, hash); i; i = e->slots[i - 1].by[BY_SERIAL].next)
		if (e->slots[i - 1].by[BY_SERIAL].hash == hash && slot_serial(e, i - 1) == serial)
			return i;
	return 0;
}
