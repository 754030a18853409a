/* SPDX-License-Identifier: Apache-2.0 */
/* Run by the build: the keys of [Tcp] as a list that tcpfsmctl includes for its help and completion, for
 * tcpfsmctl knows nothing of the daemon's inside.
 *	TCP_KEY("name", "what it may be", "the words among that, with blanks between", "help", opening)
 */
#include <stdio.h>
#include <string.h>

#include "config/key.h"

static void add(char *words, size_t size, const char *word)
{
	const size_t n = strlen(words);

	if (word)
		(void)snprintf(words + n, size - n, "%s%s", n ? " " : "", word);
}

int main(void)
{
	for (size_t i = 0; i < KEYS_N; i++) {
		const struct key *const k = &keys[i];
		char expected[KEY_EXPECTED], words[KEY_EXPECTED] = "";

		if (k->section != SECTION_TCP)
			continue;
		if (k->type == KEY_SWITCH)
			add(words, sizeof(words), "yes no");
		for (const struct key_word *w = k->words; w && w->name; w++)
			add(words, sizeof(words), w->name);
		add(words, sizeof(words), k->zero);
		(void)printf("TCP_KEY(\"%s\", \"%s\", \"%s\", \"%s\", %s)\n", k->name,
			     key_expected(k, expected), words, k->help,
			     k->opening ? "true" : "false");
	}
	return fflush(stdout) ? 1 : 0;
}
