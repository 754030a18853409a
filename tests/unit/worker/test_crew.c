/* SPDX-License-Identifier: Apache-2.0 */
/* The crew before workers of the test's own: who is asked what, and what comes back as one answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/crew.h"
#include "worker/listing.h"

enum { N = 3, ASKS_MAX = 2000, SLOTS = 34 }; /* 100 connections parted */

struct worker {
	struct worker_config cfg;
	struct worker_request *asks[ASKS_MAX];
	unsigned asks_n;
	int ask_rc;
	bool dead, freed;
};

static struct worker workers[N];
static unsigned started, fail_at;

int worker_start(const struct worker_config *cfg, struct worker **ret_worker,
		 struct errmsg *ret_err)
{
	if (started == fail_at)
		return errmsg(ret_err, -EPERM, "not this one");
	workers[started] = (struct worker){ .cfg = *cfg };
	*ret_worker = &workers[started++];
	return 0;
}

int worker_ask(struct worker *w, struct worker_request *req)
{
	if (w->ask_rc)
		return w->ask_rc;
	assert_true(w->asks_n < ASKS_MAX);
	w->asks[w->asks_n++] = req;
	return 0;
}

bool worker_is_alive(struct worker *w)
{
	return !w->dead;
}

void worker_free(struct worker *w)
{
	w->freed = true;
}

/* Answers the oldest that worker i was asked. */
static void answer(unsigned i, int rc)
{
	struct worker *const w = &workers[i];
	struct worker_request *const req = w->asks[0];

	assert_true(w->asks_n > 0);
	memmove(w->asks, w->asks + 1, --w->asks_n * sizeof(struct worker_request *));
	req->rc = rc;
	if (rc)
		(void)errmsg(&req->err, rc, "worker %u says no", i);
	req->done(req);
}

static unsigned done_n;

static void on_done(struct worker_request *req)
{
	assert_ptr_equal(req->arg, &done_n);
	done_n++;
}

static struct worker_request request(enum worker_ask ask)
{
	done_n = 0;
	return (struct worker_request){ .ask = ask, .done = on_done, .arg = &done_n };
}

static struct crew *crew_of(unsigned n, bool neighbours)
{
	const struct worker_config cfg = { .answer_neighbours = neighbours,
					   .engine = { .conns_max = 100,
						       .chunks_max = 7,
						       .syn_received_max = 25,
						       .serial_first = 1000,
						       .serial_step = 1 } };
	struct crew *c = NULL;
	struct errmsg err;

	started = 0;
	fail_at = N;
	assert_int_equal(crew_start(&cfg, n, &c, &err), 0);
	return c;
}

static void what_is_limited_is_parted(void **state)
{
	struct crew *const c = crew_of(N, false);
	uint32_t conns = 0;

	for (unsigned i = 0; i < N; i++) {
		const struct worker_config *const cfg = &workers[i].cfg;

		conns += cfg->engine.conns_max;
		assert_int_equal(cfg->index, i);
		assert_int_equal(cfg->engine.serial_first, 1000 + i);
		assert_int_equal(cfg->engine.serial_step, N);
		assert_int_equal(cfg->engine.steer.workers, N);
		assert_int_equal(cfg->engine.steer.index, i);
		assert_int_equal(cfg->engine.steer.key[0], workers[0].cfg.engine.steer.key[0]);
		assert_true(cfg->engine.chunks_max >= 2);
		assert_non_null(cfg->group);
	}
	assert_int_equal(conns, 100);
	crew_free(c);
	for (unsigned i = 0; i < N; i++)
		assert_true(workers[i].freed);
}

static void one_worker_is_asked_itself(void **state)
{
	struct crew *const c = crew_of(1, false);
	struct worker_request r = request(WORKER_STATUS);

	assert_null(workers[0].cfg.group);
	assert_int_equal(workers[0].cfg.engine.conns_max, 100);
	assert_int_equal(crew_ask(c, &r), 0);
	assert_ptr_equal(workers[0].asks[0], &r);
	answer(0, 0);
	assert_int_equal(done_n, 1);
	workers[0].ask_rc = -EAGAIN;
	assert_int_equal(crew_ask(c, &r), -EAGAIN);
	crew_free(c);
}

/* Those that run are the caller's to stop. */
static void a_start_that_fails_midway(void **state)
{
	const struct worker_config cfg = { .engine.conns_max = 9 };
	struct worker_request r = request(WORKER_STOP);
	struct crew *c = NULL;
	struct errmsg err;

	started = 0;
	fail_at = 2;
	assert_int_equal(crew_start(&cfg, N, &c, &err), -EPERM);
	assert_non_null(c);
	assert_int_equal(crew_ask(c, &r), 0);
	answer(0, 0);
	answer(1, 0);
	assert_int_equal(done_n, 1);
	crew_free(c);
	started = 0;
	fail_at = 0;
	c = NULL;
	assert_int_equal(crew_start(&cfg, N, &c, &err), -EPERM);
	assert_null(c);
}

