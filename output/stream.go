package output

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// Repeated stands before what a killed process may have sent already.
const Repeated = "[lines may be repeated here]"

// streamSize is how much is written to a stream at once: what a pipe takes whole or
// not at all.
const streamSize = 4 << 10

// stream is a target without an end: a terminal, a FIFO, a device.
type stream struct {
	path    string
	own     int // a descriptor of this process that is meant; -1: path
	options FileOptions

	fd     int // -1: closed
	socket bool
	text   []byte // what is left of the lines that are being written
	used   int    // how many bytes they had
}

// NewStream returns a target that writes lines into what is at a path and is no
// regular file, or whose end others move. Of the options those count that change
// lines.
func NewStream(path string, o FileOptions) Target {
	return &stream{path: path, own: -1, options: o, fd: -1}
}

// NewInherited returns a target that writes into a descriptor that this process was
// started with.
func NewInherited(fd int, o FileOptions) Target {
	return &stream{path: "/proc/self/fd/" + strconv.Itoa(fd), own: fd, options: o, fd: -1}
}

// Send implements [Target].
func (t *stream) Send(p Printed) (int, error) {
	if err := t.open(); err != nil {
		return 0, err
	}
	if len(t.text) == 0 {
		t.text, t.used = t.options.format(parcel{data: p.Data, at: p.At, instance: p.Instance, stream: p.Stream}, streamSize, false)
		if p.Repeated {
			t.text = append([]byte(Repeated+"\n"), t.text...)
		}
	}
	for len(t.text) > 0 {
		n, err := t.write(t.text)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		t.text = t.text[max(n, 0):]
	}
	return t.used, nil
}

// write writes what goes at once. It never waits, and never makes somebody else's
// descriptor such that it does not.
func (t *stream) write(b []byte) (int, error) {
	if t.socket {
		return unix.SendmsgN(t.fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
	return unix.Write(t.fd, b)
}

func (t *stream) open() (err error) {
	if t.fd >= 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(t.path, &st); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if t.socket = kind == unix.S_IFSOCK; t.own >= 0 && (t.socket || kind == unix.S_IFREG) {
		// A socket cannot be opened by its name, and a file would have two ends then.
		t.fd, err = unix.FcntlInt(uintptr(t.own), unix.F_DUPFD_CLOEXEC, 3)
		return err
	}
	fd, err := unix.Open(t.path, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENXIO) && kind == unix.S_IFIFO:
		return errors.New("nobody reads it")
	case err != nil:
		return err
	}
	t.fd = fd
	return nil
}

// Close implements [Target].
func (t *stream) Close() {
	if t.fd >= 0 {
		_ = unix.Close(t.fd)
		t.fd = -1
	}
	t.text = nil
}
