/* SPDX-License-Identifier: Apache-2.0 */
/* The one table of keys: name, where its value lives, what it may be, what it is for. Reading,
 * checking, printing, `listen --tcp`, `set tcp.KEY`, `show tcp`, tcpfsmctl's completion and the tests
 * of the manual come from it.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/errmsg.h"
#include "config/config.h"
#include "config/value.h"

enum section {
	SECTION_DAEMON,
	SECTION_CONTROL,
	SECTION_TCP,
	SECTION_STORAGE,
	SECTION_LISTENER,
	SECTION__COUNT
};

enum key_type {
	KEY_DURATION,
	KEY_SIZE,
	KEY_NUMBER,
	KEY_SWITCH,
	KEY_WORD, /* one of `words`; held as an int */
	KEY_TEXT,
	KEY_NAMES, /* interfaces: a list of its own in struct config */
	KEY_PORTS, /* two uint16_t, the second behind the first */
	KEY_ENDPOINT,
};

struct key_word {
	const char *name;
	int value;
};

/* The address of a value is that of its section's struct, plus `offset`: struct tcp_params for [Tcp],
 * struct config_listener for [Listener NAME], else struct config.
 */
struct key {
	enum section section;
	const char *name;
	enum key_type type;
	size_t offset;
	size_t size; /* octets of the field */
	uint64_t min, max; /* of a number; of a text's length */
	const char *zero; /* the word for 0, which is then allowed below min; NULL: none */
	const struct key_word *words; /* KEY_WORD; ends with a NULL name */
	const char *help;
	bool opening; /* [Tcp]: settled when a connection opens; one that runs cannot change it */
};

enum { KEYS_N = 72 };
_Static_assert((int)KEYS_N <= (int)CONFIG_KEYS_MAX, "tcp_from[] has a place for each");
extern const struct key keys[KEYS_N];
extern const char *const section_names[SECTION__COUNT];

/* The key of that name in a section; in a listener's, also those of [Tcp]. NULL: none. */
const struct key *key_find(enum section section, const char *name);
/* The known name most like `name`, NULL when none is like it. */
const char *key_nearest(enum section section, const char *name);
/* What a key may be: "a time span such as 30s or 1min 30s, 0 to 10min". Returns buf. */
enum { KEY_EXPECTED = 256 };
const char *key_expected(const struct key *k, char buf[static KEY_EXPECTED]);
/* Sets the value from its text. 0 or -EINVAL; base is then untouched. */
int key_set(const struct key *k, void *base, const char *text);
/* The value's text, as key_set() reads it. Returns buf. */
enum { KEY_TEXT_MAX = CONFIG_INTERFACES_MAX * 17 + CONFIG_TEXT };
const char *key_format(const struct key *k, const void *base, char buf[static KEY_TEXT_MAX]);
