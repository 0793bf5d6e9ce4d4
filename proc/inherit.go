package proc

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"pm.example/codec"
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

// Bequeath lets descriptors of processes (pidfds) survive an execve(2), and
// returns a file that lists them by task, for [Keeper.Inherit].
func Bequeath(pidfds map[string]int) (*os.File, error) {
	var e codec.Encoder
	for id, fd := range pidfds {
		if err := Inherit(fd); err != nil {
			return nil, err
		}
		e.String(id)
		e.Int(fd)
	}
	fd, err := unix.MemfdCreate("leaders", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("cannot hand over %d processes: %w", len(pidfds), err)
	}
	list := os.NewFile(uintptr(fd), "leaders")
	if _, err := list.WriteAt(e, 0); err != nil {
		_ = list.Close()
		return nil, fmt.Errorf("cannot hand over %d processes: %w", len(pidfds), err)
	}
	return list, nil
}

// Inherit takes what an earlier program in this process has bequeathed: for
// tasks that [Keeper.Resume] is about to adopt. It closes the list.
func (k *Keeper) Inherit(list *os.File) error {
	defer func() { _ = list.Close() }()
	data, err := io.ReadAll(io.NewSectionReader(list, 0, 1<<30))
	if err != nil {
		return fmt.Errorf("cannot read which processes were handed over: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.bequest = map[string]int{}
	for d := codec.NewDecoder(data); d.More(); {
		id, fd := d.String(), d.Int()
		if d.Err() != nil {
			return fmt.Errorf("cannot read which processes were handed over: %w", d.Err())
		}
		unix.CloseOnExec(fd)
		k.bequest[id] = fd
	}
	return nil
}

// dropBequest closes what no task was found for. The caller holds k.mu.
func (k *Keeper) dropBequest() {
	for _, fd := range k.bequest {
		_ = unix.Close(fd)
	}
	k.bequest = nil
}

// SetName gives this process another comm, of at most 15 bytes.
func SetName(name string) {
	// The comm of a process is that of its main thread.
	_ = os.WriteFile("/proc/self/task/"+strconv.Itoa(unix.Getpid())+"/comm", []byte(name), 0)
}
