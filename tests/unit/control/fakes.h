/* SPDX-License-Identifier: Apache-2.0 */
/* Stand-ins for what control/ talks to: a worker whose answers the test decides, a record with rows of
 * the test's, a shield that notes its rules. They replace the real ones at link time.
 */
#pragma once
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "config/config.h"
#include "host/shield.h"
#include "record/record.h"
#include "worker/crew.h"

enum { FAKE_ASKS_MAX = 4096, FAKE_ROWS_MAX = 4096, FAKE_RULES_MAX = 64 };

struct fake {
	struct event_base *base;

	/* The worker. */
	struct worker_request *asks[FAKE_ASKS_MAX]; /* not answered yet, oldest first */
	size_t asks_n, asked; /* now; ever */
	bool hold; /* leave them in asks[] until fake_answer() */
	int ask_rc; /* what crew_ask() gives; not 0: nothing is taken */
	int listen_rc, connect_rc,
		end_rc; /* what WORKER_LISTEN, _CONNECT, _CLOSE and _RESET end by */
	const char *say; /* written into a connect's descriptor; NULL: nothing */
	int connect_fd; /* the worker's end of the last connect; the test closes it. -1: none */
	struct worker_conn conns[FAKE_ROWS_MAX];
	size_t conns_n;
	struct worker_listener listeners[64]; /* what WORKER_LISTEN made */
	size_t listeners_n;
	bool hold_urgent; /* WORKER_SEND_URGENT finds no room */
	bool drain; /* WORKER_UNLISTEN leaves them, draining */
	struct tcp_params unserved; /* WORKER_SET_PARAMS for what comes to no listener */
	unsigned params_set; /* WORKER_SET_PARAMS */
	int params_rc; /* what the next of them for a listener ends by */
	struct tcp_params params; /* of the last of them */
	struct tcp_params conn_params; /* of every connection; WORKER_SET_CONNECTION changes them */

	/* The record. */
	struct record_connection rows[FAKE_ROWS_MAX]; /* by falling id */
	size_t rows_n;
	struct record_transition transitions[16];
	size_t transitions_n;
	int query_rc; /* what record_query() gives */

	/* The shield and the kernel's sockets. */
	struct shield_rule rules[FAKE_RULES_MAX];
	size_t rules_n;
	unsigned applied;
	int apply_rc;
	struct shield_early early; /* what shield_early() gives */
	int shield_fd; /* what shield_fd() gives; -1: none */
	unsigned shield_updates;
	uint16_t kernel_port; /* 0: none */

	/* The configuration: what config_load() gives. */
	struct config config;
	int config_rc;
	const char *config_error, *config_warning;
};

extern struct fake fake;

void fake_reset(struct event_base *base);
/* Answers the i-th of asks[]. */
void fake_answer(size_t i);
/* Joins the record's thread, if one runs. */
void fake_record_wait(void);
bool fake_has_rule(const char *address, uint16_t port);
/* A live connection with this serial, in slot serial - 1, from 10.0.0.`serial`:40000 to 10.0.0.2:port. */
struct worker_conn fake_conn(uint64_t serial, uint16_t port, enum tcp_state state);
struct record_connection fake_row(uint64_t id, uint16_t port);
