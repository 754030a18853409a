/* SPDX-License-Identifier: Apache-2.0 */
/* An IP packet becomes a segment, or a verdict that says why not: RFC 791, RFC 8200 4, RFC 9293 3.1.
 * Everything here comes from a stranger. Each length is checked against what holds it before use.
 */
#include "wire.h"

#include "datagram.h"
#include "octets.h"

/* IPv6 next headers that are skipped, RFC 8200 4.1. */
enum {
	NEXT_HOP_BY_HOP = 0,
	NEXT_ROUTING = 43,
	NEXT_FRAGMENT = 44,
	NEXT_DESTINATION = 60,
};

/* No sender needs more; a longer chain only costs us time. */
enum { EXTENSIONS_MAX = 8 };

const char *wire_verdict_key(enum wire_verdict v)
{
	static const char *const keys[WIRE__COUNT] = {
#define VERDICT(name, key, help) [WIRE_##name] = key,
#include "wire/verdicts.def"
#undef VERDICT
	};

	return keys[v];
}

static enum wire_verdict decode_ip4(const uint8_t *p, size_t len, struct datagram *ret)
{
	size_t header, total;

	if (len < IP4_HEADER)
		return WIRE_TRUNCATED_IP;
	header = (size_t)(p[0] & 0x0f) * 4;
	total = get16(p + 2);
	if (header < IP4_HEADER || total < header)
		return WIRE_BAD_IP_HEADER;
	if (total > len)
		return WIRE_TRUNCATED_IP;
	if (wire_sum_fold(wire_sum(0, p, header)) != 0xffff)
		return WIRE_BAD_IP_CHECKSUM;
	if (get16(p + 6) & 0x3fff) /* more fragments, or an offset */
		return WIRE_FRAGMENT;
	/* IP options are skipped, whatever they are: MUST-50. */
	*ret = (struct datagram){ .src = addr_from_v4(p + 12),
				  .dst = addr_from_v4(p + 16),
				  .payload = p + header,
				  .len = total - header,
				  .protocol = p[9],
				  .ttl = p[8],
				  .tos = p[1] };
	return WIRE_OK;
}

/* Options that we do not know and whose type says "discard the packet" (RFC 8200 4.2). We know
 * padding alone; options of type 00xxxxxx are skipped over.
 */
static bool options_tolerable(const uint8_t *p, size_t len)
{
	size_t i = 0;

	while (i < len) {
		if (p[i] == 0) { /* Pad1 */
			i++;
			continue;
		}
		if (p[i] & 0xc0 || len - i < 2 || (size_t)p[i + 1] + 2 > len - i)
			return false;
		i += (size_t)p[i + 1] + 2;
	}
	return true;
}

/* One extension header of `size` octets at p. WIRE_OK: skip it. */
static enum wire_verdict check_extension(uint8_t kind, bool first, const uint8_t *p, size_t size)
{
	switch (kind) {
	case NEXT_FRAGMENT:
		/* RFC 6946: offset 0 and no more fragments is a whole packet. */
		return get16(p + 2) & 0xfff9 ? WIRE_FRAGMENT : WIRE_OK;
	case NEXT_ROUTING:
		/* We forward nothing: with segments left it is not for us. */
		return p[3] ? WIRE_BAD_IP_HEADER : WIRE_OK;
	case NEXT_HOP_BY_HOP:
		if (!first)
			return WIRE_BAD_IP_HEADER;
		break;
	default:
		break;
	}
	return options_tolerable(p + 2, size - 2) ? WIRE_OK : WIRE_BAD_IP_HEADER;
}

static bool is_extension(uint8_t kind)
{
	return kind == NEXT_HOP_BY_HOP || kind == NEXT_ROUTING || kind == NEXT_FRAGMENT ||
	       kind == NEXT_DESTINATION;
}

