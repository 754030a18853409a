/* SPDX-License-Identifier: Apache-2.0 */
#include "shrink.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	KIND_MAX = 200,
	TRIALS_MAX = 5000,
	SECONDS_MAX = 20,
	ONE_LOSS_MAX = 40,
	TWO_LOSSES_MAX = 16
};

/* Where the run writes to; -1: nobody shrinks. */
static int suffered_fd = -1;

void shrink_suffered(const struct net *n)
{
	if (suffered_fd < 0)
		return;
	const ssize_t rc = write(suffered_fd, n->suffered, n->suffered_n * sizeof(n->suffered[0]));

	(void)rc;
}

/* One run in a process of its own, and how it failed. */
struct trial {
	bool failed;
	char kind[KIND_MAX]; /* its words without numbers */
	uint32_t suffered[SUFFERED_MAX];
	size_t suffered_n;
};

/* The same failure has other numbers when the run is another. */
static void kind_of(const char *text, char kind[static KIND_MAX])
{
	size_t n = 0;

	for (; *text && *text != '\n' && n < KIND_MAX - 1; text++)
		if (!isdigit((unsigned char)*text))
			kind[n++] = *text;
	kind[n] = '\0';
}

static size_t read_all(int fd, void *to, size_t most)
{
	size_t n = 0;
	ssize_t got;

	while (n < most && (got = read(fd, (char *)to + n, most - n)) > 0)
		n += (size_t)got;
	return n;
}

__attribute__((noreturn)) static void child(const struct plan *p, shrink_run *run,
					    const int words[2], const int list[2])
{
	close(words[0]);
	close(list[0]);
	dup2(words[1], STDERR_FILENO);
	suffered_fd = list[1];
	/* What never ends is another failure than what is looked for. */
	alarm(SECONDS_MAX);
	run(p);
	_exit(0);
}

static void try_it(const struct plan *p, shrink_run *run, struct trial *ret)
{
	char text[4096];
	int words[2], list[2], status = 0;
	size_t n;

	/* The list is read last: a pipe holds all of it. */
	if (pipe(words) || pipe(list))
		abort();
	fflush(stdout);
	const pid_t pid = fork();

	if (pid == 0)
		child(p, run, words, list);
	close(words[1]);
	close(list[1]);
	n = read_all(words[0], text, sizeof(text) - 1);
	text[n] = '\0';
	n = read_all(list[0], ret->suffered, sizeof(ret->suffered));
	ret->suffered_n = n / sizeof(ret->suffered[0]);
	close(words[0]);
	close(list[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		abort();
	ret->failed = status != 0;
	kind_of(text, ret->kind);
}

struct search {
	struct plan best, next;
	struct trial first, last;
	shrink_run *run;
	unsigned trials;
	bool loud;
};

/* Does it still fail with `next`? Then that is the best there is. */
static bool better(struct search *s)
{
	if (s->trials++ >= TRIALS_MAX)
		return false;
	try_it(&s->next, s->run, &s->last);
	if (!s->last.failed || strcmp(s->last.kind, s->first.kind) != 0) {
		s->next = s->best;
		return false;
	}
	s->best = s->next;
	return true;
}

static bool fewer_things(struct search *s)
{
	bool any = false;

	for (unsigned k = 0; k < KNOB__COUNT; k++) {
		if (plan_without(&s->best, (enum knob)k))
			continue;
		s->next.no |= 1U << k;
		any |= better(s);
	}
	return any;
}

/* The least of a number, by halves and then by one. */
static bool less_of(struct search *s, uint64_t *next, const uint64_t *best, uint64_t most,
		    uint64_t least)
{
	bool any = false;

	if (*best > most) {
		*next = most;
		any |= better(s);
	}
	if (*best == UINT64_MAX)
		return any;
	for (uint64_t low = least; low < *best;) {
		*next = low + (*best - low) / 2;
		if (better(s))
			any = true;
		else
			low += (*best - low) / 2 + 1;
	}
	return any;
}

static void keep_only(struct plan *p, const uint32_t *list, size_t n)
{
	p->only = true;
	p->only_n = n < ONLY_MAX ? n : ONLY_MAX;
	memcpy(p->only_these, list, p->only_n * sizeof(*list));
}

static void leave_out(struct plan *p, size_t at, size_t n)
{
	memmove(p->only_these + at, p->only_these + at + n,
		(p->only_n - at - n) * sizeof(p->only_these[0]));
	p->only_n -= n;
}

/* Faults to fewer packets: halves, quarters, and so on, are left out. */
static bool fewer_faults(struct search *s)
{
	bool any = false;

	if (!s->best.only) {
		try_it(&s->best, s->run, &s->last);
		keep_only(&s->next, s->last.suffered, s->last.suffered_n);
		if (!better(s))
			return false;
		any = true;
	}
	for (size_t chunk = (s->best.only_n + 1) / 2; chunk;
	     chunk = chunk > 1 ? (chunk + 1) / 2 : 0)
		for (size_t at = 0; at < s->best.only_n;) {
			const size_t left = s->best.only_n - at;

			leave_out(&s->next, at, chunk < left ? chunk : left);
			if (better(s))
				any = true;
			else
				at += chunk;
		}
	return any;
}

/* The losses of one packet, or of two, among the first on a network that is otherwise good: a packet's place moves
 * when there is less of anything in front of it, so what is left out step by step seldom leads there.
 */
static bool just_a_loss(struct search *s, uint64_t stream)
{
	for (unsigned far = 0; far < ONE_LOSS_MAX; far++)
		for (unsigned near = far < TWO_LOSSES_MAX ? 0 : far; near <= far; near++) {
			s->next.mask = 1ULL << far | 1ULL << (far - near);
			s->next.stream = stream;
			s->next.only = false;
			s->next.only_n = 0;
			if (better(s))
				return true;
		}
	return false;
}

/* One packet's loss where two were needed, with everything left out at a time: without a thing that moves packets
 * (both sides open, say) another one's.
 */
static bool one_plain_loss(struct search *s)
{
	for (unsigned at = 0; at < TWO_LOSSES_MAX; at++) {
		s->next.mask = 1ULL << at;
		s->next.no = (1U << KNOB__COUNT) - 1;
		if (better(s))
			return true;
	}
	return false;
}

static bool fewer_losses(struct search *s)
{
	bool any = false;

	for (unsigned k = 0; k < 64; k++) {
		if (!(s->best.mask >> k & 1) || s->best.mask == 1ULL << k)
			continue;
		s->next.mask &= ~(1ULL << k);
		any |= better(s);
	}
	return any;
}

bool shrink(struct plan *p, shrink_run *run, bool loud)
{
	static struct search s;
	bool any = true;

	s = (struct search){ .best = *p, .next = *p, .run = run, .loud = loud };
	try_it(p, run, &s.first);
	if (!s.first.failed)
		return false;
	while (any && s.trials < TRIALS_MAX) {
		any = less_of(&s, &s.next.conns, &s.best.conns, 1, 1);
		any |= fewer_things(&s);
		any |= less_of(&s, &s.next.stream, &s.best.stream, 1 << 20, 0);
		any |= s.best.mask ? fewer_losses(&s) : fewer_faults(&s);
		if (s.best.stream)
			any |= just_a_loss(&s, 0);
		if (s.best.mask & (s.best.mask - 1))
			any |= one_plain_loss(&s);
		if (!s.best.mask && !any)
			any |= just_a_loss(&s, s.best.stream);
		if (loud) {
			fprintf(stderr, "%u runs: ", s.trials);
			plan_print(stderr, &s.best);
		}
	}
	*p = s.best;
	return true;
}
