/* SPDX-License-Identifier: Apache-2.0 */
/* Results to standard output. Each form is a row in a table of functions; only table and json need to
 * remember something between pages.
 */
#include "ctl/output.h"

#include <errno.h>
#include <libsmartcols.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/render.h"

struct output_ops {
	void (*page)(struct output *o, const json_t *result);
	void (*end)(struct output *o); /* NULL: nothing to do */
};

struct output {
	const struct output_ops *ops;
	enum method method;
	FILE *out;
	const struct proto_view *view; /* known with the first page; NULL: the result is no list */
	size_t pages, rows;
	json_t *last; /* the last page */
	json_t *first_row; /* for times since then */
	struct libscols_table *table;
	bool colours;
	char separator; /* csv, tsv */
};

static const json_t *rows_of(const struct output *o, const json_t *result)
{
	return json_object_get(result, o->view->array);
}

/* table */

static bool want_colours(FILE *out)
{
	const char *const no = getenv("NO_COLOR"), *const term = getenv("TERM");

	return isatty(fileno(out)) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

/* What deserves an eye: waiting for somebody (yellow), ended by force (red), working (green). */
static const char *colour_of(const struct proto_column *col, const char *cell)
{
	static const struct {
		const char *cell, *colour;
	} colours[] = {
		{ "ESTABLISHED", "\033[32m" }, { "CLOSE-WAIT", "\033[33m" },
		{ "FIN-WAIT-2", "\033[33m" },  { "LAST-ACK", "\033[33m" },
		{ "normal", "\033[32m" },      { "cancelled", "\033[33m" },
	};

	for (size_t i = 0; i < sizeof(colours) / sizeof(colours[0]); i++)
		if (!strcmp(colours[i].cell, cell))
			return colours[i].colour;
	return !strcmp(col->key, "end_reason") && strcmp(cell, "-") != 0 ? "\033[31m" : NULL;
}

static void table_start(struct output *o)
{
	o->table = scols_new_table();
	if (!o->table)
		return;
	scols_table_set_stream(o->table, o->out);
	scols_table_enable_colors(o->table, o->colours);
	for (size_t c = 0; c < o->view->columns_n; c++) {
		const struct proto_column *const col = &o->view->columns[c];
		struct libscols_column *const column = scols_table_new_column(
			o->table, col->heading, 0, col->right ? SCOLS_FL_RIGHT : 0);

		if (column && o->colours)
			scols_cell_set_color(scols_column_get_header(column), "\033[1m");
	}
}

static void table_row(struct output *o, const json_t *row)
{
	struct libscols_line *const line = scols_table_new_line(o->table, NULL);
	char cell[CELL_MAX];

	for (size_t c = 0; line && c < o->view->columns_n; c++) {
		const struct proto_column *const col = &o->view->columns[c];

		proto_cell(col, row, o->first_row, cell);
		scols_line_set_data(line, c, cell);
		if (o->colours && colour_of(col, cell))
			scols_cell_set_color(scols_line_get_cell(line, c), colour_of(col, cell));
	}
}

static void put_rendered(const struct output *o, const json_t *result)
{
	char *const text = proto_render(o->method, result);

	fputs(text ? text : "out of memory\n", o->out);
	free(text);
}

static void table_page(struct output *o, const json_t *result)
{
	const json_t *row;
	size_t i;

	if (!o->view) {
		put_rendered(o, result);
		return;
	}
	if (!o->table)
		table_start(o);
	json_array_foreach(rows_of(o, result), i, row) if (o->table) table_row(o, row);
}

/* The table, and what a list says besides its rows. */
static void table_end(struct output *o)
{
	const struct proto_column shield = { "shield", "", CELL_PLAIN, false };
	const struct proto_column trouble = { "trouble", "", CELL_PLAIN, false };
	char cell[CELL_MAX];

	if (!o->view)
		return;
	if (!o->table || !o->rows) {
		/* libsmartcols prints nothing at all for a table without lines; this has its heading. */
		put_rendered(o, o->last);
		return;
	}
	if (o->method == METHOD_SHOW_TRANSITIONS)
		fprintf(o->out, "connection %" JSON_INTEGER_FORMAT "\n",
			json_integer_value(json_object_get(o->last, "connection")));
	scols_print_table(o->table);
	if (o->method == METHOD_LIST_CONNECTIONS &&
	    json_is_string(json_object_get(o->last, "next")))
		fprintf(o->out, "(there are more: --after %s)\n",
			json_string_value(json_object_get(o->last, "next")));
	if (o->method == METHOD_SHOW_TRANSITIONS && json_is_true(json_object_get(o->last, "more")))
		fprintf(o->out, "(there are more)\n");
	if (o->method == METHOD_LIST_RULES)
		fprintf(o->out, "shield: %s\n", proto_cell(&shield, o->last, NULL, cell));
	if (o->method == METHOD_LIST_RULES && json_is_string(json_object_get(o->last, "trouble")))
		fprintf(o->out, "iptables alone: %s\n", proto_cell(&trouble, o->last, NULL, cell));
}

/* json: one document, whatever the number of pages. The list is written as it comes. */

static void json_page(struct output *o, const json_t *result)
{
	const json_t *row;
	size_t i, written = o->rows;

	if (!o->view) {
		json_dumpf(result, o->out, JSON_COMPACT);
		return;
	}
	if (!o->pages)
		fprintf(o->out, "{\"%s\":[", o->view->array);
	json_array_foreach(rows_of(o, result), i, row)
	{
		fputs(written++ ? ",\n" : "\n", o->out);
		json_dumpf(row, o->out, JSON_COMPACT);
	}
}

static void json_end(struct output *o)
{
	const char *key;
	json_t *v;

	if (o->view) {
		fputc(']', o->out);
		json_object_foreach(o->last, key, v) if (strcmp(key, o->view->array) != 0)
		{
			fprintf(o->out, ",\"%s\":", key);
			json_dumpf(v, o->out, JSON_COMPACT | JSON_ENCODE_ANY);
		}
		fputc('}', o->out);
	}
	fputc('\n', o->out);
}

/* json-seq, RFC 7464: each row is a text of its own. */

static void put_text_of_sequence(FILE *out, const json_t *v)
{
	fputc(0x1e, out);
	json_dumpf(v, out, JSON_COMPACT | JSON_ENCODE_ANY);
	fputc('\n', out);
}

static void json_seq_page(struct output *o, const json_t *result)
{
	const json_t *row;
	size_t i;

	if (!o->view) {
		put_text_of_sequence(o->out, result);
		return;
	}
	json_array_foreach(rows_of(o, result), i, row) put_text_of_sequence(o->out, row);
}

/* csv (RFC 4180, but for the line's end) and tsv. */

static void put_csv(FILE *out, const char *cell)
{
	if (!cell[strcspn(cell, ",\"\r\n")]) {
		fputs(cell, out);
		return;
	}
	fputc('"', out);
	for (; *cell; cell++) {
		if (*cell == '"')
			fputc('"', out);
		fputc(*cell, out);
	}
	fputc('"', out);
}

static void put_tsv(FILE *out, const char *cell)
{
	for (; *cell; cell++) {
		static const char from[] = "\t\n\r\\", to[] = "tnr\\";
		const char *const found = strchr(from, *cell);

		if (found)
			fprintf(out, "\\%c", to[found - from]);
		else
			fputc(*cell, out);
	}
}

static void put_separated(const struct output *o, size_t column, const char *cell)
{
	if (column)
		fputc(o->separator, o->out);
	if (o->separator == ',')
		put_csv(o->out, cell);
	else
		put_tsv(o->out, cell);
}

/* What is no list becomes a list of keys and values. */
static void put_pairs(const struct output *o, const char *prefix, const json_t *object)
{
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)(uintptr_t)object, key, v)
	{
		const struct proto_column col = { key, "", CELL_PLAIN, false };
		char name[256], cell[CELL_MAX];

		snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "." : "", key);
		if (json_is_object(v)) {
			put_pairs(o, name, v);
			continue;
		}
		put_separated(o, 0, name);
		put_separated(o, 1, proto_cell_raw(&col, object, cell));
		fputc('\n', o->out);
	}
}

