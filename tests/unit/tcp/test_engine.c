/* SPDX-License-Identifier: Apache-2.0 */
/* Two engines that talk: handshake, text both ways, loss, every way to close, the limits. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "talk.h"

static struct tcp_params params(void)
{
	struct tcp_params p;

	tcp_params_default(&p);
	return p;
}

static struct conn_status status(const struct talk *t, int side, conn_id id)
{
	struct conn_status s;

	assert_int_equal(conn_status(t->e[side], id, &s), 0);
	return s;
}

/* Octet n of every stream in these tests. */
static uint8_t octet(uint64_t n)
{
	return (uint8_t)(n * 2654435761U >> 13);
}

struct stream {
	uint64_t sent, got, total;
};

/* Moves what can be moved from `from` to its peer, in steps of 1 ms. */
static void transfer(struct talk *t, const conn_id id[2], int from, uint64_t total,
		     uint32_t read_most)
{
	struct stream s = { .total = total };
	static uint8_t buf[65536];

	for (unsigned step = 0; s.got < total; step++) {
		size_t n = 0,
		       len = total - s.sent < sizeof(buf) ? (size_t)(total - s.sent) : sizeof(buf);

		assert_true(step < 4000000);
		for (size_t i = 0; i < len; i++)
			buf[i] = octet(s.sent + i);
		if (len)
			assert_int_equal(conn_send(t->e[from], t->now, id[from], buf, len, &n), 0);
		s.sent += n;
		talk_run(t, 1000);
		assert_int_equal(conn_receive(t->e[!from], t->now, id[!from], buf, read_most, &n),
				 0);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(buf[i], octet(s.got + i));
		s.got += n;
	}
	for (unsigned i = 0; status(t, from, id[from]).send_queue_bytes;
	     i++) { /* the last ACK may be lost */
		assert_true(i < 1000);
		talk_run(t, 200000);
	}
}

static void four_way(struct talk *t, const conn_id id[2], int first)
{
	const struct tcp_params p = params();

	assert_int_equal(conn_close(t->e[first], t->now, id[first], CAUSE_USER), 0);
	talk_run(t, 100000);
	assert_int_equal(talk_state(t, first, id[first]), ST_FIN_WAIT_2);
	assert_int_equal(talk_state(t, !first, id[!first]), ST_CLOSE_WAIT);
	assert_true(conn_at_eof(t->e[!first], id[!first]));
	assert_int_equal(conn_close(t->e[!first], t->now, id[!first], CAUSE_USER), 0);
	talk_run(t, 100000);
	assert_int_equal(talk_state(t, first, id[first]), ST_TIME_WAIT);
	assert_int_equal(talk_state(t, !first, id[!first]), ST_CLOSED);
	assert_int_equal(status(t, !first, id[!first]).reason, END_NORMAL);
	assert_int_equal(status(t, !first, id[!first]).closed_by, CLOSED_BY_REMOTE);
	assert_int_equal(status(t, first, id[first]).closed_by, CLOSED_BY_LOCAL);
	talk_run(t, 2 * p.msl_us);
	assert_int_equal(talk_state(t, first, id[first]), ST_CLOSED);
	for (int side = 0; side < 2; side++) {
		assert_true(t->reports[side] & REPORT_CLOSED);
		conn_release(t->e[side], id[side]);
		engine_check(t->e[side]);
	}
}

static void test_life(void **state)
{
	const struct engine_config cfg = talk_config();
	const struct tcp_params p = params();
	struct engine_counters c;
	struct talk t;
	conn_id id[2];

	talk_open(&t, &cfg, &cfg);
	talk_connect(&t, &p, &p, id);
	assert_int_equal(talk_state(&t, TALK_A, id[TALK_A]), ST_ESTABLISHED);
	assert_int_equal(status(&t, TALK_A, id[TALK_A]).snd_mss, 1448);
	assert_int_equal(status(&t, TALK_A, id[TALK_A]).srtt_us, 10000);
	transfer(&t, id, TALK_A, 3000000, 65536);
	transfer(&t, id, TALK_B, 3000000, 65536);
	assert_int_equal(status(&t, TALK_A, id[TALK_A]).retransmitted_segments, 0);
	assert_int_equal(status(&t, TALK_B, id[TALK_B]).retransmitted_segments, 0);
	engine_counters(t.e[TALK_A], &c);
	assert_int_equal(c.chunks_used, 0);
	four_way(&t, id, TALK_B);
	engine_counters(t.e[TALK_B], &c);
	assert_int_equal(c.conns, 0);
	assert_int_equal(c.chunks_used, 0);
	assert_int_equal(engine_deadline(t.e[TALK_B]).us, VTIME_NEVER.us);
	talk_close(&t);
}

/* One in `n` is lost, text and ACKs alike. */
struct lossy {
	uint32_t seed, one_in;
};

static bool lose_some(void *arg, int from, const struct segment *seg)
{
	struct lossy *l = arg;

	l->seed = (uint32_t)(l->seed * 1103515245ULL + 12345);
	return (l->seed >> 16) % l->one_in == 0;
}

