/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/crew.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/steer.h"
#include "service/limits.h"
#include "worker/listing.h"

/* Below a worker's own limit: what is asked of all is asked of all or none. */
enum { ASKED_MAX = 900 };

struct seat {
	struct worker *worker; /* owned */
	unsigned asked; /* under way, by parts */
};

/* A question to one worker, as part of one that was asked of the crew. */
struct part {
	struct worker_request req;
	struct ask *ask;
	struct seat *seat;
};

struct ask {
	struct ask *next, **at; /* of the crew's; *at == this */
	struct crew *crew;
	struct worker_request *req; /* the caller's; NULL: nobody waits */
	struct limits *limits; /* listen: a reference, until all have theirs */
	unsigned left, parts_n;
	struct part parts[];
};

struct crew {
	unsigned n;
	unsigned turn; /* whose the next active open is */
	bool one_opens; /* Shield=none: the first does, for it is asked who has an address */
	uint32_t slots; /* connections of each */
	uint64_t serial_first;
	struct link_group group; /* borrowed by links while they are made */
	struct ask *asks; /* not answered: owned */
	struct seat seats[];
};

static uint32_t share(uint32_t all, unsigned n, unsigned i)
{
	return all / n + (i < all % n);
}

/* A limit: 0 stays "none", and what is limited is at least 1. */
static uint32_t share_of_limit(uint32_t all, unsigned n, unsigned i)
{
	const uint32_t part = share(all, n, i);

	return all && !part ? 1 : part;
}

/* ---- one answer of many ---- */

/* The same relay has the same backends in every worker. Those that are active are counted by all together. Down is one
 * that any of them finds to be. */
static void add_backends(struct worker_listener *sum, const struct worker_listener *more)
{
	for (size_t i = 0; i < sum->backends_n && i < more->backends_n; i++) {
		struct service_backend *const to = &sum->backends[i];
		const struct service_backend *const from = &more->backends[i];

		to->active = from->active;
		to->connected += from->connected;
		to->failed += from->failed;
		to->down |= from->down;
	}
}

/* *backends: where those of the next listener go. */
static void merge_listeners(struct worker_listener *list, size_t *n,
			    struct service_backend **backends, const struct worker_listener *more)
{
	struct listener_status *st;

	for (size_t i = 0; i < *n; i++) {
		if (list[i].id != more->id)
			continue;
		st = &list[i].tcp;
		st->backlog += more->tcp.backlog;
		st->syn_received += more->tcp.syn_received;
		st->live += more->tcp.live;
		st->accepted += more->tcp.accepted;
		st->refused += more->tcp.refused;
		add_backends(&list[i], more);
		return;
	}
	if (more->backends_n)
		memcpy(*backends, more->backends, more->backends_n * sizeof(**backends));
	list[*n] = *more;
	list[(*n)++].backends = *backends;
	*backends += more->backends_n;
}

static void add_engine(struct engine_counters *sum, const struct engine_counters *more)
{
#define COUNTER(name, help) sum->name += more->name;
#include "tcp/counters.def"
#undef COUNTER
	sum->conns += more->conns;
	for (unsigned i = 0; i < ST__COUNT; i++)
		sum->conns_by_state[i] += more->conns_by_state[i];
	sum->conns_resting += more->conns_resting;
	sum->resting_bytes += more->resting_bytes;
	sum->chunks_used += more->chunks_used;
	sum->chunks_peak += more->chunks_peak;
}

static void add_link(struct link_counters *sum, const struct link_counters *more)
{
	sum->frames_in += more->frames_in;
	sum->bytes_in += more->bytes_in;
	sum->frames_out += more->frames_out;
	sum->bytes_out += more->bytes_out;
	sum->kernel_drops += more->kernel_drops;
	sum->truncated += more->truncated;
	sum->headers_only += more->headers_only;
	sum->kept += more->kept;
	sum->ignored += more->ignored;
	sum->send_failed += more->send_failed;
	sum->send_too_big += more->send_too_big;
}

static void add_status(struct worker_status *sum, const struct worker_status *more)
{
	add_engine(&sum->engine, &more->engine);
	add_link(&sum->packet, &more->packet);
	add_link(&sum->rawip, &more->rawip);
	for (unsigned i = 0; i < WIRE__COUNT; i++)
		sum->verdicts[i] += more->verdicts[i];
	sum->not_ours += more->not_ours;
	sum->syns_shed += more->syns_shed;
	sum->no_path += more->no_path;
	sum->text_missing += more->text_missing;
	sum->wakeups += more->wakeups;
	sum->coalesced += more->coalesced;
	sum->strangers_unrecorded += more->strangers_unrecorded;
	sum->services_refused += more->services_refused;
	sum->peers_refused += more->peers_refused;
	sum->processes += more->processes;
	sum->relay_connected += more->relay_connected;
	sum->relay_failed += more->relay_failed;
	sum->relay_full += more->relay_full;
	sum->stream_lost += more->stream_lost;
	sum->http_requests += more->http_requests;
	sum->http_errors += more->http_errors;
	sum->http_timeouts += more->http_timeouts;
}

