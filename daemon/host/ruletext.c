/* SPDX-License-Identifier: Apache-2.0 */
#include "ruletext.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/siphash.h"

#define CHAIN_PREFIX   "TCPFSMD-"
#define COMMENT_PREFIX "tcpfsmd "

enum { WORD_MAX = 512 };

static bool starts_with(const char *s, const char *prefix)
{
	return !strncmp(s, prefix, strlen(prefix));
}

int ruletext_names_init(struct ruletext_names *n, const char *tag)
{
	/* Not a secret: the same tag must give the same chain in every run. */
	static const uint64_t key[2] = { 0x7463706673746d64ULL, 0x736869656c643031ULL };
	const size_t len = strlen(tag);
	unsigned hash;

	if (len == 0 || len >= sizeof(n->tag))
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (tag[i] < ' ' || tag[i] > '~')
			return -EINVAL;
	}
	hash = (unsigned)(siphash(key, tag, len) & 0xffffffffU);
	memcpy(n->tag, tag, len + 1);
	(void)snprintf(n->in, sizeof(n->in), CHAIN_PREFIX "%08x-I", hash);
	(void)snprintf(n->out, sizeof(n->out), CHAIN_PREFIX "%08x-O", hash);
	(void)snprintf(n->early, sizeof(n->early), CHAIN_PREFIX "%08x-E", hash);
	(void)snprintf(n->comment, sizeof(n->comment), COMMENT_PREFIX "%s", tag);
	return 0;
}

/* --- Reading -------------------------------------------------------------------------------- */

/* The next word of a line, unquoted as iptables-save quotes: "..." with backslashes. Cut when it is
 * longer than the buffer: then it is none of ours. False at the end of the line.
 */
static bool next_word(const char **at, const char *end, char ret_word[static WORD_MAX])
{
	const char *p = *at;
	bool quoted = false;
	size_t n = 0;

	while (p < end && *p == ' ')
		p++;
	if (p == end)
		return false;
	for (; p < end && (quoted || *p != ' '); p++) {
		if (*p == '"') {
			quoted = !quoted;
			continue;
		}
		if (quoted && *p == '\\' && p + 1 < end)
			p++;
		if (n < WORD_MAX - 1)
			ret_word[n++] = *p;
	}
	ret_word[n] = 0;
	*at = p;
	return true;
}

/* A word that does not fit is left out: it cannot be one that we wrote. */
static void copy_word(char *dst, size_t size, const char *word)
{
	const size_t len = strlen(word);

	if (len < size)
		memcpy(dst, word, len + 1);
}

static bool parse_ports(const char *word, struct ruletext_rule *r)
{
	char *end;
	const unsigned long min = strtoul(word, &end, 10);
	const unsigned long max = *end == ':' ? strtoul(end + 1, &end, 10) : min;

	if (*end || min > max || max > UINT16_MAX)
		return false;
	r->port_min = (uint16_t)min;
	r->port_max = (uint16_t)max;
	return true;
}

static bool parse_dst(const char *word, struct ruletext_rule *r)
{
	unsigned len;

	if (prefix_parse(word, &r->dst, &len))
		return false;
	/* We write whole addresses alone; a network would be somebody's edit, taken as its address. */
	r->dst_any = len == 0;
	return true;
}

/* One option with its value. Options that do not matter to us are passed over. */
static bool parse_option(const char *option, const char *value, struct ruletext_rule *r)
{
	if (!strcmp(option, "-A"))
		copy_word(r->chain, sizeof(r->chain), value);
	else if (!strcmp(option, "-j") || !strcmp(option, "-g"))
		copy_word(r->target, sizeof(r->target), value);
	else if (!strcmp(option, "--comment"))
		copy_word(r->comment, sizeof(r->comment), value);
	else if (!strcmp(option, "-d"))
		return parse_dst(value, r);
	else if (!strcmp(option, "--dport"))
		return parse_ports(value, r);
	return true;
}

