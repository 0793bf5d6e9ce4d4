package runner

import (
	"time"

	"pm.example/proc"
	"pm.example/task"
)

// Event tells one change of one instance.
type Event struct {
	Time      time.Time
	Type      EventType
	Instance  string
	Program   string
	TaskID    string
	TaskState task.State
	PID       int
	Exit      *Exit
	Message   string
}

// EventType says what changed.
type EventType string

// The types of events that a Group tells.
const (
	EventStarting  EventType = "starting"  // a task was spawned
	EventRunning   EventType = "running"   // it counts as started
	EventBackoff   EventType = "backoff"   // the next attempt has to wait
	EventStopping  EventType = "stopping"  // its process tree is asked to end
	EventStopped   EventType = "stopped"   // it is stopped, nothing is left of it
	EventExited    EventType = "exited"    // it ended by itself
	EventFatal     EventType = "fatal"     // pm has given up on it
	EventLingering EventType = "lingering" // processes withstand SIGKILL
	EventAdded     EventType = "added"     // the instance is new
	EventRemoved   EventType = "removed"   // the instance is gone from the configuration
)

// Exit is how a task ended.
type Exit struct {
	proc.Status
	At       time.Time
	Lifetime time.Duration
	Expected bool
}

// Instance is a snapshot of one instance.
type Instance struct {
	Name      string
	Program   string
	Group     string
	Index     int
	Status    task.Status
	Since     time.Time
	TaskID    string
	TaskState task.State
	PID       int
	Started   time.Time // of the living task; zero if none lives
	Restarts  int
	Desired   bool // meant to run
	Exit      *Exit
	Detail    string
	// OK is false when the instance is not in its desired state.
	OK bool
}
