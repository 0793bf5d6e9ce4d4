package subcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"pm.example/config"
	"pm.example/output"
	"pm.example/proc"
	"pm.example/runner"
	"pm.example/socket"
	"pm.example/systemd"
	"pm.example/task"
)

// execOptions are the flags of pm exec, beside those of a program's keys.
type execOptions struct {
	config  string
	program string
	timeout time.Duration
	quiet   bool
	keys    map[string]*cli.StringSlice
}

func execCommand(e *env) *cli.Command {
	o := execOptions{keys: map[string]*cli.StringSlice{}}
	return &cli.Command{
		Name:      "exec",
		Usage:     "run one program in the foreground and leave nothing behind",
		ArgsUsage: "[--] CMD ARG…",
		Description: `Runs CMD, forwards signals to it, reaps what it leaves to init, and exits with
its status. When it has ended, whatever it started and left behind is ended too.

Every key of a program in a config file is a flag of the same name, but for cmd.
Since one instance runs, and at once, priority and group have no effect, numprocs can
only be 1 and autostart true. The defaults differ where a foreground program needs
it: it has pm's own terminal and descriptors (stdin, stdout and stderr are pm's), it
is not restarted (autorestart never), and no start counts as failed (starttime 0).

TERM stops the program as its stopsignal and stoptime say, and a second one kills
it. Every other signal is passed on, but for those that pm cannot take for others:
CHLD, PIPE, PROF, URG, 32 to 34, and on a terminal TTIN and TTOU. Nor is Ctrl-C: the
terminal itself sends it to the program, and what dies of it is not restarted.

Examples:
  pm exec -- make -j8 all
  pm exec --autorestart unexpected --startretries 5 -- ./server -port 80
  pm exec --umask 077 --env A=1 --limits.nofile 4096 --workingdir /srv -- ./job
  pm exec -c pm.toml --program web

Exit status: that of CMD; 128+n if signal n ended it; 126 if it cannot be
executed, 127 if it does not exist; 2 usage; 8 the --timeout ran out.`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Destination: &o.config, Usage: "take the program from `FILE`"},
			&cli.StringFlag{Name: "program", Destination: &o.program, Usage: "the `NAME` of the program in that file"},
			&cli.DurationFlag{Name: "timeout", Destination: &o.timeout, Usage: "stop the program after `TIME`"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Destination: &o.quiet, Usage: "do not tell of restarts"},
		}, programFlags(o.keys)...),
		Action: func(c *cli.Context) error {
			program, err := execProgram(c, o)
			if err != nil {
				return err
			}
			return runExec(c.Context, e, o, program)
		},
	}
}

// whyNoCmd says why the one key of a program that is no flag is none.
const whyNoCmd = "the command stands behind the flags: pm exec -- CMD ARG…"

// singleFlag is a flag of which a second value is refused, so that its help has it once.
type singleFlag struct{ *cli.StringSliceFlag }

// IsSliceFlag is false, unlike that of the flag itself.
func (singleFlag) IsSliceFlag() bool { return false }

// String is the line of the help.
func (f singleFlag) String() string { return cli.FlagStringer(f) }

// programFlags makes a flag of each key of a program.
func programFlags(values map[string]*cli.StringSlice) (flags []cli.Flag) {
	for _, f := range config.Fields() {
		if f.Key == "cmd" {
			continue
		}
		values[f.Key] = &cli.StringSlice{}
		flag := &cli.StringSliceFlag{Name: f.Key, KeepSpace: true, Destination: values[f.Key], Usage: flagUsage(f), Category: "a program's keys"}
		if f.Key == "autorestart" {
			flag.Aliases = []string{"restart"}
		}
		if f.Repeated {
			flags = append(flags, flag)
		} else {
			flags = append(flags, singleFlag{flag})
		}
	}
	return flags
}

