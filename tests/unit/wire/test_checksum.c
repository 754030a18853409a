/* SPDX-License-Identifier: Apache-2.0 */
#include "wire_test.h"

#include <arpa/inet.h>

static void rfc1071_example(void **state)
{
	static const uint8_t data[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };

	/* RFC 1071 section 3. */
	assert_int_equal(ntohs(wire_sum_fold(wire_sum(0, data, sizeof(data)))), 0xddf2);
	assert_int_equal(wire_sum_fold(wire_sum(0, data, 0)), 0);
}

/* Zero has two representations in ones' complement. */
static bool same_sum(uint16_t a, uint16_t b)
{
	return a == b || (a % 0xffff == 0 && b % 0xffff == 0);
}

static void every_length_and_alignment_equals_the_naive_sum(void **state)
{
	static uint8_t data[4096];
	uint64_t r = 1;

	random_fill(&r, data, sizeof(data));
	for (size_t at = 0; at < 9; at++)
		for (size_t len = 0; len < 700; len++)
			assert_int_equal(ntohs(wire_sum_fold(wire_sum(0, data + at, len))),
					 naive_sum(data + at, len));
}

static void sums_continue_from_an_even_number_of_octets(void **state)
{
	static uint8_t data[2000];
	uint64_t r = 2;

	random_fill(&r, data, sizeof(data));
	for (size_t cut = 0; cut < sizeof(data); cut += 2) {
		const uint64_t first = wire_sum(0, data, cut);

		assert_int_equal(wire_sum_fold(wire_sum(first, data + cut, sizeof(data) - cut)),
				 wire_sum_fold(wire_sum(0, data, sizeof(data))));
	}
}

static void all_ones_do_not_overflow(void **state)
{
	static uint8_t data[70001];
	uint64_t sum = UINT64_MAX;

	memset(data, 0xff, sizeof(data));
	assert_true(same_sum(wire_sum_fold(sum), 0xffff));
	for (int i = 0; i < 100; i++)
		sum = wire_sum(sum, data, sizeof(data) - 1);
	assert_true(same_sum(wire_sum_fold(sum), 0xffff));
	assert_int_equal(ntohs(wire_sum_fold(wire_sum(0, data, sizeof(data)))),
			 naive_sum(data, sizeof(data)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rfc1071_example),
		cmocka_unit_test(every_length_and_alignment_equals_the_naive_sum),
		cmocka_unit_test(sums_continue_from_an_even_number_of_octets),
		cmocka_unit_test(all_ones_do_not_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
