package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Where pm may make cgroups (version 2), every task is born in one of its own,
// and all of them lie in one that is the keeper's.
// It holds also those who got rid of their tag, and cgroup.kill reaches all of
// them at once. A cgroup is used for one task only: after cgroup.kill the kernel
// kills whoever is later born in it (seen with Linux 6.18).

// cgroupPrefix begins the names of pm's cgroups.
const cgroupPrefix = "pm-"

// findCgroups makes the cgroup below which pm makes those of tasks, inside pm's
// own. It is empty if there is none, or pm may not.
func findCgroups() string {
	mount := cgroupMount()
	own, err := slurp("/proc/self/cgroup")
	if mount == "" || err != nil {
		return ""
	}
	for line := range strings.Lines(string(own)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		dir := filepath.Join(mount, path)
		// Putting a process there takes the right to write to both ends.
		if unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) != nil {
			return ""
		}
		removeStale(dir)
		ours, err := os.MkdirTemp(dir, fmt.Sprintf("%s%d-", cgroupPrefix, os.Getpid()))
		if err != nil {
			return ""
		}
		return ours
	}
	return ""
}

// cgroupMount returns where the cgroup2 hierarchy is mounted.
func cgroupMount() string {
	mounts, err := slurp("/proc/self/mounts")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "cgroup2" {
			return fields[1]
		}
	}
	return ""
}

// removeStale removes the empty cgroups that an earlier pm left, one that lives
// no more. One in use cannot be removed.
func removeStale(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		pid, _, ok := strings.Cut(strings.TrimPrefix(e.Name(), cgroupPrefix), "-")
		if _, err := os.Stat("/proc/" + pid); ok && strings.HasPrefix(e.Name(), cgroupPrefix) && err != nil {
			removeCgroup(filepath.Join(dir, e.Name()))
		}
	}
}

// makeCgroup makes the cgroup of a task; empty if that fails, and the task then
// does without.
func makeCgroup(dir string, number uint64) string {
	path := dir + "/" + strconv.FormatUint(number, 10)
	if err := unix.Mkdir(path, 0o755); err != nil {
		return ""
	}
	return path
}

// openCgroup returns a descriptor to be born into; -1 if there is none.
func openCgroup(path string) int {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
}

// removeCgroup removes an empty cgroup, and those that a program made in it.
func removeCgroup(path string) {
	if path == "" || unix.Rmdir(path) == nil {
		return
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeCgroup(filepath.Join(path, e.Name()))
		}
	}
	_ = unix.Rmdir(path)
}

// killCgroup kills everything in a cgroup and below, with one write; Linux 5.14.
// Without it the killing goes process by process.
func killCgroup(path string) {
	if path != "" {
		_ = os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	}
}

// cgroupMembers lists the processes in a cgroup and below it.
func cgroupMembers(path string) (pids []int) {
	if path == "" || !populated(path) {
		return nil
	}
	data, err := slurp(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		return nil
	}
	for field := range bytes.FieldsSeq(data) {
		if pid, err := strconv.Atoi(string(field)); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	entries, _ := os.ReadDir(path)
	for _, e := range entries {
		if e.IsDir() {
			pids = append(pids, cgroupMembers(filepath.Join(path, e.Name()))...)
		}
	}
	return pids
}

// populated reports whether a living process is in a cgroup or below it. What
// cannot be read counts as empty: the tags still tell.
func populated(path string) bool {
	data, err := slurp(filepath.Join(path, "cgroup.events"))
	return err == nil && bytes.Contains(data, []byte("populated 1"))
}

// inCgroup reports whether a process is in a cgroup or below it.
func inCgroup(pid int, path string) bool {
	data, err := slurp("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false
	}
	name := "/" + filepath.Base(path)
	for line := range strings.Lines(string(data)) {
		if own, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return strings.HasSuffix(own, name) || strings.Contains(own, name+"/")
		}
	}
	return false
}