// flagUsage is the doc of a key as it holds for pm exec.
func flagUsage(f config.Field) string {
	usage := strings.TrimSuffix(strings.ReplaceAll(f.Doc, "`", ""), ".")
	if f.Key == "stdin" || f.Key == "stdout" {
		usage, _, _ = strings.Cut(usage, "Default: ")
		usage += "Default: pm's own"
	}
	return strings.NewReplacer("the daemon's own", "pm's own", "that of the daemon", "that of pm").Replace(usage)
}

// listFlag returns the flag that f is, or wraps; nil if it takes no list.
func listFlag(f cli.Flag) *cli.StringSliceFlag {
	switch f := f.(type) {
	case *cli.StringSliceFlag:
		return f
	case singleFlag:
		return f.StringSliceFlag
	}
	return nil
}

// execProgram describes the program to run: from a file, from flags, or both.
func execProgram(c *cli.Context, o execOptions) (*config.Program, error) {
	program, err := execBase(c, o)
	if err != nil {
		return nil, err
	}
	for _, f := range config.Fields() {
		if values := o.keys[f.Key]; values != nil && len(values.Value()) > 0 {
			if err := f.SetString(program, values.Value()); err != nil {
				return nil, usagef("%s", flagFault(f.Key, err))
			}
		}
	}
	switch {
	case program.NumProcs > 1:
		return nil, usagef("--numprocs %d: pm exec runs one instance; see pm daemon", program.NumProcs)
	case !program.Autostart && len(o.keys["autostart"].Value()) > 0:
		return nil, usagef("--autostart false: pm exec starts its program at once; see pm daemon")
	}
	for _, where := range []*string{&program.Stdout, &program.Stderr} {
		if *where == "" && program.ThroughPM("inherit") { // lines that are to change
			*where = "inherit"
		}
	}
	if problems := config.Validate(program); len(problems) > 0 {
		texts := make([]string, len(problems))
		for n, p := range problems {
			texts[n] = p.String()
		}
		return nil, usagef("%s", strings.Join(texts, "; "))
	}
	return program, nil
}

// flagFault names the flag once: most faults begin with the key.
func flagFault(key string, err error) string {
	text := err.Error()
	if strings.HasPrefix(text, key+":") {
		return "--" + text
	}
	return fmt.Sprintf("--%s: %s", key, text)
}

func execBase(c *cli.Context, o execOptions) (*config.Program, error) {
	args := c.Args().Slice()
	if o.program == "" && o.config == "" {
		if len(args) == 0 {
			return nil, usagef("no command given: pm exec -- CMD ARG…")
		}
		program := config.NewProgram("exec")
		program.Cmd, program.Autorestart, program.StartTime, program.StartRetries = args, "never", 0, 0
		return program, nil
	}
	if o.program == "" || len(args) > 0 {
		return nil, usagef("a program of a config file is run with: pm exec -c FILE --program NAME")
	}
	path, err := config.Find(o.config)
	if err != nil {
		return nil, usageError(err)
	}
	file, _, err := config.Load(path, os.LookupEnv)
	if err != nil {
		return nil, usageError(err)
	}
	program := file.Program(o.program)
	if program == nil {
		return nil, &socket.Problem{Message: fmt.Sprintf("no program %q in %s", o.program, path), Code: socket.CodeUnknown}
	}
	one := *program
	one.NumProcs = 1
	return &one, nil
}

// foreground is one program that runs in the foreground.
type foreground struct {
	keeper  *jobKeeper
	manager systemd.Manager
	group   *runner.Group
	last    atomic.Pointer[runner.Event] // the event that ended it
	ended   chan struct{}
	outputs *outputs    // nil: nothing goes through pm
	scrape  *execScrape // nil: nothing is shipped
	log     *slog.Logger
	stderr  io.Writer
	quiet   bool
	asked   syscall.Signal // what told pm to stop it; 0: nothing yet
	again   bool           // it was to be tried again; for tell alone
}

