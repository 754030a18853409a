/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded queue of pointers between two threads, with a descriptor that polls readable as long as
 * something waits. What the pointers mean, and who owns it, is the users' business.
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct mailbox {
	pthread_mutex_t lock;
	int fd; /* eventfd; owned; -1 before init */
	unsigned size, head, n;
	bool closed;
	void **ring; /* owned */
};

int mailbox_init(struct mailbox *m, unsigned size);
void mailbox_fini(struct mailbox *m);
/* 0, -EAGAIN: full, -ESHUTDOWN: closed. */
int mailbox_put(struct mailbox *m, void *item);
/* The oldest, or NULL. */
void *mailbox_take(struct mailbox *m);
/* Refuses what comes from now on; what waits can still be taken. */
void mailbox_close(struct mailbox *m);
