package output

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestFormat(t *testing.T) {
	warsaw, err := time.LoadLocation("Europe/Warsaw")
	if err != nil {
		t.Skip(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC)
	for _, c := range []struct {
		name    string
		options FileOptions
		text    string
		room    int64
		midLine bool
		want    string
		used    int
	}{
		{"time", FileOptions{Timestamps: time.UTC}, "a\nb\n", 99, false, "2026-01-02T03:04:05.678Z a\n2026-01-02T03:04:05.678Z b\n", 4},
		{"zone", FileOptions{Timestamps: warsaw}, "a\n", 99, false, "2026-01-02T04:04:05.678+01:00 a\n", 2},
		{"prefix", FileOptions{Prefix: "{instance}/{stream}: "}, "a\n\n\x00\xff", 99, false, "web:1/stderr: a\nweb:1/stderr: \nweb:1/stderr: \x00\xff", 5},
		{"both", FileOptions{Prefix: "> ", Timestamps: time.UTC}, "a\n", 99, false, "2026-01-02T03:04:05.678Z > a\n", 2},
		{"rest of a line", FileOptions{Prefix: "> "}, "a\nb\n", 99, true, "a\n> b\n", 4},
		{"no room", FileOptions{Prefix: "> "}, "a\nb\nc\n", 9, false, "> a\n> b\n", 4},
		{"no room at all", FileOptions{Prefix: "> "}, "a\nb\n", -5, false, "> a\n", 2},
		{
			"JSON",
			FileOptions{JSON: true},
			"<a>\n\"\xff", 999, false,
			`{"time":"2026-01-02T03:04:05.678Z","instance":"web:1","stream":"stderr","line":"<a>"}` + "\n" +
				`{"time":"2026-01-02T03:04:05.678Z","instance":"web:1","stream":"stderr","line":"\"` + "\uFFFD" + `","base64":"Iv8=","partial":true}` + "\n", 6,
		},
	} {
		b := parcel{[]byte(c.text), at, "web:1", Stderr}
		if text, used := c.options.format(b, c.room, c.midLine); string(text) != c.want || used != c.used {
			t.Errorf("%s: got %d, %s", c.name, used, text)
		}
	}
}

// Lines that come in pieces are one line; one that stays unfinished is ended.
func TestPrefix(t *testing.T) {
	dir := t.TempDir()
	f := NewFile(filepath.Join(dir, "log"), "", FileOptions{Prefix: "{instance}: ", Size: 40, Files: 9}, quiet)
	through(t, f, "one\ntw", "o\nno end")
	through(t, f, "three\nfour\nfive\n")
	checkTree(t, dir, `log: "web: three\nweb: four\nweb: five\n"`, `log.1: "web: one\nweb: two\nweb: no end\n"`)
	long := strings.Repeat("x", 3<<20)
	through(t, f, long, "\n")
	if got, _ := whole(t, f.path); !bytes.HasSuffix(got, []byte("web: five\nweb: "+long+"\n")) {
		t.Errorf("%d bytes", len(got))
	}
}

// Each line of a JSON file is an object, whatever was printed.
func TestJSONLines(t *testing.T) {
	dir := t.TempDir()
	f := NewFile(filepath.Join(dir, "log"), "", FileOptions{JSON: true}, quiet)
	through(t, f, "one\ntw", "o\nno end")
	long := strings.Repeat("x", 3<<20)
	through(t, f, long, "\n")
	data, _ := whole(t, f.path)
	var got []string
	joined, open := "", false
	for line := range bytes.Lines(data) {
		var j jsonLine
		if err := json.Unmarshal(line, &j); err != nil {
			t.Fatalf("%v: %.100s", err, line)
		}
		if len(got) == 2 && !open && j.Partial { // what stays unfinished
			got, open = append(got, j.Line), true
			continue
		}
		if joined += j.Line; !j.Partial {
			got, joined = append(got, joined), ""
		}
	}
	if want := []string{"one", "two", "no end", long}; strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%d lines, %.200q", len(got), got)
	}
}

func FuzzHead(f *testing.F) {
	f.Add(uint64(1), int64(2), int64(3), "web", byte(1))
	f.Fuzz(func(t *testing.T, inode uint64, offset, size int64, instance string, stream byte) {
		d := head{inode: inode, offset: offset, size: size, parcel: parcel{at: time.Unix(5, 6), instance: instance, stream: Stream(stream)}}
		b := d.bytes()
		got := readHead(b)
		d.parcel.instance = instance[:min(len(instance), 255)]
		if len(b) != headSize || fmt.Sprint(got) != fmt.Sprint(d) {
			t.Errorf("got %+v, want %+v", got, d)
		}
	})
}

