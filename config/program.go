package config

import (
	"slices"
	"strconv"
	"sync"
	"time"
)

// File is one loaded configuration: what a config file, its includes and the
// environment say, with defaults filled in.
type File struct {
	// Path is the file that was loaded, as given.
	Path string
	// Programs are in the order of their start: by priority, then name.
	Programs []*Program
	Daemon   Daemon
	Email    Email

	include []string
	// places tells where each key stands, for faults that are found later.
	places map[string]pos
}

// Program returns the program of that name, or nil.
func (f *File) Program(name string) *Program {
	i := slices.IndexFunc(f.Programs, func(p *Program) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return f.Programs[i]
}

// Daemon is what the file says of the daemon itself.
type Daemon struct {
	Socket    string // path of the control socket; empty: the default
	Group     string // group that may use the socket, mode 0660; empty: owner only, 0600
	StateDir  string // empty: the default
	Log       string // "stderr" or "journald"
	LogFile   string // the daemon's own log; empty: as Log says
	LogFormat string // "text" or "json"
	// Port and IP are the seed dialect's control address. They are read, and
	// reported as a warning: pm listens on a Unix socket.
	Port int
	IP   string
}

// Email says whom to tell of which events, and through which server.
type Email struct {
	To       []string
	From     string
	Server   string // host:port
	TLS      string // "none", "starttls" (the default) or "tls"
	Username string
	// PasswordFile is read when a mail is sent; the password never stands in
	// the configuration.
	PasswordFile string
	Events       []string      // event types; default: fatal, exited (unexpected), backoff
	Interval     time.Duration // events within it go into one mail; default 30s
	MaxPerHour   int           // default 20
}

// Program is one program: what to run, how, and how many. It is the one
// description that a config file, the flags of exec and a Mesos task fill.
type Program struct {
	Name         string
	Cmd          []string // argv, already split and expanded
	NumProcs     int
	Umask        *int   // nil: inherit
	WorkingDir   string // empty: the daemon's own
	Autostart    bool
	Autorestart  string // "always", "never" or "unexpected"
	ExitCodes    []Exit // expected ends
	StartRetries int    // -1: without end
	StartTime    time.Duration
	StopSignal   string // a signal's name without SIG, for example "TERM"
	StopTime     time.Duration
	Stdin        string // a path or Attached; empty: /dev/null
	Stdout       string // a path, "discard", or empty: kept in the daemon's ring
	Stderr       string // like Stdout; "stdout": the same place as stdout
	Env          map[string]string

	Type string // "service" or "oneshot"
	// OnDaemonDeath is "keep" or "stop".
	OnDaemonDeath string

	Priority int // lower starts earlier and stops later; default 999
	Group    string
	User     string   // "user", "user:group" or numbers; empty: the daemon's own
	EnvFile  []string // read at every launch, in order; a leading "-" allows it to be missing
	Limits   Limits
	Backoff  Backoff
	Kill     Kill
	Labels   map[string]string
	Logs     Logs
}

// NewProgram returns a program with the defaults of every key.
func NewProgram(name string) *Program {
	p := defaults()
	p.Name, p.ExitCodes = name, slices.Clone(p.ExitCodes)
	return &p
}

// defaults are made once, since there may be thousands of programs.
var defaults = sync.OnceValue(func() (p Program) {
	setDefaults(programFields, &p)
	return p
})

// InstanceName returns the name of a program's instance with the given index.
func InstanceName(p *Program, index int) string { return instanceName(p, index) }

// InstanceNames returns the names of a program's instances: the program's own
// for one, else with a number behind it (web:0, web:1 …).
func InstanceNames(p *Program) []string {
	names := make([]string, p.NumProcs)
	for i := range names {
		names[i] = instanceName(p, i)
	}
	return names
}

func instanceName(p *Program, index int) string {
	if p.NumProcs == 1 {
		return p.Name
	}
	return p.Name + ":" + strconv.Itoa(index)
}

// Exit is an end of a process: an exit code, or the signal it died of.
type Exit struct {
	Code   int
	Signal string // without SIG; empty: Code counts
}

// Limits are what the kernel grants a program. Nil and empty mean: inherited.
type Limits struct {
	// Rlimits maps the lower-case name of a resource (nofile, core, nproc …)
	// to its limits.
	Rlimits     map[string]Rlimit
	Nice        *int
	OOMScoreAdj *int
}

// Rlimit is a soft and a hard limit; Unlimited means no limit.
type Rlimit struct{ Soft, Hard uint64 }

// Unlimited is RLIM_INFINITY.
const Unlimited = ^uint64(0)

// Backoff says how long to wait between attempts to start a program.
type Backoff struct {
	Initial     time.Duration // default 1s
	Max         time.Duration // default 60s
	Factor      float64       // default 2
	Jitter      float64       // share of a wait that is random, 0 to 1; default 0.1
	ResetAfter  time.Duration // a task that ran this long clears the count; default 60s
	Burst       int           // default 5
	BurstWindow time.Duration // default 10s
}

// Kill says how a program is ended.
type Kill struct {
	// Sequence replaces StopSignal and StopTime: each signal in turn, each
	// followed by its wait; after the last the tree is killed.
	Sequence []KillStep
	// Exclude lists process names (comm, in any case) that get no stop signal.
	// They are killed with the rest at the end.
	Exclude []string
}

// KillStep is one signal of a stop, and how long to wait after it.
type KillStep struct {
	Signal string
	Wait   time.Duration
}
