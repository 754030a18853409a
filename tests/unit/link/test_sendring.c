/* SPDX-License-Identifier: Apache-2.0 */
/* The send ring, and what becomes of it when the kernel does not do as it should. The kernel here is false: it looks
 * at the slots in turn, as packet(7)'s does, takes as many as a test lets it, and keeps what it saw.
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
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/macros.h"
#include "link/sendring.h"

enum {
	PERIOD = 7030,
	SIZE = PERIOD + 70000,
	HEADERS = ETH_HLEN + 20 + 32,
	HEAD = sizeof(struct virtio_net_hdr) + HEADERS,
	MSS = 1448,
	FD = 77,
};

static uint8_t text[SIZE], far[SIZE];

static struct {
	uint8_t *slots;
	size_t bytes;
	uint32_t head; /* the slot it looks at next */
	unsigned takes; /* so many more of them */
	int fails; /* errno of what it does not take */
	bool wrong; /* and does not like */
	bool blind; /* it sees none, and says that all is well */
	bool keeps; /* what it took is under way until given_back() */
	unsigned calls, taken, options;
	int option_fails; /* the one that does; 0: none */
	bool map_fails;
	struct sockaddr_ll to;
	uint8_t packet[70000];
	uint32_t len;
} kernel;

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t len);
void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t len);
ssize_t __wrap_sendto(int fd, const void *data, size_t len, int flags, const struct sockaddr *to,
		      socklen_t to_len);

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
	assert_int_equal(fd, FD);
	assert_int_equal(level, SOL_PACKET);
	kernel.options++;
	if (option == kernel.option_fails) {
		errno = ENOMEM;
		return -1;
	}
	if (option == PACKET_TX_RING) {
		const struct tpacket_req *req = value;

		assert_int_equal(req->tp_frame_nr, SENDRING_SLOTS);
		assert_int_equal(req->tp_frame_size * (size_t)req->tp_frame_nr,
				 req->tp_block_size * (size_t)req->tp_block_nr);
		kernel.bytes = req->tp_block_size * (size_t)req->tp_block_nr;
	}
	return 0;
}

void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
	assert_int_equal(fd, FD);
	assert_int_equal(len, kernel.bytes);
	if (kernel.map_fails) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	kernel.slots = aligned_alloc(4096, len);
	assert_non_null(kernel.slots);
	memset(kernel.slots, 0, len);
	return kernel.slots;
}

int __wrap_munmap(void *at, size_t len)
{
	assert_ptr_equal(at, kernel.slots);
	assert_int_equal(len, kernel.bytes);
	free(kernel.slots);
	kernel.slots = NULL;
	return 0;
}

static struct tpacket2_hdr *slot(uint32_t i)
{
	return (struct tpacket2_hdr *)(void *)(kernel.slots + kernel.bytes / SENDRING_SLOTS * i);
}

/* Keeps the packet as it would leave. */
static void take(struct tpacket2_hdr *h)
{
	const uint8_t *at = (const uint8_t *)h + h->tp_mac;

	assert_true(h->tp_mac >= sizeof(*h));
	assert_true(h->tp_mac + h->tp_len <= kernel.bytes / SENDRING_SLOTS);
	assert_true(h->tp_len <= sizeof(kernel.packet));
	memcpy(kernel.packet, at, h->tp_len);
	kernel.len = h->tp_len;
	h->tp_status = kernel.keeps ? TP_STATUS_SENDING : TP_STATUS_AVAILABLE;
	kernel.head = (kernel.head + 1) % SENDRING_SLOTS;
	kernel.taken++;
	kernel.takes--;
}

ssize_t __wrap_sendto(int fd, const void *data, size_t len, int flags, const struct sockaddr *to,
		      socklen_t to_len)
{
	ssize_t sent = 0;

	assert_int_equal(fd, FD);
	assert_true(flags & MSG_DONTWAIT);
	assert_int_equal(to_len, sizeof(kernel.to));
	memcpy(&kernel.to, to, sizeof(kernel.to));
	kernel.calls++;
	while (!kernel.blind && slot(kernel.head)->tp_status == TP_STATUS_SEND_REQUEST) {
		if (kernel.takes == 0) {
			if (kernel.wrong)
				slot(kernel.head)->tp_status = TP_STATUS_WRONG_FORMAT;
			else if (sent)
				return sent;
			errno = kernel.fails;
			return -1;
		}
		take(slot(kernel.head));
		sent += kernel.len;
	}
	return sent;
}

