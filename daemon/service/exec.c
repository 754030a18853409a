/* SPDX-License-Identifier: Apache-2.0 */
/* exec: a process for each connection, as inetd has it: its standard input is what the peer sends, its
 * standard output is what the peer gets.
 *
 *	the peer's FIN			end of file on the process's input
 *	the process closes its output	FIN; what the peer sends still reaches its input
 *	it exits			FIN after its output
 *	it is killed by a signal	RST
 *	RST, timeout, operator		SIGHUP to its group, SIGKILL KillAfter later
 *	the daemon stops		SIGTERM to its group; what it still says arrives
 *
 * A process may outlive its connection; a struct exec lives until both are gone.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"
#include "service/plumb.h"
#include "service/spawner_message.h"

struct exec {
	struct exec *next; /* in its bucket */
	struct service_host *host;
	struct session *session; /* NULL: the connection is over */
	struct service *service; /* a reference */
	uint64_t serial; /* of the connection: the spawner's token */
	struct plumb plumb; /* in use while there is a session */
	struct event *ev_kill; /* NULL until SIGHUP or SIGTERM was sent */
	struct ipaddr peer;
	uint32_t pid; /* 0: it has not started yet */
	bool stopping; /* SIGTERM was sent */
	bool ended; /* the process has ended, or never started */
};

enum { BUCKETS = 1024, EVENTS_MAX = 256 };

struct exec_host {
	struct event *ev_read, *ev_write; /* the channel; NULL: there is none */
	bool lost; /* the spawner is gone */
	struct exec *buckets[BUCKETS]; /* by serial */
};

static struct exec **find(struct exec_host *eh, uint64_t serial)
{
	struct exec **at = &eh->buckets[serial % BUCKETS];

	while (*at && (*at)->serial != serial)
		at = &(*at)->next;
	return at;
}

static void free_exec(struct exec *x)
{
	struct exec **const at = find(x->host->exec, x->serial);

	if (*at == x)
		*at = x->next;
	if (x->ev_kill)
		event_free(x->ev_kill);
	x->host->processes--;
	limits_give(x->service->limits, 0);
	if (x->service->options->max_processes_per_peer)
		limits_leave(x->service->limits, LIMIT_PROCESSES, &x->peer);
	service_unref(x->service);
	free(x);
}

/* After a request to the spawner: it may not have gone out yet. */
static void watch_channel(struct service_host *h)
{
	if (spawner_wants_write(h->spawner))
		(void)event_add(h->exec->ev_write, NULL);
}

static int signal_process(struct exec *x, int sig)
{
	const int rc = spawner_signal(x->host->spawner, x->serial, sig);

	watch_channel(x->host);
	return rc;
}

static void on_kill(evutil_socket_t fd, short what, void *arg)
{
	struct exec *const x = arg;

	if (signal_process(x, SIGKILL) == -EAGAIN)
		(void)event_add(x->ev_kill, &(struct timeval){ .tv_sec = 1 });
}

/* Asks it to end, and sees to it later. */
static void ask_to_end(struct exec *x, int sig)
{
	const uint64_t us = x->service->options->kill_after_us;
	const struct timeval tv = { .tv_sec = (time_t)(us / 1000000),
				    .tv_usec = (suseconds_t)(us % 1000000) };

	(void)signal_process(x, sig);
	if (x->ev_kill) /* it was asked before: that patience goes on */
		return;
	x->ev_kill = evtimer_new(x->host->base, on_kill, x);
	if (!x->ev_kill || event_add(x->ev_kill, &tv))
		(void)signal_process(x, SIGKILL); /* no memory for patience */
}

static bool exec_stop(struct session *s)
{
	struct exec *const x = s->exec;

	if (x->ended)
		return true; /* what it has said is on its way */
	x->stopping = true;
	ask_to_end(x, SIGTERM);
	return true;
}

static void exec_closed(struct session *s, bool hangup)
{
	struct exec *const x = s->exec;

	s->exec = NULL;
	x->session = NULL;
	plumb_fini(&x->plumb);
	if (x->ended)
		free_exec(x);
	else if (hangup)
		ask_to_end(x, SIGHUP);
}

/* Everything the process wrote is queued, and it will not write any more. */
static void close_mine(struct session *s)
{
	(void)conn_close(s->host->engine, s->host->now, s->id, CAUSE_USER);
}

/* End of file on its output: FIN, unless this is the process's death, which may mean RST. Only the
 * spawner can tell; its answer is SPAWN_ALIVE or SPAWN_ENDED.
 */
