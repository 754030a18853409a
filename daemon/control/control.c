/* SPDX-License-Identifier: Apache-2.0 */
#include "control/control.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/held.h"
#include "control/internal.h"

enum {
	BACKLOG = 128,
	ACCEPTS_PER_TURN = 16,
	FLUSH_US = 200 * 1000, /* at a stop, for clients that read */
};

/* ---- the sockets ---- */

static int socket_bind(struct endpoint_socket *s, struct errmsg *ret_err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	mode_t mask;
	int rc;

	memcpy(address.sun_path, s->path, sizeof(s->path));
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		return errmsg(ret_err, -errno, "%s: socket: %s", s->path, strerror(errno));
	/* We hold the directory's lock: a socket that is there is of a daemon that is gone. */
	(void)unlink(s->path);
	mask = umask(0177);
	rc = bind(s->fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	(void)umask(mask);
	if (rc < 0) {
		(void)close(s->fd);
		s->fd = -1;
		return errmsg(ret_err, rc, "%s: bind: %s", s->path, strerror(-rc));
	}
	return 0;
}

static int socket_open(struct control *c, struct endpoint_socket *s, const char *directory,
		       const char *name, mode_t mode, struct errmsg *ret_err)
{
	int n, rc;

	s->control = c;
	n = snprintf(s->path, sizeof(s->path), "%s/%s", directory, name);
	if (n < 0 || (size_t)n >= sizeof(s->path)) {
		s->path[0] = 0;
		return errmsg(ret_err, -ENAMETOOLONG, "%s/%s: too long for a socket", directory,
			      name);
	}
	rc = socket_bind(s, ret_err);
	if (rc == 0 && chmod(s->path, mode) < 0)
		rc = errmsg(ret_err, -errno, "%s: chmod: %s", s->path, strerror(errno));
	return rc;
}

/* A group that is missing costs its members their access, nothing more. */
static void socket_set_group(const struct endpoint_socket *s, const char *name)
{
	const struct group *group;

	if (!*name)
		return;
	group = getgrnam(name);
	if (!group)
		log_warning("SocketGroup=%s: there is no such group; %s keeps ours", name, s->path);
	else if (chown(s->path, (uid_t)-1, group->gr_gid) < 0)
		log_warning("SocketGroup=%s: %s keeps our group: %s", name, s->path,
			    strerror(errno));
}

static void socket_close(struct endpoint_socket *s)
{
	if (s->readable)
		event_free(s->readable);
	s->readable = NULL;
	if (s->fd < 0)
		return;
	(void)unlink(s->path);
	(void)close(s->fd);
	s->fd = -1;
}

int control_new(const char *directory, const char *group, struct control **ret_control,
		struct errmsg *ret_err)
{
	struct control *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return errmsg(ret_err, -ENOMEM, "no memory");
	c->operate.fd = c->observe.fd = -1;
	c->observe.observe = true;
	rc = socket_open(c, &c->operate, directory, "control.sock", 0660, ret_err);
	if (rc == 0)
		rc = socket_open(c, &c->observe, directory, "observe.sock", 0666, ret_err);
	if (rc < 0) {
		control_free(c);
		return rc;
	}
	socket_set_group(&c->operate, group);
	*ret_control = c;
	return 0;
}

/* ---- clients ---- */

static void refuse(struct control *c, int fd)
{
	struct proto_err err = { .code = PROTO_BUSY };
	json_t *answer;
	size_t len = 0;
	char *line;

	(void)snprintf(err.text, sizeof(err.text),
		       "%u clients are connected to this socket already (MaxClients)",
		       c->cfg.config->max_clients);
	answer = proto_error_new(NULL, &err);
	line = answer ? proto_encode(answer, &len) : NULL;
	if (line)
		(void)send(fd, line, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	free(line);
	json_decref(answer);
	(void)close(fd);
	c->counters.refused++;
}

static void client_add(struct endpoint_socket *s, int fd)
{
	struct control *c = s->control;
	struct client *client;

	if (s->clients >= c->cfg.config->max_clients) {
		refuse(c, fd);
		return;
	}
	client = client_new(c, fd, s->observe);
	if (!client)
		return;
	client->next = c->clients;
	if (client->next)
		client->next->prev = client;
	c->clients = client;
	s->clients++;
	c->counters.accepted++;
	c->counters.clients++;
}

void control_reap_soon(struct control *c, struct client *client)
{
	struct endpoint_socket *s = client->observe ? &c->observe : &c->operate;

	if (client->prev)
		client->prev->next = client->next;
	else
		c->clients = client->next;
	if (client->next)
		client->next->prev = client->prev;
	s->clients--;
	c->counters.clients--;
	client->prev = NULL;
	client->next = c->dead;
	c->dead = client;
	if (c->reap)
		event_active(c->reap, EV_TIMEOUT, 0);
}

static void reap(struct control *c)
{
	while (c->dead) {
		struct client *client = c->dead;

		c->dead = client->next;
		client_free(client);
	}
}

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	reap(arg);
}

/* Out of descriptors: the listening socket stays readable, so it is left alone for a second. */
static void accept_pause(struct control *c, int error)
{
	const struct timeval second = { .tv_sec = 1 };

	if (!c->accept_failed)
		log_error("control sockets: accept: %s; tried again every second", strerror(error));
	c->accept_failed = true;
	(void)event_del(c->operate.readable);
	(void)event_del(c->observe.readable);
	(void)evtimer_add(c->pause, &second);
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;

	(void)fd;
	(void)what;
	(void)event_add(c->operate.readable, NULL);
	(void)event_add(c->observe.readable, NULL);
}

static bool is_of_the_client(int error)
{
	return error == ECONNABORTED || error == EINTR || error == EPROTO;
}

static void on_connection(evutil_socket_t fd, short what, void *arg)
{
	struct endpoint_socket *s = arg;

	(void)what;
	for (int turn = 0; turn < ACCEPTS_PER_TURN; turn++) {
		const int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (client >= 0) {
			s->control->accept_failed = false;
			client_add(s, client);
			continue;
		}
		if (errno == EAGAIN)
			return;
		if (!is_of_the_client(errno)) {
			accept_pause(s->control, errno);
			return;
		}
	}
}

/* ---- start and stop ---- */

static int socket_start(struct control *c, struct endpoint_socket *s, struct errmsg *ret_err)
{
	s->readable = event_new(c->cfg.base, s->fd, EV_READ | EV_PERSIST, on_connection, s);
	if (!s->readable || event_add(s->readable, NULL) < 0)
		return errmsg(ret_err, -ENOMEM, "no memory");
	if (listen(s->fd, BACKLOG) < 0)
		return errmsg(ret_err, -errno, "%s: listen: %s", s->path, strerror(errno));
	return 0;
}

int control_start(struct control *c, const struct control_config *cfg, struct errmsg *ret_err)
{
	int rc;

	c->cfg = *cfg;
	c->reap = event_new(cfg->base, -1, 0, on_reap, c);
	c->pause = evtimer_new(cfg->base, on_pause_over, c);
	if (!c->reap || !c->pause)
		return errmsg(ret_err, -ENOMEM, "no memory");
	rc = post_new(cfg->base, &c->post, ret_err);
	if (rc == 0)
		rc = socket_start(c, &c->operate, ret_err);
	if (rc == 0)
		rc = socket_start(c, &c->observe, ret_err);
	return rc;
}

static bool output_waits(const struct control *c)
{
	for (const struct client *client = c->clients; client; client = client->next)
		if (client->out)
			return true;
	return false;
}

static void flush_all(struct control *c)
{
	struct client *client, *next;

	for (client = c->clients; client; client = next) {
		next = client->next; /* a flush may drop it */
		client_flush(client);
	}
}

void control_stop(struct control *c)
{
	const uint64_t until = clock_monotonic_us() + FLUSH_US;

	socket_close(&c->operate);
	socket_close(&c->observe);
	if (c->pause)
		(void)event_del(c->pause);
	for (flush_all(c); output_waits(c) && clock_monotonic_us() < until; flush_all(c))
		(void)poll(NULL, 0, 5);
	while (c->clients)
		client_drop(c->clients);
	reap(c);
}

void control_free(struct control *c)
{
	if (!c)
		return;
	control_stop(c);
	if (c->post)
		post_drain(c->post);
	held_free_all(&c->held);
	/* Nobody is left who could answer these. */
	while (c->calls) {
		c->calls->refs = 1;
		call_unref(c->calls);
	}
	post_free(c->post);
	if (c->reap)
		event_free(c->reap);
	if (c->pause)
		event_free(c->pause);
	json_decref(c->rules);
	free(c);
}

void control_counters(const struct control *c, struct control_counters *ret_counters)
{
	*ret_counters = c->counters;
	ret_counters->waiting = (uint32_t)c->calls_n;
}
