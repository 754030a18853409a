/* SPDX-License-Identifier: Apache-2.0 */
#include "base/end_name.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

void end_name_set(int fd, int error)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	struct stat st;
	int n;

	/* An inode's number is nobody else's while it lives. */
	if (!error || fstat(fd, &st))
		return;
	n = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "tcpfsm end %ju %d",
		     (uintmax_t)st.st_ino, error);
	/* Without it the holder sees a connection that broke, of no certain cause. */
	(void)bind(fd, (const struct sockaddr *)&name,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n));
}
