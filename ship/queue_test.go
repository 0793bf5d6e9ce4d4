package ship

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
)

// A model of a lane and its receiver does everything that may happen to a queue
// with a spool, in any order: lines arrive in the order in which they came, none
// is lost, and none comes again that was settled, unless the process was killed.
func TestQueueKeepsAll(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { queueTrial(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func queueTrial(t *testing.T, r *rand.Rand) {
	dir := t.TempDir()
	q := openQueue(t, dir)
	next, settledUpTo := 0, 0 // lines
	seen := -1                // the last line that was taken since the connection
	connected := false
	killed := false // and nothing was taken since
	type carried struct {
		number uint64
		last   int
	}
	var lane []carried
	giveBack := func() {
		for _, c := range lane {
			q.giveBack(c.number)
		}
		lane, seen = nil, settledUpTo-1
	}
	take := func() bool {
		number, lines, ok := q.take()
		if !ok {
			return false
		}
		for line := range bytes.Lines(lines) {
			n := -1
			_, _ = fmt.Sscanf(string(line), "line %d ", &n)
			if n != seen+1 && (!killed || n > seen) {
				t.Fatalf("line %d after %d", n, seen)
			}
			seen, killed = n, false
		}
		lane = append(lane, carried{number, seen})
		return true
	}
	settle := func() {
		settledUpTo = max(settledUpTo, lane[0].last+1)
		q.settle(lane[0].number)
		lane = lane[1:]
	}
	for range 200 {
		switch what := r.IntN(12); {
		case what < 5:
			size := r.IntN(20_000)
			if err := q.put(t.Context(), fmt.Appendf(nil, "line %d %*d\n", next, size, 0)); err != nil {
				t.Fatal(err)
			}
			next++
		case what < 8 && connected:
			take()
		case what < 9 && len(lane) > 0:
			settle()
		case what == 9 && connected:
			connected = false
			giveBack()
		case what == 10:
			if !connected && r.IntN(2) == 0 {
				check1(t, q.reached(errors.New("no receiver")))
			}
		case what == 11 && q.absent != nil && r.IntN(3) == 0: // the process is killed
			check1(t, q.spool.lock.Close())
			q = openQueue(t, dir)
			connected, killed = false, true
		case what == 11 && r.IntN(10) == 0: // the process ends, and another begins
			giveBack()
			connected = false
			if _, err := q.close(); err != nil {
				t.Fatal(err)
			}
			q = openQueue(t, dir)
		default:
			if !connected {
				connected = true
				seen = settledUpTo - 1
				check1(t, q.reached(nil))
			}
		}
	}
	giveBack()
	check1(t, q.reached(nil))
	for take() {
		for len(lane) > 0 {
			settle()
		}
	}
	if settledUpTo != next || !q.delivered() {
		t.Errorf("%d of %d lines", settledUpTo, next)
	}
	if c := q.counters.read(); c.Dropped.Total() > 0 {
		t.Errorf("%+v", c)
	}
	check1(t, func() error { _, err := q.close(); return err }())
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	if !slices.Equal(left, []string{filepath.Join(dir, "lock")}) {
		t.Errorf("left in the spool: %q", left)
	}
}

func check1(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openQueue(t *testing.T, dir string) *queue {
	t.Helper()
	c := &counters{}
	q := newQueue(Options{Buffer: minBuffer, Resend: 1 << 18}, c)
	s, err := openSpool(dir, 64<<20, func(message string) { t.Log(message) }, c)
	check1(t, err)
	q.spool = s
	return q
}
