package ship

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(Limits{Rate: 2, Size: 4})
		pass := func(lines, want string) {
			t.Helper()
			if got := string(l.Pass([]byte(lines))); got != want {
				t.Errorf("of %q pass %q, want %q", lines, got, want)
			}
		}
		pass("one\nlong\ntwo\n3\n", "one\ntwo\n")
		pass("4\n", "")
		time.Sleep(500 * time.Millisecond)
		pass("5\n6\n", "5\n")
		time.Sleep(time.Hour)
		pass("7\n8\n9\n", "7\n8\n")
		if c := l.Counters(); c.Dropped.Rate != 4 || c.Dropped.Size != 1 {
			t.Errorf("%+v", c.Dropped)
		}
	})
}

func TestNoLimits(t *testing.T) {
	lines := numbered(0, 100)
	if got := NewLimiter(Limits{}).Pass(lines); len(got) != len(lines) {
		t.Errorf("%d of %d bytes pass", len(got), len(lines))
	}
}
