package proc

import (
	"slices"
	"time"
)

// Successor is a task that is to follow another as soon as that has ended: its
// owner has decided beforehand, so that nobody has to be asked when it happens.
type Successor struct {
	ID   string
	Rank int
	// Command is what to start; nil: what the other was started with. If another
	// keeper has started that there is no successor then.
	Command *Command
	// After is when the other must still have lived: if it ends earlier there is
	// no successor.
	After time.Time
	// Ends are those that are followed, or with Except those that are not. One
	// that is Unknown never is.
	Ends   []Status
	Except bool
}

// follows reports whether the successor follows an end.
func (s *Successor) follows(d death) bool {
	listed := slices.ContainsFunc(s.Ends, func(e Status) bool { return e.Code == d.status.Code && e.Signal == d.status.Signal })
	return !d.status.Unknown && !d.at.Before(s.After) && listed != s.Except
}

// Plan names the successor of a task, in place of one that was named before. A
// task that has ended, that is asked to end or that is released has none. The
// successor is told of like any other task, after the end of the one before it;
// a Spawn of its id does then nothing.
func (k *Keeper) Plan(id string, next Successor) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.tasks[id]; t != nil && !t.dead && t.step == 0 && !t.killing && !t.released {
		t.next = &next
	}
}

// Unplan takes back what Plan has named, if it has not been started yet.
func (k *Keeper) Unplan(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.tasks[id]; t != nil {
		t.next = nil
	}
}

// succeed has the successor of a task that has just ended started, before anything
// that waits to be. The caller holds k.mu, and then calls nextHot.
func (k *Keeper) succeed(t *tree) {
	next, command := t.next, t.command
	t.next, t.command = nil, nil
	if next != nil && next.Command != nil {
		command = next.Command
	}
	if next == nil || command == nil || t.left > 0 || t.urgent || !next.follows(t.end) || k.tasks[next.ID] != nil {
		return
	}
	k.tasks[next.ID] = newTree(next.ID)
	k.hot = &request{next.ID, next.Rank, func() (*Command, error) { return command, nil }}
}

// nextHot hands the successor to the caller, or if there is a swarm of deaths or
// much to do to the spawners. The caller holds k.mu.
func (k *Keeper) nextHot(swarm bool) *request {
	next := k.hot
	k.hot = nil
	switch {
	case next == nil:
		return nil
	case !swarm && k.spawning == 0 && len(k.queue) == 0:
		k.spawning, k.rank = 1, next.rank
		return next
	}
	k.queue = slices.Insert(k.queue, 0, *next)
	wake(k.spawnable)
	return nil
}
