package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// runit and s6 have a process for each program, and a directory with a script that
// becomes it.

const (
	nameRunit = "runit"
	nameS6    = "s6"

	servicesDir = "services"
)

func runitSupervisor(path string) *supervisor {
	return &supervisor{
		name: nameRunit,
		path: path,
		command: func(s *session) (*exec.Cmd, error) {
			dir, err := s.services()
			return exec.Command(path, "-P", dir), err
		},
		// It leaves at once, and those below it stop their programs.
		end: func(_ context.Context, s *session) error { return s.cmd.Process.Signal(syscall.SIGHUP) },
	}
}

func s6Supervisor(path string) *supervisor {
	return &supervisor{
		name: nameS6,
		path: path,
		command: func(s *session) (*exec.Cmd, error) {
			dir, err := s.services()
			return exec.Command(path, "-c", fmt.Sprint(2*s.load.n+100), dir), err
		},
		end: func(_ context.Context, s *session) error { return s.cmd.Process.Signal(syscall.SIGTERM) },
	}
}

// services makes the directories of the services, if that was not done yet.
func (s *session) services() (string, error) {
	dir := filepath.Join(s.dir, servicesDir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		if os.IsExist(err) {
			return dir, nil
		}
		return "", err
	}
	script := "#!/bin/sh\nexec " + strings.Join(s.argv(), " ") + " </dev/null >/dev/null 2>&1\n"
	for n := range s.load.n {
		service := filepath.Join(dir, fmt.Sprintf("idle-%d", n))
		if err := os.Mkdir(service, 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(service, "run"), []byte(script), 0o700); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// findPeers looks for the other supervisors, as far as they are wanted.
func (b *bench) findPeers() {
	for _, p := range []struct {
		program, name, install string
		make                   func(path string) *supervisor
		found                  **supervisor
	}{
		{"supervisord", "supervisor", "supervisor", supervisordSupervisor, &b.supervisord},
		{"runsvdir", "runit", "runit", runitSupervisor, &b.runit},
		{"s6-svscan", "s6", "s6", s6Supervisor, &b.s6},
	} {
		path, err := exec.LookPath(p.program)
		if err != nil {
			b.notes = append(b.notes, fmt.Sprintf("%s is left out: %s is not installed (apt-get install %s)", p.name, p.program, p.install))
			continue
		}
		*p.found = p.make(path)
	}
}
