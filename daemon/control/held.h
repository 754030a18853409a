/* SPDX-License-Identifier: Apache-2.0 */
/* Listeners of programs (listen.stream): each is held by a UNIX socket whose other end the program
 * has. When the last holder of that end is gone, however it went, the listener is closed.
 */
#pragma once
#include <stdint.h>

struct event_base;
struct held;
struct served;

/* Takes over fd; it is put on *list. NULL: no memory, and fd is still the caller's. */
struct held *held_new(struct held **list, struct event_base *base, struct served *ls, int fd);
/* It listens, by this id: from now on its holder's end is waited for. */
void held_watch(struct held *h, uint64_t id);
/* It does not: the holder finds `error`. Frees h. */
void held_refuse(struct held *h, int error);
/* NULL is nothing. */
void held_free(struct held *h);
void held_free_all(struct held **list);
