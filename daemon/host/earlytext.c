/* SPDX-License-Identifier: Apache-2.0 */
#include "earlytext.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"

enum {
	COMMENT_MAX = 127, /* nft's limit */
	PORTS = 65536,
	TOKEN_MAX = 64, /* an address and more */
};

/* The four sets, by family and by whether they have addresses. */
static const char *const set_names[2][2] = { { "any4", "own4" }, { "any6", "own6" } };

/* --- Writing -------------------------------------------------------------------------------- */

bool earlytext_can_name(const char *device)
{
	for (const char *p = device; *p; p++) {
		if (!isgraph((unsigned char)*p) || strchr("\"\\*", *p))
			return false;
	}
	return *device;
}

/* nft knows no quote within quotes, and it is only for people. */
static void write_comment(FILE *f, const char *comment)
{
	(void)fputs("\tcomment \"", f);
	for (size_t i = 0; comment[i] && i < COMMENT_MAX; i++)
		(void)fputc(comment[i] == '"' ? '\'' : comment[i], f);
	(void)fputs("\"\n", f);
}

/* A set being written, or added to. */
struct writer {
	FILE *f;
	const char *table; /* that is added to; NULL: it is written */
	bool ipv6, own;
	size_t had, members; /* of the set as it stands; new ones, written */
};

static void write_head(const struct writer *w)
{
	const char *name = set_names[w->ipv6][w->own];

	if (w->table) {
		(void)fprintf(w->f, "add element netdev %s %s {\n", w->table, name);
		return;
	}
	(void)fprintf(w->f, "\tset %s {\n\t\ttype ", name);
	if (w->own)
		(void)fprintf(w->f, "%s . inet_service\n", w->ipv6 ? "ipv6_addr" : "ipv4_addr");
	else
		(void)fputs("inet_service\n\t\tflags interval\n", w->f);
	(void)fputs("\t\tcounter\n\t\telements = {\n", w->f);
}

static void write_separator(struct writer *w)
{
	if (w->members++)
		(void)fputs(",\n", w->f);
	else
		write_head(w);
	(void)fputs("\t\t\t", w->f);
}

static void write_tail(const struct writer *w)
{
	if (w->members)
		(void)fputs(w->table ? "\n}\n" : "\n\t\t}\n\t}\n", w->f);
}

/* Intervals must not overlap: a port is the first rule's that has it. Of the rules before `from` the members stand
 * already.
 */
static void write_any(struct writer *w, const struct shield_rule *rules, size_t n, size_t from)
{
	bool taken[PORTS] = { false };

	for (size_t i = 0; i < n; i++) {
		if (!addr_is_any(&rules[i].addr) || !ruletext_in_family(&rules[i], w->ipv6))
			continue;
		for (unsigned p = rules[i].port_min, q; p <= rules[i].port_max; p = q) {
			for (q = p; q <= rules[i].port_max && !taken[q]; q++)
				taken[q] = true;
			if (q == p) {
				q++;
				continue;
			}
			if (i < from) {
				w->had++;
				continue;
			}
			write_separator(w);
			(void)fprintf(w->f, "%u", p);
			if (q - 1 > p)
				(void)fprintf(w->f, "-%u", q - 1);
		}
	}
}

/* nft takes a member that is there twice for one. */
static void write_own(struct writer *w, const struct shield_rule *rules, size_t n, size_t from)
{
	char text[ADDR_TEXT];

	for (size_t i = 0; i < n; i++) {
		const struct shield_rule *r = &rules[i];

		if (addr_is_any(&r->addr) || !ruletext_in_family(r, w->ipv6) ||
		    r->port_min != r->port_max)
			continue;
		if (i < from) {
			w->had++;
			continue;
		}
		write_separator(w);
		(void)fprintf(w->f, "%s . %u", addr_format(&r->addr, text), r->port_min);
	}
}

/* False: the set was there without a member, and so is not there at all. */
static bool write_set(struct writer w, const struct shield_rule *rules, size_t n, size_t from)
{
	if (w.own)
		write_own(&w, rules, n, from);
	else
		write_any(&w, rules, n, from);
	write_tail(&w);
	return w.table ? w.had || !w.members : w.members;
}

/* Which sets a family has. */
struct family {
	bool ipv6, own, any;
};

/* With both, one after the other: most are in the one with addresses. */
static struct family write_family(FILE *f, const struct shield_rule *rules, size_t n, bool ipv6)
{
	struct writer w = { .f = f, .ipv6 = ipv6, .own = true };
	struct family have = { .ipv6 = ipv6, .own = write_set(w, rules, n, 0) };

