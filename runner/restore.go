package runner

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"pm.example/codec"
	"pm.example/proc"
	"pm.example/task"
)

// A record is all that a successor needs to go on with an instance.

// recordVersion stands in front of every record. A new one is needed when the
// fields change; the old one then has to be read as well.
const recordVersion = 1

// touch notes that the record of the instance is outdated.
func (i *instance) touch() {
	if i.group.journal != nil && !i.dirty {
		i.dirty = true
		i.group.dirty = append(i.group.dirty, i)
	}
}

func (i *instance) record(room []byte) []byte {
	e := codec.Encoder(room)
	e.Int(recordVersion)
	e.String(i.name)
	e.String(string(i.status))
	e.Time(i.since)
	e.String(i.detail)
	for _, b := range []bool{i.desired, i.again, i.removing, i.dead, i.ended} {
		e.Bool(b)
	}
	e.String(i.taskID)
	e.String(i.planned)
	e.String(string(i.taskState))
	e.Int(i.pid)
	e.Time(i.started)
	for _, n := range []int{i.step, i.failures, i.crowded, i.restarts} {
		e.Int(n)
	}
	e.Bool(i.exit != nil)
	if i.exit != nil {
		proc.EncodeStatus(&e, i.exit.Status)
		e.Time(i.exit.At)
		e.Int(int(i.exit.Lifetime))
		e.Bool(i.exit.Expected)
	}
	e.Uint(uint64(len(i.recent)))
	for _, t := range i.recent {
		e.Time(t)
	}
	due := time.Time{}
	if i.timer != nil {
		due = i.timer.at
	}
	e.Time(due)
	return e
}

// load fills the instance from a record, and returns when its timer is due.
func (i *instance) load(record []byte, rebooted bool) (due time.Time, err error) {
	d := codec.NewDecoder(record)
	d.Rebooted = rebooted
	if v := d.Int(); v != recordVersion {
		return due, fmt.Errorf("it has version %d, and this pm reads %d", v, recordVersion)
	}
	i.name = d.String()
	i.status, i.since, i.detail = task.Status(d.String()), d.Time(), d.String()
	for _, b := range []*bool{&i.desired, &i.again, &i.removing, &i.dead, &i.ended} {
		*b = d.Bool()
	}
	i.taskID, i.planned, i.taskState = d.String(), d.String(), task.State(d.String())
	i.pid, i.started = d.Int(), d.Time()
	for _, n := range []*int{&i.step, &i.failures, &i.crowded, &i.restarts} {
		*n = d.Int()
	}
	if d.Bool() {
		i.exit = &Exit{Status: proc.DecodeStatus(d), At: d.Time(), Lifetime: time.Duration(d.Int()), Expected: d.Bool()}
	}
	for n := d.Uint(); n > 0 && d.Err() == nil; n-- {
		i.recent = append(i.recent, d.Time())
	}
	due = d.Time()
	return due, d.Err()
}

// Saved is the record of one instance.
type Saved struct {
	Program string
	Index   int
	Record  []byte
}

// Past is what has happened since the records were written.
type Past struct {
	// Rebooted: nothing of the tasks is left. Instances that were meant to run are
	// started, those that were stopped by hand stay stopped.
	Rebooted bool
	// Orphaned: the keeper of the tasks was killed. Those of some programs are
	// stopped, and started anew.
	Orphaned bool
	// Closing: the end of the daemon had begun, and is to go on by
	// [Group.Shutdown]. Without it such an end was cut short, and what it had
	// stopped is started again.
	Closing bool
}

// Restore makes the group go on where one that was killed had been: it is given
// the same programs, and the records that are left. It must be called before
// Run, in place of the first [Group.Apply]. The host then has to tell of all its
// tasks, and after the last of them that they are Replayed.
//
// The errors are of records that cannot be used; their instances begin anew.
func (g *Group) Restore(programs []*Program, saved []Saved, past Past) (faults []error) {
	g.orphaned, g.closing = past.Orphaned, past.Closing
	for _, p := range programs {
		g.programs[p.Name] = p
	}
	g.replayed = map[string]bool{}
	for _, s := range saved {
		if err := g.restore(s, past.Rebooted); err != nil {
			faults = append(faults, fmt.Errorf("the saved state of instance %d of %s is left out: %w", s.Index, s.Program, err))
		}
	}
	fresh := map[*instance]bool{}
	for _, p := range programs {
		g.grow(p, false, fresh)
	}
	g.sort()
	for _, i := range slices.Clone(g.order) {
		switch {
		case fresh[i]:
			i.start()
		case past.Rebooted:
			i.afterReboot()
		default:
			i.takeUp()
		}
	}
	g.commit()
	return faults
}

