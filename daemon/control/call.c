/* SPDX-License-Identifier: Apache-2.0 */
#include "control/call.h"

#include <errno.h>
#include <event2/event.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/macros.h"
#include "control/held.h"
#include "control/internal.h"
#include "worker/crew.h"

static call_fn *const methods[METHOD__COUNT] = {
	[METHOD_LIST_CONNECTIONS] = call_list_connections,
	[METHOD_LIST_LISTENERS] = call_list_listeners,
	[METHOD_LIST_SERVICES] = call_list_services,
	[METHOD_LIST_RULES] = call_list_rules,
	[METHOD_SHOW_CONNECTION] = call_show_connection,
	[METHOD_SHOW_TRANSITIONS] = call_show_transitions,
	[METHOD_LISTEN] = call_listen,
	[METHOD_LISTEN_STREAM] = call_listen_stream,
	[METHOD_UNLISTEN] = call_unlisten,
	[METHOD_CONNECT] = call_connect,
	[METHOD_CHOOSE_PORT] = call_choose_port,
	[METHOD_SEND_URGENT] = call_send_urgent,
	[METHOD_SET_TCP] = call_set_tcp,
	[METHOD_SHOW_TCP] = call_show_tcp,
	[METHOD_CLOSE_CONNECTION] = call_close_connection,
	[METHOD_RESET_CONNECTION] = call_reset_connection,
	[METHOD_STATUS] = call_status,
	[METHOD_VERSION] = call_version,
	[METHOD_RELOAD] = call_reload,
	[METHOD_SHUTDOWN] = call_shutdown,
	[METHOD_DISCOVER] = call_discover,
};

/* ---- life ---- */

struct call *call_new(struct control *control, struct exchange *x, enum method m, json_t *id,
		      json_t *params)
{
	struct call *c = calloc(1, sizeof(*c));

	if (!c) {
		json_decref(id);
		json_decref(params);
		return NULL;
	}
	c->control = control;
	c->exchange = x;
	c->refs = 1;
	c->method = m;
	c->id = id;
	c->params = params;
	c->answer_fd = c->stream_fd = -1;
	c->req.arg = c;
	c->query.arg = c;
	c->next = control->calls;
	if (c->next)
		c->next->prev = c;
	control->calls = c;
	control->calls_n++;
	control->counters.requests++;
	return c;
}

void call_clear(struct call *c)
{
	if (c->req.ask == WORKER_LISTENERS)
		free(c->req.listeners.ret_list);
	else if (c->req.ask == WORKER_CONNECTIONS)
		free(c->req.connections.ret_list);
	memset(&c->req, 0, sizeof(c->req));
	free(c->query.connections);
	free(c->query.transition_rows);
	memset(&c->query, 0, sizeof(c->query));
}

static void call_free(struct call *c)
{
	struct control *control = c->control;

	if (c->prev)
		c->prev->next = c->next;
	else
		control->calls = c->next;
	if (c->next)
		c->next->prev = c->prev;
	control->calls_n--;
	if (c->source)
		served_source_settle(control->cfg.listeners, c->source,
				     c->req.ask == WORKER_CONNECT ? c->req.connect.ret_serial : 0);
	call_clear(c);
	if (c->limit)
		event_free(c->limit);
	if (c->answer_fd >= 0)
		(void)close(c->answer_fd);
	if (c->stream_fd >= 0)
		(void)close(c->stream_fd);
	held_free(c->held);
	filter_free(c->filter);
	json_decref(c->rows);
	json_decref(c->id);
	json_decref(c->params);
	free(c->answer);
	free(c);
}

void call_ref(struct call *c)
{
	c->refs++;
}

void call_unref(struct call *c)
{
	if (--c->refs == 0)
		call_free(c);
}

void call_give_up_stream(struct call *c)
{
	if (c->stream_fd >= 0)
		(void)close(c->stream_fd);
	c->stream_fd = -1;
}

void call_orphan(struct call *c)
{
	c->exchange = NULL;
	if (c->limit)
		(void)event_del(c->limit);
	call_give_up_stream(c);
	call_unref(c);
}

/* ---- the answer ---- */

static void call_answered(struct call *c, char *text)
{
	c->answered = true;
	c->answer = text;
	c->answer_len = text ? strlen(text) : 0;
	if (c->limit)
		(void)event_del(c->limit);
	if (!c->exchange)
		return;
	c->exchange->held_bytes += c->answer_len;
	exchange_answered(c->exchange);
}

static char *encode(json_t *answer_stolen)
{
	size_t len;
	char *text = answer_stolen ? proto_encode(answer_stolen, &len) : NULL;

	json_decref(answer_stolen);
	return text;
}

static void answer_error(struct call *c, const struct proto_err *err)
{
	char *text = NULL;

	c->control->counters.errors++;
	if (c->text)
		text = proto_text_error(err);
	else if (c->id)
		text = encode(proto_error_new(c->id, err));
	call_answered(c, text);
}

void call_result(struct call *c, json_t *result)
{
	char *text = NULL;

	if (c->answered || !c->exchange) {
		json_decref(result);
		return;
	}
	if (!result) {
		call_fail(c, PROTO_INTERNAL_ERROR, "no memory for the answer");
		return;
	}
	if (c->text) {
		text = proto_text_result(c->method, result);
		json_decref(result);
	} else if (c->id) {
		text = encode(proto_result_new(c->id, result));
	} else {
		json_decref(result);
	}
	call_answered(c, text);
}

