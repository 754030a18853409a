/* SPDX-License-Identifier: Apache-2.0 */
/* Both links against the kernel: two network namespaces and a veth between them, made here and gone
 * with this process. The addresses we send to belong to no kernel, so that nobody answers. A wait
 * ends when the expected packet is there; its limit is for failures.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/macros.h"
#include "link/hold.h"
#include "link/link.h"
#include "wire/wire.h"

enum {
	WAIT_MS = 3000,
	SKIP = 77,
	SENTINEL = 65000, /* a port that ends what a test has sent */
	TEXT = 60000,
	MSS = 1428, /* with timestamps, what fits 1500 octets in both families */
};

static const uint8_t mac_a[6] = { 2, 0x77, 0, 0, 0, 1 }, mac_b[6] = { 2, 0x77, 0, 0, 0, 2 };

/* What stands for every test: a in namespace ns_a at va, b in ns_b at vb, raw in ns_a. */
static struct rig {
	int ns_a, ns_b;
	unsigned va, vb;
	struct link *a, *b, *raw;
} rig = { .ns_a = -1, .ns_b = -1 };

static uint8_t text[TEXT + 20000];

static void enter(int ns)
{
	if (setns(ns, CLONE_NEWNET)) {
		perror("setns");
		abort();
	}
}

PRINTF_LIKE(1, 2) static void sh(const char *fmt, ...)
{
	char line[300];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (system(line)) {
		(void)fprintf(stderr, "failed: %s\n", line);
		abort();
	}
}

static int new_namespace(void)
{
	if (unshare(CLONE_NEWNET)) {
		(void)printf("skipped: no network namespace can be made: %s\n", strerror(errno));
		exit(SKIP);
	}
	return open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
}

/* Until the kernel has given the device its queue, it throws away what is sent. That happens on a
 * kernel thread of its own, later than "up"; `ip` asks under the lock that the thread holds meanwhile.
 */
static void await_running(const char *dev)
{
	for (int i = 0; i < 2000; i++) {
		struct ifreq r = { 0 };
		const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

		(void)snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", dev);
		assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &r), 0);
		(void)close(fd);
		if (r.ifr_flags & IFF_RUNNING) {
			sh("ip link show %s >/dev/null", dev);
			return;
		}
		(void)usleep(1000);
	}
	fail_msg("%s has no carrier", dev);
}

static void make_network(void)
{
	rig.ns_b = new_namespace();
	rig.ns_a = new_namespace();
	sh("ip link set lo up");
	sh("ip link add va address 02:77:00:00:00:01 type veth peer name vb address "
	   "02:77:00:00:00:02 "
	   "netns /proc/%d/fd/%d",
	   getpid(), rig.ns_b);
	sh("ip addr add 10.77.0.1/24 dev va && ip addr add fd77::1/64 dev va nodad && ip link set "
	   "va up");
	rig.va = if_nametoindex("va");
	enter(rig.ns_b);
	sh("ip addr add 10.77.0.2/24 dev vb && ip addr add fd77::2/64 dev vb nodad && ip link set "
	   "vb up");
	rig.vb = if_nametoindex("vb");
	await_running("vb");
	enter(rig.ns_a);
	await_running("va");
}

/* One of the kernel's switches for what a device does for it. */
static void offload(const char *dev, uint32_t cmd, bool on)
{
	struct ethtool_value v = { .cmd = cmd, .data = on };
	struct ifreq r = { .ifr_data = (char *)&v };
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", dev);
	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, SIOCETHTOOL, &r), 0);
	(void)close(fd);
}

static void offloads_of_va(bool on)
{
	enter(rig.ns_a);
	offload("va", ETHTOOL_STXCSUM, on);
	offload("va", ETHTOOL_SGSO, on);
	offload("va", ETHTOOL_STSO, on);
}

static void own(struct link *l, const struct link_owned *owned, size_t n, bool neigh)
{
	assert_int_equal(l->ops->set_owned(l, owned, n, neigh), 0);
}

static void own_ports(struct link *l, uint16_t min, uint16_t max)
{
	const struct link_owned owned[] = { { addr_any, min, max, false },
					    { addr_any, SENTINEL, SENTINEL, false } };

	own(l, owned, 2, false);
}

static bool wait_readable(const struct link *l)
{
	struct pollfd p = { .fd = l->ops->fd(l), .events = POLLIN };

	return poll(&p, 1, WAIT_MS) > 0;
}

static int receive(struct link *l, struct frame *f, unsigned max)
{
	bool more;

	l->ops->release(l, 0);
	return l->ops->receive(l, f, max, &more);
}

/* The next frame. False: nothing came within the limit. */
static bool next_frame(struct link *l, struct frame *f)
{
	for (;;) {
		const int n = receive(l, f, 1);

		assert_in_range(n, 0, 1);
		if (n == 1)
			return true;
		if (!wait_readable(l))
			return false;
	}
}

static void assert_decodes(const struct frame *f, struct segment *seg)
{
	assert_false(f->neigh);
	assert_int_equal(
		wire_decode(f->data, f->len,
			    f->checksum_trusted ? WIRE_CHECKSUM_TRUSTED : WIRE_CHECKSUM_VERIFY,
			    seg),
		WIRE_OK);
}

static struct ipaddr ip(const char *s)
{
	struct ipaddr a;

	assert_int_equal(addr_parse(s, &a), 0);
	return a;
}

/* From the usual source address of dst's family. */
static struct segment segment_to(const char *dst, uint16_t port)
{
	struct segment s = { .flow.remote = { ip(dst), port },
			     .flow.local = { ip("10.77.0.1"), 4000 },
			     .seq = { 1000 },
			     .ctl = CTL_ACK,
			     .wnd = 1000,
			     .ttl = 64 };

	if (!addr_is_v4(&s.flow.remote.addr))
		s.flow.local.addr = ip("fd77::1");
	if (addr_is_loopback(&s.flow.remote.addr))
		s.flow.local.addr = s.flow.remote.addr;
	return s;
}

static void put(struct link *l, const struct frame_out *f)
{
	if (!l->ops->has_room(l))
		l->ops->flush(l);
	l->ops->send(l, f);
}

/* Sends seg by a packet link on Ethernet: the device does what `offload` and piece_bytes say. */
static void send_by(struct link *l, unsigned ifindex, const struct segment *seg,
		    enum wire_offload o)
{
	struct wire_header h;
	struct frame_out f = { .ifindex = ifindex,
			       .ethernet = true,
			       .ipv6 = !addr_is_v4(&seg->flow.remote.addr),
			       .checksum_partial = o == WIRE_PARTIAL_CHECKSUM,
			       .piece_bytes = seg->piece_bytes,
			       .text_n = seg->spans_n };

