/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a corpus without libFuzzer, so that the normal test run covers it with any compiler.
 *
 * usage: replay_NAME FILE|DIRECTORY...
 */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned played;
static const char *playing = "";

static void replay_file(const char *path)
{
	FILE *const f = fopen(path, "rb");
	size_t n = 0, cap = 4096;
	uint8_t *data = malloc(cap);

	playing = path;
	if (!f || !data) {
		fprintf(stderr, "%s cannot be read\n", path);
		exit(1);
	}
	for (size_t got; (got = fread(data + n, 1, cap - n, f)) > 0;) {
		n += got;
		if (n < cap)
			continue;
		data = realloc(data, cap *= 2);
		if (!data)
			exit(1);
	}
	fclose(f);
	/* In a block of its own size, so that reading beyond its end is seen by the sanitizer. */
	uint8_t *const exact = malloc(n ? n : 1);

	if (!exact)
		exit(1);
	memcpy(exact, data, n);
	LLVMFuzzerTestOneInput(exact, n);
	free(exact);
	free(data);
	played++;
}

static int not_hidden(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static void replay(const char *path)
{
	struct stat st;
	struct dirent **names;
	char *file;

	if (stat(path, &st)) {
		fprintf(stderr, "%s does not exist\n", path);
		exit(1);
	}
	if (!S_ISDIR(st.st_mode)) {
		replay_file(path);
		return;
	}
	const int n = scandir(path, &names, not_hidden, alphasort);

	for (int i = 0; i < n; i++) {
		if (asprintf(&file, "%s/%s", path, names[i]->d_name) < 0)
			exit(1);
		replay(file);
		free(file);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

/* An assertion that fails names the input that did it. */
static void on_abort(int sig)
{
	const struct iovec parts[] = {
		{ (void *)(uintptr_t) "while playing ", 14 },
		{ (void *)(uintptr_t)playing, strlen(playing) },
		{ (void *)(uintptr_t) "\n", 1 },
	};
	const ssize_t n = writev(STDERR_FILENO, parts, 3);

	(void)n;
	signal(sig, SIG_DFL);
	raise(sig);
}

int main(int argc, char **argv)
{
	signal(SIGABRT, on_abort);
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	if (!played) {
		fprintf(stderr, "usage: %s FILE|DIRECTORY...; there was no input\n", argv[0]);
		return 1;
	}
	printf("%u inputs\n", played);
	return 0;
}
