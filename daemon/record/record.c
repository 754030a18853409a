/* SPDX-License-Identifier: Apache-2.0 */
/* The record's two threads, and what others call. The writer owns the store; the reader has a
 * read-only connection of its own. One mutex guards the queue, the counters and the list of questions;
 * neither thread holds it while it works on the database.
 */
#include "record/record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/signals.h"
#include "record/query.h"
#include "record/queue.h"
#include "record/store.h"

enum {
	QUEUE_DEFAULT = 65536,
	QUERIES_MAX = 64, /* questions that wait */
	BATCH_US = 50000, /* how long a row waits for company, unless half the queue is full */
	PATIENCE_US = 250000, /* how long a batch lets others go first */
	RETRY_US = 2000000, /* after a failure */
	RETRY_STOPPING_US = 100000,
	UPKEEP_BUSY_US = 1000000, /* pruning and heartbeat, while rows come */
	UPKEEP_IDLE_US = 60000000,
};

struct question {
	struct record_query *query;
	uint64_t after; /* answered when so many rows have been written */
};

struct record {
	char path[PATH_MAX];
	struct record_config config; /* path: the one above */
	int lock_fd; /* flock(2) on PATH.lock */
	uint64_t next_id;

	pthread_mutex_t mutex;
	pthread_cond_t rows_came; /* the writer waits */
	pthread_cond_t rows_went; /* the reader waits, for rows it has to see */
	pthread_cond_t asked; /* the reader waits, for questions */
	pthread_t writer, reader;
	bool writer_runs, reader_runs; /* to be joined */

	/* Guarded by mutex. */
	struct queue queue;
	uint64_t accepted, written; /* rows, ever; accepted - written are in the queue */
	uint64_t wanted; /* write at once until `written` is this */
	bool insist; /* and although the last attempt failed a moment ago */
	uint64_t failures; /* attempts to write that failed, ever */
	bool failing; /* the last one did */
	atomic_bool stopping; /* set with the mutex held; make_way() reads it without */
	atomic_uint waiting; /* queue.n, for make_way() */
	uint64_t stop_at_us; /* when to give up what is still in the queue */
	struct record_counters counters;
	struct question questions[QUERIES_MAX];
	size_t questions_first, questions_n;
	uint64_t generation; /* of the file: another one when the store was opened again */
	atomic_bool interrupt; /* a question that runs ends with -ECANCELED */

	/* The writer's own; all times are monotonic. */
	struct store store;
	uint64_t batch_at_us, retry_at_us, upkeep_at_us, upkept_at_us;
	uint64_t batch_began_us;
	unsigned steps; /* of BATCH_STEP rows, ever */

	/* The reader's own. */
	sqlite3 *reader_db;
	uint64_t reader_generation;
};

/* With the mutex held, when queue.n has changed. */
static void note_waiting(struct record *r)
{
	atomic_store_explicit(&r->waiting, (unsigned)r->queue.n, memory_order_relaxed);
}

static void wait_until(struct record *r, pthread_cond_t *cond, uint64_t at_us)
{
	const struct timespec ts = { (time_t)(at_us / 1000000), (long)(at_us % 1000000) * 1000 };

	(void)pthread_cond_timedwait(cond, &r->mutex, &ts);
}

/* Rows that do not wait for their time. */
static size_t enough_rows(const struct record *r)
{
	return r->queue.size > 1 ? r->queue.size / 2 : 1;
}

/* When rows are to be written next. These are called with the mutex held. */
static uint64_t write_due(const struct record *r, uint64_t now_us)
{
	const bool hurry = r->stopping || r->wanted > r->written || r->queue.n >= enough_rows(r);

	if (r->queue.n == 0)
		return UINT64_MAX;
	if (r->failing && !r->insist)
		return r->retry_at_us;
	return hurry ? now_us : r->batch_at_us;
}

static uint64_t upkeep_due(const struct record *r)
{
	/* Rows come first: when they cannot be written, nothing else can. */
	return r->stopping || (r->failing && r->queue.n > 0) ? UINT64_MAX : r->upkeep_at_us;
}

