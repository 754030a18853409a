/* SPDX-License-Identifier: Apache-2.0 */
#include "record/row.h"

#include <string.h>

/* clang-format off */
static const char *const state_keys[ST__COUNT] = {
	[ST_CLOSED] = "closed",
	[ST_LISTEN] = "listen",
	[ST_SYN_SENT] = "syn_sent",
	[ST_SYN_RECEIVED] = "syn_received",
	[ST_ESTABLISHED] = "established",
	[ST_FIN_WAIT_1] = "fin_wait_1",
	[ST_FIN_WAIT_2] = "fin_wait_2",
	[ST_CLOSE_WAIT] = "close_wait",
	[ST_CLOSING] = "closing",
	[ST_LAST_ACK] = "last_ack",
	[ST_TIME_WAIT] = "time_wait",
};
/* clang-format on */

/* The columns, in the order of CONNECTION_COLUMNS. */
enum connection_column {
	C_ID,
	C_RUN,
	C_LOCAL_ADDRESS,
	C_LOCAL_PORT,
	C_REMOTE_ADDRESS,
	C_REMOTE_PORT,
	C_SCOPE,
	C_DIRECTION,
	C_SERVICE,
	C_INTERFACE,
	C_START,
	C_OPENED,
	C_END,
	C_END_REASON,
	C_CLOSED_BY,
	C_LAST_STATE,
	C_BYTES_IN,
	C_BYTES_OUT,
	C_SEGMENTS_IN,
	C_SEGMENTS_OUT,
	C_RETRANSMITTED_SEGMENTS,
	C_RETRANSMITTED_BYTES,
	C_RTT,
	C_RTTVAR,
	C_RTTMIN,
	C_SND_MSS,
	C_RCV_MSS,
	C_PID,
	C_EXIT_STATUS,
	C_EXIT_SIGNAL,
	C_RUN_US,
};

/* SQLite's integers end at 2^63. No counter gets there. */
static void give_number(sqlite3_context *to, uint64_t n)
{
	sqlite3_result_int64(to, n > INT64_MAX ? INT64_MAX : (int64_t)n);
}

/* What is not given is NULL. */
static void give_number_if(sqlite3_context *to, bool there, uint64_t n)
{
	if (there)
		give_number(to, n);
}

static void give_text(sqlite3_context *to, const char *text)
{
	sqlite3_result_text(to, text, -1, SQLITE_STATIC);
}

static void give_text_if(sqlite3_context *to, bool there, const char *text)
{
	if (there)
		give_text(to, text);
}

/* A text in an array that may be full to its end. Empty: there is none. */
static void give_array(sqlite3_context *to, const char *text, size_t size)
{
	const size_t n = strnlen(text, size);

	if (n)
		sqlite3_result_text(to, text, (int)n, SQLITE_STATIC);
}

/* Who talked to whom, and what about. */
static void give_flow(sqlite3_context *to, enum connection_column column,
		      const struct record_connection *row, struct row_texts *texts)
{
	switch (column) {
	case C_LOCAL_ADDRESS:
		give_text(to, addr_format(&row->flow.local.addr, texts->local));
		return;
	case C_LOCAL_PORT:
		give_number(to, row->flow.local.port);
		return;
	case C_REMOTE_ADDRESS:
		give_text(to, addr_format(&row->flow.remote.addr, texts->remote));
		return;
	case C_REMOTE_PORT:
		give_number(to, row->flow.remote.port);
		return;
	case C_SCOPE:
		give_number_if(to, row->flow.scope, row->flow.scope);
		return;
	case C_DIRECTION:
		give_text(to, row->passive ? "passive" : "active");
		return;
	case C_SERVICE:
		give_array(to, row->service, sizeof(row->service));
		return;
	default:
		give_array(to, row->interface, sizeof(row->interface));
		return;
	}
}

static void give_times(sqlite3_context *to, enum connection_column column,
		       const struct record_connection *row)
{
	const bool ended = row->end_us;

	switch (column) {
	case C_START:
		give_number(to, row->start_us);
		return;
	case C_OPENED:
		give_number_if(to, row->opened_us, row->opened_us);
		return;
	case C_END:
		give_number_if(to, ended, row->end_us);
		return;
	case C_END_REASON:
		give_text_if(to, ended, end_reason_key(row->reason));
		return;
	case C_CLOSED_BY:
		give_text_if(to, ended, closed_by_key(row->closed_by));
		return;
	default:
		give_text_if(to, ended, state_keys[row->last_state]);
		return;
	}
}

