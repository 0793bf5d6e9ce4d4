package runner

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
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

// keptHost plays a keeper that outlives the groups: whoever attaches is told of
// all tasks anew. It counts what must happen once.
type keptHost struct {
	ready  chan struct{}
	mu     sync.Mutex // guards all below
	events []proc.Event
	tasks  map[string]*keptTask
	behave func(n int) life
	spawns []string
	stops  map[string]int // how often each step of each stop was carried out
}

type keptTask struct {
	id     string
	life   life
	pid    int
	failed *proc.SpawnError
	at     time.Time
	end    *proc.Event
	step   int
}

func newKeptHost(behave func(n int) life) *keptHost {
	return &keptHost{ready: make(chan struct{}, 1), tasks: map[string]*keptTask{}, behave: behave, stops: map[string]int{}}
}

// tell queues an event. The caller holds h.mu.
func (h *keptHost) tell(e proc.Event) {
	h.events = append(h.events, e)
	select {
	case h.ready <- struct{}{}:
	default:
	}
}

// replay tells of all tasks from their beginning.
func (h *keptHost) replay() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = nil
	for _, id := range slices.Sorted(maps.Keys(h.tasks)) {
		h.tellAll(h.tasks[id])
	}
	h.tell(proc.Event{Kind: proc.Replayed, At: time.Now()})
}

func (h *keptHost) tellAll(t *keptTask) {
	if t.failed != nil {
		h.tell(proc.Event{ID: t.id, Kind: proc.Failed, At: t.at, Err: t.failed})
		return
	}
	h.tell(proc.Event{ID: t.id, Kind: proc.Spawned, PID: t.pid, At: t.at, Stdout: -1, Stderr: -1})
	if t.end != nil {
		h.tell(*t.end)
		if t.end.Left == 0 {
			h.tell(proc.Event{ID: t.id, Kind: proc.Empty, At: t.end.At})
		}
	}
}

func (h *keptHost) Spawn(id string, _ int, _ func() (*proc.Command, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tasks[id] != nil {
		return
	}
	h.spawns = append(h.spawns, id)
	t := &keptTask{id: id, life: h.behave(len(h.spawns)), pid: 100 + len(h.spawns), at: time.Now()}
	t.failed = t.life.fail
	h.tasks[id] = t
	h.tellAll(t)
	if t.failed == nil && t.life.lasts >= 0 {
		time.AfterFunc(t.life.lasts, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.end(t, t.life.status)
		})
	}
}

// end ends a task's process. The caller holds h.mu.
func (h *keptHost) end(t *keptTask, s proc.Status) {
	if t.end != nil {
		return
	}
	t.end = &proc.Event{ID: t.id, Kind: proc.Exited, PID: t.pid, At: time.Now(), Status: s}
	h.tell(*t.end)
	h.tell(proc.Event{ID: t.id, Kind: proc.Empty, At: time.Now()})
}

func (h *keptHost) Terminate(id string, step int, sig syscall.Signal, _ []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.tasks[id]
	if t == nil || step <= t.step || t.end != nil {
		return
	}
	t.step = step
	h.stops[fmt.Sprintf("%s step %d", id, step)]++
	if !t.life.deaf {
		h.end(t, proc.Status{Code: -1, Signal: sig})
	}
}

func (h *keptHost) Kill(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.tasks[id]; t != nil && t.failed == nil {
		h.end(t, proc.Status{Code: -1, Signal: unix.SIGKILL})
	}
}

func (h *keptHost) Release(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.tasks[id]; t != nil && (t.end != nil || t.failed != nil) {
		delete(h.tasks, id)
	}
}

func (h *keptHost) Signal(string, syscall.Signal) error { return nil }

func (h *keptHost) Ready() <-chan struct{} { return h.ready }

func (h *keptHost) Take() []proc.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	events := h.events
	h.events = nil
	return events
}

// mortalJournal keeps records like a file. At one commit its writer dies: before
// anything is written, or right after.
type mortalJournal struct {
	records map[string]Saved
	put     map[string]*Saved
	written func()
	commits int
	diesAt  int // 0: never
	after   bool
}

var errDied = errors.New("the process of the group is dead")

func (j *mortalJournal) Put(program string, index int, record []byte) {
	key := fmt.Sprintf("%s:%d", program, index)
	j.put[key] = nil
	if record != nil {
		j.put[key] = &Saved{Program: program, Index: index, Record: slices.Clone(record)}
	}
}

