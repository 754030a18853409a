/* SPDX-License-Identifier: Apache-2.0 */
/* relay: each connection goes on to a backend, over the kernel's TCP, a UNIX stream socket, or our own TCP.
 *
 *	the peer's FIN			FIN to the backend, behind everything that came before
 *	the backend's FIN		FIN to the peer, likewise
 *	RST, timeout, operator		RST to the backend
 *	the backend's RST		RST to the peer
 *	the backend's RST after its FIN	what it sent arrives; text that comes later is answered by RST
 *	no backend can be reached	RST to the peer
 *
 * Backends are tried in the order they are written, but one that failed lately, or is full, behind the others.
 * Until one has answered the peer's text waits in the receive queue, so its window closes.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service/relay_inside.h"

static int socket_error(int fd)
{
	socklen_t len = sizeof(int);
	int err = 0;

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) ? errno : err;
}

static void reset_peer(struct session *s)
{
	session_abort(s);
	session_sink(s, true);
}

static void on_failed(struct plumb *p, int error)
{
	(void)error;
	reset_peer(p->session);
}

/* The backend reads no more. What it wrote before is sent still. */
static void on_to_ended(struct plumb *p)
{
	p->draining = true;
	if (p->from >= 0)
		plumb_pull(p);
	else
		session_sink(p->session, false);
}

static void on_gone(evutil_socket_t fd, short what, void *arg)
{
	struct relay *const r = arg;
	struct session *const s = r->session;
	struct service_host *const h = s->host;
	struct pollfd p = { .fd = fd };

	if (r->plumb.to < 0 || poll(&p, 1, 0) != 1 || !(p.revents & (POLLHUP | POLLERR)))
		return;
	h->begin(h);
	session_sink(s, false);
	h->end(h);
}

static int watch_gone(struct relay *r)
{
	r->gone_fd = fcntl(r->plumb.to, F_DUPFD_CLOEXEC, 0);
	if (r->gone_fd < 0)
		return -errno;
	r->ev_gone = event_new(r->session->host->base, r->gone_fd, EV_READ | EV_ET | EV_PERSIST,
			       on_gone, r);
	return r->ev_gone && !event_add(r->ev_gone, NULL) ? 0 : -ENOMEM;
}

static void on_from_ended(struct plumb *p)
{
	struct session *const s = p->session;

	(void)conn_close(s->host->engine, s->host->now, s->id, CAUSE_USER);
	if (p->to < 0 || watch_gone(s->relay))
		session_sink(s, false);
}

