/* SPDX-License-Identifier: Apache-2.0 */
/* Results as text for people: columns of lists, the form of values, and whole answers. */
#include "proto/render.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/filter.h"

enum { COLUMNS_MAX = 64 };

#define LEFT(key, heading, format)                 \
	{                                          \
		key, heading, CELL_##format, false \
	}
#define RIGHT(key, heading, format)               \
	{                                         \
		key, heading, CELL_##format, true \
	}

static const struct proto_column open_columns[] = {
	RIGHT("id", "ID", PLAIN),
	LEFT("state", "State", STATE),
	RIGHT("recv_queue_bytes", "Recv-Q", PLAIN),
	RIGHT("send_queue_bytes", "Send-Q", PLAIN),
	LEFT("local", "Local", PLAIN),
	LEFT("remote", "Peer", PLAIN),
	LEFT("service", "Service", PLAIN),
	RIGHT("bytes_in", "In", BYTES),
	RIGHT("bytes_out", "Out", BYTES),
	RIGHT("retransmitted_segments", "Retrans", PLAIN),
	RIGHT("rtt_us", "RTT", TIME),
};

static const struct proto_column closed_columns[] = {
	RIGHT("id", "ID", PLAIN),
	LEFT("local", "Local", PLAIN),
	LEFT("remote", "Peer", PLAIN),
	LEFT("service", "Service", PLAIN),
	LEFT("start_us", "Start", INSTANT),
	LEFT("end_us", "End", INSTANT),
	RIGHT("bytes_in", "In", BYTES),
	RIGHT("bytes_out", "Out", BYTES),
	RIGHT("retransmitted_segments", "Retrans", PLAIN),
	LEFT("end_reason", "Ended", PLAIN),
	LEFT("closed_by", "Closed by", PLAIN),
};

/* Every key of a row of list.connections, in the order of fields.def. The format is of no use there. */
static const struct proto_column connection_raw[] = {
#define SELECT_ROW(...) __VA_ARGS__
#define SELECT_DETAIL(...)
#define FIELD(e, key, kind, place, heading, help) \
	SELECT_##place({ key, heading, CELL_PLAIN, false }, )
#include "proto/fields.def"
#undef FIELD
};

static const struct proto_column transition_columns[] = {
	RIGHT("at_us", "At", OFFSET),  LEFT("from", "From", STATE), LEFT("to", "To", STATE),
	LEFT("cause", "Cause", PLAIN), LEFT("rule", "Rule", PLAIN),
};

/* The last only when one of them is a relay. */
static const struct proto_column listener_columns[] = {
	LEFT("address", "Address", PLAIN),
	LEFT("name", "Name", PLAIN),
	LEFT("service", "Service", PLAIN),
	RIGHT("backlog", "Backlog", PLAIN),
	RIGHT("syn_received", "SYN-RECEIVED", PLAIN),
	RIGHT("connections", "Connections", PLAIN),
	RIGHT("accepted", "Accepted", PLAIN),
	RIGHT("refused", "Refused", PLAIN),
	LEFT("draining", "Draining", FLAG),
	LEFT("backends", "Backends", BACKENDS),
};

static const struct proto_column tcp_columns[] = {
	LEFT("key", "Key", PLAIN),
	LEFT("value", "Value", PLAIN),
	LEFT("whose", "Whose", PLAIN),
	LEFT("from", "From", PLAIN),
};

static const struct proto_column tcp_raw[] = {
	LEFT("key", "", PLAIN),  LEFT("value", "", PLAIN),   LEFT("whose", "", PLAIN),
	LEFT("from", "", PLAIN), LEFT("running", "", PLAIN), LEFT("expected", "", PLAIN),
	LEFT("help", "", PLAIN),
};

static const struct proto_column service_columns[] = {
	LEFT("name", "Service", PLAIN),
	LEFT("argument", "Argument", PLAIN),
	LEFT("help", "What it does", PLAIN),
};

static const struct proto_column rule_columns[] = {
	LEFT("family", "Family", PLAIN),  LEFT("address", "Address", PLAIN),
	LEFT("port_min", "Ports", PORTS), RIGHT("packets", "Packets", PLAIN),
	RIGHT("bytes", "Bytes", BYTES),
};

