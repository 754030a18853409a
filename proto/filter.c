/* SPDX-License-Identifier: Apache-2.0 */
/* Filters over connections: a recursive-descent parser to a bounded tree, and its evaluation.
 *
 * A chain of and's or or's is one node with any number of children, so that depth is what the user
 * nests by "(" and "not", and neither parser nor evaluation recurses deeper than FILTER_DEPTH_MAX.
 */
#include "proto/filter.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/message.h"

enum { WORD_MAX = 64, NONE = UINT16_MAX };

enum compare { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE };

enum node_kind {
	NODE_AND,
	NODE_OR,
	NODE_NOT,
	NODE_STATE,
	NODE_HOST,
	NODE_PORT,
	NODE_NUMBER,
	NODE_WORD
};

struct host {
	uint8_t addr[16];
	uint8_t bits; /* of 128 that must be the same; 0 with any_host */
	bool any_host, any_port, v4;
	uint16_t port;
};

struct node {
	enum node_kind kind;
	enum compare compare;
	enum proto_field field; /* HOST, PORT: FIELD_LOCAL or FIELD_REMOTE */
	uint16_t child, next; /* indices of nodes; NONE */
	union {
		uint32_t states; /* a bit for each of state_names */
		struct host host;
		uint64_t number;
		char word[WORD_MAX];
	};
};

struct filter {
	size_t n;
	uint16_t root; /* NONE: everything matches */
	struct node nodes[];
};

