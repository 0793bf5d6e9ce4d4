// Package journal keeps what must outlive a process: a file of records to which
// each change is appended, so that whoever opens it next finds the last state
// that was written, at whatever instant its writer was killed.
//
// A record is written with its length and a checksum, and all of a commit by one
// write(2). What a process has written is kept by the kernel when the process dies;
// only a crash of the machine needs [Sync]. A kill within the call may leave a part:
// so several records of a commit are framed by another, which counts as a whole or
// not at all. A torn one can only be the last: it is cut off when the file is opened
// again.
//
// A disk that is full does not stop a journal: what cannot be written waits in
// memory. It has a little room on the disk beforehand, so that this takes a while.
package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Journal is an open journal. It is not safe for concurrent use.
type Journal struct {
	path     string
	magic    string
	file     *os.File // nil: there is none yet, since it could not be written
	whole    []byte   // what should stand in it then, before the buffer
	buffer   []byte   // records that are not written yet, behind room for the header of a batch
	count    int      // of these
	size     int64    // of the file
	base     int64    // its size when it was last written anew
	reserved int64    // the file has room on the disk up to here
	torn     bool     // the last write failed half-way
}

// Bounds.
const (
	headerSize = 8        // of a record: its length and its checksum
	maxRecord  = 64 << 20 // a longer one is damage
	minRewrite = 1 << 20  // below this size a journal is not written anew
	atOnce     = 16       // times that size it cannot wait
	maxRoom    = 4 << 20  // of a buffer that is kept
	reserve    = 256 << 10
	batchBit   = 1 << 31 // in a length: what follows are records
)

// castagnoli has an instruction on every machine that pm runs on. Its tables are
// made at first use: most commands read no journal.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

// A Damage is a file that could not be read as a whole: Offset is where the first
// damage is. Every record that could be read, before and after, is used; the file
// has been set aside under the name Aside.
type Damage struct {
	Path, Aside string
	Offset      int64
	Reason      string
}

func (d *Damage) Error() string {
	return fmt.Sprintf("%s is damaged at byte %d (%s): what could be read of it is used, and the file is kept as %s", d.Path, d.Offset, d.Reason, d.Aside)
}

// Open opens or makes the journal at path, and returns its records in the order
// in which they were written. magic is a line of text that tells what sort of
// journal it is; a file of another sort is set aside. A torn last record is cut
// off silently, since that is how a crash looks; damage elsewhere is told by a
// [Damage], with which the journal is usable all the same. So it is when a new
// file cannot be written, as on a full disk: the next [Journal.Commit] tells.
func Open(path, magic string) (j *Journal, records [][]byte, err error) {
	magic += "\n"
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("cannot read the journal: %w", err)
	}
	records, good, fault := parse(data, magic)
	var damage error
	if fault != "" {
		aside := fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405.000"))
		if err := os.Rename(path, aside); err != nil {
			return nil, nil, fmt.Errorf("cannot set a damaged journal aside: %w", err)
		}
		damage = &Damage{Path: path, Aside: aside, Offset: int64(good), Reason: fault}
	}
	j = &Journal{path: path, magic: magic}
	if fault != "" || len(data) < len(magic) {
		if j.Rewrite(records) != nil {
			j.whole = j.contents(records)
		}
		return j, records, damage
	}
	if j.file, err = os.OpenFile(path, os.O_RDWR, 0o600); err != nil {
		return nil, nil, fmt.Errorf("cannot use the journal: %w", err)
	}
	j.size, j.base = int64(good), int64(good)
	if err := j.cut(); err != nil {
		return nil, nil, err
	}
	j.provide()
	return j, records, nil
}

// parse returns the records of a journal's bytes, where the first is that cannot
// be read, and what is wrong there; a torn end is not wrong. Records behind damage
// are found by their checksums.
func parse(data []byte, magic string) (records [][]byte, good int, fault string) {
	if len(data) < len(magic) {
		if !strings.HasPrefix(magic, string(data)) {
			return nil, 0, "it is no journal of pm's"
		}
		return nil, 0, ""
	}
	good = -1
	if string(data[:len(magic)]) != magic {
		good, fault = 0, "it is no journal of this kind or version"
		if otherVersion(data, magic) {
			return nil, good, fault
		}
	}
	for at := len(magic); ; {
		record, batch, why := parseRecord(data[at:])
		switch {
		case why == "" && batch:
			inner, _ := unpack(record)
			records = append(records, inner...)
		case why == "":
			records = append(records, record)
		}
		if why == "" {
			at += headerSize + len(record)
			continue
		}
		if good < 0 {
			good = at
		}
		next := len(data)
		if !batch || !tornBatch(data[at:], why) {
			next = at + salvage(data[at:])
		}
		if fault == "" && next == len(data) {
			return records, good, tornOr(data[at:], why)
		}
		if next == len(data) {
			return records, good, fault
		}
		fault, at = orElse(fault, why), next
	}
}

