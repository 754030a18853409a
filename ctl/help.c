/* SPDX-License-Identifier: Apache-2.0 */
/* Help and completion, out of the table of methods. */
#include "ctl/help.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/arguments.h"
#include "proto/filter.h"

static const char *const global_options[] = { "--socket", "--output", "--timeout", "--help",
					      "--version" };

/* The keys of [Tcp]; the build lists them out of the daemon's own table. */
static const struct {
	const char *name, *expected, *words, *help;
	bool opening; /* settled when a connection opens */
} tcp_keys[] = {
#define TCP_KEY(name, expected, words, help, opening) { name, expected, words, help, opening },
#include "tcp_keys.def"
#undef TCP_KEY
};
enum { TCP_KEYS = sizeof(tcp_keys) / sizeof(tcp_keys[0]) };

static void put_usage(FILE *out, enum method m)
{
	char *const usage = method_usage(m);

	fputs(usage ? usage : method_get(m)->text, out);
	free(usage);
}

static void put_global(FILE *out)
{
	fputs("Options, anywhere on the line:\n"
	      "  -s, --socket SOCKET    the daemon's socket (default: $TCPFSM_SOCKET,\n"
	      "                         $RUNTIME_DIRECTORY/control.sock, "
	      "/run/tcpfsmd/control.sock)\n"
	      "  -o, --output FORMAT    table, json, json-seq, csv or tsv\n"
	      "      --timeout TIME     how long to wait for an answer (default 30s; connect: for "
	      "ever)\n"
	      "  -h, --help             help, for a command too\n"
	      "      --version          the version of tcpfsmctl\n",
	      out);
}

static void put_summary(FILE *out, enum method m)
{
	fprintf(out, "  %-20s %s\n", method_get(m)->text, method_get(m)->help);
}

void help_all(FILE *out)
{
	fputs("Usage: tcpfsmctl [OPTIONS] COMMAND [ARGUMENTS]\n\nCommands:\n", out);
	for (size_t m = 0; m < METHOD__COUNT; m++)
		put_summary(out, (enum method)m);
	fprintf(out, "  %-20s %s\n", "run",
		"Run a program whose TCP goes through the daemon: run --help");
	fputc('\n', out);
	put_global(out);
	fputs("\nExit: 0 ok, 1 refused, 2 usage, 3 no daemon, 4 no such object, 5 permission, 6 "
	      "timed out,\n"
	      "7 expectation violated, 8 events lost. See tcpfsmctl(1).\n",
	      out);
}

static void put_argument(FILE *out, const struct method_arg *a)
{
	char name[64];
	size_t i = 0;

	for (; a->name[i] && i < sizeof(name) - 1; i++)
		name[i] = a->name[i] == '_' && !a->required ? '-' : a->name[i];
	name[i] = '\0';
	if (a->required)
		for (char *p = name; *p; p++)
			*p = *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;
	fprintf(out, "  %s%-*s %s\n", a->required ? "" : "--", a->required ? 20 : 18, name,
		a->help);
}

static void put_tcp_keys(FILE *out)
{
	fputs("\nKeys (*: settled when a connection opens, not to be changed in one that runs):\n",
	      out);
	for (size_t i = 0; i < TCP_KEYS; i++)
		fprintf(out, " %c tcp.%-18s %s\n   %-22s %s\n", tcp_keys[i].opening ? '*' : ' ',
			tcp_keys[i].name, tcp_keys[i].help, "", tcp_keys[i].expected);
}

void help_method(FILE *out, enum method m)
{
	const struct method_info *const info = method_get(m);

	fputs("Usage: tcpfsmctl ", out);
	put_usage(out, m);
	fprintf(out, "\n\n%s.\n", info->help);
	if (info->args[0].name)
		fputs("\nArguments:\n", out);
	for (const struct method_arg *a = info->args; a->name; a++)
		put_argument(out, a);
	if (m == METHOD_LIST_CONNECTIONS)
		fputs("\nA filter is what else stands on the line, as with ss:\n"
		      "  state fin-wait-2 and dst 198.51.100.0/24 and '(' sport = :80 or not src "
		      "10.0.0.1 ')'\n"
		      "  bytes_in '>' 1MiB or rtt_us '>' 50ms\n",
		      out);
	if (m == METHOD_SET_TCP)
		put_tcp_keys(out);
	if (m == METHOD_CONNECT)
		fputs("\nStandard input goes to the peer, and its end is our FIN; what the peer "
		      "sends goes to\n"
		      "standard output. With an output format, the connection is opened and told, "
		      "no more.\n",
		      out);
	fputc('\n', out);
	put_global(out);
}

/* Does the text command begin with these words? */
static bool begins(const char *text, size_t n, const char *const *words)
{
	for (size_t i = 0; i < n; i++) {
		const size_t len = strlen(words[i]);

		if (strncmp(text, words[i], len) || (text[len] && text[len] != ' '))
			return false;
		text += len + (text[len] == ' ');
		if (!*text)
			return i + 1 == n;
	}
	return true;
}

int help_words(FILE *out, size_t n, const char *const *words, struct proto_err *ret_err)
{
	enum method m;
	size_t used, found = 0;

	if (!n) {
		help_all(out);
		return 0;
	}
	if (!method_by_words(n, words, &m, &used, ret_err)) {
		help_method(out, m);
		return 0;
	}
	for (size_t i = 0; i < METHOD__COUNT; i++)
		if (begins(method_get((enum method)i)->text, n, words)) {
			put_summary(out, (enum method)i);
			found++;
		}
	return found ? 0 : -EINVAL;
}

static void offer(FILE *out, const char *word, const char *candidate)
{
	if (!strncmp(candidate, word, strlen(word)))
		fprintf(out, "%s\n", candidate);
}