static void add_statuses(struct ask *a)
{
	a->req->status = a->parts[0].req.status;
	for (unsigned i = 1; i < a->parts_n; i++)
		add_status(&a->req->status, &a->parts[i].req.status);
}

/* Slots of all workers in a row. */
static void number_page(const struct part *p, struct worker_request *req)
{
	const struct crew *const c = p->ask->crew;
	const unsigned index = (unsigned)(p->seat - c->seats);
	const uint32_t first = index * c->slots;

	for (size_t i = 0; i < req->connections.ret_n; i++)
		req->connections.ret_list[i].tcp.id.slot += first;
	if (req->connections.ret_cursor)
		req->connections.ret_cursor += first;
	else if (index + 1 < c->n)
		req->connections.ret_cursor = first + c->slots;
}

/* ---- questions on their way ---- */

static struct ask *ask_new(struct crew *c, struct worker_request *req, unsigned parts_n)
{
	struct ask *const a = calloc(1, sizeof(*a) + parts_n * sizeof(a->parts[0]));

	if (!a)
		return NULL;
	a->crew = c;
	a->req = req;
	a->parts_n = parts_n;
	a->at = &c->asks;
	a->next = c->asks;
	if (a->next)
		a->next->at = &a->next;
	c->asks = a;
	return a;
}

static void ask_free(struct ask *a)
{
	*a->at = a->next;
	if (a->next)
		a->next->at = a->at;
	limits_unref(a->limits);
	free(a);
}

static void on_part(struct worker_request *req);

/* What was not asked has its answer: why not. What was is the worker's until on_part(). */
static int part_send(struct part *p, struct ask *a, struct seat *seat)
{
	int rc;

	p->ask = a;
	p->seat = seat;
	p->req.arg = p;
	p->req.done = on_part;
	rc = worker_ask(seat->worker, &p->req);
	if (rc == 0) {
		a->left++;
		seat->asked++;
		return 0;
	}
	p->req.rc = rc;
	return errmsg(&p->req.err, rc, "%s", strerror(-rc));
}

/* Something that nobody waits for. */
static void tell(struct crew *c, struct seat *seat, enum worker_ask what, uint64_t listener)
{
	struct ask *const a = ask_new(c, NULL, 1);

	if (!a)
		return;
	a->parts[0].req.ask = what;
	a->parts[0].req.unlisten.id = listener;
	if (part_send(&a->parts[0], a, seat))
		ask_free(a);
}

/* Those that listen stop again. Their next question finds it done: order is kept. */
static void undo_listen(const struct ask *listen)
{
	for (unsigned i = 0; i < listen->parts_n; i++) {
		const struct part *const p = &listen->parts[i];

		if (p->req.rc)
			continue;
		tell(listen->crew, p->seat, WORKER_UNLISTEN, p->req.listen.id);
		tell(listen->crew, p->seat, WORKER_FORGET, p->req.listen.id);
	}
}

/* One that is closed, and of which no worker has a connection, is none any more. */
static size_t forget_drained(struct crew *c, struct worker_listener *list, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (!list[i].draining || list[i].tcp.live) {
			list[kept++] = list[i];
			continue;
		}
		for (unsigned k = 0; k < c->n; k++)
			tell(c, &c->seats[k], WORKER_FORGET, list[i].id);
	}
	return kept;
}

static int join_lists(struct ask *a)
{
	struct service_backend *backends = NULL;
	struct worker_listener *list;
	size_t room = 0, backends_n = 0, n = 0;

	for (unsigned i = 0; i < a->parts_n; i++) {
		const struct worker_request *const r = &a->parts[i].req;

		room += r->listeners.ret_n;
		for (size_t k = 0; k < r->listeners.ret_n; k++)
			backends_n += r->listeners.ret_list[k].backends_n;
	}
	list = listing_new(room, backends_n, &backends);
	for (unsigned i = 0; i < a->parts_n; i++) {
		struct worker_request *const r = &a->parts[i].req;

		for (size_t k = 0; list && k < r->listeners.ret_n; k++)
			merge_listeners(list, &n, &backends, &r->listeners.ret_list[k]);
		free(r->listeners.ret_list);
		r->listeners.ret_list = NULL;
	}
	if (!list)
		return -ENOMEM;
	a->req->listeners.ret_list = list;
	a->req->listeners.ret_n = a->req->rc ? n : forget_drained(a->crew, list, n);
	return 0;
}

