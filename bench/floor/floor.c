/*
 * floor: the least that can be called a supervisor, as fast as C makes it.
 *
 *	floor N CMD ARG...
 *
 * It runs N copies of CMD (a path), each in a session of its own with /dev/null
 * as its three streams, and starts at once what dies. SIGTERM goes to all; floor
 * waits for them and ends. At its end it says on stderr how many it has started.
 *
 * It has no configuration, policy, output, log, state or control, kills nobody
 * who will not go, and knows its programs by their pids alone. What a
 * supervisor takes beyond its time is the price of those.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_SLOTS = 1 << 20, MAX_PID = 1 << 22 }; /* PID_MAX_LIMIT of Linux */

static volatile pid_t pids[MAX_SLOTS]; /* 0: nobody */
static int slot_of[MAX_PID];           /* only what is used takes memory */
static volatile sig_atomic_t stopping;
static int slots;
static unsigned long started;
static char **command;
static sigset_t term, nothing;

/* The handler does all of the work, so that no signal is lost between a look at
 * a flag and wait4. It never meets a half-written table: SIGTERM is blocked
 * around each start. */
static void on_term(int sig)
{
	int saved = errno;

	stopping = 1;
	for (int i = 0; i < slots; i++)
		if (pids[i] > 0)
			kill(pids[i], sig);
	errno = saved;
}

static void die(const char *doing)
{
	fprintf(stderr, "floor: cannot %s: %s\n", doing, strerror(errno));
	exit(1);
}

/* start is not inlined: after a vfork the child shares this frame. */
static __attribute__((noinline)) void start(int slot)
{
	static volatile int failed;
	pid_t pid;

	failed = 0;
	pid = vfork();
	if (pid == 0) {
		setsid();
		signal(SIGTERM, SIG_DFL); /* before it is unblocked: the handler is floor's */
		sigprocmask(SIG_SETMASK, &nothing, NULL);
		execve(command[0], command, environ);
		failed = errno;
		_exit(127);
	}
	if (pid > 0 && !failed) {
		pids[slot] = pid;
		slot_of[pid] = slot;
		started++;
		return;
	}
	if (failed)
		errno = failed;
	fprintf(stderr, "floor: cannot start %s: %s\n", command[0], strerror(errno));
	on_term(SIGTERM);
}

static void start_unless_stopping(int slot)
{
	sigprocmask(SIG_BLOCK, &term, NULL);
	if (!stopping)
		start(slot);
	sigprocmask(SIG_UNBLOCK, &term, NULL);
}

/* The programs get /dev/null by inheritance, and nothing else: stderr is moved
 * to a descriptor that closes at execve. */
static void set_streams(void)
{
	int messages = fcntl(2, F_DUPFD_CLOEXEC, 3);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (messages < 0 || null < 0)
		die("open /dev/null");
	for (int fd = 0; fd < 3; fd++)
		if (dup2(null, fd) < 0)
			die("use /dev/null");
	stderr = fdopen(messages, "w");
	if (stderr == NULL)
		_exit(1);
	setvbuf(stderr, NULL, _IOLBF, 0);
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_term};
	char *end;

	if (argc < 3 || (slots = strtol(argv[1], &end, 10)) < 1 || *end || slots > MAX_SLOTS) {
		fprintf(stderr, "usage: floor N CMD [ARG]...\n");
		return 2;
	}
	command = argv + 2;
	set_streams();
	sigemptyset(&nothing);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigaction(SIGTERM, &action, NULL);
	for (int i = 0; i < slots; i++)
		start_unless_stopping(i);
	for (;;) {
		pid_t pid = wait4(-1, NULL, 0, NULL);
		if (pid < 0) {
			if (errno == EINTR)
				continue;
			break; /* ECHILD: nobody is left */
		}
		int slot = slot_of[pid];
		if (pids[slot] != pid)
			continue; /* one whose execve failed */
		pids[slot] = 0;
		start_unless_stopping(slot);
	}
	fprintf(stderr, "started %lu\n", started);
	return 0;
}
