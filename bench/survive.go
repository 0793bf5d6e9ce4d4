package main

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// What becomes of programs when their supervisor is killed, and of processes that
// have left their programs when the supervisor stops.

const (
	programsOfSurvival = 20
	// recovery is how long a supervisor that was started again has to do what it
	// does. All of them look at least every five seconds.
	recovery = 7 * time.Second
)

// measureSurvival kills the main process of a supervisor, or all of its processes,
// starts it again as a service manager would, and counts.
func measureSurvival(ctx context.Context, b *bench) error {
	for _, sup := range b.all() {
		if sup == nil || sup == b.floor {
			continue
		}
		for _, all := range []bool{false, true} {
			b.say("%d programs, %s killed (all of it: %v)", programsOfSurvival, sup.name, all)
			err := b.with(ctx, sup, load{programsOfSurvival, plain}, func(s *session, _ time.Duration) error {
				return s.survive(ctx, all)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) survive(ctx context.Context, all bool) error {
	kept, extra := rowKeptMain, rowExtraMain
	victims := []int{s.cmd.Process.Pid}
	if all {
		kept, extra = rowKeptAll, rowExtraAll
		own, err := s.processes()
		if err != nil {
			return err
		}
		victims = own
	}
	for _, pid := range victims {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err := s.wait(ctx, patience); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	if err := s.launch(ctx); err != nil {
		return err
	}
	if err := sleep(ctx, recovery); err != nil {
		return err
	}
	now, err := running(s.bench.idle)
	if err != nil {
		return err
	}
	same := 0
	for _, pid := range s.pids {
		if slices.Contains(now, pid) {
			same++
		}
	}
	s.bench.add(kept, s.sup, float64(same))
	s.bench.add(extra, s.sup, float64(len(now)-s.load.n))
	return nil
}

// workersKilled is so many that the keeper starts each of the next ones at once.
const workersKilled = 4

// measureControl kills pm's worker, and looks how soon the next one answers.
func measureControl(ctx context.Context, b *bench) error {
	b.say("1,000 programs, the worker of pm killed")
	return b.with(ctx, b.pm, load{programsOfStart, kept}, func(s *session, _ time.Duration) error {
		for range workersKilled {
			if err := sleep(ctx, pause); err != nil {
				return err
			}
			before, err := s.status(ctx)
			if err != nil {
				return err
			}
			begin := now()
			if err := syscall.Kill(before.Daemon.PID, syscall.SIGKILL); err != nil {
				return s.failure(fmt.Sprintf("cannot kill worker %d: %v", before.Daemon.PID, err))
			}
			for {
				after, err := s.status(ctx)
				if err == nil && after.Daemon.PID != before.Daemon.PID {
					break
				}
				if err := sleep(ctx, pause/4); err != nil {
					return err
				}
			}
			b.add(rowControl, b.pm, ms(time.Duration(now()-begin)))
		}
		return nil
	})
}

// measureStrays stops programs that each have left a process in a session of its
// own, as daemons do, and counts what is left.
func measureStrays(ctx context.Context, b *bench) error {
	for _, sup := range b.all() {
		if sup == nil || sup == b.floor {
			continue
		}
		b.say("%d programs with strays: %s", programsOfSurvival, sup.name)
		err := b.with(ctx, sup, load{programsOfSurvival, straying}, func(s *session, _ time.Duration) error {
			return s.strays(ctx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) strays(ctx context.Context) error {
	for range s.load.n { // each program starts two; the first half has told of itself
		if _, err := s.next(ctx); err != nil {
			return err
		}
	}
	if err := s.sup.end(ctx, s); err != nil {
		return s.failure("cannot be stopped: " + err.Error())
	}
	if err := s.wait(ctx, patience); err != nil {
		return err
	}
	if err := sleep(ctx, settle); err != nil { // runit's processes go on stopping
		return err
	}
	left, err := running(s.bench.idle)
	if err != nil {
		return err
	}
	s.bench.add(rowStrays, s.sup, float64(len(left)))
	return nil
}

// strayScript starts a process that leaves, and becomes the program.
func strayScript(idle, socket string) string {
	return fmt.Sprintf("setsid %[1]s %[2]s & exec %[1]s %[2]s", idle, socket)
}
