/* SPDX-License-Identifier: Apache-2.0 */
/* The shield's rules as text: what iptables-save prints is read, what iptables-restore reads is
 * written. Pure, and so tested without root. Only table raw and only what some tcpfsmd put there is
 * of interest; everything else passes by.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "host/shield.h"

enum {
	RULETEXT_CHAIN = 32, /* iptables' limit is 28 characters */
	RULETEXT_TAG = 240, /* with our words before it, below xt_comment's 256 */
	RULETEXT_COMMENT = 256,
};

/* What an instance calls its things. */
struct ruletext_names {
	char tag[RULETEXT_TAG];
	char in[RULETEXT_CHAIN], out[RULETEXT_CHAIN]; /* reached from PREROUTING, from OUTPUT */
	char early[RULETEXT_CHAIN]; /* nftables' table of the early drop */
	char comment[RULETEXT_COMMENT];
};

/* A rule that carries a tcpfsmd's comment or stands in or leads to one of its chains. */
struct ruletext_rule {
	char chain[RULETEXT_CHAIN], target[RULETEXT_CHAIN];
	char comment[RULETEXT_COMMENT];
	bool dst_any;
	struct ipaddr dst; /* unless dst_any */
	uint16_t port_min, port_max; /* --dport; 0..65535 when there was none */
	uint64_t packets, bytes;
	const char *line; /* "-A ...", in the text that was read */
	size_t line_len;
};

struct ruletext_table {
	struct ruletext_rule *rules;
	size_t rules_n;
	char (*chains)[RULETEXT_CHAIN];
	size_t chains_n;
};

/* -EINVAL: the tag is empty, too long, or has other than printable ASCII. */
int ruletext_names_init(struct ruletext_names *n, const char *tag);

/* text: from iptables-save -c; it must outlive the table. 0, -ENOMEM, -EINVAL. */
int ruletext_parse(const char *text, struct ruletext_table *ret_table);
void ruletext_table_fini(struct ruletext_table *t);
bool ruletext_has_chain(const struct ruletext_table *t, const char *chain);
/* The tag in a comment of ours, or NULL when it is none. */
const char *ruletext_tag(const struct ruletext_rule *r);

/* Is a rule for this family? addr_any is for both. */
bool ruletext_in_family(const struct shield_rule *r, bool ipv6);
/* A rule by which another tag owns something of ours, or NULL. */
const struct ruletext_rule *ruletext_conflict(const struct ruletext_table *t,
					      const struct ruletext_names *names,
					      const struct shield_rule *rules, size_t n, bool ipv6);

/* Input for iptables-restore --noflush. now: what stands. The rules' counters begin anew. */
void ruletext_write_apply(FILE *f, const struct ruletext_names *names,
			  const struct ruletext_table *now, const struct shield_rule *rules,
			  size_t n, bool ipv6);
/* After an apply: back to `before`, but for its counters. */
void ruletext_write_undo(FILE *f, const struct ruletext_names *names,
			 const struct ruletext_table *before);
/* Everything of ours away. False when there is nothing to do (nothing is written then). */
bool ruletext_write_remove(FILE *f, const struct ruletext_names *names,
			   const struct ruletext_table *now);
