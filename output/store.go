package output

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// store is a log's copy in files, for who comes after a process that was killed.
// Bytes go from the pipe to a file by splice(2): the kernel moves them and the
// file's end in one call, so that no kill can lose, double or tear any. Before
// each move a mark says when it was and of which stream; a kill between the two
// leaves a mark of nothing.
//
// There are two segments, of which the older is replaced when the newer is full.
type store struct {
	path    string
	limit   int64  // bytes of a segment
	slot    int    // the newer segment, 0 or 1
	age     uint64 // its number; it grows from one to the next
	size    int64
	written [2]uint64 // by stream: bytes that ever came
	begun   [2]uint64 // by stream: those before the newer segment
	source  uint64    // of the log
	data    int       // descriptors; -1: closed
	index   int
	last    mark      // the latest of this segment
	failing bool      // files cannot be written: the log is in memory only …
	again   time.Time // … until it is tried again
}

// tryAgain is how long a log stays in memory only when its files could not be
// written.
const tryAgain = time.Second

// mark is an entry of an index: from this byte of the data on, another time or
// stream.
type mark struct {
	offset int64
	stream Stream
	cut    bool // no bytes: the stream broke off in the middle of a line
	at     int64
}

// An index is a header, and marks.
const (
	headerSize = 32
	markSize   = 16
	cutBit     = 1 << 7
)

// header is what an index begins with.
type header struct {
	age     uint64    // the segment's number
	source  uint64    // the log's
	written [2]uint64 // by stream: bytes that came before the segment's
}

