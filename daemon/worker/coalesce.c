/* SPDX-License-Identifier: Apache-2.0 */
#include "coalesce.h"

static uint32_t at_most(uint32_t n, uint32_t max)
{
	return n < max ? n : max;
}

static uint32_t patience(const struct coalesce *c)
{
	return c->patience ? c->patience : COALESCE_TRY;
}

static void less(struct coalesce *c)
{
	c->delay_us /= 2;
	if (c->delay_us >= COALESCE_MIN_US)
		return;
	c->delay_us = 0;
	c->patience = at_most(patience(c) * 4, COALESCE_TRY_MAX);
}

static void more(struct coalesce *c)
{
	c->patience = COALESCE_TRY;
	c->delay_us = at_most(c->delay_us * 2, c->max_us);
}

void coalesce_waited(struct coalesce *c, bool came)
{
	c->waited = came;
	if (!came)
		less(c);
}

void coalesce_took(struct coalesce *c, uint32_t frames, uint64_t bytes, uint64_t tail_us)
{
	const bool is_busy = frames >= COALESCE_FRAMES || bytes >= COALESCE_BYTES;

	if (c->waited && is_busy && tail_us * 2 <= c->delay_us)
		more(c);
	else if (c->waited)
		less(c);
	c->waited = false;
	if (!is_busy) {
		c->busy -= c->busy > 0;
		return;
	}
	if (!c->delay_us && ++c->busy >= patience(c)) {
		c->busy = 0;
		c->delay_us = at_most(COALESCE_MIN_US, c->max_us);
	}
}
