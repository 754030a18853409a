/* SPDX-License-Identifier: Apache-2.0 */
/* list.connections, list.listeners, list.services, list.rules. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "control/call.h"
#include "control/internal.h"
#include "control/row.h"
#include "service/service.h"

enum {
	ROWS_MAX = 1000, /* of one answer */
	PAGE = 1024, /* asked of the worker at a time */
	RULES_FRESH_US = 250 * 1000, /* iptables-save is a child: not one for each question */
};

/* ---- list.connections ---- */

static void answer_connections(struct call *c, const char *next)
{
	const bool whole = !next && !proto_param_text(c->params, "after", NULL);
	json_t *rows = c->rows;
	json_t *total = whole ? proto_number(json_array_size(rows)) : json_null();

	c->rows = NULL;
	call_result(c, json_pack("{s:o, s:o, s:o}", "connections", rows, "next",
				 next ? json_string(next) : json_null(), "total", total));
}

static bool row_wanted(const struct call *c, const struct row *row)
{
	return !c->filter || row_matches(row, c->filter);
}

static void on_page(struct call *c);

static void ask_page(struct call *c, uint32_t cursor)
{
	call_clear(c);
	c->req.connections.cursor = cursor;
	c->req.connections.max = PAGE;
	call_ask(c, WORKER_CONNECTIONS, on_page, CALL_LIMIT_US);
}

/* The list is full behind this row: the worker's cursor counts slots, as engine_next_conn()'s does. */
static void answer_up_to(struct call *c, const struct worker_conn *last)
{
	char next[16];

	(void)snprintf(next, sizeof(next), "%" PRIu32, last->tcp.id.slot + 1);
	answer_connections(c, next);
}

static void on_page(struct call *c)
{
	const uint32_t cursor = c->req.connections.ret_cursor;
	const struct worker_conn *list = c->req.connections.ret_list;
	const size_t n = c->req.connections.ret_n;

	if (c->req.rc < 0) {
		call_fail_rc(c, c->req.rc, &c->req.err);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		const struct row row = { .live = &list[i] };

		if (!row_wanted(c, &row))
			continue;
		(void)json_array_append_new(c->rows, row_json(&row, false));
		if (json_array_size(c->rows) < c->limit_rows)
			continue;
		if (i + 1 < n || cursor)
			answer_up_to(c, &list[i]);
		else
			answer_connections(c, NULL);
		return;
	}
	if (cursor)
		ask_page(c, cursor);
	else
		answer_connections(c, NULL);
}

/* On the record's reader thread. The filter is constant while the question is under way. */
static bool kept_row_wanted(void *arg, const struct record_connection *kept)
{
	const struct call *c = arg;
	const struct row row = { .kept = kept };

	return row_wanted(c, &row);
}

static void on_closed_rows(struct call *c)
{
	const struct record_query *q = &c->query;
	char next[24];

	if (q->rc < 0) {
		call_fail(c, PROTO_NO_RECORD, "%s", q->err.text);
		return;
	}
	for (size_t i = 0; i < q->rows_n; i++) {
		const struct row row = { .kept = &q->connections[i] };

		(void)json_array_append_new(c->rows, row_json(&row, false));
	}
	if (q->more && q->rows_n) {
		(void)snprintf(next, sizeof(next), "%" PRIu64, q->connections[q->rows_n - 1].id);
		answer_connections(c, next);
	} else {
		answer_connections(c, NULL);
	}
}

/* `after` is opaque to clients; to us it is a decimal number. */
static int parse_after(struct call *c, uint64_t max, uint64_t *ret_after)
{
	const char *text = proto_param_text(c->params, "after", NULL);
	char *end;
	uint64_t v;

	*ret_after = 0;
	if (!text)
		return 0;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || v > max || v == 0)
		return -EINVAL;
	*ret_after = v;
	return 0;
}

void call_list_connections(struct call *c)
{
	const char *filter = proto_param_text(c->params, "filter", NULL);
	const bool closed = proto_param_true(c->params, "closed");
	const uint64_t limit = proto_param_number(c->params, "limit", ROWS_MAX);
	struct proto_err err;
	uint64_t after;

	if (limit < 1 || limit > ROWS_MAX) {
		call_fail(c, PROTO_INVALID_PARAMS, "limit: 1 to %d, not %" PRIu64, ROWS_MAX, limit);
		return;
	}
	if (parse_after(c, closed ? PROTO_NUMBER_MAX : UINT32_MAX, &after) < 0) {
		call_fail(c, PROTO_INVALID_PARAMS, "after: not what an answer's `next` was");
		return;
	}
	if (filter && filter_parse(filter, &c->filter, &err) < 0) {
		call_fail(c, err.code, "%s", err.text);
		return;
	}
	c->limit_rows = limit;
	c->rows = json_array();
	if (closed) {
		c->query.before_id = after;
		c->query.limit = (uint32_t)limit;
		c->query.match = c->filter ? kept_row_wanted : NULL;
		call_query(c, on_closed_rows);
	} else {
		ask_page(c, (uint32_t)after);
	}
}

