/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of the script language: run.c describes them. */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "play.h"

/* Word n of the line, empty when the line is shorter. */
static const char *arg(int n)
{
	return w.line.argc > n ? w.line.argv[n] : "";
}

/* A field of a struct by name: its place and size. */
struct field {
	const char *name;
	size_t at, size;
};

#define FIELD(type, name)                                                            \
	{                                                                            \
#name, offsetof(struct type, name), sizeof(((struct type *)0)->name) \
	}

static const struct field params_fields[] = {
	FIELD(tcp_params, msl_us),
	FIELD(tcp_params, fin_wait_2_us),
	FIELD(tcp_params, user_timeout_us),
	FIELD(tcp_params, syn_timeout_us),
	FIELD(tcp_params, rto_initial_us),
	FIELD(tcp_params, rto_min_us),
	FIELD(tcp_params, rto_max_us),
	FIELD(tcp_params, delayed_ack_us),
	FIELD(tcp_params, send_buffer_bytes),
	FIELD(tcp_params, not_sent_lowat_bytes),
	FIELD(tcp_params, receive_buffer_bytes),
	FIELD(tcp_params, receive_initial_bytes),
	FIELD(tcp_params, initial_window),
	FIELD(tcp_params, congestion_control),
	FIELD(tcp_params, ecn),
	FIELD(tcp_params, syn_cookies),
	FIELD(tcp_params, fast_open),
	FIELD(tcp_params, fast_open_queue),
	FIELD(tcp_params, personality),
	FIELD(tcp_params, user_timeout_option),
	FIELD(tcp_params, user_timeout_max_us),
	FIELD(tcp_params, mss),
	FIELD(tcp_params, ttl),
	FIELD(tcp_params, dscp),
	FIELD(tcp_params, nagle),
	FIELD(tcp_params, cork),
	FIELD(tcp_params, timestamps),
	FIELD(tcp_params, window_scaling),
	FIELD(tcp_params, sack),
	FIELD(tcp_params, rfc5961),
	FIELD(tcp_params, drop_syn_fin),
	FIELD(tcp_params, blackhole),
	FIELD(tcp_params, icmp_may_reset),
	FIELD(tcp_params, black_hole_detection),
	FIELD(tcp_params, keepalive),
	FIELD(tcp_params, keepalive_time_us),
	FIELD(tcp_params, keepalive_interval_us),
	FIELD(tcp_params, keepalive_probes),
	FIELD(tcp_params, r1),
	{ NULL, 0, 0 },
};

static const struct field engine_fields[] = {
	FIELD(engine_config, conns_max),
	FIELD(engine_config, listeners_max),
	FIELD(engine_config, syn_received_max),
	FIELD(engine_config, time_wait_max),
	FIELD(engine_config, working_max),
	FIELD(engine_config, working_cache),
	FIELD(engine_config, chunks_max),
	FIELD(engine_config, segment_bytes_max),
	FIELD(engine_config, local_port_min),
	FIELD(engine_config, local_port_max),
	FIELD(engine_config, serial_first),
	FIELD(engine_config, serial_step),
	{ NULL, 0, 0 },
};

