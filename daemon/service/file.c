/* SPDX-License-Identifier: Apache-2.0 */
/* file: a file's octets to everybody who connects, then FIN. What the peer sends is thrown away.
 *
 * The file is opened anew for each connection, so a replaced one is served from the next connection
 * on. Octets go from the file to the send buffer; what that does not take is read again later, so
 * that nothing is held.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service/service.h"

/* Pieces of one wakeup: other connections wait meanwhile. */
enum { PIECES_MAX = 16 };

/* The descriptor, or -errno. O_NONBLOCK: a FIFO in its place must not stop us. */
static int open_file(const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode))
		return fd;
	(void)close(fd);
	return -EINVAL;
}

static void file_end(struct session *s)
{
	(void)conn_close(s->host->engine, s->host->now, s->id, CAUSE_USER);
	session_sink(s, false);
}

static void file_send(struct session *s)
{
	size_t taken = 0;
	ssize_t n;

	for (unsigned i = 0; i < PIECES_MAX; i++) {
		n = pread(s->file.fd, s->host->scratch, SERVICE_SCRATCH_BYTES, s->file.at);
		if (n < 0) { /* the peer must not take the part for the whole */
			session_abort(s);
			session_sink(s, true);
			return;
		}
		if (!n || conn_send(s->host->engine, s->host->now, s->id, s->host->scratch,
				    (size_t)n, &taken)) {
			file_end(s);
			return;
		}
		s->file.at += (off_t)taken;
		if (taken < (size_t)n)
			return; /* REPORT_WRITABLE brings us back */
	}
	/* Not event_active(), which would go on within this turn of the loop. */
	(void)event_add(s->file.ev_more, &(struct timeval){ 0 });
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
	s->file.at = 0;
	s->file.fd = open_file(s->service->path);
	if (s->file.fd < 0)
		return s->file.fd;
	s->file.ev_more = event_new(s->host->base, -1, 0, on_more, s);
	if (!s->file.ev_more) {
		(void)close(s->file.fd);
		return -ENOMEM;
	}
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
	event_free(s->file.ev_more);
	(void)close(s->file.fd);
}

static int file_parse(struct service *v, const char *path, struct errmsg *ret_err)
{
	int fd;

	if (path[0] != '/')
		return errmsg(ret_err, -EINVAL, "file:%s: an absolute path is needed", path);
	fd = open_file(path);
	if (fd < 0)
		return errmsg(ret_err, fd, "file:%s: %s", path,
			      fd == -EINVAL ? "is not a file" : strerror(-fd));
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
