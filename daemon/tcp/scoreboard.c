/* SPDX-License-Identifier: Apache-2.0 */
#include "scoreboard.h"

#include <assert.h>

static uint32_t run_len(const struct run *r)
{
	return seq_sub(r->right, r->left);
}

static uint32_t take(struct runs *m, struct scoreboard *b)
{
	uint32_t id = m->free;

	if (b->n >= RUNS_PER_CONN || (!id && m->fresh >= m->max))
		return 0;
	if (id)
		m->free = run_at(m, id)->next;
	else
		id = ++m->fresh;
	b->n++;
	return id;
}

static void give(struct runs *m, struct scoreboard *b, uint32_t id)
{
	run_at(m, id)->next = m->free;
	m->free = id;
	b->n--;
	if (b->hint == id)
		b->hint = 0;
}

/* By time. */

static void time_remove(struct runs *m, struct scoreboard *b, uint32_t id)
{
	const struct run *r = run_at(m, id);

	if (r->is & (RUN_SACKED | RUN_LOST))
		return;
	if (r->older)
		run_at(m, r->older)->newer = r->newer;
	else
		b->oldest = r->newer;
	if (r->newer)
		run_at(m, r->newer)->older = r->older;
	else
		b->newest = r->older;
}

static void time_insert(struct runs *m, struct scoreboard *b, uint32_t id, uint32_t after)
{
	struct run *r = run_at(m, id);

	r->older = after;
	r->newer = after ? run_at(m, after)->newer : b->oldest;
	if (after)
		run_at(m, after)->newer = id;
	else
		b->oldest = id;
	if (r->newer)
		run_at(m, r->newer)->older = id;
	else
		b->newest = id;
}

/* Lost runs. */

static void find_first_lost(const struct runs *m, struct scoreboard *b, uint32_t from)
{
	while (from && !(run_at(m, from)->is & RUN_LOST))
		from = run_at(m, from)->next;
	b->first_lost = from;
}

/* It is not lost any more; what was lost behind it may come first now. */
static void not_lost(struct runs *m, struct scoreboard *b, uint32_t id)
{
	struct run *r = run_at(m, id);

	if (!(r->is & RUN_LOST))
		return;
	b->lost -= run_len(r);
	r->is &= ~(uint32_t)RUN_LOST;
	if (b->first_lost == id)
		find_first_lost(m, b, r->next);
}

void scoreboard_lose(struct runs *m, struct scoreboard *b, uint32_t id)
{
	struct run *r = run_at(m, id);

	assert(!(r->is & (RUN_SACKED | RUN_LOST)));
	time_remove(m, b, id);
	r->is |= RUN_LOST;
	b->lost += run_len(r);
	if (!b->first_lost || seq_lt(r->left, run_at(m, b->first_lost)->left))
		b->first_lost = id;
}

void scoreboard_lose_all(struct runs *m, struct scoreboard *b, bool renege)
{
	for (uint32_t id = b->head; id; id = run_at(m, id)->next) {
		struct run *r = run_at(m, id);

		if (r->is & RUN_SACKED && renege) {
			b->sacked -= run_len(r);
			r->is &= ~(uint32_t)RUN_SACKED;
			time_insert(m, b, id, b->newest);
		}
		if (!(r->is & (RUN_SACKED | RUN_LOST)))
			scoreboard_lose(m, b, id);
	}
}

/* Rare: all of it is put in order of time anew. */
void scoreboard_unlose(struct runs *m, struct scoreboard *b)
{
	uint32_t after;

	for (uint32_t id = b->head; id; id = run_at(m, id)->next) {
		if (!(run_at(m, id)->is & RUN_LOST))
			continue;
		not_lost(m, b, id);
		after = b->newest;
		while (after && vtime_before(run_at(m, id)->at, run_at(m, after)->at))
			after = run_at(m, after)->older;
		time_insert(m, b, id, after);
	}
}

/* By sequence number. */

/* [left, at) stays id, [at, right) becomes the run behind it. */
static bool split(struct runs *m, struct scoreboard *b, uint32_t id, seqno at)
{
	struct run *r = run_at(m, id), *s;
	const uint32_t new = take(m, b);

	if (!new)
		return false;
	s = run_at(m, new);
	*s = *r;
	s->left = r->right = at;
	r->next = new;
	if (b->tail == id)
		b->tail = new;
	if (!(s->is & (RUN_SACKED | RUN_LOST)))
		time_insert(m, b, new, id);
	return true;
}

/* The run that holds octet s. */
static uint32_t find(const struct runs *m, const struct scoreboard *b, seqno s)
{
	uint32_t id = b->hint && seq_le(run_at(m, b->hint)->left, s) ? b->hint : b->head;

	while (id && seq_le(run_at(m, id)->right, s))
		id = run_at(m, id)->next;
	return id;
}

/* The run that begins at left and ends at right or before. */
static uint32_t cut_out(struct runs *m, struct scoreboard *b, uint32_t id, seqno left, seqno right)
{
	if (seq_lt(run_at(m, id)->left, left)) {
		if (!split(m, b, id, left))
			return 0;
		id = run_at(m, id)->next;
	}
	if (seq_lt(right, run_at(m, id)->right) && !split(m, b, id, right))
		return 0;
	return id;
}

