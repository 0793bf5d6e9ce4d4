package subcmd

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"pm.example/config"
	"pm.example/output"
	"pm.example/proc"
	"pm.example/runner"
	"pm.example/socket"
)

// Logs hands over what the selected instances print. Following, it also takes
// in what instances print that are started anew.
func (s *service) Logs(ctx context.Context, req socket.LogsRequest, emit func(socket.LogLine) error) error {
	if req.Daemon {
		return s.daemonLog(ctx, req, emit)
	}
	sel, err := parseSelectors(req.Selectors)
	if err != nil {
		return err
	}
	stream, err := output.ParseStream(req.Stream)
	if err != nil {
		return &socket.Problem{Message: err.Error(), Code: socket.CodeUsage}
	}
	list, unknown, err := s.group.Snapshot(ctx, sel)
	if err != nil {
		return err
	}
	if len(unknown) > 0 && len(list) == 0 {
		return &socket.Problem{Message: "no such program: " + strings.Join(selectorTexts(unknown), ", "), Hint: "pm status lists them", Code: socket.CodeUnknown}
	}
	var (
		group errgroup.Group
		mu    sync.Mutex // one line at a time goes out
	)
	for _, i := range list {
		r := &instanceReader{name: i.Name, sources: s.sources(i, stream), mu: &mu, emit: emit, places: req.Places}
		if err := r.begin(req); err != nil {
			return err
		}
		if req.Follow {
			r.follow(ctx, &group)
		}
	}
	return unlessCanceled(group.Wait())
}

// daemonLog hands over the daemon's own log.
func (s *service) daemonLog(ctx context.Context, req socket.LogsRequest, emit func(socket.LogLine) error) error {
	if s.log == "" {
		return &socket.Problem{
			Message: "the daemon logs to its standard error or to the journal, not to a file",
			Hint:    "name one with --log or daemon.log_file; what has happened is also told by: pm events",
			Code:    socket.CodeFailed,
		}
	}
	r := &instanceReader{sources: []logSource{fileSource{s.log, output.Both}}, mu: &sync.Mutex{}, emit: emit, places: req.Places}
	if err := r.begin(req); err != nil || !req.Follow {
		return err
	}
	var group errgroup.Group
	r.follow(ctx, &group)
	return unlessCanceled(group.Wait())
}

// unlessCanceled returns err, unless it only says that nobody waits any more.
func unlessCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// instanceReader hands over what one instance prints, from all places where that
// is.
type instanceReader struct {
	name    string
	sources []logSource
	places  bool // lines carry the place that they reach

	mu   *sync.Mutex // guards read, and emit of all instances
	emit func(socket.LogLine) error
	read []*output.Place // how far each source is read; nil: not begun
}

// logSource is a place where an instance's output can be read.
type logSource interface {
	// label tells it from the other sources of the instance.
	label() string
	// tail returns the last n lines since a time, and the place after them. A note
	// says what is not among them.
	tail(n int, since time.Time) (lines []output.Line, after output.Place, note string, err error)
	// follow hands over what comes after a place, until ctx ends or emit fails.
	follow(ctx context.Context, from output.Place, emit func(output.Line) error) error
}

// begin hands over the last lines of each source, or finds the place from which
// the client goes on.
func (r *instanceReader) begin(req socket.LogsRequest) error {
	known, err := parsePlaces(req.From[r.name])
	if err != nil {
		return err
	}
	r.read = make([]*output.Place, len(r.sources))
	for i, source := range r.sources {
		if place, ok := known[source.label()]; ok {
			r.read[i] = &place
		}
	}
	for i, source := range r.sources {
		if r.read[i] != nil {
			continue
		}
		if err := r.tail(i, source, req); err != nil {
			return err
		}
	}
	if !r.places {
		return nil
	}
	return r.send(socket.LogLine{Begin: true})
}

// tail hands over the last lines of a source.
func (r *instanceReader) tail(i int, source logSource, req socket.LogsRequest) error {
	lines, after, note, err := source.tail(req.Lines, req.Since)
	if err != nil {
		return err
	}
	if note != "" {
		if err := r.send(socket.LogLine{Note: note}); err != nil {
			return err
		}
	}
	for _, line := range lines {
		if err := r.line(i, line); err != nil {
			return err
		}
	}
	r.read[i] = &after
	return nil
}

// follow hands over all further lines, in goroutines of the group.
func (r *instanceReader) follow(ctx context.Context, group *errgroup.Group) {
	for i, source := range r.sources {
		from := *r.read[i]
		group.Go(func() error { // ends with ctx, or when emit fails
			return source.follow(ctx, from, func(line output.Line) error { return r.line(i, line) })
		})
	}
}