static void test_loss(void **state)
{
	struct engine_config cfg = talk_config();
	struct tcp_params p = params();

	for (uint32_t seed = 1; seed <= 12; seed++) {
		struct lossy l = { .seed = seed, .one_in = 8 + seed };
		struct talk t;
		conn_id id[2];

		cfg.secret[0] = seed;
		cfg.segment_bytes_max = seed % 3 * 20000;
		p.timestamps = seed % 2;
		p.window_scaling = seed % 4 > 1;
		p.sack = seed % 3 > 0;
		talk_open(&t, &cfg, &cfg);
		talk_connect(&t, &p, &p, id);
		t.lose = lose_some;
		t.arg = &l;
		transfer(&t, id, TALK_A, 200000, seed % 5 ? 65536 : 700);
		transfer(&t, id, TALK_B, 100000, 65536);
		t.lose = NULL;
		four_way(&t, id, TALK_A);
		talk_close(&t);
	}
}

/* Two chunks: text is dropped, nothing that was acknowledged is lost, and it goes on. */
static void test_tiny_pool(void **state)
{
	struct engine_config cfg = talk_config();
	const struct tcp_params p = params();
	struct lossy l = { .seed = 7, .one_in = 12 };
	struct talk t;
	conn_id id[2];

	cfg.conns_max = 2;
	cfg.chunks_max = 2;
	cfg.segment_bytes_max = 60000;
	talk_open(&t, &cfg, &cfg);
	talk_connect(&t, &p, &p, id);
	transfer(&t, id, TALK_A, 300000, 5000);
	t.lose = lose_some;
	t.arg = &l;
	transfer(&t, id, TALK_B, 100000, 9000);
	t.lose = NULL;
	four_way(&t, id, TALK_A);
	talk_close(&t);
}

/* A reader that sleeps: the window closes, is probed, opens. */
static void test_closed_window(void **state)
{
	const struct engine_config cfg = talk_config();
	struct tcp_params p = params();
	static uint8_t buf[150000];
	struct engine_counters c;
	struct talk t;
	conn_id id[2];
	size_t n, got = 0;

	p.receive_buffer_bytes = 65536;
	p.initial_window = 64; /* the sender takes all of it */
	p.personality = TCP_AS_PLAIN; /* all of it is offered at once, and filled */
	talk_open(&t, &cfg, &cfg);
	talk_connect(&t, &p, &p, id);
	assert_int_equal(conn_send(t.e[TALK_A], t.now, id[TALK_A], buf, sizeof(buf), &n), 0);
	assert_int_equal(n, sizeof(buf));
	talk_run(&t, 3600000000); /* an hour: answered probes keep it (MUST-37) */
	assert_int_equal(talk_state(&t, TALK_A, id[TALK_A]), ST_ESTABLISHED);
	assert_int_equal(status(&t, TALK_B, id[TALK_B]).receive_queue_bytes, 65536);
	engine_counters(t.e[TALK_A], &c);
	assert_in_range(c.zero_window_probes, 55, 75);
	for (int i = 0; i < 1000 && got < sizeof(buf); i++) {
		assert_int_equal(conn_receive(t.e[TALK_B], t.now, id[TALK_B], buf, 3000, &n), 0);
		got += n;
		talk_run(&t, 20000);
	}
	assert_int_equal(got, sizeof(buf));
	talk_close(&t);
}

static bool lose_all(void *arg, int from, const struct segment *seg)
{
	return true;
}

static void test_peer_gone(void **state)
{
	const struct engine_config cfg = talk_config();
	const struct tcp_params p = params();
	struct talk t;
	conn_id id[2];
	size_t n;

	talk_open(&t, &cfg, &cfg);
	talk_connect(&t, &p, &p, id);
	t.lose = lose_all;
	assert_int_equal(conn_send(t.e[TALK_A], t.now, id[TALK_A], "x", 1, &n), 0);
	talk_run(&t, p.user_timeout_us + 1);
	assert_int_equal(talk_state(&t, TALK_A, id[TALK_A]), ST_CLOSED);
	assert_int_equal(status(&t, TALK_A, id[TALK_A]).reason, END_USER_TIMEOUT);
	assert_int_equal(status(&t, TALK_A, id[TALK_A]).closed_by, CLOSED_BY_NOBODY);
	assert_int_equal(talk_state(&t, TALK_B, id[TALK_B]), ST_ESTABLISHED);
	/* Half open: the RST that answers B's text ends it. */
	t.lose = NULL;
	conn_release(t.e[TALK_A], id[TALK_A]);
	assert_int_equal(conn_send(t.e[TALK_B], t.now, id[TALK_B], "y", 1, &n), 0);
	talk_run(&t, 100000);
	assert_int_equal(status(&t, TALK_B, id[TALK_B]).reason, END_RESET_BY_PEER);
	assert_int_equal(status(&t, TALK_B, id[TALK_B]).closed_by, CLOSED_BY_REMOTE);
	talk_close(&t);
}

