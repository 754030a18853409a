/* SPDX-License-Identifier: Apache-2.0 */
/* Active opens: by which address and interface, and what then is ours. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/inside.h"

/* MUST-44: our address, by the route when none was asked for. */
static int choose_source(struct worker *w, struct flow *flow, struct path *ret_path,
			 struct errmsg *err)
{
	const bool chosen = !addr_is_any(&flow->local.addr);
	const struct path *path;
	char text[ADDR_TEXT];
	int rc;

	rc = netview_path(w->view, &flow->remote.addr, flow->scope,
			  chosen ? &flow->local.addr : NULL, w->host.now.us, &path);
	if (rc)
		return errmsg(err, rc, "%s: %s", addr_format(&flow->remote.addr, text),
			      rc == -EHOSTUNREACH ? "no route to host" : "network is unreachable");
	*ret_path = *path;
	if (!chosen)
		flow->local.addr = path->src;
	if (addr_is_v4(&flow->local.addr) != addr_is_v4(&flow->remote.addr))
		return errmsg(err, -EINVAL, "source and destination are of different families");
	if (netview_is_local(w->view, &flow->local.addr))
		return 0;
	if (w->cfg.answer_neighbours &&
	    (own_has_addr(&w->own, &flow->local.addr) ||
	     (w->cfg.index == 0 && /* who is asked for neighbours */
	      netview_is_onlink(w->view, ret_path->ifindex, &flow->local.addr))))
		return 0;
	return errmsg(err, -EADDRNOTAVAIL, "%s: not an address of this machine",
		      addr_format(&flow->local.addr, text));
}

/* What it sends from must be ours, or we would not hear the answer. */
static int own_source(struct worker *w, struct conn *c)
{
	const struct endpoint local = session_flow(&c->session).local;
	const bool is_local = netview_is_local(w->view, &local.addr);
	const bool had = own_has(&w->own, &local, is_local);
	const bool reads = own_reads(&w->own, local.port);
	int rc;

	if (is_local && own_is_local_port(&w->own, local.port))
		return 0;
	/* A listener that has the port may go before the connection; and this one has another reader. */
	rc = own_add(&w->own, &local, true);
	if (rc)
		return rc;
	c->active->owned = local;
	return had && reads ? 0 : worker_apply_owned(w);
}

static int open_errmsg(struct errmsg *err, int rc)
{
	switch (rc) {
	case -EADDRINUSE:
		return errmsg(err, rc, "there is such a connection already");
	case -EADDRNOTAVAIL:
		return errmsg(err, rc, "no local port is left");
	case -ENOBUFS:
		return errmsg(err, rc, "the limit of connections is reached");
	case -EINVAL:
		return errmsg(err, rc, "that is no address to connect to");
	default:
		return errmsg(err, rc, "%s", strerror(-rc));
	}
}

/* MUST-46; the route to such an address would only confuse the message. */
static int check_destination(const struct worker *w, const struct flow *flow, struct errmsg *err)
{
	const struct endpoint *const remote = &flow->remote;

	if (!remote->port)
		return errmsg(err, -EINVAL, "port 0 is no port to connect to");
	if (addr_is_any(&remote->addr) || addr_is_multicast(&remote->addr) ||
	    addr_is_broadcast(&remote->addr) || netview_is_subnet_broadcast(w->view, &remote->addr))
		return open_errmsg(err, -EINVAL);
	if (addr_is_link_local6(&remote->addr) && !flow->scope)
		return errmsg(err, -EINVAL, "a link-local address needs its interface");
	return 0;
}

int worker_open(struct worker *w, const struct conn_open *want, struct errmsg *err,
		struct conn **ret_conn)
{
	struct conn_open open = *want;
	struct path path = { 0 };
	struct conn *c;
	conn_id id;
	int rc = check_destination(w, &open.flow, err);

	if (rc)
		return rc;
	if (!addr_is_link_local6(&open.flow.remote.addr))
		open.flow.scope = 0;
	rc = choose_source(w, &open.flow, &path, err);
	if (rc)
		return rc;
	open.link_mtu = path.mtu;
	rc = engine_connect(w->engine, w->host.now, &open, &id);
	if (rc)
		return open_errmsg(err, rc);
	worker_drain_traces(w, path.ifindex);
	c = worker_conn(w, id, path.ifindex);
	if (c)
		c->active = calloc(1, sizeof(*c->active));
	if (!c || !c->active || own_source(w, c)) {
		(void)conn_abort(w->engine, w->host.now, id, CAUSE_OPERATOR, END_OUT_OF_MEMORY);
		return errmsg(err, -ENOMEM, "out of memory");
	}
	*ret_conn = c;
	return 0;
}

int worker_open_far(struct service_host *h, const struct session *near,
		    const struct endpoint *remote, uint64_t timeout_us, struct service *v,
		    struct session **ret_far)
{
	struct worker *const w = h->worker;
	struct conn_open open = { .flow = { .local = { .addr = addr_any }, .remote = *remote } };
	struct errmsg err;
	struct conn *c;
	int rc = conn_params(w->engine, near->id, &open.params);

	if (rc)
		return rc;
	open.params.syn_timeout_us = timeout_us;
	/* Where no kernel has an address of ours: from the one that every worker answers for. */
	if (w->cfg.answer_neighbours)
		open.flow.local.addr = session_flow(near).local.addr;
	rc = worker_open(w, &open, &err, &c);
	if (rc)
		return rc;
	c->session.service = service_ref(v);
	c->session.ops = v->ops;
	*ret_far = &c->session;
	return 0;
}
