package proc

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Attendant is a process that a keeper has started for itself: a part of pm,
// which is no task, not tagged and not looked after.
type Attendant struct {
	PID   int
	Ended <-chan Status // one status, when it has ended
	pidfd int
}

// Attend starts an attendant.
func (k *Keeper) Attend(c *Command) (*Attendant, error) {
	s, err := newSlots(k)
	if err != nil {
		return nil, err
	}
	defer s.close()
	k.mu.Lock()
	k.spawning++ // its end may come before it is written down
	k.mu.Unlock()
	out, failed, fail := s.spawn(c, 0, "", nil)
	wake(k.children)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.launched()
	if fail != nil {
		k.discard(failed)
		return nil, fail
	}
	ended := make(chan Status, 1)
	if d, done := k.unclaimed[out.pid]; done {
		delete(k.unclaimed, out.pid)
		ended <- d.status
	} else {
		k.attended[out.pid] = ended
	}
	fd, err := unix.PidfdOpen(out.pid, 0)
	if err != nil { // it has ended and is reaped
		fd = -1
	}
	return &Attendant{PID: out.pid, Ended: ended, pidfd: fd}, nil
}

// Signal sends a signal; the error is ESRCH if the attendant has ended.
func (a *Attendant) Signal(sig syscall.Signal) error {
	if a.pidfd < 0 {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(a.pidfd, sig, nil, 0)
}

// Close lets go of the process.
func (a *Attendant) Close() { _ = unix.Close(a.pidfd) }
