package subcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"pm.example/proc"
	"pm.example/socket"
)

// signalTreeOptions are the flags of pm signal-tree.
type signalTreeOptions struct {
	signal         string
	exclude        cli.StringSlice
	grace, timeout time.Duration
	dryRun         bool
	force          bool
	quiet          bool
	json           bool
}

func signalTreeCommand(e *env) *cli.Command {
	var o signalTreeOptions
	return &cli.Command{
		Name:      "signal-tree",
		Usage:     "signal whole process trees",
		ArgsUsage: "PID…",
		Description: `Sends a signal to each process PID and all its descendants, parents first, and
looks again until nobody new is found. With --grace it waits for them to end,
and then kills whatever is left; with --timeout alone it only waits. It prints what
became of each process: signalled, excluded, killed, gone (it had ended before) or left.

Examples:
  pm signal-tree 4711
  pm signal-tree -s HUP -x nginx 4711
  pm signal-tree --grace 10s 4711
  pm signal-tree -q -s INT --timeout 5s 4711
  pm signal-tree --dry-run 4711

Exit status: 0 done, and with --grace or --timeout nothing is left; 1 something is left;
2 usage; 4 no such process; 6 a process may not be signalled.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "signal", Aliases: []string{"s"}, Value: "TERM", Destination: &o.signal, Usage: "send `SIG`, a name or a number"},
			&cli.StringSliceFlag{Name: "exclude", Aliases: []string{"x"}, Destination: &o.exclude, Usage: "spare processes called `NAME` (in any case; repeatable, or a,b), but not their children; with --grace only until what is left is killed"},
			&cli.DurationFlag{Name: "grace", Destination: &o.grace, Usage: "wait `TIME` for the trees to end, then kill what is left"},
			&cli.DurationFlag{Name: "timeout", Destination: &o.timeout, Usage: "give up after `TIME`, whatever is left; without --grace, wait so long for the trees to end (default: with --grace for ever, else not at all)"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Destination: &o.dryRun, Usage: "only print the trees"},
			&cli.BoolFlag{Name: "force", Destination: &o.force, Usage: "also act on pid 1 and on ancestors of pm itself"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Destination: &o.quiet, Usage: "print nothing but what went wrong"},
			&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "print a JSON document"},
		},
		Action: func(c *cli.Context) error {
			return runSignalTree(c.Context, e, o, c.IsSet("grace"), c.Args().Slice())
		},
	}
}

// runSignalTree signals the trees of the pids that args name.
func runSignalTree(ctx context.Context, e *env, o signalTreeOptions, kill bool, args []string) error {
	sig, err := proc.ParseSignal(o.signal)
	if err != nil {
		return usageError(err)
	}
	pids, err := parsePIDs(args)
	if err != nil {
		return usageError(err)
	}
	report, err := proc.SignalTree(ctx, pids, proc.TreeSignal{
		Signal: sig, Exclude: splitNames(o.exclude.Value()), Kill: kill, Grace: o.grace,
		Timeout: o.timeout, DryRun: o.dryRun, Force: o.force,
	})
	if err != nil {
		return usageError(fmt.Errorf("cannot signal that tree: %w", err))
	}
	if err := printTree(e, o, report); err != nil {
		return err
	}
	return treeVerdict(report)
}

func parsePIDs(args []string) ([]int, error) {
	if len(args) == 0 {
		return nil, errors.New("no pid given: pm signal-tree PID…")
	}
	pids := make([]int, 0, len(args))
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		if err != nil || pid < 1 {
			return nil, fmt.Errorf("%q is not a pid", arg)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// splitNames reads names that were given one by one or in lists.
func splitNames(values []string) (names []string) {
	for _, value := range values {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

// treeDocument is the --json form.
type treeDocument struct {
	Schema    int          `json:"schema"`
	DryRun    bool         `json:"dry_run,omitempty"` // the outcomes are what would be
	Processes []treeMember `json:"processes"`
	Left      int          `json:"left"`
}

type treeMember struct {
	PID     int    `json:"pid"`
	Parent  int    `json:"ppid"`
	Name    string `json:"name"`
	Outcome string `json:"outcome"`
	State   string `json:"state,omitempty"` // of a process that is left
	Error   string `json:"error,omitempty"`
}

func printTree(e *env, o signalTreeOptions, report proc.TreeReport) error {
	if o.quiet {
		return nil
	}
	if o.json {
		doc := treeDocument{Schema: socket.Schema, DryRun: o.dryRun, Left: report.Left, Processes: []treeMember{}}
		for _, m := range report.Members {
			doc.Processes = append(doc.Processes, wireMember(m))
		}
		return json.NewEncoder(e.stdout).Encode(doc)
	}
	if o.dryRun {
		return printBranch(e.stdout, "", branches(report.Members), 0)
	}
	rows := make([][]string, len(report.Members))
	for n, m := range report.Members {
		rows[n] = []string{string(m.Outcome), strconv.Itoa(m.PID), m.Name}
	}
	return writeTable(e.stdout, rows, 0)
}

// branches maps each pid to the members that are its children, and 0 to those
// below no other: the roots, and whoever has lost its parent.
func branches(members []proc.Member) map[int][]proc.Member {
	known := map[int]bool{}
	for _, m := range members {
		known[m.PID] = true
	}
	below := map[int][]proc.Member{}
	for _, m := range members {
		parent := m.Parent
		if m.Depth == 0 || !known[parent] {
			parent = 0
		}
		below[parent] = append(below[parent], m)
	}
	return below
}

// printBranch prints the members below parent, and takes them from the map: a
// pid that was used twice would make a circle of it.
func printBranch(w io.Writer, indent string, below map[int][]proc.Member, parent int) error {
	members := below[parent]
	delete(below, parent)
	for _, m := range members {
		note := ""
		if m.Outcome == proc.Excluded {
			note = " (excluded)"
		}
		if _, err := fmt.Fprintf(w, "%s%d %s%s\n", indent, m.PID, printable(m.Name), note); err != nil {
			return err
		}
		if err := printBranch(w, indent+"  ", below, m.PID); err != nil {
			return err
		}
	}
	return nil
}

func wireMember(m proc.Member) treeMember {
	w := treeMember{PID: m.PID, Parent: m.Parent, Name: m.Name, Outcome: string(m.Outcome)}
	if m.Outcome == proc.Left {
		w.State = string(m.State)
	}
	if m.Err != nil {
		w.Error = m.Err.Error()
	}
	return w
}

// treeVerdict turns what is left or missing into an error that names it.
func treeVerdict(report proc.TreeReport) error {
	var left []string
	refused := 0
	for _, m := range report.Members {
		if m.Outcome != proc.Left {
			continue
		}
		why := "state " + string(m.State)
		if m.Err != nil {
			why = m.Err.Error()
		}
		if errors.Is(m.Err, syscall.EPERM) {
			refused++
		}
		left = append(left, printable(fmt.Sprintf("%s (%s)", m.Process, why)))
	}
	switch {
	case len(left) > 0 && refused == len(left):
		return &socket.Problem{Message: "cannot signal " + strings.Join(left, ", "), Hint: "they belong to another user: run pm as that user or as root", Code: socket.CodePermission}
	case len(left) > 0:
		return &socket.Problem{Message: "still there: " + strings.Join(left, ", "), Code: socket.CodeFailed}
	case len(report.Missing) > 0:
		return &socket.Problem{Message: fmt.Sprintf("no such process: %s", joinInts(report.Missing)), Code: socket.CodeUnknown}
	}
	return nil
}

func joinInts(list []int) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ", ")
}
