/* SPDX-License-Identifier: Apache-2.0 */
/* The spawner's side: a single-threaded loop that starts, signals and reaps. */
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/macros.h"
#include "base/signals.h"
#include "service/spawner_message.h"

enum { CHANNELS_MAX = 64 };

/* A process that runs. */
struct child {
	struct child *next;
	uint64_t token;
	uint64_t started_us; /* CLOCK_MONOTONIC */
	pid_t pid;
	int channel; /* descriptor; -1: its worker is gone, nobody is told */
};

static struct {
	int main_fd; /* our own socket: its end of file is our end */
	int signal_fd;
	int channels[CHANNELS_MAX];
	unsigned channels_n;
	struct child *children;
} sp;

/* A worker that does not read for a while must not be left uninformed, so this blocks. */
static void tell(int channel, const struct spawn_event *event)
{
	if (channel < 0)
		return;
	while (send(channel, event, sizeof(*event), MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

static struct child *find_child(int channel, uint64_t token)
{
	for (struct child *c = sp.children; c; c = c->next)
		if (c->channel == channel && c->token == token)
			return c;
	return NULL;
}

/* What a new process is made of. It shares our memory until it executes: vfork(). */
struct birth {
	char **argv, **envp;
	const struct spawn_setup *setup;
	const int *fds;
	volatile int error;
};

/* errno, or 0. The library's own calls would tell every thread; there is one, and it is not ours. */
static int switch_user(const struct spawn_setup *s)
{
	if (!s->switch_user)
		return 0;
	if (syscall(SYS_setgroups, (long)s->groups_n, s->groups) ||
	    syscall(SYS_setresgid, s->gid, s->gid, s->gid) ||
	    syscall(SYS_setresuid, s->uid, s->uid, s->uid))
		return errno;
	return 0;
}

/* Every capability goes, of whatever user: SECBIT_NOROOT keeps exec() from giving them back. */
static int drop_all_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct none[2] = { 0 };

	return syscall(SYS_capset, &head, none) ? errno : 0;
}

static int set_limits(const struct spawn_setup *s)
{
	static const int resources[SPAWN__LIMITS] = { [SPAWN_CPU] = RLIMIT_CPU,
						      [SPAWN_AS] = RLIMIT_AS,
						      [SPAWN_NOFILE] = RLIMIT_NOFILE,
						      [SPAWN_FSIZE] = RLIMIT_FSIZE,
						      [SPAWN_NPROC] = RLIMIT_NPROC };

	for (int i = 0; i < SPAWN__LIMITS; i++) {
		const rlim_t soft = s->limits[i];
		/* Of the two of RLIMIT_CPU the hard one kills without a word. */
		const struct rlimit limit = { soft, soft + (i == SPAWN_CPU ? 1 : 0) };

		if (soft && prlimit(0, (enum __rlimit_resource)resources[i], &limit, NULL))
			return errno;
	}
	return 0;
}

/* In the order that lets each still be done: NOFILE counts what dup2() makes, a change of user clears the
 * signal of the parent's death, and capabilities are what switches users.
 */
static int set_up(const struct birth *b)
{
	int err;

	if (dup2(b->fds[0], 0) < 0 || dup2(b->fds[1], 1) < 0)
		return errno;
	err = set_limits(b->setup);
	if (!err)
		err = switch_user(b->setup);
	if (!err)
		err = drop_all_capabilities();
	if (err)
		return err;
	if (b->setup->directory[0] && chdir(b->setup->directory))
		return errno;
	/* Set here, since it does not pass vfork(): without the spawner nobody would end it. */
	return prctl(PR_SET_PDEATHSIG, SIGKILL) ? errno : 0;
}

/* Runs in the new process. Handlers are gone before a signal can come. */
_Noreturn static void exec_child(struct birth *b)
{
	const struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;

	(void)setsid();
	for (int sig = 1; sig < NSIG; sig++)
		(void)sigaction(sig, &dfl,
				NULL); /* fails for SIGKILL, SIGSTOP and libc's own: fine */
	b->error = set_up(b);
	if (!b->error) {
		(void)sigemptyset(&none);
		(void)sigprocmask(SIG_SETMASK, &none, NULL);
		(void)execve(b->argv[0], b->argv, b->envp);
		b->error = errno;
	}
	_exit(127);
}

/* 0 and *ret_pid, or errno. vfork(): no page table is copied, and it returns when exec() worked or did not. */
static int start_child(struct birth *b, pid_t *ret_pid)
{
	const pid_t pid = vfork();

	if (!pid)
		exec_child(b);
	if (pid < 0)
		return errno;
	if (b->error) {
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		return b->error;
	}
	*ret_pid = pid;
	return 0;
}

/* Pointers to `n` strings in text[*at..len). False: they are not all there. */
static bool take_strings(char *text, size_t len, size_t *at, uint32_t n, char **ret_strings)
{
	if (n > SPAWNER_STRINGS_MAX)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		const char *const end = memchr(text + *at, 0, len - *at);

		if (!end)
			return false;
		ret_strings[i] = text + *at;
		*at = (size_t)(end - text) + 1;
	}
	ret_strings[n] = NULL;
	return true;
}

static void serve_spawn(int channel, const struct spawner_request *req, char *text, size_t len,
			const int fds[2])
{
	struct spawn_event event = { .kind = SPAWN_FAILED, .token = req->token, .error = EINVAL };
	char *argv[SPAWNER_STRINGS_MAX + 1], *envp[SPAWNER_STRINGS_MAX + 1];
	const uint64_t started_us = clock_monotonic_us();
	struct child *c = malloc(sizeof(*c));
	struct spawn_setup setup;
	struct birth birth = { .argv = argv, .envp = envp, .setup = &setup, .fds = fds };
	size_t at = sizeof(setup);

	if (len >= sizeof(setup))
		memcpy(&setup, text, sizeof(setup));
	if (!c)
		event.error = ENOMEM;
	else if (fds[0] < 0 || fds[1] < 0)
		event.error = EMFILE; /* the kernel dropped them on the way to us */
	else if (len >= sizeof(setup) && req->argc &&
		 take_strings(text, len, &at, req->argc, argv) &&
		 take_strings(text, len, &at, req->envc, envp))
		event.error = start_child(&birth, &event.pid);
	if (event.error) {
		free(c);
		tell(channel, &event);
		return;
	}
	*c = (struct child){ .next = sp.children,
			     .token = req->token,
			     .started_us = started_us,
			     .pid = event.pid,
			     .channel = channel };
	sp.children = c;
	event.kind = SPAWN_STARTED;
	tell(channel, &event);
}

/* Has the process begun to exit, so that SPAWN_ENDED is certain to follow? Its descriptors close
 * before it can be reaped; the kernel shows the moment between as PF_EXITING.
 */
static bool is_exiting(pid_t pid)
{
	char path[40], buf[512];
	const char *at;
	unsigned flags = 0;
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf) - 1);
	(void)close(fd);
	buf[n > 0 ? n : 0] = 0;
	at = strrchr(buf, ')'); /* the name may hold anything */
	if (!at || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) != 1)
		return false;
	return flags & 0x4; /* PF_EXITING, include/linux/sched.h */
}

