/* SPDX-License-Identifier: Apache-2.0 */
/* What iptables-save prints, with anybody's rules in it. The first octets say which instance we are and
 * what we own; the rest is the text. What is written for iptables-restore is read again: our chains and
 * jumps are there once, nothing of another's was touched, and taking it all away leaves nothing. The same text
 * taken for what nft lists; and what is written for nft, read again with its members counting, is within the rules.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "host/earlytext.h"
#include "host/ruletext.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RULES_MAX = 3, HEAD = 2 };

/* What a writer wrote, as text; the caller frees it. */
typedef void writer(FILE *f, const void *arg);

static char *written(writer *write, const void *arg)
{
	char *text = NULL;
	size_t len = 0;
	FILE *const f = open_memstream(&text, &len);

	assert(f);
	write(f, arg);
	assert(!fclose(f) && text && strlen(text) == len);
	return text;
}

struct job {
	struct ruletext_names names;
	struct ruletext_table now;
	struct shield_rule rules[RULES_MAX];
	size_t rules_n;
	bool ipv6, any;
};

static void apply(FILE *f, const void *arg)
{
	const struct job *const j = arg;

	ruletext_write_apply(f, &j->names, &j->now, j->rules, j->rules_n, j->ipv6);
}

static void undo(FILE *f, const void *arg)
{
	const struct job *const j = arg;

	ruletext_write_undo(f, &j->names, &j->now);
}

static void remove_all(FILE *f, const void *arg)
{
	const struct job *const j = arg;

	(void)ruletext_write_remove(f, &j->names, &j->now);
}

/* One table, whole lines, and each line a verb that iptables-restore knows. */
static void check_shape(const char *text)
{
	if (!*text)
		return;
	assert(!strncmp(text, "*raw\n", 5));
	assert(strlen(text) >= 7 && !strcmp(text + strlen(text) - 7, "COMMIT\n"));
	for (const char *p = text; *p; p = strchr(p, '\n') + 1)
		assert(*p == '*' || *p == ':' || *p == 'C' ||
		       (*p == '-' && strchr("AIDFX", p[1]) && p[1]));
}

/* Our own rules, as they stand after an apply onto nothing, are what was asked for. */
static void check_applied(const struct job *j, const char *text)
{
	struct ruletext_table t;
	size_t mine = 0, want = 0;

	assert(!ruletext_parse(text, &t));
	assert(ruletext_has_chain(&t, j->names.in) && ruletext_has_chain(&t, j->names.out));
	for (size_t i = 0; i < t.rules_n; i++) {
		const struct ruletext_rule *const r = &t.rules[i];

		if (strcmp(r->chain, j->names.in) != 0 || strcmp(r->target, "DROP") != 0)
			continue;
		assert(!strcmp(r->comment, j->names.comment));
		assert(!strcmp(ruletext_tag(r), j->names.tag));
		mine++;
	}
	for (size_t i = 0; i < j->rules_n; i++)
		want += ruletext_in_family(&j->rules[i], j->ipv6);
	assert(mine == want);
	/* One is not in one's own way. */
	assert(!ruletext_conflict(&t, &j->names, j->rules, j->rules_n, j->ipv6));
	ruletext_table_fini(&t);
}

/* nft lists members as they were written, each with its counter. */
static char *counting(const char *text)
{
	char *out = NULL;
	size_t len = 0;
	FILE *const f = open_memstream(&out, &len);

	assert(f);
	for (const char *p = text; *p; p += strcspn(p, "\n") + 1) {
		const int all = (int)strcspn(p, "\n");
		const bool member = !strncmp(p, "\t\t\t", 3);
		const bool comma = member && p[all - 1] == ',';

		(void)fprintf(f, "%.*s%s%s\n", all - comma, p,
			      member ? " counter packets 1 bytes 2" : "", comma ? "," : "");
	}
	assert(!fclose(f));
	return out;
}

static bool is_within(const struct job *j, const struct shield_stat *s)
{
	for (size_t i = 0; i < j->rules_n; i++) {
		const struct shield_rule *const r = &j->rules[i];

		if (ruletext_in_family(r, s->ipv6) && r->port_min <= s->rule.port_min &&
		    s->rule.port_max <= r->port_max &&
		    (addr_is_any(&r->addr) ? addr_is_any(&s->rule.addr)
					   : addr_eq(&r->addr, &s->rule.addr)))
			return true;
	}
	return false;
}

static void write_early(FILE *f, const void *arg)
{
	static const char *const devices[] = { "eth0" };
	const struct job *const j = arg;

	(void)earlytext_write(f, &j->names, j->rules, j->rules_n, devices, 1);
}

static void check_early(const struct job *j, const char *listed)
{
	char *const text = written(write_early, j), *const counted = counting(text);
	struct shield_stat *stats;
	size_t n, members = 0;

	assert(!earlytext_parse(listed, &stats, &n));
	free(stats);
	(void)earlytext_is_listed(listed, &j->names);
	assert(!earlytext_parse(counted, &stats, &n));
	for (const char *p = counted; (p = strstr(p, " counter packets ")); p++)
		members++;
	assert(n == members && (n > 0) == (*text != 0));
	assert(!*text || earlytext_is_listed(text, &j->names));
	for (size_t i = 0; i < n; i++)
		assert(is_within(j, &stats[i]) && stats[i].early == 1 && stats[i].bytes == 2);
	free(stats);
	free(counted);
	free(text);
}

static void choose(struct job *j, const uint8_t *head)
{
	static const char *const addresses[] = { "10.9.0.2", "::1", "2001:db8::2", "127.0.0.1" };
	static const char *const tags[] = { "/run/tcpfsmd", "/run/a b", "/x\"\\", "t" };

	assert(!ruletext_names_init(&j->names, tags[head[0] & 3]));
	j->ipv6 = head[0] & 4;
	j->rules_n = head[0] >> 3 & 3;
	for (size_t i = 0; i < j->rules_n; i++) {
		const unsigned port = head[1] * (unsigned)(i + 1) % 256 * 257;
		struct shield_rule *const r = &j->rules[i];

		r->addr = addr_any;
		if (head[0] >> (5 + i) & 1 && addr_parse(addresses[(head[1] + i) & 3], &r->addr))
			abort();
		r->port_min = (uint16_t)port;
		r->port_max = (uint16_t)(port + (port < 65000 ? head[0] & 15 : 0));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct ruletext_table nothing;
	struct job j = { .rules_n = 0 };
	char *save, *text;

	if (size < HEAD)
		return 0;
	choose(&j, data);
	save = calloc(1, size - HEAD + 1);
	assert(save);
	memcpy(save, data + HEAD, size - HEAD);
	assert(!ruletext_parse(save, &j.now));
	for (size_t i = 0; i < j.now.rules_n; i++) {
		const struct ruletext_rule *const r = &j.now.rules[i];

		assert(r->line >= save && r->line + r->line_len <= save + strlen(save));
		assert(!memchr(r->line, '\n', r->line_len) && !strncmp(r->line, "-A ", 3));
		assert(r->port_min <= r->port_max);
	}
	(void)ruletext_conflict(&j.now, &j.names, j.rules, j.rules_n, j.ipv6);
	check_early(&j, save);
	text = written(apply, &j);
	check_shape(text);
	free(text);
	text = written(undo, &j);
	check_shape(text);
	free(text);
	text = written(remove_all, &j);
	check_shape(text);
	free(text);
	ruletext_table_fini(&j.now);
	j.now = nothing;
	text = written(apply, &j);
	check_shape(text);
	check_applied(&j, text);
	free(text);
	free(save);
	return 0;
}
