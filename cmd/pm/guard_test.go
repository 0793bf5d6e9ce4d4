package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The guards keep the house in order: what a reader is told of its shape is
// what its shape is.

const (
	root   = "../.."
	module = "pm.example/"
)

// source is one Go file.
type source struct {
	path string // from the root of the project
	file *ast.File
	text string
}

func (s source) pkg() string  { return filepath.Dir(s.path) }
func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// imports lists the paths that the file imports.
func (s source) imports() (list []string) {
	for _, i := range s.file.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		list = append(list, path)
	}
	return list
}

// projectFiles lists the files of the project, from its root.
func projectFiles(t *testing.T) (list []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "bin"):
			return fs.SkipDir
		case d.Type().IsRegular():
			list = append(list, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// sources parses all Go files of the project.
func sources(t *testing.T) (list []source) {
	t.Helper()
	for _, path := range projectFiles(t) {
		if filepath.Ext(path) != ".go" {
			continue
		}
		text := read(t, path)
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, source{path: path, file: file, text: text})
	}
	return list
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// blocks returns the fenced blocks of a Markdown file that are marked with the
// word.
func blocks(t *testing.T, path, word string) (list []string) {
	t.Helper()
	re := regexp.MustCompile("(?ms)^```" + word + "\n(.*?)^```")
	for _, m := range re.FindAllStringSubmatch(read(t, path), -1) {
		list = append(list, m[1])
	}
	if len(list) == 0 {
		t.Fatalf("%s has no block marked %s", path, word)
	}
	return list
}

// rule is a line of a block: A, B -> C D.
type rule struct{ left, right []string }

func rules(t *testing.T, path, word string) (list []rule) {
	t.Helper()
	for line := range strings.Lines(blocks(t, path, word)[0]) {
		left, right, ok := strings.Cut(line, "->")
		if !ok {
			t.Fatalf("%s: not a rule: %s", path, line)
		}
		words := func(s string) []string { return strings.Fields(strings.ReplaceAll(s, ",", " ")) }
		list = append(list, rule{words(left), words(right)})
	}
	return list
}

// allowedImports reads the arrows of ARCHITECTURE.md: for each package, those of
// the project that it may import.
func allowedImports(t *testing.T) map[string][]string {
	t.Helper()
	allowed := map[string][]string{}
	list := rules(t, "ARCHITECTURE.md", "arrows")
	for n, r := range list {
		right := r.right
		switch strings.Join(right, " ") {
		case "nothing of pm":
			right = nil
		case "everything below":
			right = nil
			for _, below := range list[n+1:] {
				right = append(right, below.left...)
			}
		}
		for _, pkg := range r.left {
			allowed[pkg] = right
		}
	}
	return allowed
}

// top is the package of the arrows that a directory belongs to: proc/inherited
// is a part of proc. A program of its own, such as bench, is none.
func top(dir string, allowed map[string][]string) string {
	for pkg := range allowed {
		if dir == pkg || strings.HasPrefix(dir, pkg+"/") {
			return pkg
		}
	}
	return ""
}

func TestImportArrows(t *testing.T) {
	allowed := allowedImports(t)
	for _, s := range sources(t) {
		from := top(s.pkg(), allowed)
		if s.isTest() || from == "" {
			continue
		}
		for _, path := range s.imports() {
			dir, ours := strings.CutPrefix(path, module)
			to := top(dir, allowed)
			if ours && to != from && !slices.Contains(allowed[from], to) {
				t.Errorf("%s imports %s: ARCHITECTURE.md does not let %s see %s", s.path, path, from, to)
			}
		}
	}
}

func TestEveryPackageIsOnTheMap(t *testing.T) {
	allowed := allowedImports(t)
	for _, s := range sources(t) {
		if s.file.Name.Name != "main" && !strings.Contains(s.path, "testdata") && top(s.pkg(), allowed) == "" {
			t.Errorf("package %s is missing among the arrows of ARCHITECTURE.md", s.pkg())
		}
	}
}

func TestModulesHaveOwners(t *testing.T) {
	owners := map[string][]string{}
	for _, r := range rules(t, "ARCHITECTURE.md", "owners") {
		owners[r.left[0]] = r.right
	}
	allowed := allowedImports(t)
	for _, s := range sources(t) {
		from := top(s.pkg(), allowed)
		if s.isTest() || from == "" {
			continue
		}
		for _, path := range s.imports() {
			if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") || strings.HasPrefix(path, module) {
				continue
			}
			if !owned(owners, path, from) {
				t.Errorf("%s imports %s, which %s does not own according to ARCHITECTURE.md", s.path, path, from)
			}
		}
	}
}