void call_fail(struct call *c, enum proto_error code, const char *fmt, ...)
{
	struct proto_err err = { .code = code };
	va_list ap;

	if (c->answered || !c->exchange)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(err.text, sizeof(err.text), fmt, ap);
	va_end(ap);
	answer_error(c, &err);
}

static enum proto_error code_for(int rc)
{
	switch (-rc) {
	case ENOENT:
	case EBADF:
		return PROTO_NOT_FOUND;
	case EAGAIN:
		return PROTO_BUSY;
	case ETIMEDOUT:
		return PROTO_TIMED_OUT;
	case EINVAL:
		return PROTO_INVALID_PARAMS;
	case ENOMEM:
		return PROTO_INTERNAL_ERROR;
	default:
		return PROTO_REFUSED;
	}
}

void call_fail_rc(struct call *c, int rc, const struct errmsg *err)
{
	const char *text = err && err->text[0] ? err->text : strerror(-rc);

	call_fail(c, code_for(rc), "%s", text);
}

/* ---- running ---- */

static const char *level_hint(enum method_level level)
{
	return level == LEVEL_ADMIN ? "only uid 0 or the daemon's own user may, on control.sock"
				    : "not on observe.sock: use control.sock";
}

static bool changes_something(const struct method_info *info)
{
	return info->level != LEVEL_OBSERVE && info->method != METHOD_SHUTDOWN;
}

void call_run(struct call *c, enum method_level level)
{
	const struct method_info *info = method_get(c->method);
	const struct control_config *cfg = &c->control->cfg;

	if (c->answered)
		return;
	if (info->level > level)
		call_fail(c, PROTO_PERMISSION_DENIED, "%s: %s", info->rpc, level_hint(info->level));
	else if (changes_something(info) && cfg->stopping(cfg->arg))
		call_fail(c, PROTO_REFUSED, "%s: the daemon is stopping", info->rpc);
	else if (c->control->calls_n > CONTROL_CALLS_MAX)
		call_fail(c, PROTO_BUSY, "%d calls wait already: try again", CONTROL_CALLS_MAX);
	else
		methods[c->method](c);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	struct call *c = arg;

	(void)fd;
	(void)what;
	call_fail(c, PROTO_TIMED_OUT, "%s: no answer from %s in time", method_get(c->method)->rpc,
		  c->waits_for);
}

static void limit_set(struct call *c, const char *whom, uint64_t limit_us)
{
	const struct timeval tv = { .tv_sec = (time_t)(limit_us / 1000000),
				    .tv_usec = (suseconds_t)(limit_us % 1000000) };

	c->waits_for = whom;
	if (!c->limit)
		c->limit = evtimer_new(c->control->cfg.base, on_limit, c);
	if (c->limit && limit_us)
		(void)evtimer_add(c->limit, &tv);
	else if (c->limit)
		(void)evtimer_del(c->limit);
}

/* A question came back. */
static void question_done(struct call *c)
{
	if (!c->answered && c->exchange)
		c->then(c);
	call_unref(c);
}

static void on_worker(struct worker_request *req)
{
	question_done(req->arg);
}

void call_ask(struct call *c, enum worker_ask ask, void (*then)(struct call *c), uint64_t limit_us)
{
	int rc;

	c->then = then;
	c->req.ask = ask;
	c->req.done = on_worker;
	c->req.arg = c;
	call_ref(c);
	limit_set(c, "the worker", limit_us);
	rc = crew_ask(c->control->cfg.crew, &c->req);
	if (rc == 0)
		return;
	if (ask == WORKER_CONNECT && c->req.connect.fd >= 0)
		(void)close(c->req.connect.fd);
	c->req.rc = rc;
	(void)errmsg(&c->req.err, rc, "%s: %s", method_get(c->method)->rpc,
		     rc == -EAGAIN ? "too many requests wait for the worker: try again"
				   : "the daemon is stopping");
	question_done(c);
}

static void on_query_posted(struct post_item *item)
{
	struct call *c = (struct call *)(void *)((char *)item - offsetof(struct call, query_done));

	question_done(c);
}

/* On the record's reader thread. */
static void on_query(struct record_query *q)
{
	struct call *c = q->arg;

	c->query_done.run = on_query_posted;
	post_put(c->control->post, &c->query_done);
}

void call_query(struct call *c, void (*then)(struct call *c))
{
	const struct control_config *cfg = &c->control->cfg;
	int rc;

	if (!cfg->record) {
		call_fail(c, PROTO_NO_RECORD, "%s: no record is kept ([Storage] Record=nothing)",
			  method_get(c->method)->rpc);
		return;
	}
	c->then = then;
	c->query.done = on_query;
	c->query.arg = c;
	call_ref(c);
	limit_set(c, "the record", CALL_LIMIT_US);
	rc = record_query(cfg->record, &c->query);
	if (rc == 0)
		return;
	if (rc == -EAGAIN)
		call_fail(c, PROTO_BUSY, "too many questions wait for the record: try again");
	else
		call_fail(c, PROTO_NO_RECORD, "%s: the record takes no questions: %s",
			  method_get(c->method)->rpc, strerror(-rc));
	call_unref(c);
}
