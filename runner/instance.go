package runner

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"pm.example/proc"
	"pm.example/task"
)

// instance is one slot of a program and the task that fills it. Everything in
// it belongs to the goroutine of Group.Run.
//
// Its status moves like this; every move is one method below:
//
//	STOPPED, EXITED, FATAL ── launch ──▶ STARTING ── started ──▶ RUNNING
//	STARTING, RUNNING ── stop ──▶ STOPPING ── gone ──▶ STOPPED, or launch
//	STARTING ── died ──▶ BACKOFF ── expired ──▶ launch … FATAL
//	RUNNING ── died ──▶ launch, BACKOFF or EXITED
type instance struct {
	group   *Group
	program *Program
	index   int
	name    string

	status task.Status
	since  time.Time
	detail string
	// desired is what the instance is meant to do: run, or not.
	desired bool
	// again says that a new task follows once the stop is done.
	again bool
	// removing says that the instance goes away once it is stopped.
	removing bool
	dropped  bool // it has gone away
	dirty    bool // its record is outdated

	taskID    string
	planned   string   // the id of the task that the host starts when this one ends; empty: none
	launched  *Program // the description that the host has last started it by; nil: an earlier group has asked for that
	taskState task.State
	pid       int // 0 until spawned
	started   time.Time
	dead      bool // its leader has ended
	exit      *Exit
	// ended says that the leader has ended by itself and that what it left
	// behind is being stopped.
	ended bool
	step  int // of the stop

	failures int // failed starts in a row
	crowded  int // restarts in a row that came too close
	recent   []time.Time
	restarts int

	timer   *entry
	watches []*watch
}

func instanceName(p *Program, index int) string {
	if p.NumProcs == 1 {
		return p.Name
	}
	return fmt.Sprintf("%s:%d", p.Name, index)
}

// live reports whether a task of the instance may have processes.
func (i *instance) live() bool {
	return i.status == task.StatusStarting || i.status == task.StatusRunning || i.status == task.StatusStopping
}

// become changes the status, tells it, and lets those who wait look.
func (i *instance) become(s task.Status, event EventType, detail string) {
	if s != task.StatusRunning {
		i.dropPlan()
	}
	i.status, i.since, i.detail = s, time.Now(), detail
	i.tell(event, detail)
	i.changed()
}

// changed lets those who wait for this instance look at it.
func (i *instance) changed() {
	for _, w := range i.watches {
		w.look(i)
	}
}

func (i *instance) tell(event EventType, message string) {
	e := Event{
		Time: time.Now(), Type: event, Instance: i.name, Program: i.program.Name,
		TaskID: i.taskID, TaskState: i.taskState, PID: i.pid, Message: message,
	}
	if event == EventExited || event == EventStopped || event == EventBackoff || event == EventFatal {
		e.Exit = i.exit
	}
	i.group.tell(e)
}

// turn changes the state of the task; an illegal turn is a bug of pm's.
func (i *instance) turn(s task.State) {
	if i.taskState == s {
		return
	}
	if err := task.Next(i.taskState, s); err != nil {
		i.group.bug(fmt.Errorf("instance %s, task %s: %w", i.name, i.taskID, err))
	}
	i.taskState = s
}

// newTask makes the task that will be launched next.
func (i *instance) newTask() {
	if i.taskID = i.planned; i.taskID == "" {
		i.taskID = i.group.newID(i)
	}
	i.planned = ""
	i.taskState = task.Staging
	i.pid, i.started, i.dead, i.step, i.ended = 0, time.Time{}, false, 0, false
}

// start makes the instance run, now.
func (i *instance) start() {
	i.touch()
	i.desired = true
	switch i.status {
	case task.StatusStarting, task.StatusRunning:
	case task.StatusStopping:
		i.again = true
	default:
		i.failures, i.crowded, i.recent, i.restarts = 0, 0, nil, 0
		i.launch()
	}
}

// wanted reports whether the instance is to run now: in the end of the daemon
// none is, whatever it is meant to do.
func (i *instance) wanted() bool { return i.desired && !i.group.closing }

// stop makes the instance stop; it is done when nothing of its tree is left.
func (i *instance) stop() {
	i.touch()
	if !i.group.closing {
		i.desired = false
	}
	i.again = false
	switch i.status {
	case task.StatusStopped, task.StatusStopping:
	case task.StatusStarting, task.StatusRunning:
		i.beginStop("")
	default:
		i.group.timers.clear(i)
		if !i.taskState.Terminal() && i.taskState != "" {
			i.turn(task.Killed)
		}
		i.settle()
	}
}

// restart stops what runs and starts it anew.
func (i *instance) restart() {
	i.touch()
	if i.status != task.StatusStarting && i.status != task.StatusRunning {
		i.start()
		return
	}
	i.desired, i.again = true, true
	i.beginStop("restarting")
}

// launch hands the task to the host.
func (i *instance) launch() {
	i.group.timers.clear(i)
	if i.taskState != task.Staging {
		i.newTask()
	}
	i.again = false
	i.status, i.since, i.detail = task.StatusStarting, time.Now(), ""
	i.group.byTask[i.taskID] = i
	i.spawn()
}

