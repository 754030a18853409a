/* SPDX-License-Identifier: Apache-2.0 */
/* What the main thread asks, each carried out between two wakeups of the network. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/end_name.h"
#include "worker/inside.h"

enum { ASKS_PER_WAKEUP = 32, PAGE_MAX = 1024 };

void worker_answer(struct worker *w, struct worker_request *req, int rc)
{
	req->rc = rc;
	if (rc && !req->err.text[0])
		(void)errmsg(&req->err, rc, "%s", strerror(-rc));
	req->next = NULL;
	*w->answered_last = req;
	w->answered_last = &req->next;
}

void worker_flush_answers(struct worker *w)
{
	struct worker_request *req = w->answered, *next;

	w->answered = NULL;
	w->answered_last = &w->answered;
	for (; req; req = next) {
		next = req->next; /* whoever gets it may free it at once */
		(void)mailbox_put(&w->answers, req); /* `outstanding` keeps room for every answer */
	}
}

static void close_fd(struct worker_request *req)
{
	if (req->ask == WORKER_CONNECT && req->connect.fd >= 0)
		(void)close(req->connect.fd);
	if (req->ask == WORKER_LISTEN && req->listen.stream)
		(void)close(req->listen.fd);
}

void worker_refuse(struct worker *w, struct worker_request *req)
{
	close_fd(req);
	worker_answer(w, req, -ESHUTDOWN);
}

static int serve_connections(struct worker *w, struct worker_request *req)
{
	uint32_t cursor = req->connections.cursor;
	uint32_t max = req->connections.max;
	struct worker_conn *list;
	struct conn_status st;
	size_t n = 0;
	conn_id id;
	bool more = true;

	max = max < 1 ? 1 : max > PAGE_MAX ? PAGE_MAX : max;
	list = malloc(max * sizeof(*list));
	if (!list)
		return -ENOMEM;
	while (n < max && (more = engine_next_conn(w->engine, &cursor, &id)))
		if (!conn_status(w->engine, id, &st))
			worker_fill_conn(w, &st, &list[n++]);
	req->connections.ret_list = list;
	req->connections.ret_n = n;
	req->connections.ret_cursor = more ? cursor : 0;
	return 0;
}

static int serve_connection(struct worker *w, struct worker_request *req)
{
	struct conn_status st;
	conn_id id;

	if (!engine_find_serial(w->engine, req->connection.serial, &id) ||
	    conn_status(w->engine, id, &st))
		return -ENOENT;
	worker_fill_conn(w, &st, &req->connection.ret_conn);
	if (st.passive && listeners_by_cookie(w, st.cookie))
		req->connection.ret_listener = listeners_by_cookie(w, st.cookie)->id;
	return conn_params(w->engine, id, &req->connection.ret_params);
}

/* What may go with the SYN (RFC 7413) is queued before that is pulled. */
static int queue_syn_text(struct worker *w, const struct worker_request *req, conn_id id)
{
	const uint32_t len = req->connect.syn_text;
	size_t taken = 0;
	ssize_t n;

	if (!len || req->connect.fd < 0)
		return 0;
	n = recv(req->connect.fd, w->host.scratch, len, MSG_DONTWAIT);
	if (n != (ssize_t)len ||
	    conn_send(w->engine, w->host.now, id, w->host.scratch, len, &taken) || taken != len)
		return -ENOBUFS;
	return 0;
}

/* Sends the SYN. 1: the answer comes when the handshake is done. */
static int serve_connect(struct worker *w, struct worker_request *req)
{
	const struct conn_open want = { .flow = { .local = req->connect.local,
						  .remote = req->connect.remote,
						  .scope = req->connect.scope },
					.params = req->connect.params };
	struct conn *c;
	int rc;

	if (req->connect.ask_cookie) {
		req->connect.ret_cookie = engine_has_fast_open_cookie(w->engine, w->host.now,
								      &want.flow);
		return 0;
	}
	rc = worker_open(w, &want, &req->err, &c);
	if (rc)
		return rc;
	if (queue_syn_text(w, req, c->session.id) ||
	    (req->connect.fd >= 0 && (service_new_stream(&c->session.service) ||
				      worker_watch_holder(w, c, req->connect.fd)))) {
		(void)conn_abort(w->engine, w->host.now, c->session.id, CAUSE_OPERATOR,
				 END_OUT_OF_MEMORY);
		return errmsg(&req->err, -ENOMEM, "out of memory");
	}
	if (c->session.service)
		c->session.ops = c->session.service->ops;
	c->session.fd = req->connect.fd;
	c->session.skip = req->connect.skip;
	if (!req->connect.early) {
		c->active->connect = req;
		return 1;
	}
	req->connect.ret_serial = c->session.serial;
	req->connect.ret_flow = session_flow(&c->session);
	return 0;
}

