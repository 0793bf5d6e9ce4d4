package proc

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// limits by the name a user writes.
var limitNumbers = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
	"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// LimitNumber returns the setrlimit(2) number of a resource by its lower-case
// name without RLIMIT_. rttime is not among them: pm uses it (see Tag).
func LimitNumber(name string) (int, bool) {
	n, ok := limitNumbers[name]
	return n, ok
}

func limitName(number int) string {
	for name, n := range limitNumbers {
		if n == number {
			return name
		}
	}
	return strconv.Itoa(number)
}

// SignalName returns the name of a signal without SIG, or its number if it has
// none.
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(int(sig))
}

// ParseSignal reads a signal: a name in any case with or without SIG, or a
// number from 1 to 64.
func ParseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > 64 {
			return 0, fmt.Errorf("no such signal %q (accepted: 1 to 64, or a name such as TERM)", text)
		}
		return syscall.Signal(n), nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("no such signal %q (accepted: a name such as TERM, HUP or USR1, or 1 to 64)", text)
}
