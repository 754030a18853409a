/* SPDX-License-Identifier: Apache-2.0 */
/* The connection table: chained buckets under a keyed hash, so that a stranger cannot make chains
 * long. As many buckets as connections or more: it never grows.
 */
#include "base/siphash.h"
#include "tcb.h"

uint32_t table_hash(const struct engine *e, const struct flow *f)
{
	return (uint32_t)siphash(e->cfg.secret, f, sizeof(*f));
}

struct tcb *table_find(const struct engine *e, const struct flow *f, uint32_t hash)
{
	for (uint32_t i = e->buckets[hash & e->buckets_mask]; i; i = e->tcbs[i - 1].hash_next) {
		struct tcb *t = &e->tcbs[i - 1];

		if (t->hash == hash && flow_eq(&t->flow, f))
			return t;
	}
	return NULL;
}

void table_insert(struct engine *e, struct tcb *t)
{
	uint32_t *bucket = &e->buckets[t->hash & e->buckets_mask];

	t->hash_next = *bucket;
	*bucket = (uint32_t)(t - e->tcbs) + 1;
}

void table_remove(struct engine *e, struct tcb *t)
{
	const uint32_t me = (uint32_t)(t - e->tcbs) + 1;
	uint32_t *at = &e->buckets[t->hash & e->buckets_mask];

	while (*at != me)
		at = &e->tcbs[*at - 1].hash_next;
	*at = t->hash_next;
	t->hash_next = 0;
}
