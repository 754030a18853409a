/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the relay.
 *
 *	relay.c		choosing a backend and connecting to it; backends that are sockets
 *	relay_far.c	a backend that is another connection of the same engine
 *	relay_config.c	what was written
 */
#pragma once
#include "service/plumb.h"
#include "service/relay.h"
#include "service/relay_config.h"

struct relay {
	struct session *session; /* borrowed: the accepted connection */
	struct backend *backend; /* the service's: tried, or connected to; NULL: none */
	uint32_t tried; /* a bit for each backend */
	/* A backend that is a socket: */
	int fd; /* owned while connecting; then the plumb's */
	struct event *ev_connect; /* NULL: not connecting */
	struct plumb plumb; /* in use once connected */
	/* After the backend's FIN: does it go away altogether? A descriptor of its own, since one
	 * cannot be watched for its level and its edges at a time. */
	struct event *ev_gone;
	int gone_fd; /* owned; -1: none */
	/* A backend that is a connection of ours: */
	struct session *far; /* borrowed; NULL: none, or gone */
	bool far_open; /* it is ESTABLISHED */
	bool far_ended, near_ended; /* the FIN of that side was passed on */
	uint8_t header_len, header_at; /* of the PROXY header, and how much of it was sent */
};

/* The attempt has ended, badly: tries the next. r may be gone. */
void relay_attempt_failed(struct relay *r);
/* The attempt has ended well. */
void relay_attempt_connected(struct relay *r);

/* relay_far.c: -Exxx: nothing is under way. */
int far_connect(struct relay *r);
/* Moves what the near side has to say, or can take. r may be gone. */
void far_near_readable(struct relay *r);
void far_near_writable(struct relay *r);
uint32_t far_near_text(struct relay *r, struct span text);
/* Lets it go: RST, or FIN behind what is queued. */
void far_drop(struct relay *r, bool reset);
