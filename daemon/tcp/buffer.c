/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer.h"

#include <assert.h>
#include <string.h>

enum {
	KEY_MASK = (int)(0xffffffffU / CHUNK_BYTES),
	LEND_LEAST = 2048, /* octets: fewer are copied, which costs as little as a loan */
};

_Static_assert(CHUNK_BYTES <= UINT16_MAX, "split and end");
_Static_assert(SEG_SPANS >= 2 * (UINT16_MAX / CHUNK_BYTES + 2), "two parts of each chunk");

/* Chunks. */

void pool_init(struct pool *p, uint8_t *bytes, struct chunk *chunks, uint32_t chunks_max,
	       struct range *ranges, uint32_t ranges_max)
{
	*p = (struct pool){
		.bytes = bytes,
		.chunks = chunks,
		.chunks_max = chunks_max,
		.reserve = chunks_max >= 16  ? chunks_max / 8
			   : chunks_max >= 2 ? 1
					     : 0,
		.ranges = ranges,
		.ranges_max = ranges_max,
	};
}

bool pool_has(const struct pool *p, enum chunk_use use)
{
	const uint32_t most = p->chunks_max - p->reserve;

	if (p->used >= p->chunks_max)
		return false;
	switch (use) {
	case CHUNK_SEND:
		return p->sending < most;
	case CHUNK_RECEIVE:
		return p->used - p->sending < most;
	case CHUNK_REASSEMBLY:
		/* A stranger's holes are the first thing to do without. */
		return p->used - p->sending < most && p->used < p->chunks_max - p->reserve / 2;
	case CHUNK__COUNT:
		break;
	}
	assert(false && "not a use of chunks");
	return false;
}

uint64_t pool_receive_bytes(const struct pool *p)
{
	return (uint64_t)(p->chunks_max - p->reserve) * CHUNK_BYTES;
}

static struct chunk *chunk_at(const struct pool *p, uint32_t id)
{
	return &p->chunks[id - 1];
}

static uint8_t *chunk_bytes(const struct pool *p, uint32_t id)
{
	return p->bytes + (size_t)(id - 1) * CHUNK_BYTES;
}

uint8_t *pool_return(struct pool *p, uint32_t keep)
{
	const uint32_t id = p->chunks_free;

	if (p->chunks_idle <= keep)
		return NULL;
	p->chunks_idle--;
	p->chunks_free = chunk_at(p, id)->next;
	p->chunks_free_n--;
	chunk_at(p, id)->next = p->chunks_returned;
	p->chunks_returned = id;
	return chunk_bytes(p, id);
}

static uint32_t taken_for(const struct pool *p, enum chunk_use use)
{
	return use == CHUNK_SEND ? p->sending : p->used - p->sending;
}

static bool is_shared(const struct pool *p, enum chunk_use use)
{
	return taken_for(p, use) >= (p->chunks_max - p->reserve) / 2 && p->holders >= 2;
}

/* How many chunks a queue may hold when it holds so many. */
static uint32_t share(const struct pool *p, enum chunk_use use, uint32_t held)
{
	const uint32_t most = p->chunks_max - p->reserve;

	return (uint32_t)(((uint64_t)most - taken_for(p, use) + held) / p->holders);
}

/* May a queue that holds so many chunks have one more? Only asked when there is one. */
static bool is_within_share(const struct pool *p, enum chunk_use use, uint32_t held)
{
	return held == 0 || !is_shared(p, use) || held < share(p, use, held);
}

bool pool_is_scarce(const struct pool *p)
{
	return is_shared(p, CHUNK_RECEIVE);
}

bool pool_is_filling(const struct pool *p)
{
	return p->sending >= (p->chunks_max - p->reserve) / 8 && p->holders >= 2;
}

static uint32_t chunk_take(struct pool *p, enum chunk_use use, uint32_t key, uint32_t held)
{
	struct chunk *c;
	uint32_t id;

	if (!pool_has(p, use) || !is_within_share(p, use, held))
		return 0;
	if (p->chunks_free) {
		id = p->chunks_free;
		p->chunks_free = chunk_at(p, id)->next;
		p->chunks_free_n--;
		p->chunks_idle = p->chunks_idle < p->chunks_free_n ? p->chunks_idle
								   : p->chunks_free_n;
	} else if (p->chunks_returned) {
		id = p->chunks_returned;
		p->chunks_returned = chunk_at(p, id)->next;
	} else {
		id = ++p->chunks_fresh;
	}
	p->used++;
	p->peak = p->used > p->peak ? p->used : p->peak;
	p->sending += use == CHUNK_SEND;
	c = chunk_at(p, id);
	c->next = 0;
	c->key = key;
	c->lent = c->second = NULL;
	c->loan = 0;
	return id;
}

