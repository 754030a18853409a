/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that are kept after they were sent, against the kernel: over the loopback of a namespace of our own. How much is
 * kept is what the kernel says that the socket has (SO_MEMINFO).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "link/hold.h"

enum { SKIP = 77, TEXT = 20000, TRUE_MAX = 2 * TEXT };

static int fd = -1;

static uint32_t kept_bytes(void)
{
	uint32_t info[SK_MEMINFO_VARS] = { 0 };
	socklen_t len = sizeof(info);

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len), 0);
	return info[SK_MEMINFO_RMEM_ALLOC];
}

/* To nobody: of a protocol that no host has. */
static void send_one(struct hold *keep)
{
	static uint8_t text[TEXT];
	struct sockaddr_ll to = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(ETH_P_802_EX1),
				  .sll_ifindex = (int)if_nametoindex("lo") };
	struct iovec iov = { text, sizeof(text) };
	struct msghdr m = {
		.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &iov, .msg_iovlen = 1
	};

	if (keep)
		hold_mark(keep, &m);
	assert_int_equal(sendmsg(fd, &m, 0), TEXT);
}

static void send_kept(struct hold *h)
{
	send_one(h);
	hold_sent(h);
	hold_limit(h);
}

static void set_buffer(int bytes)
{
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)), 0);
}

static int fresh_socket(void **state)
{
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	set_buffer(HOLD_BUFFER);
	return 0;
}

static int close_socket(void **state)
{
	return close(fd);
}

static void the_last_ones_are_kept(void **state)
{
	struct hold h;

	hold_init(&h, fd);
	for (unsigned i = 1; i <= 10 * HOLD_PACKETS; i++) {
		send_kept(&h);
		assert_true(h.n < HOLD_PACKETS + HOLD_EXTRA);
		assert_true(i < HOLD_PACKETS || h.n >= HOLD_PACKETS);
		assert_in_range(kept_bytes(), h.n * TEXT, h.n * TRUE_MAX);
	}
	hold_release(&h);
	assert_int_equal(h.n, 0);
	assert_int_equal(kept_bytes(), 0);
}

static void what_is_not_marked_is_not_kept(void **state)
{
	for (unsigned i = 0; i < 4; i++)
		send_one(NULL);
	assert_int_equal(kept_bytes(), 0);
}

/* The kernel's buffer is what net.core.rmem_max may make of it. */
static void a_small_buffer_keeps_less_and_is_emptied(void **state)
{
	struct hold h;

	hold_init(&h, fd);
	set_buffer(3 * TEXT);
	for (unsigned i = 0; i < 10 * HOLD_PACKETS; i++) {
		send_kept(&h);
		assert_in_range(kept_bytes(), 0, 2 * 3 * TEXT + TRUE_MAX);
	}
	assert_true(kept_bytes() > 0);
	hold_release(&h);
	assert_int_equal(h.n, 0);
	assert_int_equal(kept_bytes(), 0);
}

static void one_who_reads_as_much_keeps_nothing(void **state)
{
	struct hold h;

	hold_init(&h, fd);
	assert_false(hold_wants(&h, HOLD_LEAST - 1));
	assert_true(hold_wants(&h, HOLD_LEAST));
	hold_read(&h, 3 * TEXT + 1);
	assert_false(hold_wants(&h, HOLD_LEAST - 1));
	for (unsigned i = 0; i < 4; i++)
		assert_false(hold_wants(&h, TEXT));
	assert_true(hold_wants(&h, TEXT));
	for (unsigned i = 0; i < 1000; i++)
		hold_read(&h, 65535);
	assert_int_equal(h.fresh, HOLD_FRESH_MAX);
	for (unsigned i = 0; i < HOLD_FRESH_MAX / HOLD_LEAST; i++)
		assert_false(hold_wants(&h, HOLD_LEAST));
	assert_true(hold_wants(&h, HOLD_LEAST));
}

static int lo_up(void)
{
	struct ifreq r = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	const int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const int rc = s < 0 ? -1 : ioctl(s, SIOCSIFFLAGS, &r);

	if (s >= 0)
		(void)close(s);
	return rc;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_last_ones_are_kept, fresh_socket, close_socket),
		cmocka_unit_test_setup_teardown(what_is_not_marked_is_not_kept, fresh_socket,
						close_socket),
		cmocka_unit_test_setup_teardown(a_small_buffer_keeps_less_and_is_emptied,
						fresh_socket, close_socket),
		cmocka_unit_test_setup_teardown(one_who_reads_as_much_keeps_nothing, fresh_socket,
						close_socket),
	};

	if (geteuid() != 0) {
		(void)fprintf(stderr, "skipped: needs root\n");
		return SKIP;
	}
	if (unshare(CLONE_NEWNET) || lo_up()) {
		perror("a network namespace with its loopback");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
