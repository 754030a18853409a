/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP engine: every connection of one worker, and nothing else.
 *
 * The engine does no I/O, reads no clock, draws no randomness but from the seed it is given,
 * allocates nothing after engine_init(), and never calls back. A driver feeds it segments, user
 * calls and the time; it drains segments, reports and traces. Two drivers that feed the same calls
 * get the same results, byte for byte.
 *
 *	engine_input() for every segment at hand	RFC 9293 3.10.7
 *	engine_expire()					RFC 9293 3.10.8
 *	engine_next_report() until false		RFC 9293 3.9.1.8; user calls in between
 *	engine_output() until false			after all input: MUST-58, MUST-59
 *	engine_next_trace() until false			any time
 *	sleep until engine_deadline()
 *
 * Time never runs backwards. Calls that can fail return 0 or a negative errno; results go to ret_
 * arguments, which are written only on success. A conn_id that is stale gives -EBADF.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/steer.h"
#include "tcp/icmp.h"
#include "tcp/params.h"
#include "tcp/segment.h"
#include "tcp/state.h"
#include "tcp/trace.h"
#include "tcp/vtime.h"

struct engine;

/* A connection as seen from outside: never a pointer, so a stale one is found out. slot is below
 * conns_max and may index a table of the driver's own.
 */
typedef struct conn_id {
	uint32_t slot;
	uint32_t gen;
} conn_id;

typedef struct listener_id {
	uint32_t slot;
	uint32_t gen;
} listener_id;

struct engine_config {
	uint32_t conns_max; /* connections in every state, TIME-WAIT included */
	uint32_t listeners_max;
	uint32_t syn_received_max; /* of conns_max, how many may be in SYN-RECEIVED; 0 = all */
	uint32_t
		time_wait_max; /* of conns_max, how many may be in TIME-WAIT: the oldest gives way; 0 = all */
	/* Of conns_max, how many may be working at a time, beyond what our own calls and timers need; 0 = all.
	 * Others are at rest, in a quarter of the memory: idle, in TIME-WAIT or SYN-RECEIVED. Who cannot be
	 * worked with is not answered. */
	uint32_t working_max;
	uint32_t working_cache; /* beyond so many, rest is sought as soon as it may be; 0 = 16384 */
	bool no_rest; /* nobody rests: to compare with */
	uint32_t chunks_max; /* buffer chunks of ENGINE_CHUNK_BYTES, shared by all connections */
	uint32_t segment_bytes_max; /* text octets in one outgoing super-segment; 0 = one MSS */
	uint16_t local_port_min, local_port_max; /* for active opens without a port; inclusive */
	uint64_t secret[2]; /* key of the ISN function and the connection table, RFC 6528 */
	uint64_t serial_first; /* serial of the first connection; then one more each */
	uint64_t serial_step; /* distance of serials, so that workers do not collide; 0 is 1 */
	struct steer steer; /* of several engines: a port chosen here makes the flow this one's */
};

enum { ENGINE_CHUNK_BYTES = 16384 };

enum report_kind {
	REPORT_OPENED = 1 << 0, /* the connection is ESTABLISHED: the service may start */
	REPORT_READABLE = 1 << 1, /* text waits in the receive buffer */
	REPORT_WRITABLE =
		1 << 2, /* send buffer room, after conn_send() took less than was offered */
	REPORT_PEER_CLOSED = 1 << 3, /* the peer's FIN is next to read, or read */
	REPORT_ALL_ACKED = 1 << 4, /* our FIN was acknowledged: everything arrived */
	/* Last report; the TCB is CLOSED; then conn_release(). After a normal close it comes when everything that
	 * arrived is read, or nobody will: conn_stop_reading(), conn_abort(). */
	REPORT_CLOSED = 1 << 5,
	REPORT_URGENT =
		1 << 6, /* urgent data is on its way; conn_status() says how much: MUST-32 */
	REPORT_IN_DOUBT = 1 << 7, /* R1 retransmissions in a row had no answer: SHLD-9 */
};

struct report {
	conn_id id;
	uint64_t serial;
	unsigned kinds; /* enum report_kind, coalesced */
	bool opened_before; /* REPORT_OPENED was given at some time, this report included */
	enum end_reason reason; /* with REPORT_CLOSED */
};

/* In-order text that was not copied: valid until the next call on this engine, see engine_input(). */
struct delivery {
	conn_id id;
	struct span text; /* len 0: nothing to deliver */
};

