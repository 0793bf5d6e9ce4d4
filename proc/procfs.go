package proc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stat is what pm reads from /proc/PID/stat, proc_pid_stat(5).
type stat struct {
	pid    int
	comm   string // at most 15 bytes; a process can change it
	state  byte   // R, S, D, T, t, Z, X …
	parent int
	start  uint64 // clock ticks after boot: with the pid, an identity
}

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

// readStat reads the stat of a process; an error is fs.ErrNotExist or ESRCH
// when there is none.
func readStat(pid int) (stat, error) {
	data, err := slurp("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(data)
}

// parseStat reads the text of /proc/PID/stat. The name may hold anything, also
// spaces and parentheses, so it ends at the last one.
func parseStat(data []byte) (stat, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 1 || end < open {
		return stat{}, errStat
	}
	fields := bytes.Fields(data[end+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return stat{}, errStat
	}
	pid, err1 := strconv.Atoi(string(bytes.TrimSpace(data[:open])))
	parent, err2 := strconv.Atoi(string(fields[1]))
	start, err3 := strconv.ParseUint(string(fields[19]), 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return stat{}, fmt.Errorf("%w: %v", errStat, err)
	}
	return stat{pid: pid, comm: string(data[open+1 : end]), state: fields[0][0], parent: parent, start: start}, nil
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
		out = append(out, threadChildren(dir, tid)...)
	}
	return out
}

func threadChildren(dir string, tid int) []int {
	data, err := slurp(dir + "/" + strconv.Itoa(tid) + "/children")
	if err != nil {
		return nil
	}
	var out []int
	for field := range bytes.FieldsSeq(data) {
		if pid, err := strconv.Atoi(string(field)); err == nil {
			out = append(out, pid)
		}
	}
	return out
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
