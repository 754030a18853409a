/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the configuration, and reading it again: then what changed in the listeners is carried out, what can only change
 * at a start is named. A configuration that is wrong changes nothing.
 */
#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "config/listener.h"
#include "config/tcp.h"
#include "control/daemon.h"
#include "control/notify.h"
#include "control/options.h"

static void on_load_warning(void *arg, const char *message)
{
	(void)arg;
	log_warning("%s", message);
}

int daemon_load_config(const struct args *args, struct config *ret_config, struct errmsg *ret_err)
{
	return config_load(args->config_file, args->overrides, args->overrides_n, on_load_warning,
			   NULL, ret_config, ret_err);
}

int daemon_check_config(const struct config *config, struct errmsg *ret_err)
{
	struct service_options options;
	struct errmsg err;
	int rc;

	for (size_t i = 0; i < config->listeners_n; i++) {
		const struct config_listener *l = &config->listeners[i];

		rc = options_of_listener(l, true, &options, &err);
		if (rc == 0)
			rc = worker_check_service(l->service, &options, &err);
		if (rc < 0)
			return errmsg(ret_err, rc, "listener %s: %s", l->name, err.text);
		if (config->shield == CONFIG_SHIELD_NONE && addr_is_any(&l->address.addr))
			return errmsg(
				ret_err, -EINVAL,
				"listener %s: with Shield=none a listener needs an address of its "
				"own, one that no kernel owns",
				l->name);
	}
	return 0;
}

struct reload {
	struct daemon *d;
	control_reloaded_fn *done;
	void *arg;
	unsigned pending; /* answers that are missing, and one while questions are being asked */
	unsigned added, removed, changed, failed;
	json_t *warnings;
};

/* One change of a listener, for its answer. */
struct change {
	struct reload *r;
	unsigned *count; /* what it adds to when it went well; NULL: nothing */
	char name[CONFIG_NAME];
};

PRINTF_LIKE(2, 3) static void warn(struct reload *r, const char *fmt, ...)
{
	struct errmsg text;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text.text, sizeof(text.text), fmt, ap);
	va_end(ap);
	log_warning("reload: %s", text.text);
	(void)json_array_append_new(r->warnings, json_string(text.text));
}

static void on_config_warning(void *arg, const char *message)
{
	warn(arg, "%s", message);
}

static void reload_free(struct reload *r)
{
	json_decref(r->warnings);
	free(r);
}

static void reload_finish(struct reload *r)
{
	struct daemon *d = r->d;
	struct errmsg err;
	json_t *result;

	d->reload = NULL;
	/* Rules made in advance for listeners that could not be opened. */
	if (r->failed && served_shield(d->listeners, NULL, 0, &err) < 0)
		warn(r, "%s", err.text);
	log_info("reloaded: listeners: %u added, %u removed, %u changed, %u failed", r->added,
		 r->removed, r->changed, r->failed);
	(void)notify_send("READY=1\nSTATUS=%zu listeners", served_count(d->listeners));
	result = json_pack("{s:i, s:i, s:i, s:O}", "listeners_added", (int)r->added,
			   "listeners_removed", (int)r->removed, "listeners_changed",
			   (int)r->changed, "warnings", r->warnings);
	r->done(r->arg, 0, result, NULL);
	reload_free(r);
	if (d->reload_wanted)
		event_active(d->on_reload_wanted, EV_TIMEOUT, 0);
}

static void reload_answered(struct reload *r)
{
	if (--r->pending == 0)
		reload_finish(r);
}

static void on_change(void *arg, int rc, const struct errmsg *err)
{
	struct change *change = arg;
	struct reload *r = change->r;

	if (rc == 0 && change->count) {
		++*change->count;
	} else if (rc < 0) {
		r->failed++;
		warn(r, "listener %s: %s", change->name, err->text);
	}
	free(change);
	reload_answered(r);
}

/* NULL: no memory, which was said. */
static struct change *change_new(struct reload *r, unsigned *count, const char *name)
{
	struct change *change = calloc(1, sizeof(*change));

	if (!change) {
		r->failed++;
		warn(r, "listener %s: no memory", name);
		return NULL;
	}
	change->r = r;
	change->count = count;
	(void)snprintf(change->name, sizeof(change->name), "%s", name);
	r->pending++;
	return change;
}

static void close_listener(struct reload *r, const struct listener *l, unsigned *count)
{
	struct change *change = change_new(r, count, l->spec.name);
	const struct endpoint address = l->spec.address;
	struct errmsg err;
	int rc;

	if (!change)
		return;
	rc = served_close(r->d->listeners, &address, on_change, change, &err);
	if (rc < 0)
		on_change(change, rc, &err);
}

