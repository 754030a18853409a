/* SPDX-License-Identifier: Apache-2.0 */
/* The transmission control block and the engine's inside. Private to daemon/tcp/. Field names are the
 * RFC's where it has one (RFC 9293 3.3.1).
 */
#pragma once
#include "base/macros.h"
#include "tcp/buffer.h"
#include "tcp/cc.h"
#include "tcp/ecn.h"
#include "tcp/engine.h"
#include "tcp/list.h"
#include "tcp/recovery.h"
#include "tcp/slabs.h"
#include "tcp/timers.h"

_Static_assert((int)CHUNK_BYTES == (int)ENGINE_CHUNK_BYTES, "one size of chunks");
_Static_assert(sizeof(struct flow) == 40, "flows are hashed as octets: no padding");

/* At most `max` in any period of `period_us`, RFC 5961 7. */
struct limit {
	vtime since;
	uint32_t n;
};

/* RFC 5682: which acknowledgement after a timeout is waited for. */
enum frto { FRTO_NONE, FRTO_FIRST, FRTO_SECOND };

/* A place in a list by age, of a TCB or of a connection at rest. */
struct aged {
	struct link link;
	uint32_t conn; /* slot */
};

/* How far the receive window's limit has to grow: of the last round trips. All zeros: begins with the next text. */
struct sizing {
	vtime since; /* when this round began */
	uint32_t read, before; /* octets that the application took in this round and in the last */
	uint32_t rtt_us; /* a round; 0: SRTT is */
	uint32_t least_us; /* least measured in this round; 0: none */
	seqno edge; /* without timestamps: was offered at edge_at */
	vtime edge_at;
};

/* Do full segments vanish, where smaller ones pass? RFC 4821. */
struct hole {
	bool passed; /* a full segment has arrived at the peer */
	bool silent; /* path_mtu is lower because they vanished, and nobody said why */
	bool raise; /* a larger segment is to be tried */
	uint8_t vanished; /* timeouts of a full segment since one passed, at most 15 */
	uint8_t proofs; /* smaller ones that passed in its place since then */
	enum { TRIAL_NONE, TRIAL_SMALLER, TRIAL_LARGER } trial; /* is out */
	uint16_t full_mtu; /* TRIAL_SMALLER: path_mtu before */
	uint32_t full_mss; /* and snd.mss */
	seqno end; /* TRIAL_LARGER: of that segment */
};

struct tcb {
	struct flow flow; /* for as long as it lives: MUST-45 */
	uint32_t slot; /* which names it */
	enum tcp_state state;

	bool busy; /* since the hand of engine.rounds came by */
	bool in_use; /* allocated and not released: conn_ids of gen are valid */
	bool passive; /* MUST-11 */
	bool opened; /* was ESTABLISHED */
	bool direct; /* the service takes text as it arrives */
	bool stopped; /* nobody reads any more */
	bool unread_end; /* CLOSED after a normal close, and its user has not read everything yet */
	bool close_queued; /* CLOSE in SYN-RECEIVED with text pending: 3.10.4 */
	enum cause close_cause; /* of close_queued */
	bool rst_owed; /* CLOSED, and the peer is to be told */
	bool timestamps, window_scaling, sack; /* in use on this connection */
	bool want_writable; /* conn_send() took less than was offered */
	enum end_reason reason;
	enum closed_by closed_by;
	enum icmp_error soft_error; /* the last that was heard of */