/* Finds what is behind the extension headers between offset 40 and end. */
static enum wire_verdict skip_extensions(const uint8_t *p, size_t end, size_t *ret_offset,
					 uint8_t *ret_kind)
{
	uint8_t kind = p[6];
	size_t at = IP6_HEADER;

	for (unsigned n = 0; is_extension(kind); n++) {
		enum wire_verdict v;
		size_t size;

		if (n == EXTENSIONS_MAX || end - at < 8)
			return WIRE_BAD_IP_HEADER;
		size = kind == NEXT_FRAGMENT ? 8 : ((size_t)p[at + 1] + 1) * 8;
		if (size > end - at)
			return WIRE_BAD_IP_HEADER;
		v = check_extension(kind, n == 0, p + at, size);
		if (v != WIRE_OK)
			return v;
		kind = p[at];
		at += size;
	}
	*ret_offset = at;
	*ret_kind = kind;
	return WIRE_OK;
}

static enum wire_verdict decode_ip6(const uint8_t *p, size_t len, struct datagram *ret)
{
	enum wire_verdict v;
	size_t at, end;
	uint8_t kind;

	if (len < IP6_HEADER)
		return WIRE_TRUNCATED_IP;
	end = IP6_HEADER + (size_t)get16(p + 4);
	if (end > len)
		return WIRE_TRUNCATED_IP;
	v = skip_extensions(p, end, &at, &kind);
	if (v != WIRE_OK)
		return v;
	*ret = (struct datagram){ .payload = p + at,
				  .len = end - at,
				  .protocol = kind,
				  .ttl = p[7],
				  .tos = (uint8_t)(get16(p) >> 4) };
	memcpy(ret->src.b, p + 8, 16);
	memcpy(ret->dst.b, p + 24, 16);
	/* ::ffff:a.b.c.d on the wire would pass for the IPv4 address. */
	return addr_is_v4(&ret->src) || addr_is_v4(&ret->dst) ? WIRE_BAD_ADDRESS : WIRE_OK;
}

enum wire_verdict datagram_decode(const uint8_t *packet, size_t len, struct datagram *ret)
{
	if (len == 0)
		return WIRE_TRUNCATED_IP;
	switch (packet[0] >> 4) {
	case 4:
		return decode_ip4(packet, len, ret);
	case 6:
		return decode_ip6(packet, len, ret);
	default:
		return WIRE_BAD_IP_VERSION;
	}
}

static void decode_sacks(const uint8_t *p, unsigned n, struct segment *seg)
{
	seg->options |= OPT_SACK;
	seg->sacks_n = (uint8_t)n;
	for (unsigned i = 0; i < n; i++, p += 8)
		seg->sacks[i] = (struct sack_block){ { get32(p) }, { get32(p + 4) } };
}

/* One option whose length has been checked to fit. A known kind with a length that is not its own is
 * skipped like an unknown one: MUST-6.
 */
static void decode_option(const uint8_t *p, unsigned len, struct segment *seg)
{
	switch (p[0]) {
	case KIND_MSS:
		if (len != 4 || get16(p + 2) == 0) /* an MSS of 0 says nothing that could be used */
			break;
		seg->options |= OPT_MSS;
		seg->mss = get16(p + 2);
		break;
	case KIND_WSCALE:
		if (len != 3)
			break;
		seg->options |= OPT_WSCALE;
		seg->wscale = p[2];
		break;
	case KIND_SACK_PERMITTED:
		if (len == 2)
			seg->options |= OPT_SACK_PERMITTED;
		break;
	case KIND_SACK:
		if (len >= 10 && len <= 2 + 8 * SEG_SACKS && len % 8 == 2)
			decode_sacks(p + 2, len / 8, seg);
		break;
	case KIND_TIMESTAMPS:
		if (len != 10)
			break;
		seg->options |= OPT_TIMESTAMPS;
		seg->ts_val = get32(p + 2);
		seg->ts_ecr = get32(p + 6);
		break;
	case KIND_USER_TIMEOUT: /* 0 is reserved, and to be ignored */
		if (len != 4 || (get16(p + 2) & 0x7fff) == 0)
			break;
		seg->options |= OPT_USER_TIMEOUT;
		seg->user_timeout = get16(p + 2);
		break;
	case KIND_FAST_OPEN: /* 4 to 16 octets, an even number: RFC 7413 2 */
		if (len != 2 && (len < 6 || len > 2 + SEG_FAST_OPEN || len % 2))
			break;
		seg->options |= OPT_FAST_OPEN;
		seg->fast_open_n = (uint8_t)(len - 2);
		memcpy(seg->fast_open, p + 2, len - 2);
		break;
	default:
		break;
	}
}

