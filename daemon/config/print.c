/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration, printed back: every key that is in force, and who said so. */
#include <string.h>

#include "config/config.h"
#include "config/key.h"
#include "config/origins.h"

static void print_key(const struct config *c, const struct key *k, const void *base,
		      const struct origin *origin, FILE *out)
{
	char value[KEY_TEXT_MAX], from[300];
	const int width = 36 - (int)strlen(k->name);

	(void)key_format(k, base, value);
	(void)origin_format(c->origins, origin, from, sizeof(from));
	/* Behind a quote that is not closed, a comment on the same line would be part of the value. */
	if (strpbrk(value, "\"'"))
		(void)fprintf(out, "# %s\n%s=%s\n", from, k->name, value);
	else
		(void)fprintf(out, "%s=%-*s # %s\n", k->name, width, value, from);
}

static void print_listener(const struct config *c, size_t i, FILE *out)
{
	const struct config_listener *l = &c->listeners[i];
	const struct origins_listener *o = &c->origins->listeners[i];

	(void)fprintf(out, "\n[Listener %s]\n", l->name);
	for (size_t n = 0; n < KEYS_N; n++)
		if (keys[n].section == SECTION_LISTENER)
			print_key(c, &keys[n], l, &o->keys[n], out);
	for (size_t n = 0; n < KEYS_N; n++)
		if (keys[n].section == SECTION_TCP)
			print_key(c, &keys[n], &l->tcp,
				  o->keys[n].file ? &o->keys[n] : &c->origins->fixed[n], out);
}

void config_print(const struct config *c, FILE *out)
{
	enum section section = SECTION__COUNT;

	for (size_t n = 0; n < KEYS_N && keys[n].section != SECTION_LISTENER; n++) {
		const void *const base = keys[n].section == SECTION_TCP ? (const void *)&c->tcp
									: (const void *)c;

		if (keys[n].section != section) {
			section = keys[n].section;
			(void)fprintf(out, "%s[%s]\n", n ? "\n" : "", section_names[section]);
		}
		print_key(c, &keys[n], base, &c->origins->fixed[n], out);
	}
	for (size_t i = 0; i < c->listeners_n; i++)
		print_listener(c, i, out);
}
