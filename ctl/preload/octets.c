/* SPDX-License-Identifier: Apache-2.0 */
/* Octets: every call that moves them. The kernel moves them; here it is found out why it does not, and
 * that is said as TCP would.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <time.h>

#include "ctl/preload/preload.h"

enum { OPENING_NS = 50000, FIRST_BYTES = 4096 };

/* ---- errors ---- */

/* The name comes first, the end of file after it. Without a name: in good order the daemon hangs up only
 * after the program has shut down.
 */
static int find_error(int fd, const struct sock *s)
{
	int error;

	if (s->error)
		return s->error;
	if (s->told)
		return 0;
	error = tcpfsm_error(fd);
	return !error && !s->shut && hung_up(fd) ? ECONNRESET : error;
}

bool has_error(int fd, const struct sock *s)
{
	return (s->kind == CONNECTED || s->kind == FAILED) && !is_sandboxed() && find_error(fd, s);
}

int take_error(int fd, struct sock *s)
{
	const int error = find_error(fd, s);
	int kernels;
	socklen_t len = sizeof(kernels);

	if (error) {
		s->told = true;
		s->error = 0;
		(void)syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_ERROR, &kernels, &len);
	}
	return error;
}

/* Before octets move: is there a connection? 0, or an errno. */
static int ready(int fd, struct sock *s, bool dont_wait)
{
	int rc;

	if (s->kind == CONNECTED)
		return 0;
	rc = s->deferred ? connect_deferred(fd, s) : 0;
	if (rc)
		return -rc;
	while (s->kind == OPENING) { /* by another thread; the peer may have answered it already */
		if (dont_wait || !blocks(fd))
			return EAGAIN;
		(void)nanosleep(&(const struct timespec){ .tv_nsec = OPENING_NS }, NULL);
	}
	if (s->kind == CONNECTED)
		return 0;
	if (s->kind == FAILED)
		return take_error(fd, s);
	if (s->kind != CONNECTING)
		return ENOTCONN;
	rc = settle(fd, s, dont_wait || !blocks(fd) ? 0 : -1);
	if (rc == -EINPROGRESS)
		return EAGAIN;
	return rc == -EINTR ? EINTR : rc ? take_error(fd, s) : 0;
}

/* What a call that reads has given, as TCP would. EPIPE: its FIN came before its reset, so it has nothing
 * more to say; only who writes is told.
 */
static ssize_t received(int fd, ssize_t n)
{
	struct sock *s;
	int error;

	if (n > 0 || (n < 0 && errno != ECONNRESET) || is_sandboxed())
		return n;
	s = find_or_adopt(fd);
	error = n < 0 ? ECONNRESET : 0;
	if (s)
		error = find_error(fd, s) == EPIPE ? 0 : take_error(fd, s);
	return error ? fail(error) : 0;
}

static ssize_t sent(int fd, ssize_t n, int flags)
{
	struct sock *s;
	int error;

	if (n >= 0 || (errno != EPIPE && errno != ECONNRESET) || is_sandboxed())
		return n;
	error = errno;
	s = find_or_adopt(fd);
	if (s)
		error = take_error(fd, s);
	if (error == EPIPE || !error) {
		error = EPIPE;
		if (!(flags & MSG_NOSIGNAL))
			(void)raise(SIGPIPE);
	}
	return fail(error);
}

/* Another file has the number since, closed by who did not ask us. */
static bool is_stale(int fd, ssize_t n)
{
	if (n >= 0 || errno != ENOTSOCK || is_sandboxed() || !is_ours())
		return false;
	put(fd, NULL);
	return true;
}

/* ---- receiving ---- */

static size_t room_of(const struct msghdr *msg)
{
	size_t room = 0;

	for (size_t i = 0; i < msg->msg_iovlen; i++)
		room += msg->msg_iov[i].iov_len;
	return room;
}

/* MSG_TRUNC: they are read, and thrown away. */
static ssize_t discard(int fd, size_t room, int flags)
{
	char nowhere[4096];
	size_t got = 0;
	ssize_t n = 0;

	do {
		const size_t want = room - got < sizeof(nowhere) ? room - got : sizeof(nowhere);

		n = syscall(SYS_recvfrom, fd, nowhere, want,
			    (flags & ~MSG_TRUNC) | (got ? MSG_DONTWAIT : 0), NULL, NULL);
		got += n > 0 ? (size_t)n : 0;
	} while (n > 0 && got < room);
	return got ? (ssize_t)got : received(fd, n);
}

