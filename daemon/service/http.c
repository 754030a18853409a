/* SPDX-License-Identifier: Apache-2.0 */
/* http: the files of a directory, or one file, by HTTP/1.0 and 1.1. For tests and tools: GET and HEAD, no more.
 *
 *	the peer's FIN			what was asked for is answered, then FIN
 *	an answer that is the last	FIN behind it; what the peer still sends is thrown away
 *	RST, timeout, operator		the file is closed
 *	a file that became shorter	RST: the peer must not take the part for the whole
 *	nothing moves for `timeout`	waiting: FIN, behind a 408 when a request had begun; answering: RST
 *
 * A request stays in the receive queue until it is complete, so its memory is the engine's, which has a limit.
 * One is answered at a time: the others of a pipeline wait there too. Nothing outside of the directory can be
 * reached, by dots or by links: openat2() sees to that.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "service/feed.h"
#include "service/http_answer.h"
#include "service/http_listing.h"
#include "service/option.h"

enum {
	REQUESTS_OF_WAKEUP = 16, /* other connections wait meanwhile */
	LISTINGS_MAX = 32, /* pages that are under way at a time, of a listener */
	SPANS_MAX = 64,
	TIMEOUT_MS = 60000,
	TIMEOUT_MS_MAX = 86400000,
};

struct http_config {
	char *root; /* owned; absolute */
	bool is_file; /* root is the file that every request gets */
	bool list; /* directories without index.html are listed */
	uint32_t timeout_ms;
	uint32_t requests_max; /* of a connection; 0: no limit */
	uint32_t listings; /* pages under way */
	/* Looked at once a second: */
	uint64_t second; /* of CLOCK_REALTIME */
	int root_fd; /* owned; -1: it is not there */
	char date[HTTP_DATE_TEXT];
};

struct http {
	struct session *session; /* borrowed */
	struct http_config *cfg; /* the service's */
	struct feed feed; /* of the answer's body */
	struct event *ev_timer; /* owned */
	vtime deadline; /* something must move before */
	char *out; /* of the answer, what the send buffer has not taken; malloc'ed */
	size_t out_len, out_at;
	size_t scanned; /* see http_head_end() */
	uint32_t requests; /* so far */
	bool in_head; /* octets of a request were seen */
	bool answering; /* an answer is not in the send buffer yet */
	bool keep; /* more may be asked after this answer */
	bool listing; /* the answer counts in cfg->listings */
	bool peer_closed;
};

static void set_deadline(struct http *x)
{
	x->deadline = vtime_add(x->session->host->now, (uint64_t)x->cfg->timeout_ms * 1000);
}

/* The timer is not moved with every deadline: it looks where that is when it runs out. */
static void arm_timer(struct http *x)
{
	const vtime now = x->session->host->now;
	const uint64_t us = x->deadline.us > now.us ? x->deadline.us - now.us : 0;
	const struct timeval tv = { .tv_sec = (time_t)(us / 1000000),
				    .tv_usec = (suseconds_t)(us % 1000000) };

	(void)event_add(x->ev_timer, &tv);
}

static void drop_answer(struct http *x)
{
	free(x->out);
	x->out = NULL;
	feed_stop(&x->feed);
	if (x->listing)
		x->cfg->listings--;
	x->listing = x->answering = false;
}

/* FIN behind what is queued. x is gone. */
static void end(struct http *x)
{
	struct session *const s = x->session;

	(void)conn_close(s->host->engine, s->host->now, s->id, CAUSE_USER);
	session_sink(s, false);
}

/* x is gone. */
static void fail(struct http *x)
{
	struct session *const s = x->session;

	session_abort(s);
	session_sink(s, true);
}

/* Takes data, malloc'ed or NULL, to be sent behind what is under way. */
static void put_out(struct http *x, char *data, size_t len)
{
	x->out = data;
	x->out_len = len;
	x->out_at = 0;
}

/* True: all of it is in the send buffer. False: it waits, or x is gone. */
static bool send_out(struct http *x)
{
	const struct session *const s = x->session;
	size_t taken = 0;

	if (!x->out)
		return true;
	if (conn_send(s->host->engine, s->host->now, s->id, x->out + x->out_at,
		      x->out_len - x->out_at, &taken)) {
		end(x); /* an operator closed our side */
		return false;
	}
	x->out_at += taken;
	if (x->out_at < x->out_len)
		return false;
	free(x->out);
	x->out = NULL;
	return true;
}

