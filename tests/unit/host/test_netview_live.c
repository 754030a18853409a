/* SPDX-License-Identifier: Apache-2.0 */
/* netview against the kernel, in namespaces of its own. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/netview.h"
#include "netns.h"

#define SECOND_US 1000000ULL

/* The time is an argument: tests begin here. */
static const uint64_t start_us = 1000 * SECOND_US;

static struct ipaddr ip(const char *text)
{
	struct ipaddr a;

	assert_int_equal(addr_parse(text, &a), 0);
	return a;
}

static struct netview *view_of(const char *const *only)
{
	struct netview *v = NULL;
	struct errmsg err;

	if (netview_new(only, &v, &err))
		fail_msg("%s", err.text);
	return v;
}

static bool readable(const struct netview *v, int wait_ms)
{
	struct pollfd p = { .fd = netview_fd(v), .events = POLLIN };

	return poll(&p, 1, wait_ms) == 1;
}

/* Everything that the kernel has told by now. True when addresses changed. */
static bool update(struct netview *v)
{
	bool changed = false;

	while (readable(v, 20))
		changed |= netview_update(v, start_us);
	return changed;
}

static bool is_local(const struct netview *v, const char *text)
{
	const struct ipaddr a = ip(text);

	return netview_is_local(v, &a);
}

static bool is_broadcast(const struct netview *v, const char *text)
{
	const struct ipaddr a = ip(text);

	return netview_is_subnet_broadcast(v, &a);
}

static int path_from(struct netview *v, const char *dst, uint32_t scope, const char *src,
		     uint64_t now_us, const struct path **ret_path)
{
	const struct ipaddr to = ip(dst), from = src ? ip(src) : addr_any;

	return netview_path(v, &to, scope, src ? &from : NULL, now_us, ret_path);
}

static const struct path *path_to(struct netview *v, const char *dst)
{
	const struct path *p = NULL;

	assert_int_equal(path_from(v, dst, 0, NULL, start_us, &p), 0);
	return p;
}

static int error_to(struct netview *v, const char *dst)
{
	const struct path *p = NULL;

	return path_from(v, dst, 0, NULL, start_us, &p);
}

static uint64_t asked(const struct netview *v)
{
	struct netview_stats stats;

	netview_stats(v, &stats);
	return stats.paths_asked;
}

static int setup(void **state)
{
	netns_fresh();
	netns_veth();
	*state = view_of(NULL);
	return 0;
}

static int teardown(void **state)
{
	netview_free(*state);
	return 0;
}

static void addresses_of_the_machine_are_known(void **state)
{
	struct netview *v = *state;

	assert_true(is_local(v, "127.0.0.1"));
	assert_true(is_local(v, "127.45.67.89"));
	assert_true(is_local(v, "::1"));
	assert_true(is_local(v, "10.77.0.1"));
	assert_true(is_local(v, "fd77::1"));
	assert_false(is_local(v, "10.77.0.2"));
	assert_false(is_local(v, "10.77.0.255"));
	assert_false(is_local(v, "127.255.255.255"));
	assert_false(is_local(v, "0.0.0.0"));
	assert_false(is_local(v, "::"));
	assert_true(is_broadcast(v, "10.77.0.255"));
	assert_true(is_broadcast(v, "127.255.255.255"));
	assert_false(is_broadcast(v, "10.77.1.255"));
}

static void addresses_that_come_and_go_are_noticed(void **state)
{
	struct netview *v = *state;

	(void)update(v);
	netns_run(NETNS_HERE, "ip addr add 192.0.2.1/25 dev here");
	assert_true(readable(v, 1000));
	assert_true(update(v));
	assert_true(is_local(v, "192.0.2.1"));
	assert_true(is_broadcast(v, "192.0.2.127"));
	netns_run(NETNS_HERE, "ip addr del 192.0.2.1/25 dev here");
	assert_true(update(v));
	assert_false(is_local(v, "192.0.2.1"));
	assert_false(is_broadcast(v, "192.0.2.127"));
	/* Another event is no change of addresses. */
	netns_run(NETNS_HERE, "ip route add 198.51.100.0/24 via 10.77.0.2");
	assert_true(readable(v, 1000));
	assert_false(update(v));
}

