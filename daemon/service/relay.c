/* SPDX-License-Identifier: Apache-2.0 */
/* relay: each connection goes on to a backend, over the kernel's TCP or a UNIX stream socket.
 *
 *	the peer's FIN			FIN to the backend, behind everything that came before
 *	the backend's FIN		FIN to the peer, likewise
 *	RST, timeout, operator		RST to the backend
 *	the backend's RST		RST to the peer
 *	the backend's RST after its FIN	what it sent arrives; text that comes later is answered by RST
 *	no backend can be reached	RST to the peer
 *
 * Backends are tried in the order they are written. Until one has answered the peer's text waits in
 * the receive queue, so its window closes.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "service/option.h"
#include "service/plumb.h"
#include "service/relay.h"

enum { BACKENDS_MAX = 16, TIMEOUT_MS = 5000, TIMEOUT_MS_MAX = 600000 };

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un local;
};

struct backend {
	union address address;
	socklen_t len;
};

struct relay_config {
	unsigned proxy; /* version of the PROXY protocol; 0: none */
	uint32_t timeout_ms; /* of connecting to one backend */
	unsigned backends_n;
	struct backend backends[BACKENDS_MAX];
};

struct relay {
	struct session *session;
	unsigned next; /* backend to try when this one fails */
	int fd; /* owned while connecting; then the plumb's */
	struct event *ev_connect; /* NULL: not connecting */
	struct plumb plumb; /* in use once connected */
	/* After the backend's FIN: does it go away altogether? A descriptor of its own, since one
	 * cannot be watched for its level and its edges at a time. */
	struct event *ev_gone;
	int gone_fd; /* owned; -1: none */
};

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

static void drop_attempt(struct relay *r)
{
	if (r->ev_connect)
		event_free(r->ev_connect);
	r->ev_connect = NULL;
	if (r->fd >= 0)
		(void)close(r->fd);
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
	s->host->relay_connected++;
	plumb_push(&r->plumb);
	return 0;
}

static void on_connect(evutil_socket_t fd, short what, void *arg);

/* Begins to connect. 1: under way; 0: connected already. */
static int attempt(struct relay *r, const struct backend *b, uint32_t timeout_ms)
{
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
	return r->ev_connect && !event_add(r->ev_connect, &limit) ? 1 : -ENOMEM;
}

/* Tries backends until one is under way or connected. -Exxx: the last one has failed. */
static int attempt_next(struct relay *r, int rc)
{
	const struct relay_config *const cfg = r->session->service->relay;
	struct service_host *const h = r->session->host;

	while (r->next < cfg->backends_n) {
		rc = attempt(r, &cfg->backends[r->next++], cfg->timeout_ms);
		if (rc >= 0)
			return 0;
		h->relay_failed++;
		drop_attempt(r);
	}
	return rc;
}

static void serve_connect(struct relay *r, int rc)
{
	struct session *const s = r->session;

	if (!rc)
		rc = connected(r);
	if (!rc)
		return;
	s->host->relay_failed++;
	drop_attempt(r);
	if (!attempt_next(r, rc))
		return;
	s->host->refused++;
	reset_peer(s);
}

static void on_connect(evutil_socket_t fd, short what, void *arg)
{
	struct relay *const r = arg;
	struct service_host *const h = r->session->host;

	h->begin(h);
	serve_connect(r, what & EV_TIMEOUT ? -ETIMEDOUT : -socket_error(fd));
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
	rc = attempt_next(r, -EINVAL);
	if (rc) {
		s->relay = NULL;
		free(r);
	}
	return rc;
}

static uint32_t relay_text(struct session *s, struct span text)
{
	return s->relay->plumb.session ? plumb_text(&s->relay->plumb, text) : 0;
}

static void relay_readable(struct session *s)
{
	if (s->relay->plumb.session)
		plumb_push(&s->relay->plumb);
}

static void relay_writable(struct session *s)
{
	if (s->relay->plumb.session)
		plumb_pull(&s->relay->plumb);
}

