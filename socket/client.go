package socket

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// What a client takes from a daemon at most.
const (
	maxAnswer = 256 << 20 // bytes of an answer
	maxGrow   = 1 << 20   // bytes to make room for before any has come
	maxLine   = 16 << 20  // bytes of a line of a stream
	maxQuery  = 8 << 10   // bytes of selectors in one request: its header is bounded
)

// comeback is how long a daemon that was there may be away before who follows gives
// it up: a worker that dies often is started again after some seconds only.
const comeback = 10 * time.Second

// dialAgain is how often a patient client looks for the daemon.
const dialAgain = 10 * time.Millisecond

// Client asks the daemon at one socket. It may be used by several goroutines.
//
// What fails is told as a [*Problem]: the daemon's own, or one with
// [CodeUnreachable] or [CodePermission] when there is no talking to it. A ctx
// that is cancelled is returned as context.Canceled.
type Client struct {
	// FirstPatience is how long to wait for a daemon that may be just starting, when
	// the socket is missing or nobody listens on it; 0: not at all.
	FirstPatience time.Duration
	// Patience is how long to wait for one that was there, and may be back in a moment.
	Patience time.Duration

	found atomic.Bool // the daemon was there

	path string
	err  error // why nothing can be asked; as that path cannot be a socket's
	http http.Client
}

// Dial returns a client of the daemon whose socket is at path. It connects
// with the first request.
func Dial(path string) *Client {
	c := &Client{}
	if c.path, c.err = usablePath(path); c.err != nil {
		return c
	}
	c.http.Transport = &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableCompression: true,
		MaxIdleConns:       2,
		IdleConnTimeout:    30 * time.Second,
	}
	return c
}

// Refuse has every request fail with the given error, unless Dial has already found a
// reason for it. It is for what is wrong with a setting, before the first request.
func (c *Client) Refuse(err error) {
	if c.err == nil {
		c.err = err
	}
}

// Close closes the connections that are kept for further requests.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status tells of the selected instances; no selector means all.
func (c *Client) Status(ctx context.Context, selectors []string) (Status, error) {
	var all Status
	seen := map[string]bool{}
	for first := true; first || len(selectors) > 0; first = false {
		var some []string
		some, selectors = fitting(selectors)
		var part Status
		if err := c.get(ctx, "/v1/status", url.Values{"sel": some}, &part); err != nil {
			return Status{}, err
		}
		if first && len(selectors) == 0 {
			return part, nil
		}
		all.merge(part, seen)
	}
	return all, nil
}

// fitting splits off as many selectors as one request can hold.
func fitting(selectors []string) (some, rest []string) {
	size := 0
	for i, sel := range selectors {
		size += len("&sel=") + len(url.QueryEscape(sel))
		if i > 0 && size > maxQuery {
			return selectors[:i], selectors[i:]
		}
	}
	return selectors, nil
}

// merge adds the instances of part that have not been seen.
func (s *Status) merge(part Status, seen map[string]bool) {
	s.Schema, s.Daemon = part.Schema, part.Daemon
	s.Unknown = append(s.Unknown, part.Unknown...)
	for _, in := range part.Instances {
		if !seen[in.Name] {
			seen[in.Name] = true
			s.Instances = append(s.Instances, in)
		}
	}
}

// Start starts what is selected.
func (c *Client) Start(ctx context.Context, req Request) (Result, error) {
	return c.act(ctx, "/v1/start", req)
}

// Stop stops what is selected.
func (c *Client) Stop(ctx context.Context, req Request) (Result, error) {
	return c.act(ctx, "/v1/stop", req)
}

// Restart restarts what is selected.
func (c *Client) Restart(ctx context.Context, req Request) (Result, error) {
	return c.act(ctx, "/v1/restart", req)
}

// Signal sends req.Signal to what is selected.
func (c *Client) Signal(ctx context.Context, req Request) (Result, error) {
	return c.act(ctx, "/v1/signal", req)
}

