package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite docs/config.md")

// environment makes a lookup of pairs NAME=value.
func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, p := range pairs {
			if n, value, _ := strings.Cut(p, "="); n == name {
				return value, true
			}
		}
		return "", false
	}
}

// mustParse parses a text that has no faults.
func mustParse(t *testing.T, name, text string, env ...string) *File {
	t.Helper()
	f, _, err := Parse(name, []byte(text), environment(env...))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return f
}

func TestTaskmasterExample(t *testing.T) {
	path := "../examples/taskmaster.yaml"
	f, warnings, err := Load(path, environment())
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	nginx := NewProgram("nginx")
	nginx.Cmd = []string{"/usr/local/bin/nginx", "-c", "/etc/nginx/test.conf"}
	nginx.Umask = new(0o022)
	nginx.WorkingDir = "/tmp"
	nginx.ExitCodes = []Exit{{Code: 0}, {Code: 2}}
	nginx.StartTime = 5 * time.Second
	nginx.Stdout, nginx.Stderr = "/tmp/nginx.stdout", "/tmp/nginx.stderr"
	nginx.Env = map[string]string{"STARTED_BY": "taskmaster", "ANSWER": "42"}
	vogsphere := NewProgram("vogsphere")
	vogsphere.Cmd = []string{"/usr/local/bin/vogsphere-worker", "--no-prefork"}
	vogsphere.NumProcs = 8
	vogsphere.Umask = new(0o077)
	vogsphere.WorkingDir = "/tmp"
	vogsphere.StartTime = 5 * time.Second
	vogsphere.StopSignal = "USR1"
	vogsphere.Stdout, vogsphere.Stderr = "/tmp/vgsworker.stdout", "/tmp/vgsworker.stderr"
	if want := []*Program{nginx, vogsphere}; !reflect.DeepEqual(f.Programs, want) {
		t.Errorf("got  %+v\n     %+v\nwant %+v\n     %+v", f.Programs[0], f.Programs[1], nginx, vogsphere)
	}
}

// TestTaskmasterDialect has every habit of the taskmaster's own parser that
// its example does not show.
func TestTaskmasterDialect(t *testing.T) {
	f, warnings, err := Parse("tm.yaml", []byte(`
port: 4242
ip: 127.0.0.1
logout: /var/log/taskmaster.log
email: ops@example.com
programs:
  a:
    cmd: 'sh -c "echo a  b" x\ y'
    numprocs: 0
    workingdir:
    autorestart: true
    exitcodes:
      - 0
      - SIGTERM
      - USR1
    stdout: /dev/null
    stdin: /etc/hostname
    env:
      INT: 007
      BOOL: true
      FLOAT: 1.50
      NONE:
  b:
    cmd: [sleep, 60]
    numprocs:
    autorestart: never
    umask: 0o27
    exitcodes: 0 2
    stopsignal: SIGINT
    starttime: 0.5
    stoptime: 1m30s
`), environment())
	if err != nil {
		t.Fatal(err)
	}
	a := NewProgram("a")
	a.Cmd = []string{"sh", "-c", "echo a  b", "x y"}
	a.Autorestart = "always"
	a.ExitCodes = []Exit{{Code: 0}, {Signal: "TERM"}, {Signal: "USR1"}}
	a.Stdout, a.Stdin = "discard", "/etc/hostname"
	a.Env = map[string]string{"INT": "007", "BOOL": "true", "FLOAT": "1.50", "NONE": ""}
	b := NewProgram("b")
	b.Cmd = []string{"sleep", "60"}
	b.Autorestart, b.StopSignal = "never", "INT"
	b.Umask = new(0o027)
	b.ExitCodes = []Exit{{Code: 0}, {Code: 2}}
	b.StartTime, b.StopTime = time.Second/2, 90*time.Second
	if want := []*Program{a, b}; !reflect.DeepEqual(f.Programs, want) {
		t.Errorf("got  %+v\n     %+v\nwant %+v\n     %+v", f.Programs[0], f.Programs[1], a, b)
	}
	if f.Daemon.LogFile != "/var/log/taskmaster.log" || f.Daemon.Port != 4242 || f.Daemon.IP != "127.0.0.1" {
		t.Errorf("daemon: %+v", f.Daemon)
	}
	if !slices.Equal(f.Email.To, []string{"ops@example.com"}) || f.Email.TLS != "none" || f.Email.Server != "localhost:25" {
		t.Errorf("email: %+v", f.Email)
	}
	want := []string{
		"tm.yaml:2:7: port: without effect: pm listens on a Unix socket, see daemon.socket",
		"tm.yaml:3:5: ip: without effect: pm listens on a Unix socket, see daemon.socket",
	}
	if got := texts(warnings); !slices.Equal(got, want) {
		t.Errorf("warnings:\n%s", strings.Join(got, "\n"))
	}
}

