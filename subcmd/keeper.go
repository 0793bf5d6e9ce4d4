package subcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"syscall"
	"time"

	"pm.example/keeper"
	"pm.example/proc"
	"pm.example/systemd"
)

// keeperEnv tells a process that it takes the place of a keeper: what that held.
const keeperEnv = "PM_KEEPER"

// workerEnv tells a process that it is a worker, whose keeper is behind its
// first passed descriptor.
const workerEnv = "PM_WORKER"

// inheritance is the value of keeperEnv.
type inheritance struct {
	StateDir           string
	Held               map[string]int // descriptors by name
	Orphaned, Upgraded bool
}

// runKeeper is pm daemon as its users see it: the process that owns the programs
// and starts workers, of which each does the rest.
func runKeeper(ctx context.Context, e *env) error {
	proc.SetName(keeperName) // after an execve it would be "exe"
	proc.MoreFiles()
	log := stderrLog(e)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // who reads stderr may go away
	inherited := inherited()
	programs, err := newHeir(inherited, log)
	if err != nil {
		return usageError(err)
	}
	if list := inherited.Held[leadersFile]; list != nil {
		delete(inherited.Held, leadersFile)
		if err := programs.Inherit(list); err != nil {
			log.Error("how programs end that run on may be unknown", "error", err)
		}
	}
	hold(&inherited, systemd.Files())
	options := keeper.Options{
		Programs: programs, Signals: signals, Inheritance: inherited, Log: log,
		Start: func(path string, conn *os.File) (*proc.Attendant, error) {
			return programs.Attend(workerCommand(orElse(path, "/proc/self/exe"), conn))
		},
	}
	outcome, err := keeper.Run(ctx, options)
	for err == nil && outcome.Upgrade != "" {
		failure := handOver(programs, log, outcome)
		options.Inheritance = outcome.Inheritance
		options = options.Failed(failure)
		outcome, err = keeper.Run(ctx, options)
	}
	if err != nil {
		return err
	}
	if !outcome.Keep {
		programs.EndRunaways()
		programs.Close()
	}
	if outcome.Code != 0 {
		return exitStatus(outcome.Code)
	}
	return nil
}

// heirPause is how long a keeper that takes another's place waits until it tries
// again what it could not do.
const heirPause = 50 * time.Millisecond

// newHeir makes the keeper of programs. One that takes another's place does not
// give up, since nobody else would know of the programs: what it lacks, such as
// descriptors, it may yet get.
func newHeir(from keeper.Inheritance, log *slog.Logger) (*proc.Keeper, error) {
	for told := false; ; time.Sleep(heirPause) {
		programs, err := proc.NewHeir(log)
		if err == nil || !from.Orphaned && !from.Upgraded {
			return programs, err
		}
		if !told {
			log.Error("the programs cannot be taken over yet; they run on", "error", err)
		}
		told = true
		proc.MoreFiles()
	}
}

// handOver makes this process the program that an outcome names. It returns only
// if that fails.
func handOver(programs *proc.Keeper, log *slog.Logger, outcome keeper.Outcome) error {
	leaders, release, err := programs.HandOver()
	defer release()
	i := outcome.Inheritance
	i.Held = maps.Clone(i.Held)
	leave(i, leaders, err, log)
	return become(outcome.Upgrade, i)
}

// leave adds the leaders of tasks to what a keeper is left.
func leave(i keeper.Inheritance, leaders *os.File, err error, log *slog.Logger) {
	if err != nil {
		log.Error("how programs end that run on may be unknown", "error", err)
		return
	}
	i.Held[leadersFile] = leaders
}

// activatedPrefix begins the names of the sockets, among what a keeper holds, that
// the daemon was started with.
const activatedPrefix = "activated."

// mostActivated bounds how many of them are held. One is used.
const mostActivated = 64