// otherVersion reports whether data is of the kind of magic, with another number:
// such records mean something else.
func otherVersion(data []byte, magic string) bool {
	line, _, ended := bytes.Cut(data[:min(len(data), 2*len(magic))], []byte("\n"))
	kind := magic[:strings.LastIndexByte(magic, ' ')+1]
	number, same := bytes.CutPrefix(line, []byte(kind))
	return ended && same && !slices.ContainsFunc(number, func(b byte) bool { return b < '0' || b > '9' })
}

func orElse(text, other string) string {
	if text != "" {
		return text
	}
	return other
}

// torn is the fault of a record that does not end within the file.
const torn = "a record that has no end"

// parseRecord returns the record or the batch of records that the bytes begin with,
// or why there is none.
func parseRecord(data []byte) (record []byte, batch bool, fault string) {
	if len(data) < headerSize {
		return nil, false, torn
	}
	size, batch := length(data)
	switch sum := binary.LittleEndian.Uint32(data[4:]); {
	case size > maxRecord:
		return nil, batch, "a length that cannot be"
	case headerSize+size > len(data):
		return nil, batch, torn
	case checksumOf(data[headerSize:headerSize+size], batch) != sum:
		return nil, batch, "a wrong checksum"
	}
	return data[headerSize : headerSize+size], batch, ""
}

// length reads the first half of a header.
func length(header []byte) (size int, batch bool) {
	word := binary.LittleEndian.Uint32(header)
	return int(word &^ batchBit), word&batchBit != 0
}

// unpack returns the records that stand one after the other, and why there are no
// more.
func unpack(data []byte) (records [][]byte, fault string) {
	for len(data) > 0 {
		record, batch, fault := parseRecord(data)
		if fault != "" || batch {
			return records, fault
		}
		records = append(records, record)
		data = data[headerSize+len(record):]
	}
	return records, torn
}

// tornBatch reports whether a batch that does not end within the file is what a kill
// has left: then it is not whole, and there is nothing behind it.
func tornBatch(data []byte, fault string) bool {
	if fault != torn {
		return false
	}
	inner := data[headerSize:]
	_, end := unpack(inner)
	return end == torn && checksumOf(inner, true) != binary.LittleEndian.Uint32(data[4:])
}

// salvage returns where after the first byte a record begins; the length of the
// data if nowhere.
func salvage(data []byte) int {
	for at := 1; at+headerSize < len(data); at++ {
		if record, _, fault := parseRecord(data[at:]); fault == "" && len(record) > 0 {
			return at
		}
	}
	return len(data)
}

// tornOr tells the fault of the last bytes of a file, unless a writer that was
// killed has left them. A record that is whole but wrong it has not, unless there
// is nothing but zeros: after a crash of the machine a file may end in blocks
// that were never written.
func tornOr(rest []byte, fault string) string {
	if fault != torn && len(rest) >= headerSize {
		if size, _ := length(rest); size <= maxRecord {
			rest = rest[headerSize+size:]
		}
	}
	if fault == torn || !slices.ContainsFunc(rest, func(b byte) bool { return b != 0 }) {
		return ""
	}
	return fault
}

// cut makes the file end where its good records do. That gives back the room
// behind it, so one that ends there is left alone.
func (j *Journal) cut() error {
	end, err := j.file.Seek(0, io.SeekEnd)
	if err == nil && end != j.size {
		err = j.file.Truncate(j.size)
		j.reserved = 0
	}
	if err == nil {
		_, err = j.file.Seek(j.size, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("cannot cut the journal %s: %w", j.path, err)
	}
	return nil
}

// provide sees to it that there is room for what is written next, also when the
// disk is full then. Where that cannot be had, it is done without.
func (j *Journal) provide() {
	if j.reserved-j.size > reserve/2 {
		return
	}
	if unix.Fallocate(int(j.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, j.size, reserve) == nil {
		j.reserved = j.size + reserve
	}
}

// Add puts a record into the buffer; [Journal.Commit] writes it. It copies the
// record.
func (j *Journal) Add(record []byte) {
	if j.count == 0 {
		j.buffer = append(j.buffer[:0], make([]byte, headerSize)...)
	}
	j.count++
	j.buffer = appendRecord(j.buffer, record)
}

// batch returns what was added, ready to be written.
func (j *Journal) batch() []byte {
	switch inner := j.buffer[min(headerSize, len(j.buffer)):]; {
	case j.count < 2 || len(inner) > maxRecord:
		return inner
	default:
		binary.LittleEndian.PutUint32(j.buffer, uint32(len(inner))|batchBit)
		binary.LittleEndian.PutUint32(j.buffer[4:], checksumOf(inner, true))
		return j.buffer
	}
}

func appendRecord(dst, record []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(record)))
	dst = binary.LittleEndian.AppendUint32(dst, checksum(record))
	return append(dst, record...)
}

