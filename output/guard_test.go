package output

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What is guarded is never forgotten, neither in memory nor in the files, and the
// program waits meanwhile: a reader that is killed at any moment and takes its time
// gets every line.
func TestGuardedOutputWaits(t *testing.T) {
	for _, limit := range []int{2 << 10, 64 << 10, 1 << 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "web.0")
			l := opened(t, limit, path)
			l.Guard(Place{})
			count := min(100_000, 2*limit)
			ended := make(chan struct{})
			go func() { // ends when all is written, which the reader makes possible
				defer close(ended)
				pump(t, l, Stdout, func(f *os.File) {
					for n := range count {
						_, _ = fmt.Fprintln(f, n)
					}
				})
			}()
			var p Place
			seen := 0
			for deadline := time.Now().Add(patience); seen < count && time.Now().Before(deadline); {
				// What a successor would find is what counts, at a moment when nothing is written.
				l.mu.Lock()
				successor := opened(t, limit, path)
				l.mu.Unlock()
				successor.Close()
				_ = successor.Follow(t.Context(), successor.Resume(p, Both), func(line Line) error {
					if line.Ended { // it is being written
						return errEnough
					}
					if string(line.Text) != fmt.Sprint(seen) {
						t.Fatalf("line %d is %q", seen, line.Text)
					}
					seen, p = seen+1, line.Place
					return nil
				})
				l.Guard(p)
			}
			if seen < count {
				t.Fatalf("%d lines of %d", seen, count)
			}
			<-ended
		})
	}
}
