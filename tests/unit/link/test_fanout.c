/* SPDX-License-Identifier: Apache-2.0 */
/* The program that parts packets among workers says of each what steer_worker() says of its flow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <linux/if_ether.h>
#include <stdlib.h>
#include <string.h>

#include "bpf.h"
#include "link/fanout.h"

enum { WORKERS = 5, TRIES = 3000 };

static const struct steer steer = { .workers = WORKERS, .key = { 0x9e3779b1, 0x85ebca77 } };
static struct filter prog;
static uint64_t seed = 7;

static uint32_t random32(void)
{
	seed ^= seed >> 12;
	seed ^= seed << 25;
	seed ^= seed >> 27;
	return (uint32_t)(seed >> 20);
}

static void store16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* A flow at random; packet.ip is filled with what means nothing. */
static struct flow some_flow(bool v6, struct shown *ret)
{
	struct flow f = { .local.port = (uint16_t)random32(), .remote.port = (uint16_t)random32() };
	uint8_t b[16];

	*ret = (struct shown){ .len = sizeof(ret->ip), .protocol = v6 ? ETH_P_IPV6 : ETH_P_IP };
	for (unsigned i = 0; i < sizeof(ret->ip); i++)
		ret->ip[i] = (uint8_t)random32();
	for (unsigned i = 0; i < 16; i++)
		b[i] = (uint8_t)random32();
	if (v6)
		memcpy(f.remote.addr.b, b, 16);
	else
		f.remote.addr = addr_from_v4(b);
	return f;
}

static unsigned expected(const struct flow *f)
{
	return steer_worker(&steer, &f->remote.addr, f->remote.port, f->local.port);
}

static unsigned program_says(const struct shown *s)
{
	return bpf_run(&prog, s) % WORKERS;
}

static void put_address(const struct flow *f, bool v6, uint8_t *at)
{
	if (v6)
		memcpy(at, f->remote.addr.b, 16);
	else
		memcpy(at, f->remote.addr.b + 12, 4);
}

static void put_ports(const struct flow *f, uint8_t *tcp)
{
	store16(tcp, f->remote.port);
	store16(tcp + 2, f->local.port);
}

static void segments_go_where_their_flow_is(void **state)
{
	unsigned share[WORKERS] = { 0 };

	for (unsigned i = 0; i < TRIES; i++) {
		const bool v6 = i % 2;
		const unsigned words = 5 + random32() % 11;
		struct shown s;
		const struct flow f = some_flow(v6, &s);

		s.ip[0] = v6 ? 0x60 : (uint8_t)(0x40 | words);
		s.ip[v6 ? 6 : 9] = 6;
		put_address(&f, v6, s.ip + (v6 ? 8 : 12));
		put_ports(&f, s.ip + (v6 ? 40 : words * 4));
		assert_int_equal(program_says(&s), expected(&f));
		share[expected(&f)]++;
	}
	for (unsigned i = 0; i < WORKERS; i++)
		assert_in_range(share[i], TRIES / WORKERS * 8 / 10, TRIES / WORKERS * 12 / 10);
}

static void icmp_errors_go_where_the_quoted_flow_is(void **state)
{
	for (unsigned i = 0; i < TRIES; i++) {
		const bool v6 = i % 2;
		struct shown s;
		const struct flow f = some_flow(v6, &s);
		uint8_t *const quote = s.ip + (v6 ? 48 : 28);

		s.ip[0] = v6 ? 0x60 : 0x45;
		s.ip[v6 ? 6 : 9] = v6 ? 58 : 1;
		s.ip[v6 ? 40 : 20] = v6 ? 2 : 3;
		put_address(&f, v6, quote + (v6 ? 24 : 16));
		store16(quote + (v6 ? 40 : 20), f.local.port);
		store16(quote + (v6 ? 42 : 22), f.remote.port);
		assert_int_equal(program_says(&s), expected(&f));
	}
}

/* As far as wire_decode() looks, so does the program. */
static void extension_headers_change_nothing(void **state)
{
	static const uint8_t kinds[] = { 0, 43, 44, 60 };

	for (unsigned i = 0; i < TRIES; i++) {
		struct shown s;
		const struct flow f = some_flow(true, &s);
		const unsigned n = random32() % 9;
		unsigned at = 40, next_at = 6;

		put_address(&f, true, s.ip + 8);
		for (unsigned k = 0; k < n; k++) {
			const uint8_t kind = kinds[random32() % 4];

			s.ip[next_at] = kind;
			next_at = at;
			s.ip[at + 1] = kind == 44 ? (uint8_t)random32() : k % 4 == 3;
			at += kind == 44 || k % 4 != 3 ? 8 : 16;
		}
		s.ip[next_at] = 6;
		assert_true(at + 4 <= sizeof(s.ip));
		put_ports(&f, s.ip + at);
		assert_int_equal(program_says(&s), expected(&f));
	}
}

static void what_has_no_flow_is_the_first_workers(void **state)
{
	for (unsigned i = 0; i < TRIES; i++) {
		struct shown s;

		(void)some_flow(i % 2, &s);
		s.ip[6] = 58; /* a solicitation */
		s.ip[40] = 135;
		s.ip[9] = 17;
		assert_int_equal(bpf_run(&prog, &s), 0);
		s.protocol = ETH_P_ARP;
		assert_int_equal(bpf_run(&prog, &s), 0);
		s.protocol = ETH_P_IP;
		s.ip[0] = 0x45;
		s.ip[9] = 6;
		s.len = random32() % 20;
		assert_int_equal(bpf_run(&prog, &s), 0);
	}
}

static void alone_a_worker_has_all(void **state)
{
	const struct steer none = { 0 }, one = { .workers = 1, .key = { 3, 5 } };
	struct shown s;
	const struct flow f = some_flow(false, &s);

	assert_true(steer_is_mine(&none, &f));
	assert_true(steer_is_mine(&one, &f));
}

static int build(void **state)
{
	fanout_build(&steer, &prog);
	return prog.too_long;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(segments_go_where_their_flow_is),
		cmocka_unit_test(icmp_errors_go_where_the_quoted_flow_is),
		cmocka_unit_test(extension_headers_change_nothing),
		cmocka_unit_test(what_has_no_flow_is_the_first_workers),
		cmocka_unit_test(alone_a_worker_has_all),
	};

	return cmocka_run_group_tests(tests, build, NULL);
}
