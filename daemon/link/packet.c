/* SPDX-License-Identifier: Apache-2.0 */
/* AF_PACKET with PACKET_VNET_HDR: packet(7). A 10-octet virtio header in front of every frame says what
 * the kernel has done, or is to do: checksum and segmentation, so that 64 KiB cross in one piece.
 *
 * One socket on all interfaces receives into a ring of many small slots. What is too large for one, a super-segment
 * most of all, waits whole on the socket besides. Of one for a port where nobody looks at text the headers alone are
 * taken.
 * Sending is sendmsg and sendmmsg: rings cost more there.
 */
#include "link.h"

#include <assert.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "batch.h"
#include "fanout.h"
#include "filter.h"
#include "ring.h"
#include "whole.h"

enum {
	VNET = sizeof(struct virtio_net_hdr),
	TX_BUFFER = 8 << 20,
	QUEUE_BYTES =
		16
		<< 20, /* of large packets; the kernel doubles it, and counts all that they take */
	CHECKSUM_AT = 16, /* in the TCP header */
	TYPE_SOLICITATION = 135, /* RFC 4861 4.3 */
	OFFSET_AT = 12,
	CTL_AT = 13,
	IPV6_BYTES = 40,
	CTL_CWR_BIT = 0x80,
};

/* The ring. Its memory is in powers of two, as which the kernel hands it out. A slot is an odd number of cache lines: what
 * is read of each, its first lines, is then in all sets of a cache, not in a few.
 */
enum { SLOT_BYTES = 27 * 64, SLOTS = 4096, PIECE_BYTES = 16 * 4096 };

struct packet_link {
	struct link link;
	int fd;
	int tx_fd; /* receives nothing but what it has sent: what waits for input is not woken by output */
	struct ring ring;
	struct wholes wholes;
	struct link_counters counters;
	struct batch tx;
	struct hold hold;
};

static struct packet_link *self(struct link *l)
{
	return (struct packet_link *)l;
}

static int packet_fd(const struct link *l)
{
	return ((const struct packet_link *)l)->fd;
}

/* Octets of link header that frames of this kind of interface have; -1: a kind we do not speak. */
static int link_header_len(uint16_t hatype)
{
	switch (hatype) {
	case ARPHRD_ETHER:
	case ARPHRD_LOOPBACK:
		return ETH_HLEN;
	case ARPHRD_NONE:
	case ARPHRD_PPP:
	case ARPHRD_RAWIP:
	case ARPHRD_TUNNEL:
	case ARPHRD_TUNNEL6:
	case ARPHRD_SIT:
		return 0;
	default:
		return -1;
	}
}

static bool is_neigh(const struct sockaddr_ll *from, const uint8_t *ip, uint32_t len)
{
	if (from->sll_hatype != ARPHRD_ETHER)
		return false;
	if (from->sll_protocol == htons(ETH_P_ARP))
		return true;
	return from->sll_protocol == htons(ETH_P_IPV6) && len > IPV6_BYTES &&
	       ip[6] == IPPROTO_ICMPV6 && ip[IPV6_BYTES] == TYPE_SOLICITATION;
}

static uint16_t piece_bytes(const struct virtio_net_hdr *vnet)
{
	switch (vnet->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return vnet->gso_size;
	default:
		return 0;
	}
}

/* False: not for us, and counted. */
static bool accept_frame(struct packet_link *p, const struct ring_packet *got, struct frame *ret)
{
	const struct sockaddr_ll *from = got->from;
	const int header = link_header_len(from->sll_hatype);
	uint32_t skip = (uint32_t)header;

	ret->headers_only = got->len == FILTER_HEADERS && got->wire_len > got->len;
	if (got->wire_len > LINK_PACKET_MAX + ETH_HLEN) {
		p->counters.truncated++; /* BIG TCP on an interface where someone allowed it */
		return false;
	}
	if (got->wire_len > got->len && !ret->headers_only) {
		p->counters.kernel_drops++; /* too much was queued */
		return false;
	}
	if (header < 0 || got->len < (uint32_t)header) {
		p->counters.ignored++;
		return false;
	}
	ret->neigh = is_neigh(from, got->frame + skip, got->len - skip);
	if (ret->neigh) {
		skip = 0;
	} else if (from->sll_pkttype != PACKET_HOST) {
		p->counters.ignored++;
		return false;
	}
	ret->ifindex = (uint32_t)from->sll_ifindex;
	ret->data = got->frame + skip;
	ret->len = got->wire_len - skip;
	ret->checksum_trusted = got->vnet.flags &
				(VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID);
	ret->piece_bytes = piece_bytes(&got->vnet);
	ret->at_us = got->at_ns / 1000;
	p->counters.frames_in++;
	p->counters.headers_only += ret->headers_only;
	p->counters.bytes_in += ret->len;
	return true;
}

