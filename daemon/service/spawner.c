/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's side of the spawner: starting it, and channels to it. */
#include "service/spawner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "service/spawner_message.h"

struct spawner {
	int fd; /* owned; its end of file ends the spawner */
	pid_t pid;
};

/* A request that found the socket full. */
struct pending {
	struct pending *next;
	size_t len;
	int fds[2]; /* owned; -1: none */
	uint8_t bytes[];
};

struct spawner_channel {
	int fd; /* owned, nonblocking */
	bool lost; /* the spawner is gone */
	unsigned pending_n;
	struct pending *first, **last;
};

/* Requests that may wait in a channel. Each holds two descriptors. */
enum { PENDING_MAX = 4096 };

static void close_fds(const int fds[2])
{
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
}

/* One message with up to two descriptors. 0, or -errno. */
static int send_message(int fd, const void *data, size_t len, const int fds[2], int flags)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	const unsigned n = fds[0] < 0 ? 0 : fds[1] < 0 ? 1 : 2;
	ssize_t rc;

	if (n) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	do
		rc = sendmsg(fd, &msg, flags | MSG_NOSIGNAL);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : 0;
}

static int read_hello(int fd, struct errmsg *ret_err)
{
	struct spawner_hello hello;
	ssize_t n;

	do
		n = recv(fd, &hello, sizeof(hello), 0);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(hello))
		return errmsg(ret_err, -EPIPE, "spawner: it ended before it was ready");
	hello.step[sizeof(hello.step) - 1] = 0;
	if (hello.error)
		return errmsg(ret_err, -hello.error, "spawner: %s: %s", hello.step,
			      strerror(hello.error));
	return 0;
}

int spawner_start(struct spawner **ret_spawner, struct errmsg *ret_err)
{
	struct spawner *s = malloc(sizeof(*s));
	int fds[2];
	int rc;

	if (!s)
		return errmsg(ret_err, -ENOMEM, "spawner: out of memory");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds)) {
		rc = -errno;
		free(s);
		return errmsg(ret_err, rc, "spawner: socketpair: %s", strerror(-rc));
	}
	s->fd = fds[0];
	s->pid = fork();
	if (s->pid < 0) {
		rc = -errno;
		close_fds(fds);
		free(s);
		return errmsg(ret_err, rc, "spawner: fork: %s", strerror(-rc));
	}
	if (!s->pid) {
		(void)close(fds[0]);
		spawner_main(fds[1]);
	}
	(void)close(fds[1]);
	rc = read_hello(s->fd, ret_err);
	if (rc) {
		spawner_free(s);
		return rc;
	}
	*ret_spawner = s;
	return 0;
}

pid_t spawner_pid(const struct spawner *s)
{
	return s->pid;
}

void spawner_free(struct spawner *s)
{
	if (!s)
		return;
	(void)close(s->fd);
	while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
		;
	free(s);
}

int spawner_channel_new(struct spawner *s, struct spawner_channel **ret_channel,
			struct errmsg *ret_err)
{
	const struct spawner_request req = { .op = SPAWNER_CHANNEL };
	struct spawner_channel *c = calloc(1, sizeof(*c));
	int fds[2];
	int rc;

	if (!c)
		return errmsg(ret_err, -ENOMEM, "spawner: out of memory");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds)) {
		rc = -errno;
		free(c);
		return errmsg(ret_err, rc, "spawner: socketpair: %s", strerror(-rc));
	}
	rc = send_message(s->fd, &req, sizeof(req), (const int[2]){ fds[1], -1 }, 0);
	(void)close(fds[1]);
	if (rc) {
		(void)close(fds[0]);
		free(c);
		return errmsg(ret_err, rc, "spawner: %s", strerror(-rc));
	}
	c->fd = fds[0];
	c->last = &c->first;
	*ret_channel = c;
	return 0;
}

static void drop_pending(struct spawner_channel *c)
{
	while (c->first) {
		struct pending *p = c->first;

		c->first = p->next;
		close_fds(p->fds);
		free(p);
	}
	c->last = &c->first;
	c->pending_n = 0;
}

void spawner_channel_free(struct spawner_channel *c)
{
	if (!c)
		return;
	drop_pending(c);
	(void)close(c->fd);
	free(c);
}

int spawner_channel_fd(const struct spawner_channel *c)
{
	return c->fd;
}

