/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const knobs[KNOB__COUNT] = {
#define KNOB(name, help) #name,
	KNOBS(KNOB)
#undef KNOB
};

static const char *const breaks[] = { "nothing", "lost-fin", "late-text" };

void plan_init(struct plan *p, uint64_t seed)
{
	memset(p, 0, sizeof(*p));
	p->seed = seed;
	p->conns = p->stream = UINT64_MAX;
}

bool plan_without(const struct plan *p, enum knob k)
{
	return p->no >> k & 1;
}

static int find(const char *const *names, int n, const char *word, size_t len)
{
	for (int i = 0; i < n; i++)
		if (strlen(names[i]) == len && !strncmp(names[i], word, len))
			return i;
	return -1;
}

static bool take_no(struct plan *p, const char *word)
{
	while (*word) {
		const size_t len = strcspn(word, ",");
		const int k = find(knobs, KNOB__COUNT, word, len);

		if (k < 0) {
			fprintf(stderr, "no=%s: there are", word);
			for (int i = 0; i < KNOB__COUNT; i++)
				fprintf(stderr, " %s", knobs[i]);
			fprintf(stderr, "\n");
			return false;
		}
		p->no |= 1U << k;
		word += len + (word[len] == ',');
	}
	return true;
}

static bool take_only(struct plan *p, const char *word)
{
	char *end;

	p->only = true;
	p->only_n = 0;
	if (!strcmp(word, "none"))
		return true;
	for (;; word = end + 1) {
		const unsigned long k = strtoul(word, &end, 10);

		if (end == word || (*end && *end != ',') || p->only_n == ONLY_MAX ||
		    k > UINT32_MAX || (p->only_n && k <= p->only_these[p->only_n - 1])) {
			fprintf(stderr, "only=: ascending numbers of packets, or none\n");
			return false;
		}
		p->only_these[p->only_n++] = (uint32_t)k;
		if (!*end)
			return true;
	}
}

static bool take_number(uint64_t *to, const char *word)
{
	char *end;

	*to = strtoull(word, &end, 0);
	return *word && !*end;
}

bool plan_word(struct plan *p, const char *word)
{
	const char *const value = strchr(word, '=');

	if (value && !strncmp(word, "conns=", 6))
		return take_number(&p->conns, value + 1) && p->conns;
	if (value && !strncmp(word, "stream=", 7))
		return take_number(&p->stream, value + 1);
	if (value && !strncmp(word, "mask=", 5))
		return take_number(&p->mask, value + 1);
	if (value && !strncmp(word, "no=", 3))
		return take_no(p, value + 1);
	if (value && !strncmp(word, "only=", 5))
		return take_only(p, value + 1);
	if (value && !strncmp(word, "break=", 6)) {
		const int k = find(breaks, sizeof(breaks) / sizeof(*breaks), value + 1,
				   strlen(value + 1));

		p->broken = (enum broken)(k < 0 ? 0 : k);
		return k >= 0;
	}
	fprintf(stderr, "%s: conns=N, stream=N, mask=N, no=THING,.. or only=PACKET,..\n", word);
	return false;
}

void plan_print(FILE *f, const struct plan *p)
{
	const char *before = " no=";

	fprintf(f, "sim %" PRIu64, p->seed);
	if (p->mask)
		fprintf(f, " mask=%#" PRIx64, p->mask);
	if (p->conns != UINT64_MAX)
		fprintf(f, " conns=%" PRIu64, p->conns);
	if (p->stream != UINT64_MAX)
		fprintf(f, " stream=%" PRIu64, p->stream);
	for (unsigned k = 0; k < KNOB__COUNT; k++)
		if (plan_without(p, (enum knob)k)) {
			fprintf(f, "%s%s", before, knobs[k]);
			before = ",";
		}
	if (p->only)
		fprintf(f, " only=%s", p->only_n ? "" : "none");
	for (size_t i = 0; i < p->only_n; i++)
		fprintf(f, "%s%" PRIu32, i ? "," : "", p->only_these[i]);
	if (p->broken)
		fprintf(f, " break=%s", breaks[p->broken]);
	fprintf(f, "\n");
}
