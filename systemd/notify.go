package systemd

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Manager is the service manager that has started this process. The zero value
// is none: telling it something does nothing. It may be used by many goroutines.
type Manager struct {
	// Watchdog is how long the manager waits for a [Manager.Alive] before it takes
	// the service for dead; 0: for ever.
	Watchdog time.Duration

	address *net.UnixAddr // nil: there is none
}

// FindManager finds the manager by the variables of sd_notify(3) and
// sd_watchdog_enabled(3), which stay as they are. The watchdog is that of a
// process with one of the given pids, or of whoever asks.
func FindManager(getenv func(string) string, pids ...int) Manager {
	name := getenv("NOTIFY_SOCKET")
	if !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "@") {
		return Manager{} // none, or not on this machine
	}
	if name[0] == '@' {
		name = "\x00" + name[1:]
	}
	return Manager{
		Watchdog: watchdog(getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID"), pids),
		address:  &net.UnixAddr{Name: name, Net: "unixgram"},
	}
}

func watchdog(micros, pid string, pids []int) time.Duration {
	n, err := strconv.ParseInt(micros, 10, 64)
	if err != nil || n <= 0 || n > int64(longestWatchdog/time.Microsecond) {
		return 0
	}
	if meant, err := strconv.Atoi(pid); pid != "" && (err != nil || !slices.Contains(pids, meant)) {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// longestWatchdog is more than anyone asks for: beyond it there is none.
const longestWatchdog = 10000 * time.Hour

// Exists reports whether there is a manager.
func (m Manager) Exists() bool { return m.address != nil }

// tellPatience is how long a manager that takes nothing holds up who tells it.
const tellPatience = time.Second

// Tell sends the manager assignments of sd_notify(3), such as [Ready]. The error
// is for those who want to say that the manager does not hear.
func (m Manager) Tell(lines ...string) error {
	if m.address == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, m.address)
	if err != nil {
		return fmt.Errorf("cannot reach the service manager: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetWriteDeadline(time.Now().Add(tellPatience))
	if _, err := conn.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		return fmt.Errorf("cannot tell the service manager: %w", err)
	}
	return nil
}

// The assignments that need no value of the caller's.
const (
	Ready    = "READY=1"    // clients are served
	Stopping = "STOPPING=1" // the end has begun
	Alive    = "WATCHDOG=1" // the watchdog need not bite
)

// Status tells people what the service does, in one line.
func Status(text string) string { return "STATUS=" + strings.ReplaceAll(text, "\n", " ") }

// ExtendTimeout asks for this much more time, from now on, for a start or a stop
// that is under way.
func ExtendTimeout(d time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds())
}

// Reloading tells that a configuration is being read; [Ready] ends that. The
// clock is what services of Type=notify-reload have to send.
func Reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil { // never, for this clock
		return "RELOADING=1"
	}
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/int64(time.Microsecond))
}

// Files returns the sockets that were opened for this process, sd_listen_fds(3),
// by their names, and takes the variables that tell of them out of the
// environment: nobody else is to take them for his. Each is closed by an
// execve(2). There are none where the variables name another process.
func Files() (files []*os.File) {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > mostFiles || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, key := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(key)
	}
	for i := range n {
		name := "listen"
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		unix.CloseOnExec(firstFile + i)
		files = append(files, os.NewFile(uintptr(firstFile+i), name))
	}
	return files
}

// Descriptors of passed files: the first, and a bound on how many there are.
const (
	firstFile = 3
	mostFiles = 1024
)
