/* SPDX-License-Identifier: Apache-2.0 */
#include "config/source.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is being read. inih asks for a line at a time, and then tells what it found in it. */
struct source {
	const char *name;
	const char *text;
	size_t len, at;
	unsigned line; /* the one handed out last */
	bool heading; /* that was a section's: announce it */
	source_fn *fn;
	void *arg;
	int rc; /* the first failure; nothing is read after it */
	struct errmsg *err;
};

/* Octets of the UTF-8 character at p, 0 when it is malformed (RFC 3629). */
static size_t utf8_len(const uint8_t *p, size_t len)
{
	const size_t n = p[0] < 0x80   ? 1
			 : p[0] < 0xc2 ? 0
			 : p[0] < 0xe0 ? 2
			 : p[0] < 0xf0 ? 3
			 : p[0] < 0xf5 ? 4
				       : 0;

	if (n > len)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* Overlong, surrogate, beyond U+10FFFF. */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

const char *source_check_text(const char *text, size_t len)
{
	const uint8_t *p = (const uint8_t *)text;

	for (size_t at = 0, n; at < len; at += n) {
		if (p[at] == 0)
			return "there is a NUL: not a text file";
		if ((p[at] < 0x20 && p[at] != '\t') || p[at] == 0x7f)
			return "there is a control character";
		n = utf8_len(p + at, len - at);
		if (n == 0)
			return "not UTF-8";
	}
	return NULL;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Cuts the blanks at both ends. */
static char *trim(char *s)
{
	char *end = s + strlen(s);

	while (end > s && is_blank(end[-1]))
		end--;
	*end = 0;
	while (is_blank(*s))
		s++;
	return s;
}

char *source_value(char *text)
{
	char quote = 0;

	for (char *p = text; *p; p++) {
		if (quote) {
			if (*p == quote)
				quote = 0;
		} else if ((*p == '"' || *p == '\'') && strchr(p + 1, *p)) {
			quote = *p;
		} else if ((*p == '#' || *p == ';') && p > text && is_blank(p[-1])) {
			*p = 0;
			break;
		}
	}
	return trim(text);
}

/* "[NAME]", with nothing but a comment behind it. NULL, or what is wrong. */
static const char *heading_check(char *line)
{
	char *end = strchr(line, ']');
	char *rest;

	if (!end)
		return "a section's heading ends with ]";
	rest = trim(end + 1);
	if (*rest && *rest != '#' && *rest != ';')
		return "something follows the section's heading";
	*end = 0;
	if (strlen(line + 1) >= SOURCE_NAME)
		return "a section's name has at most 49 octets";
	if (!*trim(line + 1))
		return "the section has no name";
	*end = ']';
	end[1] = 0;
	return NULL;
}

/* "Key=VALUE # comment" becomes "Key=VALUE". NULL, or what is wrong. */
static const char *pair_check(char *line)
{
	const size_t n = strspn(line,
				"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
	char *eq = line + n + strspn(line + n, " \t");
	char *value;

	if (*eq != '=')
		return strchr(line, '=') ? "a key is letters and digits"
					 : "expected Key=VALUE or [Section]";
	if (n == 0)
		return "there is no key before =";
	if (n >= SOURCE_NAME)
		return "a key has at most 49 octets";
	value = source_value(eq + 1);
	memmove(eq + 1, value, strlen(value) + 1);
	return NULL;
}

/* Checks a line and leaves in `line` what inih may see of it: the same on every version of inih,
 * whatever that takes for a comment, a continuation or a separator. NULL, or what is wrong.
 */
static const char *line_check(struct source *s, char *line)
{
	const char *wrong = source_check_text(line, strlen(line));
	char *start = trim(line);

	if (wrong)
		return wrong;
	memmove(line, start, strlen(start) + 1);
	if (!*line || *line == '#' || *line == ';') {
		*line = 0;
		return NULL;
	}
	if (*line != '[')
		return pair_check(line);
	s->heading = true;
	return heading_check(line);
}

/* inih's ini_reader: the next line into str. */
static char *next_line(char *str, int num, void *stream)
{
	struct source *s = stream;
	const char *from = s->text + s->at;
	const char *nl, *wrong;
	size_t n;

	/* inih says nothing of a section without keys: a pair without a name stands for the heading. */
	if (s->heading) {
		s->heading = false;
		return strcpy(str, "=");
	}
	if (s->rc || s->at == s->len)
		return NULL;
	nl = memchr(from, '\n', s->len - s->at);
	n = nl ? (size_t)(nl - from) : s->len - s->at;
	s->at += n + !!nl;
	s->line++;
	if (s->line == 1 && n >= 3 && !memcmp(from, "\xef\xbb\xbf", 3)) {
		from += 3; /* a byte order mark, as some editors leave */
		n -= 3;
	}
	if (n > SOURCE_LINE_MAX || n >= (size_t)num) {
		s->rc = errmsg(s->err, -EINVAL, "%s:%u: the line is longer than %d octets", s->name,
			       s->line, SOURCE_LINE_MAX);
		return NULL;
	}
	memcpy(str, from, n);
	str[n] = 0;
	wrong = strlen(str) < n ? "there is a NUL: not a text file" : line_check(s, str);
	if (wrong) {
		s->rc = errmsg(s->err, -EINVAL, "%s:%u: %s", s->name, s->line, wrong);
		return NULL;
	}
	return str;
}

/* inih's ini_handler. */
static int on_pair(void *user, const char *section, const char *name, const char *value)
{
	struct source *s = user;

	if (!s->rc)
		s->rc = s->fn(s->arg, section, name, value, s->line);
	return 1;
}

int source_parse(const char *name, const char *text, size_t len, source_fn *fn, void *arg,
		 struct errmsg *ret_err)
{
	struct source s = {
		.name = name, .text = text, .len = len, .fn = fn, .arg = arg, .err = ret_err
	};

	/* As the library is built, a line has 200 octets. Every caller sets the same values. */
	ini_use_stack = false;
	ini_initial_alloc = ini_max_line = SOURCE_LINE_MAX + 8;
	ini_allow_inline_comments = false;
	if (ini_parse_stream(next_line, &s, on_pair, &s) < 0)
		return errmsg(ret_err, -ENOMEM, "%s: out of memory", name);
	return s.rc;
}

static int load_fd(int fd, const char *path, char **ret_text, size_t *ret_len,
		   struct errmsg *ret_err)
{
	size_t len = 0, room = 16384;
	char *text = malloc(room);

	while (text) {
		const ssize_t n = read(fd, text + len, room - len);

		if (n < 0) {
			const int rc = -errno;

			free(text);
			return errmsg(ret_err, rc, "%s: %s", path,
				      rc == -EISDIR ? "it is a directory, not a file"
						    : strerror(-rc));
		}
		len += (size_t)n;
		if (n == 0) {
			*ret_text = text;
			*ret_len = len;
			return 0;
		}
		if (len > SOURCE_FILE_MAX) {
			free(text);
			return errmsg(ret_err, -EFBIG, "%s: larger than 1 MiB", path);
		}
		if (len == room) {
			char *more = realloc(text, room *= 2);

			if (!more)
				free(text);
			text = more;
		}
	}
	return errmsg(ret_err, -ENOMEM, "%s: out of memory", path);
}

int source_load(const char *path, char **ret_text, size_t *ret_len, struct errmsg *ret_err)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int rc;

	if (fd < 0) {
		rc = -errno;
		return errmsg(ret_err, rc, "%s: %s", path, strerror(-rc));
	}
	rc = load_fd(fd, path, ret_text, ret_len, ret_err);
	(void)close(fd);
	return rc;
}