struct listener_open {
	struct endpoint local; /* addr may be addr_any, addr_any4 or addr_any6 (MUST-43) */
	bool reuse_port; /* others may have the same `local`, if all of them say so */
	struct tcp_params params;
	uint32_t backlog; /* connections in SYN-RECEIVED at a time; 1.. */
	uint32_t
		conns_max; /* live connections of this listener at a time; 0 = no limit of its own */
	uint64_t cookie; /* the driver's; conn_status() shows it for connections of this listener */
};

struct conn_open {
	struct flow flow; /* local.port 0: the engine chooses, RFC 6056 */
	struct tcp_params params;
	uint16_t link_mtu; /* of the interface the SYN will leave by */
	uint64_t cookie;
};

/* STATUS, RFC 9293 3.9.1.6, and what the record needs at the end. */
struct conn_status {
	conn_id id;
	uint64_t serial;
	uint64_t cookie;
	enum tcp_state state;
	struct flow flow;
	bool passive;
	bool opened; /* was ESTABLISHED at some time */
	bool local_fin, remote_fin; /* our FIN is queued or sent; the peer's was received */
	enum closed_by closed_by;
	enum end_reason reason;
	enum icmp_error soft_error; /* the last that was heard of: SHLD-25 */
	vtime created_at, opened_at, closed_at; /* VTIME_NEVER when it did not happen */
	vtime state_since;
	vtime timer_at; /* next timer of any kind, VTIME_NEVER when none runs */
	seqno iss, irs, snd_una, snd_nxt, rcv_nxt;
	uint32_t snd_wnd, rcv_wnd; /* octets, scaled */
	uint8_t snd_wscale, rcv_wscale;
	bool timestamps, window_scaling, sack; /* in use on this connection */
	bool ecn; /* in use on this connection */
	bool fast_open; /* text of the SYN was taken, ours or the peer's */
	uint32_t cwnd_bytes, ssthresh_bytes;
	const char *congestion_control; /* the algorithm's name */
	uint32_t snd_mss, rcv_mss;
	uint32_t path_mtu; /* octets of an IP packet: the link's, or less when the path said so */
	uint8_t peer_dscp; /* of the last segment of the peer's that was taken: MAY-9 */
	uint32_t srtt_us, rttvar_us;
	uint32_t rttmin_us; /* least of the last 2.5 to 5 minutes; all three 0 until measured */
	uint32_t rto_us;
	uint64_t user_timeout_us; /* in force, RFC 5482 counted in; 0: for ever */
	uint64_t peer_user_timeout_us; /* what the peer said by that option; 0: nothing */
	uint32_t backoffs; /* retransmission timeouts in a row */
	uint32_t send_queue_bytes; /* unacknowledged and unsent: ss's Send-Q */
	uint32_t unacked_bytes;
	uint32_t receive_queue_bytes; /* unread: ss's Recv-Q */
	uint32_t reassembly_bytes;
	uint32_t
		urgent_bytes; /* from the next unread octet to the end of what is urgent: MUST-33 */
	bool in_doubt; /* between R1 and R2: see REPORT_IN_DOUBT */
	uint64_t bytes_in, bytes_out; /* text: delivered in order; acknowledged by the peer */
	uint64_t segments_in, segments_out;
	uint64_t retransmitted_segments, retransmitted_bytes;
};

struct listener_status {
	listener_id id;
	struct endpoint local;
	uint64_t cookie;
	uint32_t backlog;
	uint32_t syn_received; /* now */
	uint32_t live; /* connections of it in any state but CLOSED, now */
	uint64_t accepted; /* ever ESTABLISHED */
	uint64_t refused; /* SYN dropped: backlog, conns_max, nobody accepts */
	uint32_t room; /* connections that may still open; UINT32_MAX: any number */
};

struct engine_counters {
#define COUNTER(name, help) uint64_t name;
#include "tcp/counters.def"
#undef COUNTER
	uint32_t conns, conns_by_state[ST__COUNT];
	uint32_t chunks_used, chunks_peak;
	uint32_t conns_resting; /* now: of conns, those held as small records */
	uint64_t resting_bytes; /* which take so much */
};

/* Octets of memory that engine_init() needs, zeroed (fresh mmap or calloc): untouched pages cost nothing. */
size_t engine_size(const struct engine_config *cfg);
struct engine *engine_init(void *mem, const struct engine_config *cfg, vtime now);

/* Asserts every invariant; tests call it after each step. */
void engine_check(const struct engine *e);

