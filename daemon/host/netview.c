/* SPDX-License-Identifier: Apache-2.0 */
#include "netview.h"

#include <errno.h>
#include <netlink/socket.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "nv.h"

static int copy_names(const char *const *only, char ***ret_names)
{
	char **names;
	size_t n = 0;

	while (only[n])
		n++;
	names = calloc(n + 1, sizeof(*names));
	if (!names)
		return -ENOMEM;
	*ret_names = names;
	for (size_t i = 0; i < n; i++) {
		names[i] = strdup(only[i]);
		if (!names[i])
			return -ENOMEM;
	}
	return 0;
}

static int init(struct netview *v, const char *const *only)
{
	int rc = only ? copy_names(only, &v->only) : 0;

	if (rc)
		return rc;
	/* Touched as they fill: what nobody talks to costs nothing. */
	if (!v->no_paths) {
		v->neighs = calloc(NV_NEIGHS, sizeof(*v->neighs));
		v->paths = calloc(NV_PATHS, sizeof(*v->paths));
	}
	v->buffer = malloc(NV_BUFFER_BYTES);
	if ((!v->no_paths && (!v->neighs || !v->paths)) || !v->buffer)
		return -ENOMEM;
	v->neigh_generation = 1;
	if (getrandom(v->key, sizeof(v->key), 0) != sizeof(v->key))
		return -EIO;
	rc = nv_netlink_open(v);
	if (!rc)
		rc = nv_netlink_resync(v);
	if (!rc)
		rc = nv_sets_rebuild(v);
	v->addresses_changed = false;
	return rc;
}

static int make(const char *const *only, bool no_paths, struct netview **ret_view,
		struct errmsg *ret_err)
{
	struct netview *v = calloc(1, sizeof(*v));
	int rc = -ENOMEM;

	if (v) {
		v->no_paths = no_paths;
		rc = init(v, only);
	}
	if (rc) {
		netview_free(v);
		return errmsg(ret_err, rc, "netlink: interfaces and addresses cannot be read: %s",
			      strerror(-rc));
	}
	*ret_view = v;
	return 0;
}

int netview_new(const char *const *only, struct netview **ret_view, struct errmsg *ret_err)
{
	return make(only, false, ret_view, ret_err);
}

int netview_new_addresses(const char *const *only, struct netview **ret_view,
			  struct errmsg *ret_err)
{
	return make(only, true, ret_view, ret_err);
}

void netview_free(struct netview *v)
{
	if (!v)
		return;
	nv_netlink_close(v);
	nv_tables_fini(v);
	for (char **o = v->only; o && *o; o++)
		free(*o);
	free(v->only);
	free(v->buffer);
	free(v);
}

int netview_fd(const struct netview *v)
{
	return nl_socket_get_fd(v->events);
}

bool netview_update(struct netview *v, uint64_t now_us)
{
	bool changed;

	if (nv_netlink_events(v)) {
		v->stale = true;
		v->stats.overruns++;
	}
	/* The kernel dropped events; those it still has are as old as the tables will be new. */
	if (v->stale)
		(void)nv_netlink_resync(v);
	changed = v->addresses_changed;
	if (changed) {
		if (nv_sets_rebuild(v)) {
			v->stale = true;
			return false;
		}
		v->addresses_changed = false;
	}
	return changed;
}

/* --- Addresses and links -------------------------------------------------------------------- */

bool netview_is_subnet_broadcast(const struct netview *v, const struct ipaddr *a)
{
	return nv_set_has(&v->broadcast, a);
}

bool netview_is_local(const struct netview *v, const struct ipaddr *a)
{
	if (addr_is_loopback(a))
		return v->loopback_wanted && !netview_is_subnet_broadcast(v, a);
	return nv_set_has(&v->local, a);
}

bool netview_next_local(const struct netview *v, size_t *at, struct ipaddr *ret_addr)
{
	const size_t slots = v->local.slots ? v->local.mask + 1 : 0;

	while (*at < slots) {
		*ret_addr = v->local.slots[(*at)++];
		if (!addr_is_any(ret_addr) && !addr_is_loopback(ret_addr))
			return true;
	}
	return false;
}

bool netview_uses_interface(const struct netview *v, uint32_t ifindex)
{
	const struct nv_link *l = nv_link_find(v, ifindex);

	return l && l->wanted && !l->port;
}

static bool is_taken_from(const struct netview *v, uint32_t ifindex)
{
	for (size_t i = 0; i < v->links_n; i++) {
		if (v->links[i].takes_from == ifindex)
			return true;
	}
	return false;
}

uint32_t netview_next_direct(const struct netview *v, size_t *at)
{
	while (*at < v->links_n) {
		const struct nv_link *l = &v->links[(*at)++];

		if (l->wanted && !l->loopback && !l->owned && !is_taken_from(v, l->ifindex))
			return l->ifindex;
	}
	return 0;
}

static uint16_t clip_mtu(uint32_t mtu)
{
	return mtu > UINT16_MAX ? UINT16_MAX : (uint16_t)mtu;
}

uint64_t netview_generation(const struct netview *v)
{
	return v->generation;
}

uint16_t netview_link_mtu(const struct netview *v, uint32_t ifindex)
{
	const struct nv_link *l = nv_link_find(v, ifindex);

	return l ? clip_mtu(l->mtu) : 0;
}

