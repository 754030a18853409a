/* SPDX-License-Identifier: Apache-2.0 */
/* The file service on a fake engine. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "fake_engine.h"
#include "service/service.h"

enum { FILE_BYTES = 3000000 };

static uint8_t content[FILE_BYTES], got[FILE_BYTES];

static struct {
	struct engine *engine;
	struct fake_conn *c;
	struct service_host host;
	struct service *service;
	struct session s;
	char path[64];
} f;

static void on_wakeup(struct service_host *h)
{
	h->now.us++;
}

static void write_file(size_t len)
{
	const int fd = open(f.path, O_WRONLY | O_TRUNC);

	assert_int_equal(write(fd, content, len), len);
	(void)close(fd);
}

static void setup(size_t len)
{
	char text[80];

	memset(&f, 0, sizeof(f));
	for (unsigned i = 0; i < FILE_BYTES; i++)
		content[i] = (uint8_t)(i * 7 + i / 251);
	(void)snprintf(f.path, sizeof(f.path), "/tmp/tcpfsm-file.XXXXXX");
	(void)close(mkstemp(f.path));
	write_file(len);
	f.engine = fake_engine_new();
	f.c = &f.engine->conns[0];
	f.host.engine = f.engine;
	f.host.base = event_base_new();
	f.host.begin = on_wakeup;
	f.host.end = on_wakeup;
	assert_int_equal(service_host_init(&f.host), 0);
	(void)snprintf(text, sizeof(text), "file:%s", f.path);
	assert_int_equal(service_new(text, NULL, &f.service, NULL), 0);
	session_init(&f.s, &f.host, (conn_id){ 0, 1 }, 7, f.service);
}

static void teardown(void)
{
	session_fini(&f.s, false);
	service_unref(f.service);
	service_host_fini(&f.host);
	event_base_free(f.host.base);
	fake_engine_free(f.engine);
	(void)unlink(f.path);
}

static void small_and_empty_files_go_at_once(void **state)
{
	static const size_t sizes[] = { 0, 1, 65536, 65537, 1000000 };

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		setup(sizes[i]);
		assert_int_equal(session_open(&f.s), 0);
		assert_int_equal(f.c->out_len, sizes[i]);
		assert_memory_equal(f.c->out, content, sizes[i]);
		assert_true(event_base_loop(f.host.base, EVLOOP_NONBLOCK) >= 0);
		assert_true(f.c->closed);
		assert_false(f.c->aborted);
		session_ready(&f.s, REPORT_ALL_ACKED);
		assert_true(f.c->stopped_reading);
		teardown();
	}
}

static void a_peer_that_does_not_read_stops_it(void **state)
{
	size_t at = 0;

	setup(FILE_BYTES);
	f.c->room = 70000;
	assert_int_equal(session_open(&f.s), 0);
	assert_int_equal(f.c->out_len, 70000);
	assert_int_equal(event_base_loop(f.host.base, EVLOOP_NONBLOCK), 1); /* nothing to do */
	while (!f.c->closed) {
		memcpy(got + at, f.c->out, f.c->out_len);
		at += f.c->out_len;
		f.c->out_len = 0;
		f.c->room = 50001;
		session_ready(&f.s, REPORT_WRITABLE);
	}
	memcpy(got + at, f.c->out, f.c->out_len);
	assert_int_equal(at + f.c->out_len, FILE_BYTES);
	assert_memory_equal(got, content, FILE_BYTES);
	teardown();
}

static void a_wakeup_has_a_limit(void **state)
{
	enum { LIMIT = 16 << 16 }; /* 16 pieces of 64 KiB, though there were room for more */

	setup(FILE_BYTES);
	f.c->room = (size_t)1 << 40;
	assert_int_equal(session_open(&f.s), 0);
	assert_int_equal(f.c->out_len, LIMIT);
	assert_false(f.c->closed);
	f.c->out_len = 0;
	assert_int_equal(event_base_loop(f.host.base, EVLOOP_ONCE), 0);
	assert_memory_equal(f.c->out, content + LIMIT, LIMIT);
	teardown();
}

static void what_the_peer_says_is_thrown_away(void **state)
{
	setup(FILE_BYTES);
	f.c->room = 10;
	fake_arrive(f.engine, 0, "GET /", 5);
	f.c->peer_fin = true;
	assert_int_equal(session_open(&f.s), 0);
	session_ready(&f.s, REPORT_READABLE | REPORT_PEER_CLOSED);
	assert_int_equal(f.c->in_len, 0);
	assert_int_equal(session_text(&f.s, (struct span){ content, 9 }), 9);
	assert_false(f.c->closed);
	teardown();
}

static void a_file_that_went_away_refuses(void **state)
{
	setup(10);
	(void)unlink(f.path);
	assert_int_equal(session_open(&f.s), -ENOENT);
	assert_int_equal(mkfifo(f.path, 0600), 0);
	assert_int_equal(session_open(&f.s), -EINVAL);
	teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_and_empty_files_go_at_once),
		cmocka_unit_test(a_peer_that_does_not_read_stops_it),
		cmocka_unit_test(a_wakeup_has_a_limit),
		cmocka_unit_test(what_the_peer_says_is_thrown_away),
		cmocka_unit_test(a_file_that_went_away_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
