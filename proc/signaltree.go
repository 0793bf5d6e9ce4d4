package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// TreeSignal says what to send to process trees that pm did not start.
type TreeSignal struct {
	Signal syscall.Signal
	// Exclude are names (comm, in any case) that get no Signal. Their children
	// still do, and the killing after Grace spares nobody.
	Exclude []string
	// Grace, if Kill is set, is the time to wait for the trees to end before
	// what is left is killed.
	Grace time.Duration
	Kill  bool
	// Timeout bounds the whole; 0: none. Without Kill it is also how long to wait
	// for the trees to end; who was spared is not waited for.
	Timeout time.Duration
	// DryRun only looks.
	DryRun bool
	// Force allows pid 1, pm itself and its ancestors as roots.
	Force bool
}

// Outcome is what became of one process of a tree.
type Outcome string

// The outcomes.
const (
	Signalled Outcome = "signalled"
	Excluded  Outcome = "excluded"
	Killed    Outcome = "killed" // by SIGKILL, after the grace
	Gone      Outcome = "gone"   // it ended before it was its turn
	Left      Outcome = "left"   // it lives and should not, or could not be signalled
)

// Member is one process of a tree.
type Member struct {
	Process
	Parent  int
	Depth   int // below its root
	Outcome Outcome
	Err     error // why it could not be signalled
}

// TreeReport is what SignalTree did, parents before their children.
type TreeReport struct {
	Members []Member
	// Left counts the processes that live although they were to be killed or were
	// waited for, or that could not be signalled.
	Left int
	// Missing are roots that do not exist.
	Missing []int
}

// SignalTree sends a signal to whole process trees, parents first, and looks
// again until a look finds nobody new. A process that was seen once stays a
// member whoever its parent becomes; what a member's session or tag proves to be
// its descendant is a member too. Every signal goes through a pidfd that was
// checked against the process's start time, so a reused pid is never hit.
//
// The error tells a refusal; what went wrong with single processes is in the
// report.
func SignalTree(ctx context.Context, roots []int, o TreeSignal) (TreeReport, error) {
	if err := refuse(roots, o.Force); err != nil {
		return TreeReport{}, err
	}
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	h := &hunt{options: o, known: map[int]*quarry{}}
	defer h.close()
	missing := h.addRoots(roots)
	h.signalAll()
	switch {
	case o.DryRun:
	case o.Kill:
		h.await(ctx, o.Grace)
		h.killAll(ctx)
	case o.Timeout > 0:
		h.outlast(ctx)
	}
	return h.report(missing), nil
}

// refuse rejects roots whose tree would take pm or the machine with it.
func refuse(roots []int, force bool) error {
	if force {
		return nil
	}
	above := ancestors(os.Getpid())
	for _, pid := range roots {
		switch {
		case pid == 1:
			return errors.New("pid 1 is the root of all processes; --force if that is meant")
		case pid == os.Getpid():
			return errors.New("that is pm itself")
		case slices.Contains(above, pid):
			return fmt.Errorf("process %d is an ancestor of pm itself; --force if that is meant", pid)
		case pid < 1:
			return fmt.Errorf("%d is not a pid", pid)
		}
	}
	return nil
}

// ancestors lists the parents of a process up to the root.
func ancestors(pid int) (list []int) {
	for range 1 << 15 {
		st, err := readStat(pid)
		if err != nil || st.parent == 0 {
			break
		}
		pid = st.parent
		list = append(list, pid)
	}
	return list
}

// hunt is one run of SignalTree.
type hunt struct {
	options TreeSignal
	known   map[int]*quarry
	order   []*quarry
	tags    map[uint64]bool // tags that only members carry
}

// quarry is a member of a hunted tree, held by its pidfd.
type quarry struct {
	Member
	start  uint64
	single bool // it had one thread when it was found
	fd     int
	done   bool // it was signalled, or spared
	killed bool
}

func (h *hunt) close() {
	for _, q := range h.order {
		_ = unix.Close(q.fd)
	}
}

