/* SPDX-License-Identifier: Apache-2.0 */
#include "control/served.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/log.h"
#include "config/tcp.h"
#include "control/options.h"
#include "host/sockets.h"
#include "worker/crew.h"

/* A port that a connection is opened from. */
struct source {
	uint64_t id;
	struct endpoint local;
	uint64_t serial; /* 0: not known yet */
	bool asking; /* whether it lives */
};

struct served {
	struct served_config cfg;
	struct crew *crew; /* borrowed */
	struct listener *list; /* room for 2 * SERVED_MAX: those that drain count too */
	size_t n;
	uint64_t last_id;
	struct source *sources; /* room for SOURCES_MAX */
	size_t sources_n;
	struct shield_rule *applied; /* the rules that stand */
	size_t applied_n;
	uint64_t generation;
	struct event *tick; /* runs while something drains */
	struct event *on_links; /* NULL: the shield does not follow devices */
	bool early_told; /* that nothing is dropped early */
	bool asking; /* a WORKER_LISTENERS is under way */
	struct listen_op *waiting, **waiting_last; /* not asked yet: oldest first */
	unsigned asked; /* under way */
	bool unclean; /* rules of listeners that are gone still stand */
	bool told; /* that they could not be removed */
};

/* A request to the worker, and who waits for it. */
struct listen_op {
	struct listen_op *next; /* of those that wait */
	void (*answered)(struct listen_op *op);
	struct worker_request req;
	struct served *ls;
	uint64_t id;
	struct served_params params; /* of WORKER_SET_PARAMS */
	served_done_fn *done; /* NULL: nobody waits */
	void *arg;
};

enum {
	SERVED_ROOM = 2 * SERVED_MAX,
	SOURCES_MAX = 1024,
	ASKED_MAX =
		64, /* a reload may change every listener: clients of the control socket ask too */
	RESHIELD_US = 20000, /* rules of several refused listeners go together */
};

static struct listener *find_id(const struct served *ls, uint64_t id)
{
	for (size_t i = 0; i < ls->n; i++)
		if (ls->list[i].id == id)
			return &ls->list[i];
	return NULL;
}

static struct listener *find_open(const struct served *ls, uint64_t id)
{
	struct listener *const l = find_id(ls, id);

	return l && l->state != LISTENER_DRAINING ? l : NULL;
}

static struct listener *find_address(const struct served *ls, const struct endpoint *address)
{
	for (size_t i = 0; i < ls->n; i++)
		if (ls->list[i].state != LISTENER_DRAINING &&
		    endpoint_eq(&ls->list[i].spec.address, address))
			return &ls->list[i];
	return NULL;
}

static void forget(struct served *ls, struct listener *l)
{
	const size_t i = (size_t)(l - ls->list);

	memmove(l, l + 1, (ls->n - i - 1) * sizeof(*l));
	ls->n--;
}

static void rule_add(struct shield_rule *rules, size_t *n, const struct endpoint *address)
{
	for (size_t i = 0; i < *n; i++)
		if (addr_eq(&rules[i].addr, &address->addr) && rules[i].port_min <= address->port &&
		    address->port <= rules[i].port_max)
			return;
	rules[(*n)++] = (struct shield_rule){ address->addr, address->port, address->port };
}

/* The rules go on alone when what drops early fails: slower, not wrong. Said once, and once when it is over. */
static void tell_early(struct served *ls)
{
	struct shield_early early;

	shield_early(ls->cfg.shield, &early);
	if (early.trouble && !ls->early_told)
		log_warning("Shield=%s: iptables' rules are alone meanwhile: %s", early.name,
			    early.trouble);
	if (!early.trouble && ls->early_told)
		log_notice("Shield=%s: segments are dropped at ingress again", early.name);
	ls->early_told = early.trouble;
}

static void on_links(evutil_socket_t fd, short what, void *arg)
{
	struct served *ls = arg;

	(void)fd;
	(void)what;
	shield_update(ls->cfg.shield);
	tell_early(ls);
}

