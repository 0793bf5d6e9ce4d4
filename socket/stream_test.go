package socket

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// opened asks for a stream and returns its lines as they arrive.
func opened(t *testing.T, path, target string) (io.Closer, *bufio.Reader) {
	t.Helper()
	conn := connect(t, path)
	if _, err := io.WriteString(conn, request("GET", target, "")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "application/jsonl" {
		t.Fatalf("got %s, %s", resp.Status, got)
	}
	return conn, bufio.NewReader(resp.Body)
}

// Lines arrive while the service goes on, in order, and its end ends the body.
func TestStreamFollows(t *testing.T) {
	next := make(chan Event)
	path := served(t, &fake{events: func(ctx context.Context, _ EventsRequest, emit func(Event) error) error {
		for e := range next {
			if err := emit(e); err != nil {
				return err
			}
		}
		return nil
	}}, ServerOptions{}, defaultBounds())
	_, lines := opened(t, path, "/v1/events?follow") // the header comes before any event
	for seq := range uint64(3) {
		next <- Event{Seq: seq, Type: "running"}
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil || e.Seq != seq || e.Schema != Schema {
			t.Errorf("event %d: %v, %s", seq, err, line)
		}
	}
	close(next)
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("at the end: %q, %v", rest, err)
	}
}

// A client that goes away ends the service's work for it, also when nothing
// happens that could be sent.
func TestStreamClientVanishes(t *testing.T) {
	ended := make(chan error, 1)
	path := served(t, &fake{logs: func(ctx context.Context, _ LogsRequest, emit func(LogLine) error) error {
		emit(LogLine{Line: "first"})
		<-ctx.Done()
		err := emit(LogLine{Line: "too late"})
		for err == nil { // what fits into the buffer is still taken
			err = emit(LogLine{Line: strings.Repeat("x", 1000)})
		}
		ended <- err
		return err
	}}, ServerOptions{}, defaultBounds())
	conn, lines := opened(t, path, "/v1/logs?sel=a&follow")
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := received(t, "the service's end", ended); err == nil {
		t.Error("emit succeeds for a client that has gone")
	}
}

// Publishing an event never waits for a client that does not read: it is cut
// off, told so when it reads on, and can go on from there.
func TestEventsDropped(t *testing.T) {
	sent := make(chan uint64, 1)
	cut := make(chan error, 1)
	path := served(t, &fake{events: func(ctx context.Context, _ EventsRequest, emit func(Event) error) error {
		for seq := uint64(1); ; seq++ {
			if err := emit(Event{Seq: seq, Type: "running", Message: strings.Repeat("x", 500)}); err != nil {
				sent <- seq - 1
				cut <- err
				return err
			}
		}
	}}, ServerOptions{}, defaultBounds())
	_, lines := opened(t, path, "/v1/events")
	if err := received(t, "the cut", cut); !errors.Is(err, errSlow) {
		t.Errorf("emit failed with %v", err)
	}
	last, seq := Event{}, uint64(0)
	for dec := json.NewDecoder(lines); ; {
		var e Event
		err := dec.Decode(&e)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != EventDropped && e.Seq != seq+1 {
			t.Fatalf("event %d after %d", e.Seq, seq)
		}
		seq, last = e.Seq, e
	}
	if want := received(t, "the count", sent); last.Type != EventDropped || last.Seq != want {
		t.Errorf("the last event is %+v, want dropped after %d", last, want)
	}
}

// A client that never reads on is cut off in the end, and emit of a log, which
// waits for it, fails.
func TestLogsSlowClient(t *testing.T) {
	cut := make(chan error, 1)
	b := defaultBounds()
	b.write = 50 * time.Millisecond
	path := served(t, &fake{logs: func(ctx context.Context, _ LogsRequest, emit func(LogLine) error) error {
		for {
			if err := emit(LogLine{Line: strings.Repeat("x", 10_000)}); err != nil {
				cut <- err
				return err
			}
		}
	}}, ServerOptions{}, b)
	_, lines := opened(t, path, "/v1/logs?sel=a")
	if err := received(t, "the cut", cut); err == nil {
		t.Error("emit succeeds for ever")
	}
	if _, err := io.ReadAll(lines); err == nil {
		t.Error("what was cut off ends like a whole stream")
	}
}

