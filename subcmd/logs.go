package subcmd

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"

	"github.com/urfave/cli/v2"

	"pm.example/socket"
)

// logsOptions are the flags of pm logs.
type logsOptions struct {
	lines  int
	follow bool
	stdout bool
	stderr bool
	json   bool
}

func logsCommand(e *env) *cli.Command {
	var o logsOptions
	return &cli.Command{
		Name: "logs", Aliases: []string{"tail"}, Usage: "print what programs printed", ArgsUsage: "SELECTOR…",
		Description: "Prints the last lines of each instance that is selected: from the daemon's memory,\nor from the files that they write. With more than one instance each line begins\nwith its name.\n\nExamples:\n  pm logs web\n  pm logs -f -n 100 --stderr 'web:*' db\n\nExit status: 0 done; 4 no such program; 5 the daemon cannot be reached.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Value: 10, Destination: &o.lines, Usage: "begin with the last `N` lines; -1: with all there are"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Destination: &o.follow, Usage: "go on as they print"},
			&cli.BoolFlag{Name: "stdout", Destination: &o.stdout, Usage: "only standard output"},
			&cli.BoolFlag{Name: "stderr", Destination: &o.stderr, Usage: "only standard error"},
			&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "print a JSON document a line"},
			socketFlag(&e.socketCommand),
		},
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				return &socket.Problem{Message: "pm logs: nothing is selected", Hint: "name programs, or all: pm logs all", Code: socket.CodeUsage}
			}
			return runLogs(c.Context, e, o, c.Args().Slice())
		},
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
	ctx, stop := interruptible(ctx)
	defer stop()
	client := e.client()
	defer client.Close()
	status, err := client.Status(ctx, selectors)
	if err != nil {
		return err
	}
	unknown := tellUnknown(e, status.Unknown)
	if len(status.Instances) == 0 {
		return codeError(unknown)
	}
	p := &linePrinter{out: bufio.NewWriter(e.stdout), json: o.json, named: len(status.Instances) > 1, flush: o.follow}
	err = client.Logs(ctx, socket.LogsRequest{Selectors: selectors, Lines: o.lines, Stream: o.stream(), Follow: o.follow}, p.print)
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

// linePrinter prints lines of logs.
type linePrinter struct {
	out   *bufio.Writer
	json  bool
	named bool // begin with the instance's name
	flush bool // after each line
	open  bool // the last line has no end yet
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
	if p.json {
		return writeJSON(p.out, l)
	}
	text := []byte(l.Line)
	if l.Base64 != "" {
		if raw, err := base64.StdEncoding.DecodeString(l.Base64); err == nil {
			text = raw
		}
	}
	if p.named {
		_, err := fmt.Fprintf(p.out, "%s | %s\n", l.Instance, text)
		return err
	}
	if p.open = l.Partial; !p.open {
		text = append(text, '\n')
	}
	_, err := p.out.Write(text)
	return err
}
