/* SPDX-License-Identifier: Apache-2.0 */
/* How long a busy worker lets more arrive before it looks again, instead of being woken by each packet: as a
 * network card moderates its interrupts (ethtool's rx-usecs). To wake a thread of another core costs who sends more
 * than a segment does, and an ACK for many segments costs no more than one for two. Pure; times are microseconds.
 *
 * Whether it pays is seen by when the last packet came in the time that was waited. If it came near the end, more
 * comes all the time: the delay doubles. If it came early, or none did, the peer waits for our answer, and the
 * delay only holds it up: it halves, down to none, and is not tried again for a while, each time a longer one.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum {
	COALESCE_MIN_US = 8, /* the first delay */
	/* One wakeup had so much: the worker is busy. One who asks and waits for an answer never is. */
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
	uint32_t busy; /* wakeups, more than others, since a delay was tried */
	uint32_t patience; /* so many of them before the next is; 0: COALESCE_TRY */
	bool waited; /* delay_us, and something came meanwhile */
};

/* delay_us was waited. Did anything come? */
void coalesce_waited(struct coalesce *c, bool came);
/* A wakeup took so much, but not nothing, the last of it `tail_us` before it began: 0 when more came meanwhile. */
void coalesce_took(struct coalesce *c, uint32_t frames, uint64_t bytes, uint64_t tail_us);