// Scale changes how many instances the selected programs have.
func (c *Client) Scale(ctx context.Context, req Request) (Result, error) {
	return c.act(ctx, "/v1/scale", req)
}

// Rotate begins new files where the selected instances print into files that the
// daemon writes.
func (c *Client) Rotate(ctx context.Context, req Request) (Result, error) {
	return c.act(ctx, "/v1/rotate", req)
}

// Reopen has the daemon open those files again by their names.
func (c *Client) Reopen(ctx context.Context, req Request) (Result, error) {
	return c.act(ctx, "/v1/reopen", req)
}

// Clear forgets what the daemon keeps of what the selected instances have printed.
func (c *Client) Clear(ctx context.Context, req Request) (Result, error) {
	return c.act(ctx, "/v1/clear", req)
}

// Input writes to the standard input of the selected instances.
func (c *Client) Input(ctx context.Context, req InputRequest) (Result, error) {
	return c.act(ctx, "/v1/input", req)
}

// Wait returns when all that is selected is as req wants it.
func (c *Client) Wait(ctx context.Context, req WaitRequest) (Result, error) {
	return c.act(ctx, "/v1/wait", req)
}

func (c *Client) act(ctx context.Context, path string, req any) (result Result, err error) {
	err = c.post(ctx, path, req, &result)
	return result, err
}

// Reload has the daemon read its config again.
func (c *Client) Reload(ctx context.Context, req ReloadRequest) (plan Plan, err error) {
	err = c.post(ctx, "/v1/reload", req, &plan)
	return plan, err
}

// Shutdown begins the daemon's end.
func (c *Client) Shutdown(ctx context.Context, req ShutdownRequest) error {
	return c.post(ctx, "/v1/shutdown", req, &Result{})
}

// Upgrade begins the replacement of the daemon's program. What comes of it is told
// by an event.
func (c *Client) Upgrade(ctx context.Context, req UpgradeRequest) error {
	return c.post(ctx, "/v1/upgrade", req, &Result{})
}

// Config returns the effective configuration in the file's own schema.
func (c *Client) Config(ctx context.Context) (config json.RawMessage, err error) {
	err = c.get(ctx, "/v1/config", nil, &config)
	return config, err
}

// Version names the daemon's version.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	err = c.get(ctx, "/v1/version", nil, &v)
	return v, err
}

// Logs calls fn with each line until there are no more or, when following,
// until ctx ends or the daemon does. An error of fn ends it and is returned. A
// daemon that is lost and comes back, as when its worker was killed, is asked for
// what comes after the last line.
func (c *Client) Logs(ctx context.Context, req LogsRequest, fn func(LogLine) error) error {
	q := url.Values{"sel": req.Selectors, "lines": {strconv.Itoa(req.Lines)}}
	if req.Stream != "" {
		q.Set("stream", req.Stream)
	}
	if !req.Since.IsZero() {
		q.Set("since", req.Since.Format(time.RFC3339Nano))
	}
	if req.Daemon {
		q.Set("daemon", "true")
	}
	if req.Follow {
		return c.followLogs(ctx, req, fn)
	}
	return follow(ctx, c, http.MethodGet, "/v1/logs", q, nil, fn)
}

// followLogs follows over the deaths of workers.
func (c *Client) followLogs(ctx context.Context, req LogsRequest, fn func(LogLine) error) error {
	places := map[string]string{}
	maps.Copy(places, req.From)
	take := func(l LogLine) error {
		if l.Place != "" {
			places[l.Instance], l.Place = l.Place, ""
		}
		if l.Begin {
			return nil
		}
		return fn(l)
	}
	var lost time.Time // when the daemon was there last
	for {
		req.From = places
		body, err := json.Marshal(req)
		if err != nil {
			return fmt.Errorf("cannot encode the request: %w", err)
		}
		err = follow(ctx, c, http.MethodPost, "/v1/follow", nil, body, take)
		var p *Problem
		if ctx.Err() != nil || !errors.As(err, &p) {
			return err
		}
		switch {
		case p.lost:
			lost = time.Now()
		case p.Code != CodeUnreachable || time.Since(lost) > comeback:
			return err
		}
		select { // a server that is ending loses whoever comes back too soon once more
		case <-ctx.Done():
		case <-time.After(dialAgain):
		}
	}
}

