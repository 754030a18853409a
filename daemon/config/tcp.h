/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of [Tcp] while the daemon runs: `listen --tcp`, `set tcp.KEY`, `show tcp`. The daemon's own
 * values are in struct config, a listener's in its struct config_listener, which follows the daemon's
 * in every key that is not its own.
 */
#pragma once
#include <stdbool.h>

#include "config/config.h"
#include "config/key.h"

/* By name. NULL: there is none, and *ret_err names the nearest. */
const struct key *config_tcp_key(const char *name, struct errmsg *ret_err);
/* Sets one, and checks that it goes with the others. -EINVAL; params is then untouched. */
int config_tcp_set(struct tcp_params *params, const struct key *k, const char *value,
		   struct errmsg *ret_err);
/* Key and value by name: "MSL", "30s". -ENOENT, -EINVAL. Whether it goes with the others is not
 * checked: more may follow. See tcp_params_wrong(). */
int config_set_tcp(struct tcp_params *params, const char *key, const char *value,
		   struct errmsg *ret_err);
bool config_tcp_eq(const struct tcp_params *a, const struct tcp_params *b);
/* Are they the same in this key? */
bool config_tcp_key_eq(const struct key *k, const struct tcp_params *a, const struct tcp_params *b);
/* *to takes the key's value of *from. */
void config_tcp_copy(const struct key *k, struct tcp_params *to, const struct tcp_params *from);
/* The key's value in *from, to be put elsewhere. */
struct tcp_patch config_tcp_patch(const struct key *k, const struct tcp_params *from);

/* A listener's parameters as they are with other values in [Tcp]: its own keys stay. */
void config_tcp_follow(const struct config_listener *l, const struct tcp_params *daemon,
		       struct tcp_params *ret_params);

/* The daemon's value of a key was set at run time: the origin says so. */
void config_tcp_note(struct config *c, const struct key *k);
/* Was it? */
bool config_tcp_noted(const struct config *c, const struct key *k);

/* Who said it: "default", "FILE:LINE", "command line", "run time", "listen". l NULL: of the daemon's
 * value; else of the listener's own. Returns buf. */
enum { CONFIG_WHERE = 300 };
const char *config_tcp_where(const struct config *c, const struct config_listener *l,
			     const struct key *k, char buf[static CONFIG_WHERE]);
