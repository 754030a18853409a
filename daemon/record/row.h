/* SPDX-License-Identifier: Apache-2.0 */
/* Rows, in memory and in SQLite: which column holds which field, and the words for the enums.
 * A field that has no value yet is NULL in the database and 0 (or INT32_MIN) in memory.
 */
#pragma once
#include <sqlite3.h>

#include "record/record.h"

struct row {
	bool is_transition;
	union {
		struct record_connection connection;
		struct record_transition transition;
	};
};

#define CONNECTION_COLUMNS                                                                       \
	"id, run, local_address, local_port, remote_address, remote_port, scope, direction, "    \
	"service, interface, start_us, opened_us, end_us, end_reason, closed_by, last_state, "   \
	"bytes_in, bytes_out, segments_in, segments_out, retransmitted_segments, "               \
	"retransmitted_bytes, rtt_us, rttvar_us, rttmin_us, snd_mss_bytes, rcv_mss_bytes, pid, " \
	"exit_status, exit_signal, run_us"
#define TRANSITION_COLUMNS \
	"connection, n, at_us, from_state, to_state, cause, detail, rule, seq, ack"

/* Texts that are made for a row, and given as they are, without a copy. */
struct row_texts {
	char local[ADDR_TEXT], remote[ADDR_TEXT];
};

/* One value of a row: `column` counts from 0 in the order above. `row` and *texts must live unchanged until
 * SQLite has the next row.
 */
void row_give_connection(sqlite3_context *to, int column, const struct record_connection *row,
			 int64_t run, struct row_texts *texts);
/* from_state, to_state, cause, detail, rule, from parameter 1 on; *cause must live as long as they are bound. An SQLite
 * code.
 */
int row_bind_kind(sqlite3_stmt *s, const struct record_transition *row,
		  char cause[static CAUSE_TEXT]);
/* What else a transition says, as a JSON array: at_us, kind, seq, ack. Writes no NUL. Returns how many octets, at most
 * TRANSITION_TEXT.
 */
enum {
	TRANSITION_TEXT = sizeof("[9223372036854775807,-9223372036854775808,4294967295,4294967295]")
};
size_t row_write_transition(const struct record_transition *row, int64_t kind,
			    char ret_text[static TRANSITION_TEXT]);
/* The columns of a result, in the order above. A word that this version does not know reads as the
 * first of its enum: a database that a newer tcpfsmd wrote, with the same schema.
 */
void row_read_connection(sqlite3_stmt *s, struct record_connection *ret_row);
void row_read_transition(sqlite3_stmt *s, struct record_transition *ret_row);
