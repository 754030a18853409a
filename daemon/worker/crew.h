/* SPDX-License-Identifier: Apache-2.0 */
/* All workers, as one: what the main thread asks goes to the worker that it concerns, or to each of
 * them, and one answer comes back. Everything here runs on the main thread.
 *
 *	listeners	every worker has each; backlog and MaxConnections are parted among them, other limits are
 *			counted together (service/limits.h)
 *	connections	serials tell whose they are: worker i gives out first + i, first + i + n ...
 *	lists		one worker after the other: a cursor counts the slots of all
 *	connect		by turns; a given source port belongs to the worker that its flow does
 *	status		sums
 */
#pragma once
#include "base/errmsg.h"
#include "worker/worker.h"

struct crew;

/* Starts n workers as *cfg says of all of them together: their connections and memory are parted.
 * On failure *ret_crew may hold those that run already: they are to be stopped, then freed. */
int crew_start(const struct worker_config *cfg, unsigned n, struct crew **ret_crew,
	       struct errmsg *ret_err);
/* As worker_ask(). WORKER_LISTEN: all listen, or none. */
int crew_ask(struct crew *c, struct worker_request *req);
/* To one of them alone: is it there? */
int crew_ask_one(struct crew *c, unsigned index, struct worker_request *req);
/* True as long as all turn their loops; else *ret_index is one that does not. A few times a second. */
bool crew_is_alive(struct crew *c, unsigned *ret_index);
/* After WORKER_STOP has answered. NULL is nothing. */
void crew_free(struct crew *c);
