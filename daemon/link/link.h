/* SPDX-License-Identifier: Apache-2.0 */
/* Frames in batches, no idea of TCP: a small table of operations over a way to reach the network.
 * packet.c is AF_PACKET with PACKET_VNET_HDR (every interface but lo, both ways; lo, inwards only);
 * rawip.c is a raw IP socket (outwards only: lo, and where the kernel is to find the neighbour).
 *
 * One thread uses a link. Nothing here blocks.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/addr.h"
#include "base/errmsg.h"
#include "base/steer.h"

struct link;

enum {
	LINK_PACKET_MAX = 65535,
	/* Octets of a frame that fits a block of 64 KiB in the kernel, with what a device wants in front and the kernel behind. */
	LINK_PIECE_MAX = (64 << 10) - 1024,
};

/* A received packet. data is borrowed until release() gives it back. */
struct frame {
	const uint8_t *data; /* the IP packet, or a whole Ethernet frame when `neigh` */
	uint32_t len; /* octets */
	uint32_t ifindex; /* it came by */
	uint64_t at_us; /* CLOCK_REALTIME, when it came */
	uint16_t piece_bytes; /* GRO: text octets of each original segment; 0 when it is one */
	uint64_t loan; /* not 0: its number, by which it may be kept beyond release() */
	bool checksum_trusted; /* CHECKSUM_PARTIAL, or the kernel verified it */
	bool neigh; /* an ARP request or neighbour solicitation, with its Ethernet header */
	bool headers_only; /* what is behind the TCP header is not there, though it counts: see struct link_owned */
};

/* A packet to send: header and text, gathered. */
struct frame_out {
	uint32_t ifindex; /* packet links; raw IP links leave routing to the kernel */
	uint8_t dst_mac[6], src_mac[6]; /* packet links on Ethernet */
	bool ethernet; /* the interface wants an Ethernet header */
	bool neigh; /* packet links: header is a whole Ethernet frame already (wire_neigh_answer()) */
	bool checksum_partial; /* the device is to finish the TCP checksum */
	bool ipv6;
	uint16_t piece_bytes; /* not 0: the device is to cut text into pieces of this size */
	uint16_t ip_len; /* octets of the IP header: checksum starts there */
	uint16_t header_len; /* octets of IP and TCP header */
	const uint8_t *header; /* copied by link_send() */
	struct iovec text[10]; /* borrowed until link_flush() returns */
	unsigned text_n;
	struct ipaddr dst; /* raw IP links: where the kernel routes it */
	uint32_t scope; /* interface index when dst is link-local */
};

struct link_counters {
	uint64_t frames_in, bytes_in, frames_out, bytes_out;
	uint64_t kernel_drops; /* the ring was full, or the queue of large packets */
	uint64_t truncated; /* longer than our buffers */
	uint64_t headers_only; /* of frames_in: their text was not copied */
	uint64_t kept; /* super-segments, sent, that the kernel keeps now, at most: hold.h */
	uint64_t ignored; /* by a kind of interface that we do not speak */
	uint64_t send_failed; /* the kernel refused; TCP will send again */
	uint64_t send_too_big; /* EMSGSIZE: above the MTU */
};

/* What a packet link is to receive: TCP to it, and ICMP errors about TCP from it. Everything else never wakes us: a BPF program from this. */
struct link_owned {
	struct ipaddr addr; /* addr_any, addr_any4, addr_any6 or one address */
	uint16_t port_min, port_max; /* inclusive, local ports */
	/* Nobody looks at the text that comes here: of a super-segment it may stay in the kernel. No other entry may
	 * have one of these ports without it. */
	bool headers_only;
};

/* How much waits to be received, of what there is room for. */
enum link_pressure {
	LINK_EASY,
	LINK_BUSY, /* a quarter */
	LINK_FULL, /* half: soon something is lost */
};

/* What is received, passed on and sent in one go stays in the cache. */
enum { LINK_TAKE_BYTES = 1 << 18 };

struct link_ops {
	const char *name; /* "packet", "rawip" */
	/* A descriptor that polls readable when receive() has something; -1: it never has.
	 * With EPOLLET it tells of what comes after it was last asked: receive until it has less. */
	int (*fd)(const struct link *l);
	/* Up to max frames into ret_frames, in the order they came, and no more once there are LINK_TAKE_BYTES
	 * of them. *ret_more: others may wait. -Exxx: the link is broken. */
	int (*receive)(struct link *l, struct frame *ret_frames, unsigned max, bool *ret_more);
	enum link_pressure (*pressure)(const struct link *l);
	/* Does anything wait to be received? */
	bool (*waits)(const struct link *l);
	/* Gives the received frames back, but for those of this loan and later ones; 0: all. To be called before the
	 * next receive(). */
	void (*release)(struct link *l, uint64_t first_kept);
	/* So many frames are kept that those up to this loan should be given back; 0: none. */
	uint64_t (*recalls)(const struct link *l);
	/* Returns memory that was needed for what came, unless some of it is kept. Packet links only. */
	void (*trim)(struct link *l);
	/* Room in the batch for one more? If not, flush first. */
	bool (*has_room)(const struct link *l);
	void (*send)(struct link *l, const struct frame_out *f);
	/* Hands the batch to the kernel. What it refuses is counted and dropped. */
	void (*flush)(struct link *l);
	/* Replaces the receive filter. Packet links only. neigh: also ARP requests and solicitations.
	 * Filters that the kernel would find too long accept more than asked; the worker checks again. */
	int (*set_owned)(struct link *l, const struct link_owned *owned, size_t n, bool neigh);
	void (*counters)(struct link *l, struct link_counters *ret_counters);
	void (*free)(struct link *l);
};

struct link {
	const struct link_ops *ops;
};

/* Sockets among which the kernel parts what arrives: fanout.h. */
struct fanout_group {
	bool made;
	uint16_t id; /* the kernel's name for it; 0 is one like any other */
};

/* Links that part among them what arrives, each flow to one: the n-th that is made is worker n's. */
struct link_group {
	struct steer steer; /* workers and key */
	struct fanout_group group; /* the kernel's part; zeros before the first link */
};

/* All interfaces, those that appear later included. Frames sent by this machine are ignored; so are
 * those for another host's MAC. Takes nothing until set_owned(). -EPERM and others with a message.
 * group: NULL when it is the only one; used during the call.
 */
int link_packet_new(struct link_group *group, struct link **ret_link, struct errmsg *ret_err);
/* One socket for each family. Received packets are discarded by the kernel. */
int link_rawip_new(struct link **ret_link, struct errmsg *ret_err);
