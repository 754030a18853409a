/* SPDX-License-Identifier: Apache-2.0 */
#include "shield.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "host/child.h"
#include "host/early.h"
#include "host/probe.h"
#include "host/ruletext.h"

enum { CHILD_LIMIT_MS = 10000, FAMILIES = 2 };

/* What there is for IPv4, or for IPv6. */
struct family {
	bool ipv6;
	bool usable; /* the programs are there and table raw answers */
	char save[CHILD_PROGRAM], restore[CHILD_PROGRAM]; /* whole paths */
	struct errmsg why; /* when not usable */
};

struct shield {
	struct ruletext_names names;
	struct family families[FAMILIES]; /* IPv4, IPv6 */
	struct shield_rule *applied; /* by the last shield_apply() of this object */
	size_t applied_n;
	/* What rules had counted when their chains were filled anew, which sets the kernel's counts to
	 * nothing. (iptables-restore -c could set them, but ip6tables 1.8.9 on nftables does not.) */
	struct shield_stat *counted;
	size_t counted_n;
	struct early *early;
};

/* A table as it stands, with the text that it points into. */
struct standing {
	struct child_result output;
	struct ruletext_table table;
};

static void standing_fini(struct standing *st)
{
	ruletext_table_fini(&st->table);
	child_result_fini(&st->output);
}

/* --- The programs --------------------------------------------------------------------------- */

/* What an exit status other than 0 means, from the words with it: iptables has no finer codes. */
static int refusal(const char *program, const char *words, int status, struct errmsg *ret_err)
{
	static const struct {
		const char *words;
		int rc;
		const char *advice;
	} known[] = {
		{ "lock file", -EPERM,
		  "; the daemon's user must be able to write it, or use iptables-nft" },
		{ "Permission denied", -EPERM, "; the daemon needs CAP_NET_ADMIN" },
		{ "must be root", -EPERM, "; the daemon needs CAP_NET_ADMIN" },
		{ "Operation not permitted", -EPERM, "; the daemon needs CAP_NET_ADMIN" },
		{ "xtables lock", -EBUSY, "" },
		{ "missing kernel module", -EOPNOTSUPP,
		  "; the kernel needs iptable_raw, xt_CT, xt_addrtype and xt_comment" },
		{ "No chain/target/match", -EOPNOTSUPP,
		  "; the kernel needs iptable_raw, xt_CT, xt_addrtype and xt_comment" },
		{ "Couldn't load", -EOPNOTSUPP, "; an extension of iptables is missing" },
		{ "does not exist", -EOPNOTSUPP,
		  "; the kernel needs iptable_raw, xt_CT, xt_addrtype and xt_comment" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strstr(words, known[i].words))
			return errmsg(ret_err, known[i].rc, "%s: %.250s%s", program, words,
				      known[i].advice);
	}
	return errmsg(ret_err, -EIO, "%s failed (status %d): %.300s", program, status, words);
}

/* Runs one of the programs; 0 only when it was content. */
static int program_run(char *const argv[], const char *input, struct child_result *ret_result,
		       struct errmsg *ret_err)
{
	struct child_result r;
	int rc = child_run(argv, input, CHILD_LIMIT_MS, &r);

	if (rc == -ETIME)
		return errmsg(ret_err, rc, "%s did not finish within %d s", argv[0],
			      CHILD_LIMIT_MS / 1000);
	if (rc)
		return errmsg(ret_err, rc, "%s: %s", argv[0], strerror(-rc));
	if (r.status) {
		child_flatten(r.err);
		rc = refusal(argv[0], r.err, r.status, ret_err);
		child_result_fini(&r);
		return rc;
	}
	*ret_result = r;
	return 0;
}

