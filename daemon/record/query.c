/* SPDX-License-Identifier: Apache-2.0 */
#include "record/query.h"

#include <errno.h>
#include <stdlib.h>

#include "record/row.h"
#include "record/store.h"

static const char one_sql[] = "SELECT " CONNECTION_COLUMNS " FROM connection WHERE id = ?1";
static const char ended_sql[] = "SELECT " CONNECTION_COLUMNS " FROM connection"
				" WHERE end_us IS NOT NULL AND id < ?1 ORDER BY id DESC";
static const char transitions_sql[] = "SELECT " TRANSITION_COLUMNS " FROM transition"
				      " WHERE connection = ?1 ORDER BY n";

static sqlite3_stmt *prepare(sqlite3 *db, const struct record_query *q, int *ret_code)
{
	const char *const sql = q->transitions ? transitions_sql : q->id ? one_sql : ended_sql;
	const uint64_t arg = q->transitions || q->id ? q->id
			     : q->before_id          ? q->before_id
						     : INT64_MAX;
	sqlite3_stmt *s = NULL;

	*ret_code = sqlite3_prepare_v2(db, sql, -1, &s, NULL);
	if (*ret_code == SQLITE_OK)
		(void)sqlite3_bind_int64(s, 1, arg > INT64_MAX ? INT64_MAX : (int64_t)arg);
	return s;
}

/* Room for one row more, up to the limit. */
static int grow(struct record_query *q, size_t *room)
{
	const size_t more = *room ? *room * 2 : 16;
	void *rows;

	if (q->rows_n < *room)
		return 0;
	rows = q->transitions ? reallocarray(q->transition_rows, more, sizeof(*q->transition_rows))
			      : reallocarray(q->connections, more, sizeof(*q->connections));
	if (!rows)
		return errmsg(&q->err, -ENOMEM, "the record: out of memory");
	if (q->transitions)
		q->transition_rows = rows;
	else
		q->connections = rows;
	*room = more;
	return 0;
}

/* Takes the row the statement stands on, when it matches. */
static int take(struct record_query *q, sqlite3_stmt *s, size_t *room)
{
	struct record_connection row;
	int rc;

	if (!q->transitions) {
		row_read_connection(s, &row);
		if (q->match && !q->match(q->arg, &row))
			return 0;
	}
	if (q->rows_n == q->limit) {
		q->more = true;
		return 0;
	}
	rc = grow(q, room);
	if (rc)
		return rc;
	if (q->transitions)
		row_read_transition(s, &q->transition_rows[q->rows_n++]);
	else
		q->connections[q->rows_n++] = row;
	return 0;
}

void query_run(sqlite3 *db, const char *path, struct record_query *q)
{
	int code;
	sqlite3_stmt *s = prepare(db, q, &code);
	size_t room = 0;

	q->rc = 0;
	while (code == SQLITE_OK || code == SQLITE_ROW) {
		code = sqlite3_step(s);
		if (code == SQLITE_ROW)
			q->rc = take(q, s, &room);
		if (q->rc || q->more)
			break;
	}
	if (q->rc == 0 && code != SQLITE_DONE && code != SQLITE_ROW)
		q->rc = store_error(db, path, code, &q->err);
	(void)sqlite3_finalize(s);
	if (q->rc) {
		free(q->connections);
		free(q->transition_rows);
		q->connections = NULL;
		q->transition_rows = NULL;
		q->rows_n = 0;
		q->more = false;
	}
}