	seqno iss, irs;
	struct {
		seqno una, nxt, wl1, wl2;
		seqno rtx; /* next to put on the wire: behind nxt while retransmitting */
		uint32_t wnd; /* octets, scaled: REC-1 */
		uint32_t wnd_max; /* largest the peer ever offered: SWS avoidance, RFC 5961 5.2 */
		uint16_t mss_peer; /* as the peer announced it, or the default; 0: not known yet */
		uint16_t ip_id; /* of the next packet: see personality_ip_id() */
		uint32_t mss; /* text octets of a full segment, options deducted: MUST-16 */
		uint8_t wscale;
		seqno up; /* with urgent: SND.UP, the octet after the last urgent one */
		bool urgent; /* urgent mode: una has not come to up */
		bool fin_queued; /* CLOSE was called: a FIN follows the last octet queued */
		bool fin_acked;
		bool fast; /* one segment at una is to be sent again: RFC 5681 3.2 */
		bool force; /* one segment may go whatever the window and Nagle say */
		bool probing; /* what is outstanding was a probe into a closed window */
		bool tail_probe; /* a tail loss probe is to be sent */
		bool syn_acked; /* not `una != iss`: after 4 GiB they meet again */
		bool syn_lost; /* the SYN was sent more than once */
		bool ambiguous; /* sent again since an RTT was measured: only a timestamp can measure */
		bool timing; /* an RTT is being measured: of the octet before timed_end */
		bool pattern; /* what was queued last is of a pattern */
		seqno small_end; /* end of the last segment sent that was not full; una when that arrived */
		seqno timed_end;
		vtime timed_at;
		vtime last_at; /* when text was last sent */
	} snd;
	struct {
		seqno nxt;
		seqno adv; /* right edge offered: never moves left (SHLD-14) */
		seqno acked; /* rcv.nxt as last sent: Last.ACK.sent of RFC 7323 */
		seqno fin_at; /* with fin_known: where the peer's FIN is */
		uint32_t limit; /* octets that the window may span: buffer, pool and scale */
		struct sizing sizing;
		uint32_t unacked; /* octets in order since the last ACK */
		uint32_t mss_seen; /* largest piece that arrived: what two segments are, SHLD-19 */
		uint32_t passed; /* octets passed on into a full send buffer: as if unread */
		uint16_t mss; /* what we announced */
		uint16_t
			reserved; /* not 0: the first windows, as Linux has them: octets of limit that are not
				      offered; the edge moves by less than a segment while it is wide open */
		uint8_t wscale;
		seqno up; /* with urgent: RCV.UP, the octet after the last urgent one */
		bool urgent; /* urgent mode: not all up to there is read */
		bool fin_known; /* a FIN arrived, maybe before the text in front of it */
		bool fin; /* rcv.nxt has passed it */
		bool ack_now;
		uint8_t dscp; /* of the peer's last acceptable segment: MAY-9 */
		uint8_t dup_acks; /* duplicate ACKs owed, one per segment out of order: RFC 5681 3.2 */
		struct sack_block
			dup; /* arrived twice and not reported yet: RFC 2883; empty: nothing */
	} rcv;
	struct {
		uint32_t recent; /* TS.Recent */
		uint32_t offset; /* of our clock, per connection */
		vtime recent_at;
	} ts;
	struct {
		const struct cc_ops *ops;
		uint32_t cwnd, ssthresh; /* octets */
		uint32_t acked; /* octets acknowledged towards the next increment */
		uint8_t dup_acks; /* in a row, arrived */
		bool recovering;
		bool recovery_acked; /* the first partial ACK was seen */
		seqno recover; /* RFC 6582 */
		uint8_t frto; /* enum frto */
		uint32_t frto_room; /* octets beyond cwnd that may go: RFC 5682 2.1 (2b) */
		bool reordered; /* the network does: RFC 8985 6.2 step 3 */
		uint8_t reo_steps,
			reo_kept; /* by which it is waited for longer, and for how long yet */
		bool limited; /* cwnd was what ended the last burst: it is in use */
		uint32_t peak; /* most octets in flight in this round */
		seqno peak_end; /* the round lasts until this is acknowledged */
		struct cubic cubic;
		struct hystart hystart;
	} cc;
	struct ecn ecn;
	struct { /* the last tail loss probe, RFC 8985 7: looked at when all has arrived, too */
		bool out; /* it is not known yet what became of it */
		bool again; /* it repeated text: TLP.is_retrans */
		bool unmeasured; /* no round trip was measured since: no other one goes */
		seqno end; /* SND.NXT behind it: TLP.end_seq */
	} tlp;
	struct {
		uint32_t remote_s; /* REMOTE_UTO of RFC 5482; 0: none was received */
		bool owed; /* ours is to be told, in a segment that is no SYN */
	} uto;
	struct {
		bool asked; /* our SYN has the option */
		bool give; /* our SYN-ACK brings a cookie */
		bool pending; /* counts in listener.fast_open_pending */
		bool early; /* text of the SYN was taken */
	} fast_open; /* RFC 7413 */
	struct {
		uint32_t srtt_8; /* SRTT in 1/8 us; 0: not measured */
		uint32_t var_4; /* RTTVAR in 1/4 us */
		uint32_t min_us; /* the least of some minutes: see keep_least() */
		uint32_t stretch, stretch_us; /* which of them this is, and its least */
		uint32_t rto_us; /* without backoff */
		uint8_t backoffs; /* in a row */
	} rtt;

