/* SPDX-License-Identifier: Apache-2.0 */
/* How the daemon starts. The order matters:
 *
 *	lock		before anything that two daemons would fight over
 *	looking around	while we may see who owns a port, and load iptables' modules
 *	sockets		while their group can be set; nobody is heard before the end
 *	spawner		a fork: before threads, and before capabilities are given up, for it gives up all
 *	capabilities	before threads, which inherit what is left
 *	record		its threads
 *	rules		before the first segment is taken; then their test
 *	workers		their threads
 *	listeners	then READY
 */
#include <errno.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/daemon.h"
#include "control/notify.h"
#include "control/privilege.h"
#include "host/sockets.h"
#include "link/link.h"
#include "service/spawner.h"

enum {
	ANSWER_MS = 10000, /* for the worker to answer a question of the start */
	/* Text of a super-segment: with Ethernet's header, a VLAN tag, IPv6's header and TCP's what the kernel has in one piece. */
	SEGMENT_BYTES_MAX = LINK_PIECE_MAX - 14 - 4 - 40 - 60,
};

static int start_base(struct daemon *d, struct errmsg *ret_err)
{
	sigset_t ours;

	/* Blocked until the loop runs: a signal during the start is heard after it. Threads and the
	 * spawner inherit it. */
	(void)sigemptyset(&ours);
	(void)sigaddset(&ours, SIGTERM);
	(void)sigaddset(&ours, SIGINT);
	(void)sigaddset(&ours, SIGHUP);
	(void)sigprocmask(SIG_BLOCK, &ours, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	if (evthread_use_pthreads() < 0)
		return errmsg(ret_err, -EIO, "libevent does not do threads here");
	d->base = event_base_new();
	return d->base ? 0 : errmsg(ret_err, -ENOMEM, "libevent: no event base");
}

/* An exec connection holds two descriptors: all that we may have. */
static void start_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int start_directories(struct daemon *d, struct errmsg *ret_err)
{
	int rc;

	rc = paths_init(&d->paths, ret_err);
	if (rc == 0)
		rc = paths_make_runtime(&d->paths, ret_err);
	if (rc == 0)
		rc = paths_lock(&d->paths, ret_err);
	if (rc == 0 && d->config.record != CONFIG_RECORD_NOTHING && d->config.database[0] != '/')
		rc = paths_make_state(&d->paths, ret_err);
	return rc;
}

static int check_local_ports(const struct config *config, struct errmsg *ret_err)
{
	int rc;

	/* With Shield=none our addresses are not the kernel's, nor are their ports. */
	if (config->shield == CONFIG_SHIELD_NONE)
		return 0;
	rc = sockets_check_ephemeral(config->local_port_min, config->local_port_max, ret_err);
	if (rc == 0)
		rc = sockets_check_free(&addr_any, config->local_port_min, config->local_port_max,
					ret_err);
	return rc;
}

static int check_listeners(const struct daemon *d, struct errmsg *ret_err)
{
	const struct config *config = &d->config;
	struct errmsg err;
	int rc;

	for (size_t i = 0; i < config->listeners_n; i++) {
		rc = served_check(d->listeners, &config->listeners[i], &err);
		if (rc < 0)
			return errmsg(ret_err, rc, "listener %s: %s", config->listeners[i].name,
				      err.text);
	}
	return 0;
}

/* The names of [Daemon] Interfaces; NULL: any. */
static const char *const *interface_names(const struct config *config,
					  const char *names[CONFIG_INTERFACES_MAX + 1])
{
	for (size_t i = 0; i < config->interfaces_n; i++)
		names[i] = config->interfaces[i];
	names[config->interfaces_n] = NULL;
	return config->interfaces_n ? names : NULL;
}

/* Reading the rules once makes iptables load what it needs, which it could not do later; and so does asking nft.
 * Programs of BPF are made while we may. */
static int start_shield(struct daemon *d, struct errmsg *ret_err)
{
	const char *names[CONFIG_INTERFACES_MAX + 1];
	struct shield_stat *stats;
	size_t n;
	int rc;

	if (d->config.shield == CONFIG_SHIELD_NONE)
		return 0;
	rc = shield_new(d->paths.runtime, &d->shield, ret_err);
	if (rc == 0)
		rc = shield_list(d->shield, &stats, &n, ret_err);
	if (rc < 0)
		return rc;
	free(stats);
	if (d->config.shield == CONFIG_SHIELD_INGRESS || d->config.shield == CONFIG_SHIELD_BPF)
		rc = shield_drop_early(d->shield,
				       d->config.shield == CONFIG_SHIELD_BPF ? SHIELD_BY_BPF
									     : SHIELD_BY_NFT,
				       interface_names(&d->config, names), ret_err);
	return rc;
}

static int start_served(struct daemon *d, struct errmsg *ret_err)
{
	const struct config *config = &d->config;
	const struct served_config sc = {
		.base = d->base,
		.shield = d->shield,
		.local_ports = { addr_any, config->local_port_min, config->local_port_max },
		.may_switch_user = privilege_may_switch_user(),
	};
	int rc;

	rc = check_local_ports(config, ret_err);
	if (rc == 0)
		rc = served_new(&sc, &d->listeners, ret_err);
	if (rc == 0)
		rc = check_listeners(d, ret_err);
	return rc;
}

/* The rules, and proof that the kernel leaves our segments alone. */
static int raise_shield(struct daemon *d, struct errmsg *ret_err)
{
	const struct config *config = &d->config;
	int rc;

	if (!d->shield)
		return 0;
	rc = served_shield(d->listeners, config->listeners, config->listeners_n, ret_err);
	if (rc < 0)
		return rc;
	rc = shield_self_test(d->shield, d->config.local_port_min, d->config.local_port_max,
			      ret_err);
	if (rc != -ENETDOWN)
		return rc;
	log_warning("the shield's rules stand, but could not be tested: %s", ret_err->text);
	return 0;
}

static enum record_what record_what(const struct config *config)
{
	switch (config->record) {
	case CONFIG_RECORD_NOTHING:
		return RECORD_NOTHING;
	case CONFIG_RECORD_CONNECTIONS:
		return RECORD_CONNECTIONS;
	case CONFIG_RECORD_TRANSITIONS:
		return RECORD_TRANSITIONS;
	}
	return RECORD_NOTHING;
}

enum { CONVERTING_S = 1200 }; /* two gigabytes take half a minute, on a good disk */

static void on_converting(const char *path, int from_version, uint64_t bytes)
{
	log_notice("%s: converting %" PRIu64
		   " MiB from schema %d to %d; connections are served after that",
		   path, bytes >> 20, from_version, (int)RECORD_SCHEMA);
	(void)notify_send("EXTEND_TIMEOUT_USEC=%d000000\nSTATUS=converting the record",
			  CONVERTING_S);
}

static int start_record(struct daemon *d, struct errmsg *ret_err)
{
	const struct config *config = &d->config;
	char path[PATHS_TEXT + CONFIG_TEXT + 2];
	const struct record_config rc = {
		.path = path,
		.what = record_what(config),
		.retain_us = config->retain_us,
		.retain_bytes = config->retain_bytes,
		.converting = on_converting,
	};

	if (config->record == CONFIG_RECORD_NOTHING)
		return 0;
	if (config->database[0] == '/')
		(void)snprintf(path, sizeof(path), "%s", config->database);
	else
		(void)snprintf(path, sizeof(path), "%s/%s", d->paths.state, config->database);
	return record_open(&rc, &d->record, ret_err);
}

enum { WORKING_LEAST = 262144 };

static uint32_t at_least(uint64_t v, uint32_t least)
{
	return v < least ? least : v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

static int engine_config_fill(const struct daemon *d, struct engine_config *ret_engine,
			      struct errmsg *ret_err)
{
	const struct config *config = &d->config;
	struct engine_config e = {
		.conns_max = config->max_connections,
		.listeners_max = SERVED_MAX,
		.syn_received_max = at_least(config->max_connections / 4, 1),
		.time_wait_max = at_least(config->max_connections / 2, 1),
		/* Connections that strangers may keep busy at a time: a quarter of many, all of few. */
		.working_max = at_least(config->max_connections / 4, WORKING_LEAST),
		.chunks_max = at_least(config->buffer_bytes / ENGINE_CHUNK_BYTES, 2),
		.segment_bytes_max = SEGMENT_BYTES_MAX,
		.local_port_min = config->local_port_min,
		.local_port_max = config->local_port_max,
		.serial_first = d->record ? record_next_id(d->record) : 1,
		.serial_step = 1,
	};

	if (getrandom(e.secret, sizeof(e.secret), 0) != (ssize_t)sizeof(e.secret))
		return errmsg(ret_err, -errno, "getrandom: %s", strerror(errno));
	*ret_engine = e;
	return 0;
}

static int start_crew(struct daemon *d, struct errmsg *ret_err)
{
	const struct config *config = &d->config;
	const char *names[CONFIG_INTERFACES_MAX + 1];
	struct worker_config wc = {
		.unserved = config->tcp,
		.interfaces = interface_names(config, names),
		.coalesce_us = (uint32_t)config->coalesce_us,
		.answer_neighbours = config->shield == CONFIG_SHIELD_NONE,
		.record = d->record,
		.record_what = d->record ? record_what(config) : RECORD_NOTHING,
		.spawner = d->spawner,
		.home = d->base,
	};
	int rc;

	rc = engine_config_fill(d, &wc.engine, ret_err);
	if (rc == 0)
		rc = crew_start(&wc, config->workers, &d->crew, ret_err);
	if (rc == 0)
		served_set_crew(d->listeners, d->crew);
	return rc;
}

/* ---- listeners, one after the other: the loop turns until each was answered ---- */

struct opening {
	bool answered;
	int rc;
	struct errmsg err;
};

static void on_opened(void *arg, int rc, const struct errmsg *err)
{
	struct opening *o = arg;

	o->answered = true;
	o->rc = rc;
	if (rc < 0)
		o->err = *err;
}

static int open_and_wait(struct daemon *d, const struct config_listener *spec, struct opening *o)
{
	const uint64_t until = clock_monotonic_us() + UINT64_C(1000) * ANSWER_MS;
	const struct timeval step = { .tv_usec = 100 * 1000 };
	int rc;

	rc = served_open(d->listeners, spec, true, on_opened, o, &o->err);
	if (rc < 0)
		return rc;
	while (!o->answered && clock_monotonic_us() < until) {
		(void)event_base_loopexit(d->base, &step);
		(void)event_base_loop(d->base, EVLOOP_ONCE);
	}
	return o->answered ? o->rc : errmsg(&o->err, -ETIMEDOUT, "the worker does not answer");
}

static int start_listeners(struct daemon *d, struct errmsg *ret_err)
{
	/* Static: an answer that comes after the time is over still finds its place. */
	static struct opening opening;
	const struct config *config = &d->config;
	int rc;

	for (size_t i = 0; i < config->listeners_n; i++) {
		opening = (struct opening){ 0 };
		rc = open_and_wait(d, &config->listeners[i], &opening);
		if (rc < 0)
			return errmsg(ret_err, rc, "listener %s: %s", config->listeners[i].name,
				      opening.err.text);
	}
	return 0;
}

/* ---- everything ---- */

static void on_stop(void *arg)
{
	daemon_stop(arg);
}

static bool is_stopping(void *arg)
{
	const struct daemon *d = arg;

	return d->stopping;
}

static int on_reload(void *arg, control_reloaded_fn *done, void *done_arg, struct errmsg *ret_err)
{
	return daemon_reload(arg, done, done_arg, ret_err);
}

static int start_control(struct daemon *d, struct errmsg *ret_err)
{
	const struct control_config cc = {
		.base = d->base,
		.directory = d->paths.runtime,
		.config = &d->config,
		.listeners = d->listeners,
		.crew = d->crew,
		.record = d->record,
		.record_what = record_what(&d->config),
		.shield = d->shield,
		.started_us = d->started_us,
		.arg = d,
		.stop = on_stop,
		.stopping = is_stopping,
		.reload = on_reload,
	};

	return control_start(d->control, &cc, ret_err);
}

static int start_config(struct daemon *d, struct errmsg *ret_err)
{
	int rc;

	rc = daemon_load_config(d->args, &d->config, ret_err);
	if (rc == 0) {
		d->configured = true;
		log_setup((enum log_level)d->config.log_level);
		rc = daemon_check_config(&d->config, ret_err);
	}
	if (rc < 0)
		d->exit_code = EXIT_CONFIG;
	return rc;
}

int daemon_start(struct daemon *d, struct errmsg *ret_err)
{
	int rc;

	d->started_us = clock_realtime_us();
	rc = start_config(d, ret_err);
	if (rc == 0)
		rc = privilege_check(ret_err);
	if (rc == 0)
		rc = start_base(d, ret_err);
	if (rc == 0)
		rc = start_directories(d, ret_err);
	if (rc == 0)
		rc = start_shield(d, ret_err);
	if (rc == 0)
		rc = start_served(d, ret_err);
	if (rc == 0)
		rc = control_new(d->paths.runtime, d->config.socket_group, &d->control, ret_err);
	if (rc == 0)
		rc = spawner_start(&d->spawner, ret_err);
	if (rc == 0) {
		start_descriptors(); /* after the spawner: programs get the limit that we were given */
		rc = privilege_drop(ret_err);
	}
	if (rc == 0)
		rc = start_record(d, ret_err);
	if (rc == 0)
		rc = raise_shield(d, ret_err);
	if (rc == 0)
		rc = start_crew(d, ret_err);
	if (rc == 0)
		rc = start_listeners(d, ret_err);
	if (rc == 0)
		rc = start_control(d, ret_err);
	return rc;
}
