/* SPDX-License-Identifier: Apache-2.0 */
#include "ring.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/macros.h"

enum {
	FROM_AT = (sizeof(struct tpacket2_hdr) + TPACKET_ALIGNMENT - 1) / TPACKET_ALIGNMENT *
		  TPACKET_ALIGNMENT,
	/* What stands in front of a frame, with what aligns the network header. */
	HEAD_MAX = FROM_AT + sizeof(struct sockaddr_ll) + sizeof(struct virtio_net_hdr) + 32,
};

static struct tpacket2_hdr *slot(const struct ring *r, uint32_t i)
{
	return (struct tpacket2_hdr *)(void *)(r->map + (size_t)(i / r->group) * r->piece_bytes +
					       (size_t)(i % r->group) * r->slot_bytes);
}

static uint32_t status_of(const struct tpacket2_hdr *h)
{
	return __atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE);
}

uint32_t ring_fits(uint32_t slot_bytes)
{
	return slot_bytes - HEAD_MAX;
}

/* The kernel puts as many slots into a piece as it has room for: `group`, and none on its border. */
static int ask_kernel(const struct ring *r, uint32_t slots)
{
	const struct tpacket_req req = { .tp_block_size = r->piece_bytes,
					 .tp_block_nr = slots / r->group,
					 .tp_frame_size = r->slot_bytes,
					 .tp_frame_nr = slots };

	return setsockopt(r->fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof(req)) ? -errno : 0;
}

int ring_init(struct ring *r, int fd, uint32_t slot_bytes, uint32_t slots, uint32_t piece_bytes)
{
	const uint32_t group = piece_bytes / slot_bytes;
	const int version = TPACKET_V2;
	void *map;
	int rc;

	*r = (struct ring){
		.fd = fd, .slot_bytes = slot_bytes, .piece_bytes = piece_bytes, .group = group
	};
	if (setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)))
		return -errno;
	for (;; slots /= 2) {
		slots -= slots % group;
		if (slots == 0)
			return -ENOMEM;
		rc = ask_kernel(r, slots);
		if (rc != -ENOMEM)
			break;
	}
	if (rc)
		return rc;
	/* The kernel has the memory already: populated, it is counted as ours from the beginning. */
	r->map_bytes = (size_t)(slots / group) * piece_bytes;
	map = mmap(NULL, r->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	r->map = map;
	r->slots_n = slots;
	return 0;
}

void ring_fini(struct ring *r)
{
	if (r->map)
		(void)munmap(r->map, r->map_bytes);
	r->map = NULL;
}

bool ring_ready(const struct ring *r)
{
	return r->held < r->slots_n && status_of(slot(r, r->next)) & TP_STATUS_USER;
}

bool ring_waits(const struct ring *r, uint32_t n)
{
	const uint32_t last = r->next + n;

	/* They are filled in order. */
	return n + r->held < r->slots_n &&
	       status_of(slot(r, last < r->slots_n ? last : last - r->slots_n)) & TP_STATUS_USER;
}

void ring_peek(const struct ring *r, struct ring_packet *ret)
{
	const struct tpacket2_hdr *const h = slot(r, r->next);
	const uint8_t *const base = (const uint8_t *)h;

	ret->frame = base + h->tp_mac;
	ret->len = h->tp_snaplen;
	ret->wire_len = h->tp_len;
	ret->queued = h->tp_status & TP_STATUS_COPY;
	ret->from = (const struct sockaddr_ll *)(const void *)(base + FROM_AT);
	ret->at_ns = h->tp_sec * 1000000000ULL + h->tp_nsec;
	memcpy(&ret->vnet, ret->frame - sizeof(ret->vnet), sizeof(ret->vnet));
}

void ring_take(struct ring *r)
{
	assert(r->held < r->slots_n);
	r->next = r->next + 1 < r->slots_n ? r->next + 1 : 0;
	r->held++;
}

void ring_release(struct ring *r)
{
	while (r->held) {
		const uint32_t first = r->next >= r->held ? r->next - r->held
							  : r->next + r->slots_n - r->held;

		__atomic_store_n(&slot(r, first)->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		r->held--;
	}
}
