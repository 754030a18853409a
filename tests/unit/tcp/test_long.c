/* SPDX-License-Identifier: Apache-2.0 */
/* A connection that lives long: sequence numbers come round. What was noted before 2 GiB must not seem to lie
 * ahead, and after 4 GiB the numbers of the handshake come again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tcp/tcb.h"

enum { MSS = 1000, SEND_BYTES = 8 << 20, WSCALE = 14 };

/* Our connection, and a peer that acknowledges what it likes. */
struct link_to_peer {
	struct engine *e;
	conn_id id;
	seqno rcv_nxt; /* the peer's SND.NXT: it sends no text */
	uint8_t *text;
};

static const struct flow flow = { .local = { { { [10] = 255, 255, 10, 0, 0, 1 } }, 80 },
				  .remote = { { { [10] = 255, 255, 10, 0, 0, 9 } }, 1234 } };

static void arrives(struct link_to_peer *p, uint8_t ctl, seqno ack, const struct sack_block *sack)
{
	struct segment seg = {
		.flow = flow,
		.seq = p->rcv_nxt,
		.ack = ack,
		.ctl = ctl,
		.wnd = UINT16_MAX,
		.link_mtu = 1500,
	};

	if (ctl & CTL_SYN) {
		seg.options = OPT_MSS | OPT_WSCALE | OPT_SACK_PERMITTED;
		seg.mss = MSS;
		seg.wscale = WSCALE;
		p->rcv_nxt = seq_add(p->rcv_nxt, 1);
	}
	if (sack) {
		seg.options |= OPT_SACK;
		seg.sacks[0] = *sack;
		seg.sacks_n = 1;
	}
	engine_input(p->e, p->e->now, &seg, NULL);
	engine_check(p->e);
}

/* The next segment of ours. */
static struct segment sent(struct link_to_peer *p)
{
	struct segment seg;

	assert_true(engine_output(p->e, p->e->now, &seg));
	engine_check(p->e);
	return seg;
}

static void send_all(struct link_to_peer *p)
{
	struct segment seg;

	while (engine_output(p->e, p->e->now, &seg))
		engine_check(p->e);
}

static struct link_to_peer open_link(void)
{
	const struct engine_config cfg = {
		.conns_max = 4,
		.listeners_max = 1,
		.chunks_max = 4 * SEND_BYTES / ENGINE_CHUNK_BYTES,
		.segment_bytes_max = 65535,
		.secret = { 1, 2 },
	};
	struct listener_open open = { .local = flow.local, .backlog = 1 };
	struct link_to_peer p = { .text = malloc(SEND_BYTES), .rcv_nxt = { 5000 } };
	struct report report = { 0 };
	listener_id listener;

	memset(p.text, 'x', SEND_BYTES);
	p.e = engine_init(calloc(1, engine_size(&cfg)), &cfg, (vtime){ 1000000 });
	tcp_params_default(&open.params);
	open.params.timestamps = false;
	open.params.congestion_control = TCP_CC_NEWRENO;
	open.params.send_buffer_bytes = 2 * SEND_BYTES;
	open.params.ecn = TCP_ECN_ON;
	assert_int_equal(engine_listen(p.e, p.e->now, &open, &listener), 0);
	arrives(&p, CTL_SYN | CTL_ECE | CTL_CWR, (seqno){ 0 }, NULL);
	arrives(&p, CTL_ACK, seq_add(sent(&p).seq, 1), NULL);
	while (engine_next_report(p.e, &report))
		p.id = report.id;
	return p;
}

static void close_link(struct link_to_peer *p)
{
	free(p->text);
	free(p->e);
}

static struct tcb *tcb_of(struct link_to_peer *p)
{
	return engine_find(p->e, p->id);
}

/* How much of it was taken. */
static uint32_t offer(struct link_to_peer *p, uint32_t n)
{
	size_t taken;

	assert_int_equal(conn_send(p->e, p->e->now, p->id, p->text, n, &taken), 0);
	return (uint32_t)taken;
}

static void give(struct link_to_peer *p, uint32_t n)
{
	assert_int_equal(offer(p, n), n);
}

/* All of it is sent and acknowledged, nothing is lost, and the SYN is not sent again. */
static void transfer(struct link_to_peer *p, uint64_t bytes)
{
	struct segment seg;

	while (bytes) {
		const uint32_t n = offer(p, bytes < SEND_BYTES ? (uint32_t)bytes : SEND_BYTES);

		while (tcb_of(p)->sendq.used) {
			while (engine_output(p->e, p->e->now, &seg))
				assert_false(seg.ctl & CTL_SYN);
			arrives(p, CTL_ACK, tcb_of(p)->snd.nxt, NULL);
		}
		bytes -= n;
	}
	assert_int_equal(p->e->counters.retransmitted_segments, 0);
}

