/* SPDX-License-Identifier: Apache-2.0 */
#include "config/key.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/macros.h"

const char *const section_names[SECTION__COUNT] = { "Daemon", "Control", "Tcp", "Storage",
						    "Listener" };

static const struct key_word shields[] = { { "iptables", CONFIG_SHIELD_IPTABLES },
					   { "ingress", CONFIG_SHIELD_INGRESS },
					   { "bpf", CONFIG_SHIELD_BPF },
					   { "none", CONFIG_SHIELD_NONE },
					   { NULL, 0 } };
static const struct key_word records[] = { { "nothing", CONFIG_RECORD_NOTHING },
					   { "connections", CONFIG_RECORD_CONNECTIONS },
					   { "transitions", CONFIG_RECORD_TRANSITIONS },
					   { NULL, 0 } };
static const struct key_word controllers[] = { { "cubic", TCP_CC_CUBIC },
					       { "newreno", TCP_CC_NEWRENO },
					       { NULL, 0 } };
static const struct key_word personalities[] = { { "linux", TCP_AS_LINUX },
						 { "freebsd", TCP_AS_FREEBSD },
						 { "plain", TCP_AS_PLAIN },
						 { NULL, 0 } };
static const struct key_word uto_modes[] = { { "no", TCP_UTO_NO },
					     { "yes", TCP_UTO_YES },
					     { "advertise", TCP_UTO_ADVERTISE },
					     { NULL, 0 } };
static const struct key_word ecn_modes[] = {
	{ "off", TCP_ECN_OFF }, { "on", TCP_ECN_ON }, { "passive", TCP_ECN_PASSIVE }, { NULL, 0 }
};
static const struct key_word cookie_modes[] = { { "no", TCP_COOKIES_NO },
						{ "auto", TCP_COOKIES_AUTO },
						{ "always", TCP_COOKIES_ALWAYS },
						{ NULL, 0 } };
static const struct key_word fast_open_modes[] = { { "off", TCP_FAST_OPEN_OFF },
						   { "client", TCP_FAST_OPEN_CLIENT },
						   { "server", TCP_FAST_OPEN_SERVER },
						   { "both", TCP_FAST_OPEN_BOTH },
						   { NULL, 0 } };
static const struct key_word log_levels[] = {
	{ "error", LOG_LEVEL_ERROR },   { "warning", LOG_LEVEL_WARNING },
	{ "notice", LOG_LEVEL_NOTICE }, { "info", LOG_LEVEL_INFO },
	{ "debug", LOG_LEVEL_DEBUG },   { NULL, 0 }
};

#define US   1ULL
#define MS   1000ULL
#define SEC  1000000ULL
#define MIN  (60 * SEC)
#define HOUR (60 * MIN)
#define DAY  (24 * HOUR)
#define KIB  1024ULL
#define MIB  (1024 * KIB)
#define GIB  (1024 * MIB)
#define TIB  (1024 * GIB)

#define FIELD(type, member) offsetof(struct type, member), sizeof(((struct type *)0)->member)
#define ROW(section, type, name, kind, member, opening, ...)                                   \
	{                                                                                      \
		SECTION_##section, name, KEY_##kind, FIELD(type, member), __VA_ARGS__, opening \
	}
#define DAEMON(name, kind, member, ...) ROW(DAEMON, config, name, kind, member, false, __VA_ARGS__)
#define CONTROL(name, kind, member, ...) \
	ROW(CONTROL, config, name, kind, member, false, __VA_ARGS__)
#define TCP(name, kind, member, ...) ROW(TCP, tcp_params, name, kind, member, false, __VA_ARGS__)
/* Of [Tcp] too, and settled when a connection opens. */
#define OPENING(name, kind, member, ...) ROW(TCP, tcp_params, name, kind, member, true, __VA_ARGS__)
#define STORAGE(name, kind, member, ...) \
	ROW(STORAGE, config, name, kind, member, false, __VA_ARGS__)