// Logs that are much larger than the buffer arrive whole, from several
// emitters at once.
func TestLogsWhole(t *testing.T) {
	const emitters, each = 4, 5000
	path := served(t, &fake{logs: func(ctx context.Context, _ LogsRequest, emit func(LogLine) error) error {
		errs := make(chan error, emitters)
		for i := range emitters {
			go func() { // ends with its lines
				var err error
				for n := 0; n < each && err == nil; n++ {
					err = emit(LogLine{Instance: fmt.Sprint("a:", i), Line: fmt.Sprint(n, strings.Repeat("y", 100))})
				}
				errs <- err
			}()
		}
		var err error
		for range emitters {
			err = errors.Join(err, <-errs)
		}
		return err
	}}, ServerOptions{}, defaultBounds())
	got := map[string]int{}
	err := dialled(t, path).Logs(bounded(t), LogsRequest{Selectors: []string{"a"}, Lines: -1}, func(l LogLine) error {
		if want := fmt.Sprint(got[l.Instance], strings.Repeat("y", 100)); l.Line != want {
			return fmt.Errorf("%s: line %.10q, want %.10q", l.Instance, l.Line, want)
		}
		got[l.Instance]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range emitters {
		if n := got[fmt.Sprint("a:", i)]; n != each {
			t.Errorf("emitter %d: %d lines, want %d", i, n, each)
		}
	}
}

// A line larger than the buffer still passes.
func TestStreamLargeLine(t *testing.T) {
	large := strings.Repeat("z", 2*logsBuffer)
	path := served(t, &fake{logs: func(_ context.Context, _ LogsRequest, emit func(LogLine) error) error {
		return errors.Join(emit(LogLine{Line: "small"}), emit(LogLine{Line: large}), emit(LogLine{Line: "<end>"}))
	}}, ServerOptions{}, defaultBounds())
	var got []string
	err := dialled(t, path).Logs(bounded(t), LogsRequest{Selectors: []string{"a"}}, func(l LogLine) error {
		got = append(got, l.Line)
		return nil
	})
	if err != nil || len(got) != 3 || got[1] != large || got[2] != "<end>" {
		t.Errorf("%d lines, %v", len(got), err)
	}
}

// A service that fails in mid-stream has its Problem as the last line.
func TestStreamFails(t *testing.T) {
	want := &Problem{Schema: Schema, Message: "the file is gone", Hint: "look for it", Code: CodeFailed}
	path := served(t, &fake{logs: func(_ context.Context, _ LogsRequest, emit func(LogLine) error) error {
		emit(LogLine{Line: `{"schema":1,"error":"only a line"}`})
		return want
	}}, ServerOptions{}, defaultBounds())
	_, lines := opened(t, path, "/v1/logs?sel=a")
	lines.ReadString('\n')
	if line, err := lines.ReadString('\n'); err != nil || line != `{"schema":1,"error":"the file is gone","hint":"look for it","code":1}`+"\n" {
		t.Errorf("last line %q, %v", line, err)
	}
	n := 0
	err := dialled(t, path).Logs(bounded(t), LogsRequest{Selectors: []string{"a"}}, func(LogLine) error { n++; return nil })
	var p *Problem
	if !errors.As(err, &p) || *p != *want || n != 1 {
		t.Errorf("client: %d lines, %+v", n, err)
	}
}

func TestStreamEmpty(t *testing.T) {
	path := served(t, &fake{events: func(context.Context, EventsRequest, func(Event) error) error { return nil }}, ServerOptions{}, defaultBounds())
	_, lines := opened(t, path, "/v1/events")
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v", rest, err)
	}
}

// A stream that has been silent for longer than a write may take still ends
// like a whole one.
func TestStreamSilence(t *testing.T) {
	b := defaultBounds()
	b.write = 200 * time.Millisecond
	path := served(t, &fake{events: func(ctx context.Context, _ EventsRequest, emit func(Event) error) error {
		emit(Event{Seq: 1})
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
		}
		return nil
	}}, ServerOptions{}, b)
	if err := dialled(t, path).Events(bounded(t), EventsRequest{}, func(Event) error { return nil }); err != nil {
		t.Error(err)
	}
}

// Whoever takes lines slowly is not cut off: the client reads ahead.
func TestClientReadsAhead(t *testing.T) {
	const lines = 1000
	all := make(chan struct{})
	b := defaultBounds()
	b.write = 3 * time.Second
	path := served(t, &fake{logs: func(ctx context.Context, _ LogsRequest, emit func(LogLine) error) error {
		defer close(all)
		for range lines {
			if err := emit(LogLine{Line: strings.Repeat("x", 2000)}); err != nil {
				return err
			}
		}
		return nil
	}}, ServerOptions{}, b)
	n := 0
	err := dialled(t, path).Logs(bounded(t), LogsRequest{Selectors: []string{"a"}, Lines: -1}, func(LogLine) error {
		if n == 0 {
			received(t, "the service to emit all", all)
		}
		n++
		return nil
	})
	if err != nil || n != lines {
		t.Errorf("%d of %d lines, %v", n, lines, err)
	}
}
