/* SPDX-License-Identifier: Apache-2.0 */
/* set.tcp, show.tcp: the keys of [Tcp], of the daemon, a listener or a connection. What is set lasts until
 * it is set again; a reload puts the file's values back, but for connections and what `listen` opened.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "config/tcp.h"
#include "control/call.h"
#include "control/internal.h"
#include "control/row.h"

static uint64_t wanted(const struct call *c)
{
	return proto_param_number(c->params, "connection", 0);
}

static bool of_connection(const struct call *c)
{
	return json_object_get(c->params, "connection") != NULL;
}

static bool of_listener(const struct call *c)
{
	return json_object_get(c->params, "listener") != NULL;
}

static void no_such_connection(struct call *c)
{
	call_fail(c, PROTO_NOT_FOUND, "connection %" PRIu64 ": there is none", wanted(c));
}

/* false: answered. */
static bool one_place(struct call *c)
{
	if (!of_connection(c) || !of_listener(c))
		return true;
	call_fail(c, PROTO_INVALID_PARAMS, "listener, connection: only one of them");
	return false;
}

/* NULL: answered. */
static const struct listener *listener_param(struct call *c)
{
	const char *text = proto_param_text(c->params, "listener", "");
	const struct listener *l;

	if (endpoint_parse(text, false, &c->endpoint)) {
		call_fail(c, PROTO_INVALID_PARAMS,
			  "listener: %s: expected ADDR:PORT or [ADDR]:PORT", text);
		return NULL;
	}
	l = served_find(c->control->cfg.listeners, &c->endpoint);
	if (!l)
		call_fail(c, PROTO_NOT_FOUND, "%s: no listener has this address", text);
	return l;
}

/* ---- set.tcp ---- */

/* "tcp.DSCP", or "DSCP". NULL: answered. */
static const struct key *key_param(struct call *c)
{
	const char *text = proto_param_text(c->params, "key", "");
	const struct key *k;
	struct errmsg err;

	if (!strncmp(text, "tcp.", 4) || !strncmp(text, "Tcp.", 4))
		text += 4;
	k = config_tcp_key(text, &err);
	if (!k)
		call_fail(c, PROTO_INVALID_PARAMS, "key: %s", err.text);
	return k;
}

/* The answer, ready for when everybody has taken the value. */
static void prepare(struct call *c, const struct tcp_params *was, const struct tcp_params *is,
		    bool until_reload)
{
	char before[KEY_TEXT_MAX], after[KEY_TEXT_MAX];

	c->rows = json_pack("{s:s, s:s, s:s, s:b}", "key", c->key->name, "value",
			    key_format(c->key, is, after), "was", key_format(c->key, was, before),
			    "until_reload", (int)until_reload);
}

static void finish(struct call *c)
{
	json_t *result = c->rows;

	c->rows = NULL;
	/* Programs set options of their connections by the thousand. */
	log_write(json_object_get(result, "connection") ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO,
		  "set tcp.%s=%s (was %s), for %s", proto_param_text(result, "key", "?"),
		  proto_param_text(result, "value", "?"), proto_param_text(result, "was", "?"),
		  proto_param_text(result, "for", "the daemon"));
	(void)json_object_del(result, "for");
	call_result(c, result);
}

static void settled(struct call *c)
{
	if (--c->pending == 0 && !c->answered)
		finish(c);
	call_unref(c);
}

static void on_taken(void *arg, int rc, const struct errmsg *err)
{
	struct call *c = arg;

	if (rc < 0 && rc != -ENOENT) /* -ENOENT: it is being closed */
		call_fail_rc(c, rc, err);
	settled(c);
}

static void give(struct call *c, uint64_t id, const struct config_listener *spec)
{
	struct errmsg err;
	int rc;

	call_ref(c);
	c->pending++;
	rc = served_set_params(c->control->cfg.listeners, id, spec, on_taken, c, &err);
	if (rc < 0)
		on_taken(c, rc, &err);
}

/* What comes to no listener goes by [Tcp] itself. */
static void give_unserved(struct call *c, const struct tcp_params *params)
{
	struct errmsg err;
	int rc;

	call_ref(c);
	c->pending++;
	rc = served_set_unserved(c->control->cfg.listeners, params, on_taken, c, &err);
	if (rc < 0)
		on_taken(c, rc, &err);
}

