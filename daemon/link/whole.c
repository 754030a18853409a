/* SPDX-License-Identifier: Apache-2.0 */
#include "whole.h"

#include <assert.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/macros.h"
#include "link/link.h"

enum {
	LINE = 64,
	BUFFER_BYTES = 17 * 4096,
	PACKET_MAX = BUFFER_BYTES - LINE,
	COMPARED = 128, /* octets of a packet that tell it from the next */
	ERRORS_MAX = 8, /* of the socket, before one packet */
	DRAINED_MAX = 4096, /* packets */
};

_Static_assert(ETH_HLEN + LINK_PACKET_MAX <= PACKET_MAX, "an IP packet fits");

static uint8_t *buffer(const struct wholes *w, uint8_t i)
{
	return w->map + (size_t)i * BUFFER_BYTES;
}

int wholes_init(struct wholes *w, int fd)
{
	const int one = 1;
	void *map;

	*w = (struct wholes){ .fd = fd };
	if (setsockopt(fd, SOL_PACKET, PACKET_COPY_THRESH, &one, sizeof(one)))
		return -errno;
	map = mmap(NULL, (size_t)WHOLES_MAX * BUFFER_BYTES, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return -errno;
	w->map = map;
	for (unsigned i = 0; i < WHOLES_MAX; i++)
		w->free[i] = (uint8_t)(WHOLES_MAX - 1 - i);
	return 0;
}

void wholes_trim(struct wholes *w)
{
	if (!w->held)
		(void)madvise(w->map, (size_t)WHOLES_MAX * BUFFER_BYTES, MADV_DONTNEED);
}

void wholes_fini(struct wholes *w)
{
	if (w->map)
		(void)munmap(w->map, (size_t)WHOLES_MAX * BUFFER_BYTES);
	w->map = NULL;
}

bool wholes_have_room(const struct wholes *w)
{
	return w->held < WHOLES_MAX;
}

/* The next one of the queue. Its octets; 0: there is none. An error of the socket, told once, takes none away. */
static uint32_t read_next(const struct wholes *w, uint8_t *at)
{
	struct virtio_net_hdr vnet; /* the slot has it, too */
	struct iovec iov[] = { { &vnet, sizeof(vnet) }, { at, PACKET_MAX } };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t n = -1;

	for (unsigned i = 0; n < 0 && i < ERRORS_MAX; i++) {
		n = recvmsg(w->fd, &m, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			break;
	}
	return n > (ssize_t)sizeof(vnet) ? (uint32_t)n - (uint32_t)sizeof(vnet) : 0;
}

static bool is_of_slot(const struct ring_packet *p, const uint8_t *frame, uint32_t len)
{
	return len == min_u32(p->wire_len, PACKET_MAX) &&
	       !memcmp(frame, p->frame, min_u32(p->len, COMPARED));
}

/* Slots and queue are not in step: with nothing in the queue they are again. */
static void drain(const struct wholes *w)
{
	struct virtio_net_hdr vnet;

	for (unsigned i = 0; i < DRAINED_MAX; i++)
		if (recv(w->fd, &vnet, sizeof(vnet), MSG_DONTWAIT) < 0 && errno == EAGAIN)
			return;
}

bool wholes_take(struct wholes *w, struct ring_packet *p, uint32_t text_at)
{
	const uint8_t slot = w->free[WHOLES_MAX - 1 - w->held];
	uint8_t *const at = buffer(w, slot) + (LINE - text_at % LINE) % LINE;
	uint32_t len;

	assert(wholes_have_room(w));
	len = read_next(w, at);
	if (len && !is_of_slot(p, at, len)) {
		drain(w);
		len = 0;
	}
	if (!len)
		return false;
	p->frame = at;
	p->len = len;
	w->held++;
	w->taken++;
	w->slot_of[w->taken % WHOLES_MAX] = slot;
	return true;
}

void wholes_release(struct wholes *w, uint64_t first_kept)
{
	while (w->held && (first_kept == 0 || w->taken - w->held + 1 < first_kept)) {
		const uint64_t first = w->taken - w->held + 1;

		w->held--;
		w->free[WHOLES_MAX - 1 - w->held] = w->slot_of[first % WHOLES_MAX];
	}
}