static void given_back(unsigned n)
{
	for (uint32_t i = 0; i < SENDRING_SLOTS && n; i++)
		if (slot(i)->tp_status == TP_STATUS_SENDING) {
			slot(i)->tp_status = TP_STATUS_AVAILABLE;
			n--;
		}
}

static struct sendring ring;
static struct link_counters counters;
static uint8_t header[HEADERS];

static int begin(void **state)
{
	const struct link_pattern pattern = { text, SIZE, PERIOD };

	memset(&kernel, 0, sizeof(kernel));
	memset(&counters, 0, sizeof(counters));
	kernel.takes = 1000000;
	kernel.fails = ENOBUFS;
	for (uint32_t i = 0; i < SIZE; i++)
		text[i] = far[i] = (uint8_t)((i % PERIOD) * 2654435761u >> 13);
	for (uint32_t i = 0; i < HEADERS; i++)
		header[i] = (uint8_t)(200 + i);
	sendring_init(&ring, FD);
	sendring_set_pattern(&ring, &pattern);
	return 0;
}

static int end(void **state)
{
	sendring_fini(&ring);
	assert_null(kernel.slots);
	return 0;
}

/* A packet of len octets of the text from its octet `at` on. */
static struct frame_out frame(uint32_t at, uint32_t len)
{
	return (struct frame_out){ .ifindex = 3,
				   .ethernet = true,
				   .checksum_partial = true,
				   .piece_bytes = MSS,
				   .header = header + ETH_HLEN,
				   .header_len = HEADERS - ETH_HLEN,
				   .text = { { text + at, len } },
				   .text_n = 1 };
}

static void put(const struct frame_out *f)
{
	const struct virtio_net_hdr vnet = { .gso_size = MSS, .hdr_len = HEADERS };
	uint8_t head[HEAD];

	memcpy(head, &vnet, sizeof(vnet));
	memcpy(head + sizeof(vnet), header, HEADERS);
	assert_true(sendring_suits(&ring, f));
	assert_true(sendring_has_room(&ring, f));
	sendring_put(&ring, f, head, HEAD);
}

static void flush(void)
{
	sendring_flush(&ring, &counters);
	assert_int_equal(ring.pending, 0);
}

static void assert_counted(uint64_t sent, uint64_t failed)
{
	assert_int_equal(counters.frames_out, sent);
	assert_int_equal(counters.zerocopy, sent);
	assert_int_equal(counters.send_failed, failed);
}

static void the_kernel_sees_the_text_from_every_octet_on(void **state)
{
	uint64_t bytes = 0;

	for (uint32_t at = 0; at < PERIOD; at++) {
		const uint32_t len = 60000 + at % 3;
		const struct frame_out f = frame(at, len);
		struct virtio_net_hdr vnet;

		put(&f);
		flush();
		bytes += HEADERS - ETH_HLEN + len;
		assert_int_equal(kernel.len, HEAD + len);
		memcpy(&vnet, kernel.packet, sizeof(vnet));
		assert_int_equal(vnet.gso_size, MSS);
		assert_int_equal(vnet.hdr_len, HEADERS + (PERIOD - at) % PERIOD);
		assert_memory_equal(kernel.packet + sizeof(vnet), header, HEADERS);
		assert_memory_equal(kernel.packet + HEAD, text + at, len);
	}
	assert_counted(PERIOD, 0);
	assert_int_equal(counters.bytes_out, bytes);
}

static void text_that_goes_on_elsewhere_is_one(void **state)
{
	struct frame_out f = frame(100, 20000);

	f.text[1] = (struct iovec){ text + (20100 % PERIOD), 30000 };
	f.text[2] = (struct iovec){ text + (50100 % PERIOD) + PERIOD, 1000 };
	f.text_n = 3;
	put(&f);
	flush();
	assert_int_equal(kernel.len, HEAD + 51000);
	assert_memory_equal(kernel.packet + HEAD, text + 100, 51000);
}