static void an_address_under_examination_is_not_ours_yet(void **state)
{
	struct netview *v = *state;

	netns_run(NETNS_HERE, "echo 1 >/proc/sys/net/ipv6/conf/here/accept_dad; "
			      "ip addr add fd77::99/64 dev here");
	(void)update(v);
	assert_false(is_local(v, "fd77::99"));
	/* It takes the kernel a second or two to find that nobody else has it. */
	for (int i = 0; i < 50 && !is_local(v, "fd77::99"); i++) {
		(void)readable(v, 100);
		(void)update(v);
	}
	assert_true(is_local(v, "fd77::99"));
}

static void only_named_interfaces_are_used(void **state)
{
	const char *const only[] = { "here", "later", NULL };
	struct netview *v = view_of(only);
	uint32_t later;

	assert_true(is_local(v, "10.77.0.1"));
	assert_false(is_local(v, "127.0.0.1"));
	assert_true(netview_uses_interface(v, if_nametoindex("here")));
	assert_false(netview_uses_interface(v, if_nametoindex("lo")));
	assert_false(netview_uses_interface(v, 4711));
	assert_int_equal(error_to(v, "127.0.0.1"), -ENETUNREACH);

	netns_run(NETNS_HERE,
		  "ip link add later type veth peer name other; "
		  "ip addr add 192.0.2.1/24 dev later; ip addr add 192.0.2.9/24 dev other");
	later = if_nametoindex("later");
	assert_true(update(v));
	assert_true(netview_uses_interface(v, later));
	assert_string_equal(netview_link_name(v, later), "later");
	assert_true(is_local(v, "192.0.2.1"));
	assert_false(is_local(v, "192.0.2.9"));

	netns_run(NETNS_HERE, "ip link set later name never");
	assert_true(update(v));
	assert_false(is_local(v, "192.0.2.1"));
	assert_false(netview_uses_interface(v, later));
	netns_run(NETNS_HERE, "ip link del never");
	(void)update(v);
	assert_string_equal(netview_link_name(v, later), "?");
	assert_int_equal(netview_link_mtu(v, later), 0);
	netview_free(v);
}

static void ports_of_a_bridge_are_left_to_the_bridge(void **state)
{
	struct netview *v = *state;
	const uint32_t here = if_nametoindex("here");
	uint8_t mac[6];

	assert_true(netview_uses_interface(v, here));
	netns_run(NETNS_HERE,
		  "ip link add br0 type bridge; ip link set br0 up; ip link set here master br0");
	(void)update(v);
	assert_false(netview_uses_interface(v, here));
	assert_true(netview_uses_interface(v, if_nametoindex("br0")));
	assert_true(netview_link_mac(v, if_nametoindex("br0"), mac));
	assert_false(netview_link_mac(v, if_nametoindex("lo"), mac));
	/* Its leaving is told as RTM_DELLINK of AF_BRIDGE, which must not take the link away. */
	netns_run(NETNS_HERE, "ip link set here nomaster");
	(void)update(v);
	assert_true(netview_uses_interface(v, here));
	assert_int_equal(netview_link_mtu(v, here), 1500);
	assert_true(is_local(v, "10.77.0.1"));
}

static void networks_on_the_link_are_told(void **state)
{
	struct netview *v = *state;
	const uint32_t here = if_nametoindex("here"), lo = if_nametoindex("lo");
	const struct ipaddr near = ip("10.77.0.99"), far = ip("10.78.0.1"),
			    near6 = ip("fd77::abcd"), far6 = ip("fd78::1");

	assert_true(netview_is_onlink(v, here, &near));
	assert_false(netview_is_onlink(v, here, &far));
	assert_true(netview_is_onlink(v, here, &near6));
	assert_false(netview_is_onlink(v, here, &far6));
	assert_false(netview_is_onlink(v, lo, &near));
}

static void a_path_on_the_link(void **state)
{
	struct netview *v = *state;
	const struct path *p = path_to(v, "10.77.0.2");
	const struct ipaddr mine = ip("10.77.0.1"), mine6 = ip("fd77::1");
	uint8_t mac[6];

	assert_int_equal(p->ifindex, if_nametoindex("here"));
	assert_int_equal(p->mtu, 1500);
	assert_true(p->ethernet);
	assert_true(p->offload);
	assert_false(p->loopback);
	assert_true(addr_eq(&p->src, &mine));
	assert_true(netview_link_mac(v, p->ifindex, mac));
	assert_memory_equal(p->src_mac, mac, 6);
	p = path_to(v, "fd77::2");
	assert_int_equal(p->ifindex, if_nametoindex("here"));
	assert_true(addr_eq(&p->src, &mine6));
}