	wire_encode(seg, o, &h);
	memcpy(f.dst_mac, l == rig.a ? mac_b : mac_a, 6);
	memcpy(f.src_mac, l == rig.a ? mac_a : mac_b, 6);
	f.header = h.bytes;
	f.header_len = h.len;
	f.ip_len = h.ip_len;
	for (unsigned i = 0; i < seg->spans_n; i++)
		f.text[i] = (struct iovec){ text + (seg->text[i].base - text), seg->text[i].len };
	put(l, &f);
}

static void send_raw(const struct segment *seg, uint32_t scope)
{
	struct wire_header h;
	struct frame_out f = { .ipv6 = !addr_is_v4(&seg->flow.remote.addr),
			       .dst = seg->flow.remote.addr,
			       .scope = scope,
			       .text_n = seg->spans_n };

	wire_encode(seg, WIRE_FULL_CHECKSUM, &h);
	f.header = h.bytes;
	f.header_len = h.len;
	f.ip_len = h.ip_len;
	for (unsigned i = 0; i < seg->spans_n; i++)
		f.text[i] = (struct iovec){ text + (seg->text[i].base - text), seg->text[i].len };
	put(rig.raw, &f);
	rig.raw->ops->flush(rig.raw);
}

static void a_sends(const char *dst, uint16_t port)
{
	const struct segment s = segment_to(dst, port);

	send_by(rig.a, rig.va, &s, WIRE_FULL_CHECKSUM);
}

/* Ports of what arrives at l up to the sentinel, in order, into ret. Their number. */
static unsigned ports_until_sentinel(struct link *l, uint16_t *ret, unsigned max)
{
	struct frame f;
	struct segment s;

	for (unsigned n = 0; n < max; n++) {
		assert_true(next_frame(l, &f));
		assert_decodes(&f, &s);
		if (s.flow.local.port == SENTINEL)
			return n;
		ret[n] = s.flow.local.port;
	}
	fail_msg("no sentinel");
	return max;
}

static void drain(struct link *l)
{
	struct frame f[16];

	while (receive(l, f, 16) > 0)
		;
}

static struct link_counters count(struct link *l)
{
	struct link_counters c;

	l->ops->counters(l, &c);
	return c;
}

static int make_rig(void **state)
{
	struct errmsg err;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (uint8_t)(i * 2654435761u >> 13);
	make_network();
	if (link_packet_new(NULL, &rig.a, &err) || link_rawip_new(&rig.raw, &err)) {
		(void)fprintf(stderr, "%s\n", err.text);
		return -1;
	}
	enter(rig.ns_b);
	if (link_packet_new(NULL, &rig.b, &err)) {
		(void)fprintf(stderr, "%s\n", err.text);
		return -1;
	}
	enter(rig.ns_a);
	return 0;
}

static int free_rig(void **state)
{
	rig.a->ops->free(rig.a);
	rig.b->ops->free(rig.b);
	rig.raw->ops->free(rig.raw);
	return 0;
}

static int fresh(void **state)
{
	own(rig.a, NULL, 0, false);
	own(rig.b, NULL, 0, false);
	drain(rig.a);
	drain(rig.b);
	offloads_of_va(true);
	return 0;
}

static void nothing_is_received_before_set_owned(void **state)
{
	struct link *fresh_link;
	struct link_counters c;
	uint16_t ports[1];

	enter(rig.ns_b);
	assert_int_equal(link_packet_new(NULL, &fresh_link, NULL), 0);
	enter(rig.ns_a);
	own_ports(rig.b, SENTINEL, SENTINEL);
	a_sends("10.77.0.3", 7);
	a_sends("10.77.0.3", SENTINEL);
	rig.a->ops->flush(rig.a);
	assert_int_equal(ports_until_sentinel(rig.b, ports, 1), 0);
	own_ports(fresh_link, 1, 65535);
	a_sends("10.77.0.3", SENTINEL);
	rig.a->ops->flush(rig.a);
	assert_int_equal(ports_until_sentinel(fresh_link, ports, 1), 0);
	c = count(fresh_link);
	assert_int_equal(c.frames_in, 1);
	assert_int_equal(c.bytes_in, 40);
	fresh_link->ops->free(fresh_link);
}

static void only_what_is_owned_is_received(void **state)
{
	const struct link_owned owned[] = { { ip("10.77.0.3"), 80, 90, false },
					    { ip("fd77::3"), 443, 443, false },
					    { addr_any, 5000, 5001, false },
					    { addr_any4, 6000, 6000, false },
					    { ip("10.77.0.3"), SENTINEL, SENTINEL, false } };
	static const struct {
		const char *dst;
		uint16_t port;
		bool ours;
	} cases[] = {
		{ "10.77.0.3", 79, false },      { "10.77.0.3", 80, true },
		{ "10.77.0.3", 90, true },       { "10.77.0.3", 91, false },
		{ "10.77.0.4", 85, false },      { "fd77::3", 85, false },
		{ "fd77::3", 443, true },        { "fd77::4", 443, false },
		{ "fd77:0:0:1::3", 443, false }, { "10.77.0.3", 443, false },
		{ "10.77.0.9", 5000, true },     { "fd77::9", 5001, true },
		{ "10.77.0.9", 5002, false },    { "10.77.0.9", 6000, true },
		{ "fd77::9", 6000, false },
	};
	uint16_t got[32], want[32];
	unsigned n = 0;

	own(rig.b, owned, ARRAY_SIZE(owned), false);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		a_sends(cases[i].dst, cases[i].port);
		if (cases[i].ours)
			want[n++] = cases[i].port;
	}
	a_sends("10.77.0.3", SENTINEL);
	rig.a->ops->flush(rig.a);
	assert_int_equal(ports_until_sentinel(rig.b, got, 32), n);
	assert_memory_equal(got, want, n * sizeof(want[0]));
}

static void a_list_too_long_for_the_kernel_still_receives(void **state)
{
	enum { N = 5000 };
	struct link_owned *owned = calloc(N, sizeof(*owned));
	uint16_t got[8];

	assert_non_null(owned);
	for (unsigned i = 0; i < N; i++)
		owned[i] = (struct link_owned){ addr_v4(10, 99, (uint8_t)(i >> 8), (uint8_t)i),
						SENTINEL, SENTINEL, false };
	own(rig.b, owned, N, false);
	a_sends("10.77.0.3", 7); /* by port alone it can be told from ours */
	a_sends("10.77.0.3", SENTINEL);
	rig.a->ops->flush(rig.a);
	assert_int_equal(ports_until_sentinel(rig.b, got, 8), 0);
	for (unsigned i = 0; i < N; i++)
		owned[i].port_min = owned[i].port_max = (uint16_t)(2 * i + 1);
	own(rig.b, owned, N, false);
	a_sends("10.77.0.3", 7);
	a_sends("10.77.0.3", SENTINEL); /* not even asked for: all TCP passes */
	rig.a->ops->flush(rig.a);
	assert_int_equal(ports_until_sentinel(rig.b, got, 8), 1);
	free(owned);
}

