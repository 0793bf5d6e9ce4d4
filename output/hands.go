package output

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// hands are what a loop works with: a buffer, and a pipe of its own for looking at
// what another holds.
type hands struct {
	buf     []byte
	scratch *[2]int // nil: not needed yet
}

// buffer returns size bytes, until the next call.
func (h *hands) buffer(size int) []byte {
	if len(h.buf) < size {
		h.buf = make([]byte, size)
	}
	return h.buf[:size]
}

// peek returns what a pipe holds, and leaves it there. The error is EAGAIN when it
// holds nothing, and [io.EOF] at its end. The bytes stand until the next call.
func (h *hands) peek(pipe int) ([]byte, error) {
	if err := h.open(); err != nil {
		return nil, err
	}
	size, err := retry(func() (int64, error) {
		n, err := unix.Tee(pipe, h.scratch[1], largePipe, unix.SPLICE_F_NONBLOCK)
		return int64(n), err
	})
	switch {
	case err != nil:
		return nil, err
	case size == 0:
		return nil, io.EOF
	}
	// Never more than there are pages in the scratch pipe, and a page is 4 KiB or
	// what a program has handed over by vmsplice, of which nothing is larger.
	data := h.buffer(int(size))
	for got := 0; got < len(data); {
		n, err := unix.Read(h.scratch[0], data[got:])
		if err != nil && !errors.Is(err, unix.EINTR) || n == 0 {
			return nil, fmt.Errorf("cannot read what a pipe holds: %d of %d bytes: %w", got, size, err)
		}
		got += max(n, 0)
	}
	return data, nil
}

// open makes the scratch pipe. It is as large as those that it looks at, or where
// the kernel refuses that, shows what fits.
func (h *hands) open() error {
	if h.scratch != nil {
		return nil
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	_, _ = unix.FcntlInt(uintptr(p[0]), unix.F_SETPIPE_SZ, largePipe)
	h.scratch = &p
	return nil
}

func (h *hands) close() {
	if h.scratch != nil {
		_, _ = unix.Close(h.scratch[0]), unix.Close(h.scratch[1])
		h.scratch = nil
	}
}

// retry calls fn until no signal interrupts it.
func retry(fn func() (int64, error)) (int64, error) {
	for {
		n, err := fn()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// over reports whether nobody has the writing end of a pipe any more.
func over(pipe int) bool {
	fds := []unix.PollFd{{Fd: int32(pipe), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&unix.POLLHUP != 0
}
