/* SPDX-License-Identifier: Apache-2.0 */
/* Which run it is: a seed, and what is left out of what the seed chose. Written and read as one line,
 *
 *	sim 18246 conns=1 stream=300 no=rate,cut only=3,17
 *
 * conns and stream are upper limits. no= names things of enum knob. only= names the packets, counted as
 * they are sent, that may be lost, late, doubled, marked or corrupted; only=none: no packet.
 * break= makes the run fail when something harmless happens: for tests of what looks for failures.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define KNOBS(X)                                             \
	X(rate, "no link has a rate")                        \
	X(down, "the network does not go away")              \
	X(cut, "super-segments arrive whole")                \
	X(wire, "packets are not encoded and decoded")       \
	X(v6, "IPv4")                                        \
	X(both, "one side opens")                            \
	X(slow, "nobody reads slowly")                       \
	X(direct, "text is copied")                          \
	X(passes, "nobody answers what is being delivered")  \
	X(peek, "nobody reads in place")                     \
	X(clock, "sequence numbers are not near a wrap")     \
	X(abort, "nobody aborts")                            \
	X(close, "nobody closes before all is sent")         \
	X(memory, "there is memory")                         \
	X(burst, "a device takes all there is")              \
	X(options, "no timestamps, window scale, SACK, ECN") \
	X(small, "no small buffers and segments")            \
	X(cookies, "each SYN has a record")                  \
	X(fastopen, "no text in a SYN, all open at once")

enum knob {
#define KNOB(name, help) KNOB_##name,
	KNOBS(KNOB)
#undef KNOB
		KNOB__COUNT,
};

enum { ONLY_MAX = 8192 };

/* What harmless thing the run fails for. */
enum broken { BREAK_NOTHING, BREAK_LOST_FIN, BREAK_LATE_TEXT };

struct plan {
	uint64_t seed, mask;
	uint64_t conns, stream; /* at most; UINT64_MAX: as the seed says */
	uint32_t no; /* bits of enum knob */
	bool only;
	size_t only_n;
	uint32_t only_these[ONLY_MAX]; /* ascending */
	enum broken broken;
};

void plan_init(struct plan *p, uint64_t seed);
/* One `key=value`. False: it is none that is known; the reason is printed. */
bool plan_word(struct plan *p, const char *word);
void plan_print(FILE *f, const struct plan *p);
bool plan_without(const struct plan *p, enum knob k);
