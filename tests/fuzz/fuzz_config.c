/* SPDX-License-Identifier: Apache-2.0 */
/* Any octets as a configuration: refused with a message, or read, and then what is printed reads back
 * to the same values without a warning.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "config/key.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_warning(void *arg, const char *message)
{
	unsigned *n = arg;

	assert(!strncmp(message, "fuzz", 4) && strlen(message) > 6);
	++*n;
}

static void assert_same(const struct key *k, const void *a, const void *b)
{
	char x[KEY_TEXT_MAX], y[KEY_TEXT_MAX];

	assert(!strcmp(key_format(k, a, x), key_format(k, b, y)));
}

static void assert_same_config(const struct config *a, const struct config *b)
{
	assert(a->listeners_n == b->listeners_n);
	for (size_t n = 0; n < KEYS_N; n++) {
		const struct key *k = &keys[n];

		if (k->section == SECTION_TCP)
			assert_same(k, &a->tcp, &b->tcp);
		else if (k->section != SECTION_LISTENER)
			assert_same(k, a, b);
		for (size_t i = 0; i < a->listeners_n; i++) {
			if (k->section == SECTION_TCP)
				assert_same(k, &a->listeners[i].tcp, &b->listeners[i].tcp);
			else if (k->section == SECTION_LISTENER)
				assert_same(k, &a->listeners[i], &b->listeners[i]);
		}
	}
	for (size_t i = 0; i < a->listeners_n; i++)
		assert(!strcmp(a->listeners[i].name, b->listeners[i].name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config c, again;
	struct errmsg err = { "" };
	unsigned warnings = 0;
	char *text = NULL;
	size_t len = 0;
	FILE *f;

	if (config_load_text("fuzz", (const char *)data, size, on_warning, &warnings, &c, &err)) {
		assert(!strncmp(err.text, "fuzz:", 5));
		return 0;
	}
	f = open_memstream(&text, &len);
	assert(f);
	config_print(&c, f);
	(void)fclose(f);
	warnings = 0;
	if (config_load_text("fuzz", text, len, on_warning, &warnings, &again, &err)) {
		(void)fprintf(stderr, "%s\n%s", err.text, text);
		abort();
	}
	assert(warnings == 0);
	assert_same_config(&c, &again);
	config_fini(&again);
	config_fini(&c);
	free(text);
	return 0;
}
