/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/mailbox.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

int mailbox_init(struct mailbox *m, unsigned size)
{
	*m = (struct mailbox){ .size = size };
	(void)pthread_mutex_init(&m->lock, NULL); /* cannot fail on Linux */
	m->ring = calloc(size, sizeof(*m->ring));
	m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->ring && m->fd >= 0)
		return 0;
	mailbox_fini(m);
	return -ENOMEM;
}

void mailbox_fini(struct mailbox *m)
{
	if (!m->size)
		return;
	if (m->fd >= 0)
		(void)close(m->fd);
	free(m->ring);
	(void)pthread_mutex_destroy(&m->lock);
	*m = (struct mailbox){ .fd = -1 };
}

int mailbox_put(struct mailbox *m, void *item)
{
	const uint64_t one = 1;
	int rc = 0;

	(void)pthread_mutex_lock(&m->lock);
	if (m->closed) {
		rc = -ESHUTDOWN;
	} else if (m->n == m->size) {
		rc = -EAGAIN;
	} else {
		m->ring[(m->head + m->n) % m->size] = item;
		if (!m->n++)
			(void)!write(m->fd, &one, sizeof(one));
	}
	(void)pthread_mutex_unlock(&m->lock);
	return rc;
}

void *mailbox_take(struct mailbox *m)
{
	void *item = NULL;
	uint64_t count;

	(void)pthread_mutex_lock(&m->lock);
	if (m->n) {
		item = m->ring[m->head];
		m->head = (m->head + 1) % m->size;
		if (!--m->n)
			(void)!read(m->fd, &count, sizeof(count));
	}
	(void)pthread_mutex_unlock(&m->lock);
	return item;
}

void mailbox_close(struct mailbox *m)
{
	(void)pthread_mutex_lock(&m->lock);
	m->closed = true;
	(void)pthread_mutex_unlock(&m->lock);
}
