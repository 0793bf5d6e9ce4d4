package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// patience is how long a supervisor may keep the bench waiting for one thing.
const patience = 90 * time.Second

// session is one supervisor at work: from its start to its end.
type session struct {
	bench  *bench
	sup    *supervisor
	load   load
	dir    string
	socket string // where the programs tell of their start
	conn   *net.UnixConn
	cmd    *exec.Cmd
	output *os.File     // what the supervisor prints
	client *http.Client // of its control socket, if it has one
	pids   []int        // of the programs, in the order of their start
	begun  int64        // when the supervisor was started

	ended   chan struct{} // closed when it has ended
	endedAt int64         // valid once ended is closed
	exit    error
}

// start begins a session. It does not wait for the programs.
func (b *bench) start(ctx context.Context, sup *supervisor, l load) (*session, error) {
	dir, err := b.newDir()
	if err != nil {
		return nil, err
	}
	s := &session{bench: b, sup: sup, load: l, dir: dir, socket: filepath.Join(dir, "s"), ended: make(chan struct{})}
	if s.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.socket, Net: "unixgram"}); err != nil {
		return nil, err
	}
	if l.kind == wild {
		if err := os.WriteFile(s.arena(), make([]byte, arenaSize), 0o600); err != nil {
			return nil, err
		}
	}
	if l.kind == straying {
		if err := os.WriteFile(s.stray(), []byte("#!/bin/sh\n"+strayScript(b.idle, s.socket)+"\n"), 0o700); err != nil {
			return nil, err
		}
	}
	if err := s.launch(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start %s: %w", sup.name, err), s.conn.Close())
	}
	return s, nil
}

func (s *session) launch(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	cmd, err := s.sup.command(s)
	if err != nil {
		return err
	}
	if s.output, err = os.Create(filepath.Join(s.dir, "output")); err != nil {
		return err
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, s.output, s.output
	if cmd.Env == nil {
		cmd.Env = environ()
	}
	// Ctrl-C is for the bench alone. If it is killed, all stop by themselves.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	s.cmd = cmd
	s.client = dial(filepath.Join(s.dir, s.controlSocket()))
	s.begun = now()
	if err := cmd.Start(); err != nil {
		return errors.Join(err, s.output.Close())
	}
	go s.watch() // ends with the supervisor
	return nil
}

func (s *session) controlSocket() string {
	if s.sup.name == nameSupervisord {
		return supervisordSocket
	}
	return pmSocket
}

// watch notes the end of the supervisor, and ends a wait for its programs.
func (s *session) watch() {
	s.exit = s.cmd.Wait()
	s.endedAt = now()
	close(s.ended)
	_ = s.conn.SetReadDeadline(time.Now())
}

// birth is what a program says of its start.
type birth struct {
	pid int
	at  int64
}

// next waits for a program to tell of its start.
func (s *session) next(ctx context.Context) (birth, error) {
	_ = s.conn.SetReadDeadline(time.Now().Add(patience))
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Now()) })
	defer stop()
	select {
	case <-s.ended: // before the deadline was set
		return birth{}, s.failure("it has ended")
	default:
	}
	var message [16]byte
	n, err := s.conn.Read(message[:])
	switch {
	case ctx.Err() != nil:
		return birth{}, context.Cause(ctx)
	case err != nil:
		return birth{}, s.failure(fmt.Sprintf("no program has told of its start: %v", err))
	case n != len(message):
		return birth{}, s.failure(fmt.Sprintf("a program told %d bytes of its start, not %d", n, len(message)))
	}
	return birth{int(binary.NativeEndian.Uint64(message[:])), int64(binary.NativeEndian.Uint64(message[8:]))}, nil
}

// started waits until all programs have started, and returns when the last did.
func (s *session) started(ctx context.Context) (last int64, err error) {
	s.pids = s.pids[:0]
	for range s.load.n {
		r, err := s.next(ctx)
		if err != nil {
			return 0, fmt.Errorf("%w, after %d of %d programs", err, len(s.pids), s.load.n)
		}
		s.pids = append(s.pids, r.pid)
		last = max(last, r.at)
	}
	return last, nil
}

// failure tells what went wrong, and what the supervisor had to say of it.
func (s *session) failure(what string) error {
	var said strings.Builder
	for _, name := range []string{"output", "pm.log", "supervisord.log"} {
		data, err := os.ReadFile(filepath.Join(s.dir, name))
		if err == nil && len(data) > 0 {
			said.WriteString(fmt.Sprintf("\n%s ends with:\n%s", name, data[max(0, len(data)-1000):]))
		}
	}
	return fmt.Errorf("%s with %d programs: %s%s", s.sup.name, s.load.n, what, said.String())
}

// stop has the supervisor stop all programs and end, and returns how long that
// took. A program that outlives its supervisor is a failure.
func (s *session) stop(ctx context.Context) (time.Duration, error) {
	begin := now()
	if err := s.sup.end(ctx, s); err != nil {
		return 0, s.failure("cannot be stopped: " + err.Error())
	}
	if err := s.wait(ctx, patience); err != nil {
		return 0, err
	}
	if s.exit != nil {
		return 0, s.failure("ended badly: " + s.exit.Error())
	}
	left, err := running(s.bench.idle)
	if err == nil && len(left) > 0 {
		err = s.failure(fmt.Sprintf("left %d programs behind", len(left)))
	}
	return time.Duration(s.endedAt - begin), err
}

func (s *session) wait(ctx context.Context, limit time.Duration) error {
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(limit):
		return s.failure(fmt.Sprintf("has not ended after %s", limit))
	}
}

// close ends the session whatever state it is in. Programs that a killed
// supervisor leaves behind are found by sweep.
func (s *session) close() {
	const grace = 5 * time.Second
	select {
	case <-s.ended:
	default:
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		if s.wait(context.Background(), grace) != nil {
			_ = s.cmd.Process.Kill()
			<-s.ended
		}
	}
	s.client.CloseIdleConnections()
	_ = s.conn.Close()
	_ = s.output.Close()
	_ = sweep(s.bench.dir)
}

// processes returns the processes of the supervisor itself.
func (s *session) processes() ([]int, error) {
	if s.sup.name == nameSupervisord { // an interpreter, which others run too
		return []int{s.cmd.Process.Pid}, nil
	}
	if s.sup == s.bench.runit || s.sup == s.bench.s6 {
		all, err := within(s.dir)
		return slices.DeleteFunc(all, func(pid int) bool {
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			return err != nil || exe == s.bench.idle
		}), err
	}
	return running(s.sup.path)
}

// usage is what the supervisor's own processes have used and hold.
func (s *session) usage() (usage, error) {
	pids, err := s.processes()
	if err != nil {
		return usage{}, err
	}
	return measure(pids)
}