static bool follows(const struct call *c, const struct listener *l)
{
	return l->state != LISTENER_DRAINING && l->spec.tcp_from[c->key - keys] == FROM_DAEMON;
}

/* Does it go with what the listeners that follow have for themselves? false: answered. */
static bool suits_listeners(struct call *c, const struct tcp_params *params)
{
	const struct served *const ls = c->control->cfg.listeners;
	const struct listener *l;

	for (size_t i = 0; (l = served_nth(ls, i)) != NULL; i++) {
		struct tcp_params its = l->spec.tcp;
		const char *wrong;

		if (!follows(c, l))
			continue;
		config_tcp_copy(c->key, &its, params);
		wrong = tcp_params_wrong(&its);
		if (!wrong)
			continue;
		call_fail(c, PROTO_REFUSED, "listener %s, which follows: %s", l->spec.name, wrong);
		return false;
	}
	return true;
}

static int value_param(struct call *c, struct tcp_params *params)
{
	struct errmsg err;
	const int rc = config_tcp_set(params, c->key, proto_param_text(c->params, "value", ""),
				      &err);

	if (rc)
		call_fail(c, PROTO_INVALID_PARAMS, "value: %s", err.text);
	return rc;
}

static void set_daemon(struct call *c)
{
	struct served *const ls = c->control->cfg.listeners;
	struct config *const config = c->control->cfg.config;
	struct tcp_params params = config->tcp;
	const struct listener *l;
	int own = 0;

	if (value_param(c, &params) || !suits_listeners(c, &params))
		return;
	prepare(c, &config->tcp, &params, true);
	config->tcp = params;
	config_tcp_note(config, c->key);
	call_ref(c);
	c->pending = 1;
	give_unserved(c, &params);
	for (size_t i = 0; (l = served_nth(ls, i)) != NULL; i++) {
		struct config_listener spec = l->spec;

		own += l->state != LISTENER_DRAINING && !follows(c, l);
		if (!follows(c, l))
			continue;
		config_tcp_copy(c->key, &spec.tcp, &params);
		give(c, l->id, &spec);
	}
	(void)json_object_set_new(c->rows, "own", json_integer(own));
	settled(c);
}

/* Programs may share an address: then for all of them. */
static void set_sharers(struct call *c, const struct listener *first,
			const struct config_listener *of_first)
{
	struct served *const ls = c->control->cfg.listeners;
	const struct listener *l;

	for (size_t i = 0; (l = served_nth(ls, i)) != NULL; i++) {
		struct config_listener spec = l->spec;

		if (l == first || l->state == LISTENER_DRAINING ||
		    !endpoint_eq(&l->spec.address, &first->spec.address))
			continue;
		config_tcp_copy(c->key, &spec.tcp, &of_first->tcp);
		spec.tcp_from[c->key - keys] = FROM_SET;
		give(c, l->id, &spec);
	}
}

static void set_listener(struct call *c)
{
	const struct listener *const l = listener_param(c);
	struct config_listener spec;

	if (!l)
		return;
	spec = l->spec;
	if (value_param(c, &spec.tcp))
		return;
	prepare(c, &l->spec.tcp, &spec.tcp, l->configured);
	(void)json_object_set_new(c->rows, "listener",
				  json_string(proto_param_text(c->params, "listener", "")));
	(void)json_object_set_new(c->rows, "for", json_sprintf("listener %s", spec.name));
	spec.tcp_from[c->key - keys] = FROM_SET;
	call_ref(c);
	c->pending = 1;
	set_sharers(c, l, &spec);
	give(c, l->id, &spec);
	settled(c);
}

static void on_connection_set(struct call *c)
{
	struct tcp_params now = c->req.set_connection.ret_before;

	if (c->req.rc == -ENOENT) {
		no_such_connection(c);
		return;
	}
	if (c->req.rc) {
		call_fail_rc(c, c->req.rc, &c->req.err);
		return;
	}
	tcp_params_patch(&now, &c->req.set_connection.patch);
	prepare(c, &c->req.set_connection.ret_before, &now, false);
	(void)json_object_set_new(c->rows, "connection", proto_number(wanted(c)));
	(void)json_object_set_new(c->rows, "for", json_sprintf("connection %" PRIu64, wanted(c)));
	finish(c);
}

