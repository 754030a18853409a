/* SPDX-License-Identifier: Apache-2.0 */
/* The shield against the kernel of this machine, in namespaces of its own. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/shield.h"
#include "netns.h"

static const char save_both[] = "iptables-save -t raw; ip6tables-save -t raw";

static int setup(void **state)
{
	netns_fresh();
	return 0;
}

static struct shield *shield_of(const char *tag)
{
	struct errmsg err = { { 0 } };
	struct shield *s = NULL;

	if (shield_new(tag, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

static void apply(struct shield *s, const struct shield_rule *rules, size_t n)
{
	struct errmsg err = { { 0 } };

	if (shield_apply(s, rules, n, &err))
		fail_msg("%s", err.text);
}

static void remove_all(struct shield *s)
{
	struct errmsg err = { { 0 } };

	if (shield_remove(s, &err))
		fail_msg("%s", err.text);
}

static size_t list(struct shield *s, struct shield_stat **ret_stats)
{
	struct errmsg err = { { 0 } };
	size_t n = 0;

	if (shield_list(s, ret_stats, &n, &err))
		fail_msg("%s", err.text);
	return n;
}

static unsigned count_saved(const char *what)
{
	static char text[65536];
	unsigned n = 0;

	netns_output(save_both, text, sizeof(text));
	for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
		n++;
	return n;
}

static void a_shielded_port_is_silent_and_the_rest_is_not(void **state)
{
	const struct shield_rule rules[] = { { addr_any, 7, 7 }, { addr_any, 61000, 61010 } };
	struct shield *s = shield_of("t");

	netns_veth();
	assert_int_equal(netns_connect(NETNS_PEER, "10.77.0.1", 7), -ECONNREFUSED);
	apply(s, rules, 2);
	assert_int_equal(netns_connect(NETNS_PEER, "10.77.0.1", 7), -ETIMEDOUT);
	assert_int_equal(netns_connect(NETNS_PEER, "fd77::1", 61005), -ETIMEDOUT);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.1", 61010), -ETIMEDOUT);
	assert_int_equal(netns_connect(NETNS_HERE, "::1", 7), -ETIMEDOUT);
	assert_int_equal(netns_connect(NETNS_PEER, "10.77.0.1", 8), -ECONNREFUSED);
	assert_int_equal(netns_connect(NETNS_PEER, "fd77::1", 61011), -ECONNREFUSED);
	/* Only what is for this machine: the same port elsewhere is not ours. */
	assert_int_equal(netns_connect(NETNS_HERE, "10.77.0.2", 7), -ECONNREFUSED);
	remove_all(s);
	assert_int_equal(netns_connect(NETNS_PEER, "10.77.0.1", 7), -ECONNREFUSED);
	assert_int_equal(netns_connect(NETNS_PEER, "fd77::1", 61005), -ECONNREFUSED);
	assert_int_equal(count_saved("TCPFSMD"), 0);
	assert_int_equal(count_saved("tcpfsmd"), 0);
	shield_free(s);
}

static void a_rule_for_one_address_leaves_the_others(void **state)
{
	struct shield_rule rules[] = { { addr_v4(127, 0, 0, 2), 7, 7 },
				       { addr_any4, 9, 9 },
				       { .port_min = 7, .port_max = 7 } };
	struct shield *s = shield_of("t");

	assert_int_equal(addr_parse("::1", &rules[2].addr), 0);
	apply(s, rules, 3);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.2", 7), -ETIMEDOUT);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.1", 7), -ECONNREFUSED);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.1", 9), -ETIMEDOUT);
	assert_int_equal(netns_connect(NETNS_HERE, "::1", 9), -ECONNREFUSED);
	assert_int_equal(netns_connect(NETNS_HERE, "::1", 7), -ETIMEDOUT);
	shield_free(s);
}

static void what_stands_is_listed_with_its_counts(void **state)
{
	const struct shield_rule rules[] = { { addr_any, 7, 7 }, { addr_any4, 61000, 65535 } };
	struct shield *s = shield_of("t");
	struct shield_stat *stats = NULL;

	assert_int_equal(list(s, &stats), 0);
	free(stats);
	apply(s, rules, 2);
	assert_int_equal(netns_connect(NETNS_HERE, "::1", 7), -ETIMEDOUT);
	/* Filling the chains anew does not lose the count. */
	apply(s, rules, 2);
	assert_int_equal(netns_connect(NETNS_HERE, "::1", 7), -ETIMEDOUT);
	apply(s, rules, 2);
	apply(s, rules, 2);
	assert_int_equal(list(s, &stats), 3);
	assert_false(stats[0].ipv6);
	assert_true(addr_eq(&stats[0].rule.addr, &addr_any4));
	assert_int_equal(stats[0].rule.port_min, 7);
	assert_int_equal(stats[0].packets, 0);
	assert_int_equal(stats[1].rule.port_min, 61000);
	assert_int_equal(stats[1].rule.port_max, 65535);
	assert_true(stats[2].ipv6);
	assert_true(addr_eq(&stats[2].rule.addr, &addr_any));
	assert_in_range(stats[2].packets, 2, 4);
	assert_true(stats[2].bytes >= 2 * 60);
	free(stats);
	/* Nor does another run lose what the kernel still counts. */
	assert_int_equal(netns_connect(NETNS_HERE, "::1", 7), -ETIMEDOUT);
	shield_free(s);
	s = shield_of("t");
	apply(s, rules, 2);
	assert_int_equal(list(s, &stats), 3);
	assert_in_range(stats[2].packets, 1, 2);
	free(stats);
	shield_free(s);
}

