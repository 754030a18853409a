/* SPDX-License-Identifier: Apache-2.0 */
#include "config/tcp.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config/origins.h"

static size_t place(const struct key *k)
{
	return (size_t)(k - keys);
}

const struct key *config_tcp_key(const char *name, struct errmsg *ret_err)
{
	const struct key *const k = key_find(SECTION_TCP, name);
	const char *nearest = k ? NULL : key_nearest(SECTION_TCP, name);

	if (!k)
		(void)errmsg(ret_err, -ENOENT, "[Tcp] has no key %.64s%s%s", name,
			     nearest ? "; the nearest is " : "", nearest ? nearest : "");
	return k;
}

static int set(struct tcp_params *params, const struct key *k, const char *value,
	       struct errmsg *ret_err)
{
	char expected[KEY_EXPECTED];

	if (key_set(k, params, value))
		return errmsg(ret_err, -EINVAL, "%s=%.100s: expected %s", k->name, value,
			      key_expected(k, expected));
	return 0;
}

int config_tcp_set(struct tcp_params *params, const struct key *k, const char *value,
		   struct errmsg *ret_err)
{
	struct tcp_params changed = *params;
	const char *wrong;
	int rc = set(&changed, k, value, ret_err);

	if (rc)
		return rc;
	wrong = tcp_params_wrong(&changed);
	if (wrong)
		return errmsg(ret_err, -EINVAL, "%s=%.100s: %s", k->name, value, wrong);
	*params = changed;
	return 0;
}

int config_set_tcp(struct tcp_params *params, const char *key, const char *value,
		   struct errmsg *ret_err)
{
	const struct key *const k = config_tcp_key(key, ret_err);

	return k ? set(params, k, value, ret_err) : -ENOENT;
}

static const uint8_t *value_of(const struct key *k, const struct tcp_params *p)
{
	return (const uint8_t *)p + k->offset;
}

bool config_tcp_key_eq(const struct key *k, const struct tcp_params *a, const struct tcp_params *b)
{
	return memcmp(value_of(k, a), value_of(k, b), k->size) == 0;
}

bool config_tcp_eq(const struct tcp_params *a, const struct tcp_params *b)
{
	for (size_t i = 0; i < KEYS_N; i++)
		if (keys[i].section == SECTION_TCP && !config_tcp_key_eq(&keys[i], a, b))
			return false;
	return true;
}

void config_tcp_copy(const struct key *k, struct tcp_params *to, const struct tcp_params *from)
{
	memcpy((uint8_t *)to + k->offset, value_of(k, from), k->size);
}

struct tcp_patch config_tcp_patch(const struct key *k, const struct tcp_params *from)
{
	struct tcp_patch p = { .offset = (uint16_t)k->offset, .size = (uint16_t)k->size };

	assert(k->size <= sizeof(p.value));
	memcpy(p.value, value_of(k, from), k->size);
	return p;
}

void config_tcp_follow(const struct config_listener *l, const struct tcp_params *daemon,
		       struct tcp_params *ret_params)
{
	*ret_params = *daemon;
	for (size_t i = 0; i < KEYS_N; i++)
		if (keys[i].section == SECTION_TCP && l->tcp_from[i] != FROM_DAEMON)
			config_tcp_copy(&keys[i], ret_params, &l->tcp);
}

void config_tcp_note(struct config *c, const struct key *k)
{
	if (c->origins)
		c->origins->fixed[place(k)] = (struct origin){ .file = ORIGIN_RUN_TIME };
}

bool config_tcp_noted(const struct config *c, const struct key *k)
{
	return c->origins && c->origins->fixed[place(k)].file == ORIGIN_RUN_TIME;
}

/* Where a listener's section says it. The listener is known by its address, which only one can have. */
static const struct origin *origin_of(const struct config *c, const struct config_listener *l,
				      const struct key *k)
{
	for (size_t i = 0; c->origins && i < c->origins->listeners_n; i++)
		if (endpoint_eq(&c->listeners[i].address, &l->address))
			return &c->origins->listeners[i].keys[place(k)];
	return NULL;
}

const char *config_tcp_where(const struct config *c, const struct config_listener *l,
			     const struct key *k, char buf[static CONFIG_WHERE])
{
	static const struct origin unknown = { .file = ORIGIN_DEFAULT };
	static const struct origin run_time = { .file = ORIGIN_RUN_TIME };
	const unsigned from = l ? l->tcp_from[place(k)] : FROM_DAEMON;
	const struct origin *o = from == FROM_SET ? &run_time
				 : l              ? origin_of(c, l, k)
				 : c->origins     ? &c->origins->fixed[place(k)]
						  : NULL;

	if (from == FROM_LISTEN)
		(void)snprintf(buf, CONFIG_WHERE, "listen");
	else
		(void)origin_format(c->origins, o ? o : &unknown, buf, CONFIG_WHERE);
	return buf;
}
