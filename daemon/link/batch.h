/* SPDX-License-Identifier: Apache-2.0 */
/* Packets on their way to sendmmsg(2): what both kinds of link share. */
#pragma once
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "link/hold.h"
#include "link/link.h"

enum {
	BATCH_MAX = 64, /* packets */
	BATCH_HEAD_MAX = 192, /* octets: vnet, link, IP and TCP headers; or a neighbour's answer */
	BATCH_SPANS = 1 + ARRAY_SIZE(((struct frame_out *)0)->text),
	/* Octets of a frame: less would leave too much of a block empty. */
	BATCH_PIECE_LEAST = 48 << 10,
	/* Packets, until a block is asked for again. */
	BATCH_IN_PAGES = 10000,
};

union batch_name {
	struct sockaddr_ll ll;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

/* One packet. Fill name and name_len, write head; batch_commit() adds the text. */
struct batch_slot {
	union batch_name name;
	uint32_t ip_bytes; /* octets for the counters */
	uint16_t headers; /* hdr_len of one that goes in one piece, were it in pages; 0: it is */
	bool held;
	uint8_t head[BATCH_HEAD_MAX];
};

struct batch {
	unsigned n;
	struct hold *hold; /* of what is large; NULL: nothing. Borrowed */
	uint32_t in_pages; /* so many of the next are, since there was no block for one */
	struct mmsghdr msgs[BATCH_MAX];
	struct iovec iov[BATCH_MAX][BATCH_SPANS];
	struct batch_slot slots[BATCH_MAX];
};

bool batch_has_room(const struct batch *b);
/* The next slot; asserts that there is one. */
struct batch_slot *batch_next(struct batch *b);
/* head_len octets of the slot's head, then f's text, are a packet to slot->name. */
void batch_commit(struct batch *b, uint32_t head_len, uint32_t name_len, const struct frame_out *f);
/* What was committed last, if it is as large as LINK_PIECE_MAX allows and nearly so, has one block of memory in the kernel.
 * Else it has pages, and the kernel copies each by itself: the writes of one have ended before those of the next begin, and
 * 64 KiB take half as long again. Its head begins with a vnet header, which says that all of the packet is headers:
 * those are what the kernel wants in one piece. Is no block free, the packet goes in pages after all.
 */
void batch_one_piece(struct batch *b);
/* Hands all to the kernel and empties the batch. */
void batch_flush(struct batch *b, int fd, struct link_counters *c);