int served_shield(struct served *ls, const struct config_listener *more, size_t more_n,
		  struct errmsg *ret_err)
{
	struct shield_rule *rules;
	size_t n = 0;
	int rc;

	if (!ls->cfg.shield)
		return 0;
	rules = calloc(1 + ls->n + ls->sources_n + more_n, sizeof(*rules));
	if (!rules)
		return errmsg(ret_err, -ENOMEM, "no memory");
	rules[n++] = ls->cfg.local_ports;
	for (size_t i = 0; i < ls->n; i++)
		rule_add(rules, &n, &ls->list[i].spec.address);
	for (size_t i = 0; i < ls->sources_n; i++)
		rule_add(rules, &n, &ls->sources[i].local);
	for (size_t i = 0; i < more_n; i++)
		rule_add(rules, &n, &more[i].address);
	rc = shield_apply(ls->cfg.shield, rules, n, ret_err);
	tell_early(ls);
	if (rc < 0) {
		free(rules);
		return rc;
	}
	free(ls->applied);
	ls->applied = rules;
	ls->applied_n = n;
	ls->generation++;
	return 0;
}

/* At a start, one call has made the rules of all listeners. */
static bool rule_stands(const struct served *ls, const struct endpoint *address)
{
	for (size_t i = 0; i < ls->applied_n; i++)
		if (addr_eq(&ls->applied[i].addr, &address->addr) &&
		    ls->applied[i].port_min <= address->port &&
		    address->port <= ls->applied[i].port_max)
			return true;
	return false;
}

/* Brings the rules down to what is left. A rule that stays too long harms nobody: tried again. */
static void reshield(struct served *ls)
{
	struct errmsg err;

	ls->unclean = served_shield(ls, NULL, 0, &err) < 0;
	if (ls->unclean && !ls->told)
		log_warning("firewall rules of closed listeners stay, tried again every second: %s",
			    err.text);
	ls->told = ls->unclean;
}

static bool draining(const struct served *ls)
{
	for (size_t i = 0; i < ls->n; i++)
		if (ls->list[i].state == LISTENER_DRAINING)
			return true;
	return false;
}

static void tick_arm(struct served *ls)
{
	const uint64_t us = ls->cfg.poll_us ? ls->cfg.poll_us : 1000000;
	const struct timeval tv = { .tv_sec = (time_t)(us / 1000000),
				    .tv_usec = (suseconds_t)(us % 1000000) };

	if (ls->crew && (ls->unclean || draining(ls) || ls->sources_n))
		(void)event_add(ls->tick, &tv);
}

/* A listener was refused: its rule goes. A reload's soon, for a thousand of them in one go. */
static void undo_rule(struct served *ls, bool configured)
{
	const struct timeval tv = { .tv_usec = RESHIELD_US };

	if (!ls->crew)
		return; /* all rules go, or all stay */
	if (configured) {
		ls->unclean = true;
		(void)event_add(ls->tick, &tv);
		return;
	}
	reshield(ls);
	tick_arm(ls);
}

static struct listen_op *op_new(struct served *ls, enum worker_ask ask, uint64_t id,
				served_done_fn *done, void *arg)
{
	struct listen_op *op = calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	op->req.ask = ask;
	op->req.arg = op;
	op->ls = ls;
	op->id = id;
	op->done = done;
	op->arg = arg;
	return op;
}

static struct listen_op *waiting_take(struct served *ls)
{
	struct listen_op *op = ls->waiting;

	if (op && !(ls->waiting = op->next))
		ls->waiting_last = &ls->waiting;
	return op;
}

/* A descriptor that the worker did not get is closed here. */
static void give_up_descriptor(struct listen_op *op)
{
	if (op->req.ask == WORKER_LISTEN && op->req.listen.fd >= 0)
		(void)close(op->req.listen.fd);
}

/* As many as may be under way. Some always are while others wait, so that an
 * answer leads here again. */
