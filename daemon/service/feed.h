/* SPDX-License-Identifier: Apache-2.0 */
/* A file's octets on their way to the send buffer: nothing is held in between, so what the peer does not take
 * stays in the file. Reads take what the page cache has; what it does not have is asked for, and comes in a later
 * wakeup, so that a slow disk does not stop the other connections.
 */
#pragma once
#include <event2/util.h>
#include <sys/types.h>

#include "service/service.h"

struct feed {
	struct session *session; /* borrowed */
	int fd; /* owned; -1: none */
	off_t at, end; /* the octets of the file that are still to go; end: at most up to there */
	size_t piece; /* octets of the next read: little more than what the peer takes at a time */
	unsigned waits; /* how often the disk was waited for, since octets last came */
	struct event *ev_more; /* owned */
};

enum feed_step {
	FEED_DONE, /* everything up to `end`, or the end of the file, is in the send buffer */
	FEED_WAITS, /* go() follows, by REPORT_WRITABLE or by ev_more */
	FEED_FAILED, /* the file cannot be read */
	FEED_REFUSED, /* our side of the connection is closed */
};

/* The event is made here; go(arg) is called by it, between begin() and end(). -ENOMEM. */
int feed_init(struct feed *f, struct session *s, void (*on_more)(evutil_socket_t, short, void *),
	      void *arg);
void feed_fini(struct feed *f);
/* fd is given away. */
void feed_start(struct feed *f, int fd, off_t at, off_t end);
void feed_stop(struct feed *f);
/* As much as a wakeup may take. */
enum feed_step feed_go(struct feed *f);
/* For whoever else has more to do than a wakeup may take. */
void feed_later(struct feed *f);
/* A regular file for reading: the descriptor, or -errno; -EINVAL: it is something else. */
int feed_open_file(const char *path);
