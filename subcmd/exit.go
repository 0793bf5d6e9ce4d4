package subcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"pm.example/config"
	"pm.example/socket"
)

// exitStatus is an error that says nothing: it only carries an exit code, for
// results that have been told already.
type exitStatus int

// Error is never shown.
func (s exitStatus) Error() string { return fmt.Sprintf("exit %d", int(s)) }

// interrupted is the exit code after Ctrl-C, as shells have it.
const interrupted = 128 + int(syscall.SIGINT)

// report tells an error on stderr and returns the exit code it stands for. It
// is the only place that does either.
func report(stderr io.Writer, err error) int {
	var (
		status  exitStatus
		problem *socket.Problem
		faults  *config.Errors
	)
	switch {
	case err == nil:
		return socket.CodeDone
	case errors.As(err, &status):
		return int(status)
	case errors.Is(err, context.Canceled):
		return interrupted
	case errors.Is(err, syscall.EPIPE): // whoever read has seen enough
		return socket.CodeDone
	case errors.As(err, &problem):
		tell(stderr, problem.Message)
		if problem.Hint != "" {
			tell(stderr, "hint: "+problem.Hint)
		}
		return problem.Code
	case errors.As(err, &faults):
		tell(stderr, err.Error())
		return socket.CodeUsage
	default:
		tell(stderr, err.Error())
		return socket.CodeFailed
	}
}

// tell writes a message to stderr, each line of it under pm's name.
func tell(stderr io.Writer, message string) {
	for line := range strings.Lines(message) {
		_, _ = fmt.Fprintf(stderr, "pm: %s\n", strings.TrimRight(line, "\n"))
	}
}

// usagef is an error of what the user wrote.
func usagef(format string, args ...any) error {
	return &socket.Problem{Message: fmt.Sprintf(format, args...), Code: socket.CodeUsage}
}

// usageError makes any error one of what the user wrote, unless it already says
// what it is.
func usageError(err error) error {
	var (
		problem *socket.Problem
		faults  *config.Errors
	)
	if errors.As(err, &problem) || errors.As(err, &faults) {
		return err
	}
	return usagef("%v", err)
}

// severity orders exit codes where several apply: the first one found in the
// list is the one to end with.
var severity = []int{
	socket.CodeUnreachable, socket.CodePermission, socket.CodeUsage, socket.CodeUnknown,
	socket.CodeStartFailed, socket.CodeTimeout, socket.CodeFailed, socket.CodeNotDesired,
}

// worst returns the exit code to end with.
func worst(codes ...int) int {
	for _, s := range severity {
		if slices.Contains(codes, s) {
			return s
		}
	}
	return socket.CodeDone
}

// reason is an error without the operation and the path that its message begins with:
// they are told already.
func reason(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}
