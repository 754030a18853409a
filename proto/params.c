/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of a method: from the words of a text command, and checked from wherever they come. */
#include "proto/params.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/filter.h"
#include "proto/message.h"

enum { ARGS_MAX = 16 };

/* How a text command's option names its argument: --max-processes is max_processes. */
static void option_to_name(const char *option, size_t len, char buf[static 64])
{
	if (len > 63)
		len = 63;
	for (size_t i = 0; i < len; i++)
		buf[i] = option[i] == '-' ? '_' : option[i];
	buf[len] = '\0';
}

static void name_to_option(const char *name, char buf[static 64])
{
	size_t i = 0;

	for (; name[i] && i < 63; i++)
		buf[i] = name[i] == '_' ? '-' : name[i];
	buf[i] = '\0';
}

/* "filter, closed, limit", with a prefix before each. */
static void list_args(const struct method_info *info, const char *prefix, char *buf, size_t size)
{
	size_t len = 0;

	snprintf(buf, size, "none");
	for (const struct method_arg *a = info->args; a->name && len < size; a++) {
		char option[64];

		name_to_option(a->name, option);
		len += (size_t)snprintf(buf + len, size - len, "%s%s%s",
					a == info->args ? "" : ", ", prefix,
					*prefix ? option : a->name);
	}
}

/* prefix "--": as words of a text command; "": as keys of params. */
static int fail_unknown(const struct method_info *info, const char *name, const char *shown,
			const char *prefix, struct proto_err *ret_err)
{
	const char *names[ARGS_MAX], *nearest;
	char possible[512], option[64];
	size_t n = 0;

	for (const struct method_arg *a = info->args; a->name && n < ARGS_MAX; a++)
		names[n++] = a->name;
	nearest = proto_nearest(name, n, names);
	list_args(info, prefix, possible, sizeof(possible));
	if (nearest)
		name_to_option(nearest, option);
	return proto_fail(
		ret_err, PROTO_INVALID_PARAMS, "%s: \"%.64s\": no such %s; %s%s%s%spossible: %s",
		*prefix ? info->text : info->rpc, shown, *prefix ? "option" : "parameter",
		nearest ? "did you mean \"" : "", nearest ? prefix : "",
		nearest ? (*prefix ? option : nearest) : "", nearest ? "\"? " : "", possible);
}

static bool digits_only(const char *s)
{
	return *s && s[strspn(s, "0123456789")] == '\0';
}