#define LISTENER(name, kind, member, ...) \
	ROW(LISTENER, config_listener, name, kind, member, false, __VA_ARGS__)

/* clang-format off */
/* section(name, type, field, min, max, word for 0, words, help) */
const struct key keys[KEYS_N] = {
	DAEMON("Interfaces", NAMES, interfaces, 0, 0, NULL, NULL, "interfaces to serve on; any: all, also those that come later"),
	DAEMON("Shield", WORD, shield, 0, 0, NULL, shields, "what keeps the kernel's TCP away from our traffic"),
	DAEMON("LocalPorts", PORTS, local_port_min, 1, 65535, NULL, NULL, "local ports of our own, for active opens"),
	DAEMON("Workers", NUMBER, workers, 1, 256, NULL, NULL, "threads that do TCP"),
	DAEMON("MaxConnections", NUMBER, max_connections, 16, 20000000, NULL, NULL, "connections in all states together"),
	DAEMON("BufferMemory", SIZE, buffer_bytes, 256 * KIB, TIB, NULL, NULL, "memory for the text of all connections together"),
	DAEMON("Coalesce", DURATION, coalesce_us, 0, MS, NULL, NULL, "how long a busy worker lets more arrive before it looks again; 0: not at all"),
	DAEMON("StopGrace", DURATION, stop_grace_us, 0, HOUR, NULL, NULL, "how long open connections may finish at a stop"),
	DAEMON("LogLevel", WORD, log_level, 0, 0, NULL, log_levels, "the least important messages that are logged"),
	CONTROL("SocketGroup", TEXT, socket_group, 0, CONFIG_NAME - 1, NULL, NULL, "group that may use control.sock; empty: the daemon's own"),
	CONTROL("MaxClients", NUMBER, max_clients, 1, 10000, NULL, NULL, "clients of the control sockets at a time"),
	CONTROL("UnprivilegedPortStart", NUMBER, unprivileged_port_start, 0, 65536, NULL, NULL, "ports below are only for uid 0 and the daemon's own user"),
	TCP("MSL", DURATION, msl_us, 0, 10 * MIN, NULL, NULL, "maximum segment lifetime; TIME-WAIT lasts twice as long"),
	TCP("FinWait2Timeout", DURATION, fin_wait_2_us, MS, 365 * DAY, "infinity", NULL, "how long FIN-WAIT-2 may last when nobody reads any more"),
	TCP("UserTimeout", DURATION, user_timeout_us, MS, 365 * DAY, "infinity", NULL, "how long sent octets may stay unacknowledged"),
	TCP("UserTimeoutOption", WORD, user_timeout_option, 0, 0, NULL, uto_modes, "tell the peer our user timeout, and take its (RFC 5482)"),
	TCP("UserTimeoutMax", DURATION, user_timeout_max_us, MS, 365 * DAY, NULL, NULL, "what a peer may raise the user timeout to"),
	TCP("R1", NUMBER, r1, 1, 255, NULL, NULL, "retransmissions in a row after which a connection is in doubt"),
	OPENING("SynTimeout", DURATION, syn_timeout_us, MS, HOUR, NULL, NULL, "how long the handshake may take"),
	OPENING("RtoInitial", DURATION, rto_initial_us, MS, MIN, NULL, NULL, "retransmission timeout before the first measurement"),
	TCP("RtoMin", DURATION, rto_min_us, MS, MIN, NULL, NULL, "smallest retransmission timeout"),
	TCP("RtoMax", DURATION, rto_max_us, 10 * MS, HOUR, NULL, NULL, "largest retransmission timeout"),
	TCP("DelayedAck", DURATION, delayed_ack_us, 0, 500 * MS - US, NULL, NULL, "how long an acknowledgement may wait; 0: not at all"),
	TCP("SendBuffer", SIZE, send_buffer_bytes, 1, GIB, NULL, NULL, "unsent and unacknowledged octets held for a connection"),
	TCP("NotSentLowat", SIZE, not_sent_lowat_bytes, 1, GIB, "infinity", NULL, "of them, unsent octets"),
	TCP("ReceiveBuffer", SIZE, receive_buffer_bytes, 1, GIB, NULL, NULL, "largest window offered to the peer"),
	OPENING("ReceiveBufferInitial", SIZE, receive_initial_bytes, 1, GIB, "all", NULL, "window offered at first; it grows with what is read in a round trip"),
	OPENING("InitialWindow", NUMBER, initial_window, 1, 64, NULL, NULL, "segments sent before the first acknowledgement"),
	TCP("CongestionControl", WORD, congestion_control, 0, 0, NULL, controllers, "how fast the network is found to be"),
	OPENING("Ecn", WORD, ecn, 0, 0, NULL, ecn_modes, "congestion marks instead of losses; passive: when the peer asks"),
	OPENING("SynCookies", WORD, syn_cookies, 0, 0, NULL, cookie_modes, "answer a SYN without keeping a record; auto: when none is left"),
	OPENING("FastOpen", WORD, fast_open, 0, 0, NULL, fast_open_modes, "text in the SYN, for peers that have shown before who they are"),
	OPENING("FastOpenQueue", NUMBER, fast_open_queue, 1, 1000000, NULL, NULL, "half-open connections of a listener with text taken from the SYN"),
	OPENING("Personality", WORD, personality, 0, 0, NULL, personalities, "the system that a fingerprint takes us for"),
	OPENING("MSS", NUMBER, mss, 64, 65495, "auto", NULL, "largest segment asked of the peer; auto: what the link carries"),
	TCP("TTL", NUMBER, ttl, 1, 255, NULL, NULL, "time to live, or hop limit, of what is sent"),
	TCP("DSCP", NUMBER, dscp, 0, 63, NULL, NULL, "differentiated services code point of what is sent"),
	TCP("Nagle", SWITCH, nagle, 0, 0, NULL, NULL, "gather small segments while octets are unacknowledged"),
	TCP("Cork", SWITCH, cork, 0, 0, NULL, NULL, "send whole segments only, and the rest a little later"),
	TCP("DropSynFin", SWITCH, drop_syn_fin, 0, 0, NULL, NULL, "pass over a SYN that has a FIN"),
	OPENING("Blackhole", SWITCH, blackhole, 0, 0, NULL, NULL, "send no RST for what belongs to no connection"),
	OPENING("Timestamps", SWITCH, timestamps, 0, 0, NULL, NULL, "offer the timestamps option"),
	OPENING("WindowScaling", SWITCH, window_scaling, 0, 0, NULL, NULL, "offer the window scale option"),
	OPENING("Sack", SWITCH, sack, 0, 0, NULL, NULL, "selective acknowledgements"),
	TCP("Rfc5961", SWITCH, rfc5961, 0, 0, NULL, NULL, "answer doubtful RST and SYN with a challenge ACK"),
	TCP("KeepAlive", SWITCH, keepalive, 0, 0, NULL, NULL, "ask an idle peer whether it is still there"),
	TCP("KeepAliveTime", DURATION, keepalive_time_us, MS, 365 * DAY, NULL, NULL, "how long a connection is idle before the first keep-alive"),
	TCP("KeepAliveInterval", DURATION, keepalive_interval_us, MS, DAY, NULL, NULL, "between keep-alives that are not answered"),
	TCP("KeepAliveProbes", NUMBER, keepalive_probes, 2, 1000, NULL, NULL, "keep-alives not answered before the connection is reset"),
	TCP("BlackHoleDetection", SWITCH, black_hole_detection, 0, 0, NULL, NULL, "try smaller segments when large ones time out"),
	OPENING("IcmpMayReset", SWITCH, icmp_may_reset, 0, 0, NULL, NULL, "soft ICMP errors too end a connection that is not open yet"),
	STORAGE("Database", TEXT, database, 1, CONFIG_TEXT - 1, NULL, NULL, "file of the record; relative: in the state directory"),
	STORAGE("Record", WORD, record, 0, 0, NULL, records, "what is recorded"),
	STORAGE("Retain", DURATION, retain_us, SEC, 36500 * DAY, "infinity", NULL, "age above which ended connections are forgotten"),
	STORAGE("RetainSize", SIZE, retain_bytes, MIB, 1024 * TIB, "infinity", NULL, "size above which the oldest are forgotten"),
	LISTENER("Address", ENDPOINT, address, 0, 0, NULL, NULL, "address and port to serve"),
	LISTENER("Service", TEXT, service, 1, CONFIG_TEXT - 1, NULL, NULL, "what its connections are served"),
	LISTENER("MaxProcesses", NUMBER, max_processes, 1, 100000, NULL, NULL, "exec: processes at a time"),
	LISTENER("MaxConnections", NUMBER, max_connections, 1, 20000000, "infinity", NULL, "its connections at a time"),
	LISTENER("MaxConnectionsPerPeer", NUMBER, max_connections_per_peer, 1, 10000000, "infinity", NULL, "connections of one address at a time"),
	LISTENER("Backlog", NUMBER, backlog, 1, 1000000, NULL, NULL, "its connections in SYN-RECEIVED at a time"),
	LISTENER("MaxProcessesPerPeer", NUMBER, max_processes_per_peer, 1, 100000, "infinity", NULL, "exec: processes of one address at a time"),
	LISTENER("User", TEXT, user, 0, CONFIG_NAME - 1, NULL, NULL, "exec: whose processes they are; empty: the daemon's user"),
	LISTENER("Group", TEXT, group, 0, CONFIG_NAME - 1, NULL, NULL, "exec: their group; empty: that of User"),
	LISTENER("WorkingDirectory", TEXT, directory, 0, CONFIG_PATH - 1, NULL, NULL, "exec: where they start; empty: /"),
	LISTENER("Environment", TEXT, environment, 0, CONFIG_TEXT - 1, NULL, NULL, "exec: NAME=VALUE ... besides the addresses"),
	LISTENER("LimitCPU", DURATION, limit_cpu_us, SEC, 365 * DAY, "inherit", NULL, "exec: processor time of a process"),
	LISTENER("LimitAS", SIZE, limit_as_bytes, MIB, 1024 * TIB, "inherit", NULL, "exec: address space of a process"),
	LISTENER("LimitNOFILE", NUMBER, limit_nofile, 4, 1000000000, "inherit", NULL, "exec: descriptors of a process"),
	LISTENER("LimitFSIZE", SIZE, limit_fsize_bytes, 1, 1024 * TIB, "inherit", NULL, "exec: size of a file that a process writes"),
	LISTENER("LimitNPROC", NUMBER, limit_nproc, 1, 4194304, "inherit", NULL, "exec: processes and threads of their user"),
	LISTENER("KillAfter", DURATION, kill_after_us, 0, HOUR, NULL, NULL, "exec: from SIGHUP or SIGTERM to SIGKILL"),
};
/* clang-format on */

