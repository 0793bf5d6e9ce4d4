package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How often and how long things are measured.
const (
	replacements           = 200 // deaths of each row, for floor and pm
	replacementsSupervisor = 10  // in each round; each takes about a second
	pause                  = 2 * time.Millisecond
	settle                 = 5 * time.Second // of quiet before a look at idle and memory
	idleTime               = 10 * time.Second
	crashWarmUp            = time.Second
	crashTime              = 5 * time.Second
	statusCommands         = 50
	statusRequests         = 500
)

// scenario is a course of events that yields the figures of some rows.
type scenario struct {
	rows    []string
	measure func(ctx context.Context, b *bench) error
}

func scenarios() []scenario {
	return []scenario{
		{[]string{rowStart, rowStop, rowShutdown, rowReplace1000, rowIdleSwitches, rowIdleCPU}, measureThousand},
		{[]string{rowStartKept, rowShutdownKept}, measureKept},
		{[]string{rowReplace1}, measureReplaceOne},
		{[]string{rowRunning4000, rowRunningTime, rowThreads4000, rowPSS1000, rowPSS4000}, measureDefaults},
		{[]string{rowCrashCPU, rowCrashRate}, measureCrash},
		{[]string{rowStatusClient, rowStatusServer}, measureStatus},
		{[]string{rowFind1, rowFind100, rowFind2000}, measureFind},
		{[]string{rowKill500, rowKill2000}, measureKill},
		{[]string{rowCapture}, measureCapture},
		{[]string{rowExec, rowExecExtra, rowExecMemory}, measureExec},
		{[]string{rowExecCPU}, measureExecCPU},
		{[]string{rowKeptMain, rowExtraMain, rowKeptAll, rowExtraAll}, measureSurvival},
		{[]string{rowControl}, measureControl},
		{[]string{rowStrays}, measureStrays},
		{[]string{rowStart10000, rowPSS10000, rowThreads10000, rowStatus10000, rowReload10000, rowReplace10000, rowStop10000}, measureTenThousand},
	}
}

// inTurns runs a measurement for floor, pm, floor, pm … and, in the first
// rounds, for supervisor if it is among the given.
func (b *bench) inTurns(what string, sups []*supervisor, do func(s *supervisor, round int) error) error {
	for round := range max(b.rounds, b.supervisorRounds) {
		for _, s := range sups {
			rounds := b.rounds
			if s != nil && s.name != nameFloor && s != b.pm {
				rounds = b.supervisorRounds
			}
			if s == nil || round >= rounds {
				continue
			}
			b.say("%s: %s, round %d of %d", what, s.name, round+1, rounds)
			if err := do(s, round); err != nil {
				return err
			}
		}
	}
	return nil
}

// all lists those that take part; all but the first two may be nil.
func (b *bench) all() []*supervisor {
	return []*supervisor{b.floor, b.pm, b.supervisord, b.runit, b.s6}
}