/* ---- list.listeners ---- */

static json_t *backends_json(const struct worker_listener *l)
{
	json_t *rows = json_array();

	for (size_t i = 0; i < l->backends_n; i++) {
		const struct service_backend *b = &l->backends[i];

		(void)json_array_append_new(
			rows,
			json_pack("{s:s, s:o, s:o, s:o, s:b}", "backend", b->text, "connections",
				  proto_number(b->active), "connected", proto_number(b->connected),
				  "failed", proto_number(b->failed), "down", (int)b->down));
	}
	return rows;
}

static json_t *listener_json(const struct worker_listener *l)
{
	char address[ENDPOINT_TEXT];

	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:b, s:o}", "address",
			 endpoint_format(&l->tcp.local, address), "name", l->name, "service",
			 l->service, "backlog", proto_number(l->tcp.backlog), "syn_received",
			 proto_number(l->tcp.syn_received), "connections",
			 proto_number(l->tcp.live), "accepted", proto_number(l->tcp.accepted),
			 "refused", proto_number(l->tcp.refused), "draining", (int)l->draining,
			 "backends", backends_json(l));
}

static void on_listeners(struct call *c)
{
	json_t *rows = json_array();

	if (c->req.rc < 0) {
		json_decref(rows);
		call_fail_rc(c, c->req.rc, &c->req.err);
		return;
	}
	for (size_t i = 0; i < c->req.listeners.ret_n; i++)
		(void)json_array_append_new(rows, listener_json(&c->req.listeners.ret_list[i]));
	call_result(c, json_pack("{s:o}", "listeners", rows));
}

void call_list_listeners(struct call *c)
{
	call_ask(c, WORKER_LISTENERS, on_listeners, CALL_LIMIT_US);
}

/* ---- list.services ---- */

void call_list_services(struct call *c)
{
	json_t *rows = json_array();
	const struct service_ops *ops;

	for (size_t i = 0; (ops = service_nth(i)) != NULL; i++)
		(void)json_array_append_new(rows, json_pack("{s:s, s:s?, s:s}", "name", ops->name,
							    "argument", ops->argument, "help",
							    ops->help));
	call_result(c, json_pack("{s:o}", "services", rows));
}

/* ---- list.rules ---- */

static json_t *rule_json(const struct shield_stat *s)
{
	char address[ADDR_TEXT];

	return json_pack("{s:s, s:s, s:i, s:i, s:o, s:o, s:o}", "family", s->ipv6 ? "ipv6" : "ipv4",
			 "address", addr_format(&s->rule.addr, address), "port_min",
			 (int)s->rule.port_min, "port_max", (int)s->rule.port_max, "packets",
			 proto_number(s->packets), "bytes", proto_number(s->bytes), "early",
			 proto_number(s->early));
}

/* What is beside the rules, read now: it may have changed without them. */
static json_t *shield_json(const struct control *control)
{
	struct shield_early early;
	json_t *o, *devices;

	shield_early(control->cfg.shield, &early);
	o = json_pack("{s:O, s:s}", "rules", control->rules, "shield",
		      early.name ? early.name : "iptables");
	if (!early.name)
		return o;
	devices = json_array();
	for (size_t i = 0; i < early.devices_n; i++)
		(void)json_array_append_new(devices, json_string(early.devices[i]));
	(void)json_object_set_new(o, "devices", devices);
	(void)json_object_set_new(o, "trouble",
				  early.trouble ? json_string(early.trouble) : json_null());
	return o;
}

static int rules_read(struct control *control, struct errmsg *ret_err)
{
	struct shield_stat *stats;
	json_t *rows;
	size_t n;
	int rc;

	rc = shield_list(control->cfg.shield, &stats, &n, ret_err);
	if (rc < 0)
		return rc;
	rows = json_array();
	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(rows, rule_json(&stats[i]));
	free(stats);
	json_decref(control->rules);
	control->rules = rows;
	control->rules_at_us = clock_monotonic_us();
	control->rules_generation = served_generation(control->cfg.listeners);
	return 0;
}

static bool rules_fresh(const struct control *control)
{
	return control->rules &&
	       control->rules_generation == served_generation(control->cfg.listeners) &&
	       clock_monotonic_us() < control->rules_at_us + RULES_FRESH_US;
}

void call_list_rules(struct call *c)
{
	struct control *control = c->control;
	struct errmsg err;

	if (!control->cfg.shield) {
		call_result(c, json_pack("{s:[], s:s}", "rules", "shield", "none"));
		return;
	}
	if (!rules_fresh(control) && rules_read(control, &err) < 0) {
		call_fail(c, PROTO_REFUSED, "%s", err.text);
		return;
	}
	call_result(c, shield_json(control));
}
