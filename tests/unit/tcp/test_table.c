/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of connections grow and shrink by a bucket at a time; sets of parameters are shared. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tcp/tcb.h"

enum { CONNS = 3000 };

static struct engine *engine_new(void)
{
	const struct engine_config cfg = { .conns_max = CONNS,
					   .listeners_max = 2,
					   .chunks_max = 1,
					   .serial_first = 7,
					   .serial_step = 3,
					   .secret = { 1, 2 } };

	return engine_init(calloc(1, engine_size(&cfg)), &cfg, (vtime){ 0 });
}

static struct conn_open open_of(unsigned i)
{
	struct conn_open open = { .flow = {
					  .local = { addr_v4(10, 0, 0, 1), 1000 },
					  .remote = { addr_v4(10, 0, 1, 1), (uint16_t)(1 + i) } } };

	tcp_params_default(&open.params);
	return open;
}

static void check_tables(const struct engine *e, uint32_t conns)
{
	for (unsigned i = 0; i < BY__COUNT; i++) {
		const struct table *const m = &e->tables[i];

		assert_int_equal(m->used, conns);
		assert_true(m->n > m->mask >> 1 && m->n <= m->mask + 1);
		assert_true(m->n >= conns && m->n <= max_u32(2 * conns, 1) + 1);
	}
}

static void end_conn(struct engine *e, conn_id id)
{
	assert_int_equal(conn_abort(e, (vtime){ 0 }, id, CAUSE_USER, END_CANCELLED), 0);
	conn_release(e, id);
}

/* Up, down and up again, in another order: each is found at any size, and no other. */
static void test_growth(void **state)
{
	struct engine *const e = engine_new();
	conn_id ids[CONNS], id;

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < CONNS; i++) {
			const struct conn_open open = open_of(i);

			assert_int_equal(engine_connect(e, (vtime){ 0 }, &open, &ids[i]), 0);
			assert_int_equal(engine_connect(e, (vtime){ 0 }, &open, &id), -EADDRINUSE);
			check_tables(e, i + 1);
		}
		engine_check(e);
		for (unsigned i = 0; i < CONNS; i++) {
			const uint64_t serial = 7 + 3 * (uint64_t)(round * CONNS + i);

			assert_true(engine_find_serial(e, serial, &id));
			assert_int_equal(id.slot, ids[i].slot);
			assert_int_equal(id.gen, ids[i].gen);
			assert_false(engine_find_serial(e, serial + 1, &id));
		}
		for (unsigned i = 0; i < CONNS; i++) {
			end_conn(e, ids[i * 7 % CONNS]);
			if (i % 100 == 0)
				engine_check(e);
		}
		assert_int_equal(e->tables[BY_FLOW].used, 0);
		assert_int_equal(e->tables[BY_SERIAL].n, 1);
	}
	assert_false(engine_find_serial(e, 7, &id));
	free(e);
}

static void test_parameters_are_shared(void **state)
{
	struct engine *const e = engine_new();
	struct conn_open open = open_of(0);
	conn_id ids[CONNS], id;
	unsigned n = 0;

	for (unsigned i = 0; i < 3; i++) {
		open = open_of(n);
		assert_int_equal(engine_connect(e, (vtime){ 0 }, &open, &ids[n++]), 0);
	}
	assert_int_equal(e->params.used, 1);
	for (;;) { /* each with a set of its own, until none is left */
		int rc;

		open = open_of(n);
		open.params.rto_initial_us = 1000000 + n;
		rc = engine_connect(e, (vtime){ 0 }, &open, &id);
		if (rc) {
			assert_int_equal(rc, -ENOBUFS);
			break;
		}
		ids[n++] = id;
	}
	assert_int_equal(e->params.used, e->params.max);
	assert_int_equal(e->counters.params_sets_full, 1);
	assert_int_equal(conn_set_params(e, (vtime){ 0 }, ids[1], &open.params), -ENOBUFS);
	assert_int_equal(e->counters.params_sets_full, 2);
	engine_check(e);
	end_conn(e, ids[--n]); /* makes room */
	assert_int_equal(conn_set_params(e, (vtime){ 0 }, ids[1], &open.params), 0);
	open.params.rto_initial_us = 1000000 + 3; /* that of a connection */
	assert_int_equal(conn_set_params(e, (vtime){ 0 }, ids[0], &open.params), 0);
	engine_check(e);
	while (n)
		end_conn(e, ids[--n]);
	assert_int_equal(e->params.used, 0);
	engine_check(e);
	free(e);
}

/* A listener's change is for connections from then on; the old set goes with the last that has it. */
static void test_listener_params(void **state)
{
	struct engine *const e = engine_new();
	struct listener_open open = { .local = { addr_v4(10, 0, 0, 1), 80 }, .backlog = 4 };
	listener_id id;

	tcp_params_default(&open.params);
	assert_int_equal(engine_listen(e, (vtime){ 0 }, &open, &id), 0);
	for (unsigned i = 0; i < 10000; i++) {
		open.params.ttl = (uint8_t)(1 + i % 200);
		assert_int_equal(engine_listener_set_params(e, id, &open.params), 0);
		assert_int_equal(e->params.used, 1);
	}
	assert_int_equal(engine_unlisten(e, (vtime){ 0 }, id), 0);
	assert_int_equal(e->params.used, 0);
	engine_check(e);
	free(e);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_parameters_are_shared),
		cmocka_unit_test(test_listener_params),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