static void separated_page(struct output *o, const json_t *result)
{
	const json_t *row;
	char cell[CELL_MAX];
	size_t i;

	if (!o->view) {
		put_separated(o, 0, "key");
		put_separated(o, 1, "value");
		fputc('\n', o->out);
		put_pairs(o, "", result);
		return;
	}
	for (size_t c = 0; !o->pages && c < o->view->raw_n; c++)
		put_separated(o, c, o->view->raw[c].key);
	if (!o->pages)
		fputc('\n', o->out);
	json_array_foreach(rows_of(o, result), i, row)
	{
		for (size_t c = 0; c < o->view->raw_n; c++)
			put_separated(o, c, proto_cell_raw(&o->view->raw[c], row, cell));
		fputc('\n', o->out);
	}
}

struct output *output_new(enum output_kind kind, enum method m, FILE *out)
{
	static const struct output_ops ops[OUTPUT__COUNT] = {
		[OUTPUT_TABLE] = { table_page, table_end },
		[OUTPUT_JSON] = { json_page, json_end },
		[OUTPUT_JSON_SEQ] = { json_seq_page, NULL },
		[OUTPUT_CSV] = { separated_page, NULL },
		[OUTPUT_TSV] = { separated_page, NULL },
	};
	struct output *const o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->ops = &ops[kind];
	o->method = m;
	o->out = out;
	o->colours = want_colours(out);
	o->separator = kind == OUTPUT_TSV ? '\t' : ',';
	return o;
}

void output_page(struct output *o, const json_t *result)
{
	if (!o->pages)
		o->view = proto_view(o->method, result);
	if (o->view && !o->first_row)
		o->first_row = json_incref(json_array_get(rows_of(o, result), 0));
	json_decref(o->last);
	o->last = json_incref((json_t *)(uintptr_t)result);
	o->ops->page(o, result);
	o->pages++;
	o->rows += o->view ? json_array_size(rows_of(o, result)) : 0;
}

int output_end(struct output *o)
{
	int rc = 0;

	if (o->ops->end && o->pages)
		o->ops->end(o);
	if (fflush(o->out) || ferror(o->out))
		rc = errno ? -errno : -EIO;
	scols_unref_table(o->table);
	json_decref(o->last);
	json_decref(o->first_row);
	free(o);
	return rc;
}
