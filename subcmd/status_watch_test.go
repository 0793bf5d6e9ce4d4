package subcmd

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"pm.example/socket"
)

// display is a terminal that a command writes to.
type display struct {
	tty  *os.File
	mu   sync.Mutex
	text strings.Builder // all that was written; guarded by mu
	more chan struct{}   // something was
}

// newDisplay opens a terminal of the given size.
func newDisplay(t *testing.T, rows, columns uint16) *display {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatalf("cannot open a terminal: %v", err)
	}
	if err := pty.Setsize(tty, &pty.Winsize{Rows: rows, Cols: columns}); err != nil {
		t.Fatal(err)
	}
	s := &display{tty: tty, more: make(chan struct{}, 1)}
	var reader sync.WaitGroup
	reader.Go(func() { // ended by closing tty
		_, _ = io.Copy(s, master)
	})
	t.Cleanup(func() { _ = tty.Close(); reader.Wait(); _ = master.Close() })
	return s
}

func (s *display) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

// after waits for text that is written after the first n bytes, and returns
// where it ends.
func (s *display) after(t *testing.T, n int, text string) int {
	t.Helper()
	for deadline := time.After(moment); ; {
		s.mu.Lock()
		seen := s.text.String()
		s.mu.Unlock()
		if at := strings.Index(seen[n:], text); at >= 0 {
			return n + at + len(text)
		}
		select {
		case <-s.more:
		case <-deadline:
			t.Fatalf("no %q in %q", text, seen[n:])
		}
	}
}

// stage is a puppet whose only instance changes as the test says.
type stage struct {
	puppet
	mu       sync.Mutex
	instance socket.Instance // guarded by mu
	asked    int             // guarded by mu
	events   chan socket.Event
	over     chan struct{} // ends the stream of events
}

