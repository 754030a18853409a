/* SPDX-License-Identifier: Apache-2.0 */
/* Send and receive queues against models that hold a plain array. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/macros.h"
#include "tcp/buffer.h"

enum { CHUNKS = 32, RANGES = 200, STREAM = 3000000 };

static struct chunk chunks[CHUNKS];
static struct range ranges[RANGES];
static uint8_t bytes[CHUNKS * CHUNK_BYTES];
static uint8_t stream[STREAM];
static uint64_t seed;

WRAPS static uint32_t draw(uint32_t below)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(seed >> 33) % below;
}

static int setup(void **state)
{
	seed = 42;
	for (size_t i = 0; i < STREAM; i++)
		stream[i] = (uint8_t)draw(256);
	return 0;
}

static void start(struct pool *p, uint32_t max)
{
	pool_init(p, bytes, chunks, max, ranges, RANGES);
}

static void check_spans(const struct span *s, unsigned n, uint32_t at, uint32_t len)
{
	for (unsigned i = 0; i < n; i++) {
		assert_true(s[i].len > 0 && s[i].len <= len);
		assert_memory_equal(s[i].base, stream + at, s[i].len);
		at += s[i].len;
		len -= s[i].len;
	}
	assert_int_equal(len, 0);
}

/* What lies between una and end of the stream; the first octet has the number iss. */
static void sendq_run(seqno iss)
{
	struct sendq q = { .front = iss };
	struct span s[SEG_SPANS];
	struct pool p;
	uint32_t una = 0, end = 0;

	start(&p, CHUNKS);
	while (una < STREAM) {
		const uint32_t want = end < STREAM ? draw(60000) % (STREAM - end + 1) : 0;
		uint32_t n;

		end += sendq_put(&p, &q, stream + end, want);
		assert_int_equal(q.used, end - una);
		for (int i = 0; i < 3 && end > una; i++) {
			const uint32_t off = draw(end - una);

			n = draw(end - una - off) % 65000 + 1;
			check_spans(s, sendq_spans(&p, &q, seq_add(iss, una + off), n, s),
				    una + off, n);
		}
		n = draw(4) ? draw(end - una + 1) : end - una;
		sendq_drop(&p, &q, n);
		una += n;
		assert_int_equal(sendq_chunks(&p, &q), p.used);
		assert_int_equal(p.sending, p.used);
		assert_true(p.used * CHUNK_BYTES < q.used + 2 * CHUNK_BYTES);
		assert_int_equal(q.used == 0, p.used == 0);
	}
}

static void test_sendq(void **state)
{
	sendq_run((seqno){ 1 });
	sendq_run((seqno){ UINT32_MAX - 1000000 });
	sendq_run((seqno){ 0x7fffff00 });
}

/* Text that is lent and text that is copied, in turns, also within a chunk; a pattern goes on or begins anywhere. */
static void test_pattern(void **state)
{
	enum { PERIOD = 7030, TOTAL = STREAM };
	static uint8_t repeated[PERIOD + 3 * CHUNK_BYTES + 5], sent[TOTAL];
	const struct pattern pattern = { repeated, PERIOD, sizeof(repeated) };
	struct sendq q = { .front = { UINT32_MAX - 300000 } };
	struct span s[SEG_SPANS];
	uint32_t una = 0, end = 0, at = 0, lent = 0;
	struct pool p;

	for (uint32_t i = 0; i < sizeof(repeated); i++)
		repeated[i] = stream[i % PERIOD];
	start(&p, CHUNKS);
	while (una < TOTAL) {
		const uint32_t want = draw(20000) % (TOTAL - end + 1);
		const seqno first = q.front;
		uint32_t n, got = 0;

		if (draw(4) == 0) {
			n = sendq_put(&p, &q, stream + end, want);
			memcpy(sent + end, stream + end, n);
		} else {
			at = draw(2) ? at : draw(UINT32_MAX);
			n = sendq_put_pattern(&p, &q, &pattern, at, want);
			for (uint32_t i = 0; i < n; i++)
				sent[end + i] = stream[((uint64_t)at + i) % PERIOD];
			at = (uint32_t)(((uint64_t)at + n) % PERIOD);
		}
		end += n;
		assert_int_equal(q.used, end - una);
		while (got < end - una) {
			const uint32_t left = end - una - got, k = left < 60000 ? left : 60000;
			const unsigned spans = sendq_spans(&p, &q, seq_add(first, got), k, s);

			for (unsigned i = 0; i < spans; got += s[i++].len) {
				assert_memory_equal(s[i].base, sent + una + got, s[i].len);
				if (s[i].base < repeated ||
				    s[i].base >= repeated + sizeof(repeated))
					continue;
				assert_true(s[i].len <= repeated + sizeof(repeated) - s[i].base);
				lent++;
			}
		}
		n = draw(3) ? draw(end - una + 1) : end - una;
		sendq_drop(&p, &q, n);
		una += n;
		assert_int_equal(sendq_chunks(&p, &q), p.used);
	}
	assert_int_not_equal(lent, 0);
	assert_int_equal(p.used, 0);
}

