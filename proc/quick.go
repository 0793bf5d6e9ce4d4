package proc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls here never block, so the scheduler of Go is not told of them: when it is,
// and a call takes longer than some 20 µs, as the end of a process does, it gives the
// processor of the thread to another and takes a signal and four switches to sort that
// out. That is a fifth of the time from a death to the next launch.

// collect is wait4(2) with WNOHANG for one child: its status, and whether there was
// one.
func collect(pid, options int) (status unix.WaitStatus, ok bool) {
	got, _, errno := unix.RawSyscall6(unix.SYS_WAIT4, uintptr(pid), uintptr(unsafe.Pointer(&status)), uintptr(unix.WNOHANG|options), 0, 0, 0)
	return status, errno == 0 && int(got) == pid
}

// stopped reports whether a child is stopped by a signal, or if that cannot be told.
// One that has ended is not.
func stopped(pid int) bool {
	var info unix.Siginfo
	_, _, errno := unix.RawSyscall6(unix.SYS_WAITID, unix.P_PID, uintptr(pid), uintptr(unsafe.Pointer(&info)), unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
	return errno != 0 && errno != unix.ECHILD || info.Signo != 0
}
