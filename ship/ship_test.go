package ship

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// receiver is a listener that keeps every line it reads.
type receiver struct {
	net.Listener
	network, address string

	mu    sync.Mutex // guards lines and conns
	lines []string
	conns []net.Conn
	grown chan struct{} // gets something when there are more lines
	came  chan struct{} // gets something when there is another connection
	wg    sync.WaitGroup
}

// listen begins to receive; address may be that of an earlier receiver.
func listen(t *testing.T, network, address string) *receiver {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{Listener: l, network: network, address: l.Addr().String(), grown: make(chan struct{}, 1), came: make(chan struct{}, 100)}
	r.wg.Go(r.accept) // ends when the listener is closed
	t.Cleanup(r.stop)
	return r
}

func (r *receiver) accept() {
	for {
		c, err := r.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.conns = append(r.conns, c)
		r.mu.Unlock()
		r.came <- struct{}{}
		r.wg.Go(func() { r.read(c) }) // ends when the connection does
	}
}

func (r *receiver) read(c net.Conn) {
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		r.mu.Lock()
		r.lines = append(r.lines, strings.TrimSuffix(line, "\n"))
		r.mu.Unlock()
		select {
		case r.grown <- struct{}{}:
		default:
		}
	}
}

// stop dies: connections with unread bytes are reset.
func (r *receiver) stop() {
	_ = r.Close()
	r.mu.Lock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

func (r *receiver) received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.lines...)
}

// await waits until there are n lines.
func (r *receiver) await(t *testing.T, n int) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for len(r.received()) < n {
		select {
		case <-r.grown:
		case <-deadline:
			t.Fatalf("%d lines after 30s, want %d", len(r.received()), n)
		}
	}
}

func (r *receiver) url() string { return r.network + "://" + r.address }

// numbered is a block of lines "line FROM" to "line TO-1".
func numbered(from, to int) []byte {
	var b bytes.Buffer
	for n := from; n < to; n++ {
		fmt.Fprintf(&b, "line %d\n", n)
	}
	return b.Bytes()
}

// check fails unless the lines hold every number below n, and at most twice
// unless doubled is true.
func check(t *testing.T, lines []string, n int, doubled bool) {
	t.Helper()
	seen := make([]int, n)
	for _, line := range lines {
		number := -1
		if _, err := fmt.Sscanf(line, "line %d", &number); err != nil || number < 0 || number >= n || line != fmt.Sprintf("line %d", number) {
			t.Fatalf("a torn or strange line: %q", line)
		}
		seen[number]++
	}
	for number, times := range seen {
		if times == 0 || times > 1 && !doubled {
			t.Fatalf("line %d came %d times", number, times)
		}
	}
}

// start runs a shipper to the receiver, and returns what waits for its end.
func start(t *testing.T, ctx context.Context, url string, change func(*Options)) (*Shipper, func() error) {
	t.Helper()
	to, err := ParseReceiver(url)
	if err != nil {
		t.Fatal(err)
	}
	o := Defaults(to)
	o.Tell = func(message string) { t.Log(message) }
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }() // the caller waits for it
	return s, func() error {
		select {
		case err := <-ended:
			return err
		case <-time.After(60 * time.Second):
			t.Fatal("Run has not returned after a minute")
			return nil
		}
	}
}

func ship(t *testing.T, s *Shipper, lines []byte) {
	t.Helper()
	if err := s.Ship(t.Context(), lines); err != nil {
		t.Fatal(err)
	}
}

func TestShipsOverStreams(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(t.TempDir(), "s")
			}
			r := listen(t, network, address)
			s, wait := start(t, t.Context(), r.url(), nil)
			const n = 50_000
			for at := 0; at < n; at += 1000 {
				ship(t, s, numbered(at, at+1000))
			}
			s.Finish()
			if err := wait(); err != nil {
				t.Fatal(err)
			}
			check(t, r.received(), n, false)
			if c := s.Counters(); c.Received != n || c.Sent != n || c.Resent != 0 || c.Dropped.Total() != 0 || c.Connects != 1 {
				t.Errorf("%+v", c)
			}
		})
	}
}

func TestShipsToFileAndWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	var out bytes.Buffer
	for _, url := range []string{"file:" + path, "-"} {
		s, wait := start(t, t.Context(), url, func(o *Options) { o.Stdout = &out })
		ship(t, s, numbered(0, 1000))
		s.Finish()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(data, numbered(0, 1000)) || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("%v, %d and %d bytes", err, len(data), out.Len())
	}
}

func TestShipsDatagrams(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	s, wait := start(t, t.Context(), "udp://"+conn.LocalAddr().String(), nil)
	long := strings.Repeat("x", longestUDP) + "\n"
	ship(t, s, []byte("one\ntwo\n"+long+"three\n"))
	s.Finish()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one\n", "two\n", "three\n"} {
		buffer := make([]byte, 100)
		n, _, err := conn.ReadFrom(buffer)
		if err != nil || string(buffer[:n]) != want {
			t.Errorf("%q, %v; want %q", buffer[:n], err, want)
		}
	}
	if c := s.Counters(); c.Dropped.Size != 1 {
		t.Errorf("%+v", c)
	}
}

// Nobody listens at first, then a receiver dies with bytes unread, again and
// again: everything arrives.
func TestReceiverDies(t *testing.T) {
	for _, spool := range []bool{false, true} {
		t.Run(fmt.Sprintf("spool=%v", spool), func(t *testing.T) {
			r := listen(t, "tcp", "127.0.0.1:0")
			r.stop()
			var all []string
			s, wait := start(t, t.Context(), r.url(), func(o *Options) {
				if spool {
					o.Spool = t.TempDir()
				}
			})
			const n, deaths = 100_000, 4
			more := make(chan struct{}, deaths+1) // so that there are lines for every receiver
			go func() {                           // ends when all is shipped, or the test is over
				for at := 0; at < n; at += 100 {
					if at%(n/(deaths+1)) == 0 {
						select {
						case <-more:
						case <-t.Context().Done():
						}
					}
					if s.Ship(t.Context(), numbered(at, at+100)) != nil {
						return
					}
				}
				s.Finish()
			}()
			for range deaths {
				more <- struct{}{}
				r = listen(t, "tcp", r.address)
				r.await(t, 1000)
				r.stop()
				all = append(all, r.received()...)
			}
			more <- struct{}{}
			r = listen(t, "tcp", r.address)
			if err := wait(); err != nil {
				t.Fatal(err)
			}
			check(t, append(all, r.received()...), n, true)
			c := s.Counters()
			if c.Received != n || c.Sent != n || c.Resent == 0 || c.Spooled > 0 && !spool || c.Dropped.Total() != 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// A receiver that cannot be reached costs the lines, and says so; with a spool
// the next shipper has them.
func TestNobodyListens(t *testing.T) {
	r := listen(t, "tcp", "127.0.0.1:0")
	r.stop()
	ctx, cancel := context.WithCancel(t.Context())
	s, wait := start(t, ctx, r.url(), nil)
	ship(t, s, numbered(0, 10))
	s.Finish()
	cancel()
	var undelivered *Undelivered
	if err := wait(); !errors.As(err, &undelivered) || undelivered.Lines != 10 {
		t.Errorf("%v", err)
	}
	if err := s.Ship(t.Context(), numbered(0, 1)); err == nil {
		t.Error("a shipper that has ended takes lines")
	}

	dir := t.TempDir()
	spooled := func(o *Options) { o.Spool = dir }
	ctx, cancel = context.WithCancel(t.Context())
	s, wait = start(t, ctx, r.url(), spooled)
	ship(t, s, numbered(0, 10))
	cancel()
	if err := wait(); err != nil {
		t.Errorf("%v", err)
	}
	r = listen(t, "tcp", r.address)
	s, wait = start(t, t.Context(), r.url(), spooled)
	ship(t, s, numbered(10, 20))
	s.Finish()
	if err := wait(); err != nil {
		t.Error(err)
	}
	check(t, r.received(), 20, false)
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("the spool is not empty: %v %v", left, err)
	}
}

func TestEmptyEnds(t *testing.T) {
	r := listen(t, "tcp", "127.0.0.1:0")
	r.stop()
	s, wait := start(t, t.Context(), r.url(), nil)
	s.Finish()
	if err := wait(); err != nil {
		t.Error(err)
	}
}

func TestFullDrops(t *testing.T) {
	r := listen(t, "tcp", "127.0.0.1:0")
	r.stop()
	ctx, cancel := context.WithCancel(t.Context())
	s, wait := start(t, ctx, r.url(), func(o *Options) { o.OnFull, o.Buffer, o.BufferLines = Drop, 1, 100 })
	for n := range 300 {
		ship(t, s, numbered(n, n+1))
	}
	if c := s.Counters(); c.Received != 300 || c.Dropped.Full != 200 {
		t.Errorf("%+v", c)
	}
	cancel()
	_ = wait()
}

// Lines for which there is no room wait until the context ends.
func TestFullBlocks(t *testing.T) {
	r := listen(t, "tcp", "127.0.0.1:0")
	r.stop()
	ctx, cancel := context.WithCancel(t.Context())
	s, wait := start(t, ctx, r.url(), func(o *Options) { o.BufferLines = 100 })
	limited, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	ship(t, s, numbered(0, 100))
	if err := s.Ship(limited, numbered(100, 101)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	cancel()
	_ = wait()
}

// A broken standard output ends Run.
func TestWriterFails(t *testing.T) {
	in, out := io.Pipe()
	_ = in.CloseWithError(io.ErrNoProgress)
	s, wait := start(t, t.Context(), "-", func(o *Options) { o.Stdout = out })
	ship(t, s, numbered(0, 1))
	if err := wait(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("%v", err)
	}
}

// A receiver that closes an idle connection gets nothing twice; one that was
// killed after it had read everything gets what is young again.
func TestReceiverCloses(t *testing.T) {
	for again, digest := range map[uint64]time.Duration{0: 0, 100: time.Hour} {
		r := listen(t, "tcp", "127.0.0.1:0")
		s, wait := start(t, t.Context(), r.url(), func(o *Options) { o.digest = digest })
		ship(t, s, numbered(0, 100))
		r.await(t, 100)
		first := r.received()
		r.stop()
		r = listen(t, "tcp", r.address)
		<-r.came
		ship(t, s, numbered(100, 200))
		s.Finish()
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		check(t, append(first, r.received()...), 200, again > 0)
		if got := s.Counters().Resent; got != again {
			t.Errorf("%d lines came again, want %d", got, again)
		}
	}
}

// TestSafe ships to a receiver that comes late: lines that only memory has are not
// safe, and those behind them neither; what arrived, or is in the spool, is.
func TestSafe(t *testing.T) {
	for _, spool := range []bool{false, true} {
		t.Run(fmt.Sprint("spool ", spool), func(t *testing.T) {
			r := listen(t, "tcp", "127.0.0.1:0")
			to, err := ParseReceiver(r.url())
			if err != nil {
				t.Fatal(err)
			}
			r.stop()
			o := Defaults(to)
			if spool {
				o.Spool = t.TempDir()
			}
			away := make(chan struct{}, 10)
			o.Tell = func(string) { away <- struct{}{} }
			s, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }() // ended by cancel
			defer func() { cancel(); <-ended }()
			<-away
			if err := s.Ship(ctx, numbered(0, 10)); err != nil {
				t.Fatal(err)
			}
			want := uint64(0)
			if spool {
				want = 10
			}
			if got := s.Safe(); got != want {
				t.Errorf("%d lines are safe without a receiver, want %d", got, want)
			}
			again := listen(t, "tcp", r.address)
			again.await(t, 10)
			late, look := time.After(time.Minute), time.NewTicker(time.Millisecond) // nobody tells of it
			defer look.Stop()
			for s.Safe() < 10 {
				select {
				case <-look.C:
				case <-late:
					t.Fatalf("%d lines are safe, of 10 that arrived", s.Safe())
				}
			}
		})
	}
}
