/* SPDX-License-Identifier: Apache-2.0 */
#include "record/batch.h"

#include <stdlib.h>

struct table {
	sqlite3_vtab base; /* SQLite's; comes first */
	const struct batch *batch;
	bool transitions;
};

struct cursor {
	sqlite3_vtab_cursor base; /* SQLite's; comes first */
	size_t at;
	int64_t n; /* of the transition at `at` */
	unsigned given; /* rows */
	struct row_texts texts;
};

static const char transition_table[] = "CREATE TABLE batch_transition(" TRANSITION_COLUMNS ")";
static const char connection_table[] = "CREATE TABLE batch_connection(" CONNECTION_COLUMNS ")";

static const struct table *table_of(const struct cursor *c)
{
	return (const struct table *)c->base.pVtab;
}

static int make_table(sqlite3 *db, const struct batch *b, bool transitions, sqlite3_vtab **ret)
{
	const int code = sqlite3_declare_vtab(db,
					      transitions ? transition_table : connection_table);
	struct table *t;

	if (code != SQLITE_OK)
		return code;
	t = calloc(1, sizeof(*t));
	if (!t)
		return SQLITE_NOMEM;
	t->batch = b;
	t->transitions = transitions;
	*ret = &t->base;
	return SQLITE_OK;
}

static int connect_connections(sqlite3 *db, void *aux, int argc, const char *const *argv,
			       sqlite3_vtab **ret, char **err)
{
	return make_table(db, aux, false, ret);
}

static int connect_transitions(sqlite3 *db, void *aux, int argc, const char *const *argv,
			       sqlite3_vtab **ret, char **err)
{
	return make_table(db, aux, true, ret);
}

static int disconnect(sqlite3_vtab *t)
{
	free(t);
	return SQLITE_OK;
}

/* There is one way to read it: all, in order. */
static int best_index(sqlite3_vtab *t, sqlite3_index_info *info)
{
	return SQLITE_OK;
}

static int open_cursor(sqlite3_vtab *t, sqlite3_vtab_cursor **ret)
{
	struct cursor *c = calloc(1, sizeof(*c));

	if (!c)
		return SQLITE_NOMEM;
	*ret = &c->base;
	return SQLITE_OK;
}

static int close_cursor(sqlite3_vtab_cursor *base)
{
	free(base);
	return SQLITE_OK;
}

/* To the next row of this kind, `at` included. */
static void settle(struct cursor *c)
{
	const struct table *t = table_of(c);
	const struct batch *b = t->batch;

	while (c->at < b->rows_n &&
	       (b->skip[c->at] || b->rows[c->at].is_transition != t->transitions))
		c->at++;
}

static int filter(sqlite3_vtab_cursor *base, int index, const char *text, int argc,
		  sqlite3_value **argv)
{
	struct cursor *c = (struct cursor *)base;

	c->at = 0;
	c->n = table_of(c)->batch->first_n;
	settle(c);
	return SQLITE_OK;
}

static int next(sqlite3_vtab_cursor *base)
{
	struct cursor *c = (struct cursor *)base;
	const struct batch *b = table_of(c)->batch;

	c->at++;
	c->n++;
	if (++c->given % BATCH_STEP == 0 && b->between)
		b->between(b->arg);
	settle(c);
	return SQLITE_OK;
}

static int eof(sqlite3_vtab_cursor *base)
{
	const struct cursor *c = (const struct cursor *)base;

	return c->at >= table_of(c)->batch->rows_n;
}

static int column(sqlite3_vtab_cursor *base, sqlite3_context *to, int i)
{
	struct cursor *c = (struct cursor *)base;
	const struct batch *b = table_of(c)->batch;
	const struct row *row = &b->rows[c->at];

	if (row->is_transition)
		row_give_transition(to, i, &row->transition, c->n, &c->texts);
	else
		row_give_connection(to, i, &row->connection, b->run, &c->texts);
	return SQLITE_OK;
}

static int rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *ret_id)
{
	*ret_id = (sqlite3_int64)((const struct cursor *)base)->at;
	return SQLITE_OK;
}

#define METHODS                                                                                   \
	.xBestIndex = best_index, .xDisconnect = disconnect, .xOpen = open_cursor,                \
	.xClose = close_cursor, .xFilter = filter, .xNext = next, .xEof = eof, .xColumn = column, \
	.xRowid = rowid

int batch_register(sqlite3 *db, struct batch *b)
{
	/* Without xCreate they are there by their names, and nobody can make others. */
	static const sqlite3_module connections = { .xConnect = connect_connections, METHODS },
				    transitions = { .xConnect = connect_transitions, METHODS };
	const int code = sqlite3_create_module(db, "batch_connection", &connections, b);

	return code == SQLITE_OK ? sqlite3_create_module(db, "batch_transition", &transitions, b)
				 : code;
}
