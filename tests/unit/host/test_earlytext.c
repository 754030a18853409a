/* SPDX-License-Identifier: Apache-2.0 */
/* The early drop as text, without a kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/macros.h"
#include "host/earlytext.h"

static const char *const one_device[] = { "eth0" };

static struct ruletext_names names_of(const char *tag)
{
	struct ruletext_names n;

	assert_int_equal(ruletext_names_init(&n, tag), 0);
	return n;
}

/* The caller frees it. NULL: there was nothing to write. */
static char *text_of(const char *tag, const struct shield_rule *rules, size_t n,
		     const char *const *devices, size_t devices_n)
{
	const struct ruletext_names names = names_of(tag);
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	bool any;

	assert_non_null(f);
	any = earlytext_write(f, &names, rules, n, devices, devices_n);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(any, len > 0);
	if (any)
		return text;
	free(text);
	return NULL;
}

static struct ipaddr address(const char *text)
{
	struct ipaddr a;

	assert_int_equal(addr_parse(text, &a), 0);
	return a;
}

static void a_table_is_replaced_as_a_whole(void **state)
{
	const struct shield_rule rules[] = { { addr_any, 61000, 65535 },
					     { address("10.9.0.2"), 7, 7 },
					     { address("fd09::2"), 7, 7 },
					     { address("10.9.0.2"), 8, 8 } };
	const char *const devices[] = { "eth0", "wlan0.5" };
	const struct ruletext_names names = names_of("/run/tcpfsmd");
	char *text = text_of("/run/tcpfsmd", rules, ARRAY_SIZE(rules), devices, 2), head[256];

	(void)snprintf(head, sizeof(head),
		       "table netdev %s\ndelete table netdev %s\ntable netdev %s {\n"
		       "\tcomment \"tcpfsmd /run/tcpfsmd\"\n",
		       names.early, names.early, names.early);
	assert_memory_equal(text, head, strlen(head));
	assert_string_equal(
		text + strlen(head),
		"\tset own4 {\n\t\ttype ipv4_addr . inet_service\n\t\tcounter\n\t\telements = {\n"
		"\t\t\t10.9.0.2 . 7,\n\t\t\t10.9.0.2 . 8\n\t\t}\n\t}\n"
		"\tset any4 {\n\t\ttype inet_service\n\t\tflags interval\n\t\tcounter\n"
		"\t\telements = {\n\t\t\t61000-65535\n\t\t}\n\t}\n"
		"\tchain ipv4 {\n\t\tip daddr . tcp dport @own4 drop\n\t\ttcp dport @any4 "
		"drop\n\t}\n"
		"\tset own6 {\n\t\ttype ipv6_addr . inet_service\n\t\tcounter\n\t\telements = {\n"
		"\t\t\tfd09::2 . 7\n\t\t}\n\t}\n"
		"\tset any6 {\n\t\ttype inet_service\n\t\tflags interval\n\t\tcounter\n"
		"\t\telements = {\n\t\t\t61000-65535\n\t\t}\n\t}\n"
		"\tchain ipv6 {\n\t\tip6 daddr . tcp dport @own6 drop\n\t\ttcp dport @any6 "
		"drop\n\t}\n"
		"\tchain bare {\n"
		"\t\tmeta protocol ip ip protocol tcp ip frag-off & 0x3fff == 0 fib daddr type "
		"local "
		"jump ipv4\n"
		"\t\tmeta protocol ip6 ip6 nexthdr tcp fib daddr type local jump ipv6\n"
		"\t}\n"
		"\tchain early {\n"
		"\t\ttype filter hook ingress devices = { \"eth0\", \"wlan0.5\" } priority 1000; "
		"policy accept;\n"
		"\t\tmeta pkttype != host accept\n"
		"\t\tether type ip ip protocol tcp ip frag-off & 0x3fff == 0 fib daddr type local "
		"jump ipv4\n"
		"\t\tether type ip6 ip6 nexthdr tcp fib daddr type local jump ipv6\n"
		"\t\tmeta iiftype != ether jump bare\n"
		"\t}\n}\n");
	free(text);
}

static void what_has_no_member_is_left_out(void **state)
{
	const struct shield_rule wild = { addr_any4, 7, 7 };
	const struct shield_rule four = { address("10.9.0.2"), 7, 7 },
				 six = { address("::1"), 7, 7 };
	char *text = text_of("t", &four, 1, one_device, 1);

	assert_non_null(strstr(text, "set own4"));
	assert_null(strstr(text, "any4"));
	assert_null(strstr(text, "ip6"));
	assert_non_null(strstr(text,
			       "\t\tether type ip ip protocol tcp ip frag-off & 0x3fff == 0 fib "
			       "daddr type local ip daddr . tcp dport @own4 drop\n"));
	free(text);
	text = text_of("t", &six, 1, one_device, 1);
	assert_null(strstr(text, "ip "));
	assert_non_null(strstr(text,
			       "\t\tether type ip6 ip6 nexthdr tcp fib daddr type local ip6 daddr "
			       ". tcp dport @own6 drop\n"));
	free(text);
	text = text_of("t", &wild, 1, one_device, 1);
	assert_null(strstr(text, "own"));
	assert_non_null(strstr(text, "fib daddr type local tcp dport @any4 drop\n"));
	assert_null(strstr(text, "any6"));
	free(text);
}

