/* SPDX-License-Identifier: Apache-2.0 */
/* Results as text for people: which columns a list has, how a value is written, and whole answers in
 * plain aligned text.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/method.h"

enum { CELL_MAX = 1024 };

enum cell_format {
	CELL_PLAIN, /* text and numbers as they are */
	CELL_STATE, /* fin_wait_2 as FIN-WAIT-2 */
	CELL_BYTES, /* 12.3M */
	CELL_TIME, /* a duration: 1.20s */
	CELL_INSTANT, /* 2026-01-31 12:00:00.123, local time */
	CELL_OFFSET, /* an instant, as time since the first row's: +0.000123 */
	CELL_FLAG, /* yes, no */
	CELL_PORTS, /* port_min and port_max as 7 or 61000-65535 */
	CELL_BACKENDS, /* each with its connections, and whether it is down: 10.0.0.1:80 (3), unix:/run/x (0, down) */
};

struct proto_column {
	const char *key; /* of the row's object; also the heading in csv and tsv */
	const char *heading;
	enum cell_format format;
	bool right; /* aligned to the right */
};

/* How a method's result is a list: result[array] holds the rows. */
struct proto_view {
	const char *array;
	const struct proto_column *columns; /* of tables */
	size_t columns_n;
	const struct proto_column *raw; /* of csv and tsv: every key */
	size_t raw_n;
};

/* NULL: the method's result is no list. Ended connections have columns of their own: the first row
 * of `result` (NULL: none) tells. */
const struct proto_view *proto_view(enum method m, const json_t *result);
/* A cell for people ("-" for null). `first` is the first row, for CELL_OFFSET. Returns buf. */
const char *proto_cell(const struct proto_column *col, const json_t *row, const json_t *first,
		       char buf[static CELL_MAX]);
/* A cell for programs: the value as it is, empty for null. Returns buf. */
const char *proto_cell_raw(const struct proto_column *col, const json_t *row,
			   char buf[static CELL_MAX]);

/* Each returns buf. */
const char *proto_format_bytes(uint64_t bytes,
			       char buf[static 32]); /* 999, 1.2k, 34.5M: powers of 1000 */
const char *proto_format_time(uint64_t us,
			      char buf[static 32]); /* 250us, 1.20ms, 3.50s, 2m05s, 3h10m, 2d04h */
const char *proto_format_instant(uint64_t us, char buf[static 32]);

/* A whole result as text, without an empty line in it and with a newline at its end. malloc'ed; NULL:
 * no memory. Octets below 32 are written as ? whatever the daemon was told to list. */
char *proto_render(enum method m, const json_t *result);
/* The daemon's answer to a text command: what the above gives, or "error: ...", ended by an empty line. */
char *proto_text_result(enum method m, const json_t *result);
char *proto_text_error(const struct proto_err *err);
