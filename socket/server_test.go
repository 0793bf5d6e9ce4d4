package socket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAnswers(t *testing.T) {
	path := served(t, &fake{}, ServerOptions{}, defaultBounds())
	for _, c := range []struct{ name, request, want string }{
		{"status", request("GET", "/v1/status", ""), `{"schema":1,"daemon":{"pid":0,"keeper":0,"version":"","config":"","uptime_seconds":0},"instances":[]}`},
		{"status of", request("GET", "/v1/status?sel=a&sel=b:*", ""), `{"schema":1,"daemon":{"pid":0,"keeper":0,"version":"","config":"","uptime_seconds":0},"instances":[],"unknown":["a","b:*"]}`},
		{"start", request("POST", "/v1/start", `{"selectors":["a"]}`), `{"schema":1,"results":[{"instance":"a","state":"","code":0,"message":"start"}]}`},
		{"any content type", request("POST", "/v1/stop", `{"selectors":["a"]}`, "Content-Type: application/x-www-form-urlencoded"), `{"schema":1,"results":[{"instance":"a","state":"","code":0,"message":"stop"}]}`},
		{"restart", request("POST", "/v1/restart", `{"selectors":["a"],"rolling":true}`), `{"schema":1,"results":[{"instance":"a","state":"","code":0,"message":"restart"}]}`},
		{"signal", request("POST", "/v1/signal", `{"selectors":["a"],"signal":"HUP"}`), `{"schema":1,"results":[{"instance":"a","state":"","code":0,"message":"signal HUP"}]}`},
		{"scale", request("POST", "/v1/scale", `{"selectors":["a"],"numprocs":0}`), `{"schema":1,"results":[{"instance":"a","state":"","code":0,"message":"scale 0"}]}`},
		{"reload", request("POST", "/v1/reload", ""), `{"schema":1,"actions":[{"instance":"web","action":"keep","reasons":[]}]}`},
		{"shutdown", request("POST", "/v1/shutdown", " {} \n"), `{"schema":1,"results":[]}`},
		{"wait", request("POST", "/v1/wait", `{"selectors":["a"],"for":"healthy","timeout_seconds":0.5}`), `{"schema":1,"results":[]}`},
		{"config", request("GET", "/v1/config", ""), `{"programs":{"a":{"cmd":["<&>"]}}}`},
		{"version", request("GET", "/v1/version", ""), `{"schema":1,"version":"1.2.3","api":"v1"}`},
		{"logs", request("GET", "/v1/logs?sel=a&lines=-1&stream=stderr&follow", ""), `{"schema":1,"instance":"a","line":"-1 stderr true"}`},
		{"logs by default", request("GET", "/v1/logs?sel=a", ""), `{"schema":1,"instance":"a","line":"10  false"}`},
		{"events", request("GET", "/v1/events?since=41&follow=0", ""), `{"schema":1,"seq":42,"time":"0001-01-01T00:00:00Z","type":"running","message":"false"}`},
		{"HTTP/1.0", "GET /v1/version HTTP/1.0\r\n\r\n", `{"schema":1,"version":"1.2.3","api":"v1"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := ask(t, path, c.request)
			if resp.StatusCode != http.StatusOK || body != c.want+"\n" {
				t.Errorf("got %s\n%swant\n%s", resp.Status, body, c.want)
			}
		})
	}
}

func TestServerSentEvents(t *testing.T) {
	path := served(t, &fake{}, ServerOptions{}, defaultBounds())
	resp, body := ask(t, path, request("GET", "/v1/events?since=1", "", "Accept: text/event-stream", "Last-Event-ID: 6"))
	want := "id: 7\ndata: {\"schema\":1,\"seq\":7,\"time\":\"0001-01-01T00:00:00Z\",\"type\":\"running\",\"message\":\"false\"}\n\n"
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" || body != want {
		t.Errorf("got %s\n%swant\n%s", got, body, want)
	}
}

func TestBadRequests(t *testing.T) {
	path := served(t, &fake{}, ServerOptions{}, defaultBounds())
	many := func(n int, sel string) string {
		sels, _ := json.Marshal(strings.Split(strings.Repeat(sel+",", n-1)+sel, ","))
		return fmt.Sprintf(`{"selectors":%s}`, sels)
	}
	for _, c := range []struct {
		name, request string
		status, code  int
		says          string
	}{
		{"unknown path", request("GET", "/v2/status", ""), 404, 2, "no such path"},
		{"root", request("GET", "/", ""), 404, 2, "no such path"},
		{"trailing slash", request("GET", "/v1/status/", ""), 404, 2, "no such path"},
		{"method", request("POST", "/v1/status", "{}"), 405, 2, "takes GET, not POST"},
		{"other method", request("DELETE", "/v1/start", ""), 405, 2, "takes POST, not DELETE"},
		{"options of all", request("OPTIONS", "*", ""), 404, 2, "no such path"},
		{"origin", request("GET", "/v1/status", "", "Origin: http://evil.example"), 403, 6, "web pages"},
		{"null origin", request("POST", "/v1/shutdown", "", "Origin: null"), 403, 6, "web pages"},
		{"query of a command", request("POST", "/v1/start?sel=a", `{"selectors":["a"]}`), 400, 2, "not a query"},
		{"body of a query", request("GET", "/v1/status", "{}"), 400, 2, "not a body"},
		{"unknown parameter", request("GET", "/v1/status?selector=a", ""), 400, 2, `no parameter \"selector\"`},
		{"broken query", request("GET", "/v1/status?sel=%zz", ""), 400, 2, "cannot read the query"},
		{"semicolon", request("GET", "/v1/status?sel=a;sel=b", ""), 400, 2, "cannot read the query"},
		{"empty selector", request("GET", "/v1/status?sel=", ""), 400, 2, "selector 1 is empty"},
		{"no body", request("POST", "/v1/start", ""), 400, 2, "nothing is selected"},
		{"no selector", request("POST", "/v1/stop", `{"selectors":[]}`), 400, 2, "nothing is selected"},
		{"no selector of logs", request("GET", "/v1/logs", ""), 400, 2, "nothing is selected"},
		{"long selector", request("POST", "/v1/stop", many(1, strings.Repeat("a", 1025))), 400, 2, "longer than 1024 bytes"},
		{"many selectors", request("POST", "/v1/stop", many(10_001, "a")), 400, 2, "10001 selectors"},
		{"unknown field", request("POST", "/v1/start", `{"selectors":["a"],"timeout":1}`), 400, 2, `unknown field \"timeout\"`},
		{"two objects", request("POST", "/v1/start", `{"selectors":["a"]}{}`), 400, 2, "goes on after"},
		{"garbage after", request("POST", "/v1/start", `{"selectors":["a"]}x`), 400, 2, "goes on after"},
		{"array", request("POST", "/v1/start", `["a"]`), 400, 2, "not a JSON object"},
		{"null", request("POST", "/v1/shutdown", `null`), 400, 2, "not a JSON object"},
		{"wrong type", request("POST", "/v1/start", `{"selectors":"a"}`), 400, 2, "cannot read the body"},
		{"cut off", request("POST", "/v1/start", `{"selectors":["a"`), 400, 2, "cannot read the body"},
		{"binary", request("POST", "/v1/start", "\x00\xff\x80"), 400, 2, "not a JSON object"},
		{"deep", request("POST", "/v1/start", `{"selectors":`+strings.Repeat("[", 100_000)), 400, 2, "cannot read the body"},
		{"negative timeout", request("POST", "/v1/start", `{"selectors":["a"],"timeout_seconds":-1}`), 400, 2, "timeout_seconds -1"},
		{"endless timeout", request("POST", "/v1/wait", `{"selectors":["a"],"for":"running","timeout_seconds":1e300}`), 400, 2, "timeout_seconds 1e+300"},
		{"signal of start", request("POST", "/v1/start", `{"selectors":["a"],"signal":"HUP"}`), 400, 2, "signal is for /v1/signal only"},
		{"numprocs of signal", request("POST", "/v1/signal", `{"selectors":["a"],"signal":"HUP","numprocs":1}`), 400, 2, "numprocs is for /v1/scale only"},
		{"rolling of stop", request("POST", "/v1/stop", `{"selectors":["a"],"rolling":true}`), 400, 2, "rolling is for restart only"},
		{"no signal", request("POST", "/v1/signal", `{"selectors":["a"]}`), 400, 2, "signal is missing"},
		{"no numprocs", request("POST", "/v1/scale", `{"selectors":["a"]}`), 400, 2, "numprocs is missing"},
		{"negative numprocs", request("POST", "/v1/scale", `{"selectors":["a"],"numprocs":-1}`), 400, 2, "numprocs -1"},
		{"too many numprocs", request("POST", "/v1/scale", `{"selectors":["a"],"numprocs":10001}`), 400, 2, "numprocs 10001"},
		{"wait for what", request("POST", "/v1/wait", `{"selectors":["a"],"for":"godot"}`), 400, 2, `cannot wait for \"godot\"`},
		{"lines", request("GET", "/v1/logs?sel=a&lines=-2", ""), 400, 2, "lines="},
		{"stream", request("GET", "/v1/logs?sel=a&stream=stdin", ""), 400, 2, "stream="},
		{"follow", request("GET", "/v1/events?follow=perhaps", ""), 400, 2, "follow="},
		{"follow twice", request("GET", "/v1/events?follow=1&follow=1", ""), 400, 2, "given 2 times"},
		{"since", request("GET", "/v1/events?since=yesterday", ""), 400, 2, "since="},
		{"huge body", request("POST", "/v1/start", `{"selectors":["`+strings.Repeat("a", 1<<20)+`"]}`), 413, 2, "larger than 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := ask(t, path, c.request)
			var p Problem
			if err := json.Unmarshal([]byte(body), &p); err != nil {
				t.Fatalf("%s: the body is no Problem: %v\n%s", resp.Status, err, body)
			}
			if resp.StatusCode != c.status || p.Code != c.code || p.Schema != 1 || p.Hint == "" || !strings.Contains(body, c.says) {
				t.Errorf("got %s\n%swant status %d, code %d, a hint and %q", resp.Status, body, c.status, c.code, c.says)
			}
		})
	}
}