/* The object is freed as a crash would, without shield_remove(). */
static void rules_outlive_a_crash_and_are_found_again(void **state)
{
	const struct shield_rule before = { addr_any, 7, 7 }, after = { addr_any, 9, 9 };
	struct shield *s = shield_of("/run/t");

	apply(s, &before, 1);
	shield_free(s);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.1", 7), -ETIMEDOUT);
	s = shield_of("/run/t");
	apply(s, &after, 1);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.1", 7), -ECONNREFUSED);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.1", 9), -ETIMEDOUT);
	assert_int_equal(count_saved("-A PREROUTING"), 2);
	assert_int_equal(count_saved("-A OUTPUT"), 2);
	shield_free(s);
	s = shield_of("/run/t");
	remove_all(s);
	remove_all(s);
	assert_int_equal(count_saved("tcpfsmd"), 0);
	shield_free(s);
}

static void a_jump_too_many_or_too_few_is_put_right(void **state)
{
	const struct shield_rule rule = { addr_any, 7, 7 };
	struct shield *s = shield_of("t");

	apply(s, &rule, 1);
	netns_run(NETNS_HERE,
		  "iptables-save -t raw | sed -n 's/^-A \\(PREROUTING .*\\)/iptables -t raw "
		  "-A \\1/p' | sh; iptables -t raw -F OUTPUT; ip6tables -t raw -F PREROUTING");
	assert_int_equal(count_saved("-A PREROUTING"), 2);
	apply(s, &rule, 1);
	assert_int_equal(count_saved("-A PREROUTING"), 2);
	assert_int_equal(count_saved("-A OUTPUT"), 2);
	netns_run(NETNS_HERE,
		  "iptables-save -t raw | sed -n 's/^-A \\(PREROUTING .*\\)/iptables -t raw "
		  "-A \\1/p' | sh");
	remove_all(s);
	assert_int_equal(count_saved("TCPFSMD"), 0);
	shield_free(s);
}

static void other_peoples_rules_stay(void **state)
{
	const struct shield_rule rule = { addr_any, 7, 7 };
	struct shield *s = shield_of("t");

	netns_run(NETNS_HERE,
		  "iptables -t raw -A PREROUTING -s 192.0.2.9 -m comment --comment 'not ours' "
		  "-j DROP; ip6tables -t raw -N OTHERS");
	apply(s, &rule, 1);
	remove_all(s);
	assert_int_equal(
		count_saved(
			"-A PREROUTING -s 192.0.2.9/32 -m comment --comment \"not ours\" -j DROP"),
		1);
	assert_int_equal(count_saved(":OTHERS"), 1);
	shield_free(s);
}

static void two_instances_share_a_machine_but_no_port(void **state)
{
	const struct shield_rule first = { addr_v4(127, 0, 0, 2), 80, 90 };
	const struct shield_rule clash = { addr_any, 85, 85 },
				 beside = { addr_v4(127, 0, 0, 3), 85, 85 };
	struct shield *a = shield_of("/run/a"), *b = shield_of("/run/b");
	struct errmsg err;

	apply(a, &first, 1);
	apply(b, &beside, 1);
	assert_int_equal(shield_apply(b, &clash, 1, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "\"/run/a\""));
	assert_non_null(strstr(err.text, "127.0.0.2 port 80-90"));
	assert_non_null(strstr(err.text, "iptables-restore"));
	/* The old rules stand. */
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.3", 85), -ETIMEDOUT);
	remove_all(b);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.2", 85), -ETIMEDOUT);
	/* What the message advises does it. */
	netns_run(NETNS_HERE, "%s", strstr(err.text, "iptables-save"));
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.2", 85), -ECONNREFUSED);
	apply(b, &clash, 1);
	shield_free(a);
	shield_free(b);
}

static char scratch[] = "/tmp/host-shield.XXXXXX"; /* a directory, or the template of its name */
static const char template[] = "/tmp/host-shield.XXXXXX";