/* Waits until there is work. False: it is over. */
static bool writer_wait(struct record *r)
{
	for (;;) {
		const uint64_t now_us = clock_monotonic_us();
		uint64_t due;

		if (r->stopping && (r->queue.n == 0 || now_us >= r->stop_at_us))
			return false;
		if (r->queue.n > 0 && r->batch_at_us == 0)
			r->batch_at_us = now_us + BATCH_US;
		due = write_due(r, now_us);
		if (upkeep_due(r) < due)
			due = upkeep_due(r);
		if (due <= now_us) {
			/* All that are there, in as many transactions. */
			if (r->queue.n > 0 && r->batch_at_us <= now_us)
				r->wanted = r->accepted;
			return true;
		}
		wait_until(r, &r->rows_came,
			   r->stopping && due > r->stop_at_us ? r->stop_at_us : due);
	}
}

/* Opens the store again when it is closed, or when somebody removed or replaced its file. */
static int writer_ready(struct record *r, struct errmsg *ret_err)
{
	int rc;

	if (r->store.db && store_is_current(&r->store))
		return 0;
	store_close(&r->store, 0);
	rc = store_open(&r->store, r->path, clock_realtime_us(), ret_err);
	if (rc == 0) {
		(void)pthread_mutex_lock(&r->mutex);
		r->generation++;
		(void)pthread_mutex_unlock(&r->mutex);
	}
	return rc;
}

/* The writer works in bursts of 10 ms and more. If it has to share a core with a worker, or with a peer on this machine, that
 * one would stand still for a tick of the scheduler, 4 ms, and all its connections with it. So after every few rows the writer
 * lets others go first. Where nobody waits for the core that is a short system call. The fuller the queue, the longer the
 * writer's turns; when rows could be lost, or have waited long enough, it works on.
 */
static unsigned steps_of_turn(const struct record *r)
{
	/* By how many eighths of the queue are taken. 0: no turns. */
	static const uint8_t steps[] = { 1, 1, 1, 1, 4, 16, 0, 0, 0 };
	const bool late = clock_monotonic_us() - r->batch_began_us > PATIENCE_US;

	const size_t eighths = (size_t)atomic_load_explicit(&r->waiting, memory_order_relaxed) * 8 /
			       r->queue.size;

	return r->stopping || late ? 0 : steps[eighths];
}

/* struct batch's between(). */
static void make_way(void *arg)
{
	struct record *r = arg;
	const unsigned steps = steps_of_turn(r);

	if (steps && ++r->steps % steps == 0)
		(void)sched_yield();
}

static void note_failure(struct record *r, const struct errmsg *err)
{
	r->failures++;
	r->failing = true;
	r->insist = false;
	r->retry_at_us = clock_monotonic_us() + (r->stopping ? RETRY_STOPPING_US : RETRY_US);
	r->counters.errors++;
	(void)snprintf(r->counters.last_error, sizeof(r->counters.last_error), "%.255s", err->text);
	(void)pthread_cond_broadcast(&r->rows_went);
}

static void note_success(struct record *r)
{
	r->failing = false;
	r->counters.last_error[0] = 0;
}

/* Writes a batch. The mutex is held before and after, and free meanwhile. */
static void writer_write(struct record *r)
{
	const struct row *rows;
	const size_t n = queue_front(&r->queue, STORE_BATCH_MAX, &rows);
	struct errmsg err = { "" };
	int rc;

	(void)pthread_mutex_unlock(&r->mutex);
	r->batch_began_us = clock_monotonic_us();
	rc = writer_ready(r, &err);
	if (rc == 0)
		rc = store_write(&r->store, rows, n, clock_realtime_us(), &err);
	(void)pthread_mutex_lock(&r->mutex);
	if (rc) {
		note_failure(r, &err);
		return;
	}
	note_success(r);
	queue_drop(&r->queue, n);
	note_waiting(r);
	r->written += n;
	r->batch_at_us = 0;
	r->counters.rows_written += n;
	r->counters.batches++;
	if (r->upkeep_at_us > r->upkept_at_us + UPKEEP_BUSY_US)
		r->upkeep_at_us = r->upkept_at_us + UPKEEP_BUSY_US;
	(void)pthread_cond_broadcast(&r->rows_went);
}

