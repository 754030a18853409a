/* SPDX-License-Identifier: Apache-2.0 */
/* The timer queue: a hierarchical timing wheel on microseconds (Varghese and Lauck 1987), 64 slots
 * a level, one bitmap per level. Setting, clearing and finding the earliest are O(1); a node is
 * moved down at most once per level.
 *
 * A node is placed by the highest 6-bit digit in which its instant differs from the wheel's own: all
 * nodes of a level are earlier than all nodes of the levels above, and within a level the lowest set
 * bit is the earliest slot.
 */
#pragma once
#include "tcp/list.h"
#include "tcp/vtime.h"

enum { WHEEL_LEVELS = 11, WHEEL_SLOTS = 64 };

struct timer_node {
	struct link link;
	vtime at; /* meaningful while linked */
	uint16_t slot; /* level * WHEEL_SLOTS + index, while linked */
	uint32_t conn; /* its owner's: the wheel does not look at it */
};

struct wheel {
	vtime now; /* how far it has turned */
	uint64_t used[WHEEL_LEVELS]; /* bit i: slot i holds a node */
	struct link slots[WHEEL_LEVELS * WHEEL_SLOTS];
};

void wheel_init(struct wheel *w, vtime now);
/* Sets the node's instant, whether it ran before or not. An instant that has passed is due at once. */
void wheel_set(struct wheel *w, struct timer_node *n, vtime at);
void wheel_clear(struct wheel *w, struct timer_node *n);
/* The next node that is due at `now`, taken off the wheel; NULL when none is left. */
struct timer_node *wheel_expire(struct wheel *w, vtime now);
/* A lower bound of the earliest instant, exact when few nodes share its slot. VTIME_NEVER: empty. */
vtime wheel_deadline(const struct wheel *w);

/* `to` runs in the place of `from`, if that runs. */
static inline void timer_node_move(struct timer_node *from, struct timer_node *to)
{
	to->at = from->at;
	to->slot = from->slot;
	to->conn = from->conn;
	list_replace(&from->link, &to->link);
}

static inline bool timer_node_runs(const struct timer_node *n)
{
	return link_is_linked(&n->link);
}
