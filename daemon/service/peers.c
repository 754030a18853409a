/* SPDX-License-Identifier: Apache-2.0 */
#include "service/peers.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

struct peer {
	struct ipaddr addr;
	uint32_t n;
};

static int compare(const void *a, const void *b)
{
	const struct peer *const x = a, *const y = b;

	return memcmp(&x->addr, &y->addr, sizeof(x->addr));
}

void peers_fini(struct peers *p)
{
	tdestroy(p->tree, free);
	p->tree = NULL;
}

int peers_enter(struct peers *p, const struct ipaddr *addr, uint32_t max)
{
	struct peer *const fresh = calloc(1, sizeof(*fresh));
	struct peer *peer, **at;

	if (!fresh)
		return -ENOMEM;
	fresh->addr = *addr;
	at = (struct peer **)tsearch(fresh, &p->tree, compare);
	if (!at || *at != fresh)
		free(fresh);
	if (!at)
		return -ENOMEM;
	peer = *at;
	if (peer->n >= max)
		return -EAGAIN;
	peer->n++;
	return 0;
}

void peers_leave(struct peers *p, const struct ipaddr *addr)
{
	const struct peer key = { .addr = *addr };
	struct peer **const at = (struct peer **)tfind(&key, &p->tree, compare);
	struct peer *const peer = at ? *at : NULL;

	if (!peer || --peer->n)
		return;
	(void)tdelete(&key, &p->tree, compare);
	free(peer);
}