static void what_we_send_is_not_received_by_us(void **state)
{
	struct segment s = segment_to("10.77.0.4", SENTINEL);
	uint16_t got[4];

	own_ports(rig.a, 1, 65535);
	own_ports(rig.b, 7, 7);
	a_sends("10.77.0.3", 7);
	a_sends("10.77.0.3", SENTINEL);
	rig.a->ops->flush(rig.a);
	assert_int_equal(ports_until_sentinel(rig.b, got, 4), 1);
	send_by(rig.b, rig.vb, &s, WIRE_FULL_CHECKSUM);
	rig.b->ops->flush(rig.b);
	assert_int_equal(ports_until_sentinel(rig.a, got, 4), 0);
}

static void frames_for_another_mac_are_not_received(void **state)
{
	const struct segment s = segment_to("10.77.0.3", 7);
	struct wire_header h;
	struct frame_out f = { .ifindex = rig.va,
			       .ethernet = true,
			       .dst_mac = { 2, 0x77, 0, 0, 0, 9 } };
	uint16_t got[4];

	wire_encode(&s, WIRE_FULL_CHECKSUM, &h);
	f.header = h.bytes;
	f.header_len = h.len;
	f.ip_len = h.ip_len;
	own_ports(rig.b, 7, 7);
	put(rig.a, &f);
	memset(f.dst_mac, 0xff, 6); /* broadcast */
	put(rig.a, &f);
	a_sends("10.77.0.3", SENTINEL);
	rig.a->ops->flush(rig.a);
	assert_int_equal(ports_until_sentinel(rig.b, got, 4), 0);
}

/* Of what is too large for a slot: where it is copied to and from, whole cache lines go faster. */
static void assert_begins_a_line(const struct segment *s)
{
	if (seg_text_len(s) > 2000)
		assert_int_equal((uintptr_t)s->text[0].base % 64, 0);
}

/* Receives len octets of text at b, in any order of frames. The number of frames. */
static unsigned receive_text(uint32_t len, uint16_t piece, bool super, uint8_t ctl)
{
	uint32_t got = 0;
	unsigned frames = 0;
	struct frame f;
	struct segment s;

	for (; got < len; frames++) {
		uint32_t n, at;

		assert_true(next_frame(rig.b, &f));
		assert_decodes(&f, &s);
		n = seg_text_len(&s);
		at = s.seq.v - 1000;
		assert_true(n > 0 && at + n <= len);
		assert_int_equal(s.spans_n, 1);
		assert_memory_equal(s.text[0].base, text + at, n);
		assert_begins_a_line(&s);
		assert_int_equal(f.ifindex, rig.vb);
		assert_int_equal(s.ctl & CTL_CWR, at == 0 ? ctl & CTL_CWR : 0);
		assert_int_equal(s.ctl & (CTL_FIN | CTL_PSH),
				 at + n == len ? ctl & (CTL_FIN | CTL_PSH) : 0);
		assert_int_equal(f.piece_bytes, super ? piece : 0);
		if (!super) {
			assert_true(n <= piece);
			assert_int_equal(wire_decode(f.data, f.len, WIRE_CHECKSUM_VERIFY, &s),
					 WIRE_OK);
		}
		got += n;
	}
	assert_int_equal(got, len);
	return frames;
}

static struct segment super_segment(const char *dst, uint32_t len)
{
	struct segment s = segment_to(dst, 7);

	s.ctl = CTL_ACK | CTL_PSH | CTL_FIN | CTL_CWR;
	s.options = OPT_TIMESTAMPS;
	s.piece_bytes = MSS;
	s.spans_n = 3;
	s.text[0] = (struct span){ text, 1001 };
	s.text[1] = (struct span){ text + 1001, 7 };
	s.text[2] = (struct span){ text + 1008, len - 1008 };
	return s;
}

static void super_segments_cross_whole_or_are_cut_by_the_kernel(void **state)
{
	static const uint32_t lens[] = { 30000, MSS + 1, TEXT };
	static const char *const dsts[] = { "10.77.0.3", "fd77::3" };

	own_ports(rig.b, 7, 7);
	for (unsigned i = 0; i < 12; i++) {
		const bool on = i % 2;
		const uint32_t len = lens[i / 4];
		const struct segment s = super_segment(dsts[i / 2 % 2], len);

		offloads_of_va(on);
		send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
		rig.a->ops->flush(rig.a);
		assert_int_equal(receive_text(len, MSS, on, s.ctl), on ? 1 : (len + MSS - 1) / MSS);
	}
	assert_int_equal(count(rig.a).send_failed, 0);
}

/* Octets that a packet has in one piece in the kernel, which a packet socket with PACKET_VNET_HDR says. */
static uint32_t piece_of(int fd)
{
	struct virtio_net_hdr vnet;
	struct pollfd p = { .fd = fd, .events = POLLIN };

	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	assert_true(recv(fd, &vnet, sizeof(vnet), 0) > 0);
	return vnet.hdr_len;
}

/* Where it is seen beside us: what is nearly 64 KiB has a block there, all else the pages that it needs. */
static void a_large_packet_is_one_piece_in_the_kernel(void **state)
{
	const struct sockaddr_ll at_vb = { .sll_family = AF_PACKET,
					   .sll_protocol = htons(ETH_P_ALL),
					   .sll_ifindex = (int)rig.vb };
	static const uint32_t lens[] = { 10 * MSS, TEXT, LINK_PIECE_MAX - 80, LINK_PIECE_MAX };
	static const bool one_piece[] = { false, true, true, false };
	const int one = 1;
	int fd;

	enter(rig.ns_b);
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)), 0);
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)), 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&at_vb, sizeof(at_vb)), 0);
	enter(rig.ns_a);
	offloads_of_va(true);
	for (unsigned i = 0; i < 4; i++) {
		const struct segment s = super_segment("10.77.0.3", lens[i]);
		uint32_t piece;

		send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
		rig.a->ops->flush(rig.a);
		piece = piece_of(fd);
		if (one_piece[i])
			assert_in_range(piece, lens[i] + 40, lens[i] + 100);
		else
			assert_true(piece < 200);
	}
	(void)close(fd);
	assert_int_equal(count(rig.a).send_failed, 0);
}

/* What the kernel keeps for the packet sockets of a namespace, by packet(7)'s /proc/net/packet. */
static unsigned long kept_in(int ns)
{
	char line[256];
	unsigned long sum = 0, rmem;
	FILE *f;

	enter(ns);
	f = fopen("/proc/thread-self/net/packet", "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*s %*s %*s %*s %*s %*s %lu", &rmem) == 1)
			sum += rmem;
	}
	(void)fclose(f);
	enter(rig.ns_a);
	return sum;
}

