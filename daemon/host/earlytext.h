/* SPDX-License-Identifier: Apache-2.0 */
/* The early drop as text: what `nft -f` reads is written, what `nft list table` prints is read. Pure, and so
 * tested without root.
 */
#pragma once
#include <stddef.h>
#include <stdio.h>

#include "host/ruletext.h"

enum {
	EARLYTEXT_DEVICES = SHIELD_DEVICES, /* of one chain: the kernel takes fewer than 256 */
};

/* A device name that nft's text can hold and means nothing else there. */
bool earlytext_can_name(const char *device);

/* One transaction for nft -f: our table is made, whatever stood there before, and drops what these rules match
 * on these devices. False: there is nothing to drop (nothing is written then).
 *
 * It drops less than the rules of ruletext_write_apply(), never more. Not dropped are: fragments, which the
 * kernel may put together before the rules see them; IPv6 with extension headers; frames with a VLAN's
 * tag, which are another interface's; frames that the device has only because it listens to everything; and what
 * rules match that have an address and more than one port, of which there are none today.
 *
 * There is one set of ports for the wildcards, and one of addresses with a port, for each family; each member counts.
 * A port of several wildcards is the first one's.
 */
bool earlytext_write(FILE *f, const struct ruletext_names *names, const struct shield_rule *rules,
		     size_t n, const char *const *devices, size_t devices_n);
/* To a table that earlytext_write() made of rules[0..from) what makes it one of rules[0..n): a third of the time,
 * since the kernel need not wait for packets that are under way, and the counts stay. False: it takes a new
 * table; what is written is of no use then. */
bool earlytext_write_more(FILE *f, const struct ruletext_names *names,
			  const struct shield_rule *rules, size_t n, size_t from);
/* Our table away, whether it is there or not. */
void earlytext_write_remove(FILE *f, const struct ruletext_names *names);

/* Is our table in what `nft list tables` printed? */
bool earlytext_is_listed(const char *text, const struct ruletext_names *names);
/* What the table has counted, one for each member of a set: address (addr_any4, addr_any of a wildcard) and
 * ports. text: from nft -n list table. *ret_stats is malloc'ed. 0 or -ENOMEM. What cannot be read is
 * passed over. */
int earlytext_parse(const char *text, struct shield_stat **ret_stats, size_t *ret_n);
