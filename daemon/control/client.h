/* SPDX-License-Identifier: Apache-2.0 */
/* A client of a control socket: lines in, answers out, in order. Private to control/. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/proto.h"

struct call;
struct client;
struct control;
struct event;
struct post;

enum {
	CLIENT_CALLS_MAX = 64, /* unanswered calls of one client: then it is not read from */
	CLIENT_OUTPUT_MAX = 4 << 20, /* octets that wait for a client to read them */
	CLIENT_FDS_MAX = 16, /* descriptors of one client that no call has taken */
	CONTROL_CALLS_MAX = 4096, /* of all clients, those that have gone included */
};

/* A line and its answer. Owned by its client. */
struct exchange {
	struct exchange *next;
	struct client *client;
	bool batch;
	bool then_close; /* the client, once this was sent */
	struct call **calls; /* owned by reference; the first `started` of them run or ran */
	size_t calls_n, started, answered;
	size_t held_bytes; /* of answers */
	char *ready; /* an answer that needs no call; malloc'ed */
};

/* An answer on its way out. */
struct chunk {
	struct chunk *next;
	char *data;
	size_t len, sent;
	int fd; /* leaves with the first octet; -1: none */
};

struct client {
	struct client *next, *prev; /* in control->clients */
	struct control *control;
	int fd;
	bool observe; /* came by observe.sock */
	uid_t uid; /* by SO_PEERCRED, as it was when it connected */
	enum method_level level;
	bool eof; /* no more questions will come */
	bool closing; /* no more questions are taken */
	bool dead;
	bool more; /* lines may wait unread */
	struct event *readable, *writable, *work;
	struct proto_lines lines;
	int fds[CLIENT_FDS_MAX]; /* that came with questions, oldest first; owned */
	size_t fds_n;
	struct exchange *first, **last; /* questions, oldest first */
	size_t unanswered; /* calls */
	struct chunk *out, **out_last;
	size_t out_bytes;
};

/* The control sockets' common state; control.c owns it. */
struct endpoint_socket {
	int fd;
	bool observe;
	uint32_t clients;
	struct event *readable;
	struct control *control;
	char path[108];
};

/* Takes over fd, also on failure. */
struct client *client_new(struct control *control, int fd, bool observe);
/* Closes, orphans the calls. The memory goes at the control's next reaping. */
void client_drop(struct client *c);
void client_free(struct client *c);
/* Work on it soon: something was answered. */
void client_wake(struct client *c);
/* Sends what can be sent now. */
void client_flush(struct client *c);
/* The oldest descriptor that came and was not taken: now the caller's. -1: there is none. */
int client_take_fd(struct client *c);
/* A call of an exchange was answered. */
void exchange_answered(struct exchange *x);
