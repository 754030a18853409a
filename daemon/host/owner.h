/* SPDX-License-Identifier: Apache-2.0 */
/* Whose is a kernel socket? /proc knows, as far as we may look. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { OWNER_TEXT = 96 };

/* "nginx (pid 123)", or "uid 33 (www-data)" when no process that we may see holds the inode. */
const char *owner_of_socket(uint32_t inode, uint32_t uid, char buf[static OWNER_TEXT]);