static int lose(struct spawner_channel *c)
{
	c->lost = true;
	drop_pending(c);
	return -EPIPE;
}

/* Takes fds on success only. */
static int put_pending(struct spawner_channel *c, const void *data, size_t len, const int fds[2])
{
	struct pending *p;

	if (c->pending_n >= PENDING_MAX)
		return -EAGAIN;
	p = malloc(sizeof(*p) + len);
	if (!p)
		return -EAGAIN;
	p->next = NULL;
	p->len = len;
	memcpy(p->fds, fds, sizeof(p->fds));
	memcpy(p->bytes, data, len);
	*c->last = p;
	c->last = &p->next;
	c->pending_n++;
	return 0;
}

/* Takes fds in any case. Order is kept: nothing overtakes what waits. */
static int put(struct spawner_channel *c, const void *data, size_t len, const int fds[2])
{
	int rc = -EAGAIN;

	if (c->lost) {
		close_fds(fds);
		return -EPIPE;
	}
	if (!c->first)
		rc = send_message(c->fd, data, len, fds, MSG_DONTWAIT);
	if (rc == -EAGAIN || rc == -ENOBUFS || rc == -ETOOMANYREFS) {
		rc = put_pending(c, data, len, fds);
		if (!rc)
			return 0;
	} else if (rc) {
		rc = lose(c);
	}
	close_fds(fds);
	return rc;
}

/* Appends strings with their zeros. Their number, or -E2BIG. */
static int put_strings(uint8_t *buf, size_t *at, const char *const *strings)
{
	int n = 0;

	for (; strings[n]; n++) {
		const size_t len = strlen(strings[n]) + 1;

		if (n >= SPAWNER_STRINGS_MAX || len > SPAWNER_MESSAGE_MAX - *at)
			return -E2BIG;
		memcpy(buf + *at, strings[n], len);
		*at += len;
	}
	return n;
}

int spawner_spawn(struct spawner_channel *c, const struct spawn_job *job)
{
	static const struct spawn_setup none = { 0 };
	struct spawner_request req = { .op = SPAWNER_SPAWN, .token = job->token };
	const int fds[2] = { job->in, job->out };
	uint8_t buf[SPAWNER_MESSAGE_MAX];
	size_t len = sizeof(req) + sizeof(none);
	const int argc = put_strings(buf, &len, job->argv);
	const int envc = argc < 0 ? argc : put_strings(buf, &len, job->envp);

	if (argc < 0 || envc < 0) {
		close_fds(fds);
		return -E2BIG;
	}
	req.argc = (uint32_t)argc;
	req.envc = (uint32_t)envc;
	memcpy(buf, &req, sizeof(req));
	memcpy(buf + sizeof(req), job->setup ? job->setup : &none, sizeof(none));
	return put(c, buf, len, fds);
}

int spawner_signal(struct spawner_channel *c, uint64_t token, int sig)
{
	const struct spawner_request req = { .op = SPAWNER_SIGNAL, .token = token, .sig = sig };

	return put(c, &req, sizeof(req), (const int[2]){ -1, -1 });
}

int spawner_probe(struct spawner_channel *c, uint64_t token)
{
	const struct spawner_request req = { .op = SPAWNER_PROBE, .token = token };

	return put(c, &req, sizeof(req), (const int[2]){ -1, -1 });
}

bool spawner_wants_write(const struct spawner_channel *c)
{
	return c->first;
}

int spawner_flush(struct spawner_channel *c)
{
	while (c->first) {
		struct pending *p = c->first;
		const int rc = send_message(c->fd, p->bytes, p->len, p->fds, MSG_DONTWAIT);

		if (rc == -EAGAIN || rc == -ENOBUFS || rc == -ETOOMANYREFS)
			return 0;
		if (rc)
			return lose(c);
		c->first = p->next;
		if (!c->first)
			c->last = &c->first;
		c->pending_n--;
		close_fds(p->fds);
		free(p);
	}
	return c->lost ? -EPIPE : 0;
}

int spawner_next(struct spawner_channel *c, struct spawn_event *ret_event)
{
	struct spawn_event event;
	ssize_t n;

	do
		n = recv(c->fd, &event, sizeof(event), MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)sizeof(event)) {
		*ret_event = event;
		return 1;
	}
	if (n < 0 && errno == EAGAIN)
		return 0;
	return lose(c);
}
