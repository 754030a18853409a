/* SPDX-License-Identifier: Apache-2.0 */
#include "record/batch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct table {
	sqlite3_vtab base; /* SQLite's; comes first */
	const struct batch *batch;
	bool histories;
};

struct cursor {
	sqlite3_vtab_cursor base; /* SQLite's; comes first */
	const uint16_t *places; /* in batch->rows */
	size_t at, n; /* in places */
	struct row_texts texts;
	char history[HISTORY_MAX * (TRANSITION_TEXT + 1) + 1];
};

static const char history_table[] = "CREATE TABLE batch_history(connection, transitions)";
static const char connection_table[] = "CREATE TABLE batch_connection(" CONNECTION_COLUMNS ")";

static const struct table *table_of(const struct cursor *c)
{
	return (const struct table *)c->base.pVtab;
}

static int make_table(sqlite3 *db, const struct batch *b, bool histories, sqlite3_vtab **ret)
{
	const int code = sqlite3_declare_vtab(db, histories ? history_table : connection_table);
	struct table *t;

	if (code != SQLITE_OK)
		return code;
	t = calloc(1, sizeof(*t));
	if (!t)
		return SQLITE_NOMEM;
	t->batch = b;
	t->histories = histories;
	*ret = &t->base;
	return SQLITE_OK;
}

static int connect_connections(sqlite3 *db, void *aux, int argc, const char *const *argv,
			       sqlite3_vtab **ret, char **err)
{
	return make_table(db, aux, false, ret);
}

static int connect_histories(sqlite3 *db, void *aux, int argc, const char *const *argv,
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
	struct cursor *c = malloc(sizeof(*c));

	if (!c)
		return SQLITE_NOMEM;
	c->base = (sqlite3_vtab_cursor){ 0 };
	*ret = &c->base;
	return SQLITE_OK;
}

static int close_cursor(sqlite3_vtab_cursor *base)
{
	free(base);
	return SQLITE_OK;
}

static int filter(sqlite3_vtab_cursor *base, int index, const char *text, int argc,
		  sqlite3_value **argv)
{
	struct cursor *c = (struct cursor *)base;
	const struct table *t = table_of(c);

	c->places = t->histories ? t->batch->histories : t->batch->connections;
	c->n = t->histories ? t->batch->histories_n : t->batch->connections_n;
	c->at = 0;
	return SQLITE_OK;
}

static int next(sqlite3_vtab_cursor *base)
{
	struct cursor *c = (struct cursor *)base;
	const struct batch *b = table_of(c)->batch;

	if (++c->at % BATCH_STEP == 0 && b->between)
		b->between(b->arg);
	return SQLITE_OK;
}

static int eof(sqlite3_vtab_cursor *base)
{
	const struct cursor *c = (const struct cursor *)base;

	return c->at >= c->n;
}

/* The transitions from `place` on, as a JSON array of arrays. Returns how many octets. */
static size_t write_history(struct cursor *c, size_t place)
{
	const struct batch *b = table_of(c)->batch;
	char *p = c->history;

	*p++ = '[';
	for (;;) {
		p += row_write_transition(&b->rows[place].transition, b->kinds[place], p);
		place = b->next[place];
		if (!place)
			break;
		*p++ = ',';
	}
	*p++ = ']';
	return (size_t)(p - c->history);
}

static int column(sqlite3_vtab_cursor *base, sqlite3_context *to, int i)
{
	struct cursor *c = (struct cursor *)base;
	const struct batch *b = table_of(c)->batch;
	const size_t place = c->places[c->at];

	if (!table_of(c)->histories)
		row_give_connection(to, i, &b->rows[place].connection, b->run, &c->texts);
	else if (i == 0)
		sqlite3_result_int64(to, (int64_t)b->rows[place].transition.connection);
	else
		sqlite3_result_text(to, c->history, (int)write_history(c, place), SQLITE_STATIC);
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
				    histories = { .xConnect = connect_histories, METHODS };
	const int code = sqlite3_create_module(db, "batch_connection", &connections, b);

	return code == SQLITE_OK ? sqlite3_create_module(db, "batch_history", &histories, b) : code;
}

/* The place in a batch of a row of each connection, found by its id: open addressing. */
enum { SLOTS = 16384 };
_Static_assert(SLOTS >= 2 * BATCH_MAX, "a probe ends");

struct places {
	uint16_t slot[SLOTS]; /* place + 1; 0: free */
};

static uint64_t connection_of(const struct row *row)
{
	return row->is_transition ? row->transition.connection : row->connection.id;
}

/* The slot of this connection: 0 in it when the connection is new. */
static uint16_t *find(struct places *p, const struct row *rows, uint64_t id)
{
	size_t at = (size_t)(id % SLOTS);

	while (p->slot[at] && connection_of(&rows[p->slot[at] - 1]) != id)
		at = (at + 1) % SLOTS;
	return &p->slot[at];
}

struct key {
	uint64_t connection;
	uint16_t place;
};

static int compare_keys(const void *a, const void *b)
{
	const struct key *x = a, *y = b;

	if (x->connection != y->connection)
		return x->connection < y->connection ? -1 : 1;
	return (int)x->place - (int)y->place;
}

/* By connection. Whatever comes behind all that a table has is appended, to a page that is full in the end; what comes
 * before its last row makes SQLite share out the rows of three pages, again and again.
 */
static void sort(uint16_t *places, size_t n, const struct row *rows)
{
	struct key keys[BATCH_MAX];

	for (size_t i = 0; i < n; i++)
		keys[i] = (struct key){ connection_of(&rows[places[i]]), places[i] };
	qsort(keys, n, sizeof(keys[0]), compare_keys);
	for (size_t i = 0; i < n; i++)
		places[i] = keys[i].place;
}

/* The last row of each connection. */
static void fill_connections(struct batch *b, size_t n)
{
	struct places places = { { 0 } };

	b->connections_n = 0;
	for (size_t i = n; i-- > 0;) {
		uint16_t *slot;

		if (b->rows[i].is_transition)
			continue;
		slot = find(&places, b->rows, b->rows[i].connection.id);
		if (*slot)
			continue;
		*slot = (uint16_t)(i + 1);
		b->connections[b->connections_n++] = (uint16_t)i;
	}
	sort(b->connections, b->connections_n, b->rows);
}

static void fill_histories(struct batch *b, size_t n)
{
	struct places last = { { 0 } };
	uint8_t length[BATCH_MAX]; /* of a history, up to this transition */

	b->histories_n = 0;
	for (size_t i = 0; i < n; i++) {
		uint16_t *slot;

		if (!b->rows[i].is_transition)
			continue;
		slot = find(&last, b->rows, b->rows[i].transition.connection);
		b->next[i] = 0;
		if (*slot && length[*slot - 1] < HISTORY_MAX) {
			b->next[*slot - 1] = (uint16_t)i;
			length[i] = length[*slot - 1] + 1;
		} else {
			b->histories[b->histories_n++] = (uint16_t)i;
			length[i] = 1;
		}
		*slot = (uint16_t)(i + 1);
	}
	sort(b->histories, b->histories_n, b->rows);
}

void batch_fill(struct batch *b, const struct row *rows, size_t n)
{
	assert(n <= BATCH_MAX);
	b->rows = rows;
	fill_connections(b, n);
	fill_histories(b, n);
}

void batch_clear(struct batch *b)
{
	b->rows = NULL;
	b->connections_n = b->histories_n = 0;
}
