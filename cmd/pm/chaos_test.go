package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pm.example/socket"
)

var (
	chaosRounds = flag.Int("chaos-rounds", 15, "rounds of TestChaos")
	chaosSeed   = flag.Uint64("chaos-seed", 0, "repeat what TestChaos did with this seed; 0: something new")
	chaosClock  = flag.Bool("chaos-clock", false, "TestChaos also sets the clock of the machine, for moments, which takes privilege")
)

// TestChaos does violence to a daemon, at any instant: it kills and freezes the
// worker, the keeper and programs while commands are carried out. After each
// round it waits until pm says that all is as it should be, and then compares
// what pm says with what the kernel and the programs themselves say.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("chaos takes its time")
	}
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to repeat it: go test ./cmd/pm -run Chaos -chaos-rounds %d -chaos-seed %d", *chaosRounds, seed)
	c := newChaos(t, seed)
	c.startDaemon()
	c.settle()
	for c.round = 1; c.round <= *chaosRounds; c.round++ {
		c.play()
		c.check(c.settle())
		if c.round%tellEvery == 0 {
			c.tellSoFar(c.round)
		}
	}
	c.end()
}

// tellEvery is after how many rounds whoever waits for them is told how it goes.
const tellEvery = 100

func (c *chaos) tellSoFar(rounds int) {
	c.t.Logf("%d rounds, the daemon's processes killed %d times; %d tasks, %d ends told right, %d of them unknown",
		rounds, c.kills, len(c.judge.tasks), c.judge.right, c.judge.unknown)
}

// chaos is one run of the test.
type chaos struct {
	t      *testing.T
	dir    string
	config string
	env    []string
	random *rand.Rand // what is done depends on it alone
	client *socket.Client
	kills  int // of the daemon's processes

	smallDisk bool   // the state directory has a disk of its own
	crowd     string // the cgroup that bounds the number of processes; empty: none

	round   int
	variant int               // of the configuration file
	blind   bool              // in this round nobody of the daemon lived for a while
	struck  map[role]int      // how many of the daemon's processes were ended in this round
	lacked  map[shortage]bool // what the daemon lacked in this round
	judge   judge

	diskFull time.Time // when it last was

	mu      sync.Mutex      // guards what the steps of a round write
	trace   []string        // what they did
	touched map[string]bool // programs that they may have stopped
	dying   []int           // processes of the daemon that they have killed
	hits    map[run]map[string]bool
}

// run is one life of an instance.
type run struct {
	instance string
	pid      int
}

// step is one act of violence, whose choices are made beforehand.
type step struct {
	text string
	do   func()
}

func newChaos(t *testing.T, seed uint64) *chaos {
	dir := t.TempDir()
	short, err := os.MkdirTemp(shortTemp(), "pm")
	if err != nil {
		t.Fatal(err)
	}
	c := &chaos{
		t: t, dir: dir, config: filepath.Join(dir, "pm.toml"), random: rand.New(rand.NewPCG(seed, 0)),
		client: socket.Dial(filepath.Join(short, "s")), hits: map[run]map[string]bool{}, touched: map[string]bool{},
		struck: map[role]int{}, lacked: map[shortage]bool{},
	}
	c.env = append(os.Environ(), "PM_SCRIPT="+dir, "PM_WITNESS="+dir, "PM_SOCKET="+filepath.Join(short, "s"),
		"PM_STATE_DIR="+filepath.Join(dir, "state"), fmt.Sprintf("%s=%d", testerEnv, os.Getpid()))
	c.judge = newJudge(c)
	c.writeConfig()
	c.mountSmallDisk()
	c.makeCrowd()
	t.Cleanup(func() {
		if t.Failed() {
			c.tellStory()
		}
		noneLeft(t, dir)
		_ = os.RemoveAll(short)
	})
	return c
}

// chaosPrograms are what the daemon keeps: each shows another behavior. The
// waits are short, and nothing is restarted too often.
const chaosPrograms = `
[programs.steady]
cmd = "actor on=USR1:quit=3 witness"
numprocs = 3
autorestart = "always"
[programs.polite]
cmd = "actor on=TERM:quit=0 on=USR1:quit=4 witness"
stdout = "polite.log"
autorestart = "always"
exitcodes = [0, 4]
env = { VARIANT = "%d" }
[programs.rotated]
cmd = "actor on=USR1:quit=3 witness"
stdout = "rotated.log"
autorestart = "always"
logs.rotate = "8K"
logs.files = 9
[programs.prefixed]
cmd = "actor on=USR1:quit=3 witness"
stdout = "prefixed.log"
autorestart = "always"
logs.prefix = "{instance}/{stream}: "
[programs.once]
cmd = "actor on=USR1:quit=5 witness"
autorestart = "never"
[programs.choosy]
cmd = "actor on=USR1:quit=6 on=USR2:quit=7 witness"
exitcodes = [6]
[programs.deaf]
cmd = "actor ignore=TERM on=USR1:quit=8 witness"
autorestart = "always"
stoptime = "0.1s"
[programs.family]
cmd = "actor fork=1 setsid=ignore=TERM on=USR1:quit=9 witness"
autorestart = "always"
stoptime = "0.2s"
[programs.restless]
cmd = "actor witness restless"
autorestart = "always"
numprocs = 2
[programs.hasty]
cmd = "actor witness quit=10"
starttime = "1m"
startretries = 2
`

