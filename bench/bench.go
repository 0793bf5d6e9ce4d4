package main

import (
	"context"
	_ "embed" // the sources of what is built
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

var (
	//go:embed floor/floor.c
	floorSource []byte
	//go:embed idle/idle.c
	idleSource []byte
	//go:embed herd/herd.c
	herdSource []byte
	//go:embed find/find.c
	findSource []byte
	//go:embed cage/cage.c
	cageSource []byte
	//go:embed spawn/spawn.c
	spawnSource []byte
	//go:embed copy/copy.c
	copySource []byte
	//go:embed print/print.c
	printSource []byte
)

// bench is one run: its directory, what it measures and what it has found.
type bench struct {
	options
	dir         string // of everything, removed at the end
	idle        string // path of the supervised program
	adversary   string // path of one that does not want to end
	printer     string // path of one that prints much
	printed     int    // MiB that it prints
	floor, pm   *supervisor
	supervisord *supervisor // nil, like the next: not installed, or not wanted
	runit, s6   *supervisor
	notes       []string
	progress    io.Writer
	sessions    int
	samples     map[string]map[string][]float64 // by row and supervisor
}

// newBench makes the directory and the programs in it. pm is copied, so that
// whatever runs from this directory belongs to this run and to nothing else.
func newBench(ctx context.Context, o options, progress io.Writer) (*bench, error) {
	dir, err := os.MkdirTemp("", "pm-bench-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a directory to work in: %w", err)
	}
	b := &bench{options: o, dir: dir, idle: filepath.Join(dir, "idle"), printed: printedMiB, progress: progress, samples: map[string]map[string][]float64{}}
	if err := b.build(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) build(ctx context.Context) error {
	floor, pm := filepath.Join(b.dir, "floor"), filepath.Join(b.dir, "pm")
	if err := compile(ctx, floorSource, floor); err != nil {
		return err
	}
	// Without a C library, and so without the calls that gcc makes of loops.
	bare := []string{"-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-tree-loop-distribute-patterns", "-fno-asynchronous-unwind-tables"}
	if err := compile(ctx, idleSource, b.idle, bare...); err != nil {
		return err
	}
	if err := copyProgram(b.options.pm, pm); err != nil {
		return fmt.Errorf("cannot use the pm to be measured: %w; build it with make build, or name it with -pm", err)
	}
	b.floor, b.pm = floorSupervisor(floor), pmSupervisor(pm)
	if b.supervisorRounds == 0 {
		return nil
	}
	b.findPeers()
	return nil
}

// compile makes a static program of a C source.
func compile(ctx context.Context, source []byte, path string, flags ...string) error {
	if err := os.WriteFile(path+".c", source, 0o600); err != nil {
		return err
	}
	args := slices.Concat([]string{"-O2", "-static"}, flags, []string{"-o", path, path + ".c"})
	out, err := exec.CommandContext(ctx, "cc", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cannot compile %s.c: %w\n%s", filepath.Base(path), err, out)
	}
	return nil
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// close ends what still runs from the directory, and removes it.
func (b *bench) close() error {
	return errors.Join(sweep(b.dir), os.RemoveAll(b.dir))
}

// measure goes through all scenarios. One that fails costs only its own rows.
func (b *bench) measure(ctx context.Context) error {
	var failed []error
	for _, s := range scenarios() {
		if !b.wants(s.rows...) {
			continue
		}
		err := s.measure(ctx, b)
		if ctx.Err() != nil {
			return errors.Join(append(failed, context.Cause(ctx))...)
		}
		if err != nil {
			b.say("%v", err)
			b.notes = append(b.notes, fmt.Sprintf("not all of %s could be measured", strings.Join(s.rows, ", ")))
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// wants reports whether one of the rows is to be measured.
func (b *bench) wants(rows ...string) bool { return slices.ContainsFunc(rows, b.only.MatchString) }

// add notes a sample of a row.
func (b *bench) add(row string, s *supervisor, values ...float64) {
	if b.samples[row] == nil {
		b.samples[row] = map[string][]float64{}
	}
	b.samples[row][s.name] = append(b.samples[row][s.name], values...)
}

// say tells how far the run is.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, "bench: "+format+"\n", args...)
}

// newDir makes the directory of the next session.
func (b *bench) newDir() (string, error) {
	b.sessions++
	dir := filepath.Join(b.dir, strconv.Itoa(b.sessions))
	return dir, os.Mkdir(dir, 0o700)
}
