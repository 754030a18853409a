/* SPDX-License-Identifier: Apache-2.0 */
/* tcpfsmctl: asks a running tcpfsmd. The command line is parsed before anything is connected to. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl/arguments.h"
#include "ctl/help.h"
#include "ctl/output.h"
#include "ctl/run.h"
#include "ctl/stream.h"
#include "proto/proto.h"

enum { PAGE_MAX = 1000, END_POLLS = 20, END_POLL_NS = 50000000 };

/* One run: what was asked for, and whom. */
struct run {
	struct arguments args;
	enum method method;
	json_t *params; /* owned */
	char *path; /* of the socket; owned */
	struct proto_client *client; /* owned */
};

__attribute__((format(printf, 2, 3))) static int complain(int exit_code, const char *fmt, ...)
{
	va_list ap;

	/* What was written before stands before, also when both go to one file. */
	fflush(stdout);
	fputs("tcpfsmctl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return exit_code;
}

static int complain_usage(const struct proto_err *err)
{
	return complain(EXIT_USAGE, "%s", err->text);
}

/* Replaces control.sock at the path's end by observe.sock. False: the path ends otherwise. */
static bool path_to_observe(char *path)
{
	char *const name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;

	if (strcmp(name, "control.sock") != 0)
		return false;
	memcpy(name, "observe.sock", sizeof("observe.sock"));
	return true;
}

static int open_client(struct run *r)
{
	int rc;

	r->path = proto_socket_path(r->args.socket);
	if (!r->path)
		return complain(EXIT_REFUSED, "out of memory");
	rc = proto_client_new(r->path, &r->client);
	if (rc == -EACCES && method_get(r->method)->level == LEVEL_OBSERVE &&
	    path_to_observe(r->path))
		rc = proto_client_new(r->path, &r->client);
	if (!rc)
		return EXIT_OK;
	if (rc == -EACCES || rc == -EPERM)
		return complain(EXIT_PERMISSION, "%s: %s (be root, or in the socket's group)",
				r->path, strerror(-rc));
	if (rc == -EAGAIN || rc == -EINPROGRESS)
		return complain(EXIT_TIMED_OUT, "%s: the daemon accepts no connection in time",
				r->path);
	return complain(EXIT_NO_DAEMON,
			"no tcpfsmd at %s: %s (is it running? systemctl start tcpfsmd)", r->path,
			strerror(-rc));
}

/* One call; on failure the message is written, and the exit code returned. */
static int ask(struct run *r, json_t *params_stolen, json_t **ret_result, int *ret_fd)
{
	struct proto_err err = { .code = PROTO_INTERNAL_ERROR, .text = "no answer" };
	const uint64_t timeout_us = r->method == METHOD_CONNECT && !r->args.timeout_set
					    ? 0
					    : r->args.timeout_us;
	const int rc = proto_call(r->client, r->method, params_stolen, timeout_us, ret_result,
				  ret_fd, &err);
	const char *address;

	if (!rc)
		return EXIT_OK;
	if (rc == -EPIPE)
		return complain(EXIT_NO_DAEMON, "%s: %s", r->path, err.text);
	/* Who reads it should see at once which peer was meant, whatever the daemon's words are. */
	address = proto_param_text(r->params, "address", "");
	if (r->method == METHOD_CONNECT && !strstr(err.text, address))
		return complain(proto_error_exit(err.code), "connect %s: %s", address, err.text);
	if (r->method == METHOD_CONNECT && !strncmp(err.text, address, strlen(address)))
		return complain(proto_error_exit(err.code), "connect %s", err.text);
	return complain(proto_error_exit(err.code), "%s", err.text);
}

static int finish_output(struct output *o)
{
	const int rc = output_end(o);

	return rc ? complain(EXIT_REFUSED, "standard output: %s", strerror(-rc)) : EXIT_OK;
}

static int run_simple(struct run *r)
{
	json_t *result;
	struct output *o;
	const int code = ask(r, json_incref(r->params), &result, NULL);

	if (code)
		return code;
	o = output_new(r->args.output, r->method, stdout);
	if (!o) {
		json_decref(result);
		return complain(EXIT_REFUSED, "out of memory");
	}
	output_page(o, result);
	json_decref(result);
	return finish_output(o);
}

/* The next page's params: as asked, but with `after` and no more than a page. */
static json_t *page_params(const struct run *r, uint64_t left, const char *after)
{
	json_t *const params = json_copy(r->params);

	json_object_set_new(params, "limit", proto_number(left < PAGE_MAX ? left : PAGE_MAX));
	if (after)
		json_object_set_new(params, "after", json_string(after));
	return params;
}

/* All pages, or as many as --limit wants. */
static int run_list_connections(struct run *r)
{
	uint64_t left = proto_param_number(r->params, "limit", UINT64_MAX);
	struct output *const o = output_new(r->args.output, r->method, stdout);
	json_t *result = NULL;
	int code = o ? EXIT_OK : complain(EXIT_REFUSED, "out of memory");

	while (!code) {
		const char *const after = json_string_value(json_object_get(result, "next"));
		json_t *const params = page_params(r, left, after);
		size_t n;

		json_decref(result);
		result = NULL;
		code = ask(r, params, &result, NULL);
		if (code)
			break;
		output_page(o, result);
		n = json_array_size(json_object_get(result, "connections"));
		left -= n < left ? n : left;
		if (!left || !json_is_string(json_object_get(result, "next")))
			break;
	}
	json_decref(result);
	if (!code)
		return finish_output(o);
	if (o)
		output_end(o);
	return code;
}

static int exit_of_reason(const char *reason)
{
	if (!strcmp(reason, "normal") || !strcmp(reason, "none"))
		return EXIT_OK;
	if (!strcmp(reason, "user_timeout") || !strcmp(reason, "handshake_timeout") ||
	    !strcmp(reason, "fin_wait_2_timeout"))
		return EXIT_TIMED_OUT;
	return EXIT_REFUSED;
}

/* Asks, for up to a second, how the connection ended. True: `result` tells; false: it is not known. */
static bool wait_end(struct run *r, json_int_t id, json_t **ret_result)
{
	for (int i = 0; i < END_POLLS; i++) {
		const struct timespec pause = { .tv_nsec = END_POLL_NS };
		json_t *result;
		const char *state;

		if (i)
			nanosleep(&pause, NULL);
		if (proto_call(r->client, METHOD_SHOW_CONNECTION, json_pack("{s:I}", "id", id),
			       UINT64_C(1000000), &result, NULL, NULL))
			return false;
		state = json_string_value(json_object_get(result, "state"));
		if (state && (!strcmp(state, "closed") || !strcmp(state, "time_wait"))) {
			*ret_result = result;
			return true;
		}
		json_decref(result);
	}
	return false;
}

/* After the octets: did it end as it should? */
static int tell_end(struct run *r, const json_t *opened, const struct stream_result *copied)
{
	const json_int_t id = json_integer_value(json_object_get(opened, "id"));
	const char *const remote = proto_param_text(opened, "remote", "the peer");
	json_t *result = NULL;
	int code = EXIT_OK;

	if (copied->output_error)
		return complain(EXIT_REFUSED, "standard output: %s",
				strerror(copied->output_error));
	if (wait_end(r, id, &result)) {
		const char *const reason = proto_param_text(result, "end_reason", "none");

		code = exit_of_reason(reason);
		if (code)
			complain(code, "connection %" JSON_INTEGER_FORMAT " to %s: %s", id, remote,
				 proto_param_text(result, "end_text", reason));
		json_decref(result);
	}
	if (!code && copied->unsent)
		code = complain(EXIT_REFUSED,
				"connection %" JSON_INTEGER_FORMAT
				" to %s: it ended before all input was sent",
				id, remote);
	return code;
}

/* connect: with a descriptor, which carries standard input and output. */
static int run_stream(struct run *r)
{
	struct stream_result copied = { .unsent = false };
	json_t *opened = NULL;
	int fd = -1, rc, code;

	json_object_set_new(r->params, "stream", json_true());
	code = ask(r, json_incref(r->params), &opened, &fd);
	if (code)
		return code;
	if (fd < 0) {
		json_decref(opened);
		return complain(EXIT_REFUSED, "%s: the daemon sent no descriptor with its answer",
				r->path);
	}
	if (isatty(STDERR_FILENO))
		complain(0, "connection %" JSON_INTEGER_FORMAT ": %s to %s",
			 json_integer_value(json_object_get(opened, "id")),
			 proto_param_text(opened, "local", "?"),
			 proto_param_text(opened, "remote", "?"));
	signal(SIGPIPE, SIG_IGN);
	rc = stream_copy(fd, STDIN_FILENO, STDOUT_FILENO, &copied);
	close(fd);
	code = rc ? complain(EXIT_REFUSED, "copying: %s", strerror(-rc))
		  : tell_end(r, opened, &copied);
	json_decref(opened);
	return code;
}

static int run_method(struct run *r)
{
	const int code = open_client(r);

	if (code)
		return code;
	if (r->method == METHOD_LIST_CONNECTIONS)
		return run_list_connections(r);
	if (r->method == METHOD_CONNECT &&
	    (r->args.output == OUTPUT_TABLE || proto_param_true(r->params, "stream")))
		return run_stream(r);
	return run_simple(r);
}

/* --help, --version and `help`, which need no daemon. True: that was it. */
static bool run_local(const struct arguments *a, int *ret_code)
{
	const bool help_word = a->words_n && !strcmp(a->words[0], "help");
	struct proto_err err;

	*ret_code = EXIT_OK;
	if (a->version) {
		printf("tcpfsmctl %s\n", TCPFSM_VERSION);
		return true;
	}
	if (!a->help && !(help_word && a->output == OUTPUT_TABLE))
		return false;
	if (help_words(stdout, a->words_n - help_word, a->words + help_word, &err))
		*ret_code = complain_usage(&err);
	return true;
}

int main(int argc, char **argv)
{
	struct run r = { .params = NULL };
	struct proto_err err;
	int code;

	if (argc > 1 && !strcmp(argv[1], "--complete")) {
		help_complete(stdout, (size_t)argc - 2, (const char *const *)argv + 2);
		return EXIT_OK;
	}
	if (run_program(argc, argv, &code))
		return code;
	if (arguments_parse(argc, argv, &r.args, &err))
		return complain_usage(&err);
	if (!run_local(&r.args, &code)) {
		if (!r.args.words_n) {
			help_all(stderr);
			code = EXIT_USAGE;
		} else if (proto_parse_words(r.args.words_n, r.args.words, &r.method, &r.params,
					     &err)) {
			code = complain_usage(&err);
		} else {
			code = run_method(&r);
		}
	}
	json_decref(r.params);
	proto_client_free(r.client);
	free(r.path);
	arguments_fini(&r.args);
	return code;
}
