package proc

import (
	"os"
	"runtime"
	"strconv"
)

// sysmonSlack is how late the scheduler's monitor may be, in nanoseconds.
const sysmonSlack = "1000000"

// CalmScheduler makes the monitor thread of the Go scheduler look less often. As soon as
// anything runs in this process it wakes up every 20 µs, for a millisecond at least, and
// so interrupts just those for whom something was done: the program that is being
// started, or those that are dying. To do that less often costs nothing where another
// processor of the scheduler's is free. It takes CAP_SYS_NICE; without it all stays as
// it is.
func CalmScheduler() {
	if runtime.GOMAXPROCS(0) < 2 {
		return
	}
	if tid := monitor(); tid != 0 {
		_ = os.WriteFile("/proc/"+strconv.Itoa(tid)+"/timerslack_ns", []byte(sysmonSlack), 0) // proc(5)
	}
}

// monitor returns the monitor thread: the runtime starts it before any other, and the
// kernel lists threads in that order. 0 if there is none to be seen.
func monitor() (tid int) {
	self := os.Getpid()
	_ = eachPID("/proc/self/task", func(pid int) {
		if tid == 0 && pid != self {
			tid = pid
		}
	})
	return tid
}
