/* SPDX-License-Identifier: Apache-2.0 */
#include "params.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

void tcp_params_default(struct tcp_params *ret_params)
{
	*ret_params = (struct tcp_params){
		.msl_us = 30000000,
		.fin_wait_2_us = 60000000,
		.user_timeout_us = 300000000,
		.user_timeout_max_us = 3600000000,
		.syn_timeout_us = 180000000,
		.rto_initial_us = 1000000,
		/* DEVIATION(MUST-18): RFC 6298 2.4 says 1 s; clocks and delayed ACKs are finer today, and
		 * every deployed stack goes lower. */
		.rto_min_us = 200000,
		.rto_max_us = 60000000,
		.delayed_ack_us = 40000,
		.keepalive_time_us = 7200000000,
		.keepalive_interval_us = 75000000,
		.r1 = 3, /* SHLD-10 */
		.keepalive_probes = 9,
		.send_buffer_bytes = 4 << 20,
		.not_sent_lowat_bytes = 256 << 10,
		.receive_buffer_bytes = 4 << 20,
		.receive_initial_bytes = 64 << 10,
		.initial_window = 10,
		.congestion_control = TCP_CC_CUBIC,
		.personality = TCP_AS_LINUX,
		.ecn = TCP_ECN_PASSIVE,
		.syn_cookies = TCP_COOKIES_AUTO,
		.fast_open_queue = 128,
		.ttl = 64,
		.nagle = true,
		.timestamps = true,
		.window_scaling = true,
		.sack = true,
		.rfc5961 = true,
		.black_hole_detection = true,
	};
}

const char *tcp_params_wrong(const struct tcp_params *p)
{
	return p->rto_min_us > p->rto_max_us ? "RtoMin is above RtoMax" : NULL;
}

void tcp_params_patch(struct tcp_params *p, const struct tcp_patch *patch)
{
	assert(patch->size <= sizeof(patch->value) &&
	       (size_t)patch->offset + patch->size <= sizeof(*p));
	memcpy((uint8_t *)p + patch->offset, patch->value, patch->size);
}
