package subcmd

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pm.example/socket"
)

// moment bounds every wait of a test; none should come near it.
const moment = 20 * time.Second

// puppet is a daemon without programs: it answers what its fields say.
type puppet struct {
	status   func(selectors []string) (socket.Status, error)
	act      func(ctx context.Context, verb string, req socket.Request) (socket.Result, error)
	wait     func(ctx context.Context, req socket.WaitRequest) (socket.Result, error)
	plan     func(dryRun bool) (socket.Plan, error)
	shutdown func() error
	logs     func(ctx context.Context, req socket.LogsRequest, emit func(socket.LogLine) error) error
	events   func(ctx context.Context, req socket.EventsRequest, emit func(socket.Event) error) error
}

func (p *puppet) Status(_ context.Context, selectors []string) (socket.Status, error) {
	return p.status(selectors)
}

func (p *puppet) Start(ctx context.Context, _ socket.Peer, req socket.Request) (socket.Result, error) {
	return p.act(ctx, "start", req)
}

func (p *puppet) Stop(ctx context.Context, _ socket.Peer, req socket.Request) (socket.Result, error) {
	return p.act(ctx, "stop", req)
}

func (p *puppet) Restart(ctx context.Context, _ socket.Peer, req socket.Request) (socket.Result, error) {
	return p.act(ctx, "restart", req)
}

func (p *puppet) Signal(ctx context.Context, _ socket.Peer, req socket.Request) (socket.Result, error) {
	return p.act(ctx, "signal", req)
}

func (p *puppet) Rotate(ctx context.Context, _ socket.Peer, req socket.Request) (socket.Result, error) {
	return p.act(ctx, "rotate", req)
}

func (p *puppet) Reopen(ctx context.Context, _ socket.Peer, req socket.Request) (socket.Result, error) {
	return p.act(ctx, "reopen", req)
}

func (p *puppet) Input(ctx context.Context, _ socket.Peer, req socket.InputRequest) (socket.Result, error) {
	return p.act(ctx, "input", socket.Request{Selectors: req.Selectors})
}

func (p *puppet) Clear(ctx context.Context, _ socket.Peer, req socket.Request) (socket.Result, error) {
	return p.act(ctx, "clear", req)
}

func (p *puppet) Scale(ctx context.Context, _ socket.Peer, req socket.Request) (socket.Result, error) {
	return p.act(ctx, "scale", req)
}

func (p *puppet) Reload(_ context.Context, _ socket.Peer, req socket.ReloadRequest) (socket.Plan, error) {
	return p.plan(req.DryRun)
}

func (p *puppet) Shutdown(context.Context, socket.Peer, socket.ShutdownRequest) error {
	return p.shutdown()
}

func (p *puppet) Upgrade(context.Context, socket.Peer, socket.UpgradeRequest) error { return nil }

func (p *puppet) Wait(ctx context.Context, req socket.WaitRequest) (socket.Result, error) {
	return p.wait(ctx, req)
}

func (p *puppet) Config(context.Context) (json.RawMessage, error) {
	return json.RawMessage(`{"programs":{"web":{"cmd":"a <b"}}}`), nil
}

func (p *puppet) Version() socket.Version {
	return socket.Version{Schema: socket.Schema, Version: "1.2.3", API: "v1"}
}

func (p *puppet) Metrics(context.Context) (socket.Exposition, error) { return nil, nil }

func (p *puppet) Logs(ctx context.Context, req socket.LogsRequest, emit func(socket.LogLine) error) error {
	return p.logs(ctx, req, emit)
}

func (p *puppet) Events(ctx context.Context, req socket.EventsRequest, emit func(socket.Event) error) error {
	return p.events(ctx, req, emit)
}

// on serves p at a socket of its own until the test ends, or until stop.
func (p *puppet) on(t *testing.T) (path string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "s")
	return path, p.at(t, path)
}

