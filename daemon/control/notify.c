/* SPDX-License-Identifier: Apache-2.0 */
#include "control/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A path, or with a leading @ a name in the abstract namespace. The address's length, or 0. */
static socklen_t notify_address(const char *text, struct sockaddr_un *ret_address)
{
	const size_t n = strlen(text);

	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if ((text[0] != '/' && text[0] != '@') || n < 2 || n >= sizeof(ret_address->sun_path))
		return 0;
	memcpy(ret_address->sun_path, text, n);
	if (text[0] == '@')
		ret_address->sun_path[0] = 0;
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
}

int notify_send(const char *fmt, ...)
{
	const char *where = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address;
	char text[512];
	socklen_t len;
	va_list ap;
	int fd, rc = 0;

	if (!where || !*where)
		return 0;
	len = notify_address(where, &address);
	if (!len)
		return -EINVAL;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&address, len) <
	    0)
		rc = -errno;
	(void)close(fd);
	return rc;
}

uint64_t notify_watchdog_us(void)
{
	const char *usec = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");

	if (!usec || (pid && strtol(pid, NULL, 10) != (long)getpid()))
		return 0;
	return strtoull(usec, NULL, 10);
}
