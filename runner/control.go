package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"pm.example/proc"
	"pm.example/task"
)

// Outcome is what became of a request for one instance.
type Outcome struct {
	Instance string
	Status   task.Status
	Verdict  Verdict
	Message  string
}

// Verdict sorts outcomes.
type Verdict int

// The verdicts.
const (
	Done        Verdict = iota // done, or already so
	CannotDo                   // refused, or not possible in this state
	StartFailed                // it was started and did not come up
	TimedOut                   // the time to wait ran out first
)

// watch waits for a set of instances to settle. It belongs to the goroutine of
// Run until done is closed.
type watch struct {
	settled  func(*instance) (Outcome, bool)
	pending  map[*instance]int // place in outcomes
	outcomes []Outcome
	done     chan struct{}
	after    func() // called in the goroutine of Run, once all have settled
}

// watch looks at the instances now and after each change of theirs, until
// settled has been true of each once.
func (g *Group) watch(list []*instance, settled func(*instance) (Outcome, bool)) *watch {
	w := &watch{settled: settled, pending: make(map[*instance]int, len(list)), outcomes: make([]Outcome, len(list)), done: make(chan struct{})}
	for n, i := range list {
		w.pending[i] = n
		i.watches = append(i.watches, w)
	}
	for _, i := range list {
		w.look(i)
	}
	w.finish()
	return w
}

func (w *watch) look(i *instance) {
	n, waiting := w.pending[i]
	if !waiting {
		return
	}
	outcome, ok := w.settled(i)
	if !ok {
		return
	}
	w.outcomes[n] = outcome
	delete(w.pending, i)
	i.watches = slices.DeleteFunc(slices.Clone(i.watches), func(o *watch) bool { return o == w })
	w.finish()
}

func (w *watch) finish() {
	if len(w.pending) > 0 {
		return
	}
	select {
	case <-w.done:
	default:
		close(w.done)
		if w.after != nil {
			w.after()
		}
	}
}

// giveUp ends the watch; what has not settled timed out.
func (w *watch) giveUp() {
	for i, n := range w.pending {
		w.outcomes[n] = i.outcome(TimedOut, "still "+string(i.status)+withDetail(i.detail))
		i.watches = slices.DeleteFunc(slices.Clone(i.watches), func(o *watch) bool { return o == w })
	}
	clear(w.pending)
	w.finish()
}

func withDetail(detail string) string {
	if detail == "" {
		return ""
	}
	return ": " + detail
}

// request chooses instances, lets act do something to each, and waits until
// settled is true of each or ctx ends, which is not an error. It is begun in any case:
// ctx is how long somebody waits.
func (g *Group) request(ctx context.Context, sel []Selector, act func([]*instance) error, settled func(*instance) (Outcome, bool)) (out []Outcome, unknown []Selector, err error) {
	var (
		w      *watch
		refuse error
	)
	err = g.do(context.WithoutCancel(ctx), func() {
		var list []*instance
		if list, unknown = g.choose(sel); len(list) == 0 {
			return
		}
		if refuse = act(list); refuse == nil {
			w = g.watch(list, settled)
		}
	})
	if err := errors.Join(err, refuse); err != nil || w == nil {
		return nil, unknown, err
	}
	out, err = g.wait(ctx, w)
	return out, unknown, err
}

// wait waits until w is done or ctx ends. If the group ends before, nobody knows what
// will become of the instances.
func (g *Group) wait(ctx context.Context, w *watch) ([]Outcome, error) {
	select {
	case <-w.done:
		_ = g.Turn(context.WithoutCancel(ctx))
		return w.outcomes, nil
	case <-g.ended:
	case <-ctx.Done():
		_ = g.do(context.WithoutCancel(ctx), w.giveUp)
	}
	select {
	case <-w.done:
		return w.outcomes, nil
	default:
		return nil, errEnded
	}
}

func (i *instance) outcome(v Verdict, message string) Outcome {
	return Outcome{Instance: i.name, Status: i.status, Verdict: v, Message: message}
}

// now is a settled function for requests that do not wait: it says message
// where settled has no outcome yet.
func now(message string, settled func(*instance) (Outcome, bool)) func(*instance) (Outcome, bool) {
	return func(i *instance) (Outcome, bool) {
		if o, ok := settled(i); ok {
			return o, true
		}
		return i.outcome(Done, message), true
	}
}