/* A heartbeat and a step of pruning. The same locking. */
static void writer_keep_up(struct record *r)
{
	struct errmsg err = { "" };
	bool more = false;
	uint64_t bytes = 0;
	int rc;

	(void)pthread_mutex_unlock(&r->mutex);
	rc = writer_ready(r, &err);
	if (rc == 0)
		rc = store_heartbeat(&r->store, clock_realtime_us(), &err);
	if (rc == 0)
		rc = store_prune(&r->store, r->config.retain_us, r->config.retain_bytes,
				 clock_realtime_us(), &more, &err);
	if (rc == 0)
		bytes = store_bytes(&r->store);
	(void)pthread_mutex_lock(&r->mutex);
	r->upkept_at_us = clock_monotonic_us();
	if (rc) {
		note_failure(r, &err);
		r->upkeep_at_us = r->upkept_at_us + RETRY_US;
		return;
	}
	note_success(r);
	r->upkeep_at_us = more ? r->upkept_at_us : r->upkept_at_us + UPKEEP_IDLE_US;
	r->counters.database_bytes = bytes;
}

static void *writer_main(void *arg)
{
	struct record *r = arg;

	(void)pthread_mutex_lock(&r->mutex);
	while (writer_wait(r)) {
		const uint64_t now_us = clock_monotonic_us();

		if (write_due(r, now_us) <= now_us)
			writer_write(r);
		if (upkeep_due(r) <= now_us)
			writer_keep_up(r);
	}
	(void)pthread_mutex_unlock(&r->mutex);
	store_close(&r->store, clock_realtime_us());
	return NULL;
}

/* Waits until the rows that waited when a question was asked are written, or cannot be. */
static void reader_await_rows(struct record *r, uint64_t after)
{
	const uint64_t failures = r->failures;

	while (r->written < after && r->failures == failures && !r->stopping) {
		if (r->wanted < after)
			r->wanted = after;
		r->insist = true;
		(void)pthread_cond_signal(&r->rows_came);
		(void)pthread_cond_wait(&r->rows_went, &r->mutex);
	}
}

/* SQLite asks now and then whether to go on. */
static int on_progress(void *arg)
{
	struct record *r = arg;

	return atomic_load(&r->interrupt);
}

static int reader_ready(struct record *r, uint64_t generation, struct errmsg *ret_err)
{
	int rc;

	if (r->reader_db && r->reader_generation == generation)
		return 0;
	(void)sqlite3_close(r->reader_db);
	r->reader_db = NULL;
	rc = store_open_reader(r->path, &r->reader_db, ret_err);
	if (rc)
		return rc;
	r->reader_generation = generation;
	sqlite3_progress_handler(r->reader_db, 10000, on_progress, r);
	return 0;
}

static void *reader_main(void *arg)
{
	struct record *r = arg;

	(void)pthread_mutex_lock(&r->mutex);
	while (!r->stopping || r->questions_n > 0) {
		struct question q;
		uint64_t generation;

		if (r->questions_n == 0) {
			(void)pthread_cond_wait(&r->asked, &r->mutex);
			continue;
		}
		q = r->questions[r->questions_first];
		r->questions_first = (r->questions_first + 1) % QUERIES_MAX;
		r->questions_n--;
		reader_await_rows(r, q.after);
		generation = r->generation;
		(void)pthread_mutex_unlock(&r->mutex);
		q.query->rc = reader_ready(r, generation, &q.query->err);
		if (q.query->rc == 0)
			query_run(r->reader_db, r->path, q.query);
		q.query->done(q.query);
		(void)pthread_mutex_lock(&r->mutex);
	}
	(void)pthread_mutex_unlock(&r->mutex);
	(void)sqlite3_close(r->reader_db);
	return NULL;
}

/* Two writers would confuse each other's connections, and SQLite allows two. The lock is the kernel's
 * and goes with the process; the file stays, as removing it would let two in.
 */
