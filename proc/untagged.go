package proc

import "os"

// A process that no cgroup holds can get rid of its tag: it sets the limit still
// lower, as some that play sound do for their own sake. When its parent is gone it
// comes to pm all the same, and is known by its session, if that is still the one of
// the task's leader.

// addUntagged adds to members of trees, by tag, those that have got rid of it and are
// known by their session.
func (k *Keeper) addUntagged(found map[uint64][]int) {
	const tries = 10 // to see all of them, while children of other tasks are reaped
	own, whole, err := k.ownChildren()
	for n := 1; !whole && err == nil && n < tries; n++ {
		own, whole, err = k.ownChildren()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, pid := range own {
		if t := k.ofSession(pid); t != nil {
			found[t.tag] = append(found[t.tag], pid)
		}
	}
}

// ofSession returns the tree that is ending in whose session an orphan without a tag
// is; nil if there is none. The caller holds k.mu.
func (k *Keeper) ofSession(pid int) *tree {
	if _, leader := k.leaders[pid]; leader {
		return nil
	}
	limit, err := readTag(pid)
	if _, ours := k.tags.base(limit); ours || err != nil {
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