// up returns a settled function that waits for an instance to be started.
func up(already map[*instance]bool) func(*instance) (Outcome, bool) {
	return func(i *instance) (Outcome, bool) {
		switch {
		case already[i]:
			return i.outcome(Done, "already running"), true
		case i.again:
			return Outcome{}, false
		case i.status == task.StatusRunning && !i.program.Oneshot:
			return i.outcome(Done, "started"), true
		case i.status == task.StatusExited && i.exit.Expected:
			return i.outcome(Done, "completed"), true
		case i.status == task.StatusExited:
			return i.outcome(StartFailed, i.exit.String()), true
		case i.status == task.StatusFatal:
			return i.outcome(StartFailed, i.detail), true
		case i.status == task.StatusStopped:
			return i.outcome(CannotDo, "stopped by another request"), true
		}
		return Outcome{}, false
	}
}

// down waits for an instance to be stopped.
func down(already map[*instance]bool) func(*instance) (Outcome, bool) {
	return func(i *instance) (Outcome, bool) {
		switch {
		case already[i]:
			return i.outcome(Done, "already stopped"), true
		case i.status == task.StatusStopped:
			return i.outcome(Done, "stopped"+withDetail(i.endDetail())), true
		case i.desired:
			return i.outcome(CannotDo, "started by another request"), true
		}
		return Outcome{}, false
	}
}

// Start starts the instances that the selectors name, in order, and waits until
// each has started or will not; with wait false it does not wait.
func (g *Group) Start(ctx context.Context, sel []Selector, wait bool) ([]Outcome, []Selector, error) {
	already := map[*instance]bool{}
	settled := up(already)
	if !wait {
		settled = now("starting", settled)
	}
	return g.request(ctx, sel, func(list []*instance) error {
		if g.closing {
			return errEnded
		}
		for _, i := range list {
			already[i] = i.status == task.StatusRunning
			i.start()
		}
		return nil
	}, settled)
}

// Stop stops the instances that the selectors name, those of the highest
// priority number first, and waits until nothing is left of any.
func (g *Group) Stop(ctx context.Context, sel []Selector, wait bool) ([]Outcome, []Selector, error) {
	already := map[*instance]bool{}
	settled := down(already)
	if !wait {
		settled = now("stopping", settled)
	}
	return g.request(ctx, sel, func(list []*instance) error {
		for _, i := range list {
			already[i] = i.status == task.StatusStopped
			i.desired, i.again = false, false
		}
		g.stopInOrder(list, g.commit)
		return nil
	}, settled)
}

// stopBatch is how many instances are asked to stop at once: while these die, the
// next are written down.
const stopBatch = 32

// stopInOrder stops instances, and those of a lower priority number only when
// all of a higher one are gone. It calls commit now and then.
func (g *Group) stopInOrder(list []*instance, commit func()) {
	if len(list) == 0 {
		return
	}
	highest := list[0].program.Priority
	for _, i := range list {
		highest = max(highest, i.program.Priority)
	}
	var first, rest []*instance
	for _, i := range list {
		if i.program.Priority == highest {
			first = append(first, i)
		} else {
			i.touch()
			rest = append(rest, i)
		}
	}
	// In the order of their start: the kernel, asked for a child that has ended, looks
	// through them in that order.
	for n, i := range first {
		if g.killing {
			i.stop()
			i.killNow()
		} else if !i.wanted() {
			i.stop()
		}
		if (n+1)%stopBatch == 0 {
			commit()
		}
	}
	w := g.watch(first, func(i *instance) (Outcome, bool) {
		return Outcome{}, !i.live() || i.wanted()
	})
	if len(w.pending) == 0 {
		g.stopInOrder(rest, commit)
		return
	}
	w.after = func() { g.stopInOrder(rest, func() {}) } // in the middle of an event nothing is committed
}

// killNow ends a stop that is under way at once.
func (i *instance) killNow() {
	if i.status == task.StatusStopping {
		i.touch()
		i.kill()
	}
}

// Restart stops and starts the instances that the selectors name. With rolling,
// one instance of a program after the other, each only when the one before is
// up; the first that does not come up ends it.
func (g *Group) Restart(ctx context.Context, sel []Selector, wait, rolling bool) ([]Outcome, []Selector, error) {
	if rolling {
		return g.rollingRestart(ctx, sel)
	}
	settled := up(nil)
	if !wait {
		settled = now("restarting", settled)
	}
	return g.request(ctx, sel, func(list []*instance) error {
		if g.closing {
			return errEnded
		}
		for _, i := range list {
			i.restart()
		}
		return nil
	}, renamed(settled))
}

