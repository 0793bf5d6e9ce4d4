package ship

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"sync"
)

// chunkMax is how many bytes are written at once, if lines allow it: large
// enough that a system call does not count, small enough for a CPU's cache.
const chunkMax = 256 << 10

var newline = []byte{'\n'}

// A chunk is some whole lines that lie together in the queue's memory.
type chunk struct {
	start   uint64 // position of its first byte
	size    int
	lines   int
	before  uint64 // lines that came before it, in this process
	state   chunkState
	written bool  // at least once
	from    place // where it stands in the spool, if it came from there
}

type chunkState byte

const (
	waiting chunkState = iota
	taken              // by a lane, which will settle it or give it back
	kept               // acknowledged; it stays as long as there is room
	settled            // nothing has to be done for it any more
)

// queue holds lines from when they come until they are known to have arrived.
//
// Its memory is a ring. A position counts bytes from the beginning of time, and
// its place in the ring is the remainder. No chunk lies across the end of the
// ring: the bytes that are left over there are skipped.
//
// While nobody can be reached, and until what has gathered meanwhile is sent,
// lines go to the spool, if there is one; then memory only holds what was read
// back from it.
type queue struct {
	counters *counters
	drop     bool // lines for which there is no room; otherwise wait
	limit    int  // bytes that may wait
	maxLines int  // that may wait; 0 is any number

	mu   sync.Mutex // guards everything below
	work sync.Cond  // lanes wait here, and are served in the order in which they came
	room sync.Cond  // whoever puts waits here

	ring   []byte
	head   uint64      // position of the next byte to come
	chunks fifo[chunk] // all that are not settled, and settled ones behind such
	first  uint64      // number of the oldest of chunks
	next   uint64      // number of the first chunk that was never taken
	again  []uint64    // numbers of chunks that were given back, in order

	waitingBytes, waitingLines int
	dealt                      uint64 // lines that came, and were taken or dropped
	blocked                    int    // putters that wait for room
	sleeping                   int    // lanes that wait for work

	spool    *spool // nil is none
	absent   error  // why nobody can be reached; nil: somebody can, or nobody has tried
	finished bool   // nothing more comes
	closed   bool   // nothing is taken any more
}

func newQueue(o Options, c *counters) *queue {
	q := &queue{counters: c, drop: o.OnFull == Drop, limit: o.Buffer, maxLines: o.BufferLines, ring: make([]byte, o.Buffer+o.Resend)}
	q.work.L, q.room.L = &q.mu, &q.mu
	return q
}

// errClosed is what put says when the shipper no longer takes lines.
var errClosed = errors.New("nothing more is shipped: Run has returned")

