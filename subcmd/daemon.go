package subcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"pm.example/alert"
	"pm.example/config"
	"pm.example/keeper"
	"pm.example/output"
	"pm.example/proc"
	"pm.example/runner"
	"pm.example/socket"
	"pm.example/systemd"
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
to stop. It stays in the foreground and logs to standard error, or to --log; with
--log journald, to the journal of systemd, where every entry has fields such as
PM_INSTANCE and PM_EVENT.

Signals: HUP reloads the file; TERM and INT stop all programs, those of the
highest priority number first, and end the daemon; a second one kills what is
left at once; USR1 ends the daemon and leaves the programs running, for the next
one to take over; USR2 opens the log file again, and the files that the daemon
writes for programs.

Examples:
  pm daemon -c examples/quickstart.toml
  pm daemon -c pm.toml --socket /tmp/pm.sock --log pm.log

Exit status: 0 stopped as it was told; 1 it could not go on; 2 the
configuration is wrong, or another daemon runs.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Destination: &o.config, Usage: "read the programs from `FILE` (default: ./pm.toml, then /etc/pm/pm.toml)"},
			&cli.StringFlag{Name: "state-dir", Destination: &o.stateDir, Usage: "keep the daemon's state in `DIR` (default: $PM_STATE_DIR, /var/lib/pm or $XDG_STATE_HOME/pm)"},
			&cli.StringFlag{Name: "log", Destination: &o.log, Usage: "log to `FILE`, or to journald, instead of standard error"},
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

// daemon is everything that runs inside the worker of pm daemon.
type daemon struct {
	link     *keeper.Link
	state    *state
	group    *runner.Group
	outputs  *outputs
	scrapers *scrapers
	events   *eventLog
	reloader *reloader
	mailer   *alert.Mailer
	manager  *announcer
	log      *slog.Logger
	logFile  *logFile

	quitOnce sync.Once
	quitting chan struct{} // closed when the end has begun
	// Set before quitting is closed.
	keep   bool   // programs run on after the end
	binary string // what the daemon is to become; empty: nothing
}

// heapGrowth is by how many percent the heaps of the daemon's processes may grow
// until garbage is collected. They are small, so that the usual 100 would mean a
// collection for every thousand events, in the middle of the burst that brings them;
// what a burst has taken is given back when it is quiet (see [proc.Trim]).
const heapGrowth = 400

// runDaemon is the keeper, or in a process that a keeper has started, the worker.
func runDaemon(ctx context.Context, e *env, o daemonOptions) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
	proc.CalmScheduler()
	if os.Getenv(workerEnv) == "" {
		return runKeeper(ctx, e)
	}
	_ = os.Unsetenv(workerEnv)
	return runWorker(ctx, e, o)
}

// runWorker takes the state directory and the socket, goes on with what an
// earlier worker has left or else starts the programs of the file, and serves
// until it is told to stop. Every refusal comes before the first program is
// started.
func runWorker(ctx context.Context, e *env, o daemonOptions) error {
	files := systemd.Files()
	if len(files) == 0 {
		return usagef("%s is for pm daemon itself; unset it", workerEnv)
	}
	link, err := keeper.Attach(files[0])
	if errors.Is(err, keeper.ErrGone) {
		return replaceKeeper(stderrLog(e), nil, "", nil)
	}
	if err != nil {
		return err
	}
	proc.SetName(workerName)
	proc.MoreFiles()
	b, err := begin(e, o, link)
	if err != nil {
		return usageError(err)
	}
	listener, err := listen(e, b.file, activated(link.Hello().Held))
	if err != nil {
		return usageError(err)
	}
	d, err := newDaemon(b, o, e, link)
	if err != nil {
		_ = listener.Close()
		return usageError(err)
	}
	defer d.close()
	// Who reads the daemon's stderr may go away, and the daemon must not go with
	// it: a write then fails, and that is all.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	err = d.takeOver(e, b)
	if errors.Is(err, keeper.ErrGone) {
		return d.bereaved(b)
	}
	if err != nil {
		_ = listener.Close()
		return usageError(err)
	}
	for _, w := range b.warnings {
		d.log.Warn("configuration", "problem", w.String())
	}
	return d.serve(ctx, listener, b)
}

// listen returns the control socket: the one that the daemon was started with, or
// else its own.
func listen(e *env, file *config.File, activated []*os.File) (net.Listener, error) {
	options := socket.ListenOptions{Group: file.Daemon.Group}
	given, err := socket.Given(activated, options)
	if given != nil || err != nil {
		return given, err
	}
	return socket.Listen(listenPath(e, file), options)
}

