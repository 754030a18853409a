/* SPDX-License-Identifier: Apache-2.0 */
/* Filters: what they match, what they refuse and how they say so, and their limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/filter.h"

static bool row_number(void *arg, enum proto_field f, uint64_t *ret_value)
{
	switch ((int)f) {
	case FIELD_ID:
		*ret_value = 7;
		return true;
	case FIELD_BYTES_IN:
		*ret_value = 1500000;
		return true;
	case FIELD_RTT:
		*ret_value = 1500;
		return true;
	case FIELD_RETRANSMITTED_SEGMENTS:
		*ret_value = 0;
		return true;
	default:
		return false;
	}
}

static const char *row_text(void *arg, enum proto_field f)
{
	switch ((int)f) {
	case FIELD_SERVICE:
		return "echo";
	case FIELD_INTERFACE:
		return "eth0";
	case FIELD_DIRECTION:
		return "passive";
	default:
		return NULL;
	}
}

static const struct filter_row row4 = {
	.local = { [10] = 0xff, 0xff, 10, 0, 0, 2 },
	.remote = { [10] = 0xff, 0xff, 198, 51, 100, 77 },
	.local_port = 7,
	.remote_port = 40000,
	.state = "established",
	.get_number = row_number,
	.get_text = row_text,
};

static const struct filter_row row6 = {
	.local = { 0x20, 1, 0xd, 0xb8, [15] = 2 },
	.remote = { 0x20, 1, 0xd, 0xb8, 0, 1, [15] = 9 },
	.local_port = 80,
	.remote_port = 50000,
	.state = "FIN-WAIT-2",
	.get_number = row_number,
	.get_text = row_text,
};

static bool match(const char *text, const struct filter_row *row)
{
	struct proto_err err = { 0 };
	struct filter *f = NULL;
	bool yes;

	if (filter_parse(text, &f, &err))
		fail_msg("%s: %s", text, err.text);
	yes = filter_match(f, row);
	filter_free(f);
	return yes;
}

static void check_rows(const char *const *texts, size_t n, const struct filter_row *row,
		       bool expected)
{
	for (size_t i = 0; i < n; i++)
		if (match(texts[i], row) != expected)
			fail_msg("\"%s\" %s", texts[i],
				 expected ? "should match" : "should not match");
}

#define N(a) (sizeof(a) / sizeof((a)[0]))
#define MATCHES(row, ...)                                \
	check_rows((const char *const[]){ __VA_ARGS__ }, \
		   N(((const char *const[]){ __VA_ARGS__ })), row, true)
#define MATCHES_NOT(row, ...)                            \
	check_rows((const char *const[]){ __VA_ARGS__ }, \
		   N(((const char *const[]){ __VA_ARGS__ })), row, false)

static void refused(const char *text, const char *part)
{
	struct proto_err err = { 0 };
	struct filter *f = NULL;

	if (!filter_parse(text, &f, &err)) {
		filter_free(f);
		fail_msg("\"%s\" was taken", text);
	}
	assert_null(f);
	assert_int_equal(err.code, PROTO_INVALID_PARAMS);
	if (!strstr(err.text, part))
		fail_msg("\"%s\" gave \"%s\", without \"%s\"", text, err.text, part);
}

static void test_empty(void **state)
{
	MATCHES(&row4, "", "   ");
	assert_true(filter_match(NULL, &row4));
}

static void test_state(void **state)
{
	MATCHES(&row4, "state established", "state ESTABLISHED", "state estab", "state all",
		"state connected", "state synchronized", "state big", "exclude time-wait",
		"state syn-sent,established", "exclude bucket");
	MATCHES_NOT(&row4, "state listen", "state time-wait", "exclude established", "state bucket",
		    "exclude connected", "state closed");
	MATCHES(&row6, "state fin-wait-2", "state fin_wait_2", "state FIN_WAIT-2",
		"state connected");
	MATCHES_NOT(&row6, "state fin-wait-1");
}

static void test_state_groups(void **state)
{
	struct filter_row row = row4;

	row.state = "syn_sent";
	MATCHES(&row, "state connected", "state big");
	MATCHES_NOT(&row, "state synchronized", "state bucket");
	row.state = "time_wait";
	MATCHES(&row, "state bucket", "state synchronized");
	MATCHES_NOT(&row, "state big");
	row.state = "syn_received";
	MATCHES(&row, "state syn-recv", "state bucket");
	row.state = "closed";
	MATCHES(&row, "state all", "state unconnected");
	MATCHES_NOT(&row, "state connected", "state big", "state synchronized");
	row.state = "listen";
	MATCHES(&row, "state listening");
	MATCHES_NOT(&row, "state connected");
	row.state = NULL;
	MATCHES_NOT(&row, "state all");
}

static void test_hosts(void **state)
{
	MATCHES(&row4, "dst 198.51.100.77", "dst 198.51.100.0/24", "dst 198.51.100.64/26",
		"src 10.0.0.2", "src = 10.0.0.2", "src == 10.0.0.2:7", "src != 10.0.0.3",
		"dst 198.51.100.77:40000", "dst :40000", "dst *:40000", "src *", "dst 0.0.0.0/0",
		"dst 198.51.100.0/24:40000", "src :*", "dst ::ffff:198.51.100.77",
		"dst 198.51.100.1/24");
	MATCHES_NOT(&row4, "dst 198.51.100.78", "dst 198.51.100.0/26", "src != 10.0.0.2",
		    "src 10.0.0.2:8", "dst :40001", "dst ::/0", "src 2001:db8::2",
		    "dst != 198.51.100.0/24", "src != *");
	MATCHES(&row6, "src 2001:db8::2", "dst 2001:db8:1::/48", "dst ::/0", "src [2001:db8::2]:80",
		"src [2001:db8::2]", "dst [2001:db8::]/32:50000", "src 2001:db8::/33",
		"src != 10.0.0.2");
	MATCHES_NOT(&row6, "src 2001:db8::3", "dst 2001:db8:2::/48", "dst 0.0.0.0/0",
		    "src [2001:db8::2]:81", "dst 2001:db8:0::/48");
	/* Prefixes that end within an octet, with the next bit different; and whole addresses. */
	MATCHES(&row4, "dst 198.51.100.0/25", "dst 198.51.100.77/32", "dst 198.51.100.76/31");
	MATCHES_NOT(&row4, "dst 198.51.100.128/25", "dst 198.51.100.76/32");
	MATCHES(&row6, "src 2001:db8::2/128", "src 2001:db8::3/127");
}

