package runner

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"pm.example/proc"
	"pm.example/task"
)

// fakeHost plays processes: behave says what becomes of each launch.
type fakeHost struct {
	ready  chan struct{}
	mu     sync.Mutex // guards all below
	events []proc.Event
	calls  []string
	spawns int
	// behave is asked at each launch: how long it lives (negative: until it is
	// signalled), how it ends, and whether the launch fails.
	behave func(n int) life
	alive  map[string]life
}

type life struct {
	lasts  time.Duration
	status proc.Status
	fail   *proc.SpawnError
	left   int
	deaf   bool // only SIGKILL ends it
}

var forever = life{lasts: -1}

func newFakeHost(behave func(n int) life) *fakeHost {
	return &fakeHost{ready: make(chan struct{}, 1), behave: behave, alive: map[string]life{}}
}

// tell queues an event. The caller holds h.mu.
func (h *fakeHost) tell(e proc.Event) {
	e.At = time.Now()
	h.events = append(h.events, e)
	select {
	case h.ready <- struct{}{}:
	default:
	}
}

func (h *fakeHost) Spawn(id string, _ int, _ func() (*proc.Command, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spawns++
	l := h.behave(h.spawns)
	if l.fail != nil {
		h.tell(proc.Event{ID: id, Kind: proc.Failed, Err: l.fail})
		return
	}
	h.alive[id] = l
	h.tell(proc.Event{ID: id, Kind: proc.Spawned, PID: 100 + h.spawns, Stdout: -1, Stderr: -1})
	if l.lasts >= 0 {
		time.AfterFunc(l.lasts, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.end(id, l.status, l.left)
		})
	}
}

func (h *fakeHost) end(id string, s proc.Status, left int) {
	if _, ok := h.alive[id]; !ok {
		return
	}
	delete(h.alive, id)
	h.tell(proc.Event{ID: id, Kind: proc.Exited, Status: s, Left: left})
	if left == 0 {
		h.tell(proc.Event{ID: id, Kind: proc.Empty})
	}
}

func (h *fakeHost) Signal(string, syscall.Signal) error { return nil }

func (h *fakeHost) Terminate(id string, _ int, sig syscall.Signal, _ []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, "terminate "+proc.SignalName(sig))
	if l, ok := h.alive[id]; ok && !l.deaf {
		h.end(id, proc.Status{Code: -1, Signal: sig}, 0)
	}
}

func (h *fakeHost) Kill(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, "kill")
	if _, ok := h.alive[id]; ok {
		h.end(id, proc.Status{Code: -1, Signal: unix.SIGKILL}, 0)
		return
	}
	h.tell(proc.Event{ID: id, Kind: proc.Empty})
}

func (h *fakeHost) Release(string) {}

func (h *fakeHost) Ready() <-chan struct{} { return h.ready }

func (h *fakeHost) Take() []proc.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	events := h.events
	h.events = nil
	return events
}

func (h *fakeHost) count(call string) (n int) {
	for _, c := range h.calls {
		if c == call {
			n++
		}
	}
	return n
}

// service is a program with the seed's defaults and exact waits.
func service(name string) *Program {
	return &Program{
		Name: name, NumProcs: 1, Priority: 999, Autostart: true,
		Expected: []Expected{{Code: 0}}, StartTime: time.Second, StartRetries: 3,
		Backoff: Backoff{Initial: time.Second, Max: 8 * time.Second, Factor: 2, ResetAfter: time.Minute, Burst: 5, BurstWindow: 10 * time.Second},
		Stop:    []StopStep{{unix.SIGTERM, 10 * time.Second}},
	}
}

// bench is a group in a bubble, with all it told.
type bench struct {
	t      *testing.T
	g      *Group
	h      *fakeHost
	start  time.Time
	mu     sync.Mutex // guards events
	events []string
}

// play runs a group with the given program until the test function returns.
func play(t *testing.T, behave func(n int) life, test func(b *bench), programs ...*Program) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, h: newFakeHost(behave), start: time.Now()}
		b.g = New(Options{
			Host:    b.h,
			Tell:    b.tell,
			Capture: func(string, int, proc.Event) {},
			Drop:    func(string, int) {},
			Log:     slog.New(slog.DiscardHandler),
			Random:  func() float64 { return 0.5 },
			Bug:     func(err error) { t.Error(err) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = b.g.Run(ctx) }() // ends with ctx
		if err := b.g.Apply(ctx, programs, nil, nil); err != nil {
			t.Fatal(err)
		}
		test(b)
		cancel()
		<-ended
	})
}

