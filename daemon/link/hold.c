/* SPDX-License-Identifier: Apache-2.0 */
#include "hold.h"

#include <errno.h>
#include <linux/net_tstamp.h>
#include <string.h>

void hold_init(struct hold *h, int fd)
{
	const uint32_t flags = SOF_TIMESTAMPING_TX_SCHED;
	struct cmsghdr *const c = (struct cmsghdr *)(void *)h->request;

	*h = (struct hold){ .fd = fd };
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SO_TIMESTAMPING;
	c->cmsg_len = CMSG_LEN(sizeof(flags));
	memcpy(CMSG_DATA(c), &flags, sizeof(flags));
}

void hold_read(struct hold *h, uint32_t bytes)
{
	h->fresh = bytes < HOLD_FRESH_MAX - h->fresh ? h->fresh + bytes : HOLD_FRESH_MAX;
}

bool hold_wants(struct hold *h, uint32_t text)
{
	if (text < HOLD_LEAST)
		return false;
	if (!h->fresh)
		return true;
	h->fresh -= text < h->fresh ? text : h->fresh;
	return false;
}

void hold_mark(struct hold *h, struct msghdr *m)
{
	m->msg_control = h->request;
	m->msg_controllen = sizeof(h->request);
}

void hold_sent(struct hold *h)
{
	h->n++;
}

/* Up to so many of the first, unread. */
static void give_back(struct hold *h, uint32_t count)
{
	struct mmsghdr msgs[HOLD_EXTRA] = { 0 };
	int got = recvmmsg(h->fd, msgs, count, MSG_ERRQUEUE | MSG_DONTWAIT, NULL);

	/* An error of the socket's, which is told once. */
	if (got < 0 && errno != EAGAIN)
		got = recvmmsg(h->fd, msgs, count, MSG_ERRQUEUE | MSG_DONTWAIT, NULL);
	/* None: the kernel has not kept all. */
	h->n = got < 0 ? 0 : h->n - (uint32_t)got;
}

void hold_limit(struct hold *h)
{
	while (h->n >= HOLD_PACKETS + HOLD_EXTRA)
		give_back(h, HOLD_EXTRA);
}

void hold_release(struct hold *h)
{
	while (h->n)
		give_back(h, h->n < HOLD_EXTRA ? h->n : HOLD_EXTRA);
	h->fresh = 0;
}
