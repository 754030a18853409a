/* SPDX-License-Identifier: Apache-2.0 */
/* The record: what is put is found again, whatever happens to the file, and nothing waits for it. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/macros.h"
#include "record/record.h"
#include "record/schema.h"
#include "record/store.h"

enum { STOP_US = 20000000 }; /* more than any test needs; a hang fails the test's own time limit */

static char dir[32];
static char path[64];

static int setup(void **state)
{
	(void)strcpy(dir, "/tmp/tcpfsm-record-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/t.db", dir);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf -- '%s'", dir);
	return system(command);
}

static struct record *open_with(struct record_config cfg)
{
	struct record *r = NULL;
	struct errmsg err = { "" };

	cfg.path = path;
	if (record_open(&cfg, &r, &err))
		fail_msg("%s", err.text);
	return r;
}

static struct record *open_default(void)
{
	return open_with((struct record_config){ .what = RECORD_TRANSITIONS });
}

/* Opens what must fail. */
static void assert_refused(int rc, const char *words)
{
	const struct record_config cfg = { .path = path, .what = RECORD_TRANSITIONS };
	struct record *r = NULL;
	struct errmsg err = { "" };

	assert_int_equal(record_open(&cfg, &r, &err), rc);
	assert_null(r);
	if (!strstr(err.text, words) || !strstr(err.text, path))
		fail_msg("'%s' does not say '%s'", err.text, words);
}

static struct record_connection connection(uint64_t id, uint64_t end_us)
{
	return (struct record_connection){
		.id = id,
		.flow = { .local = { addr_v4(10, 0, 0, 2), 7 },
			  .remote = { addr_v4(10, 0, 0, 1), (uint16_t)(id % 65536) } },
		.passive = true,
		.service = "echo",
		.start_us = 1000 + id,
		.end_us = end_us,
		.reason = end_us ? END_NORMAL : END_NONE,
		.exit_status = INT32_MIN,
	};
}

static void put_connection(struct record *r, uint64_t id, uint64_t end_us)
{
	const struct record_connection row = connection(id, end_us);

	record_connection_put(r, &row);
}

static void put_transition(struct record *r, uint64_t id, uint64_t at_us)
{
	const struct record_transition row = { .connection = id,
					       .at_us = at_us,
					       .from = ST_LISTEN,
					       .to = ST_SYN_RECEIVED,
					       .cause = CAUSE_SEGMENT,
					       .detail = CTL_SYN,
					       .rule = RULE_LISTEN_SYN };

	record_transition_put(r, &row);
}

/* A query and the wait for its answer. */
struct asked {
	struct record_query q;
	sem_t done;
	uint64_t only_port; /* match: this remote port */
	unsigned done_n;
};

static void on_done(struct record_query *q)
{
	struct asked *a = (struct asked *)(void *)((char *)q - offsetof(struct asked, q));

	a->done_n++;
	(void)sem_post(&a->done);
}

static void ask(struct record *r, struct asked *a)
{
	a->q.done = on_done;
	(void)sem_init(&a->done, 0, 0);
	assert_int_equal(record_query(r, &a->q), 0);
	while (sem_wait(&a->done))
		assert_int_equal(errno, EINTR);
	if (a->q.rc)
		fail_msg("%s", a->q.err.text);
}

static void forget(struct asked *a)
{
	free(a->q.connections);
	free(a->q.transition_rows);
	(void)sem_destroy(&a->done);
}

/* A number by SQL, from a connection of our own. */
static int64_t sql_number(const char *sql)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *q = NULL;
	struct errmsg err;
	int64_t n;

	assert_int_equal(store_open_reader(path, &db, &err), 0);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &q, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(q), SQLITE_ROW);
	n = sqlite3_column_int64(q, 0);
	(void)sqlite3_finalize(q);
	(void)sqlite3_close(db);
	return n;
}

/* Changes the file behind the record's back. */
static void sql_run(const char *sql)
{
	sqlite3 *db = NULL;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Another program that holds the database. */
static sqlite3 *hold(const char *begin)
{
	sqlite3 *db = NULL;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	(void)sqlite3_busy_timeout(db, 10000);
	assert_int_equal(sqlite3_exec(db, begin, NULL, NULL, NULL), SQLITE_OK);
	return db;
}

static void let_go(sqlite3 *db)
{
	assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void write_file(const char *name, const void *data, size_t n)
{
	const int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, n), n);
	assert_int_equal(close(fd), 0);
}

/* --- keeping --- */

static void test_fresh(void **state)
{
	struct record *r = open_default();
	struct record_counters c;
	struct stat st;

	assert_int_equal(record_next_id(r), 1);
	record_counters(r, &c);
	assert_true(c.database_bytes > 0);
	assert_string_equal(c.last_error, "");
	put_connection(r, 1, 0);
	put_connection(r, 17, 5000);
	record_close(r, STOP_US);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(sql_number("PRAGMA application_id"), STORE_APPLICATION_ID);
	assert_int_equal(sql_number("PRAGMA user_version"), STORE_SCHEMA);
	assert_int_equal(sql_number("SELECT count(*) FROM connection"), 2);
	assert_int_equal(sql_number("SELECT count(*) FROM run WHERE end_us IS NOT NULL"), 1);
	r = open_default();
	assert_int_equal(record_next_id(r), 18);
	put_transition(r, 40, 1);
	record_close(r, STOP_US);
	r = open_default();
	assert_int_equal(record_next_id(r), 41);
	record_close(r, 0);
}

static void test_nothing(void **state)
{
	const struct record_config cfg = { .path = path, .what = RECORD_NOTHING };
	struct record *r = (struct record *)(void *)dir;
	struct record_query q = { .limit = 1 };
	struct record_counters c;

	assert_int_equal(record_open(&cfg, &r, NULL), 0);
	assert_null(r);
	assert_int_equal(record_next_id(r), 1);
	put_connection(r, 1, 1);
	put_transition(r, 1, 1);
	record_counters(r, &c);
	assert_int_equal(c.rows_written + c.rows_dropped, 0);
	assert_int_equal(record_query(r, &q), -ENOTSUP);
	record_close(r, 0);
	assert_int_equal(access(path, F_OK), -1);
}

static void test_connections_only(void **state)
{
	struct record *r = open_with((struct record_config){ .what = RECORD_CONNECTIONS });

	put_connection(r, 1, 1);
	put_transition(r, 1, 1);
	record_close(r, STOP_US);
	assert_int_equal(sql_number("SELECT count(*) FROM connection"), 1);
	assert_int_equal(sql_number("SELECT count(*) FROM transition"), 0);
}

