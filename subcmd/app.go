package subcmd

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pm.example/socket"
)

// env is what a command has of its surroundings.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string

	socketGlobal  string // --socket before the command's name
	socketCommand string // --socket after it
}

// Main runs pm with its arguments, of which the first is its own name, and
// returns the exit code.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	e := &env{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv}
	return report(stderr, run(ctx, e, args))
}

// run parses args and runs the command that they name.
func run(ctx context.Context, e *env, args []string) error {
	app := newApp(e)
	return app.RunContext(ctx, interspersed(app, args))
}

// commands is the table of subcommands, in alphabetical order.
func commands(e *env) []*cli.Command {
	return []*cli.Command{
		availCommand(e),
		configCommand(e),
		daemonCommand(e),
		eventsCommand(e),
		execCommand(e),
		logsCommand(e),
		pidCommand(e),
		reloadCommand(e),
		rereadCommand(e),
		restartCommand(e),
		scaleCommand(e),
		shutdownCommand(e),
		signalCommand(e),
		signalTreeCommand(e),
		startCommand(e),
		statusCommand(e),
		stopCommand(e),
		versionCommand(e),
		waitCommand(e),
		missingCommand("clear", "the ring of a program's output empties itself; a log file is the program's own"),
		missingCommand("fg", "follow the output with: pm logs -f NAME"),
		missingCommand("maintail", "the daemon logs to its standard error, or to the file named with --log"),
	}
}

func newApp(e *env) *cli.App {
	app := &cli.App{
		Name:  "pm",
		Usage: "run programs and keep them running",
		UsageText: `pm daemon -c FILE          supervise the programs of FILE
pm status                  see what runs
pm restart web             stop and start a program
pm logs -f web             follow what it prints
pm exec -- CMD ARG…        run one program, and leave nothing behind
pm help COMMAND            more about a command`,
		Description: `Programs are selected by NAME, NAME:2, NAME:*, a glob such as 'web*', group:NAME
or all. Flags may stand before or after arguments.

Exit codes: 0 done, or already so; 1 a target failed; 2 usage or configuration;
3 (status) something is not in its desired state; 4 no such program; 5 the daemon
cannot be reached; 6 permission denied; 7 start failed; 8 timed out.`,
		Reader: e.stdin, Writer: e.stdout, ErrWriter: e.stderr,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {}, // the library would end the process
		OnUsageError:              onUsageError,
		Flags:                     []cli.Flag{socketFlag(&e.socketGlobal)},
		Commands:                  commands(e),
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				return cli.ShowAppHelp(c)
			}
			return unknownCommand(c.App.Commands, c.Args().First())
		},
	}
	for _, c := range app.Commands {
		defaults(c)
	}
	return app
}

// defaults puts on a command what the library would do differently.
func defaults(c *cli.Command) {
	c.HideHelpCommand = true // a program may be called help
	c.OnUsageError = onUsageError
	for _, sub := range c.Subcommands {
		defaults(sub)
	}
	if len(c.Subcommands) > 0 && c.Action == nil {
		c.Action = func(ctx *cli.Context) error {
			if !ctx.Args().Present() {
				return cli.ShowSubcommandHelp(ctx)
			}
			return unknownCommand(c.Subcommands, ctx.Args().First())
		}
	}
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	name := strings.TrimSpace("pm " + commandName(c))
	return &socket.Problem{Message: err.Error(), Hint: name + " --help tells its flags", Code: socket.CodeUsage}
}

func commandName(c *cli.Context) string {
	if c == nil || c.Command == nil || c.Command.Name == "pm" {
		return ""
	}
	return c.Command.Name
}

// unknownCommand suggests the nearest of the known names.
func unknownCommand(known []*cli.Command, name string) error {
	hint := "pm help lists the commands"
	best := 3
	for _, c := range known {
		for _, candidate := range c.Names() {
			if d := distance(name, candidate); d < best && !c.Hidden {
				best, hint = d, "did you mean: pm "+candidate
			}
		}
	}
	return &socket.Problem{Message: fmt.Sprintf("unknown command %q", name), Hint: hint, Code: socket.CodeUsage}
}

// distance counts the letters to insert, remove or replace between two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// interspersed moves flags that follow arguments before them, as people write
// them: pm status web --json. What follows -- stays, and so does everything
// after the first argument of a command that runs another.
func interspersed(app *cli.App, args []string) []string {
	known := app.Commands
	head, rest := []string{}, args
	var command *cli.Command
	for len(rest) > 0 {
		arg := rest[0]
		isFlag := len(head) > 0 && strings.HasPrefix(arg, "-")
		head, rest = append(head, arg), rest[1:]
		switch {
		case len(head) == 1 || arg == "--":
		case isFlag:
			if takesValue(app.Flags, arg) && len(rest) > 0 {
				head, rest = append(head, rest[0]), rest[1:]
			}
			continue
		default:
			i := slices.IndexFunc(known, func(c *cli.Command) bool { return c.HasName(arg) })
			if i < 0 {
				return args
			}
			command = known[i]
			known = command.Subcommands
			if len(known) == 0 {
				return append(head, flagsFirst(command, rest)...)
			}
		}
	}
	return args
}

func flagsFirst(c *cli.Command, args []string) []string {
	if c.Name == "exec" {
		return args
	}
	var flags, plain []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			return slices.Concat(flags, []string{"--"}, plain, args)
		case !strings.HasPrefix(arg, "-") || arg == "-":
			plain = append(plain, arg)
		default:
			flags = append(flags, arg)
			if takesValue(c.Flags, arg) && len(args) > 0 {
				flags, args = append(flags, args[0]), args[1:]
			}
		}
	}
	return slices.Concat(flags, plain)
}

// takesValue reports whether the flag that arg names is followed by a value of
// its own.
func takesValue(flags []cli.Flag, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			_, isBool := f.(*cli.BoolFlag)
			return !isBool
		}
	}
	return false
}

func socketFlag(destination *string) cli.Flag {
	return &cli.StringFlag{Name: "socket", Destination: destination, Usage: "the daemon's control socket is `PATH` (default: $PM_SOCKET, else " + socket.DefaultPath(func(string) string { return "" }) + ")"}
}

// socketPath is the socket that flags or the environment name.
func (e *env) socketPath() string {
	if path := orElse(e.socketCommand, e.socketGlobal); path != "" {
		return path
	}
	return socket.DefaultPath(e.getenv)
}

// patience is how long a client waits for a daemon that is just starting.
const patience = 500 * time.Millisecond

// client returns a client of the daemon. It connects with the first request.
func (e *env) client() *socket.Client {
	c := socket.Dial(e.socketPath())
	c.Patience = patience
	return c
}

// missingCommand stands for a word that people know from elsewhere and that pm
// does not have; it says what to use instead.
func missingCommand(name, instead string) *cli.Command {
	return &cli.Command{
		Name: name, Hidden: true, SkipFlagParsing: true,
		Action: func(*cli.Context) error {
			return &socket.Problem{Message: "pm has no " + name, Hint: instead, Code: socket.CodeUsage}
		},
	}
}
