/* SPDX-License-Identifier: Apache-2.0 */
/* The table of methods, and results as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "proto/filter.h"
#include "proto/render.h"

static void test_table(void **state)
{
	const struct method_info *listen = method_get(METHOD_LISTEN);
	enum method m;

	for (size_t i = 0; i < METHOD__COUNT; i++) {
		const struct method_info *info = method_get((enum method)i);

		assert_int_equal(info->method, i);
		assert_int_equal(method_by_rpc(info->rpc, &m, NULL), 0);
		assert_int_equal(m, i);
	}
	assert_string_equal(listen->args[0].name, "address");
	assert_string_equal(listen->args[1].name, "service");
	assert_true(listen->args[1].required);
	assert_null(method_get(METHOD_STATUS)->args[0].name);
	assert_null(method_arg_find(listen, "id"));
	assert_int_equal(method_get(METHOD_SHUTDOWN)->level, LEVEL_ADMIN);
}

static void test_usage(void **state)
{
	char *text = method_usage(METHOD_LIST_CONNECTIONS);

	assert_string_equal(text,
			    "list connections [FILTER...] [--closed] [--limit N] [--after AFTER]");
	free(text);
	text = method_usage(METHOD_SHOW_CONNECTION);
	assert_string_equal(text, "show connection ID");
	free(text);
}

static void test_errors(void **state)
{
	assert_string_equal(proto_error_name(PROTO_NOT_FOUND), "not_found");
	assert_int_equal(proto_error_exit(PROTO_NOT_FOUND), 4);
	assert_int_equal(proto_error_exit(PROTO_PERMISSION_DENIED), 5);
	assert_int_equal(proto_error_exit(PROTO_TIMED_OUT), 6);
	assert_int_equal(proto_error_exit(PROTO_INVALID_PARAMS), 2);
	assert_int_equal(proto_error_exit(PROTO_REFUSED), 1);
	assert_int_equal(proto_error_exit((enum proto_error) - 1), 1);
}

static void test_discover(void **state)
{
	json_t *d = proto_discover();
	const json_t *methods = json_object_get(d, "methods");
	const json_t *first = json_array_get(methods, 0);

	assert_int_equal(json_array_size(methods), METHOD__COUNT);
	assert_string_equal(json_string_value(json_object_get(first, "name")), "list.connections");
	assert_string_equal(json_string_value(json_object_get(first, "level")), "observe");
	assert_int_equal(json_array_size(json_object_get(first, "params")), 4);
	json_decref(d);
}

static void test_formats(void **state)
{
	char buf[32];

	assert_string_equal(proto_format_bytes(0, buf), "0");
	assert_string_equal(proto_format_bytes(999, buf), "999");
	assert_string_equal(proto_format_bytes(1000, buf), "1.0k");
	assert_string_equal(proto_format_bytes(999999, buf), "999.9k");
	assert_string_equal(proto_format_bytes(1073741824, buf), "1.0G");
	assert_string_equal(proto_format_bytes(UINT64_MAX, buf), "18.4E");
	assert_string_equal(proto_format_time(0, buf), "0us");
	assert_string_equal(proto_format_time(1250, buf), "1.25ms");
	assert_string_equal(proto_format_time(59990000, buf), "59.99s");
	assert_string_equal(proto_format_time(125000000, buf), "2m05s");
	assert_string_equal(proto_format_time(UINT64_C(11400000000), buf), "3h10m");
	assert_string_equal(proto_format_time(UINT64_C(187200000000), buf), "2d04h");
	assert_string_equal(proto_format_instant(UINT64_C(1700000000123456), buf),
			    "2023-11-14 22:13:20.123");
}

static void renders(enum method m, const char *json, const char *expected)
{
	json_t *v = json_loads(json, 0, NULL);
	char *text;

	assert_non_null(v);
	text = proto_render(m, v);
	assert_string_equal(text, expected);
	free(text);
	json_decref(v);
}

static void test_lists(void **state)
{
	renders(METHOD_LIST_RULES,
		"{\"rules\":[{\"family\":\"ipv4\",\"address\":\"10.0.0.2\",\"port_min\":7,\"port_"
		"max\":7,\"packets\":12,\"bytes\":3400},"
		"{\"family\":\"ipv6\",\"address\":\"*\",\"port_min\":61000,\"port_max\":65535,"
		"\"packets\":0,\"bytes\":0}],\"shield\":\"iptables\"}",
		"Family  Address   Ports        Packets  Bytes\n"
		"ipv4    10.0.0.2  7                 12   3.4k\n"
		"ipv6    *         61000-65535        0      0\n"
		"shield: iptables\n");
	renders(METHOD_LIST_RULES,
		"{\"rules\":[{\"family\":\"ipv4\",\"address\":\"10.0.0.2\",\"port_min\":7,\"port_"
		"max\":7,\"packets\":12,\"bytes\":40,\"early\":9}],\"shield\":\"ingress\","
		"\"devices\":[],"
		"\"trouble\":\"nft: no\"}",
		"Family  Address   Ports  Packets  Bytes\n"
		"ipv4    10.0.0.2  7           12     40\n"
		"shield: ingress\n"
		"iptables alone: nft: no\n");
	renders(METHOD_LIST_CONNECTIONS,
		"{\"connections\":[{\"id\":7,\"state\":\"fin_wait_2\",\"recv_queue_bytes\":0,"
		"\"send_queue_bytes\":12,"
		"\"local\":\"10.0.0.2:7\",\"remote\":\"10.0.0.1:40000\",\"service\":null,\"bytes_"
		"in\":1500,\"bytes_out\":5,"
		"\"retransmitted_segments\":1,\"rtt_us\":250,\"end_us\":null}],\"next\":null,"
		"\"total\":1}",
		"ID  State       Recv-Q  Send-Q  Local       Peer            Service    In  Out  "
		"Retrans    RTT\n"
		" 7  FIN-WAIT-2       0      12  10.0.0.2:7  10.0.0.1:40000  -        1.5k    5    "
		"    1  250us\n");
	renders(METHOD_SHOW_TRANSITIONS,
		"{\"connection\":7,\"more\":true,\"transitions\":[{\"at_us\":1000000,\"from\":"
		"\"listen\",\"to\":\"syn_received\","
		"\"cause\":\"segment "
		"SYN\",\"rule\":\"r1\"},{\"at_us\":1000123,\"from\":\"syn_received\",\"to\":"
		"\"established\","
		"\"cause\":\"segment ACK\",\"rule\":\"r2\"}]}",
		"connection 7\n"
		"        At  From          To            Cause        Rule\n"
		"+0.000000s  LISTEN        SYN-RECEIVED  segment SYN  r1\n"
		"+0.000123s  SYN-RECEIVED  ESTABLISHED   segment ACK  r2\n"
		"(there are more)\n");
	renders(METHOD_LIST_LISTENERS,
		"{\"listeners\":[{\"address\":\"*:7\",\"name\":\"e\",\"service\":\"echo\","
		"\"backlog\":9,"
		"\"draining\":false,\"backends\":[]}]}",
		"Address  Name  Service  Backlog  SYN-RECEIVED  Connections  Accepted  Refused  "
		"Draining\n"
		"*:7      e     echo           9             -            -         -        -  "
		"no\n");
	renders(METHOD_LIST_LISTENERS,
		"{\"listeners\":[{\"address\":\"*:7\",\"name\":\"e\",\"service\":\"echo\","
		"\"backends\":[]},{\"address\":\"*:8\",\"service\":\"relay:a,b\",\"backends\":["
		"{\"backend\":\"a\",\"connections\":3,\"down\":false},"
		"{\"backend\":\"b\\n\",\"connections\":0,\"down\":true},7]}]}",
		"Address  Name  Service    Backlog  SYN-RECEIVED  Connections  Accepted  Refused  "
		"Draining  Backends\n"
		"*:7      e     echo             -             -            -         -        -  -"
		"         -\n"
		"*:8      -     relay:a,b        -             -            -         -        -  -"
		"         a (3), b? (0, down)\n");
}

static void test_closed_list(void **state)
{
	json_t *v = json_loads(
		"{\"connections\":[{\"id\":7,\"end_us\":5,\"end_reason\":\"reset_by_peer\"}]}", 0,
		NULL);
	const struct proto_view *view = proto_view(METHOD_LIST_CONNECTIONS, v);
	char *text = proto_render(METHOD_LIST_CONNECTIONS, v);

	assert_non_null(strstr(text, "Ended"));
	assert_non_null(strstr(text, "reset_by_peer"));
	assert_string_equal(view->raw[0].key, "id");
	assert_string_equal(view->raw[view->raw_n - 1].key, "run_us");
	free(text);
	json_decref(v);
}

static void test_pages(void **state)
{
	renders(METHOD_VERSION, "{\"version\":\"0.1.0\",\"protocol\":1,\"schema\":2}",
		"tcpfsmd 0.1.0, protocol 1, schema 2\n");
	renders(METHOD_RELOAD,
		"{\"listeners_added\":1,\"listeners_removed\":0,\"listeners_changed\":2,"
		"\"warnings\":[\"a:1: x\"]}",
		"listeners: 1 added, 0 removed, 2 changed\nwarning: a:1: x\n");
	renders(METHOD_STATUS,
		"{\"version\":\"0.1.0\",\"pid\":5,\"uptime_us\":1500000,\"started_us\":"
		"1700000000000000,\"workers\":1,\"connections\":2,"
		"\"states\":{\"established\":2,\"listen\":0},\"listeners\":1,\"counters\":{"
		"\"segments_in\":9,\"segments_out\":0},"
		"\"links\":{\"packet\":{\"frames_in\":3}}}",
		"tcpfsmd 0.1.0, pid 5, up 1.50s since 2023-11-14 22:13:20.000\n"
		"workers 1, listeners 1, connections 2\n"
		"  ESTABLISHED                 2\n"
		"counters\n"
		"  segments_in                 9\n"
		"links\n"
		"  packet.frames_in            3\n");
}

static void test_connection_page(void **state)
{
	json_t *v = json_loads("{\"id\":7,\"state\":\"closed\",\"direction\":\"passive\",\"end_"
			       "us\":1700000000000000,"
			       "\"end_reason\":\"normal\",\"end_text\":\"both sides "
			       "closed\",\"closed_by\":\"peer\","
			       "\"last_state\":\"last_ack\",\"pid\":9,\"exit_status\":0,\"exit_"
			       "signal\":null,\"run_us\":2000,"
			       "\"detail\":{\"iss\":5,\"rto_us\":200000,\"timestamps\":true}}",
			       0, NULL);
	char *text = proto_render(METHOD_SHOW_CONNECTION, v);

	assert_non_null(strstr(text, "connection 7: CLOSED, passive\n"));
	assert_non_null(strstr(text, "normal: both sides closed\n"));
	assert_non_null(strstr(text, "peer; last state LAST-ACK\n"));
	assert_non_null(strstr(text, "pid 9, exit status 0, ran 2.00ms\n"));
	assert_non_null(strstr(text, "  RTO             200.00ms\n"));
	assert_non_null(strstr(text, "  timestamps      yes\n"));
	assert_null(strstr(text, "\n\n"));
	free(text);
	json_decref(v);
}

/* Whatever comes, every method renders, with a newline at its end and no empty line in it. */
static void test_render_anything(void **state)
{
	static const char *const anything[] = {
		"{}", "{\"connections\":5,\"rules\":{},\"listeners\":[5,null,{}]}",
		"{\"states\":[],\"counters\":{\"a\":[1]},\"detail\":7,\"warnings\":[1]}"
	};

	for (size_t i = 0; i < sizeof(anything) / sizeof(anything[0]); i++)
		for (size_t m = 0; m < METHOD__COUNT; m++) {
			json_t *v = json_loads(anything[i], 0, NULL);
			char *text = proto_text_result((enum method)m, v);
			const char *empty = strstr(text, "\n\n");

			assert_non_null(empty);
			assert_string_equal(empty, "\n\n");
			free(text);
			json_decref(v);
		}
}

/* Names come from configuration and peers: they must not steer the terminal. */
static void test_no_control_octets(void **state)
{
	renders(METHOD_LIST_SERVICES,
		"{\"services\":[{\"name\":\"e\\u001b[31m\\ncho\",\"argument\":null,\"help\":\"\"}]"
		"}",
		"Service     Argument  What it does\n"
		"e?[31m?cho  -         -\n");
}

static void test_text_error(void **state)
{
	struct proto_err err = { .code = PROTO_NOT_FOUND, .text = "connection 7: there is\nnone" };
	char *text = proto_text_error(&err);

	assert_string_equal(text, "error: connection 7: there is?none (not_found)\n\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_usage),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_discover),
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_closed_list),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_connection_page),
		cmocka_unit_test(test_render_anything),
		cmocka_unit_test(test_no_control_octets),
		cmocka_unit_test(test_text_error),
	};

	setenv("TZ", "UTC", 1);
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
