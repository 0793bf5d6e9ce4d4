package proc

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Identity tells a process from any other of this boot, also from one that gets
// its pid later.
type Identity struct {
	PID   int
	Start uint64 // when it was started, in ticks since the boot
}

// Identify returns the identity of the process that has the pid now.
func Identify(pid int) (Identity, error) {
	st, err := readStat(pid)
	return Identity{PID: pid, Start: st.start}, err
}

// Look returns the process as it is now, and false if it is gone.
func (i Identity) Look() (Process, bool) {
	st, err := readStat(i.PID)
	if err != nil || st.start != i.Start {
		return Process{}, false
	}
	return Process{PID: i.PID, Name: st.comm, State: st.state}, true
}

// Ending reports whether the process has ended or is about to, because it was killed or
// its first thread ends. Until its last thread has ended it still holds what it holds.
func (i Identity) Ending() bool {
	status, err := slurp("/proc/" + strconv.Itoa(i.PID) + "/status") // first: a signal that is not pending any more shows in stat
	if err != nil || killPending(string(status)) {
		return true
	}
	st, err := readStat(i.PID)
	return err != nil || st.start != i.Start || st.ended() || st.exiting || st.headless
}

// killPending looks for SIGKILL in the text of /proc/PID/status.
func killPending(status string) bool {
	for line := range strings.Lines(status) {
		if key, set, _ := strings.Cut(line, ":"); key == "SigPnd" || key == "ShdPnd" {
			pending, _ := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			if pending&(1<<(unix.SIGKILL-1)) != 0 {
				return true
			}
		}
	}
	return false
}

// Kill kills the process if it still is called name, and no other.
func (i Identity) Kill(name string) error {
	fd, err := unix.PidfdOpen(i.PID, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if p, there := i.Look(); !there || p.Name != name { // what the pidfd holds, or nothing
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

// awaitTurn is how often Await looks whether it is still to wait.
const awaitTurn = 100 * time.Millisecond

// Await returns when the process has ended, which a zombie has, or with the error
// of ctx.
func (i Identity) Await(ctx context.Context) error {
	fd, err := unix.PidfdOpen(i.PID, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	if _, there := i.Look(); !there {
		return nil
	}
	for ctx.Err() == nil {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, int(awaitTurn/time.Millisecond))
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return nil
		}
	}
	return ctx.Err()
}
