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
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	small := old
	small.Cur = uint64(len(data) + 3)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &small); err != nil {
		t.Fatal(err)
	}
	j.Add([]byte("two"))
	failed := j.Commit()
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
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
