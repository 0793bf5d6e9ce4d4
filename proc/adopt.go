package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A keeper takes over the tasks of one that is gone. If that was the same
// process, before it replaced its program by execve(2), they are its children.
// If it was killed they are not: they are adopted. What they are is proved by
// their tag, which no process outside of the task has; that they end is seen
// through pidfds; and how, the kernel tells by a pidfd as well.

// takeOver makes the tasks of an earlier keeper this one's. The caller holds
// k.mu.
func (k *Keeper) takeOver(tasks map[string]*known) {
	defer k.dropBequest()
	defer k.dropUnclaimed()
	k.heir = false
	if len(tasks) == 0 {
		return
	}
	for _, old := range tasks {
		if old.tag != 0 {
			k.tagged[old.tag] = &old.tree
		}
		k.tasks[old.id] = &old.tree
	}
	members := k.survivors()
	own := openFiles(unix.Getpid())
	for _, old := range tasks {
		if old.pid == 0 && old.failure == nil {
			old.findLeader(members[old.tag])
		}
		if old.pid == 0 && old.failure == nil { // it was never started
			k.forget(&old.tree)
			continue
		}
		k.resume(old, members[old.tag])
		k.reopen(old, own, members[old.tag])
		k.retire(&old.tree)
	}
	closeInherited(own)
	wake(k.passes)
	wake(k.children)
}

// survivors finds the processes of all tasks. Should it lack descriptors for that it
// tries again for a while: who is overlooked here is started once more.
func (k *Keeper) survivors() map[uint64][]int {
	const patience = 10 * time.Second
	for begun := time.Now(); ; time.Sleep(retryMax / 10) {
		found, err := k.members()
		if err == nil {
			return found
		}
		if time.Since(begun) > patience {
			k.log.Error("programs that run on may be overlooked, and started once more", "error", err)
			return found
		}
	}
}

// findLeader looks among the processes of a task, of which only the tag was
// written down, for the one that was started first. One that gave up before it
// became the program, since the keeper was gone, is none.
func (t *known) findLeader(members []int) {
	first := ^uint64(0)
	for _, pid := range members {
		if st, err := readStat(pid); err == nil && st.start < first {
			first, t.pid = st.start, pid
			t.started = time.Now()
		}
	}
	if t.pid != 0 && gaveUp(t.pid) {
		t.pid = 0
	}
}

// launchPatience is how long a child may take from its tag to its execve(2).
const launchPatience = time.Second

// gaveUp reports whether a process has ended that never executed a program, or is
// gone. What is just about to do the one or the other is waited for.
func gaveUp(pid int) bool {
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		st, err := readStat(pid)
		switch {
		case err != nil:
			return true
		case st.forked && st.ended():
			return true
		case !st.forked || time.Since(begun) > launchPatience:
			return false
		}
	}
}

// resume finds out what became of the leader of a task.
func (k *Keeper) resume(t *known, members []int) {
	d, ended := k.unclaimed[t.pid]
	switch {
	case t.failure != nil:
	case t.dead: // whose children are what it has left
		t.adopted = true
	case ended: // a child, since the execve(2) by which this process became a keeper
		delete(k.unclaimed, t.pid)
		k.ended(&t.tree, d)
	case k.isLeader(t):
		k.leaders[t.pid] = &t.tree
	default:
		k.adopt(&t.tree)
	}
	if t.released || t.step > 0 {
		t.killing = t.released
		t.urgent = true
	}
	if t.dead && t.left == 0 {
		t.left = living(members)
	}
	k.review(&t.tree)
}

// living counts the processes that are no zombies: so a leader is until its new
// parent has waited for it.
func living(pids []int) (n int) {
	for _, pid := range pids {
		if !isZombie(pid) {
			n++
		}
	}
	return n
}

// isLeader reports whether the leader of t is a child of this process. Nobody
// reaps it before this is over: the caller holds k.mu.
func (k *Keeper) isLeader(t *known) bool {
	st, err := readStat(t.pid)
	return err == nil && st.parent == unix.Getpid() && k.belongs(t.pid, &t.tree)
}

// adopt watches a leader that is nobody's child of ours, or notes that its end
// was not seen.
func (k *Keeper) adopt(t *tree) {
	t.adopted = true
	if t.pidfd = k.hold(t); t.pidfd < 0 {
		k.deadBefore(t)
		return
	}
	var err error
	if k.watched == nil {
		k.watched, err = newWatcher(k)
	}
	if err == nil {
		err = k.watched.add(t.pidfd)
	}
	if err != nil {
		k.log.Error("a program that runs on cannot be watched", "task", t.id, "pid", t.pid, "error", err)
	}
}

// hold returns a pidfd of the leader of a task, -1 if there is none. One that was
// bequeathed tells also of a leader that has ended meanwhile.
func (k *Keeper) hold(t *tree) int {
	fd, bequeathed := k.bequest[t.id]
	delete(k.bequest, t.id)
	if !bequeathed {
		var err error
		if fd, err = unix.PidfdOpen(t.pid, 0); err != nil {
			return -1
		}
	}
	if k.belongs(t.pid, t) || bequeathed && hasEnded(fd) {
		return fd
	}
	_ = unix.Close(fd)
	return -1
}

