/* SPDX-License-Identifier: Apache-2.0 */
/* A listener that is told at run time, key by key: `listen --listener`. */
#pragma once
#include "config/config.h"

/* One without name, address and service: every other key has its default, and tcp is `tcp`. */
void config_listener_default(struct config_listener *l, const struct tcp_params *tcp);
/* One key that only [Listener] has, but Address and Service. -ENOENT, -EINVAL. */
int config_set_listener(struct config_listener *l, const char *key, const char *value,
			struct errmsg *ret_err);
/* Same address; does anything but [Tcp] differ? */
bool config_listener_differs(const struct config_listener *a, const struct config_listener *b);