static const struct proto_column rule_raw[] = {
	LEFT("family", "", PLAIN),   LEFT("address", "", PLAIN), LEFT("port_min", "", PLAIN),
	LEFT("port_max", "", PLAIN), LEFT("packets", "", PLAIN), LEFT("bytes", "", PLAIN),
	LEFT("early", "", PLAIN),
};

static const struct proto_column method_columns[] = {
	LEFT("text", "Command", PLAIN),
	LEFT("name", "Method", PLAIN),
	LEFT("level", "Level", PLAIN),
	LEFT("help", "What it does", PLAIN),
};

#define N(a) (sizeof(a) / sizeof((a)[0]))
#define VIEW_N(key, table, n, all, all_n) \
	{                                 \
		key, table, n, all, all_n \
	}
#define VIEW(key, table, all) VIEW_N(key, table, N(table), all, N(all))

enum { NOT_OF_RELAYS = N(listener_columns) - 1 };

static bool has_relay(const json_t *listeners)
{
	const json_t *l;
	size_t i;

	json_array_foreach(listeners, i, l)
	{
		if (json_array_size(json_object_get(l, "backends")))
			return true;
	}
	return false;
}

const struct proto_view *proto_view(enum method m, const json_t *result)
{
	static const struct proto_view
		open_connections = VIEW("connections", open_columns, connection_raw),
		closed_connections = VIEW("connections", closed_columns, connection_raw),
		transitions = VIEW("transitions", transition_columns, transition_columns),
		listeners = VIEW_N("listeners", listener_columns, NOT_OF_RELAYS, listener_columns,
				   NOT_OF_RELAYS),
		relays = VIEW_N("listeners", listener_columns, N(listener_columns),
				listener_columns, NOT_OF_RELAYS),
		services = VIEW("services", service_columns, service_columns),
		tcp = VIEW("tcp", tcp_columns, tcp_raw),
		rules = VIEW("rules", rule_columns, rule_raw),
		methods = VIEW("methods", method_columns, method_columns);
	const json_t *first;

	switch (m) {
	case METHOD_LIST_CONNECTIONS:
		first = json_array_get(json_object_get(result, "connections"), 0);
		return json_is_integer(json_object_get(first, "end_us")) ? &closed_connections
									 : &open_connections;
	case METHOD_SHOW_TRANSITIONS:
		return &transitions;
	case METHOD_LIST_LISTENERS:
		return has_relay(json_object_get(result, "listeners")) ? &relays : &listeners;
	case METHOD_LIST_SERVICES:
		return &services;
	case METHOD_LIST_RULES:
		return &rules;
	case METHOD_SHOW_TCP:
		return &tcp;
	case METHOD_DISCOVER:
		return &methods;
	case METHOD_SHOW_CONNECTION:
	case METHOD_LISTEN:
	case METHOD_LISTEN_STREAM:
	case METHOD_UNLISTEN:
	case METHOD_CONNECT:
	case METHOD_CHOOSE_PORT:
	case METHOD_SET_TCP:
	case METHOD_SEND_URGENT:
	case METHOD_CLOSE_CONNECTION:
	case METHOD_RESET_CONNECTION:
	case METHOD_STATUS:
	case METHOD_VERSION:
	case METHOD_RELOAD:
	case METHOD_SHUTDOWN:
	case METHOD__COUNT:
		break;
	}
	return NULL;
}

const char *proto_format_bytes(uint64_t bytes, char buf[static 32])
{
	static const char units[] = "kMGTPE";
	uint64_t tenths = bytes, scale = 1;
	size_t u = 0;

	if (bytes < 1000) {
		snprintf(buf, 32, "%u", (unsigned)bytes);
		return buf;
	}
	/* Truncated, never rounded up: 999999 is 999.9k, not 1000.0k. */
	for (scale = 1000; bytes / scale >= 1000 && units[u + 1]; scale *= 1000)
		u++;
	tenths = bytes / (scale / 10);
	snprintf(buf, 32, "%u.%u%c", (unsigned)(tenths / 10), (unsigned)(tenths % 10), units[u]);
	return buf;
}

