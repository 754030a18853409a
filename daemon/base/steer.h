/* SPDX-License-Identifier: Apache-2.0 */
/* Which of several workers has a flow: a keyed hash of the remote address and both ports, which the
 * kernel computes of every packet (link/fanout.c, in BPF) and we where we choose a port of our own. The
 * local address is left out, so that it can be asked before that is chosen.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/addr.h"
#include "base/macros.h"

struct steer {
	uint32_t workers; /* how many; 0 and 1: one has all */
	uint32_t index; /* which one this is */
	uint32_t key[2]; /* odd: multiplication loses nothing */
};

WRAPS static inline uint32_t steer_mix(const struct steer *s, uint32_t h, uint32_t word)
{
	return (h ^ word) * s->key[0];
}

/* The hash after the address's words and the ports, remote and local. */
WRAPS static inline uint32_t steer_finish(const struct steer *s, uint32_t h, uint32_t ports)
{
	h = (h ^ ports) * s->key[1];
	h ^= h >> 16;
	return (h * s->key[0]) >> 8;
}

static inline uint32_t steer_word(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The worker of a flow. */
static inline uint32_t steer_worker(const struct steer *s, const struct ipaddr *remote,
				    uint16_t remote_port, uint16_t local_port)
{
	uint32_t h = 0;

	if (s->workers < 2)
		return 0;
	for (unsigned i = addr_is_v4(remote) ? 12 : 0; i < 16; i += 4)
		h = steer_mix(s, h, steer_word(remote->b + i));
	h = steer_finish(s, h, (uint32_t)remote_port << 16 | local_port);
	return h % s->workers;
}

static inline bool steer_is_mine(const struct steer *s, const struct flow *f)
{
	return s->workers < 2 ||
	       steer_worker(s, &f->remote.addr, f->remote.port, f->local.port) == s->index;
}