static void test_ports(void **state)
{
	MATCHES(&row4, "sport = :7", "sport :7", "sport = 7", "sport=:7", "sport eq 7",
		"dport > 1024", "dport gt :39999", "dport >= 40000", "dport le 40000",
		"dport < 40001", "dport lt 65535", "sport != 8", "sport ne :8", "dport<=:40000",
		"dport ge 1");
	MATCHES_NOT(&row4, "sport = :8", "dport < 40000", "dport > 40000", "sport != 7",
		    "dport = 0");
}

static void test_numbers(void **state)
{
	MATCHES(&row4, "id = 7", "bytes_in > 1M", "bytes_in >= 1.5M", "bytes_in > 1MiB",
		"bytes_in < 1.5MiB", "rtt_us > 1ms", "rtt_us = 1.5ms", "rtt_us < 1s", "rtt_us=1500",
		"rtt_us = 1500us", "retransmitted_segments = 0", "bytes_in<2000k", "rtt_us < 1m",
		"rtt_us < 1h", "rtt_us < 1d");
	MATCHES_NOT(&row4, "id = 8", "id != 7", "bytes_in > 1G", "rtt_us > 2ms");
}

/* What is not measured compares to nothing, in neither direction. */
static void test_absent(void **state)
{
	MATCHES_NOT(&row4, "pid = 0", "pid != 0", "pid >= 0", "exit_status != 0",
		    "end_reason = normal");
	MATCHES(&row4, "not pid = 0", "end_reason != normal");
}

