package output

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// into reads pipes into a file, and returns their writing ends. At the end of the
// test all are read to their ends.
func into(t *testing.T, f *File, instances ...string) []*os.File {
	t.Helper()
	loop, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	var writers []*os.File
	var ended []chan struct{}
	for _, name := range instances {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		if err := loop.AddFile(p[0], f, name, Stdout, func() { close(done) }); err != nil {
			t.Fatal(err)
		}
		writers, ended = append(writers, os.NewFile(uintptr(p[1]), name)), append(ended, done)
	}
	t.Cleanup(func() {
		for n, w := range writers {
			_ = w.Close()
			<-ended[n]
		}
		loop.Close()
	})
	return writers
}

// through prints text through a pipe into a file, to its end.
func through(t *testing.T, f *File, text ...string) {
	t.Helper()
	t.Run("print", func(t *testing.T) {
		w := into(t, f, "web")[0]
		for _, part := range text {
			if _, err := w.WriteString(part); err != nil {
				t.Error(err)
			}
		}
	})
}

func quiet(Condition) {}

// whole returns what all files of path hold, the oldest first.
func whole(t *testing.T, path string) (data []byte, files int) {
	t.Helper()
	list, err := settled(path)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{path}
	for _, o := range list {
		names = append(names, o.path(path))
	}
	for n := len(names) - 1; n >= 0; n-- {
		b, err := os.ReadFile(names[n])
		if err == nil && strings.HasSuffix(names[n], ".gz") {
			b, err = gunzip(b)
		}
		if err != nil && n > 0 {
			t.Fatal(err)
		}
		data = append(data, b...)
	}
	return data, len(names)
}

// tree returns what stands in a directory: "name: content".
func tree(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%s: %q", e.Name(), b))
	}
	return list
}

