/* SPDX-License-Identifier: Apache-2.0 */
/* Frames -> engine. Whatever is not ours is counted and never answered. */
#include "worker/inside.h"

/* Loopback addresses on a wire are forged (RFC 1122 3.2.1.3 g, RFC 4291 2.5.3). */
static bool is_martian(const struct worker *w, const struct flow *f, uint32_t ifindex)
{
	return ifindex != w->lo_ifindex &&
	       (addr_is_loopback(&f->local.addr) || addr_is_loopback(&f->remote.addr));
}

/* MUST-57 and the rule of the house: only what is sent to an address and port that we own. */
static bool is_ours(const struct worker *w, const struct flow *f, uint32_t ifindex)
{
	const bool is_local = netview_is_local(w->view, &f->local.addr);

	if (!is_local && !w->cfg.answer_neighbours)
		return false;
	if (!own_has(&w->own, &f->local, is_local) || is_martian(w, f, ifindex))
		return false;
	/* The kernel has parted them; one of another worker's that comes here is not to be reset. */
	if (!steer_is_mine(&w->cfg.engine.steer, f))
		return false;
	return !netview_is_subnet_broadcast(w->view, &f->local.addr) &&
	       !netview_is_subnet_broadcast(w->view, &f->remote.addr);
}

/* Who has this address? We do, when an owner names it and no kernel has it. The answer waits: frames
 * are borrowed until the next call on their link.
 */
static void take_neigh(struct worker *w, const struct frame *f)
{
	struct neigh_answer *const answer = &w->neigh[w->neigh_n];
	struct ipaddr target;
	uint8_t mac[6];

	if (!w->cfg.answer_neighbours || w->neigh_n == NEIGH_ANSWERS_MAX ||
	    !wire_neigh_query(f->data, f->len, &target) || !own_has_addr(&w->own, &target) ||
	    netview_is_local(w->view, &target) ||
	    !netview_is_onlink(w->view, f->ifindex, &target) ||
	    !netview_link_mac(w->view, f->ifindex, mac))
		return;
	answer->len = wire_neigh_answer(f->data, f->len, mac, answer->frame);
	answer->ifindex = f->ifindex;
	w->neigh_n += answer->len > 0;
}

static void take_segment(struct worker *w, struct segment *seg, uint32_t ifindex, uint64_t loan)
{
	struct delivery d = { 0 };

	seg->flow.scope = addr_is_link_local6(&seg->flow.remote.addr) ? ifindex : 0;
	seg->link_mtu = netview_link_mtu(w->view, ifindex);
	engine_input(w->engine, w->host.now, seg, &d);
	if (d.text.len) {
		struct session *const s = &w->conns[d.id.slot].session;

		w->host.loan = loan;
		conn_delivered(w->engine, w->host.now, &d, s->host ? session_text(s, d.text) : 0);
	}
	worker_drain_traces(w, ifindex);
}

/* An error about a segment of ours: its sender must be an address and port that we own. */
static enum wire_verdict take_icmp(struct worker *w, const struct frame *f)
{
	struct icmp_message m;
	const enum wire_verdict verdict = wire_decode_icmp(f->data, f->len, &m);

	if (verdict != WIRE_ICMP)
		return verdict;
	if (!is_ours(w, &m.flow, f->ifindex)) {
		w->not_ours++;
		return verdict;
	}
	m.flow.scope = addr_is_link_local6(&m.flow.remote.addr) ? f->ifindex : 0;
	engine_icmp(w->engine, w->host.now, &m);
	worker_drain_traces(w, f->ifindex);
	return verdict;
}

/* It counts as lost, and comes again, whole. The first of a device whose checksums nobody has looked at is the last
 * without its text.
 */
static void drop_without_text(struct worker *w, const struct frame *f)
{
	w->text_missing++;
	if (f->checksum_trusted || w->all_text)
		return;
	w->all_text = true;
	if (worker_apply_owned(w))
		worker_fail(w, "the packet socket's filter cannot be set");
}

/* What nobody looks at. */
static uint8_t unread_text[LINK_PACKET_MAX];

static void take_frame(struct worker *w, const struct frame *f)
{
	struct segment seg;
	enum wire_verdict verdict;

	if (!netview_uses_interface(w->view, f->ifindex))
		return;
	if (f->neigh) {
		take_neigh(w, f);
		return;
	}
	if (f->headers_only && !f->checksum_trusted) {
		drop_without_text(w, f);
		return;
	}
	verdict = wire_decode(f->data, f->len,
			      f->checksum_trusted ? WIRE_CHECKSUM_TRUSTED : WIRE_CHECKSUM_VERIFY,
			      &seg);
	if (verdict == WIRE_NOT_TCP && !f->headers_only)
		verdict = take_icmp(w, f);
	w->verdicts[verdict]++;
	if (verdict != WIRE_OK)
		return;
	if (!is_ours(w, &seg.flow, f->ifindex)) {
		w->not_ours++;
		return;
	}
	/* It came when nobody read what came here. */
	if (f->headers_only && own_reads(&w->own, seg.flow.local.port)) {
		drop_without_text(w, f);
		return;
	}
	if ((seg.ctl & (CTL_SYN | CTL_ACK)) == CTL_SYN &&
	    shed_drops(&w->shed, &seg.flow, w->pressure, w->host.now.us))
		return;
	if (f->headers_only && seg.spans_n)
		seg.text[0].base = unread_text;
	seg.piece_bytes = f->piece_bytes;
	w->came.mixed |= seg.flow.remote.port != w->came_from;
	w->came_from = seg.flow.remote.port;
	take_segment(w, &seg, f->ifindex, f->loan);
}

int worker_receive(struct worker *w)
{
	struct frame frames[BATCH];

	listeners_refresh_room(w);

	const int n = w->packet->ops->receive(w->packet, frames, BATCH, &w->more);

	w->pressure = w->packet->ops->pressure(w->packet);
	w->taken = n > 0 ? (unsigned)n : 1; /* an end to what counts them */
	for (int i = 0; i < n; i++) {
		w->came.frames++;
		w->came.bytes += frames[i].len;
		w->came.unread += frames[i].headers_only ? frames[i].len : 0;
		w->came_last_us = frames[i].at_us;
		take_frame(w, &frames[i]);
	}
	engine_recall(w->engine, w->packet->ops->recalls(w->packet));
	w->packet->ops->release(w->packet, engine_first_loan(w->engine));
	return n < 0 ? n : 0;
}

int worker_catch_up(struct worker *w)
{
	int rc = worker_receive(w);
	unsigned n = w->taken;

	for (; n < CATCH_UP_MAX && !rc && w->more; n += w->taken)
		rc = worker_receive(w);
	return rc;
}
