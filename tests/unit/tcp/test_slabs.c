/* SPDX-License-Identifier: Apache-2.0 */
/* Slabs: objects keep what they hold, places are used again, empty slabs are given back once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/macros.h"
#include "tcp/slabs.h"

enum { SLABS = 6, OBJECTS = 2000 };

static uint64_t seed;

/* 0..n-1, by Knuth's LCG. */
WRAPS static uint32_t below(uint32_t n)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)((seed >> 33) % n);
}

struct world {
	struct slabs s;
	uint8_t *memory;
};

static void begin(struct world *w)
{
	*w = (struct world){ .s.sizes = { 96, 128, 1056 } };
	w->memory = aligned_alloc(4096, (size_t)SLABS * SLAB_BYTES);
	slabs_init(&w->s, w->memory, calloc(SLABS, sizeof(struct slab)), SLABS);
}

static void end(struct world *w)
{
	free(w->s.all);
	free(w->memory);
}

static void test_contents(void **state)
{
	static const uint16_t sizes[] = { 1, 96, 97, 128, 600, 1056 };
	uint32_t ref[OBJECTS] = { 0 }, size[OBJECTS], refused = 0, used = 0;
	struct world w;

	begin(&w);
	seed = 1;
	for (unsigned n = 0; n < 100000; n++) {
		const unsigned i = below(n / 10000 % 2 ? OBJECTS : 100);

		if (ref[i]) {
			const uint8_t *const p = slabs_at(&w.s, ref[i]);

			for (uint32_t k = 0; k < size[i]; k++)
				assert_int_equal(p[k], (uint8_t)i);
			slabs_put(&w.s, ref[i]);
			ref[i] = 0;
			used--;
			continue;
		}
		size[i] = sizes[below(6)];
		ref[i] = slabs_take(&w.s, size[i]);
		refused += ref[i] == 0;
		used += ref[i] != 0;
		if (ref[i])
			memset(slabs_at(&w.s, ref[i]), (int)i, size[i]);
		assert_int_equal(w.s.used, used);
	}
	assert_true(refused > 0); /* running out was tried */
	for (unsigned i = 0; i < OBJECTS; i++)
		if (ref[i])
			slabs_put(&w.s, ref[i]);
	assert_int_equal(w.s.used, 0);
	assert_int_equal(w.s.used_bytes, 0);
	assert_int_equal(w.s.empty_n, SLABS);
	end(&w);
}

static void test_no_class_is_so_large(void **state)
{
	struct world w;

	begin(&w);
	assert_int_equal(slabs_take(&w.s, 1057), 0);
	assert_int_equal(w.s.fresh, 0);
	end(&w);
}

static void test_memory_is_returned_and_used_again(void **state)
{
	uint32_t ref[3 * SLAB_BYTES / 1056], n = 0;
	struct world w;
	void *p;

	begin(&w);
	while (w.s.fresh < 3)
		ref[n++] = slabs_take(&w.s, 1056);
	assert_null(slabs_return(&w.s, 0)); /* all are in use */
	for (uint32_t i = 0; i < n; i++)
		slabs_put(&w.s, ref[i]);
	assert_int_equal(w.s.empty_n, 3);
	assert_null(slabs_return(&w.s, 1)); /* they were in use a moment ago */
	slabs_look(&w.s);
	slabs_put(&w.s, slabs_take(&w.s, 1056));
	assert_null(slabs_return(&w.s, 2)); /* one of the three was needed since */
	slabs_look(&w.s);
	p = slabs_return(&w.s, 1);
	assert_non_null(p);
	memset(p, 0xee, SLAB_BYTES); /* what is in it means nothing from now on */
	p = slabs_return(&w.s, 1);
	assert_non_null(p);
	memset(p, 0xee, SLAB_BYTES);
	assert_null(slabs_return(&w.s, 1)); /* one is kept */
	for (uint32_t i = 0; i < n; i++) {
		ref[i] = slabs_take(&w.s, 1056);
		memset(slabs_at(&w.s, ref[i]), (int)i, 1056);
	}
	assert_int_equal(w.s.fresh, 3); /* the same three again */
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(*(uint8_t *)slabs_at(&w.s, ref[i]), (uint8_t)i);
	end(&w);
}

static void test_walk(void **state)
{
	struct world w;
	uint32_t ref[100], cursor = 0, found = 0;

	begin(&w);
	w.s.sizes[0] = 1056;
	for (unsigned i = 0; i < 100; i++)
		ref[i] = slabs_take(&w.s, 1000);
	for (uint32_t r; (r = slabs_next(&w.s, &cursor)); found++)
		assert_int_equal(r, ref[found]);
	assert_int_equal(found, 100);
	end(&w);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_contents),
		cmocka_unit_test(test_no_class_is_so_large),
		cmocka_unit_test(test_memory_is_returned_and_used_again),
		cmocka_unit_test(test_walk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
