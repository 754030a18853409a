/* SPDX-License-Identifier: Apache-2.0 */
/* What the bench's programs share: clock, CPU and memory of a process, addresses, numbers. */
#pragma once
#include <arpa/inet.h>
#include <err.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORT_ECHO = 7, PORT_DISCARD = 9, PORT_CHARGEN = 19 };

union bench_addr {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static inline uint64_t clock_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static inline double seconds_since(uint64_t start_ns)
{
	return (double)(clock_ns() - start_ns) / 1e9;
}

static inline double cpu_of_self(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* All threads, those that have ended included; to the nanosecond, other than /proc/PID/stat. */
static inline double cpu_of(pid_t pid)
{
	struct timespec t;
	clockid_t id;

	if (!pid || clock_getcpuclockid(pid, &id) || clock_gettime(id, &t))
		return 0;
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* As tcpfsmd's, or what the bench was told: a namespace may forbid cubic as its default, yet let a socket choose
 * it. Else the default stays.
 */
static inline void choose_congestion_control(int fd)
{
	const char *const told = getenv("BENCH_CC"), *const name = told ? told : "cubic";

	(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name));
}

static inline long kb_of(const char *path, const char *key)
{
	char line[256];
	long kb = 0;
	FILE *const f = fopen(path, "re");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			kb = strtol(line + strlen(key), NULL, 10);
	if (f)
		(void)fclose(f);
	return kb;
}

static inline socklen_t addr_parse(const char *host, unsigned port, union bench_addr *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, host, &ret->in.sin_addr) == 1) {
		ret->in.sin_family = AF_INET;
		ret->in.sin_port = htons((uint16_t)port);
		return sizeof(ret->in);
	}
	if (inet_pton(AF_INET6, host, &ret->in6.sin6_addr) != 1)
		errx(2, "%s: not an address", host);
	ret->in6.sin6_family = AF_INET6;
	ret->in6.sin6_port = htons((uint16_t)port);
	return sizeof(ret->in6);
}

/* As many descriptors as the machine lets us have. */
static inline size_t raise_descriptors(void)
{
	struct rlimit rl = { 2000000, 2000000 };

	if (setrlimit(RLIMIT_NOFILE, &rl)) {
		(void)getrlimit(RLIMIT_NOFILE, &rl);
		rl.rlim_cur = rl.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &rl);
	}
	(void)getrlimit(RLIMIT_NOFILE, &rl);
	return (size_t)rl.rlim_cur;
}
