/* SPDX-License-Identifier: Apache-2.0 */
/* What systemd is told, sd_notify(3)'s protocol: datagrams to $NOTIFY_SOCKET. Without one, nothing. */
#pragma once
#include <stdint.h>

#include "base/macros.h"

/* "READY=1\nSTATUS=...". 0, also when nobody asked; -Exxx when it could not be delivered. Never waits: -EAGAIN when
 * the receiver has no room; notify_late() tries again. Main thread only.
 */
PRINTF_LIKE(1, 2) int notify_send(const char *fmt, ...);
/* Says the last thing that there was no room for, unless something newer was said. */
void notify_late(void);
/* The watchdog's period, or 0 when systemd does not watch this process. */
uint64_t notify_watchdog_us(void);