static void text_that_was_sent_is_kept_until_it_is_trimmed(void **state)
{
	const struct segment small = super_segment("10.77.0.3", 2 * MSS);
	const struct segment large = super_segment("10.77.0.3", TEXT);

	rig.a->ops->trim(rig.a);
	assert_int_equal(kept_in(rig.ns_a), 0);
	send_by(rig.a, rig.va, &small, WIRE_PARTIAL_CHECKSUM);
	rig.a->ops->flush(rig.a);
	assert_int_equal(kept_in(rig.ns_a), 0);
	for (unsigned i = 0; i < 100; i++) {
		send_by(rig.a, rig.va, &large, WIRE_PARTIAL_CHECKSUM);
		rig.a->ops->flush(rig.a);
		assert_in_range(kept_in(rig.ns_a), TEXT, 2UL * (HOLD_PACKETS + HOLD_EXTRA) * TEXT);
	}
	assert_true(kept_in(rig.ns_a) >= (unsigned long)HOLD_PACKETS * TEXT);
	assert_in_range(count(rig.a).kept, HOLD_PACKETS, HOLD_PACKETS + HOLD_EXTRA - 1);
	rig.a->ops->trim(rig.a);
	assert_int_equal(kept_in(rig.ns_a), 0);
	assert_int_equal(count(rig.a).kept, 0);
}

/* Its headers count as well, and so two may be sent after one that was read. */
static void an_answer_to_as_much_is_not_kept(void **state)
{
	const struct segment s = super_segment("10.77.0.3", TEXT);

	rig.b->ops->trim(rig.b);
	own_ports(rig.b, 7, 7);
	send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
	rig.a->ops->flush(rig.a);
	assert_int_equal(receive_text(TEXT, MSS, true, s.ctl), 1);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(kept_in(rig.ns_b), 0);
		send_by(rig.b, rig.vb, &s, WIRE_PARTIAL_CHECKSUM);
		rig.b->ops->flush(rig.b);
	}
	assert_in_range(kept_in(rig.ns_b), TEXT, 2UL * TEXT);
	rig.b->ops->trim(rig.b);
}

/* Of a super-segment to a port where nobody reads; what the device has cut comes whole, and so does what others read. */
static void text_that_nobody_reads_stays_in_the_kernel(void **state)
{
	const struct link_owned owned[] = { { addr_any, 7, 7, true },
					    { addr_any, SENTINEL, SENTINEL, false } };
	static const char *const dsts[] = { "10.77.0.3", "fd77::3" };

	own(rig.b, owned, 2, false);
	for (unsigned i = 0; i < 4; i++) {
		struct segment s = super_segment(dsts[i / 2], TEXT), got;
		const uint64_t before = count(rig.b).headers_only;
		const bool on = i % 2;
		struct frame f;

		offloads_of_va(on);
		send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
		s.flow.remote.port = SENTINEL;
		send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
		rig.a->ops->flush(rig.a);
		if (!on) {
			for (unsigned k = 0; k < 2 * ((TEXT + MSS - 1) / MSS); k++) {
				assert_true(next_frame(rig.b, &f));
				assert_false(f.headers_only);
			}
			assert_int_equal(count(rig.b).headers_only, before);
			continue;
		}
		assert_true(next_frame(rig.b, &f));
		assert_true(f.headers_only && f.checksum_trusted);
		assert_int_equal(f.piece_bytes, MSS);
		assert_int_equal(wire_decode(f.data, f.len, WIRE_CHECKSUM_TRUSTED, &got), WIRE_OK);
		assert_int_equal(got.flow.local.port, 7);
		assert_int_equal(got.options, OPT_TIMESTAMPS);
		assert_int_equal(got.text[0].len, TEXT);
		assert_int_equal(count(rig.b).headers_only, before + 1);
		assert_true(next_frame(rig.b, &f));
		assert_false(f.headers_only);
		assert_int_equal(wire_decode(f.data, f.len, WIRE_CHECKSUM_TRUSTED, &got), WIRE_OK);
		assert_int_equal(got.text[0].len, TEXT);
		assert_memory_equal(got.text[0].base, text, TEXT);
	}
}

static void a_partial_checksum_is_finished_when_the_device_cannot(void **state)
{
	own_ports(rig.b, 7, 7);
	for (unsigned i = 0; i < 4; i++) {
		struct segment s = super_segment(i / 2 ? "10.77.0.3" : "fd77::3", 1200);
		struct frame f;

		offloads_of_va(i % 2);
		send_by(rig.a, rig.va, &s,
			WIRE_PARTIAL_CHECKSUM); /* less than one piece: not cut */
		rig.a->ops->flush(rig.a);
		assert_true(next_frame(rig.b, &f));
		assert_int_equal(f.piece_bytes, 0);
		assert_int_equal(f.checksum_trusted, i % 2);
		assert_decodes(&f, &s);
		assert_int_equal(wire_decode(f.data, f.len, WIRE_CHECKSUM_VERIFY, &s),
				 i % 2 ? WIRE_BAD_TCP_CHECKSUM : WIRE_OK);
	}
}

static void a_wrong_checksum_is_not_vouched_for(void **state)
{
	struct segment s = segment_to("10.77.0.3", 7);
	struct wire_header h;
	struct frame f;
	struct frame_out out = { .ifindex = rig.va, .ethernet = true };

	wire_encode(&s, WIRE_FULL_CHECKSUM, &h);
	h.bytes[36] ^= 0x55;
	out.header = h.bytes;
	out.header_len = h.len;
	out.ip_len = h.ip_len;
	memcpy(out.dst_mac, mac_b, 6);
	own_ports(rig.b, 7, 7);
	put(rig.a, &out);
	rig.a->ops->flush(rig.a);
	assert_true(next_frame(rig.b, &f));
	assert_false(f.checksum_trusted);
	assert_int_equal(wire_decode(f.data, f.len, WIRE_CHECKSUM_VERIFY, &s),
			 WIRE_BAD_TCP_CHECKSUM);
}

static void send_fragment(uint8_t high, uint8_t low)
{
	struct segment s = segment_to("10.77.0.3", 7);
	struct wire_header h;
	struct frame_out f = { .ifindex = rig.va, .ethernet = true };
	uint16_t sum;

	wire_encode(&s, WIRE_FULL_CHECKSUM, &h);
	h.bytes[6] = high;
	h.bytes[7] = low;
	memset(h.bytes + 10, 0, 2);
	sum = (uint16_t)~wire_sum_fold(wire_sum(0, h.bytes, 20));
	memcpy(h.bytes + 10, &sum, 2);
	f.header = h.bytes;
	f.header_len = h.len;
	f.ip_len = h.ip_len;
	memcpy(f.dst_mac, mac_b, 6);
	put(rig.a, &f);
}

