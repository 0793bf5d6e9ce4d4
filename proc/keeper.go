package proc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Keeper is the parent of programs: it starts them, collects their ends and
// keeps hold of their process trees. There can be only one in a process, since
// it waits for every child.
//
// Its methods return at once and may be called from any goroutine; what comes
// of them arrives as [Event]s. A task is kept until it is released, and
// [Keeper.Replay] tells of all once more: so whoever decides about programs may
// be another process, and may die and be replaced.
type Keeper struct {
	log    *slog.Logger
	holds  bool   // pipes are held until Drained
	waits  int    // options of wait4
	main   string // the children file of pm's main thread: orphans come there
	cancel context.CancelFunc
	done   sync.WaitGroup

	inherited []Identity // children of an earlier program in this process
	limit     uint64     // the limit that this process itself runs under

	cgroups   *cgroups      // safe by itself
	launching sync.RWMutex  // held for reading while a process is started
	reaps     atomic.Uint64 // grows when a child leaves the list of children

	spawnable chan struct{} // a spawner has something to do
	ready     chan struct{} // events wait
	passes    chan struct{} // the janitor has something to do
	still     chan struct{} // no leader that was asked to end lives any more
	children  chan struct{} // there may be children

	mu        sync.Mutex // guards all below
	tags      *tagSpan   // nil: no tags left at this depth
	queue     []request
	hot       *request        // a successor that the reaper may start itself
	hushed    bool            // a successor is about to be started: nobody is woken
	missed    []chan struct{} // whom to wake then
	events    []Event
	tasks     map[string]*tree
	unheard   []*tree // whose pipes could not be handed out, and those after them
	leaders   map[int]*tree
	tagged    map[uint64]*tree
	ending    map[*tree]bool // trees with needs
	needs     needs          // the sum of theirs
	unclaimed map[int]death  // ended before their spawner wrote them down, or before Resume
	heir      bool           // Resume is still to come
	spawning  int            // how many requests are being carried out, all of
	rank      int            // this rank
	attended  map[int]chan Status
	records   *records       // nil: none are kept
	watched   *watcher       // nil: no task was adopted
	bequest   map[string]int // pidfds of leaders that an earlier program in this process held, by task
}

// request is a spawn that waits for a spawner.
type request struct {
	id      string
	rank    int
	prepare func() (*Command, error)
}

// death is the end of a process.
type death struct {
	status Status
	at     time.Time
}

// tree is the process tree of one task.
type tree struct {
	id       string
	tag      uint64
	cgroup   string // its own cgroup; empty: none
	pid      int    // of the leader
	pidfd    int    // of an adopted leader that lives; else -1
	started  time.Time
	pipes    [2]int    // read ends of its output that are held; -1: none
	inodes   [2]uint64 // of these, also before they are held; 0: none
	failure  *SpawnError
	adopted  bool     // no children of pm's: a keeper that is gone has started it
	dead     bool     // the leader is reaped
	end      death    // of the leader
	left     int      // how many the leader visibly left behind
	step     int      // of the stop, the latest that was asked for
	urgent   bool     // somebody waits for its end
	killing  bool     // whatever is left is to be killed
	clean    int      // passes in a row that found nothing
	orphans  int      // how many of it have ended as children of pm
	seen     int      // orphans at the first of those passes
	told     bool     // Empty was told
	released bool     // the owner needs it no more
	command  *Command // that its leader was started with, while it lives; nil: another keeper knows
	next     *Successor
	kill     killing
	ask      *asking // a graceful stop that is under way
	counted  needs   // as they are in Keeper.needs
}

// Process names one process.
type Process struct {
	PID   int
	Name  string // its comm
	State byte   // as in /proc/PID/stat
}

func (p Process) String() string { return fmt.Sprintf("%s[%d]", p.Name, p.PID) }