static void test_refused_and_cancelled(void **state)
{
	const struct engine_config cfg = talk_config();
	const struct tcp_params p = params();
	const struct conn_open open = {
		.flow = { .local = { addr_v4(10, 0, 0, 1), 0 },
			  .remote = { addr_v4(10, 0, 0, 2), 81 } },
		.params = p,
		.link_mtu = 1500,
	};
	struct talk t;
	conn_id id;

	talk_open(&t, &cfg, &cfg);
	assert_int_equal(engine_connect(t.e[TALK_A], t.now, &open, &id), 0);
	talk_run(&t, 100000);
	assert_int_equal(status(&t, TALK_A, id).reason, END_REFUSED);
	assert_int_equal(status(&t, TALK_A, id).closed_by, CLOSED_BY_NOBODY);
	conn_release(t.e[TALK_A], id);
	assert_int_equal(conn_close(t.e[TALK_A], t.now, id, CAUSE_USER), -EBADF);

	t.lose = lose_all;
	assert_int_equal(engine_connect(t.e[TALK_A], t.now, &open, &id), 0);
	talk_run(&t, 1000000);
	assert_int_equal(conn_close(t.e[TALK_A], t.now, id, CAUSE_OPERATOR), 0);
	assert_int_equal(status(&t, TALK_A, id).reason, END_CANCELLED);
	conn_release(t.e[TALK_A], id);

	t.segments[TALK_A] = 0;
	assert_int_equal(engine_connect(t.e[TALK_A], t.now, &open, &id), 0);
	talk_run(&t, p.syn_timeout_us + 1);
	assert_int_equal(status(&t, TALK_A, id).reason, END_HANDSHAKE_TIMEOUT);
	assert_int_equal(t.segments[TALK_A], 8); /* at 0, 1, 3, 7, 15, 31, 63, 123 s */
	talk_close(&t);
}

static void test_unread_at_close(void **state)
{
	const struct engine_config cfg = talk_config();
	const struct tcp_params p = params();
	struct talk t;
	conn_id id[2];
	size_t n;

	talk_open(&t, &cfg, &cfg);
	talk_connect(&t, &p, &p, id);
	assert_int_equal(conn_send(t.e[TALK_A], t.now, id[TALK_A], "lost", 4, &n), 0);
	talk_run(&t, 100000);
	assert_int_equal(conn_stop_reading(t.e[TALK_B], t.now, id[TALK_B]), 0);
	assert_int_equal(status(&t, TALK_B, id[TALK_B]).reason, END_RESET_BY_SERVICE);
	conn_release(t.e[TALK_B],
		     id[TALK_B]); /* before the RST was pulled: it goes out all the same */
	talk_run(&t, 100000);
	assert_int_equal(status(&t, TALK_A, id[TALK_A]).reason, END_RESET_BY_PEER);
	talk_close(&t);
}

/* The same calls give the same segments. */
static bool digest(void *arg, int from, const struct segment *seg)
{
	uint64_t *h = arg;

	*h = (*h ^ seg->seq.v) * 16777619ULL % 0xfffffffbULL;
	*h = (*h ^ seg->ack.v) * 16777619ULL % 0xfffffffbULL;
	*h = (*h ^ seg->wnd) * 16777619ULL % 0xfffffffbULL;
	return false;
}

static void test_same_again(void **state)
{
	const struct engine_config cfg = talk_config();
	const struct tcp_params p = params();
	uint64_t h[2] = { 1, 1 };

	for (int i = 0; i < 2; i++) {
		struct talk t;
		conn_id id[2];

		talk_open(&t, &cfg, &cfg);
		t.lose = digest;
		t.arg = &h[i];
		talk_connect(&t, &p, &p, id);
		transfer(&t, id, TALK_A, 500000, 20000);
		four_way(&t, id, TALK_A);
		talk_close(&t);
	}
	assert_true(h[0] != 1);
	assert_int_equal(h[0], h[1]);
}

static void test_limits(void **state)
{
	struct engine_config cfg = talk_config();
	const struct tcp_params p = params();
	struct listener_open listen = { .local = { addr_v4(10, 0, 0, 1), 1 }, .params = p };
	struct conn_open open = {
		.flow = { .local = { addr_v4(10, 0, 0, 1), 0 },
			  .remote = { addr_v4(10, 0, 0, 2), 9 } },
		.params = p,
	};
	listener_id lid;
	conn_id id;
	struct talk t;

	cfg.conns_max = 4;
	talk_open(&t, &cfg, &cfg);
	for (uint16_t i = 0; i < 4; i++) {
		listen.local.port = (uint16_t)(1 + i * 256); /* one bucket */
		assert_int_equal(engine_listen(t.e[TALK_A], t.now, &listen, &lid), 0);
		assert_int_equal(engine_listen(t.e[TALK_A], t.now, &listen, &lid), -EADDRINUSE);
	}
	listen.local.port = 7;
	assert_int_equal(engine_listen(t.e[TALK_A], t.now, &listen, &lid), -ENOBUFS);
	for (int i = 0; i < 4; i++)
		assert_int_equal(engine_connect(t.e[TALK_A], t.now, &open, &id), 0);
	assert_int_equal(engine_connect(t.e[TALK_A], t.now, &open, &id), -EADDRNOTAVAIL);
	open.flow.local.port = 61000;
	assert_int_equal(engine_connect(t.e[TALK_A], t.now, &open, &id), -EADDRINUSE);
	open.flow.local.port = 61004;
	assert_int_equal(engine_connect(t.e[TALK_A], t.now, &open, &id), -ENOBUFS);
	open.flow.remote.addr = addr_v4(224, 0, 0, 1); /* MUST-46 */
	assert_int_equal(engine_connect(t.e[TALK_A], t.now, &open, &id), -EINVAL);
	engine_check(t.e[TALK_A]);
	talk_close(&t);
}

