/* SPDX-License-Identifier: Apache-2.0 */
/* Send and receive queues over one arena of chunks, taken on demand and given back: a connection that
 * has nothing queued holds none.
 *
 * Both queues address octets by sequence number. `origin` is the sequence number that sits at offset
 * 0 of a chunk; octet s is in the chunk whose key is (s - origin) / ENGINE_CHUNK_BYTES. Origin is
 * chosen anew whenever a queue is empty, so that what is small needs one chunk.
 *
 *	sendq	front                 front+used
 *		 |=======================|			every chunk between is held
 *
 *	recvq	front      rcv.nxt    left  right   left right
 *		 |==unread===|.........|=====|.......|====|	ranges: arrived out of order
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tcp/segment.h"
#include "tcp/seqno.h"

enum {
	CHUNK_BYTES = 16384, /* ENGINE_CHUNK_BYTES */
	RANGES_PER_CONN = 64, /* holes a peer may leave at a time */
};

/* Chunks and ranges are named by index + 1; 0 is none. */
struct chunk {
	uint32_t next; /* of its queue, or of the free list */
	uint32_t key; /* (sequence number - origin) / CHUNK_BYTES */
	const uint8_t *lent; /* of a send queue: the octets are there; NULL: in the pool */
	const uint8_t *second; /* likewise, from octet `split` on; NULL: there is no second part */
	uint64_t loan; /* not 0: the first of those that are to be given back */
	uint32_t loan_before, loan_behind; /* chunks of the earlier loan and of the later one */
	uint16_t split; /* with second */
	uint16_t
		end; /* with loan: so many octets are in it, all of them in one part or the other */
};

struct range {
	uint32_t next;
	seqno left, right; /* octets left =< s < right have arrived */
	seqno stamp; /* counts on with each change: which block is newest, RFC 2018 4 */
};

enum chunk_use { CHUNK_SEND, CHUNK_RECEIVE, CHUNK_REASSEMBLY, CHUNK__COUNT };

/* Sends and receives may each take all but a reserve: were one able to take everything, two peers that
 * both wait to send, or two services that both hold what they cannot pass on, would wait for ever.
 * Below half of that a queue takes what it needs. Above, its share of what is left, and its first as long
 * as there is one. Send queues stop earlier, at an eighth, to hold what the peer's window does not let go:
 * peers that open connections and read nothing do not silence the others, until they are nearly as many as
 * the chunks.
 */
struct pool {
	uint8_t *bytes; /* chunks_max * CHUNK_BYTES */
	struct chunk *chunks;
	uint32_t chunks_max;
	uint32_t chunks_fresh; /* chunks below were used at some time */
	uint32_t chunks_free, chunks_free_n; /* head of the free list; those in it */
	uint32_t chunks_idle; /* of them, those that were not needed since pool_look() */
	uint32_t chunks_returned; /* head of the list of those that are free and without memory */
	uint32_t reserve;
	uint32_t used, peak, sending; /* chunks held; of them, by send queues */
	uint32_t holders; /* connections, which share */
	uint32_t loan_first, loan_last; /* chunks whose octets are to be given back, by loan */
	struct range *ranges;
	uint32_t ranges_max, ranges_fresh, ranges_free;
};

struct sendq {
	seqno origin;
	seqno front; /* first octet that is not acknowledged */
	uint32_t used; /* octets from front */
	uint32_t head, tail; /* chunks */
	uint32_t cursor; /* chunk of the last read: sequential reads need no walk */
};

struct recvq {
	seqno origin;
	seqno front; /* first octet that is not read */
	uint32_t unread; /* octets from front, in order */
	uint32_t head; /* chunks, by position; those without an octet are missing */
	uint32_t cursor; /* chunk of the last write */
	uint32_t ranges; /* out of order, by position */
	uint32_t ranges_n;
	seqno stamp; /* of the latest range */
};

void pool_init(struct pool *p, uint8_t *bytes, struct chunk *chunks, uint32_t chunks_max,
	       struct range *ranges, uint32_t ranges_max);