func (b *bench) tell(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, fmt.Sprintf("%s %s %s", b.at(), e.Instance, e.Type))
}

// heard returns what was told since the last call.
func (b *bench) heard() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	return events
}

func (b *bench) at() string { return fmt.Sprintf("%.1f", time.Since(b.start).Seconds()) }

// after lets time pass and returns the only instance.
func (b *bench) after(d time.Duration) Instance {
	time.Sleep(d)
	synctest.Wait()
	list, _, err := b.g.Snapshot(b.t.Context(), nil)
	if err != nil || len(list) == 0 {
		b.t.Fatalf("snapshot: %v, %v", list, err)
	}
	return list[0]
}

func (b *bench) want(i Instance, status task.Status, state task.State) {
	b.t.Helper()
	if i.Status != status || i.TaskState != state {
		b.t.Errorf("at %s: %s is %s, %s (%s), want %s, %s", b.at(), i.Name, i.Status, i.TaskState, i.Detail, status, state)
	}
}

func (b *bench) told(want ...string) {
	b.t.Helper()
	if got := b.heard(); !slices.Equal(got, want) {
		b.t.Errorf("told\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func sel(t *testing.T, text string) []Selector {
	t.Helper()
	s, err := ParseSelector(text)
	if err != nil {
		t.Fatal(err)
	}
	return []Selector{s}
}

func always(l life) func(int) life { return func(int) life { return l } }

func TestStartedAfterStartTime(t *testing.T) {
	play(t, always(forever), func(b *bench) {
		b.want(b.after(999*time.Millisecond), task.StatusStarting, task.Starting)
		b.want(b.after(time.Millisecond), task.StatusRunning, task.Running)
		b.told("0.0 web starting", "1.0 web running")
	}, service("web"))
}

// An exit before the start time is a failed start whatever the code; the waits
// double; after startretries further attempts pm gives up.
func TestEarlyExitIsRetriedThenFatal(t *testing.T) {
	play(t, always(life{lasts: 100 * time.Millisecond}), func(b *bench) {
		b.want(b.after(500*time.Millisecond), task.StatusBackoff, task.Staging)
		b.want(b.after(time.Minute), task.StatusFatal, task.Failed)
		b.told("0.0 web starting", "0.1 web backoff", "1.1 web starting", "1.2 web backoff",
			"3.2 web starting", "3.3 web backoff", "7.3 web starting", "7.4 web fatal")
	}, service("web"))
}

func TestStartWaitsForTheVerdict(t *testing.T) {
	quiet := service("web")
	quiet.Autostart = false
	play(t, func(n int) life {
		if n <= 2 {
			return life{status: proc.Status{Code: 3}}
		}
		return forever
	}, func(b *bench) {
		out, _, err := b.g.Start(b.t.Context(), sel(t, "web"), true)
		if err != nil || len(out) != 1 || out[0].Verdict != Done || out[0].Message != "started" {
			t.Errorf("start: %+v, %v", out, err)
		}
		if at := b.at(); at != "4.0" { // waits of 1 s and 2 s, and the start time
			t.Errorf("told at %s", at)
		}
		out, _, _ = b.g.Start(b.t.Context(), sel(t, "web"), true)
		if out[0].Message != "already running" || out[0].Verdict != Done {
			t.Errorf("start again: %+v", out)
		}
	}, quiet)
}

func TestStartTimesOut(t *testing.T) {
	quiet := service("web")
	quiet.Autostart, quiet.StartTime = false, time.Hour
	play(t, always(forever), func(b *bench) {
		ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
		defer cancel()
		out, _, err := b.g.Start(ctx, sel(t, "web"), true)
		if err != nil || out[0].Verdict != TimedOut || out[0].Message != "still STARTING" {
			t.Errorf("start: %+v, %v", out, err)
		}
	}, quiet)
}

// Whoever has no time to wait is told so, and what he asked for is begun.
func TestRequestIsBegunInAnyCase(t *testing.T) {
	play(t, always(forever), func(b *bench) {
		past, cancel := context.WithCancel(b.t.Context())
		cancel()
		for range 20 {
			if _, _, err := b.g.Stop(past, sel(t, "web"), true); err != nil {
				t.Errorf("stop: %v", err)
			}
			if out, _, err := b.g.Start(b.t.Context(), sel(t, "web"), true); err != nil || out[0].Message == "already running" {
				t.Errorf("start: %+v, %v", out, err)
			}
		}
	}, service("web"))
}

func TestPolicies(t *testing.T) {
	for _, c := range []struct {
		restart Restart
		end     proc.Status
		want    task.Status
		ok      bool
		state   task.State
	}{
		{RestartUnexpected, proc.Status{}, task.StatusExited, true, task.Finished},
		{RestartNever, proc.Status{Code: 1}, task.StatusExited, false, task.Failed},
		{RestartNever, proc.Status{}, task.StatusExited, true, task.Finished},
		{RestartUnexpected, proc.Status{Code: -1, Signal: unix.SIGSEGV}, task.StatusRunning, true, task.Running},
		{RestartAlways, proc.Status{}, task.StatusRunning, true, task.Running},
	} {
		p := service("web")
		p.Restart = c.restart
		play(t, func(n int) life {
			if n == 1 {
				return life{lasts: 2 * time.Second, status: c.end}
			}
			return forever
		}, func(b *bench) {
			i := b.after(4 * time.Second)
			b.want(i, c.want, c.state)
			if i.OK != c.ok {
				t.Errorf("%+v: OK %v, want %v", c, i.OK, c.ok)
			}
			if i.Status == task.StatusRunning && (i.Started != b.start.Add(2*time.Second) || i.Restarts != 1) {
				t.Errorf("restarted %s after the start, %d times; want at once, 1", i.Started.Sub(b.start), i.Restarts)
			}
		}, p)
	}
}

// Restarts after a good start are immediate until there were too many; then the
// waits grow, and a long life makes it all forgotten.
func TestBurstGuard(t *testing.T) {
	p := service("web")
	p.Restart, p.StartTime = RestartAlways, 0
	play(t, func(n int) life {
		if n <= 8 {
			return life{lasts: 100 * time.Millisecond, status: proc.Status{Code: 1}}
		}
		return life{lasts: 2 * time.Minute}
	}, func(b *bench) {
		b.after(20 * time.Second)
		var backoffs []string
		for _, e := range b.heard() {
			if strings.HasSuffix(e, "backoff") {
				backoffs = append(backoffs, e)
			}
		}
		want := []string{"0.6 web backoff", "1.7 web backoff", "3.8 web backoff"}
		if !slices.Equal(backoffs, want) {
			t.Errorf("waits %q, want %q", backoffs, want)
		}
		i := b.after(2 * time.Minute)
		b.want(i, task.StatusRunning, task.Running)
	}, p)
}

func TestOneshot(t *testing.T) {
	p := service("job")
	p.Oneshot = true
	play(t, always(life{lasts: 10 * time.Millisecond}), func(b *bench) {
		i := b.after(time.Second)
		b.want(i, task.StatusExited, task.Finished)
		if !i.OK {
			t.Error("an expected end of a oneshot is not OK")
		}
		b.told("0.0 job starting", "0.0 job running", "0.0 job exited")
	}, p)
}

func TestFailedOneshotIsRetried(t *testing.T) {
	p := service("job")
	p.Oneshot, p.StartRetries = true, 1
	play(t, always(life{lasts: 10 * time.Millisecond, status: proc.Status{Code: 2}}), func(b *bench) {
		i := b.after(time.Minute)
		b.want(i, task.StatusFatal, task.Failed)
		if b.h.spawns != 2 {
			t.Errorf("%d launches, want 2", b.h.spawns)
		}
	}, p)
}

func TestSpawnFailures(t *testing.T) {
	wrong := life{fail: &proc.SpawnError{Doing: "cmd", Err: syscall.ENOENT}}
	play(t, always(wrong), func(b *bench) {
		b.want(b.after(time.Minute), task.StatusFatal, task.Error)
		if b.h.spawns != 4 {
			t.Errorf("%d launches of a wrong description, want 4", b.h.spawns)
		}
	}, service("web"))
	passing := life{fail: &proc.SpawnError{Doing: "fork", Err: syscall.EAGAIN, Passing: true}}
	play(t, func(n int) life {
		if n <= 10 {
			return passing
		}
		return forever
	}, func(b *bench) {
		i := b.after(2 * time.Minute)
		b.want(i, task.StatusRunning, task.Running) // no retries were used up
	}, service("web"))
}

func TestStopAsksThenKills(t *testing.T) {
	deaf := forever
	deaf.deaf = true
	play(t, always(deaf), func(b *bench) {
		b.after(2 * time.Second)
		out, _, err := b.g.Stop(b.t.Context(), sel(t, "web"), true)
		if err != nil || out[0].Verdict != Done || out[0].Message != "stopped: killed after 10s" {
			t.Errorf("stop: %+v, %v", out, err)
		}
		if at := b.at(); at != "12.0" {
			t.Errorf("stopped at %s", at)
		}
		if !slices.Equal(b.h.calls, []string{"terminate TERM", "kill"}) {
			t.Errorf("calls %q", b.h.calls)
		}
		i := b.after(time.Hour)
		b.want(i, task.StatusStopped, task.Killed)
		if !i.OK {
			t.Error("a stopped instance that is meant to be stopped is not OK")
		}
	}, service("web"))
}

func TestStopSequence(t *testing.T) {
	p := service("web")
	p.Stop = []StopStep{{unix.SIGINT, time.Second}, {unix.SIGTERM, 2 * time.Second}}
	deaf := forever
	deaf.deaf = true
	play(t, always(deaf), func(b *bench) {
		b.after(2 * time.Second)
		_, _, _ = b.g.Stop(b.t.Context(), sel(t, "web"), true)
		if at := b.at(); at != "5.0" || !slices.Equal(b.h.calls, []string{"terminate INT", "terminate TERM", "kill"}) {
			t.Errorf("at %s: calls %q", at, b.h.calls)
		}
	}, p)
}

func TestStopDuringBackoffIsImmediateAndForgets(t *testing.T) {
	play(t, always(life{}), func(b *bench) {
		b.want(b.after(100*time.Millisecond), task.StatusBackoff, task.Staging)
		out, _, _ := b.g.Stop(b.t.Context(), sel(t, "web"), true)
		if at := b.at(); at != "0.1" || out[0].Message != "stopped" {
			t.Errorf("at %s: %+v", at, out)
		}
		b.want(b.after(time.Hour), task.StatusStopped, task.Killed)
		before := b.h.spawns
		_, _, _ = b.g.Start(b.t.Context(), sel(t, "web"), true)
		if n := b.h.spawns - before; n != 4 {
			t.Errorf("%d launches after the stop, want all 4 attempts", n)
		}
	}, service("web"))
}

// What a dead leader left behind is ended before the next task starts.
func TestLeftoversEndFirst(t *testing.T) {
	play(t, func(n int) life {
		if n == 1 {
			return life{lasts: 5 * time.Second, status: proc.Status{Code: 1}, left: 3}
		}
		return forever
	}, func(b *bench) {
		i := b.after(6 * time.Second)
		b.want(i, task.StatusStopping, task.Killing)
		i = b.after(20 * time.Second)
		b.want(i, task.StatusRunning, task.Running)
		if b.h.count("kill") != 1 || i.Restarts != 1 {
			t.Errorf("calls %q, %d restarts", b.h.calls, i.Restarts)
		}
	}, service("web"))
}

func TestRestartAndRolling(t *testing.T) {
	p := service("web")
	p.NumProcs = 3
	play(t, always(forever), func(b *bench) {
		b.after(2 * time.Second)
		out, unknown, err := b.g.Restart(b.t.Context(), append(sel(t, "web"), sel(t, "nobody")...), true, true)
		if err != nil || len(out) != 3 || len(unknown) != 1 {
			t.Fatalf("%+v, %v, %v", out, unknown, err)
		}
		if at := b.at(); at != "5.0" { // one start time after the other
			t.Errorf("done at %s", at)
		}
		_, _, _ = b.g.Restart(b.t.Context(), sel(t, "web"), true, false)
		if at := b.at(); at != "6.0" || b.h.spawns != 9 {
			t.Errorf("done at %s with %d launches", at, b.h.spawns)
		}
	}, p)
}

func TestShutdownInReversePriority(t *testing.T) {
	first, last := service("db"), service("web")
	first.Priority, last.Priority = 1, 2
	deaf := forever
	deaf.deaf = true
	play(t, always(deaf), func(b *bench) {
		b.after(2 * time.Second)
		b.heard()
		if err := b.g.Shutdown(b.t.Context()); err != nil {
			t.Fatal(err)
		}
		b.told("2.0 web stopping", "12.0 web stopped", "12.0 db stopping", "22.0 db stopped")
		if _, _, err := b.g.Start(b.t.Context(), sel(t, "web"), true); err == nil {
			t.Error("a start after the shutdown was accepted")
		}
	}, first, last)
}

func TestKillAllEndsThePatience(t *testing.T) {
	deaf := forever
	deaf.deaf = true
	first, last := service("db"), service("web")
	first.Priority, last.Priority = 1, 2
	play(t, always(deaf), func(b *bench) {
		b.after(2 * time.Second)
		done := make(chan error)
		go func() { done <- b.g.Shutdown(b.t.Context()) }() // ends with the shutdown
		b.after(time.Second)
		if err := b.g.KillAll(b.t.Context()); err != nil {
			t.Fatal(err)
		}
		<-done
		if at := b.at(); at != "3.0" {
			t.Errorf("down at %s", at)
		}
	}, first, last)
}

func TestApplyTouchesOnlyWhatChanged(t *testing.T) {
	a, c, gone := service("a"), service("c"), service("gone")
	c.NumProcs = 2
	play(t, always(forever), func(b *bench) {
		b.after(2 * time.Second)
		_, _, _ = b.g.Stop(b.t.Context(), sel(t, "c:1"), true)
		before, _, _ := b.g.Snapshot(b.t.Context(), nil)
		a2, c2, fresh := service("a"), service("c"), service("fresh")
		c2.NumProcs = 3
		if err := b.g.Apply(b.t.Context(), []*Program{a2, c2, fresh}, map[string]bool{}, nil); err != nil {
			t.Fatal(err)
		}
		b.after(2 * time.Second)
		var names []string
		after, _, _ := b.g.Snapshot(b.t.Context(), nil)
		for _, i := range after {
			names = append(names, i.Name+" "+string(i.Status))
		}
		want := []string{"a RUNNING", "c:0 RUNNING", "c:1 STOPPED", "c:2 RUNNING", "fresh RUNNING"}
		if !slices.Equal(names, want) {
			t.Errorf("%q, want %q", names, want)
		}
		if after[0].PID != before[0].PID || after[1].PID != before[1].PID {
			t.Error("an unchanged instance has another pid")
		}
		pid := after[0].PID
		_ = b.g.Apply(b.t.Context(), []*Program{service("a"), c2, fresh}, map[string]bool{"a": true, "c": true}, nil)
		b.after(2 * time.Second)
		last, _, _ := b.g.Snapshot(b.t.Context(), nil)
		if last[0].PID == pid || last[2].Status != task.StatusStopped {
			t.Errorf("after a respawn: %+v", last)
		}
	}, a, c, gone)
}

func TestScaleRenames(t *testing.T) {
	play(t, always(forever), func(b *bench) {
		first := b.after(2 * time.Second)
		if err := b.g.Scale(b.t.Context(), "web", 2); err != nil {
			t.Fatal(err)
		}
		second := b.after(2 * time.Second)
		if second.Name != "web:0" || second.PID != first.PID {
			t.Errorf("%+v became %+v", first, second)
		}
		if err := b.g.Scale(b.t.Context(), "nobody", 2); err == nil {
			t.Error("an unknown program was scaled")
		}
	}, service("web"))
}

func TestIdleMeansNoTimers(t *testing.T) {
	p := service("web")
	p.NumProcs = 100
	play(t, always(forever), func(b *bench) {
		b.after(2 * time.Second)
		if n := len(b.g.timers.heap); n != 0 {
			t.Errorf("%d timers are pending", n)
		}
	}, p)
}

func TestBackoffNeverExceedsItsMaximum(t *testing.T) {
	b := Backoff{Initial: time.Second, Max: 8 * time.Second, Factor: 2, Jitter: 0.5}
	for n := 1; n < 100; n++ {
		for _, random := range []float64{0, 0.5, 0.999} {
			if d := b.wait(n, random); d <= 0 || d > b.Max {
				t.Errorf("wait %d with random %v is %s", n, random, d)
			}
		}
	}
}