	struct {
		vtime heard_at; /* when the last segment of the peer's came */
		uint32_t probes; /* sent since */
		bool owed; /* one is to be sent */
	} keepalive;

	uint32_t recovery; /* of engine.recoveries, index + 1; 0: nothing is in flight */
	struct sendq sendq;
	struct recvq recvq;

	struct timer_node node; /* runs until the earliest of timers[], or earlier */
	vtime timers[TIMER__COUNT]; /* VTIME_NEVER: off */
	struct limit challenges;

	struct link out; /* engine.out or engine.out_few: something may be sent */
	struct link reporting; /* engine.reporting: reports is not 0 */
	struct aged age; /* listener.half_open in SYN-RECEIVED, engine.time_wait in TIME-WAIT */
	struct link waiting; /* engine.waiting: for a chunk to send with */
	unsigned reports; /* enum report_kind */

	uint64_t serial, cookie;
	listener_id listener; /* passive */
	uint32_t flow_label; /* of its IPv6 packets; 0: none */
	uint16_t link_mtu;
	uint16_t path_mtu; /* lower than the link's; 0: none known. Until TIMER_PATH_MTU */
	struct hole hole;
	vtime created_at, opened_at, closed_at, state_since;
	uint64_t bytes_in, bytes_out, segments_in, segments_out;
	uint64_t retransmitted_segments, retransmitted_bytes;
	const struct tcp_params *params; /* held: one of engine.params */
};

/* What a conn_id names. There is one for each connection, in use or not. */
struct slot {
	uint32_t gen;
	uint32_t where; /* of its TCB, in engine.tcbs; with SLOT_RESTS in engine.rests; 0: free */
	struct {
		uint32_t hash;
		uint32_t
			next; /* slot + 1 in the bucket's chain; BY_FLOW: in the free list while free */
	} by[2]; /* enum table_by */
};

#define SLOT_RESTS (1U << 31)

enum table_by { BY_FLOW, BY_SERIAL, BY__COUNT };

struct table {
	uint32_t *buckets; /* slot + 1 */
	uint32_t n, mask; /* buckets in use: at most mask + 1, more than half of it */
	uint32_t max, used; /* buckets; connections */
};

/* A set of parameters and who has it: listeners and connections. */
struct param_set {
	struct tcp_params params; /* first: a set is found by it */
	uint32_t refs;
	uint32_t next; /* index + 1 in its bucket, or in the free list */
};

enum { PARAM_BUCKETS = 64 };

struct params_table {
	struct param_set *all;
	uint32_t max, fresh, free, used;
	uint32_t buckets[PARAM_BUCKETS]; /* index + 1 */
};

struct listener {
	uint32_t gen;
	uint32_t port_next; /* slot + 1 in the chain of its port; in the free list while free */
	bool in_use;
	bool reuse_port; /* others may share `local` */
	struct endpoint local;
	const struct tcp_params *params; /* held: one of engine.params */
	uint64_t cookie;
	uint32_t backlog, conns_max;
	uint32_t syn_received, live;
	uint32_t room; /* how many more may open */
	uint32_t fast_open_pending; /* half open, with text taken from the SYN */
	uint64_t accepted, refused;
	struct link half_open; /* its connections in SYN-RECEIVED */
	vtime cookies_at; /* when the last SYN cookie was sent; VTIME_NEVER */
};

/* A peer's Fast Open cookie, or that its path loses such SYNs. */
struct fast_open_peer {
	struct ipaddr addr;
	uint32_t scope;
	bool used;
	uint8_t cookie_n; /* 0: none */
	uint16_t mss; /* that the peer announced with it */
	uint8_t cookie[SEG_FAST_OPEN];
	vtime at; /* of the news; the oldest gives way */
	vtime shunned; /* until then no SYN has the option */
};

