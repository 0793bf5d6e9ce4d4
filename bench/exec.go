package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// execRuns is how often pm exec is run in each round.
const execRuns = 40

// spent is what a command took.
type spent struct {
	wall, cpu time.Duration
	memory    float64 // MiB, at most
}

// run has the helper spawn run a command.
func (h *helper) run(argv ...string) (s spent, err error) {
	if _, err := fmt.Fprintln(h.input, strings.Join(argv, "\t")); err != nil {
		return s, err
	}
	if !h.lines.Scan() {
		return s, errors.New("spawn has ended early")
	}
	var code, cpu, memory int64
	if _, err := fmt.Sscan(h.lines.Text(), &code, (*int64)(&s.wall), &cpu, &memory); err != nil {
		return s, err
	}
	if code != 0 {
		return s, fmt.Errorf("%s ends with %d", strings.Join(argv, " "), code)
	}
	s.cpu, s.memory = time.Duration(cpu)*time.Microsecond, float64(memory)/1024
	return s, nil
}

// spawner starts the helper that runs commands.
func (b *bench) spawner(ctx context.Context) (*helper, error) {
	path := filepath.Join(b.dir, "spawn")
	if err := compile(ctx, spawnSource, path); err != nil {
		return nil, err
	}
	return startServant(ctx, path)
}

// measureExec runs a command that does nothing, under pm exec and under tini, in
// turns.
func measureExec(ctx context.Context, b *bench) error {
	tini, err := exec.LookPath("tini")
	if err != nil {
		b.notes = append(b.notes, "exec has no floor: tini is not installed (apt-get install tini)")
	}
	spawn, err := b.spawner(ctx)
	if err != nil {
		return err
	}
	defer spawn.close()
	return b.inTurns("exec", []*supervisor{b.pm}, func(*supervisor, int) error {
		for range execRuns {
			if err := b.execOnce(spawn, tini); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *bench) execOnce(spawn *helper, tini string) error {
	pm, err := spawn.run(b.pm.path, "exec", "--", "true")
	if err != nil {
		return err
	}
	b.add(rowExec, b.pm, ms(pm.wall))
	b.add(rowExecMemory, b.pm, pm.memory)
	if tini == "" {
		return nil
	}
	floor, err := spawn.run(tini, "-s", "--", "true")
	if err != nil {
		return err
	}
	b.add(rowExec, b.floor, ms(floor.wall))
	b.add(rowExecMemory, b.floor, floor.memory)
	b.add(rowExecExtra, b.pm, ms(pm.wall-floor.wall))
	return nil
}

// measureExecCPU looks at what pm exec does while it has nothing to do.
func measureExecCPU(ctx context.Context, b *bench) error {
	spawn, err := b.spawner(ctx)
	if err != nil {
		return err
	}
	defer spawn.close()
	b.say("exec: a wait of 10 s")
	waited, err := spawn.run(b.pm.path, "exec", "--", "sleep", "10")
	if err == nil {
		b.add(rowExecCPU, b.pm, ms(waited.cpu))
	}
	return err
}