static void test_words(void **state)
{
	MATCHES(&row4, "service = echo", "service echo", "service != exec", "interface eth0",
		"direction = passive", "direction PASSIVE");
	MATCHES_NOT(&row4, "service = exec", "service != echo", "service = Echo", "interface = lo",
		    "direction active");
}

static void test_logic(void **state)
{
	MATCHES(&row4, "state established and dst 198.51.100.0/24",
		"state established dst 198.51.100.0/24", "state listen or sport = 7",
		"( state listen or sport = 7 ) and dport > 1", "not state listen", "! state listen",
		"!state listen", "not not sport 7", "state listen | sport 7",
		"state listen || sport 7", "sport 7 & dport 40000", "sport 7 && dport 40000",
		"sport 7 or sport 8 and sport 9", "sport 9 and sport 8 or sport 7", "(sport 7)",
		"((sport 7))", "not (sport 8 or sport 9)",
		"sport 1 or sport 2 or sport 3 or sport 7");
	MATCHES_NOT(&row4, "state established and dst 10.0.0.0/8", "not sport 7",
		    "(sport 7 or sport 8) and sport 9", "not sport 7 or sport 8",
		    "sport 7 dport 40000 id = 8", "!(sport 7)");
	/* The issue's own example. */
	MATCHES_NOT(
		&row4,
		"state fin-wait-2 and dst 198.51.100.0/24 and ( sport = :80 or not src 10.0.0.1 )");
	MATCHES(&row4, "state established and dst 198.51.100.0/24 and ( sport = :80 or not src "
		       "10.0.0.1 )");
}

static void test_refused(void **state)
{
	refused("state", "at its end: expected a state");
	refused("state foo", "character 7, \"foo\": expected a state: established");
	refused("state established,", "expected a state");
	refused("state established,,listen", "expected a state");
	refused("sprot = :80", "character 1, \"sprot\": expected sport?");
	refused("sport = :99999", "\":99999\": expected a port");
	refused("sport = http", "expected a port");
	refused("sport", "at its end: expected a port");
	refused("dst 10.0.0", "expected ADDR");
	refused("dst 10.0.0.1/33", "expected ADDR");
	refused("dst 10.0.0.1/", "expected ADDR");
	refused("dst 10.0.0.1:", "expected ADDR");
	refused("dst 10.0.0.1:80x", "expected ADDR");
	refused("dst :", "expected ADDR");
	refused("dst */8", "expected ADDR");
	refused("dst /8", "expected ADDR");
	refused("dst 2001:db8::/129", "expected ADDR");
	refused("dst [2001:db8::1", "expected ADDR");
	refused("dst [10.0.0.1]:80", "expected ADDR");
	refused("dst []", "expected ADDR");
	refused("dst < 10.0.0.1", "expected = or !=");
	refused("bytes_in 5", "expected an operator: = !=");
	refused("bytes_in > lots", "expected a number of octets");
	refused("bytes_in > 5ms", "expected a number of octets");
	refused("rtt_us > 5MiB", "expected a time");
	refused("id > 5KiB", "expected a number, with k, M or G");
	refused("id > 1.5", "expected a number");
	refused("id > -1", "expected a number");
	refused("bytes_in > 99999999999999999999", "expected a number");
	refused("bytes_in > 9007199254740992", "expected a number");
	refused("service > echo", "expected = or !=");
	refused("service =", "at its end: expected a word");
	refused("(sport 7", "at its end: expected and, or, or )");
	refused("sport 7)", "character 8, \")\": expected and, or, or the end");
	refused("sport 7 and", "at its end");
	refused("and sport 7", "character 1, \"and\"");
	refused("not", "at its end");
	refused("()", "character 2, \")\"");
	refused("local = 10.0.0.1", "character 1, \"local\"");
	refused("sport 7 = 7", "character 9, \"=\": expected and, or, not, or a further term");
}

static void test_word_too_long(void **state)
{
	char text[FILTER_TEXT_MAX + 64];

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	refused(text, "expected a shorter word");
	memcpy(text, "service = ", 10);
	text[100] = '\0';
	refused(text, "expected a word");
}