	w.own = false;
	have.any = write_set(w, rules, n, 0);
	if (have.own && have.any)
		(void)fprintf(f,
			      "\tchain %s {\n\t\t%s daddr . tcp dport @%s drop\n"
			      "\t\ttcp dport @%s drop\n\t}\n",
			      ipv6 ? "ipv6" : "ipv4", ipv6 ? "ip6" : "ip", set_names[ipv6][true],
			      set_names[ipv6][false]);
	return have;
}

/* One rule for what all members have in common, the cheap questions first. nft asks for each protocol once
 * in a rule, but again in the next one.
 */
static void write_rule(FILE *f, const struct family *have, const char *type)
{
	const char *const ip = have->ipv6 ? "ip6" : "ip";

	if (!have->own && !have->any)
		return;
	(void)fprintf(f, "\t\t%s %s %s fib daddr type local ", type, ip,
		      have->ipv6 ? "ip6 nexthdr tcp" : "ip protocol tcp ip frag-off & 0x3fff == 0");
	if (have->own && have->any)
		(void)fprintf(f, "jump %s\n", have->ipv6 ? "ipv6" : "ipv4");
	else if (have->own)
		(void)fprintf(f, "%s daddr . tcp dport @%s drop\n", ip,
			      set_names[have->ipv6][true]);
	else
		(void)fprintf(f, "tcp dport @%s drop\n", set_names[have->ipv6][false]);
}

/* ether type of a tagged frame is the tag's. Without an Ethernet header there are no tags.
 * The last of all who hook here: others see what they see without us.
 */
static void write_chains(FILE *f, const struct family families[2], const char *const *devices,
			 size_t devices_n)
{
	(void)fputs("\tchain bare {\n", f);
	for (unsigned i = 0; i < 2; i++)
		write_rule(f, &families[i], "meta protocol");
	(void)fputs("\t}\n\tchain early {\n\t\ttype filter hook ingress devices = {", f);
	for (size_t i = 0; i < devices_n; i++)
		(void)fprintf(f, "%s \"%s\"", i ? "," : "", devices[i]);
	(void)fputs(" } priority 1000; policy accept;\n\t\tmeta pkttype != host accept\n", f);
	for (unsigned i = 0; i < 2; i++)
		write_rule(f, &families[i], "ether type");
	(void)fputs("\t\tmeta iiftype != ether jump bare\n\t}\n", f);
}

void earlytext_write_remove(FILE *f, const struct ruletext_names *names)
{
	(void)fprintf(f, "table netdev %s\ndelete table netdev %s\n", names->early, names->early);
}

static bool has_something(const struct shield_rule *rules, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (addr_is_any(&rules[i].addr) || rules[i].port_min == rules[i].port_max)
			return true;
	}
	return false;
}

bool earlytext_write(FILE *f, const struct ruletext_names *names, const struct shield_rule *rules,
		     size_t n, const char *const *devices, size_t devices_n)
{
	struct family families[2];

	if (!devices_n || !has_something(rules, n))
		return false;
	earlytext_write_remove(f, names);
	(void)fprintf(f, "table netdev %s {\n", names->early);
	write_comment(f, names->comment);
	families[0] = write_family(f, rules, n, false);
	families[1] = write_family(f, rules, n, true);
	write_chains(f, families, devices, devices_n);
	(void)fputs("}\n", f);
	return true;
}

bool earlytext_write_more(FILE *f, const struct ruletext_names *names,
			  const struct shield_rule *rules, size_t n, size_t from)
{
	bool can = true;

	for (unsigned i = 0; i < 4; i++) {
		const struct writer w = {
			.f = f, .table = names->early, .ipv6 = i / 2, .own = i % 2
		};

		can = write_set(w, rules, n, from) && can;
	}
	return can;
}

/* --- Reading -------------------------------------------------------------------------------- */

/* The next word; commas part words too, and quotes hold them together. False at the end. */
static bool next_token(const char **at, char ret_token[static TOKEN_MAX])
{
	static const char parts[] = " \t\n,";
	const char *p = *at + strspn(*at, parts);
	const size_t len = *p == '"' ? 1 + strcspn(p + 1, "\"") : strcspn(p, parts);

	*at = p + len + (*p == '"' && p[len]);
	if (!len)
		return false;
	/* Longer than any that matters: none of those. */
	(void)snprintf(ret_token, TOKEN_MAX, "%s", len < TOKEN_MAX ? "" : "?");
	if (len < TOKEN_MAX) {
		memcpy(ret_token, p, len);
		ret_token[len] = 0;
	}
	return true;
}

