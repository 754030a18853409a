/* SPDX-License-Identifier: Apache-2.0 */
#include "early.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/macros.h"
#include "host/drop.h"
#include "host/netview.h"

struct early {
	const struct ruletext_names *names;
	struct drop *nft; /* NULL: there is no nft, and so no table of an earlier run */
	struct drop *bpf; /* NULL: not wanted */
	struct drop *drop; /* the one that is wanted; NULL: none */
	const char *name; /* of that one, as Shield= has it */
	struct netview *view; /* NULL likewise */
	struct shield_rule *rules; /* to be dropped; never more than iptables' rules have */
	size_t rules_n;
	bool left; /* nft has a table of an earlier run: what that drops is not known */
	struct drop_devices on; /* where it drops */
	uint64_t seen; /* generation of view when it was last compared with */
	struct errmsg trouble; /* text "": none */
	/* By what is replaced or was taken away. */
	struct shield_stat *counted;
	size_t counted_n;
};

/* --- Making and ending ---------------------------------------------------------------------- */

int early_new(const struct ruletext_names *names, struct early **ret_early, struct errmsg *ret_err)
{
	struct early *e = calloc(1, sizeof(*e));
	int rc = e ? drop_nft_new(names, &e->nft, ret_err) : -ENOMEM;

	if (rc == -ENOMEM) {
		free(e);
		return errmsg(ret_err, rc, "shield: %s", strerror(ENOMEM));
	}
	e->names = names;
	e->left = e->nft && e->nft->ops->stands(e->nft);
	*ret_early = e;
	return 0;
}

void early_free(struct early *e)
{
	if (!e)
		return;
	netview_free(e->view);
	if (e->nft)
		e->nft->ops->free(e->nft);
	if (e->bpf)
		e->bpf->ops->free(e->bpf);
	free(e->rules);
	free(e->counted);
	free(e);
}

static int choose(struct early *e, enum shield_by by, struct drop **ret_drop,
		  struct errmsg *ret_err)
{
	int rc = 0;

	if (by == SHIELD_BY_BPF)
		rc = drop_bpf_new(&e->bpf, ret_err);
	else if (!e->nft) /* says what is missing */
		rc = drop_nft_new(e->names, &e->nft, ret_err);
	*ret_drop = by == SHIELD_BY_BPF ? e->bpf : e->nft;
	return rc;
}

int early_want(struct early *e, enum shield_by by, const char *const *only, struct errmsg *ret_err)
{
	struct drop *drop;
	int rc = choose(e, by, &drop, ret_err);

	if (!rc)
		rc = drop->ops->check(drop, ret_err);
	if (!rc)
		rc = netview_new_addresses(only, &e->view, ret_err);
	if (rc)
		return rc;
	e->drop = drop;
	e->name = by == SHIELD_BY_BPF ? "bpf" : "ingress";
	return 0;
}

/* --- Counts --------------------------------------------------------------------------------- */

static bool has_member(const struct shield_rule *r, const struct shield_stat *member)
{
	if (!ruletext_in_family(r, member->ipv6) || r->port_min > member->rule.port_min ||
	    member->rule.port_max > r->port_max)
		return false;
	return addr_is_any(&r->addr) ? addr_is_any(&member->rule.addr)
				     : addr_eq(&r->addr, &member->rule.addr);
}

static bool is_same_member(const struct shield_stat *a, const struct shield_stat *b)
{
	return a->ipv6 == b->ipv6 && a->rule.port_min == b->rule.port_min &&
	       a->rule.port_max == b->rule.port_max && addr_eq(&a->rule.addr, &b->rule.addr);
}

static void add_stat(struct shield_stat *to, const struct shield_stat *from)
{
	to->packets += from->packets;
	to->bytes += from->bytes;
	to->early += from->early;
}

/* What drops: also a table that an earlier run left. */
static struct drop *standing(const struct early *e)
{
	struct drop *const drop = e->drop ? e->drop : e->nft;

	return drop && drop->ops->stands(drop) ? drop : NULL;
}

/* All that was counted until now: by what stands and what did before. No memory: by that. */
static struct shield_stat *counts_now(struct early *e, size_t *ret_n)
{
	struct drop *const drop = standing(e);
	struct shield_stat *now = NULL, *all;
	size_t now_n = 0, n = e->counted_n;