/* It may be open since, and nobody has looked: then a FIN would say that somebody was there, and is done. */
static void drop_attempt(struct relay *r)
{
	const struct linger at_once = { .l_onoff = 1 };

	if (r->ev_connect)
		event_free(r->ev_connect);
	r->ev_connect = NULL;
	if (r->fd >= 0) {
		(void)setsockopt(r->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
		(void)close(r->fd);
	}
	r->fd = -1;
}

/* The header goes into an empty socket buffer: what does not fit there never will. */
static int announce(const struct relay *r)
{
	const struct relay_config *const cfg = r->session->service->relay;
	uint8_t header[PROXY_HEADER_MAX];
	struct flow flow;
	size_t len;
	ssize_t n;

	if (!cfg->proxy)
		return 0;
	flow = session_flow(r->session);
	len = proxy_header(cfg->proxy, &flow, header);
	n = send(r->fd, header, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	return n == (ssize_t)len ? 0 : n < 0 ? -errno : -ENOBUFS;
}

static unsigned backend_index(const struct service *v, const struct backend *b)
{
	return (unsigned)(b - v->relay->backends);
}

void relay_attempt_connected(struct relay *r)
{
	const struct service *const v = r->session->service;

	backend_connected(v->relay, v->limits, backend_index(v, r->backend));
	r->session->host->relay_connected++;
}

/* The backend has answered. 0: the plumb has the socket, and the relay may be gone. */
static int connected(struct relay *r)
{
	struct session *const s = r->session;
	const int fd = r->fd;
	int rc = announce(r);

	if (!rc)
		rc = plumb_init(&r->plumb, s, fd, fd);
	if (rc) {
		r->plumb.session = NULL;
		return rc;
	}
	r->fd = -1;
	drop_attempt(r);
	relay_attempt_connected(r);
	plumb_push(&r->plumb);
	return 0;
}

static void on_connect(evutil_socket_t fd, short what, void *arg);

/* Begins to connect to a socket. 0: under way, or connected already, and r may be gone. */
static int connect_socket(struct relay *r)
{
	const struct backend *const b = r->backend;
	const uint32_t timeout_ms = r->session->service->relay->timeout_ms;
	const struct timeval limit = { .tv_sec = timeout_ms / 1000,
				       .tv_usec = timeout_ms % 1000 * 1000 };
	int on = 1, rc;

	r->fd = socket(b->address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (r->fd < 0)
		return -errno;
	if (b->address.any.sa_family != AF_UNIX) /* the sender has chosen its segments already */
		(void)setsockopt(r->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	rc = connect(r->fd, &b->address.any, b->len) ? -errno : 0;
	if (rc != -EINPROGRESS)
		return rc ? rc : connected(r);
	r->ev_connect = event_new(r->session->host->base, r->fd, EV_WRITE, on_connect, r);
	return r->ev_connect && !event_add(r->ev_connect, &limit) ? 0 : -ENOMEM;
}

static void let_backend_go(struct relay *r)
{
	if (r->backend)
		limits_give(r->session->service->limits,
			    backend_index(r->session->service, r->backend));
	r->backend = NULL;
}

static void note_failure(struct relay *r)
{
	struct service_host *const h = r->session->host;
	const struct service *const v = r->session->service;

	backend_failed(v->relay, v->limits, backend_index(v, r->backend), h->now);
	h->relay_failed++;
	drop_attempt(r);
	let_backend_go(r);
}

/* Tries backends until one is under way or connected. -Exxx: there is none left. */
static int attempt_next(struct relay *r)
{
	struct relay_config *const cfg = r->session->service->relay;
	struct limits *const l = r->session->service->limits;
	struct service_host *const h = r->session->host;
	bool full;
	int i;

	while ((i = relay_config_choose(cfg, l, h->now, r->tried, &full)) >= 0) {
		if (!limits_take(l, (unsigned)i, cfg->backend_max))
			continue; /* another worker was faster */
		r->tried |= 1U << i;
		r->backend = &cfg->backends[i];
		if (!(r->backend->ours ? far_connect(r) : connect_socket(r)))
			return 0;
		note_failure(r);
	}
	if (full)
		h->relay_full++;
	return full ? -EAGAIN : -ECONNREFUSED;
}

void relay_attempt_failed(struct relay *r)
{
	struct session *const s = r->session;

	note_failure(r);
	if (!attempt_next(r))
		return;
	s->host->refused++;
	reset_peer(s);
}

static void on_connect(evutil_socket_t fd, short what, void *arg)
{
	struct relay *const r = arg;
	struct service_host *const h = r->session->host;

	h->begin(h);
	if (what & EV_TIMEOUT || socket_error(fd) || connected(r))
		relay_attempt_failed(r);
	h->end(h);
}

static int relay_open(struct session *s)
{
	struct relay *const r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOMEM;
	r->session = s;
	r->fd = r->gone_fd = -1;
	r->plumb.to = r->plumb.from = -1;
	r->plumb.from_ended = on_from_ended;
	r->plumb.to_ended = on_to_ended;
	r->plumb.failed = on_failed;
	s->relay = r;
	/* Who wrote it has chosen its segments already; a short one behind another would wait for an ACK that the peer
	 * delays. A connection of our own has the same parameters then. */
	plumb_set_nagle(s, false);
	rc = attempt_next(r);
	if (rc) {
		s->relay = NULL;
		free(r);
	}
	return rc;
}

static uint32_t relay_text(struct session *s, struct span text)
{
	return s->relay->plumb.session ? plumb_text(&s->relay->plumb, text)
				       : far_near_text(s->relay, text);
}

static void relay_readable(struct session *s)
{
	if (s->relay->plumb.session)
		plumb_push(&s->relay->plumb);
	else
		far_near_readable(s->relay);
}

static void relay_writable(struct session *s)
{
	if (s->relay->plumb.session)
		plumb_pull(&s->relay->plumb);
	else
		far_near_writable(s->relay);
}

static void relay_closed(struct session *s, bool hangup)
{
	struct relay *const r = s->relay;

	s->relay = NULL;
	drop_attempt(r);
	far_drop(r, hangup || !r->far_open);
	if (hangup)
		plumb_reset(&r->plumb);
	plumb_fini(&r->plumb);
	if (r->ev_gone)
		event_free(r->ev_gone);
	if (r->gone_fd >= 0)
		(void)close(r->gone_fd);
	let_backend_go(r);
	free(r);
}

static int relay_parse(struct service *v, const char *argument, struct errmsg *ret_err)
{
	return relay_config_new(argument, &v->relay, ret_err);
}

static void relay_destroy(struct service *v)
{
	relay_config_free(v->relay);
}

unsigned service_backends(const struct service *v)
{
	return v->relay ? v->relay->backends_n : 0;
}

void service_backend(const struct service *v, unsigned i, vtime now,
		     struct service_backend *ret_backend)
{
	const struct backend *const b = &v->relay->backends[i];

	*ret_backend = (struct service_backend){ .active = limits_count(v->limits, i),
						 .connected = b->connected,
						 .failed = b->failed,
						 .down = now.us <
							 limits_down_until_us(v->limits, i) };
	memcpy(ret_backend->text, b->text, sizeof(ret_backend->text));
}

const struct service_ops service_relay = {
	.name = "relay",
	.argument = "BACKEND,...",
	.help = "connects on to a backend: ADDRESS:PORT, unix:/PATH or tcpfsm:ADDRESS:PORT",
	.direct = true,
	.parse = relay_parse,
	.destroy = relay_destroy,
	.open = relay_open,
	.text = relay_text,
	.readable = relay_readable,
	.writable = relay_writable,
	.peer_closed = relay_readable,
	.closed = relay_closed,
};
