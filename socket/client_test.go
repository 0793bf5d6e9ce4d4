package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestClientUnreachable(t *testing.T) {
	path := socketPath(t)
	stale := path + ".stale"
	leaveStale(t, stale)
	defer os.Remove(stale)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	late, cancelLate := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancelLate()
	for _, c := range []struct {
		name, path string
		ctx        context.Context
		code       int
		says       string
	}{
		{"missing", path, context.Background(), CodeUnreachable, "cannot reach the daemon at " + path + ": no such socket"},
		{"missing directory", filepath.Join(path, "s"), context.Background(), CodeUnreachable, "no such socket"},
		{"stale", stale, context.Background(), CodeUnreachable, "nobody listens on it"},
		{"too long", "/" + strings.Repeat("x", 107), context.Background(), CodeUsage, "at most 107"},
		{"no path", "", context.Background(), CodeUsage, "no socket is named"},
		{"too late", path, late, CodeTimeout, "within the time given"},
		{"cancelled", path, gone, 0, "context canceled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := dialled(t, c.path).Version(c.ctx)
			var p *Problem
			if errors.As(err, &p) != (c.code != 0) || err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want %q", err, c.says)
			}
			if p != nil && (p.Code != c.code || p.Hint == "") {
				t.Errorf("got %+v, want code %d and a hint", p, c.code)
			}
		})
	}
}

func TestUnreachableReasons(t *testing.T) {
	c := Dial("/run/pm/s")
	for err, code := range map[error]int{os.ErrPermission: CodePermission, os.ErrNotExist: CodeUnreachable, errors.New("odd"): CodeUnreachable} {
		var p *Problem
		if got := c.unreachable(context.Background(), err); !errors.As(got, &p) || p.Code != code || p.Hint == "" {
			t.Errorf("%v: %+v", err, got)
		}
	}
}

// A patient client waits for a daemon that is just starting.
func TestClientPatience(t *testing.T) {
	path := socketPath(t)
	client := dialled(t, path)
	client.FirstPatience, client.Patience = patience, patience
	got := make(chan error, 1)
	go func() { // ends with the server's first answer
		_, err := client.Version(bounded(t))
		got <- err
	}()
	serveAt(t, path, &fake{}, ServerOptions{}, defaultBounds())
	if err := received(t, "the answer", got); err != nil {
		t.Error(err)
	}
}

// One that waits for no daemon that is just starting waits for one that was there all the
// same: its worker may have been killed.
func TestClientWaitsForTheLost(t *testing.T) {
	path := socketPath(t)
	client := dialled(t, path)
	client.Patience = patience
	var p *Problem
	if _, err := client.Version(bounded(t)); !errors.As(err, &p) || p.Code != CodeUnreachable {
		t.Fatalf("before there is a daemon: %v", err)
	}
	stop := serveAt(t, path, &fake{}, ServerOptions{}, defaultBounds())
	if _, err := client.Version(bounded(t)); err != nil {
		t.Fatal(err)
	}
	stop()
	soon, cancel := context.WithTimeout(bounded(t), 10*dialAgain)
	defer cancel()
	if _, err := client.Version(soon); !errors.As(err, &p) || p.Code != CodeTimeout {
		t.Errorf("while it is away: %v", err)
	}
	serveAt(t, path, &fake{}, ServerOptions{}, defaultBounds())
	if _, err := client.Version(bounded(t)); err != nil {
		t.Error(err)
	}
}

