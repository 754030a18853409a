/* SPDX-License-Identifier: Apache-2.0 */
/* The table of methods and the table of errors: one list each, and what can be looked up in them. */
#include "proto/method.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROTOCOL_VERSION = 1, WORD_MAX = 64 };

/* Where each method's arguments begin in `args`: every METHOD and every ARG takes one place there, the
 * METHOD's being the end mark of the list before it. */
#define PASTE_(a, b) a##b
#define PASTE(a, b)  PASTE_(a, b)
enum {
#define METHOD(e, rpc, text, level, help) MARK_##e,
#define ARG(m, name, type, need, help)    PASTE(ARG_AT_LINE_, __LINE__),
#include "proto/methods.def"
#undef METHOD
#undef ARG
};

enum { NEED_OPTIONAL, NEED_REQUIRED };

static const struct method_arg args[] = {
#define METHOD(e, rpc, text, level, help) [MARK_##e] = { .name = NULL },
#define ARG(m, aname, atype, need, ahelp)                                                  \
	[PASTE(ARG_AT_LINE_, __LINE__)] = {                                                \
		.name = aname, .type = ARG_##atype, .required = NEED_##need, .help = ahelp \
	},
#include "proto/methods.def"
#undef METHOD
#undef ARG
	{ .name = NULL },
};

static const struct method_info methods[METHOD__COUNT] = {
#define METHOD(e, arpc, atext, alevel, ahelp) \
	[METHOD_##e] = { METHOD_##e, arpc, atext, LEVEL_##alevel, ahelp, &args[MARK_##e + 1] },
#define ARG(m, name, type, need, help)
#include "proto/methods.def"
#undef METHOD
#undef ARG
};

static const struct {
	enum proto_error code;
	const char *name;
	int exit;
	const char *help;
} errors[] = {
	{ PROTO_PARSE_ERROR, "parse_error", 2, "the line is no JSON" },
	{ PROTO_INVALID_REQUEST, "invalid_request", 2, "JSON, but no request" },
	{ PROTO_METHOD_NOT_FOUND, "method_not_found", 2, "no such method" },
	{ PROTO_INVALID_PARAMS, "invalid_params", 2, "a parameter is missing, unknown or wrong" },
	{ PROTO_INTERNAL_ERROR, "internal_error", 1, "our fault" },
	{ PROTO_REFUSED, "refused", 1, "understood, but it cannot be done" },
	{ PROTO_NOT_FOUND, "not_found", 4, "no such connection, listener, ..." },
	{ PROTO_PERMISSION_DENIED, "permission_denied", 5, "this socket or user may not" },
	{ PROTO_BUSY, "busy", 1, "too much waits; try again" },
	{ PROTO_TIMED_OUT, "timed_out", 6, "no answer within the operation's limit" },
	{ PROTO_TOO_LARGE, "too_large", 2, "line, batch or answer over its limit" },
	{ PROTO_NO_RECORD, "no_record", 1, "no database is kept or it does not answer" },
};

int proto_fail(struct proto_err *ret_err, enum proto_error code, const char *fmt, ...)
{
	if (ret_err) {
		va_list ap;

		ret_err->code = code;
		va_start(ap, fmt);
		vsnprintf(ret_err->text, sizeof(ret_err->text), fmt, ap);
		va_end(ap);
	}
	return -EINVAL;
}

const char *proto_error_name(enum proto_error code)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].code == code)
			return errors[i].name;
	return "internal_error";
}

int proto_error_exit(enum proto_error code)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (errors[i].code == code)
			return errors[i].exit;
	return 1;
}

const struct method_info *method_get(enum method m)
{
	return &methods[m];
}

const char *method_level_name(enum method_level level)
{
	switch (level) {
	case LEVEL_OBSERVE:
		return "observe";
	case LEVEL_OPERATE:
		return "operate";
	case LEVEL_ADMIN:
		return "admin";
	}
	return "?";
}

const char *arg_type_name(enum arg_type type)
{
	static const char *const names[] = {
		[ARG_STRING] = "string",     [ARG_INTEGER] = "integer", [ARG_BOOLEAN] = "boolean",
		[ARG_ENDPOINT] = "endpoint", [ARG_PREFIX] = "prefix",   [ARG_DURATION] = "duration",
		[ARG_FILTER] = "filter",     [ARG_SERVICE] = "service", [ARG_OPTIONS] = "options",
		[ARG_VALUE] = "value",
	};

	return names[type];
}

