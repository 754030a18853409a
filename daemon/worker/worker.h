/* SPDX-License-Identifier: Apache-2.0 */
/* A worker: one thread that owns one engine, its links, its services and its event base. Workers
 * share nothing. The main thread asks by requests, which travel through a bounded mailbox, are
 * carried out in order between two wakeups, and come back to the main thread's event base.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/errmsg.h"
#include "link/link.h"
#include "record/record.h"
#include "service/options.h"
#include "tcp/engine.h"
#include "wire/wire.h"

struct event_base;
struct limits; /* service/limits.h */
struct service_backend; /* service/service.h */
struct spawner; /* service/spawner.h: starts the processes of exec services */
struct worker;

enum {
	SERVICE_NAME_MAX = 32,
	SERVICE_TEXT_MAX = 512,
	WORKER_SYN_TEXT_MAX = 1400,
	WORKER_URGENT_MAX = 1000
};

struct worker_config {
	unsigned index; /* 0.. */
	struct engine_config engine;
	struct tcp_params unserved; /* for what no listener has: engine_set_unserved() */
	const char *const *interfaces; /* NULL: any; NULL-terminated */
	uint32_t coalesce_us; /* the longest that a busy worker lets more arrive; 0: not at all */
	bool answer_neighbours; /* Shield=none: ARP and ND for addresses that no kernel owns */
	struct record *record; /* NULL: none kept. Borrowed */
	enum record_what record_what;
	struct spawner *spawner; /* borrowed; NULL: no exec services */
	struct link_group *group; /* NULL: it is alone. Used by worker_start() only */
	struct event_base *home; /* the main thread's, where answers come back. Made with locking */
};

/* A live connection, for lists. Borrowed from nobody: all values. */
struct worker_conn {
	struct conn_status tcp; /* instants are the engine's vtime; see *_us below for the clock */
	uint64_t created_us, opened_us, state_since_us; /* CLOCK_REALTIME; 0: not yet */
	uint64_t timer_in_us; /* until the next timer; UINT64_MAX: none */
	char service[SERVICE_NAME_MAX];
	char interface[16];
	uint32_t pid; /* exec; 0: none */
};

struct worker_listener {
	struct listener_status tcp;
	uint64_t id; /* as given to WORKER_LISTEN */
	char name[64];
	char service[SERVICE_TEXT_MAX];
	bool draining; /* closed, but connections of it live on: their segments are still ours */
	struct service_backend *backends; /* relay; in the list's own memory */
	size_t backends_n;
};

struct worker_status {
	struct engine_counters engine;
	struct link_counters packet, rawip;
	uint64_t verdicts[WIRE__COUNT]; /* packets by what wire_decode() said */
	uint64_t not_ours; /* segments for what we do not own: dropped, unanswered */
	uint64_t syns_shed; /* SYNs dropped because more came than can be answered */
	uint64_t
		text_missing; /* segments dropped because the link had left their text in the kernel, and it was wanted */
	uint64_t no_path; /* segments not sent: no route or neighbour */
	uint64_t wakeups;
	uint64_t coalesced; /* of them, before which a busy worker let more arrive */
	uint64_t
		strangers_unrecorded; /* half-open connections that the record does not name: too many at a time */
	uint64_t services_refused; /* connections reset because their service could not start */
	uint64_t peers_refused; /* of those that a limit per peer kept out */
	uint32_t processes; /* exec: running now */
	uint64_t relay_connected, relay_failed; /* relay: attempts to connect to a backend */
	uint64_t relay_full; /* relay: connections reset since their backends had enough */
	uint64_t stream_lost, http_requests, http_errors,
		http_timeouts; /* see struct service_host */
};

enum worker_ask {
	WORKER_LISTEN,
	WORKER_UNLISTEN,
	WORKER_FORGET, /* of several workers: a listener that has drained in all. As WORKER_UNLISTEN */
	WORKER_LISTENERS,
	WORKER_CONNECTIONS, /* a page of live connections */
	WORKER_CONNECTION, /* one, by serial */
	WORKER_CONNECT,
	WORKER_CLOSE, /* by serial; cause operator */
	WORKER_RESET, /* by serial; cause operator */
	WORKER_SET_PARAMS, /* a listener's parameters, for connections from now on; id 0: for what none has */
	WORKER_SET_CONNECTION, /* one parameter of a connection, by serial */
	WORKER_SEND_URGENT, /* on a connection, by serial */
	WORKER_STATUS,
	WORKER_STOP, /* close all, wait up to stop_grace_us, reset the rest, end the thread */
};

