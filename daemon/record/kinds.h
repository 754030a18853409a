/* SPDX-License-Identifier: Apache-2.0 */
/* Kinds of transitions: table transition_kind, and what is known of it. Connections come and go in a few ways only, so what
 * a transition says is written once, and each that is like it has its number.
 */
#pragma once
#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "record/row.h"

/* KINDS_MAX: remembered at a time; a busy server has less than a hundred. */
enum { KINDS_BITS = 11, KINDS_MAX = (1 << KINDS_BITS) / 2 };

struct kind {
	uint64_t key; /* of its values, never 0; 0: free */
	int64_t id;
};

struct kinds {
	sqlite3_stmt *find, *put;
	struct kind slots[1 << KINDS_BITS]; /* open addressing */
	size_t n;
};

/* An SQLite code. Nothing is prepared after a failure but what kinds_close() takes back. */
int kinds_open(struct kinds *k, sqlite3 *db);
void kinds_close(struct kinds *k);
/* The number of what the row says; written to the table, within the caller's transaction, when it is new. An SQLite code. */
int kinds_id(struct kinds *k, const struct record_transition *row, int64_t *ret_id);
/* What was found may not be there any more: a transaction was rolled back. */
void kinds_forget(struct kinds *k);
