/* SPDX-License-Identifier: Apache-2.0 */
#include "control/client.h"

#include <errno.h>
#include <event2/event.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/internal.h"

enum {
	READ_BYTES = 16384,
	LINES_PER_TURN = 64, /* then others have their turn */
	TURN_US = 20000, /* also after so long: some lines run iptables */
	SENDS_PER_TURN = 16,
};

static const char *socket_name(const struct client *c)
{
	return c->observe ? "observe.sock" : "control.sock";
}

/* ---- answers out ---- */

static void chunk_free(struct chunk *k)
{
	if (k->fd >= 0)
		(void)close(k->fd);
	free(k->data);
	free(k);
}

/* Takes over data and fd. */
static void chunk_add(struct client *c, char *data, size_t len, int fd)
{
	struct chunk *k = data ? calloc(1, sizeof(*k)) : NULL;

	if (k && c->out_bytes > CLIENT_OUTPUT_MAX) {
		log_info("a client of %s does not read its answers: dropped", socket_name(c));
		c->control->counters.dropped_slow++;
	}
	if (!k || c->out_bytes > CLIENT_OUTPUT_MAX) {
		if (fd >= 0)
			(void)close(fd);
		free(data);
		free(k);
		client_drop(c);
		return;
	}
	*k = (struct chunk){ .data = data, .len = len, .fd = fd };
	*c->out_last = k;
	c->out_last = &k->next;
	c->out_bytes += len;
}

static ssize_t chunk_send(int sock, struct chunk *k)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { k->data + k->sent, k->len - k->sent };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (k->fd >= 0) {
		struct cmsghdr *h;

		msg.msg_control = control.room;
		msg.msg_controllen = sizeof(control.room);
		h = CMSG_FIRSTHDR(&msg);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(h), &k->fd, sizeof(int));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void client_flush(struct client *c)
{
	for (int turn = 0; c->out && turn < SENDS_PER_TURN; turn++) {
		struct chunk *k = c->out;
		const ssize_t n = chunk_send(c->fd, k);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno != EAGAIN)
				client_drop(c);
			return;
		}
		if (k->fd >= 0) {
			(void)close(k->fd);
			k->fd = -1;
		}
		k->sent += (size_t)n;
		c->out_bytes -= (size_t)n;
		if (k->sent < k->len)
			continue;
		c->out = k->next;
		if (!c->out)
			c->out_last = &c->out;
		chunk_free(k);
	}
}

/* ---- exchanges ---- */

static void exchange_free(struct exchange *x)
{
	for (size_t i = 0; i < x->calls_n; i++)
		call_orphan(x->calls[i]);
	free(x->calls);
	free(x->ready);
	free(x);
}

/* Room for n calls. NULL: no memory, the client is dropped. */
static struct exchange *exchange_new(struct client *c, size_t n)
{
	struct exchange *x = calloc(1, sizeof(*x));

	if (x && n)
		x->calls = calloc(n, sizeof(struct call *));
	if (!x || (n && !x->calls)) {
		free(x);
		client_drop(c);
		return NULL;
	}
	x->client = c;
	*c->last = x;
	c->last = &x->next;
	return x;
}

/* Methods whose answers are long: one at a time for a client, when their turn to answer has come, so
 * that what waits in memory is one long answer and not CLIENT_CALLS_MAX of them. */
static bool is_long(enum method m)
{
	return m == METHOD_LIST_CONNECTIONS || m == METHOD_SHOW_TRANSITIONS;
}

static void exchange_start(struct exchange *x)
{
	struct client *c = x->client;

	while (x->started < x->calls_n && !c->dead) {
		struct call *call = x->calls[x->started];

		if (is_long(call->method) && (x != c->first || x->answered < x->started))
			return;
		x->started++;
		if (x->held_bytes > CLIENT_OUTPUT_MAX)
			call_fail(call, PROTO_TOO_LARGE, "the answers of this batch are too long");
		else
			call_run(call, c->level);
	}
}

void exchange_answered(struct exchange *x)
{
	x->answered++;
	x->client->unanswered--;
	client_wake(x->client);
}

/* A batch's answers as an array; notifications have none. NULL: no memory, or none has one. */
static char *batch_answer(const struct exchange *x, size_t *ret_len)
{
	size_t len = sizeof("[]\n"), n = 0;
	char *text, *at;

	for (size_t i = 0; i < x->calls_n; i++)
		len += x->calls[i]->answer_len;
	at = text = malloc(len);
	if (!text)
		return NULL;
	*at++ = '[';
	for (size_t i = 0; i < x->calls_n; i++) {
		const struct call *call = x->calls[i];

		if (!call->answer_len)
			continue;
		if (n++)
			*at++ = ',';
		memcpy(at, call->answer, call->answer_len - 1); /* without its newline */
		at += call->answer_len - 1;
	}
	memcpy(at, "]\n", 2);
	*ret_len = (size_t)(at + 2 - text);
	return text;
}

static bool has_answer(const struct exchange *x)
{
	for (size_t i = 0; i < x->calls_n; i++)
		if (x->calls[i]->answer_len)
			return true;
	return x->ready != NULL;
}