// TestPrefixPump is a process that marks the lines of its descriptor 3 until it is
// killed or that ends.
func TestPrefixPump(*testing.T) {
	path := os.Getenv(fileEnv)
	if path == "" {
		return // it is no test
	}
	pumpInto(NewFile(path, path+"-transit", FileOptions{Size: 200_000, Files: fileFiles, Prefix: "> ", Timestamps: time.UTC}, func(c Condition) { fmt.Fprintln(os.Stderr, c.Problem) }))
}

// However often and whenever the writer of changed lines is killed, none is lost,
// doubled or torn.
func TestChangedLinesSurviveKills(t *testing.T) {
	const kills, count = 40, 600_000
	path := filepath.Join(t.TempDir(), "log")
	killPumps(t, kills, count, "TestPrefixPump", fileEnv+"="+path)
	got, files := whole(t, path)
	if files < 50 {
		t.Errorf("%d files", files)
	}
	stamp := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z > `)
	n := 0
	for line := range bytes.Lines(got) {
		if head := stamp.Find(line); head == nil || string(line[len(head):]) != strconv.Itoa(n)+"\n" {
			t.Fatalf("line %d is %q", n, line)
		}
		n++
	}
	if n != count {
		t.Errorf("%d lines of %d", n, count)
	}
}

// What a killed process has left at any point of its work is written once.
func TestParcelIsWrittenOnce(t *testing.T) {
	const text, changed = "one\ntwo\n", "> one\n> two\n"
	for kept := range len(text) + 1 {
		for written := range len(changed) + 1 {
			if written > 0 && kept < len(text) {
				continue // nothing is written before all is kept
			}
			dir := t.TempDir()
			path := filepath.Join(dir, "log")
			if err := os.WriteFile(path, []byte("old\n"+changed[:written]), 0o600); err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil {
				t.Fatal(err)
			}
			d := head{inode: st.Ino, offset: 4, size: int64(len(text)), parcel: parcel{at: time.Now(), instance: "web", stream: Stdout}}
			if err := os.WriteFile(path+"-transit", append(d.bytes(), text[:kept]...), 0o600); err != nil {
				t.Fatal(err)
			}
			f := NewFile(path, path+"-transit", FileOptions{Prefix: "> "}, quiet)
			through(t, f, text[kept:]+"three\n")
			if got, err := os.ReadFile(path); string(got) != "old\n"+changed+"> three\n" {
				t.Errorf("%d kept, %d written: got %q, %v", kept, written, got, err)
			}
		}
	}
}

// A line that a kill has torn on its way is whole again, although another program
// prints first.
func TestTornParcelWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	d := head{size: 8, parcel: parcel{at: time.Now(), instance: "web", stream: Stdout}}
	if err := os.WriteFile(path+"-transit", append(d.bytes(), "one\nt"...), 0o600); err != nil {
		t.Fatal(err)
	}
	f := NewFile(path, path+"-transit", FileOptions{Prefix: "{instance}: "}, quiet)
	t.Run("print", func(t *testing.T) {
		w := into(t, f, "other", "web")
		_, _ = w[0].WriteString("first\n")
		_, _ = w[1].WriteString("wo\nthree\n")
	})
	got, err := os.ReadFile(path)
	if text := string(got); err != nil || !strings.HasPrefix(text, "web: one\nweb: two\n") || len(text) != len("web: one\nweb: two\nweb: three\nother: first\n") {
		t.Errorf("got %q, %v", text, err)
	}
}

// On a full disk whole lines wait.
func TestChangedLinesOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	path, filler := filepath.Join(dir, "log"), filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 10)
	f := NewFile(path, "", FileOptions{Prefix: "> "}, func(c Condition) { told <- c.Problem })
	t.Run("print", func(t *testing.T) {
		w := into(t, f, "web")[0]
		_, _ = w.WriteString("one\ntwo\n")
		if err := <-told; !errors.Is(err, unix.ENOSPC) {
			t.Errorf("told %v", err)
		}
		_, _ = w.WriteString("three\n")
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		if err := <-told; err != nil {
			t.Errorf("told %v", err)
		}
	})
	checkTree(t, dir, `log: "> one\n> two\n> three\n"`)
}