static void *field(const struct key *k, void *base)
{
	return (char *)base + k->offset;
}

static const void *field_const(const struct key *k, const void *base)
{
	return (const char *)base + k->offset;
}

/* A whole number of whatever width the field has. */
static void number_store(const struct key *k, void *base, uint64_t n)
{
	const uint8_t n8 = (uint8_t)n;
	const uint16_t n16 = (uint16_t)n;
	const uint32_t n32 = (uint32_t)n;
	const void *from = k->size == 1   ? (const void *)&n8
			   : k->size == 2 ? (const void *)&n16
			   : k->size == 4 ? (const void *)&n32
					  : (const void *)&n;

	memcpy(field(k, base), from, k->size);
}

static uint64_t number_load(const struct key *k, const void *base)
{
	uint8_t n8;
	uint16_t n16;
	uint32_t n32;
	uint64_t n64;

	switch (k->size) {
	case 1:
		memcpy(&n8, field_const(k, base), 1);
		return n8;
	case 2:
		memcpy(&n16, field_const(k, base), 2);
		return n16;
	case 4:
		memcpy(&n32, field_const(k, base), 4);
		return n32;
	default:
		assert(k->size == 8);
		memcpy(&n64, field_const(k, base), 8);
		return n64;
	}
}

static int set_number(const struct key *k, void *base, const char *text)
{
	uint64_t n = 0;
	int rc = 0;

	if (k->zero && !strcmp(text, k->zero))
		n = 0;
	else if (k->type == KEY_DURATION)
		rc = duration_parse(text, &n);
	else if (k->type == KEY_SIZE)
		rc = size_parse(text, &n);
	else
		rc = number_parse(text, &n);
	if (rc || ((n < k->min || n > k->max) && !(k->zero && n == 0)))
		return -EINVAL;
	number_store(k, base, n);
	return 0;
}