/* Loans. */

static void loan_begin(struct pool *p, uint32_t id, uint64_t loan)
{
	struct chunk *const c = chunk_at(p, id);

	assert(loan >= (p->loan_last ? chunk_at(p, p->loan_last)->loan : 1));
	c->loan = loan;
	c->loan_before = p->loan_last;
	c->loan_behind = 0;
	if (p->loan_last)
		chunk_at(p, p->loan_last)->loan_behind = id;
	else
		p->loan_first = id;
	p->loan_last = id;
}

static void loan_end(struct pool *p, struct chunk *c)
{
	if (c->loan_before)
		chunk_at(p, c->loan_before)->loan_behind = c->loan_behind;
	else
		p->loan_first = c->loan_behind;
	if (c->loan_behind)
		chunk_at(p, c->loan_behind)->loan_before = c->loan_before;
	else
		p->loan_last = c->loan_before;
	c->loan = 0;
}

uint64_t pool_first_loan(const struct pool *p)
{
	return p->loan_first ? chunk_at(p, p->loan_first)->loan : 0;
}

/* Its n octets are in the pool from now on, and nothing in it is lent. */
static void settle(struct pool *p, uint32_t id, uint32_t n)
{
	struct chunk *const c = chunk_at(p, id);
	uint8_t *const own = chunk_bytes(p, id);

	if (c->lent)
		memcpy(own, c->lent, c->second ? c->split : n);
	if (c->second)
		memcpy(own + c->split, c->second, n - c->split);
	c->lent = c->second = NULL;
	if (c->loan)
		loan_end(p, c);
}

void pool_recall(struct pool *p, uint64_t loan)
{
	while (p->loan_first && pool_first_loan(p) <= loan)
		settle(p, p->loan_first, chunk_at(p, p->loan_first)->end);
}

static void chunk_give(struct pool *p, uint32_t id, bool sending)
{
	struct chunk *const c = chunk_at(p, id);

	if (c->loan)
		loan_end(p, c);
	c->next = p->chunks_free;
	p->chunks_free = id;
	p->chunks_free_n++;
	p->used--;
	p->sending -= sending;
}

static uint32_t key_of(seqno origin, seqno s)
{
	return seq_sub(s, origin) / CHUNK_BYTES;
}

static uint32_t offset_of(seqno origin, seqno s)
{
	return seq_sub(s, origin) % CHUNK_BYTES;
}

