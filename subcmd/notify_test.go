package subcmd

import (
	"fmt"
	"testing"

	"pm.example/runner"
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