// Event is something that became of a task.
type Event struct {
	ID   string
	Kind EventKind
	PID  int
	// At is when the kernel reported it, on the monotonic clock too.
	At time.Time
	// Err is why a Failed task could not be started.
	Err *SpawnError
	// Stdout and Stderr of a Spawned task are the read ends of its pipes, -1
	// where it has none. They now belong to the receiver. Where pipes are held,
	// the keeper has another descriptor of each until it is told by Drained.
	Stdout, Stderr int
	// Unheard says of a Spawned task that they are missing for want of descriptors:
	// its output waits for [Keeper.Remind].
	Unheard bool
	// Status is how the leader of an Exited task ended.
	Status Status
	// Left counts the processes that an Exited leader visibly left behind, or
	// lists those that withstand the killing of a Lingering tree.
	Left      int
	Survivors []Process
}

// ClosePipes closes the read ends of a Spawned task that nobody wants.
func (e Event) ClosePipes() {
	for _, fd := range []int{e.Stdout, e.Stderr} {
		if e.Kind == Spawned && fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// EventKind says what an event tells.
type EventKind int

// The kinds of events, in the order in which a task sees them.
const (
	Spawned   EventKind = iota // the program runs
	Failed                     // it could not be started; nothing of it exists
	Exited                     // its leader has ended
	Lingering                  // its tree withstands SIGKILL; the killing goes on
	Empty                      // nothing of its tree is left
	Paused                     // its leader was stopped by a signal (only of a job-control keeper)
	Replayed                   // all tasks have been told of anew; it has no ID
)

// Status is how a process ended: an exit code, or a signal.
type Status struct {
	Code   int            // -1 if Signal is set, or the end is Unknown
	Signal syscall.Signal // 0: it exited
	Core   bool           // it left a core file
	// Unknown says that nobody saw the end: it came while no keeper lived.
	Unknown bool
}

func statusOf(ws unix.WaitStatus) Status {
	if ws.Signaled() {
		return Status{Code: -1, Signal: ws.Signal(), Core: ws.CoreDump()}
	}
	return Status{Code: ws.ExitStatus()}
}

// spawners is how many processes can be started at once: a vfork holds up the
// thread that calls it until the child's execve.
const spawners = 2

// NewKeeper makes this process the keeper of what it will start: a child
// subreaper that collects every child. Close it to stop its goroutines; it
// leaves the programs alone.
func NewKeeper(log *slog.Logger) (*Keeper, error) { return newKeeper(log, 0, false) }

// NewHeir is NewKeeper for a process that may have been another keeper before an
// execve(2), and so have children that it does not know: their ends wait until
// [Keeper.Resume] tells whose they are, which therefore has to follow.
func NewHeir(log *slog.Logger) (*Keeper, error) { return newKeeper(log, 0, true) }

// Resume makes this a keeper that outlives its owner and whose tasks outlive it:
// it holds the pipes of programs until they are drained, keeps records of its
// tasks in the file at path, and takes over those that an earlier keeper has
// recorded there: its children if that was the same process before an execve(2),
// and else by adoption. [Keeper.Replay] tells of them. It must be called before
// the first Spawn.
//
// A warning is what was wrong with the file; the keeper is usable all the same.
func (k *Keeper) Resume(path string) (warning, err error) {
	k.mu.Lock()
	k.holds = true
	k.mu.Unlock()
	return k.openRecords(path)
}

// NewJobKeeper is NewKeeper for a program that shares pm's terminal: Paused
// events tell when the program is stopped, as by Ctrl-Z.
func NewJobKeeper(log *slog.Logger) (*Keeper, error) { return newKeeper(log, unix.WUNTRACED, false) }

// job reports whether this is the keeper of one program only.
func (k *Keeper) job() bool { return k.waits != 0 }

func newKeeper(log *slog.Logger, waits int, heir bool) (*Keeper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("cannot become a child subreaper: %w", err)
	}
	ignoredSignals() // before anything changes
	quietDeaths()
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{
		log:       log,
		waits:     waits,
		heir:      heir,
		main:      fmt.Sprintf("/proc/%d/task", os.Getpid()),
		cancel:    cancel,
		spawnable: make(chan struct{}, spawners),
		ready:     make(chan struct{}, 1),
		passes:    make(chan struct{}, 1),
		still:     make(chan struct{}, 1),
		children:  make(chan struct{}, 1),
		tasks:     map[string]*tree{},
		leaders:   map[int]*tree{},
		tagged:    map[uint64]*tree{},
		ending:    map[*tree]bool{},
		unclaimed: map[int]death{},
		attended:  map[int]chan Status{},
	}
	k.inherit()
	span, ok := newTagSpan()
	if !ok {
		log.Warn("no tags are left at this depth of nesting: processes that hide from their parent may be missed")
	}
	k.tags = span
	spawners, spares := spawners, spareCgroups
	if k.job() { // seldom started anew
		spawners, spares = 1, 0
	}
	k.cgroups = newCgroups(spares)
	var all []*slots
	for range spawners + 1 {
		s, err := newSlots(k)
		if err != nil {
			cancel()
			k.cgroups.close()
			for _, s := range all {
				s.close()
			}
			return nil, err
		}
		all = append(all, s)
	}
	for _, s := range all[1:] {
		k.done.Go(func() { k.spawner(ctx, s) }) // ends with ctx
	}
	if own := all[0].pin; own != nil {
		own.givesWay = true // what it launches is a replacement, and has nobody behind it
	}
	go k.reaper(ctx, all[0])             // ends with ctx, but not before the next death of a child
	k.done.Go(func() { k.janitor(ctx) }) // ends with ctx
	return k, nil
}

// Close ends the keeper's goroutines. Programs that still run are left alone, and
// nobody collects them any more.
func (k *Keeper) Close() {
	k.cancel()
	k.done.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tasks {
		t.closeFD()
		t.closePipes()
		k.leaveCgroup(t)
	}
	k.cgroups.close()
	if k.watched != nil {
		k.watched.close()
	}
	if k.records != nil {
		k.commit()
		k.records.close()
	}
}

// Spawn starts a process under the id of a task. prepare is called when its
// turn comes, outside the caller's goroutine, and may read files; its error
// makes the task Failed. Spawning an id that lives does nothing, so that the
// request may be repeated. Exactly one of Spawned and Failed answers.
//
// Requests are carried out in order, but those of the same rank that follow each
// other may overtake each other.
func (k *Keeper) Spawn(id string, rank int, prepare func() (*Command, error)) {
	k.mu.Lock()
	if k.tasks[id] != nil {
		k.mu.Unlock()
		return
	}
	k.tasks[id] = newTree(id)
	k.queue = append(k.queue, request{id, rank, prepare})
	k.mu.Unlock()
	wake(k.spawnable)
}

func newTree(id string) *tree { return &tree{id: id, pidfd: -1, pipes: [2]int{-1, -1}} }

// wake puts a token into a channel that may already hold one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Ready returns a channel that holds a token when events wait.
func (k *Keeper) Ready() <-chan struct{} { return k.ready }

// Take returns the events since the last call, oldest first.
func (k *Keeper) Take() []Event {
	k.mu.Lock()
	defer k.mu.Unlock()
	events := k.events
	k.events = nil
	k.commit()
	return events
}

// tell queues an event. The caller holds k.mu.
func (k *Keeper) tell(e Event) {
	k.events = append(k.events, e)
	k.wake(k.ready)
}

// wake is the like of the function of that name, but keeps it for later while a
// successor is about to be started: whoever wakes up takes a processor, and a
// replacement is what others wait for. The caller holds k.mu.
func (k *Keeper) wake(c chan struct{}) {
	if k.hushed {
		k.missed = append(k.missed, c)
		return
	}
	wake(c)
}

// unhush wakes who was to be woken. The caller holds k.mu.
func (k *Keeper) unhush() {
	k.hushed = false
	for _, c := range k.missed {
		wake(c)
	}
	k.missed = k.missed[:0]
}

// HandOver prepares an execve(2) by which this process becomes another keeper. It
// waits until nothing is half done, neither a launch nor the collection of an end,
// and lets nothing begin until release is called. leaders is for
// [Keeper.Inherit]; nil if there was an error.
func (k *Keeper) HandOver() (leaders *os.File, release func(), err error) {
	calmThreads() // one of them becomes the main thread
	k.launching.Lock()
	k.mu.Lock()
	release = func() {
		k.mu.Unlock()
		k.launching.Unlock()
	}
	k.commit() // ends that nobody was told of yet
	adopted := map[string]int{}
	for id, t := range k.tasks {
		if t.pidfd >= 0 {
			adopted[id] = t.pidfd
		}
	}
	leaders, err = Bequeath(adopted)
	return leaders, release, err
}

// Release says that the owner of a task that has exited or failed is done with
// it: the keeper kills whatever may still be found of its tree, and forgets the
// task.
func (k *Keeper) Release(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tasks[id]
	if t == nil || t.released {
		return
	}
	t.released, t.next = true, nil
	k.record(recordReleased, t)
	if t.told || t.failure != nil {
		k.retire(t)
		return
	}
	t.killing = true
	k.review(t)
	wake(k.passes)
}

// Drained says that nothing will come any more from a pipe of a task, of stdout
// (0) or stderr (1), and that all that came is in safe hands.
func (k *Keeper) Drained(id string, stream int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.tasks[id]
	if t == nil || t.pipes[stream] < 0 {
		return
	}
	_ = unix.Close(t.pipes[stream])
	t.pipes[stream], t.inodes[stream] = -1, 0
	k.retire(t)
}

// retire forgets a task that nobody needs any more: it is released, nothing is
// left of it, and what it wrote has been read. The caller holds k.mu.
func (k *Keeper) retire(t *tree) {
	if t.released && (t.told || t.failure != nil) && t.pipes == [2]int{-1, -1} {
		k.forget(t)
	}
}

// forget drops a task. The caller holds k.mu.
func (k *Keeper) forget(t *tree) {
	k.record(recordForgotten, t)
	t.closeFD()
	if t.cgroup != "" {
		k.leaveCgroup(t)
		wake(k.passes)
	}
	delete(k.tasks, t.id)
	if k.tagged[t.tag] == t {
		delete(k.tagged, t.tag)
	}
	if k.leaders[t.pid] == t {
		delete(k.leaders, t.pid)
	}
}

// leaveCgroup has the cgroup of a tree removed of which nothing is left. The caller
// holds k.mu.
func (k *Keeper) leaveCgroup(t *tree) {
	if t.cgroup != "" {
		k.cgroups.drop(t.cgroup)
		t.cgroup = ""
	}
}

func (t *tree) closeFD() {
	if t.pidfd >= 0 {
		_ = unix.Close(t.pidfd)
		t.pidfd = -1
	}
}

func (t *tree) closePipes() {
	for n, fd := range t.pipes {
		if fd >= 0 {
			_ = unix.Close(fd)
			t.pipes[n] = -1
		}
	}
}

// Replay tells of every task that is not released, or whose output is not
// drained, from its beginning: for an owner that knows nothing of them yet.
// Events that were not taken yet are told again as well, and only once.
func (k *Keeper) Replay() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.events {
		e.ClosePipes()
	}
	k.events = nil
	// A task comes before its successor.
	k.unheard = nil
	all := slices.SortedFunc(maps.Values(k.tasks), func(a, b *tree) int { return a.started.Compare(b.started) })
	for _, t := range all {
		switch {
		case t.failure != nil:
			k.tellFailed(t)
		case t.pid != 0:
			k.tellSpawned(t)
			if t.dead {
				k.tellExited(t)
			}
			if t.told {
				k.tellEmpty(t)
			}
		}
	}
	k.tell(Event{Kind: Replayed, At: time.Now(), Stdout: -1, Stderr: -1})
}

