package socket

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// ServerOptions are what [Serve] can be told. The zero value is ready to use.
type ServerOptions struct {
	// MaxConns is how many connections are open at once; 0: 256. At most half
	// of them follow logs, events or a wait, and a quarter carry out commands.
	MaxConns int
	// Log gets what a client cannot be told; nil: [slog.Default].
	Log *slog.Logger
	// Panicked is called when a request has panicked, after its client was
	// answered. It may end the process; nil, or when it returns, the server goes on.
	Panicked func(value any)
}

// ErrReplaced is the cause of the end of [Serve]'s context when another server
// takes over: to clients that follow, the daemon is then lost and not at its end,
// so that they come back.
var ErrReplaced = errors.New("another server takes over")

// ErrLeft is the cause of that end when another server may come: clients that come back
// by themselves, for the lines of programs that run on, take the daemon for lost.
var ErrLeft = errors.New("another server may come")

// bounds are the limits on what a client may send, and on how long it may take.
type bounds struct {
	body   int64         // size of a request's body
	header int           // size of a request's header
	read   time.Duration // from a request's first byte to its last
	write  time.Duration // of an answer, or of 64 KiB of a stream
	idle   time.Duration // between requests
	grace  time.Duration // before a connection without a request may be put out
	linger time.Duration // for requests under way when the server ends
}

func defaultBounds() bounds {
	return bounds{
		body:   1 << 20,
		header: 16 << 10,
		read:   5 * time.Second,
		write:  10 * time.Second,
		idle:   60 * time.Second,
		grace:  250 * time.Millisecond,
		linger: time.Second,
	}
}

// Serve answers requests on ln with svc until ctx ends, and returns nil then.
// Streams end with ctx (see also [ErrReplaced] and [ErrLeft]); other requests get up to a second to be answered. It
// closes ln, and when it returns no request is being worked on, unless the
// service did not heed the end of a request's context: that is an error.
//
// A socket made by [Listen] is made again if it vanishes. Clients are root, the
// user that the server runs as, and the members of the socket's group.
func Serve(ctx context.Context, ln net.Listener, svc Service, opts ServerOptions) error {
	return serve(ctx, ln, svc, opts, defaultBounds())
}

func serve(ctx context.Context, ln net.Listener, svc Service, opts ServerOptions, b bounds) error {
	s := newServer(ctx, svc, opts, b)
	switch own := ln.(type) {
	case given:
		s.group = own.gid >= 0
	case *listener:
		s.group = own.gid >= 0
		keeping, stop := context.WithCancel(ctx)
		var keeper sync.WaitGroup
		keeper.Go(func() { own.keep(keeping, s.log) }) // ended by stop
		defer keeper.Wait()
		defer stop()
	}
	h := s.httpServer()
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(doorway{ln, s.door}) }() // ends when ln is closed
	select {
	case err := <-failed:
		return errors.Join(fmt.Errorf("cannot serve on %s: %w", ln.Addr(), err), s.end(h))
	case <-ctx.Done():
		err := s.end(h)
		<-failed
		return err
	}
}

// server is what all requests share.
type server struct {
	ending   context.Context // ends streams
	svc      Service
	log      *slog.Logger
	bounds   bounds
	group    bool // members of the socket's group may come in
	uid      int
	door     *door
	panicked func(value any)
	routes   map[string]route // by path
	buffers  sync.Pool        // of *bytes.Buffer
	working  sync.RWMutex     // read-locked by each request in ServeHTTP
}

func newServer(ctx context.Context, svc Service, opts ServerOptions, b bounds) *server {
	s := &server{
		ending: ctx,
		svc:    svc,
		log:    cmp.Or(opts.Log, slog.Default()),
		bounds: b,
		uid:    os.Geteuid(),
		door:   newDoor(cmp.Or(opts.MaxConns, 256), b.grace),
		routes: map[string]route{},

		panicked: opts.Panicked,
	}
	if s.panicked == nil {
		s.panicked = func(any) {}
	}
	s.buffers.New = func() any { return new(bytes.Buffer) }
	for _, r := range routes() {
		s.routes[r.path] = r
	}
	return s
}

