package ship

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// crew are the lanes that work for a shipper: one, or one for each receiver
// that Consul knows.
type crew struct {
	s       *Shipper
	catalog *catalog           // nil without a service
	done    context.CancelFunc // ends the lanes: everything is delivered, or something is fatal
	fatal   error              // guarded by the queue's mutex, as all below
	why     error              // what the last attempt to reach a receiver failed of
	linked  int                // lanes with a connection
	since   time.Time          // when it came to have none; zero while it has, and at first

	wg sync.WaitGroup // the lanes
}

// run works until all is delivered, ctx is done, or something is fatal.
func (c *crew) run(ctx context.Context) error {
	ctx, c.done = context.WithCancel(ctx)
	defer c.done()
	if c.s.o.To.Service != "" {
		c.discover(ctx)
	} else {
		c.newLane(ctx, c.s.o.To).run(ctx)
	}
	c.wg.Wait()
	c.s.queue.mu.Lock()
	defer c.s.queue.mu.Unlock()
	return c.fatal
}

// reason is why nobody could be reached, or nil.
func (c *crew) reason() error {
	c.s.queue.mu.Lock()
	defer c.s.queue.mu.Unlock()
	return c.why
}

// lane brings chunks to one receiver.
type lane struct {
	crew  *crew
	queue *queue
	to    Receiver
	stay  context.Context // when it is done the lane says good-bye

	carried fifo[carried] // chunks taken and not settled, in order
	acked   int           // how many of carried are acknowledged
	kept    int           // bytes of those

	ended error // guarded by the queue's mutex: why the connection is over, or nil
}

// carried is a chunk that was written.
type carried struct {
	number uint64
	size   int
	wire   int64 // where it ends, in bytes written to the connection
	at     time.Time
}

func (c *crew) newLane(stay context.Context, to Receiver) *lane {
	return &lane{crew: c, queue: c.s.queue, to: to, stay: stay}
}

// run connects and serves until the lane is no longer to stay. When ctx is done
// it returns at once.
func (l *lane) run(ctx context.Context) {
	wait := backoff{finishing: l.crew.s.finishing}
	for l.stay.Err() == nil {
		s, err := l.to.open(l.stay, &l.crew.s.o, &l.crew.s.counters, l.over)
		if err != nil {
			l.missed(err)
			wait.pause(l.stay)
			continue
		}
		began := time.Now()
		l.reached()
		l.part(s, l.serve(ctx, s))
		wait.served(l.stay, time.Since(began))
	}
}

// over notes how the connection ended, for whoever is at the queue.
func (l *lane) over(err error) {
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	l.ended = err
	l.queue.work.Broadcast()
}

// missed notes that the receiver could not be reached.
func (l *lane) missed(err error) {
	if l.stay.Err() != nil {
		return
	}
	l.crew.s.counters.failures.Add(1)
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	if l.crew.hopeless(err) {
		return
	}
	l.crew.missing(plain(err))
	l.crew.checkDone()
}

// hopeless ends all work if trying again is of no use. The queue's mutex is held.
func (c *crew) hopeless(err error) bool {
	var fatal fatalError
	if !errors.As(err, &fatal) {
		return false
	}
	c.fatal = fatal.error
	c.done()
	return true
}

// checkDone ends the work when nothing is left of it. The queue's mutex is held.
func (c *crew) checkDone() {
	if c.s.queue.finished && c.s.queue.delivered() {
		c.done()
	}
}

// missing notes why nobody is reached, if nobody is, and tells it once. The
// queue's mutex is held.
func (c *crew) missing(why error) {
	c.why = why
	if c.linked > 0 || c.s.queue.absent != nil {
		return
	}
	c.since = time.Now()
	c.tell("cannot reach %s: %v; trying again", c.s.o.To, why)
	if err := c.s.queue.reached(why); err != nil {
		c.tell("%v", err)
	}
}

func (c *crew) tell(format string, args ...any) { c.s.o.Tell(fmt.Sprintf(format, args...)) }

// reached notes that there is a connection.
func (l *lane) reached() {
	c := l.crew
	c.s.counters.connects.Add(1)
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	if l.queue.absent != nil {
		c.tell("reached %s after %s", c.s.o.To, time.Since(c.since).Round(time.Millisecond))
	}
	c.linked++
	c.why = nil
	_ = l.queue.reached(nil)
}

// serve writes what there is to write. It returns why the connection is of no
// more use, or nil when everything is delivered or ctx is done.
func (l *lane) serve(ctx context.Context, s sink) error {
	defer context.AfterFunc(ctx, func() { s.interrupt(); l.queue.wake() })()
	defer context.AfterFunc(l.stay, l.queue.wake)()
	for {
		number, lines, err := l.next(ctx, s)
		switch {
		case err != nil:
			return err
		case lines == nil && ctx.Err() == nil:
			return l.finish(ctx, s)
		case lines == nil:
			return nil
		}
		if err := l.carry(s, number, lines); err != nil {
			if ctx.Err() != nil {
				return nil // interrupted
			}
			return err
		}
	}
}

