/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "service/relay.h"

/* "PROXY TCP4 198.51.100.1 10.0.0.2 40000 80\r\n", at most 107 octets. */
static size_t header_v1(const struct flow *flow, uint8_t *ret_header)
{
	char source[ADDR_TEXT], destination[ADDR_TEXT];
	const int n = snprintf((char *)ret_header, PROXY_HEADER_MAX, "PROXY %s %s %s %u %u\r\n",
			       addr_is_v4(&flow->remote.addr) ? "TCP4" : "TCP6",
			       addr_format(&flow->remote.addr, source),
			       addr_format(&flow->local.addr, destination), flow->remote.port,
			       flow->local.port);

	return (size_t)n;
}

static uint8_t *put16(uint8_t *at, uint16_t v)
{
	*at++ = (uint8_t)(v >> 8);
	*at++ = (uint8_t)v;
	return at;
}

/* Signature, version and command PROXY, family and STREAM, length, then addresses and ports. */
static size_t header_v2(const struct flow *flow, uint8_t *ret_header)
{
	static const uint8_t signature[12] = { '\r', '\n', '\r', '\n', 0,   '\r',
					       '\n', 'Q',  'U',  'I',  'T', '\n' };
	const bool v4 = addr_is_v4(&flow->remote.addr);
	const size_t skip = v4 ? 12 : 0, len = 16 - skip;
	uint8_t *at = ret_header;

	memcpy(at, signature, sizeof(signature));
	at += sizeof(signature);
	*at++ = 0x21;
	*at++ = v4 ? 0x11 : 0x21;
	at = put16(at, (uint16_t)(2 * len + 4));
	memcpy(at, flow->remote.addr.b + skip, len);
	memcpy(at + len, flow->local.addr.b + skip, len);
	at = put16(at + 2 * len, flow->remote.port);
	at = put16(at, flow->local.port);
	return (size_t)(at - ret_header);
}

size_t proxy_header(unsigned version, const struct flow *flow,
		    uint8_t ret_header[static PROXY_HEADER_MAX])
{
	return version == 1 ? header_v1(flow, ret_header) : header_v2(flow, ret_header);
}
