package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// tickTime is the unit of CPU times in /proc/PID/stat: USER_HZ is 100 on every
// architecture that pm runs on.
const tickTime = 10 * time.Millisecond

// now returns CLOCK_MONOTONIC in nanoseconds, the clock that idle reads.
func now() int64 {
	const monotonic = 1
	var ts syscall.Timespec
	_, _, _ = syscall.Syscall(syscall.SYS_CLOCK_GETTIME, monotonic, uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano()
}

// running returns the processes whose program file is path, or, with a slash at
// its end, in that directory.
func running(path string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		exe, err := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if err != nil {
			continue // it has ended, or is the kernel's or somebody else's
		}
		if exe == path || strings.HasSuffix(path, "/") && strings.HasPrefix(exe, path) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// within returns the processes whose program file or working directory is in a
// directory: s6-supervise runs from where it is installed, and works there.
func within(dir string) ([]int, error) {
	pids, err := running(dir + "/")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if err == nil && strings.HasPrefix(cwd+"/", dir+"/") && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// sweep kills whatever runs or works in a directory until two looks find nothing.
func sweep(dir string) error {
	const looks = 500
	for clean := range looks {
		pids, err := within(dir)
		if err != nil {
			return err
		}
		if len(pids) == 0 && clean > 0 {
			return nil
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(pids) > 0 {
			time.Sleep(10 * time.Millisecond)
		}
	}
	return fmt.Errorf("processes that run from %s withstand SIGKILL", dir)
}

// usage is what a set of processes has used so far, or holds now.
type usage struct {
	cpu      time.Duration // user and system
	switches uint64        // context switches of all threads
	threads  int
	pss      uint64 // bytes
}

// measure adds up the usage of processes. One that has ended meanwhile counts
// for nothing: between vfork and execve a program still looks like its
// supervisor.
func measure(pids []int) (usage, error) {
	var sum usage
	for _, pid := range pids {
		u, err := measureProcess(filepath.Join("/proc", strconv.Itoa(pid)))
		if gone(err) {
			continue
		}
		if err != nil {
			return sum, fmt.Errorf("cannot measure process %d: %w", pid, err)
		}
		sum.cpu += u.cpu
		sum.switches += u.switches
		sum.threads += u.threads
		sum.pss += u.pss
	}
	return sum, nil
}

// gone reports whether an error says that a process or thread has ended.
func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

func measureProcess(dir string) (usage, error) {
	cpu, err1 := readNumbers(filepath.Join(dir, "stat"), cpuTicks)
	pss, err2 := readNumbers(filepath.Join(dir, "smaps_rollup"), func(b []byte) (uint64, error) { return field(b, "Pss:") })
	threads, err3 := os.ReadDir(filepath.Join(dir, "task"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return usage{}, err
	}
	u := usage{cpu: time.Duration(cpu) * tickTime, pss: pss * 1024, threads: len(threads)}
	for _, t := range threads {
		n, err := readNumbers(filepath.Join(dir, "task", t.Name(), "status"), contextSwitches)
		if err != nil && !gone(err) { // a thread may end between the listing and the reading
			return u, err
		}
		u.switches += n
	}
	return u, nil
}

func readNumbers(path string, parse func([]byte) (uint64, error)) (uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := parse(data)
	if err != nil {
		return 0, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return n, nil
}

// cpuTicks reads utime and stime out of /proc/PID/stat; see proc_pid_stat(5).
// The name in it may hold blanks and parentheses, so the fields are counted
// from the last parenthesis.
func cpuTicks(stat []byte) (uint64, error) {
	i := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[i+1:]))
	if i < 0 || len(fields) < 13 {
		return 0, fmt.Errorf("%q is not as proc_pid_stat(5) says", stat)
	}
	utime, err1 := strconv.ParseUint(fields[11], 10, 64)
	stime, err2 := strconv.ParseUint(fields[12], 10, 64)
	return utime + stime, errors.Join(err1, err2)
}

func contextSwitches(status []byte) (uint64, error) {
	a, err1 := field(status, "voluntary_ctxt_switches:")
	b, err2 := field(status, "nonvoluntary_ctxt_switches:")
	return a + b, errors.Join(err1, err2)
}

// field returns the number behind a name at the start of a line.
func field(text []byte, name string) (uint64, error) {
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == name {
			return strconv.ParseUint(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("no line %q in it", name)
}
