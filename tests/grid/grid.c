/* SPDX-License-Identifier: Apache-2.0 */
/* Every state x every segment x where its numbers lie, against the oracle's reading of RFC 9293 3.10.7.
 *
 * usage: grid [CELL | first] [rest]	all cells; or one, which is shown; or as far as the first that differs
 *					rest: connections rest whenever they may
 *
 * A cell is reached through the segments and user calls that lead to its state, each compared as well.
 * When its segment is one that is kept for later, what is missing in front of it follows.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "world.h"

enum { OUTSTANDING = 100, SHOWN_MAX = 100 };

/* How a state is reached. */

static const struct start {
	const char *name;
	enum tcp_state state;
	bool listener; /* passive, and a listener stands */
	bool outstanding; /* text that is not acknowledged */
	bool shut; /* our window is full */
} starts[] = {
	{ "CLOSED", ST_CLOSED, false, false, false },
	{ "LISTEN", ST_LISTEN, true, false, false },
	{ "SYN-SENT", ST_SYN_SENT, false, false, false },
	{ "SYN-RECEIVED", ST_SYN_RECEIVED, true, false, false },
	{ "SYN-RECEIVED, both opened", ST_SYN_RECEIVED, false, false, false },
	{ "ESTABLISHED, idle", ST_ESTABLISHED, true, false, false },
	{ "ESTABLISHED", ST_ESTABLISHED, true, true, false },
	{ "ESTABLISHED, window shut", ST_ESTABLISHED, true, true, true },
	{ "ESTABLISHED, active", ST_ESTABLISHED, false, true, false },
	{ "FIN-WAIT-1", ST_FIN_WAIT_1, true, true, false },
	{ "FIN-WAIT-1, window shut", ST_FIN_WAIT_1, true, true, true },
	{ "FIN-WAIT-2", ST_FIN_WAIT_2, true, true, false },
	{ "FIN-WAIT-2, window shut", ST_FIN_WAIT_2, true, true, true },
	{ "CLOSE-WAIT", ST_CLOSE_WAIT, true, true, false },
	{ "CLOSING", ST_CLOSING, true, true, false },
	{ "LAST-ACK", ST_LAST_ACK, true, true, false },
	{ "TIME-WAIT", ST_TIME_WAIT, true, true, false },
	{ "TIME-WAIT, nobody listens", ST_TIME_WAIT, false, true, false },
};

static struct oracle_segment bare(const struct world *w, int64_t seq, int64_t ack)
{
	return (struct oracle_segment){
		.ack_on = true,
		.seq = seq,
		.ack = ack,
		.wnd = PEER_WINDOW,
		.stamped = w->params.timestamps,
		.stamp = 100,
	};
}

static bool handshake(struct world *w, const struct start *to)
{
	struct oracle_segment s = bare(w, 0, 0);

	if (!to->listener)
		world_connect(w);
	if (to->state == ST_SYN_SENT)
		return true;
	s.syn = true;
	s.ack_on = !to->listener && to->state != ST_SYN_RECEIVED;
	s.ack = 1;
	if (!world_arrives(w, &s))
		return false;
	if (!to->listener || to->state == ST_SYN_RECEIVED)
		return true;
	s = bare(w, 1, 1);
	return world_arrives(w, &s);
}

static bool fin_arrives(struct world *w)
{
	struct oracle_segment s = bare(w, w->model.rcv_nxt, w->model.una);

	s.fin = true;
	return world_arrives(w, &s);
}

static bool all_is_acked(struct world *w)
{
	const struct oracle_segment s = bare(w, w->model.rcv_nxt, w->model.nxt);

	return world_arrives(w, &s);
}

static bool window_fills(struct world *w)
{
	struct oracle_segment s = bare(w, w->model.rcv_nxt, w->model.una);

	s.text = WINDOW;
	return world_arrives(w, &s);
}

static bool reach(struct world *w, const struct start *to)
{
	if (to->state == ST_CLOSED || to->state == ST_LISTEN)
		return true;
	if (!handshake(w, to) || (to->shut && !window_fills(w)))
		return false;
	if (to->state == ST_SYN_SENT || to->state == ST_SYN_RECEIVED)
		return true;
	if ((to->state == ST_CLOSE_WAIT || to->state == ST_LAST_ACK) && !fin_arrives(w))
		return false;
	if (to->outstanding)
		world_send(w, OUTSTANDING);
	if (to->state == ST_ESTABLISHED || to->state == ST_CLOSE_WAIT)
		return true;
	world_close(w);
	if ((to->state == ST_FIN_WAIT_2 || to->state == ST_TIME_WAIT) && !all_is_acked(w))
		return false;
	return (to->state != ST_CLOSING && to->state != ST_TIME_WAIT) || fin_arrives(w);
}

/* The segments. */

enum { SEQS = 10, ACKS = 7, FLAGS = 16, TEXTS = 3, STAMPS = 5 };
enum { F_FIN = 1, F_SYN = 2, F_RST = 4, F_ACK = 8 };

static const char *const seq_names[SEQS] = {
	"far left", "over the left edge",  "one left",   "left edge", "next to the left edge",
	"middle",   "over the right edge", "right edge", "one right", "far right",
};

