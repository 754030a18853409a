/* SPDX-License-Identifier: Apache-2.0 */
/* The table of services, and sessions: which service a connection has, until it has none. */
#include "service/service.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

static const struct service_ops *const table[] = {
	&service_echo, &service_discard, &service_chargen, &service_daytime,
	&service_exec, &service_file,    &service_http,    &service_relay,
};

/* Reads and throws away. A connection whose service ended or was taken is served this: a RST for
 * late text at once could overtake what the peer has still to read from us. Once our FIN is
 * acknowledged nothing is lost any more, and nobody reads (FIN-WAIT-2 is limited from there).
 */
static uint32_t sink_text(struct session *s, struct span text)
{
	(void)s;
	return text.len;
}

static void sink_readable(struct session *s)
{
	struct span span;

	while (conn_peek(s->host->engine, s->id, &span, 1))
		if (conn_consume(s->host->engine, s->host->now, s->id, span.len))
			return;
}

static void sink_peer_closed(struct session *s)
{
	sink_readable(s);
	(void)conn_close(s->host->engine, s->host->now, s->id, CAUSE_USER);
}

static void sink_all_acked(struct session *s)
{
	sink_readable(s);
	(void)conn_stop_reading(s->host->engine, s->host->now, s->id);
}

static int sink_open(struct session *s)
{
	sink_readable(s);
	return 0;
}

const struct service_ops service_sink = {
	.name = "",
	.help = "the connection of an operator, or one whose service has ended",
	.direct = true,
	.hidden = true,
	.open = sink_open,
	.text = sink_text,
	.readable = sink_readable,
	.peer_closed = sink_peer_closed,
	.all_acked = sink_all_acked,
};

const struct service_ops *service_nth(size_t n)
{
	return n < ARRAY_SIZE(table) ? table[n] : NULL;
}

static const struct service_options no_options = { .kill_after_us = SERVICE_KILL_AFTER_US };

static void free_options(struct service *v)
{
	if (v->options != &no_options)
		free((void *)(uintptr_t)v->options);
}

static int set_options(struct service *v, const struct service_options *options)
{
	struct service_options *const copy = options ? malloc(sizeof(*copy)) : NULL;

	if (!options)
		return 0;
	if (!copy)
		return -ENOMEM;
	*copy = *options;
	v->options = copy;
	return 0;
}

static int new_service(const struct service_ops *ops, struct service **ret_service)
{
	struct service *v = calloc(1, sizeof(*v));

	if (!v)
		return -ENOMEM;
	v->limits = limits_new();
	if (!v->limits) {
		free(v);
		return -ENOMEM;
	}
	v->ops = ops;
	v->options = &no_options;
	v->refs = 1;
	*ret_service = v;
	return 0;
}

static const struct service_ops *find(const char *text, const char **ret_argument)
{
	const size_t len = strcspn(text, ":");

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (strlen(table[i]->name) != len || memcmp(table[i]->name, text, len) != 0)
			continue;
		*ret_argument = text[len] ? text + len + 1 : NULL;
		return table[i];
	}
	return NULL;
}

int service_new(const char *text, const struct service_options *options,
		struct service **ret_service, struct errmsg *ret_err)
{
	const char *argument = NULL;
	const struct service_ops *const ops = find(text, &argument);
	struct service *v;
	int rc;

	if (!ops)
		return errmsg(ret_err, -EINVAL,
			      "service \"%s\": not one of echo, discard, chargen, daytime, "
			      "exec:PROGRAM, file:/PATH, http:/PATH, relay:BACKEND",
			      text);
	if (argument && !ops->argument)
		return errmsg(ret_err, -EINVAL, "service \"%s\": %s takes no argument", text,
			      ops->name);
	if (!argument && ops->argument)
		return errmsg(ret_err, -EINVAL, "service \"%s\": write %s:%s", text, ops->name,
			      ops->argument);
	rc = new_service(ops, &v);
	if (rc)
		return errmsg(ret_err, rc, "service \"%s\": out of memory", text);
	rc = set_options(v, options);
	if (rc)
		(void)errmsg(ret_err, rc, "service \"%s\": out of memory", text);
	else if (ops->parse)
		rc = ops->parse(v, argument, ret_err);
	if (rc) {
		free_options(v);
		limits_unref(v->limits);
		free(v);
		return rc;
	}
	*ret_service = v;
	return 0;
}

void service_share_limits(struct service *v, struct limits *l)
{
	limits_unref(v->limits);
	v->limits = limits_ref(l);
}

int service_new_stream(struct service **ret_service)
{
	return new_service(&service_stream, ret_service);
}

int service_new_far(struct service **ret_service)
{
	return new_service(&service_far, ret_service);
}

int service_new_accepted(int fd, uint32_t backlog, uint64_t defer_us, struct service **ret_service)
{
	struct stream_accept *accept;
	int rc = stream_accept_new(fd, backlog, defer_us, &accept);

	if (rc)
		return rc;
	rc = new_service(&service_accepted, ret_service);
	if (rc)
		stream_accept_free(accept);
	else
		(*ret_service)->accept = accept;
	return rc;
}

