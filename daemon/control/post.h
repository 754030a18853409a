/* SPDX-License-Identifier: Apache-2.0 */
/* From any thread to the main thread: items to run there, in order. */
#pragma once
#include "base/errmsg.h"

struct event_base;
struct post;

/* Owned by whoever puts it, until run() was called on the main thread. */
struct post_item {
	struct post_item *next;
	void (*run)(struct post_item *item);
};

int post_new(struct event_base *base, struct post **ret_post, struct errmsg *ret_err);
/* Any thread; never blocks for long, never fails. */
void post_put(struct post *p, struct post_item *item);
/* Runs what waits, as the event base does by itself. Main thread. */
void post_drain(struct post *p);
void post_free(struct post *p);
