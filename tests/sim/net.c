/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

#include "net.h"
#include "wire/wire.h"

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

static void show(const struct net *n, vtime now, unsigned from, const struct segment *s,
		 const char *fate)
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
	       s->ctl & CTL_ACK ? s->ack.v : 0, s->wnd, s->piece_bytes, fate);
}

/* Where the draws for packet k, copy c come from. */
WRAPS static void draw_from(const struct net *n, unsigned copy, struct rng *ret)
{
	ret->s = n->key + n->packets * 0xd1342543de82ef95U + copy * 0xaf251af3b0f025b5U;
	(void)rnd(ret);
}

static bool may_suffer(const struct net *n)
{
	size_t low = 0, high = n->only_n;

	while (low < high) {
		const size_t mid = low + (high - low) / 2;

		if (n->only_these[mid] < n->packets)
			low = mid + 1;
		else
			high = mid;
	}
	return !n->only || (low < n->only_n && n->only_these[low] == n->packets);
}

static void note_suffering(struct net *n)
{
	const uint32_t k = (uint32_t)n->packets;

	if (n->key && n->suffered_n < SUFFERED_MAX &&
	    (!n->suffered_n || n->suffered[n->suffered_n - 1] != k))
		n->suffered[n->suffered_n++] = k;
}

/* What becomes of one copy of a packet. Every draw is made, so that one fault less moves no other. */
struct fate {
	vtime at; /* VTIME_NEVER: lost */
	bool mark, corrupt;
};

static struct fate fate_of(struct net *n, struct rng *r, vtime now, struct path *p, uint32_t len)
{
	const bool may = may_suffer(n);
	struct fate f = { .at = now, .mark = chance(r, p->mark) && may };
	bool lost;

	if (chance(r, p->burst) && may)
		p->burst_until = vtime_add(now, below(r, p->burst_us));
	lost = vtime_before(now, p->burst_until) || chance(r, p->loss);
	lost |= !vtime_before(now, n->down_from) && vtime_before(now, n->down_until);
	if (lost && may) {
		f.at = VTIME_NEVER;
		return f;
	}
	if (p->octets_per_s) {
		const vtime start = vtime_before(now, p->busy_until) ? p->busy_until : now;

		if (start.us - now.us > p->queue_us) {
			f.at = VTIME_NEVER;
			return f;
		}
		f.mark |= p->mark_us && start.us - now.us > p->mark_us;
		f.at = p->busy_until = vtime_add(start, (len + 60U) * 1000000ULL / p->octets_per_s);
	}
	const uint64_t jitter = below(r, p->jitter_us);

	f.at = vtime_add(f.at, p->delay_us + (may ? jitter : 0));
	f.corrupt = p->corrupt && chance(r, p->corrupt) && may;
	if (p->fifo && vtime_before(f.at, p->last))
		f.at = p->last;
	p->last = f.at;
	if (f.mark || f.corrupt || (jitter && may))
		note_suffering(n);
	return f;
}

/* Up to 15 bits in a row: the checksum finds each such error in what it covers. */
static void invert_some(struct rng *r, uint8_t *octets, size_t len)
{
	const uint64_t bits = 1 + below(r, 15), first = below(r, len * 8 - bits);

	octets[first / 8] ^= (uint8_t)(0x80 >> first % 8);
	for (uint64_t i = first + 1; i < first + bits; i++)
		if (i + 1 == first + bits || chance(r, 500))
			octets[i / 8] ^= (uint8_t)(0x80 >> i % 8);
}

static bool same_header(const struct segment *a, const struct segment *b)
{
	bool same = flow_eq(&a->flow, &b->flow) && a->seq.v == b->seq.v && a->ctl == b->ctl &&
		    a->wnd == b->wnd && a->options == b->options && a->tos == b->tos &&
		    a->ttl == b->ttl && seg_text_len(a) == seg_text_len(b);

	if (a->ctl & CTL_ACK)
		same = same && a->ack.v == b->ack.v;
	if (a->options & OPT_TIMESTAMPS)
		same = same && a->ts_val == b->ts_val && a->ts_ecr == b->ts_ecr;
	if (a->options & OPT_SACK)
		same = same && a->sacks_n == b->sacks_n &&
		       !memcmp(a->sacks, b->sacks, a->sacks_n * sizeof(a->sacks[0]));
	return same;
}