/* 0..max, decimal. */
static bool parse_integer(const char *text, uint64_t max, uint64_t *ret_value)
{
	uint64_t v = 0;

	if (!digits_only(text))
		return false;
	for (; *text; text++) {
		const uint64_t digit = (uint64_t)(*text - '0');

		if (v > (max - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*ret_value = v;
	return true;
}

/* An address, with or without brackets; * and [*] too when any_ok. */
static bool address_ok(const char *s, size_t len, bool any_ok)
{
	char text[INET6_ADDRSTRLEN];
	unsigned char octets[16];
	const bool brackets = len > 2 && s[0] == '[' && s[len - 1] == ']';

	if (brackets) {
		s++;
		len -= 2;
	}
	if (!len || len >= sizeof(text))
		return false;
	memcpy(text, s, len);
	text[len] = '\0';
	if (brackets)
		return (any_ok && !strcmp(text, "*")) || inet_pton(AF_INET6, text, octets) == 1;
	return (any_ok && !strcmp(text, "*")) || inet_pton(AF_INET, text, octets) == 1;
}

static bool endpoint_ok(const char *s)
{
	const char *const colon = strrchr(s, ':');
	uint64_t port;

	return colon && address_ok(s, (size_t)(colon - s), true) &&
	       parse_integer(colon + 1, 65535, &port);
}

static bool prefix_ok(const char *s)
{
	unsigned char octets[16];
	char text[INET6_ADDRSTRLEN];
	const size_t len = strcspn(s, "/");
	uint64_t bits;

	if (len >= sizeof(text))
		return false;
	memcpy(text, s, len);
	text[len] = '\0';
	if (inet_pton(AF_INET, text, octets) == 1)
		return !s[len] || parse_integer(s + len + 1, 32, &bits);
	return inet_pton(AF_INET6, text, octets) == 1 &&
	       (!s[len] || parse_integer(s + len + 1, 128, &bits));
}

/* Where an argument's error happened: "listen: address: ...". */
struct place {
	const struct method_info *info;
	const struct method_arg *arg;
	struct proto_err *ret_err;
};

static int fail_at(const struct place *at, const char *value, const char *expected)
{
	if (value)
		return proto_fail(at->ret_err, PROTO_INVALID_PARAMS,
				  "%s: %s: \"%.200s\": expected %s", at->info->text, at->arg->name,
				  value, expected);
	return proto_fail(at->ret_err, PROTO_INVALID_PARAMS, "%s: %s: expected %s", at->info->text,
			  at->arg->name, expected);
}

/* Adds "KEY=VALUE,KEY=VALUE" to an object. */
static int options_add(const struct place *at, const char *text, json_t *object)
{
	while (*text) {
		const size_t len = strcspn(text, ","), key = strcspn(text, "=");
		json_t *value;

		if (!key || key >= len)
			return fail_at(at, text, "KEY=VALUE,...");
		value = json_stringn(text + key + 1, len - key - 1);
		if (!value)
			return fail_at(at, text, "UTF-8");
		json_object_setn_new(object, text, key, value);
		text += len;
		if (*text == ',' && !*++text)
			return fail_at(at, ",", "KEY=VALUE behind the comma");
	}
	return 0;
}

/* A value of an OPTIONS object as the configuration would have it. NULL: it cannot be one. */
static json_t *option_value(const json_t *v)
{
	char text[32];

	if (json_is_string(v))
		return json_string(json_string_value(v));
	if (json_is_boolean(v))
		return json_string(json_is_true(v) ? "yes" : "no");
	if (!json_is_integer(v))
		return NULL;
	snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	return json_string(text);
}

static int check_options(const struct place *at, json_t *v, json_t **ret_new)
{
	json_t *const object = json_object(), *member;
	const char *key;
	int rc = 0;

	if (json_is_string(v))
		rc = options_add(at, json_string_value(v), object);
	else if (!json_is_object(v))
		rc = fail_at(at, NULL, "an object of KEY: VALUE");
	else
		json_object_foreach(v, key, member)
		{
			json_t *const text = option_value(member);

			if (!text) {
				rc = fail_at(at, key,
					     "a string, an integer or a boolean as its value");
				break;
			}
			json_object_set_new(object, key, text);
		}
	if (rc)
		json_decref(object);
	else
		*ret_new = object;
	return rc;
}

static int check_filter(const struct place *at, const char *text)
{
	struct filter *f;
	struct proto_err why;

	if (filter_parse(text, &f, &why))
		return proto_fail(at->ret_err, why.code, "%s: %s", at->info->text, why.text);
	filter_free(f);
	return 0;
}

static int check_text(const struct place *at, const char *text)
{
	switch (at->arg->type) {
	case ARG_ENDPOINT:
		return endpoint_ok(text) ? 0
					 : fail_at(at, text, "ADDR:PORT, [ADDR]:PORT or *:PORT");
	case ARG_PREFIX:
		return prefix_ok(text) ? 0 : fail_at(at, text, "ADDR or ADDR/LEN");
	case ARG_FILTER:
		return check_filter(at, text);
	case ARG_SERVICE:
	case ARG_STRING:
	case ARG_VALUE:
		return *text ? 0 : fail_at(at, text, "a text that is not empty");
	case ARG_INTEGER:
	case ARG_BOOLEAN:
	case ARG_DURATION:
	case ARG_OPTIONS:
		break;
	}
	return 0;
}

static int check_duration(const struct place *at, json_t *v, json_t **ret_new)
{
	struct proto_err why;
	uint64_t us;

	if (json_is_integer(v) && json_integer_value(v) >= 0 &&
	    (uint64_t)json_integer_value(v) <= PROTO_NUMBER_MAX)
		return 0;
	if (!json_is_string(v) || proto_parse_number(json_string_value(v), KIND_TIME, &us, &why))
		return fail_at(at, json_string_value(v), "a time, as 250ms or 30s");
	*ret_new = json_integer((json_int_t)us);
	return 0;
}

static int check_value(const struct place *at, json_t *v, json_t **ret_new)
{
	json_t *const text = option_value(v);

	if (!text)
		return fail_at(at, NULL, "a string, an integer or a boolean");
	*ret_new = text;
	return check_text(at, json_string_value(text));
}

/* Checks one; *ret_new is what should stand in its place, if it is set. */
static int check_one(const struct place *at, json_t *v, json_t **ret_new)
{
	switch (at->arg->type) {
	case ARG_BOOLEAN:
		return json_is_boolean(v) ? 0 : fail_at(at, NULL, "true or false");
	case ARG_INTEGER:
		if (!json_is_integer(v))
			return fail_at(at, json_string_value(v), "an integer");
		if (json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > PROTO_NUMBER_MAX)
			return fail_at(at, NULL, "an integer from 0 to 2^53-1");
		return 0;
	case ARG_DURATION:
		return check_duration(at, v, ret_new);
	case ARG_OPTIONS:
		return check_options(at, v, ret_new);
	case ARG_VALUE:
		return check_value(at, v, ret_new);
	case ARG_STRING:
	case ARG_ENDPOINT:
	case ARG_PREFIX:
	case ARG_FILTER:
	case ARG_SERVICE:
		if (!json_is_string(v))
			return fail_at(at, NULL, "a string");
		return check_text(at, json_string_value(v));
	}
	return 0;
}

int proto_check_params(enum method m, json_t *params, struct proto_err *ret_err)
{
	const struct method_info *const info = method_get(m);
	const char *key;
	json_t *value;
	void *next;

	json_object_foreach_safe(
		params, next, key,
		value) if (!method_arg_find(info, key)) return fail_unknown(info, key, key, "",
									    ret_err);
	for (const struct method_arg *a = info->args; a->name; a++) {
		const struct place at = { info, a, ret_err };
		json_t *const v = json_object_get(params, a->name), *better = NULL;

		if (!v || json_is_null(v)) {
			json_object_del(params, a->name);
			if (a->required)
				return proto_fail(ret_err, PROTO_INVALID_PARAMS,
						  "%s: %s is missing (%s)", info->text, a->name,
						  a->help);
			continue;
		}
		if (check_one(&at, v, &better)) {
			json_decref(better);
			return -EINVAL;
		}
		if (better)
			json_object_set_new(params, a->name, better);
	}
	return 0;
}

const char *proto_param_text(const json_t *params, const char *name, const char *absent)
{
	const char *const text = json_string_value(json_object_get(params, name));

	return text ? text : absent;
}

uint64_t proto_param_number(const json_t *params, const char *name, uint64_t absent)
{
	const json_t *const v = json_object_get(params, name);

	return json_is_integer(v) ? (uint64_t)json_integer_value(v) : absent;
}

bool proto_param_true(const json_t *params, const char *name)
{
	return json_is_true(json_object_get(params, name));
}

/* A text command while it is taken apart. Words are borrowed. */
struct command {
	const char *plain[PROTO_WORDS_MAX];
	size_t plain_n;
	struct {
		const char *word; /* "--limit=5" */
		size_t name_len; /* behind "--" */
		const char *value; /* NULL: none */
	} options[64];
	size_t options_n;
	const struct method_info *info;
	json_t *params;
	struct proto_err *ret_err;
};

/* Whether --name goes with a value must be known before the method is: the same name is of the same
 * type with all methods, which a test checks. An unknown one has none; it is refused later. */
static bool option_has_value(const char *name)
{
	for (size_t m = 0; m < METHOD__COUNT; m++) {
		const struct method_arg *const a = method_arg_find(method_get((enum method)m),
								   name);

		if (a)
			return a->type != ARG_BOOLEAN;
	}
	return false;
}

/* words[*i] begins with "--". */
static int take_option(struct command *c, size_t n, const char *const *words, size_t *i)
{
	const char *const word = words[*i], *const equals = strchr(word, '=');
	const size_t len = equals ? (size_t)(equals - word) - 2 : strlen(word) - 2;
	const char *value = equals ? equals + 1 : NULL;
	char name[64];

	if (c->options_n == sizeof(c->options) / sizeof(c->options[0]))
		return proto_fail(c->ret_err, PROTO_INVALID_PARAMS, "too many options");
	option_to_name(word + 2, len, name);
	if (!value && option_has_value(name)) {
		if (*i + 1 == n || !strncmp(words[*i + 1], "--", 2))
			return proto_fail(c->ret_err, PROTO_INVALID_PARAMS,
					  "%.64s: a value is missing behind it", word);
		value = words[++*i];
	}
	c->options[c->options_n].word = word;
	c->options[c->options_n].name_len = len;
	c->options[c->options_n++].value = value;
	return 0;
}

/* Parts options from plain words. */
static int sort_words(struct command *c, size_t n, const char *const *words)
{
	bool options = true;

	if (n > PROTO_WORDS_MAX)
		return proto_fail(c->ret_err, PROTO_INVALID_PARAMS, "more than %d words",
				  PROTO_WORDS_MAX);
	for (size_t i = 0; i < n; i++) {
		if (options && !strcmp(words[i], "--")) {
			options = false;
		} else if (options && !strncmp(words[i], "--", 2)) {
			if (take_option(c, n, words, &i))
				return -EINVAL;
		} else if (options && words[i][0] == '-' && words[i][1]) {
			return proto_fail(c->ret_err, PROTO_INVALID_PARAMS,
					  "\"%.64s\": no such option (quote it together with the "
					  "word it belongs to)",
					  words[i]);
		} else {
			c->plain[c->plain_n++] = words[i];
		}
	}
	return 0;
}

/* The JSON value of a word, by type; what is wrong with it is found by proto_check_params(). */
static int set_value(struct command *c, const struct method_arg *a, const char *text)
{
	const struct place at = { c->info, a, c->ret_err };
	json_t *value = NULL;
	uint64_t number;

	if (a->type == ARG_INTEGER) {
		if (!parse_integer(text, PROTO_NUMBER_MAX, &number))
			return fail_at(&at, text, "an integer from 0 to 2^53-1");
		value = proto_number(number);
	} else if (a->type == ARG_BOOLEAN) {
		const bool yes = !strcmp(text, "yes") || !strcmp(text, "true") ||
				 !strcmp(text, "on");

		if (!yes && strcmp(text, "no") && strcmp(text, "false") && strcmp(text, "off"))
			return fail_at(&at, text, "yes or no");
		value = json_boolean(yes);
	} else {
		value = json_string(text);
		if (!value)
			return fail_at(&at, NULL, "UTF-8");
	}
	json_object_set_new(c->params, a->name, value);
	return 0;
}

static int set_options(struct command *c)
{
	for (size_t i = 0; i < c->options_n; i++) {
		const struct method_arg *a;
		const char *value = c->options[i].value;
		char name[64];

		option_to_name(c->options[i].word + 2, c->options[i].name_len, name);
		a = method_arg_find(c->info, name);
		if (!a)
			return fail_unknown(c->info, name, c->options[i].word, "--", c->ret_err);
		if (json_object_get(c->params, a->name))
			return proto_fail(c->ret_err, PROTO_INVALID_PARAMS,
					  "%s: --%.*s stands twice", c->info->text,
					  (int)c->options[i].name_len, c->options[i].word + 2);
		if (!value)
			value = "yes";
		if (set_value(c, a, value))
			return -EINVAL;
	}
	return 0;
}

/* The filter is what remains: its words with a blank between. */
static int set_filter(struct command *c, const struct method_arg *a, size_t from)
{
	size_t size = 1;
	char *text;
	int rc;

	for (size_t i = from; i < c->plain_n; i++)
		size += strlen(c->plain[i]) + 1;
	text = malloc(size);
	if (!text)
		return proto_fail(c->ret_err, PROTO_INTERNAL_ERROR, "out of memory");
	size = 0;
	for (size_t i = from; i < c->plain_n; i++) {
		const size_t len = strlen(c->plain[i]);

		memcpy(text + size, c->plain[i], len);
		size += len;
		text[size++] = ' ';
	}
	text[size - 1] = '\0';
	rc = set_value(c, a, text);
	free(text);
	return rc;
}

static int set_plain(struct command *c, size_t from)
{
	for (const struct method_arg *a = c->info->args; a->name && from < c->plain_n; a++) {
		if (json_object_get(c->params, a->name))
			continue;
		if (a->type == ARG_FILTER) {
			const size_t start = from;

			from = c->plain_n;
			if (set_filter(c, a, start))
				return -EINVAL;
		} else if (a->required && set_value(c, a, c->plain[from++])) {
			return -EINVAL;
		}
	}
	if (from < c->plain_n) {
		char *const usage = method_usage(c->info->method);

		proto_fail(c->ret_err, PROTO_INVALID_PARAMS,
			   "%s: \"%.64s\": nothing more was expected; usage: %s", c->info->text,
			   c->plain[from], usage ? usage : "?");
		free(usage);
		return -EINVAL;
	}
	return 0;
}

static int command_parse(struct command *c, size_t n, const char *const *words,
			 enum method *ret_method)
{
	size_t used;
	enum method m;

	if (sort_words(c, n, words) || method_by_words(c->plain_n, c->plain, &m, &used, c->ret_err))
		return -EINVAL;
	c->info = method_get(m);
	if (set_options(c) || set_plain(c, used) || proto_check_params(m, c->params, c->ret_err))
		return -EINVAL;
	*ret_method = m;
	return 0;
}

int proto_parse_words(size_t n, const char *const *words, enum method *ret_method,
		      json_t **ret_params, struct proto_err *ret_err)
{
	struct command c = { .params = json_object(), .ret_err = ret_err };

	if (!c.params)
		return proto_fail(ret_err, PROTO_INTERNAL_ERROR, "out of memory");
	if (command_parse(&c, n, words, ret_method)) {
		json_decref(c.params);
		return -EINVAL;
	}
	*ret_params = c.params;
	return 0;
}

/* One word from *p on, to *out, without its quotes. 0; or -EINVAL: a quote has no end. */
static int cut_word(const char **p, char **out, struct proto_err *ret_err)
{
	const char *s = *p;
	char quote = '\0';

	while (*s && (quote || !strchr(" \t", *s))) {
		if (*s == '\\' && s[1] && quote != '\'') {
			s++;
			*(*out)++ = *s++;
		} else if (quote ? *s == quote : *s == '"' || *s == '\'') {
			quote = quote ? '\0' : *s;
			s++;
		} else {
			*(*out)++ = *s++;
		}
	}
	if (quote)
		return proto_fail(ret_err, PROTO_INVALID_PARAMS, "%.64s: the quote %c has no end",
				  *p, quote);
	*(*out)++ = '\0';
	*p = s;
	return 0;
}

int proto_parse_text(const char *line, enum method *ret_method, json_t **ret_params,
		     struct proto_err *ret_err)
{
	const char *words[PROTO_WORDS_MAX];
	char *const copy = malloc(strlen(line) + 2), *out = copy;
	size_t n = 0;
	int rc = 0;

	if (!copy)
		return proto_fail(ret_err, PROTO_INTERNAL_ERROR, "out of memory");
	for (line += strspn(line, " \t"); *line && !rc; line += strspn(line, " \t")) {
		if (n == PROTO_WORDS_MAX) {
			rc = proto_fail(ret_err, PROTO_INVALID_PARAMS, "more than %d words",
					PROTO_WORDS_MAX);
			break;
		}
		words[n++] = out;
		rc = cut_word(&line, &out, ret_err);
	}
	if (!rc)
		rc = proto_parse_words(n, words, ret_method, ret_params, ret_err);
	free(copy);
	return rc;
}
