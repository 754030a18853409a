/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side: a connection to the daemon's socket, and calls that wait for their answer. */
#include "proto/client.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "proto/message.h"

enum { READ_SIZE = 64 * 1024, CONNECT_SECONDS = 5, FDS_MAX = 8 };

struct proto_client {
	int fd;
	int received; /* a descriptor that came; -1: none */
	uint64_t id; /* of the last request */
	char *buf; /* what was read and is no whole line yet */
	size_t len, size;
	size_t scanned; /* octets of it that hold no newline */
};

char *proto_socket_path(const char *given)
{
	const char *const set = getenv("TCPFSM_SOCKET"), *const dir = getenv("RUNTIME_DIRECTORY");
	char *path;

	if (given || (set && *set))
		return strdup(given ? given : set);
	if (!dir || !*dir)
		return strdup(PROTO_DEFAULT_SOCKET);
	/* systemd separates several by a colon; ours is the first. */
	if (asprintf(&path, "%.*s/control.sock", (int)strcspn(dir, ":"), dir) < 0)
		return NULL;
	return path;
}

int proto_client_new(const char *path, struct proto_client **ret_client)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	/* connect() waits while the daemon's backlog is full; not for ever. */
	const struct timeval limit = { .tv_sec = CONNECT_SECONDS };
	struct proto_client *c;
	int rc;

	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, path, strlen(path) + 1);
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->received = -1;
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
	    connect(c->fd, (const struct sockaddr *)&sun, sizeof(sun)) < 0) {
		rc = -errno;
		proto_client_free(c);
		return rc;
	}
	*ret_client = c;
	return 0;
}

void proto_client_free(struct proto_client *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	if (c->received >= 0)
		close(c->received);
	free(c->buf);
	free(c);
}

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Waits for events until `deadline` (0: for ever). 0, -ETIMEDOUT or -Exxx. */
static int wait_for(const struct proto_client *c, short events, uint64_t deadline)
{
	for (;;) {
		struct pollfd p = { .fd = c->fd, .events = events };
		const uint64_t now = now_us();
		int ms = -1, n;

		if (deadline) {
			const uint64_t left = deadline > now ? (deadline - now + 999) / 1000 : 0;

			ms = left < 1000000 ? (int)left : 1000000;
		}
		n = poll(&p, 1, ms);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (!n && deadline && now_us() >= deadline)
			return -ETIMEDOUT;
	}
}

static int send_all(const struct proto_client *c, const char *data, size_t len, uint64_t deadline)
{
	while (len) {
		const ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		int rc;

		if (n > 0) {
			data += n;
			len -= (size_t)n;
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		rc = wait_for(c, POLLOUT, deadline);
		if (rc)
			return rc;
	}
	return 0;
}

/* Keeps the first descriptor that came; a second would be a daemon's error, and must not leak. */
static void take_descriptors(struct proto_client *c, struct msghdr *msg)
{
	for (struct cmsghdr *m = CMSG_FIRSTHDR(msg); m; m = CMSG_NXTHDR(msg, m)) {
		const size_t n = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(m) + i * sizeof(fd), sizeof(fd));
			if (c->received < 0)
				c->received = fd;
			else
				close(fd);
		}
	}
}

/* Reads once, behind what is there. */
static int read_some(struct proto_client *c)
{
	union {
		char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov;
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.space,
			      .msg_controllen = sizeof(control.space) };
	ssize_t n;

	if (c->size - c->len < READ_SIZE) {
		const size_t size = c->size * 2 + READ_SIZE;
		char *const buf = realloc(c->buf, size);

		if (!buf)
			return -ENOMEM;
		c->buf = buf;
		c->size = size;
	}
	iov = (struct iovec){ c->buf + c->len, c->size - c->len };
	n = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : -errno;
	take_descriptors(c, &msg);
	if (!n)
		return -EPIPE;
	c->len += (size_t)n;
	return 0;
}

