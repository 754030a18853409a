/* SPDX-License-Identifier: Apache-2.0 */
/* Which SYNs are dropped when they come faster than they can be answered. To look at one costs a tenth of
 * what an answer costs, so all are looked at, and the receive ring stays short enough for everybody else.
 *
 * Always answered is who has completed a handshake lately: nobody does that with an address that is not his;
 * and a SYN that comes again, as that of who waits for an answer does after a second. Of the others those
 * go first from whose network most came: the networks that sent least, together no more than can be answered
 * beside everything else, are answered. When it is worse, no more than so many at all.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "link/link.h"

enum {
	SHED_KNOWN_BITS = 1 << 19, /* addresses are told apart as long as they are far fewer */
	SHED_KNOWN_US = 300000000, /* an address is known for so long, up to twice */
	SHED_SEEN_BITS = 1 << 24,
	SHED_SEEN_US = 2000000, /* the same for a SYN that was dropped */
	SHED_NETS = 1 << 12,
	SHED_ROWS = 2,
	SHED_TURN_US = 100000,
	SHED_FEW =
		1000, /* strangers in a turn that are answered in any case: a twentieth of a core */
	SHED_COUNT_TURNS = 10, /* SYNs of a network count half after so many */
	SHED_NET_SYNS = 16, /* of a network lately: so many are never of a flood */
};

/* What was put into it lately, told by hashes: now and then also what was not. */
struct shed_set {
	uint64_t *newer, *older; /* owned bitmaps */
	uint64_t turned_us; /* when the newer began */
	uint64_t turn_us;
	uint32_t bits;
};

struct shed {
	uint64_t key[2];
	struct shed_set known; /* hosts that completed a handshake */
	struct shed_set seen; /* flows whose SYN was dropped */
	uint64_t turned_us; /* when this turn began */
	unsigned turns; /* since the counts were halved */
	uint16_t nets[SHED_ROWS]
		     [SHED_NETS]; /* SYNs by keyed hashes of the network: the least is its */
	unsigned net_syns; /* of a network lately: more are of a flood */
	uint32_t few; /* answered in this turn though it was full */
	uint64_t dropped; /* by shed_drops() */
};

/* Memory of 4.2 MiB, touched as it is needed. 0, -ENOMEM, -EIO: no random key. */
int shed_init(struct shed *s);
void shed_fini(struct shed *s);
/* Times are of a clock that does not go back. This host completed a handshake. */
void shed_know(struct shed *s, const struct ipaddr *a, uint64_t now_us);
/* Is this flow's SYN to be dropped? Counts it. */
bool shed_drops(struct shed *s, const struct flow *f, enum link_pressure pressure, uint64_t now_us);
