/* SPDX-License-Identifier: Apache-2.0 */
/* Filters over connections: ss's grammar, as PROTOCOL.md has it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/method.h"

enum { FILTER_NODES_MAX = 256, FILTER_DEPTH_MAX = 64, FILTER_TEXT_MAX = 256 };

/* The keys of a CONNECTION: fields.def is the one list. */
enum proto_field {
#define FIELD(e, key, kind, place, heading, help) FIELD_##e,
#include "proto/fields.def"
#undef FIELD
	FIELD__COUNT,
};

enum field_kind {
	KIND_COUNT, /* a number; filters take it with k M G */
	KIND_BYTES, /* and KiB MiB GiB */
	KIND_TIME, /* a duration in microseconds: us ms s m h d */
	KIND_INSTANT, /* microseconds since 1970 */
	KIND_ENDPOINT,
	KIND_STATE,
	KIND_WORD, /* text that filters compare */
	KIND_TEXT, /* text, not for filters */
	KIND_FLAG, /* true or false, not for filters */
};

enum field_place { PLACE_ROW, PLACE_DETAIL }; /* in CONNECTION itself, or in its "detail" */

struct field_info {
	const char *key;
	enum field_kind kind;
	enum field_place place;
	const char *heading; /* "Recv-Q" */
	const char *help;
};

const struct field_info *field_get(enum proto_field f);

/* A connection, as a filter sees it. */
struct filter_row {
	uint8_t local[16], remote[16]; /* network order; IPv4 as ::ffff:a.b.c.d */
	uint16_t local_port, remote_port; /* host order */
	const char *state; /* any spelling: fin_wait_2, FIN-WAIT-2; NULL matches no state */
	void *arg; /* for the two below */
	/* False: there is no value; every comparison with it is false. */
	bool (*get_number)(void *arg, enum proto_field f, uint64_t *ret_value);
	/* service, interface, direction, end_reason, closed_by, last_state; NULL: there is none, which
	 * is equal to no word. Holds until the next call. */
	const char *(*get_text)(void *arg, enum proto_field f);
};

struct filter;

/* 0 and a filter to free, or -EINVAL with PROTO_INVALID_PARAMS, the position, the word, and what was
 * expected there. An empty text is a filter that everything matches. */
int filter_parse(const char *text, struct filter **ret_filter, struct proto_err *ret_err);
/* Const and without a lock: any number of threads may match one filter. NULL matches everything. */
bool filter_match(const struct filter *f, const struct filter_row *row);
void filter_free(struct filter *f);

/* "10k", "1.5MiB", "30s" to a number, by the units of `kind` (COUNT, BYTES, TIME, INSTANT). 0 or -EINVAL. */
int proto_parse_number(const char *text, enum field_kind kind, uint64_t *ret_value,
		       struct proto_err *ret_err);
