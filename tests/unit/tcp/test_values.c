/* SPDX-License-Identifier: Apache-2.0 */
/* Sequence numbers, initial sequence numbers, parameters, names, the state table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tcp/engine.h"

static void test_seqno(void **state)
{
	static const uint32_t at[] = { 0,          1,          5,          0x7fffffff,
				       0x80000000, 0x80000001, 0xfffffffe, 0xffffffff };

	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		const seqno a = { at[i] };

		for (uint32_t d = 1; d < 0x40000000U; d = d * 3 + 1) {
			const seqno b = seq_add(a, d);

			assert_int_equal(seq_sub(b, a), d);
			assert_true(seq_lt(a, b) && !seq_lt(b, a) && seq_le(a, b) && !seq_le(b, a));
			assert_true(seq_eq(seq_max(a, b), b) && seq_eq(seq_min(a, b), a));
			assert_int_equal(seq_ahead(b, a), d);
			assert_int_equal(seq_ahead(a, b), 0);
			assert_true(seq_in(b, a, d + 1) && !seq_in(b, a, d));
		}
		assert_true(seq_le(a, a) && !seq_lt(a, a) && !seq_in(a, a, 0) && seq_in(a, a, 1));
	}
}

static struct engine *engine_new(uint64_t secret)
{
	const struct engine_config cfg = { .conns_max = 1,
					   .chunks_max = 1,
					   .secret = { secret, 9 } };

	return engine_init(calloc(1, engine_size(&cfg)), &cfg, (vtime){ 0 });
}

/* RFC 6528: a clock of 4 us (MUST-8) on a keyed function of the flow (MUST-9, SHLD-1). */
static void test_isn(void **state)
{
	struct engine *e = engine_new(1), *other = engine_new(2);
	struct flow f = { .local = { addr_v4(10, 0, 0, 1), 80 },
			  .remote = { addr_v4(10, 0, 0, 2), 5000 } };
	const vtime now = { 77777777 };
	const seqno isn = engine_isn(e, &f, now);
	unsigned same = 0;

	assert_true(seq_eq(isn, engine_isn(e, &f, now)));
	assert_int_equal(seq_sub(engine_isn(e, &f, vtime_add(now, 4000000)), isn), 1000000);
	/* In 4.77 hours it is around once. */
	assert_int_equal(seq_sub(engine_isn(e, &f, vtime_add(now, 4ULL << 32)), isn), 0);
	assert_false(seq_eq(isn, engine_isn(other, &f, now)));
	for (uint16_t port = 1; port < 2000; port++) {
		const seqno before = engine_isn(e, &f, now);

		f.remote.port = port;
		same += seq_eq(before, engine_isn(e, &f, now));
	}
	assert_int_equal(same, 0);
	free(e);
	free(other);
}

static void test_params(void **state)
{
	struct tcp_params p;

	memset(&p, 0xff, sizeof(p));
	tcp_params_default(&p);
	assert_int_equal(p.msl_us, 30000000);
	assert_true(p.syn_timeout_us >= 180000000); /* MUST-23 */
	assert_true(p.user_timeout_us >= 100000000); /* SHLD-11 */
	assert_true(p.delayed_ack_us < 500000); /* MUST-40 */
	assert_true(p.rto_max_us >= 60000000); /* RFC 6298 2.5 */
	assert_int_equal(p.initial_window, 10); /* RFC 6928 */
	assert_true(p.nagle && p.timestamps && p.window_scaling && p.sack && p.rfc5961);
}

