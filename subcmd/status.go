package subcmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"pm.example/proc"
	"pm.example/socket"
)

// statusOptions are the flags of pm status.
type statusOptions struct {
	format string
	json   bool
	tasks  bool
	quiet  bool
	watch  bool
}

func statusCommand(e *env) *cli.Command {
	var o statusOptions
	return &cli.Command{
		Name:      "status",
		Aliases:   []string{"ls", "list", "ps"},
		Usage:     "see what runs",
		ArgsUsage: "[SELECTOR…]",
		Description: `Prints one line for each instance that is selected, all without a selector.

Examples:
  pm status
  pm status 'web*' group:backend
  pm status --json | jq '.instances[].name'

Exit status: 0 all of them are in their desired state; 3 one is not; 4 no such
program; 5 the daemon cannot be reached.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Destination: &o.format, Usage: "print as `FORMAT`: table, wide (with CPU time and memory), plain (no heading) or json"},
			&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "the same as -o json"},
			&cli.BoolFlag{Name: "tasks", Destination: &o.tasks, Usage: "also tell the task and its state"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Destination: &o.quiet, Usage: "print names only"},
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Destination: &o.watch, Usage: "go on as things change"},
			socketFlag(&e.socketCommand),
		},
		Action: func(c *cli.Context) error {
			if o.json {
				o.format = "json"
			}
			switch o.format {
			case "table", "wide", "plain", "json":
			default:
				return usagef("unknown output format %q (accepted: table, wide, plain, json)", o.format)
			}
			return runStatus(c.Context, e, o, c.Args().Slice())
		},
	}
}

// runStatus prints the status of what is selected.
func runStatus(ctx context.Context, e *env, o statusOptions, selectors []string) error {
	client := e.client()
	defer client.Close()
	if o.watch {
		return watchStatus(ctx, e, client, o, selectors)
	}
	status, err := client.Status(ctx, selectors)
	if err != nil {
		return err
	}
	if err := printStatus(e, e.stdout, o, status); err != nil {
		return err
	}
	return statusVerdict(e, status)
}

// statusVerdict tells what was not found, and chooses the exit code.
func statusVerdict(e *env, status socket.Status) error {
	codes := []int{tellUnknown(e, status.Unknown)}
	for _, i := range status.Instances {
		if !i.OK {
			codes = append(codes, socket.CodeNotDesired)
			break
		}
	}
	return codeError(worst(codes...))
}

// codeError is the error that only carries a code; nil for 0.
func codeError(code int) error {
	if code == socket.CodeDone {
		return nil
	}
	return exitStatus(code)
}

// tellUnknown names selectors that matched nothing, and returns their exit code.
func tellUnknown(e *env, unknown []string) int {
	if len(unknown) == 0 {
		return socket.CodeDone
	}
	tell(e.stderr, "no such program: "+strings.Join(unknown, ", "))
	tell(e.stderr, "hint: pm status lists them")
	return socket.CodeUnknown
}

func printStatus(e *env, w io.Writer, o statusOptions, status socket.Status) error {
	switch {
	case o.format == "json":
		return writeJSON(w, status)
	case o.quiet:
		return printNames(w, status)
	}
	var rows [][]string
	nothing := len(status.Instances) == 0 && len(status.Unknown) > 0
	if o.format != "plain" && !nothing {
		rows = append(rows, statusHeading(o))
	}
	for _, i := range status.Instances {
		rows = append(rows, statusRow(o, i))
	}
	var text bytes.Buffer
	if err := writeTable(&text, rows, terminalWidth(e.stdout)); err != nil {
		return err
	}
	_, err := io.WriteString(w, paint(e, text.String(), status.Instances))
	return err
}

// paint colours the states, on a terminal. The last lines of the table are those
// of the instances.
func paint(e *env, table string, instances []socket.Instance) string {
	if !e.coloured(e.stdout) {
		return table
	}
	var out strings.Builder
	lines := slices.Collect(strings.Lines(table))
	for n, line := range lines {
		if n -= len(lines) - len(instances); n >= 0 {
			state := instances[n].State
			line = strings.Replace(line, " "+state, " "+colour(state, state), 1)
		}
		out.WriteString(line)
	}
	return out.String()
}

func printNames(w io.Writer, status socket.Status) error {
	for _, i := range status.Instances {
		if _, err := fmt.Fprintln(w, i.Name); err != nil {
			return err
		}
	}
	return nil
}

func statusHeading(o statusOptions) []string {
	row := []string{"NAME", "STATE", "PID", "UPTIME", "RESTARTS", "EXIT"}
	if o.format == "wide" {
		row = append(row, "CPU", "MEMORY")
	}
	if o.tasks {
		row = append(row, "TASK", "TASK STATE")
	}
	return append(row, "DETAIL")
}

func statusRow(o statusOptions, i socket.Instance) []string {
	pid, uptime, exit := "-", "-", "-"
	if i.PID != 0 {
		pid = strconv.Itoa(i.PID)
		uptime = duration(time.Duration(i.UptimeSeconds * float64(time.Second)))
	}
	if i.Exit != nil {
		exit = exitText(i.Exit)
	}
	row := []string{i.Name, i.State, pid, uptime, strconv.Itoa(i.Restarts), exit}
	if o.format == "wide" {
		row = append(row, usage(i.PID)...)
	}
	if o.tasks && i.Task != nil {
		row = append(row, i.Task.ID, i.Task.State)
	} else if o.tasks {
		row = append(row, "-", "-")
	}
	return append(row, detail(i))
}

// detail is what there is to say of an instance's state, or else of its output.
func detail(i socket.Instance) string {
	if i.Detail != "" {
		return i.Detail
	}
	parts := []string{outputDetail(i.Output), shippingDetail(i.Scrape)}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "; ")
}

// shippingDetail names the receivers of an instance's lines that cannot be reached.
func shippingDetail(scrape json.RawMessage) string {
	var d countersDocument
	if len(scrape) == 0 || json.Unmarshal(scrape, &d) != nil {
		return ""
	}
	var absent []string
	for _, r := range d.Receivers {
		if r.Problem != "" {
			absent = append(absent, fmt.Sprintf("cannot reach %s: %s", r.To, r.Problem))
		}
	}
	return strings.Join(absent, "; ")
}

func outputDetail(o *socket.Output) string {
	switch {
	case o == nil:
		return ""
	case o.DroppedLines > 0:
		return strings.TrimPrefix(o.Problem+"; ", "; ") + "dropped " + strconv.FormatUint(o.DroppedLines, 10) + " lines"
	case o.Problem != "":
		return "output waits: " + o.Problem
	default:
		return ""
	}
}

// usage tells the CPU time and memory of a process, as the kernel has them now.
func usage(pid int) []string {
	u, err := proc.UsageOf(pid)
	if pid == 0 || err != nil {
		return []string{"-", "-"}
	}
	return []string{u.CPU.Round(10 * time.Millisecond).String(), megabytes(u.Memory)}
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1fM", float64(bytes)/(1<<20)) }

func availCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "avail", Hidden: true, Usage: "list the names of all instances", Flags: []cli.Flag{socketFlag(&e.socketCommand)},
		Action: withoutArgs(func(c *cli.Context) error {
			client := e.client()
			defer client.Close()
			status, err := client.Status(c.Context, nil)
			if err != nil {
				return err
			}
			return printNames(e.stdout, status)
		}),
	}
}

func pidCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "pid", Usage: "print the pids of programs, or of the daemon", ArgsUsage: "[SELECTOR…]",
		Description: `Prints the pid of each selected instance, 0 where nothing runs; without a
selector, the pid of the daemon.

Exit status: 0 all of them run; 3 one does not; 4 no such program; 5 the daemon
cannot be reached.`,
		Flags:  []cli.Flag{socketFlag(&e.socketCommand)},
		Action: func(c *cli.Context) error { return runPID(c.Context, e, c.Args().Slice()) },
	}
}

// runPID prints pids, one a line.
func runPID(ctx context.Context, e *env, selectors []string) error {
	client := e.client()
	defer client.Close()
	status, err := client.Status(ctx, selectors)
	if err != nil {
		return err
	}
	if len(selectors) == 0 {
		_, err := fmt.Fprintln(e.stdout, status.Daemon.PID)
		return err
	}
	codes := []int{tellUnknown(e, status.Unknown)}
	for _, i := range status.Instances {
		if _, err := fmt.Fprintln(e.stdout, i.PID); err != nil {
			return err
		}
		if i.PID == 0 {
			codes = append(codes, socket.CodeNotDesired)
		}
	}
	return codeError(worst(codes...))
}
