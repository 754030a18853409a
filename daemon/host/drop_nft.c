/* SPDX-License-Identifier: Apache-2.0 */
/* The early drop as a table of nftables. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "host/child.h"
#include "host/drop.h"
#include "host/earlytext.h"

enum { CHILD_LIMIT_MS = 10000 };

struct drop_nft {
	struct drop drop;
	const struct ruletext_names *names;
	char nft[CHILD_PROGRAM]; /* whole path */
	bool stands; /* the kernel has our table */
};

static struct drop_nft *self(struct drop *d)
{
	return (struct drop_nft *)d;
}

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
static int nft_run(struct drop_nft *d, char *const argv[], const char *input, char **ret_out,
		   struct errmsg *ret_err)
{
	struct child_result r;
	int rc = child_run(argv, input, CHILD_LIMIT_MS, &r);

	if (rc == -ETIME)
		return errmsg(ret_err, rc, "%s did not finish within %d s", d->nft,
			      CHILD_LIMIT_MS / 1000);
	if (rc)
		return errmsg(ret_err, rc, "%s: %s", d->nft, strerror(-rc));
	if (r.status) {
		rc = refusal(d->nft, r.err, r.status, ret_err);
	} else if (ret_out) {
		*ret_out = r.out;
		r.out = NULL;
	}
	child_result_fini(&r);
	return rc;
}

static int nft_load(struct drop_nft *d, const char *text, struct errmsg *ret_err)
{
	char file[] = "-f", input[] = "-";
	char *argv[] = { d->nft, file, input, NULL };

	return nft_run(d, argv, text, NULL, ret_err);
}

/* The kernel carries it out but for the last step. */
static int nft_check(struct drop_nft *d, const char *text, struct errmsg *ret_err)
{
	char check[] = "-c", file[] = "-f", input[] = "-";
	char *argv[] = { d->nft, check, file, input, NULL };

	return nft_run(d, argv, text, NULL, ret_err);
}

static bool nft_has_table(struct drop_nft *d)
{
	char list[] = "list", tables[] = "tables", netdev[] = "netdev";
	char *argv[] = { d->nft, list, tables, netdev, NULL }, *out;
	bool has;

	/* A kernel that cannot even list has none. */
	if (nft_run(d, argv, NULL, &out, NULL))
		return false;
	has = earlytext_is_listed(out, d->names);
	free(out);
	return has;
}

static char *nft_list(struct drop_nft *d)
{
	char numbers[] = "-n", list[] = "list", table[] = "table", netdev[] = "netdev";
	char name[RULETEXT_CHAIN], *out;
	char *argv[] = { d->nft, numbers, list, table, netdev, name, NULL };

	memcpy(name, d->names->early, sizeof(name));
	return nft_run(d, argv, NULL, &out, NULL) ? NULL : out;
}

/* --- The table ------------------------------------------------------------------------------ */

static char *table_text(const struct drop_nft *d, const struct shield_rule *rules, size_t n,
			const struct drop_devices *on)
{
	const char *names[SHIELD_DEVICES];
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	for (size_t i = 0; i < on->n; i++)
		names[i] = on->list[i].name;
	(void)earlytext_write(f, d->names, rules, n, names, on->n);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

/* Everything that a table may have, on lo, which is always there. It also makes the kernel load what is needed. */
static int nft_check_kernel(struct drop *drop, struct errmsg *ret_err)
{
	static const struct drop_devices lo = { .list = { { .ifindex = 1, .name = "lo" } },
						.n = 1 };
	struct drop_nft *const d = self(drop);
	struct shield_rule rules[] = { { addr_any, 7, 9 },
				       { addr_v4(127, 0, 0, 1), 7, 7 },
				       { .port_min = 7, .port_max = 7 } };
	struct errmsg err;
	char *text;
	int rc;

	rules[2].addr.b[15] = 1;
	text = table_text(d, rules, ARRAY_SIZE(rules), &lo);
	if (!text)
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	rc = nft_check(d, text, &err);
	free(text);
	return rc ? errmsg(ret_err, rc,
			   "Shield=ingress needs nftables 1.0 and a kernel with "
			   "CONFIG_NF_TABLES_NETDEV and CONFIG_NFT_FIB_NETDEV; use "
			   "Shield=iptables: %.300s",
			   err.text)
		  : 0;
}

/* Not one that went or has another name now, which makes nft fail; its event is under way. */
static bool nft_takes(const struct drop_device *device)
{
	return earlytext_can_name(device->name) && if_nametoindex(device->name) == device->ifindex;
}

static int nft_remove(struct drop *drop, struct errmsg *ret_err)
{
	struct drop_nft *const d = self(drop);
	struct errmsg err;
	char *text = NULL;
	size_t len;
	FILE *f;
	int rc;

	if (!d->stands)
		return 0;
	f = open_memstream(&text, &len);
	if (f)
		earlytext_write_remove(f, d->names);
	rc = !f || fclose(f) ? errmsg(&err, -ENOMEM, "shield: %s", strerror(ENOMEM))
			     : nft_load(d, text, &err);
	free(text);
	if (rc)
		return errmsg(ret_err, rc, "nftables' table netdev %s: %.300s", d->names->early,
			      err.text);
	d->stands = false;
	return 0;
}

static int nft_set(struct drop *drop, const struct drop_wish *wish, struct errmsg *ret_err)
{
	struct drop_nft *const d = self(drop);
	char *text = table_text(d, wish->rules, wish->rules_n, wish->on);
	int rc;

	if (!text)
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	if (*text) {
		rc = nft_load(d, text, ret_err);
		d->stands |= !rc;
	} else {
		rc = nft_remove(drop, ret_err);
	}
	free(text);
	return rc;
}

/* The table gets more members. */
static bool nft_add(struct drop *drop, const struct shield_rule *rules, size_t n, size_t from)
{
	struct drop_nft *const d = self(drop);
	char *text = NULL;
	size_t len;
	FILE *f = d->stands ? open_memstream(&text, &len) : NULL;
	bool can;

	if (!f)
		return false;
	can = earlytext_write_more(f, d->names, rules, n, from);
	can = !fclose(f) && can && (!*text || !nft_load(d, text, NULL));
	free(text);
	return can;
}

static bool nft_stands(const struct drop *drop)
{
	return ((const struct drop_nft *)drop)->stands;
}

static int nft_counts(struct drop *drop, struct shield_stat **ret_stats, size_t *ret_n)
{
	struct drop_nft *const d = self(drop);
	char *text = d->stands ? nft_list(d) : NULL;
	int rc = text ? earlytext_parse(text, ret_stats, ret_n) : -ENOENT;

	free(text);
	return rc;
}

static void nft_free(struct drop *drop)
{
	free(self(drop));
}

static const struct drop_ops nft_ops = {
	.check = nft_check_kernel,
	.takes = nft_takes,
	.set = nft_set,
	.add = nft_add,
	.remove = nft_remove,
	.stands = nft_stands,
	.counts = nft_counts,
	.free = nft_free,
};

int drop_nft_new(const struct ruletext_names *names, struct drop **ret_drop, struct errmsg *ret_err)
{
	struct drop_nft *d = calloc(1, sizeof(*d));

	if (!d)
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	if (!child_find_program("nft", d->nft)) {
		free(d);
		return errmsg(ret_err, -ENOENT,
			      "nft is needed for Shield=ingress and was not found: install "
			      "nftables, or use Shield=iptables");
	}
	d->drop.ops = &nft_ops;
	d->names = names;
	d->stands = nft_has_table(d);
	*ret_drop = &d->drop;
	return 0;
}
