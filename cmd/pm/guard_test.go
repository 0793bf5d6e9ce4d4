package main

import (
	"bytes"
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pm.example/subcmd"
)

// The tests of this file keep what ARCHITECTURE.md, HACKING.md and README.md
// promise of the whole tree.

const (
	module = "pm.example/"
	top    = "../.."
)

// source is one Go file of the project.
type source struct {
	pkg     string // the package's directory, as proc/inherited
	path    string
	test    bool
	imports []string
	file    *ast.File
}

// sources parses every Go file of the project.
func sources(t *testing.T) (list []source) {
	t.Helper()
	for _, name := range projectFiles(t) {
		if path.Ext(name) != ".go" {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(top, name), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		s := source{pkg: path.Dir(name), path: name, test: strings.HasSuffix(name, "_test.go"), file: file}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			s.imports = append(s.imports, imported)
		}
		list = append(list, s)
	}
	return list
}

// projectFiles lists the files of the project, without what is built or hidden.
func projectFiles(t *testing.T) (list []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(top), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == ".bin" || name == "bin" || path.Base(name) == "fuzz"):
			return fs.SkipDir
		case d.Type().IsRegular():
			list = append(list, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// readFile returns a file of the project.
func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// fenced returns the lines of the blocks ```language of a Markdown file.
func fenced(t *testing.T, name, language string) (lines []string) {
	t.Helper()
	inside := false
	for line := range strings.Lines(readFile(t, name)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```"+language
		case inside && line != "" && !strings.HasPrefix(line, "#"):
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		t.Fatalf("%s has no block ```%s", name, language)
	}
	return lines
}

// pointing reads lines of the form "a, b -> c d".
func pointing(t *testing.T, name, language string) map[string][]string {
	t.Helper()
	table := map[string][]string{}
	for _, line := range fenced(t, name, language) {
		from, to, ok := strings.Cut(line, " -> ")
		if !ok {
			t.Fatalf("%s: not of the form a -> b: %s", name, line)
		}
		for key := range strings.SplitSeq(from, ",") {
			table[strings.TrimSpace(key)] = strings.Fields(to)
		}
	}
	return table
}

// within reports whether a package is parent or lies below it.
func within(pkg, parent string) bool {
	return pkg == parent || strings.HasPrefix(pkg, parent+"/")
}

func TestImportArrows(t *testing.T) {
	arrows := pointing(t, "ARCHITECTURE.md", "arrows")
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		owner := s.pkg
		for key := range arrows {
			if within(s.pkg, key) {
				owner = key
			}
		}
		may, known := arrows[owner]
		if !known {
			t.Errorf("%s: package %s is not in the block of arrows of ARCHITECTURE.md", s.path, s.pkg)
			continue
		}
		for _, imported := range s.imports {
			pkg, ours := strings.CutPrefix(imported, module)
			if ours && !within(pkg, owner) && !allowed(may, pkg) {
				t.Errorf("%s imports %s: ARCHITECTURE.md has no arrow for it", s.path, pkg)
			}
		}
	}
}

// allowed reports whether the right side of an arrow lets a package in.
func allowed(may []string, pkg string) bool {
	if strings.Join(may, " ") == "everything below" {
		return !within(pkg, "cmd/pm")
	}
	return slices.ContainsFunc(may, func(m string) bool { return within(pkg, m) })
}

