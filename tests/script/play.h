/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the script runner share: the line being played, the engine, and the connections
 * of the script. One script is played at a time, so there is one world.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/macros.h"
#include "tcp/engine.h"

enum { ARGS_MAX = 48, CONNS_MAX = 16, SENT_MAX = 4096, LOG_MAX = 24, NOTES_MAX = 256 };

/* A line, cut into words: text in quotes and options in angle brackets are one word each. */
struct line {
	const char *file;
	int no;
	char text[512]; /* as written, for messages */
	char words[768]; /* cut up; argv points into it */
	char *argv[ARGS_MAX];
	int argc;
};

/* A connection as the script knows it: `conn N`. Sequence numbers in scripts are relative to iss and irs. */
struct peer {
	struct flow flow;
	conn_id id;
	uint32_t label; /* the first that was sent, IPv6 */
	bool have_id;
	bool iss_known;
	seqno iss, irs;
	seqno iss_before; /* of another SYN of ours, before that of iss */
	bool ts_known;
	uint32_t ts_first, ts_last; /* ours: first and latest value sent */
	uint16_t id_first; /* our IP identification from which a script counts */
	bool id_known;
	uint64_t sent_octets, read_octets; /* by conn_send(); by read and direct delivery */
	uint64_t delivered; /* by direct delivery, since `delivered` last asked */
	unsigned reports; /* enum report_kind, not yet checked by `report` */
	enum end_reason reason;
	bool closed_told;
	struct trace transitions[NOTES_MAX], refusals[NOTES_MAX];
	unsigned transitions_n, transitions_at, refusals_n, refusals_at;
};

struct sent {
	vtime at;
	struct segment seg;
	uint32_t len; /* text octets */
	struct peer *peer;
};

struct world {
	struct line line;
	struct engine *e;
	struct engine_config cfg;
	struct tcp_params params;
	vtime now, start;
	bool rest; /* --rest: connections rest whenever they may */
	uint16_t link_mtu;
	uint8_t fast_open[8]; /* the last cookie that was sent */
	bool direct; /* connections ask for direct delivery as they open */
	uint32_t direct_take;
	bool direct_sends; /* as many octets of ours for those that it takes */
	listener_id listener;
	struct peer peers[CONNS_MAX];
	struct peer *peer; /* the current one */
	struct sent sent[SENT_MAX];
	unsigned sent_n;
	char log[LOG_MAX][240];
	unsigned log_n;
	/* Where each connection, by serial, was last: transitions must be a path. */
	struct {
		uint64_t serial;
		enum tcp_state state;
	} paths[NOTES_MAX];
	uint32_t edges[ST__COUNT];
};

extern struct world w;

/* Says where, what, and the last segments; ends the program. */
__attribute__((noreturn)) void fail(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* parse.c */
void line_cut(struct line *l);
/* A number with an optional unit (us ms s, KiB MiB); durations come out in microseconds. */
uint64_t number(const char *word);
uint64_t duration(const char *word); /* seconds without a unit, as after `+` */
uint8_t flags_parse(const char *word);
/* The word after `key`, or NULL. */
const char *value_of(const char *key);
bool has_word(const char *key);

/* segments.c */
uint8_t octet_at(uint32_t rel, bool theirs);
void segment_format(const struct peer *p, char dir, const struct segment *s, char buf[static 240]);
void segment_log(const struct peer *p, char dir, const struct segment *s);
void segment_inject(bool more_follows);
void segment_expect(void);
struct peer *peer_of(const struct flow *f);
void deliver(const struct delivery *d);

/* world.c */
void world_begin(const char *file);
void world_end(void);
void world_engine(void); /* makes the engine, unless it is there */
void pump(void); /* reports, traces, segments */
void advance(vtime to);
void use_peer(unsigned n);
void families(bool v6);

/* commands.c */
void command(void);
