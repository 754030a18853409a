/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/macros.h"
#include "config/key.h"
#include "config/listener.h"
#include "config/origins.h"
#include "config/source.h"

static const char default_file[] = "/etc/tcpfsmd/tcpfsmd.conf";
static const char command_line[] = "command line";

enum { DROPINS_MAX = 256 };

/* Everything that was said, in the order it was said. Listeners inherit what [Tcp] says in the end,
 * wherever it stands: so nothing is applied before all is read.
 */
struct assignment {
	char section[SOURCE_NAME];
	char key[SOURCE_NAME]; /* empty: the section's heading */
	char *value; /* owned */
	struct origin origin;
};

struct loader {
	struct config config;
	struct assignment *list; /* owned */
	size_t list_n, list_room;
	uint16_t file; /* which is read now */
	config_warn_fn *warn;
	void *warn_arg;
	struct errmsg *err;
};

/* "FILE:LINE", or "command line". */
enum { WHERE_TEXT = 300 };
static const char *where(const struct loader *l, const struct origin *o,
			 char buf[static WHERE_TEXT])
{
	return origin_format(l->config.origins, o, buf, WHERE_TEXT);
}

PRINTF_LIKE(3, 4)
static void warn(const struct loader *l, const struct origin *o, const char *fmt, ...)
{
	char at[WHERE_TEXT], what[512], message[WHERE_TEXT + 512];
	va_list ap;

	if (!l->warn)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	(void)snprintf(message, sizeof(message), "%s: %s", where(l, o, at), what);
	l->warn(l->warn_arg, message);
}

static int remember(struct loader *l, const char *section, const char *key, const char *value,
		    struct origin origin)
{
	struct assignment *a;

	if (l->list_n == l->list_room) {
		const size_t room = l->list_room ? l->list_room * 2 : 64;
		struct assignment *more = reallocarray(l->list, room, sizeof(*more));

		if (!more)
			return errmsg(l->err, -ENOMEM, "configuration: out of memory");
		l->list = more;
		l->list_room = room;
	}
	a = &l->list[l->list_n];
	*a = (struct assignment){ .value = strdup(value), .origin = origin };
	if (!a->value)
		return errmsg(l->err, -ENOMEM, "configuration: out of memory");
	assert(strlen(section) < sizeof(a->section) && strlen(key) < sizeof(a->key));
	memcpy(a->section, section, strlen(section));
	memcpy(a->key, key, strlen(key));
	l->list_n++;
	return 0;
}

/* What source_parse() found. */
static int on_assignment(void *arg, const char *section, const char *key, const char *value,
			 unsigned line)
{
	struct loader *l = arg;

	return remember(l, section, key, value, (struct origin){ l->file, line });
}

static int read_text(struct loader *l, const char *name, const char *text, size_t len)
{
	const int rc = origins_add_file(l->config.origins, name, &l->file);

	if (rc)
		return errmsg(l->err, rc, "configuration: out of memory");
	return source_parse(name, text, len, on_assignment, l, l->err);
}

static int read_file(struct loader *l, const char *path)
{
	size_t len = 0;
	char *text = NULL;
	int rc = source_load(path, &text, &len, l->err);

	if (rc == 0)
		rc = read_text(l, path, text, len);
	free(text);
	return rc;
}