// line hands over a line of a source.
func (r *instanceReader) line(source int, l output.Line) error {
	w := socket.LogLine{Time: l.Time.UTC(), Stream: l.Stream.String(), Line: string(l.Text), Partial: l.Partial, Lost: l.Lost}
	if !utf8.Valid(l.Text) {
		w.Line, w.Base64 = strings.ToValidUTF8(w.Line, "\uFFFD"), base64.StdEncoding.EncodeToString(l.Text)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read[source] = &l.Place
	return r.put(w)
}

// send hands over what is no line of a source.
func (r *instanceReader) send(w socket.LogLine) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.put(w)
}

// put completes a line and hands it over. The caller holds r.mu.
func (r *instanceReader) put(w socket.LogLine) error {
	w.Schema, w.Instance = socket.Schema, r.name
	if r.places {
		w.Place = r.place()
	}
	return r.emit(w)
}

// place is how far the instance's output is read: label and place of each source
// that was begun.
func (r *instanceReader) place() string {
	var parts []string
	for i, source := range r.sources {
		if r.read[i] != nil {
			parts = append(parts, source.label()+"="+r.read[i].String())
		}
	}
	return strings.Join(parts, " ")
}

// parsePlaces reads what place has written: places by label.
func parsePlaces(text string) (map[string]output.Place, error) {
	places := map[string]output.Place{}
	for part := range strings.FieldsSeq(text) {
		label, rest, _ := strings.Cut(part, "=")
		p, err := output.ParsePlace(rest)
		if err != nil {
			return nil, &socket.Problem{Message: "from: " + err.Error(), Hint: "give back a place as it was got", Code: socket.CodeUsage}
		}
		places[label] = p
	}
	return places, nil
}

// sources lists where the output of an instance is: its log in the daemon, and
// the files that the program writes itself.
func (s *service) sources(i runner.Instance, stream output.Stream) []logSource {
	p := s.reload.program(i.Program)
	if p == nil {
		return nil
	}
	s.outputs.drain(p)
	return s.outputs.sources(p, i.Index, stream)
}

// sources lists where the output of an instance is, its log first.
func (o *outputs) sources(p *config.Program, index int, stream output.Stream) []logSource {
	list := []logSource{ringSource{o, o.log(p.Name, index), stream}}
	return append(list, fileSources(p, stream)...)
}

// fileSources lists the files that a program prints into.
func fileSources(p *config.Program, stream output.Stream) (list []logSource) {
	if p.Stderr == p.Stdout && isFile(p.Stdout) || p.Stderr == "stdout" && isFile(p.Stdout) {
		return []logSource{fileSource{inDir(p.WorkingDir, p.Stdout), output.Both}}
	}
	if isFile(p.Stdout) && stream != output.Stderr {
		list = append(list, fileSource{inDir(p.WorkingDir, p.Stdout), output.Stdout})
	}
	if isFile(p.Stderr) && p.Stderr != "stdout" && stream != output.Stdout {
		list = append(list, fileSource{inDir(p.WorkingDir, p.Stderr), output.Stderr})
	}
	return list
}

func isFile(path string) bool {
	return config.IsFile(path) && !strings.HasPrefix(path, "/dev/") && proc.OwnOutput(path) == nil
}

// ringSource reads the daemon's own log of an instance.
type ringSource struct {
	outputs *outputs
	log     *output.Log
	stream  output.Stream
}

func (r ringSource) label() string { return "kept" }

func (r ringSource) tail(n int, since time.Time) ([]output.Line, output.Place, string, error) {
	<-r.outputs.loop.Drain(r.log) // what has been written by now is there
	lines, cursor := r.log.Tail(n, r.stream)
	from := slices.IndexFunc(lines, func(l output.Line) bool { return !l.Time.Before(since) })
	if from < 0 {
		from = len(lines)
	}
	return lines[from:], r.log.Place(cursor), "", nil
}

func (r ringSource) follow(ctx context.Context, from output.Place, emit func(output.Line) error) error {
	return r.log.Follow(ctx, r.log.Resume(from, r.stream), emit)
}

// fileSource reads a file that a program writes itself.
type fileSource struct {
	path   string
	stream output.Stream
}

func (f fileSource) label() string { return cmp.Or(f.stream.String(), "file") }

func (f fileSource) tail(n int, since time.Time) (lines []output.Line, after output.Place, note string, err error) {
	if since.IsZero() {
		lines, after, err = output.TailFile(f.path, n)
	} else {
		lines, after, note, err = f.tailSince(n, since)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // the program may yet make it
		return nil, after, "", fmt.Errorf("cannot read the output: %w", err)
	}
	for i := range lines {
		lines[i].Stream = f.stream
	}
	return lines, after, note, nil
}

func (f fileSource) follow(ctx context.Context, from output.Place, emit func(output.Line) error) error {
	return output.FollowFile(ctx, f.path, from, func(line output.Line) error {
		line.Stream = f.stream
		return emit(line)
	})
}
