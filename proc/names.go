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

// The real-time signals that a C library leaves to programs. It keeps 32 and 33,
// the first of the kernel's, for itself.
const (
	realTimeMin = syscall.Signal(34)
	realTimeMax = syscall.Signal(64)
)

// SignalName returns the name of a signal without SIG, or its number if it has
// none. Real-time signals are called as by kill -l of a shell: from the nearer end.
func SignalName(sig syscall.Signal) string {
	switch {
	case sig == realTimeMin:
		return "RTMIN"
	case sig == realTimeMax:
		return "RTMAX"
	case sig > realTimeMin && sig <= realTimeMin+15:
		return fmt.Sprintf("RTMIN+%d", sig-realTimeMin)
	case sig > realTimeMin && sig < realTimeMax:
		return fmt.Sprintf("RTMAX-%d", realTimeMax-sig)
	}
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(int(sig))
}

// ParseSignal reads a signal: a name in any case with or without SIG, or a
// number from 1 to 64. RTMIN+n and RTMAX-n count as in the C library, where RTMIN
// is 34.
func ParseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > 64 {
			return 0, fmt.Errorf("no such signal %q (accepted: 1 to 64, or a name such as TERM)", text)
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	if sig := realTimeSignal(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("no such signal %q (accepted: a name such as TERM, HUP, USR1 or RTMIN+3, or 1 to 64)", text)
}

// realTimeSignal reads RTMIN, RTMIN+n, RTMAX-n and RTMAX; it returns 0 for all else.
func realTimeSignal(name string) syscall.Signal {
	switch name {
	case "RTMIN":
		return realTimeMin
	case "RTMAX":
		return realTimeMax
	}
	text, up := strings.CutPrefix(name, "RTMIN+")
	text, down := strings.CutPrefix(text, "RTMAX-")
	n, err := strconv.ParseUint(text, 10, 8)
	switch {
	case up == down || err != nil || n > uint64(realTimeMax-realTimeMin):
		return 0
	case up:
		return realTimeMin + syscall.Signal(n)
	}
	return realTimeMax - syscall.Signal(n)
}