static int family_save(struct family *f, struct standing *ret_standing, struct errmsg *ret_err)
{
	char counters[] = "-c", table[] = "-t", raw[] = "raw";
	char *argv[] = { f->save, counters, table, raw, NULL };
	struct standing st = { 0 };
	int rc = program_run(argv, NULL, &st.output, ret_err);

	if (rc)
		return rc;
	rc = ruletext_parse(st.output.out, &st.table);
	if (rc) {
		child_result_fini(&st.output);
		return errmsg(ret_err, rc, "%s: %s", f->save, strerror(-rc));
	}
	*ret_standing = st;
	return 0;
}

/* -w: others may hold the lock of the old xtables for a moment. */
static int family_restore(struct family *f, const char *text, struct errmsg *ret_err)
{
	char wait[] = "-w", seconds[] = "5", noflush[] = "--noflush";
	char *argv[] = { f->restore, wait, seconds, noflush, NULL };
	struct child_result r;
	const int rc = program_run(argv, text, &r, ret_err);

	if (rc)
		return rc;
	child_result_fini(&r);
	return 0;
}

/* --- Making and ending ---------------------------------------------------------------------- */

/* Does the kernel have IPv6? And has it an address? */
static void ipv6_state(bool *ret_kernel, bool *ret_addresses)
{
	FILE *f = fopen("/proc/net/if_inet6", "re");

	*ret_kernel = f != NULL;
	*ret_addresses = f && fgetc(f) != EOF;
	if (f)
		(void)fclose(f);
}

static int family_init(struct family *f, bool ipv6, struct errmsg *ret_err)
{
	const char *const save = ipv6 ? "ip6tables-save" : "iptables-save";
	const char *const restore = ipv6 ? "ip6tables-restore" : "iptables-restore";
	struct standing st;
	int rc;

	f->ipv6 = ipv6;
	if (!child_find_program(save, f->save) || !child_find_program(restore, f->restore))
		return errmsg(ret_err, -ENOENT,
			      "%s and %s are needed for the shield and were not found: install "
			      "iptables, or use an address that no kernel owns and Shield=none",
			      save, restore);
	rc = family_save(f, &st, &f->why);
	if (rc && (rc == -EPERM || !ipv6))
		return errmsg(ret_err, rc, "%s", f->why.text);
	/* IPv6 without a table raw matters only when there is something of IPv6 to shield. */
	f->usable = !rc;
	if (!rc)
		standing_fini(&st);
	return 0;
}

int shield_new(const char *tag, struct shield **ret_shield, struct errmsg *ret_err)
{
	struct shield *s = calloc(1, sizeof(*s));
	bool kernel6, addresses6;
	int rc;

	if (!s)
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	rc = ruletext_names_init(&s->names, tag);
	if (rc)
		(void)errmsg(ret_err, rc,
			     "shield: the tag \"%.80s\" is not 1..%d printable ASCII characters",
			     tag, RULETEXT_TAG - 1);
	ipv6_state(&kernel6, &addresses6);
	if (!rc)
		rc = family_init(&s->families[0], false, ret_err);
	if (!rc && kernel6)
		rc = family_init(&s->families[1], true, ret_err);
	if (!rc)
		rc = early_new(&s->names, &s->early, ret_err);
	if (rc) {
		shield_free(s);
		return rc;
	}
	*ret_shield = s;
	return 0;
}

int shield_drop_early(struct shield *s, enum shield_by by, const char *const *only,
		      struct errmsg *ret_err)
{
	return early_want(s->early, by, only, ret_err);
}

void shield_free(struct shield *s)
{
	if (!s)
		return;
	early_free(s->early);
	free(s->applied);
	free(s->counted);
	free(s);
}

/* --- Counts --------------------------------------------------------------------------------- */

/* The rules of ours that drop, as they stand, in stats; room for rules_n of them. */
static size_t stats_of(const struct shield *s, const struct family *f,
		       const struct ruletext_table *t, struct shield_stat *stats)
{
	size_t n = 0;

	for (size_t i = 0; i < t->rules_n; i++) {
		const struct ruletext_rule *r = &t->rules[i];
		const struct ipaddr any = f->ipv6 ? addr_any : addr_any4;

		if (strcmp(r->chain, s->names.in) != 0 || strcmp(r->target, "DROP") != 0)
			continue;
		stats[n++] = (struct shield_stat){
			.rule = { r->dst_any ? any : r->dst, r->port_min, r->port_max },
			.ipv6 = f->ipv6,
			.packets = r->packets,
			.bytes = r->bytes,
		};
	}
	return n;
}

