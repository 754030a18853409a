/* SPDX-License-Identifier: Apache-2.0 */
/* listen, unlisten, connect. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/end_name.h"
#include "base/log.h"
#include "config/listener.h"
#include "config/tcp.h"
#include "control/call.h"
#include "control/held.h"
#include "control/internal.h"

enum { SKIP_MAX = 16 << 20 };

/* A parameter that proto has checked to be an endpoint: what it takes and we do not is told here. */
static int endpoint_param(struct call *c, const char *name, bool zero_ok,
			  struct endpoint *ret_endpoint)
{
	const char *text = proto_param_text(c->params, name, "");

	if (endpoint_parse(text, zero_ok, ret_endpoint) == 0)
		return 0;
	call_fail(c, PROTO_INVALID_PARAMS, "%s: %s: expected ADDR:PORT or [ADDR]:PORT", name, text);
	return -EINVAL;
}

/* Whose port is it? As the kernel has it, by who asks. */
static int port_right(struct call *c, uint16_t port)
{
	const uint32_t start = c->control->cfg.config->unprivileged_port_start;
	const struct client *const client = c->exchange ? c->exchange->client : NULL;

	if (!port || port >= start || (client && client->level == LEVEL_ADMIN))
		return 0;
	call_fail(c, PROTO_PERMISSION_DENIED,
		  "port %u: below UnprivilegedPortStart (%" PRIu32
		  "), only uid 0 or the daemon's own user may have it",
		  port, start);
	return -EACCES;
}

/* [Tcp] with the keys of `tcp` over it. ret_from: whose each is, see config_listener; NULL: not asked. */
static int tcp_param(struct call *c, struct tcp_params *ret_params, uint8_t *ret_from)
{
	struct tcp_params params = c->control->cfg.config->tcp;
	json_t *options = json_object_get(c->params, "tcp");
	const char *key, *wrong;
	json_t *value;
	struct errmsg err;

	json_object_foreach(options, key, value)
	{
		if (config_set_tcp(&params, key, json_string_value(value), &err) < 0) {
			call_fail(c, PROTO_INVALID_PARAMS, "tcp: %s", err.text);
			return -EINVAL;
		}
		if (ret_from)
			ret_from[key_find(SECTION_TCP, key) - keys] = FROM_LISTEN;
	}
	wrong = tcp_params_wrong(&params);
	if (wrong) {
		call_fail(c, PROTO_INVALID_PARAMS, "tcp: %s", wrong);
		return -EINVAL;
	}
	*ret_params = params;
	return 0;
}

/* The keys of `listener`. */
static int listener_param(struct call *c, struct config_listener *spec)
{
	json_t *const options = json_object_get(c->params, "listener");
	const char *key;
	json_t *value;
	struct errmsg err;

	json_object_foreach(options, key, value)
	{
		if (config_set_listener(spec, key, json_string_value(value), &err) < 0) {
			call_fail(c, PROTO_INVALID_PARAMS, "listener: %s", err.text);
			return -EINVAL;
		}
	}
	return 0;
}

static int number_param(struct call *c, const char *name, uint32_t min, uint32_t absent,
			uint32_t *ret_number)
{
	const uint64_t v = proto_param_number(c->params, name, absent);

	if (v < min || v > UINT32_MAX) {
		call_fail(c, PROTO_INVALID_PARAMS, "%s: %" PRIu32 " to %" PRIu32 ", not %" PRIu64,
			  name, min, UINT32_MAX, v);
		return -EINVAL;
	}
	*ret_number = (uint32_t)v;
	return 0;
}

static int text_param(struct call *c, const char *name, const char *absent, char *buf, size_t size)
{
	const char *text = proto_param_text(c->params, name, absent);

	if (strlen(text) >= size) {
		call_fail(c, PROTO_INVALID_PARAMS, "%s: at most %zu octets", name, size - 1);
		return -EINVAL;
	}
	for (const char *p = text; *p; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f) {
			call_fail(c, PROTO_INVALID_PARAMS, "%s: control characters are not allowed",
				  name);
			return -EINVAL;
		}
	}
	memcpy(buf, text, strlen(text) + 1);
	return 0;
}

/* ---- listen ---- */

