/* SPDX-License-Identifier: Apache-2.0 */
#include "control/args.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

enum { OPT_CHECK = 256, OPT_PRINT_CONFIG, OPT_CLEANUP };

static const struct option options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "option", required_argument, NULL, 'o' },
	{ "check", no_argument, NULL, OPT_CHECK },
	{ "print-config", no_argument, NULL, OPT_PRINT_CONFIG },
	{ "cleanup", no_argument, NULL, OPT_CLEANUP },
	{ "version", no_argument, NULL, 'V' },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

void args_help(FILE *out)
{
	(void)fputs(
		"usage: tcpfsmd [-c FILE] [-o Section.Key=VALUE]... [ACTION]\n"
		"\n"
		"Terminates TCP outside the kernel, and tells why it did everything it did.\n"
		"\n"
		"  -c, --config FILE            read FILE and FILE's drop-ins\n"
		"                               (default: /etc/tcpfsmd/tcpfsmd.conf)\n"
		"  -o, --option Section.Key=VALUE  after the files; may be repeated\n"
		"\n"
		"Actions, instead of serving:\n"
		"      --check                  say whether the configuration is good\n"
		"      --print-config           print the effective configuration and its origins\n"
		"      --cleanup                remove the firewall rules of a daemon that is "
		"gone\n"
		"  -V, --version                print the version\n"
		"  -h, --help                   print this\n"
		"\n"
		"Environment: RUNTIME_DIRECTORY (/run/tcpfsmd), STATE_DIRECTORY "
		"(/var/lib/tcpfsmd).\n"
		"See tcpfsmd(8) and tcpfsmd.conf(5).\n",
		out);
}

static int override_add(struct args *a, const char *text, struct errmsg *ret_err)
{
	const char *dot = strchr(text, '.');
	const char *equals = strchr(text, '=');

	if (!dot || !equals || dot > equals || dot == text || dot + 1 == equals)
		return errmsg(ret_err, -EINVAL, "-o %s: expected Section.Key=VALUE", text);
	if (a->overrides_n == ARGS_OVERRIDES_MAX)
		return errmsg(ret_err, -EINVAL, "-o %s: at most %d of them", text,
			      ARGS_OVERRIDES_MAX);
	a->overrides[a->overrides_n++] = text;
	return 0;
}

static int action_set(struct args *a, enum args_action action, struct errmsg *ret_err)
{
	if (a->action != ARGS_RUN && a->action != action)
		return errmsg(ret_err, -EINVAL,
			      "only one of --check, --print-config, --cleanup, --version, --help");
	a->action = action;
	return 0;
}

static int option_apply(struct args *a, int opt, char **argv, struct errmsg *ret_err)
{
	switch (opt) {
	case 'c':
		a->config_file = optarg;
		return 0;
	case 'o':
		return override_add(a, optarg, ret_err);
	case OPT_CHECK:
		return action_set(a, ARGS_CHECK, ret_err);
	case OPT_PRINT_CONFIG:
		return action_set(a, ARGS_PRINT_CONFIG, ret_err);
	case OPT_CLEANUP:
		return action_set(a, ARGS_CLEANUP, ret_err);
	case 'V':
		return action_set(a, ARGS_VERSION, ret_err);
	case 'h':
		return action_set(a, ARGS_HELP, ret_err);
	case ':':
		return errmsg(ret_err, -EINVAL, "%s wants a value (try --help)", argv[optind - 1]);
	default:
		/* A short option that is unknown may stand inside a word: getopt names it. */
		if (optopt > 0 && optopt < 256)
			return errmsg(ret_err, -EINVAL, "unknown option -%c (try --help)", optopt);
		return errmsg(ret_err, -EINVAL, "unknown option %s (try --help)", argv[optind - 1]);
	}
}

int args_parse(int argc, char **argv, struct args *ret_args, struct errmsg *ret_err)
{
	struct args a = { .action = ARGS_RUN };
	int opt, rc;

	opterr = 0;
	optind = 0; /* glibc: start over, for the tests */
	while ((opt = getopt_long(argc, argv, ":c:o:Vh", options, NULL)) != -1) {
		rc = option_apply(&a, opt, argv, ret_err);
		if (rc < 0)
			return rc;
	}
	if (optind < argc)
		return errmsg(ret_err, -EINVAL, "%s: tcpfsmd takes options only (try --help)",
			      argv[optind]);
	*ret_args = a;
	return 0;
}
