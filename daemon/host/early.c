/* SPDX-License-Identifier: Apache-2.0 */
#include "early.h"

#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/macros.h"
#include "host/child.h"
#include "host/earlytext.h"
#include "host/netview.h"

enum { CHILD_LIMIT_MS = 10000 };

struct device {
	uint32_t ifindex; /* the name alone may come again with another device */
	char name[IF_NAMESIZE];
};

struct devices {
	struct device list[EARLYTEXT_DEVICES];
	size_t n;
};

struct early {
	const struct ruletext_names *names;
	char nft[CHILD_PROGRAM]; /* whole path */
	struct netview *links; /* NULL: not wanted */
	struct shield_rule *rules; /* to be dropped; never more than iptables' rules have */
	size_t rules_n;
	bool stands; /* the kernel has our table */
	bool left; /* by an earlier run: what it drops is not known */
	struct devices on; /* what it was made for */
	uint64_t seen; /* generation of links when it was last compared with them */
	struct errmsg trouble; /* text "": none */
	/* By members of tables that are replaced. */
	struct shield_stat *counted;
	size_t counted_n;
};

/* --- nft ------------------------------------------------------------------------------------ */

/* What nft's words mean: it has one exit status. */
static int refusal(const char *nft, char *words, int status, struct errmsg *ret_err)
{
	static const struct {
		const char *words;
		int rc;
		const char *advice;
	} known[] = {
		{ "Operation not permitted", -EPERM, "; the daemon needs CAP_NET_ADMIN" },
		{ "Operation not supported", -EOPNOTSUPP, "" },
		{ "Protocol not supported", -EOPNOTSUPP, "" },
		{ "No such file or directory", -ENOENT, "" },
		{ "syntax error", -EOPNOTSUPP, "" },
	};

	child_flatten(words);
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strstr(words, known[i].words))
			return errmsg(ret_err, known[i].rc, "%s: %.250s%s", nft, words,
				      known[i].advice);
	}
	return errmsg(ret_err, -EIO, "%s failed (status %d): %.300s", nft, status, words);
}

/* ret_out: what it printed, to be freed; NULL when nobody wants it. */
static int nft_run(struct early *e, char *const argv[], const char *input, char **ret_out,
		   struct errmsg *ret_err)
{
	struct child_result r;
	int rc = child_run(argv, input, CHILD_LIMIT_MS, &r);

	if (rc == -ETIME)
		return errmsg(ret_err, rc, "%s did not finish within %d s", e->nft,
			      CHILD_LIMIT_MS / 1000);
	if (rc)
		return errmsg(ret_err, rc, "%s: %s", e->nft, strerror(-rc));
	if (r.status) {
		rc = refusal(e->nft, r.err, r.status, ret_err);
	} else if (ret_out) {
		*ret_out = r.out;
		r.out = NULL;
	}
	child_result_fini(&r);
	return rc;
}

static int nft_load(struct early *e, const char *text, struct errmsg *ret_err)
{
	char file[] = "-f", input[] = "-";
	char *argv[] = { e->nft, file, input, NULL };

	return nft_run(e, argv, text, NULL, ret_err);
}

/* The kernel carries it out but for the last step. */
static int nft_check(struct early *e, const char *text, struct errmsg *ret_err)
{
	char check[] = "-c", file[] = "-f", input[] = "-";
	char *argv[] = { e->nft, check, file, input, NULL };

	return nft_run(e, argv, text, NULL, ret_err);
}

static bool nft_has_table(struct early *e)
{
	char list[] = "list", tables[] = "tables", netdev[] = "netdev";
	char *argv[] = { e->nft, list, tables, netdev, NULL }, *out;
	bool has;

	/* A kernel that cannot even list has none. */
	if (nft_run(e, argv, NULL, &out, NULL))
		return false;
	has = earlytext_is_listed(out, e->names);
	free(out);
	return has;
}