// Events calls fn with each event until there are no more or, when following,
// until ctx ends or the daemon does. An error of fn ends it and is returned.
func (c *Client) Events(ctx context.Context, req EventsRequest, fn func(Event) error) error {
	q := url.Values{}
	if req.Follow {
		q.Set("follow", "true")
	}
	if req.Since > 0 {
		q.Set("since", strconv.FormatUint(req.Since, 10))
	}
	return follow(ctx, c, http.MethodGet, "/v1/events", q, nil, fn)
}

func (c *Client) get(ctx context.Context, path string, q url.Values, answer any) error {
	return c.ask(ctx, http.MethodGet, path, q, nil, answer)
}

func (c *Client) post(ctx context.Context, path string, req, answer any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("cannot encode the request: %w", err)
	}
	return c.ask(ctx, http.MethodPost, path, nil, body, answer)
}

// repeatable are the requests that may be sent twice: what they ask for is a
// state, and not one more deed.
var repeatable = []string{"/v1/start", "/v1/stop", "/v1/scale", "/v1/reopen", "/v1/clear", "/v1/wait"}

// ask sends a request and decodes the answer. A daemon that is lost meanwhile may
// be back in a moment, as when its worker was killed: what is repeatable is then
// asked again.
func (c *Client) ask(ctx context.Context, method, path string, q url.Values, body []byte, answer any) error {
	again := method == http.MethodGet || slices.Contains(repeatable, path)
	var until time.Time // when patience ends
	for {
		asked := time.Now()
		resp, err := c.do(ctx, method, path, q, body)
		if err == nil {
			err = c.read(ctx, resp, answer)
		}
		var p *Problem
		if !again || ctx.Err() != nil || !errors.As(err, &p) || !p.lost {
			return err
		}
		now := time.Now()
		if until.IsZero() || now.Sub(asked) > c.Patience { // it had been there for a while
			until = now.Add(c.Patience)
		}
		if !now.Before(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return c.lost(ctx, ctx.Err())
		case <-time.After(dialAgain):
		}
	}
}