/* Passive OPEN. -EADDRINUSE: the same address and port listens already. -ENOBUFS: listeners_max,
 * or too many different sets of parameters.
 * Several listeners may share a port with different addresses; the most specific serves. Those that share an
 * address part the connections among them by a hash of the flow.
 */
int engine_listen(struct engine *e, vtime now, const struct listener_open *open,
		  listener_id *ret_id);
/* Connections of the listener that are ESTABLISHED live on; those in SYN-RECEIVED are reset. */
int engine_unlisten(struct engine *e, vtime now, listener_id id);
/* The parameters of connections accepted from now on. -ENOBUFS: too many different sets. */
int engine_listener_set_params(struct engine *e, listener_id id, const struct tcp_params *params);
/* DropSynFin, Blackhole, TTL, DSCP and Personality where there is neither a connection nor a listener. Off, off, 64,
 * 0 and linux at first.
 */
void engine_set_unserved(struct engine *e, const struct tcp_params *params);
/* How many more of its connections may open: what its program has not accepted is limited, as listen(2) has
 * it. Each that opens takes one. At 0 no SYN is taken, by a cookie neither, and the ACK that would complete a
 * handshake is passed over: our SYN-ACK goes again, and with it the ACK. UINT32_MAX, at first: any number.
 */
int engine_listener_set_room(struct engine *e, listener_id id, uint32_t room);
int engine_listener_status(const struct engine *e, listener_id id,
			   struct listener_status *ret_status);

/* Active OPEN. With FastOpen for clients, text that conn_send() takes before the SYN is pulled may go with it
 * (RFC 7413), and arrive twice: for what may be done twice. -EADDRINUSE: the 4-tuple is taken. -EADDRNOTAVAIL: no local port is left. -ENOBUFS:
 * conns_max, or too many different sets of parameters. -EINVAL: remote is unspecified, broadcast or multicast (MUST-46), or local is unspecified.
 */
int engine_connect(struct engine *e, vtime now, const struct conn_open *open, conn_id *ret_id);

/* Would a SYN to f->remote carry text, with FastOpen for clients? */
bool engine_has_fast_open_cookie(struct engine *e, vtime now, const struct flow *f);

/* Takes as many octets as the send buffer has room for; *ret_taken may be 0. data may be what
 * conn_peek() lent, or a delivery that conn_delivered() has not answered yet: -ENOTCONN, -EPIPE.
 */
int conn_send(struct engine *e, vtime now, conn_id id, const void *data, size_t len,
	      size_t *ret_taken);
/* The same for what this connection received: a delivery that is not answered yet, or what is consumed next. The window
 * was open for it, so it finds room, unless memory is short; what the send buffer would not have taken keeps the window
 * shut as if it were unread. With a loan, whole chunks of data are not copied: they stay as they are until
 * engine_first_loan() is above it, or 0. Loans are numbered by the caller, from 1 on and never down; 0: all is copied.
 */
int conn_pass_on(struct engine *e, vtime now, conn_id id, const void *data, size_t len,
		 uint64_t loan, size_t *ret_taken);
/* The first loan that is not given back; 0: nothing is lent. */
uint64_t engine_first_loan(const struct engine *e);
/* Gives back all loans up to this one. Not while spans that engine_output() gave are in use. */
void engine_recall(struct engine *e, uint64_t loan);
/* The same for len octets of a text that repeats, from its octet `at` on. Of those 1 MiB may wait to be sent, also where
 * not_sent_lowat_bytes is less.
 */
int conn_send_pattern(struct engine *e, vtime now, conn_id id, const struct pattern *pattern,
		      uint32_t at, size_t len, size_t *ret_taken);
/* The same for urgent data: what stands in front of its end and is not acknowledged is urgent (MUST-62, RFC 6093);
 * the peer is told at once, also when its window is shut. */
int conn_send_urgent(struct engine *e, vtime now, conn_id id, const void *data, size_t len,
		     size_t *ret_taken);
/* The next spans of unread text, at most `max` of them; borrowed until the next call. Their number.  */
unsigned conn_peek(const struct engine *e, conn_id id, struct span *ret_spans, unsigned max);
/* Drops n octets from the front of the unread text and opens the window by them. */
int conn_consume(struct engine *e, vtime now, conn_id id, size_t n);
/* Copies and consumes. *ret_got is 0 when nothing waits. */
int conn_receive(struct engine *e, vtime now, conn_id id, void *buf, size_t len, size_t *ret_got);
/* Has the peer's FIN been reached: nothing unread, and nothing more will come? */
bool conn_at_eof(const struct engine *e, conn_id id);

