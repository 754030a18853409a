/* SPDX-License-Identifier: Apache-2.0 */
/* NETLINK_ROUTE: one socket for events, one for requests, so that an answer never waits behind a
 * flood of events. The kernel's answers are checked like any input.
 */
#include <errno.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/macros.h"
#include "nv.h"

enum {
	EVENTS_MAX = 256, /* datagrams in one wakeup */
	EVENT_SOCKET_BYTES = 1 << 20,
	REQUEST_LIMIT_S = 1,
	GROUPS_OF_ADDRESSES = 3,
};

/* --- Reading attributes --------------------------------------------------------------------- */

static uint32_t attr_u32(struct nlattr *const *tb, int type)
{
	uint32_t n;

	if (!tb[type] || nla_len(tb[type]) < (int)sizeof(n))
		return 0;
	memcpy(&n, nla_data(tb[type]), sizeof(n));
	return n;
}

static bool octets_addr(uint8_t family, const void *octets, size_t n, struct ipaddr *ret_addr)
{
	if (family == AF_INET && n == 4)
		*ret_addr = addr_from_v4(octets);
	else if (family == AF_INET6 && n == 16)
		memcpy(ret_addr->b, octets, 16);
	else
		return false;
	return true;
}

/* Leaves *ret_addr when the attribute is absent or none of the family. */
static bool attr_addr(struct nlattr *const *tb, int type, uint8_t family, struct ipaddr *ret_addr)
{
	return tb[type] &&
	       octets_addr(family, nla_data(tb[type]), (size_t)nla_len(tb[type]), ret_addr);
}

/* --- Messages about what there is ----------------------------------------------------------- */

/* Does the interface belong to one that shows its frames again? A VRF has its members' frames too, but
 * the members show them with their own addresses: that is where they are taken.
 */
static bool is_port(struct nlattr *linkinfo)
{
	static const char *const kinds[] = { "bridge", "bond", "team", "openvswitch" };
	struct nlattr *tb[IFLA_INFO_MAX + 1];

	if (!linkinfo || nla_parse_nested(tb, IFLA_INFO_MAX, linkinfo, NULL) < 0)
		return false;
	for (size_t i = 0; tb[IFLA_INFO_SLAVE_KIND] && i < ARRAY_SIZE(kinds); i++) {
		if (!nla_strcmp(tb[IFLA_INFO_SLAVE_KIND], kinds[i]))
			return true;
	}
	return false;
}

/* Whose frames does an interface take away before IP sees them? A VLAN takes those with its tag alone, by
 * which they are told apart. One in another namespace is not seen here.
 */
static uint32_t takes_from(struct nlattr *const *attrs)
{
	static const char *const kinds[] = { "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec" };
	struct nlattr *tb[IFLA_INFO_MAX + 1];

	if (!attrs[IFLA_LINKINFO] || attrs[IFLA_LINK_NETNSID] ||
	    nla_parse_nested(tb, IFLA_INFO_MAX, attrs[IFLA_LINKINFO], NULL) < 0)
		return 0;
	for (size_t i = 0; tb[IFLA_INFO_KIND] && i < ARRAY_SIZE(kinds); i++) {
		if (!nla_strcmp(tb[IFLA_INFO_KIND], kinds[i]))
			return attr_u32(attrs, IFLA_LINK);
	}
	return 0;
}

