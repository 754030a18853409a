/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, as the program has them: those of IPv4 as such, or mapped into IPv6. */
#include <stddef.h>
#include <string.h>

#include "ctl/preload/preload.h"

enum { IN6_LEAST = offsetof(struct sockaddr_in6, sin6_scope_id) }; /* RFC 2133's */

void give_name(const struct sockaddr_in6 *a, int domain, struct sockaddr *sa, socklen_t *len)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = a->sin6_port };
	struct sockaddr_in6 in6 = *a;
	const void *from = &in6;
	socklen_t size = sizeof(in6);

	in6.sin6_family = AF_INET6;
	if (domain == AF_INET) {
		memcpy(&in.sin_addr, a->sin6_addr.s6_addr + 12, 4);
		from = &in;
		size = sizeof(in);
	}
	if (!sa || !len)
		return;
	memcpy(sa, from, *len < size ? *len : size);
	*len = size;
}

int take_name(int domain, const struct sockaddr *sa, socklen_t len, struct sockaddr_in6 *ret)
{
	if (len < (domain == AF_INET ? sizeof(struct sockaddr_in) : IN6_LEAST))
		return -EINVAL;
	if (sa->sa_family != domain)
		return -EAFNOSUPPORT;
	return tcpfsm_address(sa, len, ret);
}

PUBLIC int getsockname(int fd, struct sockaddr *sa, socklen_t *len)
{
	const struct sock *const s = find_or_adopt(fd);

	if (!s)
		return (int)syscall(SYS_getsockname, fd, sa, len);
	give_name(s->name.id ? &s->name.local : &s->bound, s->domain, sa, len);
	return 0;
}

PUBLIC int getpeername(int fd, struct sockaddr *sa, socklen_t *len)
{
	struct sock *const s = find_or_adopt(fd);

	if (!s)
		return (int)syscall(SYS_getpeername, fd, sa, len);
	if (s->kind == CONNECTING)
		(void)settle(fd, s, 0);
	/* What both sides have ended is no connection. */
	if (s->kind != CONNECTED || hung_up(fd))
		return (int)fail(ENOTCONN);
	give_name(&s->name.remote, s->domain, sa, len);
	return 0;
}