/* The queue has n octets of the pattern from its octet `at` on, in spans that lie within it. */
static void check_pattern(const struct pool *p, struct sendq *q, const struct pattern *pattern,
			  uint32_t at, uint32_t n)
{
	seqno from = seq_add(q->front, q->used - n);
	struct span s[SEG_SPANS];

	while (n) {
		const uint32_t k = n < 60000 ? n : 60000;
		const unsigned spans = sendq_spans(p, q, from, k, s);

		for (unsigned i = 0; i < spans; at += s[i++].len) {
			const uintptr_t off = (uintptr_t)s[i].base - (uintptr_t)pattern->bytes;

			assert_true(off <= pattern->size && s[i].len <= pattern->size - off);
			assert_int_equal(off % pattern->period, at % pattern->period);
		}
		from = seq_add(from, k);
		n -= k;
	}
}

/* It goes on in the next chunk as it ended in the one before, as long as there is more of it, and when it is
 * the same.
 */
static void test_pattern_at_the_border(void **state)
{
	enum { PERIOD = 7030 };
	static const uint8_t repeated[PERIOD + 3 * CHUNK_BYTES];
	const struct pattern pattern = { repeated, PERIOD, sizeof(repeated) };
	struct sendq q = { .front = { 9 } };
	struct pool p;

	start(&p, CHUNKS);
	for (uint32_t at = 0; at < PERIOD; at += 37) {
		assert_int_equal(sendq_put_pattern(&p, &q, &pattern, at, 8 * CHUNK_BYTES),
				 8 * CHUNK_BYTES);
		check_pattern(&p, &q, &pattern, at, 8 * CHUNK_BYTES);
		assert_int_equal(sendq_put_pattern(&p, &q, &pattern, at + 1, CHUNK_BYTES),
				 CHUNK_BYTES);
		check_pattern(&p, &q, &pattern, at + 1, CHUNK_BYTES);
		sendq_clear(&p, &q);
	}
}

