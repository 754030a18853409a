/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: what is read, what is refused with which words, and what is printed back. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/macros.h"
#include "config/config.h"
#include "config/key.h"
#include "config/source.h"
#include "config/tcp.h"
#include "config/value.h"

/* The example of the design, as it stands there. */
static const char design[] =
	"[Daemon]\n"
	"Interfaces=any               # or names\n"
	"Shield=iptables              # iptables | ingress | none (an address that no kernel "
	"owns)\n"
	"LocalPorts=61000-65535       # of our own, for active opens\n"
	"[Control]\n"
	"SocketGroup=tcpfsm           # control.sock and observe.sock in $RUNTIME_DIRECTORY\n"
	"[Tcp]\n"
	"MSL=30s\n"
	"FinWait2Timeout=60s\n"
	"InitialWindow=10\n"
	"[Storage]\n"
	"Database=tcpfsmd.db          # in $STATE_DIRECTORY; tables connection, transition, ...\n"
	"Record=transitions\n"
	"Retain=7d\n"
	"RetainSize=2GiB\n"
	"[Listener echo]\n"
	"Address=10.0.0.2:7\n"
	"Service=echo\n"
	"[Listener web]\n"
	"Address=[2001:db8::2]:80\n"
	"Service=exec:/usr/libexec/tcpfsmd/http-hello\n"
	"MaxProcesses=200\n";

struct warnings {
	unsigned n;
	char text[4096]; /* one a line */
};

static void on_warning(void *arg, const char *message)
{
	struct warnings *w = arg;
	const size_t at = strlen(w->text);

	w->n++;
	(void)snprintf(w->text + at, sizeof(w->text) - at, "%s\n", message);
}

static int load(const char *text, struct config *ret_config, struct warnings *w, struct errmsg *err)
{
	*w = (struct warnings){ 0 };
	*err = (struct errmsg){ "" };
	return config_load_text("t.conf", text, strlen(text), on_warning, w, ret_config, err);
}

/* Loads what must be good, without a warning. */
static struct config good(const char *text)
{
	struct config c;
	struct warnings w;
	struct errmsg err;
	const int rc = load(text, &c, &w, &err);

	if (rc || w.n)
		fail_msg("%d: %s%s", rc, err.text, w.text);
	return c;
}

static void assert_bad(const char *text, const char *message)
{
	struct config c;
	struct warnings w;
	struct errmsg err;

	memset(&c, 0x5a, sizeof(c));
	assert_int_equal(load(text, &c, &w, &err), -EINVAL);
	assert_string_equal(err.text, message);
	for (size_t i = 0; i < sizeof(c); i++)
		assert_int_equal(((const unsigned char *)&c)[i], 0x5a);
}

/* Value by value, as key_format() writes them: between them are gaps. */
static void assert_same_section(enum section section, const void *a, const void *b)
{
	char x[KEY_TEXT_MAX], y[KEY_TEXT_MAX];

	for (size_t i = 0; i < KEYS_N; i++)
		if (keys[i].section == section)
			assert_string_equal(key_format(&keys[i], a, x), key_format(&keys[i], b, y));
}

static void test_design_example(void **state)
{
	struct config c = good(design);
	char buf[ENDPOINT_TEXT];

	assert_int_equal(c.interfaces_n, 0);
	assert_int_equal(c.shield, CONFIG_SHIELD_IPTABLES);
	assert_int_equal(c.local_port_min, 61000);
	assert_int_equal(c.local_port_max, 65535);
	assert_string_equal(c.socket_group, "tcpfsm");
	assert_int_equal(c.tcp.msl_us, 30000000);
	assert_int_equal(c.tcp.fin_wait_2_us, 60000000);
	assert_int_equal(c.tcp.initial_window, 10);
	assert_string_equal(c.database, "tcpfsmd.db");
	assert_int_equal(c.record, CONFIG_RECORD_TRANSITIONS);
	assert_int_equal(c.retain_us, 7 * 86400000000ULL);
	assert_int_equal(c.retain_bytes, 2ULL << 30);
	assert_int_equal(c.listeners_n, 2);
	assert_string_equal(c.listeners[0].name, "echo");
	assert_string_equal(endpoint_format(&c.listeners[0].address, buf), "10.0.0.2:7");
	assert_string_equal(c.listeners[0].service, "echo");
	assert_int_equal(c.listeners[0].max_processes, 100);
	assert_string_equal(endpoint_format(&c.listeners[1].address, buf), "[2001:db8::2]:80");
	assert_string_equal(c.listeners[1].service, "exec:/usr/libexec/tcpfsmd/http-hello");
	assert_int_equal(c.listeners[1].max_processes, 200);
	config_fini(&c);
	config_fini(&c);
}