const chaosExtra = `
[programs.extra]
cmd = "actor witness"
`

// always are the programs that run whenever they are meant to.
var always = []string{"steady", "polite", "rotated", "prefixed", "deaf", "family", "restless"}

// writeConfig writes the file in one of its variants.
func (c *chaos) writeConfig() {
	text := fmt.Sprintf(chaosPrograms, c.variant)
	if c.variant%2 == 1 {
		text += chaosExtra
	}
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(line)
		if strings.HasPrefix(line, "[programs.") {
			if !strings.Contains(line, "hasty") {
				out.WriteString("starttime = 0\n")
			}
			out.WriteString("backoff.burst = 0\nbackoff.initial = \"0.05s\"\nbackoff.max = \"0.1s\"\n")
		}
	}
	if err := writeWhole(c.config, out.String()); err != nil {
		c.t.Fatal(err)
	}
}

// writeWhole writes a file so that nobody sees half of it.
func writeWhole(path, text string) error {
	if err := os.WriteFile(path+".new", []byte(text), 0o666); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// did notes what was done, for whoever reads of a failure.
func (c *chaos) did(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trace = append(c.trace, fmt.Sprintf("%s round %d: ", time.Now().Format("05.000"), c.round)+fmt.Sprintf(format, args...))
}

// tellStory prints what was done of late, the end of the daemon's log, and what
// its processes were just doing.
func (c *chaos) tellStory() {
	c.strike(worker, unix.SIGQUIT)
	deadline := time.Now().Add(time.Second)
	for n := len(c.daemon(worker)); len(c.daemon(worker)) == n && time.Now().Before(deadline); {
		<-time.After(pollEvery)
	}
	c.strike(keeper, unix.SIGQUIT)
	for len(c.daemon(keeper)) > 0 && time.Now().Before(deadline) {
		<-time.After(pollEvery)
	}
	c.t.Logf("of late:\n%s", strings.Join(c.trace[max(0, len(c.trace)-30):], "\n"))
	for _, name := range []string{"log", "stderr"} {
		data, _ := os.ReadFile(filepath.Join(c.dir, name))
		c.t.Logf("%s:\n%s", name, data[max(0, len(data)-30000):])
	}
}

// startDaemon starts a daemon where none lives.
func (c *chaos) startDaemon() {
	stderr, err := os.OpenFile(filepath.Join(c.dir, "stderr"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = stderr.Close() }()
	cmd := exec.Command("pm", "daemon", "-c", c.config, "--log", filepath.Join(c.dir, "log"))
	cmd.Dir, cmd.Env, cmd.Stderr = c.dir, c.env, stderr
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.join(cmd.Process.Pid)
	c.did("daemon %d", cmd.Process.Pid)
	go func() { _ = cmd.Wait() }() // ends with the daemon
}

// end shuts the daemon down; nothing may be left.
func (c *chaos) end() {
	if code, text := c.pm("shutdown"); code != 0 {
		c.t.Errorf("pm shutdown: exit %d: %s", code, text)
	}
	deadline := time.Now().Add(patience)
	for len(processesOf(c.dir)) > 0 && time.Now().Before(deadline) {
		<-time.After(pollEvery)
	}
	c.tellSoFar(c.round - 1)
}

// play does one to three things, one after the other or all at once, and waits
// until who was killed is dead: that takes longest where the machine is busy, and
// belongs to the round.
func (c *chaos) play() {
	defer c.awaitDeaths()
	c.blind = false
	clear(c.touched)
	clear(c.struck)
	clear(c.lacked)
	steps := make([]step, 1+c.random.IntN(3))
	for n := range steps {
		steps[n] = c.choose()
	}
	if c.random.IntN(3) == 0 {
		for _, s := range steps {
			c.did("%s", s.text)
			s.do()
		}
		return
	}
	var all sync.WaitGroup
	for _, s := range steps {
		after := time.Duration(c.random.IntN(80)) * time.Millisecond
		c.did("%s, after %s", s.text, after)
		all.Go(func() { // ends with the step
			<-time.After(after)
			s.do()
		})
	}
	all.Wait()
}

func (c *chaos) awaitDeaths() {
	deadline := time.Now().Add(patience)
	for _, pid := range c.dying {
		for _, lives := roleOf(pid); lives && time.Now().Before(deadline); _, lives = roleOf(pid) {
			<-time.After(pollEvery)
		}
	}
	c.dying = nil
}

// choose returns something to do.
func (c *chaos) choose() step {
	if *chaosClock && c.random.IntN(10) == 0 {
		return c.jumpClock()
	}
	switch n := c.random.IntN(100); {
	case n < 22:
		return c.killHalf("worker", worker)
	case n < 34:
		return c.killHalf("keeper", keeper)
	case n < 42:
		return step{"kill all of the daemon", c.killAll}
	case n < 48:
		return c.freeze("worker", worker)
	case n < 54:
		return c.freeze("keeper", keeper)
	case n < 66:
		return c.hit(pick(c.random, unix.SIGKILL, unix.SIGHUP, unix.SIGTERM))
	case n < 76:
		return c.hit(pick(c.random, unix.SIGUSR1, unix.SIGUSR2))
	case n < 88:
		return c.command()
	case n < 94:
		return c.shorten()
	case n < 97:
		return c.reload()
	default:
		return c.upgrade()
	}
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// A role is what a process of the daemon does.
type role int

const (
	keeper role = iota
	worker
)

// daemon lists the living processes of the daemon that have the role.
func (c *chaos) daemon(want role) (list []int) {
	for _, pid := range processesOf(c.dir) {
		if is, ok := roleOf(pid); ok && is == want {
			list = append(list, pid)
		}
	}
	return list
}

// roleOf tells what a process does for the daemon, if it is one of its.
func roleOf(pid int) (role, bool) {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if !bytes.HasPrefix(line, []byte("pm\x00daemon\x00")) {
		return 0, false
	}
	environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if bytes.Contains(environ, []byte("\x00PM_WORKER=")) {
		return worker, true
	}
	return keeper, true
}

// signalPID signals a process, unless it has become another.
func signalPID(pid int, sig syscall.Signal, still func() bool) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return still() && unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// strike signals the daemon's processes of a role.
func (c *chaos) strike(want role, sig syscall.Signal) (hit []int) {
	for _, pid := range c.daemon(want) {
		if signalPID(pid, sig, func() bool { is, ok := roleOf(pid); return ok && is == want }) {
			hit = append(hit, pid)
		}
	}
	if sig == unix.SIGKILL {
		c.mu.Lock()
		c.dying = append(c.dying, hit...)
		c.mu.Unlock()
	}
	return hit
}

func (c *chaos) killHalf(name string, r role) step {
	return step{"kill the " + name, func() {
		hit := c.strike(r, unix.SIGKILL)
		c.count(r, len(hit))
		c.did("killed the %s %v", name, hit)
	}}
}

func (c *chaos) count(r role, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kills += n
	c.struck[r] += n
}

// revive starts a daemon if the last one was killed in both halves, so soon one
// after the other that neither could start the other.
func (c *chaos) revive() {
	if c.struck[keeper]+c.struck[worker] > 1 && !c.alive() {
		c.did("both halves are dead")
		clear(c.struck)
		c.killAll()
	}
}

// alive reports whether any process of the daemon lives, or is being started.
func (c *chaos) alive() bool {
	for range 3 {
		if c.locked() || len(c.daemon(keeper))+len(c.daemon(worker)) > 0 {
			return true
		}
	}
	return false
}

// chaseTime is how long killAll may run after halves of the daemon that replace each
// other faster than the test finds them, as where processes are many.
const chaseTime = 2 * time.Second

// killAll kills every process of the daemon, and starts another.
func (c *chaos) killAll() {
	c.mu.Lock()
	c.blind = true
	c.touched["polite"], c.touched["extra"] = true, true // by a file that was not reloaded yet
	c.mu.Unlock()
	begun := time.Now()
	for quiet := 0; quiet < 3; quiet++ { // one that is being started, or becomes another program, may be missed
		if time.Since(begun) > chaseTime { // who is stopped replaces nobody
			c.strike(keeper, unix.SIGSTOP)
			c.strike(worker, unix.SIGSTOP)
		}
		for _, r := range []role{keeper, worker} {
			if hit := c.strike(r, unix.SIGKILL); len(hit) > 0 {
				c.count(r, len(hit))
				quiet = 0
			}
		}
		if c.locked() {
			quiet = 0
		}
		if time.Since(begun) > patience {
			c.t.Fatal("the daemon cannot be killed")
		}
	}
	c.startDaemon()
}

// locked reports whether a process of the daemon has the state directory.
func (c *chaos) locked() bool {
	lock, err := os.Open(filepath.Join(c.dir, "state", "lock"))
	if err != nil {
		return false
	}
	defer func() { _ = lock.Close() }()
	return unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// freeze stops a half of the daemon for a moment.
func (c *chaos) freeze(name string, r role) step {
	moment := time.Duration(c.random.IntN(200)) * time.Millisecond
	return step{fmt.Sprintf("freeze the %s for %s", name, moment), func() {
		c.strike(r, unix.SIGSTOP)
		<-time.After(moment)
		for _, r := range []role{keeper, worker} { // it may have become the other
			c.strike(r, unix.SIGCONT)
		}
	}}
}

// hit signals a program behind pm's back.
func (c *chaos) hit(sig syscall.Signal) step {
	n := c.random.IntN(1 << 20)
	return step{"SIG" + strings.TrimPrefix(unix.SignalName(sig), "SIG") + " to a program", func() {
		list := c.witnesses()
		if len(list) == 0 {
			return
		}
		slices.SortFunc(list, func(a, b run) int { return strings.Compare(a.instance, b.instance) })
		r := list[n%len(list)]
		c.mu.Lock()
		if c.hits[r] == nil {
			c.hits[r] = map[string]bool{}
		}
		c.hits[r][strings.TrimPrefix(unix.SignalName(sig), "SIG")] = true
		c.mu.Unlock()
		ok := signalPID(r.pid, sig, func() bool { now, ok := witnessOf(r.pid); return ok && now == r.instance })
		c.did("hit %s, pid %d, with %s: %v", r.instance, r.pid, unix.SignalName(sig), ok)
	}}
}

// command gives pm a command about a program.
func (c *chaos) command() step {
	program := pick(c.random, "steady", "steady:1", "polite", "rotated", "prefixed", "once", "choosy", "deaf", "family", "restless", "restless:0", "hasty")
	args := []string{pick(c.random, "start", "stop", "restart"), program}
	if c.random.IntN(6) == 0 {
		program = "steady"
		args = []string{"scale", program, fmt.Sprint(2 + c.random.IntN(3))}
	}
	return step{"pm " + strings.Join(args, " "), func() { c.touch(args, program) }}
}

func (c *chaos) reload() step {
	variant := c.random.IntN(4)
	return step{fmt.Sprintf("reload variant %d", variant), func() {
		c.mu.Lock()
		c.variant = variant
		c.writeConfig()
		c.mu.Unlock()
		c.touch([]string{"reload"}, "polite", "extra", "steady")
	}}
}

func (c *chaos) upgrade() step {
	return step{"pm upgrade", func() {
		c.mu.Lock()
		c.struck[worker]++ // for a moment there is only the keeper
		c.mu.Unlock()
		c.touch([]string{"upgrade", "--timeout", "30s"})
	}}
}

// touch runs a pm that may stop the given programs.
func (c *chaos) touch(args []string, programs ...string) {
	c.mu.Lock()
	for _, p := range programs {
		name, _, _ := strings.Cut(p, ":")
		c.touched[name] = true
	}
	c.mu.Unlock()
	code, text := c.pm(args...)
	c.did("pm %s: exit %d: %s", strings.Join(args, " "), code, strings.ReplaceAll(strings.TrimSpace(text), "\n", "; "))
	if code < 0 || code > 8 {
		c.t.Errorf("pm %s: exit %d: %s", strings.Join(args, " "), code, text)
	}
}

// pm runs pm, and returns its exit code and all that it printed.
func (c *chaos) pm(args ...string) (code int, text string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "pm", args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Errorf("pm %s: %v", strings.Join(args, " "), err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// witnesses lists the witnesses that live.
func (c *chaos) witnesses() (list []run) {
	for _, pid := range processesOf(c.dir) {
		if name, ok := witnessOf(pid); ok {
			list = append(list, run{name, pid})
		}
	}
	return list
}

// witnessOf returns the instance that a process is the leader of.
func witnessOf(pid int) (instance string, ok bool) {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if !bytes.Contains(line, []byte("\x00witness\x00")) {
		return "", false
	}
	return instanceOf(pid)
}

// instanceOf returns the instance that a process belongs to.
func instanceOf(pid int) (string, bool) {
	return environOf(pid, "PM_INSTANCE")
}

func environOf(pid int, key string) (string, bool) {
	environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	for entry := range strings.SplitSeq(string(environ), "\x00") {
		if value, ok := strings.CutPrefix(entry, key+"="); ok {
			return value, true
		}
	}
	return "", false
}