func texts(problems []Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, p.String())
	}
	return out
}

// values are one key's spellings and what they mean; a meaning that begins
// with "!" is the fault.
var values = []struct{ syntax, key, text, want string }{
	{"toml", "umask", `"022"`, "022"},
	{"toml", "umask", `"22"`, "022"},
	{"toml", "umask", `"0o22"`, "022"},
	{"toml", "umask", `0o22`, "022"},
	{"toml", "umask", `0`, "000"},
	{"toml", "umask", `"777"`, "777"},
	{"toml", "umask", `22`, `!"22": not written as an octal mode (accepted: 000 to 777; write "22")`},
	{"toml", "umask", `0x12`, `!"0x12": not written as an octal mode (accepted: 000 to 777; write an octal mode in quotes, such as "022")`},
	{"toml", "umask", `"09"`, `!"09": not an octal mode (accepted: 000 to 777)`},
	{"toml", "umask", `"1000"`, `!"1000": out of range (accepted: 000 to 777)`},
	{"toml", "umask", `"-22"`, `!"-22": not an octal mode (accepted: 000 to 777)`},
	{"toml", "umask", `[22]`, `!not a single value but a list`},
	{"yaml", "umask", `022`, "022"},
	{"yaml", "umask", `22`, "022"},
	{"yaml", "umask", `0o22`, "022"},
	{"yaml", "umask", `"022"`, "022"},
	{"yaml", "umask", `600`, "600"},
	{"yaml", "umask", `089`, `!"089": not an octal mode (accepted: 000 to 777)`},
	{"yaml", "umask", `-22`, `!"-22": not an octal mode (accepted: 000 to 777)`},
	{"yaml", "umask", `99999999999999999999`, `!"99999999999999999999": not an octal mode (accepted: 000 to 777)`},

	{"toml", "exitcodes", `0`, "[0]"},
	{"toml", "exitcodes", `[0, 2, "SIGTERM", "usr1", "15"]`, "[0,2,\"TERM\",\"USR1\",15]"},
	{"toml", "exitcodes", `"0, 2"`, "[0,2]"},
	{"toml", "exitcodes", `[]`, "[]"},
	{"toml", "exitcodes", `256`, `!"256": out of range (accepted: 0 to 255, or the name of a signal)`},
	{"toml", "exitcodes", `[-2]`, `!"-2": negative (accepted: 0 to 255, or the name of a signal)`},
	{"toml", "exitcodes", `"TREM"`, `!"TREM": neither an exit code nor a signal (accepted: 0 to 255, or the name of a signal; did you mean "TERM"?)`},
	{"toml", "exitcodes", `"TERMM"`, `!"TERMM": neither an exit code nor a signal (accepted: 0 to 255, or the name of a signal; did you mean "TERM"?)`},
	{"yaml", "exitcodes", `-0 -2`, "[0,2]"},
	{"yaml", "exitcodes", "\n      -0\n      -2", "[0,2]"},
	{"yaml", "exitcodes", "\n      -3", "[3]"},
	{"yaml", "exitcodes", `-2`, `!"-2": negative (accepted: 0 to 255, or the name of a signal)`},
	{"yaml", "exitcodes", `[0, 2]`, "[0,2]"},

	{"toml", "numprocs", `0`, "0"},
	{"toml", "numprocs", `10_000`, "10000"},
	{"toml", "numprocs", `10001`, `!"10001": out of range (accepted: 0 to 10000)`},
	{"toml", "numprocs", `-1`, `!"-1": negative (accepted: 0 to 10000)`},
	{"toml", "numprocs", `"${N}"`, "4"},
	{"toml", "numprocs", `1.5`, `!"1.5": not a whole number (accepted: 0 to 10000)`},
	{"yaml", "numprocs", `0`, "1"},
	{"yaml", "numprocs", ``, "1"},
	{"yaml", "numprocs", `${N}`, "4"},
	{"yaml", "numprocs", `99999999999999999999`, `!"99999999999999999999": out of range (accepted: 0 to 10000)`},

	{"toml", "startretries", `"unlimited"`, `"unlimited"`},
	{"toml", "startretries", `-1`, `!"-1": negative (accepted: 0 to 1000000 or unlimited)`},

	{"toml", "starttime", `"10s"`, `"10s"`},
	{"toml", "starttime", `10`, `"10s"`},
	{"toml", "starttime", `0.25`, `"250ms"`},
	{"toml", "starttime", `"90"`, `"1m30s"`},
	{"toml", "starttime", `"2h0m0s"`, `"2h"`},
	{"toml", "starttime", `0`, `"0s"`},
	{"toml", "starttime", `-1`, `!"-1": negative (accepted: 0 to 8760h, as 10s, 1m30s or plain seconds)`},
	{"toml", "starttime", `nan`, `!"nan": not a duration (accepted: 0 to 8760h, as 10s, 1m30s or plain seconds)`},
	{"toml", "starttime", `inf`, `!"inf": out of range (accepted: 0 to 8760h, as 10s, 1m30s or plain seconds)`},
	{"toml", "starttime", `1e300`, `!"1e300": out of range (accepted: 0 to 8760h, as 10s, 1m30s or plain seconds)`},
	{"toml", "starttime", `"10 s"`, `!"10 s": not a duration (accepted: 0 to 8760h, as 10s, 1m30s or plain seconds)`},
	{"toml", "starttime", `""`, `!not a duration (accepted: 0 to 8760h, as 10s, 1m30s or plain seconds)`},

	{"toml", "stopsignal", `"sigusr2"`, `"USR2"`},
	{"toml", "stopsignal", `15`, `"TERM"`},
	{"toml", "stopsignal", `33`, `"33"`},
	{"toml", "stopsignal", `34`, `"RTMIN"`},
	{"toml", "stopsignal", `"SIGRTMIN+3"`, `"RTMIN+3"`},
	{"toml", "stopsignal", `"rtmax-27"`, `"RTMIN+3"`},
	{"toml", "stopsignal", `"RTMIN+16"`, `"RTMAX-14"`},
	{"toml", "stopsignal", `"RTMIN+31"`, `!"RTMIN+31": no such signal (accepted: a name such as TERM, or 1 to 64; did you mean "RTMIN+1"?)`},
	{"toml", "stopsignal", `"X"`, `!"X": no such signal (accepted: a name such as TERM, or 1 to 64)`},
	{"toml", "exitcodes", `[0, "RTMIN+3"]`, `[0,"RTMIN+3"]`},
	{"toml", "kill.sequence", `["RTMAX-1 5s"]`, `["RTMAX-1 5s"]`},
	{"toml", "stopsignal", `"IOT"`, `"ABRT"`},
	{"toml", "stopsignal", `65`, `!"65": no such signal (accepted: a name such as TERM, or 1 to 64)`},
	{"toml", "stopsignal", `"TER"`, `!"TER": no such signal (accepted: a name such as TERM, or 1 to 64; did you mean "TERM"?)`},

	{"toml", "autostart", `false`, "false"},
	{"toml", "autostart", `"off"`, "false"},
	{"toml", "autostart", `2`, `!"2": neither true nor false (accepted: true or false)`},
	{"toml", "autorestart", `true`, `"always"`},
	{"toml", "autorestart", `"no"`, `"never"`},
	{"yaml", "autorestart", `yes`, `"always"`},
	{"yaml", "autorestart", `false`, `"never"`},
	{"yaml", "autorestart", `unexpected`, `"unexpected"`},
	{"toml", "autorestart", `"allways"`, `!"allways": not known (accepted: always, never or unexpected; did you mean "always"?)`},

	{"toml", "stdout", `"/dev/null"`, `"discard"`},
	{"toml", "stderr", `"stdout"`, `"stdout"`},
	{"toml", "stdout", `5`, `!"5": not a string (accepted: a string; write "5")`},
	{"toml", "stdout", `"a\u0000b"`, "!\"a\\x00b\": holds a NUL byte"},
	{"toml", "workingdir", `""`, "null"},
	{"yaml", "workingdir", ``, "null"},

	{"toml", "cmd", `"a  'b c' \"d\""`, `"a 'b c' d"`},
	{"toml", "cmd", `["a", 5, true]`, `"a 5 true"`},
	{"toml", "cmd", `"a 'b"`, `!"a 'b": cannot be split into words: unterminated single-quoted string`},
	{"toml", "cmd", `""`, `!empty command (accepted: a program to run and its arguments)`},
	{"toml", "cmd", `[]`, `!empty command (accepted: a program to run and its arguments)`},
	{"toml", "cmd", `7`, `!"7": not a command (accepted: a command line, or a list of its words)`},

	{"toml", "env", `{ A = 42, B = 1.0, C = true, D = 0x1F, E = 2020-01-02 }`, `{"A":"42","B":"1.0","C":"true","D":"0x1F","E":"2020-01-02"}`},
	{"toml", "env", `"A=1"`, `!not a table (accepted: a table of environment variables)`},
	{"toml", "env", `{ A = ["secret"] }`, `!not a single value but a list`},
	{"toml", "env", `{ "A=B" = "secret" }`, `!"A=B" cannot be a name in a table of environment variables`},

	{"toml", "limits.nofile", `1024`, "1024"},
	{"toml", "limits.nofile", `"1K:unlimited"`, `"1024:unlimited"`},
	{"toml", "limits.nofile", `"2:1"`, `!"2:1": the soft limit is above the hard one (accepted: ` + rlimitsAccept + `)`},
	{"toml", "limits.nofile", `-1`, `!"-1": negative (accepted: ` + rlimitsAccept + `)`},
	{"toml", "limits.nofile", `"9999999999G"`, `!"9999999999G": out of range (accepted: ` + rlimitsAccept + `)`},
	{"toml", "limits.nofile", `"5KM"`, `!"5KM": not a limit (accepted: ` + rlimitsAccept + `)`},
	{"toml", "limits.nice", `-20`, "-20"},
	{"toml", "limits.nice", `20`, `!"20": out of range (accepted: -20 to 19)`},
	{"toml", "logs.rotate", `"10m"`, `"10M"`},
	{"toml", "logs.rotate", `3072`, `"3K"`},
	{"toml", "logs.rotate", `"1GB"`, `"1G"`},
	{"toml", "logs.rotate", `1001`, `"1001"`},
	{"toml", "logs.rotate", `0`, `null`},
	{"toml", "logs.rotate", `-1`, `!"-1": negative (accepted: ` + sizesAccept + `)`},
	{"toml", "logs.rotate", `"much"`, `!"much": not a size (accepted: ` + sizesAccept + `)`},
	{"toml", "logs.rotate", `"9999999999G"`, `!"9999999999G": out of range (accepted: ` + sizesAccept + `)`},
	{"toml", "logs.timestamps", `"local"`, `"local"`},
	{"toml", "logs.timestamps", `"Nowhere/At_all"`, `!"Nowhere/At_all": not a time zone that this machine knows (accepted: ` + zonesAccept + `)`},
	{"toml", "logs.rotate_age", `"24h"`, `"24h"`},
	{"toml", "logs.rotate_age", `0.5`, `!"0.5": too short (accepted: ` + agesAccept + `)`},
	{"toml", "backoff.factor", `0.5`, `!"0.5": not a number in the range (accepted: 1 to 100)`},
	{"toml", "backoff.jitter", `nan`, `!"nan": not a number in the range (accepted: 0 to 1)`},
	{"toml", "kill.sequence", `["INT 5s", { signal = "TERM", wait = 10 }]`, `["INT 5s","TERM 10s"]`},
	{"toml", "kill.sequence", `["INT"]`, `!"INT": not a signal and a wait (accepted: a list of "SIGNAL WAIT", such as "INT 5s")`},
	{"toml", "kill.sequence", `[{ signal = "TERM" }]`, `!not a signal and a wait (accepted: a list of "SIGNAL WAIT", such as "INT 5s")`},
	{"toml", "kill.exclude", `"sh"`, `["sh"]`},
	{"toml", "user", `"root:0"`, `"root:0"`},
	{"toml", "user", `0`, `"0"`},
	{"toml", "user", `"nobody-has-this-name"`, `!"nobody-has-this-name": no user "nobody-has-this-name" on this machine`},
	{"toml", "user", `"root:no-such-group"`, `!"root:no-such-group": no group "no-such-group" on this machine`},
	{"toml", "user", `":root"`, `!":root": not a user (accepted: user or user:group, by name or number)`},
	{"toml", "group", `"a b"`, `!"a b": not a name (accepted: ` + namesAccept + `)`},
	{"toml", "env_file", `["a", "-b"]`, `["a","-b"]`},
	{"toml", "env_file", `"-"`, `!"-": no path (accepted: paths; a "-" before one allows it to be missing)`},
}

