package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pm.example/proc"
)

// What trees are measured with.
const (
	crowdOfFind = 4000      // other processes
	arenaSize   = 4096      // of the file in which wild processes count themselves
	wildPause   = "1000000" // the longest pause between deeds of a wild process, in µs
)

// measureFind compares how long it takes to find trees of processes, each from
// its root, with nothing known of it before: what pm signal-tree does, here in
// this process.
func measureFind(ctx context.Context, b *bench) error {
	herd, find := filepath.Join(b.dir, "herd"), filepath.Join(b.dir, "find")
	if err := errors.Join(compile(ctx, herdSource, herd), compile(ctx, findSource, find)); err != nil {
		return err
	}
	crowd, err := b.startHerd(ctx, crowdOfFind)
	if err != nil {
		return err
	}
	defer crowd.close()
	for _, t := range []struct {
		row string
		n   int
	}{{rowFind1, 1}, {rowFind100, 100}, {rowFind2000, 2000}} {
		if !b.wants(t.row) {
			continue
		}
		if err := b.findTree(ctx, t.row, t.n); err != nil {
			return err
		}
	}
	return nil
}

// findTree starts a tree of n, and finds it in turns.
func (b *bench) findTree(ctx context.Context, row string, n int) error {
	tree, err := b.startHerd(ctx, n)
	if err != nil {
		return err
	}
	defer tree.close()
	root := tree.cmd.Process.Pid
	floor, err := startServant(ctx, filepath.Join(b.dir, "find"), fmt.Sprint(root))
	if err != nil {
		return err
	}
	defer floor.close()
	return b.inTurns(fmt.Sprintf("find %d processes", n), []*supervisor{b.floor, b.pm}, func(sup *supervisor, _ int) error {
		const looks = 5
		for range looks {
			find := func() (int, time.Duration, error) { return findHere(ctx, root) }
			if sup == b.floor {
				find = floor.find
			}
			found, took, err := find()
			if err == nil && found != n {
				err = fmt.Errorf("%s has found %d processes of %d", sup.name, found, n)
			}
			if err != nil {
				return err
			}
			b.add(row, sup, ms(took))
		}
		return nil
	})
}

// findHere finds a tree as pm does. Signal 0 reaches nobody.
func findHere(ctx context.Context, root int) (found int, took time.Duration, err error) {
	begin := now()
	report, err := proc.SignalTree(ctx, []int{root}, proc.TreeSignal{})
	return len(report.Members), time.Duration(now() - begin), err
}

// helper is a program of the bench's own that runs beside what is measured, and
// writes lines.
type helper struct {
	cmd   *exec.Cmd
	input io.WriteCloser
	lines *bufio.Scanner
}

// startServant starts a helper that answers lines with lines.
func startServant(ctx context.Context, path string, args ...string) (*helper, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = environ()
	input, err1 := cmd.StdinPipe()
	output, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", path, err)
	}
	return &helper{cmd, input, bufio.NewScanner(output)}, nil
}

// startHerd starts n processes and waits until all live.
func (b *bench) startHerd(ctx context.Context, n int) (*helper, error) {
	h, err := startServant(ctx, filepath.Join(b.dir, "herd"), fmt.Sprint(n))
	if err == nil && !h.lines.Scan() {
		h.close()
		err = fmt.Errorf("a herd of %d processes has ended early", n)
	}
	return h, err
}

// find has the finder look once.
func (h *helper) find() (found int, took time.Duration, err error) {
	if _, err := io.WriteString(h.input, "\n"); err != nil {
		return 0, 0, err
	}
	if !h.lines.Scan() {
		return 0, 0, fmt.Errorf("%s has ended early", h.cmd.Path)
	}
	_, err = fmt.Sscan(h.lines.Text(), &found, (*int64)(&took))
	return found, took, err
}

// close ends the helper and all who are like it among its descendants.
func (h *helper) close() {
	_ = h.input.Close()
	_, _ = proc.SignalTree(context.Background(), []int{h.cmd.Process.Pid}, proc.TreeSignal{Signal: syscall.SIGKILL})
	_ = h.cmd.Wait()
}

// measureKill compares how long it takes to kill a tree that withstands every
// other signal and grows while it is killed: pm from POST /v1/stop to the answer.
func measureKill(ctx context.Context, b *bench) error {
	cage := filepath.Join(b.dir, "cage")
	b.adversary = filepath.Join(b.dir, "adversary")
	source, err := os.ReadFile(filepath.Join("proc", "testdata", "adversary.c"))
	if err != nil {
		return fmt.Errorf("cannot build a tree that withstands: %w; run the benchmark in the top directory of pm's sources", err)
	}
	if err := errors.Join(compile(ctx, cageSource, cage), compile(ctx, source, b.adversary)); err != nil {
		return err
	}
	sups := []*supervisor{cageSupervisor(cage), b.pm}
	if _, err := cgroupDir(); err != nil {
		b.notes = append(b.notes, fmt.Sprintf("kill-500 and kill-2000 have no floor: %v", err))
		sups = sups[1:]
	}
	for _, t := range []struct {
		row string
		n   int
	}{{rowKill500, 500}, {rowKill2000, 2000}} {
		if !b.wants(t.row) {
			continue
		}
		err := b.inTurns(fmt.Sprintf("kill %d processes", t.n), sups, func(sup *supervisor, _ int) error {
			return b.with(ctx, sup, load{t.n, wild}, func(s *session, _ time.Duration) error { return s.kill(ctx, t.row) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// kill waits until the tree has grown, and kills it.
func (s *session) kill(ctx context.Context, row string) error {
	if err := s.grown(ctx); err != nil {
		return err
	}
	var (
		took time.Duration
		err  error
	)
	if s.sup == s.bench.pm {
		begin := now()
		err = s.post(ctx, "stop", `{"selectors":["all"]}`, nil)
		took = time.Duration(now() - begin)
	} else {
		took, err = s.stop(ctx)
	}
	if err != nil {
		return s.failure("cannot kill the tree: " + err.Error())
	}
	left, err := running(s.bench.adversary)
	if err == nil && len(left) > 0 {
		err = s.failure(fmt.Sprintf("%d processes have survived", len(left)))
	}
	s.bench.add(row, s.sup, ms(took))
	return err
}

// arena is the file in which a wild program counts its processes.
func (s *session) arena() string { return filepath.Join(s.dir, "arena") }

// grown waits until nine tenths of the wild processes live.
func (s *session) grown(ctx context.Context) error {
	for deadline := time.Now().Add(patience); ; {
		data, err := os.ReadFile(s.arena())
		const livingAt = 4 // the second word
		if err == nil && len(data) >= 2*livingAt && int(binary.NativeEndian.Uint32(data[livingAt:])) >= s.load.n*9/10 {
			return nil
		}
		if err != nil || time.Now().After(deadline) {
			return s.failure(fmt.Sprintf("the tree has not grown to %d processes: %v", s.load.n, err))
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// cgroupDir returns the directory of this process's cgroup of version 2.
func cgroupDir() (string, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(own)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			dir := filepath.Join(mount, path)
			if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
				return dir, nil
			}
		}
	}
	return "", errors.New("there are no cgroups of version 2")
}
