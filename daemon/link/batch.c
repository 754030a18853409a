/* SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <string.h>

/* A full queue is asked again this often in a flush. We cannot sleep, TCP can send again. */
enum { RETRIES = 8 };

bool batch_has_room(const struct batch *b)
{
	return b->n < BATCH_MAX;
}

struct batch_slot *batch_next(struct batch *b)
{
	assert(b->n < BATCH_MAX);
	return &b->slots[b->n];
}

void batch_commit(struct batch *b, uint32_t head_len, uint32_t name_len, const struct frame_out *f)
{
	struct batch_slot *slot = &b->slots[b->n];
	struct iovec *iov = b->iov[b->n];

	assert(head_len <= sizeof(slot->head) && f->text_n < BATCH_SPANS);
	iov[0] = (struct iovec){ slot->head, head_len };
	slot->headers = 0;
	slot->ip_bytes = f->header_len;
	for (unsigned i = 0; i < f->text_n; i++) {
		iov[i + 1] = f->text[i];
		slot->ip_bytes += (uint32_t)f->text[i].iov_len;
	}
	b->msgs[b->n].msg_hdr = (struct msghdr){ .msg_name = &slot->name,
						 .msg_namelen = name_len,
						 .msg_iov = iov,
						 .msg_iovlen = f->text_n + 1 };
	slot->held = b->hold && hold_wants(b->hold, slot->ip_bytes - f->header_len);
	if (slot->held)
		hold_mark(b->hold, &b->msgs[b->n].msg_hdr);
	b->n++;
}

/* Exchanges what a vnet header says of the length of the headers. What it said before. */
static uint16_t set_hdr_len(struct batch_slot *slot, uint32_t bytes)
{
	struct virtio_net_hdr vnet;
	uint16_t before;

	memcpy(&vnet, slot->head, sizeof(vnet));
	before = vnet.hdr_len;
	vnet.hdr_len = (uint16_t)bytes;
	memcpy(slot->head, &vnet, sizeof(vnet));
	return before;
}

void batch_one_piece(struct batch *b)
{
	struct batch_slot *slot = &b->slots[b->n - 1];
	const struct msghdr *m = &b->msgs[b->n - 1].msg_hdr;
	size_t frame = 0;

	for (size_t i = 0; i < m->msg_iovlen; i++)
		frame += m->msg_iov[i].iov_len;
	frame -= sizeof(struct virtio_net_hdr);
	if (frame < BATCH_PIECE_LEAST || frame > LINK_PIECE_MAX)
		return;
	if (b->in_pages)
		b->in_pages--;
	else
		slot->headers = set_hdr_len(slot, (uint32_t)frame);
}

/* The kernel had no block for the packet `at`, or the device's queue no room: it does not say which. */
static void use_pages(struct batch *b, unsigned at)
{
	if (!b->slots[at].headers)
		return;
	for (; at < b->n; at++) {
		if (b->slots[at].headers)
			(void)set_hdr_len(&b->slots[at], b->slots[at].headers);
		b->slots[at].headers = 0;
	}
	b->in_pages = BATCH_IN_PAGES;
}

static void count_sent(const struct batch *b, unsigned from, unsigned n, struct link_counters *c)
{
	c->frames_out += n;
	for (unsigned i = from; i < from + n; i++) {
		c->bytes_out += b->slots[i].ip_bytes;
		if (b->slots[i].held)
			hold_sent(b->hold);
	}
}

/* One packet is most often all there is, and then the plainer call costs less. How many were sent. */
static int send_some(struct batch *b, unsigned from, int fd)
{
	const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;

	if (b->n - from > 1)
		return sendmmsg(fd, b->msgs + from, b->n - from, flags);
	return sendmsg(fd, &b->msgs[from].msg_hdr, flags) < 0 ? -1 : 1;
}

void batch_flush(struct batch *b, int fd, struct link_counters *c)
{
	unsigned at = 0, retries = RETRIES;

	while (at < b->n) {
		const int n = send_some(b, at, fd);
		const int err = n < 0 ? errno : 0;

		if (n > 0) {
			count_sent(b, at, (unsigned)n, c);
			at += (unsigned)n;
			continue;
		}
		if (err == ENOBUFS)
			use_pages(b, at);
		if ((err == EAGAIN || err == ENOBUFS || err == EINTR) && retries > 0) {
			retries--;
			continue;
		}
		/* This one is lost; those behind it may go another way. */
		if (err == EMSGSIZE)
			c->send_too_big++;
		else
			c->send_failed++;
		at++;
	}
	b->n = 0;
	if (b->hold)
		hold_limit(b->hold);
}
