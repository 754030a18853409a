/* SPDX-License-Identifier: Apache-2.0 */
/* Two engines, a bad network between them, and one clock that jumps from event to event.
 *
 * usage: sim SEED [WORD...]	one run, every packet shown; plan.h has the words that leave out parts of it
 *	  sim shrink SEED [WORD...]	a run that fails, made short: its line, and every packet of it
 *	  sim all N [FIRST]	N seeds; every 25th twice: same seed, same packets
 *	  sim masks N		each way to lose some of the first N packets, on several kinds of exchange
 *	  sim rest N [FIRST]	N seeds, each twice: all connections at rest whenever they may be, and none
 *				ever. Packets, reports and statuses must be the same
 *	  sim --edges FILE ...	and FILE gets the transitions taken, one a line
 *
 * Even seeds are orderly: both sides close, every octet must arrive, every end is `normal`. Odd seeds
 * are rough: aborts, closes at bad moments, a network that goes away, memory for almost nothing; what
 * arrives must be a prefix of what was sent, and everything must end. In both: engine_check() after
 * each step, transitions form paths and name what caused them, counters add up, nothing is left over, and an
 * onlooker (watch.h) finds no segment outside the windows and no timer that is early. What a handshake agreed on is
 * what both SYNs had, also when it came by a SYN cookie; a Fast Open cookie that was spoilt on its way buys nothing.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/macros.h"
#include "tcp/engine.h"

#include "net.h"
#include "plan.h"
#include "shrink.h"
#include "watch.h"

enum { CONNS = 4, SERIALS = 4096, STEPS_MAX = 3000000, PORT = 40000 };
enum { MANY = 500 }; /* seeds: by then everything has been there */

/* After this long in virtual time, an orderly run that still lives is stuck. */
static const uint64_t patience_us = 12ULL * 3600 * 1000000;

enum when_to_close {
	CLOSE_WHEN_SENT,
	CLOSE_AFTER_PEER,
	CLOSE_AT_RANDOM, /* once all is sent, at some later time */
};

/* The user of one connection on one side. It acts on reports alone, as a driver must. */
struct app {
	conn_id id;
	bool used, have, opened, ended, closing, stopped;
	bool may_read, may_write, peer_closed, all_acked;
	bool slow, direct, passes, peek;
	bool spoils; /* its Fast Open cookie is another one when it arrives */
	enum when_to_close when;
	enum end_reason reason;
	uint64_t stream, sent, got;
	vtime wake; /* of a slow reader, or of a close to come */
	vtime abort_at, close_at; /* rough runs; VTIME_NEVER: not */
	vtime open_at; /* VTIME_NEVER: it has been, or the peer does */
	struct rng rng; /* its own, so that one connection less changes nothing for another */
};

struct side {
	struct engine *e;
	void *mem;
	struct engine_config cfg;
	struct tcp_params params;
	struct app app[CONNS];
	struct watch watch[CONNS];
	struct segment syn[CONNS]; /* of the peer, the last before it opened; its text is gone */
	uint8_t path[SERIALS]; /* state of each connection by serial, plus one; 0: never seen */
	vtime entered[SERIALS]; /* when */
	uint8_t came_by[SERIALS]; /* enum rule of the step to SYN-RECEIVED */
	uint64_t pieces_out, inputs;
	unsigned burst; /* segments the device takes at a time */
	vtime tx_wake;
};

struct sim {
	const struct plan *plan;
	bool rough, verbose;
	bool v6;
	enum {
		COOKIES_NO,
		COOKIES_FEW,
		COOKIES_ALWAYS
	} cookies; /* few: when one SYN has a record */
	bool fast_open;
	struct rng rng;
	struct net net;
	vtime now, start;
	struct side side[2];
	unsigned conns;
	uint64_t simultaneous; /* bit i: both sides open connection i */
};

static char reproduce[ONLY_MAX * 12];
static const struct net *net_of_run;
static uint32_t edges_taken[ST__COUNT];
static uint64_t wakes_seen;
static struct engine_counters seen; /* of all runs: whether they had what they look at */

/* Of this run: who rests, and a hash of reports and statuses. */
static enum resting { REST_AS_IT_IS, REST_ALWAYS, REST_NEVER } resting;
static uint64_t told;

static void on_abort(int sig)
{
	const ssize_t n = write(STDERR_FILENO, reproduce, strlen(reproduce));

	(void)n;
	if (net_of_run)
		shrink_suffered(net_of_run);
	signal(sig, SIG_DFL);
	raise(sig);
}

__attribute__((noreturn)) static void fail(const struct sim *s, const char *fmt, ...)
	PRINTF_LIKE(2, 3);
static void fail(const struct sim *s, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ", at %.6f s\n%s", (double)(s->now.us - s->start.us) / 1e6, reproduce);
	shrink_suffered(&s->net);
	exit(1);
}

/* Octet k of what side `from` sends on connection `conn`: lost, doubled or moved octets show. */
static uint8_t octet(unsigned from, unsigned conn, uint64_t k)
{
	const uint32_t x = (uint32_t)((k * 0x9e3779b1U + conn * (uint64_t)0x85ebca6bU + from) &
				      0xffffffffU);

	return (uint8_t)(x >> 23);
}

static void got_text(struct sim *s, unsigned me, unsigned conn, const uint8_t *text, size_t n)
{
	struct app *const a = &s->side[me].app[conn];

	for (size_t i = 0; i < n; i++, a->got++)
		if (text[i] != octet(!me, conn, a->got))
			fail(s, "side %u connection %u: octet %" PRIu64 " is wrong", me, conn,
			     a->got);
	if (a->got > s->side[!me].app[conn].sent)
		fail(s, "side %u connection %u: more octets than were sent", me, conn);
}

static int conn_of(unsigned me, const struct flow *f)
{
	return (me == 0 ? f->local.port : f->remote.port) - PORT;
}

static void adopt(struct sim *s, unsigned me, struct app *a, conn_id id)
{
	a->have = true;
	a->id = id;
	if (a->direct && conn_set_direct(s->side[me].e, id, true))
		fail(s, "side %u: conn_set_direct", me);
}