/* "[packets:bytes] -A CHAIN ..." or without counters. */
static int parse_rule(const char *line, const char *end, struct ruletext_rule *ret_rule)
{
	struct ruletext_rule r = { .dst_any = true, .port_max = UINT16_MAX };
	char option[WORD_MAX], value[WORD_MAX];
	const char *p = line;

	if (*p == '[') {
		char *q;

		r.packets = strtoull(p + 1, &q, 10);
		if (*q != ':')
			return -EINVAL;
		r.bytes = strtoull(q + 1, &q, 10);
		if (*q != ']' || q >= end)
			return -EINVAL;
		p = q + 1;
		while (p < end && *p == ' ')
			p++;
	}
	r.line = p;
	r.line_len = (size_t)(end - p);
	if (!starts_with(p, "-A ") || !next_word(&p, end, option))
		return -EINVAL;
	/* A word that begins with a dash opens an option; what follows is its first value. */
	while (next_word(&p, end, value)) {
		if (option[0] == '-' && !parse_option(option, value, &r))
			return -EINVAL;
		memcpy(option, value, sizeof(option));
	}
	*ret_rule = r;
	return 0;
}

static bool is_of_tcpfsmd(const struct ruletext_rule *r)
{
	return starts_with(r->comment, COMMENT_PREFIX) || starts_with(r->chain, CHAIN_PREFIX) ||
	       starts_with(r->target, CHAIN_PREFIX);
}

/* The array with room for one more, doubled when n is a power of two; NULL: no memory. */
static void *grow(void *array, size_t n, size_t item_bytes)
{
	if (n & (n - 1))
		return array;
	return reallocarray(array, n ? 2 * n : 1, item_bytes);
}

static int add_rule(struct ruletext_table *t, const char *line, const char *end)
{
	struct ruletext_rule r, *more;

	/* Rules of others may have any shape: those that we cannot read are not ours. */
	if (parse_rule(line, end, &r) || !is_of_tcpfsmd(&r))
		return 0;
	more = grow(t->rules, t->rules_n, sizeof(r));
	if (!more)
		return -ENOMEM;
	t->rules = more;
	t->rules[t->rules_n++] = r;
	return 0;
}

static int add_chain(struct ruletext_table *t, const char *line, const char *end)
{
	char word[WORD_MAX], (*more)[RULETEXT_CHAIN];
	const char *p = line + 1;

	if (!next_word(&p, end, word) || !starts_with(word, CHAIN_PREFIX))
		return 0;
	more = grow(t->chains, t->chains_n, sizeof(*more));
	if (!more)
		return -ENOMEM;
	t->chains = more;
	memset(t->chains[t->chains_n], 0, sizeof(*t->chains));
	copy_word(t->chains[t->chains_n++], sizeof(*t->chains), word);
	return 0;
}

int ruletext_parse(const char *text, struct ruletext_table *ret_table)
{
	struct ruletext_table t = { 0 };
	bool raw = false;
	int rc = 0;

	while (*text && !rc) {
		const size_t len = strcspn(text, "\n");
		const char *end = text + len;

		if (*text == '*')
			raw = len == 4 && starts_with(text, "*raw");
		else if (raw && *text == ':')
			rc = add_chain(&t, text, end);
		else if (raw && (*text == '[' || *text == '-'))
			rc = add_rule(&t, text, end);
		text = *end ? end + 1 : end;
	}
	if (rc) {
		ruletext_table_fini(&t);
		return rc;
	}
	*ret_table = t;
	return 0;
}

void ruletext_table_fini(struct ruletext_table *t)
{
	free(t->rules);
	free(t->chains);
	*t = (struct ruletext_table){ 0 };
}

bool ruletext_has_chain(const struct ruletext_table *t, const char *chain)
{
	for (size_t i = 0; i < t->chains_n; i++) {
		if (!strcmp(t->chains[i], chain))
			return true;
	}
	return false;
}

const char *ruletext_tag(const struct ruletext_rule *r)
{
	return starts_with(r->comment, COMMENT_PREFIX) ? r->comment + strlen(COMMENT_PREFIX) : NULL;
}

