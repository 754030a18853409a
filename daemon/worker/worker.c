/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's start, thread, pump and end. Every wakeup ends in worker_pump(). */
#include <errno.h>
#include <event2/thread.h>
#include <inttypes.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/signals.h"
#include "service/spawner.h"
#include "worker/inside.h"

enum {
	OFFSET_FRESH_US = 1000000, /* CLOCK_REALTIME is looked at this often */
	ALIVE_US = 5000000, /* a ping not answered for so long: the thread hangs */
	SPAWN_TELL_US = 10000000, /* between two messages that programs cannot be started */
	RETURN_US = 1000000, /* between looks for unused memory */
	RETURN_SOON_US = 10000, /* when there was much of it */
	RETURNS_MAX = 64, /* pieces given back in one wakeup */
	RETURNS_IDLE = 3, /* looks after the last thing that happened */
	ROUNDS_MAX = 4, /* of reports and output in one wakeup */
	POLL_AFTER = 16, /* naps */
};

void worker_fail(struct worker *w, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!atomic_exchange(&w->failed, true))
		log_error("worker %u: %s; it ends", w->cfg.index, text);
	w->ended = true;
}

static void begin_wakeup(struct worker *w)
{
	const uint64_t now = clock_monotonic_us();

	w->wakeups++;
	w->host.now = (vtime){ now > w->host.now.us ? now : w->host.now.us };
	if (!w->offset_taken_us || now - w->offset_taken_us > OFFSET_FRESH_US) {
		w->realtime_offset_us = clock_realtime_us() - now;
		w->offset_taken_us = now;
	}
	w->host.realtime_us = w->host.now.us + w->realtime_offset_us;
}

/* Sets the one timer. What moves later is left: it fires early, once, and then the deadline is looked at
 * again. So it costs a system call seldom, though deadlines change with every segment.
 */
static void arm_timer(struct worker *w)
{
	vtime at = engine_deadline(w->engine);
	struct itimerspec spec = { 0 };

	if (w->stop)
		at = vtime_min(at, w->stop_at);
	at = vtime_min(at, vtime_min(w->rest_at, w->return_at));
	if (!vtime_before(at, w->armed))
		return;
	w->armed = at;
	spec.it_value.tv_sec = (time_t)(at.us / 1000000);
	spec.it_value.tv_nsec = (long)(at.us % 1000000 * 1000 + 1); /* 0 would stop it */
	if (timerfd_settime(w->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL))
		worker_fail(w, "its timer cannot be set: %s", strerror(errno));
}

static void come_again(struct worker *w)
{
	const struct timeval at_once = { 0 };

	if (event_add(w->ev_again, &at_once))
		worker_fail(w, "its timer cannot be set");
}

static size_t conns_bytes(const struct worker *w)
{
	return w->cfg.engine.conns_max * sizeof(struct conn);
}

static bool is_empty(const struct worker *w)
{
	struct engine_counters c;

	engine_counters(w->engine, &c);
	return c.conns == 0;
}

/* Memory that the engine did not use since the last time goes back to the system, some at a time. */
static void return_memory(struct worker *w)
{
	const vtime now = w->host.now;
	size_t bytes;
	unsigned n = 0;
	void *p;

	if (w->conns_used && is_empty(w)) {
		(void)madvise(w->conns, conns_bytes(w), MADV_DONTNEED); /* they are all zeros */
		w->packet->ops->trim(w->packet);
		w->conns_used = false;
	}
	while (n < RETURNS_MAX && engine_next_unused(w->engine, &p, &bytes)) {
		(void)madvise(p, bytes, MADV_DONTNEED);
		n++;
	}
	if (n)
		w->returns_left = RETURNS_IDLE;
	else if (w->returns_left)
		w->returns_left--;
	w->return_at = n == RETURNS_MAX  ? vtime_add(now, RETURN_SOON_US)
		       : w->returns_left ? vtime_add(now, RETURN_US)
					 : VTIME_NEVER;
}

