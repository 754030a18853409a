/* SPDX-License-Identifier: Apache-2.0 */
/* What is in flight and when it left: RFC 6675 2, RFC 8985 5. Runs of octets from SND.UNA to SND.NXT, in
 * order, without a gap; those that neither arrived nor are given up are also on a list by time. Memory is
 * the engine's fixed arena; a scoreboard that finds none is given up (SACK is advice: RFC 2018 8).
 *
 *	una                                               nxt
 *	|  lost  |sacked|   on the way   |sacked|on the way|
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "tcp/seqno.h"
#include "tcp/vtime.h"

enum { RUNS_PER_CONN = 1024 };

enum run_is {
	RUN_SACKED = 1 << 0,
	RUN_LOST = 1 << 1, /* to be sent again */
	RUN_AGAIN = 1 << 2, /* was sent more than once */
};

/* Named by index + 1; 0 is none. */
struct run {
	uint32_t next; /* by sequence number, or in the free list */
	uint32_t older, newer; /* by time; only when neither sacked nor lost */
	uint32_t is; /* enum run_is */
	seqno left, right;
	vtime at; /* when it left, the last time */
};

struct runs {
	struct run *all;
	uint32_t max, fresh, free;
};

struct scoreboard {
	uint32_t head, tail; /* by sequence number */
	uint32_t hint; /* where the last block was found */
	uint32_t oldest, newest; /* by time */
	uint32_t first_lost;
	uint32_t n;
	uint32_t sacked, lost; /* octets */
	seqno fack; /* right end of the highest that was sacked; una when none was */
};

/* Told of each run that arrived. */
typedef void scoreboard_arrived(void *arg, const struct run *r);

static inline struct run *run_at(const struct runs *m, uint32_t id)
{
	return &m->all[id - 1];
}

/* left =< s < right was sent for the first time. False: no memory. */
bool scoreboard_sent(struct runs *m, struct scoreboard *b, seqno left, seqno right, vtime now);
/* The same was sent again. */
bool scoreboard_again(struct runs *m, struct scoreboard *b, seqno left, seqno right, vtime now);
/* A SACK block within una..nxt. */
bool scoreboard_sack(struct runs *m, struct scoreboard *b, seqno left, seqno right,
		     scoreboard_arrived *arrived, void *arg);
/* Everything below una arrived. */
void scoreboard_ack(struct runs *m, struct scoreboard *b, seqno una, scoreboard_arrived *arrived,
		    void *arg);
void scoreboard_lose(struct runs *m, struct scoreboard *b, uint32_t id);
/* All but what was sacked. renege: that too, RFC 2018 8. */
void scoreboard_lose_all(struct runs *m, struct scoreboard *b, bool renege);
/* What was given up was not lost after all. */
void scoreboard_unlose(struct runs *m, struct scoreboard *b);
void scoreboard_clear(struct runs *m, struct scoreboard *b);
/* Asserts its invariants; the number of runs. */
uint32_t scoreboard_check(const struct runs *m, const struct scoreboard *b, seqno una, seqno nxt);
