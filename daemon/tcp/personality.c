/* SPDX-License-Identifier: Apache-2.0 */
/* What a fingerprint sees, by system: layout of options, first window, scale, IP identification, flow label. Nothing
 * here changes what TCP does, but for how large the receive buffer of a FreeBSD is.
 *
 *	linux	net/ipv4: tcp_select_initial_window(), tcp_options_write(), ip_select_ident()
 *	freebsd	sys/netinet: tcp_mss(), tcp_addoptions(), tcp_output(), ip_fillid()
 *	plain	the parameters as they are
 */
#include "tcb.h"

enum {
	LINUX_SPACE = 65536, /* half of tcp_rmem[1], 131072: what is left for text */
	FREEBSD_SPACE = 65536, /* net.inet.tcp.recvspace */
	FREEBSD_SPACE_MAX = 2 << 20, /* kern.ipc.maxsockbuf: the scale is chosen by it */
};

uint8_t personality_layout(const struct tcb *t)
{
	return t->params->personality == TCP_AS_FREEBSD ? LAYOUT_FREEBSD : LAYOUT_LINUX;
}

uint32_t personality_scaled_bytes(const struct tcp_params *params)
{
	return params->personality == TCP_AS_FREEBSD ? FREEBSD_SPACE_MAX
						     : params->receive_buffer_bytes;
}

/* Of a full segment before options, once the peer's SYN is known; else 0. */
static uint32_t segment_bytes(const struct tcb *t)
{
	return t->snd.mss_peer ? t->snd.mss + (t->timestamps ? TCP_TIMESTAMPS_BYTES : 0) : 0;
}

uint32_t personality_buffer_bytes(const struct tcb *t)
{
	const uint32_t bytes = t->params->receive_buffer_bytes;
	const uint32_t space = min_u32(bytes, FREEBSD_SPACE), mss = segment_bytes(t);

	if (t->params->personality != TCP_AS_FREEBSD)
		return bytes;
	return mss && space > mss ? (space + mss - 1) / mss * mss : space;
}

uint32_t personality_initial_bytes(const struct tcb *t)
{
	return t->params->personality == TCP_AS_FREEBSD ? 0 : t->params->receive_initial_bytes;
}

/* tcp_init_buffer_space() reserves a segment, and __tcp_select_window() with a scale moves the edge by as little as a
 * unit. Later Linux goes by what its buffers take in memory, which is another matter.
 */
uint16_t personality_reserved(const struct tcb *t)
{
	const uint32_t options = t->timestamps ? TCP_TIMESTAMPS_BYTES : 0;
	const bool first = t->params->personality == TCP_AS_LINUX && t->rcv.limit == LINUX_SPACE &&
			   t->window_scaling && t->rcv.mss <= LINUX_SPACE / 4;

	return first ? (uint16_t)(t->rcv.mss - options) : 0;
}

uint16_t personality_syn_window(const struct tcb *t, uint32_t window)
{
	const uint32_t space = min_u32(window, LINUX_SPACE);
	const uint32_t options = t->passive && t->timestamps ? TCP_TIMESTAMPS_BYTES : 0;
	const uint32_t mss = t->rcv.mss - min_u32(options, t->rcv.mss - 1U);

	if (t->params->personality == TCP_AS_LINUX && space > mss) /* whole segments */
		window = space - space % mss;
	if (t->params->personality == TCP_AS_FREEBSD) /* not made whole segments yet */
		window = min_u32(window, t->params->receive_buffer_bytes);
	return (uint16_t)min_u32(window, UINT16_MAX);
}

bool personality_rounds_down(const struct tcb *t)
{
	return t->params->personality == TCP_AS_FREEBSD;
}

/* RFC 6437 3: both systems label each flow, unless they are told not to (auto_flowlabels, auto_flowlabel). */
uint32_t personality_flow_label(const struct engine *e, int personality, const struct flow *f)
{
	const bool none = personality == TCP_AS_PLAIN || addr_is_v4(&f->remote.addr);

	return none ? 0 : isn_flow_label(e, f);
}

/* RFC 6864 4.1: a packet that is never fragmented may have any. Linux counts in a connection, and says 0 where
 * it has no socket of its own for it yet or any more; FreeBSD says 0.
 */
uint16_t personality_ip_id(struct tcb *t, uint32_t pieces)
{
	const uint16_t id = t->snd.ip_id;

	if (t->params->personality != TCP_AS_LINUX || t->state == ST_TIME_WAIT ||
	    (t->state == ST_SYN_RECEIVED && t->passive))
		return 0;
	t->snd.ip_id = (uint16_t)((id + pieces) & UINT16_MAX);
	return id;
}