/* Room for nothing: it waits for text all the same. */
static ssize_t receive_nothing(int fd, int flags)
{
	char first;
	const ssize_t n = received(
		fd, syscall(SYS_recvfrom, fd, &first, 1, flags | MSG_PEEK, NULL, NULL));

	return n > 0 ? 0 : n;
}

static ssize_t receive(int fd, struct sock *s, struct msghdr *msg, int flags)
{
	const size_t room = room_of(msg);
	int error = ready(fd, s, flags & MSG_DONTWAIT);

	if (s->kind == FAILED && !error)
		return 0;
	if (error)
		return fail(error);
	if (flags & MSG_OOB)
		return fail(EINVAL); /* as where there is none */
	if (flags & MSG_ERRQUEUE)
		return fail(EAGAIN);
	if (!room)
		return receive_nothing(fd, flags);
	if (flags & MSG_TRUNC && !(flags & MSG_PEEK))
		return discard(fd, room, flags);
	msg->msg_name = NULL;
	msg->msg_namelen = 0;
	return received(fd, syscall(SYS_recvmsg, fd, msg, flags));
}

/* All that reads may come this way, ours or not. */
static ssize_t receive_octets(int fd, void *buf, size_t size, int flags)
{
	struct sock *const s = find(fd);
	struct iovec iov = { buf, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	/* The usual case, without detours. */
	if (s && s->kind == CONNECTED && size && !(flags & ~(MSG_PEEK | MSG_DONTWAIT)))
		return received(fd, syscall(SYS_recvfrom, fd, buf, size, flags, NULL, NULL));
	return s ? receive(fd, s, &msg, flags)
		 : received(fd, syscall(SYS_recvfrom, fd, buf, size, flags, NULL, NULL));
}

PUBLIC ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	struct sock *const s = find(fd);

	return s ? receive(fd, s, msg, flags) : received(fd, syscall(SYS_recvmsg, fd, msg, flags));
}

PUBLIC ssize_t recvfrom(int fd, void *buf, size_t size, int flags, struct sockaddr *restrict sa,
			socklen_t *restrict len)
{
	if (!find(fd))
		return received(fd, syscall(SYS_recvfrom, fd, buf, size, flags, sa, len));
	if (len)
		*len = 0;
	return receive_octets(fd, buf, size, flags);
}

PUBLIC ssize_t recv(int fd, void *buf, size_t size, int flags)
{
	return receive_octets(fd, buf, size, flags);
}

PUBLIC ssize_t read(int fd, void *buf, size_t size)
{
	const ssize_t n = find(fd) && !is_sandboxed() ? receive_octets(fd, buf, size, 0)
						      : syscall(SYS_read, fd, buf, size);

	if (is_stale(fd, n))
		return syscall(SYS_read, fd, buf, size);
	return n > 0 || find(fd) ? n : received(fd, n);
}

PUBLIC ssize_t readv(int fd, const struct iovec *iov, int count)
{
	struct sock *const s = is_sandboxed() ? NULL : find(fd);
	struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov,
			      .msg_iovlen = (size_t)count };
	const ssize_t n = s ? receive(fd, s, &msg, 0) : syscall(SYS_readv, fd, iov, count);

	if (is_stale(fd, n))
		return syscall(SYS_readv, fd, iov, count);
	return n > 0 || find(fd) ? n : received(fd, n);
}

PUBLIC int recvmmsg(int fd, struct mmsghdr *many, unsigned count, int flags, struct timespec *limit)
{
	unsigned done = 0;

	if (!find(fd))
		return (int)syscall(SYS_recvmmsg, fd, many, count, flags, limit);
	while (done < count) {
		const ssize_t n = recvmsg(
			fd, &many[done].msg_hdr,
			(flags & ~MSG_WAITFORONE) |
				(done && flags & MSG_WAITFORONE ? MSG_DONTWAIT : 0));

		if (n < 0)
			return done ? (int)done : -1;
		many[done++].msg_len = (unsigned)n;
		if (!n)
			break;
	}
	return (int)done;
}

/* ---- sending ---- */

static ssize_t send_plain(int fd, struct sock *s, const struct msghdr *msg, int flags)
{
	const ssize_t n = sent(
		fd,
		syscall(SYS_sendmsg, fd, msg, (flags & ~(MSG_EOR | MSG_ZEROCOPY)) | MSG_NOSIGNAL),
		flags);

	s->order_last &= n <= 0;
	return n;
}