/* Made by the caller, untouched by it until done() runs on the main thread. rc is 0 or -Exxx with
 * err. Zero it, then set `ask`, `done`, `arg` and the union's member.
 */
struct worker_request {
	enum worker_ask ask;
	void (*done)(struct worker_request *req);
	void *arg;
	struct worker_request *next; /* the worker's */
	int rc;
	struct errmsg err;
	union {
		struct {
			uint64_t id; /* chosen by main; names the listener from now on */
			struct endpoint local;
			struct tcp_params params;
			uint32_t backlog, max_connections;
			struct service_options options;
			struct limits *limits; /* of all workers, borrowed; NULL: it is alone */
			/* A program's: accepted connections go to the other end of fd, which is given to
			 * the worker, also on failure. Else fd means nothing. */
			bool stream;
			bool reuse_port; /* see struct listener_open */
			uint64_t defer_us; /* a program's: see service_new_accepted() */
			int fd;
			uint32_t accepted_max; /* a program's: how many may wait for it at a time */
			char name[64];
			char service[SERVICE_TEXT_MAX];
		} listen;
		struct {
			uint64_t id;
		} unlisten; /* WORKER_UNLISTEN, WORKER_FORGET. -ENOENT */
		struct {
			struct worker_listener *ret_list; /* malloc'ed; the receiver frees it */
			size_t ret_n;
		} listeners;
		struct {
			uint32_t cursor; /* 0 to start, then ret_cursor */
			uint32_t max; /* 1..1024 */
			uint32_t ret_cursor; /* 0: that was the last page */
			struct worker_conn *ret_list; /* malloc'ed; the receiver frees it */
			size_t ret_n;
		} connections;
		struct {
			uint64_t serial;
			struct worker_conn ret_conn;
			struct tcp_params ret_params;
			uint64_t ret_listener; /* its id; 0: none, it is active */
		} connection; /* -ENOENT */
		/* Answers when the connection is ESTABLISHED, or failed. fd >= 0 (given to the worker,
		 * also on failure): a connected, nonblocking UNIX stream socket that carries the octets
		 * from then on: its end of file is our FIN, our end of file is the peer's. */
		struct {
			struct endpoint remote;
			uint32_t scope;
			struct endpoint local; /* addr_any: by the route; port 0: any of ours */
			struct tcp_params params;
			int fd;
			bool early; /* answer once the SYN is queued: the rest is told by fd alone */
			bool ask_cookie; /* opens nothing: ret_cookie alone is answered */
			bool ret_cookie; /* would text go with the SYN (RFC 7413)? */
			uint32_t
				syn_text; /* octets in fd to send first: with the SYN, if they may */
			uint32_t
				skip; /* octets in fd, behind those, to throw away once ESTABLISHED */
			uint64_t ret_serial; /* also on failure, when a SYN was sent; else 0 */
			struct flow ret_flow;
		} connect; /* -ECONNREFUSED, -ETIMEDOUT, -ENETUNREACH, -EADDRINUSE, -EADDRNOTAVAIL ... */
		struct {
			uint64_t serial;
		} end; /* WORKER_CLOSE, WORKER_RESET. -ENOENT */
		struct {
			uint64_t id;
			struct tcp_params params;
		} set_params; /* -ENOENT */
		struct {
			uint64_t serial;
			struct tcp_patch patch;
			struct tcp_params ret_before;
		} set_connection; /* -ENOENT; -EINVAL: it does not go with the others */
		struct {
			uint64_t serial;
			uint32_t len;
			char text[WORKER_URGENT_MAX];
			uint32_t ret_taken; /* less, when the send buffer had no room for it all */
		} urgent; /* -ENOENT, -EPIPE: our FIN is queued */
		struct worker_status status;
		struct {
			uint64_t grace_us;
		} stop;
	};
};

/* Opens links and netview, then starts the thread. The caller has its privileges still. */
int worker_start(const struct worker_config *cfg, struct worker **ret_worker,
		 struct errmsg *ret_err);
/* -EAGAIN: the mailbox is full. -ESHUTDOWN: it has ended. */
int worker_ask(struct worker *w, struct worker_request *req);
/* True as long as the thread turns its loop: for the watchdog. Main thread, a few times a second. */
bool worker_is_alive(struct worker *w);
/* After WORKER_STOP has answered: joins the thread and frees. NULL is nothing. */
void worker_free(struct worker *w);
/* Is `text` a service, with an argument and options that make sense? options NULL: none. 0, or -EINVAL with
 * what was possible. */
int worker_check_service(const char *text, const struct service_options *options,
			 struct errmsg *ret_err);
