/*
 * print: a program that prints much.
 *
 *	print SOCKET MEBIBYTES
 *
 * It tells of its start as idle does, prints so many MiB of lines of 200 bytes,
 * about 64 KiB with each write, waits until they were read, tells that as it did of
 * its start, and sleeps until it is killed.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 200, LINES = 327 };

static void tell(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct timespec now;
	long long message[2];
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	clock_gettime(CLOCK_MONOTONIC, &now);
	message[0] = getpid();
	message[1] = now.tv_sec * 1000000000LL + now.tv_nsec;
	strncpy(to.sun_path, path, sizeof to.sun_path - 1);
	if (sendto(fd, message, sizeof message, MSG_NOSIGNAL, (struct sockaddr *)&to, sizeof to) != sizeof message)
		exit(3);
	close(fd);
}

static void print(long long left)
{
	static char block[LINE * LINES];

	memset(block, 'x', sizeof block);
	for (int i = 1; i <= LINES; i++)
		block[i * LINE - 1] = '\n';
	while (left > 0) {
		for (size_t at = 0; at < sizeof block;) {
			ssize_t n = write(1, block + at, sizeof block - at);
			if (n < 0)
				exit(4);
			at += n;
		}
		left -= sizeof block;
	}
}

int main(int argc, char **argv)
{
	struct timespec tick = {.tv_nsec = 1000000};
	int held = 0;

	if (argc != 3)
		return 2;
	tell(argv[1]);
	print(atoll(argv[2]) << 20);
	while (ioctl(1, FIONREAD, &held) == 0 && held > 0)
		nanosleep(&tick, NULL);
	tell(argv[1]);
	for (;;)
		pause();
}