func (h *hunt) addRoots(roots []int) (missing []int) {
	for _, pid := range roots {
		if h.add(pid, 0, anybody) == nil && h.known[pid] == nil {
			missing = append(missing, pid)
		}
	}
	h.tags = h.topTags()
	return missing
}

// add makes a process a member. It returns nil if it is none, or is one already.
// whose says of the process, once it is held, whether it is what was looked for:
// its pid may have passed to a stranger meanwhile.
func (h *hunt) add(pid, depth int, whose func(stat) bool) *quarry {
	if q := h.known[pid]; q != nil && !q.reused() || pid == os.Getpid() {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil
	}
	st, err := readStat(pid) // after the pidfd is open: this is the process it holds
	if err != nil || !whose(st) || st.state == 'Z' && depth > 0 {
		_ = unix.Close(fd)
		return nil
	}
	q := &quarry{
		Member: Member{Process: Process{PID: pid, Name: st.comm, State: st.state}, Parent: st.parent, Depth: depth},
		start:  st.start, single: st.threads == 1, fd: fd,
	}
	h.known[pid] = q
	h.order = append(h.order, q)
	return q
}

// anybody is for roots: who they are, the user says.
func anybody(stat) bool { return true }

// reused reports whether the pid now belongs to another process. As long as there
// is something to signal it does not.
func (q *quarry) reused() bool {
	if unix.PidfdSendSignal(q.fd, 0, nil, 0) == nil {
		return false
	}
	st, err := readStat(q.PID)
	return err == nil && st.start != q.start
}

// alive reports whether the process still runs; a zombie does not.
func (q *quarry) alive() bool {
	st, err := readStat(q.PID)
	return err == nil && st.start == q.start && !st.ended()
}

// topTags finds the tags of roots that lead a task: whoever carries such a tag
// descends from a member. The parent of a leader does not carry it, but neither
// does that of an orphan; the leader is the oldest of all that carry it.
func (h *hunt) topTags() map[uint64]bool {
	tags := map[uint64]bool{}
	leaders := map[uint64]*quarry{}
	for _, q := range h.order {
		own, err1 := readTag(q.PID)
		parent, err2 := readTag(q.Parent)
		if err1 == nil && err2 == nil && own != parent && own <= tagTop && own > tagTop/2 {
			tags[own] = true
			if leaders[own] == nil || q.older(leaders[own]) {
				leaders[own] = q
			}
		}
	}
	if len(tags) == 0 {
		return nil
	}
	_ = eachPID("/proc", func(pid int) {
		tag, err := readTag(pid)
		if err != nil || !tags[tag] {
			return
		}
		st, err := readStat(pid)
		other := quarry{Member: Member{Process: Process{PID: pid}}, start: st.start}
		if err == nil && other.older(leaders[tag]) {
			delete(tags, tag)
		}
	})
	return tags
}

// older reports whether q was started before another process, as far as clock
// ticks and pids tell.
func (q *quarry) older(than *quarry) bool {
	return q.start < than.start || q.start == than.start && q.PID < than.PID
}

// look adds the children of all members, down to the leaves, and returns how
// many are new. It is quick, and may miss one: a sweep does not.
func (h *hunt) look() int {
	before := len(h.order)
	for n := 0; n < len(h.order); n++ {
		q := h.order[n]
		now := bootTicks()
		for _, child := range q.children() {
			h.add(child, q.Depth+1, func(st stat) bool { return q.begot(st, now) })
		}
	}
	return len(h.order) - before
}

// begot reports whether a process that was among the children of q at the time
// listed is the one that st tells of. If q is not its parent any more, it has
// been handed on since; then it must have been there before it was listed.
func (q *quarry) begot(st stat, listed uint64) bool {
	return !q.reused() && (st.parent == q.PID || st.start < listed)
}

func (q *quarry) children() []int {
	if q.single {
		list, _ := threadChildren("/proc/"+strconv.Itoa(q.PID)+"/task", q.PID)
		return list
	}
	return children(q.PID)
}

