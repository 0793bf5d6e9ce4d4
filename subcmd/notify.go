package subcmd

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"pm.example/runner"
	"pm.example/socket"
	"pm.example/systemd"
	"pm.example/task"
)

// announcer tells the service manager how the daemon is: that it serves, how many
// programs run, that it reloads or ends, and that it is alive. It speaks in the
// worker, but it is the keeper that the manager has started and looks after.
type announcer struct {
	manager systemd.Manager
	group   *runner.Group
	events  *eventLog
	changed chan struct{} // holds a token when programs may have changed

	served   chan struct{} // closed when clients are served
	ready    atomic.Bool   // the manager has heard so
	stopping atomic.Bool
	ending   atomic.Bool  // it has heard that, too
	again    atomic.Int64 // when it is told again what it did not take, in ns; 0: there is nothing
}

func newAnnouncer(getenv func(string) string, group *runner.Group, events *eventLog) *announcer {
	return &announcer{
		manager: systemd.FindManager(getenv, os.Getpid(), os.Getppid()), group: group, events: events,
		changed: make(chan struct{}, 1), served: make(chan struct{}),
	}
}

// A status is told at most this often; one who looks sees no difference.
const statusPause = 100 * time.Millisecond

// What the manager did not take is told again, after pauses that grow: it may never be
// there.
const (
	tellAgain  = time.Second
	tellSeldom = 30 * time.Second
)

// The end of programs may take long, but not without the daemon: every few
// seconds it asks for more time.
const (
	stoppingBeat  = 5 * time.Second
	stoppingGrace = 30 * time.Second
)

// run tells the manager what there is to tell until ctx ends. What it tells it
// has from the group: when that does not answer, the manager hears nothing, and
// its watchdog bites.
func (a *announcer) run(ctx context.Context) {
	if !a.manager.Exists() {
		return
	}
	following, stop := context.WithCancel(ctx)
	followed := make(chan struct{})
	go func() { defer close(followed); a.follow(following) }() // ended by stop
	defer func() { stop(); <-followed }()
	select {
	case <-a.served:
	case <-ctx.Done():
		return
	}
	last := ""
	for a.look(ctx, &last) {
		if !a.pause(ctx) {
			return
		}
	}
}

// follow notes every event until ctx ends.
func (a *announcer) follow(ctx context.Context) {
	_ = a.events.events(ctx, ^uint64(0), true, func(socket.Event) error {
		a.note()
		return nil
	})
}

func (a *announcer) note() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// pause waits until there may be something to tell, and returns false if that
// is never more.
func (a *announcer) pause(ctx context.Context) bool {
	var beat <-chan time.Time
	if every := a.beat(); every > 0 {
		timer := time.NewTimer(every)
		defer timer.Stop()
		beat = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-beat:
		return true
	case <-a.changed:
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(min(statusPause, max(a.beat(), time.Millisecond))):
		return true
	}
}

// beat is how often the manager hears of a daemon at rest; 0: never.
func (a *announcer) beat() time.Duration {
	every := a.manager.Watchdog / 2
	if a.stopping.Load() {
		every = sooner(every, stoppingBeat)
	}
	if again := time.Duration(a.again.Load()); again > 0 {
		every = sooner(every, again)
	}
	return every
}

// sooner returns the shorter of two pauses, of which the first may be none.
func sooner(pause, other time.Duration) time.Duration {
	if pause == 0 {
		return other
	}
	return min(pause, other)
}

// look tells what the group says. It reports whether that has answered.
func (a *announcer) look(ctx context.Context, last *string) bool {
	list, _, err := a.group.Snapshot(ctx, nil)
	if err != nil {
		return false
	}
	var lines []string
	if a.manager.Watchdog > 0 {
		lines = append(lines, systemd.Alive)
	}
	stopping, ready, ending := a.stopping.Load(), a.ready.Load(), a.ending.Load()
	switch {
	case stopping && !ending:
		lines = append(lines, systemd.Stopping)
	case !stopping && !ready:
		lines = append(lines, systemd.Ready)
	}
	if stopping {
		lines = append(lines, systemd.ExtendTimeout(stoppingGrace))
	}
	text := statusText(list, stopping)
	if text != *last {
		lines = append(lines, systemd.Status(text))
	}
	switch {
	case len(lines) == 0:
		a.again.Store(0)
	case a.tell(lines...):
		*last = text
		if stopping {
			a.ending.Store(true)
		} else if !ready { // else somebody may have stored meanwhile that it is not
			a.ready.Store(true)
		}
	}
	return true
}

// tell tells the manager, and reports whether that has taken it. Why not is no affair
// of the daemon's.
func (a *announcer) tell(lines ...string) (heard bool) {
	if a.manager.Tell(lines...) == nil {
		a.again.Store(0)
		return true
	}
	a.again.Store(min(max(2*a.again.Load(), int64(tellAgain)), int64(tellSeldom)))
	return false
}

// serving tells that clients are served from now on.
func (a *announcer) serving() { close(a.served) }

// end tells that the daemon's end has begun.
func (a *announcer) end() {
	a.ending.Store(a.tell(systemd.Stopping, systemd.ExtendTimeout(stoppingGrace)))
	a.stopping.Store(true) // from here on look says it again, if it was not heard
	a.note()
}

// reloading tells that a reload has begun, and returns what tells of its end.
func (a *announcer) reloading() (done func()) {
	if !a.ready.Load() { // the manager still waits for the start
		return func() {}
	}
	begun := systemd.Reloading()
	heard := a.tell(begun)
	return func() {
		if !heard {
			a.tell(begun) // an end without a beginning is none
		}
		if !a.tell(systemd.Ready) {
			a.ready.Store(false)
			a.note()
		}
	}
}

// mostTroubled is how many instances a status names that are not as they should
// be.
const mostTroubled = 3

// statusText says how programs are: "11 of 12 programs run; web is FATAL". It
// counts those that are meant to run, and at the end those that are left.
func statusText(list []runner.Instance, stopping bool) string {
	all, lame := map[string]bool{}, map[string]bool{}
	var troubled []string
	for _, i := range list {
		runs := i.Status == task.StatusRunning
		done := i.Status == task.StatusExited && i.OK
		if runs || i.Desired && !done || stopping && i.PID != 0 {
			all[i.Program] = true
		}
		lame[i.Program] = lame[i.Program] || i.Desired && !done && !runs
		if !i.OK {
			troubled = append(troubled, fmt.Sprintf("%s is %s", i.Name, i.Status))
		}
	}
	if stopping {
		return fmt.Sprintf("stopping: programs left: %d", len(all))
	}
	running := 0
	for program := range all {
		if !lame[program] {
			running++
		}
	}
	if more := len(troubled) - mostTroubled; more > 0 {
		troubled = append(troubled[:mostTroubled], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(append([]string{fmt.Sprintf("%d of %d programs run", running, len(all))}, troubled...), "; ")
}