static const struct field status_fields[] = {
	FIELD(conn_status, serial),
	FIELD(conn_status, passive),
	FIELD(conn_status, opened),
	FIELD(conn_status, local_fin),
	FIELD(conn_status, remote_fin),
	FIELD(conn_status, snd_wnd),
	FIELD(conn_status, rcv_wnd),
	FIELD(conn_status, snd_wscale),
	FIELD(conn_status, rcv_wscale),
	FIELD(conn_status, timestamps),
	FIELD(conn_status, window_scaling),
	FIELD(conn_status, sack),
	FIELD(conn_status, ecn),
	FIELD(conn_status, fast_open),
	FIELD(conn_status, cwnd_bytes),
	FIELD(conn_status, ssthresh_bytes),
	FIELD(conn_status, snd_mss),
	FIELD(conn_status, rcv_mss),
	FIELD(conn_status, path_mtu),
	FIELD(conn_status, srtt_us),
	FIELD(conn_status, rttvar_us),
	FIELD(conn_status, rttmin_us),
	FIELD(conn_status, rto_us),
	FIELD(conn_status, backoffs),
	FIELD(conn_status, user_timeout_us),
	FIELD(conn_status, peer_user_timeout_us),
	FIELD(conn_status, send_queue_bytes),
	FIELD(conn_status, unacked_bytes),
	FIELD(conn_status, receive_queue_bytes),
	FIELD(conn_status, reassembly_bytes),
	FIELD(conn_status, urgent_bytes),
	FIELD(conn_status, peer_dscp),
	FIELD(conn_status, in_doubt),
	FIELD(conn_status, bytes_in),
	FIELD(conn_status, bytes_out),
	FIELD(conn_status, segments_in),
	FIELD(conn_status, segments_out),
	FIELD(conn_status, retransmitted_segments),
	FIELD(conn_status, retransmitted_bytes),
	{ NULL, 0, 0 },
};

static const struct field counter_fields[] = {
#define COUNTER(name, help) FIELD(engine_counters, name),
#include "tcp/counters.def"
#undef COUNTER
	FIELD(engine_counters, conns),
	FIELD(engine_counters, chunks_used),
	FIELD(engine_counters, chunks_peak),
	FIELD(engine_counters, conns_resting),
	{ NULL, 0, 0 },
};

static const struct field *field_find(const struct field *f, const char *name)
{
	for (; f->name; f++)
		if (!strcmp(f->name, name))
			return f;
	fail("%s is not known here", *name ? name : "nothing");
}

static uint64_t field_get(const struct field *f, const void *of)
{
	const uint8_t *const at = (const uint8_t *)of + f->at;
	uint64_t v = 0;

	/* Little or big endian: each size is read as what it is. */
	if (f->size == 1)
		return *at;
	if (f->size == 2) {
		uint16_t x;
		memcpy(&x, at, sizeof(x));
		return x;
	}
	if (f->size == 4) {
		uint32_t x;
		memcpy(&x, at, sizeof(x));
		return x;
	}
	memcpy(&v, at, sizeof(v));
	return v;
}

static void field_set(const struct field *f, void *of, uint64_t v)
{
	uint8_t *const at = (uint8_t *)of + f->at;
	const uint32_t v4 = (uint32_t)v;
	const uint16_t v2 = (uint16_t)v;

	if (f->size == 1)
		*at = (uint8_t)v;
	else if (f->size == 2)
		memcpy(at, &v2, sizeof(v2));
	else if (f->size == 4)
		memcpy(at, &v4, sizeof(v4));
	else
		memcpy(at, &v, sizeof(v));
}

/* on, off, a number, or an algorithm's name. */
static uint64_t setting(const char *word)
{
	if (word && (!strcmp(word, "on") || !strcmp(word, "yes")))
		return 1;
	if (word && (!strcmp(word, "off") || !strcmp(word, "no")))
		return 0;
	if (word && !strcmp(word, "cubic"))
		return TCP_CC_CUBIC;
	if (word && !strcmp(word, "newreno"))
		return TCP_CC_NEWRENO;
	if (word && !strcmp(word, "auto"))
		return TCP_COOKIES_AUTO;
	if (word && !strcmp(word, "always"))
		return TCP_COOKIES_ALWAYS;
	if (word && !strcmp(word, "client"))
		return TCP_FAST_OPEN_CLIENT;
	if (word && !strcmp(word, "server"))
		return TCP_FAST_OPEN_SERVER;
	if (word && !strcmp(word, "passive"))
		return TCP_ECN_PASSIVE;
	return number(word);
}

