/* SPDX-License-Identifier: Apache-2.0 */
/* Results to standard output, in the chosen form. A list may come in several pages. */
#pragma once
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

#include "ctl/arguments.h"
#include "proto/method.h"

struct output;

/* Never fails but for memory: NULL. */
struct output *output_new(enum output_kind kind, enum method m, FILE *out);
/* A result, or a page of one: its rows. Borrowed. */
void output_page(struct output *o, const json_t *result);
/* Ends what the pages began, and flushes. 0, or -Exxx: it could not be written. Frees `o`. */
int output_end(struct output *o);
