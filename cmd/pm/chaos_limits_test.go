package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// shortage is a moment in which the daemon lacks something.
type shortage string

const (
	noDisk      shortage = "room on the disk"
	noFiles     shortage = "descriptors"
	noProcesses shortage = "processes"
)

// shorten makes something scarce for a moment, where the machine lets the test do
// so; elsewhere it is one more command.
func (c *chaos) shorten() step {
	what := pick(c.random, noDisk, noFiles, noProcesses)
	moment := time.Duration(c.random.IntN(200)) * time.Millisecond
	spare := c.random.IntN(8)
	begin := map[shortage]func(spare int) (end func(), err error){
		noDisk: c.fillDisk, noFiles: c.limitFiles, noProcesses: c.limitProcesses,
	}[what]
	if what == noDisk && !c.smallDisk || what == noProcesses && c.crowd == "" {
		return c.command()
	}
	return step{fmt.Sprintf("no %s for %s", what, moment), func() {
		c.mu.Lock()
		c.lacked[what] = true
		c.mu.Unlock()
		end, err := begin(spare)
		if err != nil {
			c.t.Errorf("cannot take away %s: %v", what, err)
			return
		}
		<-time.After(moment)
		end()
		c.did("%s again", what)
	}}
}

// mountSmallDisk gives the state directory a disk of its own that can be filled.
func (c *chaos) mountSmallDisk() {
	dir := filepath.Join(c.dir, "state")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		c.t.Logf("the disk is never full: %v", err)
		return
	}
	c.smallDisk = true
	c.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// fillDisk leaves no page of the daemon's disk. What is spare does not matter: a
// file has a page or not.
func (c *chaos) fillDisk(int) (end func(), err error) {
	filler := filepath.Join(c.dir, "state", "filler")
	if err := os.WriteFile(filler, make([]byte, 9<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		return nil, fmt.Errorf("the disk is not full: %v", err)
	}
	return func() {
		_ = os.Remove(filler)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.diskFull = time.Now()
	}, nil
}

// limitFiles lets the daemon's processes open only so many more files.
func (c *chaos) limitFiles(spare int) (end func(), err error) {
	var ends []func()
	for _, pid := range append(c.daemon(keeper), c.daemon(worker)...) {
		open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		var old unix.Rlimit
		if unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old) != nil {
			continue // it is dead
		}
		few := unix.Rlimit{Cur: uint64(len(open) + spare), Max: old.Max}
		_ = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil)
		// Two shortages may overlap: what was found here may be the other's limit.
		all := unix.Rlimit{Cur: old.Max, Max: old.Max}
		ends = append(ends, func() {
			if _, still := roleOf(pid); still {
				_ = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &all, nil)
			}
		})
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}, nil
}

// makeCrowd makes a cgroup that bounds how many processes the daemon and its
// programs are.
func (c *chaos) makeCrowd() {
	dir := "/sys/fs/cgroup/pids/pm-chaos-" + strconv.Itoa(os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		c.t.Logf("there are always processes enough: %v", err)
		return
	}
	c.crowd = dir
	c.t.Cleanup(func() {
		deadline := time.Now().Add(patience)
		for os.Remove(dir) != nil && time.Now().Before(deadline) {
			<-time.After(pollEvery)
		}
	})
}

// join makes a process one of the crowd, and what it starts.
func (c *chaos) join(pid int) {
	if c.crowd == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(c.crowd, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		c.t.Errorf("cannot bound the processes: %v", err)
	}
}

// limitProcesses lets there be only so many more threads and processes.
func (c *chaos) limitProcesses(spare int) (end func(), err error) {
	now, err := os.ReadFile(filepath.Join(c.crowd, "pids.current"))
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(now)))
	if err != nil {
		return nil, err
	}
	limit := filepath.Join(c.crowd, "pids.max")
	return func() { _ = os.WriteFile(limit, []byte("max"), 0) }, os.WriteFile(limit, []byte(strconv.Itoa(n+spare)), 0)
}

// jumpClock sets the machine's clock to another time, up to two hours away, and in
// a moment back again.
func (c *chaos) jumpClock() step {
	by := time.Duration(1+c.random.IntN(7200)) * time.Second
	if c.random.IntN(2) == 0 {
		by = -by
	}
	wait := time.Duration(c.random.IntN(300)) * time.Millisecond
	return step{fmt.Sprintf("set the clock by %s for %s", by, wait), func() {
		err := setClock(by)
		<-time.After(wait)
		if err = errors.Join(err, setClock(-by)); err != nil {
			c.t.Errorf("cannot set the clock: %v", err)
		}
	}}
}

// setClock sets the clock by so much; clock_settime(2).
func setClock(by time.Duration) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		return err
	}
	then := unix.NsecToTimespec(now.Nano() + int64(by))
	return unix.ClockSettime(unix.CLOCK_REALTIME, &then)
}

// TestShortages makes sure that what TestChaos takes away is gone.
func TestShortages(t *testing.T) {
	c := newChaos(t, 1)
	if c.smallDisk {
		end, err := c.fillDisk(0)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.dir, "state", "more"), []byte("x"), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("on a full disk: %v", err)
		}
		end()
	}
	c.startDaemon()
	c.settle()
	end, err := c.limitFiles(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range c.daemon(keeper) {
		var limit unix.Rlimit
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit); err != nil || limit.Cur > 1000 {
			t.Errorf("the keeper may open %d files, %v", limit.Cur, err)
		}
	}
	end()
	if c.crowd != "" {
		end, err := c.limitProcesses(0)
		if err != nil {
			t.Fatal(err)
		}
		if limit, err := os.ReadFile(filepath.Join(c.crowd, "pids.max")); err != nil || strings.HasPrefix(string(limit), "max") {
			t.Errorf("there may be %s processes, %v", limit, err)
		}
		end()
	}
	c.settle()
	c.end()
}
