package keeper

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pm.example/codec"
	"pm.example/proc"
)

// attach returns a link, and the end of its connection where the test plays the
// keeper.
func attach(t *testing.T) (*Link, *wire) {
	t.Helper()
	own, other, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWire(own)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	s := &session{keeper: &keeper{}, wire: w}
	s.sayHello()
	l, err := Attach(other)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l, w
}

// What happens right after all tasks were told of does not keep the worker from
// seeing that they were.
func TestOpenReturnsWhateverFollowsTheReplay(t *testing.T) {
	l, w := attach(t)
	go func() { // ends with the connection
		if k, _, err := w.receive(); err != nil || k != kindOpen {
			t.Errorf("asked for %d, %v", k, err)
		}
		s := &session{keeper: &keeper{}, wire: w}
		s.tell([]proc.Event{
			{ID: "a", Kind: proc.Spawned, PID: 1 << 22, At: time.Now(), Stdout: -1, Stderr: -1},
			{Kind: proc.Replayed, At: time.Now()},
			{ID: "a", Kind: proc.Exited, PID: 1 << 22, At: time.Now()},
		})
	}()
	if _, err := l.Open("/state", "/records"); err != nil {
		t.Fatal(err)
	}
	seen := l.Take()
	for len(seen) < 3 {
		<-l.Ready()
		seen = append(seen, l.Take()...)
	}
	if seen[1].Kind != proc.Replayed || seen[2].Kind != proc.Exited {
		t.Errorf("events %v", seen)
	}
}

// A keeper of a pm whose frames mean something else is not worked with.
func TestOtherVersionIsRefused(t *testing.T) {
	own, other, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWire(own)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	if err := w.send(frame(kindHello, func(e *codec.Encoder) { e.Int(wireVersion + 1) })); err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(other); err == nil || !strings.Contains(err.Error(), "speaks version") {
		t.Errorf("error %v", err)
	}
}

// A keeper that dies is told, whatever the worker waits for.
func TestKeeperGone(t *testing.T) {
	l, w := attach(t)
	w.close()
	if _, err := l.Open("/state", "/records"); !errors.Is(err, ErrGone) {
		t.Errorf("Open: %v", err)
	}
	<-l.Gone()
	if err := l.Signal("a", 1); !errors.Is(err, ErrGone) {
		t.Errorf("Signal: %v", err)
	}
	own, other, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	_ = own.Close()
	if _, err := Attach(other); !errors.Is(err, ErrGone) {
		t.Errorf("Attach: %v", err)
	}
}

// The worker holds the main process of every task that lives, and no other.
func TestLinkHoldsLeaders(t *testing.T) {
	l, w := attach(t)
	cmd := exec.Command("sleep", "1000000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s := &session{keeper: &keeper{}, wire: w}
	told := func(e proc.Event) int {
		e.ID, e.PID, e.At, e.Stdout, e.Stderr = "a", cmd.Process.Pid, time.Now(), -1, -1
		s.tell([]proc.Event{e})
		for len(l.Take()) == 0 {
			<-l.Ready()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.leaders)
	}
	if n := told(proc.Event{Kind: proc.Spawned}); n != 1 {
		t.Errorf("%d leaders are held of one that lives", n)
	}
	if n := told(proc.Event{Kind: proc.Spawned}); n != 1 {
		t.Errorf("told again: %d leaders are held", n)
	}
	if n := told(proc.Event{Kind: proc.Exited}); n != 0 {
		t.Errorf("%d leaders are held of one that has ended", n)
	}
}

// Descriptors that the kernel drops, since there are too many, end the connection
// and are not taken for those of other programs. The keeper is not gone.
func TestDescriptorsThatDoNotGetThrough(t *testing.T) {
	l, w := attach(t)
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), out.Close() }()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	var fds []int
	event := frame(kindEvent, func(e *codec.Encoder) {
		fds = encodeEvent(e, proc.Event{ID: "a", Kind: proc.Spawned, PID: 1 << 22, Stdout: int(r.Fd()), Stderr: -1})
	})
	failed := w.send(event, fds...)
	<-l.Gone()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if failed != nil {
		t.Fatal(failed)
	}
	if fault := l.Fault(); fault == nil || !strings.Contains(fault.Error(), "too many open files") {
		t.Errorf("fault %v", fault)
	}
	if events := l.Take(); len(events) > 0 {
		t.Errorf("told %v", events)
	}
}
