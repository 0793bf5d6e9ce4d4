package ship

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// A sink is an open way to a receiver. It is used by one lane.
type sink interface {
	// write brings whole lines on their way, all of them unless it fails.
	write(lines []byte) error
	// written is how many bytes have been put on the wire.
	written() int64
	// acked is how many of these are known to have got there.
	acked() int64
	// finish says that nothing more comes, and waits until the other end is known
	// to have read everything, which nil says.
	finish(ctx context.Context) error
	// interrupt makes calls return. It may be called at any time, and by others.
	interrupt()
	close()
}

// open connects to a receiver. over is called when the other end has closed the
// connection, with io.EOF, or the connection broke.
func (r Receiver) open(ctx context.Context, o *Options, c *counters, over func(error)) (sink, error) {
	switch r.Network {
	case "stdout":
		return &writerSink{w: o.Stdout}, nil
	case "file":
		return openFile(r.Address)
	case "udp", "unixgram":
		return openDatagrams(ctx, r, o, c)
	default:
		return openStream(ctx, r, o, over)
	}
}

// total counts what is written where nothing else is known: what is written
// has got there.
type total int64

func (t *total) written() int64 { return int64(*t) }
func (t *total) acked() int64   { return int64(*t) }

// writerSink writes to standard output.
type writerSink struct {
	total
	w io.Writer
}

// A fatalError ends Run: trying again is of no use.
type fatalError struct{ error }

func (e fatalError) Unwrap() error { return e.error }

func (s *writerSink) write(lines []byte) error {
	n, err := s.w.Write(lines)
	s.total += total(n)
	if err != nil {
		return fatalError{fmt.Errorf("cannot write to standard output: %w", err)}
	}
	return nil
}

func (s *writerSink) finish(context.Context) error { return nil }
func (s *writerSink) interrupt()                   {}
func (s *writerSink) close()                       {}

// fileSink appends to a file. A write that fails half-way is taken back, so
// that no line is torn or doubled when it is tried again.
type fileSink struct {
	total
	f *os.File
}

func openFile(path string) (*fileSink, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.EROFS):
		return nil, fatalError{fmt.Errorf("cannot write to file %s: %w", path, errors.Unwrap(err))}
	case err != nil:
		return nil, err
	}
	return &fileSink{f: f}, nil
}

func (s *fileSink) write(lines []byte) error {
	n, err := s.f.Write(lines)
	if err != nil {
		s.takeBack(int64(n))
		return err
	}
	s.total += total(n)
	return nil
}

// takeBack removes the last n bytes of a regular file that nobody else seems to
// write.
func (s *fileSink) takeBack(n int64) {
	end, err := s.f.Seek(0, io.SeekCurrent)
	info, statErr := s.f.Stat()
	if n > 0 && errors.Join(err, statErr) == nil && info.Mode().IsRegular() && info.Size() == end {
		_ = s.f.Truncate(end - n)
	}
}

func (s *fileSink) finish(context.Context) error { return nil }
func (s *fileSink) interrupt()                   {}
func (s *fileSink) close()                       { _ = s.f.Close() }
