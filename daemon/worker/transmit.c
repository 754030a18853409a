/* SPDX-License-Identifier: Apache-2.0 */
/* Engine -> frames: by the packet link as super-segments with the checksum left to the device, or by
 * raw IP in pieces with full checksums: on lo, where the kernel has to find the neighbour first, and
 * where a device cannot do either.
 */
#include <string.h>

#include "worker/inside.h"

/* For raw IP, which leaves routing to the kernel. */
static const struct path nowhere = { 0 };

static void flush(struct worker *w)
{
	w->packet->ops->flush(w->packet);
	w->rawip->ops->flush(w->rawip);
	w->gathered.packet = w->gathered.rawip = 0;
}

static void make_room(struct link *l)
{
	if (!l->ops->has_room(l))
		l->ops->flush(l);
}

/* Puts one segment, or super-segment, into a link's batch. */
static void put_segment(struct worker *w, struct link *l, const struct segment *seg,
			const struct path *path, bool partial)
{
	_Static_assert(SEG_SPANS <= ARRAY_SIZE(((struct frame_out *)0)->text), "they go on in it");
	struct wire_header header;
	struct frame_out f = { .ifindex = path->ifindex,
			       .ethernet = path->ethernet,
			       .checksum_partial = partial,
			       .ipv6 = !addr_is_v4(&seg->flow.remote.addr),
			       .piece_bytes = partial ? seg->piece_bytes : 0,
			       .text_n = seg->spans_n,
			       .dst = seg->flow.remote.addr,
			       .scope = seg->flow.scope };

	wire_encode(seg, partial ? WIRE_PARTIAL_CHECKSUM : WIRE_FULL_CHECKSUM, &header);
	memcpy(f.dst_mac, path->dst_mac, sizeof(f.dst_mac));
	memcpy(f.src_mac, path->src_mac, sizeof(f.src_mac));
	f.header = header.bytes;
	f.header_len = header.len;
	f.ip_len = header.ip_len;
	for (unsigned i = 0; i < seg->spans_n; i++)
		f.text[i] = (struct iovec){ (void *)(uintptr_t)seg->text[i].base,
					    seg->text[i].len };
	make_room(l);
	l->ops->send(l, &f);
}

/* A flow's segments leave in their order, also when one goes by the one link and the next by the other: then what
 * has been gathered goes first. Flows may share a bit.
 */
static void keep_order(struct worker *w, const struct link *l, const struct flow *flow)
{
	const uint64_t bit = 1ULL << ((flow->remote.port ^ flow->remote.addr.b[15]) & 63);
	const bool by_packet = l == w->packet;

	if ((by_packet ? w->gathered.rawip : w->gathered.packet) & bit)
		flush(w);
	*(by_packet ? &w->gathered.packet : &w->gathered.rawip) |= bit;
}

static void put_pieces(struct worker *w, struct link *l, const struct segment *seg,
		       const struct path *path)
{
	struct segment piece;
	uint32_t offset = 0;

	if (!seg->piece_bytes) {
		put_segment(w, l, seg, path, false);
		return;
	}
	while (wire_next_piece(seg, &offset, &piece))
		put_segment(w, l, &piece, path, false);
}

/* To who may not exist: not worth a question to the kernel, which a flood would make us ask for each of its
 * segments.
 */
static bool may_be_to_nobody(const struct segment *seg)
{
	return seg->ctl & CTL_RST || (seg->ctl & (CTL_SYN | CTL_ACK)) == (CTL_SYN | CTL_ACK);
}

static void send_segment(struct worker *w, const struct segment *seg)
{
	const struct flow *const flow = &seg->flow;
	const struct path *path;
	struct link *l;

	if (may_be_to_nobody(seg) && netview_may_leave(w->view, &flow->remote.addr, flow->scope,
						       &flow->local.addr, w->host.now.us)) {
		keep_order(w, w->rawip, flow);
		put_pieces(w, w->rawip, seg, &nowhere);
		return;
	}
	if (netview_path(w->view, &flow->remote.addr, flow->scope, &flow->local.addr,
			 w->host.now.us, &path)) {
		w->no_path++; /* TCP sends again, or gives up in its time */
		return;
	}
	l = path->loopback || (path->ethernet && !path->neigh_known) ? w->rawip : w->packet;
	keep_order(w, l, flow);
	if (l == w->packet && path->offload)
		put_segment(w, l, seg, path, true);
	else
		put_pieces(w, l, seg, path);
}

/* Text of a batch points into the send buffers, which stand still until the next engine_input() or
 * user call; so everything is flushed before this returns.
 */
void worker_transmit(struct worker *w)
{
	struct segment seg;
	uint32_t bytes = 0;
	unsigned n = 0;

	for (; n < OUTPUT_MAX && bytes < OUTPUT_BYTES; n++) {
		make_room(w->packet);
		make_room(w->rawip);
		if (!engine_output(w->engine, w->host.now, &seg))
			break;
		bytes += seg_text_len(&seg);
		send_segment(w, &seg);
	}
	flush(w);
	if (n == OUTPUT_MAX || bytes >= OUTPUT_BYTES)
		w->again = true;
}

void worker_send_neigh_answers(struct worker *w)
{
	for (unsigned i = 0; i < w->neigh_n; i++) {
		const struct frame_out f = { .neigh = true,
					     .ifindex = w->neigh[i].ifindex,
					     .header = w->neigh[i].frame,
					     .header_len = (uint16_t)w->neigh[i].len };

		make_room(w->packet);
		w->packet->ops->send(w->packet, &f);
	}
	w->neigh_n = 0;
}
