/* SPDX-License-Identifier: Apache-2.0 */
/* Octets between a connection and descriptors, with exact back-pressure: what the descriptor does not
 * take stays in the receive queue, so the window closes; what the send buffer does not take stays in
 * the descriptor, but for one held piece, and is not read on until that is gone.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/service.h"

struct event;

struct plumb {
	struct session *session; /* borrowed */
	int to; /* gets what the peer sends; owned; -1: nobody reads, so it is thrown away */
	int from; /* gives what we send; owned; may be the same as `to`; -1: ended */
	bool socket; /* to and from are one socket */
	bool reset_aborts; /* closed by its holder with text unread: RST */
	bool draining; /* who writes to `from` is gone: nothing there now means nothing ever */
	int broken; /* a write's errno: the kernel tells a socket's error once, to whoever comes first */
	struct event *ev_to, *ev_from;
	uint8_t *held; /* read from `from` and not taken yet; malloc'ed */
	size_t held_len, held_at;
	uint8_t behind_held; /* an order that was read behind what is held, and has its turn after it; 0: none */
	bool urgent; /* the next octet to be sent is, and all in front of it: held's first, or what is read next */
	/* A message of one octet came with a descriptor: see base/stream_order.h. Of a socket only; p stands after it.
	 * NULL: nobody gives orders. */
	void (*ordered)(struct plumb *p, uint8_t order);
	/* The send buffer is full: `from` is not read until it has room. p stands after it. May be NULL. */
	void (*held_up)(struct plumb *p);
	/* `from` is at its end, and everything read is in the send buffer. Last thing of a call. */
	void (*from_ended)(struct plumb *p);
	/* `to` refuses: nobody reads there. Not from within plumb_text(). May be NULL. */
	void (*to_ended)(struct plumb *p);
	/* It broke, other than by an end: ECONNRESET, ETIMEDOUT ... Last thing of a call, not from
	 * within plumb_text(). NULL: that is an end like another. */
	void (*failed)(struct plumb *p, int error);
};

/* Descriptors must not block; they are given away when it succeeds. p is zeroed but for callbacks. */
int plumb_init(struct plumb *p, struct session *s, int to, int from);
void plumb_fini(struct plumb *p);
/* A socket: closed at once, without a shutdown in front of it. Then plumb_fini(). */
void plumb_drop(struct plumb *p);
/* A TCP socket: its other end gets a RST instead of a FIN. Then plumb_fini(). */
void plumb_reset(struct plumb *p);
/* A UNIX socket: the last of these orders that wait, read or not; 0: neither does. Takes nothing. Only when nobody can
 * write there any more. */
uint8_t plumb_last_order(const struct plumb *p, uint8_t one, uint8_t other);
/* Towards `to`: what waits in the receive queue, then the end. */
void plumb_push(struct plumb *p);
/* Towards the peer: what `from` has. */
void plumb_pull(struct plumb *p);
uint32_t plumb_text(struct plumb *p, struct span text);
/* The parameters Nagle and Cork of the connection, from now on. */
void plumb_set_nagle(const struct session *s, bool on);
void plumb_set_cork(const struct session *s, bool on);
