package output

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk returns a directory that holds 4 MiB, of which all but 64 KiB are taken by the
// file filler.
func smallDisk(t *testing.T) (dir, filler string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	filler = filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 4<<20-64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, filler
}

// What a full disk does not take is dropped in whole lines, and counted to the last
// one; nobody waits.
func TestDropOnFullDisk(t *testing.T) {
	for name, options := range map[string]FileOptions{
		"raw": {}, "prefix": {Prefix: "> "}, "sizes": {Size: 20_000, Files: 99},
	} {
		t.Run(name, func(t *testing.T) {
			dir, filler := smallDisk(t)
			options.Drop = true
			transit := filepath.Join(t.TempDir(), "transit")
			told := make(chan Condition, 9)
			f := NewFile(filepath.Join(dir, "log"), transit, options, func(c Condition) { told <- c })
			const count = 200_000
			t.Run("print", func(t *testing.T) {
				w := into(t, f, "web")[0]
				printNumbers(w, 0, count)
				_, _ = w.WriteString(strings.Repeat("x", 1<<20) + "\n")
				if c := <-told; c.Problem == nil {
					t.Error("nothing is told of a full disk")
				}
				if err := os.Remove(filler); err != nil {
					t.Fatal(err)
				}
				printNumbers(w, count, count+1)
				if c := <-told; c.Problem != nil {
					t.Errorf("told %v", c.Problem)
				}
			})
			dropped := f.Condition().Dropped
			checkDropped(t, f.path, options.Prefix, count, dropped)
			if again := NewFile(f.path, transit, options, quiet).Condition().Dropped; again != dropped {
				t.Errorf("the next process knows of %+v, not %+v", again, dropped)
			}
		})
	}
}

// printNumbers prints numbered lines without looking where a line ends.
func printNumbers(w *os.File, from, to int) {
	var b bytes.Buffer
	for n := from; n < to; n++ {
		b.WriteString(strconv.Itoa(n) + "\n")
	}
	for part := b.Bytes(); len(part) > 0; {
		n := min(len(part), 4093)
		_, _ = w.Write(part[:n])
		part = part[n:]
	}
}

// checkDropped demands whole lines of growing numbers, up to the last, and that the
// others were counted. One more line was printed, of letters.
func checkDropped(t *testing.T, path, prefix string, last int, dropped Dropped) {
	t.Helper()
	data, _ := whole(t, path)
	lines, bytesOf, before := 0, 0, -1
	for line := range bytes.Lines(data) {
		text, ok := strings.CutPrefix(string(line), prefix)
		lines, bytesOf = lines+1, bytesOf+len(text)
		if strings.HasPrefix(text, "x") && len(text) == 1<<20+1 {
			continue
		}
		n, err := strconv.Atoi(strings.TrimSuffix(text, "\n"))
		if !ok || err != nil || n <= before || !strings.HasSuffix(text, "\n") {
			t.Fatalf("after %d comes %.100q", before, line)
		}
		before = n
	}
	total := 1<<20 + 1
	for n := range last + 1 {
		total += len(strconv.Itoa(n)) + 1
	}
	if before != last || lines+int(dropped.Lines) != last+2 || prefix == "" && bytesOf+int(dropped.Bytes) != total {
		t.Errorf("the last line is %d; %d lines of %d bytes are there and %+v dropped, of %d lines of %d bytes", before, lines, bytesOf, dropped, last+2, total)
	}
	if dropped.Lines == 0 {
		t.Error("nothing was dropped")
	}
}
