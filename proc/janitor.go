package proc

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The janitor proves that trees are gone, and kills what has to go. It works in
// passes: one pass reads the tags of all processes of the machine, for all
// trees at once, so that a thousand programs stop as cheaply as one.
//
// A tree is empty when two passes in a row have found nothing, not even a zombie,
// and no orphan of it has ended since the first of them began. One pass is fooled
// by a process that forks behind its back and ends before it is reached; but such
// a process ends as a child of pm, or under a parent that the pass does find.
// Where the tree has a cgroup, and that is empty, one pass is enough: it looks for
// somebody who has left the cgroup, which takes privilege, and if all trees are of
// that sort it looks at pm's own children only.

// Pauses of the janitor.
const (
	calm      = 100 * time.Millisecond // before looking after a task that nobody waits for
	swarm     = 200 * time.Millisecond // longest wait for leaders to end, before a pass
	stillness = 2 * time.Millisecond   // without such a death the swarm is over
	onset     = time.Millisecond / 2   // until more leaders are asked to end
	ebb       = 200 * time.Millisecond // for the kernel to kill a cgroup
	retryMin  = time.Millisecond       // between passes that kill
	retryMax  = 250 * time.Millisecond
	lingering = time.Second // between looks at a tree that is left to end by itself
	speakUp   = 2 * time.Second
)

// killing is how far the killing of a tree has come.
type killing struct {
	seen   map[int]bool // members of earlier passes
	ebbs   bool         // the kernel kills all in its cgroup
	freeze bool         // it outran a pass: stop all first, then kill
	since  time.Time
	spoken time.Time
	waits  time.Duration
}

func newKilling() killing {
	return killing{seen: map[int]bool{}, since: time.Now(), waits: retryMin}
}

// janitor runs passes while there are trees to look after.
func (k *Keeper) janitor(ctx context.Context) {
	timer := time.NewTimer(calm)
	defer timer.Stop()
	tidied := false
	var (
		due      time.Time // before it, only what is urgent is looked after
		earliest time.Time // before it, no pass while leaders are dying
	)
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.passes:
		case <-timer.C:
			if !tidied { // a launch is worth more, and a short command does without
				tidied = true
				k.cgroups.removeStale()
			}
		}
		wanted, urgent := k.wanted()
		if !wanted {
			if wait := k.cgroups.sweepDue(); wait > 0 {
				timer.Reset(wait)
			} else if k.cgroups.sweep() {
				timer.Reset(0)
			}
			due = time.Time{}
			continue
		}
		if !urgent {
			if due.IsZero() {
				due = time.Now().Add(calm)
			}
			if wait := time.Until(due); wait > 0 {
				timer.Reset(wait)
				continue
			}
		}
		due = time.Time{}
		k.lull(ctx, earliest)
		begin := time.Now()
		next := k.pass()
		earliest = time.Now().Add(min(2*time.Since(begin), retryMax))
		switch wait := k.cgroups.sweepDue(); {
		case next >= 0:
			timer.Reset(next)
		case wait > 0:
			timer.Reset(wait)
		}
	}
}

// needs is what trees want of the janitor: of one tree 0 or 1 each, or the sum.
type needs struct {
	pass   int
	urgent int // a pass for which somebody waits
	dying  int // the leader was asked to end, and still lives
}

func (t *tree) needs() (n needs) {
	if t.pid == 0 || t.told {
		return n
	}
	if t.dead || t.killing || t.ask != nil && !t.ask.done {
		n.pass = 1
	}
	if t.urgent {
		n.urgent = n.pass
	}
	if t.urgent && !t.dead {
		n.dying = 1
	}
	return n
}

// review brings the sum of all needs, and the set of trees that have any, up to
// date with a change of t. The caller holds k.mu.
func (k *Keeper) review(t *tree) {
	now := t.needs()
	if now == (needs{}) {
		delete(k.ending, t)
	} else {
		k.ending[t] = true
	}
	k.needs.pass += now.pass - t.counted.pass
	k.needs.urgent += now.urgent - t.counted.urgent
	k.needs.dying += now.dying - t.counted.dying
	if t.counted.dying > now.dying && k.needs.dying == 0 {
		wake(k.still)
	}
	t.counted = now
}

