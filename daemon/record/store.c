/* SPDX-License-Identifier: Apache-2.0 */
#include "record/store.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"
#include "record/schema.h"

enum {
	BUSY_OPEN_MS = 2000, /* how long another program may hold the database when we start */
	BUSY_WRITE_MS = 250, /* ... and later, when rows can wait */
	CHECK_BYTES_MAX =
		64 << 20, /* larger files are not read through at start: it would take seconds */
	WAL_BYTES_MAX = 64 << 20, /* what the WAL is cut to after a checkpoint */
	/* Of the WAL, between checkpoints: pages that are written again and again, as those of the
	 * indexes are, go to the database once for all of them. */
	CHECKPOINT_BYTES = 32 << 20,
	VACUUM_BYTES = 1 << 20, /* free pages given back to the file system in a step */
	PAGE_BYTES =
		16384, /* of a new database: a row costs a sixth less than with SQLite's 4096 */
};

static int errno_of(int code)
{
	switch (code & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EBADMSG;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_CANTOPEN:
	case SQLITE_PERM:
		return -EACCES;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_INTERRUPT:
		return -ECANCELED;
	default:
		return -EIO;
	}
}

int store_error(sqlite3 *db, const char *path, int code, struct errmsg *ret_err)
{
	int rc = errno_of(code);

	/* The shared memory file of the WAL fails in another way than the others. */
	if (rc == -EIO && sqlite3_system_errno(db) == ENOSPC)
		rc = -ENOSPC;
	switch (rc) {
	case -EBADMSG:
		return errmsg(ret_err, rc,
			      "%s: %s: the database is damaged or is none; move it away, and a new "
			      "one is made",
			      path, sqlite3_errmsg(db));
	case -EBUSY:
		return errmsg(ret_err, rc, "%s: another program keeps the database locked", path);
	case -ENOSPC:
		return errmsg(ret_err, rc, "%s: the disk is full", path);
	default:
		return errmsg(ret_err, rc, "%s: %s", path, sqlite3_errmsg(db));
	}
}

static int run_sql(sqlite3 *db, const char *path, const char *sql, struct errmsg *ret_err)
{
	const int code = sqlite3_exec(db, sql, NULL, NULL, NULL);

	return code == SQLITE_OK ? 0 : store_error(db, path, code, ret_err);
}

/* The first column of the first row, 0 when there is none. */
static int query_number(sqlite3 *db, const char *path, const char *sql, int64_t *ret_n,
			struct errmsg *ret_err)
{
	sqlite3_stmt *q = NULL;
	int code = sqlite3_prepare_v2(db, sql, -1, &q, NULL);
	int64_t n = 0;

	if (code == SQLITE_OK) {
		code = sqlite3_step(q);
		if (code == SQLITE_ROW)
			n = sqlite3_column_int64(q, 0);
		code = code == SQLITE_ROW || code == SQLITE_DONE ? SQLITE_OK : code;
	}
	if (code != SQLITE_OK) {
		const int rc = store_error(db, path, code, ret_err);

		(void)sqlite3_finalize(q);
		return rc;
	}
	(void)sqlite3_finalize(q);
	*ret_n = n;
	return 0;
}

static int64_t pragma_number(struct store *s, const char *sql)
{
	int64_t n = 0;

	return query_number(s->db, s->path, sql, &n, NULL) ? 0 : n;
}

uint64_t store_bytes(struct store *s)
{
	return (uint64_t)(pragma_number(s, "PRAGMA page_count") *
			  pragma_number(s, "PRAGMA page_size"));
}

int store_check_directory(const char *path, struct errmsg *ret_err)
{
	char copy[PATH_MAX];
	const char *dir;
	struct stat st;
	int rc;

	if (strlen(path) >= sizeof(copy))
		return errmsg(ret_err, -ENAMETOOLONG, "%s: the name is too long", path);
	memcpy(copy, path, strlen(path) + 1);
	dir = dirname(copy);
	if (stat(dir, &st)) {
		rc = -errno;
		return errmsg(ret_err, rc,
			      "%s: directory %s: %s; make it, or choose another [Storage] Database",
			      path, dir, strerror(-rc));
	}
	if (!S_ISDIR(st.st_mode))
		return errmsg(ret_err, -ENOTDIR,
			      "%s: %s is not a directory; choose another [Storage] Database", path,
			      dir);
	return 0;
}