// spawn asks the host for the process of the task; asking twice does no harm.
func (i *instance) spawn() {
	g, id, program, index := i.group, i.taskID, i.program, i.index
	i.launched = program
	g.effect(func() {
		g.host.Spawn(id, program.Priority, func() (*proc.Command, error) { return program.Command(index) })
	})
}

// spawned: the process runs.
func (i *instance) spawned(e proc.Event) {
	i.pid, i.started = e.PID, e.At
	i.turn(task.Starting)
	if i.status == task.StatusStopping { // asked to stop before it was there
		i.nextStep()
		return
	}
	i.tell(EventStarting, "")
	if i.program.Oneshot || i.program.StartTime == 0 {
		i.up()
		return
	}
	i.changed()
	i.group.timers.set(i, time.Until(e.At.Add(i.program.StartTime)))
}

// up: the task counts as started.
func (i *instance) up() {
	if !i.program.Oneshot { // its start succeeds only with its end
		i.failures = 0
	}
	i.turn(task.Running)
	i.become(task.StatusRunning, EventRunning, "")
	i.plan()
}

// failed: the process could not be started.
func (i *instance) failed(e proc.Event) {
	i.group.release(i)
	if i.status == task.StatusStopping {
		i.turn(task.Killed)
		i.gone()
		return
	}
	if e.Err.Passing {
		i.turn(task.Dropped)
		i.crowded++
		i.delay("cannot start now: "+e.Err.Error(), i.crowded)
		return
	}
	i.turn(task.Error)
	i.retry(e.Err.Error())
}

// died: the leader of the task has ended.
func (i *instance) died(e proc.Event) {
	exit := &Exit{Status: e.Status, At: e.At, Lifetime: max(e.At.Sub(i.started), 0), Expected: i.program.expects(e.Status)}
	i.exit = exit
	if i.status == task.StatusStopping {
		return // the stop goes on for what is left of the tree
	}
	i.group.timers.clear(i)
	if e.Left > 0 {
		i.ended = true
		i.beginStop(fmt.Sprintf("its main process ended (%s), ending %d it left behind", exit, e.Left))
		return
	}
	i.group.release(i)
	i.decide()
}

// decide: the task has ended by itself and nothing of it is left. What now?
func (i *instance) decide() {
	exit := i.exit
	switch {
	case slices.Contains(i.program.Final, exit.Signal):
		i.turn(endState(exit))
		i.become(task.StatusExited, EventExited, exit.String())
		i.dropIfRemoved()
	case exit.Unknown:
		i.turn(task.Unknown)
		i.after(exit)
	case !i.program.Oneshot && exit.Lifetime < i.program.StartTime:
		i.turn(task.Failed)
		i.retry("exited too quickly (" + exit.String() + ")")
	case exit.Expected:
		i.turn(task.Finished)
		i.after(exit)
	case i.program.Oneshot && i.program.Restart != RestartNever:
		i.turn(task.Failed)
		i.retry(exit.String())
	default:
		i.turn(task.Failed)
		i.after(exit)
	}
}

// after: a task that had started well has ended. The policy decides.
func (i *instance) after(exit *Exit) {
	if !i.wanted() || !i.program.restarts(exit.Expected) {
		i.become(task.StatusExited, EventExited, exit.String())
		i.dropIfRemoved()
		return
	}
	i.tell(EventExited, exit.String())
	i.restarts++
	if exit.Lifetime >= i.program.Backoff.ResetAfter {
		i.crowded, i.recent = 0, nil
	}
	if i.tooMany(exit.At) {
		i.crowded++
		i.delay(exit.String()+", restarted too often", i.crowded)
		return
	}
	i.launch()
}

// tooMany notes a restart and reports whether there were too many of late. Once
// there were, every further one waits until a task has lived for ResetAfter.
func (i *instance) tooMany(now time.Time) bool {
	b := i.program.Backoff
	if b.Burst <= 0 {
		return false
	}
	i.recent = slices.DeleteFunc(i.recent, func(t time.Time) bool { return now.Sub(t) >= b.BurstWindow })
	if i.crowded > 0 || len(i.recent) >= b.Burst {
		return true
	}
	i.recent = append(i.recent, now)
	return false
}

// retry: a start has failed. There is another attempt after a wait, or an end.
func (i *instance) retry(why string) {
	i.failures++
	if limit := i.program.StartRetries; limit >= 0 && i.failures > limit {
		times := ""
		if i.failures > 1 {
			times = fmt.Sprintf(", gave up after %d attempts", i.failures)
		}
		i.become(task.StatusFatal, EventFatal, why+times)
		i.dropIfRemoved()
		return
	}
	i.restarts++
	i.delay(why, i.failures)
}

// delay waits before the next task, the nth time in a row.
func (i *instance) delay(why string, n int) {
	d := i.program.Backoff.wait(n, i.group.random())
	i.group.timers.set(i, d)
	i.become(task.StatusBackoff, EventBackoff, fmt.Sprintf("%s, next attempt in %s", why, d.Round(time.Millisecond)))
	i.newTask()
}