static const struct field_info fields[FIELD__COUNT] = {
#define FIELD(e, akey, akind, aplace, aheading, ahelp) \
	[FIELD_##e] = { akey, KIND_##akind, PLACE_##aplace, aheading, ahelp },
#include "proto/fields.def"
#undef FIELD
};

/* In RFC 9293's order. */
static const char *const state_names[] = { "closed",       "listen",      "syn_sent",
					   "syn_received", "established", "fin_wait_1",
					   "fin_wait_2",   "close_wait",  "closing",
					   "last_ack",     "time_wait" };
enum {
	STATES_N = sizeof(state_names) / sizeof(state_names[0]),
	STATES_ALL = (1 << STATES_N) - 1,
	STATES_CONNECTED = STATES_ALL & ~3, /* not closed, not listen */
	STATES_SYNCHRONIZED = STATES_CONNECTED & ~(1 << 2),
	STATES_BUCKET = 1 << 3 | 1 << 10,
};

static const struct {
	const char *name;
	uint32_t states;
} state_groups[] = {
	{ "all", STATES_ALL },
	{ "connected", STATES_CONNECTED },
	{ "synchronized", STATES_SYNCHRONIZED },
	{ "bucket", STATES_BUCKET },
	{ "big", STATES_CONNECTED & ~STATES_BUCKET },
	{ "estab", 1 << 4 },
	{ "syn_recv", 1 << 3 },
	{ "unconnected", 1 << 0 },
	{ "listening", 1 << 1 },
};

enum token { TOK_END, TOK_OPEN, TOK_CLOSE, TOK_NOT, TOK_AND, TOK_OR, TOK_COMPARE, TOK_WORD };

struct parser {
	const char *text, *p; /* p: behind the token */
	const char *at; /* where the token begins */
	enum token token;
	enum compare compare;
	char word[FILTER_TEXT_MAX]; /* the token as it stands */
	unsigned depth;
	struct filter *f;
	struct proto_err *ret_err;
};

const struct field_info *field_get(enum proto_field f)
{
	return &fields[f];
}

static int fail(const struct parser *ps, const char *expected)
{
	const size_t character = (size_t)(ps->at - ps->text) + 1;

	if (ps->token == TOK_END)
		return proto_fail(ps->ret_err, PROTO_INVALID_PARAMS,
				  "filter: at its end: expected %s", expected);
	return proto_fail(ps->ret_err, PROTO_INVALID_PARAMS,
			  "filter: character %zu, \"%.64s\": expected %s", character, ps->word,
			  expected);
}

/* Operators of one or two characters; true and the token, or false. */
static bool next_operator(struct parser *ps)
{
	static const struct {
		const char *text;
		enum token token;
		enum compare compare;
	} operators[] = {
		{ "(", TOK_OPEN, 0 },          { ")", TOK_CLOSE, 0 },
		{ "&&", TOK_AND, 0 },          { "&", TOK_AND, 0 },
		{ "||", TOK_OR, 0 },           { "|", TOK_OR, 0 },
		{ "!=", TOK_COMPARE, CMP_NE }, { "!", TOK_NOT, 0 },
		{ "==", TOK_COMPARE, CMP_EQ }, { "=", TOK_COMPARE, CMP_EQ },
		{ "<=", TOK_COMPARE, CMP_LE }, { "<", TOK_COMPARE, CMP_LT },
		{ ">=", TOK_COMPARE, CMP_GE }, { ">", TOK_COMPARE, CMP_GT },
	};

	for (size_t i = 0; i < sizeof(operators) / sizeof(operators[0]); i++) {
		const size_t len = strlen(operators[i].text);

		if (strncmp(ps->p, operators[i].text, len))
			continue;
		memcpy(ps->word, operators[i].text, len + 1);
		ps->p += len;
		ps->token = operators[i].token;
		ps->compare = operators[i].compare;
		return true;
	}
	return false;
}

/* Words that are operators wherever no name or value is expected. */
static void name_operator(struct parser *ps)
{
	static const struct {
		const char *text;
		enum token token;
		enum compare compare;
	} names[] = {
		{ "and", TOK_AND, 0 },         { "or", TOK_OR, 0 },
		{ "not", TOK_NOT, 0 },         { "eq", TOK_COMPARE, CMP_EQ },
		{ "ne", TOK_COMPARE, CMP_NE }, { "lt", TOK_COMPARE, CMP_LT },
		{ "le", TOK_COMPARE, CMP_LE }, { "gt", TOK_COMPARE, CMP_GT },
		{ "ge", TOK_COMPARE, CMP_GE },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(ps->word, names[i].text)) {
			ps->token = names[i].token;
			ps->compare = names[i].compare;
		}
}

static int next(struct parser *ps)
{
	size_t len;

	ps->p += strspn(ps->p, " \t\r\n");
	ps->at = ps->p;
	ps->word[0] = '\0';
	ps->token = TOK_END;
	if (!*ps->p || next_operator(ps))
		return 0;
	len = strcspn(ps->p, " \t\r\n()&|!=<>");
	ps->token = TOK_WORD;
	if (len >= sizeof(ps->word)) {
		snprintf(ps->word, sizeof(ps->word), "%.40s...", ps->p);
		return fail(ps, "a shorter word");
	}
	memcpy(ps->word, ps->p, len);
	ps->word[len] = '\0';
	ps->p += len;
	name_operator(ps);
	return 0;
}

static int node_new(struct parser *ps, enum node_kind kind, uint16_t *ret_node)
{
	if (ps->f->n == FILTER_NODES_MAX)
		return proto_fail(ps->ret_err, PROTO_INVALID_PARAMS,
				  "filter: character %zu: more than %d terms and operators",
				  (size_t)(ps->at - ps->text) + 1, FILTER_NODES_MAX);
	ps->f->nodes[ps->f->n] = (struct node){ .kind = kind, .child = NONE, .next = NONE };
	*ret_node = (uint16_t)ps->f->n++;
	return 0;
}

/* Same but for case, and with dash or underscore. */
static bool key_eq(const char *a, size_t n, const char *b)
{
	size_t i = 0;

	for (; i < n && b[i]; i++) {
		const char x = a[i] == '-' ? '_' : (char)tolower((unsigned char)a[i]);
		const char y = b[i] == '-' ? '_' : (char)tolower((unsigned char)b[i]);

		if (x != y)
			return false;
	}
	return i == n && !b[i];
}

/* The bit of a state, or the bits of a group; 0: neither. */
static uint32_t state_bits(const char *name, size_t n)
{
	for (size_t i = 0; i < STATES_N; i++)
		if (key_eq(name, n, state_names[i]))
			return 1u << i;
	for (size_t i = 0; i < sizeof(state_groups) / sizeof(state_groups[0]); i++)
		if (key_eq(name, n, state_groups[i].name))
			return state_groups[i].states;
	return 0;
}

static int parse_states(struct parser *ps, bool exclude, uint16_t *ret_node)
{
	uint32_t states = 0;
	const char *p = ps->word;

	if (ps->token != TOK_WORD)
		return fail(ps, "a state");
	for (;;) {
		const size_t n = strcspn(p, ",");
		const uint32_t bits = state_bits(p, n);

		if (!bits)
			return fail(ps, "a state: established, syn-sent, syn-received, fin-wait-1, "
					"fin-wait-2, "
					"close-wait, closing, last-ack, time-wait, closed, listen, "
					"all, connected, "
					"synchronized, bucket, big");
		states |= bits;
		p += n;
		if (!*p)
			break;
		p++;
	}
	if (node_new(ps, NODE_STATE, ret_node))
		return -EINVAL;
	ps->f->nodes[*ret_node].states = exclude ? STATES_ALL & ~states : states;
	return next(ps);
}

static bool parse_port(const char *s, uint16_t *ret_port)
{
	unsigned port = 0;

	if (!*s || strlen(s) > 5 || s[strspn(s, "0123456789")])
		return false;
	for (; *s; s++)
		port = port * 10 + (unsigned)(*s - '0');
	if (port > UINT16_MAX)
		return false;
	*ret_port = (uint16_t)port;
	return true;
}

static bool parse_address(const char *s, size_t n, struct host *h)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	char text[INET6_ADDRSTRLEN];

	if (!n || n >= sizeof(text))
		return false;
	memcpy(text, s, n);
	text[n] = '\0';
	h->bits = 128;
	h->v4 = inet_pton(AF_INET, text, h->addr + 12) == 1;
	if (h->v4) {
		memcpy(h->addr, mapped, sizeof(mapped));
		return true;
	}
	if (inet_pton(AF_INET6, text, h->addr) != 1)
		return false;
	h->v4 = !memcmp(h->addr, mapped, sizeof(mapped));
	return true;
}