static void test_defaults(void **state)
{
	struct config c = good("");
	struct tcp_params p;

	tcp_params_default(&p);
	assert_same_section(SECTION_TCP, &c.tcp, &p);
	assert_int_equal(c.workers, 1);
	assert_int_equal(c.max_connections, 100000);
	assert_int_equal(c.buffer_bytes, 1 << 30);
	assert_int_equal(c.stop_grace_us, 1000000);
	assert_int_equal(c.log_level, LOG_LEVEL_INFO);
	assert_string_equal(c.socket_group, "");
	assert_int_equal(c.max_clients, 64);
	assert_int_equal(c.unprivileged_port_start, 1024);
	assert_string_equal(c.database, "tcpfsmd.db");
	assert_int_equal(c.retain_us, 7 * 86400000000ULL);
	assert_int_equal(c.retain_bytes, 2ULL << 30);
	assert_int_equal(c.listeners_n, 0);
	config_fini(&c);
}

/* A listener takes what [Tcp] says in the end, wherever it says it, and its own over it. */
static void test_listener_inherits(void **state)
{
	struct config c = good("[Tcp]\nMSL=5s\nTTL=3\n"
			       "[Listener a]\nAddress=*:7\nService=echo\nMSL=1s\nRtoMin=50ms\n"
			       "[Tcp]\nMSL=9s\nNagle=off\n"
			       "[Listener a]\nBacklog=7\n");

	assert_int_equal(c.tcp.msl_us, 9000000);
	assert_int_equal(c.listeners_n, 1);
	assert_int_equal(c.listeners[0].tcp.msl_us, 1000000);
	assert_int_equal(c.listeners[0].tcp.rto_min_us, 50000);
	assert_int_equal(c.listeners[0].tcp.ttl, 3);
	assert_false(c.listeners[0].tcp.nagle);
	assert_int_equal(c.listeners[0].backlog, 7);
	assert_int_equal(c.tcp.rto_min_us, 200000);
	config_fini(&c);
}

static void test_every_tcp_key(void **state)
{
	struct config c = good(
		"[Tcp]\nMSL=1min 30s\nFinWait2Timeout=infinity\nUserTimeout=0\n"
		"SynTimeout=2m\nR1=5\nUserTimeoutOption=yes\nUserTimeoutMax=10min\nPersonality="
		"freebsd\nRtoInitial=1500ms\nRtoMin=1ms\nRtoMax="
		"2min\nDelayedAck=0\n"
		"SendBuffer=64K\nNotSentLowat=16K\nReceiveBuffer=1MiB\nReceiveBufferInitial="
		"32K\nInitialWindow="
		"64\nMSS=1400\nTTL=255\n"
		"CongestionControl=newreno\nEcn=on\nSynCookies=always\nFastOpen="
		"both\nFastOpenQueue=7\nDSCP=46\nNagle="
		"no\nTimestamps=false\n"
		"WindowScaling=0\nSack=no\nRfc5961=OFF\nDropSynFin=yes\nBlackhole="
		"yes\nIcmpMayReset=on\nBlackHoleDetection=no\n"
		"KeepAlive=yes\nKeepAliveTime=1min\nKeepAliveInterval=5s\nKeepAliveProbes=3\n");
	const struct tcp_params p = {
		.msl_us = 90000000,
		.syn_timeout_us = 120000000,
		.r1 = 5,
		.user_timeout_option = TCP_UTO_YES,
		.user_timeout_max_us = 600000000,
		.personality = TCP_AS_FREEBSD,
		.rto_initial_us = 1500000,
		.rto_min_us = 1000,
		.rto_max_us = 120000000,
		.send_buffer_bytes = 65536,
		.not_sent_lowat_bytes = 16384,
		.receive_buffer_bytes = 1 << 20,
		.receive_initial_bytes = 32 << 10,
		.initial_window = 64,
		.congestion_control = TCP_CC_NEWRENO,
		.ecn = TCP_ECN_ON,
		.syn_cookies = TCP_COOKIES_ALWAYS,
		.fast_open = TCP_FAST_OPEN_BOTH,
		.fast_open_queue = 7,
		.mss = 1400,
		.ttl = 255,
		.dscp = 46,
		.icmp_may_reset = true,
		.drop_syn_fin = true,
		.blackhole = true,
		.keepalive = true,
		.keepalive_time_us = 60000000,
		.keepalive_interval_us = 5000000,
		.keepalive_probes = 3,
	};

	assert_same_section(SECTION_TCP, &c.tcp, &p);
	assert_int_equal(c.tcp.fin_wait_2_us, 0);
	assert_int_equal(c.tcp.msl_us, 90000000);
	assert_int_equal(c.tcp.mss, 1400);
	assert_int_equal(c.tcp.ttl, 255);
	assert_int_equal(c.tcp.send_buffer_bytes, 65536);
	assert_false(c.tcp.rfc5961);
	assert_false(c.tcp.sack);
	config_fini(&c);
}

static void test_later_wins(void **state)
{
	struct config c = good("[Control]\nMaxClients=3\nMaxClients=4\n[Control]\nMaxClients=5\n");

	assert_int_equal(c.max_clients, 5);
	config_fini(&c);
}

static void test_values_with_comment_signs(void **state)
{
	struct config c = good("[Storage]\n   Database = a#b;c.db\t# comment\n"
			       "[Listener a]\n\tAddress=*:1 ; x\n"
			       "Service=exec:/bin/sh -c 'echo a # b ; c' # gone\n"
			       "[Listener b]\nAddress=*:2\nService=exec:/bin/it's # gone\n"
			       "[Control]\nSocketGroup= # empty\n");

	assert_string_equal(c.database, "a#b;c.db");
	assert_string_equal(c.listeners[0].service, "exec:/bin/sh -c 'echo a # b ; c'");
	assert_string_equal(c.listeners[1].service, "exec:/bin/it's");
	assert_string_equal(c.socket_group, "");
	config_fini(&c);
}

