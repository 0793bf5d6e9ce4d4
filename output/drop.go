package output

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A file that cannot be written leaves what programs print in their pipes. They go on
// until those are full, and then they wait; or, with [FileOptions.Drop], what a full
// pipe holds is dropped, in whole lines, and counted first: so a kill in between makes
// the count too high, never too low.

// Dropped is how much was not written.
type Dropped struct{ Lines, Bytes uint64 }

// Condition is how a [File] is.
type Condition struct {
	Problem     error // why it cannot be written; nil: it can
	Compression error // why a rotated one was not compressed just now
	Dropped     Dropped
}

// Condition returns how the file is.
func (f *File) Condition() Condition {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.condition()
}

func (f *File) condition() Condition {
	return Condition{Problem: f.problem, Dropped: f.dropped.Dropped}
}

// crowded reports whether a pipe may be full: a page of it is left half empty where
// the next write did not fit.
func crowded(pipe int) bool { return held(pipe) >= fullAt(pipe) }

// fullAt returns how many bytes may fill a pipe.
func fullAt(pipe int) int {
	size, err := unix.FcntlInt(uintptr(pipe), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return fullPipe
	}
	return size / 2
}

// dropped counts what was not written, also for the next process.
type dropped struct {
	Dropped
	path string // of the file of the count; empty: nobody will look
}

// recall returns what was counted before, beside the spool at a path.
func recall(spool string) (d dropped) {
	if spool == "" {
		return d
	}
	d.path = spool + "-dropped"
	if b, err := os.ReadFile(d.path); err == nil && len(b) == 16 {
		d.Dropped = Dropped{Lines: binary.LittleEndian.Uint64(b), Bytes: binary.LittleEndian.Uint64(b[8:])}
	}
	return d
}

// add counts what is about to be dropped.
func (d *dropped) add(data []byte) {
	d.Lines += uint64(bytes.Count(data, []byte("\n")))
	d.Bytes += uint64(len(data))
	if d.path == "" {
		return
	}
	b := binary.LittleEndian.AppendUint64(nil, d.Lines)
	b = binary.LittleEndian.AppendUint64(b, d.Bytes)
	fd, err := unix.Open(d.path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return // then a kill forgets the count
	}
	_, _ = unix.Pwrite(fd, b, 0)
	_ = unix.Close(fd)
}

// relieve makes room in a pipe that is full, after a call of first.
func (d *dropped) relieve(s *source, h *hands, wait time.Duration, first func()) (int, error) {
	if !crowded(s.fd) {
		return 0, later(wait)
	}
	data, err := h.peek(s.fd)
	if err != nil {
		return 0, err
	}
	n := wholeLines(data, s.fd)
	if n == 0 {
		return 0, later(wait)
	}
	first()
	d.add(data[:n])
	return discard(s, h, n)
}

// rest takes the rest of a line to nowhere whose beginning was dropped.
func (d *dropped) rest(s *source, h *hands) (int, error) {
	data, err := h.peek(s.fd)
	if err != nil {
		return 0, err
	}
	n := bytes.IndexByte(data, '\n') + 1
	if n == 0 {
		n = len(data)
	}
	d.add(data[:n])
	return discard(s, h, n)
}

// discard takes n bytes from the pipe to nowhere.
func discard(s *source, h *hands, n int) (int, error) {
	for got := 0; got < n; {
		size, err := retry(func() (int64, error) {
			m, err := unix.Read(s.fd, h.buffer(n)[got:n])
			return int64(m), err
		})
		if err != nil || size == 0 {
			return got, err
		}
		got += int(size)
	}
	s.torn = h.buf[n-1] != '\n'
	return n, nil
}

// shed removes what was written, or is on its way, of a line whose rest is dropped.
func (f *File) shed(s *source) {
	if f.spool.pending {
		f.shedParcel()
	}
	if f.open() != nil || !f.midLine || f.owner != nil && f.owner != s {
		return
	}
	if end, err := f.lastLine(); err == nil {
		f.dropped.Bytes += uint64(f.size - end)
		_ = f.cutBack(end) // else the beginning of the line stays
	}
}

// shedParcel drops the parcel if it ends within a line.
func (f *File) shedParcel() {
	var st unix.Stat_t
	if f.spool.reach() != nil || unix.Fstat(f.spool.fd, &st) != nil || st.Size <= headSize || st.Size > headSize+largePipe {
		return
	}
	data := make([]byte, st.Size-headSize)
	if n, err := unix.Pread(f.spool.fd, data, headSize); err != nil || n < len(data) || data[n-1] == '\n' {
		return
	}
	f.dropped.add(data)
	_ = f.spool.forget() // else it is written once more
}

// lastLine returns where the unfinished line begins at the end of the file.
func (f *File) lastLine() (int64, error) {
	buf := make([]byte, readSize)
	for end := f.size; end > 0; {
		begin := max(0, end-readSize)
		n, err := unix.Pread(f.fd, buf[:end-begin], begin)
		if err != nil || int64(n) < end-begin {
			return 0, errors.Join(err, io.ErrUnexpectedEOF)
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return begin + int64(i) + 1, nil
		}
		end = begin
	}
	return 0, nil
}
