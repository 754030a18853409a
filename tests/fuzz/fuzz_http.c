/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of HTTP requests: any octets are taken for a request or refused with a status; nothing is read outside of
 * them; the end of a head is the same however it comes in pieces; what is answered is within the file.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "service/http_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool lies_in(struct http_text t, const char *head, size_t len)
{
	static const char root[] = "/";

	if (!t.at)
		return !t.len;
	return (t.len == 1 && !memcmp(t.at, root, 1)) ||
	       (t.at >= head && t.at + t.len <= head + len);
}

static void check_end(const char *text, size_t size, size_t whole)
{
	size_t scanned = 0, n = 0;

	for (size_t len = 1; len <= size && !n; len += len < 64 ? 1 : 57) {
		n = http_head_end(text, len, &scanned);
		assert(n <= len);
	}
	/* The steps may pass over the end, never stop before it or find another. */
	assert(!n || n == whole);
	assert(size >= 64 || n == whole);
}

static void check_answer(const struct http_request *r, const char *head, size_t len)
{
	static const off_t sizes[] = { 0, 1, 12, (off_t)1 << 62 };
	char text[HTTP_ANSWER_HEAD_MAX], path[HTTP_PATH_MAX];

	for (int i = 0; i < HTTP__FIELDS; i++)
		assert(lies_in(r->field[i], head, len));
	if (r->method == HTTP_KNOWN)
		return;
	assert(r->path.len && r->path.at[0] == '/');
	if (!http_path_decode(&r->path, path))
		assert(path[0] != '/' && strlen(path) <= r->path.len);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		const struct http_file file = { .size = sizes[i],
						.mtime = { 1000000000, 0 },
						.type = http_type(path) };
		struct http_answer a;

		http_answer_decide(r, &file, 1700000000, &a);
		assert(a.first >= 0 && a.length >= 0 && a.first <= file.size - a.length);
		assert(a.status == 200 || a.status == 206 ? a.length <= file.size : !a.length);
		assert(a.status != 206 || a.length);
		assert(http_head_format(a.status, "", r->keep, &file, &a, a.length, file.type, "",
					text));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *const text = (const char *)data;
	struct http_request r;
	size_t scanned = 0, n;
	unsigned status;

	n = http_head_end(text, size, &scanned);
	assert(n <= size && scanned <= size);
	check_end(text, size, n);
	status = http_request_parse(text, n ? n : size, &r);
	assert(!status || status == 400 || status == 414 || status == 431 || status == 501 ||
	       status == 505);
	assert(lies_in(r.path, text, size) && lies_in(r.query, text, size));
	if (!status)
		check_answer(&r, text, n ? n : size);
	return 0;
}