static void ask_waiting(struct served *ls)
{
	while (ls->waiting && ls->asked < ASKED_MAX) {
		struct listen_op *op = ls->waiting;
		const int rc = crew_ask(ls->crew, &op->req);

		if (rc == -EAGAIN && ls->asked)
			return;
		(void)waiting_take(ls);
		if (rc == 0) {
			ls->asked++;
			continue;
		}
		give_up_descriptor(op);
		op->req.rc = errmsg(&op->req.err, rc, "the worker takes no requests: %s",
				    strerror(-rc));
		op->answered(op);
	}
}

static void on_answer(struct worker_request *req)
{
	struct listen_op *op = req->arg;
	struct served *ls = op->ls;

	ls->asked--;
	op->answered(op);
	if (ls->crew)
		ask_waiting(ls);
}

/* In the order of the calls: a listener is closed before its address is opened again. */
static int op_send(struct listen_op *op, void (*answered)(struct listen_op *op),
		   struct errmsg *ret_err)
{
	struct served *ls = op->ls;
	int rc = 0;

	op->answered = answered;
	op->req.done = on_answer;
	if (!ls->crew)
		rc = -ESHUTDOWN;
	else if (!ls->waiting && ls->asked < ASKED_MAX)
		rc = crew_ask(ls->crew, &op->req);
	else
		rc = -EAGAIN;
	if (rc == 0) {
		ls->asked++;
		return 0;
	}
	if (rc == -EAGAIN && ls->asked) {
		*ls->waiting_last = op;
		ls->waiting_last = &op->next;
		return 0;
	}
	give_up_descriptor(op);
	free(op);
	return rc == -EAGAIN
		       ? errmsg(ret_err, rc, "too many requests wait for the worker: try again")
		       : errmsg(ret_err, rc, "the worker takes no requests: %s", strerror(-rc));
}

static void op_finish(struct listen_op *op)
{
	if (op->done)
		op->done(op->arg, op->req.rc, &op->req.err);
	free(op);
}

/* Draining listeners that the worker does not know any more are gone, and their rules can go. */
static void on_listeners(struct listen_op *op)
{
	struct worker_request *req = &op->req;
	struct served *ls = op->ls;

	ls->asking = false;
	for (size_t i = ls->n; req->rc == 0 && i > 0; i--) {
		struct listener *l = &ls->list[i - 1];
		bool known = false;

		/* An id above op->id was given out after the question. */
		if (l->state != LISTENER_DRAINING || l->id > op->id)
			continue;
		for (size_t k = 0; k < req->listeners.ret_n && !known; k++)
			known = req->listeners.ret_list[k].id == l->id;
		if (!known) {
			forget(ls, l);
			ls->unclean = true;
		}
	}
	free(req->listeners.ret_list);
	free(op);
	if (ls->unclean)
		reshield(ls);
	tick_arm(ls);
}

static void drain_ask(struct served *ls)
{
	struct listen_op *op;

	if (ls->asking || !draining(ls))
		return;
	op = op_new(ls, WORKER_LISTENERS, ls->last_id, NULL, NULL);
	ls->asking = op && op_send(op, on_listeners, NULL) == 0;
}

/* ---- ports that connections were opened from ---- */

static struct source *find_source(const struct served *ls, uint64_t id)
{
	for (size_t i = 0; i < ls->sources_n; i++)
		if (ls->sources[i].id == id)
			return &ls->sources[i];
	return NULL;
}

static void forget_source(struct served *ls, struct source *s)
{
	*s = ls->sources[--ls->sources_n];
	ls->unclean = true;
	tick_arm(ls);
}

static void on_source(struct listen_op *op)
{
	struct source *s = find_source(op->ls, op->id);

	if (s)
		s->asking = false;
	if (s && op->req.rc == -ENOENT)
		forget_source(op->ls, s);
	free(op);
}