func newStage() *stage {
	s := &stage{events: make(chan socket.Event), over: make(chan struct{})}
	s.instance = instances()[0]
	s.status = func(selectors []string) (socket.Status, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked++
		return statusOf([]socket.Instance{s.instance})(selectors)
	}
	s.puppet.events = func(ctx context.Context, _ socket.EventsRequest, emit func(socket.Event) error) error {
		for {
			select {
			case ev := <-s.events:
				if err := emit(ev); err != nil {
					return err
				}
			case <-s.over:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return s
}

// becomes changes the instance and tells of it.
func (s *stage) becomes(state string) {
	s.mu.Lock()
	s.instance.State = state
	s.mu.Unlock()
	s.events <- socket.Event{Schema: 1, Seq: 1, Type: "any"}
}

func (s *stage) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// watching runs pm status --watch until the test's end, or until stop.
func watching(t *testing.T, path string, stdout io.Writer, args ...string) (stop func(), ended chan ran) {
	ctx, cancel := context.WithCancel(context.Background())
	ended = make(chan ran, 1)
	go func() { // ended by cancel, or with the daemon
		var stderr strings.Builder
		code := pmTo(ctx, path, stdout, &stderr, append([]string{"status", "--watch"}, args...)...)
		ended <- ran{code: code, stderr: stderr.String()}
	}()
	return cancel, ended
}

// Elsewhere than on a terminal, only what changed is printed.
func TestWatchPrintsChanges(t *testing.T) {
	s := newStage()
	path, stop := s.on(t)
	var out display
	out.more = make(chan struct{}, 1)
	_, ended := watching(t, path, &out, "db")
	out.after(t, 0, "db  RUNNING  5000001  2h03m  0  -\n")
	s.becomes("RUNNING") // no change
	s.becomes("STOPPING")
	out.after(t, 0, "db  STOPPING  5000001  2h03m  0  -\n")
	stop()
	if r := <-ended; r.code != socket.CodeUnreachable || r.stderr != "pm: cannot reach the daemon any more: it has ended\n" {
		t.Errorf("exit %d and %q", r.code, r.stderr)
	}
	if want := "db  RUNNING  5000001  2h03m  0  -\ndb  STOPPING  5000001  2h03m  0  -\n"; out.text.String() != want {
		t.Errorf("printed\n%swant\n%s", out.text.String(), want)
	}
}

// An instance that was removed and is there again is printed again.
func TestWatchForgetsWhatIsRemoved(t *testing.T) {
	all := instances()
	out := &display{more: make(chan struct{}, 1)}
	w := &statusWatch{env: &env{stdout: out, getenv: noEnv}, options: statusOptions{format: "plain", quiet: true}}
	for _, list := range [][]socket.Instance{all[:2], all[:1], all[:2], all[:2]} {
		path, stop := (&puppet{status: statusOf(list)}).on(t)
		w.client = socket.Dial(path)
		if err := w.show(t.Context()); err != nil {
			t.Error(err)
		}
		w.client.Close()
		stop()
	}
	if got := out.text.String(); got != "db\njob\njob\n" {
		t.Errorf("printed %q", got)
	}
}

// A daemon that ends says so for a moment, and another may take its place.
func TestWatchGoesOnWithTheNextDaemon(t *testing.T) {
	s := newStage()
	path, _ := s.on(t)
	var out display
	out.more = make(chan struct{}, 1)
	stop, ended := watching(t, path, &out)
	n := out.after(t, 0, "RUNNING")

	well, refusals := s.status, 0
	s.mu.Lock()
	s.instance.State = "STARTING"
	s.mu.Unlock()
	s.puppet.status = func(selectors []string) (socket.Status, error) {
		if refusals++; refusals < 3 {
			return socket.Status{}, &socket.Problem{Message: "the daemon is going down", Code: socket.CodeFailed}
		}
		return well(selectors)
	}
	s.over <- struct{}{}
	out.after(t, n, "STARTING")
	stop()
	if r := <-ended; r.code != 130 || r.stderr != "" {
		t.Errorf("exit %d and %q", r.code, r.stderr)
	}
}

// On a terminal the page is drawn anew, and time passes without asking.
func TestWatchRedraws(t *testing.T) {
	s := newStage()
	path, _ := s.on(t)
	tty := newDisplay(t, 24, 80)
	stop, ended := watching(t, path, tty.tty)
	const heading = "\x1b[HNAME  STATE    PID      UPTIME  RESTARTS  EXIT  DETAIL\x1b[K\r\n"
	n := tty.after(t, 0, heading+"db    \x1b[32mRUNNING\x1b[0m  5000001  2h03m   0         -\x1b[K\r\n\x1b[J")
	s.mu.Lock()
	s.instance.UptimeSeconds = 57
	s.mu.Unlock()
	s.becomes("FATAL")
	n = tty.after(t, n, "\x1b[31;1mFATAL\x1b[0m  5000001  57s ")
	asked := s.requests()
	tty.after(t, n, " 58s ")
	if now := s.requests(); now != asked {
		t.Errorf("asked %d times while nothing happened", now-asked)
	}
	stop()
	if r := <-ended; r.code != 130 || r.stderr != "" {
		t.Errorf("exit %d and %q", r.code, r.stderr)
	}
}

// Nothing wraps or scrolls in a small terminal.
func TestStatusInASmallTerminal(t *testing.T) {
	path, _ := (&puppet{status: statusOf(instances()), events: func(ctx context.Context, _ socket.EventsRequest, _ func(socket.Event) error) error {
		<-ctx.Done()
		return ctx.Err()
	}}).on(t)
	tty := newDisplay(t, 4, 30)
	var stderr strings.Builder
	if code := pmTo(t.Context(), path, tty.tty, &stderr, "status", "web"); code != 3 || stderr.String() != "" {
		t.Errorf("exit %d and %q", code, stderr.String())
	}
	n := tty.after(t, 0, "NAME   STATE    PID      UPTI…\r\nweb:0  \x1b[32mRUNNING\x1b[0m  5000002  59s …\r\nweb:1  \x1b[31;1mFATAL\x1b[0m    -        -   …\r\n")
	stop, ended := watching(t, path, tty.tty)
	tty.after(t, n, "\x1b[HNAME   STATE    PID      UPTI…\x1b[K\r\ndb     \x1b[32mRUNNING\x1b[0m  5000001  2h03…\x1b[K\r\n… and 4 more\x1b[K\r\n\x1b[J")
	stop()
	<-ended
}

func TestPage(t *testing.T) {
	for _, test := range []struct {
		text   string
		height int
		want   string
	}{
		{"a\nb\n", 0, "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"},
		{"a\nb\n", 3, "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"},
		{"a\nb\nc\n", 3, "\x1b[Ha\x1b[K\n… and 2 more\x1b[K\n\x1b[J"},
		{"a\nb\nc\n", 1, "\x1b[Ha\x1b[K\n… and 2 more\x1b[K\n\x1b[J"},
		{"", 24, "\x1b[H\x1b[K\n\x1b[J"},
	} {
		if got := page(test.text, test.height); got != test.want {
			t.Errorf("%q at %d: got %q, want %q", test.text, test.height, got, test.want)
		}
	}
}