/* "/24" at *s, if there: the prefix's length. */
static bool parse_length(const char **s, struct host *h)
{
	const unsigned most = h->v4 ? 32 : 128;
	unsigned bits = 0, digits = 0;

	if (**s != '/')
		return true;
	for (++*s; isdigit((unsigned char)**s) && digits < 3; ++*s, digits++)
		bits = bits * 10 + (unsigned)(**s - '0');
	if (!digits || bits > most)
		return false;
	h->bits = (uint8_t)(128 - most + bits);
	return true;
}

/* HOST[/LEN][:PORT]: a.b.c.d, x::y (then without a port), [x::y], * or nothing. */
static bool parse_host(const char *s, struct host *h)
{
	const char *const first = strchr(s, ':');
	const bool bare6 = *s != '[' && first && strchr(first + 1, ':');
	const char *end;

	*h = (struct host){ .any_port = true };
	if (*s == '[') {
		end = strchr(s, ']');
		if (!end || !parse_address(s + 1, (size_t)(end - s - 1), h) ||
		    !memchr(s, ':', (size_t)(end - s)))
			return false;
		s = end + 1;
	} else {
		end = s + strcspn(s, bare6 ? "/" : "/:");
		h->any_host = end == s || (end == s + 1 && *s == '*');
		if (!h->any_host && !parse_address(s, (size_t)(end - s), h))
			return false;
		if (h->any_host && (end == s ? *end != ':' : *end == '/'))
			return false;
		s = end;
	}
	if (!parse_length(&s, h))
		return false;
	if (!*s)
		return true;
	h->any_port = !strcmp(s, ":*");
	return *s == ':' && (h->any_port || parse_port(s + 1, &h->port));
}