static int set_switch(const struct key *k, void *base, const char *text)
{
	bool on;

	if (switch_parse(text, &on))
		return -EINVAL;
	memcpy(field(k, base), &on, sizeof(on));
	return 0;
}

static int set_word(const struct key *k, void *base, const char *text)
{
	for (const struct key_word *w = k->words; w->name; w++) {
		if (!strcmp(w->name, text)) {
			memcpy(field(k, base), &w->value, sizeof(w->value));
			return 0;
		}
	}
	return -EINVAL;
}

static int set_text(const struct key *k, void *base, const char *text)
{
	const size_t n = strlen(text);

	if (n < k->min || n > k->max)
		return -EINVAL;
	memset(field(k, base), 0, k->size);
	memcpy(field(k, base), text, n);
	return 0;
}

/* As the kernel has it: dev_valid_name(). */
static bool interface_ok(const char *name, size_t n)
{
	return n > 0 && n < 16 && !memchr(name, '/', n) && !memchr(name, ':', n) &&
	       strncmp(name, ".", n) != 0 && strncmp(name, "..", n) != 0;
}

static int set_interfaces(struct config *c, const char *text)
{
	static const char between[] = ", \t";
	char names[CONFIG_INTERFACES_MAX][16] = { 0 };
	size_t names_n = 0;

	for (const char *p = text + strspn(text, between); *p; p += strspn(p, between)) {
		const size_t n = strcspn(p, between);

		if (!interface_ok(p, n) || names_n == CONFIG_INTERFACES_MAX)
			return -EINVAL;
		memcpy(names[names_n++], p, n);
		p += n;
	}
	if (names_n == 0)
		return -EINVAL;
	if (names_n == 1 && !strcmp(names[0], "any"))
		names_n = 0;
	for (size_t i = 0; i < names_n; i++)
		if (!strcmp(names[i], "any"))
			return -EINVAL;
	memset(c->interfaces, 0, sizeof(c->interfaces));
	memcpy(c->interfaces, names, names_n * sizeof(names[0]));
	c->interfaces_n = names_n;
	return 0;
}

