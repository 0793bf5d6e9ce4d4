package socket

import (
	"encoding/base64"
	"encoding/json"
	"time"
)

// Schema is the version of the JSON documents below. Fields may be added;
// none is renamed or removed while it stays the same.
const Schema = 1

// Status is the answer to GET /v1/status.
type Status struct {
	Schema    int        `json:"schema"`
	Daemon    DaemonInfo `json:"daemon"`
	Instances []Instance `json:"instances"`
	// Unknown lists the selectors that matched nothing.
	Unknown []string `json:"unknown,omitempty"`
}

// DaemonInfo describes the daemon that answers.
type DaemonInfo struct {
	PID           int     `json:"pid"`
	Keeper        int     `json:"keeper"` // pid of the process that owns the programs
	Version       string  `json:"version"`
	Config        string  `json:"config"`
	UptimeSeconds float64 `json:"uptime_seconds"`
}

// Instance is what runs, or does not, in one slot of a program.
type Instance struct {
	Name          string    `json:"name"`
	Program       string    `json:"program"`
	Group         string    `json:"group,omitempty"`
	State         string    `json:"state"` // STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL, UNKNOWN
	Task          *Task     `json:"task"`  // null before the first launch
	PID           int       `json:"pid,omitempty"`
	Since         time.Time `json:"since"` // when it entered State
	UptimeSeconds float64   `json:"uptime_seconds"`
	Restarts      int       `json:"restarts"`
	Ready         *bool     `json:"ready"`
	Healthy       *bool     `json:"healthy"`
	Desired       string    `json:"desired"` // running or stopped
	Exit          *Exit     `json:"exit"`    // the last end; null if there was none
	Detail        string    `json:"detail,omitempty"`
	// Scrape tells what has become of the lines that are shipped (logs.scrape): the
	// document of pm scrape-logs --json. Empty if none are.
	Scrape json.RawMessage `json:"scrape,omitempty"`
	// Output tells what is wrong with the files that pm writes for it; null if
	// nothing is.
	Output *Output `json:"output,omitempty"`
	// OK is false when the instance is not in its desired state: pm status
	// then exits with 3.
	OK bool `json:"ok"`
}

// Output tells what has become of the lines that pm writes into the files of a program.
// Instances that share a file share this.
type Output struct {
	Problem      string `json:"problem,omitempty"` // why they wait, or are dropped, now
	DroppedLines uint64 `json:"dropped_lines"`
	DroppedBytes uint64 `json:"dropped_bytes"`
}

// Exposition is the answer to GET /v1/metrics: text, in the format of Prometheus.
type Exposition []byte

// Task names a task and its state.
type Task struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

// Exit is how a task ended.
type Exit struct {
	Code   int    `json:"code"`             // exit code; -1 if Signal is set, or the end is Unknown
	Signal string `json:"signal,omitempty"` // without SIG
	// Unknown says that nobody saw the end: it came while no process of the
	// daemon lived.
	Unknown  bool      `json:"unknown,omitempty"`
	Time     time.Time `json:"time"`
	Expected bool      `json:"expected"`
}

// Event is one line of GET /v1/events.
type Event struct {
	Schema   int       `json:"schema"`
	Seq      uint64    `json:"seq"`
	Time     time.Time `json:"time"`
	Type     string    `json:"type"` // [EventDropped], starting, running, backoff, stopping, stopped, exited, fatal, reload, command, …
	Instance string    `json:"instance,omitempty"`
	Program  string    `json:"program,omitempty"`
	Task     *Task     `json:"task,omitempty"`
	PID      int       `json:"pid,omitempty"`
	Exit     *Exit     `json:"exit,omitempty"`
	By       string    `json:"by,omitempty"` // who asked: "uid 0 pid 4711"
	Message  string    `json:"message,omitempty"`
}

// EventDropped is the type of the last event of a stream whose client read too
// slowly. Its Seq is that of the last event before the gap, so that a new
// request with since=Seq goes on without loss.
const EventDropped = "dropped"

// Request is the body of POST /v1/start, stop, restart, signal, scale, rotate,
// reopen and clear.
type Request struct {
	Selectors []string `json:"selectors"`
	Signal    string   `json:"signal,omitempty"`   // signal
	NumProcs  *int     `json:"numprocs,omitempty"` // scale
	Rolling   bool     `json:"rolling,omitempty"`  // restart
	NoWait    bool     `json:"no_wait,omitempty"`
	// TimeoutSeconds bounds the wait for the outcome; 0: as long as it takes.
	TimeoutSeconds float64 `json:"timeout_seconds,omitempty"`
}

// Result is the answer to a Request: one Outcome for each instance acted on.
type Result struct {
	Schema  int       `json:"schema"`
	Results []Outcome `json:"results"`
	Unknown []string  `json:"unknown,omitempty"` // selectors that matched nothing
}