static int take_lock(struct record *r, struct errmsg *ret_err)
{
	char name[PATH_MAX + 8], pid[16] = "";
	int rc = store_check_directory(r->path, ret_err);

	if (rc)
		return rc;
	(void)snprintf(name, sizeof(name), "%s.lock", r->path);
	r->lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW, 0640);
	if (r->lock_fd < 0) {
		rc = -errno;
		return errmsg(ret_err, rc, "%s: cannot be opened for writing: %s", name,
			      strerror(-rc));
	}
	if (flock(r->lock_fd, LOCK_EX | LOCK_NB) == 0) {
		const int n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());

		/* Only for the message below. */
		if (ftruncate(r->lock_fd, 0) || pwrite(r->lock_fd, pid, (size_t)n, 0) != n)
			return 0;
		return 0;
	}
	rc = -errno;
	if (rc != -EWOULDBLOCK)
		return errmsg(ret_err, rc, "%s: %s", name, strerror(-rc));
	if (pread(r->lock_fd, pid, sizeof(pid) - 1, 0) < 0)
		pid[0] = 0;
	pid[strspn(pid, "0123456789")] = 0;
	return errmsg(
		ret_err, -EBUSY,
		"%s: another tcpfsmd (pid %s) records into it; choose another [Storage] Database",
		r->path, *pid ? pid : "unknown");
}

static int init_sync(struct record *r)
{
	pthread_condattr_t attr;
	int rc = pthread_condattr_init(&attr);

	if (rc)
		return -rc;
	rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	if (rc == 0)
		rc = pthread_mutex_init(&r->mutex, NULL);
	if (rc == 0)
		rc = pthread_cond_init(&r->rows_came, &attr);
	if (rc == 0)
		rc = pthread_cond_init(&r->rows_went, &attr);
	if (rc == 0)
		rc = pthread_cond_init(&r->asked, &attr);
	(void)pthread_condattr_destroy(&attr);
	return -rc;
}

/* Signals are for the main thread. */
static int start_threads(struct record *r)
{
	sigset_t before;
	int rc;

	signals_block(&before);
	rc = pthread_create(&r->writer, NULL, writer_main, r);
	r->writer_runs = rc == 0;
	if (rc == 0) {
		(void)pthread_setname_np(r->writer, "record-writer");
		rc = pthread_create(&r->reader, NULL, reader_main, r);
		r->reader_runs = rc == 0;
	}
	if (rc == 0)
		(void)pthread_setname_np(r->reader, "record-reader");
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -rc;
}

static int open_all(struct record *r, struct errmsg *ret_err)
{
	int rc = take_lock(r, ret_err);

	r->store.converting = r->config.converting;
	if (rc == 0)
		rc = store_open(&r->store, r->path, clock_realtime_us(), ret_err);
	r->store.converting = NULL; /* the writer may open it again */
	if (rc)
		return rc;
	r->next_id = r->store.next_id;
	r->counters.database_bytes = store_bytes(&r->store);
	r->upkeep_at_us = clock_monotonic_us();
	rc = queue_init(&r->queue, r->config.queue_max ? r->config.queue_max : QUEUE_DEFAULT);
	if (rc == 0)
		rc = start_threads(r);
	if (rc)
		return errmsg(ret_err, rc, "%s: starting its threads: %s", r->path, strerror(-rc));
	return 0;
}

int record_open(const struct record_config *cfg, struct record **ret_record, struct errmsg *ret_err)
{
	struct record *r;
	int rc;

	if (cfg->what == RECORD_NOTHING) {
		*ret_record = NULL;
		return 0;
	}
	/* Without its account of memory SQLite needs no lock for an allocation. Once it runs it
	 * refuses, and that is as good. */
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	/* What a statement may have to take back is in memory, not in a file: it is a part of a batch. */
	(void)sqlite3_config(SQLITE_CONFIG_STMTJRNL_SPILL, -1);
	if (strlen(cfg->path) >= sizeof(r->path))
		return errmsg(ret_err, -ENAMETOOLONG, "%s: the name is too long", cfg->path);
	r = calloc(1, sizeof(*r));
	if (!r)
		return errmsg(ret_err, -ENOMEM, "%s: out of memory", cfg->path);
	(void)strcpy(r->path, cfg->path);
	r->config = *cfg;
	r->config.path = r->path;
	r->lock_fd = -1;
	r->store.between = make_way;
	r->store.arg = r;
	rc = init_sync(r);
	if (rc)
		(void)errmsg(ret_err, rc, "%s: %s", cfg->path, strerror(-rc));
	else
		rc = open_all(r, ret_err);
	if (rc) {
		record_close(r, 0);
		return rc;
	}
	*ret_record = r;
	return 0;
}