uint64_t netview_link_made(const struct netview *v, uint32_t ifindex)
{
	const struct nv_link *l = nv_link_find(v, ifindex);

	return l ? l->made : 0;
}

const char *netview_link_name(const struct netview *v, uint32_t ifindex)
{
	const struct nv_link *l = nv_link_find(v, ifindex);

	return l ? l->name : "?";
}

bool netview_link_mac(const struct netview *v, uint32_t ifindex, uint8_t ret_mac[6])
{
	const struct nv_link *l = nv_link_find(v, ifindex);

	if (!l || !l->ethernet)
		return false;
	memcpy(ret_mac, l->mac, sizeof(l->mac));
	return true;
}

bool netview_is_onlink(const struct netview *v, uint32_t ifindex, const struct ipaddr *a)
{
	for (size_t i = 0; i < v->addrs_n; i++) {
		const struct nv_addr *have = &v->addrs[i];

		if (have->ifindex == ifindex && addr_is_v4(a) == addr_is_v4(&have->prefix) &&
		    addr_in_prefix(a, &have->prefix, have->len))
			return true;
	}
	return false;
}

/* --- Paths ---------------------------------------------------------------------------------- */

static const struct nv_link *loopback_link(const struct netview *v)
{
	for (size_t i = 0; i < v->links_n; i++) {
		if (v->links[i].loopback)
			return &v->links[i];
	}
	return NULL;
}

/* A route and the interface that it leaves by make a path. */
static int make_path(const struct netview *v, const struct nv_route *r, const struct ipaddr *src,
		     struct path *ret_path)
{
	const struct nv_link *l = r->local ? loopback_link(v) : nv_link_find(v, r->ifindex);
	struct path p = { .src = src ? *src : r->src };
	uint32_t mtu;

	if (!l || !l->up || !l->wanted || addr_is_any(&p.src))
		return -ENETUNREACH;
	mtu = r->mtu && r->mtu < l->mtu ? r->mtu : l->mtu;
	p.ifindex = l->ifindex;
	p.mtu = clip_mtu(mtu);
	p.loopback = l->loopback;
	p.ethernet = l->ethernet && !r->encap;
	/* What the device cannot do, the kernel does before the device sees it. */
	p.offload = p.ethernet;
	if (p.ethernet)
		memcpy(p.src_mac, l->mac, sizeof(p.src_mac));
	*ret_path = p;
	return 0;
}

/* The kernel refuses to route from a source that it does not own, as with Shield=none: it is then
 * asked without one.
 */
static int find_path(struct netview *v, const struct ipaddr *dst, uint32_t scope,
		     const struct ipaddr *src, struct nv_path *entry)
{
	const bool ours = src && netview_is_local(v, src);
	struct nv_route r;
	int rc;

	v->stats.paths_asked++;
	rc = nv_netlink_route(v, dst, scope, ours ? src : &addr_any, &r);
	if (rc)
		return rc;
	entry->next_hop = r.next_hop;
	return make_path(v, &r, src, &entry->path);
}

/* The neighbour of a path by Ethernet, as it is now. */
static void find_neighbour(struct netview *v, struct nv_path *entry, uint64_t now_us)
{
	struct nv_neigh *n;

	if (entry->neigh_generation == v->neigh_generation)
		return;
	entry->neigh_generation = 0;
	entry->path.neigh_known = false;
	n = nv_neigh_find(v, entry->path.ifindex, &entry->next_hop);
	if (!n)
		return;
	/* Packets by the packet socket are no sign of life to the kernel: now and then one goes its
	 * way, so that it asks the neighbour whether it is still there. */
	if (!n->confirmed && (n->hinted_us == 0 || now_us - n->hinted_us >= NV_HINT_US)) {
		n->hinted_us = now_us ? now_us : 1;
		return;
	}
	entry->path.neigh_known = true;
	memcpy(entry->path.dst_mac, n->mac, sizeof(n->mac));
	if (n->confirmed)
		entry->neigh_generation = v->neigh_generation;
}

int netview_path(struct netview *v, const struct ipaddr *dst, uint32_t scope,
		 const struct ipaddr *src, uint64_t now_us, const struct path **ret_path)
{
	const struct nv_path_key key = { *dst, src ? *src : addr_any, scope };
	struct nv_path *entry;
	bool hit;

	entry = nv_path_slot(v, &key, now_us, &hit);
	if (!hit) {
		entry->rc = find_path(v, dst, scope, src, entry);
		entry->generation = v->generation;
		entry->neigh_generation = 0;
		entry->until_us = now_us + (entry->rc ? NV_NEGATIVE_US : NV_PATH_US);
	}
	if (entry->rc)
		return entry->rc;
	if (entry->path.ethernet)
		find_neighbour(v, entry, now_us);
	*ret_path = &entry->path;
	return 0;
}

bool netview_may_leave(const struct netview *v, const struct ipaddr *dst, uint32_t scope,
		       const struct ipaddr *src, uint64_t now_us)
{
	const struct nv_path_key key = { *dst, src ? *src : addr_any, scope };

	return !v->only && !nv_path_has(v, &key, now_us);
}

void netview_stats(const struct netview *v, struct netview_stats *ret_stats)
{
	*ret_stats = v->stats;
}
