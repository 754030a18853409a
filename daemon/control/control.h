/* SPDX-License-Identifier: Apache-2.0 */
/* The control sockets: control.sock and observe.sock in the runtime directory, their clients, and the
 * methods of proto/methods.def. PROTOCOL.md is what a client sees.
 *
 * Everything here runs on the main thread. A call that asks a worker or the record is answered later;
 * a client's answers leave in the order of its questions.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/errmsg.h"
#include "config/config.h"
#include "control/served.h"
#include "host/shield.h"
#include "record/record.h"

struct control;
struct event_base;
struct crew;

/* result: what `reload` answers with, given away; NULL when rc is -Exxx. */
typedef void control_reloaded_fn(void *arg, int rc, json_t *result, const struct errmsg *err);

struct control_config {
	struct event_base *base;
	const char *directory; /* the runtime directory; borrowed */
	struct config *config; /* the current one; a reload and set.tcp change it in place */
	struct served *listeners;
	struct crew *crew;
	struct record *record; /* NULL: none kept */
	enum record_what record_what;
	struct shield *shield; /* NULL: Shield=none */
	uint64_t started_us; /* CLOCK_REALTIME */
	/* What the daemon itself does; arg is its. */
	void *arg;
	void (*stop)(void *arg);
	bool (*stopping)(void *arg);
	/* 0: done() follows, perhaps before this returns. */
	int (*reload)(void *arg, control_reloaded_fn *done, void *done_arg, struct errmsg *ret_err);
};

struct control_counters {
	uint32_t clients; /* connected now */
	uint64_t accepted;
	uint64_t refused; /* above MaxClients */
	uint64_t dropped_slow; /* too much waited for them to read it */
	uint64_t requests, errors; /* calls, and those that were answered with an error */
	uint32_t waiting; /* calls that are not answered */
};

/* Makes the sockets, replacing stale ones, and gives control.sock its group. Nobody is answered, and
 * nobody can connect, before control_start(). Needs the privileges to change a file's group. */
int control_new(const char *directory, const char *group, struct control **ret_control,
		struct errmsg *ret_err);
int control_start(struct control *c, const struct control_config *cfg, struct errmsg *ret_err);
/* Lets clients have what was answered already (for at most a moment), then drops them and removes the
 * sockets. Calls that a worker or the record still holds stay until control_free(). */
void control_stop(struct control *c);
/* After worker and record are gone. NULL is nothing. */
void control_free(struct control *c);
void control_counters(const struct control *c, struct control_counters *ret_counters);
