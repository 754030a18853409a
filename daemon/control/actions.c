/* SPDX-License-Identifier: Apache-2.0 */
/* What tcpfsmd does instead of serving: --check, --print-config, --cleanup. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "control/daemon.h"

static int load_and_check(const struct args *args, struct config *ret_config)
{
	struct errmsg err;
	int rc;

	rc = daemon_load_config(args, ret_config, &err);
	if (rc == 0) {
		rc = daemon_check_config(ret_config, &err);
		if (rc < 0)
			config_fini(ret_config);
	}
	if (rc < 0)
		log_error("%s", err.text);
	return rc;
}

int daemon_check(const struct args *args)
{
	struct config config;

	if (load_and_check(args, &config) < 0)
		return EXIT_CONFIG;
	(void)printf("the configuration is good: %zu listeners\n", config.listeners_n);
	config_fini(&config);
	return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}

int daemon_print_config(const struct args *args)
{
	struct config config;

	if (load_and_check(args, &config) < 0)
		return EXIT_CONFIG;
	config_print(&config, stdout);
	config_fini(&config);
	return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}

static bool is_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int remove_rules(const struct paths *p, struct errmsg *ret_err)
{
	struct shield *shield;
	int rc;

	rc = shield_new(p->runtime, &shield, ret_err);
	if (rc == -ENOENT) {
		log_notice("no rules to remove: %s", ret_err->text);
		return 0;
	}
	if (rc < 0)
		return rc;
	rc = shield_remove(shield, ret_err);
	shield_free(shield);
	return rc;
}

static void remove_sockets(const struct paths *p)
{
	char file[PATHS_FILE_TEXT];

	(void)unlink(paths_runtime_file(p, "control.sock", file));
	(void)unlink(paths_runtime_file(p, "observe.sock", file));
}

/* As ExecStopPost= it runs after a crash as well. systemd is about to start the daemon again then,
 * and until it does, the rules keep the kernel from resetting the peers. */
static bool crashed_just_now(void)
{
	const char *result = getenv("SERVICE_RESULT");

	return result && strcmp(result, "success") != 0;
}

int daemon_cleanup(void)
{
	struct errmsg err;
	struct paths p;
	int rc;

	if (crashed_just_now()) {
		log_notice(
			"the service failed ($SERVICE_RESULT): its rules stay for the next start");
		return EXIT_SUCCESS;
	}
	rc = paths_init(&p, &err);
	if (rc == 0 && is_directory(p.runtime)) {
		rc = paths_make_runtime(&p, &err); /* names it absolutely */
		if (rc == 0)
			rc = paths_lock(&p, &err);
		if (rc == 0)
			remove_sockets(&p);
	}
	if (rc == 0)
		rc = remove_rules(&p, &err);
	if (rc < 0)
		log_error("--cleanup: %s", err.text);
	paths_fini(&p);
	return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
