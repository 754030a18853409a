/* SPDX-License-Identifier: Apache-2.0 */
#include "fakes.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/sockets.h"
#include "service/service.h"

struct fake fake;

static pthread_t reader;
static bool reader_runs;

void fake_record_wait(void)
{
	if (reader_runs)
		(void)pthread_join(reader, NULL);
	reader_runs = false;
}

void fake_reset(struct event_base *base)
{
	fake_record_wait();
	memset(&fake, 0, sizeof(fake));
	fake.base = base;
	fake.connect_fd = -1;
	fake.shield_fd = -1;
}

struct worker_conn fake_conn(uint64_t serial, uint16_t port, enum tcp_state state)
{
	struct worker_conn c = { .created_us = 1000 * serial, .timer_in_us = UINT64_MAX };

	c.tcp.id.slot = (uint32_t)serial - 1;
	c.tcp.serial = serial;
	c.tcp.state = state;
	c.tcp.passive = true;
	c.tcp.flow.local = (struct endpoint){ addr_v4(10, 0, 0, 2), port };
	c.tcp.flow.remote = (struct endpoint){ addr_v4(10, 0, 0, (uint8_t)serial), 40000 };
	c.tcp.bytes_in = 100 * serial;
	(void)strcpy(c.service, "echo");
	(void)strcpy(c.interface, "eth0");
	return c;
}

struct record_connection fake_row(uint64_t id, uint16_t port)
{
	struct record_connection r = {
		.id = id,
		.passive = true,
		.start_us = 1000,
		.end_us = 2000,
		.reason = END_RESET_BY_PEER,
		.closed_by = CLOSED_BY_REMOTE,
		.last_state = ST_ESTABLISHED,
		.pid = 77,
		.exit_status = -9,
		.run_us = 5,
	};

	r.flow.local = (struct endpoint){ addr_v4(10, 0, 0, 2), port };
	r.flow.remote = (struct endpoint){ addr_v4(10, 0, 0, 9), 50000 };
	(void)strcpy(r.service, "exec");
	return r;
}

/* ---- the worker ---- */

static void do_listen(struct worker_request *req)
{
	struct worker_listener *l;

	req->rc = fake.listen_rc;
	if (req->rc) {
		(void)errmsg(&req->err, req->rc, "the worker does not want it");
		return;
	}
	l = &fake.listeners[fake.listeners_n++];
	*l = (struct worker_listener){ .id = req->listen.id };
	l->tcp.local = req->listen.local;
	l->tcp.backlog = req->listen.backlog;
	(void)snprintf(l->name, sizeof(l->name), "%s", req->listen.name);
	(void)snprintf(l->service, sizeof(l->service), "%s", req->listen.service);
}

static void do_unlisten(struct worker_request *req)
{
	for (size_t i = 0; i < fake.listeners_n; i++) {
		if (fake.listeners[i].id != req->unlisten.id)
			continue;
		if (fake.drain)
			fake.listeners[i].draining = true;
		else
			fake.listeners[i] = fake.listeners[--fake.listeners_n];
		return;
	}
	req->rc = -ENOENT;
}

static void do_listeners(struct worker_request *req)
{
	req->listeners.ret_list = calloc(fake.listeners_n + 1, sizeof(*req->listeners.ret_list));
	memcpy(req->listeners.ret_list, fake.listeners,
	       fake.listeners_n * sizeof(*req->listeners.ret_list));
	req->listeners.ret_n = fake.listeners_n;
}

/* Slots are places in conns[], as in the engine. */
static void do_connections(struct worker_request *req)
{
	const size_t from = req->connections.cursor;
	size_t n = from < fake.conns_n ? fake.conns_n - from : 0;

	n = n > req->connections.max ? req->connections.max : n;
	req->connections.ret_list = calloc(n + 1, sizeof(*req->connections.ret_list));
	memcpy(req->connections.ret_list, &fake.conns[from], n * sizeof(fake.conns[0]));
	req->connections.ret_n = n;
	req->connections.ret_cursor = from + n < fake.conns_n ? (uint32_t)(from + n) : 0;
}

static void do_connection(struct worker_request *req)
{
	req->rc = -ENOENT;
	for (size_t i = 0; i < fake.conns_n; i++) {
		if (fake.conns[i].tcp.serial != req->connection.serial)
			continue;
		req->connection.ret_conn = fake.conns[i];
		req->connection.ret_params = fake.conn_params;
		req->connection.ret_listener = fake.listeners_n ? fake.listeners[0].id : 0;
		req->rc = 0;
	}
}