static void add_counted(const struct shield *s, struct shield_stat *stat)
{
	for (size_t i = 0; i < s->counted_n; i++) {
		const struct shield_stat *c = &s->counted[i];

		if (c->ipv6 != stat->ipv6 || c->rule.port_min != stat->rule.port_min ||
		    c->rule.port_max != stat->rule.port_max ||
		    !addr_eq(&c->rule.addr, &stat->rule.addr))
			continue;
		stat->packets += c->packets;
		stat->bytes += c->bytes;
		return;
	}
}

/* A family's chains were filled anew: its counts of before are ours to keep. Those of rules that
 * went are forgotten. Without memory they are lost, which hurts nobody else.
 */
static void keep_counts(struct shield *s, const struct family *f,
			const struct ruletext_table *before)
{
	struct shield_stat *kept = calloc(s->counted_n + before->rules_n + 1, sizeof(*kept));
	size_t n;

	if (!kept)
		return;
	n = stats_of(s, f, before, kept);
	for (size_t i = 0; i < n; i++)
		add_counted(s, &kept[i]);
	for (size_t i = 0; i < s->counted_n; i++) {
		if (s->counted[i].ipv6 != f->ipv6)
			kept[n++] = s->counted[i];
	}
	free(s->counted);
	s->counted = kept;
	s->counted_n = n;
}

/* --- Applying ------------------------------------------------------------------------------- */

static int conflict_message(const struct family *f, const struct ruletext_rule *r,
			    struct errmsg *ret_err)
{
	const char *tables = f->ipv6 ? "ip6tables" : "iptables";
	char addr[ADDR_TEXT], ports[16];

	if (r->port_min == r->port_max)
		(void)snprintf(ports, sizeof(ports), "%u", r->port_min);
	else
		(void)snprintf(ports, sizeof(ports), "%u-%u", r->port_min, r->port_max);
	return errmsg(
		ret_err, -EADDRINUSE,
		"%s port %s is owned by another tcpfsmd, \"%.80s\" (chain %s in %s' table raw); "
		"if that one is gone for good: %s-save -t raw | grep -v %.*s | %s-restore",
		r->dst_any ? "any address," : addr_format(&r->dst, addr), ports, ruletext_tag(r),
		r->chain, tables, tables, (int)strlen(r->chain) - 2, r->chain, tables);
}

static char *apply_text(const struct shield *s, const struct ruletext_table *now,
			const struct shield_rule *rules, size_t n, bool ipv6)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	ruletext_write_apply(f, &s->names, now, rules, n, ipv6);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

static int family_apply(struct shield *s, struct family *f, const struct standing *before,
			const struct shield_rule *rules, size_t n, struct errmsg *ret_err)
{
	char *text = apply_text(s, &before->table, rules, n, f->ipv6);
	int rc;

	if (!text)
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	rc = family_restore(f, text, ret_err);
	free(text);
	if (!rc)
		keep_counts(s, f, &before->table);
	return rc;
}

/* Puts a family back. A failure of this too is added to the message that is there already. */
static void family_undo(const struct shield *s, struct family *f, const struct standing *before,
			struct errmsg *err)
{
	struct errmsg more;
	char *text = NULL;
	size_t len, at;
	FILE *m = open_memstream(&text, &len);
	int rc = -ENOMEM;

	if (m) {
		ruletext_write_undo(m, &s->names, &before->table);
		rc = fclose(m) ? -ENOMEM : family_restore(f, text, &more);
	}
	free(text);
	if (!rc || !err)
		return;
	at = strlen(err->text);
	(void)snprintf(err->text + at, sizeof(err->text) - at,
		       "; and the %s rules could not be put back", f->ipv6 ? "IPv6" : "IPv4");
}