// do sends a request and returns the answer if it is a success.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	if c.err != nil {
		return nil, c.err
	}
	target := url.URL{Scheme: "http", Host: "pm", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.lost(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return resp, nil
}

// read decodes all of an answer.
func (c *Client) read(ctx context.Context, resp *http.Response, answer any) error {
	defer resp.Body.Close()
	var buf bytes.Buffer
	if n := resp.ContentLength; n > 0 {
		buf.Grow(int(min(n, maxGrow)) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return c.lost(ctx, err)
	}
	if err := json.Unmarshal(buf.Bytes(), answer); err != nil {
		return &Problem{
			Message: fmt.Sprintf("cannot understand what the daemon at %s answered: %v", c.path, err),
			Hint:    "make sure that it is a pm daemon of a like version: pm version",
			Code:    CodeFailed,
		}
	}
	return nil
}

// refusal returns the Problem that an answer carries.
func refusal(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // what has arrived is better than nothing
	p := &Problem{}
	if json.Unmarshal(body, p) == nil && p.Message != "" {
		p.Code = cmp.Or(p.Code, CodeFailed)
		return p
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	return &Problem{Message: fmt.Sprintf("the daemon answered %s: %.200s", resp.Status, text), Code: CodeFailed}
}

// follow calls fn with each line that path gives. Another goroutine reads
// ahead, so that the daemon does not wait for fn.
func follow[T any](ctx context.Context, c *Client, method, path string, q url.Values, body []byte, fn func(T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	resp, err := c.do(ctx, method, path, q, body)
	if err != nil {
		cancel()
		return err
	}
	ahead := newSpool(maxSpool)
	var reader sync.WaitGroup
	reader.Go(func() { // ended by cancel and close, if the daemon does not end it
		_, err := io.Copy(ahead, resp.Body)
		ahead.close(err)
	})
	defer resp.Body.Close()
	defer reader.Wait()
	defer ahead.close(nil)
	defer cancel()
	err = eachLine(ahead, fn)
	if own, ok := err.(stopped); ok {
		return own.error
	}
	if err != nil {
		return c.lost(ctx, err)
	}
	return nil
}

// stopped is an error of the one who takes the lines.
type stopped struct{ error }

// eachLine calls fn with each line of r.
func eachLine[T any](r io.Reader, fn func(T) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	lines.Split(wholeLines)
	for lines.Scan() {
		var item T
		if err := decodeLine(lines.Bytes(), &item); err != nil {
			return err
		}
		if err := fn(item); err != nil {
			return stopped{err}
		}
	}
	return lines.Err()
}

// wholeLines splits at newlines. A last line without one is not a line but the
// place where the stream broke.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}

// decodeLine decodes a line of a stream, whose last one may be a Problem.
func decodeLine(line []byte, item any) error {
	if bytes.HasPrefix(line, []byte(`{"schema":1,"error":`)) {
		p := &Problem{}
		if err := json.Unmarshal(line, p); err == nil {
			return p
		}
	}
	if err := json.Unmarshal(line, item); err != nil {
		return &Problem{Message: fmt.Sprintf("cannot understand a line of the daemon's stream: %v", err), Code: CodeFailed}
	}
	return nil
}

// lost says why there was no answer, or not all of it.
func (c *Client) lost(ctx context.Context, err error) error {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	switch ctx.Err() {
	case context.Canceled:
		return context.Canceled
	case context.DeadlineExceeded:
		return &Problem{
			Message: fmt.Sprintf("no answer from the daemon at %s within the time given", c.path),
			Hint:    "give it more with --timeout",
			Code:    CodeTimeout,
		}
	}
	if cause := errors.Unwrap(err); cause != nil {
		err = cause // without the made-up URL
	}
	return &Problem{
		Message: fmt.Sprintf("lost the daemon at %s before all of its answer was there: %v", c.path, err),
		Hint:    "ask again; if it has ended, its log says why",
		Code:    CodeUnreachable,
		lost:    true,
	}
}

// dial connects to the daemon, as patiently as c is.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	patience := c.FirstPatience
	if c.found.Load() {
		patience = c.Patience
	}
	start := time.Now()
	for {
		conn, err := dialer.DialContext(ctx, "unix", c.path)
		if err == nil {
			c.found.Store(true)
			return conn, nil
		}
		if !passing(err) || time.Since(start) >= patience {
			return nil, c.unreachable(ctx, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(dialAgain):
		}
	}
}

// passing reports whether a daemon that is starting, or has many clients,
// gives this error for a while.
func passing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
}

// unreachable is the Problem of a socket that cannot be connected to.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p := &Problem{
		Hint: "start one with: pm daemon -c FILE, or name its socket with --socket or PM_SOCKET",
		Code: CodeUnreachable,
	}
	why := err
	switch {
	case errors.Is(err, fs.ErrNotExist):
		why = errors.New("no such socket")
	case errors.Is(err, syscall.ECONNREFUSED):
		why = errors.New("nobody listens on it")
	case errors.Is(err, syscall.EAGAIN):
		why, p.Hint = errors.New("too many clients are waiting for it"), "try again"
	case errors.Is(err, fs.ErrPermission):
		why, p.Code = errors.New("permission denied"), CodePermission
		p.Hint = "become root or the user that runs the daemon, or let a group use the socket in the daemon's config"
	}
	p.Message = fmt.Sprintf("cannot reach the daemon at %s: %v", c.path, why)
	return p
}