	if (drop && drop->ops->counts(drop, &now, &now_n))
		now_n = 0;
	all = calloc(n + now_n + 1, sizeof(*all));
	if (all && n)
		memcpy(all, e->counted, n * sizeof(*all));
	for (size_t i = 0; all && i < now_n; i++) {
		size_t k = 0;

		while (k < n && !is_same_member(&all[k], &now[i]))
			k++;
		if (k == n)
			all[n++] = now[i];
		else
			add_stat(&all[k], &now[i]);
	}
	free(now);
	*ret_n = all ? n : 0;
	return all;
}

/* What has counted is about to be replaced or removed: its counts are ours to keep. */
static void keep_counts(struct early *e)
{
	size_t n;
	struct shield_stat *all = standing(e) ? counts_now(e, &n) : NULL;

	if (!all)
		return;
	free(e->counted);
	e->counted = all;
	e->counted_n = n;
}

/* Those of rules that went are forgotten, as iptables' are. */
static void forget_counts(struct early *e)
{
	size_t kept = 0;

	for (size_t i = 0; i < e->counted_n; i++) {
		size_t k = 0;

		while (k < e->rules_n && !has_member(&e->rules[k], &e->counted[i]))
			k++;
		if (k < e->rules_n)
			e->counted[kept++] = e->counted[i];
	}
	e->counted_n = kept;
}

void early_add_counts(struct early *e, struct shield_stat *stats, size_t n)
{
	size_t all_n;
	struct shield_stat *all = counts_now(e, &all_n);

	for (size_t i = 0; all && i < all_n; i++) {
		for (size_t k = 0; k < n; k++) {
			if (stats[k].ipv6 != all[i].ipv6 || !has_member(&stats[k].rule, &all[i]))
				continue;
			add_stat(&stats[k], &all[i]);
			break;
		}
	}
	free(all);
}

/* --- The table ------------------------------------------------------------------------------ */

static void devices_find(const struct early *e, struct drop_devices *ret_on)
{
	const struct drop_ops *const ops = e->drop->ops;
	struct drop_devices on = { .n = 0 };
	size_t at = 0;
	uint32_t ifindex;

	while (on.n < ARRAY_SIZE(on.list) && (ifindex = netview_next_direct(e->view, &at))) {
		struct drop_device *d = &on.list[on.n];

		d->made = netview_link_made(e->view, ifindex);
		d->ifindex = ifindex;
		(void)snprintf(d->name, sizeof(d->name), "%s", netview_link_name(e->view, ifindex));
		if (!ops->takes || ops->takes(d))
			on.n++;
	}
	*ret_on = on;
}

static bool devices_equal(const struct drop_devices *a, const struct drop_devices *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		if (a->list[i].made != b->list[i].made ||
		    strcmp(a->list[i].name, b->list[i].name) != 0)
			return false;
	}
	return true;
}

/* All of it, a table that an earlier run left too. */
static int take_away(struct early *e, struct errmsg *ret_err)
{
	int rc = e->nft ? e->nft->ops->remove(e->nft, ret_err) : 0;

	if (!rc && e->bpf)
		rc = e->bpf->ops->remove(e->bpf, ret_err);
	if (rc)
		return rc;
	e->left = false;
	e->on.n = 0;
	return 0;
}

int early_remove(struct early *e, struct errmsg *ret_err)
{
	struct errmsg err;
	int rc;

	keep_counts(e);
	rc = take_away(e, &err);
	if (rc)
		return errmsg(ret_err, rc, "the early drop stays: %.300s", err.text);
	e->rules_n = 0;
	return 0;
}

/* One try, for the devices that there are. */
static int make(struct early *e, struct errmsg *ret_err)
{
	struct drop_devices on;
	const struct drop_wish wish = { e->rules, e->rules_n, &on, e->view };
	int rc;

	devices_find(e, &on);
	rc = e->drop->ops->set(e->drop, &wish, ret_err);
	if (!rc) {
		e->on = on;
		e->left &= e->drop != e->nft; /* that table is replaced; a program replaces none */
	}
	return rc;
}

/* Drops e->rules on the devices that there are, or takes all away: then there is trouble. -Exxx: it stands as it did.
 */
static int renew(struct early *e, struct errmsg *ret_err)
{
	enum { TRIES = 3 }; /* devices may vanish meanwhile */
	struct errmsg err;
	int rc = -EIO;

	if (!e->drop->ops->counts_last)
		keep_counts(e);
	forget_counts(e);
	for (unsigned i = 0; i < TRIES && rc; i++) {
		rc = make(e, &err);
		if (rc != -ENOENT)
			break;
	}
	if (!rc) {
		e->trouble.text[0] = 0;
		return 0;
	}
	e->trouble = err;
	if (e->drop->ops->counts_last) {
		keep_counts(e);
		forget_counts(e);
	}
	rc = take_away(e, &err);
	if (rc)
		return errmsg(ret_err, rc, "the early drop cannot be changed: %.300s", err.text);
	return 0;
}

