/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that a program holds, or a backend, and those that are given files: whatever both sides do, in any order, and
 * whichever reports come together, nothing is used after it is gone, every octet that gets through is the right one,
 * in its place, nobody is told of a connection twice, and no descriptor stays.
 *
 * The first octet: the service, and how much room the send buffer has. Then two octets a step: what happens, how much.
 */
#include <assert.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../unit/service/fake_engine.h"
#include "base/stream_order.h"
#include "service/service.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	STEPS_MAX = 300,
	PIECE = 16384,
	WAITS_MAX = 4 * PIECE,
	DEFER_US = 60000000,
	FILE_SIZE = 100000
};

enum kind { PASSED, ACCEPTED, DEFERRED, RELAY, FILES, HTTP, KINDS };

static struct {
	enum kind kind;
	struct service_host host;
	struct service *service;
	struct session s;
	struct fake_conn *c;
	unsigned due; /* reports that are to come */
	size_t peer_sent, heard; /* of the peer's text: octets sent, read by the holder */
	size_t said, answered; /* of the holder's: octets written, found in what the engine sent */
	int holder; /* -1: nobody has it yet, or no more */
	int waiting; /* where connections are to be accepted; -1 */
	unsigned told; /* connections that were */
	bool over;
} f;

static struct engine *engine;
static struct event_base *base;
static int backend = -1; /* listens */
static char texts[KINDS][100]; /* of services that have one */

static uint8_t octet(size_t at, bool of_peer)
{
	return (uint8_t)(at * 31 + at / 251 + of_peer);
}

static void on_wakeup(struct service_host *h)
{
	h->now.us++;
}

/* ---- before all ---- */

static char directory[] = "/tmp/tcpfsm-fuzz.XXXXXX";

static const char *path_of(const char *name)
{
	static char path[64];

	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	return path;
}

static void remove_directory(void)
{
	(void)unlink(path_of("s"));
	(void)unlink(path_of("f"));
	(void)rmdir(directory);
}

static void write_file(void)
{
	static uint8_t content[FILE_SIZE];
	const int fd = open(path_of("f"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	for (size_t i = 0; i < FILE_SIZE; i++)
		content[i] = octet(i, false);
	assert(write(fd, content, FILE_SIZE) == FILE_SIZE);
	(void)close(fd);
}

static void make_others(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	assert(mkdtemp(directory));
	(void)atexit(remove_directory);
	write_file();
	(void)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path_of("s"));
	(void)snprintf(texts[RELAY], sizeof(texts[0]), "relay:unix:%s", path_of("s"));
	(void)snprintf(texts[FILES], sizeof(texts[0]), "file:%s", path_of("f"));
	(void)snprintf(texts[HTTP], sizeof(texts[0]), "http:list,requests=5,%s", directory);
	backend = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert(!bind(backend, (struct sockaddr *)&sun, sizeof(sun)) && !listen(backend, 8));
}

static void prepare(void)
{
	uint8_t *in, *out;

	if (!engine) {
		engine = fake_engine_new();
		base = event_base_new();
		assert(base);
		make_others();
	}
	in = engine->conns[0].in;
	out = engine->conns[0].out;
	engine->conns[0] = (struct fake_conn){ .in = in, .out = out, .params.nagle = true };
	memset(&f, 0, sizeof(f));
	f.c = &engine->conns[0];
	f.host = (struct service_host){
		.engine = engine, .base = base, .begin = on_wakeup, .end = on_wakeup
	};
	f.holder = f.waiting = -1;
	assert(!service_host_init(&f.host));
}

/* The lowest number that is free. */
static int free_descriptor(void)
{
	const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)close(fd);
	return fd;
}

/* ---- the two sides ---- */

