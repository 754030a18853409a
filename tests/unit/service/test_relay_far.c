/* SPDX-License-Identifier: Apache-2.0 */
/* The relay to another connection of the same engine, on a fake engine: slot 0 was accepted, slots 1 and up are
 * what it opens. And the choice of a backend.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <event2/event.h>

#include "fake_engine.h"
#include "service/relay_config.h"

static struct {
	struct engine *engine;
	struct fake_conn *near, *far; /* far: the last one that was opened */
	struct service_host host;
	struct service *service;
	struct session s, fars[8];
	unsigned opened; /* attempts so far */
	unsigned unreachable; /* so many of them fail at once */
	uint64_t timeout_us;
	uint16_t port; /* of the last attempt */
} f;

static int open_far(struct service_host *h, const struct session *near,
		    const struct endpoint *remote, uint64_t timeout_us, struct service *v,
		    struct session **ret_far)
{
	struct session *const far = &f.fars[f.opened];
	const struct flow flow = { .remote = *remote };

	f.port = remote->port;
	f.timeout_us = timeout_us;
	f.opened++;
	if (f.opened <= f.unreachable)
		return -ENETUNREACH;
	session_init(far, h, (conn_id){ f.opened, 1 }, f.opened, v);
	f.far = &f.engine->conns[f.opened];
	f.far->flow = flow;
	*ret_far = far;
	return 0;
}

static int start(const char *text)
{
	const struct flow flow = { .local = { addr_v4(10, 0, 0, 2), 80 },
				   .remote = { addr_v4(198, 51, 100, 1), 40000 } };
	struct errmsg err;

	memset(&f, 0, sizeof(f));
	f.engine = fake_engine_new();
	f.near = &f.engine->conns[0];
	f.host.engine = f.engine;
	f.host.base = event_base_new();
	f.host.open_far = open_far;
	assert_int_equal(service_host_init(&f.host), 0);
	if (service_new(text, NULL, &f.service, &err))
		fail_msg("%s", err.text);
	f.near->flow = flow;
	session_init(&f.s, &f.host, (conn_id){ 0, 1 }, 7, f.service);
	return 0;
}

static struct session *far(void)
{
	return &f.fars[f.opened - 1];
}

static void setup(const char *options)
{
	char text[200];

	(void)snprintf(text, sizeof(text), "relay:%stcpfsm:10.0.0.9:81,tcpfsm:10.0.0.9:82",
		       options);
	assert_int_equal(start(text), 0);
	assert_int_equal(session_open(&f.s), 0);
	assert_int_equal(f.opened, 1);
	assert_int_equal(session_open(far()), 0); /* ESTABLISHED */
}

static void teardown(void)
{
	session_fini(&f.s, true);
	for (unsigned i = 0; i < 8; i++)
		session_fini(&f.fars[i], true);
	service_unref(f.service);
	service_host_fini(&f.host);
	event_base_free(f.host.base);
	fake_engine_free(f.engine);
}

/* As the worker does: directly when it is next in order and nothing waits. */
static void arrive(struct session *s, const char *text)
{
	const size_t len = strlen(text);
	struct fake_conn *const c = &f.engine->conns[s->id.slot];
	uint32_t taken = 0;

	if (!c->in_len && c->direct)
		taken = session_text(s, (struct span){ (const uint8_t *)text, (uint32_t)len });
	if (taken == len)
		return;
	fake_arrive(f.engine, s->id.slot, text + taken, len - taken);
	session_ready(s, REPORT_READABLE);
}

static void end(struct session *s)
{
	f.engine->conns[s->id.slot].peer_fin = true;
	session_ready(s, REPORT_PEER_CLOSED);
}

static void has(const struct fake_conn *c, const char *want)
{
	assert_int_equal(c->out_len, strlen(want));
	assert_memory_equal(c->out, want, strlen(want));
}

static void octets_go_both_ways_and_each_end_by_itself(void **state)
{
	setup("");
	arrive(&f.s, "question");
	has(f.far, "question");
	end(&f.s);
	assert_true(f.far->closed);
	assert_false(f.near->closed);
	arrive(far(), "answer");
	has(f.near, "answer");
	end(far());
	assert_true(f.near->closed);
	assert_false(f.near->aborted || f.far->aborted);
	assert_ptr_equal(f.s.ops, &service_sink);
	assert_ptr_equal(far()->ops, &service_sink);
	teardown();
}

static void the_backend_may_end_first(void **state)
{
	setup("");
	arrive(far(), "bye");
	end(far());
	has(f.near, "bye");
	assert_true(f.near->closed);
	arrive(&f.s, "more");
	has(f.far, "more");
	end(&f.s);
	assert_true(f.far->closed);
	teardown();
}

