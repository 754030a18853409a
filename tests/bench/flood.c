/* SPDX-License-Identifier: Apache-2.0 */
/* SYNs from addresses that nobody has (10.66.0.0/16), as fast as a core can send.
 *
 * usage: flood INTERFACE DESTINATION-MAC DESTINATION PORT SECONDS [FLAGS [RATE]]
 *
 * FLAGS: the control bits as a number; 2 is a SYN. RATE: segments a second. Prints one line of JSON.
 */
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>

#include "common.h"

enum { BATCH = 64, FRAME = 14 + 20 + 20 };

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint32_t random32(void) /* xorshift64* */
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)(random_state * 0x2545f4914f6cdd1d >> 32);
}

static uint32_t add(uint32_t sum, const uint8_t *p, unsigned n)
{
	for (unsigned i = 0; i < n; i += 2)
		sum += (uint32_t)(p[i] << 8 | p[i + 1]);
	return sum;
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static unsigned fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16)) & 0xffff;
}

/* All but what differs from SYN to SYN. */
static void build(uint8_t *f, const uint8_t mac[6], struct in_addr to, unsigned port,
		  unsigned flags)
{
	static const uint8_t ip[12] = { 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0 };

	memcpy(f, mac, 6);
	memcpy(f + 6, (const uint8_t[]){ 2, 0, 0, 0, 0, 1, 8, 0 }, 8);
	memcpy(f + 14, ip, sizeof(ip));
	f[26] = 10;
	f[27] = 66;
	memcpy(f + 30, &to, 4);
	put16(f + 36, port);
	f[46] = 5 << 4;
	f[47] = (uint8_t)flags;
	put16(f + 48, 64240);
}

static void vary(uint8_t *f)
{
	const uint32_t a = random32(), b = random32();

	put16(f + 28, a >> 16 | 1);
	put16(f + 34, 1024 + (a & 0x7fff));
	memcpy(f + 38, &b, 4);
	memset(f + 24, 0, 2);
	memset(f + 50, 0, 2);
	put16(f + 24, fold(add(0, f + 14, 20)));
	put16(f + 50, fold(add(add(6 + 20, f + 26, 8), f + 34, 20)));
}

int main(int argc, char **argv)
{
	static uint8_t frames[BATCH][FRAME];
	struct mmsghdr msgs[BATCH] = { 0 };
	struct iovec iov[BATCH];
	uint8_t mac[6];
	struct in_addr to;
	uint64_t sent = 0;
	const uint64_t start = clock_ns();
	const double rate = argc > 7 ? strtod(argv[7], NULL) : 0;
	int fd;

	if (argc < 6 || argc > 8 || inet_pton(AF_INET, argv[3], &to) != 1 ||
	    sscanf(argv[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3],
		   &mac[4], &mac[5]) != 6)
		errx(2, "usage: flood INTERFACE DESTINATION-MAC DESTINATION PORT SECONDS [FLAGS "
			"[RATE]]");
	fd = socket(AF_PACKET, SOCK_RAW, 0);
	const struct sockaddr_ll ll = { .sll_family = AF_PACKET,
					.sll_protocol = htons(ETH_P_IP),
					.sll_ifindex = (int)if_nametoindex(argv[1]) };

	if (fd < 0 || bind(fd, (const struct sockaddr *)&ll, sizeof(ll)))
		err(1, "packet socket on %s", argv[1]);
	for (unsigned i = 0; i < BATCH; i++) {
		build(frames[i], mac, to, (unsigned)strtoul(argv[4], NULL, 10),
		      argc > 6 ? (unsigned)strtoul(argv[6], NULL, 0) : 0x02);
		iov[i] = (struct iovec){ frames[i], FRAME };
		msgs[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	while (seconds_since(start) < strtod(argv[5], NULL)) {
		int n;

		for (unsigned i = 0; i < BATCH; i++)
			vary(frames[i]);
		n = sendmmsg(fd, msgs, BATCH, 0);
		sent += n > 0 ? (uint64_t)n : 0;
		if (rate > 0 && (double)sent / rate > seconds_since(start))
			(void)usleep((useconds_t)(BATCH / rate * 1e6));
	}
	printf("{\"mode\":\"flood\",\"syns\":%llu,\"rate\":%.0f}\n", (unsigned long long)sent,
	       (double)sent / seconds_since(start));
	return 0;
}
