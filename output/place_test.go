package output

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPlaceIsText(t *testing.T) {
	for _, p := range []Place{{}, {1, [2]uint64{2, 3}}, {^uint64(0), [2]uint64{^uint64(0), 0}}} {
		if got, err := ParsePlace(p.String()); got != p || err != nil {
			t.Errorf("%v became %v, %v", p, got, err)
		}
	}
	for _, text := range []string{"", "1", "1.2", "1.2.3.4", "1.2.-3", "1.2.3 ", "x.y.z", "01.2.3", "1.2.11111111111111111"} {
		if p, err := ParsePlace(text); err == nil {
			t.Errorf("%q is read as %v", text, p)
		}
	}
}

var errEnough = errors.New("enough")

// followFrom takes up to n lines after a place from a log to which nothing is added.
func followFrom(t *testing.T, l *Log, p Place, stream Stream, n int) (lines []string, next Place) {
	t.Helper()
	next = p
	ctx, cancel := context.WithCancel(t.Context())
	from := l.Resume(p, stream)
	l.Close() // so that following ends
	defer cancel()
	err := l.Follow(ctx, from, func(line Line) error {
		if len(lines) == n {
			return errEnough
		}
		lines, next = append(lines, strings.TrimPrefix(line.Stream.String(), "std")+" "+string(line.Text)), line.Place
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	return lines, next
}

// Whoever is interrupted after any line goes on in the next process's log, and
// gets each line of either stream once, also those that were begun before.
func TestResumeGoesOnWhereverItWas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.0")
	l := opened(t, 0, path)
	for n := range 40 {
		pump(t, l, Stdout, func(f *os.File) { _, _ = fmt.Fprintf(f, "o%d\nhalf of o%d", n, n) })
		pump(t, l, Stderr, func(f *os.File) { _, _ = fmt.Fprintf(f, "e%d\n", n) })
	}
	for _, stream := range []Stream{Both, Stdout, Stderr} {
		want, _ := followFrom(t, opened(t, 0, path), Place{}, stream, -1)
		var got []string
		for p := (Place{}); len(got) < len(want); {
			var lines []string
			lines, p = followFrom(t, opened(t, 0, path), p, stream, 1+rand.IntN(5))
			if len(lines) == 0 {
				t.Fatalf("nothing after %v, with %d of %d lines", p, len(got), len(want))
			}
			got = append(got, lines...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("stream %q: got %q, want %q", stream, got, want)
		}
	}
}

// What was dropped while nobody read is counted, to the byte.
func TestResumeCountsWhatIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.0")
	l := opened(t, 4<<10, path)
	pump(t, l, Stdout, func(f *os.File) { _, _ = f.WriteString("seen\n") })
	_, p := followFrom(t, opened(t, 4<<10, path), Place{}, Both, 1)
	const count, size = 5000, len("0000\n")
	pump(t, l, Stdout, func(f *os.File) {
		for n := range count {
			_, _ = fmt.Fprintf(f, "%04d\n", n)
		}
	})
	lines, _ := followFrom(t, opened(t, 4<<10, path), p, Both, -1)
	var missing, rest int
	if _, err := fmt.Sscanf(lines[0], " [%d bytes", &missing); err != nil || missing == 0 {
		t.Fatalf("the first line is %q", lines[0])
	}
	for _, line := range lines[1:] {
		rest += len(strings.TrimPrefix(line, "out ")) + 1
	}
	if missing+rest != count*size {
		t.Errorf("%d bytes are missing and %d there, of %d", missing, rest, count*size)
	}
}

// In a log that knows nothing of the place nobody can tell what is missing; a
// place before everything is in any.
func TestResumeInAnotherLog(t *testing.T) {
	l := NewLog(0)
	l.Append(Stdout, t0, []byte("one\n"))
	if lines, _ := followFrom(t, l, Place{77, [2]uint64{3, 0}}, Both, -1); !slices.Equal(lines, []string{" [output may be missing here]", "out one"}) {
		t.Errorf("got %q", lines)
	}
	if lines, _ := followFrom(t, l, Place{77, [2]uint64{}}, Both, -1); !slices.Equal(lines, []string{"out one"}) {
		t.Errorf("got %q", lines)
	}
}

func FuzzParsePlace(f *testing.F) {
	f.Add("1.2.3")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := ParsePlace(text); err == nil && p.String() != text {
			t.Errorf("%q is read as %s", text, p)
		}
	})
}
