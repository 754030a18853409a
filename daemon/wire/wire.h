/* SPDX-License-Identifier: Apache-2.0 */
/* Octets <-> struct segment: IPv4, IPv6, TCP, the checksums, and the little of ARP and ND that an
 * address of our own needs. Pure: no I/O, no allocation, no state.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "tcp/icmp.h"
#include "tcp/segment.h"

/* What a packet turned out to be. verdicts.def is the one list; each has a counter in the worker. */
enum wire_verdict {
#define VERDICT(name, key, help) WIRE_##name,
#include "wire/verdicts.def"
#undef VERDICT
	WIRE__COUNT,
};

const char *wire_verdict_key(enum wire_verdict v);

/* How far the checksum of a received packet can be trusted. */
enum wire_checksum {
	WIRE_CHECKSUM_VERIFY, /* compute it (MUST-3) */
	WIRE_CHECKSUM_TRUSTED, /* the kernel vouches: partial (never left this machine) or verified */
};

/* Decodes an IP packet (no link header) of len octets that holds a TCP segment. WIRE_OK fills
 * *ret_seg: its text points into packet; flow.local is the packet's destination; scope and link_mtu
 * are left 0 for the caller. Trailing octets beyond the IP length are ignored (Ethernet padding).
 * Fragments are not reassembled: WIRE_FRAGMENT. IP options and IPv6 extension headers are skipped
 * (MUST-50). Bad TCP options follow MUST-7: parsing stops there, the segment stands.
 */
enum wire_verdict wire_decode(const uint8_t *packet, size_t len, enum wire_checksum checksum,
			      struct segment *ret_seg);

/* The same for what wire_decode() found to be WIRE_NOT_TCP: WIRE_ICMP when it is an ICMP or ICMPv6 error that
 * quotes a TCP segment of its addressee's. The checksum is always computed. flow.scope is left 0.
 * WIRE_NOT_TCP: another protocol, or ICMP that is no error.
 */
enum wire_verdict wire_decode_icmp(const uint8_t *packet, size_t len,
				   struct icmp_message *ret_message);

/* Room for the largest header that wire_encode() writes: IPv6 40 + TCP 60. */
enum { WIRE_HEADER_MAX = 100 };

/* Who fills in the TCP checksum. */
enum wire_offload {
	WIRE_FULL_CHECKSUM, /* wire_encode() computes it over header and text */
	WIRE_PARTIAL_CHECKSUM, /* only the pseudo-header's: CHECKSUM_PARTIAL, the device does the rest */
};

struct wire_header {
	uint8_t bytes[WIRE_HEADER_MAX]; /* IP and TCP header */
	uint16_t len; /* octets of both */
	uint16_t ip_len; /* octets of the IP header: where the TCP header (csum_start) begins */
};

/* Encodes the headers of seg; its text follows them on the wire, gathered by the caller. DF is always
 * set. Asserts that text fits 64 KiB. Options stand, whichever of them there are, by seg->layout:
 *
 *	LAYOUT_LINUX	mss,sackOK,TS,nop,wscale; what is not the first half of a word has NOPs in front
 *	LAYOUT_FREEBSD	mss,nop,wscale,sackOK,TS; eol at the end
 *
 * and in both: nop,nop,TS; nop,nop,sack. What neither system has (RFC 5482) stands behind the rest.
 */
void wire_encode(const struct segment *seg, enum wire_offload offload,
		 struct wire_header *ret_header);

/* Octets of TCP options that wire_encode() would write for seg: a multiple of 4, at most 40. */
unsigned wire_options_len(const struct segment *seg);

/* Cuts the piece at *offset (text octets, start at 0) out of a super-segment: sequence number, PSH and
 * FIN on the last only, CWR on the first only. False when *offset is past the end.
 */
bool wire_next_piece(const struct segment *super, uint32_t *offset, struct segment *ret_piece);

/* The ones' complement sum of RFC 1071 over data, continued from the sum of an even number of octets.
 * wire_sum_fold() makes 16 bits of it, not complemented, in memory order: memcpy it into a header.
 */
uint64_t wire_sum(uint64_t sum, const void *data, size_t len);
uint16_t wire_sum_fold(uint64_t sum);

/* ARP and neighbour discovery for addresses of our own (Shield=none). */
enum { WIRE_NEIGH_MAX = 128 };

/* Is this Ethernet frame an ARP request or a neighbour solicitation for *ret_target? Checks lengths,
 * and for ND the checksum and hop limit 255 (RFC 4861 7.1.1).
 */
bool wire_neigh_query(const uint8_t *frame, size_t len, struct ipaddr *ret_target);
/* The answer to it from `mac`: a whole Ethernet frame. Octets written to out; 0 when it is no query. */
size_t wire_neigh_answer(const uint8_t *frame, size_t len, const uint8_t mac[6],
			 uint8_t out[static WIRE_NEIGH_MAX]);
