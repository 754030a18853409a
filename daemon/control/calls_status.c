/* SPDX-License-Identifier: Apache-2.0 */
/* status, version, reload, shutdown, rpc.discover. */
#include <unistd.h>

#include "base/clock.h"
#include "control/call.h"
#include "control/internal.h"
#include "control/row.h"

enum { PROTOCOL_VERSION = 1 };

static void put(json_t *object, const char *key, uint64_t v)
{
	(void)json_object_set_new(object, key, proto_number(v));
}

static json_t *states_json(const struct engine_counters *e)
{
	json_t *o = json_object();

	/* CLOSED has no connections and LISTEN is a listener's. */
	for (enum tcp_state s = ST_SYN_SENT; s < ST__COUNT; s++)
		put(o, state_key(s), e->conns_by_state[s]);
	return o;
}

static json_t *counters_json(const struct worker_status *w)
{
	json_t *o = json_object();

#define COUNTER(name, help) put(o, #name, w->engine.name);
#include "tcp/counters.def"
#undef COUNTER
	put(o, "conns_resting", w->engine.conns_resting);
	put(o, "resting_bytes", w->engine.resting_bytes);
	put(o, "chunks_used", w->engine.chunks_used);
	put(o, "chunks_peak", w->engine.chunks_peak);
	put(o, "wakeups", w->wakeups);
	put(o, "coalesced", w->coalesced);
	put(o, "no_path", w->no_path);
	put(o, "services_refused", w->services_refused);
	put(o, "syns_shed", w->syns_shed);
	put(o, "strangers_unrecorded", w->strangers_unrecorded);
	put(o, "peers_refused", w->peers_refused);
	put(o, "processes", w->processes);
	put(o, "relay_connected", w->relay_connected);
	put(o, "relay_failed", w->relay_failed);
	put(o, "relay_full", w->relay_full);
	put(o, "stream_lost", w->stream_lost);
	put(o, "http_requests", w->http_requests);
	put(o, "http_errors", w->http_errors);
	put(o, "http_timeouts", w->http_timeouts);
	return o;
}

static json_t *packets_json(const struct worker_status *w)
{
	json_t *o = json_object();

#define VERDICT(e, key, help) put(o, key, w->verdicts[WIRE_##e]);
#include "wire/verdicts.def"
#undef VERDICT
	put(o, "not_ours", w->not_ours);
	put(o, "text_missing", w->text_missing);
	return o;
}

static json_t *link_json(const struct link_counters *l)
{
	json_t *o = json_object();

	put(o, "frames_in", l->frames_in);
	put(o, "bytes_in", l->bytes_in);
	put(o, "frames_out", l->frames_out);
	put(o, "bytes_out", l->bytes_out);
	put(o, "kernel_drops", l->kernel_drops);
	put(o, "truncated", l->truncated);
	put(o, "headers_only", l->headers_only);
	put(o, "kept", l->kept);
	put(o, "send_failed", l->send_failed);
	put(o, "send_too_big", l->send_too_big);
	return o;
}

static json_t *record_json(struct record *r)
{
	struct record_counters k = { 0 };
	json_t *o = json_object();

	if (r)
		record_counters(r, &k);
	(void)json_object_set_new(o, "kept", json_boolean(r != NULL));
	put(o, "rows_written", k.rows_written);
	put(o, "rows_dropped", k.rows_dropped);
	put(o, "batches", k.batches);
	put(o, "errors", k.errors);
	put(o, "queue", k.queue);
	put(o, "database_bytes", k.database_bytes);
	(void)json_object_set_new(o, "last_error",
				  k.last_error[0] ? json_string(k.last_error) : json_null());
	return o;
}

static json_t *control_json(const struct control *control)
{
	struct control_counters k;
	json_t *o = json_object();

	control_counters(control, &k);
	put(o, "clients", k.clients);
	put(o, "accepted", k.accepted);
	put(o, "refused", k.refused);
	put(o, "dropped_slow", k.dropped_slow);
	put(o, "requests", k.requests);
	put(o, "errors", k.errors);
	put(o, "waiting", k.waiting);
	return o;
}

static json_t *limits_json(const struct config *config)
{
	json_t *o = json_object();

	put(o, "connections", config->max_connections);
	put(o, "listeners", SERVED_MAX);
	put(o, "buffer_bytes", config->buffer_bytes);
	put(o, "clients", config->max_clients);
	put(o, "client_output_bytes", CLIENT_OUTPUT_MAX);
	put(o, "line_bytes", PROTO_LINE_MAX);
	put(o, "batch", PROTO_BATCH_MAX);
	return o;
}

static void on_status(struct call *c)
{
	const struct control_config *cfg = &c->control->cfg;
	const struct worker_status *w = &c->req.status;
	const uint64_t now = clock_realtime_us();
	json_t *o;

	if (c->req.rc < 0) {
		call_fail_rc(c, c->req.rc, &c->req.err);
		return;
	}
	o = json_object();
	(void)json_object_set_new(o, "version", json_string(TCPFSM_VERSION));
	put(o, "pid", (uint64_t)getpid());
	put(o, "uptime_us", now > cfg->started_us ? now - cfg->started_us : 0);
	put(o, "started_us", cfg->started_us);
	put(o, "workers", cfg->config->workers);
	put(o, "connections", w->engine.conns);
	(void)json_object_set_new(o, "states", states_json(&w->engine));
	put(o, "listeners", served_count(cfg->listeners));
	(void)json_object_set_new(o, "counters", counters_json(w));
	(void)json_object_set_new(o, "packets", packets_json(w));
	(void)json_object_set_new(o, "links",
				  json_pack("{s:o, s:o}", "packet", link_json(&w->packet), "rawip",
					    link_json(&w->rawip)));
	(void)json_object_set_new(o, "record", record_json(cfg->record));
	(void)json_object_set_new(o, "control", control_json(c->control));
	(void)json_object_set_new(o, "limits", limits_json(cfg->config));
	call_result(c, o);
}

void call_status(struct call *c)
{
	call_ask(c, WORKER_STATUS, on_status, CALL_LIMIT_US);
}

void call_version(struct call *c)
{
	call_result(c, json_pack("{s:s, s:i, s:i}", "version", TCPFSM_VERSION, "protocol",
				 (int)PROTOCOL_VERSION, "schema", (int)RECORD_SCHEMA));
}

static void on_reloaded(void *arg, int rc, json_t *result, const struct errmsg *err)
{
	struct call *c = arg;

	if (rc == 0)
		call_result(c, result);
	else
		call_fail(c, PROTO_REFUSED, "%s", err->text);
	call_unref(c);
}

void call_reload(struct call *c)
{
	const struct control_config *cfg = &c->control->cfg;
	struct errmsg err;
	int rc;

	call_ref(c);
	rc = cfg->reload(cfg->arg, on_reloaded, c, &err);
	if (rc < 0)
		on_reloaded(c, rc, NULL, &err);
}

void call_shutdown(struct call *c)
{
	const struct control_config *cfg = &c->control->cfg;

	call_result(c, json_object());
	cfg->stop(cfg->arg);
}

void call_discover(struct call *c)
{
	call_result(c, proto_discover());
}
