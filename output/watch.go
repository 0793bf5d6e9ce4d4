package output

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dirEvents change which file has the name.
	dirEvents = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_MOVE_SELF | unix.IN_DELETE_SELF
	// fileEvents change what is in it.
	fileEvents = unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_MOVE_SELF | unix.IN_DELETE_SELF
)

const (
	blindLook = time.Second      // between looks at what cannot be watched
	sureLook  = 10 * time.Second // and at what can: a network file system tells nothing
)

// watcher waits for changes of one file, its name and its contents, by
// inotify(7), or by the clock where there is none to be had.
type watcher struct {
	path    string
	inotify *os.File // nil: none was to be had
	dir     int      // watch of the directory; -1: none
	file    int      // watch of the file; -1: none
	before  int      // and of the one that had the name before; -1: none
	buf     []byte
}

func newWatcher(path string) *watcher {
	w := &watcher{path: path, dir: -1, file: -1, before: -1}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return w // commonly EMFILE: all of the user's instances are in use
	}
	w.inotify = os.NewFile(uintptr(fd), "inotify")
	w.buf = make([]byte, 4096) // several events; the longest has some 270 bytes
	return w
}

func (w *watcher) close() {
	if w.inotify != nil {
		w.inotify.Close()
		w.inotify = nil
	}
}

// watch watches what has the name now. The file that had it before stays
// watched, since its writer may not have noticed.
func (w *watcher) watch() {
	if dir := w.add(filepath.Dir(w.path), dirEvents); dir != w.dir {
		w.remove(w.dir)
		w.dir = dir
	}
	if file := w.add(w.path, fileEvents); file >= 0 && file != w.file {
		w.remove(w.before)
		w.before, w.file = w.file, file
	}
}

// add watches path and returns the number of the watch, which is the same one
// for the same file, or -1.
func (w *watcher) add(path string, events uint32) int {
	if w.inotify == nil {
		return -1
	}
	wd := -1
	w.control(func(fd int) {
		if n, err := unix.InotifyAddWatch(fd, path, events); err == nil {
			wd = n
		}
	})
	return wd
}

// remove ends a watch.
func (w *watcher) remove(wd int) {
	if wd < 0 {
		return
	}
	w.control(func(fd int) {
		// It fails if the file is gone, and the watch with it.
		_, _ = unix.InotifyRmWatch(fd, uint32(wd))
	})
}

// control calls f with inotify's descriptor.
func (w *watcher) control(f func(fd int)) {
	conn, err := w.inotify.SyscallConn()
	if err != nil {
		return // closed
	}
	// It fails only when the file is closed, and then f is not called.
	_ = conn.Control(func(fd uintptr) { f(int(fd)) })
}

// wait returns when there may be something new, or the context's error.
func (w *watcher) wait(ctx context.Context) error {
	if w.inotify == nil {
		return pause(ctx, blindLook)
	}
	look := sureLook
	if w.dir < 0 {
		look = blindLook
	}
	f := w.inotify
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := f.SetReadDeadline(time.Now().Add(look)); err != nil {
		return pause(ctx, blindLook)
	}
	for ctx.Err() == nil {
		n, err := f.Read(w.buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ctx.Err()
		}
		if err != nil {
			w.close()
			return ctx.Err()
		}
		if w.concerned(w.buf[:n]) {
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// pause waits for d, or for the context's end, whose error it returns.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// concerned reports whether one of the events is about the file, and not about
// a neighbour in its directory.
func (w *watcher) concerned(events []byte) bool {
	name := filepath.Base(w.path)
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int(int32(binary.NativeEndian.Uint32(events)))
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		if size > len(events) {
			return true // not what inotify(7) promises: look
		}
		about := strings.TrimRight(string(events[unix.SizeofInotifyEvent:size]), "\x00")
		if wd != w.dir || about == "" || about == name {
			return true
		}
		events = events[size:]
	}
	return false
}