static void packet_release(struct link *l, uint64_t first_kept)
{
	struct packet_link *p = self(l);

	ring_release(&p->ring);
	wholes_release(&p->wholes, first_kept);
}

/* Three quarters may be kept: one more batch finds room. */
static uint64_t packet_recalls(const struct link *l)
{
	const struct wholes *const w = &((const struct packet_link *)l)->wholes;
	const uint32_t most = WHOLES_MAX * 3 / 4;

	return w->held > most ? w->taken - most : 0;
}

/* Octets in front of the text, if it is TCP; else it is any number. */
static uint32_t text_at(const struct ring_packet *got)
{
	const int header = link_header_len(got->from->sll_hatype);
	uint32_t at = header < 0 ? 0 : (uint32_t)header;

	if (at < got->len)
		at += got->frame[at] >> 4 == 4 ? (got->frame[at] & 0xfU) * 4 : IPV6_BYTES;
	return at + OFFSET_AT < got->len ? at + (got->frame[at + OFFSET_AT] >> 4) * 4U : at;
}

/* The packet that waits, whole. False: it is lost. */
static bool whole_packet(struct packet_link *p, struct ring_packet *ret)
{
	ring_peek(&p->ring, ret);
	if (!ret->queued || wholes_take(&p->wholes, ret, text_at(ret)))
		return true;
	p->counters.kernel_drops++;
	return false;
}

static int packet_receive(struct link *l, struct frame *ret_frames, unsigned max, bool *ret_more)
{
	struct packet_link *p = self(l);
	uint32_t bytes = 0;
	unsigned found = 0;
	bool room;

	/* What is not for us takes no turns: the slots bound it. */
	while ((room = found < max && bytes < LINK_TAKE_BYTES && wholes_have_room(&p->wholes)) &&
	       ring_ready(&p->ring)) {
		struct frame *const f = &ret_frames[found];
		struct ring_packet got;
		const bool here = whole_packet(p, &got);

		ring_take(&p->ring);
		if (!here)
			continue;
		f->loan = 0;
		if (got.queued) {
			f->loan = p->wholes.taken;
			hold_read(&p->hold, got.len);
		}
		found += accept_frame(p, &got, f);
		bytes += got.len;
	}
	*ret_more = !room;
	return (int)found;
}

static enum link_pressure packet_pressure(const struct link *l)
{
	const struct ring *const r = &((const struct packet_link *)l)->ring;

	if (!ring_waits(r, r->slots_n / 4))
		return LINK_EASY;
	return ring_waits(r, r->slots_n / 2) ? LINK_FULL : LINK_BUSY;
}

static bool packet_waits(const struct link *l)
{
	return ring_ready(&((const struct packet_link *)l)->ring);
}

static void packet_trim(struct link *l)
{
	wholes_trim(&self(l)->wholes);
	hold_release(&self(l)->hold);
}

static bool packet_has_room(const struct link *l)
{
	return batch_has_room(&((const struct packet_link *)l)->tx);
}

static uint32_t text_len(const struct frame_out *f)
{
	size_t n = 0;

	for (unsigned i = 0; i < f->text_n; i++)
		n += f->text[i].iov_len;
	return (uint32_t)n;
}

static struct virtio_net_hdr vnet_header(const struct frame_out *f, uint16_t link_header)
{
	struct virtio_net_hdr v = { 0 };

	/* The kernel cuts only what it may also finish the checksum of. */
	assert(!f->piece_bytes || f->checksum_partial);
	if (!f->checksum_partial)
		return v;
	v.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	v.csum_start = (uint16_t)(link_header + f->ip_len);
	v.csum_offset = CHECKSUM_AT;
	/* A segment of one piece or less is no super-segment to the kernel. */
	if (f->piece_bytes && text_len(f) > f->piece_bytes) {
		v.gso_type = f->ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
		if (f->header[f->ip_len + CTL_AT] & CTL_CWR_BIT)
			v.gso_type |= VIRTIO_NET_HDR_GSO_ECN; /* CWR on the first piece alone */
		v.gso_size = f->piece_bytes;
		v.hdr_len = (uint16_t)(link_header + f->header_len);
	}
	return v;
}