static void serve_request(int channel, const struct spawner_request *req, char *text, size_t len,
			  const int fds[2])
{
	const struct child *c;

	switch (req->op) {
	case SPAWNER_SPAWN:
		serve_spawn(channel, req, text, len, fds);
		return;
	case SPAWNER_SIGNAL:
		c = find_child(channel, req->token);
		if (c)
			(void)kill(-c->pid, req->sig);
		return;
	case SPAWNER_PROBE:
		c = find_child(channel, req->token);
		if (c && !is_exiting(c->pid))
			tell(channel, &(struct spawn_event){ .kind = SPAWN_ALIVE,
							     .token = req->token,
							     .pid = c->pid });
		return;
	case SPAWNER_CHANNEL:
		return; /* only on our own socket */
	}
}

/* One message and its descriptors, -1 where there is none. Its length, 0 at the end. */
static ssize_t receive(int fd, void *buf, size_t size, int ret_fds[2])
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec iov = { buf, size };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *c;
	ssize_t n;

	ret_fds[0] = ret_fds[1] = -1;
	do
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return 0;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(ret_fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	return n;
}

static void close_channel(unsigned i)
{
	const int fd = sp.channels[i];

	for (struct child *c = sp.children; c; c = c->next) {
		if (c->channel != fd)
			continue;
		(void)kill(-c->pid, SIGKILL);
		c->channel = -1;
	}
	(void)close(fd);
	sp.channels[i] = sp.channels[--sp.channels_n];
}

/* False: the channel is at its end. */
static bool serve_channel(int channel)
{
	char buf[SPAWNER_MESSAGE_MAX];
	struct spawner_request req;
	int fds[2];
	const ssize_t n = receive(channel, buf, sizeof(buf), fds);

	if (n >= (ssize_t)sizeof(req)) {
		memcpy(&req, buf, sizeof(req));
		serve_request(channel, &req, buf + sizeof(req), (size_t)n - sizeof(req), fds);
	}
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
	return n > 0;
}

/* False: the daemon is gone. */
static bool serve_main(void)
{
	struct spawner_request req;
	int fds[2];

	if (!receive(sp.main_fd, &req, sizeof(req), fds))
		return false;
	if (fds[0] < 0)
		return true;
	if (sp.channels_n == CHANNELS_MAX) {
		(void)close(fds[0]);
		return true;
	}
	(void)fcntl(fds[0], F_SETFL,
		    0); /* the worker's end does not block; ours does: see tell() */
	sp.channels[sp.channels_n++] = fds[0];
	return true;
}

