package socket

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ListenOptions says who may use the socket.
type ListenOptions struct {
	// Group is the name or number of the group that may use it; empty: only
	// its owner and root.
	Group string
}

// Listen makes the control socket at path, replacing a stale one.
//
// Whoever still answers at path is left alone: Listen then fails. Otherwise
// the new socket is made under another name in the same directory and moved
// over, so that no client ever finds it missing or with the wrong mode, which
// is 0600, or 0660 with a group. A missing directory is made with mode 0700,
// or 0710 with a group.
//
// Closing the listener removes the socket, unless it has been replaced.
// [Serve] also puts it back when somebody removes it.
func Listen(path string, opts ListenOptions) (net.Listener, error) {
	path, err := usablePath(path)
	if err != nil {
		return nil, err
	}
	gid, err := groupID(opts.Group)
	if err != nil {
		return nil, err
	}
	l := &listener{path: path, gid: gid}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// groupID returns the number of a group, or -1 if no group is named.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if gid, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(gid), nil
	}
	found, err := user.LookupGroup(group)
	if err != nil {
		return 0, &Problem{
			Message: fmt.Sprintf("cannot give the socket to group %q: %v", group, err),
			Hint:    "name a group that getent group lists, or its number",
			Code:    CodeUsage,
		}
	}
	return strconv.Atoi(found.Gid)
}

// listener listens at a path, also after the socket there had to be made anew.
type listener struct {
	path string
	gid  int // -1: no group

	mu     sync.Mutex // guards the fields below
	now    *net.UnixListener
	id     fileID // of the socket that now listens on
	closed bool
}

// fileID tells a file from any other that exists at the same time. A socket's
// inode is not used again while the socket is open, even if it is unlinked.
type fileID struct{ dev, ino uint64 }

// socketAt returns the id of the socket at path, or an error that is
// fs.ErrNotExist if there is nothing.
func socketAt(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fileID{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fileID{}, &Problem{
			Message: fmt.Sprintf("cannot listen on %s: it exists and is no socket", path),
			Hint:    "remove it, or name another path with --socket or PM_SOCKET",
			Code:    CodeUsage,
		}
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// Addr returns the address that clients use. The kernel knows the socket by
// the name it was made under.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Accept waits for the next client.
func (l *listener) Accept() (net.Conn, error) {
	for {
		ln := l.current()
		conn, err := ln.AcceptUnix()
		if err == nil {
			return conn, nil
		}
		if l.current() == ln { // else it was closed because a new one took over
			return nil, err
		}
	}
}

func (l *listener) current() *net.UnixListener {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// Close stops listening and removes the socket if it is still this one.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.closed = true
	if id, err := socketAt(l.path); err == nil && id == l.id {
		os.Remove(l.path)
	}
	return l.now.Close()
}

// ours reports whether clients that dial the path come here.
func (l *listener) ours() bool {
	id, err := socketAt(l.path)
	l.mu.Lock()
	defer l.mu.Unlock()
	return err == nil && id == l.id
}

// open makes the socket, moves it to the path and listens on it from then on.
func (l *listener) open() error {
	if err := l.makeDir(); err != nil {
		return err
	}
	stale, err := l.stale()
	if err != nil {
		return err
	}
	fresh, made, err := l.bind()
	if err != nil {
		return err
	}
	id, err := l.publish(made, stale)
	if err != nil {
		os.Remove(made)
		fresh.Close()
		return err
	}
	return l.takeOver(fresh, id)
}

// takeOver makes fresh the socket that Accept listens on.
func (l *listener) takeOver(fresh *net.UnixListener, id fileID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		os.Remove(l.path)
		fresh.Close()
		return net.ErrClosed
	}
	old := l.now
	l.now, l.id = fresh, id
	if old != nil {
		old.Close()
	}
	return nil
}

// makeDir makes the socket's directory if it is missing, and refuses one in
// which another user could put a socket of his own.
func (l *listener) makeDir() error {
	dir := filepath.Dir(l.path)
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return l.newDir(dir)
	}
	if err != nil {
		return denied(fmt.Sprintf("cannot listen on %s", l.path), err)
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if !trusted(owner, os.Geteuid()) {
		return &Problem{
			Message: fmt.Sprintf("cannot listen on %s: its directory belongs to uid %d, who could replace the socket", l.path, owner),
			Hint:    "name a path in a directory of your own with --socket or PM_SOCKET",
			Code:    CodePermission,
		}
	}
	return nil
}

// trusted reports whether user me may put a socket into a directory of owner.
// Root may, since it is told where by whoever starts the daemon.
func trusted(owner, me int) bool { return me == 0 || owner == 0 || owner == me }

// newDir makes the socket's directory.
func (l *listener) newDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return denied(fmt.Sprintf("cannot make the socket's directory %s", dir), err)
	}
	if l.gid < 0 {
		return nil
	}
	if err := os.Chown(dir, -1, l.gid); err != nil {
		return denied(fmt.Sprintf("cannot give the socket's directory %s to group %d", dir, l.gid), err)
	}
	return os.Chmod(dir, 0o710) // the group only has to pass
}

