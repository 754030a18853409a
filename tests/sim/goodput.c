/* SPDX-License-Identifier: Apache-2.0 */
/* What a bulk transfer and a short one get out of a set of links, in virtual time: the same numbers on
 * every machine.
 *
 * usage: goodput print		the table
 *	  goodput check FILE	fails when a cell is worse or better than in FILE by more than 3 %, or 5 % where
 *				chance has a part: what is too fast takes it from others
 *	  goodput show LINK	what the sender counted there, for each controller
 *
 * A cell of `goodput` is what arrived in the link's seconds, kbit/s; one of `short` is the milliseconds
 * until 100 kB had arrived. Each is the mean of several seeds where the link is random. Where random loss is the only
 * limit, goodput is also held against the response functions of RFC 9438 5.1, which know nothing of this code: within 65
 * to 140 % of them, since losses at random leave a little more, and the slow start counts.
 */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tcp/engine.h"

#include "net.h"

enum { SHORT_BYTES = 100000, KINDS = 3, CELLS = 2 * KINDS, SURE_PERCENT = 3, RANDOM_PERCENT = 5 };
enum { MSS = 1448, RESPONSE_LEAST = 65, RESPONSE_MOST = 140 };

static const char *const kinds[KINDS] = { "newreno", "cubic", "cubic with ECN" };

struct link_kind {
	const char *name;
	uint64_t kbit, one_way_us, queue_us, mark_us, jitter_us;
	unsigned loss, loss_back; /* permille, of text and of acknowledgements */
	uint64_t seconds;
	unsigned seeds; /* where chance has a part: enough that it cancels out. 0: one */
	bool lossy; /* nothing but loss limits it */
};

static const struct link_kind links[] = {
	{ .name = "lan", .kbit = 1000000, .one_way_us = 100, .queue_us = 2000, .seconds = 1 },
	{ .name = "dsl", .kbit = 16000, .one_way_us = 15000, .queue_us = 60000, .seconds = 10 },
	{ .name = "dsl-aqm",
	  .kbit = 16000,
	  .one_way_us = 15000,
	  .queue_us = 60000,
	  .mark_us = 10000,
	  .seconds = 10 },
	{ .name = "satellite",
	  .kbit = 20000,
	  .one_way_us = 300000,
	  .queue_us = 300000,
	  .seconds = 60 },
	{ .name = "wifi-lossy",
	  .kbit = 50000,
	  .one_way_us = 5000,
	  .queue_us = 50000,
	  .jitter_us = 2000,
	  .loss = 5,
	  .seconds = 10,
	  .seeds = 25 },
	/* Both ways, beside what a lost ACK or retransmission costs when a round trip is short. */
	{ .name = "lan-loss-1",
	  .kbit = 1000000,
	  .one_way_us = 100,
	  .queue_us = 2000,
	  .loss = 10,
	  .loss_back = 10,
	  .seconds = 1,
	  .seeds = 5 },
	{ .name = "lan-loss-3",
	  .kbit = 1000000,
	  .one_way_us = 100,
	  .queue_us = 2000,
	  .loss = 30,
	  .loss_back = 30,
	  .seconds = 1,
	  .seeds = 10 },
	{ .name = "wan-loss-1",
	  .kbit = 100000,
	  .one_way_us = 20000,
	  .queue_us = 20000,
	  .loss = 10,
	  .loss_back = 10,
	  .seconds = 20,
	  .seeds = 60,
	  .lossy = true },
	{ .name = "wan-loss-3",
	  .kbit = 100000,
	  .one_way_us = 20000,
	  .queue_us = 20000,
	  .loss = 30,
	  .loss_back = 30,
	  .seconds = 20,
	  .seeds = 60,
	  .lossy = true },
	/* So much that one may take it for a black hole. */
	{ .name = "wan-loss-10",
	  .kbit = 100000,
	  .one_way_us = 20000,
	  .queue_us = 20000,
	  .loss = 100,
	  .loss_back = 100,
	  .seconds = 60,
	  .seeds = 60 },
	/* So far that CUBIC is not as Reno. */
	{ .name = "far-loss",
	  .kbit = 100000,
	  .one_way_us = 200000,
	  .queue_us = 200000,
	  .loss = 1,
	  .seconds = 200,
	  .seeds = 10,
	  .lossy = true },
	{ .name = "bufferbloat",
	  .kbit = 10000,
	  .one_way_us = 20000,
	  .queue_us = 2000000,
	  .seconds = 20 },
	{ .name = "long-fat",
	  .kbit = 200000,
	  .one_way_us = 50000,
	  .queue_us = 50000,
	  .seconds = 20 },
};