// hold adds the sockets that the daemon was started with to what every worker is
// handed, also one that comes after an upgrade.
func hold(i *keeper.Inheritance, activated []*os.File) {
	if i.Held == nil {
		i.Held = map[string]*os.File{}
	}
	for n, file := range activated[:min(len(activated), mostActivated)] {
		i.Held[fmt.Sprint(activatedPrefix, n)] = file
	}
}

// activated returns the sockets among what a keeper holds, in their order.
func activated(held map[string]*os.File) (files []*os.File) {
	for n := 0; ; n++ {
		file := held[fmt.Sprint(activatedPrefix, n)]
		if file == nil {
			return files
		}
		files = append(files, file)
	}
}

// workerCommand starts the pm at path as a worker that is connected by conn.
func workerCommand(path string, conn *os.File) *proc.Command {
	return &proc.Command{
		Path: path, Argv: os.Args, Env: append(os.Environ(), workerEnv+"=1"), Listen: []*os.File{conn},
		Stdin:  proc.Stdio{Kind: proc.Descriptor, File: os.Stdin},
		Stdout: proc.Stdio{Kind: proc.Descriptor, File: os.Stdout},
		Stderr: proc.Stdio{Kind: proc.Descriptor, File: os.Stderr},
	}
}

// inherited returns what an earlier keeper in this process, or the worker that
// it was, has left.
func inherited() (i keeper.Inheritance) {
	text := os.Getenv(keeperEnv)
	_ = os.Unsetenv(keeperEnv)
	var from inheritance
	if text == "" || json.Unmarshal([]byte(text), &from) != nil {
		return i
	}
	i = keeper.Inheritance{StateDir: from.StateDir, Held: map[string]*os.File{}, Orphaned: from.Orphaned, Upgraded: from.Upgraded}
	for name, fd := range from.Held {
		syscall.CloseOnExec(fd)
		i.Held[name] = os.NewFile(uintptr(fd), name)
	}
	return i
}

// become replaces this process by the program at path, as the keeper: children
// stay, and so do the files that it needs. It returns only if that fails.
func become(path string, i keeper.Inheritance) error {
	from := inheritance{StateDir: i.StateDir, Held: map[string]int{}, Orphaned: i.Orphaned, Upgraded: i.Upgraded}
	var failed error
	for name, file := range i.Held {
		from.Held[name] = int(file.Fd())
		failed = errors.Join(failed, proc.Inherit(from.Held[name]))
	}
	proc.InheritPipes()
	_, _ = os.Unsetenv("LISTEN_FDS"), os.Unsetenv("LISTEN_PID") // of this program: they do not go on, and the pid would fit
	text, err := json.Marshal(from)
	if err = errors.Join(failed, err); err == nil {
		err = syscall.Exec(path, os.Args, append(os.Environ(), keeperEnv+"="+string(text)))
	}
	return fmt.Errorf("cannot become %s: %w", path, err)
}

// leadersFile names what a worker that becomes a keeper leaves of the programs.
const leadersFile = "leaders"

// replaceKeeper makes this worker the keeper, since that has died: nobody else
// knows of the programs. It leaves what the worker has got hold of so far: link is
// nil if it has not even heard of the programs. Under a service manager, which
// starts a new daemon anyway, it only ends: that daemon adopts the programs.
func replaceKeeper(log *slog.Logger, link *keeper.Link, stateDir string, lock *os.File) error {
	if os.Getenv("NOTIFY_SOCKET") != "" {
		return errors.New("the keeper was killed; the programs run on, and the next daemon adopts them")
	}
	log.Error("the keeper was killed, the worker takes its place; programs run on")
	i := keeper.Inheritance{StateDir: stateDir, Held: map[string]*os.File{}, Orphaned: true}
	if lock != nil {
		i.Held["lock"] = lock
	}
	if link != nil {
		hold(&i, activated(link.Hello().Held))
		leaders, err := link.Leaders()
		leave(i, leaders, err, log)
	}
	return become("/proc/self/exe", i)
}
