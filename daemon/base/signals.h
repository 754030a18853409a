/* SPDX-License-Identifier: Apache-2.0 */
/* Signals are the main thread's business. */
#pragma once
#include <signal.h>

/* Blocks them for this thread, and for those that it starts: all but those of a fault of its own, which would end the
 * process all the same, but with nobody told: a blocked SIGSEGV reaches neither a sanitizer's handler nor any other.
 * *ret_before, unless NULL: the mask to go back to.
 */
void signals_block(sigset_t *ret_before);
