package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"pm.example/codec"
	"pm.example/proc"
)

// Options are what a keeper needs of its surroundings.
type Options struct {
	Programs *proc.Keeper
	// Start starts a worker of the program at path, or if that is empty of this
	// process's own, that is connected by conn.
	Start func(path string, conn *os.File) (*proc.Attendant, error)
	// Signals are passed on to the worker.
	Signals <-chan os.Signal
	// Inheritance is what this keeper has got from the one that it replaces.
	Inheritance
	Log *slog.Logger

	failure string // of an upgrade
}

// Inheritance is what a keeper needs to take another's place.
type Inheritance struct {
	StateDir string
	Held     map[string]*os.File
	// Orphaned says that the other was killed, Upgraded that it was an earlier
	// program in this process.
	Orphaned, Upgraded bool
}

// Outcome is how a keeper's work has ended.
type Outcome struct {
	// Code is the exit code that the worker has chosen.
	Code int
	// Keep says that the programs are to run on.
	Keep bool
	// Upgrade is the path of the program that this process is to become; empty:
	// none.
	Upgrade string
	// Inheritance is then what it needs.
	Inheritance
}

// keeper is the state of Run.
type keeper struct {
	Options
	mustGo   bool // on, whatever happens: there may be programs
	pending  []os.Signal
	previous string   // how the worker before has ended
	refused  string   // why the last upgrade has failed
	trial    string   // the program that the present worker is tried of
	proven   bool     // it serves
	outcome  *Outcome // what the worker wants
}

// Pauses before a worker is started again. A few follow at once, since nobody is in
// control meanwhile; those that cannot live must not take the machine.
const (
	atOnce     = 5 // in a row that did not live well
	firstPause = 50 * time.Millisecond
	longest    = 5 * time.Second
	livedWell  = 10 * time.Second
)

// pauseAfter returns how long to wait after so many workers in a row that did not
// live well.
func pauseAfter(early int) time.Duration {
	if early <= atOnce {
		return 0
	}
	return min(firstPause<<min(early-atOnce-1, 10), longest)
}

// Run starts workers, one after the other, until one ends for good, or the first
// cannot begin.
func Run(ctx context.Context, o Options) (Outcome, error) {
	k := &keeper{Options: o, mustGo: o.StateDir != "", refused: o.failure}
	if k.Held == nil {
		k.Held = map[string]*os.File{}
	}
	early := 0
	for {
		begun := time.Now()
		ended, err := k.work(ctx)
		switch {
		case err != nil && !k.mustGo:
			return Outcome{}, err
		case k.trial != "":
			if k.proven {
				k.Orphaned, k.Upgraded = false, true
				return Outcome{Upgrade: k.trial, Inheritance: k.Inheritance}, nil
			}
			k.refused = fmt.Sprintf("%s did not take over: %s; why, it may have said on the daemon's standard error", k.trial, describe(ended, err))
			k.trial = ""
			continue
		case k.outcome != nil && k.outcome.Upgrade != "":
			k.trial, k.outcome = k.outcome.Upgrade, nil
			continue
		case k.outcome != nil:
			return *k.outcome, nil
		case !k.mustGo:
			return Outcome{Code: exitCode(ended)}, nil
		}
		k.previous = describe(ended, err)
		k.Log.Error("the worker has ended, the next is started; programs run on", "end", k.previous, "after", time.Since(begun).Round(time.Millisecond))
		if early++; time.Since(begun) > livedWell {
			early = 1
		}
		time.Sleep(pauseAfter(early))
	}
}

// Failed notes that the program of an Outcome could not be become; the keeper may
// then Run on.
func (o Options) Failed(err error) Options {
	o.Upgraded, o.failure = false, err.Error()
	return o
}

func exitCode(s proc.Status) int {
	if s.Signal != 0 {
		return 128 + int(s.Signal)
	}
	return s.Code
}

func describe(s proc.Status, err error) string {
	if err != nil {
		return err.Error()
	}
	if s.Signal != 0 {
		return "killed by SIG" + proc.SignalName(s.Signal)
	}
	return fmt.Sprintf("exit %d", s.Code)
}

