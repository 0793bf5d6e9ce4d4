package main

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// printedMiB is how much the program of capture prints.
const printedMiB = 1024

// copySupervisor only copies what its program prints, and takes the place of floor
// for that.
func copySupervisor(path string) *supervisor {
	return &supervisor{
		name: nameFloor,
		path: path,
		command: func(s *session) (*exec.Cmd, error) {
			return exec.Command(path, append([]string{filepath.Join(s.dir, "lines")}, s.argv()...)...), nil
		},
		end: func(_ context.Context, s *session) error { return s.cmd.Process.Signal(syscall.SIGTERM) },
	}
}

// measureCapture looks at the CPU time that it takes to keep what a program prints in
// files, which are rotated.
func measureCapture(ctx context.Context, b *bench) error {
	copier, err := b.buildCapture(ctx)
	if err != nil {
		return err
	}
	return b.inTurns("a program that prints", []*supervisor{copier, b.pm, b.supervisord}, func(sup *supervisor, _ int) error {
		return b.with(ctx, sup, load{1, printing}, func(s *session, _ time.Duration) error { return s.capture(ctx) })
	})
}

// buildCapture makes the program that prints, and what takes the place of floor.
func (b *bench) buildCapture(ctx context.Context) (*supervisor, error) {
	copier := filepath.Join(b.dir, "copy")
	b.printer = filepath.Join(b.dir, "print")
	return copySupervisor(copier), errors.Join(compile(ctx, copySource, copier), compile(ctx, printSource, b.printer))
}

// capture waits until all is printed.
func (s *session) capture(ctx context.Context) error {
	before, err := s.usage()
	if err != nil {
		return err
	}
	if _, err := s.next(ctx); err != nil {
		return err
	}
	after, err := s.usage()
	if err != nil {
		return err
	}
	s.bench.add(rowCapture, s.sup, (after.cpu-before.cpu).Seconds()*1024/float64(s.bench.printed))
	_, err = s.stop(ctx)
	return err
}

// printer is the program of printing.
func (s *session) printer() []string {
	return []string{s.bench.printer, s.socket, strconv.Itoa(s.bench.printed)}
}
