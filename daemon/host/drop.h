/* SPDX-License-Identifier: Apache-2.0 */
/* How the early drop is done: by nftables (drop_nft.c) or by programs of BPF (drop_bpf.c). early.c knows what is to be
 * dropped, and where. Inside of host.
 */
#pragma once
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/errmsg.h"
#include "host/netview.h"
#include "host/ruletext.h"
#include "host/shield.h"

struct drop_device {
	uint64_t made; /* netview_link_made(): index and name may come again with another device */
	uint32_t ifindex;
	char name[IF_NAMESIZE];
};

struct drop_devices {
	struct drop_device list[SHIELD_DEVICES];
	size_t n;
};

/* What is to be dropped. */
struct drop_wish {
	const struct shield_rule *rules;
	size_t rules_n;
	const struct drop_devices *on;
	const struct netview *view; /* of links and addresses */
};

struct drop;

struct drop_ops {
	/* Can the kernel? -Exxx with a message that says what it takes. Changes nothing that lasts. */
	int (*check)(struct drop *d, struct errmsg *ret_err);
	/* Can it be on this device? NULL: on any. */
	bool (*takes)(const struct drop_device *device);
	/* This and nothing else is dropped from now on. -ENOENT: a device went meanwhile, try again. After -Exxx
	 * what was dropped still is, or some of it and of this, or nothing. */
	int (*set)(struct drop *d, const struct drop_wish *wish, struct errmsg *ret_err);
	/* rules[from..n) too, which is less work than set(); false: it takes that. NULL: it always does. */
	bool (*add)(struct drop *d, const struct shield_rule *rules, size_t n, size_t from);
	int (*remove)(struct drop *d, struct errmsg *ret_err);
	/* Is anything of it in the kernel? */
	bool (*stands)(const struct drop *d);
	/* What was dropped, since set() or since the rule came. *ret_stats is malloc'ed. 0 or -Exxx. */
	int (*counts)(struct drop *d, struct shield_stat **ret_stats, size_t *ret_n);
	void (*free)(struct drop *d);
	bool counts_last; /* from one set() to the next */
	bool by_address; /* addresses that come and go want a set() */
};

struct drop {
	const struct drop_ops *ops;
};

/* names must outlive it. -ENOENT: there is no nft, with a message that says what to do. */
int drop_nft_new(const struct ruletext_names *names, struct drop **ret_drop,
		 struct errmsg *ret_err);
/* Takes CAP_BPF and CAP_NET_ADMIN during check(); after it neither. */
int drop_bpf_new(struct drop **ret_drop, struct errmsg *ret_err);
