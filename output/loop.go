package output

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readSize  = 64 << 10 // what a pipe holds, unless it was made larger
	largePipe = 1 << 20  // what the pipe of a busy program is made to hold
	maxEvents = 256      // pipes looked at in one turn
)

// Loop reads the pipes of all programs. It costs one thread, one buffer and
// nothing while nobody prints. In each turn a pipe that has something is read
// once, so that a loud program holds up the others by no more than one read.
type Loop struct {
	epoll int
	wake  int           // an eventfd
	ended chan struct{} // closed when run has returned

	// All up to the mutex belongs to run.
	hands   hands
	open    []sink // those with open files
	oldest  int
	parked  []*source // have something that their sink does not take yet
	resume  time.Time // when they are tried again
	fed     time.Time // when a pipe had something last
	bounded bool      // what it had was little: more may gather

	compressor compressor // of files

	mu      sync.Mutex // guards all below, and feed.sources
	sources []*source  // by descriptor
	drains  []drain
	closed  bool
}

// sink is what pipes are read into, a [Log], a [File] or an [Outlet]. Its methods are called
// in the goroutine of one loop only.
type sink interface {
	// take takes some of what the pipe holds, and returns the number of bytes: 0
	// at its end. The error is EAGAIN when it holds nothing that can be taken
	// before more comes, and later when the sink takes nothing for a while.
	take(s *source, h *hands) (int, error)
	// finish tells that the pipe has ended.
	finish(s *source)
	// rest closes what is open until it is needed again.
	rest()
	// leftover reports whether something is on its way that is in no pipe. It may be
	// called by anybody.
	leftover() bool
	// pipes returns the pipes that are read into it.
	pipes() *feed
}

// feed lists the pipes of a sink.
type feed struct {
	sources *source // guarded by the mutex of the loop that reads them
}

func (f *feed) pipes() *feed { return f }

// later is the error of a sink that takes nothing before that time has passed.
type later time.Duration

func (later) Error() string { return "not yet" }

// source is a pipe that is read.
type source struct {
	fd       int
	stream   Stream
	sink     sink
	instance string // whose it is; empty: no matter
	done     func()
	next     *source // of the same sink, added earlier
	parked   bool    // only what comes anew is told of; belongs to run
	large    bool    // it was made larger, or cannot be; belongs to run
	torn     bool    // the beginning of the line that it is in was dropped; belongs to run
	shared   bool    // others print into the same sink; belongs to run
}

// drain is somebody's wish that what a sink's pipes hold be read.
type drain struct {
	sink sink
	done chan struct{}
}

// NewLoop starts a loop; [Loop.Close] ends it.
func NewLoop() (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot read programs' output: %w", os.NewSyscallError("epoll_create1", err))
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("cannot read programs' output: %w", os.NewSyscallError("eventfd", err))
	}
	l := &Loop{epoll: epoll, wake: wake, ended: make(chan struct{})}
	if err := l.register(wake); err != nil {
		unix.Close(epoll)
		unix.Close(wake)
		return nil, fmt.Errorf("cannot read programs' output: %w", err)
	}
	go l.run() // ends when Close has set closed and woken it
	return l, nil
}

// Add reads the pipe fd into log from now on, as the given stream. At its end
// it closes fd, breaks the log's unfinished line and then calls done, if that
// is not nil; done runs in the loop's own goroutine and must return at once. A
// pipe that a descendant of the program holds open stays until that is gone.
//
// Add owns fd, which must be a plain number that no [os.File] has: on an error
// it is closed. All pipes of a log must be added to the same loop.
func (l *Loop) Add(fd int, log *Log, stream Stream, done func()) error {
	return l.add(&source{fd: fd, sink: log, stream: stream, done: done})
}

// AddFile is Add for output that goes into a file. instance names who prints, for
// formats that tell it.
func (l *Loop) AddFile(fd int, file *File, instance string, stream Stream, done func()) error {
	file.adopt(&l.compressor)
	return l.add(&source{fd: fd, sink: file, instance: instance, stream: stream, done: done})
}

// AddOutlet is Add for output that goes to an outlet.
func (l *Loop) AddOutlet(fd int, o *Outlet, instance string, stream Stream, done func()) error {
	return l.add(&source{fd: fd, sink: o, instance: instance, stream: stream, done: done})
}

