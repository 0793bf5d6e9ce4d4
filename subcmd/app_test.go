package subcmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"pm.example/socket"
)

// noEnv is an environment with nothing in it but a socket that nobody has.
func noEnv(key string) string {
	if key == "PM_SOCKET" {
		return "/dev/null/pm.sock" // no directory, which no daemon will make one
	}
	return ""
}

// pm runs a command line in this process.
func pm(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = Main(context.Background(), append([]string{"pm"}, args...), strings.NewReader(""), &out, &err, noEnv)
	return code, out.String(), err.String()
}

// appWith returns the app with one more command, for what no real one does.
func appWith(c *cli.Command) *cli.App {
	app := wholeApp(&env{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: noEnv})
	defaults("pm", c)
	app.Commands = append(app.Commands, c)
	return app
}

// everyCommand calls f with each command and its words, also those below.
func everyCommand(f func(words []string, c *cli.Command)) {
	var walk func([]string, []*cli.Command)
	walk = func(words []string, list []*cli.Command) {
		for _, c := range list {
			own := append(slices.Clone(words), c.Name)
			f(own, c)
			walk(own, c.Subcommands)
		}
	}
	walk(nil, wholeApp(&env{stdout: io.Discard, stderr: io.Discard, getenv: noEnv}).Commands)
}

// An *exec.ExitError has the methods of cli.ExitCoder: the library would print
// it and end the process.
func TestExitErrorComesBack(t *testing.T) {
	want := exec.Command("false").Run()
	if want == nil {
		t.Fatal("false did not fail")
	}
	app := appWith(&cli.Command{Name: "failing", Action: func(*cli.Context) error { return want }})
	if err := app.Run([]string{"pm", "failing"}); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// c.String("nmae") would be "" without a word: flags are read through their
// destinations.
func TestFlagsAreReadThroughDestinations(t *testing.T) {
	byName := regexp.MustCompile(`\b(c|ctx|cCtx)\.(String|Bool|Int|Int64|Uint|Uint64|Float64|Duration|StringSlice|Generic|Path|Value)\("`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if found := byName.Find(text); found != nil && !strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s: %s…: give the flag a Destination", name, found)
		}
	}
}

// The library would make two values of A=1,2.
func TestCommasSeparateNothing(t *testing.T) {
	var values cli.StringSlice
	app := appWith(&cli.Command{
		Name: "taking", Flags: []cli.Flag{&cli.StringSliceFlag{Name: "env", Destination: &values}},
		Action: func(*cli.Context) error { return nil },
	})
	if err := app.Run([]string{"pm", "taking", "--env", "A=1,2", "--env", "B=3"}); err != nil {
		t.Fatal(err)
	}
	if got := values.Value(); !slices.Equal(got, []string{"A=1,2", "B=3"}) {
		t.Errorf("got %q", got)
	}
}

// The library gives every command a command help below it, which would keep a
// program of that name from being selected.
func TestProgramsMayBeCalledHelp(t *testing.T) {
	for _, words := range [][]string{{"status", "help"}, {"status", "h"}, {"stop", "help"}, {"start", "h"}, {"logs", "help"}, {"restart", "help"}} {
		if code, out, _ := pm(words...); code != socket.CodeUnreachable || out != "" {
			t.Errorf("pm %q: exit %d, printed %q", words, code, out)
		}
	}
	everyCommand(func(words []string, c *cli.Command) {
		if !c.HideHelpCommand {
			t.Errorf("pm %s has a command help", strings.Join(words, " "))
		}
	})
}

