package socket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// The exit codes of the command line. A [Problem] and an [Outcome] carry one,
// so that no client has to guess from a message what went wrong.
const (
	CodeDone        = 0 // done, or already so
	CodeFailed      = 1 // a target failed
	CodeUsage       = 2 // the request or the config is wrong
	CodeNotDesired  = 3 // something is not in its desired state
	CodeUnknown     = 4 // no such program
	CodeUnreachable = 5 // the daemon cannot be reached
	CodePermission  = 6 // permission denied
	CodeStartFailed = 7 // a program could not be started
	CodeTimeout     = 8 // timed out
)

// Problem is the body of every answer that is not a success, and the error
// that a [Service] and a [Client] return.
type Problem struct {
	Schema  int    `json:"schema"`
	Message string `json:"error"` // what was tried, on what, and why it failed
	Hint    string `json:"hint,omitempty"`
	// Code is the exit code that the command line gives.
	Code int `json:"code"`

	status int  // HTTP status, where Code alone does not say it
	lost   bool // the daemon was there, and then was not
}

// Lost reports whether the daemon had been there and went away before all of its
// answer was: it may be back in a moment.
func (p *Problem) Lost() bool { return p.lost }

// Error returns the message without the hint.
func (p *Problem) Error() string { return p.Message }

// httpStatus is the HTTP status that p is answered with.
func (p *Problem) httpStatus() int {
	if p.status != 0 {
		return p.status
	}
	switch p.Code {
	case CodeUsage:
		return http.StatusBadRequest
	case CodeUnknown:
		return http.StatusNotFound
	case CodePermission:
		return http.StatusForbidden
	case CodeTimeout:
		return http.StatusGatewayTimeout
	case CodeFailed, CodeNotDesired, CodeStartFailed:
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

// problemOf makes a Problem of any error. An error that is none is a fault of
// the daemon, answered with 500.
func problemOf(err error) *Problem {
	var p *Problem
	switch {
	case errors.As(err, &p):
		filled := *p
		filled.Schema = Schema
		if filled.Code == CodeDone {
			filled.Code = CodeFailed
		}
		return &filled
	case errors.Is(err, context.DeadlineExceeded):
		return &Problem{Schema: Schema, Message: err.Error(), Code: CodeTimeout}
	}
	return &Problem{Schema: Schema, Message: err.Error(), Code: CodeFailed, status: http.StatusInternalServerError}
}

// badRequest is a Problem with what the client sent.
func badRequest(format string, args ...any) *Problem {
	return &Problem{
		Message: fmt.Sprintf(format, args...),
		Hint:    "the requests and their fields are described in docs/api.md",
		Code:    CodeUsage,
	}
}
