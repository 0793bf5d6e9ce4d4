package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// join returns the bytes that the lines stand for.
func join(lines []Line) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		b.Write(l.Text)
		if !l.Partial {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// show renders lines shortly: "o:text", with "~" for Partial, "!" for Ended.
func show(lines []Line) []string {
	var out []string
	for _, l := range lines {
		s := "-oe"[l.Stream:l.Stream+1] + ":" + string(l.Text)
		if l.Partial {
			s += "~"
		}
		if l.Ended {
			s += "!"
		}
		if l.Lost > 0 {
			s = fmt.Sprintf("lost %d", l.Lost)
		}
		out = append(out, s)
	}
	return out
}

func wantLines(t *testing.T, got []Line, want ...string) {
	t.Helper()
	if !slices.Equal(show(got), want) {
		t.Errorf("got %q, want %q", show(got), want)
	}
}

func TestTail(t *testing.T) {
	type write struct {
		stream Stream
		data   string // empty: break
	}
	long := strings.Repeat("x", MaxLine)
	tests := []struct {
		name   string
		writes []write
		n      int
		stream Stream
		want   []string
	}{
		{"nothing", nil, -1, Both, nil},
		{"one line in pieces", []write{{Stdout, "a"}, {Stdout, "b"}, {Stdout, "\n"}}, -1, Both, []string{"o:ab"}},
		{"several in one write", []write{{Stdout, "a\n\nb\n"}}, -1, Both, []string{"o:a", "o:", "o:b"}},
		{"last two", []write{{Stdout, "a\nb\nc\n"}}, 2, Both, []string{"o:b", "o:c"}},
		{"none", []write{{Stdout, "a\nb"}}, 0, Both, nil},
		{"more than there are", []write{{Stdout, "a\n"}}, 5, Both, []string{"o:a"}},
		{"unfinished", []write{{Stdout, "a\nb"}}, 1, Both, []string{"o:b~"}},
		{"streams in order of completion", []write{{Stdout, "a"}, {Stderr, "b\n"}, {Stdout, "c\n"}}, -1, Both, []string{"e:b", "o:ac"}},
		{"one stream", []write{{Stdout, "a\n"}, {Stderr, "b\n"}, {Stdout, "c\n"}}, -1, Stderr, []string{"e:b"}},
		{"two unfinished, older first", []write{{Stderr, "b"}, {Stdout, "a"}}, -1, Both, []string{"e:b~", "o:a~"}},
		{"broken off", []write{{Stdout, "a"}, {Stdout, ""}, {Stdout, "b\n"}}, -1, Both, []string{"o:a~!", "o:b"}},
		{"break of a finished line", []write{{Stdout, "a\n"}, {Stdout, ""}, {Stdout, "b\n"}}, -1, Both, []string{"o:a", "o:b"}},
		{"break of both", []write{{Stdout, "a"}, {Stderr, "b"}, {Both, ""}}, -1, Both, []string{"o:a~!", "e:b~!"}},
		{"break counts as a line", []write{{Stdout, "a"}, {Stdout, ""}, {Stdout, "b\n"}}, 2, Both, []string{"o:a~!", "o:b"}},
		{"bytes unchanged", []write{{Stdout, "\x00\xff\r\n"}}, -1, Both, []string{"o:\x00\xff\r"}},
		{"longest line", []write{{Stdout, long + "\n"}}, -1, Both, []string{"o:" + long}},
		{"longer line", []write{{Stdout, long + "y\n"}}, -1, Both, []string{"o:" + long + "~", "o:y"}},
		{"parts count as one line", []write{{Stdout, "a\n" + long + "y\n"}}, 1, Both, []string{"o:" + long + "~", "o:y"}},
		{"longer unfinished", []write{{Stdout, "a\n" + long}, {Stdout, "y"}}, 1, Both, []string{"o:" + long + "~", "o:y~"}},
	}
	for _, test := range tests {
		for _, apart := range []time.Duration{0, time.Second} {
			t.Run(fmt.Sprint(test.name, " ", apart), func(t *testing.T) {
				l := NewLog(1 << 20)
				at := t0
				for _, w := range test.writes {
					if w.data == "" {
						l.Break(w.stream)
					} else {
						l.Append(w.stream, at, []byte(w.data))
					}
					at = at.Add(apart)
				}
				got, _ := l.Tail(test.n, test.stream)
				wantLines(t, got, test.want...)
			})
		}
	}
}

func TestTimesAndNumbers(t *testing.T) {
	l := NewLog(0)
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	l.Append(Stdout, at(0), []byte("ab"))
	l.Append(Stderr, at(10), []byte("e\n"))
	l.Append(Stdout, at(20), []byte("c\nd\n"))
	l.Append(Stdout, at(30), []byte("f\n"))
	lines, _ := l.Tail(-1, Both)
	var got []string
	for _, line := range lines {
		got = append(got, fmt.Sprintf("%s %d %d", line.Text, line.Seq, line.Time.Sub(t0).Milliseconds()))
	}
	want := []string{"e 2 10", "abc 0 0", "d 6 20", "f 8 30"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestKeepsTheLastBytes writes random bytes in random pieces and compares what
// is kept with the end of what was written.
func TestKeepsTheLastBytes(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		limit := 1 << (11 + r.IntN(8))
		l := NewLog(limit)
		var written [2][]byte
		at := t0
		for range 1 + r.IntN(150) {
			s := Stdout + Stream(r.IntN(2))
			piece := randomBytes(r, 1+r.IntN(1+limit/8))
			written[s-1] = append(written[s-1], piece...)
			l.Append(s, at, piece)
			at = at.Add(time.Duration(r.IntN(3)) * sameTime / 2)
		}
		kept := 0
		for s := Stdout; s <= Stderr; s++ {
			lines, _ := l.Tail(-1, s)
			got := join(lines)
			if !bytes.HasSuffix(written[s-1], got) {
				t.Fatalf("seed %d: %s: the %d bytes kept are not the last of the %d written", seed, s, len(got), len(written[s-1]))
			}
			kept += len(got)
		}
		total := len(written[0]) + len(written[1])
		if least := min(total, limit/2); kept < least {
			t.Errorf("seed %d: kept %d of %d bytes with a limit of %d", seed, kept, total, limit)
		}
		if kept > limit {
			t.Errorf("seed %d: kept %d bytes with a limit of %d", seed, kept, limit)
		}
	}
}

// randomBytes returns n bytes of which many are newlines.
func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.IntN(256))
		if r.IntN(20) == 0 {
			b[i] = '\n'
		}
	}
	return b
}

