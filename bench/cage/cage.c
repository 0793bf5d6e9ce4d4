/*
 * cage: the least that ends a process tree for certain, as fast as C makes it.
 *
 *	cage DIR CMD ARG...
 *
 * It runs CMD in the new cgroup DIR. At SIGTERM it kills all in it with one
 * write, waits until the kernel says that nobody is left, and ends.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *doing)
{
	perror(doing);
	exit(1);
}

/* put writes text to a file of the cgroup. */
static void put(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(name);
	close(fd);
}

int main(int argc, char **argv)
{
	struct pollfd events = {.events = POLLPRI};
	char text[256];
	sigset_t term;
	int sig;

	if (argc < 3)
		return 2;
	if (mkdir(argv[1], 0755) < 0 || chdir(argv[1]) < 0)
		die(argv[1]);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGCHLD, SIG_IGN); /* nobody becomes a zombie */
	if (fork() == 0) {
		sigprocmask(SIG_UNBLOCK, &term, NULL);
		put("cgroup.procs", "0");
		execv(argv[2], argv + 2);
		die(argv[2]);
	}
	sigwait(&term, &sig);
	events.fd = open("cgroup.events", O_RDONLY | O_CLOEXEC);
	put("cgroup.kill", "1");
	for (;;) {
		int n = pread(events.fd, text, sizeof text - 1, 0);

		text[n > 0 ? n : 0] = 0;
		if (n < 0 || strstr(text, "populated 0"))
			break;
		poll(&events, 1, 100); /* the kernel tells of each change */
	}
	while (chdir("/") < 0 || rmdir(argv[1]) < 0)
		usleep(100);
	return 0;
}
