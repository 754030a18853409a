/* SPDX-License-Identifier: Apache-2.0 */
/* A process that shuts itself into a seccomp sandbox (sshd before authentication) has listed the system
 * calls that it will make. From then on we make no others: read() is read(2), and what only other calls
 * could find out is not.
 */
#include <linux/seccomp.h>
#include <stdarg.h>
#include <sys/prctl.h>

#include "ctl/preload/preload.h"

static atomic_bool shut_in;

bool is_sandboxed(void)
{
	return atomic_load_explicit(&shut_in, memory_order_relaxed);
}

PUBLIC int prctl(int option, ...)
{
	unsigned long a[4];
	va_list ap;
	int rc;

	va_start(ap, option);
	for (int i = 0; i < 4; i++)
		a[i] = va_arg(ap, unsigned long);
	va_end(ap);
	rc = (int)syscall(SYS_prctl, option, a[0], a[1], a[2], a[3]);
	if (!rc && option == PR_SET_SECCOMP && a[0] != SECCOMP_MODE_DISABLED)
		atomic_store(&shut_in, true);
	return rc;
}