/* An address with a range of ports: iptables' rule alone. */
static void with_nothing_to_drop_there_is_nothing_to_write(void **state)
{
	const struct shield_rule one = { addr_any, 7, 7 }, range = { address("10.9.0.2"), 7, 8 };
	const struct shield_rule both[] = { range, { address("10.9.0.2"), 9, 9 } };
	char *text;

	assert_null(text_of("t", &one, 1, one_device, 0));
	assert_null(text_of("t", NULL, 0, one_device, 1));
	assert_null(text_of("t", &range, 1, one_device, 1));
	text = text_of("t", both, 2, one_device, 1);
	assert_non_null(strstr(text, "{\n\t\t\t10.9.0.2 . 9\n\t\t}"));
	free(text);
}

/* nft refuses intervals that overlap; iptables counts by the first rule that matches. */
static void wildcards_that_overlap_share_their_ports(void **state)
{
	const struct shield_rule rules[] = { { addr_any4, 100, 105 },   { addr_any, 98, 110 },
					     { addr_any, 104, 104 },    { addr_any4, 65535, 65535 },
					     { addr_any, 1, 1 },        { addr_any, 1, 1 },
					     { addr_any, 65530, 65535 } };
	char *text = text_of("t", rules, ARRAY_SIZE(rules), one_device, 1);

	assert_non_null(strstr(text, "elements = {\n\t\t\t100-105,\n\t\t\t98-99,\n\t\t\t106-110,\n"
				     "\t\t\t65535,\n\t\t\t1,\n\t\t\t65530-65534\n\t\t}"));
	assert_non_null(
		strstr(text, "elements = {\n\t\t\t98-110,\n\t\t\t1,\n\t\t\t65530-65535\n\t\t}"));
	free(text);
}

/* nft has no quote within quotes, and room for 127 octets of a comment. */
static void a_tag_cannot_break_the_text(void **state)
{
	const struct shield_rule rule = { addr_any, 7, 7 };
	char tag[RULETEXT_TAG], *text, *comment;

	text = text_of("/a \"b\" \\ c", &rule, 1, one_device, 1);
	assert_non_null(strstr(text, "comment \"tcpfsmd /a 'b' \\ c\"\n"));
	free(text);
	memset(tag, 'x', sizeof(tag) - 1);
	tag[sizeof(tag) - 1] = 0;
	text = text_of(tag, &rule, 1, one_device, 1);
	comment = strstr(text, "comment \"");
	assert_int_equal(strcspn(comment + 9, "\""), 127);
	free(text);
}

