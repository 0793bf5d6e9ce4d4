package subcmd

import (
	"context"
	"testing"

	"pm.example/socket"
)

// Whoever waits for an upgrade is told when it will not come, and only then.
func TestUpgradeEnds(t *testing.T) {
	const keeper, other = 41, 42
	command := socket.Event{Type: eventCommand, Message: "upgrade /new/pm"}
	trial := socket.Event{Type: eventDaemonStarted, Message: "trial"}
	crashed := socket.Event{Type: eventWorkerStarted, Message: "next"}
	for _, test := range []struct {
		name   string
		now    int // the keeper
		events []socket.Event
		code   int
		stdout string
		stderr string
	}{
		{"done", keeper, []socket.Event{command, trial, {Type: eventUpgraded, Message: "pm 2"}}, 0, "upgraded: pm 2\n", ""},
		{"refused", keeper, []socket.Event{command, {Type: eventUpgradeFailed, Message: "not today"}}, 1, "", "pm: not today\n"},
		{"another daemon", other, []socket.Event{command, trial}, 1, "", "pm: the daemon was killed amid the upgrade, and another has taken its place: trial\n"},
		{"the worker died first", keeper, []socket.Event{command, crashed}, 1, "", "pm: the daemon has not begun the upgrade, and the old program goes on: next\n"},
		{"the one before it did", keeper, []socket.Event{crashed, command, {Type: eventUpgraded, Message: "pm 2"}}, 0, "upgraded: pm 2\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			for n := range test.events {
				test.events[n].Seq = uint64(n + 1)
			}
			now := keeper
			path, _ := (&puppet{
				status: func([]string) (socket.Status, error) {
					return socket.Status{Daemon: socket.DaemonInfo{Keeper: now}}, nil
				},
				events: func(_ context.Context, req socket.EventsRequest, emit func(socket.Event) error) error {
					if !req.Follow {
						return nil
					}
					now = test.now
					for _, e := range test.events[req.Since:] {
						if err := emit(e); err != nil {
							return err
						}
					}
					return nil
				},
			}).on(t)
			pmOn(t, path, "upgrade", "--binary", "/bin/true").is(t, test.code, test.stdout, test.stderr)
		})
	}
}
