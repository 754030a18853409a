/* SPDX-License-Identifier: Apache-2.0 */
/* Text that was sent and is kept in the kernel for a while, so that the next is written elsewhere. The page allocator hands out
 * first what was freed last. A receiver on this machine frees a packet's pages when it has read them, and the next packet gets
 * them while their lines are still in the other core's cache: a copy into them takes two to three times as long.
 *
 * What keeps them is the packet itself, which waits as a transmit timestamp on the error queue of the socket that sent it
 * (SO_TIMESTAMPING, Documentation/networking/timestamping.rst; with its text, by net.core.tstamp_allow_data). It is asked for by
 * packet and costs others nothing. Where the kernel does not do it nothing is kept, and all else is as before.
 *
 * Who answers with as much as he reads needs it not: the pages of what was read are in our own cache.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
	HOLD_LEAST = 16384, /* octets of text: smaller packets are not kept */
	HOLD_PACKETS = 16, /* that are kept */
	HOLD_EXTRA = 8, /* given back at a time */
	HOLD_FRESH_MAX = 4 << 20, /* octets */
	/* Of SO_RCVBUF, which the kernel doubles: for all of them, and for what it has with each. */
	HOLD_BUFFER = (HOLD_PACKETS + HOLD_EXTRA + 64) * 65536,
};

struct hold {
	_Alignas(struct cmsghdr) uint8_t request[CMSG_SPACE(sizeof(uint32_t))]; /* of each packet */
	int fd; /* that packets are sent by; borrowed */
	uint32_t n; /* packets kept, at most: fewer when its buffer is full */
	uint32_t fresh; /* octets of large packets, read, whose pages are free */
};

/* For the socket that packets are sent by. */
void hold_init(struct hold *h, int fd);
/* A large packet was read, of so many octets. */
void hold_read(struct hold *h, uint32_t bytes);
/* The next packet, of so many octets of text: is it to be kept? */
bool hold_wants(struct hold *h, uint32_t text);
/* It is, when this is sent. The message borrows from *h. */
void hold_mark(struct hold *h, struct msghdr *m);
/* It was sent. */
void hold_sent(struct hold *h);
/* Gives back the first ones, when HOLD_EXTRA too many are kept. */
void hold_limit(struct hold *h);
/* Gives back all, and forgets what was read. */
void hold_release(struct hold *h);