/* What is lent in one piece leaves in one, though it is kept in several chunks. */
static void test_spans_go_on(void **state)
{
	enum { PERIOD = 7030, PIECE = 60000 };
	static uint8_t repeated[PERIOD + 8 * CHUNK_BYTES];
	const struct pattern pattern = { repeated, PERIOD, sizeof(repeated) };
	const seqno iss = { UINT32_MAX - 300000 };
	struct sendq q = { .front = iss };
	struct span s[SEG_SPANS];
	struct pool p;

	for (uint32_t i = 0; i < sizeof(repeated); i++)
		repeated[i] = stream[i % PERIOD];
	start(&p, CHUNKS);
	assert_int_equal(sendq_put_pattern(&p, &q, &pattern, 77, 8 * CHUNK_BYTES), 8 * CHUNK_BYTES);
	for (uint32_t at = 0; at + PIECE <= q.used; at += 1111) {
		assert_int_equal(sendq_spans(&p, &q, seq_add(iss, at), PIECE, s), 1);
		assert_ptr_equal(s[0].base, repeated + 77 + at);
		assert_int_equal(s[0].len, PIECE);
	}
	sendq_clear(&p, &q);
	assert_int_equal(sendq_put_lent(&p, &q, stream, 3 * CHUNK_BYTES, 1), 3 * CHUNK_BYTES);
	/* Another loan is another piece, and so is what was copied. */
	assert_int_equal(sendq_put_lent(&p, &q, stream + 4 * CHUNK_BYTES, CHUNK_BYTES, 2),
			 CHUNK_BYTES);
	assert_int_equal(sendq_put(&p, &q, stream + 5 * CHUNK_BYTES, 10), 10);
	assert_int_equal(sendq_spans(&p, &q, q.front, q.used, s), 3);
	assert_ptr_equal(s[0].base, stream);
	assert_int_equal(s[0].len, 3 * CHUNK_BYTES);
	assert_ptr_equal(s[1].base, stream + 4 * CHUNK_BYTES);
	assert_memory_equal(s[2].base, stream + 5 * CHUNK_BYTES, 10);
	sendq_clear(&p, &q);
}

/* A chunk has room for the end of one loan and the beginning of another; what comes behind is copied, and they with it. */
static void test_two_parts(void **state)
{
	enum { END = 5000, THIRD = 3000, LITTLE = 2047 };
	const uint8_t *const one = stream, *const two = stream + 100000,
			     *const three = stream + 200000;
	struct sendq q = { .front = { UINT32_MAX - 20000 } };
	const seqno iss = q.front;
	struct span s[SEG_SPANS];
	struct pool p;

	start(&p, CHUNKS);
	assert_int_equal(sendq_put_lent(&p, &q, one, CHUNK_BYTES + END, 1), CHUNK_BYTES + END);
	assert_int_equal(sendq_put_lent(&p, &q, two, CHUNK_BYTES, 2), CHUNK_BYTES);
	assert_int_equal(sendq_spans(&p, &q, iss, 2 * CHUNK_BYTES + END, s), 2);
	assert_ptr_equal(s[0].base, one);
	assert_int_equal(s[0].len, CHUNK_BYTES + END);
	assert_ptr_equal(s[1].base, two);
	assert_int_equal(s[1].len, CHUNK_BYTES);
	/* From within the second part on. */
	assert_int_equal(sendq_spans(&p, &q, seq_add(iss, CHUNK_BYTES + END + 7), 100, s), 1);
	assert_ptr_equal(s[0].base, two + 7);
	/* A second part of the last chunk, and a third, with which it is the pool's. */
	assert_int_equal(sendq_put_lent(&p, &q, three, THIRD, 3), THIRD);
	assert_int_equal(sendq_spans(&p, &q, iss, q.used, s), 3);
	assert_ptr_equal(s[2].base, three);
	assert_int_equal(sendq_put_lent(&p, &q, three + THIRD, THIRD, 4), THIRD);
	assert_int_equal(sendq_spans(&p, &q, iss, q.used, s), 3);
	assert_ptr_equal(s[1].base, two);
	assert_int_equal(s[1].len, CHUNK_BYTES - END);
	assert_memory_equal(s[2].base, two + CHUNK_BYTES - END, END);
	assert_memory_equal(s[2].base + END, three, 2 * THIRD);
	assert_int_equal(pool_first_loan(&p), 1);
	/* The first part is acknowledged, and the chunk that has it and the second one is not yet. */
	sendq_drop(&p, &q, CHUNK_BYTES + END);
	assert_int_equal(pool_first_loan(&p), 1);
	sendq_drop(&p, &q, CHUNK_BYTES - END);
	assert_int_equal(pool_first_loan(&p), 0);
	sendq_clear(&p, &q);
	/* Little is copied, and a loan may be what comes behind it. */
	assert_int_equal(sendq_put_lent(&p, &q, one, LITTLE, 5), LITTLE);
	assert_int_equal(pool_first_loan(&p), 0);
	assert_int_equal(sendq_put_lent(&p, &q, two, LITTLE + 1, 6), LITTLE + 1);
	assert_int_equal(pool_first_loan(&p), 6);
	assert_int_equal(sendq_spans(&p, &q, q.front, q.used, s), 2);
	assert_memory_equal(s[0].base, one, LITTLE);
	assert_ptr_equal(s[1].base, two);
	pool_recall(&p, 6);
	assert_int_equal(sendq_spans(&p, &q, q.front, q.used, s), 1);
	assert_memory_equal(s[0].base, one, LITTLE);
	assert_memory_equal(s[0].base + LITTLE, two, LITTLE + 1);
	sendq_clear(&p, &q);
	assert_int_equal(p.used, 0);
}