/* Rules of a family that cannot be shielded: refused, unless the machine has nothing of it. */
static int check_unusable(const struct family *f, const struct shield_rule *rules, size_t n,
			  struct errmsg *ret_err)
{
	bool kernel6, addresses6;

	ipv6_state(&kernel6, &addresses6);
	for (size_t i = 0; i < n && addresses6; i++) {
		if (ruletext_in_family(&rules[i], true))
			return errmsg(ret_err, -EOPNOTSUPP, "IPv6 cannot be shielded: %.400s",
				      f->why.text[0] ? f->why.text
						     : "it was switched on after the start");
	}
	return 0;
}

/* Reads what stands and looks for others' rules, for every family, before anything changes. */
static int look(struct shield *s, const struct shield_rule *rules, size_t n,
		struct standing before[FAMILIES], struct errmsg *ret_err)
{
	int rc = 0;

	for (int i = 0; i < FAMILIES && !rc; i++) {
		struct family *f = &s->families[i];
		const struct ruletext_rule *r;

		if (!f->usable) {
			rc = check_unusable(f, rules, n, ret_err);
			continue;
		}
		rc = family_save(f, &before[i], ret_err);
		if (rc)
			continue;
		r = ruletext_conflict(&before[i].table, &s->names, rules, n, f->ipv6);
		if (r)
			rc = conflict_message(f, r, ret_err);
	}
	return rc;
}

static int change(struct shield *s, const struct shield_rule *rules, size_t n,
		  const struct standing before[FAMILIES], struct errmsg *ret_err)
{
	for (int i = 0; i < FAMILIES; i++) {
		struct family *f = &s->families[i];
		int rc;

		if (!f->usable)
			continue;
		rc = family_apply(s, f, &before[i], rules, n, ret_err);
		if (!rc)
			continue;
		while (i-- > 0) {
			if (s->families[i].usable)
				family_undo(s, &s->families[i], &before[i], ret_err);
		}
		return rc;
	}
	return 0;
}

/* What drops early never has more than the rules, not while they change either. */
static int change_all(struct shield *s, const struct shield_rule *rules, size_t n,
		      const struct standing before[FAMILIES], struct errmsg *ret_err)
{
	int rc = early_shrink(s->early, rules, n, ret_err);

	if (rc)
		return rc;
	rc = change(s, rules, n, before, ret_err);
	if (!rc)
		early_grow(s->early, rules, n);
	else
		early_grow(s->early, s->applied, s->applied_n);
	return rc;
}

static int check_rules(const struct shield_rule *rules, size_t n, struct errmsg *ret_err)
{
	for (size_t i = 0; i < n; i++) {
		if (rules[i].port_min == 0 || rules[i].port_min > rules[i].port_max)
			return errmsg(ret_err, -EINVAL, "shield: %u-%u is no range of ports",
				      rules[i].port_min, rules[i].port_max);
	}
	return 0;
}

int shield_apply(struct shield *s, const struct shield_rule *rules, size_t n,
		 struct errmsg *ret_err)
{
	struct standing before[FAMILIES] = { 0 };
	struct shield_rule *copy;
	int rc = check_rules(rules, n, ret_err);

	if (rc)
		return rc;
	copy = calloc(n ? n : 1, sizeof(*copy));
	if (!copy)
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	if (n)
		memcpy(copy, rules, n * sizeof(*copy));
	rc = look(s, rules, n, before, ret_err);
	if (!rc)
		rc = change_all(s, rules, n, before, ret_err);
	for (int i = 0; i < FAMILIES; i++)
		standing_fini(&before[i]);
	if (rc) {
		free(copy);
		return rc;
	}
	free(s->applied);
	s->applied = copy;
	s->applied_n = n;
	return 0;
}

/* --- Removing, listing, testing ------------------------------------------------------------- */

