/* SPDX-License-Identifier: Apache-2.0 */
/* A crowd of clients: millions of TCP connections from one process, over a packet socket, which the kernel's own
 * TCP could not hold. Addresses of 10.66.0.0/16, which nobody has. What a connection's next segment is follows
 * from its number; of each only the server's ISN is kept, four octets.
 *
 * usage: crowd INTERFACE DESTINATION-MAC DESTINATION PORT MOST
 *
 * Commands on the standard input, each answered by a line of JSON once it is done:
 *	open N		opens until N are open; no more SYNs are out than the server keeps up with
 *	probe K		sends an octet on each of K, chosen at random, and waits for its echo
 *	reset		resets all
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>

#include "common.h"

enum {
	BATCH = 64,
	OUT_MAX = 1024, /* SYNs without an answer */
	FRAME = 2048,
	PORTS = 50000, /* of an address */
	FIRST_PORT = 10000,
	IP_AT = 14,
	TCP_AT = 34,
	SYN = 2,
	RST = 4,
	PSH = 8,
	ACK = 16,
};

static const double patience_s = 1.0; /* then it is sent again */

static struct {
	int fd;
	uint8_t mac[6];
	struct in_addr to;
	unsigned port;
	uint32_t *iss; /* the server's, + 1 for its SYN; 0: not open */
	uint8_t *said; /* octets sent and echoed */
	uint32_t most, open, probed;
	uint64_t syns, again;
	/* Frames to be sent. */
	uint8_t frames[BATCH][128];
	struct iovec iov[BATCH];
	unsigned n;
} c;

static unsigned get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static uint32_t add(uint32_t sum, const uint8_t *p, unsigned n)
{
	for (; n > 1; n -= 2, p += 2)
		sum += get16(p);
	return n ? sum + ((uint32_t)p[0] << 8) : sum;
}

static unsigned fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16)) & 0xffff;
}

static uint32_t isn_of(uint32_t i)
{
	return i * 2654435761U + 12345;
}

static void flush_frames(void)
{
	struct mmsghdr msgs[BATCH] = { 0 };
	unsigned done = 0;

	for (unsigned i = 0; i < c.n; i++)
		msgs[i].msg_hdr = (struct msghdr){ .msg_iov = &c.iov[i], .msg_iovlen = 1 };
	while (done < c.n) {
		const int n = sendmmsg(c.fd, msgs + done, c.n - done, 0);

		if (n < 0 && errno != ENOBUFS && errno != EINTR)
			err(1, "send");
		done += n > 0 ? (unsigned)n : 0;
	}
	c.n = 0;
}

/* A segment of connection i; echo: the timestamp that it answers. */
static void put(uint32_t i, unsigned flags, uint32_t seq, uint32_t ack, unsigned text,
		uint32_t echo)
{
	static const uint8_t ip[12] = { 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0 };
	static const uint8_t syn_options[8] = { 2, 4, 5, 180, 1, 3, 3, 7 };
	static uint32_t clock; /* any that does not go back */
	uint8_t *const f = c.frames[c.n], *const t = f + TCP_AT;
	const unsigned options = flags & SYN ? 24 : flags & RST ? 0 : 12;
	const unsigned len = 20 + options + text;
	const uint32_t address = i / PORTS + 1;

	memset(f, 0, TCP_AT + 20);
	memcpy(f, c.mac, 6);
	memcpy(f + 6, (const uint8_t[]){ 2, 0, 0, 0, 0, 1, 8, 0 }, 8);
	memcpy(f + IP_AT, ip, sizeof(ip));
	put16(f + IP_AT + 2, 20 + len);
	put32(f + IP_AT + 12, 0x0a420000 | address);
	memcpy(f + IP_AT + 16, &c.to, 4);
	put16(t, FIRST_PORT + i % PORTS);
	put16(t + 2, c.port);
	put32(t + 4, seq);
	put32(t + 8, ack);
	t[12] = (uint8_t)((20 + options) / 4 << 4);
	t[13] = (uint8_t)flags;
	put16(t + 14, 64240);
	if (options) {
		uint8_t *const o = t + 20 + options - 12;

		if (flags & SYN) {
			memcpy(t + 20, syn_options, 8);
			memcpy(t + 28, (const uint8_t[]){ 4, 2, 1, 1 }, 4);
		}
		memcpy(o, (const uint8_t[]){ 1, 1, 8, 10 }, 4);
		put32(o + 4, 1000 + clock++ / 4096);
		put32(o + 8, echo);
	}
	memset(t + 20 + options, 'x', text);
	put16(f + IP_AT + 10, fold(add(0, f + IP_AT, 20)));
	put16(t + 16, fold(add(add(6 + len, f + IP_AT + 12, 8), t, len)));
	c.iov[c.n++] = (struct iovec){ f, TCP_AT + len };
	if (c.n == BATCH)
		flush_frames();
}

