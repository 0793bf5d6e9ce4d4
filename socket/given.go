package socket

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// given is a control socket that somebody else has made and will remove: its
// path, its mode and its owner are not this process's affair.
type given struct {
	*net.UnixListener
	gid int // -1: no group
}

// Given returns the control socket that is among the files, as they come by
// socket activation: the first Unix stream socket that listens. It is nil if
// there is none. Closing the listener neither removes the socket nor ends the
// file, behind which clients may wait for the next daemon.
func Given(files []*os.File, opts ListenOptions) (net.Listener, error) {
	gid, err := groupID(opts.Group)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if !listens(f) {
			continue
		}
		l, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("cannot serve on the socket %s that was passed: %w", f.Name(), err)
		}
		return given{l.(*net.UnixListener), gid}, nil
	}
	return nil, nil
}

// listens reports whether a file is a Unix stream socket that listens.
func listens(f *os.File) bool {
	for option, want := range map[int]int{
		unix.SO_DOMAIN: unix.AF_UNIX, unix.SO_TYPE: unix.SOCK_STREAM, unix.SO_ACCEPTCONN: 1,
	} {
		got, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, option)
		if err != nil || got != want {
			return false
		}
	}
	return true
}
