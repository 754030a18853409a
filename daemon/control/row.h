/* SPDX-License-Identifier: Apache-2.0 */
/* A CONNECTION of the control protocol, made from a live one or from a row of the record: as JSON, and
 * as what a filter looks at. proto/fields.def says which keys there are.
 */
#pragma once
#include <jansson.h>

#include "proto/proto.h"
#include "record/record.h"
#include "tcp/state.h"
#include "worker/worker.h"

/* One of the two is not NULL. Borrowed. */
struct row {
	const struct worker_conn *live;
	const struct record_connection *kept;
};

const char *state_key(enum tcp_state s); /* "fin_wait_2" */
/* Thread-safe: the record's reader thread calls it. */
bool row_matches(const struct row *row, const struct filter *f);
/* New references. detail: with "detail" when the connection is live. NULL: no memory. */
json_t *row_json(const struct row *row, bool detail);
