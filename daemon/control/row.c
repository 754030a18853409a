/* SPDX-License-Identifier: Apache-2.0 */
#include "control/row.h"

#include <string.h>

const char *state_key(enum tcp_state s)
{
	switch (s) {
	case ST_CLOSED:
		return "closed";
	case ST_LISTEN:
		return "listen";
	case ST_SYN_SENT:
		return "syn_sent";
	case ST_SYN_RECEIVED:
		return "syn_received";
	case ST_ESTABLISHED:
		return "established";
	case ST_FIN_WAIT_1:
		return "fin_wait_1";
	case ST_FIN_WAIT_2:
		return "fin_wait_2";
	case ST_CLOSE_WAIT:
		return "close_wait";
	case ST_CLOSING:
		return "closing";
	case ST_LAST_ACK:
		return "last_ack";
	case ST_TIME_WAIT:
		return "time_wait";
	case ST__COUNT:
		break;
	}
	return "?";
}

static const struct flow *row_flow(const struct row *row)
{
	return row->live ? &row->live->tcp.flow : &row->kept->flow;
}

/* A row of the record is a connection that has ended, unless its end was never written. */
static bool has_ended(const struct row *row)
{
	return !row->live && row->kept->end_us != 0;
}

static bool present(uint64_t v, uint64_t *ret_value)
{
	*ret_value = v;
	return true;
}

/* 0 stands for a value that is not there. */
static bool unless_zero(uint64_t v, uint64_t *ret_value)
{
	*ret_value = v;
	return v != 0;
}

/* What both sources have. False: it is not one of these. */
static bool common_number(const struct row *row, enum proto_field f, bool *ret_there,
			  uint64_t *ret_value)
{
	const struct conn_status *t = row->live ? &row->live->tcp : NULL;
	const struct record_connection *k = row->kept;
	uint64_t v = 0;

#define EITHER(field) (t ? t->field : k->field)
	switch ((int)f) {
	case FIELD_ID:
		v = t ? t->serial : k->id;
		break;
	case FIELD_BYTES_IN:
		v = EITHER(bytes_in);
		break;
	case FIELD_BYTES_OUT:
		v = EITHER(bytes_out);
		break;
	case FIELD_SEGMENTS_IN:
		v = EITHER(segments_in);
		break;
	case FIELD_SEGMENTS_OUT:
		v = EITHER(segments_out);
		break;
	case FIELD_RETRANSMITTED_SEGMENTS:
		v = EITHER(retransmitted_segments);
		break;
	case FIELD_RETRANSMITTED_BYTES:
		v = EITHER(retransmitted_bytes);
		break;
	case FIELD_SND_MSS:
		v = EITHER(snd_mss);
		break;
	case FIELD_RCV_MSS:
		v = EITHER(rcv_mss);
		break;
	case FIELD_RTT:
		*ret_there = unless_zero(EITHER(srtt_us), ret_value);
		return true;
	case FIELD_RTTVAR: /* 0 is a variation too, once there is a measurement */
		*ret_there = EITHER(srtt_us) != 0;
		*ret_value = EITHER(rttvar_us);
		return true;
	case FIELD_RTTMIN:
		*ret_there = EITHER(srtt_us) != 0;
		*ret_value = EITHER(rttmin_us);
		return true;
	default:
		return false;
	}
#undef EITHER
	*ret_there = present(v, ret_value);
	return true;
}

