/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/own.h"

#include <errno.h>
#include <stdlib.h>

enum { PORTS = 65536 };

struct own_entry {
	struct own_entry *next; /* of the same port */
	struct own_entry *all_next; /* of all */
	struct endpoint ep;
	unsigned owners;
	unsigned readers; /* of them: those who look at what comes */
};

int own_init(struct own *o, uint16_t local_min, uint16_t local_max)
{
	*o = (struct own){ .local_min = local_min, .local_max = local_max };
	o->ports = calloc(PORTS,
			  sizeof(struct own_entry *)); /* pages of ports not used are not touched */
	return o->ports ? 0 : -ENOMEM;
}

void own_fini(struct own *o)
{
	while (o->all) {
		struct own_entry *const entry = o->all;

		o->all = entry->all_next;
		free(entry);
	}
	free((void *)o->ports);
	*o = (struct own){ 0 };
}

static struct own_entry **find(const struct own *o, const struct endpoint *ep)
{
	struct own_entry **at = &o->ports[ep->port];

	while (*at && !addr_eq(&(*at)->ep.addr, &ep->addr))
		at = &(*at)->next;
	return at;
}

int own_add(struct own *o, const struct endpoint *ep, bool reads)
{
	struct own_entry **const at = find(o, ep);

	if (!*at) {
		*at = calloc(1, sizeof(**at));
		if (!*at)
			return -ENOMEM;
		(*at)->ep = *ep;
		(*at)->all_next = o->all;
		o->all = *at;
		o->entries_n++;
	}
	(*at)->owners++;
	(*at)->readers += reads;
	return 0;
}

void own_remove(struct own *o, const struct endpoint *ep, bool reads)
{
	struct own_entry **const at = find(o, ep);
	struct own_entry *const entry = *at;
	struct own_entry **all = &o->all;

	if (!entry)
		return;
	entry->readers -= reads;
	if (--entry->owners)
		return;
	*at = entry->next;
	while (*all != entry)
		all = &(*all)->all_next;
	*all = entry->all_next;
	free(entry);
	o->entries_n--;
}

bool own_has(const struct own *o, const struct endpoint *ep, bool is_local)
{
	for (const struct own_entry *entry = o->ports[ep->port]; entry; entry = entry->next)
		if (addr_matches(&entry->ep.addr, &ep->addr) &&
		    (is_local || !addr_is_any(&entry->ep.addr)))
			return true;
	return is_local && own_is_local_port(o, ep->port);
}

bool own_has_addr(const struct own *o, const struct ipaddr *addr)
{
	for (const struct own_entry *entry = o->all; entry; entry = entry->all_next)
		if (addr_eq(&entry->ep.addr, addr))
			return true;
	return false;
}

bool own_reads(const struct own *o, uint16_t port)
{
	bool reads = own_is_local_port(o, port);

	for (const struct own_entry *entry = o->ports[port]; entry && !reads; entry = entry->next)
		reads = entry->readers > 0;
	return reads;
}

int own_list(const struct own *o, bool all_text, struct link_owned **ret_list, size_t *ret_n)
{
	struct link_owned *const list = calloc(o->entries_n + 1, sizeof(*list));
	size_t n = 0;

	if (!list)
		return -ENOMEM;
	if (o->local_min)
		list[n++] = (struct link_owned){ addr_any, o->local_min, o->local_max, false };
	for (const struct own_entry *entry = o->all; entry; entry = entry->all_next)
		list[n++] = (struct link_owned){ entry->ep.addr, entry->ep.port, entry->ep.port,
						 !all_text && !own_reads(o, entry->ep.port) };
	*ret_list = list;
	*ret_n = n;
	return 0;
}