/* The next line to a value; it leaves the buffer. */
static int read_value(struct proto_client *c, uint64_t deadline, json_t **ret_value)
{
	const char *newline;
	json_error_t why;
	size_t len;
	int rc = 0;

	while (!(newline = c->len > c->scanned
				   ? memchr(c->buf + c->scanned, '\n', c->len - c->scanned)
				   : NULL)) {
		c->scanned = c->len;
		rc = wait_for(c, POLLIN, deadline);
		if (!rc)
			rc = read_some(c);
		if (rc)
			return rc;
	}
	len = (size_t)(newline - c->buf);
	*ret_value = json_loadb(c->buf, len, JSON_REJECT_DUPLICATES, &why);
	c->len -= len + 1;
	memmove(c->buf, c->buf + len + 1, c->len);
	c->scanned = 0;
	return *ret_value ? 0 : -EPROTO;
}

/* An answer to request `id`: 0, -EREMOTEIO, -EPROTO; or 1: it is none (an event), read on. */
static int take_answer(const json_t *answer, uint64_t id, json_t **ret_result,
		       struct proto_err *ret_err)
{
	const json_t *const got = json_object_get(answer, "id"), *const error = json_object_get(
									 answer, "error");
	json_t *const result = json_object_get(answer, "result");

	if (!got && json_object_get(answer, "method"))
		return 1;
	/* An error for a line that could not be read, or for us as a client, has the id null. */
	if (json_is_object(error) &&
	    (json_is_null(got) || json_integer_value(got) == (json_int_t)id)) {
		const char *const text = json_string_value(json_object_get(error, "message"));
		const json_int_t code = json_integer_value(json_object_get(error, "code"));

		proto_fail(ret_err, (enum proto_error)code, "%s",
			   text ? text : "an error without a message");
		return -EREMOTEIO;
	}
	if (!result || !json_is_integer(got) || json_integer_value(got) != (json_int_t)id)
		return -EPROTO;
	*ret_result = json_incref(result);
	return 0;
}

static int call(struct proto_client *c, enum method m, json_t *params, uint64_t deadline,
		json_t **ret_result, struct proto_err *ret_err)
{
	json_t *const request = proto_request_new(++c->id, m, params);
	size_t len = 0;
	char *const line = request ? proto_encode(request, &len) : NULL;
	int rc = -ENOMEM;

	json_decref(request);
	if (!line)
		return rc;
	rc = len > PROTO_LINE_MAX ? -EMSGSIZE : send_all(c, line, len, deadline);
	free(line);
	/* A daemon that refuses a client says so before it closes: read what came all the same. */
	if (rc && rc != -EPIPE && rc != -ECONNRESET)
		return rc;
	do {
		json_t *answer;

		rc = read_value(c, deadline, &answer);
		if (rc)
			return rc == -ECONNRESET ? -EPIPE : rc;
		rc = take_answer(answer, c->id, ret_result, ret_err);
		json_decref(answer);
	} while (rc > 0);
	return rc;
}

int proto_call(struct proto_client *c, enum method m, json_t *params_stolen, uint64_t timeout_us,
	       json_t **ret_result, int *ret_fd, struct proto_err *ret_err)
{
	const uint64_t deadline = timeout_us ? now_us() + timeout_us : 0;
	const int rc = call(c, m, params_stolen, deadline, ret_result, ret_err);

	if (rc == -ETIMEDOUT)
		proto_fail(ret_err, PROTO_TIMED_OUT, "no answer within %g s",
			   (double)timeout_us / 1e6);
	else if (rc == -EMSGSIZE)
		proto_fail(ret_err, PROTO_TOO_LARGE, "the request is longer than %d octets",
			   PROTO_LINE_MAX);
	else if (rc == -EPIPE)
		proto_fail(ret_err, PROTO_INTERNAL_ERROR,
			   "the daemon closed the connection without an answer");
	else if (rc && rc != -EREMOTEIO)
		proto_fail(ret_err, PROTO_INTERNAL_ERROR, "talking to the daemon: %s",
			   strerror(-rc));
	if (ret_fd) {
		*ret_fd = rc ? -1 : c->received;
		if (!rc)
			c->received = -1;
	}
	return rc;
}