static bool live_number(const struct worker_conn *c, enum proto_field f, uint64_t *ret_value)
{
	switch ((int)f) {
	case FIELD_START:
		return unless_zero(c->created_us, ret_value);
	case FIELD_OPENED:
		return unless_zero(c->opened_us, ret_value);
	case FIELD_RECV_QUEUE:
		return present(c->tcp.receive_queue_bytes, ret_value);
	case FIELD_SEND_QUEUE:
		return present(c->tcp.send_queue_bytes, ret_value);
	case FIELD_PID:
		return unless_zero(c->pid, ret_value);
	case FIELD_TIMER_IN:
		return c->timer_in_us != UINT64_MAX && present(c->timer_in_us, ret_value);
	case FIELD_STATE_SINCE:
		return unless_zero(c->state_since_us, ret_value);
	case FIELD_ISS:
		return present(c->tcp.iss.v, ret_value);
	case FIELD_IRS:
		return present(c->tcp.irs.v, ret_value);
	case FIELD_SND_UNA:
		return present(c->tcp.snd_una.v, ret_value);
	case FIELD_SND_NXT:
		return present(c->tcp.snd_nxt.v, ret_value);
	case FIELD_RCV_NXT:
		return present(c->tcp.rcv_nxt.v, ret_value);
	case FIELD_SND_WND:
		return present(c->tcp.snd_wnd, ret_value);
	case FIELD_RCV_WND:
		return present(c->tcp.rcv_wnd, ret_value);
	case FIELD_SND_WSCALE:
		return present(c->tcp.snd_wscale, ret_value);
	case FIELD_RCV_WSCALE:
		return present(c->tcp.rcv_wscale, ret_value);
	case FIELD_CWND:
		return present(c->tcp.cwnd_bytes, ret_value);
	case FIELD_SSTHRESH:
		return present(c->tcp.ssthresh_bytes, ret_value);
	case FIELD_RTO:
		return present(c->tcp.rto_us, ret_value);
	case FIELD_BACKOFFS:
		return present(c->tcp.backoffs, ret_value);
	case FIELD_UNACKED:
		return present(c->tcp.unacked_bytes, ret_value);
	case FIELD_PATH_MTU:
		return present(c->tcp.path_mtu, ret_value);
	case FIELD_PEER_DSCP:
		return present(c->tcp.peer_dscp, ret_value);
	case FIELD_USER_TIMEOUT:
		return unless_zero(c->tcp.user_timeout_us, ret_value);
	case FIELD_PEER_USER_TIMEOUT:
		return unless_zero(c->tcp.peer_user_timeout_us, ret_value);
	case FIELD_URGENT:
		return unless_zero(c->tcp.urgent_bytes, ret_value);
	case FIELD_REASSEMBLY:
		return present(c->tcp.reassembly_bytes, ret_value);
	default:
		return false;
	}
}

static bool kept_number(const struct record_connection *k, enum proto_field f, uint64_t *ret_value)
{
	const bool exited = k->exit_status != INT32_MIN;

	switch ((int)f) {
	case FIELD_START:
		return unless_zero(k->start_us, ret_value);
	case FIELD_OPENED:
		return unless_zero(k->opened_us, ret_value);
	case FIELD_END:
		return unless_zero(k->end_us, ret_value);
	case FIELD_RECV_QUEUE:
	case FIELD_SEND_QUEUE:
		return present(0, ret_value);
	case FIELD_PID:
		return unless_zero(k->pid, ret_value);
	case FIELD_EXIT_STATUS:
		return k->pid && exited && k->exit_status >= 0 &&
		       present((uint64_t)k->exit_status, ret_value);
	case FIELD_EXIT_SIGNAL:
		return k->pid && exited && k->exit_status < 0 &&
		       present((uint64_t)-k->exit_status, ret_value);
	case FIELD_RUN:
		return k->pid && exited && present(k->run_us, ret_value);
	default:
		return false;
	}
}

static bool row_number(void *arg, enum proto_field f, uint64_t *ret_value)
{
	const struct row *row = arg;
	uint64_t v = 0;
	bool there = false;

	if (!common_number(row, f, &there, &v))
		there = row->live ? live_number(row->live, f, &v) : kept_number(row->kept, f, &v);
	if (there)
		*ret_value = v;
	return there;
}

static const char *unless_empty(const char *text)
{
	return *text ? text : NULL;
}

static const char *row_state(const struct row *row)
{
	if (row->live)
		return state_key(row->live->tcp.state);
	return has_ended(row) ? state_key(ST_CLOSED) : state_key(row->kept->last_state);
}

