/* SPDX-License-Identifier: Apache-2.0 */
/* The record: connections and transitions in SQLite. SCHEMA.md describes the tables.
 *
 * Workers hand in rows; one writer thread batches them into transactions. Nothing here makes TCP
 * wait: when the writer cannot keep up, or the disk is full, rows are dropped and counted. A second
 * thread answers queries on a read-only connection.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/errmsg.h"
#include "tcp/trace.h"

struct record;

/* The version of the tables, PRAGMA user_version; SCHEMA.md describes it. */
enum { RECORD_SCHEMA = 2 };

enum record_what {
	RECORD_NOTHING,
	RECORD_CONNECTIONS,
	RECORD_TRANSITIONS, /* and connections: the default */
};

struct record_config {
	const char *path; /* absolute */
	enum record_what what;
	uint64_t retain_us; /* rows older than this go; 0: no limit */
	uint64_t retain_bytes; /* database size above which the oldest go; 0: no limit */
	uint32_t queue_max; /* rows waiting for the writer; 0: 65536 */
	/* Called by record_open() before it converts an older file, which takes a second for each 60 MB. May be NULL. */
	void (*converting)(const char *path, int from_version, uint64_t bytes);
};

/* One connection: written when it is created (end_us 0), and again when it has ended. Times are
 * CLOCK_REALTIME microseconds. */
struct record_connection {
	uint64_t id; /* serial: unique for ever in one database */
	struct flow flow;
	bool passive;
	char service[32]; /* "echo"; empty for none */
	char interface[16]; /* by which the first segment came or went */
	uint64_t start_us, opened_us, end_us; /* 0: not yet */
	enum end_reason reason;
	enum closed_by closed_by;
	enum tcp_state last_state; /* the state before CLOSED */
	uint64_t bytes_in, bytes_out, segments_in, segments_out;
	uint64_t retransmitted_segments, retransmitted_bytes;
	uint32_t srtt_us, rttvar_us, rttmin_us;
	uint32_t snd_mss, rcv_mss;
	uint32_t pid; /* exec: the process; 0 when none */
	int32_t exit_status; /* exec: status, or -signal; INT32_MIN when none or not ended */
	uint64_t run_us; /* exec: the process's life */
};

struct record_transition {
	uint64_t connection;
	uint64_t at_us; /* CLOCK_REALTIME */
	enum tcp_state from, to;
	enum cause cause;
	unsigned detail; /* see trace.h */
	enum rule rule;
	uint32_t seq, ack; /* of the segment, with CAUSE_SEGMENT */
};

struct record_counters {
	/* A row is written or dropped (the queue was full), in the end. An opening that was written
	 * together with its ending counts as written. errors: attempts to write that failed. */
	uint64_t rows_written, rows_dropped, batches, errors;
	uint32_t queue; /* rows waiting now */
	uint64_t database_bytes;
	char last_error[256]; /* of the last attempt to write; empty when that went well */
};

/* Opens or makes the database, migrates it forward, marks what an earlier run left open as
 * END_DAEMON_LOST, starts the threads. Errors, each with a message that says what to do: corrupt,
 * locked by another tcpfsmd, newer schema, not ours (application_id), directory missing or read-only.
 * A database that fails later does not stop anything: see record_counters().
 */
int record_open(const struct record_config *cfg, struct record **ret_record,
		struct errmsg *ret_err);
/* One more than the highest connection id in the database: engine_config.serial_first. */
uint64_t record_next_id(const struct record *r);
/* Writes what waits (at most wait_us long), then closes. NULL is nothing. */
void record_close(struct record *r, uint64_t wait_us);

/* Any thread; never block; NULL record does nothing. */
void record_connection_put(struct record *r, const struct record_connection *row);
void record_transition_put(struct record *r, const struct record_transition *row);
void record_counters(struct record *r, struct record_counters *ret_counters);

/* A query, answered on the record's reader thread. match may be NULL; it runs on that thread.
 * Only what waits in the queue at the time of the call is written first, so a client that saw its
 * connection end finds it. */
struct record_query {
	bool transitions; /* of connection `id`; else closed connections, newest first */
	uint64_t id; /* not 0 for connections: just this one, open or closed */
	uint64_t before_id; /* not 0: only ids below it (paging) */
	uint32_t limit; /* rows at most; 1..10000 */
	bool (*match)(void *arg, const struct record_connection *row);
	/* Called once, on the reader thread; rows are its own to free(). rc 0 or -Exxx with err. */
	void (*done)(struct record_query *q);
	void *arg; /* the caller's */
	int rc;
	struct errmsg err;
	struct record_connection *connections;
	struct record_transition *transition_rows;
	size_t rows_n;
	bool more; /* the limit cut it */
};

/* q stays the caller's and must live until done(). -EAGAIN: too many queries wait. -ENOTSUP: no
 * record is kept. */
int record_query(struct record *r, struct record_query *q);
