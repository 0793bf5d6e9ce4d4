package subcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"pm.example/proc"
	"pm.example/socket"
)

// env is what a command has of its surroundings.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string

	socketGlobal  string // --socket before the command's name
	socketCommand string // --socket after it
	version       bool   // --version in place of a command
}

// Main runs pm with its arguments, of which the first is its own name, and
// returns the exit code.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	e := &env{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv}
	return report(stderr, run(ctx, e, args))
}

// run parses args and runs the command that they name.
func run(ctx context.Context, e *env, args []string) error {
	app := newApp(e, offered(e, args)...)
	args = interspersed(app, args)
	lean(app, args)
	return app.RunContext(ctx, args)
}

// offered returns the commands among which args choose: all, but for pm exec, which
// is started as often as programs are, only that. To make the others would take
// longer than many a program runs.
func offered(e *env, args []string) []*cli.Command {
	if len(args) > 1 && args[1] == "exec" {
		return []*cli.Command{execCommand(e)}
	}
	return commands(e)
}

// lean takes from the command that args name the flags that it can do without.
// pm exec has one for each key of a program, and the library goes over all of
// them several times: that would take longer than many a program runs.
func lean(app *cli.App, args []string) {
	for n, arg := range args {
		if command := find(app.Commands, arg); n > 0 && command != nil {
			command.Flags = mentioned(command.Flags, args[n+1:])
			return
		}
	}
}

// mentioned returns flags without the lists that args do not name: these have no
// value then. A word that names no flag, such as --help, may need all of them.
func mentioned(flags []cli.Flag, args []string) []cli.Flag {
	var names []string
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-" && args[0] != "--" {
		word := args[0]
		name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if !hasFlag(flags, name) {
			return flags
		}
		names, args = append(names, name), args[1:]
		if takesValue(flags, word) && len(args) > 0 {
			args = args[1:]
		}
	}
	return slices.DeleteFunc(slices.Clone(flags), func(f cli.Flag) bool {
		list := listFlag(f)
		return list != nil && list.Value == nil && !slices.ContainsFunc(names, func(name string) bool {
			return name == list.Name || slices.Contains(list.Aliases, name)
		})
	})
}

// commands is the table of subcommands, in alphabetical order.
func commands(e *env) []*cli.Command {
	return []*cli.Command{
		attachCommand(e),
		availCommand(e),
		clearCommand(e),
		completionCommand(e),
		configCommand(e),
		daemonCommand(e),
		eventsCommand(e),
		execCommand(e),
		helpCommand(),
		logsCommand(e),
		maintailCommand(e),
		pidCommand(e),
		reloadCommand(e),
		reopenCommand(e),
		rereadCommand(e),
		restartCommand(e),
		rotateCommand(e),
		scaleCommand(e),
		scrapeLogsCommand(e),
		shellCommand(e),
		shutdownCommand(e),
		signalCommand(e),
		signalTreeCommand(e),
		startCommand(e),
		statusCommand(e),
		stopCommand(e),
		upgradeCommand(e),
		versionCommand(e),
		waitCommand(e),
		missingCommand("add", "put the program into the config file, and then: pm reload"),
		missingCommand("remove", "take the program out of the config file, and then: pm reload"),
	}
}

func newApp(e *env, commands ...*cli.Command) *cli.App {
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
		Flags:                     []cli.Flag{socketFlag(&e.socketGlobal), versionFlag(&e.version), cli.HelpFlag},
		Commands:                  commands,
		Action: func(c *cli.Context) error {
			switch {
			case e.version:
				return runVersion(e, false)
			case !c.Args().Present():
				return cli.ShowAppHelp(c)
			}
			return unknownCommand("pm", c.App.Commands, c.Args().First())
		},
	}
	for _, c := range app.Commands {
		defaults("pm", c)
	}
	return app
}

// defaults puts on a command, and on those below it, what the library would do
// differently. parent is what is written before its name.
func defaults(parent string, c *cli.Command) {
	name := parent + " " + c.Name
	c.HideHelpCommand = true // a program may be called help
	c.ArgsUsage = strings.TrimSpace(c.ArgsUsage)
	c.OnUsageError = onUsageError
	for n, f := range c.Flags {
		c.Flags[n] = plainFlag(f)
	}
	for _, sub := range c.Subcommands {
		defaults(name, sub)
	}
	if len(c.Subcommands) > 0 && c.Action == nil {
		c.Action = func(ctx *cli.Context) error {
			if !ctx.Args().Present() {
				return cli.ShowSubcommandHelp(ctx)
			}
			return unknownCommand(name, c.Subcommands, ctx.Args().First())
		}
	}
}