static void test_warnings(void **state)
{
	struct config c;
	struct warnings w;
	struct errmsg err;

	assert_int_equal(
		load("MSL=1s\n[Tcp]\nMsl=1s\nRtoMinimum=1\n\nRetain=1d\nXyzzy=1\n[Sotrage]\nA=1\nB="
		     "2\n"
		     "[Listener a]\nAddress=*:1\nService=echo\nAdress=*:2\nInterfaces=lo\n",
		     &c, &w, &err),
		0);
	assert_string_equal(
		w.text,
		"t.conf:1: MSL stands before the first section, ignored\n"
		"t.conf:3: [Tcp] has no key Msl, ignored; the nearest is MSL\n"
		"t.conf:4: [Tcp] has no key RtoMinimum, ignored; the nearest is RtoMin\n"
		"t.conf:6: [Tcp] has no key Retain, ignored; [Storage] has\n"
		"t.conf:7: [Tcp] has no key Xyzzy, ignored\n"
		"t.conf:8: there is no section [Sotrage], ignored\n"
		"t.conf:14: [Listener a] has no key Adress, ignored; the nearest is Address\n"
		"t.conf:15: [Listener a] has no key Interfaces, ignored; [Daemon] has\n");
	assert_int_equal(c.tcp.msl_us, 30000000);
	config_fini(&c);
}

static void test_bad_values(void **state)
{
	static const struct {
		const char *section, *line, *expected;
	} bad[] = {
		{ "Tcp", "MSL=abc", "a time span such as 30s or 1min 30s, 0 to 10min" },
		{ "Tcp", "MSL=", "a time span such as 30s or 1min 30s, 0 to 10min" },
		{ "Tcp", "MSL=11min", "a time span such as 30s or 1min 30s, 0 to 10min" },
		{ "Tcp", "MSL=-1s", "a time span such as 30s or 1min 30s, 0 to 10min" },
		{ "Tcp", "MSL=infinity", "a time span such as 30s or 1min 30s, 0 to 10min" },
		{ "Tcp", "MSL=99999999999999999999d",
		  "a time span such as 30s or 1min 30s, 0 to 10min" },
		{ "Tcp", "FinWait2Timeout=1us",
		  "a time span such as 30s or 1min 30s, 1ms to 365d, or infinity" },
		{ "Tcp", "DelayedAck=500ms",
		  "a time span such as 30s or 1min 30s, 0 to 499ms 999us" },
		{ "Tcp", "SendBuffer=1.5", "a size such as 64KiB or 2GiB, 1 to 1GiB" },
		{ "Tcp", "SendBuffer=2GiB", "a size such as 64KiB or 2GiB, 1 to 1GiB" },
		{ "Tcp", "InitialWindow=0", "a number, 1 to 64" },
		{ "Tcp", "InitialWindow=+5", "a number, 1 to 64" },
		{ "Tcp", "MSS=63", "a number, 64 to 65495, or auto" },
		{ "Tcp", "TTL=256", "a number, 1 to 255" },
		{ "Tcp", "DSCP=64", "a number, 0 to 63" },
		{ "Tcp", "Nagle=maybe", "yes or no" },
		{ "Daemon", "Shield=nft", "iptables, ingress, bpf or none" },
		{ "Daemon", "LogLevel=loud", "error, warning, notice, info or debug" },
		{ "Daemon", "LocalPorts=0-5", "a range of ports such as 61000-65535" },
		{ "Daemon", "LocalPorts=9-5", "a range of ports such as 61000-65535" },
		{ "Daemon", "LocalPorts=61000-65536", "a range of ports such as 61000-65535" },
		{ "Daemon", "LocalPorts=1-2-3", "a range of ports such as 61000-65535" },
		{ "Daemon", "Interfaces=", "any, or up to 32 names of interfaces" },
		{ "Daemon", "Interfaces=a/b", "any, or up to 32 names of interfaces" },
		{ "Daemon", "Interfaces=eth0 any", "any, or up to 32 names of interfaces" },
		{ "Daemon", "Interfaces=abcdefghijklmnop", "any, or up to 32 names of interfaces" },
		{ "Daemon",
		  "Interfaces=1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 "
		  "27 28 29 30 31 32 33",
		  "any, or up to 32 names of interfaces" },
		{ "Storage", "Database=", "a text of 1 to 511 octets" },
		{ "Storage", "Record=everything", "nothing, connections or transitions" },
		{ "Storage", "RetainSize=1",
		  "a size such as 64KiB or 2GiB, 1MiB to 1024TiB, or infinity" },
		{ "Listener x", "Address=10.0.0.2",
		  "ADDR:PORT, [ADDR]:PORT or *:PORT, the address no multicast and no name" },
		{ "Listener x", "Address=224.0.0.1:7",
		  "ADDR:PORT, [ADDR]:PORT or *:PORT, the address no multicast and no name" },
		{ "Listener x", "Backlog=0", "a number, 1 to 1000000" },
		{ "Listener x", "TTL=0", "a number, 1 to 255" },
	};
	char text[512], message[512];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		(void)snprintf(text, sizeof(text), "[%s]\n\n%s\n", bad[i].section, bad[i].line);
		(void)snprintf(message, sizeof(message), "t.conf:3: %.*s=%.100s: expected %s",
			       (int)(strchr(bad[i].line, '=') - bad[i].line), bad[i].line,
			       strchr(bad[i].line, '=') + 1, bad[i].expected);
		assert_bad(text, message);
	}
}

