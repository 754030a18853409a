/* SPDX-License-Identifier: Apache-2.0 */
#include "control/daemon.h"

#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/notify.h"
#include "service/spawner.h"

enum {
	TICK_US = 500 * 1000,
	TICK_MIN_US = 20 * 1000,
	STUCK_US = 10 * 1000 * 1000, /* a worker that does not turn for so long is worth a line */
	STOP_EXTRA_US = 5 * 1000 * 1000, /* above StopGrace, before a stop is called failed */
	RECORD_US = 5 * 1000 * 1000, /* for what waits to be written */
};

static void timer_set(struct event *timer, uint64_t us)
{
	const struct timeval tv = { .tv_sec = (time_t)(us / 1000000),
				    .tv_usec = (suseconds_t)(us % 1000000) };

	(void)evtimer_add(timer, &tv);
}

/* ---- stop ---- */

static void on_crew_stopped(struct worker_request *req)
{
	struct daemon *d = req->arg;

	d->crew_stopped = true;
	(void)event_base_loopbreak(d->base);
}

/* The mailbox may be full: then the next tick asks again. */
static void stop_crew(struct daemon *d)
{
	int rc;

	if (d->stop_sent)
		return;
	d->stop_request = (struct worker_request){
		.ask = WORKER_STOP,
		.done = on_crew_stopped,
		.arg = d,
		.stop.grace_us = d->ready && !d->keep_rules ? d->config.stop_grace_us : 0,
	};
	rc = crew_ask(d->crew, &d->stop_request);
	d->stop_sent = rc == 0;
	if (rc == -ESHUTDOWN) {
		d->crew_stopped = true;
		(void)event_base_loopbreak(d->base);
	}
}

static void on_stop_limit(evutil_socket_t fd, short what, void *arg)
{
	struct daemon *d = arg;

	(void)fd;
	(void)what;
	(void)event_base_loopbreak(d->base);
}

void daemon_stop(struct daemon *d)
{
	if (d->stopping)
		return;
	d->stopping = true;
	log_info("stopping");
	(void)notify_send("STOPPING=1\nSTATUS=closing connections");
	timer_set(d->stop_limit, d->config.stop_grace_us + STOP_EXTRA_US);
	stop_crew(d);
}

/* Something broke: the rules stay for the next start, so that the kernel answers nobody meanwhile. */
static void daemon_fail(struct daemon *d, unsigned index)
{
	log_error("worker %u has ended: the daemon ends too. Its firewall rules stay, until the "
		  "next start "
		  "or tcpfsmd --cleanup",
		  index);
	d->exit_code = EXIT_FAILURE;
	d->keep_rules = true;
	d->stopping = true;
	timer_set(d->stop_limit, STOP_EXTRA_US);
	stop_crew(d); /* the others */
}

/* ---- the watchdog ---- */

static void on_probe(struct worker_request *req)
{
	struct daemon *d = req->arg;

	d->probing = false;
	free(req);
}

/* It does not turn: has it ended? */
static void probe(struct daemon *d, unsigned index)
{
	struct worker_request *req;
	int rc;

	if (d->probing)
		return;
	req = calloc(1, sizeof(*req));
	if (!req)
		return;
	req->ask = WORKER_STATUS;
	req->done = on_probe;
	req->arg = d;
	rc = crew_ask_one(d->crew, index, req);
	d->probing = rc == 0;
	if (rc < 0)
		free(req);
	if (rc == -ESHUTDOWN)
		daemon_fail(d, index);
}

static uint64_t tick_us(const struct daemon *d)
{
	const uint64_t want = d->watchdog_us ? d->watchdog_us / 4 : TICK_US;

	return want < TICK_MIN_US ? TICK_MIN_US : want > TICK_US ? TICK_US : want;
}

