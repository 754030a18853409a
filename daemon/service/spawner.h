/* SPDX-License-Identifier: Apache-2.0 */
/* The spawner: a child of the daemon that starts the processes of exec services, so that the daemon
 * itself, with its privileges and threads, never forks. It has no capability but those that it takes to start
 * and to end processes of another user, where the daemon was given them (as root it is; by its unit it is
 * not), no way to get more, and no descriptor but its sockets. What it starts has none at all. The daemon talks to it over channels, one for each worker. When the
 * daemon goes, it sees end of file, kills what it started, and exits; when it goes, so do its children.
 *
 * Nothing here blocks but spawner_start() and spawner_free().
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/errmsg.h"

struct spawner;
struct spawner_channel;

enum {
	SPAWN_TEXT_MAX = 8192, /* octets of arguments and environment, with their zeros */
	SPAWN_GROUPS_MAX = 32,
	SPAWN_PATH_MAX = 256,
};

enum spawn_limit {
	SPAWN_CPU, /* seconds; SIGXCPU then, SIGKILL a second later */
	SPAWN_AS, /* octets */
	SPAWN_NOFILE,
	SPAWN_FSIZE, /* octets */
	SPAWN_NPROC,
	SPAWN__LIMITS
};

/* What a process is, besides its program. Zeroed: as the daemon is, in the directory "/". */
struct spawn_setup {
	bool switch_user; /* else the ids and groups stay */
	uid_t uid;
	gid_t gid;
	uint32_t groups_n;
	gid_t groups[SPAWN_GROUPS_MAX];
	uint64_t limits[SPAWN__LIMITS]; /* setrlimit(2); 0: as the daemon's */
	char directory[SPAWN_PATH_MAX]; /* entered as that user; empty: "/" */
};

/* What to start. Everything is borrowed for the call. */
struct spawn_job {
	uint64_t token; /* the caller's name for it; unique in its channel while it lives */
	const char *const *argv; /* NULL-terminated; argv[0] is an absolute path */
	const char *const *envp; /* NULL-terminated: the whole environment */
	const struct spawn_setup *setup; /* NULL: zeroed */
	int in, out; /* become 0 and 1 of the process; given away, also on failure */
};

enum spawn_event_kind {
	SPAWN_STARTED, /* it runs: pid */
	SPAWN_FAILED, /* it could not be started: error. The last event of its token */
	SPAWN_ALIVE, /* answer to spawner_probe(): it is not about to end */
	SPAWN_ENDED, /* it ended: status, run_us, cpu_us. The last event of its token */
};

struct spawn_event {
	enum spawn_event_kind kind;
	uint64_t token;
	int error; /* SPAWN_FAILED: errno of vfork, of what its setup asks for, or of exec */
	pid_t pid;
	int32_t status; /* SPAWN_ENDED: exit status, or -signal */
	uint64_t run_us; /* SPAWN_ENDED: from fork to the end */
	uint64_t cpu_us; /* SPAWN_ENDED: user and system time, its reaped children included */
};

/* Forks it. Main thread, before any other thread and before privileges are dropped. */
int spawner_start(struct spawner **ret_spawner, struct errmsg *ret_err);
pid_t spawner_pid(const struct spawner *s);
/* Kills every process it started, ends it and waits for it. NULL is nothing. */
void spawner_free(struct spawner *s);

/* A channel of one's own: main thread; then used by one thread. */
int spawner_channel_new(struct spawner *s, struct spawner_channel **ret_channel,
			struct errmsg *ret_err);
/* The spawner kills what was started through it. NULL is nothing. */
void spawner_channel_free(struct spawner_channel *c);
int spawner_channel_fd(const struct spawner_channel *c);

/* Asks for a process. 0: exactly one SPAWN_STARTED or SPAWN_FAILED follows. -EPIPE: the spawner is
 * gone. -EAGAIN: too much waits already. -E2BIG: argv and envp exceed SPAWN_TEXT_MAX. */
int spawner_spawn(struct spawner_channel *c, const struct spawn_job *job);
/* Sends a signal to the process group. 0, -EPIPE, -EAGAIN. An ended process is nothing. */
int spawner_signal(struct spawner_channel *c, uint64_t token, int sig);
/* SPAWN_ALIVE or SPAWN_ENDED follows. For a process that closed its output: was that its end? */
int spawner_probe(struct spawner_channel *c, uint64_t token);
/* 1: *ret_event; 0: nothing waits; -EPIPE: the spawner is gone, and its processes with it. */
int spawner_next(struct spawner_channel *c, struct spawn_event *ret_event);
/* Does something wait until the descriptor is writable? Then poll for that and call flush. */
bool spawner_wants_write(const struct spawner_channel *c);
int spawner_flush(struct spawner_channel *c);