/* Of the round trip's three none is measured without the first: a variation of 0 is one. */
static void give_statistics(sqlite3_context *to, enum connection_column column,
			    const struct record_connection *row)
{
	switch (column) {
	case C_BYTES_IN:
		give_number(to, row->bytes_in);
		return;
	case C_BYTES_OUT:
		give_number(to, row->bytes_out);
		return;
	case C_SEGMENTS_IN:
		give_number(to, row->segments_in);
		return;
	case C_SEGMENTS_OUT:
		give_number(to, row->segments_out);
		return;
	case C_RETRANSMITTED_SEGMENTS:
		give_number(to, row->retransmitted_segments);
		return;
	case C_RETRANSMITTED_BYTES:
		give_number(to, row->retransmitted_bytes);
		return;
	case C_RTT:
		give_number_if(to, row->srtt_us, row->srtt_us);
		return;
	case C_RTTVAR:
		give_number_if(to, row->srtt_us, row->rttvar_us);
		return;
	case C_RTTMIN:
		give_number_if(to, row->srtt_us, row->rttmin_us);
		return;
	case C_SND_MSS:
		give_number_if(to, row->snd_mss, row->snd_mss);
		return;
	default:
		give_number_if(to, row->rcv_mss, row->rcv_mss);
		return;
	}
}

static void give_process(sqlite3_context *to, enum connection_column column,
			 const struct record_connection *row)
{
	const bool ended = row->exit_status != INT32_MIN && row->pid;
	const int32_t status = row->exit_status;

	switch (column) {
	case C_PID:
		give_number_if(to, row->pid, row->pid);
		return;
	case C_EXIT_STATUS:
		give_number_if(to, ended && status >= 0, (uint64_t)status);
		return;
	case C_EXIT_SIGNAL:
		give_number_if(to, ended && status < 0, (uint64_t) - (int64_t)status);
		return;
	default:
		give_number_if(to, ended, row->run_us);
		return;
	}
}

void row_give_connection(sqlite3_context *to, int column, const struct record_connection *row,
			 int64_t run, struct row_texts *texts)
{
	const enum connection_column c = (enum connection_column)column;

	if (c == C_ID)
		give_number(to, row->id);
	else if (c == C_RUN)
		sqlite3_result_int64(to, run);
	else if (c < C_START)
		give_flow(to, c, row, texts);
	else if (c < C_BYTES_IN)
		give_times(to, c, row);
	else if (c < C_PID)
		give_statistics(to, c, row);
	else
		give_process(to, c, row);
}

int row_bind_kind(sqlite3_stmt *s, const struct record_transition *row,
		  char cause[static CAUSE_TEXT])
{
	const char *const texts[] = { state_keys[row->from], state_keys[row->to],
				      cause_format(row->cause, row->detail, cause) };
	int code = SQLITE_OK;

	for (int i = 0; code == SQLITE_OK && i < 3; i++)
		code = sqlite3_bind_text(s, 1 + i, texts[i], -1, SQLITE_STATIC);
	if (code == SQLITE_OK)
		code = sqlite3_bind_int64(s, 4, row->detail);
	return code == SQLITE_OK ? sqlite3_bind_text(s, 5, rule_key(row->rule), -1, SQLITE_STATIC)
				 : code;
}

/* Two digits at a time: numbers are most of what a history is. */
static char *write_number(char *p, uint64_t n)
{
	static const char pairs[] = "00010203040506070809101112131415161718192021222324"
				    "25262728293031323334353637383940414243444546474849"
				    "50515253545556575859606162636465666768697071727374"
				    "75767778798081828384858687888990919293949596979899";
	char digits[20];
	size_t at = sizeof(digits);

	for (; n >= 100; n /= 100)
		memcpy(&digits[at -= 2], &pairs[2 * (n % 100)], 2);
	if (n >= 10)
		memcpy(&digits[at -= 2], &pairs[2 * n], 2);
	else
		digits[--at] = (char)('0' + n);
	memcpy(p, &digits[at], sizeof(digits) - at);
	return p + sizeof(digits) - at;
}

static char *write_sequence(char *p, bool there, uint32_t seq)
{
	*p++ = ',';
	return there ? write_number(p, seq) : mempcpy(p, "null", 4);
}

size_t row_write_transition(const struct record_transition *row, int64_t kind,
			    char ret_text[static TRANSITION_TEXT])
{
	const bool has_segment = row->cause == CAUSE_SEGMENT;
	char *p = ret_text;

	*p++ = '[';
	p = write_number(p, row->at_us > INT64_MAX ? INT64_MAX : row->at_us);
	*p++ = ',';
	if (kind < 0) /* not one that we chose, but somebody can */
		*p++ = '-';
	p = write_number(p, kind < 0 ? 0 - (uint64_t)kind : (uint64_t)kind);
	p = write_sequence(p, has_segment, row->seq);
	p = write_sequence(p, has_segment, row->ack);
	*p++ = ']';
	return (size_t)(p - ret_text);
}

/* Columns are read in one order: the place of each is counted, not written down. */
struct reader {
	sqlite3_stmt *s;
	int at;
};

static int64_t read_signed(struct reader *r)
{
	return sqlite3_column_int64(r->s, r->at++);
}

/* NULL reads as 0. */
static uint64_t read_number(struct reader *r)
{
	const int64_t n = read_signed(r);

	return n < 0 ? 0 : (uint64_t)n;
}

