package ship

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// spool keeps lines on disk: segments, which are files of records, named by
// numbers that say their order. Each record is written by one write(2) with its
// length and a checksum. The file "position" says up to where everything has
// arrived; it is replaced by rename, and lags behind by at most positionEvery
// bytes. So whatever this process is killed in the midst of, the next one finds
// all records but perhaps the one that was being written.
//
// The kernel keeps what was written when the process dies. There is no fsync: a
// crash of the machine may cost the last seconds.
//
// It is guarded by its queue's mutex.
type spool struct {
	dir      string
	lock     *os.File // held as long as the spool is open
	limit    int64    // of all segments
	tell     func(string)
	counters *counters

	segments []segment // in order
	writer   *os.File  // of the last segment, or nil: a new one is begun
	reader   *os.File  // of the segment at read, or nil
	read     place     // what is read next
	last     place     // where that ends which was read last
	arrived  place     // what has arrived: all before it
	saved    place     // arrived, as the file says it
	written  place     // what this process has written to a receiver: all before it
	record   []byte    // a record that is being written
	batch    []byte    // records that were read
	failing  bool      // the last write failed, which has been told
}

type segment struct {
	number uint64
	size   int64
	begin  int64 // what stands before it stands in an earlier segment too
}

// A place is a part of a segment. Segments are numbered from firstSegment on,
// so the zero place is none.
type place struct {
	segment  uint64
	at, next int64 // of its first byte and of that behind it
}

const (
	firstSegment  = 1 << 32 // there is room for segments before it
	segmentSuffix = ".lines"
	recordHeader  = 8 // length and checksum
	positionEvery = 1 << 20
	minSegment    = 64 << 10
	maxSegment    = 64 << 20
)

// castagnoli has an instruction on every machine that pm runs on. Its tables are
// made at first use: most commands keep no spool.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// openSpool opens or makes the spool in dir, which no other process may have
// open.
func openSpool(dir string, limit int64, tell func(string), c *counters) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the spool: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot use the spool: %w", err)
	}
	s := &spool{dir: dir, lock: lock, limit: limit, tell: tell, counters: c}
	if err := flock(lock); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("spool %s is in use by another process: each needs a directory of its own", dir)
		}
		return nil, fmt.Errorf("cannot lock the spool %s: %w", dir, err)
	}
	if err := s.load(); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("cannot read the spool: %w", err)
	}
	return s, nil
}

// Waits for a lock whose holder was killed a moment ago: its threads end one by one.
const (
	lockPatience = time.Second
	lockPause    = 10 * time.Millisecond
)

// flock takes a lock, or returns EWOULDBLOCK if another process keeps it.
func flock(f *os.File) error {
	for until := time.Now().Add(lockPatience); ; time.Sleep(lockPause) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(until) {
			return err
		}
	}
}

// load finds the segments of an earlier process and where it was in them.
func (s *spool) load() error {
	names, err := filepath.Glob(filepath.Join(s.dir, "*"+segmentSuffix))
	if err != nil {
		return err
	}
	arrived, begins := s.loadPosition()
	s.arrived = arrived
	for _, name := range names {
		number, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), segmentSuffix), 10, 64)
		if err != nil {
			continue // not pm's
		}
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if number < s.arrived.segment {
			_ = os.Remove(name)
			continue
		}
		s.segments = append(s.segments, segment{number: number, size: info.Size(), begin: begins[number]})
	}
	slices.SortFunc(s.segments, func(a, b segment) int { return int(int64(a.number - b.number)) })
	if len(s.segments) > 0 && s.segments[0].number != s.arrived.segment {
		s.arrived = place{segment: s.segments[0].number}
	}
	s.read, s.saved = s.arrived, s.arrived
	if err := s.cut(); err != nil {
		return err
	}
	if s.empty() {
		s.removeAll()
	}
	return nil
}

