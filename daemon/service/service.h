/* SPDX-License-Identifier: Apache-2.0 */
/* What a connection is served: echo, discard, chargen, daytime, exec, file,
 * http, relay, stream.
 *
 * A service sees one connection at a time, through a struct session that the worker owns, and speaks
 * to the engine by its user calls. It is a table of functions; the worker calls them between two
 * wakeups of the network. Services that hold descriptors have events of their own on the worker's
 * base; such a callback begins with host->begin() and ends with host->end(), the worker's pump.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/errmsg.h"
#include "service/limits.h"
#include "service/options.h"
#include "tcp/engine.h"

struct event_base;
struct event;
struct exec;
struct exec_host;
struct feed;
struct http;
struct http_config;
struct relay;
struct relay_config;
struct service;
struct session;
struct spawner_channel;
struct stream;
struct stream_accept;
struct stream_tail;

/* What services have in common on one worker. The worker fills in the first part. */
struct service_host {
	struct engine *engine;
	struct event_base *base;
	struct spawner_channel *spawner; /* NULL: no exec services. Borrowed */
	void *worker; /* the owner, for its callbacks */
	uint64_t realtime_us; /* CLOCK_REALTIME of this wakeup */
	vtime now; /* the instant of this wakeup */
	uint64_t loan; /* of what a service's text() is given: see conn_pass_on() */
	void (*begin)(struct service_host *h); /* a wakeup begins: sets now */
	void (*end)(struct service_host
			    *h); /* a wakeup ends: the pump. sessions may be gone after it */
	/* A process whose connection ended before it has ended now; pid 0: it never started. */
	void (*process_ended)(struct service_host *h, uint64_t serial, uint32_t pid,
			      int32_t exit_status, uint64_t run_us);
	void (*spawner_lost)(struct service_host *h); /* once */
	/* relay: opens a connection to `remote` for `near`, with its listener's parameters, to be served v, of
	 * which it takes a reference. NULL: there are none. -Exxx, when nothing was sent. */
	int (*open_far)(struct service_host *h, const struct session *near,
			const struct endpoint *remote, uint64_t timeout_us, struct service *v,
			struct session **ret_far);
	/* A program could not be started: errno. May be NULL. */
	void (*spawn_failed)(struct service_host *h, const char *program, int error);

	uint64_t refused; /* connections reset because their service could not start */
	uint64_t peers_refused; /* of those that a limit per peer kept out; see session_open() */
	uint32_t processes; /* exec: running now */
	uint64_t relay_connected, relay_failed; /* relay: attempts to connect to a backend */
	uint64_t relay_full; /* relay: connections reset since their backends had enough */
	uint64_t http_requests; /* answered, and of them: */
	uint64_t http_errors; /* by 4xx and 5xx */
	uint64_t http_timeouts; /* http: connections in which nothing moved for too long */
	struct exec_host *exec; /* owned by exec.c */
	struct stream_tail *tails; /* owned by stream.c: what holders have still to read */
	size_t tail_bytes; /* in them */
	uint64_t
		stream_lost; /* connections of programs that had not read all, and there was no memory for it */
	uint8_t *scratch; /* SERVICE_SCRATCH_BYTES, for the length of a call */
	uint8_t *chargen; /* the pattern */
};

enum { SERVICE_SCRATCH_BYTES = 65536, STREAM_LINE_BYTES = 192, SERVICE_BACKEND_TEXT = 120 };

/* -ENOMEM and what event_new() fails by. */
int service_host_init(struct service_host *h);
void service_host_fini(struct service_host *h);
/* SIGKILL to every process: the worker stops. */
void service_host_kill(struct service_host *h);

/* A relay's backend, for lists. */
struct service_backend {
	char text[SERVICE_BACKEND_TEXT]; /* as it was written */
	uint32_t active; /* connections to it now, those under way included */
	uint64_t connected, failed; /* attempts, ever */
	bool down; /* it failed lately: it is tried behind the others */
};

struct service_ops {
	const char *name; /* in front of the ':' */
	const char *argument; /* what stands behind it, for people; NULL: none */
	const char *help;
	bool direct; /* text() is wanted: see engine_input() */
	bool hidden; /* not for listeners */
	bool unread; /* what the peer sends is thrown away without a look: it need not be there */
	/* Takes what stands behind the ':' into v; with `argument` only. destroy() undoes it. */
	int (*parse)(struct service *v, const char *argument, struct errmsg *ret_err);
	void (*destroy)(struct service *v);
	/* The connection is ESTABLISHED. -Exxx: it cannot be served and will be reset. */
	int (*open)(struct session *s);
	/* Text that arrived, not copied yet: how much was used. May call conn_send() or conn_pass_on(), nothing else. */
	uint32_t (*text)(struct session *s, struct span text);
	/* Any may be NULL. */
	/* The daemon stops: false: the connection is closed at once. True: the service will end it. */
	bool (*stop)(struct session *s);
	void (*readable)(struct session *s);
	void (*writable)(struct session *s);
	void (*peer_closed)(struct session *s);
	void (*all_acked)(struct session *s);
	/* The session is over, or taken from the service. hangup: by a reset, a timeout, an operator. */
	void (*closed)(struct session *s, bool hangup);
};

/* A service with its arguments and limits, as one listener has it. Counted: the listener and every
 * session and process hold it. */
