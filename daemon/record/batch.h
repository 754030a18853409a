/* SPDX-License-Identifier: Apache-2.0 */
/* A batch of rows, as tables that SQLite reads: https://www.sqlite.org/vtab.html. One INSERT ... SELECT then
 * writes all of them. A statement for each row costs two thirds more: binding, stepping and resetting
 * it is most of what SQLite does for so small a row.
 *
 * What one connection has in a batch becomes one row of each table: of several rows of a connection the last, which
 * knows most; and its transitions together, as one text. A row for each transition would cost more than
 * all the rest.
 */
#pragma once
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "record/row.h"

enum {
	BATCH_MAX = 8000, /* rows */
	BATCH_STEP = 8, /* rows given to SQLite: some 25 us of work */
	HISTORY_MAX = 16, /* transitions of one row; more become several */
};

/* What the tables batch_connection and batch_history hold now. Must not change while a statement reads
 * them.
 */
struct batch {
	void (*between)(void *arg); /* called after every BATCH_STEP rows; may be NULL */
	void *arg; /* for it */
	const struct row *rows; /* borrowed */
	int64_t run;
	/* Places in rows: of connections; of the first transition of each history. */
	uint16_t connections[BATCH_MAX], histories[BATCH_MAX];
	size_t connections_n, histories_n;
	/* Of transitions, by place. */
	uint16_t next[BATCH_MAX]; /* the next of its history; 0: none */
	int64_t kinds[BATCH_MAX]; /* the caller's to fill in */
};

/* Makes the two tables known to db: batch_connection with the columns of row.h, and
 * batch_history(connection, transitions). *b must live as long as db is open. An SQLite code.
 */
int batch_register(sqlite3 *db, struct batch *b);
/* The tables hold these now; n at most BATCH_MAX. batch_clear(): nothing. */
void batch_fill(struct batch *b, const struct row *rows, size_t n);
void batch_clear(struct batch *b);