static int serve_end(struct worker *w, const struct worker_request *req)
{
	conn_id id;

	if (!engine_find_serial(w->engine, req->end.serial, &id))
		return -ENOENT;
	if (req->ask == WORKER_CLOSE) {
		worker_close_conn(w, id);
		return 0;
	}
	return conn_abort(w->engine, w->host.now, id, CAUSE_OPERATOR, END_RESET_BY_OPERATOR);
}

static int params_errmsg(struct worker_request *req, int rc)
{
	if (rc == -ENOBUFS)
		return errmsg(&req->err, rc,
			      "connections and listeners have as many different sets of parameters "
			      "as are kept");
	return rc;
}

static int serve_set_params(struct worker *w, struct worker_request *req)
{
	const struct listener *const l = listeners_find(w, req->set_params.id);

	if (!req->set_params.id) {
		engine_set_unserved(w->engine, &req->set_params.params);
		return 0;
	}
	return l ? params_errmsg(req, engine_listener_set_params(w->engine, l->tcp,
								 &req->set_params.params))
		 : -ENOENT;
}

static int serve_set_connection(struct worker *w, struct worker_request *req)
{
	struct tcp_params params;
	const char *wrong;
	conn_id id;
	int rc;

	if (!engine_find_serial(w->engine, req->set_connection.serial, &id) ||
	    conn_params(w->engine, id, &params))
		return -ENOENT;
	req->set_connection.ret_before = params;
	tcp_params_patch(&params, &req->set_connection.patch);
	wrong = tcp_params_wrong(&params);
	if (wrong)
		return errmsg(&req->err, -EINVAL, "%s", wrong);
	rc = conn_set_params(w->engine, w->host.now, id, &params);
	return params_errmsg(req, rc == -ENOTCONN ? -ENOENT : rc);
}

static int serve_urgent(struct worker *w, struct worker_request *req)
{
	size_t taken;
	conn_id id;
	int rc;

	if (!engine_find_serial(w->engine, req->urgent.serial, &id))
		return -ENOENT;
	rc = conn_send_urgent(w->engine, w->host.now, id, req->urgent.text, req->urgent.len,
			      &taken);
	if (rc == -EPIPE)
		return errmsg(&req->err, rc, "our side of it is closed already");
	if (rc)
		return -ENOENT;
	req->urgent.ret_taken = (uint32_t)taken;
	return 0;
}

static int serve_status(struct worker *w, struct worker_request *req)
{
	struct worker_status *const st = &req->status;

	*st = (struct worker_status){ .not_ours = w->not_ours,
				      .syns_shed = w->shed.dropped,
				      .no_path = w->no_path,
				      .text_missing = w->text_missing,
				      .wakeups = w->wakeups,
				      .coalesced = w->coalesced,
				      .strangers_unrecorded = w->strangers_unrecorded,
				      .services_refused = w->services_refused + w->host.refused,
				      .peers_refused = w->host.peers_refused,
				      .processes = w->host.processes,
				      .relay_connected = w->host.relay_connected,
				      .relay_failed = w->host.relay_failed,
				      .relay_full = w->host.relay_full,
				      .stream_lost = w->host.stream_lost,
				      .http_requests = w->host.http_requests,
				      .http_errors = w->host.http_errors,
				      .http_timeouts = w->host.http_timeouts };
	engine_counters(w->engine, &st->engine);
	w->packet->ops->counters(w->packet, &st->packet);
	w->rawip->ops->counters(w->rawip, &st->rawip);
	memcpy(st->verdicts, w->verdicts, sizeof(st->verdicts));
	return 0;
}

/* Of the connections that are closed or reset when the worker stops, so many in one wakeup: there may be
 * millions, and each works until its peer has answered.
 */
enum { STOP_BATCH = 1024, STOP_WORKING_MAX = 262144, STOP_RESET_US = 3000000 };

/* False: all are closed. */
static bool close_some(struct worker *w)
{
	struct engine_counters c;
	conn_id id;

	engine_counters(w->engine, &c);
	if (c.conns - c.conns_resting >= STOP_WORKING_MAX)
		return true;
	for (unsigned i = 0; i < STOP_BATCH; i++) {
		if (!engine_next_conn(w->engine, &w->stop_cursor, &id)) {
			w->stop_cursor = 0;
			return false;
		}
		worker_stop_conn(w, id);
	}
	w->again = true;
	return true;
}

