/*
 * idle: the program that is supervised. It is tiny and has no C library, so that
 * what is measured is the supervisor and the kernel.
 *
 *	idle SOCKET             tell of the start, then sleep until killed
 *	idle exit-at-once CODE  end
 *
 * The first form sends one datagram to the Unix socket SOCKET: its pid and
 * CLOCK_MONOTONIC in nanoseconds, two 64-bit numbers of the machine's order.
 * SIGTERM ends it at once, since nothing catches it.
 */
#include <linux/time_types.h>
#include <linux/un.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call begin\n hlt\n");

static long call(long n, long a, long b, long c, long d, long e, long f)
{
	long r;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x0, sp\n and sp, x0, #-16\n bl begin\n");

static long call(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}
#else
#error "idle.c knows the system calls of x86-64 and arm64 only"
#endif

static void leave(int code)
{
	for (;;)
		call(SYS_exit_group, code, 0, 0, 0, 0, 0);
}

static int number(const char *text)
{
	int n = 0;

	while (*text >= '0' && *text <= '9')
		n = n * 10 + (*text++ - '0');
	return n;
}

/* tell sends the datagram. A reader that is behind makes it wait, which costs
 * nothing to what was measured: the clock has been read. */
static void tell(const char *path)
{
	static struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct __kernel_timespec now;
	long long message[2];
	unsigned i;
	long fd;

	call(SYS_clock_gettime, 1 /* CLOCK_MONOTONIC */, (long)&now, 0, 0, 0, 0);
	message[0] = call(SYS_getpid, 0, 0, 0, 0, 0, 0);
	message[1] = now.tv_sec * 1000000000LL + now.tv_nsec;
	for (i = 0; path[i] && i < sizeof to.sun_path - 1; i++)
		to.sun_path[i] = path[i];
	fd = call(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, 0, 0, 0);
	if (call(SYS_sendto, fd, (long)message, sizeof message, MSG_NOSIGNAL, (long)&to, sizeof to) != sizeof message)
		leave(3);
	call(SYS_close, fd, 0, 0, 0, 0, 0);
}

void begin(long *stack)
{
	long argc = stack[0];
	char **argv = (char **)(stack + 1);

	if (argc == 3)
		leave(number(argv[2]));
	if (argc != 2)
		leave(2);
	tell(argv[1]);
	for (;;)
		call(SYS_ppoll, 0, 0, 0, 0, 0, 0);
}