/* Who connects to a listener of ours from its own port talks to himself; so does he who finds that nobody listens there. */
static void test_a_port_that_is_chosen_is_nobodys(void **state)
{
	const struct engine_config cfg = talk_config();
	const struct tcp_params p = params();

	for (int listens = 0; listens < 3; listens++) {
		const struct ipaddr ours = addr_v4(10, 0, 0, 1);
		const struct listener_open listen = {
			.local = { listens == 2 ? addr_any : ours, 61001 }, .params = p
		};
		/* To the port itself, or from beside a listener to anybody. */
		struct conn_open open = {
			.flow = { .local = { ours, 0 },
				  .remote = { listens ? addr_v4(10, 0, 0, 2) : ours, 61001 } },
			.params = p,
		};
		listener_id lid;
		unsigned n = 0;
		struct talk t;
		conn_id id;

		talk_open(&t, &cfg, &cfg);
		if (listens)
			assert_int_equal(engine_listen(t.e[TALK_A], t.now, &listen, &lid), 0);
		while (engine_connect(t.e[TALK_A], t.now, &open, &id) == 0) {
			assert_int_not_equal(status(&t, TALK_A, id).flow.local.port, 61001);
			n++;
		}
		assert_int_equal(n, cfg.local_port_max - cfg.local_port_min);
		open.flow.local.port = 61001; /* who asks for it has it */
		assert_int_equal(engine_connect(t.e[TALK_A], t.now, &open, &id), 0);
		talk_close(&t);
	}
}

/* Of several engines each chooses ports by which the answers come to it; a port that is given is taken. */
static void test_ports_by_which_the_answers_come(void **state)
{
	struct engine_config cfg = talk_config();
	const struct steer steer = { .workers = 3, .index = 2, .key = { 0x9e3779b1, 0x85ebca77 } };
	struct conn_open open = {
		.flow = { .local = { addr_v4(10, 0, 0, 1), 0 },
			  .remote = { addr_v4(10, 0, 0, 2), 9 } },
		.params = params(),
	};
	unsigned mine = 0, n = 0;
	struct talk t;
	conn_id id;

	cfg.steer = steer;
	talk_open(&t, &cfg, &cfg);
	for (uint32_t port = cfg.local_port_min; port <= cfg.local_port_max; port++)
		mine += steer_worker(&steer, &open.flow.remote.addr, 9, (uint16_t)port) == 2;
	assert_in_range(mine, 1, cfg.local_port_max - cfg.local_port_min);
	while (engine_connect(t.e[TALK_A], t.now, &open, &id) == 0) {
		const struct flow f = status(&t, TALK_A, id).flow;

		assert_true(steer_is_mine(&steer, &f));
		n++;
	}
	assert_int_equal(n, mine);
	assert_int_equal(engine_connect(t.e[TALK_A], t.now, &open, &id), -EADDRNOTAVAIL);
	open.flow.local.port = 1;
	assert_int_equal(engine_connect(t.e[TALK_A], t.now, &open, &id), 0);
	talk_close(&t);
}

/* TIME-WAIT has a limit: the oldest gives way. */
static void test_time_wait_max(void **state)
{
	struct engine_config cfg = talk_config();
	const struct tcp_params p = params();
	struct engine_counters c;
	struct talk t;
	conn_id id[3][2];

	cfg.time_wait_max = 2;
	talk_open(&t, &cfg, &cfg);
	for (int i = 0; i < 3; i++) {
		talk_connect(&t, &p, &p, id[i]);
		assert_int_equal(conn_close(t.e[TALK_A], t.now, id[i][TALK_A], CAUSE_USER), 0);
		assert_int_equal(conn_close(t.e[TALK_B], t.now, id[i][TALK_B], CAUSE_USER), 0);
		talk_run(&t, 100000);
	}
	/* Both closed at once: through CLOSING, and both sides wait. */
	assert_int_equal(talk_state(&t, TALK_A, id[0][TALK_A]), ST_CLOSED);
	assert_int_equal(status(&t, TALK_A, id[0][TALK_A]).reason, END_NORMAL);
	assert_int_equal(status(&t, TALK_A, id[0][TALK_A]).closed_by, CLOSED_BY_BOTH);
	assert_int_equal(talk_state(&t, TALK_A, id[1][TALK_A]), ST_TIME_WAIT);
	assert_int_equal(talk_state(&t, TALK_B, id[2][TALK_B]), ST_TIME_WAIT);
	engine_counters(t.e[TALK_A], &c);
	assert_int_equal(c.time_wait_cut_short, 1);
	assert_int_equal(c.conns_by_state[ST_TIME_WAIT], 2);
	talk_close(&t);
}

static struct segment syn_from(uint16_t port)
{
	return (struct segment){
		.flow = { .local = { addr_v4(10, 0, 0, 2), 80 },
			  .remote = { addr_v4(10, 0, 0, 1), port } },
		.seq = { port },
		.ctl = CTL_SYN,
		.wnd = 1000,
		.link_mtu = 1500,
	};
}