static void first_fragments_are_seen_later_ones_not(void **state)
{
	struct frame f;
	struct segment s;

	own_ports(rig.b, 7, 7);
	send_fragment(0x00, 0x04);
	send_fragment(0x20, 0x04);
	send_fragment(0x20, 0x00);
	a_sends("10.77.0.3", SENTINEL);
	rig.a->ops->flush(rig.a);
	assert_true(next_frame(rig.b, &f));
	assert_int_equal(wire_decode(f.data, f.len, WIRE_CHECKSUM_VERIFY, &s), WIRE_FRAGMENT);
	assert_true(next_frame(rig.b, &f));
	assert_decodes(&f, &s);
	assert_int_equal(s.flow.local.port, SENTINEL);
}

/* A whole frame with an 802.1Q header. */
static void send_tagged(uint16_t port, uint16_t tci)
{
	const struct segment s = segment_to("10.77.0.3", port);
	struct wire_header h;
	uint8_t frame[18 + WIRE_HEADER_MAX];
	const uint8_t tag[6] = { 0x81, 0, (uint8_t)(tci >> 8), (uint8_t)tci, 8, 0 };
	struct frame_out f = { .ifindex = rig.va, .neigh = true, .header = frame };

	wire_encode(&s, WIRE_FULL_CHECKSUM, &h);
	memcpy(frame, mac_b, 6);
	memcpy(frame + 6, mac_a, 6);
	memcpy(frame + 12, tag, 6);
	memcpy(frame + 18, h.bytes, h.len);
	f.header_len = (uint16_t)(18 + h.len);
	put(rig.a, &f);
}

static void tagged_frames_belong_to_their_vlan(void **state)
{
	uint16_t got[4];

	own_ports(rig.b, 7, 9);
	send_tagged(7, 5);
	send_tagged(8, 0xe000); /* priority 7, no VLAN */
	send_tagged(9, 0xe005);
	a_sends("10.77.0.3", SENTINEL);
	rig.a->ops->flush(rig.a);
	assert_int_equal(ports_until_sentinel(rig.b, got, 4), 1);
	assert_int_equal(got[0], 8);
}

static void ipv6_extension_headers_reach_user_space(void **state)
{
	struct segment s = segment_to("fd77::3", 7), sentinel = segment_to("fd77::3", SENTINEL);
	struct wire_header h;
	uint8_t packet[8 + WIRE_HEADER_MAX];
	static const uint8_t hop_by_hop[8] = { 6, 0, 1, 4, 0, 0, 0, 0 };
	struct frame_out f = {
		.ifindex = rig.va, .ethernet = true, .ipv6 = true, .header = packet
	};
	uint16_t got[4];

	wire_encode(&s, WIRE_FULL_CHECKSUM, &h);
	memcpy(packet, h.bytes, 40);
	packet[5] = (uint8_t)(packet[5] + 8);
	packet[6] = 0;
	memcpy(packet + 40, hop_by_hop, 8);
	memcpy(packet + 48, h.bytes + 40, h.len - 40u);
	f.header_len = (uint16_t)(h.len + 8);
	f.ip_len = 48;
	memcpy(f.dst_mac, mac_b, 6);
	own_ports(rig.b, 7, 7);
	put(rig.a, &f);
	send_by(rig.a, rig.va, &sentinel, WIRE_FULL_CHECKSUM);
	rig.a->ops->flush(rig.a);
	assert_int_equal(ports_until_sentinel(rig.b, got, 4), 1);
	assert_int_equal(got[0], 7);
}

static void rawip_on_lo_is_seen_once(void **state)
{
	static const char *const dsts[] = { "127.0.0.1", "::1" };
	const unsigned lo = if_nametoindex("lo");
	struct frame f;
	struct segment got;

	own_ports(rig.a, 7, 7);
	for (unsigned i = 0; i < 2; i++) {
		struct segment s = segment_to(dsts[i], 7);

		s.spans_n = 2;
		s.text[0] = (struct span){ text, 33333 }; /* lo's MTU takes a whole super-segment */
		s.text[1] = (struct span){ text + 33333, 20000 };
		send_raw(&s, 0);
		s = segment_to(dsts[i], SENTINEL);
		send_raw(&s, 0);
		assert_true(next_frame(rig.a, &f));
		assert_int_equal(f.ifindex, lo);
		assert_decodes(&f, &got);
		assert_int_equal(seg_text_len(&got), 53333);
		assert_memory_equal(got.text[0].base, text, 53333);
		assert_true(next_frame(rig.a, &f));
		assert_decodes(&f, &got);
		assert_int_equal(got.flow.local.port, SENTINEL);
	}
	assert_int_equal(rig.raw->ops->fd(rig.raw), -1);
	assert_int_equal(receive(rig.raw, &f, 1), 0);
}

static void rawip_counts_what_the_kernel_refuses(void **state)
{
	const struct link_counters before = count(rig.raw);
	struct segment s = segment_to("10.77.0.2", 7);
	struct link_counters c;

	s.spans_n = 1;
	s.text[0] = (struct span){ text, 3000 };
	send_raw(&s, 0);
	s.flow.remote.addr = ip("fd77::2");
	s.flow.local.addr = ip("fd77::1");
	send_raw(&s, 0);
	c = count(rig.raw);
	assert_int_equal(c.send_too_big, before.send_too_big + 2);
	s = segment_to("192.0.2.1", 7); /* no route */
	send_raw(&s, 0);
	c = count(rig.raw);
	assert_int_equal(c.send_failed, before.send_failed + 1);
	assert_int_equal(c.frames_out, before.frames_out);
}

/* The kernel in ns_a asks who has `dst`; b answers for it; what waited arrives. */
static void resolve(const char *dst, const char *from)
{
	const struct link_owned owned = { ip(dst), 7, 7, false };
	struct segment s = segment_to(dst, 7);
	uint8_t answer[WIRE_NEIGH_MAX];
	struct frame f;
	struct frame_out out = { .ifindex = rig.vb, .neigh = true, .header = answer };
	struct ipaddr target;

	s.flow.local.addr = ip(from);
	own(rig.b, &owned, 1, true);
	send_raw(&s, addr_is_link_local6(&s.flow.remote.addr) ? rig.va : 0);
	do {
		assert_true(next_frame(rig.b, &f));
		assert_true(f.neigh);
	} while (!wire_neigh_query(f.data, f.len, &target) || !addr_eq(&target, &owned.addr));
	out.header_len = (uint16_t)wire_neigh_answer(f.data, f.len, mac_b, answer);
	assert_true(out.header_len > 0);
	put(rig.b, &out);
	rig.b->ops->flush(rig.b);
	do
		assert_true(next_frame(rig.b, &f));
	while (f.neigh);
	assert_decodes(&f, &s);
	assert_int_equal(s.flow.local.port, 7);
	assert_true(addr_eq(&s.flow.local.addr, &owned.addr));
}

