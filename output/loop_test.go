package output

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 20 * time.Second

func newLoop(t testing.TB) *Loop {
	t.Helper()
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// pipe returns the bare read end and the write end of a pipe.
func pipe(t testing.TB) (int, *os.File) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	w := os.NewFile(uintptr(p[1]), "pipe")
	t.Cleanup(func() { w.Close() })
	return p[0], w
}

// add reads a new pipe into log, and returns its write end and a channel that
// is closed at its end.
func add(t testing.TB, l *Loop, log *Log, s Stream) (*os.File, chan struct{}) {
	t.Helper()
	r, w := pipe(t)
	done := make(chan struct{})
	if err := l.Add(r, log, s, func() { close(done) }); err != nil {
		t.Fatal(err)
	}
	return w, done
}

func await(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s: not after %v", what, patience)
	}
}

func write(t testing.TB, w *os.File, data string) {
	t.Helper()
	if _, err := w.WriteString(data); err != nil {
		t.Fatal(err)
	}
}

func TestLoopReadsToTheEnd(t *testing.T) {
	l := newLoop(t)
	log := NewLog(0)
	out, outDone := add(t, l, log, Stdout)
	errs, errsDone := add(t, l, log, Stderr)
	write(t, out, "one\ntwo\nunfin")
	write(t, errs, "oops\n")
	out.Close()
	errs.Close()
	await(t, "end of stdout", outDone)
	await(t, "end of stderr", errsDone)
	stdout, _ := log.Tail(-1, Stdout)
	wantLines(t, stdout, "o:one", "o:two", "o:unfin~!")
	stderr, _ := log.Tail(-1, Stderr)
	wantLines(t, stderr, "e:oops")
	if log.feed.sources != nil {
		t.Error("the log still has pipes")
	}
}

func TestLoopReadsMuch(t *testing.T) {
	l := newLoop(t)
	log := NewLog(8 << 20)
	w, done := add(t, l, log, Stdout)
	want := bytes.Repeat([]byte(strings.Repeat("x", 199)+"\n"), 20_000)
	write(t, w, string(want))
	w.Close()
	await(t, "end", done)
	lines, _ := log.Tail(-1, Both)
	if !bytes.Equal(join(lines), want) {
		t.Errorf("got %d lines that differ from what was written", len(lines))
	}
}

// TestDrain asks for the last words of a dead process while its child, which
// outlives it, still holds the pipe.
func TestDrain(t *testing.T) {
	l := newLoop(t)
	hold, release := pipe(t)
	in := os.NewFile(uintptr(hold), "pipe")
	defer in.Close()
	var ends []chan struct{}
	for range 20 {
		log := NewLog(0)
		w, done := add(t, l, log, Stdout)
		ends = append(ends, done)
		cmd := exec.Command("/bin/sh", "-c", "cat <&3 & echo last; printf words")
		cmd.Stdout = w
		cmd.ExtraFiles = []*os.File{in}
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		await(t, "drain", l.Drain(log))
		lines, _ := log.Tail(-1, Both)
		wantLines(t, lines, "o:last", "o:words~")
	}
	release.Close()
	for _, done := range ends {
		await(t, "end", done)
	}
}

func TestDrainWhileOthersHoldThePipe(t *testing.T) {
	l := newLoop(t)
	log := NewLog(0)
	w, done := add(t, l, log, Stdout)
	write(t, w, "said")
	await(t, "drain", l.Drain(log))
	lines, _ := log.Tail(-1, Both)
	wantLines(t, lines, "o:said~")
	log.Break(Both)
	write(t, w, "by another\n")
	w.Close()
	await(t, "end", done)
	lines, _ = log.Tail(-1, Both)
	wantLines(t, lines, "o:said~!", "o:by another")
	await(t, "drain of nothing", l.Drain(log))
}

// TestDrainIsBounded drains a pipe whose writer never stops.
// What a task has printed comes before what its successor prints, whichever pipe
// is looked at first.
func TestTasksInOrder(t *testing.T) {
	l, log := newLoop(t), NewLog(0)
	first, _ := add(t, l, log, Stdout)
	second, _ := add(t, l, log, Stdout)
	log.mu.Lock() // nothing is taken
	write(t, second, "second\n")
	write(t, first, "first\n")
	log.mu.Unlock()
	await(t, "drain", l.Drain(log))
	got, _ := log.Tail(-1, Stdout)
	wantLines(t, got, "o:first", "o:second")

	first.Close()
	log.mu.Lock()
	write(t, second, "more\n")
	third, _ := add(t, l, log, Stdout)
	write(t, third, "last\n")
	log.mu.Unlock()
	await(t, "drain", l.Drain(log))
	got, _ = log.Tail(2, Stdout)
	wantLines(t, got, "o:more", "o:last")
}

func TestDrainIsBounded(t *testing.T) {
	l := newLoop(t)
	log := NewLog(0)
	w, done := add(t, l, log, Stdout)
	go func() { // ends when the pipe is closed
		for {
			if _, err := w.Write(bytes.Repeat([]byte("y\n"), 4096)); err != nil {
				return
			}
		}
	}()
	for range 50 {
		await(t, "drain", l.Drain(log))
	}
	w.Close()
	await(t, "end", done)
}

