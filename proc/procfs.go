package proc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stat is what pm reads from /proc/PID/stat, proc_pid_stat(5).
type stat struct {
	pid     int
	comm    string // at most 15 bytes; a process can change it
	state   byte   // R, S, D, T, t, Z, X …
	parent  int
	session int  // number of its session, which is the pid of who began that
	forked  bool // and has not executed a program since
	threads int
	start   uint64 // clock ticks after boot: with the pid, an identity

	exiting  bool // it is about to be a zombie
	headless bool // its first thread has ended, others have not: state is theirs
}

// ended reports whether nothing of the process runs any more, though it may still be to
// be reaped.
func (s stat) ended() bool { return s.state == 'Z' || s.state == 'X' }

var errStat = errors.New("not the text of /proc/PID/stat")

// slurp reads a small file of the kernel's. Unlike os.ReadFile it does not ask
// the network poller about it, which is four of seven system calls.
func slurp(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	data := make([]byte, 0, 512)
	for {
		n, err := unix.Read(fd, data[len(data):cap(data)])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			return data, err
		}
		if data = data[:len(data)+n]; len(data) == cap(data) {
			data = slices.Grow(data, len(data))
		}
	}
}

// readProc reads a short file of a process into buf, in one go: the kernel makes
// all of its text for the first read. It allocates nothing.
func readProc(pid int, name string, buf []byte) (int, error) {
	var room [64]byte
	path := strconv.AppendInt(append(room[:0], "/proc/"...), int64(pid), 10)
	path = append(append(append(path, '/'), name...), 0)
	return readFile(unix.AT_FDCWD, &path[0], buf)
}

// readFile reads the beginning of the file at a NUL-terminated path, of which dir is
// where a relative one begins.
func readFile(dir int, path *byte, buf []byte) (int, error) {
	fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(path)), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	n, err := unix.Read(int(fd), buf)
	_ = unix.Close(int(fd))
	return max(n, 0), err
}

// maxStat is more than the text of /proc/PID/stat can take.
const maxStat = 1 << 11

// readStat reads the stat of a process; an error is fs.ErrNotExist or ESRCH
// when there is none.
func readStat(pid int) (stat, error) {
	var buf [maxStat]byte
	n, err := readProc(pid, "stat", buf[:])
	if err != nil {
		return stat{}, err
	}
	st, err := parseStat(buf[:n])
	if err == nil && st.state == 'Z' && st.threads > 1 {
		st.state = othersState(pid)
		st.headless = st.state != 'Z'
	}
	return st, err
}

// othersState returns the state of a process whose first thread has ended, as by
// pthread_exit(3): the kernel calls it a zombie, but it lives as long as others do that are
// not ending themselves. It is stopped only if all of them are.
func othersState(pid int) byte {
	state := byte('Z')
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	_ = eachName(dir, func(tid []byte) {
		if state != 'Z' && state != 'T' {
			return // that decides it
		}
		data, err := slurp(dir + "/" + string(tid) + "/stat")
		if err != nil {
			return
		}
		st, err := parseStat(data)
		if err == nil && !st.exiting && !st.ended() {
			state = st.state
		}
	})
	return state
}

// Flags of a process, which the kernel calls PF_EXITING and PF_FORKNOEXEC.
const (
	isExiting  = 0x4
	forkNoExec = 0x40
)

// parseStat reads the text of /proc/PID/stat. The name may hold anything, also
// spaces and parentheses, so it ends at the last one.
func parseStat(data []byte) (stat, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 1 || end < open {
		return stat{}, errStat
	}
	pid, ok := digits(bytes.TrimSpace(data[:open]))
	st := stat{pid: pid, comm: string(data[open+1 : end])}
	n := 0 // of the fields after the name; the first is the third of all
	for field := range bytes.FieldsSeq(data[end+1:]) {
		good := true
		switch n {
		case 0:
			st.state, good = field[0], len(field) == 1
		case 1:
			st.parent, good = digits(field)
		case 3:
			st.session, good = digits(field)
		case 6:
			var flags int
			flags, good = digits(field)
			st.forked, st.exiting = flags&forkNoExec != 0, flags&isExiting != 0
		case 17:
			st.threads, good = digits(field)
		case 19:
			var err error
			st.start, err = strconv.ParseUint(string(field), 10, 64)
			good = err == nil
		}
		ok = ok && good
		if n++; n > 19 {
			break
		}
	}
	if !ok || n <= 19 {
		return stat{}, errStat
	}
	return st, nil
}

// bootTicks is the time of this moment as in stat.start.
func bootTicks() uint64 {
	const hertz = 100 // USER_HZ, the same on every architecture that pm is built for
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // cannot fail with a clock that exists
	return uint64(now.Nano()) / (uint64(time.Second) / hertz)
}

// children returns the children of all threads of a process, from the kernel's
// children files. They are fast, and under churn they may miss one: a full scan
// is what proves that nothing is left.
func children(pid int) []int {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	tasks, err := listPIDs(dir)
	if err != nil {
		return nil
	}
	var out []int
	for _, tid := range tasks {
		list, _ := threadChildren(dir, tid)
		out = append(out, list...)
	}
	return out
}

// threadChildren lists the children of a thread; dir has its /proc/PID/task.
func threadChildren(dir string, tid int) ([]int, error) {
	data, err := slurp(dir + "/" + strconv.Itoa(tid) + "/children")
	if err != nil {
		return nil, err
	}
	var out []int
	for field := range bytes.FieldsSeq(data) {
		if pid, err := strconv.Atoi(string(field)); err == nil {
			out = append(out, pid)
		}
	}
	return out, nil
}

// listPIDs returns the numbers among the names of a directory of /proc.
func listPIDs(dir string) ([]int, error) {
	var out []int
	err := eachPID(dir, func(pid int) { out = append(out, pid) })
	return out, err
}

// eachPID calls visit for each number among the names of a directory of /proc,
// without allocating for each: a scan of thousands of processes is on the path
// of every stop.
func eachPID(dir string, visit func(pid int)) error {
	return eachName(dir, func(name []byte) {
		if pid, ok := digits(name); ok {
			visit(pid)
		}
	})
}

// eachName calls visit for each name in a directory. The name is valid until
// visit returns.
func eachName(dir string, visit func(name []byte)) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var buf [32 << 10]byte
	for {
		n, err := unix.Getdents(fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			return err
		}
		entries(buf[:n], visit)
	}
}

// entries walks the linux_dirent64 records of getdents64(2).
func entries(buf []byte, visit func(name []byte)) {
	const reclen, nameAt = 16, 19
	for len(buf) > nameAt {
		size := int(binary.NativeEndian.Uint16(buf[reclen:]))
		if size <= nameAt || size > len(buf) {
			return
		}
		name, _, _ := bytes.Cut(buf[nameAt:size], []byte{0})
		visit(name)
		buf = buf[size:]
	}
}

// digits reads a decimal number.
func digits(b []byte) (n int, ok bool) {
	for i, c := range b {
		if c < '0' || c > '9' || i > 9 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, len(b) > 0
}

// sendSignal signals the process that pid is now, if check still says so once
// a pidfd holds on to it: opening first and checking after leaves no moment in
// which the pid could pass to another process.
func sendSignal(pid int, sig syscall.Signal, check func() bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if !check() {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}