static int setup_scratch(void **state)
{
	memcpy(scratch, template, sizeof(template));
	netns_fresh();
	return mkdtemp(scratch) ? 0 : -1;
}

static int teardown_scratch(void **state)
{
	netns_run(NETNS_HERE, "rm -r %s", scratch);
	return 0;
}

/* An ip6tables-restore first in PATH that fails as long as the file "broken" is beside it. */
static void write_wrapper(void)
{
	char path[64], real[256];
	FILE *f;

	netns_output("command -v ip6tables-restore", real, sizeof(real));
	(void)snprintf(path, sizeof(path), "%s/ip6tables-restore", scratch);
	f = fopen(path, "we");
	assert_non_null(f);
	(void)fprintf(f,
		      "#!/bin/sh\n[ ! -e %s/broken ] || { echo 'no luck' >&2; exit 1; }\n"
		      "exec %.*s \"$@\"\n",
		      scratch, (int)strcspn(real, "\n"), real);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, 0700), 0);
}

static struct shield *shield_with_wrapper(void)
{
	char *old = strdup(getenv("PATH")), path[4096];
	struct shield *s;

	(void)snprintf(path, sizeof(path), "%s:%s", scratch, old);
	assert_int_equal(setenv("PATH", path, 1), 0);
	s = shield_of("t");
	assert_int_equal(setenv("PATH", old, 1), 0);
	free(old);
	return s;
}

static void both_families_change_or_none(void **state)
{
	const struct shield_rule before = { addr_any, 7, 7 }, after = { addr_any, 9, 9 };
	struct errmsg err;
	struct shield *s;

	write_wrapper();
	s = shield_with_wrapper();
	netns_run(NETNS_HERE, "touch %s/broken", scratch);
	assert_int_equal(shield_apply(s, &before, 1, &err), -EIO);
	assert_non_null(strstr(err.text, "no luck"));
	assert_int_equal(count_saved("TCPFSMD"), 0);
	netns_run(NETNS_HERE, "rm %s/broken", scratch);
	apply(s, &before, 1);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.1", 7), -ETIMEDOUT);
	netns_run(NETNS_HERE, "touch %s/broken", scratch);
	assert_int_equal(shield_apply(s, &after, 1, &err), -EIO);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.1", 7), -ETIMEDOUT);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.1", 9), -ECONNREFUSED);
	assert_int_equal(netns_connect(NETNS_HERE, "::1", 7), -ETIMEDOUT);
	assert_int_equal(count_saved("-A PREROUTING"), 2);
	shield_free(s);
}

static void the_self_test_passes_behind_the_shield(void **state)
{
	const struct shield_rule both = { addr_any, 61000, 61010 },
				 v4 = { addr_any4, 62000, 62010 };
	struct shield *s = shield_of("t");
	struct errmsg err = { { 0 } };

	apply(s, &both, 1);
	if (shield_self_test(s, 61000, 61001, &err))
		fail_msg("%s", err.text);
	apply(s, &v4, 1);
	if (shield_self_test(s, 62000, 62001, &err))
		fail_msg("%s", err.text);
	shield_free(s);
}

static void the_self_test_sees_the_kernel_answer(void **state)
{
	const struct shield_rule rule = { addr_any, 61000, 61010 };
	struct shield *s = shield_of("t");
	struct errmsg err;
	uint16_t port;
	int fd;

	assert_int_equal(shield_self_test(s, 61000, 61001, &err), -EPROTO);
	assert_non_null(strstr(err.text, "127.0.0.1 port 61000 with a RST"));
	fd = netns_listen("127.0.0.1", false, &port);
	assert_int_equal(shield_self_test(s, port, 61001, &err), -EPROTO);
	assert_non_null(strstr(err.text, "a SYN,ACK"));
	close(fd);
	/* Somebody takes the rules away behind our back, of one family alone. */
	apply(s, &rule, 1);
	netns_run(NETNS_HERE, "ip6tables -t raw -F PREROUTING");
	assert_int_equal(shield_self_test(s, 61000, 61001, &err), -EPROTO);
	assert_non_null(strstr(err.text, "[::1] port 61000 with a RST"));
	shield_free(s);
}

static void the_self_test_knows_when_it_cannot_tell(void **state)
{
	const struct shield_rule rule = { addr_any, 61000, 61010 };
	struct shield *s = shield_of("t");
	struct errmsg err;

	apply(s, &rule, 1);
	netns_run(NETNS_HERE, "iptables -t raw -I OUTPUT -p tcp --dport 61000 -j DROP");
	/* The kernel says so to a raw socket, or the SYN does not come. */
	assert_true(shield_self_test(s, 61000, 61001, &err) < 0);
	netns_run(NETNS_HERE, "ip link set lo down");
	assert_int_equal(shield_self_test(s, 61000, 61001, &err), -ENETDOWN);
	shield_free(s);
}

