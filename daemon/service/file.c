/* SPDX-License-Identifier: Apache-2.0 */
/* file: a file's octets to everybody who connects, then FIN. What the peer sends is thrown away.
 *
 * The file is opened anew for each connection, so a replaced one is served from the next connection
 * on. A directory is not served: who connects says nothing, so there is nothing to choose by; see http.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service/feed.h"

static void file_send(struct session *s)
{
	switch (feed_go(s->feed)) {
	case FEED_WAITS:
		return;
	case FEED_DONE:
	case FEED_REFUSED:
		(void)conn_close(s->host->engine, s->host->now, s->id, CAUSE_USER);
		session_sink(s, false);
		return;
	case FEED_FAILED: /* the peer must not take the part for the whole */
		session_abort(s);
		session_sink(s, true);
		return;
	}
}

static void on_more(evutil_socket_t fd, short what, void *arg)
{
	struct session *const s = arg;
	struct service_host *const h = s->host;

	h->begin(h);
	file_send(s);
	h->end(h);
}

static int file_open(struct session *s)
{
	const int fd = feed_open_file(s->service->path);
	struct feed *const f = fd < 0 ? NULL : malloc(sizeof(*f));

	if (fd < 0)
		return fd;
	if (!f || feed_init(f, s, on_more, s)) {
		free(f);
		(void)close(fd);
		return -ENOMEM;
	}
	feed_start(f, fd, 0, INT64_MAX);
	s->feed = f;
	service_sink.readable(s);
	file_send(s);
	return 0;
}

static uint32_t file_text(struct session *s, struct span text)
{
	(void)s;
	return text.len;
}

static void file_readable(struct session *s)
{
	service_sink.readable(s);
}

static void file_closed(struct session *s, bool hangup)
{
	(void)hangup;
	feed_fini(s->feed);
	free(s->feed);
	s->feed = NULL;
}

static int file_parse(struct service *v, const char *path, struct errmsg *ret_err)
{
	int fd;

	if (path[0] != '/')
		return errmsg(ret_err, -EINVAL, "file:%s: an absolute path is needed", path);
	fd = feed_open_file(path);
	if (fd == -EINVAL)
		return errmsg(ret_err, fd, "file:%s: is not a file; http:/DIRECTORY serves one",
			      path);
	if (fd < 0)
		return errmsg(ret_err, fd, "file:%s: %s", path, strerror(-fd));
	(void)close(fd);
	v->path = strdup(path);
	return v->path ? 0 : errmsg(ret_err, -ENOMEM, "file:%s: out of memory", path);
}

static void file_destroy(struct service *v)
{
	free(v->path);
}

const struct service_ops service_file = {
	.name = "file",
	.argument = "/PATH",
	.help = "sends a file's octets, then closes",
	.direct = true,
	.parse = file_parse,
	.destroy = file_destroy,
	.open = file_open,
	.text = file_text,
	.readable = file_readable,
	.writable = file_send,
	.peer_closed = file_readable,
	.closed = file_closed,
};