static void neighbours_are_answered_for_an_address_of_our_own(void **state)
{
	char *line = NULL, text_addr[ADDR_TEXT] = "";
	size_t cap = 0;
	FILE *p;

	resolve("10.77.0.33", "10.77.0.1");
	resolve("fd77::33", "fd77::1");
	/* Link-local needs the scope: our own address there is the kernel's choice. */
	p = popen("ip -6 -o addr show dev va scope link", "r");
	assert_non_null(p);
	assert_true(getline(&line, &cap, p) > 0);
	assert_int_equal(sscanf(line, "%*s %*s inet6 %39[0-9a-f:]", text_addr), 1);
	(void)pclose(p);
	free(line);
	resolve("fe80::7733", text_addr);
}

/* A card hands up only the multicast addresses it was told of. */
static bool vb_listens_to(const char *group_mac)
{
	char line[200];
	FILE *p = popen("ip maddr show dev vb", "r");
	bool found = false;

	assert_non_null(p);
	while (fgets(line, sizeof(line), p))
		found |= strstr(line, group_mac) != NULL;
	(void)pclose(p);
	return found;
}

static void solicited_node_groups_are_joined(void **state)
{
	const struct link_owned owned[] = { { ip("fd77::aa:7744"), 7, 7, false },
					    { addr_any, 8, 8, false } };

	enter(rig.ns_b);
	assert_false(vb_listens_to("33:33:ff:aa:77:44"));
	own(rig.b, owned, 2, false);
	assert_false(vb_listens_to("33:33:ff:aa:77:44"));
	own(rig.b, owned, 2, true);
	own(rig.b, owned, 2, true);
	assert_true(vb_listens_to("33:33:ff:aa:77:44"));
	enter(rig.ns_a);
}

static void one_refused_packet_does_not_hold_up_the_others(void **state)
{
	const struct link_counters before = count(rig.a);
	struct segment s = segment_to("10.77.0.3", 7);
	struct link_counters c;
	uint16_t got[8];

	own_ports(rig.b, 7, 7);
	a_sends("10.77.0.3", 7);
	send_by(rig.a, 9999, &s, WIRE_FULL_CHECKSUM); /* ENXIO */
	s.spans_n = 1;
	s.text[0] = (struct span){ text, 3000 };
	send_by(rig.a, rig.va, &s, WIRE_FULL_CHECKSUM); /* EMSGSIZE */
	a_sends("10.77.0.3", 7);
	a_sends("10.77.0.3", SENTINEL);
	rig.a->ops->flush(rig.a);
	assert_int_equal(ports_until_sentinel(rig.b, got, 8), 2);
	c = count(rig.a);
	assert_int_equal(c.send_failed, before.send_failed + 1);
	assert_int_equal(c.send_too_big, before.send_too_big + 1);
	assert_int_equal(c.frames_out, before.frames_out + 3);
	assert_int_equal(c.bytes_out, before.bytes_out + 120);
}

static void an_interface_that_goes_down_is_survived(void **state)
{
	const struct link_counters before = count(rig.a);
	uint16_t got[4];

	own_ports(rig.b, 7, 7);
	sh("ip link set va down");
	a_sends("10.77.0.3", 7); /* ENETDOWN */
	rig.a->ops->flush(rig.a);
	assert_int_equal(count(rig.a).send_failed, before.send_failed + 1);
	sh("ip link set va up && ip addr replace fd77::1/64 dev va nodad");
	drain(rig.b);
	a_sends("10.77.0.3", 7);
	a_sends("10.77.0.3", SENTINEL);
	rig.a->ops->flush(rig.a);
	assert_int_equal(ports_until_sentinel(rig.b, got, 4), 1);
}

static void batches_of_many_keep_order_and_count(void **state)
{
	enum { N = 300 };
	const struct link_counters before = count(rig.b);
	struct frame f[100];
	uint32_t next = 0;

	own_ports(rig.b, 7, 7);
	for (uint32_t i = 0; i < N; i++) {
		struct segment s = segment_to("fd77::3", 7);

		s.seq.v = i;
		send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
	}
	rig.a->ops->flush(rig.a);
	while (next < N) {
		const int n = receive(rig.b, f, 100);

		assert_true(n > 0 || (n == 0 && wait_readable(rig.b)));
		for (int i = 0; i < n; i++) {
			struct segment s;

			assert_decodes(&f[i], &s);
			assert_int_equal(s.seq.v, next++);
		}
	}
	assert_int_equal(count(rig.b).frames_in, before.frames_in + N);
	assert_int_equal(count(rig.b).bytes_in, before.bytes_in + N * 60);
}

/* Those that a slot has room for, and those that wait whole; in turns, and of all lengths around the border. */
static uint32_t length_of(uint32_t n)
{
	static const uint32_t some[] = { 0, 40000, 1, TEXT, 100, 7000 };

	return n % 2 ? 1500 + n / 2 % 200 : some[n / 2 % ARRAY_SIZE(some)];
}

static void small_and_large_packets_keep_their_order(void **state)
{
	enum { N = 40, ROUNDS = 20 };
	uint32_t next = 0, sent = 0;

	own_ports(rig.b, 7, 7);
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < N; i++, sent++) {
			struct segment s = segment_to("10.77.0.3", 7);

			s.seq.v = sent;
			s.spans_n = 1;
			s.text[0] = (struct span){ text, length_of(sent) };
			s.piece_bytes = s.text[0].len > MSS ? MSS : 0;
			send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
		}
		rig.a->ops->flush(rig.a);
		for (unsigned i = 0; i < N; i++, next++) {
			struct segment got;
			struct frame f;

			assert_true(next_frame(rig.b, &f));
			assert_decodes(&f, &got);
			assert_int_equal(got.seq.v, next);
			assert_int_equal(seg_text_len(&got), length_of(next));
			assert_begins_a_line(&got);
			assert_true(!seg_text_len(&got) ||
				    !memcmp(got.text[0].base, text, got.text[0].len));
		}
	}
	assert_int_equal(count(rig.b).kernel_drops, 0);
}

