/* SPDX-License-Identifier: Apache-2.0 */
/* A receive ring of a packet socket: packet(7), PACKET_RX_RING with TPACKET_V2 and PACKET_VNET_HDR. The
 * kernel copies each packet into the next slot, in the context it arrives in, and we read it there: no
 * system call and no second copy. A slot is one packet's, so a packet is seen as soon as it is in.
 */
#pragma once
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring {
	int fd; /* the socket; borrowed */
	uint8_t *map; /* owned; NULL: there is none */
	size_t map_bytes;
	uint32_t slot_bytes, slots_n;
	uint32_t piece_bytes, group; /* of memory in one piece; slots in it */
	uint32_t next; /* the slot that is filled next, as far as we know */
	uint32_t held; /* slots before it that were taken and not given back */
};

/* A packet in its slot: valid until ring_release() gives it back. */
struct ring_packet {
	const uint8_t *frame; /* with its link header */
	uint32_t len; /* octets in the slot */
	uint32_t
		wire_len; /* octets it had: more when the filter or the slot did not want them all */
	bool queued; /* the slot was too small, and all of it waits on the socket: whole.h */
	const struct sockaddr_ll *from;
	struct virtio_net_hdr vnet;
	uint64_t at_ns; /* CLOCK_REALTIME, when it came */
};

/* Makes it for a socket with PACKET_VNET_HDR set, before bind(). slots of slot_bytes, a multiple of 16, in pieces of
 * memory of piece_bytes, a multiple of a page's; fewer slots when the last piece would not be full. Where memory is
 * short, half as many slots, and so on. -Exxx.
 */
int ring_init(struct ring *r, int fd, uint32_t slot_bytes, uint32_t slots, uint32_t piece_bytes);
void ring_fini(struct ring *r);
/* Does a packet wait? */
bool ring_ready(const struct ring *r);
/* Do more than n wait, of those that ring_init() made room for? */
bool ring_waits(const struct ring *r, uint32_t n);
/* Octets of a frame that surely fit a slot. */
uint32_t ring_fits(uint32_t slot_bytes);
/* The packet that waits; ring_ready() has said so. */
void ring_peek(const struct ring *r, struct ring_packet *ret);
void ring_take(struct ring *r);
/* Gives back the slots of all packets taken. */
void ring_release(struct ring *r);