/* A segment in as many pieces as there can be. */
static void test_most_spans(void **state)
{
	enum { HALF = CHUNK_BYTES / 2, PARTS = 12 };
	struct sendq q = { .front = { 3 } };
	struct span s[SEG_SPANS];
	struct pool p;

	start(&p, CHUNKS);
	for (unsigned i = 0; i < PARTS; i++)
		assert_int_equal(sendq_put_lent(&p, &q, stream + 2 * i * HALF, HALF, i + 1), HALF);
	assert_int_equal(sendq_spans(&p, &q, seq_add(q.front, HALF - 1), SEG_TEXT_MAX, s), 9);
	assert_int_equal(sendq_spans(&p, &q, seq_add(q.front, HALF - 1), 8 * HALF + 2, s), 10);
	sendq_clear(&p, &q);
}

/* Packets in a ring of slots, as a link lends them: a slot is used again, and until then spoiled, as soon as
 * nothing in it is lent any more. Whose queues stand still are recalled.
 */
enum { LOANS = 6, LOAN_BYTES = 60000, LENDERS = 3 };

struct lender {
	uint8_t slots[LOANS][LOAN_BYTES];
	uint64_t given, back; /* loans; all up to `back` were given back */
};

static void spoil_returned(struct lender *l, const struct pool *p)
{
	const uint64_t first = pool_first_loan(p), upto = first ? first - 1 : l->given;

	assert_true(upto >= l->back && upto <= l->given);
	while (l->back < upto)
		memset(l->slots[++l->back % LOANS], 0xee, LOAN_BYTES);
}

static void check_all(const struct pool *p, struct sendq *q, uint32_t at, uint32_t *ret_lent,
		      const struct lender *l)
{
	const uint8_t *const begin = (const uint8_t *)l->slots;
	struct span s[SEG_SPANS];
	uint32_t got = 0;

	while (got < q->used) {
		const uint32_t k = q->used - got < 60000 ? q->used - got : 60000;
		const unsigned n = sendq_spans(p, q, seq_add(q->front, got), k, s);

		check_spans(s, n, at + got, k);
		for (unsigned i = 0; i < n; i++)
			if (s[i].base >= begin && s[i].base < begin + sizeof(l->slots))
				*ret_lent += (s[i].len + CHUNK_BYTES - 1) / CHUNK_BYTES;
		got += k;
	}
}

