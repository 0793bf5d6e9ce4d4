package subcmd

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
)

// A panic in a request must end the worker, which net/http would not let it.
func TestCrash(t *testing.T) {
	const asked = "PM_TEST_CRASH"
	if os.Getenv(asked) != "" {
		defer func() { _ = recover() }() // as net/http does
		crash("at the disco")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrash$")
	cmd.Env = append(os.Environ(), asked+"=1")
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 2 || !bytes.Contains(out, []byte("panic: at the disco")) {
		t.Errorf("exit code %d: %s", cmd.ProcessState.ExitCode(), out)
	}
}
