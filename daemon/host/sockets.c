/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's TCP sockets, by NETLINK_SOCK_DIAG. The messages are built here, not by libnl's idiag
 * objects: those know neither IPV6_V6ONLY nor the filter by port, without which a busy machine would
 * hand us a million sockets.
 */
#include "sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/macros.h"
#include "host/owner.h"

/* The kernel's numbers of TCP states (include/net/tcp_states.h); its header clashes with ours. */
enum {
	KERNEL_SYN_RECV = 3,
	KERNEL_TIME_WAIT = 6,
	KERNEL_CLOSE = 7,
	KERNEL_LISTEN = 10,
	KERNEL_NEW_SYN_RECV = 12,
	KERNEL_STATES = 13,
};

enum { TIMEOUT_S = 5 };

/* The first socket in the way. */
struct found {
	bool any;
	bool listens;
	struct endpoint local, remote;
	uint32_t inode, uid;
	uint64_t cgroup; /* 0: unknown */
};

struct query {
	const struct ipaddr *addr;
	uint16_t port_min, port_max;
	uint8_t family;
};

static struct ipaddr diag_addr(uint8_t family, const uint32_t words[4])
{
	struct ipaddr a;
	uint8_t v4[4];

	if (family == AF_INET) {
		memcpy(v4, words, sizeof(v4));
		return addr_from_v4(v4);
	}
	memcpy(a.b, words, sizeof(a.b));
	return a;
}

/* Would a segment to `ours` and one to the socket's address be the same? only6: a socket bound to ::
 * that does not take IPv4.
 */
static bool overlaps(const struct ipaddr *ours, uint8_t family, const struct ipaddr *socket,
		     bool only6)
{
	if (addr_eq(ours, &addr_any))
		return true;
	if (family == AF_INET)
		return addr_is_v4(ours) &&
		       (addr_is_any(ours) || addr_is_any(socket) || addr_eq(ours, socket));
	if (addr_eq(socket, &addr_any))
		return !addr_is_v4(ours) || !only6;
	/* IPv4 by an IPv6 socket has a mapped address here, as all IPv4 has with us. */
	return addr_matches(ours, socket);
}

static void look_at(const struct query *q, struct nlmsghdr *h, struct found *found)
{
	const struct inet_diag_msg *m = nlmsg_data(h);
	struct nlattr *only6, *cgroup;
	struct ipaddr local;

	if (nlmsg_datalen(h) < (int)sizeof(*m))
		return;
	/* No inode: a socket that its process has closed already, on its way out. */
	if (found->any || m->idiag_inode == 0)
		return;
	only6 = nlmsg_find_attr(h, sizeof(*m), INET_DIAG_SKV6ONLY);
	local = diag_addr(m->idiag_family, m->id.idiag_src);
	if (!overlaps(q->addr, m->idiag_family, &local, only6 && nla_get_u8(only6)))
		return;
	cgroup = nlmsg_find_attr(h, sizeof(*m), INET_DIAG_CGROUP_ID);
	*found = (struct found){
		.any = true,
		.listens = m->idiag_state == KERNEL_LISTEN,
		.local = { local, ntohs(m->id.idiag_sport) },
		.remote = { diag_addr(m->idiag_family, m->id.idiag_dst), ntohs(m->id.idiag_dport) },
		.inode = m->idiag_inode,
		.uid = m->idiag_uid,
		.cgroup = cgroup && nla_len(cgroup) >= 8 ? nla_get_u64(cgroup) : 0,
	};
}

/* TIME-WAIT and closed sockets have no say; request sockets belong to a listener. */
static uint32_t wanted_states(void)
{
	return ((1U << KERNEL_STATES) - 2) & ~(1U << KERNEL_TIME_WAIT | 1U << KERNEL_CLOSE |
					       1U << KERNEL_NEW_SYN_RECV | 1U << KERNEL_SYN_RECV);
}

/* The kernel's filter program: port_min <= local port <= port_max. A jump by `no` past the end
 * refuses; each comparison has its port in the next instruction.
 */
static struct nl_msg *request_new(const struct query *q)
{
	const struct inet_diag_bc_op code[] = {
		{ .code = INET_DIAG_BC_S_GE,
		  .yes = 2 * sizeof(code[0]),
		  .no = 5 * sizeof(code[0]) },
		{ .no = q->port_min },
		{ .code = INET_DIAG_BC_S_LE,
		  .yes = 2 * sizeof(code[0]),
		  .no = 3 * sizeof(code[0]) },
		{ .no = q->port_max },
	};
	struct inet_diag_req_v2 req = { .sdiag_family = q->family,
					.sdiag_protocol = IPPROTO_TCP,
					.idiag_states = wanted_states() };
	struct nl_msg *m = nlmsg_alloc_simple(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP);

	if (!m)
		return NULL;
	if (nlmsg_append(m, &req, sizeof(req), NLMSG_ALIGNTO) ||
	    nla_put(m, INET_DIAG_REQ_BYTECODE, sizeof(code), code)) {
		nlmsg_free(m);
		return NULL;
	}
	return m;
}

