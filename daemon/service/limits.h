/* SPDX-License-Identifier: Apache-2.0 */
/* What the services of one listener count together, in whatever worker they are: its limits are of all of them, and
 * what one finds out about a relay's backend all know. With the mailboxes it is all that workers share; who waits here
 * for another waits for a look into a tree.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

enum limits_of_peer { LIMIT_CONNECTIONS, LIMIT_PROCESSES, LIMITS_OF_PEER };

/* exec: [0] is its processes; relay: [i] the connections to its backend i. */
enum { LIMITS_COUNTERS = 16 };

/* Counted: each worker's service holds it. */
struct limits;

struct limits *limits_new(void); /* NULL: no memory */
struct limits *limits_ref(struct limits *l);
void limits_unref(struct limits *l); /* NULL is nothing */

/* One more of this peer's. -EAGAIN: it has `max` already. -ENOMEM. */
int limits_enter(struct limits *l, enum limits_of_peer what, const struct ipaddr *peer,
		 uint32_t max);
void limits_leave(struct limits *l, enum limits_of_peer what, const struct ipaddr *peer);

/* One more, unless there are `max`; 0: no limit. */
bool limits_take(struct limits *l, unsigned counter, uint32_t max);
void limits_give(struct limits *l, unsigned counter);
uint32_t limits_count(const struct limits *l, unsigned counter);

/* relay: its backend i failed: until then (engine's time, which all workers have alike) it is tried behind the others.
 * 0 at first. */
void limits_set_down(struct limits *l, unsigned backend, uint64_t until_us);
uint64_t limits_down_until_us(const struct limits *l, unsigned backend);
