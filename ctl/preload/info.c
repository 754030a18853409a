/* SPDX-License-Identifier: Apache-2.0 */
/* TCP_INFO as the kernel has it. linux/tcp.h knows all of it, and gets along with no netinet/tcp.h. */
#include <linux/tcp.h>
#include <string.h>

#include "ctl/preload/preload.h"

/* The kernel's numbers of states, linux/tcp.h has none. TIME-WAIT is not the program's: it sees CLOSE. */
static const struct {
	const char *key;
	uint8_t number;
} states[] = {
	{ "established", 1 }, { "syn_sent", 2 },   { "syn_received", 3 }, { "fin_wait_1", 4 },
	{ "fin_wait_2", 5 },  { "close_wait", 8 }, { "last_ack", 9 },     { "closing", 11 },
};

enum { STATE_SYN_SENT = 2, STATE_CLOSE = 7, STATE_LISTEN = 10 };

static uint8_t state_number(const char *key)
{
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		if (!strcmp(states[i].key, key))
			return states[i].number;
	return STATE_CLOSE;
}

static uint8_t options_of(const struct tcpfsm_info *i)
{
	return (uint8_t)((i->timestamps ? TCPI_OPT_TIMESTAMPS : 0) | (i->sack ? TCPI_OPT_SACK : 0) |
			 (i->window_scaling ? TCPI_OPT_WSCALE : 0) | (i->ecn ? TCPI_OPT_ECN : 0));
}

static uint32_t u32(uint64_t v)
{
	return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

/* The kernel counts segments where we count octets. */
static uint32_t per(uint64_t octets, uint64_t mss)
{
	return u32(mss ? (octets + mss - 1) / mss : octets);
}

static void fill(const struct tcpfsm_info *i, int domain, struct tcp_info *ret)
{
	const uint32_t headers = domain == AF_INET ? 40 : 60, stamps = i->timestamps ? 12 : 0;
	const uint64_t sent = i->bytes_out + i->unacked_bytes;

	*ret = (struct tcp_info){
		.tcpi_state = state_number(i->state),
		.tcpi_retransmits = (uint8_t)i->backoffs,
		.tcpi_backoff = (uint8_t)i->backoffs,
		.tcpi_options = options_of(i),
		.tcpi_snd_wscale = (uint8_t)(i->snd_wscale & 0xf),
		.tcpi_rcv_wscale = (uint8_t)(i->rcv_wscale & 0xf),
		.tcpi_rto = u32(i->rto_us),
		.tcpi_snd_mss = u32(i->snd_mss_bytes),
		.tcpi_rcv_mss = u32(i->rcv_mss_bytes),
		.tcpi_advmss = u32(i->rcv_mss_bytes) - stamps,
		.tcpi_unacked = per(i->unacked_bytes, i->snd_mss_bytes),
		.tcpi_pmtu = i->path_mtu_bytes ? u32(i->path_mtu_bytes)
					       : u32(i->snd_mss_bytes) + headers + stamps,
		.tcpi_rcv_ssthresh = u32(i->rcv_wnd_bytes),
		.tcpi_rtt = u32(i->rtt_us),
		.tcpi_rttvar = u32(i->rttvar_us),
		.tcpi_snd_ssthresh = per(i->ssthresh_bytes, i->snd_mss_bytes),
		.tcpi_snd_cwnd = per(i->cwnd_bytes, i->snd_mss_bytes),
		.tcpi_rcv_space = u32(i->rcv_wnd_bytes),
		.tcpi_total_retrans = u32(i->retransmitted_segments),
		.tcpi_bytes_acked = i->bytes_out + 1, /* and the SYN, as the kernel counts */
		.tcpi_bytes_received = i->bytes_in,
		.tcpi_segs_out = u32(i->segments_out),
		.tcpi_segs_in = u32(i->segments_in),
		.tcpi_notsent_bytes = u32(i->send_queue_bytes - i->unacked_bytes),
		.tcpi_min_rtt = u32(i->rttmin_us),
		.tcpi_bytes_sent = sent + i->retransmitted_bytes,
		.tcpi_bytes_retrans = i->retransmitted_bytes,
		.tcpi_snd_wnd = u32(i->snd_wnd_bytes),
	};
}

static uint8_t state_without_connection(int fd, const struct sock *s)
{
	if (s->kind == LISTENING)
		return STATE_LISTEN;
	return s->kind == CONNECTING && !hung_up(fd) ? STATE_SYN_SENT : STATE_CLOSE;
}

size_t info_fill(int fd, struct sock *s, char info[static INFO_BYTES], uint32_t *ret_mss)
{
	struct tcp_info t = { .tcpi_state = state_without_connection(fd, s) };
	struct tcpfsm_info i;

	_Static_assert(sizeof(t) <= INFO_BYTES, "room for TCP_INFO");
	if (s->name.id && !tcpfsm_info(daemon_path, s->name.id, &i))
		fill(&i, s->domain, &t);
	memcpy(info, &t, sizeof(t));
	*ret_mss = t.tcpi_snd_mss;
	return sizeof(t);
}