/* The result of a call against `fails NAME` on the line; without it the call must succeed. */
static void result(const char *call, int rc)
{
	static const struct {
		const char *name;
		int number;
	} names[] = {
		{ "EADDRINUSE", EADDRINUSE }, { "EADDRNOTAVAIL", EADDRNOTAVAIL },
		{ "ENOBUFS", ENOBUFS },       { "EINVAL", EINVAL },
		{ "ENOTCONN", ENOTCONN },     { "EPIPE", EPIPE },
		{ "EBADF", EBADF },
	};
	const char *const want = value_of("fails");
	const char *got = "success";

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (rc == -names[i].number)
			got = names[i].name;
	if (strcmp(got, want ? want : "success"))
		fail("%s: %s (%d)", call, got, rc);
}

static conn_id current(void)
{
	if (!w.peer->have_id)
		fail("this connection does not exist yet");
	return w.peer->id;
}

static struct conn_status status_of(void)
{
	struct conn_status st;

	if (conn_status(w.e, current(), &st))
		fail("this connection has been released");
	return st;
}

static void do_set(void)
{
	field_set(field_find(params_fields, arg(1)), &w.params, setting(arg(2)));
}

static void do_engine(void)
{
	if (w.e)
		fail("the engine runs already");
	field_set(field_find(engine_fields, arg(1)), &w.cfg, setting(arg(2)));
}

static void do_listen(void)
{
	struct listener_open open = {
		.local = w.peer->flow.local,
		.params = w.params,
		.backlog = value_of("backlog") ? (uint32_t)number(value_of("backlog")) : 16,
		.conns_max = value_of("max") ? (uint32_t)number(value_of("max")) : 0,
	};

	if (value_of("addr") && addr_parse(value_of("addr"), &open.local.addr))
		fail("%s is no address", value_of("addr"));
	result("listen", engine_listen(w.e, w.now, &open, &w.listener));
	if (value_of("room"))
		(void)engine_listener_set_room(w.e, w.listener, (uint32_t)number(value_of("room")));
}

static void do_unserved_apply(void)
{
	engine_set_unserved(w.e, &w.params);
}

static void do_room(void)
{
	result("room", engine_listener_set_room(w.e, w.listener, (uint32_t)number(arg(1))));
}

static void do_unlisten(void)
{
	result("unlisten", engine_unlisten(w.e, w.now, w.listener));
}

static void send_text(size_t len, size_t want)
{
	static uint8_t buf[8 << 20];
	size_t taken = 0;

	if (len > sizeof(buf))
		fail("at most %zu octets at a time", sizeof(buf));
	for (size_t i = 0; i < len; i++)
		buf[i] = octet_at((uint32_t)(w.peer->sent_octets + 1 + i), false);
	const int rc = (has_word("urgent") ? conn_send_urgent : conn_send)(w.e, w.now, current(),
									   buf, len, &taken);

	result("send", rc);
	if (!rc && taken != want)
		fail("%zu octets were taken", taken);
	w.peer->sent_octets += taken;
}

static void do_send(void)
{
	const size_t len = number(arg(1));

	send_text(len, value_of("takes") ? number(value_of("takes")) : len);
}

static void do_connect(void)
{
	struct conn_open open = {
		.flow = w.peer->flow,
		.params = w.params,
		.link_mtu = w.link_mtu,
	};
	struct conn_status st;
	conn_id id;

	if (value_of("port"))
		open.flow.local.port = (uint16_t)number(value_of("port"));
	const int rc = engine_connect(w.e, w.now, &open, &id);

	result("connect", rc);
	if (rc)
		return;
	if (conn_status(w.e, id, &st))
		fail("a connection that was opened is stale");
	w.peer->flow = st.flow;
	w.peer->id = id;
	w.peer->have_id = true;
	w.peer->closed_told = false;
	if (w.direct && conn_set_direct(w.e, id, true))
		fail("conn_set_direct");
	if (value_of("text")) /* before the SYN is pulled */
		send_text(number(value_of("text")), number(value_of("text")));
}

static void do_read(void)
{
	static uint8_t buf[8 << 20];
	const size_t want = number(arg(1));
	size_t got = 0;

	/* Asks for more than it wants, so that too much shows as well. With `part`, for no more. */
	const size_t ask = has_word("part") ? want : sizeof(buf);

	result("read", conn_receive(w.e, w.now, current(), buf, ask, &got));
	if (got != want)
		fail("%zu octets could be read", got);
	for (size_t i = 0; i < got; i++)
		if (buf[i] != octet_at((uint32_t)(w.peer->read_octets + 1 + i), true))
			fail("octet %llu was read wrong",
			     (unsigned long long)w.peer->read_octets + i);
	w.peer->read_octets += got;
}