/* src and dst: the operator may be absent. */
static int parse_endpoint(struct parser *ps, enum proto_field field, uint16_t *ret_node)
{
	enum compare compare = CMP_EQ;
	struct host h;

	if (ps->token == TOK_COMPARE) {
		compare = ps->compare;
		if (compare != CMP_EQ && compare != CMP_NE)
			return fail(ps, "= or !=");
		if (next(ps))
			return -EINVAL;
	}
	if (ps->token != TOK_WORD || !parse_host(ps->word, &h))
		return fail(ps, "ADDR, ADDR/LEN, ADDR:PORT or [ADDR6]:PORT");
	if (node_new(ps, NODE_HOST, ret_node))
		return -EINVAL;
	ps->f->nodes[*ret_node].field = field;
	ps->f->nodes[*ret_node].compare = compare;
	ps->f->nodes[*ret_node].host = h;
	return next(ps);
}

static int parse_port_term(struct parser *ps, enum proto_field field, uint16_t *ret_node)
{
	enum compare compare = CMP_EQ;
	uint16_t port;

	if (ps->token == TOK_COMPARE) {
		compare = ps->compare;
		if (next(ps))
			return -EINVAL;
	}
	if (ps->token != TOK_WORD || !parse_port(ps->word + (ps->word[0] == ':'), &port))
		return fail(ps, "a port: 80 or :80");
	if (node_new(ps, NODE_PORT, ret_node))
		return -EINVAL;
	ps->f->nodes[*ret_node].field = field;
	ps->f->nodes[*ret_node].compare = compare;
	ps->f->nodes[*ret_node].number = port;
	return next(ps);
}

static const char *units_of(enum field_kind kind)
{
	switch (kind) {
	case KIND_COUNT:
		return "a number, with k, M or G";
	case KIND_BYTES:
		return "a number of octets, with k, M, G, KiB, MiB or GiB";
	case KIND_TIME:
	case KIND_INSTANT:
		return "a time, with us, ms, s, m, h or d (without: microseconds)";
	case KIND_ENDPOINT:
	case KIND_STATE:
	case KIND_WORD:
	case KIND_TEXT:
	case KIND_FLAG:
		break;
	}
	return "a number";
}

/* What the unit at s multiplies by; 0: it is none for this kind. */
static uint64_t unit_factor(const char *s, enum field_kind kind)
{
	static const struct {
		const char *name;
		uint64_t factor;
		bool time, count;
	} units[] = {
		{ "", 1, true, true },
		{ "us", 1, true, false },
		{ "ms", 1000, true, false },
		{ "s", 1000000, true, false },
		{ "m", UINT64_C(60000000), true, false },
		{ "h", UINT64_C(3600000000), true, false },
		{ "d", UINT64_C(86400000000), true, false },
		{ "k", 1000, false, true },
		{ "M", 1000000, false, true },
		{ "G", UINT64_C(1000000000), false, true },
		{ "KiB", 1 << 10, false, false },
		{ "MiB", 1 << 20, false, false },
		{ "GiB", 1 << 30, false, false },
	};
	const bool time = kind == KIND_TIME || kind == KIND_INSTANT;

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (!strcmp(s, units[i].name))
			return (time ? units[i].time
				     : units[i].count || (kind == KIND_BYTES && !units[i].time))
				       ? units[i].factor
				       : 0;
	return 0;
}

int proto_parse_number(const char *text, enum field_kind kind, uint64_t *ret_value,
		       struct proto_err *ret_err)
{
	uint64_t whole = 0, part = 0, scale = 1, factor;
	const char *s = text;
	bool fits = isdigit((unsigned char)*s);