/* A flood of SYNs fills the backlog, is counted, and is gone after R2; RSTs free places at once. */
static void test_backlog(void **state)
{
	const struct engine_config cfg = talk_config();
	struct listener_open listen = { .local = { addr_any, 80 },
					.params = params(),
					.backlog = 3 };
	struct listener_status l;
	struct segment seg, out;
	struct talk t;
	listener_id id;

	listen.params.syn_cookies = TCP_COOKIES_NO;
	talk_open(&t, &cfg, &cfg);
	assert_int_equal(engine_listen(t.e[TALK_B], t.now, &listen, &id), 0);
	for (uint16_t port = 1; port <= 5; port++) {
		seg = syn_from(port);
		engine_input(t.e[TALK_B], t.now, &seg, NULL);
		engine_check(t.e[TALK_B]);
	}
	assert_int_equal(engine_listener_status(t.e[TALK_B], id, &l), 0);
	assert_int_equal(l.syn_received, 3);
	assert_int_equal(l.refused, 2);
	seg = syn_from(2);
	seg.seq = (seqno){ 3 };
	seg.ctl = CTL_RST;
	engine_input(t.e[TALK_B], t.now, &seg, NULL);
	assert_int_equal(engine_listener_status(t.e[TALK_B], id, &l), 0);
	assert_int_equal(l.syn_received, 2);
	t.lose = lose_all;
	talk_run(&t, listen.params.syn_timeout_us + 1);
	assert_int_equal(engine_listener_status(t.e[TALK_B], id, &l), 0);
	assert_int_equal(l.syn_received, 0);
	assert_int_equal(l.live, 0);
	assert_true(t.reports[TALK_B] & REPORT_CLOSED);
	assert_int_equal(t.last[TALK_B].reason, END_HANDSHAKE_TIMEOUT);
	assert_false(t.last[TALK_B].opened_before);
	/* Unlisten resets what is half open. */
	seg = syn_from(9);
	engine_input(t.e[TALK_B], t.now, &seg, NULL);
	assert_true(engine_output(t.e[TALK_B], t.now, &out));
	assert_int_equal(engine_unlisten(t.e[TALK_B], t.now, id), 0);
	assert_true(engine_output(t.e[TALK_B], t.now, &out));
	assert_int_equal(out.ctl, CTL_RST);
	assert_int_equal(engine_unlisten(t.e[TALK_B], t.now, id), -EBADF);
	engine_check(t.e[TALK_B]);
	talk_close(&t);
}

/* Listeners that share an address part what comes, each flow always to the same; what one had that is gone is the
 * others'. The most specific address comes first.
 */
static void test_reuse_port(void **state)
{
	enum { SHARERS = 3, FLOWS = 300 };
	struct engine_config cfg = talk_config();
	struct listener_open listen = { .local = { addr_any, 80 },
					.params = params(),
					.backlog = 2 * FLOWS };
	struct listener_status st[SHARERS];
	listener_id id[SHARERS], other;
	uint64_t all = 0;
	struct talk t;

	(void)state;
	cfg.conns_max = 4 * FLOWS;
	talk_open(&t, &cfg, &cfg);
	listen.params.syn_cookies = TCP_COOKIES_NO;
	assert_int_equal(engine_listen(t.e[TALK_B], t.now, &listen, &other), 0);
	listen.local.addr = addr_any4;
	listen.reuse_port = true;
	for (int i = 0; i < SHARERS; i++)
		assert_int_equal(engine_listen(t.e[TALK_B], t.now, &listen, &id[i]), 0);
	listen.reuse_port = false;
	assert_int_equal(engine_listen(t.e[TALK_B], t.now, &listen, &other), -EADDRINUSE);
	listen.reuse_port = true;
	listen.local.addr = addr_any;
	assert_int_equal(engine_listen(t.e[TALK_B], t.now, &listen, &other), -EADDRINUSE);
	for (int round = 0; round < 2; round++) {
		for (uint16_t port = 1; port <= FLOWS; port++) {
			const struct segment seg = syn_from(port);

			engine_input(t.e[TALK_B], t.now, &seg, NULL);
		}
		engine_check(t.e[TALK_B]);
	}
	for (int i = 0; i < SHARERS; i++) {
		assert_int_equal(engine_listener_status(t.e[TALK_B], id[i], &st[i]), 0);
		assert_in_range(st[i].syn_received, FLOWS / SHARERS / 2, FLOWS / SHARERS * 2);
		all += st[i].syn_received;
	}
	assert_int_equal(all, FLOWS);
	assert_int_equal(engine_unlisten(t.e[TALK_B], t.now, id[1]), 0);
	for (uint16_t port = 1; port <= FLOWS; port++) {
		const struct segment seg = syn_from((uint16_t)(FLOWS + port));

		engine_input(t.e[TALK_B], t.now, &seg, NULL);
	}
	for (int i = 0; i < SHARERS; i += 2) {
		const uint32_t before = st[i].syn_received;

		assert_int_equal(engine_listener_status(t.e[TALK_B], id[i], &st[i]), 0);
		assert_in_range(st[i].syn_received - before, FLOWS / 3, FLOWS * 2 / 3);
	}
	talk_close(&t);
}