// TestLoudDoesNotStarve has one program print without end: others are heard.
func TestLoudDoesNotStarve(t *testing.T) {
	l := newLoop(t)
	loud, ended := add(t, l, NewLog(0), Stdout)
	go func() { // ends when the pipe is closed
		for {
			if _, err := loud.Write(bytes.Repeat([]byte("y\n"), 32<<10)); err != nil {
				return
			}
		}
	}()
	for range 200 {
		w, done := add(t, l, NewLog(0), Stdout)
		write(t, w, "hello\n")
		w.Close()
		await(t, "a quiet program's end", done)
	}
	loud.Close()
	await(t, "the loud one's end", ended)
}

func TestManyPipes(t *testing.T) {
	l := newLoop(t)
	const n = 300 // and so more than one turn takes
	var left atomic.Int32
	left.Store(n)
	all := make(chan struct{})
	logs := make([]*Log, n)
	writers := make([]*os.File, n)
	for i := range logs {
		logs[i] = NewLog(0)
		r, w := pipe(t)
		writers[i] = w
		if err := l.Add(r, logs[i], Stdout, func() {
			if left.Add(-1) == 0 {
				close(all)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	for i, w := range writers {
		write(t, w, fmt.Sprintf("I am %d\n", i))
	}
	for _, w := range writers {
		w.Close()
	}
	await(t, "all ends", all)
	for i, log := range logs {
		lines, _ := log.Tail(-1, Both)
		wantLines(t, lines, fmt.Sprintf("o:I am %d", i))
	}
}

func TestCloseLoop(t *testing.T) {
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	log := NewLog(0)
	w, _ := add(t, l, log, Stdout)
	l.Close()
	l.Close()
	if _, err := w.WriteString("x"); err == nil {
		t.Error("the pipe is still open for reading")
	}
	await(t, "drain of a closed loop", l.Drain(log))
	r, w := pipe(t)
	if err := l.Add(r, log, Stdout, nil); err == nil {
		t.Error("a closed loop takes a pipe")
	}
	if _, err := w.WriteString("x"); err == nil {
		t.Error("a pipe that was refused is still open")
	}
}

func TestAddRefuses(t *testing.T) {
	l := newLoop(t)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, err := unix.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Add(fd, NewLog(0), Stdout, nil); err == nil || !strings.Contains(err.Error(), "cannot read stdout") {
		t.Errorf("a regular file: %v", err)
	}
	r, _ := pipe(t)
	if err := l.Add(r, NewLog(0), Both, nil); err == nil {
		t.Error("Both is taken for a stream")
	}
}

// BenchmarkLoop writes lines of 200 bytes one by one, as programs do, and in
// blocks, as those do that buffer.
func BenchmarkLoop(b *testing.B) {
	for _, lines := range []int{1, 20, 320} {
		b.Run(fmt.Sprintf("%d lines a write", lines), func(b *testing.B) {
			l := newLoop(b)
			w, done := add(b, l, NewLog(0), Stdout)
			data := bytes.Repeat([]byte(strings.Repeat("x", 199)+"\n"), lines)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := w.Write(data); err != nil {
					b.Fatal(err)
				}
			}
			w.Close()
			await(b, "end", done)
		})
	}
}

// BenchmarkIdlePipes tells what it costs to watch 4,000 instances with two
// pipes each, and how long it takes to hear a line from every one of them.
func BenchmarkIdlePipes(b *testing.B) {
	const instances = 4000
	l := newLoop(b)
	var heard atomic.Int32
	all := make(chan struct{})
	logs, writers := make([]*Log, instances), make([]*os.File, 2*instances)
	reads := make([]int, len(writers))
	for i := range writers {
		reads[i], writers[i] = pipe(b)
	}
	before := heap()
	for i := range logs {
		logs[i] = NewLog(0)
		for j := range 2 {
			if err := l.Add(reads[2*i+j], logs[i], Stdout+Stream(j), func() {
				if heard.Add(1) == 2*instances {
					close(all)
				}
			}); err != nil {
				b.Fatal(err)
			}
		}
	}
	idle := heap()
	for b.Loop() {
		for _, w := range writers {
			write(b, w, "hello\n")
		}
		for _, log := range logs {
			await(b, "drain", l.Drain(log))
		}
	}
	b.ReportMetric(float64(idle-before)/instances, "B/instance")
	for _, w := range writers {
		w.Close()
	}
	await(b, "all ends", all)
}

// A pipe that another process holds, too, is not looked at any more when it has
// ended: it would be ready for ever.
func TestLoopForgetsSharedPipe(t *testing.T) {
	l := newLoop(t)
	r, w := pipe(t)
	shared, err := unix.Dup(r)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(shared)
	done := make(chan struct{})
	if err := l.Add(r, NewLog(0), Stdout, func() { close(done) }); err != nil {
		t.Fatal(err)
	}
	w.Close()
	await(t, "end", done)
	events := make([]unix.EpollEvent, 1)
	if n, err := unix.EpollWait(l.epoll, events, 0); n != 0 || err != nil {
		t.Errorf("%d pipes are ready (%v)", n, err)
	}
}
