package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// OnFull says what happens to lines for which there is no room.
type OnFull int

// The values of OnFull.
const (
	Block OnFull = iota // whoever ships them waits
	Drop                // they are dropped, and counted
)

// Options say where lines go, and how. [Defaults] has a value for each.
type Options struct {
	To     Receiver
	Stdout io.Writer // what a Receiver for standard output writes to

	Buffer      int // bytes that may wait in memory; a line may have half of it
	BufferLines int // lines that may wait in memory, 0 is any number
	Resend      int // acknowledged bytes that are sent again after a connection was reset
	OnFull      OnFull

	Spool     string // the directory of the spool, or empty: none. One process may use it
	SpoolSize int64  // bytes that it may have

	Timeout   time.Duration // of an attempt to connect
	KeepAlive time.Duration // after so much silence a connection is probed, and so often
	Refresh   time.Duration // between two questions to Consul, at least

	Consul Consul

	// Tell is called with what a user should know, a sentence at a time. It may be
	// called by several goroutines.
	Tell func(message string)

	digest, silence time.Duration // see the constants
}

// Defaults are the options for a receiver.
func Defaults(to Receiver) Options {
	patience := silence
	if to.Service != "" {
		patience = serviceSilence
	}
	return Options{
		To: to, Buffer: 8 << 20, Resend: 8 << 20, SpoolSize: 1 << 30,
		Timeout: 2 * time.Second, KeepAlive: 5 * time.Second, Refresh: time.Second,
		Tell: func(string) {}, digest: Digest, silence: patience,
	}
}

// minBuffer is enough for any two writes.
const minBuffer = 2 * chunkMax

// A Shipper brings lines to a receiver. Its methods may be called by several
// goroutines, Run by one and once.
type Shipper struct {
	o         Options
	counters  counters
	queue     *queue
	catalog   *catalog      // nil without a service
	finishing chan struct{} // closed by Finish
	finish    sync.Once
}

// New makes a shipper. It opens the spool, and connects to nobody: Run does.
func New(o Options) (*Shipper, error) {
	o.Buffer = max(o.Buffer, minBuffer)
	if !o.To.keeps() {
		o.Resend = 0
	}
	s := &Shipper{o: o, finishing: make(chan struct{})}
	if o.To.Service != "" {
		c, err := newCatalog(o.Consul, o.To)
		if err != nil {
			return nil, err
		}
		s.catalog = c
	}
	s.queue = newQueue(o, &s.counters)
	if o.Spool != "" {
		spool, err := openSpool(o.Spool, o.SpoolSize, o.Tell, &s.counters)
		if err != nil {
			return nil, err
		}
		s.queue.spool = spool
	}
	return s, nil
}

// Counters tells what has become of the lines so far.
func (s *Shipper) Counters() Counters {
	c := s.counters.read()
	c.Problem = s.queue.problem()
	return c
}

// Safe counts the lines, of those shipped first, that the end of this process would
// not lose: they were acknowledged, are in the spool, or were dropped. The others
// have to be shipped again by who comes after a process that was killed; and what was
// acknowledged less than [Digest] ago, in case the receiver was killed too. As long as
// there are others, ask again: nobody tells when lines are acknowledged.
func (s *Shipper) Safe() uint64 { return s.queue.safe() }

// Ship takes whole lines, each with its newline, and keeps none of the bytes.
// If there is no room for them it waits, or drops them, as OnFull says. A line
// longer than half the buffer is dropped. The error is ctx's, or that Run has
// returned.
func (s *Shipper) Ship(ctx context.Context, lines []byte) error {
	size := chunkMax
	if s.o.BufferLines > 0 {
		size = 1 // one by one, so that as many as fit are kept
	}
	for len(lines) > 0 {
		piece := firstLines(lines, size)
		if err := s.queue.put(ctx, piece); err != nil {
			return err
		}
		lines = lines[len(piece):]
	}
	return nil
}

// firstLines returns as many whole lines as have size bytes together, at least
// one.
func firstLines(lines []byte, size int) []byte {
	if len(lines) <= size {
		return lines
	}
	if end := bytes.LastIndexByte(lines[:size], '\n'); end >= 0 {
		return lines[:end+1]
	}
	if end := bytes.IndexByte(lines, '\n'); end >= 0 {
		return lines[:end+1]
	}
	return lines
}

// Finish says that no more lines come: Run returns when all are delivered.
func (s *Shipper) Finish() {
	s.queue.finish()
	s.finish.Do(func() { close(s.finishing) })
}

// Undelivered is the error of a Run that was ended before everything was
// delivered.
type Undelivered struct {
	Lines int    // that may not have arrived, and are lost now
	To    string // the receiver
	Why   error  // what the last attempt failed of, or nil
}

func (u *Undelivered) Error() string {
	lines := "lines"
	if u.Lines == 1 {
		lines = "line"
	}
	text := fmt.Sprintf("cannot deliver %d %s to %s", u.Lines, lines, u.To)
	if u.Why != nil {
		return text + ": " + u.Why.Error()
	}
	return text + ": it did not take them in time"
}

// Run brings lines to the receiver, until all are delivered after Finish, or
// ctx is done. Then what is left goes into the spool; without one it is lost,
// and the error is an [Undelivered]. Whatever is shipped later is refused.
func (s *Shipper) Run(ctx context.Context) error {
	c := &crew{s: s, catalog: s.catalog}
	err := c.run(ctx)
	left, spoolErr := s.queue.close()
	if err = errors.Join(err, spoolErr); left > 0 && err == nil {
		err = &Undelivered{Lines: left, To: s.o.To.String(), Why: c.reason()}
	}
	return err
}
