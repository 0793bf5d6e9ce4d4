package subcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"pm.example/proc"
	"pm.example/runner"
	"pm.example/socket"
)

// service answers the control socket: it puts what clients ask into the words
// of the runner, and what the runner says into those of the wire.
type service struct {
	group    *runner.Group
	events   *eventLog
	outputs  *outputs
	scrapers *scrapers
	reload   *reloader
	log      string            // the file of the daemon's own log; empty: none
	info     socket.DaemonInfo // without the uptime
	started  time.Time
	// quit begins the daemon's end, with keep without its programs'. It may be
	// called often.
	quit func(keep bool)
	// upgrade begins the replacement of the daemon's program.
	upgrade func(binary string)
}

// manyInstances is how many make an answer that leaves megabytes of garbage.
const manyInstances = 1000

// Status tells of the selected instances.
func (s *service) Status(ctx context.Context, selectors []string) (socket.Status, error) {
	sel, err := parseSelectors(selectors)
	if err != nil {
		return socket.Status{}, err
	}
	list, unknown, err := s.group.Snapshot(ctx, sel)
	if err != nil {
		return socket.Status{}, err
	}
	out := socket.Status{Schema: socket.Schema, Daemon: s.info, Instances: make([]socket.Instance, len(list)), Unknown: selectorTexts(unknown)}
	out.Daemon.Config, out.Daemon.UptimeSeconds = s.reload.path(), time.Since(s.started).Seconds()
	if len(list) > manyInstances {
		defer s.events.stir()
	}
	for n := range list {
		out.Instances[n] = wireInstance(&list[n])
		out.Instances[n].Scrape = s.scrapeStatus(&list[n])
		if p := s.reload.program(list[n].Program); p != nil {
			out.Instances[n].Output = s.outputs.status(p)
		}
	}
	return out, nil
}

func wireInstance(i *runner.Instance) socket.Instance {
	w := socket.Instance{
		Name: i.Name, Program: i.Program, Group: i.Group, State: string(i.Status), PID: i.PID,
		Since: i.Since.UTC(), UptimeSeconds: i.Uptime().Seconds(), Restarts: i.Restarts,
		Desired: "stopped", Exit: wireExit(i.Exit), Detail: i.Detail, OK: i.OK,
	}
	if i.TaskID != "" {
		w.Task = &socket.Task{ID: i.TaskID, State: string(i.TaskState)}
	}
	if i.Desired {
		w.Desired = "running"
	}
	return w
}

func wireExit(e *runner.Exit) *socket.Exit {
	if e == nil {
		return nil
	}
	w := &socket.Exit{Code: e.Code, Unknown: e.Unknown, Time: e.At.UTC(), Expected: e.Expected}
	if e.Signal != 0 {
		w.Signal = proc.SignalName(e.Signal)
	}
	return w
}

func parseSelectors(texts []string) ([]runner.Selector, error) {
	out := make([]runner.Selector, len(texts))
	for n, text := range texts {
		s, err := runner.ParseSelector(text)
		if err != nil {
			return nil, &socket.Problem{Message: err.Error(), Code: socket.CodeUsage}
		}
		out[n] = s
	}
	return out, nil
}

func selectorTexts(list []runner.Selector) []string {
	var out []string
	for _, s := range list {
		out = append(out, s.String())
	}
	return out
}

// control carries out a request that acts on instances.
func (s *service) control(ctx context.Context, by socket.Peer, verb string, req socket.Request, do func(context.Context, []runner.Selector) ([]runner.Outcome, []runner.Selector, error)) (socket.Result, error) {
	sel, err := parseSelectors(req.Selectors)
	if err != nil {
		return socket.Result{}, err
	}
	s.command(by, verb+" "+strings.Join(req.Selectors, " "))
	ctx, cancel := withTimeout(ctx, req.TimeoutSeconds)
	defer cancel()
	return result(do(ctx, sel))
}

func withTimeout(ctx context.Context, seconds float64) (context.Context, context.CancelFunc) {
	if seconds <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
}

// scrapeStatus tells what has become of an instance's lines that are shipped.
func (s *service) scrapeStatus(i *runner.Instance) json.RawMessage {
	counters := s.scrapers.counters(i.Program, i.Index)
	if counters == nil {
		return nil
	}
	data, _ := json.Marshal(counters) // numbers and texts: it cannot fail
	return data
}

// command notes who asked for what.
func (s *service) command(by socket.Peer, text string) {
	s.events.publish(socket.Event{Time: time.Now().UTC(), Type: eventCommand, By: by.String(), Message: text})
}

func result(outcomes []runner.Outcome, unknown []runner.Selector, err error) (socket.Result, error) {
	if err != nil {
		return socket.Result{}, err
	}
	out := socket.Result{Schema: socket.Schema, Results: make([]socket.Outcome, len(outcomes)), Unknown: selectorTexts(unknown)}
	for n, o := range outcomes {
		out.Results[n] = socket.Outcome{Instance: o.Instance, State: string(o.Status), Code: exitCode(o.Verdict), Message: o.Message}
	}
	return out, nil
}

func exitCode(v runner.Verdict) int {
	switch v {
	case runner.Done:
		return socket.CodeDone
	case runner.StartFailed:
		return socket.CodeStartFailed
	case runner.TimedOut:
		return socket.CodeTimeout
	default:
		return socket.CodeFailed
	}
}

