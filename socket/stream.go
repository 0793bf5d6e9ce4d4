package socket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// What a stream holds back for a client that does not read, and how much it
// writes at a time: the time limit of a write is for that much.
const (
	eventsBuffer = 4 << 20
	logsBuffer   = 256 << 10
	writeChunk   = 64 << 10
)

// headDelay is how long a stream waits for its first line before it sends the
// header alone. A service that fails at once is answered with the status that
// its Problem has; later the Problem is the stream's last line.
const headDelay = 50 * time.Millisecond

// errSlow ends a stream whose client does not read fast enough.
var errSlow = errors.New("the client reads too slowly")

// stream carries lines to one client. emit encodes a line into a bounded
// buffer, and one goroutine writes what is there to the connection.
type stream struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	ctx     context.Context // ends with the client, the server or the stream
	cancel  context.CancelFunc
	sse     bool          // server-sent events instead of JSON lines
	timeout time.Duration // of writing one chunk
	limit   int           // bytes waiting at most
	patient bool          // emit waits for room instead of giving up

	more chan struct{} // something is waiting, or over is set
	room chan struct{} // waiting has been taken
	done chan struct{} // the writer has ended
	sent bool          // header and perhaps lines are out; the writer's until done

	mu      sync.Mutex // guards the fields below
	waiting []byte
	over    error  // no more lines are taken, because of this
	last    uint64 // Seq of the last event taken
}

// errOver is the over of a stream that came to its end.
var errOver = errors.New("the stream has ended")

func newStream(ctx context.Context, w http.ResponseWriter, sse bool, timeout time.Duration) *stream {
	ctx, cancel := context.WithCancel(ctx)
	return &stream{
		w: w, rc: http.NewResponseController(w), ctx: ctx, cancel: cancel, sse: sse, timeout: timeout,
		more: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// run calls produce and carries what it emits until both are done. It returns
// produce's error if nothing has been sent yet, so that it can still be
// answered with a status.
func (s *stream) run(produce func(ctx context.Context) error) error {
	go s.write() // ends when finish is called, or with the first failed write
	finished := false
	defer func() {
		if !finished { // produce panicked; leave the connection to the server
			s.finish(errOver)
			<-s.done
		}
	}()
	err := produce(s.ctx)
	if s.ctx.Err() != nil {
		err = nil // not a failure of the service
	}
	finished = true
	s.finish(err)
	<-s.done
	if err != nil && !s.sent {
		return err
	}
	s.head()     // of a stream without a line
	s.deadline() // for the end of the body, which net/http writes
	return nil
}

// finish takes no more lines and lets the writer end. An error becomes the
// last line if others have gone before it.
func (s *stream) finish(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.over = errOver
		if err != nil {
			s.over = err
		}
	}
	signal(s.more)
}

// log takes a line of a program's output.
func (s *stream) log(line LogLine) error {
	line.Schema = Schema
	return s.take(line, 0)
}

// event takes an event.
func (s *stream) event(e Event) error {
	e.Schema = Schema
	return s.take(e, e.Seq)
}

// take encodes v and puts it with what waits. When that is too much already it
// waits, if the stream is patient, or ends the stream.
func (s *stream) take(v any, seq uint64) error {
	line, err := s.encode(v, seq)
	if err != nil {
		return err
	}
	for {
		taken, err := s.put(line, seq)
		if taken || err != nil {
			return err
		}
		select {
		case <-s.room:
		case <-s.done:
			return errSlow
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
}

// put adds line to what waits if there is room.
func (s *stream) put(line []byte, seq uint64) (taken bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return false, s.over
	}
	if len(s.waiting) > 0 && len(s.waiting)+len(line) > s.limit {
		if !s.patient {
			s.drop()
		}
		return false, s.over
	}
	s.waiting = append(s.waiting, line...)
	s.last = max(s.last, seq)
	signal(s.more)
	if s.patient && len(s.waiting) < s.limit {
		signal(s.room) // another emitter may be waiting
	}
	return true, nil
}

// drop ends the stream with an event that says so. The caller holds mu.
func (s *stream) drop() {
	line, err := s.encode(Event{
		Schema: Schema, Seq: s.last, Time: time.Now(), Type: EventDropped,
		Message: "events are missing from here on: " + errSlow.Error(),
	}, s.last)
	if err == nil {
		s.waiting = append(s.waiting, line...)
	}
	s.over = errSlow
	signal(s.more)
	s.cancel()
}

// encode returns v as one line, or as one server-sent event.
func (s *stream) encode(v any, seq uint64) ([]byte, error) {
	var b bytes.Buffer
	if s.sse {
		if seq > 0 {
			b.WriteString("id: " + strconv.FormatUint(seq, 10) + "\n")
		}
		b.WriteString("data: ")
	}
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // ends the line
		return nil, err
	}
	if s.sse {
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

// write is the writer: it owns the ResponseWriter until done is closed.
func (s *stream) write() {
	defer close(s.done)
	defer s.cancel()
	patience := time.NewTimer(headDelay)
	defer patience.Stop()
	for {
		select {
		case <-s.more:
		case <-patience.C:
			s.head()
			if s.flush() != nil {
				return
			}
		}
		over, err := s.drain()
		if over || err != nil {
			return
		}
	}
}

// drain writes what waits, and the last line once the stream is over.
func (s *stream) drain() (over bool, err error) {
	for {
		lines, over := s.swap()
		if len(lines) == 0 {
			return over != nil, s.epitaph(over)
		}
		if err := s.send(lines); err != nil {
			return true, err
		}
	}
}

// swap takes what waits from the emitters.
func (s *stream) swap() (lines []byte, over error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines, s.waiting = s.waiting, nil
	signal(s.room)
	return lines, s.over
}

// epitaph sends why a stream that had begun has ended.
func (s *stream) epitaph(over error) error {
	if !s.sent || over == nil || over == errOver || over == errSlow {
		return nil
	}
	line, err := s.encode(problemOf(over), 0)
	if err != nil {
		return err
	}
	return s.send(line)
}

// send writes lines, chunk by chunk, each within the time limit.
func (s *stream) send(lines []byte) error {
	s.head()
	for len(lines) > 0 {
		n := min(len(lines), writeChunk)
		s.deadline()
		if _, err := s.w.Write(lines[:n]); err != nil {
			return err
		}
		lines = lines[n:]
	}
	return s.flush()
}

// head sends the header, once.
func (s *stream) head() {
	if s.sent {
		return
	}
	s.sent = true
	h := s.w.Header()
	h.Set("Content-Type", "application/jsonl")
	if s.sse {
		h.Set("Content-Type", "text/event-stream")
	}
	h.Set("Cache-Control", "no-store")
	s.w.WriteHeader(http.StatusOK)
}

func (s *stream) flush() error {
	s.deadline()
	return s.rc.Flush()
}

// deadline limits the next write. A connection that has no deadlines, in
// tests, does without.
func (s *stream) deadline() { _ = s.rc.SetWriteDeadline(time.Now().Add(s.timeout)) }

// signal puts a token into a channel of one, unless there is one already.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