// runExec runs the program until it has ended for good and nothing is left of
// it, and returns its end as an error that carries the exit status.
func runExec(ctx context.Context, e *env, o execOptions, program *config.Program) error {
	f, err := newForeground(e, o)
	if err != nil {
		return err
	}
	defer f.dieToo() // after the keeper has cleaned up
	defer f.keeper.Close()
	if f.scrape, err = newExecScrape(e, program, o.quiet); err != nil {
		return err
	}
	defer f.scrape.end()
	spec, err := execSpec(program, f.keeper.shared, f.scrape)
	if err != nil {
		return usageError(err)
	}
	if len(writtenFiles(program))+len(outletNames(program)) > 0 {
		if err := f.write(program); err != nil {
			return err
		}
		defer f.outputs.loop.Close()
	}
	// Handling a signal costs the runtime some 30 us, so before the launch only
	// those are taken that would end pm. None is given back: pm ends with the
	// program.
	signals := make(chan os.Signal, 64)
	first, next, rare := passedOn(f.keeper.tty != nil)
	signal.Notify(signals, first...)

	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan struct{})
	go func() { defer close(done); _ = f.group.Run(work) }() // ends with work
	if err := f.group.Apply(work, []*runner.Program{spec}, nil, nil); err != nil {
		return err
	}
	signal.Notify(signals, next...)
	defer time.AfterFunc(settled, func() { signal.Notify(signals, rare...) }).Stop()
	timedOut := f.wait(ctx, work, signals, o.timeout)
	stop()
	<-done
	f.keeper.EndRunaways() // one of them may hold a pipe
	f.keeper.reclaim()
	if f.outputs != nil {
		f.outputs.finish(program)
		f.outputs.loop.Settle()
	}
	if timedOut {
		return &socket.Problem{Message: fmt.Sprintf("%s was stopped after %s", program.Cmd[0], o.timeout), Code: socket.CodeTimeout}
	}
	return f.status()
}

func newForeground(e *env, o execOptions) (*foreground, error) {
	f := &foreground{manager: systemd.FindManager(e.getenv), ended: make(chan struct{}), stderr: e.stderr, quiet: o.quiet}
	log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	keeper, err := proc.NewJobKeeper(log)
	if err != nil {
		return nil, err
	}
	f.keeper, f.log = &jobKeeper{Keeper: keeper}, log
	f.keeper.tty, f.keeper.shared = terminalOf()
	f.group = runner.New(runner.Options{
		Host: f.keeper, Tell: f.tell, Log: log,
		Capture: f.capture,
		Drop:    func(string, int) {},
	})
	return f, nil
}

// write makes pm write the program's files, and send what goes elsewhere.
func (f *foreground) write(program *config.Program) error {
	loop, err := output.NewLoop()
	if err != nil {
		return err
	}
	f.outputs = newOutputs(loop, func(string, int) {}, f.log)
	f.outputs.configure([]*config.Program{program})
	return nil
}

// capture takes the pipes of a program whose output goes through pm.
func (f *foreground) capture(program string, index int, ev proc.Event) {
	f.scrape.capture(&ev)
	if f.outputs == nil {
		ev.ClosePipes()
		return
	}
	if err := f.outputs.capture(program, index, ev); err != nil {
		f.log.Error("output is lost", "problem", err)
	}
}

// execSpec is the program with pm's own descriptors where it names none.
func execSpec(p *config.Program, shared bool, scrape *execScrape) (*runner.Program, error) {
	spec, err := assemble(p, os.Environ(), "")
	if err != nil {
		return nil, err
	}
	listen := systemd.Files()
	template := spec.Command
	spec.Autostart = true
	spec.Final = []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} // a user's Ctrl-C is no failure to be repaired
	spec.Command = func(index int) (*proc.Command, error) {
		c, err := template(index)
		if err != nil {
			return nil, err
		}
		if p.Stdin == config.Attached {
			c.Stdin = proc.Stdio{Kind: proc.Descriptor, File: os.Stdin}
		}
		inherit(&c.Stdin, p.Stdin, os.Stdin)
		inherit(&c.Stdout, p.Stdout, os.Stdout)
		inherit(&c.Stderr, p.Stderr, os.Stderr)
		scrape.pipe(&c.Stdout)
		scrape.pipe(&c.Stderr)
		c.Terminal, c.Shared, c.Inherit, c.Listen = true, shared, len(listen) == 0, listen
		return c, nil
	}
	return spec, nil
}

