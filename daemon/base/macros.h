/* SPDX-License-Identifier: Apache-2.0 */
/* The few macros and functions that everything may use. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* clang's unsigned-overflow sanitizer is on in the sanitizer build: what wraps on purpose says so. */
#if defined(__clang__)
#define WRAPS __attribute__((no_sanitize("unsigned-integer-overflow")))
#else
#define WRAPS
#endif

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

static inline uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static inline uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}
