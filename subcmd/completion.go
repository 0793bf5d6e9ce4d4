package subcmd

import (
	_ "embed" // the scripts
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"pm.example/socket"
)

// The scripts for each shell, but for the table of commands, which stands where
// @TABLE@ does.
var (
	//go:embed completion.bash
	bashScript string
	//go:embed completion.zsh
	zshScript string
	//go:embed completion.fish
	fishScript string
)

const completionShells = "bash|zsh|fish"

func completionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print what completes pm's commands in your shell", ArgsUsage: completionShells,
		Description: `Prints a script that makes bash, zsh or fish complete commands, flags, signals
and, by asking the daemon, the names of instances.

Examples:
  source <(pm completion bash)
  pm completion bash > /etc/bash_completion.d/pm
  pm completion zsh > "${fpath[1]}/_pm"
  pm completion fish > ~/.config/fish/completions/pm.fish

Exit status: 0 done; 2 no such shell.`,
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return &socket.Problem{Message: "pm completion takes the name of a shell", Hint: "one of bash, zsh and fish", Code: socket.CodeUsage}
			}
			return runCompletion(e, c.App, c.Args().First())
		},
	}
}

// runCompletion prints the script for a shell.
func runCompletion(e *env, app *cli.App, shell string) error {
	var script string
	switch shell {
	case "bash":
		script = strings.Replace(bashScript, "@TABLE@\n", shellTable(app), 1)
	case "zsh":
		script = strings.Replace(zshScript, "@TABLE@\n", shellTable(app), 1)
	case "fish":
		script = strings.Replace(fishScript, "@TABLE@\n", fishTable(app), 1)
	default:
		return usagef("pm knows no completion for %q (accepted: bash, zsh, fish)", shell)
	}
	_, err := io.WriteString(e.stdout, script)
	return err
}

// entry is what the scripts know of a command.
type entry struct {
	path     []string // its names, from the outermost
	commands []*cli.Command
	flags    []cli.Flag
	args     string // the usage of its arguments
}

// entries lists pm itself, its commands and those below them. Each follows the
// one that it is below.
func entries(app *cli.App) []entry {
	list := []entry{{commands: app.Commands, flags: app.Flags}}
	var walk func([]string, []*cli.Command)
	walk = func(path []string, commands []*cli.Command) {
		for _, c := range commands {
			if c.Hidden {
				continue
			}
			at := append(slices.Clone(path), c.Name)
			args := c.ArgsUsage
			if len(c.Subcommands) > 0 {
				args = ""
			}
			list = append(list, entry{at, c.Subcommands, append(slices.Clone(c.Flags), cli.HelpFlag), args})
			walk(at, c.Subcommands)
		}
	}
	walk(nil, app.Commands)
	return list
}

// shellTable is the table of commands for bash and zsh: a case of what has been
// typed sets the variables that describe what may follow. A list in them has
// one word a line.
func shellTable(app *cli.App) string {
	var out strings.Builder
	for _, at := range entries(app) {
		_, _ = fmt.Fprintf(&out, "\t'%s')\n", strings.Join(at.path, " "))
		for _, list := range []struct {
			name  string
			words []string
		}{
			{"commands", visibleNames(at.commands)},
			{"aliases", aliases(at.commands)},
			{"flags", flagWords(at.flags)},
			{"valued", valued(at.flags)},
			{"arguments", argumentKinds(at.args)},
		} {
			_, _ = fmt.Fprintf(&out, "\t\t%s='%s'\n", list.name, strings.Join(list.words, "\n"))
		}
		out.WriteString("\t\t;;\n")
	}
	return out.String()
}