/* Waits for room, where the program would. 0, or -errno. */
static int wait_for_room(int fd, int flags)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	if (flags & MSG_DONTWAIT || !blocks(fd))
		return -EAGAIN;
	return syscall(SYS_ppoll, &p, 1, NULL, NULL, 0) < 0 ? -errno : 0;
}

static int order_urgent(int fd, struct sock *s, int flags)
{
	int rc = 0;

	while (!s->urgent_told && !rc) {
		rc = give_order(fd, s, TCPFSM_URGENT);
		s->urgent_told = !rc;
		if (rc == -EAGAIN)
			rc = wait_for_room(fd, flags);
	}
	s->orders_due |= s->urgent_told;
	return rc == -EPIPE || rc == -ECONNRESET ? 0 : rc; /* the octet will find out */
}

/* An urgent octet that found no room was never written. False: there is no room either to say so. */
static bool take_back_urgent(int fd, struct sock *s)
{
	const int rc = s->urgent_told ? give_order(fd, s, TCPFSM_NOT_URGENT) : 0;

	if (rc == -EAGAIN || rc == -ENOBUFS)
		return false;
	s->urgent_told = false;
	return true;
}

/* All but the last octet, which is urgent. The room of `most` is the caller's. */
static size_t without_last(const struct msghdr *msg, struct iovec most[static IOV_MAX],
			   struct iovec *ret_last)
{
	size_t n = 0, last = 0;

	for (size_t i = 0; i < msg->msg_iovlen && i < IOV_MAX; i++) {
		most[i] = msg->msg_iov[i];
		n += most[i].iov_len;
		last = most[i].iov_len ? i : last;
	}
	if (!n)
		return 0;
	most[last].iov_len--;
	*ret_last = (struct iovec){ (char *)most[last].iov_base + most[last].iov_len, 1 };
	return n;
}

/* As the kernel has it, the last octet is urgent. In front of it the others are text like all. */
static ssize_t transmit_urgent(int fd, struct sock *s, const struct msghdr *msg, int flags)
{
	struct iovec most[IOV_MAX], last;
	const size_t all = without_last(msg, most, &last);
	const struct msghdr front = { .msg_iov = most, .msg_iovlen = msg->msg_iovlen },
			    end = { .msg_iov = &last, .msg_iovlen = 1 };
	ssize_t n = 0;
	int rc;

	if (!all)
		return 0;
	if (all > 1)
		n = take_back_urgent(fd, s) ? send_plain(fd, s, &front, flags) : fail(EAGAIN);
	if (n < 0 || (size_t)n < all - 1)
		return n;
	rc = order_urgent(fd, s, flags);
	if (!rc && send_plain(fd, s, &end, flags) == 1) {
		s->urgent_told = false;
		return (ssize_t)all;
	}
	return n ? n : rc ? fail(rc) : -1;
}

static ssize_t transmit(int fd, struct sock *s, const struct msghdr *msg, int flags)
{
	/* A stream has no address to send to, and nothing but octets. */
	const struct msghdr plain = { .msg_iov = msg->msg_iov, .msg_iovlen = msg->msg_iovlen };
	ssize_t n;
	int error;

	if (flags & MSG_FASTOPEN || s->deferred) {
		n = connect_with_text(fd, s, msg);
		return n < 0 ? fail((int)n) : n;
	}
	error = ready(fd, s, flags & MSG_DONTWAIT);
	if (error == ENOTCONN || (s->kind == FAILED && !error)) {
		errno = EPIPE;
		return sent(fd, -1, flags);
	}
	if (error)
		return fail(error);
	if (flags & MSG_MORE)
		options_more(s, true);
	options_tell(fd, s);
	if (flags & MSG_OOB)
		return transmit_urgent(fd, s, &plain, flags & ~MSG_OOB);
	n = take_back_urgent(fd, s) ? send_plain(fd, s, &plain, flags) : fail(EAGAIN);
	if (!(flags & MSG_MORE) && s->more) {
		options_more(s, false);
		options_tell(fd, s);
	}
	return n;
}

static ssize_t send_octets(int fd, struct sock *s, const void *buf, size_t size, int flags)
{
	struct iovec iov = { (void *)(uintptr_t)buf, size };
	const struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (s->kind == CONNECTED && !s->more && !s->orders_due && !s->order_last &&
	    !(flags & ~(MSG_NOSIGNAL | MSG_DONTWAIT)))
		return sent(fd, syscall(SYS_sendto, fd, buf, size, flags | MSG_NOSIGNAL, NULL, 0),
			    flags);
	return transmit(fd, s, &msg, flags);
}