// beginning is what a worker begins with.
type beginning struct {
	file     *config.File // in force
	scaled   map[string]int
	programs []*runner.Program
	environ  []string
	warnings []config.Problem
	dir      string // the state directory
	lock     *os.File
	state    *state
	damage   error          // what of the state could not be read; nil: nothing
	saved    []runner.Saved // instances that an earlier worker has left
	resumed  bool           // an earlier worker was killed, and this one goes on
	newer    bool           // what was in force then is not what the file says now
}

// begin finds out what to begin with: what an earlier worker has left, or else
// the file.
func begin(e *env, o daemonOptions, link *keeper.Link) (*beginning, error) {
	hello := link.Hello()
	b := &beginning{environ: programEnviron(os.Environ()), dir: hello.StateDir, lock: hello.Held["lock"], resumed: hello.StateDir != ""}
	if !b.resumed {
		if err := b.fromFile(e, o, link); err != nil {
			return nil, err
		}
	}
	_ = nameHolder(b.lock) // on a full disk it stays what it was
	var err error
	if b.state, b.damage, err = openState(b.dir); err != nil {
		return nil, err
	}
	saved, instances, err := b.state.saved()
	b.damage = errors.Join(b.damage, err)
	if saved != nil {
		if programs, err := assembleAll(saved.File, b.environ, outputDir(e, b.dir)); err != nil {
			b.damage = errors.Join(b.damage, fmt.Errorf("the saved configuration is not used: %w", err))
		} else {
			b.useSaved(saved, instances, programs)
		}
	}
	if b.file == nil { // a keeper remembers a worker that has saved nothing
		err = b.fromFile(e, o, link)
	}
	return b, err
}

func (b *beginning) fromFile(e *env, o daemonOptions, link *keeper.Link) error {
	path, err := config.Find(o.config)
	if err != nil {
		return err
	}
	file, warnings, err := config.Load(path, os.LookupEnv)
	if err != nil {
		return err
	}
	known := b.dir != ""
	if !known {
		b.dir = stateDir(e, o, file)
	}
	if b.programs, err = assembleAll(file, b.environ, outputDir(e, b.dir)); err != nil {
		return err
	}
	b.file, b.warnings = file, append(warnings, file.CheckMachine()...)
	if known {
		return nil
	}
	if b.lock, err = lockStateDir(b.dir); err != nil {
		return err
	}
	return link.Hold("lock", b.lock)
}

func (b *beginning) useSaved(saved *savedConfig, instances []runner.Saved, programs []*runner.Program) {
	if b.file != nil {
		saved.File.Path = b.file.Path
		b.newer = true
	}
	b.file, b.scaled, b.programs, b.saved = saved.File, saved.Scaled, programs, instances
}

// newDaemon makes the parts and puts them together.
func newDaemon(b *beginning, o daemonOptions, e *env, link *keeper.Link) (*daemon, error) {
	file := b.file
	d := &daemon{quitting: make(chan struct{}), link: link, state: b.state}
	var err error
	if d.logFile, d.log, err = openDaemonLog(e, chosenLog(o, file.Daemon)); err != nil {
		return nil, err
	}
	if d.mailer, err = alert.New(mailOptions(file.Email), d.log); err != nil {
		return nil, err
	}
	loop, err := output.NewLoop()
	if err != nil {
		return nil, err
	}
	d.outputs = newOutputs(loop, link.Drained, d.log)
	d.outputs.configure(file.Programs)
	d.scrapers = newScrapers(d.outputs, d.log)
	d.events = newEventLog(d.log, d.logFile, d.mailer)
	d.events.state = d.state
	d.state.log, d.state.committed, d.state.recent = d.log, d.events.committed, d.events.recent
	d.group = runner.New(runner.Options{
		Host: link, Journal: d.state,
		Tell: func(ev runner.Event) { d.events.note(wireEvent(ev)) },
		Capture: func(program string, index int, ev proc.Event) {
			if err := d.outputs.capture(program, index, ev); err != nil {
				d.log.Error("output is lost", "program", program, "error", err)
			}
		},
		Drop: d.outputs.drop,
		Log:  d.log,
	})
	d.manager = newAnnouncer(e.getenv, d.group, d.events)
	d.reloader = &reloader{group: d.group, events: d.events, manager: d.manager, log: d.log, environ: b.environ, file: file, programs: b.programs, scaled: b.scaled, state: d.state, outputs: d.outputs, scrapers: d.scrapers, mailer: d.mailer}
	if b.scaled == nil {
		d.reloader.scaled = map[string]int{}
	}
	return d, nil
}