/* How many chunks `key` lies behind the one that holds `front`. */
WRAPS static uint32_t key_distance(seqno origin, seqno front, uint32_t key)
{
	return (key - key_of(origin, front)) & KEY_MASK;
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Send queue. */

static seqno sendq_end(const struct sendq *q)
{
	return seq_add(q->front, q->used);
}

/* There is room behind the last octet: its chunk is not full, or was taken. */
static bool sendq_grow(struct pool *p, struct sendq *q)
{
	const uint32_t key = key_of(q->origin, sendq_end(q));
	uint32_t id;

	if (offset_of(q->origin, sendq_end(q)))
		return true;
	id = chunk_take(p, CHUNK_SEND, key, q->head ? key_distance(q->origin, q->front, key) : 0);
	if (!id)
		return false;
	if (q->tail)
		chunk_at(p, q->tail)->next = id;
	else
		q->head = q->cursor = id;
	q->tail = id;
	return true;
}

/* Copies behind the last octet, of what the chunk has room for. */
static void sendq_copy(struct pool *p, struct sendq *q, const uint8_t *data, uint32_t n)
{
	const uint32_t off = offset_of(q->origin, sendq_end(q));

	settle(p, q->tail, off);
	memcpy(chunk_bytes(p, q->tail) + off, data, n);
}

/* As the chunk's first part or its second one. False: it has both, or it is not worth it. */
static bool sendq_lend(struct pool *p, struct sendq *q, const uint8_t *data, uint32_t n,
		       uint64_t loan)
{
	const uint32_t off = offset_of(q->origin, sendq_end(q));
	struct chunk *const c = chunk_at(p, q->tail);

	if (!loan || n < LEND_LEAST || (off && c->second))
		return false;
	if (off) {
		c->second = data;
		c->split = (uint16_t)off;
	} else {
		c->lent = data;
	}
	c->end = (uint16_t)(off + n);
	if (!c->loan)
		loan_begin(p, q->tail, loan);
	return true;
}

uint32_t sendq_put(struct pool *p, struct sendq *q, const uint8_t *data, uint32_t len)
{
	return sendq_put_lent(p, q, data, len, 0);
}

uint32_t sendq_put_lent(struct pool *p, struct sendq *q, const uint8_t *data, uint32_t len,
			uint64_t loan)
{
	uint32_t done = 0;

	if (!q->head)
		q->origin = q->front;
	while (done < len && sendq_grow(p, q)) {
		const uint32_t off = offset_of(q->origin, sendq_end(q));
		const uint32_t n = least(len - done, CHUNK_BYTES - off);

		if (!sendq_lend(p, q, data + done, n, loan))
			sendq_copy(p, q, data + done, n);
		q->used += n;
		done += n;
	}
	return done;
}

/* Is there a chunk of the pattern, `ahead` octets behind what another one was lent, that begins with its octet
 * `begin`?
 */
static bool is_of_pattern(const struct pattern *pattern, const uint8_t *lent, uint32_t ahead,
			  uint32_t begin)
{
	const uintptr_t at = (uintptr_t)lent + ahead - (uintptr_t)pattern->bytes;

	return lent && at <= pattern->size - CHUNK_BYTES && at % pattern->period == begin;
}

uint32_t sendq_put_pattern(struct pool *p, struct sendq *q, const struct pattern *pattern,
			   uint32_t at, uint32_t len)
{
	uint32_t done = 0;

	if (!q->head)
		q->origin = q->front;
	while (done < len) {
		const uint8_t *const before = q->tail ? chunk_at(p, q->tail)->lent : NULL;

		if (!sendq_grow(p, q))
			break;

		const uint32_t off = offset_of(q->origin, sendq_end(q));
		const uint32_t n = least(len - done, CHUNK_BYTES - off);
		const uint32_t phase = (uint32_t)(((uint64_t)at + done) % pattern->period);
		const uint32_t begin = (phase + pattern->period - off % pattern->period) %
				       pattern->period;
		struct chunk *const c = chunk_at(p, q->tail);

		if (off != 0) {
			if (c->second || !is_of_pattern(pattern, c->lent, 0, begin))
				sendq_copy(p, q, pattern->bytes + phase, n);
		} else if (is_of_pattern(pattern, before, CHUNK_BYTES, begin)) {
			c->lent = before + CHUNK_BYTES; /* one span */
		} else {
			c->lent = pattern->bytes + begin;
		}
		q->used += n;
		done += n;
	}
	return done;
}

uint32_t sendq_spare(const struct sendq *q)
{
	const uint32_t off = q->head ? offset_of(q->origin, sendq_end(q)) : 0;

	return q->head && off == 0 ? 0 : CHUNK_BYTES - off;
}

void sendq_clear(struct pool *p, struct sendq *q)
{
	while (q->head) {
		const uint32_t id = q->head;

		q->head = chunk_at(p, id)->next;
		chunk_give(p, id, true);
	}
	q->tail = q->cursor = 0;
	q->front = sendq_end(q);
	q->used = 0;
}

void sendq_drop(struct pool *p, struct sendq *q, uint32_t n)
{
	assert(n <= q->used);
	q->front = seq_add(q->front, n);
	q->used -= n;
	if (q->used == 0) {
		sendq_clear(p, q);
		return;
	}
	while (chunk_at(p, q->head)->key != key_of(q->origin, q->front)) {
		const uint32_t id = q->head;

		q->head = chunk_at(p, id)->next;
		if (q->cursor == id)
			q->cursor = q->head;
		chunk_give(p, id, true);
	}
}

/* Where the octet is; *ret_n: with so many behind it, those to come included. */
static const uint8_t *sendq_at(const struct pool *p, uint32_t id, uint32_t off, uint32_t *ret_n)
{
	const struct chunk *const c = chunk_at(p, id);

	*ret_n = CHUNK_BYTES - off;
	if (c->second && off >= c->split)
		return c->second + (off - c->split);
	if (c->second)
		*ret_n = c->split - off;
	return (c->lent ? c->lent : chunk_bytes(p, id)) + off;
}

uint8_t sendq_spans(const struct pool *p, struct sendq *q, seqno at, uint32_t n,
		    struct span ret[SEG_SPANS])
{
	const uint32_t want = key_distance(q->origin, q->front, key_of(q->origin, at));
	uint32_t off = offset_of(q->origin, at);
	uint8_t spans = 0;
	uint32_t id;

	if (n == 0)
		return 0;
	assert(seq_sub(at, q->front) < q->used && n <= seq_sub(sendq_end(q), at));
	id = key_distance(q->origin, q->front, chunk_at(p, q->cursor)->key) <= want ? q->cursor
										    : q->head;
	while (chunk_at(p, id)->key != key_of(q->origin, at))
		id = chunk_at(p, id)->next;
	q->cursor = id;
	while (n) {
		uint32_t part;
		const uint8_t *const base = sendq_at(p, id, off, &part);
		const uint32_t k = least(n, part);

		/* What is lent may go on where the chunk before ends. */
		if (spans && ret[spans - 1].base + ret[spans - 1].len == base) {
			ret[spans - 1].len += k;
		} else {
			assert(spans < SEG_SPANS);
			ret[spans++] = (struct span){ base, k };
		}
		n -= k;
		off += k;
		if (off == CHUNK_BYTES) {
			off = 0;
			id = chunk_at(p, id)->next;
		}
	}
	return spans;
}

uint32_t sendq_chunks(const struct pool *p, const struct sendq *q)
{
	uint32_t n = 0;

	for (uint32_t id = q->head; id; id = chunk_at(p, id)->next)
		n++;
	return n;
}

/* Receive queue: ranges. */

static struct range *range_at(const struct pool *p, uint32_t id)
{
	return &p->ranges[id - 1];
}

static void range_give(struct pool *p, struct recvq *q, uint32_t id)
{
	range_at(p, id)->next = p->ranges_free;
	p->ranges_free = id;
	q->ranges_n--;
}

static uint32_t range_take(struct pool *p, struct recvq *q)
{
	uint32_t id = p->ranges_free;

	if (id)
		p->ranges_free = range_at(p, id)->next;
	else
		id = ++p->ranges_fresh;
	q->ranges_n++;
	return id;
}

bool recvq_has_range(const struct pool *p, const struct recvq *q, seqno at)
{
	if (q->ranges_n < RANGES_PER_CONN && (p->ranges_free || p->ranges_fresh < p->ranges_max))
		return true;
	/* No new one; but one that it touches can grow. */
	for (uint32_t id = q->ranges; id; id = range_at(p, id)->next) {
		if (seq_le(range_at(p, id)->left, at) && seq_le(at, range_at(p, id)->right))
			return true;
	}
	return false;
}

void recvq_add_range(struct pool *p, struct recvq *q, seqno left, seqno right)
{
	uint32_t *link = &q->ranges;
	uint32_t id;

	q->stamp = seq_add(q->stamp, 1);
	while (*link && seq_lt(range_at(p, *link)->right, left))
		link = &range_at(p, *link)->next;
	/* *link is the first range that ends at `left` or behind it. */
	if (*link && seq_le(range_at(p, *link)->left, right)) {
		struct range *r = range_at(p, *link);

		r->stamp = q->stamp;
		r->left = seq_min(r->left, left);
		r->right = seq_max(r->right, right);
		while (r->next && seq_le(range_at(p, r->next)->left, r->right)) {
			const uint32_t gone = r->next;

			r->right = seq_max(r->right, range_at(p, gone)->right);
			r->next = range_at(p, gone)->next;
			range_give(p, q, gone);
		}
		return;
	}
	id = range_take(p, q);
	*range_at(p, id) = (struct range){
		.next = *link,
		.left = left,
		.right = right,
		.stamp = q->stamp,
	};
	*link = id;
}

unsigned recvq_blocks(const struct pool *p, const struct recvq *q, struct sack_block *ret,
		      unsigned max)
{
	seqno stamps[SEG_SACKS];
	unsigned n = 0;

	assert(max <= SEG_SACKS);
	for (uint32_t id = q->ranges; id && max; id = range_at(p, id)->next) {
		const struct range *r = range_at(p, id);
		unsigned at = n;

		while (at && seq_lt(stamps[at - 1], r->stamp))
			at--;
		if (at == max)
			continue;
		n += n < max;
		for (unsigned i = n - 1; i > at; i--) {
			ret[i] = ret[i - 1];
			stamps[i] = stamps[i - 1];
		}
		ret[at] = (struct sack_block){ r->left, r->right };
		stamps[at] = r->stamp;
	}
	return n;
}

bool recvq_overlap(const struct pool *p, const struct recvq *q, seqno left, seqno right,
		   struct sack_block *ret)
{
	for (uint32_t id = q->ranges; id; id = range_at(p, id)->next) {
		const struct range *r = range_at(p, id);

		if (!seq_lt(left, r->right))
			continue;
		if (!seq_lt(r->left, right))
			return false;
		*ret = (struct sack_block){ r->left, r->right };
		return true;
	}
	return false;
}

/* Forgets what lies at `at` and behind it. */
static void ranges_cut(struct pool *p, struct recvq *q, seqno at)
{
	uint32_t *link = &q->ranges;

	while (*link) {
		struct range *r = range_at(p, *link);
		const uint32_t id = *link;

		if (seq_lt(r->left, at)) {
			r->right = seq_min(r->right, at);
			link = &r->next;
			continue;
		}
		*link = r->next;
		range_give(p, q, id);
	}
}

uint32_t recvq_range_bytes(const struct pool *p, const struct recvq *q)
{
	uint32_t n = 0;

	for (uint32_t id = q->ranges; id; id = range_at(p, id)->next)
		n += seq_sub(range_at(p, id)->right, range_at(p, id)->left);
	return n;
}

/* Receive queue: chunks. */

static seqno recvq_end(const struct recvq *q)
{
	return seq_add(q->front, q->unread);
}

static uint32_t recvq_distance(const struct recvq *q, uint32_t key)
{
	return key_distance(q->origin, q->front, key);
}

/* The chunk of octet s, taken from the pool when it is missing. 0: none is left. */
static uint32_t chunk_for(struct pool *p, struct recvq *q, seqno s, enum chunk_use use)
{
	const uint32_t key = key_of(q->origin, s);
	const uint32_t want = recvq_distance(q, key);
	uint32_t before = 0, next = q->head, id;

	if (q->cursor && recvq_distance(q, chunk_at(p, q->cursor)->key) <= want) {
		before = q->cursor;
		next = chunk_at(p, before)->next;
	}
	while (next && recvq_distance(q, chunk_at(p, next)->key) <= want) {
		before = next;
		next = chunk_at(p, before)->next;
	}
	if (before && chunk_at(p, before)->key == key)
		return q->cursor = before;
	id = chunk_take(p, use, key, want);
	if (!id)
		return 0;
	chunk_at(p, id)->next = next;
	if (before)
		chunk_at(p, before)->next = id;
	else
		q->head = id;
	return q->cursor = id;
}

/* The last chunk goes when all of it lies behind the one that octet s needs: the peer sends again what
 * was out of order, and nothing of it was acknowledged.
 */
static bool give_up_last(struct pool *p, struct recvq *q, seqno s)
{
	uint32_t *link = &q->head;
	uint32_t id, key;

	if (!q->head)
		return false;
	while (chunk_at(p, *link)->next)
		link = &chunk_at(p, *link)->next;
	id = *link;
	key = chunk_at(p, id)->key;
	if (recvq_distance(q, key) <= recvq_distance(q, key_of(q->origin, s)))
		return false;
	*link = 0;
	q->cursor = q->head;
	ranges_cut(p, q, seq_add(q->origin, key * CHUNK_BYTES));
	chunk_give(p, id, false);
	return true;
}

static uint32_t store(struct pool *p, struct recvq *q, seqno at, const uint8_t *data, uint32_t len,
		      enum chunk_use use)
{
	uint32_t done = 0;

	if (!q->head)
		q->origin = q->front;
	while (done < len) {
		const seqno s = seq_add(at, done);
		const uint32_t off = offset_of(q->origin, s);
		const uint32_t n = least(len - done, CHUNK_BYTES - off);
		uint32_t id = chunk_for(p, q, s, use);

		while (!id && use == CHUNK_RECEIVE && give_up_last(p, q, s))
			id = chunk_for(p, q, s, use);
		if (!id)
			break;
		memcpy(chunk_bytes(p, id) + off, data + done, n);
		done += n;
	}
	return done;
}

uint32_t recvq_append(struct pool *p, struct recvq *q, const uint8_t *data, uint32_t len)
{
	const uint32_t n = store(p, q, recvq_end(q), data, len, CHUNK_RECEIVE);

	q->unread += n;
	return n;
}

uint32_t recvq_insert(struct pool *p, struct recvq *q, seqno at, const uint8_t *data, uint32_t len)
{
	return store(p, q, at, data, len, CHUNK_REASSEMBLY);
}

/* How many more chunks a queue that holds so many could take, one after the other: while receivers hold less
 * than half, and then up to its share, which does not change meanwhile.
 */
static uint32_t may_take(const struct pool *p, uint32_t held)
{
	const uint32_t taken = taken_for(p, CHUNK_RECEIVE), most = p->chunks_max - p->reserve;
	const uint32_t half = most / 2 > taken ? most / 2 - taken : 0;
	const uint32_t left = least(most > taken ? most - taken : 0, p->chunks_max - p->used);
	uint32_t mine;

	if (p->holders < 2)
		return left;
	mine = share(p, CHUNK_RECEIVE, held);
	mine = mine > held ? mine - held : 0;
	return least(left, mine > half ? mine : half);
}

uint64_t recvq_room(const struct pool *p, const struct recvq *q)
{
	const uint32_t off = q->head ? offset_of(q->origin, recvq_end(q)) : 0;
	const uint32_t whole = q->head ? recvq_distance(q, key_of(q->origin, recvq_end(q))) : 0;
	const uint32_t held = whole + (off != 0), more = may_take(p, held);

	return (uint64_t)(held || more ? more : 1) * CHUNK_BYTES + (off ? CHUNK_BYTES - off : 0);
}

/* Gives back the chunks that `front` has left; `old` is where it stood. */
static void leave_chunks(struct pool *p, struct recvq *q, seqno old)
{
	const bool empty = q->unread == 0 && !q->ranges;
	const uint32_t moved = key_distance(q->origin, old, key_of(q->origin, q->front));

	while (q->head) {
		const uint32_t id = q->head;

		if (!empty && key_distance(q->origin, old, chunk_at(p, id)->key) >= moved)
			break;
		q->head = chunk_at(p, id)->next;
		if (q->cursor == id)
			q->cursor = q->head;
		chunk_give(p, id, false);
	}
}

uint32_t recvq_join(struct pool *p, struct recvq *q)
{
	const uint32_t before = q->unread;

	while (q->ranges && seq_le(range_at(p, q->ranges)->left, recvq_end(q))) {
		const uint32_t id = q->ranges;

		q->unread += seq_ahead(range_at(p, id)->right, recvq_end(q));
		q->ranges = range_at(p, id)->next;
		range_give(p, q, id);
	}
	leave_chunks(p, q, q->front); /* ranges may have ended with nothing left unread */
	return q->unread - before;
}

void recvq_consume(struct pool *p, struct recvq *q, uint32_t n)
{
	const seqno old = q->front;

	assert(n <= q->unread);
	q->front = seq_add(q->front, n);
	q->unread -= n;
	leave_chunks(p, q, old);
}

void recvq_skip(struct pool *p, struct recvq *q, uint32_t n)
{
	const seqno old = q->front;

	assert(q->unread == 0);
	q->front = seq_add(q->front, n);
	leave_chunks(p, q, old);
}

unsigned recvq_spans(const struct pool *p, const struct recvq *q, struct span *ret, unsigned max)
{
	uint32_t off = offset_of(q->origin, q->front), left = q->unread;
	uint32_t id = q->head;
	unsigned n = 0;

	for (; left && n < max; id = chunk_at(p, id)->next) {
		const uint32_t k = least(left, CHUNK_BYTES - off);

		ret[n++] = (struct span){ chunk_bytes(p, id) + off, k };
		left -= k;
		off = 0;
	}
	return n;
}

void recvq_drop_ranges(struct pool *p, struct recvq *q)
{
	while (q->ranges) {
		const uint32_t id = q->ranges;

		q->ranges = range_at(p, id)->next;
		range_give(p, q, id);
	}
	leave_chunks(p, q, q->front);
}

void recvq_clear(struct pool *p, struct recvq *q)
{
	const seqno old = q->front;

	recvq_drop_ranges(p, q);
	q->front = recvq_end(q);
	q->unread = 0;
	leave_chunks(p, q, old);
}

uint32_t recvq_chunks(const struct pool *p, const struct recvq *q)
{
	uint32_t n = 0;

	for (uint32_t id = q->head; id; id = chunk_at(p, id)->next)
		n++;
	return n;
}
