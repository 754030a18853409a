/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the configuration again: which listeners come, go and change, and what is only named. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "config/key.h"
#include "control/daemon.h"
#include "fakes.h"

static struct daemon d;
static struct args args;
static struct config_listener specs[4];
static json_t *result;
static int result_rc;

static void *token(void)
{
	static char it;

	return &it;
}

static struct config_listener spec(const char *name, uint16_t port, const char *service)
{
	struct config_listener s = { .address = { addr_v4(10, 0, 0, 2), port }, .backlog = 10 };

	(void)strcpy(s.name, name);
	(void)strcpy(s.service, service);
	tcp_params_default(&s.tcp);
	return s;
}

static void configure(size_t n)
{
	fake.config.listeners = specs;
	fake.config.listeners_n = n;
}

static void on_reloaded(void *arg, int rc, json_t *value, const struct errmsg *err)
{
	(void)arg;
	(void)err;
	json_decref(result);
	result = value;
	result_rc = rc;
}

static void reload(void)
{
	const uint64_t until = clock_monotonic_us() + 10000000;
	struct errmsg err;

	json_decref(result);
	result = NULL;
	result_rc = 1;
	assert_int_equal(daemon_reload(&d, on_reloaded, NULL, &err), 0);
	while (result_rc == 1) {
		(void)event_base_loop(d.base, EVLOOP_ONCE);
		assert_true(clock_monotonic_us() < until);
	}
	assert_int_equal(result_rc, 0);
	for (int i = 0; i < 5; i++)
		(void)event_base_loop(d.base, EVLOOP_NONBLOCK);
}

static void expect(int added, int removed, int changed, size_t warnings)
{
	assert_int_equal(json_integer_value(json_object_get(result, "listeners_added")), added);
	assert_int_equal(json_integer_value(json_object_get(result, "listeners_removed")), removed);
	assert_int_equal(json_integer_value(json_object_get(result, "listeners_changed")), changed);
	assert_int_equal(json_array_size(json_object_get(result, "warnings")), warnings);
}

static const char *warning(size_t i)
{
	return json_string_value(json_array_get(json_object_get(result, "warnings"), i));
}