enum { FAST_OPEN_SETS = 128, FAST_OPEN_WAYS = 4 };
enum { REPLIES_MAX = 512, TRACES_MAX = 4096, PORT_BUCKETS = 256 };

struct engine {
	struct engine_config cfg;
	vtime now;
	struct engine_counters counters; /* chunks_* are filled in when asked */
	uint32_t edges[ST__COUNT];

	struct slot *slots; /* conns_max */
	uint32_t slots_fresh; /* those below were used at some time */
	uint32_t slots_free; /* slot + 1 */
	struct slabs tcbs; /* working */
	struct slabs rests; /* rest.c */
	struct {
		uint32_t hand; /* a cursor of tcbs */
		bool more; /* in this round somebody was busy, or had to wait for the driver */
		bool wanted; /* somebody may be quiet by the next */
		vtime next; /* when that begins */
	} rounds;
	struct table tables[BY__COUNT];
	struct params_table params;
	uint32_t ephemeral; /* RFC 6056: counts local ports given out */
	uint64_t serial_next;

	struct listener *listeners;
	uint32_t listeners_fresh, listeners_free;
	uint32_t ports[PORT_BUCKETS]; /* slot + 1 */

	struct pool pool;
	struct wheel wheel;
	struct runs runs;
	struct recoveries recoveries;
	struct link out, reporting, time_wait, waiting;
	struct link out_few; /* like out, of those that have little to send: they go first */
	uint32_t turn_bytes, few_bytes; /* sent in a row by the first of out, and of out_few */
	unsigned few_n; /* segments of out_few in a row, while others wait */
	struct {
		bool drop_syn_fin, blackhole;
		uint8_t ttl, dscp;
		int personality;
	} unserved; /* of struct tcp_params: for what no listener has */
	struct limit challenges;

	/* The segment that engine_input() works on, as it came: what traces say of it. */
	struct {
		uint8_t ctl;
		seqno seq, ack;
		uint32_t len; /* SEG.LEN */
	} arriving;
	/* A delivery that conn_delivered() has not answered yet. */
	struct {
		struct tcb *tcb;
		const uint8_t *text;
		uint32_t len;
		uint32_t piece;
	} direct;

	struct fast_open_peer fast_open[FAST_OPEN_SETS][FAST_OPEN_WAYS];
	struct segment replies[REPLIES_MAX]; /* answers that no connection gives; without text */
	uint32_t replies_head, replies_n;
	bool replied; /* what went last was one: connections have their turn */
	struct trace traces[TRACES_MAX];
	uint32_t traces_head, traces_n;
};

static inline bool vtime_is_set(vtime t)
{
	return vtime_before(t, VTIME_NEVER);
}

/* How far `now` is past t; 0 when it is not. */
static inline uint64_t vtime_since(vtime now, vtime t)
{
	return vtime_before(t, now) ? now.us - t.us : 0;
}

/* What is sent and not acknowledged, in sequence numbers. */
static inline uint32_t tcb_flight(const struct tcb *t)
{
	return seq_sub(t->snd.nxt, t->snd.una);
}

/* Is the handshake's SYN acknowledged? */
static inline bool tcb_syn_acked(const struct tcb *t)
{
	return t->snd.syn_acked;
}

/* Where the queued text ends, and the FIN goes. */
static inline seqno tcb_text_end(const struct tcb *t)
{
	return seq_add(t->sendq.front, t->sendq.used);
}

static inline uint32_t tcb_rcv_wnd(const struct tcb *t)
{
	return seq_ahead(t->rcv.adv, t->rcv.nxt);
}

/* engine.c */
void engine_clock(struct engine *e, vtime now);
/* For what may be called while a delivery is unanswered. */
void engine_clock_delivering(struct engine *e, vtime now);
/* NULL: stale. It works from now on. */
struct tcb *engine_find(struct engine *e, conn_id id);
/* The same to read only: a copy when it rests. */
const struct tcb *engine_look(const struct engine *e, conn_id id, struct tcb *copy);
conn_id engine_id(const struct engine *e, const struct tcb *t);
/* A new TCB in state CLOSED or LISTEN, in the table under its flow. NULL: conns_max. */
struct tcb *tcb_new(struct engine *e, enum tcp_state state, const struct flow *f, uint32_t hash);
void tcb_free(struct engine *e, struct tcb *t);
/* Every change of state. detail: see struct trace. */
void tcb_enter(struct engine *e, struct tcb *t, enum tcp_state to, enum cause cause,
	       unsigned detail, enum rule rule);