enum { LINKS = sizeof(links) / sizeof(links[0]) };

struct run {
	struct engine *e[2];
	void *mem[2];
	conn_id id[2];
	bool have;
	struct net net;
	struct rng rng;
	vtime now, start;
	uint64_t got, limit;
	vtime short_at;
};

static void take_reports(struct run *r, unsigned me)
{
	struct report rep;

	while (engine_next_report(r->e[me], &rep)) {
		if (!(rep.kinds & REPORT_OPENED) || me == 0)
			continue;
		r->id[1] = rep.id;
		r->have = true;
		if (conn_set_direct(r->e[1], rep.id, true))
			abort();
	}
}

/* The receiver reads whatever waits, as text that came out of order does. */
static void read_all(struct run *r)
{
	static uint8_t buf[1 << 16];
	size_t n = 0;

	while (r->have && !conn_receive(r->e[1], r->now, r->id[1], buf, sizeof(buf), &n) && n)
		r->got += n;
}

static void pump(struct run *r, unsigned me)
{
	static const uint8_t text[1 << 16];
	struct segment seg;
	struct trace tr;
	size_t taken = sizeof(text);

	take_reports(r, me);
	if (me == 0)
		while (taken == sizeof(text) &&
		       !conn_send(r->e[0], r->now, r->id[0], text, sizeof(text), &taken))
			;
	else
		read_all(r);
	take_reports(r, me);
	while (engine_output(r->e[me], r->now, &seg))
		net_send(&r->net, r->now, me, &seg);
	while (engine_next_trace(r->e[me], &tr))
		;
	if (r->got >= SHORT_BYTES)
		r->short_at = vtime_min(r->short_at, r->now);
}

static void input(struct run *r, struct packet *p)
{
	struct delivery d = { .text = { NULL, 0 } };

	engine_input(r->e[p->to], r->now, &p->seg, &d);
	if (d.text.len) {
		r->got += d.text.len;
		conn_delivered(r->e[p->to], r->now, &d, d.text.len);
	}
	net_drop(p);
}

static vtime next_event(const struct run *r)
{
	return vtime_min(net_next(&r->net),
			 vtime_min(engine_deadline(r->e[0]), engine_deadline(r->e[1])));
}

static void play(struct run *r, vtime end)
{
	vtime next;
	struct packet *p;

	pump(r, 0);
	while (vtime_before(next = next_event(r), end)) {
		r->now = vtime_before(next, r->now) ? r->now : next;
		while ((p = net_take(&r->net, r->now)))
			input(r, p);
		for (unsigned me = 0; me < 2; me++) {
			engine_expire(r->e[me], r->now);
			pump(r, me);
		}
	}
}

static void begin(struct run *r, const struct link_kind *k, const struct tcp_params *params)
{
	const struct engine_config cfg = {
		.conns_max = 4,
		.listeners_max = 1,
		.chunks_max = 4096,
		.segment_bytes_max = 64000,
		.local_port_min = 50000,
		.local_port_max = 50100,
		.secret = { 1, 2 },
		.serial_first = 1,
	};
	const struct endpoint to = { addr_v4(10, 0, 0, 2), 80 };
	const struct listener_open listen = { .local = to, .params = *params, .backlog = 4 };
	const struct conn_open open = {
		.flow = { .local = { addr_v4(10, 0, 0, 1), 0 }, .remote = to },
		.params = *params,
		.link_mtu = 1500,
	};
	listener_id listener;

	r->net.rng = &r->rng;
	r->net.cut = true;
	r->net.down_from = r->net.down_until = VTIME_NEVER;
	for (unsigned me = 0; me < 2; me++) {
		r->net.path[me] = (struct path){ .delay_us = k->one_way_us,
						 .jitter_us = k->jitter_us,
						 .fifo = true,
						 .loss = me == 0 ? k->loss : k->loss_back,
						 .mark_us = k->mark_us,
						 .octets_per_s = k->kbit * 125,
						 .queue_us = k->queue_us };
		r->mem[me] = calloc(1, engine_size(&cfg));
		assert(r->mem[me]);
		r->e[me] = engine_init(r->mem[me], &cfg, r->now);
	}
	if (engine_listen(r->e[1], r->now, &listen, &listener) ||
	    engine_connect(r->e[0], r->now, &open, &r->id[0]))
		abort();
}

