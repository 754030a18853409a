/* SPDX-License-Identifier: Apache-2.0 */
/* A call: one request of a client, from its parsing to its answer. Private to control/.
 *
 * It is held by its exchange (the line that it came in) and by each question to a worker or the
 * record that is not answered. So a client may go, or a time limit pass, at any moment: the call is
 * then answered or orphaned, and freed when the last question came back.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "control/client.h"
#include "control/control.h"
#include "control/post.h"
#include "proto/proto.h"
#include "worker/worker.h"

struct event;
struct key;

enum { CALL_LIMIT_US = 10 * 1000 * 1000 }; /* for a question, unless it names another */

struct call {
	struct call *next, *prev; /* in control->calls */
	struct control *control;
	struct exchange *exchange; /* NULL: nobody waits for the answer any more */
	unsigned refs;
	enum method method;
	json_t *id; /* NULL: a notification */
	json_t *params;
	bool text; /* a text command */
	bool in_batch;
	bool answered;
	struct event *limit; /* NULL until a question was asked */
	const char *waits_for; /* for the message when the limit passes */

	char *answer; /* as it goes out, with its newline; malloc'ed; NULL: none */
	size_t answer_len;
	int answer_fd; /* leaves with the answer; -1: none */

	/* A question under way. Only one at a time. */
	struct worker_request req;
	struct record_query query;
	struct post_item query_done;
	void (*then)(struct call *c);

	/* What methods keep from question to question. */
	struct filter *filter;
	json_t *rows;
	uint64_t limit_rows;
	uint32_t scanned_to; /* list connections: the worker's cursor */
	int stream_fd; /* connect: our client's end until it is answered; -1: none */
	struct endpoint endpoint; /* listen, unlisten, connect */
	char name[CONFIG_NAME]; /* listen, unlisten */
	struct held *held; /* listen.stream: until it listens; owned */
	uint64_t listener; /* listen.stream: its id */
	uint64_t
		source; /* connect: of its port, as served_source_take() has it; settled at the end */
	unsigned pending; /* set, unlisten: listeners that have not answered */
	const struct key *key; /* set */
};

/* Methods: run it. Exactly one of call_result() and call_fail*() follows, now or later. */
typedef void call_fn(struct call *c);
call_fn call_list_connections, call_list_listeners, call_list_services, call_list_rules,
	call_show_connection, call_show_transitions, call_listen, call_listen_stream, call_unlisten,
	call_connect, call_choose_port, call_send_urgent, call_set_tcp, call_show_tcp,
	call_close_connection, call_reset_connection, call_status, call_version, call_reload,
	call_shutdown, call_discover;

/* Takes over id and params. NULL: no memory, and they are dropped. */
struct call *call_new(struct control *control, struct exchange *x, enum method m, json_t *id,
		      json_t *params);
void call_run(struct call *c, enum method_level level);
/* The exchange lets go: nobody wants an answer any more. */
void call_orphan(struct call *c);
/* Nobody will take the descriptor: the worker, which holds the other end, gives up its connection. */
void call_give_up_stream(struct call *c);
void call_ref(struct call *c);
void call_unref(struct call *c);

void call_result(struct call *c, json_t *result_stolen); /* NULL: no memory */
__attribute__((format(printf, 3, 4))) void call_fail(struct call *c, enum proto_error code,
						     const char *fmt, ...);
/* By what a worker, the record or a listener said: -ENOENT is not_found, and so on. */
void call_fail_rc(struct call *c, int rc, const struct errmsg *err);

/* Asks the worker by c->req, which is filled in but for done and arg. then() runs with the answer in
 * c->req unless nobody wants it any more; what it holds is freed with the call. limit_us 0: none. */
void call_ask(struct call *c, enum worker_ask ask, void (*then)(struct call *c), uint64_t limit_us);
/* Frees what the last question brought, and zeroes c->req and c->query for the next. */
void call_clear(struct call *c);
/* Asks the record by c->query. */
void call_query(struct call *c, void (*then)(struct call *c));
