package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

const magic = "test journal 1"

// write makes a journal of the given records and returns its path and bytes.
func write(t *testing.T, records ...string) (string, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	j, old := open(t, path)
	if len(old) > 0 {
		t.Fatalf("a new journal holds %q", old)
	}
	for _, r := range records {
		j.Add([]byte(r))
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, data
}

func open(t *testing.T, path string) (*Journal, []string) {
	t.Helper()
	j, records, err := Open(path, magic)
	if err != nil {
		t.Fatal(err)
	}
	return j, texts(records)
}

func texts(records [][]byte) (out []string) {
	for _, r := range records {
		out = append(out, string(r))
	}
	return out
}

func TestRecordsSurvive(t *testing.T) {
	path, _ := write(t, "one", "", "three\x00\n")
	j, got := open(t, path)
	if want := []string{"one", "", "three\x00\n"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	j.Add([]byte("four"))
	if err := j.Commit(); err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	if _, got = open(t, path); len(got) != 4 {
		t.Errorf("after one more: %q", got)
	}
}

// Memory is given back at any moment, and nothing that waits is lost by it.
func TestTrim(t *testing.T) {
	path, _ := write(t)
	j, _ := open(t, path)
	j.Add([]byte("one"))
	j.Trim()
	j.Add([]byte("two"))
	if err := j.Commit(); err != nil {
		t.Fatal(err)
	}
	if j.Trim(); j.buffer != nil {
		t.Errorf("a buffer of %d bytes is kept", cap(j.buffer))
	}
	j.Add([]byte("three"))
	if err := errors.Join(j.Commit(), j.Close()); err != nil {
		t.Fatal(err)
	}
	if _, got := open(t, path); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("it holds %q", got)
	}
}

// A crash at any byte leaves the records that were whole, and a journal that
// takes new ones.
func TestCutAtEveryByte(t *testing.T) {
	records := []string{"one", "twenty-two", "three"}
	_, data := write(t, records...)
	for size := range len(data) + 1 {
		path := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(path, data[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		j, got := open(t, path)
		if len(got) > len(records) || !slices.Equal(got, records[:len(got)]) {
			t.Fatalf("cut at %d: %q", size, got)
		}
		if size == len(data) && len(got) != len(records) {
			t.Fatalf("the whole journal: %q", got)
		}
		j.Add([]byte("new"))
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
		_ = j.Close()
		if _, after := open(t, path); !slices.Equal(after, append(got, "new")) {
			t.Fatalf("cut at %d, then one more: %q", size, after)
		}
	}
}

// A block that was never written reads as zeros.
func TestZerosAtTheEndAreTorn(t *testing.T) {
	path, data := write(t, "one", "two")
	if err := os.WriteFile(path, append(data, make([]byte, 5000)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, got := open(t, path); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("got %q", got)
	}
}

func TestDamageIsSetAside(t *testing.T) {
	for name, harm := range map[string]func([]byte) []byte{
		"a flipped bit":   func(b []byte) []byte { b[len(magic)+12] ^= 1; return b },
		"another version": func(b []byte) []byte { b[len(magic)-1] = '9'; return b },
		"foreign":         func([]byte) []byte { return []byte("hello, I am no journal at all, but long enough") },
		"short, foreign":  func([]byte) []byte { return []byte("hi") },
		"a huge length":   func(b []byte) []byte { b[len(magic)+4] = 0xff; return b },
	} {
		t.Run(name, func(t *testing.T) {
			path, data := write(t, "one", "two")
			data = harm(bytes.Clone(data))
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			j, _, err := Open(path, magic)
			var damage *Damage
			if !errors.As(err, &damage) {
				t.Fatalf("error %v", err)
			}
			if kept, err := os.ReadFile(damage.Aside); err != nil || !bytes.Equal(kept, data) {
				t.Errorf("set aside: %q, %v", kept, err)
			}
			j.Add([]byte("new"))
			if err := j.Commit(); err != nil {
				t.Fatal(err)
			}
			_ = j.Close()
			if _, got := open(t, path); len(got) == 0 || got[len(got)-1] != "new" {
				t.Errorf("after the damage: %q", got)
			}
		})
	}
}

func TestRewriteForgetsTheOld(t *testing.T) {
	path, _ := write(t, "one")
	j, _ := open(t, path)
	for n := range 100_000 {
		j.Add(fmt.Appendf(nil, "record %d", n))
	}
	if err := j.Commit(); err != nil {
		t.Fatal(err)
	}
	if !j.Full() {
		t.Fatal("not full")
	}
	_ = j.Close()
	j, _ = open(t, path)
	if j.Full() {
		t.Fatal("full, and nobody has said that records are outdated")
	}
	if j.Counts(1000); !j.Full() {
		t.Fatal("not full of outdated records")
	}
	if err := j.Rewrite([][]byte{[]byte("all")}); err != nil {
		t.Fatal(err)
	}
	if j.Full() {
		t.Error("full after it was written anew")
	}
	if err := Sync(j.File()); err != nil {
		t.Error(err)
	}
	_ = j.Close()
	if _, got := open(t, path); !slices.Equal(got, []string{"all"}) {
		t.Errorf("got %q", got)
	}
}

// A full disk loses nothing: what could not be written is written later, and no
// half record stays between.
func TestFullDisk(t *testing.T) {
	path, data := write(t, "one")
	j, _ := open(t, path)
	var failed error
	onFullDisk(t, len(data)+3, func() {
		j.Add([]byte("two"))
		failed = j.Commit()
	})
	if failed == nil {
		t.Error("no error on a full disk")
	}
	j.Add([]byte("three"))
	if err := j.Commit(); err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	if _, got := open(t, path); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("got %q", got)
	}
}

// onFullDisk calls do while no file can grow beyond a size.
func onFullDisk(t *testing.T, size int, do func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	small := old
	small.Cur = uint64(size)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &small); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
	}()
	do()
}

// A journal can be opened on a full disk, damaged or new: what it is to hold is
// written when there is room.
func TestOpenOnFullDisk(t *testing.T) {
	for name, damaged := range map[string]bool{"damaged": true, "new": false} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			want := []string{"more"}
			if damaged {
				var data []byte
				path, data = write(t, "one", "two")
				data[len(data)-7] ^= 1 // the checksum of "two"
				data = append(data, appendRecord(nil, []byte("three"))...)
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
				want = []string{"one", "three", "more"}
			}
			var j *Journal
			onFullDisk(t, 4, func() {
				var err error
				var damage *Damage
				if j, _, err = Open(path, magic); j == nil || damaged != errors.As(err, &damage) {
					t.Fatalf("opened as %v: %v", j, err)
				}
				j.Add([]byte("more"))
				if j.Commit() == nil {
					t.Error("no error on a full disk")
				}
				if err := Sync(j.File()); err != nil {
					t.Error(err)
				}
			})
			if err := j.Commit(); err != nil {
				t.Fatal(err)
			}
			_ = j.Close()
			if _, got := open(t, path); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// A journal has room beforehand, so that a disk that is filled does not stop it
// at once. The room stays when it is opened again.
func TestRoomOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	j, _ := open(t, filepath.Join(dir, "state"))
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	record := bytes.Repeat([]byte("x"), 10_000)
	for range 12 {
		j.Add(record)
		if err := j.Commit(); err != nil {
			t.Fatal(err)
		}
		_ = j.Close()
		j, _ = open(t, filepath.Join(dir, "state"))
	}
	_ = j.Close()
}

// Whatever byte of a file is damaged, only the record that it is in is lost, and
// the damage is told.
func TestOnlyTheDamagedRecordIsLost(t *testing.T) {
	want := []string{"one", "a second record, which is longer", "three", "\x00\x01\x02", "five"}
	_, data := write(t, want...)
	for at := range data {
		for _, flip := range []byte{1, 0x80, 0xff} {
			damaged := bytes.Clone(data)
			damaged[at] ^= flip
			records, good, fault := parse(damaged, magic+"\n")
			got := texts(records)
			hit := recordAt(want, at)
			left := slices.Clone(want)
			switch {
			case hit >= 0:
				left = slices.Delete(left, hit, hit+1)
			case at == len(magic)-1 && flip == 1: // it is another version now
				left = nil
			}
			if !slices.Equal(got, left) {
				t.Errorf("byte %d changed by %#x: got %q", at, flip, got)
			}
			if fault == "" && hit != len(want)-1 || good > at {
				t.Errorf("byte %d changed by %#x: told as %q at %d", at, flip, fault, good)
			}
		}
	}
}

// A commit is there as a whole or not at all, wherever its writing was cut short;
// a length that was damaged is told from that by what follows.
func TestCommitIsWhole(t *testing.T) {
	path, before := write(t, "one")
	j, _ := open(t, path)
	for _, r := range []string{"two", "", "three"} {
		j.Add([]byte(r))
	}
	if err := j.Commit(); err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := len(before); size < len(data); size++ {
		records, good, fault := parse(data[:size], magic+"\n")
		if len(records) != 1 || good != len(before) || fault != "" {
			t.Errorf("cut at %d: %q, good to %d, %q", size, texts(records), good, fault)
		}
	}
	all := []string{"one", "two", "", "three"}
	if records, _, fault := parse(data, magic+"\n"); !slices.Equal(texts(records), all) || fault != "" {
		t.Errorf("whole: %q, %q", texts(records), fault)
	}
	damaged := append(bytes.Clone(data), data[len(before):]...)
	damaged[len(before)+1] = 1 // it now seems to end after the file
	records, good, fault := parse(damaged, magic+"\n")
	if want := append(all, all[1:]...); !slices.Equal(texts(records), want) || fault == "" || good != len(before) {
		t.Errorf("damaged: %q, good to %d, %q", texts(records), good, fault)
	}
}

// recordAt returns which of the records the byte of the file is in; -1: none.
func recordAt(records []string, at int) int {
	end := len(magic) + 1
	for n, r := range records {
		if at < end {
			return n - 1
		}
		end += headerSize + len(r)
	}
	return len(records) - 1
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(magic + "\n" + "\x03\x00\x00\x00abcdone"))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, good, _ := parse(data, magic+"\n")
		size := 0
		for _, r := range records {
			size += len(r)
		}
		if size > len(data) || good > len(data) {
			t.Errorf("%d bytes of records, %d good, of %d", size, good, len(data))
		}
	})
}
