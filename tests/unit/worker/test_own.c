/* SPDX-License-Identifier: Apache-2.0 */
/* What is ours, and above all what is not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "worker/own.h"

static struct endpoint ep(const char *text)
{
	struct endpoint e;

	assert_int_equal(endpoint_parse(text, false, &e), 0);
	return e;
}

static bool has(const struct own *o, const char *text, bool is_local)
{
	const struct endpoint e = ep(text);

	return own_has(o, &e, is_local);
}

static void add(struct own *o, const char *text)
{
	const struct endpoint e = ep(text);

	assert_int_equal(own_add(o, &e, true), 0);
}

static void drop(struct own *o, const char *text)
{
	const struct endpoint e = ep(text);

	own_remove(o, &e, true);
}

static void only_the_address_and_port_of_a_listener(void **state)
{
	struct own o;

	assert_int_equal(own_init(&o, 0, 0), 0);
	assert_false(has(&o, "10.0.0.2:7", true));
	add(&o, "10.0.0.2:7");
	assert_true(has(&o, "10.0.0.2:7", true));
	assert_false(has(&o, "10.0.0.2:8", true));
	assert_false(has(&o, "10.0.0.3:7", true));
	assert_false(has(&o, "[2001:db8::2]:7", true));
	drop(&o, "10.0.0.3:7"); /* not there: nothing */
	drop(&o, "10.0.0.2:7");
	assert_false(has(&o, "10.0.0.2:7", true));
	own_fini(&o);
	own_fini(&o);
}

static void a_wildcard_owns_local_addresses_of_its_families(void **state)
{
	struct own o;

	assert_int_equal(own_init(&o, 0, 0), 0);
	add(&o, "*:7");
	add(&o, "0.0.0.0:9");
	assert_true(has(&o, "10.0.0.2:7", true));
	assert_true(has(&o, "[2001:db8::2]:7", true));
	assert_true(has(&o, "10.0.0.2:9", true));
	assert_false(has(&o, "[2001:db8::2]:9", true));
	/* Packets that pass through this machine are somebody else's. */
	assert_false(has(&o, "10.0.0.2:7", false));
	assert_false(has(&o, "10.0.0.2:9", false));
	assert_false(has(&o, "[2001:db8::2]:7", false));
	own_fini(&o);
}

static void an_address_no_kernel_has_must_be_named(void **state)
{
	struct ipaddr a;
	struct own o;

	assert_int_equal(own_init(&o, 61000, 65535), 0);
	add(&o, "10.0.0.9:7");
	add(&o, "*:8");
	assert_true(has(&o, "10.0.0.9:7", false));
	assert_false(has(&o, "10.0.0.9:8", false));
	assert_false(has(&o, "10.0.0.9:61000", false)); /* local ports are of local addresses */
	assert_int_equal(addr_parse("10.0.0.9", &a), 0);
	assert_true(own_has_addr(&o, &a));
	assert_int_equal(addr_parse("10.0.0.8", &a), 0);
	assert_false(own_has_addr(&o, &a));
	own_fini(&o);
}

static void local_ports_are_a_range(void **state)
{
	struct own o;

	assert_int_equal(own_init(&o, 61000, 61010), 0);
	assert_false(has(&o, "10.0.0.2:60999", true));
	assert_true(has(&o, "10.0.0.2:61000", true));
	assert_true(has(&o, "[::1]:61010", true));
	assert_false(has(&o, "10.0.0.2:61011", true));
	own_fini(&o);
	assert_int_equal(own_init(&o, 0, 0), 0);
	assert_false(has(&o, "10.0.0.2:61000", true));
	own_fini(&o);
}

static void owners_are_counted(void **state)
{
	struct own o;

	assert_int_equal(own_init(&o, 0, 0), 0);
	add(&o, "10.0.0.2:7");
	add(&o, "10.0.0.2:7"); /* a draining listener and its successor */
	drop(&o, "10.0.0.2:7");
	assert_true(has(&o, "10.0.0.2:7", true));
	drop(&o, "10.0.0.2:7");
	assert_false(has(&o, "10.0.0.2:7", true));
	own_fini(&o);
}

static void the_list_has_each_once(void **state)
{
	struct link_owned *list;
	struct own o;
	size_t n;
	unsigned seen = 0;

	assert_int_equal(own_init(&o, 61000, 65535), 0);
	add(&o, "10.0.0.2:7");
	add(&o, "10.0.0.2:7");
	add(&o, "10.0.0.3:7");
	add(&o, "*:80");
	assert_int_equal(own_list(&o, false, &list, &n), 0);
	assert_int_equal(n, 4);
	for (size_t i = 0; i < n; i++) {
		const struct endpoint e = { list[i].addr, list[i].port_min };

		if (list[i].port_min == 61000 && list[i].port_max == 65535)
			seen |= addr_eq(&e.addr, &addr_any) ? 1u : 0;
		else
			assert_int_equal(list[i].port_min, list[i].port_max);
		seen |= endpoint_eq(&e, &(struct endpoint){ addr_v4(10, 0, 0, 2), 7 }) ? 2u : 0;
		seen |= endpoint_eq(&e, &(struct endpoint){ addr_v4(10, 0, 0, 3), 7 }) ? 4u : 0;
		seen |= endpoint_eq(&e, &(struct endpoint){ addr_any, 80 }) ? 8u : 0;
	}
	assert_int_equal(seen, 15);
	free(list);
	own_fini(&o);
}

static struct link_owned listed(const struct own *o, bool all_text, uint16_t port)
{
	struct link_owned *list, found = { 0 };
	size_t n;

	assert_int_equal(own_list(o, all_text, &list, &n), 0);
	for (size_t i = 0; i < n; i++)
		if (list[i].port_min <= port && port <= list[i].port_max)
			found = list[i];
	free(list);
	return found;
}

static void a_port_is_unread_while_nobody_of_any_address_reads(void **state)
{
	const struct endpoint nine = ep("10.0.0.2:9"), other = ep("*:9"),
			      local = ep("10.0.0.2:61005");
	struct own o;

	assert_int_equal(own_init(&o, 61000, 61010), 0);
	assert_false(own_reads(&o, 9));
	assert_int_equal(own_add(&o, &nine, false), 0);
	assert_false(own_reads(&o, 9));
	assert_true(listed(&o, false, 9).headers_only);
	assert_false(listed(&o, true, 9).headers_only);
	assert_int_equal(own_add(&o, &nine, true), 0); /* the same, or */
	assert_true(own_reads(&o, 9));
	assert_false(listed(&o, false, 9).headers_only);
	own_remove(&o, &nine, true);
	assert_false(own_reads(&o, 9));
	assert_int_equal(own_add(&o, &other, true), 0); /* one of another address */
	assert_true(own_reads(&o, 9));
	assert_false(listed(&o, false, 9).headers_only);
	own_remove(&o, &nine, false);
	own_remove(&o, &other, true);
	assert_false(own_reads(&o, 9));
	assert_int_equal(own_add(&o, &local, false),
			 0); /* connections that we open have these ports */
	assert_true(own_reads(&o, 61005));
	assert_false(listed(&o, false, 61005).headers_only);
	assert_false(own_reads(&o, 61011));
	own_fini(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_address_and_port_of_a_listener),
		cmocka_unit_test(a_wildcard_owns_local_addresses_of_its_families),
		cmocka_unit_test(an_address_no_kernel_has_must_be_named),
		cmocka_unit_test(local_ports_are_a_range),
		cmocka_unit_test(owners_are_counted),
		cmocka_unit_test(the_list_has_each_once),
		cmocka_unit_test(a_port_is_unread_while_nobody_of_any_address_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
