package keeper

import (
	"testing"
	"time"
)

func TestPauseAfter(t *testing.T) {
	for early, want := range map[int]time.Duration{
		1: 0, atOnce: 0, atOnce + 1: firstPause, atOnce + 2: 2 * firstPause, atOnce + 7: 64 * firstPause, atOnce + 8: longest, 1 << 40: longest,
	} {
		if got := pauseAfter(early); got != want {
			t.Errorf("after %d: %s, want %s", early, got, want)
		}
	}
}
