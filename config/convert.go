package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Formats lists what Convert reads.
func Formats() []string { return []string{"taskmaster", "supervisord", "procfile"} }

// Convert turns a configuration of another kind into pm's TOML: taskmaster's
// YAML, supervisord.conf or a Procfile. An empty format is found out by name
// and content. What cannot be carried over is told as warnings with their
// lines; what is plainly wrong is an *Errors. References to the environment
// are kept as references.
func Convert(name string, data []byte, format string) (toml []byte, warnings []Problem, err error) {
	if format == "" {
		format = detect(name, string(data))
	}
	r := newReader("", nil)
	r.converting = true
	f := newFile(name)
	f.places = r.places
	w := &tomlWriter{}
	switch format {
	case "taskmaster":
		r.fromYAML(name, string(data), f)
	case "supervisord":
		fromSupervisord(r, name, string(data), f)
	case "procfile":
		fromProcfile(r, name, string(data), f)
		w.escape = true
	default:
		return nil, nil, fmt.Errorf("unknown format %q (accepted: %s)", format, oneOf(Formats()))
	}
	r.finish(f)
	if _, warnings, err := f.finish(r); err != nil {
		return nil, warnings, err
	}
	defaults := newFile("")
	fmt.Fprintf(w, "# Converted from %s.\n", tomlString(filepath.Base(name)))
	w.file(f, NewProgram(""), &defaults.Daemon, &defaults.Email)
	return w.Bytes(), inOrder(r.warnings), nil
}

// detect tells the format of a configuration of another kind.
func detect(name, text string) string {
	base := strings.ToLower(filepath.Base(name))
	switch {
	case strings.HasPrefix(base, "procfile"):
		return "procfile"
	case strings.HasSuffix(base, ".conf"), strings.HasSuffix(base, ".ini"):
		return "supervisord"
	case strings.HasSuffix(base, ".yaml"), strings.HasSuffix(base, ".yml"):
		return "taskmaster"
	}
	return detectText(text)
}

// detectText goes by the first line that says something: a section, a key with
// nothing behind it, or a name with a command.
func detectText(text string) string {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.ContainsAny(line[:1], "#;") {
			continue
		}
		if line[0] == '[' {
			return "supervisord"
		}
		key, command, ok := strings.Cut(line, ":")
		if ok && command != "" && key != "port" && key != "ip" && key != "logout" && key != "email" {
			return "procfile"
		}
		break
	}
	return "taskmaster"
}

func (r *reader) fromYAML(name, text string, f *File) {
	r.yaml = true
	root, problems := parseYAML(name, text)
	r.problems = append(r.problems, problems...)
	if root == nil {
		return
	}
	if root.kind != tableNode {
		r.fault(root, "not a configuration but "+root.kind.String(), "a table with programs")
		return
	}
	r.file(root, f)
	if at, given := r.places["include"]; given {
		r.warn(at, "include", "the included files have to be converted too")
	}
}

// fromProcfile reads lines of name: command. A command that needs a shell gets
// one.
func fromProcfile(r *reader, name, text string, f *File) {
	programs := &node{kind: tableNode}
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\uFEFF")) {
		number++
		at := pos{name, number, 1}
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, command, ok := strings.Cut(line, ":")
		if !ok {
			r.problems = append(r.problems, Problem{File: name, Line: number, Column: 1, Value: line, Message: "no : in the line", Accepted: "name: command"})
			continue
		}
		key, command = strings.TrimSpace(key), strings.TrimSpace(command)
		programs.entries = append(programs.entries, programEntry(at, key, entry{at, "cmd", procfileCommand(at, command)}))
	}
	r.programs(entry{pos{name, 1, 1}, "programs", programs}, f)
}

func programEntry(at pos, name string, entries ...entry) entry {
	return entry{at, name, &node{pos: at, kind: tableNode, entries: entries}}
}

// procfileCommand is a command line of a Procfile as pm's cmd.
func procfileCommand(at pos, command string) *node {
	first, _, _ := strings.Cut(command, " ")
	if strings.ContainsAny(command, "$&|;<>()*?`~{}[]#!\\") || strings.Contains(first, "=") {
		return list(at, []string{"sh", "-c", command})
	}
	return scalar(at, command)
}