bool ruletext_in_family(const struct shield_rule *r, bool ipv6)
{
	return addr_eq(&r->addr, &addr_any) || addr_is_v4(&r->addr) != ipv6;
}

static bool overlaps(const struct ruletext_rule *r, const struct shield_rule *mine)
{
	if (r->port_min > mine->port_max || r->port_max < mine->port_min)
		return false;
	return r->dst_any || addr_is_any(&mine->addr) || addr_eq(&r->dst, &mine->addr);
}

const struct ruletext_rule *ruletext_conflict(const struct ruletext_table *t,
					      const struct ruletext_names *names,
					      const struct shield_rule *rules, size_t n, bool ipv6)
{
	for (size_t i = 0; i < t->rules_n; i++) {
		const struct ruletext_rule *r = &t->rules[i];
		const char *tag = ruletext_tag(r);

		if (!tag || !strcmp(tag, names->tag) || !starts_with(r->chain, CHAIN_PREFIX))
			continue;
		if (!strcmp(r->chain, names->in))
			return r; /* Two tags with one hash: they cannot both have the chain. */
		for (size_t k = 0; k < n && !strcmp(r->target, "DROP"); k++) {
			if (ruletext_in_family(&rules[k], ipv6) && overlaps(r, &rules[k]))
				return r;
		}
	}
	return NULL;
}

/* --- Writing -------------------------------------------------------------------------------- */

static void write_comment(FILE *f, const struct ruletext_names *names)
{
	(void)fputs(" -m comment --comment \"", f);
	for (const char *p = names->comment; *p; p++) {
		if (*p == '"' || *p == '\\')
			(void)fputc('\\', f);
		(void)fputc(*p, f);
	}
	(void)fputc('"', f);
}

/* dir: 'd' matches by destination, 's' by source. */
static void write_rule(FILE *f, const char *chain, const struct ruletext_names *names,
		       const struct shield_rule *r, char dir, const char *target)
{
	char text[ADDR_TEXT];

	(void)fprintf(f, "-A %s", chain);
	if (!addr_is_any(&r->addr))
		(void)fprintf(f, " -%c %s", dir, addr_format(&r->addr, text));
	(void)fprintf(f, " -p tcp -m addrtype --%s-type LOCAL -m tcp --%cport %u:%u",
		      dir == 'd' ? "dst" : "src", dir, r->port_min, r->port_max);
	write_comment(f, names);
	(void)fprintf(f, " -j %s\n", target);
}

static void write_jump(FILE *f, const char *verb, const char *base, const char *chain,
		       const struct ruletext_names *names)
{
	(void)fprintf(f, "%s %s -p tcp", verb, base);
	write_comment(f, names);
	(void)fprintf(f, " -j %s\n", chain);
}

/* A rule of ours outside our chains: a jump, or a leftover. */
static bool is_outside(const struct ruletext_rule *r, const struct ruletext_names *names)
{
	if (!strcmp(r->chain, names->in) || !strcmp(r->chain, names->out))
		return false;
	return !strcmp(r->comment, names->comment) || !strcmp(r->target, names->in) ||
	       !strcmp(r->target, names->out);
}

/* Is this the jump that we would write from `base`? */
static bool is_jump(const struct ruletext_rule *r, const struct ruletext_names *names,
		    const char *base, const char *chain)
{
	char line[WORD_MAX + RULETEXT_COMMENT];
	FILE *f;
	long n;

	if (strcmp(r->chain, base) != 0 || strcmp(r->target, chain) != 0)
		return false;
	f = fmemopen(line, sizeof(line), "w");
	if (!f)
		return false;
	write_jump(f, "-A", base, chain, names);
	n = ftell(f);
	(void)fclose(f);
	/* Without the line's end. */
	return n > 0 && (size_t)n - 1 == r->line_len && !memcmp(line, r->line, r->line_len);
}

static void write_delete(FILE *f, const struct ruletext_rule *r)
{
	(void)fprintf(f, "-D%.*s\n", (int)r->line_len - 2, r->line + 2);
}

