/* SPDX-License-Identifier: Apache-2.0 */
/* tcpfsmctl connect: a connection's octets from standard input and to standard output. */
#pragma once
#include <stdbool.h>

struct stream_result {
	bool unsent; /* input was left that the connection no longer took */
	int output_error; /* errno of writing to standard output; 0: none */
};

/* Copies in -> fd and fd -> out until both directions have ended. The end of `in` shuts fd down for
 * writing, which is our FIN; after the peer's FIN (fd's end of file) `in` goes on, as TCP lets it,
 * unless it is a terminal. What one side does not take is not read from the other. fd is made
 * nonblocking; in and out, which others may share, are not. 0, or -Exxx. */
int stream_copy(int fd, int in, int out, struct stream_result *ret_result);
