package proc

import (
	"math/bits"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pin keeps a launch on one processor. The thread that launches waits until the child's
// execve, so the child has that processor for itself, and finds in its caches what it
// needs; on another one, which the kernel likes to choose, it has to be woken up first.
// From one death to the next program that takes a sixth less of the time.
//
// The child may run anywhere again before it does anything else. Where somebody has
// restricted this process, by an affinity or a cpuset(7), nothing is pinned: the kernel
// does not tell the one from the other, so what was there could not be put back.
//
// A thread that gives way is moreover a batch thread meanwhile, as sched(7) calls it: when
// the execve wakes it, it does not take the processor from the program, but goes on when
// that waits for the first time, or has used up its turn. That is another tenth.
type pin struct {
	givesWay bool       // to the child, as above
	online   processors // all that there are; none: nothing is pinned
	all      processors // what the kernel takes for these, also when they become more
	one      processors // the one that the thread is on, while it is pinned
	now      processors // room
	witness  uintptr    // a thread of this process that never launches
	held     bool       // the thread is pinned
	batch    bool       // and gives way
}

// processors is a cpu_set_t of as many processors as Linux can have.
type processors [8192 / 64]uint64

// newPin returns a pin for the launches of one goroutine; nil if there is nothing to be
// had from it, or not all that it needs.
func newPin() *pin {
	p := &pin{witness: uintptr(monitor())}
	list, err := slurp("/sys/devices/system/cpu/online")
	if err != nil || p.witness == 0 || !p.online.parse(list) || p.online.count() < 2 {
		return nil
	}
	for n := range p.all {
		p.all[n] = ^uint64(0)
	}
	return p
}

// hold pins the calling thread to the processor that it runs on.
//
//go:nosplit
//go:norace
func (p *pin) hold() {
	p.held, p.batch = false, false
	if p.now.get(0) != 0 || !p.now.are(&p.online) {
		return
	}
	var cpu uint32
	if _, _, errno := syscall.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); errno != 0 {
		return
	}
	p.one[cpu/64] = 1 << (cpu % 64)
	p.held = p.one.set() == 0
	p.one[cpu/64] = 0
	p.batch = p.held && p.givesWay && policy() == unix.SCHED_NORMAL && setPolicy(unix.SCHED_BATCH) == 0
}

// release lets the child that the calling thread has cloned run where it may.
//
//go:nosplit
//go:norace
func (p *pin) release() {
	if p.batch {
		setPolicy(unix.SCHED_NORMAL)
	}
	if p.held {
		p.all.set()
	}
}

// resume does so for the calling thread itself. Whoever has restricted this process
// meanwhile has done it to the witness as well.
//
//go:nosplit
//go:norace
func (p *pin) resume() {
	if p.batch && policy() == unix.SCHED_BATCH { // else somebody has changed it
		setPolicy(unix.SCHED_NORMAL)
	}
	if !p.held {
		return
	}
	p.all.set()
	if p.now.get(p.witness) == 0 && !p.now.are(&p.online) {
		p.now.set()
	}
}

// policy returns the scheduling policy of the calling thread, with its flags.
//
//go:nosplit
//go:norace
func policy() uintptr {
	policy, _, _ := syscall.RawSyscall(unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	return policy
}

// setPolicy makes it one of those that have no priority of their own; the niceness stays.
//
//go:nosplit
//go:norace
func setPolicy(policy uintptr) syscall.Errno {
	var none int32 // struct sched_param
	_, _, errno := syscall.RawSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, policy, uintptr(unsafe.Pointer(&none)))
	return errno
}

// are reports whether two sets are the same.
//
//go:nosplit
//go:norace
func (p *processors) are(others *processors) bool {
	for n := range p {
		if p[n] != others[n] {
			return false
		}
	}
	return true
}

func (p *processors) count() (n int) {
	for _, word := range p {
		n += bits.OnesCount64(word)
	}
	return n
}

// parse reads a list such as 0-3,8 of the kernel's.
func (p *processors) parse(list []byte) bool {
	for part := range strings.SplitSeq(strings.TrimSpace(string(list)), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || first < 0 || last >= 64*len(p) {
			return false
		}
		for cpu := first; cpu <= last; cpu++ {
			p[cpu/64] |= 1 << (cpu % 64)
		}
	}
	return true
}

// get reads the set of a thread; 0: of the calling one.
//
//go:nosplit
//go:norace
func (p *processors) get(tid uintptr) syscall.Errno {
	n, _, errno := syscall.RawSyscall(unix.SYS_SCHED_GETAFFINITY, tid, unsafe.Sizeof(*p), uintptr(unsafe.Pointer(p)))
	if errno == 0 {
		for n /= 8; n < uintptr(len(p)); n++ { // the kernel writes no more than it knows
			p[n] = 0
		}
	}
	return errno
}

// set makes it that of the calling thread.
//
//go:nosplit
//go:norace
func (p *processors) set() syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*p), uintptr(unsafe.Pointer(p)))
	return errno
}