// work starts a worker and serves it until it has ended.
func (k *keeper) work(ctx context.Context) (proc.Status, error) {
	own, other, err := pair()
	if err != nil {
		return proc.Status{}, err
	}
	worker, err := k.Start(k.trial, other)
	_ = other.Close()
	if err != nil {
		_ = own.Close()
		return proc.Status{}, fmt.Errorf("cannot start the worker: %w", err)
	}
	defer worker.Close()
	w, err := newWire(own)
	if err != nil {
		return proc.Status{}, err
	}
	s := &session{keeper: k, wire: w, requests: make(chan func(), 1), last: &proc.Command{}}
	go s.receive() // ends with the connection
	status := s.serve(ctx, worker)
	for f := range s.requests { // what the worker has said before its end counts
		f()
	}
	w.close()
	return status, nil
}

// session is one worker's connection. Frames are read in one goroutine; all else
// is done in that of serve.
type session struct {
	*keeper
	wire     *wire
	requests chan func()
	last     *proc.Command // that came
	open     bool          // the worker wants events
	deaf     bool          // what it says cannot be heard any more
	unheard  bool          // the output of some programs waits for descriptors
	handed   bool          // that of others was handed out
}

// gather is how long events wait after those that were told last: in a burst they
// go many at once, which spares a turn of the worker for each.
const gather = time.Millisecond

// remindAfter is how long it takes until pipes that could not be handed out for want
// of descriptors are tried again.
const remindAfter = time.Second

// trimAfter is how long nothing must happen before memory is given back.
const trimAfter = 3 * time.Second

// trialTime is how long a worker of a new program may take until it serves.
const trialTime = 30 * time.Second

// serve tells the worker of events until it has ended. One that is on trial has
// done its duty when it serves, and one that has asked for an upgrade, when that
// is heard.
func (s *session) serve(ctx context.Context, worker *proc.Attendant) proc.Status {
	s.sayHello()
	var late <-chan time.Time
	if s.trial != "" {
		late = time.After(trialTime)
	}
	quiet, rest := time.NewTimer(trimAfter), time.NewTimer(0)
	defer quiet.Stop()
	defer rest.Stop()
	resting := true
	var remind <-chan time.Time
	for {
		if s.unheard {
			wait := remindAfter
			if s.handed { // what was handed out is closed now, and there is room for more
				wait = gather
			}
			s.unheard, s.handed, remind = false, false, time.After(wait)
		}
		if s.deaf || s.trial != "" && s.proven || s.outcome != nil && s.outcome.Upgrade != "" {
			_ = worker.Signal(syscall.SIGKILL)
		}
		var events <-chan struct{}
		if !resting {
			events = s.Programs.Ready()
		}
		select {
		case status := <-worker.Ended:
			return status
		case f, ok := <-s.requests:
			if !ok { // the worker is about to end
				return <-worker.Ended
			}
			f()
		case <-events:
			s.heard()
			quiet.Reset(trimAfter)
			resting = true
			rest.Reset(gather)
		case <-rest.C:
			resting = false
		case <-remind:
			s.unheard = s.Programs.Remind()
		case <-quiet.C:
			proc.Trim()
		case sig := <-s.Signals:
			s.pending = append(s.pending, sig)
			s.passOn()
		case <-late:
			_ = worker.Signal(syscall.SIGKILL)
		case <-ctx.Done():
			_ = worker.Signal(syscall.SIGKILL)
			return <-worker.Ended
		}
	}
}

func (s *session) sayHello() {
	names := slices.Sorted(maps.Keys(s.Held))
	hello := frame(kindHello, func(e *codec.Encoder) {
		e.Int(wireVersion)
		e.String(s.StateDir)
		e.String(s.previous)
		e.Bool(s.Orphaned)
		e.Bool(s.Upgraded)
		e.String(s.refused)
		e.Strings(names)
	})
	var fds []int
	for _, name := range names {
		fds = append(fds, int(s.Held[name].Fd()))
	}
	_ = s.wire.send(hello, fds...) // an error is the worker's end, which is told
}

// heard tells the worker what has happened. For one that is just starting it is
// written down at once, and told by Replay: it may take a while, and the keeper
// may be killed meanwhile.
func (s *session) heard() {
	if s.open {
		s.tell(s.Programs.Take())
	} else {
		s.Programs.Commit()
	}
}

