package subcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"pm.example/keeper"
	"pm.example/proc"
)

// keeperEnv tells a process that it takes the place of a keeper: what that held.
const keeperEnv = "PM_KEEPER"

// workerEnv tells a process that it is a worker, whose keeper is behind its
// first passed descriptor.
const workerEnv = "PM_WORKER"

// inheritance is the value of keeperEnv.
type inheritance struct {
	StateDir string
	Held     map[string]int // descriptors by name
}

// runKeeper is pm daemon as its users see it: the process that owns the programs
// and starts workers, of which each does the rest.
func runKeeper(ctx context.Context, e *env) error {
	log := slog.New(slog.NewTextHandler(e.stderr, nil))
	stateDir, held := inherited()
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR2)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // who reads stderr may go away
	programs, err := proc.NewKeeper(log)
	if err != nil {
		return usageError(err)
	}
	activated := listenFiles()
	outcome, err := keeper.Run(ctx, keeper.Options{
		Programs: programs, Signals: signals, StateDir: stateDir, Held: held, Log: log,
		Start: func(conn *os.File) (*proc.Attendant, error) {
			return programs.Attend(workerCommand(append([]*os.File{conn}, activated...)))
		},
	})
	if err != nil {
		return err
	}
	if outcome.Upgrade != "" {
		return become(outcome.Upgrade, outcome.StateDir, outcome.Held)
	}
	if !outcome.Keep {
		programs.Close()
	}
	if outcome.Code != 0 {
		return exitStatus(outcome.Code)
	}
	return nil
}

// workerCommand starts this program once more, as a worker.
func workerCommand(files []*os.File) *proc.Command {
	return &proc.Command{
		Path: "/proc/self/exe", Argv: os.Args, Env: append(os.Environ(), workerEnv+"=1"), Listen: files,
		Stdin:  proc.Stdio{Kind: proc.Descriptor, File: os.Stdin},
		Stdout: proc.Stdio{Kind: proc.Descriptor, File: os.Stdout},
		Stderr: proc.Stdio{Kind: proc.Descriptor, File: os.Stderr},
	}
}

// inherited returns what an earlier keeper in this process, or the worker that
// it was, has left.
func inherited() (stateDir string, held map[string]*os.File) {
	text := os.Getenv(keeperEnv)
	_ = os.Unsetenv(keeperEnv)
	var from inheritance
	if text == "" || json.Unmarshal([]byte(text), &from) != nil {
		return "", nil
	}
	held = map[string]*os.File{}
	for name, fd := range from.Held {
		syscall.CloseOnExec(fd)
		held[name] = os.NewFile(uintptr(fd), name)
	}
	return from.StateDir, held
}

// become replaces this process by the program at path, as the keeper: children
// stay, and so do the files that it needs. It returns only if that fails.
func become(path, stateDir string, held map[string]*os.File) error {
	from := inheritance{StateDir: stateDir, Held: map[string]int{}}
	for name, file := range held {
		from.Held[name] = int(file.Fd())
	}
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	for _, fd := range from.Held {
		err = errors.Join(err, proc.Inherit(fd))
	}
	proc.InheritPipes()
	if err == nil {
		err = syscall.Exec(path, os.Args, append(os.Environ(), keeperEnv+"="+string(text)))
	}
	return fmt.Errorf("cannot become the keeper: %s: %w", path, err)
}

// replaceKeeper makes this worker the keeper, since that has died: nobody else
// knows of the programs. Under a service manager, which starts a new daemon
// anyway, it only ends: that daemon adopts the programs.
func (d *daemon) replaceKeeper(b *beginning) error {
	if os.Getenv("NOTIFY_SOCKET") != "" {
		return errors.New("the keeper was killed; the programs run on, and the next daemon adopts them")
	}
	d.log.Error("the keeper was killed, the worker takes its place; programs run on")
	return become("/proc/self/exe", b.dir, map[string]*os.File{"lock": b.lock})
}
