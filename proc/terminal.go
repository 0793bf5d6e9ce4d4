package proc

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// InForeground reports whether f is a terminal and pm is in its foreground
// process group.
func InForeground(f *os.File) bool {
	pgrp, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}

// TakeTerminal puts pm itself back into the foreground of a terminal. The
// caller ignores SIGTTOU, which the kernel sends to whoever does this from the
// background.
func TakeTerminal(tty *os.File) {
	_ = unix.IoctlSetPointerInt(int(tty.Fd()), unix.TIOCSPGRP, unix.Getpgrp())
}

// Suspend stops pm as a shell's job that holds a stopped program, and when it is
// resumed resumes the program: in the foreground if that is where pm now is. It
// returns after that. leader leads the program's process group.
func Suspend(tty *os.File, leader int) {
	TakeTerminal(tty)
	stopSelf()
	if InForeground(tty) {
		_ = unix.IoctlSetPointerInt(int(tty.Fd()), unix.TIOCSPGRP, leader)
	}
	_ = unix.Kill(-leader, unix.SIGCONT)
}

// stopSelf stops this process. The signal goes to the calling thread, so that
// the stop has begun when the call returns; sent to the process, another thread
// may take it later.
func stopSelf() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
}