bool scoreboard_sent(struct runs *m, struct scoreboard *b, seqno left, seqno right, vtime now)
{
	struct run *t = b->tail ? run_at(m, b->tail) : NULL;
	uint32_t id;

	assert(!t || seq_eq(t->right, left));
	/* The next run is joined to what left at the same instant, or, when runs are scarce, just
	 * before: then that counts as sent later than it was, and is given up later. */
	if (t && b->newest == b->tail && !(t->is & (RUN_SACKED | RUN_LOST | RUN_AGAIN)) &&
	    (!vtime_before(t->at, now) || b->n > RUNS_PER_CONN / 2)) {
		t->right = right;
		t->at = now;
		return true;
	}
	id = take(m, b);
	if (!id)
		return false;
	*run_at(m, id) = (struct run){ .left = left, .right = right, .at = now };
	if (t)
		t->next = id;
	else
		b->head = id;
	b->tail = id;
	time_insert(m, b, id, b->newest);
	return true;
}

bool scoreboard_again(struct runs *m, struct scoreboard *b, seqno left, seqno right, vtime now)
{
	uint32_t id = b->first_lost && seq_eq(run_at(m, b->first_lost)->left, left)
			      ? b->first_lost
			      : find(m, b, left);

	while (id && seq_lt(left, right)) {
		struct run *r;

		id = cut_out(m, b, id, left, right);
		if (!id)
			return false;
		r = run_at(m, id);
		if (!(r->is & RUN_SACKED)) {
			if (r->is & RUN_LOST)
				not_lost(m, b, id);
			else
				time_remove(m, b, id);
			r->is |= RUN_AGAIN;
			r->at = now;
			time_insert(m, b, id, b->newest);
		}
		left = r->right;
		id = r->next;
	}
	return true;
}

/* Joins the run behind id to it when both were sacked. */
static void join_next(struct runs *m, struct scoreboard *b, uint32_t id)
{
	struct run *r = run_at(m, id);
	const uint32_t next = r->next;

	if (!next || !(r->is & run_at(m, next)->is & RUN_SACKED))
		return;
	r->right = run_at(m, next)->right;
	r->next = run_at(m, next)->next;
	if (b->tail == next)
		b->tail = id;
	give(m, b, next);
}

bool scoreboard_sack(struct runs *m, struct scoreboard *b, seqno left, seqno right,
		     scoreboard_arrived *arrived, void *arg)
{
	uint32_t id = find(m, b, left), first = id;

	b->hint = id;
	while (id && seq_lt(left, right)) {
		struct run *r = run_at(m, id);

		if (!(r->is & RUN_SACKED)) {
			id = cut_out(m, b, id, left, right);
			if (!id)
				return false;
			r = run_at(m, id);
			arrived(arg, r);
			if (r->is & RUN_LOST)
				not_lost(m, b, id);
			else
				time_remove(m, b, id);
			r->is |= RUN_SACKED;
			b->sacked += run_len(r);
			b->fack = seq_max(b->fack, r->right);
		}
		left = r->right;
		id = r->next;
	}
	/* From the run in front of the block to its end. */
	while (first && seq_lt(run_at(m, first)->left, right)) {
		const uint32_t next = run_at(m, first)->next;

		join_next(m, b, first);
		if (run_at(m, first)->next == next)
			first = next;
	}
	return true;
}

void scoreboard_ack(struct runs *m, struct scoreboard *b, seqno una, scoreboard_arrived *arrived,
		    void *arg)
{
	b->fack = seq_max(b->fack, una);
	while (b->head && seq_lt(run_at(m, b->head)->left, una)) {
		const uint32_t id = b->head;
		struct run *r = run_at(m, id);
		const bool whole = seq_le(r->right, una);
		struct run part = *r;

		part.right = seq_min(part.right, una);
		if (part.is & RUN_SACKED)
			b->sacked -= run_len(&part);
		else
			arrived(arg, &part);
		if (!whole) {
			if (part.is & RUN_LOST)
				b->lost -= run_len(&part);
			r->left = una;
			return;
		}
		if (part.is & RUN_LOST)
			not_lost(m, b, id);
		else
			time_remove(m, b, id);
		b->head = r->next;
		if (b->tail == id)
			b->tail = 0;
		give(m, b, id);
	}
}

void scoreboard_clear(struct runs *m, struct scoreboard *b)
{
	while (b->head) {
		const uint32_t id = b->head;

		b->head = run_at(m, id)->next;
		give(m, b, id);
	}
	*b = (struct scoreboard){ .fack = b->fack };
}

uint32_t scoreboard_check(const struct runs *m, const struct scoreboard *b, seqno una, seqno nxt)
{
	uint32_t n = 0, sacked = 0, lost = 0, waiting = 0, first_lost = 0, last = 0;

	for (uint32_t id = b->head; id; id = run_at(m, id)->next) {
		const struct run *r = run_at(m, id);

		assert(seq_eq(r->left, una) && seq_lt(r->left, r->right));
		assert((r->is & (RUN_SACKED | RUN_LOST)) != (RUN_SACKED | RUN_LOST));
		una = r->right;
		sacked += r->is & RUN_SACKED ? run_len(r) : 0;
		lost += r->is & RUN_LOST ? run_len(r) : 0;
		waiting += !(r->is & (RUN_SACKED | RUN_LOST));
		if (!first_lost && r->is & RUN_LOST)
			first_lost = id;
		last = id;
		n++;
	}
	assert(seq_eq(una, nxt) && b->tail == last && b->first_lost == first_lost);
	assert(sacked == b->sacked && lost == b->lost && n == b->n && n <= RUNS_PER_CONN);
	last = 0;
	for (uint32_t id = b->oldest; id; id = run_at(m, id)->newer) {
		assert(run_at(m, id)->older == last && waiting--);
		assert(!(run_at(m, id)->is & (RUN_SACKED | RUN_LOST)));
		if (last)
			assert(!vtime_before(run_at(m, id)->at, run_at(m, last)->at));
		last = id;
	}
	assert(last == b->newest && waiting == 0);
	return n;
}