// put copies lines into the queue or the spool. If there is no room it waits
// for some, or counts the lines as dropped. The error is the context's, or that
// the queue is closed.
func (q *queue) put(ctx context.Context, lines []byte) error {
	n := bytes.Count(lines, newline)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.counters.received.Add(uint64(n))
	if len(lines) > q.limit/2 {
		q.counters.size.Add(uint64(n))
		q.dealt += uint64(n)
		return nil
	}
	var stop func() bool
	for {
		if q.closed {
			return errClosed
		}
		if q.accept(lines, n) {
			q.dealt += uint64(n)
			return nil
		}
		if q.drop {
			q.counters.full.Add(uint64(n))
			q.dealt += uint64(n)
			return nil
		}
		if stop == nil {
			stop = context.AfterFunc(ctx, q.wake)
			defer stop()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		q.blocked++
		q.work.Broadcast() // a lane may know by now that something has arrived
		q.room.Wait()
		q.blocked--
	}
}

// accept takes lines if there is room for them.
func (q *queue) accept(lines []byte, n int) bool {
	if q.spool == nil || q.absent == nil && q.spool.empty() && q.fits(len(lines), n) {
		return q.remember(lines, n, place{})
	}
	if q.spool.append(lines) {
		q.counters.spooled.Add(uint64(n))
		q.work.Signal()
		return true
	}
	return q.spool.empty() && q.remember(lines, n, place{}) // the disk is full, or broken
}

// fits reports whether so many bytes and lines may wait in memory beside those
// that do.
func (q *queue) fits(size, lines int) bool {
	if q.waitingBytes+size > q.limit || q.maxLines > 0 && q.waitingLines+lines > q.maxLines {
		return false
	}
	q.makeRoom(size)
	return q.used()+q.gap(size)+size <= len(q.ring)
}

// makeRoom forgets chunks at the front that are only kept, if the ring has no
// room otherwise: those of a lane that had nothing to do while others had, or
// when a line is very long.
func (q *queue) makeRoom(size int) {
	for q.chunks.len() > 0 && q.chunks.at(0).state == kept && q.used()+q.gap(size)+size > len(q.ring) {
		q.settle(q.first)
	}
}

// used is how many bytes of the ring are in use.
func (q *queue) used() int {
	if q.chunks.len() == 0 {
		return 0
	}
	return int(q.head - q.chunks.at(0).start)
}

// gap is how many bytes at the end of the ring a chunk of that size has to skip.
func (q *queue) gap(size int) int {
	if left := len(q.ring) - int(q.head%uint64(len(q.ring))); left < size {
		return left
	}
	return 0
}

// remember puts lines into memory if there is room.
func (q *queue) remember(lines []byte, n int, from place) bool {
	if q.chunks.len() == 0 {
		q.head = 0 // what was used last is in the CPU's cache
	}
	if !q.fits(len(lines), n) {
		return false
	}
	q.head += uint64(q.gap(len(lines)))
	copy(q.bytes(q.head, len(lines)), lines)
	if last := q.growing(len(lines), from); last != nil {
		last.size += len(lines)
		last.lines += n
	} else {
		q.chunks.push(chunk{start: q.head, size: len(lines), lines: n, before: q.dealt, from: from, written: q.spool.wasWritten(from)})
	}
	q.head += uint64(len(lines))
	q.waitingBytes += len(lines)
	q.waitingLines += n
	q.work.Signal()
	return true
}

// growing returns the last chunk if size bytes can be added to it.
func (q *queue) growing(size int, from place) *chunk {
	if q.chunks.len() == 0 || q.next == q.end() || from != (place{}) {
		return nil
	}
	c := q.chunks.last()
	if c.from != (place{}) || c.start+uint64(c.size) != q.head || c.size+size > chunkMax || q.head%uint64(len(q.ring)) == 0 {
		return nil
	}
	return c
}

// end is the number that the next chunk will have.
func (q *queue) end() uint64 { return q.first + uint64(q.chunks.len()) }

func (q *queue) chunk(number uint64) *chunk { return q.chunks.at(int(number - q.first)) }

// bytes returns a part of the ring that does not lie across its end.
func (q *queue) bytes(position uint64, size int) []byte {
	at := int(position % uint64(len(q.ring)))
	return q.ring[at : at+size : at+size]
}

// take gives the oldest waiting chunk to a lane, if there is one. Its bytes
// stay as they are until it is settled.
func (q *queue) take() (number uint64, lines []byte, ok bool) {
	q.refill()
	switch {
	case len(q.again) > 0:
		number, q.again = q.again[0], q.again[1:]
	case q.next < q.end():
		number, q.next = q.next, q.next+1
	default:
		return 0, nil, false
	}
	c := q.chunk(number)
	c.state = taken
	q.waitingBytes -= c.size
	q.waitingLines -= c.lines
	q.count(c)
	if q.spool != nil {
		q.spool.noteWritten(c.from)
	}
	if !q.idle() {
		q.work.Signal() // also if this lane gets stuck
	}
	return number, q.bytes(c.start, c.size), true
}

// count counts a chunk that is about to be written.
func (q *queue) count(c *chunk) {
	if c.written {
		q.counters.resent.Add(uint64(c.lines))
		return
	}
	c.written = true
	q.counters.sent.Add(uint64(c.lines))
	q.counters.sentBytes.Add(uint64(c.size))
}

// settle marks a chunk as done.
func (q *queue) settle(number uint64) {
	if number < q.first {
		return // there was no room for it
	}
	q.chunk(number).state = settled
	for q.chunks.len() > 0 && q.chunks.at(0).state == settled {
		c := q.chunks.pop()
		q.first++
		if q.spool != nil && c.from != (place{}) {
			q.spool.settle(c.from)
		}
	}
	if q.blocked > 0 {
		q.room.Broadcast()
	}
}

// keep marks a chunk as acknowledged.
func (q *queue) keep(number uint64) {
	if number >= q.first {
		q.chunk(number).state = kept
	}
}

// giveBack makes a taken chunk wait again, in its old place in the order.
func (q *queue) giveBack(number uint64) {
	if number < q.first {
		return // there was no room for it
	}
	c := q.chunk(number)
	c.state = waiting
	q.waitingBytes += c.size
	q.waitingLines += c.lines
	at := len(q.again)
	for at > 0 && q.again[at-1] > number {
		at--
	}
	q.again = append(q.again, 0)
	copy(q.again[at+1:], q.again[at:])
	q.again[at] = number
	q.work.Signal()
}

// refill reads lines back from the spool while there is room for them.
func (q *queue) refill() {
	for q.spool != nil && !q.spool.empty() && q.waitingBytes < chunkMax {
		lines, from := q.spool.peek()
		if len(lines) == 0 || !q.remember(lines, bytes.Count(lines, newline), from) {
			return
		}
		q.spool.advance(from)
		q.room.Broadcast()
	}
}

// idle reports whether nothing waits to be taken.
func (q *queue) idle() bool {
	return len(q.again) == 0 && q.next == q.end() && (q.spool == nil || q.spool.empty())
}

// delivered reports whether nothing is left to do.
func (q *queue) delivered() bool { return q.chunks.len() == 0 && q.idle() }

// problem tells why nobody can be reached; empty: somebody can, or nobody has tried.
func (q *queue) problem() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.absent == nil {
		return ""
	}
	return q.absent.Error()
}

