package ship

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// spoolOf makes a spool with these records, and returns the file that they
// are in.
func spoolOf(t *testing.T, dir string, records ...string) (file string) {
	t.Helper()
	s := reopen(t, dir)
	for _, r := range records {
		if !s.append([]byte(r)) {
			t.Fatal("no room")
		}
	}
	file = s.path(s.segments[0].number)
	check1(t, s.lock.Close()) // as if it were killed
	return file
}

func reopen(t *testing.T, dir string) *spool {
	t.Helper()
	s, err := openSpool(dir, 1<<20, func(message string) { t.Log(message) }, &counters{})
	check1(t, err)
	return s
}

// drain reads all that a spool has.
func drain(s *spool) (all string) {
	for {
		lines, at := s.peek()
		if len(lines) == 0 {
			return all
		}
		all += string(lines)
		s.advance(at)
	}
}

// A file that was cut anywhere, as by a kill in the midst of a write, has all
// records before the cut.
func TestSpoolIsCut(t *testing.T) {
	whole := spoolOf(t, t.TempDir(), "one\n", "two\n", "three\n")
	data, err := os.ReadFile(whole)
	check1(t, err)
	for size := range data {
		dir := t.TempDir()
		check1(t, os.WriteFile(filepath.Join(dir, filepath.Base(whole)), data[:size], 0o600))
		s := reopen(t, dir)
		want := []string{"", "one\n", "one\ntwo\n"}[min(size/(recordHeader+4), 2)]
		if got := drain(s); got != want {
			t.Errorf("of %d bytes came %q, want %q", size, got, want)
		}
		if !s.append([]byte("four\n")) || drain(s) != "four\n" {
			t.Error("nothing can be added")
		}
		check1(t, s.close())
	}
}

// Damage within a segment costs the rest of it, and no other.
func TestSpoolIsDamaged(t *testing.T) {
	dir := t.TempDir()
	file := spoolOf(t, dir, "one\n", "two\n", "three\n")
	s := reopen(t, dir)
	if !s.append([]byte("other segment\n")) {
		t.Fatal("no room")
	}
	data, err := os.ReadFile(file)
	check1(t, err)
	data[recordHeader+4+recordHeader]++ // the first byte of "two"
	check1(t, os.WriteFile(file, data, 0o600))
	if got := drain(s); got != "one\nother segment\n" {
		t.Errorf("%q", got)
	}
	if s.counters.read().Dropped.Spool == 0 {
		t.Error("what is lost is not counted")
	}
	check1(t, s.close())
}

// A process that was killed may hold its spool a moment longer.
func TestSpoolIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	before := reopen(t, dir)
	time.AfterFunc(5*lockPause, func() { _ = before.lock.Close() })
	check1(t, reopen(t, dir).close())
}

// A spool has a limit, is for one process, and keeps what others have put into
// its directory.
func TestSpoolLimits(t *testing.T) {
	dir := t.TempDir()
	check1(t, os.WriteFile(filepath.Join(dir, "notes.lines"), []byte("mine"), 0o600))
	s := reopen(t, dir)
	if _, err := openSpool(dir, 1, nil, nil); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("%v", err)
	}
	taken := 0
	for s.append(bytes.Repeat([]byte("x\n"), 5000)) {
		taken++
	}
	if want := 1 << 20 / (10000 + recordHeader); taken != want {
		t.Errorf("%d records, want %d", taken, want)
	}
	if len(drain(s)) != 10000*taken {
		t.Error("what was taken does not come out")
	}
	check1(t, s.close())
	if _, err := os.Stat(filepath.Join(dir, "notes.lines")); err != nil {
		t.Error(err)
	}
}

// Whatever stands in a segment's file, reading it ends, and gives whole records
// only.
func FuzzSpool(f *testing.F) {
	good := appendRecord(appendRecord(nil, []byte("one\n")), []byte("two\n"))
	f.Add(good, "4294967296 0\n")
	f.Add(good[:15], "4294967296 12\n4294967297 3\n")
	f.Add([]byte("\xff\xff\xff\xff\x00\x00\x00\x00"), "x")
	f.Fuzz(func(t *testing.T, segment []byte, position string) {
		dir := t.TempDir()
		for _, name := range []string{"00000000004294967296.lines", "00000000004294967297.lines"} {
			check1(t, os.WriteFile(filepath.Join(dir, name), segment, 0o600))
		}
		check1(t, os.WriteFile(filepath.Join(dir, "position"), []byte(position), 0o600))
		s := reopen(t, dir)
		if got := drain(s); len(got) > 2*len(segment) {
			t.Errorf("%d bytes of %d", len(got), len(segment))
		}
		check1(t, s.close())
	})
}