/* A mark and a loss count as on the first day: RFC 3168 6.1.2, RFC 6675 5. */
static void test_loss_and_marks_after_two_gib(void **state)
{
	struct link_to_peer p = open_link();
	struct sack_block sack;
	seqno una;

	transfer(&p, (1ULL << 31) + SEND_BYTES);
	una = tcb_of(&p)->snd.una;
	give(&p, 20 * MSS);
	send_all(&p);
	p.e->now.us += 10000;
	arrives(&p, CTL_ACK | CTL_ECE, seq_add(una, 2 * MSS), NULL);
	assert_int_equal(p.e->counters.ecn_reductions, 1);
	sack = (struct sack_block){ seq_add(una, 3 * MSS), seq_add(una, 6 * MSS) };
	arrives(&p, CTL_ACK, seq_add(una, 2 * MSS), &sack);
	assert_int_equal(p.e->counters.fast_retransmits, 1);
	assert_int_equal(sent(&p).seq.v, seq_add(una, 2 * MSS).v);
	close_link(&p);
}

/* SND.UNA, and what is sent next, are the ISS again. */
static void test_initial_number_comes_again(void **state)
{
	struct link_to_peer p = open_link();
	struct segment seg;

	transfer(&p, UINT32_MAX);
	assert_int_equal(tcb_of(&p)->snd.una.v, tcb_of(&p)->iss.v);
	give(&p, 2 * MSS);
	seg = sent(&p);
	assert_int_equal(seg.ctl & CTL_SYN, 0);
	assert_int_equal(seg.seq.v, tcb_of(&p)->iss.v);
	assert_int_equal(seg.text[0].len, 2 * MSS);
	engine_rest_all(p.e);
	arrives(&p, CTL_ACK, seq_add(seg.seq, 2 * MSS), NULL);
	assert_int_equal(tcb_of(&p)->sendq.used, 0);
	assert_int_equal(tcb_of(&p)->bytes_out, UINT32_MAX + 2ULL * MSS);
	transfer(&p, 10 * MSS);
	close_link(&p);
}

static void ack_all(struct link_to_peer *p, const struct sack_block *sack)
{
	arrives(p, CTL_ACK, tcb_of(p)->snd.nxt, sack);
	assert_int_equal(tcb_of(p)->sendq.used, 0);
}

/* A round trip in which nothing is lost. */
static void round_trip(struct link_to_peer *p, uint32_t n)
{
	give(p, n);
	send_all(p);
	p->e->now.us += 10000;
	ack_all(p, NULL);
}

static void recover_fast(struct link_to_peer *p)
{
	const uint64_t before = p->e->counters.fast_retransmits;
	struct sack_block sack;
	seqno una;

	while (tcb_of(p)->cc.cwnd < 10 * MSS)
		round_trip(p, tcb_of(p)->cc.cwnd / MSS * MSS);
	una = tcb_of(p)->snd.una;
	sack = (struct sack_block){ seq_add(una, MSS), seq_add(una, 4 * MSS) };
	give(p, 5 * MSS);
	send_all(p);
	p->e->now.us += 10000;
	arrives(p, CTL_ACK, una, &sack);
	assert_int_equal(p->e->counters.fast_retransmits, before + 1);
	send_all(p);
	p->e->now.us += 10000;
	arrives(p, CTL_ACK, seq_add(una, 4 * MSS), NULL); /* partial: it goes on */
	ack_all(p, NULL);
}

static void recover_by_the_timer(struct link_to_peer *p)
{
	const uint64_t before = p->e->counters.rto_expired;

	give(p, MSS);
	send_all(p);
	while (p->e->counters.rto_expired == before) {
		const vtime due = engine_deadline(p->e);

		engine_expire(p->e, vtime_before(due, p->e->now) ? p->e->now : due);
		send_all(p);
	}
	p->e->now.us += 10000;
	ack_all(p, NULL);
}

/* RFC 8985 6.2 step 4: a DSACK widens the reordering window for sixteen recoveries, fast ones or by the timer. */
static void test_dsack_is_forgotten(void **state)
{
	struct link_to_peer p = open_link();
	struct sack_block twice;

	p.e->now.us += 10000;
	transfer(&p, 10 * MSS);
	twice = (struct sack_block){ tcb_of(&p)->snd.una, seq_add(tcb_of(&p)->snd.una, MSS) };
	give(&p, 2 * MSS);
	send_all(&p);
	p.e->now.us += 10000;
	ack_all(&p, &twice);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(tcb_of(&p)->cc.reo_steps, 1);
		if (i % 2)
			recover_fast(&p);
		else
			recover_by_the_timer(&p);
	}
	assert_int_equal(tcb_of(&p)->cc.reo_steps, 0);
	close_link(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_loss_and_marks_after_two_gib),
		cmocka_unit_test(test_initial_number_comes_again),
		cmocka_unit_test(test_dsack_is_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
