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

// TakeTerminal puts pm itself back into the foreground of a terminal.
func TakeTerminal(tty *os.File) { giveTerminal(tty, unix.Getpgrp()) }

// giveTerminal puts a process group into the foreground. Whoever does this from
// the background gets SIGTTOU, unless the thread blocks it; ignoring it would be
// inherited by programs.
func giveTerminal(tty *os.File, pgrp int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var block, before unix.Sigset_t
	block.Val[0] = 1 << (unix.SIGTTOU - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &block, &before); err != nil {
		return
	}
	_ = unix.IoctlSetPointerInt(int(tty.Fd()), unix.TIOCSPGRP, pgrp)
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
}

// Suspend stops pm as a shell's job that holds a stopped program, and when it is
// resumed resumes the program: in the foreground if that is where pm now is. It
// returns after that. leader leads the program's process group.
func Suspend(tty *os.File, leader int) {
	TakeTerminal(tty)
	stopSelf()
	if InForeground(tty) {
		giveTerminal(tty, leader)
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