/* Field by field: there are gaps between them. */
static void assert_same(const struct record_connection *a, const struct record_connection *b)
{
	assert_int_equal(a->id, b->id);
	assert_true(flow_eq(&a->flow, &b->flow));
	assert_int_equal(a->passive, b->passive);
	assert_string_equal(a->service, b->service);
	assert_string_equal(a->interface, b->interface);
	assert_int_equal(a->start_us, b->start_us);
	assert_int_equal(a->opened_us, b->opened_us);
	assert_int_equal(a->end_us, b->end_us);
	assert_int_equal(a->reason, b->reason);
	assert_int_equal(a->closed_by, b->closed_by);
	assert_int_equal(a->last_state, b->last_state);
	assert_int_equal(a->bytes_in, b->bytes_in);
	assert_int_equal(a->bytes_out, b->bytes_out);
	assert_int_equal(a->segments_in, b->segments_in);
	assert_int_equal(a->segments_out, b->segments_out);
	assert_int_equal(a->retransmitted_segments, b->retransmitted_segments);
	assert_int_equal(a->retransmitted_bytes, b->retransmitted_bytes);
	assert_int_equal(a->srtt_us, b->srtt_us);
	assert_int_equal(a->rttvar_us, b->rttvar_us);
	assert_int_equal(a->rttmin_us, b->rttmin_us);
	assert_int_equal(a->snd_mss, b->snd_mss);
	assert_int_equal(a->rcv_mss, b->rcv_mss);
	assert_int_equal(a->pid, b->pid);
	assert_int_equal(a->exit_status, b->exit_status);
	assert_int_equal(a->run_us, b->run_us);
}

/* Every field of a connection comes back, and NULL where there is no value. */
static void test_connection_fields(void **state)
{
	const struct ipaddr v6 = { { 0xfe, 0x80, [15] = 9 } };
	const struct record_connection full = {
		.id = 5,
		.flow = { .local = { v6, 80 }, .remote = { v6, 65535 }, .scope = 3 },
		.service = "1234567890123456789012345678901",
		.interface = "123456789012345",
		.start_us = 1,
		.opened_us = 2,
		.end_us = 3,
		.reason = END_RESET_BY_PEER,
		.closed_by = CLOSED_BY_REMOTE,
		.last_state = ST_CLOSE_WAIT,
		.bytes_in = 1ULL << 40,
		.bytes_out = 2,
		.segments_in = 3,
		.segments_out = 4,
		.retransmitted_segments = 5,
		.retransmitted_bytes = 6,
		.srtt_us = UINT32_MAX,
		.rttvar_us = 8,
		.rttmin_us = 9,
		.snd_mss = 1460,
		.rcv_mss = 1440,
		.pid = 4711,
		.exit_status = -9,
		.run_us = 77,
	};
	const struct record_connection bare = { .id = 6,
						.flow = { .local = { addr_v4(1, 2, 3, 4), 1 },
							  .remote = { addr_v4(5, 6, 7, 8), 2 } },
						.passive = true,
						.start_us = 1,
						.exit_status = INT32_MIN };
	struct record_connection status = full;
	struct record *r = open_default();
	struct asked a = { .q = { .id = 5, .limit = 1 } };

	status.id = 7;
	status.exit_status = 0;
	status.rttvar_us = 0; /* measured, and steady */
	record_connection_put(r, &full);
	record_connection_put(r, &bare);
	record_connection_put(r, &status);
	ask(r, &a);
	assert_int_equal(a.q.rows_n, 1);
	assert_same(&a.q.connections[0], &full);
	forget(&a);
	a = (struct asked){ .q = { .id = 6, .limit = 1 } };
	ask(r, &a);
	assert_same(&a.q.connections[0], &bare);
	forget(&a);
	a = (struct asked){ .q = { .id = 7, .limit = 1 } };
	ask(r, &a);
	assert_same(&a.q.connections[0], &status);
	forget(&a);
	assert_int_equal(
		sql_number(
			"SELECT exit_signal FROM connection WHERE id = 5 AND exit_status IS NULL"),
		9);
	assert_int_equal(
		sql_number("SELECT local_port FROM connection WHERE local_address = '1.2.3.4'"), 1);
	assert_int_equal(
		sql_number("SELECT count(*) FROM connection WHERE id = 7 AND rttvar_us = 0"), 1);
	assert_int_equal(
		sql_number("SELECT count(*) FROM connection WHERE id = 6 AND scope IS NULL AND "
			   "service IS NULL"
			   " AND interface IS NULL AND opened_us IS NULL AND end_us IS NULL AND "
			   "end_reason IS NULL"
			   " AND closed_by IS NULL AND last_state IS NULL AND rtt_us IS NULL AND "
			   "pid IS NULL"
			   " AND exit_status IS NULL AND run_us IS NULL AND direction = 'passive'"),
		1);
	assert_int_equal(sql_number("SELECT count(*) FROM connection WHERE remote_address = "
				    "'fe80::9' AND scope = 3"
				    " AND end_reason = 'reset_by_peer' AND closed_by = 'remote' "
				    "AND last_state = 'close_wait'"
				    " AND direction = 'active'"),
			 2);
	record_close(r, 0);
}

/* Every state, cause, rule, reason has a word of its own that reads back. */
static void test_words(void **state)
{
	struct record *r = open_default();
	struct asked a = { .q = { .transitions = true, .id = 1, .limit = 10000 } };
	struct record_transition t = { .connection = 1, .seq = 1, .ack = UINT32_MAX };
	unsigned n = 0;

	for (int i = 0; i < RULE__COUNT; i++) {
		t.at_us = n++;
		t.rule = (enum rule)i;
		t.from = (enum tcp_state)(i % ST__COUNT);
		t.to = (enum tcp_state)((i + 1) % ST__COUNT);
		t.cause = (enum cause)(i % CAUSE__COUNT);
		t.detail = (unsigned)i % (t.cause == CAUSE_TIMER ? TIMER__COUNT : 256U);
		record_transition_put(r, &t);
	}
	for (int i = 0; i < END__COUNT; i++) {
		struct record_connection c = connection((uint64_t)i + 1, 1);

		c.reason = (enum end_reason)i;
		c.closed_by = (enum closed_by)(i % CLOSED_BY__COUNT);
		record_connection_put(r, &c);
	}
	ask(r, &a);
	assert_int_equal(a.q.rows_n, RULE__COUNT);
	for (int i = 0; i < RULE__COUNT; i++) {
		const struct record_transition *got = &a.q.transition_rows[i];

		assert_int_equal(got->connection, 1);
		assert_int_equal(got->at_us, i);
		assert_int_equal(got->rule, i);
		assert_int_equal(got->from, i % ST__COUNT);
		assert_int_equal(got->to, (i + 1) % ST__COUNT);
		assert_int_equal(got->cause, i % CAUSE__COUNT);
		assert_int_equal(got->detail, i % (got->cause == CAUSE_TIMER ? TIMER__COUNT : 256));
		assert_int_equal(got->seq, got->cause == CAUSE_SEGMENT ? 1 : 0);
		assert_int_equal(got->ack, got->cause == CAUSE_SEGMENT ? UINT32_MAX : 0);
	}
	forget(&a);
	a = (struct asked){ .q = { .limit = 10000 } };
	ask(r, &a);
	assert_int_equal(a.q.rows_n, END__COUNT);
	for (int i = 0; i < END__COUNT; i++) {
		assert_int_equal(a.q.connections[END__COUNT - 1 - i].reason, i);
		assert_int_equal(a.q.connections[END__COUNT - 1 - i].closed_by,
				 i % CLOSED_BY__COUNT);
	}
	forget(&a);
	assert_int_equal(sql_number("SELECT count(*) FROM rule"), RULE__COUNT);
	assert_int_equal(
		sql_number(
			"SELECT count(*) FROM transition JOIN rule ON rule.key = transition.rule"),
		RULE__COUNT);
	assert_int_equal(sql_number("SELECT count(*) FROM connection JOIN end_reason ON "
				    "end_reason.key = end_reason"),
			 END__COUNT);
	record_close(r, 0);
}