PUBLIC ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct sock *const s = find(fd);

	return s ? transmit(fd, s, msg, flags) : syscall(SYS_sendmsg, fd, msg, flags);
}

PUBLIC ssize_t sendto(int fd, const void *buf, size_t size, int flags, const struct sockaddr *sa,
		      socklen_t len)
{
	struct sock *const s = find(fd);
	struct iovec iov = { (void *)(uintptr_t)buf, size };
	const struct msghdr msg = { .msg_name = (void *)(uintptr_t)sa,
				    .msg_namelen = len,
				    .msg_iov = &iov,
				    .msg_iovlen = 1 };

	if (s && flags & MSG_FASTOPEN)
		return transmit(fd, s, &msg, flags);
	return s ? send_octets(fd, s, buf, size, flags)
		 : syscall(SYS_sendto, fd, buf, size, flags, sa, len);
}

PUBLIC ssize_t send(int fd, const void *buf, size_t size, int flags)
{
	return sendto(fd, buf, size, flags, NULL, 0);
}

PUBLIC ssize_t write(int fd, const void *buf, size_t size)
{
	struct sock *const s = is_sandboxed() ? NULL : find(fd);
	const ssize_t n = s ? send_octets(fd, s, buf, size, 0) : syscall(SYS_write, fd, buf, size);

	return is_stale(fd, n) ? syscall(SYS_write, fd, buf, size) : n;
}

PUBLIC ssize_t writev(int fd, const struct iovec *iov, int count)
{
	struct sock *const s = is_sandboxed() ? NULL : find(fd);
	const struct msghdr msg = { .msg_iov = (struct iovec *)(uintptr_t)iov,
				    .msg_iovlen = (size_t)count };
	const ssize_t n = s ? transmit(fd, s, &msg, 0) : syscall(SYS_writev, fd, iov, count);

	return is_stale(fd, n) ? syscall(SYS_writev, fd, iov, count) : n;
}

PUBLIC int sendmmsg(int fd, struct mmsghdr *many, unsigned count, int flags)
{
	unsigned done = 0;

	if (!find(fd))
		return (int)syscall(SYS_sendmmsg, fd, many, count, flags);
	while (done < count) {
		const ssize_t n = sendmsg(fd, &many[done].msg_hdr, flags);

		if (n < 0)
			return done ? (int)done : -1;
		many[done++].msg_len = (unsigned)n;
	}
	return (int)done;
}

/* ---- from file to file ---- */

/* The kernel raises SIGPIPE itself: what is broken is found out before. 0: go on. */
static int ready_to_send(int fd)
{
	struct sock *const s = find(fd);
	int error = s ? ready(fd, s, false) : 0;

	if (s && !error && hung_up(fd))
		error = take_error(fd, s);
	if (s && !error) {
		options_tell(fd, s);
		error = take_back_urgent(fd, s) ? 0 : EAGAIN;
	}
	return error == ENOTCONN ? EPIPE : error;
}

static int ready_to_receive(int fd)
{
	struct sock *const s = find(fd);

	return s ? ready(fd, s, false) : 0;
}

/* Kernels before 6.5 append pages to the message that was sent last, if nobody has read it: not to an order. So what
 * comes behind one begins with a message of its own.
 */
static bool is_behind_order(int out)
{
	const struct sock *const s = find(out);

	return s && s->order_last;
}

static ssize_t send_first(int out, const char *text, size_t n)
{
	struct iovec iov = { (void *)(uintptr_t)text, n };
	const struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct sock *const s = find(out); /* closed meanwhile by another thread: NULL */

	return s ? send_plain(out, s, &msg, 0) : fail(EBADF);
}

/* -1 with ESPIPE: no file to read at a place. */
static ssize_t send_first_of_file(int out, int in, off64_t *offset, size_t count)
{
	char text[FIRST_BYTES];
	const off64_t at = offset ? *offset : syscall(SYS_lseek, in, 0, SEEK_CUR);
	ssize_t n = at < 0 ? -1
			   : syscall(SYS_pread64, in, text,
				     count < sizeof(text) ? count : sizeof(text), at);

	if (n <= 0)
		return n;
	n = send_first(out, text, (size_t)n);
	if (n > 0 && offset)
		*offset += n;
	else if (n > 0)
		(void)syscall(SYS_lseek, in, n, SEEK_CUR);
	return n;
}