const char *proto_format_time(uint64_t us, char buf[static 32])
{
	const uint64_t s = us / 1000000;

	if (us < 1000)
		snprintf(buf, 32, "%uus", (unsigned)us);
	else if (us < 1000000)
		snprintf(buf, 32, "%u.%02ums", (unsigned)(us / 1000), (unsigned)(us % 1000 / 10));
	else if (s < 60)
		snprintf(buf, 32, "%u.%02us", (unsigned)s, (unsigned)(us % 1000000 / 10000));
	else if (s < 3600)
		snprintf(buf, 32, "%um%02us", (unsigned)(s / 60), (unsigned)(s % 60));
	else if (s < 86400)
		snprintf(buf, 32, "%uh%02um", (unsigned)(s / 3600), (unsigned)(s / 60 % 60));
	else
		snprintf(buf, 32, "%llud%02uh", (unsigned long long)(s / 86400),
			 (unsigned)(s / 3600 % 24));
	return buf;
}

const char *proto_format_instant(uint64_t us, char buf[static 32])
{
	const time_t t = (time_t)(us / 1000000);
	struct tm tm;
	size_t n = 0;

	if (localtime_r(&t, &tm))
		n = strftime(buf, 32, "%Y-%m-%d %H:%M:%S", &tm);
	if (n)
		snprintf(buf + n, 32 - n, ".%03u", (unsigned)(us % 1000000 / 1000));
	else
		snprintf(buf, 32, "%lluus", (unsigned long long)us);
	return buf;
}

