package subcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// runEvents prints events until there are no more. The daemon cuts off one who
// reads too slowly: then it asks again from there on.
func runEvents(ctx context.Context, e *env, o eventsOptions) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	client := e.client()
	defer client.Close()
	p := &eventPrinter{out: e.stdout, people: isTerminal(e.stdout) && !o.json, last: o.since}
	for {
		p.dropped = nil
		err := client.Events(ctx, socket.EventsRequest{Follow: o.follow, Since: p.last}, p.take)
		var problem *socket.Problem
		if o.follow && errors.As(err, &problem) && problem.Lost() { // the next worker goes on from there
			continue
		}
		if err != nil || p.dropped == nil {
			return err
		}
	}
}

// eventPrinter prints events in their order.
type eventPrinter struct {
	out     io.Writer
	people  bool          // for people to read
	last    uint64        // number of the last event
	dropped *socket.Event // the stream ended with it; nil: it did not
	gap     *socket.Event // to be printed if the event after it is not the next
}

func (p *eventPrinter) take(ev socket.Event) error {
	if ev.Type == socket.EventDropped {
		p.last, p.dropped, p.gap = ev.Seq, &ev, &ev
		return nil
	}
	if p.gap != nil && ev.Seq != p.last+1 {
		if err := p.print(*p.gap); err != nil {
			return err
		}
	}
	p.last, p.gap = ev.Seq, nil
	return p.print(ev)
}

func (p *eventPrinter) print(ev socket.Event) error {
	if !p.people {
		return writeJSON(p.out, ev)
	}
	_, err := fmt.Fprintln(p.out, printable(eventLine(ev)))
	return err
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