func (d *daemon) close() {
	d.link.Close()
	d.outputs.loop.Close()
	d.state.close()
}

// takeOver goes on where an earlier worker was: from here on the keeper's tasks
// are this daemon's.
func (d *daemon) takeOver(e *env, b *beginning) error {
	if b.damage != nil {
		d.log.Error("the saved state", "problem", b.damage)
	}
	run := runDir(e, b.dir)
	d.outputs.dir = outputDir(e, b.dir)
	if err := os.MkdirAll(d.outputs.dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the run directory: %w", err)
	}
	if err := d.outputs.sweep(b.programs, b.saved); err != nil {
		d.log.Warn("kept output", "problem", err)
	}
	d.scrapers.configure(b.file.Programs)
	past := runner.Past{
		Rebooted: b.state.rebooted, Orphaned: !b.resumed || d.link.Hello().Orphaned,
		Closing: b.resumed && b.state.closing,
	}
	if past.Closing {
		d.quit(false)
	}
	events := b.state.events
	d.events.restore(events, b.state.logged)
	d.state.begin(events, past.Closing)
	if b.saved == nil || b.newer {
		d.state.setConfig(savedConfig{File: b.file, Scaled: b.scaled})
	}
	warnings, err := d.link.Open(b.dir, filepath.Join(run, "keeper"))
	if err != nil {
		return err
	}
	for _, w := range warnings {
		d.log.Error("the keeper's records", "problem", w)
	}
	for _, fault := range d.group.Restore(b.programs, b.saved, past) {
		d.log.Error("the saved state", "problem", fault)
	}
	return nil
}

// quit begins the end; with keep programs run on.
func (d *daemon) quit(keep bool) {
	d.quitOnce.Do(func() {
		d.keep = keep
		close(d.quitting)
	})
}

// upgrade ends this worker in favor of one of another program.
func (d *daemon) upgrade(binary string) {
	d.quitOnce.Do(func() {
		d.keep, d.binary = true, binary
		close(d.quitting)
	})
}

// logPatience is how long the daemon's end waits for a log that takes no more,
// such as a pipe whose reader is stuck.
const logPatience = 2 * time.Second

// serve runs everything until the daemon has stopped all programs. The order of
// the end is that of the beginning backwards: first the programs, while clients
// can still watch; then the socket; last the log.
func (d *daemon) serve(ctx context.Context, listener net.Listener, b *beginning) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)

	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	var parts errgroup.Group
	logging, stopLogging := context.WithCancel(work)
	defer stopLogging()
	parts.Go(func() error { return d.group.Run(work) })             // ends with work
	parts.Go(func() error { return d.runMailer(logging) })          // ends with logging
	parts.Go(func() error { d.signals(work, signals); return nil }) // ends with work
	parts.Go(func() error { d.manager.run(work); return nil })      // ends with work

	d.started(listener.Addr().String())
	parts.Go(func() error { // ends with work
		d.state.sync(work.Done(), func() { _ = d.group.Turn(work) })
		return nil
	})
	if b.newer {
		_, _ = d.reloader.run(work, false) // a failure is an event; what was in force stays
	}
	// Whoever has connected by now is answered when the programs are known.
	logged := make(chan struct{})
	go func() { defer close(logged); d.events.run(logging) }() // ends with logging, or with the process
	serving, stopServing := context.WithCancelCause(work)
	defer stopServing(nil)
	parts.Go(func() error { // ends with serving, or when the socket fails
		err := socket.Serve(serving, listener, d.service(), socket.ServerOptions{Log: d.log, Panicked: crash})
		if err != nil {
			d.quit(false)
		}
		return err
	})
	d.link.Serving()
	d.manager.serving()
	bereaved := func() error {
		if d.link.Fault() == nil {
			return d.bereaved(b)
		}
		stopWork() // in order: the keeper lives, and starts the next worker
		return errors.Join(d.bereaved(b), parts.Wait())
	}
	select {
	case <-d.quitting:
	case <-d.link.Gone():
		return bereaved()
	case <-ctx.Done():
		d.quit(false)
	}
	if d.binary == "" {
		d.manager.end()
	}
	ended := make(chan error, 1)
	go func() { ended <- d.end(work) }() // ends with the programs, or with the process
	var err error
	select {
	case err = <-ended:
	case <-d.link.Gone():
		return bereaved()
	}
	d.events.publish(socket.Event{Time: time.Now().UTC(), Type: eventDaemonStopped, PID: os.Getpid()})
	switch {
	case d.binary != "":
		stopServing(socket.ErrReplaced)
	case d.keep:
		stopServing(socket.ErrLeft)
	default:
		stopServing(nil)
	}
	stopLogging()
	stopWork()
	select {
	case <-logged:
	case <-time.After(logPatience):
	}
	err = errors.Join(err, parts.Wait())
	code := 0
	if err != nil {
		code = 1
	}
	if d.binary != "" {
		d.link.Upgrade(d.binary)
		<-d.link.Gone()
		return d.bereaved(b)
	}
	d.link.End(code, d.keep)
	return err
}

