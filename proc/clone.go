package proc

import (
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The Go runtime's own preparation for a fork. Package syscall's ForkExec
// cannot set a umask, limits, a priority or close descriptors cheaply in the
// child only, so pm has its own; the two hooks are kept stable by the
// runtime for that use (go.dev/issue/67401).

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:noescape
func rawVfork(trap, a1, a2, a3 uintptr) (pid, errno uintptr)

// stage is what the child was doing when it failed.
type stage uint32

const (
	stageClone stage = iota
	stageClose
	stageSession
	stageTag
	stageParent
	stageLimit
	stageNice
	stageOOM
	stageGroups
	stageGID
	stageUID
	stageDir
	stageFile
	stageExec
)

// lastFD is the highest number that close_range(2) takes.
const lastFD = uintptr(^uint32(0))

// listenDigits is the room for a pid as text; what is left of it stays NUL.
const listenDigits = 10

// childLimit is one resource limit for the child.
type childLimit struct {
	resource uintptr
	limit    unix.Rlimit
}

// String is the limit as a config has it: the soft one, and behind a colon another
// hard one.
func (l childLimit) String() string {
	if l.limit.Cur == l.limit.Max {
		return strconv.FormatUint(l.limit.Cur, 10)
	}
	return fmt.Sprintf("%d:%d", l.limit.Cur, l.limit.Max)
}

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// image is all that the child needs, laid out before the fork: between clone
// and execve it may neither allocate nor grow its stack.
type image struct {
	path       *byte
	argv, envv []*byte
	dir        *byte // nil: stay
	slots      []int // slot i becomes descriptor i
	closeFrom  uintptr
	cgroup     int  // descriptor of the cgroup to be born in; -1: pm's own
	inherit    bool // let the child have what pm got from its parent
	umask      int  // -1: inherit
	limits     []childLimit
	tag        unix.Rlimit // Cur 0: no tag
	parent     uintptr     // pid of this process
	nice       int
	setNice    bool
	oom        []byte // text for oom_score_adj; empty: inherit
	oomPath    *byte
	setCred    bool
	uid, gid   uintptr
	groups     []uint32
	session    bool
	group      bool                // a process group of its own
	terminal   int                 // … and in the foreground of the terminal at this slot; -1: not
	listenPID  *[listenDigits]byte // where the child writes its pid; nil: nowhere
	ignored    []uintptr           // signals to give their default action
	noMask     uint64
	noAction   [4]uint64 // struct sigaction of the kernel: SIG_DFL
	pin        *pin      // nil: the kernel chooses a processor
	slack      uintptr   // timer slack, in ns; 0: that of the thread that launches

	// Written by the child, read by the parent after the child's execve or
	// exit: with CLONE_VM they share the memory.
	failed   stage
	failedAt int
	errno    syscall.Errno
}

// launch starts the image in a new process and returns its pid. If the child
// fails before its execve, launch reports at which stage; the child then still
// has to be reaped.
func (im *image) launch() (pid int, err syscall.Errno) {
	im.errno = 0
	p, errno := im.vfork()
	afterFork()
	runtime.KeepAlive(im)
	if errno != 0 {
		im.failed, im.errno = stageClone, errno
		return 0, errno
	}
	return int(p), im.errno
}

// vfork clones this process and, in the child, becomes the image. The child
// shares the parent's memory and its stack until execve, and the parent's
// thread waits: so the child stays in this frame and calls only assembly, and what
// needs no more stack than there is.
// Variables are declared before beforeFork, since an escaping one would be
// allocated where it is declared (as in package syscall, forkAndExecInChild1).
//
//go:noinline
//go:norace
//go:nocheckptr
func (im *image) vfork() (pid uintptr, errno syscall.Errno) {
	var (
		raw, fd uintptr
		i       int
		pgrp    int32
		args    *cloneArgs
	)
	// CLONE_FILES and the unsharing close below copy only the few descriptors
	// that the child keeps; a plain fork copies all, 1.5 ms for 10,000.
	// CLONE_CLEAR_SIGHAND (Linux 5.5) spares the child a system call for each
	// signal that the Go runtime handles.
	const flags = unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_FILES | unix.CLONE_CLEAR_SIGHAND
	args = &cloneArgs{flags: flags, exitSignal: uint64(unix.SIGCHLD)}
	if im.cgroup >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(im.cgroup)
	}
	beforeFork()
	if im.slack != 0 {
		syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, im.slack, 0)
	}
	if im.pin != nil {
		im.pin.hold()
	}
	pid, raw = rawVfork(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if raw != 0 || pid != 0 {
		if im.pin != nil {
			im.pin.resume()
		}
		return pid, syscall.Errno(raw)
	}

	// In the child.
	if im.pin != nil {
		im.pin.release()
	}
	if _, _, errno = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, im.closeFrom, lastFD, unix.CLOSE_RANGE_UNSHARE); errno != 0 {
		im.failed = stageClose
		goto fail
	}
	if !im.inherit {
		// The files of the child are above 2 only in slots, which close at execve
		// anyway; what else is there came from pm's own parent.
		if _, _, errno = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 3, im.closeFrom-1, unix.CLOSE_RANGE_CLOEXEC); errno != 0 {
			im.failed = stageClose
			goto fail
		}
	}
	if im.session {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0); errno != 0 {
			im.failed = stageSession
			goto fail
		}
	}
	if im.group {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETPGID, 0, 0, 0); errno != 0 {
			im.failed = stageSession
			goto fail
		}
	}
	if im.terminal >= 0 {
		// Signals are still blocked here, so no SIGTTOU stops us.
		raw, _, _ = syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		pgrp = int32(raw)
		syscall.RawSyscall(unix.SYS_IOCTL, uintptr(im.slots[im.terminal]), unix.TIOCSPGRP, uintptr(unsafe.Pointer(&pgrp)))
	}
	for i = range im.ignored {
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, im.ignored[i], uintptr(unsafe.Pointer(&im.noAction)), 0, 8, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&im.noMask)), 0, 8, 0, 0)

	if im.umask >= 0 {
		syscall.RawSyscall(unix.SYS_UMASK, uintptr(im.umask), 0, 0)
	}
	for i = range im.limits {
		if _, _, errno = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, im.limits[i].resource, uintptr(unsafe.Pointer(&im.limits[i].limit)), 0, 0, 0); errno != 0 {
			im.failed, im.failedAt = stageLimit, i
			goto fail
		}
	}
	if im.tag.Cur != 0 {
		if _, _, errno = syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_RTTIME, uintptr(unsafe.Pointer(&im.tag)), 0, 0, 0); errno != 0 {
			im.failed = stageTag
			goto fail
		}
	}
	// Whoever takes over from a pm that was killed knows its children by their
	// tags. One that had none yet when that happened must not become a program:
	// it is started again.
	if raw, _, _ = syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0); raw != im.parent {
		im.failed, errno = stageParent, unix.ESRCH
		goto fail
	}
	if im.setNice {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(im.nice)); errno != 0 {
			im.failed = stageNice
			goto fail
		}
	}
	if len(im.oom) > 0 {
		if fd, _, errno = syscall.RawSyscall6(unix.SYS_OPENAT, ^uintptr(99), uintptr(unsafe.Pointer(im.oomPath)), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0); errno == 0 {
			_, _, errno = syscall.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&im.oom[0])), uintptr(len(im.oom)))
		}
		if errno != 0 {
			im.failed = stageOOM
			goto fail
		}
	}
	if im.setCred {
		raw = 0
		if len(im.groups) > 0 {
			raw = uintptr(unsafe.Pointer(&im.groups[0]))
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(im.groups)), raw, 0); errno != 0 {
			im.failed = stageGroups
			goto fail
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESGID, im.gid, im.gid, im.gid); errno != 0 {
			im.failed = stageGID
			goto fail
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_SETRESUID, im.uid, im.uid, im.uid); errno != 0 {
			im.failed = stageUID
			goto fail
		}
	}
	if im.dir != nil {
		if _, _, errno = syscall.RawSyscall(unix.SYS_CHDIR, uintptr(unsafe.Pointer(im.dir)), 0, 0); errno != 0 {
			im.failed = stageDir
			goto fail
		}
	}
	if im.listenPID != nil {
		// No leading zeros: some read such a number as octal.
		raw, _, _ = syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		i = 1
		for fd = raw; fd > 9; fd /= 10 {
			i++
		}
		for i--; i >= 0; i-- {
			im.listenPID[i] = byte('0' + raw%10)
			raw /= 10
		}
	}
	for i = range im.slots {
		if _, _, errno = syscall.RawSyscall(unix.SYS_DUP3, uintptr(im.slots[i]), uintptr(i), 0); errno != 0 {
			im.failed, im.failedAt = stageFile, i
			goto fail
		}
	}
	_, _, errno = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(im.path)), uintptr(unsafe.Pointer(&im.argv[0])), uintptr(unsafe.Pointer(&im.envv[0])))
	im.failed = stageExec

fail:
	im.errno = errno
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}