// beginStop asks the tree to end.
func (i *instance) beginStop(why string) {
	i.group.timers.clear(i)
	i.step = 0
	if i.pid != 0 {
		i.turn(task.Killing)
	}
	i.become(task.StatusStopping, EventStopping, why)
	if i.pid != 0 {
		i.nextStep()
	}
}

// nextStep sends the next signal of the stop, and after the last one kills.
func (i *instance) nextStep() {
	if i.taskState == task.Starting {
		i.turn(task.Killing)
	}
	if i.step >= len(i.program.Stop) {
		i.kill()
		return
	}
	step := i.program.Stop[i.step]
	i.step++
	if step.Signal == syscall.SIGKILL {
		i.kill()
		return
	}
	i.terminate(step)
	i.group.timers.set(i, step.Wait)
}

// terminate asks the host for the present step of the stop; asking twice does
// no harm.
func (i *instance) terminate(step StopStep) {
	g, id, n, exclude := i.group, i.taskID, i.step, i.program.Exclude
	g.effect(func() { g.host.Terminate(id, n, step.Signal, exclude) })
}

// kill ends the whole tree with SIGKILL.
func (i *instance) kill() {
	i.group.timers.clear(i)
	i.step = len(i.program.Stop) + 1
	if i.pid == 0 {
		return // it will be killed as soon as it is there
	}
	if n := time.Since(i.since); n >= time.Millisecond {
		i.detail = fmt.Sprintf("killed after %s", n.Round(time.Millisecond))
	}
	g, id := i.group, i.taskID
	g.effect(func() { g.host.Kill(id) })
}

// empty: nothing of the tree is left.
func (i *instance) empty() {
	i.group.timers.clear(i)
	i.group.release(i)
	if i.ended && i.wanted() && !i.again {
		i.decide()
		return
	}
	if i.ended {
		i.turn(endState(i.exit))
	} else {
		i.turn(task.Killed)
	}
	i.gone()
}

func endState(exit *Exit) task.State {
	if exit.Unknown {
		return task.Unknown
	}
	if exit.Expected {
		return task.Finished
	}
	return task.Failed
}

// gone: the stop is done.
func (i *instance) gone() {
	if i.again && !i.removing {
		i.tell(EventStopped, i.endDetail())
		i.failures, i.crowded, i.recent = 0, 0, nil
		i.launch()
		return
	}
	i.settle()
}

// settle: the instance is stopped and stays so.
func (i *instance) settle() {
	i.failures, i.crowded, i.recent = 0, 0, nil
	i.become(task.StatusStopped, EventStopped, i.endDetail())
	i.dropIfRemoved()
}

// endDetail tells how the stop went where it did not go quietly.
func (i *instance) endDetail() string {
	if strings.HasPrefix(i.detail, "killed after") {
		return i.detail
	}
	return ""
}

// lingering: parts of the tree withstand SIGKILL.
func (i *instance) lingering(e proc.Event) {
	names := make([]string, len(e.Survivors))
	for n, p := range e.Survivors {
		names[n] = fmt.Sprintf("%s in state %c", p, p.State)
	}
	i.detail = "still there after SIGKILL: " + strings.Join(names, ", ")
	i.tell(EventLingering, i.detail)
}

// expired: the instance's timer has run out.
func (i *instance) expired() {
	i.touch()
	switch i.status {
	case task.StatusStarting:
		i.up()
	case task.StatusBackoff:
		if !i.wanted() { // it waits for its turn in an orderly stop
			i.stop()
			return
		}
		i.launch()
	case task.StatusStopping:
		i.nextStep()
	default: // a timer of an earlier status; clearing it is up to each method
	}
}

// dropIfRemoved takes the instance out of the group if that was asked for.
func (i *instance) dropIfRemoved() {
	if i.removing && !i.live() && i.status != task.StatusBackoff {
		i.group.drop(i)
	}
}

// ok reports whether the instance is in its desired state.
func (i *instance) ok() bool {
	switch i.status {
	case task.StatusRunning:
		return i.wanted()
	case task.StatusStopped:
		return !i.wanted()
	case task.StatusExited:
		return i.exit != nil && i.exit.Expected
	default:
		return false
	}
}

func (i *instance) snapshot() Instance {
	s := Instance{
		Name: i.name, Program: i.program.Name, Group: i.program.Group, Index: i.index,
		Status: i.status, Since: i.since, TaskID: i.taskID, TaskState: i.taskState,
		Restarts: i.restarts, Desired: i.wanted(), Exit: i.exit, Detail: i.detail, OK: i.ok(),
	}
	if i.live() {
		s.PID, s.Started = i.pid, i.started
	}
	return s
}

// String tells an end in a few words: "exit 3", "killed by SIGSEGV".
func (e *Exit) String() string {
	if e.Unknown {
		return "ended while pm was not there to see it"
	}
	if e.Signal == 0 {
		return fmt.Sprintf("exit %d", e.Code)
	}
	core := ""
	if e.Core {
		core = " (core dumped)"
	}
	return "killed by SIG" + proc.SignalName(e.Signal) + core
}