func (l *Loop) add(s *source) error {
	fd, stream := s.fd, s.stream
	if stream != Stdout && stream != Stderr {
		unix.Close(fd)
		return fmt.Errorf("cannot read descriptor %d: it is neither stdout nor stderr", fd)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return fmt.Errorf("cannot read %s: descriptor %d: %w", stream, fd, os.NewSyscallError("fcntl", err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		unix.Close(fd)
		return fmt.Errorf("cannot read %s: %w", stream, os.ErrClosed)
	}
	if err := l.register(fd); err != nil {
		unix.Close(fd)
		return fmt.Errorf("cannot read %s: descriptor %d: %w", stream, fd, err)
	}
	if fd >= len(l.sources) {
		l.sources = append(l.sources, make([]*source, fd+1-len(l.sources))...)
	}
	feed := s.sink.pipes()
	s.next, feed.sources = feed.sources, s
	l.sources[fd] = s
	if s.sink.leftover() { // what a killed process has left is not told of by the pipe
		l.drains = append(l.drains, drain{s.sink, make(chan struct{})})
		l.notify()
	}
	return nil
}

// Drain returns a channel that is closed once everything that log's pipes held
// at the time of the call is in the log. Whoever knows that a process is dead
// and then waits for Drain has all that the process wrote, although others may
// still hold the pipe. It is closed at once when there is nothing to read, and
// when the loop is closed.
func (l *Loop) Drain(log *Log) <-chan struct{} { return l.drainSink(log) }

// DrainFile is Drain for a file. What the file does not take now, since its disk is
// full, is not waited for; nor is a line that is not finished yet, where only whole
// ones are written.
func (l *Loop) DrainFile(file *File) <-chan struct{} { return l.drainSink(file) }

// DrainOutlet is DrainFile for an outlet.
func (l *Loop) DrainOutlet(o *Outlet) <-chan struct{} { return l.drainSink(o) }

func (l *Loop) drainSink(s sink) <-chan struct{} {
	done := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || s.pipes().sources == nil {
		close(done)
		return done
	}
	l.drains = append(l.drains, drain{s, done})
	l.notify()
	return done
}

// Idle reports whether nobody prints into the file.
func (l *Loop) Idle(file *File) bool { return l.idle(&file.feed) }

// IdleOutlet is Idle for an outlet.
func (l *Loop) IdleOutlet(o *Outlet) bool { return l.idle(&o.feed) }

func (l *Loop) idle(f *feed) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return f.sources == nil
}

// Close ends the loop, gives up what is being compressed, and closes the pipes that it still reads; their done is
// not called. It must not be called by a done.
func (l *Loop) Close() {
	l.mu.Lock()
	l.closed = true
	l.notify()
	l.mu.Unlock()
	<-l.ended
	l.compressor.close()
}

// Settle returns when what was rotated is compressed.
func (l *Loop) Settle() { l.compressor.wait() }

// notify makes run look at what it is asked. It needs the mutex, by which the
// eventfd is known to be open.
func (l *Loop) notify() {
	select {
	case <-l.ended:
		return
	default:
	}
	// The write fails only when the count is full, and then run is awake.
	_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// register adds a descriptor to the epoll instance, level-triggered.
func (l *Loop) register(fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

// run reads what is ready until the loop is closed.
func (l *Loop) run() {
	defer l.hands.close()
	events := make([]unix.EpollEvent, maxEvents)
	for {
		l.gather()
		n, err := unix.EpollWait(l.epoll, events, l.patience())
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(os.NewSyscallError("epoll_wait", err)) // the descriptor is not ours any more: a bug
		}
		l.bounded = n > 0
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) != l.wake {
				l.read(l.source(int(e.Fd)))
				continue
			}
			if !l.serve() {
				return
			}
		}
		l.unpark()
	}
}

// gatherTime is how long what a busy program prints gathers in its pipe. A read
// for each line would cost many times as much as the bytes do.
const gatherTime = 4 * time.Millisecond