/* Super-segments are kept, by their numbers, three times as many as there are buffers. The first ones are called back. */
static void what_is_kept_stays_until_it_is_called_back(void **state)
{
	enum { N = 800, LEN = 30000 };
	static uint64_t loans[N];
	static const uint8_t *at[N];
	unsigned first = 0, most = 0;

	own_ports(rig.b, 7, 7);
	for (unsigned i = 0; i < N; i++) {
		struct segment s = segment_to("10.77.0.3", 7), got;
		struct frame f;
		uint64_t upto;
		bool more;

		s.spans_n = 1;
		s.text[0] = (struct span){ text + i, LEN };
		s.piece_bytes = MSS;
		send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
		rig.a->ops->flush(rig.a);
		while (!rig.b->ops->receive(rig.b, &f, 1, &more))
			assert_true(wait_readable(rig.b));
		assert_decodes(&f, &got);
		loans[i] = f.loan;
		at[i] = got.text[0].base;
		assert_true(i == 0 ? f.loan > 0 : f.loan > loans[i - 1]);
		upto = rig.b->ops->recalls(rig.b);
		while (first < i && loans[first] <= upto)
			first++;
		rig.b->ops->release(rig.b, loans[first]);
		for (unsigned k = first; k <= i; k += 1 + (i - first) / 5)
			assert_memory_equal(at[k], text + k, LEN);
		most = i - first > most ? i - first : most;
	}
	assert_in_range(most, 30, 254);
	assert_int_equal(count(rig.b).kernel_drops, 0);
	rig.b->ops->trim(rig.b); /* not what is kept */
	assert_memory_equal(at[N - 1], text + N - 1, LEN);
	rig.b->ops->release(rig.b, 0);
	rig.b->ops->trim(rig.b);
	assert_memory_not_equal(at[N - 1], text + N - 1, LEN);
}

/* Three links part what comes: each flow's packets, small and large, at the link that steer_worker() names. */
static void links_of_a_group_part_flows(void **state)
{
	enum { LINKS = 3, FLOWS = 60 };
	struct link_group group = { .steer = { .workers = LINKS,
					       .key = { 0x9e3779b1, 0x85ebca77 } } };
	struct link *links[LINKS];
	unsigned got[LINKS] = { 0 }, want[LINKS] = { 0 };
	struct errmsg err;

	enter(rig.ns_b);
	for (unsigned i = 0; i < LINKS; i++) {
		assert_int_equal(link_packet_new(&group, &links[i], &err), 0);
		own_ports(links[i], 7, 7);
	}
	enter(rig.ns_a);
	for (unsigned i = 0; i < FLOWS; i++) {
		struct segment s = segment_to(i % 2 ? "10.77.0.3" : "fd77::3", 7);

		s.flow.local.port = (uint16_t)(5000 + i);
		s.spans_n = 1;
		s.text[0] = (struct span){ text, i % 3 ? 100 : 20000 };
		s.piece_bytes = i % 3 ? 0 : MSS;
		want[steer_worker(&group.steer, &s.flow.local.addr, s.flow.local.port, 7)]++;
		send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
	}
	rig.a->ops->flush(rig.a);
	for (unsigned i = 0; i < LINKS; i++) {
		struct steer mine = group.steer;
		struct segment s;
		struct frame f;

		mine.index = i;
		assert_true(want[i] > 0);
		for (; got[i] < want[i]; got[i]++) {
			assert_true(next_frame(links[i], &f));
			assert_decodes(&f, &s);
			assert_true(steer_is_mine(&mine, &s.flow));
		}
		assert_int_equal(receive(links[i], &f, 1), 0);
	}
	for (unsigned i = 0; i < LINKS; i++)
		links[i]->ops->free(links[i]);
}

static void a_full_ring_is_counted_by_us_after_the_kernel(void **state)
{
	const struct segment s = segment_to("10.77.0.3", 7);
	uint64_t drops;

	own_ports(rig.b, 7, 7);
	for (unsigned i = 0; i < 10000 && count(rig.b).kernel_drops == 0; i++) {
		send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
		rig.a->ops->flush(rig.a);
	}
	drops = count(rig.b).kernel_drops;
	assert_true(drops > 0);
	assert_true(count(rig.b).kernel_drops >= drops); /* though reading resets it */
	drain(rig.b);
}

/* There are slots for all of them, and no room for the text: what came first is there, in its order, and the rest is
 * counted.
 */
static void large_packets_that_are_too_many_are_counted(void **state)
{
	enum { N = 1000 };
	const struct segment last = super_segment("10.77.0.3", TEXT);
	const uint64_t before = count(rig.b).kernel_drops;
	unsigned got = 0;
	bool more = true;
	struct frame f;

	own_ports(rig.b, 7, 7);
	offloads_of_va(true);
	for (unsigned i = 0; i < N; i++) {
		struct segment s = super_segment("10.77.0.3", TEXT);

		s.seq.v = i;
		send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
		rig.a->ops->flush(rig.a);
	}
	while (more) {
		struct segment s;

		rig.b->ops->release(rig.b, 0);
		if (rig.b->ops->receive(rig.b, &f, 1, &more) == 0)
			continue;
		assert_decodes(&f, &s);
		assert_int_equal(s.seq.v, got++);
		assert_int_equal(s.text[0].len, TEXT);
		assert_memory_equal(s.text[0].base, text, TEXT);
	}
	assert_in_range(got, 100, N - 1);
	assert_int_equal(count(rig.b).kernel_drops, before + N - got);
	/* And it goes on. */
	send_by(rig.a, rig.va, &last, WIRE_PARTIAL_CHECKSUM);
	rig.a->ops->flush(rig.a);
	assert_true(next_frame(rig.b, &f));
}

/* What waits whole is no longer what the slots say: nothing is mistaken for something else, and it goes on. */
static void a_queue_out_of_step_is_begun_anew(void **state)
{
	enum { N = 5 };
	const struct link_counters before = count(rig.b);
	struct segment s = super_segment("10.77.0.3", TEXT), got;
	struct frame f;
	uint8_t some[64];

	own_ports(rig.b, 7, 7);
	for (unsigned i = 0; i < N; i++) {
		s.seq.v = i;
		send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
		rig.a->ops->flush(rig.a);
	}
	assert_true(next_frame(rig.b, &f));
	assert_decodes(&f, &got);
	assert_int_equal(got.seq.v, 0);
	assert_true(recv(rig.b->ops->fd(rig.b), some, sizeof(some), MSG_DONTWAIT) > 0);
	assert_int_equal(receive(rig.b, &f, 1), 0);
	assert_int_equal(count(rig.b).kernel_drops, before.kernel_drops + N - 1);
	s.seq.v = N;
	send_by(rig.a, rig.va, &s, WIRE_PARTIAL_CHECKSUM);
	rig.a->ops->flush(rig.a);
	assert_true(next_frame(rig.b, &f));
	assert_decodes(&f, &got);
	assert_int_equal(got.seq.v, N);
	assert_int_equal(count(rig.b).frames_in, before.frames_in + 2);
}

