/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's view of the network, kept up to date over netlink (libnl): addresses, links, routes,
 * neighbours. One per worker; one thread uses it. Lookups answer from memory; a destination seen for
 * the first time costs one RTM_GETROUTE round trip (the kernel does policy and multipath routing),
 * then it is cached until a route, address or link changes. The cache is bounded.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/errmsg.h"

struct netview;

struct netview_stats {
	uint64_t paths_asked; /* RTM_GETROUTE round trips */
	uint64_t paths_evicted, neighs_evicted; /* a table was full where a newcomer belongs */
	uint64_t overruns; /* the kernel dropped events; everything was read anew */
};

/* How packets to a destination leave. */
struct path {
	uint32_t ifindex;
	uint16_t mtu; /* of the route or the interface, clipped to 65535 */
	bool loopback; /* by lo: send by raw IP */
	bool ethernet; /* the interface has Ethernet headers */
	bool neigh_known; /* dst_mac is usable now; else send by raw IP and let the kernel resolve */
	bool offload; /* the interface does checksum and segmentation, or the kernel for it */
	uint8_t src_mac[6], dst_mac[6];
	struct ipaddr src; /* preferred source address, MUST-44 */
};

/* only: names of interfaces to use, NULL-terminated; NULL for any. */
int netview_new(const char *const *only, struct netview **ret_view, struct errmsg *ret_err);
/* One that knows interfaces and addresses and nothing else: of no use for neighbours and paths. */
int netview_new_addresses(const char *const *only, struct netview **ret_view,
			  struct errmsg *ret_err);
void netview_free(struct netview *v);
/* Poll readable, then netview_update(): reads what changed. It re-reads everything after an overrun
 * (ENOBUFS). True when addresses changed, so that the caller can look again at what it owns. */
int netview_fd(const struct netview *v);
bool netview_update(struct netview *v, uint64_t now_us);

/* Is this a unicast address of this machine (on an interface we may use)? 127.0.0.0/8 is. */
bool netview_is_local(const struct netview *v, const struct ipaddr *a);
/* All of these but 127.0.0.0/8, each once. *at: 0 at first, moved on. False: there are no more. */
bool netview_next_local(const struct netview *v, size_t *at, struct ipaddr *ret_addr);
/* Subnet broadcast of one of our networks? (MUST-46, MUST-57) */
bool netview_is_subnet_broadcast(const struct netview *v, const struct ipaddr *a);
/* May frames that came by this interface be for us? Not when it is a port of a bridge or bond (the
 * upper device shows them again), nor when it is not one of `only`. */
bool netview_uses_interface(const struct netview *v, uint32_t ifindex);
/* Counts changes of links, addresses and routes: when it stands still, so do they. */
uint64_t netview_generation(const struct netview *v);
uint16_t netview_link_mtu(const struct netview *v, uint32_t ifindex); /* 0: unknown interface */
const char *netview_link_name(const struct netview *v, uint32_t ifindex); /* "?" when unknown */
/* Another number when an interface of this index went and one came again, also of the same name; 0: unknown interface. */
uint64_t netview_link_made(const struct netview *v, uint32_t ifindex);
bool netview_link_mac(const struct netview *v, uint32_t ifindex, uint8_t ret_mac[6]);
/* Interfaces whose frames for this machine's addresses reach this machine's IP and nobody else on the way: not
 * lo, none with a master (a bridge, a bond, a VRF), none from which another takes frames (macvlan and the
 * like). *at: 0 at first, moved on. 0: there are no more. */
uint32_t netview_next_direct(const struct netview *v, size_t *at);
/* The network of an address no kernel owns: is `a` on-link at ifindex by one of its prefixes? For
 * answering ARP and ND with Shield=none. */
bool netview_is_onlink(const struct netview *v, uint32_t ifindex, const struct ipaddr *a);

/* The path to dst. scope: interface index for link-local dst, else 0. src: the source address the
 * packet will have, NULL when none is chosen yet. 0, -ENETUNREACH, -EHOSTUNREACH (kernel's answer).
 * The answer holds until the next call on v. A neighbour that the kernel has not confirmed for a
 * while comes back as !neigh_known now and then, so that the kernel sees traffic and checks it.
 */
int netview_path(struct netview *v, const struct ipaddr *dst, uint32_t scope,
		 const struct ipaddr *src, uint64_t now_us, const struct path **ret_path);
/* May a single packet to dst be left to the kernel's routing? When its path is not known yet, and any
 * interface may be used. */
bool netview_may_leave(const struct netview *v, const struct ipaddr *dst, uint32_t scope,
		       const struct ipaddr *src, uint64_t now_us);
void netview_stats(const struct netview *v, struct netview_stats *ret_stats);
