/* SPDX-License-Identifier: Apache-2.0 */
/* Values in a service's argument, such as timeout=500ms. */
#pragma once
#include <stdint.h>

/* "500ms", "5s", "5": more than 0, at most max_ms. -EINVAL. */
int option_time(const char *text, uint32_t max_ms, uint32_t *ret_ms);
/* 1 to max. -EINVAL. */
int option_number(const char *text, uint32_t max, uint32_t *ret_number);
