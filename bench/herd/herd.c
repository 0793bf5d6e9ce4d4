/*
 * herd: a tree of processes that do nothing.
 *
 *	herd N
 *
 * Process i of the N has the children 10i+1 to 10i+10, so that the tree is broad
 * and deep. The first one says "ready" on stdout when all live.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FAN = 10 };

int main(int argc, char **argv)
{
	int n = argc == 2 ? atoi(argv[1]) : 0, self = 0;
	atomic_int *living = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (n < 1 || living == MAP_FAILED)
		return 2;
	for (int i = 1; i <= FAN && FAN * self + i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (pid == 0) {
			self = FAN * self + i;
			i = 0;
		}
	}
	atomic_fetch_add(living, 1);
	if (self == 0) {
		while (atomic_load(living) < n)
			sched_yield();
		puts("ready");
		fflush(stdout);
	}
	for (;;)
		pause();
}