func checkTree(t *testing.T, dir string, want ...string) {
	t.Helper()
	if got := tree(t, dir); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A file is rotated between two lines, before it gets too long.
func TestRotateBySize(t *testing.T) {
	dir := t.TempDir()
	f := NewFile(filepath.Join(dir, "log"), "", FileOptions{Size: 10, Files: 2}, quiet)
	through(t, f, "1\n2\n3\n4\n5\n6\n")
	checkTree(t, dir, `log: "6\n"`, `log.1: "1\n2\n3\n4\n5\n"`)
	through(t, f, "seven\n") // fits
	checkTree(t, dir, `log: "6\nseven\n"`, `log.1: "1\n2\n3\n4\n5\n"`)
	through(t, f, "line that is longer than a file\n8\n")
	checkTree(t, dir, `log: "8\n"`, `log.1: "line that is longer than a file\n"`, `log.2: "6\nseven\n"`)
	through(t, f, "not finished", " yet\n", "9\n")
	checkTree(t, dir, `log: "9\n"`, `log.1: "not finished yet\n"`, `log.2: "8\n"`)
}

// What is not finished when a program ends stays as it is, and so do all bytes.
func TestFileKeepsBytes(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	f := NewFile(path, "", FileOptions{Size: 1 << 20, Files: 9}, quiet)
	through(t, f, "\x00\xff\xfe\n\n\r\nend")
	checkTree(t, dir, `log: "\x00\xff\xfe\n\n\r\nend"`)
	long := strings.Repeat("x", 5<<20)
	through(t, f, "of line\n", long, "\nlast")
	got, files := whole(t, path)
	if want := "\x00\xff\xfe\n\n\r\nendof line\n" + long + "\nlast"; string(got) != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	if files != 2 {
		t.Errorf("%d files", files)
	}
}

// Numbers that are missing, as after a kill, are filled; no file is replaced.
func TestRotateFillsGaps(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	for _, name := range []string{"log", "log.1", "log.2.gz", "log.4", "log.old", "log.01"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := NewFile(path, "", FileOptions{Files: 9}, quiet)
	if err := os.WriteFile(path, []byte("log\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := f.Rotate(); err != nil {
		t.Fatal(err)
	}
	through(t, f, "new\n")
	checkTree(t, dir, `log: "new\n"`, `log.01: "log.01"`, `log.1: "log\n"`, `log.2: "log.1"`, `log.3.gz: "log.2.gz"`,
		`log.4: "log.4"`, `log.old: "log.old"`)
	f.Set(FileOptions{Files: 3})
	if err := f.Rotate(); err != nil {
		t.Fatal(err)
	}
	checkTree(t, dir, `log: ""`, `log.01: "log.01"`, `log.1: "new\n"`, `log.2: "log\n"`, `log.3: "log.1"`, `log.old: "log.old"`)
	if err := f.Rotate(); err != nil { // an empty one is not rotated
		t.Fatal(err)
	}
	checkTree(t, dir, `log: ""`, `log.01: "log.01"`, `log.1: "new\n"`, `log.2: "log\n"`, `log.3: "log.1"`, `log.old: "log.old"`)
	f.Set(FileOptions{Files: 9, Size: 4, Total: 12})
	through(t, f, "12\n", "123\n", "1234\n")
	checkTree(t, dir, `log: "1234\n"`, `log.01: "log.01"`, `log.1: "123\n"`, `log.2: "12\n"`, `log.old: "log.old"`)
}

// A file holds the lines of one period.
func TestRotateByAge(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	if err := os.WriteFile(path, []byte("old\nno end"), 0o600); err != nil {
		t.Fatal(err)
	}
	yesterday := time.Now().Add(-24 * time.Hour)
	if err := os.Chtimes(path, yesterday, yesterday); err != nil {
		t.Fatal(err)
	}
	f := NewFile(path, "", FileOptions{Age: 24 * time.Hour, Files: 5}, quiet)
	through(t, f, " yet\nnew\n")
	// The rest of the line made the file one of today: the period is that of the
	// last line.
	checkTree(t, dir, `log: "old\nno end yet\nnew\n"`)
	if err := os.Chtimes(path, yesterday, yesterday); err != nil {
		t.Fatal(err)
	}
	f.Reopen()
	through(t, f, "newer\n")
	checkTree(t, dir, `log: "newer\n"`, `log.1: "old\nno end yet\nnew\n"`)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// Programs that share a file get whole lines into it.
func TestSharedFile(t *testing.T) {
	const count = 30_000
	path := filepath.Join(t.TempDir(), "log")
	f := NewFile(path, "", FileOptions{Size: 100_000, Files: 1000}, quiet)
	t.Run("print", func(t *testing.T) {
		done := make(chan struct{})
		writers := into(t, f, "a", "b", "c")
		for n, w := range writers {
			go func() { // ends when all is written
				defer func() { done <- struct{}{} }()
				for i := range count {
					text := fmt.Sprintf("%c%d\n", 'a'+n, i)
					_, _ = w.WriteString(text[:2])
					_, _ = w.WriteString(text[2:])
				}
			}()
		}
		for range writers {
			<-done
		}
	})
	got, files := whole(t, path)
	if files < 5 {
		t.Errorf("%d files", files)
	}
	next := map[byte]int{}
	for line := range bytes.Lines(got) {
		if want := fmt.Sprintf("%c%d\n", line[0], next[line[0]]); string(line) != want {
			t.Fatalf("line %q, want %q", line, want)
		}
		next[line[0]]++
	}
	for _, name := range []byte("abc") {
		if next[name] != count {
			t.Errorf("%d lines of %c", next[name], name)
		}
	}
}

// A line that is not finished is seen when its program ends, and holds up nobody.
func TestSharedFileUnfinished(t *testing.T) {
	dir := t.TempDir()
	f := NewFile(filepath.Join(dir, "log"), "", FileOptions{}, quiet)
	t.Run("print", func(t *testing.T) {
		w := into(t, f, "a", "b")
		_, _ = w[0].WriteString("no end")
		_, _ = w[1].WriteString("one\n")
		for len(tree(t, dir)) == 0 || tree(t, dir)[0] != `log: "one\n"` {
			<-time.After(time.Millisecond)
		}
	})
	checkTree(t, dir, `log: "one\nno end"`)
}

// Somebody may empty the file, or take it away.
func TestFileOfOthers(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	f := NewFile(path, "", FileOptions{Size: 1000}, quiet)
	through(t, f, "one\n")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	through(t, f, "two\n")
	checkTree(t, dir, `log: "two\n"`)
	if err := os.Rename(path, path+"-away"); err != nil {
		t.Fatal(err)
	}
	through(t, f, "three\n")
	f.Reopen()
	through(t, f, "four\n")
	checkTree(t, dir, `log: "four\n"`, `log-away: "two\nthree\n"`)
}

// What cannot be written waits, and is told once.
func TestFileCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	told := make(chan error, 10)
	f := NewFile(filepath.Join(dir, "sub", "log"), "", FileOptions{}, func(c Condition) { told <- c.Problem })
	t.Run("print", func(t *testing.T) {
		w := into(t, f, "web")[0]
		_, _ = w.WriteString("one\n")
		if err := <-told; err == nil || !strings.HasPrefix(err.Error(), "cannot write "+dir) {
			t.Errorf("told %v", err)
		}
		if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := <-told; err != nil {
			t.Errorf("told %v", err)
		}
	})
	checkTree(t, filepath.Join(dir, "sub"), `log: "one\n"`)
}

const (
	fileEnv   = "PM_TEST_FILE"
	fileFiles = 10_000
)

// TestFilePump is a process that reads its descriptor 3 into a rotated file until
// it is killed or that ends.
func TestFilePump(*testing.T) {
	path := os.Getenv(fileEnv)
	if path == "" {
		return // it is no test
	}
	pumpInto(NewFile(path, "", FileOptions{Size: 200_000, Files: fileFiles}, func(c Condition) { fmt.Fprintln(os.Stderr, c.Problem) }))
}

// pumpInto reads descriptor 3 into a file, and ends with it.
func pumpInto(f *File) {
	loop, err := NewLoop()
	if err != nil {
		panic(err)
	}
	ended := make(chan struct{})
	if err := loop.AddFile(3, f, "web", Stdout, func() { close(ended) }); err != nil {
		panic(err)
	}
	<-ended
	os.Exit(0)
}

// numbers writes so many lines, each its number, into w, and closes it. written is how
// many are.
func numbers(w *os.File, count int, written *atomic.Int64) {
	var b bytes.Buffer
	for n := range count {
		fmt.Fprintf(&b, "%d\n", n)
		if n%37 == 0 {
			_, _ = w.Write(b.Bytes())
			b.Reset()
			written.Store(int64(n))
		}
	}
	_, _ = w.Write(b.Bytes())
	_ = w.Close()
	written.Store(int64(count))
}

// killPumps writes so many numbers into a pipe, and lets processes that run the named
// test read it one after the other: each is killed at some instant while it works, the
// last ends with the pipe.
func killPumps(t *testing.T, kills, count int, test string, env ...string) {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var written atomic.Int64
	go numbers(out, count, &written) // ends when all is read
	start := func() (*exec.Cmd, <-chan error) {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+test+"$")
		cmd.Env, cmd.ExtraFiles, cmd.Stderr = append(os.Environ(), env...), []*os.File{in}, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }() // ends with the process
		return cmd, ended
	}
	for range kills {
		pump, ended := start()
		// What is written tells how far it has got, since the pipe is full. Two in three
		// of all lines are read by those that are killed.
		target := min(written.Load()+rand.Int64N(int64(count/kills*4/3)), int64(count))
		for written.Load() < target && len(ended) == 0 {
			<-time.After(time.Millisecond)
		}
		_ = pump.Process.Kill()
		<-ended
	}
	_, ended := start()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// checkNumbers demands that all files of path hold what numbers has written, and
// returns how many there are.
func checkNumbers(t *testing.T, path string, count int) (files int) {
	t.Helper()
	got, files := whole(t, path)
	n := 0
	for line := range bytes.Lines(got) {
		if string(line) != strconv.Itoa(n)+"\n" {
			t.Fatalf("line %d is %q", n, line)
		}
		n++
	}
	if n != count {
		t.Errorf("%d lines of %d", n, count)
	}
	return files
}

// However often and whenever the writer of a file is killed, no line is lost,
// doubled or torn, nor is a file.
func TestFileSurvivesKills(t *testing.T) {
	const kills, count = 40, 800_000
	path := filepath.Join(t.TempDir(), "log")
	killPumps(t, kills, count, "TestFilePump", fileEnv+"="+path)
	if files := checkNumbers(t, path, count); files < 20 {
		t.Errorf("%d files", files)
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
