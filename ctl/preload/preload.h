/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of libtcpfsm-preload.so share. Nothing of it is seen outside, but for PUBLIC.
 *
 * socket() gives one end of a pair of UNIX stream sockets. The file behind that descriptor is never
 * exchanged: connect() and listen() send the other end to the daemon. So poll, epoll, dup, fork, and
 * every call that moves octets are the kernel's own; here is only what a UNIX socket says differently.
 * A program's end carries its name, so it is found again after exec.
 *
 * Calls on a program's descriptors go by syscall(2), since the functions of the usual names are ours.
 */
#pragma once
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "proto/stream.h"

#define PUBLIC __attribute__((visibility("default")))

/* OPENING: in connect(), which is asking the daemon. FAILED: a connect() that did; DISCONNECTED: and connect() has
 * said so. */
enum kind { NEW, OPENING, CONNECTING, CONNECTED, LISTENING, FAILED, DISCONNECTED };

enum { FDS_MAX = 65536, OPTIONS_MAX = 40 };

struct option {
	int level, name, value;
};

/* What a descriptor of ours is. dup() shares it. */
struct sock {
	struct sock *next; /* free ones: their memory stays theirs, for a thread that comes late */
	unsigned refs; /* descriptors of this process */
	enum kind kind;
	int domain;
	int daemon_end; /* NEW: what the daemon will get; else -1 */
	int reserve; /* a socket of the kernel's that is bound, so that nobody else gets the port; -1 */
	struct sockaddr_in6 bound; /* family 0: it is not */
	bool v6only, reuse_port; /* as they were when it was bound */
	struct tcpfsm_name name;
	bool deferred; /* NEW, but connect() has said that it is there: the SYN goes with the first text */
	struct sockaddr_in6 deferred_to;
	bool connect_told; /* connect() has said that it is there */
	bool shut; /* the program shut a direction down: an end of file may be in good order */
	int error; /* why connect() failed; 0: it did not, or it is told */
	bool told; /* it was told its error */
	bool more; /* MSG_MORE: the daemon is to wait for the rest */
	bool orders_due; /* the daemon has not been told all of what follows */
	bool cork_told, nodelay_told, resets_told; /* as the daemon has it */
	bool adopted; /* it came by exec, or in a message: what the daemon was told before is not known */
	bool order_last; /* nothing was written behind the last order */
	bool urgent_told; /* that the next octet is urgent; it was not written yet */
	int sndbuf; /* SO_SNDBUF without TCP_NOTSENT_LOWAT; 0: that never was */
	bool forked; /* another process may have it, too */
	struct linger linger;
	int epoll; /* the last it was registered with; -1 */
	uint64_t epoll_data;
	struct option options[OPTIONS_MAX]; /* as the kernel has them; those of SOL_SOCKET, too */
	unsigned options_n;
};

/* errno, and -1. */
static inline long fail(int rc)
{
	errno = rc < 0 ? -rc : rc;
	return -1;
}

/* $TCPFSM_SOCKET and $TCPFSM_ONLY, as the program was started: many a server clears its environment. May be NULL. */
extern const char *daemon_path, *only_meant;

/* ---- table.c: which descriptors are ours ---- */

struct sock *find(int fd);
/* And those that came by exec, or in a message: their name says so. */
struct sock *find_or_adopt(int fd);
/* The next that is ours, from *fd on. */
struct sock *next_sock(int *fd);
struct sock *sock_new(int domain, enum kind kind); /* NULL: no memory */
void sock_drop(struct sock *s); /* one that no descriptor has */
/* fd is what `s` says from now on; NULL: none of ours. */
void put(int fd, struct sock *s);
void share(int from, int to);
bool is_shared(const struct sock *s);
/* A vfork child, which shares our memory, is somebody else. */
bool is_ours(void);
bool blocks(int fd);
/* A descriptor out of the program's way: its own are the lowest. */
int hide(int fd);
bool hung_up(int fd);

/* ---- sandbox.c ---- */

/* May we make no system calls but those that the program made? */
bool is_sandboxed(void);

/* ---- names.c ---- */

/* As getsockname() has it: as much as there is room for, and how long it is. */
void give_name(const struct sockaddr_in6 *a, int domain, struct sockaddr *sa, socklen_t *len);
/* An argument of bind() or connect() on such a socket. */
int take_name(int domain, const struct sockaddr *sa, socklen_t len, struct sockaddr_in6 *ret);

/* ---- meant.c: $TCPFSM_ONLY ---- */

/* what: "connect", "listen", or "" for either. */
bool is_meant(const char *what, uint16_t port);
bool is_all_meant(void);
/* Not ours after all: the descriptor becomes a socket of the kernel's, with the options it was given. */
int hand_back(int fd, const struct sock *s);
/* What options of SOL_SOCKET are on the one, on the other. */
void carry(int from, int to, const int *names, size_t n);
/* A socket of the kernel's with the options of s. -errno. */
int kernel_socket(const struct sock *s, int flags);

/* ---- connect.c ---- */

/* A connect() under way: 0, -EINPROGRESS, -EINTR, or why it failed. timeout_ms as poll(2). */
int settle(int fd, struct sock *s, int timeout_ms);
/* sendto() and sendmsg() with MSG_FASTOPEN: connects, and the text goes with the SYN when the peer's cookie is
 * known, else behind the handshake. Octets taken, or -errno. */
long connect_with_text(int fd, struct sock *s, const struct msghdr *msg);
/* Octets are wanted of one that is deferred: it begins now. 0, or -errno. */
int connect_deferred(int fd, struct sock *s);
/* A fresh pair behind the same descriptor. */
int renew(int fd, struct sock *s);

/* ---- octets.c ---- */

/* Why it broke, once, as SO_ERROR; else 0. */
int take_error(int fd, struct sock *s);
/* Is there an error to be told? Leaves it. */
bool has_error(int fd, const struct sock *s);

/* ---- options.c ---- */

const struct option *find_option(const struct sock *s, int level, int name);
bool is_on(const struct sock *s, int level, int name);
void keep_option(struct sock *s, int level, int name, int value);
/* What was set, in the daemon's words; "" when it has none for it. */
void options_keys(const struct sock *s, char *keys, size_t size);
/* MSG_MORE: as TCP_CORK, until something is sent without it. */
void options_more(struct sock *s, bool more);
/* A connection is there, with the keys of options_keys(): what else the daemon is to know. */
void options_connected(int fd, struct sock *s);
/* Before octets go: what was set and not told yet. */
void options_tell(int fd, struct sock *s);
/* In line with the octets. -EAGAIN: no room. -ENOBUFS: no descriptor is left to mark it by. */
int give_order(int fd, struct sock *s, enum tcpfsm_order order);
/* An accepted socket has what its listener has. */
void options_inherit(int fd, struct sock *s, const struct sock *listener);
/* A fresh pair has the sizes that were set of the last. */
void options_renewed(int fd, struct sock *s);
/* SO_ERROR: read once, then forgotten. */
int socket_error(int fd, struct sock *s);

/* ---- info.c: TCP_INFO, in Linux's layout ---- */

enum { INFO_BYTES = 256 };
/* Its length. mss: what TCP_MAXSEG says. */
size_t info_fill(int fd, struct sock *s, char info[static INFO_BYTES], uint32_t *ret_mss);
