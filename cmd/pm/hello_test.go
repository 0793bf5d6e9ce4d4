package main

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// A keeper that dies between the start of a worker and its first word to that is
// replaced by the worker, which knows nothing yet: whether it was the first, or
// there are programs.
func TestKeeperDiesBeforeItsFirstWord(t *testing.T) {
	c := newChaos(t, 1)
	c.startOrphan()
	before := c.settle()
	c.blind = true
	for len(c.daemon(keeper))+len(c.daemon(worker)) > 0 {
		for _, r := range []role{keeper, worker} {
			c.strike(r, unix.SIGKILL)
		}
	}
	c.startOrphan()
	after := c.settle()
	for n, i := range before.Instances {
		if j := after.Instances[n]; i.Program == "steady" && (i.PID != j.PID || i.Task.ID != j.Task.ID) {
			t.Errorf("%s was process %d, task %s, and is process %d, task %s", i.Name, i.PID, i.Task.ID, j.PID, j.Task.ID)
		}
	}
	c.check(after)
	c.end()
}

// startOrphan starts a worker whose keeper is dead.
func (c *chaos) startOrphan() {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	_ = unix.Close(pair[0])
	own := os.NewFile(uintptr(pair[1]), "worker")
	defer func() { _ = own.Close() }()
	cmd := exec.Command("sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec pm daemon -c "$1" --log "$2"`, "sh", c.config, c.dir+"/log")
	cmd.Dir, cmd.Env, cmd.ExtraFiles = c.dir, append(c.env, "PM_WORKER=1"), []*os.File{own}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }() // ends with the daemon
}
