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

/* Columns are bound and read in one order: the place of each is counted, not written down. */
struct binder {
	sqlite3_stmt *s;
	int at;
};

static void bind_null(struct binder *b)
{
	(void)sqlite3_bind_null(b->s, ++b->at);
}

static void bind_signed(struct binder *b, int64_t n)
{
	(void)sqlite3_bind_int64(b->s, ++b->at, n);
}

/* SQLite's integers end at 2^63. No counter gets there. */
static void bind_number(struct binder *b, uint64_t n)
{
	bind_signed(b, n > INT64_MAX ? INT64_MAX : (int64_t)n);
}

/* A number for which 0 says that there is none. */
static void bind_number_or_null(struct binder *b, uint64_t n)
{
	if (n)
		bind_number(b, n);
	else
		bind_null(b);
}

static void bind_text(struct binder *b, const char *text)
{
	(void)sqlite3_bind_text(b->s, ++b->at, text, -1, SQLITE_STATIC);
}

/* A text in an array that may be full to its end. Empty: there is none. */
static void bind_array_or_null(struct binder *b, const char *text, size_t size)
{
	const size_t n = strnlen(text, size);

	if (n)
		(void)sqlite3_bind_text(b->s, ++b->at, text, (int)n, SQLITE_STATIC);
	else
		bind_null(b);
}

static void bind_endpoint(struct binder *b, const struct endpoint *ep, char text[static ADDR_TEXT])
{
	bind_text(b, addr_format(&ep->addr, text));
	bind_number(b, ep->port);
}

static void bind_end(struct binder *b, const struct record_connection *row)
{
	bind_number_or_null(b, row->end_us);
	if (row->end_us) {
		bind_text(b, end_reason_key(row->reason));
		bind_text(b, closed_by_key(row->closed_by));
		bind_text(b, state_keys[row->last_state]);
	} else {
		bind_null(b);
		bind_null(b);
		bind_null(b);
	}
}

/* Measured or not, all three: a variation of 0 is one. */
static void bind_rtt(struct binder *b, const struct record_connection *row)
{
	if (!row->srtt_us) {
		bind_null(b);
		bind_null(b);
		bind_null(b);
		return;
	}
	bind_number(b, row->srtt_us);
	bind_number(b, row->rttvar_us);
	bind_number(b, row->rttmin_us);
}

static void bind_process(struct binder *b, const struct record_connection *row)
{
	const bool ended = row->exit_status != INT32_MIN && row->pid;

	bind_number_or_null(b, row->pid);
	if (ended && row->exit_status >= 0)
		bind_signed(b, row->exit_status);
	else
		bind_null(b);
	if (ended && row->exit_status < 0)
		bind_signed(b, -row->exit_status);
	else
		bind_null(b);
	if (ended)
		bind_number(b, row->run_us);
	else
		bind_null(b);
}

void row_bind_connection(sqlite3_stmt *s, const struct record_connection *row, int64_t run,
			 struct row_texts *texts)
{
	struct binder b = { .s = s };

	bind_number(&b, row->id);
	bind_signed(&b, run);
	bind_endpoint(&b, &row->flow.local, texts->local);
	bind_endpoint(&b, &row->flow.remote, texts->remote);
	bind_number_or_null(&b, row->flow.scope);
	bind_text(&b, row->passive ? "passive" : "active");
	bind_array_or_null(&b, row->service, sizeof(row->service));
	bind_array_or_null(&b, row->interface, sizeof(row->interface));
	bind_number(&b, row->start_us);
	bind_number_or_null(&b, row->opened_us);
	bind_end(&b, row);
	bind_number(&b, row->bytes_in);
	bind_number(&b, row->bytes_out);
	bind_number(&b, row->segments_in);
	bind_number(&b, row->segments_out);
	bind_number(&b, row->retransmitted_segments);
	bind_number(&b, row->retransmitted_bytes);
	bind_rtt(&b, row);
	bind_number_or_null(&b, row->snd_mss);
	bind_number_or_null(&b, row->rcv_mss);
	bind_process(&b, row);
}

void row_bind_transition(sqlite3_stmt *s, const struct record_transition *row, int64_t n,
			 struct row_texts *texts)
{
	struct binder b = { .s = s };

	bind_number(&b, row->connection);
	bind_signed(&b, n);
	bind_number(&b, row->at_us);
	bind_text(&b, state_keys[row->from]);
	bind_text(&b, state_keys[row->to]);
	bind_text(&b, cause_format(row->cause, row->detail, texts->cause));
	bind_number(&b, row->detail);
	bind_text(&b, rule_key(row->rule));
	if (row->cause == CAUSE_SEGMENT) {
		bind_number(&b, row->seq);
		bind_number(&b, row->ack);
	} else {
		bind_null(&b);
		bind_null(&b);
	}
}

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