static void on_from_ended(struct plumb *p)
{
	struct session *const s = p->session;
	struct exec *const x = s->exec;

	if (x->ended) {
		close_mine(s);
		session_sink(s, false);
		return;
	}
	if (spawner_probe(s->host->spawner, x->serial) == -EAGAIN)
		close_mine(s);
	watch_channel(s->host);
}

static void serve_started(struct exec *x, const struct spawn_event *event)
{
	x->pid = (uint32_t)event->pid;
	if (x->session)
		x->session->pid = x->pid;
}

static void serve_failed(struct exec *x, int error)
{
	x->ended = true;
	x->host->refused++;
	if (x->host->spawn_failed)
		x->host->spawn_failed(x->host, x->service->argv[0], error);
	if (!x->session) {
		x->host->process_ended(x->host, x->serial, 0, INT32_MIN, 0);
		free_exec(x);
		return;
	}
	x->session->has_process = false;
	session_abort(x->session);
	session_sink(x->session, true);
}

static void serve_ended(struct exec *x, int32_t status, uint64_t run_us)
{
	struct session *const s = x->session;

	x->ended = true;
	if (!s) {
		x->host->process_ended(x->host, x->serial, x->pid, status, run_us);
		free_exec(x);
		return;
	}
	s->has_process = false;
	s->exit_status = status;
	s->run_us = run_us;
	if (status < 0 && !x->stopping) {
		session_abort(s);
		session_sink(s, true);
	} else if (x->plumb.from < 0) {
		on_from_ended(&x->plumb);
	} else {
		x->plumb.draining = true;
		plumb_pull(&x->plumb);
	}
}

static void serve_event(struct service_host *h, const struct spawn_event *event)
{
	struct exec *const x = *find(h->exec, event->token);

	if (!x || x->ended)
		return;
	switch (event->kind) {
	case SPAWN_STARTED:
		serve_started(x, event);
		return;
	case SPAWN_FAILED:
		serve_failed(x, event->error);
		return;
	case SPAWN_ALIVE:
		if (x->session)
			close_mine(x->session);
		return;
	case SPAWN_ENDED:
		serve_ended(x, event->status, event->run_us);
		return;
	}
}

/* With the spawner its processes died: see PR_SET_PDEATHSIG there. */
static void lose_spawner(struct service_host *h)
{
	struct exec_host *const eh = h->exec;

	if (eh->lost)
		return;
	eh->lost = true;
	(void)event_del(eh->ev_read);
	(void)event_del(eh->ev_write);
	for (unsigned i = 0; i < BUCKETS; i++) {
		struct exec *next;

		for (struct exec *x = eh->buckets[i]; x; x = next) {
			next = x->next;
			if (!x->ended)
				serve_ended(x, -SIGKILL, 0);
		}
	}
	h->spawner_lost(h);
}

static void serve_channel(struct service_host *h)
{
	struct spawn_event event;
	int rc = spawner_flush(h->spawner);

	watch_channel(h);
	for (unsigned i = 0; !rc && i < EVENTS_MAX; i++) {
		rc = spawner_next(h->spawner, &event);
		if (rc <= 0)
			break;
		serve_event(h, &event);
		rc = 0;
	}
	if (rc < 0)
		lose_spawner(h);
}

static void on_channel(evutil_socket_t fd, short what, void *arg)
{
	struct service_host *const h = arg;

	h->begin(h);
	serve_channel(h);
	h->end(h);
}

int exec_host_init(struct service_host *h)
{
	struct exec_host *const eh = calloc(1, sizeof(*eh));
	int fd;

	h->exec = eh;
	if (!eh)
		return -ENOMEM;
	if (!h->spawner)
		return 0;
	fd = spawner_channel_fd(h->spawner);
	eh->ev_read = event_new(h->base, fd, EV_READ | EV_PERSIST, on_channel, h);
	eh->ev_write = event_new(h->base, fd, EV_WRITE, on_channel, h);
	return eh->ev_read && eh->ev_write && !event_add(eh->ev_read, NULL) ? 0 : -ENOMEM;
}

void exec_host_fini(struct service_host *h)
{
	struct exec_host *const eh = h->exec;

	if (!eh)
		return;
	for (unsigned i = 0; i < BUCKETS; i++) {
		while (eh->buckets[i]) {
			struct exec *const x = eh->buckets[i];

			if (x->session)
				plumb_fini(&x->plumb);
			free_exec(x);
		}
	}
	if (eh->ev_read)
		event_free(eh->ev_read);
	if (eh->ev_write)
		event_free(eh->ev_write);
	free(eh);
	h->exec = NULL;
}

