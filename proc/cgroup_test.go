package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Empty cgroups are removed that a pm of this pid namespace has left, one that
// lives no more, and no others.
func TestStaleCgroups(t *testing.T) {
	c := newCgroups(0)
	if c.dir == "" {
		t.Skip("pm may make no cgroups here")
	}
	const nobody = 1 << 30 // more than there are pids
	left := map[string]bool{
		fmt.Sprintf("pm-%s-%d-1", pidNamespace(), nobody):      false,
		fmt.Sprintf("pm-%s-%d-1", pidNamespace(), os.Getpid()): true,
		fmt.Sprintf("pm-1-%d-1", nobody):                       true, // another namespace
		fmt.Sprintf("pm-%d-1", nobody):                         true, // whosoever
	}
	for name := range left {
		path := filepath.Join(c.dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(path) })
	}
	c.removeStale()
	for name, want := range left {
		if _, err := os.Stat(filepath.Join(c.dir, name)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
}

// A task whose cgroup has gone is started without one.
func TestLostCgroup(t *testing.T) {
	k := keeper(t)
	if k.cgroups.prefix == "" {
		t.Skip("pm may make no cgroups here")
	}
	in := &inbox{t: t, k: k}
	for made := false; !made; runtime.Gosched() { // those that are made ahead
		k.cgroups.mu.Lock()
		if made = len(k.cgroups.spare) == k.cgroups.ahead; made {
			k.cgroups.ahead, k.cgroups.spare = 0, []string{filepath.Join(k.cgroups.dir, "gone")}
		}
		k.cgroups.mu.Unlock()
	}
	k.Spawn("a", 0, func() (*Command, error) {
		return &Command{Argv: []string{"sleep", "1000"}, Env: os.Environ()}, nil
	})
	in.next("a", Spawned)
	k.mu.Lock()
	cgroup := k.tasks["a"].cgroup
	k.mu.Unlock()
	if cgroup != "" {
		t.Errorf("it is said to be in %s", cgroup)
	}
	k.Kill("a")
	in.next("a", Exited)
	in.next("a", Empty)
}

// So is one whose cgroup goes in the last moment.
func TestCgroupLostAtLaunch(t *testing.T) {
	c := newCgroups(0)
	path := c.take()
	if path == "" {
		t.Skip("pm may make no cgroups here")
	}
	s, err := newSlots(&Keeper{cgroups: c})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	removed := func(*spawned) { removeCgroup(path) }
	out, _, fail := s.spawn(&Command{Argv: []string{"true"}, Env: os.Environ()}, 0, path, removed)
	if fail != nil || out.cgroup != "" {
		t.Fatalf("it is in %q: %v", out.cgroup, fail)
	}
	if p, err := os.FindProcess(out.pid); err == nil {
		_, _ = p.Wait()
	}
}

// Of a cgroup made ahead there are descriptors, which tell the same as its files, until
// it is done with or many others were made after it.
func TestCgroupsAtHand(t *testing.T) {
	c := newCgroups(1)
	if c.prefix == "" {
		t.Skip("pm may make no cgroups here")
	}
	defer c.close()
	s, err := newSlots(&Keeper{cgroups: c})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var pids []int
	used := func() string {
		c.provide()
		path := c.take()
		out, _, fail := s.spawn(&Command{Argv: []string{"sleep", "1000"}, Env: os.Environ()}, 0, path, nil)
		if fail != nil || out.cgroup != path {
			t.Fatalf("it is in %q, not %q: %v", out.cgroup, path, fail)
		}
		pids = append(pids, out.pid)
		return path
	}
	defer func() {
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
	}()

	path := used()
	if c.hand(path) < 0 || !c.populated(path) {
		t.Errorf("at hand: %v, populated: %v, want both", c.hand(path) >= 0, c.populated(path))
	}
	_ = unix.Kill(pids[0], unix.SIGKILL)
	_, _ = unix.Wait4(pids[0], nil, 0, nil)
	pids = pids[1:]
	if c.populated(path) {
		t.Error("it is populated when its process is gone")
	}
	c.drop(path)
	if c.hand(path) >= 0 {
		t.Error("it is at hand when it is done with")
	}

	first := used()
	for range mostAtHand {
		used()
	}
	if len(c.atHand) != mostAtHand || c.hand(first) >= 0 {
		t.Errorf("%d are at hand, the first of more among them: %v", len(c.atHand), c.hand(first) >= 0)
	}
	if !c.populated(first) {
		t.Error("one that is at hand no more is not populated")
	}
}