// lull waits while leaders that were asked to end do so one after the other: such
// deaths come in swarms, and a pass would take the processor from them, only to
// find out that another is needed. Where many end, those that are asked next are part
// of the swarm. Before earliest it waits for those that take their time, too.
func (k *Keeper) lull(ctx context.Context, earliest time.Time) {
	for begin := time.Now(); ; {
		k.Commit() // or a keeper that takes over would ask once more
		before, many := k.dying()
		late := time.Since(begin) > swarm
		wait := stillness
		if before == 0 {
			if wait = onset; !many || late {
				return
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-k.still: // perhaps of an earlier swarm
			timer.Stop()
			continue
		case <-timer.C:
		}
		switch after, _ := k.dying(); {
		case before == 0 && after == 0:
			return
		case before > 0 && time.Now().After(earliest) && (late || after == before):
			return
		}
	}
}

// dying counts the leaders that were asked to end, and still live, and tells whether
// several trees are ending.
func (k *Keeper) dying() (leaders int, many bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.needs.dying, k.needs.urgent > 1
}

// wanted reports whether any tree needs a pass, and whether somebody waits.
func (k *Keeper) wanted() (wanted, urgent bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.needs.pass > 0, k.needs.urgent > 0
}

// pass looks at every process of the machine once. It returns when to look
// again: a negative time means not before something happens.
func (k *Keeper) pass() time.Duration {
	due := k.due()
	next := time.Duration(-1)
	sooner := func(d time.Duration) {
		if next < 0 || d < next {
			next = d
		}
	}
	for t := range due {
		if k.ebbs(t) {
			delete(due, t)
			sooner(stillness)
		}
	}
	if len(due) == 0 {
		return next
	}
	var found map[uint64][]int
	if confined := k.confined(due); len(confined) < len(due) || k.fugitives(confined) {
		var err error
		if found, err = k.members(); err != nil { // nothing is proved
			return retryMax
		}
		k.addUntagged(found)
	}
	// One read proves the cgroups of all tasks empty, when all stop together.
	allEmpty := k.cgroups.empty()
	if allEmpty {
		k.endTogether(due, found)
	}
	for t, orphans := range due {
		if d := k.tend(t, found[t.tag], allEmpty, orphans); d >= 0 {
			sooner(d)
		}
	}
	return next
}

// ebbs reports whether the kernel is at work on the killing of a tree: all in its
// cgroup die of one write, also those who are being born, so to look for them one
// by one would only hold that up. After a while it is done all the same.
func (k *Keeper) ebbs(t *tree) bool {
	k.mu.Lock()
	kill := t.killing
	k.mu.Unlock()
	if !kill || t.cgroup == "" || !k.cgroups.populated(t.cgroup) {
		return false
	}
	if t.kill.seen == nil {
		t.kill = newKilling()
		t.kill.ebbs = killCgroup(t.cgroup)
	}
	return t.kill.ebbs && time.Since(t.kill.since) < ebb && k.cgroups.populated(t.cgroup)
}

// due returns the trees to look after, each with the number of its orphans that
// have ended so far.
func (k *Keeper) due() map[*tree]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	due := map[*tree]int{}
	for t := range k.ending {
		if t.counted.pass > 0 {
			due[t] = t.orphans
		}
	}
	return due
}

// confined returns those of the trees whose members live in a cgroup, unless they
// have left it, which takes privilege, and whose leader is dead.
func (k *Keeper) confined(trees map[*tree]int) map[*tree]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make(map[*tree]int, len(trees))
	for t, orphans := range trees {
		if t.cgroup != "" && !t.adopted && t.dead {
			out[t] = orphans
		}
	}
	return out
}

