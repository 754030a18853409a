/* SPDX-License-Identifier: Apache-2.0 */
#include "service/http_listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a page ends with has room always. */
enum { TAIL_ROOM = 256, NAME_ROOM = 256 };

struct page {
	char *text; /* HTTP_LISTING_MAX */
	size_t len;
	bool full;
};

struct entry {
	char name[NAME_ROOM + 1]; /* with a slash behind a directory's */
};

static void put(struct page *p, const char *text)
{
	const size_t n = strlen(text);

	if (n > HTTP_LISTING_MAX - p->len) {
		p->full = true;
		return;
	}
	memcpy(p->text + p->len, text, n);
	p->len += n;
}

/* Names are whatever somebody called a file. */
static void put_escaped(struct page *p, const char *text)
{
	for (; *text; text++) {
		const char one[2] = { *text, 0 };

		put(p, *text == '<'   ? "&lt;"
		       : *text == '>' ? "&gt;"
		       : *text == '&' ? "&amp;"
		       : *text == '"' ? "&quot;"
				      : one);
	}
}

/* Unreserved characters and the slash stand for themselves: RFC 3986 2.3. */
static void put_encoded(struct page *p, const char *text)
{
	char code[4];

	for (; *text; text++) {
		const unsigned char c = (unsigned char)*text;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		    strchr("-._~/", c))
			(void)snprintf(code, sizeof(code), "%c", c);
		else
			(void)snprintf(code, sizeof(code), "%%%02X", c);
		put(p, code);
	}
}

/* An entry is there as a whole or not at all. */
static void put_entry(struct page *p, const struct entry *e)
{
	const size_t before = p->len;

	put(p, "<li><a href=\"./"); /* a name with a colon is no scheme */
	put_encoded(p, e->name);
	put(p, "\">");
	put_escaped(p, e->name);
	put(p, "</a>\n");
	if (p->len > HTTP_LISTING_MAX - TAIL_ROOM)
		p->full = true;
	if (p->full)
		p->len = before;
}

static bool is_directory(DIR *dir, const struct dirent *d)
{
	struct stat st;

	if (d->d_type != DT_UNKNOWN && d->d_type != DT_LNK)
		return d->d_type == DT_DIR;
	return !fstatat(dirfd(dir), d->d_name, &st, 0) && S_ISDIR(st.st_mode);
}

/* How many; one more than HTTP_LISTING_ENTRIES: there are more. */
static size_t read_entries(DIR *dir, struct entry *list)
{
	const struct dirent *d;
	size_t n = 0;

	while ((d = readdir(dir)) != NULL) {
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		if (n == HTTP_LISTING_ENTRIES)
			return n + 1;
		(void)snprintf(list[n++].name, sizeof(list->name), "%s%s", d->d_name,
			       is_directory(dir, d) ? "/" : "");
	}
	return n;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static void write_page(struct page *p, const char *path, const struct entry *list, size_t n,
		       bool more)
{
	put(p, "<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<title>/");
	put_escaped(p, path);
	put(p, "</title>\n<h1>/");
	put_escaped(p, path);
	put(p, "</h1>\n<ul>\n");
	if (*path)
		put(p, "<li><a href=\"../\">../</a>\n");
	for (size_t i = 0; i < n && !p->full; i++)
		put_entry(p, &list[i]);
	more |= p->full;
	p->full = false;
	put(p, more ? "</ul>\n<p>There is more.\n" : "</ul>\n");
}

char *http_listing(int fd, const char *path, size_t *ret_len)
{
	DIR *const dir = fdopendir(fd);
	struct entry *const list = dir ? calloc(HTTP_LISTING_ENTRIES, sizeof(*list)) : NULL;
	struct page page = { .text = list ? malloc(HTTP_LISTING_MAX) : NULL };
	size_t n;

	if (page.text) {
		n = read_entries(dir, list);
		qsort(list, n > HTTP_LISTING_ENTRIES ? HTTP_LISTING_ENTRIES : n, sizeof(*list),
		      by_name);
		write_page(&page, path, list, n > HTTP_LISTING_ENTRIES ? HTTP_LISTING_ENTRIES : n,
			   n > HTTP_LISTING_ENTRIES);
		*ret_len = page.len;
	}
	free(list);
	if (dir)
		(void)closedir(dir);
	else
		(void)close(fd);
	return page.text;
}
