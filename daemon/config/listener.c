/* SPDX-License-Identifier: Apache-2.0 */
#include "config/listener.h"

#include <errno.h>
#include <string.h>

#include "config/key.h"

void config_listener_default(struct config_listener *l, const struct tcp_params *tcp)
{
	*l = (struct config_listener){
		.max_processes = 100, .backlog = 1024, .kill_after_us = 5000000, .tcp = *tcp
	};
}

int config_set_listener(struct config_listener *l, const char *key, const char *value,
			struct errmsg *ret_err)
{
	const struct key *const k = key_find(SECTION_LISTENER, key);
	const char *nearest = k ? NULL : key_nearest(SECTION_LISTENER, key);
	char expected[KEY_EXPECTED];

	if (!k)
		return errmsg(ret_err, -ENOENT, "[Listener] has no key %.64s%s%s", key,
			      nearest ? "; the nearest is " : "", nearest ? nearest : "");
	if (k->section == SECTION_TCP)
		return errmsg(ret_err, -ENOENT, "%s is a key of [Tcp]", k->name);
	if (k->offset == offsetof(struct config_listener, address) ||
	    k->offset == offsetof(struct config_listener, service))
		return errmsg(ret_err, -EINVAL, "%s is told by an argument of its own", k->name);
	if (key_set(k, l, value))
		return errmsg(ret_err, -EINVAL, "%s=%.100s: expected %s", k->name, value,
			      key_expected(k, expected));
	return 0;
}

/* Texts are filled up with zeros, so octets tell. */
bool config_listener_differs(const struct config_listener *a, const struct config_listener *b)
{
	for (size_t i = 0; i < KEYS_N; i++)
		if (keys[i].section == SECTION_LISTENER &&
		    memcmp((const char *)a + keys[i].offset, (const char *)b + keys[i].offset,
			   keys[i].size) != 0)
			return true;
	return strcmp(a->name, b->name) != 0;
}
