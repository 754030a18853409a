/* SPDX-License-Identifier: Apache-2.0 */
/* Network namespaces for live tests. They have no name and end with the process: nothing to clean up,
 * also after a crash.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/macros.h"

enum netns { NETNS_HERE, NETNS_PEER };

/* Exits with 77 when one of these programs (blanks between them) is not installed. */
void netns_need(const char *programs);
/* Two fresh namespaces with lo up, this thread in NETNS_HERE. Exits with 77 where that is forbidden.
 * Earlier ones of this process are gone with it.
 */
void netns_fresh(void);
/* Into one of the two. */
void netns_enter(enum netns which);
/* A veth: "here" in NETNS_HERE, "peer" in NETNS_PEER, both up; 10.77.0.1/24 and 10.77.0.2/24,
 * fd77::1/64 and fd77::2/64, usable at once.
 */
void netns_veth(void);
/* Runs a shell command in NETNS_HERE or NETNS_PEER; it must succeed. */
PRINTF_LIKE(2, 3) void netns_run(enum netns which, const char *fmt, ...);
/* What a command prints, at most size - 1 octets. */
void netns_output(const char *command, char *ret_text, unsigned size);

/* What a kernel client in `from` gets from addr:port: 0 (connected), -ECONNREFUSED (a RST), or
 * -ETIMEDOUT (nothing, for 400 ms).
 */
int netns_connect(enum netns from, const char *addr, uint16_t port);
/* A kernel listener in NETNS_HERE. addr may be "::". Returns its descriptor and port. */
int netns_listen(const char *addr, bool only6, uint16_t *ret_port);