static void test_names(void **state)
{
	char buf[CAUSE_TEXT];

	assert_string_equal(rule_key(RULE_ARRIVES_ACK), "arrives_ack");
	assert_string_equal(rule_text(RULE_ARRIVES_ACK), "RFC 9293 3.10.7.4 fifth");
	assert_string_equal(end_reason_key(END_RESET_BY_PEER), "reset_by_peer");
	assert_string_equal(closed_by_key(CLOSED_BY_BOTH), "both");
	assert_string_equal(cause_format(CAUSE_SEGMENT, CTL_SYN | CTL_ACK, buf), "segment SYN,ACK");
	assert_string_equal(cause_format(CAUSE_SEGMENT, 0, buf), "segment");
	assert_string_equal(cause_format(CAUSE_SEGMENT, 0xff, buf),
			    "segment FIN,SYN,RST,PSH,ACK,URG,ECE,CWR");
	assert_string_equal(cause_format(CAUSE_TIMER, TIMER_TIME_WAIT, buf), "timer time_wait");
	assert_string_equal(cause_format(CAUSE_USER, 0, buf), "user");
	for (int i = 0; i < RULE__COUNT; i++)
		assert_true(rule_key((enum rule)i)[0] && rule_text((enum rule)i)[0]);
	for (int i = 0; i < END__COUNT; i++)
		assert_true(end_reason_key((enum end_reason)i)[0] &&
			    end_reason_text((enum end_reason)i)[0]);
}

/* RFC 9293 Figure 5, as this implementation reaches it. */
static void test_states(void **state)
{
	unsigned edges = 0;

	for (int from = 0; from < ST__COUNT; from++)
		for (int to = 0; to < ST__COUNT; to++)
			edges += state_may_follow((enum tcp_state)from, (enum tcp_state)to);
	assert_int_equal(edges, 24);
	assert_true(state_may_follow(ST_FIN_WAIT_1, ST_CLOSING));
	assert_false(state_may_follow(ST_TIME_WAIT, ST_ESTABLISHED));
	assert_false(state_may_follow(ST_ESTABLISHED, ST_TIME_WAIT));
	assert_string_equal(state_name(ST_CLOSE_WAIT), "CLOSE-WAIT");
}

/* Many connections, few buckets' worth of difference between them: found, distinct, and gone again. */
static void test_table(void **state)
{
	enum { N = 20000 };
	const struct engine_config cfg = {
		.conns_max = N, .chunks_max = 1, .secret = { 3, 4 }, .serial_first = 10
	};
	struct engine *e = engine_init(calloc(1, engine_size(&cfg)), &cfg, (vtime){ 0 });
	struct conn_open open = { .flow = { .local = { addr_v4(10, 0, 0, 1), 1 },
					    .remote = { addr_v4(10, 0, 0, 2), 1 } } };
	struct engine_counters c;
	struct segment seg;
	uint32_t cursor = 0;
	conn_id id, at;

	tcp_params_default(&open.params);
	for (uint32_t i = 0; i < N; i++) {
		open.flow.local.port = (uint16_t)(1 + i % 200);
		open.flow.remote.port = (uint16_t)(1 + i / 200);
		assert_int_equal(engine_connect(e, (vtime){ i }, &open, &id), 0);
	}
	for (uint32_t i = 0; i < N; i++) { /* each gets its own RST, for its own SYN */
		assert_true(engine_output(e, (vtime){ N }, &seg));
		assert_int_equal(seg.ctl, CTL_SYN);
		seg.ack = seq_add(seg.seq, 1);
		seg.ctl = CTL_RST | CTL_ACK;
		if (i % 3)
			engine_input(e, (vtime){ N }, &seg, NULL);
	}
	assert_false(engine_output(e, (vtime){ N }, &seg));
	engine_counters(e, &c);
	assert_int_equal(c.conns_by_state[ST_CLOSED], N - (N + 2) / 3);
	assert_int_equal(c.resets_in, N - (N + 2) / 3);
	for (uint32_t n = 0; engine_next_conn(e, &cursor, &id); n++) {
		struct conn_status s;

		assert_int_equal(conn_status(e, id, &s), 0);
		assert_int_equal((s.serial - 10) % 3, 0);
		if (n < 100) {
			assert_true(engine_find_serial(e, s.serial, &at));
			assert_int_equal(at.slot, id.slot);
		}
	}
	engine_check(e);
	free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_seqno),  cmocka_unit_test(test_isn),
		cmocka_unit_test(test_params), cmocka_unit_test(test_names),
		cmocka_unit_test(test_states), cmocka_unit_test(test_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
