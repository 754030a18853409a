/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners. A closed one drains: its address and port stay ours until its last connection is gone,
 * or the kernel would reset what the engine still serves.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/inside.h"
#include "worker/listing.h"

int worker_apply_owned(struct worker *w)
{
	struct link_owned *list;
	size_t n;
	int rc = own_list(&w->own, w->all_text, &list, &n);

	if (rc)
		return rc;
	rc = w->packet->ops->set_owned(w->packet, list, n, w->cfg.answer_neighbours);
	free(list);
	return rc;
}

struct listener *listeners_by_cookie(const struct worker *w, uint64_t cookie)
{
	const uint32_t place = (uint32_t)cookie;

	if (place >= w->listeners_n || !w->listeners[place] ||
	    w->listeners[place]->cookie != cookie)
		return NULL;
	return w->listeners[place];
}

struct listener *listeners_find(const struct worker *w, uint64_t id)
{
	for (size_t i = 0; i < w->listeners_n; i++)
		if (w->listeners[i] && w->listeners[i]->id == id && !w->listeners[i]->draining)
			return w->listeners[i];
	return NULL;
}

/* A free place in the table, or -ENOMEM. */
static int find_place(struct worker *w, size_t *ret_place)
{
	const size_t grown = w->listeners_n ? 2 * w->listeners_n : 16;
	struct listener **list;
	uint32_t *gens;

	for (size_t i = 0; i < w->listeners_n; i++) {
		if (w->listeners[i])
			continue;
		*ret_place = i;
		return 0;
	}
	list = reallocarray((void *)w->listeners, grown, sizeof(struct listener *));
	if (!list)
		return -ENOMEM;
	w->listeners = list;
	gens = reallocarray(w->listener_gens, grown, sizeof(*gens));
	if (!gens)
		return -ENOMEM;
	w->listener_gens = gens;
	for (size_t i = w->listeners_n; i < grown; i++) {
		list[i] = NULL;
		gens[i] = 0;
	}
	*ret_place = w->listeners_n;
	w->listeners_n = grown;
	return 0;
}

static void free_listener(struct listener *l)
{
	if (!l)
		return;
	service_unref(l->service);
	free(l);
}

void listeners_refresh_room(struct worker *w)
{
	for (size_t i = 0; w->accepting_n && i < w->listeners_n; i++) {
		struct listener *const l = w->listeners[i];

		if (l && l->accepts && !l->draining)
			(void)engine_listener_set_room(w->engine, l->tcp, service_room(l->service));
	}
}

/* Takes it out of the table: it owns nothing any more. */
static void remove_listener(struct worker *w, struct listener *l)
{
	w->accepting_n -= l->accepts;
	own_remove(&w->own, &l->local, l->reads);
	w->listeners[(uint32_t)l->cookie] = NULL;
	free_listener(l);
	if (worker_apply_owned(w))
		worker_fail(w, "the packet socket's filter cannot be set");
}

/* NULL: *ret_rc and req->err say why. */
static struct listener *new_listener(struct worker *w, struct worker_request *req, int *ret_rc)
{
	struct listener *const l = calloc(1, sizeof(*l));
	size_t place;

	if (!l || find_place(w, &place)) {
		free(l);
		*ret_rc = errmsg(&req->err, -ENOMEM, "out of memory");
		return NULL;
	}
	req->listen.service[sizeof(req->listen.service) - 1] = 0;
	req->listen.name[sizeof(req->listen.name) - 1] = 0;
	*ret_rc = req->listen.stream
			  ? service_new_accepted(req->listen.fd, req->listen.accepted_max,
						 req->listen.defer_us, &l->service)
			  : service_new(req->listen.service, &req->listen.options, &l->service,
					&req->err);
	if (*ret_rc) {
		free(l);
		return NULL;
	}
	if (req->listen.limits)
		service_share_limits(l->service, req->listen.limits);
	l->id = req->listen.id;
	l->local = req->listen.local;
	l->reads = !l->service->ops->unread;
	l->cookie = (uint64_t)++w->listener_gens[place] << 32 | place;
	memcpy(l->name, req->listen.name, sizeof(l->name));
	memcpy(l->service_text, req->listen.service, sizeof(l->service_text));
	return l;
}

/* The address is ours before anybody can be answered from it. */
static int open_listener(struct worker *w, struct listener *l, struct worker_request *req)
{
	const struct listener_open open = { .local = l->local,
					    .reuse_port = req->listen.reuse_port,
					    .params = req->listen.params,
					    .backlog = req->listen.backlog ? req->listen.backlog
									   : 1,
					    .conns_max = req->listen.max_connections,
					    .cookie = l->cookie };
	char text[ENDPOINT_TEXT];
	int rc = own_add(&w->own, &l->local, l->reads);

	if (rc)
		return errmsg(&req->err, rc, "out of memory");
	rc = worker_apply_owned(w);
	if (!rc)
		rc = engine_listen(w->engine, w->host.now, &open, &l->tcp);
	if (rc) {
		own_remove(&w->own, &l->local, l->reads);
		(void)worker_apply_owned(w);
		(void)endpoint_format(&l->local, text);
		return errmsg(&req->err, rc, "%s: %s", text,
			      rc == -EADDRINUSE ? "is served already"
			      : rc == -ENOBUFS  ? "too many listeners"
						: strerror(-rc));
	}
	l->accepts = service_room(l->service) != UINT32_MAX;
	w->accepting_n += l->accepts;
	return 0;
}

