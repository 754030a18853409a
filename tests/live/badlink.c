/* SPDX-License-Identifier: Apache-2.0 */
/* A bad network between two interfaces: frames that come in by one go out by the other, some later, out of
 * order, twice, with a wrong bit, or not at all. Offloads may be on: super-segments and partial checksums go
 * through as they are.
 *
 * usage: badlink INTERFACE INTERFACE [seed=N] [delay=US] [jitter=US] [loss=N] [burst=N] [dup=N] [corrupt=N]
 *	  [reorder=N] [held=US] [rate=OCTETS/S] [queue=OCTETS]
 *
 * N are permille of the frames, each way; those that are neither IPv4 nor IPv6 do not suffer. burst: begins to
 * lose ten in a row, of those that come within 50 ms: else a sender that waits longer each time would be alone with a
 * link that is down for minutes. reorder: is held for `held` longer. jitter alone does not reorder. rate has a queue that
 * drops at its end. Says `ready`; when it is ended, what it did, as JSON. The same seed chooses the same frames,
 * the n-th of each way, whatever happened to those before and however many of ARP there were.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	FRAME_MAX = 70000,
	HELD_MAX = 65536,
	BURST = 10,
	BURST_NS = 50000000,
	ETH = 14,
	ROOM_BYTES = 64 << 20
};

#define KEYS(X) \
	X(seed) \
	X(delay) X(jitter) X(loss) X(burst) X(dup) X(corrupt) X(reorder) X(held) X(rate) X(queue)

static struct {
#define KEY(name) uint64_t name;
	KEYS(KEY)
#undef KEY
} opt = { .seed = 1, .held = 5000, .queue = 100000 };

struct frame {
	uint64_t due_ns, order;
	unsigned to;
	size_t len; /* with the vnet header */
	uint8_t octets[];
};

static struct frame *heap[HELD_MAX];
static size_t heap_n;
static uint64_t order;
static int sock[2];
static volatile sig_atomic_t ended;

static struct way {
	uint64_t seed; /* of what is chosen */
	uint64_t seen; /* frames of IPv4 and IPv6 that came, those that are lost included */
	uint64_t last_ns, busy_ns;
	unsigned burst_left;
	uint64_t burst_end_ns;
	uint64_t frames, lost, doubled, corrupted, held, dropped;
} way[2];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* What is drawn for a frame, each by itself. A frame's double has its own. */
enum draw { LOSS, BURST_BEGINS, DOUBLE, JITTER, REORDER, CORRUPT, OCTET, BIT, DRAWS };

/* Of the frame that was seen last: splitmix64 at that place of its sequence. */
static uint64_t rnd(const struct way *w, enum draw what, bool again)
{
	const uint64_t n = (w->seen * 2 + again) * DRAWS + (uint64_t)what;
	uint64_t z = (w->seed << 40) + n * 0x9e3779b97f4a7c15U;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
	z = (z ^ z >> 27) * 0x94d049bb133111ebU;
	return z ^ z >> 31;
}

static bool chance(const struct way *w, enum draw what, bool again, uint64_t permille)
{
	return rnd(w, what, again) % 1000 < permille;
}

static bool earlier(const struct frame *a, const struct frame *b)
{
	return a->due_ns < b->due_ns || (a->due_ns == b->due_ns && a->order < b->order);
}

static void push(struct frame *f)
{
	size_t i = heap_n++;

	for (; i && earlier(f, heap[(i - 1) / 2]); i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = f;
}

static struct frame *pop(void)
{
	struct frame *const top = heap[0], *const last = heap[--heap_n];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < heap_n) {
		if (child + 1 < heap_n && earlier(heap[child + 1], heap[child]))
			child++;
		if (!earlier(heap[child], last))
			break;
		heap[i] = heap[child];
		i = child;
	}
	if (heap_n)
		heap[i] = last;
	return top;
}

