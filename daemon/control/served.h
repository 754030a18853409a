/* SPDX-License-Identifier: Apache-2.0 */
/* What this daemon serves: every listener, with the firewall rule that keeps the kernel's TCP away
 * from it. The rule comes first and goes last: no segment of ours ever reaches the kernel.
 *
 *	open	checks; rule; then the worker listens. When that fails the rule goes again.
 *	close	the worker stops listening; connections live on, and the rule with them ("draining"):
 *		asked once a second, until the last one is gone.
 *	source	the port that a program chose to connect from: as a listener that drains.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/errmsg.h"
#include "config/config.h"
#include "host/shield.h"

struct event_base;
struct crew;

enum { SERVED_MAX = CONFIG_LISTENERS_MAX };

enum listener_state {
	LISTENER_OPENING, /* the worker was asked */
	LISTENER_SERVING,
	LISTENER_DRAINING, /* closed, or being closed: its rule stands while connections of it live */
};

struct listener {
	uint64_t id; /* names it to the worker */
	enum listener_state state;
	bool configured; /* by the configuration; else by `listen` */
	bool stream; /* a program's */
	bool reuse_port; /* a program's, which shares its address with others of the same user */
	uint32_t uid; /* whose it is, if so */
	uint64_t defer_us; /* a program's: see service_new_accepted() */
	struct config_listener
		spec; /* its parameters: as asked for; when they are refused, as before */
	struct served_params {
		struct tcp_params tcp;
		uint8_t from[CONFIG_KEYS_MAX]; /* as spec.tcp_from */
	} taken; /* that the workers have said yes to */
};

/* A program that listens, at the other end of fd, a nonblocking UNIX stream socket: what is accepted goes to
 * it. fd stays the caller's. */
struct served_program {
	int fd;
	uint64_t
		defer_us; /* it is told of a connection when text has come, or so long after it opened; 0: at once */
	bool reuse_port; /* others of `uid` may listen at the address as well, if they all say so */
	uint32_t uid;
};

struct served;

/* Runs once, when the worker has answered. rc -Exxx: err says why. */
typedef void served_done_fn(void *arg, int rc, const struct errmsg *err);

struct served_config {
	struct event_base *base;
	struct shield *shield; /* borrowed; NULL: Shield=none */
	struct shield_rule local_ports; /* LocalPorts, of every address */
	bool may_switch_user; /* processes of exec services can be another user's */
	uint64_t poll_us; /* how often the worker is asked what still drains; 0: 1 s */
};

int served_new(const struct served_config *cfg, struct served **ret_served, struct errmsg *ret_err);
/* Leaves rules as they are. NULL is nothing. */
void served_free(struct served *ls);
/* Before anything is opened. Borrowed; NULL: none any more. */
void served_set_crew(struct served *ls, struct crew *c);

/* What can be known of a listener before it is opened: does its service exist, is its address one that
 * we may serve, does the kernel serve it already? */
int served_check(const struct served *ls, const struct config_listener *spec,
		 struct errmsg *ret_err);
/* Makes the rules those of LocalPorts, of every listener, and of n more that are about to be opened. */
int served_shield(struct served *ls, const struct config_listener *more, size_t n,
		  struct errmsg *ret_err);

/* 0: done() follows. -EADDRINUSE, -ENOBUFS, -EINVAL, -EAGAIN, ...: refused, nothing has changed. */
int served_open(struct served *ls, const struct config_listener *spec, bool configured,
		served_done_fn *done, void *arg, struct errmsg *ret_err);
/* The same for a program. As the kernel has it, no other listener may serve any of its addresses, unless both
 * reuse the port: -EADDRINUSE. *ret_id names it to served_close_id(). */
int served_open_stream(struct served *ls, const struct config_listener *spec,
		       const struct served_program *p, served_done_fn *done, void *arg,
		       uint64_t *ret_id, struct errmsg *ret_err);
/* -EADDRINUSE: another listener is in the way of such a one. */
int served_check_program(const struct served *ls, const struct endpoint *address,
			 const struct served_program *p, struct errmsg *ret_err);
/* One that is still open. -ENOENT. */
int served_close_id(struct served *ls, uint64_t id, served_done_fn *done, void *arg,
		    struct errmsg *ret_err);
/* The first of those that have the address. -ENOENT: nobody listens there. */
int served_close(struct served *ls, const struct endpoint *address, served_done_fn *done, void *arg,
		 struct errmsg *ret_err);
/* The [Tcp] parameters of `spec` for connections from now on, and whose they are. spec may be what
 * served_find() gave, changed. When they are refused, those before are in force again. */
int served_set_params(struct served *ls, uint64_t id, const struct config_listener *spec,
		      served_done_fn *done, void *arg, struct errmsg *ret_err);
/* [Tcp] as it is for what comes to no listener: Blackhole, DropSynFin. */
int served_set_unserved(struct served *ls, const struct tcp_params *params, served_done_fn *done,
			void *arg, struct errmsg *ret_err);

/* Those that serve or are about to; NULL when there is none. Programs may share an address: the first of them. The
 * pointer holds until the next call that opens or closes. */
const struct listener *served_find(const struct served *ls, const struct endpoint *address);
/* By its id; also a draining one. */
const struct listener *served_by_id(const struct served *ls, uint64_t id);
const struct listener *served_nth(const struct served *ls, size_t i); /* NULL after the last */
size_t served_count(const struct served *ls); /* not the draining ones */
/* Before a connection is opened from a port that is none of LocalPorts: its rule. `local` may be any address. *ret_id
 * is to be settled; 0: nothing is needed. -EADDRINUSE: the kernel has it. */
int served_source_take(struct served *ls, const struct endpoint *local, uint64_t *ret_id,
		       struct errmsg *ret_err);
/* The connection's serial: its rule stands as long as it lives. 0: it came to nothing. */
void served_source_settle(struct served *ls, uint64_t id, uint64_t serial);
/* A port of LocalPorts at random that no listener has; 0: there is none. */
uint16_t served_choose_port(const struct served *ls);
/* Counts changes of the rules: whoever keeps a copy of them looks here. */
uint64_t served_generation(const struct served *ls);
