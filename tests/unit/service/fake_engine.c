/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_engine.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Not malloc(), which meson has fill what it gives: most of it is never used. */
static uint8_t *queue_new(void)
{
	void *const p = mmap(NULL, FAKE_QUEUE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0);

	assert(p != MAP_FAILED);
	return p;
}

struct engine *fake_engine_new(void)
{
	struct engine *e = calloc(1, sizeof(*e));

	assert(e);
	for (unsigned i = 0; i < FAKE_CONNS; i++) {
		e->conns[i].in = queue_new();
		e->conns[i].out = queue_new();
		e->conns[i].room = FAKE_QUEUE;
	}
	return e;
}

void fake_engine_free(struct engine *e)
{
	for (unsigned i = 0; i < FAKE_CONNS; i++) {
		(void)munmap(e->conns[i].in, FAKE_QUEUE);
		(void)munmap(e->conns[i].out, FAKE_QUEUE);
	}
	free(e);
}

void fake_arrive(struct engine *e, unsigned slot, const void *data, size_t len)
{
	struct fake_conn *c = &e->conns[slot];

	assert(c->in_len + len <= FAKE_QUEUE);
	memcpy(c->in + c->in_len, data, len);
	c->in_len += len;
}

int conn_send(struct engine *e, vtime now, conn_id id, const void *data, size_t len,
	      size_t *ret_taken)
{
	struct fake_conn *c = &e->conns[id.slot];
	const size_t n = len < c->room ? len : c->room;

	e->calls++;
	if (c->aborted)
		return -ENOTCONN;
	if (c->closed)
		return -EPIPE;
	assert(c->out_len + n <= FAKE_QUEUE);
	memcpy(c->out + c->out_len, data, n);
	c->out_len += n;
	c->room -= n;
	c->wants_room = n < len;
	*ret_taken = n;
	return 0;
}

int conn_pass_on(struct engine *e, vtime now, conn_id id, const void *data, size_t len,
		 uint64_t loan, size_t *ret_taken)
{
	(void)loan;
	return conn_send(e, now, id, data, len, ret_taken);
}

int conn_send_pattern(struct engine *e, vtime now, conn_id id, const struct pattern *pattern,
		      uint32_t at, size_t len, size_t *ret_taken)
{
	static uint8_t text[FAKE_QUEUE];

	for (size_t i = 0; i < len && i < FAKE_QUEUE; i++)
		text[i] = pattern->bytes[(at + i) % pattern->period];
	return conn_send(e, now, id, text, len, ret_taken);
}

int conn_send_urgent(struct engine *e, vtime now, conn_id id, const void *data, size_t len,
		     size_t *ret_taken)
{
	const int rc = conn_send(e, now, id, data, len, ret_taken);

	if (!rc && *ret_taken)
		e->conns[id.slot].urgent_end = e->conns[id.slot].out_len;
	return rc;
}

int conn_params(const struct engine *e, conn_id id, struct tcp_params *ret_params)
{
	*ret_params = e->conns[id.slot].params;
	return 0;
}

int conn_set_params(struct engine *e, vtime now, conn_id id, const struct tcp_params *params)
{
	(void)now;
	e->calls++;
	e->conns[id.slot].params = *params;
	return 0;
}

/* Two spans when it can, since text may lie in several chunks. */
unsigned conn_peek(const struct engine *e, conn_id id, struct span *ret_spans, unsigned max)
{
	const struct fake_conn *c = &e->conns[id.slot];
	const size_t first = c->in_len > 100000 ? c->in_len - 100
			     : c->in_len > 100  ? 100
						: c->in_len;

	if (!c->in_len || c->aborted)
		return 0;
	ret_spans[0] = (struct span){ c->in, (uint32_t)first };
	if (max < 2 || first == c->in_len)
		return 1;
	ret_spans[1] = (struct span){ c->in + first, (uint32_t)(c->in_len - first) };
	return 2;
}

int conn_consume(struct engine *e, vtime now, conn_id id, size_t n)
{
	struct fake_conn *c = &e->conns[id.slot];

	e->calls++;
	assert(n <= c->in_len);
	memmove(c->in, c->in + n, c->in_len - n);
	c->in_len -= n;
	return 0;
}

bool conn_at_eof(const struct engine *e, conn_id id)
{
	return e->conns[id.slot].peer_fin && !e->conns[id.slot].in_len;
}

int conn_close(struct engine *e, vtime now, conn_id id, enum cause by)
{
	struct fake_conn *c = &e->conns[id.slot];

	e->calls++;
	if (c->closed || c->aborted)
		return -EPIPE;
	c->closed = true;
	c->close_cause = by;
	return 0;
}

int conn_stop_reading(struct engine *e, vtime now, conn_id id)
{
	e->calls++;
	e->conns[id.slot].stopped_reading = true;
	return 0;
}

int conn_abort(struct engine *e, vtime now, conn_id id, enum cause by, enum end_reason reason)
{
	e->calls++;
	e->conns[id.slot].aborted = true;
	e->conns[id.slot].abort_reason = reason;
	return 0;
}

int conn_set_direct(struct engine *e, conn_id id, bool on)
{
	e->conns[id.slot].direct = on;
	return 0;
}

int conn_status(const struct engine *e, conn_id id, struct conn_status *ret_status)
{
	*ret_status = (struct conn_status){ .id = id, .flow = e->conns[id.slot].flow };
	return 0;
}