static void test_bad_listeners(void **state)
{
	assert_bad("\n[Listener a]\nService=echo\n", "t.conf:2: [Listener a] has no Address");
	assert_bad("[Listener a]\nAddress=*:7\n", "t.conf:1: [Listener a] has no Service");
	assert_bad("[Listener a]\n", "t.conf:1: [Listener a] has no Address");
	assert_bad("[Listener]\nAddress=*:7\n", "t.conf:1: a listener has a name: [Listener NAME]");
	assert_bad("[Listener a]\nAddress=*:7\nService=echo\n[Listener "
		   "b]\nService=discard\nAddress=*:7\n",
		   "t.conf:6: [Listener a] and [Listener b] both serve *:7");
	assert_bad("[Tcp]\nRtoMin=10s\nRtoMax=1s\n", "t.conf:2: [Tcp] RtoMin is above RtoMax");
	assert_bad("[Listener a]\nAddress=*:7\nService=echo\nRtoMax=100ms\n",
		   "t.conf:4: [Listener a] RtoMin is above RtoMax");
}

static void test_bad_lines(void **state)
{
	char longest[SOURCE_LINE_MAX + 64];
	struct config c;
	struct errmsg err;

	assert_bad("[Tcp\n", "t.conf:1: a section's heading ends with ]");
	assert_bad("[]\n", "t.conf:1: the section has no name");
	assert_bad("[Tcp] x\n", "t.conf:1: something follows the section's heading");
	assert_bad("[Tcp]\nMSL\n", "t.conf:2: expected Key=VALUE or [Section]");
	assert_bad("[Tcp]\n=5\n", "t.conf:2: there is no key before =");
	assert_bad("[Tcp]\nM.SL: x=5\n", "t.conf:2: a key is letters and digits");
	assert_bad("[Tcp]\nMSL=\xff\n", "t.conf:2: not UTF-8");
	assert_bad("[Tcp]\nMSL=\xc0\xaf\n", "t.conf:2: not UTF-8");
	assert_bad("[Tcp]\nMSL=\x1b[31m\n", "t.conf:2: there is a control character");
	assert_bad("[Listener 12345678901234567890123456789012345678901]\n",
		   "t.conf:1: a section's name has at most 49 octets");
	memset(longest, 'x', sizeof(longest));
	memcpy(longest, "[Tcp]\n", 6);
	longest[sizeof(longest) - 1] = 0;
	assert_bad(longest, "t.conf:2: the line is longer than 1000 octets");
	assert_int_equal(config_load_text("t.conf", "[Tcp]\nM\0SL=1\n", 13, NULL, NULL, &c, &err),
			 -EINVAL);
	assert_string_equal(err.text, "t.conf:2: there is a NUL: not a text file");
}

/* The longest line, value and name that are allowed are whole, whatever inih's own limits are. */
static void test_longest(void **state)
{
	char text[2048], service[CONFIG_TEXT];
	struct config c;

	memset(service, 'y', sizeof(service));
	memcpy(service, "exec:/", 6);
	service[sizeof(service) - 1] = 0;
	(void)snprintf(text, sizeof(text),
		       "[Listener "
		       "1234567890123456789012345678901234567890]\nAddress=*:7\nService=%s%*s# x\n",
		       service, 1000 - 8 - 511 - 3, "");
	c = good(text);
	assert_string_equal(c.listeners[0].name, "1234567890123456789012345678901234567890");
	assert_string_equal(c.listeners[0].service, service);
	config_fini(&c);
}

static void test_too_many_listeners(void **state)
{
	char *text = calloc(CONFIG_LISTENERS_MAX + 1, 64), *p = text;
	char message[128];
	struct config c;

	assert_non_null(text);
	for (int i = 0; i < CONFIG_LISTENERS_MAX; i++)
		p += sprintf(p, "[Listener l%d]\nAddress=*:%d\nService=echo\n", i, i + 1);
	c = good(text);
	assert_int_equal(c.listeners_n, CONFIG_LISTENERS_MAX);
	config_fini(&c);
	(void)sprintf(p, "[Listener more]\nAddress=*:5000\nService=echo\n");
	(void)snprintf(message, sizeof(message), "t.conf:%d: more than 1024 listeners",
		       CONFIG_LISTENERS_MAX * 3 + 1);
	assert_bad(text, message);
	free(text);
}

/* --- files --- */