static void sources_ask(struct served *ls)
{
	for (size_t i = 0; i < ls->sources_n; i++) {
		struct source *s = &ls->sources[i];
		struct listen_op *op;

		if (!s->serial || s->asking)
			continue;
		op = op_new(ls, WORKER_CONNECTION, s->id, NULL, NULL);
		if (op)
			op->req.connection.serial = s->serial;
		s->asking = op && op_send(op, on_source, NULL) == 0;
	}
}

int served_source_take(struct served *ls, const struct endpoint *local, uint64_t *ret_id,
		       struct errmsg *ret_err)
{
	const struct shield_rule *const r = &ls->cfg.local_ports;
	int rc;

	*ret_id = 0;
	if (!ls->cfg.shield || (r->port_min <= local->port && local->port <= r->port_max))
		return 0;
	if (ls->sources_n == SOURCES_MAX)
		return errmsg(
			ret_err, -EADDRNOTAVAIL,
			"port %u: connections from %d ports out of LocalPorts are open already",
			local->port, SOURCES_MAX);
	rc = sockets_check_free(&local->addr, local->port, local->port, ret_err);
	if (rc)
		return rc;
	ls->sources[ls->sources_n++] = (struct source){ .id = ++ls->last_id, .local = *local };
	if (!rule_stands(ls, local))
		rc = served_shield(ls, NULL, 0, ret_err);
	if (rc)
		ls->sources_n--;
	else
		*ret_id = ls->last_id;
	return rc;
}

void served_source_settle(struct served *ls, uint64_t id, uint64_t serial)
{
	struct source *s = id ? find_source(ls, id) : NULL;

	if (!s)
		return;
	s->serial = serial;
	if (!serial)
		forget_source(ls, s);
	tick_arm(ls);
}

uint16_t served_choose_port(const struct served *ls)
{
	const struct shield_rule *const r = &ls->cfg.local_ports;
	const uint32_t n = r->port_max - r->port_min + 1U;
	uint32_t random = 0;

	if (!r->port_min || getrandom(&random, sizeof(random), 0) < 0)
		return 0;
	for (uint32_t i = 0; i < n; i++) {
		const uint16_t port = (uint16_t)(r->port_min + (random + i) % n);
		size_t k = 0;

		while (k < ls->n && ls->list[k].spec.address.port != port)
			k++;
		if (k == ls->n)
			return port;
	}
	return 0;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct served *ls = arg;

	(void)fd;
	(void)what;
	if (ls->unclean)
		reshield(ls);
	drain_ask(ls);
	sources_ask(ls);
	tick_arm(ls);
}

/* False: no memory. */
static bool watch_links(struct served *ls)
{
	const int fd = ls->cfg.shield ? shield_fd(ls->cfg.shield) : -1;

	if (fd < 0)
		return true;
	ls->on_links = event_new(ls->cfg.base, fd, EV_READ | EV_PERSIST, on_links, ls);
	return ls->on_links && event_add(ls->on_links, NULL) == 0;
}

int served_new(const struct served_config *cfg, struct served **ret_served, struct errmsg *ret_err)
{
	struct served *ls = calloc(1, sizeof(*ls));

	if (!ls)
		return errmsg(ret_err, -ENOMEM, "no memory");
	ls->cfg = *cfg;
	ls->waiting_last = &ls->waiting;
	ls->list = calloc(SERVED_ROOM, sizeof(*ls->list));
	ls->sources = calloc(SOURCES_MAX, sizeof(*ls->sources));
	ls->tick = evtimer_new(cfg->base, on_tick, ls);
	if (!ls->list || !ls->sources || !ls->tick || !watch_links(ls)) {
		served_free(ls);
		return errmsg(ret_err, -ENOMEM, "no memory");
	}
	*ret_served = ls;
	return 0;
}

void served_free(struct served *ls)
{
	if (!ls)
		return;
	if (ls->tick)
		event_free(ls->tick);
	if (ls->on_links)
		event_free(ls->on_links);
	free(ls->applied);
	free(ls->sources);
	free(ls->list);
	free(ls);
}