/* Copies text, with control octets as ?: what a peer or a program is called must not steer a terminal. */
static void put_clean(char *buf, size_t size, const char *text)
{
	size_t i = 0;

	for (; text[i] && i + 1 < size; i++)
		buf[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
	buf[i] = '\0';
}

static void put_state(char buf[static CELL_MAX], const char *state)
{
	put_clean(buf, CELL_MAX, state);
	for (char *p = buf; *p; p++)
		*p = *p == '_' ? '-' : (char)toupper((unsigned char)*p);
}

const char *proto_cell_raw(const struct proto_column *col, const json_t *row,
			   char buf[static CELL_MAX])
{
	const json_t *const v = json_object_get(row, col->key);

	buf[0] = '\0';
	if (json_is_string(v))
		snprintf(buf, CELL_MAX, "%s", json_string_value(v));
	else if (json_is_integer(v))
		snprintf(buf, CELL_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	else if (json_is_real(v))
		snprintf(buf, CELL_MAX, "%g", json_real_value(v));
	else if (json_is_boolean(v))
		snprintf(buf, CELL_MAX, "%s", json_is_true(v) ? "true" : "false");
	return buf;
}

static void put_offset(char buf[static CELL_MAX], const struct proto_column *col, const json_t *row,
		       const json_t *first)
{
	const json_int_t at = json_integer_value(json_object_get(row, col->key));
	const json_int_t zero = json_integer_value(json_object_get(first, col->key));
	const json_int_t us = at > zero ? at - zero : 0;

	snprintf(buf, CELL_MAX, "+%lld.%06llds", (long long)(us / 1000000),
		 (long long)(us % 1000000));
}

static void put_ports(char buf[static CELL_MAX], const json_t *row)
{
	const json_int_t min = json_integer_value(json_object_get(row, "port_min"));
	const json_int_t max = json_integer_value(json_object_get(row, "port_max"));

	if (min == max)
		snprintf(buf, CELL_MAX, "%lld", (long long)min);
	else
		snprintf(buf, CELL_MAX, "%lld-%lld", (long long)min, (long long)max);
}

static void put_backends(char buf[static CELL_MAX], const json_t *backends)
{
	const json_t *b;
	size_t i, n = 0;

	json_array_foreach(backends, i, b)
	{
		const char *const text = json_string_value(json_object_get(b, "backend"));
		char clean[CELL_MAX];

		if (!text || n >= CELL_MAX)
			continue;
		put_clean(clean, sizeof(clean), text);
		n += (size_t)snprintf(buf + n, CELL_MAX - n, "%s%s (%" JSON_INTEGER_FORMAT "%s)",
				      n ? ", " : "", clean,
				      json_integer_value(json_object_get(b, "connections")),
				      json_is_true(json_object_get(b, "down")) ? ", down" : "");
	}
}

const char *proto_cell(const struct proto_column *col, const json_t *row, const json_t *first,
		       char buf[static CELL_MAX])
{
	const json_t *const v = json_object_get(row, col->key);
	const uint64_t number = json_is_integer(v) && json_integer_value(v) > 0
					? (uint64_t)json_integer_value(v)
					: 0;
	char raw[CELL_MAX];

	snprintf(buf, CELL_MAX, "-");
	if (!v || json_is_null(v))
		return buf;
	switch (col->format) {
	case CELL_PLAIN:
		proto_cell_raw(col, row, raw);
		if (*raw)
			put_clean(buf, CELL_MAX, raw);
		break;
	case CELL_STATE:
		if (json_is_string(v))
			put_state(buf, json_string_value(v));
		break;
	case CELL_BYTES:
		proto_format_bytes(number, buf);
		break;
	case CELL_TIME:
		proto_format_time(number, buf);
		break;
	case CELL_INSTANT:
		proto_format_instant(number, buf);
		break;
	case CELL_OFFSET:
		put_offset(buf, col, row, first);
		break;
	case CELL_FLAG:
		snprintf(buf, CELL_MAX, "%s", json_is_true(v) ? "yes" : "no");
		break;
	case CELL_PORTS:
		put_ports(buf, row);
		break;
	case CELL_BACKENDS:
		put_backends(buf, v);
		break;
	}
	return buf;
}

/* Columns of characters, not octets: continuation octets take no place. */
static size_t width_of(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void put_padded(FILE *out, const char *cell, size_t width, bool right, bool last)
{
	const size_t pad = width - width_of(cell);

	fprintf(out, "%*s%s", right ? (int)pad : 0, "", cell);
	if (!last)
		fprintf(out, "%*s", right ? 2 : (int)pad + 2, "");
}

static void render_table(FILE *out, const struct proto_view *view, const json_t *rows)
{
	const json_t *const first = json_array_get(rows, 0);
	size_t width[COLUMNS_MAX], i;
	char cell[CELL_MAX];
	const json_t *row;

	for (size_t c = 0; c < view->columns_n; c++) {
		width[c] = width_of(view->columns[c].heading);
		json_array_foreach(rows, i, row)
		{
			const size_t w = width_of(proto_cell(&view->columns[c], row, first, cell));

			if (w > width[c])
				width[c] = w;
		}
	}
	for (size_t c = 0; c < view->columns_n; c++)
		put_padded(out, view->columns[c].heading, width[c], view->columns[c].right,
			   c + 1 == view->columns_n);
	fputc('\n', out);
	json_array_foreach(rows, i, row)
	{
		for (size_t c = 0; c < view->columns_n; c++)
			put_padded(out, proto_cell(&view->columns[c], row, first, cell), width[c],
				   view->columns[c].right, c + 1 == view->columns_n);
		fputc('\n', out);
	}
}

/* One value of a page, in the form that suits it: "-" when it is not there. */
struct page {
	FILE *out;
	const json_t *object;
	char cell[4][CELL_MAX]; /* so that one printf can take some */
	unsigned used;
};

static const char *get(struct page *p, const char *key, enum cell_format format)
{
	const struct proto_column col = { key, "", format, false };

	p->used = (p->used + 1) % 4;
	return proto_cell(&col, p->object, NULL, p->cell[p->used]);
}

static bool has(const struct page *p, const char *key)
{
	const json_t *const v = json_object_get(p->object, key);

	return v && !json_is_null(v);
}

static void page_detail(struct page *p)
{
	for (size_t f = 0; f < FIELD__COUNT; f++) {
		const struct field_info *const info = field_get((enum proto_field)f);
		const enum cell_format format = info->kind == KIND_TIME      ? CELL_TIME
						: info->kind == KIND_INSTANT ? CELL_INSTANT
						: info->kind == KIND_FLAG    ? CELL_FLAG
									     : CELL_PLAIN;

		if (info->place == PLACE_DETAIL && has(p, info->key))
			fprintf(p->out, "  %-15s %s\n", info->heading, get(p, info->key, format));
	}
}

static void page_process(struct page *p)
{
	fprintf(p->out, "  %-15s pid %s", "process", get(p, "pid", CELL_PLAIN));
	if (has(p, "exit_signal"))
		fprintf(p->out, ", killed by signal %s", get(p, "exit_signal", CELL_PLAIN));
	else if (has(p, "exit_status"))
		fprintf(p->out, ", exit status %s", get(p, "exit_status", CELL_PLAIN));
	if (has(p, "run_us"))
		fprintf(p->out, ", ran %s", get(p, "run_us", CELL_TIME));
	fputc('\n', p->out);
}

static void page_end(struct page *p)
{
	fprintf(p->out, "  %-15s %s", "ended", get(p, "end_us", CELL_INSTANT));
	fprintf(p->out, ", %s: %s\n", get(p, "end_reason", CELL_PLAIN),
		get(p, "end_text", CELL_PLAIN));
	fprintf(p->out, "  %-15s %s; last state %s\n", "closed by", get(p, "closed_by", CELL_PLAIN),
		get(p, "last_state", CELL_STATE));
}

static void page_traffic(struct page *p)
{
	fprintf(p->out, "  %-15s %s octets in %s segments\n", "received",
		get(p, "bytes_in", CELL_PLAIN), get(p, "segments_in", CELL_PLAIN));
	fprintf(p->out, "  %-15s %s octets in %s segments\n", "sent",
		get(p, "bytes_out", CELL_PLAIN), get(p, "segments_out", CELL_PLAIN));
	fprintf(p->out, "  %-15s %s octets in %s segments\n", "sent again",
		get(p, "retransmitted_bytes", CELL_PLAIN),
		get(p, "retransmitted_segments", CELL_PLAIN));
	fprintf(p->out, "  %-15s %s received, %s to send\n", "queues",
		get(p, "recv_queue_bytes", CELL_PLAIN), get(p, "send_queue_bytes", CELL_PLAIN));
	fprintf(p->out, "  %-15s %s, variation %s, least %s\n", "round trip",
		get(p, "rtt_us", CELL_TIME), get(p, "rttvar_us", CELL_TIME),
		get(p, "rttmin_us", CELL_TIME));
	fprintf(p->out, "  %-15s send %s, receive %s\n", "segment size",
		get(p, "snd_mss_bytes", CELL_PLAIN), get(p, "rcv_mss_bytes", CELL_PLAIN));
}

static void page_connection(FILE *out, const json_t *result)
{
	struct page p = { .out = out, .object = result };

	fprintf(out, "connection %s: %s, %s\n", get(&p, "id", CELL_PLAIN),
		get(&p, "state", CELL_STATE), get(&p, "direction", CELL_PLAIN));
	fprintf(out, "  %-15s %s\n", "local", get(&p, "local", CELL_PLAIN));
	fprintf(out, "  %-15s %s\n", "peer", get(&p, "remote", CELL_PLAIN));
	fprintf(out, "  %-15s %s\n", "interface", get(&p, "interface", CELL_PLAIN));
	fprintf(out, "  %-15s %s\n", "service", get(&p, "service", CELL_PLAIN));
	fprintf(out, "  %-15s %s\n", "start", get(&p, "start_us", CELL_INSTANT));
	fprintf(out, "  %-15s %s\n", "opened", get(&p, "opened_us", CELL_INSTANT));
	if (has(&p, "end_us"))
		page_end(&p);
	page_traffic(&p);
	if (has(&p, "pid"))
		page_process(&p);
	p.object = json_object_get(result, "detail");
	if (json_is_object(p.object))
		page_detail(&p);
}

/* "name value" for every member that is not 0, null or empty, below a heading; objects within objects
 * as "outer.inner". */
static void put_members(FILE *out, const char *prefix, const json_t *object)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)(uintptr_t)object, key, v)
	{
		const struct proto_column col = { key, "", CELL_PLAIN, false };
		char cell[CELL_MAX], name[128];

		snprintf(name, sizeof(name), "%s%s", prefix, key);
		if (json_is_object(v)) {
			strncat(name, ".", sizeof(name) - strlen(name) - 1);
			put_members(out, name, v);
			continue;
		}
		if ((json_is_integer(v) && !json_integer_value(v)) || json_is_null(v) ||
		    (json_is_string(v) && !*json_string_value(v)))
			continue;
		fprintf(out, "  %-27s %s\n", name, proto_cell(&col, object, NULL, cell));
	}
}