static void watch(struct daemon *d, uint64_t now)
{
	unsigned index;

	if (crew_is_alive(d->crew, &index)) {
		d->alive_us = now;
		d->told_stuck = false;
	} else if (!d->stopping) {
		probe(d, index);
	}
	if (now - d->alive_us > STUCK_US && !d->told_stuck) {
		log_error("worker %u does not turn its loop", index);
		d->told_stuck = true;
	}
	/* At half the period, give or take half a tick. */
	if (d->watchdog_us && d->alive_us == now &&
	    now - d->watchdog_sent_us + tick_us(d) / 2 >= d->watchdog_us / 2) {
		(void)notify_send("WATCHDOG=1");
		d->watchdog_sent_us = now;
	}
}

/* A database that fails stops nothing; but somebody should know. */
static void watch_record(struct daemon *d)
{
	struct record_counters k;
	bool failing, dropping;

	if (!d->record)
		return;
	record_counters(d->record, &k);
	failing = k.last_error[0];
	dropping = k.rows_dropped > d->record_dropped;
	if (failing && !d->record_failing)
		log_warning("record: %s; rows wait in memory, TCP goes on", k.last_error);
	if (dropping && !d->record_dropping)
		log_warning(
			"record: rows are dropped, %llu so far: the database is too slow or fails",
			(unsigned long long)k.rows_dropped);
	if (!failing && d->record_failing)
		log_notice("record: the database is written again; %llu rows were dropped in all",
			   (unsigned long long)k.rows_dropped);
	d->record_failing = failing;
	d->record_dropping = dropping;
	d->record_dropped = k.rows_dropped;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct daemon *d = arg;

	(void)fd;
	(void)what;
	watch(d, clock_monotonic_us());
	watch_record(d);
	notify_late();
	if (d->stopping)
		stop_crew(d);
	timer_set(d->tick, tick_us(d));
}

/* ---- signals ---- */

static void on_term(evutil_socket_t signal, short what, void *arg)
{
	(void)signal;
	(void)what;
	daemon_stop(arg);
}

static void on_reloaded(void *arg, int rc, json_t *result, const struct errmsg *err)
{
	(void)arg;
	(void)rc;
	(void)err;
	json_decref(result); /* the log has it all */
}

static void on_reload_wanted(evutil_socket_t fd, short what, void *arg)
{
	struct daemon *d = arg;

	(void)fd;
	(void)what;
	if (d->stopping || d->reload) /* then at its end */
		return;
	d->reload_wanted = false;
	(void)daemon_reload(d, on_reloaded, NULL, NULL);
}

/* Called as often as there were signals, without looking at anything else in between: a hundred of them that came
 * during one reload are one reload more.
 */
static void on_hup(evutil_socket_t signal, short what, void *arg)
{
	struct daemon *d = arg;

	(void)signal;
	(void)what;
	d->reload_wanted = true;
	event_active(d->on_reload_wanted, EV_TIMEOUT, 0);
}

static int watch_signals(struct daemon *d, struct errmsg *ret_err)
{
	sigset_t ours;

	d->on_term = evsignal_new(d->base, SIGTERM, on_term, d);
	d->on_int = evsignal_new(d->base, SIGINT, on_term, d);
	d->on_hup = evsignal_new(d->base, SIGHUP, on_hup, d);
	d->on_reload_wanted = event_new(d->base, -1, 0, on_reload_wanted, d);
	d->tick = evtimer_new(d->base, on_tick, d);
	d->stop_limit = evtimer_new(d->base, on_stop_limit, d);
	if (!d->on_term || !d->on_int || !d->on_hup || !d->on_reload_wanted || !d->tick ||
	    !d->stop_limit || event_add(d->on_term, NULL) < 0 || event_add(d->on_int, NULL) < 0 ||
	    event_add(d->on_hup, NULL) < 0)
		return errmsg(ret_err, -ENOMEM, "no memory for events");
	(void)sigemptyset(&ours);
	(void)sigaddset(&ours, SIGTERM);
	(void)sigaddset(&ours, SIGINT);
	(void)sigaddset(&ours, SIGHUP);
	(void)sigprocmask(SIG_UNBLOCK, &ours, NULL);
	return 0;
}

