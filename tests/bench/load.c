/* SPDX-License-Identifier: Apache-2.0 */
/* The client of the bench: the kernel's TCP against any server of echo, discard and chargen.
 *
 * usage: load MODE -h HOST [-c CONNS] [-t SECONDS] [-s BYTES] [-p SERVER-PID] [-a ADDRESS -n COUNT]
 *
 *	up	upload to discard over CONNS connections; what the peer acknowledged counts
 *	down	download from chargen
 *	echo	BYTES through one echo connection, both ways at once, compared
 *	rr	requests of BYTES to echo, one outstanding on each of CONNS
 *	cps	connect, one octet there and back, close; CONNS at a time; -R: close by RST
 *	hold	CONNS idle connections by PROCESSES (-f); memory of the server; a sample must answer
 *
 * -a, -n: local addresses to connect from, for more connections than one address has ports. One line
 * of JSON on stdout. CPU is in seconds and includes what the kernel does in the process's context.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "common.h"

enum { BLOCK = 1 << 18, EVENTS = 256, WARM_MS = 300, PATIENCE_S = 30 };

static struct {
	const char *host;
	const char *from; /* first local address */
	unsigned from_n;
	unsigned conns, processes;
	size_t bytes;
	double seconds;
	pid_t pid;
	bool reset;
} opt = { .host = "10.9.0.2", .conns = 1, .processes = 1, .bytes = 1, .seconds = 1 };

/* Latencies: 64 steps an octave. */
enum { STEPS = 64, OCTAVES = 40 };

static struct {
	uint64_t n[STEPS * OCTAVES];
	uint64_t all, max;
} hist;

static void hist_add(uint64_t ns)
{
	const unsigned octave = ns < STEPS ? 0 : 63 - (unsigned)__builtin_clzll(ns) - 5;
	uint64_t at = ns < STEPS ? ns : octave * STEPS + (ns >> (octave - 1)) % STEPS;

	if (at >= STEPS * OCTAVES)
		at = STEPS * OCTAVES - 1;
	hist.n[at]++;
	hist.all++;
	hist.max = ns > hist.max ? ns : hist.max;
}

/* Microseconds. */
static double hist_quantile(double q)
{
	const uint64_t want = (uint64_t)(q * (double)hist.all);
	uint64_t seen = 0;

	for (unsigned i = 0; i < STEPS * OCTAVES; i++) {
		seen += hist.n[i];
		if (seen > want)
			return (i < STEPS ? (double)i
					  : (double)((uint64_t)(STEPS + i % STEPS)
						     << (i / STEPS - 1))) /
			       1e3;
	}
	return (double)hist.max / 1e3;
}

/* A stretch of time and what it cost. */
struct span_of_time {
	uint64_t start_ns;
	double client, server; /* CPU */
	double seconds;
};

static void measure_begin(struct span_of_time *m)
{
	memset(&hist, 0, sizeof(hist));
	*m = (struct span_of_time){ .client = cpu_of_self(),
				    .server = cpu_of(opt.pid),
				    .start_ns = clock_ns() };
}

static void measure_end(struct span_of_time *m)
{
	m->seconds = seconds_since(m->start_ns);
	m->client = cpu_of_self() - m->client;
	m->server = cpu_of(opt.pid) - m->server;
}

static bool in_time(const struct span_of_time *m)
{
	return seconds_since(m->start_ns) < opt.seconds;
}

/* A machine may stand still for as long as a short measurement takes: it goes on until there is something to measure. */
static bool may_wait(const struct span_of_time *m)
{
	return seconds_since(m->start_ns) < opt.seconds + PATIENCE_S;
}

