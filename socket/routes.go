package socket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// The bounds of a request's selectors, and of its timeout, which also has to
// fit a time.Duration.
const (
	maxSelectors   = 10_000
	maxSelector    = 1 << 10
	maxTimeout     = 1e9 // seconds
	maxNumProcs    = 10_000
	defaultLogTail = 10 // lines
)

// route is one entry of the API. docs/api.md describes exactly these.
type route struct {
	method, path string
	class        class
	parse        func(r *http.Request, body []byte) (job, error)
}

// routes is the API. parse checks all that can be known without the service.
func routes() []route {
	return []route{
		{"GET", "/v1/status", quick, parseStatus},
		{"POST", "/v1/start", command, act(Service.Start, checkPlain)},
		{"POST", "/v1/stop", command, act(Service.Stop, checkPlain)},
		{"POST", "/v1/restart", command, act(Service.Restart, checkRestart)},
		{"POST", "/v1/signal", command, act(Service.Signal, checkSignal)},
		{"POST", "/v1/scale", command, act(Service.Scale, checkScale)},
		{"POST", "/v1/rotate", command, act(Service.Rotate, checkPlain)},
		{"POST", "/v1/reopen", command, act(Service.Reopen, checkPlain)},
		{"POST", "/v1/clear", command, act(Service.Clear, checkPlain)},
		{"POST", "/v1/input", command, parseInput},
		{"POST", "/v1/reload", command, parseReload},
		{"POST", "/v1/shutdown", command, parseShutdown},
		{"POST", "/v1/upgrade", command, parseUpgrade},
		{"POST", "/v1/wait", watch, parseWait},
		{"GET", "/v1/config", quick, parseConfig},
		{"GET", "/v1/version", quick, parseVersion},
		{"GET", "/v1/metrics", quick, parseMetrics},
		{"GET", "/v1/logs", watch, parseLogs},
		{"POST", "/v1/follow", watch, parseFollow},
		{"GET", "/v1/events", watch, parseEvents},
	}
}

// job is a request that was understood: either answer or stream does it.
type job struct {
	answer  func(ctx context.Context, svc Service, by Peer) (any, error) // a value for JSON, or Exposition
	stream  func(ctx context.Context, svc Service, s *stream) error
	limit   int  // of the stream's buffer
	patient bool // the stream waits for a slow client
	resumed bool // the client goes on with another server
}

func parseStatus(r *http.Request, body []byte) (job, error) {
	q, err := query(r, body, "sel")
	if err != nil {
		return job{}, err
	}
	sel := q["sel"]
	if err := checkSelectors(sel); err != nil {
		return job{}, err
	}
	return job{answer: func(ctx context.Context, svc Service, _ Peer) (any, error) {
		status, err := svc.Status(ctx, sel)
		status.Schema = Schema
		status.Instances = notNil(status.Instances)
		return &status, err
	}}, nil
}

// act makes the parser of a command. check looks at the fields beside the
// selectors.
func act(do func(Service, context.Context, Peer, Request) (Result, error), check func(Request) error) func(*http.Request, []byte) (job, error) {
	return func(r *http.Request, body []byte) (job, error) {
		var req Request
		if err := decode(r, body, &req); err != nil {
			return job{}, err
		}
		if err := errors.Join(checkTargets(req.Selectors), checkTimeout(req.TimeoutSeconds), check(req)); err != nil {
			return job{}, err
		}
		return job{answer: func(ctx context.Context, svc Service, by Peer) (any, error) {
			return filled(do(svc, ctx, by, req))
		}}, nil
	}
}

func parseInput(r *http.Request, body []byte) (job, error) {
	var req InputRequest
	if err := decode(r, body, &req); err != nil {
		return job{}, err
	}
	if err := errors.Join(checkTargets(req.Selectors), checkTimeout(req.TimeoutSeconds)); err != nil {
		return job{}, err
	}
	if _, err := req.Bytes(); err != nil || req.Text != "" && req.Base64 != "" {
		return job{}, badRequest("want text, or else base64, which must be valid")
	}
	return job{answer: func(ctx context.Context, svc Service, by Peer) (any, error) {
		return filled(svc.Input(ctx, by, req))
	}}, nil
}

func parseReload(r *http.Request, body []byte) (job, error) {
	var req ReloadRequest
	if err := decode(r, body, &req); err != nil {
		return job{}, err
	}
	return job{answer: func(ctx context.Context, svc Service, by Peer) (any, error) {
		plan, err := svc.Reload(ctx, by, req)
		plan.Schema = Schema
		plan.Actions = notNil(plan.Actions)
		for i := range plan.Actions {
			plan.Actions[i].Reasons = notNil(plan.Actions[i].Reasons)
		}
		return &plan, err
	}}, nil
}

