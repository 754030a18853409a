/* SPDX-License-Identifier: Apache-2.0 */
/* Words and numbers of a script line. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "play.h"

/* The end of the word that starts at p. `<mss 1460>` and `"two words"` are one word; `<` alone is not
 * the start of options.
 */
static char *word_end(char *p)
{
	if (*p == '"') {
		p = strchr(p + 1, '"');
		if (!p)
			fail("a quote is not closed");
		return p + 1;
	}
	if (*p == '<' && p[1] != '<' && !isspace((unsigned char)p[1]) && p[1]) {
		p = strchr(p, '>');
		if (!p)
			fail("options are not closed");
		return p + 1;
	}
	while (*p && !isspace((unsigned char)*p))
		p++;
	return p;
}

void line_cut(struct line *l)
{
	char *p = l->words;

	memcpy(l->words, l->text, sizeof(l->text));
	l->argc = 0;
	for (;;) {
		while (isspace((unsigned char)*p))
			p++;
		if (!*p || *p == '#')
			return;
		if (l->argc == ARGS_MAX)
			fail("too many words");
		l->argv[l->argc++] = p;
		p = word_end(p);
		if (*p)
			*p++ = '\0';
	}
}

static uint64_t unit_of(const char *unit, const char *word, uint64_t plain)
{
	static const struct {
		const char *name;
		uint64_t factor;
	} units[] = {
		{ "us", 1 }, { "ms", 1000 }, { "s", 1000000 }, { "KiB", 1024 }, { "MiB", 1048576 },
	};

	if (!*unit)
		return plain;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (!strcmp(unit, units[i].name))
			return units[i].factor;
	fail("%s is no number", word);
}

uint64_t number(const char *word)
{
	char *end;
	const uint64_t n = word && isdigit((unsigned char)*word) ? strtoull(word, &end, 0) : 0;

	if (!word || !isdigit((unsigned char)*word))
		fail("a number should stand here, not %s", word ? word : "the end of the line");
	return n * unit_of(end, word, 1);
}

uint64_t duration(const char *word)
{
	char *end;
	const double n = strtod(word, &end);

	if (end == word || n < 0)
		fail("%s is no duration", word);
	return (uint64_t)(n * (double)unit_of(end, word, 1000000) + 0.5);
}

uint8_t flags_parse(const char *word)
{
	static const char letters[] = "FSRP.UEW";
	unsigned bits = 0;

	if (!strcmp(word, "-"))
		return 0;
	for (; *word; word++) {
		const char *at = strchr(letters, *word);

		if (!at)
			fail("%c is no flag", *word);
		bits |= 1U << (at - letters);
	}
	return (uint8_t)bits;
}

const char *value_of(const char *key)
{
	for (int i = 1; i + 1 < w.line.argc; i++)
		if (!strcmp(w.line.argv[i], key))
			return w.line.argv[i + 1];
	return NULL;
}

bool has_word(const char *key)
{
	for (int i = 1; i < w.line.argc; i++)
		if (!strcmp(w.line.argv[i], key))
			return true;
	return false;
}