/* BIG TCP: IPv6 of more than 64 KiB in one frame. */
static void frames_beyond_64_kib_are_counted_as_truncated(void **state)
{
	struct segment s = super_segment("fd77::3", TEXT),
		       sentinel = segment_to("fd77::3", SENTINEL);
	const uint64_t before = count(rig.b).truncated;
	struct wire_header h;
	struct frame_out f = { .ifindex = rig.va,
			       .ethernet = true,
			       .ipv6 = true,
			       .checksum_partial = true,
			       .piece_bytes = MSS,
			       .text = { { text, sizeof(text) } },
			       .text_n = 1 };
	uint16_t got[4];

	sh("ip link set va gso_max_size 180000");
	wire_encode(&s, WIRE_PARTIAL_CHECKSUM, &h);
	memset(h.bytes + 4, 0, 2); /* the length that does not fit */
	f.header = h.bytes;
	f.header_len = h.len;
	f.ip_len = h.ip_len;
	memcpy(f.dst_mac, mac_b, 6);
	own_ports(rig.b, 7, 7);
	put(rig.a, &f);
	send_by(rig.a, rig.va, &sentinel, WIRE_FULL_CHECKSUM);
	rig.a->ops->flush(rig.a);
	assert_int_equal(ports_until_sentinel(rig.b, got, 4), 0);
	assert_int_equal(count(rig.b).truncated, before + 1);
	sh("ip link set va gso_max_size 65536");
}

/* tun: frames have no link header; what the kernel sends into it comes out of a descriptor. */
static void an_interface_without_link_header_works_both_ways(void **state)
{
	struct ifreq r = { .ifr_name = "t0", .ifr_flags = IFF_TUN | IFF_NO_PI };
	const int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	struct segment s = super_segment("10.78.0.2", 5000), got;
	struct pollfd p = { .fd = tun, .events = POLLIN };
	uint8_t packet[2000];
	struct wire_header h;
	struct frame f;
	struct frame_out out = { .checksum_partial = true, .piece_bytes = MSS };
	uint32_t total = 0;

	if (tun < 0)
		skip(); /* no tun on this machine */
	assert_int_equal(ioctl(tun, TUNSETIFF, &r), 0);
	sh("ip link set t0 up");
	own_ports(rig.a, 7, 7);

	/* in */
	wire_encode(&(struct segment){ .flow.local = { ip("10.78.0.2"), 4000 },
				       .flow.remote = { ip("10.78.0.3"), 7 },
				       .ctl = CTL_SYN,
				       .ttl = 9 },
		    WIRE_FULL_CHECKSUM, &h);
	assert_int_equal(write(tun, h.bytes, h.len), h.len);
	assert_true(next_frame(rig.a, &f));
	assert_int_equal(f.ifindex, if_nametoindex("t0"));
	assert_decodes(&f, &got);
	assert_int_equal(got.flow.local.port, 7);
	assert_int_equal(got.ttl, 9);

	/* out: the kernel cuts and sums, as this tun does neither */
	wire_encode(&s, WIRE_PARTIAL_CHECKSUM, &h);
	out.ifindex = f.ifindex;
	out.header = h.bytes;
	out.header_len = h.len;
	out.ip_len = h.ip_len;
	out.text[0] = (struct iovec){ text, 5000 };
	out.text_n = 1;
	put(rig.a, &out);
	rig.a->ops->flush(rig.a);
	while (total < 5000) {
		ssize_t n;

		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		n = read(tun, packet, sizeof(packet));
		assert_true(n > 0);
		if (packet[0] >> 4 != 4) /* the kernel looks for IPv6 routers */
			continue;
		assert_int_equal(wire_decode(packet, (size_t)n, WIRE_CHECKSUM_VERIFY, &got),
				 WIRE_OK);
		assert_memory_equal(got.text[0].base, text + (got.seq.v - 1000), got.text[0].len);
		total += got.text[0].len;
	}
	assert_int_equal(total, 5000);
	(void)close(tun);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(nothing_is_received_before_set_owned, fresh),
		cmocka_unit_test_setup(only_what_is_owned_is_received, fresh),
		cmocka_unit_test_setup(a_list_too_long_for_the_kernel_still_receives, fresh),
		cmocka_unit_test_setup(what_we_send_is_not_received_by_us, fresh),
		cmocka_unit_test_setup(frames_for_another_mac_are_not_received, fresh),
		cmocka_unit_test_setup(super_segments_cross_whole_or_are_cut_by_the_kernel, fresh),
		cmocka_unit_test_setup(a_large_packet_is_one_piece_in_the_kernel, fresh),
		cmocka_unit_test_setup(text_that_was_sent_is_kept_until_it_is_trimmed, fresh),
		cmocka_unit_test_setup(an_answer_to_as_much_is_not_kept, fresh),
		cmocka_unit_test_setup(text_that_nobody_reads_stays_in_the_kernel, fresh),
		cmocka_unit_test_setup(a_partial_checksum_is_finished_when_the_device_cannot,
				       fresh),
		cmocka_unit_test_setup(a_wrong_checksum_is_not_vouched_for, fresh),
		cmocka_unit_test_setup(first_fragments_are_seen_later_ones_not, fresh),
		cmocka_unit_test_setup(tagged_frames_belong_to_their_vlan, fresh),
		cmocka_unit_test_setup(ipv6_extension_headers_reach_user_space, fresh),
		cmocka_unit_test_setup(rawip_on_lo_is_seen_once, fresh),
		cmocka_unit_test_setup(rawip_counts_what_the_kernel_refuses, fresh),
		cmocka_unit_test_setup(neighbours_are_answered_for_an_address_of_our_own, fresh),
		cmocka_unit_test_setup(solicited_node_groups_are_joined, fresh),
		cmocka_unit_test_setup(one_refused_packet_does_not_hold_up_the_others, fresh),
		cmocka_unit_test_setup(an_interface_that_goes_down_is_survived, fresh),
		cmocka_unit_test_setup(batches_of_many_keep_order_and_count, fresh),
		cmocka_unit_test_setup(small_and_large_packets_keep_their_order, fresh),
		cmocka_unit_test_setup(what_is_kept_stays_until_it_is_called_back, fresh),
		cmocka_unit_test_setup(links_of_a_group_part_flows, fresh),
		cmocka_unit_test_setup(a_full_ring_is_counted_by_us_after_the_kernel, fresh),
		cmocka_unit_test_setup(large_packets_that_are_too_many_are_counted, fresh),
		cmocka_unit_test_setup(a_queue_out_of_step_is_begun_anew, fresh),
		cmocka_unit_test_setup(frames_beyond_64_kib_are_counted_as_truncated, fresh),
		cmocka_unit_test_setup(an_interface_without_link_header_works_both_ways, fresh),
	};

	if (geteuid() != 0) {
		(void)printf("skipped: it takes root\n");
		return SKIP;
	}
	return cmocka_run_group_tests(tests, make_rig, free_rig);
}
