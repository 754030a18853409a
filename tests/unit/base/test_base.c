/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, their text, SipHash against its authors' vectors, what a thread lets through. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/addr.h"
#include "base/errmsg.h"
#include "base/signals.h"
#include "base/siphash.h"

static void endpoints_read_back_as_written(void **state)
{
	static const char *const good[] = { "10.0.0.2:7", "[2001:db8::2]:80",  "*:65535",
					    "0.0.0.0:1",  "255.255.255.255:9", "[::1]:7",
					    "[*]:7" };

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		char buf[ENDPOINT_TEXT];
		struct endpoint ep;

		assert_int_equal(endpoint_parse(good[i], false, &ep), 0);
		assert_string_equal(endpoint_format(&ep, buf), good[i]);
	}
}

static void bad_endpoints_are_refused(void **state)
{
	static const char *const bad[] = {
		"",
		":",
		"10.0.0.2",
		"10.0.0.2:",
		"10.0.0.2:0",
		"10.0.0.2:65536",
		"10.0.0.2:-1",
		"10.0.0.2:7x",
		"2001:db8::2:80",
		"[10.0.0.2:7",
		"10.0.0:7",
		"[::1]7",
		"host:7",
		"[::1]:99999999999999999999",
		" 10.0.0.2:7",
		"[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]:7"
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct endpoint ep;

		assert_int_equal(endpoint_parse(bad[i], false, &ep), -EINVAL);
	}
	assert_int_equal(endpoint_parse("10.0.0.2:0", true, &(struct endpoint){ .port = 1 }), 0);
}

static void prefixes_contain_what_they_should(void **state)
{
	static const struct {
		const char *prefix, *addr;
		bool in;
	} cases[] = {
		{ "10.0.0.0/8", "10.255.1.2", true },
		{ "10.0.0.0/8", "11.0.0.0", false },
		{ "10.0.0.128/25", "10.0.0.127", false },
		{ "10.0.0.128/25", "10.0.0.200", true },
		{ "0.0.0.0/0", "1.2.3.4", true },
		{ "0.0.0.0/0", "2001:db8::1", false },
		{ "2001:db8::/32", "2001:db8:1::1", true },
		{ "2001:db8::/33", "2001:db8:8000::1", false },
		{ "10.0.0.2", "10.0.0.2", true },
		{ "10.0.0.2", "10.0.0.3", false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ipaddr p, a;
		unsigned len;

		assert_int_equal(prefix_parse(cases[i].prefix, &p, &len), 0);
		assert_int_equal(addr_parse(cases[i].addr, &a), 0);
		assert_int_equal(addr_in_prefix(&a, &p, len), cases[i].in);
	}
	assert_int_equal(prefix_parse("10.0.0.0/33", &(struct ipaddr){ 0 }, &(unsigned){ 0 }),
			 -EINVAL);
	assert_int_equal(prefix_parse("::/129", &(struct ipaddr){ 0 }, &(unsigned){ 0 }), -EINVAL);
}

static void a_wildcard_serves_its_family(void **state)
{
	const struct ipaddr v4 = addr_v4(10, 0, 0, 2);
	struct ipaddr v6;

	assert_int_equal(addr_parse("2001:db8::2", &v6), 0);
	assert_true(addr_matches(&addr_any, &v4) && addr_matches(&addr_any, &v6));
	assert_true(addr_matches(&addr_any4, &v4) && !addr_matches(&addr_any4, &v6));
	assert_true(!addr_matches(&addr_any6, &v4) && addr_matches(&addr_any6, &v6));
	assert_true(addr_matches(&v4, &v4) && !addr_matches(&v4, &v6));
	assert_true(addr_is_any(&addr_any6) && !addr_is_v4(&addr_any6));
	assert_true(addr_overlaps(&addr_any, &addr_any6) && addr_overlaps(&addr_any4, &addr_any));
	assert_true(addr_overlaps(&v6, &addr_any6) && addr_overlaps(&addr_any4, &v4));
	assert_false(addr_overlaps(&addr_any4, &addr_any6));
	assert_false(addr_overlaps(&v4, &addr_any6));
	assert_false(addr_overlaps(&v4, &v6));
}

static void kinds_of_addresses(void **state)
{
	struct ipaddr a;

	assert_true(addr_is_v4(&(struct ipaddr){ { [10] = 0xff, [11] = 0xff, [12] = 1 } }));
	assert_int_equal(addr_parse("224.0.0.1", &a), 0);
	assert_true(addr_is_multicast(&a));
	assert_int_equal(addr_parse("ff02::1", &a), 0);
	assert_true(addr_is_multicast(&a));
	assert_int_equal(addr_parse("255.255.255.255", &a), 0);
	assert_true(addr_is_broadcast(&a));
	assert_int_equal(addr_parse("127.3.2.1", &a), 0);
	assert_true(addr_is_loopback(&a));
	assert_int_equal(addr_parse("febf::1", &a), 0);
	assert_true(addr_is_link_local6(&a));
	assert_int_equal(addr_parse("fec0::1", &a), 0);
	assert_false(addr_is_link_local6(&a));
}

/* Appendix A of the SipHash paper, and the first vectors of its reference implementation. */
static void siphash_vectors(void **state)
{
	static const uint64_t want[] = { 0x726fdb47dd0e0e31ULL, 0x74f839c593dc67fdULL,
					 0x0d6c8009d9a94f5aULL, 0x85676696d7fb7e2dULL,
					 0xcf2794e0277187b7ULL, 0x18765564cd99a68dULL,
					 0xcbc9466e58fee3ceULL, 0xab0200f58b01d137ULL,
					 0x93f5f5799a932462ULL };
	uint64_t key[2];
	uint8_t data[16];

	for (unsigned i = 0; i < 16; i++)
		((uint8_t *)key)[i] = data[i] = (uint8_t)i;
	for (size_t n = 0; n < sizeof(want) / sizeof(want[0]); n++)
		assert_true(siphash(key, data, n) == want[n]);
	assert_true(siphash(key, data, 15) == 0xa129ca6149be45e5ULL);
}

static void a_message_is_cut_not_overrun(void **state)
{
	struct errmsg err;
	char longer[2048];

	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	assert_int_equal(errmsg(&err, -EIO, "%s", longer), -EIO);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	assert_int_equal(errmsg(NULL, -EIO, "nobody listens"), -EIO);
}

static void a_thread_hears_of_its_own_faults_alone(void **state)
{
	sigset_t before, during, after;

	signals_block(&before);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, &during), 0);
	assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &after), 0);
	for (int sig = 1; sig <= SIGSYS; sig++) {
		const bool fault = sig == SIGILL || sig == SIGTRAP || sig == SIGABRT ||
				   sig == SIGBUS || sig == SIGFPE || sig == SIGSEGV ||
				   sig == SIGSYS;

		/* These two cannot be blocked. */
		if (sig != SIGKILL && sig != SIGSTOP)
			assert_int_equal(sigismember(&during, sig), !fault);
		assert_int_equal(sigismember(&after, sig), sigismember(&before, sig));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(endpoints_read_back_as_written),
		cmocka_unit_test(bad_endpoints_are_refused),
		cmocka_unit_test(prefixes_contain_what_they_should),
		cmocka_unit_test(a_wildcard_serves_its_family),
		cmocka_unit_test(kinds_of_addresses),
		cmocka_unit_test(siphash_vectors),
		cmocka_unit_test(a_message_is_cut_not_overrun),
		cmocka_unit_test(a_thread_hears_of_its_own_faults_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