func visibleNames(commands []*cli.Command) (names []string) {
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

// aliases lists the other names of commands, each as alias=name.
func aliases(commands []*cli.Command) (list []string) {
	for _, c := range commands {
		for _, alias := range c.Aliases {
			list = append(list, alias+"="+c.Name)
		}
	}
	return list
}

// valued lists each flag that takes a value as it may be written, with =, its
// values where they are known, and the word for them otherwise.
func valued(flags []cli.Flag) (list []string) {
	known := flagValues()
	for _, f := range flags {
		if !takesValue(flags, f.Names()[0]) {
			continue
		}
		for _, name := range f.Names() {
			list = append(list, dashed(name)+"="+strings.Join(known[f.Names()[0]], " "))
		}
	}
	return list
}

// argumentKinds lists what each argument of a command can be; the last holds
// for those behind it if it ends in … .
func argumentKinds(usage string) []string {
	return slices.DeleteFunc(argumentWord().FindAllString(usage, -1), func(word string) bool { return word == "--" })
}

// fishTable is the table of commands for fish: one statement for each command,
// flag and kind of argument.
func fishTable(app *cli.App) string {
	var out strings.Builder
	out.WriteString("set -g __pm_known")
	for _, at := range entries(app) {
		for _, c := range at.commands {
			if c.Hidden {
				continue
			}
			prefix := strings.Join(append(slices.Clone(at.path), ""), " ")
			_, _ = fmt.Fprintf(&out, " \\\n    %s", fishQuote(prefix+strings.Join(c.Names(), ","+prefix)))
		}
	}
	out.WriteString("\n")
	for _, at := range entries(app) {
		condition := "complete -c pm -n " + fishQuote(strings.TrimSpace("__pm_at "+strings.Join(at.path, " ")))
		for _, c := range at.commands {
			if !c.Hidden {
				_, _ = fmt.Fprintf(&out, "%s -a %s -d %s\n", condition, c.Name, fishQuote(c.Usage))
			}
		}
		for _, f := range at.flags {
			_, _ = fmt.Fprintf(&out, "%s%s\n", condition, fishFlag(at.flags, f))
		}
		if proposals := fishArguments(app, at.args); proposals != "" {
			_, _ = fmt.Fprintf(&out, "%s %s\n", condition, proposals)
		}
	}
	return out.String()
}

// fishFlag is the part of a statement that describes a flag.
func fishFlag(flags []cli.Flag, f cli.Flag) string {
	var out strings.Builder
	for _, name := range f.Names() {
		if len(name) == 1 {
			out.WriteString(" -s " + name)
		} else {
			out.WriteString(" -l " + name)
		}
	}
	if takesValue(flags, f.Names()[0]) {
		out.WriteString(" -r")
		if values := flagValues()[f.Names()[0]]; values != nil {
			out.WriteString(" -f -a " + fishQuote(strings.Join(values, " ")))
		} else {
			out.WriteString(" -F")
		}
	}
	if f, ok := f.(cli.DocGenerationFlag); ok {
		usage, _, _ := strings.Cut(f.GetUsage(), " (default: ")
		out.WriteString(" -d " + fishQuote(strings.ReplaceAll(usage, "`", "")))
	}
	return out.String()
}

// fishArguments is the part of a statement that proposes arguments. fish does
// not count them: those of all places are proposed at each.
func fishArguments(app *cli.App, usage string) string {
	var words []string
	for _, kind := range argumentKinds(usage) {
		switch kind = strings.TrimSuffix(kind, "…"); {
		case kind == "SELECTOR":
			words = append(words, "(__pm_names)", "all")
		case kind == "NAME":
			words = append(words, "(__pm_programs)")
		case kind == "SIGNAL":
			words = append(words, "(__pm_signals)")
		case kind == "COMMAND":
			words = append(words, visibleNames(app.Commands)...)
		case strings.Contains(kind, "|"):
			words = append(words, strings.Split(kind, "|")...)
		case kind == "CMD":
			words = append(words, "(__fish_complete_command)")
		case strings.Contains(kind, "FILE"):
			return "-F"
		}
	}
	if words == nil {
		return ""
	}
	return "-a " + fishQuote(strings.Join(words, " "))
}

// fishQuote writes a word such that fish reads it as it is.
func fishQuote(word string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(word) + "'"
}