static int family_remove(const struct shield *s, struct family *f, struct errmsg *ret_err)
{
	struct standing now;
	char *text = NULL;
	size_t len;
	bool any = false;
	FILE *m;
	int rc = family_save(f, &now, ret_err);

	if (rc)
		return rc;
	m = open_memstream(&text, &len);
	if (m)
		any = ruletext_write_remove(m, &s->names, &now.table);
	if (!m || fclose(m))
		rc = errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	else if (any)
		rc = family_restore(f, text, ret_err);
	free(text);
	standing_fini(&now);
	return rc;
}

int shield_remove(struct shield *s, struct errmsg *ret_err)
{
	int first = early_remove(s->early, ret_err);

	if (first)
		return first;
	/* A failure in one family is no reason to leave the other's rules. */
	for (int i = 0; i < FAMILIES; i++) {
		int rc;

		if (!s->families[i].usable)
			continue;
		rc = family_remove(s, &s->families[i], first ? NULL : ret_err);
		if (!first)
			first = rc;
	}
	if (!first)
		s->applied_n = s->counted_n = 0;
	return first;
}

static int family_list(const struct shield *s, struct family *f, struct shield_stat **stats,
		       size_t *n, struct errmsg *ret_err)
{
	struct standing now;
	struct shield_stat *more;
	size_t added;
	int rc = family_save(f, &now, ret_err);

	if (rc)
		return rc;
	more = reallocarray(*stats, *n + now.table.rules_n + 1, sizeof(*more));
	if (!more) {
		standing_fini(&now);
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	}
	*stats = more;
	added = stats_of(s, f, &now.table, more + *n);
	for (size_t i = 0; i < added; i++)
		add_counted(s, &more[*n + i]);
	*n += added;
	standing_fini(&now);
	return 0;
}

int shield_list(struct shield *s, struct shield_stat **ret_stats, size_t *ret_n,
		struct errmsg *ret_err)
{
	struct shield_stat *stats = NULL;
	size_t n = 0;

	for (int i = 0; i < FAMILIES; i++) {
		int rc;

		if (!s->families[i].usable)
			continue;
		rc = family_list(s, &s->families[i], &stats, &n, ret_err);
		if (rc) {
			free(stats);
			return rc;
		}
	}
	early_add_counts(s->early, stats, n);
	*ret_stats = stats;
	*ret_n = n;
	return 0;
}

int shield_fd(const struct shield *s)
{
	return early_fd(s->early);
}

void shield_update(struct shield *s)
{
	early_update(s->early);
}

void shield_early(const struct shield *s, struct shield_early *ret_early)
{
	struct shield_early e = { .name = early_name(s->early) };

	if (e.name) {
		e.trouble = early_trouble(s->early);
		e.devices_n = early_devices(s->early, e.devices);
	}
	*ret_early = e;
}

/* Is this port at the family's loopback address under a rule that we applied? */
static bool is_shielded(const struct shield *s, bool ipv6, uint16_t port)
{
	static const struct ipaddr one = { { [15] = 1 } };
	const struct ipaddr lo = ipv6 ? one : addr_v4(127, 0, 0, 1);

	for (size_t i = 0; i < s->applied_n; i++) {
		const struct shield_rule *r = &s->applied[i];

		if (addr_matches(&r->addr, &lo) && r->port_min <= port && port <= r->port_max)
			return true;
	}
	return false;
}

int shield_self_test(struct shield *s, uint16_t port_a, uint16_t port_b, struct errmsg *ret_err)
{
	/* A port that no rule covers is tested in both families: the answer is then the kernel's. */
	const bool covered = is_shielded(s, false, port_a) || is_shielded(s, true, port_a);

	if (!probe_is_up(false))
		return errmsg(ret_err, -ENETDOWN, "lo is down: the shield could not be tested");
	for (int i = 0; i < FAMILIES; i++) {
		const bool ipv6 = i == 1;
		int rc;

		if (!probe_is_up(ipv6) || (covered && !is_shielded(s, ipv6, port_a)))
			continue;
		rc = probe_loopback(ipv6, port_a, port_b, ret_err);
		if (rc)
			return rc;
	}
	return 0;
}
