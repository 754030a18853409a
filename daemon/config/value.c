/* SPDX-License-Identifier: Apache-2.0 */
#include "config/value.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/macros.h"

struct unit {
	const char *name;
	uint64_t scale;
};

/* The names that systemd.time(7) knows, up to a week: months and years are not of one length. */
static const struct unit time_units[] = {
	{ "us", 1 },
	{ "usec", 1 },
	{ "µs", 1 },
	{ "ms", 1000 },
	{ "msec", 1000 },
	{ "s", 1000000 },
	{ "sec", 1000000 },
	{ "second", 1000000 },
	{ "seconds", 1000000 },
	{ "m", 60000000 },
	{ "min", 60000000 },
	{ "minute", 60000000 },
	{ "minutes", 60000000 },
	{ "h", 3600000000 },
	{ "hr", 3600000000 },
	{ "hour", 3600000000 },
	{ "hours", 3600000000 },
	{ "d", 86400000000 },
	{ "day", 86400000000 },
	{ "days", 86400000000 },
	{ "w", 604800000000 },
	{ "week", 604800000000 },
	{ "weeks", 604800000000 },
	{ "", 1000000 },
};

/* K is 1024, as everywhere in systemd's files. */
static const struct unit size_units[] = {
	{ "", 1 },           { "B", 1 },
	{ "K", 1ULL << 10 }, { "KiB", 1ULL << 10 },
	{ "M", 1ULL << 20 }, { "MiB", 1ULL << 20 },
	{ "G", 1ULL << 30 }, { "GiB", 1ULL << 30 },
	{ "T", 1ULL << 40 }, { "TiB", 1ULL << 40 },
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static const char *skip_blanks(const char *p)
{
	return p + strspn(p, " \t");
}

/* One amount, "12" or "1.25", and its unit. *p moves behind both. A fraction keeps six digits, and
 * what is below one (a nanosecond) is cut.
 */
static int amount_parse(const char **p, const struct unit *units, size_t units_n, uint64_t *ret_n)
{
	const char *s = *p;
	uint64_t whole = 0, millionths = 0, place = 100000, n;
	bool fraction = false;
	size_t len;

	if (!is_digit(*s))
		return -EINVAL;
	for (; is_digit(*s); s++)
		if (__builtin_mul_overflow(whole, (uint64_t)10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*s - '0'), &whole))
			return -ERANGE;
	if (*s == '.') {
		fraction = true;
		if (!is_digit(*++s))
			return -EINVAL;
		for (; is_digit(*s); s++, place /= 10)
			millionths += place * (uint64_t)(*s - '0');
	}
	s = skip_blanks(s);
	len = strcspn(s, " \t0123456789.");
	for (size_t i = 0; i < units_n; i++) {
		if (strlen(units[i].name) != len || strncmp(units[i].name, s, len) != 0)
			continue;
		if (fraction && units[i].scale == 1)
			return -EINVAL; /* half an octet, half a microsecond */
		if (__builtin_mul_overflow(whole, units[i].scale, &n) ||
		    __builtin_add_overflow(
			    n, (uint64_t)((unsigned __int128)millionths * units[i].scale / 1000000),
			    &n))
			return -ERANGE;
		*p = skip_blanks(s + len);
		*ret_n = n;
		return 0;
	}
	return -EINVAL;
}

int duration_parse(const char *text, uint64_t *ret_us)
{
	const char *p = skip_blanks(text);
	uint64_t us = 0, part;

	do {
		const int rc = amount_parse(&p, time_units, ARRAY_SIZE(time_units), &part);

		if (rc)
			return rc;
		if (__builtin_add_overflow(us, part, &us))
			return -ERANGE;
	} while (*p);
	*ret_us = us;
	return 0;
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
	const char *p = skip_blanks(text);
	uint64_t n;
	const int rc = amount_parse(&p, size_units, ARRAY_SIZE(size_units), &n);

	if (rc)
		return rc;
	if (*p)
		return -EINVAL;
	*ret_bytes = n;
	return 0;
}

int number_parse(const char *text, uint64_t *ret_n)
{
	uint64_t n = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		if (!is_digit(*text))
			return -EINVAL;
		if (__builtin_mul_overflow(n, (uint64_t)10, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
			return -ERANGE;
	}
	*ret_n = n;
	return 0;
}

int switch_parse(const char *text, bool *ret_on)
{
	static const char *const on[] = { "yes", "true", "on", "1" };
	static const char *const off[] = { "no", "false", "off", "0" };

	for (size_t i = 0; i < ARRAY_SIZE(on); i++) {
		if (!strcasecmp(text, on[i]) || !strcasecmp(text, off[i])) {
			*ret_on = !strcasecmp(text, on[i]);
			return 0;
		}
	}
	return -EINVAL;
}

const char *duration_format(uint64_t us, char buf[static VALUE_TEXT])
{
	static const struct unit parts[] = { { "d", 86400000000 }, { "h", 3600000000 },
					     { "min", 60000000 },  { "s", 1000000 },
					     { "ms", 1000 },       { "us", 1 } };
	size_t at = 0;

	if (us == 0)
		return strcpy(buf, "0");
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		const uint64_t n = us / parts[i].scale;

		us %= parts[i].scale;
		if (n)
			at += (size_t)snprintf(buf + at, VALUE_TEXT - at, "%s%llu%s", at ? " " : "",
					       (unsigned long long)n, parts[i].name);
	}
	return buf;
}

const char *size_format(uint64_t bytes, char buf[static VALUE_TEXT])
{
	static const struct unit whole[] = { { "TiB", 1ULL << 40 },
					     { "GiB", 1ULL << 30 },
					     { "MiB", 1ULL << 20 },
					     { "KiB", 1ULL << 10 },
					     { "", 1 } };
	size_t i = 0;

	while (bytes % whole[i].scale || (bytes == 0 && whole[i].scale != 1))
		i++;
	(void)snprintf(buf, VALUE_TEXT, "%llu%s", (unsigned long long)(bytes / whole[i].scale),
		       whole[i].name);
	return buf;
}
