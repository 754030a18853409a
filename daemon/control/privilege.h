/* SPDX-License-Identifier: Apache-2.0 */
/* The two capabilities that the daemon needs, and giving up the others. */
#pragma once
#include <stdbool.h>

#include "base/errmsg.h"

/* -EPERM: CAP_NET_ADMIN or CAP_NET_RAW is missing; the message says what to do. */
int privilege_check(struct errmsg *ret_err);
/* After privilege_check(): were we given what it takes to start and to end another user's processes? */
bool privilege_may_switch_user(void);
/* Keeps these two and nothing else, in this thread and those that it starts from now on. */
int privilege_drop(struct errmsg *ret_err);
