/* SPDX-License-Identifier: Apache-2.0 */
/* The directories of one daemon, and the lock that makes it the only one in them.
 *
 * systemd gives them in RUNTIME_DIRECTORY and STATE_DIRECTORY; the first of a colon-separated list
 * counts. The runtime directory is also the instance's name, in the firewall rules' comments.
 */
#pragma once
#include <stdbool.h>

#include "base/errmsg.h"

enum { PATHS_TEXT = 256 };

struct paths {
	char runtime[PATHS_TEXT], state[PATHS_TEXT];
	bool made_runtime, made_state; /* by us: paths_fini() removes them when they are empty */
	int lock_fd; /* -1: not locked */
};

/* Reads the environment. Makes nothing. -EINVAL: a path that we cannot use, with the reason. */
int paths_init(struct paths *ret_paths, struct errmsg *ret_err);
/* Makes a directory when its parent exists; then names it absolutely. */
int paths_make_runtime(struct paths *p, struct errmsg *ret_err);
int paths_make_state(struct paths *p, struct errmsg *ret_err);
/* Takes RUNTIME/lock. -EBUSY: another tcpfsmd has it; the message names its pid. */
int paths_lock(struct paths *p, struct errmsg *ret_err);
/* "RUNTIME/name". The caller's buf has PATHS_TEXT + 32. Returns buf. */
enum { PATHS_FILE_TEXT = PATHS_TEXT + 32 };
const char *paths_runtime_file(const struct paths *p, const char *name,
			       char buf[static PATHS_FILE_TEXT]);
/* Removes the lock, and the directories if they were made here and are empty. */
void paths_fini(struct paths *p);
