/* SPDX-License-Identifier: Apache-2.0 */
#include "sendring.h"

#include <assert.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "link/batch.h"

enum {
	/* Each is a piece of memory of its own, of which the kernel counts the users: so those of one packet do not
	 * wait for the count of another's. A power of two, as which memory is handed out. */
	SLOT_BYTES = 1 << 17,
	TEXT_AT = 2 * 4096, /* at the beginning of a page: then it spans the fewest */
	HEAD_AT = sizeof(struct tpacket2_hdr), /* no packet begins before */
	WORTH_BYTES = 8192, /* less text in the pages than this is sooner copied */
};

_Static_assert(HEAD_AT + (int)BATCH_HEAD_MAX + (int)SENDRING_PERIOD_MAX <= (int)TEXT_AT,
	       "room for what is copied");
_Static_assert((int)TEXT_AT + (int)LINK_PACKET_MAX <= (int)SLOT_BYTES, "room for the text");

enum { RING_BYTES = SENDRING_SLOTS * SLOT_BYTES };

static struct tpacket2_hdr *slot(const struct sendring *r, uint32_t i)
{
	return (struct tpacket2_hdr *)(void *)(r->map + (size_t)i * SLOT_BYTES);
}

static uint32_t status_of(const struct tpacket2_hdr *h)
{
	return __atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE);
}

static void set_status(struct tpacket2_hdr *h, uint32_t status)
{
	__atomic_store_n(&h->tp_status, status, __ATOMIC_RELEASE);
}

void sendring_init(struct sendring *r, int fd)
{
	*r = (struct sendring){ .fd = fd };
}

void sendring_set_pattern(struct sendring *r, const struct link_pattern *pattern)
{
	assert(!r->map);
	if (pattern->period > 0 && pattern->period <= SENDRING_PERIOD_MAX &&
	    pattern->size >= pattern->period)
		r->pattern = *pattern;
}

/* From now on there is never room. The socket keeps its ring, which no other could have. */
static void give_up(struct sendring *r)
{
	sendring_fini(r);
	r->given_up = true;
}

void sendring_fini(struct sendring *r)
{
	if (r->map)
		(void)munmap(r->map, RING_BYTES);
	r->map = NULL;
	r->pending = 0;
}

/* The pattern from its first octet on, in every slot. */
static void fill(struct sendring *r)
{
	for (uint32_t i = 0; i < SENDRING_SLOTS; i++) {
		uint8_t *const text = r->map + (size_t)i * SLOT_BYTES + TEXT_AT;
		uint32_t n;

		for (uint32_t at = 0; at < SLOT_BYTES - TEXT_AT; at += n) {
			n = SLOT_BYTES - TEXT_AT - at;
			n = n < r->pattern.period ? n : r->pattern.period;
			memcpy(text + at, r->pattern.bytes, n);
		}
	}
}

static void make(struct sendring *r)
{
	const int version = TPACKET_V2, one = 1;
	const struct tpacket_req req = { .tp_block_size = SLOT_BYTES,
					 .tp_block_nr = SENDRING_SLOTS,
					 .tp_frame_size = SLOT_BYTES,
					 .tp_frame_nr = SENDRING_SLOTS };
	void *map;

	if (setsockopt(r->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) ||
	    setsockopt(r->fd, SOL_PACKET, PACKET_TX_HAS_OFF, &one, sizeof(one)) ||
	    setsockopt(r->fd, SOL_PACKET, PACKET_TX_RING, &req, sizeof(req))) {
		give_up(r);
		return;
	}
	map = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, 0);
	if (map == MAP_FAILED) {
		give_up(r);
		return;
	}
	r->map = map;
	fill(r);
}

/* Where in the pattern's period the octet stands. */
static uint32_t phase_of(const struct sendring *r, const void *octet)
{
	return (uint32_t)(((uintptr_t)octet - (uintptr_t)r->pattern.bytes) % r->pattern.period);
}

static bool is_inside(const struct sendring *r, const struct iovec *span)
{
	const uintptr_t at = (uintptr_t)span->iov_base - (uintptr_t)r->pattern.bytes;

	return at < r->pattern.size && span->iov_len <= r->pattern.size - at;
}

/* Octets of f's text in front of the pattern's next beginning. */
static uint32_t copied_of(const struct sendring *r, const struct frame_out *f)
{
	return (r->pattern.period - phase_of(r, f->text[0].iov_base)) % r->pattern.period;
}

