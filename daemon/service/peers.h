/* SPDX-License-Identifier: Apache-2.0 */
/* How many of something each peer's address has: for limits per peer. */
#pragma once
#include <stdint.h>

#include "base/addr.h"

/* Zeroed: empty. Owned by whoever embeds it; peers_fini() at its end. */
struct peers {
	void *tree; /* of tsearch(3): balanced, so a peer cannot choose addresses that collide */
};

void peers_fini(struct peers *p);
/* One more. -EAGAIN: it has `max` already. -ENOMEM. */
int peers_enter(struct peers *p, const struct ipaddr *addr, uint32_t max);
/* One less, of those that entered. */
void peers_leave(struct peers *p, const struct ipaddr *addr);
