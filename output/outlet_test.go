package output

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// toOutlet prints text into an outlet through a pipe, part by part.
func toOutlet(t *testing.T, o *Outlet, stream Stream, text ...string) {
	t.Helper()
	loop, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(r.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	done := make(chan struct{})
	if err := loop.AddOutlet(fd, o, "web", stream, func() { close(done) }); err != nil {
		t.Fatal(err)
	}
	for _, part := range text {
		_, _ = w.WriteString(part)
		<-loop.DrainOutlet(o)
	}
	_ = w.Close()
	await(t, "the end of the pipe", done)
}

// sent is a target that remembers, and takes nothing every other time.
type sent struct {
	text bytes.Buffer
	busy bool
	fail error
}

func (s *sent) Send(p Printed) (int, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	if s.busy = !s.busy; s.busy {
		return 0, unix.EAGAIN
	}
	if p.Repeated {
		s.text.WriteString("again ")
	}
	n := min(len(firstPiece(p.Data, 1<<20)), len(p.Data))
	s.text.Write(p.Data[:n])
	return n, nil
}

func (s *sent) Close() {}

// An outlet waits for its target, and sends whole lines.
func TestOutlet(t *testing.T) {
	to := &sent{}
	o := NewOutlet("x", "", to, OutletOptions{}, quiet)
	toOutlet(t, o, Stdout, "one\ntw", "o\nthree\n", "end")
	if got := to.text.String(); got != "one\ntwo\nthree\nend" {
		t.Errorf("got %q", got)
	}
}

// What a killed process had on its way is sent by the next from where it was; the
// first line of that may come twice, and is marked.
func TestOutletAfterKill(t *testing.T) {
	for offset, want := range map[int64]string{0: "again one\ntwo\nthree\n", 4: "again two\nthree\n", 8: "three\n"} {
		path := filepath.Join(t.TempDir(), "transit")
		d := head{offset: offset, size: 8, parcel: parcel{at: time.Now(), instance: "web", stream: Stdout}}
		if err := os.WriteFile(path, append(d.bytes(), "one\ntwo\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
		to := &sent{}
		toOutlet(t, NewOutlet("x", path, to, OutletOptions{}, quiet), Stdout, "", "three\n")
		if got := to.text.String(); got != want {
			t.Errorf("from %d: got %q", offset, got)
		}
	}
}

// Nothing has to be printed for it.
func TestOutletFinishesWhatWasLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "transit")
	d := head{size: 4, parcel: parcel{at: time.Now(), instance: "web", stream: Stdout}}
	if err := os.WriteFile(path, append(d.bytes(), "one\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	to := &sent{}
	toOutlet(t, NewOutlet("x", path, to, OutletOptions{}, quiet), Stdout)
	if got := to.text.String(); got != "again one\n" {
		t.Errorf("got %q", got)
	}
}

// What a target that cannot be reached does not take is dropped, if asked for.
func TestOutletDrops(t *testing.T) {
	to := &sent{fail: errors.New("gone")}
	told := make(chan Condition, 9)
	o := NewOutlet("x", "", to, OutletOptions{Drop: true}, func(c Condition) { told <- c })
	loop, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := loop.AddOutlet(p[0], o, "web", Stdout, nil); err != nil {
		t.Fatal(err)
	}
	w := os.NewFile(uintptr(p[1]), "w")
	defer w.Close()
	const count = 100_000
	printNumbers(w, 0, count) // waits for nobody
	if c := <-told; c.Problem == nil || c.Problem.Error() != "cannot write to x: gone" {
		t.Errorf("told %v", c.Problem)
	}
	if d := o.Condition().Dropped; d.Lines == 0 || d.Lines > count {
		t.Errorf("dropped %+v", d)
	}
}

// A stream is written as far as it takes something, whatever reads it and when.
func TestStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan Condition, 9)
	o := NewOutlet(path, "", NewStream(path, FileOptions{Prefix: "{instance}: "}), OutletOptions{}, func(c Condition) { told <- c })
	long := strings.Repeat("x", 300_000)
	got := make(chan string)
	go func() { // ends when the outlet was closed
		if c := <-told; c.Problem == nil || !strings.HasSuffix(c.Problem.Error(), "fifo: nobody reads it") {
			t.Errorf("told %v", c.Problem)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		got <- string(data)
	}()
	toOutlet(t, o, Stdout, "one\n"+strings.Repeat("y\n", 1000), long+"\n")
	o.Close()
	text := <-got
	if want := "web: one\n" + strings.Repeat("web: y\n", 1000); !strings.HasPrefix(text, want) {
		t.Errorf("got %.200q", text)
	}
	if n := strings.Count(text, "x"); n != len(long) {
		t.Errorf("%d bytes of a long line of %d", n, len(long))
	}
}

// Each line is a message to a syslog daemon; a long one takes several.
func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	s := NewSyslog(path, FileOptions{})
	defer s.Close()
	data := []byte("one\n\xff\x00\n" + strings.Repeat("é", 4000) + "\n")
	for len(data) > 0 {
		n, err := s.Send(Printed{Data: data, At: at, Instance: "web:1", Stream: Stderr})
		if err != nil {
			t.Fatal(err)
		}
		data = data[n:]
	}
	var got []string
	buf := make([]byte, 64<<10)
	for range 4 {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		text, ok := strings.CutPrefix(string(buf[:n]), "<27>Jan  2 03:04:05 web:1: ")
		if !ok {
			t.Errorf("got %.50q", buf[:n])
		}
		got = append(got, text)
	}
	if got[0] != "one" || got[1] != "\xff\x00" || got[2] != strings.Repeat("é", 3584) || got[2]+got[3] != strings.Repeat("é", 4000) {
		t.Errorf("got %.200q", got)
	}
	if _, err := NewSyslog(path+"-none", FileOptions{}).Send(Printed{Data: []byte("x")}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("err = %v", err)
	}
}
