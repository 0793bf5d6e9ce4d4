package systemd_test

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"pm.example/systemd"
)

// from looks up variables in a table.
func from(variables map[string]string) func(string) string {
	return func(key string) string { return variables[key] }
}

func TestWatchdog(t *testing.T) {
	for _, c := range []struct {
		micros, pid string
		want        time.Duration
	}{
		{"2000000", "", 2 * time.Second},
		{"2000000", "7", 2 * time.Second},
		{"2000000", "8", 2 * time.Second},
		{"2000000", "9", 0},
		{"2000000", "x", 0},
		{"", "7", 0},
		{"0", "7", 0},
		{"-1", "7", 0},
		{"18446744073709551615", "7", 0},
		{"9223372036854775807", "7", 0},
	} {
		m := systemd.FindManager(from(map[string]string{
			"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": c.micros, "WATCHDOG_PID": c.pid,
		}), 7, 8)
		if m.Watchdog != c.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %s, want %s", c.micros, c.pid, m.Watchdog, c.want)
		}
	}
}

func TestTell(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "s"), "@" + t.Name() + time.Now().String()} {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		m := systemd.FindManager(from(map[string]string{"NOTIFY_SOCKET": name}))
		if !m.Exists() {
			t.Errorf("%s: there is no manager", name)
		}
		if err := m.Tell(systemd.Ready, systemd.Status("a\nb"), systemd.ExtendTimeout(time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, err := conn.Read(buf)
		if got, want := string(buf[:n]), "READY=1\nSTATUS=a b\nEXTEND_TIMEOUT_USEC=1000000"; err != nil || got != want {
			t.Errorf("the manager hears %q, %v; want %q", got, err, want)
		}
	}
}

func TestNoManager(t *testing.T) {
	for _, name := range []string{"", "relative", "vsock:2:1234"} {
		m := systemd.FindManager(from(map[string]string{"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000"}))
		if err := m.Tell(systemd.Ready); err != nil || m.Exists() || m.Watchdog != 0 {
			t.Errorf("%q is a manager: %v, %s", name, err, m.Watchdog)
		}
	}
	gone := systemd.FindManager(from(map[string]string{"NOTIFY_SOCKET": filepath.Join(t.TempDir(), "gone")}))
	if err := gone.Tell(systemd.Ready); err == nil {
		t.Error("nobody says that the manager is gone")
	}
}
