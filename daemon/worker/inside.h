/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a worker, shared by the files of this folder. One thread uses all of it but what is
 * marked otherwise.
 *
 *	worker.c	start, thread, pump, end
 *	receive.c	frames -> engine
 *	transmit.c	engine -> frames
 *	conns.c		traces and reports -> sessions and the record
 *	listeners.c	listeners, also draining ones
 *	connect.c	active opens
 *	requests.c	what the main thread asks
 *	mtu.c		interfaces' MTUs -> connections
 *	coalesce.c	how long it waits for more
 */
#pragma once
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>

#include "host/netview.h"
#include "service/service.h"
#include "worker/coalesce.h"
#include "worker/mailbox.h"
#include "worker/own.h"
#include "worker/shed.h"
#include "worker/worker.h"

enum {
	MTUS_MAX = 32, /* interfaces whose MTU is known to have changed or not */
	BATCH = 64, /* frames received in one wakeup */
	CATCH_UP_MAX = 1024, /* frames, before a request is served or a timer expires */
	OUTPUT_MAX = 256, /* segments sent in one go */
	OUTPUT_BYTES = 1 << 20, /* text of them: then what has come meanwhile is looked at */
	ASKS_MAX = 1024, /* requests on their way at a time */
	NEIGH_ANSWERS_MAX = 16, /* in one wakeup */
	STRANGERS_MAX = 4096, /* half-open connections that are recorded, at a time */
	STRANGERS_A_SECOND = 100, /* of those that came to nothing */
};

/* A listener, until the last of its connections is gone. */
struct listener {
	uint64_t id; /* main's name for it */
	uint64_t cookie; /* ours, in the engine: position in the table and generation */
	struct endpoint local;
	struct service *service; /* a reference */
	struct listener_status last; /* of the engine, as it was when the listener was closed */
	listener_id tcp;
	uint32_t live; /* connections of it in conns */
	bool draining;
	bool accepts; /* a program does: room is limited */
	bool reads; /* its service looks at what it is sent */
	char name[64];
	char service_text[SERVICE_TEXT_MAX];
};

/* What only active opens have. */
struct active {
	struct worker_request *connect; /* not answered yet; NULL: none */
	struct event
		*ev_holder; /* does the holder of session.fd go before it is open? NULL: no fd */
	struct endpoint owned; /* outside the local ports: an owner entry; port 0: none */
};

/* A connection: what the engine does not know of it. By the engine's slot; mapped lazily, and small: idle
 * ones have it too. */
struct conn {
	struct session session; /* session.host == NULL: there is none in this slot */
	struct listener *listener; /* NULL: active */
	struct active *active; /* owned; NULL: passive, or of no interest any more */
	uint32_t ifindex; /* by which the first segment came or went */
	uint8_t last_state; /* enum tcp_state, before CLOSED */
	bool stranger; /* half open, and took of worker.strangers */
	bool unrecorded; /* half open, and there was none left: recorded when it opens */
};

/* A connection that ended before its process: its row is written again then. */
struct epitaph {
	struct epitaph *next;
	struct record_connection row;
};

struct mtus {
	struct mtu {
		uint32_t ifindex;
		uint16_t bytes;
	} told[MTUS_MAX];
	unsigned n;
	bool full; /* more interfaces than that */
	bool telling; /* connections from cursor on have still to hear */
	uint32_t cursor;
	uint64_t generation; /* of view, when it was last compared */
};

struct neigh_answer {
	uint8_t frame[WIRE_NEIGH_MAX];
	size_t len;
	uint32_t ifindex;
};

struct worker {
	struct worker_config cfg;
	/* Both threads. */
	struct mailbox asks, answers;
	atomic_uint outstanding; /* requests asked and not done */
	atomic_bool failed;
	atomic_ullong pings_seen;
	/* The main thread's. */
	pthread_t thread;
	bool started;
	struct event *ev_answers; /* on cfg.home */
	atomic_ullong pings_sent;
	uint64_t alive_us; /* when it last answered a ping */
	/* The worker's. */
	struct event_base *base;
	struct event *ev_link, *ev_netview, *ev_asks, *ev_serve, *ev_ping;
	struct event *ev_timer; /* timer_fd: the engine's next deadline, or earlier */
	struct event *ev_again; /* the next wakeup comes at once */
	int timer_fd; /* owned */
	struct link *packet, *rawip;
	struct netview *view;
	void *engine_memory;
	size_t engine_bytes;
	struct engine *engine;
	struct conn *conns; /* engine.conns_max */
	bool conns_used; /* since they were all zeros without memory */
	struct listener **listeners; /* NULL where free */
	uint32_t *listener_gens;
	size_t listeners_n; /* places */
	size_t accepting_n; /* of them, where a program accepts */
	struct own own;
	struct shed shed;
	enum link_pressure pressure; /* as this batch was received */
	struct service_host host; /* host.now is the instant of this wakeup */
	struct epitaph *epitaphs;
	struct worker_request *answered,
		**answered_last; /* told once this wakeup's output is out */
	struct neigh_answer neigh[NEIGH_ANSWERS_MAX];
	unsigned neigh_n;
	uint32_t lo_ifindex;
	struct mtus mtus;
	vtime rest_at; /* when quiet connections are looked for */
	vtime return_at; /* when unused memory is */
	unsigned returns_left; /* times to look for it, unless something happens */
	bool again; /* work was left for the next wakeup */
	struct {
		uint64_t packet, rawip;
	} gathered; /* bits of the flows that have segments in that link's batch */
	bool more; /* frames may be waiting that no event will tell of */
	unsigned taken; /* frames by the last receive(); at least 1 */
	struct coalesce_load came; /* and coalesce was not told yet */
	uint64_t came_last_us; /* CLOCK_REALTIME, when the last of that came */
	uint16_t came_from; /* the remote port of the last segment: who sent it, well enough */
	struct coalesce coalesce;
	unsigned naps; /* times in a row that it waited for more */
	bool polling; /* it looks at the packet socket by itself: see poll_link() */
	unsigned unexpired; /* frames since timers were looked at */
	bool ended; /* leave the loop */
	vtime armed; /* when the timer will fire: never later than it should */
	uint64_t realtime_offset_us; /* CLOCK_REALTIME - CLOCK_MONOTONIC */
	uint64_t offset_taken_us; /* CLOCK_MONOTONIC */
	uint64_t
		spawn_told_us; /* when it was last said that a program cannot be started; 0: never */
	struct worker_request *stop; /* WORKER_STOP, when it was asked */
	vtime stop_at; /* patience ends */
	bool stop_forced; /* it has ended */
	bool stop_closing; /* connections from stop_cursor on have still to be closed */
	uint32_t stop_cursor;
	uint64_t verdicts[WIRE__COUNT];
	bool all_text; /* the link is to copy it, also where nobody reads it */
	uint64_t not_ours, no_path, text_missing, wakeups, coalesced, services_refused;
	uint32_t strangers; /* half-open connections that may still be recorded */
	vtime strangers_at; /* up to when that has grown */
	uint64_t strangers_unrecorded;
};

