package subcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"pm.example/config"
	"pm.example/socket"
)

func TestReport(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		code int
		text string
	}{
		{"nothing", nil, 0, ""},
		{"told already", exitStatus(7), 7, ""},
		{"told already, wrapped", fmt.Errorf("web: %w", exitStatus(3)), 3, ""},
		{"any other error", errors.New("cannot do it"), socket.CodeFailed, "pm: cannot do it\n"},
		{"several lines", errors.New("one\ntwo\n"), socket.CodeFailed, "pm: one\npm: two\n"},
		{"a problem", &socket.Problem{Message: "no such program: web", Code: socket.CodeUnknown}, socket.CodeUnknown, "pm: no such program: web\n"},
		{
			"a problem with a hint", fmt.Errorf("wrapped: %w", &socket.Problem{Message: "cannot reach it", Hint: "start it", Code: socket.CodeUnreachable}),
			socket.CodeUnreachable, "pm: cannot reach it\npm: hint: start it\n",
		},
		{"interrupted", fmt.Errorf("waiting: %w", context.Canceled), 130, ""},
		{"whoever read has seen enough", &os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}, 0, ""},
		{
			"faults of a config", &config.Errors{Problems: []config.Problem{
				{File: "pm.toml", Line: 2, Column: 1, Key: "programs.web", Message: "one"},
				{File: "pm.toml", Line: 3, Column: 4, Key: "programs.db", Message: "two"},
			}},
			socket.CodeUsage, "pm: pm.toml:2:1: programs.web: one\npm: pm.toml:3:4: programs.db: two\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stderr bytes.Buffer
			if code := report(&stderr, test.err); code != test.code || stderr.String() != test.text {
				t.Errorf("exit %d with\n%swant %d with\n%s", code, stderr.String(), test.code, test.text)
			}
		})
	}
}

func TestWorst(t *testing.T) {
	for _, test := range []struct {
		codes []int
		want  int
	}{
		{nil, socket.CodeDone},
		{[]int{socket.CodeDone, socket.CodeDone}, socket.CodeDone},
		{[]int{socket.CodeDone, socket.CodeFailed}, socket.CodeFailed},
		{[]int{socket.CodeFailed, socket.CodeTimeout, socket.CodeStartFailed}, socket.CodeStartFailed},
		{[]int{socket.CodeTimeout, socket.CodeFailed}, socket.CodeTimeout},
		{[]int{socket.CodeNotDesired, socket.CodeUnknown}, socket.CodeUnknown},
		{[]int{socket.CodeStartFailed, socket.CodeUnknown}, socket.CodeUnknown},
		{[]int{socket.CodeUnknown, socket.CodePermission, socket.CodeUnreachable}, socket.CodeUnreachable},
	} {
		if got := worst(test.codes...); got != test.want {
			t.Errorf("%v: got %d, want %d", test.codes, got, test.want)
		}
	}
}

func TestUsageError(t *testing.T) {
	problem := &socket.Problem{Message: "no such program", Code: socket.CodeUnknown}
	if got := usageError(problem); got != error(problem) {
		t.Errorf("a problem became %v", got)
	}
	faults := &config.Errors{Problems: []config.Problem{{File: "pm.toml", Message: "one"}}}
	if got := usageError(faults); got != error(faults) {
		t.Errorf("faults became %v", got)
	}
	var got *socket.Problem
	if !errors.As(usageError(errors.New("cannot parse it")), &got) || got.Code != socket.CodeUsage || got.Message != "cannot parse it" {
		t.Errorf("any other error became %+v", got)
	}
}