void served_set_crew(struct served *ls, struct crew *c)
{
	struct listen_op *op;

	ls->crew = c;
	while (!c && (op = waiting_take(ls))) {
		give_up_descriptor(op);
		op->req.rc = errmsg(&op->req.err, -ESHUTDOWN, "the daemon is stopping");
		op->answered(op);
	}
}

static int check_address(const struct served *ls, const struct config_listener *spec,
			 struct errmsg *ret_err)
{
	char address[ENDPOINT_TEXT];

	if (!ls->cfg.shield && addr_is_any(&spec->address.addr))
		return errmsg(
			ret_err, -EINVAL,
			"%s: with Shield=none a listener needs an address of its own, one that no "
			"kernel owns",
			endpoint_format(&spec->address, address));
	if (addr_is_multicast(&spec->address.addr) || addr_is_broadcast(&spec->address.addr))
		return errmsg(ret_err, -EINVAL, "%s: TCP needs a unicast address",
			      endpoint_format(&spec->address, address));
	return 0;
}

static int check_free(const struct config_listener *spec, struct errmsg *ret_err)
{
	return sockets_check_free(&spec->address.addr, spec->address.port, spec->address.port,
				  ret_err);
}

int served_check(const struct served *ls, const struct config_listener *spec,
		 struct errmsg *ret_err)
{
	struct service_options options;
	int rc = check_address(ls, spec, ret_err);

	/* A program or a user that is missing is a listener refused, not a listener not found. */
	if (rc == 0)
		rc = options_of_listener(spec, ls->cfg.may_switch_user, &options, ret_err) ||
				     worker_check_service(spec->service, &options, ret_err)
			     ? -EINVAL
			     : 0;
	return rc ? rc : check_free(spec, ret_err);
}

static void on_opened(struct listen_op *op)
{
	const struct worker_request *req = &op->req;
	struct served *ls = op->ls;
	struct listener *l = find_id(ls, op->id);

	if (l && req->rc < 0) {
		const bool configured = l->configured;

		forget(ls, l);
		undo_rule(ls, configured);
	} else if (l && l->state == LISTENER_OPENING) {
		l->state = LISTENER_SERVING;
	}
	op_finish(op);
}

static int request_fill(const struct served *ls, struct worker_request *req,
			const struct listener *l, struct errmsg *ret_err)
{
	const struct config_listener *spec = &l->spec;

	req->listen.id = l->id;
	req->listen.local = spec->address;
	req->listen.params = spec->tcp;
	req->listen.backlog = spec->backlog;
	req->listen.accepted_max = spec->backlog;
	req->listen.max_connections = spec->max_connections;
	req->listen.stream = l->stream;
	req->listen.reuse_port = l->reuse_port;
	req->listen.defer_us = l->defer_us;
	(void)snprintf(req->listen.name, sizeof(req->listen.name), "%s", spec->name);
	(void)snprintf(req->listen.service, sizeof(req->listen.service), "%s", spec->service);
	return options_of_listener(spec, ls->cfg.may_switch_user, &req->listen.options, ret_err);
}

static bool may_share(const struct listener *l, const struct served_program *p)
{
	return p->reuse_port && l->reuse_port && l->uid == p->uid;
}

/* p: a program's; else NULL: then the most specific of several serves. */
static const struct listener *in_the_way(const struct served *ls, const struct endpoint *address,
					 const struct served_program *p)
{
	for (size_t i = 0; i < ls->n; i++) {
		const struct listener *const l = &ls->list[i];

		if (l->state == LISTENER_DRAINING || l->spec.address.port != address->port)
			continue;
		if (p ? addr_overlaps(&l->spec.address.addr, &address->addr) && !may_share(l, p)
		      : addr_eq(&l->spec.address.addr, &address->addr))
			return l;
	}
	return NULL;
}