	for (; isdigit((unsigned char)*s) && fits; s++) {
		whole = whole * 10 + (uint64_t)(*s - '0');
		fits = whole <= PROTO_NUMBER_MAX;
	}
	if (fits && *s == '.' && isdigit((unsigned char)s[1]))
		for (s++; isdigit((unsigned char)*s) && scale < 1000000; s++) {
			part = part * 10 + (uint64_t)(*s - '0');
			scale *= 10;
		}
	factor = unit_factor(s, kind);
	if (!fits || !factor || (scale > 1 && factor == 1))
		return proto_fail(ret_err, PROTO_INVALID_PARAMS, "\"%.64s\": expected %s", text,
				  units_of(kind));
	/* part < 10^6 and factor < 10^11: no overflow. */
	part = part * factor / scale;
	if (whole > PROTO_NUMBER_MAX / factor || whole * factor > PROTO_NUMBER_MAX - part)
		return proto_fail(ret_err, PROTO_INVALID_PARAMS, "\"%.64s\": larger than 2^53-1",
				  text);
	*ret_value = whole * factor + part;
	return 0;
}

static int parse_number_term(struct parser *ps, enum proto_field field, uint16_t *ret_node)
{
	enum compare compare;
	uint64_t number;

	if (ps->token != TOK_COMPARE)
		return fail(ps, "an operator: = != < <= > >=");
	compare = ps->compare;
	if (next(ps))
		return -EINVAL;
	if (ps->token != TOK_WORD ||
	    proto_parse_number(ps->word, fields[field].kind, &number, NULL))
		return fail(ps, units_of(fields[field].kind));
	if (node_new(ps, NODE_NUMBER, ret_node))
		return -EINVAL;
	ps->f->nodes[*ret_node].field = field;
	ps->f->nodes[*ret_node].compare = compare;
	ps->f->nodes[*ret_node].number = number;
	return next(ps);
}

static int parse_word_term(struct parser *ps, enum proto_field field, uint16_t *ret_node)
{
	enum compare compare = CMP_EQ;

	if (ps->token == TOK_COMPARE) {
		compare = ps->compare;
		if (compare != CMP_EQ && compare != CMP_NE)
			return fail(ps, "= or !=");
		if (next(ps))
			return -EINVAL;
	}
	if (ps->token != TOK_WORD || strlen(ps->word) >= WORD_MAX)
		return fail(ps, "a word");
	if (node_new(ps, NODE_WORD, ret_node))
		return -EINVAL;
	ps->f->nodes[*ret_node].field = field;
	ps->f->nodes[*ret_node].compare = compare;
	memcpy(ps->f->nodes[*ret_node].word, ps->word, strlen(ps->word) + 1);
	return next(ps);
}

static bool for_filters(enum proto_field f)
{
	switch (fields[f].kind) {
	case KIND_COUNT:
	case KIND_BYTES:
	case KIND_TIME:
	case KIND_INSTANT:
	case KIND_WORD:
		return true;
	case KIND_STATE:
		return f == FIELD_LAST_STATE; /* compared as a word; "state" has its own syntax */
	case KIND_ENDPOINT:
	case KIND_TEXT:
	case KIND_FLAG:
		return false;
	}
	return false;
}

/* No predicate begins with this word: which could have been meant? */
static int fail_name(struct parser *ps)
{
	static const char *const names[] = { "state", "exclude", "src", "dst",
					     "sport", "dport",   "not" };
	const char *candidates[FIELD__COUNT + sizeof(names) / sizeof(names[0])], *nearest;
	char expected[256];
	size_t n = 0;

	for (; n < sizeof(names) / sizeof(names[0]); n++)
		candidates[n] = names[n];
	for (size_t f = 0; f < FIELD__COUNT; f++)
		if (for_filters((enum proto_field)f))
			candidates[n++] = fields[f].key;
	nearest = ps->token == TOK_WORD ? proto_nearest(ps->word, n, candidates) : NULL;
	snprintf(expected, sizeof(expected),
		 "%s%sstate, exclude, src, dst, sport, dport, not, (, service, interface, or a key "
		 "such as "
		 "bytes_in or rtt_us",
		 nearest ? nearest : "", nearest ? "? Possible: " : "");
	return fail(ps, expected);
}

