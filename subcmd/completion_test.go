package subcmd

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pm.example/socket"
)

// threeNames is a pm whose daemon knows three names and one that is a trap.
const threeNames = `#!/bin/sh
case "$*" in
"--socket /other status -q") echo other ;;
"status -q") printf '%s\n' db web:0 web:1 '$(touch '"$0"'.ran)' ;;
*) exit 2 ;;
esac
`

// completions runs a script of bash that has loaded pm's completion, and a pm
// that knows three names.
func completions(t *testing.T, script string) string {
	t.Helper()
	code, text, stderr := pm("completion", "bash")
	if code != 0 || stderr != "" {
		t.Fatalf("pm completion bash: exit %d, %s", code, stderr)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "pm.bash")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pm"), []byte(threeNames), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-eu", "-c", `
		source "$0"
		complete_line() {
			COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
			_pm pm || true
			echo "${COMPREPLY[*]-}"
		}
		`+script, file)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "pm.ran")); err == nil {
		t.Error("a name was executed")
	}
	return string(out)
}

func TestBashCompletes(t *testing.T) {
	tests := []struct{ line, want string }{
		{"pm sto", "stop"},
		{"pm sta", "start status"},
		{"pm --so", "--socket"},
		{"pm stop d", "db"},
		{"pm stop db web", "web:0 web:1"},
		{"pm stop web:", "0 1"}, // bash replaces what follows the colon
		{"pm stop 'w", ""},
		{"pm stop al", "all"},
		{"pm stop --no", "--no-wait"},
		{"pm stop -- --no", ""},
		{"pm stop --timeout ", ""},
		{"pm stop --timeout 3 d", "db"},
		{"pm --socket /other stop o", "other"},
		{"pm stop --socket /other o", "other"},
		{"pm signal US", "USR1 USR2"},
		{"pm kill HUP d", "db"},
		{"pm scale we", "web"},
		{"pm scale web ", ""},
		{"pm wait --for r", "running"},
		{"pm ls -o p", "plain"},
		{"pm status --output=w", "wide"},
		{"pm config c", "check convert"},
		{"pm config check --j", "--json"},
		{"pm config check pm.t", ""}, // files, by bash itself
		{"pm completion ", "bash zsh fish"},
		{"pm help resta", "restart"},
		{"pm nosuch s", ""},
	}
	var script strings.Builder
	for _, test := range tests {
		_, _ = fmt.Fprintf(&script, "complete_line %s\n", "'"+strings.ReplaceAll(test.line, "'", `'\''`)+"'")
	}
	got := strings.Split(completions(t, script.String()), "\n")
	for n, test := range tests {
		if got[n] != test.want {
			t.Errorf("%s: got %q, want %q", test.line, got[n], test.want)
		}
	}
}

// Each script is free of errors for the shell that it is for, where there is
// one, and names every command and flag.
func TestCompletionScripts(t *testing.T) {
	for shell, flags := range map[string][]string{"bash": {"-n"}, "zsh": {"-f", "-n"}, "fish": {"-N", "-n"}} {
		code, text, stderr := pm("completion", shell)
		if code != 0 || stderr != "" || strings.Contains(text, "@TABLE@") {
			t.Errorf("pm completion %s: exit %d, %s\n%s", shell, code, stderr, text)
		}
		for _, at := range entries(wholeApp(&env{stdout: io.Discard, stderr: io.Discard, getenv: noEnv})) {
			for _, word := range slices.Concat(visibleNames(at.commands), flagWords(at.flags)) {
				if !strings.Contains(text, strings.TrimLeft(word, "-")) {
					t.Errorf("pm completion %s: no %s", shell, word)
				}
			}
		}
		program, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("%s is not installed: its script is not parsed", shell)
			continue
		}
		cmd := exec.Command(program, append(flags, "/dev/stdin")...)
		cmd.Stdin = strings.NewReader(text)
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
}

func TestCompletionWithoutShell(t *testing.T) {
	for _, args := range [][]string{{"completion"}, {"completion", "tcsh"}, {"completion", "bash", "zsh"}} {
		if code, out, text := pm(args...); code != socket.CodeUsage || out != "" || !strings.Contains(text, "bash, zsh") {
			t.Errorf("pm %q: exit %d, printed %q and %q", args, code, out, text)
		}
	}
}

// shellCompleter is the completer of the shell, with names of the tests' own.
func shellCompleter() *completer {
	return &completer{
		app:   wholeApp(&env{stdout: io.Discard, stderr: io.Discard, getenv: noEnv}),
		words: []string{"exit", "quit"}, bars: barred, flags: flagValues(),
		names: func() names {
			return names{instances: []string{"db", "my job", "web:0", "web:1"}, programs: []string{"db", "my job", "web"}, groups: []string{"back"}}
		},
	}
}

