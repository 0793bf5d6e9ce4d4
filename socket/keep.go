package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// keepRetry is how long keep waits after it could not put the socket back or
// watch for its end.
const keepRetry = time.Second

// keep puts the socket back whenever it vanishes, until ctx ends. It sleeps on
// inotify, so a daemon at rest stays at rest. A path that another process
// serves by now, or that is no socket any more, is left alone, said once, and
// looked at again every second.
func (l *listener) keep(ctx context.Context, log *slog.Logger) {
	said := ""
	for {
		err := l.watch(ctx, log)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			said = ""
			continue
		}
		if err.Error() != said {
			said = err.Error()
			log.Warn("cannot keep the control socket", "socket", l.path, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(keepRetry):
		}
	}
}

// watch puts the socket back as often as it vanishes. It returns nil when ctx
// ends and when the directory has to be watched anew.
func (l *listener) watch(ctx context.Context, log *slog.Logger) error {
	dir := filepath.Dir(l.path)
	if err := l.makeDir(); err != nil {
		return err
	}
	changes, watchErr := watchDir(dir)
	if watchErr == nil {
		defer changes.Close()
		defer context.AfterFunc(ctx, func() { changes.Close() })()
	}
	for {
		if err := l.restore(log); err != nil || watchErr != nil {
			return errors.Join(err, watchErr)
		}
		anew, err := nextChange(changes, filepath.Base(l.path))
		if err != nil || anew {
			return err
		}
	}
}

// restore makes the socket again if it is gone.
func (l *listener) restore(log *slog.Logger) error {
	if l.ours() {
		return nil
	}
	if err := l.open(); err != nil {
		return err
	}
	log.Warn("control socket had vanished and was made again", "socket", l.path)
	return nil
}

// watchDir returns a file to read the directory's inotify events from.
func watchDir(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	const what = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, dir, what); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

// nextChange blocks until something happens to the entry base of the watched
// directory. It reports whether the directory has to be watched anew.
func nextChange(changes *os.File, base string) (anew bool, err error) {
	buf := make([]byte, 4096)
	for {
		n, err := changes.Read(buf)
		if err != nil {
			return false, err
		}
		changed, anew := readChanges(buf[:n], base)
		if changed || anew {
			return anew, nil
		}
	}
}

// readChanges looks for base in what was read from inotify; see inotify(7).
func readChanges(events []byte, base string) (changed, anew bool) {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(events[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		if size > len(events) {
			return true, true
		}
		name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:size]), "\x00")
		changed = changed || name == base || mask&unix.IN_Q_OVERFLOW != 0
		anew = anew || mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED|unix.IN_UNMOUNT) != 0
		events = events[size:]
	}
	return changed, anew
}