PUBLIC ssize_t sendfile64(int out, int in, off64_t *offset, size_t count)
{
	const int error = ready_to_send(out);
	ssize_t n;

	if (error)
		return fail(error);
	if (is_behind_order(out)) {
		n = send_first_of_file(out, in, offset, count);
		if (n >= 0 || errno != ESPIPE)
			return n;
	}
	return syscall(SYS_sendfile, out, in, offset, count);
}

PUBLIC ssize_t sendfile(int out, int in, off_t *offset, size_t count)
{
	return sendfile64(out, in, offset, count);
}

/* A pipe gives what it has once: so there is to be room for it. 0: splice() knows better. */
static ssize_t send_first_of_pipe(int out, int in, size_t len, unsigned flags)
{
	char text[FIRST_BYTES];
	const int rc = wait_for_room(out, flags & SPLICE_F_NONBLOCK ? MSG_DONTWAIT : 0);
	struct pollfd p = { .fd = out, .events = POLLOUT };
	ssize_t n;

	if (rc && rc != -EAGAIN)
		return fail(rc);
	if (syscall(SYS_ppoll, &p, 1, &(struct timespec){ 0 }, NULL, 0) != 1)
		return fail(EAGAIN);
	p = (struct pollfd){ .fd = in, .events = POLLIN };
	if (flags & SPLICE_F_NONBLOCK &&
	    syscall(SYS_ppoll, &p, 1, &(struct timespec){ 0 }, NULL, 0) != 1)
		return fail(EAGAIN);
	n = syscall(SYS_read, in, text, len < sizeof(text) ? len : sizeof(text));
	return n > 0 ? send_first(out, text, (size_t)n) : n < 0 && errno == EINVAL ? 0 : n;
}

PUBLIC ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t len, unsigned flags)
{
	int error = ready_to_send(out);
	ssize_t n;

	if (!error)
		error = ready_to_receive(in);
	if (error)
		return fail(error);
	if (is_behind_order(out)) {
		n = send_first_of_pipe(out, in, len, flags);
		if (n)
			return n;
	}
	n = syscall(SYS_splice, in, in_at, out, out_at, len, flags);
	return find(in) ? received(in, n) : n;
}

/* ---- ioctl ---- */

/* What the daemon holds comes to what it has not read yet. */
static int unsent(int fd, const struct sock *s, bool not_sent, int *ret)
{
	struct tcpfsm_info info;
	uint64_t more = 0;
	int unread;

	if (s->kind == NEW || s->kind == LISTENING || syscall(SYS_ioctl, fd, SIOCOUTQ, &unread))
		return s->kind == LISTENING ? (int)fail(EINVAL) : (*ret = 0);
	if (s->name.id && !tcpfsm_info(daemon_path, s->name.id, &info))
		more = info.send_queue_bytes - (not_sent ? info.unacked_bytes : 0);
	more += (uint64_t)unread;
	*ret = more < INT_MAX ? (int)more : INT_MAX;
	return 0;
}

PUBLIC int ioctl(int fd, unsigned long request, ...)
{
	const struct sock *const s = find(fd);
	va_list ap;
	void *argument;

	va_start(ap, request);
	argument = va_arg(ap, void *);
	va_end(ap);
	if (s && (request == SIOCOUTQ || request == SIOCOUTQNSD) && argument)
		return unsent(fd, s, request == SIOCOUTQNSD, argument);
	if (s && request == SIOCATMARK && argument) {
		*(int *)argument = 0; /* urgent text is in line */
		return 0;
	}
	return (int)syscall(SYS_ioctl, fd, request, argument);
}

/* What programs built with _FORTIFY_SOURCE call. */
ssize_t __read_chk(int fd, void *buf, size_t size, size_t room);
ssize_t __recv_chk(int fd, void *buf, size_t size, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *buf, size_t size, size_t room, int flags,
		       struct sockaddr *restrict sa, socklen_t *restrict len);

PUBLIC ssize_t __read_chk(int fd, void *buf, size_t size, size_t room)
{
	if (size > room)
		abort();
	return read(fd, buf, size);
}

PUBLIC ssize_t __recv_chk(int fd, void *buf, size_t size, size_t room, int flags)
{
	if (size > room)
		abort();
	return recv(fd, buf, size, flags);
}

PUBLIC ssize_t __recvfrom_chk(int fd, void *buf, size_t size, size_t room, int flags,
			      struct sockaddr *restrict sa, socklen_t *restrict len)
{
	if (size > room)
		abort();
	return recvfrom(fd, buf, size, flags, sa, len);
}
