package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxSize bounds a config file, and maxProblems how many of its faults are
// told.
const (
	maxSize     = 16 << 20
	maxProblems = 1000
)

// Find returns the config file to use: explicit if it is given, else ./pm.toml,
// else /etc/pm/pm.toml, whichever is there first.
func Find(explicit string) (string, error) { return find(explicit, "pm.toml", "/etc/pm/pm.toml") }

func find(explicit string, places ...string) (string, error) {
	if explicit != "" {
		return explicit, nil
	}
	for _, path := range places {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
	}
	return "", fmt.Errorf("no config file: tried ./%s (name one with -c FILE)", strings.Join(places, " and "))
}

// Load reads a config file with what it includes. References in it are looked
// up with lookup, usually os.LookupEnv. It returns all faults as one *Errors;
// warnings are what the file says without effect.
func Load(path string, lookup func(string) (string, bool)) (*File, []Problem, error) {
	data, err := readConfig(path)
	if err != nil {
		return nil, nil, err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, nil, fmt.Errorf("cannot find the directory of config %q: %w", path, err)
	}
	return parse(path, dir, data, lookup)
}

// Parse reads a config that is not in a file; name stands for it in messages,
// and its ending says the syntax if it has one. It can include nothing, and
// relative paths in it stay relative.
func Parse(name string, data []byte, lookup func(string) (string, bool)) (*File, []Problem, error) {
	return parse(name, "", data, lookup)
}

func parse(name, dir string, data []byte, lookup func(string) (string, bool)) (*File, []Problem, error) {
	if lookup == nil {
		lookup = func(string) (string, bool) { return "", false }
	}
	f, r := decode(name, dir, data, lookup)
	r.problems = append(r.problems, f.checkUsers()...)
	return f.finish(r)
}

// finish returns what Load and Parse return.
func (f *File) finish(r *reader) (*File, []Problem, error) {
	if len(r.problems) > 0 {
		return nil, inOrder(r.warnings), &Errors{first(inOrder(r.problems))}
	}
	return f, inOrder(r.warnings), nil
}

// first keeps as many problems as anybody will read.
func first(problems []Problem) []Problem {
	if len(problems) <= maxProblems {
		return problems
	}
	more := Problem{File: problems[maxProblems].File, Message: fmt.Sprintf("and %d faults more", len(problems)-maxProblems)}
	return append(problems[:maxProblems:maxProblems], more)
}

// decode reads a config and its includes; a nil lookup leaves references as
// they are.
func decode(name, dir string, data []byte, lookup func(string) (string, bool)) (*File, *reader) {
	f := newFile(name)
	r := newReader(dir, lookup)
	f.places = r.places
	r.source(name, data, f)
	r.includes(f)
	r.finish(f)
	return f, r
}

func newFile(name string) *File {
	f := &File{Path: name}
	setDefaults(daemonFields, &f.Daemon)
	setDefaults(emailFields, &f.Email)
	return f
}

func newReader(dir string, lookup func(string) (string, bool)) *reader {
	return &reader{lookup: lookup, dir: dir, places: map[string]pos{}, base: *NewProgram("")}
}

// source reads one text into f.
func (r *reader) source(name string, data []byte, f *File) {
	r.yaml = !isTOML(name, string(data))
	parse := parseTOML
	if r.yaml {
		parse = parseYAML
	}
	root, problems := parse(name, string(data))
	r.problems = append(r.problems, problems...)
	if root == nil {
		return
	}
	if root.kind != tableNode {
		r.key = ""
		r.fault(root, "not a configuration but "+root.kind.String(), "a table with programs")
		return
	}
	r.file(root, f)
}

// isTOML tells the syntax by the name, else by the first line that says
// something.
func isTOML(name, text string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".toml":
		return true
	case ".yaml", ".yml", ".json":
		return false
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "\uFEFF"))
		if line == "" || line[0] == '#' {
			continue
		}
		equals, colon := strings.Index(line, "="), strings.Index(line, ":")
		return line[0] == '[' || equals >= 0 && (colon < 0 || equals < colon)
	}
	return true
}

// includes reads the files that f's patterns match, in the order of their
// names.
func (r *reader) includes(f *File) {
	patterns, at := f.include, r.places["include"]
	if len(patterns) > 0 && r.dir == "" {
		r.key = "include"
		r.faultAt(at, "a config that is not read from a file cannot include others")
		return
	}
	main, _ := filepath.Abs(f.Path)
	for _, pattern := range patterns {
		for _, path := range r.matches(pattern, at) {
			if path != main {
				r.include(path, at, f)
			}
		}
	}
}

// matches returns the files of one pattern. A pattern without wildcards must
// match.
func (r *reader) matches(pattern string, at pos) []string {
	r.key = "include"
	paths, err := filepath.Glob(r.path(pattern))
	if err != nil {
		r.faultAt(at, fmt.Sprintf("%q is not a pattern", pattern))
	}
	if err == nil && len(paths) == 0 && !strings.ContainsAny(pattern, "*?[") {
		r.faultAt(at, fmt.Sprintf("%q: no such file", r.path(pattern)))
	}
	return paths
}

func (r *reader) include(path string, at pos, f *File) {
	data, err := readConfig(path)
	if err != nil {
		r.key = "include"
		r.faultAt(at, err.Error())
		return
	}
	delete(r.places, "include")
	outer := r.dir
	r.dir = filepath.Dir(path)
	r.source(path, data, f)
	r.dir = outer
	if nested, given := r.places["include"]; given {
		r.key = "include"
		r.faultAt(nested, "an included file cannot include others")
	}
	r.places["include"] = at
}

// finish checks what only the whole can show, and puts programs in order.
func (r *reader) finish(f *File) {
	at := pos{f.Path, 0, 0}
	if _, given := r.places["programs"]; !given && len(r.problems) == 0 {
		r.problems = append(r.problems, Problem{File: f.Path, Message: "no programs in it", Suggestion: "an empty table of programs says that there are to be none"})
	} else if len(f.Programs) == 0 && len(r.problems) == 0 {
		r.warn(at, "programs", "no programs: nothing will run")
	}
	for _, key := range []string{"port", "ip", "daemon.port", "daemon.ip"} {
		if at, given := r.places[key]; given {
			r.warn(at, key, "without effect: pm listens on a Unix socket, see daemon.socket")
		}
	}
	slices.SortStableFunc(f.Programs, func(a, b *Program) int {
		return cmp.Or(a.Priority-b.Priority, strings.Compare(a.Name, b.Name))
	})
}

// readConfig reads a file that must not be larger than maxSize.
func readConfig(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read config: %w", err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read config: %w", err)
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("cannot read config %q: larger than %d MiB", path, maxSize>>20)
	}
	return data, nil
}
