/* SPDX-License-Identifier: Apache-2.0 */
#include "coalesce.h"

#include "base/macros.h"

static uint32_t patience(const struct coalesce *c)
{
	return c->patience ? c->patience : COALESCE_TRY;
}

static uint32_t first(const struct coalesce *c)
{
	return c->first_us ? c->first_us : COALESCE_MIN_US;
}

static void less(struct coalesce *c)
{
	const bool never_paid = c->delay_us <= first(c);

	c->delay_us = never_paid ? 0 : c->delay_us / 2;
	if (c->delay_us >= COALESCE_MIN_US)
		return;
	c->delay_us = 0;
	c->first_us = min_u32(first(c) * 2, COALESCE_FIRST_MAX_US);
	c->patience = min_u32(patience(c) * 4, COALESCE_TRY_MAX);
}

static void more(struct coalesce *c)
{
	c->first_us = COALESCE_MIN_US;
	c->patience = COALESCE_TRY;
	c->delay_us = min_u32(c->delay_us * 2, c->max_us);
}

void coalesce_waited(struct coalesce *c, bool came)
{
	c->waited = came;
	if (!came)
		less(c);
}

void coalesce_took(struct coalesce *c, const struct coalesce_load *load)
{
	const bool much = load->frames >= COALESCE_FRAMES || load->bytes >= COALESCE_BYTES;

	if (c->waited && much && load->tail_us * 2 <= c->delay_us)
		more(c);
	else if (c->waited)
		less(c);
	c->waited = false;
	if (!much && !load->mixed) {
		c->busy -= c->busy > 0;
		return;
	}
	if (!c->delay_us && ++c->busy >= patience(c)) {
		c->busy = 0;
		c->delay_us = min_u32(first(c), c->max_us);
	}
	if (load->unread > load->bytes / 2)
		c->delay_us = min_u32(c->delay_us, COALESCE_UNREAD_MAX_US);
}