static void a_path_to_this_machine_is_by_lo(void **state)
{
	static const char *const own[] = { "127.0.0.1", "127.3.2.1", "10.77.0.1", "::1",
					   "fd77::1" };
	struct netview *v = *state;

	for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
		const struct path *p = path_to(v, own[i]);

		assert_true(p->loopback);
		assert_false(p->ethernet);
		assert_false(p->offload);
		assert_int_equal(p->ifindex, if_nametoindex("lo"));
		assert_int_equal(p->mtu, 65535);
	}
}

static void the_kernels_refusals_come_back(void **state)
{
	struct netview *v = *state;

	assert_int_equal(error_to(v, "203.0.113.1"), -ENETUNREACH);
	assert_int_equal(error_to(v, "2001:db8::1"), -ENETUNREACH);
	netns_run(NETNS_HERE,
		  "ip route add unreachable 203.0.113.1; ip route add blackhole 203.0.113.2; "
		  "ip route add prohibit 203.0.113.3; ip route add unreachable 2001:db8::1; "
		  "ip route add blackhole 2001:db8::2; ip route add prohibit 2001:db8::3");
	(void)update(v);
	assert_int_equal(error_to(v, "203.0.113.1"), -EHOSTUNREACH);
	assert_int_equal(error_to(v, "203.0.113.2"), -EHOSTUNREACH);
	assert_int_equal(error_to(v, "203.0.113.3"), -EHOSTUNREACH);
	assert_int_equal(error_to(v, "2001:db8::1"), -EHOSTUNREACH);
	assert_int_equal(error_to(v, "2001:db8::2"), -EHOSTUNREACH);
	assert_int_equal(error_to(v, "2001:db8::3"), -EHOSTUNREACH);
	assert_int_equal(error_to(v, "224.0.0.1"), -ENETUNREACH);
	assert_int_equal(error_to(v, "10.77.0.255"), -ENETUNREACH);
}

static void a_refusal_is_believed_for_a_second(void **state)
{
	struct netview *v = *state;
	const struct path *p;
	uint64_t before;

	(void)update(v);
	before = asked(v);
	for (int i = 0; i < 10; i++)
		assert_int_equal(path_from(v, "203.0.113.1", 0, NULL, start_us + 99999, &p),
				 -ENETUNREACH);
	assert_int_equal(asked(v), before + 1);
	assert_int_equal(path_from(v, "203.0.113.1", 0, NULL, start_us + 2 * SECOND_US, &p),
			 -ENETUNREACH);
	assert_int_equal(asked(v), before + 2);
}

static void a_path_is_asked_once_until_something_changes(void **state)
{
	struct netview *v = *state;
	uint64_t before;

	(void)update(v);
	before = asked(v);
	for (int i = 0; i < 10; i++)
		(void)path_to(v, "10.77.0.2");
	assert_int_equal(asked(v), before + 1);
	netns_run(NETNS_HERE, "ip route add 10.77.0.2 dev here mtu 1300");
	(void)update(v);
	assert_int_equal(path_to(v, "10.77.0.2")->mtu, 1300);
	assert_int_equal(asked(v), before + 2);
	netns_run(NETNS_HERE, "ip link set here mtu 1280");
	(void)update(v);
	assert_int_equal(path_to(v, "10.77.0.2")->mtu, 1280);
	assert_int_equal(netview_link_mtu(v, if_nametoindex("here")), 1280);
	netns_run(NETNS_HERE, "ip link set here down");
	(void)update(v);
	assert_int_equal(error_to(v, "10.77.0.2"), -ENETUNREACH);
}

static void policy_routing_by_source_is_the_kernels(void **state)
{
	struct netview *v = *state;
	const struct path *p = NULL;
	const struct ipaddr second = ip("10.77.0.7");

	netns_run(NETNS_HERE,
		  "ip addr add 10.77.0.7/24 dev here; ip rule add from 10.77.0.7 table 100; "
		  "ip route add 198.51.100.0/24 via 10.77.0.2 mtu 1400 table 100");
	(void)update(v);
	assert_int_equal(error_to(v, "198.51.100.1"), -ENETUNREACH);
	assert_int_equal(path_from(v, "198.51.100.1", 0, "10.77.0.7", start_us, &p), 0);
	assert_int_equal(p->mtu, 1400);
	assert_true(addr_eq(&p->src, &second));
	netns_run(NETNS_HERE, "ip rule del from 10.77.0.7 table 100");
	(void)update(v);
	assert_int_equal(path_from(v, "198.51.100.1", 0, "10.77.0.7", start_us, &p), -ENETUNREACH);
}

