package subcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"pm.example/alert"
	"pm.example/config"
	"pm.example/output"
	"pm.example/proc"
	"pm.example/runner"
	"pm.example/socket"
)

// daemonOptions are the flags of pm daemon.
type daemonOptions struct {
	config   string
	stateDir string
	log      string
	format   string
}

func daemonCommand(e *env) *cli.Command {
	var o daemonOptions
	return &cli.Command{
		Name:      "daemon",
		Usage:     "supervise the programs of a config file",
		ArgsUsage: " ",
		Description: `Starts the programs that FILE describes and keeps them running until it is told
to stop. It stays in the foreground and logs to standard error, or to --log.

Signals: HUP reloads the file; TERM and INT stop all programs, those of the
highest priority number first, and end the daemon; a second one kills what is
left at once; USR2 opens the log file again.

Examples:
  pm daemon -c examples/quickstart.toml
  pm daemon -c pm.toml --socket /tmp/pm.sock --log pm.log

Exit status: 0 stopped as it was told; 1 it could not go on; 2 the
configuration is wrong, or another daemon runs.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Destination: &o.config, Usage: "read the programs from `FILE` (default: ./pm.toml, then /etc/pm/pm.toml)"},
			&cli.StringFlag{Name: "state-dir", Destination: &o.stateDir, Usage: "keep the daemon's state in `DIR` (default: $PM_STATE_DIR, /var/lib/pm or $XDG_STATE_HOME/pm)"},
			&cli.StringFlag{Name: "log", Destination: &o.log, Usage: "log to `FILE` instead of standard error"},
			&cli.StringFlag{Name: "log-format", Destination: &o.format, Usage: "log as `FORMAT`: text or json"},
			socketFlag(&e.socketCommand),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("pm daemon takes no arguments, got %q; the config file is named with -c", c.Args().First())
			}
			return runDaemon(c.Context, e, o)
		},
	}
}

// daemon is everything that runs inside pm daemon.
type daemon struct {
	keeper   *proc.Keeper
	group    *runner.Group
	outputs  *outputs
	events   *eventLog
	reloader *reloader
	mailer   *alert.Mailer // nil: no mail
	log      *slog.Logger
	logFile  *logFile

	quitOnce sync.Once
	quitting chan struct{} // closed when the end has begun
}

// runDaemon loads the file, takes the state directory and the socket, starts
// the programs and serves until it is told to stop. Every refusal comes before
// the first program is started.
func runDaemon(ctx context.Context, e *env, o daemonOptions) error {
	path, err := config.Find(o.config)
	if err != nil {
		return usageError(err)
	}
	file, warnings, err := config.Load(path, os.LookupEnv)
	if err != nil {
		return usageError(err)
	}
	environ := programEnviron(os.Environ())
	programs, err := assembleAll(file, environ)
	if err != nil {
		return usageError(err)
	}
	lock, err := lockStateDir(stateDir(e, o, file))
	if err != nil {
		return usageError(err)
	}
	defer func() { _ = lock.Close() }()
	listener, err := socket.Listen(listenPath(e, file), socket.ListenOptions{Group: file.Daemon.Group})
	if err != nil {
		return usageError(err)
	}
	d, err := newDaemon(file, o, e.stderr, environ)
	if err != nil {
		_ = listener.Close()
		return usageError(err)
	}
	defer d.close()
	// Who reads the daemon's stderr may go away, and the daemon must not go with
	// it: a write then fails, and that is all.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	for _, w := range append(warnings, file.CheckMachine()...) {
		d.log.Warn("configuration", "problem", w.String())
	}
	return d.serve(ctx, listener, programs)
}

// newDaemon makes the parts and puts them together.
func newDaemon(file *config.File, o daemonOptions, stderr io.Writer, environ []string) (*daemon, error) {
	d := &daemon{quitting: make(chan struct{})}
	var err error
	if d.logFile, err = openLog(orElse(o.log, file.Daemon.LogFile), stderr); err != nil {
		return nil, err
	}
	d.log = newLogger(d.logFile, orElse(o.format, file.Daemon.LogFormat))
	if d.mailer, err = newMailer(file.Email, d.log); err != nil {
		return nil, err
	}
	loop, err := output.NewLoop()
	if err != nil {
		return nil, err
	}
	d.outputs = &outputs{loop: loop, logs: map[outputKey]*output.Log{}}
	if d.keeper, err = proc.NewKeeper(d.log); err != nil {
		loop.Close()
		return nil, err
	}
	d.events = newEventLog(d.log, d.logFile, d.mailer)
	d.group = runner.New(runner.Options{
		Host: d.keeper,
		Tell: func(ev runner.Event) { d.events.publish(wireEvent(ev)) },
		Capture: func(program string, index int, ev proc.Event) {
			if err := d.outputs.capture(program, index, ev); err != nil {
				d.log.Error("output is lost", "program", program, "error", err)
			}
		},
		Drop: d.outputs.drop,
		Log:  d.log,
	})
	d.reloader = &reloader{group: d.group, events: d.events, log: d.log, environ: environ, file: file, scaled: map[string]int{}}
	return d, nil
}

func (d *daemon) close() {
	d.keeper.Close()
	d.outputs.loop.Close()
}

// quit begins the end.
func (d *daemon) quit() { d.quitOnce.Do(func() { close(d.quitting) }) }

// logPatience is how long the daemon's end waits for a log that takes no more,
// such as a pipe whose reader is stuck.
const logPatience = 2 * time.Second

// serve runs everything until the daemon has stopped all programs. The order of
// the end is that of the beginning backwards: first the programs, while clients
// can still watch; then the socket; last the log.
func (d *daemon) serve(ctx context.Context, listener net.Listener, programs []*runner.Program) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)

	debug.SetGCPercent(200) // start-up is a burst of garbage; quiet moments give it back (proc.Trim)
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	var parts errgroup.Group
	logging, stopLogging := context.WithCancel(work)
	parts.Go(func() error { return d.group.Run(work) })             // ends with work
	parts.Go(func() error { return d.runMailer(logging) })          // ends with logging
	parts.Go(func() error { d.signals(work, signals); return nil }) // ends with work

	d.started(listener.Addr().String())
	err := d.group.Apply(work, programs, nil)
	// Whoever has connected by now is answered when the programs are known.
	logged := make(chan struct{})
	go func() { defer close(logged); d.events.run(logging) }() // ends with logging, or with the process
	serving, stopServing := context.WithCancel(work)
	parts.Go(func() error { // ends with serving, or when the socket fails
		err := socket.Serve(serving, listener, d.service(), socket.ServerOptions{Log: d.log})
		if err != nil {
			d.quit()
		}
		return err
	})
	select {
	case <-d.quitting:
	case <-ctx.Done():
		d.quit()
	}
	err = errors.Join(err, d.group.Shutdown(work))
	d.events.publish(socket.Event{Time: time.Now().UTC(), Type: eventDaemonStopped, PID: os.Getpid()})
	stopServing()
	stopLogging()
	stopWork()
	select {
	case <-logged:
	case <-time.After(logPatience):
	}
	return errors.Join(err, parts.Wait())
}

func (d *daemon) started(address string) {
	d.events.publish(socket.Event{
		Time: time.Now().UTC(), Type: eventDaemonStarted, PID: os.Getpid(),
		Message: fmt.Sprintf("pm %s serves %s on %s", version(), d.reloader.path(), address),
	})
}

func (d *daemon) service() *service {
	return &service{
		group: d.group, events: d.events, outputs: d.outputs, reload: d.reloader, started: time.Now(), quit: d.quit,
		info: socket.DaemonInfo{PID: os.Getpid(), Keeper: os.Getpid(), Version: version()},
	}
}

// signals does what the signals ask for until ctx ends.
func (d *daemon) signals(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-signals:
			d.events.publish(socket.Event{Time: time.Now().UTC(), Type: eventCommand, By: "signal", Message: "SIG" + proc.SignalName(sig.(syscall.Signal))})
			d.signal(ctx, sig)
		}
	}
}

func (d *daemon) signal(ctx context.Context, sig os.Signal) {
	switch sig {
	case syscall.SIGHUP:
		_, _ = d.reloader.run(ctx, false) // a failure is an event
	case syscall.SIGUSR2:
		if err := d.logFile.reopen(); err != nil {
			d.log.Error("the old log stays in use", "error", err)
		}
	default:
		select {
		case <-d.quitting:
			_ = d.group.KillAll(ctx)
		default:
			d.quit()
		}
	}
}

func (d *daemon) runMailer(ctx context.Context) error {
	if d.mailer == nil {
		return nil
	}
	if err := d.mailer.Run(ctx); err != nil { // no reason for the daemon to fail
		d.log.Error("mail", "error", err)
	}
	return nil
}

func newMailer(c config.Email, log *slog.Logger) (*alert.Mailer, error) {
	if len(c.To) == 0 || c.Server == "" {
		return nil, nil
	}
	host, _ := os.Hostname()
	return alert.New(alert.Options{
		To: c.To, From: c.From, Server: c.Server, TLS: c.TLS, Username: c.Username, PasswordFile: c.PasswordFile,
		Events: c.Events, Interval: c.Interval, MaxPerHour: c.MaxPerHour, Host: host,
	}, log)
}

func orElse(text, other string) string {
	if text != "" {
		return text
	}
	return other
}

// listenPath is where the daemon listens: the flag or the environment first,
// then the file.
func listenPath(e *env, file *config.File) string {
	if e.socketCommand == "" && e.socketGlobal == "" && e.getenv("PM_SOCKET") == "" && file.Daemon.Socket != "" {
		return file.Daemon.Socket
	}
	return e.socketPath()
}

// stateDir is where the daemon keeps its state.
func stateDir(e *env, o daemonOptions, file *config.File) string {
	for _, dir := range []string{o.stateDir, e.getenv("PM_STATE_DIR"), file.Daemon.StateDir} {
		if dir != "" {
			return dir
		}
	}
	if os.Geteuid() == 0 {
		return "/var/lib/pm"
	}
	if dir := e.getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "pm")
	}
	return filepath.Join(e.getenv("HOME"), ".local", "state", "pm")
}

// lockStateDir makes the state directory this daemon's own until the returned
// file is closed: a second daemon on it is refused. The lock is the kernel's,
// so it ends with the process however that ends, and no program inherits it.
func lockStateDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the state directory: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot use the state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		return nil, &socket.Problem{
			Message: fmt.Sprintf("another daemon uses the state directory %s%s", dir, holder(f)),
			Hint:    "control it with pm --socket, or give this one its own with --state-dir and --socket",
			Code:    socket.CodeUsage,
		}
	}
	err = errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintf("%d\n", os.Getpid())))
	return f, err
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// holder tells the pid that a lock file names.
func holder(f *os.File) string {
	var buf [16]byte
	n, _ := f.ReadAt(buf[:], 0)
	if pid := strings.TrimSpace(string(buf[:n])); pid != "" {
		return " (pid " + pid + ")"
	}
	return ""
}

// version is the version of this binary, from its build information.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