func TestCompleteLine(t *testing.T) {
	c := shellCompleter()
	for _, test := range []struct{ before, after, head, want string }{
		{"sto", "", "", "stop "},
		{"ex", "", "", "exit "}, // exec is none of the shell's
		{"daem", "", "", ""},
		{"stop d", "", "stop ", "db "},
		{"stop d", " web", "stop ", "db"},
		{"pm stop d", "", "pm stop ", "db "},
		{"stop db;sta", "", "stop db;", "start |status "},
		{"stop m", "", "stop ", "'my job' "},
		{"stop 'my", "", "stop ", "'my job' "},
		{"stop \"my j", "", "stop ", "'my job' "},
		{`stop my\ `, "", "stop ", "'my job' "},
		{"stop web:", "", "stop ", "web:0 |web:1 "},
		{"stop g", "", "stop ", "group:back "},
		{"stop --ti", "", "stop ", "--timeout "},
		{"stop --timeout ", "", "stop --timeout ", ""},
		{"stop --timeout 3 d", "", "stop --timeout 3 ", "db "},
		{"stop -- --ti", "", "stop -- ", ""},
		{"signal US", "", "signal ", "USR1 |USR2 "},
		{"signal HUP d", "", "signal HUP ", "db "},
		{"kill HUP d", "", "kill HUP ", "db "},
		{"scale w", "", "scale ", "web "},
		{"scale web ", "", "scale web ", ""},
		{"wait --for ", "", "wait --for ", "healthy |running |stopped "},
		{"ls -o p", "", "ls -o ", "plain "},
		{"ls --output=p", "", "ls ", "--output=plain "},
		{"config sc", "", "config ", "schema "},
		{"config check ", "", "config check ", ""},
		{"help resta", "", "help ", "restart "},
		{"completion ", "", "completion ", "bash |fish |zsh "},
		{"nosuch d", "", "nosuch ", ""},
		{"# sto", "", "# sto", ""},
		{"stop a|d", "", "stop a|d", ""},
		{"--socket x sto", "", "--socket x ", "stop "},
		{"статус; st", "op", "статус; ", "start |status |stop "},
	} {
		head, got, tail := c.line(test.before+test.after, len([]rune(test.before)))
		if head != test.head || strings.Join(got, "|") != test.want || tail != test.after {
			t.Errorf("%s^%s: got %q %q %q, want %q %q", test.before, test.after, head, got, tail, test.head, test.want)
		}
	}
}

// What is proposed for a flag is what the flag accepts.
func TestFlagValuesAreAccepted(t *testing.T) {
	for flag, command := range map[string][]string{"for": {"wait", "db"}, "output": {"status"}} {
		for _, value := range flagValues()[flag] {
			if code, _, text := pm(append(command, "--"+flag+"="+value)...); code != socket.CodeUnreachable {
				t.Errorf("--%s=%s: exit %d, %s", flag, value, code, text)
			}
		}
	}
}

// Completion of any part of any line neither fails nor changes what stands
// before and behind the word.
func FuzzComplete(f *testing.F) {
	for _, line := range []string{"stop d", "signal 'H", `a "b\`, "stop a&b", "# x\nst", "ü --", "\x00\xff;"} {
		f.Add(line, 3)
	}
	c := shellCompleter()
	f.Fuzz(func(t *testing.T, line string, pos int) {
		if pos < 0 || pos > len([]rune(line)) {
			return
		}
		before, after := string([]rune(line)[:pos]), string([]rune(line)[pos:])
		head, proposals, tail := c.line(line, pos)
		if tail != after || !strings.HasPrefix(before, head) {
			t.Fatalf("%q at %d: %q, %q", line, pos, head, tail)
		}
		for _, p := range proposals {
			if _, err := splitLine(p); err != nil {
				t.Errorf("%q at %d proposes %q: %v", line, pos, p, err)
			}
		}
	})
}

// A daemon that does not answer has no names, and keeps nobody waiting.
func TestNameCache(t *testing.T) {
	d := newShellDaemon()
	e := &env{getenv: noEnv, socketGlobal: d.serve(t)}
	cache := nameCache{ask: newShell(e).status(nil)}
	want := []string{"db", "web:0", "web:1", "db", "web", "group:backend", "all"}
	if got := cache.get(t.Context()).selectors(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	close(d.silent)
	if got := cache.get(t.Context()).selectors(); !slices.Equal(got, want) {
		t.Errorf("a moment later: %q", got)
	}
	cache.asked = time.Now().Add(-2 * namesAge)
	if got := cache.get(t.Context()); got.instances != nil {
		t.Errorf("of a daemon that is silent: %q", got)
	}
}
