package ship

import (
	"bytes"
	"time"
)

// Limits are bounds for lines. Zero is none.
type Limits struct {
	Rate int // lines in a second; as many may come at once
	Size int // bytes of a line, with its newline
}

// A Limiter drops lines that are beyond its limits, and counts them. Only its
// counters may be read while another goroutine uses it.
type Limiter struct {
	limits   Limits
	counters counters
	tokens   float64 // lines that may pass now
	filled   time.Time
}

// NewLimiter makes a limiter whose rate is unused so far.
func NewLimiter(l Limits) *Limiter {
	return &Limiter{limits: l, tokens: float64(l.Rate), filled: time.Now()}
}

// Counters tells what was dropped.
func (l *Limiter) Counters() Counters { return l.counters.read() }

// Pass returns those of the lines that are within the limits, moved together
// within the same bytes. A line that is too long does not count for the rate.
func (l *Limiter) Pass(lines []byte) []byte {
	if l.limits == (Limits{}) {
		return lines
	}
	l.fill()
	kept := lines[:0]
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n') + 1
		if end == 0 {
			end = len(lines)
		}
		if l.passes(end) {
			kept = append(kept, lines[:end]...)
		}
		lines = lines[end:]
	}
	return kept
}

// fill adds what may pass since the last time.
func (l *Limiter) fill() {
	now := time.Now()
	l.tokens = min(l.tokens+now.Sub(l.filled).Seconds()*float64(l.limits.Rate), float64(l.limits.Rate))
	l.filled = now
}

func (l *Limiter) passes(size int) bool {
	switch {
	case l.limits.Size > 0 && size > l.limits.Size:
		l.counters.size.Add(1)
		return false
	case l.limits.Rate > 0 && l.tokens < 1:
		l.counters.rate.Add(1)
		return false
	}
	l.tokens--
	return true
}
