/* SPDX-License-Identifier: Apache-2.0 */
/* tcpfsmctl's own options, which may stand anywhere on the line, and the words that are left. */
#include "ctl/arguments.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/filter.h"

enum { DEFAULT_TIMEOUT_US = 30000000 };

const char *output_kind_name(enum output_kind kind)
{
	static const char *const names[OUTPUT__COUNT] = { "table", "json", "json-seq", "csv",
							  "tsv" };

	return names[kind];
}

static int set_output(struct arguments *a, const char *value, struct proto_err *ret_err)
{
	for (size_t k = 0; k < OUTPUT__COUNT; k++)
		if (!strcmp(value, output_kind_name((enum output_kind)k))) {
			a->output = (enum output_kind)k;
			return 0;
		}
	return proto_fail(ret_err, PROTO_INVALID_PARAMS,
			  "-o \"%.64s\": no such format; possible: table, json, json-seq, csv, tsv",
			  value);
}

/* A number without a unit is of seconds. */
static int set_timeout(struct arguments *a, const char *value, struct proto_err *ret_err)
{
	char text[32];
	const bool bare = *value && !value[strspn(value, "0123456789.")];
	const int n = snprintf(text, sizeof(text), "%s%s", value, bare ? "s" : "");

	if (n < 0 || (size_t)n >= sizeof(text) ||
	    proto_parse_number(text, KIND_TIME, &a->timeout_us, NULL))
		return proto_fail(
			ret_err, PROTO_INVALID_PARAMS,
			"--timeout \"%.64s\": expected a time, as 5, 500ms or 2m (0: for ever)",
			value);
	a->timeout_set = true;
	return 0;
}

static int set_socket(struct arguments *a, const char *value, struct proto_err *ret_err)
{
	if (!*value)
		return proto_fail(ret_err, PROTO_INVALID_PARAMS,
				  "-s: expected the path of a socket");
	a->socket = value;
	return 0;
}

static const struct {
	char letter;
	const char *name;
	int (*set)(struct arguments *a, const char *value,
		   struct proto_err *ret_err); /* NULL: a flag */
} options[] = {
	{ 's', "socket", set_socket },    { 'o', "output", set_output },
	{ '\0', "timeout", set_timeout }, { 'h', "help", NULL },
	{ '\0', "version", NULL },
};

enum { NO_OPTION = sizeof(options) / sizeof(options[0]) };

/* Which of ours argv's word is, and its value if that stands in the same word. */
static size_t find_option(const char *word, const char **ret_value)
{
	const size_t len = strcspn(word, "=");

	*ret_value = NULL;
	for (size_t i = 0; i < NO_OPTION; i++) {
		const char letter = options[i].letter;

		if (!strncmp(word, "--", 2) && len == strlen(options[i].name) + 2 &&
		    !strncmp(word + 2, options[i].name, len - 2)) {
			*ret_value = word[len] ? word + len + 1 : NULL;
			return i;
		}
		if (letter && word[0] == '-' && word[1] == letter) {
			*ret_value = word[2] ? word + 2 : NULL;
			return i;
		}
	}
	return NO_OPTION;
}

static int take_flag(struct arguments *a, const char *word, const char *name, const char *value,
		     struct proto_err *ret_err)
{
	if (value)
		return proto_fail(ret_err, PROTO_INVALID_PARAMS, "\"%.64s\": --%s has no value",
				  word, name);
	if (!strcmp(name, "help"))
		a->help = true;
	else
		a->version = true;
	return 0;
}

int arguments_parse(int argc, char *const *argv, struct arguments *ret_args,
		    struct proto_err *ret_err)
{
	struct arguments a = { .timeout_us = DEFAULT_TIMEOUT_US };
	bool ended = false;

	a.words = calloc((size_t)argc + 1, sizeof(a.words[0]));
	if (!a.words)
		return proto_fail(ret_err, PROTO_INTERNAL_ERROR, "out of memory");
	for (int i = 1; i < argc; i++) {
		const char *value;
		const size_t o = ended ? NO_OPTION : find_option(argv[i], &value);
		int rc;

		ended |= !strcmp(argv[i], "--");
		if (o == NO_OPTION) {
			a.words[a.words_n++] = argv[i];
			continue;
		}
		if (!options[o].set)
			rc = take_flag(&a, argv[i], options[o].name, value, ret_err);
		else if (value || i + 1 < argc)
			rc = options[o].set(&a, value ? value : argv[++i], ret_err);
		else
			rc = proto_fail(ret_err, PROTO_INVALID_PARAMS,
					"%s: a value is missing behind it", argv[i]);
		if (rc) {
			arguments_fini(&a);
			return rc;
		}
	}
	*ret_args = a;
	return 0;
}

void arguments_fini(struct arguments *a)
{
	free(a->words);
	a->words = NULL;
}