// gather waits a little if pipes had something just now, and not much: then they
// will have more soon. What others ask for is not held up.
func (l *Loop) gather() {
	now := time.Now()
	busy := now.Sub(l.fed) < gatherTime
	l.fed = now
	if !busy || !l.bounded {
		return
	}
	fds := []unix.PollFd{{Fd: int32(l.wake), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds, int(gatherTime.Milliseconds())) // at worst it does not wait
	l.fed = time.Now()
}

// patience returns for how many milliseconds to wait for something to happen; -1
// without end.
func (l *Loop) patience() int {
	if len(l.parked) == 0 {
		return -1
	}
	return int(max(0, time.Until(l.resume)).Milliseconds()) + 1
}

// park lets a pipe rest that holds something which is not taken now: until more
// comes, or with a wait until that has passed.
func (l *Loop) park(s *source, wait time.Duration) {
	if !s.parked {
		s.parked = true
		l.watch(s, unix.EPOLLIN|unix.EPOLLET)
	}
	if wait == 0 || slices.Contains(l.parked, s) {
		return
	}
	if at := time.Now().Add(wait); len(l.parked) == 0 || at.Before(l.resume) {
		l.resume = at
	}
	l.parked = append(l.parked, s)
}

// unpark tries those again whose time has come.
func (l *Loop) unpark() {
	if len(l.parked) == 0 || time.Now().Before(l.resume) {
		return
	}
	due := l.parked
	l.parked = nil
	for _, s := range due {
		l.read(l.source(s.fd))
	}
}

// revive makes that whatever s holds is told of again.
func (l *Loop) revive(s *source) {
	if s.parked {
		s.parked = false
		l.watch(s, unix.EPOLLIN)
	}
}

// watch changes what is told of s.
func (l *Loop) watch(s *source, events uint32) {
	event := unix.EpollEvent{Events: events, Fd: int32(s.fd)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, s.fd, &event); err != nil {
		panic(os.NewSyscallError("epoll_ctl", err)) // it is registered: a bug
	}
}

// source returns what is read from fd; nil if that ended earlier in this turn.
func (l *Loop) source(fd int) *source {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sources[fd]
}

// serve does what others asked for, and reports whether to go on.
func (l *Loop) serve() bool {
	// Reading resets the count; a failure would only mean one more turn.
	var count [8]byte
	_, _ = unix.Read(l.wake, count[:])
	l.mu.Lock()
	drains, closed := l.drains, l.closed
	l.drains = nil
	if closed {
		l.release()
	}
	l.mu.Unlock()
	for _, d := range drains {
		if !closed {
			l.drain(d.sink)
		}
		close(d.done)
	}
	return !closed
}

// release closes all descriptors. It needs the mutex.
func (l *Loop) release() {
	for _, s := range l.sources {
		if s != nil {
			s.sink.pipes().sources = nil
			unix.Close(s.fd)
		}
	}
	l.sources = nil
	unix.Close(l.epoll)
	unix.Close(l.wake)
	close(l.ended)
}

// drain reads what a sink's pipes hold now, and an end that follows it.
func (l *Loop) drain(into sink) {
	l.mu.Lock()
	sources := list(into.pipes().sources, "", Both)
	l.mu.Unlock()
	for _, s := range sources {
		l.empty(s)
	}
}

// list returns the sources of an instance's stream, from the given one on, oldest
// first. It needs the mutex.
func list(s *source, instance string, stream Stream) (all []*source) {
	for ; s != nil; s = s.next {
		if stream.has(s.stream) && (stream == Both || s.instance == instance) {
			all = append(all, s)
		}
	}
	slices.Reverse(all)
	return all
}

// empty reads what s holds now: descendants may write on for ever.
func (l *Loop) empty(s *source) {
	for n, left := 1, held(s.fd); n > 0 && left >= 0; left -= n {
		n = l.take(s)
	}
}

// held returns how many bytes a pipe holds.
func held(fd int) int {
	// FIONREAD, which x/sys calls TIOCINQ, gives its size for a pipe too.
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// read reads once from s, which may be nil. What the tasks before have printed
// comes first: it was in their pipes before this task began.
func (l *Loop) read(s *source) {
	if s == nil {
		return
	}
	l.mu.Lock()
	earlier := list(s.next, s.instance, s.stream)
	l.mu.Unlock()
	for _, e := range earlier {
		l.empty(e)
	}
	l.take(s)
}

// take reads once from s, and returns the number of bytes.
func (l *Loop) take(s *source) int {
	l.admit(s.sink)
	l.mu.Lock()
	s.shared = s.next != nil || s.sink.pipes().sources != s
	l.mu.Unlock()
	n, err := s.sink.take(s, &l.hands)
	var wait later
	switch {
	case errors.As(err, &wait):
		l.park(s, time.Duration(wait))
		return 0
	case errors.Is(err, unix.EAGAIN):
		if held(s.fd) > 0 {
			l.park(s, 0)
		}
		return 0
	case n <= 0:
		l.end(s) // also on an error: there is nothing to be had from it any more
		return 0
	}
	l.took(s, n)
	return n
}

// fullPipe is a pipe that is worth to be made larger when so much is in it.
const fullPipe = readSize / 2

// took notes that n bytes came from s.
func (l *Loop) took(s *source, n int) {
	l.revive(s)
	if n < fullPipe {
		return
	}
	l.bounded = false
	if !s.large {
		s.large = true
		// Where the kernel refuses, since others have much already, it stays as it is.
		_, _ = unix.FcntlInt(uintptr(s.fd), unix.F_SETPIPE_SZ, largePipe)
	}
}

// maxOpen is how many sinks have their files open.
const maxOpen = 256

// admit notes that a sink is about to open its files, and has the one that did so
// longest ago close its own.
func (l *Loop) admit(s sink) {
	if slices.Contains(l.open, s) {
		return
	}
	if len(l.open) < maxOpen {
		l.open = append(l.open, s)
		return
	}
	l.open[l.oldest].rest()
	l.open[l.oldest] = s
	l.oldest = (l.oldest + 1) % maxOpen
}

// end forgets s, closes its descriptor and says so.
func (l *Loop) end(s *source) {
	s.sink.finish(s)
	l.parked = slices.DeleteFunc(l.parked, func(p *source) bool { return p == s })
	l.mu.Lock()
	l.sources[s.fd] = nil
	p := &s.sink.pipes().sources
	for *p != s {
		p = &(*p).next
	}
	*p = s.next
	// Another process may hold the pipe, too: then it would stay registered, and
	// ready for ever. Under the mutex, since the number may be added again at once.
	_ = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, s.fd, nil)
	unix.Close(s.fd)
	l.mu.Unlock()
	if s.done != nil {
		s.done()
	}
}
