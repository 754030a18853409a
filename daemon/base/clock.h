/* SPDX-License-Identifier: Apache-2.0 */
/* The two clocks of the daemon. The core never reads either: it is told. */
#pragma once
#include <stdint.h>

/* CLOCK_MONOTONIC in microseconds: what the engine's vtime is made from. */
uint64_t clock_monotonic_us(void);
/* CLOCK_REALTIME in microseconds since 1970: what people and the database read. */
uint64_t clock_realtime_us(void);
