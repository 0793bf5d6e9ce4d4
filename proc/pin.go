package proc

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pin keeps a launch on one processor. The thread that launches waits until the child's
// execve, so the child has that processor for itself, and finds in its caches what it
// needs; on another one, which the kernel likes to choose, it has to be woken up first.
// From one death to the next program that takes a sixth less of the time.
//
// The child may run anywhere again before it does anything else. A thread that is used
// to another set of processors than was learned, since somebody has changed it, is not
// pinned, so that nothing is undone.
type pin struct {
	home processors // where the thread may run, as it was learned
	back processors // what is set to get there
	one  processors // the one that it is on, while it is pinned
	now  processors // room
	held bool       // it is pinned
	lost bool       // home is not right any more
}

// processors is a cpu_set_t of as many processors as Linux can have.
type processors [8192 / 64]uint64

func newPin() *pin {
	p := &pin{}
	p.learn()
	return p
}

// learn finds out where the calling thread may run. Where nobody has restricted it all
// processors are set, which the kernel takes for those of its cpuset(7), also when these
// become more: a program outlives that.
func (p *pin) learn() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p.lost = p.home.get() != 0
	if p.lost { // not to be known here: nothing is pinned
		return
	}
	for n := range p.back {
		p.back[n] = ^uint64(0)
	}
	if p.back.set() == 0 && p.now.get() == 0 && p.now != p.home {
		p.back = p.home
		_ = p.back.set()
	}
}

// hold pins the calling thread to the processor that it runs on.
//
//go:nosplit
//go:norace
func (p *pin) hold() {
	p.held = false
	if p.lost || p.now.get() != 0 {
		return
	}
	var cpu uint32
	for n := range p.now {
		if p.now[n] != p.home[n] {
			p.lost = true
			return
		}
	}
	syscall.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0)
	p.one[cpu/64] = 1 << (cpu % 64)
	p.held = p.one.set() == 0
	p.one[cpu/64] = 0
}

// release lets the calling thread, or the child that it has cloned, run where it may.
//
//go:nosplit
//go:norace
func (p *pin) release() {
	if !p.held || p.back.set() == 0 {
		return
	}
	for n := range p.now { // its cpuset has changed, and back has none of it
		p.now[n] = ^uint64(0)
	}
	p.now.set()
}

// get reads the set of the calling thread.
//
//go:nosplit
//go:norace
func (p *processors) get() syscall.Errno {
	n, _, errno := syscall.RawSyscall(unix.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(*p), uintptr(unsafe.Pointer(p)))
	if errno == 0 {
		for n /= 8; n < uintptr(len(p)); n++ { // the kernel writes no more than it knows
			p[n] = 0
		}
	}
	return errno
}

// set is the like of get.
//
//go:nosplit
//go:norace
func (p *processors) set() syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*p), uintptr(unsafe.Pointer(p)))
	return errno
}
