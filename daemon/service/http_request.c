/* SPDX-License-Identifier: Apache-2.0 */
#include "service/http_request.h"

#include <string.h>
#include <strings.h>

#include "base/macros.h"

static const char *const field_names[HTTP__FIELDS] = {
	[HTTP_HOST] = "host",
	[HTTP_CONNECTION] = "connection",
	[HTTP_CONTENT_LENGTH] = "content-length",
	[HTTP_TRANSFER_ENCODING] = "transfer-encoding",
	[HTTP_RANGE] = "range",
	[HTTP_IF_RANGE] = "if-range",
	[HTTP_IF_MATCH] = "if-match",
	[HTTP_IF_NONE_MATCH] = "if-none-match",
	[HTTP_IF_MODIFIED_SINCE] = "if-modified-since",
	[HTTP_IF_UNMODIFIED_SINCE] = "if-unmodified-since",
};

/* An empty line ends it: CRLF, or LF alone, which RFC 9112 2.2 lets us take for one. Lines that are empty
 * before the first one do not count.
 */
size_t http_head_end(const char *text, size_t len, size_t *scanned)
{
	size_t at = *scanned, start = 0;
	const char *lf;

	while (start < len && (text[start] == '\r' || text[start] == '\n'))
		start++;
	if (at < start)
		at = start;
	while ((lf = memchr(text + at, '\n', len - at)) != NULL) {
		const size_t next = (size_t)(lf - text) + 1;

		if (next < len && text[next] == '\n')
			return next + 1;
		if (next + 1 < len && text[next] == '\r' && text[next + 1] == '\n')
			return next + 2;
		if (next + 1 >= len && (next == len || text[next] == '\r')) {
			*scanned = next - 1; /* what follows decides */
			return 0;
		}
		at = next;
	}
	*scanned = len;
	return 0;
}

/* The line at *at, without its end, which must be there. *at moves behind it. */
static struct http_text take_line(const char *head, size_t len, size_t *at)
{
	const char *const start = head + *at, *const lf = memchr(start, '\n', len - *at);
	size_t n = lf ? (size_t)(lf - start) : len - *at;

	*at += n + (lf ? 1 : 0);
	if (n && start[n - 1] == '\r')
		n--;
	return (struct http_text){ start, n };
}

/* RFC 9110 5.6.2. */
static bool is_token(struct http_text t)
{
	static const char marks[] = "!#$%&'*+-.^_`|~";

	for (size_t i = 0; i < t.len; i++) {
		const char c = t.at[i];

		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		      (c && strchr(marks, c))))
			return false;
	}
	return t.len;
}

static bool equals(struct http_text t, const char *text)
{
	return t.len == strlen(text) && !memcmp(t.at, text, t.len);
}

static bool equals_any_case(struct http_text t, const char *text)
{
	return t.len == strlen(text) && !strncasecmp(t.at, text, t.len);
}

/* Blanks and tabs at both ends. */
static struct http_text trim(struct http_text t)
{
	while (t.len && (t.at[0] == ' ' || t.at[0] == '\t')) {
		t.at++;
		t.len--;
	}
	while (t.len && (t.at[t.len - 1] == ' ' || t.at[t.len - 1] == '\t'))
		t.len--;
	return t;
}

static enum http_method find_method(struct http_text t)
{
	static const char *const known[] = { "POST",    "PUT",   "DELETE", "CONNECT",
					     "OPTIONS", "TRACE", "PATCH" };

	if (equals(t, "GET"))
		return HTTP_GET;
	if (equals(t, "HEAD"))
		return HTTP_HEAD;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (equals(t, known[i]))
			return HTTP_KNOWN;
	return HTTP_UNKNOWN;
}