const struct method_arg *method_arg_find(const struct method_info *info, const char *name)
{
	for (const struct method_arg *a = info->args; a->name; a++)
		if (!strcmp(a->name, name))
			return a;
	return NULL;
}

/* Levenshtein's distance of two words, which are cut at WORD_MAX octets. */
static size_t distance(const char *a, const char *b)
{
	size_t row[WORD_MAX + 1], na = strnlen(a, WORD_MAX), nb = strnlen(b, WORD_MAX);

	for (size_t j = 0; j <= nb; j++)
		row[j] = j;
	for (size_t i = 1; i <= na; i++) {
		size_t corner = row[0];

		row[0] = i;
		for (size_t j = 1; j <= nb; j++) {
			const size_t above = row[j];
			size_t best = corner + (a[i - 1] != b[j - 1]);

			if (above + 1 < best)
				best = above + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
			corner = above;
		}
	}
	return row[nb];
}

const char *proto_nearest(const char *word, size_t n, const char *const *candidates)
{
	const char *nearest = NULL;
	size_t least = 1 + strlen(word) / 3;

	for (size_t i = 0; i < n; i++) {
		const size_t d = distance(word, candidates[i]);

		if (d <= least && d < strlen(candidates[i])) {
			if (d == least && nearest)
				continue;
			least = d;
			nearest = candidates[i];
		}
	}
	return nearest;
}

int method_by_rpc(const char *name, enum method *ret_method, struct proto_err *ret_err)
{
	const char *names[METHOD__COUNT];
	const char *nearest;

	for (size_t m = 0; m < METHOD__COUNT; m++) {
		names[m] = methods[m].rpc;
		if (!strcmp(names[m], name)) {
			*ret_method = (enum method)m;
			return 0;
		}
	}
	nearest = proto_nearest(name, METHOD__COUNT, names);
	if (nearest)
		return proto_fail(ret_err, PROTO_METHOD_NOT_FOUND,
				  "\"%.64s\": no such method; did you mean \"%s\"?", name, nearest);
	return proto_fail(ret_err, PROTO_METHOD_NOT_FOUND,
			  "\"%.64s\": no such method; rpc.discover lists them", name);
}

/* The i-th word of a text command. False: it has fewer. */
static bool text_word(const char *text, size_t i, char buf[static WORD_MAX])
{
	size_t n;

	for (; i; i--) {
		text = strchr(text, ' ');
		if (!text)
			return false;
		text++;
	}
	n = strcspn(text, " ");
	assert(n && n < WORD_MAX);
	memcpy(buf, text, n);
	buf[n] = '\0';
	return true;
}

/* How many leading words of the text command are the same as the user's. */
static size_t words_shared(const char *text, size_t n, const char *const *words)
{
	char word[WORD_MAX];
	size_t k = 0;

	while (k < n && text_word(text, k, word) && !strcmp(word, words[k]))
		k++;
	return k;
}

/* The words that may follow the first k of `words`. Returns their number. */
static size_t words_possible(size_t k, const char *const *words,
			     char ret_words[static METHOD__COUNT][WORD_MAX])
{
	size_t n = 0;

	for (size_t m = 0; m < METHOD__COUNT; m++) {
		bool known = false;

		if (words_shared(methods[m].text, k, words) < k ||
		    !text_word(methods[m].text, k, ret_words[n]))
			continue;
		for (size_t i = 0; i < n; i++)
			known |= !strcmp(ret_words[i], ret_words[n]);
		n += !known;
	}
	return n;
}