/* True: the answer is in the send buffer, and another request may come. False: it waits, or x is gone. */
static bool send_answer(struct http *x)
{
	if (!send_out(x))
		return false;
	if (x->feed.fd >= 0) {
		switch (feed_go(&x->feed)) {
		case FEED_WAITS:
			return false;
		case FEED_DONE:
			if (x->feed.at == x->feed.end)
				break;
			fail(x); /* it became shorter than we have said */
			return false;
		case FEED_FAILED:
			fail(x);
			return false;
		case FEED_REFUSED:
			end(x);
			return false;
		}
	}
	drop_answer(x);
	set_deadline(x);
	if (x->keep)
		return true;
	end(x);
	return false;
}

/* Queues a head and perhaps a body, which is malloc'ed and taken. */
static void begin_answer(struct http *x, const char *head, size_t head_len, char *body, size_t len)
{
	char *const all = malloc(head_len + len);

	x->answering = true;
	if (!all || !head_len) { /* without memory there is no answer: FIN, and it was none */
		free(all);
		free(body);
		feed_stop(&x->feed);
		x->keep = false;
		return;
	}
	memcpy(all, head, head_len);
	if (len)
		memcpy(all + head_len, body, len);
	free(body);
	put_out(x, all, head_len + len);
}

/* An answer that is a line of text. more: whole lines for its head. */
static void answer_text(struct http *x, unsigned status, bool with_body, const char *more)
{
	char head[HTTP_ANSWER_HEAD_MAX], text[80];
	const int n = snprintf(text, sizeof(text), "%u %s\n", status, http_reason(status));
	const size_t len = http_head_format(status, x->cfg->date, x->keep, NULL, NULL, n,
					    "text/plain; charset=utf-8", more, head);

	if (status >= 400)
		x->session->host->http_errors++;
	begin_answer(x, head, len, with_body ? strdup(text) : NULL, with_body ? (size_t)n : 0);
}

static unsigned status_of(int rc)
{
	switch (rc) {
	case -ENOENT:
	case -ENOTDIR:
	case -ENAMETOOLONG:
		return 404;
	case -EACCES:
	case -EPERM:
	case -EXDEV: /* it leads out of the directory */
	case -ELOOP:
	case -EINVAL: /* a device, a FIFO */
		return 403;
	case -EMFILE:
	case -ENFILE:
	case -ENOMEM:
	case -EAGAIN:
		return 503;
	default:
		return 500;
	}
}

/* A descriptor, or -errno. O_NONBLOCK: a FIFO must not stop us. */
static int open_beneath(int root, const char *path)
{
	const struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
				      .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
	long fd = -1;

	if (root < 0)
		return -ENOENT;
	/* EAGAIN: a directory on the way was moved meanwhile. */
	for (unsigned i = 0; i < 4 && fd < 0 && (!i || errno == EAGAIN); i++)
		fd = syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));
	return fd < 0 ? -errno : (int)fd;
}

static void answer_file(struct http *x, const struct http_request *r, int fd, const struct stat *st,
			const char *name)
{
	const struct http_file file = { .size = st->st_size,
					.mtime = st->st_mtim,
					.type = http_type(name) };
	char head[HTTP_ANSWER_HEAD_MAX];
	struct http_answer a;
	bool body;
	size_t len;

	http_answer_decide(r, &file, (time_t)x->cfg->second, &a);
	body = r->method == HTTP_GET && a.length;
	len = http_head_format(a.status, x->cfg->date, x->keep, &file, &a, a.length,
			       a.status == 200 || a.status == 206 ? file.type : "", "", head);
	if (body)
		feed_start(&x->feed, fd, a.first, a.first + a.length);
	else
		(void)close(fd);
	begin_answer(x, head, len, NULL, 0);
}

