/* SPDX-License-Identifier: Apache-2.0 */
/* The database, as its one writer sees it: opened, checked, migrated, written, pruned. SCHEMA.md
 * describes the tables. One thread uses a store; each call takes the time it is.
 */
#pragma once
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/errmsg.h"
#include "record/batch.h"
#include "record/kinds.h"
#include "record/row.h"

enum {
	STORE_APPLICATION_ID = 0x74637066, /* "tcpf" */
	STORE_SCHEMA = 2, /* user_version */
	STORE_BATCH_MAX = BATCH_MAX, /* rows of a transaction */
	STORE_PRUNE_MAX = 250, /* connections that one step of pruning removes */
};

struct store {
	const char *path; /* borrowed */
	sqlite3 *db; /* NULL: not open */
	sqlite3_stmt *put_connections, *put_histories, *seen;
	void (*between)(void *arg); /* see struct batch; the caller's to set */
	void *arg;
	void (*converting)(const char *path, int from_version,
			   uint64_t bytes); /* the caller's; may be NULL */
	struct batch batch; /* what is written now */
	struct kinds kinds;
	dev_t dev;
	ino_t ino; /* of the file that is open: it may be replaced under us */
	int64_t page_bytes; /* of this database */
	int64_t run; /* this run's id */
	uint64_t next_id; /* as found at store_open() */
};

/* Says what is wrong with the directory, which SQLite would only call "unable to open". */
int store_check_directory(const char *path, struct errmsg *ret_err);
/* Opens or makes it; Nothing is open after a failure. */
int store_open(struct store *s, const char *path, uint64_t now_us, struct errmsg *ret_err);
/* now_us 0: this run did not end, another store_open() follows. */
void store_close(struct store *s, uint64_t now_us);
/* Is the file that is open still the one by that name? */
bool store_is_current(const struct store *s);
/* One transaction: all n rows (at most STORE_BATCH_MAX) or none. */
int store_write(struct store *s, const struct row *rows, size_t n, uint64_t now_us,
		struct errmsg *ret_err);
/* One step of pruning: removes ended connections that are older than retain_us, or the oldest while the
 * database holds more than retain_bytes. *ret_more: there is more to remove.
 */
int store_prune(struct store *s, uint64_t retain_us, uint64_t retain_bytes, uint64_t now_us,
		bool *ret_more, struct errmsg *ret_err);
/* Notes that this run lives: a run that dies without a word is taken to have lived until then. */
int store_heartbeat(struct store *s, uint64_t now_us, struct errmsg *ret_err);
/* Size of the file by its pages. */
uint64_t store_bytes(struct store *s);

/* Only looks: for queries and for tests. */
int store_open_reader(const char *path, sqlite3 **ret_db, struct errmsg *ret_err);
/* Fills ret_err with "PATH: what SQLite says" and gives its errno for the code. */
int store_error(sqlite3 *db, const char *path, int code, struct errmsg *ret_err);
