/* SPDX-License-Identifier: Apache-2.0 */
#include "service/option.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Digits, and what follows them. */
static int parse(const char *text, uint64_t max, uint64_t *ret_number, const char **ret_rest)
{
	char *rest = NULL;
	unsigned long n;

	errno = 0;
	n = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &rest, 10) : 0;
	if (errno || !n || n > max)
		return -EINVAL;
	*ret_number = n;
	*ret_rest = rest;
	return 0;
}

int option_time(const char *text, uint32_t max_ms, uint32_t *ret_ms)
{
	const char *unit = "";
	uint64_t n = 0;

	if (parse(text, max_ms, &n, &unit))
		return -EINVAL;
	if (!*unit || !strcmp(unit, "s"))
		n *= 1000;
	else if (strcmp(unit, "ms") != 0)
		return -EINVAL;
	if (n > max_ms)
		return -EINVAL;
	*ret_ms = (uint32_t)n;
	return 0;
}

int option_number(const char *text, uint32_t max, uint32_t *ret_number)
{
	const char *rest = "";
	uint64_t n = 0;

	if (parse(text, max, &n, &rest) || *rest)
		return -EINVAL;
	*ret_number = (uint32_t)n;
	return 0;
}
