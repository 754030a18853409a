/* SPDX-License-Identifier: Apache-2.0 */
/* Values as people write them: time spans, sizes, switches, numbers. Text in, value out, and back:
 * what a _format() writes, its _parse() reads to the same value.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { VALUE_TEXT = 96 };

/* "30s", "1min 30s", "1.5h", "90" (seconds). 0, -EINVAL, or -ERANGE above UINT64_MAX microseconds. */
int duration_parse(const char *text, uint64_t *ret_us);
/* "2 GiB", "64K" (1024), "1500B", "1500". 0, -EINVAL, or -ERANGE above UINT64_MAX octets. */
int size_parse(const char *text, uint64_t *ret_bytes);
/* Decimal digits only. 0, -EINVAL or -ERANGE. */
int number_parse(const char *text, uint64_t *ret_n);
/* yes true on 1, no false off 0; any case. 0 or -EINVAL. */
int switch_parse(const char *text, bool *ret_on);

/* All return buf. */
const char *duration_format(uint64_t us, char buf[static VALUE_TEXT]);
const char *size_format(uint64_t bytes, char buf[static VALUE_TEXT]);