static int listen_params(struct call *c, struct config_listener *spec)
{
	char address[ENDPOINT_TEXT];

	if (endpoint_param(c, "address", false, &spec->address) < 0 ||
	    port_right(c, spec->address.port) < 0 ||
	    text_param(c, "service", "", spec->service, sizeof(spec->service)) < 0 ||
	    text_param(c, "name", endpoint_format(&spec->address, address), spec->name,
		       sizeof(spec->name)) < 0 ||
	    listener_param(c, spec) < 0 ||
	    number_param(c, "max_processes", 1, spec->max_processes, &spec->max_processes) < 0 ||
	    number_param(c, "max_connections", 0, spec->max_connections, &spec->max_connections) <
		    0 ||
	    number_param(c, "backlog", 1, spec->backlog, &spec->backlog) < 0 ||
	    tcp_param(c, &spec->tcp, spec->tcp_from) < 0)
		return -EINVAL;
	return 0;
}

static void answer_listener(struct call *c)
{
	char address[ENDPOINT_TEXT];

	call_result(c, json_pack("{s:s, s:s}", "address", endpoint_format(&c->endpoint, address),
				 "name", c->name));
}

static void on_listening(void *arg, int rc, const struct errmsg *err)
{
	struct call *c = arg;
	char address[ENDPOINT_TEXT];

	if (rc == 0) {
		log_info("listener %s: serving %s", c->name,
			 endpoint_format(&c->endpoint, address));
		answer_listener(c);
	} else {
		call_fail_rc(c, rc, err);
	}
	call_unref(c);
}

void call_listen(struct call *c)
{
	struct config_listener spec;
	struct errmsg err;
	int rc;

	config_listener_default(&spec, &c->control->cfg.config->tcp);
	if (listen_params(c, &spec) < 0)
		return;
	c->endpoint = spec.address;
	memcpy(c->name, spec.name, sizeof(c->name));
	call_ref(c);
	rc = served_open(c->control->cfg.listeners, &spec, false, on_listening, c, &err);
	if (rc < 0)
		on_listening(c, rc, &err);
}

/* ---- listen.stream ---- */