/* An idle connection costs little, and what an earlier crowd needed is not kept. */
static void save_memory(struct worker *w)
{
	w->rest_at = engine_rest(w->engine, w->host.now);
	if (vtime_before(w->rest_at, VTIME_NEVER)) {
		w->returns_left = RETURNS_IDLE;
		w->return_at = vtime_min(w->return_at, vtime_add(w->host.now, RETURN_US));
	}
	if (!vtime_before(w->host.now, w->return_at))
		return_memory(w);
}

static void check_link(struct worker *w, int rc)
{
	if (rc)
		worker_fail(w, "receive from the packet socket: %s", strerror(-rc));
}

/* A timer that is due waits for what has arrived already: an ACK that waits in the ring makes a
 * retransmission needless, though we come late, and whatever it was that woke us. Not for ever, since there may
 * always be more.
 */
static void expire(struct worker *w)
{
	if (!vtime_before(w->host.now, engine_deadline(w->engine)))
		check_link(w, worker_receive(w));
	w->unexpired += w->taken;
	if (w->more && w->unexpired < CATCH_UP_MAX)
		return;
	w->unexpired = 0;
	engine_expire(w->engine, w->host.now);
}

/* Output can make reports, and reports output; what is left after some rounds waits for the next
 * wakeup, which comes at once.
 */
static void worker_pump(struct worker *w)
{
	bool served;

	w->again = false;
	worker_tell_mtus(w);
	worker_send_neigh_answers(w);
	expire(w);
	for (unsigned i = 0; i < ROUNDS_MAX; i++) {
		served = worker_serve_reports(w);
		if (i && !served)
			break;
		worker_transmit(w);
		w->again |= served && i == ROUNDS_MAX - 1;
		if (w->again)
			break;
	}
	worker_step_stop(w);
	worker_flush_answers(w);
	save_memory(w);
	arm_timer(w);
	if (w->again || w->more)
		come_again(w);
	if (w->ended)
		(void)event_base_loopbreak(w->base);
}

static void on_begin(struct service_host *h)
{
	begin_wakeup(h->worker);
}

static void on_end(struct service_host *h)
{
	worker_pump(h->worker);
}

static void on_spawner_lost(struct service_host *h)
{
	const struct worker *const w = h->worker;

	log_error("worker %u: the spawner has died: exec services are refused until a restart",
		  w->cfg.index);
}

/* A program that cannot be started fails for every connection: it is told now and then. */
static void on_spawn_failed(struct service_host *h, const char *program, int error)
{
	struct worker *const w = h->worker;

	if (w->spawn_told_us && h->now.us - w->spawn_told_us < SPAWN_TELL_US)
		return;
	w->spawn_told_us = h->now.us;
	log_warning("worker %u: exec:%s: cannot be started: %s; connections are reset",
		    w->cfg.index, program, strerror(error));
}

/* A worker that lets more come time after time need not be told of each packet, which costs the sender a look at who is to
 * be woken. What came before it listens again is told then.
 */
static void poll_link(struct worker *w, bool on)
{
	if (on == w->polling)
		return;
	w->polling = on;
	if (on ? event_del(w->ev_link) : event_add(w->ev_link, NULL))
		worker_fail(w, "the packet socket cannot be waited for");
}

/* Lets more come, when much does. Not where work waits, or a timer would come late. */
static void wait_for_more(struct worker *w)
{
	const uint64_t now_us = w->host.realtime_us;
	struct timespec delay = { 0 };

	if (!w->more && w->came_last_us < now_us)
		w->came.tail_us = now_us - w->came_last_us;
	if (w->came.frames)
		coalesce_took(&w->coalesce, &w->came);
	w->came = (struct coalesce_load){ 0 };
	delay.tv_nsec = w->coalesce.delay_us * 1000L;
	if (w->again || w->more || w->ended)
		return; /* it comes again at once */
	if (w->packet->ops->waits(w->packet)) {
		if (w->polling)
			come_again(w);
		return;
	}
	if (!delay.tv_nsec ||
	    vtime_before(w->armed, vtime_add(w->host.now, 2 * w->coalesce.delay_us))) {
		w->naps = 0;
		poll_link(w, false);
		return;
	}
	poll_link(w, ++w->naps > POLL_AFTER);
	(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &delay, NULL);
	w->coalesced++;
	coalesce_waited(&w->coalesce, w->packet->ops->waits(w->packet));
	if (w->polling)
		come_again(w);
}