func TestValues(t *testing.T) {
	for _, c := range values {
		t.Run(c.syntax+" "+c.key+" = "+c.text, func(t *testing.T) {
			text := one(c.syntax, c.key, c.text)
			f, _, err := Parse("x."+c.syntax, []byte(text), environment("N=4"))
			if want, fault := strings.CutPrefix(c.want, "!"); fault {
				checkFault(t, err, c.key, want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			i := slices.Index(keys(programFields), c.key)
			if got := toldValue(programFields[i].get(f.Programs[0])); got != c.want && got != `"`+c.want+`"` {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func toldValue(value any) string {
	if value == nil {
		return "null"
	}
	return told(value)
}

// one is a config of one program with one key besides cmd.
func one(syntax, key, text string) string {
	cmd := map[bool]string{true: "", false: "cmd = \"true\"\n"}[key == "cmd"]
	if syntax == "toml" {
		return "[programs.web]\n" + cmd + key + " = " + text + "\n"
	}
	return "programs:\n  web:\n    cmd: 'true'\n    " + key + ": " + text + "\n"
}

func checkFault(t *testing.T, err error, key, want string) {
	t.Helper()
	var faults *Errors
	if !errors.As(err, &faults) {
		t.Fatalf("no fault but %v, want %s", err, want)
	}
	text := faults.Problems[0].String()
	_, message, _ := strings.Cut(text, ": programs.web."+key)
	message = message[strings.Index(message, ": ")+2:]
	if len(faults.Problems) != 1 || message != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if faults.Problems[0].Line == 0 || strings.Contains(text, "secret") {
		t.Errorf("no place, or a secret: %s", text)
	}
}

func TestExpand(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"plain $HOME $ {A}", "plain $HOME $ {A}"},
		{"${A}", "one"},
		{"x${A}y${A}", "xoneyone"},
		{"${NONE:-a b}", "a b"},
		{"${EMPTY:-x}", "x"},
		{"${EMPTY}", ""},
		{"${NONE:-}", ""},
		{"${NEST}", "${A}"},
		{"$${A}", "${A}"},
		{"$$$$", "$$"},
		{"$", "$"},
		{"${NONE}", "!variable NONE is not set"},
		{"${NONE:?say which}", "!variable NONE is not set: say which"},
		{"${EMPTY:?say which}", "!variable EMPTY is not set: say which"},
		{"${A", `!"${A" is not closed by }`},
		{"${}", `!"${}" names no variable`},
		{"${1}", `!"${1}" names no variable`},
		{"${A-x}", `!"${A-x}" names no variable`},
		{"${A:}", `!"${A:}" is not known`},
		{"${A:+x}", `!"${A:+x}" is not known`},
		{"${NONE:-${A}}", `!"${NONE:-${A}}" has a reference inside a reference`},
	} {
		got, err := expand(c.text, environment("A=one", "EMPTY=", "NEST=${A}"))
		if err != nil {
			got = "!" + err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.text, got, c.want)
		}
	}
}

func TestCommandExpansion(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"echo ${SPACE} x", []string{"echo", "a b", "x"}},
		{"echo ${NONE:-a b}", []string{"echo", "a b"}},
		{"echo '${SPACE}'", []string{"echo", "a b"}},
		{"echo $${SPACE} $$", []string{"echo", "${SPACE}", "$"}},
		{"echo ${QUOTE}", []string{"echo", `it's "it"`}},
		{"echo $HOME", []string{"echo", "$HOME"}},
		{"echo x${EMPTY}y ${EMPTY}", []string{"echo", "xy", ""}},
		{`echo \${SPACE}`, []string{"echo", "a b"}},
	} {
		got, err := splitWords(c.text, environment("SPACE=a b", `QUOTE=it's "it"`, "EMPTY="))
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, %v, want %q", c.text, got, err, c.want)
		}
	}
}

func TestUnsetVariableNamesThePlace(t *testing.T) {
	_, _, err := Parse("x.toml", []byte("[programs.web]\ncmd = \"true\"\nenv.A = \"${NOT_SET}\"\n"), environment())
	want := "x.toml:3:9: programs.web.env.A: variable NOT_SET is not set (set the variable, or write ${NAME:-default}; $$ stands for a $)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// TestManyFaults is the whole answer to a file in which nearly all is wrong.
func TestManyFaults(t *testing.T) {
	for _, name := range []string{"faults.toml", "faults.yaml"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = Parse(name, data, environment())
		golden := filepath.Join("testdata", name+".want")
		got := fmt.Sprintln(err)
		if *update {
			writeFile(t, golden, got)
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestWholeFileFaults(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"x.toml", "", `x.toml: no programs in it (an empty table of programs says that there are to be none)`},
		{"x.yaml", "# nothing\n", `x.yaml: no programs in it (an empty table of programs says that there are to be none)`},
		{"x.yaml", "- a\n", `x.yaml:1:1: not a configuration but a list (accepted: a table with programs)`},
		{"x.yaml", "programs: 5\n", `x.yaml:1:11: programs: "5": not a table of programs but a single value`},
		{"x.yaml", "programs:\n  a: 5\n", `x.yaml:2:6: programs.a: "5": not a table but a single value`},
		{"x.yaml", "programs:\n  a:\n", `x.yaml:2:3: programs.a.cmd: missing (accepted: a program to run and its arguments)`},
		{"x.yaml", "programs:\n\ta: 5\n", `x.yaml:2:1: not valid YAML: found character that cannot start any token`},
		{"x.yaml", "programs: {}\n---\nprograms: {}\n", `x.yaml: more than one YAML document in the file (remove what follows the second "---")`},
		{"x.yaml", "programs: {[a]: 5}\n", `x.yaml:1:12: programs: a key is not a single word`},
		{"x.toml", "[programs\n", `x.toml:1:10: not valid TOML: expected '.' or ']' to end table name, but got '\n' instead`},
		{"x.toml", "a = " + strings.Repeat("[", 100), `x.toml: values nest more than 32 deep`},
		{"x.toml", "a" + strings.Repeat(".a", 100) + " = 1", `x.toml: values nest more than 32 deep`},
		{"x.toml", "[a" + strings.Repeat(".a", 100) + "]", `x.toml: values nest more than 32 deep`},
		{"x.yaml", "a: " + strings.Repeat("[", 100) + strings.Repeat("]", 100), "x.yaml:1:36: the document nests more than 32 deep, or has more than 1000000 values\nx.yaml:1:1: unknown key \"a\" (accepted: programs, daemon, email, include, logout, port, ip)"},
		{"x.toml", "include = [\"a.toml\"]\n[programs]\n", `x.toml:1:11: include: a config that is not read from a file cannot include others`},
		{"x.toml", "[programs.web]\ncmd = \"true\"\n\n[programs.web]\ncmd = \"false\"\n", `x.toml:4:1: duplicate key "programs.web": it stands at x.toml:1:11 already (remove one of them)`},
		{"x.yaml", "programs:\n  web:\n    cmd: a\n    cmd: b\n", `x.yaml:4:5: duplicate key "programs.web.cmd": it stands at x.yaml:3:5 already (remove one of them)`},
		{"x.toml", "[programs.all]\ncmd = \"true\"\n", `x.toml:1:11: programs: "all": not a name for a program (accepted: ` + namesAccept + `)`},
		{"x.toml", "[daemon]\ngroup = \"no-such-group\"\n[programs]\n", `x.toml:2:9: daemon.group: "no-such-group": no such group on this machine`},
	} {
		_, _, err := Parse(c.name, []byte(c.text), environment())
		if got := fmt.Sprint(err); sorted(got) != sorted(c.want) {
			t.Errorf("%q: got\n%s\nwant\n%s", c.text, got, c.want)
		}
	}
}

func sorted(lines string) string {
	return strings.Join(slices.Sorted(strings.SplitSeq(lines, "\n")), "\n")
}

func TestFaultsAreBounded(t *testing.T) {
	_, _, err := Parse("x.toml", []byte(strings.Repeat("a = 1\n", maxProblems+5)), nil)
	var faults *Errors
	if !errors.As(err, &faults) || len(faults.Problems) != maxProblems+1 || faults.Problems[maxProblems].Message != "and 5 faults more" {
		t.Errorf("got %d faults", len(faults.Problems))
	}
}

func TestEmptyTableOfPrograms(t *testing.T) {
	for name, text := range map[string]string{"x.toml": "[programs]\n", "x.yaml": "programs:\n"} {
		f, warnings, err := Parse(name, []byte(text), nil)
		if err != nil || len(f.Programs) != 0 || len(warnings) != 1 {
			t.Errorf("%s: %v, %v", name, warnings, err)
		}
	}
}

func TestSyntaxByContent(t *testing.T) {
	for _, c := range []struct {
		text string
		toml bool
	}{
		{"[programs.a]\n", true},
		{"# a: comment\n\ninclude = []\n", true},
		{"programs:\n  a:\n    cmd: a=b\n", false},
		{"---\nprograms:\n", false},
		{`{"programs": {}}`, false},
		{"", true},
	} {
		if isTOML("-", c.text) != c.toml {
			t.Errorf("%q: want TOML %v", c.text, c.toml)
		}
	}
}

func TestOrder(t *testing.T) {
	f := mustParse(t, "x.toml", `
[programs.c]
cmd = "c"
[programs.b]
cmd = "b"
[programs.a]
cmd = "a"
priority = 1000
[programs.d]
cmd = "d"
priority = 1
`)
	var names []string
	for _, p := range f.Programs {
		names = append(names, p.Name)
	}
	if want := []string{"d", "b", "c", "a"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

func TestYAMLAnchors(t *testing.T) {
	f := mustParse(t, "x.yaml", `
programs:
  a: &a
    cmd: one
    stoptime: 5
  b:
    <<: *a
    cmd: two
`)
	if b := f.Program("b"); b.Cmd[0] != "two" || b.StopTime != 5*time.Second {
		t.Errorf("got %+v", b)
	}
}

func TestYAMLAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 12; i++ {
		alias := fmt.Sprintf("*a%d", i-1)
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.Join(slices.Repeat([]string{alias}, 10), ","))
	}
	if _, problems := parseYAML("x.yaml", b.String()); len(problems) != 1 {
		t.Errorf("want one problem, got %v", problems)
	}
}

func TestInstanceNames(t *testing.T) {
	for n, want := range map[int][]string{0: {}, 1: {"web"}, 3: {"web:0", "web:1", "web:2"}} {
		p := NewProgram("web")
		p.NumProcs = n
		if got := InstanceNames(p); !slices.Equal(got, want) {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestSetString(t *testing.T) {
	p := NewProgram("x")
	for _, c := range []struct {
		key    string
		values []string
	}{
		{"workingdir", []string{"/tmp"}},
		{"umask", []string{"22"}},
		{"env", []string{"A=1", "B=x=y", "C=${HOME}"}},
		{"stoptime", []string{"1s"}},
		{"starttime", []string{"0.5"}},
		{"exitcodes", []string{"0,2", "TERM"}},
		{"cmd", []string{"echo", "a b", "$$"}},
		{"kill.sequence", []string{"INT 1s", "TERM 2s"}},
		{"limits.nofile", []string{"10:20"}},
		{"autostart", []string{"no"}},
	} {
		if err := fieldOf(t, c.key).SetString(p, c.values); err != nil {
			t.Error(err)
		}
	}
	want := NewProgram("x")
	want.WorkingDir, want.Umask = "/tmp", new(0o22)
	want.Env = map[string]string{"A": "1", "B": "x=y", "C": "${HOME}"}
	want.StopTime, want.StartTime = time.Second, time.Second/2
	want.ExitCodes = []Exit{{Code: 0}, {Code: 2}, {Signal: "TERM"}}
	want.Cmd = []string{"echo", "a b", "$$"}
	want.Kill.Sequence = []KillStep{{"INT", time.Second}, {"TERM", 2 * time.Second}}
	want.Limits.Rlimits = map[string]Rlimit{"nofile": {10, 20}}
	want.Autostart = false
	if !reflect.DeepEqual(p, want) {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
}

func fieldOf(t *testing.T, key string) Field {
	t.Helper()
	for _, f := range Fields() {
		if f.Key == key {
			return f
		}
	}
	t.Fatalf("no key %s", key)
	return Field{}
}

func TestSetStringFaults(t *testing.T) {
	for _, c := range []struct {
		key    string
		values []string
		want   string
	}{
		{"umask", []string{"09"}, `umask: "09": not an octal mode (accepted: 000 to 777)`},
		{"umask", []string{"1", "2"}, `umask: 2 values given, one is accepted`},
		{"env", []string{"A"}, `env: "A" has no = (accepted: NAME=VALUE)`},
		{"env", []string{"=secret"}, `env.: "" cannot be a name in a table of environment variables`},
	} {
		err := fieldOf(t, c.key).SetString(NewProgram("x"), c.values)
		if fmt.Sprint(err) != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

func TestDefaults(t *testing.T) {
	p := NewProgram("x")
	want := &Program{
		Name: "x", NumProcs: 1, Autostart: true, Autorestart: "unexpected", ExitCodes: []Exit{{}}, StartRetries: 3,
		StartTime: time.Second, StopSignal: "TERM", StopTime: 10 * time.Second, Type: "service", Priority: 999, OnDaemonDeath: "keep",
		Backoff: Backoff{time.Second, time.Minute, 2, 0.1, time.Minute, 5, 10 * time.Second},
		Logs: Logs{Files: 5, Timestamps: "off", Format: "raw", OnFull: "block", Scrape: Scrape{
			Format: "auto", Invalid: "wrap", OnFull: "block", MaxLine: 1 << 20, Buffer: 1 << 20, Resend: 8 << 20, SpoolSize: 1 << 30, Linger: 10 * time.Second,
		}},
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("got  %+v\nwant %+v", p, want)
	}
	f := newFile("x")
	if want := (Email{Server: "localhost:25", TLS: "starttls", Events: []string{"fatal", "exited", "backoff"}, Interval: 30 * time.Second, MaxPerHour: 20}); !reflect.DeepEqual(f.Email, want) {
		t.Errorf("got  %+v\nwant %+v", f.Email, want)
	}
}

func TestValidate(t *testing.T) {
	p := NewProgram("x")
	p.User = "nobody-of-that-name:no-such-group"
	p.Backoff.Max = 0
	want := []string{
		"cmd: missing (accepted: a program to run and its arguments)",
		`backoff.max: "0s": shorter than backoff.initial, 1s`,
		`user: "nobody-of-that-name:no-such-group": no user "nobody-of-that-name" on this machine`,
		`user: "nobody-of-that-name:no-such-group": no group "no-such-group" on this machine`,
	}
	if got := texts(Validate(p)); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	p = NewProgram("x")
	p.Cmd, p.User = []string{"true"}, "root:root"
	if got := Validate(p); len(got) > 0 {
		t.Errorf("got %q", texts(got))
	}
}