uint32_t service_room(const struct service *v)
{
	return v->accept ? stream_accept_room(v->accept) : UINT32_MAX;
}

void service_stop(struct service *v)
{
	if (v->accept)
		stream_accept_stop(v->accept);
}

struct service *service_ref(struct service *v)
{
	v->refs++;
	return v;
}

void service_unref(struct service *v)
{
	if (!v || --v->refs)
		return;
	if (v->ops->destroy)
		v->ops->destroy(v);
	stream_accept_free(v->accept);
	limits_unref(v->limits);
	free_options(v);
	free(v);
}

int service_check(const char *text, const struct service_options *options, struct errmsg *ret_err)
{
	struct service *v;
	const int rc = service_new(text, options, &v, ret_err);

	if (!rc)
		service_unref(v);
	return rc;
}

int service_host_init(struct service_host *h)
{
	int rc;

	h->scratch = malloc(SERVICE_SCRATCH_BYTES);
	h->chargen = chargen_new();
	rc = h->scratch && h->chargen ? exec_host_init(h) : -ENOMEM;
	if (rc)
		service_host_fini(h);
	return rc;
}

void service_host_fini(struct service_host *h)
{
	exec_host_fini(h);
	stream_host_fini(h);
	free(h->scratch);
	free(h->chargen);
	h->scratch = h->chargen = NULL;
}

void service_host_kill(struct service_host *h)
{
	exec_host_kill(h);
}

void session_init(struct session *s, struct service_host *h, conn_id id, uint64_t serial,
		  struct service *service)
{
	*s = (struct session){ .host = h,
			       .id = id,
			       .serial = serial,
			       .service = service ? service_ref(service) : NULL,
			       .ops = service ? service->ops : &service_sink,
			       .exit_status = INT32_MIN,
			       .fd = -1 };
}

struct flow session_flow(const struct session *s)
{
	struct conn_status st = { 0 };

	(void)conn_status(s->host->engine, s->id, &st);
	return st.flow;
}

static void leave_peers(const struct session *s)
{
	const struct flow flow = session_flow(s);

	limits_leave(s->service->limits, LIMIT_CONNECTIONS, &flow.remote.addr);
}

static uint32_t peer_limit(const struct session *s)
{
	return s->service ? s->service->options->max_connections_per_peer : 0;
}

int session_open(struct session *s)
{
	const uint32_t limit = peer_limit(s);
	const struct flow flow = limit ? session_flow(s) : (struct flow){ 0 };
	int rc = limit ? limits_enter(s->service->limits, LIMIT_CONNECTIONS, &flow.remote.addr,
				      limit)
		       : 0;

	if (rc) {
		s->host->peers_refused++;
		return rc;
	}
	(void)conn_set_direct(s->host->engine, s->id, s->ops->direct);
	s->serving = true;
	rc = s->ops->open(s);
	if (!rc)
		return 0;
	s->serving = false;
	if (limit)
		leave_peers(s);
	return rc;
}

bool session_stop(struct session *s)
{
	return s->serving && s->ops->stop && s->ops->stop(s);
}

void session_ready(struct session *s, unsigned kinds)
{
	if (kinds & REPORT_ALL_ACKED)
		s->all_acked = true;
	if (!s->serving)
		return;
	/* Each step may hand the session to the sink, whose functions then take over. */
	if (kinds & REPORT_WRITABLE && s->ops->writable)
		s->ops->writable(s);
	if (kinds & REPORT_READABLE && s->ops->readable)
		s->ops->readable(s);
	if (kinds & REPORT_PEER_CLOSED && s->ops->peer_closed)
		s->ops->peer_closed(s);
	if (kinds & REPORT_ALL_ACKED && s->ops->all_acked)
		s->ops->all_acked(s);
}

uint32_t session_text(struct session *s, struct span text)
{
	return s->serving && s->ops->text ? s->ops->text(s, text) : 0;
}

/* Tells the service that it is over. */
static void let_go(struct session *s, bool hangup)
{
	const struct service_ops *const ops = s->ops;

	s->ops = &service_sink;
	if (!s->serving || ops == &service_sink)
		return;
	if (peer_limit(s))
		leave_peers(s);
	if (ops->closed)
		ops->closed(s, hangup);
}

void session_sink(struct session *s, bool hangup)
{
	let_go(s, hangup);
	s->serving = true;
	(void)conn_set_direct(s->host->engine, s->id, true);
	sink_readable(s);
	if (s->all_acked)
		sink_all_acked(s);
}

void session_fini(struct session *s, bool hangup)
{
	if (!s->host)
		return;
	let_go(s, hangup);
	service_unref(s->service);
	s->service = NULL;
	s->serving = false;
	s->host = NULL;
}

void session_abort(struct session *s)
{
	(void)conn_abort(s->host->engine, s->host->now, s->id, CAUSE_USER, END_RESET_BY_SERVICE);
}