static void relay_closed(struct session *s, bool hangup)
{
	struct relay *const r = s->relay;

	s->relay = NULL;
	drop_attempt(r);
	if (hangup)
		plumb_reset(&r->plumb);
	plumb_fini(&r->plumb);
	if (r->ev_gone)
		event_free(r->ev_gone);
	if (r->gone_fd >= 0)
		(void)close(r->gone_fd);
	free(r);
}

static int parse_unix(const char *path, struct backend *ret_backend)
{
	struct sockaddr_un *const sun = &ret_backend->address.local;

	if (path[0] != '/' || strlen(path) >= sizeof(sun->sun_path))
		return -EINVAL;
	sun->sun_family = AF_UNIX;
	memcpy(sun->sun_path, path, strlen(path) + 1);
	ret_backend->len = sizeof(*sun);
	return 0;
}

static int parse_backend(const char *text, struct backend *ret_backend)
{
	struct endpoint ep;

	if (!strncmp(text, "unix:", 5))
		return parse_unix(text + 5, ret_backend);
	if (endpoint_parse(text, false, &ep) || addr_is_any(&ep.addr) ||
	    addr_is_multicast(&ep.addr) || addr_is_broadcast(&ep.addr))
		return -EINVAL;
	if (addr_is_v4(&ep.addr)) {
		ret_backend->len = sizeof(ret_backend->address.v4);
		ret_backend->address.v4.sin_family = AF_INET;
		ret_backend->address.v4.sin_port = htons(ep.port);
		memcpy(&ret_backend->address.v4.sin_addr, ep.addr.b + 12, 4);
	} else {
		ret_backend->len = sizeof(ret_backend->address.v6);
		ret_backend->address.v6.sin6_family = AF_INET6;
		ret_backend->address.v6.sin6_port = htons(ep.port);
		memcpy(&ret_backend->address.v6.sin6_addr, ep.addr.b, 16);
	}
	return 0;
}

static int parse_item(struct relay_config *cfg, const char *text, struct errmsg *ret_err)
{
	if (!strncmp(text, "proxy=", 6)) {
		if (strcmp(text + 6, "v1") != 0 && strcmp(text + 6, "v2") != 0)
			return errmsg(ret_err, -EINVAL, "relay:%s: proxy=v1 or proxy=v2", text);
		cfg->proxy = text[7] == '1' ? 1 : 2;
		return 0;
	}
	if (!strncmp(text, "timeout=", 8)) {
		if (option_time(text + 8, TIMEOUT_MS_MAX, &cfg->timeout_ms))
			return errmsg(ret_err, -EINVAL,
				      "relay:%s: a time such as 500ms or 5s, up to 600s", text);
		return 0;
	}
	if (cfg->backends_n == BACKENDS_MAX)
		return errmsg(ret_err, -EINVAL, "relay:%s: more than %d backends", text,
			      BACKENDS_MAX);
	if (parse_backend(text, &cfg->backends[cfg->backends_n]))
		return errmsg(ret_err, -EINVAL,
			      "relay:%s: not a backend (ADDRESS:PORT, [ADDRESS]:PORT or "
			      "unix:/PATH) nor proxy=v1, proxy=v2 or timeout=TIME",
			      text);
	cfg->backends_n++;
	return 0;
}

static int relay_parse(struct service *v, const char *argument, struct errmsg *ret_err)
{
	struct relay_config *const cfg = calloc(1, sizeof(*cfg));
	char *const text = strdup(argument);
	char *rest = text;
	int rc = cfg && text ? 0 : errmsg(ret_err, -ENOMEM, "relay: out of memory");

	if (!rc)
		cfg->timeout_ms = TIMEOUT_MS;
	while (!rc && rest)
		rc = parse_item(cfg, strsep(&rest, ","), ret_err);
	if (!rc && !cfg->backends_n)
		rc = errmsg(ret_err, -EINVAL, "relay:%s: a backend is needed: relay:ADDRESS:PORT",
			    argument);
	free(text);
	if (rc)
		free(cfg);
	else
		v->relay = cfg;
	return rc;
}

static void relay_destroy(struct service *v)
{
	free(v->relay);
}

const struct service_ops service_relay = {
	.name = "relay",
	.argument = "BACKEND,...",
	.help = "connects on to a backend: ADDRESS:PORT or unix:/PATH, the first that answers",
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