static void do_close(void)
{
	const enum cause by = has_word("operator") ? CAUSE_OPERATOR : CAUSE_USER;

	result("close", conn_close(w.e, w.now, current(), by));
}

static void do_abort(void)
{
	const enum cause by = has_word("operator") ? CAUSE_OPERATOR : CAUSE_USER;
	const enum end_reason r = by == CAUSE_USER ? END_RESET_BY_SERVICE : END_RESET_BY_OPERATOR;

	result("abort", conn_abort(w.e, w.now, current(), by, r));
}

static void do_stop_reading(void)
{
	result("stop-reading", conn_stop_reading(w.e, w.now, current()));
}

static void do_eof(void)
{
	if (conn_at_eof(w.e, current()) != (bool)setting(arg(1)))
		fail("end of file is otherwise");
}

static void do_release(void)
{
	conn_release(w.e, current());
	w.peer->have_id = false;
}

static void do_apply(void)
{
	result("apply", conn_set_params(w.e, w.now, current(), &w.params));
}

static void do_direct(void)
{
	w.direct = setting(arg(1));
	w.direct_take = value_of("take") ? (uint32_t)number(value_of("take")) : UINT32_MAX;
	w.direct_sends = has_word("sends");
	if (w.peer->have_id && conn_set_direct(w.e, w.peer->id, w.direct))
		fail("conn_set_direct");
}

/* An error about a segment of this connection. */
static void do_icmp(void)
{
	struct icmp_message m = { .flow = w.peer->flow, .seq = w.peer->iss, .quoted_bytes = 1500 };

	while (m.error < ICMP_ERR__COUNT && strcmp(icmp_error_key(m.error), arg(1)))
		m.error++;
	if (m.error == ICMP_ERR__COUNT)
		fail("%s is no ICMP error", arg(1));
	if (value_of("seq"))
		m.seq = seq_add(m.seq, (uint32_t)number(value_of("seq")));
	if (value_of("mtu"))
		m.mtu = (uint32_t)number(value_of("mtu"));
	if (value_of("quoted"))
		m.quoted_bytes = (uint32_t)number(value_of("quoted"));
	engine_icmp(w.e, w.now, &m);
}

static void do_link_mtu(void)
{
	result("link-mtu", conn_set_mtu(w.e, w.now, current(), (uint16_t)number(arg(1))));
}

static void do_delivered(void)
{
	if (w.peer->delivered != number(arg(1)))
		fail("%llu octets were delivered", (unsigned long long)w.peer->delivered);
	w.peer->delivered = 0;
}

static void do_state(void)
{
	const char *const got = state_name(status_of().state);

	if (strcmp(got, arg(1)))
		fail("the state is %s", got);
}

static void do_status(void)
{
	const struct conn_status st = status_of();
	const char *const name = arg(1), *const want = arg(2);
	const char *word = NULL;

	if (!strcmp(name, "closed_by"))
		word = closed_by_key(st.closed_by);
	else if (!strcmp(name, "reason"))
		word = end_reason_key(st.reason);
	else if (!strcmp(name, "soft_error"))
		word = icmp_error_key(st.soft_error);
	if (word) {
		if (strcmp(word, want))
			fail("%s is %s", name, word);
		return;
	}
	uint64_t got;

	if (!strcmp(name, "snd_una"))
		got = seq_sub(st.snd_una, st.iss);
	else if (!strcmp(name, "snd_nxt"))
		got = seq_sub(st.snd_nxt, st.iss);
	else if (!strcmp(name, "rcv_nxt"))
		got = seq_sub(st.rcv_nxt, st.irs);
	else
		got = field_get(field_find(status_fields, name), &st);
	if (got != setting(want))
		fail("%s is %llu", name, (unsigned long long)got);
}