static void what_is_sent_stays_as_it_is(void **state)
{
	struct frame_out f = frame(0, 60000);
	const uint8_t *pages;

	kernel.keeps = true;
	put(&f);
	flush();
	pages = (const uint8_t *)slot(0) + slot(0)->tp_mac + HEAD;
	given_back(1);
	/* Every slot is used again, with text from other octets on. */
	for (uint32_t i = 1; i < 3 * SENDRING_SLOTS; i++) {
		f = frame(i * 131 % PERIOD, 60000);
		put(&f);
		flush();
		given_back(1);
		assert_memory_equal(pages, text, 60000);
	}
}

static void only_the_pattern_suits(void **state)
{
	struct frame_out f = frame(PERIOD, 8192);
	const struct link_pattern longer = { text, SIZE, SENDRING_PERIOD_MAX + 1 };

	assert_true(sendring_suits(&ring, &f));
	f = frame(PERIOD, 8191); /* too little to be worth it */
	assert_false(sendring_suits(&ring, &f));
	f = frame(1, PERIOD - 1 + 8192);
	assert_true(sendring_suits(&ring, &f));
	f = frame(1, PERIOD - 1 + 8191);
	assert_false(sendring_suits(&ring, &f));
	f = frame(SIZE - 60000, 60000); /* to its last octet */
	assert_true(sendring_suits(&ring, &f));
	f.text[0].iov_len++;
	assert_false(sendring_suits(&ring, &f));
	f = frame(0, LINK_PACKET_MAX - (HEADERS - ETH_HLEN));
	assert_true(sendring_suits(&ring, &f));
	f.text[0].iov_len++;
	assert_false(sendring_suits(&ring, &f));
	f = frame(0, 60000);
	f.text[0].iov_base = far; /* the same octets, but they may change */
	assert_false(sendring_suits(&ring, &f));
	f = frame(0, 20000);
	f.text[1] = (struct iovec){ far + 20000, 20000 };
	f.text_n = 2;
	assert_false(sendring_suits(&ring, &f));
	f.text[1].iov_base = text + 20001; /* an octet is left out */
	assert_false(sendring_suits(&ring, &f));
	f.text[1].iov_base = text + 20000;
	assert_true(sendring_suits(&ring, &f));
	f.ethernet = false;
	assert_false(sendring_suits(&ring, &f));
	f = frame(0, 60000);
	f.piece_bytes = 0;
	assert_false(sendring_suits(&ring, &f));
	f = frame(0, 60000);
	f.text_n = 0;
	assert_false(sendring_suits(&ring, &f));
	f = frame(0, 60000);
	sendring_init(&ring, FD);
	assert_false(sendring_suits(&ring, &f));
	sendring_set_pattern(&ring, &longer);
	assert_false(sendring_suits(&ring, &f));
}

static void slots_under_way_are_not_taken_again(void **state)
{
	const struct frame_out f = frame(7, 60000);

	kernel.keeps = true;
	for (unsigned i = 0; i < SENDRING_SLOTS; i++)
		put(&f);
	assert_false(sendring_has_room(&ring, &f)); /* all are pending */
	flush();
	assert_int_equal(kernel.calls, 1);
	assert_counted(SENDRING_SLOTS, 0);
	assert_false(sendring_has_room(&ring, &f)); /* all are under way */
	given_back(1);
	put(&f);
	flush();
	assert_false(sendring_has_room(&ring, &f));
	assert_counted(SENDRING_SLOTS + 1, 0);
}

static void a_call_has_one_interface_and_one_protocol(void **state)
{
	struct frame_out f = frame(7, 60000);

	put(&f);
	f.ifindex = 4;
	assert_false(sendring_has_room(&ring, &f));
	flush();
	assert_int_equal(kernel.to.sll_ifindex, 3);
	assert_int_equal(kernel.to.sll_protocol, htons(ETH_P_IP));
	put(&f);
	f.ipv6 = true;
	assert_false(sendring_has_room(&ring, &f));
	flush();
	assert_int_equal(kernel.to.sll_ifindex, 4);
	put(&f);
	flush();
	assert_int_equal(kernel.to.sll_protocol, htons(ETH_P_IPV6));
	assert_counted(3, 0);
}