static char dir[] = "/tmp/tcpfsm-config-XXXXXX";
static char conf[64], dropin_dir[64];

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static int setup_dir(void **state)
{
	(void)strcpy(dir + sizeof(dir) - 7, "XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(conf, sizeof(conf), "%s/t.conf", dir);
	(void)snprintf(dropin_dir, sizeof(dropin_dir), "%s/t.conf.d", dir);
	return 0;
}

static int teardown_dir(void **state)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -rf -- '%s'", dir);
	return system(command);
}

static void dropin(const char *name, const char *text)
{
	char path[128];

	(void)mkdir(dropin_dir, 0755);
	(void)snprintf(path, sizeof(path), "%s/%s", dropin_dir, name);
	write_file(path, text);
}

static void test_dropins_and_overrides(void **state)
{
	static const char *const overrides[] = { "Control.MaxClients=9",
						 "Listener.a.b.Address=*:99",
						 "Tcp.MSL=7s # comment", "Nonsense.X=1" };
	struct config c;
	struct warnings w = { 0 };
	struct errmsg err = { "" };

	write_file(conf,
		   "[Tcp]\nMSL=1s\nTTL=1\nDSCP=1\n[Listener a.b]\nAddress=*:7\nService=echo\n");
	dropin("20.conf", "[Tcp]\nTTL=20\nDSCP=20\n");
	dropin("10.conf", "[Tcp]\nTTL=10\nDSCP=10\nInitialWindow=4\n");
	dropin("30.conf.off", "[Tcp]\nDSCP=30\n");
	dropin(".40.conf", "[Tcp]\nDSCP=40\n");
	assert_int_equal(
		config_load(conf, overrides, ARRAY_SIZE(overrides), on_warning, &w, &c, &err), 0);
	assert_string_equal(w.text, "command line: there is no section [Nonsense], ignored\n");
	assert_int_equal(c.tcp.msl_us, 7000000);
	assert_int_equal(c.tcp.ttl, 20);
	assert_int_equal(c.tcp.dscp, 20);
	assert_int_equal(c.tcp.initial_window, 4);
	assert_int_equal(c.max_clients, 9);
	assert_int_equal(c.listeners[0].address.port, 99);
	config_fini(&c);

	dropin("50.conf", "[Tcp]\nTTL=0\n");
	assert_int_equal(config_load(conf, NULL, 0, NULL, NULL, &c, &err), -EINVAL);
	assert_non_null(strstr(err.text, "t.conf.d/50.conf:2: TTL=0: expected a number, 1 to 255"));
}

static void test_bad_overrides(void **state)
{
	static const struct {
		const char *text, *message;
	} bad[] = {
		{ "MSL=1s", "command line: -o MSL=1s: expected Section.Key=VALUE" },
		{ "Tcp.MSL", "command line: -o Tcp.MSL: expected Section.Key=VALUE" },
		{ ".MSL=1", "command line: -o .MSL=1: expected Section.Key=VALUE" },
		{ "Tcp.=1", "command line: -o Tcp.=1: expected Section.Key=VALUE" },
		{ "", "command line: -o : expected Section.Key=VALUE" },
		{ "Tcp.MSL=1\n2", "command line: -o: there is a control character" },
		{ "Tcp.MSL=x",
		  "-o Tcp.MSL=x: expected a time span such as 30s or 1min 30s, 0 to 10min" },
		{ "Listener.Address=*:7", "command line: a listener has a name: [Listener NAME]" },
		{ "Listener.a.Address=*:7", "command line: [Listener a] has no Service" },
	};
	struct config c;
	struct errmsg err;

	write_file(conf, "");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(config_load(conf, &bad[i].text, 1, NULL, NULL, &c, &err), -EINVAL);
		assert_string_equal(err.text, bad[i].message);
	}
}

static void test_bad_files(void **state)
{
	struct config c;
	struct errmsg err;
	char message[256];
	FILE *f;

	assert_int_equal(config_load(conf, NULL, 0, NULL, NULL, &c, &err), -ENOENT);
	(void)snprintf(message, sizeof(message), "%s: No such file or directory", conf);
	assert_string_equal(err.text, message);
	assert_int_equal(config_load(dir, NULL, 0, NULL, NULL, &c, &err), -EISDIR);
	(void)snprintf(message, sizeof(message), "%s: it is a directory, not a file", dir);
	assert_string_equal(err.text, message);
	f = fopen(conf, "w");
	assert_non_null(f);
	for (int i = 0; i < SOURCE_FILE_MAX / 16 + 1; i++)
		(void)fputs("# 3456789012345\n", f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(config_load(conf, NULL, 0, NULL, NULL, &c, &err), -EFBIG);
	assert_int_equal(truncate(conf, SOURCE_FILE_MAX), 0);
	assert_int_equal(config_load(conf, NULL, 0, NULL, NULL, &c, &err), 0);
	config_fini(&c);
	write_file(conf, "");
	(void)mkdir(dropin_dir, 0755);
	(void)snprintf(message, sizeof(message), "%s/x.conf", dropin_dir);
	assert_int_equal(mkdir(message, 0755), 0);
	assert_int_equal(config_load(conf, NULL, 0, NULL, NULL, &c, &err), -EISDIR);
}

/* --- printing --- */

static char *print(const struct config *c)
{
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);

	assert_non_null(f);
	config_print(c, f);
	assert_int_equal(fclose(f), 0);
	return text;
}