static int is_dropin(const struct dirent *entry)
{
	const size_t n = strlen(entry->d_name);

	return entry->d_name[0] != '.' && n > 5 && !strcmp(entry->d_name + n - 5, ".conf");
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* FILE.d/NAME.conf, by the octets of NAME, whatever the locale. */
static int read_dropins(struct loader *l, const char *file)
{
	char dir[4096], path[sizeof(dir) + 256];
	struct dirent **entries = NULL;
	int n, rc = 0;

	if (snprintf(dir, sizeof(dir), "%s.d", file) >= (int)sizeof(dir))
		return errmsg(l->err, -ENAMETOOLONG, "%s: the name is too long", file);
	n = scandir(dir, &entries, is_dropin, by_name);
	if (n < 0) {
		rc = -errno;
		return rc == -ENOENT || rc == -ENOTDIR
			       ? 0
			       : errmsg(l->err, rc, "%s: %s", dir, strerror(-rc));
	}
	if (n > DROPINS_MAX)
		rc = errmsg(l->err, -E2BIG, "%s: more than %d files", dir, DROPINS_MAX);
	for (int i = 0; i < n; i++) {
		if (rc == 0) {
			(void)snprintf(path, sizeof(path), "%s/%s", dir, entries[i]->d_name);
			rc = read_file(l, path);
		}
		free(entries[i]);
	}
	free((void *)entries);
	return rc;
}

/* "Section.Key=VALUE". The key is what follows the last dot before =, as a listener's name may have
 * dots of its own; the first dot of a listener's stands for the blank.
 */
static int read_override(struct loader *l, const char *text)
{
	char line[SOURCE_LINE_MAX + 1];
	const char *wrong = source_check_text(text, strlen(text));
	char *eq, *dot, *key;

	if (wrong || strlen(text) > SOURCE_LINE_MAX)
		return errmsg(l->err, -EINVAL, "%s: -o: %s", command_line,
			      wrong ? wrong : "too long");
	memcpy(line, text, strlen(text) + 1);
	eq = strchr(line, '=');
	if (eq)
		*eq = 0;
	dot = eq ? strrchr(line, '.') : NULL;
	if (!dot || dot == line || !dot[1])
		return errmsg(l->err, -EINVAL, "%s: -o %s: expected Section.Key=VALUE",
			      command_line, text);
	*dot = 0;
	key = dot + 1;
	if (strlen(line) >= SOURCE_NAME || strlen(key) >= SOURCE_NAME)
		return errmsg(l->err, -EINVAL,
			      "%s: -o %s: section and key have at most 49 octets each",
			      command_line, text);
	if (!strncmp(line, "Listener.", 9))
		line[8] = ' ';
	return remember(l, line, key, source_value(eq + 1), (struct origin){ ORIGIN_COMMAND, 0 });
}

/* "[Tcp]" or "[Listener NAME]"; *ret_name is NULL in others. -ENOENT: there is no such section. */
static int section_find(const char *text, enum section *ret_section, const char **ret_name)
{
	static const char prefix[] = "Listener";
	const size_t n = sizeof(prefix) - 1;

	*ret_name = NULL;
	if (!strncmp(text, prefix, n) && (text[n] == 0 || text[n] == ' ' || text[n] == '\t')) {
		*ret_section = SECTION_LISTENER;
		*ret_name = text + n + strspn(text + n, " \t");
		return 0;
	}
	for (int s = 0; s < SECTION_LISTENER; s++) {
		if (!strcmp(text, section_names[s])) {
			*ret_section = (enum section)s;
			return 0;
		}
	}
	return -ENOENT;
}

/* The listener of that name, made when it is new. */
static int listener_get(struct loader *l, const char *name, const struct origin *origin,
			size_t *ret_index)
{
	struct config *c = &l->config;
	struct config_listener *more;
	char at[WHERE_TEXT];

	for (size_t i = 0; i < c->listeners_n; i++) {
		if (!strcmp(c->listeners[i].name, name)) {
			*ret_index = i;
			return 0;
		}
	}
	if (c->listeners_n == CONFIG_LISTENERS_MAX)
		return errmsg(l->err, -EINVAL, "%s: more than %d listeners", where(l, origin, at),
			      CONFIG_LISTENERS_MAX);
	more = reallocarray(c->listeners, c->listeners_n + 1, sizeof(*more));
	if (!more)
		return errmsg(l->err, -ENOMEM, "configuration: out of memory");
	c->listeners = more;
	more += c->listeners_n;
	config_listener_default(more, &c->tcp);
	(void)snprintf(more->name, sizeof(more->name), "%s", name);
	if (origins_add_listener(c->origins, origin))
		return errmsg(l->err, -ENOMEM, "configuration: out of memory");
	*ret_index = c->listeners_n++;
	return 0;
}

static void warn_unknown(const struct loader *l, const struct assignment *a, enum section section)
{
	const char *nearest = key_nearest(section, a->key);

	for (int s = 0; s < SECTION__COUNT; s++) {
		if (key_find((enum section)s, a->key)) {
			warn(l, &a->origin, "[%s] has no key %s, ignored; [%s] has", a->section,
			     a->key, section_names[s]);
			return;
		}
	}
	warn(l, &a->origin, "[%s] has no key %s, ignored%s%s", a->section, a->key,
	     nearest ? "; the nearest is " : "", nearest ? nearest : "");
}

static int bad_value(const struct loader *l, const struct assignment *a, const struct key *k)
{
	char at[WHERE_TEXT], expected[KEY_EXPECTED];

	if (a->origin.file == ORIGIN_COMMAND) {
		const int word = (int)strcspn(a->section,
					      " "); /* "Listener echo" is Listener.echo there */

		return errmsg(l->err, -EINVAL, "-o %.*s%s%s.%s=%.100s: expected %s", word,
			      a->section, a->section[word] ? "." : "",
			      a->section[word] ? a->section + word + 1 : "", a->key, a->value,
			      key_expected(k, expected));
	}
	return errmsg(l->err, -EINVAL, "%s: %s=%.100s: expected %s", where(l, &a->origin, at),
		      a->key, a->value, key_expected(k, expected));
}

static int apply_fixed(struct loader *l, const struct assignment *a, enum section section)
{
	struct config *c = &l->config;
	const struct key *k = key_find(section, a->key);

	if (!k) {
		warn_unknown(l, a, section);
		return 0;
	}
	if (key_set(k, section == SECTION_TCP ? (void *)&c->tcp : (void *)c, a->value))
		return bad_value(l, a, k);
	c->origins->fixed[k - keys] = a->origin;
	return 0;
}

static int apply_listener(struct loader *l, const struct assignment *a, const char *name)
{
	struct config *c = &l->config;
	struct config_listener *listener;
	const struct key *k;
	char at[WHERE_TEXT];
	size_t i = 0;
	int rc;

	if (!*name)
		return errmsg(l->err, -EINVAL, "%s: a listener has a name: [Listener NAME]",
			      where(l, &a->origin, at));
	rc = listener_get(l, name, &a->origin, &i);
	if (rc || !a->key[0])
		return rc;
	listener = &c->listeners[i];
	k = key_find(SECTION_LISTENER, a->key);
	if (!k) {
		warn_unknown(l, a, SECTION_LISTENER);
		return 0;
	}
	if (key_set(k, k->section == SECTION_TCP ? (void *)&listener->tcp : (void *)listener,
		    a->value))
		return bad_value(l, a, k);
	if (k->section == SECTION_TCP)
		listener->tcp_from[k - keys] = FROM_SECTION;
	c->origins->listeners[i].keys[k - keys] = a->origin;
	return 0;
}

/* One pass over what was said: the fixed sections, or the listeners. */
static int apply_all(struct loader *l, bool listeners)
{
	bool ignored = false; /* in a section that nobody knows */

	for (size_t i = 0; i < l->list_n; i++) {
		const struct assignment *a = &l->list[i];
		enum section section;
		const char *name;
		int rc = section_find(a->section, &section, &name);

		if (rc && !listeners && !a->section[0])
			warn(l, &a->origin, "%s stands before the first section, ignored", a->key);
		else if (rc && !listeners &&
			 (!a->key[0] || (a->origin.file == ORIGIN_COMMAND && !ignored)))
			warn(l, &a->origin, "there is no section [%s], ignored", a->section);
		ignored = rc != 0;
		if (rc || (section == SECTION_LISTENER) != listeners)
			continue;
		if (section == SECTION_LISTENER)
			rc = apply_listener(l, a, name);
		else if (a->key[0])
			rc = apply_fixed(l, a, section);
		if (rc)
			return rc;
	}
	return 0;
}

/* What no key can tell alone. `own` are the origins of the parameters' section. */
static int check_tcp(const struct loader *l, const struct tcp_params *p, const struct origin *own,
		     const char *section, const char *name)
{
	const struct key *k = key_find(SECTION_TCP, "RtoMin");
	const struct key *m = key_find(SECTION_TCP, "RtoMax");
	const struct origin *o = own[k - keys].file ? &own[k - keys] : &own[m - keys];
	const char *const wrong = tcp_params_wrong(p);
	char at[WHERE_TEXT];

	if (!wrong)
		return 0;
	return errmsg(l->err, -EINVAL, "%s: [%s%s] %s", where(l, o, at), section, name, wrong);
}

static int check_listener(const struct loader *l, size_t i)
{
	const struct config *c = &l->config;
	const struct config_listener *a = &c->listeners[i];
	const struct origins_listener *o = &c->origins->listeners[i];
	char at[WHERE_TEXT], text[ENDPOINT_TEXT];

	if (a->address.port == 0 || !a->service[0])
		return errmsg(l->err, -EINVAL, "%s: [Listener %s] has no %s",
			      where(l, &o->heading, at), a->name,
			      a->address.port == 0 ? "Address" : "Service");
	for (size_t j = 0; j < i; j++)
		if (endpoint_eq(&c->listeners[j].address, &a->address))
			return errmsg(
				l->err, -EINVAL,
				"%s: [Listener %s] and [Listener %s] both serve %s",
				where(l, &o->keys[key_find(SECTION_LISTENER, "Address") - keys],
				      at),
				c->listeners[j].name, a->name, endpoint_format(&a->address, text));
	return check_tcp(l, &a->tcp, o->keys, "Listener ", a->name);
}

static int check_all(const struct loader *l)
{
	int rc = check_tcp(l, &l->config.tcp, l->config.origins->fixed, "Tcp", "");

	for (size_t i = 0; rc == 0 && i < l->config.listeners_n; i++)
		rc = check_listener(l, i);
	return rc;
}

static int loader_init(struct loader *l, config_warn_fn *warn_fn, void *warn_arg,
		       struct errmsg *ret_err)
{
	*l = (struct loader){ .warn = warn_fn, .warn_arg = warn_arg, .err = ret_err };
	l->config = (struct config){
		.shield = CONFIG_SHIELD_IPTABLES,
		.local_port_min = 61000,
		.local_port_max = 65535,
		.workers = 1,
		.max_connections = 100000,
		.buffer_bytes = 1ULL << 30,
		.coalesce_us = 128,
		.stop_grace_us = 1000000,
		.log_level = LOG_LEVEL_INFO,
		.max_clients = 64,
		.unprivileged_port_start = 1024,
		.database = "tcpfsmd.db",
		.record = CONFIG_RECORD_TRANSITIONS,
		.retain_us = 7 * 86400000000,
		.retain_bytes = 2ULL << 30,
	};
	tcp_params_default(&l->config.tcp);
	l->config.origins = origins_new();
	return l->config.origins ? 0 : errmsg(ret_err, -ENOMEM, "configuration: out of memory");
}

static void loader_fini(struct loader *l)
{
	for (size_t i = 0; i < l->list_n; i++)
		free(l->list[i].value);
	free(l->list);
	config_fini(&l->config);
}

/* Applies what was read; on success the configuration is the caller's. */
static int loader_finish(struct loader *l, struct config *ret_config)
{
	int rc = apply_all(l, false);

	if (rc == 0)
		rc = apply_all(l, true);
	if (rc == 0)
		rc = check_all(l);
	if (rc)
		return rc;
	*ret_config = l->config;
	l->config = (struct config){ 0 };
	return 0;
}

int config_load(const char *file, const char *const *overrides, size_t overrides_n,
		config_warn_fn *warn_fn, void *warn_arg, struct config *ret_config,
		struct errmsg *ret_err)
{
	const char *const path = file ? file : default_file;
	struct loader l;
	int rc = loader_init(&l, warn_fn, warn_arg, ret_err);

	if (rc == 0) {
		rc = read_file(&l, path);
		if (rc == -ENOENT && !file)
			rc = 0;
	}
	if (rc == 0)
		rc = read_dropins(&l, path);
	for (size_t i = 0; rc == 0 && i < overrides_n; i++)
		rc = read_override(&l, overrides[i]);
	if (rc == 0)
		rc = loader_finish(&l, ret_config);
	loader_fini(&l);
	return rc;
}

int config_load_text(const char *name, const char *text, size_t len, config_warn_fn *warn_fn,
		     void *warn_arg, struct config *ret_config, struct errmsg *ret_err)
{
	struct loader l;
	int rc = loader_init(&l, warn_fn, warn_arg, ret_err);

	if (rc == 0)
		rc = read_text(&l, name, text, len);
	if (rc == 0)
		rc = loader_finish(&l, ret_config);
	loader_fini(&l);
	return rc;
}

void config_fini(struct config *c)
{
	free(c->listeners);
	c->listeners = NULL;
	c->listeners_n = 0;
	origins_free(c->origins);
	c->origins = NULL;
}

bool config_next_key(size_t *cursor, struct config_key *ret_key)
{
	const struct key *k = &keys[*cursor];

	if (*cursor >= KEYS_N)
		return false;
	*ret_key = (struct config_key){ .section = section_names[k->section],
					.name = k->name,
					.help = k->help };
	(void)key_expected(k, ret_key->expected);
	++*cursor;
	return true;
}