static void do_counter(void)
{
	struct engine_counters c;

	engine_counters(w.e, &c);
	const uint64_t got = field_get(field_find(counter_fields, arg(1)), &c);
	const bool at_least = *arg(2) == '>';

	if (at_least ? got <= number(arg(2) + 1) : got != number(arg(2)))
		fail("%s is %llu", arg(1), (unsigned long long)got);
}

static void do_report(void)
{
	static const char *const names[] = { "opened",    "readable", "writable", "peer_closed",
					     "all_acked", "closed",   "urgent",   "in_doubt" };
	const char *const want = arg(1);

	if (!strcmp(want, "nothing")) {
		if (w.peer->reports)
			fail("there are reports: %#x", w.peer->reports);
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(names[i], want))
			continue;
		if (!(w.peer->reports >> i & 1))
			fail("no such report; reports are %#x", w.peer->reports);
		w.peer->reports &= ~(1U << i);
		if (*arg(2) && strcmp(end_reason_key(w.peer->reason), arg(2)))
			fail("it ended by %s", end_reason_key(w.peer->reason));
		return;
	}
	fail("%s is no report", want);
}

static const char *unquoted(char *word)
{
	const size_t n = strlen(word);

	if (n > 1 && *word == '"' && word[n - 1] == '"') {
		word[n - 1] = '\0';
		return word + 1;
	}
	return word;
}

static void check_rule(const struct trace *t, int at)
{
	if (*arg(at) && strcmp(unquoted(w.line.argv[at]), rule_text(t->rule)))
		fail("the rule is \"%s\"", rule_text(t->rule));
}

/* transition FROM -> TO ["CAUSE"] ["RULE"]; the cause may be its key alone. */
static void do_transition(void)
{
	struct peer *const p = w.peer;
	char cause[CAUSE_TEXT];

	if (*arg(1) && !strcmp(arg(1), "none")) {
		if (p->transitions_at < p->transitions_n)
			fail("there is one: to %s",
			     state_name(p->transitions[p->transitions_at].to));
		return;
	}
	if (!*arg(3) || strcmp(arg(2), "->"))
		fail("a transition is written: FROM -> TO");
	if (p->transitions_at == p->transitions_n)
		fail("there was no further transition");
	const struct trace *const t = &p->transitions[p->transitions_at++];

	cause_format(t->cause, t->detail, cause);
	if (strcmp(arg(1), state_name(t->from)) || strcmp(arg(3), state_name(t->to)))
		fail("it was %s -> %s, %s, %s", state_name(t->from), state_name(t->to), cause,
		     rule_text(t->rule));
	if (*arg(4)) {
		const char *const want = unquoted(w.line.argv[4]);

		if (strcmp(want, cause) && strcmp(want, cause_key(t->cause)))
			fail("the cause is \"%s\"", cause);
	}
	check_rule(t, 5);
}

static void do_refused(void)
{
	struct peer *const p = w.peer;

	if (p->refusals_at == p->refusals_n)
		fail("nothing further was refused");
	check_rule(&p->refusals[p->refusals_at++], 1);
}

static void do_nothing(void)
{
	char shown[240];

	if (!w.sent_n)
		return;
	segment_format(w.sent[0].peer, '>', &w.sent[0].seg, shown);
	fail("a segment was sent\n\tgot       %s", shown);
}

static void do_drain(void)
{
	w.sent_n = 0;
}

static void do_timer(void)
{
	const struct conn_status st = status_of();
	const bool none = st.timer_at.us == UINT64_MAX;

	if (*arg(1) && !strcmp(arg(1), "none")) {
		if (!none)
			fail("a timer runs for %.6f s", (double)(st.timer_at.us - w.now.us) / 1e6);
	} else if (none || st.timer_at.us - w.now.us != duration(arg(1))) {
		fail("the timer runs for %.6f s",
		     none ? -1.0 : (double)(st.timer_at.us - w.now.us) / 1e6);
	}
}