static void add_counters(struct engine_counters *sum, const struct engine_counters *c)
{
#define COUNTER(name, help) sum->name += c->name;
#include "tcp/counters.def"
#undef COUNTER
}

static void one(const struct link_kind *k, const struct tcp_params *params, uint64_t seed,
		uint64_t *goodput_kbit, uint64_t *short_ms, struct engine_counters *sum)
{
	struct engine_counters counters;

	struct run *const r = calloc(1, sizeof(*r));

	assert(r);
	r->rng.s = seed;
	r->now.us = 1000000;
	r->start = r->now;
	r->short_at = VTIME_NEVER;
	begin(r, k, params);
	play(r, vtime_add(r->start, k->seconds * 1000000));
	*goodput_kbit += r->got * 8 / 1000 / k->seconds;
	*short_ms += ((r->short_at.us == UINT64_MAX ? r->now.us : r->short_at.us) - r->start.us) /
		     1000;
	engine_counters(r->e[0], &counters);
	add_counters(sum, &counters);
	for (unsigned me = 0; me < 2; me++)
		free(r->mem[me]);
	net_fini(&r->net);
	free(r);
}

/* The means of one controller's goodput and short, and the sums of what the sender counted. */
static struct engine_counters column(const struct link_kind *k, unsigned kind,
				     uint64_t ret[static 2])
{
	const uint64_t seeds = k->seeds ? k->seeds : 1;
	struct engine_counters sum = { 0 };
	struct tcp_params p;

	tcp_params_default(&p);
	p.congestion_control = kind ? TCP_CC_CUBIC : TCP_CC_NEWRENO;
	p.ecn = kind == 2 ? TCP_ECN_ON : TCP_ECN_OFF;
	ret[0] = ret[1] = 0;
	for (uint64_t seed = 1; seed <= seeds; seed++)
		one(k, &p, seed, &ret[0], &ret[1], &sum);
	ret[0] /= seeds;
	ret[1] /= seeds;
	return sum;
}

/* newreno, cubic, cubic with ECN: goodput, then short. */
static void row(const struct link_kind *k, uint64_t cell[static CELLS])
{
	for (unsigned kind = 0; kind < KINDS; kind++) {
		uint64_t got[2] = { cell[1], cell[KINDS + 1] };

		if (kind < 2 || k->mark_us) /* else ECN changes nothing */
			column(k, kind, got);
		cell[kind] = got[0];
		cell[KINDS + kind] = got[1];
	}
}

