/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of netview, filled past their limits without a kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/macros.h"
#include "host/nv.h"

static int setup(void **state)
{
	struct netview *v = calloc(1, sizeof(*v));

	v->neighs = calloc(NV_NEIGHS, sizeof(*v->neighs));
	v->paths = calloc(NV_PATHS, sizeof(*v->paths));
	v->key[0] = 1;
	nv_tables_clear(v);
	*state = v;
	return 0;
}

static int teardown(void **state)
{
	nv_tables_fini(*state);
	free(*state);
	return 0;
}

static struct ipaddr nth(unsigned i)
{
	return addr_v4(10, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i);
}

static void links_are_found_whatever_the_order(void **state)
{
	static const uint32_t order[] = { 7, 2, 900000, 1, 5, 3 };
	struct netview *v = *state;

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		struct nv_link l = { .ifindex = order[i], .mtu = order[i] + 1, .name = "x" };

		assert_int_equal(nv_link_put(v, &l), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		assert_int_equal(nv_link_find(v, order[i])->mtu, order[i] + 1);
	assert_null(nv_link_find(v, 4));
	nv_link_delete(v, 5);
	nv_link_delete(v, 4);
	assert_null(nv_link_find(v, 5));
	assert_int_equal(nv_link_find(v, 7)->mtu, 8);
	assert_int_equal(v->links_n, ARRAY_SIZE(order) - 1);
}

static void a_report_without_news_keeps_the_paths(void **state)
{
	struct netview *v = *state;
	struct nv_link l = { .ifindex = 1, .mtu = 1500, .name = "x" };
	struct nv_addr a = {
		.ifindex = 1, .addr = nth(1), .prefix = nth(1), .len = 8, .usable = true
	};
	uint64_t generation;

	assert_int_equal(nv_link_put(v, &l), 0);
	assert_int_equal(nv_addr_put(v, &a), 0);
	generation = v->generation;
	v->addresses_changed = false;
	assert_int_equal(nv_link_put(v, &l), 0);
	assert_int_equal(nv_addr_put(v, &a), 0);
	assert_int_equal(v->generation, generation);
	assert_false(v->addresses_changed);
	l.mtu = 1400;
	assert_int_equal(nv_link_put(v, &l), 0);
	assert_int_not_equal(v->generation, generation);
	assert_false(v->addresses_changed);
}

static void a_link_that_comes_again_is_another(void **state)
{
	struct netview *v = *state;
	struct nv_link l = { .ifindex = 1, .mtu = 1500, .name = "x" };
	uint64_t made;

	assert_int_equal(netview_link_made(v, 1), 0);
	assert_int_equal(nv_link_put(v, &l), 0);
	made = netview_link_made(v, 1);
	assert_int_not_equal(made, 0);
	l.mtu = 1400;
	assert_int_equal(nv_link_put(v, &l), 0);
	assert_int_equal(netview_link_made(v, 1), made);
	nv_link_delete(v, 1);
	assert_int_equal(netview_link_made(v, 1), 0);
	assert_int_equal(nv_link_put(v, &l), 0);
	assert_true(netview_link_made(v, 1) > made);
	made = netview_link_made(v, 1);
	nv_tables_clear(v); /* as after events were lost */
	assert_int_equal(nv_link_put(v, &l), 0);
	assert_true(netview_link_made(v, 1) > made);
}

static void a_link_takes_its_addresses_and_neighbours_along(void **state)
{
	struct netview *v = *state;
	struct nv_link one = { .ifindex = 1, .name = "a" }, two = { .ifindex = 2, .name = "b" };

	assert_int_equal(nv_link_put(v, &one), 0);
	assert_int_equal(nv_link_put(v, &two), 0);
	for (unsigned i = 0; i < 10; i++) {
		struct nv_addr a = { .ifindex = 1 + i % 2,
				     .addr = nth(i),
				     .prefix = nth(i),
				     .len = 32,
				     .usable = true };
		struct nv_neigh n = { .ifindex = 1 + i % 2, .addr = nth(i) };

		assert_int_equal(nv_addr_put(v, &a), 0);
		nv_neigh_put(v, &n);
	}
	nv_link_delete(v, 1);
	assert_int_equal(nv_sets_rebuild(v), 0);
	for (unsigned i = 0; i < 10; i++) {
		const struct ipaddr a = nth(i);

		assert_int_equal(nv_set_has(&v->local, &a), i % 2 == 1);
		assert_int_equal(nv_neigh_find(v, 1 + i % 2, &a) != NULL, i % 2 == 1);
	}
}

/* Where nobody but IP takes the frames. */
static void direct_links_are_told(void **state)
{
	static const struct nv_link links[] = {
		{ .ifindex = 1, .name = "lo", .loopback = true },
		{ .ifindex = 2, .name = "eth0", .ethernet = true },
		{ .ifindex = 3, .name = "port", .ethernet = true, .owned = true, .port = true },
		{ .ifindex = 4, .name = "member", .ethernet = true, .owned = true },
		{ .ifindex = 5, .name = "lower", .ethernet = true },
		{ .ifindex = 6, .name = "macvlan", .ethernet = true, .takes_from = 5 },
		{ .ifindex = 9, .name = "tun0" },
	};
	struct netview *v = *state;
	uint64_t generation;
	struct nv_link l;
	size_t at = 0;

	assert_int_equal(netview_next_direct(v, &at), 0);
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		assert_int_equal(nv_link_put(v, &links[i]), 0);
	assert_int_equal(netview_next_direct(v, &at), 2);
	assert_int_equal(netview_next_direct(v, &at), 6);
	assert_int_equal(netview_next_direct(v, &at), 9);
	assert_int_equal(netview_next_direct(v, &at), 0);
	generation = v->generation;
	l = links[5];
	l.takes_from = 2;
	assert_int_equal(nv_link_put(v, &l), 0);
	assert_int_not_equal(v->generation, generation);
	generation = v->generation;
	l = links[3];
	l.owned = false;
	assert_int_equal(nv_link_put(v, &l), 0);
	assert_int_not_equal(v->generation, generation);
	at = 0;
	assert_int_equal(netview_next_direct(v, &at), 4);
	assert_int_equal(netview_next_direct(v, &at), 5);
}

static void thousands_of_addresses_are_found(void **state)
{
	struct netview *v = *state;
	struct nv_link l = { .ifindex = 1, .name = "x" };
	struct ipaddr a;

	assert_int_equal(nv_link_put(v, &l), 0);
	for (unsigned i = 0; i < 3000; i++) {
		struct nv_addr add = { .ifindex = 1,
				       .addr = nth(2 * i + 1),
				       .prefix = nth(2 * i + 1),
				       .len = 32,
				       .usable = i != 7 };

		assert_int_equal(nv_addr_put(v, &add), 0);
	}
	assert_int_equal(nv_sets_rebuild(v), 0);
	for (unsigned i = 0; i < 6000; i++) {
		a = nth(i);
		assert_int_equal(nv_set_has(&v->local, &a), i % 2 == 1 && i != 15);
	}
	assert_false(nv_set_has(&v->local, &addr_any));
}

static void broadcast_addresses_come_from_prefixes_and_configuration(void **state)
{
	struct netview *v = *state;
	struct nv_link l = { .ifindex = 1, .name = "x" };
	const struct nv_addr add[] = {
		{ .ifindex = 1,
		  .addr = addr_v4(10, 0, 0, 1),
		  .prefix = addr_v4(10, 0, 0, 1),
		  .len = 22 },
		{ .ifindex = 1,
		  .addr = addr_v4(10, 9, 0, 1),
		  .prefix = addr_v4(10, 9, 0, 1),
		  .len = 31 },
		{ .ifindex = 1,
		  .addr = addr_v4(10, 8, 0, 1),
		  .prefix = addr_v4(10, 8, 0, 1),
		  .len = 24,
		  .broadcast = addr_v4(10, 8, 0, 77) },
	};
	const struct {
		struct ipaddr addr;
		bool is;
	} want[] = {
		{ addr_v4(10, 0, 3, 255), true },       { addr_v4(10, 0, 0, 255), false },
		{ addr_v4(10, 9, 0, 1), false },        { addr_v4(10, 8, 0, 77), true },
		{ addr_v4(10, 8, 0, 255), true },       { addr_v4(10, 8, 0, 1), false },
		{ addr_v4(255, 255, 255, 255), false },
	};

	assert_int_equal(nv_link_put(v, &l), 0);
	for (size_t i = 0; i < ARRAY_SIZE(add); i++)
		assert_int_equal(nv_addr_put(v, &add[i]), 0);
	assert_int_equal(nv_sets_rebuild(v), 0);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++)
		assert_int_equal(nv_set_has(&v->broadcast, &want[i].addr), want[i].is);
}