func TestUnknownCommand(t *testing.T) {
	for _, test := range []struct {
		args           string
		name, wantHint string
	}{
		{"nosuch", "nosuch", "pm help lists the commands"},
		{"statsu", "statsu", "did you mean: pm status"},
		{"restrat --rolling web", "restrat", "did you mean: pm restart"},
		{"config chekc", "config chekc", "did you mean: pm config check"},
		{"config nosuch", "config nosuch", "pm help config lists the commands"},
		{"help nosuch", "nosuch", "pm help lists the commands"},
		{"help config nosuch", "config nosuch", "pm help config lists the commands"},
		{"nosuch --help", "nosuch", "pm help lists the commands"},
		{"x", "x", "pm help lists the commands"},
		{"maintial", "maintial", "pm help lists the commands"}, // maintail is one that pm has not
	} {
		code, out, text := pm(strings.Fields(test.args)...)
		want := "pm: unknown command \"" + test.name + "\"\npm: hint: " + test.wantHint + "\n"
		if code != socket.CodeUsage || out != "" || text != want {
			t.Errorf("pm %s: exit %d, printed %q and\n%swant\n%s", test.args, code, out, text, want)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, test := range []struct{ args, message, hint string }{
		{"--nosuch", "unknown flag --nosuch", "pm --help tells its flags"},
		{"status --nosuch", "unknown flag --nosuch", "pm status --help tells its flags"},
		{"status web --jsn", "unknown flag --jsn", "did you mean: --json"},
		{"stop web --time-out 3", "unknown flag --time-out", "did you mean: --timeout"},
		{"config check --sintax", "unknown flag --sintax", "did you mean: --syntax"},
		{"config check -x", "unknown flag -x", "pm config check --help tells its flags"},
		{"status --socket", "flag --socket takes a value", "pm status --help tells its flags"},
		{"logs web -n", "flag -n takes a value", "pm logs --help tells its flags"},
		{"logs web -n ten", `invalid value "ten" for flag -n: not a number`, "pm logs --help tells its flags"},
		{
			"start web --timeout soon", `invalid value "soon" for flag --timeout: not a length of time (accepted: such as 500ms, 1m30s, or 10 for seconds)`,
			"pm start --help tells its flags",
		},
		{"kill -9 web", "unknown flag -9", "a signal is written without a dash: pm signal 9"},
		{"signal -HUP web", "unknown flag -HUP", "a signal is written without a dash: pm signal HUP"},
		{"scale web -1", `"-1" is not a number of instances`, "0 is the least"},
		{"events --since yesterday", `invalid value "yesterday" for flag --since: not a number`, "pm events --help tells its flags"},
	} {
		code, out, text := pm(strings.Fields(test.args)...)
		want := "pm: " + test.message + "\npm: hint: " + test.hint + "\n"
		if code != socket.CodeUsage || out != "" || text != want {
			t.Errorf("pm %s: exit %d, printed %q and\n%swant\n%s", test.args, code, out, text, want)
		}
	}
}

// No command prints its help for a mistake, and each refuses one with 2.
func TestEveryCommandRefusesAnUnknownFlag(t *testing.T) {
	everyCommand(func(words []string, c *cli.Command) {
		if c.Name == helpName {
			return
		}
		code, out, text := pm(append(words, "--no-such-flag")...)
		if code != socket.CodeUsage || out != "" || strings.Count(text, "\n") != 2 || !strings.Contains(text, "hint: ") {
			t.Errorf("pm %s --no-such-flag: exit %d, printed %q and\n%s", strings.Join(words, " "), code, out, text)
		}
	})
}

// What acts on programs does nothing without being told on which.
func TestNothingIsSelectedByOmission(t *testing.T) {
	for _, words := range [][]string{{"start"}, {"stop"}, {"restart"}, {"restart", "--rolling"}, {"signal"}, {"signal", "HUP"}, {"scale"}, {"scale", "3"}, {"logs"}, {"wait"}} {
		if code, out, text := pm(words...); code != socket.CodeUsage || out != "" || text == "" {
			t.Errorf("pm %q: exit %d, printed %q and %q", words, code, out, text)
		}
	}
}

func TestCommandsWithoutArgumentsRefuseThem(t *testing.T) {
	everyCommand(func(words []string, c *cli.Command) {
		if c.ArgsUsage != "" || c.SkipFlagParsing {
			return
		}
		if code, out, text := pm(append(words, "superfluous")...); code != socket.CodeUsage || out != "" {
			t.Errorf("pm %s superfluous: exit %d, printed %q and %q", strings.Join(words, " "), code, out, text)
		}
	})
}

func TestUsageOfValues(t *testing.T) {
	for _, args := range []string{
		"scale web many", "scale web 1.5", "scale web", "scale web 2 3", "wait web --for lunch", "status -o fancy",
		"restart --rolling --no-wait web", "config show --running pm.toml", "config convert", "config check a b",
	} {
		if code, out, text := pm(strings.Fields(args)...); code != socket.CodeUsage || out != "" || !strings.HasPrefix(text, "pm: ") {
			t.Errorf("pm %s: exit %d, printed %q and %q", args, code, out, text)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, test := range []struct{ args, start string }{
		{"", "NAME:\n   pm - "},
		{"help", "NAME:\n   pm - "},
		{"h", "NAME:\n   pm - "},
		{"--help", "NAME:\n   pm - "},
		{"-h", "NAME:\n   pm - "},
		{"help help", "NAME:\n   pm - "},
		{"help status", "NAME:\n   pm status - "},
		{"status --help", "NAME:\n   pm status - "},
		{"status web -h", "NAME:\n   pm status - "},
		{"status -n 3 web --help", "NAME:\n   pm status - "},
		{"ls --help", "NAME:\n   pm status - "},
		{"help tail", "NAME:\n   pm logs - "},
		{"config", "NAME:\n   pm config - "},
		{"config --help", "NAME:\n   pm config - "},
		{"help config", "NAME:\n   pm config - "},
		{"help config check", "NAME:\n   pm config check - "},
		{"config check FILE --help", "NAME:\n   pm config check - "},
		{"help exec reboot", "NAME:\n   pm exec - "},
		{"--socket s help stop", "NAME:\n   pm stop - "},
	} {
		code, out, text := pm(strings.Fields(test.args)...)
		if code != 0 || text != "" || !strings.HasPrefix(out, test.start) {
			t.Errorf("pm %s: exit %d, printed %.60q and %q, want %q", test.args, code, out, text, test.start)
		}
	}
}

func TestInterspersed(t *testing.T) {
	app := wholeApp(&env{stdout: io.Discard, stderr: io.Discard, getenv: noEnv})
	for _, test := range []struct{ args, want string }{
		{"pm", "pm"},
		{"pm status", "pm status"},
		{"pm status web", "pm status web"},
		{"pm status web --json", "pm status --json web"},
		{"pm status web -o wide db -q", "pm status -o wide -q web db"},
		{"pm status web --output=wide db", "pm status --output=wide web db"},
		{"pm status web --socket s", "pm status --socket s web"},
		{"pm --socket s status web --json", "pm --socket s status --json web"},
		{"pm --socket=s status web --json", "pm --socket=s status --json web"},
		{"pm status web -- --json", "pm status -- web --json"},
		{"pm scale web --json -- -1", "pm scale --json -- web -1"},
		{"pm config check FILE --json", "pm config check --json FILE"},
		{"pm config check - --json", "pm config check --json -"},
		{"pm tail web -f", "pm tail -f web"},
		{"pm logs -fn 5 web", "pm logs -f -n 5 web"},
		{"pm logs web -fn5", "pm logs -f -n=5 web"},
		{"pm logs web -n5", "pm logs -n=5 web"},
		{"pm tail -100 web", "pm tail --lines=100 web"},
		{"pm scale web -1", "pm scale -1 web"},
		{"pm logs web -n=5", "pm logs -n=5 web"},
		{"pm logs web -n -1", "pm logs -n -1 web"},
		{"pm logs web -fx", "pm logs -fx web"},
		{"pm status -wq web", "pm status -w -q web"},
		{"pm signal-tree 41 -s HUP", "pm signal-tree -s HUP 41"},
		{"pm exec cmd --json", "pm exec cmd --json"},
		{"pm exec --umask 022 cmd -x", "pm exec --umask 022 cmd -x"},
		{"pm add web -x", "pm add web -x"},
		{"pm nosuch web --json", "pm nosuch web --json"},
		{"pm stop web --help", "pm stop --help"},
		{"pm help stop", "pm stop --help"},
		{"pm help", "pm --help"},
		{"pm --socket s help config show", "pm --socket s config show --help"},
		{"pm -- status web --json", "pm -- status web --json"},
	} {
		if got := strings.Join(interspersed(app, strings.Fields(test.args)), " "); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.args, got, test.want)
		}
	}
}

// Flags that are not mentioned are not given to the library, unless all may be
// needed: for the help, and to say which flag a misspelt one could be.
func TestLeanFlags(t *testing.T) {
	all := lists(execFlags(nil))
	for args, want := range map[string]string{
		"exec -- true":                   "",
		"exec true --env A=1":            "",
		"exec - --env A=1":               "",
		"exec --env A=1 -- true":         "env",
		"exec --env=A=1 --restart never": "autorestart env",
		"exec --quiet --umask 022 true":  "umask",
		"exec --timeout --umask true":    "",
		"exec --user":                    "user",
		"exec --help":                    all,
		"exec --env A=1 --ummask 022":    all,
		"--socket s exec --user root x":  "user",
	} {
		if got := lists(execFlags(strings.Fields(args))); got != want {
			t.Errorf("pm %s: has the flags %s, want %s", args, got, want)
		}
	}
}

// execFlags returns the flags that pm exec is left with by these arguments.
func execFlags(args []string) []cli.Flag {
	app := wholeApp(&env{getenv: noEnv})
	lean(app, append([]string{"pm"}, args...))
	return find(app.Commands, "exec").Flags
}

// lists names the flags that are lists, in alphabetical order.
func lists(flags []cli.Flag) string {
	var names []string
	for _, f := range flags {
		if list := listFlag(f); list != nil {
			names = append(names, list.Name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestTimeSpan(t *testing.T) {
	for text, want := range map[string]string{
		"10": "10s", "0.5": "500ms", "500ms": "500ms", "1m30s": "1m30s", "0": "", "0s": "", "1e2": "1m40s",
	} {
		var span timeSpan
		if err := span.Set(text); err != nil || span.String() != want {
			t.Errorf("%s: got %q and %v, want %q", text, span.String(), err, want)
		}
	}
	for _, text := range []string{"", "soon", "-1", "-1s", "NaN", "10 s"} {
		if span := timeSpan(0); span.Set(text) == nil {
			t.Errorf("%q is accepted as %s", text, span.String())
		}
	}
}

// --socket means the same before and after the command, and wins over the
// environment.
func TestSocketFlag(t *testing.T) {
	for _, args := range []string{"--socket /dev/null/other status", "status --socket /dev/null/other", "--socket /x status web --socket=/dev/null/other"} {
		code, _, text := pm(strings.Fields(args)...)
		if code != socket.CodeUnreachable || !strings.Contains(text, "at /dev/null/other:") {
			t.Errorf("pm %s: exit %d, %s", args, code, text)
		}
	}
	if _, _, text := pm("status"); !strings.Contains(text, "at /dev/null/pm.sock:") {
		t.Errorf("pm status does not take $PM_SOCKET: %s", text)
	}
}

func TestVersionFlag(t *testing.T) {
	_, want, _ := pm("version")
	if code, out, text := pm("--version"); code != 0 || out != want || text != "" {
		t.Errorf("pm --version: exit %d, printed %q and %q, want %q", code, out, text, want)
	}
}

// The table reads as a contents page: in order, and each word means one thing.
func TestTableOfCommands(t *testing.T) {
	var visible []string
	seen := map[string]bool{}
	for _, c := range commands(&env{getenv: noEnv}) {
		if !c.Hidden {
			visible = append(visible, c.Name)
		}
		for _, name := range c.Names() {
			if seen[name] {
				t.Errorf("%s means two commands", name)
			}
			seen[name] = true
		}
	}
	for n, name := range visible[1:] {
		// signal-tree follows signal.
		if strings.ReplaceAll(visible[n], "-", " ") > strings.ReplaceAll(name, "-", " ") {
			t.Errorf("%s stands before %s", visible[n], name)
		}
	}
}

// Every command tells what it is for, its exit codes, and what its flags do.
func TestHelpIsComplete(t *testing.T) {
	everyCommand(func(words []string, c *cli.Command) {
		name := strings.Join(words, " ")
		if c.Usage == "" && !c.SkipFlagParsing {
			t.Errorf("pm %s: no usage", name)
		}
		isGroup, isHelp := len(c.Subcommands) > 0, c.Name == helpName
		if !c.Hidden && !isGroup && !isHelp && !strings.Contains(c.Description, "Exit status: ") {
			t.Errorf("pm %s: the description tells no exit status", name)
		}
		for _, f := range c.Flags {
			if f, ok := f.(cli.DocGenerationFlag); !ok || f.GetUsage() == "" {
				t.Errorf("pm %s: flag %v: no usage", name, f)
			}
		}
	})
}

// wholeApp is pm with all of its commands.
func wholeApp(e *env) *cli.App { return newApp(e, commands(e)...) }