// carry writes a chunk.
func (l *lane) carry(s sink, number uint64, lines []byte) error {
	began := time.Now()
	err := s.write(lines)
	l.crew.s.counters.writeTime.Add(int64(time.Since(began)))
	wire := s.written()
	if err != nil {
		wire++ // a part of it is missing, so it can never be acknowledged
	}
	l.carried.push(carried{number, len(lines), wire, began})
	return err
}

// next returns a chunk, once there is one; no lines when there will be none.
func (l *lane) next(ctx context.Context, s sink) (number uint64, lines []byte, err error) {
	q := l.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sleeping > 0 && !q.idle() { // it is the turn of another lane
		q.work.Signal()
		l.wait()
	}
	for {
		l.settle(s, l.crew.s.o.Resend/max(l.crew.linked, 1))
		if l.ended != nil || ctx.Err() != nil || l.stay.Err() != nil {
			return 0, nil, l.ended
		}
		if number, lines, ok := q.take(); ok {
			return number, lines, nil
		}
		if q.finished && q.idle() {
			return 0, nil, nil
		}
		l.wait()
	}
}

// ackPoll is how often the kernel is asked for what has arrived while somebody
// waits for room.
const ackPoll = 5 * time.Millisecond

// wait waits until there is something to do. The queue's mutex is held before
// and after.
func (l *lane) wait() {
	if l.queue.blocked > 0 && l.carried.len() > 0 {
		look := time.AfterFunc(ackPoll, l.queue.wake)
		defer look.Stop()
	}
	l.queue.sleeping++
	l.queue.work.Wait()
	l.queue.sleeping--
}

// settle settles what is acknowledged, but for the last keep bytes of it.
func (l *lane) settle(s sink, keep int) {
	if l.carried.len() == 0 {
		return
	}
	for acked := s.acked(); l.acked < l.carried.len() && l.carried.at(l.acked).wire <= acked; l.acked++ {
		l.kept += l.carried.at(l.acked).size
		l.queue.keep(l.carried.at(l.acked).number)
	}
	for l.acked > 0 && l.kept-l.carried.at(0).size >= keep {
		c := l.carried.pop()
		l.acked--
		l.kept -= c.size
		l.queue.settle(c.number)
	}
}

// Digest is how long a receiver may take to deal with what it has acknowledged.
const Digest = 10 * time.Second

// settleRead settles what a receiver has read that closed the connection by
// itself, which is what it has acknowledged. It may have been killed with the
// last of it not dealt with.
func (l *lane) settleRead(s sink) {
	acked, since := s.acked(), time.Now().Add(-l.crew.s.o.digest)
	for l.carried.len() > 0 && l.carried.at(0).wire <= acked && l.carried.at(0).at.Before(since) {
		l.queue.settle(l.carried.pop().number)
	}
}

// finish says good-bye, after which everything has arrived.
func (l *lane) finish(ctx context.Context, s sink) error {
	if err := s.finish(ctx); err != nil {
		return err
	}
	l.queue.mu.Lock()
	defer l.queue.mu.Unlock()
	l.settleAll()
	l.crew.checkDone()
	return io.EOF
}

func (l *lane) settleAll() {
	for l.carried.len() > 0 {
		l.queue.settle(l.carried.pop().number)
	}
	l.acked, l.kept = 0, 0
}

// part ends a connection, and gives back what it may not have brought.
func (l *lane) part(s sink, err error) {
	q := l.queue
	q.mu.Lock()
	if errors.Is(err, io.EOF) {
		l.settleRead(s)
	}
	q.mu.Unlock()
	s.close()
	q.mu.Lock()
	defer q.mu.Unlock()
	for l.carried.len() > 0 {
		q.giveBack(l.carried.pop().number)
	}
	l.acked, l.kept, l.ended = 0, 0, nil
	l.crew.linked--
	q.work.Broadcast()
	l.note(err)
}

// note tells why a connection was given up.
func (l *lane) note(err error) {
	c := l.crew
	switch {
	case err == nil || errors.Is(err, io.EOF) && l.queue.finished:
	case c.hopeless(err):
	default:
		c.s.counters.failures.Add(1)
		c.why = plain(err)
		if !errors.Is(err, io.EOF) {
			c.tell("lost %s: %v", l.to, c.why)
		}
	}
}

// plain is the error of a system call without what the sentence around it says
// already: which call it was, and to whom.
func plain(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ENOTCONN) {
		return errors.New("it closed the connection")
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return plain(op.Err)
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		return call.Err
	}
	return err
}

// backoff lets attempts wait longer and longer.
type backoff struct {
	next      time.Duration
	finishing <-chan struct{} // when it is closed, the next attempt is due
}

const (
	firstWait = 100 * time.Millisecond
	maxWait   = 5 * time.Second
)

// pause waits, between half and all of the time.
func (b *backoff) pause(ctx context.Context) {
	b.next = min(max(2*b.next, firstWait), maxWait)
	t := time.NewTimer(b.next/2 + rand.N(b.next/2))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-b.finishing:
		b.next, b.finishing = 0, nil
	}
}

// served notes how long a connection was of use. After a short one that follows
// another the next attempt waits too.
func (b *backoff) served(ctx context.Context, d time.Duration) {
	switch {
	case d >= maxWait:
		b.next = 0
	case b.next > 0:
		b.pause(ctx)
	default:
		b.next = firstWait / 2
	}
}
