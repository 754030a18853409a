/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that go in one piece, and the kernel that has no room for one. The kernel here is false: it notes what vnet
 * headers say, and fails when a test wants it to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <linux/virtio_net.h>
#include <string.h>
#include <sys/socket.h>

#include "link/batch.h"

enum { FD = 3, HEADERS = 66, VNET = sizeof(struct virtio_net_hdr) };

static struct {
	unsigned calls, sent;
	int fails, times; /* errno, of so many of the next calls */
	uint16_t hdr_len[BATCH_IN_PAGES + BATCH_MAX]; /* of what was sent */
} kernel;

static struct batch b;
static struct link_counters counters;
static uint8_t text[LINK_PACKET_MAX];

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *m, unsigned n, int flags);

static bool takes(const struct msghdr *m)
{
	struct virtio_net_hdr vnet;

	kernel.calls++;
	if (kernel.times) {
		kernel.times--;
		errno = kernel.fails;
		return false;
	}
	memcpy(&vnet, m->msg_iov[0].iov_base, sizeof(vnet));
	kernel.hdr_len[kernel.sent++ % (BATCH_IN_PAGES + BATCH_MAX)] = vnet.hdr_len;
	return true;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags)
{
	assert_int_equal(fd, FD);
	return takes(m) ? 1 : -1;
}

/* As the kernel: an error behind the first is not told. */
int __wrap_sendmmsg(int fd, struct mmsghdr *m, unsigned n, int flags)
{
	int sent = 0;

	assert_int_equal(fd, FD);
	while ((unsigned)sent < n && takes(&m[sent].msg_hdr))
		sent++;
	return sent ? sent : -1;
}

static void put(uint32_t text_bytes)
{
	const struct frame_out f = { .header_len = HEADERS - 14,
				     .text_n = 1,
				     .text = { { text, text_bytes } } };
	struct batch_slot *slot = batch_next(&b);
	const struct virtio_net_hdr vnet = { .hdr_len = HEADERS };

	memset(slot->head, 0xa5, VNET + HEADERS);
	memcpy(slot->head, &vnet, sizeof(vnet));
	batch_commit(&b, VNET + HEADERS, 0, &f);
	batch_one_piece(&b);
}

/* The one packet that this sends: what its vnet header says. */
static uint16_t sent_as(uint32_t text_bytes)
{
	put(text_bytes);
	batch_flush(&b, FD, &counters);
	return kernel.hdr_len[(kernel.sent - 1) % (BATCH_IN_PAGES + BATCH_MAX)];
}

static int fresh(void **state)
{
	memset(&kernel, 0, sizeof(kernel));
	memset(&b, 0, sizeof(b));
	memset(&counters, 0, sizeof(counters));
	return 0;
}

static void what_nearly_fills_a_block_goes_in_one_piece(void **state)
{
	assert_int_equal(sent_as(1000), HEADERS);
	assert_int_equal(sent_as(BATCH_PIECE_LEAST - HEADERS - 1), HEADERS);
	assert_int_equal(sent_as(BATCH_PIECE_LEAST - HEADERS), BATCH_PIECE_LEAST);
	assert_int_equal(sent_as(LINK_PIECE_MAX - HEADERS), LINK_PIECE_MAX);
	assert_int_equal(sent_as(LINK_PIECE_MAX - HEADERS + 1), HEADERS);
	assert_int_equal(sent_as(1000), HEADERS);
	assert_int_equal(counters.frames_out, 6);
}

/* Nothing else of the head changes. */
static void the_rest_of_a_head_stays(void **state)
{
	static const uint8_t same[HEADERS] = { [0 ... HEADERS - 1] = 0xa5 };
	struct virtio_net_hdr vnet;

	put(60000);
	memcpy(&vnet, b.slots[0].head, sizeof(vnet));
	assert_int_equal(vnet.hdr_len, HEADERS + 60000);
	vnet.hdr_len = 0;
	assert_memory_equal(&vnet, &(struct virtio_net_hdr){ 0 }, sizeof(vnet));
	assert_memory_equal(b.slots[0].head + VNET, same, HEADERS);
}

static void without_a_block_it_goes_in_pages(void **state)
{
	kernel.fails = ENOBUFS;
	kernel.times = 1;
	for (unsigned i = 0; i < 3; i++)
		put(60000);
	put(100);
	batch_flush(&b, FD, &counters);
	assert_int_equal(kernel.sent, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(kernel.hdr_len[i], HEADERS);
	assert_int_equal(counters.frames_out, 4);
	assert_int_equal(counters.send_failed, 0);
	/* For a while; small ones do not count. */
	for (unsigned i = 0; i < BATCH_IN_PAGES; i++) {
		assert_int_equal(sent_as(100), HEADERS);
		assert_int_equal(sent_as(60000), HEADERS);
	}
	assert_int_equal(sent_as(60000), HEADERS + 60000);
}

static void those_before_it_went_in_one_piece(void **state)
{
	for (unsigned i = 0; i < 2; i++)
		put(60000);
	batch_flush(&b, FD, &counters);
	kernel.fails = ENOBUFS;
	kernel.times = 1;
	assert_int_equal(sent_as(60000), HEADERS);
	assert_int_equal(kernel.hdr_len[0], HEADERS + 60000);
	assert_int_equal(kernel.hdr_len[1], HEADERS + 60000);
	assert_int_equal(counters.send_failed, 0);
}

/* A queue that is full is another matter than a packet that is too large. */
static void other_errors_say_nothing_of_blocks(void **state)
{
	static const int errors[] = { EAGAIN, EINTR, EMSGSIZE, ENETDOWN };

	for (unsigned i = 0; i < 4; i++) {
		kernel.fails = errors[i];
		kernel.times = 1;
		put(60000);
		assert_int_equal(sent_as(60000), HEADERS + 60000);
	}
	assert_int_equal(counters.send_failed, 1);
	assert_int_equal(counters.send_too_big, 1);
	assert_int_equal(counters.frames_out, 6);
}

static void what_never_finds_room_is_given_up(void **state)
{
	kernel.fails = ENOBUFS;
	kernel.times = 1000;
	put(60000);
	put(60000);
	batch_flush(&b, FD, &counters);
	assert_int_equal(kernel.sent, 0);
	assert_int_equal(counters.send_failed, 2);
	assert_true(kernel.calls < 20);
	kernel.times = 0;
	assert_int_equal(sent_as(60000), HEADERS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_nearly_fills_a_block_goes_in_one_piece, fresh),
		cmocka_unit_test_setup(the_rest_of_a_head_stays, fresh),
		cmocka_unit_test_setup(without_a_block_it_goes_in_pages, fresh),
		cmocka_unit_test_setup(those_before_it_went_in_one_piece, fresh),
		cmocka_unit_test_setup(other_errors_say_nothing_of_blocks, fresh),
		cmocka_unit_test_setup(what_never_finds_room_is_given_up, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