static void on_link(evutil_socket_t fd, short what, void *arg)
{
	struct worker *const w = arg;

	begin_wakeup(w);
	check_link(w, worker_receive(w));
	worker_pump(w);
	wait_for_more(w);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	on_link(fd, what, arg);
}

static void on_netview(evutil_socket_t fd, short what, void *arg)
{
	struct worker *const w = arg;

	begin_wakeup(w);
	/* Solicitations for addresses of our own come by multicast, which an interface is told of. */
	if (netview_update(w->view, w->host.now.us) && w->cfg.answer_neighbours &&
	    worker_apply_owned(w))
		worker_fail(w, "the packet socket's filter cannot be set");
	worker_pump(w);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct worker *const w = arg;

	w->armed = VTIME_NEVER;
	begin_wakeup(w);
	worker_pump(w);
}

/* What programs wrote, and what arrived, before they asked comes first: descriptors that are ready with
 * this one have their turn, and then it is.
 */
static void on_asks(evutil_socket_t fd, short what, void *arg)
{
	const struct worker *const w = arg;

	event_active(w->ev_serve, EV_TIMEOUT, 0);
}

static void on_serve(evutil_socket_t fd, short what, void *arg)
{
	struct worker *const w = arg;

	begin_wakeup(w);
	check_link(w, worker_catch_up(w));
	worker_serve_reports(w);
	worker_serve_asks(w);
	worker_pump(w);
}

/* The thread's last words: nobody waits for an answer for ever. */
static void answer_all(struct worker *w)
{
	struct worker_request *req;
	uint32_t cursor = 0;
	conn_id id;

	mailbox_close(&w->asks);
	while (engine_next_conn(w->engine, &cursor, &id)) {
		struct conn *const c = &w->conns[id.slot];

		if (!c->session.host || !c->active || !c->active->connect)
			continue;
		worker_answer(w, c->active->connect, -ESHUTDOWN);
		c->active->connect = NULL;
	}
	while ((req = mailbox_take(&w->asks)))
		worker_refuse(w, req);
	if (w->stop)
		worker_answer(w, w->stop, 0);
	worker_flush_answers(w);
}

static void *worker_main(void *arg)
{
	struct worker *const w = arg;
	char name[16];

	(void)snprintf(name, sizeof(name), "worker-%u", w->cfg.index % 1000);
	(void)pthread_setname_np(pthread_self(), name);
	(void)prctl(PR_SET_TIMERSLACK, 1); /* nanoseconds; it would be 50 us */
	begin_wakeup(w);
	worker_pump(w);
	if (event_base_dispatch(w->base) < 0)
		worker_fail(w, "its event loop broke");
	answer_all(w);
	return NULL;
}

/* The main thread's side. */

static void on_answers(evutil_socket_t fd, short what, void *arg)
{
	struct worker *const w = arg;
	struct worker_request *const req = mailbox_take(&w->answers);

	if (!req)
		return;
	atomic_fetch_sub(&w->outstanding, 1);
	req->done(req); /* may free the worker: one answer a wakeup */
}

int worker_ask(struct worker *w, struct worker_request *req)
{
	int rc;

	if (atomic_fetch_add(&w->outstanding, 1) >= ASKS_MAX)
		rc = -EAGAIN;
	else
		rc = mailbox_put(&w->asks, req);
	if (rc)
		atomic_fetch_sub(&w->outstanding, 1);
	return rc;
}

/* A ping costs a wakeup, so the next is sent when the last is answered. */
bool worker_is_alive(struct worker *w)
{
	const uint64_t now = clock_monotonic_us();
	const unsigned long long sent = atomic_load(&w->pings_sent);

	if (atomic_load(&w->failed))
		return false;
	if (atomic_load(&w->pings_seen) == sent) {
		w->alive_us = now;
		atomic_store(&w->pings_sent, sent + 1);
		event_active(w->ev_ping, EV_READ, 0);
	}
	return now - w->alive_us < ALIVE_US;
}

