package proc

import (
	"bytes"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// spareFiles are descriptors that programs' output does not get: a process that
// has none left can neither be controlled nor followed by another.
const spareFiles = 256

// IsSpare reports whether a descriptor is one of the last that this process may
// have, and should be closed again if it can be done without.
func IsSpare(fd int) bool { return nearlyLast(fd, spareFiles) }

// nearlyLast reports whether a descriptor is one of the last that this process may
// have.
func nearlyLast(fd int, last uint64) bool {
	var limit unix.Rlimit
	return fd >= 0 && unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && limit.Cur > 2*spareFiles && uint64(fd) >= limit.Cur-last
}

// IsMany reports whether a descriptor, being the lowest that was free, tells that a
// quarter of those that this process may have are in use.
func IsMany(fd int) bool {
	var limit unix.Rlimit
	return unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || uint64(fd) >= limit.Cur/4
}

// MoreFiles lets this process have as many descriptors as the kernel allows, if
// it has the privilege: a keeper has two for each program whose output it
// holds. Programs get the limit that pm itself was started with, and so does what
// this process becomes by execve(2).
func MoreFiles() {
	text, err := slurp("/proc/sys/fs/nr_open")
	if err != nil {
		return
	}
	most, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil {
		return
	}
	// Not by package unix: that would make package syscall forget the old limit,
	// which it sets back for an execve.
	limit := unix.Rlimit{Cur: most, Max: most}
	_, _, _ = unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
}
