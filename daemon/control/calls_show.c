/* SPDX-License-Identifier: Apache-2.0 */
/* show.connection, show.transitions, close.connection, reset.connection, send.urgent. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "control/call.h"
#include "control/internal.h"
#include "control/row.h"

enum { TRANSITIONS_MAX = 10000 };

static uint64_t wanted(const struct call *c)
{
	return proto_param_number(c->params, "id", 0);
}

static void no_such_connection(struct call *c)
{
	call_fail(c, PROTO_NOT_FOUND, "connection %" PRIu64 ": there is none", wanted(c));
}

/* ---- show.connection ---- */

static void on_kept(struct call *c)
{
	const struct row row = { .kept = c->query.connections };

	if (c->query.rc < 0)
		call_fail(c, PROTO_NO_RECORD, "%s", c->query.err.text);
	else if (c->query.rows_n == 0)
		no_such_connection(c);
	else
		call_result(c, row_json(&row, false));
}

static void on_live(struct call *c)
{
	const struct row row = { .live = &c->req.connection.ret_conn };

	if (c->req.rc == 0) {
		call_result(c, row_json(&row, true));
		return;
	}
	if (c->req.rc != -ENOENT) {
		call_fail_rc(c, c->req.rc, &c->req.err);
		return;
	}
	if (!c->control->cfg.record) {
		no_such_connection(c);
		return;
	}
	call_clear(c);
	c->query.id = wanted(c);
	c->query.limit = 1;
	call_query(c, on_kept);
}

void call_show_connection(struct call *c)
{
	if (wanted(c) == 0) {
		no_such_connection(c);
		return;
	}
	c->req.connection.serial = wanted(c);
	call_ask(c, WORKER_CONNECTION, on_live, CALL_LIMIT_US);
}

/* ---- show.transitions ---- */

static json_t *transition_json(const struct record_transition *t)
{
	char cause[CAUSE_TEXT];

	return json_pack("{s:o, s:s, s:s, s:s, s:s}", "at_us", proto_number(t->at_us), "from",
			 state_key(t->from), "to", state_key(t->to), "cause",
			 cause_format(t->cause, t->detail, cause), "rule", rule_text(t->rule));
}

static void answer_transitions(struct call *c)
{
	json_t *rows = json_array();

	for (size_t i = 0; i < c->query.rows_n; i++)
		(void)json_array_append_new(rows, transition_json(&c->query.transition_rows[i]));
	call_result(c, json_pack("{s:o, s:o, s:b}", "connection", proto_number(wanted(c)),
				 "transitions", rows, "more", (int)c->query.more));
}

/* A connection without transitions, or none at all? */
static void on_owner(struct call *c)
{
	if (c->query.rc < 0) {
		call_fail(c, PROTO_NO_RECORD, "%s", c->query.err.text);
	} else if (c->query.rows_n == 0) {
		no_such_connection(c);
	} else {
		c->query.rows_n = 0;
		answer_transitions(c);
	}
}

static void on_transitions(struct call *c)
{
	if (c->query.rc < 0) {
		call_fail(c, PROTO_NO_RECORD, "%s", c->query.err.text);
		return;
	}
	if (c->query.rows_n) {
		answer_transitions(c);
		return;
	}
	call_clear(c);
	c->query.id = wanted(c);
	c->query.limit = 1;
	call_query(c, on_owner);
}

void call_show_transitions(struct call *c)
{
	if (wanted(c) == 0) {
		no_such_connection(c);
		return;
	}
	if (c->control->cfg.record && c->control->cfg.record_what != RECORD_TRANSITIONS) {
		call_fail(c, PROTO_NO_RECORD,
			  "show.transitions: they are not kept ([Storage] Record=connections)");
		return;
	}
	c->query.transitions = true;
	c->query.id = wanted(c);
	c->query.limit = TRANSITIONS_MAX;
	call_query(c, on_transitions);
}

/* ---- close.connection, reset.connection ---- */

static void on_ended(struct call *c)
{
	if (c->req.rc == 0)
		call_result(c, json_pack("{s:o}", "id", proto_number(wanted(c))));
	else if (c->req.rc == -ENOENT)
		no_such_connection(c);
	else
		call_fail_rc(c, c->req.rc, &c->req.err);
}

void call_close_connection(struct call *c)
{
	c->req.end.serial = wanted(c);
	call_ask(c, WORKER_CLOSE, on_ended, CALL_LIMIT_US);
}

void call_reset_connection(struct call *c)
{
	c->req.end.serial = wanted(c);
	call_ask(c, WORKER_RESET, on_ended, CALL_LIMIT_US);
}

/* ---- send.urgent ---- */

static void on_sent(struct call *c)
{
	if (c->req.rc == -ENOENT)
		no_such_connection(c);
	else if (c->req.rc)
		call_fail_rc(c, c->req.rc, &c->req.err);
	else if (c->req.urgent.ret_taken == 0)
		call_fail(c, PROTO_BUSY, "its send buffer is full: try again");
	else
		call_result(c, json_pack("{s:o, s:o}", "id", proto_number(wanted(c)), "bytes",
					 proto_number(c->req.urgent.ret_taken)));
}

void call_send_urgent(struct call *c)
{
	const char *text = proto_param_text(c->params, "text", "");
	const size_t len = strlen(text);

	if (len > WORKER_URGENT_MAX) {
		call_fail(c, PROTO_INVALID_PARAMS, "text: 1 to %d octets, not %zu",
			  WORKER_URGENT_MAX, len);
		return;
	}
	c->req.urgent.serial = wanted(c);
	c->req.urgent.len = (uint32_t)len;
	memcpy(c->req.urgent.text, text, len);
	call_ask(c, WORKER_SEND_URGENT, on_sent, CALL_LIMIT_US);
}