static void all_listen_or_none(void **state)
{
	struct crew *const c = crew_of(N, false);
	struct worker_request r = request(WORKER_LISTEN);
	struct limits *limits = NULL;
	uint32_t backlog = 0;

	r.listen.id = 5;
	r.listen.backlog = 10;
	r.listen.max_connections = 2;
	r.listen.options.max_processes = 10;
	r.listen.options.max_processes_per_peer = 2;
	assert_int_equal(crew_ask(c, &r), 0);
	for (unsigned i = 0; i < N; i++) {
		const struct worker_request *const part = workers[i].asks[0];

		assert_int_equal(part->listen.id, 5);
		assert_int_equal(part->listen.max_connections, 1); /* never "no limit" */
		/* What all count together is parted by nobody. */
		assert_int_equal(part->listen.options.max_processes, 10);
		assert_int_equal(part->listen.options.max_processes_per_peer, 2);
		assert_int_equal(part->listen.options.max_connections_per_peer, 0);
		assert_non_null(part->listen.limits);
		assert_true(!limits || part->listen.limits == limits);
		limits = part->listen.limits;
		backlog += part->listen.backlog;
	}
	assert_int_equal(backlog, 10);
	answer(2, 0);
	answer(1, -EADDRINUSE);
	assert_int_equal(done_n, 0);
	answer(0, 0);
	assert_int_equal(done_n, 1);
	assert_int_equal(r.rc, -EADDRINUSE);
	assert_string_equal(r.err.text, "worker 1 says no");
	assert_int_equal(workers[1].asks_n, 0);
	for (unsigned i = 0; i < N; i += 2) {
		assert_int_equal(workers[i].asks[0]->ask, WORKER_UNLISTEN);
		assert_int_equal(workers[i].asks[0]->unlisten.id, 5);
		answer(i, 0);
		assert_int_equal(workers[i].asks[0]->ask, WORKER_FORGET);
		assert_int_equal(workers[i].asks[0]->unlisten.id, 5);
		answer(i, 0);
	}
	assert_int_equal(done_n, 1);
	crew_free(c);
}

static void each_gets_a_descriptor_of_its_own(void **state)
{
	struct crew *const c = crew_of(N, false);
	struct worker_request r = request(WORKER_LISTEN);
	const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	r.listen.stream = true;
	r.listen.fd = fd;
	assert_int_equal(crew_ask(c, &r), 0);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	for (unsigned i = 0; i < N; i++) {
		const int part = workers[i].asks[0]->listen.fd;

		assert_true(fcntl(part, F_GETFD) >= 0);
		(void)close(part);
		answer(i, 0);
	}
	/* Who takes none leaves the caller's open. */
	r.listen.fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (unsigned i = 0; i < N; i++)
		workers[i].ask_rc = -ESHUTDOWN;
	assert_int_equal(crew_ask(c, &r), -ESHUTDOWN);
	assert_true(fcntl(r.listen.fd, F_GETFD) >= 0);
	(void)close(r.listen.fd);
	crew_free(c);
}

static void counters_are_sums(void **state)
{
	struct crew *const c = crew_of(N, false);
	struct worker_request r = request(WORKER_STATUS);

	assert_int_equal(crew_ask(c, &r), 0);
	for (unsigned i = 0; i < N; i++) {
		struct worker_status *const st = &workers[i].asks[0]->status;

		st->engine.segments_in = 10 + i;
		st->engine.conns = 1;
		st->engine.conns_by_state[ST_ESTABLISHED] = 1;
		st->packet.frames_in = 100;
		st->verdicts[WIRE_OK] = 3;
		st->processes = i;
		answer(i, 0);
	}
	assert_int_equal(r.status.engine.segments_in, 33);
	assert_int_equal(r.status.engine.conns, 3);
	assert_int_equal(r.status.engine.conns_by_state[ST_ESTABLISHED], 3);
	assert_int_equal(r.status.packet.frames_in, 300);
	assert_int_equal(r.status.verdicts[WIRE_OK], 9);
	assert_int_equal(r.status.processes, 3);
	crew_free(c);
}