/* One datagram of a dump. 1: the end of it, 0: more to come, -Exxx. */
static int read_part(const struct query *q, uint8_t *buf, int len, struct found *found)
{
	struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf;

	for (; nlmsg_ok(h, len); h = nlmsg_next(h, &len)) {
		if (h->nlmsg_type == NLMSG_DONE)
			return 1;
		if (h->nlmsg_type == NLMSG_ERROR) {
			const struct nlmsgerr *e = nlmsg_data(h);

			return nlmsg_datalen(h) >= (int)sizeof(*e) && e->error ? e->error : -EPROTO;
		}
		if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY)
			look_at(q, h, found);
	}
	return 0;
}

static int dump(struct nl_sock *sk, const struct query *q, struct found *found)
{
	_Alignas(struct nlmsghdr)
		uint8_t buf[32768]; /* what the kernel puts into one datagram at most */
	struct nl_msg *m = request_new(q);
	int rc;

	if (!m)
		return -ENOMEM;
	rc = nl_send_auto(sk, m);
	nlmsg_free(m);
	if (rc < 0)
		return -EIO;
	do {
		const ssize_t n = recv(nl_socket_get_fd(sk), buf, sizeof(buf), 0);

		if (n < 0 && errno == EINTR) {
			rc = 0;
			continue;
		}
		rc = n < 0 ? -errno : read_part(q, buf, (int)n, found);
	} while (rc == 0);
	return rc < 0 ? rc : 0;
}

static int find(const struct ipaddr *addr, uint16_t port_min, uint16_t port_max,
		struct found *found)
{
	static const uint8_t families[] = { AF_INET, AF_INET6 };
	const struct timeval limit = { .tv_sec = TIMEOUT_S };
	struct nl_sock *sk = nl_socket_alloc();
	int rc = 0;

	if (!sk)
		return -ENOMEM;
	nl_socket_disable_auto_ack(sk);
	if (nl_connect(sk, NETLINK_SOCK_DIAG) < 0)
		rc = -EPROTONOSUPPORT;
	else if (setsockopt(nl_socket_get_fd(sk), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) <
		 0)
		rc = -errno;
	for (size_t i = 0; i < ARRAY_SIZE(families) && !rc && !found->any; i++) {
		const struct query q = { addr, port_min, port_max, families[i] };

		rc = dump(sk, &q, found);
		/* A kernel without IPv6 has no such sockets. */
		if (rc == -ENOENT && families[i] == AF_INET6)
			rc = 0;
	}
	nl_socket_free(sk);
	return rc;
}

int sockets_check_free(const struct ipaddr *addr, uint16_t port_min, uint16_t port_max,
		       struct errmsg *ret_err)
{
	char local[ENDPOINT_TEXT], remote[ENDPOINT_TEXT], owner[OWNER_TEXT];
	struct found f = { 0 };
	const int rc = find(addr, port_min, port_max, &f);

	if (rc)
		return errmsg(ret_err, rc, "the kernel's TCP sockets cannot be listed: %s",
			      strerror(-rc));
	if (!f.any)
		return 0;
	(void)owner_of_socket(f.inode, f.uid, f.cgroup, owner);
	(void)endpoint_format(&f.local, local);
	if (f.listens)
		return errmsg(ret_err, -EADDRINUSE, "%s is served by the kernel for %s", local,
			      owner);
	return errmsg(ret_err, -EADDRINUSE, "%s is in use by the kernel for %s, connected to %s",
		      local, owner, endpoint_format(&f.remote, remote));
}

/* Is every port of min..max in net.ipv4.ip_local_reserved_ports ("80,100-200")? */
static bool all_reserved(unsigned min, unsigned max)
{
	FILE *f = fopen("/proc/sys/net/ipv4/ip_local_reserved_ports", "re");
	char *line = NULL;
	size_t size = 0;
	unsigned next = min; /* the lowest port not covered: the list is sorted */

	if (!f)
		return false;
	if (getline(&line, &size, f) > 0) {
		for (char *p = line; *p && *p != '\n';) {
			char *end;
			const unsigned long first = strtoul(p, &end, 10);
			const unsigned long last = *end == '-' ? strtoul(end + 1, &end, 10) : first;

			if (end == p)
				break;
			if (first <= next && next <= last)
				next = (unsigned)last + 1;
			p = *end == ',' ? end + 1 : end;
		}
	}
	free(line);
	(void)fclose(f);
	return next > max;
}

int sockets_check_ephemeral(uint16_t port_min, uint16_t port_max, struct errmsg *ret_err)
{
	FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
	unsigned low, high;
	char line[64];
	char *end;

	if (!f)
		return 0;
	if (!fgets(line, sizeof(line), f))
		line[0] = 0;
	(void)fclose(f);
	low = (unsigned)strtoul(line, &end, 10);
	high = (unsigned)strtoul(end, &end, 10);
	if (high == 0 || port_min > high || port_max < low)
		return 0;
	if (all_reserved(port_min > low ? port_min : low, port_max < high ? port_max : high))
		return 0;
	return errmsg(ret_err, -ERANGE,
		      "ports %u-%u overlap the kernel's own %u-%u (net.ipv4.ip_local_port_range): "
		      "choose others, or list them in net.ipv4.ip_local_reserved_ports",
		      port_min, port_max, low, high);
}