/* One jump from base, no more: the first good one stays, all others go. */
static void write_jumps(FILE *f, const struct ruletext_names *names,
			const struct ruletext_table *now, const char *base, const char *chain)
{
	bool have = false;

	for (size_t i = 0; i < now->rules_n; i++) {
		const struct ruletext_rule *r = &now->rules[i];

		if (!is_outside(r, names) || strcmp(r->chain, base) != 0)
			continue;
		if (!have && is_jump(r, names, base, chain))
			have = true;
		else
			write_delete(f, r);
	}
	if (!have)
		write_jump(f, "-I", base, chain, names);
}

void ruletext_write_apply(FILE *f, const struct ruletext_names *names,
			  const struct ruletext_table *now, const struct shield_rule *rules,
			  size_t n, bool ipv6)
{
	/* Declaring a chain empties it: what follows fills it in the same transaction. */
	(void)fprintf(f, "*raw\n:%s - [0:0]\n:%s - [0:0]\n", names->in, names->out);
	for (size_t i = 0; i < n; i++) {
		if (!ruletext_in_family(&rules[i], ipv6))
			continue;
		write_rule(f, names->in, names, &rules[i], 'd', "DROP");
		write_rule(f, names->out, names, &rules[i], 's', "CT --notrack");
		/* Clients on this machine: their segments to us are no business of conntrack's either. */
		write_rule(f, names->out, names, &rules[i], 'd', "CT --notrack");
	}
	write_jumps(f, names, now, "PREROUTING", names->in);
	write_jumps(f, names, now, "OUTPUT", names->out);
	(void)fputs("COMMIT\n", f);
}

static bool had_jump(const struct ruletext_names *names, const struct ruletext_table *before,
		     const char *base, const char *chain)
{
	for (size_t i = 0; i < before->rules_n; i++) {
		if (is_jump(&before->rules[i], names, base, chain))
			return true;
	}
	return false;
}

static void write_undo_chain(FILE *f, const struct ruletext_names *names,
			     const struct ruletext_table *before, const char *base,
			     const char *chain)
{
	if (!had_jump(names, before, base, chain))
		write_jump(f, "-D", base, chain, names);
	if (!ruletext_has_chain(before, chain)) {
		(void)fprintf(f, "-F %s\n-X %s\n", chain, chain);
		return;
	}
	(void)fprintf(f, "-F %s\n", chain);
	for (size_t i = 0; i < before->rules_n; i++) {
		const struct ruletext_rule *r = &before->rules[i];

		if (!strcmp(r->chain, chain))
			(void)fprintf(f, "%.*s\n", (int)r->line_len, r->line);
	}
}

void ruletext_write_undo(FILE *f, const struct ruletext_names *names,
			 const struct ruletext_table *before)
{
	(void)fputs("*raw\n", f);
	write_undo_chain(f, names, before, "PREROUTING", names->in);
	write_undo_chain(f, names, before, "OUTPUT", names->out);
	(void)fputs("COMMIT\n", f);
}

bool ruletext_write_remove(FILE *f, const struct ruletext_names *names,
			   const struct ruletext_table *now)
{
	const char *chains[] = { names->in, names->out };
	bool any = false;

	for (size_t i = 0; i < now->rules_n && !any; i++)
		any = is_outside(&now->rules[i], names);
	for (size_t i = 0; i < ARRAY_SIZE(chains) && !any; i++)
		any = ruletext_has_chain(now, chains[i]);
	if (!any)
		return false;
	(void)fputs("*raw\n", f);
	for (size_t i = 0; i < now->rules_n; i++) {
		if (is_outside(&now->rules[i], names))
			write_delete(f, &now->rules[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(chains); i++) {
		if (ruletext_has_chain(now, chains[i]))
			(void)fprintf(f, "-F %s\n-X %s\n", chains[i], chains[i]);
	}
	(void)fputs("COMMIT\n", f);
	return true;
}
