package config

import (
	"slices"
	"time"
)

// field declares one key: how it is written, read and shown, its default and
// what a change of it requires. Decoding, messages, defaults, documentation,
// the JSON schema, the flags of exec and the comparison at a reload all come
// from here.
type field[T any] struct {
	key      string
	kind     string // the type's name
	accepted string
	text     string // the default as it would stand in a file; empty: not set
	doc      string
	requires Change
	repeated bool
	secret   bool
	table    bool // as a flag it is KEY=VALUE
	schema   pairs
	set      func(r *reader, t *T, n *node)
	get      func(t *T) any
}

// declare makes a field of a codec and of where the value is kept.
func declare[T, V any](key string, c codec[V], at func(*T) *V, text string, requires Change, doc string) field[T] {
	return field[T]{
		key: key, kind: c.name, accepted: c.accepted, text: text, doc: doc, requires: requires,
		repeated: c.repeated, secret: c.secret, table: c.name == "table of strings", schema: c.schema,
		set: func(r *reader, t *T, n *node) {
			if value, ok := c.read(r, n); ok {
				*at(t) = value
			}
		},
		get: func(t *T) any { return c.show(*at(t)) },
	}
}

// programFields are the keys of a program, in the order in which they are
// shown.
var programFields = slices.Concat([]field[Program]{
	declare("cmd", commandCodec, func(p *Program) *[]string { return &p.Cmd }, "", Respawn,
		"The command to run: a line that is split into words like a shell's (quotes and backslashes count, nothing else does), or a list of words. No shell runs it."),
	declare("type", wordCodec([]string{"service", "oneshot"}, nil), func(p *Program) *string { return &p.Type }, "service", Live,
		"A `service` is meant to stay up. A `oneshot` is meant to end: an early exit is not a failed start."),
	declare("numprocs", numprocsCodec, func(p *Program) *int { return &p.NumProcs }, "1", Scale,
		"How many instances to run. In YAML a missing number and 0 mean 1."),
	declare("priority", intCodec(0, 1_000_000), func(p *Program) *int { return &p.Priority }, "999", Live,
		"Programs of a lower number are started earlier and stopped later."),
	declare("group", groupCodec, func(p *Program) *string { return &p.Group }, "", Live,
		"A name under which several programs are selected, as `group:NAME`."),
	declare("autostart", boolCodec, func(p *Program) *bool { return &p.Autostart }, "true", Live,
		"Whether the program is started with the daemon."),
	declare("on_daemon_death", wordCodec([]string{"keep", "stop"}, nil), func(p *Program) *string { return &p.OnDaemonDeath }, "keep", Live,
		"What becomes of the program when the process that owns it is killed: it runs on (`keep`), or it is stopped and started anew as soon as a process of pm takes over (`stop`)."),
	declare("autorestart", restartCodec, func(p *Program) *string { return &p.Autorestart }, "unexpected", Live,
		"Whether an instance that ended by itself is started again: `always` (also true, yes), `never` (also false, no), or after `unexpected` exits only."),
	declare("exitcodes", exitsCodec, func(p *Program) *[]Exit { return &p.ExitCodes }, "0", Live,
		"The ends that are expected: exit codes, and names of signals."),
	declare("startretries", retriesCodec, func(p *Program) *int { return &p.StartRetries }, "3", Live,
		"How often a failed start is tried again before pm gives up."),
	declare("starttime", durationCodec, func(p *Program) *time.Duration { return &p.StartTime }, "1s", Live,
		"How long an instance must stay up to count as started. An exit before that is a failed start, whatever its code."),
	declare("stopsignal", signalCodec, func(p *Program) *string { return &p.StopSignal }, "TERM", Live,
		"The signal that asks the program to stop."),
	declare("stoptime", durationCodec, func(p *Program) *time.Duration { return &p.StopTime }, "10s", Live,
		"How long to wait after the stop signal before the whole process tree is killed."),
	declare("umask", orNil(umaskCodec), func(p *Program) **int { return &p.Umask }, "", Respawn,
		"The file mode mask, in octal. In TOML write `\"022\"` or `0o22`; in YAML 022, 22 and 0o22 are the same. Default: the daemon's own."),
	declare("workingdir", pathCodec, func(p *Program) *string { return &p.WorkingDir }, "", Respawn,
		"The directory to run in. Default: the daemon's own."),
	declare("user", userCodec, func(p *Program) *string { return &p.User }, "", Respawn,
		"The user to run as, with the groups of that user; a group after a colon takes the place of the first of them. Default: the daemon's own."),
	declare("stdin", inputCodec, func(p *Program) *string { return &p.Stdin }, "", Respawn,
		"A file to read standard input from, or `attach` for what `pm attach` sends. Default: /dev/null."),
	declare("stdout", outputCodec("discard", "inherit", "syslog", "journald"), func(p *Program) *string { return &p.Stdout }, "", Respawn,
		"A file that standard output is appended to, `discard` (also /dev/null), `inherit` for that of the daemon, `syslog` or `journald`, which a colon and the path of another socket may follow. Default: the daemon keeps the last of it for `pm logs`."),
	declare("stderr", outputCodec("discard", "inherit", "syslog", "journald", "stdout"), func(p *Program) *string { return &p.Stderr }, "", Respawn,
		"Like `stdout`, for standard error; `stdout` sends it to the same place."),
	declare("env", mapCodec("environment variables", true, validEnvName), func(p *Program) *map[string]string { return &p.Env }, "", Respawn,
		"Environment variables, on top of the daemon's own. Numbers and booleans are taken as they stand."),
	declare("env_file", envFileCodec, func(p *Program) *[]string { return &p.EnvFile }, "", Respawn,
		"Files of `NAME=value` lines, read in order at every launch; `env` wins over them. A `-` before a path allows the file to be missing."),
	declare("labels", mapCodec("labels", false, validLabel), func(p *Program) *map[string]string { return &p.Labels }, "", Live,
		"Names and values of your own."),
	declare("logs.rotate", sizeCodec, func(p *Program) *int64 { return &p.Logs.Rotate }, "", Live,
		"When the files of `stdout` and `stderr` would get longer, they are rotated: FILE becomes FILE.1, that FILE.2 and so on, and a new one begins. Lines stay whole. pm then writes the files, so that a program is respawned by a reload that begins or ends it. Default: the program writes them itself, for ever."),
	declare("logs.rotate_age", ageCodec, func(p *Program) *time.Duration { return &p.Logs.RotateAge }, "", Live,
		"The files are also rotated when a new period of this length has begun, counted from midnight UTC: `24h` makes a file a day. It is done with the first line of the new period. Default: never."),
	declare("logs.files", intCodec(0, 1_000_000), func(p *Program) *int { return &p.Logs.Files }, "5", Live,
		"How many rotated files are kept."),
	declare("logs.total", sizeCodec, func(p *Program) *int64 { return &p.Logs.Total }, "", Live,
		"How much a file and its rotated files may take together: the oldest go first. Default: no matter."),
	declare("logs.timestamps", zoneCodec, func(p *Program) *string { return &p.Logs.Timestamps }, "off", Live,
		"Puts the time before each line of the files, in this zone: 2026-01-02T15:04:05.678Z. It is the time at which pm has read the line."),
	declare("logs.prefix", textCodec, func(p *Program) *string { return &p.Logs.Prefix }, "", Live,
		"Stands before each line of the files, behind the time. `{instance}` and `{stream}` are replaced. Default: nothing."),
	declare("logs.format", wordCodec([]string{"raw", "json"}, nil), func(p *Program) *string { return &p.Logs.Format }, "raw", Live,
		"`raw` are the bytes that the program prints. With `json` each line of the files is an object with `time`, `instance`, `stream` and `line`, and `base64` where that is no UTF-8; pieces of a line that is very long, or has no end, have `partial`."),
	declare("logs.compress", boolCodec, func(p *Program) *bool { return &p.Logs.Compress }, "false", Live,
		"Whether rotated files are compressed with gzip, in the background: FILE.2 becomes FILE.2.gz. FILE.1 stays as it is, for those who follow it to its end."),
	declare("logs.on_full", wordCodec([]string{"block", "drop"}, nil), func(p *Program) *string { return &p.Logs.OnFull }, "block", Live,
		"What happens when the files cannot be written, since their disk is full: `block` lets the program wait, once its pipe is full; `drop` drops whole lines then, and `pm status` counts them. A program that writes its files itself gets the error itself."),
}, scrapeFields, rlimitFields(), []field[Program]{
	declare("limits.nice", orNil(intCodec(-20, 19)), func(p *Program) **int { return &p.Limits.Nice }, "", Respawn,
		"The niceness: -20 is the most favoured, 19 the least."),
	declare("limits.oom_score_adj", orNil(intCodec(-1000, 1000)), func(p *Program) **int { return &p.Limits.OOMScoreAdj }, "", Respawn,
		"How readily the kernel kills the program when memory runs out: -1000 never, 1000 first."),
	declare("backoff.initial", durationCodec, func(p *Program) *time.Duration { return &p.Backoff.Initial }, "1s", Live,
		"The wait before the first retry of a failed start."),
	declare("backoff.max", durationCodec, func(p *Program) *time.Duration { return &p.Backoff.Max }, "1m", Live,
		"The longest wait."),
	declare("backoff.factor", floatCodec(1, 100), func(p *Program) *float64 { return &p.Backoff.Factor }, "2", Live,
		"By how much each wait is longer than the one before."),
	declare("backoff.jitter", floatCodec(0, 1), func(p *Program) *float64 { return &p.Backoff.Jitter }, "0.1", Live,
		"The share of a wait that is random."),
	declare("backoff.reset_after", durationCodec, func(p *Program) *time.Duration { return &p.Backoff.ResetAfter }, "1m", Live,
		"An instance that was up this long starts again with short waits."),
	declare("backoff.burst", intCodec(0, 1_000_000), func(p *Program) *int { return &p.Backoff.Burst }, "5", Live,
		"After more than this many restarts within `backoff.burst_window` restarts are no longer immediate."),
	declare("backoff.burst_window", durationCodec, func(p *Program) *time.Duration { return &p.Backoff.BurstWindow }, "10s", Live,
		"See `backoff.burst`."),
	declare("kill.sequence", stepsCodec, func(p *Program) *[]KillStep { return &p.Kill.Sequence }, "", Live,
		"Signals to stop the program with, each with the wait that follows it: `[\"INT 5s\", \"TERM 10s\"]`. It replaces `stopsignal` and `stoptime`; after the last wait the tree is killed."),
	declare("kill.exclude", listCodec, func(p *Program) *[]string { return &p.Kill.Exclude }, "", Live,
		"Names of processes of the tree that get no stop signal. They are killed with the rest at the end."),
})