static int set(struct early *e, const struct shield_rule *rules, size_t n, struct errmsg *ret_err)
{
	struct shield_rule *copy = calloc(n + 1, sizeof(*copy)), *before = e->rules;
	const size_t before_n = e->rules_n;
	int rc;

	if (!copy)
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	if (n)
		memcpy(copy, rules, n * sizeof(*copy));
	e->rules = copy;
	e->rules_n = n;
	rc = renew(e, ret_err);
	if (rc) {
		e->rules = before;
		e->rules_n = before_n;
		before = copy;
	}
	free(before);
	return rc;
}

static bool is_same(const struct shield_rule *a, const struct shield_rule *b)
{
	return addr_eq(&a->addr, &b->addr) && a->port_min == b->port_min &&
	       a->port_max == b->port_max;
}

static bool has_rule(const struct shield_rule *rules, size_t n, const struct shield_rule *r)
{
	for (size_t i = 0; i < n; i++) {
		if (is_same(&rules[i], r))
			return true;
	}
	return false;
}

static bool has_rules(const struct shield_rule *rules, size_t n, const struct shield_rule *others,
		      size_t others_n)
{
	for (size_t i = 0; i < others_n; i++) {
		if (!has_rule(rules, n, &others[i]))
			return false;
	}
	return true;
}

int early_shrink(struct early *e, const struct shield_rule *rules, size_t n, struct errmsg *ret_err)
{
	struct shield_rule *kept;
	size_t kept_n = 0;
	int rc;

	if (!e->drop || e->left)
		return early_remove(e, ret_err);
	if (has_rules(rules, n, e->rules, e->rules_n))
		return 0;
	kept = calloc(e->rules_n + 1, sizeof(*kept));
	if (!kept)
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	for (size_t i = 0; i < e->rules_n; i++) {
		if (has_rule(rules, n, &e->rules[i]))
			kept[kept_n++] = e->rules[i];
	}
	rc = set(e, kept, kept_n, ret_err);
	free(kept);
	return rc;
}

/* rules are no fewer than those that stand. */
static void grow(struct early *e, const struct shield_rule *rules, size_t n)
{
	struct shield_rule *all = calloc(e->rules_n + n + 1, sizeof(*all));
	size_t all_n = e->rules_n;
	struct errmsg err;

	if (all && all_n)
		memcpy(all, e->rules, all_n * sizeof(*all));
	for (size_t i = 0; all && i < n; i++) {
		if (!has_rule(all, all_n, &rules[i]))
			all[all_n++] = rules[i];
	}
	if (all && !e->trouble.text[0] && e->drop->ops->add &&
	    e->drop->ops->add(e->drop, all, all_n, e->rules_n)) {
		free(e->rules);
		e->rules = all;
		e->rules_n = all_n;
		return;
	}
	free(all);
	/* What stands already has no more than the rules have: it may stay. */
	if (set(e, rules, n, &err))
		e->trouble = err;
}

void early_grow(struct early *e, const struct shield_rule *rules, size_t n)
{
	if (e->drop && (e->trouble.text[0] || !has_rules(e->rules, e->rules_n, rules, n)))
		grow(e, rules, n);
}

/* --- Devices -------------------------------------------------------------------------------- */

int early_fd(const struct early *e)
{
	return e->view ? netview_fd(e->view) : -1;
}

void early_update(struct early *e)
{
	struct drop_devices on;
	struct errmsg err;
	bool moved;

	if (!e->drop)
		return;
	moved = netview_update(e->view, clock_monotonic_us()) && e->drop->ops->by_address;
	if (e->seen == netview_generation(e->view) && !moved)
		return;
	e->seen = netview_generation(e->view);
	devices_find(e, &on);
	if ((moved || !devices_equal(&on, &e->on)) && renew(e, &err))
		e->trouble = err;
}

/* --- Telling -------------------------------------------------------------------------------- */

const char *early_trouble(const struct early *e)
{
	return e->drop && e->trouble.text[0] ? e->trouble.text : NULL;
}

const char *early_name(const struct early *e)
{
	return e->name;
}

size_t early_devices(const struct early *e, const char *ret_names[static SHIELD_DEVICES])
{
	const size_t n = standing(e) ? e->on.n : 0;

	for (size_t i = 0; i < n; i++)
		ret_names[i] = e->on.list[i].name;
	return n;
}
