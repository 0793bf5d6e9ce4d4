package runner

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pm.example/proc"
	"pm.example/task"
)

// Host starts, signals and ends the processes of tasks. [proc.Keeper] is one.
// Its methods do not block; what comes of them arrives through Take, of which
// Ready tells.
type Host interface {
	Spawn(id string, rank int, prepare func() (*proc.Command, error))
	Signal(id string, sig syscall.Signal) error
	Terminate(id string, step int, sig syscall.Signal, exclude []string)
	Kill(id string)
	Release(id string)
	Ready() <-chan struct{}
	Take() []proc.Event
}

// Options are what a Group needs of its surroundings.
type Options struct {
	Host Host
	// Tell is called with every event, in order, from the goroutine of Run. It
	// must not block and must not call the Group.
	Tell func(Event)
	// Capture is called with the pipes of a spawned instance, or of a task whose
	// instance is no more: program is empty then. It owns them, and must not
	// block. Drop is called when an instance is no more.
	Capture func(program string, index int, e proc.Event)
	Drop    func(program string, index int)
	Log     *slog.Logger
	// Random returns numbers in [0, 1); nil: math/rand.
	Random func() float64
	// Bug is told of illegal transitions; nil: they are logged.
	Bug func(error)
	// Journal keeps the states of instances for a successor; nil: there is none.
	Journal Journal
}

// Journal keeps records of instances, so that a process that takes over from
// one that was killed goes on where that was. It is used from one goroutine at
// a time.
type Journal interface {
	// Put replaces the record of an instance; nil removes it. It copies the record.
	Put(program string, index int, record []byte)
	// Commit writes what was put, before anything is done that depends on it.
	Commit()
}

// Group keeps the instances of a set of programs. Its methods may be called
// from any goroutine while Run runs.
type Group struct {
	host     Host
	tell     func(Event)
	capture  func(string, int, proc.Event)
	dropped  func(string, int)
	log      *slog.Logger
	random   func() float64
	bug      func(error)
	runID    string
	requests chan func()
	ended    chan struct{} // closed when Run has returned

	// What follows belongs to the goroutine of Run.
	programs map[string]*Program
	slots    map[slot]*instance
	byTask   map[string]*instance
	order    []*instance // by priority, name and index
	timers   *timers
	tasks    uint64
	closing  bool
	killing  bool
	orphaned bool // the tasks of an earlier group have lost their keeper
	journal  Journal
	planner  planner         // nil: the host cannot
	dirty    []*instance     // whose records are outdated
	room     []byte          // for one record after the other
	effects  []func()        // to be done once the records are written
	replayed map[string]bool // tasks that the host has told of, until it has told of all
}

// slot identifies an instance whatever its name is now.
type slot struct {
	program string
	index   int
}

// errEnded is returned to requests that come after Run has ended.
var errEnded = errors.New("the daemon is going down")

// New returns a group without programs; [Group.Apply] gives it some once Run
// runs.
func New(o Options) *Group {
	g := &Group{
		host: o.Host, tell: o.Tell, capture: o.Capture, dropped: o.Drop, log: o.Log, random: o.Random, bug: o.Bug, journal: o.Journal,
		runID:    strconv.FormatInt(time.Now().UnixMilli(), 36),
		requests: make(chan func()),
		ended:    make(chan struct{}),
		programs: map[string]*Program{},
		slots:    map[slot]*instance{},
		byTask:   map[string]*instance{},
		timers:   newTimers(),
	}
	g.planner, _ = o.Host.(planner)
	if g.random == nil {
		g.random = rand.Float64
	}
	if g.bug == nil {
		g.bug = func(err error) { g.log.Error("bug: illegal transition", "error", err) }
	}
	return g
}

// Run owns the instances until ctx ends. It does not stop them: see
// [Group.Shutdown].
func (g *Group) Run(ctx context.Context) error {
	defer close(g.ended)
	defer g.timers.clock.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.host.Ready():
			g.takeEvents()
		case f := <-g.requests:
			f()
		case <-g.timers.clock.C:
			// A death that has already been reported comes before a timer that
			// would call the dead task started.
			g.takeEvents()
			for _, i := range g.timers.due(time.Now()) {
				i.expired()
			}
		}
		g.commit()
	}
}

