/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of the kernel when links form a group. The kernel here is false: it gives the numbers that a
 * test wants, also 0, which the first group after a boot has.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <linux/if_packet.h>
#include <sys/socket.h>

#include "link/fanout.h"

static const struct steer steer = { .workers = 3, .key = { 0x9e3779b1, 0x85ebca77 } };

static struct {
	uint16_t gives; /* to who asks for a number of its own */
	uint16_t id; /* of the last that joined */
	unsigned joined, made, programs;
	int fails; /* errno; 0: does not */
} kernel;

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t len);
int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *len);

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
	const uint32_t arg = *(const uint32_t *)value;
	const bool own = arg >> 16 & PACKET_FANOUT_FLAG_UNIQUEID;

	assert_int_equal(level, SOL_PACKET);
	if (option == PACKET_FANOUT_DATA) {
		kernel.programs++;
		return 0;
	}
	assert_int_equal(option, PACKET_FANOUT);
	if (kernel.fails) {
		errno = kernel.fails;
		return -1;
	}
	kernel.joined++;
	kernel.made += own;
	kernel.id = own ? kernel.gives : (uint16_t)arg;
	return 0;
}

int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *len)
{
	assert_int_equal(option, PACKET_FANOUT);
	*(uint32_t *)value = kernel.id | (uint32_t)PACKET_FANOUT_CBPF << 16;
	return 0;
}

static void three_join(uint16_t id)
{
	struct fanout_group group = { 0 };

	kernel.gives = id;
	kernel.joined = kernel.made = kernel.programs = 0;
	for (int fd = 10; fd < 13; fd++) {
		assert_int_equal(fanout_join(fd, &steer, &group), 0);
		assert_int_equal(kernel.id, id);
	}
	assert_int_equal(kernel.joined, 3);
	assert_int_equal(kernel.made, 1);
	assert_int_equal(kernel.programs, 1);
}

static void links_join_the_group_that_the_first_made(void **state)
{
	three_join(7);
	three_join(UINT16_MAX);
}

static void a_group_that_the_kernel_calls_0_is_one_too(void **state)
{
	three_join(0);
}

static void what_the_kernel_refuses_is_told(void **state)
{
	struct fanout_group group = { 0 };

	kernel.fails = EINVAL;
	assert_int_equal(fanout_join(10, &steer, &group), -EINVAL);
	assert_false(group.made);
	kernel.fails = 0;
	three_join(3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(links_join_the_group_that_the_first_made),
		cmocka_unit_test(a_group_that_the_kernel_calls_0_is_one_too),
		cmocka_unit_test(what_the_kernel_refuses_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