static void open_session(void)
{
	struct errmsg err;
	int ends[2] = { -1, -1 };

	if (!texts[f.kind][0])
		assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
	if (texts[f.kind][0])
		assert(!service_new(texts[f.kind], NULL, &f.service, &err));
	else if (f.kind == PASSED)
		assert(!service_new_stream(&f.service));
	else
		assert(!service_new_accepted(ends[1], 8, f.kind == DEFERRED ? DEFER_US : 0,
					     &f.service));
	session_init(&f.s, &f.host, (conn_id){ 0, 1 }, 7, f.service);
	if (f.kind == PASSED) {
		f.holder = ends[0];
		f.s.fd = ends[1];
		assert(!fcntl(ends[1], F_SETFL, O_NONBLOCK));
	} else if (!texts[f.kind][0]) {
		f.waiting = ends[0];
		(void)close(ends[1]);
	}
	f.said = f.kind == FILES ? FILE_SIZE : 0;
	assert(!session_open(&f.s));
}

static void accept_line(void)
{
	char line[STREAM_LINE_BYTES];
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .room = "" };
	struct iovec iov = { line, sizeof(line) };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.room,
			      .msg_controllen = sizeof(control.room) };
	const ssize_t n = recvmsg(f.waiting, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fd;

	if (n <= 0)
		return;
	assert(n == sizeof(line) && CMSG_FIRSTHDR(&msg));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	assert(++f.told == 1);
	f.holder = fd;
}