static int parse_predicate(struct parser *ps, uint16_t *ret_node)
{
	char name[FILTER_TEXT_MAX];

	if (ps->token != TOK_WORD)
		return fail_name(ps);
	memcpy(name, ps->word, sizeof(name));
	if (!strcmp(name, "state") || !strcmp(name, "exclude"))
		return next(ps) ? -EINVAL : parse_states(ps, name[0] == 'e', ret_node);
	if (!strcmp(name, "src") || !strcmp(name, "dst"))
		return next(ps) ? -EINVAL
				: parse_endpoint(ps, name[0] == 's' ? FIELD_LOCAL : FIELD_REMOTE,
						 ret_node);
	if (!strcmp(name, "sport") || !strcmp(name, "dport"))
		return next(ps) ? -EINVAL
				: parse_port_term(ps, name[0] == 's' ? FIELD_LOCAL : FIELD_REMOTE,
						  ret_node);
	for (size_t i = 0; i < FIELD__COUNT; i++) {
		const enum proto_field f = (enum proto_field)i;

		if (strcmp(name, fields[f].key) || !for_filters(f))
			continue;
		if (next(ps))
			return -EINVAL;
		if (fields[f].kind == KIND_WORD || fields[f].kind == KIND_STATE)
			return parse_word_term(ps, f, ret_node);
		return parse_number_term(ps, f, ret_node);
	}
	return fail_name(ps);
}

static int parse_or(struct parser *ps, uint16_t *ret_node);

static int parse_nested(struct parser *ps, uint16_t *ret_node)
{
	if (next(ps) || parse_or(ps, ret_node))
		return -EINVAL;
	if (ps->token != TOK_CLOSE)
		return fail(ps, "and, or, or )");
	return next(ps);
}

static int parse_term(struct parser *ps, uint16_t *ret_node)
{
	int rc;

	if (ps->token != TOK_NOT && ps->token != TOK_OPEN)
		return parse_predicate(ps, ret_node);
	if (ps->depth == FILTER_DEPTH_MAX)
		return proto_fail(ps->ret_err, PROTO_INVALID_PARAMS,
				  "filter: character %zu: nested deeper than %d",
				  (size_t)(ps->at - ps->text) + 1, FILTER_DEPTH_MAX);
	ps->depth++;
	if (ps->token == TOK_OPEN) {
		rc = parse_nested(ps, ret_node);
	} else {
		uint16_t child;

		rc = next(ps) || parse_term(ps, &child) || node_new(ps, NODE_NOT, ret_node)
			     ? -EINVAL
			     : 0;
		if (!rc)
			ps->f->nodes[*ret_node].child = child;
	}
	ps->depth--;
	return rc;
}

/* Puts a further operand behind `last` in the chain `*chain`, which is made with the second one. */
static int chain_add(struct parser *ps, enum node_kind kind, uint16_t *chain, uint16_t *last,
		     uint16_t node)
{
	if (*chain == *last) {
		const uint16_t first = *chain;

		if (node_new(ps, kind, chain))
			return -EINVAL;
		ps->f->nodes[*chain].child = first;
	}
	ps->f->nodes[*last].next = node;
	*last = node;
	return 0;
}

static int parse_and(struct parser *ps, uint16_t *ret_node)
{
	uint16_t chain, last, node;

	if (parse_term(ps, &chain))
		return -EINVAL;
	last = chain;
	while (ps->token != TOK_END && ps->token != TOK_CLOSE && ps->token != TOK_OR) {
		if (ps->token == TOK_COMPARE)
			return fail(ps, "and, or, not, or a further term");
		if (ps->token == TOK_AND && next(ps))
			return -EINVAL;
		if (parse_term(ps, &node) || chain_add(ps, NODE_AND, &chain, &last, node))
			return -EINVAL;
	}
	*ret_node = chain;
	return 0;
}

static int parse_or(struct parser *ps, uint16_t *ret_node)
{
	uint16_t chain, last, node;

	if (parse_and(ps, &chain))
		return -EINVAL;
	last = chain;
	while (ps->token == TOK_OR)
		if (next(ps) || parse_and(ps, &node) || chain_add(ps, NODE_OR, &chain, &last, node))
			return -EINVAL;
	*ret_node = chain;
	return 0;
}

