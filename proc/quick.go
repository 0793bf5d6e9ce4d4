package proc

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Calls of waitid(2). Those that never block are not told to the scheduler of Go: when
// it is, and a call takes longer than some 20 µs, as the end of a process does, it gives
// the processor of the thread to another and takes a signal and four switches to sort
// that out. That is a fifth of the time from a death to the next launch.

// change is what has become of a child.
type change struct {
	pid     int
	status  Status // how it has ended; or the signal that has stopped it
	stopped bool
}

// childInfo is siginfo_t on 64-bit Linux as it tells of a child; sigaction(2).
type childInfo struct {
	signo, errno, code, _ int32
	pid, uid, status      int32
	_                     [100]byte
}

// What code says; sigaction(2).
const (
	childExited  = 1 // CLD_EXITED
	childDumped  = 3 // CLD_DUMPED
	childStopped = 5 // CLD_STOPPED
)

func (i *childInfo) change() change {
	c := change{pid: int(i.pid), stopped: i.code == childStopped}
	if i.code == childExited {
		c.status.Code = int(i.status)
	} else {
		c.status = Status{Code: -1, Signal: syscall.Signal(i.status), Core: i.code == childDumped}
	}
	return c
}

// peek waits until a child has ended, or with WUNTRACED been stopped, and leaves
// it as it is: a zombie still has its tag.
func peek(waits int) (change, error) {
	var info childInfo
	err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOWAIT|waits, nil)
	return info.change(), err
}

// collect takes the end of a child (WEXITED), which reaps it, or its stop (WSTOPPED).
func collect(pid int, what uintptr) {
	_, _, _ = unix.RawSyscall6(unix.SYS_WAITID, unix.P_PID, uintptr(pid), 0, what|unix.WNOHANG, 0, 0)
}

// stopped reports whether a child is stopped by a signal, or if that cannot be told.
// One that has ended is not.
func stopped(pid int) bool {
	var info childInfo
	_, _, errno := unix.RawSyscall6(unix.SYS_WAITID, unix.P_PID, uintptr(pid), uintptr(unsafe.Pointer(&info)), unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
	return errno != 0 && errno != unix.ECHILD || info.signo != 0
}
