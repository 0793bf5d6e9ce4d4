package main

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processes lists the living processes of the machine that match, but for this
// one. A zombie is not living.
func processes(match func(pid int) bool) (list []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && match(pid) && living(pid) {
			list = append(list, pid)
		}
	}
	return list
}

// processesOf lists what the script that works in dir has started: it has the
// marker in its environment, or works in that directory.
func processesOf(dir string) []int {
	marker := []byte("PM_SCRIPT=" + dir + "\x00")
	return processes(func(pid int) bool {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(environ, marker) {
			return true
		}
		cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
		return err == nil && (cwd == dir || strings.HasPrefix(cwd, dir+"/"))
	})
}

// adoptOrphans makes this process the parent of every process of a script that
// loses its own, and waits for those that end. Orphans become children of the
// main thread; what the tests start themselves are children of other threads,
// since the main thread is locked to a goroutine that starts nothing.
func adoptOrphans() {
	runtime.LockOSThread()
	if syscall.Gettid() != os.Getpid() || unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != nil {
		return
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go func() { // ends with the process
		for range ended {
			for _, pid := range mainThreadChildren() {
				_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			}
		}
	}()
}

// mainThreadChildren lists the children of this process's main thread.
func mainThreadChildren() (list []int) {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	for field := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(field); err == nil {
			list = append(list, pid)
		}
	}
	return list
}

// orphans lists the living processes that have come to this one.
func orphans() []int {
	return slices.DeleteFunc(mainThreadChildren(), func(pid int) bool { return !living(pid) })
}

// killAll kills what list lists until it has listed nothing several times: somebody may
// be born behind its back, of one that ends before it is reached.
func killAll(list func() []int) {
	const enough = 3
	for n, clean := 0, 0; clean < enough && n < 1000; n++ {
		left := list()
		if clean++; len(left) > 0 {
			clean = 0
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-time.After(pollEvery)
	}
}

// describe writes processes as "41 actor ignore=TERM".
func describe(pids []int) []string {
	list := make([]string, len(pids))
	for n, pid := range pids {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		words := strings.TrimRight(strings.ReplaceAll(string(line), "\x00", " "), " ")
		list[n] = fmt.Sprintf("%d %s", pid, words)
	}
	return list
}

// stat is what the harness wants of /proc/PID/stat.
type stat struct {
	comm  string
	state byte
	ppid  int
}

func readStat(pid int) (stat, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if err != nil || open < 0 || end < 0 {
		return stat{}, false
	}
	fields := strings.Fields(string(data[end+1:]))
	ppid, err := strconv.Atoi(fields[1])
	st := stat{comm: string(data[open+1 : end]), state: fields[0][0], ppid: ppid}
	if threads := fields[17]; threads != "1" && st.state == 'Z' {
		st.state = 'S' // its first thread has ended, others have not
	}
	return st, err == nil
}

func living(pid int) bool {
	st, ok := readStat(pid)
	return ok && st.state != 'Z' && st.state != 'X'
}

// tree writes the names of a process and of all below it, one a line, children
// indented and in the order of their names.
func tree(pid int) string {
	below := map[int][]int{}
	for _, p := range processes(func(int) bool { return true }) {
		if st, ok := readStat(p); ok {
			below[st.ppid] = append(below[st.ppid], p)
		}
	}
	return strings.Join(branch(pid, "", below), "")
}

func branch(pid int, indent string, below map[int][]int) []string {
	st, ok := readStat(pid)
	if !ok {
		return nil
	}
	var parts []string
	for _, child := range below[pid] {
		parts = append(parts, strings.Join(branch(child, indent+"  ", below), ""))
	}
	slices.Sort(parts)
	return append([]string{indent + st.comm + "\n"}, parts...)
}

// installed reports whether there is a server program of that name: Debian
// keeps them out of the PATH of users.
func installed(name string) bool {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
			return true
		}
	}
	return false
}