static void accepts(void)
{
	if (f.kind == RELAY && f.holder < 0 && !f.told) {
		f.holder = accept4(backend, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		f.told = f.holder >= 0;
	} else if (f.waiting >= 0) {
		accept_line();
	}
}

static void goes_away(void)
{
	if (f.holder >= 0)
		(void)close(f.holder);
	f.holder = -1;
}

static void reads(size_t max)
{
	static uint8_t got[PIECE];
	const ssize_t n = f.holder < 0
				  ? 0
				  : recv(f.holder, got, max < PIECE ? max : PIECE, MSG_DONTWAIT);

	for (ssize_t i = 0; i < n; i++)
		assert(got[i] == octet(f.heard++, true));
	assert(f.heard <= f.peer_sent);
}

static void writes(size_t len)
{
	static uint8_t text[PIECE];
	ssize_t n;

	if (f.holder < 0)
		return;
	for (size_t i = 0; i < len; i++)
		text[i] = octet(f.said + i, false);
	n = send(f.holder, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	f.said += n > 0 ? (size_t)n : 0;
}

static void orders(uint8_t which)
{
	static const uint8_t known[] = "CcNnRrUu?";
	uint8_t one = known[which % (sizeof(known) - 1)];
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .room = "" };
	struct iovec iov = { &one, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.room,
			      .msg_controllen = sizeof(control.room) };
	struct cmsghdr *const h = CMSG_FIRSTHDR(&msg);

	if (f.holder < 0 || texts[f.kind][0])
		return; /* a backend's octets are nothing but octets */
	*h = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &f.holder, sizeof(int));
	(void)sendmsg(f.holder, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Pieces of requests; any octets that are none now and then. */
static size_t request(uint8_t which, uint8_t *text)
{
	static const char *const pieces[] = { "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
					      "GET /f HTTP/1.1\r\nHost: x\r\n\r\n",
					      "HEAD /f HTTP/1.1\r\nHost: x\r\n\r\n",
					      "GET /none HTTP/1.0\r\n\r\n",
					      "GET /f HTTP/1.1\r\nHost: x\r\n",
					      "Range: bytes=5-99\r\n",
					      "Connection: close\r\n",
					      "Content-Length: 3\r\n",
					      "\r\n",
					      "POST / HTTP/1.1\r\nHost: x\r\n\r\n" };
	const size_t n = which % (sizeof(pieces) / sizeof(pieces[0]) + 2);

	if (n >= sizeof(pieces) / sizeof(pieces[0])) {
		memset(text, 'x', which * 16U);
		return which * 16U;
	}
	memcpy(text, pieces[n], strlen(pieces[n]));
	return strlen(pieces[n]);
}

/* As the engine does: what it may, it gives at once; the rest waits, and is reported. */
static void arrives(uint8_t how, size_t len)
{
	static uint8_t text[PIECE];
	uint32_t used = 0;

	if (f.c->peer_fin || f.c->stopped_reading || f.c->in_len + len > WAITS_MAX)
		return;
	for (size_t i = 0; i < len; i++)
		text[i] = octet(f.peer_sent + i, true);
	if (f.kind == HTTP)
		len = request(how, text);
	f.peer_sent += len;
	if (f.c->direct && !f.c->in_len)
		used = session_text(&f.s, (struct span){ text, (uint32_t)len });
	assert(used <= len);
	if (used == len)
		return;
	fake_arrive(engine, 0, text + used, len - used);
	f.due |= REPORT_READABLE;
}

static void makes_room(size_t n)
{
	f.c->room += n;
	if (f.c->wants_room)
		f.due |= REPORT_WRITABLE;
	f.c->wants_room = false;
}

static void reports(uint8_t which)
{
	const unsigned kinds = f.due | (which & 1 ? REPORT_READABLE : 0) |
			       (which & 2 ? REPORT_WRITABLE : 0) |
			       (which & 4 && f.c->peer_fin ? REPORT_PEER_CLOSED : 0) |
			       (which & 8 && f.c->closed ? REPORT_ALL_ACKED : 0);

	f.due = 0;
	session_ready(&f.s, kinds);
}

static void look_at_what_was_sent(void)
{
	if (f.kind == HTTP)
		return;
	assert(f.c->out_len <= f.said);
	for (; f.answered < f.c->out_len; f.answered++)
		assert(f.c->out[f.answered] == octet(f.answered, false));
}

static void step(uint8_t what, uint8_t how)
{
	/* From an octet to a piece. */
	const size_t n = how < 128 ? how + 1U : (how - 127U) * (PIECE / 128);

	switch (what % 14) {
	case 0:
	case 1:
		arrives(how, n);
		break;
	case 2:
		f.c->peer_fin = true;
		f.due |= REPORT_PEER_CLOSED;
		break;
	case 3:
	case 4:
		reports(how);
		break;
	case 5:
		makes_room(n);
		break;
	case 6:
		reads(n);
		break;
	case 7:
		writes(n);
		break;
	case 8:
		orders(how);
		break;
	case 9:
		if (f.holder >= 0)
			(void)shutdown(f.holder, how % 2 ? SHUT_WR : SHUT_RD);
		break;
	case 10:
		goes_away();
		break;
	case 11:
		accepts();
		break;
	case 12:
		assert(event_base_loop(base, EVLOOP_NONBLOCK) >= 0);
		break;
	default:
		if (how % 4 == 0)
			service_stop(f.service);
		break;
	}
	look_at_what_was_sent();
	f.over = f.c->aborted;
}

static void end(bool hangup)
{
	f.s.end_errno = hangup ? 104 : 0;
	session_fini(&f.s, hangup || f.c->aborted);
	/* Somebody may have to read still. */
	for (int i = 0; i < 4; i++) {
		accepts();
		reads(PIECE);
		assert(event_base_loop(base, EVLOOP_NONBLOCK) >= 0);
	}
	service_unref(f.service);
	service_host_fini(&f.host);
	goes_away();
	if (f.waiting >= 0)
		(void)close(f.waiting);
	while ((f.holder = accept(backend, NULL, NULL)) >= 0)
		goes_away();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int before;

	if (size < 2)
		return 0;
	prepare();
	before = free_descriptor();
	f.kind = data[0] % KINDS;
	f.c->room = (size_t)(data[0] / KINDS) * 1024;
	if (data[1] & 1) {
		fake_arrive(engine, 0, &(uint8_t){ octet(0, true) }, 1);
		f.peer_sent = 1;
	}
	if (data[1] & 2)
		f.c->peer_fin = true;
	open_session();
	for (size_t i = 2; i + 1 < size && i < 2 * (STEPS_MAX + 1) && !f.over; i += 2)
		step(data[i], data[i + 1]);
	end(data[1] & 4);
	assert(free_descriptor() == before);
	return 0;
}
