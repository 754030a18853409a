/* SPDX-License-Identifier: Apache-2.0 */
/* Which descriptors of the process are ours. Looked up without a lock, changed with one. */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "ctl/preload/preload.h"

enum { HIDDEN_FROM = 512 };

const char *daemon_path, *only_meant;

static _Atomic(struct sock *) socks[FDS_MAX];
static atomic_int highest = -1;
static struct sock *spare;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t self;

static void before_fork(void)
{
	(void)pthread_mutex_lock(&lock);
}

/* Who else may have a descriptor of it is not known any more. */
static void after_fork(void)
{
	for (int fd = 0; fd <= atomic_load(&highest); fd++) {
		struct sock *const s = atomic_load(&socks[fd]);

		if (s)
			s->forked = true;
	}
	self = (pid_t)syscall(SYS_getpid);
	(void)pthread_mutex_unlock(&lock);
}

static char *copy_of(const char *name)
{
	const char *const value = getenv(name);

	return value ? strdup(value) : NULL;
}

__attribute__((constructor)) static void start(void)
{
	daemon_path = copy_of("TCPFSM_SOCKET");
	only_meant = copy_of("TCPFSM_ONLY");
	self = (pid_t)syscall(SYS_getpid);
	(void)pthread_atfork(before_fork, after_fork, after_fork);
}

struct sock *find(int fd)
{
	return fd >= 0 && fd < FDS_MAX ? atomic_load_explicit(&socks[fd], memory_order_acquire)
				       : NULL;
}

struct sock *next_sock(int *fd)
{
	struct sock *s = NULL;

	while (*fd <= atomic_load(&highest) && !(s = find(*fd)))
		++*fd;
	return s;
}

bool is_ours(void)
{
	return syscall(SYS_getpid) == self;
}

static void sock_init(struct sock *s, int domain, enum kind kind)
{
	*s = (struct sock){
		.refs = 1,
		.kind = kind,
		.domain = domain,
		.daemon_end = -1,
		.reserve = -1,
		.epoll = -1,
	};
}

struct sock *sock_new(int domain, enum kind kind)
{
	struct sock *s;

	(void)pthread_mutex_lock(&lock);
	s = spare;
	if (s)
		spare = s->next;
	(void)pthread_mutex_unlock(&lock);
	if (!s)
		s = malloc(sizeof(*s));
	if (s)
		sock_init(s, domain, kind);
	return s;
}

/* Called with the lock held. */
static void unref(struct sock *s)
{
	if (!s || --s->refs)
		return;
	if (s->daemon_end >= 0)
		(void)syscall(SYS_close, s->daemon_end);
	if (s->reserve >= 0)
		(void)syscall(SYS_close, s->reserve);
	s->daemon_end = s->reserve = s->epoll = -1;
	s->next = spare;
	spare = s;
}

void sock_drop(struct sock *s)
{
	(void)pthread_mutex_lock(&lock);
	unref(s);
	(void)pthread_mutex_unlock(&lock);
}

/* Called with the lock held. */
static void set(int fd, struct sock *s)
{
	unref(atomic_exchange(&socks[fd], s));
	if (s && fd > atomic_load(&highest))
		atomic_store(&highest, fd);
}

void put(int fd, struct sock *s)
{
	if (fd < 0 || fd >= FDS_MAX)
		return;
	(void)pthread_mutex_lock(&lock);
	set(fd, s);
	(void)pthread_mutex_unlock(&lock);
}

void share(int from, int to)
{
	struct sock *s;

	if (to < 0 || to >= FDS_MAX || from == to || (!find(from) && !find(to)) || !is_ours())
		return;
	(void)pthread_mutex_lock(&lock);
	s = find(from);
	if (s)
		s->refs++;
	set(to, s);
	(void)pthread_mutex_unlock(&lock);
}

bool is_shared(const struct sock *s)
{
	return s->refs > 1;
}

/* What the UNIX socket and its name know of it. */
static void learn(int fd, struct sock *s, const struct tcpfsm_name *name)
{
	socklen_t len = sizeof(s->linger);

	s->name = *name;
	s->bound = name->local;
	s->v6only = name->v6only;
	if (name->v6only)
		keep_option(s, IPPROTO_IPV6, IPV6_V6ONLY, true);
	(void)syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_LINGER, &s->linger, &len);
	s->resets_told = s->linger.l_onoff && !s->linger.l_linger;
	s->adopted = s->forked = true;
	s->connect_told = true;
	s->shut = true; /* or not: it cannot be known, and an end of file is believed */
}

struct sock *find_or_adopt(int fd)
{
	struct tcpfsm_name name;
	struct sock *s = find(fd);
	const int e = errno;

	if (s || fd < 0 || fd >= FDS_MAX)
		return s;
	if (tcpfsm_name(fd, &name)) {
		errno = e;
		return NULL;
	}
	s = sock_new(name.domain, name.listens ? LISTENING : CONNECTED);
	if (!s)
		return NULL;
	learn(fd, s, &name);
	put(fd, s);
	return s;
}

bool blocks(int fd)
{
	return !(syscall(SYS_fcntl, fd, F_GETFL) & O_NONBLOCK);
}

int hide(int fd)
{
	struct rlimit limit = { .rlim_cur = 1024 };
	int hidden;

	(void)syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
	hidden = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC,
			      limit.rlim_cur > 2 * HIDDEN_FROM ? HIDDEN_FROM : limit.rlim_cur / 2);
	if (hidden < 0)
		return fd;
	(void)syscall(SYS_close, fd);
	return hidden;
}

bool hung_up(int fd)
{
	const struct timespec at_once = { 0 };
	struct pollfd p = { .fd = fd };

	return syscall(SYS_ppoll, &p, 1, &at_once, NULL, 0) == 1 && p.revents & (POLLHUP | POLLERR);
}