static void what_came_before_the_backend_answered_is_kept(void **state)
{
	assert_int_equal(start("relay:tcpfsm:10.0.0.9:81"), 0);
	fake_arrive(f.engine, 0, "early", 5);
	f.near->peer_fin = true;
	assert_int_equal(session_open(&f.s), 0);
	session_ready(&f.s, REPORT_READABLE | REPORT_PEER_CLOSED);
	assert_int_equal(session_text(&f.s, (struct span){ (const uint8_t *)"x", 1 }), 0);
	session_ready(&f.s, REPORT_WRITABLE);
	assert_int_equal(f.near->in_len, 5);
	assert_int_equal(f.timeout_us, 5000000);
	assert_int_equal(session_open(far()), 0);
	has(f.far, "early");
	assert_true(f.far->closed);
	teardown();
}

/* Not an octet more leaves the sender's queue than the other side takes. */
static void back_pressure_is_exact_in_both_directions(void **state)
{
	static char block[5001];

	memset(block, 'x', 5000);
	setup("");
	f.far->room = 1000;
	arrive(&f.s, block);
	assert_int_equal(f.far->out_len, 1000);
	assert_int_equal(f.near->in_len, 4000);
	end(&f.s);
	assert_false(f.far->closed);
	f.far->room = 3999;
	session_ready(far(), REPORT_WRITABLE);
	assert_int_equal(f.near->in_len, 1);
	assert_false(f.far->closed);
	f.far->room = 1;
	session_ready(far(), REPORT_WRITABLE);
	assert_true(f.far->closed);
	f.near->room = 1000;
	arrive(far(), block);
	assert_int_equal(f.near->out_len, 1000);
	assert_int_equal(f.far->in_len, 4000);
	end(far());
	f.near->room = 4000;
	session_ready(&f.s, REPORT_WRITABLE);
	assert_int_equal(f.near->out_len, 5000);
	assert_true(f.near->closed);
	teardown();
}

static void a_reset_of_either_side_resets_the_other(void **state)
{
	setup("");
	arrive(&f.s, "x");
	session_fini(&f.s, true);
	assert_true(f.far->aborted);
	assert_ptr_equal(far()->ops, &service_sink);
	teardown();
	setup("");
	arrive(&f.s, "x");
	session_fini(far(), true);
	assert_true(f.near->aborted);
	assert_int_equal(f.near->abort_reason, END_RESET_BY_SERVICE);
	assert_ptr_equal(f.s.ops, &service_sink);
	teardown();
}

static void a_reset_by_the_backend_after_its_end_loses_nothing(void **state)
{
	setup("");
	arrive(far(), "413");
	end(far());
	session_fini(far(), true);
	assert_false(f.near->aborted);
	has(f.near, "413");
	session_ready(&f.s, REPORT_ALL_ACKED);
	assert_true(f.near->stopped_reading);
	teardown();
}

static void an_operator_may_close_either_side(void **state)
{
	setup("");
	(void)conn_close(f.engine, f.host.now, far()->id, CAUSE_OPERATOR);
	session_sink(far(), true);
	assert_true(f.near->aborted);
	teardown();
	setup("");
	(void)conn_close(f.engine, f.host.now, f.s.id, CAUSE_OPERATOR);
	session_sink(&f.s, true);
	assert_true(f.far->aborted);
	teardown();
}

static void attempts_that_fail_lead_to_the_next(void **state)
{
	assert_int_equal(start("relay:tcpfsm:10.0.0.9:81,tcpfsm:10.0.0.9:82,tcpfsm:10.0.0.9:83"),
			 0);
	f.unreachable = 1; /* at once */
	assert_int_equal(session_open(&f.s), 0);
	assert_int_equal(f.port, 82);
	session_fini(far(), true); /* refused, or too late */
	assert_int_equal(f.port, 83);
	assert_int_equal(f.host.relay_failed, 2);
	assert_int_equal(session_open(far()), 0);
	assert_int_equal(f.host.relay_connected, 1);
	arrive(&f.s, "hi");
	has(f.far, "hi");
	teardown();
}

static void no_backend_resets_the_peer(void **state)
{
	assert_int_equal(start("relay:tcpfsm:10.0.0.9:81"), 0);
	f.unreachable = 1;
	assert_int_equal(session_open(&f.s), -ECONNREFUSED);
	teardown();
	assert_int_equal(start("relay:tcpfsm:10.0.0.9:81"), 0);
	assert_int_equal(session_open(&f.s), 0);
	session_fini(far(), true);
	assert_true(f.near->aborted);
	assert_int_equal(f.host.refused, 1);
	teardown();
}

static void the_peer_may_go_while_we_connect(void **state)
{
	assert_int_equal(start("relay:tcpfsm:10.0.0.9:81"), 0);
	assert_int_equal(session_open(&f.s), 0);
	session_fini(&f.s, true);
	assert_true(f.far->aborted);
	teardown();
}