// fugitives reports whether somebody of these confined trees lives outside of their
// cgroups. He is a child of pm then, or has an ancestor who is and lives there as
// well: so a look at few processes tells, where members looks at all of the machine,
// and leaves each with an entry in the kernel's cache of /proc, which makes its end
// half as expensive again.
func (k *Keeper) fugitives(trees map[*tree]int) bool {
	tags := make(map[uint64]bool, len(trees))
	for t := range trees {
		tags[t.tag] = true
	}
	own, whole, err := k.ownChildren()
	if err != nil || !whole {
		return true
	}
	return slices.ContainsFunc(own, func(pid int) bool {
		limit, err := readTag(pid)
		if err != nil {
			return passing(err)
		}
		tag, ours := k.tags.base(limit)
		return ours && tags[tag]
	})
}

// ownChildren lists those children of pm among which its orphans are. It is not whole
// if others have left the list meanwhile, as those do that are reaped: then the kernel
// may skip some.
func (k *Keeper) ownChildren() (pids []int, whole bool, err error) {
	before := k.reaps.Load() // odd while one is being reaped
	pids, err = threadChildren(k.main, os.Getpid())
	return pids, before%2 == 0 && k.reaps.Load() == before, err
}

// members finds the processes of all tagged trees, by tag. The error is that not
// all could be looked at, for want of descriptors or memory.
func (k *Keeper) members() (found map[uint64][]int, err error) {
	found = map[uint64][]int{}
	if k.tags == nil {
		return found, nil
	}
	self := os.Getpid()
	var missed error
	err = eachPID("/proc", func(pid int) {
		if pid == self {
			return
		}
		limit, err := readTag(pid)
		if err != nil {
			if passing(err) {
				missed = err
			}
			return
		}
		if tag, ours := k.tags.base(limit); ours {
			found[tag] = append(found[tag], pid)
		}
	})
	return found, errors.Join(err, missed)
}

// endTogether tells the end of those trees of which a pass has found nobody while no
// task's cgroup had anybody, and takes them out of due. It is what tend does for each of
// them, without its steps: when a thousand programs stop, everybody waits for the last
// one to be told of.
func (k *Keeper) endTogether(due map[*tree]int, found map[uint64][]int) {
	const atOnce = 128 // before others get at the keeper
	for some := range slices.Chunk(slices.Collect(maps.Keys(due)), atOnce) {
		k.mu.Lock()
		for _, t := range some {
			if t.dead && !t.adopted && t.orphans == due[t] && len(found[t.tag]) == 0 && k.cgroups.owns(t.cgroup) {
				k.tellGone(t)
				delete(due, t)
			}
		}
		k.mu.Unlock()
	}
}

// tend does for one tree what a pass that found these members asks for, and
// returns when to look again. allEmpty says that no task's cgroup has anybody;
// orphans is how many of the tree had ended before the pass.
func (k *Keeper) tend(t *tree, pids []int, allEmpty bool, orphans int) time.Duration {
	k.mu.Lock()
	dead, kill, ask := t.dead, t.killing, t.ask
	k.mu.Unlock()
	if !dead && !kill { // whoever got rid of the tag is asked when the leader is gone
		return k.askTree(t, ask, pids)
	}
	if t.adopted { // its zombies are reaped by another, who may take his time
		pids = slices.DeleteFunc(pids, isZombie)
	}
	if len(pids) == 0 && dead {
		if k.clean(t, allEmpty, orphans) {
			return -1
		}
		if t.clean > 0 {
			return 0
		}
	}
	pids = slices.DeleteFunc(union(pids, k.cgroups.members(t.cgroup)), isZombie)
	t.clean = 0
	switch {
	case kill:
		return k.killTree(t, pids)
	case ask != nil && !ask.done:
		return k.askTree(t, ask, pids)
	}
	return lingering
}