/* The answer to what was asked of all: the first failure, when there is one. */
static void answer_all(struct ask *a)
{
	struct worker_request *const req = a->req;
	const bool stop = req->ask == WORKER_STOP; /* who is gone has stopped */

	req->rc = 0;
	for (unsigned i = 0; i < a->parts_n && !req->rc && !stop; i++) {
		req->rc = a->parts[i].req.rc;
		req->err = a->parts[i].req.err;
	}
	if (req->ask == WORKER_LISTENERS) {
		const int rc = join_lists(a);

		req->rc = req->rc ? req->rc : rc;
	} else if (req->ask == WORKER_STATUS) {
		add_statuses(a);
	} else if (req->ask == WORKER_LISTEN && req->rc) {
		undo_listen(a);
	}
}

static void answer_one(struct ask *a)
{
	struct worker_request *const req = a->req;
	void (*const done)(struct worker_request *) = req->done;
	void *const arg = req->arg;

	*req = a->parts[0].req;
	req->done = done;
	req->arg = arg;
	if (req->ask == WORKER_CONNECTIONS && req->rc == 0)
		number_page(&a->parts[0], req);
}

static bool is_for_all(enum worker_ask ask)
{
	switch (ask) {
	case WORKER_LISTEN:
	case WORKER_UNLISTEN:
	case WORKER_FORGET:
	case WORKER_LISTENERS:
	case WORKER_SET_PARAMS:
	case WORKER_STATUS:
	case WORKER_STOP:
		return true;
	case WORKER_CONNECTIONS:
	case WORKER_CONNECTION:
	case WORKER_CONNECT:
	case WORKER_CLOSE:
	case WORKER_RESET:
	case WORKER_SET_CONNECTION:
	case WORKER_SEND_URGENT:
		break;
	}
	return false;
}

static void on_part(struct worker_request *part_req)
{
	struct part *const p = part_req->arg;
	struct ask *const a = p->ask;
	struct worker_request *const req = a->req;

	p->seat->asked--;
	if (--a->left)
		return;
	if (req && is_for_all(req->ask) && a->parts_n > 1)
		answer_all(a);
	else if (req)
		answer_one(a);
	ask_free(a);
	if (req)
		req->done(req);
}

/* ---- asking ---- */

/* Worker i's part of a listener. Its descriptor is a duplicate: -1 when there can be none. */
static void part_listen(struct worker_request *r, unsigned n, unsigned i)
{
	r->listen.backlog = share_of_limit(r->listen.backlog, n, i);
	r->listen.max_connections = share_of_limit(r->listen.max_connections, n, i);
	if (r->listen.stream)
		r->listen.fd = fcntl(r->listen.fd, F_DUPFD_CLOEXEC, 0);
}

static bool has_room(const struct crew *c)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->seats[i].asked >= ASKED_MAX)
			return false;
	return true;
}

static int ask_all(struct crew *c, struct worker_request *req)
{
	struct ask *const a = has_room(c) ? ask_new(c, req, c->n) : NULL;
	const bool passes = req->ask == WORKER_LISTEN && req->listen.stream;
	int rc = 0;

	if (!a)
		return -EAGAIN;
	if (req->ask == WORKER_LISTEN && !(a->limits = limits_new())) {
		ask_free(a);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < c->n; i++) {
		struct part *const p = &a->parts[i];

		p->req = *req;
		if (req->ask == WORKER_LISTEN) {
			part_listen(&p->req, c->n, i);
			p->req.listen.limits = a->limits;
		}
		rc = part_send(p, a, &c->seats[i]);
		if (rc && passes && p->req.listen.fd >= 0)
			(void)close(p->req.listen.fd);
	}
	if (!a->left) {
		ask_free(a);
		return rc;
	}
	if (passes)
		(void)close(req->listen.fd);
	return 0;
}

int crew_ask_one(struct crew *c, unsigned index, struct worker_request *req)
{
	struct ask *const a = c->seats[index].asked < ASKED_MAX ? ask_new(c, req, 1) : NULL;
	int rc;

	if (!a)
		return -EAGAIN;
	a->parts[0].req = *req;
	rc = part_send(&a->parts[0], a, &c->seats[index]);
	if (rc)
		ask_free(a);
	return rc;
}