/* A connection that no application owns: an old SYN opened half of it. It only ever ends. In a rough
 * run the peer may open what our application has given up already. What an old cookie or the text of an old SYN
 * opens is open: nobody remembers (RFC 4987 3.6, RFC 7413 6.1).
 */
static void ghost(struct sim *s, unsigned me, const struct report *r)
{
	const unsigned by = s->side[me].came_by[r->serial];

	if (r->kinds & REPORT_OPENED && !s->rough && by != RULE_SYN_COOKIE && by != RULE_FAST_OPEN)
		fail(s, "side %u: an old duplicate became a connection", me);
	if (r->kinds & REPORT_OPENED)
		(void)conn_abort(s->side[me].e, s->now, r->id, CAUSE_USER, END_RESET_BY_SERVICE);
	if (r->kinds & REPORT_CLOSED)
		conn_release(s->side[me].e, r->id);
}

WRAPS static void mix(uint64_t v)
{
	told = (told ^ v ^ v >> 32) * 0x100000001b3U;
}

static void mix_status(struct sim *s, unsigned me, conn_id id)
{
	struct conn_status st;

	if (conn_status(s->side[me].e, id, &st))
		fail(s, "side %u: a connection without a status", me);
	const uint64_t all[] = {
		st.serial,
		st.cookie,
		st.state,
		st.flow.local.port,
		st.flow.remote.port,
		st.passive,
		st.opened,
		st.local_fin,
		st.remote_fin,
		st.closed_by,
		st.reason,
		st.soft_error,
		st.created_at.us,
		st.opened_at.us,
		st.closed_at.us,
		st.state_since.us,
		st.timer_at.us,
		st.iss.v,
		st.irs.v,
		st.snd_una.v,
		st.snd_nxt.v,
		st.rcv_nxt.v,
		st.snd_wnd,
		st.rcv_wnd,
		st.snd_wscale,
		st.rcv_wscale,
		st.timestamps,
		st.window_scaling,
		st.sack,
		st.ecn,
		st.cwnd_bytes,
		st.ssthresh_bytes,
		st.congestion_control[0],
		st.snd_mss,
		st.rcv_mss,
		st.path_mtu,
		st.srtt_us,
		st.rttvar_us,
		st.rttmin_us,
		st.rto_us,
		st.backoffs,
		st.send_queue_bytes,
		st.unacked_bytes,
		st.receive_queue_bytes,
		st.reassembly_bytes,
		st.bytes_in,
		st.bytes_out,
		st.segments_in,
		st.segments_out,
		st.retransmitted_segments,
		st.retransmitted_bytes,
		conn_at_eof(s->side[me].e, id),
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		mix(all[i]);
}

/* What can be seen of all connections. Before it some go to rest, or all that may. */
static void look(struct sim *s, unsigned me)
{
	struct engine *const e = s->side[me].e;
	uint32_t cursor = 0;
	conn_id id, again;

	if (resting == REST_ALWAYS)
		engine_rest_all(e);
	engine_check(e);
	if (resting == REST_AS_IT_IS)
		return;
	mix(engine_deadline(e).us);
	while (engine_next_conn(e, &cursor, &id)) {
		struct conn_status st;

		mix_status(s, me, id);
		if (conn_status(e, id, &st) || !engine_find_serial(e, st.serial, &again) ||
		    again.slot != id.slot || again.gen != id.gen)
			fail(s, "side %u: serial %" PRIu64 " is not found", me, st.serial);
	}
}

static void read_some(struct sim *s, unsigned me, unsigned conn, size_t most);

/* What was agreed on, by what both SYNs said. A SYN cookie has room for one of some sizes, and for the rest only
 * with timestamps.
 */
static void check_agreed(const struct sim *s, unsigned me, unsigned conn,
			 const struct conn_status *st)
{
	const struct side *const side = &s->side[me];
	const struct segment *const syn = &side->syn[conn];
	const struct tcp_params *const p = &side->params;
	const bool by_cookie = side->came_by[st->serial] == RULE_SYN_COOKIE;
	const bool stamps = p->timestamps && syn->options & OPT_TIMESTAMPS;
	const bool room = !by_cookie || stamps;
	const bool scale = room && p->window_scaling && syn->options & OPT_WSCALE;
	const bool sack = room && p->sack && syn->options & OPT_SACK_PERMITTED;
	const uint32_t link = s->v6 ? 1440 : 1460;
	uint32_t mss = by_cookie && syn->mss < 216
			       ? 48
			       : syn->mss; /* of choose_params() only 100 is none */

	mss = (mss < link ? mss : link) - (stamps ? 12 : 0);
	if (st->timestamps != stamps || st->window_scaling != scale || st->sack != sack ||
	    st->snd_wscale != (scale ? syn->wscale : 0) || st->snd_mss != mss)
		fail(s,
		     "side %u connection %u: the SYNs agreed on something else: timestamps %d, "
		     "scale %d "
		     "(%u), SACK %d, MSS %u",
		     me, conn, st->timestamps, st->window_scaling, st->snd_wscale, st->sack,
		     st->snd_mss);
}

static void take_report(struct sim *s, unsigned me, const struct report *r)
{
	struct conn_status st;

	if (conn_status(s->side[me].e, r->id, &st))
		fail(s, "side %u: report for a stale connection", me);
	mix(r->kinds ^ (uint64_t)r->reason << 32);
	mix(r->serial ^ s->now.us);
	const int conn = conn_of(me, &st.flow);

	if (conn < 0 || conn >= CONNS)
		fail(s, "side %u: report for an unknown flow", me);
	struct app *const a = &s->side[me].app[conn];
	const bool mine = a->have && a->id.slot == r->id.slot && a->id.gen == r->id.gen;

	if (!mine && (a->have || !(r->kinds & REPORT_OPENED))) {
		ghost(s, me, r);
		return;
	}
	if (!mine)
		adopt(s, me, a, r->id);
	if (a->ended)
		fail(s, "side %u: a report after the end", me);
	if (r->kinds & REPORT_OPENED && st.state != ST_CLOSED)
		check_agreed(s, me, (unsigned)conn, &st);
	a->opened |= !!(r->kinds & REPORT_OPENED);
	a->may_write |= !!(r->kinds & (REPORT_OPENED | REPORT_WRITABLE));
	a->may_read |= !!(r->kinds & (REPORT_READABLE | REPORT_PEER_CLOSED));
	a->peer_closed |= !!(r->kinds & REPORT_PEER_CLOSED);
	a->all_acked |= !!(r->kinds & REPORT_ALL_ACKED);
	if (!(r->kinds & REPORT_CLOSED))
		return;
	while (!a->stopped && st.receive_queue_bytes) {
		read_some(s, me, (unsigned)conn, SIZE_MAX);
		if (conn_status(s->side[me].e, r->id, &st))
			fail(s, "side %u: gone while its rest was read", me);
	}
	a->ended = true;
	a->reason = r->reason;
	if (st.state != ST_CLOSED || st.reason != r->reason || r->reason == END_NONE)
		fail(s, "side %u: the end is told in two ways", me);
	if (s->verbose)
		printf("%12.6f side %u connection %d ended: %s\n", (double)s->now.us / 1e6, me,
		       conn, end_reason_key(r->reason));
	conn_release(s->side[me].e, r->id);
}

static void read_some(struct sim *s, unsigned me, unsigned conn, size_t most)
{
	static uint8_t buf[5000];
	struct app *const a = &s->side[me].app[conn];
	struct engine *const e = s->side[me].e;
	size_t n = 0;

	if (a->peek) {
		struct span spans[3];
		const unsigned k = conn_peek(e, a->id, spans, 3);

		for (unsigned i = 0; i < k && n < most; i++) {
			const size_t take = spans[i].len < most - n ? spans[i].len : most - n;

			got_text(s, me, conn, spans[i].base, take);
			n += take;
		}
		if (n && conn_consume(e, s->now, a->id, n))
			fail(s, "side %u: conn_consume", me);
	} else {
		const size_t len = most < sizeof(buf) ? most : 1 + below(&a->rng, sizeof(buf));

		const int rc = conn_receive(e, s->now, a->id, buf, len, &n);

		if (rc && !(s->rough && rc == -ENOTCONN)) /* Just aborted, not yet told. */
			fail(s, "side %u: conn_receive gave %d", me, rc);
		got_text(s, me, conn, buf, n);
	}
	if (!n)
		a->may_read = false;
}

static void write_some(struct sim *s, unsigned me, unsigned conn)
{
	struct app *const a = &s->side[me].app[conn];
	uint8_t buf[3000];
	size_t taken = 0;

	while (a->may_write && a->sent < a->stream) {
		const uint64_t left = a->stream - a->sent;
		size_t n = 1 + below(&a->rng, sizeof(buf));

		n = n < left ? n : left;
		for (size_t i = 0; i < n; i++)
			buf[i] = octet(me, conn, a->sent + i);
		const int rc = conn_send(s->side[me].e, s->now, a->id, buf, n, &taken);

		if (rc && !s->rough)
			fail(s, "side %u: conn_send gave %d", me, rc);
		if (rc)
			a->stream = a->sent;
		else
			a->sent += taken;
		if (rc || taken < n)
			a->may_write = false;
	}
}

static void close_maybe(struct sim *s, unsigned me, struct app *a)
{
	if (a->closing || a->sent < a->stream)
		return;
	if (a->when == CLOSE_AFTER_PEER && !a->peer_closed)
		return;
	if (a->when == CLOSE_AT_RANDOM && !chance(&a->rng, 50)) {
		a->wake = vtime_add(s->now, 200000);
		return;
	}
	a->closing = true;
	const int rc = conn_close(s->side[me].e, s->now, a->id, CAUSE_USER);

	if (rc && !s->rough)
		fail(s, "side %u: conn_close gave %d", me, rc);
}

/* Rough runs: the user leaves at a bad moment. */
static void disturb(struct sim *s, unsigned me, struct app *a)
{
	struct engine *const e = s->side[me].e;

	if (!vtime_before(s->now, a->close_at)) {
		a->close_at = VTIME_NEVER;
		a->closing = true;
		a->stream = a->sent;
		(void)conn_close(e, s->now, a->id, CAUSE_USER);
		if (chance(&a->rng, 500)) {
			a->stopped = true;
			(void)conn_stop_reading(e, s->now, a->id);
		}
	}
	if (!vtime_before(s->now, a->abort_at)) {
		a->abort_at = VTIME_NEVER;
		(void)conn_abort(e, s->now, a->id, CAUSE_OPERATOR, END_RESET_BY_OPERATOR);
	}
}

static struct flow flow_of(bool v6, unsigned conn)
{
	struct flow f = { .local = { addr_v4(10, 0, 0, 1), (uint16_t)(PORT + conn) },
			  .remote = { addr_v4(10, 0, 0, 2), 80 } };

	if (v6 &&
	    (addr_parse("2001:db8::1", &f.local.addr) || addr_parse("2001:db8::2", &f.remote.addr)))
		abort();
	return f;
}

static void open_conn(struct sim *s, unsigned me, unsigned conn)
{
	struct side *const side = &s->side[me];
	struct app *const a = &side->app[conn];
	struct conn_open open = { .flow = flow_of(s->v6, conn), .params = side->params };
	conn_id id;

	a->open_at = VTIME_NEVER;

	open.link_mtu = 1500;
	if (me)
		open.flow = (struct flow){ open.flow.remote, open.flow.local, 0 };
	if (engine_connect(side->e, s->now, &open, &id))
		fail(s, "side %u: engine_connect", me);
	adopt(s, me, a, id);
	if (!s->fast_open)
		return;
	a->may_write = true; /* what is sent now may go with the SYN */
	write_some(s, me, conn);
}

static void run_app(struct sim *s, unsigned me, unsigned conn)
{
	struct app *const a = &s->side[me].app[conn];

	if (!vtime_before(s->now, a->open_at))
		open_conn(s, me, conn);
	if (!a->have || a->ended)
		return;
	if (s->rough)
		disturb(s, me, a);
	if (!a->opened)
		return;
	if (!a->slow || !vtime_before(s->now, a->wake)) {
		while (a->may_read && !a->stopped) {
			read_some(s, me, conn, a->slow ? 1 + below(&a->rng, 700) : SIZE_MAX);
			if (a->slow) {
				a->wake = vtime_add(s->now, below(&a->rng, 2000000));
				break;
			}
		}
	}
	write_some(s, me, conn);
	close_maybe(s, me, a);
}

/* Both sides are honest: nothing that they acknowledge was never sent. (An old SYN may have opened a
 * half, which the peer's later segments do not fit.)
 */
static bool is_wrong_refusal(const struct sim *s, const struct trace *t)
{
	/* Not RULE_ACK_RANGE: reordering may well outdo the largest window there was. */
	return !s->rough && t->kind == TRACE_REFUSED && t->from != ST_SYN_SENT &&
	       t->from != ST_SYN_RECEIVED && t->rule == RULE_ARRIVES_ACK;
}

/* RFC 4987: no record; RFC 7413: the cookie is the key. */
static void check_opening(const struct sim *s, unsigned me, const struct trace *t)
{
	const int conn = conn_of(me, &t->flow);

	if (t->rule == RULE_LISTEN_SYN && me == 1 && s->cookies == COOKIES_ALWAYS)
		fail(s, "side %u: a SYN was kept, where each is to have a cookie", me);
	if (t->rule == RULE_FAST_OPEN && (conn < 0 || conn >= CONNS || s->side[0].app[conn].spoils))
		fail(s, "side %u: text was taken from a SYN with a wrong cookie", me);
}

/* phase: what the engine was told just now. */
static void take_traces(struct sim *s, unsigned me, enum cause phase)
{
	struct side *const side = &s->side[me];
	struct trace t;

	while (engine_next_trace(side->e, &t)) {
		const vtime entered = t.serial < SERIALS ? side->entered[t.serial] : t.at;
		const char *const wrong = watch_trace(&t, phase, &side->params, entered);

		if (wrong)
			fail(s, "side %u: %s: %s -> %s by %s, %s", me, wrong, state_name(t.from),
			     state_name(t.to), cause_key(t.cause), rule_text(t.rule));
		if (t.serial && is_wrong_refusal(s, &t))
			fail(s, "side %u: an honest acknowledgement was refused in %s", me,
			     state_name(t.from));
		if (t.kind != TRACE_TRANSITION || !t.serial)
			continue;
		if (t.serial >= SERIALS)
			fail(s, "side %u: %" PRIu64 " connections", me, t.serial);
		const unsigned was = side->path[t.serial];

		if (was ? was - 1U != t.from : t.from != ST_CLOSED && t.from != ST_LISTEN)
			fail(s, "side %u: transition from %s, but it was elsewhere", me,
			     state_name(t.from));
		if (!state_may_follow(t.from, t.to))
			fail(s, "side %u: illegal transition", me);
		if (t.to == ST_SYN_RECEIVED) {
			side->came_by[t.serial] = (uint8_t)t.rule;
			check_opening(s, me, &t);
		}
		side->path[t.serial] = (uint8_t)(t.to + 1);
		side->entered[t.serial] = t.at;
	}
}

/* The connection of a segment, as it is now; NULL when it is none that an application has. */
static const struct conn_status *status_now(struct sim *s, unsigned me, int conn,
					    struct conn_status *st)
{
	const struct app *const a = &s->side[me].app[conn];

	return a->have && !a->ended && !conn_status(s->side[me].e, a->id, st) ? st : NULL;
}

static void look_at_all(struct sim *s, unsigned me, bool expired)
{
	struct side *const side = &s->side[me];
	struct conn_status st;

	for (unsigned i = 0; i < s->conns; i++) {
		const char *wrong = NULL;

		if (!status_now(s, me, (int)i, &st))
			continue;
		if (expired)
			wrong = watch_expired(&side->watch[i], &st, &side->params, s->now);
		else
			watch_status(&side->watch[i], &st, s->now);
		if (wrong)
			fail(s, "side %u connection %u: %s", me, i, wrong);
		if (s->plan->broken == BREAK_LATE_TEXT && st.reassembly_bytes)
			fail(s, "side %u: text came out of order, which is what was looked for",
			     me);
	}
	if (s->plan->broken == BREAK_LOST_FIN && s->net.lost_ctl & CTL_FIN)
		fail(s, "a FIN was lost, which is what was looked for");
}

static void watch_output(struct sim *s, unsigned me, const struct segment *seg)
{
	const int conn = conn_of(me, &seg->flow);
	struct conn_status st;
	const char *wrong;

	if (conn < 0 || conn >= CONNS)
		return;
	wrong = watch_sent(&s->side[me].watch[conn], seg, status_now(s, me, conn, &st), s->now);
	if (wrong)
		fail(s, "side %u connection %d: %s", me, conn, wrong);
}

static void watch_input(struct sim *s, unsigned me, const struct segment *seg)
{
	const int conn = conn_of(me, &seg->flow);
	const struct conn_status *st;
	struct conn_status now;

	if (conn < 0 || conn >= CONNS)
		return;
	watch_arrives(&s->side[me].watch[conn], seg);
	st = status_now(s, me, conn, &now);
	if (seg->ctl & CTL_SYN && (!st || !st->opened))
		s->side[me].syn[conn] = *seg;
}

/* The network changes the cookie of a SYN: it is somebody else's, or years old. */
static void spoil(const struct sim *s, unsigned me, struct segment *seg)
{
	const int conn = conn_of(me, &seg->flow);

	if (me == 0 && seg->ctl & CTL_SYN && seg->fast_open_n && s->side[0].app[conn].spoils)
		seg->fast_open[0] ^= 0x55;
}

/* RFC 3168 6.1: ECT on text alone, CE never: that is the network's. */
static void check_ecn(const struct sim *s, unsigned me, const struct segment *seg)
{
	const unsigned ecn = seg->tos & 3;
	const bool plain = seg->ctl & (CTL_SYN | CTL_RST) || seg_text_len(seg) == 0;

	if (ecn & 1 || (ecn && plain))
		fail(s, "side %u: ECN bits %u on a segment that must not have them", me, ecn);
}

static void pump(struct sim *s, unsigned me)
{
	struct side *const side = &s->side[me];
	struct report r;
	struct segment seg;
	unsigned left = side->burst;

	while (engine_next_report(side->e, &r))
		take_report(s, me, &r);
	for (unsigned i = 0; i < s->conns; i++)
		run_app(s, me, i);
	while (engine_next_report(side->e, &r))
		take_report(s, me, &r);
	side->tx_wake = VTIME_NEVER;
	while (left && engine_output(side->e, s->now, &seg)) {
		check_ecn(s, me, &seg);
		watch_output(s, me, &seg);
		spoil(s, me, &seg);
		const unsigned pieces = net_send(&s->net, s->now, me, &seg);

		side->pieces_out += pieces;
		left--;
	}
	if (!left)
		side->tx_wake = vtime_add(s->now, 50);
	take_traces(s, me, CAUSE_USER);
	look_at_all(s, me, false);
	look(s, me);
}

/* As many octets of its own, while they are being delivered, as an echo would. */
static void pass_on(struct sim *s, unsigned me, unsigned conn, uint32_t n)
{
	static uint8_t buf[1 << 16];
	struct app *const a = &s->side[me].app[conn];
	const uint64_t left = a->stream - a->sent;
	size_t taken = 0;
	int rc;

	n = n < left ? n : (uint32_t)left;
	for (uint32_t i = 0; i < n; i++)
		buf[i] = octet(me, conn, a->sent + i);
	rc = conn_pass_on(s->side[me].e, s->now, a->id, buf, n, 0, &taken);
	if (rc && !a->closing && !s->rough)
		fail(s, "side %u: conn_pass_on gave %d", me, rc);
	a->sent += rc ? 0 : taken;
}

static void input(struct sim *s, struct packet *p)
{
	struct side *const side = &s->side[p->to];
	struct delivery d = { .text = { NULL, 0 } };

	side->inputs++;
	watch_input(s, p->to, &p->seg);
	engine_input(side->e, s->now, &p->seg, &d);
	if (!d.text.len)
		return;
	for (unsigned i = 0; i < s->conns; i++) {
		struct app *const a = &side->app[i];

		if (!a->have || a->id.slot != d.id.slot || a->id.gen != d.id.gen)
			continue;
		const uint32_t take = chance(&a->rng, 700) ? d.text.len
							   : (uint32_t)below(&a->rng, d.text.len);

		got_text(s, p->to, i, d.text.base, take);
		if (a->passes)
			pass_on(s, p->to, i, take);
		conn_delivered(side->e, s->now, &d, take);
		a->may_read |= take < d.text.len;
		return;
	}
	fail(s, "side %u: text was delivered for nobody", p->to);
}

static vtime next_event(const struct sim *s)
{
	vtime next = net_next(&s->net);

	for (unsigned me = 0; me < 2; me++) {
		const struct side *const side = &s->side[me];

		next = vtime_min(next, engine_deadline(side->e));
		next = vtime_min(next, side->tx_wake);
		for (unsigned i = 0; i < s->conns; i++) {
			const struct app *const a = &side->app[i];

			next = vtime_min(next, a->open_at);
			if (!a->have || a->ended)
				continue;
			if (vtime_before(s->now, a->wake))
				next = vtime_min(next, a->wake);
			next = vtime_min(next, vtime_min(a->abort_at, a->close_at));
		}
	}
	return next;
}

static void give_up(struct sim *s)
{
	for (unsigned me = 0; me < 2; me++)
		for (unsigned i = 0; i < s->conns; i++) {
			struct app *const a = &s->side[me].app[i];

			if (!a->have || a->ended)
				continue;
			if (!s->rough) {
				struct conn_status st;

				(void)conn_status(s->side[me].e, a->id, &st);
				fail(s,
				     "side %u connection %u is stuck in %s: sent %" PRIu64
				     " of %" PRIu64 ", got %" PRIu64 " of %" PRIu64,
				     me, i, state_name(st.state), a->sent, a->stream, a->got,
				     s->side[!me].app[i].stream);
			}
			a->abort_at = s->now;
		}
}

/* One turn. False: nothing will ever happen again. */
static bool step(struct sim *s)
{
	const vtime next = next_event(s);
	struct packet *p;

	if (next.us == UINT64_MAX)
		return false;
	s->now = vtime_before(next, s->now) ? s->now : next;
	while ((p = net_take(&s->net, s->now))) {
		input(s, p);
		take_traces(s, p->to, CAUSE_SEGMENT);
		look_at_all(s, p->to, false);
		look(s, p->to);
		net_drop(p);
	}
	for (unsigned me = 0; me < 2; me++) {
		engine_expire(s->side[me].e, s->now);
		look_at_all(s, me, true);
		look(s, me);
		take_traces(s, me, CAUSE_TIMER);
		pump(s, me);
	}
	return true;
}

static uint32_t pick(struct rng *r, const uint32_t *from, size_t n)
{
	return from[below(r, n)];
}

#define PICK(r, ...) \
	pick(r, (const uint32_t[]){ __VA_ARGS__ }, sizeof((uint32_t[]){ __VA_ARGS__ }) / 4)

static void choose_params(struct sim *s, struct tcp_params *p)
{
	struct rng *const r = &s->rng;

	tcp_params_default(p);
	p->msl_us = 60000000;
	p->rto_min_us = PICK(r, 50000, 200000, 1000000);
	p->rto_max_us = 5000000;
	p->user_timeout_us = s->rough ? 100000000 : 100000000000;
	p->syn_timeout_us = s->rough ? 60000000 : 10000000000;
	p->fin_wait_2_us = PICK(r, 0, 60000000);
	p->delayed_ack_us = PICK(r, 0, 40000, 200000);
	p->mss = (uint16_t)PICK(r, 0, 0, 1460, 536, 100);
	p->send_buffer_bytes = PICK(r, 500, 5000, 40000, 200000);
	p->receive_buffer_bytes = PICK(r, 500, 5000, 40000, 200000);
	p->receive_initial_bytes = PICK(r, 0, 400, 5000);
	p->initial_window = PICK(r, 1, 2, 10);
	p->congestion_control = chance(r, 500) ? TCP_CC_CUBIC : TCP_CC_NEWRENO;
	p->ecn = (int)below(r, 3);
	p->nagle = chance(r, 700);
	p->timestamps = chance(r, 600);
	p->window_scaling = chance(r, 600);
	p->rfc5961 = chance(r, 800);
	p->sack = chance(r, 600);
	if (resting != REST_AS_IT_IS) { /* for its timer, which runs at rest */
		p->keepalive = s->plan->seed % 3 == 0;
		p->keepalive_time_us = 1500000;
		p->keepalive_interval_us = 700000;
		p->keepalive_probes = 20;
	}
	if (plan_without(s->plan, KNOB_options)) {
		p->timestamps = p->window_scaling = p->sack = false;
		p->ecn = TCP_ECN_OFF;
	}
	if (plan_without(s->plan, KNOB_small)) {
		p->mss = 0;
		p->send_buffer_bytes = p->receive_buffer_bytes = 60000;
	}
}

static void choose_path(struct sim *s, struct path *p)
{
	struct rng *const r = &s->rng;

	*p = (struct path){ .delay_us = below(r, 100000), .fifo = chance(r, 500) };
	if (s->plan->mask)
		return;
	p->jitter_us = chance(r, 700) ? below(r, 50000) : 0;
	p->loss = chance(r, 700) ? (unsigned)below(r, 250) : 0;
	p->mark = chance(r, 500) ? (unsigned)below(r, 100) : 0;
	p->dup = chance(r, 500) ? (unsigned)below(r, 100) : 0;
	if (chance(r, 300)) {
		p->burst = 5;
		p->burst_us = 1000000;
	}
	if (chance(r, 300)) {
		p->octets_per_s = 10000 + below(r, 1000000);
		p->queue_us = 20000 + below(r, 500000);
		p->mark_us = chance(r, 500) ? 5000 + below(r, 50000) : 0;
	}
	p->corrupt = chance(r, 500) ? (unsigned)below(r, 80) : 0;
	if (plan_without(s->plan, KNOB_rate))
		p->octets_per_s = 0;
}

/* By a number of its own, which changes nothing else of a seed. */
static bool passes(const struct sim *s, unsigned me, unsigned conn)
{
	struct rng r = { .s = s->plan->seed * 0x9e3779b9U + me * CONNS + conn };

	(void)rnd(&r);
	return chance(&r, 500) && !plan_without(s->plan, KNOB_passes);
}

static void choose_app(struct sim *s, unsigned me, unsigned conn)
{
	struct app *const a = &s->side[me].app[conn];
	struct rng *const r = &a->rng;
	const uint32_t mss = s->side[me].params.mss;
	const uint64_t most = s->plan->mask ? 2500 : mss && mss < 500 ? 6000 : 60000;

	*a = (struct app){ .used = true,
			   .abort_at = VTIME_NEVER,
			   .close_at = VTIME_NEVER,
			   .open_at = VTIME_NEVER };
	r->s = s->plan->seed * 8 + me * CONNS + conn;
	(void)rnd(r);
	a->stream = chance(r, 150) ? 0 : below(r, most);
	a->slow = chance(r, 200);
	a->direct = chance(r, 500);
	a->peek = chance(r, 300);
	a->when = (enum when_to_close)(me == 0 ? 2 * below(r, 2) : below(r, 3));
	if (s->rough && chance(r, 300))
		a->abort_at = vtime_add(s->now, below(r, 20000000));
	if (s->rough && chance(r, 300))
		a->close_at = vtime_add(s->now, below(r, 5000000));
	a->stream = a->stream < s->plan->stream ? a->stream : s->plan->stream;
	a->slow = a->slow && !plan_without(s->plan, KNOB_slow);
	a->direct = a->direct && !plan_without(s->plan, KNOB_direct);
	a->peek = a->peek && !plan_without(s->plan, KNOB_peek);
	a->passes = a->direct && passes(s, me, conn);
	if (plan_without(s->plan, KNOB_abort))
		a->abort_at = VTIME_NEVER;
	if (plan_without(s->plan, KNOB_close))
		a->close_at = VTIME_NEVER;
}

/* How SYNs are taken: by numbers of its own, which change nothing else of a seed. */
static void choose_opening(struct sim *s, struct rng *r)
{
	r->s = s->plan->seed * 0x5851f42dU + 0x14057b7eU;
	s->cookies = chance(r, 300) ? COOKIES_ALWAYS : chance(r, 400) ? COOKIES_FEW : COOKIES_NO;
	s->fast_open = chance(r, 400) && !plan_without(s->plan, KNOB_fastopen);
	if (plan_without(s->plan, KNOB_cookies))
		s->cookies = COOKIES_NO;
}

static void choose_fast_open(struct sim *s, struct rng *r)
{
	struct tcp_params *const opens = &s->side[0].params, *const listens = &s->side[1].params;

	if (s->cookies == COOKIES_ALWAYS)
		listens->syn_cookies = TCP_COOKIES_ALWAYS;
	if (!s->fast_open)
		return;
	opens->fast_open = (int)PICK(r, TCP_FAST_OPEN_CLIENT, TCP_FAST_OPEN_BOTH);
	listens->fast_open = (int)PICK(r, TCP_FAST_OPEN_SERVER, TCP_FAST_OPEN_SERVER,
				       TCP_FAST_OPEN_BOTH, TCP_FAST_OPEN_OFF);
	listens->fast_open_queue = PICK(r, 1, 128);
	for (unsigned i = 0; i < s->conns; i++) {
		/* Later ones have the cookie that the first got. */
		if (i)
			s->side[0].app[i].open_at = vtime_add(s->now, below(r, 3000000));
		s->side[0].app[i].spoils = chance(r, 250);
	}
}

/* The clock is an input: start it so that an ISN is just below a wrap, of 2^32 or of 2^31. */
static void choose_clock(struct sim *s, const struct flow *f)
{
	const unsigned me = (unsigned)below(&s->rng, 2);
	const struct flow flows[2] = { *f, { f->remote, f->local, 0 } };
	const uint32_t before = (uint32_t)below(&s->rng, 30000);
	const seqno wrap = { chance(&s->rng, 700) ? 0 : 0x80000000U };
	const seqno isn = engine_isn(s->side[me].e, &flows[me], s->now);
	const seqno want = { seq_sub(wrap, (seqno){ before }) };

	if (chance(&s->rng, 600) && !plan_without(s->plan, KNOB_clock))
		s->now = vtime_add(s->now, 4ULL * seq_sub(want, isn));
}

static void make_side(struct sim *s, unsigned me)
{
	struct side *const side = &s->side[me];
	struct rng *const r = &s->rng;
	/* Rough: next to nothing. Else as much as the buffers can want. */
	const uint32_t few = s->rough && chance(r, 400) ? 1 + (uint32_t)below(r, 6) : 0;
	const uint32_t chunks = few && !plan_without(s->plan, KNOB_memory) ? few
				: s->plan->mask                            ? 32
									   : 256;

	side->cfg = (struct engine_config){
		.conns_max = s->plan->mask ? 8 : 64,
		.listeners_max = 4,
		.syn_received_max = me == 1 && s->cookies == COOKIES_FEW ? 1
				    : s->plan->mask                      ? 4
									 : 32,
		.time_wait_max = s->plan->mask ? 4 : 32,
		.chunks_max = chunks,
		.segment_bytes_max = PICK(r, 0, 0, 4000, 64000),
		.local_port_min = 50000,
		.local_port_max = 50100,
		.secret = { rnd(r), rnd(r) },
		.serial_first = 1,
		.serial_step = 1,
		.no_rest = resting == REST_NEVER,
	};
	side->burst = PICK(r, 1, 4, 1000);
	if (plan_without(s->plan, KNOB_burst))
		side->burst = 1000;
	side->tx_wake = VTIME_NEVER;
	side->mem = calloc(1, engine_size(&side->cfg));
	assert(side->mem);
	side->e = engine_init(side->mem, &side->cfg, s->now);
	choose_params(s, &side->params);
}

static void begin(struct sim *s)
{
	struct rng *const r = &s->rng;
	struct rng opening;
	listener_id id;

	choose_opening(s, &opening);
	s->v6 = chance(r, 300) && !plan_without(s->plan, KNOB_v6);
	s->net.rng = r;
	s->net.hash = 0xcbf29ce484222325U;
	s->net.loss_mask = s->plan->mask;
	s->net.cut = chance(r, 500) && !plan_without(s->plan, KNOB_cut);
	s->net.wire = chance(r, 500) && !plan_without(s->plan, KNOB_wire);
	s->net.key = s->plan->mask ? 0 : rnd(r) | 1;
	s->net.only = s->plan->only;
	s->net.only_these = s->plan->only_these;
	s->net.only_n = s->plan->only_n;
	s->net.verbose = s->verbose;
	s->net.down_from = s->net.down_until = VTIME_NEVER;
	for (unsigned me = 0; me < 2; me++)
		make_side(s, me);
	const struct flow f = flow_of(s->v6, 0);

	choose_clock(s, &f);
	s->start = s->now;
	if (s->rough && chance(r, 200)) {
		s->net.down_from = vtime_add(s->now, below(r, 3000000));
		s->net.down_until = vtime_add(s->net.down_from, below(r, 400000000));
	}
	if (plan_without(s->plan, KNOB_down))
		s->net.down_from = s->net.down_until = VTIME_NEVER;
	s->conns = s->plan->mask ? 1 : 1 + (unsigned)below(r, CONNS);
	if (s->conns > s->plan->conns)
		s->conns = (unsigned)s->plan->conns;
	for (unsigned me = 0; me < 2; me++) {
		choose_path(s, &s->net.path[me]);
		for (unsigned i = 0; i < s->conns; i++)
			choose_app(s, me, i);
	}
	choose_fast_open(s, &opening);
	const struct listener_open open = { .local = f.remote,
					    .params = s->side[1].params,
					    .backlog = 16 };

	if (engine_listen(s->side[1].e, s->now, &open, &id))
		fail(s, "engine_listen");
	for (unsigned i = 0; i < s->conns; i++) {
		const bool both = chance(r, 250) && !plan_without(s->plan, KNOB_both);

		s->simultaneous |= (uint64_t)both << i;
		if (both)
			open_conn(s, 1, i);
		if (both || s->side[0].app[i].open_at.us == UINT64_MAX)
			open_conn(s, 0, i);
	}
}

static void check_end(struct sim *s, unsigned me)
{
	struct side *const side = &s->side[me];
	struct engine_counters c;

	engine_counters(side->e, &c);
	wakes_seen += c.wakes;
	seen.syn_cookies_accepted += c.syn_cookies_accepted;
	seen.fast_open_accepted += c.fast_open_accepted;
	seen.fast_open_refused += c.fast_open_refused;
	seen.fast_open_lost += c.fast_open_lost;
	for (unsigned i = 0; i < s->conns; i++) {
		const struct app *const a = &side->app[i];

		if (a->have && !a->ended)
			fail(s, "side %u connection %u never ended", me, i);
		if (s->rough)
			continue;
		if (!a->have || a->reason != END_NORMAL || !a->opened)
			fail(s, "side %u connection %u ended by %s", me, i,
			     end_reason_key(a->reason));
		if (a->got != s->side[!me].app[i].stream)
			fail(s, "side %u connection %u: %" PRIu64 " octets arrived of %" PRIu64, me,
			     i, a->got, s->side[!me].app[i].stream);
		if (!a->peer_closed || !a->all_acked)
			fail(s, "side %u connection %u was not told of the FINs", me, i);
	}
	if (c.conns || c.chunks_used)
		fail(s, "side %u: %u connections and %u chunks are left", me, c.conns,
		     c.chunks_used);
	if (c.traces_lost || c.segments_out != side->pieces_out)
		fail(s, "side %u: segments_out is %" PRIu64 ", not %" PRIu64, me, c.segments_out,
		     side->pieces_out);
	for (unsigned i = 0; i < SERIALS; i++)
		if (side->path[i] > 1)
			fail(s, "side %u: serial %u was last in %s", me, i,
			     state_name((enum tcp_state)(side->path[i] - 1)));
}

/* What to do when it fails: in memory, so that a signal handler can print it. */
static void write_reproduce(const struct plan *p)
{
	FILE *const f = fmemopen(reproduce, sizeof(reproduce) - 1, "w");

	assert(f);
	fprintf(f, "reproduce: ");
	plan_print(f, p);
	fclose(f);
}

static uint64_t run(const struct plan *p, bool verbose)
{
	struct sim *const s = calloc(1, sizeof(*s));
	uint32_t edges[ST__COUNT];
	unsigned steps = 0;

	assert(s);
	write_reproduce(p);
	*s = (struct sim){ .plan = p, .rough = p->seed & 1, .verbose = verbose };
	net_of_run = &s->net;
	told = 0;
	s->rng.s = p->seed;
	s->now.us = 1000000;
	begin(s);
	for (unsigned me = 0; me < 2; me++)
		pump(s, me);
	while (step(s)) {
		if (++steps > STEPS_MAX)
			fail(s, "no end of it");
		if (s->now.us - s->start.us > patience_us)
			give_up(s);
	}
	/* Silence is not always the end: a peer that vanished is noticed by nobody who waits. */
	give_up(s);
	for (unsigned me = 0; me < 2; me++)
		pump(s, me);
	while (step(s))
		if (++steps > STEPS_MAX)
			fail(s, "no end of it");
	for (unsigned me = 0; me < 2; me++) {
		check_end(s, me);
		engine_edges(s->side[me].e, edges);
		for (unsigned k = 0; k < ST__COUNT; k++)
			edges_taken[k] |= edges[k];
		free(s->side[me].mem);
	}
	const uint64_t hash = s->net.hash ^ told;

	if (verbose)
		printf("seed %" PRIu64 ": %" PRIu64 " packets, %" PRIu64
		       " lost, %.1f s, hash %016" PRIx64 "\n",
		       p->seed, s->net.packets, s->net.lost,
		       (double)(s->now.us - s->start.us) / 1e6, hash);
	net_of_run = NULL;
	net_fini(&s->net);
	free(s);
	return hash;
}

static void run_all(uint64_t n, uint64_t first)
{
	static struct plan p;

	for (uint64_t seed = first; seed < first + n; seed++) {
		plan_init(&p, seed);
		const uint64_t hash = run(&p, false);

		if (seed % 25 == 0 && hash != run(&p, false)) {
			fprintf(stderr, "two runs differ\n%s", reproduce);
			exit(1);
		}
	}
	if (n >= MANY && (!seen.syn_cookies_accepted || !seen.fast_open_accepted ||
			  !seen.fast_open_refused || !seen.fast_open_lost)) {
		fprintf(stderr,
			"no connection came by a SYN cookie, or by each way of a Fast Open one\n");
		exit(1);
	}
	printf("%" PRIu64 " seeds\n", n);
}

static void run_rest(uint64_t n, uint64_t first)
{
	static struct plan p;

	for (uint64_t seed = first; seed < first + n; seed++) {
		plan_init(&p, seed);
		resting = REST_NEVER;
		const uint64_t never = run(&p, false);

		resting = REST_ALWAYS;
		if (never != run(&p, false)) {
			fprintf(stderr, "rest changed it\nreproduce: sim rest 1 %" PRIu64 "\n",
				seed);
			exit(1);
		}
	}
	if (!wakes_seen) {
		fprintf(stderr, "nobody was ever at rest\n");
		exit(1);
	}
	printf("%" PRIu64 " seeds, %" PRIu64 " times somebody woke\n", n, wakes_seen);
}

/* Even seeds, so that every end must be a normal one: a dozen kinds of exchange. */
static void run_masks(unsigned bits)
{
	static struct plan p;

	for (uint64_t mask = 1; mask < 1ULL << bits; mask++)
		for (uint64_t seed = 2; seed <= 24; seed += 2) {
			plan_init(&p, seed);
			p.mask = mask;
			run(&p, false);
		}
	printf("%llu masks\n", (1ULL << bits) - 1);
}

static void run_quietly(const struct plan *p)
{
	run(p, false);
}

static int run_short(struct plan *p)
{
	if (!shrink(p, run_quietly, true)) {
		printf("it does not fail\n");
		return 1;
	}
	printf("as short as it gets: ");
	plan_print(stdout, p);
	fflush(stdout);
	run(p, true); /* Does not come back. */
	return 1;
}

static void write_edges(const char *file)
{
	FILE *const f = fopen(file, "w");

	if (!f) {
		fprintf(stderr, "%s cannot be written\n", file);
		exit(1);
	}
	for (unsigned a = 0; a < ST__COUNT; a++)
		for (unsigned b = 0; b < ST__COUNT; b++)
			if (edges_taken[a] >> b & 1)
				fprintf(f, "%s -> %s\n", state_name((enum tcp_state)a),
					state_name((enum tcp_state)b));
	fclose(f);
}

static int usage(void)
{
	fprintf(stderr, "usage: sim [--edges FILE] SEED [WORD...] | shrink SEED [WORD...] | all N "
			"[FIRST] | "
			"masks N\n");
	return 2;
}

static int run_planned(int argc, char **argv)
{
	static struct plan p;
	const bool shorter = argc && !strcmp(*argv, "shrink");

	argc -= shorter;
	argv += shorter;
	if (!argc || !**argv || strspn(*argv, "0123456789") != strlen(*argv))
		return usage();
	plan_init(&p, strtoull(*argv, NULL, 10));
	while (--argc)
		if (!plan_word(&p, *++argv))
			return usage();
	if (shorter)
		return run_short(&p);
	run(&p, true);
	return 0;
}

int main(int argc, char **argv)
{
	const char *edges = NULL;
	int rc = 0;

	signal(SIGABRT, on_abort);
	if (argc > 2 && !strcmp(argv[1], "--edges")) {
		edges = argv[2];
		argc -= 2;
		argv += 2;
	}
	if (argc >= 3 && !strcmp(argv[1], "all"))
		run_all(strtoull(argv[2], NULL, 0), argc > 3 ? strtoull(argv[3], NULL, 0) : 1);
	else if (argc >= 3 && !strcmp(argv[1], "rest"))
		run_rest(strtoull(argv[2], NULL, 0), argc > 3 ? strtoull(argv[3], NULL, 0) : 1);
	else if (argc == 3 && !strcmp(argv[1], "masks") && atoi(argv[2]) > 0 && atoi(argv[2]) < 40)
		run_masks((unsigned)atoi(argv[2]));
	else
		rc = run_planned(argc - 1, argv + 1);
	if (edges && !rc)
		write_edges(edges);
	return rc;
}
