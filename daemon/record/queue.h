/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded queue of rows: many threads put, one takes. It has no lock of its own: its owner's mutex
 * guards every call; only the rows that queue_front() showed may be read without it, until
 * queue_drop(). Memory is touched as it is needed, and when the queue runs empty it starts again at
 * the front, so that a queue that is never long stays small.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "record/row.h"

struct queue {
	struct row *rows; /* owned; size of them */
	size_t size;
	size_t head; /* the oldest */
	size_t n;
};

int queue_init(struct queue *q, size_t size);
void queue_fini(struct queue *q);
/* Where the next row goes, NULL when the queue is full. It counts at once. */
struct row *queue_push(struct queue *q);
/* The oldest rows that lie side by side, at most `max`. Their number. */
size_t queue_front(struct queue *q, size_t max, const struct row **ret_rows);
/* Forgets the n oldest. */
void queue_drop(struct queue *q, size_t n);
