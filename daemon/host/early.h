/* SPDX-License-Identifier: Apache-2.0 */
/* The early drop: beside the shield's rules, one table of nftables (Shield=ingress) or a program of BPF (Shield=bpf)
 * drops the same segments at the devices' ingress, right behind the packet sockets and before the kernel's IP looks
 * at them.
 *
 * It saves time and protects nothing: that is what the rules of iptables do. So it always drops a subset of
 * what they drop. It grows after them and shrinks before them, and goes first: a port that is free again is the
 * kernel's. When it fails it is taken away, and the rules go on alone; each later change tries again.
 *
 * It stands on devices whose frames go nowhere else than to this machine's IP (netview_next_direct()), and
 * follows them as they come and go. nftables' table is made anew for that: a name is bound to a device by the
 * kernel when the table is made, or later by itself (Linux 6.16).
 */
#pragma once
#include "base/errmsg.h"
#include "host/ruletext.h"
#include "host/shield.h"

struct early;

/* names: the shield's; it must outlive this. Changes nothing, but sees whether an earlier run left a table.
 * -ENOMEM. */
int early_new(const struct ruletext_names *names, struct early **ret_early, struct errmsg *ret_err);
void early_free(struct early *e); /* leaves the table as it is */
/* From now on it is wanted, on these interfaces (NULL: any). Asks whether the kernel can, and nft when it is that
 * which drops. -ENOENT: there is no nft. */
int early_want(struct early *e, enum shield_by by, const char *const *only, struct errmsg *ret_err);

/* Before the rules become these. -Exxx: the table stands, has more than they, and cannot be changed. A
 * table that an earlier run left goes, and so does any that is not wanted. */
int early_shrink(struct early *e, const struct shield_rule *rules, size_t n,
		 struct errmsg *ret_err);
/* After the rules have become these. */
void early_grow(struct early *e, const struct shield_rule *rules, size_t n);
/* The table away; it grows again. No table there: fine. */
int early_remove(struct early *e, struct errmsg *ret_err);

/* -1: not wanted. Poll readable, then early_update(). */
int early_fd(const struct early *e);
void early_update(struct early *e);

/* Why nothing is dropped early although it is wanted; NULL: it is, or it is not wanted. */
const char *early_trouble(const struct early *e);
/* What is wanted, as Shield= has it; NULL: nothing is. */
const char *early_name(const struct early *e);
/* The devices it stands on; at most SHIELD_DEVICES. Valid until the next call that changes e. */
size_t early_devices(const struct early *e, const char *ret_names[static SHIELD_DEVICES]);
/* Adds what it has counted to the rules' counts, each member of a set to the first of them that has it. */
void early_add_counts(struct early *e, struct shield_stat *stats, size_t n);
