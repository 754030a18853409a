/* SPDX-License-Identifier: Apache-2.0 */
/* A database that is damaged, or was made to do harm: opened, read, written, pruned. Each call ends,
 * with an answer or with words that say what is wrong; a query that failed hands out no rows.
 *
 * The first octet odd: the rest is the file. Even: a sound database is changed, each four octets are one
 * change: place (3 octets, of the whole file), value.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/macros.h"
#include "record/query.h"
#include "record/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IMAGE_MAX = 1 << 20, SOUND_ROWS = 40, NOW_US = 1000000000 };

static char dir[32], path[64];
static uint8_t sound[IMAGE_MAX];
static size_t sound_len;

static void remove_file(const char *suffix)
{
	char name[80];

	(void)snprintf(name, sizeof(name), "%s%s", path, suffix);
	(void)unlink(name);
}

static void clean_up(void)
{
	remove_file("");
	remove_file("-wal");
	remove_file("-shm");
	remove_file("-journal");
}

static void leave(void)
{
	clean_up();
	(void)rmdir(dir);
}

static struct row row_of(unsigned i)
{
	struct row r = { .is_transition = i % 3 == 2 };

	if (r.is_transition)
		r.transition = (struct record_transition){
			.connection = i / 3 + 1,
			.at_us = NOW_US + i,
			.from = ST_SYN_RECEIVED,
			.to = ST_ESTABLISHED,
		};
	else
		r.connection = (struct record_connection){
			.id = i / 3 + 1,
			.service = "echo",
			.start_us = NOW_US,
			.end_us = i & 1 ? NOW_US + i : 0,
			.reason = i & 1 ? END_NORMAL : END_NONE,
		};
	return r;
}

static void put_rows(struct store *s, unsigned n)
{
	struct row rows[SOUND_ROWS];
	struct errmsg err = { "" };

	for (unsigned i = 0; i < n; i++)
		rows[i] = row_of(i);
	if (store_write(s, rows, n, NOW_US, &err))
		assert(err.text[0]);
}

/* The sound one, made by what is tested. */
static void make_sound(void)
{
	struct store s = { .path = NULL };
	struct errmsg err = { "" };
	ssize_t n;
	int fd;

	(void)strcpy(dir, access("/dev/shm", W_OK) ? "/tmp/tcpfsm-fuzz-XXXXXX"
						   : "/dev/shm/tcpfsm-fuzz-XXXXXX");
	if (!mkdtemp(dir))
		abort();
	(void)snprintf(path, sizeof(path), "%s/f.db", dir);
	(void)atexit(leave);
	if (store_open(&s, path, NOW_US, &err))
		abort();
	put_rows(&s, SOUND_ROWS);
	store_close(&s, NOW_US);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, sound, sizeof(sound));
	if (n <= 0 || close(fd))
		abort();
	sound_len = (size_t)n;
}

static void write_file(const uint8_t *image, size_t len)
{
	const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, image, len) != (ssize_t)len || close(fd))
		abort();
}

static void write_changed(const uint8_t *data, size_t size)
{
	static uint8_t image[IMAGE_MAX];

	memcpy(image, sound, sound_len);
	for (; size >= 4; data += 4, size -= 4) {
		const size_t at = (size_t)data[0] << 16 | (size_t)data[1] << 8 | data[2];

		image[at % sound_len] = data[3];
	}
	write_file(image, sound_len);
}

static void no_more(struct record_query *q)
{
	for (size_t i = 0; i < q->rows_n && !q->transitions; i++) {
		assert(memchr(q->connections[i].service, 0, sizeof(q->connections[i].service)));
		assert(memchr(q->connections[i].interface, 0, sizeof(q->connections[i].interface)));
	}
	assert(!q->rc || (!q->rows_n && !q->connections && q->err.text[0]));
	free(q->connections);
	free(q->transition_rows);
}

static void look(void)
{
	const struct record_query asked[] = {
		{ .limit = 10 },
		{ .id = 1, .limit = 1 },
		{ .transitions = true, .id = 1, .limit = 100 },
		{ .before_id = 7, .limit = 1000 },
	};
	struct errmsg err = { "" };
	sqlite3 *db;

	if (store_open_reader(path, &db, &err)) {
		assert(err.text[0]);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
		struct record_query q = asked[i];

		query_run(db, path, &q);
		no_more(&q);
	}
	(void)sqlite3_close(db);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct store s = { .path = NULL };
	struct errmsg err = { "" };
	bool more = true;

	if (!sound_len)
		make_sound();
	if (!size)
		return 0;
	clean_up();
	if (data[0] & 1)
		write_file(data + 1, size - 1 < IMAGE_MAX ? size - 1 : IMAGE_MAX);
	else
		write_changed(data + 1, size - 1);
	look();
	if (store_open(&s, path, NOW_US, &err)) {
		assert(err.text[0] && !s.db);
		return 0;
	}
	put_rows(&s, 5);
	(void)store_heartbeat(&s, NOW_US, &err);
	(void)store_bytes(&s);
	for (unsigned i = 0; i < 3 && more; i++)
		if (store_prune(&s, 10, data[0] & 2 ? 4096 : 0, NOW_US + 1000, &more, &err))
			break;
	look();
	store_close(&s, NOW_US);
	return 0;
}
