package subcmd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pm.example/runner"
	"pm.example/systemd"
	"pm.example/task"
)

func TestStatusText(t *testing.T) {
	up := func(program string) runner.Instance {
		return runner.Instance{Name: program, Program: program, Status: task.StatusRunning, PID: 7, Desired: true, OK: true}
	}
	down := func(program string, status task.Status, desired, ok bool) runner.Instance {
		return runner.Instance{Name: program, Program: program, Status: status, Desired: desired, OK: ok}
	}
	second := down("web", task.StatusBackoff, true, false)
	second.Name = "web:1"
	var many []runner.Instance
	for n := range 5 {
		many = append(many, down(fmt.Sprint("p", n), task.StatusFatal, true, false))
	}
	dying := runner.Instance{Name: "web", Program: "web", Status: task.StatusStopping, PID: 7, OK: true}
	for _, c := range []struct {
		list     []runner.Instance
		stopping bool
		want     string
	}{
		{nil, false, "0 of 0 programs run"},
		{[]runner.Instance{up("a"), up("b")}, false, "2 of 2 programs run"},
		// what was stopped by hand, and what has done its work, is not missed
		{[]runner.Instance{up("a"), down("b", task.StatusStopped, false, true), down("c", task.StatusExited, true, true)}, false, "1 of 1 programs run"},
		// a program runs if all its instances do
		{[]runner.Instance{up("web"), second}, false, "0 of 1 programs run; web:1 is BACKOFF"},
		{many, false, "0 of 5 programs run; p0 is FATAL; p1 is FATAL; p2 is FATAL; and 2 more"},
		{[]runner.Instance{dying, down("b", task.StatusStopped, false, true)}, true, "stopping: programs left: 1"},
		{nil, true, "stopping: programs left: 0"},
	} {
		if got := statusText(c.list, c.stopping); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// A manager that could not be told of the beginning of a reload hears of it before the
// end; and of the end later, if it could not be told of that.
func TestReloadIsToldAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	a := newAnnouncer(func(key string) string { return map[string]string{"NOTIFY_SOCKET": path}[key] }, nil, nil)
	a.ready.Store(true)
	done := a.reloading()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done()
	buf := make([]byte, 4096)
	for _, want := range []string{"RELOADING=1", systemd.Ready} {
		_ = conn.SetReadDeadline(time.Now().Add(moment))
		n, err := conn.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), want) {
			t.Errorf("told %q, %v, want %s", buf[:n], err, want)
		}
	}
	done = a.reloading()
	_ = conn.Close()
	_ = os.Remove(path)
	if done(); a.ready.Load() || a.beat() != tellAgain {
		t.Errorf("ready: %v, told again after %s", a.ready.Load(), a.beat())
	}
	if a.tell(systemd.Alive); a.beat() != 2*tellAgain {
		t.Errorf("told again after %s", a.beat())
	}
}
