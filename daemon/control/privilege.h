/* SPDX-License-Identifier: Apache-2.0 */
/* The two capabilities that the daemon needs, and giving up the others. */
#pragma once
#include "base/errmsg.h"

/* -EPERM: CAP_NET_ADMIN or CAP_NET_RAW is missing; the message says what to do. */
int privilege_check(struct errmsg *ret_err);
/* Keeps these two and nothing else, in this thread and those that it starts from now on. */
int privilege_drop(struct errmsg *ret_err);
