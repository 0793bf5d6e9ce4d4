package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"pm.example/socket"
)

// judge compares what pm tells with what the kernel and the witnesses say.
type judge struct {
	*chaos
	last     uint64 // number of the latest event that was read
	tasks    map[string]*told
	runs     map[run][]*told             // tasks by what the kernel calls them, oldest first
	starts   map[string][]*told          // by instance
	restarts map[string]int              // after the round before
	begun    map[string]int              // how many starts there were then
	status   map[string]*socket.Instance // then
	floor    map[string]int              // how many lines of an instance need not be kept any more
	unheard  map[string]map[string]bool  // pids, by instance, whose last lines may be lost

	right, unknown int
}

// told is what events have told of a task.
type told struct {
	id     string
	run    run
	round  int // in which it was first told of
	starts int
	ends   []socket.Event // that tell of its end
	judged bool
}

// status of the daemon as of a moment when nothing was under way.
type settled struct {
	socket.Status
	config json.RawMessage
}

func newJudge(c *chaos) judge {
	return judge{
		chaos: c, tasks: map[string]*told{}, runs: map[run][]*told{}, starts: map[string][]*told{},
		restarts: map[string]int{}, begun: map[string]int{}, status: map[string]*socket.Instance{}, floor: map[string]int{},
		unheard: map[string]map[string]bool{},
	}
}

// restlessPatience is how long settle waits for a moment in which nothing restless
// ends. On a busy machine there may be none.
const restlessPatience = 5 * time.Second

// settle waits until pm says that nothing is under way, and the kernel says the
// same as pm.
func (c *chaos) settle() (s settled) {
	c.t.Helper()
	begun := time.Now()
	deadline := begun.Add(patience)
	for {
		s, err := c.look(time.Since(begun) > restlessPatience)
		if err == nil {
			return s
		}
		c.revive()
		if time.Now().After(deadline) {
			c.t.Fatalf("round %d: not settled after %s: %v", c.round, patience, err)
		}
		<-time.After(pollEvery)
	}
}

// look returns what pm says, if the kernel agrees; with lenient not of programs
// that just now have ended by themselves and begun again.
func (c *chaos) look(lenient bool) (s settled, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	before, err := c.client.Status(ctx, nil)
	if err != nil {
		return s, err
	}
	seen := c.census()
	config, err := c.client.Config(ctx)
	if err != nil {
		return s, err
	}
	s.config = config
	if s.Status, err = c.client.Status(ctx, nil); err != nil {
		return s, err
	}
	if before.Daemon.PID != s.Daemon.PID || len(before.Instances) != len(s.Instances) {
		return s, errors.New("pm is still changing")
	}
	for n := range s.Instances {
		before, after := &before.Instances[n], &s.Instances[n]
		if lenient && after.Program == "restless" && before.State == "RUNNING" && after.State == "RUNNING" && before.PID != after.PID {
			continue
		}
		if err := seen.compare(before, after); err != nil {
			return s, err
		}
	}
	return s, seen.strangers(s.Status)
}

// census is who lives, by the kernel.
type census struct {
	daemon  map[role][]int
	leaders map[string][]int // by instance
	others  map[string][]int // processes that a leader has started
}

func (c *chaos) census() census {
	seen := census{daemon: map[role][]int{}, leaders: map[string][]int{}, others: map[string][]int{}}
	for _, pid := range processesOf(c.dir) {
		if r, ok := roleOf(pid); ok {
			seen.daemon[r] = append(seen.daemon[r], pid)
		} else if name, ok := witnessOf(pid); ok {
			seen.leaders[name] = append(seen.leaders[name], pid)
		} else if name, ok := instanceOf(pid); ok {
			seen.others[name] = append(seen.others[name], pid)
		}
	}
	return seen
}