static void on_link(struct netview *v, struct nlmsghdr *h)
{
	const struct ifinfomsg *m = nlmsg_data(h);
	struct nlattr *tb[IFLA_MAX + 1];
	struct nv_link l;

	/* Bridges report their ports with AF_BRIDGE, also a port's leaving as RTM_DELLINK. */
	if (nlmsg_parse(h, sizeof(*m), tb, IFLA_MAX, NULL) < 0 || m->ifi_family != AF_UNSPEC)
		return;
	if (h->nlmsg_type == RTM_DELLINK) {
		nv_link_delete(v, (uint32_t)m->ifi_index);
		return;
	}
	l = (struct nv_link){
		.ifindex = (uint32_t)m->ifi_index,
		.mtu = attr_u32(tb, IFLA_MTU),
		.ethernet = m->ifi_type == ARPHRD_ETHER,
		.loopback = m->ifi_flags & IFF_LOOPBACK,
		.up = m->ifi_flags & IFF_UP,
		.port = is_port(tb[IFLA_LINKINFO]),
		.owned = attr_u32(tb, IFLA_MASTER) != 0,
		.takes_from = takes_from(tb),
	};
	if (tb[IFLA_IFNAME])
		(void)nla_strlcpy(l.name, tb[IFLA_IFNAME], sizeof(l.name));
	if (tb[IFLA_ADDRESS] && nla_len(tb[IFLA_ADDRESS]) == (int)sizeof(l.mac))
		memcpy(l.mac, nla_data(tb[IFLA_ADDRESS]), sizeof(l.mac));
	if (nv_link_put(v, &l))
		v->stale = true;
}

static void on_addr(struct netview *v, struct nlmsghdr *h)
{
	const struct ifaddrmsg *m = nlmsg_data(h);
	struct nlattr *tb[IFA_MAX + 1];
	struct nv_addr a = { 0 };
	uint32_t flags;

	if (nlmsg_parse(h, sizeof(*m), tb, IFA_MAX, NULL) < 0 ||
	    !attr_addr(tb, IFA_ADDRESS, m->ifa_family, &a.prefix))
		return;
	a.addr = a.prefix;
	(void)attr_addr(tb, IFA_LOCAL, m->ifa_family, &a.addr);
	(void)attr_addr(tb, IFA_BROADCAST, m->ifa_family, &a.broadcast);
	flags = tb[IFA_FLAGS] ? attr_u32(tb, IFA_FLAGS) : m->ifa_flags;
	a.ifindex = m->ifa_index;
	a.len = m->ifa_prefixlen;
	if (a.len > (m->ifa_family == AF_INET ? 32 : 128))
		return;
	/* Until duplicate address detection is done an address is not ours (RFC 4862 5.4). */
	a.usable = !(flags & IFA_F_DADFAILED) &&
		   (!(flags & IFA_F_TENTATIVE) || (flags & IFA_F_OPTIMISTIC));
	if (h->nlmsg_type == RTM_DELADDR)
		nv_addr_delete(v, &a);
	else if (nv_addr_put(v, &a))
		v->stale = true;
}

static void on_neigh(struct netview *v, struct nlmsghdr *h)
{
	enum {
		SURE = NUD_REACHABLE | NUD_PERMANENT | NUD_NOARP,
		LIKELY = NUD_STALE | NUD_DELAY | NUD_PROBE,
	};
	const struct ndmsg *m = nlmsg_data(h);
	struct nlattr *tb[NDA_MAX + 1];
	struct nv_neigh n = { 0 };

	/* Bridges report their forwarding tables as neighbours of AF_BRIDGE. */
	if (nlmsg_parse(h, sizeof(*m), tb, NDA_MAX, NULL) < 0 || (m->ndm_flags & NTF_PROXY) ||
	    !attr_addr(tb, NDA_DST, m->ndm_family, &n.addr) || m->ndm_ifindex <= 0)
		return;
	n.ifindex = (uint32_t)m->ndm_ifindex;
	if (h->nlmsg_type == RTM_DELNEIGH || !(m->ndm_state & (SURE | LIKELY)) || !tb[NDA_LLADDR] ||
	    nla_len(tb[NDA_LLADDR]) != (int)sizeof(n.mac)) {
		nv_neigh_delete(v, n.ifindex, &n.addr);
		return;
	}
	memcpy(n.mac, nla_data(tb[NDA_LLADDR]), sizeof(n.mac));
	n.confirmed = m->ndm_state & SURE;
	nv_neigh_put(v, &n);
}