func (k *Keeper) tellFailed(t *tree) {
	k.tell(Event{ID: t.id, Kind: Failed, At: t.end.at, Err: t.failure})
}

// tellSpawned hands out the pipes of a task, or descriptors of the same if they
// are held. They come after those of tasks that were started before, since what
// those have printed is older.
func (k *Keeper) tellSpawned(t *tree) {
	if !k.holds {
		k.tell(t.spawned(t.pipes))
		t.pipes = [2]int{-1, -1}
		return
	}
	if k.remind() || !k.handOut(t) {
		k.unheard = append(k.unheard, t)
		e := t.spawned([2]int{-1, -1})
		e.Unheard = true
		k.tell(e)
	}
}

func (t *tree) spawned(pipes [2]int) Event {
	return Event{ID: t.id, Kind: Spawned, PID: t.pid, At: t.started, Stdout: pipes[0], Stderr: pipes[1]}
}

// handOut tells of the start of a task, with other descriptors of its pipes: of all
// of them, or if there are too few it tells nothing.
func (k *Keeper) handOut(t *tree) bool {
	e := t.spawned([2]int{duplicate(t.pipes[0]), duplicate(t.pipes[1])})
	if e.Stdout < 0 != (t.pipes[0] < 0) || e.Stderr < 0 != (t.pipes[1] < 0) {
		e.ClosePipes()
		return false
	}
	k.tell(e)
	return true
}

