package config

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const docsPath = "../docs/config.md"

// TestDocs holds docs/config.md to the declaration of the keys; -update
// rewrites it.
func TestDocs(t *testing.T) {
	want := docs()
	if *update {
		writeFile(t, docsPath, want)
	}
	got, err := os.ReadFile(docsPath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/config.md differs from the declaration of the keys: go test ./config -update")
	}
}

// docs is the text of docs/config.md.
func docs() string {
	var b strings.Builder
	b.WriteString(docsIntro)
	docsTable(&b, "Programs: `[programs.NAME]`", "A name has "+namesAccept+".", programFields)
	docsTable(&b, "The daemon: `[daemon]`", "", daemonFields)
	docsTable(&b, "Mail: `[email]`", "taskmaster's `email: ADDRESS` at the top of a file is read as `to`, through the machine's own server, with `tls = \"none\"`.", emailFields)
	docsTable(&b, "The top of a file", "", topFields)
	return b.String()
}

func docsTable[T any](b *strings.Builder, title, intro string, fields []field[T]) {
	fmt.Fprintf(b, "\n## %s\n\n", title)
	if intro != "" {
		fmt.Fprintf(b, "%s\n\n", intro)
	}
	b.WriteString("| key | type | default | accepted | a change | what it is |\n|---|---|---|---|---|---|\n")
	for _, f := range fields {
		text := f.text
		if text != "" {
			text = "`" + text + "`"
		}
		cells := []string{"`" + f.key + "`", f.kind, text, f.accepted, string(f.requires), f.doc}
		fmt.Fprintf(b, "| %s |\n", strings.ReplaceAll(strings.Join(cells, " | "), "|  |", "| |"))
	}
}

const docsIntro = `# The configuration

<!-- Generated from the declaration of the keys: go test ./config -update -->

A file is TOML, or YAML in the dialect of taskmaster; the ending (.toml, .yaml, .yml) says which, else the
first line does. Both have the same keys. ` + "`pm config check FILE`" + ` tells every fault with its place,
` + "`pm config show`" + ` what is in effect, ` + "`pm config convert`" + ` makes TOML of taskmaster files, supervisord.conf and
Procfiles, ` + "`pm config schema`" + ` prints a JSON Schema. [examples/full.toml](../examples/full.toml) has every key once.

Without ` + "`-c FILE`" + ` pm takes ./pm.toml, else /etc/pm/pm.toml.

## Values

- **Durations** are ` + "`\"10s\"`, `\"1m30s\"`" + ` or plain seconds (` + "`10`, `0.5`" + `).
- **Paths** that are relative start at the directory of the file they stand in. Only a command's path does not: it is
  looked for as a shell in the working directory would.
- **References**: ` + "`${NAME}`, `${NAME:-default}` (for unset or empty) and `${NAME:?message}`" + ` (an error if unset or empty)
  are replaced once in values, not in keys, from the environment of the daemon at the time it reads the file; what a
  variable holds is not looked at again. An unset variable without default is an error. ` + "`$$` is a `$`; `$NAME`" + ` stays as it is, for a
  shell. In ` + "`cmd`" + ` references are replaced after the line is split, so that a value with spaces stays one word; quotes
  do not protect them.
- **Signals** have a name, with or without SIG, or a number.
- **Nested keys** such as ` + "`limits.nofile`" + ` are tables: in TOML ` + "`limits.nofile = 10` or `[programs.NAME.limits]`, in YAML a map `limits:`" + `.
- A key that is unknown or stands twice is an error. So are a user or group that this machine does not have. A command, directory or file that
  is missing is none: it may be there later. ` + "`pm config check`" + ` tells of it unless ` + "`--syntax`" + ` is given, and the daemon warns.
- A file without any table of programs is an error, so that a file cut short stops nothing; an empty table is not.

In YAML a key with nothing behind it counts as not given, ` + "`umask: 022`" + ` is octal, ` + "`numprocs: 0`" + ` means 1, and lines of
` + "`-0`, `-2` (without a space) below `exitcodes:`" + ` mean 0 and 2.

## Changes

A reload compares the new file with the old, key by key. What a change requires:

| | |
|---|---|
| live | the process goes on under the new rule |
| scale | instances are added or removed, those of the highest numbers first; the others go on |
| reopen | the log is opened at its new path |
| respawn | the process is stopped and started anew |
| restart | the daemon has to be restarted |

When numprocs grows from 1, the instance ` + "`web`" + ` becomes ` + "`web:0`" + ` and stays the same process; when it shrinks to 1, ` + "`web:0`" + ` becomes ` + "`web`" + `.
`

// TestFullExample holds examples/full.toml to the declaration: every key, once.
func TestFullExample(t *testing.T) {
	data, err := os.ReadFile("../examples/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load("../examples/full.toml", environment()); err != nil {
		t.Fatal(err)
	}
	sections := regexp.MustCompile(`(?m)^\[.*\]$`).Split(string(data), -1)
	line := regexp.MustCompile(`(?m)^(?:# )?([a-z_]+(?:\.[a-z_]+)*) = `)
	for i, want := range [][]string{keys(topFields), keys(daemonFields), keys(emailFields), keys(programFields)} {
		var got []string
		for _, match := range line.FindAllStringSubmatch(sections[i], -1) {
			got = append(got, match[1])
		}
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("section %d has\n%q\nwant\n%q", i, got, want)
		}
	}
	// Uncommented, each line is right as well, but for what is twice on purpose.
	text := regexp.MustCompile(`(?m)^# ((?:limits|logs|user|stdin|kill|username|password_file)[a-z_.]* = )`).ReplaceAllString(string(data), "$1")
	mustParse(t, "full.toml", strings.ReplaceAll(text, "www-data", "root"))
}

func TestQuickstart(t *testing.T) {
	f, warnings, err := Load("../examples/quickstart.toml", environment())
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if lacks := f.CheckMachine(); len(lacks) > 0 {
		t.Error(lacks)
	}
	if f.Program("worker").Env["QUEUE"] != "letters" {
		t.Error("the default of QUEUE is missing")
	}
}

// TestSchema checks that every key has its place in the schema and that the
// schema is JSON.
func TestSchema(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(JSONSchema(), &root); err != nil {
		t.Fatal(err)
	}
	program := at(root, "properties", "programs", "additionalProperties")
	for _, f := range programFields {
		path := []string{}
		for part := range strings.SplitSeq(f.key, ".") {
			path = append(path, "properties", part)
		}
		if leaf := at(program, path...); leaf["description"] != f.doc || leaf["type"] == nil {
			t.Errorf("%s: %v", f.key, leaf)
		}
	}
	if limits := at(program, "properties", "limits"); limits["additionalProperties"] != false || limits["type"] != "object" {
		t.Errorf("limits: %v", limits)
	}
	if at(program, "properties", "numprocs")["default"] != 1.0 || at(program, "properties", "autostart")["default"] != true {
		t.Error("defaults are not of their own type")
	}
}

func at(object map[string]any, path ...string) map[string]any {
	for _, key := range path {
		object, _ = object[key].(map[string]any)
	}
	return object
}
