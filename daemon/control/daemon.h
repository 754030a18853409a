/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon: what is started in which order, and stopped in the other. main.c runs it. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/errmsg.h"
#include "config/config.h"
#include "control/args.h"
#include "control/control.h"
#include "control/paths.h"
#include "control/served.h"
#include "worker/crew.h"

enum { EXIT_CONFIG = 2 }; /* a wrong command line or configuration: starting again will not help */

struct event;
struct reload;

struct daemon {
	const struct args *args;
	struct event_base *base;
	struct paths paths;
	bool configured; /* config is filled in */
	struct config config;
	struct shield *shield; /* NULL: Shield=none */
	struct served *listeners;
	struct control *control;
	struct spawner *spawner;
	struct record *record;
	struct crew *crew;
	struct event *on_term, *on_int, *on_hup, *on_reload_wanted, *tick, *stop_limit;
	uint64_t started_us; /* CLOCK_REALTIME */

	struct reload *reload; /* under way; NULL: none */
	bool reload_wanted; /* by a signal; not yet begun */
	struct worker_request stop_request;
	bool ready; /* started, and systemd was told */
	bool stopping, stop_sent;
	bool crew_stopped; /* it has answered WORKER_STOP */
	bool keep_rules; /* it ends because something broke: the next start finds them again */
	int exit_code;

	/* The watchdog. */
	uint64_t watchdog_us, watchdog_sent_us, alive_us; /* CLOCK_MONOTONIC */
	bool probing, told_stuck;

	/* What was said last of the record: each change is logged once. */
	bool record_failing, record_dropping;
	uint64_t record_dropped; /* rows, when it was looked at last */
};

/* Serves until it is told to stop. The process's exit code. */
int daemon_run(const struct args *args);
/* --check, --print-config, --cleanup: the process's exit code. */
int daemon_check(const struct args *args);
int daemon_print_config(const struct args *args);
int daemon_cleanup(void);

/* reload.c. Reads the configuration and logs warnings, each once. */
int daemon_load_config(const struct args *args, struct config *ret_config, struct errmsg *ret_err);
/* What config_load() cannot know: do the services exist, do the addresses suit? */
int daemon_check_config(const struct config *config, struct errmsg *ret_err);

/* reload.c. 0: done() follows. See struct control_config. */
int daemon_reload(struct daemon *d, control_reloaded_fn *done, void *arg, struct errmsg *ret_err);
/* Frees what is under way: the worker is gone, and answers nothing any more. */
void daemon_reload_forget(struct daemon *d);

/* start.c: everything up to the first client. On failure daemon_run() undoes what was done. */
int daemon_start(struct daemon *d, struct errmsg *ret_err);

/* daemon.c */
void daemon_stop(struct daemon *d);
