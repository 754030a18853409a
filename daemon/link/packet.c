/* SPDX-License-Identifier: Apache-2.0 */
/* AF_PACKET with PACKET_VNET_HDR: packet(7). One socket on all interfaces. A 10-octet virtio header in
 * front of every frame says what the kernel has done, or is to do: checksum and segmentation, so that
 * 64 KiB cross in one piece. recvmmsg and sendmmsg, not rings: they cost less for super-segments.
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
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "batch.h"
#include "filter.h"

enum {
	RX_BATCH = 64,
	VNET = sizeof(struct virtio_net_hdr),
	/* Whole pages above 64 KiB and headers: one packet never touches its neighbour's pages. */
	RX_SLOT = 17 * 4096,
	RX_BUFFER = 32 << 20, /* the kernel doubles it for its own overhead */
	TX_BUFFER = 8 << 20,
	RX_ROUNDS = 4, /* batches of which nothing was for us, before the caller gets a turn */
	CHECKSUM_AT = 16, /* in the TCP header */
	TYPE_SOLICITATION = 135, /* RFC 4861 4.3 */
	CTL_AT = 13,
	CTL_CWR_BIT = 0x80,
};

_Static_assert((int)RX_SLOT >= (int)VNET + ETH_HLEN + UINT16_MAX,
	       "a slot holds the largest IP packet");

struct packet_link {
	struct link link;
	int fd;
	struct link_counters counters;
	uint8_t *
		rx; /* RX_BATCH slots of RX_SLOT octets, mapped; pages come as packets touch them */
	struct mmsghdr rx_msgs[RX_BATCH];
	struct iovec rx_iov[RX_BATCH];
	struct sockaddr_ll rx_from[RX_BATCH];
	struct batch tx;
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
	return from->sll_protocol == htons(ETH_P_IPV6) && len > 40 && ip[6] == IPPROTO_ICMPV6 &&
	       ip[40] == TYPE_SOLICITATION;
}

/* Looks at message i. False: not for us, and counted. */
static bool accept_frame(struct packet_link *p, unsigned i, struct frame *ret)
{
	const struct sockaddr_ll *from = &p->rx_from[i];
	const uint8_t *data = p->rx + (size_t)i * RX_SLOT;
	const uint32_t len = p->rx_msgs[i].msg_len;
	const int header = link_header_len(from->sll_hatype);
	struct virtio_net_hdr vnet;
	struct frame f = { .ifindex = (uint32_t)from->sll_ifindex };
	uint32_t skip;

	if (p->rx_msgs[i].msg_hdr.msg_flags & MSG_TRUNC) {
		p->counters.truncated++; /* BIG TCP on an interface where someone allowed it */
		return false;
	}
	if (header < 0 || len < VNET + (uint32_t)header) {
		p->counters.ignored++;
		return false;
	}
	memcpy(&vnet, data, sizeof(vnet));
	skip = VNET + (uint32_t)header;
	f.neigh = is_neigh(from, data + skip, len - skip);
	if (f.neigh)
		skip = VNET;
	else if (from->sll_pkttype != PACKET_HOST) {
		p->counters.ignored++;
		return false;
	}
	f.data = data + skip;
	f.len = len - skip;
	f.checksum_trusted = vnet.flags &
			     (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID);
	switch (vnet.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
	case VIRTIO_NET_HDR_GSO_TCPV6:
		f.piece_bytes = vnet.gso_size;
		break;
	default:
		break;
	}
	p->counters.frames_in++;
	p->counters.bytes_in += f.len;
	*ret = f;
	return true;
}

static int receive_batch(struct packet_link *p, unsigned max)
{
	int n, err;

	for (unsigned i = 0; i < max; i++) {
		p->rx_msgs[i].msg_hdr.msg_namelen = sizeof(p->rx_from[i]);
		p->rx_msgs[i].msg_hdr.msg_flags = 0;
	}
	n = recvmmsg(p->fd, p->rx_msgs, max, MSG_DONTWAIT, NULL);
	err = n < 0 ? errno : 0;
	/* An interface that went down is told here once; the others work on. */
	if (err == EAGAIN || err == EINTR || err == ENETDOWN)
		return 0;
	return err ? -err : n;
}