/* CLOSED, for the reason. */
void tcb_end(struct engine *e, struct tcb *t, enum end_reason reason, enum cause cause,
	     unsigned detail, enum rule rule);
/* CLOSED, and everything is read: its user is told that it is over. */
void tcb_over(struct engine *e, struct tcb *t);
/* Nobody will read what is unread in CLOSED. */
void tcb_forget_unread(struct engine *e, struct tcb *t);
/* The same, and the peer gets a RST. */
void tcb_reset(struct engine *e, struct tcb *t, enum end_reason reason, enum cause cause,
	       unsigned detail, enum rule rule);
void tcb_report(struct engine *e, struct tcb *t, enum report_kind kind);
void tcb_want_output(struct engine *e, struct tcb *t);
/* t NULL: for no connection. Counts nothing. */
void engine_refused(struct engine *e, const struct tcb *t, enum tcp_state state,
		    const struct flow *f, enum rule rule);
void engine_edge(struct engine *e, const struct endpoint *local, uint32_t slot, enum tcp_state from,
		 enum tcp_state to, enum cause cause, enum rule rule);
bool limit_allows(struct limit *l, vtime now, uint32_t max, uint64_t period_us);

/* The same for a stranger's sake. NULL: too many are working. */
struct tcb *slot_arrived(struct engine *e, uint32_t slot);
/* To read only: a copy when it rests. */
const struct tcb *slot_look(const struct engine *e, uint32_t slot, struct tcb *copy);
bool slot_has_flow(const struct engine *e, uint32_t slot, const struct flow *f);
uint64_t slot_serial(const struct engine *e, uint32_t slot);

static inline bool slot_rests(const struct engine *e, uint32_t slot)
{
	return e->slots[slot].where & SLOT_RESTS;
}

/* The TCB of a slot in use that does not rest. */
static inline struct tcb *slot_tcb(const struct engine *e, uint32_t slot)
{
	return slabs_at(&e->tcbs, e->slots[slot].where);
}

struct tcb *rest_wake(struct engine *e, uint32_t slot);

/* The same of one that may rest: then it does no more. */
static inline struct tcb *slot_wake(struct engine *e, uint32_t slot)
{
	struct tcb *t;

	if (slot_rests(e, slot))
		return rest_wake(e, slot);
	t = slot_tcb(e, slot);
	t->busy = e->rounds.wanted = true;
	return t;
}

/* rest.c. A slot here is of a connection that rests, but for rest_try() and rest_check(). */
/* When it may; then t is gone. */
bool rest_try(struct engine *e, struct tcb *t);
void rest_if_waiting(struct engine *e, struct tcb *t);
void rest_look(const struct engine *e, uint32_t slot, struct tcb *ret_copy);
bool rest_has_flow(const struct engine *e, uint32_t slot, const struct flow *f);
uint64_t rest_serial(const struct engine *e, uint32_t slot);
vtime rest_due(const struct engine *e, uint32_t slot);
struct timer_node *rest_node(const struct engine *e, uint32_t slot);
/* Before one more is to work: others go to rest when there are many. False: there is no room for a stranger.
 * Nobody may hold a TCB that could rest. */
bool rest_make_room(struct engine *e, bool stranger);
void rest_check(const struct engine *e, const struct tcb *t);

/* table.c */
uint32_t table_hash(const struct engine *e, const struct flow *f);
uint32_t table_serial_hash(const struct engine *e, uint64_t serial);
void table_init(struct table *m, uint32_t *buckets, uint32_t max);
/* Slot + 1; 0: none. */
uint32_t table_find(const struct engine *e, const struct flow *f, uint32_t hash);
uint32_t table_find_serial(const struct engine *e, uint64_t serial);
void table_insert(struct engine *e, enum table_by by, uint32_t slot, uint32_t hash);
void table_remove(struct engine *e, enum table_by by, uint32_t slot);

