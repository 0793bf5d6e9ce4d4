package output

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func writeFile(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTailFile(t *testing.T) {
	long := strings.Repeat("x", fileBlock-1)
	path := filepath.Join(t.TempDir(), "log")
	tests := []struct {
		name, data string
		n          int
		want       []string
	}{
		{"empty", "", 5, nil},
		{"empty, all", "", -1, nil},
		{"all", "a\nb\n", -1, []string{"-:a", "-:b"}},
		{"last", "a\nb\n", 1, []string{"-:b"}},
		{"none", "a\nb\n", 0, nil},
		{"as many as there are", "a\nb\n", 2, []string{"-:a", "-:b"}},
		{"more than there are", "a\nb\n", 3, []string{"-:a", "-:b"}},
		{"unfinished", "a\nb", 1, []string{"-:b~"}},
		{"empty lines", "a\n\n\n", 2, []string{"-:", "-:"}},
		{"only a newline", "\n", 1, []string{"-:"}},
		{"newline at the edge of a block", "a\n" + long + "\n", 1, []string{"-:" + long}},
		{"line over two blocks", "a\n" + long + "yz\n", 2, []string{"-:a", "-:" + long + "y~", "-:z"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			writeFile(t, path, test.data)
			lines, place, err := TailFile(path, test.n)
			if err != nil {
				t.Fatal(err)
			}
			wantLines(t, lines, test.want...)
			if place.Read[0] != uint64(len(test.data)) {
				t.Errorf("place %v, want %d bytes", place, len(test.data))
			}
		})
	}
}

// TestTailFileAgrees compares reading backwards with reading everything.
func TestTailFileAgrees(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		data := randomBytes(r, r.IntN(3*fileBlock))
		writeFile(t, path, string(data))
		all, _, err := TailFile(path, -1)
		if err != nil {
			t.Fatal(err)
		}
		if string(join(all)) != string(data) {
			t.Fatalf("seed %d: the lines do not stand for the file", seed)
		}
		n := r.IntN(len(all) + 5)
		some, _, err := TailFile(path, n)
		if err != nil {
			t.Fatal(err)
		}
		want := all[max(0, len(all)-n):]
		if fmt.Sprint(show(some)) != fmt.Sprint(show(want)) {
			t.Fatalf("seed %d: the last %d of %d lines differ", seed, n, len(all))
		}
	}
}

func TestTailFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = maxTail + 1000 // sparse: NULs without a newline
	if _, err := f.WriteAt([]byte("\nend\n"), size-5); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{-1, 2} {
		lines, _, err := TailFile(path, n)
		if err != nil {
			t.Fatal(err)
		}
		if lines[0].Lost != 1000 || string(lines[len(lines)-1].Text) != "end" {
			t.Errorf("%d lines: first %+v", n, lines[0])
		}
		if got := len(join(lines[1:])); got != maxTail {
			t.Errorf("%d lines: %d bytes", n, got)
		}
	}
}

func TestTailFileRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo, filepath.Join(dir, "missing")} {
		_, _, err := TailFile(path, 1)
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// fileFollower is a FollowFile at work.
type fileFollower struct {
	t      *testing.T
	lines  chan Line
	ended  chan error
	cancel context.CancelFunc
}

func followFile(t *testing.T, path string, from Place) *fileFollower {
	ctx, cancel := context.WithCancel(t.Context())
	f := &fileFollower{t, make(chan Line), make(chan error, 1), cancel}
	go func() { // ends when the context does
		f.ended <- FollowFile(ctx, path, from, func(l Line) error {
			select {
			case f.lines <- l:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	t.Cleanup(f.stop)
	return f
}

func (f *fileFollower) stop() {
	f.cancel()
	select {
	case err := <-f.ended:
		if !errors.Is(err, context.Canceled) {
			f.t.Errorf("following ended with %v", err)
		}
		f.ended <- err
	case <-time.After(patience):
		f.t.Errorf("following did not end")
	}
}

func (f *fileFollower) expect(want ...string) {
	f.t.Helper()
	for _, w := range want {
		select {
		case l := <-f.lines:
			wantLines(f.t, []Line{l}, w)
		case err := <-f.ended:
			f.t.Fatalf("following ended with %v instead of %q", err, w)
		case <-time.After(patience):
			f.t.Fatalf("no line; want %q", w)
		}
	}
}

func appendFile(t *testing.T, path, data string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write(t, f, data)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestFollowFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	writeFile(t, path, "seen\n")
	_, place, err := TailFile(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	f := followFile(t, path, place)
	appendFile(t, path, "a\nb")
	f.expect("-:a")
	appendFile(t, path, "c\n")
	f.expect("-:bc")
	appendFile(t, path, "unfinished")
	appendFile(t, filepath.Join(filepath.Dir(path), "other"), "not ours\n")
	appendFile(t, path, "\n")
	f.expect("-:unfinished")
}

func TestFollowFileTruncated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	writeFile(t, path, "a long first line\n")
	f := followFile(t, path, Place{})
	f.expect("-:a long first line")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	appendFile(t, path, "new\n")
	f.expect("-:new")
	appendFile(t, path, "and more\n")
	f.expect("-:and more")
}

func TestFollowFileFromBeyondItsEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	writeFile(t, path, "what was there before\n")
	_, place, err := TailFile(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, "a\n")
	followFile(t, path, place).expect("-:[output may be missing here]", "-:a")
}

func TestFollowFileRotated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	writeFile(t, path, "")
	f := followFile(t, path, Place{})
	for i := range 20 {
		old := fmt.Sprintf("%s.%d", path, i)
		appendFile(t, path, fmt.Sprintf("%d before\n", i))
		f.expect(fmt.Sprintf("-:%d before", i))
		rename(t, path, old)
		writeFile(t, path, "")
		// The writer has not noticed yet, and stops in the middle of a line.
		appendFile(t, old, fmt.Sprintf("%d late\n%d cut", i, i))
		appendFile(t, path, fmt.Sprintf("%d new\n", i))
		f.expect(fmt.Sprintf("-:%d late", i), fmt.Sprintf("-:%d cut~!", i), fmt.Sprintf("-:%d new", i))
	}
}

func TestFollowFileThatComesLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f := followFile(t, path, Place{})
	appendFile(t, path, "a\n")
	f.expect("-:a")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	appendFile(t, path, "b\n")
	f.expect("-:b")
}

func TestFollowFileInADirectoryThatComesLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	f := followFile(t, filepath.Join(dir, "log"), Place{})
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	appendFile(t, filepath.Join(dir, "log"), "a\n")
	f.expect("-:a")
}

func TestFollowFileThroughASymlink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "current")
	writeFile(t, filepath.Join(dir, "one"), "a\n")
	writeFile(t, filepath.Join(dir, "two"), "b\n")
	link := func(target string) {
		if err := os.Symlink(target, path+".new"); err != nil {
			t.Fatal(err)
		}
		rename(t, path+".new", path)
	}
	link("one")
	f := followFile(t, path, Place{})
	f.expect("-:a")
	link("two")
	f.expect("-:b")
}

func TestFollowFileFails(t *testing.T) {
	dir := t.TempDir()
	if err := FollowFile(t.Context(), dir, Place{}, nil); err == nil || !strings.Contains(err.Error(), "cannot follow") {
		t.Errorf("a directory: %v", err)
	}
	path := filepath.Join(dir, "log")
	writeFile(t, path, "a\n")
	fault := errors.New("fault")
	if err := FollowFile(t.Context(), path, Place{}, func(Line) error { return fault }); !errors.Is(err, fault) {
		t.Errorf("fn's error: %v", err)
	}
}

// TestFollowFileBlind follows without inotify, as when all of the user's
// instances are in use.
func TestFollowFileBlind(t *testing.T) {
	w := &watcher{path: "nowhere", dir: -1, file: -1, before: -1}
	w.watch()
	if err := w.wait(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.wait(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestFollowFileFromWhereverItWas is interrupted after each line, while the file is
// rotated more often than anybody looks.
func TestFollowFileFromWhereverItWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	const files, each = 6, 3
	rotate := func(n int) {
		for i := files; i > 0; i-- {
			_ = os.Rename(fmt.Sprintf("%s.%d", path, i), fmt.Sprintf("%s.%d", path, i+1))
		}
		if n > 0 {
			rename(t, path, path+".1")
		}
		for i := range each {
			appendFile(t, path, fmt.Sprintf("%d\n", n*each+i))
		}
	}
	rotate(0)
	var place Place
	for n := range files * each {
		if n == 1 {
			for f := 1; f < files; f++ {
				rotate(f)
			}
		}
		f := followFile(t, path, place)
		select {
		case l := <-f.lines:
			wantLines(t, []Line{l}, fmt.Sprintf("-:%d", n))
			place = l.Place
		case <-time.After(patience):
			t.Fatalf("no line %d", n)
		}
		f.stop()
	}
	// What is under a name of another kind is another file.
	writeFile(t, path+".err", "not ours\n")
	f := followFile(t, path, place)
	appendFile(t, path, "last\n")
	f.expect("-:last")
	f.stop()
	// The file is gone with all that was in it.
	writeFile(t, path+".new", "new\n")
	rename(t, path+".new", path)
	followFile(t, path, place).expect("-:[output may be missing here]", "-:new")
}