static void on_ping(evutil_socket_t fd, short what, void *arg)
{
	struct worker *const w = arg;

	atomic_store(&w->pings_seen, atomic_load(&w->pings_sent));
}

int worker_check_service(const char *text, const struct service_options *options,
			 struct errmsg *ret_err)
{
	return service_check(text, options, ret_err);
}

static void *map(size_t bytes)
{
	void *const p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int open_network(struct worker *w, struct errmsg *ret_err)
{
	int rc = netview_new(w->cfg.interfaces, &w->view, ret_err);

	if (!rc)
		rc = link_packet_new(w->cfg.group, &w->packet, ret_err);
	if (!rc)
		rc = link_rawip_new(&w->rawip, ret_err);
	w->cfg.interfaces = NULL; /* the caller's; needed no more */
	w->cfg.group = NULL;
	w->lo_ifindex = if_nametoindex("lo");
	return rc;
}

static int make_engine(struct worker *w, struct errmsg *ret_err)
{
	w->engine_bytes = engine_size(&w->cfg.engine);
	w->engine_memory = map(w->engine_bytes);
	w->conns = map(conns_bytes(w));
	if (!w->engine_memory || !w->conns)
		return errmsg(ret_err, -ENOMEM,
			      "worker %u: %zu octets of memory for connections: %s", w->cfg.index,
			      w->engine_bytes + conns_bytes(w), strerror(errno));
	begin_wakeup(w);
	w->engine = engine_init(w->engine_memory, &w->cfg.engine, w->host.now);
	engine_set_unserved(w->engine, &w->cfg.unserved);
	return 0;
}

static int make_events(struct worker *w)
{
	const short edge = EV_READ | EV_ET | EV_PERSIST;

	w->ev_link = event_new(w->base, w->packet->ops->fd(w->packet), edge, on_link, w);
	if (!w->ev_link || event_add(w->ev_link, NULL))
		return -ENOMEM;
	w->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (w->timer_fd < 0)
		return -errno;
	w->ev_netview = event_new(w->base, netview_fd(w->view), EV_READ | EV_PERSIST, on_netview,
				  w);
	w->ev_asks = event_new(w->base, w->asks.fd, EV_READ | EV_PERSIST, on_asks, w);
	w->ev_serve = event_new(w->base, -1, 0, on_serve, w);
	w->ev_ping = event_new(w->base, -1, EV_PERSIST, on_ping, w);
	w->ev_timer = event_new(w->base, w->timer_fd, edge, on_timer, w);
	w->ev_again = evtimer_new(w->base, on_again, w);
	w->ev_answers = event_new(w->cfg.home, w->answers.fd, EV_READ | EV_PERSIST, on_answers, w);
	if (!w->ev_netview || !w->ev_asks || !w->ev_serve || !w->ev_ping || !w->ev_timer ||
	    !w->ev_again || !w->ev_answers)
		return -ENOMEM;
	return event_add(w->ev_timer, NULL) || event_add(w->ev_netview, NULL) ||
			       event_add(w->ev_asks, NULL) || event_add(w->ev_answers, NULL)
		       ? -ENOMEM
		       : 0;
}

static int make_host(struct worker *w, struct errmsg *ret_err)
{
	int rc = 0;

	w->host.engine = w->engine;
	w->host.base = w->base;
	w->host.worker = w;
	w->host.begin = on_begin;
	w->host.end = on_end;
	w->host.process_ended = worker_process_ended;
	w->host.spawner_lost = on_spawner_lost;
	w->host.spawn_failed = on_spawn_failed;
	w->host.open_far = worker_open_far;
	if (w->cfg.spawner)
		rc = spawner_channel_new(w->cfg.spawner, &w->host.spawner, ret_err);
	if (rc)
		return rc;
	rc = service_host_init(&w->host);
	return rc ? errmsg(ret_err, rc, "worker %u: services: %s", w->cfg.index, strerror(-rc)) : 0;
}

static int make_queues(struct worker *w)
{
	(void)evthread_use_pthreads(); /* worker_is_alive() pings from another thread */
	w->base = event_base_new();
	if (!w->base || mailbox_init(&w->asks, ASKS_MAX) || mailbox_init(&w->answers, ASKS_MAX))
		return -ENOMEM;
	if (shed_init(&w->shed))
		return -ENOMEM;
	return own_init(&w->own, w->cfg.engine.local_port_min, w->cfg.engine.local_port_max);
}

/* The thread takes no signal of others: main does. SIGPIPE becomes EPIPE where a pipe's reader is gone. */
static int start_thread(struct worker *w)
{
	sigset_t old;
	int rc;

	signals_block(&old);
	rc = pthread_create(&w->thread, NULL, worker_main, w);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	w->started = !rc;
	return -rc;
}

int worker_start(const struct worker_config *cfg, struct worker **ret_worker,
		 struct errmsg *ret_err)
{
	struct worker *const w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return errmsg(ret_err, -ENOMEM, "worker %u: out of memory", cfg->index);
	w->cfg = *cfg;
	w->strangers = STRANGERS_MAX;
	w->coalesce.max_us = cfg->coalesce_us;
	w->armed = w->rest_at = w->return_at = VTIME_NEVER;
	w->timer_fd = -1;
	w->answered_last = &w->answered;
	w->alive_us = clock_monotonic_us();
	rc = make_queues(w);
	if (rc)
		(void)errmsg(ret_err, rc, "worker %u: queues: %s", cfg->index, strerror(-rc));
	if (!rc)
		rc = open_network(w, ret_err);
	if (!rc)
		rc = make_engine(w, ret_err);
	if (!rc)
		rc = make_host(w, ret_err);
	if (!rc) {
		rc = make_events(w);
		if (!rc)
			rc = worker_apply_owned(w);
		if (!rc)
			rc = start_thread(w);
		if (rc)
			(void)errmsg(ret_err, rc, "worker %u: %s", cfg->index, strerror(-rc));
	}
	if (rc) {
		worker_free(w);
		return rc;
	}
	*ret_worker = w;
	return 0;
}

static void free_events(struct worker *w)
{
	struct event *const events[] = { w->ev_link, w->ev_netview, w->ev_asks,  w->ev_serve,
					 w->ev_ping, w->ev_timer,   w->ev_again, w->ev_answers };

	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (events[i])
			event_free(events[i]);
}

/* Services hold descriptors and processes also when the worker broke in the middle of it. */
static void free_sessions(struct worker *w)
{
	uint32_t cursor = 0;
	conn_id id;

	while (w->engine && engine_next_conn(w->engine, &cursor, &id)) {
		struct session *const s = &w->conns[id.slot].session;

		worker_forget_holder(&w->conns[id.slot]);
		if (s->host && s->fd >= 0)
			(void)close(s->fd);
		session_fini(s, true);
		free(w->conns[id.slot].active);
	}
}

void worker_free(struct worker *w)
{
	if (!w)
		return;
	if (w->started)
		(void)pthread_join(w->thread, NULL);
	free_sessions(w);
	service_host_fini(&w->host);
	spawner_channel_free(w->host.spawner);
	worker_free_epitaphs(w);
	listeners_fini(w);
	free_events(w);
	if (w->timer_fd >= 0)
		(void)close(w->timer_fd);
	if (w->packet)
		w->packet->ops->free(w->packet);
	if (w->rawip)
		w->rawip->ops->free(w->rawip);
	if (w->view)
		netview_free(w->view);
	if (w->engine_memory)
		(void)munmap(w->engine_memory, w->engine_bytes);
	if (w->conns)
		(void)munmap(w->conns, conns_bytes(w));
	own_fini(&w->own);
	shed_fini(&w->shed);
	mailbox_fini(&w->asks);
	mailbox_fini(&w->answers);
	if (w->base)
		event_base_free(w->base);
	free(w);
}
