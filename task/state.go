package task

import (
	"fmt"
	"slices"
)

// State is the state of one task, as Mesos names it.
type State string

// The states of a task. What each one means is in [Table].
const (
	Staging        State = "TASK_STAGING"
	Starting       State = "TASK_STARTING"
	Running        State = "TASK_RUNNING"
	Killing        State = "TASK_KILLING"
	Unreachable    State = "TASK_UNREACHABLE"
	Finished       State = "TASK_FINISHED"
	Failed         State = "TASK_FAILED"
	Killed         State = "TASK_KILLED"
	Error          State = "TASK_ERROR"
	Dropped        State = "TASK_DROPPED"
	Gone           State = "TASK_GONE"
	GoneByOperator State = "TASK_GONE_BY_OPERATOR"
	Unknown        State = "TASK_UNKNOWN"
)

// Category says how far along its life a task in a given state is.
type Category string

// The categories of states.
const (
	Initial     Category = "initial"
	NonTerminal Category = "non-terminal"
	Terminal    Category = "terminal"
)

// Replacement says when a task that ended is followed by a new one.
type Replacement string

// The kinds of replacement.
const (
	NoReplacement Replacement = "none"           // the task was meant to end
	ByPolicy      Replacement = "by policy"      // the program's restart policy decides
	TryAgain      Replacement = "try again"      // always, and it does not use up a retry
	Always        Replacement = "replacement"    // always
	WhenDue       Replacement = "at once or due" // at once, or after the program's inactive_after
)

// Row is what is true of one state.
type Row struct {
	State    State
	Category Category
	// Means tells what the state is on the local engine.
	Means string
	// Expunge says that the task is forgotten once it is in this state.
	Expunge bool
	// Replace says whether a new task takes the place of this one.
	Replace Replacement
	// Next lists the states that may follow.
	Next []State
}

// ends are the states in which any living task may end: the agent or an
// operator can say so whatever the task was doing.
var ends = []State{Finished, Failed, Killed, Error, Dropped, Gone, GoneByOperator, Unknown}

// table is in the order of a task's life.
var table = []Row{
	{Staging, Initial, "accepted: waiting for a dependency, a back-off or an offer", false, NoReplacement, with(Starting, Running, Killing, Unreachable)},
	{Starting, NonTerminal, "spawned, not yet `starttime` old or not yet ready", false, NoReplacement, with(Running, Killing, Unreachable)},
	{Running, NonTerminal, "running", false, NoReplacement, with(Killing, Unreachable)},
	{Killing, NonTerminal, "asked to stop, not yet gone", false, NoReplacement, with(Unreachable)},
	{Unreachable, NonTerminal, "its agent has lost the master", false, WhenDue, with(Staging, Starting, Running, Killing)},
	{Finished, Terminal, "ended by itself with an expected exit", true, ByPolicy, nil},
	{Failed, Terminal, "ended by itself otherwise, or failed to start in time, or was killed for bad health", true, ByPolicy, nil},
	{Killed, Terminal, "ended because pm was told to stop it", true, NoReplacement, nil},
	{Error, Terminal, "the description is wrong: no such command, user, directory", true, ByPolicy, nil},
	{Dropped, Terminal, "could not be launched for a passing reason; never ran", true, TryAgain, nil},
	{Gone, Terminal, "was running when the machine went down, or its agent is gone", true, Always, nil},
	{GoneByOperator, Terminal, "an operator said so; the task may still run", true, Always, []State{Running}},
	{Unknown, Terminal, "no trace of it and no record of its end", true, Always, []State{Running}},
}

// with returns the given states followed by all that end a task.
func with(states ...State) []State { return slices.Concat(states, ends) }

// Table returns every state's row, in the order of a task's life.
func Table() []Row { return slices.Clone(table) }

// Lookup returns the row of s, and whether s is a state at all.
func Lookup(s State) (Row, bool) {
	i := slices.IndexFunc(table, func(r Row) bool { return r.State == s })
	if i < 0 {
		return Row{}, false
	}
	return table[i], true
}

// Terminal reports whether a task in state s has ended.
func (s State) Terminal() bool {
	row, ok := Lookup(s)
	return ok && row.Category == Terminal
}

// Next reports, as an error, why a task in state from may not become to.
// It returns nil for a legal transition.
func Next(from, to State) error {
	row, ok := Lookup(from)
	if !ok {
		return fmt.Errorf("unknown task state %q", from)
	}
	if _, ok := Lookup(to); !ok {
		return fmt.Errorf("unknown task state %q", to)
	}
	if !slices.Contains(row.Next, to) {
		return fmt.Errorf("a task in %s cannot become %s", from, to)
	}
	return nil
}
