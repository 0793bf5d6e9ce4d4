package ship

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// streamSink is a connection over TCP, TLS or a Unix socket.
type streamSink struct {
	conn net.Conn      // what lines are written to
	wire *countingConn // the connection itself: conn, or what is below TLS
	raw  syscall.RawConn
	eof  chan struct{} // closed when the other end has closed in order
	gone chan struct{} // closed when nothing more can be read
}

// countingConn counts what is written to a connection.
type countingConn struct {
	net.Conn
	n atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// farewell is how long a receiver that has acknowledged everything may take to
// close the connection after it was told that nothing more comes.
const farewell = 2 * time.Second

// How long a receiver may take nothing at all, while there is something for it,
// until the connection counts as broken.
const (
	silence        = time.Minute
	serviceSilence = 10 * time.Second // of a service: others can take over
)

func openStream(ctx context.Context, r Receiver, o *Options, over func(error)) (sink, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: o.KeepAlive > 0, Idle: o.KeepAlive, Interval: o.KeepAlive}}
	conn, err := d.DialContext(ctx, r.transport(), r.Address)
	if err != nil {
		return nil, err
	}
	s := &streamSink{wire: &countingConn{Conn: conn}, eof: make(chan struct{}), gone: make(chan struct{})}
	if s.raw, err = conn.(syscall.Conn).SyscallConn(); err == nil {
		err = s.secure(ctx, r)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if r.transport() == "tcp" {
		_ = s.raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.silence/time.Millisecond))
		})
	}
	go s.watch(over) // ends with the connection
	return s, nil
}

// secure begins TLS, if the receiver wants it.
func (s *streamSink) secure(ctx context.Context, r Receiver) error {
	if s.conn = s.wire; r.Network != "tls" {
		return nil
	}
	config, err := r.tlsConfig()
	if err != nil {
		return err
	}
	secured := tls.Client(s.wire, config)
	s.conn = secured
	return secured.HandshakeContext(ctx)
}

// tlsConfig reads the files that the receiver names. They are read for each
// connection, so that renewed ones are used.
func (r Receiver) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{ServerName: r.Name, MinVersion: tls.VersionTLS12}
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(r.Address)
	}
	if r.CA != "" {
		pem, err := os.ReadFile(r.CA)
		if err != nil {
			return nil, fmt.Errorf("cannot read the authorities: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM form", r.CA)
		}
	}
	if r.Cert != "" {
		pair, err := tls.LoadX509KeyPair(r.Cert, r.Key)
		if err != nil {
			return nil, fmt.Errorf("cannot use certificate %s with key %s: %w", r.Cert, r.Key, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// watch reads what the receiver says, which means nothing, until the connection
// ends, and tells how.
func (s *streamSink) watch(over func(error)) {
	defer close(s.gone)
	_, err := io.Copy(io.Discard, s.conn)
	if err == nil {
		close(s.eof)
		err = io.EOF
	}
	over(err)
}

func (s *streamSink) write(lines []byte) error {
	_, err := s.conn.Write(lines)
	return err
}

func (s *streamSink) written() int64 { return s.wire.n.Load() }

// acked asks the kernel what it still holds. For TCP that is what the other
// kernel has not acknowledged; for a Unix socket it is at least what the other
// process has not read.
func (s *streamSink) acked() int64 {
	held, err := 0, error(nil)
	if failed := s.raw.Control(func(fd uintptr) { held, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); failed != nil || err != nil {
		return 0
	}
	return max(s.written()-int64(held), 0)
}

// errUnread says that a receiver was not seen to read everything.
var errUnread = errors.New("the connection ended before everything was read")

// finish closes the direction to the receiver. One that has read everything
// sees the end and closes the other direction; one that dies with bytes unread
// resets the connection.
func (s *streamSink) finish(ctx context.Context) error {
	if secured, ok := s.conn.(*tls.Conn); ok {
		_ = secured.CloseWrite()
	}
	half, ok := s.wire.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errUnread
	}
	if err := half.CloseWrite(); err != nil {
		return err
	}
	return s.await(ctx)
}

// await waits until the receiver has closed the connection, or has acknowledged
// everything and does not close it.
func (s *streamSink) await(ctx context.Context) error {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	var since time.Time
	for {
		select {
		case <-s.gone:
			select {
			case <-s.eof:
				return nil
			default:
				return errUnread
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-look.C:
			switch {
			case s.acked() < s.written():
				since = time.Time{}
			case since.IsZero():
				since = now
			case now.Sub(since) > farewell:
				return nil
			}
		}
	}
}

func (s *streamSink) interrupt() { _ = s.conn.SetDeadline(time.Unix(1, 0)) }

// close ends the connection and waits for watch.
func (s *streamSink) close() {
	_ = s.wire.Close()
	<-s.gone
}
