/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of control/ share: the control itself. */
#pragma once
#include "control/call.h"
#include "control/client.h"
#include "control/control.h"
#include "control/post.h"

struct control {
	struct control_config cfg;
	struct endpoint_socket operate, observe;
	struct client *clients;
	struct client *dead; /* to be freed by reap */
	struct event *reap, *pause;
	struct post *post; /* answers of the record's reader thread */
	struct held *held; /* listeners of programs; see held.h */
	struct call *calls;
	size_t calls_n;
	struct control_counters counters;
	json_t *rules; /* what list.rules answered last; see call_list_rules() */
	uint64_t rules_at_us, rules_generation;
	bool accept_failed; /* said so already */
};

void control_reap_soon(struct control *c, struct client *client);
