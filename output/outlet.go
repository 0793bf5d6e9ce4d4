package output

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Printed is some of what a program has printed: whole lines, or a piece of one that
// is very long or has no end.
type Printed struct {
	Data     []byte
	At       time.Time // when it was read
	Instance string
	Stream   Stream
	// Repeated says that a killed process may have sent the first line already.
	Repeated bool
}

// Target is where an [Outlet] sends lines: something that cannot take them back, as a
// terminal, a FIFO or a socket. It is used by one goroutine at a time, and must not
// keep that waiting.
type Target interface {
	// Send sends what it can, and returns how many bytes of the data that is. The
	// error is EAGAIN if the target takes nothing now. What is sent of a line for which
	// nothing is returned yet is gone on with by the next call, which has the same data.
	Send(p Printed) (int, error)
	// Close closes it. The next Send opens it again.
	Close()
}

// OutletOptions say how an [Outlet] sends.
type OutletOptions struct {
	// Drop has lines dropped, and counted, that the target does not take once their
	// pipe is full; else the program waits.
	Drop bool
}

// Outlet is a target that programs print to through pipes, by a [Loop]. What is on its
// way is in a file, which the next process finds when this one is killed: no line is
// lost, and the one that was just being sent is sent once more, and marked.
//
// Safe for concurrent use.
type Outlet struct {
	feed
	name string
	tell func(Condition)

	mu      sync.Mutex // guards all below
	options OutletOptions
	target  Target
	next    Target // takes its place when nothing is on its way; nil: none does
	spool   spool
	parcel  parcel // what is being sent
	at      int64  // of the spool's parcel: where that begins
	again   bool   // a killed process may have sent its first line
	problem error  // the target cannot be reached …
	retry   time.Time
	dropped dropped
}

// NewOutlet returns an outlet for a target. name is what messages call it. Lines go
// through a file at the path transit, where they are found after a kill; it may be
// empty if nobody will look. tell is called when the target cannot be reached, and when
// it can be again; it must return at once and not call the outlet.
func NewOutlet(name, transit string, t Target, o OutletOptions, tell func(Condition)) *Outlet {
	return &Outlet{
		name: name, target: t, options: o, tell: tell,
		spool: newSpool(transit), dropped: recall(transit),
	}
}

// Set changes the target, and how it is sent to, from now on.
func (o *Outlet) Set(t Target, options OutletOptions) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next, o.options = t, options
	o.change()
}

// change puts the next target in its place, unless this one is within a line.
func (o *Outlet) change() {
	if o.next != nil && len(o.parcel.data) == 0 {
		o.target.Close()
		o.target, o.next = o.next, nil
	}
}

// Busy reports whether something is on its way that the target did not take yet.
func (o *Outlet) Busy() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.parcel.data) > 0
}

// Condition returns how the outlet is.
func (o *Outlet) Condition() Condition {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.condition()
}

func (o *Outlet) condition() Condition {
	return Condition{Problem: o.problem, Dropped: o.dropped.Dropped}
}

// Close closes the outlet. No loop may read into it any more.
func (o *Outlet) Close() { o.rest() }

func (o *Outlet) rest() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.parcel.data) == 0 { // else the target knows how far it is
		o.target.Close()
		o.spool.close()
	}
}

func (o *Outlet) finish(*source) {}

func (o *Outlet) leftover() bool { return o.spool.unfinished() }

// take takes what the pipe holds.
func (o *Outlet) take(s *source, h *hands) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if o.problem != nil && now.Before(o.retry) {
		return o.hold(s, h, o.retry.Sub(now))
	}
	if s.torn {
		return o.dropped.rest(s, h)
	}
	n, err := o.move(s, h, now)
	switch {
	case errors.Is(err, errBusy):
		return o.hold(s, h, lineTime)
	case errors.Is(err, unix.EAGAIN) || errors.As(err, new(later)):
	case errors.Is(err, io.EOF):
		return 0, nil
	case err != nil:
		o.fail(err, now)
		return o.hold(s, h, tryAgain)
	case o.problem != nil:
		o.problem = nil
		o.tell(o.condition())
	}
	return n, err
}

// errBusy says that a target takes nothing now.
var errBusy = errors.New("busy")

func (o *Outlet) fail(err error, now time.Time) {
	first := o.problem == nil
	o.problem, o.retry = fmt.Errorf("cannot write to %s: %w", o.name, err), now.Add(tryAgain)
	o.target.Close()
	if first {
		o.tell(o.condition())
	}
}

// hold leaves what a pipe holds in it, if there is room.
func (o *Outlet) hold(s *source, h *hands, wait time.Duration) (int, error) {
	if o.options.Drop {
		return o.dropped.relieve(s, h, wait, func() {})
	}
	return 0, later(wait)
}

// move sends some of what the pipe holds.
func (o *Outlet) move(s *source, h *hands, now time.Time) (int, error) {
	if err := o.deliver(s); err != nil {
		return 0, err
	}
	data, err := h.peek(s.fd)
	if err != nil {
		return 0, err
	}
	n := wholeLines(data[:min(len(data), parcelSize)], s.fd)
	if n == 0 {
		return 0, unix.EAGAIN
	}
	b := parcel{data: data[:n], at: now, instance: s.instance, stream: s.stream}
	if _, err := o.spool.keep(s, head{size: int64(n), parcel: b}); err != nil {
		return 0, err
	}
	if err := o.deliver(s); err != nil {
		return 0, err
	}
	return n, nil
}

// deliver sends what is in the spool.
func (o *Outlet) deliver(s *source) error {
	if err := o.load(s); err != nil {
		return err
	}
	for len(o.parcel.data) > 0 {
		b := o.parcel
		n, err := o.target.Send(Printed{Data: b.data, At: b.at, Instance: b.instance, Stream: b.stream, Repeated: o.again})
		if n > 0 {
			o.parcel.data, o.at, o.again = b.data[n:], o.at+int64(n), false
			err = errors.Join(err, o.progress())
		}
		if errors.Is(err, unix.EAGAIN) {
			return errBusy
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// progress notes how far the parcel is sent.
func (o *Outlet) progress() error {
	if len(o.parcel.data) == 0 {
		return o.spool.forget()
	}
	return o.spool.mark(o.at)
}

// load looks what is in the spool, unless that is known.
func (o *Outlet) load(s *source) error {
	if len(o.parcel.data) > 0 {
		return nil
	}
	o.change()
	found := o.spool.fd < 0
	if err := o.spool.reach(); err != nil {
		return err
	}
	if !o.spool.pending {
		return nil
	}
	d, err := o.spool.load(s)
	if err != nil {
		return err
	}
	o.parcel, o.at, o.again = d.parcel, 0, found
	if d.offset > 0 && d.offset <= int64(len(d.parcel.data)) {
		o.parcel.data, o.at = d.parcel.data[d.offset:], d.offset
	}
	if len(o.parcel.data) == 0 {
		return o.spool.forget()
	}
	return nil
}
