/* SPDX-License-Identifier: Apache-2.0 */
/* A message for a person, filled in where the error happened: what, where, and what to do. */
#pragma once
#include "macros.h"

struct errmsg {
	char text[512];
};

/* Fills *ret_err (which may be NULL) and returns rc, so that `return errmsg(err, -EINVAL, ...)` reads. */
PRINTF_LIKE(3, 4) int errmsg(struct errmsg *ret_err, int rc, const char *fmt, ...);