static void do_set_connection(struct worker_request *req)
{
	req->rc = fake.end_rc;
	req->set_connection.ret_before = fake.conn_params;
	tcp_params_patch(&fake.conn_params, &req->set_connection.patch);
}

static void do_connect(struct worker_request *req)
{
	req->rc = fake.connect_rc;
	if (req->rc) {
		if (req->connect.fd >= 0)
			(void)close(req->connect.fd);
		(void)errmsg(&req->err, req->rc, "the peer does not want it");
		return;
	}
	req->connect.ret_serial = 42;
	req->connect.ret_flow.remote = req->connect.remote;
	req->connect.ret_flow.local = (struct endpoint){ addr_v4(10, 0, 0, 2), 61000 };
	fake.connect_fd = req->connect.fd;
	if (fake.say && write(req->connect.fd, fake.say, strlen(fake.say)) < 0)
		req->rc = -EIO;
}

static void answer(struct worker_request *req)
{
	switch (req->ask) {
	case WORKER_LISTEN:
		do_listen(req);
		break;
	case WORKER_FORGET: /* only a crew asks for it */
		break;
	case WORKER_UNLISTEN:
		do_unlisten(req);
		break;
	case WORKER_LISTENERS:
		do_listeners(req);
		break;
	case WORKER_CONNECTIONS:
		do_connections(req);
		break;
	case WORKER_CONNECTION:
		do_connection(req);
		break;
	case WORKER_CONNECT:
		do_connect(req);
		break;
	case WORKER_CLOSE:
	case WORKER_RESET:
		req->rc = fake.end_rc;
		break;
	case WORKER_SET_PARAMS:
		if (!req->set_params.id) {
			fake.unserved = req->set_params.params;
			break;
		}
		fake.params_set++;
		if (fake.params_rc)
			req->rc = errmsg(&req->err, fake.params_rc, "no set is left");
		else
			fake.params = req->set_params.params;
		fake.params_rc = 0;
		break;
	case WORKER_SEND_URGENT:
		req->rc = fake.end_rc;
		req->urgent.ret_taken = fake.hold_urgent ? 0 : req->urgent.len;
		break;
	case WORKER_SET_CONNECTION:
		do_set_connection(req);
		break;
	case WORKER_STATUS:
		req->status.engine.conns = (uint32_t)fake.conns_n;
		req->status.verdicts[WIRE_BAD_TCP_CHECKSUM] = 3;
		break;
	case WORKER_STOP:
		break;
	}
	req->done(req);
}

void fake_answer(size_t i)
{
	struct worker_request *req = fake.asks[i];

	memmove(&fake.asks[i], &fake.asks[i + 1], (--fake.asks_n - i) * sizeof(fake.asks[0]));
	answer(req);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	while (!fake.hold && fake.asks_n)
		fake_answer(0);
}

int crew_ask(struct crew *c, struct worker_request *req)
{
	const struct timeval soon = { 0 };

	(void)c;
	if (fake.ask_rc)
		return fake.ask_rc;
	fake.asks[fake.asks_n++] = req;
	fake.asked++;
	return event_base_once(fake.base, -1, EV_TIMEOUT, on_turn, NULL, &soon);
}

int worker_check_service(const char *text, const struct service_options *options,
			 struct errmsg *ret_err)
{
	if (!strncmp(text, "exec:/", 6) || !strcmp(text, "echo"))
		return 0;
	return errmsg(ret_err, -EINVAL, "%s: no such service; echo or exec:PROGRAM", text);
}

static const struct service_ops echo = { .name = "echo", .help = "sends back what it gets" };
static const struct service_ops exec = { .name = "exec",
					 .argument = "PROGRAM",
					 .help = "a process" };

const struct service_ops *service_nth(size_t n)
{
	return n == 0 ? &echo : n == 1 ? &exec : NULL;
}

/* ---- the record ---- */