func owned(owners map[string][]string, path, pkg string) bool {
	for mod, list := range owners {
		if (path == mod || strings.HasPrefix(path, mod+"/")) && slices.Contains(list, pkg) {
			return true
		}
	}
	return false
}

func TestEveryPackageTellsItsStory(t *testing.T) {
	told := map[string]bool{}
	for _, s := range sources(t) {
		if s.isTest() || strings.Contains(s.path, "testdata/") {
			continue
		}
		told[s.pkg()] = told[s.pkg()] || s.file.Doc != nil
	}
	for pkg, ok := range told {
		if !ok {
			t.Errorf("package %s has no doc comment", pkg)
		}
	}
}

func TestNoInit(t *testing.T) {
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function: what a program does at its start stands in main", s.path)
			}
		}
	}
}

// TestTestsDoNotSleep keeps tests from waiting for time where they could wait
// for what happens. In a testing/synctest bubble sleeping costs nothing.
func TestTestsDoNotSleep(t *testing.T) {
	for _, s := range sources(t) {
		if !s.isTest() || slices.Contains(s.imports(), "testing/synctest") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s sleeps: wait for the event instead", s.path)
				}
			}
			return true
		})
	}
}

func TestNothingIsLeftToDo(t *testing.T) {
	marks := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	for _, path := range projectFiles(t) {
		if marks.MatchString(read(t, path)) {
			t.Errorf("%s has something left to do: do it, or write an issue", path)
		}
	}
}

// subcommands lists the commands that pm --help names.
func subcommands(t *testing.T) (list []string) {
	t.Helper()
	out, err := exec.Command(filepath.Join(commandDir(), "pm"), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(out), "COMMANDS:\n")
	text, _, _ = strings.Cut(text, "\n\n")
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name = strings.TrimSuffix(name, ","); name != "help" {
			list = append(list, name)
		}
	}
	if len(list) < 10 {
		t.Fatalf("pm --help names only %v", list)
	}
	return list
}

func TestEveryCommandHasScripts(t *testing.T) {
	for _, command := range subcommands(t) {
		name := strings.ReplaceAll(command, "-", "_")
		for _, pattern := range []string{name + "_*.txtar", "help_" + name + ".txtar"} {
			found, _ := filepath.Glob(filepath.Join(root, "testdata/scripts", pattern))
			if len(found) == 0 {
				t.Errorf("pm %s has no testdata/scripts/%s", command, pattern)
			}
		}
	}
}

// TestScriptsPromise demands of every script that it begins with what it
// promises, and that its name begins with a command's, story or help.
func TestScriptsPromise(t *testing.T) {
	firsts := append(subcommands(t), "story", "help")
	promise := regexp.MustCompile(`^# [^\n]+\.\n`)
	files, _ := filepath.Glob(filepath.Join(root, "testdata/scripts/*"))
	for _, file := range files {
		name := filepath.Base(file)
		if !slices.ContainsFunc(firsts, func(c string) bool { return strings.HasPrefix(name, strings.ReplaceAll(c, "-", "_")+"_") }) {
			t.Errorf("%s: its name begins with no command", name)
		}
		if data, err := os.ReadFile(file); err != nil || !promise.Match(data) {
			t.Errorf("%s does not begin with a sentence that says what is promised (%v)", name, err)
		}
	}
}

// TestReadmeCommandsRun demands that each line of README.md's examples is run
// by a script or is a target of the Makefile.
func TestReadmeCommandsRun(t *testing.T) {
	scripts := ""
	files, _ := filepath.Glob(filepath.Join(root, "testdata/scripts/*.txtar"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		scripts += string(data)
	}
	makefile := read(t, "Makefile")
	for line := range strings.Lines(strings.Join(blocks(t, "README.md", "sh"), "")) {
		for command := range strings.SplitSeq(line, "&&") {
			command, _, _ = strings.Cut(command, " #")
			if command = strings.Trim(command, " &\n"); command == "" {
				continue
			}
			if target, isMake := strings.CutPrefix(command, "make "); isMake && strings.Contains(makefile, "\n"+target+":") {
				continue
			}
			command = strings.Replace(strings.TrimPrefix(command, "bin/"), "examples/", "$ROOT/examples/", 1)
			if !strings.Contains(scripts, command) {
				t.Errorf("README.md: no script runs: %s", command)
			}
		}
	}
}

func TestDocumentsAreShort(t *testing.T) {
	for path, limit := range map[string]int{"ARCHITECTURE.md": 150, "HACKING.md": 200} {
		if n := strings.Count(read(t, path), "\n"); n > limit {
			t.Errorf("%s has %d lines, more than %d", path, n, limit)
		}
	}
}