static int check_room(const struct served *ls, const struct endpoint *address,
		      const struct served_program *p, struct errmsg *ret_err)
{
	const struct listener *other = in_the_way(ls, address, p);
	char text[ENDPOINT_TEXT];

	if (other)
		return errmsg(ret_err, -EADDRINUSE, "%s is served already, by listener %s (%s)",
			      endpoint_format(address, text), other->spec.name,
			      other->spec.service);
	if (served_count(ls) >= SERVED_MAX)
		return errmsg(ret_err, -ENOBUFS, "%s: there are %d listeners already",
			      endpoint_format(address, text), SERVED_MAX);
	if (ls->n >= SERVED_ROOM)
		return errmsg(ret_err, -EAGAIN,
			      "%s: too many closed listeners still have connections",
			      endpoint_format(address, text));
	return 0;
}

static struct served_params params_of(const struct config_listener *spec)
{
	struct served_params p = { .tcp = spec->tcp };

	memcpy(p.from, spec->tcp_from, sizeof(p.from));
	return p;
}

/* After the checks. `new`: all of it but its id and its address's rule. fd: see struct served_program; -1: none. */
static int open_checked(struct served *ls, const struct listener *new, int fd, served_done_fn *done,
			void *arg, struct errmsg *ret_err)
{
	const struct config_listener *const spec = &new->spec;
	const bool configured = new->configured;
	struct listen_op *op;
	struct listener *l;
	int rc = 0;

	if (!rule_stands(ls, &spec->address))
		rc = served_shield(ls, spec, 1, ret_err);
	if (rc < 0)
		return rc;
	l = &ls->list[ls->n++];
	*l = *new;
	l->id = ++ls->last_id;
	l->taken = params_of(spec);
	op = op_new(ls, WORKER_LISTEN, l->id, done, arg);
	rc = op ? request_fill(ls, &op->req, l, ret_err) : errmsg(ret_err, -ENOMEM, "no memory");
	if (!rc) {
		op->req.listen.fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
		rc = op_send(op, on_opened, ret_err);
	} else {
		free(op);
	}
	if (rc < 0) {
		forget(ls, l);
		undo_rule(ls, configured);
	}
	return rc;
}

int served_open(struct served *ls, const struct config_listener *spec, bool configured,
		served_done_fn *done, void *arg, struct errmsg *ret_err)
{
	const struct listener new = { .configured = configured, .spec = *spec };
	int rc = check_room(ls, &spec->address, NULL, ret_err);

	if (rc == 0)
		rc = served_check(ls, spec, ret_err);
	return rc ? rc : open_checked(ls, &new, -1, done, arg, ret_err);
}

int served_check_program(const struct served *ls, const struct endpoint *address,
			 const struct served_program *p, struct errmsg *ret_err)
{
	return check_room(ls, address, p, ret_err);
}

int served_open_stream(struct served *ls, const struct config_listener *spec,
		       const struct served_program *p, served_done_fn *done, void *arg,
		       uint64_t *ret_id, struct errmsg *ret_err)
{
	const struct listener new = { .stream = true,
				      .reuse_port = p->reuse_port,
				      .uid = p->uid,
				      .defer_us = p->defer_us,
				      .spec = *spec };
	int rc = check_room(ls, &spec->address, p, ret_err);

	if (rc == 0)
		rc = check_address(ls, spec, ret_err);
	if (rc == 0)
		rc = check_free(spec, ret_err);
	if (rc == 0)
		rc = open_checked(ls, &new, p->fd, done, arg, ret_err);
	if (rc == 0)
		*ret_id = ls->last_id;
	return rc;
}

static void on_closed(struct listen_op *op)
{
	struct served *ls = op->ls;

	drain_ask(ls);
	tick_arm(ls);
	op_finish(op);
}

static int not_found(const struct endpoint *address, struct errmsg *ret_err)
{
	char text[ENDPOINT_TEXT];

	return errmsg(ret_err, -ENOENT, "%s: no listener has this address",
		      endpoint_format(address, text));
}

static int close_listener(struct served *ls, struct listener *l, served_done_fn *done, void *arg,
			  struct errmsg *ret_err)
{
	struct listen_op *op;
	int rc;

