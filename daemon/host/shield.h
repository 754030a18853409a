/* SPDX-License-Identifier: Apache-2.0 */
/* The shield: what keeps the kernel's TCP from seeing, and answering, segments that are ours.
 *
 * One chain per daemon instance and family in iptables' raw table, reached from PREROUTING (DROP what
 * is for us: the packet socket has it already; conntrack and the kernel's TCP never see it) and one
 * from OUTPUT (NOTRACK what the raw socket sends). Every rule carries our comment, "tcpfsmd TAG", and
 * matches only addresses that are local to this machine and ports that we own. iptables-restore
 * --noflush replaces the chain atomically. Rules are kept over a crash, found again at start, and
 * removed at a wanted stop. Calls run a child and take about 10 ms: main thread only.
 *
 * Beside them, when it is asked for, a table of nftables or a program of BPF drops the same at the devices' ingress,
 * which is cheaper (host/early.h). It goes with the rules; the table stays over a crash with them, the program does not.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/errmsg.h"

struct shield;

/* Something that we own: an address (addr_any: both families; addr_any4, addr_any6: one) and local ports. */
struct shield_rule {
	struct ipaddr addr;
	uint16_t port_min, port_max; /* inclusive */
};

struct shield_stat {
	struct shield_rule rule;
	bool ipv6;
	uint64_t packets, bytes; /* dropped for the kernel, by all of them */
	uint64_t early; /* packets of these that were dropped at ingress */
};

/* tag: tells instances apart, the runtime directory; it is printed in the rules' comments. Looks for
 * iptables-restore and ip6tables-restore. -ENOENT, -EPERM: with a message that says what to do.
 * Changes nothing yet. A machine without IPv6 works with IPv4 alone.
 */
int shield_new(const char *tag, struct shield **ret_shield, struct errmsg *ret_err);
void shield_free(struct shield *s); /* leaves the rules as they are */

enum shield_by {
	SHIELD_BY_NFT, /* Shield=ingress */
	SHIELD_BY_BPF, /* Shield=bpf. Takes CAP_BPF during shield_drop_early(), not later */
};

/* What is applied from now on is dropped early too, on these interfaces (NULL-terminated; NULL: any). -ENOENT:
 * there is no nft; -EOPNOTSUPP, -EPERM and others: it or the kernel cannot. */
int shield_drop_early(struct shield *s, enum shield_by by, const char *const *only,
		      struct errmsg *ret_err);
/* Devices come and go: poll readable, then shield_update(). -1 unless asked to drop early. */
int shield_fd(const struct shield *s);
void shield_update(struct shield *s);

enum { SHIELD_DEVICES = 255 };

struct shield_early {
	const char *name; /* as Shield= has it; NULL: it is not wanted */
	const char *trouble; /* why the rules are alone; NULL: they are not */
	const char *devices[SHIELD_DEVICES]; /* that it stands on */
	size_t devices_n;
};

/* The texts are good until the next change of s. */
void shield_early(const struct shield *s, struct shield_early *ret_early);

/* Makes the rules exactly these: on failure the old ones stand. -EADDRINUSE: another instance of
 * tcpfsmd owns one of the ports; the message names its tag. */
int shield_apply(struct shield *s, const struct shield_rule *rules, size_t n,
		 struct errmsg *ret_err);
/* Removes chains, jumps and rules of our tag, also those of an earlier run. No rule there: fine. */
int shield_remove(struct shield *s, struct errmsg *ret_err);
/* What stands in the kernel now, by iptables-save. *ret_stats is malloc'ed. */
int shield_list(struct shield *s, struct shield_stat **ret_stats, size_t *ret_n,
		struct errmsg *ret_err);
/* Sends a SYN over lo to a port that rules shield (port_min of a rule applied) and proves that the
 * kernel does not answer it, for each family that is up and in which a rule covers the loopback
 * address. -EPROTO: it was answered; -ENETDOWN: lo is down, so nothing could be tested; -EIO: the SYN
 * did not arrive. Sends only to 127.0.0.1 and ::1, from port_b to port_a, both ours. Takes 50 ms a
 * family. To be called before a worker runs: that one would answer.
 */
int shield_self_test(struct shield *s, uint16_t port_a, uint16_t port_b, struct errmsg *ret_err);