// Start starts instances.
func (s *service) Start(ctx context.Context, by socket.Peer, req socket.Request) (socket.Result, error) {
	return s.control(ctx, by, "start", req, func(ctx context.Context, sel []runner.Selector) ([]runner.Outcome, []runner.Selector, error) {
		return s.group.Start(ctx, sel, !req.NoWait)
	})
}

// Stop stops instances.
func (s *service) Stop(ctx context.Context, by socket.Peer, req socket.Request) (socket.Result, error) {
	return s.control(ctx, by, "stop", req, func(ctx context.Context, sel []runner.Selector) ([]runner.Outcome, []runner.Selector, error) {
		return s.group.Stop(ctx, sel, !req.NoWait)
	})
}

// Restart restarts instances.
func (s *service) Restart(ctx context.Context, by socket.Peer, req socket.Request) (socket.Result, error) {
	return s.control(ctx, by, "restart", req, func(ctx context.Context, sel []runner.Selector) ([]runner.Outcome, []runner.Selector, error) {
		return s.group.Restart(ctx, sel, !req.NoWait, req.Rolling)
	})
}

// Signal signals the main processes of instances.
func (s *service) Signal(ctx context.Context, by socket.Peer, req socket.Request) (socket.Result, error) {
	sig, err := proc.ParseSignal(req.Signal)
	if err != nil {
		return socket.Result{}, &socket.Problem{Message: err.Error(), Code: socket.CodeUsage}
	}
	return s.control(ctx, by, "signal "+proc.SignalName(sig), req, func(ctx context.Context, sel []runner.Selector) ([]runner.Outcome, []runner.Selector, error) {
		return s.group.Signal(ctx, sel, sig)
	})
}

const maxInstances = 10000

// Scale changes the number of a program's instances, and waits for none.
func (s *service) Scale(ctx context.Context, by socket.Peer, req socket.Request) (socket.Result, error) {
	if len(req.Selectors) != 1 || req.NumProcs == nil {
		return socket.Result{}, &socket.Problem{Message: "scale takes one program and a number", Code: socket.CodeUsage}
	}
	name, n := req.Selectors[0], *req.NumProcs
	if n < 1 || n > maxInstances {
		return socket.Result{}, &socket.Problem{
			Message: fmt.Sprintf("cannot scale %s to %d (accepted: 1 to %d)", name, n, maxInstances),
			Hint:    "to run none of it: pm stop " + name, Code: socket.CodeUsage,
		}
	}
	s.command(by, fmt.Sprintf("scale %s %d", name, n))
	if err := s.reload.scale(ctx, name, n); err != nil {
		return socket.Result{}, err
	}
	list, _, err := s.group.Snapshot(ctx, nil)
	if err != nil {
		return socket.Result{}, err
	}
	out := socket.Result{Schema: socket.Schema}
	for _, i := range list {
		if i.Program == name {
			out.Results = append(out.Results, socket.Outcome{Instance: i.Name, State: string(i.Status), Message: strings.ToLower(string(i.Status))})
		}
	}
	return out, nil
}

// Reload reads the configuration again.
func (s *service) Reload(ctx context.Context, by socket.Peer, req socket.ReloadRequest) (socket.Plan, error) {
	if !req.DryRun {
		s.command(by, "reload")
	}
	return s.reload.run(ctx, req.DryRun)
}

// Shutdown begins the daemon's end.
func (s *service) Shutdown(_ context.Context, by socket.Peer, req socket.ShutdownRequest) error {
	if req.KeepPrograms {
		s.command(by, "shutdown --keep-programs")
	} else {
		s.command(by, "shutdown")
	}
	s.quit(req.KeepPrograms)
	return nil
}

// Upgrade begins the replacement of the daemon's program. Whoever may control
// programs may not for that reason run any program as the daemon's user.
func (s *service) Upgrade(_ context.Context, by socket.Peer, req socket.UpgradeRequest) error {
	if by.UID != 0 && by.UID != os.Geteuid() {
		return &socket.Problem{Message: "only root and the user of the daemon may replace its program", Code: socket.CodePermission}
	}
	if err := executable(req.Binary); err != nil {
		return &socket.Problem{Message: fmt.Sprintf("cannot upgrade to %s: %v", req.Binary, err), Hint: "name the new pm with --binary", Code: socket.CodeUsage}
	}
	s.command(by, upgradeVerb+req.Binary)
	s.upgrade(req.Binary)
	return nil
}

// executable reports why the file at path cannot be executed.
func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return reason(err)
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return errors.New("it is no executable file")
	}
	return nil
}

// Wait waits until instances are as wanted.
func (s *service) Wait(ctx context.Context, req socket.WaitRequest) (socket.Result, error) {
	sel, err := parseSelectors(req.Selectors)
	if err != nil {
		return socket.Result{}, err
	}
	if req.For == "healthy" {
		return socket.Result{}, &socket.Problem{Message: "cannot wait for healthy: the selected programs have no health check", Hint: "wait --for running", Code: socket.CodeUsage}
	}
	ctx, cancel := withTimeout(ctx, req.TimeoutSeconds)
	defer cancel()
	return result(s.group.Wait(ctx, sel, req.For != "stopped"))
}

// Config returns the effective configuration.
func (s *service) Config(context.Context) (json.RawMessage, error) { return s.reload.current().JSON() }

// Version names the daemon's version.
func (s *service) Version() socket.Version {
	return socket.Version{Schema: socket.Schema, Version: s.info.Version, API: "v1"}
}

// Events hands over events.
func (s *service) Events(ctx context.Context, req socket.EventsRequest, emit func(socket.Event) error) error {
	return s.events.events(ctx, req.Since, req.Follow, emit)
}
