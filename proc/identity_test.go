package proc

import (
	"os/exec"
	"testing"
)

// Who has been killed is known to end, also as long as nobody has asked how.
func TestEnding(t *testing.T) {
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := Identify(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if id.Ending() {
		t.Error("it lives")
	}
	if other := (Identity{PID: id.PID, Start: id.Start + 1}); !other.Ending() {
		t.Error("another process of that pid is taken for it")
	}
	_ = child.Process.Kill()
	if !id.Ending() { // the signal is pending, it is a zombie, or something in between
		t.Error("it was killed")
	}
	_ = child.Wait()
	if !id.Ending() {
		t.Error("it is gone")
	}
}
