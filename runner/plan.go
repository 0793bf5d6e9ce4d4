package runner

import (
	"fmt"
	"time"

	"pm.example/proc"
)

// planner is a host that can start a successor by itself, as soon as a task has
// ended. It spares the way to the group and back. Without prepare the successor is
// started as the task was.
type planner interface {
	Plan(id string, next proc.Successor, prepare func() (*proc.Command, error))
	Unplan(id string)
}

// plan names the task that would follow the present one if it ended now. What
// [instance.decide] would say of that end must be clear: a restart at once. Time
// only makes it clearer, since earlier restarts are forgotten.
func (i *instance) plan() {
	if i.planned == "" && i.foresees() {
		i.planned = i.group.newID(i)
		i.propose()
	}
}

// foresees reports whether the present task would be followed at once.
func (i *instance) foresees() bool {
	p := i.program
	return i.group.planner != nil && p.Foresee && !p.Oneshot && p.Restart != RestartNever && i.desired && !i.crowdedNow()
}

// propose tells the host of the planned task.
func (i *instance) propose() {
	p, g := i.program, i.group
	next := proc.Successor{ID: i.planned, Rank: p.Priority, After: i.started.Add(p.StartTime), Except: true}
	if p.Restart == RestartUnexpected {
		next.Ends = expectedEnds(p.Expected)
	}
	id, index := i.taskID, i.index
	var prepare func() (*proc.Command, error)
	if i.launched != p {
		prepare = func() (*proc.Command, error) { return p.Command(index) }
	}
	g.effect(func() { g.planner.Plan(id, next, prepare) })
}

func expectedEnds(list []Expected) (ends []proc.Status) {
	for _, e := range list {
		if e.Signal != 0 {
			ends = append(ends, proc.Status{Code: -1, Signal: e.Signal})
		} else {
			ends = append(ends, proc.Status{Code: e.Code})
		}
	}
	return ends
}

// crowdedNow reports whether a restart now would have to wait.
func (i *instance) crowdedNow() bool {
	b := i.program.Backoff
	if b.Burst <= 0 {
		return false
	}
	n, now := 0, time.Now()
	for _, t := range i.recent {
		if now.Sub(t) < b.BurstWindow {
			n++
		}
	}
	return i.crowded > 0 || n >= b.Burst
}

// dropPlan makes sure that the planned task does not run, also if its turn came a
// moment ago.
func (i *instance) dropPlan() {
	present, next, g := i.taskID, i.planned, i.group
	if next == "" {
		return
	}
	i.planned = ""
	g.effect(func() {
		if g.planner != nil {
			g.planner.Unplan(present)
		}
		g.host.Kill(next)
		g.host.Release(next)
	})
}

// replan plans anew, since the description has changed or the host is another. The
// planned task keeps its id: if it was started a moment ago it is the next one, and
// no start goes untold.
func (i *instance) replan() {
	switch {
	case i.planned == "":
	case i.foresees():
		i.propose()
	default:
		i.dropPlan()
	}
}

// newID names the next task of an instance.
func (g *Group) newID(i *instance) string {
	g.tasks++
	return fmt.Sprintf("%s.%s-%d", i.name, g.runID, g.tasks)
}
