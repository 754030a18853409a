/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of netview: its tables, and the functions that its files share. nv_tables.c holds what the
 * kernel told, nv_netlink.c asks and listens, netview.c answers.
 */
#pragma once
#include <net/if.h>
#include <stddef.h>

#include "host/netview.h"

struct nl_sock;

enum {
	NV_WAYS = 4, /* entries that share a place of the neighbour and path tables */
	NV_NEIGHS = 65536,
	NV_PATHS = 65536,
	NV_BUFFER_BYTES = 65536,
};

#define NV_HINT_US \
	5000000ULL /* at most this often a lookup sends the kernel to check a neighbour */
#define NV_NEGATIVE_US 1000000ULL /* how long "no route" is believed */
#define NV_PATH_US     60000000ULL /* how long a route is: the kernel's PMTU entries make no events */

struct nv_link {
	uint32_t ifindex;
	uint64_t made; /* how many had come, with it; set by nv_link_put() */
	char name[IF_NAMESIZE];
	uint32_t mtu;
	uint8_t mac[6]; /* when ethernet */
	bool ethernet, loopback, up;
	bool port; /* of a bridge or the like: the upper device shows its frames again */
	bool owned; /* it has a master of any kind */
	uint32_t takes_from; /* the interface whose frames it takes before IP sees them; 0: none */
	bool wanted; /* by `only` */
};

struct nv_addr {
	uint32_t ifindex;
	struct ipaddr addr;
	struct ipaddr prefix; /* of the network: the peer's address on point-to-point links */
	uint8_t len; /* of prefix, in bits of its own family */
	bool usable; /* not tentative, not a duplicate */
	struct ipaddr broadcast; /* addr_any: none was given */
};

/* A hash set of addresses; :: marks a free slot, which no member is. */
struct nv_set {
	struct ipaddr *slots;
	size_t mask; /* slots - 1; 0 with slots NULL: empty */
};

struct nv_neigh {
	struct ipaddr addr;
	uint32_t ifindex; /* 0: free */
	uint8_t mac[6];
	bool confirmed; /* REACHABLE, PERMANENT, NOARP; else the kernel has doubts */
	uint64_t hinted_us; /* when a lookup last sent the kernel to check */
};

struct nv_path_key {
	struct ipaddr dst, src; /* src addr_any: none asked */
	uint64_t scope;
};

struct nv_path {
	struct nv_path_key key;
	uint64_t generation; /* of the netview when asked; 0: free */
	uint64_t until_us;
	int rc; /* 0, or the kernel's refusal */
	struct path path;
	/* path's MAC address is a confirmed one, and this was the netview's count then; 0: it is not. */
	uint64_t neigh_generation;
	struct ipaddr next_hop; /* on Ethernet: whose MAC address is needed */
};

struct netview {
	struct nl_sock *events, *requests;
	char **only; /* NULL-terminated; NULL: any interface */
	uint64_t key[2]; /* of the hashes: peers choose what is looked up */
	uint64_t generation; /* counts what may change a route */
	bool addresses_changed; /* since the last netview_update() */
	bool stale; /* events were lost and not made up for yet */
	bool loopback_wanted;
	bool no_paths; /* nothing of them is kept, nor of neighbours */

	struct nv_link *links; /* by ifindex, ascending */
	size_t links_n;
	uint64_t links_made; /* ever */
	struct nv_addr *addrs;
	size_t addrs_n;
	struct nv_set local, broadcast; /* made from addrs */

	struct nv_neigh *neighs; /* NV_NEIGHS, NV_WAYS to a place */
	uint64_t neigh_generation; /* counts what is heard of neighbours; from 1 */
	bool neighs_used; /* something was put there since the last clearing */
	struct nv_path *paths; /* NV_PATHS, likewise */
	struct nv_path *path_last; /* the last hit; NULL: none yet */
	unsigned turn; /* whose turn it is to be evicted */
	struct netview_stats stats;
	uint8_t *buffer; /* NV_BUFFER_BYTES: a datagram of the kernel */
};

/* A route as the kernel answered. */
struct nv_route {
	uint32_t ifindex;
	uint32_t mtu; /* 0: the interface's */
	bool local; /* the destination is this machine */
	bool encap; /* a tunnel that only the kernel's output path enters */
	struct ipaddr next_hop; /* the gateway or the destination */
	struct ipaddr src; /* addr_any: the kernel had none */
};

/* nv_tables.c */
const struct nv_link *nv_link_find(const struct netview *v, uint32_t ifindex);
int nv_link_put(struct netview *v, const struct nv_link *link);
void nv_link_delete(struct netview *v, uint32_t ifindex);
int nv_addr_put(struct netview *v, const struct nv_addr *addr);
void nv_addr_delete(struct netview *v, const struct nv_addr *addr);
int nv_sets_rebuild(struct netview *v);
bool nv_set_has(const struct nv_set *set, const struct ipaddr *a);
struct nv_neigh *nv_neigh_find(const struct netview *v, uint32_t ifindex, const struct ipaddr *a);
void nv_neigh_put(struct netview *v, const struct nv_neigh *neigh);
void nv_neigh_delete(struct netview *v, uint32_t ifindex, const struct ipaddr *a);
/* Is there a match that holds? */
bool nv_path_has(const struct netview *v, const struct nv_path_key *key, uint64_t now_us);
/* A match that holds, or the slot to fill: then *ret_hit is false and its key is set. */
struct nv_path *nv_path_slot(struct netview *v, const struct nv_path_key *key, uint64_t now_us,
			     bool *ret_hit);
void nv_tables_clear(struct netview *v);
void nv_tables_fini(struct netview *v);

/* nv_netlink.c */
int nv_netlink_open(struct netview *v);
void nv_netlink_close(struct netview *v);
/* Everything anew. On failure v->stale is left set. */
int nv_netlink_resync(struct netview *v);
/* What waits in the event socket, up to a limit. -ENOBUFS: events were lost. */
int nv_netlink_events(struct netview *v);
/* src: addr_any for none. */
int nv_netlink_route(struct netview *v, const struct ipaddr *dst, uint32_t scope,
		     const struct ipaddr *src, struct nv_route *ret_route);
