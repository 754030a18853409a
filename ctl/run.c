/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/run.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl/arguments.h"
#include "proto/proto.h"

static const char usage[] =
	"Usage: tcpfsmctl [-s SOCKET] run [--only WHAT] [--] PROGRAM [ARGUMENTS]\n\n"
	"Run a program, unmodified, whose TCP goes through the daemon.\n\n"
	"  --only WHAT          connect, listen, ports (80,8000-8999), separated by commas; the "
	"rest\n"
	"                       stays with the kernel\n";

__attribute__((format(printf, 2, 3))) static int complain(int code, const char *fmt, ...)
{
	va_list ap;

	fputs("tcpfsmctl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return code;
}

static bool only_is_good(const char *only)
{
	for (const char *w = only; *w; w += strcspn(w, ","), w += *w == ',') {
		const size_t len = strcspn(w, ",");

		if (!(len == 7 && !strncmp(w, "connect", 7)) &&
		    !(len == 6 && !strncmp(w, "listen", 6)) &&
		    (!len || strspn(w, "0123456789-") < len || w[0] == '-'))
			return false;
	}
	return *only != '\0';
}

/* Beside this program, as it is built; or where it is installed. */
static bool find_library(char path[static PATH_MAX])
{
	const char *const given = getenv("TCPFSM_PRELOAD");
	const ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 64);
	char *slash;

	if (given && *given)
		return realpath(given, path) && !access(path, R_OK);
	if (n > 0) {
		path[n] = '\0';
		slash = strrchr(path, '/');
		memcpy(slash + 1, "libtcpfsm-preload.so", sizeof("libtcpfsm-preload.so"));
		if (!access(path, R_OK))
			return true;
	}
	snprintf(path, PATH_MAX, "%s", TCPFSM_PRELOAD_PATH);
	return !access(path, R_OK);
}

static int set_environment(const char *library, const char *socket, const char *only)
{
	const char *const before = getenv("LD_PRELOAD");
	char *preload = NULL, *const absolute = realpath(socket, NULL);
	int rc;

	if (asprintf(&preload, "%s%s%s", library, before && *before ? ":" : "",
		     before ? before : "") < 0)
		preload = NULL;
	rc = !preload || setenv("LD_PRELOAD", preload, 1) ||
	     setenv("TCPFSM_SOCKET", absolute ? absolute : socket, 1) ||
	     (only ? setenv("TCPFSM_ONLY", only, 1) : unsetenv("TCPFSM_ONLY"));
	free(preload);
	free(absolute);
	return rc;
}

/* A program that would fail at its first connection had better not start. */
static int check_daemon(const char *path)
{
	struct proto_client *client;
	const int rc = proto_client_new(path, &client);

	if (!rc) {
		proto_client_free(client);
		return EXIT_OK;
	}
	if (rc == -EACCES || rc == -EPERM)
		return complain(EXIT_PERMISSION, "%s: %s (be root, or in the socket's group)", path,
				strerror(-rc));
	return complain(EXIT_NO_DAEMON,
			"no tcpfsmd at %s: %s (is it running? systemctl start tcpfsmd)", path,
			strerror(-rc));
}

static int run(const char *given, const char *only, char **argv)
{
	char library[PATH_MAX];
	char *const path = proto_socket_path(given);
	int code;

	if (!path)
		return complain(EXIT_REFUSED, "out of memory");
	code = check_daemon(path);
	if (!code && !find_library(library))
		code = complain(EXIT_REFUSED,
				"libtcpfsm-preload.so is neither beside tcpfsmctl nor %s",
				TCPFSM_PRELOAD_PATH);
	if (!code && set_environment(library, path, only))
		code = complain(EXIT_REFUSED, "out of memory");
	free(path);
	if (code)
		return code;
	execvp(argv[0], argv);
	return complain(EXIT_REFUSED, "%s: %s", argv[0], strerror(errno));
}

bool run_program(int argc, char **argv, int *ret_code)
{
	const char *socket = NULL, *only = NULL;
	int i = 1;

	if (argc == 3 && !strcmp(argv[1], "help") && !strcmp(argv[2], "run")) {
		fputs(usage, stdout);
		*ret_code = EXIT_OK;
		return true;
	}
	if (argc > 3 && (!strcmp(argv[1], "-s") || !strcmp(argv[1], "--socket"))) {
		socket = argv[2];
		i = 3;
	}
	if (i >= argc || strcmp(argv[i], "run") != 0)
		return false;
	i++;
	if (i + 1 < argc && !strcmp(argv[i], "--only")) {
		only = argv[i + 1];
		i += 2;
	} else if (i < argc && !strncmp(argv[i], "--only=", 7)) {
		only = argv[i++] + 7;
	}
	if (i < argc && (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help"))) {
		fputs(usage, stdout);
		*ret_code = EXIT_OK;
		return true;
	}
	if (only && !only_is_good(only)) {
		*ret_code = complain(
			EXIT_USAGE,
			"--only \"%s\": expected connect, listen, ports as 80 or 8000-8999, "
			"separated by commas",
			only);
		return true;
	}
	i += i < argc && !strcmp(argv[i], "--");
	if (i >= argc || argv[i][0] == '-')
		*ret_code = complain(EXIT_USAGE,
				     "run: expected [--only WHAT] [--] PROGRAM [ARGUMENTS]");
	else
		*ret_code = run(socket, only, argv + i);
	return true;
}