/* Makes the file when there is none, not readable by everybody: it tells who talked to whom. */
static int make_file(const char *path, struct errmsg *ret_err)
{
	struct stat st;
	int rc = store_check_directory(path, ret_err);
	int fd;

	if (rc)
		return rc;
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return errmsg(ret_err, -EINVAL, "%s: it is no regular file", path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
	if (fd < 0) {
		rc = -errno;
		return errmsg(ret_err, rc, "%s: cannot be opened for writing: %s", path,
			      strerror(-rc));
	}
	(void)close(fd);
	return 0;
}

/* Refuses what is not ours before anything is written to it. */
static int check_identity(const struct store *s, int64_t *ret_version, struct errmsg *ret_err)
{
	int64_t application = 0, version = 0, tables = 0;
	int rc = query_number(s->db, s->path, "PRAGMA application_id", &application, ret_err);

	if (rc == 0)
		rc = query_number(s->db, s->path, "PRAGMA user_version", &version, ret_err);
	if (rc == 0)
		rc = query_number(s->db, s->path, "SELECT count(*) FROM sqlite_schema", &tables,
				  ret_err);
	if (rc)
		return rc;
	if (application != STORE_APPLICATION_ID &&
	    (application != 0 || version != 0 || tables != 0))
		return errmsg(ret_err, -EEXIST,
			      "%s: it is a database of another program; choose another [Storage] "
			      "Database",
			      s->path);
	if (version < 0 || version > STORE_SCHEMA)
		return errmsg(ret_err, -ENOTSUP,
			      "%s: its schema is version %lld, written by a newer tcpfsmd; this "
			      "one knows %d; move it away, or choose another [Storage] Database",
			      s->path, (long long)version, STORE_SCHEMA);
	*ret_version = version;
	return 0;
}

/* Reads a database through that is small enough for it. */
static int check_sound(const struct store *s, struct errmsg *ret_err)
{
	sqlite3_stmt *q = NULL;
	struct stat st;
	int code, rc = 0;

	if (stat(s->path, &st) || st.st_size > CHECK_BYTES_MAX)
		return 0;
	code = sqlite3_prepare_v2(s->db, "PRAGMA quick_check(1)", -1, &q, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_step(q);
	if (code != SQLITE_ROW)
		rc = store_error(s->db, s->path, code, ret_err);
	else if (strcmp((const char *)sqlite3_column_text(q, 0), "ok") != 0)
		rc = errmsg(
			ret_err, -EBADMSG,
			"%s: %.200s: the database is damaged; move it away, and a new one is made",
			s->path, (const char *)sqlite3_column_text(q, 0));
	(void)sqlite3_finalize(q);
	return rc;
}

static int migrate(struct store *s, int64_t from, struct errmsg *ret_err)
{
	char sql[128];
	int rc = 0;

	if (from > 0 && from < STORE_SCHEMA && s->converting)
		s->converting(s->path, (int)from, store_bytes(s));
	for (int64_t v = from; rc == 0 && v < STORE_SCHEMA; v++)
		rc = run_sql(s->db, s->path, migrations[v], ret_err);
	(void)snprintf(sql, sizeof(sql), "PRAGMA application_id=%d; PRAGMA user_version=%d",
		       STORE_APPLICATION_ID, STORE_SCHEMA);
	return rc ? rc : run_sql(s->db, s->path, sql, ret_err);
}

static int put_word(sqlite3_stmt *q, const char *key, const char *text)
{
	(void)sqlite3_bind_text(q, 1, key, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text(q, 2, text, -1, SQLITE_STATIC);
	(void)sqlite3_step(q);
	return sqlite3_reset(q);
}

/* The words for rules and reasons, for people who read the database without us. */
static int put_words(const struct store *s, struct errmsg *ret_err)
{
	sqlite3_stmt *rules = NULL, *ends = NULL;
	int code = sqlite3_prepare_v2(s->db, "INSERT OR REPLACE INTO rule VALUES(?,?)", -1, &rules,
				      NULL);

	if (code == SQLITE_OK)
		code = sqlite3_prepare_v2(s->db, "INSERT OR REPLACE INTO end_reason VALUES(?,?)",
					  -1, &ends, NULL);
	for (int i = 0; code == SQLITE_OK && i < RULE__COUNT; i++)
		code = put_word(rules, rule_key((enum rule)i), rule_text((enum rule)i));
	for (int i = 0; code == SQLITE_OK && i < END__COUNT; i++)
		code = put_word(ends, end_reason_key((enum end_reason)i),
				end_reason_text((enum end_reason)i));
	(void)sqlite3_finalize(rules);
	(void)sqlite3_finalize(ends);
	return code == SQLITE_OK ? 0 : store_error(s->db, s->path, code, ret_err);
}

/* Connections that an earlier run left open ended when that run was last seen, at the latest. */
static const char leftovers[] =
	"UPDATE connection SET end_reason = 'daemon_lost', closed_by = 'nobody',"
	" end_us = max(start_us, coalesce((SELECT seen_us FROM run WHERE run.id = connection.run), "
	"0)),"
	" last_state = (SELECT to_state FROM history JOIN transition_kind AS k"
	"  ON k.id = iif(json_valid(transitions), transitions ->> '$[#-1][1]', NULL)"
	"  WHERE connection = connection.id)"
	" WHERE end_us IS NULL";

static int begin_run(struct store *s, uint64_t now_us, struct errmsg *ret_err)
{
	char sql[256];
	int64_t id = 0;
	int rc = run_sql(s->db, s->path, leftovers, ret_err);

	(void)snprintf(
		sql, sizeof(sql),
		"INSERT INTO run(start_us, seen_us, version, pid) VALUES(%lld, %lld, '%s', %d)",
		(long long)now_us, (long long)now_us, TCPFSM_VERSION, (int)getpid());
	if (rc == 0)
		rc = put_words(s, ret_err);
	if (rc == 0)
		rc = run_sql(s->db, s->path, sql, ret_err);
	s->run = sqlite3_last_insert_rowid(s->db);
	if (rc == 0)
		rc = query_number(s->db, s->path,
				  "SELECT max(coalesce((SELECT max(id) FROM connection), 0),"
				  " coalesce((SELECT max(connection) FROM history), 0))",
				  &id, ret_err);
	s->next_id = (uint64_t)id + 1;
	return rc;
}

static int prepare(struct store *s, sqlite3_stmt **ret_stmt, const char *sql,
		   struct errmsg *ret_err)
{
	const int code = sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret_stmt,
					    NULL);

	return code == SQLITE_OK ? 0 : store_error(s->db, s->path, code, ret_err);
}

static int prepare_all(struct store *s, struct errmsg *ret_err)
{
	const int code = batch_register(s->db, &s->batch);
	int rc = code == SQLITE_OK ? 0 : store_error(s->db, s->path, code, ret_err);

	if (rc == 0)
		rc = prepare(s, &s->put_connections,
			     "INSERT OR REPLACE INTO connection(" CONNECTION_COLUMNS
			     ") SELECT " CONNECTION_COLUMNS " FROM batch_connection",
			     ret_err);

	if (rc == 0)
		rc = prepare(s, &s->put_histories,
			     "INSERT INTO history(connection, transitions)"
			     " SELECT connection, transitions FROM batch_history WHERE true"
			     " ON CONFLICT DO UPDATE SET transitions ="
			     " substr(transitions, 1, length(transitions) - 1) || ',' ||"
			     " substr(excluded.transitions, 2)",
			     ret_err);
	if (rc == 0 && kinds_open(&s->kinds, s->db) != SQLITE_OK)
		rc = store_error(s->db, s->path, sqlite3_errcode(s->db), ret_err);
	if (rc == 0)
		rc = prepare(s, &s->seen, "UPDATE run SET seen_us = ?1 WHERE id = ?2", ret_err);
	return rc;
}

static int set_up(struct store *s, uint64_t now_us, struct errmsg *ret_err)
{
	char sql[200];
	int64_t version = 0;
	int rc = check_identity(s, &version, ret_err);

	(void)snprintf(sql, sizeof(sql), "PRAGMA page_size=%d; PRAGMA auto_vacuum=INCREMENTAL",
		       PAGE_BYTES);
	/* Has to be said before the first table is made. */
	if (rc == 0 && version == 0)
		rc = run_sql(s->db, s->path, sql, ret_err);
	if (rc == 0)
		rc = query_number(s->db, s->path, "PRAGMA page_size", &s->page_bytes, ret_err);
	if (rc)
		return rc;
	(void)snprintf(
		sql, sizeof(sql),
		"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=OFF;"
		"PRAGMA journal_size_limit=%d; PRAGMA wal_autocheckpoint=%d",
		WAL_BYTES_MAX, (int)(CHECKPOINT_BYTES / s->page_bytes));
	rc = run_sql(s->db, s->path, sql, ret_err);
	if (rc == 0)
		rc = check_sound(s, ret_err);
	if (rc == 0)
		rc = run_sql(s->db, s->path, "BEGIN IMMEDIATE", ret_err);
	if (rc == 0)
		rc = migrate(s, version, ret_err);
	if (rc == 0)
		rc = begin_run(s, now_us, ret_err);
	if (rc == 0)
		rc = run_sql(s->db, s->path, "COMMIT", ret_err);
	return rc ? rc : prepare_all(s, ret_err);
}

static void close_all(struct store *s)
{
	(void)sqlite3_finalize(s->put_connections);
	(void)sqlite3_finalize(s->put_histories);
	(void)sqlite3_finalize(s->seen);
	kinds_close(&s->kinds);
	(void)sqlite3_close(s->db);
	s->put_connections = s->put_histories = s->seen = NULL;
	s->db = NULL;
}

int store_open(struct store *s, const char *path, uint64_t now_us, struct errmsg *ret_err)
{
	struct stat st = { 0 };
	int rc = make_file(path, ret_err);
	int code;

	if (rc)
		return rc;
	s->path = path;
	code = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (code != SQLITE_OK) {
		rc = store_error(s->db, path, code, ret_err);
	} else {
		(void)sqlite3_busy_timeout(s->db, BUSY_OPEN_MS);
		rc = set_up(s, now_us, ret_err);
	}
	if (rc) {
		close_all(s);
		return rc;
	}
	(void)sqlite3_busy_timeout(s->db, BUSY_WRITE_MS);
	(void)stat(path, &st);
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return 0;
}

void store_close(struct store *s, uint64_t now_us)
{
	char sql[128];

	if (!s->db)
		return;
	(void)snprintf(sql, sizeof(sql),
		       "UPDATE run SET seen_us = %lld, end_us = %lld WHERE id = %lld",
		       (long long)now_us, (long long)now_us, (long long)s->run);
	if (now_us)
		(void)sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	close_all(s);
}

bool store_is_current(const struct store *s)
{
	struct stat st;

	return stat(s->path, &st) == 0 && st.st_dev == s->dev && st.st_ino == s->ino;
}

static int run_statement(sqlite3_stmt *q)
{
	(void)sqlite3_step(q);
	return sqlite3_reset(q);
}

static int fill_kinds(struct store *s, size_t n)
{
	struct batch *const b = &s->batch;
	int code = SQLITE_OK;

	for (size_t i = 0; code == SQLITE_OK && i < n; i++)
		if (b->rows[i].is_transition)
			code = kinds_id(&s->kinds, &b->rows[i].transition, &b->kinds[i]);
	return code;
}

static int put_rows(struct store *s, const struct row *rows, size_t n)
{
	int code;

	s->batch.between = s->between;
	s->batch.arg = s->arg;
	s->batch.run = s->run;
	batch_fill(&s->batch, rows, n);
	code = fill_kinds(s, n);
	if (code == SQLITE_OK)
		code = run_statement(s->put_connections);
	if (code == SQLITE_OK)
		code = run_statement(s->put_histories);
	batch_clear(&s->batch);
	return code;
}

static int put_seen(const struct store *s, uint64_t now_us)
{
	(void)sqlite3_bind_int64(s->seen, 1, (int64_t)now_us);
	(void)sqlite3_bind_int64(s->seen, 2, s->run);
	return run_statement(s->seen);
}

/* Ends a transaction: commits when all went well. Failing is reported with what SQLite said first. */
static int end_transaction(struct store *s, int code, struct errmsg *ret_err)
{
	int rc;

	if (code == SQLITE_OK)
		code = sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
	if (code == SQLITE_OK)
		return 0;
	rc = store_error(s->db, s->path, code, ret_err);
	(void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	kinds_forget(&s->kinds);
	return rc;
}

int store_write(struct store *s, const struct row *rows, size_t n, uint64_t now_us,
		struct errmsg *ret_err)
{
	int code = sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

	if (code == SQLITE_OK)
		code = put_rows(s, rows, n);
	if (code == SQLITE_OK)
		code = put_seen(s, now_us);
	return end_transaction(s, code, ret_err);
}

int store_heartbeat(struct store *s, uint64_t now_us, struct errmsg *ret_err)
{
	const int code = put_seen(s, now_us);

	return code == SQLITE_OK ? 0 : store_error(s->db, s->path, code, ret_err);
}

static uint64_t bytes_in_use(struct store *s)
{
	return (uint64_t)((pragma_number(s, "PRAGMA page_count") -
			   pragma_number(s, "PRAGMA freelist_count")) *
			  pragma_number(s, "PRAGMA page_size"));
}

/* The oldest that ended before `before_us`, at most STORE_PRUNE_MAX, are put into temp.doomed. */
static const char choose[] = "CREATE TEMP TABLE IF NOT EXISTS doomed(id INTEGER PRIMARY KEY);"
			     "DELETE FROM temp.doomed;"
			     "INSERT INTO temp.doomed SELECT id FROM connection"
			     " WHERE end_us IS NOT NULL AND end_us < %lld ORDER BY end_us LIMIT %d";
/* Transitions whose connection's row was lost would stay for ever: those older than any connection and
 * than an hour go with the others.
 */
static const char remove_doomed[] =
	"DELETE FROM history WHERE connection IN (SELECT id FROM temp.doomed);"
	"DELETE FROM connection WHERE id IN (SELECT id FROM temp.doomed);"
	"DELETE FROM history WHERE connection < (SELECT min(id) FROM connection)"
	" AND iif(json_valid(transitions), transitions ->> '$[#-1][0]' < %lld, true)";

static int prune_before(struct store *s, int64_t before_us, uint64_t now_us, int *ret_removed,
			struct errmsg *ret_err)
{
	char sql[512];
	int64_t doomed = 0;
	int code = sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

	(void)snprintf(sql, sizeof(sql), choose, (long long)before_us, STORE_PRUNE_MAX);
	if (code == SQLITE_OK)
		code = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	if (code == SQLITE_OK &&
	    query_number(s->db, s->path, "SELECT count(*) FROM temp.doomed", &doomed, ret_err))
		code = SQLITE_ERROR;
	(void)snprintf(sql, sizeof(sql), remove_doomed, (long long)now_us - 3600000000LL);
	if (code == SQLITE_OK && doomed)
		code = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	*ret_removed = (int)doomed;
	return end_transaction(s, code, ret_err);
}

int store_prune(struct store *s, uint64_t retain_us, uint64_t retain_bytes, uint64_t now_us,
		bool *ret_more, struct errmsg *ret_err)
{
	char sql[64];
	int removed = 0, rc = 0;

	if (retain_us && retain_us < now_us)
		rc = prune_before(s, (int64_t)(now_us - retain_us), now_us, &removed, ret_err);
	if (rc == 0 && removed == 0 && retain_bytes && bytes_in_use(s) > retain_bytes)
		rc = prune_before(s, INT64_MAX, now_us, &removed, ret_err);
	(void)snprintf(sql, sizeof(sql), "PRAGMA incremental_vacuum(%d)",
		       (int)(VACUUM_BYTES / s->page_bytes));
	if (rc == 0 && pragma_number(s, "PRAGMA freelist_count") > 0)
		rc = run_sql(s->db, s->path, sql, ret_err);
	if (rc == 0)
		*ret_more = removed == STORE_PRUNE_MAX ||
			    (removed && retain_bytes && bytes_in_use(s) > retain_bytes) ||
			    pragma_number(s, "PRAGMA freelist_count") >
				    VACUUM_BYTES / s->page_bytes;
	return rc;
}

int store_open_reader(const char *path, sqlite3 **ret_db, struct errmsg *ret_err)
{
	sqlite3 *db = NULL;
	const int code = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX,
					 NULL);

	if (code != SQLITE_OK) {
		const int rc = store_error(db, path, code, ret_err);

		(void)sqlite3_close(db);
		return rc;
	}
	(void)sqlite3_busy_timeout(db, BUSY_WRITE_MS);
	*ret_db = db;
	return 0;
}