/* receive.c: a batch; sets w->more when it was full. 0, or -errno: the link is broken. */
int worker_receive(struct worker *w);
/* As much as there was when it began. */
int worker_catch_up(struct worker *w);
/* transmit.c: what the engine wants to send, up to OUTPUT_MAX; sets w->again when more is left. */
void worker_transmit(struct worker *w);
void worker_send_neigh_answers(struct worker *w);

/* conns.c */
void worker_drain_traces(struct worker *w, uint32_t ifindex);
bool worker_serve_reports(struct worker *w); /* was there any? */
/* The worker's part of a connection; made when there is none yet. NULL: it is gone. */
struct conn *worker_conn(struct worker *w, conn_id id, uint32_t ifindex);
void worker_fill_conn(struct worker *w, const struct conn_status *st, struct worker_conn *ret_conn);
void worker_process_ended(struct service_host *h, uint64_t serial, uint32_t pid,
			  int32_t exit_status, uint64_t run_us);
/* The daemon ends this connection: FIN, and its service is gone. */
void worker_close_conn(struct worker *w, conn_id id);
/* The daemon stops: so does this connection, in the way of its service. */
void worker_stop_conn(struct worker *w, conn_id id);
void worker_free_epitaphs(struct worker *w);
/* A connection being opened, with session.fd: cancelled when the other end is closed. -ENOMEM. */
int worker_watch_holder(struct worker *w, struct conn *c, int fd);
void worker_forget_holder(struct conn *c);
static inline uint64_t worker_realtime_us(const struct worker *w, vtime t)
{
	return t.us == VTIME_NEVER.us ? 0 : t.us + w->realtime_offset_us;
}

/* listeners.c. Functions that return int fill *ret_err. */
int listeners_add(struct worker *w, struct worker_request *req);
int listeners_close(struct worker *w, uint64_t id);
int listeners_forget(struct worker *w, uint64_t id); /* one that has drained */
void listeners_close_all(struct worker *w);
struct listener *listeners_find(const struct worker *w, uint64_t id); /* not a draining one */
struct listener *listeners_by_cookie(const struct worker *w, uint64_t cookie);
void listener_conn_gone(struct worker *w, struct listener *l);
/* Before segments come in: how many more may open, where a program accepts. When it does, nobody tells, and other
 * workers' connections go to the same program.
 */
void listeners_refresh_room(struct worker *w);
int listeners_list(const struct worker *w, struct worker_listener **ret_list, size_t *ret_n);
void listeners_fini(struct worker *w);
/* Tells the link what we own now. */
int worker_apply_owned(struct worker *w);

/* mtu.c */
void worker_note_mtu(struct worker *w, uint32_t ifindex);
void worker_tell_mtus(struct worker *w);

/* connect.c: sends a SYN to want->flow.remote, from want->flow.local or by the route. Fills *err. */
int worker_open(struct worker *w, const struct conn_open *want, struct errmsg *err,
		struct conn **ret_conn);
/* See struct service_host. */
int worker_open_far(struct service_host *h, const struct session *near,
		    const struct endpoint *remote, uint64_t timeout_us, struct service *v,
		    struct session **ret_far);

/* requests.c */
void worker_serve_asks(struct worker *w);
void worker_answer(struct worker *w, struct worker_request *req, int rc);
void worker_refuse(struct worker *w, struct worker_request *req); /* it has ended */
void worker_flush_answers(struct worker *w);
void worker_step_stop(struct worker *w);

/* worker.c: logs and ends the thread; the daemon sees worker_is_alive() false. */
PRINTF_LIKE(2, 3) void worker_fail(struct worker *w, const char *fmt, ...);
