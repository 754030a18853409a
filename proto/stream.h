/* SPDX-License-Identifier: Apache-2.0 */
/* Streams: a program's connections over tcpfsmd, as UNIX stream sockets. It needs no other library.
 *
 * A connection is a UNIX stream socket whose other end the daemon holds. It is read, written, polled,
 * shut down and closed as any socket. What a UNIX socket cannot say, tcpfsm_error() does.
 *
 * Calls that can fail return -errno; ret_ arguments are written only on success. `path` is the control
 * socket; NULL: $TCPFSM_SOCKET, $RUNTIME_DIRECTORY/control.sock, /run/tcpfsmd/control.sock.
 * Addresses are sockaddr_in6, those of IPv4 as ::ffff:a.b.c.d. Everything here may be called by
 * several threads.
 */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
	TCPFSM_BACKLOG_MAX =
		400, /* the kernel holds no more unaccepted descriptors than about this */
	TCPFSM_SYN_TEXT_MAX = 1400
};

struct tcpfsm_name {
	uint64_t id; /* the daemon's number of it; 0: a listener */
	int domain; /* AF_INET or AF_INET6: what the program made it as */
	bool listens, v6only; /* as struct tcpfsm_listener */
	struct sockaddr_in6 local, remote;
};

struct tcpfsm_connect {
	const char *path;
	int domain; /* for the name; 0: by the address */
	struct sockaddr_in6 remote;
	const struct sockaddr_in6 *source; /* NULL: any; port 0: any of the daemon's */
	const char *tcp; /* NULL, or KEY=VALUE,... of [Tcp] */
	/* With FastOpen=client in tcp: at most TCPFSM_SYN_TEXT_MAX octets to go with the SYN when that is
	 * possible, or behind the handshake. The peer may see them twice. */
	const void *syn_text;
	size_t syn_text_len;
};

struct tcpfsm_listener {
	const char *path;
	struct sockaddr_in6
		local; /* :: is any address of both families, ::ffff:0.0.0.0 any of IPv4 */
	bool v6only; /* with :: those of IPv6 alone */
	unsigned
		defer_s; /* accepted when its text has come, or so many seconds after it opened; 0: at once */
	bool reuse_port; /* others of the same user may listen there as well, if they all say so */
	unsigned
		backlog; /* connections not accepted yet; 1 to TCPFSM_BACKLOG_MAX, who is beyond waits */
	const char *tcp; /* NULL, or KEY=VALUE,... of [Tcp], for what it accepts */
};

/* What the daemon knows of an open connection. Octets and microseconds. */
struct tcpfsm_info {
	char state[16]; /* "established", "fin_wait_1", ... */
	uint64_t rtt_us, rttvar_us, rttmin_us, rto_us;
	uint64_t snd_mss_bytes, rcv_mss_bytes, cwnd_bytes, ssthresh_bytes;
	uint64_t snd_wnd_bytes, rcv_wnd_bytes, snd_wscale, rcv_wscale;
	uint64_t unacked_bytes, send_queue_bytes, recv_queue_bytes, backoffs;
	uint64_t bytes_in, bytes_out, segments_in, segments_out;
	uint64_t retransmitted_segments, retransmitted_bytes;
	uint64_t path_mtu_bytes, reassembly_bytes;
	char congestion_control[16]; /* "cubic", "newreno" */
	bool timestamps, window_scaling, sack, ecn;
};

/* Any address of either family, as a sockaddr_in6. -EAFNOSUPPORT, -EINVAL. */
int tcpfsm_address(const struct sockaddr *sa, socklen_t len, struct sockaddr_in6 *ret_address);

/* A pair: ret_ends[0] is the program's for good, ret_ends[1] goes to the daemon and is closed then.
 * flags: SOCK_NONBLOCK (of the program's end), SOCK_CLOEXEC. */
int tcpfsm_pair(int flags, int ret_ends[2]);
/* Sends the SYN. The program's end becomes writable when the connection is there or has failed; after
 * a failure it is good for nothing but tcpfsm_error() and close(). daemon_end is closed by this.
 * -EMSGSIZE: syn_text_len. */
