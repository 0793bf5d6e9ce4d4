package proc

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// InForeground reports whether f is a terminal and pm is in its foreground
// process group.
func InForeground(f *os.File) bool {
	pgrp, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}

// OnTerminal reports whether f is pm's controlling terminal.
func OnTerminal(f *os.File) bool {
	_, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCGPGRP)
	return err == nil
}

// LeadsJob reports whether pm leads its process group: a shell with job control
// has made it for pm, and perhaps for others that pm is piped to.
func LeadsJob() bool { return unix.Getpgrp() == os.Getpid() }

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
	Resume(tty, leader)
}

// Resume resumes the program whose process group leader leads, in the foreground
// if that is where pm now is: in this order, since a program that goes on before
// it has the terminal is stopped by its first read.
func Resume(tty *os.File, leader int) {
	if InForeground(tty) {
		giveTerminal(tty, leader)
	}
	_ = unix.Kill(-leader, unix.SIGCONT)
}

// Pause stops pm if the program that leader leads is stopped, as by Ctrl-Z, and
// shares pm's process group: the shell then sees all of its job stopped. It
// returns when the shell has resumed them.
func Pause(leader int) {
	if st, err := readStat(leader); err == nil && st.state == 'T' {
		stopSelf()
	}
}

// Die ends pm as the signal's default action does, so that a shell that runs a
// script sees that its command was interrupted, and does not go on with the next.
func Die(sig syscall.Signal) {
	signal.Reset(sig)
	_ = unix.Kill(os.Getpid(), sig)
	select {} // until it arrives
}

// stopSelf stops this process. The signal goes to the calling thread, so that
// the stop has begun when the call returns; sent to the process, another thread
// may take it later.
func stopSelf() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
}