static void bind_source(int fd)
{
	static unsigned next;
	const int one = 1;
	union bench_addr a;
	socklen_t len;

	if (!opt.from)
		return;
	len = addr_parse(opt.from, 0, &a);
	if (a.any.sa_family == AF_INET)
		a.in.sin_addr.s_addr = htonl(ntohl(a.in.sin_addr.s_addr) + next++ % opt.from_n);
	(void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	if (bind(fd, &a.any, len))
		err(1, "bind");
}

static int open_socket(unsigned port, bool wait)
{
	const struct timeval patience = { 10, 0 };
	const struct linger lg = { .l_onoff = 1 };
	const int one = 1;
	union bench_addr a;
	const socklen_t len = addr_parse(opt.host, port, &a);
	const int fd = socket(a.any.sa_family, SOCK_STREAM | (wait ? 0 : SOCK_NONBLOCK), 0);

	if (fd < 0)
		err(1, "socket");
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	choose_congestion_control(fd);
	if (opt.reset)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	bind_source(fd);
	if (connect(fd, &a.any, len) && (wait || errno != EINPROGRESS))
		err(1, "connect to %s port %u", opt.host, port);
	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static int *open_all(unsigned port, int epoll_fd, uint32_t events)
{
	int *const fds = calloc(opt.conns, sizeof(*fds));

	for (unsigned i = 0; fds && i < opt.conns; i++) {
		struct epoll_event e = { .events = events, .data.u32 = i };

		fds[i] = open_socket(port, true);
		(void)epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fds[i], &e);
	}
	return fds;
}

/* Away at once: nothing of one measurement is left in the next. */
static void reset_all(int *fds)
{
	const struct linger lg = { .l_onoff = 1 };

	for (unsigned i = 0; i < opt.conns; i++) {
		(void)setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &lg, sizeof(lg));
		(void)close(fds[i]);
	}
	free(fds);
}

static uint64_t acked(const int *fds, uint32_t *ret_resent)
{
	uint64_t sum = 0;

	*ret_resent = 0;
	for (unsigned i = 0; i < opt.conns; i++) {
		struct tcp_info ti = { 0 };
		socklen_t len = sizeof(ti);

		(void)getsockopt(fds[i], IPPROTO_TCP, TCP_INFO, &ti, &len);
		sum += ti.tcpi_bytes_acked;
		*ret_resent += ti.tcpi_total_retrans;
	}
	return sum;
}

static int run_bulk(bool up)
{
	static uint8_t block[BLOCK];
	const int ep = epoll_create1(0);
	int *const fds = open_all(up ? PORT_DISCARD : PORT_CHARGEN, ep, up ? EPOLLOUT : EPOLLIN);
	const uint64_t start = clock_ns();
	uint64_t bytes = 0, before = 0;
	struct span_of_time m = { 0 };
	struct epoll_event ev[EVENTS];
	uint32_t resent;
	bool warm = false;

	while (!warm || in_time(&m) ||
	       (may_wait(&m) && (up ? acked(fds, &resent) : bytes) == before)) {
		const int n = epoll_wait(ep, ev, EVENTS, 100);

		if (!warm && seconds_since(start) * 1000 > WARM_MS) {
			warm = true;
			before = up ? acked(fds, &resent) : bytes;
			measure_begin(&m);
		}
		for (int i = 0; i < n; i++) {
			const int fd = fds[ev[i].data.u32];
			const ssize_t k = up ? send(fd, block, BLOCK, MSG_NOSIGNAL)
					     : recv(fd, block, BLOCK, 0);

			if (k == 0 || (k < 0 && errno != EAGAIN))
				errx(1, "a connection ended");
			bytes += k > 0 ? (uint64_t)k : 0;
		}
	}
	measure_end(&m);
	if (up)
		bytes = acked(fds, &resent);
	else
		(void)acked(fds, &resent);
	bytes -= before;
	if (!bytes)
		errx(1, "nothing came through in %d s", PATIENCE_S);
	printf("{\"gbps\":%.4f,\"srv_cpu_per_gb\":%.4f,\"both_cpu_per_gb\":%.4f,\"resent\":%u}\n",
	       (double)bytes * 8 / 1e9 / m.seconds, m.server / ((double)bytes / 1e9),
	       (m.server + m.client) / ((double)bytes / 1e9), resent);
	reset_all(fds);
	return 0;
}