static void query_connections(struct record_query *q)
{
	q->connections = calloc(FAKE_ROWS_MAX, sizeof(*q->connections));
	for (size_t i = 0; i < fake.rows_n; i++) {
		const struct record_connection *r = &fake.rows[i];

		if ((q->id && r->id != q->id) || (q->before_id && r->id >= q->before_id) ||
		    (q->match && !q->match(q->arg, r)))
			continue;
		if (q->rows_n == q->limit) {
			q->more = true;
			break;
		}
		q->connections[q->rows_n++] = *r;
	}
}

static void query_transitions(struct record_query *q)
{
	q->transition_rows = calloc(16, sizeof(*q->transition_rows));
	for (size_t i = 0; i < fake.transitions_n; i++)
		if (fake.transitions[i].connection == q->id)
			q->transition_rows[q->rows_n++] = fake.transitions[i];
}

static void *reader_main(void *arg)
{
	struct record_query *q = arg;

	if (q->transitions)
		query_transitions(q);
	else
		query_connections(q);
	q->done(q);
	return NULL;
}

int record_query(struct record *r, struct record_query *q)
{
	(void)r;
	if (fake.query_rc)
		return fake.query_rc;
	fake_record_wait();
	reader_runs = pthread_create(&reader, NULL, reader_main, q) == 0;
	return reader_runs ? 0 : -EAGAIN;
}

void record_counters(struct record *r, struct record_counters *ret_counters)
{
	(void)r;
	*ret_counters = (struct record_counters){ .rows_written = 5 };
}

/* ---- the shield ---- */

int shield_apply(struct shield *s, const struct shield_rule *rules, size_t n,
		 struct errmsg *ret_err)
{
	(void)s;
	if (fake.apply_rc)
		return errmsg(ret_err, fake.apply_rc, "iptables does not want it");
	memcpy(fake.rules, rules, n * sizeof(*rules));
	fake.rules_n = n;
	fake.applied++;
	return 0;
}

int shield_list(struct shield *s, struct shield_stat **ret_stats, size_t *ret_n,
		struct errmsg *ret_err)
{
	(void)s;
	(void)ret_err;
	*ret_stats = calloc(fake.rules_n + 1, sizeof(**ret_stats));
	for (size_t i = 0; i < fake.rules_n; i++)
		(*ret_stats)[i] =
			(struct shield_stat){ .rule = fake.rules[i], .packets = 7, .early = 3 };
	*ret_n = fake.rules_n;
	return 0;
}

int shield_fd(const struct shield *s)
{
	(void)s;
	return fake.shield_fd;
}

void shield_update(struct shield *s)
{
	char octet;

	(void)s;
	fake.shield_updates += read(fake.shield_fd, &octet, 1) == 1;
}

void shield_early(const struct shield *s, struct shield_early *ret_early)
{
	(void)s;
	*ret_early = fake.early;
}

bool fake_has_rule(const char *address, uint16_t port)
{
	struct ipaddr addr;

	if (addr_parse(address, &addr))
		return false;
	for (size_t i = 0; i < fake.rules_n; i++)
		if (addr_eq(&fake.rules[i].addr, &addr) && fake.rules[i].port_min == port)
			return true;
	return false;
}

int sockets_check_free(const struct ipaddr *addr, uint16_t port_min, uint16_t port_max,
		       struct errmsg *ret_err)
{
	(void)addr;
	if (fake.kernel_port < port_min || fake.kernel_port > port_max)
		return 0;
	return errmsg(ret_err, -EADDRINUSE, "port %u is served by the kernel for nginx (pid 123)",
		      fake.kernel_port);
}

/* ---- the configuration ---- */

int config_load(const char *file, const char *const *overrides, size_t overrides_n,
		config_warn_fn *warn, void *warn_arg, struct config *ret_config,
		struct errmsg *ret_err)
{
	(void)file;
	(void)overrides;
	(void)overrides_n;
	if (fake.config_warning)
		warn(warn_arg, fake.config_warning);
	if (fake.config_rc)
		return errmsg(ret_err, fake.config_rc, "%s", fake.config_error);
	*ret_config = fake.config;
	ret_config->listeners = NULL;
	if (!fake.config.listeners_n)
		return 0;
	ret_config->listeners = calloc(fake.config.listeners_n, sizeof(struct config_listener));
	memcpy(ret_config->listeners, fake.config.listeners,
	       fake.config.listeners_n * sizeof(struct config_listener));
	return 0;
}

void config_fini(struct config *c)
{
	free(c->listeners);
	c->listeners = NULL;
}