void exec_host_kill(struct service_host *h)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct exec *x = h->exec->buckets[i]; x; x = x->next)
			if (!x->ended)
				(void)signal_process(x, SIGKILL);
}

/* The environment of tcpserver and of inetd's successors: programs look for one or the other. What the
 * listener says of its own comes first, and so counts.
 */
enum { ENV_N = 16, ENV_TEXT = SPAWN_PATH_MAX + 16 };

struct environment {
	char text[ENV_N][ENV_TEXT];
	const char *strings[SPAWNER_STRINGS_MAX + 1];
	unsigned n, used;
};

static bool is_set(const struct environment *env, const char *name)
{
	const size_t len = strlen(name);

	for (unsigned i = 0; i < env->n; i++)
		if (!strncmp(env->strings[i], name, len) && env->strings[i][len] == '=')
			return true;
	return false;
}

PRINTF_LIKE(3, 4)
static void set_variable(struct environment *env, const char *name, const char *fmt, ...)
{
	char *const text = env->text[env->used];
	va_list ap;
	int len;

	if (is_set(env, name))
		return;
	len = snprintf(text, ENV_TEXT, "%s=", name);
	va_start(ap, fmt);
	(void)vsnprintf(text + len, ENV_TEXT - (size_t)len, fmt, ap);
	va_end(ap);
	env->strings[env->n++] = text;
	env->used++;
}

