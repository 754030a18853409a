/* SPDX-License-Identifier: Apache-2.0 */
#include "record/queue.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

int queue_init(struct queue *q, size_t size)
{
	/* Not calloc(): the pages of a burst can be given back, and are only there when needed. */
	void *mem = mmap(NULL, size * sizeof(struct row), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mem == MAP_FAILED)
		return -errno;
	*q = (struct queue){ .rows = mem, .size = size };
	return 0;
}

void queue_fini(struct queue *q)
{
	if (q->rows)
		(void)munmap(q->rows, q->size * sizeof(struct row));
	q->rows = NULL;
}

/* The row `by` behind the last. */
static struct row *row_behind(const struct queue *q, size_t by)
{
	const size_t at = q->head + q->n + by;

	return &q->rows[at < q->size ? at : at - q->size];
}

struct row *queue_push(struct queue *q)
{
	struct row *row;

	if (q->n == q->size)
		return NULL;
	/* The writer's core has the lines of the free rows: those of the next ones come while this one is filled. */
	if (q->n + 2 < q->size)
		for (size_t i = 0; i < sizeof(*row); i += 64)
			__builtin_prefetch((const char *)row_behind(q, 2) + i, 1);
	row = row_behind(q, 0);
	q->n++;
	return row;
}

size_t queue_front(struct queue *q, size_t max, const struct row **ret_rows)
{
	const size_t to_end = q->size - q->head;
	const size_t n = q->n < to_end ? q->n : to_end;

	*ret_rows = &q->rows[q->head];
	return n < max ? n : max;
}

void queue_drop(struct queue *q, size_t n)
{
	assert(n <= q->n);
	q->n -= n;
	q->head += n;
	if (q->head >= q->size)
		q->head -= q->size;
	if (q->n > 0)
		return;
	/* After a burst, what it used goes back to the system. */
	if (q->head * sizeof(struct row) > 8 << 20)
		(void)madvise(q->rows, q->size * sizeof(struct row), MADV_DONTNEED);
	q->head = 0;
}