static void page_status(FILE *out, const json_t *result)
{
	struct page p = { .out = out, .object = result };
	const char *key;
	const json_t *states = json_object_get(result, "states");
	json_t *v;

	fprintf(out, "tcpfsmd %s, pid %s, ", get(&p, "version", CELL_PLAIN),
		get(&p, "pid", CELL_PLAIN));
	fprintf(out, "up %s since %s\n", get(&p, "uptime_us", CELL_TIME),
		get(&p, "started_us", CELL_INSTANT));
	fprintf(out, "workers %s, listeners %s, connections %s\n", get(&p, "workers", CELL_PLAIN),
		get(&p, "listeners", CELL_PLAIN), get(&p, "connections", CELL_PLAIN));
	json_object_foreach((json_t *)(uintptr_t)states, key, v)
	{
		char state[CELL_MAX];

		put_state(state, key);
		if (json_integer_value(v))
			fprintf(out, "  %-27s %" JSON_INTEGER_FORMAT "\n", state,
				json_integer_value(v));
	}
	json_object_foreach((json_t *)(uintptr_t)result, key,
			    v) if (json_is_object(v) && v != states)
	{
		fprintf(out, "%s\n", key);
		put_members(out, "", v);
	}
}

static void page_reload(FILE *out, const json_t *result)
{
	struct page p = { .out = out, .object = result };
	const json_t *const warnings = json_object_get(result, "warnings"), *v;
	size_t i;

	fprintf(out, "listeners: %s added, %s removed, %s changed\n",
		get(&p, "listeners_added", CELL_PLAIN), get(&p, "listeners_removed", CELL_PLAIN),
		get(&p, "listeners_changed", CELL_PLAIN));
	json_array_foreach(warnings, i, v)
	{
		char line[CELL_MAX];

		put_clean(line, sizeof(line), json_string_value(v) ? json_string_value(v) : "?");
		fprintf(out, "warning: %s\n", line);
	}
}

