/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side: a connection to the daemon's socket, and calls that wait for their answer. */
#pragma once
#include <jansson.h>
#include <stdint.h>

#include "proto/method.h"

#define PROTO_DEFAULT_SOCKET "/run/tcpfsmd/control.sock"

struct proto_client;

/* `given` unless NULL, $TCPFSM_SOCKET, $RUNTIME_DIRECTORY/control.sock, or the default. malloc'ed. */
char *proto_socket_path(const char *given);

/* 0 and a client to free, or -Exxx of connect(2). */
int proto_client_new(const char *path, struct proto_client **ret_client);
void proto_client_free(struct proto_client *c);

/* Calls and waits up to timeout_us (0: for ever). params is stolen; may be NULL. 0 and *ret_result, a
 * new reference; or
 *	-EREMOTEIO	the daemon answered with an error, which is in *ret_err;
 *	-ETIMEDOUT	no answer in time (ret_err has PROTO_TIMED_OUT);
 *	-EPIPE		the daemon closed the connection;
 *	-EPROTO		what came is no answer to this call.
 * ret_fd may be NULL; else it gets the descriptor that came with the answer, or -1. After any failure
 * but -EREMOTEIO the client is good for nothing but proto_client_free(). */
int proto_call(struct proto_client *c, enum method m, json_t *params_stolen, uint64_t timeout_us,
	       json_t **ret_result, int *ret_fd, struct proto_err *ret_err);
