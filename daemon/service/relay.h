/* SPDX-License-Identifier: Apache-2.0 */
/* What a relay says to its backend before anything else: the PROXY protocol, versions 1 and 2, as
 * HAProxy's proxy-protocol.txt has it. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

enum { PROXY_HEADER_MAX = 108 };

/* Writes the header of that version (1 or 2) for a connection that was accepted. Its length. */
size_t proxy_header(unsigned version, const struct flow *flow,
		    uint8_t ret_header[static PROXY_HEADER_MAX]);
