/* SPDX-License-Identifier: Apache-2.0 */
#include "service/limits.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "service/peers.h"

struct limits {
	atomic_uint refs;
	atomic_uint counters[LIMITS_COUNTERS];
	atomic_ullong down_until_us[LIMITS_COUNTERS];
	pthread_mutex_t lock; /* of peers */
	struct peers peers[LIMITS_OF_PEER];
};

struct limits *limits_new(void)
{
	struct limits *const l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	if (pthread_mutex_init(&l->lock, NULL)) {
		free(l);
		return NULL;
	}
	atomic_init(&l->refs, 1);
	return l;
}

struct limits *limits_ref(struct limits *l)
{
	(void)atomic_fetch_add(&l->refs, 1);
	return l;
}

void limits_unref(struct limits *l)
{
	if (!l || atomic_fetch_sub(&l->refs, 1) > 1)
		return;
	for (unsigned i = 0; i < LIMITS_OF_PEER; i++)
		peers_fini(&l->peers[i]);
	(void)pthread_mutex_destroy(&l->lock);
	free(l);
}

int limits_enter(struct limits *l, enum limits_of_peer what, const struct ipaddr *peer,
		 uint32_t max)
{
	int rc;

	(void)pthread_mutex_lock(&l->lock);
	rc = peers_enter(&l->peers[what], peer, max);
	(void)pthread_mutex_unlock(&l->lock);
	return rc;
}

void limits_leave(struct limits *l, enum limits_of_peer what, const struct ipaddr *peer)
{
	(void)pthread_mutex_lock(&l->lock);
	peers_leave(&l->peers[what], peer);
	(void)pthread_mutex_unlock(&l->lock);
}

bool limits_take(struct limits *l, unsigned counter, uint32_t max)
{
	unsigned n = atomic_load(&l->counters[counter]);

	do {
		if (max && n >= max)
			return false;
	} while (!atomic_compare_exchange_weak(&l->counters[counter], &n, n + 1));
	return true;
}

void limits_give(struct limits *l, unsigned counter)
{
	(void)atomic_fetch_sub(&l->counters[counter], 1);
}

uint32_t limits_count(const struct limits *l, unsigned counter)
{
	return atomic_load(&l->counters[counter]);
}

void limits_set_down(struct limits *l, unsigned backend, uint64_t until_us)
{
	atomic_store(&l->down_until_us[backend], until_us);
}

uint64_t limits_down_until_us(const struct limits *l, unsigned backend)
{
	return atomic_load(&l->down_until_us[backend]);
}