static char *nested(unsigned depth)
{
	char *text = calloc(1, depth * 2 + 16);

	for (unsigned i = 0; i < depth; i++)
		strcat(text, "(");
	strcat(text, "sport 7");
	for (unsigned i = 0; i < depth; i++)
		strcat(text, ")");
	return text;
}

static void test_depth_limit(void **state)
{
	char *text = nested(FILTER_DEPTH_MAX);

	MATCHES(&row4, text);
	free(text);
	text = nested(FILTER_DEPTH_MAX + 1);
	refused(text, "nested deeper than 64");
	free(text);
}

/* What stands side by side is not nested. */
static void test_siblings_are_not_depth(void **state)
{
	char text[FILTER_DEPTH_MAX * 2 * 16] = "";

	for (unsigned i = 0; i < FILTER_DEPTH_MAX * 2; i++)
		strcat(text, "(sport 7)");
	MATCHES(&row4, text);
}

static void test_not_counts_as_depth(void **state)
{
	char text[FILTER_DEPTH_MAX + 16] = "";

	memset(text, '!', FILTER_DEPTH_MAX);
	strcpy(text + FILTER_DEPTH_MAX, "sport 7");
	MATCHES(&row4, text);
	memset(text, '!', FILTER_DEPTH_MAX + 1);
	strcpy(text + FILTER_DEPTH_MAX + 1, "sport 7");
	refused(text, "nested deeper than 64");
}

static char *chain(unsigned terms)
{
	char *text = calloc(1, terms * 12 + 1), *p = text;

	for (unsigned i = 0; i < terms; i++)
		p += sprintf(p, "%ssport %u", i ? " or " : "", i % 10);
	return text;
}

/* 255 terms and one "or" that joins them. */
static void test_nodes_limit(void **state)
{
	char *text = chain(FILTER_NODES_MAX - 1);

	MATCHES(&row4, text);
	free(text);
	text = chain(FILTER_NODES_MAX);
	refused(text, "more than 256 terms and operators");
	free(text);
}

static void number(const char *text, enum field_kind kind, uint64_t expected)
{
	uint64_t v = 0;

	if (proto_parse_number(text, kind, &v, NULL) || v != expected)
		fail_msg("%s: %llu", text, (unsigned long long)v);
}

static void no_number(const char *text, enum field_kind kind)
{
	uint64_t v = 42;

	if (!proto_parse_number(text, kind, &v, NULL))
		fail_msg("%s was taken", text);
	assert_int_equal(v, 42);
}

static void test_parse_number(void **state)
{
	number("0", KIND_COUNT, 0);
	number("9007199254740991", KIND_COUNT, 9007199254740991);
	number("2GiB", KIND_BYTES, UINT64_C(2) << 30);
	number("0.5KiB", KIND_BYTES, 512);
	number("7d", KIND_TIME, UINT64_C(604800000000));
	number("1.5m", KIND_TIME, 90000000);
	number("104249d", KIND_TIME, UINT64_C(9007113600000000));
	no_number("", KIND_COUNT);
	no_number("k", KIND_COUNT);
	no_number("1kk", KIND_COUNT);
	no_number("1.k", KIND_COUNT);
	no_number(".5k", KIND_COUNT);
	no_number("+1", KIND_COUNT);
	no_number(" 1", KIND_COUNT);
	no_number("0x10", KIND_COUNT);
	no_number("9007199254740992", KIND_COUNT);
	no_number("9007199254740G", KIND_BYTES);
	no_number("104250d", KIND_TIME);
	no_number("1.1234567s", KIND_TIME);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_state),
		cmocka_unit_test(test_state_groups),
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_ports),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_logic),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_word_too_long),
		cmocka_unit_test(test_depth_limit),
		cmocka_unit_test(test_siblings_are_not_depth),
		cmocka_unit_test(test_not_counts_as_depth),
		cmocka_unit_test(test_nodes_limit),
		cmocka_unit_test(test_parse_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