// loadPosition reads the position file: where everything has arrived, and then
// where segments begin that do not at their start. Without one nothing has
// arrived.
func (s *spool) loadPosition() (arrived place, begins map[uint64]int64) {
	begins = map[uint64]int64{}
	data, err := os.ReadFile(filepath.Join(s.dir, "position"))
	if err != nil {
		return place{}, begins
	}
	for n, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		var p place
		if _, err := fmt.Sscanf(line, "%d %d", &p.segment, &p.at); err != nil || p.at < 0 {
			return place{}, nil
		}
		if n == 0 {
			arrived = p
		} else {
			begins[p.segment] = p.at
		}
	}
	return arrived, begins
}

// cut removes a record from the end of the last segment that its writer did not
// finish. What stands behind a damaged record cannot be told from what is torn.
func (s *spool) cut() error {
	if len(s.segments) == 0 {
		return nil
	}
	last := &s.segments[len(s.segments)-1]
	f, err := os.OpenFile(s.path(last.number), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	good := wholeRecords(bufio.NewReaderSize(f, minSegment), last.size)
	if good < last.size {
		last.size = good
		err = f.Truncate(good)
	}
	return errors.Join(err, f.Close())
}

// wholeRecords returns how many bytes of r, of so many, are records that are
// whole and right.
func wholeRecords(r io.Reader, size int64) (good int64) {
	var record []byte
	for size-good >= recordHeader {
		record = slices.Grow(record[:0], recordHeader)[:recordHeader]
		_, err := io.ReadFull(r, record)
		content := int64(binary.LittleEndian.Uint32(record))
		if err != nil || content > size-good-recordHeader {
			return good
		}
		record = slices.Grow(record, int(content))[:recordHeader+content]
		_, err = io.ReadFull(r, record[recordHeader:])
		if _, n := parseRecord(record); err != nil || n == 0 {
			return good
		}
		good += int64(len(record))
	}
	return good
}

// parseRecord returns the first record's content and its size as a whole; 0 if
// there is none that is whole and right.
func parseRecord(data []byte) (content []byte, size int) {
	if len(data) < recordHeader {
		return nil, 0
	}
	n := uint64(binary.LittleEndian.Uint32(data))
	if n == 0 || n > uint64(len(data)-recordHeader) {
		return nil, 0
	}
	content = data[recordHeader : recordHeader+n]
	if crc32.Checksum(content, castagnoli()) != binary.LittleEndian.Uint32(data[4:]) {
		return nil, 0
	}
	return content, recordHeader + int(n)
}

func (s *spool) path(number uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%020d%s", number, segmentSuffix))
}

// empty reports whether all that was put in has been read.
func (s *spool) empty() bool {
	return !slices.ContainsFunc(s.segments, func(seg segment) bool {
		return seg.number == s.read.segment && s.read.at < seg.size || seg.number > s.read.segment && seg.begin < seg.size
	})
}

// size is what the segments take on disk.
func (s *spool) size() (total int64) {
	for _, seg := range s.segments {
		total += seg.size
	}
	return total
}

// append puts lines behind all others, and reports whether there was room. Why
// not is told once.
func (s *spool) append(lines []byte) bool {
	if s.size()+int64(recordHeader+len(lines)) > s.limit {
		s.fail(fmt.Errorf("it has reached its %d bytes", s.limit))
		return false
	}
	if err := s.write(lines); err != nil {
		s.fail(err)
		return false
	}
	s.failing = false
	return true
}

func (s *spool) fail(err error) {
	if !s.failing {
		s.failing = true
		s.tell(fmt.Sprintf("spool %s takes no more lines: %v", s.dir, err))
	}
}

func (s *spool) write(lines []byte) error {
	if err := s.openWriter(); err != nil {
		return err
	}
	s.record = appendRecord(s.record[:0], lines)
	last := &s.segments[len(s.segments)-1]
	if _, err := s.writer.Write(s.record); err != nil {
		_ = s.writer.Truncate(last.size)
		s.closeWriter()
		return err
	}
	last.size += int64(len(s.record))
	if cap(s.record) > 2*chunkMax {
		s.record = nil
	}
	return nil
}

func appendRecord(dst, content []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(content)))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(content, castagnoli()))
	return append(dst, content...)
}