static void page_set(FILE *out, const json_t *result)
{
	struct page p = { .out = out, .object = result };
	const bool until = json_is_true(json_object_get(result, "until_reload"));

	fprintf(out, "tcp.%s is %s", get(&p, "key", CELL_PLAIN), get(&p, "value", CELL_PLAIN));
	fprintf(out, " (was %s), ", get(&p, "was", CELL_PLAIN));
	if (has(&p, "connection"))
		fprintf(out, "for connection %s", get(&p, "connection", CELL_PLAIN));
	else if (has(&p, "listener"))
		fprintf(out, "for what %s accepts from now on", get(&p, "listener", CELL_PLAIN));
	else
		fprintf(out, "for connections from now on (%s of the listeners have their own)",
			get(&p, "own", CELL_PLAIN));
	fprintf(out, "%s\n", until ? ", until the next reload" : "");
}

static void render_list(FILE *out, enum method m, const struct proto_view *view,
			const json_t *result)
{
	struct page p = { .out = out, .object = result };
	const json_t *const rows = json_object_get(result, view->array);

	if (m == METHOD_SHOW_TRANSITIONS)
		fprintf(out, "connection %s\n", get(&p, "connection", CELL_PLAIN));
	render_table(out, view, rows);
	if (m == METHOD_LIST_CONNECTIONS && has(&p, "next"))
		fprintf(out, "(there are more: --after %s)\n", get(&p, "next", CELL_PLAIN));
	if (m == METHOD_SHOW_TRANSITIONS && json_is_true(json_object_get(result, "more")))
		fprintf(out, "(there are more)\n");
	if (m == METHOD_LIST_RULES && has(&p, "shield"))
		fprintf(out, "shield: %s\n", get(&p, "shield", CELL_PLAIN));
	if (m == METHOD_LIST_RULES && has(&p, "trouble"))
		fprintf(out, "iptables alone: %s\n", get(&p, "trouble", CELL_PLAIN));
}