static void send_syn(uint32_t i)
{
	put(i, SYN, isn_of(i), 0, 0, 0);
	c.syns++;
}

/* Of a segment's timestamps option; 0: it has none. */
static uint32_t timestamp_of(const uint8_t *t, size_t len)
{
	const size_t end = (size_t)(t[12] >> 4) * 4;

	for (size_t at = 20; at + 10 <= end && end <= len && t[at];) {
		if (t[at] == 8)
			return get32(t + at + 2);
		at += t[at] == 1 ? 1 : t[at + 1] > 1 ? t[at + 1] : len;
	}
	return 0;
}

/* What came: a SYN-ACK opens its connection, and is acknowledged as often as it comes; text is acknowledged. */
static void take(const uint8_t *f, size_t len)
{
	const uint8_t *const t = f + TCP_AT;
	uint32_t address, i, text;

	if (len < TCP_AT + 20 || get16(f + 12) != ETH_P_IP || f[IP_AT] != 0x45 || f[IP_AT + 9] != 6)
		return;
	address = get32(f + IP_AT + 16) & 0xffff;
	i = (address - 1) * PORTS + get16(t + 2) - FIRST_PORT;
	if (!address || i >= c.most || get16(t) != c.port)
		return;
	text = get16(f + IP_AT + 2) - 20 - (uint32_t)(t[12] >> 4) * 4;
	if ((t[13] & (SYN | ACK | RST)) == (SYN | ACK) && get32(t + 8) == isn_of(i) + 1) {
		c.open += c.iss[i] == 0;
		c.iss[i] = get32(t + 4) + 1;
		put(i, ACK, isn_of(i) + 1, c.iss[i], 0, timestamp_of(t, len - TCP_AT));
	} else if (text && c.iss[i] && get32(t + 4) == c.iss[i] + c.said[i]) {
		c.said[i] = (uint8_t)(c.said[i] + text);
		c.probed += text;
		put(i, ACK, isn_of(i) + 1 + c.said[i], c.iss[i] + c.said[i], 0,
		    timestamp_of(t, len - TCP_AT));
	} else if (t[13] & RST && c.iss[i]) {
		errx(1, "connection %u was reset", i);
	}
}

static void receive(int wait_ms)
{
	static uint8_t bufs[BATCH][FRAME];
	struct mmsghdr msgs[BATCH] = { 0 };
	struct iovec iov[BATCH];
	struct pollfd p = { .fd = c.fd, .events = POLLIN };
	int n;

	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ bufs[i], FRAME };
		msgs[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	flush_frames();
	n = recvmmsg(c.fd, msgs, BATCH, MSG_DONTWAIT, NULL);
	if (n <= 0) {
		(void)poll(&p, 1, wait_ms);
		return;
	}
	for (int i = 0; i < n; i++)
		take(bufs[i], msgs[i].msg_len);
}

/* All of the first n: the next SYN goes when another was answered, and what was lost goes again. */
static void open_all(uint32_t n)
{
	const uint64_t start = clock_ns();
	const uint32_t before = c.open;
	uint64_t last = start;
	uint32_t next = before, seen = before;

	while (c.open < n) {
		while (next < n && next - c.open < OUT_MAX)
			send_syn(next++);
		receive(10);
		if (c.open != seen) {
			seen = c.open;
			last = clock_ns();
		} else if (seconds_since(last) > patience_s) {
			for (uint32_t i = before; i < next; i++)
				if (!c.iss[i]) {
					send_syn(i);
					c.again++;
				}
			last = clock_ns();
			if (seconds_since(start) > 3600)
				errx(1, "%u of %u are open after an hour", c.open, n);
		}
	}
	printf("{\"open\":%u,\"opened\":%u,\"seconds\":%.3f,\"rate\":%.0f,\"syns_again\":%llu}\n",
	       n, n - before, seconds_since(start), (n - before) / seconds_since(start),
	       (unsigned long long)c.again);
}