// What is not HTTP is answered by net/http itself, in words.
func TestNotHTTP(t *testing.T) {
	path := served(t, &fake{}, ServerOptions{}, defaultBounds())
	for _, c := range []struct {
		name, request string
		status        int
	}{
		{"huge header", request("GET", "/v1/status", "", "X: "+strings.Repeat("a", 32<<10)), 431},
		{"huge query", request("GET", "/v1/status?sel="+strings.Repeat("a", 32<<10), ""), 431},
		{"binary garbage", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\xff\r\n\r\n", 400},
		{"no host", "GET /v1/status HTTP/1.1\r\n\r\n", 400},
		{"smuggled length", "POST /v1/start HTTP/1.1\r\nHost: pm\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400},
		{"odd coding", "POST /v1/start HTTP/1.1\r\nHost: pm\r\nTransfer-Encoding: gzip\r\n\r\n{}", 501},
	} {
		t.Run(c.name, func(t *testing.T) {
			if resp, body := ask(t, path, c.request); resp.StatusCode != c.status {
				t.Errorf("got %s, want %d\n%s", resp.Status, c.status, body)
			}
		})
	}
	if _, err := dialled(t, path).Version(bounded(t)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestServiceErrors(t *testing.T) {
	for _, c := range []struct {
		err          error
		status, code int
	}{
		{&Problem{Message: "m", Code: CodeFailed}, 409, 1},
		{&Problem{Message: "m"}, 409, 1},
		{&Problem{Message: "m", Code: CodeUsage}, 400, 2},
		{&Problem{Message: "m", Code: CodeNotDesired}, 409, 3},
		{fmt.Errorf("wrapped: %w", &Problem{Message: "m", Code: CodeUnknown}), 404, 4},
		{&Problem{Message: "m", Code: CodePermission}, 403, 6},
		{&Problem{Message: "m", Code: CodeStartFailed}, 409, 7},
		{&Problem{Message: "m", Code: CodeTimeout}, 504, 8},
		{fmt.Errorf("waiting: %w", context.DeadlineExceeded), 504, 8},
		{&Problem{Message: "m", Code: 99}, 500, 99},
		{errors.New("disk on fire"), 500, 1},
	} {
		svc := &fake{
			status: func(context.Context, []string) (Status, error) { return Status{}, c.err },
			logs:   func(context.Context, LogsRequest, func(LogLine) error) error { return c.err },
		}
		path := served(t, svc, ServerOptions{}, defaultBounds())
		for _, target := range []string{"/v1/status", "/v1/logs?sel=a"} {
			resp, body := ask(t, path, request("GET", target, ""))
			var p Problem
			if err := json.Unmarshal([]byte(body), &p); err != nil || resp.StatusCode != c.status || p.Code != c.code {
				t.Errorf("%v: %s answered %s, %s", c.err, target, resp.Status, body)
			}
		}
	}
}

func TestUnencodable(t *testing.T) {
	path := served(t, &fake{status: func(context.Context, []string) (Status, error) {
		return Status{Daemon: DaemonInfo{UptimeSeconds: math.NaN()}}, nil
	}}, ServerOptions{}, defaultBounds())
	if resp, body := ask(t, path, request("GET", "/v1/status", "")); resp.StatusCode != 500 || !strings.Contains(body, "cannot encode") {
		t.Errorf("got %s %s", resp.Status, body)
	}
}

func TestPanic(t *testing.T) {
	log := newLines()
	panicked := make(chan any, 2)
	path := served(t, &fake{
		status: func(context.Context, []string) (Status, error) { panic("at the disco") },
		events: func(_ context.Context, _ EventsRequest, emit func(Event) error) error {
			for range 5000 {
				emit(Event{Type: "running"})
			}
			panic("on the stream")
		},
	}, ServerOptions{Log: log.logger(), Panicked: func(value any) { panicked <- value }}, defaultBounds())
	resp, body := ask(t, path, request("GET", "/v1/status", ""))
	if value := <-panicked; value != "at the disco" {
		t.Errorf("the owner of the process is told of %v", value)
	}
	if resp.StatusCode != 500 || !resp.Close || !strings.Contains(body, "failed inside") {
		t.Errorf("got %s, close %v, %s", resp.Status, resp.Close, body)
	}
	log.wait(t, "at the disco")
	err := dialled(t, path).Events(bounded(t), EventsRequest{}, func(Event) error { return nil })
	var p *Problem
	if !errors.As(err, &p) {
		t.Errorf("a stream that panics ends with %v", err)
	}
	log.wait(t, "on the stream")
	if value := <-panicked; value != "on the stream" {
		t.Errorf("the owner of the process is told of %v", value)
	}
	if _, err := dialled(t, path).Version(bounded(t)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestPeerCredentials(t *testing.T) {
	by := make(chan Peer, 1)
	path := served(t, &fake{act: func(_ context.Context, _ string, peer Peer, _ Request) (Result, error) {
		by <- peer
		return Result{}, nil
	}}, ServerOptions{}, defaultBounds())
	if _, err := dialled(t, path).Stop(bounded(t), Request{Selectors: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	want := Peer{PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid()}
	if got := <-by; got != want {
		t.Errorf("peer is %+v, want %+v", got, want)
	}
}

func TestAdmit(t *testing.T) {
	for _, c := range []struct {
		name     string
		uid, own int
		group    bool
		want     int
	}{
		{"root", 0, 1000, false, 200},
		{"owner", 1000, 1000, false, 200},
		{"stranger", 1001, 1000, false, 403},
		{"stranger with root's daemon", 1001, 0, false, 403},
		{"member of the group", 1001, 1000, true, 200}, // the file's mode keeps others out
	} {
		s, conn := handler(t, &fake{})
		s.uid, s.group = c.own, c.group
		conn.peer.UID = c.uid
		if got := record(s, conn, "GET", "/v1/version", ""); got.Code != c.want {
			t.Errorf("%s: %d, want %d", c.name, got.Code, c.want)
		}
	}
	s, _ := handler(t, &fake{})
	if got := record(s, nil, "GET", "/v1/version", ""); got.Code != 403 {
		t.Errorf("nobody known: %d, want 403", got.Code)
	}
}

// handler returns a server without a socket, and a connection inside its door.
func handler(t testing.TB, svc Service) (*server, *conn) {
	s := newServer(t.Context(), svc, ServerOptions{Log: slog.New(slog.DiscardHandler)}, defaultBounds())
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	c := &conn{Conn: a, door: s.door, peer: Peer{PID: 1}}
	s.door.enter(c)
	return s, c
}

// record has s handle one request of c.
func record(s *server, c *conn, method, target, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if c != nil {
		r = r.WithContext(context.WithValue(r.Context(), connKey{}, c))
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// small are bounds for tests of what happens beyond them.
func small() bounds {
	b := defaultBounds()
	b.read, b.write, b.idle = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	b.grace = time.Millisecond
	return b
}

// A client that stops in the middle of a request, or never begins, is put out.
func TestHalfRequests(t *testing.T) {
	path := served(t, &fake{}, ServerOptions{}, small())
	for name, half := range map[string]string{
		"silent":        "",
		"half a line":   "GET /v1/sta",
		"half a header": "GET /v1/status HTTP/1.1\r\nHost: p",
		"half a body":   "POST /v1/start HTTP/1.1\r\nHost: pm\r\nContent-Length: 30\r\n\r\n{\"selec",
		"half a chunk":  "POST /v1/start HTTP/1.1\r\nHost: pm\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{\"selec",
		"idle":          "GET /v1/version HTTP/1.1\r\nHost: pm\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, path)
			if _, err := io.WriteString(conn, half); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				return // reset instead of closed: as good
			} else if err != nil {
				t.Error("the connection stays open")
			}
			if strings.HasPrefix(half, "POST") && !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
				t.Errorf("answered %q", answer)
			}
		})
	}
}

// 300 clients at once, more than there are places, are all answered. One that the machine
// keeps from asking is sent away, and asks again.
func TestManyClients(t *testing.T) {
	path := served(t, &fake{}, ServerOptions{}, defaultBounds())
	ctx := bounded(t)
	failed := make(chan error, 300)
	var all sync.WaitGroup
	for range cap(failed) {
		all.Go(func() {
			c := Dial(path)
			defer c.Close()
			c.FirstPatience, c.Patience = patience, patience
			_, err := c.Version(ctx)
			failed <- err
		})
	}
	all.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			t.Error(err)
		}
	}
}

// 300 clients that say nothing, say half a thing or do not read their answers
// do not keep another one out.
func TestSilentCrowd(t *testing.T) {
	b := defaultBounds()
	b.grace = time.Millisecond
	path := served(t, &fake{status: manyInstances(1000)}, ServerOptions{}, b)
	for i := range 300 {
		conn := connect(t, path)
		switch {
		case i%20 == 0:
			io.WriteString(conn, request("GET", "/v1/status", ""))
		case i%2 == 0:
			io.WriteString(conn, "GET /v1/status HTT")
		}
	}
	for range 3 {
		if _, err := dialled(t, path).Version(bounded(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func manyInstances(n int) func(context.Context, []string) (Status, error) {
	yes := true
	return func(context.Context, []string) (Status, error) {
		s := Status{Instances: make([]Instance, n)}
		for i := range s.Instances {
			s.Instances[i] = Instance{
				Name: fmt.Sprintf("web:%d", i), Program: "web", Group: "front", State: "RUNNING",
				Task: &Task{ID: fmt.Sprintf("web.%d.1", i), State: "TASK_RUNNING"},
				PID:  1000 + i, Since: time.Unix(1_700_000_000, 123), UptimeSeconds: 61.25, Ready: &yes, Healthy: &yes, Desired: "running",
				Exit: &Exit{Code: 1, Time: time.Unix(1_700_000_000, 123)}, OK: true,
			}
		}
		return s, nil
	}
}

// Watchers and commands have their shares; the rest stays free for others.
func TestShares(t *testing.T) {
	begun := make(chan struct{}, 100)
	hold := func(ctx context.Context) error {
		begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	path := served(t, &fake{
		wait: func(ctx context.Context, _ WaitRequest) (Result, error) { return Result{}, hold(ctx) },
		act:  func(ctx context.Context, _ string, _ Peer, _ Request) (Result, error) { return Result{}, hold(ctx) },
	}, ServerOptions{MaxConns: 8}, defaultBounds())
	ctx, cancel := context.WithCancel(bounded(t))
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	client := dialled(t, path)
	waiting := func() error {
		_, err := client.Wait(ctx, WaitRequest{Selectors: []string{"a"}, For: "running"})
		return err
	}
	acting := func() error {
		_, err := client.Stop(ctx, Request{Selectors: []string{"a"}})
		return err
	}
	for _, c := range []struct {
		do    func() error
		share int
	}{{waiting, 4}, {acting, 2}} {
		for range c.share {
			all.Go(func() { _ = c.do() }) // ended by cancel
		}
		for range c.share {
			received(t, "a request to begin", begun)
		}
		var p *Problem
		if err := c.do(); !errors.As(err, &p) || !strings.Contains(p.Message, "under way") || p.Code != CodeFailed {
			t.Errorf("beyond the share: %v", err)
		}
	}
	if _, err := client.Version(ctx); err != nil {
		t.Errorf("a quick request: %v", err)
	}
}

// When the server ends, streams end at once, a command gets its answer, and
// the socket is gone.
func TestServeEnds(t *testing.T) {
	begun, let := make(chan struct{}, 2), make(chan struct{})
	svc := &fake{
		events: func(ctx context.Context, _ EventsRequest, emit func(Event) error) error {
			emit(Event{Seq: 1, Type: "running"})
			begun <- struct{}{}
			<-ctx.Done()
			close(let)
			return ctx.Err()
		},
		act: func(ctx context.Context, _ string, _ Peer, _ Request) (Result, error) {
			begun <- struct{}{}
			<-let
			return Result{}, ctx.Err()
		},
	}
	path := socketPath(t)
	stop := serveAt(t, path, svc, ServerOptions{}, defaultBounds())
	ctx, client := bounded(t), dialled(t, path)
	silent := connect(t, path)
	followed, stopped := make(chan error, 1), make(chan error, 1)
	go func() { // ends with the server
		followed <- client.Events(ctx, EventsRequest{Follow: true}, func(Event) error { return nil })
	}()
	go func() { // ends with the server
		_, err := client.Stop(ctx, Request{Selectors: []string{"a"}})
		stopped <- err
	}()
	received(t, "a request to begin", begun)
	received(t, "a request to begin", begun)
	stop()
	if err := received(t, "the stream's end", followed); err != nil {
		t.Errorf("stream: %v", err)
	}
	if err := received(t, "the command's answer", stopped); err != nil {
		t.Errorf("command: %v", err)
	}
	if _, err := io.ReadAll(silent); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a silent client is still connected")
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// A request that does not end in time is cut off by the end of its context.
func TestServeEndsSlowCommand(t *testing.T) {
	begun := make(chan struct{})
	svc := &fake{act: func(ctx context.Context, _ string, _ Peer, _ Request) (Result, error) {
		close(begun)
		<-ctx.Done()
		return Result{}, ctx.Err()
	}}
	b := defaultBounds()
	b.linger = 20 * time.Millisecond
	path := socketPath(t)
	stop := serveAt(t, path, svc, ServerOptions{}, b)
	client := dialled(t, path)
	failed := make(chan error, 1)
	go func() { // ends with the server
		_, err := client.Stop(bounded(t), Request{Selectors: []string{"a"}})
		failed <- err
	}()
	<-begun
	stop()
	var p *Problem
	if err := received(t, "the client's error", failed); !errors.As(err, &p) || p.Code != CodeUnreachable {
		t.Errorf("got %v, want code %d", err, CodeUnreachable)
	}
}

func TestServeListenerFails(t *testing.T) {
	path := socketPath(t)
	ln, err := Listen(path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := Serve(t.Context(), ln, &fake{}, ServerOptions{Log: newLines().logger()}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Serve on a closed listener: %v", err)
	}
}

func BenchmarkStatus100(b *testing.B) {
	s, conn := handler(b, &fake{status: manyInstances(100)})
	r := httptest.NewRequest("GET", "/v1/status", nil)
	r = r.WithContext(context.WithValue(r.Context(), connKey{}, conn))
	b.ReportAllocs()
	for b.Loop() {
		w := nobody{http.Header{}}
		s.ServeHTTP(w, r)
	}
}

// nobody reads no answer.
type nobody struct{ header http.Header }

func (n nobody) Header() http.Header         { return n.header }
func (n nobody) Write(b []byte) (int, error) { return len(b), nil }
func (n nobody) WriteHeader(int)             {}