static uint64_t timeval_us(struct timeval tv)
{
	return (uint64_t)tv.tv_sec * 1000000 + (uint64_t)tv.tv_usec;
}

static void reap(pid_t pid, int status, const struct rusage *usage)
{
	struct child **at = &sp.children;
	struct child *c;

	while (*at && (*at)->pid != pid)
		at = &(*at)->next;
	c = *at;
	if (!c)
		return;
	*at = c->next;
	tell(c->channel,
	     &(struct spawn_event){
		     .kind = SPAWN_ENDED,
		     .token = c->token,
		     .pid = pid,
		     .status = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status),
		     .run_us = clock_monotonic_us() - c->started_us,
		     .cpu_us = timeval_us(usage->ru_utime) + timeval_us(usage->ru_stime) });
	free(c);
}

static void serve_signals(void)
{
	struct signalfd_siginfo info;
	struct rusage usage;
	int status;
	pid_t pid;

	(void)!read(sp.signal_fd, &info, sizeof(info));
	while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0)
		reap(pid, status, &usage);
}

static void loop(void)
{
	struct pollfd fds[CHANNELS_MAX + 2];

	for (;;) {
		const unsigned n = sp.channels_n;

		fds[0] = (struct pollfd){ .fd = sp.main_fd, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = sp.signal_fd, .events = POLLIN };
		for (unsigned i = 0; i < n; i++)
			fds[i + 2] = (struct pollfd){ .fd = sp.channels[i], .events = POLLIN };
		if (poll(fds, n + 2, -1) < 0)
			continue;
		if (fds[1].revents)
			serve_signals();
		for (unsigned i = n; i-- > 0;) /* downwards: close_channel() moves the last one */
			if (fds[i + 2].revents && !serve_channel(fds[i + 2].fd))
				close_channel(i);
		if (fds[0].revents && !serve_main())
			return;
	}
}

/* What it takes to start and to signal processes of another user is kept, if it was given. 0, or -1 and
 * errno. What an unprivileged daemon may not do it need not do either.
 */
static int drop_capabilities(void)
{
	static const int kept[] = { CAP_SETUID, CAP_SETGID, CAP_KILL };
	const unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
				   SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
				   SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

	bool had[ARRAY_SIZE(kept)];

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	(void)prctl(PR_SET_SECUREBITS, bits, 0, 0, 0);
	(void)capng_get_caps_process();
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		had[i] = capng_have_capability(CAPNG_EFFECTIVE, (unsigned)kept[i]);
	capng_clear(CAPNG_SELECT_BOTH);
	(void)capng_apply(CAPNG_SELECT_BOUNDS);
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (had[i])
			(void)capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED,
					   (unsigned)kept[i]);
	errno = EPERM; /* libcap-ng does not always set it */
	return capng_apply(CAPNG_SELECT_CAPS);
}

/* Our socket becomes 3, everything above it is closed, and 0 to 2 are open. */
static int keep_only(int fd)
{
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0)
		return -1;
	if (fcntl(2, F_GETFD) < 0 && dup2(null, 2) < 0)
		return -1;
	if (fd != 3 && dup3(fd, 3, O_CLOEXEC) < 0)
		return -1;
	return close_range(4, ~0U, 0);
}

static int block_signals(void)
{
	sigset_t child;

	/* It ends when the daemon does, not when somebody presses Ctrl-C or stops the unit. */
	(void)setsid();
	signals_block(NULL);
	(void)sigemptyset(&child);
	(void)sigaddset(&child, SIGCHLD);
	if (signal(SIGCHLD, SIG_DFL) == SIG_ERR)
		return -1;
	sp.signal_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	return sp.signal_fd < 0 ? -1 : 0;
}

_Noreturn static void say_hello_and_end(const char *step)
{
	struct spawner_hello hello = { .error = errno ? errno : EINVAL };

	(void)snprintf(hello.step, sizeof(hello.step), "%s", step);
	(void)send(sp.main_fd, &hello, sizeof(hello), MSG_NOSIGNAL);
	_exit(1);
}

_Noreturn void spawner_main(int fd)
{
	const struct spawner_hello hello = { 0 };

	sp.main_fd = fd;
	(void)prctl(PR_SET_NAME, "tcpfsmd-spawner");
	if (keep_only(fd))
		say_hello_and_end("close descriptors");
	sp.main_fd = 3;
	if (block_signals())
		say_hello_and_end("block signals");
	if (chdir("/"))
		say_hello_and_end("chdir /");
	if (drop_capabilities())
		say_hello_and_end("drop capabilities");
	(void)send(sp.main_fd, &hello, sizeof(hello), MSG_NOSIGNAL);
	loop();
	for (struct child *c = sp.children; c; c = c->next)
		(void)kill(-c->pid, SIGKILL);
	_exit(0);
}
