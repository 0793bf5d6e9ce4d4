package socket

import (
	"errors"
	"net"
	"sync"
	"time"
)

// class says how long a request may keep its connection busy.
type class int

const (
	quick   class = iota // answered at once
	command              // until targets have done what they were told
	watch                // as long as the client likes
	classes
)

// door limits how many connections are open at once, so that no client can
// keep others out. Each class of requests but quick has a share that it cannot
// exceed: watchers half, commands a quarter. When all places are taken, a
// newcomer gets the one of the connection that has gone longest without a
// request being worked on, be it silent, slow to send or slow to read.
type door struct {
	max   int
	grace time.Duration // in which a connection is not put out

	freed  chan struct{} // a place may have become free
	closed chan struct{}

	mu     sync.Mutex // guards the fields below
	inside map[*conn]struct{}
	busy   [classes]int
	shut   bool
}

// conn is a connection that passed the door.
type conn struct {
	net.Conn
	peer Peer
	door *door

	// These are guarded by door.mu.
	phase phase
	class class // while working
	since time.Time
}

// phase is what a connection is doing.
type phase int

const (
	reading phase = iota // waiting for a request, or in the middle of one
	working              // the service is at work on a request
	writing              // the answer is on its way
)

func newDoor(size int, grace time.Duration) *door {
	return &door{
		max:    size,
		grace:  grace,
		freed:  make(chan struct{}, 1),
		closed: make(chan struct{}),
		inside: make(map[*conn]struct{}, size),
	}
}

// share is how many requests of a class are worked on at once. What quick
// requests do is over so soon that they need no limit.
func (d *door) share(c class) int {
	switch c {
	case watch:
		return max(1, d.max/2)
	case command:
		return max(1, d.max/4)
	}
	return d.max
}

// enter lets c in, waiting for a place if there is none. It reports false when
// the door is closed.
func (d *door) enter(c *conn) bool {
	for {
		entered, out, wait := d.try(c)
		if out != nil {
			out.Close()
		}
		if entered {
			return true
		}
		select {
		case <-d.freed:
		case <-time.After(wait):
		case <-d.closed:
			return false
		}
	}
}

// try lets c in if it can. It returns whom to put out for it, or how long to
// wait before the next try.
func (d *door) try(c *conn) (entered bool, out *conn, wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut {
		return false, nil, d.grace
	}
	if len(d.inside) >= d.max {
		out = d.oldest()
		if out == nil {
			return false, nil, d.grace
		}
		if age := time.Since(out.since); age < d.grace {
			return false, nil, d.grace - age
		}
		delete(d.inside, out)
	}
	c.since = time.Now()
	d.inside[c] = struct{}{}
	return true, out, 0
}

// oldest returns who has gone longest without being worked for, or nil.
func (d *door) oldest() *conn {
	var found *conn
	for c := range d.inside {
		if c.phase != working && (found == nil || c.since.Before(found.since)) {
			found = c
		}
	}
	return found
}

// begin marks c as being worked for. It reports false when its class has used
// up its share, or when c has been put out.
func (d *door) begin(c *conn, of class) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, in := d.inside[c]; !in || d.busy[of] >= d.share(of) {
		return false
	}
	d.busy[of]++
	c.class = of
	c.phase, c.since = working, time.Now()
	return true
}

// end marks the work for c as done: what follows is the answer.
func (d *door) end(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.phase == working {
		d.busy[c.class]--
		c.phase, c.since = writing, time.Now()
		d.tell()
	}
}

// rest marks c as waiting for its next request.
func (d *door) rest(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.phase, c.since = reading, time.Now()
	d.tell()
}

// leave forgets c.
func (d *door) leave(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.inside, c)
	d.tell()
}

// tell wakes the one who waits for a place, if there is one.
func (d *door) tell() {
	select {
	case d.freed <- struct{}{}:
	default:
	}
}

// close lets nobody in any more and puts out those who have no request under
// way.
func (d *door) close() {
	for _, c := range d.lock() {
		c.Close()
	}
}

// lock shuts the door and returns who has no request under way.
func (d *door) lock() []*conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.shut {
		d.shut = true
		close(d.closed)
	}
	var idle []*conn
	for c := range d.inside {
		if c.phase == reading {
			idle = append(idle, c)
		}
	}
	return idle
}

// Close closes the connection and gives its place away.
func (c *conn) Close() error {
	c.door.leave(c)
	return c.Conn.Close()
}

// CloseWrite ends the answers. net/http uses it to let a client read the last
// one before it closes the connection on what it still sends.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// doorway is a listener whose connections pass the door.
type doorway struct {
	net.Listener
	door *door
}

// Accept waits for the next client and for a place for it.
func (w doorway) Accept() (net.Conn, error) {
	for {
		accepted, err := w.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer, err := peerOf(accepted)
		if err != nil {
			accepted.Close() // already gone, or no Unix socket
			continue
		}
		c := &conn{Conn: accepted, peer: peer, door: w.door}
		if w.door.enter(c) {
			return c, nil
		}
		accepted.Close()
		return nil, net.ErrClosed
	}
}