// checksum is not 0 for an empty record: zeros are no records.
func checksum(record []byte) uint32 { return crc32.Update(1, castagnoli(), record) }

// checksumOf is another for a batch, so that a record is not taken for one.
func checksumOf(data []byte, batch bool) uint32 {
	if batch {
		return ^checksum(data)
	}
	return checksum(data)
}

// Commit writes what was added since the last call, in one piece: whoever opens the
// journal next finds either all of it or nothing, also if the process was killed
// within the call. When it fails, as on a full disk, what was added
// stays in the buffer and the next call tries again.
func (j *Journal) Commit() error {
	if j.file == nil {
		return j.replace(append(j.whole, j.batch()...))
	}
	if j.count == 0 {
		return nil
	}
	if j.torn {
		if err := j.cut(); err != nil {
			return err
		}
		j.torn = false
	}
	data := j.batch()
	if _, err := j.file.Write(data); err != nil {
		j.torn = true
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	j.size += int64(len(data))
	j.buffer, j.count = j.buffer[:0], 0
	if cap(j.buffer) > maxRoom {
		j.buffer = nil
	}
	j.provide()
	return nil
}

// Trim gives back the memory that the next commits of a burst would use again.
func (j *Journal) Trim() {
	if j.count == 0 {
		j.buffer = nil
	}
}

// Counts tells how many bytes of a journal that was opened are not outdated, about:
// until it was written anew all are taken for such.
func (j *Journal) Counts(bytes int) { j.base = int64(bytes) }

// Full reports whether the journal holds so many outdated records that it
// should be written anew in a quiet moment: that waits for the disk.
func (j *Journal) Full() bool { return j.size > minRewrite && j.size > 4*j.base }

// Overfull reports whether it should be so now.
func (j *Journal) Overfull() bool { return j.size > atOnce*minRewrite && j.size > atOnce*j.base }

// Rewrite replaces all records, also those not committed yet, by these. The old
// file stays until the new one is on the disk; if that fails, it stays in use.
func (j *Journal) Rewrite(records [][]byte) error {
	err := j.replace(j.contents(records))
	if err != nil {
		j.base = max(j.base, j.size/2) // so it is not tried at every turn
	}
	return err
}

func (j *Journal) contents(records [][]byte) []byte {
	data := []byte(j.magic)
	for _, r := range records {
		data = appendRecord(data, r)
	}
	return data
}

// replace makes data the contents of the file.
func (j *Journal) replace(data []byte) error {
	fresh, err := writeFile(j.path, data)
	if err != nil {
		return fmt.Errorf("cannot write the journal anew: %w", err)
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file, j.whole, j.buffer, j.count, j.torn = fresh, nil, nil, 0, false
	j.size, j.base, j.reserved = int64(len(data)), int64(len(data)), 0
	j.provide()
	return nil
}

// writeFile replaces the file at path, and returns the new one, open at its end.
func writeFile(path string, data []byte) (*os.File, error) {
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_, _ = f.Close(), os.Remove(path+".new") // which takes room on a full disk
		return nil, err
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
	return f, nil
}

// File returns the journal's file, nil if it could not be written yet; the next
// [Journal.Rewrite] closes it.
func (j *Journal) File() *os.File { return j.file }

// Sync brings what has been written to a journal's file to the disk. Another
// goroutine may use the journal meanwhile; if it writes the journal anew, that
// is on the disk by itself, and the error is [fs.ErrClosed].
func Sync(f *os.File) error {
	if f == nil {
		return nil
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = unix.Fdatasync(int(fd)) })
	return errors.Join(err, failed)
}

// Close closes the file. What was not committed is lost.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