func TestClientMethods(t *testing.T) {
	client, ctx := dialled(t, served(t, &fake{}, ServerOptions{}, defaultBounds())), bounded(t)
	two := 2
	req := Request{Selectors: []string{"a"}}
	for message, do := range map[string]func() (Result, error){
		"start":      func() (Result, error) { return client.Start(ctx, req) },
		"stop":       func() (Result, error) { return client.Stop(ctx, req) },
		"restart":    func() (Result, error) { return client.Restart(ctx, req) },
		"signal HUP": func() (Result, error) { return client.Signal(ctx, Request{Selectors: []string{"a"}, Signal: "HUP"}) },
		"rotate":     func() (Result, error) { return client.Rotate(ctx, req) },
		"reopen":     func() (Result, error) { return client.Reopen(ctx, req) },
		"clear":      func() (Result, error) { return client.Clear(ctx, req) },
		"input x": func() (Result, error) {
			return client.Input(ctx, InputRequest{Selectors: []string{"a"}, Base64: "eA=="})
		},
		"scale 2": func() (Result, error) { return client.Scale(ctx, Request{Selectors: []string{"a"}, NumProcs: &two}) },
	} {
		want := Result{Schema: 1, Results: []Outcome{{Instance: "a", Message: message}}}
		if got, err := do(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", message, got, err)
		}
	}
	if err := client.Shutdown(ctx, ShutdownRequest{}); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if got, err := client.Config(ctx); err != nil || string(got) != `{"programs":{"a":{"cmd":["<&>"]}}}` {
		t.Errorf("config: %s, %v", got, err)
	}
	if got, err := client.Reload(ctx, ReloadRequest{DryRun: true}); err != nil || len(got.Actions) != 1 {
		t.Errorf("reload: %+v, %v", got, err)
	}
	if got, err := client.Wait(ctx, WaitRequest{Selectors: []string{"a"}, For: "running"}); err != nil || got.Schema != 1 {
		t.Errorf("wait: %+v, %v", got, err)
	}
	var line LogLine
	err := client.Logs(ctx, LogsRequest{Selectors: []string{"a b&c"}, Lines: 3, Stream: "stdout", Follow: true}, func(l LogLine) error { line = l; return nil })
	if err != nil || line.Instance != "a b&c" || line.Line != "3 stdout true" {
		t.Errorf("logs: %+v, %v", line, err)
	}
	enough := errors.New("enough")
	if err := client.Events(ctx, EventsRequest{Since: 3, Follow: true}, func(Event) error { return enough }); err != enough {
		t.Errorf("events: %v, want fn's error", err)
	}
	var p *Problem
	if _, err := client.Start(ctx, Request{}); !errors.As(err, &p) || p.Code != CodeUsage || p.Message != "nothing is selected" {
		t.Errorf("start of nothing: %+v", err)
	}
}

// More selectors than a header can hold are asked for in several requests.
func TestClientManySelectors(t *testing.T) {
	calls := 0
	path := served(t, &fake{status: func(_ context.Context, selectors []string) (Status, error) {
		calls++
		s := Status{Instances: []Instance{{Name: "in all"}}}
		for _, sel := range selectors {
			s.Instances = append(s.Instances, Instance{Name: sel})
		}
		return s, nil
	}}, ServerOptions{}, defaultBounds())
	var selectors []string
	for i := range 2000 {
		selectors = append(selectors, fmt.Sprintf("program-%d:*", i))
	}
	got, err := dialled(t, path).Status(bounded(t), selectors)
	if err != nil || len(got.Instances) != 2001 || got.Schema != 1 || calls < 2 {
		t.Errorf("%d instances in %d calls, %v", len(got.Instances), calls, err)
	}
}

// What answers may be no daemon, or one that dies over it.
func TestClientStrangeAnswers(t *testing.T) {
	for _, c := range []struct {
		name, answer string
		code         int
		says         string
	}{
		{"nothing", "", CodeUnreachable, "lost the daemon at"},
		{"half", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", CodeUnreachable, "lost the daemon at"},
		{"no HTTP", "SSH-2.0-OpenSSH\r\n\r\n", CodeUnreachable, "lost the daemon at"},
		{"no JSON", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", CodeFailed, "cannot understand"},
		{"no Problem", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 9\r\n\r\nout\nhere.", CodeFailed, "502 Bad Gateway: out"},
		{"a lying length", "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n{", CodeUnreachable, "lost the daemon at"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := socketPath(t)
			answering(t, path, c.answer)
			_, err := dialled(t, path).Version(bounded(t))
			var p *Problem
			if !errors.As(err, &p) || p.Code != c.code || !strings.Contains(p.Message, c.says) {
				t.Errorf("got %+v, want code %d and %q", err, c.code, c.says)
			}
		})
	}
}

// A stream that breaks off is told as that, after the lines that were whole.
func TestClientBrokenStream(t *testing.T) {
	for name, answer := range map[string]string{
		"in a line":      "Content-Length: 100\r\n\r\n{\"seq\":1}\n{\"se",
		"between lines":  "Content-Length: 100\r\n\r\n{\"seq\":1}\n",
		"without length": "\r\n{\"seq\":1}\n{\"se",
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			answering(t, path, "HTTP/1.1 200 OK\r\n"+answer)
			var got []uint64
			err := dialled(t, path).Events(bounded(t), EventsRequest{}, func(e Event) error { got = append(got, e.Seq); return nil })
			var p *Problem
			if !errors.As(err, &p) || p.Code != CodeUnreachable || len(got) != 1 {
				t.Errorf("events %v, %+v", got, err)
			}
		})
	}
}

// answering gives the same answer to the first request and closes.
func answering(t *testing.T, path, answer string) {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends after one connection, or when ln is closed
		defer close(done)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Read(make([]byte, 1000))
		conn.Write([]byte(answer))
	}()
	t.Cleanup(func() { ln.Close(); <-done })
}

func TestRefusalWithoutCode(t *testing.T) {
	rec := &http.Response{StatusCode: 500, Status: "500 x", Body: http.NoBody}
	if err := refusal(rec); err == nil || !strings.Contains(err.Error(), "500 x") {
		t.Errorf("got %v", err)
	}
}