/* Could a queue of this use take a chunk now? */
bool pool_has(const struct pool *p, enum chunk_use use);
static inline void pool_look(struct pool *p)
{
	p->chunks_idle = p->chunks_free_n;
}
/* The octets of a free chunk that was not needed since pool_look(): what is in them is undefined from now
 * on. At least `keep` free chunks keep theirs. NULL: none. */
uint8_t *pool_return(struct pool *p, uint32_t keep);
/* So many chunks are held by receive queues that what each may take is its share. */
bool pool_is_scarce(const struct pool *p);
/* Send queues hold so many chunks, an eighth of theirs, that none should hold what its peer does not take. */
bool pool_is_filling(const struct pool *p);
/* Octets that one receive queue can count on at most. */
uint64_t pool_receive_bytes(const struct pool *p);

/* Appends; how many octets found room. */
uint32_t sendq_put(struct pool *p, struct sendq *q, const uint8_t *data, uint32_t len);
uint32_t sendq_put_pattern(struct pool *p, struct sendq *q, const struct pattern *pattern,
			   uint32_t at, uint32_t len);
/* As sendq_put(), but what is not little stays where it is, until it is dropped or recalled. Loans never decrease; 0
 * lends nothing. */
uint32_t sendq_put_lent(struct pool *p, struct sendq *q, const uint8_t *data, uint32_t len,
			uint64_t loan);
/* The first loan that is not given back; 0: nothing is lent. */
uint64_t pool_first_loan(const struct pool *p);
/* Gives back what is lent by loans up to this one: copies it. */
void pool_recall(struct pool *p, uint64_t loan);
/* How many octets it takes without one more chunk; an empty one: with its first. */
uint32_t sendq_spare(const struct sendq *q);
void sendq_drop(struct pool *p, struct sendq *q, uint32_t n);
/* The octets at =< s < at + n as spans. Returns their number, at most SEG_SPANS. */
uint8_t sendq_spans(const struct pool *p, struct sendq *q, seqno at, uint32_t n,
		    struct span ret[SEG_SPANS]);
void sendq_clear(struct pool *p, struct sendq *q);

/* In order: from front + unread on. How many octets found room. What arrived out of order gives way
 * when no chunk is left. Ranges that it reaches are not joined: see recvq_join().
 */
uint32_t recvq_append(struct pool *p, struct recvq *q, const uint8_t *data, uint32_t len);
/* How many octets behind its ordered text the queue could keep now, were they to come at once. One chunk
 * that an empty queue cannot have counts as well: who waits for it asks again, and finds out.
 */
uint64_t recvq_room(const struct pool *p, const struct recvq *q);
/* Out of order. May a range that begins at `at` be kept at all? */
bool recvq_has_range(const struct pool *p, const struct recvq *q, seqno at);
uint32_t recvq_insert(struct pool *p, struct recvq *q, seqno at, const uint8_t *data, uint32_t len);
void recvq_add_range(struct pool *p, struct recvq *q, seqno left, seqno right);
/* The ranges as SACK blocks, the one that changed last first: RFC 2018 4. Their number, at most `max`. */
unsigned recvq_blocks(const struct pool *p, const struct recvq *q, struct sack_block *ret,
		      unsigned max);
/* The range that reaches into left =< s < right first. False: none does. */
bool recvq_overlap(const struct pool *p, const struct recvq *q, seqno left, seqno right,
		   struct sack_block *ret);
/* Takes the ranges that the end of the ordered text has reached into it. How many octets they added. */
uint32_t recvq_join(struct pool *p, struct recvq *q);
/* Octets that never entered, because they were delivered directly: front moves. unread must be 0. */
void recvq_skip(struct pool *p, struct recvq *q, uint32_t n);
unsigned recvq_spans(const struct pool *p, const struct recvq *q, struct span *ret, unsigned max);
void recvq_consume(struct pool *p, struct recvq *q, uint32_t n);
void recvq_drop_ranges(struct pool *p, struct recvq *q);
void recvq_clear(struct pool *p, struct recvq *q);
uint32_t recvq_range_bytes(const struct pool *p, const struct recvq *q);
/* Chunks held: for engine_check(). */
uint32_t sendq_chunks(const struct pool *p, const struct sendq *q);
uint32_t recvq_chunks(const struct pool *p, const struct recvq *q);