static void open_listener(struct reload *r, const struct config_listener *spec, unsigned *count)
{
	struct change *change = change_new(r, count, spec->name);
	struct errmsg err;
	int rc;

	if (!change)
		return;
	rc = served_open(r->d->listeners, spec, true, on_change, change, &err);
	if (rc < 0)
		on_change(change, rc, &err);
}

static void change_params(struct reload *r, uint64_t id, const struct config_listener *spec)
{
	struct change *change = change_new(r, &r->changed, spec->name);
	struct errmsg err;
	int rc;

	if (!change)
		return;
	rc = served_set_params(r->d->listeners, id, spec, on_change, change, &err);
	if (rc < 0)
		on_change(change, rc, &err);
}

/* What comes to no listener goes by [Tcp] itself. */
static void change_unserved(struct reload *r, const struct tcp_params *tcp)
{
	struct change *change = change_new(r, NULL, "none");
	struct errmsg err;
	int rc;

	if (!change)
		return;
	rc = served_set_unserved(r->d->listeners, tcp, on_change, change, &err);
	if (rc < 0)
		on_change(change, rc, &err);
}

static const struct config_listener *spec_find(const struct config *config,
					       const struct endpoint *address)
{
	for (size_t i = 0; i < config->listeners_n; i++)
		if (endpoint_eq(&config->listeners[i].address, address))
			return &config->listeners[i];
	return NULL;
}

/* Those that are configured no more. What `listen` opened is not the configuration's. */
static void remove_old(struct reload *r, const struct config *config)
{
	const struct listener *l;

	for (size_t i = 0; (l = served_nth(r->d->listeners, i)) != NULL; i++)
		if (l->configured && l->state != LISTENER_DRAINING &&
		    !spec_find(config, &l->spec.address))
			close_listener(r, l, &r->removed);
}

static void take_new(struct reload *r, const struct config_listener *spec)
{
	const struct listener *l = served_find(r->d->listeners, &spec->address);
	const bool changed = l && l->configured;

	if (!changed) {
		open_listener(r, spec, &r->added); /* refused when `listen` has the address */
	} else if (config_listener_differs(&l->spec, spec)) {
		close_listener(r, l, NULL);
		open_listener(r, spec, &r->changed);
	} else if (!config_tcp_eq(&l->spec.tcp, &spec->tcp) ||
		   memcmp(l->spec.tcp_from, spec->tcp_from, sizeof(spec->tcp_from)) != 0) {
		change_params(r, l->id, spec);
	}
}

/* What `listen` opened follows the new [Tcp] in all that is not its own. */
static void follow(struct reload *r, const struct config *config)
{
	const struct listener *l;

	for (size_t i = 0; (l = served_nth(r->d->listeners, i)) != NULL; i++) {
		struct config_listener spec = l->spec;

		if (l->configured || l->state == LISTENER_DRAINING)
			continue;
		config_tcp_follow(&l->spec, &config->tcp, &spec.tcp);
		if (!config_tcp_eq(&l->spec.tcp, &spec.tcp))
			change_params(r, l->id, &spec);
	}
}

static void tell_back(struct reload *r, const struct key *k, const char *whose,
		      const struct tcp_params *was, const struct tcp_params *is)
{
	char before[KEY_TEXT_MAX], after[KEY_TEXT_MAX];

	if (!config_tcp_key_eq(k, was, is))
		warn(r, "%sTcp.%s: %.64s, which was set at run time, is %.64s again", whose,
		     k->name, key_format(k, was, before), key_format(k, is, after));
}

/* The file is in force again: what was set at run time and differs from it is named. */
static void name_set(struct reload *r, const struct config *config)
{
	const struct config *const now = &r->d->config;
	char whose[CONFIG_NAME + 16];

	for (size_t n = 0; n < KEYS_N; n++) {
		if (keys[n].section != SECTION_TCP)
			continue;
		if (config_tcp_noted(now, &keys[n]))
			tell_back(r, &keys[n], "", &now->tcp, &config->tcp);
		for (size_t i = 0; i < config->listeners_n; i++) {
			const struct config_listener *const spec = &config->listeners[i];
			const struct listener *const l = served_find(r->d->listeners,
								     &spec->address);

			if (!l || !l->configured || l->spec.tcp_from[n] != FROM_SET)
				continue;
			(void)snprintf(whose, sizeof(whose), "listener %s: ", spec->name);
			tell_back(r, &keys[n], whose, &l->spec.tcp, &spec->tcp);
		}
	}
}