/* CLOSE, RFC 9293 3.10.4: no more conn_send(); queued text goes out, then FIN. Receiving goes on
 * until the peer's FIN. -ENOTCONN, -EPIPE (closing already). by: CAUSE_USER or CAUSE_OPERATOR.
 */
int conn_close(struct engine *e, vtime now, conn_id id, enum cause by);
/* Nobody will read any more. With unread text, or when text arrives later, the peer gets a RST
 * (SHLD-3). FIN-WAIT-2 is limited from here on. Call it with conn_close() when a service is gone.
 */
int conn_stop_reading(struct engine *e, vtime now, conn_id id);
/* ABORT, RFC 9293 3.10.5: RST, and the connection is gone. reason is what the record will say. */
int conn_abort(struct engine *e, vtime now, conn_id id, enum cause by, enum end_reason reason);
int conn_status(const struct engine *e, conn_id id, struct conn_status *ret_status);
/* After REPORT_CLOSED: gives the slot back. */
void conn_release(struct engine *e, conn_id id);

/* A service that takes text as it arrives asks for it: see engine_input(). */
int conn_set_direct(struct engine *e, conn_id id, bool on);
/* Those in force. */
int conn_params(const struct engine *e, conn_id id, struct tcp_params *ret_params);
/* At once, but for what only the handshake goes by. Timers that run are moved as if they had been set so.
 * -ENOTCONN: it has ended. -ENOBUFS: connections and listeners have too many different sets of parameters. */
int conn_set_params(struct engine *e, vtime now, conn_id id, const struct tcp_params *params);

/* The MTU of the interface it goes by has changed; 0: unknown, nothing changes. */
int conn_set_mtu(struct engine *e, vtime now, conn_id id, uint16_t link_mtu);

/* Walks connections in slot order from *cursor (0 to start), any state but CLOSED and read to its end. */
bool engine_next_conn(const struct engine *e, uint32_t *cursor, conn_id *ret_id);
bool engine_find_serial(const struct engine *e, uint64_t serial, conn_id *ret_id);

/* One segment from the network; checksum and addresses already checked. seg's spans are borrowed for
 * the call. When the connection asked for direct delivery, nothing unread waits and the text is next
 * in order, the text is not copied: ret_delivery names it, rcv.nxt has moved, and the driver must
 * call conn_delivered() before any other call on this engine but conn_send() and conn_pass_on().
 */
void engine_input(struct engine *e, vtime now, const struct segment *seg,
		  struct delivery *ret_delivery);
/* How much of the delivery was used; what is left is copied into the receive buffer. */
void conn_delivered(struct engine *e, vtime now, const struct delivery *d, uint32_t taken);

/* An ICMP error whose quoted segment came from an address and port of ours. */
void engine_icmp(struct engine *e, vtime now, const struct icmp_message *m);

void engine_expire(struct engine *e, vtime now);
/* When engine_expire() wants to be called next; a lower bound. VTIME_NEVER: no timer runs. */
vtime engine_deadline(const struct engine *e);

/* Quiet connections go to rest: to be called with each wakeup, some hundred are looked at. When to call it
 * next, also if nothing happens; VTIME_NEVER: only when something did. */
vtime engine_rest(struct engine *e, vtime now);
/* All that may, at once. */
void engine_rest_all(struct engine *e);
/* A piece of the engine's memory, whole pages when the whole begins with one, that holds nothing: what is in it
 * is undefined from now on, so that the driver may give it back to the system. Only what was not used since
 * this last said false, and never all. False: there is none. */
bool engine_next_unused(struct engine *e, void **ret_memory, size_t *ret_bytes);

/* The next segment for the wire. Its spans point into the engine and hold until the next call on it
 * other than engine_output(), engine_next_report() and engine_next_trace(): a driver may gather a batch.
 * Pull only what can be sent: a segment pulled counts as sent.
 */
bool engine_output(struct engine *e, vtime now, struct segment *ret_seg);
bool engine_next_report(struct engine *e, struct report *ret_report);
bool engine_next_trace(struct engine *e, struct trace *ret_trace);
void engine_counters(const struct engine *e, struct engine_counters *ret_counters);
/* Transitions taken since engine_init(): bit `to` of ret_edges[from]. The tests read it. */
void engine_edges(const struct engine *e, uint32_t ret_edges[ST__COUNT]);
/* The ISN the engine would choose now for this flow, RFC 6528. For tests that place a near-wrap ISN. */
seqno engine_isn(const struct engine *e, const struct flow *f, vtime now);
