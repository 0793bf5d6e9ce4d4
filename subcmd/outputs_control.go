package subcmd

import (
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"pm.example/config"
	"pm.example/output"
	"pm.example/runner"
	"pm.example/socket"
)

const outputStatus = "\n\nExit status: 0 done, or there is nothing to be done; 1 it could not be done; 4 no\nsuch program; 5 the daemon cannot be reached."

func rotateCommand(e *env) *cli.Command {
	return outputCommand(e, "rotate", "begin new files for what programs print",
		"Renames each file that pm writes for what is selected: FILE becomes FILE.1, that\nFILE.2 and so on, as when FILE has grown to the size logs.rotate of the program.\nNo line is lost or split. An empty file stays.\n\nExample:\n  pm rotate web"+outputStatus,
		(*socket.Client).Rotate)
}

func reopenCommand(e *env) *cli.Command {
	return outputCommand(e, "reopen", "open files anew that programs print into",
		"Opens each file that pm writes for what is selected again by its name, for who has\nrenamed it. What was printed before is in the old one. SIGUSR2 to the daemon does\nso for all programs and the daemon's own log.\n\nExample:\n  mv web.log web.old && pm reopen web"+outputStatus,
		(*socket.Client).Reopen)
}

func clearCommand(e *env) *cli.Command {
	return outputCommand(e, "clear", "forget what programs have printed",
		"Empties what the daemon keeps for pm logs of what is selected. Files stay.\n\nExample:\n  pm clear web"+outputStatus,
		(*socket.Client).Clear)
}

// outputCommand makes a command that does something to where programs print.
func outputCommand(e *env, name, usage, description string, ask func(*socket.Client, context.Context, socket.Request) (socket.Result, error)) *cli.Command {
	var o controlOptions
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "SELECTOR…", Description: description,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "print a JSON document"},
			socketFlag(&e.socketCommand),
		},
		Action: controlAction(e, &o, name, ask),
	}
}

// Rotate begins new files.
func (s *service) Rotate(ctx context.Context, by socket.Peer, req socket.Request) (socket.Result, error) {
	done := map[*output.File]error{} // instances may share a file
	return s.eachOutput(ctx, by, "rotate", req, func(p *config.Program, _ runner.Instance) (string, error) {
		return s.eachFile(p, "rotated", func(f *output.File) error {
			err, already := done[f]
			if !already {
				<-s.outputs.loop.DrainFile(f)
				err = f.Rotate()
				done[f] = err
			}
			return err
		})
	})
}

// Reopen opens files by their names.
func (s *service) Reopen(ctx context.Context, by socket.Peer, req socket.Request) (socket.Result, error) {
	return s.eachOutput(ctx, by, "reopen", req, func(p *config.Program, _ runner.Instance) (string, error) {
		return s.eachFile(p, "reopened", func(f *output.File) error {
			s.outputs.reopenFile(f)
			return nil
		})
	})
}

// Clear empties the logs of instances.
func (s *service) Clear(ctx context.Context, by socket.Peer, req socket.Request) (socket.Result, error) {
	return s.eachOutput(ctx, by, "clear", req, func(_ *config.Program, i runner.Instance) (string, error) {
		log := s.outputs.log(i.Program, i.Index)
		<-s.outputs.loop.Drain(log)
		log.Clear()
		return "cleared", nil
	})
}

// eachOutput does something for each selected instance, which returns what it has
// done.
func (s *service) eachOutput(ctx context.Context, by socket.Peer, verb string, req socket.Request, do func(*config.Program, runner.Instance) (string, error)) (socket.Result, error) {
	return s.control(ctx, by, verb, req, func(ctx context.Context, sel []runner.Selector) ([]runner.Outcome, []runner.Selector, error) {
		list, unknown, err := s.group.Snapshot(ctx, sel)
		if err != nil {
			return nil, nil, err
		}
		var outcomes []runner.Outcome
		for _, i := range list {
			p := s.reload.program(i.Program)
			if p == nil { // gone meanwhile
				continue
			}
			o := runner.Outcome{Instance: i.Name, Status: i.Status, Verdict: runner.Done}
			if o.Message, err = do(p, i); err != nil {
				o.Verdict, o.Message = runner.CannotDo, err.Error()
			}
			outcomes = append(outcomes, o)
		}
		return outcomes, unknown, nil
	})
}

// eachFile does something with each file that pm writes for a program.
func (s *service) eachFile(p *config.Program, done string, do func(*output.File) error) (string, error) {
	var names []string
	for _, f := range s.outputs.written(p) {
		if err := do(f); err != nil {
			return "", err
		}
		names = append(names, f.Path())
	}
	if own := ownFile(p); own != "" {
		return "", &socket.Problem{Message: "the program itself has " + own + " open, so that pm cannot change it; with logs.rotate pm writes the file"}
	}
	if len(names) == 0 {
		return "nothing to do: pm writes no file for it", nil
	}
	return done + " " + strings.Join(names, ", "), nil
}

// ownFile returns a file that a program writes itself; empty if there is none.
func ownFile(p *config.Program) string {
	for _, where := range []string{p.Stdout, p.Stderr} {
		if isFile(where) && !p.ThroughPM(where) {
			return where
		}
	}
	return ""
}

// written lists the files that pm writes for a program, each once.
func (o *outputs) written(p *config.Program) (list []*output.File) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for n, path := range writtenFiles(p) {
		if f := o.files[path]; f != nil && (n == 0 || list == nil || list[0] != f) {
			list = append(list, f)
		}
	}
	return list
}

// reopen opens all files by their names.
func (o *outputs) reopen() {
	o.mu.Lock()
	var files []*output.File
	for _, f := range o.files {
		files = append(files, f)
	}
	o.mu.Unlock()
	for _, f := range files {
		o.reopenFile(f)
	}
}

// reopenFile opens a file by its name, once what was printed before is in it.
func (o *outputs) reopenFile(f *output.File) {
	<-o.loop.DrainFile(f)
	f.Reopen()
}

// drain waits until what a program has printed by now is in its files.
func (o *outputs) drain(p *config.Program) {
	for _, f := range o.written(p) {
		<-o.loop.DrainFile(f)
	}
}
