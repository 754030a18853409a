/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated network: two directions, each with delay, jitter, loss, bursts of loss, duplicates,
 * corruption, a rate and a queue that drops at its end and may mark. Random numbers come from one
 * generator, or from the packet's number alone; either way a seed is a whole run.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tcp/segment.h"
#include "tcp/vtime.h"

struct rng {
	uint64_t s;
};

uint64_t rnd(struct rng *r);
uint64_t below(struct rng *r, uint64_t n); /* 0..n-1; n 0 gives 0 */
bool chance(struct rng *r, unsigned permille);

enum { SUFFERED_MAX = 8192 };

struct packet {
	vtime at;
	uint64_t order; /* ties go by order of sending */
	unsigned to;
	struct segment seg;
	uint8_t *bytes;
};

struct path {
	unsigned loss, dup, mark; /* permille; mark: with congestion, what allows it */
	unsigned corrupt; /* permille: up to 15 bits in a row are inverted; only with net.wire */
	unsigned burst; /* permille per packet: the start of a burst in which all is lost */
	uint64_t burst_us; /* which lasts up to this */
	vtime burst_until;
	bool fifo; /* jitter does not reorder */
	uint64_t delay_us, jitter_us;
	uint64_t octets_per_s; /* 0: unlimited */
	uint64_t mark_us; /* longer waiting marks as well; 0: it does not */
	uint64_t queue_us; /* longer waiting is dropped */
	vtime busy_until, last;
};

struct net {
	struct rng *rng;
	struct path path[2]; /* by sender */
	struct packet **heap;
	size_t n, cap;
	uint64_t order, packets, hash, lost;
	uint64_t corrupted, refused; /* of the corrupted, those that decoding refused */
	unsigned lost_ctl; /* control bits of all that was lost */
	uint64_t loss_mask; /* bit k: packet k is lost */
	uint64_t key; /* not 0: what happens to packet k depends on this and on k, and not on rng */
	bool only; /* with key: no packet suffers but those of only_these[] */
	const uint32_t *only_these; /* ascending */
	size_t only_n;
	uint32_t suffered[SUFFERED_MAX]; /* with key: packets that were not just carried */
	size_t suffered_n;
	bool wire; /* packets are octets on their way: encoded, decoded, checksums verified */
	vtime down_from, down_until; /* everything is lost in between */
	bool cut; /* super-segments are cut into pieces on the way */
	bool verbose;
};

void net_fini(struct net *n);
/* Sends; the segment's flow is turned round for the receiver. Returns its pieces. */
unsigned net_send(struct net *n, vtime now, unsigned from, const struct segment *seg);
vtime net_next(const struct net *n);
/* The next packet due by now, or NULL. The caller gives it back to net_drop(). */
struct packet *net_take(struct net *n, vtime now);
void net_drop(struct packet *p);
