package proc

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Where pm may make cgroups (version 2), every task is born in one of its own,
// and all of them lie in one that is the keeper's.
// It holds also those who got rid of their tag, and cgroup.kill reaches all of
// them at once. A cgroup is used for one task only: after cgroup.kill the kernel
// kills whoever is later born in it (seen with Linux 6.18).

// cgroupPrefix begins the names of pm's cgroups.
const cgroupPrefix = "pm-"

// spareCgroups is how many cgroups a keeper of many programs makes ahead.
const spareCgroups = 4

// cgroups makes the cgroups of tasks, and removes those that are done with. Some
// are made ahead, in quiet moments: the replacement of a program that has died
// need not wait for its own.
type cgroups struct {
	dir    string // all of pm's lie in it
	whole  string // holds those of all tasks; empty: none does
	fd     int    // of whole: the way from it is short; AT_FDCWD: there is none
	prefix string // of the paths of those of tasks; empty: there are none
	ahead  int    // how many are made ahead

	mu     sync.Mutex // guards all below
	made   uint64     // for their names
	spare  []string   // nobody has used them
	coming int        // how many of them are being made
	atHand []atHand   // of those made ahead, also of those in use, the latest last
	spent  []string   // of tasks that are gone, to be removed
	first  time.Time  // when the first of these came
	last   time.Time  // and the last
}

// atHand is a cgroup of which there are descriptors, since a replacement is worth them:
// to open a file of a cgroup for the first time takes a tenth of the way from a death to
// the next launch.
type atHand struct {
	path   string
	dir    int // to be born into; -1: it was given away
	events int // of its cgroup.events
}

// mostAtHand is of how many cgroups there are descriptors: those that are spare, and the
// last that were used. What was started last is likely to end next.
const mostAtHand = 3 * spareCgroups

// Removing a cgroup takes a lock that starting a process takes too, and time from
// those who stop many. So it waits for a quiet moment, but not for ever.
const (
	sweepAfter  = 20 * time.Millisecond // since the last one came
	sweepAtLast = time.Second
	sweepAtOnce = 64 // at most, before the janitor looks whether it is needed
)

// newCgroups finds out where cgroups can be made, inside pm's own. With none to
// be made ahead, there will be few, and they lie there by themselves.
func newCgroups(ahead int) *cgroups {
	dir := ownCgroup()
	// Putting a process there takes the right to write to both ends.
	if dir == "" || unix.Access(dir+"/cgroup.procs", unix.W_OK) != nil {
		return &cgroups{fd: unix.AT_FDCWD}
	}
	path := fmt.Sprintf("%s/%s%s-%d-%d", dir, cgroupPrefix, pidNamespace(), os.Getpid(), rand.Uint32())
	if ahead == 0 {
		return &cgroups{dir: dir, fd: unix.AT_FDCWD, prefix: path + "-"}
	}
	if err := unix.Mkdir(path, 0o700); err != nil {
		return &cgroups{fd: unix.AT_FDCWD}
	}
	c := &cgroups{dir: dir, whole: path, fd: unix.AT_FDCWD, prefix: path + "/", ahead: ahead}
	if fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		c.fd = fd
	}
	return c
}

// at returns a path as *at(2) calls take it.
func (c *cgroups) at(path string) (dir int, name string) {
	if c.fd >= 0 && c.owns(path) {
		return c.fd, path[len(c.prefix):]
	}
	return unix.AT_FDCWD, path
}

// ownCgroup returns the directory of the cgroup that pm itself is in; empty if
// there is none.
func ownCgroup() string {
	mount := cgroupMount()
	own, err := slurp("/proc/self/cgroup")
	if mount == "" || err != nil {
		return ""
	}
	for line := range strings.Lines(string(own)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Join(mount, path)
		}
	}
	return ""
}

// cgroupMount returns where the cgroup2 hierarchy is mounted: at one of the usual
// places, unless the list of all mounts has another.
func cgroupMount() string {
	for _, path := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(path, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return path
		}
	}
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
// no more. One in use cannot be removed. Of a pm in another pid namespace nothing
// is known.
func (c *cgroups) removeStale() {
	if c.dir == "" {
		return
	}
	var stale []string
	prefix := cgroupPrefix + pidNamespace() + "-"
	_ = eachName(c.dir, func(name []byte) {
		rest, ours := strings.CutPrefix(string(name), prefix)
		pid, _, ok := strings.Cut(rest, "-")
		if ours && ok && unix.Access("/proc/"+pid, unix.F_OK) != nil {
			stale = append(stale, c.dir+"/"+string(name))
		}
	})
	for _, path := range stale {
		removeCgroup(path)
	}
}

// pidNamespace returns the number of the pid namespace that pm is in; pid_namespaces(7).
func pidNamespace() string {
	link, _ := os.Readlink("/proc/self/ns/pid")
	return strings.Trim(link, "pid:[]")
}

// take returns a cgroup that nobody has used. It is empty if there can be none,
// and the task then does without.
func (c *cgroups) take() string {
	c.mu.Lock()
	if last := len(c.spare) - 1; last >= 0 {
		path := c.spare[last]
		c.spare = c.spare[:last]
		c.mu.Unlock()
		return path
	}
	c.mu.Unlock()
	return c.create()
}

func (c *cgroups) create() string {
	if c.prefix == "" {
		return ""
	}
	c.mu.Lock()
	c.made++
	path := c.prefix + strconv.FormatUint(c.made, 10)
	c.mu.Unlock()
	if dir, name := c.at(path); unix.Mkdirat(dir, name, 0o755) != nil {
		return ""
	}
	return path
}