static int run_echo(void)
{
	static uint8_t out[BLOCK + 997], in[BLOCK];
	const int ep = epoll_create1(0);
	int *const fds = open_all(PORT_ECHO, ep, EPOLLIN | EPOLLOUT | EPOLLET);
	struct span_of_time m;
	size_t sent = 0, got = 0;

	for (unsigned i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i % 997 * 7);
	measure_begin(&m);
	while (got < opt.bytes) {
		struct epoll_event ev;
		ssize_t n = 0, k;

		while (sent < opt.bytes && n >= 0) {
			const size_t left = opt.bytes - sent;

			n = send(fds[0], out + sent % 997, left < BLOCK ? left : BLOCK,
				 MSG_NOSIGNAL);
			sent += n > 0 ? (size_t)n : 0;
		}
		while ((k = recv(fds[0], in, BLOCK, 0)) > 0) {
			if (memcmp(in, out + got % 997, (size_t)k) != 0)
				errx(1, "the echo differs");
			got += (size_t)k;
		}
		if (k == 0 || errno != EAGAIN)
			errx(1, "the connection ended");
		if (got < opt.bytes && epoll_wait(ep, &ev, 1, 20000) == 0)
			errx(1, "stuck at %zu octets", got);
	}
	measure_end(&m);
	printf("{\"gbps\":%.4f,\"srv_cpu_per_gb\":%.4f,\"both_cpu_per_gb\":%.4f}\n",
	       (double)got * 8 / 1e9 / m.seconds, m.server / ((double)got / 1e9),
	       (m.server + m.client) / ((double)got / 1e9));
	reset_all(fds);
	return 0;
}

static void ask(int fd, const uint8_t *request, uint64_t *ret_at)
{
	*ret_at = clock_ns();
	if (send(fd, request, opt.bytes, MSG_NOSIGNAL) != (ssize_t)opt.bytes)
		errx(1, "a request was not taken");
}

static int run_rr(void)
{
	const int ep = epoll_create1(0);
	int *const fds = open_all(PORT_ECHO, ep, EPOLLIN);
	const uint64_t start = clock_ns();
	uint64_t *const asked = calloc(opt.conns, sizeof(*asked));
	size_t *const have = calloc(opt.conns, sizeof(*have));
	uint8_t *const request = malloc(opt.bytes), *const answer = malloc(opt.bytes);
	struct span_of_time m = { 0 };
	struct epoll_event ev[EVENTS];
	bool warm = false;

	for (size_t i = 0; i < opt.bytes; i++)
		request[i] = (uint8_t)(i * 7 + 1);
	for (unsigned i = 0; i < opt.conns; i++)
		ask(fds[i], request, &asked[i]);
	while (!warm || in_time(&m) || (may_wait(&m) && !hist.all)) {
		const int n = epoll_wait(ep, ev, EVENTS, 5000);

		if (n == 0)
			errx(1, "no answer within 5 s");
		if (!warm && seconds_since(start) * 1000 > WARM_MS) {
			warm = true;
			measure_begin(&m);
		}
		for (int k = 0; k < n; k++) {
			const unsigned i = ev[k].data.u32;
			const ssize_t got = recv(fds[i], answer, opt.bytes - have[i], 0);

			if (got <= 0 || memcmp(answer, request + have[i], (size_t)got) != 0)
				errx(1, "a wrong answer, or none");
			have[i] += (size_t)got;
			if (have[i] < opt.bytes)
				continue;
			have[i] = 0;
			hist_add(clock_ns() - asked[i]);
			ask(fds[i], request, &asked[i]);
		}
	}
	measure_end(&m);
	printf("{\"rate\":%.1f,\"p50_us\":%.2f,\"p99_us\":%.2f,\"srv_us_per_op\":%.3f,"
	       "\"both_us_per_op\":%.3f}\n",
	       (double)hist.all / m.seconds, hist_quantile(.5), hist_quantile(.99),
	       m.server * 1e6 / (double)hist.all, (m.server + m.client) * 1e6 / (double)hist.all);
	reset_all(fds);
	return 0;
}