static void assert_same(const struct config *a, const struct config *b)
{
	assert_same_section(SECTION_DAEMON, a, b);
	assert_same_section(SECTION_CONTROL, a, b);
	assert_same_section(SECTION_STORAGE, a, b);
	assert_same_section(SECTION_TCP, &a->tcp, &b->tcp);
	assert_int_equal(a->listeners_n, b->listeners_n);
	for (size_t i = 0; i < a->listeners_n; i++) {
		assert_string_equal(a->listeners[i].name, b->listeners[i].name);
		assert_same_section(SECTION_LISTENER, &a->listeners[i], &b->listeners[i]);
		assert_same_section(SECTION_TCP, &a->listeners[i].tcp, &b->listeners[i].tcp);
	}
}

static void assert_round_trip(const char *text)
{
	struct config c = good(text), again;
	char *printed = print(&c);

	again = good(printed);
	assert_same(&c, &again);
	free(printed);
	config_fini(&again);
	config_fini(&c);
}

static void test_round_trip(void **state)
{
	assert_round_trip("");
	assert_round_trip(design);
	assert_round_trip("[Daemon]\nShield=ingress\n");
	assert_round_trip("[Daemon]\nShield=bpf\n");
	assert_round_trip(
		"[Daemon]\nInterfaces=eth0,eth1  lo\nShield=none\nLocalPorts=7\nWorkers=3\n"
		"MaxConnections=17\nBufferMemory=300001\nStopGrace=1h\nLogLevel=debug\n"
		"[Control]\nSocketGroup=it's\nMaxClients=1\nUnprivilegedPortStart=65536\n"
		"[Tcp]\nMSL=0\nFinWait2Timeout=infinity\nUserTimeout=infinity\nSynTimeout=1."
		"000001s\n"
		"RtoMin=59s 999999us\nMSS=1000\nDelayedAck=1us\nSendBuffer=4095\nNagle=no\n"
		"[Storage]\nDatabase=a \"b # c\" "
		"d'e\nRecord=nothing\nRetain=infinity\nRetainSize=infinity\n"
		"[Listener x y]\nAddress=0.0.0.0:1\nService=exec:/bin/sh -c 'a # "
		"b'\nTTL=9\nMaxConnections=infinity\n"
		"[Listener z]\nAddress=[::1]:65535\nService=exec:it's ok\nMSS=auto\n");
}

/* Every key is printed, in its section, with the place it came from. */
static void test_print_origins(void **state)
{
	struct config c = good("[Tcp]\nMSL=5s\n[Listener a]\nAddress=*:7\nService=echo\nTTL=9\n");
	char *text = print(&c);
	struct config_key k;
	char line[64];

	for (size_t cursor = 0; config_next_key(&cursor, &k);) {
		(void)snprintf(line, sizeof(line), "\n%s=", k.name);
		if (!strstr(text, line))
			fail_msg("%s is not printed", k.name);
	}
	assert_non_null(strstr(text, "\nMSL=5s                                # t.conf:2\n"));
	assert_non_null(strstr(text, "\nTTL=64                                # default\n"));
	assert_non_null(strstr(text, "\nTTL=9                                 # t.conf:6\n"));
	/* The listener's own MSL is that of [Tcp]. */
	assert_non_null(strstr(strstr(text, "[Listener a]"),
			       "\nMSL=5s                                # t.conf:2\n"));
	free(text);
	config_fini(&c);
}

/* --- values --- */

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		uint64_t us;
	} ok[] = {
		{ "0", 0 },
		{ "90", 90000000 },
		{ "1.5", 1500000 },
		{ "30s", 30000000 },
		{ "30 s", 30000000 },
		{ "1min 30s", 90000000 },
		{ "1min30s", 90000000 },
		{ "2m", 120000000 },
		{ "1h 1m 1s 1ms 1us", 3661001001 },
		{ "1w", 604800000000 },
		{ "2 weeks", 1209600000000 },
		{ "1day", 86400000000 },
		{ "250ms", 250000 },
		{ "10us", 10 },
		{ "0.0000019s", 1 },
		{ "18446744073709551615us", UINT64_MAX },
	};
	static const char *const bad[] = { "",     " ",     "s",   "1x",  "1 2 x",
					   "-1s",  "1.s",   ".5s", "1ss", "1e3s",
					   "0x10", "1s,2s", "1S",  "1y",  "1..5" };
	uint64_t us;

	for (size_t i = 0; i < ARRAY_SIZE(ok); i++) {
		assert_int_equal(duration_parse(ok[i].text, &us), 0);
		assert_int_equal(us, ok[i].us);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (duration_parse(bad[i], &us) != -EINVAL)
			fail_msg("'%s' was read as %llu", bad[i], (unsigned long long)us);
	assert_int_equal(duration_parse("18446744073709551616us", &us), -ERANGE);
	assert_int_equal(duration_parse("18446744073709551615us 1us", &us), -ERANGE);
	assert_int_equal(duration_parse("300000000000000w", &us), -ERANGE);
}