// connKey is the key of a request's *conn in its context.
type connKey struct{}

func (s *server) httpServer() *http.Server {
	return &http.Server{
		Handler:                      s,
		ReadHeaderTimeout:            s.bounds.read,
		IdleTimeout:                  s.bounds.idle,
		MaxHeaderBytes:               s.bounds.header,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateIdle {
				_ = c.SetWriteDeadline(time.Time{}) // the last answer's
				s.door.rest(c.(*conn))
			}
		},
	}
}

// end stops the server: first whoever has no request under way, then, after a
// while, everybody.
func (s *server) end(h *http.Server) error {
	s.door.close()
	soon, cancel := context.WithTimeout(context.Background(), s.bounds.linger)
	defer cancel()
	if h.Shutdown(soon) != nil {
		h.Close()
	}
	done := make(chan struct{})
	go func() { // ends with the last request
		s.working.Lock()
		defer s.working.Unlock()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(s.bounds.linger):
		return errors.New("cannot end the control server in order: a request is still being worked on")
	}
}

// ServeHTTP answers one request.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.working.RLock()
	defer s.working.RUnlock()
	out := &tracked{ResponseWriter: w}
	defer s.rescue(out, r)
	if err := s.handle(out, r); err != nil {
		s.fail(out, err)
	}
}

// tracked knows whether an answer has begun.
type tracked struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader notes that the answer has begun.
func (t *tracked) WriteHeader(status int) {
	t.begun = true
	t.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (t *tracked) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// rescue answers a panic with 500 and closes the connection, whose state
// nobody knows any more. That of the process is the affair of its owner.
func (s *server) rescue(w *tracked, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.log.Error("panic in a request", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	defer s.panicked(p)
	if w.begun {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Connection", "close")
	s.fail(w, &Problem{
		Message: fmt.Sprintf("the daemon failed inside while it worked on %s %s", r.Method, r.URL.Path),
		Hint:    "its log has the details; please report them",
		Code:    CodeFailed,
		status:  http.StatusInternalServerError,
	})
	_ = http.NewResponseController(w).Flush() // an error is the client's absence
}

// handle finds out what r wants and has it done.
func (s *server) handle(w http.ResponseWriter, r *http.Request) error {
	c, _ := r.Context().Value(connKey{}).(*conn)
	if err := s.admit(c, r); err != nil {
		return err
	}
	route, err := s.route(w, r)
	if err != nil {
		return err
	}
	body, err := s.body(w, r)
	if err != nil {
		return err
	}
	job, err := route.parse(r, body)
	if err != nil {
		return err
	}
	if !s.door.begin(c, route.class) {
		return s.full(route)
	}
	defer s.door.end(c)
	if job.stream != nil {
		return s.stream(w, r, job)
	}
	answer, err := job.answer(r.Context(), s.svc, c.peer)
	s.door.end(c)
	if err != nil && errors.Is(context.Cause(s.ending), ErrReplaced) {
		panic(http.ErrAbortHandler) // the other server knows better
	}
	if err != nil {
		return err
	}
	return s.answer(w, http.StatusOK, answer)
}

// admit refuses whoever may not use the socket. Web pages may not, whatever
// proxy brought them here: they send an Origin.
func (s *server) admit(c *conn, r *http.Request) error {
	if c == nil {
		return &Problem{Message: "cannot tell who asks", Code: CodePermission}
	}
	if uid := c.peer.UID; uid != 0 && uid != s.uid && !s.group {
		return &Problem{
			Message: fmt.Sprintf("uid %d may not use this socket: it belongs to uid %d", uid, s.uid),
			Hint:    "become that user or root, or let a group use the socket in the daemon's config",
			Code:    CodePermission,
		}
	}
	if _, web := r.Header["Origin"]; web {
		return &Problem{Message: "web pages may not use this socket", Hint: "leave out the Origin header", Code: CodePermission}
	}
	return nil
}

// route looks up r's path and method.
func (s *server) route(w http.ResponseWriter, r *http.Request) (route, error) {
	found, ok := s.routes[r.URL.Path]
	if !ok {
		p := badRequest("no such path: %q", r.URL.Path)
		p.status = http.StatusNotFound
		return route{}, p
	}
	if r.Method != found.method {
		w.Header().Set("Allow", found.method)
		p := badRequest("%s takes %s, not %s", found.path, found.method, r.Method)
		p.status = http.StatusMethodNotAllowed
		return route{}, p
	}
	return found, nil
}

// body reads all of r's body within the bounds.
func (s *server) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	rc := http.NewResponseController(w) // a connection without deadlines, in tests, does without
	_ = rc.SetReadDeadline(time.Now().Add(s.bounds.read))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.bounds.body))
	if err == nil {
		_ = rc.SetReadDeadline(time.Time{})
		return body, nil
	}
	w.Header().Set("Connection", "close")
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		p := badRequest("the body is larger than %d bytes", tooLarge.Limit)
		p.status = http.StatusRequestEntityTooLarge
		return nil, p
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &Problem{Message: fmt.Sprintf("the body has not come within %s", s.bounds.read), Code: CodeTimeout, status: http.StatusRequestTimeout}
	}
	return nil, badRequest("cannot read the body: %v", err)
}

