package systemd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// JournalSocket is where systemd-journald takes entries.
const JournalSocket = "/run/systemd/journal/socket"

// Priority is how urgent an entry is, as syslog(3) numbers it.
type Priority int

// Priorities that pm uses.
const (
	PriorityError   Priority = 3
	PriorityWarning Priority = 4
	PriorityInfo    Priority = 6
	PriorityDebug   Priority = 7
)

// Field is one field of an entry. Names consist of capital letters, digits and
// underscores; values may be any bytes.
type Field struct{ Name, Value string }

// Journal writes entries to the journal, in the protocol that systemd calls
// native. It may be used by many goroutines.
type Journal struct {
	path string

	mu   sync.Mutex    // guards conn
	conn *net.UnixConn // nil: it has to be connected anew
}

// OpenJournal connects to the journal whose socket is at path. The error tells
// that there is none.
func OpenJournal(path string) (*Journal, error) {
	j := &Journal{path: path}
	return j, j.connect()
}

func (j *Journal) connect() error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: j.path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("cannot reach systemd-journald: %w", err)
	}
	j.conn = conn
	return nil
}

// Send writes an entry of these fields. A journal that was started anew is
// connected to again; one that takes nothing holds up the caller for a second at
// most.
func (j *Journal) Send(fields ...Field) error {
	entry := encode(fields)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.conn != nil && j.send(entry) == nil {
		return nil
	}
	if j.conn != nil {
		_ = j.conn.Close()
		j.conn = nil
	}
	if err := j.connect(); err != nil {
		return err
	}
	if err := j.send(entry); err != nil {
		return fmt.Errorf("cannot write to the journal: %w", err)
	}
	return nil
}

// TrySend is Send for who must not wait: the error is EAGAIN if the journal takes
// nothing now. It does not connect anew.
func (j *Journal) TrySend(fields ...Field) error {
	entry := encode(fields)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.conn == nil {
		return net.ErrClosed
	}
	err := j.try(entry, nil)
	if !errors.Is(err, syscall.EMSGSIZE) && !errors.Is(err, syscall.ENOBUFS) {
		return err
	}
	file, err := sealed(entry)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	return j.try(nil, unix.UnixRights(int(file.Fd())))
}

// try sends a datagram if it can be sent at once. The caller holds j.mu.
func (j *Journal) try(entry, rights []byte) error {
	raw, err := j.conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), entry, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return true
	})
	return errors.Join(err, sent)
}

// Close ends the connection.
func (j *Journal) Close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.conn != nil {
		_ = j.conn.Close()
		j.conn = nil
	}
}

// send writes an entry as a datagram, or if it is too large for one, as a file.
// The caller holds j.mu.
func (j *Journal) send(entry []byte) error {
	_ = j.conn.SetWriteDeadline(time.Now().Add(tellPatience))
	_, err := j.conn.Write(entry)
	if !errors.Is(err, syscall.EMSGSIZE) && !errors.Is(err, syscall.ENOBUFS) {
		return err
	}
	file, err := sealed(entry)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	raw, err := j.conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), nil, unix.UnixRights(int(file.Fd())), nil, unix.MSG_NOSIGNAL)
		return sent != unix.EAGAIN
	})
	return errors.Join(err, sent)
}

// sealed returns a file in memory that can no longer change: the journal takes no
// other.
func sealed(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("journal-entry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "journal-entry")
	if _, err = file.Write(data); err == nil {
		_, err = unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("cannot hand a long entry to the journal: %w", err)
	}
	return file, nil
}

// encode lays out an entry. A value of more than one line goes with its length.
func encode(fields []Field) (entry []byte) {
	for _, f := range fields {
		entry = append(entry, f.Name...)
		if strings.Contains(f.Value, "\n") {
			entry = append(entry, '\n')
			entry = binary.LittleEndian.AppendUint64(entry, uint64(len(f.Value)))
		} else {
			entry = append(entry, '=')
		}
		entry = append(entry, f.Value...)
		entry = append(entry, '\n')
	}
	return entry
}

// FieldName makes a field's name of a key: what may not be in one becomes an
// underscore. The journal takes names of 64 bytes at most.
func FieldName(prefix, key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, prefix+key)
	return name[:min(len(name), 64)]
}

// OnJournal reports whether a file leads to the journal, which then reads a
// priority before each line: <3>. variable is the value of JOURNAL_STREAM, which
// tells the device and inode of what the service was started with.
func OnJournal(file *os.File, variable string) bool {
	info, err := file.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && variable == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
