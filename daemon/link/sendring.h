/* SPDX-License-Identifier: Apache-2.0 */
/* A send ring of a packet socket: packet(7), PACKET_TX_RING with TPACKET_V2, PACKET_VNET_HDR and PACKET_TX_HAS_OFF.
 * For super-segments of one text that repeats and never changes: chargen's.
 *
 * The kernel sends from a slot's pages instead of a copy, and they may be read long after it has called the slot free.
 * So the text is in every slot from the beginning and is never written again. What differs from packet to packet
 * stands in front of it, and that the kernel copies: its vnet header says how far the headers go (hdr_len).
 *
 *	| slot header | free | vnet, Ethernet, IP, TCP | text up to where it repeats | the text from its beginning |
 *	                      <----------------- copied by the kernel -------------> <-- sent from these pages -->
 *
 * Below a veth the kernel copies the pages after all, into pages of its own, one by one: that costs less than a copy
 * from user space, since the pages that it gets so are not those that the reader has only just let go.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "link/link.h"

enum {
	SENDRING_SLOTS = 16,
	SENDRING_PERIOD_MAX = 7680, /* octets */
};

struct sendring {
	int fd; /* the socket; borrowed */
	uint8_t *map; /* owned; NULL: it is not made yet, or given up */
	bool given_up; /* the kernel cannot do it, or did not take what we gave it */
	struct link_pattern pattern; /* bytes: borrowed; NULL: none */
	uint32_t next; /* the slot that is filled next */
	unsigned pending; /* slots before it that the kernel has not taken */
	uint32_t ip_bytes[SENDRING_SLOTS]; /* octets of each one's IP packet, for the counters */
	uint32_t ifindex; /* where those that are pending go, and by which protocol: */
	bool ipv6; /* a call has one of each */
};

/* For a socket with PACKET_VNET_HDR set that receives nothing and sends nothing else. Without a pattern nothing suits. */
void sendring_init(struct sendring *r, int fd);
/* A pattern of more than SENDRING_PERIOD_MAX octets does not suit either. */
void sendring_set_pattern(struct sendring *r, const struct link_pattern *pattern);
void sendring_fini(struct sendring *r);
/* Is this an Ethernet super-segment whose text is the pattern's, so much that a slot is worth it? */
bool sendring_suits(const struct sendring *r, const struct frame_out *f);
/* Is a slot free, and does what is pending go where f goes? If not, sendring_flush() may help. Makes the ring when it is
 * asked first; where memory is short for it, or the kernel cannot do it, there is never room.
 */
bool sendring_has_room(struct sendring *r, const struct frame_out *f);
/* Puts f, which suits, into the next slot, which is free. head_len octets of head are its vnet header, whose hdr_len is
 * changed, and all headers behind it.
 */
void sendring_put(struct sendring *r, const struct frame_out *f, const uint8_t *head,
		  uint32_t head_len);
/* Hands what is pending to the kernel. What it refuses is counted and dropped. */
void sendring_flush(struct sendring *r, struct link_counters *c);