/* "HTTP/1.1". 0, 400 or 505. */
static unsigned parse_version(struct http_text t, unsigned *ret_minor)
{
	if (t.len != 8 || memcmp(t.at, "HTTP/", 5) != 0 || t.at[6] != '.' || t.at[5] < '0' ||
	    t.at[5] > '9' || t.at[7] < '0' || t.at[7] > '9')
		return 400;
	if (t.at[5] != '1')
		return 505;
	*ret_minor = t.at[7] == '0' ? 0 : 1;
	return 0;
}

/* Origin form, or absolute form, of which path and query count: RFC 9112 3.2. */
static unsigned parse_target(struct http_text t, struct http_request *r)
{
	const char *mark;

	for (size_t i = 0; i < t.len; i++)
		if ((unsigned char)t.at[i] <= ' ' || t.at[i] == 0x7f || t.at[i] == '#')
			return 400;
	if (t.len > 7 && !strncasecmp(t.at, "http://", 7)) {
		size_t n = 7;

		while (n < t.len && t.at[n] != '/' && t.at[n] != '?')
			n++;
		if (n == 7)
			return 400; /* no host */
		t.at += n;
		t.len -= n;
		if (!t.len || t.at[0] == '?')
			r->path = (struct http_text){ "/", 1 };
	} else if (!t.len || t.at[0] != '/') {
		return 400;
	}
	mark = t.len ? memchr(t.at, '?', t.len) : NULL;
	if (mark)
		r->query = (struct http_text){ mark + 1, t.len - (size_t)(mark - t.at) - 1 };
	if (!r->path.at)
		r->path = (struct http_text){ t.at, mark ? (size_t)(mark - t.at) : t.len };
	return 0;
}

/* METHOD SP TARGET SP VERSION. */
static unsigned parse_first_line(struct http_text line, struct http_request *r)
{
	const char *const sp = memchr(line.at, ' ', line.len);
	const char *const last = memrchr(line.at, ' ', line.len);
	struct http_text method, target, version;
	unsigned status;

	if (!sp || sp == last)
		return 400;
	method = (struct http_text){ line.at, (size_t)(sp - line.at) };
	target = (struct http_text){ sp + 1, (size_t)(last - sp) - 1 };
	version = (struct http_text){ last + 1, (size_t)(line.at + line.len - last) - 1 };
	if (!is_token(method))
		return 400;
	status = parse_version(version, &r->minor);
	if (status)
		return status;
	r->method = find_method(method);
	/* CONNECT has an authority there and OPTIONS may have a star: no file has such a name. */
	if (r->method == HTTP_KNOWN || r->method == HTTP_UNKNOWN)
		return 0;
	return parse_target(target, r);
}

static bool is_list(enum http_field field)
{
	return field == HTTP_IF_MATCH || field == HTTP_IF_NONE_MATCH || field == HTTP_CONNECTION ||
	       field == HTTP_TRANSFER_ENCODING;
}

/* NAME: VALUE, no blank before the colon, no line that goes on (RFC 9112 5). */
static unsigned split_field(struct http_text line, struct http_text *ret_name,
			    struct http_text *ret_value)
{
	const char *const colon = memchr(line.at, ':', line.len);

	if (!colon)
		return 400;
	*ret_name = (struct http_text){ line.at, (size_t)(colon - line.at) };
	*ret_value = trim(
		(struct http_text){ colon + 1, (size_t)(line.at + line.len - colon) - 1 });
	if (!is_token(*ret_name))
		return 400;
	for (size_t i = 0; i < ret_value->len; i++) {
		const unsigned char c = (unsigned char)ret_value->at[i];

		if ((c < ' ' && c != '\t') || c == 0x7f)
			return 400;
	}
	return 0;
}

static unsigned parse_field(struct http_text line, struct http_request *r)
{
	struct http_text name, value;
	const unsigned status = split_field(line, &name, &value);

	if (status)
		return status;
	for (int i = 0; i < HTTP__FIELDS; i++) {
		if (!equals_any_case(name, field_names[i]))
			continue;
		if (!r->field[i].at)
			r->field[i] = value;
		else if (!is_list((enum http_field)i))
			return 400;
	}
	return 0;
}

