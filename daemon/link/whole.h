/* SPDX-License-Identifier: Apache-2.0 */
/* Packets too large for a ring's slot: the kernel queues them on the ring's socket, without a copy, in the order of
 * their slots (packet(7), PACKET_COPY_THRESH). They are read into buffers of ours, the one given back last first: few
 * of them, which stay in the cache, while we keep up; as many as a window needs when the peer does not.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring.h"

enum { WHOLES_MAX = 255 }; /* packets that are held at a time */

struct wholes {
	int fd; /* the ring's; borrowed */
	uint8_t *map; /* owned; memory that was never written takes none */
	uint8_t free[WHOLES_MAX]; /* a stack of buffers */
	uint8_t slot_of[WHOLES_MAX]; /* the buffer of packet number n, at n % WHOLES_MAX */
	uint32_t held; /* packets that were taken and not given back */
	uint64_t taken; /* packets taken; the last one's number is that */
};

/* For a socket with PACKET_VNET_HDR, whose ring is there already; its SO_RCVBUF is what may be queued. -Exxx. */
int wholes_init(struct wholes *w, int fd);
void wholes_fini(struct wholes *w);
/* Is there a buffer for one more? */
bool wholes_have_room(const struct wholes *w);
/* The packet whose slot is *p, which says that it is queued: p->frame and p->len become the whole one's, until
 * wholes_release(). wholes_have_room() has said so. Its text, text_at octets from its beginning, comes to lie at the
 * beginning of a cache line. False: the kernel has it no more. */
bool wholes_take(struct wholes *w, struct ring_packet *p, uint32_t text_at);
/* Gives back all packets before this one; 0: all. */
void wholes_release(struct wholes *w, uint64_t first_kept);
/* Returns the memory of the buffers, when none is held. */
void wholes_trim(struct wholes *w);
