/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's own TCP sockets (libnl idiag): what we must keep our hands off. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/errmsg.h"

/* 0: no kernel socket listens on, or is connected from, an address that overlaps addr (addr_any
 * overlaps all) with a local port in min..max. -EADDRINUSE: one does; ret_err names it: "10.0.0.2:80
 * is served by the kernel for nginx (pid 123)", or by its service and uid when we may not see it.
 */
int sockets_check_free(const struct ipaddr *addr, uint16_t port_min, uint16_t port_max,
		       struct errmsg *ret_err);
/* Does min..max overlap the kernel's ephemeral range (net.ipv4.ip_local_port_range)? 0, -ERANGE with
 * a message, or 0 when that cannot be read. */
int sockets_check_ephemeral(uint16_t port_min, uint16_t port_max, struct errmsg *ret_err);
