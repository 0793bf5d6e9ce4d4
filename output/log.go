package output

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultLimit is how many bytes of output a [Log] keeps if nothing else is
// said.
const DefaultLimit = 64 << 10

const (
	maxChunks    = 16               // a log is full with so many
	minChunk     = 128              // bytes; below, the records would outweigh the data
	recordWeight = 16               // bytes: what a record costs beside its data
	sameTime     = time.Millisecond // writes closer than this share a record
)

// Log is the kept output of one instance: the last bytes that its tasks wrote,
// with the time and the stream. It has one writer, commonly a [Loop], and any
// number of readers. It takes memory only as it fills, and never more than
// about its limit; the oldest output goes first, a sixteenth at a time.
type Log struct {
	feed
	size int32 // weight of a full chunk

	mu         sync.Mutex    // guards all below
	store      *store        // nil: it is kept in memory only
	source     uint64        // tells this log from others: see Place
	guarded    bool          // nothing after guard may be forgotten
	guard      [2]uint64     // by stream: bytes
	closed     bool          // nothing more will come
	unfinished [2]bool       // by stream: the last byte is no newline
	changed    chan struct{} // closed at the next change; nil: nobody waits
	chunks     []*chunk      // oldest first
	next       uint64        // number of the next byte
	written    [2]uint64     // by stream: bytes that ever came
	dropped    [2]uint64     // by stream: bytes no longer kept
}

// chunk is a stretch of kept output.
type chunk struct {
	start   uint64 // number of data[0]
	data    []byte
	records []record // each goes on to the beginning of the next
}

// record is a part of a chunk that came from one stream at one time.
type record struct {
	time   int64 // nanoseconds since 1970
	end    int32 // where its bytes end in the chunk
	stream Stream
	// cut makes a record of one byte that is no output: there the stream broke
	// off in the middle of a line.
	cut bool
}

// Cursor is a place in a [Log] up to which a reader has seen it, and the stream
// it reads. The zero Cursor stands before all that was ever written.
type Cursor struct {
	seq    uint64
	seen   [2]uint64 // by stream: bytes before seq
	skip   [2]uint64 // by stream: bytes after seq that the reader has had before
	lost   int64     // bytes that are missing before seq, and are to be told of
	stream Stream
}

// NewLog returns an empty log that keeps about limit bytes, or [DefaultLimit] if
// limit is 0. The least that it keeps is 2 KiB.
func NewLog(limit int) *Log {
	if limit == 0 {
		limit = DefaultLimit
	}
	return &Log{size: int32(max(limit/maxChunks, minChunk)), source: newSource()}
}

// OpenLog is NewLog for a log that outlives its process: what it keeps stands
// also in files whose names begin with path, and what an earlier process has left
// there is in it from the beginning. Where the files cannot be used, as on a full
// disk, the log goes on in memory, until what it then keeps can be written. The log
// can be used in spite of an error, which tells of files that cannot be read.
func OpenLog(limit int, path string) (*Log, error) {
	l := NewLog(limit)
	s := &store{path: path, limit: int64(l.size) * maxChunks / 2, data: -1, index: -1}
	damage, err := s.load(l)
	if err != nil {
		return l, fmt.Errorf("cannot read the output that was kept: %w", err)
	}
	l.store = s
	return l, damage
}

// Remove closes the log and deletes its files.
func (l *Log) Remove() {
	l.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store != nil {
		l.store.remove()
		l.store = nil
	}
}

// take takes what a pipe of the log's instance holds, at most as much as fits
// into a buffer.
func (l *Log) take(s *source, h *hands) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := readSize
	if l.guarded {
		size = min(size, int(l.size))
	}
	if !l.spares(size) {
		return 0, later(guardTime)
	}
	stream, pipe, buf := s.stream, s.fd, h.buffer(size)
	now, moved := time.Now(), false
	if l.store != nil {
		l.store.retry(l, now)
		n, moved, err = l.store.take(stream, now, pipe, buf)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			l.store.fail(now)
		}
	}
	if !moved {
		n, err = unix.Read(pipe, buf)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Read(pipe, buf)
		}
	}
	if n > 0 {
		l.append(stream, now.UnixNano(), buf[:n])
		return n, nil
	}
	return n, err
}

func (l *Log) leftover() bool { return false }

func (l *Log) finish(s *source) { l.Break(s.stream) }

// rest closes the log's files until they are needed again.
func (l *Log) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store != nil {
		l.store.close()
	}
}

// Append adds what was read from Stdout or Stderr at the given time. It copies
// data. After Close it does nothing.
func (l *Log) Append(stream Stream, at time.Time, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.append(stream, at.UnixNano(), data)
}