static void listeners_are_one_though_all_have_them(void **state)
{
	struct crew *const c = crew_of(N, false);
	struct worker_request r = request(WORKER_LISTENERS);

	assert_int_equal(crew_ask(c, &r), 0);
	for (unsigned i = 0; i < N; i++) {
		struct worker_request *const part = workers[i].asks[0];
		struct service_backend *backends = NULL;
		struct worker_listener *const list = listing_new(2, 2, &backends);

		if (!list)
			abort();

		/* Draining, it is gone from the first already. */
		list[0] = (struct worker_listener){ .id = 7, .tcp.live = 2, .tcp.accepted = i };
		list[1] = (struct worker_listener){ .id = 8, .draining = true, .tcp.live = 1 };
		backends[0].active = 3; /* they count together */
		backends[1] = (struct service_backend){ .text = "b", .failed = i, .down = i == 1 };
		list[0].backends = backends;
		list[0].backends_n = 2;
		part->listeners.ret_list = list;
		part->listeners.ret_n = i ? 2 : 1;
		answer(i, 0);
	}
	assert_int_equal(r.listeners.ret_n, 2);
	assert_int_equal(r.listeners.ret_list[0].id, 7);
	assert_int_equal(r.listeners.ret_list[0].tcp.live, 6);
	assert_int_equal(r.listeners.ret_list[0].tcp.accepted, 3);
	assert_int_equal(r.listeners.ret_list[0].backends_n, 2);
	assert_int_equal(r.listeners.ret_list[0].backends[0].active, 3);
	assert_string_equal(r.listeners.ret_list[0].backends[1].text, "b");
	assert_int_equal(r.listeners.ret_list[0].backends[1].failed, 3);
	assert_true(r.listeners.ret_list[0].backends[1].down);
	assert_int_equal(r.listeners.ret_list[1].id, 8);
	assert_int_equal(r.listeners.ret_list[1].tcp.live, 2);
	free(r.listeners.ret_list);
	crew_free(c);
}

/* As long as one worker has a connection of it, its address is everybody's: who asks is answered. */
static void a_listener_that_has_drained_everywhere_is_forgotten(void **state)
{
	struct crew *const c = crew_of(N, false);
	struct worker_request r = request(WORKER_LISTENERS);

	for (unsigned live = 1; live < 2; live--) {
		assert_int_equal(crew_ask(c, &r), 0);
		for (unsigned i = 0; i < N; i++) {
			struct worker_request *const part = workers[i].asks[0];

			part->listeners.ret_list = calloc(1, sizeof(struct worker_listener));
			part->listeners.ret_list[0] = (struct worker_listener){
				.id = 9, .draining = true, .tcp.live = i == 1 ? live : 0
			};
			part->listeners.ret_n = 1;
			answer(i, 0);
		}
		assert_int_equal(r.listeners.ret_n, live);
		free(r.listeners.ret_list);
		for (unsigned i = 0; i < N; i++)
			assert_int_equal(workers[i].asks_n, !live);
	}
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(workers[i].asks[0]->ask, WORKER_FORGET);
		assert_int_equal(workers[i].asks[0]->unlisten.id, 9);
		answer(i, 0);
	}
	crew_free(c);
}

/* Asks for a page; worker `whose` answers with one connection in `slot`, and its cursor. */
static uint32_t page(struct crew *c, uint32_t cursor, unsigned whose, uint32_t slot, uint32_t next,
		     uint32_t want_slot)
{
	struct worker_request r = request(WORKER_CONNECTIONS);
	struct worker_request *part;

	r.connections.cursor = cursor;
	assert_int_equal(crew_ask(c, &r), 0);
	assert_int_equal(workers[whose].asks_n, 1);
	part = workers[whose].asks[0];
	assert_int_equal(part->connections.cursor, cursor - whose * SLOTS);
	part->connections.ret_list = calloc(1, sizeof(struct worker_conn));
	part->connections.ret_list[0].tcp.id.slot = slot;
	part->connections.ret_n = 1;
	part->connections.ret_cursor = next;
	answer(whose, 0);
	assert_int_equal(done_n, 1);
	assert_int_equal(r.connections.ret_list[0].tcp.id.slot, want_slot);
	free(r.connections.ret_list);
	return r.connections.ret_cursor;
}

static void a_cursor_goes_through_all_slots(void **state)
{
	struct crew *const c = crew_of(N, false);
	uint32_t at = page(c, 0, 0, 4, 5, 4);

	assert_int_equal(at, 5);
	at = page(c, at, 0, 33, 0, 33);
	assert_int_equal(at, SLOTS);
	at = page(c, at, 1, 2, 0, SLOTS + 2);
	assert_int_equal(at, 2 * SLOTS);
	at = page(c, at, 2, 1, 2, 2 * SLOTS + 1);
	assert_int_equal(at, 2 * SLOTS + 2);
	assert_int_equal(page(c, at, 2, 30, 0, 2 * SLOTS + 30), 0);
	(void)page(c, 3 * SLOTS + 7, 2, 0, 0, 2 * SLOTS); /* past the end: a client's invention */
	crew_free(c);
}