static void the_neighbour_table_is_bounded(void **state)
{
	struct netview *v = *state;
	struct nv_neigh n = { .ifindex = 3, .confirmed = true };
	unsigned found = 0;

	for (unsigned i = 0; i < 2 * NV_NEIGHS; i++) {
		n.addr = nth(i);
		memcpy(n.mac, &i, sizeof(i));
		nv_neigh_put(v, &n);
	}
	for (unsigned i = 0; i < 2 * NV_NEIGHS; i++) {
		const struct ipaddr a = nth(i);
		const struct nv_neigh *have = nv_neigh_find(v, 3, &a);

		if (!have)
			continue;
		assert_memory_equal(have->mac, &i, sizeof(i));
		found++;
	}
	assert_true(found > NV_NEIGHS / 2 && found <= NV_NEIGHS);
	assert_int_equal(v->stats.neighs_evicted, 2 * NV_NEIGHS - found);
	n.addr = nth(2 * NV_NEIGHS - 1);
	assert_null(nv_neigh_find(v, 4, &n.addr));
	nv_neigh_delete(v, 3, &n.addr);
	assert_null(nv_neigh_find(v, 3, &n.addr));
}

static void the_path_table_is_bounded_and_expires(void **state)
{
	struct netview *v = *state;
	struct nv_path *p;
	bool hit;

	for (unsigned i = 0; i < 2 * NV_PATHS; i++) {
		const struct nv_path_key key = { .dst = nth(i) };

		p = nv_path_slot(v, &key, 1000, &hit);
		assert_false(hit);
		p->generation = v->generation;
		p->until_us = 2000;
		assert_ptr_equal(nv_path_slot(v, &key, 1999, &hit), p);
		assert_true(hit);
	}
	assert_true(v->stats.paths_evicted >= NV_PATHS);
	/* Old: the same slot, to be filled again. */
	assert_ptr_equal(nv_path_slot(v, &p->key, 2000, &hit), p);
	assert_false(hit);
	assert_ptr_equal(nv_path_slot(v, &p->key, 1999, &hit), p);
	assert_true(hit);
	v->generation++;
	assert_ptr_equal(nv_path_slot(v, &p->key, 1999, &hit), p);
	assert_false(hit);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(links_are_found_whatever_the_order, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_report_without_news_keeps_the_paths, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_link_that_comes_again_is_another, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_link_takes_its_addresses_and_neighbours_along,
						setup, teardown),
		cmocka_unit_test_setup_teardown(direct_links_are_told, setup, teardown),
		cmocka_unit_test_setup_teardown(thousands_of_addresses_are_found, setup, teardown),
		cmocka_unit_test_setup_teardown(
			broadcast_addresses_come_from_prefixes_and_configuration, setup, teardown),
		cmocka_unit_test_setup_teardown(the_neighbour_table_is_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(the_path_table_is_bounded_and_expires, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