// renamed says "restarted" where settled says "started".
func renamed(settled func(*instance) (Outcome, bool)) func(*instance) (Outcome, bool) {
	return func(i *instance) (Outcome, bool) {
		o, ok := settled(i)
		if o.Message == "started" {
			o.Message = "restarted"
		}
		return o, ok
	}
}

func (g *Group) rollingRestart(ctx context.Context, sel []Selector) (out []Outcome, unknown []Selector, err error) {
	list, unknown, err := g.Snapshot(ctx, sel)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range list {
		one, _, err := g.Restart(ctx, []Selector{{text: s.Name}}, true, false)
		if err != nil {
			return out, unknown, err
		}
		out = append(out, one...)
		if len(one) == 1 && one[0].Verdict != Done {
			return out, unknown, nil
		}
	}
	return out, unknown, nil
}

// Signal sends a signal to the main process of each instance that the selectors
// name.
func (g *Group) Signal(ctx context.Context, sel []Selector, sig syscall.Signal) ([]Outcome, []Selector, error) {
	results := map[*instance]Outcome{}
	return g.request(ctx, sel, func(list []*instance) error {
		for _, i := range list {
			switch err := g.host.Signal(i.taskID, sig); {
			case i.pid == 0 || !i.live() || errors.Is(err, syscall.ESRCH):
				results[i] = i.outcome(CannotDo, "not running")
			case err != nil:
				results[i] = i.outcome(CannotDo, fmt.Sprintf("cannot signal process %d: %v", i.pid, err))
			default:
				results[i] = i.outcome(Done, "sent SIG"+proc.SignalName(sig))
			}
		}
		return nil
	}, func(i *instance) (Outcome, bool) { return results[i], true })
}

// Wait waits until each instance that the selectors name has the given status:
// running or stopped. Stopped is also what has ended for good.
func (g *Group) Wait(ctx context.Context, sel []Selector, running bool) ([]Outcome, []Selector, error) {
	return g.request(ctx, sel, func([]*instance) error { return nil }, func(i *instance) (Outcome, bool) {
		rests := !i.live() && i.status != task.StatusBackoff
		switch {
		case running && i.status == task.StatusRunning, !running && rests:
			return i.outcome(Done, string(i.status)), true
		case running && i.status == task.StatusExited && i.ok(): // it has done what it was to do
			return i.outcome(Done, string(i.status)), true
		case running && (i.status == task.StatusFatal || i.status == task.StatusExited):
			return i.outcome(StartFailed, string(i.status)+withDetail(i.detail)), true
		case i.dropped:
			return i.outcome(CannotDo, "no longer in the configuration"), true
		}
		return Outcome{}, false
	})
}

// Scale changes how many instances a program has.
func (g *Group) Scale(ctx context.Context, program string, n int) error {
	var missing error
	err := g.do(ctx, func() {
		p := g.programs[program]
		if p == nil {
			missing = errors.New("no such program: " + program)
			return
		}
		scaled := *p
		scaled.NumProcs = n
		var all []*Program
		for name, other := range g.programs {
			if name == program {
				other = &scaled
			}
			all = append(all, other)
		}
		g.apply(all, nil)
	})
	return errors.Join(err, missing)
}

// Shutdown stops all instances, those of the highest priority number first, and
// returns when nothing is left of any. From then on nothing is started. What an
// instance is meant to do stays recorded: should all be killed before the end, a
// successor knows what ran. A second call of KillAll ends the patience.
func (g *Group) Shutdown(ctx context.Context) error {
	var w *watch
	err := g.do(ctx, func() {
		g.closing = true
		for _, i := range g.order {
			i.again = false
		}
		g.stopInOrder(g.order, g.commit)
		w = g.watch(slices.Clone(g.order), func(i *instance) (Outcome, bool) { return Outcome{}, !i.live() })
	})
	if err != nil {
		return err
	}
	_, _ = g.wait(ctx, w)
	return ctx.Err()
}

// KillAll ends every stop that is under way at once, and makes later ones so.
func (g *Group) KillAll(ctx context.Context) error {
	return g.do(ctx, func() {
		g.killing = true
		for _, i := range g.order {
			i.killNow()
		}
		if g.closing {
			for _, i := range g.order {
				if i.live() {
					i.stop()
					i.killNow()
				}
			}
		}
	})
}

// Uptime returns how long the living task of the instance has run.
func (s *Instance) Uptime() time.Duration {
	if s.Started.IsZero() {
		return 0
	}
	return time.Since(s.Started)
}
