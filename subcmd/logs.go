package subcmd

import (
	"bufio"
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"pm.example/socket"
)

// logsOptions are the flags of pm logs.
type logsOptions struct {
	lines  int
	all    bool // --lines is not given, but --since
	since  string
	follow bool
	daemon bool
	stdout bool
	stderr bool
	json   bool
}

func logsCommand(e *env) *cli.Command {
	var o logsOptions
	return &cli.Command{
		Name: "logs", Aliases: []string{"tail"}, Usage: "print what programs printed", ArgsUsage: "SELECTOR…",
		Description: `Prints the last lines of each instance that is selected: from the daemon's memory,
or from the files that they write. With more than one instance each line begins
with its name, in a color of its program on a terminal.

With -f it goes on as they print: through restarts, rotation of files, and the
death, the restart or the upgrade of the daemon. What is no longer to be had when
it comes back is told of by a line in brackets.

TIME is such as 10m (ago), 15:04, "2026-01-02 15:04" or 2026-01-02T15:04:05Z. In
files that programs write themselves it goes by the times that lines begin with.

With --daemon, it prints the daemon's own log, if that goes to a file.

Examples:
  pm logs web
  pm logs -f -n 100 --stderr 'web:*' db
  pm logs --since 10m all | grep -i error

Exit status: 0 done; 4 no such program; 5 the daemon cannot be reached.`,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Value: 10, Destination: &o.lines, Usage: "begin with the last `N` lines, as -N does; -n -1: with all there are"},
			&cli.StringFlag{Name: "since", Destination: &o.since, Usage: "only what was printed since `TIME`; without -n all of it"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Destination: &o.follow, Usage: "go on as they print"},
			&cli.BoolFlag{Name: "daemon", Destination: &o.daemon, Usage: "the daemon's own log"},
			&cli.BoolFlag{Name: "stdout", Destination: &o.stdout, Usage: "only standard output"},
			&cli.BoolFlag{Name: "stderr", Destination: &o.stderr, Usage: "only standard error"},
			&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "print a JSON document a line"},
			socketFlag(&e.socketCommand),
		},
		Action: func(c *cli.Context) error {
			if o.daemon && (c.Args().Present() || o.stream() != "") {
				return usagef("pm logs --daemon takes no programs, and no --stdout or --stderr")
			}
			if o.lines < -1 {
				return usagef("-n %d: cannot begin with so many lines (accepted: 0 or more, or -1 for all there are)", o.lines)
			}
			if !o.daemon && !c.Args().Present() {
				return &socket.Problem{Message: "pm logs: nothing is selected", Hint: "name programs, or all: pm logs all", Code: socket.CodeUsage}
			}
			o.all = o.since != "" && !c.IsSet("lines")
			return runLogs(c.Context, e, o, c.Args().Slice())
		},
	}
}

// maintailCommand is supervisor's name for the daemon's log.
func maintailCommand(e *env) *cli.Command {
	c := logsCommand(e)
	return &cli.Command{
		Name: "maintail", Hidden: true, Usage: "the same as logs --daemon", Flags: c.Flags,
		Action: withoutArgs(func(ctx *cli.Context) error {
			if err := ctx.Set("daemon", "true"); err != nil {
				return err
			}
			return c.Action(ctx)
		}),
	}
}

func (o logsOptions) stream() string {
	switch {
	case o.stdout && !o.stderr:
		return "stdout"
	case o.stderr && !o.stdout:
		return "stderr"
	}
	return ""
}

// runLogs prints lines until there are no more.
func runLogs(ctx context.Context, e *env, o logsOptions, selectors []string) error {
	req, err := o.request(selectors, time.Now())
	if err != nil {
		return usageError(err)
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	client := e.client()
	defer client.Close()
	p := &linePrinter{out: bufio.NewWriter(e.stdout), notes: e.stderr, json: o.json, flush: o.follow}
	unknown := socket.CodeDone
	if !o.daemon {
		status, err := client.Status(ctx, selectors)
		if err != nil {
			return err
		}
		if unknown = tellUnknown(e, status.Unknown); len(status.Instances) == 0 {
			return codeError(unknown)
		}
		if len(status.Instances) > 1 {
			p.prefixes = logPrefixes(status.Instances, e.coloured(e.stdout))
		}
	}
	err = client.Logs(ctx, req, p.print)
	if p.open {
		_, _ = p.out.WriteString("\n")
	}
	if flushErr := p.out.Flush(); flushErr != nil && err == nil {
		err = flushErr
	}
	if err != nil {
		return err
	}
	return codeError(unknown)
}

// request is what the flags ask for, at a given time.
func (o logsOptions) request(selectors []string, now time.Time) (req socket.LogsRequest, err error) {
	req = socket.LogsRequest{Selectors: selectors, Lines: o.lines, Stream: o.stream(), Follow: o.follow, Daemon: o.daemon}
	if o.all {
		req.Lines = -1
	}
	if o.since != "" {
		req.Since, err = parseSince(o.since, now)
	}
	return req, err
}

// sinceLayouts are the forms of times that a user may write, those of a day of now
// at last.
var sinceLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02",
	"15:04:05", "15:04",
}

// parseSince reads a time, or how long ago it is.
func parseSince(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range sinceLayouts {
		at, err := time.ParseInLocation(layout, text, now.Location())
		if err != nil {
			continue
		}
		if at.Year() == 0 {
			at = time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), at.Second(), 0, now.Location())
		}
		return at, nil
	}
	return time.Time{}, fmt.Errorf("--since %q is no time (accepted: 10m, 1h30m, 15:04, \"2026-01-02 15:04\", 2026-01-02T15:04:05Z)", text)
}

// programColors are the codes of colors that differ from each other and from the
// text's own.
var programColors = []string{"36", "33", "32", "35", "34", "96", "93", "92", "95", "94"}

// logPrefixes is what lines of instances begin with. Those of one program have one
// color.
func logPrefixes(instances []socket.Instance, colored bool) map[string]string {
	prefixes, colors := map[string]string{}, map[string]string{}
	for _, i := range instances {
		if colors[i.Program] == "" {
			colors[i.Program] = programColors[len(colors)%len(programColors)]
		}
		prefixes[i.Name] = i.Name + " | "
		if colored {
			prefixes[i.Name] = "\x1b[" + colors[i.Program] + "m" + i.Name + " |\x1b[0m "
		}
	}
	return prefixes
}

// linePrinter prints lines of logs.
type linePrinter struct {
	out      *bufio.Writer
	notes    io.Writer // what is said about lines
	json     bool
	prefixes map[string]string // of instances; nil: lines begin with nothing
	flush    bool              // after each line
	open     bool              // the last line has no end yet
}

func (p *linePrinter) print(l socket.LogLine) error {
	if err := p.write(l); err != nil {
		return err
	}
	if p.flush {
		return p.out.Flush()
	}
	return nil
}

func (p *linePrinter) write(l socket.LogLine) error {
	if l.Note != "" {
		tell(p.notes, l.Instance+": "+l.Note)
		return nil
	}
	if p.json {
		return writeJSON(p.out, l)
	}
	text := []byte(l.Line)
	if l.Base64 != "" {
		if raw, err := base64.StdEncoding.DecodeString(l.Base64); err == nil {
			text = raw
		}
	}
	if p.prefixes != nil {
		_, err := fmt.Fprintf(p.out, "%s%s\n", cmp.Or(p.prefixes[l.Instance], l.Instance+" | "), text)
		return err
	}
	if p.open = l.Partial; !p.open {
		text = append(text, '\n')
	}
	_, err := p.out.Write(text)
	return err
}
