/* SPDX-License-Identifier: Apache-2.0 */
#include "service/http_answer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/macros.h"

static const char *const days[] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
static const char *const months[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
				      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };

/* Without strftime(), which speaks the locale's language. */
const char *http_date_format(time_t t, char buf[static HTTP_DATE_TEXT])
{
	struct tm tm;

	if (!gmtime_r(&t, &tm) || tm.tm_year < -1900 || tm.tm_year > 8099) {
		t = 0;
		(void)gmtime_r(&t, &tm);
	}
	(void)snprintf(buf, HTTP_DATE_TEXT, "%s, %02u %s %04u %02u:%02u:%02u GMT",
		       days[(unsigned)tm.tm_wday % 7], (unsigned)tm.tm_mday % 100,
		       months[(unsigned)tm.tm_mon % 12], (unsigned)(tm.tm_year + 1900) % 10000,
		       (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100,
		       (unsigned)tm.tm_sec % 100);
	return buf;
}

static int find_month(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(months); i++)
		if (!strcmp(name, months[i]))
			return (int)i;
	return -1;
}

int http_date_parse(struct http_text text, time_t *ret_time)
{
	char buf[48], day[12], month[4];
	struct tm tm = { 0 };
	int end = 0;

	if (!text.at || text.len >= sizeof(buf))
		return -EINVAL;
	memcpy(buf, text.at, text.len);
	buf[text.len] = 0;
	if (sscanf(buf, "%3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT%n", day, &tm.tm_mday, month,
		   &tm.tm_year, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &end) == 7 &&
	    end) {
		tm.tm_year -= 1900;
	} else if (sscanf(buf, "%9[A-Za-z], %2d-%3[A-Za-z]-%2d %2d:%2d:%2d GMT%n", day, &tm.tm_mday,
			  month, &tm.tm_year, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &end) == 7 &&
		   end) {
		tm.tm_year += tm.tm_year < 70 ? 100 : 0; /* RFC 850 */
	} else if (sscanf(buf, "%3[A-Za-z] %3[A-Za-z] %2d %2d:%2d:%2d %4d%n", day, month,
			  &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &tm.tm_year,
			  &end) == 7 &&
		   end) {
		tm.tm_year -= 1900; /* asctime() */
	} else {
		return -EINVAL;
	}
	tm.tm_mon = find_month(month);
	if ((size_t)end != text.len || tm.tm_mon < 0 || tm.tm_year < 0 || tm.tm_mday < 1 ||
	    tm.tm_mday > 31 || tm.tm_hour < 0 || tm.tm_hour > 23 || tm.tm_min < 0 ||
	    tm.tm_min > 59 || tm.tm_sec < 0 || tm.tm_sec > 60)
		return -EINVAL;
	*ret_time = timegm(&tm);
	return 0;
}

const char *http_type(const char *name)
{
	static const struct {
		const char *ending, *type;
	} types[] = {
		{ "html", "text/html; charset=utf-8" },
		{ "htm", "text/html; charset=utf-8" },
		{ "txt", "text/plain; charset=utf-8" },
		{ "md", "text/plain; charset=utf-8" },
		{ "log", "text/plain; charset=utf-8" },
		{ "css", "text/css; charset=utf-8" },
		{ "js", "text/javascript; charset=utf-8" },
		{ "mjs", "text/javascript; charset=utf-8" },
		{ "json", "application/json" },
		{ "xml", "text/xml; charset=utf-8" },
		{ "csv", "text/csv; charset=utf-8" },
		{ "svg", "image/svg+xml" },
		{ "png", "image/png" },
		{ "jpg", "image/jpeg" },
		{ "jpeg", "image/jpeg" },
		{ "gif", "image/gif" },
		{ "webp", "image/webp" },
		{ "ico", "image/x-icon" },
		{ "pdf", "application/pdf" },
		{ "wasm", "application/wasm" },
		{ "gz", "application/gzip" },
		{ "zip", "application/zip" },
		{ "mp4", "video/mp4" },
		{ "woff2", "font/woff2" },
	};
	const char *const slash = strrchr(name, '/');
	const char *const dot = strrchr(slash ? slash : name, '.');

	for (size_t i = 0; dot && i < ARRAY_SIZE(types); i++)
		if (!strcasecmp(dot + 1, types[i].ending))
			return types[i].type;
	return "application/octet-stream";
}

