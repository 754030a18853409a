/* SPDX-License-Identifier: Apache-2.0 */
/* A SYN goes out by a raw socket; a packet socket on lo, which sees packets before netfilter, tells
 * whether it came back and whether an answer followed.
 */
#include "probe.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "wire/wire.h"

enum {
	ARRIVAL_MS =
		200, /* for the SYN to come by the tap: it is handled before sendto() returns */
	QUIET_MS = 50, /* then for an answer; the kernel's own comes in the same softirq */
};

struct probe {
	bool ipv6;
	uint16_t to, from;
	seqno iss;
	int tap, raw;
};

bool probe_is_up(bool ipv6)
{
	static const char one[] = "00000000000000000000000000000001";
	struct ifreq ifr = { .ifr_name = "lo" };
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char line[128];
	bool up = fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &ifr) == 0 && (ifr.ifr_flags & IFF_UP);
	FILE *f;

	if (fd >= 0)
		close(fd);
	if (!up || !ipv6)
		return up;
	f = fopen("/proc/net/if_inet6", "re");
	if (!f)
		return false;
	up = false;
	while (!up && fgets(line, sizeof(line), f))
		up = !strncmp(line, one, sizeof(one) - 1);
	(void)fclose(f);
	return up;
}

/* Only TCP between the two ports wakes us: lo may be busy. Both packets of interest are without IP
 * options or extension headers.
 */
static int tap_filter(const struct probe *p)
{
	const uint32_t protocol = p->ipv6 ? 6 : 9, sport = p->ipv6 ? 40 : 20, dport = sport + 2;
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, protocol),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 8),
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, sport),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, p->from, 0, 2),
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, dport),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, p->to, 3, 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, p->to, 0, 3),
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, dport),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, p->from, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 65535),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	const struct sock_fprog prog = { .len = ARRAY_SIZE(code), .filter = code };

	return setsockopt(p->tap, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0 ? -errno
											 : 0;
}

static int tap_open(struct probe *p)
{
	const int one = 1;
	struct sockaddr_ll at = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(p->ipv6 ? ETH_P_IPV6 : ETH_P_IP),
				  .sll_ifindex = (int)if_nametoindex("lo") };
	int rc;

	/* Protocol 0: it receives nothing before the filter stands and bind() says what. */
	p->tap = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (p->tap < 0)
		return -errno;
	rc = tap_filter(p);
	if (rc)
		return rc;
	/* lo shows each packet leaving and arriving: once is enough. */
	if (setsockopt(p->tap, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0)
		return -errno;
	return bind(p->tap, (struct sockaddr *)&at, sizeof(at)) < 0 ? -errno : 0;
}

static int syn_send(const struct probe *p)
{
	static const struct ipaddr one = { { [15] = 1 } };
	const struct ipaddr lo = p->ipv6 ? one : addr_v4(127, 0, 0, 1);
	const struct segment syn = { .flow = { .local = { lo, p->from }, .remote = { lo, p->to } },
				     .seq = p->iss,
				     .ctl = CTL_SYN,
				     .options = OPT_MSS,
				     .mss = 536,
				     .ttl = 64 };
	const struct sockaddr_in to4 = { .sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	struct wire_header h;
	ssize_t n;

	wire_encode(&syn, WIRE_FULL_CHECKSUM, &h);
	if (p->ipv6)
		n = sendto(p->raw, h.bytes, h.len, 0, (const struct sockaddr *)&to6, sizeof(to6));
	else
		n = sendto(p->raw, h.bytes, h.len, 0, (const struct sockaddr *)&to4, sizeof(to4));
	return n < 0 ? -errno : 0;
}

/* What the tap has: our SYN on its way in, or an answer to it. */
static void tap_read(const struct probe *p, bool *arrived, const char **answer)
{
	uint8_t packet[2048];
	ssize_t n;

	while ((n = recv(p->tap, packet, sizeof(packet), 0)) > 0) {
		struct segment s;

		if (wire_decode(packet, (size_t)n, WIRE_CHECKSUM_TRUSTED, &s) != WIRE_OK)
			continue;
		if (s.flow.local.port == p->to && (s.ctl & CTL_SYN) && seq_eq(s.seq, p->iss))
			*arrived = true;
		if (s.flow.remote.port == p->to && (s.ctl & CTL_ACK) &&
		    seq_eq(s.ack, seq_add(p->iss, 1)))
			*answer = s.ctl & CTL_RST ? "a RST" : "a SYN,ACK";
	}
}

static int watch(const struct probe *p, struct errmsg *ret_err)
{
	uint64_t deadline = clock_monotonic_us() + ARRIVAL_MS * 1000ULL;
	const char *answer = NULL;
	bool arrived = false;

	for (;;) {
		const uint64_t now = clock_monotonic_us();
		struct pollfd poll_tap = { .fd = p->tap, .events = POLLIN };
		bool before = arrived;

		if (now >= deadline)
			break;
		(void)poll(&poll_tap, 1, (int)((deadline - now + 999) / 1000));
		tap_read(p, &arrived, &answer);
		if (answer)
			return errmsg(
				ret_err, -EPROTO,
				"the kernel answered a SYN to %s port %u with %s: the "
				"shield does not hold (another rule before ours in table raw?)",
				p->ipv6 ? "[::1]" : "127.0.0.1", p->to, answer);
		if (arrived && !before)
			deadline = clock_monotonic_us() + QUIET_MS * 1000ULL;
	}
	if (!arrived)
		return errmsg(ret_err, -EIO,
			      "a SYN sent to %s port %u did not come back by lo within %d ms",
			      p->ipv6 ? "[::1]" : "127.0.0.1", p->to, ARRIVAL_MS);
	return 0;
}

int probe_loopback(bool ipv6, uint16_t to, uint16_t from, struct errmsg *ret_err)
{
	struct probe p = { .ipv6 = ipv6, .to = to, .from = from, .tap = -1, .raw = -1 };
	int rc;

	if (getrandom(&p.iss, sizeof(p.iss), 0) != sizeof(p.iss))
		return errmsg(ret_err, -EIO, "self-test: no random number");
	rc = tap_open(&p);
	if (!rc) {
		/* IPPROTO_RAW: for sending alone, with our own IP header. */
		p.raw = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
		rc = p.raw < 0 ? -errno : syn_send(&p);
	}
	if (rc)
		(void)errmsg(ret_err, rc, "self-test on lo: %s", strerror(-rc));
	else
		rc = watch(&p, ret_err);
	if (p.tap >= 0)
		close(p.tap);
	if (p.raw >= 0)
		close(p.raw);
	return rc;
}