/* The database's word for a state is the core's, in lower_snake. */
static void test_state_words(void **state)
{
	struct record *r = open_default();
	char sql[128], word[32];

	for (int i = 0; i < ST__COUNT; i++) {
		const struct record_transition t = { .connection = (uint64_t)i + 1,
						     .to = (enum tcp_state)i,
						     .cause = CAUSE_USER };

		record_transition_put(r, &t);
	}
	record_close(r, STOP_US);
	for (int i = 0; i < ST__COUNT; i++) {
		(void)snprintf(word, sizeof(word), "%s", state_name((enum tcp_state)i));
		for (char *p = word; *p; p++)
			*p = (char)(*p == '-' ? '_' : tolower((unsigned char)*p));
		(void)snprintf(sql, sizeof(sql),
			       "SELECT connection FROM transition WHERE to_state = '%s'", word);
		assert_int_equal(sql_number(sql), i + 1);
	}
}

static void test_transition_order(void **state)
{
	struct record *r = open_default();
	struct asked a = { .q = { .transitions = true, .id = 2, .limit = 50 } };

	/* Of several connections mixed, at one instant, over several batches. */
	for (unsigned i = 0; i < 5000; i++) {
		const struct record_transition t = {
			.connection = 1 + i % 3, .at_us = 7, .cause = CAUSE_USER, .detail = i
		};

		record_transition_put(r, &t);
	}
	ask(r, &a);
	assert_int_equal(a.q.rows_n, 50);
	assert_true(a.q.more);
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(a.q.transition_rows[i].detail, 1 + 3 * i);
	forget(&a);
	a = (struct asked){ .q = { .transitions = true, .id = 99, .limit = 50 } };
	ask(r, &a);
	assert_int_equal(a.q.rows_n, 0);
	assert_false(a.q.more);
	forget(&a);
	record_close(r, 0);
}

/* More kinds of transitions than are remembered at a time: each has its words. */
static void test_many_kinds(void **state)
{
	enum { KINDS = 2 * KINDS_MAX + 100, ROUNDS = 2 };
	struct record *r = open_default();

	for (unsigned i = 0; i < ROUNDS * KINDS; i++) {
		const struct record_transition t = { .connection = 1 + i,
						     .cause = CAUSE_USER,
						     .detail = i % KINDS };

		record_transition_put(r, &t);
	}
	record_close(r, STOP_US);
	assert_int_equal(sql_number("SELECT count(*) FROM transition_kind"), KINDS);
	assert_int_equal(
		sql_number("SELECT count(*) FROM transition WHERE detail = (connection - 1) % "
			   "(SELECT count(*) FROM transition_kind)"),
		ROUNDS * KINDS);
}

/* Whoever numbers kinds in his own way is understood, and gets no octet out of place. */
static void test_kind_numbers(void **state)
{
	static const char *const numbers[] = { "-9223372036854775808", "0", "9223372036854775806" };
	const struct record_transition t = { .connection = 1,
					     .at_us = UINT64_MAX,
					     .to = ST_LISTEN,
					     .seq = UINT32_MAX,
					     .ack = UINT32_MAX };
	char sql[256];

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		struct record *r;

		record_close(open_default(), 0);
		(void)snprintf(sql, sizeof(sql),
			       "DELETE FROM history; DELETE FROM transition_kind;"
			       "INSERT INTO transition_kind VALUES(%s, 'closed', 'listen', "
			       "'segment', 0, '%s')",
			       numbers[i], rule_key(t.rule));
		sql_run(sql);
		r = open_default();
		record_transition_put(r, &t);
		record_close(r, STOP_US);
		assert_int_equal(sql_number("SELECT count(*) FROM transition_kind"), 1);
		assert_int_equal(
			sql_number(
				"SELECT count(*) FROM transition WHERE to_state = 'listen' AND "
				"at_us = 9223372036854775807 AND seq = 4294967295 AND ack = seq"),
			1);
	}
}

static bool match_port(void *arg, const struct record_connection *row)
{
	const struct asked *a = arg;

	return row->flow.remote.port % 10 == a->only_port;
}

static void test_paging(void **state)
{
	struct record *r = open_default();
	struct asked a = { .q = { .limit = 40 } };
	uint64_t expect = 100;
	unsigned pages = 0;

	for (uint64_t id = 1; id <= 100; id++)
		put_connection(r, id, 1000000 + id);
	put_connection(r, 101, 0); /* open: not in the list */
	for (bool more = true; more; pages++) {
		ask(r, &a);
		assert_int_equal(a.q.rows_n, pages < 2 ? 40 : 20);
		for (size_t i = 0; i < a.q.rows_n; i++)
			assert_int_equal(a.q.connections[i].id, expect--);
		more = a.q.more;
		forget(&a);
		a = (struct asked){ .q = { .limit = 40, .before_id = expect + 1 } };
	}
	assert_int_equal(pages, 3);
	/* A page that ends with the last row says so. */
	a = (struct asked){ .q = { .limit = 20, .before_id = 21 } };
	ask(r, &a);
	assert_int_equal(a.q.rows_n, 20);
	assert_false(a.q.more);
	forget(&a);
	record_close(r, 0);
}

static void test_match(void **state)
{
	struct record *r = open_default();
	struct asked a = { .only_port = 3, .q = { .limit = 4, .match = match_port } };

	a.q.arg = &a;
	for (uint64_t id = 1; id <= 100; id++)
		put_connection(r, id, 1);
	ask(r, &a);
	assert_int_equal(a.q.rows_n, 4);
	assert_true(a.q.more);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(a.q.connections[i].id, 93 - 10 * i);
	forget(&a);
	a = (struct asked){ .only_port = 3, .q = { .limit = 10, .match = match_port } };
	a.q.arg = &a;
	ask(r, &a);
	assert_int_equal(a.q.rows_n, 10);
	assert_false(a.q.more);
	forget(&a);
	record_close(r, 0);
}

