/* SPDX-License-Identifier: Apache-2.0 */
/* PACKET_FANOUT with a program of ours, packet(7): of several links that share what arrives, which gets
 * a packet. The program is pure; joining is not.
 */
#pragma once
#include "base/steer.h"
#include "link/filter.h"
#include "link/link.h"

/* A program whose result, modulo the number of sockets, is the worker: what steer_worker() says of the
 * packet's flow, also of the one that an ICMP error quotes and of one behind up to 8 extension headers
 * of IPv6. Whatever has no flow goes to the first: ARP, neighbour discovery, other protocols.
 */
void fanout_build(const struct steer *s, struct filter *ret_program);
/* Joins a socket that is bound to the group; the first that joins makes it. The n-th that joins gets what is the
 * n-th's. -Exxx.
 */
int fanout_join(int fd, const struct steer *s, struct fanout_group *group);
