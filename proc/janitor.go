package proc

import (
	"context"
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
// A tree is empty when two passes in a row have found nothing: a process that
// forks behind the pass's back and ends before the pass reaches it fools one.

// Pauses of the janitor.
const (
	calm      = 100 * time.Millisecond // before looking after a task that nobody waits for
	retryMin  = time.Millisecond       // between passes that kill
	retryMax  = 250 * time.Millisecond
	lingering = time.Second // between looks at a tree that is left to end by itself
	speakUp   = 2 * time.Second
)

// killing is how far the killing of a tree has come.
type killing struct {
	seen   map[int]bool // members of earlier passes
	freeze bool         // it outran a pass: stop all first, then kill
	since  time.Time
	spoken time.Time
	waits  time.Duration
}

// janitor runs passes while there are trees to look after.
func (k *Keeper) janitor(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var calmUntil time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.passes:
		case <-timer.C:
		}
		wanted, urgent := k.wanted()
		if !wanted {
			calmUntil = time.Time{}
			continue
		}
		if !urgent {
			if calmUntil.IsZero() {
				calmUntil = time.Now().Add(calm)
			}
			if wait := time.Until(calmUntil); wait > 0 {
				timer.Reset(wait)
				continue
			}
		}
		calmUntil = time.Time{}
		if next := k.pass(); next >= 0 {
			timer.Reset(next)
		}
	}
}

// wanted reports whether any tree needs a pass, and whether somebody waits.
func (k *Keeper) wanted() (wanted, urgent bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tasks {
		if t.needsPass() {
			wanted = true
			urgent = urgent || t.urgent
		}
	}
	return wanted, urgent
}

func (t *tree) needsPass() bool { return t.pid != 0 && !t.told && (t.dead || t.killing) }

// pass looks at every process of the machine once. It returns when to look
// again: a negative time means not before something happens.
func (k *Keeper) pass() time.Duration {
	found := k.members()
	next := time.Duration(-1)
	sooner := func(d time.Duration) {
		if next < 0 || d < next {
			next = d
		}
	}
	k.mu.Lock()
	due := make([]*tree, 0, len(found))
	for _, t := range k.tasks {
		if t.needsPass() {
			due = append(due, t)
		}
	}
	k.mu.Unlock()
	for _, t := range due {
		if d := k.tend(t, found[t.tag]); d >= 0 {
			sooner(d)
		}
	}
	return next
}

// members finds the processes of all tagged trees, by tag.
func (k *Keeper) members() map[uint64][]int {
	found := map[uint64][]int{}
	if k.tags == nil {
		return found
	}
	self := os.Getpid()
	_ = eachPID("/proc", func(pid int) {
		if pid == self {
			return
		}
		limit, err := readTag(pid)
		if err != nil {
			return
		}
		if tag, ours := k.tags.base(limit); ours {
			found[tag] = append(found[tag], pid)
		}
	})
	return found
}

// tend does for one tree what a pass that found these members asks for, and
// returns when to look again.
func (k *Keeper) tend(t *tree, pids []int) time.Duration {
	pids = union(pids, cgroupMembers(t.cgroup))
	pids = slices.DeleteFunc(pids, isZombie)
	k.mu.Lock()
	dead, kill := t.dead, t.killing
	k.mu.Unlock()
	switch {
	case len(pids) == 0 && dead:
		return k.clean(t)
	case kill:
		t.clean = 0
		return k.killTree(t, pids)
	default:
		t.clean = 0
		return lingering
	}
}

