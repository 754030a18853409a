/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's log: one line per message on standard error, with a syslog priority prefix when
 * journald reads it (sd-daemon(3)). Only main, worker and control log; whoever can act on an error
 * logs it once. Thread-safe: a line is one write(2).
 */
#pragma once
#include "macros.h"

enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

/* Messages above `max` are not written. Call before threads start. */
void log_setup(enum log_level max);

PRINTF_LIKE(2, 3) void log_write(enum log_level level, const char *fmt, ...);

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)  log_write(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