// hasEnded reports whether the process of a pidfd has.
func hasEnded(pidfd int) bool {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n == 1
}

// deadBefore notes a leader that has ended while no keeper lived.
func (k *Keeper) deadBefore(t *tree) {
	t.dead, t.end = true, unseen()
	k.record(recordExited, t)
}

// reopen gets hold of the pipes of a task: this process has them still, or a
// process of the task that writes to them.
func (k *Keeper) reopen(t *known, own map[uint64]string, members []int) {
	for n, ino := range t.inodes {
		if ino == 0 {
			continue
		}
		path, found := own[ino]
		for i := 0; !found && i < len(members); i++ {
			path, found = openFiles(members[i])[ino]
		}
		if !found {
			t.inodes[n] = 0
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			k.log.Error("the output of a program that runs on is lost", "task", t.id, "error", err)
			t.inodes[n] = 0
			continue
		}
		t.pipes[n] = fd
	}
}

// watcher tells of the ends of adopted leaders.
type watcher struct {
	keeper *Keeper
	epoll  int
	wake   int // an eventfd
	done   sync.WaitGroup
}

func newWatcher(k *Keeper) (*watcher, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		_ = unix.Close(epoll)
		return nil, err
	}
	w := &watcher{keeper: k, epoll: epoll, wake: wake}
	w.done.Go(w.run) // ends with close
	return w, w.add(wake)
}

func (w *watcher) add(fd int) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// close ends the watcher; the caller holds k.mu, which the watcher may want.
func (w *watcher) close() {
	_, _ = unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (w *watcher) run() {
	defer func() { _, _ = unix.Close(w.epoll), unix.Close(w.wake) }()
	var events [16]unix.EpollEvent
	for {
		n, err := unix.EpollWait(w.epoll, events[:], -1)
		if err != nil && err != unix.EINTR {
			return
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == w.wake {
				return
			}
			w.keeper.adoptedEnded(int(e.Fd))
		}
	}
}

// reapPatience is how long an adopted leader that has ended may stay a zombie of
// its new parent until its end is taken for unknown.
const reapPatience = 10 * time.Second

// adoptedEnded notes the end of an adopted leader.
func (k *Keeper) adoptedEnded(pidfd int) {
	now := time.Now()
	t := k.adoptedBy(pidfd)
	if t == nil {
		return
	}
	_ = unix.EpollCtl(k.watched.epoll, unix.EPOLL_CTL_DEL, pidfd, nil)
	status := endOf(t.pid, pidfd)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended(t, death{status, now})
	k.nextHot(true)
}

func (k *Keeper) adoptedBy(pidfd int) *tree {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.tasks {
		if t.adopted && t.pidfd == pidfd && !t.dead {
			return t
		}
	}
	return nil
}

// endOf asks the kernel how a process that is no child has ended: as long as it
// is a zombie its stat tells, to those who may trace it, and once it is reaped its
// pidfd does, since Linux 6.15.
func endOf(pid, pidfd int) Status {
	for until := time.Now().Add(reapPatience); time.Now().Before(until); {
		poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLHUP}}
		status, told := zombieStatus(pid)
		_, _ = unix.Poll(poll, 0)
		reaped := poll[0].Revents&unix.POLLHUP != 0
		if told && !reaped { // so it was this one's
			return status
		}
		if status, err := pidfdStatus(pidfd); err == nil {
			return status
		}
		if reaped {
			break
		}
		_, _ = unix.Poll(poll, 100)
	}
	return unseen().status
}

// zombieStatus reads how a zombie has ended: the last field of
// /proc/PID/stat, which is 0 for those who may not know.
func zombieStatus(pid int) (Status, bool) {
	data, err := slurp("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil || os.Geteuid() != 0 && unix.Access("/proc/"+strconv.Itoa(pid)+"/mem", unix.R_OK) != nil {
		return Status{}, false
	}
	const exitCode = 52 - 3 // the first after the name is the third
	st, err := parseStat(data)
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if err != nil || len(fields) <= exitCode || st.state != 'Z' || st.threads > 1 {
		return Status{}, false
	}
	code, err := strconv.Atoi(string(fields[exitCode]))
	return statusOf(unix.WaitStatus(code)), err == nil
}

// pidfdInfo is the first version of struct pidfd_info of linux/pidfd.h.
type pidfdInfo struct {
	mask                               uint64
	cgroupID                           uint64
	pid, tgid, ppid                    uint32
	ruid, rgid, euid, egid, suid, sgid uint32
	fsuid, fsgid                       uint32
	exitCode                           int32
}

// pidfdStatus returns how a process has ended that was reaped; an error if it
// was not, or if the kernel is older than Linux 6.15.
func pidfdStatus(pidfd int) (Status, error) {
	const (
		infoExit = 1 << 3     // PIDFD_INFO_EXIT
		getInfo  = 0xc000ff0b // _IOWR(0xFF, 11, …), without its size
	)
	info := pidfdInfo{mask: infoExit}
	// The kernel takes the size of the struct from the number of the request.
	request := uintptr(getInfo) | unsafe.Sizeof(info)<<16
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), request, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return Status{}, errno
	}
	if info.mask&infoExit == 0 {
		return Status{}, fmt.Errorf("the process is not reaped yet")
	}
	return statusOf(unix.WaitStatus(info.exitCode)), nil
}
