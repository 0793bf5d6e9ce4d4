package subcmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"pm.example/proc"
	"pm.example/socket"
)

// controlOptions are the flags of the commands that act on instances.
type controlOptions struct {
	noWait  bool
	rolling bool
	timeout time.Duration
	json    bool
}

func (o *controlOptions) request(selectors []string) socket.Request {
	return socket.Request{Selectors: selectors, NoWait: o.noWait, Rolling: o.rolling, TimeoutSeconds: o.timeout.Seconds()}
}

// waitFlags are the flags of commands that wait for an outcome.
func waitFlags(e *env, o *controlOptions) []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "no-wait", Destination: &o.noWait, Usage: "do not wait for the outcome"},
		&cli.DurationFlag{Name: "timeout", Destination: &o.timeout, DefaultText: "as long as it takes", Usage: "wait at most `TIME`"},
		&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "print a JSON document"},
		socketFlag(&e.socketCommand),
	}
}

const (
	startStatus = `Exit status: 0 done, or already so; 1 a target failed; 4 no such program (the
others are acted on); 5 the daemon cannot be reached; 7 start failed; 8 timed
out.`
	stopStatus = `Exit status: 0 done, or already so; 1 a target failed; 4 no such program (the
others are acted on); 5 the daemon cannot be reached; 8 timed out.`
)

func startCommand(e *env) *cli.Command {
	var o controlOptions
	return &cli.Command{
		Name: "start", Usage: "start programs, and wait until they are up", ArgsUsage: "SELECTOR…",
		Description: "Starts what is selected, those of a lower priority number first, and tells for\neach instance what came of it.\n\nExamples:\n  pm start web\n  pm start group:backend --timeout 30s\n\n" + startStatus,
		Flags:       waitFlags(e, &o),
		Action:      controlAction(e, &o, "start", (*socket.Client).Start),
	}
}

func stopCommand(e *env) *cli.Command {
	var o controlOptions
	return &cli.Command{
		Name: "stop", Usage: "stop programs, and wait until nothing is left of them", ArgsUsage: "SELECTOR…",
		Description: "Stops what is selected, those of a higher priority number first, and waits until\ntheir whole process trees are gone.\n\nExamples:\n  pm stop web:2\n  pm stop all\n\n" + stopStatus,
		Flags:       waitFlags(e, &o),
		Action:      controlAction(e, &o, "stop", (*socket.Client).Stop),
	}
}

func restartCommand(e *env) *cli.Command {
	var o controlOptions
	return &cli.Command{
		Name: "restart", Usage: "stop and start programs", ArgsUsage: "SELECTOR…",
		Description: "Stops and starts what is selected. With --rolling one instance after the other,\neach only when the one before is up.\n\nExamples:\n  pm restart web\n  pm restart --rolling 'web:*'\n\n" + startStatus,
		Flags:       append(waitFlags(e, &o), &cli.BoolFlag{Name: "rolling", Destination: &o.rolling, Usage: "one after the other"}),
		Action: func(c *cli.Context) error {
			if o.rolling && o.noWait {
				return usagef("pm restart takes --rolling or --no-wait, not both: each instance waits for the one before")
			}
			return controlAction(e, &o, "restart", (*socket.Client).Restart)(c)
		},
	}
}

// controlAction is the action of a command that sends one request for what its
// arguments select.
func controlAction(e *env, o *controlOptions, verb string, call func(*socket.Client, context.Context, socket.Request) (socket.Result, error)) cli.ActionFunc {
	return func(c *cli.Context) error {
		return runControl(c.Context, e, *o, verb, c.Args().Slice(), func(ctx context.Context, client *socket.Client) (socket.Result, error) {
			return call(client, ctx, o.request(c.Args().Slice()))
		})
	}
}