/* [*]: every address of IPv6, none of IPv4. */
static void test_listener_of_ipv6_alone(void **state)
{
	const struct engine_config cfg = talk_config();
	struct listener_open listen = { .local = { addr_any6, 80 }, .params = params() };
	struct listener_status st;
	struct segment seg = syn_from(1), out;
	listener_id id;
	struct talk t;

	(void)state;
	talk_open(&t, &cfg, &cfg);
	assert_int_equal(engine_listen(t.e[TALK_B], t.now, &listen, &id), 0);
	engine_input(t.e[TALK_B], t.now, &seg, NULL);
	assert_true(engine_output(t.e[TALK_B], t.now, &out));
	assert_int_equal(out.ctl, CTL_RST | CTL_ACK);
	seg.flow.local.addr = (struct ipaddr){ { 0x20, 1, [15] = 2 } };
	seg.flow.remote.addr = (struct ipaddr){ { 0x20, 1, [15] = 1 } };
	engine_input(t.e[TALK_B], t.now, &seg, NULL);
	assert_int_equal(engine_listener_status(t.e[TALK_B], id, &st), 0);
	assert_int_equal(st.syn_received, 1);
	talk_close(&t);
}

/* Two connections want chunks, the pool has few: who waits is told when there are some again. */
static void test_waiting_for_chunks(void **state)
{
	struct engine_config cfg = talk_config();
	const struct tcp_params p = params();
	static uint8_t buf[ENGINE_CHUNK_BYTES * 8];
	struct talk t;
	conn_id one[2], two[2];
	size_t n;

	cfg.chunks_max = 2; /* one of them in reserve */
	talk_open(&t, &cfg, &cfg);
	talk_connect(&t, &p, &p, one);
	talk_connect(&t, &p, &p, two);
	t.lose = lose_all;
	assert_int_equal(conn_send(t.e[TALK_A], t.now, one[TALK_A], buf, sizeof(buf), &n), 0);
	assert_int_equal(n, ENGINE_CHUNK_BYTES);
	assert_int_equal(conn_send(t.e[TALK_A], t.now, two[TALK_A], buf, sizeof(buf), &n), 0);
	assert_int_equal(n, 0);
	t.reports[TALK_A] = 0;
	talk_run(&t, 100);
	assert_int_equal(t.reports[TALK_A], 0);
	assert_int_equal(
		conn_abort(t.e[TALK_A], t.now, one[TALK_A], CAUSE_OPERATOR, END_RESET_BY_OPERATOR),
		0);
	talk_run(&t, 100);
	assert_true(t.reports[TALK_A] & REPORT_WRITABLE);
	assert_int_equal(t.last[TALK_A].id.slot, two[TALK_A].slot);
	assert_int_equal(conn_send(t.e[TALK_A], t.now, two[TALK_A], buf, sizeof(buf), &n), 0);
	assert_int_equal(n, ENGINE_CHUNK_BYTES);
	assert_int_equal(status(&t, TALK_A, one[TALK_A]).reason, END_RESET_BY_OPERATOR);
	assert_int_equal(status(&t, TALK_A, one[TALK_A]).closed_by, CLOSED_BY_LOCAL);
	talk_close(&t);
}

/* What A has sent arrives and is read. */
static void read_all(struct talk *t, const conn_id id[2], uint8_t *buf, size_t len)
{
	size_t n;

	talk_run(t, 5000);
	do
		assert_int_equal(conn_receive(t->e[TALK_B], t->now, id[TALK_B], buf, len, &n), 0);
	while (n);
}

/* A step of a transfer from A: sends all it can, and has it read. */
static void step(struct talk *t, const conn_id id[2])
{
	static uint8_t buf[4 << 20];
	size_t n;

	assert_int_equal(conn_send(t->e[TALK_A], t->now, id[TALK_A], buf, sizeof(buf), &n), 0);
	read_all(t, id, buf, sizeof(buf));
}

/* The octets that A sends of one connection in a row, from this segment on, which then is the next one's. */
static uint32_t next_turn(struct talk *t, struct segment *seg, uint16_t *ret_port)
{
	uint32_t bytes = 0;

	*ret_port = seg->flow.local.port;
	do
		bytes += seg_text_len(seg);
	while (engine_output(t->e[TALK_A], t->now, seg) && seg->flow.local.port == *ret_port);
	return bytes;
}

/* Who has much to send goes on for a while, and then the others do. */
static void test_turns(void **state)
{
	enum { TURN = 1 << 20, SUPER = 65536 };
	const struct engine_config cfg = talk_config();
	struct tcp_params p = params();
	static uint8_t buf[5 << 19]; /* two turns of each, and a little */
	struct segment seg;
	struct talk t;
	conn_id one[2], two[2];
	uint16_t port = 0, last;
	size_t n;

	p.not_sent_lowat_bytes = p.send_buffer_bytes;
	p.receive_initial_bytes = p.receive_buffer_bytes;
	talk_open(&t, &cfg, &cfg);
	talk_connect(&t, &p, &p, one);
	talk_connect(&t, &p, &p, two);
	for (unsigned i = 0; i < 100; i++) {
		step(&t, one);
		step(&t, two);
	}
	talk_run(&t, 50000); /* all is acknowledged; who is idle for longer begins anew */
	assert_true(status(&t, TALK_A, one[TALK_A]).cwnd_bytes > sizeof(buf));
	assert_true(status(&t, TALK_A, two[TALK_A]).cwnd_bytes > sizeof(buf));
	assert_int_equal(conn_send(t.e[TALK_A], t.now, one[TALK_A], buf, sizeof(buf), &n), 0);
	assert_int_equal(n, sizeof(buf));
	assert_int_equal(conn_send(t.e[TALK_A], t.now, two[TALK_A], buf, sizeof(buf), &n), 0);
	assert_int_equal(n, sizeof(buf));
	assert_true(engine_output(t.e[TALK_A], t.now, &seg));
	for (unsigned i = 0; i < 4; i++) {
		last = port;
		assert_in_range(next_turn(&t, &seg, &port), TURN, TURN + SUPER);
		assert_int_not_equal(port, last);
	}
	talk_close(&t);
}