static void serials_say_whose_a_connection_is(void **state)
{
	struct crew *const c = crew_of(N, false);
	struct worker_request r = request(WORKER_RESET);

	for (unsigned i = 0; i < 2 * N; i++) {
		r.end.serial = 1000 + i;
		assert_int_equal(crew_ask(c, &r), 0);
		answer(i % N, i ? 0 : -ENOENT);
		assert_int_equal(r.rc, i ? 0 : -ENOENT);
		assert_ptr_equal(r.done, on_done);
	}
	r.end.serial = 1; /* of an earlier run */
	assert_int_equal(crew_ask(c, &r), 0);
	answer(0, -ENOENT);
	assert_int_equal(done_n, 2 * N + 1);
	crew_free(c);
}

static void opens_go_by_turns_or_by_their_port(void **state)
{
	struct crew *const c = crew_of(N, false), *neighbours;
	struct worker_request r = request(WORKER_CONNECT);
	unsigned seen[N] = { 0 };

	r.connect.remote = (struct endpoint){ addr_v4(10, 0, 0, 1), 80 };
	r.connect.fd = -1;
	for (unsigned i = 0; i < N; i++) {
		/* Whose turn it is says whether he has a cookie, and has his turn. */
		r.connect.ask_cookie = true;
		assert_int_equal(crew_ask(c, &r), 0);
		answer(i, 0);
		r.connect.ask_cookie = false;
		assert_int_equal(crew_ask(c, &r), 0);
		answer(i, 0);
	}
	for (uint16_t port = 1; port < 100; port++) {
		const unsigned who = steer_worker(&workers[0].cfg.engine.steer,
						  &r.connect.remote.addr, 80, port);

		r.connect.local.port = port;
		assert_int_equal(crew_ask(c, &r), 0);
		answer(who, 0);
		seen[who]++;
	}
	for (unsigned i = 0; i < N; i++)
		assert_true(seen[i] > 10);
	crew_free(c);

	/* The first is asked who has an address: so it opens, and has it. */
	neighbours = crew_of(N, true);
	r.connect.local.port = 0;
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(crew_ask(neighbours, &r), 0);
		answer(0, 0);
	}
	crew_free(neighbours);
}

static void a_stop_is_over_when_all_have_stopped(void **state)
{
	struct crew *const c = crew_of(N, false);
	struct worker_request r = request(WORKER_STOP);

	workers[1].ask_rc = -ESHUTDOWN; /* it broke before */
	assert_int_equal(crew_ask(c, &r), 0);
	answer(0, 0);
	assert_int_equal(done_n, 0);
	answer(2, 0);
	assert_int_equal(done_n, 1);
	assert_int_equal(r.rc, 0);
	workers[0].ask_rc = workers[2].ask_rc = -ESHUTDOWN;
	assert_int_equal(crew_ask(c, &r), -ESHUTDOWN);
	crew_free(c);
}

static void all_are_asked_or_none(void **state)
{
	struct crew *const c = crew_of(N, false);
	static struct worker_request one[1000];
	struct worker_request all = request(WORKER_STATUS);
	unsigned n = 0;

	while (n < 1000) {
		one[n] = request(WORKER_STATUS);
		if (crew_ask_one(c, 1, &one[n]))
			break;
		n++;
	}
	assert_in_range(n, 100, 999);
	assert_int_equal(crew_ask(c, &all), -EAGAIN);
	assert_int_equal(workers[0].asks_n, 0);
	answer(1, 0);
	assert_int_equal(crew_ask(c, &all), 0);
	crew_free(c); /* with what is under way */
}

static void who_does_not_turn_is_named(void **state)
{
	struct crew *const c = crew_of(N, false);
	unsigned index = 99;

	assert_true(crew_is_alive(c, &index));
	workers[2].dead = true;
	assert_false(crew_is_alive(c, &index));
	assert_int_equal(index, 2);
	crew_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_limited_is_parted),
		cmocka_unit_test(one_worker_is_asked_itself),
		cmocka_unit_test(a_start_that_fails_midway),
		cmocka_unit_test(all_listen_or_none),
		cmocka_unit_test(each_gets_a_descriptor_of_its_own),
		cmocka_unit_test(counters_are_sums),
		cmocka_unit_test(listeners_are_one_though_all_have_them),
		cmocka_unit_test(a_listener_that_has_drained_everywhere_is_forgotten),
		cmocka_unit_test(a_cursor_goes_through_all_slots),
		cmocka_unit_test(serials_say_whose_a_connection_is),
		cmocka_unit_test(opens_go_by_turns_or_by_their_port),
		cmocka_unit_test(a_stop_is_over_when_all_have_stopped),
		cmocka_unit_test(all_are_asked_or_none),
		cmocka_unit_test(who_does_not_turn_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