static int set_ports(const struct key *k, struct config *c, const char *text)
{
	const char *dash = strchr(text, '-');
	char first[8];
	uint64_t lo, hi;
	const size_t n = dash ? (size_t)(dash - text) : strlen(text);

	if (n >= sizeof(first))
		return -EINVAL;
	memcpy(first, text, n);
	first[n] = 0;
	if (number_parse(first, &lo) || number_parse(dash ? dash + 1 : first, &hi) || lo < k->min ||
	    hi < lo || hi > k->max)
		return -EINVAL;
	c->local_port_min = (uint16_t)lo;
	c->local_port_max = (uint16_t)hi;
	return 0;
}

static int set_endpoint(const struct key *k, void *base, const char *text)
{
	struct endpoint ep;

	if (endpoint_parse(text, false, &ep) || addr_is_multicast(&ep.addr) ||
	    addr_is_broadcast(&ep.addr))
		return -EINVAL;
	memcpy(field(k, base), &ep, sizeof(ep));
	return 0;
}

int key_set(const struct key *k, void *base, const char *text)
{
	switch (k->type) {
	case KEY_DURATION:
	case KEY_SIZE:
	case KEY_NUMBER:
		return set_number(k, base, text);
	case KEY_SWITCH:
		return set_switch(k, base, text);
	case KEY_WORD:
		return set_word(k, base, text);
	case KEY_TEXT:
		return set_text(k, base, text);
	case KEY_NAMES:
		return set_interfaces(base, text);
	case KEY_PORTS:
		return set_ports(k, base, text);
	case KEY_ENDPOINT:
		return set_endpoint(k, base, text);
	}
	return -EINVAL;
}