static void on_message(struct netview *v, struct nlmsghdr *h)
{
	switch (h->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		on_link(v, h);
		break;
	case RTM_NEWADDR:
	case RTM_DELADDR:
		on_addr(v, h);
		break;
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		on_neigh(v, h);
		break;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
	case RTM_NEWRULE:
	case RTM_DELRULE:
	case RTM_NEWNEXTHOP:
	case RTM_DELNEXTHOP:
		v->generation++;
		break;
	default:
		break; /* A group may carry more in other kernels. */
	}
}

/* --- Sockets -------------------------------------------------------------------------------- */

static int socket_open(struct nl_sock **ret_sock)
{
	struct nl_sock *sk = nl_socket_alloc();
	int rc;

	if (!sk)
		return -ENOMEM;
	nl_socket_disable_auto_ack(sk);
	rc = nl_connect(sk, NETLINK_ROUTE);
	if (rc < 0) {
		nl_socket_free(sk);
		return rc == -NLE_NOMEM ? -ENOMEM : rc == -NLE_PERM ? -EPERM : -EPROTONOSUPPORT;
	}
	*ret_sock = sk;
	return 0;
}

static int events_open(struct netview *v)
{
	static const int groups[] = {
		RTNLGRP_LINK,        RTNLGRP_IPV4_IFADDR,
		RTNLGRP_IPV6_IFADDR, RTNLGRP_NEIGH, /* from here on: for paths */
		RTNLGRP_IPV4_ROUTE,  RTNLGRP_IPV6_ROUTE,
		RTNLGRP_IPV4_RULE,   RTNLGRP_IPV6_RULE,
	};
	const int bytes = EVENT_SOCKET_BYTES;
	int rc = socket_open(&v->events), fd;

	if (rc)
		return rc;
	fd = nl_socket_get_fd(v->events);
	/* FORCE needs CAP_NET_ADMIN; without it the system's limit holds and overruns come sooner. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	for (size_t i = 0; i < (v->no_paths ? GROUPS_OF_ADDRESSES : ARRAY_SIZE(groups)); i++) {
		if (nl_socket_add_membership(v->events, groups[i]) < 0)
			return -EPROTONOSUPPORT;
	}
	/* Next-hop objects are younger than the rest (Linux 5.3). */
	if (!v->no_paths)
		(void)nl_socket_add_membership(v->events, RTNLGRP_NEXTHOP);
	return nl_socket_set_nonblocking(v->events) < 0 ? -EIO : 0;
}

int nv_netlink_open(struct netview *v)
{
	const struct timeval limit = { .tv_sec = REQUEST_LIMIT_S };
	int rc = events_open(v);

	if (rc)
		return rc;
	rc = socket_open(&v->requests);
	if (rc)
		return rc;
	return setsockopt(nl_socket_get_fd(v->requests), SOL_SOCKET, SO_RCVTIMEO, &limit,
			  sizeof(limit)) < 0
		       ? -errno
		       : 0;
}

void nv_netlink_close(struct netview *v)
{
	nl_socket_free(v->events);
	nl_socket_free(v->requests);
}

/* A datagram from the kernel into v->buffer: its length, or -Exxx. */
static int receive(struct netview *v, struct nl_sock *sk)
{
	struct sockaddr_nl from = { 0 };
	socklen_t from_len = sizeof(from);
	ssize_t n;

	do {
		n = recvfrom(nl_socket_get_fd(sk), v->buffer, NV_BUFFER_BYTES, MSG_TRUNC,
			     (struct sockaddr *)&from, &from_len);
		if (n < 0 && errno != EINTR)
			return -errno;
	} while (n < 0 ||
		 from.nl_pid != 0); /* Other processes may write to us; they are not heard. */
	return n > NV_BUFFER_BYTES ? -ENOBUFS : (int)n;
}

/* --- Asking --------------------------------------------------------------------------------- */

typedef int answer_fn(struct netview *v, struct nlmsghdr *h, void *arg);