static int setup(void **state)
{
	struct served_config sc = { .shield = token(), .local_ports = { addr_any, 61000, 65535 } };
	struct errmsg err;

	(void)state;
	log_setup((enum log_level)0);
	d = (struct daemon){ .args = &args };
	d.base = event_base_new();
	fake_reset(d.base);
	tcp_params_default(&fake.config.tcp);
	sc.base = d.base;
	assert_int_equal(served_new(&sc, &d.listeners, &err), 0);
	served_set_crew(d.listeners, token());
	specs[0] = spec("e", 7, "echo");
	specs[1] = spec("f", 70, "echo");
	configure(1);
	reload();
	expect(1, 0, 0, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	json_decref(result);
	result = NULL;
	daemon_reload_forget(&d);
	served_free(d.listeners);
	config_fini(&d.config);
	event_base_free(d.base);
	return 0;
}

static void test_the_same_again_changes_nothing(void **state)
{
	const size_t asked = fake.asked;

	(void)state;
	reload();
	expect(0, 0, 0, 0);
	assert_int_equal(fake.asked, asked);
}

static void test_listeners_come_and_go(void **state)
{
	(void)state;
	configure(2);
	reload();
	expect(1, 0, 0, 0);
	assert_true(fake_has_rule("10.0.0.2", 70));
	assert_int_equal(fake.listeners_n, 2);
	specs[0] = spec("g", 71, "echo");
	configure(1);
	reload();
	expect(1, 2, 0, 0);
	assert_int_equal(fake.listeners_n, 1);
	assert_true(fake_has_rule("10.0.0.2", 71));
	assert_false(fake_has_rule("10.0.0.2", 7));
	assert_false(fake_has_rule("10.0.0.2", 70));
}

static void test_changes(void **state)
{
	const uint64_t id = fake.listeners[0].id;

	(void)state;
	specs[0].tcp.mss = 900;
	reload();
	expect(0, 0, 1, 0);
	assert_int_equal(fake.params_set, 1);
	assert_int_equal(fake.listeners[0].id, id); /* not opened again */
	(void)strcpy(specs[0].service, "exec:/bin/cat");
	reload();
	expect(0, 0, 1, 0);
	assert_int_equal(fake.listeners_n, 1);
	assert_string_equal(fake.listeners[0].service, "exec:/bin/cat");
	assert_true(fake_has_rule("10.0.0.2", 7));
}

/* What was set at run time ends with a reload: it is named, and the file's value is back. */
static void test_a_reload_goes_back_to_the_file(void **state)
{
	const struct key *const ttl = key_find(SECTION_TCP, "TTL");
	struct config_listener changed = specs[0];
	const struct listener *const l = served_find(d.listeners, &changed.address);
	struct errmsg err;

	(void)state;
	changed.tcp.ttl = 5;
	changed.tcp_from[ttl - keys] = FROM_SET;
	assert_int_equal(served_set_params(d.listeners, l->id, &changed, NULL, NULL, &err), 0);
	reload();
	expect(0, 0, 1, 1);
	assert_string_equal(warning(0),
			    "listener e: Tcp.TTL: 5, which was set at run time, is 64 again");
	assert_int_equal(fake.params.ttl, 64);
	reload();
	expect(0, 0, 0, 0);
}

/* `listen --tcp TTL=5`: a new [Tcp] is for the rest. */
static void test_what_listen_opened_follows_in_the_rest(void **state)
{
	const struct key *const ttl = key_find(SECTION_TCP, "TTL");
	struct config_listener own = spec("own", 90, "echo");
	struct errmsg err;

	(void)state;
	own.tcp.ttl = 5;
	own.tcp_from[ttl - keys] = FROM_LISTEN;
	assert_int_equal(served_open(d.listeners, &own, false, NULL, NULL, &err), 0);
	(void)event_base_loop(d.base, EVLOOP_NONBLOCK);
	fake.config.tcp.ttl = 32;
	fake.config.tcp.dscp = 8;
	reload();
	expect(0, 0, 1, 0);
	assert_int_equal(fake.params.ttl, 5);
	assert_int_equal(fake.params.dscp, 8);
}

static void test_what_listen_opened_stays(void **state)
{
	struct config_listener own = spec("own", 90, "echo");
	struct errmsg err;

	(void)state;
	assert_int_equal(served_open(d.listeners, &own, false, NULL, NULL, &err), 0);
	(void)event_base_loop(d.base, EVLOOP_NONBLOCK);
	configure(0);
	reload();
	expect(0, 1, 0, 0);
	assert_non_null(served_find(d.listeners, &own.address));
	/* The configuration wants the same address: refused, with a word about it. */
	specs[0] = spec("x", 90, "echo");
	configure(1);
	reload();
	expect(0, 0, 0, 1);
	assert_non_null(strstr(warning(0), "10.0.0.2:90"));
}

static void test_a_wrong_configuration_changes_nothing(void **state)
{
	struct errmsg err;

	(void)state;
	fake.config_rc = -EINVAL;
	fake.config_error = "tcpfsmd.conf:2: MSL: banana";
	assert_int_equal(daemon_reload(&d, on_reloaded, NULL, &err), -EINVAL);
	assert_non_null(strstr(err.text, "tcpfsmd.conf:2"));
	fake.config_rc = 0;
	(void)strcpy(specs[0].service, "nonsense");
	assert_int_equal(daemon_reload(&d, on_reloaded, NULL, &err), -EINVAL);
	assert_non_null(strstr(err.text, "nonsense"));
	assert_int_equal(fake.listeners_n, 1);
	assert_string_equal(d.config.listeners[0].service, "echo");
}

static void test_keys_of_the_start_are_named_each_time(void **state)
{
	(void)state;
	fake.config.max_connections = 5;
	fake.config.max_clients = 9;
	fake.config_warning = "tcpfsmd.conf:3: NoSuchKey";
	for (int i = 0; i < 2; i++) {
		reload();
		expect(0, 0, 0, 2);
		assert_non_null(strstr(warning(0), "NoSuchKey"));
		assert_non_null(strstr(warning(1), "Daemon.MaxConnections"));
	}
	assert_int_equal(d.config.max_connections, 0);
	assert_int_equal(d.config.max_clients, 9);
}

static void test_a_listener_that_cannot_be_opened(void **state)
{
	(void)state;
	fake.kernel_port = 70;
	configure(2);
	reload();
	expect(0, 0, 0, 1);
	assert_non_null(strstr(warning(0), "nginx"));
	assert_false(fake_has_rule("10.0.0.2", 70)); /* made in advance, and gone again */
	assert_true(fake_has_rule("10.0.0.2", 7));
	fake.kernel_port = 0;
	reload(); /* now it can */
	expect(1, 0, 0, 0);
}

static void test_one_at_a_time(void **state)
{
	struct errmsg err;

	(void)state;
	configure(2);
	fake.hold = true;
	assert_int_equal(daemon_reload(&d, on_reloaded, NULL, &err), 0);
	assert_int_equal(daemon_reload(&d, on_reloaded, NULL, &err), -EBUSY);
	fake.hold = false;
	while (fake.asks_n)
		fake_answer(0);
	expect(1, 0, 0, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_the_same_again_changes_nothing),
		TEST(test_listeners_come_and_go),
		TEST(test_changes),
		TEST(test_a_reload_goes_back_to_the_file),
		TEST(test_what_listen_opened_follows_in_the_rest),
		TEST(test_what_listen_opened_stays),
		TEST(test_a_wrong_configuration_changes_nothing),
		TEST(test_keys_of_the_start_are_named_each_time),
		TEST(test_a_listener_that_cannot_be_opened),
		TEST(test_one_at_a_time),
	};

	return cmocka_run_group_tests_name("reload", tests, NULL, NULL);
}
