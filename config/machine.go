package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// checkUsers returns the users and groups that this machine does not have.
func (f *File) checkUsers() []Problem {
	var problems []Problem
	seen := map[string][]Problem{}
	for _, p := range f.Programs {
		found, known := seen[p.User]
		if !known {
			found = checkUser(p)
			seen[p.User] = found
		}
		for _, problem := range found {
			problems = append(problems, f.place("programs."+p.Name, problem))
		}
	}
	if f.Daemon.Group != "" && !groupExists(f.Daemon.Group) {
		problems = append(problems, f.place("daemon", Problem{Key: "group", Value: f.Daemon.Group, Message: "no such group on this machine"}))
	}
	return problems
}

// place gives a problem the place of its key below base, or that of base.
func (f *File) place(base string, p Problem) Problem {
	at, given := f.places[join(base, p.Key)]
	if !given {
		at = f.places[base]
	}
	p.File, p.Line, p.Column, p.Key = at.file, at.line, at.column, join(base, p.Key)
	return p
}

func checkUser(p *Program) []Problem {
	name, group, two := strings.Cut(p.User, ":")
	var problems []Problem
	if name != "" && !userExists(name) {
		problems = append(problems, Problem{Key: "user", Value: p.User, Message: fmt.Sprintf("no user %q on this machine", name)})
	}
	if two && !groupExists(group) {
		problems = append(problems, Problem{Key: "user", Value: p.User, Message: fmt.Sprintf("no group %q on this machine", group)})
	}
	return problems
}

// userExists reports whether name is a user of this machine. A number needs
// no entry in the list of users.
func userExists(name string) bool {
	if isID(name) {
		return true
	}
	_, err := user.Lookup(name)
	return err == nil
}

func groupExists(name string) bool {
	if isID(name) {
		return true
	}
	_, err := user.LookupGroup(name)
	return err == nil
}

func isID(name string) bool {
	_, err := strconv.ParseUint(name, 10, 32)
	return err == nil
}

// CheckMachine returns what this machine lacks to run the programs: commands,
// directories, files. They are no faults of the file itself, since they may be
// there by the time a program is started.
func (f *File) CheckMachine() []Problem {
	var problems []Problem
	for _, p := range f.Programs {
		for _, problem := range p.lacks() {
			problems = append(problems, f.place("programs."+p.Name, problem))
		}
	}
	for _, problem := range append(outputLacks("log_file", f.Daemon.LogFile, ""), fileLacks("password_file", f.Email.PasswordFile)...) {
		section := "daemon"
		if problem.Key == "password_file" {
			section = "email"
		}
		problems = append(problems, f.place(section, problem))
	}
	return inOrder(problems)
}

// lacks returns what a program needs and this machine does not have.
func (p *Program) lacks() []Problem {
	problems := directoryLacks(p.WorkingDir)
	if len(problems) == 0 {
		problems = commandLacks(p)
	}
	if p.Stdin != Attached {
		problems = append(problems, fileLacks("stdin", p.Stdin)...)
	}
	problems = append(problems, outputLacks("stdout", p.Stdout, p.User)...)
	problems = append(problems, outputLacks("stderr", p.Stderr, p.User)...)
	for _, path := range p.EnvFile {
		if !strings.HasPrefix(path, "-") {
			problems = append(problems, fileLacks("env_file", path)...)
		}
	}
	return problems
}

func directoryLacks(path string) []Problem {
	if path == "" {
		return nil
	}
	return lackOf("workingdir", path, isDirectory(path))
}

// lackOf makes a problem of an error.
func lackOf(key, value string, err error) []Problem {
	if err == nil {
		return nil
	}
	return []Problem{{Key: key, Value: value, Message: reason(err)}}
}

// reason is an error without the path, which stands before it already.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return err.Error()
}

func isDirectory(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		return syscall.ENOTDIR
	}
	return err
}

// commandLacks looks for the command as the launch will: in the program's own
// PATH if it has one.
func commandLacks(p *Program) []Problem {
	name := p.Cmd[0]
	if strings.Contains(name, "/") {
		return lackOf("cmd", name, isExecutable(inDirectory(p.WorkingDir, name)))
	}
	search, own := p.Env["PATH"]
	if !own {
		search = os.Getenv("PATH")
	}
	for _, dir := range filepath.SplitList(search) {
		if isExecutable(inDirectory(p.WorkingDir, filepath.Join(dir, name))) == nil {
			return nil
		}
	}
	return []Problem{{Key: "cmd", Value: name, Message: "no such command", Suggestion: "PATH is " + search}}
}

func inDirectory(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func isExecutable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return syscall.EISDIR
	case info.Mode()&0o111 == 0:
		return errors.New("not executable")
	}
	return nil
}

func fileLacks(key, path string) []Problem {
	if path == "" {
		return nil
	}
	_, err := os.Stat(path)
	return lackOf(key, path, err)
}

// outputLacks checks that a file can be written or made, where the daemon's
// own rights tell: the rights of another user are not looked into.
func outputLacks(key, path, user string) []Problem {
	if !IsFile(path) {
		return nil
	}
	dir := filepath.Dir(path)
	if err := isDirectory(dir); err != nil {
		return []Problem{{Key: key, Value: path, Message: fmt.Sprintf("directory %s: %s", dir, reason(err))}}
	}
	if user != "" {
		return nil
	}
	const writable = 2
	target := path
	info, err := os.Stat(path)
	if err != nil {
		target = dir
	} else if info.IsDir() {
		return lackOf(key, path, syscall.EISDIR)
	}
	if err := syscall.Access(target, writable); err != nil {
		return []Problem{{Key: key, Value: path, Message: "cannot be written: " + err.Error()}}
	}
	return nil
}