func TestLogIsBounded(t *testing.T) {
	l := NewLog(0)
	at := t0
	for i := range 200_000 { // the worst case: a record for each byte
		l.Append(Stdout+Stream(i%2), at, []byte{'\n'})
		at = at.Add(time.Second)
	}
	size := 0
	for _, c := range l.chunks {
		size += cap(c.data) + recordWeight*cap(c.records)
	}
	if size > 2*DefaultLimit {
		t.Errorf("the log takes %d bytes", size)
	}
}

func TestClear(t *testing.T) {
	l := NewLog(0)
	l.Append(Stdout, t0, []byte("a\nb"))
	_, seen := l.Tail(-1, Both)
	l.Append(Stdout, t0, []byte("c\n"))
	l.Clear()
	l.Append(Stdout, t0, []byte("d\n"))
	lines, _ := l.Tail(-1, Both)
	wantLines(t, lines, "o:d")
	l.Close()
	wantLines(t, follow(t, l, seen), "lost 2", "o:d")
}

// follow returns all lines of a closed log after c.
func follow(t *testing.T, l *Log, c Cursor) []Line {
	t.Helper()
	var lines []Line
	if err := l.Follow(context.Background(), c, func(line Line) error {
		lines = append(lines, line)
		return nil
	}); err != nil {
		t.Error(err)
	}
	return lines
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog(0)
		l.Append(Stdout, t0, []byte("old\nbegun"))
		_, c := l.Tail(0, Both)
		ctx, cancel := context.WithCancel(t.Context())
		var got []Line
		ended := make(chan error)
		go func() { // ends when cancel is called
			ended <- l.Follow(ctx, c, func(line Line) error {
				got = append(got, line)
				return nil
			})
		}()
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			wantLines(t, got, want...)
			got = nil
		}
		expect()
		l.Append(Stdout, t0, []byte(" and done\nnext"))
		expect("o: and done")
		l.Append(Stderr, t0, []byte("e\n"))
		expect("e:e")
		l.Break(Stdout)
		expect("o:next~!")
		l.Append(Stdout, t0, []byte("last"))
		expect()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		expect()
	})
}

func TestFollowOneStream(t *testing.T) {
	l := NewLog(0)
	_, c := l.Tail(0, Stderr)
	l.Append(Stdout, t0, []byte("a\n"))
	l.Append(Stderr, t0, []byte("b\n"))
	l.Append(Stdout, t0, []byte("c\n"))
	l.Append(Stderr, t0, []byte("d"))
	l.Close()
	wantLines(t, follow(t, l, c), "e:b", "e:d~!")
}

func TestFollowStopsOnError(t *testing.T) {
	l := NewLog(0)
	l.Append(Stdout, t0, []byte("a\nb\n"))
	fault := errors.New("fault")
	calls := 0
	err := l.Follow(t.Context(), Cursor{}, func(Line) error {
		calls++
		return fault
	})
	if !errors.Is(err, fault) || calls != 1 {
		t.Errorf("got %v after %d calls", err, calls)
	}
}