// openWriter sees to it that the last segment can be written, and is not full.
func (s *spool) openWriter() error {
	if s.writer != nil && s.segments[len(s.segments)-1].size < min(max(s.limit/16, minSegment), maxSegment) {
		return nil
	}
	s.closeWriter()
	number := uint64(firstSegment)
	if len(s.segments) > 0 {
		number = s.segments[len(s.segments)-1].number + 1
	}
	f, err := os.OpenFile(s.path(number), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	s.writer = f
	s.segments = append(s.segments, segment{number: number})
	if len(s.segments) == 1 {
		s.read = place{segment: number}
		s.arrived = s.read
	}
	return nil
}

func (s *spool) closeWriter() {
	if s.writer != nil {
		_ = s.writer.Close()
		s.writer = nil
	}
}

// prepend puts lines before all that was not read yet, in a segment of their
// own, and with each whether it was written to a receiver. What was read is
// among them, or has arrived. It may exceed the limit: there is no more of it
// than fits into memory.
func (s *spool) prepend(chunks iter.Seq2[[]byte, bool]) error {
	number := uint64(firstSegment)
	if len(s.segments) > 0 {
		number = s.segments[0].number - 1
	}
	size, written, err := s.writeSegment(number, chunks)
	if size == 0 || err != nil {
		_ = os.Remove(s.path(number))
		return err
	}
	s.forget()
	s.segments = slices.Insert(s.segments, 0, segment{number: number, size: size})
	s.arrived, s.written = place{segment: number}, written
	s.seek(s.arrived)
	return s.save()
}

// writeSegment makes a segment of chunks, and tells where those end that were
// written to a receiver.
func (s *spool) writeSegment(number uint64, chunks iter.Seq2[[]byte, bool]) (size int64, written place, err error) {
	f, err := os.OpenFile(s.path(number), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, place{}, fmt.Errorf("cannot write to the spool: %w", err)
	}
	for lines, sent := range chunks {
		s.record = appendRecord(s.record[:0], lines)
		if _, err = f.Write(s.record); err != nil {
			err = fmt.Errorf("cannot write to the spool: %w", err)
			break
		}
		if size += int64(len(s.record)); sent {
			written = place{segment: number, at: size}
		}
	}
	return size, written, errors.Join(err, f.Close())
}

// forget removes what has been read.
func (s *spool) forget() {
	for len(s.segments) > 0 && s.segments[0].number < s.read.segment {
		_ = os.Remove(s.path(s.segments[0].number))
		s.segments = s.segments[1:]
	}
	if len(s.segments) > 0 {
		s.segments[0].begin = s.read.at
	}
}

// before reports whether p begins before q does.
func (p place) before(q place) bool {
	return p.segment < q.segment || p.segment == q.segment && p.at < q.at
}

// end is the place behind p.
func (p place) end() place { return place{segment: p.segment, at: p.next} }

// noteWritten notes that what stands at p was written to a receiver.
func (s *spool) noteWritten(p place) {
	if s.written.before(p.end()) {
		s.written = p.end()
	}
}

// wasWritten reports whether what stands at p was written before. There may be
// no spool.
func (s *spool) wasWritten(p place) bool { return s != nil && p != (place{}) && p.before(s.written) }

func (s *spool) seek(p place) {
	if s.reader != nil && p.segment != s.read.segment {
		_ = s.reader.Close()
		s.reader = nil
	}
	s.read = p
}

// peek returns the next lines, of one or more records, and where they stand. The
// lines are valid until the next call. None are returned at the end.
func (s *spool) peek() (lines []byte, from place) {
	for !s.empty() {
		if s.read.at >= s.segmentSize() {
			s.nextSegment()
			continue
		}
		data, err := s.readRecords()
		if err == nil {
			if lines, from = s.join(data); len(lines) > 0 {
				return lines, from
			}
			err = errors.New("a wrong checksum")
		}
		s.skip(data, err)
	}
	return nil, place{}
}

// join moves the contents of the records at the front of data together.
func (s *spool) join(data []byte) (lines []byte, from place) {
	from = s.read
	from.next = from.at
	lines = data[:0]
	for rest := data; ; {
		content, size := parseRecord(rest)
		mixed := s.wasWritten(from) && !s.wasWritten(from.end())
		if size == 0 || len(lines) > 0 && (mixed || len(lines)+len(content) > chunkMax) {
			return lines, from
		}
		lines = append(lines, content...) // never beyond what has been parsed
		rest = rest[size:]
		from.next += int64(size)
	}
}

// readRecords returns bytes of the segment from where it is to be read: those
// of at least one record, if that is whole.
func (s *spool) readRecords() ([]byte, error) {
	if s.reader == nil {
		f, err := os.Open(s.path(s.read.segment))
		if err != nil {
			return nil, err
		}
		s.reader = f
	}
	n, err := s.readAt(chunkMax)
	if err != nil || n < recordHeader {
		return nil, errors.Join(err, errors.New("it ends too early"))
	}
	size := int64(binary.LittleEndian.Uint32(s.batch)) + recordHeader
	if size > int64(n) && size <= s.segmentSize()-s.read.at {
		n, err = s.readAt(int(size))
	}
	return s.batch[:n], err
}

// readAt fills the batch with up to size bytes of the segment.
func (s *spool) readAt(size int) (int, error) {
	size = int(min(int64(size), s.segmentSize()-s.read.at))
	s.batch = slices.Grow(s.batch[:0], size)[:size]
	n, err := s.reader.ReadAt(s.batch, s.read.at)
	if n == size {
		err = nil
	}
	return n, err
}

// segmentSize is the size of the segment that is read.
func (s *spool) segmentSize() int64 {
	for _, seg := range s.segments {
		if seg.number == s.read.segment {
			return seg.size
		}
	}
	return 0
}

// advance goes on behind what peek returned.
func (s *spool) advance(p place) {
	s.read.at, s.last = p.next, p.end()
}

// nextSegment goes on with the next segment, if there is one.
func (s *spool) nextSegment() {
	for _, seg := range s.segments {
		if seg.number > s.read.segment {
			s.seek(place{segment: seg.number, at: seg.begin})
			return
		}
	}
}

// skip gives up the rest of a segment that cannot be read.
func (s *spool) skip(data []byte, err error) {
	lost := bytes.Count(data, newline)
	s.counters.spool.Add(uint64(lost))
	s.tell(fmt.Sprintf("spool file %s is damaged at byte %d (%v): the rest of it is lost", s.path(s.read.segment), s.read.at, err))
	s.read.at = s.segmentSize()
	s.closeWriter() // if it is this file that is written, what comes goes into another
}

// settle notes that everything up to and with p has arrived.
func (s *spool) settle(p place) {
	s.arrived = place{segment: p.segment, at: p.next}
	for len(s.segments) > 1 && s.segments[0].number < s.arrived.segment {
		_ = os.Remove(s.path(s.segments[0].number))
		s.segments = s.segments[1:]
	}
	switch {
	case s.empty() && s.arrived == s.last:
		s.removeAll()
	case s.arrived.segment != s.saved.segment || s.arrived.at-s.saved.at >= positionEvery:
		if err := s.save(); err != nil {
			s.fail(err)
		}
	}
}

// removeAll leaves nothing of an empty spool but its lock.
func (s *spool) removeAll() {
	s.closeWriter()
	s.seek(place{})
	for _, seg := range s.segments {
		_ = os.Remove(s.path(seg.number))
	}
	_ = os.Remove(filepath.Join(s.dir, "position"))
	s.segments, s.arrived, s.saved, s.written = nil, place{}, place{}, place{}
}

// save replaces the position file.
func (s *spool) save() error {
	name := filepath.Join(s.dir, "position")
	text := fmt.Appendf(nil, "%d %d\n", s.arrived.segment, s.arrived.at)
	for _, seg := range s.segments {
		if seg.begin > 0 && seg.number != s.arrived.segment {
			text = fmt.Appendf(text, "%d %d\n", seg.number, seg.begin)
		}
	}
	err := os.WriteFile(name+".new", text, 0o600)
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		return fmt.Errorf("cannot write the spool's position: %w", err)
	}
	s.saved = s.arrived
	return nil
}

// close ends the use of the spool; what is in it stays for the next process.
func (s *spool) close() error {
	var err error
	if len(s.segments) > 0 {
		s.tell("what is left stays in the spool: " + s.dir)
		err = s.save()
	}
	s.closeWriter()
	s.seek(place{})
	return errors.Join(err, s.lock.Close())
}