/* Messages of one datagram that answer request `seq`. 1: the answer is complete. */
static int read_answer(struct netview *v, int len, uint32_t seq, answer_fn *fn, void *arg)
{
	struct nlmsghdr *h = (struct nlmsghdr *)(void *)v->buffer;
	int rc = 0;

	for (; nlmsg_ok(h, len) && rc == 0; h = nlmsg_next(h, &len)) {
		const struct nlmsgerr *e = nlmsg_data(h);

		if (h->nlmsg_seq != seq)
			continue; /* Late, of a request that timed out. */
		if (h->nlmsg_type == NLMSG_DONE)
			return 1;
		if (h->nlmsg_type == NLMSG_ERROR)
			return nlmsg_datalen(h) >= (int)sizeof(*e) && e->error ? e->error : 1;
		rc = fn(v, h, arg);
		if (rc == 0 && !(h->nlmsg_flags & NLM_F_MULTI))
			return 1;
	}
	return rc;
}

/* Sends m (and frees it) and hands each message of the answer to fn. */
static int ask(struct netview *v, struct nl_msg *m, answer_fn *fn, void *arg)
{
	uint32_t seq;
	int rc;

	nl_complete_msg(v->requests, m);
	seq = nlmsg_hdr(m)->nlmsg_seq;
	rc = nl_send(v->requests, m);
	nlmsg_free(m);
	if (rc < 0)
		return -EIO;
	do {
		const int n = receive(v, v->requests);

		rc = n < 0 ? n : read_answer(v, n, seq, fn, arg);
	} while (rc == 0);
	return rc < 0 ? (rc == -EAGAIN ? -ETIMEDOUT : rc) : 0;
}

static int on_dumped(struct netview *v, struct nlmsghdr *h, void *arg)
{
	on_message(v, h);
	return 0;
}

static int dump(struct netview *v, int type, void *header, size_t header_len)
{
	struct nl_msg *m = nlmsg_alloc_simple(type, NLM_F_REQUEST | NLM_F_DUMP);

	if (!m)
		return -ENOMEM;
	if (nlmsg_append(m, header, header_len, NLMSG_ALIGNTO)) {
		nlmsg_free(m);
		return -ENOMEM;
	}
	return ask(v, m, on_dumped, NULL);
}

/* Throws away what waits. After an overrun the queue holds old events whose sequels were dropped:
 * read after the dumps they would bring back what is gone.
 */
static void drain(struct netview *v)
{
	int n;

	do
		n = receive(v, v->events);
	while (n >= 0 || n == -ENOBUFS);
}

/* Events that come while this runs are read after the dumps, in order and without a gap: whichever of
 * the two is newer, they end in what there is.
 */
int nv_netlink_resync(struct netview *v)
{
	struct ifinfomsg link = { .ifi_family = AF_UNSPEC };
	struct ifaddrmsg addr = { .ifa_family = AF_UNSPEC };
	struct ndmsg neigh = { .ndm_family = AF_UNSPEC };
	int rc;

	drain(v);
	v->stale = false;
	nv_tables_clear(v);
	rc = dump(v, RTM_GETLINK, &link, sizeof(link));
	if (!rc)
		rc = dump(v, RTM_GETADDR, &addr, sizeof(addr));
	if (!rc && !v->no_paths)
		rc = dump(v, RTM_GETNEIGH, &neigh, sizeof(neigh));
	if (!rc && v->stale)
		rc = -ENOMEM;
	if (rc)
		v->stale = true;
	return rc;
}

int nv_netlink_events(struct netview *v)
{
	for (int i = 0; i < EVENTS_MAX; i++) {
		struct nlmsghdr *h = (struct nlmsghdr *)(void *)v->buffer;
		int len = receive(v, v->events);

		if (len < 0)
			return len == -EAGAIN ? 0 : len;
		for (; nlmsg_ok(h, len); h = nlmsg_next(h, &len))
			on_message(v, h);
	}
	return 0;
}

/* --- Routes --------------------------------------------------------------------------------- */

