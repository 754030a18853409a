/* SPDX-License-Identifier: Apache-2.0 */
/* Does the kernel's TCP answer a SYN on lo? The proof behind shield_self_test(). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/errmsg.h"

/* Is lo up, with the family's loopback address on it? */
bool probe_is_up(bool ipv6);
/* A SYN from port `from` to port `to`, both at the family's loopback address. 0: it arrived and nobody
 * answered; -EPROTO: somebody did; -EIO: it did not arrive; -EPERM and others: no sockets.
 */
int probe_loopback(bool ipv6, uint16_t to, uint16_t from, struct errmsg *ret_err);