/* Time is up for the connections: TIME-WAIT, where both sides are done, is a normal end. False: that was all. */
static bool abort_some(struct worker *w)
{
	struct conn_status st;
	bool more = true;
	conn_id id;

	for (unsigned i = 0; more && i < STOP_BATCH; i++) {
		more = engine_next_conn(w->engine, &w->stop_cursor, &id);
		if (!more || conn_status(w->engine, id, &st))
			continue;
		(void)conn_abort(w->engine, w->host.now, id, CAUSE_OPERATOR,
				 st.state == ST_TIME_WAIT ? END_NORMAL : END_DAEMON_STOPPED);
	}
	worker_serve_reports(w); /* rows */
	worker_transmit(w); /* RSTs */
	w->again |= more;
	return more;
}

static void begin_stop(struct worker *w, struct worker_request *req)
{
	w->stop = req;
	w->stop_at = vtime_add(w->host.now, req->stop.grace_us);
	listeners_close_all(w);
	worker_drain_traces(w, 0);
	w->stop_closing = true;
}

/* Are there connections that have something to finish? */
static bool is_busy(const struct worker *w)
{
	struct engine_counters c;

	engine_counters(w->engine, &c);
	return c.conns > c.conns_by_state[ST_TIME_WAIT] || w->host.processes;
}

/* After a SIGKILL processes go soon, unless the kernel holds them. */
enum { STOP_KILL_US = 500000 };

void worker_step_stop(struct worker *w)
{
	const bool late = !vtime_before(w->host.now, w->stop_at);

	if (!w->stop || w->ended)
		return;
	if (w->stop_closing)
		w->stop_closing = close_some(w);
	if ((w->stop_closing || is_busy(w)) && !late)
		return;
	if (!w->stop_forced) {
		if (w->stop_closing) /* too late for that */
			w->stop_cursor = 0;
		w->stop_closing = false;
		if (abort_some(w) &&
		    vtime_before(w->host.now, vtime_add(w->stop_at, STOP_RESET_US)))
			return; /* whom no RST reaches in time hears it when he speaks again */
		w->stop_forced = true;
		service_host_kill(&w->host);
		w->stop_at = vtime_add(w->host.now, STOP_KILL_US);
	} else if (late) {
		w->host.processes = 0; /* the spawner will have to see to them */
	}
	w->ended = !w->host.processes;
}

/* 1: it will be answered later. */
static int serve(struct worker *w, struct worker_request *req)
{
	int rc;

	switch (req->ask) {
	case WORKER_LISTEN:
		rc = listeners_add(w, req);
		close_fd(req);
		return rc;
	case WORKER_UNLISTEN:
		return listeners_close(w, req->unlisten.id);
	case WORKER_FORGET:
		return listeners_forget(w, req->unlisten.id);
	case WORKER_LISTENERS:
		return listeners_list(w, &req->listeners.ret_list, &req->listeners.ret_n);
	case WORKER_CONNECTIONS:
		return serve_connections(w, req);
	case WORKER_CONNECTION:
		return serve_connection(w, req);
	case WORKER_CONNECT:
		rc = serve_connect(w, req);
		if (rc < 0 && req->connect.early)
			end_name_set(req->connect.fd, -rc);
		if (rc < 0)
			close_fd(req);
		return rc;
	case WORKER_CLOSE:
	case WORKER_RESET:
		return serve_end(w, req);
	case WORKER_SET_PARAMS:
		return serve_set_params(w, req);
	case WORKER_SEND_URGENT:
		return serve_urgent(w, req);
	case WORKER_SET_CONNECTION:
		return serve_set_connection(w, req);
	case WORKER_STATUS:
		return serve_status(w, req);
	case WORKER_STOP:
		begin_stop(w, req);
		return 1;
	}
	return -EINVAL;
}

void worker_serve_asks(struct worker *w)
{
	struct worker_request *req;

	for (unsigned i = 0; i < ASKS_PER_WAKEUP && (req = mailbox_take(&w->asks)); i++) {
		int rc = w->stop ? -ESHUTDOWN : 0;

		if (rc && (req->ask == WORKER_LISTEN || req->ask == WORKER_CONNECT ||
			   req->ask == WORKER_STOP)) {
			worker_refuse(w, req);
			continue;
		}
		rc = serve(w, req);
		worker_drain_traces(w, 0);
		if (rc <= 0)
			worker_answer(w, req, rc);
	}
}