/* Who has little to send goes before those who have much, but a segment of theirs is let in now and then. */
static void test_little_goes_first(void **state)
{
	enum { LITTLE = 65536, IN_A_ROW = 64, MSS = 1448, CONNS = 3 };
	const struct engine_config cfg = talk_config();
	struct tcp_params p = params();
	static uint8_t buf[1 << 20];
	uint32_t bytes[CONNS] = { 0 };
	uint16_t port[CONNS];
	conn_id id[CONNS][2];
	struct segment seg;
	struct talk t;
	unsigned n_before = 0;
	size_t n;

	p.not_sent_lowat_bytes = p.send_buffer_bytes;
	p.receive_initial_bytes = p.receive_buffer_bytes;
	talk_open(&t, &cfg, &cfg);
	for (unsigned c = 0; c < CONNS; c++) {
		talk_connect(&t, &p, &p, id[c]);
		port[c] = status(&t, TALK_A, id[c][TALK_A]).flow.local.port;
	}
	for (unsigned i = 0; i < 100 * CONNS; i++)
		step(&t, id[i % CONNS]);
	talk_run(&t, 50000);
	/* The first has much. The others had little when they were put in the row. */
	for (unsigned c = 0; c < CONNS; c++) {
		assert_true(status(&t, TALK_A, id[c][TALK_A]).cwnd_bytes > sizeof(buf) / 2);
		if (c > 0) {
			assert_int_equal(conn_send(t.e[TALK_A], t.now, id[c][TALK_A], buf, 100, &n),
					 0);
			assert_int_equal(n, 100);
		}
		assert_int_equal(
			conn_send(t.e[TALK_A], t.now, id[c][TALK_A], buf, sizeof(buf) / 2, &n), 0);
		assert_int_equal(n, sizeof(buf) / 2);
	}
	for (;; n_before++) {
		assert_true(engine_output(t.e[TALK_A], t.now, &seg));
		if (seg.flow.local.port == port[0])
			break;
		bytes[seg.flow.local.port == port[1] ? 1 : 2] += seg_text_len(&seg);
	}
	assert_int_equal(n_before, IN_A_ROW);
	assert_in_range(bytes[1], LITTLE, LITTLE + MSS);
	assert_in_range(bytes[2], MSS, LITTLE);
	/* Then the second is done with what is little. */
	while (engine_output(t.e[TALK_A], t.now, &seg) && seg.flow.local.port == port[2])
		bytes[2] += seg_text_len(&seg);
	assert_in_range(bytes[2], LITTLE, LITTLE + MSS);
	assert_int_equal(seg.flow.local.port, port[0]);
	talk_close(&t);
}

/* How much of it is taken by a new connection, whose queue takes 65536 octets. */
static size_t takes(struct talk *t, conn_id id, size_t len)
{
	static const uint8_t buf[1 << 20];
	size_t n;

	assert_int_equal(conn_send(t->e[TALK_A], t->now, id, buf, len, &n), 0);
	return n;
}

/* Text that has no room as a whole is cut where a super-segment ends. */
static void test_room_for_super_segments(void **state)
{
	enum { SUPER = 65535 / 1448 * 1448, ROOM = 65536, MUCH = 1 << 20 };
	struct engine_config cfg = talk_config();
	const struct tcp_params p = params();
	struct segment seg;
	struct talk t;
	conn_id id[2];

	cfg.segment_bytes_max = 65535;
	talk_open(&t, &cfg, &cfg);
	talk_connect(&t, &p, &p, id);
	assert_int_equal(takes(&t, id[TALK_A], MUCH), SUPER);
	/* All of it has room: it is not cut. */
	assert_int_equal(takes(&t, id[TALK_A], 100), 100);
	/* No super-segment ends in what is left. */
	assert_int_equal(takes(&t, id[TALK_A], MUCH), ROOM - SUPER - 100);
	talk_connect(&t, &p, &p, id);
	assert_int_equal(takes(&t, id[TALK_A], 1000), 1000);
	assert_int_equal(takes(&t, id[TALK_A], MUCH), SUPER - 1000);
	/* What has been sent is no part of one. */
	talk_connect(&t, &p, &p, id);
	assert_int_equal(takes(&t, id[TALK_A], 1000), 1000);
	assert_true(engine_output(t.e[TALK_A], t.now, &seg));
	assert_int_equal(seg_text_len(&seg), 1000);
	assert_int_equal(takes(&t, id[TALK_A], MUCH), ROOM - 1000);
	talk_connect(&t, &p, &p, id);
	assert_int_equal(takes(&t, id[TALK_A], ROOM), ROOM);
	talk_close(&t);
	cfg.segment_bytes_max = 0;
	talk_open(&t, &cfg, &cfg);
	talk_connect(&t, &p, &p, id);
	assert_int_equal(takes(&t, id[TALK_A], MUCH), ROOM);
	talk_close(&t);
}

