package subcmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pm.example/config"
	"pm.example/runner"
	"pm.example/socket"
)

// inputFile is the FIFO that an instance reads what pm attach sends from.
func inputFile(dir, program string, index int) string {
	return filepath.Join(dir, outputKey{program, index}.file()+inputSuffix)
}

const inputSuffix = ".in"

// sweepInputs deletes the FIFOs in dir of instances that keep does not have.
func sweepInputs(dir string, keep map[string]bool) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), inputSuffix); ok && !keep[name] {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// Input writes to the standard input of instances. What it is stays out of the
// events, since it may be secret.
func (s *service) Input(ctx context.Context, by socket.Peer, req socket.InputRequest) (socket.Result, error) {
	data, err := req.Bytes()
	if err != nil {
		return socket.Result{}, err
	}
	sel, err := parseSelectors(req.Selectors)
	if err != nil {
		return socket.Result{}, err
	}
	list, unknown, err := s.group.Snapshot(ctx, sel)
	if err != nil {
		return socket.Result{}, err
	}
	if len(data) > 0 {
		s.command(by, fmt.Sprintf("input %s: %d bytes", strings.Join(req.Selectors, " "), len(data)))
	}
	ctx, cancel := withTimeout(ctx, req.TimeoutSeconds)
	defer cancel()
	out := socket.Result{Unknown: selectorTexts(unknown)}
	for _, i := range list {
		code, message := s.input(ctx, i, data)
		out.Results = append(out.Results, socket.Outcome{Instance: i.Name, State: string(i.Status), Code: code, Message: message})
	}
	return out, nil
}

// input writes to the standard input of one instance, and tells the outcome. No data
// only asks whether it reads any.
func (s *service) input(ctx context.Context, i runner.Instance, data []byte) (code int, message string) {
	if p := s.reload.program(i.Program); p == nil || p.Stdin != config.Attached {
		return socket.CodeFailed, `reads no input: its stdin is not "attach"`
	}
	if len(data) == 0 {
		return socket.CodeDone, "reads input"
	}
	n, err := writeInput(ctx, inputFile(s.outputs.dir, i.Program, i.Index), data)
	switch {
	case err == nil:
		return socket.CodeDone, fmt.Sprintf("%d bytes written", n)
	case errors.Is(err, syscall.ENXIO) || errors.Is(err, fs.ErrNotExist):
		return socket.CodeFailed, "not running: nobody reads its input"
	case errors.Is(err, syscall.EPIPE):
		return socket.CodeFailed, fmt.Sprintf("ended when %d of %d bytes were written", n, len(data))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return socket.CodeTimeout, fmt.Sprintf("does not read: only %d of %d bytes were written", n, len(data))
	}
	return socket.CodeFailed, fmt.Sprintf("cannot be written to: %v", err)
}

// writeInput writes to a FIFO that somebody reads, for as long as ctx allows.
func writeInput(ctx context.Context, path string, data []byte) (int, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	return f.Write(data)
}
