/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

#include "net.h"

WRAPS uint64_t rnd(struct rng *r)
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15U;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
	z = (z ^ z >> 27) * 0x94d049bb133111ebU;
	return z ^ z >> 31;
}

uint64_t below(struct rng *r, uint64_t n)
{
	return n ? rnd(r) % n : 0;
}

bool chance(struct rng *r, unsigned permille)
{
	return below(r, 1000) < permille;
}

WRAPS static void mix(struct net *n, uint64_t v)
{
	n->hash = (n->hash ^ v) * 0x100000001b3U;
}

static bool earlier(const struct packet *a, const struct packet *b)
{
	return a->at.us < b->at.us || (a->at.us == b->at.us && a->order < b->order);
}

static void heap_push(struct net *n, struct packet *p)
{
	size_t i = n->n++;

	if (n->n > n->cap) {
		n->cap = n->cap ? 2 * n->cap : 256;
		n->heap = realloc(n->heap, n->cap * sizeof(struct packet *));
		assert(n->heap);
	}
	for (; i && earlier(p, n->heap[(i - 1) / 2]); i = (i - 1) / 2)
		n->heap[i] = n->heap[(i - 1) / 2];
	n->heap[i] = p;
}

static struct packet *heap_pop(struct net *n)
{
	struct packet *const top = n->heap[0], *const last = n->heap[--n->n];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < n->n) {
		if (child + 1 < n->n && earlier(n->heap[child + 1], n->heap[child]))
			child++;
		if (!earlier(n->heap[child], last))
			break;
		n->heap[i] = n->heap[child];
		i = child;
	}
	if (n->n)
		n->heap[i] = last;
	return top;
}

void net_drop(struct packet *p)
{
	free(p->bytes);
	free(p);
}

void net_fini(struct net *n)
{
	while (n->n)
		net_drop(heap_pop(n));
	free(n->heap);
}

vtime net_next(const struct net *n)
{
	return n->n ? n->heap[0]->at : VTIME_NEVER;
}

struct packet *net_take(struct net *n, vtime now)
{
	return n->n && !vtime_before(now, n->heap[0]->at) ? heap_pop(n) : NULL;
}

static void show(const struct net *n, vtime now, unsigned from, const struct segment *s, bool lost)
{
	/* The side that opens has the port that tells connections apart. */
	const unsigned port = from ? s->flow.remote.port : s->flow.local.port;
	char flags[9] = "";
	size_t k = 0;

	for (unsigned i = 0; i < 8; i++)
		if (s->ctl >> i & 1)
			flags[k++] = "FSRP.UEW"[i];
	printf("%12.6f %4" PRIu64 " %u %5u > %-5s seq %u len %u ack %u win %u piece %u%s\n",
	       (double)now.us / 1e6, n->packets, from, port, flags, s->seq.v, seg_text_len(s),
	       s->ctl & CTL_ACK ? s->ack.v : 0, s->wnd, s->piece_bytes, lost ? "  LOST" : "");
}

/* When the packet arrives, or VTIME_NEVER. */
static vtime arrival(struct net *n, vtime now, struct path *p, uint32_t len, bool *ret_mark)
{
	vtime at = now;

	*ret_mark = chance(n->rng, p->mark);

	if (chance(n->rng, p->burst))
		p->burst_until = vtime_add(now, below(n->rng, p->burst_us));
	if (vtime_before(now, p->burst_until) || chance(n->rng, p->loss))
		return VTIME_NEVER;
	if (!vtime_before(now, n->down_from) && vtime_before(now, n->down_until))
		return VTIME_NEVER;
	if (p->octets_per_s) {
		const vtime start = vtime_before(now, p->busy_until) ? p->busy_until : now;

		if (start.us - now.us > p->queue_us)
			return VTIME_NEVER;
		*ret_mark |= p->mark_us && start.us - now.us > p->mark_us;
		at = p->busy_until = vtime_add(start, (len + 60U) * 1000000ULL / p->octets_per_s);
	}
	at = vtime_add(at, p->delay_us + below(n->rng, p->jitter_us));
	if (p->fifo && vtime_before(at, p->last))
		at = p->last;
	p->last = at;
	return at;
}

static void send_one(struct net *n, vtime now, unsigned from, const struct segment *seg,
		     const uint8_t *text, uint32_t len)
{
	struct path *const path = &n->path[from];
	const bool masked = n->packets < 64 && n->loss_mask >> n->packets & 1;

	mix(n, now.us);
	mix(n, seg->seq.v | (uint64_t)seg->ack.v << 32);
	mix(n, seg->tos);
	mix(n, seg->ctl | (unsigned)seg->wnd << 8 | (uint64_t)len << 32);
	mix(n, seg->options | (uint64_t)seg->ts_val << 32);
	for (unsigned copies = 1 + chance(n->rng, path->dup); copies > 0; copies--) {
		bool mark;
		const vtime at = arrival(n, now, path, len, &mark);
		const bool lost = masked || at.us == UINT64_MAX;

		if (n->verbose)
			show(n, now, from, seg, lost);
		n->lost += lost;
		if (lost)
			continue;
		struct packet *const p = calloc(1, sizeof(*p));

		assert(p && n->n < 1000000);
		*p = (struct packet){ .at = at, .order = n->order++, .to = !from, .seg = *seg };
		p->seg.spans_n = 0;
		if (mark && seg->tos & 3)
			p->seg.tos |= 3;
		p->bytes = malloc(len + 1);
		assert(p->bytes);
		if (len)
			memcpy(p->bytes, text, len);
		p->seg.flow = (struct flow){ seg->flow.remote, seg->flow.local, seg->flow.scope };
		/* One span, or two, cut anywhere: nobody may count on one. */
		const uint32_t cut = chance(n->rng, 500) ? (uint32_t)below(n->rng, len) : 0;

		if (cut)
			p->seg.text[p->seg.spans_n++] = (struct span){ p->bytes, cut };
		if (len)
			p->seg.text[p->seg.spans_n++] = (struct span){ p->bytes + cut, len - cut };
		p->seg.link_mtu = 1500;
		heap_push(n, p);
	}
	n->packets++;
}

unsigned net_send(struct net *n, vtime now, unsigned from, const struct segment *seg)
{
	static uint8_t text[1 << 16];
	uint32_t len = 0, at = 0;
	unsigned pieces = 0;

	for (unsigned i = 0; i < seg->spans_n; i++) {
		memcpy(text + len, seg->text[i].base, seg->text[i].len);
		len += seg->text[i].len;
	}
	if (seg->piece_bytes)
		pieces = (len + seg->piece_bytes - 1) / seg->piece_bytes;
	if (!seg->piece_bytes || !n->cut) {
		send_one(n, now, from, seg, text, len);
		return pieces ? pieces : 1;
	}
	for (unsigned i = 0; i < pieces; i++, at += seg->piece_bytes) {
		struct segment piece = *seg;
		const uint32_t left = len - at;
		const uint32_t take = left < seg->piece_bytes ? left : seg->piece_bytes;

		piece.seq = seq_add(seg->seq, at);
		piece.piece_bytes = 0;
		if (i + 1 < pieces)
			piece.ctl &= (uint8_t) ~(CTL_FIN | CTL_PSH);
		if (i)
			piece.ctl &= (uint8_t)~CTL_CWR; /* RFC 3168 6.1.2 */
		send_one(n, now, from, &piece, text + at, take);
	}
	return pieces;
}