static void test_sizes(void **state)
{
	uint64_t n;

	assert_int_equal(size_parse("2GiB", &n), 0);
	assert_int_equal(n, 2ULL << 30);
	assert_int_equal(size_parse("2 G", &n), 0);
	assert_int_equal(n, 2ULL << 30);
	assert_int_equal(size_parse("1.5K", &n), 0);
	assert_int_equal(n, 1536);
	assert_int_equal(size_parse("7B", &n), 0);
	assert_int_equal(n, 7);
	assert_int_equal(size_parse("1k", &n), -EINVAL);
	assert_int_equal(size_parse("1G 1", &n), -EINVAL);
	assert_int_equal(size_parse("99999999999T", &n), -ERANGE);
}

static void test_value_round_trip(void **state)
{
	char buf[VALUE_TEXT];
	uint64_t n, x = 1;

	for (int i = 0; i < 20000; i++) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		assert_int_equal(duration_parse(duration_format(x >> (i % 64), buf), &n), 0);
		assert_int_equal(n, x >> (i % 64));
		assert_int_equal(size_parse(size_format(x >> (i % 64), buf), &n), 0);
		assert_int_equal(n, x >> (i % 64));
	}
	assert_string_equal(duration_format(90000000, buf), "1min 30s");
	assert_string_equal(size_format(2ULL << 30, buf), "2GiB");
	assert_string_equal(size_format(1500, buf), "1500");
	assert_string_equal(size_format(0, buf), "0");
}

static void test_set_tcp(void **state)
{
	struct tcp_params p;
	struct errmsg err;

	tcp_params_default(&p);
	assert_int_equal(config_set_tcp(&p, "MSL", "2s", &err), 0);
	assert_int_equal(p.msl_us, 2000000);
	assert_int_equal(config_set_tcp(&p, "msl", "2s", &err), -ENOENT);
	assert_string_equal(err.text, "[Tcp] has no key msl; the nearest is MSL");
	assert_int_equal(config_set_tcp(&p, "Backlog", "2", &err), -ENOENT);
	assert_int_equal(config_set_tcp(&p, "TTL", "0", &err), -EINVAL);
	assert_string_equal(err.text, "TTL=0: expected a number, 1 to 255");
	assert_int_equal(p.ttl, 64);
}

/* What must go with another key is checked with the others as they are. */
static void test_set_checks_what_belongs_together(void **state)
{
	struct tcp_params p;
	struct errmsg err;

	tcp_params_default(&p);
	assert_int_equal(config_tcp_set(&p, key_find(SECTION_TCP, "RtoMax"), "100ms", &err),
			 -EINVAL);
	assert_string_equal(err.text, "RtoMax=100ms: RtoMin is above RtoMax");
	assert_int_equal(p.rto_max_us, 60000000);
	assert_int_equal(config_tcp_set(&p, key_find(SECTION_TCP, "RtoMin"), "50ms", &err), 0);
	assert_int_equal(config_tcp_set(&p, key_find(SECTION_TCP, "RtoMax"), "100ms", &err), 0);
	assert_null(config_tcp_key("RtoMaxx", &err));
	assert_string_equal(err.text, "[Tcp] has no key RtoMaxx; the nearest is RtoMax");
}

/* Every key can be told from another value, copied alone, and sent as a patch. */
static void test_one_key_at_a_time(void **state)
{
	static const char *const others[] = { "1s", "2s",  "50ms", "100", "70000",
					      "5",  "yes", "no",   "off", "on" };

	for (size_t i = 0; i < KEYS_N; i++) {
		const struct key *const k = &keys[i];
		struct tcp_params a, b, c;
		struct tcp_patch patch;
		size_t n = 0;

		if (k->section != SECTION_TCP)
			continue;
		tcp_params_default(&a);
		b = c = a;
		for (; config_tcp_key_eq(k, &a, &b); n++) {
			if (n == ARRAY_SIZE(others) && k->words) {
				(void)key_set(k, &b, k->words[1].name);
				if (config_tcp_key_eq(k, &a, &b))
					(void)key_set(k, &b, k->words[0].name);
				break;
			}
			if (n == ARRAY_SIZE(others))
				fail_msg("no other value of %s is known to this test", k->name);
			(void)key_set(k, &b, others[n]);
		}
		assert_false(config_tcp_eq(&a, &b));
		config_tcp_copy(k, &c, &b);
		assert_true(config_tcp_eq(&b, &c));
		patch = config_tcp_patch(k, &a);
		tcp_params_patch(&c, &patch);
		assert_true(config_tcp_eq(&a, &c));
	}
}

