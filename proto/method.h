/* SPDX-License-Identifier: Apache-2.0 */
/* The table of methods, as methods.def has it: what each is called in JSON and in text, who may call
 * it, which arguments it takes; and the errors with which a call can end.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum method {
#define METHOD(e, rpc, text, level, help) METHOD_##e,
#define ARG(m, name, type, need, help)
#include "proto/methods.def"
#undef METHOD
#undef ARG
	METHOD__COUNT,
};

/* Each includes those before it. */
enum method_level { LEVEL_OBSERVE, LEVEL_OPERATE, LEVEL_ADMIN };

/* In JSON: ENDPOINT, PREFIX, FILTER, SERVICE and STRING are strings; INTEGER is 0..2^53-1; DURATION an
 * integer of microseconds ("30s" in text commands, and accepted in JSON); OPTIONS an object of
 * KEY: string ("KEY=VALUE,..." in text commands, and accepted in JSON); VALUE a string, or an integer
 * or a boolean that stands for its text.
 */
enum arg_type {
	ARG_STRING,
	ARG_INTEGER,
	ARG_BOOLEAN,
	ARG_ENDPOINT,
	ARG_PREFIX,
	ARG_DURATION,
	ARG_FILTER,
	ARG_SERVICE,
	ARG_OPTIONS,
	ARG_VALUE,
};

struct method_arg {
	const char *name; /* NULL ends a list */
	enum arg_type type;
	bool required;
	const char *help;
};

struct method_info {
	enum method method;
	const char *rpc; /* "list.connections" */
	const char *text; /* "list connections" */
	enum method_level level;
	const char *help;
	const struct method_arg *args; /* in the order of methods.def; ends with name NULL */
};

/* The error table of PROTOCOL.md. */
enum proto_error {
	PROTO_OK = 0,
	PROTO_PARSE_ERROR = -32700,
	PROTO_INVALID_REQUEST = -32600,
	PROTO_METHOD_NOT_FOUND = -32601,
	PROTO_INVALID_PARAMS = -32602,
	PROTO_INTERNAL_ERROR = -32603,
	PROTO_REFUSED = -32000,
	PROTO_NOT_FOUND = -32001,
	PROTO_PERMISSION_DENIED = -32002,
	PROTO_BUSY = -32003,
	PROTO_TIMED_OUT = -32004,
	PROTO_TOO_LARGE = -32005,
	PROTO_NO_RECORD = -32006,
};

/* What a call failed with: filled in where the error happened, for a person and a program. */
struct proto_err {
	enum proto_error code;
	char text[1024];
};

/* Fills *ret_err (which may be NULL) and returns -EINVAL, so that `return proto_fail(err, ...)` reads. */
__attribute__((format(printf, 3, 4))) int proto_fail(struct proto_err *ret_err,
						     enum proto_error code, const char *fmt, ...);
/* "not_found". "internal_error" for a code that the table does not have. */
const char *proto_error_name(enum proto_error code);
/* tcpfsmctl's exit code for it: 1, 2, 4, 5 or 6. */
int proto_error_exit(enum proto_error code);

/* m below METHOD__COUNT; never NULL. */
const struct method_info *method_get(enum method m);
const char *method_level_name(enum method_level level); /* "observe" */
const char *arg_type_name(enum arg_type type); /* "integer" */
const struct method_arg *method_arg_find(const struct method_info *info, const char *name);

/* By "list.connections". 0, or -EINVAL with PROTO_METHOD_NOT_FOUND and the nearest name. */
int method_by_rpc(const char *name, enum method *ret_method, struct proto_err *ret_err);
/* By the first words of a command: the longest text command that they begin with. *ret_used words
 * belong to it. 0, or -EINVAL with PROTO_METHOD_NOT_FOUND, the wrong word, and what was possible. */
int method_by_words(size_t n, const char *const *words, enum method *ret_method, size_t *ret_used,
		    struct proto_err *ret_err);
/* Among n candidates the one nearest to `word` by edit distance, or NULL when none is near. */
const char *proto_nearest(const char *word, size_t n, const char *const *candidates);

/* "listen ADDRESS SERVICE [--name NAME] ...". malloc'ed. */
char *method_usage(enum method m);
/* The result of rpc.discover: {"protocol":1,"methods":[{name,text,level,help,params:[...]}],"errors":[...]}. */
json_t *proto_discover(void);