// restartCodec has the words of taskmaster, and what people write for them.
var restartCodec = wordCodec([]string{"always", "never", "unexpected"},
	map[string]string{"true": "always", "yes": "always", "on": "always", "false": "never", "no": "never", "off": "never"})

// resources are the limits of setrlimit(2) that a program can be given, with
// what each bounds. rttime is not among them: pm marks process trees with it.
var resources = []struct{ name, bounds string }{
	{"as", "the address space, in bytes"},
	{"core", "the size of a core file, in bytes"},
	{"cpu", "the CPU time, in seconds"},
	{"data", "the data segment, in bytes"},
	{"fsize", "the size of a file it writes, in bytes"},
	{"locks", "the number of file locks"},
	{"memlock", "the memory locked into RAM, in bytes"},
	{"msgqueue", "the bytes in POSIX message queues"},
	{"nofile", "the number of open files"},
	{"nproc", "the number of processes of its user"},
	{"rss", "the resident set, in bytes (without effect on Linux)"},
	{"rtprio", "the real-time priority"},
	{"sigpending", "the number of queued signals"},
	{"stack", "the stack, in bytes"},
}

func rlimitFields() []field[Program] {
	fields := make([]field[Program], len(resources))
	for i, resource := range resources {
		fields[i] = rlimitField(resource.name, "Bounds "+resource.bounds+".")
	}
	return fields
}

