/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel told, in memory. Links and addresses are few and change seldom: arrays. What is
 * asked for every packet is hashed. Neighbours and paths are chosen by strangers: fixed tables in
 * which a newcomer takes the place of one of four.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/siphash.h"
#include "nv.h"

/* --- Links ---------------------------------------------------------------------------------- */

/* Where ifindex is or belongs. */
static size_t link_place(const struct netview *v, uint32_t ifindex)
{
	size_t low = 0, high = v->links_n;

	while (low < high) {
		const size_t mid = low + (high - low) / 2;

		if (v->links[mid].ifindex < ifindex)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

const struct nv_link *nv_link_find(const struct netview *v, uint32_t ifindex)
{
	const size_t at = link_place(v, ifindex);

	return at < v->links_n && v->links[at].ifindex == ifindex ? &v->links[at] : NULL;
}

static bool is_wanted(const struct netview *v, const char *name)
{
	if (!v->only)
		return true;
	for (char *const *o = v->only; *o; o++) {
		if (!strcmp(*o, name))
			return true;
	}
	return false;
}

static bool links_equal(const struct nv_link *a, const struct nv_link *b)
{
	return !strcmp(a->name, b->name) && a->mtu == b->mtu && !memcmp(a->mac, b->mac, 6) &&
	       a->ethernet == b->ethernet && a->loopback == b->loopback && a->up == b->up &&
	       a->port == b->port && a->owned == b->owned && a->takes_from == b->takes_from;
}

/* Links are reported often with nothing new (statistics, wireless): only a change counts. */
int nv_link_put(struct netview *v, const struct nv_link *link)
{
	const size_t at = link_place(v, link->ifindex);
	const bool wanted = is_wanted(v, link->name);
	struct nv_link *more;

	if (at < v->links_n && v->links[at].ifindex == link->ifindex) {
		struct nv_link *have = &v->links[at];
		const uint64_t made = have->made;

		if (links_equal(have, link))
			return 0;
		v->addresses_changed |= have->wanted != wanted;
		*have = *link;
		have->made = made;
		have->wanted = wanted;
		v->generation++;
		return 0;
	}
	more = reallocarray(v->links, v->links_n + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	v->links = more;
	memmove(more + at + 1, more + at, (v->links_n++ - at) * sizeof(*more));
	more[at] = *link;
	more[at].made = ++v->links_made;
	more[at].wanted = wanted;
	v->generation++;
	return 0;
}

void nv_link_delete(struct netview *v, uint32_t ifindex)
{
	const size_t at = link_place(v, ifindex);

	if (at >= v->links_n || v->links[at].ifindex != ifindex)
		return;
	memmove(v->links + at, v->links + at + 1, (--v->links_n - at) * sizeof(*v->links));
	v->generation++;
	for (size_t i = 0; i < v->addrs_n;) {
		if (v->addrs[i].ifindex == ifindex)
			nv_addr_delete(v, &v->addrs[i]);
		else
			i++;
	}
	/* A number may come again with another interface. */
	for (size_t i = 0; i < NV_NEIGHS && v->neighs; i++) {
		if (v->neighs[i].ifindex == ifindex)
			v->neighs[i].ifindex = 0;
	}
}

/* --- Addresses ------------------------------------------------------------------------------ */

static struct nv_addr *addr_same(const struct netview *v, const struct nv_addr *a)
{
	for (size_t i = 0; i < v->addrs_n; i++) {
		struct nv_addr *have = &v->addrs[i];

		if (have->ifindex == a->ifindex && have->len == a->len &&
		    addr_eq(&have->addr, &a->addr) && addr_eq(&have->prefix, &a->prefix))
			return have;
	}
	return NULL;
}

/* An address is told again when its lifetime is renewed: that is no change. */
int nv_addr_put(struct netview *v, const struct nv_addr *addr)
{
	struct nv_addr *have = addr_same(v, addr), *more;

	if (have && have->usable == addr->usable && addr_eq(&have->broadcast, &addr->broadcast))
		return 0;
	if (!have) {
		more = reallocarray(v->addrs, v->addrs_n + 1, sizeof(*more));
		if (!more)
			return -ENOMEM;
		v->addrs = more;
		have = &more[v->addrs_n++];
	}
	*have = *addr;
	v->addresses_changed = true;
	v->generation++;
	return 0;
}

void nv_addr_delete(struct netview *v, const struct nv_addr *addr)
{
	struct nv_addr *have = addr_same(v, addr);

	if (!have)
		return;
	*have = v->addrs[--v->addrs_n];
	v->addresses_changed = true;
	v->generation++;
}

/* --- Sets of addresses ---------------------------------------------------------------------- */

static bool is_free(const struct ipaddr *slot)
{
	return addr_eq(slot, &addr_any);
}

/* Every packet looks here, so the hash is a cheap one. A stranger chooses what is looked up, but not
 * what is in the set, and a search ends with the next free slot: our own addresses bound it.
 */
static WRAPS size_t set_hash(const struct ipaddr *a)
{
	uint64_t high, low;

	memcpy(&high, a->b, sizeof(high));
	memcpy(&low, a->b + sizeof(high), sizeof(low));
	return (size_t)(((low ^ high * 0xff51afd7ed558ccdULL) * 0x9e3779b97f4a7c15ULL) >> 32);
}

static size_t set_slot(const struct nv_set *set, const struct ipaddr *a)
{
	size_t i = set_hash(a) & set->mask;

	while (!is_free(&set->slots[i]) && !addr_eq(&set->slots[i], a))
		i = (i + 1) & set->mask;
	return i;
}

bool nv_set_has(const struct nv_set *set, const struct ipaddr *a)
{
	return set->slots && !is_free(a) && !is_free(&set->slots[set_slot(set, a)]);
}

/* Room for n: at most half of the slots are taken. */
static int set_init(struct nv_set *set, size_t n)
{
	size_t slots = 16;

	while (slots < 2 * n)
		slots *= 2;
	set->slots = calloc(slots, sizeof(*set->slots));
	set->mask = slots - 1;
	return set->slots ? 0 : -ENOMEM;
}

static void set_add(struct nv_set *set, const struct ipaddr *a)
{
	if (!is_free(a))
		set->slots[set_slot(set, a)] = *a;
}

/* The highest address of an IPv4 network, when it has a broadcast address at all. */
static bool computed_broadcast(const struct nv_addr *a, struct ipaddr *ret_addr)
{
	struct ipaddr b = a->prefix;

	if (!addr_is_v4(&a->prefix) || a->len > 30)
		return false;
	for (unsigned bit = 96U + a->len; bit < 128; bit++)
		b.b[bit / 8] |= (uint8_t)(0x80U >> bit % 8);
	*ret_addr = b;
	return true;
}

int nv_sets_rebuild(struct netview *v)
{
	struct nv_set local, broadcast = { 0 };
	struct ipaddr b;

	if (set_init(&local, v->addrs_n))
		return -ENOMEM;
	if (set_init(&broadcast, 2 * v->addrs_n)) {
		free(local.slots);
		return -ENOMEM;
	}
	for (size_t i = 0; i < v->addrs_n; i++) {
		const struct nv_addr *a = &v->addrs[i];
		const struct nv_link *l = nv_link_find(v, a->ifindex);

		if (!l || !l->wanted)
			continue;
		if (a->usable)
			set_add(&local, &a->addr);
		/* As the kernel does: the one configured, and the one that the prefix gives. */
		set_add(&broadcast, &a->broadcast);
		if (computed_broadcast(a, &b))
			set_add(&broadcast, &b);
	}
	v->loopback_wanted = false;
	for (size_t i = 0; i < v->links_n; i++)
		v->loopback_wanted |= v->links[i].loopback && v->links[i].wanted;
	free(v->local.slots);
	free(v->broadcast.slots);
	v->local = local;
	v->broadcast = broadcast;
	return 0;
}

/* --- Neighbours ----------------------------------------------------------------------------- */

/* The NV_WAYS entries among which (ifindex, a) may be. */
static struct nv_neigh *neigh_place(const struct netview *v, uint32_t ifindex,
				    const struct ipaddr *a)
{
	const struct {
		struct ipaddr addr;
		uint64_t ifindex;
	} key = { *a, ifindex };

	return v->neighs + siphash(v->key, &key, sizeof(key)) % (NV_NEIGHS / NV_WAYS) * NV_WAYS;
}

struct nv_neigh *nv_neigh_find(const struct netview *v, uint32_t ifindex, const struct ipaddr *a)
{
	struct nv_neigh *const place = neigh_place(v, ifindex, a);

	for (unsigned i = 0; i < NV_WAYS; i++) {
		if (place[i].ifindex == ifindex && addr_eq(&place[i].addr, a))
			return &place[i];
	}
	return NULL;
}

void nv_neigh_put(struct netview *v, const struct nv_neigh *neigh)
{
	struct nv_neigh *slot = nv_neigh_find(v, neigh->ifindex, &neigh->addr);
	struct nv_neigh *place = neigh_place(v, neigh->ifindex, &neigh->addr);
	const uint64_t hinted = slot ? slot->hinted_us : 0;

	for (unsigned i = 0; i < NV_WAYS && !slot; i++) {
		if (place[i].ifindex == 0)
			slot = &place[i];
	}
	/* Who falls out is resolved by the kernel from then on: slower, not wrong. */
	if (!slot) {
		slot = &place[v->turn++ % NV_WAYS];
		v->stats.neighs_evicted++;
	}
	*slot = *neigh;
	slot->hinted_us = hinted;
	v->neighs_used = true;
	v->neigh_generation++;
}

void nv_neigh_delete(struct netview *v, uint32_t ifindex, const struct ipaddr *a)
{
	struct nv_neigh *n = nv_neigh_find(v, ifindex, a);

	if (n)
		n->ifindex = 0;
	v->neigh_generation++;
}

/* --- Paths ---------------------------------------------------------------------------------- */

static struct nv_path *path_place(const struct netview *v, const struct nv_path_key *key)
{
	return v->paths + siphash(v->key, key, sizeof(*key)) % (NV_PATHS / NV_WAYS) * NV_WAYS;
}

static bool path_holds(const struct netview *v, const struct nv_path *p, uint64_t now_us)
{
	return p->generation == v->generation && now_us < p->until_us;
}

bool nv_path_has(const struct netview *v, const struct nv_path_key *key, uint64_t now_us)
{
	const struct nv_path *const place = path_place(v, key);

	for (unsigned i = 0; i < NV_WAYS; i++)
		if (path_holds(v, &place[i], now_us) && !memcmp(&place[i].key, key, sizeof(*key)))
			return true;
	return false;
}

struct nv_path *nv_path_slot(struct netview *v, const struct nv_path_key *key, uint64_t now_us,
			     bool *ret_hit)
{
	struct nv_path *place, *slot = v->path_last;

	/* What is sent in one batch mostly goes one way. */
	if (slot && path_holds(v, slot, now_us) && !memcmp(&slot->key, key, sizeof(*key))) {
		*ret_hit = true;
		return slot;
	}
	place = path_place(v, key);
	slot = NULL;
	*ret_hit = false;
	for (unsigned i = 0; i < NV_WAYS; i++) {
		struct nv_path *p = &place[i];
		const bool holds = path_holds(v, p, now_us);

		if (!memcmp(&p->key, key, sizeof(*key)) && p->generation) {
			*ret_hit = holds;
			if (holds)
				v->path_last = p;
			return p;
		}
		if (!holds && !slot) /* the first: it is found before the others are looked at */
			slot = p;
	}
	if (!slot) {
		slot = &place[v->turn++ % NV_WAYS];
		v->stats.paths_evicted++;
	}
	slot->key = *key;
	return slot;
}

/* --- All of it ------------------------------------------------------------------------------ */

void nv_tables_clear(struct netview *v)
{
	v->links_n = 0;
	v->addrs_n = 0;
	/* A table that nobody used stays untouched: it has no memory behind it. */
	if (v->neighs_used)
		memset(v->neighs, 0, NV_NEIGHS * sizeof(*v->neighs));
	v->neighs_used = false;
	v->neigh_generation++;
	v->generation++;
	v->addresses_changed = true;
}

void nv_tables_fini(struct netview *v)
{
	free(v->links);
	free(v->addrs);
	free(v->local.slots);
	free(v->broadcast.slots);
	free(v->neighs);
	free(v->paths);
}