static void test_loans(void **state)
{
	static struct lender l;
	struct sendq q[LENDERS] = { { .front = { 5 } },
				    { .front = { UINT32_MAX - 200000 } },
				    { .front = { 0x7fffff00 } } };
	uint32_t una[LENDERS] = { 0 }, lent = 0, recalls = 0, done = 0;
	struct pool p;

	start(&p, CHUNKS);
	memset(l.slots, 0xee, sizeof(l.slots));
	for (unsigned turn = 0; done < LENDERS; turn++) {
		const unsigned k = draw(LENDERS);
		const uint32_t end = una[k] + q[k].used, left = STREAM - end;
		uint32_t n = draw(3) ? draw(LOAN_BYTES) + 1 : draw(2000);

		n = n < left ? n : left;
		if (draw(4) == 0) {
			(void)sendq_put(&p, &q[k], stream + end, n);
		} else {
			if (l.given - l.back == LOANS) {
				recalls++;
				pool_recall(&p, l.back + 1 + draw(LOANS));
				spoil_returned(&l, &p);
			}
			memcpy(l.slots[++l.given % LOANS], stream + end, n);
			(void)sendq_put_lent(&p, &q[k], l.slots[l.given % LOANS], n, l.given);
		}
		spoil_returned(&l, &p);
		for (unsigned i = 0; i < LENDERS; i++)
			check_all(&p, &q[i], una[i], &lent, &l);
		n = draw(8) == 0 ? q[k].used : draw(q[k].used + 1);
		if (draw(40) == 0) { /* the connection goes, and another one comes */
			n = q[k].used;
			sendq_clear(&p, &q[k]);
		} else if (draw(2)) {
			sendq_drop(&p, &q[k], n);
		} else {
			n = 0;
		}
		una[k] += n;
		spoil_returned(&l, &p);
		done = 0;
		for (unsigned i = 0; i < LENDERS; i++)
			done += una[i] == STREAM;
	}
	assert_true(lent > 1000 && recalls > 10);
	assert_int_equal(p.used, 0);
	assert_int_equal(pool_first_loan(&p), 0);
}

/* Receives the stream in pieces: within `window` of what is in order, anywhere, twice, overlapping. */
static void recvq_run(seqno irs, uint32_t window, uint32_t chunks_max, uint32_t total)
{
	static bool known[STREAM];
	struct recvq q = { .front = irs };
	struct span s[64];
	struct pool p;
	uint32_t read = 0, nxt = 0;

	memset(known, 0, sizeof(known));
	start(&p, chunks_max);
	while (read < total) {
		const uint32_t edge = read + window < total ? read + window : total;
		uint32_t at, len, n;

		if (edge > nxt) {
			at = nxt + (draw(3) ? draw(edge - nxt) : 0);
			len = draw(edge - at < 5000 ? edge - at : 5000) + 1;
			if (at == nxt) {
				n = recvq_append(&p, &q, stream + at, len);
				nxt += n;
				nxt += recvq_join(&p, &q);
			} else if (recvq_has_range(&p, &q, seq_add(irs, at))) {
				n = recvq_insert(&p, &q, seq_add(irs, at), stream + at, len);
				if (n)
					recvq_add_range(&p, &q, seq_add(irs, at),
							seq_add(irs, at + n));
				memset(known + at, 1, n);
			}
		}
		assert_int_equal(q.unread, nxt - read);
		n = recvq_spans(&p, &q, s, 64);
		check_spans(s, n, read, nxt - read);
		n = draw(5) ? 0 : draw(nxt - read + 1);
		recvq_consume(&p, &q, n);
		read += n;
		if (nxt > read && draw(2)) { /* all of it: chunks go back */
			recvq_consume(&p, &q, nxt - read);
			read = nxt;
		}
		assert_int_equal(recvq_chunks(&p, &q), p.used);
		assert_true(q.unread || q.ranges || p.used == 0);
		assert_true(q.ranges_n <= RANGES_PER_CONN);
	}
	recvq_clear(&p, &q);
	assert_int_equal(p.used, 0);
	assert_int_equal(q.ranges_n, 0);
}

static void test_recvq(void **state)
{
	recvq_run((seqno){ 5 }, 100000, CHUNKS, STREAM);
	recvq_run((seqno){ UINT32_MAX - 700000 }, 100000, CHUNKS, STREAM);
	recvq_run((seqno){ 0x7ffffff0 }, 400000, CHUNKS, STREAM);
}

/* With too few chunks much is dropped, but what is in order always finds its way. */
static void test_recvq_starved(void **state)
{
	recvq_run((seqno){ 77 }, 100000, 2, 500000);
	recvq_run((seqno){ UINT32_MAX - 70000 }, 100000, 3, 500000);
	recvq_run((seqno){ 9 }, 30000, 1, 500000);
}

