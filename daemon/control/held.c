/* SPDX-License-Identifier: Apache-2.0 */
#include "control/held.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/end_name.h"
#include "base/log.h"
#include "control/served.h"

struct held {
	struct held *next, **at; /* *at == this */
	struct served *ls;
	struct event *ev;
	int fd; /* owned; the worker has a duplicate */
	uint64_t id; /* the listener's; 0: not yet */
};

void held_free(struct held *h)
{
	if (!h)
		return;
	*h->at = h->next;
	if (h->next)
		h->next->at = h->at;
	if (h->ev)
		event_free(h->ev);
	if (h->fd >= 0)
		(void)close(h->fd);
	free(h);
}

void held_free_all(struct held **list)
{
	while (*list)
		held_free(*list);
}

/* An operator may have closed the listener before. */
static void on_gone(evutil_socket_t fd, short what, void *arg)
{
	struct held *const h = arg;
	const struct listener *const l = served_by_id(h->ls, h->id);
	char text[ENDPOINT_TEXT];
	struct errmsg err;
	int rc;

	(void)fd;
	(void)what;
	rc = l ? served_close_id(h->ls, h->id, NULL, NULL, &err) : -ENOENT;
	if (rc && rc != -ENOENT)
		log_warning("listener %s: its program is gone, but it cannot be closed: %s",
			    endpoint_format(&l->spec.address, text), err.text);
	held_free(h);
}

struct held *held_new(struct held **list, struct event_base *base, struct served *ls, int fd)
{
	struct held *const h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->ls = ls;
	h->fd = fd;
	h->at = list;
	h->next = *list;
	if (h->next)
		h->next->at = &h->next;
	*list = h;
	h->ev = event_new(base, fd, EV_CLOSED, on_gone, h);
	if (h->ev)
		return h;
	h->fd = -1;
	held_free(h);
	return NULL;
}

void held_watch(struct held *h, uint64_t id)
{
	h->id = id;
	if (event_add(h->ev, NULL) < 0)
		log_error("a listener of a program cannot be watched: it stays until it is closed "
			  "by hand");
}

void held_refuse(struct held *h, int error)
{
	end_name_set(h->fd, error);
	held_free(h);
}
