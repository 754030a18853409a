/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive doubly linked lists: what is ready, what waits, what is oldest. A link of zeros is on
 * no list.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct link {
	struct link *prev, *next;
};

/* The object that `link` is the member `field` of. */
#define LINK_OWNER(link, type, field) ((type *)(void *)((char *)(link)-offsetof(type, field)))

static inline void list_init(struct link *head)
{
	head->prev = head->next = head;
}

static inline bool link_is_linked(const struct link *l)
{
	return l->next;
}

static inline struct link *list_first(const struct link *head)
{
	return head->next == head ? NULL : head->next;
}

/* At the end of the list; nothing when it is on one. */
static inline void list_append(struct link *head, struct link *l)
{
	if (link_is_linked(l))
		return;
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

/* At its beginning; nothing when it is on one. */
static inline void list_prepend(struct link *head, struct link *l)
{
	list_append(head->next, l);
}

/* Nothing when it is on no list. */
static inline void list_remove(struct link *l)
{
	if (!link_is_linked(l))
		return;
	l->prev->next = l->next;
	l->next->prev = l->prev;
	l->prev = l->next = NULL;
}

/* `by` takes the place of `l`, which is on no list from then on. */
static inline void list_replace(struct link *l, struct link *by)
{
	*by = *l;
	if (!link_is_linked(l))
		return;
	by->prev->next = by->next->prev = by;
	l->prev = l->next = NULL;
}