/* Every order of five pieces, across the wrap. */
static void test_permutations(void **state)
{
	static const uint32_t piece[6] = { 0, 100, 1, 16384, 5000, 700 };
	unsigned order[5];

	for (unsigned k = 0; k < 5 * 5 * 5 * 5 * 5; k++) {
		const seqno irs = { UINT32_MAX - 600 };
		struct recvq q = { .front = irs };
		struct span s[8];
		struct pool p;
		unsigned seen = 0, rest = k;
		uint32_t len = 0;

		for (int i = 0; i < 5; i++, rest /= 5)
			seen |= 1U << (order[i] = rest % 5);
		if (seen != 31)
			continue;
		start(&p, CHUNKS);
		for (int i = 0; i < 5; i++) {
			uint32_t at = 0;

			for (unsigned j = 0; j <= order[i]; j++)
				at += piece[j];
			if (at == q.unread) {
				(void)recvq_append(&p, &q, stream + at, piece[order[i] + 1]);
				(void)recvq_join(&p, &q);
				continue;
			}
			(void)recvq_insert(&p, &q, seq_add(irs, at), stream + at,
					   piece[order[i] + 1]);
			recvq_add_range(&p, &q, seq_add(irs, at),
					seq_add(irs, at + piece[order[i] + 1]));
		}
		for (int i = 1; i < 6; i++)
			len += piece[i];
		assert_int_equal(q.unread, len);
		assert_int_equal(q.ranges_n, 0);
		check_spans(s, recvq_spans(&p, &q, s, 8), 0, len);
	}
}

/* A peer that leaves a hole between any two octets gets so many and no more. */
static void test_holes_are_limited(void **state)
{
	struct recvq q = { .front = { 0 } };
	struct pool p;
	uint32_t kept = 0;

	start(&p, CHUNKS);
	for (uint32_t i = 1; i < 1000; i += 2) {
		if (!recvq_has_range(&p, &q, (seqno){ i }))
			continue;
		(void)recvq_insert(&p, &q, (seqno){ i }, stream + i, 1);
		recvq_add_range(&p, &q, (seqno){ i }, (seqno){ i + 1 });
		kept++;
	}
	assert_int_equal(kept, RANGES_PER_CONN);
	assert_int_equal(recvq_range_bytes(&p, &q), RANGES_PER_CONN);
	/* One that an existing range reaches still counts. */
	assert_true(recvq_has_range(&p, &q, (seqno){ 2 }));
	recvq_clear(&p, &q);
	assert_int_equal(p.used, 0);
}

/* Neither side of a connection can take the last chunk from the other. */
static void test_reserve(void **state)
{
	struct sendq s = { .front = { 0 } };
	struct recvq r = { .front = { 0 } };
	struct pool p;

	start(&p, 4);
	assert_int_equal(sendq_put(&p, &s, stream, 5 * CHUNK_BYTES), 3 * CHUNK_BYTES);
	assert_false(pool_has(&p, CHUNK_SEND));
	assert_true(pool_has(&p, CHUNK_RECEIVE));
	assert_int_equal(recvq_append(&p, &r, stream, 5 * CHUNK_BYTES), CHUNK_BYTES);
	sendq_clear(&p, &s);
	assert_int_equal(recvq_append(&p, &r, stream, 5 * CHUNK_BYTES), 2 * CHUNK_BYTES);
	assert_false(pool_has(&p, CHUNK_RECEIVE));
	assert_true(pool_has(&p, CHUNK_SEND));
	recvq_clear(&p, &r);
	assert_int_equal(p.used, 0);
	assert_int_equal(p.peak, 4);
}