// full is the Problem of a class of requests that has used up its share.
func (s *server) full(r route) error {
	return &Problem{
		Message: fmt.Sprintf("cannot take on %s %s: %d requests like it are under way", r.method, r.path, s.door.share(r.class)),
		Hint:    "try again when one of them has ended",
		Code:    CodeFailed,
		status:  http.StatusServiceUnavailable,
	}
}

// stream carries the job's lines until the client or the server has enough.
func (s *server) stream(w http.ResponseWriter, r *http.Request, j job) error {
	sse := strings.Contains(r.Header.Get("Accept"), "text/event-stream")
	st := newStream(r.Context(), w, sse, s.bounds.write)
	defer st.cancel()
	defer context.AfterFunc(s.ending, st.cancel)()
	st.limit, st.patient = j.limit, j.patient
	err := st.run(func(ctx context.Context) error { return j.stream(ctx, s.svc, st) })
	cause := context.Cause(s.ending)
	if err == nil && (errors.Is(cause, ErrReplaced) || j.resumed && errors.Is(cause, ErrLeft)) {
		panic(http.ErrAbortHandler) // a stream without an end is one to come back for
	}
	return err
}

// answer sends v, as JSON unless it is text. It encodes it once, into a buffer that is
// used again.
func (s *server) answer(w http.ResponseWriter, status int, v any) error {
	if text, ok := v.(Exposition); ok {
		s.send(w, status, "text/plain; version=0.0.4; charset=utf-8", text)
		return nil
	}
	buf := s.buffers.Get().(*bytes.Buffer)
	defer s.buffers.Put(buf)
	buf.Reset()
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("cannot encode the answer: %w", err)
	}
	s.send(w, status, "application/json", buf.Bytes())
	return nil
}

func (s *server) send(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", fmt.Sprint(len(body)))
	h.Set("Cache-Control", "no-store")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.bounds.write))
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever has gone needs no answer
}

// fail answers with a Problem.
func (s *server) fail(w http.ResponseWriter, err error) {
	p := problemOf(err)
	status := p.httpStatus()
	if status == http.StatusInternalServerError && !errors.Is(err, context.Canceled) {
		s.log.Error("request failed", "error", err)
	}
	_ = s.answer(w, status, p) // a Problem can always be encoded
}
