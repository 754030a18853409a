/* SPDX-License-Identifier: Apache-2.0 */
/* tcpfsmctl's own options, which may stand anywhere on the line, and the words that are left. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/method.h"

/* How tcpfsmctl exits. Stable. */
enum exit_code {
	EXIT_OK = 0,
	EXIT_REFUSED = 1,
	EXIT_USAGE = 2,
	EXIT_NO_DAEMON = 3,
	EXIT_NOT_FOUND = 4,
	EXIT_PERMISSION = 5,
	EXIT_TIMED_OUT = 6,
	EXIT_VIOLATED = 7, /* an expectation was violated */
	EXIT_EVENTS_LOST = 8,
};

enum output_kind {
	OUTPUT_TABLE,
	OUTPUT_JSON,
	OUTPUT_JSON_SEQ,
	OUTPUT_CSV,
	OUTPUT_TSV,
	OUTPUT__COUNT
};

struct arguments {
	const char *socket; /* NULL: as the environment says */
	enum output_kind output;
	uint64_t timeout_us; /* 0: for ever */
	bool timeout_set;
	bool help, version;
	const char **words; /* what belongs to the command; owned */
	size_t words_n;
};

const char *output_kind_name(enum output_kind kind); /* "json-seq" */

/* Borrows argv's texts. 0, or -EINVAL with the wrong word and what was possible. */
int arguments_parse(int argc, char *const *argv, struct arguments *ret_args,
		    struct proto_err *ret_err);
void arguments_fini(struct arguments *a);
