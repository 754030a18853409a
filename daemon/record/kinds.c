/* SPDX-License-Identifier: Apache-2.0 */
#include "record/kinds.h"

#include <stdbool.h>
#include <string.h>

#include "base/macros.h"

#define WORDS "from_state, to_state, cause, detail, rule"

int kinds_open(struct kinds *k, sqlite3 *db)
{
	static const char find[] = "SELECT id FROM transition_kind WHERE (" WORDS
				   ") = (?1, ?2, ?3, ?4, ?5)",
			  put[] = "INSERT INTO transition_kind(" WORDS
				  ") VALUES(?1, ?2, ?3, ?4, ?5) RETURNING id";
	int code;

	kinds_forget(k);
	code = sqlite3_prepare_v3(db, find, -1, SQLITE_PREPARE_PERSISTENT, &k->find, NULL);
	return code == SQLITE_OK
		       ? sqlite3_prepare_v3(db, put, -1, SQLITE_PREPARE_PERSISTENT, &k->put, NULL)
		       : code;
}

void kinds_close(struct kinds *k)
{
	(void)sqlite3_finalize(k->find);
	(void)sqlite3_finalize(k->put);
	k->find = k->put = NULL;
}

void kinds_forget(struct kinds *k)
{
	memset(k->slots, 0, sizeof(k->slots));
	k->n = 0;
}

/* The id that a statement gives for this row; *ret_found: it gives one. */
static int ask(sqlite3_stmt *s, const struct record_transition *row, int64_t *ret_id,
	       bool *ret_found)
{
	char cause[CAUSE_TEXT];
	int code = row_bind_kind(s, row, cause);

	*ret_found = false;
	if (code != SQLITE_OK)
		return code;
	*ret_found = sqlite3_step(s) == SQLITE_ROW;
	if (*ret_found)
		*ret_id = sqlite3_column_int64(s, 0);
	code = sqlite3_reset(s);
	(void)sqlite3_clear_bindings(s); /* cause goes */
	return code;
}

/* All values in one number: the enums are small, and detail is at most a timer or eight control bits. */
static uint64_t key_of(const struct record_transition *row)
{
	_Static_assert(ST__COUNT < 16 && CAUSE__COUNT < 16 && RULE__COUNT < 4096, "their places");
	return (uint64_t)row->detail << 32 | 1U << 28 | (unsigned)row->rule << 12 |
	       (unsigned)row->cause << 8 | (unsigned)row->from << 4 | (unsigned)row->to;
}

static WRAPS size_t hash_of(uint64_t key)
{
	return (size_t)(key * 0x9e3779b97f4a7c15 >> (64 - KINDS_BITS));
}

static struct kind *slot_of(struct kinds *k, uint64_t key)
{
	size_t at = hash_of(key);

	while (k->slots[at].key && k->slots[at].key != key)
		at = (at + 1) % ARRAY_SIZE(k->slots);
	return &k->slots[at];
}

int kinds_id(struct kinds *k, const struct record_transition *row, int64_t *ret_id)
{
	const uint64_t key = key_of(row);
	struct kind *slot = slot_of(k, key);
	int code = SQLITE_OK;
	bool found;

	if (!slot->key) {
		if (k->n == KINDS_MAX) {
			kinds_forget(k);
			slot = slot_of(k, key);
		}
		code = ask(k->find, row, &slot->id, &found);
		if (code == SQLITE_OK && !found)
			code = ask(k->put, row, &slot->id, &found);
		if (code != SQLITE_OK)
			return code;
		slot->key = key;
		k->n++;
	}
	*ret_id = slot->id;
	return code;
}
