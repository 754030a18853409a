/* SPDX-License-Identifier: Apache-2.0 */
/* tcpfsmd: TCP outside the kernel. This file parses the command line; control/daemon.h is the rest. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "control/args.h"
#include "control/daemon.h"

static int print_version(void)
{
	(void)puts("tcpfsmd " TCPFSM_VERSION);
	return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int print_help(void)
{
	args_help(stdout);
	return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	struct errmsg err;
	struct args args;

	log_setup(LOG_LEVEL_INFO);
	if (args_parse(argc, argv, &args, &err) < 0) {
		log_error("%s", err.text);
		return EXIT_CONFIG;
	}
	switch (args.action) {
	case ARGS_RUN:
		return daemon_run(&args);
	case ARGS_CHECK:
		return daemon_check(&args);
	case ARGS_PRINT_CONFIG:
		return daemon_print_config(&args);
	case ARGS_CLEANUP:
		return daemon_cleanup();
	case ARGS_VERSION:
		return print_version();
	case ARGS_HELP:
		return print_help();
	}
	return EXIT_CONFIG;
}
