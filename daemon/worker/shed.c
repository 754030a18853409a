/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/shed.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/siphash.h"

enum { WORD_BITS = 64, HALVINGS_MAX = 16, MAGNITUDES = 14 };
/* Of all networks lately. */
enum { CAN_BE_ANSWERED = SHED_FEW * SHED_COUNT_TURNS };
static_assert(CAN_BE_ANSWERED < 1 << MAGNITUDES, "a network that sent more has no part in it");

static int set_init(struct shed_set *s, uint32_t bits, uint64_t turn_us)
{
	*s = (struct shed_set){ .bits = bits, .turn_us = turn_us };
	s->newer = calloc(bits / WORD_BITS, sizeof(*s->newer));
	s->older = calloc(bits / WORD_BITS, sizeof(*s->older));
	return s->newer && s->older ? 0 : -ENOMEM;
}

static void set_fini(struct shed_set *s)
{
	free(s->newer);
	free(s->older);
	*s = (struct shed_set){ 0 };
}

/* What is older than twice turn_us is forgotten, and some that is younger. */
static void set_turn(struct shed_set *s, uint64_t now_us)
{
	uint64_t *const oldest = s->older;

	if (now_us - s->turned_us < s->turn_us)
		return;
	if (now_us - s->turned_us >= 2 * s->turn_us)
		memset(s->newer, 0, s->bits / 8);
	memset(oldest, 0, s->bits / 8);
	s->older = s->newer;
	s->newer = oldest;
	s->turned_us = now_us;
}

/* Two bits in a word: it is one look, and a quarter of the words' bits may be set. */
static uint64_t bits_of(uint64_t hash)
{
	return 1ULL << (hash >> 32) % WORD_BITS | 1ULL << (hash >> 40) % WORD_BITS;
}

static void set_put(struct shed_set *s, uint64_t hash, uint64_t now_us)
{
	set_turn(s, now_us);
	s->newer[hash % (s->bits / WORD_BITS)] |= bits_of(hash);
}

static bool set_has(struct shed_set *s, uint64_t hash, uint64_t now_us)
{
	const size_t word = hash % (s->bits / WORD_BITS);
	const uint64_t bits = bits_of(hash);

	set_turn(s, now_us);
	return (s->newer[word] & bits) == bits || (s->older[word] & bits) == bits;
}

int shed_init(struct shed *s)
{
	*s = (struct shed){ 0 };
	if (set_init(&s->known, SHED_KNOWN_BITS, SHED_KNOWN_US) ||
	    set_init(&s->seen, SHED_SEEN_BITS, SHED_SEEN_US))
		return -ENOMEM;
	return getrandom(s->key, sizeof(s->key), 0) == (ssize_t)sizeof(s->key) ? 0 : -EIO;
}

void shed_fini(struct shed *s)
{
	set_fini(&s->known);
	set_fini(&s->seen);
}

/* Of the part of an address that one host has: of IPv6, where it may have 2^64, the subnet. */
static uint64_t host_hash(const struct shed *s, const struct ipaddr *a)
{
	return siphash(s->key, a->b, addr_is_v4(a) ? 16 : 8);
}

static uint64_t flow_hash(const struct shed *s, const struct flow *f)
{
	uint8_t what[20];

	memcpy(what, f->remote.addr.b, 16);
	memcpy(what + 16, &f->remote.port, 2);
	memcpy(what + 18, &f->local.port, 2);
	return siphash(s->key, what, sizeof(what));
}

void shed_know(struct shed *s, const struct ipaddr *a, uint64_t now_us)
{
	set_put(&s->known, host_hash(s, a), now_us);
}

/* Counts one more of its network, 24 bits of IPv4 or 48 of IPv6. How many came lately, or more: networks
 * may share a place, though hardly in both rows.
 */
static unsigned count_net(struct shed *s, const struct ipaddr *a)
{
	uint64_t hash = siphash(s->key, a->b, addr_is_v4(a) ? 15 : 6);
	unsigned least = UINT16_MAX;

	for (unsigned i = 0; i < SHED_ROWS; i++, hash >>= 32) {
		uint16_t *const count = &s->nets[i][hash % SHED_NETS];

		if (*count < UINT16_MAX)
			++*count;
		if (*count < least)
			least = *count;
	}
	return least;
}

/* What a network may have sent lately, when those that sent no more are together to be as many as can be
 * answered. One that alone sent more than that has no part in the sum, nor in the share.
 */
static unsigned fair_share(const struct shed *s)
{
	uint32_t sums[MAGNITUDES] = { 0 }, all = 0;
	unsigned share = SHED_NET_SYNS, k;

	for (unsigned i = 0; i < SHED_NETS; i++) {
		const unsigned n = s->nets[0][i];

		if (n && n <= CAN_BE_ANSWERED)
			sums[31 - __builtin_clz(n)] += n;
	}
	for (k = 0; k < MAGNITUDES && (all += sums[k]) <= CAN_BE_ANSWERED; k++)
		share = (2U << k) - 1 > share ? (2U << k) - 1 : share;
	return share < CAN_BE_ANSWERED ? share : CAN_BE_ANSWERED;
}

static void halve(struct shed *s, uint64_t times)
{
	uint16_t *const all = s->nets[0];

	for (unsigned i = 0; i < SHED_ROWS * SHED_NETS; i++)
		all[i] = times < HALVINGS_MAX ? (uint16_t)(all[i] >> times) : 0;
}

/* What was counted long ago counts less. */
static void turn(struct shed *s, uint64_t now_us)
{
	const uint64_t n = (now_us - s->turned_us) / SHED_TURN_US, turns = s->turns + n;

	if (n == 0)
		return;
	if (turns >= SHED_COUNT_TURNS)
		halve(s, turns / SHED_COUNT_TURNS);
	s->turns = (unsigned)(turns % SHED_COUNT_TURNS);
	s->net_syns = fair_share(s);
	s->few = 0;
	s->turned_us += n * SHED_TURN_US;
}

static bool is_welcome(struct shed *s, const struct ipaddr *a, enum link_pressure pressure)
{
	return count_net(s, a) <= s->net_syns && (pressure == LINK_BUSY || s->few++ < SHED_FEW);
}

bool shed_drops(struct shed *s, const struct flow *f, enum link_pressure pressure, uint64_t now_us)
{
	const struct ipaddr *const a = &f->remote.addr;
	uint64_t hash;

	if (pressure == LINK_EASY || set_has(&s->known, host_hash(s, a), now_us))
		return false;
	hash = flow_hash(s, f);
	if (set_has(&s->seen, hash, now_us))
		return false;
	turn(s, now_us);
	if (is_welcome(s, a, pressure))
		return false;
	set_put(&s->seen, hash, now_us);
	s->dropped++;
	return true;
}
