package subcmd

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"pm.example/socket"
)

var update = flag.Bool("update", false, "rewrite docs/commands.md and docs/exit-codes.md")

// TestDocs holds the generated documents to the table of commands; -update
// rewrites them.
func TestDocs(t *testing.T) {
	for path, want := range map[string]string{"../docs/commands.md": commandsDoc(), "../docs/exit-codes.md": exitCodesDoc()} {
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s differs from the table of commands: go test ./subcmd -update", path)
		}
	}
}

// documented is a command that has a section of its own.
type documented struct {
	name string // as it is typed
	*cli.Command
}

// documentedCommands are those that users meet, in order.
func documentedCommands() (list []documented) {
	hidden := map[string]bool{helpName: true}
	everyCommand(func(words []string, c *cli.Command) {
		hidden[words[0]] = hidden[words[0]] || len(words) == 1 && c.Hidden
		if !hidden[words[0]] && len(c.Subcommands) == 0 {
			list = append(list, documented{"pm " + strings.Join(words, " "), c})
		}
	})
	return list
}

const commandsIntro = `# Commands

<!-- Generated from the table of commands: go test ./subcmd -update -->

Each command tells this about itself: ` + "`pm help COMMAND`" + `. What the exit codes mean together stands in [exit-codes.md](exit-codes.md).

**Selectors** name instances: ` + "`NAME`" + ` all of a program, ` + "`NAME:2`" + ` one of them, ` + "`NAME:*`" + ` all of them, ` + "`'web*'`" + ` a glob over names and
programs, ` + "`group:NAME`" + ` a group, ` + "`all`" + ` everything. Several may be given. Nothing that acts does so on everything by omission. One that matches
nothing is told, the others are acted on, and the exit code is 4.

**Flags** stand before or after arguments; what follows ` + "`--`" + ` is an argument. Only ` + "`pm exec`" + ` leaves everything from CMD on to
the command that it runs. Letters may be joined (` + "`-fn 5`, `-n5`" + `). A ` + "`TIME`" + ` is ` + "`500ms`, `1m30s`" + ` or plain seconds.

**Output**: data is on stdout, everything else on stderr. ` + "`--json`" + ` prints one document, or with ` + "`logs` and `events`" + ` one a line; its fields
are a promise, and are those of the [control socket](api.md). Colours and cut lines are only for terminals, colours only without ` + "`NO_COLOR`" + `.

**The daemon** is found at the socket that ` + "`--socket PATH`" + ` names, before or after the command; else at ` + "`$PM_SOCKET`" + `; else at
` + "`/run/pm/pm.sock`" + ` for root, and for others at ` + "`$XDG_RUNTIME_DIR/pm/pm.sock`" + `. One that is just starting is waited for, two seconds or as long as
` + "`$PM_PATIENCE`" + ` says, a ` + "`TIME`" + `: much longer where programs are put to work while a machine starts, 0 where a daemon must be there. One that
is lost in the midst of a command is waited for as long, two seconds at least.
`