// provide makes one cgroup ahead, and reports whether more are wanted.
func (c *cgroups) provide() bool {
	c.mu.Lock()
	wanted := c.ahead - len(c.spare) - c.coming
	if wanted <= 0 {
		c.mu.Unlock()
		return false
	}
	c.coming++
	c.mu.Unlock()
	path := c.create()
	ready := atHand{path: path, dir: -1, events: -1}
	if path != "" {
		ready.dir = c.openFile(path, unix.O_PATH|unix.O_DIRECTORY)
		ready.events = c.openFile(path+"/cgroup.events", unix.O_RDONLY)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.coming--
	if path == "" {
		return false
	}
	c.spare = append(c.spare, path)
	if c.atHand = append(c.atHand, ready); len(c.atHand) > mostAtHand {
		c.putAway(0)
	}
	return wanted > 1
}

// drop says that a cgroup is done with, and will be empty.
func (c *cgroups) drop(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.hand(path); n >= 0 {
		c.putAway(n)
	}
	c.last = time.Now()
	if len(c.spent) == 0 {
		c.first = c.last
	}
	c.spent = append(c.spent, path)
}

// sweepDue returns how long to wait before a sweep.
func (c *cgroups) sweepDue() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spent) == 0 {
		return 0
	}
	return min(time.Until(c.last.Add(sweepAfter)), time.Until(c.first.Add(sweepAtLast)))
}

// sweep removes some of the cgroups that are done with, and reports whether there are
// more.
func (c *cgroups) sweep() (more bool) {
	c.mu.Lock()
	n := min(len(c.spent), sweepAtOnce)
	some := c.spent[:n]
	if c.spent = c.spent[n:]; len(c.spent) == 0 {
		c.spent = nil
	}
	more = c.spent != nil
	c.mu.Unlock()
	for _, path := range some {
		if dir, name := c.at(path); unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) != nil {
			removeCgroup(path)
		}
	}
	return more
}

// close removes all that is empty.
func (c *cgroups) close() {
	c.mu.Lock()
	c.spent = append(c.spent, c.spare...)
	c.spare = nil
	for len(c.atHand) > 0 {
		c.putAway(0)
	}
	c.mu.Unlock()
	for c.sweep() {
	}
	removeCgroup(c.whole)
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
		c.fd = unix.AT_FDCWD
	}
}

// empty reports whether nobody lives in the cgroups of all tasks.
func (c *cgroups) empty() bool {
	return c.prefix == "" || c.whole != "" && !c.populated(c.whole)
}

// hand returns which of the cgroups at hand has a path; -1: none. The caller holds c.mu.
func (c *cgroups) hand(path string) int {
	return slices.IndexFunc(c.atHand, func(a atHand) bool { return a.path == path })
}

// putAway closes the descriptors of the nth cgroup at hand. The caller holds c.mu.
func (c *cgroups) putAway(n int) {
	for _, fd := range []int{c.atHand[n].dir, c.atHand[n].events} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	c.atHand = slices.Delete(c.atHand, n, n+1)
}

// open returns a descriptor of a cgroup to be born into; -1 if there is none. It is the
// caller's.
func (c *cgroups) open(path string) int {
	c.mu.Lock()
	if n := c.hand(path); n >= 0 && c.atHand[n].dir >= 0 {
		fd := c.atHand[n].dir
		c.atHand[n].dir = -1
		c.mu.Unlock()
		return fd
	}
	c.mu.Unlock()
	return c.openFile(path, unix.O_PATH|unix.O_DIRECTORY)
}

// openFile opens a cgroup, or a file in one; -1 if that cannot be.
func (c *cgroups) openFile(path string, flags int) int {
	dir, name := c.at(path)
	fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
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
// Without it, which is reported, the killing goes process by process.
func killCgroup(path string) bool {
	if path == "" {
		return false
	}
	fd, err := unix.Open(path+"/cgroup.kill", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.Write(fd, []byte("1"))
	return err == nil
}

// members lists the processes in a cgroup and below it.
func (c *cgroups) members(path string) (pids []int) {
	if path == "" || !c.populated(path) {
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
			pids = append(pids, c.members(filepath.Join(path, e.Name()))...)
		}
	}
	return pids
}

// populated reports whether a living process is in a cgroup or below it. One that
// is gone is empty, and one that cannot be read, for want of descriptors, is not.
func (c *cgroups) populated(path string) bool {
	var buf [128]byte // more than the kernel has to tell
	n, err := c.readEvents(path, buf[:])
	if err != nil {
		return passing(err)
	}
	return bytes.Contains(buf[:n], []byte("populated 1"))
}

// readEvents reads the cgroup.events of a cgroup, by the descriptor that is at hand if
// there is one.
func (c *cgroups) readEvents(path string, buf []byte) (int, error) {
	c.mu.Lock()
	if n := c.hand(path); n >= 0 && c.atHand[n].events >= 0 {
		defer c.mu.Unlock() // so it is not closed meanwhile
		return unix.Pread(c.atHand[n].events, buf, 0)
	}
	c.mu.Unlock()
	dir, name := c.at(path + "/cgroup.events")
	text, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	return readFile(dir, text, buf)
}

// owns reports whether a cgroup is one of those in whole.
func (c *cgroups) owns(path string) bool { return c.whole != "" && strings.HasPrefix(path, c.prefix) }

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