static void test_listeners_follow(void **state)
{
	struct config c = good("[Tcp]\nDSCP=3\n[Listener a]\nAddress=10.0.0.2:7\nService=echo\n"
			       "TTL=9\n");
	const struct key *const dscp = key_find(SECTION_TCP, "DSCP");
	const struct key *const ttl = key_find(SECTION_TCP, "TTL");
	struct config_listener *const l = &c.listeners[0];
	struct tcp_params p = c.tcp, now;
	char where[CONFIG_WHERE];

	p.ttl = 1;
	p.dscp = 4;
	config_tcp_follow(l, &p, &now);
	assert_int_equal(now.ttl, 9);
	assert_int_equal(now.dscp, 4);
	assert_string_equal(config_tcp_where(&c, NULL, dscp, where), "t.conf:2");
	assert_string_equal(config_tcp_where(&c, NULL, ttl, where), "default");
	assert_string_equal(config_tcp_where(&c, l, ttl, where), "t.conf:6");
	assert_false(config_tcp_noted(&c, dscp));
	config_tcp_note(&c, dscp);
	assert_true(config_tcp_noted(&c, dscp));
	assert_string_equal(config_tcp_where(&c, NULL, dscp, where), "run time");
	l->tcp_from[ttl - keys] = FROM_SET;
	assert_string_equal(config_tcp_where(&c, l, ttl, where), "run time");
	l->tcp_from[ttl - keys] = FROM_LISTEN;
	assert_string_equal(config_tcp_where(&c, l, ttl, where), "listen");
	config_fini(&c);
}

/* --- what stands beside it --- */

static char *slurp(const char *path)
{
	char *text = NULL;
	size_t n = 0;
	struct errmsg err;

	if (source_load(path, &text, &n, &err))
		fail_msg("%s", err.text);
	text = realloc(text, n + 1);
	assert_non_null(text);
	text[n] = 0;
	return text;
}

/* Each key of the table is in the manual, and in the shipped file, with its default. */
static void test_documented(void **state)
{
	char *manual = slurp(SOURCE_ROOT "/daemon/config/tcpfsmd.conf.5");
	char *shipped = slurp(SOURCE_ROOT "/etc/tcpfsmd.conf");
	struct config_key k;
	char text[128];

	for (size_t cursor = 0; config_next_key(&cursor, &k);) {
		(void)snprintf(text, sizeof(text), "\n.It Cm %s\n", k.name);
		if (!strstr(manual, text))
			fail_msg("tcpfsmd.conf.5 does not describe %s", k.name);
		(void)snprintf(text, sizeof(text), "\n#%s=", k.name);
		if (!strstr(shipped, text))
			fail_msg("etc/tcpfsmd.conf does not mention %s", k.name);
	}
	free(manual);
	free(shipped);
}

/* The manual names the keys that are settled when a connection opens: all of them, and no other. */
static void test_opening_keys_documented(void **state)
{
	char *manual = slurp(SOURCE_ROOT "/daemon/config/tcpfsmd.conf.5");
	char *list = strstr(manual, "These are settled when a connection opens");
	char *at;

	assert_non_null(list);
	list = strchr(list, '\n') + 1;
	*strstr(list, "\n.Bl") = 0;
	for (size_t i = 0; i < KEYS_N; i++) {
		char word[64];

		if (keys[i].section != SECTION_TCP)
			continue;
		(void)snprintf(word, sizeof(word), " %s ", keys[i].name);
		at = strstr(list, word);
		if ((at != NULL) != keys[i].opening)
			fail_msg("tcpfsmd.conf.5, in the list of what a running connection cannot "
				 "change: %s",
				 keys[i].name);
	}
	free(manual);
}

/* Makes "#Key=VALUE" and "#[Section]" into lines that count; "# words" stay words. */
static void uncomment(char *from, const char *end)
{
	for (char *p = from; p && p < end; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (p < end && *p == '#' && p[1] && !strchr(" #\n", p[1]))
			*p = ' ';
	}
}

/* The shipped file changes nothing; nor do its fixed sections, uncommented; its listeners are good. */
static void test_shipped_file(void **state)
{
	char *text = slurp(SOURCE_ROOT "/etc/tcpfsmd.conf");
	char *listeners = strstr(text, "#[Listener");
	struct config none = good(""), c = good(text);

	assert_non_null(listeners);
	assert_same(&none, &c);
	config_fini(&c);
	uncomment(text, listeners);
	assert_non_null(strstr(text, "\n MSL=30s\n"));
	c = good(text);
	assert_same(&none, &c);
	config_fini(&c);
	uncomment(listeners, text + strlen(text));
	c = good(text);
	assert_int_equal(c.listeners_n, 3);
	config_fini(&c);
	config_fini(&none);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_design_example),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_listener_inherits),
		cmocka_unit_test(test_every_tcp_key),
		cmocka_unit_test(test_later_wins),
		cmocka_unit_test(test_values_with_comment_signs),
		cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_bad_values),
		cmocka_unit_test(test_bad_listeners),
		cmocka_unit_test(test_bad_lines),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_too_many_listeners),
		cmocka_unit_test_setup_teardown(test_dropins_and_overrides, setup_dir,
						teardown_dir),
		cmocka_unit_test_setup_teardown(test_bad_overrides, setup_dir, teardown_dir),
		cmocka_unit_test_setup_teardown(test_bad_files, setup_dir, teardown_dir),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_print_origins),
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_value_round_trip),
		cmocka_unit_test(test_set_tcp),
		cmocka_unit_test(test_set_checks_what_belongs_together),
		cmocka_unit_test(test_one_key_at_a_time),
		cmocka_unit_test(test_listeners_follow),
		cmocka_unit_test(test_documented),
		cmocka_unit_test(test_opening_keys_documented),
		cmocka_unit_test(test_shipped_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