// clean counts a pass that found nothing, and tells when it is enough. It reports
// whether the end was told.
func (k *Keeper) clean(t *tree, allEmpty bool, orphans int) bool {
	enough := 2
	switch {
	case t.cgroup != "" && !t.adopted:
		enough = 1 // nobody is in its cgroup either
	case t.adopted && t.cgroup == "":
		enough = 4 // its orphans are somebody else's children: none is counted
	}
	if t.clean == 0 || t.seen != orphans {
		t.clean, t.seen = 0, orphans
	}
	t.clean++
	k.mu.Lock()
	quiet := t.orphans == t.seen
	k.mu.Unlock()
	if t.clean < enough || !quiet {
		return false
	}
	if t.cgroup != "" && !(allEmpty && k.cgroups.owns(t.cgroup)) && k.cgroups.populated(t.cgroup) {
		t.clean = 0
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tellGone(t)
	return true
}

// tellGone says that nothing is left of a tree. The caller holds k.mu.
func (k *Keeper) tellGone(t *tree) {
	t.told = true
	k.review(t)
	k.record(recordEmpty, t)
	k.leaveCgroup(t)
	if t.released {
		k.retire(t)
	} else {
		k.tellEmpty(t)
	}
}

// killTree kills the members of a tree that one pass has found. A tree that
// keeps growing is stopped first, until a pass finds nobody new: a stopped
// process neither forks nor exits.
func (k *Keeper) killTree(t *tree, pids []int) time.Duration {
	if t.kill.seen == nil {
		t.kill = newKilling()
	}
	first := len(t.kill.seen) == 0
	fresh := 0
	for _, pid := range pids {
		if !t.kill.seen[pid] {
			t.kill.seen[pid] = true
			fresh++
		}
	}
	if fresh > 0 && !first {
		t.kill.freeze = true
	}
	sig := unix.SIGKILL
	if t.kill.freeze && fresh > 0 {
		sig = unix.SIGSTOP
	}
	if sig == unix.SIGKILL {
		_ = killCgroup(t.cgroup)
	}
	for _, pid := range pids {
		_ = sendSignal(pid, sig, func() bool { return k.belongs(pid, t) })
	}
	k.speak(t, pids)
	if fresh > 0 {
		t.kill.waits = retryMin
		if sig == unix.SIGSTOP {
			return 0
		}
		return retryMin
	}
	t.kill.waits = min(2*t.kill.waits, retryMax)
	return t.kill.waits
}

// speak tells, now and then, what withstands the killing of a tree.
func (k *Keeper) speak(t *tree, pids []int) {
	now := time.Now()
	if now.Sub(t.kill.since) < speakUp || now.Sub(t.kill.spoken) < 5*speakUp {
		return
	}
	t.kill.spoken = now
	var left []Process
	for _, pid := range pids {
		if st, err := readStat(pid); err == nil {
			left = append(left, Process{PID: pid, Name: st.comm, State: st.state})
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tell(Event{ID: t.id, Kind: Lingering, PID: t.pid, At: now, Survivors: left})
}

// belongs reports whether the process that pid is now carries the tag of the
// tree, or lives in its cgroup, or without these in its session.
func (k *Keeper) belongs(pid int, t *tree) bool {
	limit, err := readTag(pid)
	base, ours := k.tags.base(limit)
	switch {
	case err == nil && ours && base == t.tag:
		return true
	case t.cgroup != "":
		return inCgroup(pid, t.cgroup)
	}
	st, gone := readStat(pid)
	return err == nil && !ours && gone == nil && t.leads(st)
}

// Kill ends the whole tree of a task with SIGKILL, and goes on until nothing is
// left of it. Empty tells when; Lingering, what withstands.
func (k *Keeper) Kill(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tasks[id]
	if t == nil || t.pid == 0 || t.told {
		return
	}
	t.killing, t.urgent, t.next = true, true, nil
	k.review(t)
	_ = t.signal(unix.SIGKILL)
	_ = killCgroup(t.cgroup)
	wake(k.passes)
}

// Signal sends a signal to the leader of a task. The error is ESRCH if it has
// ended.
func (k *Keeper) Signal(id string, sig syscall.Signal) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tasks[id]
	if t == nil {
		return unix.ESRCH
	}
	return t.signal(sig)
}

// signal signals the leader. As long as it is a child that is not reaped its pid
// cannot pass to another process, which spares a descriptor for each program;
// adopted ones are held by a pidfd. The caller holds k.mu.
func (t *tree) signal(sig syscall.Signal) error {
	switch {
	case t.pid == 0 || t.dead:
		return unix.ESRCH
	case t.adopted:
		return unix.PidfdSendSignal(t.pidfd, sig, nil, 0)
	}
	return unix.Kill(t.pid, sig)
}

// asking is a graceful stop of a tree.
type asking struct {
	signal  syscall.Signal
	exclude []string
	asked   map[int]bool // who has been signalled or spared
	looks   int
	done    bool // a look found nobody new
}

// Terminate asks the whole tree of a task to end: it sends sig to every
// process, parents first, but to none whose name (comm, in any case) is in
// exclude, and then SIGCONT, so that stopped ones can die. It looks again until
// a look finds nobody new. Exited and Empty tell what comes of it.
//
// A stop may take several steps, counted from 1. One that was asked for already
// is not carried out again, so that the request may be repeated.
func (k *Keeper) Terminate(id string, step int, sig syscall.Signal, exclude []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tasks[id]
	if t == nil || t.pid == 0 || t.told || step <= t.step {
		return
	}
	t.step, t.next = step, nil
	k.record(recordAsked, t)
	t.urgent = true
	t.ask = &asking{signal: sig, exclude: exclude, asked: map[int]bool{}}
	k.review(t)
	if !t.dead { // the leader is everybody's parent, and mostly all there is
		t.ask.asked[t.pid] = true
		if !excluded(t.pid, exclude) {
			_ = t.signal(sig)
			k.wakeUp(t)
		}
	}
	wake(k.passes)
}

// wakeUp lets the leader go on if it is stopped. That it is not is cheap to see
// of a child, unless its stops are collected like deaths. The caller holds k.mu.
func (k *Keeper) wakeUp(t *tree) {
	if k.job() || t.adopted || stopped(t.pid) {
		_ = t.signal(unix.SIGCONT)
	}
}

// askTree signals those members of a tree that were not asked yet.
func (k *Keeper) askTree(t *tree, ask *asking, pids []int) time.Duration {
	const looks = 50 // a tree that still grows after these is left to the killing
	fresh := slices.DeleteFunc(pids, func(pid int) bool { return ask.asked[pid] })
	ask.looks++
	if len(fresh) == 0 || ask.looks > looks {
		k.mu.Lock()
		defer k.mu.Unlock()
		ask.done = true
		k.review(t)
		if t.dead {
			return lingering
		}
		return -1
	}
	for _, pid := range parentsFirst(fresh) {
		ask.asked[pid] = true
		if excluded(pid, ask.exclude) {
			continue
		}
		_ = sendSignal(pid, ask.signal, func() bool { return k.belongs(pid, t) })
		_ = sendSignal(pid, unix.SIGCONT, func() bool { return k.belongs(pid, t) })
	}
	return 0
}

// parentsFirst orders processes so that none comes before its parent.
func parentsFirst(pids []int) []int {
	if len(pids) < 2 {
		return pids
	}
	parent := make(map[int]int, len(pids))
	for _, pid := range pids {
		if st, err := readStat(pid); err == nil {
			parent[pid] = st.parent
		}
	}
	depth := func(pid int) (n int) {
		for range len(pids) {
			p, ok := parent[pid]
			if !ok {
				break
			}
			pid, n = p, n+1
		}
		return n
	}
	depths := make(map[int]int, len(pids))
	for _, pid := range pids {
		depths[pid] = depth(pid)
	}
	slices.SortStableFunc(pids, func(a, b int) int { return depths[a] - depths[b] })
	return pids
}

func excluded(pid int, names []string) bool {
	if len(names) == 0 {
		return false
	}
	st, err := readStat(pid)
	return err == nil && named(st.comm, names)
}

// named reports whether names has the comm of a process, in any case. Of a longer
// name the kernel keeps only what fits into a comm, so that is what counts.
func named(comm string, names []string) bool {
	const fits = 15
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n[:min(len(n), fits)], comm) })
}

// union appends to a what it lacks of b.
func union(a, b []int) []int {
	for _, pid := range b {
		if !slices.Contains(a, pid) {
			a = append(a, pid)
		}
	}
	return a
}