/* A partial checksum is finished, so that a wrong bit can be found. False: a super-segment, which nobody can. */
static bool finish_checksum(uint8_t *octets, size_t len)
{
	static const struct virtio_net_hdr nothing;
	struct virtio_net_hdr h;
	uint8_t *const data = octets + sizeof(h);
	const size_t n = len - sizeof(h);
	uint32_t sum = 0;
	uint16_t word;

	memcpy(&h, octets, sizeof(h));
	if (h.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		return false;
	if (!(h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return true;
	if ((size_t)h.csum_start + h.csum_offset + 2 > n)
		return false;
	for (size_t i = h.csum_start; i < n; i += 2)
		sum += (uint32_t)data[i] << 8 | (i + 1 < n ? data[i + 1] : 0U);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	word = htons((uint16_t)~sum);
	memcpy(data + h.csum_start + h.csum_offset, &word, 2);
	memcpy(octets, &nothing, sizeof(nothing));
	return true;
}

/* One bit behind the addresses of the link layer. */
static void corrupt(struct way *w, bool again, uint8_t *octets, size_t len)
{
	const size_t first = sizeof(struct virtio_net_hdr) + ETH;

	if (len <= first || !finish_checksum(octets, len))
		return;
	octets[first + rnd(w, OCTET, again) % (len - first)] ^= (uint8_t)(1 << rnd(w, BIT, again) %
										       8);
	w->corrupted++;
}

/* When the last octet has left a link of this rate; 0: the queue is full. */
static uint64_t through_queue(struct way *w, uint64_t now, size_t len)
{
	const uint64_t from = w->busy_ns > now ? w->busy_ns : now;

	if (!opt.rate)
		return now;
	if ((from - now) * opt.rate / 1000000000U > opt.queue)
		return 0;
	w->busy_ns = from + len * 1000000000U / opt.rate;
	return w->busy_ns;
}

static void carry(unsigned from, const uint8_t *octets, size_t len, bool suffers, bool again)
{
	struct way *const w = &way[from];
	uint64_t due = through_queue(w, now_ns(), len);
	struct frame *f;

	if (!due || heap_n == HELD_MAX || !(f = malloc(sizeof(*f) + len))) {
		w->dropped++;
		return;
	}
	memcpy(f->octets, octets, len);
	due += (opt.delay + (opt.jitter ? rnd(w, JITTER, again) % opt.jitter : 0)) * 1000;
	if (suffers && chance(w, REORDER, again, opt.reorder)) {
		due += opt.held * 1000;
		w->held++;
	} else {
		due = w->last_ns = due > w->last_ns ? due : w->last_ns;
	}
	if (suffers && chance(w, CORRUPT, again, opt.corrupt))
		corrupt(w, again, f->octets, len);
	f->due_ns = due;
	f->order = order++;
	f->to = !from;
	f->len = len;
	push(f);
	w->frames += !again;
}

static void decide(unsigned from, const uint8_t *octets, size_t len)
{
	struct way *const w = &way[from];
	uint16_t type = 0;

	if (len >= sizeof(struct virtio_net_hdr) + ETH)
		memcpy(&type, octets + sizeof(struct virtio_net_hdr) + 12, 2);
	if (type != htons(ETH_P_IP) && type != htons(ETH_P_IPV6)) {
		carry(from, octets, len, false, false);
		return;
	}
	w->seen++;
	if (w->burst_left && now_ns() > w->burst_end_ns)
		w->burst_left = 0;
	if (!w->burst_left && chance(w, BURST_BEGINS, false, opt.burst)) {
		w->burst_left = BURST;
		w->burst_end_ns = now_ns() + BURST_NS;
	}
	if (w->burst_left || chance(w, LOSS, false, opt.loss)) {
		w->burst_left -= w->burst_left > 0;
		w->lost++;
		return;
	}
	carry(from, octets, len, true, false);
	if (chance(w, DOUBLE, false, opt.dup)) {
		w->doubled++;
		carry(from, octets, len, true, true);
	}
}

static void take_all(unsigned from)
{
	static uint8_t octets[FRAME_MAX];
	ssize_t n;

	while ((n = recv(sock[from], octets, sizeof(octets), MSG_DONTWAIT)) > 0)
		decide(from, octets, (size_t)n);
}

static void give_due(void)
{
	while (heap_n && heap[0]->due_ns <= now_ns()) {
		struct frame *const f = pop();

		while (send(sock[f->to], f->octets, f->len, 0) < 0 && errno == ENOBUFS && !ended)
			(void)poll(NULL, 0, 1);
		free(f);
	}
}

static int open_interface(const char *name)
{
	const int s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	struct packet_mreq m = { .mr_type = PACKET_MR_PROMISC };
	int on = 1, room = ROOM_BYTES;

	a.sll_ifindex = m.mr_ifindex = (int)if_nametoindex(name);
	if (s < 0 || !a.sll_ifindex ||
	    setsockopt(s, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ||
	    setsockopt(s, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
	    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) ||
	    bind(s, (struct sockaddr *)&a, sizeof(a)) ||
	    setsockopt(s, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof(m))) {
		fprintf(stderr, "badlink: %s: %s\n", name, strerror(errno));
		exit(1);
	}
	return s;
}

static bool take_option(const char *word)
{
	const char *const value = strchr(word, '=');
	const size_t len = value ? (size_t)(value - word) : 0;

	if (!value)
		return false;
#define KEY(name)                                                 \
	if (len == strlen(#name) && !strncmp(word, #name, len)) { \
		opt.name = strtoull(value + 1, NULL, 10);         \
		return true;                                      \
	}
	KEYS(KEY)
#undef KEY
	return false;
}

static void on_end(int sig)
{
	(void)sig;
	ended = 1;
}

static void run(void)
{
	struct pollfd p[2] = { { .fd = sock[0], .events = POLLIN },
			       { .fd = sock[1], .events = POLLIN } };

	while (!ended) {
		struct timespec wait = { .tv_sec = 1 };
		const uint64_t now = now_ns();

		if (heap_n) {
			const uint64_t ns = heap[0]->due_ns > now ? heap[0]->due_ns - now : 0;

			wait.tv_sec = (time_t)(ns / 1000000000U);
			wait.tv_nsec = (long)(ns % 1000000000U);
		}
		(void)ppoll(p, 2, &wait, NULL);
		for (unsigned i = 0; i < 2; i++)
			take_all(i);
		give_due();
	}
}

int main(int argc, char **argv)
{
	const struct sigaction act = { .sa_handler = on_end };

	if (argc < 3)
		goto usage;
	for (int i = 3; i < argc; i++)
		if (!take_option(argv[i]))
			goto usage;
	for (unsigned i = 0; i < 2; i++) {
		sock[i] = open_interface(argv[1 + i]);
		way[i].seed = opt.seed * 2 + i;
	}
	sigaction(SIGTERM, &act, NULL);
	sigaction(SIGINT, &act, NULL);
	puts("ready");
	fflush(stdout);
	run();
	printf("[");
	for (unsigned i = 0; i < 2; i++)
		printf("%s{\"frames\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"doubled\":%" PRIu64
		       ",\"corrupted\":%" PRIu64 ",\"held\":%" PRIu64 ",\"dropped\":%" PRIu64 "}",
		       i ? "," : "", way[i].frames, way[i].lost, way[i].doubled, way[i].corrupted,
		       way[i].held, way[i].dropped);
	printf("]\n");
	return 0;
usage:
	fprintf(stderr,
		"usage: badlink INTERFACE INTERFACE [KEY=N...]; see its head for the keys\n");
	return 2;
}