/* One by its id, open or ended, and nothing when there is none. What was just put is seen. */
static void test_one(void **state)
{
	struct record *r = open_default();
	struct asked a;

	for (uint64_t id = 1; id <= 20; id++) {
		put_connection(r, id, id % 2 ? 0 : 9);
		a = (struct asked){ .q = { .id = id, .limit = 1 } };
		ask(r, &a);
		assert_int_equal(a.q.rows_n, 1);
		assert_int_equal(a.q.connections[0].id, id);
		assert_int_equal(a.q.connections[0].end_us, id % 2 ? 0 : 9);
		assert_false(a.q.more);
		forget(&a);
	}
	a = (struct asked){ .q = { .id = 21, .limit = 1 } };
	ask(r, &a);
	assert_int_equal(a.q.rows_n, 0);
	forget(&a);
	a = (struct asked){ .q = { .id = UINT64_MAX, .limit = 1 } };
	ask(r, &a);
	assert_int_equal(a.q.rows_n, 0);
	forget(&a);
	a.q = (struct record_query){ .limit = 0 };
	assert_int_equal(record_query(r, &a.q), -EINVAL);
	a.q = (struct record_query){ .limit = 10001 };
	assert_int_equal(record_query(r, &a.q), -EINVAL);
	record_close(r, 0);
}

/* Opened and ended in one batch: one row is written. Ended later: it replaces the opening. */
static void test_coalesce(void **state)
{
	struct store s = { 0 };
	struct errmsg err;
	struct row rows[4] = { { .connection = connection(2049, 0) },
			       { .connection = connection(1, 0) },
			       { .connection = connection(2049, 0) },
			       { .connection = connection(2049, 8) } };
	int64_t before;

	assert_int_equal(store_open(&s, path, 1, &err), 0);
	before = sqlite3_total_changes64(s.db);
	assert_int_equal(store_write(&s, rows, 4, 2, &err), 0);
	/* Connections 1 and 2049 (one slot of the set), and the run's seen_us. */
	assert_int_equal(sqlite3_total_changes64(s.db) - before, 3);
	assert_int_equal(sql_number("SELECT end_us FROM connection WHERE id = 2049"), 8);
	rows[0].connection = connection(1, 9);
	assert_int_equal(store_write(&s, rows, 1, 3, &err), 0);
	assert_int_equal(sql_number("SELECT end_us FROM connection WHERE id = 1"), 9);
	assert_int_equal(sql_number("SELECT count(*) FROM connection"), 2);
	store_close(&s, 4);
}

/* A batch that fails takes the kinds with it that it brought. */
static void test_kind_taken_back(void **state)
{
	const struct row row = { .is_transition = true,
				 .transition = { .connection = 1, .cause = CAUSE_USER } };
	struct store s = { 0 };
	struct errmsg err;

	assert_int_equal(store_open(&s, path, 1, &err), 0);
	sql_run("CREATE TRIGGER no BEFORE INSERT ON history BEGIN SELECT RAISE(ABORT, 'not now'); "
		"END");
	assert_int_equal(store_write(&s, &row, 1, 2, &err), -EIO);
	assert_non_null(strstr(err.text, "not now"));
	assert_int_equal(sql_number("SELECT count(*) FROM transition_kind"), 0);
	sql_run("DROP TRIGGER no");
	assert_int_equal(store_write(&s, &row, 1, 3, &err), 0);
	assert_int_equal(sql_number("SELECT count(*) FROM transition WHERE cause = 'user'"), 1);
	store_close(&s, 4);
}

/* A batch is given by connection, whatever the order of its rows: of each the row that came last, and the
 * transitions in their order, HISTORY_MAX at a time.
 */
static void test_batch_order(void **state)
{
	enum { CONNECTIONS = 100, EACH = 2 * HISTORY_MAX + 3, ROWS = CONNECTIONS * (EACH + 2) };
	static struct row rows[ROWS];
	static struct batch b;
	size_t n = 0;

	for (unsigned k = 0; k < EACH + 2; k++)
		for (unsigned i = 0; i < CONNECTIONS; i++) {
			const uint64_t id = 1 + i * 37 % CONNECTIONS;

			rows[n++] = k < EACH ? (struct row){ .is_transition = true,
							     .transition = { .connection = id,
									     .at_us = k } }
					     : (struct row){ .connection = connection(id, k) };
		}
	batch_fill(&b, rows, n);
	assert_int_equal(b.connections_n, CONNECTIONS);
	assert_int_equal(b.histories_n, CONNECTIONS * 3);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		unsigned k = 0;

		assert_int_equal(rows[b.connections[i]].connection.id, 1 + i);
		assert_int_equal(rows[b.connections[i]].connection.end_us, EACH + 1);
		for (unsigned piece = 0; piece < 3; piece++) {
			size_t at = b.histories[3 * i + piece];

			do {
				assert_int_equal(rows[at].transition.connection, 1 + i);
				assert_int_equal(rows[at].transition.at_us, k++);
				assert_true(k <= HISTORY_MAX * (piece + 1));
			} while ((at = b.next[at]));
		}
		assert_int_equal(k, EACH);
	}
	batch_clear(&b);
	assert_int_equal(b.connections_n + b.histories_n, 0);
}

/* A run that died leaves open connections: they end when it was last seen, in their last state. */
static void test_daemon_lost(void **state)
{
	struct store s = { 0 };
	struct errmsg err;
	struct row rows[3] = {
		{ .connection = connection(1, 0) },
		{ .connection = connection(2, 500) },
		{ .is_transition = true,
		  .transition = { .connection = 1, .to = ST_FIN_WAIT_2, .cause = CAUSE_USER } }
	};
	struct record *r;
	struct asked a = { .q = { .id = 1, .limit = 1 } };

	assert_int_equal(store_open(&s, path, 1000, &err), 0);
	assert_int_equal(store_write(&s, rows, 3, 70000, &err), 0);
	store_close(&s, 0);
	r = open_default();
	ask(r, &a);
	assert_int_equal(a.q.rows_n, 1);
	assert_int_equal(a.q.connections[0].reason, END_DAEMON_LOST);
	assert_int_equal(a.q.connections[0].closed_by, CLOSED_BY_NOBODY);
	assert_int_equal(a.q.connections[0].end_us, 70000);
	assert_int_equal(a.q.connections[0].last_state, ST_FIN_WAIT_2);
	forget(&a);
	a = (struct asked){ .q = { .id = 2, .limit = 1 } };
	ask(r, &a);
	assert_int_equal(a.q.connections[0].reason, END_NORMAL);
	forget(&a);
	record_close(r, 0);
	assert_int_equal(sql_number("SELECT count(*) FROM run"), 2);
	assert_int_equal(
		sql_number("SELECT count(*) FROM run WHERE end_us IS NULL AND seen_us = 70000"), 1);
}

/* --- bursts --- */

enum { PUTTERS = 4, PUTS = 25000 };