static void fill_environment(struct environment *env, const struct session *s)
{
	const struct flow flow = session_flow(s);
	const struct endpoint *const local = &flow.local, *const remote = &flow.remote;
	const struct service *const v = s->service;
	char ours[ADDR_TEXT], theirs[ADDR_TEXT];

	env->n = env->used = 0;
	for (char **own = v->environment; own && *own; own++)
		env->strings[env->n++] = *own;
	(void)addr_format(&local->addr, ours);
	(void)addr_format(&remote->addr, theirs);
	set_variable(env, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	set_variable(env, "PROTO", "TCP");
	set_variable(env, "TCPREMOTEIP", "%s", theirs);
	set_variable(env, "TCPREMOTEPORT", "%u", remote->port);
	set_variable(env, "TCPLOCALIP", "%s", ours);
	set_variable(env, "TCPLOCALPORT", "%u", local->port);
	set_variable(env, "REMOTE_ADDR", "%s", theirs);
	set_variable(env, "REMOTE_PORT", "%u", remote->port);
	set_variable(env, "LOCAL_ADDR", "%s", ours);
	set_variable(env, "LOCAL_PORT", "%u", local->port);
	set_variable(env, "TCPFSM_CONNECTION", "%" PRIu64, s->serial);
	if (v->options->user[0]) {
		set_variable(env, "USER", "%s", v->options->user);
		set_variable(env, "LOGNAME", "%s", v->options->user);
		set_variable(env, "HOME", "%s", v->options->home);
	}
	env->strings[env->n] = NULL;
}

/* Arguments with what their % signs stand for: see check_argument(). */
struct arguments {
	char text[SPAWN_TEXT_MAX];
	const char *strings[SPAWNER_STRINGS_MAX + 1];
};

static const char *expansion(const struct session *s, char letter, char buf[static ADDR_TEXT])
{
	const struct flow flow = session_flow(s);

	switch (letter) {
	case 'r':
		return addr_format(&flow.remote.addr, buf);
	case 'l':
		return addr_format(&flow.local.addr, buf);
	case 'R':
		(void)snprintf(buf, ADDR_TEXT, "%u", flow.remote.port);
		return buf;
	case 'L':
		(void)snprintf(buf, ADDR_TEXT, "%u", flow.local.port);
		return buf;
	case 'c':
		(void)snprintf(buf, ADDR_TEXT, "%" PRIu64, s->serial);
		return buf;
	default:
		return "%";
	}
}

/* Appends one argument to text[*at..]. False: there is no room. */
static bool expand(const struct session *s, const char *in, char *text, size_t *at)
{
	char buf[ADDR_TEXT];

	for (; *in; in++) {
		const char one[2] = { *in, 0 };
		const char *const piece = *in == '%' ? expansion(s, *++in, buf) : one;
		const size_t len = strlen(piece);

		if (len >= SPAWN_TEXT_MAX - *at)
			return false;
		memcpy(text + *at, piece, len);
		*at += len;
	}
	text[(*at)++] = 0;
	return *at < SPAWN_TEXT_MAX;
}

/* The program's path stands as it is. */
static int fill_arguments(struct arguments *args, const struct session *s)
{
	char **const argv = s->service->argv;
	size_t at = 0, n = 1;

	args->strings[0] = argv[0];
	for (; argv[n]; n++) {
		args->strings[n] = args->text + at;
		if (n == SPAWNER_STRINGS_MAX || !expand(s, argv[n], args->text, &at))
			return -E2BIG;
	}
	args->strings[n] = NULL;
	return 0;
}

static void close_pipe(const int fds[2])
{
	(void)close(fds[0]);
	(void)close(fds[1]);
}

/* in[0] and out[1] are the process's and block; in[1] and out[0] are ours and do not. */
static int open_pipes(int in[2], int out[2])
{
	int rc;

	if (pipe2(in, O_CLOEXEC))
		return -errno;
	if (pipe2(out, O_CLOEXEC)) {
		rc = -errno;
		close_pipe(in);
		return rc;
	}
	if (fcntl(in[1], F_SETFL, O_NONBLOCK) || fcntl(out[0], F_SETFL, O_NONBLOCK)) {
		rc = -errno;
		close_pipe(in);
		close_pipe(out);
		return rc;
	}
	return 0;
}

/* Pipes and process for x, whose session stands. */
static int start(struct exec *x, struct session *s)
{
	struct spawn_job job = { .token = s->serial, .setup = &s->service->options->setup };
	struct environment env;
	struct arguments args;
	int in[2], out[2];
	int rc = fill_arguments(&args, s);

	if (!rc)
		rc = open_pipes(in, out);
	if (rc)
		return rc;
	rc = plumb_init(&x->plumb, s, in[1], out[0]);
	if (rc) {
		close_pipe(in);
		close_pipe(out);
		return rc;
	}
	fill_environment(&env, s);
	job.argv = args.strings;
	job.envp = env.strings;
	job.in = in[0];
	job.out = out[1];
	rc = spawner_spawn(s->host->spawner, &job);
	watch_channel(s->host);
	if (rc)
		plumb_fini(&x->plumb);
	return rc;
}

/* Counts it with its listener and its peer. */
static int enter(struct service *v, struct service_host *h, const struct ipaddr *peer)
{
	const uint32_t limit = v->options->max_processes_per_peer;
	int rc;

	if (!limits_take(v->limits, 0, v->options->max_processes))
		return -EAGAIN;
	rc = limit ? limits_enter(v->limits, LIMIT_PROCESSES, peer, limit) : 0;
	if (rc) {
		limits_give(v->limits, 0);
		h->peers_refused++;
	}
	return rc;
}

static void leave(struct service *v, const struct ipaddr *peer)
{
	limits_give(v->limits, 0);
	if (v->options->max_processes_per_peer)
		limits_leave(v->limits, LIMIT_PROCESSES, peer);
}

static int exec_open(struct session *s)
{
	struct service_host *const h = s->host;
	struct service *const v = s->service;
	const struct flow flow = session_flow(s);
	struct exec *x;
	int rc;

	if (!h->spawner || h->exec->lost)
		return -EPIPE;
	rc = enter(v, h, &flow.remote.addr);
	if (rc)
		return rc;
	x = calloc(1, sizeof(*x));
	rc = x ? 0 : -ENOMEM;
	if (x) {
		x->plumb.from_ended = on_from_ended;
		rc = start(x, s);
	}
	if (rc) {
		leave(v, &flow.remote.addr);
		free(x);
		return rc;
	}
	x->peer = flow.remote.addr;
	x->host = h;
	x->session = s;
	x->serial = s->serial;
	x->service = service_ref(v);
	h->processes++;
	x->next = h->exec->buckets[x->serial % BUCKETS];
	h->exec->buckets[x->serial % BUCKETS] = x;
	s->exec = x;
	s->has_process = true;
	plumb_push(&x->plumb);
	return 0;
}

static uint32_t exec_text(struct session *s, struct span text)
{
	return plumb_text(&s->exec->plumb, text);
}

static void exec_readable(struct session *s)
{
	plumb_push(&s->exec->plumb);
}

static void exec_writable(struct session *s)
{
	plumb_pull(&s->exec->plumb);
}

/* Copies one word, quotes removed, to *out, and moves both on. False: a quote is open at the end. */
static bool take_word(const char **in, char **out)
{
	char quote = 0;

	for (; **in && (quote || (**in != ' ' && **in != '\t')); (*in)++) {
		if (quote != '\'' && **in == '\\' && (*in)[1])
			*(*out)++ = *++(*in);
		else if (quote ? **in == quote : **in == '"' || **in == '\'')
			quote = quote ? 0 : **in;
		else
			*(*out)++ = **in;
	}
	*(*out)++ = 0;
	return !quote;
}

static int check_program(const char *path, struct errmsg *ret_err)
{
	struct stat st;
	int rc;

	if (path[0] != '/')
		return errmsg(ret_err, -EINVAL, "exec:%s: an absolute path is needed", path);
	if (stat(path, &st)) {
		rc = -errno;
		return errmsg(ret_err, rc, "exec:%s: %s", path, strerror(-rc));
	}
	if (!S_ISREG(st.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS))
		return errmsg(ret_err, -EACCES, "exec:%s: is not an executable file", path);
	return 0;
}

/* Splits "WORD 'QUOTED WORD'" into a list that ends with NULL, one allocation. -EINVAL: a quote is open. */
static int split(const char *text, char ***ret_words)
{
	const size_t words_max = strlen(text) / 2 + 2; /* a word and its space each, and the NULL */
	char **const words = calloc(1, words_max * sizeof(*words) + strlen(text) + 1);
	char *out = (char *)(words + words_max);
	size_t n = 0;

	if (!words)
		return -ENOMEM;
	for (const char *in = text + strspn(text, " \t"); *in; in += strspn(in, " \t")) {
		words[n++] = out;
		if (!take_word(&in, &out)) {
			free(words);
			return -EINVAL;
		}
	}
	*ret_words = words;
	return 0;
}

/* %r and %R: the peer's address and port; %l and %L: ours; %c: the connection's number; %%: %. */
static int check_arguments(char **argv, struct errmsg *ret_err)
{
	for (unsigned n = 1; argv[0] && argv[n]; n++)
		for (const char *p = argv[n]; (p = strchr(p, '%')) != NULL; p += 2)
			if (!p[1] || !strchr("rRlLc%", p[1]))
				return errmsg(ret_err, -EINVAL,
					      "exec:%s: argument \"%s\": behind %% one of r, R, l, "
					      "L, c or %% is needed",
					      argv[0], argv[n]);
	return 0;
}

static int parse_program(struct service *v, const char *text, struct errmsg *ret_err)
{
	int rc = split(text, &v->argv);

	if (rc)
		return errmsg(ret_err, rc, "exec:%s: %s", text,
			      rc == -EINVAL ? "a quote is not closed" : "out of memory");
	if (!v->argv[0])
		return errmsg(ret_err, -EINVAL, "exec: a program is needed: exec:/path/to/program");
	rc = check_program(v->argv[0], ret_err);
	return rc ? rc : check_arguments(v->argv, ret_err);
}

static int parse_environment(struct service *v, struct errmsg *ret_err)
{
	static const char name[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
	int rc = split(v->options->environment, &v->environment);

	if (rc)
		return errmsg(ret_err, rc, "Environment=%s: %s", v->options->environment,
			      rc == -EINVAL ? "a quote is not closed" : "out of memory");
	for (char **e = v->environment; *e; e++) {
		const size_t len = strspn(*e, name);

		if (!len || (*e)[len] != '=' || ((*e)[0] >= '0' && (*e)[0] <= '9'))
			return errmsg(ret_err, -EINVAL, "Environment=: \"%s\" is no NAME=VALUE",
				      *e);
		if (e - v->environment >= SPAWNER_STRINGS_MAX - ENV_N)
			return errmsg(ret_err, -E2BIG, "Environment=: too many variables");
	}
	return 0;
}

static void exec_destroy(struct service *v)
{
	free((void *)v->argv);
	free((void *)v->environment);
}

static int exec_parse(struct service *v, const char *text, struct errmsg *ret_err)
{
	int rc = parse_program(v, text, ret_err);

	if (!rc)
		rc = parse_environment(v, ret_err);
	if (rc)
		exec_destroy(v);
	return rc;
}

const struct service_ops service_exec = {
	.name = "exec",
	.argument = "PROGRAM ARGS",
	.help = "runs a program for each connection: its input and output are the connection",
	.direct = true,
	.parse = exec_parse,
	.destroy = exec_destroy,
	.open = exec_open,
	.stop = exec_stop,
	.text = exec_text,
	.readable = exec_readable,
	.writable = exec_writable,
	.peer_closed = exec_readable,
	.closed = exec_closed,
};