static void packet_send(struct link *l, const struct frame_out *f)
{
	struct packet_link *p = self(l);
	struct batch_slot *slot = batch_next(&p->tx);
	const uint16_t proto = htons(f->ipv6 ? ETH_P_IPV6 : ETH_P_IP);
	const uint16_t link_header = f->ethernet ? ETH_HLEN : 0;
	const struct virtio_net_hdr vnet = vnet_header(f, link_header);
	uint8_t *at = slot->head;

	assert(VNET + link_header + f->header_len <= BATCH_HEAD_MAX);
	memcpy(at, &vnet, sizeof(vnet));
	at += sizeof(vnet);
	if (f->ethernet) {
		memcpy(at, f->dst_mac, ETH_ALEN);
		memcpy(at + ETH_ALEN, f->src_mac, ETH_ALEN);
		memcpy(at + 2 * ETH_ALEN, &proto, sizeof(proto));
		at += ETH_HLEN;
	}
	memcpy(at, f->header, f->header_len);
	/* Of a whole frame the kernel reads the protocol itself. */
	slot->name.ll = (struct sockaddr_ll){ .sll_family = AF_PACKET,
					      .sll_protocol = f->neigh ? 0 : proto,
					      .sll_ifindex = (int)f->ifindex };
	batch_commit(&p->tx, (uint32_t)(VNET + link_header + f->header_len), sizeof(slot->name.ll),
		     f);
	if (vnet.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		batch_one_piece(&p->tx);
}

static void packet_flush(struct link *l)
{
	struct packet_link *p = self(l);

	batch_flush(&p->tx, p->tx_fd, &p->counters);
}

static int attach(int fd, struct filter *f)
{
	const struct sock_fprog prog = { .len = (unsigned short)f->n, .filter = f->insn };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) ? -errno : 0;
}

/* A solicitation goes to a multicast MAC made of the address (RFC 4291 2.7.1), which a card discards
 * unless told. Dropped and added again, the membership is held once however often we are called.
 */
static void join_solicited_node(int fd, const struct ipaddr *a, unsigned ifindex)
{
	struct packet_mreq m = { .mr_ifindex = (int)ifindex,
				 .mr_type = PACKET_MR_MULTICAST,
				 .mr_alen = ETH_ALEN,
				 .mr_address = { 0x33, 0x33, 0xff, a->b[13], a->b[14], a->b[15] } };

	(void)setsockopt(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &m, sizeof(m));
	/* An interface without multicast has no neighbours to answer either. */
	(void)setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof(m));
}

static void join_all(int fd, const struct link_owned *owned, size_t n)
{
	struct if_nameindex *list = if_nameindex();

	for (const struct if_nameindex *i = list; i && i->if_index; i++)
		for (size_t k = 0; k < n; k++)
			if (!addr_is_v4(&owned[k].addr) && !addr_is_any(&owned[k].addr))
				join_solicited_node(fd, &owned[k].addr, i->if_index);
	if (list)
		if_freenameindex(list);
}

static int packet_set_owned(struct link *l, const struct link_owned *owned, size_t n, bool neigh)
{
	struct packet_link *p = self(l);
	struct filter f;
	int rc = -E2BIG;

	/* -ENOMEM: within the kernel's length, above net.core.optmem_max. */
	for (int level = FILTER_EXACT; level < FILTER__COUNT && (rc == -E2BIG || rc == -ENOMEM);
	     level++) {
		rc = filter_build(owned, n, neigh, (enum filter_level)level, ring_fits(SLOT_BYTES),
				  &f);
		if (!rc)
			rc = attach(p->fd, &f);
	}
	if (!rc && neigh)
		join_all(p->fd, owned, n);
	return rc;
}

static void packet_counters(struct link *l, struct link_counters *ret_counters)
{
	struct packet_link *p = self(l);
	struct tpacket_stats st;
	socklen_t len = sizeof(st);

	/* Reading it sets the kernel's count to zero. */
	if (!getsockopt(p->fd, SOL_PACKET, PACKET_STATISTICS, &st, &len))
		p->counters.kernel_drops += st.tp_drops;
	p->counters.kept = p->hold.n;
	*ret_counters = p->counters;
}