/* As octets, and back. p->seg is still the sender's; it becomes the receiver's. False: refused. */
static bool over_the_wire(struct net *n, struct rng *r, struct packet *p, uint32_t len,
			  bool corrupt)
{
	struct wire_header head;
	struct segment got, want = p->seg;
	uint8_t *octets;

	wire_encode(&p->seg, WIRE_FULL_CHECKSUM, &head);
	octets = malloc(head.len + (size_t)len);
	assert(octets);
	memcpy(octets, head.bytes, head.len);
	if (len)
		memcpy(octets + head.len, p->bytes, len);
	if (corrupt)
		invert_some(r, octets, head.len + (size_t)len);
	free(p->bytes);
	p->bytes = octets;
	n->corrupted += corrupt;
	if (wire_decode(octets, head.len + (size_t)len, WIRE_CHECKSUM_VERIFY, &got)) {
		assert(corrupt);
		n->refused++;
		return false;
	}
	want.flow = (struct flow){ want.flow.remote, want.flow.local, 0 };
	/* IPv6 has no checksum of its own: hop limit, traffic class and flow label may be anything. */
	if (corrupt) {
		want.ttl = got.ttl;
		want.tos = got.tos;
	}
	assert(same_header(&got, &want));
	got.piece_bytes = p->seg.piece_bytes;
	p->seg = got;
	return true;
}

static struct packet *packet_new(struct net *n, vtime at, unsigned from, const struct segment *seg,
				 const uint8_t *text, uint32_t len)
{
	struct packet *const p = calloc(1, sizeof(*p));

	assert(p && n->n < 1000000);
	*p = (struct packet){ .at = at, .order = n->order++, .to = !from, .seg = *seg };
	p->bytes = malloc(len + 1);
	assert(p->bytes);
	if (len)
		memcpy(p->bytes, text, len);
	p->seg.text[0] = (struct span){ p->bytes, len };
	p->seg.spans_n = len != 0;
	return p;
}

/* One span, or two, cut anywhere: nobody may count on one. */
static void cut_spans(struct segment *s, uint32_t cut)
{
	const struct span all = s->text[0];

	if (!cut)
		return;
	s->text[0] = (struct span){ all.base, cut };
	s->text[1] = (struct span){ all.base + cut, all.len - cut };
	s->spans_n = 2;
}

static void send_copy(struct net *n, struct rng *r, vtime now, unsigned from,
		      const struct segment *seg, const uint8_t *text, uint32_t len)
{
	const bool masked = n->packets < 64 && n->loss_mask >> n->packets & 1;
	const struct fate f = fate_of(n, r, now, &n->path[from], len);
	const bool lost = masked || f.at.us == UINT64_MAX;

	if (n->verbose)
		show(n, now, from, seg,
		     lost        ? "  LOST"
		     : f.corrupt ? "  CORRUPTED"
		     : f.mark    ? "  MARKED"
				 : "");
	n->lost += lost;
	if (lost) {
		n->lost_ctl |= seg->ctl;
		note_suffering(n);
		return;
	}
	struct packet *const p = packet_new(n, f.at, from, seg, text, len);

	if (f.mark && seg->tos & 3)
		p->seg.tos |= 3;
	if (!n->wire)
		p->seg.flow = (struct flow){ seg->flow.remote, seg->flow.local, seg->flow.scope };
	else if (!over_the_wire(n, r, p, len, f.corrupt)) {
		n->lost_ctl |= seg->ctl;
		net_drop(p);
		return;
	}
	cut_spans(&p->seg, chance(r, 500) ? (uint32_t)below(r, len) : 0);
	p->seg.link_mtu = 1500;
	heap_push(n, p);
}

static void send_one(struct net *n, vtime now, unsigned from, const struct segment *seg,
		     const uint8_t *text, uint32_t len)
{
	struct rng own, *const r = n->key ? &own : n->rng;
	bool twice;

	mix(n, now.us);
	mix(n, seg->seq.v | (uint64_t)seg->ack.v << 32);
	mix(n, seg->tos);
	mix(n, seg->ctl | (unsigned)seg->wnd << 8 | (uint64_t)len << 32);
	mix(n, seg->options | (uint64_t)seg->ts_val << 32);
	draw_from(n, 0, &own);
	twice = chance(r, n->path[from].dup) && may_suffer(n);
	send_copy(n, r, now, from, seg, text, len);
	if (twice) {
		note_suffering(n);
		draw_from(n, 1, &own);
		send_copy(n, r, now, from, seg, text, len);
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