// at serves p at path.
func (p *puppet) at(t *testing.T, path string) (stop func()) {
	t.Helper()
	ln, err := socket.Listen(path, socket.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { // ended by cancel
		ended <- socket.Serve(ctx, ln, p, socket.ServerOptions{Log: slog.New(slog.DiscardHandler)})
		close(ended)
	}()
	stop = func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("serving: %v", err)
			}
		case <-time.After(moment):
			t.Error("serving does not end")
		}
	}
	t.Cleanup(stop)
	return stop
}

// ran is what a command line came to.
type ran struct {
	code           int
	stdout, stderr string
}

// pmOn runs a command line in this process, against the daemon at path.
func pmOn(t *testing.T, path string, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	var out, err bytes.Buffer
	code := pmTo(ctx, path, &out, &err, args...)
	return ran{code, out.String(), err.String()}
}

// pmTo is pmOn with streams and an end of the caller's.
func pmTo(ctx context.Context, path string, stdout, stderr io.Writer, args ...string) int {
	getenv := func(key string) string { return map[string]string{"PM_SOCKET": path}[key] }
	return Main(ctx, append([]string{"pm"}, args...), strings.NewReader(""), stdout, stderr, getenv)
}

// is compares all that a command line came to.
func (r ran) is(t *testing.T, code int, stdout, stderr string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit %d, want %d", r.code, code)
	}
	if r.stdout != stdout {
		t.Errorf("stdout:\n%swant:\n%s", r.stdout, stdout)
	}
	if r.stderr != stderr {
		t.Errorf("stderr:\n%swant:\n%s", r.stderr, stderr)
	}
}

// instances are what a puppet has: one of each kind.
func instances() []socket.Instance {
	no := false
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	return []socket.Instance{
		{Name: "db", Program: "db", Group: "backend", State: "RUNNING", PID: 5_000_001, Since: at, UptimeSeconds: 7384, Desired: "running", OK: true, Task: &socket.Task{ID: "db.x-1", State: "TASK_RUNNING"}},
		{Name: "job", Program: "job", State: "EXITED", Since: at, Desired: "running", OK: true, Exit: &socket.Exit{Time: at, Expected: true}, Task: &socket.Task{ID: "job.x-1", State: "TASK_FINISHED"}},
		{Name: "off", Program: "off", State: "STOPPED", Since: at, Desired: "stopped", OK: true},
		{Name: "web:0", Program: "web", State: "RUNNING", PID: 5_000_002, Since: at, UptimeSeconds: 59.4, Restarts: 12, Desired: "running", OK: true, Healthy: &no, Exit: &socket.Exit{Code: -1, Signal: "KILL", Time: at}, Task: &socket.Task{ID: "web:0.x-13", State: "TASK_RUNNING"}},
		{Name: "web:1", Program: "web", State: "FATAL", Since: at, Restarts: 3, Desired: "running", Detail: "exited too quickly (exit 3)", Exit: &socket.Exit{Code: 3, Time: at}, Task: &socket.Task{ID: "web:1.x-4", State: "TASK_FAILED"}},
	}
}

// statusOf answers for instances by the program's name.
func statusOf(list []socket.Instance) func([]string) (socket.Status, error) {
	return func(selectors []string) (socket.Status, error) {
		out := socket.Status{Schema: socket.Schema, Daemon: socket.DaemonInfo{PID: 5_000_077, Keeper: 5_000_077, Version: "1.2.3", Config: "/etc/pm/pm.toml"}, Instances: []socket.Instance{}}
		known := map[string]bool{}
		for _, i := range list {
			if len(selectors) == 0 || slices.Contains(selectors, i.Program) || slices.Contains(selectors, i.Name) {
				out.Instances = append(out.Instances, i)
			}
			known[i.Program], known[i.Name] = true, true
		}
		for _, s := range selectors {
			if !known[s] {
				out.Unknown = append(out.Unknown, s)
			}
		}
		return out, nil
	}
}
