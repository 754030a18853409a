/* SPDX-License-Identifier: Apache-2.0 */
/* A batch of rows, as tables that SQLite reads: https://www.sqlite.org/vtab.html. One INSERT ... SELECT then
 * writes all of them. A statement for each row costs two thirds more: binding, stepping and resetting
 * it is most of what SQLite does for so small a row.
 */
#pragma once
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "record/row.h"

enum { BATCH_STEP = 16 }; /* rows: some 25 us of work */

/* What the tables batch_connection and batch_transition hold now. All borrowed; must not change while a
 * statement reads them.
 */
struct batch {
	void (*between)(void *arg); /* called after every BATCH_STEP rows; may be NULL */
	void *arg; /* for it */
	const struct row *rows;
	const bool *skip; /* of each row: it is left out */
	size_t rows_n;
	int64_t run;
	int64_t first_n; /* transitions are numbered from here */
};

/* Makes the two tables known to db, with the columns of row.h. *b must live as long as db is open. An SQLite
 * code.
 */
int batch_register(sqlite3 *db, struct batch *b);
