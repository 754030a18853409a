/* SPDX-License-Identifier: Apache-2.0 */
/* The Internet checksum, RFC 1071. Words are added as the machine loads them: the ones' complement
 * sum does not mind the byte order, as long as the result is stored the way it was loaded.
 */
#include "wire.h"

#include "octets.h"

/* The two halves of a 64-bit load, added: no carry is ever lost, and compilers make vectors of it. */
static inline uint64_t halves(uint64_t w)
{
	return (w & UINT32_MAX) + (w >> 32);
}

/* A sum of any size, made small enough to add 2^31 words to it. */
static inline uint64_t reduce(uint64_t sum)
{
	return halves(halves(sum));
}

uint64_t wire_sum(uint64_t sum, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t a = 0, b = 0, c = 0, d = 0;

	for (; len >= 32; len -= 32, p += 32) {
		uint64_t w[4];

		memcpy(w, p, sizeof(w));
		a += halves(w[0]);
		b += halves(w[1]);
		c += halves(w[2]);
		d += halves(w[3]);
	}
	sum = reduce(sum) + reduce(a) + reduce(b) + reduce(c) + reduce(d);
	for (; len >= 4; len -= 4, p += 4) {
		uint32_t w;

		memcpy(&w, p, sizeof(w));
		sum += w;
	}
	if (len) { /* 1..3 octets, padded with zeros as RFC 9293 3.1 has it */
		uint32_t w = 0;

		memcpy(&w, p, len);
		sum += w;
	}
	return sum;
}

uint16_t wire_sum_fold(uint64_t sum)
{
	sum = reduce(sum);
	sum = (sum & UINT16_MAX) + (sum >> 16);
	sum = (sum & UINT16_MAX) + (sum >> 16);
	sum = (sum & UINT16_MAX) + (sum >> 16);
	return (uint16_t)sum;
}

uint64_t wire_sum_pseudo(const struct ipaddr *src, const struct ipaddr *dst, uint8_t protocol,
			 uint32_t len)
{
	const size_t skip = addr_is_v4(dst) ? 12 : 0;
	uint8_t tail[8] = { [7] = protocol };
	uint64_t sum;

	/* IPv4's "zero, protocol, 16-bit length" and IPv6's longer fields sum to the same. */
	put32(tail, len);
	sum = wire_sum(0, src->b + skip, 16 - skip);
	sum = wire_sum(sum, dst->b + skip, 16 - skip);
	return wire_sum(sum, tail, sizeof(tail));
}