/* Moves the clock to where the engine would choose the wanted ISN: 4 us per step, RFC 6528. */
static void do_isn(void)
{
	if (!strcmp(arg(1), "before")) {
		w.peer->iss = w.peer->iss_before;
		return;
	}
	const seqno want = { (uint32_t)number(arg(1)) };
	const seqno have = engine_isn(w.e, &w.peer->flow, w.now);

	advance(vtime_add(w.now, 4ULL * seq_sub(want, have)));
	const seqno got = engine_isn(w.e, &w.peer->flow, w.now);

	if (!seq_eq(got, want))
		fail("the ISN would be %u: it does not move by 1 in 4 us", got.v);
}

static void do_peer_isn(void)
{
	w.peer->irs = (seqno){ (uint32_t)number(arg(1)) };
}

static void do_family(void)
{
	families(number(arg(1)) == 6);
}

static void do_conn(void)
{
	use_peer((unsigned)number(arg(1)));
}

/* from ADDR [port N]: the peer's side of this connection. to: ours. */
static void change_endpoint(struct endpoint *ep)
{
	if (!*arg(1) || addr_parse(arg(1), &ep->addr))
		fail("that is no address");
	if (value_of("port"))
		ep->port = (uint16_t)number(value_of("port"));
	w.peer->have_id = false;
}

static void do_from(void)
{
	change_endpoint(&w.peer->flow.remote);
}

static void do_to(void)
{
	change_endpoint(&w.peer->flow.local);
}

static void do_mtu(void)
{
	w.link_mtu = (uint16_t)number(arg(1));
}

static void play(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void play(const char *fmt, ...)
{
	const struct line saved = w.line;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w.line.text, sizeof(w.line.text), fmt, ap);
	va_end(ap);
	line_cut(&w.line);
	command();
	w.line = saved;
	/* The words moved with the line. */
	for (int i = 0; i < w.line.argc; i++)
		w.line.argv[i] = w.line.words + (saved.argv[i] - w.line.words);
}

/* The handshake, to be rid of it: establish [active] [win N] [rtt SECONDS] [<options>] */
static void do_establish(void)
{
	static const char plain[] = "<mss 1000>";
	char options[200], ack_options[64] = "";
	const unsigned win = value_of("win") ? (unsigned)number(value_of("win")) : 65535;
	const bool active = has_word("active");
	unsigned long val;

	snprintf(options, sizeof(options), "%s", plain);
	for (int i = 1; i < w.line.argc; i++)
		if (*w.line.argv[i] == '<')
			snprintf(options, sizeof(options), "%s", w.line.argv[i]);
	const char *const ts = strstr(options, "TS val ");

	if (ts && sscanf(ts, "TS val %lu", &val) == 1)
		snprintf(ack_options, sizeof(ack_options), "<TS val %lu ecr last>", val);
	if (active) {
		play("connect");
		play("> S 0:1");
		play("< S. 0:1 ack 1 win %u %s", win, options);
		play("> . 1:1 ack 1");
	} else {
		struct listener_status st;

		if (engine_listener_status(w.e, w.listener, &st) || !st.backlog)
			play("listen");
		play("< S 0:1 win %u %s", win, options);
		play("> S. 0:1 ack 1");
		if (value_of("rtt"))
			advance(vtime_add(w.now, duration(value_of("rtt"))));
		play("< . 1:1 ack 1 win %u %s", win, ack_options);
		play("nothing");
	}
	play("state ESTABLISHED");
	play("report opened");
	w.peer->transitions_at = w.peer->transitions_n;
}

/* How far the octets at hand reach without a hole. */
static uint32_t reach(const bool *have, uint32_t n)
{
	uint32_t i = 0;

	while (i < n && have[i])
		i++;
	return i;
}