struct service {
	const struct service_ops *ops;
	unsigned refs;
	const struct service_options *options; /* never NULL; owned, unless nothing was said */
	struct limits *limits; /* a reference */
	char **argv; /* exec; NULL-terminated */
	char **environment; /* exec: of options; NULL-terminated */
	struct relay_config *relay;
	struct http_config *http;
	char *path; /* file; owned */
	struct stream_accept *accept; /* stream of a listener; owned */
};

/* A connection as its service sees it. The worker owns it, one for each slot of the engine: what is in it is
 * paid for by each idle connection. */
struct session {
	struct service_host *host; /* NULL: the slot has no session */
	conn_id id;
	uint64_t serial;
	struct service *service; /* a reference; NULL: none */
	const struct service_ops
		*ops; /* service->ops, or the sink's once the service is gone. Never NULL */
	bool all_acked; /* our FIN was acknowledged */
	bool serving; /* open() was called and closed() was not */
	bool has_process; /* exec: one was asked for and has not ended */
	uint32_t pid; /* exec: its process; 0: none, or it has not started yet */
	int32_t exit_status; /* exec: status or -signal; INT32_MIN: none or running */
	uint64_t run_us; /* exec: the process's life */
	int end_errno; /* stream: what its holder is told when it is closed by a hangup; 0: nothing */
	uint32_t skip; /* stream: octets in fd that are not the connection's */
	int fd; /* stream: set before it is opened, owned until then; -1: none */
	union { /* the service's own */
		uint32_t chargen_at; /* chargen: offset in its pattern */
		struct exec *exec;
		struct stream *stream;
		struct relay *relay;
		struct feed *feed; /* file */
		struct http *http;
	};
};

/* "echo", "exec:/usr/bin/cat -u". options NULL: none. -EINVAL with what was possible; for exec: -ENOENT,
 * -EACCES. */
int service_new(const char *text, const struct service_options *options,
		struct service **ret_service, struct errmsg *ret_err);
/* What WORKER_CONNECT with a descriptor is served. */
int service_new_stream(struct service **ret_service);
/* A listener's whose connections go to a program, which holds the other end of fd, a UNIX stream socket:
 * for each a line, of STREAM_LINE_BYTES, with its descriptor. At most `backlog` should lie there unread:
 * service_room() says how many more may. What the kernel does not take is reset. It is told of a connection when
 * that has text or an end to read, or defer_us after it opened; 0: at once. fd stays the caller's. -EMFILE, -ENOMEM. */
int service_new_accepted(int fd, uint32_t backlog, uint64_t defer_us, struct service **ret_service);
/* How many more connections whoever accepts may have unaccepted; UINT32_MAX: any number. */
uint32_t service_room(const struct service *v);
/* Counts with others of the same listener from now on; before any connection is served. */
void service_share_limits(struct service *v, struct limits *l);
/* What a relay's connections to backends of ours are served. */
int service_new_far(struct service **ret_service);
/* The backends of a relay, 0 of others; how one fares. */
unsigned service_backends(const struct service *v);
void service_backend(const struct service *v, unsigned i, vtime now,
		     struct service_backend *ret_backend);
/* The listener is closed: nothing is accepted any more, and whoever accepts is told. */
void service_stop(struct service *v);
struct service *service_ref(struct service *v);
void service_unref(struct service *v); /* NULL is nothing */
/* What service_new() would say. */
int service_check(const char *text, const struct service_options *options, struct errmsg *ret_err);
/* Every service a listener can have, in a stable order: NULL after the last. */
const struct service_ops *service_nth(size_t n);

/* Gives the session to its service; -Exxx: refused, nothing is held. service may be NULL: text is
 * thrown away, and the connection closed when the peer closes. */
void session_init(struct session *s, struct service_host *h, conn_id id, uint64_t serial,
		  struct service *service);
/* The addresses and ports of its connection: the engine knows them. */
struct flow session_flow(const struct session *s);
int session_open(struct session *s);
/* The daemon stops. False: the caller is to close the connection. */
bool session_stop(struct session *s);
/* A report for it, after REPORT_OPENED and before REPORT_CLOSED were looked at. */
void session_ready(struct session *s, unsigned kinds);
/* Text is delivered: how much was used. */
uint32_t session_text(struct session *s, struct span text);
/* Takes the connection from its service: text that still comes is thrown away, and once our FIN is
 * acknowledged nobody reads any more. The caller (or the service) closes. */
void session_sink(struct session *s, bool hangup);
/* REPORT_CLOSED: the service lets go, references are given back. */
void session_fini(struct session *s, bool hangup);

/* For services: aborts the connection, since its service failed. */
void session_abort(struct session *s);

extern const struct service_ops service_echo, service_discard, service_chargen, service_daytime,
	service_exec, service_far, service_file, service_http, service_relay, service_stream,
	service_accepted, service_sink;

/* For service.c. inetd.c: the pattern of chargen, malloc'ed. */
uint8_t *chargen_new(void);
/* stream.c */
void stream_accept_free(struct stream_accept *a);
void stream_host_fini(struct service_host *h);
int stream_accept_new(int fd, uint32_t backlog, uint64_t defer_us,
		      struct stream_accept **ret_accept);
void stream_accept_stop(struct stream_accept *a);
uint32_t stream_accept_room(const struct stream_accept *a);
int exec_host_init(struct service_host *h);
void exec_host_fini(struct service_host *h);
void exec_host_kill(struct service_host *h);
