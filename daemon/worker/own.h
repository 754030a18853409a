/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker owns: addresses and ports of listeners (draining ones included), those that a
 * connection of ours has taken, and the range of local ports. Segments for anything else are somebody
 * else's: never answered. Counted, since a draining listener and its successor share an address.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "link/link.h"

struct own_entry;

struct own {
	struct own_entry **ports; /* 65536 chains; owned */
	struct own_entry *all; /* owns the entries */
	size_t entries_n; /* distinct endpoints */
	uint16_t local_min, local_max; /* inclusive; 0: no range */
};

int own_init(struct own *o, uint16_t local_min, uint16_t local_max);
void own_fini(struct own *o);
/* One more, one less owner of an endpoint, who reads what comes there or not. 0 or -ENOMEM. */
int own_add(struct own *o, const struct endpoint *ep, bool reads);
void own_remove(struct own *o, const struct endpoint *ep, bool reads);
/* Does anybody read what comes to this port, at any address? */
bool own_reads(const struct own *o, uint16_t port);
/* Is a segment to `ep` ours? is_local: the kernel has the address. One that it does not have is ours
 * only when an owner names it: a wildcard owns nothing beyond this machine. */
bool own_has(const struct own *o, const struct endpoint *ep, bool is_local);
static inline bool own_is_local_port(const struct own *o, uint16_t port)
{
	return o->local_min && port >= o->local_min && port <= o->local_max;
}
/* Does an owner name this very address? */
bool own_has_addr(const struct own *o, const struct ipaddr *addr);
/* Everything, for the link's filter; *ret_list is malloc'ed. all_text: also what nobody reads. */
int own_list(const struct own *o, bool all_text, struct link_owned **ret_list, size_t *ret_n);