/* What was sent after an arrival: at most one ACK, of all that has no hole before it. */
static void permute_check(const unsigned *order, unsigned k, bool at_once, uint32_t want)
{
	const seqno ack = seq_add(w.peer->irs, want);

	if (w.sent_n > 1 || (at_once && !w.sent_n))
		fail("order %u%u%u%u, segment %u: %u segments were sent", order[0], order[1],
		     order[2], order[3], k, w.sent_n);
	if (w.sent_n && !seq_eq(w.sent[0].seg.ack, ack))
		fail("order %u%u%u%u, segment %u: ack %u, not %u", order[0], order[1], order[2],
		     order[3], k, seq_sub(w.sent[0].seg.ack, w.peer->irs), want);
	w.sent_n = 0;
}

/* One order of arrival: a segment that is out of order, old, or fills a hole, is answered at once. */
static void permute_one(const unsigned *order, unsigned n, uint32_t len, uint32_t overlap)
{
	static bool have[6 * 2000];
	const uint32_t base = (uint32_t)w.peer->read_octets + 1, total = n * len;

	if (total > ARRAY_SIZE(have))
		fail("too long");
	memset(have, 0, sizeof(have));
	for (unsigned i = 0; i < n; i++) {
		const unsigned k = order[i];
		const uint32_t edge = reach(have, total);
		const uint32_t from = k * len - (k ? overlap : 0);
		const uint32_t to = (k + 1) * len + (k + 1 < n ? overlap : 0);
		uint32_t held = 0;

		for (uint32_t j = edge; j < total; j++)
			held += have[j];
		for (uint32_t j = from; j < to; j++)
			have[j] = true;
		play("< P. %u:%u ack 1", base + from, base + to);
		permute_check(order, k, from > edge || to <= edge || held,
			      base + reach(have, total));
	}
	play("read %u", total);
	advance(vtime_add(w.now, 1000000));
	w.sent_n = 0;
	play("status reassembly_bytes 0");
}

/* permute N LEN [overlap K]: N segments of LEN octets, arriving in every order there is. */
static void do_permute(void)
{
	const unsigned n = (unsigned)number(arg(1)), len = (unsigned)number(arg(2));
	const unsigned overlap = value_of("overlap") ? (unsigned)number(value_of("overlap")) : 0;
	unsigned order[8] = { 0 }, total = 1;

	if (n < 2 || n > 6)
		fail("2 to 6 segments");
	for (unsigned i = 2; i <= n; i++)
		total *= i;
	for (unsigned p = 0; p < total; p++) {
		unsigned left[8], rest = p, count = n;

		for (unsigned i = 0; i < n; i++)
			left[i] = i;
		for (unsigned i = 0; i < n; i++) {
			const unsigned at = rest % count;

			rest /= count;
			order[i] = left[at];
			memmove(&left[at], &left[at + 1], (--count - at) * sizeof(*left));
		}
		permute_one(order, n, len, overlap);
	}
}

/* repeat N [batch] FLAGS SEQ:END ...: the same arrives N times, one by one or all at once. */
static void do_repeat(void)
{
	const unsigned n = (unsigned)number(arg(1));
	const bool batch = !strcmp(arg(2), "batch");
	char rest[128] = "";

	for (int i = batch ? 3 : 2; i < w.line.argc; i++) {
		const size_t at = strlen(rest);

		snprintf(rest + at, sizeof(rest) - at, " %s", w.line.argv[i]);
	}
	for (unsigned i = 0; i < n; i++)
		play("%s%s", batch && i + 1 < n ? "<<" : "<", rest);
}

/* holes N LEN: N segments with a hole before each; then all of it, as a peer sends it again. */
static void do_holes(void)
{
	const unsigned n = (unsigned)number(arg(1)), len = (unsigned)number(arg(2));
	const uint32_t base = (uint32_t)w.peer->read_octets + 1;

	for (unsigned i = 0; i < n; i++) {
		play("< . %u:%u ack 1", base + (2 * i + 1) * len, base + (2 * i + 2) * len);
		play("> . 1:1 ack %u", base);
	}
	for (unsigned i = 0; i < 2 * n; i++) {
		play("< P. %u:%u ack 1", base + i * len, base + (i + 1) * len);
		w.sent_n = 0;
	}
	play("status reassembly_bytes 0");
	play("read %u", 2 * n * len);
	w.sent_n = 0;
}

