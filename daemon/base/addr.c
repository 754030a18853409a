/* SPDX-License-Identifier: Apache-2.0 */
#include "addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

const struct ipaddr addr_any = { { 0 } };
const struct ipaddr addr_any4 = { { [10] = 0xff, [11] = 0xff } };
const struct ipaddr addr_any6 = { { [10] = 0xff, [11] = 0xfe } };

struct ipaddr addr_from_v4(const uint8_t octets[4])
{
	struct ipaddr a = addr_any4;

	memcpy(a.b + 12, octets, 4);
	return a;
}

struct ipaddr addr_v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
	return addr_from_v4((const uint8_t[4]){ a, b, c, d });
}

bool addr_is_loopback(const struct ipaddr *a)
{
	static const struct ipaddr one = { { [15] = 1 } };

	return addr_is_v4(a) ? a->b[12] == 127 : addr_eq(a, &one);
}

bool addr_is_link_local6(const struct ipaddr *a)
{
	return a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80;
}

bool addr_in_prefix(const struct ipaddr *a, const struct ipaddr *prefix, unsigned len)
{
	const unsigned bits = addr_is_v4(prefix) ? len + 96 : len;
	const unsigned whole = bits / 8, rest = bits % 8;

	if (memcmp(a->b, prefix->b, whole))
		return false;
	return rest == 0 || ((a->b[whole] ^ prefix->b[whole]) >> (8 - rest)) == 0;
}

bool addr_matches(const struct ipaddr *bound, const struct ipaddr *to)
{
	if (addr_eq(bound, &addr_any))
		return true;
	if (addr_eq(bound, &addr_any4))
		return addr_is_v4(to);
	if (addr_eq(bound, &addr_any6))
		return !addr_is_v4(to);
	return addr_eq(bound, to);
}

bool addr_overlaps(const struct ipaddr *a, const struct ipaddr *b)
{
	return addr_matches(a, b) || addr_matches(b, a);
}

int addr_parse(const char *text, struct ipaddr *ret_addr)
{
	uint8_t v4[4];
	struct ipaddr v6;

	if (!strcmp(text, "*")) {
		*ret_addr = addr_any;
		return 0;
	}
	if (inet_pton(AF_INET, text, v4) == 1) {
		*ret_addr = addr_from_v4(v4);
		return 0;
	}
	if (inet_pton(AF_INET6, text, v6.b) == 1) {
		*ret_addr = v6;
		return 0;
	}
	return -EINVAL;
}

/* Decimal digits only, at most `max`. */
static int number_parse(const char *text, unsigned max, unsigned *ret_n)
{
	unsigned n = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		n = n * 10 + (unsigned)(*text - '0');
		if (n > max)
			return -EINVAL;
	}
	*ret_n = n;
	return 0;
}

int prefix_parse(const char *text, struct ipaddr *ret_addr, unsigned *ret_len)
{
	const char *slash = strchr(text, '/');
	char host[ADDR_TEXT];
	struct ipaddr a;
	unsigned max, len;
	const size_t n = slash ? (size_t)(slash - text) : strlen(text);

	if (n >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = 0;
	if (addr_parse(host, &a))
		return -EINVAL;
	max = len = addr_is_v4(&a) ? 32 : 128;
	if (slash && number_parse(slash + 1, max, &len))
		return -EINVAL;
	*ret_addr = a;
	*ret_len = len;
	return 0;
}

int endpoint_parse(const char *text, bool zero_ok, struct endpoint *ret_endpoint)
{
	const char *colon = strrchr(text, ':');
	char host[ADDR_TEXT];
	struct endpoint ep;
	unsigned port;
	size_t n;

	if (!colon || number_parse(colon + 1, UINT16_MAX, &port) || (port == 0 && !zero_ok))
		return -EINVAL;
	n = (size_t)(colon - text);
	if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	} else if (memchr(text, ':', n)) {
		return -EINVAL; /* an IPv6 address wants brackets */
	}
	if (n >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = 0;
	if (addr_parse(host, &ep.addr))
		return -EINVAL;
	if (text[n] == ']' && addr_eq(&ep.addr, &addr_any) && host[0] == '*')
		ep.addr = addr_any6;
	ep.port = (uint16_t)port;
	*ret_endpoint = ep;
	return 0;
}

/* As inet_ntop() does, which is slow: the record writes two of them for each connection. */
static void format_v4(const uint8_t *octets, char *to)
{
	for (unsigned i = 0; i < 4; i++) {
		const unsigned n = octets[i];

		if (n >= 100)
			*to++ = (char)('0' + n / 100);
		if (n >= 10)
			*to++ = (char)('0' + n / 10 % 10);
		*to++ = (char)('0' + n % 10);
		*to++ = i < 3 ? '.' : 0;
	}
}

const char *addr_format(const struct ipaddr *a, char buf[static ADDR_TEXT])
{
	if (addr_eq(a, &addr_any) || addr_eq(a, &addr_any6))
		return strcpy(buf, "*");
	if (addr_is_v4(a))
		format_v4(a->b + 12, buf);
	else
		(void)inet_ntop(AF_INET6, a->b, buf, ADDR_TEXT);
	return buf;
}

const char *endpoint_format(const struct endpoint *ep, char buf[static ENDPOINT_TEXT])
{
	char host[ADDR_TEXT];
	const bool brackets = !addr_is_v4(&ep->addr) && !addr_eq(&ep->addr, &addr_any);

	(void)snprintf(buf, ENDPOINT_TEXT, brackets ? "[%s]:%u" : "%s:%u",
		       addr_format(&ep->addr, host), ep->port);
	return buf;
}
