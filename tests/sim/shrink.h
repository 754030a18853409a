/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a failing run short: fewer connections, less text, fewer things of its seed, faults to fewer packets,
 * as long as it still fails in the same way.
 */
#pragma once
#include <stdbool.h>

#include "net.h"
#include "plan.h"

/* What a run has to be for it: ends the process, or aborts, when it fails, with what is wrong as the first
 * line on stderr; and says by shrink_suffered() which packets suffered, before it does.
 */
typedef void shrink_run(const struct plan *p);

/* In the run. May be called from a signal handler. */
void shrink_suffered(const struct net *n);

/* Changes *p. False: it did not fail. Says what it does on stderr when `loud`. */
bool shrink(struct plan *p, shrink_run *run, bool loud);