/* consume N: the text is looked at where it lies, and N octets of it are taken. */
static void do_consume(void)
{
	const size_t want = number(arg(1));
	struct span spans[4];
	const unsigned k = conn_peek(w.e, current(), spans, 4);
	uint64_t at = w.peer->read_octets;

	for (unsigned i = 0; i < k; i++)
		for (uint32_t j = 0; j < spans[i].len; j++)
			if (spans[i].base[j] != octet_at((uint32_t)++at, true))
				fail("octet %llu lies there wrong", (unsigned long long)at);
	const int rc = conn_consume(w.e, w.now, current(), want);

	result("consume", rc);
	if (!rc)
		w.peer->read_octets += want;
}

static void do_listener_apply(void)
{
	result("listener-apply", engine_listener_set_params(w.e, w.listener, &w.params));
}

/* Is this connection found by its serial, and by none other? */
static void do_find_serial(void)
{
	const conn_id want = current();
	conn_id got;

	if (!engine_find_serial(w.e, number(arg(1)), &got) || got.slot != want.slot ||
	    got.gen != want.gen)
		fail("not found, or another one");
	if (engine_find_serial(w.e, UINT64_MAX, &got))
		fail("a serial that nobody has was found");
}

static void do_rest(void)
{
	engine_rest_all(w.e);
}

/* hold SECONDS: the driver is late. Timers fire, and the next line comes before anything is pulled. */
static void do_hold(void)
{
	w.now = vtime_add(w.now, duration(arg(1)));
	engine_expire(w.e, w.now);
}

static const struct {
	const char *name;
	void (*run)(void);
	bool before_engine; /* does not need, and does not make, the engine */
} commands[] = {
	{ "set", do_set, true },
	{ "engine", do_engine, true },
	{ "family", do_family, true },
	{ "mtu", do_mtu, true },
	{ "link-mtu", do_link_mtu, false },
	{ "conn", do_conn, true },
	{ "peer_isn", do_peer_isn, true },
	{ "from", do_from, true },
	{ "to", do_to, true },
	{ "isn", do_isn, false },
	{ "listen", do_listen, false },
	{ "unlisten", do_unlisten, false },
	{ "room", do_room, false },
	{ "unserved-apply", do_unserved_apply, false },
	{ "connect", do_connect, false },
	{ "establish", do_establish, false },
	{ "send", do_send, false },
	{ "read", do_read, false },
	{ "close", do_close, false },
	{ "abort", do_abort, false },
	{ "stop-reading", do_stop_reading, false },
	{ "release", do_release, false },
	{ "apply", do_apply, false },
	{ "icmp", do_icmp, false },
	{ "direct", do_direct, false },
	{ "delivered", do_delivered, false },
	{ "eof", do_eof, false },
	{ "state", do_state, false },
	{ "status", do_status, false },
	{ "counter", do_counter, false },
	{ "report", do_report, false },
	{ "transition", do_transition, false },
	{ "refused", do_refused, false },
	{ "nothing", do_nothing, false },
	{ "drain", do_drain, false },
	{ "timer", do_timer, false },
	{ "permute", do_permute, false },
	{ "repeat", do_repeat, false },
	{ "holes", do_holes, false },
	{ "consume", do_consume, false },
	{ "listener-apply", do_listener_apply, false },
	{ "rest", do_rest, false },
	{ "hold", do_hold, false },
	{ "find-serial", do_find_serial, false },
};

void command(void)
{
	const char *const name = w.line.argv[0];

	if (!strcmp(name, "<") || !strcmp(name, "<<")) {
		world_engine();
		segment_inject(name[1] == '<');
		return;
	}
	if (!strcmp(name, ">")) {
		segment_expect();
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(commands[i].name, name))
			continue;
		if (!commands[i].before_engine)
			world_engine();
		commands[i].run();
		if (w.e && strcmp(name, "drain") && strcmp(name, "hold"))
			pump();
		return;
	}
	fail("%s is no command", name);
}