static int show(const char *name)
{
	const struct link_kind *k = links;

	while (k < links + LINKS && strcmp(k->name, name) != 0)
		k++;
	if (k == links + LINKS) {
		fprintf(stderr, "goodput: no link is called %s\n", name);
		return 2;
	}
	for (unsigned kind = 0; kind < KINDS; kind++) {
		uint64_t got[2];
		const struct engine_counters c = column(k, kind, got);

		printf("%s: %" PRIu64 " kbit/s, 100 kB in %" PRIu64 " ms\n", kinds[kind], got[0],
		       got[1]);
#define COUNTER(name, help) \
	if (c.name)         \
		printf("  %-24s %10" PRIu64 "  %s\n", #name, (uint64_t)c.name, help);
#include "tcp/counters.def"
#undef COUNTER
	}
	return 0;
}

static void print_row(const char *name, const uint64_t cell[static CELLS])
{
	printf("%-12s", name);
	for (unsigned i = 0; i < CELLS; i++)
		printf(" %9" PRIu64, cell[i]);
	printf("\n");
}

static const char heading[] =
	"# goodput, kbit/s: newreno cubic cubic+ecn; 100 kB, ms: newreno cubic cubic+ecn\n";

/* The golden row of that link. */
static bool golden_row(const char *file, const char *name, uint64_t cell[static CELLS])
{
	FILE *const f = fopen(file, "r");
	char line[256], word[32];
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		found = sscanf(line,
			       "%31s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
			       " %" SCNu64,
			       word, &cell[0], &cell[1], &cell[2], &cell[3], &cell[4],
			       &cell[5]) == 7 &&
			!strcmp(word, name);
	fclose(f);
	return found;
}

/* Is one of them less than the other, by more than the tolerance? */
static unsigned differs(const struct link_kind *k, const uint64_t now[static CELLS],
			const uint64_t golden[static CELLS])
{
	const unsigned tolerance = k->seeds ? RANDOM_PERCENT : SURE_PERCENT;
	unsigned bad = 0;

	for (unsigned i = 0; i < CELLS; i++) {
		const bool more = now[i] > golden[i];
		const uint64_t less = more ? golden[i] : now[i], rest = more ? now[i] : golden[i];

		if (less * 100 >= rest * (100 - tolerance))
			continue;
		printf("%s, column %u: %" PRIu64 ", was %" PRIu64 ": %s\n", k->name, i + 1, now[i],
		       golden[i], more == (i < KINDS) ? "too fast, or better" : "worse");
		bad++;
	}
	return bad;
}

/* Segments in flight on average, p of them lost. Reno: RFC 9438 5.1 (AIMD with 1 and 0.5); CUBIC: the larger of that,
 * which its Reno-friendly region is, and of RFC 9438 5.1's function of RTT and p.
 */
static double response_kbit(const struct link_kind *k, unsigned kind)
{
	const double p = k->loss / 1000.0, rtt_s = 2e-6 * (double)k->one_way_us;
	const double reno = sqrt(1.5 / p);
	const double cubic = pow(0.4 * 3.7 / (4 * 0.3), 0.25) * pow(rtt_s / p, 0.75);

	return (kind && cubic > reno ? cubic : reno) * MSS * 8 / rtt_s / 1000;
}

/* Prints by how much, and says whether it is far off. */
static unsigned check_response(const struct link_kind *k, const uint64_t cell[static CELLS])
{
	unsigned bad = 0;

	if (!k->lossy)
		return 0;
	printf("# %s, of the response function:", k->name);
	for (unsigned kind = 0; kind < 2; kind++) {
		const double percent = 100 * (double)cell[kind] / response_kbit(k, kind);

		printf(" %s %.0f %%", kinds[kind], percent);
		bad += !(percent >= RESPONSE_LEAST && percent <= RESPONSE_MOST);
	}
	printf("%s\n", bad ? ": that is too far off" : "");
	return bad;
}

int main(int argc, char **argv)
{
	const bool check = argc == 3 && !strcmp(argv[1], "check");
	unsigned bad = 0;

	if (argc == 3 && !strcmp(argv[1], "show"))
		return show(argv[2]);
	if (!check && (argc != 2 || strcmp(argv[1], "print") != 0)) {
		fprintf(stderr, "usage: goodput print | check FILE | show LINK\n");
		return 2;
	}
	fputs(heading, stdout);
	for (size_t i = 0; i < LINKS; i++) {
		uint64_t cell[CELLS], golden[CELLS];

		row(&links[i], cell);
		print_row(links[i].name, cell);
		bad += check_response(&links[i], cell);
		if (!check)
			continue;
		if (!golden_row(argv[2], links[i].name, golden)) {
			printf("%s: not in %s\n", links[i].name, argv[2]);
			bad++;
			continue;
		}
		bad += differs(&links[i], cell, golden);
	}
	if (bad)
		printf("%u cells differ. If that is meant: goodput print >%s\n", bad,
		       check ? argv[2] : "tests/sim/goodput.golden");
	return bad ? 1 : 0;
}
