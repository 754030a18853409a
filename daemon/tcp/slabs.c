/* SPDX-License-Identifier: Apache-2.0 */
#include "slabs.h"

#include <assert.h>
#include <string.h>

enum { UNITS = SLAB_BYTES / SLAB_UNIT };

void slabs_init(struct slabs *s, uint8_t *bytes, struct slab *all, uint32_t max)
{
	s->bytes = bytes;
	s->all = all;
	s->max = max;
}

uint32_t slabs_for(uint32_t n, uint32_t size)
{
	const uint32_t each = SLAB_BYTES / size;

	return n / each + 1;
}

static struct slab *at(const struct slabs *s, uint32_t id)
{
	return &s->all[id - 1];
}

static void list_put(struct slabs *s, uint32_t *head, uint32_t id)
{
	at(s, id)->prev = 0;
	at(s, id)->next = *head;
	if (*head)
		at(s, *head)->prev = id;
	*head = id;
}

static void list_take(struct slabs *s, uint32_t *head, uint32_t id)
{
	struct slab *const b = at(s, id);

	if (b->prev)
		at(s, b->prev)->next = b->next;
	else
		*head = b->next;
	if (b->next)
		at(s, b->next)->prev = b->prev;
}

/* An empty slab for the class: one that still has its memory, one that was given back, a new one. */
static uint32_t slab_take(struct slabs *s, uint8_t class)
{
	uint32_t id;

	if (s->empty) {
		id = s->empty;
		list_take(s, &s->empty, id);
		s->empty_n--;
		s->idle = s->idle < s->empty_n ? s->idle : s->empty_n;
	} else if (s->returned) {
		id = s->returned;
		list_take(s, &s->returned, id);
	} else if (s->fresh < s->max) {
		id = ++s->fresh;
	} else {
		return 0;
	}
	*at(s, id) = (struct slab){ .class = class };
	list_put(s, &s->room[class], id);
	return id;
}

static uint8_t *object(const struct slabs *s, uint32_t id, uint16_t i)
{
	return s->bytes + (size_t)(id - 1) * SLAB_BYTES + (size_t)i * s->sizes[at(s, id)->class];
}

/* The class of so many octets; SLAB_CLASSES: none. */
static uint8_t class_of(const struct slabs *s, uint32_t bytes)
{
	uint8_t c = 0;

	while (c < SLAB_CLASSES && s->sizes[c] < bytes)
		c = s->sizes[c] ? (uint8_t)(c + 1) : SLAB_CLASSES;
	return c;
}

uint32_t slabs_take(struct slabs *s, uint32_t bytes)
{
	const uint8_t class = class_of(s, bytes);
	uint32_t id = class < SLAB_CLASSES ? s->room[class] : 0;
	struct slab *b;
	uint16_t i;

	if (!id && class < SLAB_CLASSES)
		id = slab_take(s, class);
	if (!id)
		return 0;
	b = at(s, id);
	if (b->free) {
		i = (uint16_t)(b->free - 1);
		memcpy(&b->free, object(s, id, i), sizeof(b->free));
	} else {
		i = b->fresh++;
	}
	if (++b->used == SLAB_BYTES / s->sizes[class])
		list_take(s, &s->room[class], id);
	s->used++;
	s->used_bytes += s->sizes[class];
	return (id - 1) * UNITS + (uint32_t)i * (s->sizes[class] / SLAB_UNIT) + 1;
}

void slabs_put(struct slabs *s, uint32_t ref)
{
	const uint32_t id = (ref - 1) / UNITS + 1;
	struct slab *const b = at(s, id);
	const uint16_t size = s->sizes[b->class];
	const uint16_t i = (uint16_t)((ref - 1) % UNITS / (size / SLAB_UNIT));

	assert(b->used);
	if (b->used-- == SLAB_BYTES / size)
		list_put(s, &s->room[b->class], id);
	memcpy(object(s, id, i), &b->free, sizeof(b->free));
	b->free = (uint16_t)(i + 1);
	s->used--;
	s->used_bytes -= size;
	if (b->used)
		return;
	list_take(s, &s->room[b->class], id);
	b->free = b->fresh = 0;
	list_put(s, &s->empty, id);
	s->empty_n++;
}

void *slabs_return(struct slabs *s, uint32_t keep)
{
	const uint32_t id = s->empty;

	if (s->idle <= keep)
		return NULL;
	s->idle--;
	list_take(s, &s->empty, id);
	s->empty_n--;
	list_put(s, &s->returned, id);
	return s->bytes + (size_t)(id - 1) * SLAB_BYTES;
}

uint32_t slabs_next(const struct slabs *s, uint32_t *cursor)
{
	const uint32_t each = SLAB_BYTES / s->sizes[0];

	while (*cursor / each < s->fresh) {
		const uint32_t id = *cursor / each + 1, i = *cursor % each;

		if (i < at(s, id)->fresh) {
			++*cursor;
			return (id - 1) * UNITS + i * (s->sizes[0] / SLAB_UNIT) + 1;
		}
		*cursor = id * each;
	}
	return 0;
}