static int ask_page(struct crew *c, struct worker_request *req)
{
	const uint32_t cursor = req->connections.cursor;
	const unsigned past = cursor / c->slots;
	const unsigned index = past < c->n ? past : c->n - 1;
	int rc;

	req->connections.cursor = cursor - index * c->slots;
	rc = crew_ask_one(c, index, req);
	req->connections.cursor = cursor;
	return rc;
}

static unsigned by_serial(const struct crew *c, uint64_t serial)
{
	return serial < c->serial_first ? 0 : (unsigned)((serial - c->serial_first) % c->n);
}

/* A port that is given settles whose flow it is; else the worker will find one that makes it its own. Who is asked for a
 * cookie is the one who opens next: each has cookies of its own.
 */
static unsigned opener(struct crew *c, const struct worker_request *req)
{
	const struct endpoint *const remote = &req->connect.remote;

	if (req->connect.local.port)
		return steer_worker(&c->group.steer, &remote->addr, remote->port,
				    req->connect.local.port);
	if (c->one_opens)
		return 0;
	return (req->connect.ask_cookie ? c->turn : c->turn++) % c->n;
}

int crew_ask(struct crew *c, struct worker_request *req)
{
	if (c->n == 1)
		return worker_ask(c->seats[0].worker, req);
	if (is_for_all(req->ask))
		return ask_all(c, req);
	switch (req->ask) {
	case WORKER_CONNECTIONS:
		return ask_page(c, req);
	case WORKER_CONNECT:
		return crew_ask_one(c, opener(c, req), req);
	case WORKER_CONNECTION:
		return crew_ask_one(c, by_serial(c, req->connection.serial), req);
	case WORKER_CLOSE:
	case WORKER_RESET:
		return crew_ask_one(c, by_serial(c, req->end.serial), req);
	case WORKER_SEND_URGENT:
		return crew_ask_one(c, by_serial(c, req->urgent.serial), req);
	case WORKER_SET_CONNECTION:
		return crew_ask_one(c, by_serial(c, req->set_connection.serial), req);
	case WORKER_LISTEN:
	case WORKER_UNLISTEN:
	case WORKER_FORGET:
	case WORKER_LISTENERS:
	case WORKER_SET_PARAMS:
	case WORKER_STATUS:
	case WORKER_STOP:
		break;
	}
	return -EINVAL;
}

bool crew_is_alive(struct crew *c, unsigned *ret_index)
{
	bool alive = true;

	for (unsigned i = c->n; i-- > 0;) {
		if (worker_is_alive(c->seats[i].worker))
			continue;
		alive = false;
		*ret_index = i;
	}
	return alive;
}

/* ---- begin and end ---- */

static void part_engine(struct engine_config *e, unsigned n, unsigned i, const struct steer *steer)
{
	e->conns_max = share_of_limit(e->conns_max, n, i);
	e->syn_received_max = share_of_limit(e->syn_received_max, n, i);
	e->time_wait_max = share_of_limit(e->time_wait_max, n, i);
	e->working_max = share_of_limit(e->working_max, n, i);
	e->chunks_max = share_of_limit(e->chunks_max, n, i) < 2 ? 2 : share(e->chunks_max, n, i);
	e->serial_first += i;
	e->serial_step = n;
	e->steer = *steer;
	e->steer.index = i;
}

int crew_start(const struct worker_config *cfg, unsigned n, struct crew **ret_crew,
	       struct errmsg *ret_err)
{
	struct crew *const c = calloc(1, sizeof(*c) + n * sizeof(c->seats[0]));
	int rc = 0;

	if (!c)
		return errmsg(ret_err, -ENOMEM, "workers: out of memory");
	c->one_opens = cfg->answer_neighbours;
	c->serial_first = cfg->engine.serial_first;
	c->slots = share_of_limit(cfg->engine.conns_max, n, 0);
	if (getrandom(&c->group.steer.key, sizeof(c->group.steer.key), 0) < 0)
		rc = errmsg(ret_err, -EIO, "workers: no random numbers");
	c->group.steer.key[0] |= 1;
	c->group.steer.key[1] |= 1;
	c->group.steer.workers = n;
	for (unsigned i = 0; i < n && !rc; i++) {
		struct worker_config one = *cfg;

		one.index = i;
		part_engine(&one.engine, n, i, &c->group.steer);
		one.group = n > 1 ? &c->group : NULL;
		rc = worker_start(&one, &c->seats[i].worker, ret_err);
		c->n += !rc;
	}
	if (!c->n) {
		free(c);
		return rc;
	}
	*ret_crew = c;
	return rc;
}

void crew_free(struct crew *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < c->n; i++)
		worker_free(c->seats[i].worker);
	while (c->asks)
		ask_free(c->asks);
	free(c);
}