/* params_table.c: sets live for as long as they are held. */
/* Held once more. NULL: no set is left. */
const struct tcp_params *params_take(struct engine *e, const struct tcp_params *p);
const struct tcp_params *params_hold(struct engine *e, const struct tcp_params *held);
void params_drop(struct engine *e, const struct tcp_params *held); /* NULL is nothing */
uint32_t params_id(const struct engine *e, const struct tcp_params *held);
const struct tcp_params *params_at(const struct engine *e, uint32_t id);

/* listeners.c */
/* Room for one more connection whose peer has shown that he hears us: in LISTEN, the listener's. NULL: there
 * is none, and that is counted. A half-open one may give way to it. */
struct tcb *listener_accept(struct engine *e, struct listener *l, const struct flow *f,
			    uint32_t hash);
/* The oldest half-open connection of the listener ends: nobody is told. False: there is none. */
bool listener_drop_half_open(struct engine *e, struct listener *l);
/* A SYN, or a cookie, is not taken: nobody accepts. */
void listener_is_crowded(struct engine *e, struct listener *l, const struct flow *f);
/* hash: of the flow, by which those that share an address part what comes. */
struct listener *listener_find(struct engine *e, const struct endpoint *to, uint32_t hash);
struct listener *listener_of(const struct engine *e, listener_id id);
listener_id listener_id_of(const struct engine *e, const struct listener *l);

/* cookie.c */
/* Answers a SYN that gets no record. */
void cookie_answer(struct engine *e, struct listener *l, const struct segment *seg);
enum cookie {
	COOKIE_NONE, /* the ACK brings none: 3.10.7.2 second */
	COOKIE_OPENED, /* *ret_tcb is in SYN-RECEIVED, and the ACK still to be looked at */
	COOKIE_WAITS, /* there is no room, or it may come later: the peer sends again */
};
/* An ACK for a half-open connection. True: the peer took a cookie that we sent for the same SYN, while there was no
 * record, and so it is the cookie's: t is CLOSED. */
bool cookie_supersedes(struct engine *e, struct tcb *t, const struct segment *seg);
/* An ACK for a listener. */
enum cookie cookie_arrives(struct engine *e, struct listener *l, const struct segment *seg,
			   uint32_t hash, struct tcb **ret_tcb);

/* fastopen.c */
/* A SYN for a listener. True: its text is to be taken. */
bool fast_open_arrives(struct engine *e, struct tcb *t, struct listener *l,
		       const struct segment *syn);
/* The option of our SYN; the octets of text that go with it. */
uint32_t fast_open_fill_syn(struct engine *e, struct tcb *t, struct segment *out);
void fast_open_fill_syn_ack(const struct engine *e, const struct tcb *t, struct segment *out);
/* A SYN-ACK for our SYN: it may bring a cookie. */
void fast_open_answered(struct engine *e, const struct tcb *t, const struct segment *seg);
/* Our SYN was not answered in time. */
void fast_open_lost(struct engine *e, struct tcb *t);

/* isn.c */
uint32_t isn_ts_offset(const struct engine *e, const struct flow *f);
uint32_t isn_port_offset(const struct engine *e, const struct flow *f);
/* Where a connection's IP identifications begin. */
uint16_t isn_ip_id(const struct engine *e, const struct tcb *t);
/* Of 20 bits, not 0: RFC 6437 3. */
uint32_t isn_flow_label(const struct engine *e, const struct flow *f);
/* Our timestamp clock for this connection, milliseconds. */
uint32_t tcb_ts_now(const struct engine *e, const struct tcb *t);

/* personality.c */
uint8_t personality_layout(const struct tcb *t);
/* By what the window scale is chosen. */
uint32_t personality_scaled_bytes(const struct tcp_params *params);
/* What the window may span. */
uint32_t personality_buffer_bytes(const struct tcb *t);
/* The window offered at first; 0: all of that. */
uint32_t personality_initial_bytes(const struct tcb *t);
/* What a SYN or SYN-ACK says of a window of so many octets. */
uint16_t personality_syn_window(const struct tcb *t, uint32_t window);
/* See rcv.reserved. */
uint16_t personality_reserved(const struct tcb *t);
/* Is the window that is told less than what is accepted, where the header's field is too coarse or too small
 * for it? */
