package output

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	readSize  = 64 << 10 // what a pipe holds, unless it was made larger
	maxEvents = 256      // pipes looked at in one turn
)

// Loop reads the pipes of all programs. It costs one thread, one buffer and
// nothing while nobody prints. In each turn a pipe that has something is read
// once, so that a loud program holds up the others by no more than one read.
type Loop struct {
	epoll int
	wake  int           // an eventfd
	ended chan struct{} // closed when run has returned

	open   []*Log // those with open files; they belong to run
	oldest int

	mu      sync.Mutex // guards all below, and Log.sources
	sources []*source  // by descriptor
	drains  []drain
	closed  bool
}

// source is a pipe that is read.
type source struct {
	fd     int
	stream Stream
	log    *Log
	done   func()
	next   *source // of the same log, added earlier
}

// drain is somebody's wish that what a log's pipes hold be read.
type drain struct {
	log  *Log
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
	log.sources = &source{fd, stream, log, done, log.sources}
	l.sources[fd] = log.sources
	return nil
}

// Drain returns a channel that is closed once everything that log's pipes held
// at the time of the call is in the log. Whoever knows that a process is dead
// and then waits for Drain has all that the process wrote, although others may
// still hold the pipe. It is closed at once when there is nothing to read, and
// when the loop is closed.
func (l *Loop) Drain(log *Log) <-chan struct{} {
	done := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || log.sources == nil {
		close(done)
		return done
	}
	l.drains = append(l.drains, drain{log, done})
	l.notify()
	return done
}

// Close ends the loop and closes the pipes that it still reads; their done is
// not called. It must not be called by a done.
func (l *Loop) Close() {
	l.mu.Lock()
	l.closed = true
	l.notify()
	l.mu.Unlock()
	<-l.ended
}

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
	events := make([]unix.EpollEvent, maxEvents)
	buf := make([]byte, readSize)
	for {
		n, err := unix.EpollWait(l.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(os.NewSyscallError("epoll_wait", err)) // the descriptor is not ours any more: a bug
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) != l.wake {
				l.read(l.source(int(e.Fd)), buf)
				continue
			}
			if !l.serve(buf) {
				return
			}
		}
	}
}

// source returns what is read from fd; nil if that ended earlier in this turn.
func (l *Loop) source(fd int) *source {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sources[fd]
}

// serve does what others asked for, and reports whether to go on.
func (l *Loop) serve(buf []byte) bool {
	// Reading resets the count; a failure would only mean one more turn.
	_, _ = unix.Read(l.wake, buf[:8])
	l.mu.Lock()
	drains, closed := l.drains, l.closed
	l.drains = nil
	if closed {
		l.release()
	}
	l.mu.Unlock()
	for _, d := range drains {
		if !closed {
			l.drain(d.log, buf)
		}
		close(d.done)
	}
	return !closed
}

// release closes all descriptors. It needs the mutex.
func (l *Loop) release() {
	for _, s := range l.sources {
		if s != nil {
			s.log.sources = nil
			unix.Close(s.fd)
		}
	}
	l.sources = nil
	unix.Close(l.epoll)
	unix.Close(l.wake)
	close(l.ended)
}

// drain reads what log's pipes hold now, and an end that follows it.
func (l *Loop) drain(log *Log, buf []byte) {
	l.mu.Lock()
	sources := list(log.sources, Both)
	l.mu.Unlock()
	for _, s := range sources {
		l.empty(s, buf)
	}
}

// list returns the sources of a stream, from the given one on, oldest first. It
// needs the mutex.
func list(s *source, stream Stream) (all []*source) {
	for ; s != nil; s = s.next {
		if stream.has(s.stream) {
			all = append(all, s)
		}
	}
	slices.Reverse(all)
	return all
}

// empty reads what s holds now: descendants may write on for ever.
func (l *Loop) empty(s *source, buf []byte) {
	// FIONREAD, which x/sys calls TIOCINQ, gives its size for a pipe too.
	left, err := unix.IoctlGetInt(s.fd, unix.TIOCINQ)
	if err != nil {
		left = 0
	}
	for n := 1; n > 0 && left >= 0; left -= n {
		n = l.take(s, buf)
	}
}

// read reads once from s, which may be nil. What the tasks before have printed
// comes first: it was in their pipes before this task began.
func (l *Loop) read(s *source, buf []byte) {
	if s == nil {
		return
	}
	l.mu.Lock()
	earlier := list(s.next, s.stream)
	l.mu.Unlock()
	for _, e := range earlier {
		l.empty(e, buf)
	}
	l.take(s, buf)
}

// take reads once from s, and returns the number of bytes.
func (l *Loop) take(s *source, buf []byte) int {
	l.admit(s.log)
	n, err := s.log.take(s.stream, s.fd, buf)
	if errors.Is(err, unix.EAGAIN) {
		return 0
	}
	if n <= 0 {
		l.end(s) // also on an error: there is nothing to be had from it any more
		return 0
	}
	return n
}

// maxOpen is how many logs have their files open.
const maxOpen = 256

// admit notes that a log is about to open its files, and has the one that did so
// longest ago close its own.
func (l *Loop) admit(log *Log) {
	if slices.Contains(l.open, log) {
		return
	}
	if len(l.open) < maxOpen {
		l.open = append(l.open, log)
		return
	}
	l.open[l.oldest].rest()
	l.open[l.oldest] = log
	l.oldest = (l.oldest + 1) % maxOpen
}

// end forgets s, closes its descriptor and says so.
func (l *Loop) end(s *source) {
	s.log.Break(s.stream)
	l.mu.Lock()
	l.sources[s.fd] = nil
	p := &s.log.sources
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