/* Shield=none: the source is an address that the kernel does not own, and would not route from. */
static void a_source_that_no_kernel_owns_has_a_path(void **state)
{
	struct netview *v = *state;
	const struct path *p = NULL;
	const struct ipaddr src = ip("10.77.0.100"), src6 = ip("fd77::100");

	assert_int_equal(path_from(v, "10.77.0.2", 0, "10.77.0.100", start_us, &p), 0);
	assert_int_equal(p->ifindex, if_nametoindex("here"));
	assert_true(addr_eq(&p->src, &src));
	assert_int_equal(path_from(v, "fd77::2", 0, "fd77::100", start_us, &p), 0);
	assert_true(addr_eq(&p->src, &src6));
}

static void link_local_goes_by_its_scope(void **state)
{
	struct netview *v = *state;
	const struct path *p = NULL;
	const uint32_t here = if_nametoindex("here");
	uint32_t second;

	netns_run(NETNS_HERE,
		  "ip link add second type veth peer name second2; ip link set second up; "
		  "ip link set second2 up; ip addr add fe80::77/64 dev second nodad; "
		  "ip addr add fe80::78/64 dev here nodad");
	second = if_nametoindex("second");
	(void)update(v);
	assert_int_equal(path_from(v, "fe80::1", here, NULL, start_us, &p), 0);
	assert_int_equal(p->ifindex, here);
	assert_int_equal(path_from(v, "fe80::1", second, NULL, start_us, &p), 0);
	assert_int_equal(p->ifindex, second);
}

static void peer_mac(uint8_t ret_mac[6])
{
	char text[64];
	unsigned octet[6];

	netns_enter(NETNS_PEER);
	netns_output("ip -o link show peer | sed 's/.*ether \\([^ ]*\\).*/\\1/'", text,
		     sizeof(text));
	netns_enter(NETNS_HERE);
	assert_int_equal(sscanf(text, "%x:%x:%x:%x:%x:%x", &octet[0], &octet[1], &octet[2],
				&octet[3], &octet[4], &octet[5]),
			 6);
	for (int i = 0; i < 6; i++)
		ret_mac[i] = (uint8_t)octet[i];
}

static void a_neighbour_that_the_kernel_found_is_known(void **state)
{
	static const char *const hosts[] = { "10.77.0.2", "fd77::2" };
	struct netview *v = *state;
	uint8_t mac[6];

	peer_mac(mac);
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		assert_false(path_to(v, hosts[i])->neigh_known);
		assert_int_equal(netns_connect(NETNS_HERE, hosts[i], 9), -ECONNREFUSED);
		(void)update(v);
		assert_true(path_to(v, hosts[i])->neigh_known);
		assert_memory_equal(path_to(v, hosts[i])->dst_mac, mac, 6);
	}
	/* One that came before us is found too. */
	netview_free(v);
	*state = v = view_of(NULL);
	assert_true(path_to(v, "10.77.0.2")->neigh_known);
	assert_true(path_to(v, "fd77::2")->neigh_known);
}

static void the_gateway_is_the_neighbour(void **state)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 9 }, mac6[6] = { 2, 0, 0, 0, 0, 6 };
	struct netview *v = *state;

	netns_run(NETNS_HERE, "ip route add 198.51.100.0/24 via 10.77.0.9; "
			      "ip route add 2001:db8::/32 via fd77::9; "
			      "ip route add 203.0.113.0/24 via inet6 fd77::6; "
			      "ip neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev here; "
			      "ip neigh add fd77::9 lladdr 02:00:00:00:00:09 dev here; "
			      "ip neigh add fd77::6 lladdr 02:00:00:00:00:06 dev here");
	(void)update(v);
	assert_true(path_to(v, "198.51.100.1")->neigh_known);
	assert_memory_equal(path_to(v, "198.51.100.1")->dst_mac, mac, 6);
	assert_memory_equal(path_to(v, "2001:db8::1")->dst_mac, mac, 6);
	/* IPv4 by an IPv6 gateway, RFC 5549. */
	assert_true(path_to(v, "203.0.113.1")->neigh_known);
	assert_memory_equal(path_to(v, "203.0.113.1")->dst_mac, mac6, 6);
}

