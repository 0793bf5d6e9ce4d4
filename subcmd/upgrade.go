package subcmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pm.example/socket"
)

// upgradeOptions are the flags of pm upgrade.
type upgradeOptions struct {
	binary  string
	timeout time.Duration
}

func upgradeCommand(e *env) *cli.Command {
	o := upgradeOptions{timeout: time.Minute}
	return &cli.Command{
		Name: "upgrade", Usage: "replace the daemon's program without touching those that it runs",
		Description: `Makes the daemon go on with another pm: with the one that you call, or that of
--binary. The new one first has to show that it can take over; if it cannot,
the old one goes on. Programs notice nothing.

Examples:
  pm upgrade
  pm upgrade --binary /opt/pm-2.0/bin/pm

Exit status: 0 the new one is in charge; 1 it is not, and why is told; 2 there
is no such binary; 5 the daemon cannot be reached; 6 you may not; 8 timed out.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "binary", Destination: &o.binary, DefaultText: "the pm that you call", Usage: "the new pm is at `PATH`"},
			&cli.DurationFlag{Name: "timeout", Destination: &o.timeout, Value: o.timeout, Usage: "wait at most `TIME`"},
			socketFlag(&e.socketCommand),
		},
		Action: withoutArgs(func(c *cli.Context) error { return runUpgrade(c.Context, e, o) }),
	}
}

// runUpgrade asks for the upgrade, and waits for the event that tells what became
// of it.
func runUpgrade(ctx context.Context, e *env, o upgradeOptions) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	binary, err := newBinary(o.binary)
	if err != nil {
		return usageError(err)
	}
	client := e.client()
	defer client.Close()
	last, err := lastEvent(ctx, client)
	if err != nil {
		return err
	}
	keeper, err := daemonPID(ctx, client)
	if err != nil {
		return err
	}
	if err := client.Upgrade(ctx, socket.UpgradeRequest{Binary: binary}); err != nil {
		return err
	}
	end, err := upgradeEnd(ctx, client, keeper, last)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &socket.Problem{Message: fmt.Sprintf("the upgrade has not ended after %s", o.timeout), Hint: "pm events tells how it goes on", Code: socket.CodeTimeout}
	case err != nil:
		return err
	case end.Type != eventUpgraded:
		return &socket.Problem{Message: failedUpgrade(end), Code: socket.CodeFailed}
	}
	_, err = fmt.Fprintln(e.stdout, "upgraded:", end.Message)
	return err
}

// upgradeVerb begins the message of the event that tells who asked for an upgrade.
const upgradeVerb = "upgrade "

// newBinary returns the absolute path of the pm to upgrade to.
func newBinary(path string) (string, error) {
	if path == "" {
		return os.Executable()
	}
	return filepath.Abs(path)
}

// lastEvent returns the number of the latest event.
func lastEvent(ctx context.Context, client *socket.Client) (last uint64, err error) {
	err = client.Events(ctx, socket.EventsRequest{}, func(e socket.Event) error {
		last = e.Seq
		return nil
	})
	return last, err
}

// failedUpgrade says why there is no upgrade, by the event that has told so.
func failedUpgrade(end socket.Event) string {
	switch end.Type {
	case eventDaemonStarted:
		return "the daemon was killed amid the upgrade, and another has taken its place: " + end.Message
	case eventWorkerStarted:
		return "the daemon has not begun the upgrade, and the old program goes on: " + end.Message
	default:
		return end.Message
	}
}

// errFound ends a stream of events that has brought one that was awaited.
var errFound = errors.New("found")

// upgradeEnd waits for the event that tells how an upgrade has ended, over the
// restarts of workers that it takes: by the program in charge; or by another daemon
// than that of keeper, or a worker that was started for no upgrade, since nobody else
// knows of this one any more.
func upgradeEnd(ctx context.Context, client *socket.Client, keeper int, last uint64) (end socket.Event, err error) {
	asked := false
	for ctx.Err() == nil {
		err = client.Events(ctx, socket.EventsRequest{Follow: true, Since: last}, func(e socket.Event) error {
			last, end = e.Seq, e
			switch e.Type {
			case eventCommand:
				asked = asked || strings.HasPrefix(e.Message, upgradeVerb)
			case eventUpgraded, eventUpgradeFailed, eventDaemonStarted:
				return errFound
			case eventWorkerStarted:
				if asked {
					return errFound
				}
			}
			return nil
		})
		if errors.Is(err, errFound) {
			if end.Type != eventDaemonStarted {
				return end, nil
			}
			now, err := daemonPID(ctx, client)
			if err == nil && now != keeper {
				return end, nil
			}
			continue // it is the new program, on trial
		}
		var problem *socket.Problem
		if err != nil && !(errors.As(err, &problem) && problem.Lost()) {
			return end, err
		}
	}
	return end, ctx.Err()
}