/* "/a/b" -> "./b/": relative, so that it leads to no other host. */
static void answer_redirect(struct http *x, const struct http_request *r)
{
	const char *const slash = memrchr(r->path.at, '/', r->path.len);
	const char *const name = slash ? slash + 1 : r->path.at;
	char more[HTTP_ANSWER_HEAD_MAX];
	const int n = snprintf(more, sizeof(more), "Location: ./%.*s/%s%.*s\r\n",
			       (int)(r->path.at + r->path.len - name), name, r->query.at ? "?" : "",
			       (int)r->query.len, r->query.at ? r->query.at : "");

	/* The name of a directory is short, so it is the query that is too long here. */
	if (n < 0 || n >= (int)sizeof(more) - 512)
		answer_text(x, 414, r->method == HTTP_GET, "");
	else
		answer_text(x, 301, r->method == HTTP_GET, more);
}

static void answer_listing(struct http *x, const struct http_request *r, int fd, const char *path)
{
	char head[HTTP_ANSWER_HEAD_MAX];
	char *page;
	size_t len = 0, head_len;

	if (!x->cfg->list || x->cfg->listings >= LISTINGS_MAX) {
		(void)close(fd);
		answer_text(x, x->cfg->list ? 503 : 403, r->method == HTTP_GET, "");
		return;
	}
	page = http_listing(fd, path, &len);
	if (!page) {
		answer_text(x, 503, r->method == HTTP_GET, "");
		return;
	}
	x->cfg->listings++;
	x->listing = true;
	head_len = http_head_format(200, x->cfg->date, x->keep, NULL, NULL, (off_t)len,
				    "text/html; charset=utf-8", "", head);
	begin_answer(x, head, head_len, page, r->method == HTTP_GET ? len : 0);
}

/* A directory: with its slash, its index.html, or a page of links. fd is the directory's, taken. */
static void answer_directory(struct http *x, const struct http_request *r, int fd, char *path)
{
	static const char index[] = "index.html";
	const size_t len = strlen(path);
	struct stat st;
	int index_fd = -ENAMETOOLONG;

	if (len && path[len - 1] != '/') {
		(void)close(fd);
		answer_redirect(x, r);
		return;
	}
	if (len + sizeof(index) <= HTTP_PATH_MAX) {
		memcpy(path + len, index, sizeof(index));
		index_fd = open_beneath(x->cfg->root_fd, path);
		path[len] = 0;
	}
	if (index_fd >= 0 && !fstat(index_fd, &st) && S_ISREG(st.st_mode)) {
		(void)close(fd);
		answer_file(x, r, index_fd, &st, index);
		return;
	}
	if (index_fd >= 0)
		(void)close(index_fd);
	if (index_fd < 0 && index_fd != -ENOENT && index_fd != -ENAMETOOLONG) {
		(void)close(fd);
		answer_text(x, status_of(index_fd), r->method == HTTP_GET, "");
		return;
	}
	answer_listing(x, r, fd, path);
}

static void answer_path(struct http *x, const struct http_request *r)
{
	char path[HTTP_PATH_MAX];
	const unsigned status = http_path_decode(&r->path, path);
	struct stat st;
	int fd;

	if (status) {
		answer_text(x, status, r->method == HTTP_GET, "");
		return;
	}
	fd = x->cfg->is_file ? feed_open_file(x->cfg->root) : open_beneath(x->cfg->root_fd, path);
	if (fd >= 0 && fstat(fd, &st)) {
		(void)close(fd);
		fd = -EIO;
	}
	if (fd < 0) {
		answer_text(x, status_of(fd), r->method == HTTP_GET, "");
	} else if (S_ISDIR(st.st_mode)) {
		answer_directory(x, r, fd, path);
	} else if (S_ISREG(st.st_mode)) {
		answer_file(x, r, fd, &st, x->cfg->is_file ? x->cfg->root : path);
	} else {
		(void)close(fd);
		answer_text(x, 403, r->method == HTTP_GET, "");
	}
}