// effect does something that reaches the host, or if records are kept, does it
// once the states from which it follows are written.
func (g *Group) effect(f func()) {
	if g.journal == nil {
		f()
		return
	}
	g.effects = append(g.effects, f)
}

// commit ends a turn: what has changed is recorded, then what follows is done.
// Whoever dies between the two is followed by one that does it.
func (g *Group) commit() {
	if g.journal == nil {
		return
	}
	for _, i := range g.dirty {
		i.dirty = false
		if i.dropped {
			g.journal.Put(i.program.Name, i.index, nil)
		} else {
			g.room = i.record(g.room[:0])
			g.journal.Put(i.program.Name, i.index, g.room)
		}
	}
	clear(g.dirty)
	g.dirty = g.dirty[:0]
	g.journal.Commit()
	for _, f := range g.effects {
		f()
	}
	clear(g.effects)
	g.effects = g.effects[:0]
}

func (g *Group) takeEvents() {
	for _, e := range g.host.Take() {
		if e.Kind == proc.Replayed {
			g.reconcile()
			continue
		}
		if g.replayed != nil {
			g.replayed[e.ID] = true
		}
		if i := g.byTask[e.ID]; i != nil && i.taskID == e.ID {
			i.event(e)
		} else {
			g.stray(e)
		}
	}
}

// stray handles an event of a task that no instance has, or has no more:
// nothing of it may run on, and what it wrote is not lost.
func (g *Group) stray(e proc.Event) {
	if e.Kind == proc.Spawned {
		program, index := g.ownerOf(e.ID)
		g.capture(program, index, e)
		g.effect(func() { g.host.Kill(e.ID) })
	}
	g.effect(func() { g.host.Release(e.ID) })
}

// ownerOf returns the instance that had a task, by the task's id; an empty name
// if there is none.
func (g *Group) ownerOf(id string) (program string, index int) {
	name := id[:max(strings.LastIndexByte(id, '.'), 0)]
	for _, i := range g.order {
		if i.name == name {
			return i.program.Name, i.index
		}
	}
	return "", 0
}

func (i *instance) event(e proc.Event) {
	i.touch()
	switch e.Kind {
	case proc.Spawned:
		i.group.capture(i.program.Name, i.index, e)
		if i.pid != 0 { // told again
			return
		}
		i.spawned(e)
	case proc.Failed:
		i.failed(e)
	case proc.Exited:
		if i.dead { // told again
			return
		}
		i.dead = true
		i.died(e)
	case proc.Lingering:
		i.lingering(e)
	case proc.Empty:
		i.empty()
	}
}

// release forgets the task of an instance, here and at the host.
func (g *Group) release(i *instance) {
	id := i.taskID
	delete(g.byTask, id)
	g.effect(func() { g.host.Release(id) })
}

// do runs f in the goroutine of Run and waits until that is done and recorded:
// what a client is told stays true.
func (g *Group) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case g.requests <- func() { f(); g.effect(func() { close(done) }) }:
		select {
		case <-done:
			return nil
		case <-g.ended:
			return errEnded
		}
	case <-g.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Turn waits for a turn of the group in which nothing is done but what each ends with:
// what has changed is recorded.
func (g *Group) Turn(ctx context.Context) error { return g.do(ctx, func() {}) }

// Snapshot returns the instances that the selectors name, all if there are no
// selectors, in the order of their start; and the selectors that named none.
func (g *Group) Snapshot(ctx context.Context, sel []Selector) (out []Instance, unknown []Selector, err error) {
	err = g.do(ctx, func() {
		list, none := g.order, []Selector(nil)
		if len(sel) > 0 {
			list, none = g.choose(sel)
		}
		unknown = none
		out = make([]Instance, len(list))
		for n, i := range list {
			out[n] = i.snapshot()
		}
	})
	return out, unknown, err
}

// choose returns the instances that any of the selectors names, in order.
func (g *Group) choose(sel []Selector) (list []*instance, unknown []Selector) {
	hit := make([]bool, len(sel))
	for _, i := range g.order {
		matched := false
		for n, s := range sel {
			if s.Match(i.name, i.program.Name, i.program.Group) {
				matched, hit[n] = true, true
			}
		}
		if matched {
			list = append(list, i)
		}
	}
	for n, s := range sel {
		if !hit[n] {
			unknown = append(unknown, s)
		}
	}
	return list, unknown
}