bool personality_rounds_down(const struct tcb *t);
/* The IP identification of the next packet, or of the first of so many. */
uint16_t personality_ip_id(struct tcb *t, uint32_t pieces);
/* The IPv6 flow label of all packets of a flow; 0: none, or IPv4. personality: enum tcp_personality. */
uint32_t personality_flow_label(const struct engine *e, int personality, const struct flow *f);

/* handshake.c: what both opens share */
enum { TCP_WSCALE_MAX = 14 }; /* RFC 7323 2.3 */
enum { TCP_TIMESTAMPS_BYTES = 12 }; /* the option with its two NOPs */
uint16_t mss_of_link(uint16_t link_mtu, bool v4);
/* Without the option: MUST-15. */
uint16_t mss_default(bool v4);
uint8_t tcb_scale_for(const struct tcp_params *params);
/* params: held by the caller; the TCB holds it too. */
void tcb_open(struct engine *e, struct tcb *t, const struct tcp_params *params, uint16_t link_mtu);
/* Before anything was sent. */
void tcb_set_iss(struct tcb *t, seqno iss);
void tcb_limit_handshake(struct engine *e, struct tcb *t);
/* What the peer's SYN says: IRS, window, options. */
void tcb_take_syn(const struct engine *e, struct tcb *t, const struct segment *seg);
/* The service may begin: at ESTABLISHED, or with the text of a SYN. */
void tcb_opened(struct engine *e, struct tcb *t);
void tcb_established(struct engine *e, struct tcb *t);
/* snd.mss from what the peer, the link and the path take. */
void tcb_fit_mss(struct tcb *t);
/* The same of a path that takes packets of so many octets. */
uint32_t tcb_mss_by(const struct tcb *t, uint32_t mtu);

/* ack.c */
enum verdict { CONTINUE, DONE };
enum verdict arrives_check_ack(struct engine *e, struct tcb *t, struct segment *seg);
/* SND.UNA < ack =< SND.NXT: text, SYN and FIN up to it have arrived. */
void tcb_acked(struct engine *e, struct tcb *t, const struct segment *seg, seqno ack);

/* arrives_text.c */
void arrives_from_sixth(struct engine *e, struct tcb *t, struct segment *seg, struct delivery *ret);
/* The text of a SYN, before the handshake is complete: RFC 7413 4.2.2. */
void arrives_text_of_syn(struct engine *e, struct tcb *t, struct segment *seg);
/* Text that arrived before came again: the next ACK says so, RFC 2883. */
void tcb_duplicate(struct tcb *t, seqno left, seqno right);
/* Text was read: up to the end of what was urgent? */
void tcb_read_urgent(struct tcb *t);
/* Takes n octets of sequence space off the front. */
void seg_trim_front(struct segment *seg, uint32_t n);
/* Leaves `keep` octets of text; what is cut takes the FIN with it. */
void seg_trim_back(struct segment *seg, uint32_t keep);

/* timeouts.c */
void timer_set(struct engine *e, struct tcb *t, enum timer_kind kind, vtime at);
void timer_clear(struct tcb *t, enum timer_kind kind);
void timers_clear(struct engine *e, struct tcb *t);
vtime tcb_next_timer(const struct tcb *t);
/* The retransmission timer starts anew, or stops, as what is outstanding says. */
void tcb_rearm(struct engine *e, struct tcb *t);
void tcb_start_time_wait(struct engine *e, struct tcb *t, enum rule rule);
/* The ACK that TIME-WAIT owed is out. */
void tcb_time_wait_acked(struct engine *e, struct tcb *t);
void tcb_limit_fin_wait_2(struct engine *e, struct tcb *t);
/* Between R1 and R2. */
bool tcb_in_doubt(const struct tcb *t);

/* rtt.c */
void rtt_open(struct tcb *t);
void rtt_sample(struct tcb *t, vtime now, uint64_t us);
/* Its bounds have changed, or it was backed off without need. */
void rtt_refit(struct tcb *t);
/* At ESTABLISHED, when the SYN was sent more than once: RFC 6298 5.7. */
void rtt_after_lost_syn(struct tcb *t);
uint32_t rtt_rto_us(const struct tcb *t); /* with backoff */
/* SRTT and RTTVAR in microseconds; SRTT is 0 until something was measured. */
uint32_t rtt_smoothed_us(const struct tcb *t);
uint32_t rtt_variation_us(const struct tcb *t);