/* The descriptor that came with the request, if it is what can carry octets. -1: answered. */
static int passed_fd(struct call *c)
{
	const int fd = c->exchange && !c->in_batch ? client_take_fd(c->exchange->client) : -1;
	socklen_t len = sizeof(int);
	int domain = 0, type = 0;

	if (fd < 0) {
		call_fail(c, PROTO_INVALID_PARAMS,
			  "no descriptor came with the request (SCM_RIGHTS), or it is in a batch");
		return -1;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX &&
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM &&
	    fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
		return fd;
	(void)close(fd);
	call_fail(c, PROTO_INVALID_PARAMS, "the descriptor is no UNIX stream socket");
	return -1;
}

static void on_listening_stream(void *arg, int rc, const struct errmsg *err)
{
	struct call *c = arg;
	char address[ENDPOINT_TEXT];

	if (rc == 0) {
		log_info("listener %s: serving %s by a program", c->name,
			 endpoint_format(&c->endpoint, address));
		held_watch(c->held, c->listener);
		answer_listener(c);
	} else {
		held_refuse(c->held, -rc);
		call_fail_rc(c, rc, err);
	}
	c->held = NULL;
	call_unref(c);
}

static int listen_stream_params(struct call *c, struct config_listener *spec)
{
	char address[ENDPOINT_TEXT];

	if (endpoint_param(c, "address", false, &spec->address) < 0 ||
	    port_right(c, spec->address.port) < 0 ||
	    text_param(c, "name", endpoint_format(&spec->address, address), spec->name,
		       sizeof(spec->name)) < 0 ||
	    number_param(c, "backlog", 1, spec->backlog, &spec->backlog) < 0 ||
	    tcp_param(c, &spec->tcp, spec->tcp_from) < 0)
		return -EINVAL;
	(void)snprintf(spec->service, sizeof(spec->service), "stream");
	return 0;
}

static void check_stream(struct call *c, const struct served_program *p)
{
	struct errmsg err;
	const int rc = served_check_program(c->control->cfg.listeners, &c->endpoint, p, &err);

	if (rc)
		call_fail_rc(c, rc, &err);
	else
		answer_listener(c);
}

void call_listen_stream(struct call *c)
{
	struct config_listener spec;
	struct served *ls = c->control->cfg.listeners;
	struct served_program p = { .reuse_port = proto_param_true(c->params, "reuse_port"),
				    .defer_us = proto_param_number(c->params, "defer", 0) };
	const bool check = proto_param_true(c->params, "check");
	const int fd = check ? -1 : passed_fd(c);
	struct errmsg err;
	int rc;

	if (fd < 0 && !check)
		return;
	p.fd = fd;
	p.uid = c->exchange ? c->exchange->client->uid : (uid_t)-1;
	config_listener_default(&spec, &c->control->cfg.config->tcp);
	if (listen_stream_params(c, &spec) < 0) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	c->endpoint = spec.address;
	memcpy(c->name, spec.name, sizeof(c->name));
	if (check) {
		check_stream(c, &p);
		return;
	}
	c->held = held_new(&c->control->held, c->control->cfg.base, ls, fd);
	if (!c->held) {
		(void)close(fd);
		call_fail(c, PROTO_INTERNAL_ERROR, "no memory");
		return;
	}
	call_ref(c);
	rc = served_open_stream(ls, &spec, &p, on_listening_stream, c, &c->listener, &err);
	if (rc < 0)
		on_listening_stream(c, rc, &err);
}

/* ---- unlisten ---- */

/* Programs may share an address: of several answers, the last is the call's. */
static void on_unlistened(void *arg, int rc, const struct errmsg *err)
{
	struct call *c = arg;
	char address[ENDPOINT_TEXT];

	c->pending--;
	if (rc < 0) {
		call_fail_rc(c, rc, err);
	} else if (!c->pending && !c->answered) {
		log_info("listener %s: %s is served no more", c->name,
			 endpoint_format(&c->endpoint, address));
		answer_listener(c);
	}
	call_unref(c);
}

void call_unlisten(struct call *c)
{
	struct served *ls = c->control->cfg.listeners;
	const struct listener *l;
	struct errmsg err;
	int rc;

	if (endpoint_param(c, "address", false, &c->endpoint) < 0)
		return;
	do {
		l = served_find(ls, &c->endpoint);
		if (l)
			memcpy(c->name, l->spec.name, sizeof(c->name));
		call_ref(c);
		c->pending++;
		rc = served_close(ls, &c->endpoint, on_unlistened, c, &err);
		if (rc < 0)
			on_unlistened(c, rc, &err);
	} while (rc == 0 && served_find(ls, &c->endpoint));
}

/* ---- connect ---- */

static void on_connected(struct call *c)
{
	char local[ENDPOINT_TEXT], remote[ENDPOINT_TEXT];
	const struct flow *flow = &c->req.connect.ret_flow;

	if (c->req.rc < 0) {
		call_fail_rc(c, c->req.rc, &c->req.err);
		return;
	}
	c->answer_fd = c->stream_fd;
	c->stream_fd = -1;
	call_result(c, json_pack("{s:o, s:s, s:s}", "id", proto_number(c->req.connect.ret_serial),
				 "local", endpoint_format(&flow->local, local), "remote",
				 endpoint_format(&flow->remote, remote)));
}

static int source_param(struct call *c, struct endpoint *ret_source)
{
	struct endpoint source = { .addr = addr_any };

	if (proto_param_text(c->params, "source", NULL) &&
	    (endpoint_param(c, "source", true, &source) < 0 || port_right(c, source.port) < 0))
		return -EINVAL;
	*ret_source = source;
	return 0;
}

/* A segment from a port without a rule would have its answer reset by the kernel. */
static int take_source(struct call *c)
{
	struct endpoint source = c->req.connect.local;
	struct errmsg err;
	int rc;

	if (!source.port)
		return 0;
	if (addr_is_any(&source.addr))
		source.addr = addr_is_v4(&c->req.connect.remote.addr) ? addr_any4 : addr_any6;
	rc = served_source_take(c->control->cfg.listeners, &source, &c->source, &err);
	if (rc)
		call_fail(c, PROTO_REFUSED, "source: %s", err.text);
	return rc;
}

static int scope_param(struct call *c, const struct endpoint *remote, uint32_t *ret_scope)
{
	const char *name = proto_param_text(c->params, "scope", NULL);

	*ret_scope = 0;
	if (!addr_is_link_local6(&remote->addr)) {
		if (!name)
			return 0;
		call_fail(c, PROTO_INVALID_PARAMS, "scope: only for a link-local address");
		return -EINVAL;
	}
	if (!name) {
		call_fail(c, PROTO_INVALID_PARAMS,
			  "scope: missing; a link-local address needs its interface");
		return -EINVAL;
	}
	*ret_scope = if_nametoindex(name);
	if (*ret_scope)
		return 0;
	call_fail(c, PROTO_INVALID_PARAMS, "scope: there is no interface %s", name);
	return -EINVAL;
}

/* Our end, nonblocking, is the worker's; the other is the client's, who may want it to block. */
static int stream_open(struct call *c, int *ret_fd)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0 ||
	    fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0) {
		call_fail(c, PROTO_INTERNAL_ERROR, "connect: socketpair: %s", strerror(errno));
		return -EMFILE;
	}
	*ret_fd = ends[0];
	c->stream_fd = ends[1];
	return 0;
}