func inherit(s *proc.Stdio, configured string, own *os.File) {
	if configured == "" {
		*s = proc.Stdio{Kind: proc.Descriptor, File: own}
	}
}

// tell watches for the end, and tells the user of what happens before.
func (f *foreground) tell(e runner.Event) {
	switch e.Type {
	case runner.EventRunning:
		_ = f.manager.Tell(systemd.Ready) // one that does not hear may stop pm, and says why
	case runner.EventBackoff:
		f.again = true
		f.say(e.Message)
	case runner.EventLingering:
		f.say(e.Message)
	case runner.EventExited, runner.EventFatal, runner.EventStopped:
		if f.again && e.Type == runner.EventFatal && e.Exit != nil {
			f.say(e.Message)
		}
		f.last.Store(&e)
	}
}

func (f *foreground) say(text string) {
	if !f.quiet {
		_, _ = fmt.Fprintln(f.stderr, "pm:", text)
	}
}

// wait passes signals on until the program has ended for good, and reports
// whether the timeout ended it.
func (f *foreground) wait(ctx, work context.Context, signals <-chan os.Signal, timeout time.Duration) (timedOut bool) {
	ended := make(chan struct{})
	go func() { // ends with the program, or with work
		defer close(ended)
		all, _ := runner.ParseSelector("all")
		_, _, _ = f.group.Wait(work, []runner.Selector{all}, false)
	}()
	var clock <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		clock = timer.C
	}
	interrupted := ctx.Done()
	for {
		select {
		case <-ended:
			return timedOut
		case <-clock:
			timedOut = true
			f.stop(work, syscall.SIGTERM)
		case <-interrupted:
			interrupted = nil
			f.stop(work, syscall.SIGTERM)
		case sig := <-signals:
			f.signal(work, sig.(syscall.Signal))
		}
	}
}

// signal stops the program on TERM, and passes every other signal on. While no
// program runs, as between two attempts, there is nobody to pass them to; and
// what a terminal sends to a job, the program has got as well.
func (f *foreground) signal(ctx context.Context, sig syscall.Signal) {
	living := f.keeper.List()
	switch sig {
	case syscall.SIGPIPE: // nobody reads pm's own messages any more
		return
	case syscall.SIGTERM:
		f.stop(ctx, sig)
		return
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP:
		if len(living) == 0 {
			f.stop(ctx, sig)
			return
		}
	}
	if f.keeper.fromTerminal(sig) {
		return
	}
	for id, leader := range living {
		f.keeper.pass(id, leader, sig)
	}
}

// settled is when a program has lived long enough to be sent the rarer signals.
const settled = 10 * time.Millisecond

// passedOn lists the signals to handle: all but those that cannot be told from
// what concerns pm itself, and those that pm was started to ignore, as by nohup;
// the program then ignores them too. On a terminal TTIN and TTOU stop a whole job,
// pm included. The first would end pm; if one of the others comes a moment too
// early it is lost. 32 to 34 are left out by the Go runtime, which gives them their
// default action: they belong to C libraries.
func passedOn(terminal bool) (first, next, rare []os.Signal) {
	fatal := []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE}
	often := []syscall.Signal{syscall.SIGABRT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGCONT, syscall.SIGWINCH}
	own := []syscall.Signal{syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPROF /* the Go runtime's */, syscall.SIGKILL, syscall.SIGSTOP}
	if terminal {
		own = append(own, syscall.SIGTTIN, syscall.SIGTTOU)
	}
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		switch {
		case slices.Contains(own, sig) || signal.Ignored(sig):
		case slices.Contains(fatal, sig):
			first = append(first, sig)
		case slices.Contains(often, sig):
			next = append(next, sig)
		default:
			rare = append(rare, sig)
		}
	}
	return first, next, rare
}

