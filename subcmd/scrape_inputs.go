package subcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// scrapeInputs are the files, pipes and streams that lines are read from.
type scrapeInputs struct {
	files   []*os.File
	pausing atomic.Bool // to end at the next pause
}

const (
	stdinName = "-"
	readSize  = 256 << 10 // at once: it stays in a CPU's cache until it is converted
	pipeSize  = 1 << 20   // what an unprivileged process may give a pipe
	breath    = 10 * time.Millisecond
)

// openScrapeInputs opens the files of these names. A FIFO waits for its first
// writer; with keep it also outlives its last.
func openScrapeInputs(stdin io.Reader, names []string, keep bool) (*scrapeInputs, error) {
	in := &scrapeInputs{}
	for _, name := range names {
		f, err := openScrapeInput(stdin, name, keep)
		if err != nil {
			in.close()
			return nil, unreadable(name, err)
		}
		enlargePipe(f)
		in.files = append(in.files, f)
	}
	return in, nil
}

// unreadable says what cannot be read, and why.
func unreadable(name string, err error) error {
	return fmt.Errorf("cannot read log lines from %s: %w", name, reason(err))
}

func openScrapeInput(stdin io.Reader, name string, keep bool) (*os.File, error) {
	if name == stdinName {
		return reopened(stdin)
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, syscall.EISDIR
	case keep && info.Mode()&os.ModeNamedPipe != 0:
		return os.OpenFile(name, os.O_RDWR, 0)
	}
	return os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// reopened returns standard input, opened once more without blocking if it is a
// pipe, so that reading it can be interrupted. What shares the old one, such as a
// shell and its terminal, notices nothing.
func reopened(stdin io.Reader) (*os.File, error) {
	f, ok := stdin.(*os.File)
	if !ok {
		return piped(stdin)
	}
	if info, err := f.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		if again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
			return again, nil
		}
	}
	return f, nil
}

// piped makes a file of what is none.
func piped(from io.Reader) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() { // ends with the reader, or when nobody reads the pipe
		_, _ = io.Copy(w, from)
		_ = w.Close()
	}()
	return r, nil
}

// enlargePipe lets a pipe hold more, so that reading it takes fewer calls. What
// is no pipe stays.
func enlargePipe(f *os.File) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_SETPIPE_SZ, pipeSize)
		})
	}
}

// read writes all inputs into the pipeline, until they have ended or ctx is
// done.
func (in *scrapeInputs) read(ctx context.Context, p *scrapePipeline) error {
	defer context.AfterFunc(ctx, func() { in.deadline(time.Unix(1, 0)) })()
	faults := make([]error, len(in.files))
	var wg sync.WaitGroup
	for n, f := range in.files {
		wg.Go(func() { faults[n] = in.readOne(ctx, f, p.newStream()) }) // ends with the input, or ctx
	}
	wg.Wait()
	return errors.Join(faults...)
}

func (in *scrapeInputs) readOne(ctx context.Context, f *os.File, to *scrapeStream) error {
	block := make([]byte, readSize)
	for read := firstRead; ; read = (*os.File).Read {
		if in.pausing.Load() && ctx.Err() == nil {
			_ = f.SetReadDeadline(time.Now().Add(breath))
		}
		n, err := read(f, block)
		if errors.Is(err, os.ErrDeadlineExceeded) && in.pausing.Load() {
			if n = readNow(f, block); n > 0 { // the deadline passed before anybody looked
				err = nil
			}
		}
		if n > 0 {
			if err := to.write(ctx, block[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded) && in.pausing.Load(), ctx.Err() != nil:
			return to.end(ctx)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return unreadable(f.Name(), err)
		}
	}
}

// readNow reads what is there, whatever deadline has passed.
func readNow(f *os.File, block []byte) (n int) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { n, _ = syscall.Read(int(fd), block) })
	return max(n, 0)
}

// firstRead reads from an input that may be a FIFO without a writer. Until its
// first writer has come it looks as if it were at its end.
func firstRead(f *os.File, block []byte) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil || !isFIFO(f, raw) {
		return f.Read(block)
	}
	looked := false
	waitErr := raw.Read(func(fd uintptr) (done bool) {
		n, err = syscall.Read(int(fd), block)
		done = n > 0 || err == nil && looked || err != nil && err != syscall.EAGAIN
		looked = looked || err == nil
		return done
	})
	switch {
	case waitErr != nil:
		return 0, waitErr
	case n == 0 && err == nil:
		err = io.EOF
	}
	return max(n, 0), err
}

// isFIFO reports whether f is a pipe with a name.
func isFIFO(f *os.File, raw syscall.RawConn) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return false
	}
	link := ""
	_ = raw.Control(func(fd uintptr) { link, _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)) })
	return !strings.HasPrefix(link, "pipe:")
}

// stop ends reading when there is nothing more to read at the moment.
func (in *scrapeInputs) stop() {
	in.pausing.Store(true)
	in.deadline(time.Now().Add(breath))
}

// endless reports whether one of the inputs, such as a terminal, can neither be
// interrupted nor be expected to end.
func (in *scrapeInputs) endless() bool {
	return slices.ContainsFunc(in.files, func(f *os.File) bool {
		info, err := f.Stat()
		return err == nil && !info.Mode().IsRegular() && f.SetReadDeadline(time.Time{}) != nil
	})
}

// deadline is for inputs that can be interrupted; others go on until they or
// the process end.
func (in *scrapeInputs) deadline(t time.Time) {
	for _, f := range in.files {
		_ = f.SetReadDeadline(t)
	}
}

func (in *scrapeInputs) close() {
	for _, f := range in.files {
		_ = f.Close()
	}
}