uint64_t record_next_id(const struct record *r)
{
	return r ? r->next_id : 1;
}

void record_close(struct record *r, uint64_t wait_us)
{
	if (!r)
		return;
	(void)pthread_mutex_lock(&r->mutex);
	r->stopping = true;
	r->insist = true;
	r->stop_at_us = clock_monotonic_us() + wait_us;
	(void)pthread_cond_broadcast(&r->rows_came);
	(void)pthread_cond_broadcast(&r->rows_went);
	(void)pthread_cond_broadcast(&r->asked);
	(void)pthread_mutex_unlock(&r->mutex);
	atomic_store(&r->interrupt, true);
	/* The reader first: when the last connection to the database is closed, the WAL goes. */
	if (r->reader_runs)
		(void)pthread_join(r->reader, NULL);
	if (r->writer_runs)
		(void)pthread_join(r->writer, NULL);
	store_close(&r->store, 0);
	queue_fini(&r->queue);
	if (r->lock_fd >= 0)
		(void)close(r->lock_fd);
	(void)pthread_cond_destroy(&r->rows_came);
	(void)pthread_cond_destroy(&r->rows_went);
	(void)pthread_cond_destroy(&r->asked);
	(void)pthread_mutex_destroy(&r->mutex);
	free(r);
}

/* Room for one row, with the mutex held. The writer is woken for the first of a batch, and then by its timer, not by a
 * worker when a batch is full: who is woken by a thread that runs stays where it ran before, beside the busiest of all
 * perhaps; a timer finds it the core that has least to do.
 */
static struct row *put(struct record *r)
{
	struct row *row = queue_push(&r->queue);

	if (!row) {
		r->counters.rows_dropped++;
		return NULL;
	}
	r->accepted++;
	note_waiting(r);
	if (r->queue.n == 1 || r->queue.n == enough_rows(r))
		(void)pthread_cond_signal(&r->rows_came);
	return row;
}

void record_connection_put(struct record *r, const struct record_connection *row)
{
	struct row *to;

	if (!r)
		return;
	(void)pthread_mutex_lock(&r->mutex);
	to = put(r);
	if (to) {
		to->is_transition = false;
		to->connection = *row;
	}
	(void)pthread_mutex_unlock(&r->mutex);
}

void record_transition_put(struct record *r, const struct record_transition *row)
{
	struct row *to;

	if (!r || r->config.what != RECORD_TRANSITIONS)
		return;
	(void)pthread_mutex_lock(&r->mutex);
	to = put(r);
	if (to) {
		to->is_transition = true;
		to->transition = *row;
	}
	(void)pthread_mutex_unlock(&r->mutex);
}

void record_counters(struct record *r, struct record_counters *ret_counters)
{
	*ret_counters = (struct record_counters){ 0 };
	if (!r)
		return;
	(void)pthread_mutex_lock(&r->mutex);
	*ret_counters = r->counters;
	ret_counters->queue = (uint32_t)r->queue.n;
	(void)pthread_mutex_unlock(&r->mutex);
}

int record_query(struct record *r, struct record_query *q)
{
	int rc = -EAGAIN;

	if (!r)
		return -ENOTSUP;
	if (q->limit < 1 || q->limit > 10000)
		return -EINVAL;
	q->rc = 0;
	q->err.text[0] = 0;
	q->connections = NULL;
	q->transition_rows = NULL;
	q->rows_n = 0;
	q->more = false;
	(void)pthread_mutex_lock(&r->mutex);
	if (r->questions_n < QUERIES_MAX) {
		const size_t at = (r->questions_first + r->questions_n++) % QUERIES_MAX;

		r->questions[at] = (struct question){ q, r->accepted };
		(void)pthread_cond_signal(&r->asked);
		rc = 0;
	}
	(void)pthread_mutex_unlock(&r->mutex);
	return rc;
}