static bool interfaces_eq(const struct config *a, const struct config *b)
{
	if (a->interfaces_n != b->interfaces_n)
		return false;
	for (size_t i = 0; i < a->interfaces_n; i++)
		if (strcmp(a->interfaces[i], b->interfaces[i]) != 0)
			return false;
	return true;
}

static void fixed(struct reload *r, const char *key, bool same)
{
	if (!same)
		warn(r, "%s takes effect at the next start", key);
}

/* Keys that are read at a start only. */
static void name_fixed(struct reload *r, const struct config *a, const struct config *b)
{
	fixed(r, "Daemon.Interfaces", interfaces_eq(a, b));
	fixed(r, "Daemon.Shield", a->shield == b->shield);
	fixed(r, "Daemon.LocalPorts",
	      a->local_port_min == b->local_port_min && a->local_port_max == b->local_port_max);
	fixed(r, "Daemon.Workers", a->workers == b->workers);
	fixed(r, "Daemon.MaxConnections", a->max_connections == b->max_connections);
	fixed(r, "Daemon.BufferMemory", a->buffer_bytes == b->buffer_bytes);
	fixed(r, "Daemon.Coalesce", a->coalesce_us == b->coalesce_us);
	fixed(r, "Daemon.LogLevel", a->log_level == b->log_level);
	fixed(r, "Control.SocketGroup", strcmp(a->socket_group, b->socket_group) == 0);
	fixed(r, "Storage.Database", strcmp(a->database, b->database) == 0);
	fixed(r, "Storage.Record", a->record == b->record);
	fixed(r, "Storage.Retain", a->retain_us == b->retain_us);
	fixed(r, "Storage.RetainSize", a->retain_bytes == b->retain_bytes);
}

/* So that the next reload compares with what runs, and says it again. */
static void keep_fixed(struct config *config, const struct config *now)
{
	memcpy(config->interfaces, now->interfaces, sizeof(config->interfaces));
	config->interfaces_n = now->interfaces_n;
	config->shield = now->shield;
	config->local_port_min = now->local_port_min;
	config->local_port_max = now->local_port_max;
	config->workers = now->workers;
	config->max_connections = now->max_connections;
	config->buffer_bytes = now->buffer_bytes;
	config->coalesce_us = now->coalesce_us;
	config->log_level = now->log_level;
	memcpy(config->socket_group, now->socket_group, sizeof(config->socket_group));
	memcpy(config->database, now->database, sizeof(config->database));
	config->record = now->record;
	config->retain_us = now->retain_us;
	config->retain_bytes = now->retain_bytes;
}

static void reload_carry_out(struct reload *r, struct config *config)
{
	struct daemon *d = r->d;

	r->pending++;
	name_fixed(r, config, &d->config);
	name_set(r, config);
	keep_fixed(config, &d->config);
	remove_old(r, config);
	/* All rules in one go. When that fails, each listener will say for itself what is wrong. */
	(void)served_shield(d->listeners, config->listeners, config->listeners_n, NULL);
	if (!config_tcp_eq(&config->tcp, &d->config.tcp))
		change_unserved(r, &config->tcp);
	for (size_t i = 0; i < config->listeners_n; i++)
		take_new(r, &config->listeners[i]);
	follow(r, config);
	config_fini(&d->config);
	d->config = *config;
	reload_answered(r);
}

int daemon_reload(struct daemon *d, control_reloaded_fn *done, void *arg, struct errmsg *ret_err)
{
	struct config config;
	struct errmsg err;
	struct reload *r;
	int rc;

	if (d->reload)
		return errmsg(ret_err, -EBUSY, "a reload is under way");
	r = calloc(1, sizeof(*r));
	if (!r)
		return errmsg(ret_err, -ENOMEM, "no memory");
	(void)notify_send("RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_monotonic_us());
	*r = (struct reload){ .d = d, .done = done, .arg = arg, .warnings = json_array() };
	rc = config_load(d->args->config_file, d->args->overrides, d->args->overrides_n,
			 on_config_warning, r, &config, &err);
	if (rc == 0) {
		rc = daemon_check_config(&config, &err);
		if (rc < 0)
			config_fini(&config);
	}
	if (rc < 0) {
		log_error("reload: nothing changed: %s", err.text);
		(void)notify_send("READY=1\nSTATUS=%zu listeners; the last reload failed",
				  served_count(d->listeners));
		reload_free(r);
		return errmsg(ret_err, rc, "%s", err.text);
	}
	d->reload = r;
	reload_carry_out(r, &config);
	return 0;
}

void daemon_reload_forget(struct daemon *d)
{
	if (d->reload)
		reload_free(d->reload);
	d->reload = NULL;
}