// tell sends events. What cannot be sent is told again to the next worker.
func (s *session) tell(events []proc.Event) {
	var (
		batch []byte
		fds   []int
	)
	for n, ev := range events {
		s.unheard = s.unheard || ev.Unheard
		batch = appendFrame(batch, kindEvent, func(e *codec.Encoder) { fds = append(fds, encodeEvent(e, ev)...) })
		if n == len(events)-1 || len(batch) >= readSize || len(fds) >= maxRights-1 {
			_ = s.wire.send(batch, fds...)
			batch, fds = batch[:0], fds[:0]
		}
	}
	for _, ev := range events {
		s.handed = s.handed || ev.Kind == proc.Spawned && max(ev.Stdout, ev.Stderr) >= 0
		ev.ClosePipes()
	}
}

// passOn sends the signals that came, once the worker takes them.
func (s *session) passOn() {
	if !s.open {
		return
	}
	for _, sig := range s.pending {
		_ = s.wire.send(frame(kindAsked, func(e *codec.Encoder) { e.Int(int(sig.(syscall.Signal))) }))
	}
	s.pending = nil
}

// receive reads what the worker says. Requests about programs are carried out
// here: the keeper's methods return at once.
func (s *session) receive() {
	defer close(s.requests)
	for {
		k, d, err := s.wire.receive()
		if errors.Is(err, errTooManyFiles) {
			s.requests <- func() { s.deaf = true }
		}
		if err != nil {
			return
		}
		s.handle(k, d)
	}
}

func (s *session) handle(k kind, d *codec.Decoder) {
	switch k {
	case kindSpawn:
		id, rank := d.String(), d.Int()
		command := decodeCommand(d, s.last)
		s.last = command
		err := d.Err() // the decoder is for the next frame when this is asked for
		s.Programs.Spawn(id, rank, func() (*proc.Command, error) { return command, err })
	case kindPlan:
		id, next := d.String(), decodeSuccessor(d, s.last)
		if d.Err() == nil {
			s.Programs.Plan(id, next)
		}
	case kindUnplan:
		s.Programs.Unplan(d.String())
	case kindSignal:
		question, id, sig := d.Int(), d.String(), syscall.Signal(d.Int())
		errno := errnoOf(s.Programs.Signal(id, sig))
		s.requests <- func() { s.answer(question, errno) }
	case kindTerminate:
		s.Programs.Terminate(d.String(), d.Int(), syscall.Signal(d.Int()), d.Strings())
	case kindKill:
		s.Programs.Kill(d.String())
	case kindRelease:
		s.Programs.Release(d.String())
	case kindDrained:
		s.Programs.Drained(d.String(), d.Int())
	case kindOpen:
		stateDir, records := d.String(), d.String()
		s.requests <- func() { s.begin(stateDir, records) }
	case kindHold:
		name, fd := d.String(), s.wire.descriptor()
		s.requests <- func() { s.hold(name, fd) }
	case kindServing:
		s.requests <- s.serving
	case kindEnd:
		code, keep := d.Int(), d.Bool()
		s.requests <- func() { s.outcome = &Outcome{Code: code, Keep: keep} }
	case kindUpgrade:
		path := d.String()
		s.requests <- func() { s.outcome = &Outcome{Upgrade: path} }
	}
}

// serving notes that the worker serves: what it was told of the past is told.
func (s *session) serving() {
	if s.trial != "" {
		s.proven = true
		return
	}
	s.previous, s.refused, s.Orphaned, s.Upgraded = "", "", false, false
}

func (s *session) answer(question int, errno syscall.Errno) {
	_ = s.wire.send(frame(kindSignaled, func(e *codec.Encoder) {
		e.Int(question)
		e.Int(int(errno))
	}))
}

// begin opens the records, if that was not done for an earlier worker, and tells
// of all tasks.
func (s *session) begin(stateDir, records string) {
	if !s.Programs.Resumed() {
		warning, err := s.Programs.Resume(records)
		if err != nil {
			s.text(kindRefused, err)
			return
		}
		if warning != nil {
			s.text(kindWarning, warning)
		}
	}
	s.StateDir = stateDir
	s.mustGo = true // from here on the worker may ask for programs
	s.open = true
	s.Programs.Replay()
	s.tell(s.Programs.Take())
	s.passOn()
}

func (s *session) text(k kind, err error) {
	_ = s.wire.send(frame(k, func(e *codec.Encoder) { e.String(err.Error()) }))
}

func (s *session) hold(name string, fd int) {
	if fd < 0 {
		return
	}
	if old := s.Held[name]; old != nil {
		_ = old.Close()
	}
	s.Held[name] = os.NewFile(uintptr(fd), name)
}