/* RTA_VIA: an IPv4 route by an IPv6 neighbour (RFC 5549). */
static bool attr_via(struct nlattr *via, struct ipaddr *ret_addr)
{
	const struct rtvia *r;

	if (!via || nla_len(via) < (int)sizeof(*r))
		return false;
	r = nla_data(via);
	return octets_addr((uint8_t)r->rtvia_family, r->rtvia_addr,
			   (size_t)nla_len(via) - sizeof(*r), ret_addr);
}

static uint32_t route_mtu(struct nlattr *metrics)
{
	struct nlattr *tb[RTAX_MAX + 1];

	if (!metrics || nla_parse_nested(tb, RTAX_MAX, metrics, NULL) < 0)
		return 0;
	return attr_u32(tb, RTAX_MTU);
}

static int on_route(struct netview *v, struct nlmsghdr *h, void *arg)
{
	const struct rtmsg *m = nlmsg_data(h);
	struct nv_route *r = arg;
	struct nlattr *tb[RTA_MAX + 1];

	if (h->nlmsg_type != RTM_NEWROUTE || nlmsg_parse(h, sizeof(*m), tb, RTA_MAX, NULL) < 0)
		return -EPROTO;
	if (m->rtm_type == RTN_UNREACHABLE || m->rtm_type == RTN_BLACKHOLE ||
	    m->rtm_type == RTN_PROHIBIT)
		return -EHOSTUNREACH;
	if (m->rtm_type != RTN_UNICAST && m->rtm_type != RTN_LOCAL)
		return -ENETUNREACH;
	r->ifindex = attr_u32(tb, RTA_OIF);
	r->local = m->rtm_type == RTN_LOCAL;
	r->encap = tb[RTA_ENCAP] != NULL;
	r->mtu = route_mtu(tb[RTA_METRICS]);
	(void)attr_addr(tb, RTA_PREFSRC, m->rtm_family, &r->src);
	if (!attr_addr(tb, RTA_GATEWAY, m->rtm_family, &r->next_hop))
		(void)attr_via(tb[RTA_VIA], &r->next_hop);
	return 0;
}

static int put_addr(struct nl_msg *m, int type, const struct ipaddr *a)
{
	return addr_is_v4(a) ? nla_put(m, type, 4, a->b + 12) : nla_put(m, type, 16, a->b);
}

static struct nl_msg *route_request(const struct ipaddr *dst, uint32_t scope,
				    const struct ipaddr *src)
{
	const bool v4 = addr_is_v4(dst);
	struct rtmsg header = { .rtm_family = v4 ? AF_INET : AF_INET6,
				.rtm_dst_len = v4 ? 32 : 128 };
	struct nl_msg *m = nlmsg_alloc_simple(RTM_GETROUTE, NLM_F_REQUEST);
	int rc;

	if (!m)
		return NULL;
	if (!addr_is_any(src))
		header.rtm_src_len = header.rtm_dst_len;
	rc = nlmsg_append(m, &header, sizeof(header), NLMSG_ALIGNTO);
	if (!rc)
		rc = put_addr(m, RTA_DST, dst);
	if (!rc && header.rtm_src_len)
		rc = put_addr(m, RTA_SRC, src);
	if (!rc && scope)
		rc = nla_put_u32(m, RTA_OIF, scope);
	if (rc) {
		nlmsg_free(m);
		return NULL;
	}
	return m;
}

int nv_netlink_route(struct netview *v, const struct ipaddr *dst, uint32_t scope,
		     const struct ipaddr *src, struct nv_route *ret_route)
{
	struct nv_route r = { .next_hop = *dst, .src = addr_any };
	struct nl_msg *m = route_request(dst, scope, src);
	const int rc = m ? ask(v, m, on_route, &r) : -ENOMEM;

	switch (rc) {
	case 0:
		*ret_route = r;
		return 0;
	case -EHOSTUNREACH:
	case -EACCES: /* a prohibiting route */
	case -EINVAL: /* a blackhole */
		return -EHOSTUNREACH;
	default:
		return -ENETUNREACH;
	}
}