// stale returns the id of a socket at the path that nobody listens on, the
// zero id if there is none, and an error if somebody answers.
func (l *listener) stale() (fileID, error) {
	id, err := socketAt(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return fileID{}, nil
	}
	if err != nil {
		return fileID{}, denied(fmt.Sprintf("cannot listen on %s", l.path), err)
	}
	conn, err := net.DialTimeout("unix", l.path, time.Second)
	switch {
	case err == nil:
		defer conn.Close()
		return fileID{}, l.served(conn)
	case errors.Is(err, syscall.EAGAIN): // its queue is full
		return fileID{}, l.served(nil)
	case errors.Is(err, syscall.ECONNREFUSED):
		return id, nil
	case errors.Is(err, fs.ErrNotExist):
		return fileID{}, nil
	}
	return fileID{}, denied(fmt.Sprintf("cannot find out who listens on %s", l.path), err)
}

// served is the Problem of a path where somebody answers.
func (l *listener) served(conn net.Conn) error {
	who := "another process"
	if peer, err := peerOf(conn); err == nil && peer.PID > 0 {
		who = fmt.Sprintf("process %d", peer.PID)
	}
	return &Problem{
		Message: fmt.Sprintf("cannot listen on %s: already served by %s", l.path, who),
		Hint:    fmt.Sprintf("end it with: pm --socket %s shutdown, or name another path with --socket or PM_SOCKET", l.path),
		Code:    CodeUsage,
	}
}

// bind makes a listening socket under a name of its own beside the path. Mode
// and group are right before it listens, so nobody can connect earlier.
func (l *listener) bind() (fresh *net.UnixListener, made string, err error) {
	made = filepath.Join(filepath.Dir(l.path), "."+rand.Text()[:8])
	fail := func(err error) (*net.UnixListener, string, error) {
		os.Remove(made)
		return nil, "", denied(fmt.Sprintf("cannot listen on %s", l.path), err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fail(err)
	}
	file := os.NewFile(uintptr(fd), made)
	defer file.Close() // the listener holds a copy
	if err := bindAt(fd, made); err != nil {
		return fail(err)
	}
	if err := l.protect(made); err != nil {
		return fail(err)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return fail(err)
	}
	ln, err := net.FileListener(file)
	if err != nil {
		return fail(err)
	}
	fresh = ln.(*net.UnixListener)
	fresh.SetUnlinkOnClose(false) // Close knows whether the socket is still ours
	return fresh, made, nil
}

// bindAt binds to path, which may be longer than maxPath: it is then reached
// through a descriptor of its directory.
func bindAt(fd int, path string) error {
	if len(path) <= maxPath {
		return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))})
}

// protect sets who may connect to the socket at path.
func (l *listener) protect(path string) error {
	if l.gid < 0 {
		return os.Chmod(path, 0o600)
	}
	if err := os.Lchown(path, -1, l.gid); err != nil {
		return fmt.Errorf("cannot give the socket to group %d: %w", l.gid, err)
	}
	return os.Chmod(path, 0o660)
}

// publish moves the socket made to the path in one step, over the stale one if
// there was one, and returns its id. It fails when another process was faster:
// what it published in the meantime is not the stale socket seen before.
func (l *listener) publish(made string, stale fileID) (fileID, error) {
	id, err := socketAt(made)
	if err != nil {
		return fileID{}, err
	}
	if stale == (fileID{}) {
		err = l.rename(made, unix.RENAME_NOREPLACE)
	} else {
		err = l.exchange(made, stale)
	}
	if errors.Is(err, fs.ErrExist) {
		return fileID{}, &Problem{
			Message: fmt.Sprintf("cannot listen on %s: another process has just begun to serve it", l.path),
			Hint:    "name another path with --socket or PM_SOCKET",
			Code:    CodeFailed,
		}
	}
	if err != nil {
		return fileID{}, denied(fmt.Sprintf("cannot put the socket at %s", l.path), err)
	}
	return id, nil
}

// exchange swaps the socket made with the stale one and removes that. If it
// gets hold of another than the stale one, it swaps back.
func (l *listener) exchange(made string, stale fileID) error {
	err := l.rename(made, unix.RENAME_EXCHANGE)
	if errors.Is(err, fs.ErrNotExist) { // somebody removed the stale one
		return l.rename(made, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return err
	}
	old, err := socketAt(made)
	if errors.Is(err, fs.ErrNotExist) { // a plain rename, see there
		return nil
	}
	if err != nil || old != stale {
		return errors.Join(fs.ErrExist, l.rename(made, unix.RENAME_EXCHANGE))
	}
	return os.Remove(made)
}

// rename moves made to the path. Where the file system knows no flags it is a
// plain rename, and the last of two daemons started at once has the path.
func (l *listener) rename(made string, flags uint) error {
	err := unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, l.path, flags)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return os.Rename(made, l.path)
	}
	return err
}

// denied makes a Problem of what the kernel refused.
func denied(tried string, err error) error {
	var p *Problem
	if errors.As(err, &p) {
		return err
	}
	if errors.Is(err, fs.ErrPermission) {
		return &Problem{
			Message: fmt.Sprintf("%s: %v", tried, err),
			Hint:    "name a path in a directory of your own with --socket or PM_SOCKET",
			Code:    CodePermission,
		}
	}
	return fmt.Errorf("%s: %w", tried, err)
}

// peerOf asks the kernel who is at the other end of conn.
func peerOf(conn net.Conn) (Peer, error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return Peer{}, fmt.Errorf("cannot tell who is at the other end of %T", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Peer{}, err
	}
	if credErr != nil {
		return Peer{}, fmt.Errorf("cannot read the peer's credentials: %w", credErr)
	}
	return Peer{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid)}, nil
}