func (h header) bytes() []byte {
	b := make([]byte, 0, headerSize)
	for _, n := range []uint64{h.age, h.source, h.written[0], h.written[1]} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

func readHeader(b []byte) header {
	at := func(n int) uint64 { return binary.LittleEndian.Uint64(b[8*n:]) }
	return header{at(0), at(1), [2]uint64{at(2), at(3)}}
}

func (s *store) file(slot int, kind string) string {
	return s.path + "." + strconv.Itoa(slot) + "." + kind
}

// load reads both segments into the log, the older first, and goes on with the
// newer. damage names an index that does not fit its data.
func (s *store) load(l *Log) (damage, err error) {
	headers := [2]header{}
	indexes := [2][]byte{}
	for slot := range 2 {
		index, err := os.ReadFile(s.file(slot, "index"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if len(index) >= headerSize {
			headers[slot], indexes[slot] = readHeader(index), index[headerSize:]
		}
	}
	if headers[1].age > headers[0].age {
		s.slot = 1
	}
	s.age, s.source, s.begun = headers[s.slot].age, headers[s.slot].source, headers[s.slot].written
	for _, slot := range []int{1 - s.slot, s.slot} {
		if headers[slot].age == 0 {
			continue
		}
		if len(l.chunks) == 0 { // nothing is kept of what came before
			l.written, l.dropped = headers[slot].written, headers[slot].written
		}
		data, err := os.ReadFile(s.file(slot, "data"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if !replay(l, data, indexes[slot]) {
			damage = fmt.Errorf("%s is damaged: what fits of it is used", s.file(slot, "index"))
		}
		s.size = int64(len(data))
	}
	s.written = l.written
	if s.source == 0 || damage != nil { // what is not whole is not counted on from
		s.source = l.source
	}
	l.source = s.source
	return damage, nil
}

// replay puts the bytes of a segment into the log, and reports whether all marks
// make sense.
func replay(l *Log, data, index []byte) (whole bool) {
	whole = true
	for len(index) >= markSize {
		m := readMark(index)
		index = index[markSize:]
		end := int64(len(data))
		if len(index) >= markSize {
			end = min(end, readMark(index).offset)
		}
		if m.stream != Stdout && m.stream != Stderr || m.offset > end {
			whole = false
			continue
		}
		l.append(m.stream, m.at, data[m.offset:end])
		if m.cut {
			l.cut(m.stream, m.at)
		}
	}
	return whole
}

func readMark(b []byte) mark {
	word := binary.LittleEndian.Uint64(b)
	kind := byte(word >> 56)
	return mark{
		offset: int64(word & (1<<56 - 1)), stream: Stream(kind &^ cutBit), cut: kind&cutBit != 0,
		at: int64(binary.LittleEndian.Uint64(b[8:])),
	}
}

// note writes a mark, if the latest does not say the same.
func (s *store) note(m mark) error {
	if m.stream == s.last.stream && !m.cut && !s.last.cut && m.at-s.last.at < int64(sameTime) {
		return nil
	}
	n, err := unix.Write(s.index, appendMark(nil, m))
	if err == nil && n < markSize {
		err = unix.ENOSPC
	}
	if err == nil {
		s.last = m
	}
	return err
}

func appendMark(b []byte, m mark) []byte {
	kind := byte(m.stream)
	if m.cut {
		kind |= cutBit
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(m.offset)|uint64(kind)<<56)
	return binary.LittleEndian.AppendUint64(b, uint64(m.at))
}

// open makes the segment ready to be written.
func (s *store) open() error {
	if s.data >= 0 {
		return nil
	}
	if s.age == 0 || s.size >= s.limit {
		return s.turn()
	}
	return s.openFiles(0)
}

// turn replaces the older segment by an empty one.
func (s *store) turn() error {
	s.close()
	slot := s.slot
	if s.age > 0 {
		slot = 1 - slot
	}
	// The index without its number first: a segment that has none does not count.
	for _, kind := range []string{"index", "data"} {
		if err := os.Remove(s.file(slot, kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	s.slot, s.size, s.age, s.last, s.begun = slot, 0, s.age+1, mark{}, s.written
	if err := s.openFiles(unix.O_CREAT); err != nil {
		return err
	}
	_, err := unix.Write(s.index, header{s.age, s.source, s.written}.bytes())
	return err
}

// openFiles opens both files at their ends. splice refuses a file that is open
// for appending.
func (s *store) openFiles(create int) (err error) {
	const mode = unix.O_RDWR | unix.O_CLOEXEC | unix.O_NOFOLLOW
	if s.data, err = unix.Open(s.file(s.slot, "data"), mode|create|unix.O_CREAT, 0o600); err != nil {
		s.data = -1
		return err
	}
	if s.index, err = unix.Open(s.file(s.slot, "index"), mode|create|unix.O_APPEND, 0o600); err != nil {
		_ = unix.Close(s.data)
		s.data, s.index = -1, -1
		return err
	}
	if err := s.trimIndex(); err != nil {
		return err
	}
	s.size, err = unix.Seek(s.data, 0, unix.SEEK_END)
	return err
}

// trimIndex cuts off a mark of which a full disk took only a part.
func (s *store) trimIndex() error {
	size, err := unix.Seek(s.index, 0, unix.SEEK_END)
	if over := (size - headerSize) % markSize; err == nil && over > 0 {
		err = unix.Ftruncate(s.index, size-over)
	}
	return err
}

// fail goes on in memory only for a while.
func (s *store) fail(now time.Time) {
	s.close()
	s.failing, s.again = true, now.Add(tryAgain)
}

// retry ends that, if all that the log has can be written anew.
func (s *store) retry(l *Log, now time.Time) {
	if !s.failing || now.Before(s.again) {
		return
	}
	if err := s.renew(l); err != nil {
		s.fail(now)
		return
	}
	s.failing = false
}

// renew replaces both segments by one of what the log has. What is in the files
// stays there until the new one is written.
func (s *store) renew(l *Log) error {
	data, index := l.image(s.age + 1)
	files := map[string][]byte{"data": data, "index": index}
	fresh := func(kind string) string { return s.path + ".new." + kind }
	for kind, b := range files {
		if err := os.WriteFile(fresh(kind), b, 0o600); err != nil {
			_, _ = os.Remove(fresh("data")), os.Remove(fresh("index"))
			return err
		}
	}
	age := s.age + 1
	s.remove()
	s.slot, s.age, s.size, s.written, s.begun = 0, age, int64(len(data)), l.written, l.dropped
	return errors.Join(os.Rename(fresh("data"), s.file(0, "data")), os.Rename(fresh("index"), s.file(0, "index")))
}

// image returns what the log keeps as the files of a segment. The caller holds
// l.mu.
func (l *Log) image(age uint64) (data, index []byte) {
	index = header{age, l.source, l.dropped}.bytes()
	for _, c := range l.chunks {
		begin := int32(0)
		for _, r := range c.records {
			index = appendMark(index, mark{offset: int64(len(data)), stream: r.stream, cut: r.cut, at: r.time})
			if !r.cut {
				data = append(data, c.data[begin:r.end]...)
			}
			begin = r.end
		}
	}
	return data, index
}

func (s *store) close() {
	if s.data >= 0 {
		_, _ = unix.Close(s.data), unix.Close(s.index)
		s.data, s.index = -1, -1
	}
	s.last = mark{}
}

// holds reports whether there is something to read from a pipe. If not, the error
// is nil at its end, and else EAGAIN.
func holds(pipe int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(pipe), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, 0)
	switch {
	case err == nil && fds[0].Revents&unix.POLLIN != 0:
		return true, nil
	case err == nil && fds[0].Revents&unix.POLLHUP != 0:
		return false, nil
	}
	return false, unix.EAGAIN
}

// take moves what the pipe holds, at most as much as fits into buf, to the file
// and returns a copy in buf. moved is false if the files cannot be used: then
// nothing was taken from the pipe.
func (s *store) take(stream Stream, at time.Time, pipe int, buf []byte) (n int, moved bool, err error) {
	if s.failing {
		return 0, false, nil
	}
	if s.data < 0 { // a program that prints nothing gets no files
		if some, err := holds(pipe); !some {
			return 0, true, err
		}
	}
	if err := s.open(); err != nil {
		return 0, false, err
	}
	if err := s.note(mark{offset: s.size, stream: stream, at: at.UnixNano()}); err != nil {
		return 0, false, err
	}
	size, err := unix.Splice(pipe, nil, s.data, nil, len(buf), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return 0, true, unix.EAGAIN
	case err != nil:
		return 0, false, err
	case size == 0:
		return 0, true, nil
	}
	n, err = unix.Pread(s.data, buf[:size], s.size)
	if err != nil || n < int(size) {
		return n, true, fmt.Errorf("cannot read back what was kept in %s: %d of %d bytes: %w", s.path, n, size, err)
	}
	s.written[stream-1] += uint64(size)
	if s.size += size; s.size >= s.limit {
		err = s.turn()
	}
	return n, true, err
}

// Sweep deletes the files in dir that belong to no log: those of logs whose name
// keep does not have, which is the last element of the path given to [OpenLog],
// and what was left half done. No log there may be open. What is no file of a log
// stays.
func Sweep(dir string, keep map[string]bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot look for output of programs that are gone: %w", err)
	}
	var errs []error
	for _, e := range entries {
		name, part := logOf(e.Name())
		if part != "" && (part == "new" || !keep[name]) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// logOf returns the log that a file belongs to, and which part of it; empty if
// none.
func logOf(file string) (name, part string) {
	rest, ok := strings.CutSuffix(file, ".data")
	if !ok {
		rest, ok = strings.CutSuffix(file, ".index")
	}
	dot := strings.LastIndexByte(rest, '.')
	if !ok || dot < 0 || !slices.Contains([]string{"0", "1", "new"}, rest[dot+1:]) {
		return "", ""
	}
	return rest[:dot], rest[dot+1:]
}

// remove deletes all files.
func (s *store) remove() {
	s.close()
	for slot := range 2 {
		_, _ = os.Remove(s.file(slot, "index")), os.Remove(s.file(slot, "data"))
	}
	s.age, s.size = 0, 0
}