/* "list: what? possible: ..." or "list conections: no such command; did you mean ...". */
static int fail_words(size_t k, size_t n, const char *const *words, struct proto_err *ret_err)
{
	char possible[METHOD__COUNT][WORD_MAX], list[512] = "", before[128] = "";
	const char *candidates[METHOD__COUNT], *nearest = NULL;
	const size_t possible_n = words_possible(k, words, possible);

	for (size_t i = 0; i < possible_n; i++) {
		const size_t len = strlen(list);

		candidates[i] = possible[i];
		snprintf(list + len, sizeof(list) - len, "%s%s", i ? ", " : "", possible[i]);
	}
	for (size_t i = 0; i < k; i++) {
		const size_t len = strlen(before);

		snprintf(before + len, sizeof(before) - len, "%s ", words[i]);
	}
	if (k == n)
		return proto_fail(
			ret_err, PROTO_METHOD_NOT_FOUND, "%.*s: a word is missing; possible: %s",
			*before ? (int)strlen(before) - 1 : 7, *before ? before : "command", list);
	nearest = proto_nearest(words[k], possible_n, candidates);
	if (nearest)
		return proto_fail(
			ret_err, PROTO_METHOD_NOT_FOUND,
			"%s\"%.64s\": no such command; did you mean \"%s%s\"? possible: %s", before,
			words[k], before, nearest, list);
	return proto_fail(ret_err, PROTO_METHOD_NOT_FOUND,
			  "%s\"%.64s\": no such command; possible: %s", before, words[k], list);
}

int method_by_words(size_t n, const char *const *words, enum method *ret_method, size_t *ret_used,
		    struct proto_err *ret_err)
{
	size_t longest = 0, furthest = 0;

	for (size_t m = 0; m < METHOD__COUNT; m++) {
		const size_t k = words_shared(methods[m].text, n, words);
		char word[WORD_MAX];

		if (k > furthest)
			furthest = k;
		if (k > longest && !text_word(methods[m].text, k, word)) {
			longest = k;
			*ret_method = (enum method)m;
			*ret_used = k;
		}
	}
	return longest ? 0 : fail_words(furthest, n, words, ret_err);
}

static void put_upper(FILE *out, const char *name)
{
	for (; *name; name++)
		fputc(toupper((unsigned char)*name), out);
}

static void put_value(FILE *out, const struct method_arg *a)
{
	switch (a->type) {
	case ARG_INTEGER:
		fputs(a->required ? "" : "N", out);
		if (a->required)
			put_upper(out, a->name);
		break;
	case ARG_ENDPOINT:
		fputs("ADDR:PORT", out);
		break;
	case ARG_PREFIX:
		fputs("ADDR/LEN", out);
		break;
	case ARG_DURATION:
		fputs("TIME", out);
		break;
	case ARG_FILTER:
		fputs("FILTER...", out);
		break;
	case ARG_OPTIONS:
		fputs("KEY=VALUE,...", out);
		break;
	case ARG_STRING:
	case ARG_SERVICE:
	case ARG_VALUE:
		put_upper(out, a->name);
		break;
	case ARG_BOOLEAN:
		break;
	}
}

char *method_usage(enum method m)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	fputs(methods[m].text, out);
	for (const struct method_arg *a = methods[m].args; a->name; a++) {
		fputs(a->required ? " " : " [", out);
		if (!a->required && a->type != ARG_FILTER) {
			fputs("--", out);
			for (const char *p = a->name; *p; p++)
				fputc(*p == '_' ? '-' : *p, out);
			fputs(a->type == ARG_BOOLEAN ? "" : " ", out);
		}
		put_value(out, a);
		fputs(a->required ? "" : "]", out);
	}
	fclose(out);
	return text;
}

static json_t *discover_method(const struct method_info *info)
{
	json_t *params = json_array();

	for (const struct method_arg *a = info->args; a->name; a++)
		json_array_append_new(params, json_pack("{s:s,s:s,s:b,s:s}", "name", a->name,
							"type", arg_type_name(a->type), "required",
							a->required, "help", a->help));
	return json_pack("{s:s,s:s,s:s,s:s,s:o}", "name", info->rpc, "text", info->text, "level",
			 method_level_name(info->level), "help", info->help, "params", params);
}

json_t *proto_discover(void)
{
	json_t *list = json_array(), *errs = json_array();

	for (size_t m = 0; m < METHOD__COUNT; m++)
		json_array_append_new(list, discover_method(&methods[m]));
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		json_array_append_new(errs,
				      json_pack("{s:i,s:s,s:s,s:i}", "code", (int)errors[i].code,
						"name", errors[i].name, "help", errors[i].help,
						"exit", errors[i].exit));
	return json_pack("{s:i,s:o,s:o}", "protocol", PROTOCOL_VERSION, "methods", list, "errors",
			 errs);
}