// bereaved takes the place of the keeper, which is gone. If that lives and only
// cannot be heard, this worker ends and the keeper starts the next.
func (d *daemon) bereaved(b *beginning) error {
	if fault := d.link.Fault(); fault != nil {
		return fault
	}
	return replaceKeeper(d.log, d.link, b.dir, b.lock)
}

// crash ends the worker as a panic does that nobody recovers. A worker that has
// panicked is not to be trusted with more; the next one begins from what was
// written down.
func crash(value any) {
	go panic(value) // ends the process
	select {}
}

// end stops all programs, unless they are to run on: then their states stay
// recorded for the next daemon.
func (d *daemon) end(ctx context.Context) error {
	if d.keep {
		d.scrapers.end(true)
		return nil
	}
	d.state.setClosing()
	err := d.group.Shutdown(ctx)
	d.scrapers.end(false)
	return errors.Join(err, d.group.Forget(ctx))
}

func (d *daemon) started(address string) {
	kind, message := eventDaemonStarted, fmt.Sprintf("pm %s serves %s on %s", version(), d.reloader.path(), address)
	switch hello := d.link.Hello(); {
	case hello.Upgraded:
		kind = eventUpgraded
	case hello.Refused != "":
		kind, message = eventUpgradeFailed, "the old program goes on: "+hello.Refused
	case hello.Previous != "":
		kind, message = eventWorkerStarted, message+", after a worker that was "+hello.Previous
	}
	d.events.publish(socket.Event{Time: time.Now().UTC(), Type: kind, PID: os.Getpid(), Message: message})
}

func (d *daemon) service() *service {
	return &service{
		group: d.group, events: d.events, outputs: d.outputs, log: d.logFile.path, scrapers: d.scrapers, reload: d.reloader, started: time.Now(), quit: d.quit, upgrade: d.upgrade,
		info: socket.DaemonInfo{PID: os.Getpid(), Keeper: os.Getppid(), Version: version()},
	}
}

// signals does what the signals ask for until ctx ends.
func (d *daemon) signals(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case sig := <-d.link.Signals():
			d.events.publish(socket.Event{Time: time.Now().UTC(), Type: eventCommand, By: "signal", Message: "SIG" + proc.SignalName(sig)})
			d.signal(ctx, sig)
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
	case syscall.SIGUSR1:
		d.quit(true)
	case syscall.SIGUSR2:
		d.outputs.reopen()
		if err := d.logFile.reopen(); err != nil {
			d.log.Error("the old log stays in use", "error", err)
		}
	default:
		select {
		case <-d.quitting:
			_ = d.group.KillAll(ctx)
		default:
			d.quit(false)
		}
	}
}

func (d *daemon) runMailer(ctx context.Context) error {
	if err := d.mailer.Run(ctx); err != nil { // no reason for the daemon to fail
		d.log.Error("mail", "error", err)
	}
	return nil
}

func mailOptions(c config.Email) alert.Options {
	host, _ := os.Hostname()
	return alert.Options{
		To: c.To, From: c.From, Server: c.Server, TLS: c.TLS, Username: c.Username, PasswordFile: c.PasswordFile,
		Events: c.Events, Interval: c.Interval, MaxPerHour: c.MaxPerHour, Host: host,
	}
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
	return userStateDir(e)
}

func userStateDir(e *env) string {
	if dir := e.getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "pm")
	}
	return filepath.Join(e.getenv("HOME"), ".local", "state", "pm")
}

// runDir is where a daemon keeps what a reboot makes worthless: in memory for a
// state directory that is the default, and else within it, so that no two
// daemons share one.
func runDir(e *env, stateDir string) string {
	if os.Geteuid() == 0 && stateDir == "/var/lib/pm" {
		return "/run/pm"
	}
	if dir := e.getenv("XDG_RUNTIME_DIR"); dir != "" && stateDir == userStateDir(e) {
		return filepath.Join(dir, "pm")
	}
	return filepath.Join(stateDir, "run")
}

// outputDir is where a daemon keeps what programs print, and the FIFOs that they
// read.
func outputDir(e *env, stateDir string) string { return filepath.Join(runDir(e, stateDir), "output") }

// version is the version of this binary, from its build information.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
