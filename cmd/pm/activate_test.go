package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// activate is the program
//
//	activate PATH CMD ARG…
//
// which becomes CMD with a Unix socket that listens at PATH as its descriptor 3,
// in the way of sd_listen_fds(3). It does not remove the socket. With - for PATH
// the socket is one of a pair whose other end was closed.
func activate() {
	if err := becomeActivated(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "activate:", err)
		os.Exit(1)
	}
}

func becomeActivated(path string, argv []string) error {
	binary, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	fd, err := activation(path)
	if err != nil {
		return err
	}
	// Descriptor 3 may be one of the runtime, which the execve(2) would close: nothing
	// uses it from here on.
	if err := syscall.Dup3(fd, 3, 0); err != nil {
		return err
	}
	for key, value := range map[string]string{"LISTEN_FDS": "1", "LISTEN_PID": strconv.Itoa(os.Getpid()), "LISTEN_FDNAMES": "pm.socket"} {
		if err := os.Setenv(key, value); err != nil {
			return err
		}
	}
	return syscall.Exec(binary, argv, os.Environ())
}

// activation returns a descriptor, for good, of the socket to pass.
func activation(path string) (int, error) {
	if path == "-" {
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			return -1, err
		}
		return pair[1], syscall.Close(pair[0])
	}
	_ = os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return -1, err
	}
	defer func() { _ = l.Close() }()
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		return -1, err
	}
	defer func() { _ = f.Close() }()
	return syscall.Dup(int(f.Fd()))
}
