/* SPDX-License-Identifier: Apache-2.0 */
#include "config/origins.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct config_origins *origins_new(void)
{
	return calloc(1, sizeof(struct config_origins));
}

void origins_free(struct config_origins *o)
{
	if (!o)
		return;
	for (size_t i = 0; i < o->files_n; i++)
		free(o->files[i]);
	free((void *)o->files);
	free(o->listeners);
	free(o);
}

/* The name goes into comments that are read back, and into the log: one line, whatever it holds. */
static char *printable(const char *name)
{
	char *copy = strdup(name);

	for (char *p = copy; p && *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return copy;
}

int origins_add_file(struct config_origins *o, const char *name, uint16_t *ret_file)
{
	char **more = reallocarray((void *)o->files, o->files_n + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	o->files = more;
	more[o->files_n] = printable(name);
	if (!more[o->files_n])
		return -ENOMEM;
	*ret_file = (uint16_t)(ORIGIN_FILES + o->files_n++);
	return 0;
}

int origins_add_listener(struct config_origins *o, const struct origin *heading)
{
	struct origins_listener *more = reallocarray(o->listeners, o->listeners_n + 1,
						     sizeof(*more));

	if (!more)
		return -ENOMEM;
	o->listeners = more;
	memset(&more[o->listeners_n], 0, sizeof(*more));
	more[o->listeners_n++].heading = *heading;
	return 0;
}

const char *origin_format(const struct config_origins *o, const struct origin *origin, char *buf,
			  size_t size)
{
	if (origin->file >= ORIGIN_FILES)
		(void)snprintf(buf, size, "%s:%u", o->files[origin->file - ORIGIN_FILES],
			       origin->line);
	else
		(void)snprintf(buf, size, "%s",
			       origin->file == ORIGIN_COMMAND    ? "command line"
			       : origin->file == ORIGIN_RUN_TIME ? "run time"
								 : "default");
	return buf;
}