func parseShutdown(r *http.Request, body []byte) (job, error) {
	var req ShutdownRequest
	if err := decode(r, body, &req); err != nil {
		return job{}, err
	}
	return job{answer: func(ctx context.Context, svc Service, by Peer) (any, error) {
		return filled(Result{}, svc.Shutdown(ctx, by, req))
	}}, nil
}

func parseUpgrade(r *http.Request, body []byte) (job, error) {
	var req UpgradeRequest
	if err := decode(r, body, &req); err != nil {
		return job{}, err
	}
	if !filepath.IsAbs(req.Binary) {
		return job{}, badRequest("binary=%q: want an absolute path", req.Binary)
	}
	return job{answer: func(ctx context.Context, svc Service, by Peer) (any, error) {
		return filled(Result{}, svc.Upgrade(ctx, by, req))
	}}, nil
}

func parseWait(r *http.Request, body []byte) (job, error) {
	var req WaitRequest
	if err := decode(r, body, &req); err != nil {
		return job{}, err
	}
	if err := errors.Join(checkTargets(req.Selectors), checkTimeout(req.TimeoutSeconds)); err != nil {
		return job{}, err
	}
	if !slices.Contains([]string{"running", "healthy", "stopped"}, req.For) {
		return job{}, badRequest("cannot wait for %q: for is running, healthy or stopped", req.For)
	}
	return job{answer: func(ctx context.Context, svc Service, _ Peer) (any, error) {
		return filled(svc.Wait(ctx, req))
	}}, nil
}

func parseConfig(r *http.Request, body []byte) (job, error) {
	if _, err := query(r, body); err != nil {
		return job{}, err
	}
	return job{answer: func(ctx context.Context, svc Service, _ Peer) (any, error) {
		return svc.Config(ctx)
	}}, nil
}

func parseVersion(r *http.Request, body []byte) (job, error) {
	if _, err := query(r, body); err != nil {
		return job{}, err
	}
	return job{answer: func(_ context.Context, svc Service, _ Peer) (any, error) {
		v := svc.Version()
		v.Schema, v.API = Schema, "v1"
		return v, nil
	}}, nil
}

func parseMetrics(r *http.Request, body []byte) (job, error) {
	if _, err := query(r, body); err != nil {
		return job{}, err
	}
	return job{answer: func(ctx context.Context, svc Service, _ Peer) (any, error) {
		return svc.Metrics(ctx)
	}}, nil
}

func parseLogs(r *http.Request, body []byte) (job, error) {
	q, err := query(r, body, "sel", "lines", "stream", "since", "follow", "daemon")
	if err != nil {
		return job{}, err
	}
	req := LogsRequest{Selectors: q["sel"], Lines: defaultLogTail, Stream: q.Get("stream")}
	if n := q.Get("lines"); n != "" {
		if req.Lines, err = strconv.Atoi(n); err != nil {
			return job{}, badRequest("lines=%q: want a number, or -1 for all that is kept", n)
		}
	}
	if t := q.Get("since"); t != "" {
		if req.Since, err = time.Parse(time.RFC3339, t); err != nil {
			return job{}, badRequest("since=%q: want a time such as 2026-01-02T15:04:05Z", t)
		}
	}
	if req.Follow, err = flag(q, "follow"); err != nil {
		return job{}, err
	}
	if req.Daemon, err = flag(q, "daemon"); err != nil {
		return job{}, err
	}
	return logsJob(req)
}

// parseFollow is for those who come back: their places do not fit into a query.
func parseFollow(r *http.Request, body []byte) (job, error) {
	req := LogsRequest{Lines: defaultLogTail}
	if err := decode(r, body, &req); err != nil {
		return job{}, err
	}
	req.Follow, req.Places = true, true
	return logsJob(req)
}

func logsJob(req LogsRequest) (job, error) {
	if req.Daemon && (len(req.Selectors) > 0 || req.Stream != "") {
		return job{}, badRequest("daemon takes neither selectors nor a stream")
	}
	if err := checkTargets(req.Selectors); err != nil && !req.Daemon {
		return job{}, err
	}
	if req.Lines < -1 {
		return job{}, badRequest("lines=%d: want a number, or -1 for all that is kept", req.Lines)
	}
	if !slices.Contains([]string{"", "stdout", "stderr"}, req.Stream) {
		return job{}, badRequest("stream=%q: want stdout or stderr, or leave it out for both", req.Stream)
	}
	return job{limit: logsBuffer, patient: true, resumed: req.Places, stream: func(ctx context.Context, svc Service, s *stream) error {
		return svc.Logs(ctx, req, s.log)
	}}, nil
}