func rlimitField(name, doc string) field[Program] {
	f := declare[Program]("limits."+name, rlimitCodec, nil, "", Respawn, doc)
	f.set = func(r *reader, p *Program, n *node) {
		limit, ok := rlimitCodec.read(r, n)
		if !ok {
			return
		}
		if p.Limits.Rlimits == nil {
			p.Limits.Rlimits = map[string]Rlimit{}
		}
		p.Limits.Rlimits[name] = limit
	}
	f.get = func(p *Program) any {
		limit, given := p.Limits.Rlimits[name]
		if !given {
			return nil
		}
		return rlimitCodec.show(limit)
	}
	return f
}

// daemonFields are the keys of [daemon].
var daemonFields = []field[Daemon]{
	declare("socket", pathCodec, func(d *Daemon) *string { return &d.Socket }, "", Restart,
		"The path of the control socket. Default: `$PM_SOCKET`, else /run/pm/pm.sock for root, else `$XDG_RUNTIME_DIR`/pm/pm.sock."),
	declare("group", userCodecOf("a group, by name or number"), func(d *Daemon) *string { return &d.Group }, "", Restart,
		"A group whose members may use the socket. Default: its owner only."),
	declare("state_dir", pathCodec, func(d *Daemon) *string { return &d.StateDir }, "", Restart,
		"Where the daemon keeps its state. Default: `$PM_STATE_DIR`, else /var/lib/pm, else `$XDG_STATE_HOME`/pm."),
	declare("log", wordCodec([]string{"stderr", "journald"}, nil), func(d *Daemon) *string { return &d.Log }, "stderr", Restart,
		"Where the daemon's own log goes: `stderr`, or `journald`, the journal of systemd."),
	declare("log_file", pathCodec, func(d *Daemon) *string { return &d.LogFile }, "", Restart,
		"A file for the daemon's own log, unless that goes to the journal. Default: none."),
	declare("log_format", wordCodec([]string{"text", "json"}, nil), func(d *Daemon) *string { return &d.LogFormat }, "text", Restart,
		"How the daemon's log is written."),
	declare("port", portCodec, func(d *Daemon) *int { return &d.Port }, "", Restart,
		"Read for the sake of taskmaster files, without effect: pm listens on a Unix socket."),
	declare("ip", textCodec, func(d *Daemon) *string { return &d.IP }, "", Restart,
		"Like `port`."),
}

