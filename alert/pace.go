package alert

import "time"

const (
	gather     = time.Second      // after the first event, for those that come with it
	firstRetry = 5 * time.Second  // after a failure; doubled with each further one
	maxRetry   = 10 * time.Minute // but no longer
)

// pace says when the next mail may go out.
type pace struct {
	interval time.Duration
	perHour  int

	times    []time.Time // of the mails sent, the last perHour of them
	failures int         // since the last mail sent
	retry    time.Time   // not before
}

// change goes on with other bounds, and without the wait for a server that has failed.
func (p *pace) change(interval time.Duration, perHour int) {
	p.interval, p.perHour = interval, perHour
	p.times = p.times[max(len(p.times)-perHour, 0):]
	p.failures, p.retry = 0, time.Time{}
}

// due returns when to send what began to wait at the given time, and whether
// it is the number of mails an hour that holds it up for so long.
func (p *pace) due(since time.Time) (at time.Time, limited bool) {
	at = since.Add(gather)
	if n := len(p.times); n > 0 {
		at = later(at, p.times[n-1].Add(p.interval))
	}
	if len(p.times) == p.perHour {
		if free := p.times[0].Add(time.Hour); free.After(at) {
			at, limited = free, true
		}
	}
	return later(at, p.retry), limited
}

// sent notes that a mail went out.
func (p *pace) sent(now time.Time) {
	if len(p.times) == p.perHour {
		p.times = append(p.times[:0], p.times[1:]...)
	}
	p.times = append(p.times, now)
	p.failures, p.retry = 0, time.Time{}
}

// failed notes that a mail did not.
func (p *pace) failed(now time.Time) {
	wait := firstRetry
	for range p.failures {
		wait = min(2*wait, maxRetry)
	}
	p.failures++
	p.retry = now.Add(wait)
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