/* The worker answers when SynTimeout is over; a little later at the latest we do. */
static uint64_t connect_limit_us(const struct tcp_params *params)
{
	return params->syn_timeout_us ? params->syn_timeout_us + CALL_LIMIT_US / 2 : 0;
}

/* passed: failure leaves the errno on the descriptor, where a program can read it at any time. */
static void connect_passed(struct call *c)
{
	const uint64_t skip = proto_param_number(c->params, "skip", 0);

	c->req.connect.early = true;
	c->req.connect.skip = (uint32_t)skip;
	c->req.connect.syn_text = (uint32_t)proto_param_number(c->params, "syn_text", 0);
	call_ask(c, WORKER_CONNECT, on_connected, CALL_LIMIT_US);
}

static void on_cookie(struct call *c)
{
	if (c->req.rc < 0)
		call_fail_rc(c, c->req.rc, &c->req.err);
	else
		call_result(c, json_pack("{s:b}", "cookie", (int)c->req.connect.ret_cookie));
}

void call_choose_port(struct call *c)
{
	const uint16_t port = served_choose_port(c->control->cfg.listeners);

	if (port)
		call_result(c, json_pack("{s:i}", "port", (int)port));
	else
		call_fail(c, PROTO_REFUSED, "no port of LocalPorts is left");
}

void call_connect(struct call *c)
{
	const bool passed = proto_param_true(c->params, "passed");
	const bool stream = !passed && proto_param_true(c->params, "stream");
	const int fd = passed ? passed_fd(c) : -1;
	int rc;

	if (passed && fd < 0)
		return;
	if (passed && proto_param_number(c->params, "skip", 0) > SKIP_MAX) {
		(void)close(fd);
		call_fail(c, PROTO_INVALID_PARAMS, "skip: at most %d", SKIP_MAX);
		return;
	}
	if (passed && proto_param_number(c->params, "syn_text", 0) > WORKER_SYN_TEXT_MAX) {
		(void)close(fd);
		call_fail(c, PROTO_INVALID_PARAMS, "syn_text: at most %d", WORKER_SYN_TEXT_MAX);
		return;
	}
	if (stream && (c->in_batch || (!c->id && !c->text))) {
		call_fail(c, PROTO_INVALID_PARAMS,
			  "stream: only in a request of its own, for its answer carries a "
			  "descriptor");
		return;
	}
	if (endpoint_param(c, "address", false, &c->req.connect.remote) < 0 ||
	    source_param(c, &c->req.connect.local) < 0 ||
	    scope_param(c, &c->req.connect.remote, &c->req.connect.scope) < 0 ||
	    tcp_param(c, &c->req.connect.params, NULL) < 0) {
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	if (proto_param_true(c->params, "ask_cookie")) {
		if (fd >= 0)
			(void)close(fd);
		c->req.connect.fd = -1;
		c->req.connect.ask_cookie = true;
		call_ask(c, WORKER_CONNECT, on_cookie, CALL_LIMIT_US);
		return;
	}
	rc = take_source(c);
	if (rc) {
		if (fd >= 0) {
			end_name_set(fd, -rc);
			(void)close(fd);
		}
		return;
	}
	c->req.connect.fd = fd;
	if (passed) {
		connect_passed(c);
		return;
	}
	if (stream && stream_open(c, &c->req.connect.fd) < 0)
		return;
	call_ask(c, WORKER_CONNECT, on_connected, connect_limit_us(&c->req.connect.params));
}