static int packet_receive(struct link *l, struct frame *ret_frames, unsigned max)
{
	struct packet_link *p = self(l);
	const unsigned ask = max < RX_BATCH ? max : RX_BATCH;
	int found = 0;

	for (unsigned round = 0; round < RX_ROUNDS && found == 0; round++) {
		const int n = receive_batch(p, ask);

		if (n <= 0)
			return n;
		for (int i = 0; i < n; i++)
			found += accept_frame(p, (unsigned)i, &ret_frames[found]);
	}
	return found;
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
}

static void packet_flush(struct link *l)
{
	struct packet_link *p = self(l);

	batch_flush(&p->tx, p->fd, &p->counters);
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
		rc = filter_build(owned, n, neigh, (enum filter_level)level, &f);
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
	*ret_counters = p->counters;
}

static void packet_free(struct link *l)
{
	struct packet_link *p = self(l);

	if (!l)
		return;
	if (p->fd >= 0)
		(void)close(p->fd);
	if (p->rx)
		(void)munmap(p->rx, (size_t)RX_BATCH * RX_SLOT);
	free(p);
}

static const struct link_ops packet_ops = {
	.name = "packet",
	.fd = packet_fd,
	.receive = packet_receive,
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

static int setup_socket(struct packet_link *p, struct errmsg *ret_err)
{
	const struct sockaddr_ll all = { .sll_family = AF_PACKET,
					 .sll_protocol = htons(ETH_P_ALL) };
	const int one = 1;
	struct filter none;
	int rc;

	/* Protocol 0 receives nothing until bind(), when the filter stands already. */
	p->fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p->fd < 0) {
		rc = -errno;
		return errmsg(ret_err, rc, "packet socket: %s%s", strerror(-rc),
			      rc == -EPERM ? " (it takes CAP_NET_RAW)" : "");
	}
	filter_build_none(&none);
	rc = attach(p->fd, &none);
	if (rc)
		return errmsg(ret_err, rc, "packet socket: filter: %s", strerror(-rc));
	if (setsockopt(p->fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one))) {
		rc = -errno;
		return errmsg(ret_err, rc, "packet socket: PACKET_VNET_HDR: %s", strerror(-rc));
	}
	if (setsockopt(p->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one))) {
		rc = -errno;
		return errmsg(ret_err, rc, "packet socket: PACKET_IGNORE_OUTGOING: %s",
			      strerror(-rc));
	}
	set_buffer(p->fd, SO_RCVBUFFORCE, SO_RCVBUF, RX_BUFFER);
	set_buffer(p->fd, SO_SNDBUFFORCE, SO_SNDBUF, TX_BUFFER);
	if (bind(p->fd, (const struct sockaddr *)&all, sizeof(all))) {
		rc = -errno;
		return errmsg(ret_err, rc, "packet socket: bind: %s", strerror(-rc));
	}
	return 0;
}

static int setup_buffers(struct packet_link *p, struct errmsg *ret_err)
{
	void *m = mmap(NULL, (size_t)RX_BATCH * RX_SLOT, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (m == MAP_FAILED)
		return errmsg(ret_err, -ENOMEM, "packet socket: no memory for receive buffers");
	p->rx = m;
	for (unsigned i = 0; i < RX_BATCH; i++) {
		p->rx_iov[i] = (struct iovec){ p->rx + (size_t)i * RX_SLOT, RX_SLOT };
		p->rx_msgs[i].msg_hdr = (struct msghdr){ .msg_name = &p->rx_from[i],
							 .msg_iov = &p->rx_iov[i],
							 .msg_iovlen = 1 };
	}
	return 0;
}

int link_packet_new(struct link **ret_link, struct errmsg *ret_err)
{
	struct packet_link *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return errmsg(ret_err, -ENOMEM, "packet socket: out of memory");
	p->link.ops = &packet_ops;
	p->fd = -1;
	rc = setup_buffers(p, ret_err);
	if (!rc)
		rc = setup_socket(p, ret_err);
	if (rc) {
		packet_free(&p->link);
		return rc;
	}
	*ret_link = &p->link;
	return 0;
}