/* One event of a short connection. True: it is over. */
static bool step_short(int ep, int fd, uint32_t events, uint64_t *ok, uint64_t *failed)
{
	struct epoll_event next = { .events = EPOLLIN, .data.fd = fd };
	uint8_t octet = 'x';

	if (events & EPOLLOUT && !(events & (EPOLLERR | EPOLLHUP)) &&
	    send(fd, &octet, 1, MSG_NOSIGNAL) == 1) {
		(void)epoll_ctl(ep, EPOLL_CTL_MOD, fd, &next);
		return false;
	}
	octet = 0;
	if (events & EPOLLIN && recv(fd, &octet, 1, 0) == 1 && octet == 'x')
		++*ok;
	else
		++*failed;
	(void)close(fd);
	return true;
}

static int run_cps(void)
{
	const size_t descriptors = raise_descriptors();
	uint64_t *const opened = calloc(descriptors, sizeof(*opened));
	const int ep = epoll_create1(0);
	struct epoll_event ev[EVENTS];
	uint64_t ok = 0, failed = 0, before = 0;
	struct span_of_time m;
	unsigned live = 0;
	double per;

	measure_begin(&m);
	while (in_time(&m) || (may_wait(&m) && !ok)) {
		int n;

		for (; live < opt.conns; live++) {
			const uint64_t now = clock_ns();
			const int fd = open_socket(PORT_ECHO, false);
			struct epoll_event e = { .events = EPOLLOUT, .data.fd = fd };

			opened[fd] = now;
			(void)epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
		}
		n = epoll_wait(ep, ev, EVENTS, 100);
		for (int k = 0; k < n; k++) {
			const int fd = ev[k].data.fd;
			const uint64_t since = opened[fd];

			if (!step_short(ep, fd, ev[k].events, &ok, &failed))
				continue;
			live--;
			if (ok > before)
				hist_add(clock_ns() - since);
			before = ok;
		}
	}
	measure_end(&m);
	per = ok ? 1e6 / (double)ok : 0;
	printf("{\"rate\":%.1f,\"failed\":%llu,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,"
	       "\"srv_us_per_op\":%.3f,\"both_us_per_op\":%.3f}\n",
	       (double)ok / m.seconds, (unsigned long long)failed, hist_quantile(.5),
	       hist_quantile(.99), (double)hist.max / 1e3, m.server * per,
	       (m.server + m.client) * per);
	return 0;
}

/* Idle connections. One process has too few descriptors on many machines. */

enum { HOLDERS_MAX = 1024, IN_FLIGHT = 64, SAMPLE = 50 };

struct shared {
	volatile unsigned up[HOLDERS_MAX], failed[HOLDERS_MAX], alive[HOLDERS_MAX];
	volatile unsigned opened, checked, phase;
};

static unsigned hold_open(int *fds, unsigned want, unsigned *ret_failed)
{
	const int ep = epoll_create1(0);
	unsigned started = 0, live = 0, up = 0, failed = 0;
	struct epoll_event ev[EVENTS];

	while (up + failed < want) {
		int n;

		for (; live < IN_FLIGHT && started < want; live++, started++) {
			const int fd = open_socket(PORT_ECHO, false);
			struct epoll_event e = { .events = EPOLLOUT, .data.fd = fd };

			(void)epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
		}
		n = epoll_wait(ep, ev, EVENTS, 100);
		for (int k = 0; k < n; k++, live--) {
			(void)epoll_ctl(ep, EPOLL_CTL_DEL, ev[k].data.fd, NULL);
			if (ev[k].events & (EPOLLERR | EPOLLHUP))
				failed++;
			else
				fds[up++] = ev[k].data.fd;
		}
	}
	*ret_failed = failed;
	return up;
}

