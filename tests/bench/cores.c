/* SPDX-License-Identifier: Apache-2.0 */
/* How far apart are the two cores? One writes a word that the other answers, and the nanoseconds of a round trip are told: the
 * median of ROUNDS. A virtual machine's cores are threads that the host moves: two that share a cache are 50 ns apart, two that do
 * not 300, and all that crosses from one to the other goes at a third of the speed.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "common.h"

enum { ROUNDS = 21, TRIPS = 500, SPINS_MAX = 1 << 16, OVER = -1 };

static _Alignas(128) atomic_int ball;

/* Odd is asked, even is answered. */
static void *answer(void *arg)
{
	int seen;

	(void)arg;
	while ((seen = atomic_load(&ball)) != OVER) {
		/* Not, when it is over meanwhile. */
		if (seen % 2)
			(void)atomic_compare_exchange_strong(&ball, &seen, seen + 1);
	}
	return NULL;
}

/* An answer that does not come within the spins is waited for no longer: the other thread has no core. */
static void trip(int n)
{
	atomic_store(&ball, 2 * n + 1);
	for (unsigned i = 0; i < SPINS_MAX && atomic_load(&ball) % 2; i++)
		;
}

static int compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The first two CPUs that we may use; false: there is one. */
static bool two_cpus(int ret_cpu[2])
{
	cpu_set_t may;
	int n = 0;

	if (sched_getaffinity(0, sizeof(may), &may))
		err(1, "sched_getaffinity");
	for (int i = 0; i < CPU_SETSIZE && n < 2; i++) {
		if (CPU_ISSET(i, &may))
			ret_cpu[n++] = i;
	}
	return n == 2;
}

static cpu_set_t only(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return set;
}

int main(void)
{
	double ns[ROUNDS];
	pthread_attr_t attr;
	cpu_set_t set;
	pthread_t other;
	int cpu[2];

	if (!two_cpus(cpu)) {
		puts("0");
		return 0;
	}
	set = only(cpu[0]);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "sched_setaffinity");
	set = only(cpu[1]);
	(void)pthread_attr_init(&attr);
	if (pthread_attr_setaffinity_np(&attr, sizeof(set), &set) ||
	    pthread_create(&other, &attr, answer, NULL))
		errx(1, "no second thread");
	for (int r = 0; r < ROUNDS; r++) {
		const uint64_t start = clock_ns();

		for (int i = 0; i < TRIPS; i++)
			trip(i);
		ns[r] = (double)(clock_ns() - start) / TRIPS;
	}
	atomic_store(&ball, OVER);
	(void)pthread_join(other, NULL);
	qsort(ns, ROUNDS, sizeof(ns[0]), compare);
	printf("%.0f\n", ns[ROUNDS / 2]);
	return 0;
}
