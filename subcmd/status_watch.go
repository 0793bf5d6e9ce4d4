package subcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"pm.example/socket"
)

// errDaemonEnded ends a watch, however the last request of it failed.
var errDaemonEnded = &socket.Problem{
	Message: "cannot reach the daemon any more: it has ended", Code: socket.CodeUnreachable,
}

// watchStatus prints the status again whenever an event came, until no daemon
// answers. On a terminal it redraws, elsewhere it prints the lines that changed.
func watchStatus(ctx context.Context, e *env, client *socket.Client, o statusOptions, selectors []string) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	w := &statusWatch{env: e, client: client, options: o, selectors: selectors}
	w.live = isTerminal(e.stdout) && o.format != "json"
	if err := w.selectsAny(ctx); err != nil {
		return err
	}
	client.Patience = patience // its end is news as well
	for {
		if err := w.follow(ctx); err != nil && !hasCode(err, socket.CodeFailed, socket.CodeUnreachable) {
			return err
		}
		if err := w.again(ctx); hasCode(err, socket.CodeFailed, socket.CodeUnreachable) {
			return errDaemonEnded
		} else if err != nil {
			return err
		}
	}
}

// statusWatch is what status --watch remembers.
type statusWatch struct {
	env       *env
	client    *socket.Client
	options   statusOptions
	selectors []string
	live      bool              // redraw
	seen      map[string]string // what was printed last of each instance
	last      socket.Status     // what was drawn last
	at        time.Time         // when last was true
}

// selectsAny tells which selectors match nothing, and is an error if none does.
func (w *statusWatch) selectsAny(ctx context.Context) error {
	status, err := w.client.Status(ctx, w.selectors)
	if err != nil {
		return err
	}
	if code := tellUnknown(w.env, status.Unknown); len(status.Instances) == 0 {
		return codeError(code)
	}
	return nil
}

// follow shows what changes until the stream of events ends, as it does with
// the daemon.
func (w *statusWatch) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	changes, ended := make(chan struct{}, 1), make(chan error, 1)
	var stream sync.WaitGroup
	defer stream.Wait()
	defer cancel()
	stream.Go(func() { // ends with ctx, or with the daemon
		ended <- w.client.Events(ctx, socket.EventsRequest{Follow: true}, func(socket.Event) error {
			select {
			case changes <- struct{}{}:
			default:
			}
			return nil
		})
	})
	if err := w.show(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-changes:
			err = w.show(ctx)
		case <-tick.C:
			err = w.redraw()
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// hasCode reports whether err is a problem with one of codes. A daemon that ends
// refuses first, and then is out of reach.
func hasCode(err error, codes ...int) bool {
	var problem *socket.Problem
	return errors.As(err, &problem) && slices.Contains(codes, problem.Code)
}

// How long a daemon that ends may refuse, and how often to look whether it is
// gone.
const (
	watchLast  = 2 * time.Second
	watchAgain = 10 * time.Millisecond
)

// again is called after the stream of events has ended: it returns nil when
// there is a daemon to go on with. A stream ends a moment before its daemon's
// socket does.
func (w *statusWatch) again(ctx context.Context) error {
	for deadline := time.Now().Add(watchLast); ; {
		select {
		case <-time.After(watchAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
		_, err := w.client.Status(ctx, w.selectors)
		if !hasCode(err, socket.CodeFailed) || time.Now().After(deadline) {
			return err
		}
	}
}

// show asks for the status and prints what is new in it.
func (w *statusWatch) show(ctx context.Context) error {
	status, err := w.client.Status(ctx, w.selectors)
	if err != nil {
		return err
	}
	if w.live {
		w.last, w.at = status, time.Now()
		return w.redraw()
	}
	changed, seen := status, map[string]string{} // what was removed is forgotten
	changed.Instances = nil
	for _, i := range status.Instances {
		seen[i.Name] = fmt.Sprint(i.State, i.PID, i.Restarts, i.Detail)
		if w.seen[i.Name] != seen[i.Name] {
			changed.Instances = append(changed.Instances, i)
		}
	}
	w.seen = seen
	if len(changed.Instances) == 0 {
		return nil
	}
	o := w.options
	if o.format == "table" || o.format == "wide" {
		o.format = "plain"
	}
	return printStatus(w.env, w.env.stdout, o, changed)
}

// redraw draws the page anew: uptimes grow without asking the daemon. It writes
// over the page before, so that nothing flickers.
func (w *statusWatch) redraw() error {
	if !w.live {
		return nil
	}
	now, passed := w.last, time.Since(w.at).Seconds()
	now.Instances = slices.Clone(w.last.Instances)
	for n := range now.Instances {
		now.Instances[n].UptimeSeconds += passed
	}
	var table bytes.Buffer
	if err := printStatus(w.env, &table, w.options, now); err != nil {
		return err
	}
	_, err := io.WriteString(w.env.stdout, page(table.String(), terminalHeight(w.env.stdout)))
	return err
}

// page makes of a text what puts it on a terminal of that height, in place of
// what is there.
func page(text string, height int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if room := max(height-1, 2); height > 0 && len(lines) > room {
		more := len(lines) - room + 1
		lines = append(lines[:room-1], fmt.Sprintf("… and %d more", more))
	}
	return "\x1b[H" + strings.Join(lines, "\x1b[K\n") + "\x1b[K\n\x1b[J"
}

// terminalHeight is the height of the terminal that w is; 0: it is none.
func terminalHeight(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	_, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return height
}
