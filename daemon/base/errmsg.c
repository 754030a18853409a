/* SPDX-License-Identifier: Apache-2.0 */
#include "errmsg.h"

#include <stdarg.h>
#include <stdio.h>

int errmsg(struct errmsg *ret_err, int rc, const char *fmt, ...)
{
	va_list ap;

	if (!ret_err)
		return rc;
	va_start(ap, fmt);
	(void)vsnprintf(ret_err->text, sizeof(ret_err->text), fmt, ap);
	va_end(ap);
	return rc;
}