static int parse_all(struct parser *ps)
{
	if (next(ps))
		return -EINVAL;
	if (ps->token == TOK_END)
		return 0;
	if (parse_or(ps, &ps->f->root))
		return -EINVAL;
	return ps->token == TOK_END ? 0 : fail(ps, "and, or, or the end");
}

int filter_parse(const char *text, struct filter **ret_filter, struct proto_err *ret_err)
{
	struct filter *const f = malloc(sizeof(*f) + FILTER_NODES_MAX * sizeof(f->nodes[0]));
	struct parser ps = { .text = text, .p = text, .at = text, .f = f, .ret_err = ret_err };
	struct filter *fit;

	if (!f)
		return proto_fail(ret_err, PROTO_INTERNAL_ERROR, "out of memory");
	f->n = 0;
	f->root = NONE;
	if (parse_all(&ps)) {
		free(f);
		return -EINVAL;
	}
	fit = realloc(f, sizeof(*f) + f->n * sizeof(f->nodes[0]));
	*ret_filter = fit ? fit : f;
	return 0;
}

static bool compare_numbers(uint64_t a, enum compare compare, uint64_t b)
{
	switch (compare) {
	case CMP_EQ:
		return a == b;
	case CMP_NE:
		return a != b;
	case CMP_LT:
		return a < b;
	case CMP_LE:
		return a <= b;
	case CMP_GT:
		return a > b;
	case CMP_GE:
		return a >= b;
	}
	return false;
}

/* Is the row's address in the node's? A prefix of one family holds no address of the other. */
static bool match_host(const struct host *h, const uint8_t addr[16], uint16_t port)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	const unsigned octets = h->bits / 8, bits = h->bits % 8;

	if (!h->any_port && port != h->port)
		return false;
	if (h->any_host)
		return true;
	if (h->v4 != !memcmp(addr, mapped, sizeof(mapped)) || memcmp(addr, h->addr, octets))
		return false;
	return !bits || !((addr[octets] ^ h->addr[octets]) >> (8 - bits));
}

static bool match_word(const struct node *n, const struct filter_row *row)
{
	const char *const text = row->get_text ? row->get_text(row->arg, n->field) : NULL;
	bool same = false;

	if (text && (n->field == FIELD_SERVICE || n->field == FIELD_INTERFACE))
		same = !strcmp(text, n->word);
	else if (text)
		same = key_eq(n->word, strlen(n->word), text);
	return same == (n->compare == CMP_EQ);
}

static bool match_node(const struct filter *f, uint16_t index, const struct filter_row *row)
{
	const struct node *const n = &f->nodes[index];
	const bool local = n->field == FIELD_LOCAL;
	uint64_t number;

	switch (n->kind) {
	case NODE_AND:
		for (uint16_t i = n->child; i != NONE; i = f->nodes[i].next)
			if (!match_node(f, i, row))
				return false;
		return true;
	case NODE_OR:
		for (uint16_t i = n->child; i != NONE; i = f->nodes[i].next)
			if (match_node(f, i, row))
				return true;
		return false;
	case NODE_NOT:
		return !match_node(f, n->child, row);
	case NODE_STATE:
		return row->state && (state_bits(row->state, strlen(row->state)) & n->states);
	case NODE_HOST:
		return match_host(&n->host, local ? row->local : row->remote,
				  local ? row->local_port : row->remote_port) ==
		       (n->compare == CMP_EQ);
	case NODE_PORT:
		return compare_numbers(local ? row->local_port : row->remote_port, n->compare,
				       n->number);
	case NODE_NUMBER:
		return row->get_number && row->get_number(row->arg, n->field, &number) &&
		       compare_numbers(number, n->compare, n->number);
	case NODE_WORD:
		return match_word(n, row);
	}
	return false;
}

bool filter_match(const struct filter *f, const struct filter_row *row)
{
	return !f || f->root == NONE || match_node(f, f->root, row);
}

void filter_free(struct filter *f)
{
	free(f);
}
