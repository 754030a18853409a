/* SPDX-License-Identifier: Apache-2.0 */
/* The small services that inetd had built in: echo (RFC 862), discard (RFC 863), chargen (RFC 864),
 * daytime (RFC 867). They hold nothing but what stands in struct session.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/service.h"

static void close_mine(struct session *s)
{
	(void)conn_close(s->host->engine, s->host->now, s->id, CAUSE_USER);
}

static uint32_t take_all(struct session *s, struct span text)
{
	(void)s;
	return text.len;
}

static void drop_unread(struct session *s)
{
	struct span span;

	while (conn_peek(s->host->engine, s->id, &span, 1))
		if (conn_consume(s->host->engine, s->host->now, s->id, span.len))
			return;
}

static int discard_open(struct session *s)
{
	drop_unread(s);
	return 0;
}

static void discard_peer_closed(struct session *s)
{
	drop_unread(s);
	close_mine(s);
}

const struct service_ops service_discard = {
	.name = "discard",
	.help = "takes everything and says nothing (RFC 863)",
	.direct = true,
	.unread = true,
	.open = discard_open,
	.text = take_all,
	.readable = drop_unread,
	.peer_closed = discard_peer_closed,
};

/* Moves text from the receive queue to the send queue. The service holds none itself: the window closes when
 * the peer does not read its echo. The span lives in the receive queue; conn_pass_on() does not touch
 * that one. With REPORT_PEER_CLOSED the end may be reached here or, when the send buffer is full,
 * after a later REPORT_WRITABLE; so every call looks for it.
 */
static void echo_move(struct session *s)
{
	struct engine *const e = s->host->engine;
	struct span span;
	size_t taken;

	while (conn_peek(e, s->id, &span, 1)) {
		if (conn_pass_on(e, s->host->now, s->id, span.base, span.len, 0, &taken)) {
			session_sink(
				s,
				false); /* an operator closed our side: there is no echo any more */
			return;
		}
		if (taken && conn_consume(e, s->host->now, s->id, taken))
			return;
		if (taken < span.len)
			return;
	}
	if (conn_at_eof(e, s->id))
		close_mine(s);
}

/* Straight from the packet to the send queue; what is large stays where the packet is. What finds no room,
 * or comes when our side is closed, goes to the receive queue, and echo_move() has it next. Text comes here
 * only while that queue is empty, so the order stays.
 */
static uint32_t echo_text(struct session *s, struct span text)
{
	size_t taken;

	if (conn_pass_on(s->host->engine, s->host->now, s->id, text.base, text.len, s->host->loan,
			 &taken))
		return 0;
	return (uint32_t)taken;
}

static int echo_open(struct session *s)
{
	echo_move(s);
	return 0;
}

const struct service_ops service_echo = {
	.name = "echo",
	.help = "sends back what it gets (RFC 862)",
	.direct = true,
	.text = echo_text,
	.open = echo_open,
	.readable = echo_move,
	.writable = echo_move,
	.peer_closed = echo_move,
};

/* RFC 864: lines of 72 out of the 95 printable characters, each line one character further, so the
 * pattern repeats after 95 lines.
 */
enum { CHARGEN_CHARS = 95, CHARGEN_WIDTH = 72, CHARGEN_LINE = CHARGEN_WIDTH + 2 };
enum {
	CHARGEN_PERIOD = CHARGEN_CHARS * CHARGEN_LINE,
	CHARGEN_BYTES = CHARGEN_PERIOD + 8 * ENGINE_CHUNK_BYTES
};
enum { CHARGEN_AT_ONCE = 1 << 20 };

uint8_t *chargen_new(void)
{
	uint8_t *const pattern = malloc(CHARGEN_BYTES);

	for (unsigned i = 0; pattern && i < CHARGEN_BYTES; i++) {
		const unsigned line = i / CHARGEN_LINE, column = i % CHARGEN_LINE;

		pattern[i] = column < CHARGEN_WIDTH
				     ? (uint8_t)(' ' + (line + column) % CHARGEN_CHARS)
			     : column == CHARGEN_WIDTH ? '\r'
						       : '\n';
	}
	return pattern;
}

/* Fills the send buffer; REPORT_WRITABLE brings us back. chargen_at is the offset in the pattern. */
static void chargen_send(struct session *s)
{
	const struct pattern pattern = { s->host->chargen, CHARGEN_PERIOD, CHARGEN_BYTES };
	size_t taken;

	do {
		if (conn_send_pattern(s->host->engine, s->host->now, s->id, &pattern, s->chargen_at,
				      CHARGEN_AT_ONCE, &taken))
			return;
		s->chargen_at = (uint32_t)((s->chargen_at + taken) % CHARGEN_PERIOD);
	} while (taken == CHARGEN_AT_ONCE);
}

static int chargen_open(struct session *s)
{
	s->chargen_at = 0;
	drop_unread(s);
	chargen_send(s);
	return 0;
}

const struct service_ops service_chargen = {
	.name = "chargen",
	.help = "sends characters until the peer closes (RFC 864)",
	.direct = true,
	.unread = true,
	.open = chargen_open,
	.text = take_all,
	.readable = drop_unread,
	.writable = chargen_send,
	.peer_closed = discard_peer_closed,
};

/* The peer's text is thrown away (RFC 867). Not with a RST: that could overtake the answer. The sink
 * stops reading only when the answer has arrived.
 */
static int daytime_open(struct session *s)
{
	const time_t now = (time_t)(s->host->realtime_us / 1000000);
	char text[64];
	struct tm tm;
	size_t len, taken;

	drop_unread(s);
	(void)gmtime_r(&now, &tm);
	len = strftime(text, sizeof(text), "%a %b %e %H:%M:%S %Y UTC\r\n", &tm);
	(void)conn_send(s->host->engine, s->host->now, s->id, text, len, &taken);
	close_mine(s);
	session_sink(s, false);
	return 0;
}

const struct service_ops service_daytime = {
	.name = "daytime",
	.help = "sends date and time, then closes (RFC 867)",
	.direct = true,
	.unread = true,
	.open = daytime_open,
	.text = take_all,
	.readable = drop_unread,
};
