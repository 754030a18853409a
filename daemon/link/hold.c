/* SPDX-License-Identifier: Apache-2.0 */
#include "hold.h"

#include <errno.h>
#include <linux/net_tstamp.h>
#include <stddef.h>

#include "base/macros.h"

/* struct cmsghdr and what it says, as the kernel aligns them. */
struct request {
	struct cmsghdr header;
	uint32_t flags;
};

_Static_assert(offsetof(struct request, flags) == CMSG_LEN(0), "no gap behind a cmsghdr");

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

void hold_mark(struct msghdr *m)
{
	static struct request keep = {
		.header = { .cmsg_len = CMSG_LEN(sizeof(uint32_t)),
			    .cmsg_level = SOL_SOCKET,
			    .cmsg_type = SO_TIMESTAMPING },
		.flags = SOF_TIMESTAMPING_TX_SCHED,
	};

	m->msg_control = &keep;
	m->msg_controllen = sizeof(keep);
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
}