// restore makes one instance. One whose program is no longer configured is
// there only to be stopped.
func (g *Group) restore(s Saved, rebooted bool) error {
	p := g.programs[s.Program]
	i := &instance{group: g, program: p, index: s.Index}
	if p == nil || s.Index >= p.NumProcs {
		i.program = leftOver(s)
	}
	due, err := i.load(s.Record, rebooted)
	if err != nil {
		return err
	}
	if p == nil && !i.live() {
		return nil
	}
	i.removing = i.removing || i.program != p
	g.add(i)
	if i.live() {
		g.byTask[i.taskID] = i
	}
	if !due.IsZero() && !rebooted {
		g.timers.set(i, time.Until(due))
	}
	return nil
}

// leftOver is the program of an instance that is no longer configured.
func leftOver(s Saved) *Program {
	return &Program{
		Name: s.Program, NumProcs: s.Index + 1,
		Stop: []StopStep{{Signal: syscall.SIGTERM, Wait: 10 * time.Second}},
		Command: func(int) (*proc.Command, error) {
			return nil, fmt.Errorf("program %s is no longer configured", s.Program)
		},
	}
}

// afterReboot settles an instance whose task the reboot has ended.
func (i *instance) afterReboot() {
	if i.live() {
		delete(i.group.byTask, i.taskID)
		i.turn(task.Gone)
		i.exit = &Exit{Status: proc.Status{Code: -1, Unknown: true}, At: time.Now()}
		i.become(task.StatusExited, EventExited, "the machine went down")
	}
	desired := i.desired
	i.status, i.again, i.detail, i.planned = task.StatusStopped, false, "", ""
	i.desired = desired
	i.touch()
	if i.removing {
		i.group.drop(i)
		return
	}
	if desired {
		i.start()
	}
}

// takeUp starts what an end of the daemon had stopped that was itself cut short.
func (i *instance) takeUp() {
	if !i.wanted() || i.removing {
		return
	}
	switch {
	case i.status == task.StatusStopped:
		i.start()
	case i.status == task.StatusStopping && !i.ended:
		i.touch()
		i.again = true
	}
}

// reconcile is called when the host has told of all its tasks: those that it
// has not told of were never started, or their end was lost.
func (g *Group) reconcile() {
	told := g.replayed
	g.replayed = nil
	for _, i := range slices.Clone(g.order) {
		if !i.live() {
			continue
		}
		i.touch()
		switch {
		case !told[i.taskID] && i.pid == 0:
			// The launch was recorded. Whether it was asked for as well, and is under
			// way, nobody can tell: so it is asked for again, also if it is to be
			// stopped then. Else it might come when its successor runs.
			i.spawn()
		case !told[i.taskID]:
			i.lost()
		case i.status == task.StatusStopping:
			i.resumeStop()
		case i.removing:
			i.stop()
		case g.orphaned && i.program.StopOrphan:
			i.restart()
		case g.orphaned:
			i.replan()
		}
	}
}

// lost: the host knows nothing of a task that ran.
func (i *instance) lost() {
	now := time.Now()
	if !i.dead {
		i.dead = true
		i.died(proc.Event{ID: i.taskID, Kind: proc.Exited, At: now, Status: proc.Status{Code: -1, Unknown: true}})
	}
	if i.status == task.StatusStopping {
		i.empty()
	}
}

// resumeStop asks once more for what may not have been asked for.
func (i *instance) resumeStop() {
	switch {
	case i.pid == 0: // it is stopped as soon as it is there
	case i.step == 0:
		i.nextStep()
	case i.step > len(i.program.Stop):
		i.kill()
	default:
		i.terminate(i.program.Stop[i.step-1])
		if i.timer == nil {
			i.group.timers.set(i, i.program.Stop[i.step-1].Wait)
		}
	}
}

// Forget removes the records of all instances: after an orderly end a successor
// begins from the configuration.
func (g *Group) Forget(ctx context.Context) error {
	if g.journal == nil {
		return nil
	}
	return g.do(ctx, func() {
		for _, i := range g.order {
			g.journal.Put(i.program.Name, i.index, nil)
		}
	})
}