// runControl sends a request and tells what came of it.
func runControl(ctx context.Context, e *env, o controlOptions, verb string, selectors []string, call func(context.Context, *socket.Client) (socket.Result, error)) error {
	if len(selectors) == 0 {
		return &socket.Problem{Message: "pm " + verb + ": nothing is selected", Hint: "name programs, or all: pm " + verb + " all", Code: socket.CodeUsage}
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	client := e.client()
	defer client.Close()
	result, err := call(ctx, client)
	if err != nil {
		return err
	}
	return printResult(e, o, result)
}

// interruptible ends its context with Ctrl-C, so that a wait can be given up.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

// printResult tells each outcome: what went well on stdout, what did not on
// stderr.
func printResult(e *env, o controlOptions, result socket.Result) error {
	codes := []int{tellUnknown(e, result.Unknown)}
	if o.json {
		if err := writeJSON(e.stdout, result); err != nil {
			return err
		}
	}
	for _, r := range result.Results {
		codes = append(codes, r.Code)
		switch {
		case o.json:
		case r.Code == socket.CodeDone:
			if _, err := fmt.Fprintf(e.stdout, "%s: %s\n", r.Instance, r.Message); err != nil {
				return err
			}
		default:
			tell(e.stderr, fmt.Sprintf("%s: %s", r.Instance, r.Message))
		}
	}
	return codeError(worst(codes...))
}

func signalCommand(e *env) *cli.Command {
	var o controlOptions
	return &cli.Command{
		Name: "signal", Aliases: []string{"kill"}, Usage: "send a signal to the main processes of programs", ArgsUsage: "SIGNAL SELECTOR…",
		Description: "Sends SIGNAL, a name or a number, to the main process of each instance that is\nselected.\n\nExample:\n  pm signal HUP nginx\n\nExit status: 0 sent; 1 one does not run; 2 no such signal; 4 no such program; 5 the\ndaemon cannot be reached.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "print a JSON document"},
			socketFlag(&e.socketCommand),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() < 2 {
				return &socket.Problem{Message: "pm signal takes a signal and what to send it to", Hint: "for example: pm signal HUP web", Code: socket.CodeUsage}
			}
			req := socket.Request{Selectors: c.Args().Tail(), Signal: c.Args().First()}
			return runControl(c.Context, e, o, "signal", req.Selectors, func(ctx context.Context, client *socket.Client) (socket.Result, error) {
				return client.Signal(ctx, req)
			})
		},
	}
}

// notInstances is what is said of a word that cannot be the second of pm scale.
const notInstances = "%q is not a number of instances"

func scaleCommand(e *env) *cli.Command {
	var o controlOptions
	return &cli.Command{
		Name: "scale", Usage: "change how many instances a program has", ArgsUsage: "NAME N",
		Description: "Adds instances at the end, or stops the last ones; the others are not touched. The\nnumber holds until the config file's own number changes, or the daemon ends.\n\nExample:\n  pm scale web 8\n\nExit status: 0 done; 2 not a number that can be; 4 no such program; 5 the daemon\ncannot be reached.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "print a JSON document"},
			socketFlag(&e.socketCommand),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usagef("pm scale takes a program and a number: pm scale web 8")
			}
			n, err := strconv.Atoi(c.Args().Get(1))
			if err != nil {
				return usagef(notInstances, c.Args().Get(1))
			}
			req := socket.Request{Selectors: []string{c.Args().First()}, NumProcs: &n}
			return runControl(c.Context, e, o, "scale", req.Selectors, func(ctx context.Context, client *socket.Client) (socket.Result, error) {
				return client.Scale(ctx, req)
			})
		},
	}
}

func waitCommand(e *env) *cli.Command {
	var (
		o     controlOptions
		until string
	)
	return &cli.Command{
		Name: "wait", Usage: "wait until programs are running or stopped", ArgsUsage: "SELECTOR…",
		Description: "Returns when every instance that is selected is as wanted. Stopped is also what\nhas ended for good.\n\nExamples:\n  pm wait web --for running --timeout 10s\n  pm wait job --for stopped\n\nExit status: 0 it is so; 4 no such program; 5 the daemon cannot be reached; 7 it will\nnot be; 8 timed out.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "for", Value: "running", Destination: &until, Usage: "wait for `STATE`: running, healthy or stopped"},
			&cli.DurationFlag{Name: "timeout", Destination: &o.timeout, DefaultText: "as long as it takes", Usage: "wait at most `TIME`"},
			&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "print a JSON document"},
			socketFlag(&e.socketCommand),
		},
		Action: func(c *cli.Context) error {
			switch until {
			case "running", "healthy", "stopped":
			default:
				return usagef("cannot wait for %q (accepted: running, healthy, stopped)", until)
			}
			req := socket.WaitRequest{Selectors: c.Args().Slice(), For: until, TimeoutSeconds: o.timeout.Seconds()}
			return runControl(c.Context, e, o, "wait", req.Selectors, func(ctx context.Context, client *socket.Client) (socket.Result, error) {
				return client.Wait(ctx, req)
			})
		},
	}
}

