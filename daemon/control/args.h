/* SPDX-License-Identifier: Apache-2.0 */
/* tcpfsmd's command line. tcpfsmd(8) describes the options. */
#pragma once
#include <stddef.h>
#include <stdio.h>

#include "base/errmsg.h"

enum args_action {
	ARGS_RUN,
	ARGS_CHECK,
	ARGS_PRINT_CONFIG,
	ARGS_CLEANUP,
	ARGS_VERSION,
	ARGS_HELP,
};

enum { ARGS_OVERRIDES_MAX = 256 };

struct args {
	enum args_action action;
	const char *config_file; /* NULL: the default one. Points into argv */
	const char *overrides[ARGS_OVERRIDES_MAX]; /* "Section.Key=VALUE", into argv */
	size_t overrides_n;
};

/* 0, or -EINVAL with the word that is wrong. */
int args_parse(int argc, char **argv, struct args *ret_args, struct errmsg *ret_err);
void args_help(FILE *out);
