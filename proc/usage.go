package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Usage is what a process has used.
type Usage struct {
	CPU    time.Duration // user and system time since it started
	Memory int64         // resident bytes
}

// UsageOf reads what a process has used, from /proc/PID/stat (proc_pid_stat(5)).
func UsageOf(pid int) (Usage, error) {
	data, err := slurp("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Usage{}, err
	}
	return parseUsage(data)
}

// ticks is the unit of times in /proc: USER_HZ, 100 a second on every Linux that
// Go runs on.
const ticks = 10 * time.Millisecond

func parseUsage(data []byte) (Usage, error) {
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 22 {
		return Usage{}, errStat
	}
	var numbers [3]int64
	for i, at := range []int{11, 12, 21} { // utime, stime, rss
		n, err := strconv.ParseInt(string(fields[at]), 10, 64)
		if err != nil {
			return Usage{}, fmt.Errorf("%w: %v", errStat, err)
		}
		numbers[i] = n
	}
	return Usage{CPU: time.Duration(numbers[0]+numbers[1]) * ticks, Memory: numbers[2] * int64(os.Getpagesize())}, nil
}

// Ended reports whether a process holds nothing any more: it is gone, or all of
// its threads are, and its parent has not asked for its status yet. The first
// thread may be a zombie while others still hold files and locks.
func Ended(pid int) bool {
	data, err := slurp("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	const state, threads = 0, 17 // counted from the name on
	if len(fields) <= threads || !bytes.Contains([]byte("ZX"), fields[state]) {
		return false
	}
	n, err := strconv.Atoi(string(fields[threads]))
	return err == nil && n <= 1
}
