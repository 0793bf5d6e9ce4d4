package proc

import (
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A pid that was listed as a child may have passed to a stranger before a pidfd
// held it; only what was there at the time is the child.
func TestBegot(t *testing.T) {
	self, err := readStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const listed = 1000
	q := &quarry{Member: Member{Process: Process{PID: self.pid}}, start: self.start}
	was := &quarry{Member: Member{Process: Process{PID: self.pid}}, start: self.start - 1}
	for name, c := range map[string]struct {
		parent *quarry
		child  stat
		want   bool
	}{
		"a child":                           {q, stat{parent: self.pid, start: listed + 5}, true},
		"handed on since":                   {q, stat{parent: 1, start: listed - 1}, true},
		"a stranger with the pid":           {q, stat{parent: 1, start: listed + 5}, false},
		"a child of one with parent's pid":  {was, stat{parent: self.pid, start: listed + 5}, false},
		"perhaps a stranger, the same tick": {q, stat{parent: 1, start: listed}, false},
	} {
		if got := c.parent.begot(c.child, listed); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestBootTicks(t *testing.T) {
	before := bootTicks()
	child, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Kill(); _, _ = child.Wait() }()
	st, err := readStat(child.Pid)
	if after := bootTicks(); err != nil || st.start < before || st.start > after {
		t.Errorf("a child that started between %d and %d says %d, %v", before, after, st.start, err)
	}
}

// A timeout that ends before the grace does is no order to kill.
func TestSignalTreeGivesUp(t *testing.T) {
	child, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Kill(); _, _ = child.Wait() }()
	report, err := SignalTree(t.Context(), []int{child.Pid}, TreeSignal{
		Signal: unix.SIGTERM, Exclude: []string{"sleep"}, Kill: true, Grace: time.Hour, Timeout: 20 * time.Millisecond,
	})
	if err != nil || report.Left != 1 || report.Members[0].Outcome != Left {
		t.Errorf("%+v, %v", report, err)
	}
	if st, err := readStat(child.Pid); err != nil || st.state != 'S' && st.state != 'R' {
		t.Errorf("the process is in state %c, %v", st.state, err)
	}
}

// A tree that is killed while it grows leaves nobody: each of it holds a pipe.
func TestSignalTreeKillsWhatGrows(t *testing.T) {
	for range 3 {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		sh, err := os.StartProcess("/bin/sh", []string{"sh", "-c", `for i in 1 2 3 4; do { n=0; while sleep 100 & [ $((n+=1)) -lt 150 ]; do :; done; wait; } & done; echo begun; wait`}, &os.ProcAttr{Files: []*os.File{nil, write}})
		if err != nil {
			t.Fatal(err)
		}
		_ = write.Close()
		if _, err := read.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if _, err := SignalTree(t.Context(), []int{sh.Pid}, TreeSignal{Signal: unix.SIGKILL}); err != nil {
			t.Error(err)
		}
		_, _ = sh.Wait()
		_ = read.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := read.Read(make([]byte, 10)); err != io.EOF {
			t.Errorf("somebody holds the pipe: %v", err)
		}
		_ = read.Close()
	}
}