static void the_proxy_header_comes_first_in_however_many_pieces(void **state)
{
	static const char want[] = "PROXY TCP4 198.51.100.1 10.0.0.2 40000 80\r\nGET";

	assert_int_equal(start("relay:proxy=v1,tcpfsm:10.0.0.9:81"), 0);
	assert_int_equal(session_open(&f.s), 0);
	f.far->room = 7;
	assert_int_equal(session_open(far()), 0);
	arrive(&f.s, "GET");
	has(f.far, "PROXY T");
	assert_int_equal(f.near->in_len, 3);
	for (size_t n = 8; n < sizeof(want); n++) {
		f.far->room = 1;
		session_ready(far(), REPORT_WRITABLE);
		assert_int_equal(f.far->out_len, n);
	}
	has(f.far, want);
	teardown();
}

static void backends_are_counted(void **state)
{
	struct service_backend b;

	setup("max=1,");
	service_backend(f.service, 0, f.host.now, &b);
	assert_string_equal(b.text, "tcpfsm:10.0.0.9:81");
	assert_int_equal(b.active, 1);
	assert_int_equal(b.connected, 1);
	assert_int_equal(service_backends(f.service), 2);
	session_fini(&f.s, true);
	service_backend(f.service, 0, f.host.now, &b);
	assert_int_equal(b.active, 0);
	teardown();
}

static void the_choice_goes_by_order_room_and_health(void **state)
{
	struct limits *const l = limits_new();
	struct relay_config *cfg;
	const vtime now = { 1000000000 };
	bool full;

	assert_non_null(l);
	assert_int_equal(
		relay_config_new("max=2,down=10s,10.0.0.1:1,10.0.0.1:2,10.0.0.1:3", &cfg, NULL), 0);
	assert_int_equal(relay_config_choose(cfg, l, now, 0, &full), 0);
	assert_int_equal(relay_config_choose(cfg, l, now, 1, &full), 1);
	assert_int_equal(relay_config_choose(cfg, l, now, 7, &full), -1);
	assert_false(full);
	assert_true(limits_take(l, 0, 2) && limits_take(l, 0, 2) && !limits_take(l, 0, 2));
	assert_int_equal(relay_config_choose(cfg, l, now, 0, &full), 1);
	assert_int_equal(relay_config_choose(cfg, l, now, 6, &full), -1);
	assert_true(full);
	limits_give(l, 0);
	limits_give(l, 0);
	backend_failed(cfg, l, 0, now);
	assert_int_equal(relay_config_choose(cfg, l, now, 0, &full), 1);
	assert_int_equal(relay_config_choose(cfg, l, now, 6, &full), 0); /* last, but not never */
	assert_int_equal(relay_config_choose(cfg, l, vtime_add(now, 9999999), 0, &full), 1);
	assert_int_equal(relay_config_choose(cfg, l, vtime_add(now, 10000000), 0, &full), 0);
	backend_failed(cfg, l, 1, vtime_add(now, 1));
	backend_failed(cfg, l, 2, vtime_add(now, 2));
	assert_int_equal(relay_config_choose(cfg, l, now, 0, &full),
			 0); /* failed the longest ago */
	backend_connected(cfg, l, 2);
	assert_int_equal(relay_config_choose(cfg, l, now, 0, &full), 2);
	assert_int_equal(cfg->backends[2].failed, 1);
	relay_config_free(cfg);
	assert_int_equal(relay_config_new("down=0,10.0.0.1:1,10.0.0.1:2", &cfg, NULL), 0);
	backend_failed(cfg, l, 0, now);
	assert_int_equal(relay_config_choose(cfg, l, now, 0, &full), 0);
	limits_unref(l);
	relay_config_free(cfg);
}

static void arguments_are_checked(void **state)
{
	static const char *const wrong[] = { "relay:tcpfsm:",
					     "relay:tcpfsm:10.0.0.1",
					     "relay:tcpfsm:*:80",
					     "relay:tcpfsm:[fe80::1]:80",
					     "relay:max=0,10.0.0.1:80",
					     "relay:max=x,10.0.0.1:80",
					     "relay:down=-1,10.0.0.1:80",
					     "relay:down=86401,10.0.0.1:80" };

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(service_check(wrong[i], NULL, NULL), -EINVAL);
	assert_int_equal(service_check("relay:max=5,down=0,tcpfsm:[2001:db8::1]:80", NULL, NULL),
			 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(octets_go_both_ways_and_each_end_by_itself),
		cmocka_unit_test(the_backend_may_end_first),
		cmocka_unit_test(what_came_before_the_backend_answered_is_kept),
		cmocka_unit_test(back_pressure_is_exact_in_both_directions),
		cmocka_unit_test(a_reset_of_either_side_resets_the_other),
		cmocka_unit_test(a_reset_by_the_backend_after_its_end_loses_nothing),
		cmocka_unit_test(an_operator_may_close_either_side),
		cmocka_unit_test(attempts_that_fail_lead_to_the_next),
		cmocka_unit_test(no_backend_resets_the_peer),
		cmocka_unit_test(the_peer_may_go_while_we_connect),
		cmocka_unit_test(the_proxy_header_comes_first_in_however_many_pieces),
		cmocka_unit_test(backends_are_counted),
		cmocka_unit_test(the_choice_goes_by_order_room_and_health),
		cmocka_unit_test(arguments_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