// userCodecOf is a single user or group name.
func userCodecOf(accepted string) codec[string] {
	c := userCodec
	c.name, c.accepted = "name", accepted
	return c
}

// emailEvents are the events that a mail can be sent for.
var emailEvents = []string{"fatal", "exited", "backoff", "starting", "running", "stopping", "stopped", "reload", "command"}

// emailFields are the keys of [email].
var emailFields = []field[Email]{
	declare("to", addressesCodec, func(e *Email) *[]string { return &e.To }, "", Live,
		"Whom to tell. No mail is sent without."),
	declare("from", addressCodec, func(e *Email) *string { return &e.From }, "", Live,
		"The sender. Default: pm at this machine's name."),
	declare("server", serverCodec, func(e *Email) *string { return &e.Server }, "localhost:25", Live,
		"The mail server, host:port."),
	declare("tls", wordCodec([]string{"none", "starttls", "tls"}, nil), func(e *Email) *string { return &e.TLS }, "starttls", Live,
		"How the connection is secured. `starttls` never falls back to `none`."),
	declare("username", textCodec, func(e *Email) *string { return &e.Username }, "", Live,
		"The name to log in with. Default: no login."),
	declare("password_file", pathCodec, func(e *Email) *string { return &e.PasswordFile }, "", Live,
		"A file with the password, read when a mail is sent. It must not be readable by everybody."),
	declare("events", wordsCodec(emailEvents), func(e *Email) *[]string { return &e.Events }, "fatal, exited, backoff", Live,
		"The events to tell of; `exited` is told when it was not expected."),
	declare("interval", durationCodec, func(e *Email) *time.Duration { return &e.Interval }, "30s", Live,
		"Events that are no further apart go into one mail."),
	declare("max_per_hour", intCodec(1, 3600), func(e *Email) *int { return &e.MaxPerHour }, "20", Live,
		"No more mails than this within an hour; what was held back is summed up."),
}

// topFields are the keys at the top of a file that are no tables.
var topFields = []field[File]{
	declare("include", listCodec, func(f *File) *[]string { return &f.include }, "", Live,
		"More files to read, as patterns such as `conf.d/*.toml` that start at this file's directory. An included file includes no others."),
	declare("logout", pathCodec, func(f *File) *string { return &f.Daemon.LogFile }, "", Restart,
		"taskmaster's name for `daemon.log_file`."),
	declare("port", portCodec, func(f *File) *int { return &f.Daemon.Port }, "", Restart,
		"taskmaster's control port; read, without effect."),
	declare("ip", textCodec, func(f *File) *string { return &f.Daemon.IP }, "", Restart,
		"taskmaster's control address; read, without effect."),
}

// keys lists the keys of fields.
func keys[T any](fields []field[T]) []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.key
	}
	return names
}

// setDefaults gives t the default of every field.
func setDefaults[T any](fields []field[T], t *T) {
	r := &reader{}
	for _, f := range fields {
		if f.text != "" {
			f.set(r, t, scalar(pos{}, f.text))
		}
	}
}

// Field is one key of a program, for the flags and the documentation that are
// made of it.
type Field struct {
	Key      string // with dots for nested keys: backoff.initial
	Type     string
	Doc      string
	Default  string // as it would stand in a file; empty: not set
	Accepted string
	Requires Change // what a reload has to do when it changes
	Repeated bool   // a flag that may be given several times

	of field[Program]
}

// Fields returns the keys of a program in the order of their declaration.
func Fields() []Field {
	fields := make([]Field, len(programFields))
	for i, f := range programFields {
		fields[i] = Field{f.key, f.kind, f.doc, f.text, f.accepted, f.requires, f.repeated, f}
	}
	return fields
}

// SetString sets the key of p from the values of a flag: one value, or
// several where the key is a list or a table (then each is KEY=VALUE). Nothing
// is expanded: the shell has done that.
func (f Field) SetString(p *Program, values []string) error {
	r := &reader{key: f.Key, secret: f.of.secret}
	n, err := flagNode(f.of, values)
	if err != nil {
		return err
	}
	f.of.set(r, p, n)
	if len(r.problems) > 0 {
		return &Errors{r.problems}
	}
	return nil
}