static void packet_free(struct link *l)
{
	struct packet_link *p = self(l);

	if (!l)
		return;
	ring_fini(&p->ring);
	wholes_fini(&p->wholes);
	if (p->fd >= 0)
		(void)close(p->fd);
	if (p->tx_fd >= 0)
		(void)close(p->tx_fd);
	free(p);
}

static const struct link_ops packet_ops = {
	.name = "packet",
	.fd = packet_fd,
	.receive = packet_receive,
	.pressure = packet_pressure,
	.waits = packet_waits,
	.release = packet_release,
	.recalls = packet_recalls,
	.trim = packet_trim,
	.has_room = packet_has_room,
	.send = packet_send,
	.flush = packet_flush,
	.set_owned = packet_set_owned,
	.counters = packet_counters,
	.free = packet_free,
};

/* FORCE wants CAP_NET_ADMIN; without it net.core.*mem_max limits us, and that works too. */
static void set_buffer(int fd, int force, int plain, int bytes)
{
	if (setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof(bytes)))
		(void)setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes));
}

static int set_option(int fd, int option, const char *name, struct errmsg *ret_err)
{
	const int one = 1;
	int rc;

	if (!setsockopt(fd, SOL_PACKET, option, &one, sizeof(one)))
		return 0;
	rc = -errno;
	return errmsg(ret_err, rc, "packet socket: %s: %s", name, strerror(-rc));
}

/* With protocol 0 it receives nothing. Its descriptor, or -Exxx. */
static int open_socket(struct errmsg *ret_err)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int rc = fd < 0 ? -errno : 0;

	if (rc)
		return errmsg(ret_err, rc, "packet socket: %s%s", strerror(-rc),
			      rc == -EPERM ? " (it takes CAP_NET_RAW)" : "");
	rc = set_option(fd, PACKET_VNET_HDR, "PACKET_VNET_HDR", ret_err);
	if (rc) {
		(void)close(fd);
		return rc;
	}
	return fd;
}

static int setup_receive(struct packet_link *p, struct link_group *group, struct errmsg *ret_err)
{
	const struct sockaddr_ll all = { .sll_family = AF_PACKET,
					 .sll_protocol = htons(ETH_P_ALL) };
	struct filter none;
	int rc;

	p->fd = open_socket(ret_err);
	if (p->fd < 0)
		return p->fd;
	/* Before bind(), from when on it receives. */
	filter_build_none(&none);
	rc = attach(p->fd, &none);
	if (rc)
		return errmsg(ret_err, rc, "packet socket: filter: %s", strerror(-rc));
	rc = set_option(p->fd, PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING", ret_err);
	if (rc)
		return rc;
	rc = ring_init(&p->ring, p->fd, SLOT_BYTES, SLOTS, PIECE_BYTES);
	if (!rc)
		rc = wholes_init(&p->wholes, p->fd);
	if (rc)
		return errmsg(ret_err, rc, "packet socket: receive ring: %s", strerror(-rc));
	set_buffer(p->fd, SO_RCVBUFFORCE, SO_RCVBUF, QUEUE_BYTES);
	if (bind(p->fd, (const struct sockaddr *)&all, sizeof(all))) {
		rc = -errno;
		return errmsg(ret_err, rc, "packet socket: bind: %s", strerror(-rc));
	}
	rc = group ? fanout_join(p->fd, &group->steer, &group->group) : 0;
	return rc ? errmsg(ret_err, rc, "packet socket: PACKET_FANOUT: %s", strerror(-rc)) : 0;
}

int link_packet_new(struct link_group *group, struct link **ret_link, struct errmsg *ret_err)
{
	struct packet_link *p = calloc(1, sizeof(*p));
	int rc = 0;

	if (!p)
		return errmsg(ret_err, -ENOMEM, "packet socket: out of memory");
	p->link.ops = &packet_ops;
	p->fd = -1;
	p->tx_fd = open_socket(ret_err);
	if (p->tx_fd < 0)
		rc = p->tx_fd;
	if (!rc)
		rc = setup_receive(p, group, ret_err);
	if (rc) {
		packet_free(&p->link);
		return rc;
	}
	set_buffer(p->tx_fd, SO_SNDBUFFORCE, SO_SNDBUF, TX_BUFFER);
	set_buffer(p->tx_fd, SO_RCVBUFFORCE, SO_RCVBUF, HOLD_BUFFER);
	hold_init(&p->hold, p->tx_fd);
	p->tx.hold = &p->hold;
	*ret_link = &p->link;
	return 0;
}