bool http_field_next(const struct http_request *r, enum http_field field, size_t *cursor,
		     struct http_text *ret_value)
{
	struct http_text name, value;

	while (*cursor < r->fields.len) {
		const struct http_text line = take_line(r->fields.at, r->fields.len, cursor);

		if (!line.len || split_field(line, &name, &value) ||
		    !equals_any_case(name, field_names[field]))
			continue;
		*ret_value = value;
		return true;
	}
	return false;
}

/* Is `word` in the comma-separated lists of Connection? */
static bool says_connection(const struct http_request *r, const char *word)
{
	struct http_text list;
	size_t cursor = 0;

	if (!r->field[HTTP_CONNECTION].at)
		return false;
	while (http_field_next(r, HTTP_CONNECTION, &cursor, &list)) {
		while (list.len) {
			const char *const comma = memchr(list.at, ',', list.len);
			const size_t n = comma ? (size_t)(comma - list.at) : list.len;

			if (equals_any_case(trim((struct http_text){ list.at, n }), word))
				return true;
			list.at += n + (comma ? 1 : 0);
			list.len -= n + (comma ? 1 : 0);
		}
	}
	return false;
}

/* RFC 9112 6: both kinds of length say that a body follows; a length that is none is refused. */
static unsigned check_body(struct http_request *r)
{
	const struct http_text length = r->field[HTTP_CONTENT_LENGTH];
	bool some = false;

	if (length.at && !length.len)
		return 400;
	for (size_t i = 0; i < length.len; i++) {
		if (length.at[i] < '0' || length.at[i] > '9')
			return 400;
		some |= length.at[i] != '0';
	}
	r->has_body = some || r->field[HTTP_TRANSFER_ENCODING].at;
	return 0;
}

static unsigned parse_fields(struct http_request *r)
{
	size_t at = 0;
	unsigned n = 0, status;

	while (at < r->fields.len) {
		const struct http_text line = take_line(r->fields.at, r->fields.len, &at);

		if (!line.len)
			break; /* the end */
		if (++n > HTTP_FIELDS_MAX)
			return 431;
		status = parse_field(line, r);
		if (status)
			return status;
	}
	if (r->minor && !r->field[HTTP_HOST].at)
		return 400; /* RFC 9112 3.2 */
	return check_body(r);
}

unsigned http_request_parse(const char *head, size_t len, struct http_request *ret_request)
{
	struct http_request *const r = ret_request;
	struct http_text line;
	unsigned status;
	size_t at = 0;

	*r = (struct http_request){ .method = HTTP_UNKNOWN };
	do
		line = take_line(head, len, &at);
	while (!line.len && at < len);
	if (line.len > HTTP_LINE_MAX)
		return 414;
	status = parse_first_line(line, r);
	if (status)
		return status;
	r->fields = (struct http_text){ head + at, len - at };
	status = parse_fields(r);
	if (status)
		return status;
	if (r->method == HTTP_UNKNOWN)
		return 501;
	r->keep = r->minor ? !says_connection(r, "close") : says_connection(r, "keep-alive");
	r->keep &= !r->has_body;
	return 0;
}

static int hex(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

unsigned http_path_decode(const struct http_text *path, char ret_path[static HTTP_PATH_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < path->len; i++) {
		char c = path->at[i];

		if (c == '%') {
			const int hi = i + 2 < path->len ? hex(path->at[i + 1]) : -1;
			const int lo = i + 2 < path->len ? hex(path->at[i + 2]) : -1;

			if (hi < 0 || lo < 0 || (!hi && !lo))
				return 400;
			c = (char)(hi << 4 | lo);
			i += 2;
		}
		if (c == '/' && !n)
			continue;
		if (n + 1 == HTTP_PATH_MAX)
			return 414;
		ret_path[n++] = c;
	}
	ret_path[n] = 0;
	return 0;
}
