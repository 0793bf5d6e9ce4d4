package subcmd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"pm.example/socket"
)

// echo answers a request with what was asked, for each selector but nosuch and
// with the code that the selector ends in.
func echo(_ context.Context, verb string, req socket.Request) (socket.Result, error) {
	out := socket.Result{Schema: socket.Schema, Results: []socket.Outcome{}}
	asked, err := json.Marshal(req)
	for _, s := range req.Selectors {
		if s == "nosuch" {
			out.Unknown = append(out.Unknown, s)
			continue
		}
		code := 0
		_, _ = fmt.Sscanf(s, "code%d", &code)
		out.Results = append(out.Results, socket.Outcome{Instance: s, State: "RUNNING", Code: code, Message: verb + " " + string(asked)})
	}
	return out, err
}

// Every flag reaches the daemon, and every outcome the user: what went well on
// stdout, what did not on stderr, and the worst in the exit code.
func TestControl(t *testing.T) {
	path, _ := (&puppet{act: echo}).on(t)
	const unknown = "pm: no such program: nosuch\npm: hint: pm status lists them\n"
	for _, test := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"start web", 0, `web: start {"selectors":["web"]}` + "\n", ""},
		{"start web --no-wait", 0, `web: start {"selectors":["web"],"no_wait":true}` + "\n", ""},
		{"start --timeout 1m30s web", 0, `web: start {"selectors":["web"],"timeout_seconds":90}` + "\n", ""},
		{"start web --timeout 0.5", 0, `web: start {"selectors":["web"],"timeout_seconds":0.5}` + "\n", ""},
		{"stop all", 0, `all: stop {"selectors":["all"]}` + "\n", ""},
		{"stop --no-wait web*", 0, `web*: stop {"selectors":["web*"],"no_wait":true}` + "\n", ""},
		{"restart --rolling group:a", 0, `group:a: restart {"selectors":["group:a"],"rolling":true}` + "\n", ""},
		{"signal HUP web", 0, `web: signal {"selectors":["web"],"signal":"HUP"}` + "\n", ""},
		{"kill 9 web", 0, `web: signal {"selectors":["web"],"signal":"9"}` + "\n", ""},
		{"scale web 8", 0, `web: scale {"selectors":["web"],"numprocs":8}` + "\n", ""},
		{"scale web 0", 0, `web: scale {"selectors":["web"],"numprocs":0}` + "\n", ""},
		{"start nosuch", 4, "", unknown},
		{"start code7", 7, "", `pm: code7: start {"selectors":["code7"]}` + "\n"},
		{
			"stop code1 web code8", 8, `web: stop {"selectors":["code1","web","code8"]}` + "\n",
			`pm: code1: stop {"selectors":["code1","web","code8"]}` + "\n" + `pm: code8: stop {"selectors":["code1","web","code8"]}` + "\n",
		},
		{"restart web nosuch", 4, `web: restart {"selectors":["web","nosuch"]}` + "\n", unknown},
		{
			"start code7 nosuch --json", 4, `{"schema":1,"results":[{"instance":"code7","state":"RUNNING","code":7,` +
				`"message":"start {\"selectors\":[\"code7\",\"nosuch\"]}"}],"unknown":["nosuch"]}` + "\n", unknown,
		},
		{
			"start code7 --json", 7, `{"schema":1,"results":[{"instance":"code7","state":"RUNNING","code":7,` +
				`"message":"start {\"selectors\":[\"code7\"]}"}]}` + "\n", "",
		},
	} {
		t.Run(test.args, func(t *testing.T) {
			pmOn(t, path, strings.Fields(test.args)...).is(t, test.code, test.stdout, test.stderr)
		})
	}
}

func TestWait(t *testing.T) {
	path, _ := (&puppet{wait: func(_ context.Context, req socket.WaitRequest) (socket.Result, error) {
		asked, err := json.Marshal(req)
		return socket.Result{Schema: 1, Results: []socket.Outcome{{Instance: "web", State: "RUNNING", Message: string(asked)}}}, err
	}}).on(t)
	for args, want := range map[string]string{
		"wait web":                           `{"selectors":["web"],"for":"running"}`,
		"wait web db --for stopped":          `{"selectors":["web","db"],"for":"stopped"}`,
		"wait --for=healthy --timeout 5 web": `{"selectors":["web"],"for":"healthy","timeout_seconds":5}`,
	} {
		pmOn(t, path, strings.Fields(args)...).is(t, 0, "web: "+want+"\n", "")
	}
}