// clean counts a pass that found nothing, and tells when it is enough.
func (k *Keeper) clean(t *tree) time.Duration {
	const enough = 2
	t.clean++
	if t.clean < enough {
		return 0
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	t.told = true
	if t.released {
		k.forget(t)
	} else {
		k.tell(Event{ID: t.id, Kind: Empty, PID: t.pid, At: time.Now()})
	}
	return -1
}

// killTree kills the members of a tree that one pass has found. A tree that
// keeps growing is stopped first, until a pass finds nobody new: a stopped
// process neither forks nor exits.
func (k *Keeper) killTree(t *tree, pids []int) time.Duration {
	if t.kill.seen == nil {
		t.kill = killing{seen: map[int]bool{}, since: time.Now(), waits: retryMin}
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
		killCgroup(t.cgroup)
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
// tree, or lives in its cgroup.
func (k *Keeper) belongs(pid int, t *tree) bool {
	if limit, err := readTag(pid); err == nil {
		if base, ours := k.tags.base(limit); ours && base == t.tag {
			return true
		}
	}
	return t.cgroup != "" && inCgroup(pid, t.cgroup)
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
	t.killing, t.urgent = true, true
	if t.pidfd >= 0 {
		_ = unix.PidfdSendSignal(t.pidfd, unix.SIGKILL, nil, 0)
	}
	killCgroup(t.cgroup)
	wake(k.passes)
}

// Signal sends a signal to the leader of a task. The error is ESRCH if it has
// ended.
func (k *Keeper) Signal(id string, sig syscall.Signal) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tasks[id]
	if t == nil || t.pidfd < 0 {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(t.pidfd, sig, nil, 0)
}

// Terminate asks the whole tree of a task to end: it sends sig to every
// process, parents first, but to none whose name (comm, in any case) is in
// exclude, and then SIGCONT, so that stopped ones can die. It looks again until
// a look finds nobody new. Exited and Empty tell what comes of it.
func (k *Keeper) Terminate(id string, sig syscall.Signal, exclude []string) {
	k.mu.Lock()
	t := k.tasks[id]
	if t == nil || t.pid == 0 || t.told {
		k.mu.Unlock()
		return
	}
	t.urgent = true
	pid, dead := t.pid, t.dead
	k.mu.Unlock()
	// A program without children is signalled here and now, which is nearly all.
	if !dead && len(exclude) == 0 && len(children(pid)) == 0 {
		_ = k.Signal(id, sig)
		_ = k.Signal(id, unix.SIGCONT)
		return
	}
	k.done.Go(func() { k.terminateTree(t, sig, exclude) }) // ends when looks find nobody new
}

// terminateTree signals every member of a tree once.
func (k *Keeper) terminateTree(t *tree, sig syscall.Signal, exclude []string) {
	const looks = 20 // a tree that still grows after these is left to the killing
	signalled := map[int]bool{}
	for range looks {
		fresh := 0
		for _, pid := range k.topDown(t) {
			if signalled[pid] {
				continue
			}
			signalled[pid] = true
			fresh++
			if excluded(pid, exclude) {
				continue
			}
			_ = sendSignal(pid, sig, func() bool { return k.belongs(pid, t) })
			_ = sendSignal(pid, unix.SIGCONT, func() bool { return k.belongs(pid, t) })
		}
		if fresh == 0 {
			return
		}
	}
}

// topDown lists the members of a tree, parents before their children: the
// descendants of the leader, and whatever else carries the tag.
func (k *Keeper) topDown(t *tree) []int {
	list := descendants(t.pid)
	if !k.belongs(t.pid, t) {
		list = nil
	}
	known := map[int]bool{}
	for _, pid := range list {
		known[pid] = true
	}
	for _, pid := range union(k.members()[t.tag], cgroupMembers(t.cgroup)) {
		if !known[pid] {
			list = append(list, pid)
		}
	}
	return list
}

// descendants lists a process and all below it, breadth first.
func descendants(root int) []int {
	list := []int{root}
	seen := map[int]bool{root: true}
	for i := 0; i < len(list); i++ {
		for _, child := range children(list[i]) {
			if !seen[child] {
				seen[child] = true
				list = append(list, child)
			}
		}
	}
	return list
}

func excluded(pid int, names []string) bool {
	if len(names) == 0 {
		return false
	}
	st, err := readStat(pid)
	return err == nil && slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, st.comm) })
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
