/* SPDX-License-Identifier: Apache-2.0 */
/* IP addresses and endpoints: values, their text, and what kind of address it is.
 *
 * An IPv4 address is held as ::ffff:a.b.c.d, so that one key and one comparison serve both families.
 * Octets are in network order; ports in host order.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct ipaddr {
	uint8_t b[16];
};

struct endpoint {
	struct ipaddr addr;
	uint16_t port;
};

/* A connection's name: our side, the peer's side. scope is the interface index when remote is a
 * link-local IPv6 address, else 0: the same fe80:: address on two links is two peers.
 */
struct flow {
	struct endpoint local;
	struct endpoint remote;
	uint32_t scope;
};

/* Longest text of an address with scope, and of an endpoint, with the terminating zero. */
enum { ADDR_TEXT = 64, ENDPOINT_TEXT = 80 };

/* Any address of both families (written * or [::]), any IPv4 address (0.0.0.0), and any IPv6 address, but none
 * of IPv4 ([*]). The last is held as ::fffe:0:0, of ::/8, which is nobody's (RFC 4291 2.4).
 */
extern const struct ipaddr addr_any;
extern const struct ipaddr addr_any4;
extern const struct ipaddr addr_any6;

static inline bool addr_eq(const struct ipaddr *a, const struct ipaddr *b)
{
	return !memcmp(a->b, b->b, sizeof(a->b));
}

/* What kind of address it is: inline, because the TCP core may not call outside itself. */

/* ::ffff:0:0/96 */
static inline bool addr_is_v4(const struct ipaddr *a)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(a->b, mapped, sizeof(mapped));
}

/* ::, ::ffff:0.0.0.0 or addr_any6 */
static inline bool addr_is_any(const struct ipaddr *a)
{
	static const uint8_t zero[16] = { 0 }, only6[16] = { [10] = 0xff, [11] = 0xfe };

	if (addr_is_v4(a))
		return !memcmp(a->b + 12, zero, 4);
	return !memcmp(a->b, zero, 16) || !memcmp(a->b, only6, 16);
}

static inline bool addr_is_multicast(const struct ipaddr *a)
{
	return addr_is_v4(a) ? (a->b[12] & 0xf0) == 0xe0 : a->b[0] == 0xff;
}

/* 255.255.255.255; directed broadcasts need a netmask */
static inline bool addr_is_broadcast(const struct ipaddr *a)
{
	static const uint8_t ones[4] = { 0xff, 0xff, 0xff, 0xff };

	return addr_is_v4(a) && !memcmp(a->b + 12, ones, 4);
}

static inline bool endpoint_eq(const struct endpoint *a, const struct endpoint *b)
{
	return a->port == b->port && addr_eq(&a->addr, &b->addr);
}

static inline bool flow_eq(const struct flow *a, const struct flow *b)
{
	return endpoint_eq(&a->remote, &b->remote) && endpoint_eq(&a->local, &b->local) &&
	       a->scope == b->scope;
}

struct ipaddr addr_v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d);
struct ipaddr addr_from_v4(const uint8_t octets[4]);
bool addr_is_loopback(const struct ipaddr *a);
bool addr_is_link_local6(const struct ipaddr *a); /* fe80::/10 */

/* Is `a` inside prefix/len? len counts bits of the family's own address (0..32 or 0..128). */
bool addr_in_prefix(const struct ipaddr *a, const struct ipaddr *prefix, unsigned len);

/* Does a listener bound to `bound` serve `to`? */
bool addr_matches(const struct ipaddr *bound, const struct ipaddr *to);
/* Is there an address that listeners bound to `a` and to `b` both serve? */
bool addr_overlaps(const struct ipaddr *a, const struct ipaddr *b);

/* "10.0.0.2", "2001:db8::2", "*". 0, or -EINVAL. Never asks a resolver. */
int addr_parse(const char *text, struct ipaddr *ret_addr);
/* "10.0.0.2/8", "::1/128", or a plain address (whole length). 0, or -EINVAL. */
int prefix_parse(const char *text, struct ipaddr *ret_addr, unsigned *ret_len);
/* "10.0.0.2:7", "[2001:db8::2]:80", "*:80", "[*]:80". Port 1..65535, 0 when zero_ok. 0, or -EINVAL. */
int endpoint_parse(const char *text, bool zero_ok, struct endpoint *ret_endpoint);
/* Both return buf. */
const char *addr_format(const struct ipaddr *a, char buf[static ADDR_TEXT]);
const char *endpoint_format(const struct endpoint *ep, char buf[static ENDPOINT_TEXT]);