static long conntracks(void)
{
	FILE *f = fopen("/proc/sys/net/netfilter/nf_conntrack_count", "re");
	long n = -1;

	if (!f)
		return -1;
	if (fscanf(f, "%ld", &n) != 1)
		n = -1;
	(void)fclose(f);
	return n;
}

static void conntrack_never_hears_of_us(void **state)
{
	const struct shield_rule rule = { addr_any, 7, 7 };
	struct shield *s = shield_of("t");
	uint16_t port;
	long before;
	int fd;

	netns_veth();
	netns_run(NETNS_HERE, "iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT; "
			      "iptables -A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT");
	apply(s, &rule, 1);
	before = conntracks();
	if (before < 0)
		skip();
	assert_int_equal(netns_connect(NETNS_PEER, "10.77.0.1", 7), -ETIMEDOUT);
	assert_int_equal(netns_connect(NETNS_HERE, "10.77.0.1", 7), -ETIMEDOUT);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.1", 7), -ETIMEDOUT);
	assert_int_equal(conntracks(), before);
	/* That it would, without us. */
	fd = netns_listen("10.77.0.1", false, &port);
	assert_int_equal(netns_connect(NETNS_PEER, "10.77.0.1", port), 0);
	assert_true(conntracks() > before);
	close(fd);
	shield_free(s);
}

static void a_machine_without_ipv6_addresses_works(void **state)
{
	const struct shield_rule rule = { addr_any, 7, 7 };
	struct shield *s;
	struct errmsg err = { { 0 } };

	netns_run(NETNS_HERE, "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6");
	s = shield_of("t");
	apply(s, &rule, 1);
	assert_int_equal(netns_connect(NETNS_HERE, "127.0.0.1", 7), -ETIMEDOUT);
	if (shield_self_test(s, 7, 7, &err))
		fail_msg("%s", err.text);
	remove_all(s);
	shield_free(s);
}

static void a_bad_range_changes_nothing(void **state)
{
	const struct shield_rule zero = { addr_any, 0, 7 }, reversed = { addr_any, 9, 7 };
	struct shield *s = shield_of("t");
	struct errmsg err;

	assert_int_equal(shield_apply(s, &zero, 1, &err), -EINVAL);
	assert_int_equal(shield_apply(s, &reversed, 1, &err), -EINVAL);
	assert_int_equal(count_saved("TCPFSMD"), 0);
	shield_free(s);
}

/* In a child: what it does to itself ends with it. */
static void in_child(int (*fn)(void))
{
	const pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int try_unprivileged(void)
{
	struct shield *s = NULL;
	struct errmsg err = { { 0 } };
	int rc;

	if (setgid(65534) || setuid(65534))
		return 1;
	rc = shield_new("t", &s, &err);
	(void)fprintf(stderr, "%s\n", err.text);
	return rc != -EPERM || !strstr(err.text, "CAP_NET_ADMIN");
}

static int try_without_iptables(void)
{
	struct shield *s = NULL;
	struct errmsg err = { { 0 } };
	int rc;

	if (chroot(scratch) || chdir("/"))
		return 1;
	rc = shield_new("t", &s, &err);
	(void)fprintf(stderr, "%s\n", err.text);
	return rc != -ENOENT || !strstr(err.text, "install iptables");
}

static void what_is_missing_is_named(void **state)
{
	in_child(try_unprivileged);
	in_child(try_without_iptables);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_shielded_port_is_silent_and_the_rest_is_not, setup),
		cmocka_unit_test_setup(a_rule_for_one_address_leaves_the_others, setup),
		cmocka_unit_test_setup(what_stands_is_listed_with_its_counts, setup),
		cmocka_unit_test_setup(rules_outlive_a_crash_and_are_found_again, setup),
		cmocka_unit_test_setup(a_jump_too_many_or_too_few_is_put_right, setup),
		cmocka_unit_test_setup(other_peoples_rules_stay, setup),
		cmocka_unit_test_setup(two_instances_share_a_machine_but_no_port, setup),
		cmocka_unit_test_setup_teardown(both_families_change_or_none, setup_scratch,
						teardown_scratch),
		cmocka_unit_test_setup(the_self_test_passes_behind_the_shield, setup),
		cmocka_unit_test_setup(the_self_test_sees_the_kernel_answer, setup),
		cmocka_unit_test_setup(the_self_test_knows_when_it_cannot_tell, setup),
		cmocka_unit_test_setup(conntrack_never_hears_of_us, setup),
		cmocka_unit_test_setup(a_machine_without_ipv6_addresses_works, setup),
		cmocka_unit_test_setup(a_bad_range_changes_nothing, setup),
		cmocka_unit_test_setup_teardown(what_is_missing_is_named, setup_scratch,
						teardown_scratch),
	};

	netns_need("ip iptables-save ip6tables-save ip6tables-restore");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
