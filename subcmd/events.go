package subcmd

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"pm.example/socket"
)

// eventsOptions are the flags of pm events.
type eventsOptions struct {
	follow bool
	json   bool
	since  uint64
}

func eventsCommand(e *env) *cli.Command {
	var o eventsOptions
	return &cli.Command{
		Name: "events", Usage: "print what happened",
		Description: "Prints the events that the daemon has kept: starts, ends, reloads, commands. On a\nterminal in a form for people, elsewhere as JSON lines.\n\nExamples:\n  pm events -f\n  pm events --json | jq 'select(.type == \"fatal\")'\n\nExit status: 0 done; 5 the daemon cannot be reached.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Destination: &o.follow, Usage: "go on as they happen"},
			&cli.Uint64Flag{Name: "since", Destination: &o.since, DefaultText: "all that are kept", Usage: "only those after number `SEQ`"},
			&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "print JSON lines also on a terminal"},
			socketFlag(&e.socketCommand),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("pm events takes no arguments")
			}
			return runEvents(c.Context, e, o)
		},
	}
}

// runEvents prints events until there are no more.
func runEvents(ctx context.Context, e *env, o eventsOptions) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	client := e.client()
	defer client.Close()
	people := isTerminal(e.stdout) && !o.json
	return client.Events(ctx, socket.EventsRequest{Follow: o.follow, Since: o.since}, func(ev socket.Event) error {
		if !people {
			return writeJSON(e.stdout, ev)
		}
		_, err := fmt.Fprintln(e.stdout, eventLine(ev))
		return err
	})
}

// eventLine tells an event in one line.
func eventLine(ev socket.Event) string {
	parts := []string{ev.Time.Local().Format("2006-01-02 15:04:05"), ev.Type}
	if ev.Instance != "" {
		parts = append(parts, ev.Instance)
	}
	if ev.PID != 0 {
		parts = append(parts, fmt.Sprintf("pid %d", ev.PID))
	}
	if ev.Exit != nil && !strings.Contains(ev.Message, "exit ") {
		parts = append(parts, "exit "+exitText(ev.Exit))
	}
	if ev.By != "" {
		parts = append(parts, "by "+ev.By)
	}
	line := strings.Join(parts, "  ")
	if ev.Message != "" {
		line += ": " + ev.Message
	}
	return line
}