func shutdownCommand(e *env) *cli.Command {
	var (
		o    controlOptions
		keep bool
	)
	return &cli.Command{
		Name: "shutdown", Aliases: []string{"daemon_exit"}, Usage: "stop all programs and end the daemon",
		Description: "Stops all programs, those of a higher priority number first, ends the daemon, and\nreturns when it is gone. With --keep-programs they run on, and the next daemon with\nthe same state directory takes them over.\n\nExit status: 0 it is gone; 5 there was none; 8 timed out.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "keep-programs", Destination: &keep, Usage: "end the daemon only"},
			&cli.BoolFlag{Name: "no-wait", Destination: &o.noWait, Usage: "do not wait until it is gone"},
			&cli.DurationFlag{Name: "timeout", Destination: &o.timeout, DefaultText: "as long as it takes", Usage: "wait at most `TIME`"},
			socketFlag(&e.socketCommand),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return &socket.Problem{Message: "pm shutdown takes no arguments: it ends the daemon itself", Hint: "to stop programs: pm stop " + c.Args().First(), Code: socket.CodeUsage}
			}
			return runShutdown(c.Context, e, o, keep)
		},
	}
}

// runShutdown ends the daemon and waits until it is gone.
func runShutdown(ctx context.Context, e *env, o controlOptions, keep bool) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	client := e.client()
	defer client.Close()
	pid, err := daemonPID(ctx, client)
	if err != nil {
		return err
	}
	keeper, visible := visibleKeeper(pid)
	if err := client.Shutdown(ctx, socket.ShutdownRequest{KeepPrograms: keep}); err != nil || o.noWait {
		return err
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	if visible {
		err = keeper.Await(ctx)
	} else {
		client.FirstPatience, client.Patience = 0, 0
		err = awaitEnd(ctx, client, pid)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &socket.Problem{Message: fmt.Sprintf("the daemon (pid %d) is still going down after %s", pid, o.timeout), Code: socket.CodeTimeout}
	}
	return err
}

// daemonPID asks the daemon for the pid of the process that its user has started,
// and for no instance.
func daemonPID(ctx context.Context, client *socket.Client) (int, error) {
	status, err := client.Status(ctx, []string{"-"})
	return status.Daemon.Keeper, err
}

// visibleKeeper returns the process of a daemon, unless that is in another pid
// namespace, where its pid means another process, or none. To wait for the process
// is best: who asks at a socket of a service manager's, once the daemon is gone, has
// it started again.
func visibleKeeper(pid int) (id proc.Identity, visible bool) {
	id, err := proc.Identify(pid)
	if err != nil {
		return id, false
	}
	p, there := id.Look()
	return id, there && p.Name == keeperName
}

// awaitEnd returns when the daemon with that pid is gone: nobody answers at the
// socket, or another daemon does, since something may start a new one at once.
func awaitEnd(ctx context.Context, client *socket.Client, pid int) error {
	for {
		now, err := daemonPID(ctx, client)
		var problem *socket.Problem
		switch {
		case errors.As(err, &problem) && problem.Code == socket.CodeUnreachable:
			return awaitExit(ctx, pid)
		case err == nil && now != pid:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		// It answers, or has just ceased to. The stream ends with the daemon; how is of
		// no interest.
		_ = client.Events(ctx, socket.EventsRequest{Follow: true}, func(socket.Event) error { return nil })
		if err := pause(ctx); err != nil { // the socket closes after the last stream
			return err
		}
	}
}

// lastSteps is how long a daemon whose socket is closed may take to exit. The
// bound is for a daemon in another pid namespace, whose pid means another
// process here.
const lastSteps = 2 * time.Second

// awaitExit waits until the process of a daemon whose socket is closed is gone
// too: only then can the next one have its state directory. A zombie is gone,
// and has no memory.
func awaitExit(ctx context.Context, pid int) error {
	for deadline := time.Now().Add(lastSteps); time.Now().Before(deadline); {
		if proc.Ended(pid) {
			return nil
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pause passes the time between two looks at what cannot be waited for.
func pause(ctx context.Context) error {
	select {
	case <-time.After(5 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