// append is Append. The caller holds l.mu.
func (l *Log) append(stream Stream, at int64, data []byte) {
	if len(data) == 0 || l.closed {
		return
	}
	l.written[stream-1] += uint64(len(data))
	l.unfinished[stream-1] = data[len(data)-1] != '\n'
	l.put(record{time: at, stream: stream}, data)
	l.wake()
}

// Break says that the writer of a stream, or of Both, is gone: what comes next
// begins a new line, and a line that is not finished is handed out as it is.
// A [Loop] calls it at the end of a pipe; the owner calls it when the task has
// ended, since a descendant may still hold the pipe. Lines are told apart by
// stream only: what such a descendant prints later mixes with the next task's.
func (l *Log) Break(stream Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := Stdout; s <= Stderr; s++ {
		if stream.has(s) && l.unfinished[s-1] {
			now := time.Now().UnixNano()
			l.cut(s, now)
			if l.store != nil && !l.store.failing && l.store.open() == nil {
				_ = l.store.note(mark{offset: l.store.size, stream: s, cut: true, at: now}) // else the line goes on, after a kill
			}
		}
	}
	l.wake()
}

// cut says that a line ends without a newline. The caller holds l.mu.
func (l *Log) cut(stream Stream, at int64) {
	l.unfinished[stream-1] = false
	l.put(record{time: at, stream: stream, cut: true}, []byte{0})
}

// Clear forgets what is kept. Followers that have not seen it yet are told how
// much they missed.
func (l *Log) Clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.chunks = nil
	if l.store != nil {
		l.store.remove()
	}
	l.dropped = l.written
	l.wake()
}

// Close says that nothing more will come: followers get what is left, and
// return. What is kept stays readable.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.wake()
}

// wake tells those who wait that there is something new.
func (l *Log) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// put stores data as r, in as many pieces as it takes.
func (l *Log) put(r record, data []byte) {
	n := l.extend(r, data)
	for data = data[n:]; len(data) > 0; data = data[n:] {
		c := l.room()
		n = min(len(data), int(l.size)-c.weight()-recordWeight)
		c.add(data[:n], int(l.size))
		r.end = int32(len(c.data))
		c.records = append(c.records, r)
		l.next += uint64(n)
	}
}

// extend adds the beginning of data to the last record if it belongs to it,
// and returns how much that was: the rest of an unfinished line, or all if the
// record is from about the same time. A program that writes in tiny pieces
// would otherwise fill its log with records.
func (l *Log) extend(r record, data []byte) int {
	if len(l.chunks) == 0 {
		return 0
	}
	c := l.chunks[len(l.chunks)-1]
	prev := &c.records[len(c.records)-1]
	if prev.stream != r.stream || prev.cut || r.cut {
		return 0
	}
	n := len(data)
	if d := time.Duration(r.time - prev.time); d < 0 || d >= sameTime {
		if c.data[prev.end-1] == '\n' {
			return 0
		}
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			n = i + 1
		}
	}
	n = min(n, int(l.size)-c.weight())
	c.add(data[:n], int(l.size))
	prev.end += int32(n)
	l.next += uint64(n)
	return n
}

// room returns the last chunk, in which there is room for a record of one byte
// at least.
func (l *Log) room() *chunk {
	if n := len(l.chunks); n > 0 && int(l.size)-l.chunks[n-1].weight() > recordWeight {
		return l.chunks[n-1]
	}
	c := &chunk{}
	if len(l.chunks) == maxChunks {
		c = l.shift()
	}
	c.start = l.next
	l.chunks = append(l.chunks, c)
	return c
}

// shift drops the oldest chunk and returns it, empty.
func (l *Log) shift() *chunk {
	c := l.chunks[0]
	l.chunks = slices.Delete(l.chunks, 0, 1)
	for stream, n := range c.sizes() {
		l.dropped[stream] += n
	}
	c.data, c.records = c.data[:0], c.records[:0]
	return c
}

// add appends data, growing in steps that end at size.
func (c *chunk) add(data []byte, size int) {
	if need := len(c.data) + len(data); need > cap(c.data) {
		grown := make([]byte, len(c.data), min(size, max(need, 2*cap(c.data))))
		copy(grown, c.data)
		c.data = grown
	}
	c.data = append(c.data, data...)
}

// weight is what a chunk counts against the limit.
func (c *chunk) weight() int { return len(c.data) + recordWeight*len(c.records) }

// end is the number of the byte after the last.
func (c *chunk) end() uint64 { return c.start + uint64(len(c.data)) }