static const char *number_format(const struct key *k, uint64_t n, char buf[static VALUE_TEXT])
{
	if (k->type == KEY_DURATION)
		return duration_format(n, buf);
	if (k->type == KEY_SIZE)
		return size_format(n, buf);
	(void)snprintf(buf, VALUE_TEXT, "%llu", (unsigned long long)n);
	return buf;
}

static const char *format_number(const struct key *k, const void *base,
				 char buf[static KEY_TEXT_MAX])
{
	const uint64_t n = number_load(k, base);

	if (n == 0 && k->zero)
		return strcpy(buf, k->zero);
	return number_format(k, n, buf);
}

static const char *format_word(const struct key *k, const void *base, char buf[static KEY_TEXT_MAX])
{
	int value;

	memcpy(&value, field_const(k, base), sizeof(value));
	for (const struct key_word *w = k->words; w->name; w++)
		if (w->value == value)
			return strcpy(buf, w->name);
	assert(false && "a word that is not in its list");
	return buf;
}

static const char *format_interfaces(const struct config *c, char buf[static KEY_TEXT_MAX])
{
	size_t at = 0;

	if (c->interfaces_n == 0)
		return strcpy(buf, "any");
	/* Without a blank, behind which a name that starts with # would be a comment. */
	for (size_t i = 0; i < c->interfaces_n; i++)
		at += (size_t)snprintf(buf + at, KEY_TEXT_MAX - at, "%s%s", i ? "," : "",
				       c->interfaces[i]);
	return buf;
}

static const char *format_ports(const struct config *c, char buf[static KEY_TEXT_MAX])
{
	(void)snprintf(buf, KEY_TEXT_MAX, "%u-%u", c->local_port_min, c->local_port_max);
	return buf;
}

static const char *format_endpoint(const struct key *k, const void *base,
				   char buf[static KEY_TEXT_MAX])
{
	struct endpoint ep;

	memcpy(&ep, field_const(k, base), sizeof(ep));
	return endpoint_format(&ep, buf);
}

const char *key_format(const struct key *k, const void *base, char buf[static KEY_TEXT_MAX])
{
	bool on;

	switch (k->type) {
	case KEY_DURATION:
	case KEY_SIZE:
	case KEY_NUMBER:
		return format_number(k, base, buf);
	case KEY_SWITCH:
		memcpy(&on, field_const(k, base), sizeof(on));
		return strcpy(buf, on ? "yes" : "no");
	case KEY_WORD:
		return format_word(k, base, buf);
	case KEY_TEXT:
		(void)snprintf(buf, KEY_TEXT_MAX, "%s", (const char *)field_const(k, base));
		return buf;
	case KEY_NAMES:
		return format_interfaces(base, buf);
	case KEY_PORTS:
		return format_ports(base, buf);
	case KEY_ENDPOINT:
		return format_endpoint(k, base, buf);
	}
	return buf;
}

