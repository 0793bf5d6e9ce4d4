/*
 * copy: the least that can be said to keep what a program prints.
 *
 *	copy FILE CMD ARG...
 *
 * It runs CMD (a path) with a pipe as its standard output and copies what comes,
 * 64 KiB at a time, to the end of FILE, which it empties when that holds 64 MiB: so
 * a disk and its cache have no more to do than for one who rotates. SIGTERM ends
 * both. It looks at nothing, knows no lines, and loses what it holds when it is killed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCK = 64 << 10, FULL = 64 << 20 };

static volatile pid_t child;

static void on_term(int sig)
{
	if (child > 0)
		kill(child, sig);
}

static void die(const char *doing)
{
	fprintf(stderr, "copy: cannot %s: %s\n", doing, strerror(errno));
	if (child > 0)
		kill(child, SIGKILL);
	exit(1);
}

static void append(int file, const char *data, ssize_t size)
{
	for (ssize_t n; size > 0; data += n, size -= n)
		if ((n = write(file, data, size)) < 0)
			die("write");
}

int main(int argc, char **argv)
{
	static char block[BLOCK];
	struct sigaction action = {.sa_handler = on_term, .sa_flags = SA_RESTART};
	long held = 0;
	int file, ends[2];
	ssize_t n;

	if (argc < 3) {
		fprintf(stderr, "usage: copy FILE CMD [ARG]...\n");
		return 2;
	}
	if ((file = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0 || pipe(ends) < 0)
		die("open the file");
	if ((child = fork()) == 0) {
		dup2(ends[1], 1);
		close(ends[0]);
		close(ends[1]);
		execv(argv[2], argv + 2);
		_exit(127);
	}
	close(ends[1]);
	sigaction(SIGTERM, &action, NULL);
	while ((n = read(ends[0], block, BLOCK)) > 0) {
		if ((held += n) > FULL) {
			if (ftruncate(file, 0) < 0)
				die("empty the file");
			held = n;
		}
		append(file, block, n);
	}
	waitpid(child, NULL, 0);
	return 0;
}