static bool answers(int fd)
{
	const struct timeval patience = { 5, 0 };
	uint8_t octet = 'h';

	(void)fcntl(fd, F_SETFL, 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return send(fd, &octet, 1, MSG_NOSIGNAL) == 1 && recv(fd, &octet, 1, 0) == 1;
}

static void wait_for(const volatile unsigned *value, unsigned at_least)
{
	while (*value < at_least)
		(void)usleep(5000);
}

static void hold(struct shared *sh, unsigned me, unsigned want)
{
	int *const fds = calloc(want + 1, sizeof(*fds));
	unsigned failed, n;

	(void)raise_descriptors();
	n = hold_open(fds, want, &failed);
	sh->up[me] = n;
	sh->failed[me] = failed;
	(void)__sync_fetch_and_add(&sh->opened, 1);
	wait_for(&sh->phase, 1);
	for (unsigned i = 0; i < SAMPLE && i < n; i++)
		sh->alive[me] += answers(fds[(uint64_t)i * n / SAMPLE]);
	(void)__sync_fetch_and_add(&sh->checked, 1);
	wait_for(&sh->phase, 2);
	opt.conns = n;
	reset_all(fds);
	_exit(0);
}

static int run_hold(void)
{
	struct shared *const sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const unsigned procs = opt.processes < HOLDERS_MAX ? opt.processes : HOLDERS_MAX;
	char status[64];
	struct span_of_time m;
	unsigned up = 0, alive = 0, failed = 0;
	long rss, slab;

	(void)snprintf(status, sizeof(status), "/proc/%d/status", (int)opt.pid);
	opt.reset = true;
	rss = kb_of(status, "VmRSS:");
	slab = kb_of("/proc/meminfo", "Slab:");
	measure_begin(&m);
	for (unsigned i = 0; i < procs; i++)
		if (fork() == 0)
			hold(sh, i, opt.conns / procs + (i < opt.conns % procs));
	wait_for(&sh->opened, procs);
	measure_end(&m);
	rss = kb_of(status, "VmRSS:") - rss;
	slab = kb_of("/proc/meminfo", "Slab:") - slab;
	sh->phase = 1;
	wait_for(&sh->checked, procs);
	for (unsigned i = 0; i < procs; i++) {
		up += sh->up[i];
		failed += sh->failed[i];
		alive += sh->alive[i];
	}
	printf("{\"up\":%u,\"failed\":%u,\"rate\":%.0f,\"srv_us_per_op\":%.3f,"
	       "\"rss_per_conn\":%.1f,\"slab_per_conn\":%.1f,\"alive\":%u,\"sampled\":%u}\n",
	       up, failed, up / m.seconds, m.server * 1e6 / up, (double)rss * 1024 / up,
	       (double)slab * 1024 / up, alive,
	       procs * (opt.conns / procs < SAMPLE ? opt.conns / procs : SAMPLE));
	sh->phase = 2;
	while (wait(NULL) > 0)
		continue;
	return failed > 0;
}

static int usage(void)
{
	(void)fputs(
		"usage: load up|down|echo|rr|cps|hold -h HOST [-c CONNS] [-t SECONDS] [-s BYTES] "
		"[-p SERVER-PID] [-a ADDRESS -n COUNT] [-f PROCESSES] [-R]\n",
		stderr);
	return 2;
}

static bool parse(int argc, char **argv)
{
	int o;

	optind = 2;
	while ((o = getopt(argc, argv, "h:c:t:s:p:a:n:f:R")) != -1)
		switch (o) {
		case 'h':
			opt.host = optarg;
			break;
		case 'c':
			opt.conns = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 't':
			opt.seconds = strtod(optarg, NULL);
			break;
		case 's':
			opt.bytes = strtoul(optarg, NULL, 10);
			break;
		case 'p':
			opt.pid = (pid_t)strtol(optarg, NULL, 10);
			break;
		case 'a':
			opt.from = optarg;
			break;
		case 'n':
			opt.from_n = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'f':
			opt.processes = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'R':
			opt.reset = true;
			break;
		default:
			return false;
		}
	return optind == argc && (!opt.from || opt.from_n) && opt.conns && opt.bytes;
}

int main(int argc, char **argv)
{
	const char *const mode = argc > 1 ? argv[1] : "";

	if (argc < 2 || !parse(argc, argv))
		return usage();
	(void)signal(SIGPIPE, SIG_IGN);
	if (!strcmp(mode, "up") || !strcmp(mode, "down"))
		return run_bulk(!strcmp(mode, "up"));
	if (!strcmp(mode, "echo"))
		return run_echo();
	if (!strcmp(mode, "rr"))
		return run_rr();
	if (!strcmp(mode, "cps"))
		return run_cps();
	if (!strcmp(mode, "hold"))
		return run_hold();
	return usage();
}
