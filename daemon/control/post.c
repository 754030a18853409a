/* SPDX-License-Identifier: Apache-2.0 */
#include "control/post.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct post {
	pthread_mutex_t lock; /* of head and tail */
	struct post_item *head, **tail;
	int fd; /* eventfd: readable while something waits */
	struct event *wakeup;
};

void post_drain(struct post *p)
{
	struct post_item *list, *next;

	(void)pthread_mutex_lock(&p->lock);
	list = p->head;
	p->head = NULL;
	p->tail = &p->head;
	(void)pthread_mutex_unlock(&p->lock);
	for (; list; list = next) {
		next = list->next; /* run() may free it */
		list->run(list);
	}
}

static void on_wakeup(evutil_socket_t fd, short what, void *arg)
{
	eventfd_t n;

	(void)what;
	(void)eventfd_read(fd, &n);
	post_drain(arg);
}

void post_put(struct post *p, struct post_item *item)
{
	item->next = NULL;
	(void)pthread_mutex_lock(&p->lock);
	*p->tail = item;
	p->tail = &item->next;
	(void)pthread_mutex_unlock(&p->lock);
	(void)eventfd_write(p->fd, 1);
}

int post_new(struct event_base *base, struct post **ret_post, struct errmsg *ret_err)
{
	struct post *p = calloc(1, sizeof(*p));

	if (!p)
		return errmsg(ret_err, -ENOMEM, "no memory");
	(void)pthread_mutex_init(&p->lock, NULL);
	p->tail = &p->head;
	p->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->fd >= 0)
		p->wakeup = event_new(base, p->fd, EV_READ | EV_PERSIST, on_wakeup, p);
	if (!p->wakeup || event_add(p->wakeup, NULL) < 0) {
		post_free(p);
		return errmsg(ret_err, -EMFILE, "cannot make an eventfd: %s", strerror(errno));
	}
	*ret_post = p;
	return 0;
}

void post_free(struct post *p)
{
	if (!p)
		return;
	if (p->wakeup)
		event_free(p->wakeup);
	if (p->fd >= 0)
		(void)close(p->fd);
	(void)pthread_mutex_destroy(&p->lock);
	free(p);
}
