/* SPDX-License-Identifier: Apache-2.0 */
/* Whose is a kernel socket? /proc knows, as far as we may look. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { OWNER_TEXT = 128 };

/* "nginx (pid 123)". When no process that we may see holds the inode: "nginx.service, uid 33
 * (www-data)", by the control group that made the socket (0: unknown), or the uid alone. */
const char *owner_of_socket(uint32_t inode, uint32_t uid, uint64_t cgroup,
			    char buf[static OWNER_TEXT]);