/* MUST-4, MUST-5: options of any segment. MUST-64: at any octet. MUST-69: nothing after EOL counts. */
static void decode_options(const uint8_t *p, size_t n, struct segment *seg)
{
	while (n > 0 && p[0] != KIND_EOL) {
		unsigned len = 1;

		if (p[0] != KIND_NOP) {
			/* MUST-68: all others have a length. MUST-7: one that is impossible ends it. */
			if (n < 2 || p[1] < 2 || p[1] > n)
				return;
			len = p[1];
			decode_option(p, len, seg);
		}
		p += len;
		n -= len;
	}
}

static void fill_segment(const struct datagram *d, size_t header, struct segment *ret)
{
	const uint8_t *t = d->payload;

	memset(ret, 0, sizeof(*ret));
	ret->flow = (struct flow){ .local = { d->dst, get16(t + 2) },
				   .remote = { d->src, get16(t) } };
	ret->seq.v = get32(t + 4);
	ret->ack.v = get32(t + 8);
	ret->ctl = t[13];
	ret->wnd = get16(t + 14);
	ret->urgent = get16(t + 18);
	ret->ttl = d->ttl;
	ret->tos = d->tos;
	if (d->len > header) {
		ret->spans_n = 1;
		ret->text[0] = (struct span){ t + header, (uint32_t)(d->len - header) };
	}
	decode_options(t + TCP_HEADER, header - TCP_HEADER, ret);
}

static bool unusable(const struct ipaddr *a)
{
	return addr_is_any(a) || addr_is_multicast(a) || addr_is_broadcast(a);
}

static enum wire_verdict decode_tcp(const struct datagram *d, enum wire_checksum checksum,
				    struct segment *ret)
{
	size_t header;

	if (d->len < TCP_HEADER)
		return WIRE_TRUNCATED_TCP;
	header = (size_t)(d->payload[12] >> 4) * 4;
	if (header < TCP_HEADER || header > d->len)
		return WIRE_BAD_TCP_OFFSET;
	if (checksum == WIRE_CHECKSUM_VERIFY) { /* MUST-3 */
		const uint64_t pseudo = wire_sum_pseudo(&d->src, &d->dst, PROTO_TCP,
							(uint32_t)d->len);

		if (wire_sum_fold(wire_sum(pseudo, d->payload, d->len)) != 0xffff)
			return WIRE_BAD_TCP_CHECKSUM;
	}
	/* MUST-57, MUST-63; a broadcast address of a subnet needs the netmask: the worker's part. */
	if (unusable(&d->src) || unusable(&d->dst))
		return WIRE_BAD_ADDRESS;
	if (get16(d->payload) == 0 || get16(d->payload + 2) == 0)
		return WIRE_BAD_PORT;
	fill_segment(d, header, ret);
	return WIRE_OK;
}

enum wire_verdict wire_decode(const uint8_t *packet, size_t len, enum wire_checksum checksum,
			      struct segment *ret_seg)
{
	struct datagram d;
	const enum wire_verdict v = datagram_decode(packet, len, &d);

	if (v != WIRE_OK)
		return v;
	return d.protocol == PROTO_TCP ? decode_tcp(&d, checksum, ret_seg) : WIRE_NOT_TCP;
}