// Remind tells once more of the start of tasks whose pipes could not be handed out,
// and reports whether some still cannot be.
func (k *Keeper) Remind() (left bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.remind()
}

func (k *Keeper) remind() (left bool) {
	for len(k.unheard) > 0 {
		// One that is over needs no telling: all that it printed is written.
		if t := k.unheard[0]; k.tasks[t.id] == t && !k.handOut(t) {
			return true
		}
		k.unheard = k.unheard[1:]
	}
	k.unheard = nil
	return false
}

func duplicate(fd int) int {
	if fd < 0 {
		return -1
	}
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, maxFiles)
	if err != nil {
		return -1
	}
	if nearlyLast(other, spareFiles/2) { // or there is none left to start the worker with that takes them
		_ = unix.Close(other)
		return -1
	}
	return other
}

func (k *Keeper) tellExited(t *tree) {
	k.tell(Event{ID: t.id, Kind: Exited, PID: t.pid, At: t.end.at, Status: t.end.status, Left: t.left})
}

func (k *Keeper) tellEmpty(t *tree) {
	k.tell(Event{ID: t.id, Kind: Empty, PID: t.pid, At: time.Now()})
}

// List returns the pid of every task's leader that lives. It waits for launches that
// are under way: so there is no program, however young, that it does not tell of.
func (k *Keeper) List() map[string]int {
	k.launching.Lock() // a program runs a moment before it is written down
	defer k.launching.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make(map[string]int, len(k.tasks))
	for id, t := range k.tasks {
		if t.pid != 0 && !t.dead {
			out[id] = t.pid
		}
	}
	return out
}

