package socket

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait of a test; none should come near it.
const patience = 20 * time.Second

// fake is a Service that succeeds at everything, unless a field says else.
type fake struct {
	status   func(ctx context.Context, selectors []string) (Status, error)
	act      func(ctx context.Context, verb string, by Peer, req Request) (Result, error)
	reload   func(ctx context.Context, req ReloadRequest) (Plan, error)
	shutdown func() error
	wait     func(ctx context.Context, req WaitRequest) (Result, error)
	logs     func(ctx context.Context, req LogsRequest, emit func(LogLine) error) error
	events   func(ctx context.Context, req EventsRequest, emit func(Event) error) error
}

func (f *fake) Status(ctx context.Context, selectors []string) (Status, error) {
	if f.status == nil {
		return Status{Unknown: selectors}, nil
	}
	return f.status(ctx, selectors)
}

func (f *fake) do(ctx context.Context, verb string, by Peer, req Request) (Result, error) {
	if f.act == nil {
		return Result{Results: []Outcome{{Instance: req.Selectors[0], Message: verb}}}, nil
	}
	return f.act(ctx, verb, by, req)
}

func (f *fake) Start(ctx context.Context, by Peer, req Request) (Result, error) {
	return f.do(ctx, "start", by, req)
}

func (f *fake) Stop(ctx context.Context, by Peer, req Request) (Result, error) {
	return f.do(ctx, "stop", by, req)
}

func (f *fake) Restart(ctx context.Context, by Peer, req Request) (Result, error) {
	return f.do(ctx, "restart", by, req)
}

func (f *fake) Signal(ctx context.Context, by Peer, req Request) (Result, error) {
	return f.do(ctx, "signal "+req.Signal, by, req)
}

func (f *fake) Rotate(ctx context.Context, by Peer, req Request) (Result, error) {
	return f.do(ctx, "rotate", by, req)
}

func (f *fake) Reopen(ctx context.Context, by Peer, req Request) (Result, error) {
	return f.do(ctx, "reopen", by, req)
}

func (f *fake) Clear(ctx context.Context, by Peer, req Request) (Result, error) {
	return f.do(ctx, "clear", by, req)
}

func (f *fake) Input(ctx context.Context, by Peer, req InputRequest) (Result, error) {
	text, err := req.Bytes()
	if err != nil {
		return Result{}, err
	}
	return f.do(ctx, "input "+string(text), by, Request{Selectors: req.Selectors})
}

func (f *fake) Scale(ctx context.Context, by Peer, req Request) (Result, error) {
	return f.do(ctx, fmt.Sprint("scale ", *req.NumProcs), by, req)
}

func (f *fake) Reload(ctx context.Context, _ Peer, req ReloadRequest) (Plan, error) {
	if f.reload == nil {
		return Plan{Actions: []Action{{Instance: "web", Action: "keep"}}}, nil
	}
	return f.reload(ctx, req)
}

func (f *fake) Upgrade(context.Context, Peer, UpgradeRequest) error { return nil }

func (f *fake) Shutdown(context.Context, Peer, ShutdownRequest) error {
	if f.shutdown == nil {
		return nil
	}
	return f.shutdown()
}

func (f *fake) Wait(ctx context.Context, req WaitRequest) (Result, error) {
	if f.wait == nil {
		return Result{}, nil
	}
	return f.wait(ctx, req)
}

func (f *fake) Config(context.Context) (json.RawMessage, error) {
	return json.RawMessage(`{"programs":{"a":{"cmd":["<&>"]}}}`), nil
}

func (f *fake) Version() Version { return Version{Version: "1.2.3"} }

func (f *fake) Metrics(context.Context) (Exposition, error) { return Exposition("pm_ok 1\n"), nil }

func (f *fake) Logs(ctx context.Context, req LogsRequest, emit func(LogLine) error) error {
	if f.logs == nil {
		return emit(LogLine{Instance: req.Selectors[0], Line: fmt.Sprintf("%d %s %v", req.Lines, req.Stream, req.Follow)})
	}
	return f.logs(ctx, req, emit)
}

func (f *fake) Events(ctx context.Context, req EventsRequest, emit func(Event) error) error {
	if f.events == nil {
		return emit(Event{Seq: req.Since + 1, Type: "running", Message: fmt.Sprint(req.Follow)})
	}
	return f.events(ctx, req, emit)
}

// socketPath returns a path in a short directory of the test's own, which must
// be empty at the end.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, _ := os.ReadDir(dir)
		for _, entry := range left {
			t.Errorf("the test left %s behind", entry.Name())
		}
		os.RemoveAll(dir)
	})
	return filepath.Join(dir, "s")
}

// served serves svc at a new socket until the test ends, and checks that it
// then ends in order.
func served(t testing.TB, svc Service, opts ServerOptions, b bounds) string {
	t.Helper()
	path := socketPath(t)
	serveAt(t, path, svc, opts, b)
	return path
}

func serveAt(t testing.TB, path string, svc Service, opts ServerOptions, b bounds) (stop func()) {
	t.Helper()
	ln, err := Listen(path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, ln, svc, opts, b) }() // ended by cancel
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve does not end")
		}
	}
	t.Cleanup(stop)
	return stop
}

// dialled returns a client that is closed at the test's end.
func dialled(t testing.TB, path string) *Client {
	c := Dial(path)
	t.Cleanup(c.Close)
	return c
}

// bounded returns a context that ends with the test, or when patience does.
func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// connect returns a bare connection, for clients that misbehave.
func connect(t testing.TB, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends raw bytes and returns the answer's status and body.
func ask(t testing.TB, path, raw string) (*http.Response, string) {
	t.Helper()
	conn := connect(t, path)
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// request writes a request by hand.
func request(method, target, body string, header ...string) string {
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: pm"}, header...)
	if body != "" {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// received waits for a value, or fails the test.
func received[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// lines keeps what is logged and wakes whoever waits for it.
type lines chan string

func newLines() lines { return make(lines, 1000) }

// Write keeps one line.
func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

func (l lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// wait waits for a line that contains what.
func (l lines) wait(t testing.TB, what string) {
	t.Helper()
	for {
		if strings.Contains(received(t, what, l), what) {
			return
		}
	}
}
