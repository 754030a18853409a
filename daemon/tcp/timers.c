/* SPDX-License-Identifier: Apache-2.0 */
#include "timers.h"

enum { DIGIT_BITS = 6, SCAN_MAX = 16 };

void wheel_init(struct wheel *w, vtime now)
{
	w->now = now;
	for (unsigned i = 0; i < WHEEL_LEVELS; i++)
		w->used[i] = 0;
	for (unsigned i = 0; i < WHEEL_LEVELS * WHEEL_SLOTS; i++)
		list_init(&w->slots[i]);
}

static void place(struct wheel *w, struct timer_node *n)
{
	/* What has passed already belongs to the slot that is looked at next. */
	const uint64_t at = vtime_before(n->at, w->now) ? w->now.us : n->at.us;
	const uint64_t differ = at ^ w->now.us;
	const unsigned level = differ ? (63 - (unsigned)__builtin_clzll(differ)) / DIGIT_BITS : 0;
	const unsigned slot = (unsigned)(at >> (level * DIGIT_BITS)) % WHEEL_SLOTS;

	n->slot = (uint16_t)(level * WHEEL_SLOTS + slot);
	list_append(&w->slots[n->slot], &n->link);
	w->used[level] |= 1ULL << slot;
}

void wheel_clear(struct wheel *w, struct timer_node *n)
{
	if (!timer_node_runs(n))
		return;
	list_remove(&n->link);
	if (!list_first(&w->slots[n->slot]))
		w->used[n->slot / WHEEL_SLOTS] &= ~(1ULL << (n->slot % WHEEL_SLOTS));
}

void wheel_set(struct wheel *w, struct timer_node *n, vtime at)
{
	wheel_clear(w, n);
	n->at = at;
	place(w, n);
}

/* The earliest slot in use and the instant it begins; false when the wheel is empty. */
static bool earliest(const struct wheel *w, unsigned *ret_level, unsigned *ret_slot, vtime *ret_at)
{
	for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
		const unsigned shift = level * DIGIT_BITS;
		uint64_t above, slot;

		if (!w->used[level])
			continue;
		slot = (uint64_t)__builtin_ctzll(w->used[level]);
		/* The digits above this level's are the wheel's own; the top level has none. */
		above = shift + DIGIT_BITS >= 64
				? 0
				: w->now.us >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS);
		*ret_level = level;
		*ret_slot = (unsigned)slot;
		*ret_at = (vtime){ above | slot << shift };
		return true;
	}
	return false;
}

/* The wheel has come to this slot: its nodes go to the levels below. */
static void cascade(struct wheel *w, unsigned level, unsigned slot)
{
	struct link *head = &w->slots[level * WHEEL_SLOTS + slot];
	struct link *l;

	w->used[level] &= ~(1ULL << slot);
	while ((l = list_first(head))) {
		list_remove(l);
		place(w, LINK_OWNER(l, struct timer_node, link));
	}
}

struct timer_node *wheel_expire(struct wheel *w, vtime now)
{
	unsigned level, slot;
	vtime at;

	while (earliest(w, &level, &slot, &at) && !vtime_before(now, at)) {
		if (vtime_before(w->now, at))
			w->now = at;
		if (level == 0) {
			struct link *l = list_first(&w->slots[slot]);
			struct timer_node *n = LINK_OWNER(l, struct timer_node, link);

			wheel_clear(w, n);
			return n;
		}
		cascade(w, level, slot);
	}
	if (vtime_before(w->now, now))
		w->now = now;
	return NULL;
}

vtime wheel_deadline(const struct wheel *w)
{
	unsigned level, slot, n = 0;
	vtime at, least = VTIME_NEVER;
	const struct link *head;

	if (!earliest(w, &level, &slot, &at))
		return VTIME_NEVER;
	head = &w->slots[level * WHEEL_SLOTS + slot];
	for (const struct link *l = head->next; l != head; l = l->next) {
		const struct timer_node *node =
			(const struct timer_node *)(const void *)((const char *)l -
								  offsetof(struct timer_node,
									   link));

		if (n++ == SCAN_MAX)
			return at; /* a crowd: waking up early to move it down is cheaper */
		least = vtime_min(least, node->at);
	}
	return least;
}