// Outcome is what became of one instance.
type Outcome struct {
	Instance string `json:"instance"`
	State    string `json:"state"`
	// Code is the exit code that this outcome alone would give: 0, 1, 7 or 8.
	Code    int    `json:"code"`
	Message string `json:"message"` // "started", "already running", "exited too quickly (exit 1)" …
}

// InputRequest is the body of POST /v1/input.
type InputRequest struct {
	Selectors []string `json:"selectors"`
	Text      string   `json:"text,omitempty"`   // what is written to the standard input
	Base64    string   `json:"base64,omitempty"` // the same, when it is not valid UTF-8
	// TimeoutSeconds bounds the wait for programs that do not read; 0: as long as it
	// takes.
	TimeoutSeconds float64 `json:"timeout_seconds,omitempty"`
}

// Bytes returns what is to be written.
func (r InputRequest) Bytes() ([]byte, error) {
	if r.Base64 == "" {
		return []byte(r.Text), nil
	}
	return base64.StdEncoding.DecodeString(r.Base64)
}

// WaitRequest is the body of POST /v1/wait.
type WaitRequest struct {
	Selectors      []string `json:"selectors"`
	For            string   `json:"for"` // running, healthy or stopped
	TimeoutSeconds float64  `json:"timeout_seconds,omitempty"`
}

// ReloadRequest is the body of POST /v1/reload.
type ReloadRequest struct {
	DryRun bool `json:"dry_run,omitempty"`
}

// Plan is what a reload does, or would do.
type Plan struct {
	Schema  int      `json:"schema"`
	Actions []Action `json:"actions"`
	// Notes tell which keys of the daemon and of mail changed, and when they take effect.
	Notes []string `json:"notes,omitempty"`
}

// Action is what a reload does to one instance.
type Action struct {
	Instance string   `json:"instance"`
	Action   string   `json:"action"` // start, stop, respawn, live, scale, reopen or keep
	Reasons  []string `json:"reasons"`
}

// LogsRequest is the query of GET /v1/logs, and the body of POST /v1/follow, which
// is the same with Follow.
type LogsRequest struct {
	Selectors []string  `json:"selectors"`
	Lines     int       `json:"lines"`            // last lines of each instance; -1: all that is kept
	Stream    string    `json:"stream,omitempty"` // stdout, stderr or empty: both
	Since     time.Time `json:"since,omitzero"`   // only what was printed then or later
	// From tells the places that were reached before, by instance: each is the Place
	// of the instance's last line. Its lines then go on from there.
	From   map[string]string `json:"from,omitempty"`
	Daemon bool              `json:"daemon,omitempty"` // the daemon's own log, and of no instance
	Follow bool              `json:"-"`
	Places bool              `json:"-"` // lines carry places: set by POST /v1/follow
}

// EventsRequest is the query of GET /v1/events.
type EventsRequest struct {
	Follow bool   // go on with new events after those that are kept
	Since  uint64 // only events whose Seq is greater; 0: all that are kept
}

// LogLine is one line of GET /v1/logs.
type LogLine struct {
	Schema   int       `json:"schema"`
	Time     time.Time `json:"time,omitzero"` // when pm read it; zero if the program writes to its file itself
	Instance string    `json:"instance"`
	Stream   string    `json:"stream,omitempty"` // empty if both print into one file
	Line     string    `json:"line"`             // without its newline; invalid UTF-8 replaced
	Base64   string    `json:"base64,omitempty"` // the bytes, when they are not valid UTF-8
	Partial  bool      `json:"partial,omitempty"`
	// Lost, if not 0, says that the line is none: it stands for so many bytes that
	// are no longer to be had; -1: nobody can tell how many, if any.
	Lost int64 `json:"lost,omitempty"`
	// Note says something about the instance's output instead of a line of it.
	Note string `json:"note,omitempty"`
	// Begin says that there is no line, but only the place from which on lines come.
	Begin bool `json:"begin,omitempty"`
	// Place is how far whoever follows has read the instance's output: see
	// LogsRequest.From.
	Place string `json:"place,omitempty"`
}

// ShutdownRequest is the body of POST /v1/shutdown.
type ShutdownRequest struct {
	// KeepPrograms leaves the programs running, for the next daemon.
	KeepPrograms bool `json:"keep_programs,omitempty"`
}

// UpgradeRequest is the body of POST /v1/upgrade.
type UpgradeRequest struct {
	// Binary is the absolute path of the program that the daemon is to become.
	Binary string `json:"binary"`
}

// Version is the answer to GET /v1/version.
type Version struct {
	Schema  int    `json:"schema"`
	Version string `json:"version"`
	API     string `json:"api"` // "v1"
}