/* output.c */
/* An ACK is to be sent after all input is in. */
void tcb_ack_now(struct engine *e, struct tcb *t);
/* The same, but only within the limits of RFC 5961 7. */
void tcb_challenge(struct engine *e, struct tcb *t);
/* Is there anything that has not been sent at all? */
bool tcb_has_unsent(const struct tcb *t);
/* So little that is not sent yet that nobody waits for it for long. */
bool tcb_has_little(const struct tcb *t);
/* What our SYN or SYN-ACK says. */
void tcb_fill_syn(const struct engine *e, struct tcb *t, struct segment *out);
/* A place for an answer that no connection gives; all of it is to be filled in. NULL, and counted: the
 * queue is full but for `spared`. */
struct segment *reply_next(struct engine *e, uint32_t spared);
/* Reset Generation, RFC 9293 3.5.2. */
void reply_reset(struct engine *e, const struct segment *in, uint8_t ttl, uint8_t dscp,
		 uint32_t flow_label);

/* uto.c */
/* USER_TIMEOUT of RFC 5482; 0: for ever. */
uint64_t tcb_user_timeout_us(const struct tcb *t);
/* At the opening, and when parameters changed: `before` were the old ones, NULL: it opens. */
void uto_open(struct engine *e, struct tcb *t, const struct tcp_params *before);
/* What the peer's SYN says of it. */
void uto_take(struct tcb *t, const struct segment *seg);
void uto_arrives(struct engine *e, struct tcb *t, const struct segment *seg);
void uto_fill(const struct tcb *t, struct segment *out);

/* settings.c: it was before_us, and is tcb_user_timeout_us() now. */
void tcb_refit_user_timeout(struct engine *e, struct tcb *t, uint64_t before_us);

/* window.c */
/* After params changed, or the handshake settled the scale. */
void window_set_limit(const struct engine *e, struct tcb *t);
/* Text in order is arriving: what does it say of the round trip? */
void window_heard(const struct engine *e, struct tcb *t, const struct segment *seg);
/* The application has read n octets: it may be worth a larger window. */
void window_read(const struct engine *e, struct tcb *t, uint32_t n);
/* The header's window field, of what is sent now. */
uint16_t window_offer(const struct engine *e, struct tcb *t);
/* After text was read: may the peer be told of more room at once? */
void window_tell(struct engine *e, struct tcb *t);

/* keepalive.c */
/* How long it may be idle before the first probe. */
uint64_t tcb_keepalive_idle_us(const struct tcb *t);
/* At ESTABLISHED, and when its parameters change. */
void tcb_keepalive_start(struct engine *e, struct tcb *t);
void tcb_keepalive_timeout(struct engine *e, struct tcb *t);

/* path.c */
uint32_t tcb_path_mtu(const struct tcb *t);
void tcb_too_big(struct engine *e, struct tcb *t, const struct icmp_message *m);
/* After a retransmission timeout: are the segments too large for the path? */
void tcb_suspect_black_hole(struct engine *e, struct tcb *t);
void tcb_path_mtu_aged(struct tcb *t);
/* So many octets that left in full segments have arrived. */
void tcb_full_passed(struct tcb *t, uint32_t octets);
/* What was acknowledged, n octets of text, may be the segment that was on trial. */
void tcb_trial_acked(struct engine *e, struct tcb *t, uint32_t n);
/* Text octets of the segment that is to be tried, with hole.raise; 0: not now. It was sent; it goes again. */
uint32_t tcb_larger_mss(const struct tcb *t);
void tcb_larger_sent(struct tcb *t, seqno end);
void tcb_larger_lost(struct engine *e, struct tcb *t);

/* So many octets that left in one go have arrived. */
static inline void tcb_arrived_at_once(struct tcb *t, uint32_t octets)
{
	if ((!t->hole.passed || t->hole.vanished) && octets >= t->snd.mss)
		tcb_full_passed(t, octets);
}

/* user_calls.c */
void tcb_close_now(struct engine *e, struct tcb *t, enum cause cause);
/* Is there so much room to send that its user is worth waking? */
bool tcb_send_room(const struct engine *e, const struct tcb *t);
/* Who waits for room hears of it, when there is some. */
void tcb_tell_room(struct engine *e, struct tcb *t);
