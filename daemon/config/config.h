/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: read, checked, printed back. tcpfsmd.conf(5) describes the keys. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/addr.h"
#include "base/errmsg.h"
#include "tcp/params.h"

enum {
	CONFIG_NAME = 64,
	CONFIG_TEXT = 512,
	CONFIG_PATH = 256,
	CONFIG_LISTENERS_MAX = 1024,
	CONFIG_INTERFACES_MAX = 32,
	CONFIG_KEYS_MAX = 128
};

enum config_shield {
	CONFIG_SHIELD_IPTABLES,
	CONFIG_SHIELD_INGRESS,
	CONFIG_SHIELD_BPF,
	CONFIG_SHIELD_NONE
};
enum config_record { CONFIG_RECORD_NOTHING, CONFIG_RECORD_CONNECTIONS, CONFIG_RECORD_TRANSITIONS };

/* Whose word a [Tcp] key of a listener is. */
enum config_from {
	FROM_DAEMON, /* [Tcp]: it follows */
	FROM_SECTION, /* its own section */
	FROM_LISTEN, /* `listen --tcp` */
	FROM_SET, /* `set tcp.KEY --listener` */
};

struct config_listener {
	char name[CONFIG_NAME]; /* [Listener NAME] */
	struct endpoint address;
	char service[CONFIG_TEXT]; /* as written: "echo", "exec:/path arg" */
	uint32_t max_processes; /* exec: running at a time; default 100 */
	uint32_t max_connections; /* 0: only the engine's limit */
	uint32_t max_connections_per_peer; /* of one address at a time; 0: no limit */
	uint32_t backlog; /* connections in SYN-RECEIVED; default 1024 */
	/* exec: what its processes are. Empty, or 0: as the daemon */
	uint32_t max_processes_per_peer; /* running at a time; 0: no limit */
	char user[CONFIG_NAME], group[CONFIG_NAME];
	char directory[CONFIG_PATH], environment[CONFIG_TEXT];
	uint64_t limit_cpu_us, limit_as_bytes, limit_nofile, limit_fsize_bytes, limit_nproc;
	uint64_t kill_after_us; /* from SIGHUP or SIGTERM to SIGKILL; default 5 s */
	struct tcp_params tcp; /* [Tcp], with this section's own keys over it */
	uint8_t tcp_from[CONFIG_KEYS_MAX]; /* enum config_from, by place in keys[] (key.h) */
};

struct config {
	/* [Daemon] */
	char interfaces[CONFIG_INTERFACES_MAX][16]; /* names */
	size_t interfaces_n; /* 0: any */
	enum config_shield shield;
	uint16_t local_port_min, local_port_max; /* LocalPorts; default 61000-65535 */
	uint32_t workers; /* Workers; default 1 */
	uint32_t max_connections; /* MaxConnections; default 100000 */
	uint64_t coalesce_us; /* Coalesce, 0 to 1 ms; default 128 us */
	uint64_t buffer_bytes; /* BufferMemory, for all connections together; default 1 GiB */
	uint64_t
		stop_grace_us; /* StopGrace: how long connections may finish at a stop; default 1 s */
	int log_level; /* LogLevel: error warning notice info debug; enum log_level */
	/* [Control] */
	char socket_group[CONFIG_NAME]; /* empty: the daemon's own group */
	uint32_t max_clients; /* MaxClients; default 64 */
	uint32_t unprivileged_port_start; /* UnprivilegedPortStart; 0 to 65536, default 1024 */
	/* [Tcp] */
	struct tcp_params tcp;
	/* [Storage] */
	char database[CONFIG_TEXT]; /* relative: in the state directory */
	enum config_record record;
	uint64_t retain_us; /* Retain; default 7d */
	uint64_t retain_bytes; /* RetainSize; default 2 GiB */
	/* [Listener NAME] */
	struct config_listener *listeners; /* owned */
	size_t listeners_n;
	/* For --print-config: where each value came from. Owned; private to config.c. */
	struct config_origins *origins;
};

/* Told of things worth a warning: unknown keys and sections, with "file:line". */
typedef void config_warn_fn(void *arg, const char *message);

/* Reads `file` (NULL: /etc/tcpfsmd/tcpfsmd.conf, which may be missing), then its drop-ins
 * (`file`.d/NAME.conf by name, file without ".conf": tcpfsmd.conf.d/ beside tcpfsmd.conf), then
 * overrides "Section.Key=VALUE" ("Listener.echo.Address=..." for a listener). A bad value: -EINVAL
 * and "FILE:LINE: what is wrong, what was expected". -ENOENT when `file` was named and is missing.
 * On failure *ret_config is untouched.
 */
int config_load(const char *file, const char *const *overrides, size_t overrides_n,
		config_warn_fn *warn, void *warn_arg, struct config *ret_config,
		struct errmsg *ret_err);
/* The same from memory, without drop-ins and overrides: for tests. `name` stands for the file's. */
int config_load_text(const char *name, const char *text, size_t len, config_warn_fn *warn,
		     void *warn_arg, struct config *ret_config, struct errmsg *ret_err);
void config_fini(struct config *c);
/* The effective configuration, every key, each with "# file:line" or "# default"; config_load() reads
 * it back to the same. */
void config_print(const struct config *c, FILE *out);

/* Walks all keys, *cursor 0 to start: for help, completion, and tests of the manual. */
struct config_key {
	const char *section; /* "Tcp"; "Listener" for those that only a listener has */
	const char *name;
	const char *help; /* one line */
	char expected[256]; /* what it may be: "a number, 1 to 64" */
};
bool config_next_key(size_t *cursor, struct config_key *ret_key);
