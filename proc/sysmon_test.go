package proc

import (
	"os"
	"runtime"
	"strconv"
	"testing"
)

func TestCalmScheduler(t *testing.T) {
	tid := monitor()
	if tid == 0 || tid == os.Getpid() {
		t.Fatalf("the monitor is thread %d of process %d", tid, os.Getpid())
	}
	before, unable := slack(tid)
	CalmScheduler()
	t.Cleanup(func() {
		ownSlack = 0
		_ = setSlack(tid, before)
	})
	if os.Geteuid() != 0 || runtime.GOMAXPROCS(0) < 2 {
		if got, err := slack(tid); err == nil && got != before {
			t.Errorf("its timer slack became %d", got)
		}
		return
	}
	own, err := slack(os.Getpid())
	if got, unread := slack(tid); unable != nil || err != nil || unread != nil || got != sysmonSlack || own == sysmonSlack {
		t.Fatalf("the monitor's timer slack is %d (%v), that of the main thread %d (%v, %v)", got, unread, own, err, unable)
	}

	// Threads that the monitor starts have its timer slack; programs never do.
	all := func() (list []int) {
		tids, err := listPIDs("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return tids
	}
	k := keeper(t)
	for _, tid := range all() {
		if err := setSlack(tid, sysmonSlack); err != nil {
			t.Fatal(err)
		}
	}
	k.Spawn("slack", 1, func() (*Command, error) {
		return &Command{Argv: []string{"cat", "/proc/self/timerslack_ns"}, Env: os.Environ(), Stdout: Stdio{Kind: Pipe}}, nil
	})
	if got := read(t, (&inbox{t: t, k: k}).next("slack", Spawned).Stdout); got != strconv.Itoa(own)+"\n" {
		t.Errorf("a program has a timer slack of %q, want %d", got, own)
	}
	calmThreads()
	for _, other := range all() {
		if got, err := slack(other); err == nil && got != own && other != tid {
			t.Errorf("thread %d has a timer slack of %d", other, got)
		}
	}
}
