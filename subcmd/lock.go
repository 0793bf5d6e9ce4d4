package subcmd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"pm.example/proc"
	"pm.example/socket"
)

// lockStateDir makes the state directory this daemon's own until the returned
// file is closed: a second daemon on it is refused. The lock is the kernel's,
// so it ends with the process however that ends, and no program inherits it.
func lockStateDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the state directory: %w (name another with --state-dir)", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot use the state directory: %w", err)
	}
	if err := flock(f); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		return nil, &socket.Problem{
			Message: fmt.Sprintf("another daemon uses the state directory %s%s", dir, holder(f)),
			Hint:    "control it with pm --socket, or give this one its own with --state-dir and --socket",
			Code:    socket.CodeUsage,
		}
	}
	return f, nil
}

// Waits for a lock whose holder is about to be gone.
const (
	lockPatience = 10 * time.Second
	lockPause    = 10 * time.Millisecond
)

// flock takes a lock, or returns EWOULDBLOCK if another daemon has it. One that
// was killed a moment ago may hold it a little longer: its threads end one by one.
func flock(f *os.File) (err error) {
	for until := time.Now().Add(lockPatience); ; time.Sleep(lockPause) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		keeper, worker := holders(f)
		late := time.Now().After(until)
		if !keeper.Ending() {
			return err
		}
		if name, is := stuck(worker, late); is {
			_ = worker.Kill(name) // what fails is tried again, or told as the lock
		} else if late {
			return err
		}
	}
}

// stuck reports whether a worker without a keeper is stopped or late, and what it is
// called: it has not noticed that it is the keeper's heir, or has not begun to be it.
// Nobody needs it any more; it only keeps others from taking over the programs.
func stuck(worker proc.Identity, late bool) (name string, is bool) {
	p, there := worker.Look()
	known := p.Name == workerName || p.Name == heirName
	return p.Name, there && known && (p.State == 'T' || p.State == 't' || late && p.State != 'Z' && p.State != 'X')
}

// What process lists call the processes of a daemon.
const (
	keeperName = "pm"
	workerName = "pm-worker"
	heirName   = "exe" // a worker that has become the keeper, by /proc/self/exe, until it has the name of one
)

// holderForm is how a lock file names the keeper and the worker: of one length,
// so that no half of it is ever read.
const holderForm = "%-10d %-20d\n%-10d %-20d\n"

// nameHolder writes the keeper and this worker into the lock file, for people and
// for those who are refused.
func nameHolder(lock *os.File) error {
	keeper, err := proc.Identify(os.Getppid())
	if err != nil {
		return err
	}
	worker, err := proc.Identify(os.Getpid())
	if err != nil {
		return err
	}
	_, err = lock.WriteAt(fmt.Appendf(nil, holderForm, keeper.PID, keeper.Start, worker.PID, worker.Start), 0)
	return err
}

// holders returns the keeper and the worker that a lock file names. What it does
// not name is a process that never was.
func holders(f *os.File) (keeper, worker proc.Identity) {
	var buf [128]byte
	n, _ := f.ReadAt(buf[:], 0)
	_, _ = fmt.Sscanf(string(buf[:n]), "%d %d\n%d %d\n", &keeper.PID, &keeper.Start, &worker.PID, &worker.Start)
	return keeper, worker
}

// holder tells who a lock file names.
func holder(f *os.File) string {
	if keeper, _ := holders(f); keeper.PID != 0 {
		return fmt.Sprintf(" (pid %d)", keeper.PID)
	}
	return ""
}