func parseEvents(r *http.Request, body []byte) (job, error) {
	q, err := query(r, body, "follow", "since")
	if err != nil {
		return job{}, err
	}
	var req EventsRequest
	if req.Follow, err = flag(q, "follow"); err != nil {
		return job{}, err
	}
	since := q.Get("since")
	if again := r.Header.Get("Last-Event-ID"); again != "" {
		since = again // an EventSource that comes back repeats its first URL
	}
	if since != "" {
		if req.Since, err = strconv.ParseUint(since, 10, 64); err != nil {
			return job{}, badRequest("since=%q: want the seq of an event", since)
		}
	}
	return job{limit: eventsBuffer, stream: func(ctx context.Context, svc Service, s *stream) error {
		return svc.Events(ctx, req, s.event)
	}}, nil
}

// query returns r's query, whose keys must be among known. Only sel may come
// more than once, and a GET has no body.
func query(r *http.Request, body []byte, known ...string) (url.Values, error) {
	if len(body) > 0 {
		return nil, badRequest("%s takes a query, not a body", r.URL.Path)
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("cannot read the query: %v", err)
	}
	for key, values := range q {
		if !slices.Contains(known, key) {
			return nil, badRequest("%s has no parameter %q", r.URL.Path, key)
		}
		if len(values) > 1 && key != "sel" {
			return nil, badRequest("parameter %s is given %d times", key, len(values))
		}
	}
	return q, nil
}

// flag returns a yes or no of the query; a key without a value means yes.
func flag(q url.Values, key string) (bool, error) {
	if !q.Has(key) {
		return false, nil
	}
	value := q.Get(key)
	if value == "" {
		return true, nil
	}
	yes, err := strconv.ParseBool(value)
	if err != nil {
		return false, badRequest("%s=%q: want true or false", key, value)
	}
	return yes, nil
}

// decode reads exactly one JSON object without unknown fields into v. No body
// at all is an empty object. A POST has no query.
func decode(r *http.Request, body []byte, v any) error {
	if r.URL.RawQuery != "" {
		return badRequest("%s takes a JSON body, not a query", r.URL.Path)
	}
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return nil
	}
	if body[0] != '{' {
		return badRequest("the body is not a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return badRequest("cannot read the body: %v", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return badRequest("the body goes on after its JSON object")
	}
	return nil
}

// checkTargets is for requests that act: they name what they act on.
func checkTargets(selectors []string) error {
	if len(selectors) == 0 {
		return &Problem{
			Message: "nothing is selected",
			Hint:    "name programs or instances, or say all",
			Code:    CodeUsage,
		}
	}
	return checkSelectors(selectors)
}

func checkSelectors(selectors []string) error {
	if len(selectors) > maxSelectors {
		return badRequest("%d selectors are more than %d", len(selectors), maxSelectors)
	}
	for i, sel := range selectors {
		if sel == "" {
			return badRequest("selector %d is empty", i+1)
		}
		if len(sel) > maxSelector {
			return badRequest("selector %d is longer than %d bytes", i+1, maxSelector)
		}
	}
	return nil
}

func checkTimeout(seconds float64) error {
	if seconds < 0 || seconds > maxTimeout {
		return badRequest("timeout_seconds %v is not between 0 and %v", seconds, float64(maxTimeout))
	}
	return nil
}

// checkPlain refuses the fields that belong to one command only.
func checkPlain(req Request) error {
	if req.Rolling {
		return badRequest("rolling is for restart only")
	}
	return checkRestart(req)
}

func checkRestart(req Request) error {
	if req.Signal != "" {
		return badRequest("signal is for /v1/signal only")
	}
	if req.NumProcs != nil {
		return badRequest("numprocs is for /v1/scale only")
	}
	return nil
}

func checkSignal(req Request) error {
	if req.Signal == "" {
		return badRequest("signal is missing: name one, for example HUP")
	}
	req.Signal = ""
	return checkPlain(req)
}

func checkScale(req Request) error {
	if req.NumProcs == nil {
		return badRequest("numprocs is missing")
	}
	if n := *req.NumProcs; n < 0 || n > maxNumProcs {
		return badRequest("numprocs %d is not between 0 and %d", n, maxNumProcs)
	}
	req.NumProcs = nil
	return checkPlain(req)
}

// filled completes a Result for the wire.
func filled(result Result, err error) (any, error) {
	result.Schema = Schema
	result.Results = notNil(result.Results)
	return &result, err
}

// notNil makes a list that is encoded as [] when it is empty, never as null.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