/* The directory may have been replaced by another of its name, as deployments do. */
static void refresh(struct http_config *cfg, const struct service_host *h)
{
	const uint64_t second = h->realtime_us / 1000000;

	if (second == cfg->second && cfg->date[0])
		return;
	cfg->second = second;
	(void)http_date_format((time_t)second, cfg->date);
	if (cfg->is_file)
		return;
	if (cfg->root_fd >= 0)
		(void)close(cfg->root_fd);
	cfg->root_fd = open(cfg->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* status: what http_request_parse() said. */
static void answer(struct http *x, const struct http_request *r, unsigned status)
{
	const uint32_t max = x->cfg->requests_max;

	refresh(x->cfg, x->session->host);
	x->session->host->http_requests++;
	x->keep = !status && r->keep && (++x->requests < max || !max);
	if (status)
		answer_text(x, status, r->method != HTTP_HEAD, "");
	else if (r->method == HTTP_KNOWN)
		answer_text(x, 405, true, "Allow: GET, HEAD\r\n");
	else
		answer_path(x, r);
}

/* The beginning of what is unread, in the host's scratch; its length. */
static size_t gather(const struct http *x, char *buf)
{
	const struct session *const s = x->session;
	struct span spans[SPANS_MAX];
	const unsigned n = conn_peek(s->host->engine, s->id, spans, SPANS_MAX);
	size_t len = 0;

	for (unsigned i = 0; i < n && len < HTTP_HEAD_MAX; i++) {
		const size_t room = HTTP_HEAD_MAX - len;
		const size_t part = spans[i].len < room ? spans[i].len : room;

		memcpy(buf + len, spans[i].base, part);
		len += part;
	}
	return len;
}

/* What is not the whole of a head: 0: the rest may come. */
static unsigned refuse_part(const struct http *x, const char *text, size_t len)
{
	const size_t line = len < HTTP_LINE_MAX + 2 ? len : HTTP_LINE_MAX + 2;

	if (len >= HTTP_LINE_MAX + 2 && !memchr(text, '\n', line))
		return 414;
	if (len == HTTP_HEAD_MAX)
		return 431;
	return x->peer_closed ? 400 : 0;
}

/* True: a request was taken and its answer begun. False: none is there yet, or x is gone. */
static bool take_request(struct http *x)
{
	const struct session *const s = x->session;
	char *const text = (char *)s->host->scratch;
	const size_t len = gather(x, text);
	struct http_request r = { .method = HTTP_UNKNOWN };
	unsigned status;
	size_t n;

	if (!len) {
		if (conn_at_eof(s->host->engine, s->id))
			end(x);
		return false;
	}
	if (!x->in_head)
		set_deadline(x);
	x->in_head = true;
	n = http_head_end(text, len, &x->scanned);
	status = n ? http_request_parse(text, n, &r) : refuse_part(x, text, len);
	if (!n && !status)
		return false;
	if (conn_consume(s->host->engine, s->host->now, s->id, n ? n : len))
		return false;
	x->in_head = false;
	x->scanned = 0;
	answer(x, &r, status);
	return true;
}

static void run(struct http *x)
{
	for (unsigned i = 0; i < REQUESTS_OF_WAKEUP; i++) {
		if (x->answering && !send_answer(x))
			return;
		if (!take_request(x))
			return;
	}
	feed_later(&x->feed);
}

/* Nothing has moved for too long. */
static void expire(struct http *x)
{
	if (vtime_before(x->session->host->now, x->deadline)) {
		arm_timer(x);
		return;
	}
	x->session->host->http_timeouts++;
	if (x->answering) {
		fail(x);
	} else if (x->in_head) {
		refresh(x->cfg, x->session->host);
		x->keep = false;
		answer_text(x, 408, true, "");
		set_deadline(x);
		arm_timer(x);
		(void)send_answer(x);
	} else {
		end(x);
	}
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct http *const x = arg;
	struct service_host *const h = x->session->host;

	h->begin(h);
	expire(x);
	h->end(h);
}

static void on_more(evutil_socket_t fd, short what, void *arg)
{
	struct http *const x = arg;
	struct service_host *const h = x->session->host;

	h->begin(h);
	run(x);
	h->end(h);
}

static void free_http(struct http *x)
{
	drop_answer(x);
	feed_fini(&x->feed);
	if (x->ev_timer)
		event_free(x->ev_timer);
	free(x);
}

static int http_open(struct session *s)
{
	struct http *const x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	x->session = s;
	x->cfg = s->service->http;
	x->feed.fd = -1;
	x->ev_timer = evtimer_new(s->host->base, on_timer, x);
	if (!x->ev_timer || feed_init(&x->feed, s, on_more, x)) {
		free_http(x);
		return -ENOMEM;
	}
	s->http = x;
	set_deadline(x);
	arm_timer(x);
	run(x);
	return 0;
}

static void http_readable(struct session *s)
{
	if (!s->http->answering)
		run(s->http);
}

static void http_writable(struct session *s)
{
	set_deadline(s->http); /* the peer has taken some */
	run(s->http);
}

static void http_peer_closed(struct session *s)
{
	s->http->peer_closed = true;
	if (!s->http->answering)
		run(s->http);
}

static void http_closed(struct session *s, bool hangup)
{
	struct http *const x = s->http;

	(void)hangup;
	s->http = NULL;
	free_http(x);
}

static int parse_option(struct http_config *cfg, const char *text, struct errmsg *ret_err)
{
	if (!strcmp(text, "list"))
		cfg->list = true;
	else if (!strncmp(text, "timeout=", 8) &&
		 !option_time(text + 8, TIMEOUT_MS_MAX, &cfg->timeout_ms))
		return 0;
	else if (!strncmp(text, "requests=", 9) &&
		 !option_number(text + 9, UINT32_MAX, &cfg->requests_max))
		return 0;
	else
		return errmsg(ret_err, -EINVAL,
			      "http:%s: expected list, timeout=TIME (such as 30s, up to a day) or "
			      "requests=NUMBER, each with a comma behind it, before /PATH",
			      text);
	return 0;
}

static int check_root(struct http_config *cfg, struct errmsg *ret_err)
{
	struct stat st;
	int rc = stat(cfg->root, &st) ? -errno : 0;
	int fd;

	if (rc)
		return errmsg(ret_err, rc, "http:%s: %s", cfg->root, strerror(-rc));
	cfg->is_file = S_ISREG(st.st_mode);
	if (!cfg->is_file && !S_ISDIR(st.st_mode))
		return errmsg(ret_err, -EINVAL, "http:%s: is neither a directory nor a file",
			      cfg->root);
	if (cfg->is_file) {
		fd = feed_open_file(cfg->root);
	} else {
		cfg->root_fd = open(cfg->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
		fd = cfg->root_fd < 0 ? -errno : open_beneath(cfg->root_fd, ".");
	}
	if (fd < 0)
		return errmsg(ret_err, fd, "http:%s: cannot be read: %s", cfg->root, strerror(-fd));
	(void)close(fd);
	return 0;
}

static void free_config(struct http_config *cfg)
{
	if (!cfg)
		return;
	if (cfg->root_fd >= 0)
		(void)close(cfg->root_fd);
	free(cfg->root);
	free(cfg);
}

/* OPTION,...,/PATH: what follows the first slash is the path, commas and all. */
static int http_parse(struct service *v, const char *argument, struct errmsg *ret_err)
{
	struct http_config *const cfg = calloc(1, sizeof(*cfg));
	char *const text = strdup(argument);
	char *path = text ? strchr(text, '/') : NULL, *rest = text;
	int rc = 0;

	if (cfg)
		cfg->root_fd = -1;
	if (!cfg || !text)
		rc = errmsg(ret_err, -ENOMEM, "http: out of memory");
	else if (!path || (path > text && path[-1] != ','))
		rc = errmsg(ret_err, -EINVAL, "http:%s: an absolute path is needed: http:/srv/www",
			    argument);
	if (!rc) {
		cfg->timeout_ms = TIMEOUT_MS;
		cfg->root = strdup(path);
		*path = 0;
		rc = cfg->root ? 0 : errmsg(ret_err, -ENOMEM, "http: out of memory");
	}
	while (!rc && rest < path)
		rc = parse_option(cfg, strsep(&rest, ","), ret_err);
	if (!rc)
		rc = check_root(cfg, ret_err);
	free(text);
	if (rc)
		free_config(cfg);
	else
		v->http = cfg;
	return rc;
}

static void http_destroy(struct service *v)
{
	free_config(v->http);
}

const struct service_ops service_http = {
	.name = "http",
	.argument = "/PATH",
	.help = "the files of a directory, or one file, by HTTP/1.1: GET and HEAD",
	.parse = http_parse,
	.destroy = http_destroy,
	.open = http_open,
	.readable = http_readable,
	.writable = http_writable,
	.peer_closed = http_peer_closed,
	.closed = http_closed,
};