static uint32_t read_number32(struct reader *r)
{
	const uint64_t n = read_number(r);

	return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

/* NULL reads as "". Good until the next step of the statement. */
static const char *read_text(struct reader *r)
{
	const unsigned char *text = sqlite3_column_text(r->s, r->at++);

	return text ? (const char *)text : "";
}

static void read_array(struct reader *r, char *ret_text, size_t size)
{
	const char *text = read_text(r);
	const size_t n = strnlen(text, size - 1);

	memcpy(ret_text, text, n);
	ret_text[n] = 0;
}

static void read_endpoint(struct reader *r, struct endpoint *ret_ep)
{
	if (addr_parse(read_text(r), &ret_ep->addr))
		ret_ep->addr = addr_any;
	ret_ep->port = (uint16_t)read_number(r);
}

static enum tcp_state read_state(struct reader *r)
{
	const char *text = read_text(r);

	for (int i = 0; i < ST__COUNT; i++)
		if (!strcmp(text, state_keys[i]))
			return (enum tcp_state)i;
	return ST_CLOSED;
}

static enum end_reason read_reason(struct reader *r)
{
	const char *text = read_text(r);

	for (int i = 0; i < END__COUNT; i++)
		if (!strcmp(text, end_reason_key((enum end_reason)i)))
			return (enum end_reason)i;
	return END_NONE;
}

static enum closed_by read_closed_by(struct reader *r)
{
	const char *text = read_text(r);

	for (int i = 0; i < CLOSED_BY__COUNT; i++)
		if (!strcmp(text, closed_by_key((enum closed_by)i)))
			return (enum closed_by)i;
	return CLOSED_BY_NOBODY;
}

/* The first word of what cause_format() wrote; the rest comes from `detail`. */
static enum cause read_cause(struct reader *r)
{
	const char *text = read_text(r);
	const size_t n = strcspn(text, " ");

	for (int i = 0; i < CAUSE__COUNT; i++) {
		const char *key = cause_key((enum cause)i);

		if (strlen(key) == n && !memcmp(text, key, n))
			return (enum cause)i;
	}
	return CAUSE_USER;
}

static enum rule read_rule(struct reader *r)
{
	const char *text = read_text(r);

	for (int i = 0; i < RULE__COUNT; i++)
		if (!strcmp(text, rule_key((enum rule)i)))
			return (enum rule)i;
	return (enum rule)0;
}

static void read_process(struct reader *r, struct record_connection *ret_row)
{
	int status, signal;

	ret_row->pid = read_number32(r);
	status = sqlite3_column_type(r->s, r->at);
	ret_row->exit_status = status == SQLITE_NULL ? INT32_MIN
						     : (int32_t)sqlite3_column_int(r->s, r->at);
	r->at++;
	signal = sqlite3_column_type(r->s, r->at);
	if (signal != SQLITE_NULL)
		ret_row->exit_status = -(int32_t)(sqlite3_column_int(r->s, r->at) & 0x7f);
	r->at++;
	ret_row->run_us = read_number(r);
}

void row_read_connection(sqlite3_stmt *s, struct record_connection *ret_row)
{
	struct reader r = { .s = s };

	*ret_row = (struct record_connection){ 0 };
	ret_row->id = read_number(&r);
	(void)read_number(&r); /* run */
	read_endpoint(&r, &ret_row->flow.local);
	read_endpoint(&r, &ret_row->flow.remote);
	ret_row->flow.scope = read_number32(&r);
	ret_row->passive = !strcmp(read_text(&r), "passive");
	read_array(&r, ret_row->service, sizeof(ret_row->service));
	read_array(&r, ret_row->interface, sizeof(ret_row->interface));
	ret_row->start_us = read_number(&r);
	ret_row->opened_us = read_number(&r);
	ret_row->end_us = read_number(&r);
	ret_row->reason = read_reason(&r);
	ret_row->closed_by = read_closed_by(&r);
	ret_row->last_state = read_state(&r);
	ret_row->bytes_in = read_number(&r);
	ret_row->bytes_out = read_number(&r);
	ret_row->segments_in = read_number(&r);
	ret_row->segments_out = read_number(&r);
	ret_row->retransmitted_segments = read_number(&r);
	ret_row->retransmitted_bytes = read_number(&r);
	ret_row->srtt_us = read_number32(&r);
	ret_row->rttvar_us = read_number32(&r);
	ret_row->rttmin_us = read_number32(&r);
	ret_row->snd_mss = read_number32(&r);
	ret_row->rcv_mss = read_number32(&r);
	read_process(&r, ret_row);
}

void row_read_transition(sqlite3_stmt *s, struct record_transition *ret_row)
{
	struct reader r = { .s = s };

	*ret_row = (struct record_transition){ 0 };
	ret_row->connection = read_number(&r);
	(void)read_number(&r); /* n */
	ret_row->at_us = read_number(&r);
	ret_row->from = read_state(&r);
	ret_row->to = read_state(&r);
	ret_row->cause = read_cause(&r);
	ret_row->detail = read_number32(&r);
	ret_row->rule = read_rule(&r);
	ret_row->seq = read_number32(&r);
	ret_row->ack = read_number32(&r);
}
