package subcmd

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"pm.example/socket"
)

func attachCommand(e *env) *cli.Command {
	var lines int
	return &cli.Command{
		Name: "attach", Aliases: []string{"fg"}, Usage: "type into a program, and see what it prints", ArgsUsage: "SELECTOR",
		Description: `Sends what is typed, or comes on standard input, to the standard input of an
instance, and prints what the instance prints, whole lines of it, after its last
lines. It goes on through restarts, and through the death or the upgrade of the
daemon. The end of standard input, or Ctrl-C, leaves; the program notices neither.

Programs read what is sent if their key stdin is "attach"; of others only the
output is shown.

Examples:
  pm attach console
  echo reload | pm attach web:0

Exit status: 0 done; 1 it does not run, or what was sent has not arrived; 4 no such
program; 5 the daemon cannot be reached.`,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Value: 10, Destination: &lines, Usage: "begin with the last `N` lines"},
			socketFlag(&e.socketCommand),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("pm attach takes one instance: pm attach web")
			}
			if lines < 0 {
				return usagef("-n %d: cannot begin with so many lines (accepted: 0 or more)", lines)
			}
			return runAttach(c.Context, e, c.Args().First(), lines)
		},
	}
}

// runAttach joins pm's own input and output with those of an instance.
func runAttach(ctx context.Context, e *env, name string, lines int) error {
	pressed, stop := interruptible(ctx)
	defer stop()
	ctx, leave := context.WithCancel(pressed)
	defer leave()
	client := e.client()
	defer client.Close()
	a := &attachment{env: e, client: client}
	if err := a.begin(ctx, name); err != nil {
		return err
	}
	sent := make(chan int, 1)
	if a.reads {
		go func() { // ends with the input, or with ctx; where that cannot be given up, with the process
			sent <- a.send(ctx, e.stdin)
			leave()
		}()
	}
	p := &linePrinter{out: bufio.NewWriter(e.stdout), notes: e.stderr, flush: true}
	err := client.Logs(ctx, socket.LogsRequest{Selectors: []string{a.name}, Lines: lines, Follow: true}, p.print)
	switch {
	case pressed.Err() != nil: // Ctrl-C: that is how to leave
		return nil
	case errors.Is(err, context.Canceled):
		return codeError(<-sent)
	}
	return err
}

// attachment is the connection with one instance.
type attachment struct {
	env    *env
	client *socket.Client
	name   string
	reads  bool // it reads what is sent
}

// begin finds the instance, and whether it reads what is sent.
func (a *attachment) begin(ctx context.Context, name string) error {
	status, err := a.client.Status(ctx, []string{name})
	if err != nil {
		return err
	}
	if code := tellUnknown(a.env, status.Unknown); code != socket.CodeDone {
		return codeError(code)
	}
	if n := len(status.Instances); n > 1 {
		return &socket.Problem{Message: fmt.Sprintf("%s is %d instances, and pm attach takes one", name, n), Hint: "pm attach " + status.Instances[0].Name, Code: socket.CodeUsage}
	}
	a.name = status.Instances[0].Name
	switch status.Instances[0].State {
	case "STOPPED", "EXITED", "FATAL":
		return &socket.Problem{Message: a.name + ": not running", Hint: "pm start " + a.name, Code: socket.CodeFailed}
	}
	result, err := a.client.Input(ctx, socket.InputRequest{Selectors: []string{a.name}})
	if err != nil {
		return err
	}
	a.reads = worstOf(result) == socket.CodeDone
	if a.reads && isTerminal(a.env.stdin) {
		tell(a.env.stderr, "attached to "+a.name+", Ctrl-C leaves")
	}
	if a.reads {
		return nil
	}
	for _, r := range result.Results {
		tell(a.env.stderr, r.Instance+" "+r.Message+"; this is what it prints, Ctrl-C leaves")
	}
	return nil
}

// maxSent is how much is sent at once.
const maxSent = 32 << 10

// send sends all that comes from in, and returns the code of the worst outcome.
func (a *attachment) send(ctx context.Context, in io.Reader) (code int) {
	own, giveUp := ownInput(in)
	defer func() { _ = own.Close() }()
	stop := context.AfterFunc(ctx, giveUp)
	defer stop()
	chunk := make([]byte, maxSent)
	for {
		n, err := own.Read(chunk)
		if n > 0 {
			code = worst(code, a.sendChunk(ctx, chunk[:n]))
		}
		if err != nil {
			return code
		}
	}
}

// sendChunk sends a part of the input. What has not arrived is told, and the next
// part may again.
func (a *attachment) sendChunk(ctx context.Context, chunk []byte) int {
	req := socket.InputRequest{Selectors: []string{a.name}, Text: string(chunk)}
	if !utf8.Valid(chunk) {
		req.Text, req.Base64 = "", base64.StdEncoding.EncodeToString(chunk)
	}
	result, err := a.client.Input(ctx, req)
	if ctx.Err() != nil {
		return socket.CodeDone
	}
	if err != nil {
		return report(a.env.stderr, err)
	}
	for _, r := range result.Results {
		if r.Code != socket.CodeDone {
			tell(a.env.stderr, r.Instance+": "+r.Message)
		}
	}
	return worst(tellUnknown(a.env, result.Unknown), worstOf(result))
}

// worstOf is the code of the worst outcome.
func worstOf(result socket.Result) int {
	code := socket.CodeDone
	for _, r := range result.Results {
		code = worst(code, r.Code)
	}
	return code
}

// ownInput returns a stream as one whose reading can be given up. It is opened anew
// for that, since others that have it as well, such as the shell, would not bear that
// it never waits. A file is not: it keeps nobody waiting, and is read on from where it
// is.
func ownInput(in io.Reader) (own io.ReadCloser, giveUp func()) {
	f, ok := in.(*os.File)
	if !ok {
		return io.NopCloser(in), func() {}
	}
	if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() {
		again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
		if err == nil {
			return again, func() { _ = again.SetReadDeadline(time.Unix(1, 0)) }
		}
	}
	return io.NopCloser(in), func() {}
}
