package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// FileOptions say how a [File] is written. The zero value appends bytes as they
// come, for ever.
type FileOptions struct {
	// Size is how many bytes the file holds before it is rotated; 0: no matter. No
	// line is split for it, so that a very long one makes the file longer.
	Size int64
	// Age is the length of the periods, counted from midnight UTC, of which a file
	// holds one; 0: no matter. The first line of another period begins a new file.
	Age time.Duration
	// Files is how many rotated files are kept. 0 keeps none.
	Files int
	// Total is how many bytes they and the file take at most; 0: no matter.
	Total int64
	// Timestamps puts the time at which it was read before each line, in RFC 3339
	// with milliseconds and in this zone; nil: it does not.
	Timestamps *time.Location
	// Prefix stands before each line; {instance} and {stream} are replaced.
	Prefix string
	// JSON makes each line a JSON object with the fields time, instance, stream,
	// line, base64 if it is no UTF-8, and partial for a piece of a line that is too
	// long.
	JSON bool
	// Compress has rotated files compressed with gzip, in the background; path.1 is not,
	// so that those who follow the file can read it to its end.
	Compress bool
	// Drop has lines dropped, and counted, that a file which cannot be written, or a
	// full disk, does not take once their pipe is full; else the program waits.
	Drop bool
}

// File is a file that programs print into through pipes, by a [Loop]. Like what
// programs that hold their file open themselves write, it survives a kill of pm
// at any instant: no line is lost, doubled or torn.
//
// Bytes go from the pipe to the file by splice(2), in which the kernel moves them
// and the end of the file at once. Nothing else may write to the file. When it is
// full it becomes path.1, what was that becomes path.2 and so on.
//
// Safe for concurrent use.
type File struct {
	feed
	path string
	tell func(Condition)

	mu         sync.Mutex // guards all below
	options    FileOptions
	compressor *compressor // of the loop; nil: no pipe is read yet
	fd         int         // -1: closed
	inode      uint64
	spool      spool
	size       int64
	last       time.Time // when it was written last
	midLine    bool      // its last byte is no newline
	owner      *source   // who prints that line; nil: not known
	ripe       bool      // it is to be rotated at the end of this line
	closed     bool
	problem    error     // it cannot be written; nil: it can …
	again      time.Time // … when it is tried again
	dropped    dropped
}

// NewFile returns a file, which is opened when there is something to write. Lines
// that are changed on their way go through a file at the path transit, where they are
// found after a kill; it may be empty if nobody will look. tell is called when
// the file cannot be written, when it can be again, and when one that was rotated could
// not be compressed; it must return at once and not
// call the file.
func NewFile(path, transit string, o FileOptions, tell func(Condition)) *File {
	return &File{path: path, spool: newSpool(transit), dropped: recall(transit), options: o, tell: tell, fd: -1}
}

// Set changes how the file is written from now on.
func (f *File) Set(o FileOptions) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.options = o
	f.squeeze()
}

// Path returns the file's name.
func (f *File) Path() string { return f.path }

// Reopen closes the file, so that what comes next goes to whatever has its name
// then: somebody may have renamed it.
func (f *File) Reopen() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fd >= 0 && f.spool.pending {
		_ = f.openSpool(nil) // else what is on its way goes to the new one
	}
	f.close()
	f.again = time.Time{}
}

// Close closes the file for good. No loop may read into it any more.
func (f *File) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.close()
	f.closed = true
}

func (f *File) rest() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.close()
}

func (f *File) leftover() bool { return f.spool.unfinished() }

// finish adds nothing to a file of bytes as they come: what the next writes goes on
// where this one has stopped, as in a file that programs write themselves. Where
// lines are marked each has to have its own.
func (f *File) finish(s *source) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.owner != s {
		return
	}
	if f.midLine && f.options.formatted() && f.open() == nil {
		_ = f.put([]byte{'\n'}, nil, time.Now()) // else the line goes on
	}
	f.owner = nil
}

// take takes what the pipe holds into the file.
func (f *File) take(s *source, h *hands) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.problem != nil && now.Before(f.again) {
		return f.hold(s, h, now)
	}
	if s.torn {
		return f.dropped.rest(s, h)
	}
	n, err := f.move(s, h, now)
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.As(err, new(later)):
	case errors.Is(err, io.EOF):
		return 0, nil
	case err != nil:
		f.fail(err, now)
		return f.hold(s, h, now)
	case f.problem != nil:
		f.problem = nil
		f.tell(f.condition())
	}
	return n, err
}

// fail leaves what programs print in their pipes for a while.
func (f *File) fail(err error, now time.Time) {
	first := f.problem == nil
	f.problem, f.again = fmt.Errorf("cannot write %s: %w", f.path, err), now.Add(tryAgain)
	if first {
		f.tell(f.condition())
	}
	f.close()
}

// hold leaves what a pipe holds in it, if there is room.
func (f *File) hold(s *source, h *hands, now time.Time) (int, error) {
	if f.options.Drop {
		return f.dropped.relieve(s, h, f.again.Sub(now), func() { f.shed(s) })
	}
	return 0, later(f.again.Sub(now))
}