static const char *expected_number(const struct key *k, char buf[static KEY_EXPECTED])
{
	const char *const what = k->type == KEY_DURATION ? "a time span such as 30s or 1min 30s"
				 : k->type == KEY_SIZE   ? "a size such as 64KiB or 2GiB"
							 : "a number";
	char low[VALUE_TEXT], high[VALUE_TEXT];

	(void)snprintf(buf, KEY_EXPECTED, "%s, %s to %s%s%s", what, number_format(k, k->min, low),
		       number_format(k, k->max, high), k->zero ? ", or " : "",
		       k->zero ? k->zero : "");
	return buf;
}

static const char *expected_word(const struct key *k, char buf[static KEY_EXPECTED])
{
	size_t at = 0;

	for (const struct key_word *w = k->words; w->name; w++)
		at += (size_t)snprintf(buf + at, KEY_EXPECTED - at, "%s%s",
				       w == k->words ? ""
				       : w[1].name   ? ", "
						     : " or ",
				       w->name);
	return buf;
}

const char *key_expected(const struct key *k, char buf[static KEY_EXPECTED])
{
	switch (k->type) {
	case KEY_DURATION:
	case KEY_SIZE:
	case KEY_NUMBER:
		return expected_number(k, buf);
	case KEY_SWITCH:
		return strcpy(buf, "yes or no");
	case KEY_WORD:
		return expected_word(k, buf);
	case KEY_TEXT:
		(void)snprintf(buf, KEY_EXPECTED, "a text of %llu to %llu octets",
			       (unsigned long long)k->min, (unsigned long long)k->max);
		return buf;
	case KEY_NAMES:
		(void)snprintf(buf, KEY_EXPECTED, "any, or up to %d names of interfaces",
			       CONFIG_INTERFACES_MAX);
		return buf;
	case KEY_PORTS:
		return strcpy(buf, "a range of ports such as 61000-65535");
	case KEY_ENDPOINT:
		return strcpy(
			buf,
			"ADDR:PORT, [ADDR]:PORT or *:PORT, the address no multicast and no name");
	}
	return buf;
}

/* May `k` stand in that section? */
static bool key_in(const struct key *k, enum section section)
{
	return k->section == section || (section == SECTION_LISTENER && k->section == SECTION_TCP);
}

const struct key *key_find(enum section section, const char *name)
{
	for (size_t i = 0; i < KEYS_N; i++)
		if (key_in(&keys[i], section) && !strcmp(keys[i].name, name))
			return &keys[i];
	return NULL;
}

/* How many letters to add, drop or change, whatever their case (Levenshtein, one row at a time). */
static unsigned distance(const char *a, const char *b)
{
	enum { MOST = 64 };
	const size_t n = strlen(b);
	unsigned row[MOST];

	if (n >= MOST || strlen(a) >= MOST)
		return MOST;
	for (unsigned j = 0; j <= n; j++)
		row[j] = j;
	for (unsigned i = 1; a[i - 1]; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			const bool same = tolower((unsigned char)a[i - 1]) ==
					  tolower((unsigned char)b[j - 1]);
			const unsigned change = diagonal + !same;
			const unsigned step = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);

			diagonal = row[j];
			row[j] = change < step ? change : step;
		}
	}
	return row[n];
}

const char *key_nearest(enum section section, const char *name)
{
	/* More than every third letter wrong is no likeness. */
	unsigned best = (unsigned)(strlen(name) / 3) + 2;
	const char *nearest = NULL;

	for (size_t i = 0; i < KEYS_N; i++) {
		const unsigned d = key_in(&keys[i], section) ? distance(name, keys[i].name) : best;

		if (d < best) {
			best = d;
			nearest = keys[i].name;
		}
	}
	return nearest;
}