	op = op_new(ls, WORKER_UNLISTEN, l->id, done, arg);
	if (!op)
		return errmsg(ret_err, -ENOMEM, "no memory");
	op->req.unlisten.id = l->id;
	rc = op_send(op, on_closed, ret_err);
	if (rc == 0)
		l->state = LISTENER_DRAINING;
	return rc;
}

static int ask_params(struct served *ls, uint64_t id, const struct served_params *params,
		      void (*answered)(struct listen_op *op), served_done_fn *done, void *arg,
		      struct errmsg *ret_err)
{
	struct listen_op *op = op_new(ls, WORKER_SET_PARAMS, id, done, arg);

	if (!op)
		return errmsg(ret_err, -ENOMEM, "no memory");
	op->params = *params;
	op->req.set_params.id = id;
	op->req.set_params.params = params->tcp;
	return op_send(op, answered, ret_err);
}

/* Refused: it is as it was, also for a worker that had taken it, but for what was asked for since. */
static void on_params(struct listen_op *op)
{
	struct listener *l = find_id(op->ls, op->id);
	struct errmsg err;

	if (l && op->req.rc == 0) {
		l->taken = op->params;
	} else if (l && op->ls->crew && op->req.rc != -ENOENT &&
		   config_tcp_eq(&l->spec.tcp, &op->params.tcp)) {
		l->spec.tcp = l->taken.tcp;
		memcpy(l->spec.tcp_from, l->taken.from, sizeof(l->spec.tcp_from));
		if (ask_params(op->ls, l->id, &l->taken, op_finish, NULL, NULL, &err) < 0)
			log_warning("listener %s: %s", l->spec.name, err.text);
	}
	op_finish(op);
}

int served_close_id(struct served *ls, uint64_t id, served_done_fn *done, void *arg,
		    struct errmsg *ret_err)
{
	struct listener *l = find_open(ls, id);

	return l ? close_listener(ls, l, done, arg, ret_err)
		 : errmsg(ret_err, -ENOENT, "there is no such listener");
}

int served_close(struct served *ls, const struct endpoint *address, served_done_fn *done, void *arg,
		 struct errmsg *ret_err)
{
	struct listener *l = find_address(ls, address);

	return l ? close_listener(ls, l, done, arg, ret_err) : not_found(address, ret_err);
}

int served_set_params(struct served *ls, uint64_t id, const struct config_listener *spec,
		      served_done_fn *done, void *arg, struct errmsg *ret_err)
{
	const struct served_params params = params_of(spec);
	struct listener *l = find_open(ls, id);
	int rc;

	if (!l)
		return not_found(&spec->address, ret_err);
	rc = ask_params(ls, l->id, &params, on_params, done, arg, ret_err);
	if (rc == 0) {
		l->spec.tcp = params.tcp;
		memcpy(l->spec.tcp_from, params.from, sizeof(l->spec.tcp_from));
	}
	return rc;
}

int served_set_unserved(struct served *ls, const struct tcp_params *params, served_done_fn *done,
			void *arg, struct errmsg *ret_err)
{
	struct listen_op *op = op_new(ls, WORKER_SET_PARAMS, 0, done, arg);

	if (!op)
		return errmsg(ret_err, -ENOMEM, "no memory");
	op->req.set_params.id = 0;
	op->req.set_params.params = *params;
	return op_send(op, op_finish, ret_err);
}

const struct listener *served_by_id(const struct served *ls, uint64_t id)
{
	return find_id(ls, id);
}

const struct listener *served_find(const struct served *ls, const struct endpoint *address)
{
	return find_address(ls, address);
}

const struct listener *served_nth(const struct served *ls, size_t i)
{
	return i < ls->n ? &ls->list[i] : NULL;
}

size_t served_count(const struct served *ls)
{
	size_t n = 0;

	for (size_t i = 0; i < ls->n; i++)
		n += ls->list[i].state != LISTENER_DRAINING;
	return n;
}

uint64_t served_generation(const struct served *ls)
{
	return ls->generation;
}