const char *http_reason(unsigned status)
{
	static const struct {
		unsigned status;
		const char *reason;
	} reasons[] = {
		{ 200, "OK" },
		{ 206, "Partial Content" },
		{ 301, "Moved Permanently" },
		{ 304, "Not Modified" },
		{ 400, "Bad Request" },
		{ 403, "Forbidden" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 408, "Request Timeout" },
		{ 412, "Precondition Failed" },
		{ 414, "URI Too Long" },
		{ 416, "Range Not Satisfiable" },
		{ 431, "Request Header Fields Too Large" },
		{ 500, "Internal Server Error" },
		{ 501, "Not Implemented" },
		{ 503, "Service Unavailable" },
		{ 505, "HTTP Version Not Supported" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Unknown";
}

/* A file that changed just now may change again within its clock's tick: its tag is weak until
 * that is past, RFC 9110 8.8.1.
 */
static void make_etag(const struct http_file *file, time_t now,
		      char ret_etag[static HTTP_ETAG_TEXT])
{
	(void)snprintf(ret_etag, HTTP_ETAG_TEXT, "%s\"%" PRIx64 ".%x-%" PRIx64 "\"",
		       file->mtime.tv_sec + 2 > now ? "W/" : "", (uint64_t)file->mtime.tv_sec,
		       (unsigned)file->mtime.tv_nsec, (uint64_t)file->size);
}

static bool is_weak(const char *etag, size_t len)
{
	return len > 2 && etag[0] == 'W' && etag[1] == '/';
}

/* RFC 9110 8.8.3.2. */
static bool same_etag(const char *ours, struct http_text theirs, bool strong)
{
	size_t len = strlen(ours);

	if (strong && (is_weak(ours, len) || is_weak(theirs.at, theirs.len)))
		return false;
	if (is_weak(ours, len)) {
		ours += 2;
		len -= 2;
	}
	if (is_weak(theirs.at, theirs.len)) {
		theirs.at += 2;
		theirs.len -= 2;
	}
	return theirs.len == len && !memcmp(theirs.at, ours, len);
}

/* Is ours in the list? A tag may hold commas: it ends with its quote. */
static bool in_list(struct http_text list, const char *ours, bool strong)
{
	while (list.len) {
		const char *const quote = memchr(list.at, '"', list.len);
		const char *end;
		struct http_text tag = list;

		while (tag.len && strchr(" \t,", *tag.at)) {
			tag.at++;
			tag.len--;
		}
		if (tag.len && *tag.at == '*')
			return true;
		if (!quote)
			return false;
		end = memchr(quote + 1, '"', (size_t)(list.at + list.len - quote) - 1);
		if (!end)
			return false;
		tag.len = (size_t)(end + 1 - tag.at);
		if (same_etag(ours, tag, strong))
			return true;
		list.len -= (size_t)(end + 1 - list.at);
		list.at = end + 1;
	}
	return false;
}

static bool any_matches(const struct http_request *r, enum http_field field, const char *ours,
			bool strong)
{
	struct http_text list;
	size_t cursor = 0;

	while (http_field_next(r, field, &cursor, &list))
		if (in_list(list, ours, strong))
			return true;
	return false;
}

/* Has the file changed since that date? One that cannot be read counts for nothing: `unknown`. */
static bool changed_since(struct http_text date, const struct http_file *file, bool unknown)
{
	time_t t;

	return http_date_parse(date, &t) ? unknown : file->mtime.tv_sec > t;
}

/* RFC 9110 13.2.2, in its order. 0: it is to be served. */
static unsigned check_preconditions(const struct http_request *r, const struct http_file *file,
				    const char *etag)
{
	if (r->field[HTTP_IF_MATCH].at) {
		if (!any_matches(r, HTTP_IF_MATCH, etag, true))
			return 412;
	} else if (r->field[HTTP_IF_UNMODIFIED_SINCE].at &&
		   changed_since(r->field[HTTP_IF_UNMODIFIED_SINCE], file, false)) {
		return 412;
	}
	if (r->field[HTTP_IF_NONE_MATCH].at)
		return any_matches(r, HTTP_IF_NONE_MATCH, etag, false) ? 304 : 0;
	if (r->field[HTTP_IF_MODIFIED_SINCE].at &&
	    !changed_since(r->field[HTTP_IF_MODIFIED_SINCE], file, true))
		return 304;
	return 0;
}

/* If-Range, RFC 9110 13.1.5: a part is of use only when the file is still the one that the peer has. */
static bool range_holds(const struct http_request *r, const struct http_file *file,
			const char *etag)
{
	const struct http_text value = r->field[HTTP_IF_RANGE];
	time_t t;

	if (!value.at)
		return true;
	if (memchr(value.at, '"', value.len))
		return same_etag(etag, value, true);
	return !is_weak(etag, strlen(etag)) && !http_date_parse(value, &t) &&
	       t == file->mtime.tv_sec;
}

/* Digits up to the end or `stop`. False: there are none, or too many. */
static bool take_number(struct http_text *t, off_t *ret_number)
{
	off_t n = 0;
	size_t digits = 0;

	for (; t->len && *t->at >= '0' && *t->at <= '9'; t->at++, t->len--, digits++) {
		if (n > (INT64_MAX - 9) / 10)
			return false;
		n = n * 10 + (*t->at - '0');
	}
	*ret_number = n;
	return digits;
}

enum range { RANGE_NONE, RANGE_PART, RANGE_BEYOND };

/* One range of octets. What is no such thing, or several of them, may be ignored: RFC 9110 14.2. */
static enum range parse_range(struct http_text t, off_t size, off_t *ret_first, off_t *ret_length)
{
	off_t first, last = size - 1;

	if (t.len < 7 || strncasecmp(t.at, "bytes=", 6) != 0)
		return RANGE_NONE;
	t.at += 6;
	t.len -= 6;
	if (*t.at == '-') { /* the last n */
		t.at++;
		t.len--;
		if (!take_number(&t, &first) || t.len)
			return RANGE_NONE;
		if (!first)
			return RANGE_BEYOND;
		*ret_length = first < size ? first : size;
		*ret_first = size - *ret_length;
		return RANGE_PART;
	}
	if (!take_number(&t, &first) || !t.len || *t.at != '-')
		return RANGE_NONE;
	t.at++;
	t.len--;
	if (t.len && (!take_number(&t, &last) || t.len || last < first))
		return RANGE_NONE;
	if (first >= size)
		return RANGE_BEYOND;
	*ret_first = first;
	*ret_length = (last < size - 1 ? last : size - 1) - first + 1;
	return RANGE_PART;
}

void http_answer_decide(const struct http_request *r, const struct http_file *file, time_t now,
			struct http_answer *ret_answer)
{
	struct http_answer a = { .status = 200, .length = file->size };
	unsigned status;

	make_etag(file, now, a.etag);
	(void)http_date_format(file->mtime.tv_sec, a.modified);
	status = check_preconditions(r, file, a.etag);
	if (status) {
		a.status = status;
		a.length = 0;
	} else if (r->field[HTTP_RANGE].at && r->method == HTTP_GET && file->size &&
		   range_holds(r, file, a.etag)) {
		switch (parse_range(r->field[HTTP_RANGE], file->size, &a.first, &a.length)) {
		case RANGE_NONE:
			break;
		case RANGE_PART:
			a.status = 206;
			break;
		case RANGE_BEYOND:
			a.status = 416;
			a.length = 0;
			break;
		}
	}
	*ret_answer = a;
}

/* What describes the file, whole lines. */
static size_t format_file(unsigned status, const struct http_file *file,
			  const struct http_answer *a, char *buf, size_t size)
{
	int n = snprintf(buf, size, "Last-Modified: %s\r\nETag: %s\r\nAccept-Ranges: bytes\r\n",
			 a->modified, a->etag);

	if (status == 206)
		n += snprintf(buf + n, size - (size_t)n,
			      "Content-Range: bytes %" PRId64 "-%" PRId64 "/%" PRId64 "\r\n",
			      (int64_t)a->first, (int64_t)(a->first + a->length - 1),
			      (int64_t)file->size);
	if (status == 416)
		n += snprintf(buf + n, size - (size_t)n, "Content-Range: bytes */%" PRId64 "\r\n",
			      (int64_t)file->size);
	return (size_t)n;
}

size_t http_head_format(unsigned status, const char *date, bool keep, const struct http_file *file,
			const struct http_answer *answer, off_t length, const char *type,
			const char *more, char ret_head[static HTTP_ANSWER_HEAD_MAX])
{
	char about[400] = "", kind[100] = "", size[48] = "";
	int n;

	if (file)
		(void)format_file(status, file, answer, about, sizeof(about));
	if (*type)
		(void)snprintf(kind, sizeof(kind), "Content-Type: %s\r\n", type);
	if (status != 304) /* which has no body: RFC 9110 15.4.5 */
		(void)snprintf(size, sizeof(size), "Content-Length: %" PRId64 "\r\n",
			       (int64_t)length);
	n = snprintf(
		ret_head, HTTP_ANSWER_HEAD_MAX,
		"HTTP/1.1 %u %s\r\nServer: tcpfsmd\r\nDate: %s\r\nConnection: %s\r\n%s%s%s%s\r\n",
		status, http_reason(status), date, keep ? "keep-alive" : "close", kind, size, about,
		more);
	return n < HTTP_ANSWER_HEAD_MAX ? (size_t)n : 0;
}