static void neighbours_change_and_go(void **state)
{
	static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 10 };
	struct netview *v = *state;

	netns_run(NETNS_HERE, "ip neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev here");
	(void)update(v);
	assert_true(path_to(v, "10.77.0.9")->neigh_known);
	netns_run(NETNS_HERE, "ip neigh change 10.77.0.9 lladdr 02:00:00:00:00:0a dev here");
	(void)update(v);
	assert_memory_equal(path_to(v, "10.77.0.9")->dst_mac, mac, 6);
	netns_run(NETNS_HERE, "ip neigh del 10.77.0.9 dev here");
	(void)update(v);
	assert_false(path_to(v, "10.77.0.9")->neigh_known);
}

static void a_doubtful_neighbour_is_shown_to_the_kernel_now_and_then(void **state)
{
	struct netview *v = *state;
	const struct path *p = NULL;
	unsigned unknown = 0;

	netns_run(NETNS_HERE, "ip neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev here nud stale");
	(void)update(v);
	/* 20 seconds, ten packets in each: the first, and one every five seconds. */
	for (unsigned i = 0; i < 200; i++) {
		assert_int_equal(
			path_from(v, "10.77.0.9", 0, NULL, start_us + i * SECOND_US / 10, &p), 0);
		unknown += !p->neigh_known;
	}
	assert_int_equal(unknown, 4);
	netns_run(NETNS_HERE,
		  "ip neigh change 10.77.0.9 lladdr 02:00:00:00:00:09 dev here nud reachable");
	(void)update(v);
	for (unsigned i = 0; i < 200; i++) {
		assert_int_equal(
			path_from(v, "10.77.0.9", 0, NULL, start_us + i * SECOND_US / 10, &p), 0);
		assert_true(p->neigh_known);
	}
}

static void lost_events_are_made_up_for(void **state)
{
	struct netview *v = *state;
	struct netview_stats stats;
	const int least = 1;

	(void)update(v);
	assert_int_equal(setsockopt(netview_fd(v), SOL_SOCKET, SO_RCVBUF, &least, sizeof(least)),
			 0);
	netns_run(NETNS_HERE,
		  "for i in $(seq 1 50); do echo addr add 10.99.0.$i/32 dev here; done | "
		  "ip -batch -; ip addr del 10.99.0.1/32 dev here; "
		  "ip neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev here");
	assert_true(update(v));
	netview_stats(v, &stats);
	assert_true(stats.overruns > 0);
	assert_true(is_local(v, "10.99.0.50"));
	assert_false(is_local(v, "10.99.0.1"));
	assert_true(is_local(v, "10.77.0.1"));
	assert_true(is_local(v, "127.0.0.1"));
	assert_true(path_to(v, "10.77.0.9")->neigh_known);
}

static void more_destinations_than_the_cache_holds(void **state)
{
	struct netview *v = *state;
	struct netview_stats stats;
	const struct path *p = NULL;

	(void)update(v);
	for (unsigned i = 0; i < 80000; i++) {
		const struct ipaddr dst = addr_v4(127, (uint8_t)(i >> 16), (uint8_t)(i >> 8),
						  (uint8_t)i);

		assert_int_equal(netview_path(v, &dst, 0, NULL, start_us, &p), 0);
		assert_true(p->loopback);
	}
	netview_stats(v, &stats);
	assert_true(stats.paths_evicted > 80000 - 65536);
	assert_true(path_to(v, "10.77.0.2")->ethernet);
}

#define LIVE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LIVE(addresses_of_the_machine_are_known),
		LIVE(addresses_that_come_and_go_are_noticed),
		LIVE(an_address_under_examination_is_not_ours_yet),
		LIVE(only_named_interfaces_are_used),
		LIVE(ports_of_a_bridge_are_left_to_the_bridge),
		LIVE(networks_on_the_link_are_told),
		LIVE(a_path_on_the_link),
		LIVE(a_path_to_this_machine_is_by_lo),
		LIVE(the_kernels_refusals_come_back),
		LIVE(a_refusal_is_believed_for_a_second),
		LIVE(a_path_is_asked_once_until_something_changes),
		LIVE(policy_routing_by_source_is_the_kernels),
		LIVE(a_source_that_no_kernel_owns_has_a_path),
		LIVE(link_local_goes_by_its_scope),
		LIVE(a_neighbour_that_the_kernel_found_is_known),
		LIVE(the_gateway_is_the_neighbour),
		LIVE(neighbours_change_and_go),
		LIVE(a_doubtful_neighbour_is_shown_to_the_kernel_now_and_then),
		LIVE(lost_events_are_made_up_for),
		LIVE(more_destinations_than_the_cache_holds),
	};

	netns_need("ip");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