/* What it does not take is dropped, and the next one goes where the kernel looks. */
static void a_full_queue_loses_what_is_pending_and_no_more(void **state)
{
	static const int errors[] = { ENOBUFS, EAGAIN, EINTR, ENETDOWN };
	const struct frame_out f = frame(7, 60000);

	for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
		for (unsigned k = 0; k < 5; k++)
			put(&f);
		kernel.fails = errors[i];
		kernel.takes = 2;
		kernel.calls = 0;
		flush();
		/* One call takes two, one is refused; all but a device that is down are asked eight times more. */
		assert_int_equal(kernel.calls, errors[i] == ENETDOWN ? 2 : 10);
		assert_counted((i + 1) * 2, (i + 1) * 3);
		kernel.takes = 1000000;
	}
	put(&f);
	flush();
	assert_counted(9, 12);
	assert_memory_equal(kernel.packet + HEAD, text + 7, 60000);
}

static void who_has_room_again_gets_the_rest(void **state)
{
	const struct frame_out f = frame(7, 60000);

	kernel.takes = 1;
	for (unsigned k = 0; k < 3; k++)
		put(&f);
	sendring_flush(&ring, &counters);
	assert_counted(1, 2);
	kernel.takes = 3;
	for (unsigned k = 0; k < 3; k++)
		put(&f);
	flush();
	assert_counted(4, 2);
}

/* The kernel is not asked for another ring. */
static void assert_given_up(void)
{
	const struct frame_out f = frame(7, 60000);
	const unsigned calls = kernel.calls;
	unsigned options;

	assert_false(sendring_has_room(&ring, &f));
	options = kernel.options;
	assert_false(sendring_has_room(&ring, &f));
	assert_null(kernel.slots);
	assert_int_equal(kernel.options, options);
	flush();
	assert_int_equal(kernel.calls, calls);
}

static void what_the_kernel_does_not_like_is_not_tried_again(void **state)
{
	const struct frame_out f = frame(7, 60000);

	for (unsigned k = 0; k < 5; k++)
		put(&f);
	kernel.takes = 2;
	kernel.fails = EINVAL;
	kernel.wrong = true;
	flush();
	assert_counted(2, 3);
	assert_given_up();
}

static void a_kernel_that_looks_elsewhere_is_given_up(void **state)
{
	const struct frame_out f = frame(7, 60000);

	put(&f);
	kernel.blind = true;
	flush();
	assert_counted(0, 1);
	assert_given_up();
}

static void without_a_ring_there_is_no_room(void **state)
{
	static const int options[] = { PACKET_VERSION, PACKET_TX_HAS_OFF, PACKET_TX_RING };
	const struct link_pattern pattern = { text, SIZE, PERIOD };

	for (unsigned i = 0; i < ARRAY_SIZE(options); i++) {
		sendring_init(&ring, FD);
		sendring_set_pattern(&ring, &pattern);
		kernel.option_fails = options[i];
		assert_given_up();
		assert_int_equal(kernel.options, (i + 1) * (i + 2) / 2);
	}
	kernel.option_fails = 0;
	kernel.map_fails = true;
	sendring_init(&ring, FD);
	sendring_set_pattern(&ring, &pattern);
	assert_given_up();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_kernel_sees_the_text_from_every_octet_on, begin,
						end),
		cmocka_unit_test_setup_teardown(text_that_goes_on_elsewhere_is_one, begin, end),
		cmocka_unit_test_setup_teardown(what_is_sent_stays_as_it_is, begin, end),
		cmocka_unit_test_setup_teardown(only_the_pattern_suits, begin, end),
		cmocka_unit_test_setup_teardown(slots_under_way_are_not_taken_again, begin, end),
		cmocka_unit_test_setup_teardown(a_call_has_one_interface_and_one_protocol, begin,
						end),
		cmocka_unit_test_setup_teardown(a_full_queue_loses_what_is_pending_and_no_more,
						begin, end),
		cmocka_unit_test_setup_teardown(who_has_room_again_gets_the_rest, begin, end),
		cmocka_unit_test_setup_teardown(what_the_kernel_does_not_like_is_not_tried_again,
						begin, end),
		cmocka_unit_test_setup_teardown(a_kernel_that_looks_elsewhere_is_given_up, begin,
						end),
		cmocka_unit_test_setup_teardown(without_a_ring_there_is_no_room, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
