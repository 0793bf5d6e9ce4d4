package proc

import (
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sysmonSlack is how late the scheduler's monitor may be, and usualSlack how late a thread
// is that nobody has changed, in nanoseconds; prctl(2), PR_SET_TIMERSLACK.
const (
	sysmonSlack = 1_000_000
	usualSlack  = 50_000
)

// ownSlack is the timer slack that this process was started with, where the monitor's was
// changed; else 0. Threads that the monitor starts have the monitor's, so what
// they start in turn has to be given this one. It is set before anything is launched.
var ownSlack uintptr

// CalmScheduler makes the monitor thread of the Go scheduler look less often. As soon as
// anything runs in this process it wakes up every 20 µs, for a millisecond at least, and
// so interrupts just those for whom something was done: the program that is being
// started, or those that are dying. To do that less often costs nothing where another
// processor of the scheduler's is free. It takes CAP_SYS_NICE; without it all stays as
// it is. It is to be called once, before the first launch.
func CalmScheduler() {
	tid := monitor()
	own, err := slack(unix.Getpid())
	if runtime.GOMAXPROCS(0) < 2 || tid == 0 || err != nil || setSlack(tid, sysmonSlack) != nil {
		return
	}
	if ownSlack = uintptr(own); own == sysmonSlack { // of a daemon that this one has come from
		ownSlack = usualSlack
	}
}

// calmThreads gives threads that the monitor has started what others have.
func calmThreads() {
	if ownSlack == 0 {
		return
	}
	of := monitor()
	_ = eachPID("/proc/self/task", func(tid int) {
		if own, err := slack(tid); err == nil && own == sysmonSlack && tid != of {
			_ = setSlack(tid, int(ownSlack))
		}
	})
}

// slack returns the timer slack of a thread; proc(5).
func slack(tid int) (int, error) {
	text, err := slurp(slackFile(tid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func setSlack(tid, ns int) error {
	return os.WriteFile(slackFile(tid), []byte(strconv.Itoa(ns)), 0)
}

func slackFile(tid int) string { return "/proc/" + strconv.Itoa(tid) + "/timerslack_ns" }

// monitor returns the monitor thread: the runtime starts it before any other, and the
// kernel lists threads in that order, the main one first. 0 if that is not to be seen, as
// in a /proc of another pid namespace.
func monitor() (tid int) {
	tids, err := listPIDs("/proc/self/task")
	if err != nil || len(tids) < 2 || tids[0] != os.Getpid() {
		return 0
	}
	return tids[1]
}
