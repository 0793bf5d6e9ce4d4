// A process tree that does not want to end. Every process of it forks, double
// forks, leaves its session and its process group, renames itself, clears its
// environment by executing itself anew, becomes a subreaper, wakes others that
// were stopped, and ignores every signal it can, until about N of them live.
//
//   adversary FILE N SLEEP_US
//
// FILE is mapped by all of them, which is how a test finds survivors; its first
// word counts those ever born, its second those that live. SLEEP_US is the
// longest pause between deeds. The first process never ends by itself.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <stdio.h>
#include <time.h>

static struct shared { atomic_int born, living, first; } *shared;
static char **args;
static int limit, pause_us;

static int room(void) {
	if (atomic_load(&shared->living) >= limit) return 0;
	atomic_fetch_add(&shared->living, 1);
	atomic_fetch_add(&shared->born, 1);
	return 1;
}

static void reseed(void) {
	struct timespec now; // the pid alone would make one that executes itself anew do it for ever
	clock_gettime(CLOCK_MONOTONIC, &now);
	srand((unsigned)getpid() * 2654435761u ^ (unsigned)now.tv_nsec);
}

static void quit(void) {
	if (atomic_load(&shared->first) == getpid()) return;
	atomic_fetch_sub(&shared->living, 1);
	_exit(0);
}

static void spawn(int twice) {
	if (!room()) return;
	pid_t pid = fork();
	if (pid < 0) { atomic_fetch_sub(&shared->living, 1); return; }
	if (pid > 0) { if (twice) waitpid(pid, 0, 0); return; }
	if (twice) {
		setsid();
		if (fork() != 0) _exit(0); // the grandchild takes the place in the count
		for (int fd = 0; fd < 64; fd++) close(fd);
	}
	reseed();
}

static int crowded(void) { return atomic_load(&shared->living) * 10 >= limit * 9; }

static void deed(void) {
	int n = rand() % 100;
	char name[16];
	if (n < 35) spawn(0);
	else if (n < 55) spawn(1);
	else if (n < 60) setsid();
	else if (n < 65) setpgid(0, 0);
	else if (n < 70) { snprintf(name, sizeof name, "kworker/%d:%d", rand() % 4, rand() % 9); prctl(PR_SET_NAME, name); }
	else if (n < 74) { char *none[] = {0}; execve("/proc/self/exe", args, none); }
	else if (n < 76) prctl(PR_SET_CHILD_SUBREAPER, 1);
	else if (n < 81) prctl(PR_SET_DUMPABLE, rand() % 2);
	else if (n < 84) { kill(0, SIGCONT); kill(getppid(), SIGCONT); }
	else if (n < 85 && crowded()) raise(SIGSTOP);
	else if (n < 90 && crowded()) quit();
}

int main(int argc, char **argv) {
	if (argc != 4) return 2;
	args = argv;
	limit = atoi(argv[2]), pause_us = atoi(argv[3]);
	for (int sig = 1; sig <= 64; sig++) if (sig != SIGCHLD) signal(sig, SIG_IGN);
	signal(SIGCHLD, SIG_IGN); // no zombies
	int fd = open(argv[1], O_RDWR);
	if (fd < 0) return 3;
	shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED) return 4;
	close(fd);
	reseed();
	int none = 0;
	if (atomic_compare_exchange_strong(&shared->born, &none, 1)) atomic_store(&shared->first, getpid());
	for (;;) {
		deed();
		if (pause_us > 0) usleep(rand() % (crowded() ? pause_us : pause_us / 10 + 1)); // grow fast
	}
}