// stop stops the program gracefully; a second one kills it.
func (f *foreground) stop(ctx context.Context, why syscall.Signal) {
	if f.asked != 0 {
		_ = f.group.KillAll(ctx)
		return
	}
	f.asked = why
	go func() { _ = f.group.Shutdown(ctx) }() // ends with the program, or with ctx
}

// status turns the end of the program into pm's own.
func (f *foreground) status() error {
	last := f.last.Load()
	if last == nil {
		return errors.New("the program was never started")
	}
	if last.Exit == nil && last.TaskState == task.Killed { // stopped before it ran
		return exitStatus(128 + int(f.asked))
	}
	if last.TaskState == task.Error || last.TaskState == task.Dropped || last.Exit == nil {
		return f.launchError(last.Message)
	}
	if last.Exit.Signal != 0 {
		return exitStatus(128 + int(last.Exit.Signal))
	}
	return exitStatus(last.Exit.Code)
}

// dieToo ends pm by INT where the terminal has sent that to it and the program:
// a shell goes on with its script after an exit code, also after 130.
func (f *foreground) dieToo() {
	last := f.last.Load()
	if last == nil || last.Exit == nil || !f.keeper.fromTerminal(syscall.SIGINT) {
		return
	}
	if last.Exit.Signal == syscall.SIGINT || f.asked == syscall.SIGINT {
		proc.Die(syscall.SIGINT)
	}
}

func (f *foreground) launchError(message string) error {
	code := 126
	if f.keeper.missing.Load() {
		code = 127
	}
	return &socket.Problem{Message: message, Code: code}
}

// jobKeeper is a keeper whose program shares pm's terminal: it keeps track of
// who is in the foreground.
type jobKeeper struct {
	*proc.Keeper
	tty     *os.File // nil: none
	shared  bool     // the program is in pm's process group
	missing atomic.Bool
}

// fromTerminal reports whether a signal may be one that the terminal has sent to
// the whole process group, the program included.
func (k *jobKeeper) fromTerminal(sig syscall.Signal) bool {
	switch sig {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP:
		return k.shared && proc.InForeground(k.tty)
	}
	return false
}

// pass passes a signal on. The one that resumes pm as a shell's job resumes the
// program as well.
func (k *jobKeeper) pass(id string, leader int, sig syscall.Signal) {
	if sig == syscall.SIGCONT && k.tty != nil && !k.shared {
		proc.Resume(k.tty, leader)
		return
	}
	_ = k.Signal(id, sig)
}

// Take returns the events, after doing what job control asks for.
func (k *jobKeeper) Take() []proc.Event {
	events := k.Keeper.Take()
	for _, e := range events {
		switch e.Kind {
		case proc.Paused:
			switch {
			case k.shared:
				proc.Pause(e.PID)
			case k.tty != nil:
				proc.Suspend(k.tty, e.PID)
			}
		case proc.Exited:
			k.reclaim()
		case proc.Failed:
			k.missing.Store(e.Err.Missing())
			k.reclaim()
		}
	}
	return slices.DeleteFunc(events, func(e proc.Event) bool { return e.Kind == proc.Paused })
}

// reclaim puts pm back into the terminal's foreground.
func (k *jobKeeper) reclaim() {
	if k.tty != nil && !k.shared {
		proc.TakeTerminal(k.tty)
	}
}

// terminalOf returns which of pm's descriptors is its terminal, nil if none, and
// whether the program is to stay in pm's process group. It gets a group of its
// own, in the foreground, where pm is all there is of a shell's job. In a
// pipeline or a script others of the group use the terminal too; in the
// background the shell must find the program when it brings the job forward.
func terminalOf() (tty *os.File, shared bool) {
	for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if proc.OnTerminal(f) {
			alone := proc.LeadsJob() && proc.InForeground(os.Stdin) && proc.InForeground(os.Stdout)
			return f, !alone
		}
	}
	return nil, false
}