static void set_connection(struct call *c)
{
	struct tcp_params params = c->control->cfg.config->tcp;
	struct errmsg err;

	if (c->key->opening) {
		call_fail(c, PROTO_REFUSED,
			  "tcp.%s is settled when a connection opens and cannot change in one that "
			  "runs; set it for the daemon or a listener",
			  c->key->name);
		return;
	}
	/* Only the value is checked here: what it must go with is the connection's. */
	if (config_set_tcp(&params, c->key->name, proto_param_text(c->params, "value", ""), &err)) {
		call_fail(c, PROTO_INVALID_PARAMS, "value: %s", err.text);
		return;
	}
	c->req.set_connection.serial = wanted(c);
	c->req.set_connection.patch = config_tcp_patch(c->key, &params);
	call_ask(c, WORKER_SET_CONNECTION, on_connection_set, CALL_LIMIT_US);
}

void call_set_tcp(struct call *c)
{
	c->key = key_param(c);
	if (!c->key || !one_place(c))
		return;
	if (of_connection(c))
		set_connection(c);
	else if (of_listener(c))
		set_listener(c);
	else
		set_daemon(c);
}

/* ---- show.tcp ---- */

static json_t *row(const struct key *k, const struct tcp_params *params, const char *whose,
		   const char *from)
{
	char value[KEY_TEXT_MAX], expected[KEY_EXPECTED];

	return json_pack("{s:s, s:s, s:s, s:s?, s:b, s:s, s:s}", "key", k->name, "value",
			 key_format(k, params, value), "whose", whose, "from", from, "running",
			 (int)!k->opening, "expected", key_expected(k, expected), "help", k->help);
}

/* Whose value a new connection would get, of this listener (NULL: of the daemon's own). */
static json_t *row_of(const struct config *config, const struct listener *l, const struct key *k)
{
	const bool own = l && l->spec.tcp_from[k - keys] != FROM_DAEMON;
	char where[CONFIG_WHERE];

	return row(k, l ? &l->spec.tcp : &config->tcp, own ? "listener" : "daemon",
		   config_tcp_where(config, own ? &l->spec : NULL, k, where));
}

/* params: of a connection; NULL: of what new ones get. */
static void answer_rows(struct call *c, const struct listener *l, const struct tcp_params *params)
{
	const struct config *const config = c->control->cfg.config;
	const struct tcp_params *const base = l ? &l->spec.tcp : &config->tcp;
	json_t *const rows = json_array();
	json_t *result;

	for (size_t i = 0; i < KEYS_N; i++) {
		const struct key *const k = &keys[i];

		if (k->section != SECTION_TCP)
			continue;
		if (params && !config_tcp_key_eq(k, params, base))
			(void)json_array_append_new(rows, row(k, params, "connection", NULL));
		else
			(void)json_array_append_new(rows, row_of(config, l, k));
	}
	result = json_pack("{s:o}", "tcp", rows);
	if (of_listener(c))
		(void)json_object_set(result, "listener", json_object_get(c->params, "listener"));
	if (of_connection(c))
		(void)json_object_set_new(result, "connection", proto_number(wanted(c)));
	call_result(c, result);
}

static void on_connection(struct call *c)
{
	const uint64_t listener = c->req.connection.ret_listener;

	if (c->req.rc == -ENOENT)
		no_such_connection(c);
	else if (c->req.rc)
		call_fail_rc(c, c->req.rc, &c->req.err);
	else
		answer_rows(c, served_by_id(c->control->cfg.listeners, listener),
			    &c->req.connection.ret_params);
}

void call_show_tcp(struct call *c)
{
	const struct listener *l;

	if (!one_place(c))
		return;
	if (of_connection(c)) {
		c->req.connection.serial = wanted(c);
		call_ask(c, WORKER_CONNECTION, on_connection, CALL_LIMIT_US);
		return;
	}
	l = of_listener(c) ? listener_param(c) : NULL;
	if (l || !of_listener(c))
		answer_rows(c, l, NULL);
}