func TestModulesHaveOwners(t *testing.T) {
	owners := pointing(t, "ARCHITECTURE.md", "owners")
	used := map[string]bool{}
	for _, s := range sources(t) {
		for _, imported := range s.imports {
			domain, _, _ := strings.Cut(imported, "/")
			if s.test || !strings.Contains(domain, ".") || strings.HasPrefix(imported, module) {
				continue
			}
			may, key := []string(nil), imported
			for k, packages := range owners {
				if within(imported, k) {
					may, key = packages, k
				}
			}
			used[key] = true
			if !slices.ContainsFunc(may, func(m string) bool { return within(s.pkg, m) }) {
				t.Errorf("%s imports %s, which belongs to %s", s.path, imported, strings.Join(may, ", "))
			}
		}
	}
	for key := range owners {
		if !used[key] {
			t.Errorf("ARCHITECTURE.md names an owner of %s, which nothing imports", key)
		}
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	docs := map[string]int{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		docs[s.pkg] += 0
		if s.file.Doc != nil {
			docs[s.pkg]++
		}
	}
	for pkg, n := range docs {
		if n != 1 {
			t.Errorf("package %s has %d doc comments, want 1", pkg, n)
		}
	}
}

// TestNothingIsLeftUndone keeps notes to self out of the tree, and sleeping out
// of the tests: a bubble of testing/synctest is the place to let time pass.
func TestNothingIsLeftUndone(t *testing.T) {
	undone := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	sleep := regexp.MustCompile(`(?m)^\s*(! )?exec sleep |\btime\.Sle` + `ep\(`)
	for _, name := range projectFiles(t) {
		text := readFile(t, name)
		if found := undone.FindString(text); found != "" {
			t.Errorf("%s: %s", name, found)
		}
		isTest := strings.HasSuffix(name, "_test.go") || path.Ext(name) == ".txtar"
		if isTest && sleep.MatchString(text) && !strings.Contains(text, `"testing/synctest"`) {
			t.Errorf("%s sleeps: wait for what is to happen", name)
		}
	}
}

var commandLine = regexp.MustCompile(`(?m)^   ([a-z-]+)(, [a-z_-]+)*  `)

// visibleCommands are the commands that pm's help lists.
func visibleCommands(t *testing.T) (names []string) {
	t.Helper()
	var out bytes.Buffer
	subcmd.Main(context.Background(), []string{"pm", "--help"}, strings.NewReader(""), &out, &out, os.Getenv)
	_, list, _ := strings.Cut(out.String(), "\nCOMMANDS:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for _, m := range commandLine.FindAllStringSubmatch(list, -1) {
		if m[1] != "help" {
			names = append(names, m[1])
		}
	}
	if len(names) == 0 {
		t.Fatalf("no commands in the help:\n%s", out.String())
	}
	return names
}

// isCommand reports whether pm knows the command, also if its help hides it.
func isCommand(name string) bool {
	var out bytes.Buffer
	code := subcmd.Main(context.Background(), []string{"pm", name, "--help"}, strings.NewReader(""), &out, &out, os.Getenv)
	return code == 0 || !strings.Contains(out.String(), "unknown command")
}

// A script is called after the command that it is about.
func TestCommandsHaveScripts(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(top, "testdata/scripts/*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	commands := visibleCommands(t)
	scripts := map[string]int{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		subject := subjectOf(name, commands)
		scripts[subject]++
		if subject == "" {
			t.Errorf("%s: the name begins with no command, nor with help or story", filepath.Base(file))
		}
	}
	for _, c := range commands {
		if scripts[c] == 0 {
			t.Errorf("no script testdata/scripts/%s_….txtar", underscored(c))
		}
		if scripts["help "+c] == 0 {
			t.Errorf("no script testdata/scripts/help_%s.txtar", underscored(c))
		}
	}
}

func underscored(command string) string { return strings.ReplaceAll(command, "-", "_") }

// subjectOf returns the command that a script's name begins with, "help" and
// the command, or the first word; "" for a name that means nothing.
func subjectOf(script string, commands []string) string {
	script = underscored(script)
	first, rest, _ := strings.Cut(script, "_")
	if first == "help" {
		for _, c := range commands {
			if underscored(c) == rest {
				return "help " + c
			}
		}
		return first
	}
	best := ""
	for _, c := range commands {
		if len(c) > len(best) && (script == underscored(c) || strings.HasPrefix(script, underscored(c)+"_")) {
			best = c
		}
	}
	if best == "" && (first == "story" || isCommand(first)) {
		return first
	}
	return best
}

// What the README shows is what a script runs: story_readme.txtar.
func TestReadmeIsExecuted(t *testing.T) {
	script := readFile(t, "testdata/scripts/story_readme.txtar")
	makefile := readFile(t, "Makefile")
	for _, line := range fenced(t, "README.md", "sh") {
		for command := range strings.SplitSeq(line, " && ") {
			if target, ok := strings.CutPrefix(command, "make "); ok {
				if !strings.Contains(makefile, "\n"+target+":") {
					t.Errorf("README.md: %s: the Makefile has no such target", command)
				}
				continue
			}
			if !executes(script, command) {
				t.Errorf("README.md: story_readme.txtar does not run: %s", command)
			}
		}
	}
}

var execution = regexp.MustCompile(`(?m)^(?:! )?(?:exec|exits \d+) (.+?)(?: &)?$`)

// executes reports whether a line of the script runs the command. pm stands in
// the script's PATH, not in bin.
func executes(script, command string) bool {
	command = strings.TrimPrefix(command, "bin/")
	return slices.ContainsFunc(execution.FindAllStringSubmatch(script, -1), func(m []string) bool { return m[1] == command })
}

// A script begins with one sentence that says what is promised.
func TestScriptsPromise(t *testing.T) {
	promise := regexp.MustCompile(`^# [^\n]+\.\n`)
	for _, name := range projectFiles(t) {
		if path.Ext(name) == ".txtar" && !promise.MatchString(readFile(t, name)) {
			t.Errorf("%s does not begin with a sentence that says what is promised", name)
		}
	}
}

// What a program does at its start stands in main.
func TestNoInit(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function", s.path)
			}
		}
	}
}

// A page that is to be read in one go has an end.
func TestPagesAreShort(t *testing.T) {
	for name, limit := range map[string]int{"ARCHITECTURE.md": 150, "HACKING.md": 200} {
		if n := strings.Count(readFile(t, name), "\n"); n > limit {
			t.Errorf("%s has %d lines, more than %d", name, n, limit)
		}
	}
}
