/* SPDX-License-Identifier: Apache-2.0 */
/* The MTUs that connections were told of. When an interface's changes, those that go by it hear of the new
 * one, some at a time: each works for it, and there may be millions.
 */
#include "worker/inside.h"

enum { CONNS_PER_WAKEUP = 1024 };

/* A connection goes by this interface. */
void worker_note_mtu(struct worker *w, uint32_t ifindex)
{
	struct mtus *const m = &w->mtus;

	for (unsigned i = 0; i < m->n; i++)
		if (m->told[i].ifindex == ifindex)
			return;
	if (m->n == MTUS_MAX)
		m->full = true;
	else
		m->told[m->n++] = (struct mtu){ ifindex, netview_link_mtu(w->view, ifindex) };
}

static bool has_changed(struct worker *w)
{
	bool changed = w->mtus.full;

	for (unsigned i = 0; i < w->mtus.n; i++) {
		struct mtu *const m = &w->mtus.told[i];
		const uint16_t now = netview_link_mtu(w->view, m->ifindex);

		changed |= now && now != m->bytes;
		m->bytes = now ? now : m->bytes;
	}
	return changed;
}

void worker_tell_mtus(struct worker *w)
{
	struct mtus *const m = &w->mtus;
	conn_id id;

	if (m->generation != netview_generation(w->view)) {
		m->generation = netview_generation(w->view);
		if (has_changed(w)) {
			m->cursor = 0;
			m->telling = true;
		}
	}
	for (unsigned i = 0; m->telling && i < CONNS_PER_WAKEUP; i++) {
		m->telling = engine_next_conn(w->engine, &m->cursor, &id);
		if (m->telling && w->conns[id.slot].session.host && w->conns[id.slot].ifindex)
			(void)conn_set_mtu(w->engine, w->host.now, id,
					   netview_link_mtu(w->view, w->conns[id.slot].ifindex));
	}
	w->again |= m->telling;
}