static void render(FILE *out, enum method m, const json_t *result)
{
	struct page p = { .out = out, .object = result };
	const struct proto_view *const view = proto_view(m, result);

	if (view) {
		render_list(out, m, view, result);
		return;
	}
	switch (m) {
	case METHOD_SHOW_CONNECTION:
		page_connection(out, result);
		break;
	case METHOD_STATUS:
		page_status(out, result);
		break;
	case METHOD_RELOAD:
		page_reload(out, result);
		break;
	case METHOD_VERSION:
		fprintf(out, "tcpfsmd %s, protocol %s, schema %s\n", get(&p, "version", CELL_PLAIN),
			get(&p, "protocol", CELL_PLAIN), get(&p, "schema", CELL_PLAIN));
		break;
	case METHOD_LISTEN:
	case METHOD_LISTEN_STREAM:
		fprintf(out, "listening at %s (%s)\n", get(&p, "address", CELL_PLAIN),
			get(&p, "name", CELL_PLAIN));
		break;
	case METHOD_UNLISTEN:
		fprintf(out, "no longer listening at %s (%s)\n", get(&p, "address", CELL_PLAIN),
			get(&p, "name", CELL_PLAIN));
		break;
	case METHOD_CONNECT:
		if (has(&p, "cookie")) {
			fprintf(out, "Fast Open cookie: %s\n", get(&p, "cookie", CELL_FLAG));
			break;
		}
		fprintf(out, "connection %s: %s to %s, established\n", get(&p, "id", CELL_PLAIN),
			get(&p, "local", CELL_PLAIN), get(&p, "remote", CELL_PLAIN));
		break;
	case METHOD_CHOOSE_PORT:
		fprintf(out, "%s\n", get(&p, "port", CELL_PLAIN));
		break;
	case METHOD_SET_TCP:
		page_set(out, result);
		break;
	case METHOD_SEND_URGENT:
		fprintf(out, "connection %s: %s octets queued, urgent\n", get(&p, "id", CELL_PLAIN),
			get(&p, "bytes", CELL_PLAIN));
		break;
	case METHOD_CLOSE_CONNECTION:
		fprintf(out, "connection %s: closing\n", get(&p, "id", CELL_PLAIN));
		break;
	case METHOD_RESET_CONNECTION:
		fprintf(out, "connection %s: reset\n", get(&p, "id", CELL_PLAIN));
		break;
	case METHOD_SHUTDOWN:
		fprintf(out, "stopping\n");
		break;
	case METHOD_LIST_CONNECTIONS:
	case METHOD_LIST_LISTENERS:
	case METHOD_LIST_SERVICES:
	case METHOD_LIST_RULES:
	case METHOD_SHOW_TRANSITIONS:
	case METHOD_SHOW_TCP:
	case METHOD_DISCOVER:
	case METHOD__COUNT:
		break;
	}
}

char *proto_render(enum method m, const json_t *result)
{
	char *text = NULL;
	size_t len;
	FILE *const out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	render(out, m, result);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}

char *proto_text_result(enum method m, const json_t *result)
{
	char *const text = proto_render(m, result), *whole;
	size_t len;

	if (!text)
		return NULL;
	len = strlen(text);
	whole = realloc(text, len + 2);
	if (!whole) {
		free(text);
		return NULL;
	}
	memcpy(whole + len, "\n", 2);
	return whole;
}

char *proto_text_error(const struct proto_err *err)
{
	char line[sizeof(err->text)], *text;

	put_clean(line, sizeof(line), err->text);
	if (asprintf(&text, "error: %s (%s)\n\n", line, proto_error_name(err->code)) < 0)
		return NULL;
	return text;
}