bool earlytext_is_listed(const char *text, const struct ruletext_names *names)
{
	char token[TOKEN_MAX];

	while (next_token(&text, token)) {
		if (!strcmp(token, names->early))
			return true;
	}
	return false;
}

static bool parse_ports(const char *token, struct shield_rule *r)
{
	char *end;
	unsigned long min, max;

	if (!isdigit((unsigned char)*token))
		return false;
	min = strtoul(token, &end, 10);
	max = *end == '-' ? strtoul(end + 1, &end, 10) : min;
	if (*end || min > max || max > UINT16_MAX)
		return false;
	r->port_min = (uint16_t)min;
	r->port_max = (uint16_t)max;
	return true;
}

/* Which of our sets is it? False: none. */
static bool parse_set(const char *token, bool *ret_ipv6, bool *ret_own)
{
	for (unsigned i = 0; i < 4; i++) {
		if (strcmp(token, set_names[i / 2][i % 2]) != 0)
			continue;
		*ret_ipv6 = i / 2;
		*ret_own = i % 2;
		return true;
	}
	return false;
}

/* A member's key, of which `token` is the first word. */
static bool parse_key(const char **at, const char *token, bool ipv6, bool own,
		      struct shield_stat *ret_stat)
{
	struct shield_stat s = { .ipv6 = ipv6 };
	char next[TOKEN_MAX];

	if (!own) {
		s.rule.addr = ipv6 ? addr_any : addr_any4;
		if (!parse_ports(token, &s.rule))
			return false;
	} else if (addr_parse(token, &s.rule.addr) || addr_is_v4(&s.rule.addr) == ipv6 ||
		   !next_token(at, next) || strcmp(next, ".") != 0 || !next_token(at, next) ||
		   !parse_ports(next, &s.rule)) {
		return false;
	}
	*ret_stat = s;
	return true;
}

/* "counter packets N bytes N" */
static bool parse_counter(const char **at, struct shield_stat *s)
{
	static const char *const words[] = { "counter", "packets", NULL, "bytes", NULL };
	uint64_t numbers[2], *number = numbers;
	char token[TOKEN_MAX], *end;

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (!next_token(at, token))
			return false;
		if (words[i]) {
			if (strcmp(token, words[i]) != 0)
				return false;
			continue;
		}
		*number++ = strtoull(token, &end, 10);
		if (*end)
			return false;
	}
	s->packets = s->early = numbers[0];
	s->bytes = numbers[1];
	return true;
}

static int add(struct shield_stat **stats, size_t *n, const struct shield_stat *s)
{
	struct shield_stat *more = *stats;

	/* Doubled when *n is a power of two. */
	if (!(*n & (*n - 1)))
		more = reallocarray(*stats, *n ? 2 * *n : 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	*stats = more;
	more[(*n)++] = *s;
	return 0;
}

/* The members of a set, from behind "elements = {" to "}". */
static int parse_members(const char **at, bool ipv6, bool own, struct shield_stat **stats,
			 size_t *n)
{
	char token[TOKEN_MAX];
	struct shield_stat s;
	int rc = 0;

	while (!rc && next_token(at, token) && strcmp(token, "}") != 0) {
		const char *behind = *at;

		/* What is no member is passed over word by word. */
		if (!parse_key(&behind, token, ipv6, own, &s) || !parse_counter(&behind, &s))
			continue;
		*at = behind;
		rc = add(stats, n, &s);
	}
	return rc;
}

int earlytext_parse(const char *text, struct shield_stat **ret_stats, size_t *ret_n)
{
	char token[TOKEN_MAX], before[TOKEN_MAX] = "";
	struct shield_stat *stats = NULL;
	bool ipv6 = false, own = false, ours = false;
	size_t n = 0;
	int rc = 0;

	while (!rc && next_token(&text, token)) {
		if (!strcmp(before, "set"))
			ours = parse_set(token, &ipv6, &own);
		else if (ours && !strcmp(before, "=") && !strcmp(token, "{"))
			rc = parse_members(&text, ipv6, own, &stats, &n);
		memcpy(before, token, sizeof(before));
	}
	if (rc) {
		free(stats);
		return rc;
	}
	*ret_stats = stats;
	*ret_n = n;
	return 0;
}
