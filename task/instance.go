package task

// Status is the word a person sees for an instance. The words are
// Supervisor's, because everybody knows them.
type Status string

// What an instance can be seen doing.
const (
	StatusStopped  Status = "STOPPED"  // not running because it was told so, or never started
	StatusStarting Status = "STARTING" // spawned, not yet up for its start time
	StatusRunning  Status = "RUNNING"  // up
	StatusBackoff  Status = "BACKOFF"  // waiting before the next attempt
	StatusStopping Status = "STOPPING" // asked to stop, its process tree not yet gone
	StatusExited   Status = "EXITED"   // ended by itself, and not to be restarted
	StatusFatal    Status = "FATAL"    // could not be started; pm has given up
	StatusUnknown  Status = "UNKNOWN"  // pm cannot tell, for example after its own death
)

// Statuses lists the words in the order of an instance's life.
func Statuses() []Status {
	return []Status{StatusStopped, StatusStarting, StatusRunning, StatusBackoff, StatusStopping, StatusExited, StatusFatal, StatusUnknown}
}
