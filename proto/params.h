/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments of a method: from the words of a text command, and checked from wherever they come. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/method.h"

enum { PROTO_WORDS_MAX = 1024 };

/* A text command ("list connections state established --limit 5") to a method and its params, which
 * are checked; *ret_params is a new reference. 0, or -EINVAL with a message that names the wrong word
 * and what was possible. Words may be quoted by ' or "; a backslash takes the next octet as it is.
 */
int proto_parse_text(const char *line, enum method *ret_method, json_t **ret_params,
		     struct proto_err *ret_err);
/* The same for words that a shell has split already. A word "--" ends the options. */
int proto_parse_words(size_t n, const char *const *words, enum method *ret_method,
		      json_t **ret_params, struct proto_err *ret_err);

/* Checks a params object against the table: unknown keys, missing ones, types, ranges, syntax of
 * endpoints, prefixes, durations and filters. Also brings them into their one form: a null goes away,
 * DURATION becomes integer microseconds, OPTIONS an object whose values are strings. 0, or -EINVAL with
 * PROTO_INVALID_PARAMS and the parameter's name.
 */
int proto_check_params(enum method m, json_t *params, struct proto_err *ret_err);

/* Of checked params: the value, or what stands for an absent one. The text is borrowed. */
const char *proto_param_text(const json_t *params, const char *name, const char *absent);
uint64_t proto_param_number(const json_t *params, const char *name, uint64_t absent);
bool proto_param_true(const json_t *params, const char *name);
