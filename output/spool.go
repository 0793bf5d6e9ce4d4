package output

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// spool is the file of a parcel. It belongs to who writes the parcel's lines.
type spool struct {
	path    string    // empty: it is in memory
	fd      int       // -1: closed
	pending bool      // there may be something in it
	waiting time.Time // until when the rest of it may come; zero: it is not missing
}

func newSpool(path string) spool {
	p := spool{path: path, fd: -1}
	p.pending = p.unfinished()
	return p
}

// reach opens it: there may be a parcel in it.
func (p *spool) reach() (err error) {
	if p.fd >= 0 {
		return nil
	}
	if p.path == "" {
		p.fd, err = unix.MemfdCreate("pm-parcel", unix.MFD_CLOEXEC)
	} else {
		p.fd, err = unix.Open(p.path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	}
	if err != nil {
		p.fd = -1
		return fmt.Errorf("cannot keep lines on their way: %w", err)
	}
	p.pending = true
	return nil
}

// close closes it. What is in memory only would be lost, and stays.
func (p *spool) close() {
	if p.fd >= 0 && (p.path != "" || !p.pending) {
		_ = unix.Close(p.fd)
		p.fd = -1
	}
}

// keep moves a parcel, whose bytes the pipe holds, from there into the file. It
// reports whether there was room for all of it.
func (p *spool) keep(s *source, d head) (whole bool, err error) {
	if _, err := unix.Pwrite(p.fd, d.bytes(), 0); err != nil {
		return false, err
	}
	got, err := p.fill(s, 0, int(d.size))
	if err != nil && got == 0 {
		return false, err
	}
	p.pending = true
	return int64(got) == d.size, nil
}

// fill moves bytes from the pipe until the parcel has n.
func (p *spool) fill(s *source, got, n int) (int, error) {
	for got < n {
		at := int64(headSize + got)
		size, err := retry(func() (int64, error) {
			return unix.Splice(s.fd, nil, p.fd, &at, n-got, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		})
		if err != nil || size == 0 {
			return got, err
		}
		got += int(size)
	}
	return got, nil
}

// load returns the parcel that is in the file, with no data if there is none. What a
// kill has left of it in its pipe, which may be s, is added.
func (p *spool) load(s *source) (d head, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(p.fd, &st); err != nil {
		return d, err
	}
	if st.Size <= headSize {
		return d, p.forget()
	}
	raw := make([]byte, min(st.Size, headSize+largePipe))
	if n, err := unix.Pread(p.fd, raw, 0); err != nil || n < len(raw) {
		return d, fmt.Errorf("cannot read the lines that were to be written: %w", err)
	}
	d = readHead(raw)
	if got := len(raw) - headSize; int64(got) < d.size {
		switch torn := raw[len(raw)-1] != '\n'; {
		case s != nil && s.instance == d.parcel.instance && s.stream == d.parcel.stream:
			raw = p.complete(s, raw, got, int(d.size))
		case torn && p.waits():
			return d, later(lineTime)
		case torn: // others are not held up for ever
			raw = append(raw, '\n')
		}
	}
	d.parcel.data = raw[headSize:]
	return d, nil
}

// restTime is how long the rest of a line is waited for that a kill has torn: whose
// it is may not be known to the next worker yet.
const restTime = 10 * time.Second

// waits reports whether the rest of a line may still come, before others print.
func (p *spool) waits() bool {
	if p.waiting.IsZero() {
		p.waiting = time.Now().Add(restTime)
	}
	return time.Now().Before(p.waiting)
}

// complete adds what of a parcel is still in its pipe, after a kill in the middle of
// the move.
func (p *spool) complete(s *source, raw []byte, got, n int) []byte {
	all, _ := p.fill(s, got, n) // what does not come now stays in the pipe
	more := make([]byte, all-got)
	size, _ := unix.Pread(p.fd, more, int64(headSize+got))
	return append(raw, more[:max(size, 0)]...)
}

// mark notes how far the parcel was dealt with.
func (p *spool) mark(offset int64) error {
	_, err := unix.Pwrite(p.fd, binary.LittleEndian.AppendUint64(nil, uint64(offset)), headOffset)
	return err
}

// forget empties it: that the parcel was dealt with is certain now.
func (p *spool) forget() error {
	err := unix.Ftruncate(p.fd, 0)
	if err == nil {
		p.pending, p.waiting = false, time.Time{}
	}
	return err
}

// unfinished reports whether a killed process has left something.
func (p *spool) unfinished() bool {
	var st unix.Stat_t
	return p.path != "" && unix.Stat(p.path, &st) == nil && st.Size > headSize
}