// sweep reads every process of the machine once, and adds those that are
// children of members, or whose session or tag proves them to be descendants:
// they lost their parent before a look could see them.
func (h *hunt) sweep() int {
	before := len(h.order)
	_ = eachPID("/proc", func(pid int) {
		if h.known[pid] != nil {
			return
		}
		if len(h.tags) > 0 && h.carries(pid) {
			h.add(pid, 1, func(stat) bool { return h.carries(pid) })
			return
		}
		if sid, err := unix.Getsid(pid); err == nil && h.holds(sid) {
			h.add(pid, h.known[sid].Depth+1, func(stat) bool { return h.inSession(pid, sid) })
			return
		}
		if st, err := readStat(pid); err == nil && st.state != 'Z' && h.holds(st.parent) {
			parent := h.known[st.parent]
			h.add(pid, parent.Depth+1, func(now stat) bool { return now.parent == parent.PID && !parent.reused() })
		}
	})
	return len(h.order) - before
}

// holds reports whether a pid is still that of a member, living or dead. The
// number of a dead one stays taken while its session has anybody in it.
func (h *hunt) holds(pid int) bool { return h.known[pid] != nil && !h.known[pid].reused() }

// carries reports whether a process has a tag that only members carry.
func (h *hunt) carries(pid int) bool {
	tag, err := readTag(pid)
	return err == nil && h.tags[tag]
}

// inSession reports whether a process is in the session that a member leads.
func (h *hunt) inSession(pid, leader int) bool {
	sid, err := unix.Getsid(pid)
	return err == nil && sid == leader && h.holds(leader)
}

// signalAll signals every member once. It ends when a look and a sweep of the
// whole machine have found nobody new.
func (h *hunt) signalAll() {
	const rounds = 100 // a tree that still grows after these is left to the killing
	if h.options.Signal == unix.SIGKILL && !h.options.DryRun {
		h.freeze(true) // or what is killed last leaves children that nobody knows
	}
	for range rounds {
		h.look()
		h.signalNew()
		if h.look() == 0 && h.sweep() == 0 {
			return
		}
	}
}

func (h *hunt) signalNew() {
	for _, q := range h.order {
		if q.done {
			continue
		}
		q.done = true
		switch {
		case h.excludes(q):
			q.Outcome = Excluded
		case h.options.DryRun:
			q.Outcome = Signalled
		case q.State == 'Z':
			q.Outcome = Gone
		default:
			q.send(h.options.Signal, Signalled)
			h.wake(q)
		}
	}
}

// wake lets a stopped process act on a signal that asks it to end.
func (h *hunt) wake(q *quarry) {
	switch h.options.Signal {
	case unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGABRT:
		_ = unix.PidfdSendSignal(q.fd, unix.SIGCONT, nil, 0)
	}
}

func (h *hunt) excludes(q *quarry) bool { return named(q.Name, h.options.Exclude) }

func (q *quarry) send(sig syscall.Signal, then Outcome) {
	switch err := unix.PidfdSendSignal(q.fd, sig, nil, 0); {
	case err == nil:
		q.Outcome, q.Err = then, nil
	case errors.Is(err, unix.ESRCH):
		q.Outcome, q.Err = Gone, nil
	default:
		q.Outcome, q.Err = Left, err
	}
}

// living returns the members that live.
func (h *hunt) living() []*quarry {
	return slices.DeleteFunc(slices.Clone(h.order), func(q *quarry) bool { return !q.alive() })
}

// await waits until all members have ended, for at most grace. It sleeps in
// poll(2) on the pidfd of one member after the other, not in a loop.
func (h *hunt) await(ctx context.Context, grace time.Duration) {
	deadline := time.Now().Add(grace)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	for _, q := range h.living() {
		if h.unwanted(q) && !q.awaitEnd(ctx, deadline) {
			return
		}
	}
}

// unwanted reports whether a member is to end: all of them where there is killing,
// and where there is only waiting, all that were not spared.
func (h *hunt) unwanted(q *quarry) bool {
	o := h.options
	return !o.DryRun && (o.Kill || o.Timeout > 0 && q.Outcome != Excluded)
}

