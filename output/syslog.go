package output

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// SyslogSocket is where a syslog daemon takes messages of its machine.
const SyslogSocket = "/dev/log"

// syslogSize is the most of a line that goes with one message; RFC 5424, section 6.1,
// has receivers take 2048 bytes, and rsyslogd takes 8096 unless it is told otherwise.
const syslogSize = 7 << 10

// Facility and severities, as RFC 5424, section 6.2.1, numbers them.
const (
	facilityDaemon = 3
	severityError  = 3
	severityInfo   = 6
)

// syslog is a target that makes each line a message to a syslog daemon, in the form of
// syslog(3) that all of them know: RFC 3164 without the name of the machine.
type syslog struct {
	path    string
	options FileOptions
	fd      int // -1: closed
}

// NewSyslog returns a target that sends lines as messages to the socket at path. Their
// tag is the instance; what comes from stderr is an error, all else information. Longer
// lines than 7 KiB take several messages. Of the options those count that change lines.
func NewSyslog(path string, o FileOptions) Target {
	return &syslog{path: path, options: o, fd: -1}
}

// Send implements [Target].
func (t *syslog) Send(p Printed) (int, error) {
	if err := t.open(); err != nil {
		return 0, err
	}
	if p.Repeated {
		if err := t.send(p, []byte(Repeated)); err != nil {
			return 0, err
		}
	}
	line := firstPiece(p.Data, syslogSize)
	text, _ := t.options.format(parcel{data: line, at: p.At, instance: p.Instance, stream: p.Stream}, 1<<62, false)
	if err := t.send(p, bytes.TrimSuffix(text, []byte("\n"))); err != nil {
		return 0, err
	}
	return len(line), nil
}

// firstPiece returns the first line of data, or as much of it as is not too long.
func firstPiece(data []byte, size int) []byte {
	n := bytes.IndexByte(data, '\n') + 1
	if n > 0 && n <= size {
		return data[:n]
	}
	if n == 0 && len(data) <= size {
		return data
	}
	for n = size; n > size-utf8.UTFMax && !utf8.RuneStart(data[n]); n-- {
	}
	return data[:n]
}

func (t *syslog) send(p Printed, text []byte) error {
	severity := severityInfo
	if p.Stream == Stderr {
		severity = severityError
	}
	m := append([]byte("<"), strconv.Itoa(facilityDaemon*8+severity)...)
	m = p.At.Local().AppendFormat(append(m, '>'), "Jan _2 15:04:05 ")
	m = append(append(append(m, p.Instance...), ": "...), text...)
	_, err := unix.SendmsgN(t.fd, m, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return err
}

func (t *syslog) open() error {
	if t.fd >= 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: t.path}); err != nil {
		_ = unix.Close(fd)
		if errors.Is(err, unix.EPROTOTYPE) {
			return errors.New("it is no socket for datagrams")
		}
		return err
	}
	t.fd = fd
	return nil
}

// Close implements [Target].
func (t *syslog) Close() {
	if t.fd >= 0 {
		_ = unix.Close(t.fd)
		t.fd = -1
	}
}