// safe counts the lines at the beginning of all that came for which this process is
// not needed any more. Asked again, it knows what was acknowledged meanwhile.
func (q *queue) safe() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.chunks.len() {
		if c := q.chunks.at(i); c.from == (place{}) && (c.state == waiting || c.state == taken) {
			q.work.Broadcast() // a lane may know by now that something has arrived
			return c.before
		}
	}
	return q.dealt
}

// wake lets everyone look again.
func (q *queue) wake() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.work.Broadcast()
	q.room.Broadcast()
}

// reached notes that there is a receiver, or why there is none. Then what is in
// memory goes to the spool, so that it survives this process. No lane may have
// taken anything then.
func (q *queue) reached(absent error) error {
	if q.absent = absent; absent == nil || q.spool == nil {
		return nil
	}
	return q.retreat()
}

// retreat moves all of memory into the spool, before what has not been read
// from there yet.
func (q *queue) retreat() error {
	if err := q.spool.prepend(q.unsettled()); err != nil {
		return err
	}
	q.first = q.end()
	q.chunks.clear()
	q.next, q.again = q.first, q.again[:0]
	q.waitingBytes, q.waitingLines = 0, 0
	q.room.Broadcast()
	return nil
}

// unsettled yields the lines of the chunks that are not settled, and whether
// they were written already.
func (q *queue) unsettled() iter.Seq2[[]byte, bool] {
	return func(yield func([]byte, bool) bool) {
		for i := range q.chunks.len() {
			c := q.chunks.at(i)
			if c.state == settled {
				continue
			}
			if c.from == (place{}) {
				q.counters.spooled.Add(uint64(c.lines))
			}
			if !yield(q.bytes(c.start, c.size), c.written) {
				return
			}
		}
	}
}

// finish says that nothing more comes.
func (q *queue) finish() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.finished = true
	q.work.Broadcast()
}

// close ends the use of the queue. What it still holds goes into the spool, or
// is counted as unsent. No lane may be at work.
func (q *queue) close() (unsent int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.room.Broadcast()
	if q.spool != nil {
		err = q.retreat()
		err = errors.Join(err, q.spool.close())
	}
	for i := range q.chunks.len() {
		if c := q.chunks.at(i); c.state != settled {
			unsent += c.lines
		}
	}
	q.counters.unsent.Add(uint64(unsent))
	return unsent, err
}
