package runner

import (
	"math"
	"slices"
	"syscall"
	"time"

	"pm.example/proc"
)

// Program is what to run and how to keep it running. It is never changed once
// a Group has it; a reload brings a new one.
type Program struct {
	Name     string
	Group    string
	NumProcs int
	// Priority orders: lower starts earlier and stops later.
	Priority int
	// Oneshot says that the program is meant to end: there is no start time, and
	// an expected end is a success.
	Oneshot   bool
	Autostart bool
	// StopOrphan says that a task whose keeper was killed is not to run on.
	StopOrphan bool
	Restart    Restart
	// Expected are the ends that count as intended.
	Expected []Expected
	// StartTime is how long a task must live to count as started.
	StartTime time.Duration
	// Final are signals whose deaths are never followed by another attempt.
	Final []syscall.Signal
	// StartRetries is how many failed starts are followed by another attempt;
	// negative: all.
	StartRetries int
	Backoff      Backoff
	// Stop are the signals of a graceful stop, each with the time to wait after
	// it. What is left after the last is killed.
	Stop []StopStep
	// Exclude are names of processes that get no stop signal.
	Exclude []string
	// Foresee says that the next launch can be described beforehand: nothing that
	// may change goes into it.
	Foresee bool
	// Command describes the launch of the instance with the given index. It may
	// read files, and is called from another goroutine.
	Command func(index int) (*proc.Command, error)
}

// Restart is a policy for a task that ended by itself after a good start.
type Restart int

// The policies.
const (
	RestartUnexpected Restart = iota // unless the end was expected
	RestartAlways
	RestartNever
)

// Expected is an end that counts as intended: a signal, or else an exit code.
type Expected struct {
	Signal syscall.Signal
	Code   int
}

// StopStep is one signal of a stop and the time the program then gets.
type StopStep struct {
	Signal syscall.Signal
	Wait   time.Duration
}

// expects reports whether an end is one of the expected ones.
func (p *Program) expects(s proc.Status) bool {
	return !s.Unknown && slices.ContainsFunc(p.Expected, func(e Expected) bool {
		if e.Signal != 0 || s.Signal != 0 {
			return e.Signal == s.Signal
		}
		return e.Code == s.Code
	})
}

// restarts reports whether a task that ended like this gets a successor.
func (p *Program) restarts(expected bool) bool {
	switch p.Restart {
	case RestartAlways:
		return true
	case RestartNever:
		return false
	default:
		return !expected
	}
}

// Backoff says how long to wait between attempts.
type Backoff struct {
	Initial, Max time.Duration
	Factor       float64
	// Jitter is the share of a wait that is random, 0 to 1, so that programs
	// that failed together do not come back together.
	Jitter float64
	// ResetAfter is how long a task must live to make earlier deaths forgotten.
	ResetAfter time.Duration
	// Burst restarts within BurstWindow happen at once; further ones wait.
	Burst       int
	BurstWindow time.Duration
}

// wait returns the time before the nth attempt after a failure; random is in
// [0, 1).
func (b Backoff) wait(n int, random float64) time.Duration {
	d := float64(b.Initial) * math.Pow(max(b.Factor, 1), float64(n-1))
	d *= 1 + b.Jitter*(2*random-1)
	if b.Max > 0 { // many that have reached it stay apart: downwards only
		d = min(d, float64(b.Max)*(1-b.Jitter*random))
	}
	return time.Duration(d)
}