func (j *mortalJournal) Commit() {
	j.commits++
	if j.commits == j.diesAt && !j.after {
		panic(errDied)
	}
	for key, s := range j.put {
		delete(j.records, key)
		if s != nil {
			j.records[key] = *s
		}
	}
	clear(j.put)
	j.written()
	if j.commits == j.diesAt {
		panic(errDied)
	}
}

// story is what becomes of a program, and what is asked of it.
type story struct {
	name    string
	behave  func(n int) life
	program func(p *Program)
	asks    []ask
	lasts   time.Duration
}

type ask struct {
	at time.Duration
	do func(ctx context.Context, g *Group, sel []Selector) error
}

func asks(do func(*Group) func(context.Context, []Selector, bool) ([]Outcome, []Selector, error)) func(context.Context, *Group, []Selector) error {
	return func(ctx context.Context, g *Group, sel []Selector) error {
		_, _, err := do(g)(ctx, sel, false)
		return err
	}
}

var (
	askStart = asks(func(g *Group) func(context.Context, []Selector, bool) ([]Outcome, []Selector, error) { return g.Start })
	askStop  = asks(func(g *Group) func(context.Context, []Selector, bool) ([]Outcome, []Selector, error) { return g.Stop })
)

var stories = []story{
	{name: "it runs", behave: always(forever), lasts: 5 * time.Second},
	{name: "it ends and is restarted", lasts: 30 * time.Second, behave: func(n int) life {
		if n <= 3 {
			return life{lasts: 2 * time.Second, status: proc.Status{Code: n}}
		}
		return forever
	}, program: func(p *Program) { p.Restart = RestartAlways }},
	{name: "it ends for good", behave: always(life{lasts: 2 * time.Second}), lasts: 5 * time.Second},
	{name: "it does not start", behave: always(life{lasts: time.Millisecond, status: proc.Status{Code: 3}}), lasts: time.Minute},
	{name: "it cannot be started for a while", lasts: time.Minute, behave: func(n int) life {
		if n <= 2 {
			return life{fail: &proc.SpawnError{Doing: "clone", Err: unix.EAGAIN, Passing: true}}
		}
		return forever
	}},
	{name: "it is stopped and started", behave: always(forever), lasts: 10 * time.Second, asks: []ask{{2 * time.Second, askStop}, {4 * time.Second, askStart}}},
	{name: "it withstands the stop", behave: always(life{lasts: -1, deaf: true}), lasts: 40 * time.Second, asks: []ask{{2 * time.Second, askStop}}},
	{name: "it is stopped in a wait", behave: always(life{lasts: time.Millisecond}), lasts: 10 * time.Second, asks: []ask{{500 * time.Millisecond, askStop}}},
}

// ending is what counts at the end of a story.
type ending struct {
	Status   task.Status
	Desired  bool
	Restarts int
	Exit     string
	Spawns   int
	Stops    map[string]int
	Told     []string // ends, in order
}

// tell plays a story in which the group dies at a commit; 0: at none. It returns
// the ending, and how many commits there were.
func (s story) tell(t *testing.T, diesAt int, after bool) (e ending, commits int) {
	h := newKeptHost(s.behave)
	p := service("web")
	if s.program != nil {
		s.program(p)
	}
	records := map[string]Saved{}
	begun := time.Now()
	first := newReign(t, h, p, records, &e, diesAt, after)
	g := first
	next := func() {
		time.Sleep(time.Millisecond) // tasks are named by the clock
		g = newReign(t, h, p, records, &e, 0, false)
	}
	var i Instance
	look := func(ctx context.Context, g *Group, web []Selector) error {
		list, _, err := g.Snapshot(ctx, web)
		if err == nil {
			i = list[0]
		}
		return err
	}
	pending := append(slices.Clone(s.asks), ask{s.lasts, look})
	for len(pending) > 0 {
		select {
		case <-g.over:
			next()
			continue
		case <-time.After(time.Until(begun.Add(pending[0].at))):
		}
		if err := pending[0].do(t.Context(), g.group, sel(t, "web")); err == nil {
			pending = pending[1:] // else it is asked again
		} else if !errors.Is(err, errEnded) {
			t.Fatal(err)
		}
	}
	e.Status, e.Desired, e.Restarts, e.Spawns, e.Stops = i.Status, i.Desired, i.Restarts, len(h.spawns), map[string]int{}
	if i.Exit != nil {
		e.Exit = i.Exit.String()
	}
	for step, n := range h.stops {
		_, step, _ = strings.Cut(step, " ")
		e.Stops[step] += n
	}
	g.end()
	<-g.over
	return e, first.journal.commits
}