bool sendring_suits(const struct sendring *r, const struct frame_out *f)
{
	size_t len = 0;

	if (!r->pattern.bytes || !f->ethernet || !f->piece_bytes || !f->text_n ||
	    !is_inside(r, &f->text[0]))
		return false;
	for (unsigned i = 0; i < f->text_n; i++) {
		const size_t phase = phase_of(r, f->text[0].iov_base) + len;

		if (!is_inside(r, &f->text[i]) ||
		    phase_of(r, f->text[i].iov_base) != phase % r->pattern.period)
			return false;
		len += f->text[i].iov_len;
	}
	return f->header_len + len <= LINK_PACKET_MAX && len >= copied_of(r, f) + WORTH_BYTES;
}

bool sendring_has_room(struct sendring *r, const struct frame_out *f)
{
	if (!r->map && !r->given_up)
		make(r);
	if (!r->map || r->pending == SENDRING_SLOTS)
		return false;
	if (r->pending && (r->ifindex != f->ifindex || r->ipv6 != f->ipv6))
		return false;
	return status_of(slot(r, r->next)) == TP_STATUS_AVAILABLE;
}

void sendring_put(struct sendring *r, const struct frame_out *f, const uint8_t *head,
		  uint32_t head_len)
{
	struct tpacket2_hdr *const h = slot(r, r->next);
	const uint32_t copied = copied_of(r, f), text = frame_text_len(f);
	const uint32_t at = TEXT_AT - copied - head_len;
	struct virtio_net_hdr vnet;
	uint8_t *const packet = (uint8_t *)h + at;

	assert(head_len <= BATCH_HEAD_MAX && head_len > sizeof(vnet));
	memcpy(&vnet, head, sizeof(vnet));
	vnet.hdr_len = (uint16_t)(head_len - sizeof(vnet) + copied);
	memcpy(packet, head, head_len);
	memcpy(packet, &vnet, sizeof(vnet));
	memcpy(packet + head_len, r->pattern.bytes + r->pattern.period - copied, copied);
	h->tp_mac = (uint16_t)at;
	h->tp_len = head_len + text;
	set_status(h, TP_STATUS_SEND_REQUEST);
	r->ip_bytes[r->next] = f->header_len + text;
	r->ifindex = f->ifindex;
	r->ipv6 = f->ipv6;
	r->next = (r->next + 1) % SENDRING_SLOTS;
	r->pending++;
}

/* The first slot that the kernel has not taken: where it goes on. */
static uint32_t first_pending(const struct sendring *r)
{
	return (r->next + SENDRING_SLOTS - r->pending) % SENDRING_SLOTS;
}

/* Counts what the kernel has taken. Has it taken any? */
static bool count_taken(struct sendring *r, struct link_counters *c)
{
	const unsigned before = r->pending;

	while (r->pending) {
		const uint32_t status = status_of(slot(r, first_pending(r)));

		if (status == TP_STATUS_SEND_REQUEST || status & TP_STATUS_WRONG_FORMAT)
			break;
		c->frames_out++;
		c->zerocopy++;
		c->bytes_out += r->ip_bytes[first_pending(r)];
		r->pending--;
	}
	return r->pending != before;
}

/* TCP sends it again. */
static void drop_pending(struct sendring *r, struct link_counters *c)
{
	c->send_failed += r->pending;
	for (; r->pending; r->pending--) {
		r->next = (r->next + SENDRING_SLOTS - 1) % SENDRING_SLOTS;
		set_status(slot(r, r->next), TP_STATUS_AVAILABLE);
	}
}

/* One call. 0, though it may not have taken all; -Exxx: it took none. -ENOTRECOVERABLE: it does not take what is in our
 * slots, or looks for it in others.
 */
static int show(struct sendring *r, struct link_counters *c)
{
	const struct sockaddr_ll to = { .sll_family = AF_PACKET,
					.sll_protocol = htons(r->ipv6 ? ETH_P_IPV6 : ETH_P_IP),
					.sll_ifindex = (int)r->ifindex };
	const struct sockaddr *const name = (const struct sockaddr *)(const void *)&to;
	const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
	const int rc = sendto(r->fd, NULL, 0, flags, name, sizeof(to)) < 0 ? -errno : 0;

	if (count_taken(r, c))
		return 0;
	if (!rc || status_of(slot(r, first_pending(r))) & TP_STATUS_WRONG_FORMAT)
		return -ENOTRECOVERABLE;
	return rc;
}

void sendring_flush(struct sendring *r, struct link_counters *c)
{
	unsigned retries = BATCH_RETRIES;

	while (r->pending) {
		const int rc = show(r, c);

		if (!rc)
			continue;
		/* A full queue is asked again: we cannot sleep. */
		if ((rc == -EAGAIN || rc == -ENOBUFS || rc == -EINTR) && retries-- > 0)
			continue;
		drop_pending(r, c);
		if (rc == -ENOTRECOVERABLE)
			give_up(r); /* what is sent again goes by copy */
	}
}