// commandsDoc is the text of docs/commands.md.
func commandsDoc() string {
	var b strings.Builder
	b.WriteString(commandsIntro)
	b.WriteString("\n| command | also | what it does |\n|---|---|---|\n")
	for _, c := range documentedCommands() {
		also := ""
		if len(c.Aliases) > 0 {
			also = "`" + strings.Join(c.Aliases, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s | %s |\n", c.name, strings.ReplaceAll(c.name, " ", "-"), also, c.Usage)
	}
	for _, c := range documentedCommands() {
		writeCommand(&b, c)
	}
	writeOldWords(&b)
	return strings.ReplaceAll(b.String(), "|  |", "| |")
}

func writeCommand(b *strings.Builder, c documented) {
	fmt.Fprintf(b, "\n## %s\n\n```\n%s\n```\n\n%s\n", c.name, strings.TrimSpace(c.name+" [flags] "+c.ArgsUsage), markdown(c.Description))
	var rows, keys []string
	for _, f := range c.Flags {
		doc := f.(cli.DocGenerationFlag)
		if category, ok := f.(cli.CategorizableFlag); ok && category.GetCategory() != "" {
			keys = append(keys, "`--"+f.Names()[0]+"`")
		} else {
			rows = append(rows, flagRow(doc, f.Names()))
		}
	}
	if len(rows) > 0 {
		fmt.Fprintf(b, "\n| flag | what it does |\n|---|---|\n%s", strings.Join(rows, ""))
	}
	if len(keys) > 0 {
		fmt.Fprintf(b, "\nAnd the keys of a program, which [config.md](config.md) describes:\n%s.\n", strings.Join(keys, ", "))
	}
}

// defaultSocket depends on the user.
var defaultSocket = regexp.MustCompile(`\(default: \$PM_SOCKET, else [^)]*\)`)

var placeholder = regexp.MustCompile("`([^`]*)`")

func flagRow(f cli.DocGenerationFlag, names []string) string {
	value, text := "", f.GetUsage()
	if m := placeholder.FindStringSubmatch(text); m != nil {
		value, text = " "+m[1], strings.Replace(text, m[0], "*"+m[1]+"*", 1)
	}
	for n, name := range names {
		names[n] = "`" + dashed(name) + value + "`"
	}
	text = defaultSocket.ReplaceAllString(text, "(default: see above)")
	if bare, isBool := f.(*cli.BoolFlag); f.GetDefaultText() != "" && (!isBool || !bare.DisableDefaultText) {
		text += fmt.Sprintf(" (default: %s)", strings.Trim(f.GetDefaultText(), `"`))
	}
	return fmt.Sprintf("| %s | %s |\n", strings.Join(names, " "), strings.ReplaceAll(text, "|", `\|`))
}

// markdown turns a description into paragraphs and blocks of commands.
func markdown(description string) string {
	var out []string
	for paragraph := range strings.SplitSeq(description, "\n\n") {
		title, commands, ok := strings.Cut(paragraph, ":\n  ")
		if !ok {
			out = append(out, strings.ReplaceAll(paragraph, "*", `\*`))
			continue
		}
		out = append(out, title+":\n\n```sh\n"+strings.ReplaceAll(commands, "\n  ", "\n")+"\n```")
	}
	return strings.Join(out, "\n\n")
}

// writeOldWords lists the commands that only habit knows.
func writeOldWords(b *strings.Builder) {
	b.WriteString("\n## Old words\n\nWhat supervisorctl and taskmasterctl call otherwise works too, or says what to use instead.\n\n| word | here |\n|---|---|\n")
	var rows []string
	for _, c := range commands(&env{stdout: io.Discard, stderr: io.Discard, getenv: noEnv}) {
		switch {
		case c.Hidden && c.SkipFlagParsing:
			_, _, text := pm(c.Name)
			_, hint, _ := strings.Cut(text, "hint: ")
			rows = append(rows, fmt.Sprintf("| `%s` | none: %s |\n", c.Name, strings.TrimSpace(hint)))
		case c.Hidden:
			rows = append(rows, fmt.Sprintf("| `%s` | %s |\n", c.Name, c.Usage))
		case c.Name != helpName:
			for _, alias := range c.Aliases {
				rows = append(rows, fmt.Sprintf("| `%s` | `pm %s` |\n", alias, c.Name))
			}
		}
	}
	slices.Sort(rows)
	b.WriteString(strings.Join(rows, ""))
}

// codeMeanings tell what each exit code means, in the order of the codes.
var codeMeanings = []struct {
	code    int
	meaning string
}{
	{socket.CodeDone, "done, or already so"},
	{socket.CodeFailed, "a target failed, or something unforeseen did"},
	{socket.CodeUsage, "the command line or the configuration is wrong; nothing was done"},
	{socket.CodeNotDesired, "`status`, `pid`: something that is selected is not in its desired state"},
	{socket.CodeUnknown, "a selector matches nothing; the others were acted on"},
	{socket.CodeUnreachable, "the daemon cannot be reached"},
	{socket.CodePermission, "permission denied"},
	{socket.CodeStartFailed, "a program could not be started, or did not come up"},
	{socket.CodeTimeout, "the time given ran out; what was begun goes on"},
}

// exitCodesDoc is the text of docs/exit-codes.md.
func exitCodesDoc() string {
	var b strings.Builder
	b.WriteString("# Exit codes\n\n<!-- Generated from the table of commands: go test ./subcmd -update -->\n\nThey mean the same in every command.\n\n| code | meaning |\n|---|---|\n")
	for _, c := range codeMeanings {
		fmt.Fprintf(&b, "| %d | %s |\n", c.code, c.meaning)
	}
	fmt.Fprintf(&b, "| %d | interrupted with Ctrl-C |\n", interrupted)
	b.WriteString("\n`pm exec` ends with the code of the command that it runs: 126 if that cannot be executed, 127 if it does not exist, 128+n if signal n ended it.\n")
	b.WriteString("\nWhere several apply, the first of these is the one: ")
	for n, code := range severity {
		if n > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, code)
	}
	b.WriteString(".\n\n## By command\n\n| command | codes |\n|---|---|\n")
	for _, c := range documentedCommands() {
		_, status, _ := strings.Cut(c.Description, "Exit status: ")
		fmt.Fprintf(&b, "| `%s` | %s |\n", c.name, strings.Join(strings.Fields(status), " "))
	}
	b.WriteString("\nEvery command also ends with 2 for a flag or argument that it does not know, and every one that asks the daemon with 5 or 6 where it cannot.\n")
	return b.String()
}

// Every code has a meaning and a place in the order of severity.
func TestExitCodesAreDocumented(t *testing.T) {
	for n, c := range codeMeanings {
		if c.code != n {
			t.Errorf("code %d stands at place %d", c.code, n)
		}
		if c.code != socket.CodeDone && !slices.Contains(severity, c.code) {
			t.Errorf("code %d has no place in the order of severity", c.code)
		}
	}
	if len(severity) != len(codeMeanings)-1 {
		t.Errorf("%d codes are ordered and %d documented", len(severity), len(codeMeanings))
	}
}