// plainFlag returns a flag whose help does not tell the obvious: that a switch
// is off, that no time is given. A time may be given in plain seconds.
func plainFlag(f cli.Flag) cli.Flag {
	switch f := f.(type) {
	case *cli.BoolFlag:
		f.DisableDefaultText = true
	case *cli.DurationFlag:
		return &cli.GenericFlag{Name: f.Name, Aliases: f.Aliases, Usage: f.Usage, Category: f.Category, DefaultText: f.DefaultText, Value: (*timeSpan)(f.Destination)}
	}
	return f
}

// timeSpan is the value of a flag: a duration such as 1m30s, or plain seconds,
// as in config files.
type timeSpan time.Duration

// Set reads the value that the user wrote.
func (t *timeSpan) Set(text string) error {
	d, err := time.ParseDuration(text)
	if seconds, numberErr := strconv.ParseFloat(text, 64); numberErr == nil {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d < 0 {
		return errors.New("not a length of time (accepted: such as 500ms, 1m30s, or 10 for seconds)")
	}
	*t = timeSpan(d)
	return nil
}

// String returns the value; none is "".
func (t *timeSpan) String() string {
	if t == nil || *t == 0 {
		return ""
	}
	return time.Duration(*t).String()
}

// onUsageError says what is wrong with a flag, in place of the library's help
// text.
func onUsageError(c *cli.Context, err error, _ bool) error {
	name, known := "pm", []cli.Flag(nil)
	if c != nil && c.Command != nil {
		name, known = orElse(c.Command.HelpName, "pm"), c.Command.Flags
	}
	return flagProblem(name, known, err.Error())
}

// flagWord finds the flag in a message of the library, which writes all of them
// with one dash.
var flagWord = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(flag provided but not defined: |flag needs an argument: |.* for flag )-([^ :]+)`)
})

// flagProblem turns a message of the library about a flag into one of pm's.
func flagProblem(command string, known []cli.Flag, message string) error {
	p := &socket.Problem{Message: message, Hint: command + " --help tells its flags", Code: socket.CodeUsage}
	m := flagWord().FindStringSubmatch(message)
	if m == nil {
		return p
	}
	kind, name, rest := m[1], m[2], message[len(m[0]):]
	_, notSignal := proc.ParseSignal(name)
	switch kind {
	case "flag provided but not defined: ":
		p.Message = "unknown flag " + dashed(name)
		if name == "cmd" && command == "pm exec" {
			p.Message = dashed(name) + ": " + whyNoCmd
		} else if nearest := nearestFlag(known, name); nearest != "" {
			p.Hint = "did you mean: " + dashed(nearest)
		} else if notSignal == nil && command == "pm signal" {
			p.Message, p.Hint = "unknown flag -"+name, "a signal is written without a dash: pm signal "+name
		} else if command == "pm scale" && strings.Trim(name, "0123456789") == "" {
			p.Message, p.Hint = fmt.Sprintf(notInstances, "-"+name), "0 is the least"
		}
	case "flag needs an argument: ":
		p.Message = "flag " + dashed(name) + " takes a value"
	default:
		p.Message = kind + dashed(name) + strings.Replace(rest, ": parse error", ": not a number", 1)
	}
	return p
}

func dashed(flag string) string {
	if len(flag) == 1 {
		return "-" + flag
	}
	return "--" + flag
}

// nearestFlag returns the known flag that is written most like name, if any is.
func nearestFlag(known []cli.Flag, name string) string {
	var names []string
	for _, f := range known {
		names = append(names, f.Names()...)
	}
	return nearest(names, name)
}

// unknownCommand suggests the nearest of the known names. parent is what is
// written before it.
func unknownCommand(parent string, known []*cli.Command, name string) error {
	p := &socket.Problem{Message: fmt.Sprintf("unknown command %q", strings.TrimPrefix(parent+" "+name, "pm ")), Code: socket.CodeUsage}
	p.Hint = "pm help" + strings.TrimPrefix(parent, "pm") + " lists the commands"
	var names []string
	for _, c := range known {
		if !c.Hidden {
			names = append(names, c.Names()...)
		}
	}
	if candidate := nearest(names, name); candidate != "" {
		p.Hint = "did you mean: " + parent + " " + candidate
	}
	return p
}

// nearest returns the name that is at most two letters, and less than all of
// them, from the one written; "" if none is.
func nearest(names []string, written string) string {
	found, best := "", 3
	for _, name := range names {
		if d := distance(written, name); d < best && d < len(name) {
			found, best = name, d
		}
	}
	return found
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
// after the first argument of a command that runs another. It also turns
// pm help COMMAND into pm COMMAND --help.
func interspersed(app *cli.App, args []string) []string {
	known := app.Commands
	head, rest := []string{}, args
	for len(rest) > 0 {
		arg := rest[0]
		head, rest = append(head, arg), rest[1:]
		switch {
		case len(head) == 1:
		case arg == "--":
			return args
		case strings.HasPrefix(arg, "-"):
			if takesValue(app.Flags, arg) && len(rest) > 0 {
				head, rest = append(head, rest[0]), rest[1:]
			}
		default:
			command := find(known, arg)
			switch {
			case command == nil:
				return args
			case command.Name == helpName:
				return append(head[:len(head)-1], helpArgs(app.Commands, rest)...)
			case len(command.Subcommands) == 0:
				return append(head, flagsFirst(command, rest)...)
			}
			known = command.Subcommands
		}
	}
	return args
}

func find(known []*cli.Command, name string) *cli.Command {
	i := slices.IndexFunc(known, func(c *cli.Command) bool { return c.HasName(name) })
	if i < 0 {
		return nil
	}
	return known[i]
}

// helpArgs turns the words after pm help into the command that they name, and
// --help. A word that names none is left to be told as unknown.
func helpArgs(known []*cli.Command, words []string) (args []string) {
	for _, word := range words {
		if strings.HasPrefix(word, "-") {
			continue
		}
		command := find(known, word)
		args = append(args, word)
		if command == nil {
			return args
		}
		if known = command.Subcommands; len(known) == 0 {
			break
		}
	}
	return append(args, "--help")
}

const helpName = "help"

func helpCommand() *cli.Command {
	return &cli.Command{
		Name: helpName, Aliases: []string{"h"}, Usage: "tell more about a command", ArgsUsage: "[COMMAND…]",
		Action: cli.ShowAppHelp, // its arguments are taken by interspersed
	}
}

// flagsFirst orders the arguments of a command. One that asks for help needs no
// others.
func flagsFirst(c *cli.Command, args []string) []string {
	if c.Name == "exec" || c.SkipFlagParsing {
		return args
	}
	var flags, plain []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--help" || arg == "-h":
			return []string{"--help"}
		case arg == "--":
			return slices.Concat(flags, []string{"--"}, plain, args)
		case !strings.HasPrefix(arg, "-") || arg == "-":
			plain = append(plain, arg)
		default:
			letters := separate(c.Flags, arg)
			flags = append(flags, letters...)
			if !takesValue(c.Flags, letters[len(letters)-1]) {
				continue
			}
			if len(args) == 0 { // its value is missing: none of the others is it
				return flags
			}
			flags, args = append(flags, args[0]), args[1:]
		}
	}
	return slices.Concat(flags, plain)
}

// separate takes flags of one letter apart that are written as one word: -fn is
// -f -n, and -n5 is -n=5. A bare number is one of lines, as tail has it. What cannot be
// taken apart stays.
func separate(flags []cli.Flag, word string) []string {
	name := word[1:]
	if strings.Trim(name, "0123456789") == "" && hasFlag(flags, "lines") {
		return []string{"--lines=" + name}
	}
	if strings.HasPrefix(name, "-") || len(name) < 2 || hasFlag(flags, name) {
		return []string{word}
	}
	var out []string
	for n := range len(name) {
		letter := name[n : n+1]
		switch {
		case !hasFlag(flags, letter):
			return []string{word}
		case takesValue(flags, "-"+letter) && n+1 < len(name):
			return append(out, "-"+letter+"="+strings.TrimPrefix(name[n+1:], "="))
		}
		out = append(out, "-"+letter)
	}
	return out
}

func hasFlag(flags []cli.Flag, name string) bool {
	return slices.ContainsFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
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

// How long a client waits for a daemon that is just starting, or is back in a moment,
// and the variable that names another time for the former.
const (
	patience    = 2 * time.Second
	patienceEnv = "PM_PATIENCE"
)

// client returns a client of the daemon. It connects with the first request.
func (e *env) client() *socket.Client {
	c := socket.Dial(e.socketPath())
	c.FirstPatience = patience
	if text := e.getenv(patienceEnv); text != "" {
		if err := (*timeSpan)(&c.FirstPatience).Set(text); err != nil {
			c.Refuse(usagef("%s is %q: %v", patienceEnv, text, err))
		}
	}
	c.Patience = max(patience, c.FirstPatience)
	return c
}

// withoutArgs is an action that refuses arguments.
func withoutArgs(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.Args().Present() {
			return usagef("%s takes no arguments, got %q", c.Command.HelpName, c.Args().First())
		}
		return action(c)
	}
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
