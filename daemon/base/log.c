/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum log_level level_max = LOG_LEVEL_INFO;
static bool for_journal;

void log_setup(enum log_level max)
{
	level_max = max;
	for_journal = getenv("JOURNAL_STREAM") != NULL;
}

/* A message is one line, whatever a peer or a file put into it. */
static void flatten(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < ' ')
			*s = ' ';
}

void log_write(enum log_level level, const char *fmt, ...)
{
	const int saved = errno;
	char line[1024];
	size_t n = 0;
	va_list ap;

	if (level > level_max)
		return;
	n = for_journal ? (size_t)snprintf(line, sizeof(line), "<%d>", (int)level)
			: (size_t)snprintf(line, sizeof(line), "tcpfsmd: ");
	va_start(ap, fmt);
	(void)vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	flatten(line);
	n = strlen(line);
	line[n++] = '\n';
	while (write(STDERR_FILENO, line, n) < 0 && errno == EINTR)
		;
	errno = saved;
}