// lineTime is how long a program waits whose file has a line of another one that is
// so long that it did not come at once.
const lineTime = 20 * time.Millisecond

// move moves some of what the pipe holds, as much as belongs into this file.
func (f *File) move(s *source, h *hands, now time.Time) (int, error) {
	if f.spool.pending {
		if err := f.open(); err != nil {
			return 0, err
		}
		if err := f.openSpool(s); err != nil {
			return 0, err
		}
	}
	if held(s.fd) == 0 { // a program that prints nothing makes no file
		if over(s.fd) && held(s.fd) == 0 {
			return 0, io.EOF
		}
		return 0, unix.EAGAIN
	}
	if err := f.open(); err != nil {
		return 0, err
	}
	formatted := f.options.formatted()
	if formatted {
		if err := f.openSpool(s); err != nil {
			return 0, err
		}
	}
	if !s.shared && !formatted && !f.due(now) && f.room() >= largePipe {
		return f.splice(s, largePipe, now)
	}
	if f.midLine && f.owner != nil && f.owner != s {
		return 0, later(lineTime)
	}
	if formatted {
		return f.moveLines(s, h, now)
	}
	data, err := h.peek(s.fd)
	if err != nil {
		return 0, err
	}
	n, full := f.cut(data, now)
	if full {
		if err := f.rotate(); err != nil {
			return 0, err
		}
		n, _ = f.cut(data, now)
	}
	if s.shared && data[n-1] != '\n' {
		n = wholeLines(data[:n], s.fd)
	}
	if n == 0 {
		return 0, unix.EAGAIN
	}
	return f.splice(s, n, now)
}

// wholeLines returns how many of the bytes that a pipe holds are whole lines; or
// all, if the pipe is full of one line, or nobody will end it.
func wholeLines(data []byte, pipe int) int {
	if n := bytes.LastIndexByte(data, '\n') + 1; n > 0 {
		return n
	}
	if len(data) >= min(fullPipe, fullAt(pipe)) || over(pipe) {
		return len(data)
	}
	return 0
}

// room returns how many bytes fit into the file.
func (f *File) room() int64 {
	if f.options.Size == 0 {
		return 1 << 62
	}
	return f.options.Size - f.size
}

// due reports whether the file belongs to an earlier period, or is to be rotated.
func (f *File) due(now time.Time) bool {
	age := f.options.Age
	return f.ripe && f.size > 0 || age > 0 && f.size > 0 && !now.Truncate(age).Equal(f.last.Truncate(age))
}

// cut returns how many bytes of data belong into this file, or that it is full:
// whole lines as long as there is room, and the rest of a line in any case.
func (f *File) cut(data []byte, now time.Time) (n int, full bool) {
	room := f.room()
	if f.due(now) {
		room = 0
	}
	if int64(len(data)) <= room {
		return len(data), false
	}
	if room > 0 {
		if i := bytes.LastIndexByte(data[:room], '\n'); i >= 0 {
			return i + 1, false
		}
	}
	if f.size > 0 && !f.midLine {
		return 0, true
	}
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, false
	}
	return len(data), false
}

// splice moves n bytes from the pipe, or as many as the disk takes.
func (f *File) splice(s *source, n int, now time.Time) (int, error) {
	size, err := retry(func() (int64, error) {
		return unix.Splice(s.fd, nil, f.fd, nil, n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	})
	switch {
	case err != nil:
		return 0, err
	case size == 0:
		return 0, io.EOF
	}
	f.size, f.last = f.size+size, now
	if f.midLine = !f.endsLine(); f.midLine {
		f.owner = s
	}
	return int(size), nil
}

// endsLine reports whether the file ends with a newline, or is empty.
func (f *File) endsLine() bool {
	var last [1]byte
	n, err := unix.Pread(f.fd, last[:], f.size-1)
	return f.size == 0 || err == nil && n == 1 && last[0] == '\n'
}

// open makes the file ready to be written at its end. splice refuses a file that
// is open for appending.
func (f *File) open() error {
	if f.closed {
		return fs.ErrClosed
	}
	if f.fd >= 0 {
		return f.look()
	}
	fd, err := unix.Open(f.path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0o666)
	if err != nil {
		return err
	}
	f.fd, f.size, f.owner = fd, -1, nil
	return f.look()
}

// look finds the end of the file, where it is not where it was: somebody may have
// emptied it.
func (f *File) look() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("it is not a regular file")
	}
	if st.Size == f.size {
		return nil
	}
	f.inode, f.size, f.last = st.Ino, st.Size, time.Unix(st.Mtim.Unix())
	f.midLine = !f.endsLine()
	_, err := unix.Seek(f.fd, st.Size, unix.SEEK_SET)
	return err
}

func (f *File) closeTarget() {
	if f.fd >= 0 {
		_ = unix.Close(f.fd)
		f.fd = -1
	}
}

func (f *File) close() {
	f.closeTarget()
	f.spool.close()
}