static void offer_options(FILE *out, const char *word, const struct method_info *info)
{
	for (size_t i = 0; i < sizeof(global_options) / sizeof(global_options[0]); i++)
		offer(out, word, global_options[i]);
	for (const struct method_arg *a = info ? info->args : NULL; a && a->name; a++) {
		char option[64] = "--";

		for (size_t i = 0; a->name[i] && i < sizeof(option) - 3; i++)
			option[i + 2] = a->name[i] == '_' ? '-' : a->name[i];
		offer(out, word, option);
	}
}

/* The next word of every command that begins with the words before it, once each. */
static void offer_commands(FILE *out, const char *word, size_t n, const char *const *before)
{
	size_t skip = 0;

	for (size_t i = 0; i < n; i++)
		skip += strlen(before[i]) + 1;
	for (size_t m = 0; m < METHOD__COUNT; m++) {
		const char *const text = method_get((enum method)m)->text;
		char next[64] = "";
		bool again = false;

		if (!begins(text, n, before) || strlen(text) < skip)
			continue;
		snprintf(next, sizeof(next), "%.*s", (int)strcspn(text + skip, " "), text + skip);
		for (size_t i = 0; i < m; i++) {
			const char *const other = method_get((enum method)i)->text;

			again |= begins(other, n, before) && strlen(other) >= skip &&
				 strlen(next) == strcspn(other + skip, " ") &&
				 !strncmp(other + skip, next, strlen(next));
		}
		if (!again)
			offer(out, word, next);
	}
	if (!n)
		offer(out, word, "run");
}

static void offer_values(FILE *out, const char *word, const struct method_info *info)
{
	static const char *const services[] = { "echo",  "discard", "chargen", "daytime",
						"exec:", "file:",   "http:",   "relay:" };
	static const char *const words[] = { "state", "exclude", "src", "dst", "sport",
					     "dport", "and",     "or",  "not" };

	for (const struct method_arg *a = info->args; a->name; a++) {
		if (a->type == ARG_SERVICE)
			for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++)
				offer(out, word, services[i]);
		if (a->type != ARG_FILTER)
			continue;
		for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
			offer(out, word, words[i]);
		for (size_t f = 0; f < FIELD__COUNT && *word; f++)
			if (field_get((enum proto_field)f)->place == PLACE_ROW)
				offer(out, word, field_get((enum proto_field)f)->key);
	}
}

/* KEY=VALUE,... of which the last is being written. */
static void offer_options_of_tcp(FILE *out, const char *word)
{
	const char *const comma = strrchr(word, ','), *const last = comma ? comma + 1 : word;

	for (size_t i = 0; i < TCP_KEYS; i++)
		if (!strncmp(tcp_keys[i].name, last, strlen(last)))
			fprintf(out, "%.*s%s=\n", (int)(last - word), word, tcp_keys[i].name);
}

/* set: `n` words stand behind it already. */
static void offer_set(FILE *out, const char *word, size_t n, const char *const *behind)
{
	for (size_t i = 0; i < TCP_KEYS; i++) {
		char candidate[64];

		snprintf(candidate, sizeof(candidate), "tcp.%s", tcp_keys[i].name);
		if (n == 0)
			offer(out, word, candidate);
		if (n != 1 || strcmp(behind[0], candidate) != 0)
			continue;
		for (const char *p = tcp_keys[i].words; *p; p += strspn(p, " ")) {
			snprintf(candidate, sizeof(candidate), "%.*s", (int)strcspn(p, " "), p);
			offer(out, word, candidate);
			p += strcspn(p, " ");
		}
	}
}

static void offer_states(FILE *out, const char *word)
{
	static const char *const states[] = { "established",  "syn-sent",   "syn-received",
					      "fin-wait-1",   "fin-wait-2", "close-wait",
					      "closing",      "last-ack",   "time-wait",
					      "closed",       "all",        "connected",
					      "synchronized", "bucket",     "big" };

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		offer(out, word, states[i]);
}

void help_complete(FILE *out, size_t n, const char *const *words)
{
	const char *const word = n ? words[n - 1] : "", *const last = n > 1 ? words[n - 2] : "";
	const char **const before = calloc(n + 1, sizeof(before[0]));
	const struct method_info *info = NULL;
	size_t before_n = 0, used;
	enum method m;

	if (!before)
		return;
	/* Options take no part in finding the command; ours with a value in the next word take that too. */
	for (size_t i = 0; i + 1 < n; i++) {
		const bool has_value = !strcmp(words[i], "-s") || !strcmp(words[i], "-o") ||
				       !strcmp(words[i], "--socket") ||
				       !strcmp(words[i], "--output") ||
				       !strcmp(words[i], "--timeout");

		if (words[i][0] != '-')
			before[before_n++] = words[i];
		i += has_value;
	}
	if (!method_by_words(before_n, before, &m, &used, NULL))
		info = method_get(m);
	if (!strcmp(last, "-o") || !strcmp(last, "--output"))
		for (size_t k = 0; k < OUTPUT__COUNT; k++)
			offer(out, word, output_kind_name((enum output_kind)k));
	else if (word[0] == '-')
		offer_options(out, word, info);
	else if (info && !strcmp(last, "--tcp"))
		offer_options_of_tcp(out, word);
	else if (info && m == METHOD_SET_TCP && last[0] != '-')
		offer_set(out, word, before_n - used, before + used);
	else if (info && (!strcmp(last, "state") || !strcmp(last, "exclude")))
		offer_states(out, word);
	else if (info)
		offer_values(out, word, info);
	else
		offer_commands(out, word, before_n, before);
	free(before);
}
