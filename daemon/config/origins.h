/* SPDX-License-Identifier: Apache-2.0 */
/* Where each value of a configuration came from: for --print-config and for messages. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "config/key.h"

/* origin.file: 0 is the built-in default, so that zeroed memory says so. */
enum { ORIGIN_DEFAULT, ORIGIN_COMMAND, ORIGIN_RUN_TIME, ORIGIN_FILES };

struct origin {
	uint16_t file; /* ORIGIN_FILES + index into files, or one of the others */
	uint32_t line;
};

struct origins_listener {
	struct origin heading; /* where the section was first seen */
	struct origin
		keys[KEYS_N]; /* by index into keys[]; its own and those of [Tcp] it overrides */
};

struct config_origins {
	char **files; /* owned, with the texts */
	size_t files_n;
	struct origin fixed[KEYS_N];
	struct origins_listener *listeners; /* owned; in the order of config.listeners */
	size_t listeners_n;
};

struct config_origins *origins_new(void);
void origins_free(struct config_origins *o);
int origins_add_file(struct config_origins *o, const char *name, uint16_t *ret_file);
int origins_add_listener(struct config_origins *o, const struct origin *heading);
/* "FILE:LINE", "command line", "run time" or "default". Returns buf. */
const char *origin_format(const struct config_origins *o, const struct origin *origin, char *buf,
			  size_t size);