// compare returns an error unless an instance was at rest before and after the
// census, and lives in the kernel as pm says.
func (seen census) compare(before, after *socket.Instance) error {
	switch {
	case before.State != after.State || before.PID != after.PID || before.Restarts != after.Restarts:
		return fmt.Errorf("%s is still changing", after.Name)
	case slices.Contains([]string{"STARTING", "STOPPING", "BACKOFF"}, after.State):
		return fmt.Errorf("%s is %s", after.Name, after.State)
	case slices.Contains(always, after.Program) && (after.Desired == "running") != (after.State == "RUNNING"):
		return fmt.Errorf("%s is %s and meant to be %s", after.Name, after.State, after.Desired)
	case after.State == "RUNNING":
		if got := seen.leaders[after.Name]; len(got) != 1 || got[0] != after.PID {
			return fmt.Errorf("pm says that %s is process %d, the kernel says %v", after.Name, after.PID, got)
		}
		if got := seen.others[after.Name]; len(got) > 2*strings.Count(after.Program, "family") { // it forks twice
			return fmt.Errorf("of an earlier life of %s some of %v are left", after.Name, got)
		}
	case len(seen.leaders[after.Name])+len(seen.others[after.Name]) > 0:
		return fmt.Errorf("pm says that %s is %s, the kernel has %v and %v", after.Name, after.State, seen.leaders[after.Name], seen.others[after.Name])
	}
	return nil
}

// strangers returns an error if the kernel has what pm does not know.
func (seen census) strangers(s socket.Status) error {
	if k, w := seen.daemon[keeper], seen.daemon[worker]; len(k) != 1 || len(w) != 1 || k[0] != s.Daemon.Keeper || w[0] != s.Daemon.PID {
		return fmt.Errorf("pm says keeper %d and worker %d, the kernel says %v and %v", s.Daemon.Keeper, s.Daemon.PID, k, w)
	}
	for name := range seen.leaders {
		if !slices.ContainsFunc(s.Instances, func(i socket.Instance) bool { return i.Name == name }) {
			return fmt.Errorf("pm does not know of %s, the kernel has %v", name, seen.leaders[name])
		}
	}
	return nil
}

// check fails the test if anything was lost, doubled or invented in the round.
func (c *chaos) check(s settled) {
	c.t.Helper()
	j := &c.judge
	begun := j.lives()
	j.hear()
	for deadline := time.Now().Add(tellPatience); j.anyUntold(begun) && time.Now().Before(deadline); j.hear() {
		<-time.After(pollEvery)
	}
	present := map[string]*socket.Instance{}
	for n := range s.Instances {
		present[s.Instances[n].Name] = &s.Instances[n]
	}
	for _, life := range begun {
		j.compareStarts(life)
	}
	lives := j.lives()
	for _, t := range j.tasks {
		if !j.livedOn(t, present[t.run.instance]) {
			j.judgeEnd(t, lives[t.run.instance])
		}
	}
	for name, i := range present {
		j.compareCounts(name, i)
	}
	j.status = present
	j.compareConfig(s, present["polite"])
	j.compareLines(present)
	if c.t.Failed() {
		c.t.FailNow()
	}
}

// hear reads the events since the last time.
func (j *judge) hear() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	take := func(e socket.Event) error {
		if e.Seq <= j.last {
			j.t.Errorf("event %d comes after %d", e.Seq, j.last)
		}
		j.last = e.Seq
		j.note(e)
		return nil
	}
	err := errors.New("not asked")
	for err != nil { // what was killed in the round may die only now
		if ctx.Err() != nil {
			j.t.Fatalf("round %d: events: %v", j.round, err)
		}
		err = j.client.Events(ctx, socket.EventsRequest{Since: j.last}, take)
	}
}

// note takes up what an event tells of a task that had a process.
func (j *judge) note(e socket.Event) {
	if e.Type == "removed" { // and its output with it
		j.floor[e.Instance] = len(j.printed(e.Instance))
	}
	if e.Task == nil || e.PID == 0 {
		return
	}
	t := j.tasks[e.Task.ID]
	if t == nil {
		t = &told{id: e.Task.ID, run: run{e.Instance, e.PID}, round: j.round}
		j.tasks[t.id] = t
		j.runs[t.run] = append(j.runs[t.run], t)
	}
	switch e.Type {
	case "starting":
		t.starts++
		j.starts[e.Instance] = append(j.starts[e.Instance], t)
		if t.starts > 1 {
			j.t.Errorf("round %d: the start of task %s is told %d times", j.round, t.id, t.starts)
		}
	case "exited", "stopped", "fatal", "backoff":
		if e.Exit != nil {
			t.ends = append(t.ends, e)
		}
	}
}

