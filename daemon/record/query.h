/* SPDX-License-Identifier: Apache-2.0 */
/* Answers a struct record_query from an open database. */
#pragma once
#include <sqlite3.h>

#include "record/record.h"

/* Fills q's answer: rc, err, rows_n, more, and rows that are q's. */
void query_run(sqlite3 *db, const char *path, struct record_query *q);