// outlast waits until nothing is left, also of what the trees have started since
// they were signalled, or until ctx ends.
func (h *hunt) outlast(ctx context.Context) {
	for !over(ctx) {
		h.await(ctx, h.options.Timeout)
		if h.look() == 0 && h.sweep() == 0 {
			return
		}
	}
}

// awaitEnd waits until the process has ended, and reports whether it did before
// the deadline.
func (q *quarry) awaitEnd(ctx context.Context, deadline time.Time) bool {
	const turn = 100 * time.Millisecond // how late the end of ctx may be noticed
	for ctx.Err() == nil {
		left := time.Until(deadline)
		if left <= 0 {
			return !q.alive()
		}
		fds := []unix.PollFd{{Fd: int32(q.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(min(left, turn)/time.Millisecond)+1)
		if n > 0 && err == nil {
			return true
		}
	}
	return false
}

// killAll kills what is left, and whatever that has started meanwhile, until
// nothing is left or ctx ends. Everything is stopped before it is killed: a
// stopped process neither forks nor exits, so nothing is born unseen.
func (h *hunt) killAll(ctx context.Context) {
	for pause := time.Millisecond; !over(ctx); pause = min(2*pause, 200*time.Millisecond) {
		fresh := h.freeze(false)
		living := h.living()
		if len(living) == 0 && fresh == 0 {
			return
		}
		// Children first: where a parent's end leaves a process group without one,
		// the kernel wakes those of it that are stopped.
		for _, q := range slices.Backward(living) {
			q.send(unix.SIGKILL, Killed)
			q.killed = true
		}
		deadline := time.Now().Add(pause)
		for _, q := range living {
			if q.Outcome == Killed { // also after ctx has ended: what was killed is not called left
				q.awaitEnd(context.WithoutCancel(ctx), deadline)
			}
		}
		if h.onlyRefused() {
			return
		}
	}
}

// over reports whether ctx has ended, also in the moment before its timer says so.
func over(ctx context.Context) bool {
	deadline, bounded := ctx.Deadline()
	return ctx.Err() != nil || bounded && !time.Now().Before(deadline)
}

// freeze stops all members, but perhaps those to be spared, until looks find
// nobody new, and returns how many were new.
func (h *hunt) freeze(spare bool) (fresh int) {
	const rounds = 1000
	for range rounds {
		h.stopAll(spare)
		n := h.look()
		if n == 0 {
			n = h.sweep()
		}
		if n == 0 {
			return fresh
		}
		fresh += n
	}
	return fresh
}

// stopAll stops the living members, but perhaps those to be spared, and returns
// when they are: one that was interrupted in a fork ends that first.
func (h *hunt) stopAll(spare bool) {
	var stopped []*quarry
	for _, q := range h.living() {
		if spare && h.excludes(q) {
			continue
		}
		if unix.PidfdSendSignal(q.fd, unix.SIGSTOP, nil, 0) == nil {
			stopped = append(stopped, q)
		}
	}
	begin := time.Now()
	for _, q := range stopped {
		q.awaitStop(begin)
	}
}

// awaitStop waits until a process that was told to stop at begin does not run any
// more. In state D it may never stop, as when it waits for a vforked child that
// is stopped itself.
func (q *quarry) awaitStop(begin time.Time) {
	patience := map[byte]time.Duration{'R': 5 * time.Second, 'S': 5 * time.Second, 'D': 200 * time.Millisecond}
	for {
		st, err := readStat(q.PID)
		if err != nil || st.start != q.start || time.Since(begin) > patience[st.state] {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// onlyRefused reports whether all that lives may not be signalled.
func (h *hunt) onlyRefused() bool {
	for _, q := range h.living() {
		if q.Outcome != Left {
			return false
		}
	}
	return true
}

func (h *hunt) report(missing []int) TreeReport {
	r := TreeReport{Missing: missing}
	for _, q := range h.order {
		if q.Outcome == "" {
			q.Outcome = Gone
		}
		if h.unwanted(q) && q.alive() {
			q.Outcome = Left
		}
		if q.Outcome == Left {
			if st, err := readStat(q.PID); err == nil {
				q.State = st.state
			}
			r.Left++
		}
		r.Members = append(r.Members, q.Member)
	}
	return r
}