// reign is the time of one group.
type reign struct {
	group   *Group
	journal *mortalJournal
	over    chan struct{} // closed when it has ended or died
	end     context.CancelFunc
}

func newReign(t *testing.T, h *keptHost, p *Program, records map[string]Saved, e *ending, diesAt int, after bool) *reign {
	var noted []string
	j := &mortalJournal{records: records, put: map[string]*Saved{}, diesAt: diesAt, after: after}
	j.written = func() {
		e.Told = append(e.Told, noted...)
		noted = nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &reign{journal: j, over: make(chan struct{}), end: cancel}
	r.group = New(Options{
		Host: h, Journal: j, Log: slog.New(slog.DiscardHandler), Random: func() float64 { return 0.5 },
		Tell: func(e Event) {
			if e.Exit != nil && e.PID != 0 {
				noted = append(noted, fmt.Sprintf("%s %s", e.Type, e.Exit))
			}
		},
		Capture: func(string, int, proc.Event) {}, Drop: func(string, int) {},
		Bug: func(err error) { t.Error(err) },
	})
	go func() { // ends with ctx, or when the group dies
		defer close(r.over)
		defer func() {
			if died := recover(); died != nil && died != errDied {
				panic(died)
			}
			cancel()
		}()
		h.replay()
		for _, fault := range r.group.Restore([]*Program{p}, slices.Collect(maps.Values(records)), Past{}) {
			t.Error(fault)
		}
		_ = r.group.Run(ctx)
	}()
	return r
}

// A group may die at any turn, before or after that is recorded: with its
// successor all ends as if it had lived. Nothing is started, stopped or told
// twice, and nothing is lost.
func TestSuccessorAtEveryTurn(t *testing.T) {
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			var want ending
			commits := 0
			synctest.Test(t, func(t *testing.T) { want, commits = s.tell(t, 0, false) })
			for at := 1; at <= commits; at++ {
				for _, after := range []bool{false, true} {
					synctest.Test(t, func(t *testing.T) {
						if got, _ := s.tell(t, at, after); !reflect.DeepEqual(got, want) {
							t.Errorf("dead at turn %d of %d (recorded: %v):\n%+v, want\n%+v", at, commits, after, got, want)
						}
					})
				}
			}
		})
	}
}

// recordOfAnEarlierRelease is a record of the first version, with every field.
const recordOfAnEarlierRelease = "02057765623a310853544f5050494e478aa8a69ccebfce972fb1c591f6d684a2d4020f73746f707065642062792068616e640101010101" +
	"097765623a312e782d31097765623a312e782d320c5441534b5f4b494c4c494e47528ad0fcd5d5bfce972fb99cbbbccf84a2d402040608" +
	"0a01011201018af8d28fddbfce972fb9f4e482c884a2d40280f085da2c01028aa0a9c9e4bfce972fb9cc8ec9c084a2d4028ac8ff82ecbfce972fa1a4b88fb984a2d4028af0d5bcf3bfce972fa1fce1d5b184a2d402"

// What an earlier release has written of an instance is read as it was meant: this
// fails when the fields change and the version does not.
func TestRecordOfAnEarlierRelease(t *testing.T) {
	record, err := hex.DecodeString(recordOfAnEarlierRelease)
	if err != nil {
		t.Fatal(err)
	}
	at := func(n int64) time.Time { return time.Unix(1_700_000_000+n, 5) }
	want := &instance{
		name: "web:1", status: task.StatusStopping, since: at(1), detail: "stopped by hand",
		desired: true, again: true, removing: true, dead: true, ended: true,
		taskID: "web:1.x-1", planned: "web:1.x-2", taskState: task.Killing, pid: 41, started: at(2),
		step: 2, failures: 3, crowded: 4, restarts: 5,
		exit: &Exit{
			Status: proc.Status{Code: -1, Signal: syscall.SIGKILL, Core: true, Unknown: true},
			At:     at(3), Lifetime: 6 * time.Second, Expected: true,
		},
		recent: []time.Time{at(4), at(5)},
	}
	got := &instance{}
	due, err := got.load(record, true)
	if err != nil || !due.Equal(at(6)) || !reflect.DeepEqual(got, want) {
		t.Errorf("due %s, %v: got %+v, want %+v", due, err, got, want)
	}
}
