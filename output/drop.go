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

func (f *File) condition() Condition { return Condition{Problem: f.problem, Dropped: f.dropped} }

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

// drop makes room in a full pipe.
func (f *File) drop(s *source, h *hands, now time.Time) (int, error) {
	wait := later(f.again.Sub(now))
	if !crowded(s.fd) {
		return 0, wait
	}
	data, err := h.peek(s.fd)
	if err != nil {
		return 0, err
	}
	n := wholeLines(data, s.fd)
	if n == 0 {
		return 0, wait
	}
	f.shed(s)
	f.add(data[:n])
	return f.discard(s, h, n)
}

// discard takes n bytes from the pipe to nowhere.
func (f *File) discard(s *source, h *hands, n int) (int, error) {
	got := 0
	for got < n {
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

// dropRest takes the rest of a line to nowhere whose beginning was dropped.
func (f *File) dropRest(s *source, h *hands) (int, error) {
	data, err := h.peek(s.fd)
	if err != nil {
		if errors.Is(err, io.EOF) {
			s.torn = false
		}
		return 0, err
	}
	n := bytes.IndexByte(data, '\n') + 1
	if n == 0 {
		n = len(data)
	}
	f.add(data[:n])
	return f.discard(s, h, n)
}

// shed removes what was written, or is on its way, of a line whose rest is dropped.
func (f *File) shed(s *source) {
	if f.pending {
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
	if f.reachSpool() != nil || unix.Fstat(f.spool, &st) != nil || st.Size <= headSize || st.Size > headSize+largePipe {
		return
	}
	data := make([]byte, st.Size-headSize)
	if n, err := unix.Pread(f.spool, data, headSize); err != nil || n < len(data) || data[n-1] == '\n' {
		return
	}
	f.add(data)
	_ = f.forget() // else it is written once more
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

// add counts what is about to be dropped.
func (f *File) add(data []byte) {
	f.dropped.Lines += uint64(bytes.Count(data, []byte("\n")))
	f.dropped.Bytes += uint64(len(data))
	if f.transit == "" {
		return
	}
	b := binary.LittleEndian.AppendUint64(nil, f.dropped.Lines)
	b = binary.LittleEndian.AppendUint64(b, f.dropped.Bytes)
	fd, err := unix.Open(f.countFile(), unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return // then a kill forgets the count
	}
	_, _ = unix.Pwrite(fd, b, 0)
	_ = unix.Close(fd)
}

// countFile is where the count outlives the process.
func (f *File) countFile() string { return f.transit + "-dropped" }

// recall returns what was counted before.
func (f *File) recall() (d Dropped) {
	if f.transit == "" {
		return d
	}
	if b, err := os.ReadFile(f.countFile()); err == nil && len(b) == 16 {
		d = Dropped{Lines: binary.LittleEndian.Uint64(b), Bytes: binary.LittleEndian.Uint64(b[8:])}
	}
	return d
}
