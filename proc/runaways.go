package proc

import (
	"context"
	"os"
	"slices"
	"strconv"
	"time"
)

// A process that no cgroup holds can get rid of its tag: it sets the limit still
// lower, as some that play sound do for their own sake. When its parent is gone it
// comes to pm all the same. If it is in the session of the task's leader, it is known
// by that. Else nobody can tell of which task it was. At the end, when no task is to
// run any more, that does not matter: it is a runaway, and has to go.

// addUntagged adds to members of trees, by tag, those that have got rid of it and are
// known by their session.
func (k *Keeper) addUntagged(found map[uint64][]int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.anyUnconfined() {
		return
	}
	const tries = 10 // to see all of them, while children of other tasks are reaped
	own, whole, err := k.ownChildren()
	for n := 1; !whole && err == nil && n < tries; n++ {
		own, whole, err = k.ownChildren()
	}
	for _, pid := range own {
		if t := k.ofSession(pid); t != nil {
			found[t.tag] = append(found[t.tag], pid)
		}
	}
}

// anyUnconfined reports whether a tree is ending that no cgroup holds. The caller holds
// k.mu.
func (k *Keeper) anyUnconfined() bool {
	for t := range k.ending {
		if t.cgroup == "" {
			return true
		}
	}
	return false
}

// ofSession returns the tree that is ending in whose session an orphan without a tag
// is; nil if there is none. The caller holds k.mu.
func (k *Keeper) ofSession(pid int) *tree {
	_, leader := k.leaders[pid]
	limit, err := readTag(pid)
	if _, ours := k.tags.base(limit); leader || ours || err != nil {
		return nil
	}
	st, err := readStat(pid)
	if err != nil {
		return nil
	}
	for t := range k.ending {
		// The number of a session is not given to another while it has anybody; if
		// it is a later leader's, the session is his.
		if other := k.leaders[t.pid]; (other == nil || other == t) && t.leads(st) {
			return t
		}
	}
	return nil
}

// leads reports whether a process, of which st tells, is a child of pm's in the session
// of the tree's leader. One of a tree that has a cgroup need not be told by that, and one
// of an adopted tree is no child.
func (t *tree) leads(st stat) bool {
	return t.cgroup == "" && !t.adopted && t.tag != 0 && t.pid != 0 && st.parent == os.Getpid() && st.session == t.pid
}

// EndRunaways kills the processes that have come to pm from its tasks, whatever
// their tags, with all their descendants. It is for the time when all tasks are
// over. It returns when a look finds nobody; until then it goes on, and logs now
// and then who withstands.
//
// Children that pm had when it became a keeper are spared: those of a shell that
// became pm, or of a program that pm was before an upgrade. Their orphans come to
// pm as well. Where there are such children only those are therefore ended that
// have a lower limit than pm itself, as had everybody of a task.
func (k *Keeper) EndRunaways() {
	if self, _ := os.Readlink("/proc/self"); self != strconv.Itoa(os.Getpid()) {
		return // this is the /proc of another pid namespace
	}
	begun := time.Now()
	speak := begun.Add(speakUp)
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		h, proved, zombies := k.runaways()
		if proved && (!zombies || time.Since(begun) > speakUp) { // a debugger may hold one for ever
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), speakUp)
		h.killAll(ctx)
		cancel()
		left := h.living()
		h.close()
		if len(left) == 0 {
			time.Sleep(retryMin / 10)
			continue // perhaps they had children, who have come to pm now
		}
		if time.Now().After(speak) {
			speak = time.Now().Add(5 * speakUp)
			k.log.Warn("processes that were left behind withstand SIGKILL; pm goes on until they are gone", "processes", names(left))
		}
		time.Sleep(pause)
	}
}

func names(list []*quarry) (names []string) {
	for _, q := range list {
		names = append(names, q.String())
	}
	return names
}

// runaways looks for runaways once, and starts a hunt for them. It reports whether
// it is proved that there are none; unless there were zombies, whose children may have
// come after pm's were listed.
func (k *Keeper) runaways() (h *hunt, proved, zombies bool) {
	k.launching.Lock() // or a leader would be seen that is not written down yet
	defer k.launching.Unlock()
	h = &hunt{known: map[int]*quarry{}}
	own, whole, err := k.ownChildren()
	if err != nil {
		return h, !passing(err), false // a kernel without such lists
	}
	for _, pid := range own {
		h.add(pid, 0, func(st stat) bool {
			ended := st.state == 'Z' || st.state == 'X'
			zombies = zombies || ended
			return !ended && k.runaway(pid, st)
		})
	}
	return h, len(h.order) == 0 && whole, zombies
}

// runaway reports whether a process that lives, and of which st tells, is a runaway.
func (k *Keeper) runaway(pid int, st stat) bool {
	k.mu.Lock()
	_, leader := k.leaders[pid]
	attendant := k.attended[pid] != nil
	k.mu.Unlock()
	switch {
	case leader || attendant || st.parent != os.Getpid():
		return false
	case len(k.inherited) == 0:
		return true
	}
	limit, err := readTag(pid)
	return err == nil && limit < k.limit && !slices.Contains(k.inherited, Identity{PID: pid, Start: st.start})
}

// inherit notes the children that pm has before it starts any, and its own limit.
func (k *Keeper) inherit() {
	own, _ := threadChildren(k.main, os.Getpid()) // those of an execve(2) are all of this thread
	for _, pid := range own {
		if id, err := Identify(pid); err == nil {
			k.inherited = append(k.inherited, id)
		}
	}
	k.limit, _ = readTag(os.Getpid())
}
