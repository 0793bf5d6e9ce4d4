package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Inherit lets a descriptor survive an execve(2) of this process.
func Inherit(fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("cannot hand over descriptor %d: %w", fd, err)
	}
	return nil
}

// InheritPipes lets all pipes of this process survive its execve(2). A keeper
// that comes of it finds by its records those that are programs' output, and
// closes all.
func InheritPipes() {
	for _, path := range openFiles(unix.Getpid()) {
		if fd, err := strconv.Atoi(filepath.Base(path)); err == nil && fd > 2 {
			_ = Inherit(fd) // it was open a moment ago; if it is not, nobody needs it
		}
	}
}

// closeInherited closes what InheritPipes has let through: takeOver has opened
// anew what it needs.
func closeInherited(pipes map[uint64]string) {
	for _, path := range pipes {
		fd, err := strconv.Atoi(filepath.Base(path))
		if err != nil || fd <= 2 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
}

// SetName gives this process another comm, of at most 15 bytes.
func SetName(name string) {
	// The comm of a process is that of its main thread.
	_ = os.WriteFile("/proc/self/task/"+strconv.Itoa(unix.Getpid())+"/comm", []byte(name), 0)
}