static void exchange_deliver(struct client *c, struct exchange *x)
{
	struct call *call = x->calls_n == 1 ? x->calls[0] : NULL;
	size_t len = 0;
	char *text;

	if (!has_answer(x))
		return;
	if (x->ready) {
		text = x->ready;
		len = strlen(text);
		x->ready = NULL;
		chunk_add(c, text, len, -1);
	} else if (x->batch || !call) {
		text = batch_answer(x, &len);
		chunk_add(c, text, len, -1);
	} else {
		chunk_add(c, call->answer, call->answer_len, call->answer_fd);
		call->answer = NULL;
		call->answer_fd = -1;
	}
}

/* Answers from the front as far as they are complete. */
static void collect(struct client *c)
{
	while (c->first && !c->dead) {
		struct exchange *x = c->first;

		exchange_start(x);
		if (x->answered < x->calls_n || c->dead)
			return;
		exchange_deliver(c, x);
		if (c->dead)
			return;
		c->closing = c->closing || x->then_close;
		c->first = x->next;
		if (!c->first)
			c->last = &c->first;
		exchange_free(x);
	}
}

/* ---- questions in ---- */

static char *error_line(bool json, json_t *id, const struct proto_err *err)
{
	json_t *answer;
	size_t len;
	char *text;

	if (!json)
		return proto_text_error(err);
	answer = proto_error_new(id, err);
	text = answer ? proto_encode(answer, &len) : NULL;
	json_decref(answer);
	return text;
}

static void answer_error(struct client *c, bool json, const struct proto_err *err, bool then_close)
{
	struct exchange *x = exchange_new(c, 0);

	if (!x)
		return;
	c->control->counters.requests++;
	c->control->counters.errors++;
	x->ready = error_line(json, NULL, err);
	x->then_close = then_close;
}

/* Takes over id and params. */
static struct call *exchange_add(struct exchange *x, enum method m, json_t *id, json_t *params)
{
	struct call *call = call_new(x->client->control, x, m, id, params);

	if (!call) {
		client_drop(x->client);
		return NULL;
	}
	x->calls[x->calls_n++] = call;
	x->client->unanswered++;
	call->in_batch = x->batch;
	return call;
}

static void take_text(struct client *c, const char *line)
{
	struct proto_err err;
	struct exchange *x;
	struct call *call;
	json_t *params;
	enum method m;

	if (proto_parse_text(line, &m, &params, &err) < 0) {
		answer_error(c, false, &err, false);
		return;
	}
	x = exchange_new(c, 1);
	if (!x) {
		json_decref(params);
		return;
	}
	call = exchange_add(x, m, json_null(), params);
	if (!call)
		return;
	call->text = true;
	exchange_start(x);
}

/* One request, alone or of a batch. A request that is wrong becomes a call that has failed. */
static void take_request(struct exchange *x, const json_t *value)
{
	struct proto_request request;
	struct proto_err err;
	struct call *call;

	if (proto_request_parse(value, &request, &err) == 0) {
		(void)exchange_add(x, request.method, request.id, request.params);
		return;
	}
	/* The method does not matter: it is answered before it could run. */
	call = exchange_add(x, METHOD_VERSION, request.id, NULL);
	json_decref(request.params);
	if (call)
		call_fail(call, err.code, "%s", err.text);
}

static void take_json(struct client *c, const struct proto_line *line)
{
	struct proto_err err;
	struct exchange *x;
	json_t *value;
	bool batch;

	if (proto_decode(line->text, line->len, &value, &err) < 0) {
		answer_error(c, true, &err, err.code == PROTO_TOO_LARGE);
		return;
	}
	batch = json_is_array(value);
	x = exchange_new(c, batch ? json_array_size(value) : 1);
	if (x) {
		x->batch = batch;
		for (size_t i = 0; batch && i < json_array_size(value) && !c->dead; i++)
			take_request(x, json_array_get(value, i));
		if (!batch)
			take_request(x, value);
	}
	json_decref(value);
	if (x && !c->dead)
		exchange_start(x);
}

/* One line, if there is a whole one. */
static bool take_line(struct client *c)
{
	struct proto_line line;

	switch (proto_lines_next(&c->lines, &line)) {
	case PROTO_LINE_NONE:
		return false;
	case PROTO_LINE_JSON:
		take_json(c, &line);
		return true;
	case PROTO_LINE_TEXT:
		take_text(c, line.text);
		return true;
	case PROTO_LINE_BAD:
		answer_error(c, line.json, &line.err, false);
		return true;
	case PROTO_LINE_TOO_LONG:
		answer_error(c, line.json, &line.err, true);
		c->closing = true;
		return true;
	}
	return false;
}

static void take_lines(struct client *c)
{
	const uint64_t until = clock_monotonic_us() + TURN_US;
	int turn = 0;

	while (c->more && !c->closing && !c->dead && c->unanswered < CLIENT_CALLS_MAX) {
		if (turn++ == LINES_PER_TURN || (turn > 1 && clock_monotonic_us() >= until)) {
			/* By a timer: what is made active here would run before others are looked at. */
			(void)event_add(c->work, &(struct timeval){ 0 });
			return;
		}
		c->more = take_line(c);
		collect(c);
	}
}