static char *nft_list(struct early *e)
{
	char numbers[] = "-n", list[] = "list", table[] = "table", netdev[] = "netdev";
	char name[RULETEXT_CHAIN], *out;
	char *argv[] = { e->nft, numbers, list, table, netdev, name, NULL };

	memcpy(name, e->names->early, sizeof(name));
	return nft_run(e, argv, NULL, &out, NULL) ? NULL : out;
}

/* --- Making and ending ---------------------------------------------------------------------- */

int early_new(const struct ruletext_names *names, struct early **ret_early, struct errmsg *ret_err)
{
	struct early *e = calloc(1, sizeof(*e));

	if (!e)
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	if (!child_find_program("nft", e->nft)) {
		early_free(e);
		return errmsg(ret_err, -ENOENT,
			      "nft is needed for Shield=ingress and was not found: install "
			      "nftables, or use Shield=iptables");
	}
	e->names = names;
	e->stands = e->left = nft_has_table(e);
	*ret_early = e;
	return 0;
}

void early_free(struct early *e)
{
	if (!e)
		return;
	netview_free(e->links);
	free(e->rules);
	free(e->counted);
	free(e);
}

static char *table_text(const struct early *e, const struct shield_rule *rules, size_t n,
			const struct devices *on)
{
	const char *names[EARLYTEXT_DEVICES];
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	for (size_t i = 0; i < on->n; i++)
		names[i] = on->list[i].name;
	(void)earlytext_write(f, e->names, rules, n, names, on->n);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

/* Everything that a table may have, on lo, which is always there. It also makes the kernel load what is needed. */
static int check_kernel(struct early *e, struct errmsg *ret_err)
{
	static const struct devices lo = { .list = { { .ifindex = 1, .name = "lo" } }, .n = 1 };
	struct shield_rule rules[] = { { addr_any, 7, 9 },
				       { addr_v4(127, 0, 0, 1), 7, 7 },
				       { .port_min = 7, .port_max = 7 } };
	struct errmsg err;
	char *text;
	int rc;

	rules[2].addr.b[15] = 1;
	text = table_text(e, rules, ARRAY_SIZE(rules), &lo);
	if (!text)
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	rc = nft_check(e, text, &err);
	free(text);
	return rc ? errmsg(ret_err, rc,
			   "Shield=ingress needs nftables 1.0 and a kernel with "
			   "CONFIG_NF_TABLES_NETDEV and CONFIG_NFT_FIB_NETDEV; use "
			   "Shield=iptables: %.300s",
			   err.text)
		  : 0;
}

int early_want(struct early *e, const char *const *only, struct errmsg *ret_err)
{
	const int rc = check_kernel(e, ret_err);

	return rc ? rc : netview_new_links(only, &e->links, ret_err);
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

/* What all tables have counted until now: this one and those before. Nothing that stands, or no memory: those before. */
static struct shield_stat *counts_now(struct early *e, size_t *ret_n)
{
	struct shield_stat *now = NULL, *all;
	char *text = e->stands ? nft_list(e) : NULL;
	size_t now_n = 0, n = e->counted_n;

	if (text && earlytext_parse(text, &now, &now_n))
		now_n = 0;
	free(text);
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

/* The table is about to be replaced or removed: its counts are ours to keep. */
static void keep_counts(struct early *e)
{
	size_t n;
	struct shield_stat *all = e->stands ? counts_now(e, &n) : NULL;

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

static void devices_find(const struct early *e, struct devices *ret_on)
{
	struct devices on = { .n = 0 };
	size_t at = 0;
	uint32_t ifindex;

	while (on.n < ARRAY_SIZE(on.list) && (ifindex = netview_next_direct(e->links, &at))) {
		struct device *d = &on.list[on.n];

		d->ifindex = ifindex;
		(void)snprintf(d->name, sizeof(d->name), "%s",
			       netview_link_name(e->links, ifindex));
		/* One that went or has another name now makes nft fail; its event is under way. */
		if (earlytext_can_name(d->name) && if_nametoindex(d->name) == ifindex)
			on.n++;
	}
	*ret_on = on;
}

static bool devices_equal(const struct devices *a, const struct devices *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		if (a->list[i].ifindex != b->list[i].ifindex ||
		    strcmp(a->list[i].name, b->list[i].name) != 0)
			return false;
	}
	return true;
}

static int take_away(struct early *e, struct errmsg *ret_err)
{
	char *text = NULL;
	size_t len;
	FILE *f;
	int rc;

	if (!e->stands)
		return 0;
	f = open_memstream(&text, &len);
	if (f)
		earlytext_write_remove(f, e->names);
	rc = !f || fclose(f) ? errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM))
			     : nft_load(e, text, ret_err);
	free(text);
	if (rc)
		return rc;
	e->stands = e->left = false;
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
		return errmsg(ret_err, rc,
			      "the early drop (nftables' table netdev %s) stays: %.300s",
			      e->names->early, err.text);
	e->rules_n = 0;
	return 0;
}

/* One try, for the devices that there are. */
static int make(struct early *e, struct errmsg *ret_err)
{
	struct devices on;
	char *text;
	int rc;

	devices_find(e, &on);
	text = table_text(e, e->rules, e->rules_n, &on);
	if (!text)
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	if (*text) {
		rc = nft_load(e, text, ret_err);
		e->stands |= !rc;
		e->left &= rc != 0;
	} else {
		rc = take_away(e, ret_err);
	}
	free(text);
	if (!rc)
		e->on = on;
	return rc;
}

/* Makes the table drop e->rules on the devices that there are, or takes it away: then there is trouble. -Exxx: it stands as
 * it did.
 */
static int renew(struct early *e, struct errmsg *ret_err)
{
	enum { TRIES = 3 }; /* devices may vanish meanwhile */
	struct errmsg err;
	int rc = -EIO;

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
	rc = take_away(e, &err);
	if (rc)
		return errmsg(
			ret_err, rc,
			"the early drop (nftables' table netdev %s) cannot be changed: %.300s",
			e->names->early, err.text);
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

	if (!e->links || e->left)
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

/* The table gets more members, when that is all. False: a new one is needed. */
static bool add_members(struct early *e, const struct shield_rule *all, size_t n)
{
	char *text = NULL;
	size_t len;
	FILE *f = e->stands && !e->trouble.text[0] ? open_memstream(&text, &len) : NULL;
	bool can;

	if (!f)
		return false;
	can = earlytext_write_more(f, e->names, all, n, e->rules_n);
	can = !fclose(f) && can && (!*text || !nft_load(e, text, NULL));
	free(text);
	return can;
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
	if (all && add_members(e, all, all_n)) {
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
	if (e->links && (e->trouble.text[0] || !has_rules(e->rules, e->rules_n, rules, n)))
		grow(e, rules, n);
}

/* --- Devices -------------------------------------------------------------------------------- */

int early_fd(const struct early *e)
{
	return e->links ? netview_fd(e->links) : -1;
}

void early_update(struct early *e)
{
	struct devices on;
	struct errmsg err;

	if (!e->links)
		return;
	(void)netview_update(e->links, clock_monotonic_us());
	if (e->seen == netview_generation(e->links))
		return;
	e->seen = netview_generation(e->links);
	devices_find(e, &on);
	if (!devices_equal(&on, &e->on) && renew(e, &err))
		e->trouble = err;
}

/* --- Telling -------------------------------------------------------------------------------- */

const char *early_trouble(const struct early *e)
{
	return e->links && e->trouble.text[0] ? e->trouble.text : NULL;
}

bool early_is_wanted(const struct early *e)
{
	return e->links;
}

size_t early_devices(const struct early *e, const char *ret_names[static EARLYTEXT_DEVICES])
{
	for (size_t i = 0; i < e->on.n && e->stands; i++)
		ret_names[i] = e->on.list[i].name;
	return e->stands ? e->on.n : 0;
}