// spawner takes requests from the queue, one at a time.
func (k *Keeper) spawner(ctx context.Context, s *slots) {
	defer s.close()
	for {
		req, ok := k.nextRequest()
		if ok {
			k.start(s, req)
			continue
		}
		if k.cgroups.provide() {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-k.spawnable:
		}
	}
}

func (k *Keeper) nextRequest() (request, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.queue) == 0 || k.spawning > 0 && k.queue[0].rank != k.rank {
		return request{}, false
	}
	req := k.queue[0]
	k.rank = req.rank
	k.queue[0] = request{}
	k.queue = k.queue[1:]
	if len(k.queue) > 0 {
		wake(k.spawnable)
	} else {
		k.queue = nil
	}
	k.spawning++
	return req, true
}

// start carries out one request.
func (k *Keeper) start(s *slots, req request) {
	k.launching.RLock()
	defer k.launching.RUnlock()
	command, err := req.prepare()
	tag, cgroup := k.takeTag(req.id)
	var (
		out    spawned
		failed int // pid of a child that failed before its execve
		fail   *SpawnError
	)
	if err != nil {
		if !errors.As(err, &fail) {
			fail = &SpawnError{Doing: "cannot prepare the launch", Err: err}
		}
	} else {
		begin := func(out *spawned) { k.recordPipes(req.id, out) }
		k.aside(cgroup, func() { out, failed, fail = s.spawn(command, tag, cgroup, begin) })
		wake(k.children)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.launched()
	t := k.tasks[req.id]
	if fail != nil {
		k.discard(failed)
		t.failure, t.end.at = fail, time.Now()
		k.record(recordFailed, t)
		k.tellFailed(t)
		return
	}
	t.pid, t.started, t.command = out.pid, out.start, command
	if out.cgroup != cgroup {
		k.cgroups.drop(cgroup)
		t.cgroup = ""
	}
	t.pipes = out.pipes()
	k.leaders[out.pid] = t
	k.review(t)
	k.record(recordSpawned, t)
	k.tellSpawned(t)
	if d, ended := k.unclaimed[out.pid]; ended {
		delete(k.unclaimed, out.pid)
		k.ended(t, d)
		k.nextHot(true)
	}
}

// launched notes the end of a launch. A request of another rank may have waited for
// it, and not every launch is a spawner's. The caller holds k.mu.
func (k *Keeper) launched() {
	k.spawning--
	if len(k.queue) > 0 {
		wake(k.spawnable)
	}
}

// recordPipes notes, just before a task is started, the pipes that it is given.
func (k *Keeper) recordPipes(id string, out *spawned) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.records == nil {
		return
	}
	t := k.tasks[id]
	for n, fd := range out.pipes() {
		t.inodes[n] = inode(fd)
	}
	k.record(recordPipes, t)
}

