package output

import (
	"context"
	"math"
	"slices"
	"time"
)

// maxBatch bounds what a follower copies at a time, and so for how long it can
// keep the writer from the log: some microseconds.
const maxBatch = 64 << 10

// batch is what a reader gets at a time.
type batch struct {
	pieces []piece
	lost   int64           // bytes that were dropped before the pieces, or UnknownLoss
	next   Cursor          // after the pieces
	begin  Place           // before them, and after what was lost
	closed bool            // nothing more will come
	wait   <-chan struct{} // set if the reader has seen all: closed at the next change
}

// piece is a copy of a record, or of a part of it.
type piece struct {
	record
	seq  uint64
	data []byte
}

// Tail returns the last n lines of a stream, or of Both as they were finished,
// and the place from which [Log.Follow] goes on. If n is negative it returns
// all that is kept, of which the first line may lack its beginning. A line
// that is not finished is there as Partial.
func (l *Log) Tail(n int, stream Stream) ([]Line, Cursor) {
	b := l.snapshot(stream)
	if n == 0 {
		return nil, b.next
	}
	var lines []Line
	a := newAssembler(func(line Line) error {
		lines = append(lines, line)
		return nil
	})
	a.begin(b.begin)
	// Collecting cannot fail.
	_ = a.add(b.pieces)
	_ = a.flush(false)
	return last(lines, n), b.next
}

// Follow calls fn with every line after c, in the order in which they are
// finished, until the context ends, fn fails or the log is closed; it returns
// the context's error, fn's error or nil. The writer never waits for fn: a
// reader that is too slow loses the oldest bytes, and is told so by one line
// with Lost set.
func (l *Log) Follow(ctx context.Context, c Cursor, fn func(Line) error) error {
	a := newAssembler(fn)
	a.begin(l.Place(c))
	for ctx.Err() == nil {
		b := l.read(c)
		if err := a.batch(b); err != nil {
			return err
		}
		c = b.next
		if b.wait == nil {
			continue
		}
		if b.closed {
			return a.flush(true)
		}
		select {
		case <-ctx.Done():
		case <-b.wait:
		}
	}
	return ctx.Err()
}

// snapshot copies all that is kept of a stream.
func (l *Log) snapshot(stream Stream) batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Cursor{seq: l.first(), seen: l.dropped, stream: stream}
	return l.copy(c, math.MaxInt)
}

// read copies what comes after c, up to maxBatch bytes.
func (l *Log) read(c Cursor) batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.copy(c, maxBatch)
	if b.next == c {
		b.closed = l.closed
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		b.wait = l.changed
	}
	return b
}

// first is the number of the oldest byte that is kept.
func (l *Log) first() uint64 {
	if len(l.chunks) == 0 {
		return l.next
	}
	return l.chunks[0].start
}

// copy copies up to limit bytes that come after c.
func (l *Log) copy(c Cursor, limit int) batch {
	if first := l.first(); c.seq < first {
		c.miss(l.dropped)
		c.seq = first
	}
	b := batch{next: c, begin: c.place(l.source), lost: c.lost}
	b.next.lost = 0
	if b.next.seq >= l.next {
		return b
	}
	size := min(uint64(limit), l.next-b.next.seq)
	data := make([]byte, 0, size)
	i, _ := slices.BinarySearchFunc(l.chunks, b.next.seq, func(k *chunk, seq uint64) int {
		if k.end() <= seq {
			return -1
		}
		return 1
	})
	for _, k := range l.chunks[i:] {
		data = k.copy(&b, data)
	}
	return b
}

// miss moves c to the first byte that is kept, given how many of each stream are
// not, and counts what the reader misses by that.
func (c *Cursor) miss(dropped [2]uint64) {
	for s, n := range dropped {
		if n <= c.seen[s] {
			continue
		}
		gone := n - c.seen[s]
		known := min(gone, c.skip[s])
		c.seen[s], c.skip[s] = n, c.skip[s]-known
		if c.stream.has(Stream(s+1)) && c.lost != UnknownLoss {
			c.lost += int64(gone - known)
		}
	}
}

// copy adds to b what the chunk has after b.next and what fits into data's
// capacity.
func (c *chunk) copy(b *batch, data []byte) []byte {
	from := int32(b.next.seq - c.start)
	for _, r := range c.records {
		if r.end <= from {
			continue
		}
		n := min(int(r.end-from), cap(data)-len(data))
		if n == 0 {
			break
		}
		data = append(data, c.data[from:int(from)+n]...)
		known := 0
		if !r.cut {
			known = int(min(uint64(n), b.next.skip[r.stream-1]))
			b.next.skip[r.stream-1] -= uint64(known)
			b.next.seen[r.stream-1] += uint64(n)
		}
		if b.next.stream.has(r.stream) && known < n {
			b.pieces = append(b.pieces, piece{r, b.next.seq + uint64(known), data[len(data)-n+known : len(data) : len(data)]})
		}
		b.next.seq += uint64(n)
		from += int32(n)
	}
	return data
}

// assembler makes lines of records.
type assembler struct {
	emit    func(Line) error
	source  uint64
	streams [2]splitter
}

// newAssembler makes an assembler that hands out lines by emit, with their places.
func newAssembler(emit func(Line) error) *assembler {
	a := &assembler{}
	a.emit = func(line Line) error {
		line.Place = Place{a.source, [2]uint64{a.streams[0].read, a.streams[1].read}}
		return emit(line)
	}
	a.streams = [2]splitter{{stream: Stdout, emit: a.emit}, {stream: Stderr, emit: a.emit}}
	return a
}

// begin says where what comes next begins.
func (a *assembler) begin(p Place) {
	a.source, a.streams[0].read, a.streams[1].read = p.Source, p.Read[0], p.Read[1]
}

// batch hands out the lines of b, after a line for what is missing before it.
func (a *assembler) batch(b batch) error {
	if b.lost != 0 {
		if err := a.flush(false); err != nil {
			return err
		}
		a.begin(b.begin)
		line := gap(b.lost)
		line.Time, line.Seq = time.Now(), b.next.seq
		if err := a.emit(line); err != nil {
			return err
		}
	}
	a.source = b.begin.Source
	return a.add(b.pieces)
}

// add hands out the lines that the pieces finish.
func (a *assembler) add(pieces []piece) error {
	for _, p := range pieces {
		s := &a.streams[p.stream-1]
		if p.cut {
			if err := s.flush(true); err != nil {
				return err
			}
			continue
		}
		if err := s.add(p.data, time.Unix(0, p.time), p.seq); err != nil {
			return err
		}
	}
	return nil
}

// flush hands out the unfinished lines, the older one first.
func (a *assembler) flush(ended bool) error {
	first, second := &a.streams[0], &a.streams[1]
	if second.seq < first.seq {
		first, second = second, first
	}
	if err := first.flush(ended); err != nil {
		return err
	}
	return second.flush(ended)
}