int listeners_add(struct worker *w, struct worker_request *req)
{
	struct listener *l;
	int rc;

	if (req->listen.stream && req->listen.fd < 0)
		return errmsg(&req->err, -EMFILE, "no descriptor is left");
	if (!req->listen.local.port || listeners_find(w, req->listen.id))
		return errmsg(&req->err, -EINVAL,
			      "a listener needs a port and a number of its own");
	if (addr_is_multicast(&req->listen.local.addr) ||
	    addr_is_broadcast(&req->listen.local.addr))
		return errmsg(&req->err, -EINVAL,
			      "a multicast or broadcast address cannot be served");
	l = new_listener(w, req, &rc);
	if (!l)
		return rc;
	rc = open_listener(w, l, req);
	if (rc) {
		free_listener(l);
		return rc;
	}
	w->listeners[(uint32_t)l->cookie] = l;
	return 0;
}

/* Is the address nobody's any more? Other workers may have connections of it still: then its segments
 * are answered by all, as one alone would, until it is forgotten.
 */
static bool is_over(const struct worker *w, const struct listener *l)
{
	return l->draining && !l->live && w->cfg.engine.steer.workers < 2;
}

static void drain(struct worker *w, struct listener *l)
{
	(void)engine_listener_status(w->engine, l->tcp, &l->last);
	(void)engine_unlisten(w->engine, w->host.now, l->tcp);
	l->draining = true;
	service_stop(l->service);
	if (is_over(w, l))
		remove_listener(w, l);
}

int listeners_close(struct worker *w, uint64_t id)
{
	struct listener *const l = listeners_find(w, id);

	if (!l)
		return -ENOENT;
	drain(w, l);
	return 0;
}

void listeners_close_all(struct worker *w)
{
	for (size_t i = 0; i < w->listeners_n; i++)
		if (w->listeners[i] && !w->listeners[i]->draining)
			drain(w, w->listeners[i]);
}

void listener_conn_gone(struct worker *w, struct listener *l)
{
	if (!l)
		return;
	l->live--;
	if (is_over(w, l))
		remove_listener(w, l);
}

int listeners_forget(struct worker *w, uint64_t id)
{
	for (size_t i = 0; i < w->listeners_n; i++) {
		struct listener *const l = w->listeners[i];

		if (!l || l->id != id || !l->draining || l->live)
			continue;
		remove_listener(w, l);
		return 0;
	}
	return -ENOENT;
}

static void fill(const struct worker *w, const struct listener *l, struct worker_listener *ret)
{
	*ret = (struct worker_listener){ .id = l->id, .tcp = l->last, .draining = l->draining };
	if (!l->draining)
		(void)engine_listener_status(w->engine, l->tcp, &ret->tcp);
	ret->tcp.local = l->local;
	if (l->draining) {
		ret->tcp.syn_received = 0;
		ret->tcp.live = l->live;
	}
	memcpy(ret->name, l->name, sizeof(ret->name));
	memcpy(ret->service, l->service_text, sizeof(ret->service));
}

static size_t count_backends(const struct worker *w)
{
	size_t n = 0;

	for (size_t i = 0; i < w->listeners_n; i++)
		if (w->listeners[i])
			n += service_backends(w->listeners[i]->service);
	return n;
}

int listeners_list(const struct worker *w, struct worker_listener **ret_list, size_t *ret_n)
{
	struct service_backend *backend = NULL;
	struct worker_listener *const list = listing_new(w->listeners_n, count_backends(w),
							 &backend);
	size_t n = 0;

	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < w->listeners_n; i++) {
		const struct listener *const l = w->listeners[i];

		if (!l)
			continue;
		fill(w, l, &list[n]);
		list[n].backends = backend;
		list[n].backends_n = service_backends(l->service);
		for (unsigned b = 0; b < list[n].backends_n; b++)
			service_backend(l->service, b, w->host.now, backend++);
		n++;
	}
	*ret_list = list;
	*ret_n = n;
	return 0;
}

void listeners_fini(struct worker *w)
{
	for (size_t i = 0; i < w->listeners_n; i++)
		free_listener(w->listeners[i]);
	free((void *)w->listeners);
	free(w->listener_gens);
	w->listeners = NULL;
	w->listener_gens = NULL;
	w->listeners_n = 0;
}
