package subcmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"pm.example/alert"
	"pm.example/config"
	"pm.example/runner"
	"pm.example/socket"
)

// reloader holds the configuration that is in force, and brings a new one into
// force: all of it, or nothing.
type reloader struct {
	group    *runner.Group
	events   *eventLog
	manager  *announcer
	log      *slog.Logger
	environ  []string // what programs inherit
	state    *state
	outputs  *outputs
	scrapers *scrapers
	mailer   *alert.Mailer

	turn sync.Mutex // held while a change is made: one at a time

	mu       sync.Mutex // guards all below
	file     *config.File
	programs []*runner.Program // those of file
	// scaled are the numbers of instances that were set by hand. They outlive a
	// reload that does not change the file's own number.
	scaled map[string]int
}

// current returns the file in force. It is never changed.
func (r *reloader) current() *config.File {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file
}

func (r *reloader) path() string { return r.current().Path }

// program returns the description in force of a program; nil if there is none.
func (r *reloader) program(name string) *config.Program {
	for _, p := range r.current().Programs {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// run reads the file again and applies it, or with dryRun only says what that
// would do. On an error nothing has changed.
func (r *reloader) run(ctx context.Context, dryRun bool) (socket.Plan, error) {
	r.turn.Lock()
	defer r.turn.Unlock()
	if !dryRun {
		defer r.manager.reloading()()
	}
	old := r.current()
	file, warnings, err := config.Load(old.Path, os.LookupEnv)
	if err != nil {
		return socket.Plan{}, r.refuse(old.Path, err, dryRun)
	}
	scaled := r.keepScaled(old, file)
	programs, err := r.assemble(file)
	if err != nil {
		return socket.Plan{}, r.refuse(old.Path, err, dryRun)
	}
	actions := config.Diff(old, file)
	if faults := blocking(file, actions); len(faults) > 0 {
		return socket.Plan{}, r.refuse(old.Path, &config.Errors{Problems: faults}, dryRun)
	}
	if err := mailOptions(file.Email).Check(); err != nil {
		return socket.Plan{}, r.refuse(old.Path, err, dryRun)
	}
	plan := wirePlan(actions, config.DiffDaemon(old, file))
	if dryRun {
		return plan, nil
	}
	for _, w := range warnings {
		r.log.Warn("configuration", "problem", w.String())
	}
	if err := r.apply(ctx, file, programs, scaled, actions); err != nil {
		return socket.Plan{}, err
	}
	if err := r.mailer.Set(mailOptions(file.Email)); err != nil {
		r.log.Error("mail", "error", err)
	}
	r.events.publish(socket.Event{Time: time.Now().UTC(), Type: eventReload, Message: strings.Join(append([]string{summary(actions)}, plan.Notes...), "; ")})
	return plan, nil
}

// blocking returns the faults of this machine that would end a reload badly: a
// program that is to be started or respawned, and cannot be. Those of programs
// that stay were there before.
func blocking(file *config.File, actions []config.Action) (faults []config.Problem) {
	launched := map[string]bool{}
	for _, a := range actions {
		if a.Kind == config.Start || a.Kind == config.Respawn || a.Kind == config.Reopen {
			launched[a.Program] = true
		}
	}
	changed := *file
	changed.Programs = slices.DeleteFunc(slices.Clone(file.Programs), func(p *config.Program) bool { return !launched[p.Name] })
	return slices.DeleteFunc(changed.CheckMachine(), func(p config.Problem) bool { return !strings.HasPrefix(p.Key, "programs.") })
}

// refuse tells a reload that failed.
func (r *reloader) refuse(path string, err error, dryRun bool) error {
	if !dryRun {
		r.events.publish(socket.Event{Time: time.Now().UTC(), Type: eventReloadFailed, Message: err.Error()})
	}
	return &socket.Problem{
		Message: fmt.Sprintf("cannot reload %s, nothing was changed: %v", path, err),
		Hint:    refusalHint(path, err), Code: socket.CodeUsage,
	}
}

// refusalHint says what to do about a file that cannot be brought into force, to one
// who may be in another directory than the daemon.
func refusalHint(path string, err error) string {
	if absolute, absErr := filepath.Abs(path); absErr == nil {
		path = absolute
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "the programs go on as before; put the file back at " + path
	}
	return "pm config check " + path
}

// keepScaled makes the numbers set by hand part of the new file, where the file
// itself did not change them, and returns those that stay.
func (r *reloader) keepScaled(old, file *config.File) map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := map[string]int{}
	for _, p := range old.Programs {
		before[p.Name] = p.NumProcs
	}
	kept := map[string]int{}
	for _, p := range file.Programs {
		n, ok := r.scaled[p.Name]
		if !ok {
			continue
		}
		if original, known := r.scaled[fromFile+p.Name]; known && original == p.NumProcs && before[p.Name] == n {
			kept[p.Name], kept[fromFile+p.Name] = n, original
			p.NumProcs = n
		}
	}
	return kept
}

// fromFile marks, in scaled, the number that the file had. No program's name
// begins with a NUL.
const fromFile = "\x00"

// assemble is assembleAll for a file that follows the one in force: a program that
// is described as before stays the one that it is.
func (r *reloader) assemble(file *config.File) ([]*runner.Program, error) {
	r.mu.Lock()
	described, kept := map[string]*config.Program{}, map[string]*runner.Program{}
	for _, p := range r.file.Programs {
		described[p.Name] = p
	}
	for _, p := range r.programs {
		kept[p.Name] = p
	}
	r.mu.Unlock()
	changed := *file
	changed.Programs = slices.DeleteFunc(slices.Clone(file.Programs), func(p *config.Program) bool {
		return described[p.Name] != nil && config.Same(described[p.Name], p)
	})
	fresh, err := assembleAll(&changed, r.environ, r.outputs.dir)
	if err != nil {
		return nil, err
	}
	for _, p := range fresh {
		kept[p.Name] = p
	}
	programs := make([]*runner.Program, len(file.Programs))
	for n, p := range file.Programs {
		programs[n] = kept[p.Name]
	}
	return programs, nil
}

func (r *reloader) apply(ctx context.Context, file *config.File, programs []*runner.Program, scaled map[string]int, actions []config.Action) error {
	respawn := map[string]bool{}
	for _, a := range actions {
		if a.Kind == config.Respawn || a.Kind == config.Reopen {
			respawn[a.Program] = true
		}
	}
	record := func() {
		r.state.setConfig(savedConfig{File: file, Scaled: scaled})
		r.outputs.configure(file.Programs)
		r.scrapers.configure(file.Programs)
	}
	if err := r.group.Apply(ctx, programs, respawn, record); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.file, r.programs, r.scaled = file, programs, scaled
	return nil
}

// scale sets the number of a program's instances.
func (r *reloader) scale(ctx context.Context, name string, n int) error {
	r.turn.Lock()
	defer r.turn.Unlock()
	old := r.current()
	file := *old
	file.Programs = make([]*config.Program, len(old.Programs))
	found := false
	for i, p := range old.Programs {
		if p.Name == name {
			found = true
			scaled := *p
			scaled.NumProcs = n
			r.noteScale(name, n, p.NumProcs)
			p = &scaled
		}
		file.Programs[i] = p
	}
	if !found {
		return &socket.Problem{Message: "no such program: " + name, Hint: "pm status lists them", Code: socket.CodeUnknown}
	}
	programs, err := r.assemble(&file)
	if err != nil {
		return err
	}
	r.mu.Lock()
	scaled := r.scaled
	r.mu.Unlock()
	return r.apply(ctx, &file, programs, scaled, nil)
}

func (r *reloader) noteScale(name string, n, before int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.scaled[fromFile+name]; !ok {
		r.scaled[fromFile+name] = before
	}
	r.scaled[name] = n
}

func wirePlan(actions []config.Action, daemon []config.DaemonChange) socket.Plan {
	plan := socket.Plan{Schema: socket.Schema, Actions: make([]socket.Action, len(actions))}
	for n, a := range actions {
		plan.Actions[n] = socket.Action{Instance: a.Instance, Action: string(a.Kind), Reasons: a.Reasons}
		if plan.Actions[n].Reasons == nil {
			plan.Actions[n].Reasons = []string{}
		}
	}
	for _, c := range daemon {
		effect := "it takes effect when the daemon is started anew"
		if c.Requires == config.Live {
			effect = "in force from now on"
		}
		plan.Notes = append(plan.Notes, c.Key+" changed: "+effect)
	}
	return plan
}

// summary counts the actions of a reload: "2 respawn, 1 start, 5 keep".
func summary(actions []config.Action) string {
	counts := map[config.Change]int{}
	var order []config.Change
	for _, a := range actions {
		if counts[a.Kind] == 0 {
			order = append(order, a.Kind)
		}
		counts[a.Kind]++
	}
	var parts []string
	for _, kind := range order {
		parts = append(parts, fmt.Sprintf("%d %s", counts[kind], kind))
	}
	if len(parts) == 0 {
		return "no programs"
	}
	return strings.Join(parts, ", ")
}
