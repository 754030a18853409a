/* SPDX-License-Identifier: Apache-2.0 */
/* Filters: any text parses or is refused with a message; what parses agrees with its own negation. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/filter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Some numbers are there, some are not. */
static bool row_number(void *arg, enum proto_field f, uint64_t *ret_value)
{
	*ret_value = (uint64_t)f * 1000;
	return f % 3 != 0;
}

static const char *row_text(void *arg, enum proto_field f)
{
	return f % 2 ? "echo" : NULL;
}

static const struct filter_row rows[] = {
	{ .local = { [10] = 0xff, 0xff, 10, 0, 0, 2 },
	  .remote = { [10] = 0xff, 0xff, 198, 51, 100, 1 },
	  .local_port = 7,
	  .remote_port = 40000,
	  .state = "established",
	  .get_number = row_number,
	  .get_text = row_text },
	{ .local = { 0x20, 1, 0xd, 0xb8, [15] = 2 },
	  .remote = { [15] = 1 },
	  .local_port = 80,
	  .remote_port = 65535,
	  .state = "TIME-WAIT",
	  .get_number = row_number,
	  .get_text = row_text },
	{ .state = NULL },
};

/* `prefix(text)`, or NULL when it is refused, which its greater depth and size may cause. */
static struct filter *parse_wrapped(const char *prefix, const char *text)
{
	struct filter *f = NULL;
	struct proto_err err;
	char *wrapped;

	if (asprintf(&wrapped, "%s(%s)", prefix, text) < 0)
		abort();
	if (filter_parse(wrapped, &f, &err))
		assert(strstr(err.text, "nested deeper") || strstr(err.text, "more than"));
	free(wrapped);
	return f;
}

static void check_same(const struct filter *f, const char *text)
{
	struct filter *const same = parse_wrapped("", text), *const opposite = parse_wrapped("not ",
											     text);

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const bool yes = filter_match(f, &rows[i]);

		assert(!same || filter_match(same, &rows[i]) == yes);
		assert(!opposite || filter_match(opposite, &rows[i]) == !yes);
	}
	filter_free(same);
	filter_free(opposite);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *const text = malloc(size + 1);
	struct proto_err err = { .text = "" };
	struct filter *f = NULL;

	if (!text)
		abort();
	memcpy(text, data, size);
	text[size] = '\0';
	if (filter_parse(text, &f, &err))
		assert(!f && err.text[0] && err.code == PROTO_INVALID_PARAMS);
	else if (text[strspn(text, " \t\r\n")])
		check_same(f, text);
	filter_free(f);
	free(text);
	return 0;
}