/* ---- the pump ---- */

static void set_interest(struct client *c)
{
	const bool wants = !c->eof && !c->closing && !c->more;

	if (wants)
		(void)event_add(c->readable, NULL);
	else
		(void)event_del(c->readable);
	if (c->out)
		(void)event_add(c->writable, NULL);
	else
		(void)event_del(c->writable);
}

/* Every wakeup ends here. */
static void client_pump(struct client *c)
{
	collect(c);
	if (!c->dead)
		take_lines(c);
	if (!c->dead)
		client_flush(c);
	if (c->dead)
		return;
	if ((c->eof || c->closing) && !c->first && !c->out && (c->closing || !c->more)) {
		client_drop(c);
		return;
	}
	set_interest(c);
}

/* A client that has closed, rather than shut down its sending, takes no descriptor any more. */
static void give_up_streams(struct client *c)
{
	struct pollfd p = { .fd = c->fd };

	if (poll(&p, 1, 0) != 1 || !(p.revents & (POLLHUP | POLLERR)))
		return;
	for (struct exchange *x = c->first; x; x = x->next)
		for (size_t i = 0; i < x->calls_n; i++)
			call_give_up_stream(x->calls[i]);
}

int client_take_fd(struct client *c)
{
	int fd;

	if (!c->fds_n)
		return -1;
	fd = c->fds[0];
	c->fds_n--;
	memmove(c->fds, c->fds + 1, c->fds_n * sizeof(fd));
	return fd;
}

static void keep_descriptors(struct client *c, struct msghdr *msg)
{
	for (struct cmsghdr *m = CMSG_FIRSTHDR(msg); m; m = CMSG_NXTHDR(msg, m)) {
		const size_t n = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(m) + i * sizeof(fd), sizeof(fd));
			if (c->fds_n < CLIENT_FDS_MAX)
				c->fds[c->fds_n++] = fd;
			else
				(void)close(fd);
		}
	}
}

/* As recv(2), and keeps what comes by SCM_RIGHTS. */
static ssize_t client_receive(struct client *c, char *buf, size_t size)
{
	union {
		char room[CMSG_SPACE(CLIENT_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { buf, size };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.room,
			      .msg_controllen = sizeof(control.room) };
	const ssize_t n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n >= 0)
		keep_descriptors(c, &msg);
	return n;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct client *c = arg;
	char buf[READ_BYTES];
	ssize_t n;

	(void)what;
	(void)fd;
	n = client_receive(c, buf, sizeof(buf));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0 || (n > 0 && proto_lines_feed(&c->lines, buf, (size_t)n) < 0)) {
		client_drop(c);
		return;
	}
	if (n == 0) {
		c->eof = true;
		proto_lines_end(&c->lines);
		give_up_streams(c);
	}
	c->more = true;
	client_pump(c);
}

static void on_work(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	client_pump(arg);
}

void client_wake(struct client *c)
{
	if (!c->dead)
		event_active(c->work, EV_TIMEOUT, 0);
}

/* ---- life ---- */

/* (uid_t)-1, who may nothing more than others, when it cannot be known. */
static uid_t peer_uid(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 ? (uid_t)-1 : peer.uid;
}

static enum method_level peer_level(uid_t uid, bool observe)
{
	if (observe)
		return LEVEL_OBSERVE;
	return uid == 0 || uid == geteuid() ? LEVEL_ADMIN : LEVEL_OPERATE;
}

struct client *client_new(struct control *control, int fd, bool observe)
{
	struct client *c = calloc(1, sizeof(*c));
	struct event_base *base = control->cfg.base;

	if (!c) {
		(void)close(fd);
		return NULL;
	}
	c->control = control;
	c->fd = fd;
	c->observe = observe;
	c->uid = peer_uid(fd);
	c->level = peer_level(c->uid, observe);
	c->last = &c->first;
	c->out_last = &c->out;
	c->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, c);
	c->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, on_work, c);
	c->work = event_new(base, -1, 0, on_work, c);
	if (!c->readable || !c->writable || !c->work || event_add(c->readable, NULL) < 0) {
		client_free(c);
		return NULL;
	}
	return c;
}

void client_drop(struct client *c)
{
	if (c->dead)
		return;
	c->dead = true;
	(void)event_del(c->readable);
	(void)event_del(c->writable);
	(void)event_del(c->work);
	control_reap_soon(c->control, c);
}

void client_free(struct client *c)
{
	struct exchange *x, *next_x;
	struct chunk *k, *next_k;

	for (x = c->first; x; x = next_x) {
		next_x = x->next;
		exchange_free(x);
	}
	for (k = c->out; k; k = next_k) {
		next_k = k->next;
		chunk_free(k);
	}
	if (c->readable)
		event_free(c->readable);
	if (c->writable)
		event_free(c->writable);
	if (c->work)
		event_free(c->work);
	if (c->fd >= 0)
		(void)close(c->fd);
	for (size_t i = 0; i < c->fds_n; i++)
		(void)close(c->fds[i]);
	proto_lines_fini(&c->lines);
	free(c);
}