// with runs a session around a measurement. When the measurement is done, the
// programs have started and the supervisor may still run, or not.
func (b *bench) with(ctx context.Context, sup *supervisor, l load, do func(s *session, start time.Duration) error) error {
	s, err := b.start(ctx, sup, l)
	if err != nil {
		return err
	}
	defer s.close()
	if l.kind == crash || l.kind == wild {
		return do(s, 0)
	}
	last, err := s.started(ctx)
	if err != nil {
		return err
	}
	return do(s, time.Duration(last-s.begun))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// sleep waits, or ends early with the reason why ctx has ended.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// measureThousand starts 1,000 programs, kills some of them one after the
// other, looks on while nothing happens, and stops all.
func measureThousand(ctx context.Context, b *bench) error {
	return b.inTurns("1,000 programs", b.all(), func(sup *supervisor, round int) error {
		return b.with(ctx, sup, load{programsOfStart, plain}, func(s *session, start time.Duration) error {
			b.add(rowStart, sup, ms(start))
			if b.wants(rowReplace1000) {
				if err := s.replace(ctx, rowReplace1000); err != nil {
					return err
				}
			}
			if round == 0 && b.wants(rowIdleSwitches, rowIdleCPU) {
				if err := s.idle(ctx); err != nil {
					return err
				}
			}
			if !b.wants(rowStop, rowShutdown) || sup == b.runit { // whose head does not wait for its limbs
				return nil
			}
			return s.stopBothWays(ctx)
		})
	})
}

// stopBothWays stops the programs: pm's first by the API, and then, started
// once more, with the daemon. The others know the latter only.
func (s *session) stopBothWays(ctx context.Context) error {
	if s.sup == s.bench.pm {
		took, err := s.stopAll(ctx)
		if err != nil {
			return err
		}
		s.bench.add(rowStop, s.sup, ms(took))
		if err := s.post(ctx, "start", `{"selectors":["all"]}`, nil); err != nil {
			return s.failure("cannot start all: " + err.Error())
		}
		if _, err := s.started(ctx); err != nil {
			return err
		}
	}
	took, err := s.stop(ctx)
	if err != nil {
		return err
	}
	s.bench.add(rowShutdown, s.sup, ms(took))
	if s.sup != s.bench.pm {
		s.bench.add(rowStop, s.sup, ms(took))
	}
	return nil
}

// stopAll is what pm stop all asks of the daemon.
func (s *session) stopAll(ctx context.Context) (time.Duration, error) {
	var answer struct {
		Results []struct {
			Instance, State, Message string
			Code                     int
		}
	}
	begin := now()
	if err := s.post(ctx, "stop", `{"selectors":["all"]}`, &answer); err != nil {
		return 0, s.failure("cannot stop all: " + err.Error())
	}
	took := time.Duration(now() - begin)
	for _, r := range answer.Results {
		if r.Code != 0 || r.State != "STOPPED" {
			return 0, s.failure(fmt.Sprintf("%s is %s after it was stopped: %s", r.Instance, r.State, r.Message))
		}
	}
	left, err := running(s.bench.idle)
	if err == nil && (len(left) > 0 || len(answer.Results) != s.load.n) {
		err = s.failure(fmt.Sprintf("stopped %d programs, and %d are left", len(answer.Results), len(left)))
	}
	return took, err
}

// replace kills programs and notes how long after each the next one runs.
func (s *session) replace(ctx context.Context, row string) error {
	n := (replacements + s.bench.rounds - 1) / s.bench.rounds
	if s.sup != s.bench.floor && s.sup != s.bench.pm {
		n = replacementsSupervisor
	}
	for i := range n {
		// It finds the supervisor at rest.
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		victim := i * 7919 % len(s.pids)
		begin := now()
		if err := syscall.Kill(s.pids[victim], syscall.SIGKILL); err != nil {
			return s.failure(fmt.Sprintf("cannot kill program %d: %v", s.pids[victim], err))
		}
		r, err := s.next(ctx)
		if err != nil {
			return err
		}
		s.pids[victim] = r.pid
		s.bench.add(row, s.sup, us(time.Duration(r.at-begin)))
	}
	return nil
}

// idle looks on while nothing happens.
func (s *session) idle(ctx context.Context) error {
	s.client.CloseIdleConnections()
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	before, err := s.usage()
	if err != nil {
		return err
	}
	begin := now()
	if err := sleep(ctx, idleTime); err != nil {
		return err
	}
	seconds := time.Duration(now() - begin).Seconds()
	after, err := s.usage()
	if err != nil {
		return err
	}
	s.bench.add(rowIdleSwitches, s.sup, float64(after.switches-before.switches)/seconds)
	s.bench.add(rowIdleCPU, s.sup, ms(after.cpu-before.cpu))
	return nil
}

// measureKept is about pm's default: two pipes for each program. Floor has no
// output to keep; supervisor does it with files, which would be another thing.
func measureKept(ctx context.Context, b *bench) error {
	return b.inTurns("1,000 programs, output kept", []*supervisor{b.floor, b.pm}, func(sup *supervisor, _ int) error {
		return b.with(ctx, sup, load{programsOfStart, kept}, func(s *session, start time.Duration) error {
			b.add(rowStartKept, sup, ms(start))
			took, err := s.stop(ctx)
			if err != nil {
				return err
			}
			b.add(rowShutdownKept, sup, ms(took))
			return nil
		})
	})
}

func measureReplaceOne(ctx context.Context, b *bench) error {
	return b.inTurns("1 program", b.all(), func(sup *supervisor, _ int) error {
		return b.with(ctx, sup, load{1, plain}, func(s *session, _ time.Duration) error {
			return s.replace(ctx, rowReplace1)
		})
	})
}

// measureDefaults looks at what many programs cost a daemon that has been told
// nothing but what to run.
func measureDefaults(ctx context.Context, b *bench) error {
	for _, n := range []int{programsOfStart, programsOfDefault} {
		if n == programsOfStart && !b.wants(rowPSS1000) || n == programsOfDefault && !b.wants(rowRunning4000, rowRunningTime, rowThreads4000, rowPSS4000) {
			continue
		}
		b.say("default settings: pm with %d programs", n)
		err := b.with(ctx, b.pm, load{n, defaults}, func(s *session, _ time.Duration) error { return s.defaults(ctx) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) defaults(ctx context.Context) error {
	body := fmt.Sprintf(`{"selectors":["all"],"for":"running","timeout_seconds":%g}`, patience.Seconds())
	if err := s.post(ctx, "wait", body, nil); err != nil {
		return s.failure("not all are running: " + err.Error())
	}
	took := time.Duration(now() - s.begun)
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	s.client.CloseIdleConnections()
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	u, err := s.usage()
	if err != nil {
		return err
	}
	pss := float64(u.pss) / 1024 / float64(s.load.n)
	if s.load.n == programsOfStart {
		s.bench.add(rowPSS1000, s.sup, pss)
		return nil
	}
	s.bench.add(rowPSS4000, s.sup, pss)
	s.bench.add(rowRunning4000, s.sup, float64(st.running()))
	s.bench.add(rowRunningTime, s.sup, ms(took))
	s.bench.add(rowThreads4000, s.sup, float64(u.threads))
	return nil
}

// status is what the bench reads of pm's status.
type status struct {
	Daemon    struct{ PID int }
	Instances []struct {
		State    string
		Restarts int
	}
}

func (s *session) status(ctx context.Context) (status, error) {
	var st status
	data, err := s.get(ctx, "status")
	if err == nil {
		err = json.Unmarshal(data, &st)
	}
	if err != nil {
		return st, s.failure("cannot tell its status: " + err.Error())
	}
	return st, nil
}

func (st status) running() (n int) {
	for _, i := range st.Instances {
		if i.State == "RUNNING" {
			n++
		}
	}
	return n
}

func (st status) restarts() (n int) {
	for _, i := range st.Instances {
		n += i.Restarts
	}
	return n
}

// measureCrash compares what a start costs when that is all there is to do.
// Supervisor gives up after a few attempts, so it has no figure.
func measureCrash(ctx context.Context, b *bench) error {
	for _, sup := range []*supervisor{b.floor, b.pm} {
		b.say("200 programs in a crash loop: %s", sup.name)
		err := b.with(ctx, sup, load{programsOfCrash, crash}, func(s *session, _ time.Duration) error {
			if sup == b.floor {
				return s.crashFloor(ctx)
			}
			return s.crashPM(ctx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) crashPM(ctx context.Context) error {
	if err := sleep(ctx, crashWarmUp); err != nil {
		return err
	}
	before, err := s.restarts(ctx)
	if err != nil {
		return err
	}
	if err := sleep(ctx, crashTime); err != nil {
		return err
	}
	after, err := s.restarts(ctx)
	if err != nil {
		return err
	}
	if _, err := s.stop(ctx); err != nil {
		return err
	}
	return s.addCrash(after.starts-before.starts, after.cpu-before.cpu, time.Duration(after.at-before.at))
}

// moment is how far a crash loop has come.
type moment struct {
	at     int64
	starts int
	cpu    time.Duration
}

func (s *session) restarts(ctx context.Context) (moment, error) {
	st, err := s.status(ctx)
	if err != nil {
		return moment{}, err
	}
	u, err := s.usage()
	return moment{now(), st.restarts(), u.cpu}, err
}

// crashFloor reads how often floor has started its programs from what it says
// at its end.
func (s *session) crashFloor(ctx context.Context) error {
	if err := sleep(ctx, crashTime); err != nil {
		return err
	}
	u, err := s.usage()
	if err != nil {
		return err
	}
	took := time.Duration(now() - s.begun)
	if _, err := s.stop(ctx); err != nil {
		return err
	}
	data, err := os.ReadFile(s.output.Name())
	if err != nil {
		return err
	}
	starts, err := startsOfFloor(data)
	if err != nil {
		return err
	}
	return s.addCrash(starts, u.cpu, took)
}

func startsOfFloor(output []byte) (int, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(string(output)), "started ")
	n, err := strconv.Atoi(text)
	if !ok || err != nil {
		return 0, fmt.Errorf("floor ends with %q, not with the number of its starts", output)
	}
	return n, nil
}

func (s *session) addCrash(starts int, cpu, took time.Duration) error {
	if starts < programsOfCrash {
		return s.failure(fmt.Sprintf("only %d starts in %s", starts, took))
	}
	s.bench.add(rowCrashCPU, s.sup, ms(cpu)/float64(starts))
	s.bench.add(rowCrashRate, s.sup, float64(starts)/took.Seconds())
	return nil
}

// measureStatus asks what runs: with the command, and with the request that is
// all the daemon sees of it.
func measureStatus(ctx context.Context, b *bench) error {
	sups := []*supervisor{b.pm}
	if b.supervisord != nil {
		sups = append(sups, b.supervisord)
	}
	for _, sup := range sups {
		b.say("status of 100 programs: %s", sup.name)
		err := b.with(ctx, sup, load{programsOfStatus, plain}, func(s *session, _ time.Duration) error {
			if err := s.statusRequests(ctx); err != nil {
				return err
			}
			return s.statusCommands(ctx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) statusRequests(ctx context.Context) error {
	if !s.bench.wants(rowStatusServer) {
		return nil
	}
	for range statusRequests {
		begin := now()
		var err error
		if s.sup == s.bench.pm {
			_, err = s.get(ctx, "status")
		} else {
			_, err = s.call(ctx, "supervisor.getAllProcessInfo")
		}
		if err != nil {
			return s.failure("cannot tell its status: " + err.Error())
		}
		s.bench.add(rowStatusServer, s.sup, ms(time.Duration(now()-begin)))
	}
	return nil
}

func (s *session) statusCommands(ctx context.Context) error {
	if !s.bench.wants(rowStatusClient) {
		return nil
	}
	n := statusCommands
	if s.sup == s.bench.supervisord {
		n /= 5
	}
	for range n {
		cmd := exec.CommandContext(ctx, s.sup.path, "status", "--json")
		cmd.Env = append(environ(), pmEnv(s))
		if s.sup == s.bench.supervisord {
			cmd = exec.CommandContext(ctx, "supervisorctl", "-c", filepath.Join(s.dir, "supervisord.conf"), "status")
			cmd.Env = environ()
		}
		begin := now()
		out, err := cmd.Output()
		if err != nil {
			return s.failure(fmt.Sprintf("cannot run %s: %v", strings.Join(cmd.Args, " "), errors.Join(err, stderrOf(err))))
		}
		s.bench.add(rowStatusClient, s.sup, ms(time.Duration(now()-begin)))
		if lines := strings.Count(string(out), "RUNNING"); lines < s.load.n {
			return s.failure(fmt.Sprintf("%s tells of %d running programs", strings.Join(cmd.Args, " "), lines))
		}
	}
	return nil
}

// stderrOf returns what a command said of its failure.
func stderrOf(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) || len(exit.Stderr) == 0 {
		return nil
	}
	return errors.New(strings.TrimSpace(string(exit.Stderr)))
}
