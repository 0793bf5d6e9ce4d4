package proc

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Trim gives back memory that this process needed only for a while: free heap,
// and the pages of its own program file that are mapped. The latter stay in the
// page cache, and those that are used again come back by a minor fault. It takes
// a few milliseconds, so it is for quiet moments.
func Trim() {
	debug.FreeOSMemory()
	calmThreads()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		if first, last, ok := ownPages(line, exe); ok {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, first, last-first, unix.MADV_DONTNEED)
		}
	}
}

// ownPages reads a line of /proc/PID/maps, and returns the addresses if it is a
// part of the file exe that cannot be written, so that its pages are clean.
func ownPages(line, exe string) (first, last uintptr, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 6 || strings.Contains(fields[1], "w") || fields[5] != exe {
		return 0, 0, false
	}
	from, to, _ := strings.Cut(fields[0], "-")
	a, err1 := strconv.ParseUint(from, 16, 64)
	b, err2 := strconv.ParseUint(to, 16, 64)
	return uintptr(a), uintptr(b), err1 == nil && err2 == nil && a < b
}