// aside runs a launch, and not on the main thread where orphans are looked for
// among the children of that (see [Keeper.orphans]): a program without a cgroup,
// unless it is the only one.
func (k *Keeper) aside(cgroup string, launch func()) {
	if cgroup != "" || k.job() || unix.Gettid() != unix.Getpid() {
		launch()
		return
	}
	runtime.LockOSThread() // so whoever else runs, runs on another thread
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() { defer close(done); launch() }() // ends with the launch
	<-done
}

// takeTag gives a task its tag, and a cgroup where there can be one.
func (k *Keeper) takeTag(id string) (tag uint64, cgroup string) {
	k.mu.Lock()
	t := k.tasks[id]
	if k.tags != nil {
		tag = k.tags.take(func(tag uint64) bool { return k.tagged[tag] != nil })
	}
	if tag != 0 {
		t.tag = tag
		k.tagged[tag] = t
	}
	k.mu.Unlock()
	if tag != 0 {
		cgroup = k.cgroups.take()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	t.cgroup = cgroup
	k.record(recordWanted, t)
	return tag, cgroup
}

// discard makes sure that the end of a child that failed before its execve is
// not kept for ever. The caller holds k.mu.
func (k *Keeper) discard(pid int) {
	if pid == 0 {
		return
	}
	if _, ended := k.unclaimed[pid]; ended {
		delete(k.unclaimed, pid)
		return
	}
	k.leaders[pid] = nil
}

// quietDeaths gives SIGCHLD its default action, which is nothing: the Go runtime
// handles it for those who ask for it, and its handler would run at every death.
func quietDeaths() {
	var action [4]uint64 // struct sigaction of the kernel: SIG_DFL
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
}

// reaper collects every child that ends: programs, and orphans of theirs that
// came to the subreaper. One thread waits for all children: nothing wakes up for
// a death sooner, and there is no queue of signals to lose one in. When there is
// no child at all there can be no orphan either, and it waits for a spawn.
//
// The successor of a task that has ended it starts itself, since a hand-over to a
// spawner takes as long as half of a launch; unless deaths come in swarms.
func (k *Keeper) reaper(ctx context.Context, s *slots) {
	defer s.close()
	for ctx.Err() == nil {
		begin := time.Now()
		c, err := peek(k.waits)
		now := time.Now()
		if ctx.Err() != nil { // the child may be another keeper's
			return
		}
		if err == unix.ECHILD {
			select {
			case <-ctx.Done():
			case <-k.children:
			}
			continue
		}
		if err != nil { // EINTR
			continue
		}
		if c.stopped {
			k.paused(c)
			continue
		}
		swarm := now.Sub(begin) < swarming
		next := k.died(c, now, swarm)
		if next != nil {
			k.start(s, *next)
			wake(k.spawnable) // to make a cgroup in place of the one that was taken
		}
		k.bury(c.pid, swarm)
		if !swarm && next == nil {
			// Whoever the death concerns goes first, on this very thread: the
			// next wait blocks it.
			runtime.Gosched()
		}
	}
}

// died notes the end of a child, which stays a zombie: so its pid is no other's
// before everybody knows that it is dead. It returns the successor that is to be
// started, if there is one and no swarm of deaths.
func (k *Keeper) died(c change, now time.Time, swarm bool) (next *request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hushed = !swarm
	k.noteOrphan(c.pid)
	k.claim(c.pid, death{c.status, now})
	return k.nextHot(swarm)
}

// bury reaps a child whose end is noted. The kernel takes longer for that than for
// anything else about a death, so neither a successor nor the mutex waits for it.
func (k *Keeper) bury(pid int, swarm bool) {
	k.reaps.Add(1) // that one begins, and that it is over
	collect(pid, unix.WEXITED)
	k.reaps.Add(1)
	wake(k.passes) // one that has seen the zombie would wait
	if !swarm {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.unhush()
	}
}

// swarming is how soon after the last a death must come to be one of a swarm.
const swarming = 200 * time.Microsecond

// noteOrphan counts, for its tree, an ended child that is no leader: somebody
// may have been born of it behind the back of a pass. The caller holds k.mu.
func (k *Keeper) noteOrphan(pid int) {
	if _, leader := k.leaders[pid]; leader || k.tags == nil {
		return
	}
	limit, err := readTag(pid)
	if err != nil {
		return
	}
	tag, ours := k.tags.base(limit)
	t := k.tagged[tag]
	if !ours {
		t = k.ofSession(pid)
	}
	if t != nil {
		t.orphans++
	}
}

// paused tells of a child that was stopped, if it is a leader.
func (k *Keeper) paused(c change) {
	k.mu.Lock()
	defer k.mu.Unlock()
	collect(c.pid, unix.WSTOPPED)
	if t := k.leaders[c.pid]; t != nil {
		k.tell(Event{ID: t.id, Kind: Paused, PID: c.pid, At: time.Now(), Status: c.status})
	}
}

// claim tells of the end of a child whomever it concerns. The caller holds k.mu.
func (k *Keeper) claim(pid int, d death) {
	t, known := k.leaders[pid]
	attended := k.attended[pid]
	switch {
	case attended != nil:
		attended <- d.status
		delete(k.attended, pid)
	case known && t == nil: // it failed before its execve
		delete(k.leaders, pid)
	case known:
		k.ended(t, d)
	case k.spawning > 0 || k.heir: // perhaps a program that its spawner has yet to write down, or Resume
		k.unclaimed[pid] = d
		k.recheck()
	default: // an orphan
		k.recheck()
	}
	k.dropUnclaimed()
}

// dropUnclaimed forgets ends that nobody will claim: of orphans, all of them. The
// caller holds k.mu.
func (k *Keeper) dropUnclaimed() {
	if k.spawning == 0 && !k.heir && len(k.unclaimed) > 0 {
		clear(k.unclaimed)
	}
}

// ended notes the end of a task's leader. The caller holds k.mu.
func (k *Keeper) ended(t *tree, d death) {
	t.dead = true
	k.review(t)
	t.closeFD()
	delete(k.leaders, t.pid)
	t.end = d
	if !t.urgent { // else its end is under way already
		t.left = k.orphans(t)
	}
	k.record(recordExited, t)
	k.tellExited(t)
	k.succeed(t)
	k.wake(k.passes)
}

// recheck asks the janitor to look again at trees whose leader is gone: the
// last process of such a tree is a child of ours, and one has just ended. The
// caller holds k.mu.
func (k *Keeper) recheck() { k.wake(k.passes) }

// orphans counts what the leader of t has left behind: who is in its cgroup, or
// else the processes with its tag that have come to pm itself. The latter costs
// one read of a file that is nearly always empty, because programs are children
// of the thread that started them, and only orphans go to the main thread. When
// it returns 0 the tree is almost certainly empty; the janitor makes it sure.
func (k *Keeper) orphans(t *tree) int {
	if t.tag == 0 {
		return 0
	}
	if t.cgroup != "" {
		return len(k.cgroups.members(t.cgroup))
	}
	n := 0
	for _, pid := range k.strays(t) {
		if k.belongs(pid, t) && !isZombie(pid) {
			n++
		}
	}
	return n
}

// strays lists processes among which those are that the leader of t has left
// behind: pm's own children, or, if t was adopted, anybody.
func (k *Keeper) strays(t *tree) []int {
	if t.adopted {
		all, _ := listPIDs("/proc")
		return all
	}
	own, _ := threadChildren(k.main, os.Getpid())
	return own
}

func isZombie(pid int) bool {
	st, err := readStat(pid)
	return err != nil || st.ended()
}
