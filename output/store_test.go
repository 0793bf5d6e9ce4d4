package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func opened(t *testing.T, limit int, path string) *Log {
	t.Helper()
	l, err := OpenLog(limit, path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// pump reads a pipe that is written to by write into the log, to its end.
func pump(t *testing.T, l *Log, stream Stream, write func(*os.File)) {
	t.Helper()
	loop, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	fd, err := unix.Dup(int(in.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	if err := loop.Add(fd, l, stream, func() { close(ended) }); err != nil {
		t.Fatal(err)
	}
	write(out)
	_ = out.Close()
	<-ended
}

func lines(l *Log) (out []string) {
	all, _ := l.Tail(-1, Both)
	for _, line := range all {
		out = append(out, line.Stream.String()+" "+string(line.Text))
	}
	return out
}

func TestKeptOutputOutlivesTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.0")
	l := opened(t, 0, path)
	pump(t, l, Stdout, func(f *os.File) { _, _ = f.WriteString("one\ntwo\n") })
	pump(t, l, Stderr, func(f *os.File) { _, _ = f.WriteString("not finished") })
	pump(t, l, Stdout, func(f *os.File) { _, _ = f.WriteString("three\n") })
	want := []string{"stdout one", "stdout two", "stderr not finished", "stdout three"}
	for _, log := range []*Log{l, opened(t, 0, path)} {
		if got := lines(log); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	second := opened(t, 0, path)
	pump(t, second, Stdout, func(f *os.File) { _, _ = f.WriteString("four\n") })
	if got := lines(opened(t, 0, path)); len(got) != 5 || got[4] != "stdout four" {
		t.Errorf("got %q", got)
	}
	second.Clear()
	if got := lines(opened(t, 0, path)); len(got) > 0 {
		t.Errorf("after Clear: %q", got)
	}
	second.Remove()
	if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
		t.Errorf("after Remove: %q", left)
	}
}

// The files never hold more than about the limit, and always the latest.
// A thousand programs that print nothing end without a file being made for any.
func TestNoOutputMakesNoFiles(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, 0, filepath.Join(dir, "web.0"))
	pump(t, l, Stdout, func(*os.File) {})
	if entries, err := os.ReadDir(dir); len(entries) > 0 || err != nil {
		t.Errorf("there are %v, %v", entries, err)
	}
	pump(t, l, Stdout, func(f *os.File) { _, _ = f.WriteString("one\n") })
	pump(t, l, Stdout, func(*os.File) {})
	if got := lines(l); len(got) != 1 || got[0] != "stdout one" {
		t.Errorf("got %q", got)
	}
	if entries, _ := os.ReadDir(dir); len(entries) == 0 {
		t.Error("what was printed is not in a file")
	}
}

func TestKeptOutputIsBounded(t *testing.T) {
	const limit = 16 << 10
	path := filepath.Join(t.TempDir(), "web.0")
	l := opened(t, limit, path)
	pump(t, l, Stdout, func(f *os.File) {
		for n := range 20_000 {
			_, _ = fmt.Fprintf(f, "line %d\n", n)
		}
	})
	var total int64
	files, _ := filepath.Glob(path + "*.data")
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > limit+2*readSize || total == 0 {
		t.Errorf("%d bytes in %q", total, files)
	}
	if got := lines(opened(t, limit, path)); len(got) == 0 || got[len(got)-1] != "stdout line 19999" {
		t.Errorf("%d lines, to %q", len(got), got[max(len(got)-1, 0):])
	}
}

const pumpEnv = "PM_TEST_PUMP"

// TestPump is a process that reads its descriptor 3 into a log until it is killed
// or that ends.
func TestPump(*testing.T) {
	path := os.Getenv(pumpEnv)
	if path == "" {
		return // it is no test
	}
	l, err := OpenLog(64<<20, path)
	if err != nil {
		panic(err)
	}
	loop, err := NewLoop()
	if err != nil {
		panic(err)
	}
	ended := make(chan struct{})
	if err := loop.Add(3, l, Stdout, func() { close(ended) }); err != nil {
		panic(err)
	}
	<-ended
	os.Exit(0)
}

// However often and whenever the reader of a pipe is killed, the next one goes
// on, and no line is lost, doubled or torn.
func TestKeptOutputSurvivesKills(t *testing.T) {
	const kills, count = 40, 800_000
	path := filepath.Join(t.TempDir(), "web.0")
	killPumps(t, kills, count, "TestPump", pumpEnv+"="+path)
	got := lines(opened(t, 64<<20, path))
	for n, line := range got {
		if line != "stdout "+strconv.Itoa(n) {
			t.Fatalf("line %d is %q, after %q", n, line, got[max(n-3, 0):n])
		}
	}
	if len(got) != count {
		t.Errorf("%d lines of %d", len(got), count)
	}
}

// On a full disk a log goes on in memory, and when there is room again all that it
// has is in the files.
func TestKeptOutputOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	path, filler := filepath.Join(dir, "web.0"), filepath.Join(dir, "filler")
	l := opened(t, 0, path)
	var want []string
	write := func(lines int) {
		pump(t, l, Stdout, func(f *os.File) {
			for range lines {
				want = append(want, "stdout "+strconv.Itoa(len(want)))
				_, _ = fmt.Fprintln(f, len(want)-1)
			}
		})
		pump(t, l, Stderr, func(f *os.File) { _, _ = f.WriteString("unfinished") })
		want = append(want, "stderr unfinished")
	}
	write(10)
	if err := os.WriteFile(filler, make([]byte, 256<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	write(2000)
	write(10)
	if got := lines(l); !slices.Equal(got, want) {
		t.Errorf("on a full disk: %d lines of %d", len(got), len(want))
	}
	if got := lines(opened(t, 0, path)); len(got) < 10 || len(got) >= len(want) {
		t.Errorf("the files hold %d lines of %d", len(got), len(want))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.store.again = time.Time{}
	l.mu.Unlock()
	write(10)
	write(10)
	for _, log := range []*Log{l, opened(t, 0, path)} {
		if got := lines(log); !slices.Equal(got, want) {
			t.Errorf("with room again: %d lines of %d", len(got), len(want))
		}
	}
}

// A mark of which only a part was written does not spoil those that follow.
func TestTornMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.0")
	pump(t, opened(t, 0, path), Stdout, func(f *os.File) { _, _ = f.WriteString("one\n") })
	index, err := os.OpenFile(path+".0.index", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = index.WriteString("half a")
	_ = index.Close()
	pump(t, opened(t, 0, path), Stderr, func(f *os.File) { _, _ = f.WriteString("two\n") })
	if got := lines(opened(t, 0, path)); !slices.Equal(got, []string{"stdout one", "stderr two"}) {
		t.Errorf("got %q", got)
	}
}

// Whatever an index holds, a log can be opened with it, and keeps no more than
// there is.
func FuzzReplay(f *testing.F) {
	f.Add([]byte("one\ntwo\n"), appendMark(appendMark(nil, mark{0, Stdout, false, 5}), mark{4, Stderr, true, 6}))
	f.Fuzz(func(t *testing.T, data, index []byte) {
		l := NewLog(0)
		replay(l, data, index)
		if l.next > uint64(len(data)*(len(index)/markSize)+len(index)) {
			t.Errorf("%d bytes of %d", l.next, len(data))
		}
	})
}

// An index that was damaged is told of, and cut off anywhere it gives what is left.
func TestDamagedIndex(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.0")
	for n := range 5 {
		pump(t, opened(t, 0, path), Stdout+Stream(n%2), func(f *os.File) { _, _ = fmt.Fprintln(f, n) })
	}
	file := path + ".0.index"
	index, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for size := range index {
		if err := os.WriteFile(file, index[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenLog(0, path)
		if got, marks := lines(l), max(0, size-headerSize)/markSize; err != nil || (len(got) == 5) != (marks > 0) {
			t.Errorf("cut at %d: %q, %v", size, got, err)
		}
	}
	index[headerSize+7] = 0x7f // a stream that there is not
	if err := os.WriteFile(file, index, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLog(0, path)
	if err == nil || !strings.Contains(err.Error(), file+" is damaged") {
		t.Errorf("error %v", err)
	}
	if got := lines(l); len(got) != 4 {
		t.Errorf("got %q", got)
	}
}