static int by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* One after the other, so that each measures what it takes to wake one. */
static void probe(uint32_t k)
{
	double *const us = calloc(k + 1, sizeof(*us));
	uint64_t state = 0x9e3779b97f4a7c15;

	for (uint32_t n = 0; us && n < k; n++) {
		uint32_t i, want = c.probed + 1;
		const uint64_t start = clock_ns();
		uint64_t last = start;

		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
		i = (uint32_t)(state >> 33) % c.open;
		if (c.said[i] == UINT8_MAX)
			continue;
		put(i, ACK | PSH, isn_of(i) + 1 + c.said[i], c.iss[i] + c.said[i], 1, 0);
		while (c.probed != want) {
			receive(1);
			if (seconds_since(last) > patience_s) {
				put(i, ACK | PSH, isn_of(i) + 1 + c.said[i], c.iss[i] + c.said[i],
				    1, 0);
				last = clock_ns();
			}
			if (seconds_since(start) > 30)
				errx(1, "connection %u does not answer", i);
		}
		us[n] = seconds_since(start) * 1e6;
	}
	if (us)
		qsort(us, k, sizeof(*us), by_value);
	printf("{\"probed\":%u,\"p50_us\":%.1f,\"p99_us\":%.1f}\n", k, us ? us[k / 2] : 0,
	       us ? us[k - 1 - k / 100] : 0);
	free(us);
}

/* Nobody answers a RST: what of them was lost, who asks again finds out. */
static void reset_all(void)
{
	const struct timespec pause = { 0, 1000000 };

	for (uint32_t i = 0; i < c.most; i++) {
		if (!c.iss[i])
			continue;
		put(i, RST, isn_of(i) + 1 + c.said[i], 0, 0, 0);
		if (i % 64 == 63) { /* slowly: the server's queue is no longer than any */
			flush_frames();
			(void)nanosleep(&pause, NULL);
		}
	}
	flush_frames();
	printf("{\"reset\":%u}\n", c.open);
}

/* Only what is for the crowd. */
static void attach_filter(void)
{
	struct sock_filter code[] = {
		{ BPF_LD | BPF_H | BPF_ABS, 0, 0, 12 },
		{ BPF_JMP | BPF_JEQ | BPF_K, 0, 3, ETH_P_IP },
		{ BPF_LD | BPF_H | BPF_ABS, 0, 0, IP_AT + 16 },
		{ BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0x0a42 },
		{ BPF_RET | BPF_K, 0, 0, FRAME },
		{ BPF_RET | BPF_K, 0, 0, 0 },
	};
	const struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };
	const int bytes = 64 << 20, one = 1;

	if (setsockopt(c.fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)))
		err(1, "filter");
	(void)setsockopt(c.fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	(void)setsockopt(c.fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
	(void)setsockopt(c.fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one));
}

static void open_socket(const char *interface)
{
	const struct sockaddr_ll ll = { .sll_family = AF_PACKET,
					.sll_protocol = htons(ETH_P_IP),
					.sll_ifindex = (int)if_nametoindex(interface) };

	c.fd = socket(AF_PACKET, SOCK_RAW, 0);
	if (c.fd < 0)
		err(1, "packet socket");
	attach_filter();
	if (bind(c.fd, (const struct sockaddr *)&ll, sizeof(ll)))
		err(1, "packet socket on %s", interface);
}

static void command(const char *line)
{
	unsigned n;

	if (sscanf(line, "open %u", &n) == 1 && n <= c.most)
		open_all(n);
	else if (sscanf(line, "probe %u", &n) == 1 && c.open)
		probe(n);
	else if (!strncmp(line, "reset", 5))
		reset_all();
	else
		errx(2, "no command: %s", line);
	(void)fflush(stdout);
}

int main(int argc, char **argv)
{
	struct pollfd p[2] = { { .fd = 0, .events = POLLIN }, { .events = POLLIN } };
	char line[100];

	if (argc != 6 || inet_pton(AF_INET, argv[3], &c.to) != 1 ||
	    sscanf(argv[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &c.mac[0], &c.mac[1], &c.mac[2],
		   &c.mac[3], &c.mac[4], &c.mac[5]) != 6)
		errx(2, "usage: crowd INTERFACE DESTINATION-MAC DESTINATION PORT MOST");
	c.port = (unsigned)strtoul(argv[4], NULL, 10);
	c.most = (uint32_t)strtoul(argv[5], NULL, 10);
	c.iss = calloc(c.most + 1, sizeof(*c.iss));
	c.said = calloc(c.most + 1, 1);
	if (!c.iss || !c.said)
		errx(1, "out of memory");
	open_socket(argv[1]);
	p[1].fd = c.fd;
	for (;;) { /* between commands too it acknowledges */
		(void)poll(p, 2, -1);
		if (p[1].revents)
			receive(0);
		flush_frames();
		if (!p[0].revents)
			continue;
		if (!fgets(line, sizeof(line), stdin))
			return 0;
		command(line);
	}
}