/* Text out of order gives its chunk, the last first, to what is in order; and there is none for it in the reserve. */
static void test_order_comes_first(void **state)
{
	struct recvq r = { .front = { 0 } };
	struct sendq s = { .front = { 0 } };
	struct pool p;

	start(&p, 4);
	for (uint32_t i = 1; i <= 3; i++) {
		const seqno at = { i * CHUNK_BYTES };

		assert_int_equal(recvq_insert(&p, &r, at, stream, 10), 10);
		recvq_add_range(&p, &r, at, seq_add(at, 10));
	}
	assert_false(pool_has(&p, CHUNK_RECEIVE));
	assert_int_equal(recvq_append(&p, &r, stream, 100), 100);
	assert_int_equal(r.ranges_n, 2);
	assert_int_equal(recvq_range_bytes(&p, &r), 20);
	recvq_consume(&p, &r, 100);
	recvq_drop_ranges(&p, &r);
	assert_int_equal(p.used, 0);

	start(&p, 32); /* a reserve of 4, of which half is not for this */
	assert_int_equal(sendq_put(&p, &s, stream, 28 * CHUNK_BYTES), 28 * CHUNK_BYTES);
	assert_true(pool_has(&p, CHUNK_REASSEMBLY));
	assert_int_equal(recvq_append(&p, &r, stream, 2 * CHUNK_BYTES), 2 * CHUNK_BYTES);
	assert_false(pool_has(&p, CHUNK_REASSEMBLY));
	assert_true(pool_has(&p, CHUNK_RECEIVE));
	sendq_clear(&p, &s);
	recvq_clear(&p, &r);
	assert_int_equal(p.used, 0);
}

/* Of what senders hold receivers take no notice, and the other way round. */
static void test_scarcity_is_of_each_kind(void **state)
{
	struct recvq r = { .front = { 0 } }, other = r, none = r;
	struct sendq s = { .front = { 0 } };
	struct pool p;

	start(&p, 16);
	p.holders = 2;
	assert_int_equal(sendq_put(&p, &s, stream, 7 * CHUNK_BYTES), 7 * CHUNK_BYTES);
	assert_true(pool_is_filling(&p));
	assert_false(pool_is_scarce(&p));
	sendq_clear(&p, &s);
	assert_int_equal(recvq_append(&p, &r, stream, 7 * CHUNK_BYTES), 7 * CHUNK_BYTES);
	assert_true(pool_is_scarce(&p));
	assert_false(pool_is_filling(&p));
	assert_int_equal(recvq_append(&p, &other, stream, 1), 1);
	assert_int_equal(recvq_room(&p, &none), 3 * CHUNK_BYTES); /* half of the 6 that are left */
	recvq_clear(&p, &r);
	recvq_clear(&p, &other);
}

/* Memory that was given back is the next that is used, before any that never was. */
static void test_returned(void **state)
{
	struct sendq s = { .front = { 0 } };
	struct pool p;

	start(&p, 8);
	assert_int_equal(sendq_put(&p, &s, stream, 3 * CHUNK_BYTES), 3 * CHUNK_BYTES);
	sendq_clear(&p, &s);
	assert_null(pool_return(&p, 0)); /* it may be needed at once */
	pool_look(&p);
	assert_null(pool_return(&p, 3));
	for (unsigned i = 0; i < 3; i++)
		assert_non_null(pool_return(&p, 0));
	assert_null(pool_return(&p, 0));
	assert_int_equal(sendq_put(&p, &s, stream, 3 * CHUNK_BYTES), 3 * CHUNK_BYTES);
	assert_int_equal(p.chunks_fresh, 3);
	sendq_clear(&p, &s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sendq),
		cmocka_unit_test(test_pattern),
		cmocka_unit_test(test_pattern_at_the_border),
		cmocka_unit_test(test_spans_go_on),
		cmocka_unit_test(test_two_parts),
		cmocka_unit_test(test_most_spans),
		cmocka_unit_test(test_loans),
		cmocka_unit_test(test_recvq),
		cmocka_unit_test(test_recvq_starved),
		cmocka_unit_test(test_permutations),
		cmocka_unit_test(test_holes_are_limited),
		cmocka_unit_test(test_reserve),
		cmocka_unit_test(test_order_comes_first),
		cmocka_unit_test(test_scarcity_is_of_each_kind),
		cmocka_unit_test(test_returned),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