static const char *row_text(void *arg, enum proto_field f)
{
	const struct row *row = arg;
	const bool ended = has_ended(row);

	switch ((int)f) {
	case FIELD_STATE:
		return row_state(row);
	case FIELD_DIRECTION:
		return (row->live ? row->live->tcp.passive : row->kept->passive) ? "passive"
										 : "active";
	case FIELD_SERVICE:
		return unless_empty(row->live ? row->live->service : row->kept->service);
	case FIELD_INTERFACE:
		return unless_empty(row->live ? row->live->interface : row->kept->interface);
	case FIELD_END_REASON:
		return ended ? end_reason_key(row->kept->reason) : NULL;
	case FIELD_END_TEXT:
		return ended ? end_reason_text(row->kept->reason) : NULL;
	case FIELD_CLOSED_BY:
		return ended ? closed_by_key(row->kept->closed_by) : NULL;
	case FIELD_SOFT_ERROR:
		return row->live && row->live->tcp.soft_error
			       ? icmp_error_key(row->live->tcp.soft_error)
			       : NULL;
	case FIELD_CONGESTION_CONTROL:
		return row->live ? row->live->tcp.congestion_control : NULL;
	case FIELD_LAST_STATE:
		return ended ? state_key(row->kept->last_state) : NULL;
	default:
		return NULL;
	}
}

static bool row_flag(const struct row *row, enum proto_field f)
{
	const struct conn_status *tcp = &row->live->tcp;

	if (f == FIELD_ECN)
		return tcp->ecn;
	if (f == FIELD_FAST_OPEN)
		return tcp->fast_open;
	if (f == FIELD_SACK)
		return tcp->sack;
	if (f == FIELD_IN_DOUBT)
		return tcp->in_doubt;
	return f == FIELD_TIMESTAMPS ? tcp->timestamps : tcp->window_scaling;
}

bool row_matches(const struct row *row, const struct filter *f)
{
	const struct flow *flow = row_flow(row);
	struct row copy = *row;
	struct filter_row r = {
		.local_port = flow->local.port,
		.remote_port = flow->remote.port,
		.state = row_state(row),
		.arg = &copy,
		.get_number = row_number,
		.get_text = row_text,
	};

	memcpy(r.local, flow->local.addr.b, sizeof(r.local));
	memcpy(r.remote, flow->remote.addr.b, sizeof(r.remote));
	return filter_match(f, &r);
}

static json_t *text_or_null(const char *text)
{
	return text ? json_string(text) : json_null();
}

static json_t *field_json(struct row *row, enum proto_field f)
{
	const struct flow *flow = row_flow(row);
	char text[ENDPOINT_TEXT];
	uint64_t v;

	switch (field_get(f)->kind) {
	case KIND_COUNT:
	case KIND_BYTES:
	case KIND_TIME:
	case KIND_INSTANT:
		return row_number(row, f, &v) ? proto_number(v) : json_null();
	case KIND_ENDPOINT:
		return json_string(
			endpoint_format(f == FIELD_LOCAL ? &flow->local : &flow->remote, text));
	case KIND_STATE:
	case KIND_WORD:
	case KIND_TEXT:
		return text_or_null(row_text(row, f));
	case KIND_FLAG:
		return json_boolean(row_flag(row, f));
	}
	return json_null();
}

json_t *row_json(const struct row *row, bool detail)
{
	struct row copy = *row;
	json_t *object = json_object();
	json_t *more = detail && row->live ? json_object() : NULL;

	for (enum proto_field f = 0; f < FIELD__COUNT; f++) {
		const struct field_info *info = field_get(f);

		if (info->place == PLACE_ROW)
			(void)json_object_set_new(object, info->key, field_json(&copy, f));
		else if (more)
			(void)json_object_set_new(more, info->key, field_json(&copy, f));
	}
	if (more)
		(void)json_object_set_new(object, "detail", more);
	return object;
}