static int64_t seq_at(const struct oracle_tcb *t, unsigned where)
{
	const int64_t left = t->rcv_nxt, right = t->rcv_nxt + t->rcv_wnd;
	const int64_t at[SEQS] = {
		left - 1000,           left - 50,  left - 1,  left,  left + 1,
		left + t->rcv_wnd / 2, right - 50, right - 1, right, right + 1000,
	};

	return at[where];
}

static const char *const ack_names[ACKS] = { "too old", "oldest", "old",   "una",
					     "between", "nxt",    "beyond" };

static int64_t ack_at(const struct oracle_tcb *t, unsigned where)
{
	const int64_t at[ACKS] = {
		t->una - t->wnd_max - 1,
		t->una - t->wnd_max,
		t->una - 1,
		t->una,
		t->una + (t->nxt - t->una + 1) / 2,
		t->nxt,
		t->nxt + 1,
	};

	return at[where];
}

static const int64_t texts[TEXTS] = { 0, 1, 100 };
static const char *const stamp_names[STAMPS] = { "", ", newer stamp", ", equal stamp",
						 ", old stamp", ", no stamp" };
static const int64_t stamps[STAMPS] = { 0, 101, 100, 99, 0 };

struct cell {
	const struct start *start;
	enum place place;
	bool rfc5961;
	unsigned stamp, seq, ack, flags;
	int64_t text;
};

static void describe(const struct cell *c)
{
	static const char *const places[PLACE__COUNT] = { "", ", near the wrap",
							  ", near the sign's change" };

	printf("%s%s%s, %s%s%s%s%s, text %lld, seq %s, ack %s%s\n", c->start->name,
	       places[c->place], c->rfc5961 ? "" : ", by RFC 793", c->flags & F_SYN ? "SYN " : "",
	       c->flags & F_FIN ? "FIN " : "", c->flags & F_RST ? "RST " : "",
	       c->flags & F_ACK ? "ACK" : "", c->flags ? "" : "no flags", (long long)c->text,
	       seq_names[c->seq], c->flags & F_ACK ? ack_names[c->ack] : "-",
	       stamp_names[c->stamp]);
}

/* What was held for later is reached. */
static bool fill_gap(struct world *w)
{
	struct oracle_segment s = bare(w, w->model.rcv_nxt, w->model.una);

	if (!w->model.holds)
		return true;
	s.text = w->model.held.seq - w->model.rcv_nxt;
	s.stamp = 101;
	return world_arrives(w, &s);
}

static bool play(struct world *w, const struct cell *c)
{
	struct oracle_segment s;
	bool ok;

	world_begin(w, c->place, c->start->listener, c->rfc5961, c->stamp != 0);
	ok = reach(w, c->start);
	if (ok && w->model.state != c->start->state) {
		printf("the way to %s leads to %s\n", c->start->name, state_name(w->model.state));
		exit(1);
	}
	s = (struct oracle_segment){
		.syn = c->flags & F_SYN,
		.fin = c->flags & F_FIN,
		.rst = c->flags & F_RST,
		.ack_on = c->flags & F_ACK,
		.seq = seq_at(&w->model, c->seq),
		.ack = ack_at(&w->model, c->ack),
		.text = c->text,
		.wnd = 8000,
		.stamped = stamps[c->stamp] != 0,
		.stamp = stamps[c->stamp],
	};
	ok = ok && world_arrives(w, &s) && fill_gap(w);
	world_end(w);
	return ok && !*w->wrong;
}

/* The number's digits, in mixed radix, are the cell. */
static unsigned digit(unsigned *n, unsigned radix)
{
	const unsigned d = *n % radix;

	*n /= radix;
	return d;
}

static bool cell_of(unsigned n, struct cell *ret)
{
	ret->ack = digit(&n, ACKS);
	ret->seq = digit(&n, SEQS);
	ret->text = texts[digit(&n, TEXTS)];
	ret->flags = digit(&n, FLAGS);
	ret->start = &starts[digit(&n, ARRAY_SIZE(starts))];
	ret->stamp = digit(&n, STAMPS);
	ret->rfc5961 = digit(&n, 2);
	ret->place = (enum place)n;
	/* Without an ACK its field says nothing. */
	return ret->flags & F_ACK || ret->ack == 0;
}

int main(int argc, char **argv)
{
	static struct world w;
	const unsigned all = ACKS * SEQS * TEXTS * FLAGS * (unsigned)ARRAY_SIZE(starts) * STAMPS *
			     2 * PLACE__COUNT;
	const bool first_only = argc > 1 && !strcmp(argv[1], "first");
	const bool one = argc > 1 && !first_only && strcmp(argv[1], "rest") != 0;
	const unsigned first = one ? (unsigned)strtoul(argv[1], NULL, 10) : 0;
	unsigned played = 0, bad = 0;
	struct cell c;

	w.rest = argc > 1 && !strcmp(argv[argc - 1], "rest");
	for (unsigned n = first; n < (one ? first + 1 : all) && !(first_only && bad); n++) {
		if (!cell_of(n, &c))
			continue;
		played++;
		if (one)
			describe(&c);
		if (play(&w, &c))
			continue;
		if (bad++ < SHOWN_MAX) {
			printf("grid %u: ", n);
			describe(&c);
			printf("\tgot%s\n", w.wrong);
		}
	}
	printf("%u cells, %u differ from the oracle\n", played, bad);
	return bad != 0 || played == 0;
}
