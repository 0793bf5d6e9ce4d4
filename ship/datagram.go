package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// datagrams sends each line, with its newline, as a datagram of its own: many
// with one system call.
type datagrams struct {
	total
	conn     net.Conn
	raw      syscall.RawConn
	longest  int  // of a line
	lossy    bool // nobody has to listen
	counters *counters

	// The arguments of sendmmsg(2).
	messages [batchSize]message
	vectors  [batchSize]unix.Iovec
	filled   int // messages to send
	sent     int // of these
	errno    syscall.Errno
	send     func(fd uintptr) bool // s.sendBatch, made once
}

const (
	batchSize   = 256
	longestUDP  = 65507     // what fits into a datagram of IPv4
	longestUnix = 128 << 10 // below the kernel's default buffer
)

// message is the kernel's struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
}

func openDatagrams(ctx context.Context, r Receiver, o *Options, c *counters) (sink, error) {
	d := net.Dialer{Timeout: o.Timeout}
	conn, err := d.DialContext(ctx, r.Network, r.Address)
	if err != nil {
		return nil, err
	}
	s := &datagrams{conn: conn, longest: longestUnix, lossy: r.Network == "udp", counters: c}
	if s.lossy {
		s.longest = longestUDP
	}
	if s.raw, err = conn.(syscall.Conn).SyscallConn(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	s.send = s.sendBatch
	for i := range s.messages {
		s.messages[i].header.Iov = &s.vectors[i]
		s.messages[i].header.SetIovlen(1)
	}
	return s, nil
}

func (s *datagrams) write(lines []byte) error {
	all := len(lines)
	for len(lines) > 0 {
		lines = s.fill(lines)
		for s.sent = 0; s.sent < s.filled; {
			if err := s.flush(); err != nil {
				return err
			}
		}
	}
	s.total += total(all)
	return nil
}

// fill makes a batch of the first lines, and returns the others.
func (s *datagrams) fill(lines []byte) (rest []byte) {
	for s.filled = 0; s.filled < batchSize && len(lines) > 0; {
		end := bytes.IndexByte(lines, '\n') + 1
		if end == 0 {
			end = len(lines)
		}
		if end <= s.longest {
			s.vectors[s.filled].Base = &lines[0]
			s.vectors[s.filled].SetLen(end)
			s.filled++
		} else {
			s.counters.tooLong()
		}
		lines = lines[end:]
	}
	return lines
}

// flush sends as much of the batch as it can. An error of the network that an
// earlier datagram has met says nothing of this one, so it is sent again.
func (s *datagrams) flush() error {
	before := s.sent
	if err := s.raw.Write(s.send); err != nil {
		return err
	}
	switch {
	case s.errno == 0:
		return nil
	case s.errno == unix.EMSGSIZE:
		s.counters.tooLong()
		s.sent++
		return nil
	case s.lossy && s.sent == before && passing(s.errno):
		s.counters.failures.Add(1)
		return nil
	}
	return fmt.Errorf("cannot send: %w", s.errno)
}

// passing reports whether an error of a UDP socket is that of a datagram before:
// nobody listened, or there was no way.
func passing(errno syscall.Errno) bool {
	return errors.Is(errno, unix.ECONNREFUSED) || errno == unix.EINTR || errno == unix.ENOBUFS
}

// sendBatch calls sendmmsg(2) once; false waits until the socket has room.
func (s *datagrams) sendBatch(fd uintptr) bool {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&s.messages[s.sent])), uintptr(s.filled-s.sent), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	s.errno = errno
	if errno == unix.EAGAIN {
		return false
	}
	if errno == 0 {
		s.sent += int(n)
	}
	return true
}

func (s *datagrams) finish(context.Context) error { return nil }
func (s *datagrams) interrupt()                   { _ = s.conn.SetDeadline(time.Unix(1, 0)) }
func (s *datagrams) close()                       { _ = s.conn.Close() }