// Ctrl-C gives up the wait, quietly, and the daemon learns of it.
func TestInterruptEndsAWait(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		gone := make(chan struct{})
		path, _ := (&puppet{wait: func(ctx context.Context, _ socket.WaitRequest) (socket.Result, error) {
			if err := syscall.Kill(os.Getpid(), sig); err != nil { // the command has begun, so it takes it
				return socket.Result{}, err
			}
			<-ctx.Done()
			close(gone)
			return socket.Result{}, ctx.Err()
		}}).on(t)
		pmOn(t, path, "wait", "web").is(t, 130, "", "")
		<-gone
	}
}

// A full disk or a closed pipe on stdout is not taken for success, or for a
// fault.
func TestStdoutThatFails(t *testing.T) {
	p := &puppet{status: statusOf(instances()), act: echo, logs: twoLines, events: func(_ context.Context, _ socket.EventsRequest, emit func(socket.Event) error) error {
		return emit(socket.Event{Type: "running"})
	}, plan: func(bool) (socket.Plan, error) {
		return socket.Plan{Actions: []socket.Action{{Instance: "web", Action: "start"}}}, nil
	}}
	path, _ := p.on(t)
	for _, args := range []string{
		"status db", "status --json db", "status -q db", "pid db", "pid", "avail", "start web", "start --json web", "logs db", "logs -f db",
		"logs --json db", "events", "reload", "reload --json", "version", "version --json", "config schema", "config show --running",
	} {
		var stderr strings.Builder
		if code := pmTo(t.Context(), path, failing{syscall.ENOSPC}, &stderr, strings.Fields(args)...); code != socket.CodeFailed || stderr.String() != "pm: "+syscall.ENOSPC.Error()+"\n" {
			t.Errorf("pm %s on a full disk: exit %d and %q", args, code, stderr.String())
		}
		stderr.Reset()
		if code := pmTo(t.Context(), path, failing{syscall.EPIPE}, &stderr, strings.Fields(args)...); code != 0 || stderr.Len() > 0 {
			t.Errorf("pm %s | head: exit %d and %q", args, code, stderr.String())
		}
	}
}

// failing is a stream that cannot be written to.
type failing struct{ error }

func (f failing) Write([]byte) (int, error) { return 0, f.error }

// The daemon is not called gone before it is.
func TestShutdown(t *testing.T) {
	for _, args := range []string{"shutdown", "daemon_exit", "shutdown --timeout 20"} {
		told, over := make(chan struct{}), make(chan struct{})
		p := &puppet{status: statusOf(nil)}
		p.shutdown = func() error { close(told); return nil }
		p.events = func(ctx context.Context, _ socket.EventsRequest, _ func(socket.Event) error) error {
			<-ctx.Done()
			return nil
		}
		path, stop := p.on(t)
		go func() { // ended by the request
			<-told
			stop()
			close(over)
		}()
		pmOn(t, path, strings.Fields(args)...).is(t, 0, "", "")
		<-over
		if r := pmOn(t, path, "version", "--json"); r.code != 0 {
			t.Errorf("pm version needs a daemon: %+v", r)
		}
	}
}

func TestShutdownDoesNotWait(t *testing.T) {
	p := &puppet{status: statusOf(nil), shutdown: func() error { return nil }}
	p.events = func(ctx context.Context, _ socket.EventsRequest, _ func(socket.Event) error) error {
		<-ctx.Done()
		return nil
	}
	path, _ := p.on(t)
	pmOn(t, path, "shutdown", "--no-wait").is(t, 0, "", "")
	pmOn(t, path, "shutdown", "--timeout", "50ms").is(t, socket.CodeTimeout, "", "pm: the daemon (pid 5000077) is still going down after 50ms\n")
}