// life is what the witnesses of an instance have written down.
type life struct {
	instance string
	starts   []int       // pids
	ends     map[int]int // the codes of those that have ended by themselves, by number of the start
}

// file names a file of the witnesses of an instance.
func (c *chaos) file(instance, kind string) string { return filepath.Join(c.dir, instance+kind) }

// lives reads what all witnesses have written.
func (j *judge) lives() map[string]*life {
	files, err := filepath.Glob(filepath.Join(j.dir, "*.life"))
	if err != nil {
		j.t.Fatal(err)
	}
	all := map[string]*life{}
	for _, path := range files {
		l := &life{instance: strings.TrimSuffix(filepath.Base(path), ".life"), ends: map[int]int{}}
		data, err := os.ReadFile(path)
		if err != nil {
			j.t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			j.readLife(l, strings.TrimSpace(line))
		}
		all[l.instance] = l
	}
	return all
}

func (j *judge) readLife(l *life, line string) {
	var pid, code int
	if n, _ := fmt.Sscanf(line, "start %d", &pid); n == 1 {
		l.starts = append(l.starts, pid)
		return
	}
	if n, _ := fmt.Sscanf(line, "end %d %d", &pid, &code); n == 2 && l.lastIs(pid) {
		l.ends[len(l.starts)-1] = code
		return
	}
	j.t.Errorf("round %d: %s was started twice, or its life is out of order: %q after %v", j.round, l.instance, line, l.starts)
}

func (l *life) lastIs(pid int) bool { return len(l.starts) > 0 && l.starts[len(l.starts)-1] == pid }

// tellPatience is how long pm may take on a busy machine to tell of a start, which
// the witness has written down at once.
const tellPatience = 5 * time.Second

// anyUntold reports whether pm may be about to tell of a start.
func (j *judge) anyUntold(lives map[string]*life) bool {
	for _, l := range lives {
		if n := len(l.starts); n > 0 && l.lives(l.starts[n-1]) && len(j.runs[run{l.instance, l.starts[n-1]}]) == 0 {
			return true
		}
	}
	return false
}

// compareStarts demands that every start of a witness was told.
func (j *judge) compareStarts(l *life) {
	count := map[int]int{}
	for _, pid := range l.starts {
		count[pid]++
		told := len(j.runs[run{l.instance, pid}])
		switch {
		case told >= count[pid] || j.unheard[l.instance][strconv.Itoa(pid)]:
		case j.wasTouched(l.instance):
			j.lose(run{l.instance, pid}) // a successor that was planned, and stopped before it was told of
		case (j.blind || j.struck[keeper] > 0) && !l.lives(pid):
			j.lose(run{l.instance, pid}) // the keeper was killed just after the launch, and it ended before there was another
		default:
			j.t.Errorf("round %d: the start of %s as process %d is not told", j.round, l.instance, pid)
		}
	}
}

// lives reports whether a witness that has started still runs.
func (l *life) lives(pid int) bool {
	name, ok := witnessOf(pid)
	return ok && name == l.instance
}

// lose notes that the last lines of a run may be lost: it has ended when nobody of
// the daemon lived, and its pipe with it.
func (j *judge) lose(r run) {
	if j.unheard[r.instance] == nil {
		j.unheard[r.instance] = map[string]bool{}
	}
	j.unheard[r.instance][strconv.Itoa(r.pid)] = true
}

func (j *judge) wasTouched(instance string) bool {
	program, _, _ := strings.Cut(instance, ":")
	return j.touched[program]
}

// livedOn reports whether a task was running when pm said how its instance was, or
// was started only then.
func (j *judge) livedOn(t *told, i *socket.Instance) bool {
	if i == nil || i.State != "RUNNING" {
		return false
	}
	starts := j.starts[i.Name]
	running := slices.IndexFunc(starts, func(t *told) bool { return t.id == i.Task.ID })
	return running >= 0 && slices.Index(starts, t) >= running
}

