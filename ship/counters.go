package ship

import (
	"sync/atomic"
	"time"
)

// Counters tell what has become of lines since a [Shipper] or [Limiter] was
// made.
type Counters struct {
	Received  uint64        // lines given
	Sent      uint64        // lines written, each counted once
	SentBytes uint64        // of those
	Resent    uint64        // lines written again after a broken connection
	Spooled   uint64        // lines that went through the spool
	Dropped   Dropped       // lines, by reason
	Connects  uint64        // connections made
	Failures  uint64        // attempts to connect that failed, and connections that broke
	WriteTime time.Duration // spent in writing; encoded as seconds
	// Problem is why the receiver cannot be reached now; empty: it can, or nothing was
	// to be sent yet. Only a Shipper has it.
	Problem string
}

// Dropped counts lines that were not sent, by reason.
type Dropped struct {
	Full   uint64 // the queue was full, and OnFull is Drop
	Rate   uint64 // above the rate limit
	Size   uint64 // longer than the size limit, or than the receiver can take
	Unsent uint64 // not delivered when time ran out at the end
	Spool  uint64 // in a part of the spool that could not be read; an estimate
}

// Total is the number of dropped lines.
func (d Dropped) Total() uint64 { return d.Full + d.Rate + d.Size + d.Unsent + d.Spool }

// counters are what Counters are read from, safe for concurrent use.
type counters struct {
	received, sent, sentBytes, resent, spooled atomic.Uint64
	full, rate, size, unsent, spool            atomic.Uint64
	connects, failures                         atomic.Uint64
	writeTime                                  atomic.Int64
}

func (c *counters) read() Counters {
	return Counters{
		Received: c.received.Load(), Sent: c.sent.Load(), SentBytes: c.sentBytes.Load(), Resent: c.resent.Load(), Spooled: c.spooled.Load(),
		Dropped:  Dropped{Full: c.full.Load(), Rate: c.rate.Load(), Size: c.size.Load(), Unsent: c.unsent.Load(), Spool: c.spool.Load()},
		Connects: c.connects.Load(), Failures: c.failures.Load(), WriteTime: time.Duration(c.writeTime.Load()),
	}
}

// tooLong counts a line that was longer than its receiver takes.
func (c *counters) tooLong() { c.size.Add(1) }