static void some_devices_have_no_name_for_nft(void **state)
{
	static const char *const good[] = { "eth0", "v1", "eth0.100", "br-lan", "wg0@x", "0" };
	static const char *const bad[] = { "", "a\"b", "eth*", "a\\b", "\xc3\xa4", "a\x01" };

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(earlytext_can_name(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(earlytext_can_name(bad[i]));
}

/* What is added to a table of the first `from` rules; NULL: it cannot be done so. The caller frees it. */
static char *more_of(const struct shield_rule *rules, size_t n, size_t from)
{
	const struct ruletext_names names = names_of("t");
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	bool can;

	assert_non_null(f);
	can = earlytext_write_more(f, &names, rules, n, from);
	assert_int_equal(fclose(f), 0);
	if (can)
		return text;
	free(text);
	return NULL;
}

static void members_are_added(void **state)
{
	const struct shield_rule rules[] = {
		{ addr_any, 100, 200 },        { address("10.9.0.2"), 7, 7 },
		{ addr_any4, 150, 201 },       { address("10.9.0.2"), 8, 8 },
		{ address("10.9.0.3"), 7, 7 }, { addr_any, 201, 201 },
		{ address("::1"), 7, 7 },
	};
	const struct ruletext_names names = names_of("t");
	char want[512], *text = more_of(rules, 6, 2);

	(void)snprintf(want, sizeof(want),
		       "add element netdev %s any4 {\n\t\t\t201\n}\n"
		       "add element netdev %s own4 {\n\t\t\t10.9.0.2 . 8,\n\t\t\t10.9.0.3 . 7\n}\n"
		       "add element netdev %s any6 {\n\t\t\t201\n}\n",
		       names.early, names.early, names.early);
	assert_string_equal(text, want);
	free(text);
	/* Nothing new: what is there has it. */
	text = more_of(rules, 3, 3);
	assert_string_equal(text, "");
	free(text);
	/* There is no set for it yet. */
	assert_null(more_of(rules, 7, 6));
	assert_null(more_of(rules, 2, 1));
	assert_null(more_of(rules, 1, 0));
}

static void removal_needs_no_table(void **state)
{
	const struct ruletext_names names = names_of("t");
	char text[256] = "", want[256];
	FILE *f = fmemopen(text, sizeof(text), "w");

	assert_non_null(f);
	earlytext_write_remove(f, &names);
	assert_int_equal(fclose(f), 0);
	(void)snprintf(want, sizeof(want), "table netdev %s\ndelete table netdev %s\n", names.early,
		       names.early);
	assert_string_equal(text, want);
}

static void our_table_is_found_among_others(void **state)
{
	const struct ruletext_names ours = names_of("t"), others = names_of("u");
	char text[256];

	(void)snprintf(text, sizeof(text), "table netdev mine\ntable netdev %s\n", ours.early);
	assert_true(earlytext_is_listed(text, &ours));
	assert_false(earlytext_is_listed(text, &others));
	assert_false(earlytext_is_listed("", &ours));
	(void)snprintf(text, sizeof(text), "table netdev %sx\n", ours.early);
	assert_false(earlytext_is_listed(text, &ours));
}

static void what_nft_lists_is_read(void **state)
{
	static const char listed[] =
		"table netdev TCPFSMD-00112233-E {\n\tcomment \"tcpfsmd set any4 = { 7\"\n"
		"\tset own4 {\n\t\ttype ipv4_addr . inet_service\n\t\tsize 65535\t# count "
		"2\n\t\tcounter\n"
		"\t\telements = { 10.9.0.2 . 7 counter packets 5 bytes 300,\n"
		"\t\t\t     10.9.0.2 . 8 counter packets 0 bytes 0 }\n\t}\n\n"
		"\tset any4 {\n\t\ttype inet_service\n\t\tflags interval\n\t\tcounter\n"
		"\t\telements = { 7 counter packets 1 bytes 40, 61000-65535 counter packets "
		"18446744073709551615 bytes 2 }\n\t}\n"
		"\tset any6 {\n\t\telements = { 9-12 counter packets 3 bytes 4,\n\t\t\t     x "
		"counter "
		"packets 1 bytes 1, 5-3 counter packets 1 bytes 1, 70000 counter packets 1 bytes "
		"1,\n"
		"\t\t\t     9 packets 1, 13 counter packets 1x bytes 1 }\n\t}\n"
		"\tset own6 {\n\t\telements = { fd09::2 . 7 counter packets 6 bytes 7,\n\t\t\t     "
		"10.0.0.1 . 7 counter packets 8 bytes 8 }\n\t}\n"
		"\tset mine {\n\t\telements = { 7 counter packets 99 bytes 99 }\n\t}\n"
		"\tchain ipv4 {\n\t\tip daddr . tcp dport @own4 drop\n\t}\n}\n";
	const struct ipaddr first = addr_v4(10, 9, 0, 2);
	struct shield_stat *s;
	size_t n;

	assert_int_equal(earlytext_parse(listed, &s, &n), 0);
	assert_int_equal(n, 6);
	assert_true(addr_eq(&s[0].rule.addr, &first));
	assert_int_equal(s[0].rule.port_min, 7);
	assert_int_equal(s[0].rule.port_max, 7);
	assert_int_equal(s[0].packets, 5);
	assert_int_equal(s[0].early, 5);
	assert_int_equal(s[0].bytes, 300);
	assert_int_equal(s[1].rule.port_min, 8);
	assert_true(addr_eq(&s[2].rule.addr, &addr_any4));
	assert_int_equal(s[2].packets, 1);
	assert_int_equal(s[3].rule.port_min, 61000);
	assert_int_equal(s[3].rule.port_max, 65535);
	assert_int_equal(s[3].packets, UINT64_MAX);
	assert_false(s[3].ipv6);
	assert_true(s[4].ipv6);
	assert_true(addr_eq(&s[4].rule.addr, &addr_any));
	assert_int_equal(s[4].rule.port_max, 12);
	assert_true(s[5].ipv6);
	assert_int_equal(s[5].packets, 6);
	free(s);
	assert_int_equal(earlytext_parse("", &s, &n), 0);
	assert_int_equal(n, 0);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_table_is_replaced_as_a_whole),
		cmocka_unit_test(what_has_no_member_is_left_out),
		cmocka_unit_test(with_nothing_to_drop_there_is_nothing_to_write),
		cmocka_unit_test(wildcards_that_overlap_share_their_ports),
		cmocka_unit_test(a_tag_cannot_break_the_text),
		cmocka_unit_test(some_devices_have_no_name_for_nft),
		cmocka_unit_test(members_are_added),
		cmocka_unit_test(removal_needs_no_table),
		cmocka_unit_test(our_table_is_found_among_others),
		cmocka_unit_test(what_nft_lists_is_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