// judgeEnd judges what was told of the end of a task that has ended.
func (j *judge) judgeEnd(t *told, l *life) {
	types := map[string]int{}
	for _, e := range t.ends {
		types[e.Type]++
		if a, b := exitOf(e.Exit), exitOf(t.ends[0].Exit); a != b {
			j.t.Errorf("round %d: the end of task %s is told as %s and as %s", j.round, t.id, b, a)
		}
	}
	for kind, n := range types {
		if n > 1 || types["fatal"] > 0 && kind != "fatal" && kind != "stopped" {
			j.t.Errorf("round %d: the end of task %s is told more than once: %v", j.round, t.id, types)
		}
	}
	if t.judged {
		return
	}
	t.judged = true
	if j.mayBeUnknown(t) {
		j.lose(t.run)
	}
	if len(t.ends) == 0 {
		j.t.Errorf("round %d: the end of task %s, pid %d, is not told", j.round, t.id, t.run.pid)
		return
	}
	got, may := exitOf(t.ends[0].Exit), j.possible(t, l)
	if !slices.Contains(may, got) {
		j.t.Errorf("round %d: task %s, pid %d, is told to have ended by %q, and can only have by %q", j.round, t.id, t.run.pid, got, may)
		return
	}
	j.right++
	if got == unknownEnd {
		j.unknown++
	}
}

const unknownEnd = "unknown"

// exitOf writes an end as "3", "SIGTERM" or "unknown".
func exitOf(e *socket.Exit) string {
	switch {
	case e.Unknown:
		return unknownEnd
	case e.Signal != "":
		return "SIG" + e.Signal
	}
	return fmt.Sprint(e.Code)
}

// possible lists the ends that a task can have had: what its witness has written
// down, or the signals that it may have got.
func (j *judge) possible(t *told, l *life) (list []string) {
	for sig := range j.hits[t.run] {
		list = append(list, "SIG"+sig)
	}
	if j.wasTouched(t.run.instance) {
		list = append(list, "SIGTERM", "SIGKILL")
	}
	if j.mayBeUnknown(t) {
		list = append(list, unknownEnd)
	}
	if l == nil {
		return list
	}
	nth := slices.Index(j.runs[t.run], t)
	for n, pid := range l.starts {
		if pid != t.run.pid {
			continue
		}
		if code, ok := l.ends[n]; ok && nth == 0 {
			list = append(list, fmt.Sprint(code))
		}
		nth--
	}
	return list
}

// mayBeUnknown reports whether nobody may have seen the end of a task: all of the
// daemon was dead, or the keeper was killed when its worker was just starting, or
// had not heard of the task.
func (j *judge) mayBeUnknown(t *told) bool {
	return j.blind || j.lacked[noProcesses] || j.lacked[noFiles] && j.struck[keeper] > 0 || j.struck[keeper] > 0 && (j.struck[keeper]+j.struck[worker] > 1 || t.round == j.round)
}

// compareCounts demands that restarts are counted, and that nobody but a command
// changes what an instance is meant to be.
func (j *judge) compareCounts(name string, i *socket.Instance) {
	begun := len(j.starts[name])
	if i.Task != nil {
		begun = 1 + slices.IndexFunc(j.starts[name], func(t *told) bool { return t.id == i.Task.ID })
	}
	before := j.status[name]
	if before != nil && !j.wasTouched(name) {
		if starts, restarts := begun-j.begun[name], i.Restarts-j.restarts[name]; starts != restarts && (!j.mayNotStart() || starts > restarts) {
			j.t.Errorf("round %d: %s was started %d times, and pm counts %d restarts", j.round, name, starts, restarts)
		}
		if before.Desired != i.Desired {
			j.t.Errorf("round %d: %s was meant to be %s, and now %s", j.round, name, before.Desired, i.Desired)
		}
	}
	j.begun[name], j.restarts[name] = begun, i.Restarts
}

// mayNotStart reports whether restarts of this round may have been tried in vain.
func (j *judge) mayNotStart() bool { return j.lacked[noFiles] || j.lacked[noProcesses] }

// compareConfig demands that what runs is what is in force.
func (j *judge) compareConfig(s settled, polite *socket.Instance) {
	if polite == nil || polite.State != "RUNNING" {
		return
	}
	var config struct {
		Programs map[string]struct{ Env map[string]string }
	}
	if err := json.Unmarshal(s.config, &config); err != nil {
		j.t.Fatal(err)
	}
	want := config.Programs["polite"].Env["VARIANT"]
	if got, lives := environOf(polite.PID, "VARIANT"); lives && got != want {
		j.t.Errorf("round %d: variant %s of polite runs, and %s is in force", j.round, got, want)
	}
}
