/* SPDX-License-Identifier: Apache-2.0 */
/* The mailbox: bounded, in order, readable as long as something waits, from two threads. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "worker/mailbox.h"

static bool is_readable(const struct mailbox *m)
{
	struct pollfd p = { .fd = m->fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static void it_is_bounded_and_in_order(void **state)
{
	static char items[8];
	struct mailbox m;

	assert_int_equal(mailbox_init(&m, 4), 0);
	for (unsigned round = 0; round < 3; round++) {
		assert_false(is_readable(&m));
		assert_null(mailbox_take(&m));
		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(mailbox_put(&m, &items[i]), 0);
		assert_int_equal(mailbox_put(&m, &items[4]), -EAGAIN);
		for (unsigned i = 0; i < 3; i++) {
			assert_true(is_readable(&m)); /* until the last one is taken */
			assert_ptr_equal(mailbox_take(&m), &items[i]);
		}
		assert_int_equal(mailbox_put(&m, &items[5]), 0);
		assert_ptr_equal(mailbox_take(&m), &items[3]);
		assert_true(is_readable(&m));
		assert_ptr_equal(mailbox_take(&m), &items[5]);
	}
	mailbox_fini(&m);
	mailbox_fini(&m);
}

static void closed_it_takes_nothing_but_gives_what_it_has(void **state)
{
	struct mailbox m;
	char item;

	assert_int_equal(mailbox_init(&m, 4), 0);
	assert_int_equal(mailbox_put(&m, &item), 0);
	mailbox_close(&m);
	assert_int_equal(mailbox_put(&m, &item), -ESHUTDOWN);
	assert_ptr_equal(mailbox_take(&m), &item);
	assert_null(mailbox_take(&m));
	mailbox_fini(&m);
}

enum { ITEMS = 100000 };

static void *put_all(void *arg)
{
	struct mailbox *m = arg;

	for (uintptr_t i = 1; i <= ITEMS;) {
		if (!mailbox_put(m, (void *)i)) /* NOLINT: a number travels as a pointer */
			i++;
		else
			(void)sched_yield();
	}
	return NULL;
}

static void nothing_is_lost_between_two_threads(void **state)
{
	struct mailbox m;
	pthread_t thread;
	uintptr_t want = 1;

	assert_int_equal(mailbox_init(&m, 16), 0);
	assert_int_equal(pthread_create(&thread, NULL, put_all, &m), 0);
	while (want <= ITEMS) {
		struct pollfd p = { .fd = m.fd, .events = POLLIN };
		void *item;

		assert_int_equal(poll(&p, 1, 10000), 1); /* a lost wakeup would end here */
		while ((item = mailbox_take(&m)))
			assert_int_equal((uintptr_t)item, want++);
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_false(is_readable(&m));
	mailbox_fini(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_bounded_and_in_order),
		cmocka_unit_test(closed_it_takes_nothing_but_gives_what_it_has),
		cmocka_unit_test(nothing_is_lost_between_two_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