// Apply makes the group keep these programs and no others. Instances whose
// program is in respawn are restarted if they run; all others that stay keep
// their processes. Instances that were stopped by hand stay stopped. Of a program
// that is the very one that it was, nothing is looked at: a reload of one among
// thousands costs no more than that one.
//
// record is called in the turn of the group that does it, to record with the
// states of the instances from what they follow; nil: nothing is.
func (g *Group) Apply(ctx context.Context, programs []*Program, respawn map[string]bool, record func()) error {
	return g.do(ctx, func() {
		if record != nil {
			record()
		}
		g.apply(programs, respawn)
	})
}

func (g *Group) apply(programs []*Program, respawn map[string]bool) {
	next := make(map[string]*Program, len(programs))
	for _, p := range programs {
		next[p.Name] = p
	}
	old := g.programs
	g.programs = next
	for _, i := range slices.Clone(g.order) {
		p := next[i.program.Name]
		if p == nil || i.index >= p.NumProcs {
			i.remove()
			continue
		}
		i.adopt(p, respawn[p.Name])
	}
	fresh := map[*instance]bool{}
	for _, p := range programs {
		g.grow(p, old[p.Name] != nil, fresh)
	}
	g.sort()
	for _, i := range g.order {
		if fresh[i] {
			i.start()
		}
	}
}

// grow adds the instances that a program lacks, and notes those to start.
func (g *Group) grow(p *Program, known bool, start map[*instance]bool) {
	wanted := p.Autostart
	if known {
		wanted = g.anyDesired(p)
	}
	for index := range p.NumProcs {
		if g.slots[slot{p.Name, index}] != nil {
			continue
		}
		i := &instance{
			group: g, program: p, index: index, name: instanceName(p, index),
			status: task.StatusStopped, since: time.Now(),
		}
		g.add(i)
		if known {
			i.tell(EventAdded, "")
		}
		if wanted && !g.closing {
			start[i] = true
		}
	}
}

func (g *Group) add(i *instance) {
	g.slots[slot{i.program.Name, i.index}] = i
	g.order = append(g.order, i)
	i.touch()
}

// anyDesired reports whether an instance of the program is meant to run.
func (g *Group) anyDesired(p *Program) bool {
	any, desired := false, false
	for index := range p.NumProcs {
		if i := g.slots[slot{p.Name, index}]; i != nil {
			any = true
			desired = desired || i.desired
		}
	}
	return desired || !any && p.Autostart
}

func (g *Group) sort() {
	slices.SortFunc(g.order, func(a, b *instance) int {
		return cmp.Or(
			cmp.Compare(a.program.Priority, b.program.Priority),
			cmp.Compare(a.program.Name, b.program.Name),
			cmp.Compare(a.index, b.index))
	})
}

// adopt gives the instance a new description of its program.
func (i *instance) adopt(p *Program, respawn bool) {
	if i.program == p && !respawn && !i.removing {
		return
	}
	i.touch()
	i.program, i.name = p, instanceName(p, i.index)
	i.replan()
	if i.removing {
		i.removing, i.desired, i.again = false, true, true
		return
	}
	if !respawn || !i.desired {
		return
	}
	switch i.status {
	case task.StatusStopping:
		i.again = true
	case task.StatusStarting, task.StatusRunning:
		i.again = true
		i.beginStop("its configuration changed")
	default:
		i.start()
	}
}

// remove stops the instance and then takes it out of the group.
func (i *instance) remove() {
	i.removing = true
	i.touch()
	if i.status == task.StatusStopped {
		i.group.drop(i)
		return
	}
	i.stop()
}

// drop takes a stopped instance out of the group.
func (g *Group) drop(i *instance) {
	g.timers.clear(i)
	delete(g.slots, slot{i.program.Name, i.index})
	g.order = slices.DeleteFunc(g.order, func(o *instance) bool { return o == i })
	i.dropped = true
	i.touch()
	g.dropped(i.program.Name, i.index)
	i.tell(EventRemoved, "")
	i.changed()
}
