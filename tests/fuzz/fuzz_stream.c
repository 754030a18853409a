/* SPDX-License-Identifier: Apache-2.0 */
/* What a program's side of a stream is told by who holds the other end: accepted connections as lines,
 * and names of sockets, which any program can give to any socket.
 *
 * The first octet: 0 a line to accept, 1 the name of our end, 2 the name of the other end.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void bind_name(int fd, const uint8_t *data, size_t size)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	const size_t most = sizeof(sun.sun_path) - 1;
	const size_t n = size < most ? size : most;

	/* Abstract: nothing of it is in a file system, and two fuzzers' names may be the same. */
	memcpy(sun.sun_path + 1, data, n);
	(void)bind(fd, (const struct sockaddr *)&sun,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n));
}

static void check_name(int fd)
{
	struct tcpfsm_name name = { .id = 0 };
	const int rc = tcpfsm_name(fd, &name);

	assert(rc == 0 || rc == -ENOENT);
	(void)tcpfsm_error(fd);
}

static void send_line(int to, const uint8_t *data, size_t size, int passed)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .room = "" };
	struct iovec iov = { (void *)(uintptr_t)data, size };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.room,
			      .msg_controllen = sizeof(control.room) };
	struct cmsghdr *const h = CMSG_FIRSTHDR(&msg);

	*h = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &passed, sizeof(int));
	if (size && sendmsg(to, &msg, MSG_NOSIGNAL) < 0)
		assert(errno == EMSGSIZE || errno == ENOBUFS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A line has this many octets: PROTOCOL.md. What is shorter is filled up with spaces. */
	uint8_t line[192];
	int ends[2], more[2];

	if (size < 1 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return 0;
	if (data[0] % 3) {
		bind_name(ends[data[0] % 3 - 1], data + 1, size - 1);
		check_name(ends[0]);
	} else if (!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, more)) {
		struct tcpfsm_name name = { .id = 0 };
		int fd;

		memset(line, ' ', sizeof(line));
		memcpy(line, data + 1, size - 1 < sizeof(line) ? size - 1 : sizeof(line));
		send_line(ends[1], line, sizeof(line), more[0]);
		(void)close(ends[1]);
		ends[1] = -1;
		fd = tcpfsm_accept(ends[0], AF_INET, 0, &name);
		assert(fd >= 0 || fd == -EPROTO);
		if (fd >= 0) {
			check_name(fd);
			(void)close(fd);
		}
		(void)close(more[0]);
		(void)close(more[1]);
	}
	(void)close(ends[0]);
	if (ends[1] >= 0)
		(void)close(ends[1]);
	return 0;
}