struct putter {
	struct record *record;
	uint64_t first;
};

static void *putter_main(void *arg)
{
	const struct putter *p = arg;

	for (uint64_t i = 0; i < PUTS / 5; i++) {
		put_connection(p->record, p->first + i, 0);
		for (unsigned k = 0; k < 3; k++)
			put_transition(p->record, p->first + i, k);
		put_connection(p->record, p->first + i, 77);
	}
	return NULL;
}

static void burst(struct record *r)
{
	pthread_t threads[PUTTERS];
	struct putter putters[PUTTERS];

	for (int i = 0; i < PUTTERS; i++) {
		putters[i] = (struct putter){ r, 1 + (uint64_t)i * PUTS };
		assert_int_equal(pthread_create(&threads[i], NULL, putter_main, &putters[i]), 0);
	}
	for (int i = 0; i < PUTTERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void test_burst(void **state)
{
	struct record *r = open_with(
		(struct record_config){ .what = RECORD_TRANSITIONS, .queue_max = PUTTERS * PUTS });
	struct asked a = { .q = { .limit = 1 } };
	struct record_counters c;

	burst(r);
	ask(r, &a); /* sees all that was put */
	forget(&a);
	record_counters(r, &c);
	assert_int_equal(c.rows_written, PUTTERS * PUTS);
	assert_int_equal(c.rows_dropped, 0);
	assert_int_equal(c.queue, 0);
	assert_true(c.batches >= PUTTERS * PUTS / STORE_BATCH_MAX);
	assert_int_equal(sql_number("SELECT count(*) FROM connection WHERE end_us = 77"),
			 PUTTERS * PUTS / 5);
	assert_int_equal(sql_number("SELECT count(*) FROM transition"), PUTTERS * PUTS / 5 * 3);
	record_close(r, 0);
}

/* More than the queue holds: nothing waits, what is lost is counted, what is counted is there. */
static void test_overrun(void **state)
{
	struct record *r = open_with(
		(struct record_config){ .what = RECORD_TRANSITIONS, .queue_max = 100 });
	struct asked a = { .q = { .limit = 1 } };
	struct record_counters c;
	int64_t transitions;

	for (unsigned i = 0; i < 20000; i++)
		put_transition(r, 1 + i % 1000, i);
	ask(r, &a);
	forget(&a);
	record_counters(r, &c);
	transitions = sql_number("SELECT count(*) FROM transition");
	assert_true(c.rows_dropped > 0);
	assert_int_equal(c.rows_written + c.rows_dropped, 20000);
	assert_int_equal(transitions, c.rows_written);
	assert_string_equal(c.last_error, "");
	record_close(r, 0);
}

/* --- giving way --- */

static struct {
	atomic_uint yields;
	struct record *flooded; /* gets FLOOD rows at the next yield */
} way;

enum { WAY_QUEUE = 2048, FLOOD = 1600 /* more than three quarters of it */ };

int __real_sched_yield(void);
int __wrap_sched_yield(void);

/* The writer calls it. */
int __wrap_sched_yield(void)
{
	atomic_fetch_add(&way.yields, 1);
	for (unsigned i = 0; way.flooded && i < FLOOD; i++)
		put_transition(way.flooded, 10000 + i, i);
	way.flooded = NULL;
	return __real_sched_yield();
}

/* How often the writer gives way for so many rows, and whatever comes meanwhile. */
static unsigned yields_of(unsigned rows, bool flood)
{
	struct record *r = open_with(
		(struct record_config){ .what = RECORD_TRANSITIONS, .queue_max = WAY_QUEUE });
	struct asked a = { .q = { .limit = 1 } };

	atomic_store(&way.yields, 0);
	way.flooded = flood ? r : NULL;
	for (unsigned i = 0; i < rows; i++)
		put_transition(r, 1 + i, i);
	for (int i = 0; i < 2; i++) { /* the second one for what came during the first */
		ask(r, &a);
		forget(&a);
		a = (struct asked){ .q = { .limit = 1 } };
	}
	assert_int_equal(sql_number("SELECT count(*) FROM transition"), rows + flood * FLOOD);
	record_close(r, STOP_US);
	assert_int_equal(unlink(path), 0);
	return atomic_load(&way.yields);
}

/* A writer that shares a core lets others go first after every few rows, unless rows could be lost by that. */
static void test_gives_way(void **state)
{
	const unsigned n = yields_of(4 * BATCH_STEP, false);

	assert_in_range(n, 1, 4); /* less than 4: they were several batches */
	assert_int_equal(yields_of(BATCH_STEP - 1, false), 0);
	assert_int_equal(yields_of(4 * BATCH_STEP, true), 1);
}

/* --- retention --- */

static void fill(struct store *s, uint64_t first, unsigned n, uint64_t end_us)
{
	enum { ROWS = 1000 }; /* two for each; n is a multiple of half of it */
	struct row rows[ROWS];
	struct errmsg err;

	for (unsigned at = 0; at < n; at += ROWS / 2) {
		for (unsigned i = 0; i < ROWS / 2; i++) {
			rows[2 * i] = (struct row){ .connection = connection(
							    first + at + i,
							    end_us ? end_us + at + i : 0) };
			rows[2 * i + 1] = (struct row){
				.is_transition = true,
				.transition = { .connection = first + at + i, .cause = CAUSE_USER }
			};
		}
		assert_int_equal(store_write(s, rows, ROWS, 1, &err), 0);
	}
}

static unsigned prune_all(struct store *s, uint64_t retain_us, uint64_t retain_bytes,
			  uint64_t now_us)
{
	struct errmsg err;
	unsigned steps = 0;
	bool more = true;

	for (; more; steps++)
		assert_int_equal(store_prune(s, retain_us, retain_bytes, now_us, &more, &err), 0);
	return steps;
}

static void test_retain_age(void **state)
{
	struct store s = { 0 };
	struct errmsg err;

	assert_int_equal(store_open(&s, path, 1, &err), 0);
	fill(&s, 1, 500, 0); /* open: they stay whatever their age */
	fill(&s, 1001, 1000, 1000000);
	assert_int_equal(prune_all(&s, 1000000, 0, 2000000), 1);
	assert_int_equal(sql_number("SELECT count(*) FROM connection"), 1500);
	/* The cutoff is exact: end_us 1000600 and later stay. */
	assert_true(prune_all(&s, 1000000, 0, 2000600) >= 3);
	assert_int_equal(sql_number("SELECT count(*) FROM connection"), 900);
	assert_int_equal(sql_number("SELECT min(end_us) FROM connection"), 1000600);
	assert_int_equal(sql_number("SELECT count(*) FROM transition"), 900);
	(void)prune_all(&s, 1, 0, 9000000);
	assert_int_equal(sql_number("SELECT count(*) FROM connection"), 500);
	assert_int_equal(sql_number("SELECT count(*) FROM connection WHERE end_us IS NULL"), 500);
	store_close(&s, 1);
}

static void test_retain_size(void **state)
{
	struct store s = { 0 };
	struct errmsg err;
	struct stat st;
	uint64_t full;

	assert_int_equal(store_open(&s, path, 1, &err), 0);
	fill(&s, 1, 10000, 1000000);
	full = store_bytes(&s);
	assert_true(full > 1000000);
	(void)prune_all(&s, 0, full / 2, 2000000);
	assert_true(store_bytes(&s) <= full / 2 + (1 << 20) / 4);
	assert_true(store_bytes(&s) > full / 4);
	/* The oldest went, with their transitions; the newest are all there. */
	assert_int_equal(sql_number("SELECT max(id) FROM connection"), 10000);
	assert_int_equal(sql_number("SELECT max(id) - min(id) + 1 - count(*) FROM connection"), 0);
	assert_int_equal(sql_number("SELECT count(*) FROM transition"),
			 sql_number("SELECT count(*) FROM connection"));
	store_close(&s, 1);
	assert_int_equal(stat(path, &st), 0);
	assert_true((uint64_t)st.st_size <= full / 2 + (1 << 20) / 4);
}

/* Transitions without a connection, because its row was dropped, do not stay for ever. */
static void test_retain_orphans(void **state)
{
	struct store s = { 0 };
	struct errmsg err;
	const struct row orphan = { .is_transition = true,
				    .transition = {
					    .connection = 3, .at_us = 5, .cause = CAUSE_USER } };

	assert_int_equal(store_open(&s, path, 1, &err), 0);
	assert_int_equal(store_write(&s, &orphan, 1, 1, &err), 0);
	fill(&s, 1001, 500, 1000);
	fill(&s, 2001, 500, 7200000000);
	(void)prune_all(&s, 3600000000, 0, 7200000000);
	assert_int_equal(sql_number("SELECT count(*) FROM transition WHERE connection = 3"), 0);
	assert_int_equal(sql_number("SELECT count(*) FROM transition"), 500);
	store_close(&s, 1);
}

/* The writer prunes by itself, at start. */
static void test_retain_by_writer(void **state)
{
	struct store s = { 0 };
	struct errmsg err;
	struct record *r;
	int64_t left = -1;

	assert_int_equal(store_open(&s, path, 1, &err), 0);
	fill(&s, 1, 2000, 1000);
	store_close(&s, 1);
	r = open_with((struct record_config){ .what = RECORD_TRANSITIONS, .retain_us = 1000000 });
	for (int i = 0; left != 0 && i < 1000; i++) {
		(void)usleep(10000); /* it is the thread's own time that is waited for */
		left = sql_number("SELECT count(*) FROM connection");
	}
	assert_int_equal(left, 0);
	record_close(r, 0);
}

/* --- what is wrong with the file --- */

static void test_text_file(void **state)
{
	char text[5000];

	memset(text, 'x', sizeof(text));
	write_file(path, text, sizeof(text));
	assert_refused(-EBADMSG, "move it away");
	write_file(path, "short", 5);
	assert_refused(-EBADMSG, "move it away");
}

static void test_empty_file(void **state)
{
	struct record *r;

	write_file(path, "", 0);
	r = open_default();
	record_close(r, 0);
	assert_int_equal(sql_number("PRAGMA user_version"), STORE_SCHEMA);
}

/* A database whose pages were overwritten is found out at start. */
static void test_corrupt(void **state)
{
	struct store s = { 0 };
	struct errmsg err;
	char junk[4096];
	int fd;

	assert_int_equal(store_open(&s, path, 1, &err), 0);
	fill(&s, 1, 5000, 1000000);
	store_close(&s, 1);
	memset(junk, 0xa5, sizeof(junk));
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	for (off_t page = 40; page < 60; page++)
		assert_int_equal(pwrite(fd, junk, sizeof(junk), page * 4096), sizeof(junk));
	assert_int_equal(close(fd), 0);
	assert_refused(-EBADMSG, "damaged");
}

static void test_truncated(void **state)
{
	struct store s = { 0 };
	struct errmsg err;

	assert_int_equal(store_open(&s, path, 1, &err), 0);
	fill(&s, 1, 5000, 1000000);
	store_close(&s, 1);
	assert_int_equal(truncate(path, 100 * 4096), 0);
	assert_refused(-EBADMSG, "damaged");
}

static void test_newer_schema(void **state)
{
	record_close(open_default(), 0);
	sql_run("PRAGMA user_version=3");
	assert_refused(-ENOTSUP, "newer tcpfsmd");
	assert_int_equal(sql_number("PRAGMA user_version"), 3);
}

/* A file of the first version: all of it is there, and what comes is added. */
static struct {
	unsigned calls;
	int from;
	uint64_t bytes;
} converted;

static void on_converting(const char *name, int from_version, uint64_t bytes)
{
	assert_string_equal(name, path);
	converted.calls++;
	converted.from = from_version;
	converted.bytes = bytes;
}

static void make_version_1(void)
{
	char sql[256];

	(void)snprintf(sql, sizeof(sql), "PRAGMA application_id=%d; PRAGMA user_version=1",
		       STORE_APPLICATION_ID);
	sql_run("PRAGMA auto_vacuum=INCREMENTAL");
	sql_run(migrations[0]);
	sql_run(sql);
	sql_run("INSERT INTO run VALUES(1, 1, 900, NULL, '0.1.0', 1)");
	sql_run("INSERT INTO connection(id, run, local_address, local_port, remote_address, "
		"remote_port, direction, start_us,"
		" bytes_in, bytes_out, segments_in, segments_out, retransmitted_segments, "
		"retransmitted_bytes)"
		" VALUES(5, 1, '10.0.0.2', 7, '10.0.0.1', 50000, 'passive', 10, 0, 0, 0, 0, 0, 0)");
	/* Numbered with gaps, and not in the order of their keys. */
	sql_run("INSERT INTO transition VALUES"
		"(5, 40, 12, 'syn_received', 'established', 'segment ACK', 16, 'syn_received_ack', "
		"8, 9),"
		"(7, 41, 13, 'listen', 'syn_received', 'segment SYN', 2, 'listen_syn', 70, NULL),"
		"(5, 9, 11, 'listen', 'syn_received', 'segment SYN', 2, 'listen_syn', 7, 0),"
		"(5, 77, 14, 'established', 'fin_wait_1', 'user', 0, 'close', NULL, NULL)");
}

static void test_version_1(void **state)
{
	static const enum tcp_state to[] = { ST_SYN_RECEIVED, ST_ESTABLISHED, ST_FIN_WAIT_1,
					     ST_CLOSED };
	struct record_transition t = {
		.connection = 5, .at_us = 15, .from = ST_FIN_WAIT_1, .cause = CAUSE_OPERATOR
	};
	struct asked a = { .q = { .transitions = true, .id = 5, .limit = 10 } };
	struct record *r;

	make_version_1();
	memset(&converted, 0, sizeof(converted));
	r = open_with(
		(struct record_config){ .what = RECORD_TRANSITIONS, .converting = on_converting });
	assert_int_equal(converted.calls, 1);
	assert_int_equal(converted.from, 1);
	assert_true(converted.bytes > 10000);
	assert_int_equal(record_next_id(r), 8);
	record_transition_put(r, &t);
	ask(r, &a);
	assert_int_equal(a.q.rows_n, ARRAY_SIZE(to));
	for (unsigned i = 0; i < ARRAY_SIZE(to); i++) {
		assert_int_equal(a.q.transition_rows[i].to, to[i]);
		assert_int_equal(a.q.transition_rows[i].at_us, i == 0 ? 11 : i == 1 ? 12 : 12 + i);
	}
	assert_int_equal(a.q.transition_rows[0].rule, RULE_LISTEN_SYN);
	assert_int_equal(a.q.transition_rows[1].seq, 8);
	assert_int_equal(a.q.transition_rows[1].ack, 9);
	forget(&a);
	record_close(r, STOP_US);
	assert_int_equal(sql_number("PRAGMA user_version"), STORE_SCHEMA);
	assert_int_equal(sql_number("SELECT count(*) FROM transition"), 5);
	assert_int_equal(sql_number("SELECT count(*) FROM transition_kind"), 4);
	assert_int_equal(
		sql_number("SELECT count(*) FROM transition WHERE connection = 7 AND ack IS NULL"),
		1);
	/* What the lost run left open ended in its last state. */
	assert_int_equal(sql_number("SELECT count(*) FROM connection WHERE id = 5 AND last_state = "
				    "'fin_wait_1'"),
			 1);
	r = open_with(
		(struct record_config){ .what = RECORD_TRANSITIONS, .converting = on_converting });
	assert_int_equal(converted.calls, 1);
	record_close(r, 0);
}

/* A history that is none, of somebody else's making: it is said when it is asked for, and is in nobody's way. */
static void test_no_history(void **state)
{
	struct asked a = { .q = { .transitions = true, .id = 1, .limit = 10, .done = on_done } };
	struct store s = { 0 };
	struct errmsg err;
	struct record *r;
	bool more;

	assert_int_equal(store_open(&s, path, 1, &err), 0);
	fill(&s, 2, 500, 0);
	store_close(&s, 0);
	sql_run("INSERT INTO history VALUES(1, 'junk'), (0, '[]'), (-1, '[[1,2'); UPDATE history "
		"SET transitions = '[[' WHERE connection = 3");
	r = open_default();
	(void)sem_init(&a.done, 0, 0);
	assert_int_equal(record_query(r, &a.q), 0);
	assert_int_equal(sem_wait(&a.done), 0);
	assert_int_equal(a.q.rc, -EIO);
	assert_non_null(strstr(a.q.err.text, "malformed JSON"));
	assert_non_null(strstr(a.q.err.text, path));
	forget(&a);
	put_transition(r, 1, 5);
	put_transition(r, 0, 5);
	put_transition(r, 3, 5);
	record_close(r, STOP_US);
	assert_int_equal(
		sql_number("SELECT count(*) FROM connection WHERE end_reason = 'daemon_lost'"),
		500);
	assert_int_equal(store_open(&s, path, 1, &err), 0);
	assert_int_equal(store_prune(&s, 1000000, 0, 7200000000, &more, &err), 0);
	assert_int_equal(sql_number("SELECT count(*) FROM history WHERE connection < 3"), 0);
	store_close(&s, 1);
}

static void test_foreign(void **state)
{
	sql_run("CREATE TABLE songs(title TEXT)");
	assert_refused(-EEXIST, "another program");
	sql_run("PRAGMA application_id=7; DROP TABLE songs");
	assert_refused(-EEXIST, "another program");
	/* Nothing was written into it. */
	assert_int_equal(sql_number("SELECT count(*) FROM sqlite_schema"), 0);
	assert_int_equal(
		sql_number("SELECT count(*) FROM pragma_journal_mode WHERE journal_mode = 'wal'"),
		0);
}

static void test_bad_places(void **state)
{
	char lock[80];

	(void)snprintf(path, sizeof(path), "%s/none/t.db", dir);
	assert_refused(-ENOENT, "make it, or choose another [Storage] Database");
	(void)snprintf(path, sizeof(path), "%s/file", dir);
	write_file(path, "", 0);
	(void)snprintf(path, sizeof(path), "%s/file/t.db", dir);
	assert_refused(-ENOTDIR, "not a directory");
	(void)snprintf(path, sizeof(path), "%s/d", dir);
	assert_int_equal(mkdir(path, 0755), 0);
	assert_refused(-EINVAL, "no regular file");
	(void)snprintf(path, sizeof(path), "%s/t.db", dir);
	(void)snprintf(lock, sizeof(lock), "%s.lock", path);
	assert_int_equal(mkdir(lock, 0755), 0);
	assert_refused(-EISDIR, "cannot be opened for writing");
}

static void test_second_opener(void **state)
{
	struct record *r = open_default();
	char words[64];

	(void)snprintf(words, sizeof(words), "another tcpfsmd (pid %d) records into it",
		       (int)getpid());
	assert_refused(-EBUSY, words);
	record_close(r, 0);
	record_close(open_default(), 0);
}

/* Another program holds the database: at start that is an error, later rows wait. */
static void test_locked(void **state)
{
	struct record *r = open_default();
	sqlite3 *db = hold("BEGIN IMMEDIATE");
	struct record_counters c;
	struct asked a = { .q = { .id = 1, .limit = 1 } };

	put_connection(r, 1, 5);
	ask(r, &a); /* answered with what there is */
	assert_int_equal(a.q.rows_n, 0);
	forget(&a);
	record_counters(r, &c);
	assert_true(c.errors > 0);
	assert_int_equal(c.queue, 1);
	assert_non_null(strstr(c.last_error, "keeps the database locked"));
	let_go(db);
	a = (struct asked){ .q = { .id = 1, .limit = 1 } };
	ask(r, &a);
	assert_int_equal(a.q.rows_n, 1);
	forget(&a);
	record_counters(r, &c);
	assert_string_equal(c.last_error, "");
	assert_int_equal(c.rows_written, 1);
	record_close(r, STOP_US);
	db = hold("BEGIN EXCLUSIVE");
	assert_refused(-EBUSY, "keeps the database locked");
	let_go(db);
}

/* Somebody removes the file, or puts another in its place: the record goes on in a new one. */
static void test_removed(void **state)
{
	struct record *r = open_default();
	struct asked a = { .q = { .id = 1, .limit = 1 } };

	put_connection(r, 1, 5);
	ask(r, &a);
	assert_int_equal(a.q.rows_n, 1);
	forget(&a);
	assert_int_equal(unlink(path), 0);
	put_connection(r, 2, 5);
	a = (struct asked){ .q = { .limit = 10 } };
	ask(r, &a);
	assert_int_equal(a.q.rows_n, 1);
	assert_int_equal(a.q.connections[0].id, 2);
	forget(&a);
	assert_int_equal(sql_number("SELECT count(*) FROM connection"), 1);
	record_close(r, STOP_US);
}

/* --- a full disk --- */

/* A file system over `dir`, in the mount namespace of this process. */
static void small_disk(const char *size)
{
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tcpfsm-test", dir, "tmpfs", 0, size)) {
		print_message("no mount namespace here: %s\n", strerror(errno));
		skip();
	}
}

static void fill_disk(const char *name)
{
	static const char zeros[4096];
	const int fd = open(name, O_WRONLY | O_CREAT, 0644);

	assert_true(fd >= 0);
	while (write(fd, zeros, sizeof(zeros)) > 0)
		;
	assert_int_equal(errno, ENOSPC);
	assert_int_equal(close(fd), 0);
}

static void test_disk_full(void **state)
{
	struct record *r;
	struct record_counters c;
	struct asked a = { .q = { .limit = 1 } };
	char ballast[80];
	unsigned puts = 0;

	small_disk("size=1m");
	(void)snprintf(ballast, sizeof(ballast), "%s/ballast", dir);
	r = open_with((struct record_config){ .what = RECORD_TRANSITIONS, .queue_max = 3000 });
	put_connection(r, ++puts, 5);
	ask(r, &a);
	forget(&a);
	fill_disk(ballast);
	while (puts < 2000)
		put_connection(r, ++puts, 5);
	a = (struct asked){ .q = { .limit = 1 } };
	ask(r, &a); /* reading goes on */
	assert_true(a.q.rows_n == 1);
	forget(&a);
	record_counters(r, &c);
	assert_true(c.errors > 0);
	assert_non_null(strstr(c.last_error, "the disk is full"));
	assert_true(c.rows_written < puts);
	while (puts < 10000)
		put_connection(r, ++puts, 5);
	record_counters(r, &c);
	assert_true(c.rows_dropped > 0);
	assert_int_equal(unlink(ballast), 0);
	a = (struct asked){ .q = { .limit = 1 } };
	ask(r, &a);
	forget(&a);
	record_counters(r, &c);
	assert_string_equal(c.last_error, "");
	assert_int_equal(c.queue, 0);
	assert_int_equal(c.rows_written + c.rows_dropped, puts);
	assert_int_equal(sql_number("SELECT count(*) FROM connection"), c.rows_written);
	record_close(r, STOP_US);
	assert_int_equal(umount(dir), 0);
}

/* Too small for the tables even. */
static void test_no_room(void **state)
{
	small_disk("size=24k");
	assert_refused(-ENOSPC, "the disk is full");
	assert_int_equal(umount(dir), 0);
}

static void test_read_only(void **state)
{
	small_disk("size=1m");
	assert_int_equal(mount("none", dir, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	assert_refused(-EROFS, "cannot be opened for writing");
	assert_int_equal(umount(dir), 0);
}

/* --- the end --- */

struct gate {
	struct asked first;
	sem_t entered, go;
};

static bool match_gate(void *arg, const struct record_connection *row)
{
	struct gate *g = arg;

	(void)sem_post(&g->entered);
	(void)sem_wait(&g->go);
	return true;
}

/* A limit on questions; those that wait at the end are answered, once. */
static void test_questions(void **state)
{
	struct record *r = open_default();
	static struct asked waiting[64], more;
	struct gate g = {
		.first = { .q = { .limit = 1, .match = match_gate, .arg = &g, .done = on_done } }
	};

	put_connection(r, 1, 5);
	(void)sem_init(&g.entered, 0, 0);
	(void)sem_init(&g.go, 0, 0);
	(void)sem_init(&g.first.done, 0, 0);
	assert_int_equal(record_query(r, &g.first.q), 0);
	assert_int_equal(sem_wait(&g.entered), 0);
	for (size_t i = 0; i < ARRAY_SIZE(waiting); i++) {
		waiting[i].q = (struct record_query){ .limit = 1, .done = on_done };
		(void)sem_init(&waiting[i].done, 0, 0);
		assert_int_equal(record_query(r, &waiting[i].q), 0);
	}
	more.q = (struct record_query){ .limit = 1, .done = on_done };
	assert_int_equal(record_query(r, &more.q), -EAGAIN);
	(void)sem_post(&g.go);
	record_close(r, STOP_US);
	assert_int_equal(g.first.done_n, 1);
	for (size_t i = 0; i < ARRAY_SIZE(waiting); i++) {
		assert_int_equal(waiting[i].done_n, 1);
		forget(&waiting[i]);
	}
	assert_int_equal(more.done_n, 0);
	forget(&g.first);
}

/* The end does not wait for a database that cannot be written. */
static void test_close_gives_up(void **state)
{
	struct record *r = open_default();
	sqlite3 *db = hold("BEGIN IMMEDIATE");
	uint64_t took_us;

	put_connection(r, 1, 5);
	took_us = clock_monotonic_us();
	record_close(r, 300000);
	took_us = clock_monotonic_us() - took_us;
	assert_true(took_us < 5000000);
	let_go(db);
}

/* The disks are a child's, in a mount namespace of its own that ends with it. */
static int run_disk_tests(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_disk_full),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_read_only),
	};
	int status = 1;
	pid_t pid;

	if (setup(NULL))
		return 1;
	pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWNS) == 0)
			exit(cmocka_run_group_tests(tests, NULL, NULL));
		print_message("tests of full disks left out: unshare: %s\n", strerror(errno));
		exit(0);
	}
	if (pid > 0)
		(void)waitpid(pid, &status, 0);
	return (status != 0) + (teardown(NULL) != 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_fresh),
		T(test_nothing),
		T(test_connections_only),
		T(test_connection_fields),
		T(test_words),
		T(test_state_words),
		T(test_transition_order),
		T(test_many_kinds),
		T(test_kind_numbers),
		T(test_kind_taken_back),
		T(test_batch_order),
		T(test_version_1),
		T(test_no_history),
		T(test_paging),
		T(test_match),
		T(test_one),
		T(test_coalesce),
		T(test_daemon_lost),
		T(test_burst),
		T(test_overrun),
		T(test_gives_way),
		T(test_retain_age),
		T(test_retain_size),
		T(test_retain_orphans),
		T(test_retain_by_writer),
		T(test_text_file),
		T(test_empty_file),
		T(test_corrupt),
		T(test_truncated),
		T(test_newer_schema),
		T(test_foreign),
		T(test_bad_places),
		T(test_second_opener),
		T(test_locked),
		T(test_removed),
		T(test_questions),
		T(test_close_gives_up),
	};
	const int failed = cmocka_run_group_tests(tests, NULL, NULL);

	return failed + run_disk_tests();
}
