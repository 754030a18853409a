/* SPDX-License-Identifier: Apache-2.0 */
/* Raw IP sockets, raw(7), for sending alone: the kernel routes, finds the neighbour and, on lo, is the
 * only way to be heard. It neither cuts nor sums for us here.
 */
#include "link.h"

#include <assert.h>
#include <errno.h>
#include <linux/filter.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "batch.h"
#include "filter.h"

enum { TX_BUFFER = 8 << 20 };

struct rawip_link {
	struct link link;
	int fd4, fd6; /* fd6 -1: a machine without IPv6 */
	struct link_counters counters;
	struct batch tx4, tx6;
};

static struct rawip_link *self(struct link *l)
{
	return (struct rawip_link *)l;
}

static int rawip_fd(const struct link *l)
{
	return -1;
}

static int rawip_receive(struct link *l, struct frame *ret_frames, unsigned max, bool *ret_more)
{
	*ret_more = false;
	return 0;
}

static enum link_pressure rawip_pressure(const struct link *l)
{
	return LINK_EASY;
}

static void rawip_release(struct link *l, uint64_t first_kept)
{
}

static uint64_t rawip_recalls(const struct link *l)
{
	return 0;
}

static bool rawip_has_room(const struct link *l)
{
	const struct rawip_link *r = (const struct rawip_link *)l;

	return batch_has_room(&r->tx4) && batch_has_room(&r->tx6);
}

static uint32_t fill_name(const struct frame_out *f, union batch_name *name)
{
	memset(name, 0, sizeof(*name));
	if (!f->ipv6) {
		name->in.sin_family = AF_INET;
		memcpy(&name->in.sin_addr, f->dst.b + 12, 4);
		return sizeof(name->in);
	}
	name->in6.sin6_family = AF_INET6;
	memcpy(&name->in6.sin6_addr, f->dst.b, 16);
	name->in6.sin6_scope_id = addr_is_link_local6(&f->dst) ? f->scope : 0;
	return sizeof(name->in6);
}

static void rawip_send(struct link *l, const struct frame_out *f)
{
	struct rawip_link *r = self(l);
	struct batch *b = f->ipv6 ? &r->tx6 : &r->tx4;
	struct batch_slot *slot;

	assert(!f->checksum_partial && !f->piece_bytes && !f->neigh);
	if (f->ipv6 && r->fd6 < 0) {
		r->counters.send_failed++;
		return;
	}
	slot = batch_next(b);
	assert(f->header_len <= sizeof(slot->head));
	memcpy(slot->head, f->header, f->header_len);
	batch_commit(b, f->header_len, fill_name(f, &slot->name), f);
}

static void rawip_flush(struct link *l)
{
	struct rawip_link *r = self(l);

	batch_flush(&r->tx4, r->fd4, &r->counters);
	batch_flush(&r->tx6, r->fd6, &r->counters);
}

static int rawip_set_owned(struct link *l, const struct link_owned *owned, size_t n, bool neigh)
{
	return -EOPNOTSUPP;
}

static void rawip_counters(struct link *l, struct link_counters *ret_counters)
{
	*ret_counters = self(l)->counters;
}

static void rawip_free(struct link *l)
{
	struct rawip_link *r = self(l);

	if (!l)
		return;
	if (r->fd4 >= 0)
		(void)close(r->fd4);
	if (r->fd6 >= 0)
		(void)close(r->fd6);
	free(r);
}

static const struct link_ops rawip_ops = {
	.name = "rawip",
	.fd = rawip_fd,
	.receive = rawip_receive,
	.pressure = rawip_pressure,
	.release = rawip_release,
	.recalls = rawip_recalls,
	.has_room = rawip_has_room,
	.send = rawip_send,
	.flush = rawip_flush,
	.set_owned = rawip_set_owned,
	.counters = rawip_counters,
	.free = rawip_free,
};

/* A raw socket of the family that sends whole packets and keeps none. Its descriptor, or -Exxx. */
static int open_family(int family)
{
	const int one = 1, none = 0, tx = TX_BUFFER;
	const int level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	const int option = family == AF_INET ? IP_HDRINCL : IPV6_HDRINCL;
	struct filter drop;
	struct sock_fprog prog;
	const int fd = socket(family, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_RAW);
	int err = fd < 0 ? errno : 0;

	if (err)
		return -err;
	filter_build_none(&drop);
	prog = (struct sock_fprog){ .len = (unsigned short)drop.n, .filter = drop.insn };
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) ||
	    setsockopt(fd, level, option, &one, sizeof(one))) {
		err = errno;
		(void)close(fd);
		return -err;
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &none, sizeof(none)); /* the kernel's least */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &tx, sizeof(tx)))
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &tx, sizeof(tx));
	return fd;
}

int link_rawip_new(struct link **ret_link, struct errmsg *ret_err)
{
	struct rawip_link *r = calloc(1, sizeof(*r));
	int rc = 0;

	if (!r)
		return errmsg(ret_err, -ENOMEM, "raw IP socket: out of memory");
	r->link.ops = &rawip_ops;
	r->fd4 = open_family(AF_INET);
	r->fd6 = open_family(AF_INET6);
	if (r->fd4 < 0)
		rc = r->fd4;
	else if (r->fd6 < 0 && r->fd6 != -EAFNOSUPPORT)
		rc = r->fd6;
	if (rc) {
		rawip_free(&r->link);
		return errmsg(ret_err, rc, "raw IP socket: %s%s", strerror(-rc),
			      rc == -EPERM ? " (it takes CAP_NET_RAW)" : "");
	}
	*ret_link = &r->link;
	return 0;
}
