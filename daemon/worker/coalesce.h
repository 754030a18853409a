/* SPDX-License-Identifier: Apache-2.0 */
/* How long a busy worker lets more arrive before it looks again, instead of being woken by each packet: as a
 * network card moderates its interrupts (ethtool's rx-usecs). To wake a thread of another core costs who sends more
 * than a segment does, and an ACK for many segments costs no more than one for two. Pure; times are microseconds.
 *
 * Whether it pays is seen by when the last packet came in the time that was waited. If it came near the end, more
 * comes all the time: the delay doubles. If it came early, or none did, the peer waits for our answer, and the
 * delay only holds it up: it halves, down to none, and is not tried again for a while, each time a longer one. The next
 * try is longer as well: packets that come one by one, each of another flow, are too few in a short one.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum {
	COALESCE_MIN_US = 8, /* the first delay */
	COALESCE_FIRST_MAX_US = 32, /* when shorter ones did not pay */
	/* The longest when most of what came is text that nobody reads. A sender on this machine that is not done yet with its
	 * send() when the ACK comes frees what it acknowledged itself, and writes the next to pages that its core has. */
	COALESCE_UNREAD_MAX_US = 20,
	/* One wakeup had so much: the worker is busy. One who asks and waits for an answer never makes it so. */
	COALESCE_FRAMES = 2,
	COALESCE_BYTES = 32768,
	/* Busy wakeups before a delay is tried. */
	COALESCE_TRY = 4,
	COALESCE_TRY_MAX = 4096,
};

/* Zeros are a valid beginning, but for max_us. */
struct coalesce {
	uint32_t max_us; /* the longest delay; 0: there is never one */
	uint32_t delay_us; /* to be waited after this wakeup; 0: none */
	uint32_t first_us; /* the next one that is tried; 0: COALESCE_MIN_US */
	uint32_t busy; /* wakeups, more than others, since a delay was tried */
	uint32_t patience; /* so many of them before the next is; 0: COALESCE_TRY */
	bool waited; /* delay_us, and something came meanwhile */
};

/* delay_us was waited. Did anything come? */
void coalesce_waited(struct coalesce *c, bool came);
/* What a wakeup took: not nothing. */
struct coalesce_load {
	uint32_t frames;
	uint64_t bytes;
	uint64_t unread; /* of them, in packets whose text stayed in the kernel */
	uint64_t
		tail_us; /* since the last of it, when the wakeup began; 0 when more came meanwhile */
	bool mixed; /* not all from whom the last one of the wakeup before was */
};

void coalesce_took(struct coalesce *c, const struct coalesce_load *load);
