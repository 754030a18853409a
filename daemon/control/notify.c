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

enum { TEXT_MAX = 512 };

/* What there was no room for: the last word about our state, said again by notify_late(). */
static char late[TEXT_MAX];

/* Never waits: whoever should listen may be stopped, and we have clients. */
static int deliver(const char *text)
{
	const char *where = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address;
	socklen_t len;
	int fd, rc = 0;

	if (!where || !*where)
		return 0;
	len = notify_address(where, &address);
	if (!len)
		return -EINVAL;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
		   (const struct sockaddr *)&address, len) < 0)
		rc = -errno;
	(void)close(fd);
	return rc;
}

int notify_send(const char *fmt, ...)
{
	char text[TEXT_MAX];
	va_list ap;
	int rc;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	rc = deliver(text);
	/* The watchdog's word comes again by itself, and says nothing about our state. */
	if (!strncmp(text, "WATCHDOG=", 9))
		return rc;
	if (rc == -EAGAIN)
		memcpy(late, text, sizeof(late));
	else
		late[0] = 0;
	return rc;
}

void notify_late(void)
{
	if (late[0] && deliver(late) != -EAGAIN)
		late[0] = 0;
}

uint64_t notify_watchdog_us(void)
{
	const char *usec = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");

	if (!usec || (pid && strtol(pid, NULL, 10) != (long)getpid()))
		return 0;
	return strtoull(usec, NULL, 10);
}