/* ---- serve ---- */

static void announce(struct daemon *d)
{
	const size_t n = served_count(d->listeners);

	d->ready = true;
	d->watchdog_us = notify_watchdog_us();
	d->alive_us = clock_monotonic_us();
	timer_set(d->tick, tick_us(d));
	log_info("version " TCPFSM_VERSION " serves %zu listeners; %s/control.sock", n,
		 d->paths.runtime);
	if (notify_send("READY=1\nSTATUS=%zu listeners", n) < 0)
		log_warning("systemd could not be told that we are ready ($NOTIFY_SOCKET)");
}

static void serve(struct daemon *d)
{
	/* The loop is left for good reasons only: the worker stopped, failed, or could not be stopped. */
	do
		(void)event_base_dispatch(d->base);
	while (!event_base_got_break(d->base));
}

/* ---- the end ---- */

/* After a failed start workers may be running: end them, with no grace. */
static void end_crew(struct daemon *d)
{
	const uint64_t until = clock_monotonic_us() + STOP_EXTRA_US;
	const struct timeval step = { .tv_usec = 50 * 1000 };

	while (!d->crew_stopped && !d->ready && clock_monotonic_us() < until) {
		stop_crew(d);
		if (d->crew_stopped)
			break;
		(void)event_base_loopexit(d->base, &step);
		(void)event_base_loop(d->base, EVLOOP_ONCE);
	}
	if (!d->crew_stopped) {
		log_error("the workers do not stop: they are left behind");
		d->exit_code = EXIT_FAILURE;
		return;
	}
	crew_free(d->crew);
	d->crew = NULL;
}

/* Rules of our name go, those of an earlier run that crashed included. */
static void end_rules(struct daemon *d)
{
	struct errmsg err;

	if (d->keep_rules || d->paths.lock_fd < 0 || d->config.shield == CONFIG_SHIELD_NONE)
		return;
	if (!d->shield && shield_new(d->paths.runtime, &d->shield, NULL) < 0)
		return; /* the start has said why */
	if (shield_remove(d->shield, &err) < 0) {
		log_error("firewall rules are left: %s", err.text);
		d->exit_code = EXIT_FAILURE;
	}
}

static void end_events(struct daemon *d)
{
	struct event *const events[] = { d->on_term,          d->on_int, d->on_hup,
					 d->on_reload_wanted, d->tick,   d->stop_limit };

	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (events[i])
			event_free(events[i]);
	if (d->base)
		event_base_free(d->base);
}

static void daemon_end(struct daemon *d)
{
	if (d->listeners)
		served_set_crew(d->listeners, NULL);
	if (d->crew)
		end_crew(d);
	if (d->control)
		control_stop(d->control);
	if (!d->crew) {
		record_close(d->record, RECORD_US);
		control_free(d->control);
		daemon_reload_forget(d);
		spawner_free(d->spawner);
	}
	end_rules(d);
	if (d->crew) {
		/* Its thread may still use everything: nothing is freed. */
		paths_fini(&d->paths);
		_exit(d->exit_code);
	}
	served_free(d->listeners);
	shield_free(d->shield);
	end_events(d);
	if (d->configured)
		config_fini(&d->config);
	paths_fini(&d->paths);
}

int daemon_run(const struct args *args)
{
	struct daemon d = { .args = args, .paths.lock_fd = -1 };
	struct errmsg err;
	int rc;

	rc = daemon_start(&d, &err);
	if (rc == 0)
		rc = watch_signals(&d, &err);
	if (rc == 0) {
		announce(&d);
		serve(&d);
	} else {
		log_error("%s", err.text);
		if (!d.exit_code)
			d.exit_code = EXIT_FAILURE;
	}
	daemon_end(&d);
	if (rc == 0 && d.exit_code == 0)
		log_info("stopped");
	return d.exit_code;
}