// TestSlowFollower holds a follower up while the log rolls over: the writer
// goes on, and the bytes told as lost are exactly those that did not come.
func TestSlowFollower(t *testing.T) {
	l := NewLog(4096)
	written := 0
	write := func(s Stream, n int) {
		for range n {
			line := fmt.Appendf(nil, "line %d\n", written)
			written += len(line)
			l.Append(s, t0, line)
		}
	}
	write(Stdout, 10)
	var got, lost, gaps int
	err := l.Follow(t.Context(), Cursor{}, func(line Line) error {
		if line.Lost > 0 {
			gaps++
			lost += int(line.Lost)
			return nil
		}
		if got == 0 {
			write(Stdout, 3000) // from here: a writer that waited for us would hang
			write(Stderr, 500)
			l.Close()
		}
		got += len(join([]Line{line}))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if gaps != 1 || got+lost != written {
		t.Errorf("%d gaps; got %d and lost %d of %d bytes", gaps, got, lost, written)
	}
}

func TestLossIsOfTheStreamFollowed(t *testing.T) {
	l := NewLog(4096)
	_, c := l.Tail(0, Stderr)
	l.Append(Stderr, t0, []byte("gone\n"))
	l.Append(Stdout, t0, bytes.Repeat([]byte("x\n"), 5000))
	l.Append(Stderr, t0, []byte("here\n"))
	l.Close()
	wantLines(t, follow(t, l, c), "lost 5", "e:here")
}

// TestManyReaders has readers at work while the log rolls over; the race
// detector watches. Everybody sees every byte or is told of it.
func TestManyReaders(t *testing.T) {
	l := NewLog(8192)
	const lines, size = 5000, 10
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() { // ends when the log is closed
			sum := 0
			for _, line := range follow(t, l, Cursor{}) {
				sum += int(line.Lost)
				if line.Lost == 0 {
					sum += len(join([]Line{line}))
				}
			}
			if sum != lines*size {
				t.Errorf("a follower accounts for %d of %d bytes", sum, lines*size)
			}
		})
	}
	for i := range lines {
		l.Append(Stdout, time.Now(), fmt.Appendf(nil, "%09d\n", i))
		if i%100 == 0 {
			l.Tail(10, Both)
		}
	}
	l.Close()
	group.Wait()
}

func TestParseStream(t *testing.T) {
	for _, s := range []Stream{Both, Stdout, Stderr} {
		if got, err := ParseStream(s.String()); got != s || err != nil {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	if _, err := ParseStream("stdin"); err == nil {
		t.Error("stdin is taken for an output")
	}
}

// FuzzLines feeds bytes in pieces: whatever the cut, the lines stand for the
// same bytes and are cut at the same places.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\n\nc"), uint16(1), uint16(0))
	f.Add([]byte("\n\x00\xff\r\n"), uint16(3), uint16(2))
	f.Add(bytes.Repeat([]byte("x"), 100), uint16(7), uint16(MaxLine-50))
	f.Fuzz(func(t *testing.T, data []byte, piece, before uint16) {
		data = append(bytes.Repeat([]byte("-"), int(before)), data...)
		collect := func(size int) (lines []Line) {
			s := splitter{emit: func(l Line) error {
				lines = append(lines, l)
				return nil
			}}
			seq := uint64(0)
			for part := range slices.Chunk(data, size) {
				if err := s.add(bytes.Clone(part), t0, seq); err != nil {
					t.Fatal(err)
				}
				seq += uint64(len(part))
			}
			if err := s.flush(false); err != nil {
				t.Fatal(err)
			}
			return lines
		}
		whole, pieces := collect(len(data)+1), collect(int(piece)+1)
		if !bytes.Equal(join(whole), data) {
			t.Fatalf("the lines %q do not stand for %q", show(whole), data)
		}
		if !slices.EqualFunc(whole, pieces, func(a, b Line) bool {
			return bytes.Equal(a.Text, b.Text) && a.Partial == b.Partial && a.Seq == b.Seq
		}) {
			t.Fatalf("cut in pieces of %d: %q, want %q", int(piece)+1, show(pieces), show(whole))
		}
		for _, l := range whole {
			if len(l.Text) > MaxLine || bytes.IndexByte(l.Text, '\n') >= 0 {
				t.Fatalf("line of %d bytes", len(l.Text))
			}
		}
	})
}

// BenchmarkIdleLogs tells what an instance costs that prints nothing, and one
// that has printed a line.
func BenchmarkIdleLogs(b *testing.B) {
	const instances = 10_000
	for b.Loop() {
		logs := make([]*Log, instances)
		before := heap()
		for i := range logs {
			logs[i] = NewLog(0)
		}
		idle := heap()
		for _, l := range logs {
			l.Append(Stdout, t0, []byte("listening on port 8080\n"))
		}
		one := heap()
		b.ReportMetric(float64(idle-before)/instances, "B/instance")
		b.ReportMetric(float64(one-before)/instances, "B/instance-with-a-line")
		runtime.KeepAlive(logs)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