/* A text that repeats may wait in larger amounts than others. */
static void test_pattern_ahead(void **state)
{
	enum { PERIOD = 100, MUCH = 4 << 20, AHEAD = 1 << 20, LOWAT = 256 << 10, MSS = 1448 };
	static uint8_t bytes[PERIOD + ENGINE_CHUNK_BYTES], buf[MUCH];
	const struct pattern pattern = { bytes, PERIOD, sizeof(bytes) };
	const struct engine_config cfg = talk_config();
	struct tcp_params p = params();
	uint32_t at = 0;
	struct talk t;
	conn_id id[2];
	size_t n;

	assert_int_equal(p.not_sent_lowat_bytes, LOWAT);
	p.receive_initial_bytes = p.receive_buffer_bytes;
	talk_open(&t, &cfg, &cfg);
	talk_connect(&t, &p, &p, id);
	for (unsigned i = 0; i < 100; i++, at = (uint32_t)((at + n) % PERIOD)) {
		assert_int_equal(
			conn_send_pattern(t.e[TALK_A], t.now, id[TALK_A], &pattern, at, MUCH, &n),
			0);
		read_all(&t, id, buf, sizeof(buf));
	}
	assert_true(status(&t, TALK_A, id[TALK_A]).cwnd_bytes > AHEAD);
	assert_in_range(n, AHEAD - MSS, AHEAD);
	assert_int_equal(conn_send_pattern(t.e[TALK_A], t.now, id[TALK_A], &pattern, at, MUCH, &n),
			 0);
	assert_in_range(n, AHEAD - MSS, AHEAD);
	assert_int_equal(conn_send(t.e[TALK_A], t.now, id[TALK_A], buf, MUCH, &n), 0);
	assert_int_equal(n, 0);
	read_all(&t, id, buf, sizeof(buf));
	assert_int_equal(conn_send(t.e[TALK_A], t.now, id[TALK_A], buf, MUCH, &n), 0);
	assert_in_range(n, LOWAT - MSS, LOWAT);
	talk_close(&t);
}

/* Direct delivery: what the service does not take is kept, the FIN behind it waits for it. */
static void test_direct(void **state)
{
	const struct engine_config cfg = talk_config();
	const struct tcp_params p = params();
	uint8_t text[1000], got[1000];
	struct conn_status s;
	struct delivery d;
	struct segment seg;
	struct talk t;
	conn_id id[2];
	size_t n;

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = octet(i);
	talk_open(&t, &cfg, &cfg);
	talk_connect(&t, &p, &p, id);
	assert_int_equal(conn_set_direct(t.e[TALK_B], id[TALK_B], true), 0);
	s = status(&t, TALK_B, id[TALK_B]);
	seg = (struct segment){
		.flow = s.flow,
		.seq = s.rcv_nxt,
		.ack = s.snd_nxt,
		.ctl = CTL_ACK | CTL_FIN,
		.wnd = 100,
		.options = OPT_TIMESTAMPS,
		.spans_n = 1,
		.text = { { text, sizeof(text) } },
	};
	assert_true(s.timestamps);
	/* Whatever TS.Recent is, this is not before it. */
	for (d.text.len = 0; d.text.len == 0; seg.ts_val += 1U << 30) {
		assert_true(seg.ts_val <= 3U << 30);
		engine_input(t.e[TALK_B], t.now, &seg, &d);
	}
	assert_int_equal(d.text.len, sizeof(text));
	assert_ptr_equal(d.text.base, text);
	/* What an echo does: the delivery goes back before it is answered. */
	assert_int_equal(conn_send(t.e[TALK_B], t.now, id[TALK_B], d.text.base, 400, &n), 0);
	assert_int_equal(n, 400);
	conn_delivered(t.e[TALK_B], t.now, &d, 400);
	assert_int_equal(status(&t, TALK_B, id[TALK_B]).send_queue_bytes, 400);
	engine_check(t.e[TALK_B]);
	assert_int_equal(talk_state(&t, TALK_B, id[TALK_B]), ST_CLOSE_WAIT);
	assert_false(conn_at_eof(t.e[TALK_B], id[TALK_B]));
	assert_int_equal(conn_receive(t.e[TALK_B], t.now, id[TALK_B], got, sizeof(got), &n), 0);
	assert_int_equal(n, 600);
	assert_memory_equal(got, text + 400, 600);
	assert_true(conn_at_eof(t.e[TALK_B], id[TALK_B]));
	talk_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_loss),
		cmocka_unit_test(test_tiny_pool),
		cmocka_unit_test(test_closed_window),
		cmocka_unit_test(test_peer_gone),
		cmocka_unit_test(test_refused_and_cancelled),
		cmocka_unit_test(test_unread_at_close),
		cmocka_unit_test(test_same_again),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_a_port_that_is_chosen_is_nobodys),
		cmocka_unit_test(test_ports_by_which_the_answers_come),
		cmocka_unit_test(test_time_wait_max),
		cmocka_unit_test(test_backlog),
		cmocka_unit_test(test_reuse_port),
		cmocka_unit_test(test_listener_of_ipv6_alone),
		cmocka_unit_test(test_waiting_for_chunks),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_little_goes_first),
		cmocka_unit_test(test_room_for_super_segments),
		cmocka_unit_test(test_pattern_ahead),
		cmocka_unit_test(test_direct),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
