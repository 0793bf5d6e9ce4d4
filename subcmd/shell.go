package subcmd

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/peterh/liner"
	"github.com/urfave/cli/v2"

	"pm.example/socket"
)

// shellOptions are the flags of pm shell.
type shellOptions struct {
	commands string
	given    bool // commands is, though it may be empty
	stop     bool
}

func shellCommand(e *env) *cli.Command {
	var o shellOptions
	return &cli.Command{
		Name: "shell", Usage: "run commands one after the other, on a terminal or from a script",
		Description: `On a terminal, reads commands with line editing, history and completion by Tab.
Elsewhere stdin is a script. A line holds commands as after pm, with ; between
them and words quoted as in sh; # begins a comment. exit, quit or Ctrl-D ends the
shell, and Ctrl-C only the command that runs.

The history is kept in $XDG_STATE_HOME/pm/history, else in
~/.local/state/pm/history; as a link to /dev/null it keeps nothing.

Examples:
  pm shell
  pm shell -c 'stop web; start web'
  pm shell -e < script

Exit status: that of the last command that failed, with --stop-on-error of the
first; 0 none failed, or the shell was left on a terminal.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "command", Aliases: []string{"c"}, Destination: &o.commands, Usage: "run `COMMANDS`, and read none"},
			&cli.BoolFlag{Name: "stop-on-error", Aliases: []string{"e"}, Destination: &o.stop, Usage: "end a script at the first command that fails"},
			socketFlag(&e.socketCommand),
		},
		Action: withoutArgs(func(c *cli.Context) error {
			o.given = c.IsSet("command")
			return runShell(c.Context, e, o)
		}),
	}
}

// runShell reads commands from where they are, and runs them.
func runShell(ctx context.Context, e *env, o shellOptions) error {
	s := newShell(e)
	defer signal.Stop(s.signals)
	switch {
	case o.given:
		return s.script(ctx, strings.NewReader(o.commands), o.stop)
	case isTerminal(e.stdin) && isTerminal(e.stdout):
		return s.interact(ctx)
	}
	script := s.env.stdin
	s.env.stdin = strings.NewReader("") // it is the script's, no command's
	return s.script(ctx, script, o.stop)
}

// shell runs lines of commands.
type shell struct {
	env     env
	app     *cli.App       // what may be typed
	signals chan os.Signal // that came, also while a command ran
	prompt  *prompt        // nil: a script
	ended   error          // what a signal that came while a line was read ends the shell with
}

func newShell(e *env) *shell {
	s := &shell{env: *e, signals: make(chan os.Signal, 8)}
	path := e.socketPath()
	s.env.getenv = func(key string) string { // a flag would be reset with each command
		if key == "PM_SOCKET" {
			return path
		}
		return e.getenv(key)
	}
	s.env.socketGlobal, s.env.socketCommand = "", ""
	inside := s.env
	s.app = newApp(&inside, commands(&inside)...)
	signal.Notify(s.signals, endingSignals()...)
	return s
}

// endingSignals end a command and a script. On a terminal the first leaves the
// shell alone.
func endingSignals() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM} }

// errLeave is what exit and quit return.
var errLeave = errors.New("leave the shell")

// maxScriptLine bounds a line of a script.
const maxScriptLine = 64 << 10

// script runs the lines of r, and returns the code of the last command that
// failed, or of the first.
func (s *shell) script(ctx context.Context, r io.Reader, stop bool) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxScriptLine)
	code := socket.CodeDone
	for number := 1; ; number++ {
		line, err := s.await(ctx, func() (string, error) { return nextLine(lines) })
		if errors.Is(err, io.EOF) {
			return codeError(code)
		}
		if errors.Is(err, bufio.ErrTooLong) {
			return usagef("line %d is longer than %d bytes", number, maxScriptLine)
		}
		if err != nil {
			return err
		}
		failed, err := s.line(ctx, line, fmt.Sprintf("line %d: ", number), stop)
		if failed != socket.CodeDone {
			code = failed
		}
		switch {
		case errors.Is(err, errLeave) || stop && failed != socket.CodeDone:
			return codeError(code)
		case err != nil:
			return err
		}
	}
}

// nextLine returns the next line of a script, or io.EOF.
func nextLine(lines *bufio.Scanner) (string, error) {
	if lines.Scan() {
		return lines.Text(), nil
	}
	if lines.Err() != nil {
		return "", lines.Err()
	}
	return "", io.EOF
}

// line runs the commands of a line, and returns the code of the last that
// failed, or of the first. An error ends the shell.
func (s *shell) line(ctx context.Context, line, where string, stop bool) (code int, err error) {
	commands, err := splitLine(line)
	if err != nil {
		var p *socket.Problem
		if errors.As(err, &p) {
			p.Message = where + p.Message
		}
		return report(s.env.stderr, err), nil
	}
	for _, words := range commands {
		failed, err := s.command(ctx, words)
		if failed != socket.CodeDone {
			code = failed
		}
		if err != nil || stop && code != socket.CodeDone {
			return code, err
		}
	}
	return code, nil
}

// command runs one command, which a signal ends. An error ends the shell.
func (s *shell) command(ctx context.Context, words []string) (int, error) {
	within, stop := signal.NotifyContext(ctx, endingSignals()...)
	defer stop()
	err := s.dispatch(within, words)
	if errors.Is(err, errLeave) {
		return socket.CodeDone, err
	}
	code := report(s.env.stderr, err)
	if err := cmp.Or(s.ended, ctx.Err()); err != nil {
		return code, err
	}
	cancelled := errors.Is(err, context.Canceled) || within.Err() != nil
	for sig := s.caught(cancelled); sig != nil; sig = s.caught(false) {
		if s.prompt == nil || sig != os.Interrupt {
			return code, signalled(sig)
		}
		if cancelled {
			cancelled = false
			tell(s.env.stderr, "interrupted")
		}
	}
	return code, nil
}

// caught returns a signal that came, or nil. One that has ended a command may
// still be on its way here.
func (s *shell) caught(underWay bool) os.Signal {
	select {
	case sig := <-s.signals:
		return sig
	default:
	}
	if !underWay {
		return nil
	}
	select {
	case sig := <-s.signals:
		return sig
	case <-time.After(time.Second):
		return nil
	}
}

// signalled is the exit status of what a signal has ended, as shells have it.
func signalled(sig os.Signal) error { return exitStatus(128 + int(sig.(syscall.Signal))) }

// dispatch runs what words name. Those of pm may begin with pm, as its messages
// write them.
func (s *shell) dispatch(ctx context.Context, words []string) error {
	if len(words) > 1 && words[0] == "pm" {
		words = words[1:]
	}
	switch name := s.nameOf(words); {
	case name == "exit" || name == "quit":
		if len(words) > 1 {
			return usagef("%s takes no arguments, got %q", name, words[1])
		}
		return errLeave
	case name == helpName && len(words) == 1:
		return s.help()
	case barred(name):
		return &socket.Problem{Message: name + " is no command of the shell", Hint: "leave it with exit, and run: pm " + name, Code: socket.CodeUsage}
	case name == "shutdown" && s.prompt != nil && !asksForHelp(words):
		if err := s.confirm(ctx, "stop all programs and end the daemon?"); err != nil {
			return err
		}
	}
	inside := s.env
	return run(ctx, &inside, append([]string{"pm"}, words...))
}

// nameOf returns the name of the command that words call, not an alias of it.
func (s *shell) nameOf(words []string) string {
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		switch command := find(s.app.Commands, word); {
		case command != nil:
			return command.Name
		case !strings.HasPrefix(word, "-"):
			return word
		case takesValue(s.app.Flags, word) && len(words) > 0:
			words = words[1:]
		}
	}
	return ""
}

// barred reports whether a command cannot be run in the shell: it would take
// the terminal over, or the shell itself.
func barred(name string) bool { return name == "daemon" || name == "exec" || name == "shell" }

func asksForHelp(words []string) bool {
	return slices.Contains(words, "--help") || slices.Contains(words, "-h")
}

// confirm asks for a y. Anything else is a no, which fails the command. ctx does
// not end the reading, which would go on and take the next line.
func (s *shell) confirm(ctx context.Context, question string) error {
	answer, err := s.await(context.WithoutCancel(ctx), s.prompt.reading(question+" [y/N] "))
	if s.ended != nil {
		return s.ended
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	if err != nil || answer != "y" && answer != "yes" {
		return &socket.Problem{Message: "nothing is done: the answer was not y", Code: socket.CodeFailed}
	}
	return nil
}

// help lists the commands of the shell.
func (s *shell) help() error {
	t := tabwriter.NewWriter(s.env.stdout, 0, 0, 2, ' ', 0)
	for _, command := range s.app.Commands {
		if command.Hidden || barred(command.Name) {
			continue
		}
		if _, err := fmt.Fprintf(t, "%s\t%s\n", strings.Join(command.Names(), ", "), command.Usage); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(t, "exit, quit\tleave the shell\n"); err != nil {
		return err
	}
	return t.Flush()
}

// await reads what may take for ever, unless a signal comes. On a terminal
// Ctrl-C is no reason to end: it clears the line.
func (s *shell) await(ctx context.Context, read func() (string, error)) (string, error) {
	type reading struct {
		text string
		err  error
	}
	done := make(chan reading, 1)
	go func() { // ends with the reading; one that is given up ends with the process
		text, err := read()
		done <- reading{text, err}
	}()
	for {
		select {
		case r := <-done:
			return r.text, r.err
		case sig := <-s.signals:
			if s.prompt == nil || sig != os.Interrupt {
				s.ended = signalled(sig)
				return "", s.ended
			}
			s.prompt.again()
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// interact reads lines from the terminal until it is told to leave.
func (s *shell) interact(ctx context.Context) error {
	signal.Notify(s.signals, syscall.SIGHUP)
	var err error
	if s.prompt, err = newPrompt(s.env.stdout); err != nil {
		return err
	}
	defer s.prompt.close()
	kept := newHistory(s.env.getenv)
	s.complain(s.prompt.remember(kept))
	known := &nameCache{ask: s.status(nil)}
	s.prompt.complete(&completer{
		app: s.app, words: []string{"exit", "quit"}, bars: barred, flags: flagValues(),
		names: func() names { return known.get(ctx) },
	})
	whom := &addressee{ask: s.status([]string{"-"}), name: filepath.Base(s.env.socketPath())}
	complained := false
	for {
		line, err := s.await(ctx, s.prompt.reading(whom.prompt(ctx, terminalWidth(s.env.stdout))))
		switch {
		case errors.Is(err, liner.ErrPromptAborted):
			continue
		case errors.Is(err, io.EOF):
			_, err = fmt.Fprintln(s.env.stdout)
			return err
		case err != nil:
			return err
		}
		line = strings.TrimSpace(line)
		s.prompt.append(line)
		if err := kept.add(line); err != nil && !complained {
			complained = true
			s.complain(err)
		}
		if _, err := s.line(ctx, line, "", false); errors.Is(err, errLeave) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// complain tells what keeps the shell from nothing.
func (s *shell) complain(err error) {
	if err != nil {
		tell(s.env.stderr, err.Error())
	}
}

// status returns a function that asks the daemon for the status of selectors,
// once and without patience.
func (s *shell) status(selectors []string) func(context.Context) (socket.Status, error) {
	return func(ctx context.Context) (socket.Status, error) {
		client := s.env.client()
		client.FirstPatience, client.Patience = 0, 0
		defer client.Close()
		return client.Status(ctx, selectors)
	}
}