int tcpfsm_connect_begin(const struct tcpfsm_connect *c, int end, int daemon_end,
			 struct tcpfsm_name *ret_name);
/* Of c: path, remote. Would syn_text go with the SYN, since the peer has given a cookie (RFC 7413)? */
int tcpfsm_ask_cookie(const struct tcpfsm_connect *c, bool *ret_cookie);
/* -EINPROGRESS: not yet; 0: it is there; else why not. timeout_ms as poll(2); -EINTR. */
int tcpfsm_connect_wait(int end, int timeout_ms);
/* Both: the descriptor. flags: SOCK_CLOEXEC; with SOCK_NONBLOCK it does not wait for the handshake, which
 * tcpfsm_connect_wait() does then, or poll(2) for POLLOUT. */
int tcpfsm_connect(const struct tcpfsm_connect *c, int flags, struct tcpfsm_name *ret_name);

/* 0: no listener of the daemon's is in the way of this one; it may come to be. -EADDRINUSE. */
int tcpfsm_listen_check(const struct tcpfsm_listener *l);
/* `end` becomes readable when there is a connection to accept. daemon_end is closed by this. */
int tcpfsm_listen_begin(const struct tcpfsm_listener *l, int end, int daemon_end);
/* The listening descriptor. Closed by its last holder, it listens no more. -EADDRINUSE, -EADDRNOTAVAIL,
 * -EACCES: not for this user. */
int tcpfsm_listen(const struct tcpfsm_listener *l, int flags);
/* The next connection's descriptor; waits unless the listening one does not block. flags as accept4.
 * -EINVAL: it listens no more, or the daemon is gone. domain: as struct tcpfsm_name. */
int tcpfsm_accept(int listening, int domain, int flags, struct tcpfsm_name *ret_name);

/* What the daemon is told in line with the octets: it takes effect there. */
enum tcpfsm_order {
	TCPFSM_CORK = 'C', /* whole segments only, until: */
	TCPFSM_UNCORK = 'c',
	TCPFSM_NAGLE = 'N',
	TCPFSM_NO_NAGLE = 'n',
	TCPFSM_RESETS =
		'R', /* when the last holder is gone, however he went, the peer gets a RST, at once */
	TCPFSM_ENDS = 'r', /* a FIN, behind what was written: as at first */
	TCPFSM_URGENT = 'U', /* the next octet is urgent, and all in front of it (RFC 6093) */
	TCPFSM_NOT_URGENT = 'u' /* it is not, after all */
};
/* On an open connection; does not wait. any: a descriptor of any file but a UNIX socket, to mark the order by: it is
 * passed to nobody. -EAGAIN: no room. -EBADF: one of them is none. */
int tcpfsm_order(int fd, enum tcpfsm_order order, int any);

/* Why a connection ended: ECONNREFUSED, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ...; 0: it has not, or in
 * good order. May be asked any number of times, by whoever has the descriptor. */
int tcpfsm_error(int fd);
/* Whose is this descriptor? -ENOENT: nothing of ours. Works across fork and exec. */
int tcpfsm_name(int fd, struct tcpfsm_name *ret_name);
int tcpfsm_info(const char *path, uint64_t id, struct tcpfsm_info *ret_info);
/* A key of [Tcp], in a connection that runs, or for what a listener accepts from now on: "Nagle", "no".
 * -EINVAL: there is no such key, or value, or it is only for the handshake. -ENOENT: no such connection. */
int tcpfsm_set(const char *path, uint64_t id, const char *key, const char *value);
/* Of l: path, local, v6only. For all that share the address. */
int tcpfsm_set_listener(const struct tcpfsm_listener *l, const char *key, const char *value);
int tcpfsm_reset(const char *path, uint64_t id); /* RST now */
/* A port of the daemon's own range, for who wants any: no listener has it at this moment. */
int tcpfsm_choose_port(const char *path, uint16_t *ret_port);
/* Does the daemon serve addresses that no kernel owns (Shield=none)? False also when it is not there. */
bool tcpfsm_has_no_shield(const char *path);
