/* SPDX-License-Identifier: Apache-2.0 */
#include "service/feed.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	PIECES_MAX = 16, /* of one wakeup: other connections wait meanwhile */
	PIECE_MIN = 8192,
	AHEAD = 1 << 20, /* octets that the disk is asked for at a time */
	WAIT_US = 1000, /* until it is looked at again, and */
	WAITS_MAX = 100, /* how often, before we read and wait: some files are never read ahead */
};

int feed_init(struct feed *f, struct session *s, void (*on_more)(evutil_socket_t, short, void *),
	      void *arg)
{
	*f = (struct feed){ .session = s, .fd = -1 };
	f->ev_more = event_new(s->host->base, -1, 0, on_more, arg);
	return f->ev_more ? 0 : -ENOMEM;
}

void feed_fini(struct feed *f)
{
	feed_stop(f);
	if (f->ev_more)
		event_free(f->ev_more);
	f->ev_more = NULL;
}

void feed_start(struct feed *f, int fd, off_t at, off_t end)
{
	f->fd = fd;
	f->at = at;
	f->end = end;
	f->piece = SERVICE_SCRATCH_BYTES;
	f->waits = 0;
}

void feed_stop(struct feed *f)
{
	if (f->fd >= 0)
		(void)close(f->fd);
	f->fd = -1;
	if (f->ev_more)
		(void)event_del(f->ev_more);
}

/* Not event_active(), which would go on within this turn of the loop. */
void feed_later(struct feed *f)
{
	(void)event_add(f->ev_more, &(struct timeval){ 0 });
}

/* Octets read, 0 at the end, or -errno; -EAGAIN: the disk was asked, ev_more will tell. */
static ssize_t read_piece(struct feed *f)
{
	const off_t left = f->end - f->at;
	struct iovec iov = { f->session->host->scratch,
			     left < (off_t)f->piece ? (size_t)left : f->piece };
	ssize_t n = f->waits < WAITS_MAX ? preadv2(f->fd, &iov, 1, f->at, RWF_NOWAIT) : -1;

	if (n < 0 && f->waits < WAITS_MAX && errno == EAGAIN) {
		if (!f->waits++)
			(void)posix_fadvise(f->fd, f->at, AHEAD, POSIX_FADV_WILLNEED);
		(void)event_add(f->ev_more, &(struct timeval){ .tv_usec = WAIT_US });
		return -EAGAIN;
	}
	if (n < 0)
		n = pread(f->fd, iov.iov_base, iov.iov_len, f->at);
	f->waits = 0;
	return n < 0 ? -errno : n;
}

enum feed_step feed_go(struct feed *f)
{
	struct session *const s = f->session;
	size_t taken = 0;

	for (unsigned i = 0; i < PIECES_MAX; i++) {
		const ssize_t n = f->at < f->end ? read_piece(f) : 0;

		if (n == -EAGAIN)
			return FEED_WAITS;
		if (n < 0)
			return FEED_FAILED;
		if (!n)
			return FEED_DONE;
		if (conn_send(s->host->engine, s->host->now, s->id, s->host->scratch, (size_t)n,
			      &taken))
			return FEED_REFUSED;
		f->at += (off_t)taken;
		if (taken < (size_t)n) { /* REPORT_WRITABLE brings us back */
			f->piece = taken < PIECE_MIN / 2 ? PIECE_MIN : 2 * taken;
			if (f->piece > SERVICE_SCRATCH_BYTES)
				f->piece = SERVICE_SCRATCH_BYTES;
			return FEED_WAITS;
		}
		f->piece = SERVICE_SCRATCH_BYTES;
	}
	feed_later(f);
	return FEED_WAITS;
}

/* O_NONBLOCK: a FIFO in its place must not stop us. */
int feed_open_file(const char *path)
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
