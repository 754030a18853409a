/* SPDX-License-Identifier: Apache-2.0 */
/* Objects of a few sizes in one arena, cut into slabs of SLAB_BYTES with objects of one size each. A slab
 * whose last object went is told to the driver, which may give its memory back to the system.
 *
 * Objects are named by their place, in units of SLAB_UNIT, + 1; 0 is none.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SLAB_BYTES = 65536, SLAB_UNIT = 16, SLAB_CLASSES = 16 };

/* Slabs are named by index + 1; 0 is none. */
struct slab {
	uint32_t prev,
		next; /* in its list: of its class with room, or of those without an object */
	uint16_t used, fresh; /* objects; those below fresh were used since it was empty */
	uint16_t free; /* index + 1; the object's first two octets name the next */
	uint8_t class;
};

struct slabs {
	uint8_t *bytes;
	struct slab *all;
	uint32_t max, fresh; /* slabs; those below fresh were used at some time */
	uint16_t sizes
		[SLAB_CLASSES]; /* octets of an object, ascending, multiples of SLAB_UNIT; 0 ends */
	uint32_t room[SLAB_CLASSES]; /* slabs with room */
	uint32_t empty, empty_n; /* without an object, their memory still held */
	uint32_t idle; /* of them, those that were not needed since slabs_look() */
	uint32_t returned; /* without an object, and without memory */
	uint32_t used; /* objects */
	uint64_t used_bytes; /* in them, as their classes have it */
};

void slabs_init(struct slabs *s, uint8_t *bytes, struct slab *all, uint32_t max);
/* How many slabs n objects of `size` fill. */
uint32_t slabs_for(uint32_t n, uint32_t size);
/* 0: no slab is left, or no class is so large. The object's content is undefined. */
uint32_t slabs_take(struct slabs *s, uint32_t bytes);
void slabs_put(struct slabs *s, uint32_t ref);
/* A slab that was not needed since slabs_look(): from now on its content is taken for undefined. At least
 * `keep` of them stay. NULL: there is none. */
void *slabs_return(struct slabs *s, uint32_t keep);
/* Walks the places that may hold an object of class 0, where that is the only one: from *cursor (0 to
 * start). 0 ends. A place may be free: who walks finds out. */
uint32_t slabs_next(const struct slabs *s, uint32_t *cursor);

static inline void slabs_look(struct slabs *s)
{
	s->idle = s->empty_n;
}

static inline void *slabs_at(const struct slabs *s, uint32_t ref)
{
	return s->bytes + (size_t)(ref - 1) * SLAB_UNIT;
}
