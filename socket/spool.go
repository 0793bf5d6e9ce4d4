package socket

import (
	"bytes"
	"io"
	"sync"
)

// maxSpool is how far a client reads ahead of whoever takes its lines.
const maxSpool = 64 << 20

// spool passes on what one goroutine writes to another that reads, and holds
// some of it back. With it a client always reads what the daemon sends, so
// that it is not cut off while a pager or a stopped terminal keeps its output
// waiting. A writer waits when the spool is full.
type spool struct {
	limit int

	mu    sync.Mutex // guards the fields below
	moved *sync.Cond // something below has changed
	held  bytes.Buffer
	end   error // what Read returns once held is empty
}

func newSpool(limit int) *spool {
	s := &spool{limit: limit}
	s.moved = sync.NewCond(&s.mu)
	return s
}

// Write holds p back. It fails when the spool has been closed.
func (s *spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.end == nil && s.held.Len() >= s.limit {
		s.moved.Wait()
	}
	if s.end != nil {
		return 0, io.ErrClosedPipe
	}
	s.held.Write(p)
	s.moved.Broadcast()
	return len(p), nil
}

// Read takes what is held back, waiting for it.
func (s *spool) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.end == nil && s.held.Len() == 0 {
		s.moved.Wait()
	}
	if s.held.Len() == 0 {
		return 0, s.end
	}
	n, _ := s.held.Read(p) // not empty, so no error
	s.moved.Broadcast()
	return n, nil
}

// close ends the spool. What it holds can still be read; then Read returns
// err, or io.EOF if that is nil. Only the first call counts.
func (s *spool) close(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = io.EOF
	}
	if s.end == nil {
		s.end = err
	}
	s.moved.Broadcast()
}
