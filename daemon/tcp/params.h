/* SPDX-License-Identifier: Apache-2.0 */
/* What may be chosen per listener and per connection: the [Tcp] section of the configuration.
 * tcp_params_default() is the configuration's default as well; there is no second list.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum tcp_cc { TCP_CC_CUBIC, TCP_CC_NEWRENO };
enum tcp_ecn { TCP_ECN_OFF, TCP_ECN_ON, TCP_ECN_PASSIVE };
enum tcp_cookies { TCP_COOKIES_NO, TCP_COOKIES_AUTO, TCP_COOKIES_ALWAYS };

enum tcp_fast_open {
	TCP_FAST_OPEN_OFF,
	TCP_FAST_OPEN_CLIENT,
	TCP_FAST_OPEN_SERVER,
	TCP_FAST_OPEN_BOTH
};
enum tcp_personality { TCP_AS_LINUX, TCP_AS_FREEBSD, TCP_AS_PLAIN };

enum tcp_uto { TCP_UTO_NO, TCP_UTO_YES, TCP_UTO_ADVERTISE };

struct tcp_params {
	uint64_t msl_us; /* RFC 9293 3.4.2; TIME-WAIT lasts two of it. 0..600 s, default 30 s */
	uint64_t fin_wait_2_us; /* FIN-WAIT-2 without a user: 0 = for ever. Default 60 s */
	uint64_t user_timeout_us; /* RFC 9293 3.8.3 R2: 0 = for ever. Default 300 s */
	uint64_t
		user_timeout_max_us; /* RFC 5482 U_LIMIT: what a peer may raise it to. Default 1 h */
	uint64_t syn_timeout_us; /* R2 for a SYN or SYN-ACK, MUST-23. Default 180 s */
	uint64_t rto_initial_us; /* RFC 6298 2.1. Default 1 s */
	uint64_t rto_min_us; /* RFC 6298 2.4 says 1 s; default 200 ms as deployed (see README) */
	uint64_t rto_max_us; /* RFC 6298 2.5. At least 60 s; default 60 s (tests may go lower) */
	uint64_t delayed_ack_us; /* MUST-40: below 500 ms; 0 = at once. Default 40 ms */
	uint64_t
		keepalive_time_us; /* MUST-28: idle before the first probe; see tcb_keepalive_idle_us(). Default 2 h */
	uint64_t keepalive_interval_us; /* between probes that are not answered. Default 75 s */
	uint32_t
		r1; /* RFC 9293 3.8.3: retransmissions after which it is in doubt. 1.., default 3 */
	uint32_t
		keepalive_probes; /* MUST-29: how many are not answered before it ends. Default 9 */
	uint32_t send_buffer_bytes; /* most unacknowledged and unsent octets held. Default 4 MiB */
	uint32_t
		not_sent_lowat_bytes; /* of them, most unsent octets: TCP_NOTSENT_LOWAT; 0 = as many. Default 256 KiB */
	uint32_t receive_buffer_bytes; /* largest window offered. Default 4 MiB */
	uint32_t
		receive_initial_bytes; /* window offered at first; 0 = the largest. Default 64 KiB */
	uint32_t initial_window; /* segments, RFC 6928. 1..64, default 10 */
	int congestion_control; /* enum tcp_cc. RFC 9438, RFC 5681. Default cubic */
	int user_timeout_option; /* enum tcp_uto. RFC 5482; advertise: ours is not changed. Default no */
	int personality; /* enum tcp_personality: what a fingerprint sees. Default linux */
	int ecn; /* enum tcp_ecn. RFC 3168; passive: when the peer asks. Default passive */
	int fast_open; /* enum tcp_fast_open. RFC 7413. Default off */
	uint32_t
		fast_open_queue; /* listener: half open at a time with text taken from the SYN. Default 128 */
	int syn_cookies; /* enum tcp_cookies. RFC 4987; auto: when there is no record for a SYN. Default auto */
	uint16_t mss; /* largest MSS we announce; 0 = what the link's MTU allows */
	uint8_t ttl; /* MUST-49. 1..255, default 64 */
	uint8_t dscp; /* MUST-48. 0..63, default 0 */
	bool nagle; /* MUST-17. Default on */
	bool cork; /* whole segments only, and what is left after the timer of MUST-38. Default off */
	bool timestamps; /* RFC 7323 3. Default on */
	bool window_scaling; /* RFC 7323 2. Default on */
	bool sack; /* RFC 2018 and the recovery that goes by it. Default on */
	bool keepalive; /* RFC 9293 3.8.4, MUST-25. Default off */
	bool black_hole_detection; /* RFC 4821: smaller segments when large ones time out. Default on */
	bool icmp_may_reset; /* RFC 5461 4.1: soft ICMP errors end what is not open yet. Default off: MUST-56 */
	bool drop_syn_fin; /* SYN and FIN in one segment: passed over, rather than taken for a SYN. Default off */
	bool blackhole; /* no RST for what belongs to no connection; see engine_set_unserved(). Default off */
	bool rfc5961; /* RST and SYN acceptance of RFC 5961; off = RFC 793's. Default on */
};

void tcp_params_default(struct tcp_params *ret_params);
/* What no parameter can tell alone. NULL: they go together; else what is wrong, by their keys. */
const char *tcp_params_wrong(const struct tcp_params *p);

/* One parameter: its place in struct tcp_params, and its value. For who changes one and need not know the
 * others, which may have changed meanwhile.
 */
struct tcp_patch {
	uint16_t offset;
	uint16_t size; /* octets, up to 8 */
	uint8_t value[8];
};
void tcp_params_patch(struct tcp_params *p, const struct tcp_patch *patch);
